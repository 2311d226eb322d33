/*
 * stat.h - the three files of `idem stat`: stat.c reads the figures and prints them for people and as JSON, prometheus.c in
 * the Prometheus text format, stat_log.c those of the log in all three.
 */
#ifndef IDEM_STAT_H
#define IDEM_STAT_H

#include "look.h"

/* census may be NULL: keys were not counted. */
void prometheus_print(const char *path, const idem_stats_data *stats, const struct look_census *census);

/* Shared by prometheus.c and stat_log.c: HELP and TYPE of a family; name{store="PATH"[,label="value"]} and a blank, then its number. */
void prometheus_family(const char *name, const char *type, const char *help);
void prometheus_sample(const char *name, const char *path, const char *label, const char *value);
void prometheus_number(uint64_t n);
void prometheus_seconds(int64_t ms);

/* Families of one sample each. */
struct prometheus_row {
    const char *name;
    const char *help;
    uint64_t value;
};
void prometheus_rows(const char *type, const struct prometheus_row *rows, size_t n, const char *path);

/* The log's figures: for people, as "log" of an object, for Prometheus. */
void stat_log_print(const idem_stats_data *stats);
void stat_log_json(struct json_object *object, const idem_stats_data *stats);
void stat_log_prometheus(const char *path, const idem_stats_data *stats);

#endif
