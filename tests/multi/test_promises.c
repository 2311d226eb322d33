/*
 * tests/multi/test_promises.c - what the library promises of owners, answers, fences and tokens: each sentence is a check, which
 * is also run with a fault seeded into the library, and must then fail.
 */
#include "support/support.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct shared {
    struct idem_a64 verdict, token, go;
    idem_claim claim;
} * shared;

static int fresh(void **state)
{
    (void)state;
    memset(shared, 0, sizeof *shared);
    return 0;
}

/* ------------------------------------------------------------------ 1. one owner */

static void claim_and_stop_before_publishing(void *dir)
{
    idem_store *store = support_attach(dir);
    support_at_point("claim.reserved", 1, support_stop, NULL);
    int verdict = support_begin(store, "k", NULL);
    store_release(&shared->verdict, (uint64_t)verdict);
    support_sleep_ms(SUPPORT_PATIENCE_MS);
}

static void two_claim_at_once(void *dir)
{
    store_relaxed(&shared->verdict, 0);
    idem_store *store = support_open(dir, NULL);
    pid_t pid = support_spawn(claim_and_stop_before_publishing, dir);
    CHECK(support_wait_stopped(pid, SUPPORT_PATIENCE_MS)); /* it has found the key absent, and reserved a slot */
    CHECK_IS(support_begin(store, "k", NULL), IDEM_CLAIMED);
    support_kill(pid, SIGCONT);
    CHECK(support_eventually(support_is_set, &shared->verdict, SUPPORT_PATIENCE_MS));
    CHECK_IS(load_acquire(&shared->verdict), IDEM_IN_PROGRESS);
    support_end(pid);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
    support_verify(dir);
}

static void of_all_concurrent_claims_of_a_key_at_most_one_is_told_it_is_yours(void **state)
{
    (void)state;
    support_promise(two_claim_at_once, FAULTS("claim.blind"));
}

static void take_over_and_stop_before_the_swap(void *dir)
{
    idem_store *store = support_attach(dir);
    support_at_point("takeover.filled", 1, support_stop, NULL);
    int verdict = support_begin(store, "k", NULL);
    store_release(&shared->verdict, (uint64_t)verdict);
    support_sleep_ms(SUPPORT_PATIENCE_MS);
}

static void two_take_over_at_once(void *dir)
{
    store_relaxed(&shared->verdict, 0);
    idem_claim claim;
    idem_store *store = support_open(dir, NULL);
    CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
    CHECK_IS(idem_abandon(store, &claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    pid_t pid = support_spawn(take_over_and_stop_before_the_swap, dir);
    CHECK(support_wait_stopped(pid, SUPPORT_PATIENCE_MS));
    CHECK_IS(support_begin(store, "k", NULL), IDEM_RECLAIMED);
    support_kill(pid, SIGCONT);
    CHECK(support_eventually(support_is_set, &shared->verdict, SUPPORT_PATIENCE_MS));
    CHECK_IS(load_acquire(&shared->verdict), IDEM_IN_PROGRESS);
    support_end(pid);
}

static void of_all_that_take_over_a_lost_attempt_one_gets_it(void **state)
{
    (void)state;
    support_promise(two_take_over_at_once, FAULTS("swap.blind"));
}

static void owner_keeps_it(void *dir)
{
    idem_claim claim;
    idem_store *store = support_open(dir, NULL), *other = support_attach(dir);
    CHECK_IS(support_begin(store, "completes", &claim), IDEM_CLAIMED);
    for (int i = 0; i < 3; i++) {
        CHECK_IS(support_begin(other, "completes", NULL), IDEM_IN_PROGRESS);
        support_clock_add(9000);
    }
    CHECK_IS(support_complete(store, &claim, 1, "x"), IDEM_OK);
    CHECK_IS(support_begin(other, "completes", NULL), IDEM_REPLAY);
    CHECK_IS(support_begin(store, "abandons", &claim), IDEM_CLAIMED);
    CHECK_IS(support_begin(other, "abandons", NULL), IDEM_IN_PROGRESS);
    CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
    CHECK_IS(support_begin(other, "abandons", NULL), IDEM_CLAIMED);
    CHECK_IS(support_begin(store, "loses its lease", &claim), IDEM_CLAIMED);
    CHECK_IS(support_begin(other, "loses its lease", NULL), IDEM_IN_PROGRESS);
    support_clock_add(claim.lease_ms + 1);
    CHECK_IS(support_begin(other, "loses its lease", NULL), IDEM_RECLAIMED);
}

static void an_owner_keeps_its_key_until_it_completes_abandons_or_loses_its_lease(void **state)
{
    (void)state;
    support_promise(owner_keeps_it, FAULTS("life.ignored", "lease.ignored"));
}

/* ------------------------------------------------------------------ 2. answers */

static void answer_stays(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    idem_claim claim;
    CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
    CHECK_IS(support_complete(store, &claim, 200, "the answer"), IDEM_OK);
    for (int i = 0; i < 23; i++) {
        idem_request rq = support_request("k");
        idem_claim none;
        idem_reply reply = IDEM_REPLY_INIT;
        CHECK_IS(support_complete(store, &claim, 500, "another one"), IDEM_OK);
        support_clock_add(3600 * 1000);
        support_maintain(store);
        CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_REPLAY);
        CHECK_IS(reply.status, 200);
        CHECK_BYTES(reply.body, reply.body_bytes, "the answer");
        idem_reply_free(&reply);
    }
}

static void a_stored_answer_never_changes_before_its_time_to_live_ends(void **state)
{
    (void)state;
    support_promise(answer_stays, FAULTS("answer.overwritten"));
}

static void other_keys_are_absent(void *dir)
{
    idem_options o = support_options(16); /* few buckets: many keys share home and tag with one that is there */
    idem_store *store = support_open(dir, &o);
    for (int i = 0; i < 40; i++) {
        char key[32];
        snprintf(key, sizeof key, "there-%d", i);
        support_answer(store, key, i, key);
    }
    for (int i = 0; i < 20000; i++) {
        char key[32];
        snprintf(key, sizeof key, "other-%d", i);
        idem_key k = support_key(key);
        CHECK_IS(idem_lookup(store, &k, NULL), IDEM_E_NO_KEY);
    }
}

static void an_answer_is_never_returned_for_another_key_although_its_hash_matches(void **state)
{
    (void)state;
    support_promise(other_keys_are_absent, FAULTS("key.not_compared"));
}

static void other_requests_mismatch(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    idem_request rq = support_request("k");
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    rq.fingerprint = idem_fingerprint(store, "pay 10", 6);
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(support_complete(store, &claim, 200, "paid 10"), IDEM_OK);
    rq.fingerprint = idem_fingerprint(store, "pay 99", 6);
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_MISMATCH);
    CHECK(reply.body == NULL);
}

static void an_answer_is_never_returned_for_another_request(void **state)
{
    (void)state;
    support_promise(other_requests_mismatch, FAULTS("fingerprint.ignored"));
}

/* ------------------------------------------------------------------ 3. fences and tokens */

enum late { LATE_COMPLETE, LATE_RENEW, LATE_ABANDON, LATE_MARK };

static void late_owner_does(void *dir, enum late what)
{
    idem_store *store = support_open(dir, NULL), *other = support_attach(dir);
    idem_claim old, new;
    idem_key k = support_key("k");
    idem_story before = IDEM_STORY_INIT, after = IDEM_STORY_INIT;
    CHECK_IS(support_begin(store, "k", &old), IDEM_CLAIMED);
    support_clock_add(old.lease_ms + 1);
    CHECK_IS(support_begin(other, "k", &new), IDEM_RECLAIMED);
    CHECK_IS(idem_explain(other, &k, &before), IDEM_OK);
    /* The thread's lane was used last in this view, and has a chunk for answers: a completion goes the straight way. */
    support_answer(store, "another key", 200, "x");
    int e = IDEM_OK;
    switch (what) {
    case LATE_COMPLETE:
        e = support_complete(store, &old, 500, "late");
        break;
    case LATE_RENEW:
        e = idem_renew(store, &old, 1000000);
        break;
    case LATE_ABANDON:
        e = idem_abandon(store, &old, IDEM_NOTHING_HAPPENED);
        break;
    case LATE_MARK:
        e = idem_mark(store, &old, "late", 4);
        break;
    }
    CHECK_IS(e, IDEM_E_LOST);
    CHECK_IS(idem_explain(other, &k, &after), IDEM_OK);
    CHECK_IS(after.state, IDEM_STATE_IN_PROGRESS);
    CHECK(after.token == new.token &&after.mark_bytes == 0 && after.lease_left_ms <= before.lease_left_ms);
    idem_story_free(&before);
    idem_story_free(&after);
    CHECK_IS(support_complete(other, &new, 200, "x"), IDEM_OK);
}

static void late_complete(void *dir)
{
    late_owner_does(dir, LATE_COMPLETE);
}
static void late_renew(void *dir)
{
    late_owner_does(dir, LATE_RENEW);
}
static void late_abandon(void *dir)
{
    late_owner_does(dir, LATE_ABANDON);
}
static void late_mark(void *dir)
{
    late_owner_does(dir, LATE_MARK);
}

static void a_late_owners_complete_changes_nothing_and_says_so(void **state)
{
    (void)state;
    support_promise(late_complete, FAULTS("fence.ignored", "claim.unchecked"));
}
static void a_late_owners_renew_changes_nothing_and_says_so(void **state)
{
    (void)state;
    support_promise(late_renew, FAULTS("fence.ignored"));
}
static void a_late_owners_abandon_changes_nothing_and_says_so(void **state)
{
    (void)state;
    support_promise(late_abandon, FAULTS("fence.ignored"));
}
static void a_late_owners_mark_changes_nothing_and_says_so(void **state)
{
    (void)state;
    support_promise(late_mark, FAULTS("fence.ignored"));
}

static void stop_in_complete_and_go_on(void *dir)
{
    idem_store *store = support_attach(dir);
    CHECK_IS(support_begin(store, "k", &shared->claim), IDEM_CLAIMED);
    support_at_point("complete.filled", 1, support_stop, NULL);
    int e = support_complete(store, &shared->claim, 500, "late");
    store_release(&shared->verdict, e == IDEM_E_LOST ? 1 : 2);
    support_sleep_ms(SUPPORT_PATIENCE_MS);
}

static void fence_holds_in_the_middle(void *dir)
{
    store_relaxed(&shared->verdict, 0);
    idem_store *store = support_open(dir, NULL);
    idem_claim claim;
    idem_request rq = support_request("k");
    idem_reply reply = IDEM_REPLY_INIT;
    pid_t pid = support_spawn(stop_in_complete_and_go_on, dir);
    CHECK(support_wait_stopped(pid, SUPPORT_PATIENCE_MS)); /* everything is ready, but for its swap */
    support_clock_add(31000);
    CHECK_IS(support_begin(store, "k", &claim), IDEM_RECLAIMED);
    CHECK_IS(support_complete(store, &claim, 200, "in time"), IDEM_OK);
    support_kill(pid, SIGCONT);
    CHECK(support_eventually(support_is_set, &shared->verdict, SUPPORT_PATIENCE_MS));
    CHECK_IS(load_acquire(&shared->verdict), 1);
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_REPLAY);
    CHECK_BYTES(reply.body, reply.body_bytes, "in time");
    idem_reply_free(&reply);
    support_end(pid);
}

static void an_owner_that_is_taken_over_in_the_middle_of_completing_is_fenced(void **state)
{
    (void)state;
    support_promise(fence_holds_in_the_middle, FAULTS("swap.blind"));
}

static void tokens_grow(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    idem_key k = support_key("k");
    uint64_t last = 0;
    for (int i = 0; i < 3000; i++) { /* within few ticks of the clock */
        idem_claim claim;
        int e = support_begin(store, "k", &claim);
        CHECK(e == IDEM_CLAIMED || e == IDEM_RECLAIMED);
        CHECK(claim.token > last);
        last = claim.token;
        if (i % 3 == 2)
            CHECK_IS(idem_forget(store, &k), IDEM_OK);
        else
            CHECK_IS(idem_abandon(store, &claim, i % 3), IDEM_OK);
    }
}

/* The first claim opens the thread's chunk, so that the second one goes the straight way (store/fresh.c). */
static void claim_and_stop_with_the_time_in_hand(void *dir)
{
    idem_store *store = support_attach(dir);
    idem_claim claim;
    CHECK_IS(support_begin(store, "another", NULL), IDEM_CLAIMED);
    support_at_point("claim.timed", 1, support_stop, NULL);
    CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
    store_release(&shared->verdict, claim.token);
    support_sleep_ms(SUPPORT_PATIENCE_MS);
}

static void tokens_grow_past_a_clock_that_was_read_early(void *dir)
{
    store_relaxed(&shared->verdict, 0);
    idem_store *store = support_open(dir, NULL);
    idem_key k = support_key("k");
    idem_claim claim;
    pid_t pid = support_spawn(claim_and_stop_with_the_time_in_hand, dir);
    CHECK(support_wait_stopped(pid, SUPPORT_PATIENCE_MS)); /* it knows what time it is, and has not looked yet */
    support_clock_add(100);
    CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
    support_clock_add(100);
    CHECK_IS(idem_forget(store, &k), IDEM_OK);
    support_kill(pid, SIGCONT);
    CHECK(support_eventually(support_is_set, &shared->verdict, SUPPORT_PATIENCE_MS));
    CHECK(load_acquire(&shared->verdict) > claim.token);
    support_end(pid);
    support_verify(dir);
}

static void a_token_is_larger_than_that_of_a_key_forgotten_while_its_claimant_slept(void **state)
{
    (void)state;
    support_promise(tokens_grow_past_a_clock_that_was_read_early, FAULTS("free.unsaid"));
}

static void every_claims_token_is_larger_than_those_of_all_attempts_on_the_key_before(void **state)
{
    (void)state;
    support_promise(tokens_grow, FAULTS("token.repeats", "free.young"));
}

static void loss_is_told(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    idem_request rq = support_request("k");
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_mark(store, &claim, "charge ch_123 sent", 18), IDEM_OK);
    support_clock_add(claim.lease_ms + 1);
    uint64_t lost = claim.token;
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_RECLAIMED);
    CHECK_IS(reply.lost_token, lost);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "charge ch_123 sent");
    idem_reply_free(&reply);
}

static void the_next_claimant_of_a_lost_attempt_is_told_so_and_gets_its_mark(void **state)
{
    (void)state;
    support_promise(loss_is_told, FAULTS("mark.forgotten", "loss.forgotten"));
}

static void held_is_held(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    idem_request rq = support_request("k");
    idem_claim claim;
    rq.flags = IDEM_HOLD;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    support_clock_add(claim.lease_ms + 1);
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_UNKNOWN);
}

static void a_held_key_is_redone_by_nobody(void **state)
{
    (void)state;
    support_promise(held_is_held, FAULTS("hold.ignored"));
}

static void transient_answer_is_found(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    idem_request rq = support_request("k");
    idem_claim claim, none;
    idem_response rs = support_response(503, "failed");
    rs.flags = IDEM_RESPONSE_TRANSIENT;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_CLAIMED); /* everyone else may try again at once */
    rq.wait_token = claim.token;
    CHECK_IS(idem_begin(store, &rq, &none, NULL), IDEM_REPLAY);
}

static void those_who_waited_get_a_transient_answer_even_after_the_next_claim(void **state)
{
    (void)state;
    support_promise(transient_answer_is_found, FAULTS("transient.forgotten"));
}

int main(void)
{
    shared = support_shared(sizeof *shared);
#define TEST(name) cmocka_unit_test_setup(name, fresh)
    const struct CMUnitTest tests[] = {
        TEST(of_all_concurrent_claims_of_a_key_at_most_one_is_told_it_is_yours),
        TEST(of_all_that_take_over_a_lost_attempt_one_gets_it),
        TEST(an_owner_keeps_its_key_until_it_completes_abandons_or_loses_its_lease),
        TEST(a_stored_answer_never_changes_before_its_time_to_live_ends),
        TEST(an_answer_is_never_returned_for_another_key_although_its_hash_matches),
        TEST(an_answer_is_never_returned_for_another_request),
        TEST(a_late_owners_complete_changes_nothing_and_says_so),
        TEST(a_late_owners_renew_changes_nothing_and_says_so),
        TEST(a_late_owners_abandon_changes_nothing_and_says_so),
        TEST(a_late_owners_mark_changes_nothing_and_says_so),
        TEST(an_owner_that_is_taken_over_in_the_middle_of_completing_is_fenced),
        TEST(a_token_is_larger_than_that_of_a_key_forgotten_while_its_claimant_slept),
        TEST(every_claims_token_is_larger_than_those_of_all_attempts_on_the_key_before),
        TEST(the_next_claimant_of_a_lost_attempt_is_told_so_and_gets_its_mark),
        TEST(a_held_key_is_redone_by_nobody),
        TEST(those_who_waited_get_a_transient_answer_even_after_the_next_claim),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
