/*
 * wal/leader.c - attaching, electing, succeeding, the next file. See leader.h.
 *
 * If we die here: the kernel frees the byte. A file under its name that FILE does not name yet is gone over by the next one that makes a file.
 */
#include "wal/leader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/point.h"
#include "wal/lead.h"

#define EPOCH_MAX       65535u
#define FILE_TRIES      64u
#define FILE_STEP_BYTES 4096u

/* ------------------------------------------------------------------ attaching */

/* All logs of this process: what a forked child has to let go. */
static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct idem_log *logs;

static struct idem_lead *new_lead(struct idem_log *log)
{
    struct idem_lead *lead = calloc(1, sizeof *lead);
    if (lead == NULL)
        return NULL;
    lead->log = log;
    lead->fd = lead->dir.fd = lead->dir.id_fd = -1;
    lead->next = log->leads;
    log->leads = lead;
    return lead;
}

/* Forgotten before it is closed: a child forked in between closes what it finds here, and the number may be another file's by then. */
static void close_file(struct idem_lead *lead)
{
    int fd = lead->fd;
    lead->fd = -1;
    lead->direct = lead->indirect = false;
    if (fd >= 0)
        idem_io->close(fd);
}

static void free_lead(struct idem_lead *lead)
{
    struct idem_log *log = lead->log;
    for (struct idem_lead **at = &log->leads; *at != NULL; at = &(*at)->next)
        if (*at == lead) {
            *at = lead->next;
            break;
        }
    if (log->lead == lead)
        log->lead = NULL;
    close_file(lead);
    idem_log_dir_close(&lead->dir);
    free(lead->bytes);
    free(lead->notes);
    free(lead->lanes);
    free(lead->seen);
    free(lead);
}

/* Is it ours? Under log->lock. */
static int open_dir(struct idem_lead *lead)
{
    struct idem_log *log = lead->log;
    if (lead->dir.fd >= 0 && !lead->broken)
        return IDEM_OK;
    close_file(lead);
    idem_log_dir_close(&lead->dir);
    lead->broken = false;
    int e = idem_log_dir_open(log->path, false, log->header.group, &lead->dir);
    if (e != IDEM_OK)
        return e;
    const struct idem_log_id_rec *id = &lead->dir.id;
    if (memcmp(id->uuid, log->header.uuid, sizeof id->uuid) != 0)
        e = idem_fail(IDEM_E_LOG_FOREIGN, "%s: the log of another store; each store needs a directory of its own",
                      log->path);
    else if (id->destroyed != 0 || memcmp(id->instance, log->header.instance, sizeof id->instance) != 0)
        e = idem_fail(IDEM_E_STALE, "%s: the log was taken over by another segment of this store, or destroyed",
                      log->path);
    if (e != IDEM_OK)
        idem_log_dir_close(&lead->dir);
    return e;
}

int idem_log_attach(const char *wal_dir, struct idem_a64 *control, const struct idem_log_source *source,
                    const struct idem_file_rec *header, uint32_t flush_interval_ms, uint32_t log_wait_ms,
                    struct idem_log **out)
{
    size_t n = strlen(wal_dir);
    if (n >= IDEM_LOG_PATH_MAX)
        return idem_fail(IDEM_E_INVALID, "wal_dir: longer than %u bytes", IDEM_LOG_PATH_MAX - 1);
    struct idem_log *log = calloc(1, sizeof *log);
    if (log == NULL || (log->lead = new_lead(log)) == NULL) {
        free(log);
        return idem_fail(IDEM_E_MEMORY, "no memory for a log");
    }
    memcpy(log->path, wal_dir, n + 1);
    log->control = control;
    log->source = *source;
    log->header = *header;
    log->interval_ms = flush_interval_ms;
    log->wait_ms = log_wait_ms;
    pthread_mutex_init(&log->lock, NULL);
    pthread_mutex_lock(&list_lock);
    int e = open_dir(log->lead);
    /* A disk that is not mounted yet, say: durable calls fail until it is, others go on. */
    if (e == IDEM_E_LOG || e == IDEM_E_LOG_SPACE || e == IDEM_E_NO_STORE)
        e = IDEM_OK;
    if (e == IDEM_OK) {
        log->next = logs;
        logs = log;
        *out = log;
    }
    pthread_mutex_unlock(&list_lock);
    if (e != IDEM_OK) {
        int kept = errno;
        free_lead(log->lead);
        pthread_mutex_destroy(&log->lock);
        free(log);
        errno = kept;
    }
    return e;
}

void idem_log_detach(struct idem_log *log)
{
    pthread_mutex_lock(&list_lock);
    for (struct idem_log **at = &logs; *at != NULL; at = &(*at)->next)
        if (*at == log) {
            *at = log->next;
            break;
        }
    pthread_mutex_unlock(&list_lock);
    while (log->leads != NULL)
        free_lead(log->leads);
    pthread_mutex_destroy(&log->lock);
    free(log);
}

/* A leader whose thread is not in this process was at work with its memory: that is left, one of these may have been freed already. */
static void leave_lead(struct idem_lead *lead)
{
    close_file(lead);
    idem_log_dir_close(&lead->dir);
    if (lead->busy) {
        lead->bytes = NULL;
        lead->notes = NULL;
        lead->lanes = NULL;
        lead->seen = NULL;
    }
    lead->orphan = lead->busy = false;
}

void idem_log_leave_to_parent(struct idem_log *log)
{
    for (struct idem_lead *lead = log->leads; !IDEM_FAULT("log.inherited") && lead != NULL; lead = lead->next)
        leave_lead(lead);
    log->forked = true;
    log->flushing = false;
}

void idem_logs_before_fork(void)
{
    pthread_mutex_lock(&list_lock);
    for (struct idem_log *l = logs; l != NULL; l = l->next)
        pthread_mutex_lock(&l->lock);
}

void idem_logs_after_fork(bool child)
{
    for (struct idem_log *l = logs; l != NULL; l = l->next) {
        if (child)
            idem_log_leave_to_parent(l);
        pthread_mutex_unlock(&l->lock);
    }
    pthread_mutex_unlock(&list_lock);
}

/* ------------------------------------------------------------------ electing */

void idem_lead_progress(struct idem_lead *lead)
{
    /* relaxed: a time; a late one puts a succession off */
    store_relaxed(&lead->log->control[LOG_PROGRESS_MS], (uint64_t)idem_log_now_ms(lead->log));
}

static uint64_t epoch_now(const struct idem_log *log)
{
    return load_acquire(&log->control[LOG_EPOCH]); /* P12 acquire: who raised it has begun to succeed */
}

/* The byte of the present epoch. Under log->lock; neither call waits. */
static int take_byte(struct idem_lead *lead, bool steal)
{
    struct idem_log *log = lead->log;
    uint64_t e = epoch_now(log);
    if (steal) {
        if (e >= EPOCH_MAX || IDEM_FAULT("log.unsucceeded"))
            return 1;
        uint64_t seen = e;
        if (!cas_acq_rel(&log->control[LOG_EPOCH], &seen, e + 1)) /* P12 release: nothing of ours comes before it */
            return 1;
        e++;
        IDEM_POINT("log.stolen");
        idem_lead_count(lead, LOG_STALLS, 1);
    }
    if (idem_io->lock(lead->dir.id_fd, IDEM_LOG_LOCK_AT + (int64_t)e) != 0)
        return errno == EAGAIN || errno == EINTR ? 1 : idem_log_fail(&lead->dir, "id", "lock");
    if (epoch_now(log) != e) {
        idem_io->unlock(lead->dir.id_fd, IDEM_LOG_LOCK_AT + (int64_t)e);
        return 1;
    }
    lead->epoch = (unsigned)e;
    return IDEM_OK;
}

int idem_log_elect(struct idem_log *log, bool steal, struct idem_lead **out)
{
    *out = NULL;
    if (log->forked)
        return idem_fail(IDEM_E_LOG, "%s: a forked child has not opened its log yet", log->path);
    pthread_mutex_lock(&log->lock);
    struct idem_lead *lead = log->lead;
    int e = IDEM_OK;
    if (lead != NULL && lead->busy && steal) { /* a thread of ours is stuck: it keeps what it works with */
        lead->orphan = true;
        log->lead = lead = NULL;
    }
    if (lead == NULL)
        log->lead = lead = new_lead(log);
    if (lead == NULL)
        e = idem_fail(IDEM_E_MEMORY, "no memory for a leader of the log");
    else if (lead->busy)
        e = 1;
    if (e == IDEM_OK)
        e = open_dir(lead);
    if (e == IDEM_OK)
        e = take_byte(lead, steal);
    if (e == IDEM_OK) {
        lead->busy = true;
        *out = lead;
    }
    pthread_mutex_unlock(&log->lock);
    if (e == IDEM_OK)
        IDEM_POINT("log.elected");
    return e == IDEM_E_NO_STORE ? IDEM_E_LOG : e;
}

void idem_log_resign(struct idem_lead *lead)
{
    struct idem_log *log = lead->log;
    int kept = errno;
    bool stands = lead->stands;
    uint64_t number = lead->number;
    idem_io->unlock(lead->dir.id_fd, IDEM_LOG_LOCK_AT + (int64_t)lead->epoch);
    pthread_mutex_lock(&log->lock);
    lead->busy = false;
    if (lead->orphan)
        free_lead(lead);
    pthread_mutex_unlock(&log->lock);
    if (stands)
        idem_log_wake_batch(log->control, number);
    else
        idem_log_wake(log->control);
    IDEM_POINT("log.woken");
    errno = kept;
}

/* ------------------------------------------------------------------ files */

static int name_fail(const struct idem_lead *lead, uint64_t number, int e)
{
    if (e == IDEM_E_LOG_DAMAGED)
        return e;
    return e == IDEM_E_EXISTS ? idem_fail(IDEM_E_LOG, "%s: file %llu: its name is taken again and again",
                                          lead->log->path, (unsigned long long)number)
                              : e;
}

static int open_number(struct idem_lead *lead, uint64_t number, struct idem_file_rec *f, int *fd)
{
    return idem_log_file_open(&lead->dir, number, lead->log->header.uuid, true, f, fd);
}

/* Is the one that FILE names ours to go on with? It is open then. */
static int open_present(struct idem_lead *lead, uint64_t number)
{
    if (lead->fd >= 0 && lead->file.number == number)
        return IDEM_OK;
    close_file(lead);
    int e = open_number(lead, number, &lead->file, &lead->fd);
    if (e != IDEM_OK)
        lead->fd = -1;
    return e;
}

/* A file that a leader before us, or one that was succeeded, made and never told of: all of it is void. */
static int go_over(struct idem_lead *lead, uint64_t number, struct idem_file_rec *found)
{
    int fd, e = open_number(lead, number, found, &fd);
    if (e != IDEM_OK)
        return e;
    idem_io->close(fd);
    if (found->epoch > lead->epoch || memcmp(found->instance, lead->log->header.instance, 16) != 0)
        return LEAD_OVER;
    return idem_log_dir_sync(&lead->dir); /* else a crash may keep our name and lose this one */
}

static int make_file(struct idem_lead *lead, const struct idem_file_rec *prev, uint64_t number, uint64_t base,
                     uint64_t bytes, struct idem_file_rec *f, int *fd)
{
    struct idem_log *log = lead->log;
    *f = log->header;
    f->number = number;
    f->base = base;
    f->prev_number = prev->number;
    f->prev_salt = prev->salt;
    f->prev_end = idem_lead_position(lead, LOG_DURABLE);
    f->oldest = load_relaxed(&log->control[LOG_OLDEST]); /* relaxed: an older one only keeps more */
    f->epoch = lead->epoch;
    log->source.now(log->source.ctx, &f->store_ms, &f->wall_ms);
    f->ceiling_ms = (int64_t)load_relaxed(&log->control[LOG_CEILING_MS]); /* relaxed: it only grows */
    if (f->ceiling_ms < f->store_ms + IDEM_LOG_AHEAD_MS)
        f->ceiling_ms = f->store_ms + IDEM_LOG_AHEAD_MS;
    f->prev_expiry_ms = (int64_t)load_relaxed(&log->control[LOG_EXPIRY_MS]); /* relaxed: a leader's own */
    uint64_t need = IDEM_WAL_HEADER_BYTES + bytes;
    if (f->bytes < need) /* one answer that is larger than a file */
        f->bytes = (need + FILE_STEP_BYTES - 1) / FILE_STEP_BYTES * FILE_STEP_BYTES;
    if (getrandom(&f->salt, sizeof f->salt, 0) != (ssize_t)sizeof f->salt)
        return idem_fail_errno("getrandom");
    int e = idem_log_file_make(&lead->dir, f, fd);
    if (e != IDEM_OK)
        return e;
    idem_lead_progress(lead);
    e = idem_log_file_publish(&lead->dir, f, *fd);
    if (e != IDEM_OK)
        idem_io_done(*fd);
    return e;
}

int idem_lead_new_file(struct idem_lead *lead, uint64_t bytes)
{
    struct idem_log *log = lead->log;
    uint64_t number = idem_lead_value(lead, LOG_FILE), base = idem_lead_position(lead, LOG_ASSIGNED);
    struct idem_file_rec prev, f;
    int fd, e = open_present(lead, number); /* its salt; it is not written to any more */
    if (e != IDEM_OK)
        return e;
    prev = lead->file;
    /* What leaders left who died making a file. If it is one's who only sleeps, and was succeeded, his renaming fails. */
    idem_log_clear_tmp(&lead->dir);
    for (unsigned tries = 0;; tries++) {
        if (base < prev.base) /* positions never go back, whoever made that file */
            base = prev.base;
        e = make_file(lead, &prev, number + 1, base, bytes, &f, &fd);
        if (e != IDEM_E_EXISTS || tries >= FILE_TRIES)
            break;
        e = go_over(lead, number + 1, &prev);
        if (e != IDEM_OK)
            break;
        number++;
    }
    if (e != IDEM_OK)
        return name_fail(lead, number + 1, e);
    close_file(lead);
    lead->file = f;
    lead->fd = fd;
    struct idem_log_id_rec id = lead->dir.id;
    id.newest = f.number;
    e = idem_log_id_write(&lead->dir, &id);
    if (e != IDEM_OK) {
        close_file(lead);
        return e;
    }
    IDEM_POINT("log.file.used");
    /* In this order. Death after FILE: ASSIGNED is WRITTEN or is not; either way nothing was written to this file. SYNCING is for a file
       number: what it says about the one before does not matter any more, but a later sync wants it clear. */
    uint64_t grains = f.base / IDEM_WAL_GRAIN;
    if (!idem_lead_set(lead, LOG_FILE, f.number) || !idem_lead_set(lead, LOG_ASSIGNED, grains) ||
        !idem_lead_set(lead, LOG_WRITTEN, grains) || !idem_lead_set(lead, LOG_SYNCING, 0))
        return LEAD_OVER;
    store_relaxed(&log->control[LOG_EXPIRY_MS], 0); /* relaxed: a leader's own */
    idem_lead_count(lead, LOG_DISK_BYTES, f.bytes);
    return IDEM_OK;
}

int idem_lead_file(struct idem_lead *lead, uint64_t bytes)
{
    uint64_t number = idem_lead_value(lead, LOG_FILE), syncing = idem_lead_value(lead, LOG_SYNCING);
    uint64_t written = idem_lead_position(lead, LOG_WRITTEN);
    int e = open_present(lead, number);
    if (e != IDEM_OK)
        return e;
    const struct idem_file_rec *f = &lead->file;
    if (f->epoch > lead->epoch || memcmp(f->instance, lead->log->header.instance, 16) != 0)
        return LEAD_OVER;
    if (syncing == number)
        idem_lead_count(lead, LOG_POISONED, 1);
    bool given_up = syncing == number || f->epoch != lead->epoch || idem_lead_position(lead, LOG_ASSIGNED) != written ||
                    written < f->base;
    if (!given_up && IDEM_WAL_HEADER_BYTES + (written - f->base) + bytes <= f->bytes)
        return IDEM_OK;
    return idem_lead_new_file(lead, bytes);
}
