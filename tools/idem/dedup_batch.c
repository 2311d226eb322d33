/*
 * dedup_batch.c - claims the lines of a batch, writes them, completes them: the heart of `idem dedup`.
 *
 * Invariants
 *  1. A line's key is completed only after write() has taken the line's last byte. So a filter that is killed at any
 *     instruction re-emits lines, and never swallows one.
 *  2. A filter that waits holds no claim: the lines before the one it waits for are written and completed first, the
 *     claims behind it are given back. So no two filters can wait for each other, whatever order their lines have.
 *  3. Lines leave in the order they came in: what is written is always a prefix of what is left of the batch.
 *  4. A held claim's lease is renewed while its line is stuck in write(): a timer interrupts that call.
 *  5. In a store whose completions are sync no batch is begun before the lines of the one before are on the disk as written: one
 *     wait for all of them, or a line would cost what the disk takes for a sync.
 *  6. No claim outlives dedup_run_batch(), whatever its outcome: written lines are completed, others are given back.
 *
 * If we die here
 *  - after claiming, before writing: the claims are lost at once, the next filter with these keys is told RECLAIMED
 *    and writes the lines;
 *  - after writing, before completing: the same, so the line is there twice. At most one batch is;
 *  - the machine, before a batch is on the disk: the same;
 *  - in the middle of a line: that reader has a torn line, and the next filter writes it whole.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "dedup.h"

#define WAIT_SLICE_MS      250  /* how late a signal may be noticed while waiting for another filter */
#define WAIT_NOTE_MS       5000 /* after this a person is told what the filter waits for */
#define MAINTAIN_BUDGET_US 100000
#define TICK_MIN_MS        5
#define TICK_MAX_MS        250
#define COMPLAINTS_MAX     10

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void dedup_complain(struct dedup *d, uint64_t line, const char *why)
{
    d->counts.bad++;
    if (d->counts.bad <= COMPLAINTS_MAX)
        cli_warn("dedup: line %" PRIu64 " %s%s", line, why,
                 d->counts.bad == COMPLAINTS_MAX ? " (further lines are not mentioned one by one)" : "");
}

/* ------------------------------------------------------------------ claiming */

/* A key in progress under a token that this batch holds: the line came before, in this very batch. */
static bool is_own(const struct dedup *d, size_t i, uint64_t token)
{
    for (size_t k = 0; k < i; k++) {
        const struct dedup_item *item = &d->items[k];
        if (item->state == DEDUP_OURS && item->claim.token == token &&
            item->key.key_bytes == d->items[i].key.key_bytes &&
            memcmp(item->key.key, d->items[i].key.key, item->key.key_bytes) == 0)
            return true;
    }
    return false;
}

static void note_verdict(struct dedup *d, size_t i, int verdict, const idem_claim *claim, const idem_reply *reply)
{
    struct dedup_item *item = &d->items[i];
    item->verdict = verdict;
    switch (verdict) {
    case IDEM_CLAIMED:
    case IDEM_RECLAIMED:
        item->state = DEDUP_OURS;
        item->claim = *claim;
        break;
    case IDEM_REPLAY:
        /* A transient answer says that whoever had the key did not keep it: the line is not written yet. */
        item->state = (reply->flags & IDEM_REPLY_TRANSIENT) != 0 ? DEDUP_UNASKED : DEDUP_DUP;
        break;
    case IDEM_IN_PROGRESS:
    case IDEM_E_TIMEOUT:
        item->state = is_own(d, i, reply->token) ? DEDUP_DUP : DEDUP_BUSY;
        break;
    default:
        item->state = DEDUP_REFUSED;
        break;
    }
}

static idem_request request_for(const struct dedup *d, const struct dedup_item *item)
{
    idem_request request = IDEM_REQUEST_INIT;
    request.key = item->key;
    request.ttl_ms = d->ttl_ms;
    request.lease_ms = d->lease_ms;
    return request;
}

static void claim_from(struct dedup *d, size_t from)
{
    size_t asked[DEDUP_BATCH];
    size_t n = 0;
    for (size_t i = from; i < d->n; i++) {
        if (d->items[i].state != DEDUP_UNASKED)
            continue;
        static const idem_result empty = {sizeof(idem_result), 0, 0, IDEM_CLAIM_INIT, IDEM_REPLY_INIT};
        asked[n] = i;
        d->requests[n] = request_for(d, &d->items[i]);
        d->results[n] = empty;
        n++;
    }
    if (n == 0)
        return;
    int rc = idem_begin_many(d->store, d->requests, n, d->results);
    for (size_t k = 0; k < n; k++) {
        note_verdict(d, asked[k], rc < 0 ? rc : d->results[k].verdict, &d->results[k].claim, &d->results[k].reply);
        idem_reply_free(&d->results[k].reply);
    }
}

/* Everything from `from` on is as if it had never been asked for. What cannot be given back ends with its lease. */
static void give_back_from(struct dedup *d, size_t from)
{
    for (size_t i = from; i < d->n; i++) {
        struct dedup_item *item = &d->items[i];
        if (item->state == DEDUP_RAW || item->state == DEDUP_SKIPPED)
            continue;
        if (item->state == DEDUP_OURS)
            (void)idem_abandon(d->store, &item->claim, IDEM_NOTHING_HAPPENED);
        item->state = DEDUP_UNASKED;
    }
}

/* ------------------------------------------------------------------ writing */

struct writing {
    size_t at;     /* the item whose bytes come next */
    size_t to;     /* the first item not to be written now */
    size_t offset; /* bytes of item `at` that are written */
    int64_t renewed_ms;
    int64_t renew_every_ms;
};

static void set_tick(int64_t ms)
{
    struct itimerval timer = {0};
    timer.it_interval.tv_sec = timer.it_value.tv_sec = (time_t)(ms / 1000);
    timer.it_interval.tv_usec = timer.it_value.tv_usec = (suseconds_t)(ms % 1000 * 1000);
    (void)setitimer(ITIMER_REAL, &timer, NULL);
}

/* Records that the line is out. DEDUP_FAILED: the store is in trouble, and the line will be written again some day. */
static enum dedup_outcome complete_item(struct dedup *d, struct dedup_item *item, int *status)
{
    if (!item->more)
        d->counts.written++;
    bool raw = item->state == DEDUP_RAW;
    item->state = DEDUP_WRITTEN;
    if (raw)
        return DEDUP_GO_ON;
    if (item->verdict == IDEM_RECLAIMED)
        d->counts.rewritten++;
    idem_response response = IDEM_RESPONSE_INIT;
    response.ttl_ms = d->ttl_ms;
    if (d->together) {
        response.durability = IDEM_DURABILITY_ASYNC;
        d->unsynced = true;
    }
    int rc = idem_complete(d->store, &item->claim, &response);
    if (rc >= 0)
        return DEDUP_GO_ON;
    if (rc == IDEM_E_LOST) {
        d->counts.fenced++;
        return DEDUP_GO_ON;
    }
    char what[96];
    snprintf(what, sizeof(what), "dedup: line %" PRIu64 " was written, but that could not be recorded",
             item->line.number);
    *status = cli_fail(what, rc);
    return DEDUP_FAILED;
}

/* A claim that was taken from us (an operator's release, say) before its line began to leave: ask for it again. */
static void renew_held(struct dedup *d, struct writing *w)
{
    int64_t now = now_ms();
    if (now - w->renewed_ms < w->renew_every_ms)
        return;
    w->renewed_ms = now;
    for (size_t i = w->at; i < w->to; i++) {
        if (d->items[i].state != DEDUP_OURS || idem_renew(d->store, &d->items[i].claim, 0) != IDEM_E_LOST)
            continue;
        if (i == w->at && w->offset > 0)
            continue;
        give_back_from(d, i);
        w->to = i;
    }
}

/* Goes on behind the n bytes that were written, and completes the lines that are out. */
static enum dedup_outcome advance(struct dedup *d, struct writing *w, size_t n, int *status)
{
    for (; w->at < w->to; w->at++) {
        struct dedup_item *item = &d->items[w->at];
        if (item->state != DEDUP_OURS && item->state != DEDUP_RAW)
            continue;
        size_t left = item->line.n - w->offset;
        if (n < left) {
            w->offset += n;
            return DEDUP_GO_ON;
        }
        n -= left;
        w->offset = 0;
        if (complete_item(d, item, status) != DEDUP_GO_ON) {
            w->at++;
            return DEDUP_FAILED;
        }
    }
    return DEDUP_GO_ON;
}

static size_t gather(struct dedup *d, const struct writing *w, struct iovec *pieces)
{
    size_t count = 0;
    size_t offset = w->offset;
    for (size_t i = w->at; i < w->to; i++) {
        const struct dedup_item *item = &d->items[i];
        if (item->state != DEDUP_OURS && item->state != DEDUP_RAW)
            continue;
        /* writev() does not write through a const pointer, but its struct has none. */
        pieces[count].iov_base = (void *)(uintptr_t)(item->line.bytes + offset);
        pieces[count].iov_len = item->line.n - offset;
        offset = 0;
        count++;
    }
    return count;
}

static enum dedup_outcome write_pieces(struct dedup *d, struct writing *w, int64_t tick_ms, int *status)
{
    struct iovec pieces[DEDUP_BATCH];
    for (;;) {
        size_t count = gather(d, w, pieces);
        if (count == 0)
            return DEDUP_GO_ON;
        ssize_t n = writev(STDOUT_FILENO, pieces, (int)count);
        if (n >= 0) {
            enum dedup_outcome outcome = advance(d, w, (size_t)n, status);
            if (outcome != DEDUP_GO_ON)
                return outcome;
        } else if (errno == EAGAIN) {
            struct pollfd writable = {.fd = STDOUT_FILENO, .events = POLLOUT};
            (void)poll(&writable, 1, (int)tick_ms);
        } else if (errno == EPIPE) {
            return DEDUP_PIPE_BROKE;
        } else if (errno != EINTR) {
            cli_warn("dedup: line %" PRIu64 " could not be written: %s", d->items[w->at].line.number, strerror(errno));
            *status = CLI_EXIT_TROUBLE;
            return DEDUP_FAILED;
        }
        if (dedup_signal != 0)
            return DEDUP_INTERRUPTED;
        renew_held(d, w);
    }
}

/* One wait for the disk for all lines of a batch. */
static enum dedup_outcome sync_completions(struct dedup *d, int *status)
{
    if (!d->unsynced)
        return DEDUP_GO_ON;
    d->unsynced = false;
    int rc = idem_sync(d->store, 0);
    if (rc >= 0)
        return DEDUP_GO_ON;
    *status = cli_fail("dedup: the last lines were written, but that is not on the disk", rc);
    return DEDUP_FAILED;
}

/* Writes and completes items [from, *to); less if a claim was taken from us, *to says how far. */
static enum dedup_outcome write_out(struct dedup *d, size_t from, size_t *to, int *status)
{
    struct writing w = {.at = from, .to = *to, .offset = 0, .renewed_ms = now_ms(), .renew_every_ms = INT64_MAX};
    for (size_t i = from; i < *to; i++) {
        if (d->items[i].state == DEDUP_OURS && d->items[i].claim.lease_ms / 3 < w.renew_every_ms)
            w.renew_every_ms = d->items[i].claim.lease_ms / 3;
    }
    int64_t tick_ms = w.renew_every_ms / 2;
    tick_ms = tick_ms < TICK_MIN_MS ? TICK_MIN_MS : tick_ms > TICK_MAX_MS ? TICK_MAX_MS : tick_ms;

    set_tick(tick_ms);
    enum dedup_outcome outcome = write_pieces(d, &w, tick_ms, status);
    set_tick(0);
    if (outcome == DEDUP_GO_ON) /* else the handle is closed, which waits for the disk, too */
        outcome = sync_completions(d, status);

    *to = w.to;
    if (outcome != DEDUP_GO_ON) {
        *to = w.at;
        if (w.offset > 0 && d->items[w.at].state == DEDUP_OURS) {
            /* Half of it is out: nobody may say that nothing happened. */
            (void)idem_abandon(d->store, &d->items[w.at].claim, IDEM_OUTCOME_UNKNOWN);
            d->items[w.at].state = DEDUP_UNASKED;
        }
        give_back_from(d, w.at);
    }
    return outcome;
}

static void report_duplicates(struct dedup *d, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        const struct dedup_line *line = &d->items[i].line;
        if (d->items[i].state != DEDUP_DUP)
            continue;
        d->counts.duplicates++;
        if (d->on_dup != DEDUP_DUP_PRINT)
            continue;
        /* Nothing can be done about a stderr that is gone. */
        (void)cli_write_all(STDERR_FILENO, line->bytes, line->n);
        if (line->n == line->text_bytes)
            (void)cli_write_all(STDERR_FILENO, "\n", 1);
    }
}

/* ------------------------------------------------------------------ the line that stops the batch */

static void ask_again(struct dedup *d, size_t i, int64_t timeout_ms)
{
    idem_request request = request_for(d, &d->items[i]);
    idem_claim claim = IDEM_CLAIM_INIT;
    idem_reply reply = IDEM_REPLY_INIT;
    int verdict = idem_wait(d->store, &request, timeout_ms, &claim, &reply);
    note_verdict(d, i, verdict, &claim, &reply);
    idem_reply_free(&reply);
}

static void tell_what_is_waited_for(struct dedup *d, const struct dedup_item *item)
{
    char *key = cli_quote_key(&item->key);
    idem_story story = IDEM_STORY_INIT;
    if (idem_explain(d->store, &item->key, &story) == IDEM_OK && story.owner_pid > 0)
        cli_warn("dedup: line %" PRIu64 " waits: process %" PRId64 " has its key in progress: %s", item->line.number,
                 story.owner_pid, key);
    else
        cli_warn("dedup: line %" PRIu64 " waits: its key is in progress elsewhere: %s", item->line.number, key);
    idem_story_free(&story);
    free(key);
}

/* Holds no claim while it waits (invariant 2). The owner writes, dies or loses its lease; that ends this loop. */
static enum dedup_outcome wait_for(struct dedup *d, size_t i)
{
    int64_t since_ms = now_ms();
    bool told = false;
    do {
        if (dedup_signal != 0)
            return DEDUP_INTERRUPTED;
        if (!told && now_ms() - since_ms >= WAIT_NOTE_MS) {
            tell_what_is_waited_for(d, &d->items[i]);
            told = true;
        }
        ask_again(d, i, WAIT_SLICE_MS);
    } while (d->items[i].state == DEDUP_BUSY);
    return DEDUP_GO_ON;
}

static enum dedup_outcome refuse_item(struct dedup *d, struct dedup_item *item, const char *why, int refusal,
                                      int *status)
{
    dedup_complain(d, item->line.number, why);
    if (d->on_error == DEDUP_STOP) {
        *status = refusal;
        return DEDUP_FAILED;
    }
    item->state = d->on_error == DEDUP_PASS ? DEDUP_RAW : DEDUP_SKIPPED;
    return DEDUP_GO_ON;
}

/* Decides about the first line that is neither ours nor a duplicate; everything before it is written. */
static enum dedup_outcome settle(struct dedup *d, size_t i, int *status)
{
    struct dedup_item *item = &d->items[i];
    if (item->state == DEDUP_BUSY)
        return wait_for(d, i);
    if (item->state != DEDUP_REFUSED)
        return DEDUP_GO_ON;
    if (item->verdict < 0) {
        /* Expired records may be in the way: sweep, and ask once more, for the detail of the error too. */
        if (item->verdict == IDEM_E_FULL)
            (void)idem_maintain(d->store, MAINTAIN_BUDGET_US);
        ask_again(d, i, 0);
        if (item->state != DEDUP_REFUSED)
            return DEDUP_GO_ON;
    }
    if (item->verdict == IDEM_MISMATCH)
        return refuse_item(d, item,
                           "has a key that was used with a fingerprint, so not by dedup (another --scope helps)",
                           CLI_EXIT_MISMATCH, status);
    if (item->verdict == IDEM_UNKNOWN)
        return refuse_item(d, item,
                           "has a key that is held since an attempt was lost: see \"idem why\", \"idem resolve\"",
                           CLI_EXIT_HELD, status);
    char what[64];
    snprintf(what, sizeof(what), "dedup: line %" PRIu64, item->line.number);
    *status = cli_fail(what, item->verdict);
    return DEDUP_FAILED;
}

enum dedup_outcome dedup_run_batch(struct dedup *d, int *status)
{
    enum dedup_outcome outcome = DEDUP_GO_ON;
    size_t from = 0;
    while (outcome == DEDUP_GO_ON && from < d->n) {
        claim_from(d, from);
        size_t stop = from;
        while (stop < d->n && (d->items[stop].state == DEDUP_OURS || d->items[stop].state == DEDUP_DUP ||
                               d->items[stop].state == DEDUP_RAW || d->items[stop].state == DEDUP_SKIPPED))
            stop++;
        give_back_from(d, stop + 1);

        size_t to = stop;
        outcome = write_out(d, from, &to, status);
        report_duplicates(d, from, to);
        from = to;
        if (outcome == DEDUP_GO_ON && to == stop && stop < d->n)
            outcome = settle(d, stop, status);
    }
    if (outcome != DEDUP_GO_ON)
        give_back_from(d, from);
    d->n = 0;
    return outcome;
}
