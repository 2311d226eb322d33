/*
 * plots.c - see plots.h. Which rows go into which chart; what a chart looks like is svg.c's.
 */
#include "plots.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "beside.h"
#include "svg.h"

enum { FILE_BYTES = 512 };

#define KEYS UINT64_C(1000000)

static double median(const struct trials *all, unsigned row, size_t offset)
{
    return rows_spread(all, row, offset).median;
}

static bool is(const struct row_id *id, const char *job, const char *unit)
{
    return strcmp(id->job, job) == 0 && strcmp(id->unit, unit) == 0;
}

/* Puts a point into the series of that name, in order of x. */
static void add_point(struct svg_panel *panel, const char *label, double x, double y)
{
    unsigned s = 0;
    while (s < panel->count && strcmp(panel->series[s].label, label) != 0)
        s++;
    if (s == SVG_SERIES_MAX || y <= 0 || x <= 0)
        return;
    struct svg_series *series = &panel->series[s];
    if (s == panel->count) {
        panel->count++;
        series->label = label;
    }
    if (series->count == SVG_POINTS_MAX)
        return;
    unsigned at = series->count++;
    for (; at > 0 && series->x[at - 1] > x; at--) {
        series->x[at] = series->x[at - 1];
        series->y[at] = series->y[at - 1];
    }
    series->x[at] = x;
    series->y[at] = y;
}

/* Those with one point tell nothing about growth. */
static void drop_single(struct svg_panel *panel)
{
    unsigned kept = 0;
    for (unsigned s = 0; s < panel->count; s++)
        if (panel->series[s].count > 1)
            panel->series[kept++] = panel->series[s];
    panel->count = kept;
}

static void path_of(char *path, const char *folder, const char *name)
{
    snprintf(path, FILE_BYTES, "%s/%s", folder, name);
}

/* ------------------------------------------------------------------ the charts */

static int by_keys(const struct trials *all, const char *folder)
{
    static const struct {
        const char *job, *call, *title;
    } panels[] = {{"claim", BESIDE "begin", "claim"},
                  {"complete", BESIDE "complete", "complete, 256 B"},
                  {"replay", BESIDE "replay", "replay, 256 B"}};
    struct svg_lines chart = {.title = "Nanoseconds an operation, by keys in the table",
                              .subtitle = "one call, one worker, 2 MiB pages; lower is better; both axes logarithmic",
                              .x_label = "keys"};
    char path[FILE_BYTES];
    for (unsigned p = 0; p < 3; p++) {
        struct svg_panel *panel = &chart.panels[chart.count];
        panel->title = panels[p].title;
        for (unsigned r = 0; r < rows_count(all); r++) {
            const struct row_id *id = rows_at(all, r);
            if (id->workers != 1 || id->batch != 1 || !id->huge)
                continue;
            bool beside = rows_ratio(all, r).count > 0;
            if (beside && is(id, panels[p].call, "ns/op"))
                add_point(panel, "floor", (double)id->keys, median(all, r, offsetof(struct figures, floor)));
            else if (!beside && is(id, panels[p].job, "ns/op"))
                add_point(panel, id->who, (double)id->keys, median(all, r, offsetof(struct figures, value)));
        }
        drop_single(panel);
        chart.count += panel->count > 0;
    }
    path_of(path, folder, "ns-by-keys.svg");
    return chart.count > 0 ? svg_lines_write(&chart, path) : 0;
}

static unsigned item_of(struct svg_items *chart, const char *label)
{
    unsigned i = 0;
    while (i < chart->count && strcmp(chart->items[i].label, label) != 0)
        i++;
    if (i == SVG_SERIES_MAX)
        return SVG_SERIES_MAX - 1;
    if (i == chart->count) {
        chart->count++;
        chart->items[i].label = label;
    }
    return i;
}

/* By the first group that has a value. */
static void sort_items(struct svg_items *chart, bool descending)
{
    for (unsigned i = 1; i < chart->count; i++)
        for (unsigned j = i; j > 0; j--) {
            const double *a = chart->items[j - 1].value;
            const double *b = chart->items[j].value;
            double first = a[0] > 0 ? a[0] : a[1];
            double second = b[0] > 0 ? b[0] : b[1];
            if (descending ? first >= second : first <= second)
                break;
            struct svg_items copy = *chart;
            chart->items[j - 1] = copy.items[j];
            chart->items[j] = copy.items[j - 1];
        }
}

/* keys 0: any number. */
static bool is_claim(const struct row_id *id, uint64_t keys)
{
    return is(id, "claim", "ns/op") && id->batch == 1 && id->huge && (keys == 0 || id->keys == keys);
}

/* The largest table of theirs that isn't larger than KEYS: who takes long to fill has fewer. */
static uint64_t keys_of(const struct trials *all, const char *who)
{
    uint64_t most = 0;
    for (unsigned r = 0; r < rows_count(all); r++) {
        const struct row_id *id = rows_at(all, r);
        if (is_claim(id, 0) && strcmp(id->who, who) == 0 && id->keys <= KEYS && id->keys > most)
            most = id->keys;
    }
    return most;
}

static int by_workers(const struct trials *all, const char *folder)
{
    struct svg_items chart = {.title = "Claims a second, one call each, by workers",
                              .subtitle = "a million keys (100 thousand where filling takes long); processes, or "
                                          "threads for what knows only those; more is better",
                              .logarithmic = true,
                              .group_count = 2,
                              .groups = {"1 worker", "2 workers"}};
    char path[FILE_BYTES];
    for (unsigned r = 0; r < rows_count(all); r++) {
        const struct row_id *id = rows_at(all, r);
        double ns = median(all, r, offsetof(struct figures, value));
        if (is_claim(id, keys_of(all, id->who)) && id->workers <= 2 && ns > 0)
            chart.items[item_of(&chart, id->who)].value[id->workers - 1] = id->workers * 1e9 / ns;
    }
    sort_items(&chart, true);
    path_of(path, folder, "ops-by-workers.svg");
    return chart.count > 0 ? svg_items_write(&chart, path) : 0;
}

static int percentiles(const struct trials *all, const char *folder)
{
    unsigned workers = 2;
    static const size_t offsets[] = {offsetof(struct figures, p50_ns), offsetof(struct figures, p99_ns),
                                     offsetof(struct figures, p999_ns)};
    struct svg_items chart = {.title = "Latency of a claim, ns",
                              .subtitle = "one call, a million keys (100 thousand where filling takes long), one clock "
                                          "reading included; lower is better",
                              .logarithmic = true,
                              .dots = true,
                              .group_count = 3,
                              .groups = {"median", "99 %", "99.9 %"}};
    char path[FILE_BYTES];
    for (unsigned r = 0; r < rows_count(all); r++)
        if (is_claim(rows_at(all, r), 0) && rows_at(all, r)->workers < workers)
            workers = rows_at(all, r)->workers;
    for (unsigned r = 0; r < rows_count(all); r++) {
        const struct row_id *id = rows_at(all, r);
        if (!is_claim(id, keys_of(all, id->who)) || id->workers != workers || median(all, r, offsets[0]) <= 0)
            continue;
        unsigned item = item_of(&chart, id->who);
        for (unsigned g = 0; g < 3; g++)
            chart.items[item].value[g] = median(all, r, offsets[g]);
    }
    sort_items(&chart, false);
    path_of(path, folder, "latency.svg");
    return chart.count > 0 ? svg_items_write(&chart, path) : 0;
}

static int syncs(const struct trials *all, const char *folder)
{
    struct svg_lines chart = {
        .title = "Durable claims a second, by claims outstanding",
        .subtitle =
            "on the disk when the call returns; idem: workers with a claim each (1,024: 64 with 16), its floor a group "
            "commit and nothing else; others: one, in batches",
        .x_label = "claims outstanding",
        .count = 1};
    struct svg_panel *panel = &chart.panels[0];
    char path[FILE_BYTES];
    panel->title = "claims/s";
    for (unsigned r = 0; r < rows_count(all); r++) {
        const struct row_id *id = rows_at(all, r);
        double value = median(all, r, offsetof(struct figures, value));
        if (is(id, "sync_claim", "op/s") && strcmp(id->who, "idem") == 0) {
            add_point(panel, id->who, id->workers, value);
            add_point(panel, "floor", id->workers, median(all, r, offsetof(struct figures, floor)));
        } else if (is(id, "sync_batch", "op/s")) {
            add_point(panel, strcmp(id->who, "idem") == 0 ? "idem, in batches" : id->who, id->workers, value);
        }
    }
    path_of(path, folder, "sync-by-workers.svg");
    return panel->count > 0 ? svg_lines_write(&chart, path) : 0;
}

static int memory(const struct trials *all, const char *folder)
{
    static const uint64_t sizes[] = {KEYS / 100, KEYS, KEYS * 10};
    struct svg_items chart = {.title = "Bytes a key beyond the key and its 256 B answer, by keys",
                              .subtitle = "all that was allocated for them; lower is better",
                              .group_count = 3,
                              .groups = {"10k keys", "1M keys", "10M keys"}};
    char path[FILE_BYTES];
    for (unsigned r = 0; r < rows_count(all); r++) {
        const struct row_id *id = rows_at(all, r);
        for (unsigned g = 0; g < 3 && is(id, "memory", "bytes/key"); g++)
            if (id->keys == sizes[g] && rows_spread(all, r, 0).count > 0)
                chart.items[item_of(&chart, id->who)].value[g] = median(all, r, offsetof(struct figures, value));
    }
    sort_items(&chart, false);
    path_of(path, folder, "memory-by-keys.svg");
    return chart.count > 0 ? svg_items_write(&chart, path) : 0;
}

int plots_write(const struct trials *all, const char *folder)
{
    int failed = by_keys(all, folder) | by_workers(all, folder) | percentiles(all, folder);
    return failed | syncs(all, folder) | memory(all, folder);
}
