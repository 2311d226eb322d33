/*
 * store/owner.c - what an owner does with a claim besides completing it: renew, mark, adopt, abandon; finding and sending claims.
 *
 * Owns: successors of a claim's entry. Renew, mark and adopt publish a new entry with the same token and the next sequence number, so a
 * takeover that judged the old entry fails, and the other way round. Abandon changes the state alone and needs no memory.
 */
#include <string.h>

#include "base/point.h"
#include "store/finish.h"

struct change {
    int64_t lease_ms; /* > 0: a new lease */
    const void *mark; /* if new_mark */
    size_t mark_bytes;
    bool new_mark;
    bool adopt;
    bool lease_only; /* with adopt */
};

static int fenced(struct idem_ctx *ctx, const idem_claim *claim)
{
    idem_count(ctx, COUNT_FENCED);
    return idem_fail(IDEM_E_LOST,
                     "the claim with token %llu is over: taken over, completed, abandoned, released or forgotten",
                     (unsigned long long)claim->token);
}

static int succeed(struct idem_ctx *ctx, struct idem_found *f, const struct change *c)
{
    if (!idem_index_hold(ctx, f))
        return FINISH_CHANGED;
    int64_t now_ms = idem_view_now_ms(ctx->v);
    struct idem_entry e = f->entry;
    uint8_t key[IDEM_KEY_MAX], mark[IDEM_MARK_MAX];
    idem_index_copy_key(&f->entry, key);
    if (c->new_mark) {
        e.mark_bytes = (uint32_t)c->mark_bytes;
        if (c->mark_bytes > 0)
            memcpy(mark, c->mark, c->mark_bytes);
    } else {
        idem_copy_out(mark, idem_entry_mark(&f->entry), f->entry.mark_bytes);
    }
    if (c->lease_ms > 0)
        e.lease_end_ms = now_ms + c->lease_ms;
    if (c->adopt) {
        e.owner = ctx->owner;
        e.flags = (e.flags & ~ENTRY_LEASE_ONLY) | (c->lease_only ? ENTRY_LEASE_ONLY : 0u);
    }
    e.extra = e.extra < UINT16_MAX ? e.extra + 1 : UINT16_MAX;
    struct idem_space space;
    uint64_t bytes = idem_entry_bytes(ENTRY_CLAIM, e.key_bytes, 0, e.mark_bytes);
    int64_t until = e.lease_end_ms > now_ms ? e.lease_end_ms : now_ms;
    if (idem_arena_reserve(ctx, CLASS_CLAIMS, FOR_ANSWER, bytes, until, now_ms, &space) != IDEM_OK)
        return IDEM_E_FULL;
    idem_entry_store(space.at, &e, key, NULL, NULL, mark);
    IDEM_POINT("renew.filled");
    bool swapped = idem_index_replace(ctx, f, WORD_IN_PROGRESS, &space);
    if (!swapped)
        idem_arena_emptied(ctx, space.unit);
    IDEM_POINT("renew.swapped");
    if (swapped && ctx->v->rings != NULL && ctx->v->log.durability_claim > IDEM_DURABILITY_NONE) {
        idem_push(ctx, word_make(WORD_IN_PROGRESS, 0, 0, space.unit, space.generation), ctx->v->log.durability_claim);
        idem_supersede(ctx, f->word, &f->entry.at[4]);
    }
    return swapped ? IDEM_OK : FINISH_CHANGED;
}

/* Waits for the disk if what was done has to be there. */
static int leave(struct idem_op *op, int result, const idem_claim *claim)
{
    if (likely(op->ctx.ticket == 0))
        return idem_leave(op, result);
    struct idem_attempt a = {claim->place, claim->token, claim->hash};
    int64_t left_ms = 0;
    return idem_leave_durably(op, result, &a, &left_ms, NULL);
}

static int change_claim(idem_store *store, const idem_claim *claim, const struct change *c, enum idem_counter counter)
{
    struct idem_op op;
    int e = idem_enter(store, &op);
    if (e != IDEM_OK)
        return e;
    e = FINISH_CHANGED;
    bool room_made = false;
    for (unsigned tries = 0; e == FINISH_CHANGED && tries < FINISH_TRIES; tries++) {
        struct idem_found f;
        e = idem_claim_find(&op.ctx, claim, &f);
        if (e < 0)
            break;
        if (e == FIND_ABSENT || word_state(f.word) != WORD_IN_PROGRESS) {
            e = fenced(&op.ctx, claim);
            break;
        }
        e = succeed(&op.ctx, &f, c);
        idem_arena_leave(&op.ctx);
        if (e == IDEM_E_FULL && !room_made) {
            room_made = true;
            idem_make_room(&op.ctx, true); /* or somebody else did: look again in any case */
            e = FINISH_CHANGED;
        }
    }
    if (e == IDEM_OK)
        idem_count(&op.ctx, counter);
    else if (e == IDEM_E_FULL)
        idem_fail(e, "the store is full: the claim stands as it was, its lease too");
    else if (e == FINISH_CHANGED)
        e = idem_fail(IDEM_E_CORRUPT, "generation: a claim's slot did not hold still; run idem verify");
    return leave(&op, e, claim);
}

int idem_renew(idem_store *store, const idem_claim *claim, int64_t lease_ms)
{
    if (claim == NULL || lease_ms < 0 || lease_ms > IDEM_LEASE_MAX_MS)
        return idem_fail(IDEM_E_INVALID, "claim: NULL, or lease_ms (%lld) not in 1 to %d, or 0 for the claim's",
                         (long long)lease_ms, IDEM_LEASE_MAX_MS);
    struct change c = {.lease_ms = lease_ms != 0 ? lease_ms : claim->lease_ms};
    if (c.lease_ms < 1 || c.lease_ms > IDEM_LEASE_MAX_MS)
        return idem_fail(IDEM_E_INVALID, "claim.lease_ms: %lld; only idem fills claims", (long long)c.lease_ms);
    return change_claim(store, claim, &c, COUNT_RENEWED);
}

int idem_mark(idem_store *store, const idem_claim *claim, const void *mark, size_t mark_bytes)
{
    if ((mark == NULL && mark_bytes != 0) || mark_bytes > IDEM_MARK_MAX)
        return idem_fail(IDEM_E_INVALID, "mark: NULL with a length, or %zu bytes of at most %u", mark_bytes,
                         IDEM_MARK_MAX);
    struct change c = {.mark = mark, .mark_bytes = mark_bytes, .new_mark = true};
    return change_claim(store, claim, &c, COUNT_MARKED);
}

int idem_adopt(idem_store *store, const idem_claim *claim)
{
    struct change c = {.adopt = true, .lease_only = claim != NULL && (claim->flags & IDEM_LEASE_ONLY) != 0};
    return change_claim(store, claim, &c, COUNT_RENEWED);
}

static int abandon(struct idem_ctx *ctx, const idem_claim *claim, unsigned state)
{
    for (unsigned tries = 0; tries < FINISH_TRIES; tries++) {
        struct idem_found f;
        int e = idem_claim_find(ctx, claim, &f);
        if (e < 0)
            return e;
        if (e == FIND_ABSENT || word_state(f.word) != WORD_IN_PROGRESS)
            return fenced(ctx, claim);
        bool done = idem_index_hold(ctx, &f) && idem_index_set_state(&f, state);
        IDEM_POINT("abandon.swapped");
        if (done && ctx->v->rings != NULL)
            idem_push_state(ctx, &f);
        idem_arena_leave(ctx);
        if (done) {
            idem_count(ctx, COUNT_ABANDONED);
            return IDEM_OK;
        }
    }
    return idem_fail(IDEM_E_CORRUPT, "generation: a claim's slot did not hold still; run idem verify");
}

int idem_abandon(idem_store *store, const idem_claim *claim, int why)
{
    if (why != IDEM_NOTHING_HAPPENED && why != IDEM_OUTCOME_UNKNOWN)
        return idem_fail(IDEM_E_INVALID, "why: %d; IDEM_NOTHING_HAPPENED or IDEM_OUTCOME_UNKNOWN", why);
    struct idem_op op;
    int e = idem_enter(store, &op);
    if (e != IDEM_OK)
        return e;
    e = abandon(&op.ctx, claim, why == IDEM_OUTCOME_UNKNOWN ? WORD_DECLARED : WORD_ABANDONED);
    return leave(&op, e, claim);
}

void idem_abandon_quietly(idem_store *store, const idem_claim *claim)
{
    struct idem_op op;
    if (idem_enter(store, &op) != IDEM_OK)
        return;
    abandon(&op.ctx, claim, WORD_ABANDONED);
    op.ctx.ticket = 0;
    idem_leave(&op, IDEM_OK);
}

static int find(struct idem_ctx *ctx, const idem_key *key, uint64_t token, idem_claim *claim)
{
    struct idem_index_key k;
    struct idem_found f;
    uint8_t framed[IDEM_KEY_MAX];
    int e = idem_key_prepare(ctx->v, key, framed, &k);
    if (e != IDEM_OK)
        return e;
    bool gone = false, changed = true;
    for (unsigned tries = 0; changed && tries < FINISH_TRIES; tries++) {
        e = idem_index_find(ctx, &k, &f, NULL);
        if (e < 0)
            return e;
        gone = e == FIND_ABSENT || idem_index_gone(&f, idem_view_now_ms(ctx->v));
        changed = !gone && !idem_index_unchanged(&f); /* we slept: what is over was swept meanwhile, or followed */
    }
    if (gone)
        return idem_fail(IDEM_E_NO_KEY, "no record of this key");
    if (word_state(f.word) != WORD_IN_PROGRESS || (token != 0 && f.entry.token != token))
        return idem_fail(IDEM_E_LOST, "the key's newest attempt has token %llu%s", (unsigned long long)f.entry.token,
                         word_state(f.word) == WORD_IN_PROGRESS ? "" : " and is not running");
    idem_claim_fill(ctx->v, claim, &f.entry, f.place, k.hash, f.word);
    if (f.entry.extra != 0) /* renewed, marked or adopted: the first lease's length is not known any more */
        claim->lease_ms = ctx->v->fixed.lease_ms;
    return IDEM_OK;
}

int idem_find(idem_store *store, const idem_key *key, uint64_t token, idem_claim *claim)
{
    if (key == NULL || claim == NULL)
        return idem_fail(IDEM_E_INVALID, "key or claim: NULL");
    memset(claim, 0, sizeof *claim);
    claim->size = sizeof *claim;
    struct idem_op op;
    int e = idem_enter(store, &op);
    return e != IDEM_OK ? e : idem_leave(&op, find(&op.ctx, key, token, claim));
}

/* Wire form: "idemclm1", UUID, token, place, hash, lease (each 8, little endian), attempt, flags (each 4). */
static const uint8_t wire_magic[8] = {'i', 'd', 'e', 'm', 'c', 'l', 'm', '1'};

static void put_le(uint8_t *at, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_le(const uint8_t *at, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)at[i] << (8 * i);
    return v;
}

void idem_claim_encode(const idem_claim *c, uint8_t wire[IDEM_CLAIM_WIRE_BYTES])
{
    memcpy(wire, wire_magic, sizeof wire_magic);
    memcpy(wire + 8, c->store_uuid, 16);
    put_le(wire + 24, c->token, 8);
    put_le(wire + 32, c->place, 8);
    put_le(wire + 40, c->hash, 8);
    put_le(wire + 48, (uint64_t)c->lease_ms, 8);
    put_le(wire + 56, c->attempt, 4);
    put_le(wire + 60, c->flags, 4);
}

int idem_claim_decode(const uint8_t wire[IDEM_CLAIM_WIRE_BYTES], idem_claim *c)
{
    if (memcmp(wire, wire_magic, sizeof wire_magic) != 0)
        return idem_fail(IDEM_E_INVALID, "wire: not an encoded claim (its first 8 bytes are not 'idemclm1')");
    c->size = sizeof *c;
    memcpy(c->store_uuid, wire + 8, 16);
    c->token = get_le(wire + 24, 8);
    c->place = get_le(wire + 32, 8);
    c->hash = get_le(wire + 40, 8);
    c->entry = 0;
    c->lease_ms = (int64_t)get_le(wire + 48, 8);
    c->attempt = (uint32_t)get_le(wire + 56, 4);
    c->flags = (uint32_t)get_le(wire + 60, 4);
    if (c->lease_ms < 0 || c->lease_ms > IDEM_LEASE_MAX_MS)
        return idem_fail(IDEM_E_INVALID, "wire: lease out of bounds; not an encoded claim");
    return IDEM_OK;
}
