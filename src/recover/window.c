/* recover/window.c - see window.h. */
#include "recover/window.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"

#define TELL_MS 100

void idem_pace_begin(struct idem_pace *p, const idem_recovery *hooks, uint64_t total)
{
    memset(p, 0, sizeof *p);
    p->hooks = hooks;
    p->total = total;
    p->began_ms = p->told_ms = idem_clock_raw_ms();
}

int idem_pace_tell(struct idem_pace *p, bool now)
{
    if (p == NULL || p->hooks == NULL || p->hooks->progress == NULL)
        return IDEM_OK;
    int64_t ms = idem_clock_raw_ms();
    if (!now && ms - p->told_ms < TELL_MS)
        return IDEM_OK;
    p->told_ms = ms;
    idem_progress out = {
        .bytes_done = p->done < p->total ? p->done : p->total,
        .bytes_total = p->total,
        .records = p->records,
        .keys = p->hooks->keys,
        .elapsed_ms = ms - p->began_ms,
        .left_ms = -1,
    };
    if (out.elapsed_ms >= 2 * TELL_MS && out.bytes_done > 0)
        out.left_ms =
            (int64_t)((double)out.elapsed_ms * (double)(out.bytes_total - out.bytes_done) / (double)out.bytes_done);
    if (p->hooks->progress(p->hooks->ctx, &out) == 0)
        return IDEM_OK;
    return idem_fail(IDEM_E_TIMEOUT, "%s: ended by the caller's progress function; nothing was changed",
                     p->hooks->wal_dir != NULL ? p->hooks->wal_dir : "recovery");
}

void idem_window_start(struct idem_window *w, uint64_t number, int fd, uint64_t size, uint64_t step)
{
    w->number = number;
    w->fd = fd;
    w->size = size;
    w->step = step;
    idem_window_refresh(w);
}

void idem_window_stop(struct idem_window *w)
{
    idem_io->close(w->fd);
    w->fd = -1;
}

void idem_window_free(struct idem_window *w)
{
    free(w->bytes);
    w->bytes = NULL;
    w->room = w->have = 0;
}

void idem_window_refresh(struct idem_window *w)
{
    w->at = 0;
    w->have = 0;
}

static int grow(struct idem_window *w, uint64_t n)
{
    uint64_t room = w->size < w->step ? w->size : w->step;
    room = n > room ? n : room;
    if (room <= w->room)
        return IDEM_OK;
    uint8_t *more = realloc(w->bytes, room);
    if (more == NULL)
        return idem_fail(IDEM_E_MEMORY, "no memory for a window of %llu bytes on a log file", (unsigned long long)room);
    w->bytes = more;
    w->room = room;
    return IDEM_OK;
}

int idem_window_read(struct idem_window *w, uint64_t offset, uint64_t n, const uint8_t **p)
{
    int e = grow(w, n);
    if (e == IDEM_OK)
        e = idem_pace_tell(w->pace, false);
    if (e != IDEM_OK)
        return e;
    /* What is there already of these bytes is kept. */
    size_t kept = 0;
    if (offset >= w->at && offset - w->at < w->have) {
        kept = w->have - (size_t)(offset - w->at);
        memmove(w->bytes, w->bytes + (offset - w->at), kept);
    }
    w->at = offset;
    w->have = kept;
    uint64_t most = n > w->step ? n : w->step < w->room ? w->step : w->room;
    uint64_t want = most < w->size - offset ? most : w->size - offset;
    ssize_t got = 1;
    while (w->have < want && got > 0) {
        got = idem_io_read_some(w->fd, w->bytes + w->have, want - w->have, offset + w->have);
        w->have += got > 0 ? (size_t)got : 0;
    }
    if (w->pace != NULL)
        w->pace->done += w->have - kept;
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(w->number, name);
    if (w->have < n && got < 0) /* what can't be read farther on is not this one's trouble */
        return idem_log_fail(w->d, name, "read");
    if (w->have < n)
        return idem_fail(IDEM_E_LOG_DAMAGED, "%s/%s: ends at byte %llu, it had %llu; it was cut while it was read",
                         w->d->path, name, (unsigned long long)(offset + w->have), (unsigned long long)w->size);
    *p = w->bytes;
    return IDEM_OK;
}

int idem_window_nonzero(struct idem_window *w, uint64_t offset, uint64_t *found)
{
    static const uint8_t zeros[IDEM_WAL_HEADER_BYTES];
    while (offset < w->size) {
        uint64_t n = w->size - offset < sizeof zeros ? w->size - offset : sizeof zeros;
        const uint8_t *p = zeros;
        int e = idem_window_get(w, offset, n, &p);
        if (e != IDEM_OK)
            return e;
        if (memcmp(p, zeros, n) != 0) {
            while (memcmp(p, zeros, IDEM_WAL_GRAIN) == 0) {
                p += IDEM_WAL_GRAIN;
                offset += IDEM_WAL_GRAIN;
            }
            *found = offset;
            return IDEM_OK;
        }
        offset += n;
    }
    *found = w->size;
    return IDEM_OK;
}
