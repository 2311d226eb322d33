/*
 * tests/unit/test_lost.c - attempts that are lost: who is told so, holding, resolving, releasing, forgetting, inherited marks.
 */
#include "support/support.h"

#include <string.h>

static idem_store *store;
static const char *dir;

static int fresh(void **state)
{
    (void)state;
    dir = support_dir();
    store = support_open(dir, NULL);
    return 0;
}

static int over(void **state)
{
    (void)state;
    support_verify(dir);
    idem_close(store);
    return 0;
}

static int ask(uint32_t flags, idem_claim *claim, idem_reply *reply)
{
    idem_request rq = support_request("k");
    rq.flags = flags;
    idem_reply_free(reply);
    return idem_begin(store, &rq, claim, reply);
}

static void claim_mark_and_die(void *ctx)
{
    idem_claim claim;
    idem_store *mine = support_attach(ctx);
    CHECK_IS(support_begin(mine, "k", &claim), IDEM_CLAIMED);
    CHECK_IS(idem_mark(mine, &claim, "by the dead", 11), IDEM_OK);
    support_die(NULL);
}

static void lose_by_death(idem_claim *claim)
{
    claim->token = 0; /* not known here */
    CHECK_IS(support_reap(support_spawn(claim_mark_and_die, (void *)(uintptr_t)dir), SUPPORT_PATIENCE_MS),
             SUPPORT_KILLED);
}
static void claim_and_mark(idem_claim *claim)
{
    CHECK_IS(ask(0, claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_mark(store, claim, "by the dead", 11), IDEM_OK);
}
static void lose_by_lease(idem_claim *claim)
{
    claim_and_mark(claim);
    support_clock_add(claim->lease_ms);
}
static void lose_by_declaration(idem_claim *claim)
{
    claim_and_mark(claim);
    CHECK_IS(idem_abandon(store, claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
}
static void lose_by_release(idem_claim *claim)
{
    idem_key k = support_key("k");
    claim_and_mark(claim);
    CHECK_IS(idem_release(store, &k, 0), IDEM_OK);
}
static void lose_by_close(idem_claim *claim)
{
    idem_store *other = support_attach(dir);
    CHECK_IS(support_begin(other, "k", claim), IDEM_CLAIMED);
    CHECK_IS(idem_mark(other, claim, "by the dead", 11), IDEM_OK);
    idem_close(other);
}

static const struct {
    void (*lose)(idem_claim *claim);
    uint32_t reason;
} ways[] = {
    {lose_by_death, IDEM_LOST_DEAD},       {lose_by_lease, IDEM_LOST_LEASE}, {lose_by_declaration, IDEM_LOST_DECLARED},
    {lose_by_release, IDEM_LOST_RELEASED}, {lose_by_close, IDEM_LOST_DEAD},
};
#define WAYS (sizeof ways / sizeof ways[0])

/* Each way to be lost on a store of its own. */
static void for_each_way(void **state, void (*fn)(idem_claim lost, uint32_t reason))
{
    for (size_t i = 0; i < WAYS; i++) {
        idem_claim lost;
        if (i > 0)
            fresh(state);
        ways[i].lose(&lost);
        fn(lost, ways[i].reason);
        if (i + 1 < WAYS)
            over(state);
    }
}

static void reclaims(idem_claim lost, uint32_t reason)
{
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    idem_key k = support_key("k");
    idem_story story = IDEM_STORY_INIT;
    CHECK_IS(idem_lookup(store, &k, &reply), IDEM_UNKNOWN);
    CHECK_IS(reply.lost_reason, reason);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "by the dead");
    idem_reply_free(&reply);
    CHECK_IS(idem_explain(store, &k, &story), IDEM_OK);
    CHECK_IS(story.state, IDEM_STATE_LOST);
    CHECK_IS(story.lost_reason, reason);
    idem_story_free(&story);

    CHECK_IS(ask(0, &claim, &reply), IDEM_RECLAIMED);
    CHECK_IS(reply.lost_reason, reason);
    CHECK(reply.lost_token != 0 && (lost.token == 0 || reply.lost_token == lost.token));
    CHECK(claim.token > reply.lost_token);
    CHECK_IS(reply.token, claim.token);
    CHECK_IS(claim.attempt, 2);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "by the dead");
    uint64_t lost_token = reply.lost_token;

    /* Sticky: while a lost attempt is remembered, abandoning doesn't make the next claim a first one. */
    CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
    CHECK_IS(ask(0, &claim, &reply), IDEM_RECLAIMED);
    CHECK_IS(reply.lost_reason, reason);
    CHECK_IS(reply.lost_token, lost_token);
    CHECK_IS(claim.attempt, 3);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "by the dead");
    CHECK_IS(support_complete(store, &claim, 200, "at last"), IDEM_OK);
    CHECK_IS(ask(0, &claim, &reply), IDEM_REPLAY);
    CHECK_IS(reply.lost_token, 0);
    idem_reply_free(&reply);
}

static void the_next_claimant_of_a_lost_attempt_is_told_by_whom_and_why_until_it_completes(void **state)
{
    for_each_way(state, reclaims);
}

static void holds(idem_claim lost, uint32_t reason)
{
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    idem_key k = support_key("k");
    for (int i = 0; i < 2; i++) {
        CHECK_IS(ask(IDEM_HOLD, &claim, &reply), IDEM_UNKNOWN);
        CHECK_IS(claim.token, 0);
        CHECK_IS(reply.lost_reason, reason);
        CHECK(lost.token == 0 || reply.lost_token == lost.token);
        CHECK_BYTES(reply.mark, reply.mark_bytes, "by the dead");
    }
    CHECK_IS(idem_resolve(store, &k, reply.lost_token + 1, IDEM_RESOLVE_RERUN, NULL), IDEM_E_LOST);
    CHECK_IS(idem_resolve(store, &k, 0, IDEM_RESOLVE_RERUN, NULL), IDEM_E_LOST);
    CHECK_IS(idem_resolve(store, &k, reply.lost_token, IDEM_RESOLVE_RERUN, NULL), IDEM_OK);
    CHECK_IS(idem_lookup(store, &k, NULL), IDEM_E_NO_KEY);
    CHECK_IS(idem_resolve(store, &k, reply.lost_token, IDEM_RESOLVE_RERUN, NULL), IDEM_E_LOST); /* settled by now */
    uint64_t lost_token = reply.lost_token;
    CHECK_IS(ask(IDEM_HOLD, &claim, &reply), IDEM_CLAIMED);
    CHECK_IS(reply.lost_token, 0);
    CHECK_IS(reply.lost_reason, IDEM_LOST_NONE);
    CHECK_IS(claim.attempt, 2);
    CHECK(claim.token > lost_token);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "by the dead");
    idem_reply_free(&reply);
}

static void a_held_key_is_redone_by_nobody_until_it_is_resolved_as_not_happened(void **state)
{
    for_each_way(state, holds);
}

static void settles(idem_claim lost, uint32_t reason)
{
    (void)reason;
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    idem_key k = support_key("k");
    idem_response rs = support_response(202, "as the bank says");
    CHECK_IS(ask(IDEM_HOLD, &claim, &reply), IDEM_UNKNOWN);
    uint64_t token = reply.lost_token;
    CHECK_IS(idem_resolve(store, &k, token + 1, IDEM_RESOLVE_COMPLETED, &rs), IDEM_E_LOST);
    CHECK_IS(idem_resolve(store, &k, token, IDEM_RESOLVE_COMPLETED, &rs), IDEM_OK);
    CHECK_IS(ask(IDEM_HOLD, &claim, &reply), IDEM_REPLAY);
    CHECK_IS(reply.status, 202);
    CHECK_IS(reply.token, token);
    CHECK_BYTES(reply.body, reply.body_bytes, "as the bank says");
    CHECK_IS(idem_resolve(store, &k, token, IDEM_RESOLVE_COMPLETED, &rs), IDEM_E_LOST);
    if (lost.token != 0)
        CHECK_IS(idem_renew(store, &lost, 1000), IDEM_E_LOST);
    idem_reply_free(&reply);
}

static void a_lost_attempt_can_be_resolved_as_happened(void **state)
{
    for_each_way(state, settles);
}

static void an_attempt_that_says_hold_is_held_for_everyone(void **state)
{
    (void)state;
    idem_claim claim, none;
    idem_reply reply = IDEM_REPLY_INIT;
    idem_key k = support_key("k");
    CHECK_IS(ask(IDEM_HOLD, &claim, &reply), IDEM_CLAIMED);
    CHECK_IS(idem_abandon(store, &claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    CHECK_IS(ask(0, &none, &reply), IDEM_UNKNOWN);
    CHECK_IS(support_begin(store, "k", &none), IDEM_UNKNOWN);
    idem_request rq = support_request("k");
    CHECK_IS(idem_wait(store, &rq, 60000, &none, NULL), IDEM_UNKNOWN); /* at once: nobody waits for an operator */
    CHECK_IS(idem_resolve(store, &k, claim.token, IDEM_RESOLVE_COMPLETED, NULL), IDEM_OK);
    CHECK_IS(ask(0, &none, &reply), IDEM_REPLAY);
    CHECK_IS(reply.status, 0);
    CHECK(reply.body == NULL && reply.body_bytes == 0);
}

static void a_held_key_is_completed_by_its_late_owner_if_that_still_lives(void **state)
{
    (void)state;
    idem_claim claim, none;
    CHECK_IS(ask(IDEM_HOLD, &claim, NULL), IDEM_CLAIMED);
    support_clock_add(claim.lease_ms + 5000);
    CHECK_IS(ask(0, &none, NULL), IDEM_UNKNOWN);
    CHECK_IS(support_complete(store, &claim, 200, "late"), IDEM_OK);
    CHECK_IS(ask(0, &none, NULL), IDEM_REPLAY);
}

static void holding_does_not_stand_in_the_way_of_abandoned_attempts(void **state)
{
    (void)state;
    idem_claim claim;
    CHECK_IS(ask(IDEM_HOLD, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
    CHECK_IS(ask(IDEM_HOLD, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(claim.attempt, 2);
    CHECK_IS(claim.flags, IDEM_HOLD);
}

static void a_lost_attempt_that_was_abandoned_afterwards_is_held_too(void **state)
{
    (void)state;
    idem_claim first, second, none;
    idem_reply reply = IDEM_REPLY_INIT;
    idem_key k = support_key("k");
    CHECK_IS(ask(0, &first, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_abandon(store, &first, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    CHECK_IS(ask(0, &second, NULL), IDEM_RECLAIMED);
    CHECK_IS(idem_abandon(store, &second, IDEM_NOTHING_HAPPENED), IDEM_OK);
    CHECK_IS(ask(IDEM_HOLD, &none, &reply), IDEM_UNKNOWN);
    CHECK_IS(reply.lost_token, first.token);
    CHECK_IS(idem_resolve(store, &k, first.token, IDEM_RESOLVE_RERUN, NULL), IDEM_OK);
    CHECK_IS(ask(IDEM_HOLD, &none, &reply), IDEM_CLAIMED);
    CHECK_IS(none.attempt, 3);
}

static void the_newest_lost_attempt_is_the_one_that_is_told_of(void **state)
{
    (void)state;
    idem_claim first, second, third;
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK_IS(ask(0, &first, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_mark(store, &first, "one", 3), IDEM_OK);
    CHECK_IS(idem_abandon(store, &first, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    CHECK_IS(ask(0, &second, &reply), IDEM_RECLAIMED);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "one");
    CHECK_IS(idem_mark(store, &second, "two", 3), IDEM_OK);
    support_clock_add(second.lease_ms + 1);
    CHECK_IS(ask(0, &third, &reply), IDEM_RECLAIMED);
    CHECK_IS(reply.lost_token, second.token);
    CHECK_IS(reply.lost_reason, IDEM_LOST_LEASE);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "two");
    idem_reply_free(&reply);
    /* And it, or the one that is lost after it, is the one to be resolved. */
    idem_key k = support_key("k");
    CHECK_IS(idem_abandon(store, &third, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    CHECK_IS(idem_resolve(store, &k, first.token, IDEM_RESOLVE_RERUN, NULL), IDEM_E_LOST);
    CHECK_IS(idem_resolve(store, &k, second.token, IDEM_RESOLVE_RERUN, NULL), IDEM_OK);
}

static void an_abandoned_attempt_leaves_its_mark_to_the_next(void **state)
{
    (void)state;
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK_IS(ask(0, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_mark(store, &claim, "half way", 8), IDEM_OK);
    CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
    for (uint32_t attempt = 2; attempt < 5; attempt++) {
        CHECK_IS(ask(0, &claim, &reply), IDEM_CLAIMED);
        CHECK_IS(claim.attempt, attempt);
        CHECK_BYTES(reply.mark, reply.mark_bytes, "half way");
        CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
    }
    idem_reply_free(&reply);
}

static void a_lost_attempt_is_remembered_for_the_requests_ttl_not_for_its_lease(void **state)
{
    (void)state;
    idem_request rq = support_request("k");
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    rq.ttl_ms = 10 * 3600 * 1000;
    rq.lease_ms = 1000;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_mark(store, &claim, "charged", 7), IDEM_OK);
    for (int i = 0; i < 9; i++) { /* and it survives the sweep of the claims' memory */
        support_clock_add(3600 * 1000);
        support_maintain(store);
        CHECK_IS(idem_lookup(store, &rq.key, NULL), IDEM_UNKNOWN);
    }
    CHECK(support_stats(store).moved_entries > 0);
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_RECLAIMED);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "charged");
    CHECK_IS(idem_abandon(store, &claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    support_clock_add(rq.ttl_ms);
    idem_reply_free(&reply);
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_CLAIMED); /* forgotten only when the TTL is over */
    CHECK_IS(claim.attempt, 1);
    idem_reply_free(&reply);
}

static void releasing_ends_a_running_attempt_and_nothing_else(void **state)
{
    (void)state;
    idem_claim claim, none;
    idem_key k = support_key("k"), nothing = support_key("nothing");
    CHECK_IS(idem_release(store, &nothing, 0), IDEM_E_NO_KEY);
    CHECK_IS(idem_release(store, NULL, 0), IDEM_E_INVALID);
    CHECK_IS(ask(0, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_release(store, &k, claim.token + 1), IDEM_E_LOST);
    CHECK_IS(ask(0, &none, NULL), IDEM_IN_PROGRESS);
    CHECK_IS(idem_release(store, &k, claim.token), IDEM_OK);
    CHECK_IS(idem_release(store, &k, claim.token), IDEM_E_LOST);
    CHECK_IS(ask(0, &claim, NULL), IDEM_RECLAIMED);
    CHECK_IS(support_complete(store, &claim, 1, "x"), IDEM_OK);
    CHECK_IS(idem_release(store, &k, 0), IDEM_E_LOST);
    CHECK_IS(idem_forget(store, &k), IDEM_OK);
    CHECK_IS(idem_release(store, &k, 0), IDEM_E_NO_KEY);
}

static void forgetting_makes_the_next_attempt_a_first_one_with_a_larger_token(void **state)
{
    (void)state;
    idem_claim claim;
    idem_key k = support_key("k");
    idem_reply reply = IDEM_REPLY_INIT;
    uint64_t last = 0;
    CHECK_IS(idem_forget(store, &k), IDEM_E_NO_KEY);
    CHECK_IS(idem_forget(store, NULL), IDEM_E_INVALID);
    for (int how = 0; how < 4;
         how++) { /* in progress, completed, lost, abandoned: all within one tick of the clock, mostly */
        CHECK_IS(ask(0, &claim, &reply), IDEM_CLAIMED);
        CHECK_IS(claim.attempt, 1);
        CHECK(claim.token > last);
        CHECK(reply.mark == NULL && reply.lost_token == 0);
        last = claim.token;
        CHECK_IS(idem_mark(store, &claim, "secret", 6), IDEM_OK);
        if (how == 1)
            CHECK_IS(support_complete(store, &claim, 200, "answer"), IDEM_OK);
        if (how >= 2)
            CHECK_IS(idem_abandon(store, &claim, how == 2 ? IDEM_OUTCOME_UNKNOWN : IDEM_NOTHING_HAPPENED), IDEM_OK);
        CHECK_IS(idem_forget(store, &k), IDEM_OK);
        CHECK_IS(idem_forget(store, &k), IDEM_E_NO_KEY);
        CHECK_IS(idem_lookup(store, &k, NULL), IDEM_E_NO_KEY);
        CHECK_IS(support_complete(store, &claim, 500, "late"), IDEM_E_LOST);
    }
}

static void only_lost_attempts_are_resolved(void **state)
{
    (void)state;
    idem_claim claim;
    idem_key k = support_key("k");
    idem_response rs = support_response(1, "x");
    CHECK_IS(idem_resolve(store, &k, 1, IDEM_RESOLVE_RERUN, NULL), IDEM_E_NO_KEY);
    CHECK_IS(idem_resolve(store, NULL, 1, IDEM_RESOLVE_RERUN, NULL), IDEM_E_INVALID);
    CHECK_IS(ask(0, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_resolve(store, &k, claim.token, IDEM_RESOLVE_RERUN, NULL), IDEM_E_LOST);
    CHECK_IS(idem_resolve(store, &k, claim.token, IDEM_RESOLVE_COMPLETED, &rs), IDEM_E_LOST);
    CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
    CHECK_IS(idem_resolve(store, &k, claim.token, IDEM_RESOLVE_RERUN, NULL), IDEM_E_LOST);
    CHECK_IS(ask(0, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_abandon(store, &claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    CHECK_IS(idem_resolve(store, &k, claim.token, 2, NULL), IDEM_E_INVALID);
    rs.flags = IDEM_RESPONSE_TRANSIENT;
    CHECK_IS(idem_resolve(store, &k, claim.token, IDEM_RESOLVE_COMPLETED, &rs), IDEM_E_INVALID);
    rs.flags = 0;
    rs.size = 0;
    CHECK_IS(idem_resolve(store, &k, claim.token, IDEM_RESOLVE_COMPLETED, &rs), IDEM_E_INVALID);
    CHECK_IS(idem_lookup(store, &k, NULL), IDEM_UNKNOWN);
}

/* ------------------------------------------------------------------ lease-only, adopt */

static void claim_for_later(void *ctx)
{
    idem_request rq = support_request("k");
    idem_claim claim;
    idem_store *mine = support_attach(ctx);
    rq.flags = IDEM_LEASE_ONLY;
    rq.lease_ms = 100000;
    CHECK_IS(idem_begin(mine, &rq, &claim, NULL), IDEM_CLAIMED);
    support_die(NULL);
}

static void a_lease_only_claim_outlives_its_process_and_only_its_lease_ends_it(void **state)
{
    (void)state;
    idem_claim claim, none;
    idem_reply reply = IDEM_REPLY_INIT;
    idem_key k = support_key("k");
    CHECK_IS(support_reap(support_spawn(claim_for_later, (void *)(uintptr_t)dir), SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
    CHECK_IS(ask(0, &none, &reply), IDEM_IN_PROGRESS);
    CHECK(reply.retry_after_ms > 90000);
    CHECK_IS(idem_find(store, &k, 0, &claim), IDEM_OK);
    CHECK_IS(claim.flags, IDEM_LEASE_ONLY);
    CHECK_IS(idem_mark(store, &claim, "step 2", 6), IDEM_OK);
    CHECK_IS(ask(0, &none, NULL), IDEM_IN_PROGRESS);
    support_clock_add(100001);
    CHECK_IS(ask(0, &none, &reply), IDEM_RECLAIMED);
    CHECK_IS(reply.lost_reason, IDEM_LOST_LEASE);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "step 2");
    idem_reply_free(&reply);
    CHECK_IS(support_complete(store, &claim, 1, "late"), IDEM_E_LOST);
}

static void a_claim_whose_process_died_is_saved_by_adopting_it_in_time(void **state)
{
    (void)state;
    idem_claim claim, none;
    idem_key k = support_key("k");
    idem_store *first = support_attach(dir);
    CHECK_IS(support_begin(first, "k", &claim), IDEM_CLAIMED);
    CHECK_IS(idem_adopt(store, &claim), IDEM_OK);
    idem_close(first);
    idem_story story = IDEM_STORY_INIT;
    CHECK_IS(idem_explain(store, &k, &story), IDEM_OK);
    CHECK_IS(story.state, IDEM_STATE_IN_PROGRESS);
    CHECK_IS(story.owner_alive, 1);
    idem_story_free(&story);
    CHECK_IS(ask(0, &none, NULL), IDEM_IN_PROGRESS);
    CHECK_IS(support_complete(store, &claim, 200, "adopted"), IDEM_OK);
}

static void adopting_ends_lease_only_unless_the_claims_flags_still_say_it(void **state)
{
    (void)state;
    for (int still = 0; still < 2; still++) {
        idem_request rq = support_request(still ? "k1" : "k0");
        idem_claim claim, none;
        rq.flags = IDEM_LEASE_ONLY;
        CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
        if (!still)
            claim.flags &= ~(uint32_t)IDEM_LEASE_ONLY;
        idem_store *adopter = support_attach(dir);
        CHECK_IS(idem_adopt(adopter, &claim), IDEM_OK);
        idem_close(adopter);
        CHECK_IS(idem_begin(store, &rq, &none, NULL), still ? IDEM_IN_PROGRESS : IDEM_RECLAIMED);
    }
}

static void adopting_does_not_move_the_lease(void **state)
{
    (void)state;
    idem_claim claim, none;
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK_IS(ask(0, &claim, NULL), IDEM_CLAIMED);
    support_clock_add(claim.lease_ms - 5000);
    CHECK_IS(idem_adopt(store, &claim), IDEM_OK);
    CHECK_IS(ask(0, &none, &reply), IDEM_IN_PROGRESS);
    CHECK(reply.retry_after_ms <= 5000);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, over)
    const struct CMUnitTest tests[] = {
        TEST(the_next_claimant_of_a_lost_attempt_is_told_by_whom_and_why_until_it_completes),
        TEST(a_held_key_is_redone_by_nobody_until_it_is_resolved_as_not_happened),
        TEST(a_lost_attempt_can_be_resolved_as_happened),
        TEST(an_attempt_that_says_hold_is_held_for_everyone),
        TEST(a_held_key_is_completed_by_its_late_owner_if_that_still_lives),
        TEST(holding_does_not_stand_in_the_way_of_abandoned_attempts),
        TEST(a_lost_attempt_that_was_abandoned_afterwards_is_held_too),
        TEST(the_newest_lost_attempt_is_the_one_that_is_told_of),
        TEST(an_abandoned_attempt_leaves_its_mark_to_the_next),
        TEST(a_lost_attempt_is_remembered_for_the_requests_ttl_not_for_its_lease),
        TEST(releasing_ends_a_running_attempt_and_nothing_else),
        TEST(forgetting_makes_the_next_attempt_a_first_one_with_a_larger_token),
        TEST(only_lost_attempts_are_resolved),
        TEST(a_lease_only_claim_outlives_its_process_and_only_its_lease_ends_it),
        TEST(a_claim_whose_process_died_is_saved_by_adopting_it_in_time),
        TEST(adopting_ends_lease_only_unless_the_claims_flags_still_say_it),
        TEST(adopting_does_not_move_the_lease),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
