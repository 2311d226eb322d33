/*
 * recover/replay.c - see replay.h.
 * relaxed-in-this-file: nobody else has the store open; it is published by the root's rename.
 */
#include "recover/replay.h"

#include <string.h>

#include "base/error.h"
#include "base/point.h"
#include "index/alone.h"
#include "store/source.h"

#define ROOM_TRIES   64u
#define SETTLE_AHEAD 4u /* buckets */
#define SETTLE_FAR   32u
#define MAKE_ROOM_US 20000
#define LEASE_AT     12u /* rescue words are free while nobody completes: the lease as recorded, until all is settled */
#define DENIED_AT    2u  /* nobody asks for a forgotten key's fingerprint: the state of the record that denied it */
#define FLAGS        (REC_HOLD | REC_LEASE_ONLY | REC_LOST_BEFORE | 7u << REC_REASON_SHIFT | REC_SYNC)

_Static_assert(REC_HOLD == ENTRY_HOLD && REC_LEASE_ONLY == ENTRY_LEASE_ONLY && REC_LOST_BEFORE == ENTRY_LOST_BEFORE &&
                   FLAGS == 0x7f,
               "flags are the same in file and memory");
_Static_assert((int)REC_IN_PROGRESS == (int)WORD_IN_PROGRESS && (int)REC_COMPLETED == (int)WORD_COMPLETED &&
                   (int)REC_ABANDONED == (int)WORD_ABANDONED && (int)REC_DECLARED == (int)WORD_DECLARED &&
                   (int)REC_RELEASED == (int)WORD_RELEASED && (int)REC_RERUN == (int)WORD_RERUN &&
                   (int)REC_GONE == (int)WORD_FORGOTTEN,
               "states are the same in file and memory");

int idem_replay_begin(struct idem_replay *p, struct idem_view *v, int64_t now_ms, uint64_t proven)
{
    memset(&p->ctx, 0, sizeof p->ctx);
    p->now_ms = now_ms;
    p->proven = proven;
    p->keys = p->expired = p->forgotten = 0;
    p->first = p->waiting = 0;
    return idem_lane_enter(v, &p->ctx);
}

static bool expired(const struct idem_replay *p, int64_t expiry_ms)
{
    return (expiry_ms < ENTRY_TIME_MAX && expiry_ms <= p->now_ms) || IDEM_FAULT("replay.expired_all");
}

/* > 0: the record holds, not the entry. */
static int order(const struct idem_rec *r, const struct idem_found *f)
{
    const struct idem_entry *e = &f->entry;
    struct idem_rec there;
    zero_small(&there, sizeof there);
    there.kind = e->kind == ENTRY_CLAIM ? REC_CLAIM : REC_RESPONSE; /* nothing is rescued here */
    there.state = (uint8_t)word_state(f->word);
    if (there.state == WORD_FORGOTTEN && !IDEM_FAULT("replay.final"))
        there.state = (uint8_t)(load_relaxed(&e->at[DENIED_AT]) & 7);
    there.token = e->token;
    there.extra = (uint16_t)e->extra;
    there.lease_end_ms = e->kind == ENTRY_CLAIM ? (int64_t)load_relaxed(&e->at[LEASE_AT]) : 0;
    there.position = log_word_position(load_relaxed(&e->at[4]));
    return idem_rec_order(r, &there);
}

/*
 * The record denies what is there: the slot stays, forgotten, with the record's token, so that nothing older comes back. One that has expired denies
 * what is before it, but not what comes after it: an answer may live longer than the claim that it answers. So its state is kept, where a sweep
 * that moves the entry takes it along: not in the log word.
 */
static void deny(struct idem_replay *p, const struct idem_rec *r, struct idem_found *f)
{
    store_relaxed(&f->entry.at[1], r->token);
    store_relaxed(&f->entry.at[DENIED_AT], r->state);
    store_relaxed(&f->entry.at[4], 0);
    if (word_state(f->word) != WORD_FORGOTTEN && idem_index_hold(&p->ctx, f))
        idem_index_set_state(f, WORD_FORGOTTEN);
}

static void entry_of(const struct idem_rec *r, uint64_t hash, int64_t now_ms, struct idem_entry *e, uint64_t outcome[3])
{
    zero_small(e, sizeof *e);
    e->key_bytes = r->key_bytes;
    e->scope_bytes = r->scope_bytes;
    e->flags = r->flags & FLAGS;
    e->token = r->token;
    e->fingerprint = r->fingerprint;
    e->expiry_ms = r->expiry_ms < ENTRY_TIME_MAX ? r->expiry_ms : ENTRY_TIME_MAX;
    e->extra = r->extra;
    e->at_ms = r->at_ms;
    e->attempt = r->attempt;
    if (r->kind == REC_CLAIM) {
        e->kind = ENTRY_CLAIM;
        e->flags &= ~(uint32_t)ENTRY_LEASE_ONLY;
        e->mark_bytes = r->mark_bytes;
        e->hash = hash;
        e->owner = IDEM_OWNER_CRASHED;
        e->lease_end_ms = r->lease_end_ms < now_ms || IDEM_FAULT("replay.lease") ? r->lease_end_ms : now_ms;
        e->lost_token = r->lost_token;
    } else {
        e->status = r->status;
        e->kind = r->kind == REC_RESPONSE ? ENTRY_RESPONSE : ENTRY_TOMBSTONE;
        e->meta_bytes = r->kind == REC_RESPONSE ? (uint32_t)r->meta_bytes : 0;
        e->body_bytes = r->kind == REC_RESPONSE ? (uint32_t)r->body_bytes : 24;
        outcome[0] = r->meta_bytes;
        outcome[1] = r->body_bytes;
        outcome[2] = r->digest;
    }
}

/* There is no free slot where the scan looked: the ordinary way, which looks further and frees what is gone. */
static int insert_far(struct idem_replay *p, const struct idem_rec *r, uint64_t hash, struct idem_found *f,
                      const struct idem_gap *gap, const struct idem_space *space)
{
    struct idem_ctx *ctx = &p->ctx;
    struct idem_index_key key = {r->key, r->key_bytes, r->scope_bytes, hash};
    int n = idem_index_insert(ctx, &key, gap, space, p->now_ms, &f->place);
    if (n != 1) {
        idem_arena_emptied(ctx, space->unit);
        return n == 0 ? idem_fail(IDEM_E_CORRUPT, "a bucket changed in a store that nobody else has") : n;
    }
    if (r->state == WORD_IN_PROGRESS)
        return IDEM_OK;
    /* An insertion makes a claim. Nobody looks at it before it is what it should be. */
    f->slot = &ctx->v->buckets[f->place / 8].slots[f->place % 8];
    f->word = load_relaxed(f->slot);
    return idem_index_set_state(f, r->state) ? IDEM_OK : idem_fail(IDEM_E_CORRUPT, "a new slot changed");
}

static int place(struct idem_replay *p, const struct idem_rec *r, uint64_t hash, struct idem_found *f,
                 const struct idem_gap *gap, bool there)
{
    struct idem_ctx *ctx = &p->ctx;
    struct idem_entry e;
    uint64_t outcome[3] = {0, 0, 0};
    struct idem_space space;
    entry_of(r, hash, p->now_ms, &e, outcome);
    bool body = e.kind == ENTRY_RESPONSE;
    uint64_t bytes = idem_entry_bytes(e.kind, e.key_bytes, idem_entry_answer_bytes(&e), e.mark_bytes);
    if (bytes > idem_arena_entry_max(ctx->v) || e.mark_bytes > IDEM_MARK_MAX)
        return idem_fail(
            IDEM_E_FULL,
            "log position %llu: a record of %llu bytes, but a region of this store has %llu; create it for "
            "a larger response",
            (unsigned long long)r->position, (unsigned long long)bytes,
            (unsigned long long)idem_arena_entry_max(ctx->v));
    unsigned klass = e.expiry_ms >= ENTRY_TIME_MAX ? CLASS_NEVER : idem_class_of(e.expiry_ms - p->now_ms);
    int64_t until_ms = e.expiry_ms;
    if (r->state == WORD_IN_PROGRESS) { /* most of these are replaced soon: the sweep moves those that stay */
        klass = CLASS_CLAIMS;
        until_ms = p->now_ms;
    }
    if (idem_arena_reserve(ctx, klass, FOR_ANSWER, bytes, until_ms, p->now_ms, &space) != IDEM_OK)
        return IDEM_E_FULL;
    (void)load_relaxed(
        space.at); /* where nothing is mapped yet: reading maps the pages around, too, writing this one alone */
    idem_entry_store(space.at, &e, r->key, body ? r->meta : NULL, body ? (const void *)r->body : outcome, r->mark);
    if (e.kind == ENTRY_CLAIM)
        store_relaxed(&space.at[LEASE_AT], (uint64_t)r->lease_end_ms);
    store_relaxed(&space.at[4],
                  r->position < p->proven || IDEM_FAULT("replay.unproven") ? log_word(r->position, r->state) : 0);
    if (there) {
        idem_alone_replace(ctx, f, r->state, &space);
        return IDEM_OK;
    }
    int placed =
        idem_alone_insert(ctx->v, hash, gap, r->state, &space) ? IDEM_OK : insert_far(p, r, hash, f, gap, &space);
    if (placed == IDEM_OK)
        p->keys++;
    return placed;
}

static int apply_once(struct idem_replay *p, const struct idem_rec *r, uint64_t hash)
{
    struct idem_index_key key = {r->key, r->key_bytes, r->scope_bytes, hash};
    struct idem_found f;
    struct idem_gap gap;
    int e = idem_index_find(&p->ctx, &key, &f, &gap);
    if (e < 0)
        return e;
    if (e == FIND_PRESENT && order(r, &f) <= 0 && !IDEM_FAULT("replay.order"))
        return IDEM_OK;
    bool late = expired(p, r->expiry_ms) && !IDEM_FAULT("replay.expired");
    if (late || r->kind == REC_FORGOTTEN) {
        if (r->kind == REC_FORGOTTEN)
            p->forgotten++;
        else
            p->expired++;
        if (e == FIND_PRESENT && !IDEM_FAULT("replay.denial"))
            deny(p, r, &f);
        return IDEM_OK;
    }
    return place(p, r, hash, &f, &gap, e == FIND_PRESENT);
}

/* What was replaced leaves its region to a sweep, as ever. The hazards stay set from record to record: nobody minds them but a sweep of ours. */
static int apply(struct idem_replay *p, const struct idem_rec *r, uint64_t hash)
{
    int e = apply_once(p, r, hash);
    for (unsigned tries = 0; e == IDEM_E_FULL && tries < ROOM_TRIES && !IDEM_FAULT("replay.no_room"); tries++) {
        idem_arena_leave(&p->ctx);
        uint64_t before = load_relaxed(&p->ctx.lane->counters[COUNT_SWEPT_REGIONS]);
        bool more = idem_sweep(&p->ctx, MAKE_ROOM_US, 2);
        bool helped = load_relaxed(&p->ctx.lane->counters[COUNT_SWEPT_REGIONS]) != before;
        e = apply_once(p, r, hash);
        if (!more && !helped)
            break;
    }
    if (e == IDEM_E_FULL)
        return idem_fail(e,
                         "the store is too small for its log: %llu keys are placed and there is no room for the record "
                         "at position %llu",
                         (unsigned long long)p->keys, (unsigned long long)r->position);
    return e;
}

static void prefetch_entry(const struct idem_view *v, uint64_t w)
{
    if (w == 0 || word_unit(w) >= v->arena_units)
        return;
    prefetch(v->arena + word_unit(w) * 2);
    prefetch(v->arena + word_unit(w) * 2 + 8);
}

static void prefetch_entries(const struct idem_view *v, uint64_t hash)
{
    const struct idem_bucket_shm *b = &v->buckets[idem_home_of(v, hash)];
    for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++) {
        uint64_t w = load_relaxed(&b->slots[s]);
        if (word_tag(w) == idem_tag_of(hash))
            prefetch_entry(v, w);
    }
}

static int apply_first(struct idem_replay *p)
{
    unsigned i = p->first;
    p->first = (p->first + 1) % REPLAY_AHEAD;
    p->waiting--;
    return apply(p, &p->ahead[i].rec, p->ahead[i].hash);
}

static int flush(struct idem_replay *p)
{
    int e = IDEM_OK;
    while (p->waiting > 0 && e == IDEM_OK)
        e = apply_first(p);
    return e;
}

static const uint8_t *keep(uint8_t **at, const uint8_t *from, uint64_t n)
{
    const uint8_t *to = *at;
    if (n == 0)
        return NULL;
    memcpy(*at, from, n);
    *at += n;
    return to;
}

int idem_replay_add(struct idem_replay *p, const struct idem_rec *r)
{
    struct idem_view *v = p->ctx.v;
    if (r->kind != REC_CLAIM && r->kind != REC_RESPONSE && r->kind != REC_TOMBSTONE && r->kind != REC_FORGOTTEN)
        return IDEM_OK;
    uint64_t hash = idem_hash_key(v->fixed.secret, r->key, r->key_bytes, r->scope_bytes);
    bool body = r->kind == REC_RESPONSE;
    uint64_t bytes = r->key_bytes + (uint64_t)r->mark_bytes + (body ? r->meta_bytes + r->body_bytes : 0);
    if (bytes > REPLAY_BYTES) {
        int e = flush(p);
        return e == IDEM_OK ? apply(p, r, hash) : e;
    }
    if (p->waiting == REPLAY_AHEAD) {
        int e = apply_first(p);
        if (e != IDEM_OK)
            return e;
    }
    unsigned i = (p->first + p->waiting) % REPLAY_AHEAD;
    uint8_t *at = p->ahead[i].bytes;
    struct idem_rec *copy = &p->ahead[i].rec;
    *copy = *r;
    copy->key = keep(&at, r->key, r->key_bytes);
    copy->mark = keep(&at, r->mark, r->mark_bytes);
    copy->meta = body ? keep(&at, r->meta, r->meta_bytes) : NULL;
    copy->body = body ? keep(&at, r->body, r->body_bytes) : NULL;
    p->ahead[i].hash = hash;
    p->waiting++;
    prefetch_write(&v->buckets[idem_home_of(v, hash)]);
    if (p->waiting > REPLAY_AHEAD / 2)
        prefetch_entries(v, p->ahead[(p->first + p->waiting - REPLAY_AHEAD / 2) % REPLAY_AHEAD].hash);
    return IDEM_OK;
}

/* ------------------------------------------------------------------ the end */

/* A slot of this bucket that is no answer. */
static void settle_slot(struct idem_replay *p, uint64_t bucket, unsigned slot, idem_recovery *out)
{
    struct idem_view *v = p->ctx.v;
    struct idem_found f;
    f.slot = &v->buckets[bucket].slots[slot];
    f.place = bucket * 8 + slot;
    f.word = load_relaxed(f.slot);
    unsigned state = word_state(f.word);
    if (!idem_entry_load(v, f.word, &f.entry))
        return;
    if (state == WORD_FORGOTTEN) {
        if (idem_index_hold(&p->ctx, &f) && idem_index_free(&p->ctx, &f, p->now_ms))
            p->keys--;
        idem_arena_leave(&p->ctx);
        return;
    }
    if (f.entry.kind == ENTRY_CLAIM)
        store_relaxed(&f.entry.at[LEASE_AT], 0);
    if (state == WORD_ABANDONED || state == WORD_RERUN)
        out->abandoned++;
    else
        out->lost++;
}

/* Which of a bucket's slots hold something that is no answer, a bit each. Answers are only counted: no record of a claim says "completed", so none
   has its lease anywhere, and their bytes need not be fetched. Without a branch: half of all slots are free, and nobody can guess which. */
static unsigned unanswered(const struct idem_bucket_shm *b, uint64_t *completed)
{
    unsigned others = 0;
    for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++) {
        unsigned state = word_state(load_relaxed(&b->slots[s]));
        *completed += state == WORD_COMPLETED;
        others |= (unsigned)(state != WORD_COMPLETED && state != WORD_TENTATIVE) << s;
    }
    return others;
}

int idem_replay_settle(struct idem_replay *p, idem_recovery *out)
{
    struct idem_view *v = p->ctx.v;
    int e = flush(p);
    idem_arena_leave(&p->ctx);
    if (e != IDEM_OK)
        return e;
    out->completed = out->lost = out->abandoned = 0;
    for (uint64_t b = 0; b < v->bucket_count; b++) {
        if (b + SETTLE_FAR < v->bucket_count) /* these lie in a row, but not beyond their page for the processor */
            prefetch(&v->buckets[b + SETTLE_FAR]);
        uint64_t seen = 0;
        if (b + SETTLE_AHEAD < v->bucket_count)
            for (unsigned o = unanswered(&v->buckets[b + SETTLE_AHEAD], &seen); o != 0; o &= o - 1)
                prefetch_entry(v, load_relaxed(&v->buckets[b + SETTLE_AHEAD].slots[__builtin_ctz(o)]));
        for (unsigned o = unanswered(&v->buckets[b], &out->completed); o != 0; o &= o - 1)
            settle_slot(p, b, (unsigned)__builtin_ctz(o), out);
    }
    out->keys = out->completed + out->lost + out->abandoned;
    out->expired = p->expired;
    out->forgotten = p->forgotten;
    return IDEM_OK;
}

bool idem_replay_record(const struct idem_view *v, uint64_t word, uint8_t *scratch, struct idem_rec *r)
{
    struct idem_entry e;
    if (!word_final(word) || word_state(word) == WORD_FORGOTTEN || !idem_entry_load(v, word, &e))
        return false;
    idem_source_record(&e, word_state(word), scratch, r);
    return true;
}
