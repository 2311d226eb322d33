/*
 * wal/ring.h - a lane's queue of references, and the log's words that all processes share.
 *
 * Owns: pushing (one store to a cell, one to the head), the meaning of a reference, the control words. Who is leader, and what is written: see
 * leader.h. The memory lies in the root file; who maps it hands out pointers (struct idem_ring).
 *
 * A reference is 64 bits: a slot word without what only a slot needs.
 *   bits 0-2   the state that was published        bit 3   REF_SYNC: somebody waits for it
 *   bit 4      REF_SUPERSEDED: the pusher has pushed what came after it, too
 *   bits 5-14  zero                                15-47   the entry's unit           48-63  its region's generation, never 0
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
#include "wal/format.h"

#define REF_SYNC       UINT64_C(8)
#define REF_SUPERSEDED UINT64_C(16)
#define REF_MASK       (~UINT64_C(0x7ff8))
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

/*
 * Words of root->log_control, by index. Who changes them: L the leader, A anyone by CAS.
 * Those marked E are epoch (16, high) | value (48), and are changed by CAS from a word with the leader's own epoch: one that was succeeded
 * (its words were sealed with the next epoch) changes none of them any more. Positions are counted in grains there.
 */
/* Tokens are promised for so long ahead of the store's time, so that not each of them needs a record (LOG_CEILING_MS). */
#define IDEM_LOG_AHEAD_MS 60000

enum idem_log_control {
    LOG_EPOCH = 0,   /* A: raised by one by who succeeds a leader that lives; stays at 65535: then no more succession */
    LOG_DURABLE = 1, /* L, E: all below this position is on the disk. Raised before any lane's flushed. */
    LOG_ASSIGNED = 2, /* L, E: position below which bytes may have been written; raised before they are */
    LOG_WRITTEN = 3,  /* L, E: position up to which the present file was written by a complete batch */
    LOG_SYNCING = 4,  /* L, E: file number, from before a sync until after it succeeded. Set where no sync runs: that
                         file is poisoned. */
    LOG_FILE = 5,     /* L, E: present file */
    LOG_CEILING_MS =
        6, /* L: no token may be stamped past it without asking for a batch; durable in the log before it is raised */
    LOG_WAKE = 7,    /* L: counts batches and failures; the futex word of those who wait */
    LOG_WAITERS = 8, /* A: since the last wake somebody waits for the batches of these numbers, modulo 32, a bit each */
    LOG_WALK_WANTED = 9,  /* A: raised by one: an entry without a reference may exist */
    LOG_WALK_DONE = 10,   /* L: the value of WANTED before the last walk that is durable */
    LOG_PROGRESS_MS = 11, /* L: store ms at the last step of a batch: how a stall is seen */
    LOG_TROUBLE = 12,     /* L: enum idem_log_trouble (32, high) | errno */
    LOG_DUE_MS = 13,      /* A: store ms at which the oldest unflushed push wants a batch; 0: nothing waits */
    LOG_KEEP_FROM = 14,   /* oldest position that a relay of events still needs; 0: none */
    LOG_DRAINED_MS =
        15, /* L: store ms before which every reference was pushed that is not in a ring any more: how old one can be */
    /* Figures, and what one leader tells the next. */
    LOG_OLDEST = 16,     /* oldest file that is needed */
    LOG_EXPIRY_MS = 17,  /* newest expiry in the present file */
    LOG_LIVE_BYTES = 18, /* of records still needed, by the last walk */
    LOG_DISK_BYTES = 19, /* of all files */
    LOG_BATCHES = 20,
    LOG_RECORDS = 21,
    LOG_SYNCS = 22,
    LOG_SYNC_FAILURES = 23,
    LOG_POISONED = 24,
    LOG_WAITS = 25,
    LOG_STALLS = 26,
    LOG_WALKS = 27,
    LOG_COLLECT =
        28, /* L: number of the newest batch that was collected (63, high) | 1: is being collected. Without an epoch: a hint for wakes */
    LOG_RETAINED = 29, /* L: the last durable REC_RETAIN gives up all files below it; raised before one is deleted */
    LOG_FSYNC_SUM_US = 31,
    LOG_FSYNC_US = 32, /* 24 words */
    LOG_CONTROL_WORDS = 64
};
#define LOG_VALUE_MASK ((UINT64_C(1) << 48) - 1)
static inline uint64_t log_epoch_word(unsigned epoch, uint64_t value)
{
    return (uint64_t)epoch << 48 | (value & LOG_VALUE_MASK);
}
static inline uint64_t log_position_word(unsigned epoch, uint64_t position)
{
    return log_epoch_word(epoch, position / IDEM_WAL_GRAIN);
}
static inline uint64_t log_position_of(uint64_t word)
{
    return (word & LOG_VALUE_MASK) * IDEM_WAL_GRAIN;
}

/* For a store that nobody has opened yet: the log ends at `end`, all of it durable, in file `file`. */
static inline void idem_log_control_begin(struct idem_a64 *control, unsigned epoch, uint64_t end, uint64_t file,
                                          int64_t ceiling_ms)
{
    /* relaxed: published with the root */
    store_relaxed(&control[LOG_EPOCH], epoch);                            /* relaxed: as above */
    store_relaxed(&control[LOG_DURABLE], log_position_word(epoch, end));  /* relaxed: as above */
    store_relaxed(&control[LOG_ASSIGNED], log_position_word(epoch, end)); /* relaxed: as above */
    store_relaxed(&control[LOG_WRITTEN], log_position_word(epoch, end));  /* relaxed: as above */
    store_relaxed(&control[LOG_SYNCING], log_epoch_word(epoch, 0));       /* relaxed: as above */
    store_relaxed(&control[LOG_FILE], log_epoch_word(epoch, file));       /* relaxed: as above */
    store_relaxed(&control[LOG_CEILING_MS], (uint64_t)ceiling_ms);        /* relaxed: as above */
    store_relaxed(&control[LOG_OLDEST], file);                            /* relaxed: as above */
}

/* Is an entry's log word about its state, and its record on the disk? */
static inline bool idem_log_word_durable(const struct idem_a64 *control, uint64_t word, unsigned state)
{
    return log_word_says(word, state) &&
           /* P12 acquire: the sync came before */
           log_word_position(word) < log_position_of(load_acquire(&control[LOG_DURABLE]));
}

/* An entry without a reference may exist: the index has to be walked. */
void idem_log_want_walk(struct idem_a64 *control);

/*
 * Wakes. Who pushed and then finds n in LOG_COLLECT is on the disk after batch n + 1 at the latest, and not after n if collecting that was over.
 * So he sleeps for these numbers only, and a batch does not wake those whom it has not served. (Who was held up between pushing and
 * looking may be woken a batch late.) It is a matter of speed: each sleep is bounded.
 */
static inline uint32_t idem_log_batch_bit(uint64_t number)
{
    return UINT32_C(1) << (number % 32);
}
/* Which numbers a push that came before waits for. */
uint32_t idem_log_wait_bits(struct idem_a64 *control);
/* Says that somebody is about to sleep for these. */
void idem_log_waits(struct idem_a64 *control, uint32_t bits);
/* A leader's, around collecting. Returns the batch's number. */
uint64_t idem_log_collect_begin(struct idem_a64 *control);
void idem_log_collect_end(struct idem_a64 *control, uint64_t number);
/* Something has ended, well or badly: all who wait look again. */
void idem_log_wake(struct idem_a64 *control);
/* Batch `number` has ended well, and its leader has resigned: one of those who wait for the next one is woken to lead it, then all others but
   these. If that one is dead or stopped, the rest look again within their bound, or who pushes next leads. */
void idem_log_wake_batch(struct idem_a64 *control, uint64_t number);
/* Who slept for these, and has what he wanted, may be the one who was woken to lead the next batch: somebody else has to. */
void idem_log_pass_on(struct idem_a64 *control, uint32_t bits);

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

/* How far back a lane's owner looks for what it has superseded: a claim is answered by who made it, soon, as a rule. */
#define RING_LOOK_BACK 8u

/*
 * The owner's: the newest reference is for what came after `ref`'s entry; if that one is still among those before it, it says so. Then a leader need not
 * look at the entry. It means what the entry's log word means (LOG_WORD_SUPERSEDED), and does no harm in a cell that was flushed.
 */
static inline void idem_ring_supersede(const struct idem_ring *r, uint64_t ref)
{
    uint64_t head = load_relaxed(r->head); /* relaxed: the lane's own */
    for (uint64_t i = 2; i <= RING_LOOK_BACK && i <= head; i++) {
        struct idem_a64 *at = &r->cells[(head - i) & r->mask];
        uint64_t there = load_relaxed(at); /* relaxed: the lane's own */
        if ((there & ~REF_SYNC) == ref) {
            store_release(at, there | REF_SUPERSEDED); /* P12 release: what came after it is pushed */
            return;
        }
    }
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
