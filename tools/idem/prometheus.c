/*
 * prometheus.c - `idem stat --prometheus`: the figures in the Prometheus text exposition format 0.0.4.
 *
 * Invariants
 *  1. Each metric family is printed once: HELP, TYPE, then all its samples in a row.
 *  2. Counters end in _total and never fall; base units are seconds and bytes.
 *  3. In label values backslash, double quote and newline are escaped.
 *
 * If we die here: a scraper that reads half a page discards it.
 */
#include <inttypes.h>

#include "stat.h"

static void print_label_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\\')
            fputs("\\\\", stdout);
        else if (*text == '"')
            fputs("\\\"", stdout);
        else if (*text == '\n')
            fputs("\\n", stdout);
        else
            putchar(*text);
    }
}

void prometheus_family(const char *name, const char *type, const char *help)
{
    printf("# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void prometheus_sample(const char *name, const char *path, const char *label, const char *value)
{
    printf("%s{store=\"", name);
    print_label_text(path);
    if (label != NULL) {
        printf("\",%s=\"", label);
        print_label_text(value);
    }
    fputs("\"} ", stdout);
}

void prometheus_number(uint64_t n)
{
    printf("%" PRIu64 "\n", n);
}

void prometheus_seconds(int64_t ms)
{
    if (ms == IDEM_FOREVER)
        printf("+Inf\n");
    else
        printf("%" PRId64 ".%03d\n", ms / 1000, (int)(ms % 1000));
}

void prometheus_rows(const char *type, const struct prometheus_row *rows, size_t n, const char *path)
{
    for (size_t i = 0; i < n; i++) {
        prometheus_family(rows[i].name, type, rows[i].help);
        prometheus_sample(rows[i].name, path, NULL, NULL);
        prometheus_number(rows[i].value);
    }
}

static void print_begins(const char *path, const idem_stats_data *s)
{
    const struct {
        int verdict;
        uint64_t count;
    } rows[] = {
        {IDEM_CLAIMED, s->claimed},         {IDEM_RECLAIMED, s->reclaimed}, {IDEM_REPLAY, s->replayed},
        {IDEM_IN_PROGRESS, s->in_progress}, {IDEM_MISMATCH, s->mismatched}, {IDEM_UNKNOWN, s->unknown},
    };
    prometheus_family("idem_begins_total", "counter", "Claims asked for, by what they were told.");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        prometheus_sample("idem_begins_total", path, "verdict", cli_verdict_word(rows[i].verdict));
        prometheus_number(rows[i].count);
    }
}

static void print_counters(const char *path, const idem_stats_data *s)
{
    const struct prometheus_row rows[] = {
        {"idem_waits_total", "Claims that waited for another attempt.", s->waited},
        {"idem_completed_total", "Attempts completed.", s->completed},
        {"idem_tombstones_total", "Completions recorded without their body.", s->tombstones},
        {"idem_transient_total", "Completions that were not kept.", s->transient},
        {"idem_abandoned_total", "Attempts given back by their owner.", s->abandoned},
        {"idem_renewed_total", "Leases renewed.", s->renewed},
        {"idem_marked_total", "Marks left.", s->marked},
        {"idem_fenced_total", "Operations refused because their claim was over.", s->fenced},
        {"idem_full_total", "Operations refused because the store was full.", s->full},
        {"idem_forgotten_total", "Keys forgotten on request.", s->forgotten},
        {"idem_evicted_total", "Live records dropped to make room (only if the store was made to).", s->evicted},
        {"idem_swept_regions_total", "Memory regions taken back.", s->swept_regions},
        {"idem_swept_entries_total", "Expired entries taken back.", s->swept_entries},
        {"idem_moved_entries_total", "Live entries moved to another region.", s->moved_entries},
        {"idem_sweep_passes_total", "Passes of the sweep over the index.", s->passes},
    };
    prometheus_rows("counter", rows, sizeof(rows) / sizeof(rows[0]), path);
}

static void print_gauges(const char *path, const idem_stats_data *s)
{
    const struct prometheus_row rows[] = {
        {"idem_keys_capacity", "Live keys that the store was made for.", s->keys_capacity},
        {"idem_slots", "Slots of the index.", s->slots},
        {"idem_slots_used", "Slots in use, as of the last pass.", s->slots_used},
        {"idem_bytes", "Space of all files of the store.", s->bytes_total},
        {"idem_huge_bytes", "Of that, mapped in huge pages by the process that printed this.", s->bytes_huge},
        {"idem_region_bytes", "Size of a memory region.", s->region_bytes},
        {"idem_response_max_bytes", "Largest answer that is kept whole.", s->response_max_bytes},
        {"idem_processes", "Handles open.", s->processes},
        {"idem_processes_max", "Handles that can be open at once.", s->processes_max},
        {"idem_lanes", "Threads using the store.", s->lanes},
        {"idem_lanes_max", "Threads that can use the store at once.", s->lanes_max},
    };
    prometheus_rows("gauge", rows, sizeof(rows) / sizeof(rows[0]), path);
    prometheus_family("idem_ttl_seconds", "gauge", "Default life of an answer.");
    prometheus_sample("idem_ttl_seconds", path, NULL, NULL);
    prometheus_seconds(s->ttl_ms);
    prometheus_family("idem_lease_seconds", "gauge", "Default lease.");
    prometheus_sample("idem_lease_seconds", path, NULL, NULL);
    prometheus_seconds(s->lease_ms);
    prometheus_family("idem_created_timestamp_seconds", "gauge", "When the store was made, since 1970.");
    prometheus_sample("idem_created_timestamp_seconds", path, NULL, NULL);
    prometheus_seconds(s->created_wall_ms);
}

static void class_name(int64_t ttl_ms, char out[CLI_TEXT_BYTES])
{
    if (ttl_ms == 0)
        (void)snprintf(out, CLI_TEXT_BYTES, "claims");
    else if (ttl_ms == IDEM_FOREVER)
        (void)snprintf(out, CLI_TEXT_BYTES, "+Inf");
    else
        (void)snprintf(out, CLI_TEXT_BYTES, "%" PRId64 ".%03d", ttl_ms / 1000, (int)(ttl_ms % 1000));
}

static void print_regions(const char *path, const idem_stats_data *s)
{
    char name[CLI_TEXT_BYTES];
    prometheus_family("idem_regions", "gauge", "Memory regions, by phase.");
    prometheus_sample("idem_regions", path, "phase", "free");
    prometheus_number(s->regions_free);
    prometheus_sample("idem_regions", path, "phase", "open");
    prometheus_number(s->regions_open);
    prometheus_sample("idem_regions", path, "phase", "draining");
    prometheus_number(s->regions_draining);
    prometheus_family("idem_class_regions", "gauge", "Memory regions by the longest life (seconds) of what they hold.");
    for (uint32_t i = 0; i < s->classes && i < IDEM_STATS_CLASSES; i++) {
        class_name(s->by_class[i].ttl_ms, name);
        prometheus_sample("idem_class_regions", path, "ttl", name);
        prometheus_number(s->by_class[i].regions);
    }
    prometheus_family("idem_class_bytes", "gauge",
                      "Bytes handed out to threads, by the longest life (seconds) of what they hold.");
    for (uint32_t i = 0; i < s->classes && i < IDEM_STATS_CLASSES; i++) {
        class_name(s->by_class[i].ttl_ms, name);
        prometheus_sample("idem_class_bytes", path, "ttl", name);
        prometheus_number(s->by_class[i].bytes);
    }
}

static void print_census(const char *path, const struct look_census *census)
{
    prometheus_family("idem_keys", "gauge", "Keys by state; held ones are lost ones that nobody may redo.");
    for (int state = IDEM_STATE_IN_PROGRESS; state <= IDEM_STATE_LOST; state++) {
        prometheus_sample("idem_keys", path, "state", cli_state_word(state));
        prometheus_number(census->by_state[state] - (state == IDEM_STATE_LOST ? census->held : 0));
    }
    prometheus_sample("idem_keys", path, "state", "held");
    prometheus_number(census->held);
    prometheus_family("idem_oldest_in_progress_seconds", "gauge",
                      "Age of the attempt that has been in progress longest, 0 if none is.");
    prometheus_sample("idem_oldest_in_progress_seconds", path, NULL, NULL);
    prometheus_seconds(census->oldest_age_ms);
}

void prometheus_print(const char *path, const idem_stats_data *stats, const struct look_census *census)
{
    char uuid[CLI_TEXT_BYTES];
    prometheus_family("idem_store_info", "gauge",
                      "Which store this is; another UUID is another store at the same place.");
    prometheus_sample("idem_store_info", path, "uuid", look_uuid_text(stats, uuid));
    prometheus_number(1);
    print_begins(path, stats);
    print_counters(path, stats);
    print_gauges(path, stats);
    print_regions(path, stats);
    stat_log_prometheus(path, stats);
    if (census != NULL)
        print_census(path, census);
}
