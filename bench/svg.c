/*
 * svg.c - see svg.h. Coordinates are in CSS pixels.
 */
#include "svg.h"

#include <math.h>
#include <string.h>

enum {
    WIDTH = 880,
    MARGIN = 24,
    HEAD = 68,      /* title and subtitle */
    LEGEND = 150,   /* beside lines */
    AXIS_LEFT = 56, /* room for the labels of the y axis */
    PLOT = 300,     /* height of a panel */
    FOOT = 56,
    LABELS = 150, /* room for the items' names */
    VALUES = 70,  /* and for the figures behind bars */
    BAR = 11,
    ITEM_GAP = 11,
    DOT_ROW = 22,
    COLOURS = 12
};

static const char head[] =
    "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n"
    "<title>%s</title>\n"
    "<style>\n"
    "text { font: 12px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328 }\n"
    ".title { font-size: 16px; font-weight: 600 } .small { font-size: 11px; fill: #59636e } .us { font-weight: 700 }\n"
    ".bg { fill: #ffffff; stroke: #d1d9e0 } .grid { stroke: #e4e8ed; stroke-width: 1 } .axis { stroke: #8c959f }\n"
    ".track { stroke: #d1d9e0; stroke-width: 1 } polyline { fill: none; stroke-width: 2 } .us-line { stroke-width: 3.5 "
    "}\n"
    ".floor-line { stroke-dasharray: 5 4 }\n"
    "%s"
    "@media (prefers-color-scheme: dark) {\n"
    "text { fill: #f0f6fc } .small { fill: #9198a1 } .bg { fill: #0d1117; stroke: #3d444d }\n"
    ".grid { stroke: #262c36 } .axis { stroke: #656c76 } .track { stroke: #3d444d }\n"
    "%s"
    "}\n"
    "</style>\n"
    "<rect class=\"bg\" x=\"0.5\" y=\"0.5\" width=\"%d\" height=\"%d\" rx=\"8\"/>\n"
    "<text class=\"title\" x=\"%d\" y=\"30\">%s</text>\n"
    "<text class=\"small\" x=\"%d\" y=\"50\">%s</text>\n";

/* idem, its floor, everybody else in turn. */
static const char *const light[COLOURS] = {"#0969da", "#6e7781", "#cf222e", "#1a7f37", "#9a6700", "#8250df",
                                           "#bf3989", "#0a7d91", "#bc4c00", "#57606a", "#4d7c0f", "#7c3aed"};
static const char *const dark[COLOURS] = {"#4493f8", "#9198a1", "#ff7b72", "#3fb950", "#d29922", "#ab7df8",
                                          "#f778ba", "#39c5cf", "#f0883e", "#c9d1d9", "#a3e635", "#c4b5fd"};

static void write_palette(char *to, size_t bytes, const char *const colours[COLOURS])
{
    size_t at = 0;
    for (int i = 0; i < COLOURS; i++)
        at += (size_t)snprintf(to + at, bytes - at, ".c%d { fill: %s; stroke: %s } .l%d { stroke: %s }\n", i,
                               colours[i], colours[i], i, colours[i]);
}

static FILE *begin(const char *file, int height, const char *title, const char *subtitle)
{
    char light_rules[1200];
    char dark_rules[1200];
    FILE *f = fopen(file, "we");
    if (!f) {
        perror(file);
        return NULL;
    }
    write_palette(light_rules, sizeof light_rules, light);
    write_palette(dark_rules, sizeof dark_rules, dark);
    fprintf(f, head, WIDTH, height, WIDTH, height, title, light_rules, dark_rules, WIDTH - 1, height - 1, MARGIN, title,
            MARGIN, subtitle);
    return f;
}

static int end(FILE *f, const char *file)
{
    fputs("</svg>\n", f);
    if (fclose(f) == 0)
        return 0;
    perror(file);
    return -1;
}

static void text(FILE *f, double x, double y, const char *anchor, const char *class, const char *what)
{
    fprintf(f, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", class, x, y, anchor, what);
}

static void number(double v, char *to, size_t bytes)
{
    if (v >= 999500)
        snprintf(to, bytes, "%.3gM", v / 1e6);
    else if (v >= 999.5)
        snprintf(to, bytes, "%.3gk", v / 1e3);
    else
        snprintf(to, bytes, "%.3g", v);
}

/* ------------------------------------------------------------------ scales */

struct scale {
    double from, to;  /* values */
    double low, high; /* pixels */
    bool logarithmic;
};

static double place_on(const struct scale *s, double v)
{
    double share = s->logarithmic ? log(v / s->from) / log(s->to / s->from) : (v - s->from) / (s->to - s->from);
    return s->low + share * (s->high - s->low);
}

/* The next tick after v (the first if v is 0): 1, 2, 5 or 1 of each decade; steps of a round number on a linear scale. */
static double next_tick(const struct scale *s, double v)
{
    if (!s->logarithmic) {
        double step = pow(10, floor(log10(s->to)));
        while (s->to / step < 4)
            step /= 2;
        return v == 0 ? step : v + step;
    }
    if (v == 0)
        return s->from;
    double decade = pow(10, floor(log10(v * 1.0001)));
    if (s->to / s->from > 2000)
        return decade * 10;
    double lead = v / decade;
    return lead < 1.5 ? decade * 2 : lead < 3 ? decade * 5 : decade * 10;
}

/* Whole steps of 1, 2 and 5 around what is shown. */
static double step_below(double v)
{
    double decade = pow(10, floor(log10(v)));
    double lead = v / decade;
    return decade * (lead >= 5 ? 5 : lead >= 2 ? 2 : 1);
}

static double step_above(double v)
{
    double below = step_below(v);
    double lead = below / pow(10, floor(log10(below * 1.0001)));
    if (below >= v * 0.9999)
        return below;
    return lead < 1.5 ? below * 2 : lead < 3 ? below * 2.5 : below * 2;
}

static int colour_of(const char *label, int *others)
{
    if (strcmp(label, "idem") == 0)
        return 0;
    if (strncmp(label, "floor", 5) == 0)
        return 1;
    return 2 + (*others)++ % (COLOURS - 2);
}

/* ------------------------------------------------------------------ lines */

struct legend {
    const char *labels[SVG_SERIES_MAX];
    int colours[SVG_SERIES_MAX];
    int count;
    int others;
};

static int legend_colour(struct legend *l, const char *label)
{
    for (int i = 0; i < l->count; i++)
        if (strcmp(l->labels[i], label) == 0)
            return l->colours[i];
    if (l->count == SVG_SERIES_MAX)
        return COLOURS - 1;
    l->labels[l->count] = label;
    l->colours[l->count] = colour_of(label, &l->others);
    return l->colours[l->count++];
}

static void range_of(const struct svg_lines *chart, double *x_from, double *x_to, double *y_from, double *y_to)
{
    *x_from = *y_from = INFINITY;
    *x_to = *y_to = 0;
    for (unsigned p = 0; p < chart->count; p++)
        for (unsigned s = 0; s < chart->panels[p].count; s++)
            for (unsigned i = 0; i < chart->panels[p].series[s].count; i++) {
                const struct svg_series *series = &chart->panels[p].series[s];
                *x_from = fmin(*x_from, series->x[i]);
                *x_to = fmax(*x_to, series->x[i]);
                *y_from = fmin(*y_from, series->y[i]);
                *y_to = fmax(*y_to, series->y[i]);
            }
}

static void draw_series(FILE *f, const struct svg_series *s, const struct scale *x, const struct scale *y, int colour)
{
    bool us = colour == 0;
    fprintf(f, "<polyline class=\"l%d%s%s\" points=\"", colour, us ? " us-line" : "", colour == 1 ? " floor-line" : "");
    for (unsigned i = 0; i < s->count; i++)
        fprintf(f, "%.1f,%.1f ", place_on(x, s->x[i]), place_on(y, s->y[i]));
    fputs("\"/>\n", f);
    for (unsigned i = 0; i < s->count; i++)
        fprintf(f, "<circle class=\"c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"%d\"/>\n", colour, place_on(x, s->x[i]),
                place_on(y, s->y[i]), us ? 4 : 3);
}

static void draw_panel(FILE *f, const struct svg_panel *panel, const struct scale *x, const struct scale *y,
                       bool with_labels, struct legend *legend)
{
    char label[32];
    text(f, x->low, HEAD + 12, "start", "us", panel->title);
    for (double v = next_tick(y, 0); v <= y->to * 1.0001; v = next_tick(y, v)) {
        fprintf(f, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", x->low - 8, x->high + 8,
                place_on(y, v), place_on(y, v));
        number(v, label, sizeof label);
        if (with_labels)
            text(f, x->low - 14, place_on(y, v) + 4, "end", "small", label);
    }
    fprintf(f, "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", x->low - 8, x->high + 8,
            y->low, y->low);
    for (unsigned s = 0; s < panel->count; s++)
        draw_series(f, &panel->series[s], x, y, legend_colour(legend, panel->series[s].label));
    /* idem once more, on top */
    for (unsigned s = 0; s < panel->count; s++)
        if (strcmp(panel->series[s].label, "idem") == 0)
            draw_series(f, &panel->series[s], x, y, 0);
}

/* Every x that a series has, once. */
static void draw_x_labels(FILE *f, const struct svg_panel *panel, const struct scale *x, double y)
{
    double seen[SVG_POINTS_MAX];
    unsigned count = 0;
    for (unsigned s = 0; s < panel->count; s++)
        for (unsigned i = 0; i < panel->series[s].count; i++) {
            unsigned at = 0;
            while (at < count && seen[at] != panel->series[s].x[i])
                at++;
            if (at < count || count == SVG_POINTS_MAX)
                continue;
            seen[count++] = panel->series[s].x[i];
            char label[32];
            number(panel->series[s].x[i], label, sizeof label);
            text(f, place_on(x, panel->series[s].x[i]), y, "middle", "small", label);
        }
}

static void draw_legend(FILE *f, const struct legend *l)
{
    double x = WIDTH - LEGEND + 4;
    for (int i = 0; i < l->count; i++) {
        double y = HEAD + 30 + i * 20;
        fprintf(f, "<polyline class=\"l%d%s\" points=\"%.1f,%.1f %.1f,%.1f\"/>\n", l->colours[i],
                l->colours[i] == 0   ? " us-line"
                : l->colours[i] == 1 ? " floor-line"
                                     : "",
                x, y - 4, x + 22, y - 4);
        text(f, x + 30, y, "start", l->colours[i] == 0 ? "us" : "", l->labels[i]);
    }
}

int svg_lines_write(const struct svg_lines *chart, const char *file)
{
    struct legend legend = {0};
    int height = HEAD + 24 + PLOT + FOOT;
    double x_from, x_to, y_from, y_to;
    FILE *f = begin(file, height, chart->title, chart->subtitle);
    if (!f)
        return -1;
    range_of(chart, &x_from, &x_to, &y_from, &y_to);
    double room = (double)(WIDTH - MARGIN - AXIS_LEFT - LEGEND) / chart->count;
    struct scale y = {.from = step_below(y_from),
                      .to = step_above(y_to),
                      .low = HEAD + 24 + PLOT,
                      .high = HEAD + 24,
                      .logarithmic = true};
    for (unsigned p = 0; p < chart->count; p++) {
        struct scale x = {.from = x_from, .to = x_to, .low = MARGIN + AXIS_LEFT + room * p, .logarithmic = true};
        x.high = x.low + room - 36;
        draw_panel(f, &chart->panels[p], &x, &y, p == 0, &legend);
        draw_x_labels(f, &chart->panels[p], &x, y.low + 18);
        text(f, (x.low + x.high) / 2, y.low + 38, "middle", "small", chart->x_label);
    }
    draw_legend(f, &legend);
    return end(f, file);
}

/* ------------------------------------------------------------------ bars and dots */

static void draw_item_axis(FILE *f, const struct scale *x, double top, double bottom)
{
    for (double v = next_tick(x, 0); v <= x->to * 1.0001; v = next_tick(x, v)) {
        char label[32];
        fprintf(f, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", place_on(x, v),
                place_on(x, v), top, bottom);
        number(v, label, sizeof label);
        text(f, place_on(x, v), bottom + 16, "middle", "small", label);
    }
}

/* Groups are told apart by strength: the first is full. */
static double strength(unsigned group)
{
    return group == 0 ? 1 : group == 1 ? 0.6 : 0.35;
}

static void draw_bars(FILE *f, const struct svg_items *chart, unsigned item, const struct scale *x, double y,
                      int colour)
{
    for (unsigned g = 0; g < chart->group_count; g++) {
        double v = chart->items[item].value[g];
        char label[32];
        if (v <= 0)
            continue;
        double top = y + (BAR + 1) * g;
        fprintf(f,
                "<rect class=\"c%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill-opacity=\"%.2f\" "
                "stroke=\"none\" style=\"stroke:none\"/>\n",
                colour, x->low, top, fmax(1, place_on(x, v) - x->low), BAR, strength(g));
        number(v, label, sizeof label);
        text(f, place_on(x, v) + 6, top + BAR - 1, "start", "small", label);
    }
}

static void draw_dots(FILE *f, const struct svg_items *chart, unsigned item, const struct scale *x, double y,
                      int colour)
{
    double first = 0;
    double last = 0;
    for (unsigned g = 0; g < chart->group_count; g++) {
        double v = chart->items[item].value[g];
        first = v > 0 && (first == 0 || v < first) ? v : first;
        last = fmax(last, v);
    }
    if (last <= 0)
        return;
    fprintf(f,
            "<line class=\"l%d\" stroke-width=\"2\" stroke-opacity=\"0.5\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" "
            "y2=\"%.1f\"/>\n",
            colour, place_on(x, first), place_on(x, last), y, y);
    for (unsigned g = 0; g < chart->group_count; g++) {
        double v = chart->items[item].value[g];
        if (v > 0)
            fprintf(f, "<circle class=\"c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill-opacity=\"%.2f\"/>\n", colour,
                    place_on(x, v), y, 5.5 - g, strength(g));
    }
}

static void draw_groups(FILE *f, const struct svg_items *chart)
{
    double x = LABELS + MARGIN;
    for (unsigned g = 0; g < chart->group_count && chart->group_count > 1; g++) {
        if (chart->dots)
            fprintf(f, "<circle class=\"c1\" cx=\"%.1f\" cy=\"%d\" r=\"%.1f\" fill-opacity=\"%.2f\"/>\n", x + 5,
                    HEAD + 4, 5.5 - g, strength(g));
        else
            fprintf(f,
                    "<rect class=\"c1\" x=\"%.1f\" y=\"%d\" width=\"11\" height=\"11\" fill-opacity=\"%.2f\" "
                    "style=\"stroke:none\"/>\n",
                    x, HEAD - 2, strength(g));
        text(f, x + 17, HEAD + 8, "start", "small", chart->groups[g]);
        x += 40 + 7.0 * (double)strlen(chart->groups[g]);
    }
}

int svg_items_write(const struct svg_items *chart, const char *file)
{
    double row = chart->dots ? DOT_ROW : (BAR + 1) * (double)chart->group_count + ITEM_GAP;
    double top = HEAD + 24;
    double bottom = top + row * chart->count;
    double from = INFINITY;
    double to = 0;
    int others = 0;
    FILE *f = begin(file, (int)bottom + 34, chart->title, chart->subtitle);
    if (!f)
        return -1;
    for (unsigned i = 0; i < chart->count; i++)
        for (unsigned g = 0; g < chart->group_count; g++)
            if (chart->items[i].value[g] > 0) {
                from = fmin(from, chart->items[i].value[g]);
                to = fmax(to, chart->items[i].value[g]);
            }
    struct scale x = {.from = chart->logarithmic ? pow(10, floor(log10(from * (chart->dots ? 1 : 0.7)))) : 0,
                      .to = chart->logarithmic ? step_above(to) : to,
                      .low = MARGIN + LABELS,
                      .high = WIDTH - MARGIN - VALUES,
                      .logarithmic = chart->logarithmic};
    draw_groups(f, chart);
    draw_item_axis(f, &x, top, bottom);
    for (unsigned i = 0; i < chart->count; i++) {
        double y = top + row * i;
        int colour = colour_of(chart->items[i].label, &others);
        if (colour > 1)
            colour = 1; /* names stand beside their bars: only ours has a colour */
        text(f, x.low - 10, y + row / 2 + (chart->dots ? 4 : 0), "end", colour == 0 ? "us" : "", chart->items[i].label);
        if (chart->dots)
            draw_dots(f, chart, i, &x, y + row / 2, colour);
        else
            draw_bars(f, chart, i, &x, y + ITEM_GAP / 2.0, colour);
    }
    return end(f, file);
}
