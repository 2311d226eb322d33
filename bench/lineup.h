/*
 * lineup.h - who is measured, at which sizes: all trials of a run.
 */
#ifndef BENCH_LINEUP_H
#define BENCH_LINEUP_H

#include "options.h"
#include "trial.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 0, or -1: no memory. */
int lineup_add(struct trials *all, const struct options *o, const struct conditions *c);

/* Each peer's name, what it is and what it was given: calls say() for each, missing ones included (version NULL then, settings: why). */
void lineup_peers(void (*say)(void *ctx, const char *name, const char *version, const char *settings), void *ctx);

#ifdef __cplusplus
}
#endif
#endif
