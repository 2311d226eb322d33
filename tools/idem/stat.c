/*
 * stat.c - `idem stat`: a store's figures for people and as JSON; prometheus.c has the third form.
 *
 * Invariants
 *  1. Rates are since the store was made; `idem top` shows current ones.
 *  2. Without --walk the cost does not grow with the number of keys.
 *
 * If we die here: nothing is changed by looking.
 */
#include <inttypes.h>

#include "stat.h"

struct counter {
    const char *name; /* in JSON */
    const char *text;
    uint64_t count;
};

#define COUNTERS 21

static void list_counters(const idem_stats_data *s, struct counter out[COUNTERS])
{
    const struct counter counters[COUNTERS] = {
        {"claimed", "claimed", s->claimed},
        {"reclaimed", "taken over from a lost attempt", s->reclaimed},
        {"replayed", "answered from the store", s->replayed},
        {"in_progress", "told that another attempt runs", s->in_progress},
        {"mismatched", "refused: another fingerprint", s->mismatched},
        {"unknown", "refused: lost and held", s->unknown},
        {"waited", "waited for another attempt", s->waited},
        {"completed", "completed", s->completed},
        {"tombstones", "completed, body not kept", s->tombstones},
        {"transient", "completed, answer not kept", s->transient},
        {"abandoned", "given back", s->abandoned},
        {"renewed", "leases renewed", s->renewed},
        {"marked", "marks left", s->marked},
        {"fenced", "fenced: claim was over", s->fenced},
        {"full", "refused: store full", s->full},
        {"forgotten", "forgotten on request", s->forgotten},
        {"evicted", "evicted to make room", s->evicted},
        {"swept_regions", "regions taken back", s->swept_regions},
        {"swept_entries", "expired entries taken back", s->swept_entries},
        {"moved_entries", "live entries moved", s->moved_entries},
        {"passes", "passes of the sweep", s->passes},
    };
    for (size_t i = 0; i < COUNTERS; i++)
        out[i] = counters[i];
}

static int64_t age_of(const idem_stats_data *s)
{
    int64_t age_ms = look_wall_ms() - s->created_wall_ms;
    return age_ms > 1 ? age_ms : 1;
}

/* ------------------------------------------------------------------ for people */

static void label(const char *name)
{
    printf("%-11s", name);
}

static void print_memory(const char *path, const idem_stats_data *s)
{
    char a[CLI_TEXT_BYTES], b[CLI_TEXT_BYTES];
    label("memory");
    printf("%s; answers up to %s are kept whole\n", cli_size_text(s->bytes_total, a),
           cli_size_text(s->response_max_bytes, b));
    label("");
    printf("%" PRIu64 " regions of %s: %" PRIu64 " free, %" PRIu64 " open, %" PRIu64 " draining\n", s->regions,
           cli_size_text(s->region_bytes, a), s->regions_free, s->regions_open, s->regions_draining);
    for (uint32_t i = 0; i < s->classes && i < IDEM_STATS_CLASSES; i++) {
        label("");
        printf("  %-22s %6" PRIu64 " region%s %10s handed out\n", look_class_text(s->by_class[i].ttl_ms, a),
               s->by_class[i].regions, s->by_class[i].regions == 1 ? " " : "s", cli_size_text(s->by_class[i].bytes, b));
    }
    label("huge pages");
    if (s->bytes_huge > 0) {
        printf("yes; this command has %s of them mapped\n", cli_size_text(s->bytes_huge, a));
        return;
    }
    struct look_huge advice;
    look_huge_advice(path, &advice);
    printf("none: %s\n", advice.why);
    if (advice.command[0] != '\0') {
        label("");
        printf("this changes it, as root: %s\n", advice.command);
    }
    label("");
    printf("(and the store has to be made anew: idem destroy, then idem create)\n");
}

static void print_census(const struct look_census *c)
{
    static const int states[] = {IDEM_STATE_IN_PROGRESS, IDEM_STATE_COMPLETED, IDEM_STATE_ABANDONED, IDEM_STATE_LOST};
    char age[CLI_TEXT_BYTES], count[CLI_TEXT_BYTES];
    label("");
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        printf("%s %s, ", look_count_text(c->by_state[states[i]], count), cli_state_word(states[i]));
    printf("%s of these held\n", look_count_text(c->held, count));
    if (c->any_running) {
        label("");
        printf("in progress longest: %s, for %s\n", c->oldest_key, cli_duration_text(c->oldest_age_ms, age));
    }
}

static void print_counters(const idem_stats_data *s)
{
    struct counter counters[COUNTERS];
    char a[CLI_TEXT_BYTES], b[CLI_TEXT_BYTES];
    double age_seconds = (double)age_of(s) / 1000.0;
    list_counters(s, counters);
    printf("\n%-34s %15s %10s\n", "since it was made", "count", "a second");
    for (size_t i = 0; i < COUNTERS; i++) {
        if (counters[i].count > 0)
            printf("  %-32s %15s %10s\n", counters[i].text, look_count_text(counters[i].count, a),
                   look_rate_text((double)counters[i].count / age_seconds, b));
    }
    uint64_t asked = look_begins(s);
    printf("  %-32s %15s %10s\n", "asked, in all", look_count_text(asked, a),
           look_rate_text((double)asked / age_seconds, b));
    printf("  %-32s %15s\n", "of these answered from the store", look_percent_text(s->replayed, asked, a));
}

static void print_people(const char *path, const idem_stats_data *s, const struct look_census *census)
{
    char a[CLI_TEXT_BYTES], b[CLI_TEXT_BYTES], c[CLI_TEXT_BYTES], d[CLI_TEXT_BYTES], uuid[CLI_TEXT_BYTES];
    look_uuid_text(s, uuid);
    label("store");
    printf("%s\n", path);
    label("");
    printf("made %s ago, at %s; layout %" PRIu32 ".%" PRIu32 "; %s\n", cli_duration_text(age_of(s), a),
           cli_wall_text(s->created_wall_ms, b), s->layout_major, s->layout_minor, uuid);
    label("keys");
    printf("%s of the %s it was made for (%s); when full: %s\n", look_count_text(s->slots_used, a),
           look_count_text(s->keys_capacity, b), look_percent_text(s->slots_used, s->keys_capacity, c),
           s->when_full == IDEM_FULL_EVICT ? "evict" : "refuse");
    if (census != NULL)
        print_census(census);
    label("index");
    printf("%s slots in %s buckets, %s in use\n", look_count_text(s->slots, a), look_count_text(s->buckets, b),
           look_percent_text(s->slots_used, s->slots, c));
    print_memory(path, s);
    label("processes");
    printf("%" PRIu32 " of %" PRIu32 " handles, %" PRIu32 " of %" PRIu32 " lanes (threads), this command included\n",
           s->processes, s->processes_max, s->lanes, s->lanes_max);
    label("defaults");
    printf("answers are kept %s, leases last %s\n", cli_duration_text(s->ttl_ms, c), cli_duration_text(s->lease_ms, d));
    stat_log_print(s);
    print_counters(s);
}

/* ------------------------------------------------------------------ JSON */

static void add_array(struct json_object *object, const char *name, struct json_object *array)
{
    if (json_object_object_add(object, name, array) != 0)
        json_object_put(array);
}

static struct json_object *classes_json(const idem_stats_data *s)
{
    struct json_object *array = json_object_new_array();
    for (uint32_t i = 0; i < s->classes && i < IDEM_STATS_CLASSES && array != NULL; i++) {
        struct json_object *one = cli_json_new();
        cli_json_bool(one, "claims", s->by_class[i].ttl_ms == 0);
        cli_json_ms(one, "ttl_ms", s->by_class[i].ttl_ms);
        cli_json_count(one, "regions", s->by_class[i].regions);
        cli_json_count(one, "bytes", s->by_class[i].bytes);
        json_object_array_add(array, one);
    }
    return array;
}

static void print_json(const char *path, const idem_stats_data *s, const struct look_census *census)
{
    struct counter counters[COUNTERS];
    char uuid[CLI_TEXT_BYTES];
    struct json_object *object = cli_json_new();
    struct json_object *counts = cli_json_new();
    look_uuid_text(s, uuid);
    list_counters(s, counters);
    cli_json_text(object, "path", path);
    cli_json_text(object, "uuid", uuid);
    cli_json_count(object, "layout_major", s->layout_major);
    cli_json_count(object, "layout_minor", s->layout_minor);
    cli_json_number(object, "created_wall_ms", s->created_wall_ms);
    cli_json_number(object, "age_ms", age_of(s));
    cli_json_count(object, "keys_capacity", s->keys_capacity);
    cli_json_text(object, "when_full", s->when_full == IDEM_FULL_EVICT ? "evict" : "refuse");
    cli_json_count(object, "slots", s->slots);
    cli_json_count(object, "slots_used", s->slots_used);
    cli_json_count(object, "buckets", s->buckets);
    cli_json_count(object, "bytes", s->bytes_total);
    cli_json_count(object, "huge_bytes", s->bytes_huge);
    cli_json_count(object, "response_max_bytes", s->response_max_bytes);
    cli_json_count(object, "region_bytes", s->region_bytes);
    cli_json_count(object, "regions", s->regions);
    cli_json_count(object, "regions_free", s->regions_free);
    cli_json_count(object, "regions_open", s->regions_open);
    cli_json_count(object, "regions_draining", s->regions_draining);
    add_array(object, "classes", classes_json(s));
    cli_json_count(object, "processes", s->processes);
    cli_json_count(object, "processes_max", s->processes_max);
    cli_json_count(object, "lanes", s->lanes);
    cli_json_count(object, "lanes_max", s->lanes_max);
    cli_json_ms(object, "ttl_ms", s->ttl_ms);
    cli_json_ms(object, "lease_ms", s->lease_ms);
    for (size_t i = 0; i < COUNTERS; i++)
        cli_json_count(counts, counters[i].name, counters[i].count);
    add_array(object, "counters", counts);
    stat_log_json(object, s);
    if (census != NULL) {
        struct json_object *keys = cli_json_new();
        for (int state = IDEM_STATE_IN_PROGRESS; state <= IDEM_STATE_LOST; state++)
            cli_json_count(keys, cli_state_word(state), census->by_state[state]);
        cli_json_count(keys, "held", census->held);
        add_array(object, "keys_by_state", keys);
        cli_json_number(object, "oldest_in_progress_ms", census->oldest_age_ms);
    }
    cli_json_print(object);
}

int idem_cmd_stat(int argc, char **argv)
{
    struct cli_common common;
    bool prometheus = false, walk = false;
    const struct cli_option options[] = {
        {"prometheus", CLI_FLAG, &prometheus, NULL,
         "print the Prometheus text format, for a scraper or a textfile collector"},
        {"walk", CLI_FLAG, &walk, NULL,
         "look at every key too: how many are in progress, completed, lost, held, and which has been in progress "
         "longest"},
        {0},
    };
    const struct cli_syntax syntax = {
        "stat",
        "[--walk] [--prometheus | --json]",
        "Prints a store's figures: fill, memory, huge pages (and what would give them),\n"
        "processes, sizes, and what happened since it was made. Rates are means since\n"
        "then; \"idem top\" has current ones.",
        options,
        "exit status\n"
        "    0  done    124  trouble with the store    125  wrong command line\n"
        "example, for node_exporter's textfile collector\n"
        "  idem stat --prometheus --walk >idem.new && mv idem.new idem.prom",
        CLI_TAKES_STORE | CLI_TAKES_JSON,
    };
    cli_parse(&syntax, &common, argc, argv);
    if (prometheus && common.json)
        return cli_usage_error("--prometheus and --json exclude each other");

    idem_store *store;
    static idem_stats_data stats;
    struct look_census census;
    int status = cli_open(&common, false, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int result = look_stats(store, &stats);
    if (result >= 0 && walk)
        result = look_census(store, &census);
    if (result < 0) {
        status = cli_fail("the store's figures can't be read", result);
    } else {
        const struct look_census *counted = walk ? &census : NULL;
        if (prometheus)
            prometheus_print(idem_path(store), &stats, counted);
        else if (common.json)
            print_json(idem_path(store), &stats, counted);
        else
            print_people(idem_path(store), &stats, counted);
    }
    idem_close(store);
    return cli_finish(status);
}
