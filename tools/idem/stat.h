/*
 * stat.h - the two files of `idem stat`: stat.c reads the figures and prints them for people and as JSON, prometheus.c in
 * the Prometheus text format.
 */
#ifndef IDEM_STAT_H
#define IDEM_STAT_H

#include "look.h"

/* census may be NULL: keys were not counted. */
void prometheus_print(const char *path, const idem_stats_data *stats, const struct look_census *census);

#endif
