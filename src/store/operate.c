/*
 * store/operate.c - what operators do: forget, release, resolve.
 *
 * Owns: changes of a record that its owner has not made. Forget and release change the state alone and need no memory.
 */
#include "base/point.h"
#include "store/finish.h"

enum action { FORGET, RELEASE, RERUN, COMPLETED };

static bool token_matches(const struct idem_found *f, uint64_t token)
{
    return f->entry.token == token || ((f->entry.flags & ENTRY_LOST_BEFORE) != 0 && f->entry.lost_token == token);
}

static bool to_be_settled(const struct idem_view *v, const struct idem_found *f, int64_t now_ms)
{
    return idem_lost(v, f, now_ms) != IDEM_LOST_NONE ||
           (word_state(f->word) == WORD_ABANDONED && (f->entry.flags & ENTRY_LOST_BEFORE) != 0);
}

static int act(struct idem_ctx *ctx, struct idem_found *f, enum action action, uint64_t token,
               const idem_response *response)
{
    int64_t now_ms = idem_view_now_ms(ctx->v);
    if (idem_index_gone(f, now_ms))
        return idem_fail(IDEM_E_NO_KEY, "no record of this key");
    /* We slept: what is over was swept meanwhile, or followed by something else. */
    if (!idem_index_unchanged(f))
        return FINISH_CHANGED;
    unsigned state = WORD_FORGOTTEN;
    if (action == RELEASE) {
        state = WORD_RELEASED;
        if (word_state(f->word) != WORD_IN_PROGRESS || (token != 0 && f->entry.token != token))
            return idem_fail(IDEM_E_LOST, "nothing to release: the key's newest attempt has token %llu%s",
                             (unsigned long long)f->entry.token,
                             word_state(f->word) == WORD_IN_PROGRESS ? "" : " and is not running");
    } else if (action != FORGET) {
        state = WORD_RERUN;
        if (!to_be_settled(ctx->v, f, now_ms) || !token_matches(f, token))
            return idem_fail(IDEM_E_LOST, "nothing to resolve: the key's newest attempt has token %llu%s",
                             (unsigned long long)f->entry.token,
                             to_be_settled(ctx->v, f, now_ms) ? "" : " and is not lost");
    }
    if (action == COMPLETED) {
        int e = idem_finish(ctx, f, response);
        return e != IDEM_E_FULL ? e : idem_fail(e, "the store is full: the key is still unresolved; try again later");
    }
    bool done = idem_index_hold(ctx, f) && idem_index_set_state(f, state);
    IDEM_POINT("operate.swapped");
    if (done && ctx->v->rings != NULL && action == FORGET) /* in any case: its answer may be on its way to the disk */
        idem_push(ctx, f->word,
                  ctx->v->log.durability_complete > IDEM_DURABILITY_NONE ? ctx->v->log.durability_complete
                                                                         : IDEM_DURABILITY_ASYNC);
    else if (done && ctx->v->rings != NULL)
        idem_push_state(ctx, f);
    if (done && action == FORGET)
        idem_index_free(ctx, f,
                        now_ms); /* if its token is of this very tick, or it is not on the disk: the sweep will */
    idem_arena_leave(ctx);
    if (!done)
        return FINISH_CHANGED;
    if (action == FORGET)
        idem_count(ctx, COUNT_FORGOTTEN);
    return IDEM_OK;
}

static int operate(idem_store *store, const idem_key *key, enum action action, uint64_t token,
                   const idem_response *response)
{
    if (key == NULL)
        return idem_fail(IDEM_E_INVALID, "key: NULL");
    struct idem_op op;
    struct idem_index_key k;
    uint8_t framed[IDEM_KEY_MAX];
    int e = idem_enter(store, &op);
    if (e != IDEM_OK)
        return e;
    e = idem_key_prepare(op.ctx.v, key, framed, &k);
    if (e != IDEM_OK)
        return idem_leave(&op, e);
    unsigned durability;
    if (response != NULL)
        e = idem_durability(op.ctx.v, response->durability, op.ctx.v->log.durability_complete, &durability);
    if (e != IDEM_OK)
        return idem_leave(&op, e);
    struct idem_attempt attempt = {0, 0, k.hash};
    e = FINISH_CHANGED;
    for (unsigned tries = 0; e == FINISH_CHANGED && tries < FINISH_TRIES; tries++) {
        struct idem_found f;
        e = idem_index_find(&op.ctx, &k, &f, NULL);
        if (e == FIND_PRESENT) {
            attempt.place = f.place;
            attempt.token = f.entry.token;
            e = act(&op.ctx, &f, action, token, response);
        } else if (e == FIND_ABSENT) {
            e = idem_fail(IDEM_E_NO_KEY, "no record of this key");
        }
    }
    if (e == FINISH_CHANGED)
        e = idem_fail(IDEM_E_CORRUPT, "generation: a key's slot did not hold still; run idem verify");
    if (likely(op.ctx.ticket == 0))
        return idem_leave(&op, e);
    int64_t left_ms = 0;
    return idem_leave_durably(&op, e, &attempt, &left_ms, NULL);
}

int idem_forget(idem_store *store, const idem_key *key)
{
    return operate(store, key, FORGET, 0, NULL);
}

int idem_release(idem_store *store, const idem_key *key, uint64_t token)
{
    return operate(store, key, RELEASE, token, NULL);
}

int idem_resolve(idem_store *store, const idem_key *key, uint64_t token, int resolution, const idem_response *response)
{
    if (resolution != IDEM_RESOLVE_COMPLETED && resolution != IDEM_RESOLVE_RERUN)
        return idem_fail(IDEM_E_INVALID, "resolution: %d; IDEM_RESOLVE_COMPLETED or IDEM_RESOLVE_RERUN", resolution);
    if (resolution == IDEM_RESOLVE_RERUN)
        return operate(store, key, RERUN, token, NULL);
    idem_response none = IDEM_RESPONSE_INIT;
    if (response == NULL)
        response = &none;
    int e = idem_response_check(response);
    if (e == IDEM_OK && (response->flags & IDEM_RESPONSE_TRANSIENT))
        e = idem_fail(IDEM_E_INVALID, "response.flags: a resolution is not transient; use IDEM_RESOLVE_RERUN");
    return e != IDEM_OK ? e : operate(store, key, COMPLETED, token, response);
}
