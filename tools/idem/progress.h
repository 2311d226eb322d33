/*
 * progress.h - a bar on standard error while a log is read, if that is a terminal.
 *
 * Owns: one line of the terminal; it is cleared before anything else is printed, and at the end.
 */
#ifndef IDEM_PROGRESS_H
#define IDEM_PROGRESS_H

#include "cli.h"

struct progress_bar {
    bool on;    /* standard error is a terminal */
    bool shown; /* there is a line to clear */
    int columns;
};
void progress_begin(struct progress_bar *bar);
/* Bytes, records, rate, time left. */
void progress_show(struct progress_bar *bar, const idem_progress *p);
void progress_clear(struct progress_bar *bar);
/* The line without colour or cursor movement, cut to `columns`; for progress_show() and its test. */
#define PROGRESS_BYTES 256
void progress_line(const idem_progress *p, int columns, char out[PROGRESS_BYTES]);

#endif
