/*
 * bars.c - see bars.h.
 *
 * Invariants
 *  1. Each figure is the median of what single rounds gave; a ratio of two rows is taken within each round.
 *  2. A row without a figure never holds.
 */
#include "bars.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum kind {
    VALUE_MOST,  /* the row's value is at most the limit */
    VALUE_LEAST, /* at least */
    FLOOR_MOST,  /* value over its floor is at most the limit, from BAR_KEYS_MIN keys on */
    FLOOR_NEAR,  /* below that many: it is at most the limit, in ns, above its floor */
    FLOOR_LEAST, /* at least */
    SCALING,     /* with 2 workers against 1: how its time grows, over how its floor's grows, is at most 1 / limit */
    AHEAD        /* `against` takes at least `limit` times idem's time, or does at most 1 / limit as much */
};

#define BAR_KEYS_MIN UINT64_C(1000000)

static const struct bar {
    enum kind kind;
    const char *job;
    unsigned batch, workers; /* workers 0: any */
    double limit;
    const char *against;
    unsigned against_batch;
} bars[] = {
    {FLOOR_MOST, "beside/begin", 1, 0, 1.6, NULL, 0},
    {FLOOR_MOST, "beside/begin_many", 16, 0, 1.3, NULL, 0},
    {FLOOR_MOST, "beside/complete", 1, 0, 1.3, NULL, 0},
    {FLOOR_MOST, "beside/replay", 1, 0, 1.15, NULL, 0},
    {FLOOR_MOST, "beside/replay_many", 16, 0, 1.25, NULL, 0},
    {FLOOR_MOST, "answer_in_progress", 1, 0, 1, NULL, 0},
    {FLOOR_MOST, "answer_mismatch_completed", 1, 0, 1, NULL, 0},
    {FLOOR_MOST, "answer_mismatch_running", 1, 0, 1, NULL, 0},
    {FLOOR_NEAR, "beside/begin", 1, 0, 40, NULL, 0},
    {FLOOR_NEAR, "beside/begin_many", 16, 0, 40, NULL, 0},
    {FLOOR_NEAR, "beside/complete", 1, 0, 40, NULL, 0},
    {FLOOR_NEAR, "beside/replay", 1, 0, 40, NULL, 0},
    {FLOOR_NEAR, "beside/replay_many", 16, 0, 40, NULL, 0},
    {SCALING, "beside/begin", 1, 2, 0.95, NULL, 0},
    {SCALING, "beside/begin_many", 16, 2, 0.95, NULL, 0},
    {SCALING, "beside/complete", 1, 2, 0.95, NULL, 0},
    {SCALING, "beside/replay", 1, 2, 0.95, NULL, 0},
    {VALUE_MOST, "hot_claim", 1, 2, 150, NULL, 0},
    {VALUE_LEAST, "hot_replay", 1, 2, 1.8, NULL, 0},
    {VALUE_LEAST, "crowd", 1, 64, 0.9, NULL, 0},
    {VALUE_MOST, "disturbed", 1, 0, 20, NULL, 0},
    {FLOOR_LEAST, "sync_claim", 1, 0, 1 / 1.1, NULL, 0},
    {VALUE_LEAST, "sync_share", 1, 1, 0.85, NULL, 0},
    {VALUE_MOST, "sync_p99", 1, 0, 2.2, NULL, 0},
    {VALUE_MOST, "memory", 1, 0, 80, NULL, 0},
    {AHEAD, "claim", 1, 0, 1, "urcu/cds_lfht", 1},
    {AHEAD, "claim", 1, 0, 1, "ck_ht", 1},
    {AHEAD, "claim", 1, 0, 1, "ck_hs", 1},
    {AHEAD, "claim", 1, 0, 1, "tbb", 1},
    {AHEAD, "claim", 1, 0, 1, "libcuckoo", 1},
    {AHEAD, "claim", 1, 0, 1, "tkrzw/tiny", 1},
    {AHEAD, "claim", 1, 1, 3, "boost", 1},
    {AHEAD, "claim", 1, 2, 8, "boost", 1},
    {AHEAD, "claim", 1, 1, 11, "lmdb", 1},
    {AHEAD, "claim", 1, 2, 28, "lmdb", 1},
    {AHEAD, "claim", 1, 1, 9, "nginx/lua_shared_dict", 1},
    {AHEAD, "claim", 1, 2, 18, "nginx/lua_shared_dict", 1},
    {AHEAD, "claim", 1, 0, 80, "redis", 1},
    {AHEAD, "claim", 1, 0, 80, "memcached", 1},
    {AHEAD, "claim", 16, 0, 4, "ck_hs", 1},
    {AHEAD, "claim", 32, 0, 70, "redis", 32},
    {AHEAD, "claim", 32, 0, 35, "memcached", 32},
    {AHEAD, "claim", 32, 1, 35, "lmdb", 32},
    {AHEAD, "claim", 32, 2, 80, "lmdb", 32},
    {AHEAD, "sync_batch", 1, 0, 1, "lmdb/sync", 1},
    {AHEAD, "sync_batch", 1, 0, 1, "sqlite/full", 1},
    {AHEAD, "sync_batch", 1, 0, 1, "redis/always", 1},
    {AHEAD, "memory", 1, 0, 1, "boost", 1},
    {AHEAD, "memory", 1, 0, 1, "lmdb", 1},
    {AHEAD, "memory", 1, 0, 1, "tkrzw/tiny", 1},
    {AHEAD, "memory", 1, 0, 1, "redis", 1},
    {AHEAD, "memory", 1, 0, 1, "memcached", 1},
    {AHEAD, "memory", 1, 0, 1, "nginx/lua_shared_dict", 1},
};

/* A figure and what it was taken from. */
struct verdict {
    double values[ROUNDS_MAX];
    unsigned count;
};

static bool is_idem(const struct row_id *id)
{
    return strcmp(id->who, "idem") == 0;
}

/* The row of `who` that is comparable with `id`; the same number of keys if there is one. */
static int partner(const struct trials *all, const struct row_id *id, const char *who, unsigned batch, unsigned workers)
{
    int found = -1;
    for (unsigned r = 0; r < rows_count(all); r++) {
        const struct row_id *other = rows_at(all, r);
        if (strcmp(other->who, who) != 0 || strcmp(other->job, id->job) != 0 || other->batch != batch ||
            other->workers != workers || other->huge != id->huge)
            continue;
        if (found < 0 || other->keys == id->keys)
            found = (int)r;
    }
    return found;
}

static double of_round(const struct bar *b, const struct figures *f, const struct figures *g, const char *unit)
{
    switch (b->kind) {
    case VALUE_MOST:
    case VALUE_LEAST:
        return f->value;
    case FLOOR_MOST:
    case FLOOR_LEAST:
        return f->floor > 0 ? f->value / f->floor : 0;
    case FLOOR_NEAR:
        return f->floor > 0 ? (f->value > f->floor ? f->value - f->floor : 0.1) : 0;
    case SCALING:
        return g != NULL && f->floor > 0 && g->floor > 0 ? g->value / f->value / (g->floor / f->floor) : 0;
    default:
        if (g == NULL || f->value <= 0 || g->value <= 0)
            return 0;
        return strcmp(unit, "op/s") == 0 ? f->value / g->value : g->value / f->value;
    }
}

static struct verdict judge(const struct trials *all, const struct bar *b, unsigned row, int other)
{
    struct verdict v = {.count = 0};
    for (unsigned round = 0; round < rounds_done(all); round++) {
        const struct figures *f = rows_figures(all, row, round);
        const struct figures *g = other >= 0 ? rows_figures(all, (unsigned)other, round) : NULL;
        double x =
            f != NULL && !f->missing && (g == NULL || !g->missing) ? of_round(b, f, g, rows_at(all, row)->unit) : 0;
        if (x > 0)
            v.values[v.count++] = x;
    }
    return v;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Is this row one that the bar is for? */
static bool concerns(const struct trials *all, const struct bar *b, unsigned row)
{
    const struct row_id *id = rows_at(all, row);
    bool near = b->kind == FLOOR_NEAR;
    bool floors = near || b->kind == FLOOR_MOST || b->kind == SCALING;
    bool sized = floors || b->kind == AHEAD || strcmp(b->job, "memory") == 0;
    return is_idem(id) && strcmp(id->job, b->job) == 0 && id->batch == b->batch &&
           (b->workers == 0 || b->workers == id->workers) &&
           (!sized || id->keys == 0 || (id->keys >= BAR_KEYS_MIN) != near) &&
           (!floors || rows_ratio(all, row).count > 0);
}

static void print_subject(const struct bar *b, const struct row_id *id, FILE *to)
{
    fprintf(to, "| %s", b->job);
    if (b->batch > 1)
        fprintf(to, "/%u", b->batch);
    if (b->against != NULL)
        fprintf(to, " against %s", b->against);
    if (id == NULL) {
        fputs(" | |", to);
        return;
    }
    fputs(" | ", to);
    if (id->keys > 1)
        fprintf(to, "%" PRIu64 " keys, ", id->keys);
    if (strncmp(b->job, "sync", 4) == 0)
        fprintf(to, "%u outstanding |", id->workers);
    else
        fprintf(to, "%u process%s, %s pages |", id->workers, id->workers == 1 ? "" : "es", id->huge ? "2M" : "4K");
}

static const char *sense(const struct bar *b)
{
    switch (b->kind) {
    case VALUE_MOST:
        return "at most %.3g";
    case FLOOR_MOST:
        return "at most %.3g x its floor";
    case FLOOR_NEAR:
        return "at most %.3g ns above its floor";
    case FLOOR_LEAST:
        return "at least %.3g x its control";
    case SCALING:
        return "at least %.3g x its floor's scaling";
    case AHEAD:
        return "at least %.3g x as fast";
    default:
        return "at least %.3g";
    }
}

/* 1: missed. */
static unsigned print_row(const struct trials *all, const struct bar *b, unsigned row, FILE *to)
{
    const struct row_id *id = rows_at(all, row);
    int other = b->kind == SCALING ? partner(all, id, "idem", b->batch, 1)
                : b->kind == AHEAD ? partner(all, id, b->against, b->against_batch, id->workers)
                                   : -1;
    if ((b->kind == SCALING || b->kind == AHEAD) && other < 0)
        return 0; /* there is no such row: who has one worker only, or was filtered away */
    struct verdict v = judge(all, b, row, other);
    print_subject(b, id, to);
    fputc(' ', to);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    fprintf(to, sense(b), b->limit);
#pragma GCC diagnostic pop
    if (v.count == 0) {
        fputs(" | - | not measured |\n", to);
        return 0;
    }
    qsort(v.values, v.count, sizeof v.values[0], by_size);
    double median = v.count % 2 ? v.values[v.count / 2] : (v.values[v.count / 2 - 1] + v.values[v.count / 2]) / 2;
    bool most = b->kind == VALUE_MOST || b->kind == FLOOR_MOST || b->kind == FLOOR_NEAR;
    bool holds = most ? median <= b->limit : median >= b->limit;
    fprintf(to, " | %.3g (%.3g-%.3g) | %s |\n", median, v.values[0], v.values[v.count - 1],
            holds ? "holds" : "**missed**");
    return !holds;
}

unsigned bars_print(const struct trials *all, FILE *to)
{
    unsigned missed = 0;
    fputs("\n**Bars**\n\n| what | where | bar | figure | |\n|---|---|---|---|---|\n", to);
    for (unsigned i = 0; i < sizeof bars / sizeof bars[0]; i++)
        for (unsigned r = 0; r < rows_count(all); r++)
            if (concerns(all, &bars[i], r))
                missed += print_row(all, &bars[i], r, to);
    fprintf(to, "\n%u bars were missed.\n", missed);
    return missed;
}
