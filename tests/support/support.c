/*
 * tests/support/support.c - see support.h.
 *
 * If the test process dies here: a small guardian process, forked by support_setup, sees it (pidfd) and removes the directory.
 */
#include "support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/point.h"

struct page {
    struct idem_clock_test clock;
    struct idem_a64 fault_on;
    struct idem_a64 fault_seen;
    struct idem_a64 why_taken;
    char fault[64];
    char why[512];
};

static struct page *page;
static char base[64];
static pid_t owner, guardian;

static struct {
    char name[64];
    unsigned left;
    void (*fn)(void *ctx);
    void *ctx;
} at_point;

/* ------------------------------------------------------------------ hooks */

static int on_fault(const char *name)
{
    if (load_acquire(&page->fault_on) == 0 || strcmp(name, page->fault) != 0)
        return 0;
    add_relaxed(&page->fault_seen, 1);
    return 1;
}

static void on_point(const char *name)
{
    if (at_point.left == 0 || (strcmp(at_point.name, "*") != 0 && strcmp(at_point.name, name) != 0))
        return;
    if (--at_point.left == 0)
        at_point.fn(at_point.ctx);
}

void support_fault(const char *name)
{
    store_release(&page->fault_on, 0);
    store_relaxed(&page->fault_seen, 0);
    snprintf(page->fault, sizeof page->fault, "%s", name != NULL ? name : "");
    store_release(&page->fault_on, name != NULL);
    idem_fault_hook = name != NULL ? on_fault : NULL;
}

uint64_t support_fault_seen(void)
{
    return load_relaxed(&page->fault_seen);
}

void support_at_point(const char *name, unsigned nth, void (*fn)(void *ctx), void *ctx)
{
    idem_point_hook = NULL;
    at_point.left = 0;
    if (name == NULL)
        return;
    snprintf(at_point.name, sizeof at_point.name, "%s", name);
    at_point.fn = fn;
    at_point.ctx = ctx;
    at_point.left = nth;
    idem_point_hook = on_point;
}

static _Thread_local uint64_t shaking;
static uint64_t shaking_seed;

static void on_point_shake(const char *name)
{
    (void)name;
    if (shaking == 0)
        shaking = (shaking_seed ^ (uintptr_t)&shaking) | 1;
    uint64_t r = support_random(&shaking);
    if (r % 16 == 0)
        sched_yield();
    else if (r % 256 == 1)
        nanosleep(&(struct timespec){.tv_nsec = (long)(r >> 10) % 400000}, NULL);
}

void support_shake(uint64_t seed)
{
    shaking = 0;
    shaking_seed = seed;
    idem_point_hook = on_point_shake;
}

#ifdef IDEM_COVERAGE
extern int __llvm_profile_write_file(void);
extern void __llvm_profile_reset_counters(void);
extern void __llvm_profile_set_filename(const char *name);
#endif

void support_save_counters(void)
{
#ifdef IDEM_COVERAGE
    if (page != NULL &&
        load_acquire(&page->fault_on) != 0) /* what runs with a seeded fault is not what the library does */
        return;
    const char *name = getenv("LLVM_PROFILE_FILE");
    if (name != NULL)
        __llvm_profile_set_filename(name); /* after a fork its pattern means another file */
    __llvm_profile_write_file();
    __llvm_profile_reset_counters();
#endif
}

void support_die(void *ctx)
{
    (void)ctx;
    raise(SIGKILL);
}

void support_stop(void *ctx)
{
    (void)ctx;
    raise(SIGSTOP);
}

/* ------------------------------------------------------------------ set-up */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *walk)
{
    (void)st;
    (void)type;
    (void)walk;
    remove(path);
    return 0;
}

void support_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *support_file_of(const char *dir, const char *prefix)
{
    static char path[300];
    char pattern[300];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/%s*", dir, prefix);
    CHECK_IS(glob(pattern, 0, NULL, &found), 0);
    snprintf(path, sizeof path, "%s", found.gl_pathv[0]);
    globfree(&found);
    return path;
}

static void guard(int pidfd)
{
    setsid(); /* a SIGKILL to the test's process group must not reach it */
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    while (poll(&p, 1, -1) < 0 && errno == EINTR)
        ;
    support_remove(base);
    _exit(0);
}

int support_setup(void **state)
{
    (void)state;
    owner = getpid();
    page = support_shared(sizeof *page);
    idem_clock_test = &page->clock;
    snprintf(base, sizeof base, "/dev/shm/idem-test-XXXXXX");
    if (mkdtemp(base) == NULL || chmod(base, 0711) != 0) {
        print_error("%s: %s; the tests need a tmpfs there\n", base, strerror(errno));
        return -1;
    }
    if (getenv("IDEM_TEST_FAULT") != NULL)
        support_fault(getenv("IDEM_TEST_FAULT"));
    fflush(NULL);
    int pidfd = (int)syscall(SYS_pidfd_open, owner, 0);
    guardian = pidfd < 0 ? -1 : fork();
    if (guardian == 0)
        guard(pidfd);
    if (pidfd >= 0)
        close(pidfd);
    return 0;
}

int support_teardown(void **state)
{
    (void)state;
    support_remove(base);
    if (guardian > 0)
        support_end(guardian);
    return 0;
}

const char *support_base(void)
{
    return base;
}

const char *support_dir(void)
{
    static char dirs[64][96];
    static unsigned n;
    char *dir = dirs[n % 64];
    snprintf(dir, sizeof dirs[0], "%s/s%u", base, n++);
    return dir;
}

bool support_long(void)
{
    return getenv("IDEM_TEST_LONG") != NULL;
}

long support_scaled(long n, long by)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return n / by;
#else
    (void)by;
    return n;
#endif
}

/* ------------------------------------------------------------------ time and chance */

int64_t support_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void support_sleep_ms(int64_t ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        ;
}

bool support_eventually(bool (*condition)(void *ctx), void *ctx, int64_t timeout_ms)
{
    int64_t end = support_now_ms() + timeout_ms;
    while (!condition(ctx)) {
        if (support_now_ms() >= end)
            return false;
        support_sleep_ms(1);
    }
    return true;
}

void support_clock_add(int64_t ms)
{
    add_relaxed(&page->clock.skew_ms, (uint64_t)ms);
}

void support_clock_stand(bool still)
{
    int64_t ms = idem_clock_raw_ms() - (int64_t)load_relaxed(&page->clock.skew_ms);
    store_relaxed(&page->clock.stands_ms, still ? (uint64_t)ms : 0);
    store_relaxed(&page->clock.wall_ms, 0);
}

void support_clock_machine(int64_t up_ms, int64_t wall_ms)
{
    store_relaxed(&page->clock.skew_ms, 0);
    store_relaxed(&page->clock.stands_ms, (uint64_t)up_ms);
    store_relaxed(&page->clock.wall_ms, (uint64_t)wall_ms);
}

void support_wall_add(int64_t ms)
{
    add_relaxed(&page->clock.wall_ms, (uint64_t)ms);
}

uint64_t support_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x * UINT64_C(0x2545F4914F6CDD1D) >> 16;
}

uint64_t support_seed(void)
{
    static uint64_t seed;
    if (seed == 0) {
        const char *given = getenv("IDEM_TEST_SEED");
        if (given != NULL)
            seed = strtoull(given, NULL, 0);
        else if (getrandom(&seed, 4, 0) != 4)
            seed = (uint64_t)support_now_ms();
        seed |= 1;
        print_message("IDEM_TEST_SEED=%" PRIu64 "\n", seed);
    }
    return seed;
}

void *support_shared(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        perror("mmap of shared memory for a test");
        abort();
    }
    return at;
}

/* ------------------------------------------------------------------ checks */

static void failed(const char *file, int line, const char *message)
{
    const char *name = strrchr(file, '/');
    name = name != NULL ? name + 1 : file;
    if (getpid() == owner) {
        print_error("%s:%d: %s\n", name, line, message);
        _fail(file, line);
        return;
    }
    uint64_t none = 0;
    if (cas_acq_rel(&page->why_taken, &none, 1))
        snprintf(page->why, sizeof page->why, "%s:%d: %s", name, line, message);
    if (load_acquire(&page->fault_on) == 0) /* with a seeded fault the failure is what is wanted */
        fprintf(stderr, "child %ld: %s:%d: %s\n", (long)getpid(), name, line, message);
    support_save_counters();
    _exit(SUPPORT_FAILED);
}

void support_check_failed(const char *file, int line, const char *what)
{
    failed(file, line, what);
}

void support_check_is(const char *file, int line, const char *what, long long value, long long wanted)
{
    if (value == wanted)
        return;
    char message[400];
    if (value < 0 && value >= IDEM_E_LOG_FOREIGN)
        snprintf(message, sizeof message, "%.100s is %lld (%s: %.150s), not %lld", what, value,
                 idem_strerror((int)value), idem_error_detail(), wanted);
    else
        snprintf(message, sizeof message, "%.200s is %lld, not %lld", what, value, wanted);
    failed(file, line, message);
}

void support_check_bytes(const char *file, int line, const char *what, const void *at, size_t bytes, const char *text)
{
    if (bytes == strlen(text) && (bytes == 0 || (at != NULL && memcmp(at, text, bytes) == 0)))
        return;
    char message[400];
    snprintf(message, sizeof message, "%.100s is '%.*s' (%zu bytes), not '%.100s'", what,
             at == NULL ? 0 : (int)(bytes < 100 ? bytes : 100), at == NULL ? "" : (const char *)at, bytes, text);
    failed(file, line, message);
}

const char *support_why(void)
{
    return page->why;
}

void support_forget_why(void)
{
    page->why[0] = '\0';
    store_release(&page->why_taken, 0);
}

/* ------------------------------------------------------------------ verify */

static void print_problem(void *ctx, const char *sentence)
{
    (void)ctx;
    if (load_acquire(&page->fault_on) == 0)
        fprintf(stderr, "verify: %s\n", sentence);
}

void support_verify(const char *dir)
{
    idem_report report = IDEM_REPORT_INIT;
    report.problem = print_problem;
    CHECK_IS(idem_verify(dir, &report), IDEM_OK);
    CHECK_IS(report.problems, 0);
}

/* ------------------------------------------------------------------ children */

pid_t support_spawn(void (*fn)(void *ctx), void *ctx)
{
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* whatever happens to its parent, no child is left behind */
        if (getppid() != parent && getpid() != 1)
            _exit(0);
        fn(ctx);
        fflush(NULL);
        support_save_counters();
        _exit(0);
    }
    CHECK(pid > 0);
    return pid;
}

int support_reap(pid_t pid, int64_t timeout_ms)
{
    int status = 0;
    int64_t end = support_now_ms() + timeout_ms;
    for (int64_t nap_us = 50;; nap_us = nap_us < 2000 ? nap_us * 2 : nap_us) {
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
        if (got < 0 && errno != EINTR)
            return SUPPORT_STUCK;
        if (support_now_ms() >= end) {
            support_end(pid);
            return SUPPORT_STUCK;
        }
        nanosleep(&(struct timespec){.tv_nsec = nap_us * 1000}, NULL);
    }
}

bool support_wait_stopped(pid_t pid, int64_t timeout_ms)
{
    int64_t end = support_now_ms() + timeout_ms;
    for (;;) {
        int status;
        pid_t got = waitpid(pid, &status, WNOHANG | WUNTRACED);
        if (got == pid)
            return WIFSTOPPED(status);
        if ((got < 0 && errno != EINTR) || support_now_ms() >= end)
            return false;
        support_sleep_ms(1);
    }
}

void support_kill(pid_t pid, int signal)
{
    if (pid > 0)
        kill(pid, signal);
}

void support_end(pid_t pid)
{
    support_kill(pid, SIGKILL);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

void support_in_child(void (*fn)(void *ctx), void *ctx)
{
    int how = support_reap(support_spawn(fn, ctx), SUPPORT_PATIENCE_MS);
    if (how == SUPPORT_FAILED)
        print_error("in a child: %s\n", support_why());
    support_forget_why();
    CHECK_IS(how, 0);
}

void support_caught(const char *fault, const char *how, ...)
{
    char text[600];
    va_list args;
    va_start(args, how);
    vsnprintf(text, sizeof text, how, args);
    va_end(args);
    print_message("caught: %s: %s\n", fault, text);
}

void support_promise(void (*check)(void *dir), const char *const faults[])
{
    support_in_child(check, (void *)(uintptr_t)support_dir());
    CHECK(faults[0] != NULL);
    for (int i = 0; faults[i] != NULL; i++) {
        support_forget_why();
        support_fault(faults[i]);
        int how = support_reap(support_spawn(check, (void *)(uintptr_t)support_dir()), SUPPORT_PATIENCE_MS);
        uint64_t seen = support_fault_seen();
        support_fault(NULL);
        if (how != SUPPORT_FAILED || seen == 0)
            print_error("seeded fault %s is not caught (met %lu times, the check ended with %d)\n", faults[i],
                        (unsigned long)seen, how);
        CHECK(seen > 0);
        CHECK_IS(how, SUPPORT_FAILED);
        support_caught(faults[i], "%s", support_why());
        support_forget_why();
    }
}
