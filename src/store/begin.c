/*
 * store/begin.c - do I do this work, or has it been done?
 *
 * Owns: what a record's state means for a new request. The index says what is there; this decides; the index makes it so by one CAS, or
 * something has changed and the decision is made anew.
 *
 * If we die here: before the CAS nothing has happened; after it the claim exists, its owner is dead, and the next one reclaims it.
 */
#include "store/begin.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/point.h"
#include "store/finish.h"

#define DECIDE_TRIES 100000u
#define ROOM_TRIES   8u

int idem_ask_prepare(const struct idem_view *v, const idem_request *rq, uint8_t framed[IDEM_KEY_MAX],
                     struct idem_ask *ask)
{
    if (rq == NULL || rq->size != sizeof *rq)
        return idem_fail(IDEM_E_INVALID, "request.size: should be %zu; initialise with IDEM_REQUEST_INIT", sizeof *rq);
    if ((rq->flags & ~(uint32_t)IDEM_REQUEST_FLAGS) != 0)
        return idem_fail(IDEM_E_INVALID, "request.flags: %x has unknown bits", rq->flags);
    unsigned durability;
    int e = idem_durability(v, rq->durability, v->log.durability_claim, &durability);
    if (e != IDEM_OK)
        return e;
    if (rq->lease_ms < 0 || rq->lease_ms > IDEM_LEASE_MAX_MS)
        return idem_fail(IDEM_E_INVALID, "request.lease_ms: %lld; 1 to %d, 0 for the store's", (long long)rq->lease_ms,
                         IDEM_LEASE_MAX_MS);
    if (rq->ttl_ms < 0 || (rq->ttl_ms > IDEM_TTL_MAX_MS && rq->ttl_ms != IDEM_FOREVER))
        return idem_fail(IDEM_E_INVALID, "request.ttl_ms: %lld; 1 to %lld, IDEM_FOREVER, or 0 for the store's",
                         (long long)rq->ttl_ms, (long long)IDEM_TTL_MAX_MS);
    idem_ask_fill(v, rq, ask);
    return idem_key_prepare(v, &rq->key, framed, &ask->key);
}

void idem_claim_fill(const struct idem_view *v, idem_claim *claim, const struct idem_entry *e, uint64_t place,
                     uint64_t hash, uint64_t word)
{
    claim->size = sizeof *claim;
    memcpy(claim->store_uuid, v->fixed.uuid, sizeof claim->store_uuid);
    claim->token = e->token;
    claim->place = place;
    claim->hash = hash;
    claim->entry = idem_claim_word(v, word & CLAIM_WORD);
    claim->lease_ms = e->lease_end_ms - e->at_ms;
    claim->attempt = e->attempt;
    claim->flags = (e->flags & ENTRY_HOLD ? IDEM_HOLD : 0u) | (e->flags & ENTRY_LEASE_ONLY ? IDEM_LEASE_ONLY : 0u);
}

enum idem_lost_reason idem_lost(const struct idem_view *v, const struct idem_found *f, int64_t now_ms)
{
    const struct idem_entry *e = &f->entry;
    switch (word_state(f->word)) {
    case WORD_DECLARED:
        return IDEM_LOST_DECLARED;
    case WORD_RELEASED:
        return IDEM_LOST_RELEASED;
    case WORD_IN_PROGRESS:
        if (e->owner == IDEM_OWNER_CRASHED)
            return IDEM_LOST_CRASH;
        if (now_ms >= e->lease_end_ms && !IDEM_FAULT("lease.ignored"))
            return IDEM_LOST_LEASE;
        return !(e->flags & ENTRY_LEASE_ONLY) && idem_process_dead(&v->process, e->owner) ? IDEM_LOST_DEAD
                                                                                          : IDEM_LOST_NONE;
    default:
        return IDEM_LOST_NONE;
    }
}

/* A claim's entry; what an earlier attempt leaves is filled in by the caller. */
static struct idem_entry new_claim(const struct idem_ctx *ctx, const struct idem_ask *ask, int64_t now_ms)
{
    return (struct idem_entry){
        .key_bytes = ask->key.key_bytes,
        .scope_bytes = ask->key.scope_bytes,
        .kind = ENTRY_CLAIM,
        .flags = (ask->flags & IDEM_HOLD ? ENTRY_HOLD : 0u) | (ask->flags & IDEM_LEASE_ONLY ? ENTRY_LEASE_ONLY : 0u),
        .token = (uint64_t)idem_token_ms(ctx->v, now_ms) << 16,
        .fingerprint = ask->fingerprint,
        .expiry_ms = idem_expiry_after(now_ms, ask->ttl_ms),
        .at_ms = now_ms,
        .attempt = 1,
        .hash = ask->key.hash,
        .owner = ctx->owner,
        .lease_end_ms = now_ms + ask->lease_ms,
    };
}

static unsigned durability_of(const struct idem_view *v, const struct idem_ask *ask)
{
    return ask->durability != IDEM_DURABILITY_DEFAULT ? ask->durability : v->log.durability_claim;
}

void idem_begin_push(struct idem_ctx *ctx, const struct idem_ask *ask, uint64_t word, bool must)
{
    unsigned durability = durability_of(ctx->v, ask);
    idem_push(ctx, word, must && durability == IDEM_DURABILITY_NONE ? IDEM_DURABILITY_ASYNC : durability);
    idem_push_ceiling(ctx->v, idem_token_ms(ctx->v, idem_view_now_ms(ctx->v)));
}

static uint64_t claim_bytes(const struct idem_entry *e)
{
    return idem_entry_bytes(ENTRY_CLAIM, e->key_bytes, 0, e->mark_bytes);
}

static int claimed(struct idem_ctx *ctx, const struct idem_entry *e, const struct idem_space *space, uint64_t place,
                   idem_claim *claim, idem_reply *reply, int verdict)
{
    idem_claim_fill(ctx->v, claim, e, place, e->hash,
                    word_make(WORD_IN_PROGRESS, 0, 0, space->unit, space->generation));
    if (reply != NULL) {
        reply->token = e->token;
        reply->attempt = e->attempt;
        reply->lost_token = e->lost_token;
        reply->lost_reason = verdict == IDEM_RECLAIMED ? ENTRY_REASON(e->flags) : IDEM_LOST_NONE;
        reply->expires_in_ms = idem_time_left(e->expiry_ms, e->at_ms);
    }
    idem_count(ctx, verdict == IDEM_CLAIMED ? COUNT_CLAIMED : COUNT_RECLAIMED);
    return verdict;
}

#define AGAIN 1000 /* something changed: decide anew; never leaves this file */

/* No record. The clock is read here, after the scan (index.h, invariant 5). */
static int claim_absent(struct idem_ctx *ctx, const struct idem_ask *ask, const struct idem_gap *gap, idem_claim *claim,
                        idem_reply *reply)
{
    int64_t now_ms = idem_view_now_ms(ctx->v);
    struct idem_entry e = new_claim(ctx, ask, now_ms);
    struct idem_space space;
    int r = idem_arena_reserve(ctx, CLASS_CLAIMS, FOR_CLAIM, claim_bytes(&e), e.lease_end_ms, now_ms, &space);
    if (r != IDEM_OK)
        return r;
    idem_entry_store(space.at, &e, ask->key.framed, NULL, NULL, NULL);
    IDEM_POINT("claim.filled");
    uint64_t place = 0;
    r = idem_index_insert(ctx, &ask->key, gap, &space, now_ms, &place);
    if (r != 1)
        idem_arena_emptied(ctx, space.unit);
    else if (unlikely(ctx->v->rings != NULL))
        idem_begin_push(ctx, ask, word_make(WORD_IN_PROGRESS, 0, 0, space.unit, space.generation), false);
    idem_arena_leave(ctx);
    if (r == 1)
        return claimed(ctx, &e, &space, place, claim, reply, IDEM_CLAIMED);
    return r == 0 ? AGAIN : r;
}

/* In the place of a record that is over. keep: the attempts before it are remembered; reason: why the newest one is lost. */
static int claim_over(struct idem_ctx *ctx, const struct idem_ask *ask, struct idem_found *f, bool keep,
                      enum idem_lost_reason reason, idem_claim *claim, idem_reply *reply, struct idem_room *room)
{
    const struct idem_entry *old = &f->entry;
    if (!idem_index_hold(ctx, f))
        return AGAIN;
    int64_t now_ms = idem_view_now_ms(ctx->v);
    struct idem_entry e = new_claim(ctx, ask, now_ms);
    uint8_t mark[IDEM_MARK_MAX];
    if (old->token >= e.token && !IDEM_FAULT("token.repeats"))
        e.token = old->token + 1;
    if (keep) {
        e.attempt = old->attempt < UINT16_MAX ? old->attempt + 1 : UINT16_MAX;
        e.lost_token = old->lost_token;
        e.flags |= old->flags & ~(ENTRY_HOLD | ENTRY_LEASE_ONLY | ENTRY_SYNC);
        if (reason != IDEM_LOST_NONE && !IDEM_FAULT("loss.forgotten")) {
            e.lost_token = old->token;
            e.flags = ENTRY_WITH_REASON(e.flags | ENTRY_LOST_BEFORE, reason);
        } else if (word_state(f->word) == WORD_RERUN) {
            e.lost_token = 0;
            e.flags &= ENTRY_HOLD | ENTRY_LEASE_ONLY;
        }
        /* A transient answer stays findable for those who waited on it, until the claim after this one. */
        if (old->kind == ENTRY_TRANSIENT && !IDEM_FAULT("transient.forgotten"))
            e.previous = f->word;
        e.mark_bytes = IDEM_FAULT("mark.forgotten") ? 0 : old->mark_bytes;
        idem_copy_out(mark, idem_entry_mark(old), old->mark_bytes);
        int r = e.mark_bytes != 0 ? idem_reply_mark(f, reply, room) : IDEM_OK;
        if (r != IDEM_OK)
            return r == 1 ? AGAIN : r;
    }
    struct idem_space space;
    int r = idem_arena_reserve(ctx, CLASS_CLAIMS, FOR_CLAIM, claim_bytes(&e), e.lease_end_ms, now_ms, &space);
    if (r != IDEM_OK)
        return r;
    idem_entry_store(space.at, &e, ask->key.framed, NULL, NULL, mark);
    IDEM_POINT("takeover.filled");
    /* What was forgotten must not come back: the claim that covers it is logged in any case. */
    bool forgotten = word_state(f->word) == WORD_FORGOTTEN;
    bool mine = idem_index_replace(ctx, f, WORD_IN_PROGRESS, &space);
    IDEM_POINT("takeover.swapped");
    if (!mine) {
        idem_arena_emptied(ctx, space.unit);
    } else if (unlikely(ctx->v->rings != NULL)) {
        idem_begin_push(ctx, ask, word_make(WORD_IN_PROGRESS, 0, 0, space.unit, space.generation), forgotten);
        if (forgotten || durability_of(ctx->v, ask) > IDEM_DURABILITY_NONE)
            idem_supersede(ctx, f->word, &old->at[4]);
    }
    idem_arena_leave(ctx);
    if (!mine)
        return AGAIN;
    return claimed(ctx, &e, &space, f->place, claim, reply,
                   e.flags & ENTRY_LOST_BEFORE ? IDEM_RECLAIMED : IDEM_CLAIMED);
}

static int unknown(struct idem_ctx *ctx, const struct idem_found *f, enum idem_lost_reason reason, int64_t now_ms,
                   idem_reply *reply, struct idem_room *room)
{
    if (reply != NULL) {
        const struct idem_entry *e = &f->entry;
        reply->token = e->token;
        reply->attempt = e->attempt;
        reply->lost_token = reason != IDEM_LOST_NONE ? e->token : e->lost_token;
        reply->lost_reason = reason != IDEM_LOST_NONE ? reason : ENTRY_REASON(e->flags);
        reply->expires_in_ms = idem_time_left(e->expiry_ms, now_ms);
    }
    int r = idem_reply_mark(f, reply, room);
    if (r == IDEM_OK && !idem_index_unchanged(f)) /* it may have been completed before its lease was over */
        r = 1;
    if (r != IDEM_OK)
        return r == 1 ? AGAIN : r;
    idem_count(ctx, COUNT_UNKNOWN);
    return IDEM_UNKNOWN;
}

/* The answer at a word that no slot holds any more, kept by the claim that followed it. */
static int previous_transient(struct idem_ctx *ctx, const struct idem_ask *ask, const struct idem_found *f,
                              int64_t now_ms, idem_reply *reply, struct idem_room *room)
{
    struct idem_view *v = ctx->v;
    uint64_t w = f->entry.previous;
    uint32_t region = word_region(v, w);
    if (region >= v->region_count)
        return IDEM_IN_PROGRESS;
    idem_hazard_compare(ctx, w);
    uint64_t state = load_seq_cst(&v->regions[region].state); /* P4 seq_cst: hazard, then region state; P5 acquire */
    unsigned phase = region_phase(state);
    /* Not free and not about to be: with our hazard set it stays so, and its bytes too. `before` is validated by the claim's slot. */
    struct idem_found before = *f;
    int r = IDEM_IN_PROGRESS;
    if (region_generation(state) == word_generation(w) && phase != REGION_FREE && phase != REGION_RETIRING &&
        idem_entry_load(v, w, &before.entry) && before.entry.kind == ENTRY_TRANSIENT &&
        before.entry.token == ask->wait_token && before.entry.fingerprint == ask->fingerprint &&
        before.entry.key_bytes == ask->key.key_bytes && before.entry.scope_bytes == ask->key.scope_bytes &&
        idem_shared_equal(idem_entry_key(&before.entry), ask->key.framed, ask->key.key_bytes))
        r = idem_reply_answer(v, &before, now_ms, reply, room);
    idem_arena_leave(ctx);
    return r == IDEM_OK ? IDEM_REPLAY : r == 1 ? AGAIN : r;
}

static int in_progress(const struct idem_entry *e, int64_t retry_after_ms, int64_t now_ms, idem_reply *reply)
{
    if (reply != NULL) {
        reply->token = e->token;
        reply->attempt = e->attempt;
        reply->retry_after_ms = retry_after_ms;
        reply->expires_in_ms = idem_time_left(e->expiry_ms, now_ms);
    }
    return IDEM_IN_PROGRESS;
}

static int judge_running(struct idem_ctx *ctx, const struct idem_ask *ask, struct idem_found *f, int64_t now_ms,
                         idem_claim *claim, idem_reply *reply, struct idem_room *room)
{
    const struct idem_entry *e = &f->entry;
    if (e->fingerprint != ask->fingerprint)
        return IDEM_MISMATCH;
    if (ask->wait_token != 0 && e->previous != 0) {
        int r = previous_transient(ctx, ask, f, now_ms, reply, room);
        if (r != IDEM_IN_PROGRESS)
            return r;
    }
    enum idem_lost_reason reason = idem_lost(ctx->v, f, now_ms);
    if (reason == IDEM_LOST_NONE)
        return in_progress(e, e->lease_end_ms - now_ms, now_ms, reply);
    if (((e->flags & ENTRY_HOLD) || (ask->flags & IDEM_HOLD)) && !IDEM_FAULT("hold.ignored"))
        return unknown(ctx, f, reason, now_ms, reply, room);
    return claim_over(ctx, ask, f, true, reason, claim, reply, room);
}

static int judge(struct idem_ctx *ctx, const struct idem_ask *ask, struct idem_found *f, int64_t now_ms,
                 idem_claim *claim, idem_reply *reply, struct idem_room *room)
{
    const struct idem_entry *e = &f->entry;
    if (idem_index_gone(f, now_ms))
        return claim_over(ctx, ask, f, false, IDEM_LOST_NONE, claim, reply, room);
    /* We slept: what is over was swept meanwhile, or followed by something else. */
    if (unlikely(!idem_index_unchanged(f)))
        return AGAIN;
    switch (word_state(f->word)) {
    case WORD_COMPLETED: {
        if (e->fingerprint != ask->fingerprint && !IDEM_FAULT("fingerprint.ignored"))
            return IDEM_MISMATCH;
        int r = idem_reply_answer(ctx->v, f, now_ms, reply, room);
        if (r == IDEM_OK)
            r = idem_durable_answer(ctx, f, false);
        if (r == IDEM_OK && ctx->ticket != 0 && (ask->flags & IDEM_NO_WAIT)) {
            /* It is there, but not to be given out before it is on the disk. Who waits writes it himself; here nobody does. */
            idem_push_hurry(ctx->v);
            idem_reply_reset(reply);
            return in_progress(e, 1, now_ms, reply);
        }
        return r == IDEM_OK ? IDEM_REPLAY : r == 1 ? AGAIN : r;
    }
    case WORD_ABANDONED:
        if (e->kind == ENTRY_TRANSIENT && ask->wait_token == e->token && ask->fingerprint == e->fingerprint) {
            int r = idem_reply_answer(ctx->v, f, now_ms, reply, room);
            return r == IDEM_OK ? IDEM_REPLAY : r == 1 ? AGAIN : r;
        }
        if (e->flags & ENTRY_LOST_BEFORE) {
            if (e->fingerprint != ask->fingerprint)
                return IDEM_MISMATCH;
            if ((e->flags & ENTRY_HOLD) || (ask->flags & IDEM_HOLD))
                return unknown(ctx, f, IDEM_LOST_NONE, now_ms, reply, room);
        }
        return claim_over(ctx, ask, f, true, IDEM_LOST_NONE, claim, reply, room);
    case WORD_RERUN:
        return claim_over(ctx, ask, f, true, IDEM_LOST_NONE, claim, reply, room);
    default:
        return judge_running(ctx, ask, f, now_ms, claim, reply, room);
    }
}

int idem_decide(struct idem_ctx *ctx, const struct idem_ask *ask, const struct idem_hint *hint, idem_claim *claim,
                idem_reply *reply, struct idem_found *f)
{
    struct idem_room room = {NULL, 0, false};
    unsigned room_tries = 0;
    bool more = true;
    int r = AGAIN;
    if (likely(hint != NULL) && likely(idem_index_try(ctx->v, &ask->key, hint->place, f))) {
        r = judge(ctx, ask, f, hint->now_ms, claim, reply, &room);
        if (unlikely(r == AGAIN || r == IDEM_E_FULL))
            idem_arena_leave(ctx);
        if (unlikely(r == IDEM_E_FULL))
            r = AGAIN;
    }
    for (unsigned tries = 0; r == AGAIN && tries < DECIDE_TRIES; tries++) {
        struct idem_gap gap;
        idem_reply_reset(reply);
        r = idem_index_find(ctx, &ask->key, f, &gap);
        if (r == FIND_ABSENT)
            r = claim_absent(ctx, ask, &gap, claim, reply);
        else if (r == FIND_PRESENT)
            r = judge(ctx, ask, f, idem_view_now_ms(ctx->v), claim, reply, &room);
        if (unlikely(r == AGAIN || r == IDEM_E_FULL))
            idem_arena_leave(ctx);
        /* Once more after there was nothing to do: somebody else may have made the room. */
        if (r == IDEM_E_FULL && more && room_tries++ < ROOM_TRIES) {
            more = idem_make_room(ctx, (ask->flags & IDEM_NO_WAIT) == 0);
            r = AGAIN;
        }
    }
    if (r == AGAIN)
        r = idem_fail(IDEM_E_CORRUPT, "generation: a key's slot did not hold still for %u looks; run idem verify",
                      DECIDE_TRIES);
    idem_arena_leave(ctx);
    if (r < 0)
        idem_reply_reset(reply);
    idem_room_settle(reply, &room);
    if (r == IDEM_E_FULL) {
        idem_count(ctx, COUNT_FULL);
        idem_fail(
            r, "the store is full: no room for another claim; wait for answers to expire, or create it for more keys");
    } else if (r == IDEM_REPLAY) {
        idem_count(ctx, COUNT_REPLAYED);
    } else if (r == IDEM_IN_PROGRESS && (ask->flags & ASK_WAITS) == 0) {
        idem_count(ctx, COUNT_IN_PROGRESS);
    } else if (r == IDEM_MISMATCH) {
        idem_count(ctx, COUNT_MISMATCHED);
    }
    return r;
}

void idem_prefetch(idem_store *store, const idem_key *key)
{
    struct idem_op op;
    struct idem_index_key prepared;
    uint8_t framed[IDEM_KEY_MAX];
    if (key == NULL || idem_enter(store, &op) != IDEM_OK)
        return;
    if (idem_key_prepare(op.ctx.v, key, framed, &prepared) == IDEM_OK)
        idem_index_prefetch(op.ctx.v, prepared.hash);
    idem_leave(&op, IDEM_OK);
}

int idem_begin_settle(struct idem_op *op, int verdict, const struct idem_ask *ask, const struct idem_found *found,
                      const idem_claim *claim, int64_t *left_ms)
{
    bool mine = verdict == IDEM_CLAIMED || verdict == IDEM_RECLAIMED;
    if (likely(op->ctx.ticket == 0) || (!mine && verdict != IDEM_REPLAY))
        return idem_leave(op, verdict);
    struct idem_attempt a = {claim->place, claim->token, ask->key.hash};
    if (!mine)
        a = (struct idem_attempt){found->place, found->entry.token, ask->key.hash};
    unsigned state;
    int e = idem_leave_durably(op, verdict, &a, left_ms, &state);
    if (e < 0) {
        if (mine) { /* nothing has happened: whoever comes next may claim it at once */
            int kept = errno;
            char why[512];
            snprintf(why, sizeof why, "%s", idem_fail_text());
            idem_abandon_quietly(op->store, claim);
            errno = kept;
            idem_fail(e, "%s", why);
        }
        return e;
    }
    return state == (mine ? WORD_IN_PROGRESS : WORD_COMPLETED) ? e : BEGIN_AGAIN;
}
