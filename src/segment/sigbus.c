/*
 * segment/sigbus.c - optional: a store file that was truncated gives an error instead of the process's death.
 *
 * Owns: the SIGBUS handler (installed once, on request), a fixed table of guarded mappings. In the handler only
 * async-signal-safe work: find the view, set its poison flag, map anonymous memory over the missing page. Everything that
 * is not ours goes to the handler that was there before.
 * relaxed-in-this-file: the table is read by a handler in the thread that faulted; entries are set whole before use.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "segment/view.h"

#define GUARDED_MAX 64

static struct idem_a64 guarded[GUARDED_MAX]; /* struct idem_view pointers */
static struct sigaction previous;
static uintptr_t page_bytes;
static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;

static bool inside(const void *fault, const void *base, uint64_t bytes)
{
    return (uintptr_t)fault >= (uintptr_t)base && (uintptr_t)fault - (uintptr_t)base < bytes;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    int kept = errno;
    for (int i = 0; i < GUARDED_MAX; i++) {
        struct idem_view *v = (struct idem_view *)(uintptr_t)load_relaxed(&guarded[i]);
        if (v == NULL)
            continue;
        if (!inside(info->si_addr, v->root, v->fixed.root_bytes) &&
            !inside(info->si_addr, v->generation, v->generation_bytes))
            continue;
        store_relaxed(&v->poisoned, 1);
        void *page = (void *)((uintptr_t)info->si_addr & ~(page_bytes - 1));
        if (mmap(page, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
            MAP_FAILED) {
            errno = kept;
            return;
        }
    }
    errno = kept;
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(sig, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(sig);
    } else {
        struct sigaction standard = {.sa_handler = SIG_DFL};
        sigaction(SIGBUS, &standard, NULL); /* the access is made again and ends the process as it would have */
    }
}

int idem_guard_install(void)
{
    static bool installed;
    int e = IDEM_OK;
    pthread_mutex_lock(&install_lock);
    if (!installed) {
        page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
        struct sigaction ours;
        memset(&ours, 0, sizeof ours);
        ours.sa_sigaction = on_sigbus;
        ours.sa_flags = SA_SIGINFO | SA_NODEFER;
        sigemptyset(&ours.sa_mask);
        if (sigaction(SIGBUS, &ours, &previous) != 0)
            e = idem_fail_errno("sigaction(SIGBUS)");
        else
            installed = true;
    }
    pthread_mutex_unlock(&install_lock);
    return e;
}

int idem_guard_add(struct idem_view *view)
{
    for (int i = 0; i < GUARDED_MAX; i++) {
        uint64_t none = 0;
        if (cas_relaxed(&guarded[i], &none, (uint64_t)(uintptr_t)view))
            return IDEM_OK;
    }
    return idem_fail(IDEM_E_FULL, "IDEM_OPEN_SIGBUS_GUARD: %d guarded stores are open already in this process",
                     GUARDED_MAX);
}

void idem_guard_remove(struct idem_view *view)
{
    for (int i = 0; i < GUARDED_MAX; i++) {
        uint64_t mine = (uint64_t)(uintptr_t)view;
        cas_relaxed(&guarded[i], &mine, 0);
    }
}
