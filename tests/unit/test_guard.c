/*
 * tests/unit/test_guard.c - IDEM_OPEN_SIGBUS_GUARD beside the host's own handler: what is not the store's goes where it would have gone, and there is
 * an end to how many stores are guarded.
 */
#include "support/support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define GUARDED 64

static char dir[160];

/* A page whose bytes are gone. */
static volatile char *gone_page(void)
{
    char name[] = "/dev/shm/idem-test-XXXXXX";
    int fd = mkstemp(name);
    CHECK(fd >= 0 && unlink(name) == 0 && ftruncate(fd, 4096) == 0);
    volatile char *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(page != MAP_FAILED && ftruncate(fd, 0) == 0);
    close(fd);
    return page;
}

static idem_store *open_guarded(void)
{
    idem_options o = support_options(16);
    o.flags |= IDEM_OPEN_SIGBUS_GUARD;
    return support_open(dir, &o);
}

static void on_the_hosts(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    support_save_counters();
    _exit(info->si_code == BUS_ADRERR ? 7 : 8);
}
static void on_the_hosts_old(int signal)
{
    (void)signal;
    support_save_counters();
    _exit(9);
}

enum host { NO_HANDLER, IGNORES, OLD_HANDLER, HANDLER };

static void fault_elsewhere(void *how)
{
    enum host host = (enum host)(intptr_t)how;
    struct sigaction act = {.sa_handler = host == NO_HANDLER ? SIG_DFL : host == IGNORES ? SIG_IGN : on_the_hosts_old};
    if (host == HANDLER) {
        act.sa_sigaction = on_the_hosts;
        act.sa_flags = SA_SIGINFO;
    }
    CHECK(sigaction(SIGBUS, &act, NULL) == 0 && setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}) == 0);
    idem_store *store = open_guarded();
    volatile char *page = gone_page();
    support_save_counters(); /* with no handler this is the end */
    (void)*page;
    idem_close(store);
}

static void a_fault_that_is_not_the_stores_goes_where_it_would_have_gone(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s", support_dir());
    CHECK_IS(support_reap(support_spawn(fault_elsewhere, (void *)HANDLER), SUPPORT_PATIENCE_MS), 7);
    CHECK_IS(support_reap(support_spawn(fault_elsewhere, (void *)OLD_HANDLER), SUPPORT_PATIENCE_MS), 9);
    CHECK_IS(support_reap(support_spawn(fault_elsewhere, (void *)NO_HANDLER), SUPPORT_PATIENCE_MS), 1000 + SIGBUS);
    CHECK_IS(support_reap(support_spawn(fault_elsewhere, (void *)IGNORES), SUPPORT_PATIENCE_MS), 1000 + SIGBUS);
    support_verify(dir);
}

static void only_so_many_stores_are_guarded_at_once(void **state)
{
    (void)state;
    static idem_store *stores[GUARDED];
    snprintf(dir, sizeof dir, "%s", support_dir());
    idem_options o = support_options(16);
    o.processes = GUARDED + 8;
    idem_close(support_open(dir, &o));
    for (int i = 0; i < GUARDED; i++)
        stores[i] = open_guarded();
    idem_store *more = NULL;
    o.flags |= IDEM_OPEN_SIGBUS_GUARD;
    CHECK_IS(idem_open(dir, &o, &more), IDEM_E_FULL);
    CHECK(more == NULL && strstr(idem_error_detail(), "IDEM_OPEN_SIGBUS_GUARD") != NULL);
    idem_close(stores[GUARDED / 2]);
    stores[GUARDED / 2] = open_guarded();
    for (int i = 0; i < GUARDED; i++)
        idem_close(stores[i]);
    support_verify(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fault_that_is_not_the_stores_goes_where_it_would_have_gone),
        cmocka_unit_test(only_so_many_stores_are_guarded_at_once),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
