/* wal/ring.c - see ring.h. */
#include "wal/ring.h"

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
