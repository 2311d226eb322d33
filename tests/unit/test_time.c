/*
 * tests/unit/test_time.c - times to live, leases and tokens, with the clock injected. The clock never goes back, so the tests
 * with the longest times come last.
 */
#include "support/support.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define HOUR_MS INT64_C(3600000)
#define YEAR_MS (INT64_C(365) * 24 * HOUR_MS)

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

static idem_claim answered(const char *key, int64_t request_ttl_ms, int64_t response_ttl_ms)
{
    idem_request rq = support_request(key);
    idem_response rs = support_response(200, key);
    idem_claim claim;
    rq.ttl_ms = request_ttl_ms;
    rs.ttl_ms = response_ttl_ms;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
    return claim;
}

static int look(const char *key)
{
    idem_key k = support_key(key);
    return idem_lookup(store, &k, NULL);
}

static void an_answer_lives_as_long_as_its_call_says(void **state)
{
    (void)state;
    answered("store", 0, 0);                    /* 24 h, the store's */
    answered("request", HOUR_MS, 0);            /* the request's */
    answered("response", HOUR_MS, 3 * HOUR_MS); /* the response's goes first */
    answered("shorter", HOUR_MS, 60000);
    answered("forever", HOUR_MS, IDEM_FOREVER);
    answered("kept", IDEM_FOREVER, 0);
    static const struct {
        const char *key;
        int64_t ends_ms;
    } lives[] = {{"shorter", 60000}, {"request", HOUR_MS}, {"response", 3 * HOUR_MS}, {"store", 24 * HOUR_MS}};
    int64_t now = 0;
    for (size_t i = 0; i < 4; i++) {
        support_clock_add(lives[i].ends_ms - now - 20000); /* room for a slow machine */
        CHECK_IS(look(lives[i].key), IDEM_REPLAY);
        support_clock_add(20000);
        now = lives[i].ends_ms;
        CHECK_IS(look(lives[i].key), IDEM_E_NO_KEY);
        CHECK_IS(support_begin(store, lives[i].key, NULL), IDEM_CLAIMED);
    }
    support_maintain(store);
    CHECK_IS(look("forever"), IDEM_REPLAY);
    CHECK_IS(look("kept"), IDEM_REPLAY);
}

static void the_time_to_live_of_an_answer_begins_when_it_is_completed(void **state)
{
    (void)state;
    idem_request rq = support_request("k");
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    rq.ttl_ms = HOUR_MS;
    rq.lease_ms = 2 * HOUR_MS;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    support_clock_add(HOUR_MS - 10000);
    CHECK_IS(support_complete(store, &claim, 1, "x"), IDEM_OK);
    support_clock_add(HOUR_MS / 2);
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_REPLAY);
    CHECK(reply.age_ms >= HOUR_MS / 2 && reply.age_ms < HOUR_MS / 2 + SUPPORT_PATIENCE_MS);
    CHECK(reply.expires_in_ms <= HOUR_MS / 2 && reply.expires_in_ms > HOUR_MS / 2 - SUPPORT_PATIENCE_MS);
    idem_reply_free(&reply);
}

static void a_running_lease_keeps_a_claim_although_its_ttl_is_over(void **state)
{
    (void)state;
    idem_request rq = support_request("k");
    idem_claim claim, none;
    rq.ttl_ms = 1000;
    rq.lease_ms = HOUR_MS;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    support_clock_add(HOUR_MS / 2);
    support_maintain(store);
    CHECK_IS(idem_begin(store, &rq, &none, NULL), IDEM_IN_PROGRESS);
    CHECK_IS(support_complete(store, &claim, 1, "in time"), IDEM_OK);
    CHECK_IS(look("k"), IDEM_REPLAY);
    support_clock_add(1000);
    CHECK_IS(look("k"), IDEM_E_NO_KEY);
}

static void retry_after_is_the_time_that_is_left_of_the_lease(void **state)
{
    (void)state;
    idem_request rq = support_request("k");
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    rq.lease_ms = HOUR_MS;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    for (int64_t left = HOUR_MS; left > 2 * SUPPORT_PATIENCE_MS; left -= HOUR_MS / 10) {
        CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_IN_PROGRESS);
        CHECK(reply.retry_after_ms <= left && reply.retry_after_ms > left - SUPPORT_PATIENCE_MS);
        support_clock_add(HOUR_MS / 10);
    }
    support_clock_add(HOUR_MS / 10);
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_RECLAIMED);
}

static void an_expired_answer_gives_way_to_a_first_attempt(void **state)
{
    (void)state;
    idem_claim first = answered("k", HOUR_MS, 0), second, none;
    idem_request rq = support_request("k");
    idem_reply reply = IDEM_REPLY_INIT;
    support_clock_add(HOUR_MS);
    rq.fingerprint = 7; /* not bound by what is over */
    CHECK_IS(idem_begin(store, &rq, &second, &reply), IDEM_CLAIMED);
    CHECK_IS(second.attempt, 1);
    CHECK(second.token > first.token);
    CHECK_IS(reply.lost_token, 0);
    CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_IN_PROGRESS); /* over the expired answer, under way */
    CHECK_IS(support_begin(store, "k", NULL), IDEM_MISMATCH);
    CHECK_IS(support_complete(store, &first, 500, "late"), IDEM_E_LOST);
    CHECK_IS(support_complete(store, &second, 201, "new"), IDEM_OK);
    CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_REPLAY);
    CHECK_BYTES(reply.body, reply.body_bytes, "new");
    idem_reply_free(&reply);
}

/* ------------------------------------------------------------------ tokens */

static void tokens_of_a_key_grow_whatever_happened_to_the_attempt_before(void **state)
{
    (void)state;
    idem_key k = support_key("k");
    uint64_t last = 0, random = support_seed();
    uint64_t seen[9] = {0};
    for (long i = 0; i < support_scaled(40000, 4); i++) {
        idem_claim claim, next;
        int verdict = support_begin(store, "k", &claim);
        CHECK(verdict == IDEM_CLAIMED || verdict == IDEM_RECLAIMED);
        CHECK(claim.token > last);
        last = claim.token;
        idem_response rs = support_response(1, "x");
        unsigned how = (unsigned)(support_random(&random) % 9);
        seen[how]++;
        switch (how) {
        case 0:
            CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
            break;
        case 1:
            CHECK_IS(idem_abandon(store, &claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
            break;
        case 2:
            CHECK_IS(idem_forget(store, &k), IDEM_OK);
            break;
        case 3: /* completed, then forgotten in the same tick */
            CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
            CHECK_IS(idem_forget(store, &k), IDEM_OK);
            break;
        case 4: /* completed, then expired */
            rs.ttl_ms = 1;
            CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
            support_clock_add(1);
            break;
        case 5:
            rs.flags = IDEM_RESPONSE_TRANSIENT;
            CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
            break;
        case 6: /* taken over */
            support_clock_add(claim.lease_ms);
            CHECK_IS(support_begin(store, "k", &next), IDEM_RECLAIMED);
            CHECK(next.token > last);
            last = next.token;
            CHECK_IS(idem_abandon(store, &next, IDEM_NOTHING_HAPPENED), IDEM_OK);
            break;
        case 7: /* forgotten, and its slot freed */
            CHECK_IS(idem_forget(store, &k), IDEM_OK);
            CHECK(idem_maintain(store, 0) >= 0);
            break;
        default:
            CHECK_IS(idem_release(store, &k, claim.token), IDEM_OK);
            CHECK_IS(idem_resolve(store, &k, claim.token, IDEM_RESOLVE_RERUN, NULL), IDEM_OK);
            break;
        }
    }
    for (int i = 0; i < 9; i++)
        CHECK(seen[i] > 0);
}

static void tokens_grow_where_slots_are_freed_under_pressure(void **state)
{
    (void)state;
    /* 16 buckets, 300 keys, each forgotten at once: the same slots are freed and taken by other keys all the time. */
    static uint64_t last[300];
    idem_options o = support_options(16);
    const char *small = support_dir();
    idem_store *s = support_open(small, &o);
    memset(last, 0, sizeof last);
    for (int round = 0; round < 20; round++)
        for (int i = 0; i < 300; i++) {
            char key[16];
            idem_claim claim;
            snprintf(key, sizeof key, "%d", i);
            idem_key k = support_key(key);
            int verdict = support_begin(s, key, &claim);
            if (verdict == IDEM_E_FULL) { /* all slots of this tick */
                support_clock_add(1);
                verdict = support_begin(s, key, &claim);
            }
            CHECK_IS(verdict, IDEM_CLAIMED);
            CHECK(claim.token > last[i]);
            last[i] = claim.token;
            CHECK_IS(idem_forget(s, &k), IDEM_OK);
        }
    idem_close(s);
    support_verify(small);
}

static void a_token_is_store_time_and_begins_as_wall_time(void **state)
{
    (void)state;
    const char *other = support_dir();
    idem_store *s = support_open(other, NULL);
    idem_claim claim;
    int64_t before = idem_clock_wall_ms();
    CHECK_IS(support_begin(s, "k", &claim), IDEM_CLAIMED);
    int64_t token_ms = (int64_t)(claim.token >> 16);
    CHECK(token_ms > before - SUPPORT_PATIENCE_MS && token_ms < before + SUPPORT_PATIENCE_MS);
    idem_close(s);
}

/* ------------------------------------------------------------------ very long times */

static void the_longest_ttl_ends_and_forever_does_not(void **state)
{
    (void)state;
    idem_reply reply = IDEM_REPLY_INIT;
    answered("century", IDEM_TTL_MAX_MS, 0);
    answered("forever", IDEM_FOREVER, 0);
    idem_request rq = support_request("forever");
    idem_claim none;
    for (int i = 0; i < 9; i++) {
        support_clock_add(11 * YEAR_MS);
        support_maintain(store);
        CHECK_IS(look("century"), IDEM_REPLAY);
        CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_REPLAY);
        CHECK_IS(reply.expires_in_ms, IDEM_FOREVER);
        idem_reply_free(&reply);
    }
    support_clock_add(2 * YEAR_MS);
    support_maintain(store);
    CHECK_IS(look("century"), IDEM_E_NO_KEY);
    CHECK_IS(look("forever"), IDEM_REPLAY);
}

static void many_time_to_live_classes_live_side_by_side(void **state)
{
    (void)state;
    /* One answer for each eighth of an octave from 1 s to 100 years; each ends in its time. */
    idem_options o = support_options(20000);
    const char *wide = support_dir();
    idem_store *s = support_open(wide, &o);
    static int64_t ends[400];
    int n = 0;
    for (int64_t ttl = 1000; ttl < IDEM_TTL_MAX_MS && n < 400; ttl += ttl / 8) {
        char key[16];
        snprintf(key, sizeof key, "%d", n);
        idem_request rq = support_request(key);
        idem_claim claim;
        rq.ttl_ms = ttl;
        CHECK_IS(idem_begin(s, &rq, &claim, NULL), IDEM_CLAIMED);
        CHECK_IS(support_complete(s, &claim, n, "x"), IDEM_OK);
        ends[n++] = ttl;
    }
    CHECK(n > 150);
    CHECK(support_stats(s).classes > 10);
    int64_t now = 0;
    for (int i = 0; i < n; i += 7) {
        support_clock_add(ends[i] - now);
        now = ends[i];
        support_maintain(s);
        for (int j = 0; j < n; j++) {
            char key[16];
            snprintf(key, sizeof key, "%d", j);
            idem_key k = support_key(key);
            int wanted = j <= i ? IDEM_E_NO_KEY : ends[j] - now > SUPPORT_PATIENCE_MS ? IDEM_REPLAY : 0;
            if (wanted != 0)
                CHECK_IS(idem_lookup(s, &k, NULL), wanted);
        }
    }
    idem_close(s);
    support_verify(wide);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, over)
    const struct CMUnitTest tests[] = {
        TEST(a_token_is_store_time_and_begins_as_wall_time),
        TEST(an_answer_lives_as_long_as_its_call_says),
        TEST(the_time_to_live_of_an_answer_begins_when_it_is_completed),
        TEST(a_running_lease_keeps_a_claim_although_its_ttl_is_over),
        TEST(retry_after_is_the_time_that_is_left_of_the_lease),
        TEST(an_expired_answer_gives_way_to_a_first_attempt),
        TEST(tokens_of_a_key_grow_whatever_happened_to_the_attempt_before),
        TEST(tokens_grow_where_slots_are_freed_under_pressure),
        TEST(the_longest_ttl_ends_and_forever_does_not),
        TEST(many_time_to_live_classes_live_side_by_side),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
