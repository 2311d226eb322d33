/*
 * tests/multi/test_wait.c - waiting for another attempt: what ends a wait, who is woken, and that nothing that happens to the one
 * who completes leaves anybody waiting.
 */
#include "support/support.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#define WAITERS 6

static struct shared {
    const char *dir;
    struct idem_a64 verdicts[IDEM_TOMBSTONE + 2]; /* how many waiters came back with it; last: an error */
    struct idem_a64 transients, signals, flagged_ms, back_ms, token;
} * shared;

static idem_store *store;

static int fresh(void **state)
{
    (void)state;
    memset(shared, 0, sizeof *shared);
    shared->dir = support_dir();
    store = support_open(shared->dir, NULL);
    return 0;
}

static int over(void **state)
{
    (void)state;
    support_verify(shared->dir);
    idem_close(store);
    return 0;
}

static uint64_t came_back(int verdict)
{
    return load_acquire(&shared->verdicts[verdict < 0 ? IDEM_TOMBSTONE + 1 : verdict]);
}

/* Waits for "k"; whoever becomes its owner completes it. */
static void wait_for_k(void *unused)
{
    (void)unused;
    idem_store *mine = support_attach(shared->dir);
    idem_request rq = support_request("k");
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    int e = idem_wait(mine, &rq, SUPPORT_PATIENCE_MS, &claim, &reply);
    add_relaxed(&shared->verdicts[e < 0 ? IDEM_TOMBSTONE + 1 : e], 1);
    if (e == IDEM_CLAIMED || e == IDEM_RECLAIMED) {
        support_sleep_ms(20); /* others go on waiting, for this one now */
        CHECK_IS(support_complete(mine, &claim, 200, "by a waiter"), IDEM_OK);
    } else {
        CHECK_IS(e, IDEM_REPLAY);
        if (reply.flags & IDEM_REPLY_TRANSIENT)
            add_relaxed(&shared->transients, 1);
    }
    idem_reply_free(&reply);
    idem_close(mine);
}

static bool someone_waits(void *unused)
{
    (void)unused;
    idem_story story = IDEM_STORY_INIT;
    idem_key k = support_key("k");
    bool waits = idem_explain(store, &k, &story) == IDEM_OK && story.waiters;
    idem_story_free(&story);
    return waits;
}

static void start_waiters(pid_t pids[WAITERS])
{
    uint64_t before = support_stats(store).waited;
    for (int i = 0; i < WAITERS; i++)
        pids[i] = support_spawn(wait_for_k, NULL);
    int64_t end = support_now_ms() + SUPPORT_PATIENCE_MS;
    while (support_stats(store).waited < before + WAITERS && support_now_ms() < end)
        support_sleep_ms(1);
    CHECK_IS(support_stats(store).waited, before + WAITERS);
    CHECK(support_eventually(someone_waits, NULL, SUPPORT_PATIENCE_MS));
}

static void reap_waiters(pid_t pids[WAITERS])
{
    for (int i = 0; i < WAITERS; i++)
        CHECK_IS(support_reap(pids[i], SUPPORT_PATIENCE_MS), 0);
    CHECK_IS(came_back(-1), 0);
}

static void all_waiters_get_the_answer(void **state)
{
    (void)state;
    idem_claim claim;
    pid_t pids[WAITERS];
    CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
    start_waiters(pids);
    /* The word under the sleepers changes, the bit stays. */
    CHECK_IS(idem_renew(store, &claim, 0), IDEM_OK);
    CHECK_IS(idem_mark(store, &claim, "m", 1), IDEM_OK);
    CHECK_IS(idem_adopt(store, &claim), IDEM_OK);
    CHECK(someone_waits(NULL));
    CHECK_IS(support_complete(store, &claim, 200, "x"), IDEM_OK);
    CHECK(!someone_waits(NULL));
    reap_waiters(pids);
    CHECK_IS(came_back(IDEM_REPLAY), WAITERS);
}

static void all_waiters_get_a_transient_answer_and_nobody_repeats_the_failure(void **state)
{
    (void)state;
    idem_claim claim;
    pid_t pids[WAITERS];
    idem_response rs = support_response(500, "failed");
    rs.flags = IDEM_RESPONSE_TRANSIENT;
    CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
    start_waiters(pids);
    CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
    reap_waiters(pids);
    CHECK_IS(came_back(IDEM_REPLAY), WAITERS);
    CHECK_IS(load_relaxed(&shared->transients), WAITERS);
}

static void when_an_attempt_ends_without_an_answer_one_waiter_gets_the_key_and_the_others_its_answer(void **state)
{
    static const int verdicts[] = {IDEM_CLAIMED, IDEM_RECLAIMED, IDEM_RECLAIMED, IDEM_CLAIMED};
    for (int how = 0; how < 4; how++) {
        if (how > 0) {
            over(state);
            fresh(state);
        }
        idem_claim claim;
        pid_t pids[WAITERS];
        idem_key k = support_key("k");
        CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
        start_waiters(pids);
        if (how < 2)
            CHECK_IS(idem_abandon(store, &claim, how == 0 ? IDEM_NOTHING_HAPPENED : IDEM_OUTCOME_UNKNOWN), IDEM_OK);
        if (how == 2)
            CHECK_IS(idem_release(store, &k, 0), IDEM_OK);
        if (how == 3)
            CHECK_IS(idem_forget(store, &k), IDEM_OK);
        reap_waiters(pids);
        CHECK_IS(came_back(verdicts[how]), 1);
        CHECK_IS(came_back(IDEM_REPLAY), WAITERS - 1);
    }
}

static void own_k_until_told(void *how)
{
    idem_store *mine = support_attach(shared->dir);
    idem_claim claim;
    CHECK_IS(support_begin(mine, "k", &claim), IDEM_CLAIMED);
    store_release(&shared->token, claim.token);
    if (how != NULL) /* dies in the middle of completing */
        support_at_point(how, 1, support_die, NULL);
    while (how == NULL || !someone_waits(NULL))
        support_sleep_ms(1);
    support_complete(mine, &claim, 200, "by the dying");
    CHECK(false);
}

static bool token_is_there(void *unused)
{
    (void)unused;
    return load_acquire(&shared->token) != 0;
}

static void the_waiters_of_a_completer_that_dies_do_not_wait_for_its_lease(void **state)
{
    /* NULL: while it works. Before its CAS: the key is taken over. After it, before it wakes anybody: the answer stands. */
    static const char *const points[] = {NULL, "complete.filled", "swap.swapped"};
    for (size_t i = 0; i < 3; i++) {
        if (i > 0) {
            over(state);
            fresh(state);
        }
        pid_t pids[WAITERS], completer = support_spawn(own_k_until_told, (void *)(uintptr_t)points[i]);
        CHECK(support_eventually(token_is_there, NULL, SUPPORT_PATIENCE_MS));
        /* The child's "someone_waits" looks through its own copy of our handle; it must see all of them flagged first. */
        for (int w = 0; w < WAITERS; w++)
            pids[w] = support_spawn(wait_for_k, NULL);
        if (i == 0) {
            CHECK(support_eventually(someone_waits, NULL, SUPPORT_PATIENCE_MS));
            support_kill(completer, SIGKILL);
        }
        CHECK_IS(support_reap(completer, SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
        int64_t dead_ms = support_now_ms();
        reap_waiters(pids);
        CHECK(support_now_ms() - dead_ms < 25000); /* the lease is 30 s */
        CHECK_IS(came_back(IDEM_RECLAIMED), i == 2 ? 0 : 1);
        CHECK_IS(came_back(IDEM_REPLAY), i == 2 ? WAITERS : WAITERS - 1);
    }
}

static void the_waiters_of_a_stopped_owner_go_on_when_its_lease_ends(void **state)
{
    (void)state;
    pid_t pids[WAITERS], completer = support_spawn(own_k_until_told, NULL);
    CHECK(support_eventually(token_is_there, NULL, SUPPORT_PATIENCE_MS));
    support_kill(completer, SIGSTOP);
    start_waiters(pids);
    support_sleep_ms(250); /* longer than they sleep at once */
    CHECK_IS(came_back(IDEM_RECLAIMED), 0);
    support_clock_add(31000);
    reap_waiters(pids);
    CHECK_IS(came_back(IDEM_RECLAIMED), 1);
    CHECK_IS(came_back(IDEM_REPLAY), WAITERS - 1);
    support_end(completer);
}

static void a_waiter_that_is_killed_harms_nobody(void **state)
{
    (void)state;
    idem_claim claim;
    pid_t pids[WAITERS];
    CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
    start_waiters(pids);
    for (int i = 0; i < WAITERS; i += 2)
        support_end(pids[i]);
    CHECK_IS(support_complete(store, &claim, 200, "x"), IDEM_OK);
    for (int i = 1; i < WAITERS; i += 2)
        CHECK_IS(support_reap(pids[i], SUPPORT_PATIENCE_MS), 0);
    CHECK_IS(came_back(IDEM_REPLAY), WAITERS / 2);
}

/* ------------------------------------------------------------------ being woken, not only looking again */

static void note_flagged(void *unused)
{
    (void)unused;
    store_release(&shared->flagged_ms, (uint64_t)support_now_ms());
}

static void wait_once(void *unused)
{
    (void)unused;
    idem_store *mine = support_attach(shared->dir);
    idem_request rq = support_request("k");
    idem_claim claim;
    support_at_point("wait.flagged", 1, note_flagged, NULL);
    CHECK_IS(idem_wait(mine, &rq, SUPPORT_PATIENCE_MS, &claim, NULL), IDEM_REPLAY);
    store_release(&shared->back_ms, (uint64_t)support_now_ms());
    idem_close(mine);
}

static bool flagged(void *unused)
{
    (void)unused;
    return load_acquire(&shared->flagged_ms) != 0;
}

/* A waiter sleeps 100 ms at a time. If the answer comes at the beginning of that and it is back in the middle, it was woken. A busy
   machine may spoil a round, so one good round is enough; without waking there is none. */
static bool waiters_are_woken(int rounds)
{
    idem_key k = support_key("k");
    for (int i = 0; i < rounds; i++) {
        idem_claim claim;
        CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
        store_relaxed(&shared->flagged_ms, 0);
        pid_t pid = support_spawn(wait_once, NULL);
        CHECK(support_eventually(flagged, NULL, SUPPORT_PATIENCE_MS));
        support_sleep_ms(10); /* it is asleep, most likely */
        CHECK_IS(support_complete(store, &claim, 200, "x"), IDEM_OK);
        int64_t asleep_ms = (int64_t)load_acquire(&shared->flagged_ms), now_ms = support_now_ms();
        CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
        int64_t back_ms = (int64_t)load_acquire(&shared->back_ms);
        CHECK_IS(idem_forget(store, &k), IDEM_OK);
        if (now_ms - asleep_ms < 40 && back_ms - asleep_ms < 90)
            return true;
    }
    return false;
}

static void completing_wakes_the_waiter(void **state)
{
    (void)state;
    CHECK(waiters_are_woken(100));
}

static void the_check_for_waking_would_see_a_library_that_wakes_nobody(void **state)
{
    (void)state;
    support_fault("wake.none");
    bool woken = waiters_are_woken(5);
    uint64_t seen = support_fault_seen();
    support_fault(NULL);
    CHECK(!woken && seen >= 5);
    support_caught("wake.none", "a waiter was not woken");
}

/* ------------------------------------------------------------------ bounds */

static void a_wait_that_is_over_says_so_with_what_it_waited_for(void **state)
{
    (void)state;
    idem_request rq = support_request("k");
    idem_claim claim, none;
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK_IS(idem_wait(store, &rq, 0, &claim, NULL), IDEM_CLAIMED); /* nothing to wait for */
    int64_t before = support_now_ms();
    CHECK_IS(idem_wait(store, &rq, 0, &none, &reply), IDEM_E_TIMEOUT);
    CHECK_IS(none.token, 0);
    CHECK_IS(reply.token, claim.token);
    CHECK(reply.retry_after_ms > 0);
    CHECK_IS(idem_wait(store, &rq, 230, &none, &reply), IDEM_E_TIMEOUT);
    CHECK(support_now_ms() - before >= 200);
    CHECK_IS(reply.token, claim.token);
    rq.fingerprint = 3;
    CHECK_IS(idem_wait(store, &rq, SUPPORT_PATIENCE_MS, &none, &reply), IDEM_MISMATCH); /* no use waiting */
}

static void on_signal(int signal)
{
    (void)signal;
    add_relaxed(&shared->signals, 1);
}

static void wait_under_fire(void *unused)
{
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &act, NULL);
    wait_for_k(unused);
}

static void signals_do_not_interrupt_a_wait(void **state)
{
    (void)state;
    idem_claim claim;
    CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
    pid_t pid = support_spawn(wait_under_fire, NULL);
    CHECK(support_eventually(someone_waits, NULL, SUPPORT_PATIENCE_MS));
    for (int i = 0; i < 50; i++) {
        support_kill(pid, SIGUSR1);
        support_sleep_ms(2);
    }
    CHECK(load_relaxed(&shared->signals) > 0);
    CHECK_IS(came_back(IDEM_REPLAY), 0);
    CHECK_IS(support_complete(store, &claim, 200, "x"), IDEM_OK);
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
    CHECK_IS(came_back(IDEM_REPLAY), 1);
}

static void someone_who_polls_with_the_token_gets_what_a_waiter_gets(void **state)
{
    (void)state;
    idem_request rq = support_request("k");
    idem_claim claim, none;
    idem_reply reply = IDEM_REPLY_INIT;
    idem_response rs = support_response(500, "failed");
    rs.flags = IDEM_RESPONSE_TRANSIENT;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_wait(store, &rq, 1, &none, &reply), IDEM_E_TIMEOUT);
    rq.wait_token = reply.token;
    CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_IN_PROGRESS);
    CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_CLAIMED); /* another one goes first */
    CHECK_IS(idem_wait(store, &rq, SUPPORT_PATIENCE_MS, &none, &reply), IDEM_REPLAY);
    CHECK_IS(reply.flags, IDEM_REPLY_TRANSIENT);
    CHECK_BYTES(reply.body, reply.body_bytes, "failed");
    idem_reply_free(&reply);
}

int main(void)
{
    shared = support_shared(sizeof *shared);
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, over)
    const struct CMUnitTest tests[] = {
        TEST(all_waiters_get_the_answer),
        TEST(all_waiters_get_a_transient_answer_and_nobody_repeats_the_failure),
        TEST(when_an_attempt_ends_without_an_answer_one_waiter_gets_the_key_and_the_others_its_answer),
        TEST(the_waiters_of_a_completer_that_dies_do_not_wait_for_its_lease),
        TEST(the_waiters_of_a_stopped_owner_go_on_when_its_lease_ends),
        TEST(a_waiter_that_is_killed_harms_nobody),
        TEST(completing_wakes_the_waiter),
        TEST(the_check_for_waking_would_see_a_library_that_wakes_nobody),
        TEST(a_wait_that_is_over_says_so_with_what_it_waited_for),
        TEST(signals_do_not_interrupt_a_wait),
        TEST(someone_who_polls_with_the_token_gets_what_a_waiter_gets),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
