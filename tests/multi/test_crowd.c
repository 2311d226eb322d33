/*
 * tests/multi/test_crowd.c - a thousand processes that live for a call or two, in a store with slots and lanes for eight at a time.
 */
#include "support/support.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define SEATS   8
#define AT_ONCE 4

enum way { CLOSES, JUST_EXITS, IS_KILLED, WAYS };

struct visitor {
    const char *dir;
    unsigned number;
};

static void key_of(unsigned number, char key[24])
{
    snprintf(key, 24, "visitor-%u", number);
}

static void visit(void *ctx)
{
    const struct visitor *v = ctx;
    char key[24];
    idem_claim claim;
    idem_store *store = support_attach(v->dir);
    key_of(v->number, key);
    CHECK_IS(support_begin(store, key, &claim), IDEM_CLAIMED);
    if (v->number % WAYS == IS_KILLED)
        raise(SIGKILL);
    CHECK_IS(support_complete(store, &claim, 200, key), IDEM_OK);
    if (v->number % WAYS == JUST_EXITS)
        _exit(0);
    idem_close(store);
}

static void short_lived_processes_leave_room_for_those_after_them(void **state)
{
    (void)state;
    unsigned n = (unsigned)support_scaled(1000, 5); /* both of them whole groups */
    idem_options o = support_options(2000);
    o.processes = SEATS;
    o.lanes = SEATS;
    const char *dir = support_dir();
    idem_close(
        support_open(dir, &o)); /* nobody stays: each comes to a store that no living process has open, or nearly so */
    struct visitor visitors[AT_ONCE];
    pid_t pids[AT_ONCE];
    for (unsigned first = 0; first < n; first += AT_ONCE) {
        for (unsigned i = 0; i < AT_ONCE; i++) {
            visitors[i] = (struct visitor){dir, first + i};
            pids[i] = support_spawn(visit, &visitors[i]);
        }
        for (unsigned i = 0; i < AT_ONCE; i++)
            CHECK_IS(support_reap(pids[i], SUPPORT_PATIENCE_MS), (first + i) % WAYS == IS_KILLED ? SUPPORT_KILLED : 0);
    }
    idem_store *store = support_attach(dir);
    for (unsigned i = 0; i < n; i++) {
        char key[24];
        key_of(i, key);
        CHECK_IS(support_begin(store, key, NULL), i % WAYS == IS_KILLED ? IDEM_RECLAIMED : IDEM_REPLAY);
    }
    idem_stats_data s = support_stats(store);
    CHECK_IS(s.completed, n - n / WAYS);
    CHECK_IS(s.reclaimed, n / WAYS);
    /* Each seat can be taken: this handle has one. */
    idem_store *others[SEATS - 1], *more;
    for (unsigned i = 0; i < SEATS - 1; i++)
        others[i] = support_attach(dir);
    CHECK(idem_open(dir, NULL, &more) < 0);
    for (unsigned i = 0; i < SEATS - 1; i++)
        idem_close(others[i]);
    idem_close(store);
    support_verify(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_lived_processes_leave_room_for_those_after_them),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
