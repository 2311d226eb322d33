/*
 * store/enter.h - the start and the end of an operation, inlined for those that are as fast as memory.
 *
 * Owns: which of idem_enter()'s and idem_leave()'s checks can be made in a few instructions. Whatever is unusual is theirs.
 */
#ifndef IDEM_STORE_ENTER_H
#define IDEM_STORE_ENTER_H

#include "store/handle.h"

/* liburcu's read lock inlined, as its header offers. Not under a sanitizer, which finds that liburcu-bp keeps its readers at addresses
   that are not multiples of 128. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define _LGPL_SOURCE
#endif
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include <urcu-bp.h>
#pragma GCC diagnostic pop

#ifdef _LGPL_SOURCE
/* Where liburcu's variable of this thread lies: asked for once a thread, since asking is a call (four of them in an operation, a tenth of
   its time). Not what is in it: liburcu clears it at the thread's end, and later destructors may still come here. */
extern _Thread_local struct urcu_bp_reader **idem_reader_at __attribute__((tls_model("initial-exec")));

static inline struct urcu_bp_reader *idem_reader(void)
{
    if (unlikely(idem_reader_at == NULL))
        idem_reader_at = &URCU_TLS(urcu_bp_reader);
    return *idem_reader_at;
}

/* _urcu_bp_read_lock() and _urcu_bp_read_unlock() with that. */
static inline void idem_read_lock(void)
{
    if (unlikely(idem_reader() == NULL))
        urcu_bp_register();
    struct urcu_bp_reader *r = *idem_reader_at;
    cmm_barrier();
    unsigned long nested = r->ctr;
    if (likely((nested & URCU_BP_GP_CTR_NEST_MASK) == 0)) {
        _CMM_STORE_SHARED(r->ctr, _CMM_LOAD_SHARED(urcu_bp_gp.ctr));
        urcu_bp_smp_mb_slave();
    } else {
        _CMM_STORE_SHARED(r->ctr, nested + URCU_BP_GP_COUNT);
    }
}

static inline void idem_read_unlock(void)
{
    struct urcu_bp_reader *r = *idem_reader_at;
    urcu_bp_smp_mb_slave();
    _CMM_STORE_SHARED(r->ctr, r->ctr - URCU_BP_GP_COUNT);
    cmm_barrier();
}
#else
#define idem_read_lock   urcu_bp_read_lock
#define idem_read_unlock urcu_bp_read_unlock
#endif

#define IDEM_STALE_CHECK_MS 500

/* Opens the read section; the view is there until it ends. It may turn out to be stale: idem_enter_rest() sees to that. */
static inline struct idem_view *idem_enter_view(struct idem_store *s)
{
    idem_read_lock();
    return rcu_dereference(s->view); /* P10 acquire: the view is complete */
}

/* Goes on after idem_enter_view(). False: nothing is held, and idem_enter() does it all (and tells what is wrong). What idem_enter() does
   by the clock is still to be done: idem_enter_recent(). */
static inline bool idem_enter_rest(struct idem_store *s, struct idem_view *v, struct idem_op *op)
{
    op->store = s;
    /* relaxed: as in idem_enter() */
    bool trouble = (idem_fork_epoch() != load_relaxed(&s->fork_epoch)) | (int)idem_view_lost(v) |
                   (load_relaxed(&v->root->dead) != 0) | (load_relaxed(&v->poisoned) != 0);
    if (likely(!trouble) && likely(idem_lane_enter_last(v, &op->ctx)))
        return true;
    idem_read_unlock();
    return false;
}

/* Was it looked at lately whether the store was replaced? False: leave, and let idem_enter() look. */
static inline bool idem_enter_recent(const struct idem_view *v, int64_t now_ms)
{
    return now_ms - (int64_t)load_relaxed(&v->checked_ms) < IDEM_STALE_CHECK_MS; /* relaxed: as in idem_enter() */
}

/* Before anything has happened: what was begun here is done in another way. */
static inline void idem_leave_undone(struct idem_op *op)
{
    idem_arena_leave(&op->ctx);
    idem_read_unlock();
}

static inline int idem_leave_fast(struct idem_op *op, int result)
{
    if (unlikely(idem_lane_owes(op->ctx.lane)) ||
        unlikely(load_relaxed(&op->ctx.v->poisoned) != 0)) /* relaxed: as in idem_enter() */
        return idem_leave(op, result);
    idem_arena_leave(&op->ctx);
    idem_read_unlock();
    return result;
}

#endif
