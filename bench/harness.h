/*
 * harness.h - run a body in N forked processes (or threads, for tables that know only those) that start together, and add up
 * what each one measured.
 *
 * Owns: the shared control block, the barrier, per-process sums, and a log-linear latency histogram.
 * google-benchmark knows threads only; everything it is told here comes from processes, as manual time.
 *
 * Invariants
 *  1. A worker writes only its own area; the parent reads the areas after all workers have ended.
 *  2. Every wait is bounded: a barrier gives up when another worker has failed or after HARNESS_BARRIER_MS.
 * If a worker dies, the parent sets `stop` and the others leave at their next barrier. If the parent dies, the workers get
 * SIGKILL from the kernel (PR_SET_PDEATHSIG).
 */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HARNESS_SERIES_MAX    12u
#define HARNESS_PROCESSES_MAX 64u
#define HARNESS_BARRIER_MS    120000u
#define HARNESS_ERROR_BYTES   480u

/* Buckets of a histogram: exact below 64 ns, then 32 to an octave (3 % wide), up to 2^42 ns. */
#define HIST_SUB_BITS 5u
#define HIST_BUCKETS  (38u << HIST_SUB_BITS)

struct hist {
    uint64_t count[HIST_BUCKETS];
};

struct series {
    uint64_t op_ns; /* time in blocks of the operation, clock read only around a block */
    uint64_t op_count;
    uint64_t floor_ns; /* the same for its floor, same keys, next to it in time */
    uint64_t floor_count;
    uint64_t blocks;     /* all that were timed */
    uint64_t disturbed;  /* of them left out of everything: something else took the core meanwhile */
    struct hist latency; /* from other blocks, in which the clock is read after every call */
};

struct harness; /* lives in memory shared by the parent and the workers */

/* Runs in the worker; returns 0, or -1 after harness_fail(). */
typedef int (*harness_body)(struct harness *h, unsigned me, void *ctx);

struct harness *harness_create(unsigned processes);
void harness_free(struct harness *h);

/* Forks, runs, waits for all. 0, or -1: harness_error() says why (a worker failed, died, or the time was over). */
int harness_run(struct harness *h, harness_body body, void *ctx, unsigned timeout_s);
/* The same in one forked process that may use every core: it hosts workers of its own. */
int harness_run_host(struct harness *h, harness_body body, void *ctx, unsigned timeout_s);
/* The same in threads of this process. No time-out: threads can't be ended from outside, their process can. */
int harness_run_threads(struct harness *h, harness_body body, void *ctx);
const char *harness_error(const struct harness *h);

/* For the body. */
unsigned harness_processes(const struct harness *h);
struct series *harness_series(struct harness *h, unsigned me, unsigned index);
int harness_barrier(struct harness *h);                                                             /* 0, or -1: stop */
int harness_fail(struct harness *h, const char *format, ...) __attribute__((format(printf, 2, 3))); /* always -1 */

/* For the parent. */
void harness_clear(struct harness *h);                        /* sums and histograms to zero */
struct series harness_sum(struct harness *h, unsigned index); /* over all workers */

/* True after SIGINT, SIGTERM or SIGHUP; harness_catch_signals() installs the handlers. */
void harness_catch_signals(void);
bool harness_interrupted(void);

uint64_t harness_now_ns(void);
uint64_t harness_clock_cost_ns(void); /* median cost of one harness_now_ns() */

/* Times a block. stop says false if the kernel gave the core to somebody else in between: then ns tells nothing. */
struct stopwatch {
    uint64_t from_ns;
    uint64_t preemptions;
    uint64_t ns;
};
void stopwatch_start(struct stopwatch *w);
bool stopwatch_stop(struct stopwatch *w);

void hist_add(struct hist *h, uint64_t ns);
void hist_merge(struct hist *into, const struct hist *from);
/* The upper edge of the bucket in which the quantile lies; 0 for an empty histogram. */
uint64_t hist_quantile(const struct hist *h, double q);

#ifdef __cplusplus
}
#endif
#endif
