/*
 * stat.h - the two files of `idem stat`: stat.c reads the figures and prints them for people and as JSON, prometheus.c in
 * the Prometheus text format.
 */
#ifndef IDEM_STAT_H
#define IDEM_STAT_H

#include "look.h"

/* census may be NULL: keys were not counted. */
void prometheus_print(const char *path, const idem_stats_data *stats, const struct look_census *census);

/* Shared by prometheus.c and stat_log.c: HELP and TYPE of a family; name{store="PATH"[,label="value"]} and a blank, the number follows. */
void prometheus_family(const char *name, const char *type, const char *help);
void prometheus_sample(const char *name, const char *path, const char *label, const char *value);

/* The log's figures: for people, as "log" of an object, for Prometheus. */
void stat_log_print(const idem_stats_data *stats);
void stat_log_json(struct json_object *object, const idem_stats_data *stats);
void stat_log_prometheus(const char *path, const idem_stats_data *stats);

#endif
