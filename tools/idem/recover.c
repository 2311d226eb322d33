/*
 * recover.c - `idem recover`: a store from its log.
 *
 * Invariants
 *  1. What was found, cut or lost is printed on stdout, one sentence a line; the bar goes to a terminal on stderr only.
 *  2. Nothing that exists is given up without being asked for: --replace for a store, --salvage for what can't be read.
 *
 * If we die here: recovery can be begun again at any time.
 */
#define _XOPEN_SOURCE 700 /* strptime */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "look.h"
#include "progress.h"
#include "wal.h"

static int on_progress(void *ctx, const idem_progress *p)
{
    struct wal_report *report = ctx;
    progress_show(&report->bar, p);
    return 0;
}

static void on_sentence(void *ctx, const char *text)
{
    struct wal_report *report = ctx;
    if (report->list == NULL) {
        progress_clear(&report->bar);
        printf("%s\n", text);
        (void)fflush(stdout);
        return;
    }
    struct json_object *one = json_object_new_string(text);
    if (one == NULL || json_object_array_add(report->list, one) != 0)
        cli_warn("out of memory; a sentence is missing from the list: %s", text);
}

int wal_recover(idem_recovery *r, struct wal_report *report, bool json)
{
    report->list = NULL;
    if (json && (report->list = json_object_new_array()) == NULL) {
        cli_warn("out of memory");
        exit(CLI_EXIT_TROUBLE);
    }
    progress_begin(&report->bar);
    r->progress = report->bar.on ? on_progress : NULL;
    r->sentence = on_sentence;
    r->ctx = report;
    int result = idem_recover(r);
    progress_clear(&report->bar);
    return result;
}

void wal_report_json(struct json_object *object, const idem_recovery *r, struct wal_report *report)
{
    cli_json_count(object, "files", r->files);
    cli_json_count(object, "batches", r->batches);
    cli_json_count(object, "records", r->records);
    cli_json_count(object, "bytes", r->bytes);
    cli_json_count(object, "cut_bytes", r->cut_bytes);
    cli_json_count(object, "damaged", r->damaged);
    cli_json_count(object, "lost_records", r->lost_records);
    cli_json_number(object, "newest_wall_ms", r->newest_wall_ms);
    if (json_object_object_add(object, "sentences", report->list) != 0)
        json_object_put(report->list);
    report->list = NULL;
}

/* As "idem why" prints times, or seconds since 1970. */
static bool parse_wall(const char *text, int64_t *ms)
{
    struct tm tm;
    int64_t seconds;
    if (cli_parse_number(text, &seconds) && seconds > 0 && seconds < INT64_C(1) << 40) {
        *ms = seconds * 1000;
        return true;
    }
    memset(&tm, 0, sizeof tm);
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (end == NULL)
        return false;
    if (*end == '.')
        end += 1 + strspn(end + 1, "0123456789");
    if (strcmp(end, "Z") != 0)
        return false;
    *ms = (int64_t)timegm(&tm) * 1000;
    return *ms > 0;
}

static void print_counts(const idem_recovery *r, const char *store)
{
    char a[CLI_TEXT_BYTES], b[CLI_TEXT_BYTES], c[CLI_TEXT_BYTES];
    printf("read       %s records in %s files, %s\n", look_count_text(r->records, a), look_count_text(r->files, b),
           cli_size_text(r->bytes, c));
    if (store == NULL)
        return;
    printf("store      %s\n", store);
    printf("keys       %s: %s completed", look_count_text(r->keys, a), look_count_text(r->completed, b));
    printf(", %s lost in the middle, %s to be tried again\n", look_count_text(r->lost, a),
           look_count_text(r->abandoned, b));
    printf("left out   %s records that had expired, %s of forgetting\n", look_count_text(r->expired, a),
           look_count_text(r->forgotten, b));
    if (r->damaged > 0)
        printf("LOST       at least %s record%s, in %s place%s (above)\n", look_count_text(r->lost_records, a),
               r->lost_records == 1 ? "" : "s", look_count_text(r->damaged, b), r->damaged == 1 ? "" : "s");
}

static int report_done(const struct cli_common *common, const idem_recovery *r, struct wal_report *report, bool check)
{
    if (common->json) {
        struct json_object *object = cli_json_new();
        cli_json_text(object, "store", check ? NULL : common->store);
        cli_json_count(object, "keys", r->keys);
        cli_json_count(object, "completed", r->completed);
        cli_json_count(object, "lost", r->lost);
        cli_json_count(object, "abandoned", r->abandoned);
        cli_json_count(object, "expired", r->expired);
        cli_json_count(object, "forgotten", r->forgotten);
        wal_report_json(object, r, report);
        cli_json_print(object);
    } else {
        print_counts(r, check ? NULL : common->store);
    }
    return cli_finish(r->damaged > 0 ? CLI_EXIT_NO : CLI_EXIT_OK);
}

int idem_cmd_recover(int argc, char **argv)
{
    bool salvage = false, check = false, replace = false;
    const char *wal = NULL, *now = NULL;
    const struct cli_option own[] = {
        {"wal", CLI_TEXT, &wal, "DIR", "the log's directory: an absolute path"},
        {"salvage", CLI_FLAG, &salvage, NULL,
         "keep what can be proven good of a damaged log, and print what is lost; damaged files are kept under "
         "NAME.damaged"},
        {"check", CLI_FLAG, &check, NULL, "read and report, change nothing"},
        {"replace", CLI_FLAG, &replace, NULL,
         "there is a store: mark it dead and put in its place what the log says, if the log is sound"},
        {"now", CLI_TEXT, &now, "TIME",
         "what time it is, if the clock can't be trusted or the log is older than 30 days: 2026-11-22T06:30:00Z, or "
         "seconds since 1970"},
        {0},
    };
    const struct cli_syntax syntax = {
        "recover",
        "--wal DIR [OPTIONS]",
        "Builds a store from its write-ahead file. There is no need to call it after a\n"
        "reboot: run, claim and dedup with --wal do the same, as does what opens a store\n"
        "with its log, and may create it.\n"
        "Completed keys replay again, an attempt that was running is lost: its key is\n"
        "reclaimed at once, with its mark. May be killed at any time and begun again.",
        own,
        "exit status\n"
        "    0  done\n"
        "    1  done with --salvage, and something is lost: it is on stdout\n"
        "  124  refused: damaged, a file missing, another store's, a later version, or\n"
        "       there is a store already; nothing was changed\n"
        "  125  wrong command line\n"
        "examples\n"
        "  idem recover --store payments --wal /var/lib/idem/payments\n"
        "  idem recover --check --wal /var/lib/idem/payments",
        CLI_TAKES_STORE | CLI_TAKES_JSON,
    };
    struct cli_common common;
    (void)cli_parse(&syntax, &common, argc, argv);
    idem_recovery r = IDEM_RECOVERY_INIT;
    struct wal_report report;
    if (wal == NULL)
        return cli_usage_error("--wal DIR is required");
    if (wal[0] != '/')
        return cli_usage_error("--wal \"%s\": expected an absolute path", wal);
    if (now != NULL && !parse_wall(now, &r.now_wall_ms))
        return cli_usage_error("--now \"%s\": expected 2026-11-22T06:30:00Z, or seconds since 1970", now);
    if (check && replace)
        return cli_usage_error("--check and --replace exclude each other");
    r.dir = common.store;
    r.wal_dir = wal;
    r.flags = (salvage ? IDEM_RECOVER_SALVAGE : 0u) | (check ? IDEM_RECOVER_CHECK_ONLY : 0u) |
              (replace ? IDEM_RECOVER_REPLACE : 0u);
    int result = wal_recover(&r, &report, common.json);
    if (result < 0) {
        json_object_put(report.list);
        return cli_fail(result == IDEM_E_EXISTS ? "recover (see --replace)" : "recover", result);
    }
    return report_done(&common, &r, &report, check);
}
