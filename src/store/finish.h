/* store/finish.h - storing an outcome in a key's slot, shared by idem_complete and idem_resolve. */
#ifndef IDEM_STORE_FINISH_H
#define IDEM_STORE_FINISH_H

#include "store/begin.h"

/* Errors: IDEM_E_INVALID. */
int idem_response_check(const idem_response *response);

static inline unsigned idem_response_durability(const struct idem_view *v, const idem_response *r)
{
    return r->durability != IDEM_DURABILITY_DEFAULT ? r->durability : v->log.durability_complete;
}

/* When an answer that is given now expires, to a request that was claimed at at_ms, until expiry_ms. */
static inline int64_t idem_response_expiry(const idem_response *r, int64_t at_ms, int64_t expiry_ms, int64_t now_ms)
{
    int64_t ttl_ms = r->ttl_ms != 0 ? r->ttl_ms : expiry_ms >= ENTRY_TIME_MAX ? IDEM_FOREVER : expiry_ms - at_ms;
    return idem_expiry_after(now_ms, ttl_ms);
}

#define FINISH_CHANGED 1000 /* the slot changed: look again; never returned to a caller of the library */

/*
 * f holds the attempt (just found). Outcomes: IDEM_OK, IDEM_TOMBSTONE, FINISH_CHANGED. Errors: IDEM_E_FULL (a transient answer has no
 * room; or no room and another completer of the same claim is in the middle of recording its outcome), IDEM_E_TOO_BIG (transient).
 * Hazards are clear after it.
 */
int idem_finish(struct idem_ctx *ctx, struct idem_found *f, const idem_response *response);

/* The slot of a claim. Outcomes: FIND_PRESENT, FIND_ABSENT (fenced). Errors: IDEM_E_INVALID, IDEM_E_STALE, IDEM_E_CORRUPT. */
int idem_claim_find(struct idem_ctx *ctx, const idem_claim *claim, struct idem_found *f);

/* idem_abandon(), nothing happened, without waiting for the disk: for who could not give a claim out. */
void idem_abandon_quietly(struct idem_store *store, const idem_claim *claim);

#define FINISH_TRIES 100000u

#endif
