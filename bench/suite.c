/*
 * suite.c - see suite.h. The bars stand here, in one table.
 *
 * Invariants
 *  1. A row holds only if every repetition was measured and the median is within the bar; a row without a figure never
 *     holds.
 *  2. A scenario's repetition is run at most once, whichever of its rows asks first.
 */
#include "suite.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <regex.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "floor.h"
#include "harness.h"
#include "idem.h"
#include "keys.h"
#include "place.h"
#include "scenario.h"

enum {
    REPETITIONS_MAX = 25,
    REPETITIONS = 5,
    SCENARIOS_MAX = 12,
    ROWS_MAX = SCENARIOS_MAX * OP_COUNT,
    NAME_BYTES = 80
};

#define BAR_KEYS_MIN UINT64_C(1000000)
#define BAR_BYTES    96.0
#define TMPFS_BYTES  (UINT64_C(13) << 30)

/* At most this many times the floor; 0: no bar. */
static const double bars[OP_COUNT] = {[OP_BEGIN] = 2.0, [OP_MANY16] = 2.5, [OP_MANY64] = 2.5, [OP_REPLAY] = 2.0};

struct run { /* one repetition of a scenario */
    bool done;
    bool left_out; /* this machine cannot, and `error` says why */
    char error[HARNESS_ERROR_BYTES];
    struct measured of[OP_COUNT];
    double huge_percent;
    double floor_huge_percent;
    uint64_t store_bytes;
};

struct config {
    struct scenario scenario;
    struct run runs[REPETITIONS_MAX];
};

struct row {
    unsigned config;
    enum bench_op op;
    char name[NAME_BYTES];
    unsigned next; /* repetition that is asked for next */
};

struct suite {
    struct place place;
    bool check;
    unsigned repetitions;
    const char *json;
    unsigned config_count;
    unsigned row_count;
    unsigned failed_rows;
    unsigned left_out_rows;
    unsigned bars_held;
    unsigned bars_missed;
    bool printed;
    uint64_t clock_ns;
    uint64_t blocks;
    uint64_t disturbed;
    struct config configs[SCENARIOS_MAX];
    struct row rows[ROWS_MAX];
};

static const char help[] =
    "usage: bench/run [--quick] [--filter REGEX] [--json FILE] [--repetitions N] [--dir FOLDER] [--cold] [--check]\n"
    "\n"
    "Measures the store's operations beside what their memory accesses alone cost on this machine (the floor), in the\n"
    "same run, and prints a Markdown table with the bars and whether they hold.\n"
    "\n"
    "  --quick          10 thousand and 1 million keys only; under a minute on a quiet machine\n"
    "  --filter REGEX   only rows whose name matches, e.g. 'replay/keys:1000000/' or 'processes:1/pages:2M'\n"
    "  --json FILE      google-benchmark's JSON too; the log's rows to FILE.log\n"
    "  --repetitions N  1 to 25, default 5; the table shows medians\n"
    "                   or, beginning with log/, only the log's: log/sync/workers:64, log/async, log/recover, "
    "log/bytes\n"
    "  --disk FOLDER    where the log's rows have their logs, default: the build's; what is measured is its file "
    "system\n"
    "  --dir FOLDER     work below this folder on a tmpfs, default /dev/shm\n"
    "  --cold           do not map the store's pages beforehand: first touches are in the figures\n"
    "  --check          exit with 1 if a bar does not hold\n"
    "\n"
    "Huge pages need a tmpfs with huge=advise: as root one is mounted for this run alone, else use --dir.\n"
    "Exit status: 0 measured, 1 a bar was missed (with --check), 2 something could not be measured.\n";

/* ------------------------------------------------------------------ what to measure */

struct wishes {
    bool quick;
    bool cold;
    const char *filter;
    const char *dir;
};

/* 0 go on, 1 help was printed, -1 error was printed. */
static int read_options(struct suite *suite, struct wishes *wishes, int argc, char **argv)
{
    static const struct option options[] = {
        {"quick", no_argument, NULL, 'q'},
        {"filter", required_argument, NULL, 'f'},
        {"json", required_argument, NULL, 'j'},
        {"repetitions", required_argument, NULL, 'r'},
        {"dir", required_argument, NULL, 'd'},
        {"cold", no_argument, NULL, 'c'},
        {"check", no_argument, NULL, 'k'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        char *end = NULL;
        switch (option) {
        case 'q':
            wishes->quick = true;
            break;
        case 'f':
            wishes->filter = optarg;
            break;
        case 'j':
            suite->json = optarg;
            break;
        case 'r':
            errno = 0;
            suite->repetitions = (unsigned)strtoul(optarg, &end, 10);
            if (*optarg < '0' || *optarg > '9' || *end || errno || suite->repetitions < 1 ||
                suite->repetitions > REPETITIONS_MAX) {
                fprintf(stderr, "bench: --repetitions %s: give a number from 1 to %d\n", optarg, REPETITIONS_MAX);
                return -1;
            }
            break;
        case 'd':
            wishes->dir = optarg;
            break;
        case 'c':
            wishes->cold = true;
            break;
        case 'k':
            suite->check = true;
            break;
        case 'h':
            fputs(help, stdout);
            return 1;
        default:
            fputs("bench: see --help\n", stderr);
            return -1;
        }
    }
    if (optind == argc)
        return 0;
    fprintf(stderr, "bench: '%s' is not an option; see --help\n", argv[optind]);
    return -1;
}

static void add_rows(struct suite *suite, const struct scenario *scenario, const regex_t *filter)
{
    struct config *config = &suite->configs[suite->config_count];
    config->scenario = *scenario;
    for (unsigned op = 0; op < OP_COUNT; op++) {
        struct row *row = &suite->rows[suite->row_count];
        snprintf(row->name, sizeof row->name, "%s/keys:%" PRIu64 "/processes:%u/pages:%s", ops_name(op), scenario->keys,
                 scenario->processes, scenario->huge ? "2M" : "4K");
        if (filter && regexec(filter, row->name, 0, NULL, 0) != 0)
            continue;
        row->config = suite->config_count;
        row->op = op;
        config->scenario.wanted |= 1u << op;
        suite->row_count++;
    }
    if (config->scenario.wanted != 0)
        suite->config_count++;
}

static int choose_rows(struct suite *suite, const struct wishes *wishes)
{
    static const uint64_t sizes[] = {10000, 1000000, 10000000};
    regex_t filter;
    if (wishes->filter) {
        int bad = regcomp(&filter, wishes->filter, REG_EXTENDED | REG_NOSUB);
        if (bad != 0) {
            char why[160];
            regerror(bad, &filter, why, sizeof why);
            fprintf(stderr, "bench: --filter %s: %s\n", wishes->filter, why);
            return -1;
        }
    }
    for (unsigned size = 0; size < (wishes->quick ? 2u : 3u); size++)
        for (unsigned processes = 1; processes <= 2; processes++)
            for (unsigned huge = 0; huge <= 1; huge++) {
                struct scenario s = {.place = &suite->place,
                                     .keys = sizes[size],
                                     .processes = processes,
                                     .huge = huge != 0,
                                     .cold = wishes->cold};
                add_rows(suite, &s, wishes->filter ? &filter : NULL);
            }
    if (wishes->filter)
        regfree(&filter);
    if (suite->row_count > 0)
        return 0;
    fprintf(stderr, "bench: --filter %s matches no row; rows look like replay/keys:1000000/processes:1/pages:2M\n",
            wishes->filter);
    return -1;
}

struct suite *suite_create(int argc, char **argv, int *status)
{
    struct wishes wishes = {0};
    struct suite *suite = calloc(1, sizeof *suite);
    *status = 2;
    if (!suite) {
        fputs("bench: out of memory\n", stderr);
        return NULL;
    }
    suite->repetitions = REPETITIONS;
    int read = read_options(suite, &wishes, argc, argv);
    if (read != 0 || choose_rows(suite, &wishes) != 0) {
        *status = read == 1 ? 0 : 2;
        free(suite);
        return NULL;
    }
    harness_catch_signals();
    if (place_open(&suite->place, wishes.dir, TMPFS_BYTES) != 0) {
        free(suite);
        return NULL;
    }
    suite->clock_ns = harness_clock_cost_ns();
    return suite;
}

int suite_free(struct suite *suite)
{
    int status = 0;
    if (!suite->printed || suite->failed_rows > 0)
        status = 2;
    else if (suite->check && suite->bars_missed > 0)
        status = 1;
    place_close(&suite->place);
    free(suite);
    return status;
}

unsigned suite_rows(const struct suite *suite)
{
    return suite->row_count;
}

unsigned suite_repetitions(const struct suite *suite)
{
    return suite->repetitions;
}

const char *suite_row_name(const struct suite *suite, unsigned row)
{
    return suite->rows[row].name;
}

const char *suite_json(const struct suite *suite)
{
    return suite->json;
}

/* ------------------------------------------------------------------ measuring */

static double per(double value, double count)
{
    return count > 0 ? value / count : 0;
}

static void run_scenario(struct suite *suite, const struct scenario *scenario, struct run *run)
{
    run->done = true;
    if (harness_interrupted()) {
        snprintf(run->error, sizeof run->error, "interrupted");
        return;
    }
    struct scenario_result *result = calloc(1, sizeof *result);
    if (!result) {
        snprintf(run->error, sizeof run->error, "out of memory");
        return;
    }
    scenario_run(scenario, result);
    memcpy(run->error, result->error, sizeof run->error);
    run->left_out = result->left_out;
    for (unsigned op = 0; op < OP_COUNT; op++) {
        const struct series *s = &result->series[op];
        struct measured *m = &run->of[op];
        suite->blocks += s->blocks;
        suite->disturbed += s->disturbed;
        m->ns = per((double)s->op_ns, (double)s->op_count);
        m->floor_ns = per((double)s->floor_ns, (double)s->floor_count);
        m->ratio = per(m->ns, m->floor_ns);
        m->p50_ns = (double)hist_quantile(&s->latency, 0.5);
        m->p99_ns = (double)hist_quantile(&s->latency, 0.99);
        m->p999_ns = (double)hist_quantile(&s->latency, 0.999);
        m->bytes_per_key =
            per((double)result->store_bytes, (double)result->keys_capacity) - KEY_BYTES - FLOOR_RESPONSE_BYTES;
    }
    run->store_bytes = result->store_bytes;
    run->huge_percent = 100 * per((double)result->store_huge_bytes, (double)result->store_bytes);
    run->floor_huge_percent = 100 * per((double)result->floor_huge_bytes, (double)result->floor_bytes);
    free(result);
}

const char *suite_measure(struct suite *suite, unsigned at, struct measured *out)
{
    struct row *row = &suite->rows[at];
    struct config *config = &suite->configs[row->config];
    if (row->next >= suite->repetitions)
        return "asked for more repetitions than were planned";
    struct run *run = &config->runs[row->next++];
    if (!run->done)
        run_scenario(suite, &config->scenario, run);
    if (run->error[0] == '\0' && run->of[row->op].ratio <= 0)
        snprintf(run->error, sizeof run->error, "too few operations were timed");
    if (run->error[0] != '\0')
        return run->error;
    *out = run->of[row->op];
    return NULL;
}

/* ------------------------------------------------------------------ the table */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

struct spread {
    double median, min, max;
};

/* Over the repetitions, of the double that lies `offset` bytes into each one's struct measured. */
static struct spread spread_of(const struct suite *suite, const struct row *row, size_t offset)
{
    double values[REPETITIONS_MAX];
    unsigned n = suite->repetitions;
    for (unsigned i = 0; i < n; i++)
        memcpy(&values[i], (const char *)&suite->configs[row->config].runs[i].of[row->op] + offset, sizeof values[i]);
    qsort(values, n, sizeof values[0], by_value);
    return (struct spread){.median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2,
                           .min = values[0],
                           .max = values[n - 1]};
}

static const char *first_error(const struct suite *suite, const struct config *config)
{
    for (unsigned i = 0; i < suite->repetitions; i++) {
        if (!config->runs[i].done)
            return "not measured";
        if (config->runs[i].error[0] != '\0')
            return config->runs[i].error;
    }
    return NULL;
}

static const char *count_text(uint64_t keys)
{
    return keys >= 10000000 ? "10M" : keys >= 1000000 ? "1M" : "10k";
}

static void print_verdict(struct suite *suite, double value, double bar, FILE *to)
{
    if (value <= bar) {
        suite->bars_held++;
        fputs("yes |\n", to);
        return;
    }
    suite->bars_missed++;
    fputs("**NO** |\n", to);
}

static void print_row(struct suite *suite, const struct row *row, FILE *to)
{
    const struct config *config = &suite->configs[row->config];
    const struct scenario *s = &config->scenario;
    fprintf(to, "| %s | %s | %u | %s | ", ops_name(row->op), count_text(s->keys), s->processes, s->huge ? "2M" : "4K");
    const char *error = first_error(suite, config);
    if (error) {
        if (config->runs[0].left_out)
            suite->left_out_rows++;
        else
            suite->failed_rows++;
        fprintf(to, "- | - | - | - | - | - | - | - | %s |\n", error);
        return;
    }
    struct spread ratio = spread_of(suite, row, offsetof(struct measured, ratio));
    fprintf(to, "%.0f | %.0f | %.2f | %.2f-%.2f | %.0f | %.0f | %.0f | ",
            spread_of(suite, row, offsetof(struct measured, ns)).median,
            spread_of(suite, row, offsetof(struct measured, floor_ns)).median, ratio.median, ratio.min, ratio.max,
            spread_of(suite, row, offsetof(struct measured, p50_ns)).median,
            spread_of(suite, row, offsetof(struct measured, p99_ns)).median,
            spread_of(suite, row, offsetof(struct measured, p999_ns)).median);
    double bar = s->keys >= BAR_KEYS_MIN ? bars[row->op] : 0;
    if (bar > 0) {
        fprintf(to, "<= %.2g | ", bar);
        print_verdict(suite, ratio.median, bar, to);
    } else {
        fputs("- | - |\n", to);
    }
}

static void print_memory(struct suite *suite, FILE *to)
{
    fputs("\n| keys | processes | pages | store MiB | bytes a key beyond key + response | in 2 MiB pages: store, "
          "floors | bar | "
          "holds |\n|---|---|---|---|---|---|---|---|\n",
          to);
    for (unsigned i = 0; i < suite->config_count; i++) {
        const struct config *config = &suite->configs[i];
        const struct scenario *s = &config->scenario;
        const struct run *run = &config->runs[0];
        if (first_error(suite, config))
            continue;
        fprintf(to, "| %s | %u | %s | %.1f | %.1f | %.0f %%, %.0f %% | ", count_text(s->keys), s->processes,
                s->huge ? "2M" : "4K", (double)run->store_bytes / 1048576, run->of[0].bytes_per_key, run->huge_percent,
                run->floor_huge_percent);
        if (s->keys >= BAR_KEYS_MIN) {
            fprintf(to, "<= %.0f | ", BAR_BYTES);
            print_verdict(suite, run->of[0].bytes_per_key, BAR_BYTES, to);
        } else {
            fputs("- | - |\n", to);
        }
    }
}

static void print_notes(const struct suite *suite, FILE *to)
{
    struct utsname host;
    fputs("\nns/op is the time of one operation as one process sees it, floor what its memory accesses and hash alone "
          "cost in "
          "the same run, on the\nsame keys and page size, taking turns; medians of ",
          to);
    fprintf(to, "%u repetitions, spread of the ratio from least to most.\n", suite->repetitions);
    fprintf(to,
            "p50, p99, p99.9 are of single calls (begin_many: of a whole batch) in other blocks; each holds one clock "
            "reading "
            "of %" PRIu64 " ns.\n",
            suite->clock_ns);
    fprintf(to,
            "Keys are %u bytes of text, bodies %u bytes. A store is filled from empty to its advertised number of "
            "keys. %s\n",
            KEY_BYTES, FLOOR_RESPONSE_BYTES,
            suite->configs[0].scenario.cold ? "The store's pages are not mapped beforehand (--cold)."
                                            : "All pages are mapped beforehand, for store and floor.");
    fputs("in_progress asks for keys of the same process with 1 process, of the other one with 2.\n", to);
    fprintf(to,
            "Other programs took the core in %.1f %% of the blocks, which are left out; the quieter the machine, the "
            "better the "
            "figures.\n",
            100 * per((double)suite->disturbed, (double)suite->blocks));
    if (!suite->place.huge)
        fprintf(to, "No huge pages: %s.\n", suite->place.no_huge);
    if (uname(&host) == 0)
        fprintf(to, "%ld CPUs, %s %s, idem %s.\n", sysconf(_SC_NPROCESSORS_ONLN), host.sysname, host.release,
                idem_version());
}

void suite_print(struct suite *suite, FILE *to)
{
    suite->printed = true;
    suite->failed_rows = suite->left_out_rows = suite->bars_held = suite->bars_missed = 0;
    fputs("| operation | keys | processes | pages | ns/op | floor ns | ratio | spread | p50 ns | p99 ns | p99.9 ns | "
          "bar | holds "
          "|\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
          to);
    for (unsigned op = 0; op < OP_COUNT; op++)
        for (unsigned i = 0; i < suite->row_count; i++)
            if (suite->rows[i].op == op)
                print_row(suite, &suite->rows[i], to);
    print_memory(suite, to);
    print_notes(suite, to);
    fprintf(to, "\nBars: %u hold, %u missed.", suite->bars_held, suite->bars_missed);
    if (suite->left_out_rows > 0)
        fprintf(to, " %u rows were left out: this machine cannot run them.", suite->left_out_rows);
    if (suite->failed_rows > 0)
        fprintf(to, " %u rows FAILED.", suite->failed_rows);
    fputs("\n", to);
}
