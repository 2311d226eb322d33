/*
 * svg.h - three kinds of charts as SVG files: lines over a logarithmic axis, bars, and dots on a line.
 *
 * Written by hand: a chart is a few rectangles, and no plotting program has to be installed. Each lies on a background of its own and
 * follows prefers-color-scheme, so that it reads on a light and on a dark page.
 */
#ifndef BENCH_SVG_H
#define BENCH_SVG_H

#include <stdbool.h>
#include <stdio.h>

enum { SVG_POINTS_MAX = 8, SVG_SERIES_MAX = 32, SVG_PANELS_MAX = 4, SVG_GROUPS_MAX = 4 };

struct svg_series {
    const char *label;
    unsigned count;
    double x[SVG_POINTS_MAX], y[SVG_POINTS_MAX];
};

struct svg_panel {
    const char *title;
    unsigned count;
    struct svg_series series[SVG_SERIES_MAX];
};

/* Lines: one panel or several side by side with one y axis, both axes logarithmic. One legend. */
struct svg_lines {
    const char *title, *subtitle, *x_label;
    unsigned count;
    struct svg_panel panels[SVG_PANELS_MAX];
};

/* Items one below the other: a bar for each group, or (dots) a dot for each on one line. */
struct svg_items {
    const char *title, *subtitle;
    bool logarithmic;
    bool dots;
    unsigned group_count;
    const char *groups[SVG_GROUPS_MAX];
    unsigned count;
    struct {
        const char *label;
        double value[SVG_GROUPS_MAX]; /* 0: none */
    } items[SVG_SERIES_MAX];
};

/* 0, or -1 with a sentence on stderr. */
int svg_lines_write(const struct svg_lines *chart, const char *file);
int svg_items_write(const struct svg_items *chart, const char *file);

#endif
