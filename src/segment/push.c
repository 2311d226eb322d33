/* segment/push.c - see push.h. */
#include "segment/push.h"

#include "base/point.h"
#include "wal/sync.h"

void idem_push_hurry(const struct idem_view *v)
{
    if (v->wal != NULL)
        idem_log_ask(v->wal, true);
}

void idem_push(struct idem_ctx *ctx, uint64_t word, unsigned durability)
{
    struct idem_view *v = ctx->v;
    struct idem_a64 *control = v->root->log_control;
    if (durability <= IDEM_DURABILITY_NONE || IDEM_FAULT("log.unpushed"))
        return;
    bool sync = durability == IDEM_DURABILITY_SYNC;
    struct idem_ring r = idem_lane_ring(v, ctx->lane);
    uint64_t ticket = idem_ring_push(&r, ref_of_word(word, sync));
    IDEM_POINT("log.pushed");
    if (unlikely(ticket == 0)) { /* who waits makes room by waiting for all of it, and pushes again */
        idem_log_want_walk(control);
        if (sync)
            ctx->ticket = load_relaxed(r.head); /* relaxed: the lane's own */
        store_relaxed(&v->owed, OWED_WALK);     /* relaxed: asked for when no thread is inside a call any more */
        idem_push_hurry(v);
        return;
    }
    if (sync) {
        ctx->ticket = ticket;
        return;
    }
    uint64_t owed = OWED_NOTHING;
    if (unlikely(load_relaxed(&v->owed) == OWED_NOTHING))        /* relaxed: as above */
        cas_relaxed(&v->owed, &owed, OWED_QUEUED);               /* relaxed: as above */
    if (unlikely((ticket & (r.mask >> 3)) == 0)) {               /* an eighth of the ring since the last look */
        uint64_t flushed = load_relaxed(r.flushed) & RING_COUNT; /* relaxed: a hint */
        if (ticket - flushed > r.mask / 2) {
            idem_push_hurry(v);
            return;
        }
    }
    if (unlikely(load_relaxed(&control[LOG_DUE_MS]) == 0) && v->wal != NULL) /* relaxed: a time */
        idem_log_ask(v->wal, false);
}
