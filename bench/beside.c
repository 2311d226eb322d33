/*
 * beside.c - see beside.h.
 */
#include "beside.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scenario.h"

#define LARGE UINT64_C(10000000) /* from here on filling takes longer than measuring */

static double per(uint64_t value, uint64_t count)
{
    return count > 0 ? (double)value / (double)count : 0;
}

static void run(const struct trial *self, const struct conditions *c, unsigned round, unsigned limit_s,
                struct trial_result *out)
{
    const struct row_id *row = &self->rows[0];
    struct scenario_result *result = calloc(1, sizeof *result);
    struct scenario s = {.place = c->place,
                         .keys = row->keys,
                         .processes = row->workers,
                         .huge = row->huge,
                         .brief = c->smoke,
                         .sample = row->keys >= LARGE,
                         .limit_s = limit_s,
                         .wanted = (1u << OP_COUNT) - 1};
    (void)round;
    if (!result) {
        snprintf(out->why, sizeof out->why, "no memory");
        return;
    }
    scenario_run(&s, result);
    snprintf(out->why, sizeof out->why, "%s", result->error);
    out->left_out = result->left_out;
    for (unsigned op = 0; op < OP_COUNT; op++) {
        const struct series *series = &result->series[op];
        out->of[op] = (struct figures){.value = per(series->op_ns, series->op_count),
                                       .floor = per(series->floor_ns, series->floor_count),
                                       .p50_ns = (double)hist_quantile(&series->latency, 0.5),
                                       .p99_ns = (double)hist_quantile(&series->latency, 0.99),
                                       .p999_ns = (double)hist_quantile(&series->latency, 0.999),
                                       .missing = series->op_count == 0 || series->floor_count == 0};
    }
    free(result);
}

void beside_trial(struct trial *t, uint64_t keys, unsigned workers, bool huge)
{
    static const char *const jobs[OP_COUNT] = {BESIDE "begin",      BESIDE "begin_many",  BESIDE "begin_many",
                                               BESIDE "complete",   BESIDE "in_progress", BESIDE "replay",
                                               BESIDE "replay_many"};
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "idem beside its floors, %" PRIu64 " keys, %u process%s, %s pages", keys, workers,
             workers == 1 ? "" : "es", huge ? "2 MiB" : "4 KiB");
    for (unsigned op = 0; op < OP_COUNT; op++)
        t->rows[t->row_count++] = (struct row_id){.job = jobs[op],
                                                  .who = "idem",
                                                  .unit = "ns/op",
                                                  .batch = ops_batch((enum bench_op)op),
                                                  .keys = keys,
                                                  .workers = workers,
                                                  .huge = huge};
    t->run = run;
}

enum { COPIES = 1 << 16, COPY_BLOCKS = 64, SOURCES = 16 };

static void run_memcpy(const struct trial *self, const struct conditions *c, unsigned round, unsigned limit_s,
                       struct trial_result *out)
{
    static unsigned char from[SOURCES][FLOOR_RESPONSE_BYTES];
    unsigned char to[FLOOR_RESPONSE_BYTES];
    uint64_t ns = 0;
    uint64_t count = 0;
    (void)self;
    (void)c;
    (void)round;
    (void)limit_s;
    for (unsigned block = 0; block < COPY_BLOCKS; block++) {
        struct stopwatch watch;
        stopwatch_start(&watch);
        for (unsigned i = 0; i < COPIES; i++) {
            memcpy(to, from[i % SOURCES], sizeof to);
            __asm__ volatile("" : : "r"(to) : "memory"); /* the copy must be made */
        }
        if (!stopwatch_stop(&watch))
            continue;
        ns += watch.ns;
        count += COPIES;
    }
    out->of[0] = (struct figures){.value = per(ns, count), .missing = count == 0};
}

void beside_memcpy(struct trial *t)
{
    *t = (struct trial){.name = "memcpy of an answer", .row_count = 1, .run = run_memcpy};
    t->rows[0] = (struct row_id){.job = "memcpy", .who = "floor", .unit = "ns/op", .batch = 1, .keys = 1, .workers = 1};
}
