/*
 * wal/ring.h - a lane's queue of references, and the log's words that all processes share.
 *
 * Owns: pushing (one store to a cell, one to the head), the meaning of a reference, the control words. Who is leader, and what is written: see
 * leader.h. The memory lies in the root file; who maps it hands out pointers (struct idem_ring).
 *
 * A reference is 64 bits: a slot word without what only a slot needs.
 *   bits 0-2   the state that was published        bit 3   REF_SYNC: somebody waits for it
 *   bits 4-14  zero                                15-47   the entry's unit           48-63  its region's generation, never 0
 *
 * Invariants
 *  1. Only the lane's owner moves head; only the leader of the present epoch moves flushed, by CAS from a word with its own epoch.
 *  2. flushed <= head <= flushed + cells. A reference stays in its cell until its record is durable (not only written), so that a leader's
 *     death, a failed sync and a successor lose nothing.
 *  3. Who publishes pushes before it clears its hazards. So a lane whose owner is dead and whose hazards are clear has pushed all it
 *     published; one that is not may have one entry without a reference, and the index must be walked for it.
 *  4. A full ring sets overflow (and asks for a walk) instead of pushing; the entry's log word then differs from its slot's state, which is
 *     how the walk finds it.
 *
 * If we die here: between cell and head the reference was not pushed, invariant 3 says so. If we sleep there for a day: the leader sees a hazard
 * that does not move and walks once for it.
 */
#ifndef IDEM_WAL_RING_H
#define IDEM_WAL_RING_H

#include "base/atomic.h"

#define REF_SYNC UINT64_C(8)
#define REF_MASK (~UINT64_C(0x7ff8))
static inline uint64_t ref_of_word(uint64_t slot_word, bool sync)
{
    return (slot_word & REF_MASK) | (sync ? REF_SYNC : 0);
}

/* One lane's. flushed: epoch (16, high) | count (48). head and flushed count references since the lane exists and never go back. */
struct idem_ring {
    struct idem_a64 *head;
    struct idem_a64 *flushed;
    struct idem_a64 *overflow; /* references that found no room */
    struct idem_a64 *cells;
    uint64_t mask; /* number of cells - 1 */
};
#define RING_COUNT ((UINT64_C(1) << 48) - 1)

/* Words of root->log_control, by index. Who changes them: L the leader of the present epoch, A anyone by CAS. */
enum idem_log_control {
    LOG_EPOCH = 0,   /* A: raised by one by who succeeds a leader that lives; stays at 65535: then no more succession */
    LOG_DURABLE = 1, /* L: epoch (16) | position in grains (48). Raised before any lane's flushed. */
    LOG_ASSIGNED = 2, /* L: position up to which log words may name positions; raised before the first does */
    LOG_WRITTEN = 3,  /* L: position up to which the present file was written by a complete batch */
    LOG_SYNCING =
        4, /* L: file number, from before a sync until after it succeeded. Set where no sync runs: that file is poisoned. */
    LOG_FILE = 5, /* L: present file, 0: none yet */
    LOG_CEILING_MS =
        6, /* L: no token may be stamped past it without asking for a batch; durable in the log before it is raised */
    LOG_WAKE = 7,         /* L: counts batches and failures; the futex word of those who wait */
    LOG_WAITERS = 8,      /* A: somebody waits since the last wake */
    LOG_WALK_WANTED = 9,  /* A: raised by one: an entry without a reference may exist */
    LOG_WALK_DONE = 10,   /* L: the value of WANTED before the last walk that is durable */
    LOG_PROGRESS_MS = 11, /* L: raw clock at the last step of a batch: how a stall is seen */
    LOG_TROUBLE = 12,     /* L: enum idem_log_trouble (32, high) | errno */
    LOG_DUE_MS = 13,      /* A: raw clock at which the oldest unflushed push wants a batch; 0: nothing waits */
    LOG_KEEP_FROM = 14,   /* oldest position that a relay of events still needs; 0: none */
    LOG_CONTROL_WORDS = 16
};

/* The only thing on the hot path. Returns the ticket: what flushed must reach; 0: no room, overflow was set (the caller asks for a walk, and
   if it needs sync, makes room by leading a batch first). relaxed: the cell, released by head; one load of flushed, which moves once a batch. */
static inline uint64_t idem_ring_push(const struct idem_ring *r, uint64_t ref)
{
    uint64_t head = load_relaxed(r->head);                    /* relaxed: the lane's own */
    uint64_t flushed = load_acquire(r->flushed) & RING_COUNT; /* P12 acquire: the leader has done with the cell */
    if (unlikely(head - flushed > r->mask)) {
        store_relaxed(r->overflow, load_relaxed(r->overflow) + 1); /* relaxed: a count; the walk is asked for by CAS */
        return 0;
    }
    store_relaxed(&r->cells[head & r->mask], ref); /* relaxed: released by head */
    store_release(r->head, head + 1);              /* P12 release: the cell */
    return head + 1;
}

/* The leader's side: references from + 0 .. < *to that are there. The cells stay taken until idem_ring_flushed(). */
static inline uint64_t idem_ring_head(const struct idem_ring *r)
{
    return load_acquire(r->head); /* P12 acquire: the cells, and what their entries say */
}
/* Raises flushed, from the word seen at collection (its epoch included). False: we are no leader any more. */
static inline bool idem_ring_flushed(const struct idem_ring *r, uint64_t seen, uint64_t to)
{
    return cas_acq_rel(r->flushed, &seen, (seen & ~RING_COUNT) | to); /* P12 release: the cells may be used again */
}
/* A successor's seal: the same count under its epoch. False: another one of a later epoch was here. Returns the sealed word in *sealed. */
bool idem_ring_seal(const struct idem_ring *r, unsigned epoch, uint64_t *sealed);

#endif
