/*
 * plots.h - the figures as SVG: ns/op by keys, op/s by workers, latency percentiles, syncs by workers, memory by keys.
 */
#ifndef BENCH_PLOTS_H
#define BENCH_PLOTS_H

#include "rounds.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Writes those plots that there are figures for. 0, or -1 with a sentence on stderr. */
int plots_write(const struct trials *all, const char *folder);

#ifdef __cplusplus
}
#endif
#endif
