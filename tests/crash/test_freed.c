/*
 * tests/crash/test_freed.c - who sleeps while he frees a slot takes nothing away from those who have the slot after him.
 *
 * Between the look at a slot and at its header: the slot is claimed in place, forgotten and freed by another, and reserved and published by a third,
 * who is told that the key is his. The header names it until it is final: a sleeper that takes it out of there makes the claim invisible.
 */
#include "support/support.h"

#include <signal.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_slept_while_freeing_hides_no_later_claim),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
