/*
 * wal/sync.c - see sync.h.
 *
 * If we die here: a flag in WAITERS is left, the next wake makes one needless system call; a due time is left, any other process's flusher sees it.
 */
#include "wal/sync.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/futex.h"
#include "base/point.h"
#include "wal/lead.h"

#define SLEEP_MAX_MS   100
#define SLEEP_FIRST_MS 10 /* of who has not tried to lead yet */
#define PATROL_MS      1000
#define RETRY_FIRST_MS 10
#define LED_MS         10 /* a flusher's, while somebody else leads */
#define RETRY_MAX_MS   1000
#define STACK_BYTES    (UINT64_C(256) << 10)
#define ATTEMPTS       2u /* the second one makes a new file */

/* How long the leader has stood still, as seen by one that waits. */
struct watch {
    uint64_t progress;
    int64_t since_ms;
    bool looked;
};

static bool stands_still(struct idem_log *log, struct watch *w, int64_t now_ms)
{
    uint64_t progress = load_relaxed(&log->control[LOG_PROGRESS_MS]); /* relaxed: a time */
    if (!w->looked || progress != w->progress) {
        *w = (struct watch){progress, now_ms, true};
        return false;
    }
    return now_ms - w->since_ms >= log->wait_ms / 2;
}

/* What a wait is for. */
struct want {
    const struct idem_ring *ring; /* NULL: all */
    uint64_t ticket;
    uint64_t *heads; /* all: one a lane */
    uint32_t lanes;
    uint64_t walk;
};

static bool ring_reached(const struct idem_ring *r, uint64_t ticket)
{
    return (load_acquire(r->flushed) & RING_COUNT) >= ticket; /* P12 acquire: the record is durable, the word says so */
}

static bool reached(struct idem_log *log, const struct want *w)
{
    if (w->ring != NULL)
        return ring_reached(w->ring, w->ticket);
    for (uint32_t i = 0; i < w->lanes; i++) {
        struct idem_ring r;
        log->source.lane(log->source.ctx, i, &r);
        if (!ring_reached(&r, w->heads[i]))
            return false;
    }
    return load_acquire(&log->control[LOG_WALK_DONE]) >= w->walk; /* P12 acquire: what it found is durable */
}

/* Leads one batch. Outcomes: IDEM_OK, 1: somebody else leads. Errors: the batch's. */
static int lead_one(struct idem_log *log, bool steal)
{
    struct idem_lead *lead;
    int e = idem_log_elect(log, steal, &lead);
    if (e != IDEM_OK)
        return e;
    e = idem_log_batch(lead);
    idem_log_resign(lead);
    return e == 1 ? IDEM_OK : e;
}

/* The present file is being synced: somebody leads, most likely. Else he died there, or the file is given up, and who waits finds out soon. */
static bool sync_runs(const struct idem_log *log)
{
    uint64_t syncing =
        load_acquire(&log->control[LOG_SYNCING]) & LOG_VALUE_MASK; /* P12 acquire: before that leader's wake */
    return syncing != 0 && syncing == (load_relaxed(&log->control[LOG_FILE]) & LOG_VALUE_MASK); /* relaxed: a guess */
}

static int wait_for(struct idem_log *log, const struct want *want, int64_t timeout_ms)
{
    if (timeout_ms <= 0)
        timeout_ms = log->wait_ms;
    int64_t began_ms = idem_log_now_ms(log), now_ms = began_ms;
    struct watch watch = {0, 0, false};
    unsigned failed = 0;
    bool fresh = true, slept = false;
    uint32_t bits = want->ring != NULL ? idem_log_wait_bits(log->control) : UINT32_MAX;
    add_relaxed(&log->control[LOG_WAITS], 1); /* relaxed: a figure */
    while (!reached(log, want)) {
        uint64_t wake =
            load_seq_cst(&log->control[LOG_WAKE]); /* P12 seq_cst: before we look whether there is a leader */
        bool steal = stands_still(log, &watch, now_ms);
        bool trusts = fresh && sync_runs(log);
        int64_t sleep_ms = trusts ? SLEEP_FIRST_MS : SLEEP_MAX_MS;
        int e = trusts ? 1 : lead_one(log, steal);
        fresh = false;
        if (steal)
            watch.looked = false;
        if (e < 0 && (++failed >= ATTEMPTS || (e != IDEM_E_LOG && e != IDEM_E_LOG_SPACE)))
            return e;
        if (reached(log, want))
            break;
        now_ms = idem_log_now_ms(log);
        if (now_ms - began_ms >= timeout_ms)
            return idem_fail(IDEM_E_LOG_STALLED,
                             "%s: the log made no progress within %lld ms; its leader is stopped, or its disk is slow",
                             log->path, (long long)timeout_ms);
        if (e != 1)
            continue;
        slept = true;
        idem_log_waits(log->control, bits);
        IDEM_POINT("log.waits");
        int64_t left_ms = timeout_ms - (now_ms - began_ms);
        idem_futex_wait_bits(&log->control[LOG_WAKE], wake, left_ms < sleep_ms ? left_ms : sleep_ms, bits);
        now_ms = idem_log_now_ms(log);
    }
    if (slept)
        idem_log_pass_on(log->control, bits);
    return IDEM_OK;
}

int idem_log_wait(struct idem_log *log, const struct idem_ring *ring, uint64_t ticket, int64_t timeout_ms)
{
    struct want want = {.ring = ring, .ticket = ticket};
    return wait_for(log, &want, timeout_ms);
}

int idem_log_wait_all(struct idem_log *log, bool walk, int64_t timeout_ms)
{
    struct want want = {.lanes = log->source.lanes(log->source.ctx)};
    want.heads = calloc(want.lanes + 1, sizeof *want.heads);
    if (want.heads == NULL)
        return idem_fail(IDEM_E_MEMORY, "no memory for a look at %u queues", want.lanes);
    if (walk)
        want.walk = load_acquire(&log->control[LOG_WALK_WANTED]); /* P12 acquire: who raised it had published */
    for (uint32_t i = 0; i < want.lanes; i++) {
        struct idem_ring r;
        log->source.lane(log->source.ctx, i, &r);
        want.heads[i] = idem_ring_head(&r);
    }
    int e = wait_for(log, &want, timeout_ms);
    free(want.heads);
    return e;
}

/* ------------------------------------------------------------------ the flusher */

/* due: LOG_DUE_MS, as loaded. */
static bool overdue(uint64_t due, int64_t now_ms)
{
    return due != 0 && now_ms >= (int64_t)due;
}

void idem_log_ask(struct idem_log *log, bool soon)
{
    uint64_t none = 0;
    int64_t now_ms = idem_log_now_ms(log);
    if (!soon) {
        cas_relaxed(&log->control[LOG_DUE_MS], &none, (uint64_t)(now_ms + log->interval_ms)); /* relaxed: a time */
        return;
    }
    store_seq_cst(&log->control[LOG_DUE_MS], (uint64_t)now_ms); /* P12 seq_cst: the time, then the kick */
    /* P12 seq_cst: the push came before. One that is kicked already will look at the time after this: a queue that is full asks with each push. */
    if (cas_seq_cst(&log->kick, &none, 1))
        idem_futex_wake_all(&log->kick);
}

/* What no due time tells of: a lane whose owner died or sleeps between publishing and pushing; a push that nobody was asked to write. */
static bool patrol(struct idem_log *log)
{
    uint32_t n = log->source.lanes(log->source.ctx);
    for (uint32_t i = 0; i < n; i++) {
        struct idem_ring r;
        log->source.lane(log->source.ctx, i, &r);
        if (!ring_reached(&r, idem_ring_head(&r)) || log->source.life(log->source.ctx, i) != LANE_LIVES)
            return true;
    }
    /* relaxed: asked again soon */
    return load_relaxed(&log->control[LOG_WALK_WANTED]) != load_relaxed(&log->control[LOG_WALK_DONE]);
}

/* Once a second, by whoever tends the log. */
static void look_for_more(struct idem_log *log, int64_t now_ms)
{
    int64_t looked_ms = (int64_t)load_relaxed(&log->patrolled_ms); /* relaxed: a time; a look too many does no harm */
    if (now_ms >= looked_ms && now_ms - looked_ms < PATROL_MS)
        return;
    store_relaxed(&log->patrolled_ms, (uint64_t)now_ms); /* relaxed: as above */
    if (patrol(log))
        idem_log_ask(log, false);
}

int idem_log_tend(struct idem_log *log)
{
    int64_t now_ms = idem_log_now_ms(log);
    look_for_more(log, now_ms);
    if (!overdue(load_relaxed(&log->control[LOG_DUE_MS]), now_ms)) /* relaxed: a time */
        return IDEM_OK;
    struct idem_lead *lead;
    int e = idem_log_elect(log, false, &lead);
    if (e != IDEM_OK)
        return e == 1 ? IDEM_OK : e;
    e = idem_log_batch(lead);
    idem_log_resign(lead);
    return e;
}

static void *flush(void *arg)
{
    struct idem_log *log = arg;
    struct watch watch = {0, 0, false};
    int64_t retry_ms = RETRY_FIRST_MS;
    store_relaxed(&log->patrolled_ms, (uint64_t)idem_log_now_ms(log)); /* relaxed: a time */
    /* P12 acquire: with stop's release */
    while (load_acquire(&log->stop) == 0) {
        store_seq_cst(&log->kick, 0); /* P12 seq_cst: what it was for is looked at after this, the clock too */
        int64_t now_ms = idem_log_now_ms(log), sleep_ms = log->interval_ms;
        uint64_t kicked = 0; /* what `kick` says while nobody has kicked */
        look_for_more(log, now_ms);
        uint64_t due = load_seq_cst(&log->control[LOG_DUE_MS]); /* P12 seq_cst: as above */
        if (overdue(due, now_ms)) {
            bool steal = stands_still(log, &watch, now_ms);
            int e = lead_one(log, steal);
            if (steal) /* whoever leads by now has as long again: there are 65,535 epochs and no more */
                watch.looked = false;
            if (e == IDEM_OK) {
                watch.looked = false;
                retry_ms = RETRY_FIRST_MS;
                continue; /* perhaps there is more */
            }
            /* Nobody hurries it while it fails, or somebody else leads: queues that are full would, all the time. */
            kicked = IDEM_FAULT("log.hurried") ? 0 : 1;
            store_seq_cst(&log->kick, kicked); /* P12 seq_cst: before stop is looked at */
            if (e < 0) {
                sleep_ms = retry_ms;
                retry_ms = retry_ms * 2 < RETRY_MAX_MS ? retry_ms * 2 : RETRY_MAX_MS;
            } else if (sleep_ms > LED_MS) {
                sleep_ms = LED_MS; /* what that one's batch has not is ours to write soon */
            }
        } else {
            watch.looked = false;
            if (due != 0 && (int64_t)due - now_ms < sleep_ms)
                sleep_ms = (int64_t)due - now_ms;
        }
        if (load_seq_cst(&log->stop) == 0) /* P12 seq_cst: as above */
            idem_futex_wait(&log->kick, kicked, sleep_ms > 0 ? sleep_ms : 1);
    }
    return NULL;
}

int idem_log_flusher_start(struct idem_log *log)
{
    pthread_attr_t attributes;
    sigset_t all, old;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&log->thread, &attributes, flush, log);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    if (r != 0) {
        errno = r;
        return idem_fail_errno("pthread_create: no thread for the log");
    }
    log->flushing = true;
    return IDEM_OK;
}

void idem_log_flusher_stop(struct idem_log *log)
{
    if (!log->flushing)
        return;
    store_seq_cst(&log->stop, 1); /* P12 seq_cst: nothing more is pushed through this handle; before the kick */
    store_seq_cst(&log->kick, 2); /* P12 seq_cst: as above; neither 0 nor 1, so that it sleeps on no more */
    idem_futex_wake_all(&log->kick);
    pthread_join(log->thread, NULL);
    log->flushing = false;
    if (load_relaxed(&log->control[LOG_DUE_MS]) != 0) /* relaxed: a time */
        lead_one(log, false);
}
