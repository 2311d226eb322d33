/*
 * wal/lead.h - what a leader works with; shared by leader.c, batch.c, sync.c and retain.c.
 *
 * Owns nothing at run time. A process has one struct idem_lead, but for one whose thread is stuck in the kernel and was succeeded by another
 * thread of the same process: that one is an orphan, freed when its thread comes back.
 */
#ifndef IDEM_WAL_LEAD_H
#define IDEM_WAL_LEAD_H

#include <pthread.h>

#include "wal/leader.h"
#include "wal/retain.h"

struct idem_lead_lane {
    struct idem_ring ring;
    uint64_t sealed; /* flushed, as sealed or written last: its epoch is ours */
    uint64_t at;     /* collected up to here, also by batches before: on the disk when this one is, or dropped */
    uint64_t read;   /* head, as this pass has seen it */
    uint64_t
        keep; /* first one dropped, of which it is not known that what came after it was collected; flushed stays there */
    /* How a dead or sleeping owner is told from a busy one: asked once for each head. */
    uint64_t seen_head;
    int64_t seen_ms; /* since when every look at that head found a hazard set; 0: the last one did not */
    bool asked;
};

struct idem_lead_note {
    uint64_t note[2];
    uint64_t position;
};

struct idem_lead {
    struct idem_log *log;
    struct idem_lead *next; /* all of a log, for the fork */
    bool busy, orphan;
    bool broken; /* the directory is not the one we opened: open it anew next time */
    struct idem_log_dir dir;
    unsigned epoch;
    int fd;                /* of the present file; -1: not open */
    bool direct, indirect; /* writes go past the kernel's cache; this file's can't */
    struct idem_file_rec file;
    struct idem_wal_salt salt; /* its salt */
    /* the batch */
    uint8_t *bytes;
    uint64_t used, room, limit;
    uint64_t summed; /* records up to here have their checksums */
    uint32_t records;
    struct idem_lead_note *notes;
    size_t note_count, note_room;
    struct idem_lead_lane *lanes;
    uint32_t lane_count, lane_room;
    uint64_t *seen; /* entries recorded in this batch: a table */
    unsigned seen_number;
    bool full, strict;
    uint64_t number; /* of the batch */
    bool stands;     /* it ended well: resigning wakes those whom it served */
    bool collected;  /* what the lanes say of batches before holds: the last one did not fail */
    int64_t collected_ms, expiry_ms;
    /* a walk over the index, over several batches */
    bool walking, walk_ended;
    uint64_t walk_wanted, walk_cursor, walk_cut, walk_live;
    struct idem_retain retain;
};

struct idem_log {
    pthread_mutex_t lock; /* lead, leads, and what opens descriptors: never held while the disk is waited for */
    struct idem_lead *lead, *leads;
    struct idem_a64 *control;
    struct idem_log_source source;
    struct idem_file_rec header;
    uint32_t interval_ms, wait_ms;
    struct idem_log *next;
    bool forked;
    /* the flusher */
    bool flushing;
    pthread_t thread;
    struct idem_a64 stop, kick, patrolled_ms;
    char path[IDEM_LOG_PATH_MAX];
};

static inline int64_t idem_log_now_ms(const struct idem_log *log)
{
    int64_t store_ms, wall_ms;
    log->source.now(log->source.ctx, &store_ms, &wall_ms);
    return store_ms;
}
static inline uint64_t idem_lead_value(const struct idem_lead *lead, enum idem_log_control i)
{
    return load_acquire(&lead->log->control[i]) & LOG_VALUE_MASK; /* P12 acquire: what the leader before us did */
}
static inline uint64_t idem_lead_position(const struct idem_lead *lead, enum idem_log_control i)
{
    return idem_lead_value(lead, i) * IDEM_WAL_GRAIN;
}
/* Changes a leader's word. False: we were succeeded. */
static inline bool idem_lead_set(struct idem_lead *lead, enum idem_log_control i, uint64_t value)
{
    struct idem_a64 *at = &lead->log->control[i];
    uint64_t seen = load_acquire(at); /* P12 acquire: our own, or a successor's seal */
    return seen >> 48 == lead->epoch &&
           cas_acq_rel(at, &seen, log_epoch_word(lead->epoch, value)); /* P12 release: what was done before */
}
static inline void idem_lead_count(struct idem_lead *lead, enum idem_log_control i, uint64_t n)
{
    add_relaxed(&lead->log->control[i], n); /* relaxed: a figure */
}
void idem_lead_progress(struct idem_lead *lead);

/* We were succeeded: nothing more is ours to change. Inside the room only; outwards it is "there is more": the next election tells. */
#define LEAD_OVER 2

/* Outcomes: IDEM_OK, LEAD_OVER. The present file is open and has room for `bytes` more, or a new one was made. Errors: as idem_log_batch(). */
int idem_lead_file(struct idem_lead *lead, uint64_t bytes);
/* The file is given up or full: the next one. */
int idem_lead_new_file(struct idem_lead *lead, uint64_t bytes);

/* collect.c. Outcomes: IDEM_OK. Errors: IDEM_E_MEMORY, IDEM_E_CORRUPT (a record that can't be encoded). */
int idem_lead_collect_begin(struct idem_lead *lead); /* nothing was recorded in this batch yet */
/* All that is in the rings. lead->full: the batch is, or the passes did not come to an end. */
int idem_lead_collect(struct idem_lead *lead);
/* A slice of the walk that is wanted, or that retention wants. */
int idem_lead_walk(struct idem_lead *lead);
/* Adds a record; note, if not NULL, is for the source's note(). Outcome 1: no room in this batch. */
int idem_lead_add(struct idem_lead *lead, struct idem_rec *r, const uint64_t *note);
/* Checksums for the records that have none yet. */
void idem_lead_sum(struct idem_lead *lead);
/* Who died between publishing and pushing, or sleeps there: a walk is asked for. */
void idem_lead_look_for_sleepers(struct idem_lead *lead);
/* Wants a batch at `at_ms`, or earlier, if one is wanted then. */
void idem_lead_due(struct idem_log *log, int64_t at_ms);
/* The batch's bytes to room for so many; what was used of them stays. Errors: IDEM_E_MEMORY. */
int idem_lead_room(struct idem_lead *lead, uint64_t want);
/* *at_pointer to room for `want` things of `each` bytes, at least. Errors: IDEM_E_MEMORY. */
int idem_lead_grow(void *at_pointer, uint64_t *room, uint64_t want, size_t each);

#endif
