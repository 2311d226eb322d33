/*
 * store/fresh.c - idem_begin() and idem_begin_many(), and the straight way to a new key.
 *
 * Owns: the order of memory accesses. A new key costs one cache miss, its home bucket's: that is asked for first, and all that does not
 * need it is done while it is on its way: the entry is written where it will lie, without a time and a token. What does need the bucket is
 * kept short, so that the processor reaches the next call's miss meanwhile. Whatever is not plain is begin.c's.
 *
 * Invariant (index.h, 5): one call reads the clock while the bucket is on its way, and asks after the scan whether that time is still good;
 * a group reads it after all its scans, and again after whatever took its time.
 *
 * If we die here: an entry that was written and not published is written over by the lane's next owner; the rest is index.h's.
 */
#include <string.h>

#include "index/home.h"
#include "store/begin.h"
#include "store/enter.h"
#include "store/finish.h"

#define SETTLE_TRIES 1000u

#define INLINE static inline __attribute__((always_inline))

/* The key, hashed, if nothing is odd about it. framed: as for idem_ask_prepare(). */
INLINE bool key_plain(const struct idem_view *v, const idem_key *key, uint8_t framed[IDEM_KEY_MAX],
                      struct idem_ask *ask)
{
    if (unlikely(key->scope_bytes != 0))
        return idem_key_prepare(v, key, framed, &ask->key) == IDEM_OK;
    if (unlikely(key->key == NULL) || unlikely(key->key_bytes - 1 >= IDEM_KEY_MAX))
        return false;
    ask->key.framed = key->key;
    ask->key.key_bytes = (uint32_t)key->key_bytes;
    ask->key.scope_bytes = 0;
    ask->key.hash = idem_hash_key(v->fixed.secret, key->key, key->key_bytes, 0);
    return true;
}

/* The rest of a request, if nothing is odd about that. After false idem_ask_prepare() says what is wrong. */
INLINE bool rest_plain(const struct idem_view *v, const idem_request *rq, struct idem_ask *ask)
{
    if (unlikely((rq->flags & ~(uint32_t)IDEM_REQUEST_FLAGS) != 0) || unlikely(rq->durability > IDEM_DURABILITY_NONE) ||
        unlikely((uint64_t)rq->lease_ms > IDEM_LEASE_MAX_MS) ||
        unlikely((uint64_t)rq->ttl_ms > (uint64_t)IDEM_TTL_MAX_MS && rq->ttl_ms != IDEM_FOREVER))
        return false;
    idem_ask_fill(v, rq, ask);
    return true;
}

INLINE uint64_t fresh_bytes(const struct idem_ask *ask)
{
    return round_up(ENTRY_CLAIM_WORDS * 8u + (uint64_t)ask->key.key_bytes, IDEM_UNIT_BYTES);
}

/* All of a first claim's entry that needs no clock. */
INLINE void write_entry(const struct idem_ctx *ctx, const struct idem_ask *ask, struct idem_a64 *at)
{
    uint32_t flags =
        (ask->flags & IDEM_HOLD ? ENTRY_HOLD : 0u) | (ask->flags & IDEM_LEASE_ONLY ? ENTRY_LEASE_ONLY : 0u);
    idem_entry_store_fresh(at, flags, ask->key.scope_bytes, ask->fingerprint, ask->key.hash, ctx->owner,
                           ask->key.framed, ask->key.key_bytes);
}

/* All of a first claim but token, place and entry. */
INLINE void fill_claim(const struct idem_view *v, const struct idem_ask *ask, idem_claim *claim)
{
    claim->size = sizeof *claim;
    memcpy(claim->store_uuid, v->fixed.uuid, sizeof claim->store_uuid);
    claim->hash = ask->key.hash;
    claim->lease_ms = ask->lease_ms;
    claim->attempt = 1;
    claim->flags = ask->flags & (uint32_t)~IDEM_NO_WAIT;
}

INLINE void clear_reply(idem_reply *reply)
{
    zero_small((char *)reply + offsetof(idem_reply, token), sizeof *reply - offsetof(idem_reply, token));
}

/* Publishes the entry that lies at the place that idem_arena_peek() gave, for an absent key. False: nothing has happened, and it has to
   be decided in the ordinary way. */
INLINE bool claim_absent(struct idem_ctx *ctx, const struct idem_ask *ask, const struct idem_home *home, int64_t now_ms,
                         idem_claim *claim, idem_reply *reply)
{
    struct idem_space space;
    int64_t expiry_ms = idem_expiry_after(now_ms, ask->ttl_ms), lease_end_ms = now_ms + ask->lease_ms;
    if (unlikely(!idem_arena_take(ctx, CLASS_CLAIMS, fresh_bytes(ask), lease_end_ms, &space)))
        return false;
    uint64_t token = (uint64_t)idem_token_ms(ctx->v, now_ms) << 16;
    idem_entry_stamp(space.at, token, now_ms, expiry_ms, lease_end_ms);
    IDEM_POINT("claim.filled");
    if (unlikely(!idem_home_insert(home, ask->key.hash, &space))) {
        idem_arena_emptied(ctx, space.unit);
        return false;
    }
    if (unlikely(ctx->v->rings != NULL)) {
        ctx->ticket = 0;
        idem_begin_push(ctx, ask, word_make(WORD_IN_PROGRESS, 0, 0, space.unit, space.generation), false);
    }
    claim->token = token;
    claim->place = home->place;
    claim->entry = idem_claim_word(ctx->v, word_make(WORD_IN_PROGRESS, 0, 0, space.unit, space.generation));
    if (reply != NULL) {
        reply->token = claim->token;
        reply->attempt = 1;
        reply->expires_in_ms = expiry_ms >= ENTRY_TIME_MAX ? IDEM_FOREVER : ask->ttl_ms;
    }
    idem_count(ctx, COUNT_CLAIMED);
    return true;
}

static void reset_claim(idem_claim *claim)
{
    zero_small(claim, sizeof *claim);
    claim->size = sizeof *claim;
}

/* Pages that were missing (SIGBUS guard) make an error of any verdict: then there is no claim either. */
static inline int without_claim(int e, idem_claim *claim)
{
    if (unlikely(e < 0))
        reset_claim(claim);
    return e;
}

/* Ends an operation that has decided; decides anew if its attempt was not what it was any more when the disk had it. */
static __attribute__((noinline)) int settle(struct idem_op *op, int e, struct idem_ask *ask,
                                            const struct idem_found *first, const idem_request *request,
                                            idem_claim *claim, idem_reply *reply, int64_t *left_ms)
{
    struct idem_found found;
    uint8_t framed[IDEM_KEY_MAX];
    struct idem_store *store = op->store;
    if (likely(op->ctx.ticket == 0))
        return without_claim(idem_leave(op, e), claim);
    e = idem_begin_settle(op, e, ask, first, claim, left_ms);
    for (unsigned tries = 0; e == BEGIN_AGAIN && tries < SETTLE_TRIES; tries++) {
        idem_reply_free(reply);
        reset_claim(claim);
        e = idem_enter(store, op);
        if (e != IDEM_OK)
            break;
        e = idem_ask_prepare(op->ctx.v, request, framed, ask);
        e = e != IDEM_OK ? idem_leave(op, e)
                         : idem_begin_settle(op, idem_decide(&op->ctx, ask, NULL, claim, reply, &found), ask, &found,
                                             claim, left_ms);
    }
    if (e == BEGIN_AGAIN)
        e = idem_fail(IDEM_E_LOG_STALLED, "%s: a key that changes faster than the disk can follow", store->path);
    if (e < 0) {
        idem_reply_free(reply);
        idem_reply_reset(reply);
        reset_claim(claim);
    }
    return e;
}

/* Any request, one after another. */
static int begin_any(idem_store *store, const idem_request *request, idem_claim *claim, idem_reply *reply)
{
    struct idem_op op;
    struct idem_ask ask;
    uint8_t framed[IDEM_KEY_MAX];
    struct idem_found found;
    if (claim == NULL)
        return idem_fail(IDEM_E_INVALID, "claim: NULL");
    reset_claim(claim);
    int e = idem_reply_reset(reply);
    if (e == IDEM_OK)
        e = idem_enter(store, &op);
    if (unlikely(e != IDEM_OK))
        return e;
    e = idem_ask_prepare(op.ctx.v, request, framed, &ask);
    if (unlikely(e != IDEM_OK))
        return idem_leave(&op, e);
    int64_t left_ms = 0;
    e = idem_decide(&op.ctx, &ask, NULL, claim, reply, &found);
    return settle(&op, e, &ask, &found, request, claim, reply, &left_ms);
}

int idem_begin(idem_store *store, const idem_request *request, idem_claim *claim, idem_reply *reply)
{
    struct idem_op op;
    struct idem_ask ask;
    uint8_t framed[IDEM_KEY_MAX];
    if (unlikely(store == NULL) || unlikely(request == NULL) || unlikely(claim == NULL) ||
        unlikely(request->size != sizeof *request) || unlikely(reply != NULL && reply->size != sizeof *reply))
        return begin_any(store, request, claim, reply);
    struct idem_view *v = idem_enter_view(store);
    bool plain = key_plain(v, &request->key, framed, &ask);
    if (likely(plain))
        prefetch_write(&v->buckets[idem_home_of(v, ask.key.hash)]);
    plain = plain && rest_plain(v, request, &ask);
    if (unlikely(!idem_enter_rest(store, v, &op)))
        return begin_any(store, request, claim, reply);
    struct idem_ctx *ctx = &op.ctx;
    struct idem_a64 *at = plain ? idem_arena_peek(ctx, CLASS_CLAIMS, fresh_bytes(&ask)) : NULL;
    if (unlikely(at == NULL)) {
        idem_leave(&op, IDEM_OK);
        return begin_any(store, request, claim, reply);
    }
    int64_t now_ms = idem_view_now_ms(v);
    if (unlikely(!idem_enter_recent(v, now_ms))) {
        idem_leave(&op, IDEM_OK);
        return begin_any(store, request, claim, reply);
    }
    IDEM_POINT("claim.timed");
    write_entry(ctx, &ask, at);
    fill_claim(v, &ask, claim);
    if (likely(reply != NULL))
        clear_reply(reply);
    struct idem_home home;
    enum idem_sight sight = idem_home_look(v, ask.key.hash, &home);
    struct idem_found found;
    int64_t left_ms = 0;
    if (likely(sight == HOME_ABSENT) && likely(idem_home_time_is_good(v, idem_token_ms(v, now_ms))) &&
        likely(claim_absent(ctx, &ask, &home, now_ms, claim, reply))) {
        if (likely(v->rings == NULL) || ctx->ticket == 0)
            return without_claim(idem_leave_fast(&op, IDEM_CLAIMED), claim);
        return settle(&op, IDEM_CLAIMED, &ask, &found, request, claim, reply, &left_ms);
    }
    idem_arena_leave(ctx);
    reset_claim(claim);
    ctx->ticket = 0;
    struct idem_hint hint = {home.place, now_ms};
    int e = idem_decide(ctx, &ask, sight == HOME_MATCH ? &hint : NULL, claim, reply, &found);
    return settle(&op, e, &ask, &found, request, claim, reply, &left_ms);
}

#define GROUP      16u
#define POOL_BYTES 4096u

/* After a call that pushed for results[i]: it has to be looked at again when the disk has it, if its verdict waits for the disk (as in
   idem_begin_settle()). `reserved` says so until the call's end. */
INLINE void note_pending(struct idem_ctx *ctx, idem_result *r, uint64_t before)
{
    bool waits = r->verdict == IDEM_CLAIMED || r->verdict == IDEM_RECLAIMED || r->verdict == IDEM_REPLAY;
    r->reserved = waits && ctx->ticket != 0;
    if (!waits || ctx->ticket < before)
        ctx->ticket = before;
}

/* Requests whose home buckets are on their way while the group before is claimed. */
struct group {
    size_t n;
    uint64_t serial; /* of the view that they were hashed for */
    struct idem_ask asks[GROUP];
    int verdicts[GROUP]; /* < 0: refused */
    bool alone[GROUP];   /* a key that found no room in the pool: prepared once more when its turn comes */
    size_t pooled;
    uint8_t pool[POOL_BYTES]; /* scoped keys, scope and key in a row */
};

static void fetch(const struct idem_view *v, const idem_request *rq, struct group *g, size_t i)
{
    struct idem_ask *ask = &g->asks[i];
    uint8_t framed[IDEM_KEY_MAX];
    bool plain =
        likely(rq->size == sizeof *rq) && likely(key_plain(v, &rq->key, framed, ask)) && likely(rest_plain(v, rq, ask));
    g->verdicts[i] = likely(plain) ? IDEM_OK : idem_ask_prepare(v, rq, framed, ask);
    g->alone[i] = false;
    if (unlikely(g->verdicts[i] != IDEM_OK))
        return;
    prefetch_write(&v->buckets[idem_home_of(v, ask->key.hash)]);
    if (likely(ask->key.framed != framed))
        return;
    g->alone[i] = ask->key.key_bytes > POOL_BYTES - g->pooled;
    if (!g->alone[i])
        ask->key.framed = memcpy(g->pool + g->pooled, framed, ask->key.key_bytes);
    g->pooled += g->alone[i] ? 0 : ask->key.key_bytes;
}

static void fetch_group(const struct idem_view *v, const idem_request *requests, size_t n, struct group *g)
{
    g->n = n < GROUP ? n : GROUP;
    g->serial = v->serial;
    g->pooled = 0;
    for (size_t i = 0; i < g->n; i++)
        fetch(v, &requests[i], g, i);
}

static int decide_alone(struct idem_ctx *ctx, const idem_request *rq, const struct group *g, size_t i,
                        const struct idem_hint *hint, idem_result *r)
{
    struct idem_found found;
    struct idem_ask ask;
    uint8_t framed[IDEM_KEY_MAX];
    idem_arena_leave(ctx);
    reset_claim(&r->claim);
    if (!g->alone[i])
        return idem_decide(ctx, &g->asks[i], hint, &r->claim, &r->reply, &found);
    int e = idem_ask_prepare(ctx->v, rq, framed, &ask);
    return e != IDEM_OK ? e : idem_decide(ctx, &ask, NULL, &r->claim, &r->reply, &found);
}

/* Looks at all, reads the clock, then decides one by one, in order. A key that comes twice, or one that somebody else claims meanwhile,
   fails its publishing CAS and is decided alone; that may take its time (copying an answer out, making room), so the clock is read
   again after it. */
static void decide_group(struct idem_ctx *ctx, const idem_request *requests, const struct group *g,
                         idem_result *results)
{
    struct idem_view *v = ctx->v;
    struct idem_home homes[GROUP];
    enum idem_sight sights[GROUP];
    for (size_t i = 0; i < g->n; i++)
        sights[i] =
            likely(g->verdicts[i] == IDEM_OK) ? idem_home_look(v, g->asks[i].key.hash, &homes[i]) : HOME_UNKNOWN;
    int64_t now_ms = idem_view_now_ms(v);
    for (size_t i = 0; i < g->n; i++) {
        const struct idem_ask *ask = &g->asks[i];
        idem_result *r = &results[i];
        clear_reply(&r->reply);
        if (unlikely(g->verdicts[i] != IDEM_OK)) {
            reset_claim(&r->claim);
            r->verdict = g->verdicts[i];
            continue;
        }
        struct idem_a64 *at = likely(sights[i] == HOME_ABSENT) && likely(!g->alone[i])
                                  ? idem_arena_peek(ctx, CLASS_CLAIMS, fresh_bytes(ask))
                                  : NULL;
        uint64_t before = ctx->ticket;
        ctx->ticket = 0;
        if (likely(at != NULL)) {
            write_entry(ctx, ask, at);
            fill_claim(v, ask, &r->claim);
            if (likely(claim_absent(ctx, ask, &homes[i], now_ms, &r->claim, &r->reply))) {
                r->verdict = IDEM_CLAIMED;
                if (unlikely(v->rings != NULL))
                    note_pending(ctx, r, before);
                continue;
            }
        }
        struct idem_hint hint = {homes[i].place, now_ms};
        r->verdict = decide_alone(ctx, &requests[i], g, i, sights[i] == HOME_MATCH ? &hint : NULL, r);
        note_pending(ctx, r, before);
        now_ms = idem_view_now_ms(v);
    }
}

static void fail_all(idem_result *results, size_t n, int e)
{
    for (size_t i = 0; i < n; i++) {
        clear_reply(&results[i].reply);
        reset_claim(&results[i].claim);
        results[i].verdict = e;
        results[i].reserved = 0;
    }
}

/* What the last group that pushed waits for; who pushed before in the same lane is on the disk then, too. */
struct owed {
    uint64_t ticket; /* 0: nothing */
    uint64_t serial; /* of the view */
    const struct idem_lane_shm *lane;
};

/* One wait for all; then each is looked at by itself, which as a rule finds it on the disk. */
static void settle_many(struct idem_store *store, const struct owed *owed, const idem_request *requests, size_t n,
                        idem_result *results)
{
    struct idem_attempt none = {UINT64_MAX, 0, 0};
    struct idem_op op;
    int64_t left_ms = 0;
    int e = idem_enter(store, &op);
    if (e == IDEM_OK) {
        if (op.ctx.v->serial == owed->serial && op.ctx.lane == owed->lane)
            op.ctx.ticket = owed->ticket;
        e = idem_leave_durably(&op, IDEM_OK, &none, &left_ms, NULL);
    }
    for (size_t i = 0; i < n; i++) {
        idem_result *r = &results[i];
        bool pending = r->reserved != 0, mine = r->verdict == IDEM_CLAIMED || r->verdict == IDEM_RECLAIMED;
        r->reserved = 0;
        if (!pending || r->verdict < 0)
            continue;
        int verdict = e;
        if (e == IDEM_OK && mine) {
            struct idem_attempt a = {r->claim.place, r->claim.token, r->claim.hash};
            verdict = idem_settled(store, &a, &left_ms);
            verdict = verdict == 1 ? r->verdict : verdict == 0 ? BEGIN_AGAIN : verdict;
        } else if (e == IDEM_OK) {
            verdict = BEGIN_AGAIN;
        }
        if (verdict < 0 && mine)
            idem_abandon_quietly(store, &r->claim);
        if (verdict < 0 || verdict == BEGIN_AGAIN) {
            idem_reply_free(&r->reply);
            clear_reply(&r->reply);
            reset_claim(&r->claim);
        }
        r->verdict = verdict == BEGIN_AGAIN ? begin_any(store, &requests[i], &r->claim, &r->reply) : verdict;
    }
}

/* One group, entered; the one after it is asked for. Errors: those of idem_leave(). */
static int claim_group(struct idem_op *op, const idem_request *requests, size_t n, struct group *g, struct group *next,
                       idem_result *results, struct owed *owed)
{
    const struct idem_view *v = op->ctx.v;
    if (g->serial != v->serial) /* the store was replaced, or nothing was asked for yet */
        fetch_group(v, requests, n, g);
    if (n > g->n)
        fetch_group(v, requests + g->n, n - g->n, next);
    decide_group(&op->ctx, requests, g, results);
    if (unlikely(op->ctx.ticket != 0))
        *owed = (struct owed){op->ctx.ticket, v->serial, op->ctx.lane};
    int e = idem_leave(op, IDEM_OK);
    for (size_t i = 0; e != IDEM_OK && i < g->n; i++)
        idem_reply_free(&results[i].reply);
    return e;
}

/* Left and entered between groups, like as many calls: nobody who replaces the store, forks or opens one waits for more than a group.
   The disk is waited for once. */
int idem_begin_many(idem_store *store, const idem_request *requests, size_t n, idem_result *results)
{
    if (requests == NULL || results == NULL || n == 0 || n > 65536)
        return idem_fail(IDEM_E_INVALID, "requests, results: NULL, or n (%zu) not in 1 to 65536", n);
    for (size_t i = 0; i < n; i++) {
        if (results[i].size != sizeof results[i])
            return idem_fail(IDEM_E_INVALID, "results[%zu].size: %zu, should be %zu", i, results[i].size,
                             sizeof results[i]);
        if (results[i].reply.size != sizeof results[i].reply)
            return idem_reply_reset(&results[i].reply);
    }
    struct group groups[2];
    groups[0].serial = groups[1].serial = 0;
    struct idem_op op;
    struct owed owed = {0, 0, NULL};
    size_t from = 0;
    for (unsigned turn = 0; from < n; turn ^= 1) {
        struct group *g = &groups[turn];
        int e = idem_enter(store, &op);
        if (likely(e == IDEM_OK))
            e = claim_group(&op, requests + from, n - from, g, &groups[turn ^ 1], results + from, &owed);
        if (unlikely(e != IDEM_OK)) {
            fail_all(results + from, n - from, e);
            break;
        }
        from += g->n;
    }
    if (unlikely(owed.ticket != 0))
        settle_many(store, &owed, requests, from, results);
    return IDEM_OK;
}
