/*
 * tests/unit/test_begin.c - asking for a key: every verdict, bounds of a request, scopes, where a reply's bytes go, batches.
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

static void a_new_key_is_claimed_then_in_progress_then_replayed(void **state)
{
    (void)state;
    idem_request rq = support_request("order-1");
    idem_claim claim, none;
    idem_reply reply = IDEM_REPLY_INIT;
    rq.fingerprint = 42;
    rq.lease_ms = 5000;
    rq.ttl_ms = 60000;
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_CLAIMED);
    CHECK_IS(claim.size, sizeof claim);
    CHECK_IS(claim.attempt, 1);
    CHECK_IS(claim.lease_ms, 5000);
    CHECK_IS(claim.flags, 0);
    CHECK(claim.token != 0);
    CHECK_IS(reply.token, claim.token);
    CHECK_IS(reply.attempt, 1);
    CHECK_IS(reply.lost_reason, IDEM_LOST_NONE);
    CHECK_IS(reply.expires_in_ms, 60000);

    memset(&none, 0xee, sizeof none);
    CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_IN_PROGRESS);
    CHECK_IS(none.token, 0);
    CHECK_IS(reply.token, claim.token);
    CHECK(reply.retry_after_ms >= 1 && reply.retry_after_ms <= 5000);

    idem_response rs = support_response(201, "the body");
    rs.meta = "X-A: b";
    rs.meta_bytes = 6;
    rs.user_flags = 0xabcd;
    CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
    CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_REPLAY);
    CHECK_IS(none.token, 0);
    CHECK_IS(reply.token, claim.token);
    CHECK_IS(reply.status, 201);
    CHECK_IS(reply.flags, 0);
    CHECK_IS(reply.response_flags, 0xabcd);
    CHECK_BYTES(reply.meta, reply.meta_bytes, "X-A: b");
    CHECK_BYTES(reply.body, reply.body_bytes, "the body");
    CHECK(reply.age_ms >= 0 && reply.age_ms < SUPPORT_PATIENCE_MS);
    CHECK(reply.expires_in_ms > 0 && reply.expires_in_ms <= 60000);
    idem_reply_free(&reply);
}

static void another_fingerprint_is_a_mismatch_in_progress_and_completed(void **state)
{
    (void)state;
    idem_request mine = support_request("k"), other = mine;
    idem_claim claim, none;
    idem_reply reply = IDEM_REPLY_INIT;
    mine.fingerprint = 1;
    other.fingerprint = 2;
    CHECK_IS(idem_begin(store, &mine, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_begin(store, &other, &none, &reply), IDEM_MISMATCH);
    other.fingerprint = 0; /* "none" is a value like any other */
    CHECK_IS(idem_begin(store, &other, &none, &reply), IDEM_MISMATCH);
    CHECK_IS(none.token, 0);
    CHECK(reply.body == NULL && reply.mark == NULL);
    CHECK_IS(support_complete(store, &claim, 200, "secret"), IDEM_OK);
    CHECK_IS(idem_begin(store, &other, &none, &reply), IDEM_MISMATCH);
    CHECK(reply.body == NULL && reply.body_bytes == 0 && reply.status == 0);
    CHECK_IS(idem_begin(store, &mine, &none, &reply), IDEM_REPLAY);
    idem_reply_free(&reply);
}

static void an_abandoned_attempt_does_not_bind_the_fingerprint(void **state)
{
    (void)state;
    idem_request rq = support_request("k");
    idem_claim claim;
    rq.fingerprint = 1;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
    rq.fingerprint = 2;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(claim.attempt, 2);
    CHECK_IS(idem_abandon(store, &claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    rq.fingerprint = 3; /* but a lost one does */
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_MISMATCH);
    rq.fingerprint = 2;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_RECLAIMED);
    CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
    rq.fingerprint = 3;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_MISMATCH);
}

static void a_request_past_its_bounds_is_invalid(void **state)
{
    (void)state;
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
#define BAD(change)                                                       \
    do {                                                                  \
        idem_request rq = support_request("k");                           \
        change;                                                           \
        CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_E_INVALID);   \
        CHECK_IS(idem_wait(store, &rq, 0, &claim, NULL), IDEM_E_INVALID); \
        CHECK_IS(claim.token, 0);                                         \
    } while (0)
    BAD(rq.size = 0);
    BAD(rq.size = sizeof rq - 1);
    BAD(rq.size = sizeof rq + 1);
    BAD(rq.flags = IDEM_NO_WAIT << 1);
    BAD(rq.flags = 1u << 31);
    BAD(rq.durability = IDEM_DURABILITY_SYNC);
    BAD(rq.lease_ms = -1);
    BAD(rq.lease_ms = IDEM_LEASE_MAX_MS + 1);
    BAD(rq.lease_ms = IDEM_FOREVER);
    BAD(rq.ttl_ms = -1);
    BAD(rq.ttl_ms = IDEM_TTL_MAX_MS + 1);
    BAD(rq.ttl_ms = IDEM_FOREVER - 1);
    BAD(rq.key.key_bytes = 0);
    BAD(rq.key.key = NULL);
    BAD(rq.key.scope_bytes = 1);
    BAD(rq.key.key_bytes = SIZE_MAX);
#undef BAD
    idem_request rq = support_request("k");
    CHECK_IS(idem_begin(NULL, &rq, &claim, NULL), IDEM_E_INVALID);
    CHECK_IS(idem_begin(store, NULL, &claim, NULL), IDEM_E_INVALID);
    CHECK_IS(idem_begin(store, &rq, NULL, NULL), IDEM_E_INVALID);
    reply.size--;
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_E_INVALID);
    CHECK_IS(idem_wait(store, &rq, 0, &claim, &reply), IDEM_E_INVALID);
    CHECK_IS(idem_wait(store, &rq, -1, &claim, NULL), IDEM_E_INVALID);
    CHECK_IS(idem_wait(store, &rq, 0, NULL, NULL), IDEM_E_INVALID);
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED); /* none of them claimed anything */
}

static void a_request_at_its_bounds_is_accepted(void **state)
{
    (void)state;
    static const int64_t leases[] = {1, IDEM_LEASE_MAX_MS}, ttls[] = {1, IDEM_TTL_MAX_MS, IDEM_FOREVER};
    char key[8];
    int n = 0;
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; j < 3; j++) {
            snprintf(key, sizeof key, "k%d", n++);
            idem_request rq = support_request(key);
            idem_claim claim;
            idem_reply reply = IDEM_REPLY_INIT;
            rq.lease_ms = leases[i];
            rq.ttl_ms = ttls[j];
            rq.flags = IDEM_HOLD | IDEM_LEASE_ONLY;
            CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_CLAIMED);
            CHECK_IS(claim.lease_ms, leases[i]);
            CHECK_IS(claim.flags, IDEM_HOLD | IDEM_LEASE_ONLY);
            if (ttls[j] == IDEM_FOREVER)
                CHECK_IS(reply.expires_in_ms, IDEM_FOREVER);
        }
}

static void keys_up_to_their_limit_are_told_apart_and_one_byte_more_is_invalid(void **state)
{
    (void)state;
    static char bytes[IDEM_KEY_MAX + 1];
    memset(bytes, 'x', sizeof bytes);
    idem_request rq = IDEM_REQUEST_INIT;
    idem_claim claim;
    rq.key = (idem_key){.key = bytes, .key_bytes = IDEM_KEY_MAX};
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(support_complete(store, &claim, 1, "longest"), IDEM_OK);
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_REPLAY);
    rq.key.key_bytes = IDEM_KEY_MAX - 1;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    rq.key.key_bytes = IDEM_KEY_MAX + 1;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_E_INVALID);
    rq.key = (idem_key){.scope = bytes, .scope_bytes = IDEM_KEY_MAX - 1, .key = bytes, .key_bytes = 1};
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED); /* the scope frames it: another key than the first */
    rq.key.scope_bytes = IDEM_KEY_MAX;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_E_INVALID);
    rq.key.scope_bytes = SIZE_MAX; /* the sum would wrap */
    rq.key.key_bytes = 2;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_E_INVALID);
    bytes[IDEM_KEY_MAX - 1] = 'y';
    rq.key = (idem_key){.key = bytes, .key_bytes = IDEM_KEY_MAX};
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
}

static idem_key scoped(const char *scope, const char *key)
{
    return (idem_key){.scope = scope, .scope_bytes = strlen(scope), .key = key, .key_bytes = strlen(key)};
}

static void scope_and_key_are_framed(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"", "abc"}, {"a", "bc"}, {"ab", "c"}, {"a", "bcd"}, {"abc", "d"}};
    idem_claim claims[5], none;
    for (size_t i = 0; i < 5; i++) {
        idem_request rq = IDEM_REQUEST_INIT;
        rq.key = scoped(pairs[i][0], pairs[i][1]);
        CHECK_IS(idem_begin(store, &rq, &claims[i], NULL), IDEM_CLAIMED);
    }
    for (size_t i = 0; i < 5; i++)
        CHECK_IS(support_complete(store, &claims[i], (int32_t)i, pairs[i][1]), IDEM_OK);
    for (size_t i = 0; i < 5; i++) {
        idem_request rq = IDEM_REQUEST_INIT;
        idem_reply reply = IDEM_REPLY_INIT;
        rq.key = scoped(pairs[i][0], pairs[i][1]);
        CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_REPLAY);
        CHECK_IS(reply.status, i);
        idem_reply_free(&reply);
    }
}

static void the_same_bytes_split_elsewhere_are_another_key_even_where_hashes_match(void **state)
{
    (void)state;
    /* 16 buckets and 7 bits of tag: scopes whose lengths differ by a multiple of 128 have the same tag, some the same bucket, too. */
    idem_options o = support_options(16);
    const char *small = support_dir();
    idem_store *s = support_open(small, &o);
    char bytes[IDEM_KEY_MAX];
    memset(bytes, 'x', sizeof bytes);
    for (size_t split = 0; split < 128; split++) {
        idem_claim claim;
        idem_request rq = IDEM_REQUEST_INIT;
        rq.key =
            (idem_key){.scope = bytes, .scope_bytes = split, .key = bytes + split, .key_bytes = sizeof bytes - split};
        CHECK_IS(idem_begin(s, &rq, &claim, NULL), IDEM_CLAIMED);
        CHECK_IS(support_complete(s, &claim, 1, "x"), IDEM_OK);
        for (size_t elsewhere = 0; elsewhere < sizeof bytes; elsewhere++) {
            idem_key other = {bytes, elsewhere, bytes + elsewhere, sizeof bytes - elsewhere};
            CHECK_IS(idem_lookup(s, &other, NULL), split == elsewhere ? IDEM_REPLAY : IDEM_E_NO_KEY);
        }
        CHECK_IS(idem_forget(s, &rq.key), IDEM_OK);
        support_clock_add(1);
    }
    idem_close(s);
    support_verify(small);
}

static void keys_are_arbitrary_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
    } keys[] = {{"\0", 1}, {"\0\0", 2}, {"\0a", 2}, {"a\0", 2}, {"a", 1}, {"\xff\xfe", 2}, {"a\n", 2}};
    idem_claim claim;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        idem_request rq = IDEM_REQUEST_INIT;
        rq.key = (idem_key){.key = keys[i].bytes, .key_bytes = keys[i].n};
        CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    }
}

/* ------------------------------------------------------------------ where the bytes go */

static struct {
    char room[4096];
    size_t used, calls;
    bool refuse;
} pool;

static void *from_pool(void *ctx, size_t bytes)
{
    CHECK(ctx == &pool);
    pool.calls++;
    if (pool.refuse || pool.used + bytes > sizeof pool.room)
        return NULL;
    void *at = pool.room + pool.used;
    pool.used += (bytes + 15) / 16 * 16;
    return at;
}

static bool lies_in(const void *at, const void *room, size_t bytes)
{
    return (const char *)at >= (const char *)room && (const char *)at < (const char *)room + bytes;
}

static void a_reply_goes_into_the_buffer_if_it_fits_else_the_allocator_else_malloc(void **state)
{
    (void)state;
    char buffer[16];
    support_answer(store, "small", 1, "0123456789abcdef"); /* fits to the byte */
    support_answer(store, "large", 1, "0123456789abcdefg");
    idem_request small = support_request("small"), large = support_request("large");
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;

    reply.buffer = buffer;
    reply.buffer_bytes = sizeof buffer;
    CHECK_IS(idem_begin(store, &small, &claim, &reply), IDEM_REPLAY);
    CHECK(lies_in(reply.body, buffer, sizeof buffer));
    CHECK_BYTES(reply.body, reply.body_bytes, "0123456789abcdef");
    idem_reply_free(&reply);

    CHECK_IS(idem_begin(store, &large, &claim, &reply), IDEM_REPLAY);
    CHECK(!lies_in(reply.body, buffer, sizeof buffer)); /* malloc: the address sanitizer sees if it is not freed */
    CHECK_BYTES(reply.body, reply.body_bytes, "0123456789abcdefg");
    idem_reply_free(&reply);
    idem_reply_free(&reply);
    CHECK(reply.body == NULL && reply.body_bytes == 0);

    memset(&pool, 0, sizeof pool);
    reply.alloc = from_pool;
    reply.alloc_ctx = &pool;
    CHECK_IS(idem_begin(store, &small, &claim, &reply), IDEM_REPLAY);
    CHECK_IS(pool.calls, 0); /* the buffer comes first */
    CHECK_IS(idem_begin(store, &large, &claim, &reply), IDEM_REPLAY);
    CHECK_IS(pool.calls, 1);
    CHECK(lies_in(reply.body, pool.room, sizeof pool.room));
    CHECK_BYTES(reply.body, reply.body_bytes, "0123456789abcdefg");
    idem_reply_free(&reply);
    idem_reply_free(NULL);
}

static void without_memory_for_the_reply_nothing_is_claimed(void **state)
{
    (void)state;
    idem_request rq = support_request("k"), done = support_request("done");
    idem_claim claim, second;
    idem_reply reply = IDEM_REPLY_INIT;
    memset(&pool, 0, sizeof pool);
    pool.refuse = true;
    reply.alloc = from_pool;
    reply.alloc_ctx = &pool;
    support_answer(store, "done", 1, "body");
    CHECK_IS(idem_begin(store, &done, &claim, &reply), IDEM_E_MEMORY);
    CHECK(reply.body == NULL && reply.token == 0);
    CHECK_IS(idem_lookup(store, &done.key, &reply), IDEM_E_MEMORY);

    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_mark(store, &claim, "charged", 7), IDEM_OK);
    CHECK_IS(idem_abandon(store, &claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    CHECK_IS(idem_begin(store, &rq, &second, &reply), IDEM_E_MEMORY);
    CHECK_IS(second.token, 0);
    pool.refuse = false;
    CHECK_IS(idem_begin(store, &rq, &second, &reply), IDEM_RECLAIMED);
    CHECK_IS(second.attempt, 2);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "charged");
}

static void a_reply_is_optional_everywhere(void **state)
{
    (void)state;
    idem_request rq = support_request("k");
    idem_claim claim;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_mark(store, &claim, "m", 1), IDEM_OK);
    CHECK_IS(idem_lookup(store, &rq.key, NULL), IDEM_IN_PROGRESS);
    CHECK_IS(idem_abandon(store, &claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    CHECK_IS(idem_lookup(store, &rq.key, NULL), IDEM_UNKNOWN);
    CHECK_IS(idem_wait(store, &rq, 0, &claim, NULL), IDEM_RECLAIMED);
    CHECK_IS(support_complete(store, &claim, 200, "body"), IDEM_OK);
    CHECK_IS(idem_wait(store, &rq, 0, &claim, NULL), IDEM_REPLAY);
    CHECK_IS(idem_lookup(store, &rq.key, NULL), IDEM_REPLAY);
}

/* ------------------------------------------------------------------ batches */

#define MANY 100

static void begin_many_answers_as_begin_does_and_a_key_that_comes_twice_in_order(void **state)
{
    (void)state;
    static char keys[MANY][16];
    static idem_request requests[MANY + 3];
    static idem_result results[MANY + 3];
    idem_claim claim;
    for (int i = 0; i < MANY; i++) {
        snprintf(keys[i], sizeof keys[i], "key-%d", i);
        requests[i] = support_request(keys[i]);
        if (i % 4 == 0)
            support_answer(store, keys[i], i, keys[i]);
        if (i % 4 == 1)
            CHECK_IS(support_begin(store, keys[i], NULL), IDEM_CLAIMED);
        if (i % 4 == 2) {
            CHECK_IS(support_begin(store, keys[i], &claim), IDEM_CLAIMED);
            CHECK_IS(idem_abandon(store, &claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
        }
    }
    requests[MANY] = requests[3];     /* claimed by this batch */
    requests[MANY + 1] = requests[2]; /* reclaimed by it */
    requests[MANY + 2] = requests[3];
    requests[MANY + 2].fingerprint = 9;
    requests[7].key.key_bytes = 0; /* one that is invalid spoils nothing */
    for (int i = 0; i < MANY + 3; i++)
        results[i] = (idem_result){.size = sizeof(idem_result), .reply = IDEM_REPLY_INIT};
    CHECK_IS(idem_begin_many(store, requests, MANY + 3, results), IDEM_OK);
    for (int i = 0; i < MANY; i++) {
        static const int wanted[] = {IDEM_REPLAY, IDEM_IN_PROGRESS, IDEM_RECLAIMED, IDEM_CLAIMED};
        idem_result *r = &results[i];
        CHECK_IS(r->verdict, i == 7 ? IDEM_E_INVALID : wanted[i % 4]);
        if (i % 4 == 0)
            CHECK_BYTES(r->reply.body, r->reply.body_bytes, keys[i]);
        CHECK((r->claim.token != 0) == (r->verdict == IDEM_CLAIMED || r->verdict == IDEM_RECLAIMED));
        if (r->claim.token != 0)
            CHECK_IS(support_complete(store, &r->claim, 1, "from a batch"), IDEM_OK);
        idem_reply_free(&r->reply);
    }
    CHECK_IS(results[MANY].verdict, IDEM_IN_PROGRESS);
    CHECK_IS(results[MANY].reply.token, results[3].claim.token);
    CHECK_IS(results[MANY + 1].verdict, IDEM_IN_PROGRESS);
    CHECK_IS(results[MANY + 2].verdict, IDEM_MISMATCH);
    CHECK_IS(support_begin(store, keys[3], NULL), IDEM_REPLAY);
}

/* Ends the attempts that were just granted, the same way in both stores. */
static void end_attempts(idem_store *in, const idem_result *results, size_t n, uint64_t *random)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t how = support_random(random) % 8;
        if (results[i].verdict != IDEM_CLAIMED && results[i].verdict != IDEM_RECLAIMED)
            continue;
        if (how < 2)
            CHECK_IS(idem_abandon(in, &results[i].claim, (int)how), IDEM_OK);
        else if (how < 6)
            CHECK_IS(support_complete(in, &results[i].claim, (int32_t)i, "same"), IDEM_OK);
    }
}

static void begin_many_gives_what_begin_gives_for_any_sequence_of_requests(void **state)
{
    (void)state;
    static char keys[40][16];
    static idem_request requests[100];
    static idem_result one[100], many[100];
    idem_store *other = support_open(support_dir(), NULL);
    uint64_t random = support_seed();
    unsigned verdicts[8] = {0};
    for (int i = 0; i < 40; i++)
        snprintf(keys[i], sizeof keys[i], "%d", i);
    for (int round = 0; round < 300; round++) {
        size_t n = 1 + (size_t)(support_random(&random) % 100);
        for (size_t i = 0; i < n; i++) {
            requests[i] = support_request(keys[support_random(&random) % 40]);
            requests[i].fingerprint = support_random(&random) % 8 == 0;
            requests[i].flags = support_random(&random) % 8 == 0 ? IDEM_HOLD : 0;
            one[i] = many[i] = (idem_result){.size = sizeof(idem_result), .reply = IDEM_REPLY_INIT};
            one[i].verdict = idem_begin(store, &requests[i], &one[i].claim, &one[i].reply);
        }
        CHECK_IS(idem_begin_many(other, requests, n, many), IDEM_OK);
        for (size_t i = 0; i < n; i++) {
            CHECK_IS(many[i].verdict, one[i].verdict);
            CHECK_IS(many[i].claim.attempt, one[i].claim.attempt);
            CHECK_IS(many[i].reply.status, one[i].reply.status);
            CHECK_IS(many[i].reply.lost_reason, one[i].reply.lost_reason);
            CHECK_IS(many[i].reply.body_bytes, one[i].reply.body_bytes);
            verdicts[one[i].verdict]++;
        }
        uint64_t again = random;
        end_attempts(store, one, n, &random);
        end_attempts(other, many, n, &again);
        for (size_t i = 0; i < n; i++) {
            idem_reply_free(&one[i].reply);
            idem_reply_free(&many[i].reply);
        }
        if (round % 10 == 9) { /* forget some, else all keys are held or answered soon */
            for (int i = 0; i < 40; i++) {
                idem_key k = support_key(keys[i]);
                CHECK_IS(idem_forget(store, &k), idem_forget(other, &k));
            }
        }
    }
    for (int v = IDEM_CLAIMED; v <= IDEM_UNKNOWN; v++)
        CHECK(verdicts[v] > 20);
    idem_close(other);
}

static void begin_many_checks_its_arrays_before_it_claims_anything(void **state)
{
    (void)state;
    static idem_request requests[2];
    static idem_result results[2];
    for (int i = 0; i < 2; i++) {
        requests[i] = support_request(i == 0 ? "a" : "b");
        results[i] = (idem_result){.size = sizeof(idem_result), .reply = IDEM_REPLY_INIT};
    }
    CHECK_IS(idem_begin_many(store, NULL, 2, results), IDEM_E_INVALID);
    CHECK_IS(idem_begin_many(store, requests, 2, NULL), IDEM_E_INVALID);
    CHECK_IS(idem_begin_many(store, requests, 0, results), IDEM_E_INVALID);
    CHECK_IS(idem_begin_many(store, requests, 65537, results), IDEM_E_INVALID);
    results[1].size--;
    CHECK_IS(idem_begin_many(store, requests, 2, results), IDEM_E_INVALID);
    results[1].size++;
    results[1].reply.size = 0;
    CHECK_IS(idem_begin_many(store, requests, 2, results), IDEM_E_INVALID);
    CHECK_IS(idem_lookup(store, &requests[0].key, NULL), IDEM_E_NO_KEY);
    results[1].reply.size = sizeof(idem_reply);
    CHECK_IS(idem_begin_many(store, requests, 2, results), IDEM_OK);
    CHECK_IS(results[0].verdict, IDEM_CLAIMED);
    CHECK_IS(results[1].verdict, IDEM_CLAIMED);
}

static void the_largest_batch_is_answered(void **state)
{
    (void)state;
    const size_t n = 65536;
    idem_options o = support_options(n);
    idem_store *big = support_open(support_dir(), &o);
    idem_request *requests = calloc(n, sizeof *requests);
    idem_result *results = calloc(n, sizeof *results);
    uint64_t *keys = calloc(n, sizeof *keys);
    CHECK(requests != NULL && results != NULL && keys != NULL);
    for (size_t i = 0; i < n; i++) {
        keys[i] = i;
        requests[i].size = sizeof *requests;
        requests[i].key = (idem_key){.key = &keys[i], .key_bytes = sizeof keys[i]};
        results[i].size = sizeof *results;
        results[i].reply.size = sizeof results[i].reply;
    }
    CHECK_IS(idem_begin_many(big, requests, n, results), IDEM_OK);
    size_t claimed = 0;
    for (size_t i = 0; i < n; i++)
        claimed += results[i].verdict == IDEM_CLAIMED;
    CHECK_IS(claimed, n);
    free(requests);
    free(results);
    free(keys);
    idem_close(big);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, over)
    const struct CMUnitTest tests[] = {
        TEST(a_new_key_is_claimed_then_in_progress_then_replayed),
        TEST(another_fingerprint_is_a_mismatch_in_progress_and_completed),
        TEST(an_abandoned_attempt_does_not_bind_the_fingerprint),
        TEST(a_request_past_its_bounds_is_invalid),
        TEST(a_request_at_its_bounds_is_accepted),
        TEST(keys_up_to_their_limit_are_told_apart_and_one_byte_more_is_invalid),
        TEST(scope_and_key_are_framed),
        TEST(the_same_bytes_split_elsewhere_are_another_key_even_where_hashes_match),
        TEST(keys_are_arbitrary_bytes),
        TEST(a_reply_goes_into_the_buffer_if_it_fits_else_the_allocator_else_malloc),
        TEST(without_memory_for_the_reply_nothing_is_claimed),
        TEST(a_reply_is_optional_everywhere),
        TEST(begin_many_answers_as_begin_does_and_a_key_that_comes_twice_in_order),
        TEST(begin_many_gives_what_begin_gives_for_any_sequence_of_requests),
        TEST(begin_many_checks_its_arrays_before_it_claims_anything),
        TEST(the_largest_batch_is_answered),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
