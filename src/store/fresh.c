/*
 * store/fresh.c - idem_begin(): the straight ways to a new key and to an answer, and the ordinary one for all else.
 *
 * Owns: the order of one call's memory accesses. The key's home bucket is asked for before anything else is done (fresh.h); if the key may be there,
 * its answer is replayed in few steps (known.h).
 *
 * If we die here: see those.
 */
#include <string.h>

#include "store/enter.h"
#include "store/finish.h"
#include "store/fresh.h"
#include "store/known.h"

#define SETTLE_TRIES 1000u

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

int idem_begin_any(idem_store *store, const idem_request *request, idem_claim *claim, idem_reply *reply)
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
        return idem_begin_any(store, request, claim, reply);
    struct idem_view *v = idem_enter_view(store);
    bool plain = key_plain(v, &request->key, framed, &ask);
    if (likely(plain))
        prefetch_write(&v->buckets[idem_home_of(v, ask.key.hash)]);
    plain = plain && rest_plain(v, request, &ask);
    if (unlikely(!idem_enter_rest(store, v, &op)))
        return idem_begin_any(store, request, claim, reply);
    struct idem_ctx *ctx = &op.ctx;
    int64_t now_ms = idem_view_now_ms(v);
    if (unlikely(!plain) || unlikely(!idem_enter_recent(v, now_ms))) {
        idem_leave_undone(&op);
        return idem_begin_any(store, request, claim, reply);
    }
    IDEM_POINT("claim.timed");
    /* NULL: a thread that has not claimed lately, or its chunk is full. */
    struct idem_a64 *at = idem_arena_peek(ctx, CLASS_CLAIMS, fresh_bytes(&ask));
    if (likely(at != NULL)) {
        write_entry(ctx, &ask, at);
        fill_claim(v, &ask, claim);
    }
    if (likely(reply != NULL))
        clear_reply(reply);
    struct idem_home home;
    enum idem_sight sight = idem_home_look(v, ask.key.hash, &home);
    struct idem_found found;
    int64_t left_ms = 0;
    if (likely(sight == HOME_ABSENT) && likely(at != NULL) &&
        likely(idem_home_time_is_good(v, idem_token_ms(v, now_ms))) &&
        likely(claim_absent(ctx, &ask, &home, now_ms, claim, reply))) {
        if (likely(v->rings == NULL) || ctx->ticket == 0)
            return without_claim(idem_leave_fast(&op, IDEM_CLAIMED), claim);
        return settle(&op, IDEM_CLAIMED, &ask, &found, request, claim, reply, &left_ms);
    }
    reset_claim(claim);
    int known = likely(sight == HOME_MATCH) ? idem_known(ctx, &ask, home.place, now_ms, reply) : 0;
    if (likely(known != 0))
        return idem_leave_fast(&op, known);
    idem_arena_leave(ctx);
    ctx->ticket = 0;
    struct idem_hint hint = {home.place, now_ms};
    int e = idem_decide(ctx, &ask, sight == HOME_MATCH ? &hint : NULL, claim, reply, &found);
    return settle(&op, e, &ask, &found, request, claim, reply, &left_ms);
}
