/*
 * report.h - what came out, as Markdown.
 */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdio.h>

#include "rounds.h"

#ifdef __cplusplus
extern "C" {
#endif

/* idem beside its floors; then for each job and batch everybody, fastest first; then what was measured, with what, and what was
   cut or left out. c: where it ran. */
void report_tables(const struct trials *all, const struct conditions *c, FILE *to);

/* How many rows should have figures and have none. */
unsigned report_failures(const struct trials *all);

#ifdef __cplusplus
}
#endif
#endif
