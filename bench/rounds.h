/*
 * rounds.h - runs trials round by round within a given time, and keeps their figures.
 *
 * Invariants
 *  1. Every row that was measured has a figure of every round that counts: a round that could not be completed is dropped for
 *     all; of the first one what was measured is kept, and the rest is left out.
 *  2. A round begins only if one like the last would end in time; what was cut is said.
 */
#ifndef BENCH_ROUNDS_H
#define BENCH_ROUNDS_H

#include "trial.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ROUNDS_MAX = 25 };

/* filter: an extended regular expression for row names, or NULL. NULL with a sentence on stderr. */
struct trials *trials_create(const char *filter);
void trials_free(struct trials *all);

/* wanted: rounds, 1 to ROUNDS_MAX. seconds: from now on. Progress goes to stderr. Returns 0, or -1 if nothing was measured. */
int rounds_run(struct trials *all, const struct conditions *c, unsigned wanted, unsigned seconds);
unsigned rounds_done(const struct trials *all);
const char *rounds_cut(const struct trials *all); /* why there are fewer than wanted, or NULL */

/* Rows that the filter lets through, in the order they were added. */
unsigned rows_count(const struct trials *all);
const struct row_id *rows_at(const struct trials *all, unsigned row);
/* Of one round; NULL if it has none. */
const struct figures *rows_figures(const struct trials *all, unsigned row, unsigned round);
/* Why a row has no figures, or NULL. left_out: the machine can't, which is no failure. */
const char *rows_why(const struct trials *all, unsigned row, bool *left_out);

/* Over the rounds, of the double that lies `offset` bytes into struct figures. count 0: there is none. */
struct spread {
    double median, min, max;
    unsigned count;
};
struct spread rows_spread(const struct trials *all, unsigned row, size_t offset);
/* Of value / floor within a round. */
struct spread rows_ratio(const struct trials *all, unsigned row);

#ifdef __cplusplus
}
#endif
#endif
