/*
 * tests/unit/test_transient.c - answers that are not kept: who gets them, and for how long.
 */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
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

static idem_claim claimed(int verdict)
{
    idem_claim claim;
    CHECK_IS(support_begin(store, "k", &claim), verdict);
    return claim;
}

static void fail_transiently(const idem_claim *claim, const char *body)
{
    idem_response rs = support_response(503, body);
    rs.flags = IDEM_RESPONSE_TRANSIENT;
    rs.meta = "Retry-After: 1";
    rs.meta_bytes = 14;
    rs.user_flags = 77;
    CHECK_IS(idem_complete(store, claim, &rs), IDEM_OK);
}

/* What somebody gets who has been waiting on token. */
static int ask_after_waiting(uint64_t token, idem_claim *claim, idem_reply *reply)
{
    idem_request rq = support_request("k");
    rq.wait_token = token;
    idem_reply_free(reply);
    return idem_begin(store, &rq, claim, reply);
}

static void expect_answer(uint64_t token, const char *body)
{
    idem_claim none;
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK_IS(ask_after_waiting(token, &none, &reply), IDEM_REPLAY);
    CHECK_IS(reply.flags, IDEM_REPLY_TRANSIENT);
    CHECK_IS(reply.token, token);
    CHECK_IS(reply.status, 503);
    CHECK_IS(reply.response_flags, 77);
    CHECK_IS(none.token, 0);
    CHECK_BYTES(reply.meta, reply.meta_bytes, "Retry-After: 1");
    CHECK_BYTES(reply.body, reply.body_bytes, body);
    idem_reply_free(&reply);
}

static void those_who_waited_on_the_token_get_it_and_everyone_else_may_claim_at_once(void **state)
{
    (void)state;
    idem_claim first = claimed(IDEM_CLAIMED);
    idem_key k = support_key("k");
    fail_transiently(&first, "try later");
    for (int i = 0; i < 3; i++)
        expect_answer(first.token, "try later");
    CHECK_IS(idem_lookup(store, &k, NULL), IDEM_E_NO_KEY);
    idem_story story = IDEM_STORY_INIT;
    CHECK_IS(idem_explain(store, &k, &story), IDEM_OK);
    CHECK_IS(story.state, IDEM_STATE_ABANDONED);
    CHECK_IS(story.reply_flags, IDEM_REPLY_TRANSIENT);
    idem_story_free(&story);

    idem_claim second = claimed(IDEM_CLAIMED);
    CHECK_IS(second.attempt, 2);
    CHECK(second.token > first.token);
    CHECK_IS(support_stats(store).transient, 1);
}

static void a_waiter_gets_it_even_after_the_next_claim_but_not_after_the_one_after_that(void **state)
{
    (void)state;
    idem_claim first = claimed(IDEM_CLAIMED), none;
    idem_reply reply = IDEM_REPLY_INIT;
    fail_transiently(&first, "first");
    idem_claim second = claimed(IDEM_CLAIMED);
    expect_answer(first.token, "first");
    CHECK_IS(ask_after_waiting(second.token, &none, &reply), IDEM_IN_PROGRESS);
    CHECK_IS(ask_after_waiting(first.token + 1, &none, &reply), IDEM_IN_PROGRESS);
    fail_transiently(&second, "second");
    expect_answer(second.token, "second");
    idem_claim third = claimed(IDEM_CLAIMED);
    CHECK_IS(third.attempt, 3);
    expect_answer(second.token, "second");
    CHECK_IS(ask_after_waiting(first.token, &none, &reply), IDEM_IN_PROGRESS);
    CHECK_IS(reply.token, third.token);
    CHECK_IS(support_complete(store, &third, 200, "kept"), IDEM_OK);
    CHECK_IS(ask_after_waiting(second.token, &none, &reply), IDEM_REPLAY); /* the kept answer is the better one */
    CHECK_IS(reply.flags, 0);
    CHECK_BYTES(reply.body, reply.body_bytes, "kept");
    idem_reply_free(&reply);
}

static void it_stays_findable_while_the_next_claim_is_renewed_marked_adopted_and_moved(void **state)
{
    (void)state;
    idem_request rq = support_request("k");
    idem_claim first, second;
    rq.lease_ms = 3600 * 1000;
    CHECK_IS(idem_begin(store, &rq, &first, NULL), IDEM_CLAIMED);
    fail_transiently(&first, "first");
    CHECK_IS(idem_begin(store, &rq, &second, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_renew(store, &second, 0), IDEM_OK);
    expect_answer(first.token, "first");
    CHECK_IS(idem_mark(store, &second, "step", 4), IDEM_OK);
    CHECK_IS(idem_adopt(store, &second), IDEM_OK);
    expect_answer(first.token, "first");
    /* Memory of claims is swept while this one still runs. */
    for (int i = 0; i < 2000; i++) {
        char key[16];
        idem_claim claim;
        CHECK(snprintf(key, sizeof key, "other-%d", i) > 0);
        CHECK_IS(support_begin(store, key, &claim), IDEM_CLAIMED);
        CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
        idem_key k = support_key(key);
        CHECK_IS(idem_forget(store, &k), IDEM_OK);
        if (i % 100 == 99)
            support_clock_add(10); /* what was forgotten in this tick is not freed in it */
    }
    CHECK_IS(idem_renew(store, &second, 2 * 3600 * 1000), IDEM_OK);
    support_clock_add(3600 * 1000);
    support_maintain(store);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
    expect_answer(first.token, "first");
    CHECK_IS(support_complete(store, &second, 200, "done"), IDEM_OK);
}

static void another_request_with_the_same_key_does_not_get_it(void **state)
{
    (void)state;
    idem_claim first = claimed(IDEM_CLAIMED), none;
    idem_request rq = support_request("k");
    fail_transiently(&first, "secret");
    rq.wait_token = first.token;
    rq.fingerprint = 99;
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_CLAIMED); /* not bound: abandoned, nothing lost */
    CHECK(reply.body == NULL);
    CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_IN_PROGRESS); /* nor of the claim that followed */
    CHECK(reply.body == NULL);
    rq.fingerprint = 98;
    CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_MISMATCH);
    CHECK(reply.body == NULL);
}

static void repeating_a_transient_complete_is_ok_until_the_next_claim(void **state)
{
    (void)state;
    idem_claim first = claimed(IDEM_CLAIMED);
    fail_transiently(&first, "once");
    fail_transiently(&first, "twice");
    CHECK_IS(support_complete(store, &first, 200, "for good after all"), IDEM_E_LOST);
    expect_answer(first.token, "once");
    claimed(IDEM_CLAIMED);
    CHECK_IS(support_complete(store, &first, 200, "late"), IDEM_E_LOST);
}

static void it_hides_neither_marks_nor_lost_attempts(void **state)
{
    (void)state;
    idem_claim lost = claimed(IDEM_CLAIMED), claim;
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK_IS(idem_mark(store, &lost, "sent the money", 14), IDEM_OK);
    CHECK_IS(idem_abandon(store, &lost, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    claim = claimed(IDEM_RECLAIMED);
    fail_transiently(&claim, "bank is down");
    idem_request rq = support_request("k");
    rq.flags = IDEM_HOLD;
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_UNKNOWN);
    CHECK_IS(reply.lost_token, lost.token);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "sent the money");
    idem_reply_free(&reply);
    rq.flags = 0;
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_RECLAIMED);
    CHECK_IS(claim.attempt, 3);
    CHECK_IS(reply.lost_token, lost.token);
    CHECK_IS(reply.lost_reason, IDEM_LOST_DECLARED);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "sent the money");
    idem_reply_free(&reply);

    fail_transiently(&claim, "still down");
    idem_key k = support_key("k");
    CHECK_IS(idem_resolve(store, &k, lost.token, IDEM_RESOLVE_COMPLETED, NULL), IDEM_OK);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_REPLAY);
}

static void one_that_is_larger_than_a_region_is_refused_and_the_attempt_goes_on(void **state)
{
    (void)state;
    idem_claim claim = claimed(IDEM_CLAIMED);
    size_t n = (size_t)support_stats(store).region_bytes;
    char *body = calloc(n, 1);
    CHECK(body != NULL);
    idem_response rs = IDEM_RESPONSE_INIT;
    rs.flags = IDEM_RESPONSE_TRANSIENT;
    rs.body = body;
    rs.body_bytes = n;
    CHECK_IS(idem_complete(store, &claim, &rs), IDEM_E_TOO_BIG);
    free(body);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
    CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
    claimed(IDEM_CLAIMED);
}

static void a_waiter_that_gave_its_token_gets_a_kept_answer_as_anyone_does(void **state)
{
    (void)state;
    idem_claim first = claimed(IDEM_CLAIMED), none;
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK_IS(ask_after_waiting(first.token, &none, &reply), IDEM_IN_PROGRESS);
    CHECK_IS(support_complete(store, &first, 200, "kept"), IDEM_OK);
    CHECK_IS(ask_after_waiting(first.token, &none, &reply), IDEM_REPLAY);
    CHECK_IS(reply.flags, 0);
    CHECK_BYTES(reply.body, reply.body_bytes, "kept");
    idem_reply_free(&reply);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, over)
    const struct CMUnitTest tests[] = {
        TEST(those_who_waited_on_the_token_get_it_and_everyone_else_may_claim_at_once),
        TEST(a_waiter_gets_it_even_after_the_next_claim_but_not_after_the_one_after_that),
        TEST(it_stays_findable_while_the_next_claim_is_renewed_marked_adopted_and_moved),
        TEST(another_request_with_the_same_key_does_not_get_it),
        TEST(repeating_a_transient_complete_is_ok_until_the_next_claim),
        TEST(it_hides_neither_marks_nor_lost_attempts),
        TEST(one_that_is_larger_than_a_region_is_refused_and_the_attempt_goes_on),
        TEST(a_waiter_that_gave_its_token_gets_a_kept_answer_as_anyone_does),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
