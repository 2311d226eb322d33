/*
 * bars.h - what idem's figures have to come to, in one table, and whether they do.
 */
#ifndef BENCH_BARS_H
#define BENCH_BARS_H

#include <stdio.h>

#include "rounds.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Markdown: each bar with the rows it is for. A bar none of whose rows was measured is said to be not measured. Returns how many were missed. */
unsigned bars_print(const struct trials *all, FILE *to);

#ifdef __cplusplus
}
#endif
#endif
