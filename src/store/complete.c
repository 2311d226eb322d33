/*
 * store/complete.c - idem_complete(), and the straight way to an answer.
 *
 * Owns: the order of memory accesses, as fresh.c does for claims. An answer costs one cache miss, its slot's, which is asked for before anything
 * else is done. The claim says which word was published for it, so all is done while that line is on its way: the hazards are set, the claim's entry
 * is read, the answer is written to where the thread's last one ended. Then the slot is loaded: if it is that word still, the CAS follows. Whatever
 * is not plain is finish.c's: here nothing has happened yet when it is left to that.
 *
 * Why the entry may be read before the slot is loaded: an address is handed out once in a generation (arena.h, 5), so the word that was published for
 * the claim names the bytes that were written before that, and they do not change (but for words that are not read here). If the slot names it
 * now, it did all the time, and its region was not recycled; if it does not, what was read is thrown away. Reads and load are kept in order by a
 * fence (P3). And why one load is enough: it comes after the hazard's store (P4), and from then on the region is kept.
 *
 * If we die here: as in finish.c; the crash points are the same, and one before them: at complete.written nothing has happened, and who has the lane
 * or the region's rest next writes over what is there.
 */
#include <string.h>

#include "base/point.h"
#include "segment/push.h"
#include "store/enter.h"
#include "store/finish.h"

static int complete(struct idem_ctx *ctx, const idem_claim *claim, const idem_response *r)
{
    for (unsigned tries = 0; tries < FINISH_TRIES; tries++) {
        struct idem_found f;
        int e = idem_claim_find(ctx, claim, &f);
        if (e < 0)
            return e;
        unsigned state = word_state(f.word);
        bool said_transient = e == FIND_PRESENT && state == WORD_ABANDONED && f.entry.kind == ENTRY_TRANSIENT;
        if (e == FIND_PRESENT && IDEM_FAULT("answer.overwritten"))
            state = WORD_IN_PROGRESS;
        if ((e == FIND_PRESENT && state == WORD_COMPLETED) ||
            (said_transient && (r->flags & IDEM_RESPONSE_TRANSIENT))) {
            /* Said before, but perhaps not on the disk; or it was to be async then, and is asked for as sync now. */
            if (idem_durable_answer(ctx, &f, idem_response_durability(ctx->v, r) == IDEM_DURABILITY_SYNC) == IDEM_OK)
                return IDEM_OK;
            continue;
        }
        if (e == FIND_ABSENT || state != WORD_IN_PROGRESS) {
            idem_count(ctx, COUNT_FENCED);
            return idem_fail(IDEM_E_LOST,
                             "the claim with token %llu is over: taken over, abandoned, released or forgotten",
                             (unsigned long long)claim->token);
        }
        e = idem_finish(ctx, &f, r);
        if (e == FINISH_CHANGED)
            continue;
        if (e >= 0)
            idem_count(ctx, r->flags & IDEM_RESPONSE_TRANSIENT ? COUNT_TRANSIENT
                            : e == IDEM_TOMBSTONE              ? COUNT_TOMBSTONES
                                                               : COUNT_COMPLETED);
        else if (e == IDEM_E_FULL && (r->flags & IDEM_RESPONSE_TRANSIENT))
            idem_fail(e, "no room for a transient answer; abandon the claim instead");
        return e;
    }
    return idem_fail(IDEM_E_CORRUPT, "generation: a claim's slot did not hold still for %u looks; run idem verify",
                     FINISH_TRIES);
}

/* Any completion. */
static int complete_any(idem_store *store, const idem_claim *claim, const idem_response *response)
{
    struct idem_op op;
    unsigned durability;
    int e = idem_response_check(response);
    if (e == IDEM_OK)
        e = idem_enter(store, &op);
    if (e != IDEM_OK)
        return e;
    e = idem_durability(op.ctx.v, response->durability, op.ctx.v->log.durability_complete, &durability);
    if (e == IDEM_OK)
        e = complete(&op.ctx, claim, response);
    if (likely(op.ctx.ticket == 0))
        return idem_leave(&op, e);
    struct idem_attempt a = {claim->place, claim->token, claim->hash};
    int64_t left_ms = 0;
    return idem_leave_durably(&op, e, &a, &left_ms, NULL);
}

/* No flag, and nothing that idem_response_check() or idem_durability() would refuse. */
INLINE bool response_plain(const idem_response *r)
{
    return r->size == sizeof *r && r->flags == 0 && r->user_flags <= UINT16_MAX &&
           r->durability <= IDEM_DURABILITY_NONE && (r->meta != NULL || r->meta_bytes == 0) &&
           (r->body != NULL || r->body_bytes == 0) && r->meta_bytes <= UINT32_MAX && r->body_bytes <= UINT32_MAX &&
           ((uint64_t)r->ttl_ms <= (uint64_t)IDEM_TTL_MAX_MS || r->ttl_ms == IDEM_FOREVER);
}

INLINE bool claim_plain(const struct idem_view *v, const idem_claim *claim)
{
    return claim->size == sizeof *claim && memcmp(claim->store_uuid, v->fixed.uuid, sizeof claim->store_uuid) == 0 &&
           claim->place / 8 < v->bucket_count && claim->place % 8 < IDEM_BUCKET_SLOTS;
}

/* If the claim's slot still names its entry, in progress, and the thread's open chunk has room: the answer takes its place. word: of the claim. */
INLINE bool complete_plain(struct idem_ctx *ctx, const idem_claim *claim, uint64_t word, const idem_response *r,
                           int64_t now_ms)
{
    struct idem_view *v = ctx->v;
    struct idem_running old;
    if (unlikely(word_state(word) != WORD_IN_PROGRESS) || unlikely(!idem_entry_load_running(v, word, &old)) ||
        unlikely(old.token != claim->token) || unlikely(old.hash != claim->hash))
        return false;
    int64_t expiry_ms = idem_response_expiry(r, old.at_ms, old.expiry_ms, now_ms);
    uint64_t bytes = idem_entry_bytes(ENTRY_RESPONSE, old.key_bytes, r->meta_bytes + r->body_bytes, 0);
    unsigned klass = idem_class_of(expiry_ms >= ENTRY_TIME_MAX ? IDEM_FOREVER : expiry_ms - now_ms);
    struct idem_a64 *at = idem_arena_peek_comparing(ctx, klass, bytes, word);
    if (unlikely(at == NULL))
        return false;
    unsigned durability = idem_response_durability(v, r);
    idem_entry_store_answer(at, &old, durability == IDEM_DURABILITY_SYNC ? ENTRY_SYNC : 0, expiry_ms, now_ms, r);
    IDEM_POINT("complete.written");
    struct idem_space space;
    struct idem_found f;
    f.slot = &v->buckets[claim->place / 8].slots[claim->place % 8];
    fence_acquire();               /* P3 acquire: all that was read of the entry, before the slot */
    f.word = load_seq_cst(f.slot); /* P4 seq_cst: hazard, then slot; P1 acquire: whose word it is */
    if (unlikely((f.word & CLAIM_WORD) != word && !IDEM_FAULT("claim.unchecked")) ||
        unlikely(!idem_arena_take(ctx, klass, bytes, expiry_ms, &space)))
        return false;
    IDEM_POINT("complete.filled");
    if (unlikely(!idem_index_replace(ctx, &f, WORD_COMPLETED, &space))) {
        idem_arena_emptied(ctx, space.unit);
        return false;
    }
    IDEM_POINT("complete.swapped");
    if (unlikely(v->rings != NULL) && durability > IDEM_DURABILITY_NONE) {
        idem_push(ctx, word_make(WORD_COMPLETED, 0, 0, space.unit, space.generation), durability);
        idem_supersede(ctx, f.word, &old.at[4]);
    }
    idem_count(ctx, COUNT_COMPLETED);
    return true;
}

int idem_complete(idem_store *store, const idem_claim *claim, const idem_response *response)
{
    struct idem_op op;
    if (unlikely(store == NULL) || unlikely(claim == NULL) || unlikely(response == NULL))
        return complete_any(store, claim, response);
    struct idem_view *v = idem_enter_view(store);
    bool plain = claim_plain(v, claim);
    if (likely(plain))
        prefetch_write(&v->buckets[claim->place / 8]);
    plain = plain && response_plain(response);
    if (unlikely(!idem_enter_rest(store, v, &op)))
        return complete_any(store, claim, response);
    op.ctx.ticket = 0;
    int64_t now_ms = idem_view_now_ms(v);
    if (unlikely(!plain) || unlikely(!idem_enter_recent(v, now_ms)) ||
        unlikely(!complete_plain(&op.ctx, claim, idem_claim_word(v, claim->entry), response, now_ms))) {
        idem_leave_undone(&op);
        return complete_any(store, claim, response);
    }
    if (likely(op.ctx.ticket == 0))
        return idem_leave_fast(&op, IDEM_OK);
    struct idem_attempt a = {claim->place, claim->token, claim->hash};
    int64_t left_ms = 0;
    return idem_leave_durably(&op, IDEM_OK, &a, &left_ms, NULL);
}
