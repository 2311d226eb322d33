/*
 * trial.h - the unit of a comparison: something that is run once a round and then has figures for its rows.
 *
 * A life of a peer (life.h) is a trial with a row for each of its jobs and batches; idem beside its floors (beside.h) is one.
 * What else is to be compared (one hot key, syncs by workers, ...) is a trial of its own: it fills a struct trial, hands it to
 * trials_add(), and needs to know nothing of rounds, files or plots. rounds.h runs them: each round runs every
 * trial once, one after the other, so that a change of the machine meets all.
 */
#ifndef BENCH_TRIAL_H
#define BENCH_TRIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRIAL_ROWS_MAX  12u
#define TRIAL_WHY_BYTES 480u
#define TRIAL_NAME_MAX  112u

/* What a row measures. Rows of one job, batch, keys, workers and pages are compared with each other. */
struct row_id {
    const char *job;  /* "claim", "complete", "replay", "memory", "hot_claim", ... */
    const char *who;  /* a peer's name, "idem", "floor" */
    const char *unit; /* "ns/op", "op/s", "bytes/key" */
    unsigned batch;   /* keys in one call */
    uint64_t keys;
    unsigned workers;
    bool huge; /* 2 MiB pages wherever who can use them */
};

/* One row in one round. */
struct figures {
    double value;                   /* in the row's unit; of ns/op: as one worker sees it */
    double floor;                   /* what that can't be faster than, measured in turns with it; 0: has none */
    double p50_ns, p99_ns, p999_ns; /* of one call (a whole batch), one clock reading included; 0: not taken */
    bool missing;                   /* the trial ran, but this row has no figure */
};

struct trial_result {
    char why[TRIAL_WHY_BYTES]; /* not empty: nothing else here counts */
    bool left_out;             /* with why: this machine cannot run it; no failure */
    struct figures of[TRIAL_ROWS_MAX];
};

/* Where it runs. */
struct conditions {
    const struct place *place; /* place.h: a directory on a tmpfs that gives 2 MiB pages where advised */
    const char *disk;          /* a directory of this run alone on a disk */
    bool quick;                /* the run has two minutes, not ten */
    bool smoke;                /* a second in all: does it work? */
};

struct trial {
    char name[TRIAL_NAME_MAX]; /* for progress and errors */
    unsigned row_count;
    struct row_id rows[TRIAL_ROWS_MAX];
    /* One round. limit_s: it must have returned by then, with why if it must. Runs in the parent, which has no threads. */
    void (*run)(const struct trial *self, const struct conditions *c, unsigned round, unsigned limit_s,
                struct trial_result *out);
    const void *what; /* its own; lives as long as the run */
    uint64_t number;  /* its own */
};

struct trials; /* rounds.h */

/* Copies *t. Rows that the user's filter leaves out are dropped from the copy's results; a trial without any row left is
   not run. 0, or -1: no memory. */
int trials_add(struct trials *all, const struct trial *t);

/* "claim/batch:16/keys:1000000/workers:2/pages:2M/urcu/cds_lfht" */
void row_name(const struct row_id *row, char *text, size_t text_bytes);

#ifdef __cplusplus
}
#endif
#endif
