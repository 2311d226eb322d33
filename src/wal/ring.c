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

uint64_t idem_log_collect_begin(struct idem_a64 *control)
{
    uint64_t seen = load_seq_cst(&control[LOG_COLLECT]), next; /* P12 seq_cst: the number first, then the heads */
    do
        next = ((seen >> 1) + 1) << 1 | 1;
    while (!cas_seq_cst(&control[LOG_COLLECT], &seen, next)); /* P12 seq_cst: as above */
    return next >> 1;
}

void idem_log_collect_end(struct idem_a64 *control, uint64_t number)
{
    uint64_t mine = number << 1 | 1;
    cas_seq_cst(&control[LOG_COLLECT], &mine, number << 1); /* P12 seq_cst: the heads first, then that they were read */
}

uint32_t idem_log_wait_bits(struct idem_a64 *control)
{
    fence_seq_cst();                                        /* P12 seq_cst: the push first, then the number */
    uint64_t collect = load_seq_cst(&control[LOG_COLLECT]); /* P12 seq_cst: as above */
    return idem_log_batch_bit((collect >> 1) + 1) | (collect & 1 ? idem_log_batch_bit(collect >> 1) : 0);
}

void idem_log_waits(struct idem_a64 *control, uint32_t bits)
{
    uint64_t seen = load_seq_cst(&control[LOG_WAITERS]); /* P12 seq_cst: then the futex compares the count */
    while ((seen & bits) != bits && !cas_seq_cst(&control[LOG_WAITERS], &seen, seen | bits)) /* P12 seq_cst: as above */
        ;
}

static void count_up(struct idem_a64 *control)
{
    uint64_t seen = load_seq_cst(&control[LOG_WAKE]);         /* P12 seq_cst: as in count_wake() */
    while (!cas_seq_cst(&control[LOG_WAKE], &seen, seen + 1)) /* P12 seq_cst: as above */
        ;
}

/* Counts, and takes the flags of those who are to be woken. Returns whose flags were set. (One may be left of who was woken for another
   number: then there is a wake too many.) */
static uint32_t count_wake(struct idem_a64 *control, uint32_t stay)
{
    /* P12 seq_cst: the count first, then who waits; a sleeper raises WAITERS first and compares the count then */
    count_up(control);
    uint64_t seen = load_seq_cst(&control[LOG_WAITERS]); /* P12 seq_cst: as above */
    if ((seen & ~(uint64_t)stay) == 0)
        return (uint32_t)seen;
    /* P12 seq_cst: before they are woken: who comes later sets his again */
    while (!cas_seq_cst(&control[LOG_WAITERS], &seen, seen & stay))
        ;
    /* If we slept since we counted, we have taken a flag whose sleeper compares only now, and it was for somebody else's wake. */
    count_up(control);
    return (uint32_t)seen;
}

void idem_log_wake(struct idem_a64 *control)
{
    if (count_wake(control, 0) != 0)
        idem_futex_wake_all(&control[LOG_WAKE]);
}

void idem_log_wake_batch(struct idem_a64 *control, uint64_t number)
{
    uint32_t next = idem_log_batch_bit(number + 1), waited = count_wake(control, next);
    if ((waited & next) != 0)
        idem_futex_wake_bits(&control[LOG_WAKE], 1, next);
    if ((waited & ~next) != 0)
        idem_futex_wake_bits(&control[LOG_WAKE], INT_MAX, ~next);
}

void idem_log_pass_on(struct idem_a64 *control, uint32_t bits)
{
    uint64_t collect = load_seq_cst(&control[LOG_COLLECT]); /* P12 seq_cst: a batch that began since serves them */
    uint32_t next = idem_log_batch_bit((collect >> 1) + 1);
    /* P12 seq_cst: who waits; as above */
    if ((collect & 1) == 0 && (bits & next) != 0 && (load_seq_cst(&control[LOG_WAITERS]) & next) != 0)
        idem_futex_wake_bits(&control[LOG_WAKE], 1, next);
}
