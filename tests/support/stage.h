/*
 * tests/support/stage.h - a small store with neighbours, and what must hold in it after somebody died or slept.
 *
 * Owns: the store of one case (1 MiB of answers in 16 regions, 16 buckets); two handles of the test process: `peer`, who goes
 * on, and `other`, a live owner; keys that all live in one bucket: key 0 is the one that things happen to, then neighbours
 * (one answered, one in progress, one abandoned) whose state must stay right through everything; the tokens seen so far.
 *
 * What does not hold is noted by stage_broken() and not asserted, so that a run with a seeded fault can be seen to break
 * something. Checks of what the test itself needs are CHECK()s.
 */
#ifndef TESTS_SUPPORT_STAGE_H
#define TESTS_SUPPORT_STAGE_H

#include "support/crash.h"

#define STAGE_KEYS     16u
#define STAGE_KEY      0u /* the key in question */
#define STAGE_ANSWERED 1u
#define STAGE_RUNNING  2u
#define STAGE_LEFT     3u /* abandoned once: claimable, attempt 2 */
#define STAGE_NEW      4u /* never used before the final check */
#define STAGE_SPARE    5u /* and up to 15: free for scenes */

#define STAGE_LEASE_MS      INT64_C(10000)
#define STAGE_TTL_MS        INT64_C(60000)   /* of the key in question */
#define STAGE_NEIGHBOURS_MS INT64_C(3600000) /* TTL of the neighbours */
#define STAGE_FINGERPRINT   77u

struct stage {
    const char *dir;
    idem_options options;
    idem_store *peer, *other;
    char key[STAGE_KEYS][24];
    uint64_t newest[STAGE_KEYS]; /* newest token that was told for each key */
    idem_claim running;          /* other's claim on STAGE_RUNNING */
    bool neighbours;             /* they have not been touched by the final checks */
    bool quiet;                  /* without the one in progress */
    idem_claim old[8];           /* claims on the key that are over, if a newer attempt exists */
    unsigned old_n;
    idem_claim owned;         /* other's claim on the key, token 0: none */
    bool evicts, full, slept; /* slept: leases and more may be over */
    int said;                 /* what the last stage_fate() was told first: verdict and attempt */
    unsigned said_attempt;
    uint64_t swept; /* regions recycled before the storms */
};

/* What a peer's idem_begin() on the key must say. */
struct stage_fate {
    int verdict;
    int reason;       /* RECLAIMED: why the attempt before was lost; -1: any */
    unsigned attempt; /* CLAIMED, RECLAIMED: its number, 0: any */
    const char *mark; /* CLAIMED, RECLAIMED: the mark it gets; NULL: none */
    const char *body; /* REPLAY: the answer; NULL: a tombstone */
};

/* Notes a broken promise, with the case in front (stage_case). */
void stage_broken(const char *format, ...) __attribute__((format(printf, 1, 2)));
void stage_case(const char *format, ...) __attribute__((format(printf, 1, 2)));
unsigned stage_broken_count(void);
/* Returns the count and forgets it. quiet: what is noted from now on is counted, not printed. */
unsigned stage_take_broken(bool quiet);

/* 32 processes and lanes unless given. quiet: none of the neighbours is in progress, so that nothing has to be renewed while time
   passes, and the claims' region can expire. */
void stage_open(struct stage *st, const idem_options *options, bool quiet);
void stage_close(struct stage *st);
idem_options stage_options(void);

int stage_begin(struct stage *st, idem_store *store, unsigned k, idem_claim *claim, idem_reply *reply);
idem_request stage_request(const struct stage *st, unsigned k);
/* A claim by `other` on the key; lives as long as the test. */
void stage_own(struct stage *st, unsigned k, const char *mark, uint32_t flags);
void stage_answer(struct stage *st, unsigned k, const char *body, int64_t ttl_ms);
/* A child claims key k, leaves a mark if given, and dies, at the named point of its claim or (NULL) after it. */
void stage_dead_claim(struct stage *st, unsigned k, const char *mark, uint32_t flags, const char *point);

/* Time passes; the neighbour in progress is renewed on the way. */
void stage_advance(struct stage *st, int64_t ms);
/* Sweeps till nothing is left to do. */
void stage_maintain(struct stage *st);
/* Short-lived traffic that fills two regions, and 4 s until it has expired. */
void stage_traffic(struct stage *st);
/* Traffic and a sweep after it, `rounds` times. */
void stage_storm(struct stage *st, unsigned rounds);
/* Regions recycled since stage_open() or the last call of stage_mark_swept(). */
uint64_t stage_swept(struct stage *st);

/* Checks; each notes what is broken. */
void stage_verify(struct stage *st);
void stage_neighbours(struct stage *st);
/* fate NULL: any that the rules allow. In the end the key is completed. */
void stage_fate(struct stage *st, const struct stage_fate *fate);
void stage_memory_returns(struct stage *st);
/* All of the above: what a peer must find after everybody else is gone. */
void stage_promises(struct stage *st, const struct stage_fate *fate);

#endif
