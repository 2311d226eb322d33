/*
 * wal/sync.h - waiting until a reference is durable; the flusher thread.
 *
 * Owns: the bound of every wait for the disk. Who finds no leader becomes it (leader.h).
 */
#ifndef IDEM_WAL_SYNC_H
#define IDEM_WAL_SYNC_H

#include "wal/leader.h"

/*
 * Until ring's flushed count reaches ticket, or timeout_ms are over. Sleeps on LOG_WAKE at most 100 ms at a time. Call outside of read
 * sections; the mapping must stay (the caller pins the view).
 * Outcomes: IDEM_OK. It means: what was pushed has a durable record, or needed none. The caller then looks at its own attempt again:
 * still its own and its log word not durable -> push again and wait for the rest of the time.
 * Errors: IDEM_E_LOG_STALLED (no progress within the bound), IDEM_E_LOG, IDEM_E_LOG_SPACE (with the reason of LOG_TROUBLE), IDEM_E_STALE.
 */
int idem_log_wait(struct idem_log *log, const struct idem_ring *ring, uint64_t ticket, int64_t timeout_ms);

/* Every lane's head at the call is flushed, and a wanted walk done. Outcomes and errors as above. */
int idem_log_wait_all(struct idem_log *log, int64_t timeout_ms);

/* Is this log word's record durable? Lock-free; false in doubt (a void range). */
bool idem_log_durable(const struct idem_log *log, uint64_t word, unsigned state);

/* One thread a handle: all signals blocked, small stack; leads a batch when LOG_DUE_MS is over or a ring is half full. Not started in
   a forked child before its first call that needs it. Errors: IDEM_E_SYSTEM (no thread). stop waits for it, at most one batch. */
int idem_log_flusher_start(struct idem_log *log);
void idem_log_flusher_stop(struct idem_log *log);

#endif
