/*
 * store/durable.h - waiting for the disk at an operation's end.
 *
 * Owns: the step from a ticket to an acknowledgement. The ticket says only that what was pushed, or what came after it, is on the disk: so the
 * caller's own attempt is looked at again, and pushed again if it was moved meanwhile.
 */
#ifndef IDEM_STORE_DURABLE_H
#define IDEM_STORE_DURABLE_H

#include "segment/push.h"
#include "store/handle.h"

/* An attempt on a key. */
struct idem_attempt {
    uint64_t place, token, hash;
};

/* What is asked for, or the store's own (by_default). Errors: IDEM_E_INVALID: a durability in a store without a log. */
int idem_durability(const struct idem_view *v, uint32_t asked, uint32_t by_default, unsigned *durability);

/* Of an answer that is about to be given: it has to be on the disk first, if it was stored so or the caller asked for that. f was just found and
   copied from. Sets ctx->ticket. Outcomes: IDEM_OK; 1: it changed, look again. */
int idem_durable_answer(struct idem_ctx *ctx, const struct idem_found *f, bool asked);

/* A held entry has changed its state alone: pushed as the store's claims are; with those not logged, only if it was logged before. */
void idem_push_state(struct idem_ctx *ctx, const struct idem_found *f);

/*
 * Instead of idem_leave(): ends the operation, and if something was pushed that has to be on the disk (ctx->ticket), waits until what the slot says
 * of this attempt is. *left_ms: of the store's bound, set to 0 before the first call of a chain. *state, if wanted: in which state the attempt is
 * then, WORD_TENTATIVE: it is not there any more. Outcomes: result. Errors: those of idem_log_wait(); what was done in memory stands.
 */
int idem_leave_durably(struct idem_op *op, int result, const struct idem_attempt *attempt, int64_t *left_ms,
                       unsigned *state);

/* After a wait that was for several: is this claim still running, and on the disk? Pushes it and waits again if need be. Outcomes: 1 it is, 0 it is over.
   Errors: as above. */
int idem_settled(struct idem_store *store, const struct idem_attempt *attempt, int64_t *left_ms);

#endif
