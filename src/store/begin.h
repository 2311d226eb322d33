/* store/begin.h - one decision about a key, shared by idem_begin, idem_begin_many and idem_wait. */
#ifndef IDEM_STORE_BEGIN_H
#define IDEM_STORE_BEGIN_H

#include <string.h>

#include "store/durable.h"
#include "store/reply.h"

#define IDEM_REQUEST_FLAGS (IDEM_HOLD | IDEM_LEASE_ONLY | IDEM_NO_WAIT)

struct idem_ask {
    struct idem_index_key key;
    uint64_t fingerprint;
    uint64_t wait_token;
    uint32_t flags;      /* enum idem_request_flags, ASK_WAITS */
    uint32_t durability; /* enum idem_durability; DEFAULT: the store's */
    int64_t lease_ms;
    int64_t ttl_ms;
};

/* Whoever asks waits, and looks again, while another attempt runs: that it does is not what the caller is told, and is not counted. */
#define ASK_WAITS (1u << 31)

/* What a request says beside its key, in an ask. The request was found sound. */
static inline void idem_ask_fill(const struct idem_view *v, const idem_request *rq, struct idem_ask *ask)
{
    ask->fingerprint = rq->fingerprint;
    ask->wait_token = rq->wait_token;
    ask->flags = rq->flags;
    ask->durability = rq->durability;
    ask->lease_ms = rq->lease_ms != 0 ? rq->lease_ms : v->fixed.lease_ms;
    ask->ttl_ms = rq->ttl_ms != 0 ? rq->ttl_ms : v->fixed.ttl_ms;
}

/* Checks a request. framed: room for scope and key in a row; ask points there, or to the caller's key. Errors: IDEM_E_INVALID. */
int idem_ask_prepare(const struct idem_view *v, const idem_request *request, uint8_t framed[IDEM_KEY_MAX],
                     struct idem_ask *ask);

/* Where the key was seen, perhaps, and a time that was read in this call. */
struct idem_hint {
    uint64_t place;
    int64_t now_ms;
};

/*
 * The verdict. *found is the slot on IDEM_IN_PROGRESS (for who wants to wait on it). The claim and reply were reset. Hazards are clear after it.
 * hint, or NULL: looked at first. Its time may be earlier than the look, even by a day, if we slept in between: an answer or a running claim that is
 * found now was there at that time, or came after it, within this call; so there was a moment in this call for which the verdict is right. What is
 * over at that time is over now.
 */
int idem_decide(struct idem_ctx *ctx, const struct idem_ask *ask, const struct idem_hint *hint, idem_claim *claim,
                idem_reply *reply, struct idem_found *found);

/* Is this attempt lost, and why? Only for final words. */
enum idem_lost_reason idem_lost(const struct idem_view *v, const struct idem_found *f, int64_t now_ms);

/*
 * After idem_decide(): ends the operation. What has to be on the disk before this verdict is given is waited for. Outcomes: the verdict; BEGIN_AGAIN: the
 * attempt is not what it was any more: decide anew. Errors: those of idem_log_wait(); a claim was abandoned then.
 */
#define BEGIN_AGAIN 1000
int idem_begin_settle(struct idem_op *op, int verdict, const struct idem_ask *ask, const struct idem_found *found,
                      const idem_claim *claim, int64_t *left_ms);
/* Pushes a claim that was just published, under its hazards. */
void idem_begin_push(struct idem_ctx *ctx, const struct idem_ask *ask, uint64_t word, bool must);

/* word: of the slot, which names e. */
void idem_claim_fill(const struct idem_view *v, idem_claim *claim, const struct idem_entry *e, uint64_t place,
                     uint64_t hash, uint64_t word);

/* What a claim knows of the word that was published for it: state, unit and generation. Hidden behind a number that only this segment has: one that
   was rebuilt from its log keeps the store's UUID, and gives its addresses out anew. Applied twice it is the word again. */
static inline uint64_t idem_claim_word(const struct idem_view *v, uint64_t word)
{
    uint64_t mine;
    memcpy(&mine, v->log.instance, sizeof mine);
    return word ^ mine;
}
#define CLAIM_WORD ~(WORD_WAITERS | WORD_WHOSE)

static inline int64_t idem_expiry_after(int64_t now_ms, int64_t ttl_ms)
{
    return ttl_ms > IDEM_TTL_MAX_MS ? ENTRY_TIME_MAX : now_ms + ttl_ms; /* that is IDEM_FOREVER */
}

#endif
