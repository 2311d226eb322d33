/* tests/unit/recover_log.h - what the tests of recovery share: a log with all kinds of records, and what has to come back of it. */
#ifndef TESTS_UNIT_RECOVER_LOG_H
#define TESTS_UNIT_RECOVER_LOG_H

#include "unit/recovery_of.h"

#include <sys/stat.h>

/* A log with all kinds of records; the last batch is vouched for by nobody. Its tokens are store times, as real ones. */
static inline void write_log(struct hand_log *l, const char *dir)
{
    CHECK_IS(mkdir(dir, 0700), 0);
    hand_open(l, dir);
    hand_file(l, true);
    uint64_t t = (uint64_t)LOG_T0 << 16;
    hand_add(l, hand_claim(l, "done", t));
    struct idem_rec running = hand_claim(l, "running", t + 1);
    running.mark = (const uint8_t *)"half way";
    running.mark_bytes = 8;
    hand_add(l, running);
    hand_flush(l, true);
    hand_add(l, hand_answer(l, "done", t, "the answer"));
    struct idem_rec gone = hand_answer(l, "expired", t + 2, "old");
    gone.expiry_ms = LOG_T0 + 1000;
    hand_add(l, gone);
    hand_flush(l, true);
    hand_file(l, true);
    hand_add(l, hand_answer(l, "forgotten", t + 3, "forget it"));
    hand_flush(l, true);
    struct idem_rec forget = hand_claim(l, "forgotten", t + 3);
    forget.kind = REC_FORGOTTEN;
    forget.state = REC_GONE;
    hand_add(l, forget);
    hand_flush(l, true);
    hand_add(l, hand_answer(l, "tail", t + 4, "a tail"));
    hand_add(l, hand_claim(l, "torn", t + 5));
    hand_flush(l, true);
}

static inline int ask(idem_store *store, const char *key, idem_claim *claim, idem_reply *reply)
{
    idem_request rq = support_request(key);
    rq.fingerprint = 7;
    *reply = (idem_reply)IDEM_REPLY_INIT;
    return idem_begin(store, &rq, claim, reply);
}

static inline void what_the_log_said(const char *dir)
{
    idem_store *store = support_attach(dir);
    idem_claim claim;
    idem_reply reply;
    CHECK_IS(ask(store, "done", &claim, &reply), IDEM_REPLAY);
    CHECK_BYTES(reply.body, reply.body_bytes, "the answer");
    CHECK(reply.age_ms >= 4000 && reply.age_ms < 600000); /* time went on while the machine was away */
    idem_reply_free(&reply);
    CHECK_IS(ask(store, "tail", &claim, &reply), IDEM_REPLAY);
    idem_reply_free(&reply);
    CHECK_IS(idem_lookup(store, &(idem_key){NULL, 0, "running", 7}, NULL), IDEM_UNKNOWN);
    CHECK_IS(idem_lookup(store, &(idem_key){NULL, 0, "expired", 7}, NULL), IDEM_E_NO_KEY);
    CHECK_IS(idem_lookup(store, &(idem_key){NULL, 0, "forgotten", 9}, NULL), IDEM_E_NO_KEY);
    idem_close(store);
    support_verify(dir);
}

#endif
