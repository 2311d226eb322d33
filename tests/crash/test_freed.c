/*
 * tests/crash/test_freed.c - who sleeps while he frees a slot, or opens a region, takes nothing away from those who have it after him.
 *
 * Between the look at a slot and at its header: the slot is claimed in place, forgotten and freed by another, and reserved and published by a third,
 * who is told that the key is his. The header names it until it is final: a sleeper that takes it out of there makes the claim invisible.
 * Between the look at a region that is free and at its meta word: it is used, recycled, and used again. A sleeper that puts the old life's number into that
 * word makes the counts of all that lies there another life's: the region seems to be empty.
 */
#include "support/support.h"

#include <signal.h>
#include <stdio.h>

static const char *dir;
static idem_store *store;
static struct told {
    struct idem_a64 verdict;
} * told;

static void forget_and_stop(void *unused)
{
    (void)unused;
    idem_store *s = support_attach(dir);
    idem_key k = support_key("k");
    support_at_point("operate.swapped", 1, support_stop, NULL);
    CHECK_IS(idem_forget(s, &k), IDEM_OK);
    idem_close(s);
}

static void claim_and_stop(void *unused)
{
    (void)unused;
    idem_store *s = support_attach(dir);
    support_at_point("claim.published", 1, support_stop, NULL);
    store_release(&told->verdict, (uint64_t)support_begin(s, "k", NULL));
    idem_close(s);
}

static pid_t stopped(void (*fn)(void *))
{
    pid_t pid = support_spawn(fn, NULL);
    CHECK(support_wait_stopped(pid, SUPPORT_PATIENCE_MS));
    return pid;
}

static void go_on(pid_t pid)
{
    support_kill(pid, SIGCONT);
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
}

static void the_key_is_one_owners(void *in)
{
    idem_key k = support_key("k");
    dir = in;
    store = support_open(dir, NULL);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_CLAIMED);
    support_clock_add(10);
    pid_t freer = stopped(forget_and_stop);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_CLAIMED); /* in place */
    support_clock_add(10);
    CHECK_IS(idem_forget(store, &k), IDEM_OK); /* and the slot is free */
    support_clock_add(10);
    pid_t owner = stopped(claim_and_stop);
    go_on(freer);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
    go_on(owner);
    CHECK_IS(load_acquire(&told->verdict), IDEM_CLAIMED);
    support_verify(dir);
    idem_close(store);
}

static void who_slept_while_freeing_hides_no_later_claim(void **state)
{
    (void)state;
    told = support_shared(sizeof *told);
    support_promise(the_key_is_one_owners, FAULTS("free.unlooked"));
}

/* ------------------------------------------------------------------ regions */

static void stop_and_die_soon(void *unused)
{
    support_stop(unused);
    support_at_point("region.meta", 1, support_die, NULL);
}

static void open_and_stop(void *unused)
{
    (void)unused;
    idem_store *s = support_attach(dir);
    support_at_point("region.found", 1, stop_and_die_soon, NULL);
    support_begin(s, "late", NULL);
}

static void claims_are_remembered(void *in)
{
    static char name[200][16];
    dir = in;
    store = support_open(dir, NULL);
    pid_t opener = stopped(open_and_stop);
    support_clock_add(10);
    support_answer(store, "first", 200, "in the region's first life");
    support_clock_add(48 * 3600 * INT64_C(1000));
    support_maintain(store);
    CHECK_IS(support_stats(store).regions_free, support_stats(store).regions);
    CHECK_IS(support_begin(store, "lost", NULL), IDEM_CLAIMED); /* in its second one */
    support_kill(opener, SIGCONT);
    CHECK_IS(support_reap(opener, SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
    support_clock_add(60000); /* the lease is over: what is remembered has to move */
    support_maintain(store);
    support_verify(dir);
    for (int i = 0; i < 200; i++) {
        snprintf(name[i], sizeof name[i], "%d", i);
        CHECK_IS(support_begin(store, name[i], NULL), IDEM_CLAIMED);
    }
    CHECK_IS(support_begin(store, "lost", NULL), IDEM_RECLAIMED);
    support_verify(dir);
    idem_close(store);
}

static void who_slept_while_opening_a_region_changes_nothing_of_its_later_lives(void **state)
{
    (void)state;
    support_promise(claims_are_remembered, FAULTS("region.unlooked"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_slept_while_freeing_hides_no_later_claim),
        cmocka_unit_test(who_slept_while_opening_a_region_changes_nothing_of_its_later_lives),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
