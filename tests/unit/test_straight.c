/*
 * tests/unit/test_straight.c - an answer that went the straight way (store/complete.c) is in every byte the answer that the general way stores; a
 * claim whose word is not the slot's goes the general way.
 *
 * Keys come in pairs, claimed alike in one millisecond, told apart by their last byte. One of a pair is completed by a claim that was sent (it knows
 * no word, so it goes the general way), the other one by the claim as it was given.
 */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/handle.h"

#define PAIRS      400
#define META_MAX   80u
#define BODY_MAX   300u
#define BODY_LONG  20000u /* a chunk's end comes near now and then */
#define KEY_LENGTH 200u

static uint64_t chance;

static uint64_t below(uint64_t n)
{
    return support_random(&chance) % n;
}

static int64_t some_ttl(void)
{
    static const int64_t ttls[] = {0, 0, 0, 2, 1023, 1024, 1025, 60000, 86400000, IDEM_TTL_MAX_MS, IDEM_FOREVER};
    return ttls[below(sizeof ttls / sizeof ttls[0])];
}

struct pair {
    char keys[2][KEY_LENGTH];
    idem_request rq[2];
    idem_claim claims[2];
};

/* A later attempt now and then, after one that left a mark. */
static void claim_both(idem_store *store, unsigned n, struct pair *p)
{
    int64_t ttl_ms = some_ttl(), lease_ms = 1 + (int64_t)below(60000);
    uint32_t flags = (uint32_t)below(4);
    uint64_t fingerprint = support_random(&chance), key_bytes = 8 + below(KEY_LENGTH - 8);
    uint64_t scope_bytes = below(3) == 0 ? 1 + below(20) : 0;
    bool later = below(4) == 0;
    memset(p, 'k', sizeof *p);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(p->keys[i], KEY_LENGTH, "%06u", n);
        p->keys[i][6] = 'k';
        p->keys[i][key_bytes - 1] = i == 0 ? 'a' : 'b';
        idem_request *rq = &p->rq[i];
        *rq = (idem_request)IDEM_REQUEST_INIT;
        rq->key = (idem_key){
            .scope = "a scope of one's own", .scope_bytes = scope_bytes, .key = p->keys[i], .key_bytes = key_bytes};
        rq->fingerprint = fingerprint;
        rq->flags = flags;
        rq->ttl_ms = ttl_ms;
        rq->lease_ms = lease_ms;
        CHECK_IS(idem_begin(store, rq, &p->claims[i], NULL), IDEM_CLAIMED);
    }
    for (unsigned i = 0; i < 2 && later; i++) {
        CHECK_IS(idem_mark(store, &p->claims[i], "half of it", 10), IDEM_OK);
        CHECK_IS(idem_abandon(store, &p->claims[i], IDEM_NOTHING_HAPPENED), IDEM_OK);
        CHECK_IS(idem_begin(store, &p->rq[i], &p->claims[i], NULL), IDEM_CLAIMED);
    }
    CHECK_IS(p->claims[0].token, p->claims[1].token);
}

static void entry_of(const idem_store *store, const idem_claim *claim, struct idem_entry *e)
{
    const struct idem_view *v = store->view;
    uint64_t w = load_acquire(&v->buckets[claim->place / 8].slots[claim->place % 8]);
    CHECK_IS(word_state(w), WORD_COMPLETED);
    CHECK(idem_entry_load(v, w, e));
    CHECK_IS(e->kind, ENTRY_RESPONSE);
}

/* All words but the log's and the keys', padding included. */
static void same_words(const idem_store *store, const struct pair *p)
{
    struct idem_entry e[2];
    entry_of(store, &p->claims[0], &e[0]);
    entry_of(store, &p->claims[1], &e[1]);
    for (unsigned i = 0; i < ENTRY_RESPONSE_WORDS; i++)
        if (i != 4)
            CHECK_IS(load_relaxed(&e[1].at[i]), load_relaxed(&e[0].at[i]));
    for (uint64_t i = 0; i < (idem_entry_answer_bytes(&e[0]) + 7) / 8; i++)
        CHECK_IS(load_relaxed(&idem_entry_answer(&e[1])[i]), load_relaxed(&idem_entry_answer(&e[0])[i]));
}

static void same_replies(idem_store *store, const struct pair *p, const idem_response *r)
{
    idem_reply got[2];
    for (unsigned i = 0; i < 2; i++) {
        idem_claim none;
        got[i] = (idem_reply)IDEM_REPLY_INIT;
        CHECK_IS(idem_begin(store, &p->rq[i], &none, &got[i]), IDEM_REPLAY);
        CHECK_IS(got[i].status, r->status);
        CHECK_IS(got[i].response_flags, r->user_flags);
        CHECK(got[i].meta_bytes == r->meta_bytes && got[i].body_bytes == r->body_bytes);
        CHECK(r->meta_bytes == 0 || memcmp(got[i].meta, r->meta, r->meta_bytes) == 0);
        CHECK(r->body_bytes == 0 || memcmp(got[i].body, r->body, r->body_bytes) == 0);
    }
    CHECK_IS(got[1].token, got[0].token);
    CHECK_IS(got[1].attempt, got[0].attempt);
    CHECK_IS(got[1].age_ms, got[0].age_ms);
    CHECK_IS(got[1].expires_in_ms, got[0].expires_in_ms);
    CHECK_IS(got[1].flags, got[0].flags);
    idem_reply_free(&got[0]);
    idem_reply_free(&got[1]);
}

static void answer_pairs(idem_store *store, bool logged)
{
    static uint8_t bytes[META_MAX + BODY_LONG];
    static struct pair p;
    unsigned straight = 0, odd = 0;
    chance = support_seed();
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(support_random(&chance) |
                             1); /* no zeros: what lies beyond an answer's end is told from padding */
    support_clock_stand(true);
    for (unsigned n = 0; n < PAIRS; n++) {
        claim_both(store, n, &p);
        idem_response r = IDEM_RESPONSE_INIT;
        r.status = (int32_t)(uint32_t)support_random(&chance);
        r.user_flags = (uint32_t)below(UINT16_MAX + 1);
        r.ttl_ms = some_ttl();
        r.meta_bytes = below(META_MAX);
        r.meta = bytes + below(8);
        r.body_bytes = below(10) == 0 ? below(BODY_LONG) : below(BODY_MAX);
        r.body = bytes + META_MAX - below(8);
        r.durability = logged ? (uint32_t)below(4) : 0;
        support_clock_add((int64_t)below(3) * 400);
        uint8_t wire[IDEM_CLAIM_WIRE_BYTES];
        idem_claim sent;
        idem_claim_encode(&p.claims[0], wire);
        CHECK_IS(idem_claim_decode(wire, &sent), IDEM_OK);
        support_fault(
            "answer.overwritten"); /* is asked for once whenever an answer goes the general way, and changes nothing here */
        CHECK_IS(idem_complete(store, &sent, &r), IDEM_OK);
        CHECK_IS(support_fault_seen(), 1);
        idem_claim other = p.claims[1];
        if (n % 4 == 0)
            other.entry ^= n % 8 == 0 ? support_random(&chance) : UINT64_C(1) << below(64);
        CHECK_IS(idem_complete(store, &other, &r), IDEM_OK);
        bool general = support_fault_seen() == 2;
        support_fault(NULL);
        straight += !general;
        odd += n % 4 == 0;
        CHECK(general || n % 4 != 0);
        same_words(store, &p);
        same_replies(store, &p, &r);
    }
    support_clock_stand(false);
    CHECK(straight > (PAIRS - odd) / 4); /* the rest: other classes of life than the thread has a chunk of */
    CHECK(straight < PAIRS);
}

static void the_straight_way_and_the_general_one_store_the_same_bytes(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_options o = support_options(20000);
    idem_store *store = support_open(dir, &o);
    answer_pairs(store, false);
    idem_close(store);
    support_verify(dir);
}

static void they_do_in_a_store_with_a_log(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_options o = support_options(20000);
    o.wal_dir = support_dir();
    idem_store *store = support_open(dir, &o);
    answer_pairs(store, true);
    idem_close(store);
    support_verify(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_straight_way_and_the_general_one_store_the_same_bytes),
        cmocka_unit_test(they_do_in_a_store_with_a_log),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
