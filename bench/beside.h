/*
 * beside.h - idem's operations beside their floors, in turns of a few milliseconds, as trials. What bench/run measures, by the same
 * code (scenario.h), in the rounds in which the peers are measured too.
 */
#ifndef BENCH_BESIDE_H
#define BENCH_BESIDE_H

#include "trial.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows are named after the call: BESIDE "begin", "begin_many", "complete", "in_progress", "replay", "replay_many". */
#define BESIDE "beside/"
void beside_trial(struct trial *t, uint64_t keys, unsigned workers, bool huge);

/* The floor of handing an answer over, wherever it comes from: 256 bytes copied, cache to cache. One row, "memcpy". */
void beside_memcpy(struct trial *t);

#ifdef __cplusplus
}
#endif
#endif
