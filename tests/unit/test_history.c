/*
 * tests/unit/test_history.c - the checker of histories (support/history.h) knows right ones from wrong ones, and tells the wrong ones briefly.
 */
#include "support/history.h"
#include "support/support.h"

#define LEASE_MS 1000
#define TTL_MS   2000

#define DEAD_FROM 100 /* worker 1 of a planted history is killed then, and known to be gone at once */

/* Stamps 10 apart, in the order of the list, unless `returned` says otherwise; all in the first second of store time unless at_ms does. */
struct planted {
    bool there;
    enum history_kind kind;
    uint32_t worker;
    int verdict;
    uint64_t token, lost_token, value, fingerprint;
    int64_t at_ms;
    uint64_t returned, wait_token;
    bool waits, transient, durable, synced;
};
struct plant {
    const char *what;
    bool right;
    struct planted calls[6];
};

#define NEVER UINT64_MAX /* it was cut off */

#define CALL(k, w, v, ...)                                                     \
    {                                                                          \
        .there = true, .kind = (k), .worker = (w), .verdict = (v), __VA_ARGS__ \
    }

static const struct plant plants[] = {
    {"a claim, its answer, its replay",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7)}},
    {"two owners",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11)}},
    {"two owners, one of them after the other's lease",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11, .at_ms = 1500)}},
    {"the same, who is told of the loss",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10),
      CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 11, .lost_token = 10, .at_ms = 1500)}},
    {"a takeover within the lease of a living owner",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10),
      CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 11, .lost_token = 10)}},
    {"a takeover that names another loser",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10),
      CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 12, .lost_token = 9, .at_ms = 1500)}},
    {"a dead owner's key is still in progress",
     false,
     {CALL(CALL_BEGIN, 1, IDEM_CLAIMED, .token = 10),
      CALL(CALL_BEGIN, 2, IDEM_IN_PROGRESS, .token = 10, .returned = 205)}},
    {"a replay of another answer",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 8)}},
    {"a replay before there was an answer",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7),
      CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7)}},
    {"the same, while it was being stored",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10),
      CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7, .returned = 95),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7)}},
    {"an answer that is lost",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11)}},
    {"an answer that is replayed after its time",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7, .at_ms = 9000)}},
    {"an answer given to another request",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7, .fingerprint = 5)}},
    {"a late owner who is not fenced",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10),
      CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 11, .lost_token = 10, .at_ms = 1500),
      CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7, .at_ms = 1500)}},
    {"an owner who is fenced for nothing",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_COMPLETE, 0, IDEM_E_LOST, .token = 10, .value = 7)}},
    {"a token that does not grow over a forgotten key",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_FORGET, 2, IDEM_OK, .token = 0),
      CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 10)}},
    {"a loss that is forgotten",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_DECLARE, 0, IDEM_OK, .token = 10),
      CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11)}},
    {"a loss that is forgotten after the next attempt",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_DECLARE, 0, IDEM_OK, .token = 10),
      CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 11, .lost_token = 10), CALL(CALL_ABANDON, 2, IDEM_OK, .token = 11),
      CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 12)}},
    {"a mark that is forgotten",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_MARK, 0, IDEM_OK, .token = 10, .value = 77),
      CALL(CALL_DECLARE, 0, IDEM_OK, .token = 10), CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 11, .lost_token = 10)}},
    {"a completion that death cut off, done",
     true,
     {CALL(CALL_BEGIN, 1, IDEM_CLAIMED, .token = 10),
      CALL(CALL_COMPLETE, 1, IDEM_OK, .token = 10, .value = 7, .returned = NEVER),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7, .returned = 205)}},
    {"a completion that death cut off, not done",
     true,
     {CALL(CALL_BEGIN, 1, IDEM_CLAIMED, .token = 10),
      CALL(CALL_COMPLETE, 1, IDEM_OK, .token = 10, .value = 7, .returned = NEVER),
      CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 11, .lost_token = 10, .returned = 205)}},
    {"a completion that death cut off, first not done and then done",
     false,
     {CALL(CALL_BEGIN, 1, IDEM_CLAIMED, .token = 10),
      CALL(CALL_COMPLETE, 1, IDEM_OK, .token = 10, .value = 7, .returned = NEVER),
      CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 11, .lost_token = 10, .returned = 205),
      CALL(CALL_BEGIN, 0, IDEM_REPLAY, .token = 10, .value = 7, .returned = 215)}},
    {"a claim that death cut off, its token told by others",
     true,
     {CALL(CALL_BEGIN, 1, 0, .returned = NEVER), CALL(CALL_BEGIN, 2, IDEM_IN_PROGRESS, .token = 10, .returned = 98),
      CALL(CALL_BEGIN, 0, IDEM_RECLAIMED, .token = 11, .lost_token = 10, .returned = 205)}},
    {"a claim that death cut off, under two names",
     false,
     {CALL(CALL_BEGIN, 1, 0, .returned = NEVER), CALL(CALL_BEGIN, 2, IDEM_IN_PROGRESS, .token = 10, .returned = 98),
      CALL(CALL_BEGIN, 0, IDEM_RECLAIMED, .token = 12, .lost_token = 11, .returned = 205)}},
    {"an answer that is not kept, for who waited",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_BEGIN, 2, IDEM_IN_PROGRESS, .token = 10),
      CALL(CALL_TRANSIENT, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7, .wait_token = 10, .transient = true),
      CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11)}},
    {"an answer that is not kept, for who did not wait",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_TRANSIENT, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7, .transient = true)}},
    {"an answer that is not kept, and is: a replay",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_TRANSIENT, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7)}},
    {"an answer that is not kept, another one",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_TRANSIENT, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 8, .wait_token = 10, .transient = true)}},
    {"an answer that is not kept, for another request",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_TRANSIENT, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7, .wait_token = 10, .transient = true,
           .fingerprint = 5)}},
    {"an answer that is not kept, and is kept from who waited",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_TRANSIENT, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11, .wait_token = 10)}},
    {"an answer that is not kept, after the next claim",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_TRANSIENT, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11),
      CALL(CALL_BEGIN, 0, IDEM_REPLAY, .token = 10, .value = 7, .wait_token = 10, .transient = true)}},
    {"an answer that is not kept, after the claim after the next",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_TRANSIENT, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11), CALL(CALL_ABANDON, 2, IDEM_OK, .token = 11),
      CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 12),
      CALL(CALL_BEGIN, 0, IDEM_REPLAY, .token = 10, .value = 7, .wait_token = 10, .transient = true)}},
    {"a second completion after an answer that is not kept",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_TRANSIENT, 0, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 8)}},
    {"a released attempt, its owner fenced, the next one told",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_RELEASE, 2, IDEM_OK, .token = 0),
      CALL(CALL_COMPLETE, 0, IDEM_E_LOST, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 11, .lost_token = 10)}},
    {"a released attempt whose owner completes",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_RELEASE, 2, IDEM_OK, .token = 0),
      CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7)}},
    {"a released attempt whose loss nobody is told of",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_RELEASE, 2, IDEM_OK, .token = 10),
      CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11)}},
    {"a release of another attempt",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_RELEASE, 2, IDEM_OK, .token = 9)}},
    {"a release that finds nothing to release, though it runs",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_RELEASE, 2, IDEM_E_LOST, .token = 10)}},
    {"a loss resolved as done",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_DECLARE, 0, IDEM_OK, .token = 10),
      CALL(CALL_RESOLVE, 2, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7)}},
    {"a loss resolved as done, and claimed",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_DECLARE, 0, IDEM_OK, .token = 10),
      CALL(CALL_RESOLVE, 2, IDEM_OK, .token = 10, .value = 7),
      CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 11, .lost_token = 10)}},
    {"a running attempt resolved",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_RESOLVE, 2, IDEM_OK, .token = 10, .value = 7)}},
    {"a loss resolved by who has seen another one",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_DECLARE, 0, IDEM_OK, .token = 10),
      CALL(CALL_RESOLVE, 2, IDEM_OK, .token = 9, .value = 7)}},
    {"a loss that can not be resolved",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_DECLARE, 0, IDEM_OK, .token = 10),
      CALL(CALL_RESOLVE, 2, IDEM_E_LOST, .token = 10, .value = 7)}},
    {"a loss resolved as not done",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_DECLARE, 0, IDEM_OK, .token = 10),
      CALL(CALL_RERUN, 2, IDEM_OK, .token = 10), CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11)}},
    {"a loss resolved as not done, and told of again",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_DECLARE, 0, IDEM_OK, .token = 10),
      CALL(CALL_RERUN, 2, IDEM_OK, .token = 10), CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 11, .lost_token = 10)}},
    {"an adopted claim outlives its claimant",
     true,
     {CALL(CALL_BEGIN, 1, IDEM_CLAIMED, .token = 10), CALL(CALL_ADOPT, 2, IDEM_OK, .token = 10),
      CALL(CALL_BEGIN, 0, IDEM_IN_PROGRESS, .token = 10, .returned = 205)}},
    {"an adopted claim is taken over when its claimant dies",
     false,
     {CALL(CALL_BEGIN, 1, IDEM_CLAIMED, .token = 10), CALL(CALL_ADOPT, 2, IDEM_OK, .token = 10),
      CALL(CALL_BEGIN, 0, IDEM_RECLAIMED, .token = 11, .lost_token = 10, .returned = 205)}},
    {"an adopted claim dies with who adopted it",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_ADOPT, 1, IDEM_OK, .token = 10),
      CALL(CALL_BEGIN, 0, IDEM_RECLAIMED, .token = 11, .lost_token = 10, .returned = 205)}},
    {"an adopted claim outlives who adopted it",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_ADOPT, 1, IDEM_OK, .token = 10),
      CALL(CALL_BEGIN, 2, IDEM_IN_PROGRESS, .token = 10, .returned = 205)}},
    {"a durable answer survives the machine",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10),
      CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7, .durable = true),
      CALL(CALL_CRASH, 0, IDEM_OK, .token = 0), CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7)}},
    {"a durable answer is lost with the machine",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10),
      CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7, .durable = true),
      CALL(CALL_CRASH, 0, IDEM_OK, .token = 0), CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 11, .lost_token = 10)}},
    {"a durable answer and its claim are lost with the machine",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10),
      CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7, .durable = true),
      CALL(CALL_CRASH, 0, IDEM_OK, .token = 0), CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11)}},
    {"an answer that is not durable survives the machine",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10),
      CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7, .durable = false),
      CALL(CALL_CRASH, 0, IDEM_OK, .token = 0), CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7)}},
    {"an answer that is not durable is lost with the machine",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10),
      CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7, .durable = false),
      CALL(CALL_CRASH, 0, IDEM_OK, .token = 0), CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 11, .lost_token = 10)}},
    {"a claim that is not durable is lost with the machine",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_CRASH, 0, IDEM_OK, .token = 0),
      CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11)}},
    {"a token comes a second time after the machine's crash",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10), CALL(CALL_CRASH, 0, IDEM_OK, .token = 0),
      CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 10)}},
    {"a durable claim is lost with the machine",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10, .durable = true), CALL(CALL_CRASH, 0, IDEM_OK, .token = 0),
      CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11)}},
    {"a claim is still running after the machine's crash",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10, .durable = true), CALL(CALL_CRASH, 0, IDEM_OK, .token = 0),
      CALL(CALL_BEGIN, 2, IDEM_IN_PROGRESS, .token = 10)}},
    {"a late owner completes after the machine's crash",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10, .durable = true), CALL(CALL_CRASH, 0, IDEM_OK, .token = 0),
      CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7, .durable = true)}},
    {"an answer that a durable replay told is lost with the machine",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10),
      CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7, .durable = false),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7, .durable = true),
      CALL(CALL_CRASH, 0, IDEM_OK, .token = 0), CALL(CALL_BEGIN, 2, IDEM_CLAIMED, .token = 11)}},
    {"a durable forgetting is undone by the machine's crash",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10),
      CALL(CALL_COMPLETE, 0, IDEM_OK, .token = 10, .value = 7, .durable = true),
      CALL(CALL_FORGET, 2, IDEM_OK, .durable = true), CALL(CALL_CRASH, 0, IDEM_OK, .token = 0),
      CALL(CALL_BEGIN, 2, IDEM_REPLAY, .token = 10, .value = 7)}},
    {"a claim that is forgotten twice while it waits for the disk",
     true,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 12, .returned = 95, .synced = true, .durable = true),
      CALL(CALL_FORGET, 2, IDEM_OK, .token = 0), CALL(CALL_LOOKUP, 2, IDEM_IN_PROGRESS, .token = 11),
      CALL(CALL_FORGET, 2, IDEM_OK, .token = 0)}},
    {"a claim that is forgotten, and waits for nothing",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 12, .returned = 95), CALL(CALL_FORGET, 2, IDEM_OK, .token = 0),
      CALL(CALL_LOOKUP, 2, IDEM_IN_PROGRESS, .token = 11), CALL(CALL_FORGET, 2, IDEM_OK, .token = 0)}},
    {"a claim that waits for the disk gets the token of one that was ended",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 11, .returned = 95, .synced = true, .durable = true),
      CALL(CALL_LOOKUP, 2, IDEM_IN_PROGRESS, .token = 11), CALL(CALL_FORGET, 2, IDEM_OK, .token = 0),
      CALL(CALL_LOOKUP, 2, IDEM_IN_PROGRESS, .token = 12)}},
    {"a mixture comes back: the mark without its claim's state",
     false,
     {CALL(CALL_BEGIN, 0, IDEM_CLAIMED, .token = 10),
      CALL(CALL_MARK, 0, IDEM_OK, .token = 10, .value = 77, .durable = true),
      CALL(CALL_DECLARE, 0, IDEM_OK, .token = 10), CALL(CALL_CRASH, 0, IDEM_OK, .token = 0),
      CALL(CALL_BEGIN, 2, IDEM_RECLAIMED, .token = 11, .lost_token = 10)}},
};

static unsigned plant_calls(const struct plant *p, struct history_call *calls)
{
    unsigned n = 0;
    for (; n < 6 && p->calls[n].there; n++) {
        const struct planted *c = &p->calls[n];
        uint64_t called = c->returned > 200 && c->returned != NEVER ? c->returned - 5 : 10 * (n + 1);
        uint64_t ends = c->returned == NEVER ? 0 : c->returned != 0 ? c->returned : called + 5;
        calls[n] = (struct history_call){.called = called,
                                         .returned = ends,
                                         .called_ms = c->at_ms,
                                         .returned_ms = c->at_ms,
                                         .kind = c->kind,
                                         .worker = c->worker,
                                         .verdict = c->verdict,
                                         .token = c->token,
                                         .lost_token = c->lost_token,
                                         .value = c->value,
                                         .fingerprint = c->fingerprint,
                                         .lease_ms = LEASE_MS,
                                         .ttl_ms = TTL_MS,
                                         .wait_token = c->wait_token,
                                         .waits = c->waits,
                                         .transient = c->transient,
                                         .synced = c->synced,
                                         .durable = c->durable};
    }
    return n;
}

static void planted_histories_are_judged_as_what_they_are(void **state)
{
    (void)state;
    struct history_death deaths[3] = {{0}, {DEAD_FROM, DEAD_FROM, 0}, {0}};
    unsigned wrong = 0;
    for (unsigned i = 0; i < sizeof plants / sizeof plants[0]; i++) {
        struct history_call calls[HISTORY_CALLS_MAX];
        unsigned n = plant_calls(&plants[i], calls);
        CHECK(n >= 2);
        enum history_answer a = history_check(calls, n, deaths);
        if (a == (plants[i].right ? HISTORY_EXPLAINED : HISTORY_CONTRADICTS))
            continue;
        print_error("%s: judged as %d\n", plants[i].what, (int)a);
        wrong++;
    }
    CHECK_IS(wrong, 0);
}

/* Before and after the two calls that contradict, others that have nothing to do with it. */
static void a_bad_history_is_told_by_the_calls_that_make_it_bad(void **state)
{
    (void)state;
    struct history_death deaths[3] = {{0}};
    struct history_call calls[HISTORY_CALLS_MAX];
    unsigned n = plant_calls(&plants[1], calls), two = n;
    CHECK_IS(two, 2);
    for (unsigned i = 0; i < 20; i++) {
        struct history_call c = {.called = i < 10 ? 16 + i / 3 : 40 + 10 * i,
                                 .kind = CALL_BEGIN,
                                 .worker = 0,
                                 .verdict = IDEM_IN_PROGRESS,
                                 .token = i < 10 ? 10 : 11,
                                 .lease_ms = LEASE_MS};
        c.returned = c.called + 1;
        calls[n++] = c;
    }
    CHECK_IS(history_check(calls, n, deaths), HISTORY_CONTRADICTS);
    CHECK_IS(history_shrink(calls, n, deaths), two);
    CHECK(calls[0].verdict == IDEM_CLAIMED && calls[1].verdict == IDEM_CLAIMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planted_histories_are_judged_as_what_they_are),
        cmocka_unit_test(a_bad_history_is_told_by_the_calls_that_make_it_bad),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
