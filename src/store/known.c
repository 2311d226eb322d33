/*
 * store/known.c - see known.h: what is neither a replay nor a claim.
 *
 * If we die here: nothing was changed.
 */
#include "store/known.h"

int idem_known_otherwise(struct idem_ctx *ctx, const struct idem_ask *ask, const struct idem_look *look, int64_t now_ms,
                         idem_reply *reply)
{
    const struct idem_view *v = ctx->v;
    const struct idem_index_key *key = &ask->key;
    unsigned state = word_state(look->word);
    uint64_t unit = word_unit(look->word), kind = state == WORD_IN_PROGRESS ? ENTRY_CLAIM : ENTRY_RESPONSE;
    if ((state != WORD_IN_PROGRESS && state != WORD_COMPLETED) ||
        idem_entry_bytes((uint32_t)kind, key->key_bytes, 0, 0) > idem_known_room(v, unit))
        return 0;
    const struct idem_a64 *at = v->arena + unit * 2;
    uint64_t facts = (uint64_t)key->key_bytes | (uint64_t)key->scope_bytes << 11 | kind << 22;
    uint64_t w0 = load_relaxed(&at[0]); /* relaxed: as in idem_known() */
    if ((w0 & KNOWN_FACTS) != facts ||
        !idem_shared_equal(at + idem_entry_words((uint32_t)kind), key->framed, key->key_bytes))
        return 0;
    IDEM_POINT("find.found");
    int64_t expiry_ms = (int64_t)(load_relaxed(&at[3]) & LOW48);                       /* relaxed: as above */
    int64_t over_ms = kind == ENTRY_CLAIM ? (int64_t)load_relaxed(&at[8]) : expiry_ms; /* relaxed: as above */
    if (now_ms >= over_ms)
        return 0;
    if (load_relaxed(&at[2]) != ask->fingerprint) { /* relaxed: as above */
        if (!idem_known_unchanged(look))
            return 0;
        idem_count(ctx, COUNT_MISMATCHED);
        return IDEM_MISMATCH;
    }
    uint64_t token = load_relaxed(&at[1]), w5 = load_relaxed(&at[5]);       /* relaxed: as above */
    uint64_t owner = load_relaxed(&at[7]), previous = load_relaxed(&at[9]); /* relaxed: as above */
    bool lease_only = (w0 >> 25 & ENTRY_LEASE_ONLY) != 0;
    if (kind != ENTRY_CLAIM || owner == IDEM_OWNER_CRASHED || (ask->wait_token != 0 && previous != 0) ||
        (!lease_only && idem_process_dead(&v->process, owner)) || !idem_known_unchanged(look))
        return 0;
    if (reply != NULL) {
        reply->token = token;
        reply->attempt = (uint32_t)(w5 >> 48);
        reply->retry_after_ms = over_ms - now_ms;
        reply->expires_in_ms = idem_time_left(expiry_ms, now_ms);
    }
    idem_count(ctx, COUNT_IN_PROGRESS);
    return IDEM_IN_PROGRESS;
}
