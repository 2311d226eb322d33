/*
 * wal/leader.h - one writer for everybody: electing it, one batch, the next file, succeeding a leader that does not go on.
 *
 * Owns: the present file, its buffer, the epoch, poison. Knows entries only through struct idem_log_source, which store/ fills in.
 * docs/wal.md has the protocol; the steps' names below are the crash points ("log.elected" ...).
 *
 * Invariants
 *  1. Leader of epoch e is who holds lock byte e of `id` (and is the one that this process lets lead). e is raised only over a leader that lives.
 *  2. A position is written once: LOG_ASSIGNED is raised before, and a leader that finds ASSIGNED != WRITTEN, SYNCING set for the present file, or
 *     another epoch than the file's makes a new file whose base is ASSIGNED and whose prev_end is LOG_DURABLE.
 *  3. LOG_SYNCING = file before the sync, 0 after it succeeded: a file with a sync of unknown outcome is never synced again.
 *  4. Nothing is acknowledged before: sync succeeded, the id still names our instance, LOG_DURABLE was raised by CAS under our epoch. In this order.
 *  5. An entry's log word names a position only after LOG_DURABLE has passed it; then flushed moves, then sleepers are woken. So a word never
 *     names void bytes, whoever dies or sleeps, and a reference that has left its ring is on the disk.
 */
#ifndef IDEM_WAL_LEADER_H
#define IDEM_WAL_LEADER_H

#include "wal/files.h"
#include "wal/ring.h"

enum idem_lane_life {
    LANE_LIVES,
    LANE_BUSY, /* its owner lives, a hazard is set: in the middle of something, or asleep there */
    LANE_DIRTY /* its owner is dead, a hazard is set: one entry may have been published and not pushed */
};
enum idem_taken {
    TAKEN_RECORD,  /* *rec is filled; its key, then mark or metadata and body lie in scratch, in a row */
    TAKEN_NOTHING, /* on the disk already, or nobody knows the key any more */
    TAKEN_DROPPED, /* superseded or recycled: the reference of what came after it was pushed before now */
    TAKEN_TOO_BIG  /* scratch is too small: *need bytes are wanted */
};
struct idem_take {
    uint8_t *scratch;
    uint64_t room, need;
    bool strict;  /* what was superseded is resolved, not dropped */
    uint64_t cut; /* what lies below this position is to be recorded anew */
    bool careful; /* the reference may be very old: believe it only if the key's slot names its entry */
    struct idem_rec rec;
    uint64_t note[2]; /* for note(): the entry's word with the state that was recorded; its log word as it was */
};

enum idem_fetch {
    FETCH_HEAD, /* for note(), or the first step for take() */
    FETCH_REST  /* for take(), when that is there: the rest of what will be recorded, a claim's bucket */
};

/* What the log wants from the store. Nothing here sleeps; all may be called by any process that has the store open, outside of read sections. */
struct idem_log_source {
    void *ctx;
    int (*ready)(void *ctx);      /* this thread can work. Errors: IDEM_E_FULL: it finds no lane */
    uint32_t (*lanes)(void *ctx); /* lanes ever used */
    void (*lane)(void *ctx, uint32_t i, struct idem_ring *ring);
    enum idem_lane_life (*life)(void *ctx, uint32_t i);
    /*
     * The record of what ref names. A claim (any state but completed), and anything if `careful`, is looked up: what its key's slot says now is
     * recorded, so a claim's record never follows its successor's. A rescued completion becomes a TOMBSTONE; a transient answer a CLAIM in state
     * ABANDONED. TAKEN_NOTHING if the log word says this state, or a later one, and is durable.
     */
    enum idem_taken (*take)(void *ctx, uint64_t ref, struct idem_take *t);
    /* Says that a reference will be taken, or noted, soon: its lines begin to come. */
    void (*fetch)(void *ctx, uint64_t ref, enum idem_fetch what);
    /* Puts log_word(position, state) into the entry, by CAS from what take() saw, under a hazard; nothing if it has changed. */
    void (*note)(void *ctx, const uint64_t note[2], uint64_t position);
    /* After some calls of take() and note(), before anything that may last: what they hold is let go. */
    void (*leave)(void *ctx);
    /* The next reference from *cursor (0: the first) on whose log word is not its state's, or lies below cut. False: the end. At most
       `budget` buckets; a reference of 0 with true: call again. */
    bool (*walk)(void *ctx, uint64_t *cursor, uint64_t cut, uint32_t budget, uint64_t *ref, uint64_t *live_bytes);
    void (*now)(void *ctx, int64_t *store_ms, int64_t *wall_ms);
};

struct idem_log;
struct idem_lead;

/* header: what is the same in all files. control is in a mapping that must outlive the log. A directory that is not there now may be put back
   later: that is no error here. Errors: as idem_log_dir_open(); IDEM_E_MEMORY; IDEM_E_LOG_FOREIGN (the id's UUID), IDEM_E_STALE (its
   instance). */
int idem_log_attach(const char *wal_dir, struct idem_a64 *control, const struct idem_log_source *source,
                    const struct idem_file_rec *header, uint32_t flush_interval_ms, uint32_t log_wait_ms,
                    struct idem_log **log);
void idem_log_detach(struct idem_log *log);

/* Around a fork, in the thread that forks: the child closes its parent's descriptors, or a dead leader's byte would stay locked. Its copy of
   a log does nothing any more but idem_log_detach(). */
void idem_logs_before_fork(void);
void idem_logs_after_fork(bool child);
/* The child's part of it, for one log: in a child of a raw clone, which has called neither, before idem_log_detach(). */
void idem_log_leave_to_parent(struct idem_log *log);

/* Tries to be the leader, without waiting. Outcomes: IDEM_OK (lead, then resign), 1 somebody else is. Errors: IDEM_E_LOG, IDEM_E_STALE ...
   steal: the leader made no progress while we looked long enough: take the next epoch. */
int idem_log_elect(struct idem_log *log, bool steal, struct idem_lead **lead);
/* Wakes all who wait: the next one may lead. errno stays. */
void idem_log_resign(struct idem_lead *lead);

/*
 * One batch: collect from all rings, write, sync, acknowledge. With nothing to write and the ceiling near (or `ceiling`): an empty batch.
 * Makes a new file when the present one is full or was given up; walks a slice if wanted; retains (retain.h).
 * Outcomes: IDEM_OK, 1: there is more (or another one leads by now). Errors: IDEM_E_LOG, IDEM_E_LOG_SPACE (nothing of it is acknowledged, LOG_TROUBLE says it too),
 * IDEM_E_STALE (another instance: never write again under this one), IDEM_E_FULL, IDEM_E_MEMORY.
 * Only between elect and resign, outside of read sections. Blocks in the kernel.
 */
int idem_log_batch(struct idem_lead *lead);

#endif
