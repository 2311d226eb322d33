/*
 * store/durable.c - see durable.h.
 *
 * Between two operations the view is pinned, so that its mapping and its log stay while the disk is waited for; no read section is held.
 * If we die here: everything was pushed; any survivor writes it.
 */
#include "store/durable.h"

#include <errno.h>

#include "wal/sync.h"

#define ROUNDS 1000u

int idem_durability(const struct idem_view *v, uint32_t asked, uint32_t by_default, unsigned *durability)
{
    if (asked > IDEM_DURABILITY_SYNC || (asked > IDEM_DURABILITY_NONE && v->rings == NULL))
        return idem_fail(
            IDEM_E_INVALID,
            "durability: %u is unknown, or this store has no log: only IDEM_DURABILITY_NONE then; create it "
            "with options.wal_dir",
            asked);
    *durability = asked != IDEM_DURABILITY_DEFAULT ? asked : by_default;
    return IDEM_OK;
}

int idem_durable_answer(struct idem_ctx *ctx, const struct idem_found *f, bool asked)
{
    const struct idem_entry *e = &f->entry;
    asked |= e->kind == ENTRY_CLAIM || (e->flags & ENTRY_SYNC) != 0;
    if (ctx->v->rings == NULL || IDEM_FAULT("log.untold") || !asked)
        return IDEM_OK;
    uint64_t word = load_acquire(&e->at[4]); /* P12 acquire: the record it names is on the disk */
    if (!idem_index_unchanged(f))
        return 1;
    if (!idem_log_word_durable(ctx->v->root->log_control, word, word_state(f->word)))
        idem_push(ctx, f->word, IDEM_DURABILITY_SYNC);
    return IDEM_OK;
}

void idem_push_state(struct idem_ctx *ctx, const struct idem_found *f)
{
    unsigned durability = ctx->v->log.durability_claim;
    /* relaxed: a record that is being written at this moment is of the state before, and says less than it might */
    if (durability == IDEM_DURABILITY_NONE && (load_relaxed(&f->entry.at[4]) & LOG_WORD_LOGGED) != 0)
        durability = IDEM_DURABILITY_ASYNC;
    idem_push(ctx, f->word, durability);
}

/* What the slot says of the attempt by now; pushes it again if that is not on the disk. */
static int look_again(struct idem_op *op, const struct idem_attempt *a, unsigned *state)
{
    struct idem_found f;
    *state = WORD_TENTATIVE;
    for (unsigned tries = 0; tries < ROUNDS; tries++) {
        int e = idem_index_at(&op->ctx, a->place, a->token, a->hash, &f);
        if (e != FIND_PRESENT)
            return e < 0 ? e : IDEM_OK;
        uint64_t word = load_acquire(&f.entry.at[4]); /* P12 acquire: as above */
        if (!idem_index_unchanged(&f))
            continue;
        *state = word_state(f.word);
        if (!idem_log_word_durable(op->ctx.v->root->log_control, word, *state))
            idem_push(&op->ctx, f.word, IDEM_DURABILITY_SYNC);
        return IDEM_OK;
    }
    return idem_fail(IDEM_E_CORRUPT, "generation: a key's slot did not hold still; run idem verify");
}

static int wait_once(struct idem_op *op, int result, int64_t *left_ms)
{
    struct idem_view *v = op->ctx.v;
    struct idem_ring ring = idem_lane_ring(v, op->ctx.lane);
    uint64_t ticket = op->ctx.ticket;
    op->ctx.ticket = 0;
    if (*left_ms == 0)
        *left_ms = v->log.log_wait_ms;
    idem_view_pin(v);
    result = idem_leave(op, result);
    if (result >= 0) {
        int64_t began_ms = idem_view_now_ms(v);
        int e = v->wal == NULL ? idem_fail(IDEM_E_LOG, "the log is not open")
                               : idem_log_wait(v->wal, &ring, ticket, *left_ms);
        *left_ms -= idem_view_now_ms(v) - began_ms;
        if (*left_ms < 1)
            *left_ms = 1;
        result = e < 0 ? e : result;
    }
    int kept = errno;
    idem_view_unpin(v);
    errno = kept;
    return result;
}

int idem_leave_durably(struct idem_op *op, int result, const struct idem_attempt *a, int64_t *left_ms, unsigned *state)
{
    unsigned ignored;
    if (state == NULL)
        state = &ignored;
    *state = WORD_TENTATIVE;
    if (op->ctx.ticket == 0 || IDEM_FAULT("log.unwaited"))
        return idem_leave(op, result);
    struct idem_store *store = op->store;
    for (unsigned round = 0; round < ROUNDS; round++) {
        int e = wait_once(op, result, left_ms);
        if (e < 0)
            return e;
        e = idem_enter(store, op);
        if (e != IDEM_OK)
            return e;
        e = look_again(op, a, state);
        if (e < 0 || op->ctx.ticket == 0)
            return idem_leave(op, e < 0 ? e : result);
    }
    return idem_leave(op, idem_fail(IDEM_E_LOG_STALLED, "%s: an entry that moves again and again", store->path));
}

int idem_settled(struct idem_store *store, const struct idem_attempt *a, int64_t *left_ms)
{
    struct idem_op op;
    unsigned state, waited;
    int e = idem_enter(store, &op);
    if (e != IDEM_OK)
        return e;
    e = look_again(&op, a, &state);
    bool pushed = op.ctx.ticket != 0;
    e = idem_leave_durably(&op, e, a, left_ms, &waited);
    return e < 0 ? e : (pushed ? waited : state) == WORD_IN_PROGRESS;
}
