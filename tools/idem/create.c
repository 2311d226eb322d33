/*
 * create.c - `idem create` and `idem destroy`.
 *
 * If we die here: a store half created is never visible under its name, and one half destroyed is marked dead first;
 * both are the library's promises.
 */
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* A group's name or number. */
static bool find_group(const char *text, gid_t *gid)
{
    int64_t number;
    errno = 0;
    const struct group *group = getgrnam(text);
    if (group != NULL) {
        *gid = group->gr_gid;
        return true;
    }
    if (!cli_parse_number(text, &number) || number > UINT32_MAX - 1)
        return false;
    *gid = (gid_t)number;
    return true;
}

static bool choose(const char *text, const char *const words[], uint32_t *value)
{
    for (uint32_t i = 0; words[i] != NULL; i++) {
        if (strcmp(text, words[i]) == 0) {
            *value = i;
            return true;
        }
    }
    return false;
}

static const char *durability_word(uint32_t durability)
{
    return durability == IDEM_DURABILITY_SYNC ? "sync" : durability == IDEM_DURABILITY_ASYNC ? "async" : "none";
}

/* The numbers that a person wants to see right after creating, or a script in JSON. */
static int report_created(const struct cli_common *common, idem_store *store)
{
    idem_stats_data stats;
    memset(&stats, 0, sizeof(stats));
    stats.size = sizeof(stats);
    int result = idem_stats(store, &stats);
    if (result < 0)
        return cli_fail("the store was created, but its figures can't be read", result);
    if (common->json) {
        struct json_object *json = cli_json_new();
        cli_json_text(json, "store", common->store);
        cli_json_text(json, "path", idem_path(store));
        cli_json_count(json, "bytes", stats.bytes_total);
        cli_json_count(json, "keys", stats.keys_capacity);
        cli_json_count(json, "response_max_bytes", stats.response_max_bytes);
        cli_json_ms(json, "ttl_ms", stats.ttl_ms);
        cli_json_ms(json, "lease_ms", stats.lease_ms);
        cli_json_text(json, "when_full", stats.when_full == IDEM_FULL_EVICT ? "evict" : "refuse");
        cli_json_count(json, "huge_bytes", stats.bytes_huge);
        if (stats.log.present) {
            cli_json_text(json, "durability_claim", durability_word(stats.log.durability_claim));
            cli_json_text(json, "durability_complete", durability_word(stats.log.durability_complete));
        }
        cli_json_print(json);
        return CLI_EXIT_OK;
    }
    char size[CLI_TEXT_BYTES], largest[CLI_TEXT_BYTES], ttl[CLI_TEXT_BYTES], lease[CLI_TEXT_BYTES];
    char huge[CLI_TEXT_BYTES];
    printf("store      %s\n", idem_path(store));
    printf("allocated  %s (%s in huge pages)\n", cli_size_text(stats.bytes_total, size),
           cli_size_text(stats.bytes_huge, huge));
    printf("room for   %llu keys, answers up to %s each; when full: %s\n", (unsigned long long)stats.keys_capacity,
           cli_size_text(stats.response_max_bytes, largest), stats.when_full == IDEM_FULL_EVICT ? "evict" : "refuse");
    printf("defaults   answers live %s, leases last %s\n", cli_duration_text(stats.ttl_ms, ttl),
           cli_duration_text(stats.lease_ms, lease));
    if (stats.log.present)
        printf("log        claims %s, answers %s; %s a file\n", durability_word(stats.log.durability_claim),
               durability_word(stats.log.durability_complete), cli_size_text(stats.log.file_bytes, size));
    return CLI_EXIT_OK;
}

int idem_cmd_create(int argc, char **argv)
{
    static const char *const huge_words[] = {"auto", "require", "off", NULL}; /* as enum idem_huge */
    static const char *const full_words[] = {"refuse", "evict", NULL};        /* as enum idem_when_full */
    idem_options options = IDEM_OPTIONS_INIT;
    static const char *const durability_words[] = {"default", "none", "async", "sync", NULL}; /* enum idem_durability */
    const char *group = NULL, *huge = "auto", *when_full = "refuse", *wal = NULL, *durability = NULL;
    char wal_dir[PATH_MAX];
    int64_t keys = 0, processes = 0, lanes = 0;
    uint64_t response = 0;
    const struct cli_option own[] = {
        {"keys", CLI_NUMBER, &keys, "N", "live keys to make room for; default 1000000"},
        {"response", CLI_SIZE, &response, "BYTES", "mean size of an answer; default 512, up to 1M"},
        {"size", CLI_SIZE, &options.total_bytes, "BYTES", "space of the whole store, 4M or more; overrides --keys"},
        {"ttl", CLI_DURATION, &options.ttl_ms, "24h", "how long answers are replayed, unless a call says otherwise"},
        {"lease", CLI_DURATION, &options.lease_ms, "30s",
         "how long a claim is safe from takeover while its owner lives"},
        {"when-full", CLI_TEXT, &when_full, "refuse|evict", "refuse new keys (default), or drop the oldest answers"},
        {"huge", CLI_TEXT, &huge, "auto|require|off", "huge pages"},
        {"wal", CLI_TEXT, &wal, "DIR",
         "keep a write-ahead file there, on a disk; its last component is made. It belongs to this store alone; a "
         "store that is gone "
         "comes back from it"},
        {"durability", CLI_TEXT, &durability, "none|async|sync",
         "with --wal: when claims and answers are on the disk; default: answers sync (at return), claims async (soon "
         "after)"},
        {"processes", CLI_NUMBER, &processes, "N",
         "handles open at once, one each idem or worker; default 512, up to 4096"},
        {"lanes", CLI_NUMBER, &lanes, "N", "threads that use the store at once; default 2048, up to 16384"},
        {"group", CLI_TEXT, &group, "G", "share with this group: directory 2770, files 0660; else 0700"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_syntax syntax = {
        "create",
        "[OPTIONS]",
        "Makes a store and allocates all of its space at once, so that a full tmpfs\n"
        "shows now and not later. There is no need to call it: run, claim and dedup make\n"
        "a store for 10000 keys on first use.",
        own,
        "exit status\n"
        "  0  created      124  there is one already, no space, no permission\n"
        "                  125  wrong command line\n"
        "\n"
        "examples\n"
        "  idem create --store payments --keys 200000 --response 2K --ttl 7d\n"
        "  idem create --store shared --group www-data --size 256M\n"
        "  idem create --store payments --wal /var/lib/idem/payments --durability sync",
        CLI_TAKES_STORE | CLI_TAKES_JSON,
    };
    struct cli_common common;
    (void)cli_parse(&syntax, &common, argc, argv);
    if (!choose(huge, huge_words, &options.huge))
        return cli_usage_error("--huge \"%s\": expected auto, require or off", huge);
    if (!choose(when_full, full_words, &options.when_full))
        return cli_usage_error("--when-full \"%s\": expected refuse or evict", when_full);
    if (response > UINT32_MAX)
        return cli_usage_error("--response is over the limit of 1M");
    options.response_bytes = (uint32_t)response;
    options.keys = (uint64_t)keys;
    if (processes > IDEM_PROCESSES_MAX || lanes > IDEM_LANES_MAX)
        return cli_usage_error("--processes is over the limit of %u, or --lanes of %u", IDEM_PROCESSES_MAX,
                               IDEM_LANES_MAX);
    options.processes = (uint32_t)processes;
    options.lanes = (uint32_t)lanes;
    if (group != NULL) {
        gid_t gid;
        if (!find_group(group, &gid))
            return cli_usage_error("--group \"%s\": there is no such group", group);
        options.group = (int64_t)gid + 1;
    }
    if (durability != NULL && wal == NULL)
        return cli_usage_error("--durability wants --wal: without a log nothing is on a disk");
    if (durability != NULL && !choose(durability, durability_words, &options.durability_complete))
        return cli_usage_error("--durability \"%s\": expected none, async or sync", durability);
    options.durability_claim = options.durability_complete;
    if (wal != NULL && !cli_absolute(wal, wal_dir))
        return cli_usage_error("--wal \"%s\": empty or too long", wal);
    options.wal_dir = wal != NULL ? wal_dir : NULL;
    options.flags = IDEM_OPEN_CREATE | IDEM_OPEN_EXCLUSIVE;

    idem_store *store = NULL;
    int result = idem_open(common.store, &options, &store);
    if (result < 0) {
        char what[512];
        (void)snprintf(what, sizeof(what), "create: store \"%s\"", common.store);
        return cli_fail(what, result);
    }
    int status = report_created(&common, store);
    idem_close(store);
    return cli_finish(status);
}

int idem_cmd_destroy(int argc, char **argv)
{
    const struct cli_option own[] = {{NULL, CLI_FLAG, NULL, NULL, NULL}};
    const struct cli_syntax syntax = {
        "destroy",
        "[--store NAME|DIR]",
        "Removes a store: marks it dead for every process that has it open, then removes\n"
        "its files. All keys are forgotten, so every effect may run again. Claims under\n"
        "way are fenced.",
        own,
        "exit status\n"
        "  0  destroyed    124  there is no such store, no permission\n"
        "                  125  wrong command line",
        CLI_TAKES_STORE,
    };
    struct cli_common common;
    (void)cli_parse(&syntax, &common, argc, argv);
    int result = idem_destroy(common.store);
    if (result < 0) {
        char what[512];
        (void)snprintf(what, sizeof(what), "destroy: store \"%s\"", common.store);
        return cli_fail(what, result);
    }
    return CLI_EXIT_OK;
}
