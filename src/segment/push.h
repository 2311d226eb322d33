/*
 * segment/push.h - telling the log what was published.
 *
 * Owns: the order of an operation in a store with a log: publish by CAS, push, mark the replaced entry superseded, clear hazards (docs/wal.md).
 * In a store without one none of this is called, or returns at its first branch.
 *
 * If we die here: see wal/ring.h, invariant 3; the lane's hazards are still set.
 */
#ifndef IDEM_SEGMENT_PUSH_H
#define IDEM_SEGMENT_PUSH_H

#include "segment/lane.h"

static inline struct idem_ring idem_lane_ring(const struct idem_view *v, struct idem_lane_shm *lane)
{
    return (struct idem_ring){&lane->log_head, &lane->log_flushed, &lane->log_overflow,
                              v->rings + (uint64_t)(lane - v->lanes) * v->log.ring_refs, v->log.ring_refs - 1};
}

/* word: of the slot, as published. durability: enum idem_durability; with IDEM_DURABILITY_SYNC the ticket goes to ctx->ticket, NONE pushes
   nothing. In a store with a log only. */
void idem_push(struct idem_ctx *ctx, uint64_t word, unsigned durability);

/* The entry that `word` named, and whose log word this is, has left its slot, and what came after it was pushed by this lane: it needs no record. Its
   region is held. */
static inline void idem_supersede(struct idem_ctx *ctx, uint64_t word, struct idem_a64 *log_word)
{
    uint64_t none = 0;
    if (!cas_acq_rel(log_word, &none, LOG_WORD_SUPERSEDED)) /* P12 release: the push comes before */
        return;
    struct idem_ring r = idem_lane_ring(ctx->v, ctx->lane);
    idem_ring_supersede(&r, ref_of_word(word, false));
}

/* A batch is wanted now. */
void idem_push_hurry(const struct idem_view *v);

/* A token was stamped with this time: beyond what the log promises, it has to promise more. */
static inline void idem_push_ceiling(const struct idem_view *v, int64_t token_ms)
{
    if (unlikely(token_ms > (int64_t)load_relaxed(&v->root->log_control[LOG_CEILING_MS]))) /* relaxed: it only grows */
        idem_push_hurry(v);
}

/* The time that a token is made of. */
static inline int64_t idem_token_ms(const struct idem_view *v, int64_t now_ms)
{
    return now_ms > v->log.floor_ms ? now_ms : v->log.floor_ms;
}

#endif
