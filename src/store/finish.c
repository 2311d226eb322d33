/*
 * store/finish.c - an answer, an outcome without its body, a transient answer: whatever was asked for.
 *
 * Owns: what is written when an attempt ends with an answer. One CAS on the slot word makes it so; the old owner's CAS fails, which is the
 * fence. A complete of a granted claim can always be recorded: without memory, in the claim's own rescue words.
 *
 * If we die here: before the CAS (complete.filled, rescue.filled) the key is in progress and its owner dead; after it (swap.swapped) the
 * answer stands, and sleepers find it within 100 ms.
 */
#include "store/finish.h"

#include <string.h>

#include "base/point.h"

#define ROOM_TRIES 32u

int idem_response_check(const idem_response *r)
{
    if (r == NULL || r->size != sizeof *r)
        return idem_fail(IDEM_E_INVALID, "response.size: should be %zu; initialise with IDEM_RESPONSE_INIT", sizeof *r);
    bool retained = (r->flags & IDEM_RESPONSE_NOT_RETAINED) == 0;
    if ((r->flags & ~(uint32_t)(IDEM_RESPONSE_TRANSIENT | IDEM_RESPONSE_NOT_RETAINED)) != 0 ||
        r->user_flags > UINT16_MAX)
        return idem_fail(IDEM_E_INVALID, "response.flags: unknown bits, or user_flags above 65535");
    if (!retained && (r->meta != NULL || r->body != NULL))
        return idem_fail(IDEM_E_INVALID,
                         "response.meta, body: not NULL, though the flags say that they were not retained");
    if (retained && ((r->meta == NULL && r->meta_bytes != 0) || (r->body == NULL && r->body_bytes != 0)))
        return idem_fail(IDEM_E_INVALID, "response.meta, body: NULL with a length");
    if (r->ttl_ms < 0 || (r->ttl_ms > IDEM_TTL_MAX_MS && r->ttl_ms != IDEM_FOREVER))
        return idem_fail(IDEM_E_INVALID, "response.ttl_ms: %lld; 1 to %lld, IDEM_FOREVER, or 0 for the request's",
                         (long long)r->ttl_ms, (long long)IDEM_TTL_MAX_MS);
    return IDEM_OK;
}

static uint64_t digest_of(const struct idem_view *v, const idem_response *r)
{
    if (r->flags & IDEM_RESPONSE_NOT_RETAINED)
        return r->digest;
    XXH3_state_t state;
    XXH3_64bits_reset_withSecret(&state, v->fixed.secret, IDEM_SECRET_BYTES);
    if (r->meta_bytes > 0)
        XXH3_64bits_update(&state, r->meta, r->meta_bytes);
    if (r->body_bytes > 0)
        XXH3_64bits_update(&state, r->body, r->body_bytes);
    uint64_t d = XXH3_64bits_digest(&state);
    return d != 0 ? d : 1;
}

/* Who fills the rescue words: a lane of an owner. The incarnation's low half is enough beside the slot it is compared in. */
static uint64_t arbiter_of(const struct idem_ctx *ctx)
{
    uint64_t lane = (uint64_t)(ctx->lane - ctx->v->lanes) + 1;
    return (idem_owner_incarnation(ctx->owner) & UINT32_MAX) << 32 | (uint64_t)idem_owner_slot(ctx->owner) << 16 | lane;
}

static bool arbiter_dead(const struct idem_ctx *ctx, uint64_t arbiter)
{
    const struct idem_process *p = &ctx->v->process;
    uint32_t slot = (uint32_t)(arbiter >> 16) & 0xffff;
    if (slot >= p->table_size)
        return true;
    uint64_t x = load_acquire(&p->table[slot].incarnation); /* P7 acquire: before its life is judged */
    return (x & UINT32_MAX) != arbiter >> 32 || idem_process_dead(p, idem_owner_pack(slot, x & IDEM_INCARNATION_MASK));
}

/* No memory: the outcome goes into the claim's own rescue words. f is held. */
static int rescue(struct idem_ctx *ctx, struct idem_found *f, const idem_response *r, int64_t now_ms, int64_t expiry_ms)
{
    struct idem_a64 *at = f->entry.at;
    uint64_t mine = arbiter_of(ctx);
    IDEM_POINT("rescue.held");
    uint64_t seen = 0;
    if (IDEM_FAULT("rescue.refused"))
        return IDEM_E_FULL;
    /* relaxed on the words below: the CAS on the slot's state publishes them */
    while (!cas_relaxed(&at[ENTRY_RESCUE_AT], &seen, mine)) { /* relaxed: as above */
        if (seen == mine)
            break;
        if (!arbiter_dead(ctx, seen))
            return idem_fail(IDEM_E_FULL,
                             "no room, and another completion of this claim is being recorded; look again");
    }
    /* The arbiter before us may have completed and died since the slot was held: its outcome stands. From here on only we can complete this
       entry. */
    /* P1 acquire: the state that goes with the arbiter's words */
    if (load_acquire(f->slot) != f->word && !IDEM_FAULT("rescue.unchecked"))
        return FINISH_CHANGED;
    int64_t took_ms = now_ms - f->entry.at_ms;
    if (took_ms < 0 || took_ms > UINT32_MAX)
        took_ms = took_ms < 0 ? 0 : UINT32_MAX;
    uint64_t meta = r->meta_bytes < UINT32_MAX ? r->meta_bytes : UINT32_MAX;
    uint64_t body = r->body_bytes < UINT32_MAX ? r->body_bytes : UINT32_MAX;
    store_relaxed(&at[12], (uint64_t)expiry_ms | (uint64_t)r->user_flags << 48);     /* relaxed: as above */
    store_relaxed(&at[13], (uint64_t)(uint32_t)r->status | (uint64_t)took_ms << 32); /* relaxed: as above */
    store_relaxed(&at[14], meta | body << 32);                                       /* relaxed: as above */
    store_relaxed(&at[15], digest_of(ctx->v, r));                                    /* relaxed: as above */
    IDEM_POINT("rescue.filled");
    if (!idem_index_set_state(f, WORD_COMPLETED))
        return FINISH_CHANGED;
    if (ctx->v->rings != NULL)
        idem_push(ctx, f->word, idem_response_durability(ctx->v, r));
    return IDEM_TOMBSTONE;
}

static int finish_held(struct idem_ctx *ctx, struct idem_found *f, const idem_response *r)
{
    struct idem_view *v = ctx->v;
    const struct idem_entry *old = &f->entry;
    bool transient = (r->flags & IDEM_RESPONSE_TRANSIENT) != 0;
    int64_t now_ms = idem_view_now_ms(v);
    struct idem_entry e = {
        .key_bytes = old->key_bytes,
        .scope_bytes = old->scope_bytes,
        .kind = transient ? ENTRY_TRANSIENT : ENTRY_RESPONSE,
        .flags = old->flags,
        .token = old->token,
        .fingerprint = old->fingerprint,
        .expiry_ms = transient ? old->expiry_ms : idem_response_expiry(r, old->at_ms, old->expiry_ms, now_ms),
        .extra = r->user_flags,
        .at_ms = now_ms,
        .attempt = old->attempt,
        .status = r->status,
    };
    unsigned durability = idem_response_durability(v, r);
    if (durability == IDEM_DURABILITY_SYNC)
        e.flags |= ENTRY_SYNC;
    uint8_t key[IDEM_KEY_MAX], mark[IDEM_MARK_MAX];
    uint64_t outcome[3];
    const void *meta = r->meta, *body = r->body;
    idem_index_copy_key(old, key);
    if (transient) {
        e.lost_token = old->lost_token;
        e.mark_bytes = old->mark_bytes;
        e.flags &= ~ENTRY_SYNC;
        idem_copy_out(mark, idem_entry_mark(old), old->mark_bytes);
    }
    uint64_t most = idem_arena_entry_max(v);
    bool fits = (r->flags & IDEM_RESPONSE_NOT_RETAINED) == 0 && r->meta_bytes <= most && r->body_bytes <= most &&
                idem_entry_bytes(e.kind, e.key_bytes, r->meta_bytes + r->body_bytes, e.mark_bytes) <= most;
    if (fits) {
        e.meta_bytes = (uint32_t)r->meta_bytes;
        e.body_bytes = (uint32_t)r->body_bytes;
    } else if (transient) {
        return idem_fail(IDEM_E_TOO_BIG,
                         "response: a transient answer of %zu bytes does not fit in a region; abandon instead",
                         r->meta_bytes + r->body_bytes);
    } else {
        outcome[0] = r->meta_bytes;
        outcome[1] = r->body_bytes;
        outcome[2] = digest_of(v, r);
        e.kind = ENTRY_TOMBSTONE;
        e.body_bytes = sizeof outcome;
        meta = NULL;
        body = outcome;
    }
    struct idem_space space;
    uint64_t bytes = idem_entry_bytes(e.kind, e.key_bytes, idem_entry_answer_bytes(&e), e.mark_bytes);
    int64_t life_ms = e.expiry_ms >= ENTRY_TIME_MAX ? IDEM_FOREVER : e.expiry_ms - now_ms;
    if (idem_arena_reserve(ctx, idem_class_of(life_ms), FOR_ANSWER, bytes, e.expiry_ms, now_ms, &space) != IDEM_OK)
        return IDEM_E_FULL;
    idem_entry_store(space.at, &e, key, meta, body, mark);
    IDEM_POINT("complete.filled");
    if (!idem_index_replace(ctx, f, transient ? WORD_ABANDONED : WORD_COMPLETED, &space)) {
        idem_arena_emptied(ctx, space.unit);
        return FINISH_CHANGED;
    }
    IDEM_POINT("complete.swapped");
    if (v->rings != NULL && durability > IDEM_DURABILITY_NONE) {
        idem_push(ctx, word_make(transient ? WORD_ABANDONED : WORD_COMPLETED, 0, 0, space.unit, space.generation),
                  durability);
        idem_supersede(ctx, f->word, &old->at[4]);
    }
    return e.kind == ENTRY_TOMBSTONE ? IDEM_TOMBSTONE : IDEM_OK;
}

int idem_finish(struct idem_ctx *ctx, struct idem_found *f, const idem_response *r)
{
    int e = idem_index_hold(ctx, f) ? finish_held(ctx, f, r) : FINISH_CHANGED;
    idem_arena_leave(ctx);
    if (e != IDEM_E_FULL || (r->flags & IDEM_RESPONSE_TRANSIENT))
        return e;
    /* As long as making room gets on. Once more after that: somebody else may have made it, or takes what we made. */
    bool more = true;
    for (unsigned tries = 0; more && tries < ROOM_TRIES; tries++) {
        IDEM_POINT("room.wanted");
        if (IDEM_FAULT("room.once"))
            break;
        more = idem_make_room(ctx, true);
        e = idem_index_hold(ctx, f) ? finish_held(ctx, f, r) : FINISH_CHANGED;
        idem_arena_leave(ctx);
        if (e != IDEM_E_FULL)
            return e;
    }
    if (f->entry.kind != ENTRY_CLAIM)
        return e;
    int64_t now_ms = idem_view_now_ms(ctx->v);
    int64_t expiry_ms = idem_response_expiry(r, f->entry.at_ms, f->entry.expiry_ms, now_ms);
    e = idem_index_hold(ctx, f) ? rescue(ctx, f, r, now_ms, expiry_ms) : FINISH_CHANGED;
    idem_arena_leave(ctx);
    return e;
}

int idem_claim_find(struct idem_ctx *ctx, const idem_claim *claim, struct idem_found *f)
{
    if (claim == NULL || claim->size != sizeof *claim)
        return idem_fail(IDEM_E_INVALID, "claim.size: should be %zu; only idem fills claims", sizeof *claim);
    if (memcmp(claim->store_uuid, ctx->v->fixed.uuid, sizeof claim->store_uuid) != 0)
        return idem_fail(IDEM_E_STALE, "claim: made in another store; it was replaced, or the claim belongs elsewhere");
    return idem_index_at(ctx, claim->place, claim->token, claim->hash, f);
}
