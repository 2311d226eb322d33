/*
 * rounds.c - see rounds.h.
 */
#include "rounds.h"

#include <inttypes.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "harness.h"
#include "peers/peer.h"

enum { TRIALS_MAX = 256, TRIAL_LIMIT_S = 120 };

#define NS_PER_S UINT64_C(1000000000)

struct entry {
    struct trial trial;
    bool shown[TRIAL_ROWS_MAX];
    struct trial_result *results; /* of ROUNDS_MAX rounds */
    char why[TRIAL_WHY_BYTES];    /* of the first round that failed; it is not tried again */
    bool left_out;
};

struct trials {
    bool filtered;
    regex_t filter;
    unsigned count;
    unsigned row_count;
    unsigned done;
    char cut[160];
    struct entry entries[TRIALS_MAX];
    struct {
        unsigned entry, row;
    } rows[TRIALS_MAX * TRIAL_ROWS_MAX];
};

void row_name(const struct row_id *row, char *text, size_t text_bytes)
{
    snprintf(text, text_bytes, "%s/batch:%u/keys:%" PRIu64 "/workers:%u/pages:%s/%s", row->job, row->batch, row->keys,
             row->workers, row->huge ? "2M" : "4K", row->who);
}

struct trials *trials_create(const char *filter)
{
    struct trials *all = calloc(1, sizeof *all);
    if (!all) {
        fputs("bench: out of memory\n", stderr);
        return NULL;
    }
    if (!filter)
        return all;
    int bad = regcomp(&all->filter, filter, REG_EXTENDED | REG_NOSUB);
    if (bad == 0) {
        all->filtered = true;
        return all;
    }
    char why[160];
    regerror(bad, &all->filter, why, sizeof why);
    fprintf(stderr, "bench: --row %s: %s\n", filter, why);
    free(all);
    return NULL;
}

void trials_free(struct trials *all)
{
    if (!all)
        return;
    for (unsigned i = 0; i < all->count; i++)
        free(all->entries[i].results);
    if (all->filtered)
        regfree(&all->filter);
    free(all);
}

int trials_add(struct trials *all, const struct trial *t)
{
    if (all->count == TRIALS_MAX)
        return -1;
    struct entry *e = &all->entries[all->count];
    unsigned shown = 0;
    memset(e, 0, sizeof *e);
    e->trial = *t;
    for (unsigned r = 0; r < t->row_count; r++) {
        char name[TRIAL_NAME_MAX + 80];
        row_name(&t->rows[r], name, sizeof name);
        e->shown[r] = !all->filtered || regexec(&all->filter, name, 0, NULL, 0) == 0;
        shown += e->shown[r];
    }
    if (shown == 0)
        return 0;
    e->results = calloc(ROUNDS_MAX, sizeof *e->results);
    if (!e->results)
        return -1;
    for (unsigned r = 0; r < t->row_count; r++) {
        if (!e->shown[r])
            continue;
        all->rows[all->row_count].entry = all->count;
        all->rows[all->row_count++].row = r;
    }
    all->count++;
    return 0;
}

/* ------------------------------------------------------------------ running */

static unsigned seconds_until(uint64_t deadline_ns)
{
    uint64_t now_ns = harness_now_ns();
    return now_ns < deadline_ns ? (unsigned)((deadline_ns - now_ns) / NS_PER_S) : 0;
}

/* Of all processes that have ended: beside the time a trial took, it tells how busy the machine was with other things. */
static double processor_s(void)
{
    struct rusage u;
    if (getrusage(RUSAGE_CHILDREN, &u) != 0)
        return 0;
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

/* Of the first round alone: something is better than nothing, if it is said. */
static void leave_out_rest(struct trials *all, unsigned from)
{
    for (unsigned i = from; i < all->count; i++) {
        struct entry *e = &all->entries[i];
        if (e->why[0] != '\0')
            continue;
        snprintf(e->why, sizeof e->why, "no time was left for it");
        e->left_out = true;
    }
}

/* False: there was no time left for all of it. */
static bool run_round(struct trials *all, const struct conditions *c, unsigned round, uint64_t deadline_ns)
{
    for (unsigned i = 0; i < all->count; i++) {
        struct entry *e = &all->entries[i];
        unsigned left_s = seconds_until(deadline_ns);
        if (e->why[0] != '\0')
            continue;
        if (harness_interrupted())
            return false;
        if (left_s == 0) {
            if (round == 0)
                leave_out_rest(all, i);
            return false;
        }
        uint64_t from_ns = harness_now_ns();
        double from_s = processor_s();
        struct trial_result *out = &e->results[round];
        memset(out, 0, sizeof *out);
        e->trial.run(&e->trial, c, round, left_s < TRIAL_LIMIT_S ? left_s : TRIAL_LIMIT_S, out);
        if (harness_interrupted())
            return false;
        fprintf(stderr, "bench: round %u, %s: %.1f s (%.1f s of processors)%s%s\n", round + 1, e->trial.name,
                (double)(harness_now_ns() - from_ns) * 1e-9, processor_s() - from_s, out->why[0] ? ": " : "", out->why);
        if (out->why[0] == '\0')
            continue;
        if (left_s < TRIAL_LIMIT_S && seconds_until(deadline_ns) == 0) { /* the time was over, not the trial's fault */
            if (round == 0)
                leave_out_rest(all, i);
            return false;
        }
        memcpy(e->why, out->why, sizeof e->why);
        e->left_out = out->left_out || strncmp(out->why, PEER_LEFT_OUT, strlen(PEER_LEFT_OUT)) == 0;
    }
    return true;
}

int rounds_run(struct trials *all, const struct conditions *c, unsigned wanted, unsigned seconds)
{
    uint64_t deadline_ns = harness_now_ns() + seconds * NS_PER_S;
    uint64_t longest_ns = 0;
    for (all->done = 0; all->done < wanted; all->done++) {
        uint64_t from_ns = harness_now_ns();
        bool begun = from_ns + longest_ns + longest_ns / 20 <= deadline_ns;
        if (!begun || !run_round(all, c, all->done, deadline_ns)) {
            bool in_time = !harness_interrupted();
            snprintf(all->cut, sizeof all->cut, "%u of %u rounds: %s", all->done, wanted,
                     !in_time         ? "interrupted"
                     : all->done == 0 ? "the first took all the time given, and isn't whole"
                                      : "another would not have ended in the time given");
            all->done += all->done == 0 && in_time;
            break;
        }
        uint64_t took_ns = harness_now_ns() - from_ns;
        if (took_ns > longest_ns)
            longest_ns = took_ns;
    }
    return all->done > 0 ? 0 : -1;
}

unsigned rounds_done(const struct trials *all)
{
    return all->done;
}

const char *rounds_cut(const struct trials *all)
{
    return all->cut[0] ? all->cut : NULL;
}

/* ------------------------------------------------------------------ figures */

unsigned rows_count(const struct trials *all)
{
    return all->row_count;
}

const struct row_id *rows_at(const struct trials *all, unsigned row)
{
    return &all->entries[all->rows[row].entry].trial.rows[all->rows[row].row];
}

const struct figures *rows_figures(const struct trials *all, unsigned row, unsigned round)
{
    const struct entry *e = &all->entries[all->rows[row].entry];
    if (e->why[0] != '\0' || round >= all->done)
        return NULL;
    const struct figures *f = &e->results[round].of[all->rows[row].row];
    return f->missing ? NULL : f;
}

const char *rows_why(const struct trials *all, unsigned row, bool *left_out)
{
    const struct entry *e = &all->entries[all->rows[row].entry];
    *left_out = e->left_out;
    if (e->why[0] != '\0')
        return e->why;
    for (unsigned i = 0; i < all->done; i++)
        if (rows_figures(all, row, i))
            return NULL;
    *left_out = all->done > 0;
    return all->done > 0 ? "no block of it was timed undisturbed" : "not measured";
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct spread spread_of(double *values, unsigned n)
{
    struct spread s = {.count = n};
    if (n == 0)
        return s;
    qsort(values, n, sizeof values[0], by_value);
    s.median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    s.min = values[0];
    s.max = values[n - 1];
    return s;
}

struct spread rows_spread(const struct trials *all, unsigned row, size_t offset)
{
    double values[ROUNDS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < all->done; i++) {
        const struct figures *f = rows_figures(all, row, i);
        if (f)
            memcpy(&values[n++], (const char *)f + offset, sizeof values[0]);
    }
    return spread_of(values, n);
}

struct spread rows_ratio(const struct trials *all, unsigned row)
{
    double values[ROUNDS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < all->done; i++) {
        const struct figures *f = rows_figures(all, row, i);
        if (f && f->floor > 0)
            values[n++] = f->value / f->floor;
    }
    return spread_of(values, n);
}
