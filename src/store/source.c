/*
 * store/source.c - what the log's leader asks of a store: lanes and their rings, the record of a reference, the next entry of a walk.
 *
 * Owns: struct idem_log_source; what an entry and its slot's state become in the log. Runs outside of read sections, in a view that is pinned;
 * a region is kept by the compare hazard of this thread's lane, until an entry in another one is wanted, or leave() at the end of a
 * handful of entries.
 * relaxed-in-this-file: entry bytes, as in arena/entry.c; they are held, and the region's state is loaded again after the copy (P3).
 *
 * If we die here: nothing was changed but a log word, which is true by then.
 */
#include "store/source.h"

#include <string.h>

#include "index/bucket.h"
#include "segment/push.h"
#include "store/handle.h"

/* ------------------------------------------------------------------ lanes */

static int ready(void *ctx)
{
    struct idem_view *v = ctx;
    struct idem_ctx c;
    if (idem_view_lost(v)) /* others take us for dead: our hazards do not count */
        return idem_fail(IDEM_E_LOG, "this process lost its place in the store; the next call takes a new one");
    return idem_lane_enter(v, &c);
}

static uint32_t lanes(void *ctx)
{
    const struct idem_view *v = ctx;
    uint64_t high = load_seq_cst(&v->root->lanes_high); /* P4 seq_cst: as the sweep's look at hazards */
    return high < v->fixed.lanes_max ? (uint32_t)high : v->fixed.lanes_max;
}

static void lane(void *ctx, uint32_t i, struct idem_ring *ring)
{
    const struct idem_view *v = ctx;
    *ring = idem_lane_ring(v, &v->lanes[i]);
}

static enum idem_lane_life life(void *ctx, uint32_t i)
{
    const struct idem_view *v = ctx;
    const struct idem_lane_shm *l = &v->lanes[i];
    /* P11 acquire: what a cleared hazard covered is pushed */
    if (load_acquire(&l->hazard_write) == 0 && load_acquire(&l->hazard_compare) == 0) /* P11 acquire: as above */
        return LANE_LIVES;
    uint64_t owner = load_acquire(&l->owner); /* P8 acquire: who set it, or somebody later */
    return owner == 0 || idem_process_dead(&v->process, owner) ? LANE_DIRTY : LANE_BUSY;
}

/* ------------------------------------------------------------------ records */

#define FETCH_BYTES 256u /* as much of an entry as is fetched ahead */

/* This thread's lane, as a rule the one it used last. */
static bool enter(struct idem_view *v, struct idem_ctx *c)
{
    return likely(idem_lane_enter_last(v, c)) || idem_lane_enter(v, c) == IDEM_OK;
}

/* Holds the region that w names, until another one is held, or leave(). False: it was recycled, or is about to be: no slot names it any more. */
static bool hold(struct idem_ctx *c, uint64_t w)
{
    const struct idem_view *v = c->v;
    if (word_region(v, w) >= v->region_count)
        return false;
    /* relaxed: our own; many entries in a row lie in one region */
    if (load_relaxed(&c->lane->hazard_compare) != (uint64_t)word_region(v, w) + 1)
        idem_hazard_compare(c, w);
    uint64_t state =
        load_seq_cst(&v->regions[word_region(v, w)].state); /* P4 seq_cst: hazard, then state; P5 acquire */
    return region_generation(state) == word_generation(w) && region_phase(state) != REGION_FREE &&
           region_phase(state) != REGION_RETIRING;
}

/* After the copy: was it the same life to the end? (A host that closes our descriptors looks dead, and its hazards do not count.) */
static bool still_held(const struct idem_view *v, uint64_t w)
{
    fence_acquire(); /* P3 acquire: all that was copied before the state is loaded */
    return region_generation(load_relaxed(&v->regions[word_region(v, w)].state)) == word_generation(w);
}

static int64_t log_time(int64_t expiry_ms)
{
    return expiry_ms < ENTRY_TIME_MAX ? expiry_ms : ENTRY_TIME_MAX;
}

/* A rescued completion, or what was forgotten: no more than its end. */
static void record_rescued(const struct idem_entry *e, struct idem_rec *r)
{
    struct idem_rescue saved;
    idem_entry_load_rescue(e, &saved);
    r->kind = REC_TOMBSTONE;
    r->status = saved.status;
    r->meta_bytes = saved.meta_bytes;
    r->body_bytes = saved.body_bytes;
    r->digest = saved.digest;
    r->extra = (uint16_t)saved.user_flags;
    r->expiry_ms = log_time(saved.expiry_ms);
    r->at_ms = e->at_ms + saved.took_ms;
    r->flags |= REC_SYNC; /* nobody knows how it was asked for: not given out before it is durable */
}

static void record_forgotten(const struct idem_entry *e, struct idem_rec *r)
{
    r->kind = REC_FORGOTTEN;
    r->extra = 0;
    r->attempt = 0;
    if (e->kind == ENTRY_CLAIM) { /* it may have been a rescued answer, which stays longer */
        struct idem_rescue saved;
        idem_entry_load_rescue(e, &saved);
        if (r->expiry_ms < saved.expiry_ms)
            r->expiry_ms = log_time(saved.expiry_ms);
    }
}

uint64_t idem_source_room(const struct idem_entry *e)
{
    bool marked = e->kind == ENTRY_CLAIM || e->kind == ENTRY_TRANSIENT;
    return e->key_bytes + (marked ? e->mark_bytes : idem_entry_answer_bytes(e));
}

void idem_source_record(const struct idem_entry *e, unsigned state, uint8_t *scratch, struct idem_rec *r)
{
    uint8_t *more = scratch + e->key_bytes;
    *r = (struct idem_rec){
        .state = (uint8_t)state, /* the numbers are the same, see below */
        .flags = (uint16_t)e->flags,
        .token = e->token,
        .fingerprint = e->fingerprint,
        .expiry_ms = log_time(e->expiry_ms),
        .extra = (uint16_t)e->extra,
        .at_ms = e->at_ms,
        .attempt = (uint16_t)e->attempt,
        .key = scratch,
        .key_bytes = (uint16_t)e->key_bytes,
        .scope_bytes = (uint16_t)e->scope_bytes,
    };
    idem_copy_out(scratch, idem_entry_key(e), e->key_bytes);
    if (state == WORD_FORGOTTEN) {
        record_forgotten(e, r);
    } else if (state == WORD_COMPLETED && e->kind == ENTRY_CLAIM) {
        record_rescued(e, r);
    } else if (e->kind == ENTRY_CLAIM || e->kind == ENTRY_TRANSIENT) {
        r->kind = REC_CLAIM;
        r->extra = e->kind == ENTRY_CLAIM ? r->extra : 0; /* a transient answer has the caller's flags there */
        r->lease_end_ms = e->lease_end_ms;
        r->lost_token = e->lost_token;
        r->mark_bytes = e->mark_bytes;
        r->mark = more;
        idem_copy_out(more, idem_entry_mark(e), e->mark_bytes);
    } else if (e->kind == ENTRY_RESPONSE) {
        r->kind = REC_RESPONSE;
        r->status = e->status;
        r->meta = more;
        r->meta_bytes = e->meta_bytes;
        r->body = more + e->meta_bytes;
        r->body_bytes = e->body_bytes;
        idem_copy_out(more, idem_entry_answer(e), (size_t)idem_entry_answer_bytes(e));
    } else {
        uint64_t outcome[3];
        idem_copy_out(outcome, idem_entry_answer(e), sizeof outcome);
        r->kind = REC_TOMBSTONE;
        r->status = e->status;
        r->meta_bytes = outcome[0];
        r->body_bytes = outcome[1];
        r->digest = outcome[2];
    }
}
_Static_assert((int)WORD_IN_PROGRESS == REC_IN_PROGRESS && (int)WORD_COMPLETED == REC_COMPLETED &&
                   (int)WORD_ABANDONED == REC_ABANDONED && (int)WORD_DECLARED == REC_DECLARED &&
                   (int)WORD_RELEASED == REC_RELEASED && (int)WORD_RERUN == REC_RERUN &&
                   (int)WORD_FORGOTTEN == REC_GONE,
               "a slot's state is a record's");
_Static_assert(ENTRY_HOLD == REC_HOLD && ENTRY_LEASE_ONLY == REC_LEASE_ONLY && ENTRY_LOST_BEFORE == REC_LOST_BEFORE &&
                   ENTRY_SYNC == REC_SYNC,
               "an entry's flags are a record's");

/* The log word says that this state, or one that comes after it, is on the disk. */
static bool on_disk(const struct idem_view *v, uint64_t word, unsigned state)
{
    return (word & LOG_WORD_LOGGED) != 0 && idem_rec_phase(word & 7) >= idem_rec_phase((uint8_t)state) &&
           idem_log_word_durable(v->root->log_control, word, (unsigned)(word & 7));
}

/* w is held: the entry's own record. */
static enum idem_taken take_held(struct idem_ctx *c, uint64_t w, const struct idem_entry *e, struct idem_take *t)
{
    uint64_t seen = load_acquire(&e->at[4]); /* P12 acquire: who superseded it had pushed */
    unsigned state = word_state(w);
    if (on_disk(c->v, seen, state) && log_word_position(seen) >= t->cut)
        return TAKEN_NOTHING;
    t->need = idem_source_room(e);
    if (t->need > t->room)
        return TAKEN_TOO_BIG;
    idem_source_record(e, state, t->scratch, &t->rec);
    if (!still_held(c->v, w))
        return TAKEN_DROPPED;
    t->note[0] = w;
    t->note[1] = seen;
    return TAKEN_RECORD;
}

/* What the key's slot says now. */
static enum idem_taken take_key(struct idem_ctx *c, const struct idem_index_key *key, struct idem_take *t)
{
    for (unsigned tries = 0; tries < 1000; tries++) {
        struct idem_found f;
        int r = idem_index_find(c, key, &f, NULL);
        if (r !=
            FIND_PRESENT) /* freed: it has expired, or its forgetting is on the disk; or damaged, and idem verify tells */
            return TAKEN_NOTHING;
        if (idem_index_hold(c, &f))
            return take_held(c, f.word & ~WORD_WAITERS, &f.entry, t);
    }
    return TAKEN_NOTHING;
}

static enum idem_taken take_in(struct idem_ctx *c, uint64_t ref, struct idem_take *t)
{
    struct idem_view *v = c->v;
    uint64_t w = ref & REF_MASK;
    struct idem_entry e;
    /* Before all else, without a hold: what lies there may be another life's, but then it is dropped, too. */
    if (!t->strict && word_unit(w) + 3 <= v->arena_units &&
        load_acquire(&v->arena[word_unit(w) * 2 + 4]) == LOG_WORD_SUPERSEDED) /* P12 acquire: as below */
        return TAKEN_DROPPED;
    if (!hold(c, w) || !idem_entry_load(v, w, &e))
        return TAKEN_DROPPED;
    bool superseded = load_acquire(&e.at[4]) == LOG_WORD_SUPERSEDED; /* P12 acquire: what came after it is pushed */
    if (superseded && !t->strict)
        return TAKEN_DROPPED;
    if (word_state(w) == WORD_COMPLETED && !t->careful && !superseded)
        return take_held(c, w, &e, t);
    if (e.kind == ENTRY_CLAIM && idem_index_names(v, e.hash, w)) /* as a rule; then its key needs no looking up */
        return take_held(c, w, &e, t);
    uint8_t framed[IDEM_KEY_MAX];
    struct idem_index_key key = {.framed = framed, .key_bytes = e.key_bytes, .scope_bytes = e.scope_bytes};
    idem_index_copy_key(&e, framed);
    if (!still_held(v, w))
        return TAKEN_DROPPED;
    key.hash = idem_hash_key(v->fixed.secret, framed, key.key_bytes, key.scope_bytes);
    return take_key(c, &key, t);
}

static enum idem_taken take(void *ctx, uint64_t ref, struct idem_take *t)
{
    struct idem_ctx c;
    if (!enter(ctx, &c)) /* asked before the batch; a lane that was lost since: the batch is not whole */
        return TAKEN_DROPPED;
    return take_in(&c, ref, t);
}

static void leave(void *ctx)
{
    struct idem_ctx c;
    if (enter(ctx, &c))
        idem_arena_leave(&c);
}

/* What take() and note() will want. What is prefetched need not be there any more, nor be what it was. */
static void fetch(void *ctx, uint64_t ref, enum idem_fetch what)
{
    const struct idem_view *v = ctx;
    uint64_t unit = word_unit(ref);
    if (unit + FETCH_BYTES / IDEM_UNIT_BYTES > v->arena_units)
        return;
    const struct idem_a64 *at = v->arena + unit * 2;
    if (what == FETCH_HEAD) {
        prefetch_write(at);
    } else if (load_relaxed(&at[4]) != LOG_WORD_SUPERSEDED) { /* relaxed: a guess */
        for (unsigned i = 64; i < FETCH_BYTES; i += 64)
            prefetch(&at[i / sizeof *at]);
        if (word_state(ref) != WORD_COMPLETED)
            idem_index_prefetch(v, load_relaxed(&at[6])); /* relaxed: a hash, or anything */
    }
}

static void note(void *ctx, const uint64_t note_of[2], uint64_t position)
{
    struct idem_view *v = ctx;
    struct idem_ctx c;
    uint64_t seen = note_of[1];
    if (!enter(v, &c) || !hold(&c, note_of[0]))
        return;
    struct idem_a64 *at = v->arena + word_unit(note_of[0]) * 2;
    cas_acq_rel(&at[4], &seen, log_word(position, word_state(note_of[0]))); /* P12 release: it is durable */
}

/* ------------------------------------------------------------------ walking */

#define WALK_AHEAD 4u /* buckets whose entries are asked for before they are looked at */

/* A store has as many slots again as keys, and a walk is often for a few of them. relaxed: a slot that was published before the walk was asked for is seen
   (P12); for any other somebody else answers. */
static bool empty(const struct idem_bucket_shm *b)
{
    uint64_t any = 0;
    for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++)
        any |= load_relaxed(&b->slots[s]); /* relaxed: as above */
    return any == 0;
}

static void fetch_entries(const struct idem_view *v, uint64_t bucket)
{
    if (bucket >= v->bucket_count)
        return;
    for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++) {
        uint64_t unit =
            word_unit(load_relaxed(&v->buckets[bucket].slots[s])); /* relaxed: only to know what to prefetch */
        if (unit != 0 && unit < v->arena_units)
            prefetch(v->arena + unit * 2);
    }
}

static bool walk(void *ctx, uint64_t *cursor, uint64_t cut, uint32_t budget, uint64_t *ref, uint64_t *live_bytes)
{
    struct idem_view *v = ctx;
    uint64_t end = v->bucket_count * 8, at = *cursor, most = end - at < budget * 8 ? end : at + budget * 8;
    int64_t now_ms = idem_view_now_ms(v);
    *ref = 0;
    for (; at < most; at++) {
        if (at % 8 == 0) {
            fetch_entries(v, at / 8 + WALK_AHEAD);
            if (empty(&v->buckets[at / 8])) {
                at += 7;
                continue;
            }
        }
        if (at % 8 >= IDEM_BUCKET_SLOTS)
            continue;
        struct idem_found f = {.slot = &v->buckets[at / 8].slots[at % 8], .place = at};
        for (unsigned tries = 0; tries < 100; tries++) {
            f.word = load_acquire(f.slot); /* P1 acquire: the entry's bytes */
            if (!word_final(f.word) || !idem_entry_load(v, f.word, &f.entry))
                break;
            uint64_t seen = load_relaxed(&f.entry.at[4]);
            bool gone = word_state(f.word) != WORD_FORGOTTEN && idem_index_gone(&f, now_ms);
            if (!idem_index_unchanged(&f))
                continue;
            if (gone)
                break;
            *live_bytes += idem_wal_padded(IDEM_WAL_FIXED_BYTES + f.entry.key_bytes + f.entry.mark_bytes +
                                           idem_entry_answer_bytes(&f.entry));
            if (on_disk(v, seen, word_state(f.word)) && log_word_position(seen) >= cut)
                break;
            *ref = ref_of_word(f.word, false);
            *cursor = at + 1;
            return true;
        }
    }
    *cursor = at;
    return at < end;
}

static void now(void *ctx, int64_t *store_ms, int64_t *wall_ms)
{
    *store_ms = idem_view_now_ms(ctx);
    *wall_ms = idem_clock_wall_ms();
}

struct idem_log_source idem_source_of(struct idem_view *v)
{
    return (struct idem_log_source){v, ready, lanes, lane, life, take, fetch, note, leave, walk, now};
}
