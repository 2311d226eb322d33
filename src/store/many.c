/*
 * store/many.c - idem_begin_many(): many keys in one call.
 *
 * Owns: the order of memory accesses. Requests go through three stages, a section of 16 at a time: hashed, and their home buckets' lines asked for;
 * looked at, and their answers' lines asked for; decided, one by one, in order. The next section is hashed before this one is looked at, so that its
 * lines come meanwhile. (One request at a time through each stage, with a few between them, is slower: more misses at a time pay.)
 *
 * Invariants: the clock is read after all looks of a section, and again after whatever took its time (index.h, 5). What a look said is validated by
 * what follows it: a claim's two CAS (home.h), an answer's second look (known.h).
 *
 * If we die here: what was decided has happened, the rest has not.
 */
#include <string.h>

#include "store/enter.h"
#include "store/finish.h"
#include "store/fresh.h"
#include "store/known.h"

#define INLINE       static inline __attribute__((always_inline))
#define SECTION      16u           /* requests decided in one read section */
#define KEPT         (2 * SECTION) /* hashed and not yet decided */
#define FRAMED_BYTES 256u

/* After a call that pushed for results[i]: it has to be looked at again when the disk has it, if its verdict waits for the disk (as in
   idem_begin_settle()). `reserved` says so until the call's end. */
INLINE void note_pending(struct idem_ctx *ctx, idem_result *r, uint64_t before)
{
    bool waits = r->verdict == IDEM_CLAIMED || r->verdict == IDEM_RECLAIMED || r->verdict == IDEM_REPLAY;
    r->reserved = waits && ctx->ticket != 0;
    if (!waits || ctx->ticket < before)
        ctx->ticket = before;
}

/* One request between its stages. */
struct coming {
    struct idem_ask ask;
    struct idem_home home;
    enum idem_sight sight;
    int verdict;                  /* < 0: refused */
    bool alone;                   /* scope and key are too long for `framed`: prepared once more when its turn comes */
    uint8_t framed[FRAMED_BYTES]; /* scope and key in a row, if there is a scope */
};

struct pipeline {
    const idem_request *requests;
    idem_result *results;
    size_t n, hashed, decided; /* how many of them are through which stage */
    uint64_t serial;           /* of the view that they were hashed for */
    struct coming coming[KEPT];
};

INLINE void hash_next(const struct idem_view *v, struct pipeline *p)
{
    const idem_request *rq = &p->requests[p->hashed];
    struct coming *c = &p->coming[p->hashed++ % KEPT];
    struct idem_ask *ask = &c->ask;
    uint8_t framed[IDEM_KEY_MAX];
    bool plain =
        likely(rq->size == sizeof *rq) && likely(key_plain(v, &rq->key, framed, ask)) && likely(rest_plain(v, rq, ask));
    c->verdict = likely(plain) ? IDEM_OK : idem_ask_prepare(v, rq, framed, ask);
    c->alone = false;
    if (unlikely(c->verdict != IDEM_OK))
        return;
    prefetch_write(&v->buckets[idem_home_of(v, ask->key.hash)]);
    if (likely(ask->key.framed != framed))
        return;
    c->alone = ask->key.key_bytes > sizeof c->framed;
    if (!c->alone)
        ask->key.framed = memcpy(c->framed, framed, ask->key.key_bytes);
}

INLINE void look(struct idem_view *v, struct coming *c)
{
    c->sight = likely(c->verdict == IDEM_OK) ? idem_home_look(v, c->ask.key.hash, &c->home) : HOME_UNKNOWN;
}

static int decide_alone(struct idem_ctx *ctx, const idem_request *rq, const struct coming *c, int64_t now_ms,
                        idem_result *r)
{
    struct idem_found found;
    struct idem_ask ask;
    uint8_t framed[IDEM_KEY_MAX];
    idem_arena_leave(ctx);
    reset_claim(&r->claim);
    if (unlikely(c->verdict != IDEM_OK))
        return c->verdict;
    struct idem_hint hint = {c->home.place, now_ms};
    if (!c->alone)
        return idem_decide(ctx, &c->ask, c->sight == HOME_MATCH ? &hint : NULL, &r->claim, &r->reply, &found);
    int e = idem_ask_prepare(ctx->v, rq, framed, &ask);
    return e != IDEM_OK ? e : idem_decide(ctx, &ask, NULL, &r->claim, &r->reply, &found);
}

/* A key that comes twice, or one that somebody else claims meanwhile, fails its publishing CAS and is decided alone. That may take its time (copying an
   answer out, making room), so the clock is read again after it. */
INLINE void decide_next(struct idem_ctx *ctx, struct pipeline *p, int64_t *now_ms)
{
    struct idem_view *v = ctx->v;
    const struct coming *c = &p->coming[p->decided % KEPT];
    const idem_request *rq = &p->requests[p->decided];
    idem_result *r = &p->results[p->decided++];
    clear_reply(&r->reply);
    r->reserved = 0;
    int known =
        c->sight == HOME_MATCH && likely(!c->alone) ? idem_known(ctx, &c->ask, c->home.place, *now_ms, &r->reply) : 0;
    if (known != 0) {
        reset_claim(&r->claim);
        r->verdict = known;
        return;
    }
    uint64_t before = ctx->ticket;
    ctx->ticket = 0;
    struct idem_a64 *at = likely(c->sight == HOME_ABSENT) && likely(!c->alone)
                              ? idem_arena_peek(ctx, CLASS_CLAIMS, fresh_bytes(&c->ask))
                              : NULL;
    if (likely(at != NULL)) {
        write_entry(ctx, &c->ask, at);
        fill_claim(v, &c->ask, &r->claim);
        if (likely(claim_absent(ctx, &c->ask, &c->home, *now_ms, &r->claim, &r->reply))) {
            r->verdict = IDEM_CLAIMED;
            if (unlikely(v->rings != NULL))
                note_pending(ctx, r, before);
            return;
        }
    }
    r->verdict = decide_alone(ctx, rq, c, *now_ms, r);
    note_pending(ctx, r, before);
    *now_ms = idem_view_now_ms(v);
}

/* Decides SECTION requests, in order, or as many as there are; those after them are hashed before that. */
static void decide_section(struct idem_ctx *ctx, struct pipeline *p)
{
    struct idem_view *v = ctx->v;
    if (p->serial != v->serial) { /* the store was replaced, or nothing was asked for yet */
        p->serial = v->serial;
        p->hashed = p->decided;
    }
    size_t until = p->n - p->decided < SECTION ? p->n : p->decided + SECTION;
    size_t ahead = p->n - until < SECTION ? p->n : until + SECTION;
    while (p->hashed < ahead)
        hash_next(v, p);
    for (size_t i = p->decided; i < until; i++)
        look(v, &p->coming[i % KEPT]);
    int64_t now_ms = idem_view_now_ms(v);
    while (p->decided < until)
        decide_next(ctx, p, &now_ms);
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

/* What the last one that pushed waits for; who pushed before in the same lane is on the disk then, too. */
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
        if (!pending)
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
        r->verdict = verdict == BEGIN_AGAIN ? idem_begin_any(store, &requests[i], &r->claim, &r->reply) : verdict;
    }
}

/* Left and entered now and then, like as many calls: nobody who replaces the store, forks or opens one waits for all of it. The disk is waited for
   once. What was looked at before stays good for as long as the view is the same: publishing finds out what has changed. */
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
    struct pipeline p;
    p.requests = requests;
    p.results = results;
    p.n = n;
    p.hashed = p.decided = 0;
    p.serial = 0;
    struct idem_op op;
    struct owed owed = {0, 0, NULL};
    while (p.decided < n) {
        size_t from = p.decided;
        int e = idem_enter(store, &op);
        if (likely(e == IDEM_OK)) {
            decide_section(&op.ctx, &p);
            if (unlikely(op.ctx.ticket != 0))
                owed = (struct owed){op.ctx.ticket, op.ctx.v->serial, op.ctx.lane};
            e = idem_leave(&op, IDEM_OK);
            for (size_t i = from; unlikely(e != IDEM_OK) && i < p.decided; i++)
                idem_reply_free(&results[i].reply);
        }
        if (unlikely(e != IDEM_OK)) {
            fail_all(results + from, n - from, e);
            n = from;
        }
    }
    if (unlikely(owed.ticket != 0))
        settle_many(store, &owed, requests, n, results);
    return IDEM_OK;
}
