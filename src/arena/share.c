/*
 * arena/share.c - what lanes have left of their chunks, for all, when memory is scarce.
 *
 * Owns: OPEN -> SEALED -> SHARED, and taking room from SHARED regions (arena.h, invariant 7).
 *
 * If we die here: a SEALED region is made SHARED by the next one who needs room, or drained when its time is over; room that was taken from a SHARED one
 * and not used is lost with its region's life.
 */
#include "arena/reserve.h"

#include "base/point.h"

/* Check 3. Nobody who lives is in the middle of using a chunk of this region. */
static bool unused_by_lanes(const struct idem_ctx *ctx, uint32_t index)
{
    return idem_arena_unhazarded(ctx, index, false) || IDEM_FAULT("share.unchecked");
}

/* Invariant 7. True: the region is SHARED. A lane that sleeps inside of an operation keeps the region to itself; one that is dead doesn't. */
static bool share_region(struct idem_ctx *ctx, uint32_t index, uint64_t state)
{
    struct idem_region_shm *r = &ctx->v->regions[index];
    if (region_phase(state) == REGION_OPEN) {
        uint64_t sealed = region_state(REGION_SEALED, region_expiry(state), region_generation(state));
        if (!unused_by_lanes(ctx, index)) /* a look before, so that it isn't sealed in vain */
            return false;
        if (!cas_seq_cst(&r->state, &state, sealed)) /* P4 seq_cst: state, then hazards */
            return false;
        IDEM_POINT("region.sealed");
        state = sealed;
    }
    if (region_phase(state) == REGION_SEALED) {
        if (!unused_by_lanes(ctx, index)) /* check 3 */
            return false;
        uint64_t shared = region_state(REGION_SHARED, region_expiry(state), region_generation(state));
        if (!cas_seq_cst(&r->state, &state, shared)) /* P5 release: what its lanes did; P4 as above */
            return false;
        IDEM_POINT("region.shared");
        state = shared;
    }
    return region_phase(state) == REGION_SHARED;
}

/* The lane's space that ends with this chunk has so many bytes left at *from; 0: none, or it is the region's own. */
static uint64_t left_in(const struct idem_view *v, uint32_t index, uint32_t number, uint64_t meta, uint64_t *word)
{
    /* relaxed: looked at again under the hazard */
    uint64_t span = *word = load_relaxed(&v->chunks[index * v->region_chunks + number].span);
    uint64_t from = span & COUNT_MASK, to = (uint64_t)(number + 1) << v->chunk_shift;
    return (span & ~COUNT_MASK) == chunk_life(meta) && from % IDEM_UNIT_BYTES == 0 && from < to ? to - from : 0;
}

static bool has_left(const struct idem_view *v, uint32_t index, uint64_t meta, uint64_t bytes)
{
    uint64_t cursor = load_relaxed(&v->regions[index].cursor), word; /* relaxed: as in left_in() */
    uint64_t used = cursor >> 48 == meta >> 48 ? cursor & LOW48 : 0;
    bool has = used + bytes <= UINT64_C(1) << v->region_shift;
    for (uint32_t n = 0; n < v->region_chunks && !has; n++)
        has = left_in(v, index, n, meta, &word) >= bytes;
    return has;
}

/* From what is left in a SHARED region. */
static bool from_left_of(struct idem_ctx *ctx, uint32_t index, uint64_t meta, uint64_t bytes, int64_t expiry_ms,
                         int64_t now_ms, struct idem_space *space)
{
    struct idem_view *v = ctx->v;
    uint64_t state, from = 0, to, word;
    unsigned generation = (unsigned)(meta >> 48);
    bool found = false;
    if (!idem_region_enter(ctx, index, REGION_SHARED, generation, &state) ||
        load_relaxed(&v->regions[index].meta) != meta) /* relaxed: constant while the hazard holds the region */
        return false;
    for (uint32_t n = 0; n < v->region_chunks && !found; n++)
        while (!found && left_in(v, index, n, meta, &word) >= bytes) {
            from = word & COUNT_MASK;
            /* relaxed: a number; the bytes are fenced by P3 */
            found = cas_relaxed(&v->chunks[index * v->region_chunks + n].span, &word, word + bytes);
        }
    if (!found && !idem_region_take(ctx, index, generation, bytes, true, &from, &to))
        return false;
    IDEM_POINT("share.taken");
    if (!idem_region_stays(&v->regions[index], &state, expiry_ms, now_ms))
        return false;
    idem_region_fill(ctx, index, generation, from, true, space);
    return true;
}

/* Hardly a region is free: what the lanes' chunks have left, in regions of classes from..to. Every lane may hold a chunk of each class that
   it hardly uses: without this a store would have room for its keys only as long as few lanes fill it. */
bool idem_arena_take_left(struct idem_ctx *ctx, unsigned first, unsigned last, uint64_t bytes, int64_t expiry_ms,
                          int64_t now_ms, struct idem_space *space)
{
    struct idem_view *v = ctx->v;
    if (IDEM_FAULT("share.never"))
        return false;
    uint64_t front = load_relaxed(&v->generation->left_from) % v->region_count; /* relaxed: a hint */
    for (uint32_t i = 0; i < v->region_count; i++) {
        uint32_t index = (uint32_t)((front + i) % v->region_count);
        uint64_t state = load_acquire(&v->regions[index].state); /* P5 acquire: meta */
        uint64_t meta = load_relaxed(&v->regions[index].meta);   /* relaxed: as above */
        unsigned klass = region_class_of(meta);
        if (!region_in_use(state) || meta >> 48 != region_generation(state) || klass < first || klass > last ||
            !has_left(v, index, meta, bytes))
            continue;
        ctx->held = NULL;
        store_release(&ctx->lane->hazard_write, 0); /* P11 release: nothing was written there */
        if (!share_region(ctx, index, state) || !from_left_of(ctx, index, meta, bytes, expiry_ms, now_ms, space))
            continue;
        store_relaxed(&v->generation->left_from, index); /* relaxed: a hint */
        return true;
    }
    return false;
}
