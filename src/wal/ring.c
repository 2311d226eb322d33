/* wal/ring.c - see ring.h. */
#include "wal/ring.h"

#include "base/futex.h"

bool idem_ring_seal(const struct idem_ring *r, unsigned epoch, uint64_t *sealed)
{
    uint64_t seen = load_acquire(r->flushed); /* P12 acquire: what the leader before has acknowledged */
    for (;;) {
        if (seen >> 48 > epoch)
            return false;
        *sealed = (uint64_t)epoch << 48 | (seen & RING_COUNT);
        if (seen == *sealed || cas_acq_rel(r->flushed, &seen, *sealed)) /* P12 acq_rel: as above */
            return true;
    }
}

void idem_log_want_walk(struct idem_a64 *control)
{
    uint64_t w = load_relaxed(&control[LOG_WALK_WANTED]);      /* relaxed: the CAS decides */
    while (!cas_acq_rel(&control[LOG_WALK_WANTED], &w, w + 1)) /* P12 release: what it is for was published before */
        ;
}

void idem_log_wake(struct idem_a64 *control)
{
    /* P12 seq_cst: the count first, then who waits; a sleeper raises WAITERS first and compares the count then */
    uint64_t seen = load_seq_cst(&control[LOG_WAKE]);
    while (!cas_seq_cst(&control[LOG_WAKE], &seen, seen + 1)) /* P12 seq_cst: as above */
        ;
    if (load_seq_cst(&control[LOG_WAITERS]) == 0) /* P12 seq_cst: as above */
        return;
    store_seq_cst(&control[LOG_WAITERS], 0); /* P12 seq_cst: before they are woken: who comes later sets it again */
    idem_futex_wake_all(&control[LOG_WAKE]);
}
