/*
 * report.c - see report.h.
 *
 * A table compares what is comparable: rows of one job, batch and unit; a column for each size, number of workers and page
 * size that was measured, a line for each who. Every cell is the median over the rounds, with least and most.
 */
#include "report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "beside.h"
#include "bars.h"
#include "idem.h"
#include "lineup.h"
#include "peers/peer.h"
#include "place.h"

enum { COLUMNS_MAX = 16, LINES_MAX = 64, NONE = -1 };

/* idem's calls beside their floors have a table of their own. */
static bool is_beside(const struct row_id *id)
{
    return strncmp(id->job, BESIDE, strlen(BESIDE)) == 0;
}

/* A table under construction: rows by line (who) and column. */
struct grid {
    const struct row_id *columns[COLUMNS_MAX];
    unsigned column_count;
    const char *lines[LINES_MAX];
    unsigned line_count;
    int row[LINES_MAX][COLUMNS_MAX];
};

static bool same_table(const struct row_id *a, const struct row_id *b)
{
    return a->batch == b->batch && strcmp(a->job, b->job) == 0 && strcmp(a->unit, b->unit) == 0;
}

static bool same_column(const struct row_id *a, const struct row_id *b)
{
    return a->keys == b->keys && a->workers == b->workers && a->huge == b->huge;
}

static void grid_add(struct grid *g, const struct trials *all, unsigned row)
{
    const struct row_id *id = rows_at(all, row);
    unsigned line = 0;
    unsigned column = 0;
    while (line < g->line_count && strcmp(g->lines[line], id->who) != 0)
        line++;
    while (column < g->column_count && !same_column(g->columns[column], id))
        column++;
    if (line == LINES_MAX || column == COLUMNS_MAX)
        return;
    if (column == g->column_count)
        g->columns[g->column_count++] = id;
    if (line == g->line_count) {
        g->lines[g->line_count++] = id->who;
        for (unsigned i = 0; i < COLUMNS_MAX; i++)
            g->row[line][i] = NONE;
    }
    g->row[line][column] = (int)row;
}

static void sort_columns(struct grid *g)
{
    for (unsigned i = 1; i < g->column_count; i++)
        for (unsigned j = i; j > 0; j--) {
            const struct row_id *a = g->columns[j - 1];
            const struct row_id *b = g->columns[j];
            bool ordered = a->keys != b->keys         ? a->keys < b->keys
                           : a->workers != b->workers ? a->workers < b->workers
                                                      : a->huge >= b->huge;
            if (ordered)
                break;
            g->columns[j - 1] = b;
            g->columns[j] = a;
            for (unsigned line = 0; line < g->line_count; line++) {
                int swap = g->row[line][j];
                g->row[line][j] = g->row[line][j - 1];
                g->row[line][j - 1] = swap;
            }
        }
}

static double value_of(const struct trials *all, int row)
{
    return row == NONE ? 0 : rows_spread(all, (unsigned)row, offsetof(struct figures, value)).median;
}

/* By the column that most have; what it lacks comes last. */
static void sort_lines(struct grid *g, const struct trials *all)
{
    unsigned by = 0;
    unsigned most = 0;
    for (unsigned c = 0; c < g->column_count; c++) {
        unsigned have = 0;
        for (unsigned line = 0; line < g->line_count; line++)
            have += value_of(all, g->row[line][c]) > 0;
        if (have > most) {
            most = have;
            by = c;
        }
    }
    bool more_is_better = strcmp(g->columns[0]->unit, "op/s") == 0;
    for (unsigned i = 1; i < g->line_count; i++)
        for (unsigned j = i; j > 0; j--) {
            double a = value_of(all, g->row[j - 1][by]);
            double b = value_of(all, g->row[j][by]);
            if (b <= 0 || (a > 0 && (more_is_better ? a >= b : a <= b)))
                break;
            const char *who = g->lines[j];
            int rows[COLUMNS_MAX];
            memcpy(rows, g->row[j], sizeof rows);
            memcpy(g->row[j], g->row[j - 1], sizeof rows);
            memcpy(g->row[j - 1], rows, sizeof rows);
            g->lines[j] = g->lines[j - 1];
            g->lines[j - 1] = who;
        }
}

/* ------------------------------------------------------------------ cells */

static void print_count(uint64_t keys, FILE *to)
{
    if (keys >= 1000000 && keys % 1000000 == 0)
        fprintf(to, "%" PRIu64 "M", keys / 1000000);
    else if (keys >= 1000 && keys % 1000 == 0)
        fprintf(to, "%" PRIu64 "k", keys / 1000);
    else
        fprintf(to, "%" PRIu64, keys);
}

static void print_value(double v, FILE *to)
{
    if (v >= 1e6)
        fprintf(to, "%.3gM", v / 1e6);
    else if (v >= 1e4)
        fprintf(to, "%.3gk", v / 1e3);
    else
        fprintf(to, "%.*f", v < 10 ? 2 : 0, v);
}

/* 3: "x 3.1" of idem's figure in that column; nothing where idem has none. */
static void print_cell(const struct grid *g, const struct trials *all, unsigned line, unsigned column, FILE *to)
{
    int row = g->row[line][column];
    if (row == NONE) {
        fputs(" |", to);
        return;
    }
    struct spread s = rows_spread(all, (unsigned)row, offsetof(struct figures, value));
    if (s.count == 0) {
        fputs(" - |", to);
        return;
    }
    fputs(" ", to);
    print_value(s.median, to);
    fputs(" (", to);
    print_value(s.min, to);
    fputs("-", to);
    print_value(s.max, to);
    fputs(")", to);
    for (unsigned i = 0; i < g->line_count; i++) {
        double mine = strcmp(g->lines[i], "idem") == 0 && i != line ? value_of(all, g->row[i][column]) : 0;
        if (mine > 0)
            fprintf(to, " ×%.*f", s.median / mine < 10 ? 2 : 0, s.median / mine);
    }
    struct spread ratio = rows_ratio(all, (unsigned)row);
    if (ratio.count > 0)
        fprintf(to, ", %.2f (%.2f-%.2f) of its floor", ratio.median, ratio.min, ratio.max);
    fputs(" |", to);
}

static void print_grid(struct grid *g, const struct trials *all, FILE *to)
{
    const struct row_id *id = g->columns[0];
    sort_columns(g);
    sort_lines(g, all);
    fprintf(to, "\n**%s", id->job);
    if (id->batch > 1)
        fprintf(to, ", %u in one call", id->batch);
    fprintf(to, "** (%s)\n\n| |", id->unit);
    for (unsigned c = 0; c < g->column_count; c++) {
        fputs(" ", to);
        print_count(g->columns[c]->keys, to);
        fprintf(to, " keys, %u worker%s%s |", g->columns[c]->workers, g->columns[c]->workers == 1 ? "" : "s",
                g->columns[c]->huge ? "" : ", 4 KiB pages");
    }
    fputs("\n|---|", to);
    for (unsigned c = 0; c < g->column_count; c++)
        fputs("---|", to);
    fputs("\n", to);
    for (unsigned line = 0; line < g->line_count; line++) {
        fprintf(to, "| %s |", g->lines[line]);
        for (unsigned c = 0; c < g->column_count; c++)
            print_cell(g, all, line, c, to);
        fputs("\n", to);
    }
}

/* ------------------------------------------------------------------ beside the floors */

static void print_floors(const struct trials *all, FILE *to)
{
    bool any = false;
    for (unsigned r = 0; r < rows_count(all); r++) {
        const struct row_id *id = rows_at(all, r);
        struct spread ratio = rows_ratio(all, r);
        if (ratio.count == 0 || !is_beside(id))
            continue;
        if (!any)
            fputs("\n**idem beside its floors** (ns/op, in turns)\n\n"
                  "| call | keys | processes | pages | idem | floor | ratio | p50 | p99 | p99.9 |\n"
                  "|---|---|---|---|---|---|---|---|---|---|\n",
                  to);
        any = true;
        fprintf(to, "| %s", id->job + strlen(BESIDE));
        if (id->batch > 1)
            fprintf(to, "/%u", id->batch);
        fputs(" | ", to);
        print_count(id->keys, to);
        fprintf(to, " | %u | %s | %.0f | %.0f | %.2f (%.2f-%.2f) | %.0f | %.0f | %.0f |\n", id->workers,
                id->huge ? "2M" : "4K", rows_spread(all, r, offsetof(struct figures, value)).median,
                rows_spread(all, r, offsetof(struct figures, floor)).median, ratio.median, ratio.min, ratio.max,
                rows_spread(all, r, offsetof(struct figures, p50_ns)).median,
                rows_spread(all, r, offsetof(struct figures, p99_ns)).median,
                rows_spread(all, r, offsetof(struct figures, p999_ns)).median);
    }
}

/* ------------------------------------------------------------------ notes */

static void print_peer(void *ctx, const char *name, const char *version, const char *settings)
{
    FILE *to = ctx;
    if (version)
        fprintf(to, "| %s | %s | %s |\n", name, version, settings);
    else
        fprintf(to, "| %s | **not measured** | %s |\n", name, settings);
}

static void print_missing(const struct trials *all, FILE *to)
{
    const char *last = "";
    for (unsigned r = 0; r < rows_count(all); r++) {
        bool left_out;
        const char *why = rows_why(all, r, &left_out);
        char name[200];
        if (!why || strcmp(why, last) == 0)
            continue;
        last = why;
        row_name(rows_at(all, r), name, sizeof name);
        if (strncmp(why, PEER_LEFT_OUT, strlen(PEER_LEFT_OUT)) == 0)
            why += strlen(PEER_LEFT_OUT);
        fprintf(to, "\n%s `%s` and its like: %s\n", left_out ? "Left out:" : "**FAILED**", name, why);
    }
}

void report_tables(const struct trials *all, const struct conditions *c, FILE *to)
{
    struct utsname host;
    print_floors(all, to);
    if (!c->smoke)
        bars_print(all, to);
    for (unsigned r = 0; r < rows_count(all); r++) {
        struct grid grid = {0};
        bool first = true;
        for (unsigned other = 0; other < rows_count(all); other++) {
            if (is_beside(rows_at(all, other)) || !same_table(rows_at(all, r), rows_at(all, other)))
                continue;
            first = first && other >= r;
            grid_add(&grid, all, other);
        }
        if (first && grid.line_count > 0 && !is_beside(rows_at(all, r)))
            print_grid(&grid, all, to);
    }
    print_missing(all, to);
    fprintf(to,
            "\nMedians of %u rounds, least and most in parentheses; × is against idem in the same column. ns/op is the "
            "time of one "
            "operation as one worker sees it. Pages are of 2 MiB unless said.\n",
            rounds_done(all));
    if (rounds_cut(all))
        fprintf(to, "\n**Cut: %s.**\n", rounds_cut(all));
    if (c->place && !c->place->huge)
        fprintf(to, "\nNo 2 MiB pages: %s.\n", c->place->no_huge);
    fputs("\n| who | version | given |\n|---|---|---|\n", to);
    lineup_peers(print_peer, to);
    if (uname(&host) == 0)
        fprintf(to, "\n%ld processors, %s %s, idem %s.\n", sysconf(_SC_NPROCESSORS_ONLN), host.sysname, host.release,
                idem_version());
}

unsigned report_failures(const struct trials *all)
{
    unsigned failures = 0;
    for (unsigned r = 0; r < rows_count(all); r++) {
        bool left_out;
        failures += rows_why(all, r, &left_out) && !left_out;
    }
    return failures;
}
