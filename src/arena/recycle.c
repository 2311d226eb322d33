/*
 * arena/recycle.c - taking regions back.
 *
 * Owns: every change of a region's state but FREE -> OPEN -> SEALED -> SHARED. See arena.h for the invariants; the pass over the index that
 * invariant 2 needs is made by index/sweep.c, this room only notes which pass a region waits for.
 *
 * Who runs this: any operation that took a chunk, idem_maintain, and operations that would be refused. Any number at the same time;
 * each step is one CAS from a state that was loaded before the facts it depends on were established.
 */
#include "arena/arena.h"

#include "base/point.h"

#define REGION_SHARE 256u /* a whole region, in shares */

bool idem_arena_unhazarded(const struct idem_ctx *ctx, uint32_t region, bool compare_too)
{
    const struct idem_view *v = ctx->v;
    uint64_t high = load_seq_cst(&v->root->lanes_high); /* P4 seq_cst: after the region's state was changed */
    if (high > v->fixed.lanes_max)
        high = v->fixed.lanes_max;
    for (uint64_t i = 0; i < high; i++) {
        const struct idem_lane_shm *lane = &v->lanes[i];
        /* P4 seq_cst: after the state's change; P11 acquire: what a cleared hazard covered is over */
        uint64_t writes = load_seq_cst(&lane->hazard_write), compares = load_seq_cst(&lane->hazard_compare);
        if (writes != (uint64_t)region + 1 && (!compare_too || compares != (uint64_t)region + 1))
            continue;
        /* Loaded after the hazard: it is who set it, or somebody later. */
        uint64_t owner = load_acquire(&lane->owner); /* P8 acquire: as above */
        if (owner != 0 && !idem_process_dead(&v->process, owner))
            return false;
    }
    return true;
}

bool idem_arena_held(const struct idem_ctx *ctx)
{
    const struct idem_view *v = ctx->v;
    for (uint32_t i = 0; i < v->region_count; i++) {
        uint64_t state = load_seq_cst(&v->regions[i].state); /* P4 seq_cst: state, then hazards */
        if ((region_draining(state) || region_phase(state) == REGION_RETIRING) && !idem_arena_unhazarded(ctx, i, true))
            return true;
    }
    return false;
}

bool idem_region_chunks_empty(const struct idem_view *v, uint32_t region, uint64_t *live, uint64_t *filled_ever)
{
    uint64_t sum = 0, total = 0, life = region_life(v, region);
    for (uint32_t i = 0; i < v->region_chunks; i++) {
        const struct idem_chunk_shm *c = &v->chunks[region * v->region_chunks + i];
        uint64_t out = count_of(load_relaxed(&c->emptied), life); /* relaxed: exact after check 1 */
        uint64_t in = count_of(load_relaxed(&c->filled), life);   /* relaxed: as above */
        sum += in > out ? in - out : in < out; /* more out than in can't be: count it, so that the pass decides */
        total += in;
    }
    if (live != NULL)
        *live = sum;
    if (filled_ever != NULL)
        *filled_ever = total;
    return sum == 0;
}

/* What lives in a region, as a share of what was ever filled into it. */
static uint32_t live_share(const struct idem_view *v, uint32_t region)
{
    uint64_t live, filled;
    idem_region_chunks_empty(v, region, &live, &filled);
    return filled == 0 ? 0 : live >= filled ? REGION_SHARE : (uint32_t)(live * REGION_SHARE / filled) + 1;
}

/* How much room is there for entries that have to move, and how much of it is spoken for? */
static void survey_room(const struct idem_view *v, struct idem_survey *s)
{
    for (uint32_t i = 0; i < v->region_count; i++) {
        uint64_t state = load_relaxed(&v->regions[i].state); /* relaxed: decides about thrift only */
        if (region_phase(state) == REGION_FREE)
            s->room += REGION_SHARE / 2;
        else if (region_phase(state) == REGION_DRAINING)
            s->moving += live_share(v, i);
    }
}

/* Nobody takes chunks from it any more: it has none left, or its class has gone on to another region. */
static bool closed(const struct idem_view *v, uint32_t index, unsigned generation, unsigned klass)
{
    uint64_t cursor = load_relaxed(&v->regions[index].cursor); /* relaxed: decides about thrift only */
    uint64_t region_bytes = UINT64_C(1) << v->region_shift, chunk_bytes = UINT64_C(1) << v->chunk_shift;
    if (cursor >> 48 != generation)
        return false;
    return (cursor & LOW48) + chunk_bytes > region_bytes ||
           (klass < IDEM_CLASSES &&
            load_relaxed(&v->generation->open[klass]) != (uint64_t)index + 1); /* relaxed: as above */
}

/* Moving needs room itself: regions whose survivors would not fit are left alone, or all of them would stand half moved. */
static bool survivors_fit(const struct idem_view *v, struct idem_survey *s, uint32_t share)
{
    if (!s->room_known)
        survey_room(v, s);
    s->room_known = true;
    if (s->moving + share > s->room)
        return false;
    s->moving += share;
    return true;
}

/* Should this region be drained, or left as it is? */
static unsigned next_phase(const struct idem_view *v, uint32_t index, uint64_t state, int pressure, int64_t now_ms,
                           struct idem_survey *s)
{
    const struct idem_region_shm *r = &v->regions[index];
    bool over = region_expiry(state) != ENTRY_TIME_MAX && now_ms >= region_expiry(state) && !IDEM_FAULT("sweep.never");
    uint64_t meta = load_relaxed(&r->meta); /* relaxed: decides about thrift only */
    unsigned klass = region_class_of(meta);
    if (over && klass != CLASS_CLAIMS)
        return REGION_DRAINING;
    if ((klass != CLASS_CLAIMS && pressure == 0) || (!over && !closed(v, index, region_generation(state), klass)))
        return region_phase(state);
    if (idem_region_chunks_empty(v, index, NULL, NULL))
        return REGION_DRAINING;
    /* Leases are over; or compaction, where an operation would be refused: worth it if what lives fills less than three quarters. */
    uint32_t share = live_share(v, index);
    return (over || (pressure > 0 && share < REGION_SHARE * 3 / 4)) && survivors_fit(v, s, share) ? REGION_DRAINING
                                                                                                  : region_phase(state);
}

/* After check 1: from which pass on does no slot name the region any more? drain was loaded before check 1. */
static void note_pass(struct idem_view *v, struct idem_region_shm *r, unsigned generation, uint64_t drain)
{
    uint64_t cursor = load_acquire(&v->generation->cursor); /* P9 acquire: after check 1 */
    /* Slice 0 means: this pass has not begun, so all of it will come after check 1. */
    uint64_t pass = cursor_pass(cursor) + (cursor_slice(cursor) == 0 ? 1 : 2);
    /* P5 release: that it is DRAINING. It follows check 1, which loads seq_cst */
    cas_acq_rel(&r->drain, &drain, (uint64_t)generation << 48 | DRAIN_NOTED | pass);
    IDEM_POINT("sweep.noted");
    add_relaxed(&v->generation->waiting, 1); /* relaxed: a hint */
}

static void step(struct idem_ctx *ctx, uint32_t index, int pressure, int64_t now_ms, struct idem_survey *s)
{
    struct idem_view *v = ctx->v;
    struct idem_region_shm *r = &v->regions[index];
    uint64_t state = load_acquire(&r->state); /* P5 acquire: before the facts below */
    unsigned g = region_generation(state);
    unsigned phase = region_phase(state);
    if (phase == REGION_FREE) {
        s->free++;
        return;
    }
    if (region_in_use(state)) {
        unsigned to = next_phase(v, index, state, pressure, now_ms, s);
        if (to == phase)
            return;
        uint64_t next = region_state(to, region_expiry(state), g);
        if (!cas_seq_cst(&r->state, &state, next)) /* P4 seq_cst: state, then hazards; P5 release */
            return;
        IDEM_POINT("sweep.draining");
        state = next;
        phase = to;
        s->moved = true;
    }
    if (phase == REGION_DRAINING || phase == REGION_EVICTING) {
        /* In this order: a note that was put off before the cursor left a pass is seen with that cursor. */
        uint64_t cursor = load_acquire(&v->generation->cursor); /* P9 acquire: the pass it tells of is done */
        uint64_t drain = load_relaxed(&r->drain); /* relaxed: a CAS from this value below carries the generation */
        bool noted = drain >> 48 == g && (drain & DRAIN_NOTED) != 0;
        if (!noted || cursor_pass(cursor) < (drain & DRAIN_PASS)) {
            /* What is noted waits for its pass, unless its chunks turn out to be empty before that. */
            bool look = !noted || idem_region_chunks_empty(v, index, NULL, NULL);
            bool checked =
                look && (IDEM_FAULT("sweep.no_check1") || idem_arena_unhazarded(ctx, index, false)); /* check 1 */
            if (!checked || !idem_region_chunks_empty(v, index, NULL, NULL)) {
                if (checked && !noted) {
                    note_pass(v, r, g, drain);
                    s->moved = true;
                }
                s->waiting_for_pass += checked || noted;
                return;
            }
        }
        uint64_t next = region_state(REGION_RETIRING, region_expiry(state), g);
        if (!cas_seq_cst(&r->state, &state, next)) /* P4 seq_cst: state, then hazards; P5 release */
            return;
        IDEM_POINT("sweep.retiring");
        state = next;
        phase = REGION_RETIRING;
        s->moved = true;
    }
    if (phase == REGION_RETIRING) {
        if (!IDEM_FAULT("sweep.no_check2") && !idem_arena_unhazarded(ctx, index, true)) /* check 2 */
            return;
        unsigned next = g == 0xffff ? 1 : g + 1;
        if (cas_seq_cst(&r->state, &state,
                        region_state(REGION_FREE, 0, next))) { /* P5 release: every use of the old generation */
            IDEM_POINT("sweep.recycled");
            store_relaxed(&v->generation->answers_refused, 0); /* relaxed: decides about thrift only */
            store_relaxed(&v->generation->free_most, 0);       /* relaxed: a hint */
            if (load_relaxed(&v->generation->free_from) > index)
                store_relaxed(&v->generation->free_from, index); /* relaxed: a hint */
            idem_count(ctx, COUNT_SWEPT_REGIONS);
            s->free++;
            s->moved = true;
        }
    }
}

void idem_region_put_off(struct idem_view *v, uint32_t region, unsigned generation, uint64_t pass)
{
    struct idem_a64 *drain = &v->regions[region].drain;
    uint64_t old = load_relaxed(drain), next; /* relaxed: the CAS decides */
    do {
        bool same = old >> 48 == generation;
        if (same && (old & DRAIN_NOTED) != 0 && (old & DRAIN_PASS) >= pass + 2)
            return;
        if (same && (old & DRAIN_NOTED) != 0)
            next = DRAIN_NOTED | (pass + 2);
        else
            next = ((same ? old : 0) + 1) & DRAIN_PASS;
        next |= (uint64_t)generation << 48;
    } while (!cas_acq_rel(drain, &old, next)); /* P9 release: it comes before the cursor leaves the slice */
}

void idem_arena_recycle(struct idem_ctx *ctx, uint32_t *at, uint32_t limit, int pressure, int64_t now_ms,
                        struct idem_survey *s)
{
    struct idem_view *v = ctx->v;
    for (uint32_t i = 0; i < limit; i++) {
        uint32_t index = (*at)++ % v->region_count;
        step(ctx, index, pressure, now_ms, s);
    }
}

bool idem_arena_evict_one(struct idem_ctx *ctx)
{
    struct idem_view *v = ctx->v;
    uint32_t victim = 0;
    uint64_t victim_state = 0;
    for (uint32_t i = 0; i < v->region_count; i++) {
        uint64_t state = load_acquire(&v->regions[i].state); /* P5 acquire: as in step() */
        unsigned g = region_generation(state);
        uint64_t meta = load_relaxed(&v->regions[i].meta); /* relaxed: decides about thrift only */
        if (region_phase(state) == REGION_EVICTING)
            return true; /* one at a time */
        if (!region_in_use(state) || region_class_of(meta) == CLASS_CLAIMS || !closed(v, i, g, region_class_of(meta)))
            continue;
        if (victim_state == 0 || region_expiry(state) < region_expiry(victim_state)) {
            victim = i;
            victim_state = state;
        }
    }
    if (victim_state == 0)
        return false;
    uint64_t next = region_state(REGION_EVICTING, region_expiry(victim_state), region_generation(victim_state));
    return cas_seq_cst(&v->regions[victim].state, &victim_state,
                       next); /* P4 seq_cst: state, then hazards; P5 release */
}
