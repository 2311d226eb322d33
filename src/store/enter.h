/*
 * store/enter.h - the start and the end of an operation, inlined for those that are as fast as memory.
 *
 * Owns: which of idem_enter()'s and idem_leave()'s checks can be made in a few instructions. Whatever is unusual is theirs.
 */
#ifndef IDEM_STORE_ENTER_H
#define IDEM_STORE_ENTER_H

#include "store/handle.h"

/* liburcu's read lock inlined (its header means it to be): two calls and two look-ups of thread storage less on each operation. Not under
   a sanitizer, which finds that liburcu-bp keeps its readers at addresses that are not multiples of 128. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define _LGPL_SOURCE
#endif
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include <urcu-bp.h>
#pragma GCC diagnostic pop

#define IDEM_STALE_CHECK_MS 500

static inline bool idem_slot_lost(const struct idem_view *v)
{
    uint64_t owner = v->process.owner;
    /* relaxed: a foreign change, seen sooner or later */
    uint64_t x = load_relaxed(&v->process.table[idem_owner_slot(owner)].incarnation);
    return (x & IDEM_INCARNATION_MASK) != idem_owner_incarnation(owner);
}

/* Opens the read section; the view is there until it ends. It may turn out to be stale: idem_enter_rest() sees to that. */
static inline struct idem_view *idem_enter_view(struct idem_store *s)
{
    urcu_bp_read_lock();
    return rcu_dereference(s->view); /* P10 acquire: the view is complete */
}

/* Goes on after idem_enter_view(). False: nothing is held, and idem_enter() does it all (and tells what is wrong). What idem_enter() does
   by the clock is still to be done: idem_enter_recent(). */
static inline bool idem_enter_rest(struct idem_store *s, struct idem_view *v, struct idem_op *op)
{
    op->store = s;
    /* relaxed: as in idem_enter() */
    bool trouble = (idem_fork_epoch() != load_relaxed(&s->fork_epoch)) | (int)idem_slot_lost(v) |
                   (load_relaxed(&v->root->dead) != 0) | (load_relaxed(&v->poisoned) != 0);
    if (likely(!trouble) && likely(idem_lane_enter_last(v, &op->ctx)))
        return true;
    urcu_bp_read_unlock();
    return false;
}

/* Was it looked at lately whether the store was replaced? False: leave, and let idem_enter() look. */
static inline bool idem_enter_recent(const struct idem_view *v, int64_t now_ms)
{
    return now_ms - (int64_t)load_relaxed(&v->checked_ms) < IDEM_STALE_CHECK_MS; /* relaxed: as in idem_enter() */
}

static inline int idem_leave_fast(struct idem_op *op, int result)
{
    if (unlikely(op->ctx.want_sweep) ||
        unlikely(load_relaxed(&op->ctx.v->poisoned) != 0)) /* relaxed: as in idem_enter() */
        return idem_leave(op, result);
    idem_arena_leave(&op->ctx);
    urcu_bp_read_unlock();
    return result;
}

#endif
