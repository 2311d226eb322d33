/*
 * stat_log.c - the write-ahead file's part of `idem stat`, in its three forms.
 *
 * Invariant: without a log people are told nothing of it; JSON has "log": null, and Prometheus no sample.
 *
 * If we die here: nothing is changed by looking.
 */
#include <inttypes.h>
#include <string.h>

#include "stat.h"

static const char *trouble_word(uint32_t trouble)
{
    static const char *const words[] = {"fine", "stalled", "poisoned", "no-space", "removed", "failed"};
    return trouble < sizeof(words) / sizeof(words[0]) ? words[trouble] : "unknown";
}

static const char *trouble_text(uint32_t trouble)
{
    switch (trouble) {
    case IDEM_LOG_FINE:
        return "fine";
    case IDEM_LOG_STALLED:
        return "STALLED: whoever writes it is stopped, or its disk is; durable calls wait and fail";
    case IDEM_LOG_POISONED:
        return "a sync failed: that file is given up, the next one is being made";
    case IDEM_LOG_NO_SPACE:
        return "NO SPACE on its disk: durable calls fail until there is some";
    case IDEM_LOG_REMOVED:
        return "its directory was REMOVED or replaced: durable calls fail; put it back";
    default:
        return "FAILS: durable calls fail";
    }
}

static const char *durability_word(uint32_t durability)
{
    static const char *const words[] = {"default", "none", "async", "sync"};
    return durability < sizeof(words) / sizeof(words[0]) ? words[durability] : "unknown";
}

static uint64_t syncs_up_to(const idem_log_stats *l, unsigned bucket)
{
    uint64_t n = 0;
    for (unsigned i = 0; i <= bucket && i < IDEM_LOG_FSYNC_BUCKETS; i++)
        n += l->fsync_us[i];
    return n;
}

/* The upper bound of the bucket in which this share of all syncs is reached, in us; 0: there were none. */
static uint64_t fsync_quantile_us(const idem_log_stats *l, unsigned percent)
{
    uint64_t all = syncs_up_to(l, IDEM_LOG_FSYNC_BUCKETS - 1);
    for (unsigned i = 0; all > 0 && i < IDEM_LOG_FSYNC_BUCKETS; i++)
        if (syncs_up_to(l, i) * 100 >= all * percent)
            return UINT64_C(1) << (i + 4);
    return 0;
}

void stat_log_print(const idem_stats_data *s)
{
    const idem_log_stats *l = &s->log;
    char a[CLI_TEXT_BYTES], b[CLI_TEXT_BYTES], c[CLI_TEXT_BYTES];
    if (l->present == 0)
        return;
    printf("%-11s%s", "log", trouble_text(l->trouble));
    if (l->last_errno != 0)
        printf(" (last error: %s)", strerror((int)l->last_errno));
    printf("\n%-11sclaims %s, completions %s, flushed every %" PRIu32 " ms\n", "", durability_word(l->durability_claim),
           durability_word(l->durability_complete), l->flush_interval_ms);
    printf("%-11s%s file%s, %s on disk", "", look_count_text(l->files, a), l->files == 1 ? "" : "s",
           cli_size_text(l->bytes_on_disk, b));
    if (l->live_bytes > 0) /* nobody has counted before the first walk */
        printf(", %s of it live when last counted", look_percent_text(l->live_bytes, l->bytes_on_disk, c));
    printf("; durable up to position %" PRIu64 "\n", l->durable);
    printf("%-11s%s waiting to be written", "", look_count_text(l->queued, a));
    if (l->queued > 0 && l->oldest_queued_ms > 0)
        printf(", the oldest for %s", cli_duration_text(l->oldest_queued_ms, b));
    printf("\n%-11s%s records in %s batches; %s syncs", "", look_count_text(l->records, a),
           look_count_text(l->batches, b), look_count_text(l->syncs, c));
    if (l->syncs > 0)
        printf(", half under %" PRIu64 " us, 99 %% under %" PRIu64 " us", fsync_quantile_us(l, 50),
               fsync_quantile_us(l, 99));
    printf("\n");
    if (l->sync_failures + l->poisoned_files + l->stalls + l->overflows > 0)
        printf("%-11s%s failed syncs, %s files given up, %" PRIu64 " stalls, %" PRIu64 " full queues\n", "",
               look_count_text(l->sync_failures, a), look_count_text(l->poisoned_files, b), l->stalls, l->overflows);
}

void stat_log_json(struct json_object *object, const idem_stats_data *s)
{
    const idem_log_stats *l = &s->log;
    if (l->present == 0) {
        cli_json_text(object, "log", NULL);
        return;
    }
    struct json_object *o = cli_json_new(), *buckets = json_object_new_array();
    cli_json_text(o, "trouble", trouble_word(l->trouble));
    cli_json_count(o, "last_errno", l->last_errno);
    cli_json_text(o, "durability_claim", durability_word(l->durability_claim));
    cli_json_text(o, "durability_complete", durability_word(l->durability_complete));
    cli_json_count(o, "flush_interval_ms", l->flush_interval_ms);
    cli_json_count(o, "wait_ms", l->log_wait_ms);
    cli_json_count(o, "epoch", l->epoch);
    cli_json_count(o, "file_bytes", l->file_bytes);
    cli_json_count(o, "files", l->files);
    cli_json_count(o, "bytes_on_disk", l->bytes_on_disk);
    cli_json_count(o, "live_bytes", l->live_bytes);
    cli_json_count(o, "written_position", l->written);
    cli_json_count(o, "durable_position", l->durable);
    cli_json_count(o, "queued", l->queued);
    cli_json_number(o, "oldest_queued_ms", l->oldest_queued_ms);
    cli_json_count(o, "batches", l->batches);
    cli_json_count(o, "records", l->records);
    cli_json_count(o, "syncs", l->syncs);
    cli_json_count(o, "sync_failures", l->sync_failures);
    cli_json_count(o, "poisoned_files", l->poisoned_files);
    cli_json_count(o, "waits", l->waits);
    cli_json_count(o, "stalls", l->stalls);
    cli_json_count(o, "overflows", l->overflows);
    cli_json_count(o, "walks", l->walks);
    cli_json_count(o, "fsync_total_us", l->fsync_total_us);
    for (unsigned i = 0; i < IDEM_LOG_FSYNC_BUCKETS && buckets != NULL; i++)
        json_object_array_add(buckets, json_object_new_int64((int64_t)l->fsync_us[i]));
    if (json_object_object_add(o, "fsync_us", buckets) != 0)
        json_object_put(buckets);
    if (json_object_object_add(object, "log", o) != 0)
        json_object_put(o);
}

/* ------------------------------------------------------------------ Prometheus */

static void print_counters(const char *path, const idem_log_stats *l)
{
    const struct prometheus_row rows[] = {
        {"idem_log_batches_total", "Batches written to the log.", l->batches},
        {"idem_log_records_total", "Records written; by batches: the mean size of a batch.", l->records},
        {"idem_log_syncs_total", "Syncs of the log that succeeded.", l->syncs},
        {"idem_log_sync_failures_total", "Syncs of the log that failed.", l->sync_failures},
        {"idem_log_poisoned_files_total", "Log files given up after a failure.", l->poisoned_files},
        {"idem_log_waits_total", "Calls that waited for the log.", l->waits},
        {"idem_log_stalls_total", "Leaders that made no progress and were succeeded.", l->stalls},
        {"idem_log_overflows_total", "References that found their queue full.", l->overflows},
        {"idem_log_walks_total", "Walks over the index for the log.", l->walks},
    };
    prometheus_rows("counter", rows, sizeof(rows) / sizeof(rows[0]), path);
}

static void print_gauges(const char *path, const idem_log_stats *l)
{
    const struct prometheus_row rows[] = {
        {"idem_log_queued", "References that are not durable yet.", l->queued},
        {"idem_log_written_position", "Position up to which the log was written.", l->written},
        {"idem_log_durable_position", "Position below which all is on the disk.", l->durable},
        {"idem_log_files", "Log files.", l->files},
        {"idem_log_bytes", "Space of the log files.", l->bytes_on_disk},
        {"idem_log_live_bytes", "Of that, records that are still needed, by the last walk.", l->live_bytes},
    };
    prometheus_rows("gauge", rows, sizeof(rows) / sizeof(rows[0]), path);
    prometheus_family("idem_log_oldest_queued_seconds", "gauge", "How long the oldest of these has waited.");
    prometheus_sample("idem_log_oldest_queued_seconds", path, NULL, NULL);
    prometheus_seconds(l->oldest_queued_ms);
    prometheus_family("idem_log_trouble", "gauge", "1 for what is the matter with the log, else 0.");
    for (uint32_t i = IDEM_LOG_STALLED; i <= IDEM_LOG_FAILED; i++) {
        prometheus_sample("idem_log_trouble", path, "kind", trouble_word(i));
        printf("%d\n", l->trouble == i);
    }
}

static void print_fsync(const char *path, const idem_log_stats *l)
{
    char le[CLI_TEXT_BYTES];
    prometheus_family("idem_log_fsync_seconds", "histogram", "How long syncs of the log took.");
    for (unsigned i = 0; i + 1 < IDEM_LOG_FSYNC_BUCKETS; i++) {
        uint64_t us = UINT64_C(1) << (i + 4);
        (void)snprintf(le, sizeof(le), "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
        prometheus_sample("idem_log_fsync_seconds_bucket", path, "le", le);
        prometheus_number(syncs_up_to(l, i));
    }
    uint64_t all = syncs_up_to(l, IDEM_LOG_FSYNC_BUCKETS - 1);
    prometheus_sample("idem_log_fsync_seconds_bucket", path, "le", "+Inf");
    prometheus_number(all);
    prometheus_sample("idem_log_fsync_seconds_sum", path, NULL, NULL);
    printf("%" PRIu64 ".%06" PRIu64 "\n", l->fsync_total_us / 1000000, l->fsync_total_us % 1000000);
    prometheus_sample("idem_log_fsync_seconds_count", path, NULL, NULL);
    prometheus_number(all);
}

void stat_log_prometheus(const char *path, const idem_stats_data *s)
{
    if (s->log.present == 0)
        return;
    print_counters(path, &s->log);
    print_gauges(path, &s->log);
    print_fsync(path, &s->log);
}
