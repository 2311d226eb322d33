/*
 * tests/unit/test_owner.c - what an owner does with a claim: complete, abandon, renew, mark, adopt; finding and sending it; and
 * that each of these changes nothing once the claim is over.
 */
#include "support/support.h"

#include <stdio.h>
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

static idem_claim claimed(const char *key)
{
    idem_claim claim;
    CHECK_IS(support_begin(store, key, &claim), IDEM_CLAIMED);
    return claim;
}

static idem_story story_of(const char *key)
{
    idem_story story = IDEM_STORY_INIT;
    idem_key k = support_key(key);
    CHECK_IS(idem_explain(store, &k, &story), IDEM_OK);
    return story;
}

/* ------------------------------------------------------------------ the fence */

static void end_by_completing(const idem_claim *claim)
{
    CHECK_IS(support_complete(store, claim, 200, "first"), IDEM_OK);
}
static void end_by_abandoning(const idem_claim *claim)
{
    CHECK_IS(idem_abandon(store, claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
}
static void end_by_declaring_lost(const idem_claim *claim)
{
    CHECK_IS(idem_abandon(store, claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
}
static void end_by_release(const idem_claim *claim)
{
    idem_key k = support_key("k");
    CHECK_IS(idem_release(store, &k, claim->token), IDEM_OK);
}
static void end_by_forgetting(const idem_claim *claim)
{
    (void)claim;
    idem_key k = support_key("k");
    CHECK_IS(idem_forget(store, &k), IDEM_OK);
}
static void end_by_takeover(const idem_claim *claim)
{
    support_clock_add(claim->lease_ms + 1);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_RECLAIMED);
}
static void end_by_takeover_and_completion(const idem_claim *claim)
{
    idem_claim next;
    support_clock_add(claim->lease_ms + 1);
    CHECK_IS(support_begin(store, "k", &next), IDEM_RECLAIMED);
    CHECK_IS(support_complete(store, &next, 201, "second"), IDEM_OK);
}
static void end_by_expiry(const idem_claim *claim)
{
    idem_claim next;
    CHECK_IS(support_complete(store, claim, 200, "first"), IDEM_OK);
    support_clock_add(25 * 3600 * 1000);
    CHECK_IS(support_begin(store, "k", &next), IDEM_CLAIMED);
}
static void end_by_expiry_and_sweep(const idem_claim *claim)
{
    CHECK_IS(support_complete(store, claim, 200, "first"), IDEM_OK);
    support_clock_add(50 * 3600 * 1000);
    support_maintain(store);
}
static void end_by_rerun(const idem_claim *claim)
{
    idem_key k = support_key("k");
    end_by_declaring_lost(claim);
    CHECK_IS(idem_resolve(store, &k, claim->token, IDEM_RESOLVE_RERUN, NULL), IDEM_OK);
}
static void end_by_another_key_in_its_place(const idem_claim *claim)
{
    char key[32];
    end_by_expiry_and_sweep(claim);
    for (int i = 0; i < 500; i++) { /* some of them get its slot */
        snprintf(key, sizeof key, "other-%d", i);
        CHECK_IS(support_begin(store, key, NULL), IDEM_CLAIMED);
    }
}

static void no_operation_of_an_owner_does_anything_once_its_claim_is_over(void **state)
{
    static const struct {
        void (*end)(const idem_claim *claim);
        bool completed; /* with this token: repeating complete is OK */
    } ends[] = {
        {end_by_completing, true},
        {end_by_abandoning, false},
        {end_by_declaring_lost, false},
        {end_by_release, false},
        {end_by_forgetting, false},
        {end_by_takeover, false},
        {end_by_takeover_and_completion, false},
        {end_by_expiry, false},
        {end_by_expiry_and_sweep, false},
        {end_by_rerun, false},
        {end_by_another_key_in_its_place, false},
    };
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        if (i > 0)
            fresh(state);
        idem_claim claim = claimed("k"), found;
        idem_key k = support_key("k");
        idem_story before = IDEM_STORY_INIT, after = IDEM_STORY_INIT;
        CHECK_IS(idem_mark(store, &claim, "mine", 4), IDEM_OK);
        ends[i].end(&claim);
        int there = idem_explain(store, &k, &before);
        uint64_t fenced = support_stats(store).fenced;
        CHECK_IS(support_complete(store, &claim, 500, "late"), ends[i].completed ? IDEM_OK : IDEM_E_LOST);
        CHECK_IS(idem_renew(store, &claim, 1000), IDEM_E_LOST);
        CHECK_IS(idem_mark(store, &claim, "late", 4), IDEM_E_LOST);
        CHECK_IS(idem_adopt(store, &claim), IDEM_E_LOST);
        CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_E_LOST);
        CHECK_IS(idem_abandon(store, &claim, IDEM_OUTCOME_UNKNOWN), IDEM_E_LOST);
        CHECK(strlen(idem_error_detail()) > 10);
        CHECK_IS(support_stats(store).fenced - fenced, ends[i].completed ? 5 : 6);
        int e = idem_find(store, &k, claim.token, &found);
        CHECK(e == IDEM_E_LOST || e == IDEM_E_NO_KEY);
        CHECK_IS(idem_explain(store, &k, &after), there);
        if (there == IDEM_OK) {
            CHECK_IS(after.state, before.state);
            CHECK_IS(after.token, before.token);
            CHECK_IS(after.attempt, before.attempt);
            CHECK_IS(after.status, before.status);
            CHECK_IS(after.mark_bytes, before.mark_bytes);
            CHECK(after.mark_bytes == 0 || memcmp(after.mark, before.mark, after.mark_bytes) == 0);
            CHECK(after.lease_left_ms <= before.lease_left_ms);
        }
        idem_story_free(&before);
        idem_story_free(&after);
        if (i + 1 < sizeof ends / sizeof ends[0])
            over(state);
    }
}

static void a_lease_that_ended_without_a_takeover_fences_nobody(void **state)
{
    (void)state;
    idem_claim claim = claimed("k");
    support_clock_add(claim.lease_ms + 1000);
    CHECK_IS(idem_mark(store, &claim, "still mine", 10), IDEM_OK);
    CHECK_IS(idem_renew(store, &claim, 0), IDEM_OK);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
    support_clock_add(claim.lease_ms + 1000);
    CHECK_IS(support_complete(store, &claim, 200, "late but first"), IDEM_OK);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_REPLAY);
}

/* ------------------------------------------------------------------ each operation */

static void repeating_ones_own_complete_is_ok_and_changes_nothing(void **state)
{
    (void)state;
    idem_claim claim = claimed("k");
    idem_request rq = support_request("k");
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK_IS(support_complete(store, &claim, 200, "first"), IDEM_OK);
    CHECK_IS(support_complete(store, &claim, 500, "second"), IDEM_OK);
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_REPLAY);
    CHECK_IS(reply.status, 200);
    CHECK_BYTES(reply.body, reply.body_bytes, "first");
    CHECK_IS(support_stats(store).completed, 1);
    idem_reply_free(&reply);
}

static void a_response_may_be_empty_or_all_metadata(void **state)
{
    (void)state;
    idem_request rq = support_request("empty");
    idem_reply reply = IDEM_REPLY_INIT;
    idem_response rs = IDEM_RESPONSE_INIT;
    idem_claim claim = claimed("empty");
    rs.status = INT32_MIN;
    CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_REPLAY);
    CHECK_IS(reply.status, INT32_MIN);
    CHECK(reply.meta_bytes == 0 && reply.body_bytes == 0);
    idem_reply_free(&reply);
    for (size_t n = 1; n < 40; n++) { /* every alignment of metadata and body */
        char key[16], meta[40], body[40];
        snprintf(key, sizeof key, "k%zu", n);
        memset(meta, 'm', sizeof meta);
        memset(body, 'b', sizeof body);
        meta[n] = body[40 - n] = '\0';
        claim = claimed(key);
        rs = support_response((int32_t)n, body);
        rs.meta = meta;
        rs.meta_bytes = n;
        CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
        rq = support_request(key);
        CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_REPLAY);
        CHECK_BYTES(reply.meta, reply.meta_bytes, meta);
        CHECK_BYTES(reply.body, reply.body_bytes, body);
        idem_reply_free(&reply);
    }
}

static void a_bad_response_or_claim_is_invalid_and_leaves_the_attempt_running(void **state)
{
    (void)state;
    idem_claim claim = claimed("k"), bad;
#define BAD(change)                                                  \
    do {                                                             \
        idem_response rs = support_response(1, "b");                 \
        change;                                                      \
        CHECK_IS(idem_complete(store, &claim, &rs), IDEM_E_INVALID); \
    } while (0)
    BAD(rs.size--);
    BAD(rs.flags = 2);
    BAD(rs.user_flags = 65536);
    BAD(rs.durability = IDEM_DURABILITY_SYNC);
    BAD(rs.body = NULL);
    BAD(rs.meta_bytes = 1);
    BAD(rs.ttl_ms = -1);
    BAD(rs.ttl_ms = IDEM_TTL_MAX_MS + 1);
#undef BAD
    idem_response rs = support_response(1, "b");
    CHECK_IS(idem_complete(store, &claim, NULL), IDEM_E_INVALID);
    CHECK_IS(idem_complete(store, NULL, &rs), IDEM_E_INVALID);
    CHECK_IS(idem_complete(NULL, &claim, &rs), IDEM_E_INVALID);
    bad = claim;
    bad.size--;
    CHECK_IS(idem_complete(store, &bad, &rs), IDEM_E_INVALID);
    CHECK_IS(idem_renew(store, &claim, -1), IDEM_E_INVALID);
    CHECK_IS(idem_renew(store, &claim, IDEM_LEASE_MAX_MS + 1), IDEM_E_INVALID);
    CHECK_IS(idem_renew(store, NULL, 1), IDEM_E_INVALID);
    CHECK_IS(idem_mark(store, &claim, NULL, 1), IDEM_E_INVALID);
    CHECK_IS(idem_mark(store, NULL, "m", 1), IDEM_E_INVALID);
    CHECK_IS(idem_adopt(store, NULL), IDEM_E_INVALID);
    CHECK_IS(idem_abandon(store, &claim, 2), IDEM_E_INVALID);
    CHECK_IS(idem_abandon(store, &claim, -1), IDEM_E_INVALID);
    CHECK_IS(idem_abandon(store, NULL, 0), IDEM_E_INVALID);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
    CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
}

static void a_claim_with_a_wild_place_or_hash_is_lost_not_followed(void **state)
{
    (void)state;
    idem_claim claim = claimed("k"), bad = claim;
    support_answer(store, "other", 1, "x");
    for (uint64_t place = 0; place < 3000; place++) {
        bad.place = place;
        if (place != claim.place)
            CHECK_IS(support_complete(store, &bad, 1, "wild"), IDEM_E_LOST);
    }
    bad.place = UINT64_MAX;
    CHECK_IS(support_complete(store, &bad, 1, "wild"), IDEM_E_LOST);
    bad = claim;
    bad.hash ^= UINT64_C(1) << 20;
    CHECK_IS(support_complete(store, &bad, 1, "wild"), IDEM_E_LOST);
    bad = claim;
    bad.token++;
    CHECK_IS(support_complete(store, &bad, 1, "wild"), IDEM_E_LOST);
    bad = claim;
    bad.store_uuid[3] ^= 1;
    CHECK_IS(support_complete(store, &bad, 1, "wild"), IDEM_E_STALE);
    CHECK_IS(idem_renew(store, &bad, 1), IDEM_E_STALE);
    CHECK_IS(idem_mark(store, &bad, "m", 1), IDEM_E_STALE);
    CHECK_IS(idem_adopt(store, &bad), IDEM_E_STALE);
    CHECK_IS(idem_abandon(store, &bad, 0), IDEM_E_STALE);
    CHECK_IS(support_complete(store, &claim, 1, "mine"), IDEM_OK);
}

static void renewing_moves_the_lease_from_now_on(void **state)
{
    (void)state;
    idem_request rq = support_request("k");
    idem_claim claim, none;
    rq.lease_ms = 1000;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    for (int i = 0; i < 50; i++) {
        support_clock_add(900);
        CHECK_IS(idem_renew(store, &claim, i % 2 == 0 ? 0 : 1500), IDEM_OK);
        idem_story story = story_of("k");
        int64_t most = i % 2 == 0 ? 1000 : 1500;
        CHECK(story.lease_left_ms > 0 && story.lease_left_ms <= most);
        CHECK_IS(story.token, claim.token);
        CHECK_IS(story.attempt, 1);
        idem_story_free(&story);
        CHECK_IS(idem_begin(store, &rq, &none, NULL), IDEM_IN_PROGRESS);
    }
    support_clock_add(1600);
    CHECK_IS(idem_begin(store, &rq, &none, NULL), IDEM_RECLAIMED);
    CHECK_IS(support_stats(store).renewed, 50);
}

static void the_newest_mark_counts_and_an_empty_one_clears_it(void **state)
{
    (void)state;
    static char longest[IDEM_MARK_MAX + 1];
    memset(longest, 'm', sizeof longest - 1);
    idem_claim claim = claimed("k");
    idem_key k = support_key("k");
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK_IS(idem_mark(store, &claim, "one", 3), IDEM_OK);
    CHECK_IS(idem_mark(store, &claim, longest, IDEM_MARK_MAX), IDEM_OK);
    CHECK_IS(idem_mark(store, &claim, longest, IDEM_MARK_MAX + 1), IDEM_E_INVALID);
    CHECK_IS(idem_lookup(store, &k, &reply), IDEM_IN_PROGRESS);
    CHECK_BYTES(reply.mark, reply.mark_bytes, longest);
    idem_reply_free(&reply);
    CHECK_IS(idem_mark(store, &claim, "", 0), IDEM_OK);
    CHECK_IS(idem_lookup(store, &k, &reply), IDEM_IN_PROGRESS);
    CHECK(reply.mark == NULL && reply.mark_bytes == 0);
    for (size_t n = 1; n <= 20; n++) {
        longest[n] = '\0';
        CHECK_IS(idem_mark(store, &claim, longest, n), IDEM_OK);
        CHECK_IS(idem_lookup(store, &k, &reply), IDEM_IN_PROGRESS);
        CHECK_BYTES(reply.mark, reply.mark_bytes, longest);
        idem_reply_free(&reply);
        longest[n] = 'm';
    }
}

static void finding_a_claim_gives_one_that_can_be_completed(void **state)
{
    (void)state;
    idem_claim claim = claimed("k"), found;
    idem_key k = support_key("k"), none = support_key("none");
    CHECK_IS(idem_find(store, &k, claim.token, &found), IDEM_OK);
    CHECK_IS(found.token, claim.token);
    CHECK_IS(found.attempt, 1);
    CHECK_IS(found.lease_ms, claim.lease_ms);
    CHECK_IS(idem_find(store, &k, 0, &found), IDEM_OK);
    CHECK_IS(idem_find(store, &k, claim.token + 1, &found), IDEM_E_LOST);
    CHECK_IS(found.token, 0);
    CHECK_IS(idem_find(store, &none, 0, &found), IDEM_E_NO_KEY);
    CHECK_IS(idem_find(store, NULL, 0, &found), IDEM_E_INVALID);
    CHECK_IS(idem_find(store, &k, 0, NULL), IDEM_E_INVALID);
    none.key_bytes = 0;
    CHECK_IS(idem_find(store, &none, 0, &found), IDEM_E_INVALID);
    CHECK_IS(idem_renew(store, &claim, 70000), IDEM_OK);
    CHECK_IS(idem_find(store, &k, 0, &found), IDEM_OK);
    CHECK_IS(idem_renew(store, &found, 0), IDEM_OK);
    CHECK_IS(support_complete(store, &found, 200, "x"), IDEM_OK);
    CHECK_IS(idem_find(store, &k, 0, &found), IDEM_E_LOST);
    CHECK_IS(idem_forget(store, &k), IDEM_OK);
    CHECK_IS(idem_find(store, &k, 0, &found), IDEM_E_NO_KEY);
}

static void the_wire_form_carries_a_claim_whole_and_refuses_other_bytes(void **state)
{
    (void)state;
    uint8_t wire[IDEM_CLAIM_WIRE_BYTES], again[IDEM_CLAIM_WIRE_BYTES];
    idem_request rq = support_request("k");
    idem_claim claim, decoded;
    rq.flags = IDEM_LEASE_ONLY;
    rq.lease_ms = 123456;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    idem_claim_encode(&claim, wire);
    memset(&decoded, 0xee, sizeof decoded);
    CHECK_IS(idem_claim_decode(wire, &decoded), IDEM_OK);
    CHECK(decoded.entry == 0);
    claim.entry = 0; /* where it lies in memory is not carried: it would say nothing after a restart */
    CHECK(memcmp(&claim, &decoded, sizeof claim) == 0);
    idem_claim_encode(&decoded, again);
    CHECK(memcmp(wire, again, sizeof wire) == 0);
    for (unsigned i = 0; i < 8; i++) {
        wire[i] ^= 0x20;
        CHECK_IS(idem_claim_decode(wire, &decoded), IDEM_E_INVALID);
        wire[i] ^= 0x20;
    }
    wire[55] = 0x7f; /* a lease of a million years */
    CHECK_IS(idem_claim_decode(wire, &decoded), IDEM_E_INVALID);
    memset(wire, 0, sizeof wire);
    CHECK_IS(idem_claim_decode(wire, &decoded), IDEM_E_INVALID);
    CHECK_IS(idem_claim_decode(again, &decoded), IDEM_OK);
    CHECK_IS(support_complete(store, &decoded, 200, "sent about"), IDEM_OK);
}

static void the_wire_form_is_little_endian_and_fixed(void **state)
{
    (void)state;
    idem_claim claim = IDEM_CLAIM_INIT;
    uint8_t wire[IDEM_CLAIM_WIRE_BYTES];
    static const uint8_t golden[IDEM_CLAIM_WIRE_BYTES] = {
        'i',  'd',  'e',  'm',  'c',  'l',  'm',  '1',  0,    1,    2,    3,    4,    5,    6,    7,
        8,    9,    10,   11,   12,   13,   14,   15,   8,    7,    6,    5,    4,    3,    2,    1,
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
        0x30, 0x75, 0,    0,    0,    0,    0,    0,    2,    0,    0,    0,    3,    0,    0,    0};
    for (uint8_t i = 0; i < 16; i++)
        claim.store_uuid[i] = i;
    claim.token = UINT64_C(0x0102030405060708);
    claim.place = UINT64_C(0x1112131415161718);
    claim.hash = UINT64_C(0x2122232425262728);
    claim.lease_ms = 30000;
    claim.attempt = 2;
    claim.flags = IDEM_HOLD | IDEM_LEASE_ONLY;
    idem_claim_encode(&claim, wire);
    CHECK(memcmp(wire, golden, sizeof wire) == 0);
}

static void attempts_stop_counting_at_65535(void **state)
{
    (void)state;
    idem_claim claim = claimed("k");
    uint64_t last = claim.token;
    for (uint32_t attempt = 2; attempt < 65538; attempt++) {
        CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
        int e = support_begin(store, "k", &claim);
        if (e != IDEM_CLAIMED || claim.attempt != (attempt < 65535 ? attempt : 65535) || claim.token <= last) {
            CHECK_IS(e, IDEM_CLAIMED);
            CHECK_IS(claim.attempt, attempt < 65535 ? attempt : 65535);
            CHECK(claim.token > last);
        }
        last = claim.token;
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, over)
    const struct CMUnitTest tests[] = {
        TEST(no_operation_of_an_owner_does_anything_once_its_claim_is_over),
        TEST(a_lease_that_ended_without_a_takeover_fences_nobody),
        TEST(repeating_ones_own_complete_is_ok_and_changes_nothing),
        TEST(a_response_may_be_empty_or_all_metadata),
        TEST(a_bad_response_or_claim_is_invalid_and_leaves_the_attempt_running),
        TEST(a_claim_with_a_wild_place_or_hash_is_lost_not_followed),
        TEST(renewing_moves_the_lease_from_now_on),
        TEST(the_newest_mark_counts_and_an_empty_one_clears_it),
        TEST(finding_a_claim_gives_one_that_can_be_completed),
        TEST(the_wire_form_carries_a_claim_whole_and_refuses_other_bytes),
        TEST(the_wire_form_is_little_endian_and_fixed),
        TEST(attempts_stop_counting_at_65535),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
