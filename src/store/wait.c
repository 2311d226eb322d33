/*
 * store/wait.c - as begin, but waits while another attempt runs.
 *
 * Owns: the WAITERS bit's use. A waiter sets it by CAS, leaves the read section, and sleeps on the slot word's low half for at most 100 ms;
 * then it looks again. It holds nothing while it sleeps, and its mapping may go: the kernel then returns at once.
 * If we die here: the bit stays set; the completer makes one needless system call.
 */
#include <string.h>

#include "base/futex.h"
#include "base/point.h"
#include "store/begin.h"

#define SLEEP_MAX_MS 100

/* Both are more than 0: an attempt whose lease is over is not in progress. */
static int64_t sleep_ms(int64_t left_ms, int64_t lease_left_ms)
{
    int64_t ms = left_ms < SLEEP_MAX_MS ? left_ms : SLEEP_MAX_MS;
    return lease_left_ms < ms ? lease_left_ms : ms;
}

int idem_wait(idem_store *store, const idem_request *request, int64_t timeout_ms, idem_claim *claim, idem_reply *reply)
{
    if (claim == NULL || timeout_ms < 0)
        return idem_fail(IDEM_E_INVALID, "claim: NULL, or timeout_ms (%lld) below 0", (long long)timeout_ms);
    int e = idem_reply_reset(reply);
    if (e != IDEM_OK)
        return e;
    idem_reply unwanted = IDEM_REPLY_INIT;
    idem_reply *r = reply != NULL ? reply : &unwanted;
    int64_t end_ms = idem_clock_raw_ms();
    end_ms = timeout_ms > INT64_MAX - end_ms ? INT64_MAX : end_ms + timeout_ms;
    uint64_t waiting_for = 0;
    bool counted = false;
    int64_t disk_ms = 0;
    for (;;) {
        struct idem_op op;
        struct idem_ask ask;
        uint8_t framed[IDEM_KEY_MAX];
        struct idem_found f;
        memset(claim, 0, sizeof *claim);
        claim->size = sizeof *claim;
        e = idem_enter(store, &op);
        if (e != IDEM_OK) {
            idem_reply_reset(r);
            return e;
        }
        e = idem_ask_prepare(op.ctx.v, request, framed, &ask);
        if (e != IDEM_OK)
            return idem_leave(&op, e);
        ask.flags = (ask.flags & (uint32_t)~IDEM_NO_WAIT) | ASK_WAITS;
        if (waiting_for != 0)
            ask.wait_token = waiting_for;
        e = idem_decide(&op.ctx, &ask, NULL, claim, r, &f);
        if (e != IDEM_IN_PROGRESS) {
            e = idem_begin_settle(&op, e, &ask, &f, claim, &disk_ms);
            if (e == BEGIN_AGAIN) {
                idem_reply_free(r);
                continue;
            }
            if (e < 0) {
                idem_reply_free(r);
                idem_reply_reset(r);
                memset(claim, 0, sizeof *claim);
                claim->size = sizeof *claim;
            }
            break;
        }
        int64_t left_ms = end_ms - idem_clock_raw_ms();
        if (left_ms <= 0) {
            idem_count(&op.ctx, COUNT_IN_PROGRESS);
            e = idem_leave(
                &op, idem_fail(IDEM_E_TIMEOUT, "the other attempt still runs after %lld ms", (long long)timeout_ms));
            break;
        }
        /* The attempt that was waited for may have made room for another one without leaving an answer: then wait for that. */
        waiting_for = r->token;
        if (!counted)
            idem_count(&op.ctx, COUNT_WAITED);
        counted = true;
        bool flagged = idem_index_hold(&op.ctx, &f) && idem_index_set_waiters(&f);
        IDEM_POINT("wait.flagged");
        int64_t lease_left_ms = r->retry_after_ms;
        e = idem_leave(&op, IDEM_OK);
        if (e != IDEM_OK) {
            idem_reply_reset(r);
            return e;
        }
        if (flagged)
            idem_futex_wait(f.slot, f.word, sleep_ms(left_ms, lease_left_ms));
    }
    if (reply == NULL)
        idem_reply_free(&unwanted);
    return e;
}
