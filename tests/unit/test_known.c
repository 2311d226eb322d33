/*
 * tests/unit/test_known.c - what the straight way says of a key that is there (store/known.h) is, field by field, what the general way says; and who
 * slept on it is not told what another key's bytes would say.
 *
 * The general way is idem_decide() without a hint, asked at the same moment: the clock stands. Which way a call went is told by the seeded fault
 * known.unchecked, which only the straight way asks for, once a call, and which changes nothing as long as nobody else is at work.
 */
#include "support/support.h"

#include <stdio.h>
#include <string.h>

#include "arena/arena.h"
#include "store/begin.h"
#include "store/handle.h"

#define KEYS       600
#define KEY_LENGTH 200u
#define BODY_LONG  3000u
#define MARGIN     64u

static uint64_t chance;

static uint64_t below(uint64_t n)
{
    return support_random(&chance) % n;
}

struct asked {
    int verdict;
    idem_claim claim;
    idem_reply reply;
};

static uint8_t buffers[2][BODY_LONG + 2 * MARGIN];

static struct asked nothing(unsigned which, size_t room)
{
    struct asked a = {.claim = IDEM_CLAIM_INIT, .reply = IDEM_REPLY_INIT};
    memset(buffers[which], 0xee, sizeof buffers[which]);
    a.reply.buffer = buffers[which] + MARGIN;
    a.reply.buffer_bytes = room;
    return a;
}

static void ask_generally(idem_store *store, const idem_request *rq, struct asked *a)
{
    struct idem_op op;
    struct idem_ask ask;
    struct idem_found found;
    uint8_t framed[IDEM_KEY_MAX];
    CHECK_IS(idem_enter(store, &op), IDEM_OK);
    CHECK_IS(idem_ask_prepare(op.ctx.v, rq, framed, &ask), IDEM_OK);
    a->verdict = idem_leave(&op, idem_decide(&op.ctx, &ask, NULL, &a->claim, &a->reply, &found));
}

static void ask_straight(idem_store *store, const idem_request *rq, bool many, struct asked *a)
{
    if (!many) {
        a->verdict = idem_begin(store, rq, &a->claim, &a->reply);
        return;
    }
    idem_result r = {.size = sizeof r, .claim = IDEM_CLAIM_INIT, .reply = a->reply};
    CHECK_IS(idem_begin_many(store, rq, 1, &r), IDEM_OK);
    a->verdict = r.verdict;
    a->claim = r.claim;
    a->reply = r.reply;
}

static void same(const struct asked *a, const struct asked *b)
{
    const idem_reply *x = &a->reply, *y = &b->reply;
    CHECK_IS(b->verdict, a->verdict);
    CHECK_IS(y->token, x->token);
    CHECK_IS(y->attempt, x->attempt);
    CHECK_IS(y->flags, x->flags);
    CHECK_IS(y->status, x->status);
    CHECK_IS(y->response_flags, x->response_flags);
    CHECK_IS(y->digest, x->digest);
    CHECK_IS(y->age_ms, x->age_ms);
    CHECK_IS(y->expires_in_ms, x->expires_in_ms);
    CHECK_IS(y->retry_after_ms, x->retry_after_ms);
    CHECK_IS(y->lost_token, x->lost_token);
    CHECK_IS(y->lost_reason, x->lost_reason);
    CHECK_IS(y->mark_bytes, x->mark_bytes);
    CHECK(y->meta_bytes == x->meta_bytes && y->body_bytes == x->body_bytes);
    CHECK((y->meta == NULL) == (x->meta == NULL) && (y->body == NULL) == (x->body == NULL));
    CHECK(x->meta == NULL || memcmp(x->meta, y->meta, x->meta_bytes) == 0);
    CHECK(x->body == NULL || memcmp(x->body, y->body, x->body_bytes) == 0);
    CHECK(memcmp(&a->claim, &b->claim, sizeof a->claim) == 0); /* cleared */
    for (unsigned i = 0; i < MARGIN; i++)
        CHECK(buffers[1][i] == 0xee && buffers[1][MARGIN + y->buffer_bytes + i] == 0xee);
}

struct known {
    char key[KEY_LENGTH];
    idem_request rq;
    idem_claim claim;
};

/* A key in some state in which asking for it changes nothing: running, here or in another process of the store; answered; half its TTL over. */
static void make_known(idem_store *store, idem_store *other, unsigned n, struct known *k)
{
    static uint8_t bytes[BODY_LONG];
    memset(k, 'k', sizeof *k);
    snprintf(k->key, KEY_LENGTH, "%06u", n);
    k->key[6] = 'k';
    k->rq = (idem_request)IDEM_REQUEST_INIT;
    k->rq.key = (idem_key){.scope = "a scope of one's own", .key = k->key, .key_bytes = 7 + below(KEY_LENGTH - 7)};
    k->rq.key.scope_bytes = below(4) == 0 ? 1 + below(20) : 0;
    k->rq.fingerprint = 1 + below(3);
    k->rq.ttl_ms = below(5) == 0 ? IDEM_FOREVER : 600000;
    k->rq.lease_ms = 600000;
    k->rq.flags = below(4) == 0 ? IDEM_LEASE_ONLY : 0;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)support_random(&chance);
    if (below(5) == 0) { /* a later attempt */
        CHECK_IS(idem_begin(store, &k->rq, &k->claim, NULL), IDEM_CLAIMED);
        CHECK_IS(idem_mark(store, &k->claim, "half of it", 10), IDEM_OK);
        CHECK_IS(idem_abandon(store, &k->claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
    }
    idem_store *owner = below(2) == 0 ? store : other;
    CHECK_IS(idem_begin(owner, &k->rq, &k->claim, NULL), IDEM_CLAIMED);
    support_clock_add((int64_t)below(3) * 400);
    if (below(3) == 0)
        return;
    idem_response r = IDEM_RESPONSE_INIT;
    r.status = (int32_t)(uint32_t)support_random(&chance);
    r.user_flags = (uint32_t)below(UINT16_MAX + 1);
    r.meta = bytes;
    r.meta_bytes = below(80);
    r.body = bytes + 80;
    r.body_bytes = below(10) == 0 ? below(BODY_LONG - 80) : below(300);
    CHECK_IS(idem_complete(owner, &k->claim, &r), IDEM_OK);
}

/* How many went straight of those that said `verdict`. */
struct tally {
    unsigned straight[8], all[8];
};

static void ask_both_ways(idem_store *store, const struct known *k, struct tally *t)
{
    idem_request rq = k->rq;
    if (below(4) == 0)
        rq.fingerprint++;
    rq.wait_token = below(8) == 0 ? k->claim.token : 0;
    size_t room = below(5) == 0 ? below(BODY_LONG) : BODY_LONG;
    struct asked general = nothing(0, room), straight = nothing(1, room);
    if (below(20) == 0) /* nowhere to copy to, whatever its length says */
        general.reply.buffer = straight.reply.buffer = NULL;
    ask_generally(store, &rq, &general);
    CHECK(general.verdict == IDEM_REPLAY || general.verdict == IDEM_IN_PROGRESS || general.verdict == IDEM_MISMATCH);
    support_fault("known.unchecked");
    ask_straight(store, &rq, below(2) == 0, &straight);
    t->straight[straight.verdict] += support_fault_seen() == 1;
    t->all[straight.verdict]++;
    support_fault(NULL);
    same(&general, &straight);
    idem_reply_free(&general.reply);
    idem_reply_free(&straight.reply);
}

static void ask_for_all(const char *dir, const idem_options *o)
{
    static struct known known[KEYS];
    struct tally t = {0};
    idem_store *store = support_open(dir, o), *other = support_attach(dir);
    chance = support_seed();
    support_clock_stand(true);
    for (unsigned n = 0; n < KEYS; n++)
        make_known(store, other, n, &known[n]);
    for (unsigned n = 0; n < 2 * KEYS; n++)
        ask_both_ways(store, &known[below(KEYS)], &t);
    support_clock_stand(false);
    static const int verdicts[] = {IDEM_REPLAY, IDEM_IN_PROGRESS, IDEM_MISMATCH};
    for (unsigned i = 0; i < 3; i++) {
        unsigned all = t.all[verdicts[i]], straight = t.straight[verdicts[i]];
        print_message("verdict %d: %u of %u went straight\n", verdicts[i], straight, all);
        CHECK(straight > all / 2); /* the rest: neighbours in a bucket, answers that don't fit */
    }
    CHECK(t.straight[IDEM_REPLAY] < t.all[IDEM_REPLAY]);
    idem_close(other);
    idem_close(store);
    support_verify(dir);
}

static void the_straight_way_says_what_the_general_one_says(void **state)
{
    (void)state;
    idem_options o = support_options(20000);
    ask_for_all(support_dir(), &o);
}

static void it_does_in_a_store_with_a_log(void **state)
{
    (void)state;
    idem_options o = support_options(20000);
    o.wal_dir = support_dir();
    o.durability_complete = IDEM_DURABILITY_ASYNC;
    ask_for_all(support_dir(), &o);
}

static void an_answer_that_waits_for_the_disk_is_not_given_out_straight(void **state)
{
    (void)state;
    idem_options o = support_options(1000);
    o.wal_dir = support_dir();
    o.durability_complete = IDEM_DURABILITY_SYNC;
    idem_store *store = support_open(support_dir(), &o);
    idem_request rq = support_request("k");
    struct asked a = nothing(0, 100);
    support_answer(store, "k", 200, "on the disk");
    support_fault("known.unchecked");
    ask_straight(store, &rq, false, &a);
    CHECK_IS(support_fault_seen(), 0);
    support_fault(NULL);
    CHECK_IS(a.verdict, IDEM_REPLAY);
    CHECK_BYTES(a.reply.body, a.reply.body_bytes, "on the disk");
    idem_close(store);
}

static struct idem_a64 *entry_at(const idem_store *store, const idem_claim *claim)
{
    struct idem_view *v = store->view;
    return v->arena + word_unit(load_acquire(&v->buckets[claim->place / 8].slots[claim->place % 8])) * 2;
}

/* What only the general way may judge: a claim that a recovery brought back, an entry of another key, one that is damaged. */
static void what_is_not_plain_is_left_to_the_general_way(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_store *store = support_open(dir, NULL);
    idem_claim lost, damaged, other;
    CHECK_IS(support_begin(store, "lost", &lost), IDEM_CLAIMED);
    store_relaxed(&entry_at(store, &lost)[7], IDEM_OWNER_CRASHED);
    CHECK_IS(support_begin(store, "lost", &lost), IDEM_RECLAIMED);
    idem_request rq = support_request("damaged");
    CHECK_IS(support_begin(store, "damaged", &damaged), IDEM_CLAIMED);
    CHECK_IS(support_complete(store, &damaged, 200, "x"), IDEM_OK);
    struct idem_a64 *length = &entry_at(store, &damaged)[6];
    store_relaxed(length, load_relaxed(length) | UINT64_C(1) << 62); /* a body of a gigabyte */
    struct asked a = nothing(0, (size_t)1 << 31);                    /* for which there is room, it says */
    ask_straight(store, &rq, false, &a);
    CHECK_IS(a.verdict, IDEM_E_CORRUPT);
    store_relaxed(length, load_relaxed(length) & ~(UINT64_C(1) << 62));
    rq = support_request("another");
    CHECK_IS(support_begin(store, "another", &other), IDEM_CLAIMED);
    CHECK_IS(support_complete(store, &other, 200, "x"), IDEM_OK);
    struct idem_a64 *key = &entry_at(store, &other)[ENTRY_RESPONSE_WORDS];
    store_relaxed(key, load_relaxed(key) ^ 1); /* as a key with the same tag */
    a = nothing(0, 100);
    ask_straight(store, &rq, false, &a);
    CHECK_IS(a.verdict, IDEM_CLAIMED);
    idem_close(store);
}

static void long_keys_with_a_scope_are_replayed_in_a_batch(void **state)
{
    (void)state;
    static char scope[300];
    memset(scope, 's', sizeof scope);
    idem_store *store = support_open(support_dir(), NULL);
    idem_claim claim;
    idem_request rq = support_request("k");
    rq.key.scope = scope;
    rq.key.scope_bytes = sizeof scope;
    for (unsigned i = 0; i < 3; i++) {
        struct asked a = nothing(0, 100);
        ask_straight(store, &rq, true, &a);
        CHECK_IS(a.verdict, i == 0 ? IDEM_CLAIMED : i == 1 ? IDEM_IN_PROGRESS : IDEM_REPLAY);
        if (i == 0)
            claim = a.claim;
        if (i == 1)
            CHECK_IS(support_complete(store, &claim, 200, "x"), IDEM_OK);
    }
    idem_close(store);
}

struct sleeper {
    idem_store *other;
    uint64_t word;
};

/* Its answer is over, its region recycled, and somebody else's bytes lie there. */
static void sleep_a_day(void *ctx)
{
    struct sleeper *s = ctx;
    struct idem_view *v = s->other->view;
    support_clock_add(86400000);
    for (unsigned i = 0; i < 3; i++)
        support_maintain(s->other);
    uint64_t state = load_acquire(&v->regions[word_region(v, s->word)].state);
    CHECK(region_generation(state) != word_generation(s->word));
    memset(v->arena + word_unit(s->word) * 2 + ENTRY_RESPONSE_WORDS + 1, 'z', 8);
}

static void nobody_elses_bytes(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    struct sleeper s = {.other = support_attach(dir)};
    idem_claim claim;
    idem_request rq = support_request("k");
    CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
    idem_response r = support_response(200, "my bytes");
    r.ttl_ms = 1000;
    CHECK_IS(idem_complete(store, &claim, &r), IDEM_OK);
    support_answer(store, "the thread was last in this view", 200, "x"); /* as the straight way asks for */
    const struct idem_view *v = store->view;
    s.word = load_acquire(&v->buckets[claim.place / 8].slots[claim.place % 8]);
    struct asked a = nothing(0, 100);
    support_at_point("find.found", 1, sleep_a_day, &s);
    ask_straight(store, &rq, false, &a);
    support_at_point(NULL, 0, NULL, NULL);
    if (a.verdict == IDEM_REPLAY)
        CHECK_BYTES(a.reply.body, a.reply.body_bytes, "my bytes");
    else
        CHECK_IS(a.verdict, IDEM_CLAIMED);
}

static void who_slept_on_an_answer_is_not_given_somebody_elses_bytes(void **state)
{
    (void)state;
    support_promise(nobody_elses_bytes, FAULTS("known.unchecked"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_straight_way_says_what_the_general_one_says),
        cmocka_unit_test(it_does_in_a_store_with_a_log),
        cmocka_unit_test(an_answer_that_waits_for_the_disk_is_not_given_out_straight),
        cmocka_unit_test(what_is_not_plain_is_left_to_the_general_way),
        cmocka_unit_test(long_keys_with_a_scope_are_replayed_in_a_batch),
        cmocka_unit_test(who_slept_on_an_answer_is_not_given_somebody_elses_bytes),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
