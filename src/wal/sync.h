/*
 * wal/sync.h - waiting until a reference is durable; the flusher thread.
 *
 * Owns: the bound of every wait for the disk. Who finds no leader becomes it (leader.h).
 */
#ifndef IDEM_WAL_SYNC_H
#define IDEM_WAL_SYNC_H

#include "wal/leader.h"

/*
 * Until ring's flushed count reaches ticket, or timeout_ms (0: the log's own bound) are over. Sleeps on LOG_WAKE at most 100 ms at a time. Call
 * outside of read sections; the mapping must stay (the caller pins the view).
 * Outcomes: IDEM_OK. It means: what was pushed has a durable record, or what came after it has. The caller then looks at its own attempt again:
 * still its own and its log word not durable -> push again and wait for the rest of the time.
 * Errors: IDEM_E_LOG_STALLED (no progress within the bound), IDEM_E_LOG, IDEM_E_LOG_SPACE (twice in a row, the second time in a new file),
 * IDEM_E_STALE, IDEM_E_FULL, IDEM_E_MEMORY.
 */
int idem_log_wait(struct idem_log *log, const struct idem_ring *ring, uint64_t ticket, int64_t timeout_ms);

/* Every lane's head at the call is flushed, and, if asked for, a wanted walk done. Outcomes and errors as above. */
int idem_log_wait_all(struct idem_log *log, bool walk, int64_t timeout_ms);

/* Leads a batch if one is due and nobody leads. Outcomes: IDEM_OK; 1: there is more to do now. Errors: as idem_log_batch(). */
int idem_log_tend(struct idem_log *log);

/* Something was pushed: asks for a batch within the flush interval (soon: at once), and wakes this process's flusher if it has to hurry. */
void idem_log_ask(struct idem_log *log, bool soon);

/* One thread a handle: all signals blocked, small stack; leads a batch when LOG_DUE_MS is over or a ring is half full. Errors: IDEM_E_SYSTEM (no
   thread). stop waits for it, at most one batch; what is due then is written. */
int idem_log_flusher_start(struct idem_log *log);
void idem_log_flusher_stop(struct idem_log *log);

#endif
