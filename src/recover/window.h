/*
 * recover/window.h - a log file read through a window, with a word to whoever waits for it.
 *
 * Owns: one buffer, small enough to stay in a core's cache (IDEM_WINDOW_BYTES), larger only for a record that is larger; the pace of the progress callback.
 */
#ifndef IDEM_RECOVER_WINDOW_H
#define IDEM_RECOVER_WINDOW_H

#include "wal/files.h"

struct idem_pace {
    const idem_recovery *hooks; /* NULL: nobody listens */
    uint64_t total, done;       /* bytes */
    uint64_t records;
    int64_t began_ms, told_ms;
};
void idem_pace_begin(struct idem_pace *p, const idem_recovery *hooks, uint64_t total);
/* About ten times a second. Outcomes: IDEM_OK. Errors: IDEM_E_TIMEOUT: the callback wants an end. */
int idem_pace_tell(struct idem_pace *p, bool now);

struct idem_window {
    struct idem_log_dir *d;
    struct idem_pace *pace; /* may be NULL */
    int fd;
    uint64_t number;
    uint64_t size; /* of the file */
    uint64_t step; /* read at once, at most */
    uint64_t at;   /* offset of bytes[0] */
    size_t have, room;
    uint8_t *bytes;
};

#define IDEM_WINDOW_BYTES (UINT64_C(512) << 10)
#define IDEM_WINDOW_SKIM  (UINT64_C(64) << 10) /* for a look here and there */

/* The buffer is kept from file to file. fd is the window's from now on. step: one of the two above. */
void idem_window_start(struct idem_window *w, uint64_t number, int fd, uint64_t size, uint64_t step);
void idem_window_stop(struct idem_window *w); /* closes fd */
void idem_window_free(struct idem_window *w);
/* Forgets what was read: the next look is a fresh one. */
void idem_window_refresh(struct idem_window *w);

int idem_window_read(struct idem_window *w, uint64_t offset, uint64_t n, const uint8_t **p);

/* n bytes at an offset; valid until the next call. The caller has checked that they lie in the file. Errors: IDEM_E_LOG (read error),
   IDEM_E_LOG_DAMAGED (the file has become shorter), IDEM_E_MEMORY, IDEM_E_TIMEOUT. */
static inline int idem_window_get(struct idem_window *w, uint64_t offset, uint64_t n, const uint8_t **p)
{
    if (offset >= w->at && offset - w->at <= w->have && n <= w->have - (offset - w->at)) {
        *p = w->bytes + (offset - w->at);
        return IDEM_OK;
    }
    return idem_window_read(w, offset, n, p);
}

/* The first grain that is not all zero from `offset` on; size if there is none. offset and size are multiples of the grain. Errors as above. */
int idem_window_nonzero(struct idem_window *w, uint64_t offset, uint64_t *found);

#endif
