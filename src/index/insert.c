/*
 * index/insert.c - claiming an absent key, and changing a slot that is there.
 *
 * Steps, invariants and deaths: index.h. The crash points below are the steps' names.
 */
#include "base/error.h"
#include "base/futex.h"
#include "base/point.h"
#include "index/bucket.h"

#define FREE_TRIES 256u

bool idem_index_hold(struct idem_ctx *ctx, const struct idem_found *f)
{
    idem_hazard_compare(ctx, f->word);
    return load_seq_cst(f->slot) == f->word; /* P4 seq_cst: hazard, then slot; P1 acquire */
}

/* One CAS; wakes everybody if the attempt that they wait for has ended with it. */
static bool change(struct idem_found *f, uint64_t next)
{
    uint64_t old = f->word;
    if (word_state(next) != WORD_IN_PROGRESS) /* nor has 0 */
        next &= ~WORD_WAITERS;
    if (IDEM_FAULT("swap.blind"))
        old = load_acquire(f->slot); /* P1 acquire: a seeded fault takes whatever is there for the expected word */
    /* P1 release: the new entry's bytes, or the rescue words; P4 seq_cst: the word is gone, then hazards are looked at */
    if (!cas_seq_cst(f->slot, &old, next))
        return false;
    IDEM_POINT("swap.swapped");
    if ((old & WORD_WAITERS) != 0 && (next & WORD_WAITERS) == 0 && !IDEM_FAULT("wake.none"))
        idem_futex_wake_all(f->slot);
    return true;
}

bool idem_index_replace(struct idem_ctx *ctx, struct idem_found *f, unsigned state, const struct idem_space *space)
{
    if (!change(f, word_with_state(word_moved(f->word, space->unit, space->generation), state)))
        return false;
    idem_arena_emptied(ctx, word_unit(f->word));
    return true;
}

bool idem_index_set_state(struct idem_found *f, unsigned state)
{
    uint64_t next = word_with_state(f->word, state);
    if (!change(f, next))
        return false;
    f->word = next & ~WORD_WAITERS;
    return true;
}

bool idem_index_set_waiters(struct idem_found *f)
{
    uint64_t old = f->word;
    if (old & WORD_WAITERS)
        return true;
    if (!cas_acq_rel(f->slot, &old, old | WORD_WAITERS)) /* P1 release: passes on the writer's bytes */
        return false;
    f->word |= WORD_WAITERS;
    return true;
}

/* Invariant 2. False: the slot has changed. */
static bool unname(struct idem_ctx *ctx, const struct idem_found *f)
{
    struct idem_view *v = ctx->v;
    uint64_t b = f->place / 8;
    unsigned distance = word_distance(f->word);
    struct idem_a64 *header = &v->buckets[bucket_before(v, b, distance)].header;
    uint64_t h = load_acquire(header); /* P2 acquire: does it name the slot? */
    for (unsigned tries = 0; tries < FREE_TRIES; tries++) {
        if (!header_pending(h) || header_distance(h) != distance || header_slot(h) != f->place % 8)
            return true;
        /* P1 acquire: if we slept it may have been freed meanwhile, and the header names another claim, which is not final yet */
        if (load_acquire(f->slot) != f->word && !IDEM_FAULT("free.unlooked"))
            return false;
        uint64_t next = header_make(header_version(h) + 1, header_reach(h), false, 0, 0) | (h & HEADER_FROZEN);
        if (cas_acq_rel(header, &h, next)) { /* P2 release: the slot is final */
            IDEM_POINT("free.unnamed");
            return true;
        }
    }
    return false;
}

/* Invariant 5. Raised as far as this moment allows, so that it is written about once a tick, however many slots are freed. relaxed: the
   slot's CAS comes after it, and releases it. */
static void raise_freed(struct idem_view *v, uint64_t token, int64_t now_ms)
{
    struct idem_a64 *freed = &v->generation->freed_ms;
    uint64_t seen = load_relaxed(freed); /* relaxed: as above */
    if (IDEM_FAULT("free.unsaid"))
        return;
    while (seen < token >> 16 && !cas_relaxed(freed, &seen, (uint64_t)now_ms - 1))
        ; /* it only grows, and not for long: whoever was faster has raised it, too */
    IDEM_POINT("free.raised");
}

bool idem_index_free(struct idem_ctx *ctx, struct idem_found *f, int64_t now_ms)
{
    if (!word_final(f->word))
        return false;
    if (f->entry.token >= (uint64_t)now_ms << 16 && !IDEM_FAULT("free.young")) { /* invariant 5 */
        if (f->entry.token >> 16 == (uint64_t)now_ms)
            store_relaxed(&ctx->v->young_ms, (uint64_t)now_ms); /* relaxed: a hint for idem_make_room() */
        return false;
    }
    /* What was forgotten comes back after a crash unless that is on the disk; and its reference names these bytes. */
    if (word_state(f->word) == WORD_FORGOTTEN && ctx->v->rings != NULL &&
        !idem_log_word_durable(ctx->v->root->log_control, load_acquire(&f->entry.at[4]), /* P12 acquire: the record */
                               WORD_FORGOTTEN))
        return false;
    if (!IDEM_FAULT("free.pending") && !unname(ctx, f))
        return false;
    raise_freed(ctx->v, f->entry.token, now_ms);
    if (!change(f, 0))
        return false;
    IDEM_POINT("free.freed");
    idem_arena_emptied(ctx, word_unit(f->word));
    idem_count(ctx, COUNT_SWEPT_ENTRIES);
    return true;
}

/* A free slot within the key's range: seen by the scan, or further on, or by freeing one whose record is gone
   (or, where the store evicts, complete). */
static bool find_free(struct idem_ctx *ctx, const struct idem_gap *gap, int64_t now_ms, uint64_t *bucket,
                      unsigned *slot, unsigned *distance)
{
    struct idem_view *v = ctx->v;
    bool evict = v->fixed.when_full == IDEM_FULL_EVICT || IDEM_FAULT("full.evicts");
    for (unsigned d = 0; d <= IDEM_DISTANCE_MAX; d++) {
        uint64_t b = bucket_after(v, gap->home, d);
        for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++)
            if (load_relaxed(&v->buckets[b].slots[s]) == 0) { /* relaxed: a hint, the CAS decides */
                *bucket = b;
                *slot = s;
                *distance = d;
                return true;
            }
    }
    for (unsigned d = 0; d <= IDEM_DISTANCE_MAX; d++) {
        uint64_t b = bucket_after(v, gap->home, d);
        for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++) {
            struct idem_found f = {.slot = &v->buckets[b].slots[s], .place = b * 8 + s};
            f.word = load_acquire(f.slot); /* P1 acquire: the entry's bytes */
            if (!word_final(f.word) || !idem_index_hold(ctx, &f) || !idem_entry_load(v, f.word, &f.entry))
                continue;
            bool gone = idem_index_gone(&f, now_ms);
            if ((!gone && (!evict || word_state(f.word) != WORD_COMPLETED)) || !idem_index_free(ctx, &f, now_ms))
                continue;
            if (!gone)
                idem_count(ctx, COUNT_EVICTED);
            *bucket = b;
            *slot = s;
            *distance = d;
            return true;
        }
    }
    return false;
}

int idem_index_insert(struct idem_ctx *ctx, const struct idem_index_key *key, const struct idem_gap *gap,
                      const struct idem_space *space, int64_t now_ms, uint64_t *place)
{
    struct idem_view *v = ctx->v;
    struct idem_a64 *header = &v->buckets[gap->home].header;
    uint64_t bucket = gap->bucket;
    unsigned slot = gap->slot, distance = gap->free_distance;
    uint64_t w;
    if (gap->header & HEADER_FROZEN)
        return idem_fail(IDEM_E_CORRUPT, "generation: bucket %llu is frozen, which this version never does",
                         (unsigned long long)gap->home);
    for (unsigned tries = 0;; tries++) {
        if (distance > IDEM_DISTANCE_MAX || tries > 0)
            if (tries >= FREE_TRIES || !find_free(ctx, gap, now_ms, &bucket, &slot, &distance))
                return idem_fail(IDEM_E_FULL,
                                 "no free slot within %u buckets of this key's; create the store for more keys",
                                 IDEM_DISTANCE_MAX + 1);
        w = word_make(WORD_TENTATIVE, distance, idem_tag_of(key->hash), space->unit, space->generation);
        uint64_t none = 0;
        if (cas_acq_rel(&v->buckets[bucket].slots[slot], &none, w)) /* P1 release: the entry's bytes */
            break;
    }
    IDEM_POINT("claim.reserved");
    struct idem_a64 *at = &v->buckets[bucket].slots[slot];
    uint64_t h = gap->header, mine = w;
    unsigned reach = header_reach(h) > distance ? header_reach(h) : distance;
    uint64_t next = header_make(header_version(h) + 1, reach, true, distance, slot);
    if (!cas_acq_rel(header, &h, next) && !IDEM_FAULT("claim.blind")) { /* P2 release: the reserved slot */
        cas_acq_rel(at, &mine,
                    0); /* P1 release: nothing of it was seen; it is still ours, nobody clears a living writer's */
        IDEM_POINT("claim.given_back");
        return 0;
    }
    IDEM_POINT("claim.published");
    /* P1 release: invariant 6, a failure is somebody's help */
    cas_acq_rel(at, &mine, word_with_state(w, WORD_IN_PROGRESS));
    IDEM_POINT("claim.finished");
    *place = bucket * 8 + slot;
    return 1;
}
