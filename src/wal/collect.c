/*
 * wal/collect.c - what a batch holds: references from the rings, then what a walk over the index finds. See lead.h.
 *
 * Collecting goes over the rings in passes. What a reference names may have been superseded, or its region recycled: then the reference
 * of what came after it was pushed before we looked, and the next pass finds it. A reference that was dropped leaves its ring only with a batch
 * whose next pass has come to its end: so what leaves a ring is on the disk, or what came after it is.
 *
 * If we die here: nothing was written.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/point.h"
#include "wal/lead.h"

#define CAREFUL_MS   10000 /* a region has 65,535 lives; not in this time */
#define PASSES       8u
#define WINDOW       32u
#define SEEN         8192u
#define WALK_BUCKETS 64u
#define WALK_US      2000
#define TAKE_EDGE    (IDEM_WAL_TOMBSTONE_BYTES + IDEM_WAL_GRAIN) /* of a record, besides key, mark or answer */
#define BYTES_FIRST  (UINT64_C(64) << 10)
#define HUGE_BYTES   (UINT64_C(2) << 20)

/* ------------------------------------------------------------------ room */

int idem_lead_grow(void *at_pointer, uint64_t *room, uint64_t want, size_t each)
{
    void *old, *more;
    memcpy(&old, at_pointer, sizeof old);
    uint64_t next = *room == 0 ? 64 : *room;
    while (next < want)
        next *= 2;
    more = realloc(old, next * each);
    if (more == NULL)
        return idem_fail(IDEM_E_MEMORY, "no memory for a batch of the log");
    memcpy(at_pointer, &more, sizeof more);
    *room = next;
    return IDEM_OK;
}

/* The batch's bytes: aligned as a file system wants it that writes them past its cache, and in large pages where that pays. */
int idem_lead_room(struct idem_lead *lead, uint64_t want)
{
    void *more;
    if (want <= lead->room)
        return IDEM_OK;
    uint64_t next = lead->room == 0 ? BYTES_FIRST : lead->room;
    while (next < want)
        next *= 2;
    if (posix_memalign(&more, next >= HUGE_BYTES ? HUGE_BYTES : IDEM_WAL_BLOCK_BYTES, next) != 0)
        return idem_fail(IDEM_E_MEMORY, "no memory for a batch of the log");
    if (next >= HUGE_BYTES)
        (void)madvise(more, next, MADV_HUGEPAGE); /* a wish */
    if (lead->bytes != NULL)
        memcpy(more, lead->bytes, lead->used);
    free(lead->bytes);
    lead->bytes = more;
    lead->room = next;
    return IDEM_OK;
}

static int grow_notes(struct idem_lead *lead)
{
    uint64_t room = lead->note_room;
    int e = lead->note_count < lead->note_room ? IDEM_OK
                                               : idem_lead_grow(&lead->notes, &room, room + 1, sizeof *lead->notes);
    lead->note_room = room;
    return e;
}

void idem_lead_due(struct idem_log *log, int64_t at_ms)
{
    struct idem_a64 *due = &log->control[LOG_DUE_MS];
    uint64_t seen = load_relaxed(due); /* relaxed: a time; who pushed has pushed before */
    while ((seen == 0 || seen > (uint64_t)at_ms) && !cas_relaxed(due, &seen, (uint64_t)at_ms)) /* relaxed: as above */
        ;
}

/* ------------------------------------------------------------------ collecting */

/* Where an entry stands in the table of this batch's. A cell is: the entry (bits 15-63) | number of the batch (3-14) | state. */
#define SEEN_ENTRY   (~UINT64_C(0x7fff))
#define SEEN_NUMBERS 4096u
static uint64_t *seen_cell(struct idem_lead *lead, uint64_t word)
{
    _Static_assert(SEEN == 1u << 13, "the shift");
    return &lead->seen[(word & SEEN_ENTRY) * UINT64_C(0x9E3779B97F4A7C15) >> 51];
}

/* Was this entry recorded in this batch already, in this state or a later one? Else it is from now on. A collision forgets: then it is
   written twice, which does no harm. */
static bool seen_before(struct idem_lead *lead, uint64_t word)
{
    uint64_t *at = seen_cell(lead, word), mine = (word & SEEN_ENTRY) | (uint64_t)lead->seen_number << 3;
    if ((*at & ~UINT64_C(7)) == mine && idem_rec_phase(*at & 7) >= idem_rec_phase(word & 7))
        return true;
    *at = mine | (word & 7);
    return false;
}

/* A table without anything of this batch: as a rule the cells of those before are told by their number. */
int idem_lead_collect_begin(struct idem_lead *lead)
{
    if (lead->seen == NULL && (lead->seen = malloc(SEEN * sizeof *lead->seen)) == NULL)
        return idem_fail(IDEM_E_MEMORY, "no memory for a leader of the log");
    lead->seen_number = (lead->seen_number + 1) % SEEN_NUMBERS;
    if (lead->seen_number == 0)
        lead->seen_number = 1;
    if (lead->salt.salt != lead->file.salt || lead->seen_number == 1)
        idem_wal_salt(&lead->salt, lead->file.salt);
    if (lead->seen_number == 1)
        memset(lead->seen, 0, SEEN * sizeof *lead->seen);
    return IDEM_OK;
}

/* Adds a record. Outcomes: IDEM_OK; 1: no room in this batch. Errors: IDEM_E_MEMORY. */
int idem_lead_add(struct idem_lead *lead, struct idem_rec *r, const uint64_t *note)
{
    uint64_t n = idem_rec_bytes(r);
    if (n == 0)
        return idem_fail(IDEM_E_CORRUPT, "a record of the log can't be encoded; run idem verify");
    if (lead->records > 0 && lead->used + n > lead->limit)
        return 1;
    int e = idem_lead_room(lead, lead->used + n); /* (none is made where r's bytes lie in it already) */
    if (e == IDEM_OK && note != NULL)
        e = grow_notes(lead);
    if (e != IDEM_OK)
        return e;
    r->position = lead->used; /* from the batch's beginning; encoded when that is known */
    if (note != NULL)
        lead->notes[lead->note_count++] = (struct idem_lead_note){{note[0], note[1]}, lead->used};
    r->position += idem_lead_position(lead, LOG_WRITTEN);
    lead->used += idem_rec_lay(r, lead->bytes + lead->used);
    lead->records++;
    if (r->kind != REC_RETAIN && r->expiry_ms > lead->expiry_ms)
        lead->expiry_ms = r->expiry_ms;
    return IDEM_OK;
}

void idem_lead_sum(struct idem_lead *lead)
{
    while (lead->summed < lead->used)
        lead->summed += idem_rec_sum(&lead->salt, lead->bytes + lead->summed);
}

/* One reference. Outcomes: IDEM_OK, 1: no room. *dropped: it was. */
static int add_reference(struct idem_lead *lead, uint64_t ref, uint64_t cut, bool careful, bool *dropped)
{
    const struct idem_log_source *s = &lead->log->source;
    struct idem_take t; /* rec and note are take()'s to fill */
    /* Straight to where the record's encoding will want it; the first of all finds no memory there yet. */
    t.room = lead->room - lead->used > TAKE_EDGE ? lead->room - lead->used - TAKE_EDGE : 0;
    t.scratch = t.room > 0 ? lead->bytes + lead->used + IDEM_WAL_FIXED_BYTES : NULL;
    t.strict = lead->strict;
    t.careful = careful;
    t.cut = cut;
    *dropped = false;
    enum idem_taken taken = s->take(s->ctx, ref, &t);
    if (taken == TAKEN_TOO_BIG) {
        int e = idem_lead_room(lead, lead->used + t.need + TAKE_EDGE);
        if (e != IDEM_OK)
            return e;
        t.scratch = lead->bytes + lead->used + IDEM_WAL_FIXED_BYTES;
        t.room = t.need;
        taken = s->take(s->ctx, ref, &t);
    }
    *dropped = taken == TAKEN_DROPPED;
    if (taken != TAKEN_RECORD)
        return IDEM_OK;
    if (seen_before(lead, t.note[0]))
        return IDEM_OK;
    int e = idem_lead_add(lead, &t.rec, t.note);
    if (e != IDEM_OK)
        *seen_cell(lead, t.note[0]) = 0;
    return e;
}

/* References that are taken together, so that the memory they name is waited for once and not for each. While one handful is taken, the next
   one's entries begin to come. */
struct window {
    struct {
        struct idem_lead_lane *lane;
        uint64_t ref, at;
    } at[WINDOW];
    unsigned count;
};

struct pass {
    struct window windows[2], *next, *now;
    bool careful, dropped;
};

static void drop(struct pass *p, struct idem_lead_lane *l, uint64_t at)
{
    if (l->keep > at)
        l->keep = at;
    p->dropped = true;
}

static int take_window(struct idem_lead *lead, struct pass *p)
{
    const struct idem_log_source *s = &lead->log->source;
    struct window *w = p->now;
    for (unsigned i = 0; i < w->count; i++) {
        s->fetch(s->ctx, w->at[i].ref, FETCH_REST);
        prefetch_write(seen_cell(lead, w->at[i].ref));
    }
    int e = IDEM_OK;
    for (unsigned i = 0; i < w->count; i++) {
        struct idem_lead_lane *l = w->at[i].lane;
        bool dropped;
        e = add_reference(lead, w->at[i].ref, 0, p->careful, &dropped);
        if (e != IDEM_OK)
            break;
        if (dropped)
            drop(p, l, w->at[i].at);
        l->at = w->at[i].at + 1;
    }
    s->leave(s->ctx);
    idem_lead_sum(lead);
    w->count = 0;
    p->now = p->next;
    p->next = w;
    return e;
}

/* All that is in the rings now and was not collected before. */
static int one_pass(struct idem_lead *lead, bool careful, bool *dropped_any)
{
    const struct idem_log_source *s = &lead->log->source;
    struct pass p;
    int e = IDEM_OK;
    p.careful = careful;
    p.dropped = false;
    p.now = &p.windows[0];
    p.next = &p.windows[1];
    p.now->count = p.next->count = 0;
    for (uint32_t i = 0; i < lead->lane_count && e == IDEM_OK; i++) {
        struct idem_lead_lane *l = &lead->lanes[i];
        uint64_t head = idem_ring_head(&l->ring), flushed = l->sealed & RING_COUNT;
        if (head - flushed > l->ring.mask + 1) /* damaged; what a walk finds is written all the same */
            head = l->at = flushed;
        l->read = head;
        for (uint64_t at = l->at; at < head && e == IDEM_OK; at++) {
            /* P12 acquire: if it says superseded, what came after it is pushed. The cell stays until flushed has passed it. */
            uint64_t ref = load_acquire(&l->ring.cells[at & l->ring.mask]);
            if ((ref & REF_SUPERSEDED) != 0 && !lead->strict) {
                drop(&p, l, at);
                continue;
            }
            s->fetch(s->ctx, ref, FETCH_HEAD);
            struct window *w = p.next;
            w->at[w->count].lane = l;
            w->at[w->count].at = at;
            w->at[w->count++].ref = ref;
            if (w->count == WINDOW)
                e = take_window(lead, &p);
        }
    }
    for (unsigned i = 0; i < 2 && e == IDEM_OK; i++)
        e = take_window(lead, &p);
    for (uint32_t i = 0; i < lead->lane_count && e == IDEM_OK; i++) /* and those that were dropped behind the last */
        lead->lanes[i].at = lead->lanes[i].read;
    *dropped_any = p.dropped;
    return e;
}

/* Passes until one drops nothing: then all that was dropped, in this batch or before, was followed by a whole pass. */
int idem_lead_collect(struct idem_lead *lead)
{
    struct idem_log *log = lead->log;
    /* relaxed: a time, written by a leader before us */
    bool careful = lead->collected_ms - (int64_t)load_relaxed(&log->control[LOG_DRAINED_MS]) > CAREFUL_MS;
    bool dropped = true;
    int e = IDEM_OK;
    for (unsigned pass = 0; pass < PASSES && dropped && e == IDEM_OK; pass++) {
        lead->strict =
            pass > 1; /* the second one is short, and finds most of what was pushed during the first superseded again */
        e = one_pass(lead, careful, &dropped);
    }
    lead->strict = true; /* the walk's */
    lead->full = e == 1 || dropped;
    for (uint32_t i = 0; i < lead->lane_count && !lead->full; i++)
        lead->lanes[i].keep = UINT64_MAX;
    return e == 1 ? IDEM_OK : e;
}

/* A slice of the walk that is wanted, or that retention wants. What a slice finds counts when the batch is durable. */
int idem_lead_walk(struct idem_lead *lead)
{
    struct idem_log *log = lead->log;
    const struct idem_log_source *s = &log->source;
    uint64_t wanted = load_acquire(&log->control[LOG_WALK_WANTED]); /* P12 acquire: what it is for */
    uint64_t done = load_relaxed(&log->control[LOG_WALK_DONE]);     /* relaxed: a walk too many does no harm */
    /* Every process that leads walks for itself: another one may have come to the end. */
    lead->walking &= lead->walk_wanted > done || (lead->walk_cut != 0 && lead->walk_cut == lead->retain.cut);
    if (!lead->walking) {
        if ((wanted == done || IDEM_FAULT("log.unwalked")) && lead->retain.cut == 0)
            return IDEM_OK;
        lead->walking = true;
        lead->walk_wanted = wanted;
        lead->walk_cut = lead->retain.cut;
        lead->walk_cursor = lead->walk_live = 0;
    }
    int64_t end_us = idem_clock_fine_us() + WALK_US;
    while (!lead->full && idem_clock_fine_us() < end_us) {
        uint64_t ref, at = lead->walk_cursor, live = lead->walk_live;
        bool dropped;
        if (!s->walk(s->ctx, &lead->walk_cursor, lead->walk_cut, WALK_BUCKETS, &ref, &lead->walk_live)) {
            lead->walk_ended = true;
            return IDEM_OK;
        }
        int e = ref == 0 || (lead->walk_cut != 0 && IDEM_FAULT("retain.uncopied"))
                    ? IDEM_OK
                    : add_reference(lead, ref, lead->walk_cut, true, &dropped);
        s->leave(s->ctx);
        if (e == 1) {
            lead->full = true;
            lead->walk_cursor = at;
            lead->walk_live = live;
        } else if (e != IDEM_OK) {
            return e;
        }
    }
    return IDEM_OK;
}

/* Who died between publishing and pushing, or sleeps there, left an entry without a reference. Asked once for each head. */
void idem_lead_look_for_sleepers(struct idem_lead *lead)
{
    struct idem_log *log = lead->log;
    for (uint32_t i = 0; i < lead->lane_count; i++) {
        struct idem_lead_lane *l = &lead->lanes[i];
        uint64_t head = idem_ring_head(&l->ring);
        if (head != l->seen_head) {
            l->seen_head = head;
            l->seen_ms = 0;
            l->asked = false;
        }
        if (l->asked)
            continue;
        if (log->source.life(log->source.ctx, i) == LANE_LIVES)
            l->seen_ms = 0;
        else if (l->seen_ms == 0) /* it may just have begun, after a long rest */
            l->seen_ms = lead->collected_ms;
        if (l->seen_ms == 0)
            continue;
        if (lead->collected_ms - l->seen_ms >= 2 * (int64_t)log->interval_ms) {
            l->asked = true;
            idem_log_want_walk(log->control);
        } else {
            idem_lead_due(log, lead->collected_ms + log->interval_ms); /* once more, later */
        }
    }
}
