/*
 * segment/logdir.c - the log directory of a store that is being made or destroyed.
 *
 * Owns: who gets a directory. All of it under the store directory's lock and then the log directory's (flock), in this order.
 *
 * Invariant: a root that says it has a log is found only when the log's id names it and its first file is there. So a store without its
 * segment can always be made of its log, and of two stores that are made with one log directory one fails.
 *
 * If we die here: with the id and no file: nobody's, the next creator takes it. With the first file and no root: an empty log, which is
 * recovered like any. Destroying, after the id says so: the next creator removes the files.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/error.h"
#include "base/point.h"
#include "segment/view.h"

#define HOLD_WAIT_MS 10000

/* The id that was there before somebody else had the directory may be gone by now. */
static int open_held(const char *path, bool create, int64_t group, struct idem_log_dir *d)
{
    for (int waited_ms = 0; waited_ms < HOLD_WAIT_MS; waited_ms += 10) {
        int e = idem_log_dir_open(path, create, group, d);
        if (e != IDEM_OK)
            return e;
        struct stat st;
        e = idem_log_dir_hold(d);
        if (e == IDEM_OK && idem_io->stat_at(d->fd, "id", &st) == 0 && st.st_dev == d->device && st.st_ino == d->inode)
            return IDEM_OK;
        idem_log_dir_close(d);
        if (e < 0)
            return e;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return idem_fail(IDEM_E_LOG, "%s: somebody else has been at work on this log directory for %d s; is it stopped?",
                     path, HOLD_WAIT_MS / 1000);
}

static int delete_files(struct idem_log_dir *d, size_t *count, bool really)
{
    uint64_t *numbers;
    int e = idem_log_list(d, &numbers, count);
    for (size_t i = 0; e == IDEM_OK && really && i < *count; i++)
        e = idem_log_file_delete(d, numbers[i]);
    free(numbers);
    return e;
}

int idem_logdir_claim(const idem_options *o, struct idem_log_dir *d)
{
    size_t files = 0;
    int e = open_held(o->wal_dir, true, o->group, d);
    if (e != IDEM_OK)
        return e;
    e = delete_files(d, &files, d->id.destroyed != 0);
    if (e == IDEM_OK && d->id.destroyed == 0 && files > 0)
        e = IDEM_VIEW_HAS_LOG;
    if (e == IDEM_OK)
        e = idem_log_clear_tmp(d);
    if (e != IDEM_OK) {
        idem_log_dir_close(d);
    }
    return e;
}

void idem_logdir_header(const struct idem_root_const *f, const struct idem_log_const *l, struct idem_file_rec *h)
{
    memset(h, 0, sizeof *h);
    memcpy(h->uuid, f->uuid, sizeof h->uuid);
    memcpy(h->instance, l->instance, sizeof h->instance);
    memcpy(h->secret, f->secret, sizeof h->secret);
    h->bytes = l->file_bytes;
    h->ttl_ms = f->ttl_ms;
    h->lease_ms = f->lease_ms;
    h->keys = f->keys;
    h->response_bytes = f->response_bytes;
    h->when_full = f->when_full;
    h->processes = f->processes_max;
    h->lanes = f->lanes_max;
    h->group = f->group;
    h->settings = (struct idem_wal_settings){
        .durability_claim = (uint8_t)l->durability_claim,
        .durability_complete = (uint8_t)l->durability_complete,
        .flush_interval_ms = l->flush_interval_ms,
        .log_wait_ms = l->log_wait_ms,
        .ring_refs = (uint32_t)l->ring_refs,
        .file_bytes = l->file_bytes,
    };
}

int idem_logdir_begin(struct idem_log_dir *d, const struct idem_root_const *f, const struct idem_log_const *l,
                      struct idem_a64 *control)
{
    struct idem_log_id_rec id = {.newest = 0};
    struct idem_file_rec h;
    memcpy(id.uuid, f->uuid, sizeof id.uuid);
    memcpy(id.instance, l->instance, sizeof id.instance);
    int fd, e = idem_log_id_replace(d, &id);
    if (e != IDEM_OK)
        return e;
    IDEM_POINT("log.claimed");
    idem_logdir_header(f, l, &h);
    h.number = h.oldest = 1;
    h.base = IDEM_WAL_HEADER_BYTES;
    h.store_ms = f->created_ms;
    h.wall_ms = idem_clock_wall_ms();
    h.ceiling_ms = f->created_ms + IDEM_LOG_AHEAD_MS;
    if (getrandom(&h.salt, sizeof h.salt, 0) != (ssize_t)sizeof h.salt)
        return idem_fail_errno("getrandom");
    e = idem_log_file_make(d, &h, &fd);
    if (e != IDEM_OK)
        return e;
    e = idem_log_file_publish(d, &h, fd);
    int kept = errno;
    idem_io->close(fd);
    errno = kept;
    id.newest = 1;
    if (e == IDEM_OK)
        e = idem_log_id_write(d, &id);
    if (e == IDEM_OK) {
        idem_log_control_begin(control, 0, IDEM_WAL_HEADER_BYTES, 1, h.ceiling_ms);
        store_relaxed(&control[LOG_DISK_BYTES], h.bytes); /* relaxed: published with the root */
    }
    return e;
}

int idem_logdir_destroy(const struct idem_root_const *f, const struct idem_log_const *l)
{
    struct idem_log_dir d;
    int e = open_held(l->wal_dir, false, f->group, &d);
    if (e == IDEM_E_NO_STORE)
        return IDEM_OK;
    if (e != IDEM_OK)
        return e;
    size_t files;
    if (memcmp(d.id.uuid, f->uuid, sizeof d.id.uuid) == 0) {
        struct idem_log_id_rec id = d.id;
        id.destroyed = 1;
        e = idem_log_id_replace(&d, &id);
        IDEM_POINT("log.destroyed");
        if (e == IDEM_OK)
            e = delete_files(&d, &files, true);
        if (e == IDEM_OK)
            e = idem_log_dir_sync(&d);
    }
    idem_log_dir_close(&d);
    return e;
}
