/*
 * suite.h - which rows are measured, what came out, and whether the bars hold. C++ callers include it too.
 */
#ifndef BENCH_SUITE_H
#define BENCH_SUITE_H

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct suite; /* rows, results so far, and the directory they work in */

/* One repetition of one row; times in ns for one operation as one process sees it. */
struct measured {
    double ns;
    double floor_ns;
    double ratio;
    double p50_ns, p99_ns, p999_ns; /* of one call (begin_many: of the whole batch), one clock reading included */
    double bytes_per_key;           /* of the store, beyond key and response */
};

/* Reads the command line. NULL after --help (*status 0) or an error, which is on stderr (*status 2). */
struct suite *suite_create(int argc, char **argv, int *status);
/* Ends it and removes everything it made. Returns the exit status of the run. */
int suite_free(struct suite *suite);

unsigned suite_rows(const struct suite *suite);
unsigned suite_repetitions(const struct suite *suite);
const char *suite_row_name(const struct suite *suite, unsigned row);
const char *suite_json(const struct suite *suite); /* file for google-benchmark's JSON, or NULL */

/* The row's next repetition; the scenario it belongs to is run once for all its rows. NULL, or a sentence why there is no
   figure. */
const char *suite_measure(struct suite *suite, unsigned row, struct measured *out);

/* Markdown: every row beside its floor and its bar, then memory, then what was measured. */
void suite_print(struct suite *suite, FILE *to);

#ifdef __cplusplus
}
#endif
#endif
