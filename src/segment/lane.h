/*
 * segment/lane.h - one thread's private write path in a store.
 *
 * Owns: taking lanes, finding this thread's lane again, giving it back at the thread's end; counters.
 *
 * Invariants
 *  1. A lane's fields are written by its owner only (a process slot with incarnation, and in it one thread).
 *  2. A new owner clears the hazards it finds before anything else; nobody clears a hazard for somebody.
 *  3. What an owner leaves in `chunks` can be used by the next one: the cursor in `span` was moved before an entry was written.
 *
 * If we die here: the lane's owner is dead, its hazards are ignored by the sweep, and the next thread that needs a lane takes it.
 */
#ifndef IDEM_SEGMENT_LANE_H
#define IDEM_SEGMENT_LANE_H

#include "segment/view.h"

/* What an operation works with. Lives on the stack. */
struct idem_ctx {
    struct idem_view *v;
    struct idem_lane_shm *lane;
    uint64_t owner;  /* as loaded at the operation's start */
    bool want_sweep; /* a chunk was taken: do a little sweeping when the operation is over */
};

/* This thread's lane. Errors: IDEM_E_FULL. */
int idem_lane_enter(struct idem_view *v, struct idem_ctx *ctx);

/* Threads' caches forget this view (by its serial); call before it is unmapped. */
void idem_lane_forget(const struct idem_view *v);

/* Around a fork, in the thread that forks: the child starts with no lanes. */
void idem_lane_before_fork(void);
void idem_lane_after_fork(bool child);

static inline void idem_count(const struct idem_ctx *ctx, enum idem_counter c)
{
    /* relaxed: one writer; a sum over lanes is a snapshot anyhow */
    store_relaxed(&ctx->lane->counters[c], load_relaxed(&ctx->lane->counters[c]) + 1);
}

#endif
