/*
 * index/sweep.c - the pass over the index that lets draining regions go; moving entries; lowering reach.
 *
 * Owns: the sweep's cursor {pass, slice}. Slice 0: the pass has not begun. Slice k >= 1 is a run of buckets; who finishes it moves the
 * cursor on by CAS, so several may do one slice at once and a helper stopped in an old pass can't advance a later one.
 *
 * Invariants
 *  1. The cursor leaves a slice only if, at some moment after the helper loaded the cursor, each slot of the slice named no draining region.
 *     Region states are loaded after the cursor, and nothing is remembered from one slice to the next. A slot that can't be dealt with now (no
 *     room to move what it names) is left to a later pass: its region is told first that this pass does not count for it. So a region whose
 *     entries have no place to go holds back nothing but itself.
 *  2. Who pays. For a chunk that it took an operation's lane owes a look at STEP_REGIONS regions and, if a pass is worth while then, STEP_SLICES
 *     slices. Its next operations pay: one slice each, and of what is above two chunks' worth an eighth. So who takes a chunk with each
 *     operation owes OWED_MOST when it ends, and pays STEP_SLICES with each (if several chunks at once, no more than that); others owe less.
 *     A slice counts as paid whatever it was good for: two that do the same one at a time have both paid.
 *  3. When it ends. A pass of S slices is over before (S + OWED_MOST x lanes that took chunks meanwhile) / STEP_SLICES chunks were taken, times the
 *     processors that do the same slices at a time: S / 2,048 regions for itself, and 10 / 16 of a region at the most for each lane, whether it is
 *     dead, asleep or never used again. (In a store for a million answers of 512 bytes S is 17,858: 9 regions of 592.)
 *     While memory is scarce nothing is put off: who looks pays all that is owed at once. (What is to move has its room reckoned up when its region
 *     begins to drain; if the pass came later, claims and answers would have taken that room.)
 *  4. Memory does not run out for debts that are not paid: who would be refused makes a whole pass himself (idem_sweep() under pressure), and
 *     debts are no condition for anything. What is owed when no region waits any more is forgiven: the pass that it was for is over.
 *
 * If we die here: the next helper does the slice again. What the dead one's lane owes is in the lane, and its next owner pays it; a debt that
 * was not noted yet, for a chunk that was just taken, is lost with that chunk.
 */

#include "base/error.h"
#include "base/point.h"
#include "index/bucket.h"
#include "segment/push.h"

#define SLICE_SHIFT   4u /* 16 buckets */
#define SLOT_TRIES    64u
#define STEP_REGIONS  16u   /* looked at for each chunk */
#define STEP_SLICES   128u  /* owed for each chunk */
#define OWED_MOST     1280u /* by a lane */
#define BUDGET_SLICES 2048u /* before the regions are looked at again */
#define BATCH_SHARE   32u   /* waiting regions, as a share of all, that make a pass worth while */

/* So many buckets, as a power of two, that the cursor can count the slices of any index. */
static unsigned slice_shift(const struct idem_view *v)
{
    unsigned shift = SLICE_SHIFT;
    while (v->bucket_count >> shift >= CURSOR_SLICES)
        shift++;
    return shift;
}

static void copy_words(struct idem_a64 *to, const struct idem_a64 *from, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes / 8; i++)
        /* relaxed: the slot word orders it (P1); the source's region is held */
        store_relaxed(&to[i], load_relaxed(&from[i]));
}

/* A copy that stays until the entry's own end. The slot is held. Room is found first by class, in the last resort anywhere. */
enum moved { MOVED, CHANGED, NO_ROOM };
static enum moved move(struct idem_ctx *ctx, struct idem_found *f, int64_t now_ms)
{
    struct idem_entry *e = &f->entry;
    unsigned state = word_state(f->word);
    bool rescued = state == WORD_COMPLETED && e->kind == ENTRY_CLAIM;
    struct idem_rescue r = {0};
    struct idem_entry copy = *e;
    if (rescued) {
        idem_entry_load_rescue(e, &r);
        copy.kind = ENTRY_TOMBSTONE;
        copy.meta_bytes = 0;
        copy.body_bytes = 24;
        copy.mark_bytes = 0;
        copy.expiry_ms = r.expiry_ms;
        copy.extra = r.user_flags;
        copy.status = r.status;
        copy.at_ms = e->at_ms + r.took_ms;
        copy.flags |= ctx->v->rings != NULL ? ENTRY_SYNC : 0u; /* nobody knows any more how it was asked for */
    }
    bool running = state == WORD_IN_PROGRESS;
    int64_t until = running ? (e->lease_end_ms > now_ms ? e->lease_end_ms : now_ms) : copy.expiry_ms;
    unsigned klass = running && e->lease_end_ms > now_ms ? CLASS_CLAIMS : idem_class_of(copy.expiry_ms - now_ms);
    if (klass != CLASS_CLAIMS)
        until = copy.expiry_ms;
    uint64_t bytes = idem_entry_bytes(copy.kind, copy.key_bytes, idem_entry_answer_bytes(&copy), copy.mark_bytes);
    /* A record of this very state that is on the disk is the copy's, too; any other has to be written once more, for the copy. */
    uint64_t log_word = load_acquire(&e->at[4]); /* P12 acquire: the record it names is on the disk */
    if (ctx->v->rings == NULL || !idem_log_word_durable(ctx->v->root->log_control, log_word, state))
        log_word = 0;
    struct idem_space space;
    if (idem_arena_reserve(ctx, klass, FOR_SWEEP, bytes, until, now_ms, &space) != IDEM_OK)
        return NO_ROOM;
    if (rescued) {
        uint8_t key[IDEM_KEY_MAX];
        uint64_t outcome[3] = {r.meta_bytes, r.body_bytes, r.digest};
        idem_index_copy_key(e, key);
        idem_entry_store(space.at, &copy, key, NULL, outcome, NULL);
        store_relaxed(&space.at[4], log_word); /* relaxed: as the rest */
    } else {
        copy_words(space.at, e->at, bytes);
        store_relaxed(&space.at[4], log_word); /* relaxed: as the rest */
        if (e->kind == ENTRY_CLAIM)
            for (unsigned i = ENTRY_RESCUE_AT; i < ENTRY_CLAIM_WORDS; i++)
                store_relaxed(&space.at[i], 0); /* relaxed: as the rest; a half-made rescue is not taken along */
    }
    uint64_t old = f->word, next = word_moved(f->word, space.unit, space.generation);
    bool moved = cas_seq_cst(f->slot, &old, next); /* P1 release: the copy's bytes; P4 seq_cst: as in insert.c */
    if (moved) {
        if (ctx->v->rings != NULL && log_word == 0) {
            idem_push(ctx, next, IDEM_DURABILITY_ASYNC);
            idem_supersede(ctx, f->word, &e->at[4]);
        }
        idem_arena_emptied(ctx, word_unit(f->word));
        idem_count(ctx, COUNT_MOVED_ENTRIES);
    } else {
        idem_arena_emptied(ctx, space.unit);
    }
    IDEM_POINT("sweep.moved");
    ctx->held = NULL;
    store_release(&ctx->lane->hazard_write, 0); /* P11 release: the copy is published, or nobody's */
    return moved ? MOVED : CHANGED;
}

/* A reserved slot whose writer is dead (the caller has established it). Invariant 4 of index.h. */
static void settle_tentative(struct idem_ctx *ctx, struct idem_found *f)
{
    struct idem_view *v = ctx->v;
    unsigned distance = word_distance(f->word);
    uint64_t home = bucket_before(v, f->place / 8, distance);
    uint64_t h = load_acquire(&v->buckets[home].header); /* P2 acquire: after the writer's death */
    if (header_pending(h) && header_distance(h) == distance && header_slot(h) == f->place % 8) {
        idem_index_help(ctx, home, h);
        return;
    }
    uint64_t old = f->word;
    if (cas_seq_cst(f->slot, &old, 0)) { /* P1 release: nothing of it was ever seen; P4 seq_cst: as in insert.c */
        idem_arena_emptied(ctx, word_unit(f->word));
        IDEM_POINT("sweep.cleared");
    }
}

/* What a slice's helper counts. */
struct tally {
    uint64_t pass; /* of the cursor that it loaded */
    uint64_t used;
    bool put_off;  /* a slot was left to a later pass */
    bool thorough; /* memory is scarce: free what is gone wherever it lies, so that its region is seen to empty */
};

/* A look without a hold; who frees the slot looks again. */
static bool seems_gone(const struct idem_view *v, struct idem_found *f)
{
    return word_final(f->word) && idem_entry_load(v, f->word, &f->entry) && idem_index_gone(f, idem_view_now_ms(v));
}

/* The entries that settle_slot() will read: asked for together, as they lie anywhere. */
static void fetch_entries(const struct idem_view *v, uint64_t from, uint64_t to, bool thorough)
{
    for (uint64_t b = from; b < to; b++)
        for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++) {
            uint64_t w = load_relaxed(&v->buckets[b].slots[s]); /* relaxed: only fetched */
            uint32_t region = word_region(v, w);
            if (w == 0 || region >= v->region_count ||
                (!thorough && !region_draining(load_relaxed(&v->regions[region].state)))) /* relaxed: as above */
                continue;
            prefetch(v->arena + word_unit(w) * 2);
            prefetch(v->arena + word_unit(w) * 2 + 8);
        }
}

/* True: the slot names no draining region (any more), or one that this pass does not count for. A forgotten key's slot is freed
   wherever it points, so that its region is seen to empty. */
static bool settle_slot(struct idem_ctx *ctx, uint64_t bucket, unsigned slot, struct tally *t)
{
    struct idem_view *v = ctx->v;
    struct idem_found f; /* what is needed of it is set: clearing all of it for each slot took half of a pass */
    f.slot = &v->buckets[bucket].slots[slot];
    f.place = bucket * 8 + slot;
    for (unsigned tries = 0; tries < SLOT_TRIES; tries++) {
        f.word = load_acquire(f.slot); /* P1 acquire: the entry's bytes */
        if (f.word == 0)
            return true;
        uint32_t region = word_region(v, f.word);
        if (region >= v->region_count) /* damaged; idem verify tells, the data path answers IDEM_E_CORRUPT */
            return true;
        uint64_t state = load_acquire(&v->regions[region].state); /* P5 acquire: after the cursor was loaded */
        bool leaving = region_draining(state) && region_generation(state) == word_generation(f.word);
        if (!leaving && word_state(f.word) != WORD_FORGOTTEN && !(t->thorough && seems_gone(v, &f))) {
            t->used++;
            return true;
        }
        if (!idem_index_hold(ctx, &f))
            continue;
        if (!idem_entry_load(v, f.word, &f.entry)) {
            t->used++;
            return true; /* damaged, as above; the region's bytes stay readable */
        }
        if (word_state(f.word) == WORD_TENTATIVE) {
            /* A living writer is still at it: then check 1 has not been made, and the region waits for a later pass. */
            if (!idem_process_dead(&v->process, f.entry.owner)) {
                t->used++;
                return true;
            }
            settle_tentative(ctx, &f);
            continue;
        }
        int64_t now_ms = idem_view_now_ms(v);
        if (idem_index_gone(&f, now_ms) && idem_index_free(ctx, &f, now_ms))
            return true;
        if (!leaving) { /* its token is of this very tick, or it isn't gone after all: a later pass */
            t->used++;
            return true;
        }
        if (region_phase(state) == REGION_EVICTING && word_state(f.word) == WORD_COMPLETED &&
            idem_index_free(ctx, &f, now_ms)) {
            idem_count(ctx, COUNT_EVICTED);
            return true;
        }
        enum moved m = move(ctx, &f, now_ms);
        if (m == NO_ROOM) {
            if (!idem_index_hold(ctx, &f))
                continue;
            idem_region_put_off(v, region, word_generation(f.word), t->pass);
            t->put_off = true;
        }
        if (m != CHANGED) {
            t->used++;
            return true;
        }
    }
    return false;
}

/* The farthest slot that belongs to this home may be nearer by now. */
static void lower_reach(struct idem_view *v, uint64_t home)
{
    struct idem_a64 *header = &v->buckets[home].header;
    uint64_t h = load_acquire(header); /* P2 acquire: the slots it speaks of */
    unsigned reach = header_reach(h), real = 0;
    if (reach == 0 || (h & HEADER_FROZEN))
        return;
    for (unsigned d = 1; d <= reach; d++) {
        const struct idem_bucket_shm *b = &v->buckets[bucket_after(v, home, d)];
        for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++) {
            uint64_t w = load_acquire(&b->slots[s]); /* P1 acquire: not needed for its bytes, orders it after h */
            if (w != 0 && word_distance(w) == d)
                real = d;
        }
    }
    if (real >= reach)
        return;
    uint64_t next = header_make(header_version(h) + 1, real, header_pending(h), header_distance(h), header_slot(h));
    if (header_pending(h) && header_distance(h) > real)
        return;                    /* never below a slot that is named; it will be lowered once that is freed */
    cas_acq_rel(header, &h, next); /* P2 release: nothing was published in this home since h */
}

/* One step of the pass. False: the slice can't be finished now. */
static bool pass_step(struct idem_ctx *ctx, bool thorough, bool *put_off)
{
    struct idem_view *v = ctx->v;
    struct idem_generation_shm *g = v->generation;
    unsigned shift = slice_shift(v);
    uint64_t cursor = load_acquire(&g->cursor); /* P9 acquire: slices before this one are done */
    uint64_t slice = cursor_slice(cursor), slices = ((v->bucket_count - 1) >> shift) + 1;
    if (slice == 0) {
        store_relaxed(&g->slots_counted, 0);          /* relaxed: a statistic */
        cas_acq_rel(&g->cursor, &cursor, cursor + 1); /* P9 release: all work of the pass comes after this */
        return true;
    }
    if (slice > slices) { /* damaged */
        /* P9 release: nothing was done; the same pass begins again, so nobody takes it for finished */
        cas_acq_rel(&g->cursor, &cursor, cursor_pass(cursor) << 24);
        return false;
    }
    uint64_t from = (slice - 1) << shift, to = slice << shift;
    struct tally t = {.pass = cursor_pass(cursor), .thorough = thorough};
    if (to > v->bucket_count)
        to = v->bucket_count;
    bool done = true;
    fetch_entries(v, from, to, thorough);
    for (uint64_t b = from; b < to; b++) {
        for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++)
            done &= settle_slot(ctx, b, s, &t);
        lower_reach(v, b);
    }
    idem_arena_leave(ctx);
    *put_off |= t.put_off;
    if (!done)
        return false;
    IDEM_POINT("sweep.slice");
    uint64_t next = slice < slices ? cursor + 1 : (cursor_pass(cursor) + 1) << 24;
    if (cas_acq_rel(&g->cursor, &cursor, next)) {                           /* P9 release: all work of this slice */
        uint64_t counted = add_relaxed(&g->slots_counted, t.used) + t.used; /* relaxed: a statistic */
        if (slice == slices) {
            store_relaxed(&g->slots_used, counted + 1); /* relaxed: a statistic */
            store_relaxed(&g->waiting, 0);              /* relaxed: a hint */
            idem_count(ctx, COUNT_PASSES);
        }
    }
    return true;
}

/* A pass costs the same for one region as for many, so the steps that operations make wait for a batch, or for need. */
static bool worth_a_pass(const struct idem_view *v, const struct idem_survey *survey)
{
    uint64_t waiting = load_relaxed(&v->generation->waiting); /* relaxed: a hint */
    return waiting > 0 && (waiting * BATCH_SHARE >= v->region_count || survey->free == 0);
}

/* True: the pass went on, and left nothing for a later one. */
static bool run_slices(struct idem_ctx *ctx, unsigned most, bool thorough)
{
    struct idem_generation_shm *g = ctx->v->generation;
    uint64_t pass = cursor_pass(load_relaxed(&g->cursor)); /* relaxed: pass_step loads it again */
    bool stepped = false, put_off = false;
    for (unsigned i = 0; i < most && pass_step(ctx, thorough, &put_off); i++) {
        stepped = true;
        if (cursor_pass(load_relaxed(&g->cursor)) != pass) /* relaxed: as above */
            break;
    }
    return stepped && !put_off;
}

/* No more than OWED_MOST, whatever is noted. */
static uint32_t owed_of(uint64_t word)
{
    uint32_t owed = (uint32_t)(word >> 32) & UINT16_MAX;
    return owed < OWED_MOST ? owed : OWED_MOST;
}

static uint64_t with_owed(uint64_t word, uint32_t owed, bool thorough)
{
    word &= ~(LANE_THOROUGH | (uint64_t)UINT16_MAX << 32);
    return word | (uint64_t)owed << 32 | (owed > 0 && thorough ? LANE_THOROUGH : 0);
}

/* Invariant 2. */
static uint32_t share_of(uint32_t owed, bool scarce)
{
    if (scarce || IDEM_FAULT("sweep.at_once"))
        return owed;
    return owed <= 2 * STEP_SLICES ? 1 : 1 + (owed - 2 * STEP_SLICES) / 8;
}

static void pay(struct idem_ctx *ctx)
{
    uint64_t word = load_relaxed(&ctx->lane->sweep); /* relaxed: the lane's own */
    bool thorough = (word & LANE_THOROUGH) != 0;
    uint32_t owed = owed_of(word), share = share_of(owed, thorough);
    if (load_relaxed(&ctx->v->generation->waiting) == 0) /* relaxed: a hint */
        share = owed;                                    /* the pass is over: nothing is left to be paid for */
    else
        run_slices(ctx, share, thorough);
    word = load_relaxed(&ctx->lane->sweep); /* relaxed: as above; what was moved may have taken a chunk */
    store_relaxed(&ctx->lane->sweep, with_owed(word, owed - share, thorough)); /* relaxed: as above */
}

/* For a chunk that was taken. */
static void look(struct idem_ctx *ctx)
{
    struct idem_view *v = ctx->v;
    struct idem_survey survey = {0};
    uint64_t word = load_relaxed(&ctx->lane->sweep); /* relaxed: the lane's own */
    uint32_t at = (uint32_t)word;
    idem_arena_recycle(ctx, &at, STEP_REGIONS, 0, idem_view_now_ms(v), &survey);
    if (worth_a_pass(v, &survey) && !IDEM_FAULT("sweep.unpaid"))
        word = with_owed(word, owed_of(word) + STEP_SLICES, idem_arena_scarce(v));
    word &= ~(LANE_TOOK_CHUNK | UINT32_MAX);
    store_relaxed(&ctx->lane->sweep, word | at % v->region_count); /* relaxed: as above */
}

/* Who took a chunk looks, and pays only if much is owed, or memory is scarce. */
void idem_sweep_share(struct idem_ctx *ctx)
{
    bool looks = (load_relaxed(&ctx->lane->sweep) & LANE_TOOK_CHUNK) != 0; /* relaxed: the lane's own */
    if (looks)
        look(ctx);
    uint64_t word = load_relaxed(&ctx->lane->sweep); /* relaxed: as above */
    if (owed_of(word) > (looks && (word & LANE_THOROUGH) == 0 ? 2 * STEP_SLICES : 0))
        pay(ctx);
    idem_arena_leave(ctx);
}

bool idem_sweep(struct idem_ctx *ctx, int64_t budget_us, int pressure)
{
    struct idem_view *v = ctx->v;
    uint64_t word = load_relaxed(&ctx->lane->sweep); /* relaxed: the lane's own */
    uint32_t at = (uint32_t)word;
    struct idem_survey survey = {0};
    bool more = false;
    if (budget_us == 0) {
        idem_arena_recycle(ctx, &at, STEP_REGIONS, pressure, idem_view_now_ms(v), &survey);
        if (worth_a_pass(v, &survey))
            run_slices(ctx, STEP_SLICES, idem_arena_scarce(v));
        more = survey.waiting_for_pass > 0 || survey.moved;
    }
    int64_t end_us = budget_us > 0 ? idem_clock_fine_us() + budget_us : 0;
    /* Once in any case: who slept through his budget has not looked yet. */
    for (unsigned stuck = 0, rounds = 0; stuck < 2 && budget_us > 0 && (rounds == 0 || idem_clock_fine_us() < end_us);
         rounds++) {
        survey = (struct idem_survey){0};
        idem_arena_recycle(ctx, &at, v->region_count, pressure, idem_view_now_ms(v), &survey);
        bool stepped = survey.waiting_for_pass > 0 && run_slices(ctx, BUDGET_SLICES, idem_arena_scarce(v));
        more = survey.waiting_for_pass > 0 || survey.moved;
        stuck = stepped || survey.moved ? 0 : stuck + 1;
        if (!more || (pressure > 1 && survey.free > v->region_count / 16 + 4))
            break;
    }
    word = load_relaxed(&ctx->lane->sweep) & ~(uint64_t)UINT32_MAX;  /* relaxed: as above */
    store_relaxed(&ctx->lane->sweep, word | (at % v->region_count)); /* relaxed: as above */
    idem_arena_leave(ctx);
    return more;
}
