/*
 * store/fresh.h - the straight way to a new key, in pieces that idem_begin() and idem_begin_many() put together.
 *
 * Owns: what a plain request is, and claiming an absent key for it: a new key costs one cache miss, its home bucket's, which its caller asks for
 * first. All that does not need it is done while it is on its way: the entry is written where it will lie, without a time and a token. What does
 * need the bucket is kept short, so that the processor reaches the next key's miss meanwhile. Whatever is not plain is begin.c's.
 *
 * Invariant (index.h, 5): the clock is read before the look, and after it is asked whether that time is still good.
 *
 * If we die here: an entry that was written and not published is written over by the lane's next owner; the rest is index.h's.
 */
#ifndef IDEM_STORE_FRESH_H
#define IDEM_STORE_FRESH_H

#include <string.h>

#include "index/home.h"
#include "store/begin.h"

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
    claim->flags = ask->flags & (IDEM_HOLD | IDEM_LEASE_ONLY);
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

static inline void reset_claim(idem_claim *claim)
{
    zero_small(claim, sizeof *claim);
    claim->size = sizeof *claim;
}

/* Any request, one after another: all that idem_begin() promises. claim and reply are reset first. */
int idem_begin_any(idem_store *store, const idem_request *request, idem_claim *claim, idem_reply *reply);

#endif
