/*
 * wal/leader.h - one writer for everybody: electing it, one batch, the next file, succeeding a leader that does not go on.
 *
 * Owns: the present file, its buffer, the epoch, poison. Knows entries only through struct idem_log_source, which store/ fills in.
 * docs/wal.md has the protocol; the steps' names below are the crash points ("log.elected" ...).
 *
 * Invariants
 *  1. Leader of epoch e is who holds lock byte e of `id` (and the in-process gate). e is raised only over a leader that lives.
 *  2. A position is handed out once: LOG_ASSIGNED is raised before, and a leader that finds ASSIGNED != WRITTEN, SYNCING set, or another
 *     epoch than the file's makes a new file whose base is ASSIGNED and whose prev_end is LOG_DURABLE.
 *  3. LOG_SYNCING = file before the sync, 0 after it succeeded: a file with a sync of unknown outcome is never synced again.
 *  4. Nothing is acknowledged before: sync succeeded, the id still names our instance, LOG_DURABLE was raised by CAS under our epoch. In this order.
 *  5. After a new file that follows a void range, LOG_DURABLE passes its base only when every ring was drained to the head it had, and a
 *     walk that was wanted is durable (catching up): until then durable stays at prev_end; tickets are honoured by the rings alone.
 */
#ifndef IDEM_WAL_LEADER_H
#define IDEM_WAL_LEADER_H

#include "wal/files.h"
#include "wal/ring.h"

enum idem_lane_life {
    LANE_LIVES,
    LANE_QUIET,
    LANE_DIRTY
}; /* its owner: lives; gone with hazards clear; gone, or asleep, with hazards set */
enum idem_taken {
    TAKEN_RECORD,  /* *rec is filled, its bytes lie in scratch */
    TAKEN_NOTHING, /* no record is needed: recycled, superseded and nobody waits, or on record in this file already */
    TAKEN_TOO_BIG  /* scratch is too small: flush, come again */
};

/* What the log wants from the store. Nothing here sleeps; all may be called by any process that has the store open. */
struct idem_log_source {
    void *ctx;
    uint32_t (*lanes)(void *ctx); /* lanes ever used */
    enum idem_lane_life (*lane)(void *ctx, uint32_t i, struct idem_ring *ring);
    /*
     * The record of what ref names: copies the entry, then loads the region's state (P3): a recycled one is TAKEN_NOTHING. A claim (any state
     * but completed) is looked up in its slot: only what the slot still says is recorded, so a claim's record never follows its
     * successor's. A superseded entry somebody waits for (REF_SYNC) is resolved: what the slot names now is recorded in its place. A rescued completion
     * becomes a TOMBSTONE; a transient answer a CLAIM in state ABANDONED. TAKEN_NOTHING too if the log word says this state, or a later
     * one, at file_base or past it. *note: what idem_log_source.note wants.
     */
    enum idem_taken (*take)(void *ctx, uint64_t ref, uint64_t file_base, uint8_t *scratch, uint64_t room,
                            struct idem_rec *rec, uint64_t note[3]);
    /* Puts log_word(position, state) into the entry, by CAS from what take() saw, under a hazard; nothing if it has changed. */
    void (*note)(void *ctx, const uint64_t note[3], uint64_t position);
    /* The next reference from *cursor (0: the first) on whose log word is not its state's, or lies below cut. False: the end. At most
       `budget` buckets; a reference of 0 with true: call again. */
    bool (*walk)(void *ctx, uint64_t *cursor, uint64_t cut, uint32_t budget, uint64_t *ref, uint64_t *live_bytes);
    void (*now)(void *ctx, int64_t *store_ms, int64_t *wall_ms, int64_t *raw_ms);
};

struct idem_log;

/* template: identity, limits and secret for file headers. options are the store's. The view's mapping must outlive the log.
   Errors: as idem_log_dir_open(); IDEM_E_MEMORY; IDEM_E_LOG_FOREIGN (the id's UUID), IDEM_E_STALE (its instance). */
int idem_log_attach(const char *wal_dir, struct idem_a64 *control, const struct idem_log_source *source,
                    const struct idem_file_rec *header, uint64_t file_bytes, struct idem_log **log);
void idem_log_detach(struct idem_log *log);

/* Tries to be the leader, without waiting. Outcomes: IDEM_OK (lead, then resign), 1 somebody else is. Errors: IDEM_E_LOG.
   steal: the leader's LOG_PROGRESS_MS is older than log_wait_ms / 2 and did not move while we looked: take the next epoch. */
int idem_log_elect(struct idem_log *log, bool steal);
void idem_log_resign(struct idem_log *log);

/*
 * One batch: collect from all rings (up to buffer_bytes), write, sync if `sync` or the interval is over, acknowledge, wake all. With nothing to write
 * and the ceiling near: an empty batch. Rotates, makes a new file after a failure, walks a slice if wanted, retains (retain.h).
 * Outcomes: IDEM_OK, 1: there is more. Errors: IDEM_E_LOG, IDEM_E_LOG_SPACE (nothing of it is acknowledged, LOG_TROUBLE says it too),
 * IDEM_E_STALE (another epoch or instance: resign, never write again under it).
 * Only between elect and resign, outside of read sections. Blocks in the kernel.
 */
int idem_log_batch(struct idem_log *log, bool sync);

#endif
