/*
 * store/known.h - the straight way to what is known of a key already: its answer, that it is being worked on, that it was another request's.
 *
 * Owns: saying that in as few instructions as it takes, of plain entries only: of the usual kind, for this very key, not over; an answer that fits into
 * the caller's buffer and waits for no disk; a claim whose lease goes on and whose owner lives. State, key, kind, fingerprint and times are each
 * compared once, and nothing is decoded that the reply doesn't say. Whatever is not plain is begin.c's: here nothing has happened yet when it is
 * left to that.
 *
 * Invariant: as index/find.c reads: the slot's word, the entry, a fence, the word again. What was read before the second look counts only if the word
 * is the same; until then it may be anything, so every length is checked against the region that it lies in and against the buffer.
 *
 * If we die here: nothing was changed but the caller's buffer.
 */
#ifndef IDEM_STORE_KNOWN_H
#define IDEM_STORE_KNOWN_H

#include "base/point.h"
#include "store/begin.h"

#define KNOWN_FACTS ((UINT64_C(1) << 25) - 1) /* an entry's word 0: key bytes, scope bytes, kind */

/* The two looks at a slot. Between them all that is read of its entry may be anything. */
struct idem_look {
    const struct idem_a64 *slot;
    uint64_t word;
};

INLINE bool idem_known_unchanged(const struct idem_look *l)
{
    return IDEM_FAULT("known.unchecked") || idem_slot_unchanged(l->slot, l->word);
}

/* What is left of the entry's region behind its first byte. */
INLINE uint64_t idem_known_room(const struct idem_view *v, uint64_t unit)
{
    uint64_t region_bytes = UINT64_C(1) << v->region_shift;
    return region_bytes - (unit * IDEM_UNIT_BYTES & (region_bytes - 1));
}

/* Of a running claim, or of an answer to another fingerprint: IDEM_IN_PROGRESS, IDEM_MISMATCH, or 0. reply: as idem_known()'s. */
int idem_known_otherwise(struct idem_ctx *ctx, const struct idem_ask *ask, const struct idem_look *look, int64_t now_ms,
                         idem_reply *reply);

/*
 * After HOME_MATCH: the slot at `place` may have the key. now_ms was read in this call (struct idem_hint says why that may be before the look).
 * Outcomes: IDEM_REPLAY, IDEM_IN_PROGRESS, IDEM_MISMATCH, counted; the reply, which was cleared, or is NULL, is filled. 0: the reply is as it was (but for
 * what lies in its buffer); decide in the ordinary way.
 * relaxed: what is read of the entry is ordered by the fence before the second look (P3).
 */
INLINE int idem_known(struct idem_ctx *ctx, const struct idem_ask *ask, uint64_t place, int64_t now_ms,
                      idem_reply *reply)
{
    const struct idem_view *v = ctx->v;
    struct idem_look look;
    look.slot = &v->buckets[place / 8].slots[place % 8];
    look.word = load_acquire(look.slot); /* P1 acquire: the entry's bytes */
    uint64_t unit = word_unit(look.word);
    if (unlikely(unit + ENTRY_RESPONSE_WORDS / 2 + 1 > v->arena_units))
        return 0;
    const struct idem_a64 *at = v->arena + unit * 2;
    uint64_t w0 = load_relaxed(&at[0]), w3 = load_relaxed(&at[3]); /* relaxed: as above */
    uint64_t w5 = load_relaxed(&at[5]), w6 = load_relaxed(&at[6]); /* relaxed: as above */
    uint64_t token = load_relaxed(&at[1]);                         /* relaxed: as above */
    int64_t expiry_ms = (int64_t)(w3 & LOW48);
    const struct idem_index_key *key = &ask->key;
    uint64_t facts = (uint64_t)key->key_bytes | (uint64_t)key->scope_bytes << 11 | (uint64_t)ENTRY_RESPONSE << 22;
    uint64_t meta_bytes = w0 >> 32, body_bytes = w6 >> 32, bytes = meta_bytes + body_bytes;
    if (unlikely(word_state(look.word) != WORD_COMPLETED) ||
        unlikely(load_relaxed(&at[2]) != ask->fingerprint && /* relaxed: as above */
                 !IDEM_FAULT("fingerprint.ignored")))
        return idem_known_otherwise(ctx, ask, &look, now_ms, reply);
    if (unlikely((w0 & KNOWN_FACTS) != facts) || unlikely(now_ms >= expiry_ms) || unlikely(reply == NULL) ||
        unlikely(reply->buffer == NULL) || unlikely(bytes - 1 >= reply->buffer_bytes) ||
        unlikely(idem_entry_bytes(ENTRY_RESPONSE, key->key_bytes, bytes, 0) > idem_known_room(v, unit)) ||
        unlikely(v->rings != NULL && (w0 >> 25 & ENTRY_SYNC) != 0))
        return 0;
    if (unlikely(!idem_shared_equal(at + ENTRY_RESPONSE_WORDS, key->framed, key->key_bytes)))
        return 0;
    IDEM_POINT("find.found");
    idem_copy_out(reply->buffer, at + ENTRY_RESPONSE_WORDS + (key->key_bytes + 7) / 8, bytes);
    if (unlikely(!idem_known_unchanged(&look)))
        return 0;
    int64_t at_ms = (int64_t)(w5 & LOW48);
    reply->token = token;
    reply->attempt = (uint32_t)(w5 >> 48);
    reply->status = (int32_t)(uint32_t)w6;
    reply->response_flags = (uint32_t)(w3 >> 48);
    reply->meta = reply->buffer;
    reply->meta_bytes = meta_bytes;
    reply->body = (const char *)reply->buffer + meta_bytes;
    reply->body_bytes = body_bytes;
    reply->age_ms = now_ms > at_ms ? now_ms - at_ms : 0;
    reply->expires_in_ms = idem_time_left(expiry_ms, now_ms);
    idem_count(ctx, COUNT_REPLAYED);
    return IDEM_REPLAY;
}

#endif
