/*
 * wal/retain.c - see retain.h.
 *
 * Only the leader is here, after a batch that is durable. Each process has a struct idem_retain of its own: a leader that takes over begins anew and finds
 * in LOG_OLDEST what was done.
 *
 * If we die here: before the REC_RETAIN is durable nothing was deleted; after it the files below it are deleted by the next leader, who finds its
 * number in LOG_RETAINED (or, where that was not raised yet, comes to the same conclusion: all are there), or by recovery.
 */
#include "wal/retain.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/point.h"
#include "wal/lead.h"

#define FILES_LEAST 4u /* so many are kept without asking what lives */

static int header_of(struct idem_lead *lead, uint64_t number, struct idem_file_rec *f)
{
    int fd, e = idem_log_file_open(&lead->dir, number, lead->log->header.uuid, false, f, &fd);
    if (e == IDEM_OK)
        idem_io->close(fd);
    return e;
}

/* The RETAIN that says `said` is durable, perhaps by a leader before us who died deleting: then some are gone already. The oldest first: what is
   there has no gap, whenever we die. */
static int delete_below(struct idem_lead *lead, struct idem_retain *r, uint64_t said, int64_t end_us)
{
    struct idem_a64 *control = lead->log->control;
    bool any = false;
    int e = IDEM_OK;
    while (r->oldest < said && (!any || idem_clock_fine_us() < end_us)) {
        char name[IDEM_LOG_NAME_BYTES];
        struct stat st;
        idem_log_file_name(r->oldest, name);
        uint64_t bytes = idem_io->stat_at(lead->dir.fd, name, &st) == 0 ? (uint64_t)st.st_size : 0;
        e = idem_log_file_delete(&lead->dir, r->oldest);
        if (e != IDEM_OK)
            break;
        IDEM_POINT("retain.deleted");
        r->oldest++;
        any = true;
        add_relaxed(&control[LOG_DISK_BYTES], 0 - bytes); /* relaxed: a figure */
    }
    if (any && e == IDEM_OK)
        e = idem_log_dir_sync(&lead->dir);
    if (any && e == IDEM_OK) {
        uint64_t seen = load_relaxed(&control[LOG_OLDEST]); /* relaxed: the CAS decides */
        while (seen < r->oldest &&
               !cas_acq_rel(&control[LOG_OLDEST], &seen, r->oldest)) /* P12 release: they are gone */
            ;
    }
    if (e != IDEM_OK) { /* the next step deletes them again, those that are gone too: then that is synced and said */
        r->oldest = load_relaxed(&control[LOG_OLDEST]); /* relaxed: a leader's own */
        return e;
    }
    return r->oldest < said;
}

/* A file that a relay still reads is not deleted: the last one that begins at or before its position stays. */
static int keep_for_relay(struct idem_lead *lead, const struct idem_retain *r, uint64_t *to)
{
    uint64_t from = load_acquire(&lead->log->control[LOG_KEEP_FROM]); /* P12 acquire: the relay has what lies before */
    while (from != 0 && *to > r->oldest && !IDEM_FAULT("retain.relay")) {
        struct idem_file_rec f;
        int e = header_of(lead, *to, &f);
        if (e != IDEM_OK)
            return e;
        if (f.base <= from)
            break;
        --*to;
    }
    return IDEM_OK;
}

/* The first file that has not expired as a whole. */
static int find_unexpired(struct idem_lead *lead, struct idem_retain *r, int64_t now_ms, uint64_t *to)
{
    *to = r->oldest;
    while (*to < r->newest) {
        if (r->looked != *to) {
            struct idem_file_rec next;
            int e = header_of(lead, *to + 1, &next);
            if (e != IDEM_OK)
                return e;
            r->looked = *to;
            r->looked_expiry_ms = next.prev_expiry_ms;
        }
        if (r->looked_expiry_ms >= now_ms && !IDEM_FAULT("retain.unexpired"))
            break;
        ++*to;
    }
    return IDEM_OK;
}

/* Over four files, and more than twice what lives: what lives in the old ones is pushed anew. */
static int want_walk(struct idem_lead *lead, struct idem_retain *r)
{
    if (r->newest - r->oldest + 1 <= FILES_LEAST)
        return IDEM_OK;
    if (r->based != r->oldest) {
        struct idem_file_rec f;
        int e = header_of(lead, r->oldest, &f);
        if (e != IDEM_OK)
            return e;
        r->based = r->oldest;
        r->base = f.base;
    }
    /* A file that was given up takes its space, however little was written to it. */
    uint64_t used = idem_lead_position(lead, LOG_WRITTEN) - r->base;
    uint64_t taken = (r->newest - r->oldest) * lead->log->header.bytes;
    if (used < taken && !IDEM_FAULT("retain.given_up"))
        used = taken;
    /* relaxed: a figure of the last walk, whoever made it; it may be far too small, then there is one walk too many */
    uint64_t live = load_relaxed(&lead->log->control[LOG_LIVE_BYTES]);
    if (used <= 2 * live + 2 * lead->log->header.bytes)
        return IDEM_OK;
    r->cut = lead->file.base;
    r->target = lead->file.number;
    r->walked = 0;
    return IDEM_OK;
}

int idem_retain_step(struct idem_lead *lead, struct idem_retain *r, int64_t budget_us)
{
    struct idem_log *log = lead->log;
    int64_t end_us = idem_clock_fine_us() + budget_us;
    uint64_t oldest = load_acquire(&log->control[LOG_OLDEST]); /* P12 acquire: those before it are gone */
    uint64_t to;
    if (IDEM_FAULT("retain.never"))
        return IDEM_OK;
    if (r->oldest < oldest)
        r->oldest = oldest;
    r->newest = lead->file.number;
    uint64_t said = load_acquire(&log->control[LOG_RETAINED]); /* P12 acquire: it is durable */
    if (said > r->oldest) {
        int e = delete_below(lead, r, said, end_us);
        if (e != IDEM_OK)
            return e;
    }
    if (r->say != 0)
        return 1;
    if (r->cut != 0 && r->target <= r->oldest) /* somebody else was faster */
        r->cut = 0;
    if (r->cut != 0) {
        if (r->walked < r->cut && !IDEM_FAULT("retain.unwalked"))
            return 1;
        to = r->target;
        r->cut = 0;
    } else {
        int e = find_unexpired(lead, r, idem_log_now_ms(log), &to);
        if (e != IDEM_OK)
            return e;
    }
    int e = keep_for_relay(lead, r, &to);
    if (e != IDEM_OK)
        return e;
    if (to > r->oldest) {
        r->say = to;
        if (IDEM_FAULT("retain.unsaid"))
            store_relaxed(&log->control[LOG_RETAINED], to); /* relaxed: a fault */
        return 1;
    }
    e = want_walk(lead, r);
    return e == IDEM_OK && r->cut != 0 ? 1 : e;
}
