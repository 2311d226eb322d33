/*
 * progress.c - see progress.h.
 *
 * If we die here: a line without its end stays on the terminal.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "look.h"
#include "progress.h"

#define BAR_CELLS     20u
#define COLUMNS_LEAST 20

void progress_begin(struct progress_bar *bar)
{
    struct winsize size;
    bar->on = isatty(STDERR_FILENO) == 1;
    bar->shown = false;
    bar->columns = 80;
    if (bar->on && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= COLUMNS_LEAST)
        bar->columns = size.ws_col;
}

void progress_line(const idem_progress *p, int columns, char out[PROGRESS_BYTES])
{
    char done[CLI_TEXT_BYTES], total[CLI_TEXT_BYTES], records[CLI_TEXT_BYTES], rate[CLI_TEXT_BYTES];
    char left[CLI_TEXT_BYTES], cells[BAR_CELLS + 1];
    double share = p->bytes_total > 0 ? (double)p->bytes_done / (double)p->bytes_total : 1.0;
    double seconds = (double)(p->elapsed_ms > 0 ? p->elapsed_ms : 1) / 1000.0;
    unsigned full = (unsigned)(share * BAR_CELLS);
    for (unsigned i = 0; i < BAR_CELLS; i++)
        cells[i] = i < full ? '#' : '.';
    cells[BAR_CELLS] = '\0';
    (void)snprintf(out, PROGRESS_BYTES, "[%s] %3d %%  %s of %s  %s records (%s/s)  %s%s", cells, (int)(share * 100.0),
                   cli_size_text(p->bytes_done, done), cli_size_text(p->bytes_total, total),
                   look_count_text(p->records, records), look_rate_text((double)p->records / seconds, rate),
                   p->left_ms < 0 ? "" : cli_duration_text((p->left_ms + 999) / 1000 * 1000, left),
                   p->left_ms < 0 ? "" : " left");
    if (columns > 0 && columns - 1 < PROGRESS_BYTES && strlen(out) > (size_t)columns - 1)
        out[columns - 1] = '\0';
}

void progress_show(struct progress_bar *bar, const idem_progress *p)
{
    char line[PROGRESS_BYTES], whole[PROGRESS_BYTES + 8];
    if (!bar->on)
        return;
    progress_line(p, bar->columns, line);
    int n = snprintf(whole, sizeof whole, "\r%s\033[K", line);
    bar->shown = true;
    (void)cli_write_all(STDERR_FILENO, whole, (size_t)n); /* nobody looks: it matters to nobody */
}

void progress_clear(struct progress_bar *bar)
{
    if (!bar->shown)
        return;
    bar->shown = false;
    (void)cli_write_all(STDERR_FILENO, "\r\033[K", 4); /* as above */
}
