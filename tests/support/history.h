/*
 * tests/support/history.h - what processes were told, and whether one order of their calls explains it.
 *
 * Owns: records of calls (who called what, when, and what it returned), a model of one key, and a checker: is there an order of the calls on a
 * key in which each took effect at one moment between its call and its return, such that the model says what they were told? A call that
 * death cut off may have taken effect, or not. The model is the header's text (idem.h), not the library's code.
 *
 * Time: stamps count calls and returns of all processes and are exact. Store time is known to lie between what was read before the call and
 * after it; whatever ends by the clock (a lease, a TTL) may have ended, or must have, by these bounds. In between both are allowed.
 *
 * A machine's crash takes a key back to a state that it had since the newest call that was durable (its own, or one that told of it), and what ran
 * then is lost (whose late owner may still complete it). What had not returned may have been durable. Tokens go on past all that anybody was told.
 *
 * If a process dies while it records: its last call counts as cut off.
 */
#ifndef TESTS_SUPPORT_HISTORY_H
#define TESTS_SUPPORT_HISTORY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum history_kind {
    CALL_BEGIN,
    CALL_COMPLETE,
    CALL_ABANDON,
    CALL_DECLARE,
    CALL_RENEW,
    CALL_MARK,
    CALL_FORGET,
    CALL_LOOKUP,
    CALL_TRANSIENT, /* a completion that is not kept */
    CALL_ADOPT,
    CALL_RELEASE, /* token 0: whatever runs */
    CALL_RESOLVE, /* as completed, with an answer */
    CALL_RERUN,   /* resolved: it did not happen */
    CALL_CRASH    /* the machine died, and the store came back from its log: all processes were gone before */
};

struct history_call {
    uint64_t called, returned; /* stamps, from 1; returned 0: cut off */
    int64_t called_ms, returned_ms;
    enum history_kind kind;
    uint32_t key;
    uint32_t worker;
    int verdict;         /* what the library returned */
    uint64_t token;      /* of the claim that was given, spoken of, or acted on */
    uint64_t lost_token; /* RECLAIMED */
    uint64_t value;      /* body of a completion or replay; mark left or found; 0: none */
    uint64_t fingerprint;
    int64_t lease_ms, ttl_ms;
    uint64_t wait_token; /* begin: the attempt that it says it waited for; 0: none */
    bool waits;          /* begin: it waited inside, for whichever attempt ran */
    bool transient;      /* a replay of an answer that is not kept */
    bool
        synced; /* begin: of a claim that is on the disk when it is given out; others may end it before that, then it begins again */
    bool durable; /* what it told, or did, was on the disk when it returned */
};

/* A process that was killed: stamps from just before the kill, and from when it was known to be gone. 0: it was not. */
struct history_death {
    uint64_t sent, known;
    int64_t known_ms;
};

/* What was done stands in memory, and could not be written; or a claim, or an answer, was not given out for that. */
bool history_unwritten(const struct history_call *c);

#define HISTORY_CALLS_MAX 64 /* on one key */

enum history_answer { HISTORY_EXPLAINED, HISTORY_CONTRADICTS, HISTORY_TOO_LARGE };

/* calls: all of one key, in any order (they get sorted by `called`). deaths: by worker number. */
enum history_answer history_check(struct history_call *calls, unsigned n, const struct history_death *deaths);

/* Of a history that contradicts: the fewest calls that still do. Returns their number; they are the first ones then. */
unsigned history_shrink(struct history_call *calls, unsigned n, const struct history_death *deaths);

void history_print(FILE *to, const struct history_call *calls, unsigned n, const struct history_death *deaths);

#endif
