/*
 * tally.h - counters of a pool in a small shared file.
 *
 * Owns: one mapped file, created by the supervisor, counted in by every worker, read by the storm's progress line.
 * Invariants: counters only grow, but for `unfinished`, which belongs to one worker slot at a time.
 * If we die here: the counters stay as they are (shared memory), so a killed worker's counts are kept. A worker killed
 * between an effect and its count loses that one count; figures that a verdict rests on come from the raw ledger instead.
 */
#ifndef TALLY_H
#define TALLY_H

#include "pool.h"

#include <stdatomic.h>
#include <stdio.h>

enum tally_counter {
    TALLY_REQUESTS = 0, /* POST /charges that were well-formed */
    TALLY_CHARGES,      /* ledger lines written */
    TALLY_REPLAYS,      /* stored answers given out */
    TALLY_WAITS,        /* requests that waited for another attempt */
    TALLY_WAIT_LIMITS,  /* ... until the limit: 409 */
    TALLY_MISMATCHES,   /* 422 */
    TALLY_TAKEOVERS,    /* IDEM_RECLAIMED */
    TALLY_BY_MARK,      /* takeovers settled by the mark: already charged */
    TALLY_BY_LEDGER,    /* takeovers settled by a ledger line: already charged */
    TALLY_NOT_CHARGED,  /* takeovers that found no charge, and charged */
    TALLY_FENCED,       /* late owners that were told they lost the key */
    TALLY_RENEWALS,
    TALLY_TOO_LATE,       /* charges not made because their deadline was over */
    TALLY_UNAVAILABLE,    /* 503 for any other reason */
    TALLY_KILLED,         /* workers ended by SIGKILL */
    TALLY_KILLED_BETWEEN, /* ... that had written a charge to the ledger and not completed it */
    TALLY_STOPPED,        /* workers stopped for longer than a lease */
    TALLY_CRASHED,        /* workers that ended in any other way than SIGKILL or an orderly stop */
    TALLY_REBOOTS,        /* pools that went on where a killed one had left these counters */
    TALLY_BACK_ANSWERS,   /* stored answers that such a pool found in its store before it served anybody */
    TALLY_BACK_RUNNING,   /* ... and keys whose attempt was lost in the crash */
    TALLY_BACK_US,        /* how long opening the store took it */
    TALLY_AFTER_CRASH,    /* takeovers of keys whose attempt was lost in a crash (IDEM_LOST_CRASH) */
    TALLY_COUNTERS
};

typedef _Atomic uint64_t tally_word;

typedef struct tally {
    tally_word magic;
    tally_word counter[TALLY_COUNTERS];
    tally_word last_death_ms;                /* monotonic time of the last seeded death, so that they keep a distance */
    tally_word unfinished[POOL_WORKERS_MAX]; /* charges in the ledger whose key is not completed yet, by worker slot */
} tally;

/* Maps the file; with `create` makes it anew, all zero. NULL on failure, with a sentence on stderr. */
tally *tally_open(const char *path, bool create);
void tally_close(tally *t);
void tally_add(tally *t, enum tally_counter which);
void tally_add_many(tally *t, enum tally_counter which, uint64_t n);
uint64_t tally_get(const tally *t, enum tally_counter which);
/* Writes "pool_NAME=VALUE" lines. Returns 0, or -1 with errno. */
int tally_print(const tally *t, FILE *out);

#endif
