/*
 * sync.h - durable claims a second, beside the empty group commit and the flush alone, in one group of processes.
 *
 * Three sides take turns, in an order that goes round:
 *   flush    one process writes what all claims outstanding would take in the log, and syncs it, again and again
 *   control  group commit and nothing else: a lock byte, a counter, one write and sync by who holds the byte, for all who
 *            wait; one futex for all
 *   claims   idem_begin, or idem_begin_many, with IDEM_DURABILITY_SYNC
 * The claims are counted against the store's own figures: all were new, all have a record on the disk.
 */
#ifndef BENCH_SYNC_H
#define BENCH_SYNC_H

#include <stdbool.h>
#include <stdint.h>

#include "harness.h"

#ifdef __cplusplus
extern "C" {
#endif

enum sync_side { SYNC_FLUSH, SYNC_CONTROL, SYNC_CLAIMS, SYNC_SIDES };

#define SYNC_TURNS_MAX 40u

struct sync_wish {
    const char *store; /* a path on a tmpfs, nothing there yet */
    const char *disk;  /* a directory for the log */
    unsigned workers;  /* processes */
    unsigned batch;    /* claims in one call; workers x batch are outstanding */
    unsigned turns;    /* of each side, without the first, which is not counted */
    unsigned turn_ms;
};

struct sync_result {
    char why[HARNESS_ERROR_BYTES];   /* not empty: nothing else counts */
    double per_s[SYNC_SIDES];        /* median of the turns; of flushes: syncs a second */
    double cpu_us[SYNC_SIDES];       /* processor time of one claim, all processes */
    double ratio, least, most;       /* claims over control, turn by turn: median, extremes */
    struct hist latency[SYNC_SIDES]; /* of one call; of one flush */
};

void sync_rate(const struct sync_wish *wish, struct sync_result *out);

#ifdef __cplusplus
}
#endif
#endif
