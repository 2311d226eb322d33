/*
 * store/verify.c - the invariants as code.
 *
 * Owns: nothing; changes nothing. Each check carries the number of its invariant. What contradicts an invariant is looked at again before it
 * is reported, since a store may be verified under traffic.
 *
 *  V1 a slot's word names a region that exists, with that region's generation, not FREE              (arena.h 2)
 *  V2 its bytes are an entry, whole in the region                                                    (entry.h)
 *  V3 the key's hash leads to the home that the word's distance implies, and to its tag              (index.h)
 *  V4 the distance is within the home's reach                                                        (index.h)
 *  V5 a header's pending slot is not free and belongs to that home                                   (index.h 2)
 *  V6 no key has two final slots                                                                     (index.h)
 *  V7 what is not a claim expires no later than its region                                           (arena.h 6)
 *  V8 a region's cursor lies in the region; its phase is one of seven                                 (arena.h)
 *  V9 a lane's hazards name regions that exist                                                       (lane.h)
 * V10 freed_ms lies before the present                                                               (index.h 5)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "index/bucket.h"
#include "store/handle.h"

#define LOOKS 64u

struct verifier {
    const struct idem_view *v;
    idem_report *report;
    char sentence[320];
};

/* at: the shared word that is wrong; it tells the file and the offset. */
static void tell_problem(struct verifier *c, const char *where, uint64_t number, const void *at, const char *what)
{
    const struct idem_view *v = c->v;
    char name[64] = "root", uuid[33];
    uint64_t offset = (uint64_t)((const uint8_t *)at - (const uint8_t *)v->root);
    if (offset >= v->fixed.root_bytes) {
        idem_uuid_text(v->fixed.uuid, uuid);
        snprintf(name, sizeof name, "gen-%s-1", uuid);
        offset = (uint64_t)((const uint8_t *)at - (const uint8_t *)v->generation);
    }
    c->report->problems++;
    snprintf(c->sentence, sizeof c->sentence, "%s: byte %llu: %s %llu: %s", name, (unsigned long long)offset, where,
             (unsigned long long)number, what);
    if (c->report->problem != NULL)
        c->report->problem(c->report->ctx, c->sentence);
}

/* NULL: sound. Else what is wrong; *changed: look again. */
static const char *check_word(const struct idem_view *v, struct idem_found *f, bool *changed)
{
    *changed = false;
    f->word = load_acquire(f->slot); /* P1 acquire: the entry's bytes */
    if (f->word == 0)
        return NULL;
    const char *wrong = NULL;
    uint32_t region = word_region(v, f->word);
    if (word_unit(f->word) >= v->arena_units || region >= v->region_count) {
        wrong = "V1: the word's address lies outside of the arena";
    } else {
        uint64_t state = load_acquire(&v->regions[region].state); /* P5 acquire: before the entry is read */
        if (region_generation(state) != word_generation(f->word) || region_phase(state) == REGION_FREE)
            wrong = "V1: the word names a region that was recycled";
        else if (!idem_entry_load(v, f->word, &f->entry))
            wrong = "V2: the word names bytes that are no entry";
        else if (word_state(f->word) != WORD_TENTATIVE && f->entry.kind != ENTRY_CLAIM &&
                 f->entry.expiry_ms > region_expiry(state) && word_state(f->word) == WORD_COMPLETED)
            wrong = "V7: the entry expires later than its region";
    }
    if (wrong == NULL) {
        uint8_t key[IDEM_KEY_MAX];
        idem_index_copy_key(&f->entry, key);
        uint64_t hash = idem_hash_key(v->fixed.secret, key, f->entry.key_bytes, f->entry.scope_bytes);
        uint64_t home = idem_home_of(v, hash);
        if (home != bucket_before(v, f->place / 8, word_distance(f->word)) || idem_tag_of(hash) != word_tag(f->word))
            wrong = "V3: the entry's key does not belong into this bucket";
        else if (word_final(f->word) &&
                 word_distance(f->word) >
                     header_reach(load_acquire(&v->buckets[home].header))) /* P2 acquire: after the word */
            wrong = "V4: the slot lies beyond its home's reach";
    }
    *changed = !idem_index_unchanged(f);
    return wrong;
}

static const char *check_slot(const struct idem_view *v, struct idem_found *f)
{
    const char *wrong = NULL;
    bool changed = true;
    for (unsigned looks = 0; looks < LOOKS && (changed || wrong != NULL); looks++)
        wrong = check_word(v, f, &changed);
    return changed ? NULL : wrong;
}

static const char *check_header(const struct idem_view *v, uint64_t bucket)
{
    const char *wrong = NULL;
    for (unsigned looks = 0; looks < LOOKS; looks++) {
        uint64_t h = load_acquire(&v->buckets[bucket].header); /* P2 acquire: the slot it names */
        wrong = NULL;
        if (h & HEADER_FROZEN)
            wrong = "the bucket is frozen, which this version never does";
        else if (header_pending(h)) {
            if (header_slot(h) >= IDEM_BUCKET_SLOTS) {
                wrong = "V5: the header names a slot that does not exist";
            } else {
                uint64_t b = bucket_after(v, bucket, header_distance(h));
                uint64_t w = load_acquire(&v->buckets[b].slots[header_slot(h)]); /* P1 acquire: is it free? */
                if (w == 0 || word_distance(w) != header_distance(h))
                    wrong = "V5: the header names a slot that is free or another home's";
            }
        }
        if (wrong == NULL || load_acquire(&v->buckets[bucket].header) != h) /* P2 acquire: did it move meanwhile? */
            continue;
        if (looks + 1 == LOOKS)
            return wrong;
    }
    return NULL;
}

static bool same_key(const struct idem_found *a, const struct idem_found *b)
{
    uint8_t key[IDEM_KEY_MAX];
    if (a->entry.key_bytes != b->entry.key_bytes || a->entry.scope_bytes != b->entry.scope_bytes)
        return false;
    idem_index_copy_key(&a->entry, key);
    return idem_shared_equal(idem_entry_key(&b->entry), key, a->entry.key_bytes);
}

/* V6, for one home. */
static bool has_twins(const struct idem_view *v, uint64_t home)
{
    struct idem_found seen[(IDEM_DISTANCE_MAX + 1) * IDEM_BUCKET_SLOTS];
    for (unsigned looks = 0; looks < LOOKS; looks++) {
        unsigned n = 0;
        bool twins = false, moved = false;
        uint64_t h = load_acquire(&v->buckets[home].header); /* P2 acquire: its reach */
        for (unsigned d = 0; d <= header_reach(h); d++)
            for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++) {
                struct idem_found *f = &seen[n];
                uint64_t b = bucket_after(v, home, d);
                f->slot = (struct idem_a64 *)&v->buckets[b].slots[s];
                f->place = b * 8 + s;
                f->word = load_acquire(f->slot); /* P1 acquire: the entry's bytes */
                if (word_final(f->word) && word_distance(f->word) == d && idem_entry_load(v, f->word, &f->entry))
                    n++;
            }
        for (unsigned i = 0; i < n; i++)
            for (unsigned j = i + 1; j < n; j++)
                if (same_key(&seen[i], &seen[j]))
                    twins = true;
        for (unsigned i = 0; i < n; i++)
            moved |= !idem_index_unchanged(&seen[i]);
        if (!twins)
            return false;
        if (!moved && looks > 4)
            return true;
    }
    return false;
}

/* freed_ms: loaded before anything else, so that the clock is certainly read after it. */
static void check_time(struct verifier *c, uint64_t freed_ms)
{
    const struct idem_view *v = c->v;
    if (freed_ms >= (uint64_t)idem_view_now_ms(v))
        tell_problem(c, "generation", 1, &v->generation->freed_ms,
                     "V10: freed_ms lies in the future: claims are slower until then");
}

static void check_regions(struct verifier *c)
{
    const struct idem_view *v = c->v;
    for (uint32_t i = 0; i < v->region_count; i++) {
        uint64_t state = load_acquire(&v->regions[i].state); /* P5 acquire: its cursor */
        uint64_t cursor =
            load_relaxed(&v->regions[i].cursor); /* relaxed: a count for a check that tolerates lateness */
        if (region_phase(state) > REGION_SHARED || region_generation(state) == 0)
            tell_problem(c, "region", i, &v->regions[i].state, "V8: its state is none that exists");
        else if (cursor >> 48 == region_generation(state) && (cursor & LOW48) > UINT64_C(1) << v->region_shift)
            tell_problem(c, "region", i, &v->regions[i].cursor, "V8: its cursor lies beyond its end");
    }
    for (uint32_t i = 0; i < v->fixed.lanes_max; i++) {
        uint64_t w = load_seq_cst(&v->lanes[i].hazard_write);   /* P4 seq_cst: any value will do here */
        uint64_t k = load_seq_cst(&v->lanes[i].hazard_compare); /* P4 seq_cst: as above */
        if (w > v->region_count || k > v->region_count)
            tell_problem(c, "lane", i, &v->lanes[i].hazard_write, "V9: a hazard names a region that does not exist");
    }
}

int idem_verify(const char *dir, idem_report *report)
{
    if (report == NULL || report->size != sizeof *report)
        return idem_fail(IDEM_E_INVALID, "report.size: should be %zu; initialise with IDEM_REPORT_INIT",
                         sizeof *report);
    idem_options options = IDEM_OPTIONS_INIT;
    options.flags = IDEM_OPEN_NO_FLUSHER; /* it would write to the log, and delete its old files */
    idem_store *store;
    struct idem_op op;
    int e = idem_open(dir, &options, &store);
    if (e != IDEM_OK)
        return e;
    report->checked_slots = report->keys = report->problems = 0;
    e = idem_enter(store, &op);
    if (e == IDEM_OK) {
        struct idem_view *v = op.ctx.v;
        struct verifier c = {.v = v, .report = report};
        uint64_t freed_ms = load_relaxed(&v->generation->freed_ms); /* relaxed: a number that stands alone */
        int64_t now_ms = idem_view_now_ms(v);
        for (uint64_t b = 0; b < v->bucket_count; b++) {
            const char *wrong = check_header(v, b);
            if (wrong != NULL)
                tell_problem(&c, "bucket", b, &v->buckets[b].header, wrong);
            for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++) {
                struct idem_found f = {.slot = &v->buckets[b].slots[s], .place = b * 8 + s};
                wrong = check_slot(v, &f);
                report->checked_slots++;
                if (wrong != NULL)
                    tell_problem(&c, "slot", f.place, f.slot, wrong);
                else if (word_final(f.word) && !idem_index_gone(&f, now_ms))
                    report->keys++;
            }
            if (has_twins(v, b))
                tell_problem(&c, "bucket", b, &v->buckets[b], "V6: a key of this home has two slots");
        }
        check_regions(&c);
        check_time(&c, freed_ms);
        e = idem_leave(&op, IDEM_OK);
    }
    idem_close(store);
    if (e == IDEM_OK && report->problems > 0)
        e = idem_fail(IDEM_E_CORRUPT, "%s: %llu problems; stop its users, destroy it and create it anew", dir,
                      (unsigned long long)report->problems);
    return e;
}
