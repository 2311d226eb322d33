/*
 * idem.c - idem itself, behind the same interface as its peers: through the public header and the shared library alone.
 */
#include <stdio.h>
#include <stdlib.h>

#include "idem.h"
#include "peer.h"

enum { PATH_BYTES = 320, LEASE_MS = 600000, ERROR_BYTES = 240, REPLY_BYTES = 512, SYNC_MS = 60000 };

struct table {
    char path[PATH_BYTES];
};

struct worker {
    idem_store *store;
    uint64_t zero;
    idem_request requests[PEER_BATCH_MAX];
    idem_result results[PEER_BATCH_MAX];
    unsigned char buffers[PEER_BATCH_MAX][REPLY_BYTES];
    char error[ERROR_BYTES];
};

static void version(const struct peer *self, char *text, size_t text_bytes)
{
    (void)self;
    snprintf(text, text_bytes, "idem %s", idem_version());
}

static void *prepare(const struct peer *self, const struct peer_place *place, char *why)
{
    struct table *t = calloc(1, sizeof *t);
    idem_options options = IDEM_OPTIONS_INIT;
    idem_store *store = NULL;
    char log[PATH_BYTES];
    if (!t)
        return NULL;
    snprintf(t->path, sizeof t->path, "%s/store", place->dir);
    snprintf(log, sizeof log, "%s/log", place->disk);
    options.flags = IDEM_OPEN_CREATE | IDEM_OPEN_EXCLUSIVE | IDEM_OPEN_NO_FLUSHER;
    options.keys = place->keys;
    options.response_bytes = PEER_ANSWER_BYTES;
    options.lease_ms = LEASE_MS;
    options.huge = place->huge ? IDEM_HUGE_AUTO : IDEM_HUGE_OFF;
    if (self->durable) {
        options.wal_dir = log;
        options.durability_claim = IDEM_DURABILITY_SYNC;
        options.durability_complete = IDEM_DURABILITY_SYNC;
    }
    int got = idem_open(t->path, &options, &store);
    if (got == IDEM_OK) {
        idem_close(store);
        return t;
    }
    snprintf(why, PEER_WHY_BYTES, "idem_open: %s: %s", idem_strerror(got), idem_error_detail());
    free(t);
    return NULL;
}

static void *attach(void *shared, unsigned me, char *why)
{
    const struct table *t = shared;
    struct worker *w = calloc(1, sizeof *w);
    (void)me;
    if (!w)
        return NULL;
    int got = idem_open(t->path, NULL, &w->store);
    if (got != IDEM_OK) {
        snprintf(why, PEER_WHY_BYTES, "idem_open: %s: %s", idem_strerror(got), idem_error_detail());
        free(w);
        return NULL;
    }
    for (unsigned i = 0; i < PEER_BATCH_MAX; i++) {
        w->requests[i] = (idem_request)IDEM_REQUEST_INIT;
        w->requests[i].key.key_bytes = PEER_KEY_BYTES;
        w->requests[i].fingerprint = 1;
        w->results[i] = (idem_result){.size = sizeof(idem_result), .claim = IDEM_CLAIM_INIT, .reply = IDEM_REPLY_INIT};
        w->results[i].reply.buffer = w->buffers[i];
        w->results[i].reply.buffer_bytes = REPLY_BYTES;
    }
    return w;
}

static long failed(struct worker *me, const char *call, int got)
{
    snprintf(me->error, sizeof me->error, "%s said %d: %s: %s", call, got, idem_strerror(got), idem_error_detail());
    return -1;
}

static unsigned char *claim_at(const struct peer_work *w, size_t i)
{
    return w->claims + i * sizeof(idem_claim);
}

/* One key: counts if the verdict is the wanted one. */
static int one(struct worker *me, struct peer_work *w, size_t i, idem_claim *claim)
{
    me->requests[0].key.key = peer_key(w, i);
    me->results[0].reply.buffer = peer_out(w, i);
    me->results[0].reply.buffer_bytes = PEER_ANSWER_BYTES;
    return idem_begin(me->store, &me->requests[0], claim, &me->results[0].reply);
}

/* A batch from `first` on; the number of its keys, or -1. */
static long many(struct worker *me, struct peer_work *w, size_t first)
{
    size_t n = w->n - first < w->batch ? w->n - first : w->batch;
    for (size_t i = 0; i < n; i++) {
        me->requests[i].key.key = peer_key(w, first + i);
        me->results[i].reply.buffer = peer_out(w, first + i);
        me->results[i].reply.buffer_bytes = PEER_ANSWER_BYTES;
    }
    int got = idem_begin_many(me->store, me->requests, n, me->results);
    return got == IDEM_OK ? (long)n : failed(me, "idem_begin_many", got);
}

static long claim(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    long fresh = 0;
    if (w->batch == 1) {
        for (size_t i = 0; i < w->n; i++) {
            idem_claim *claim = (idem_claim *)(void *)claim_at(w, i);
            *claim = (idem_claim)IDEM_CLAIM_INIT;
            int got = one(me, w, i, claim);
            if (got < 0)
                return failed(me, "idem_begin", got);
            fresh += got == IDEM_CLAIMED;
        }
        return fresh;
    }
    for (size_t first = 0; first < w->n; first += w->batch) {
        long n = many(me, w, first);
        for (long i = 0; i < n; i++) {
            fresh += me->results[i].verdict == IDEM_CLAIMED;
            memcpy(claim_at(w, first + (size_t)i), &me->results[i].claim, sizeof(idem_claim));
        }
        if (n < 0)
            return -1;
    }
    return fresh;
}

static long complete(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    idem_response response = IDEM_RESPONSE_INIT;
    response.status = 200;
    response.body_bytes = PEER_ANSWER_BYTES;
    for (size_t i = 0; i < w->n; i++) {
        response.body = w->answers[i];
        int got = idem_complete(me->store, (idem_claim *)(void *)claim_at(w, i), &response);
        if (got != IDEM_OK)
            return failed(me, "idem_complete", got);
    }
    return (long)w->n;
}

/* Async: what is beforehand need not be on the disk when it is stored. */
static long fill(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    idem_response response = IDEM_RESPONSE_INIT;
    struct peer_work part = *w;
    long done = 0;
    response.status = 200;
    response.body_bytes = PEER_ANSWER_BYTES;
    response.durability = IDEM_DURABILITY_ASYNC;
    for (unsigned i = 0; i < PEER_BATCH_MAX; i++)
        me->requests[i].durability = IDEM_DURABILITY_ASYNC;
    part.batch = PEER_BATCH_MAX;
    for (size_t first = 0; first < w->n; first += part.batch) {
        long n = many(me, &part, first);
        for (long i = 0; i < n; i++) {
            response.body = w->answers[first + (size_t)i];
            int got = me->results[i].verdict == IDEM_CLAIMED
                          ? idem_complete(me->store, &me->results[i].claim, &response)
                          : IDEM_E_EXISTS;
            if (got != IDEM_OK)
                return failed(me, "filling", got);
            done++;
        }
        if (n < 0)
            return -1;
    }
    for (unsigned i = 0; i < PEER_BATCH_MAX; i++)
        me->requests[i].durability = IDEM_DURABILITY_DEFAULT;
    int synced = idem_sync(me->store, SYNC_MS);
    if (synced != IDEM_OK)
        return failed(me, "idem_sync", synced);
    return done;
}

static bool is_answer(const idem_reply *reply)
{
    return reply->status == 200 && reply->body_bytes == PEER_ANSWER_BYTES;
}

static long replay(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    idem_claim claim = IDEM_CLAIM_INIT;
    long found = 0;
    if (w->batch == 1) {
        for (size_t i = 0; i < w->n; i++) {
            int got = one(me, w, i, &claim);
            if (got < 0)
                return failed(me, "idem_begin", got);
            if (got != IDEM_REPLAY || !is_answer(&me->results[0].reply))
                continue;
            peer_answered(w, i);
            found++;
        }
        return found;
    }
    for (size_t first = 0; first < w->n; first += w->batch) {
        long n = many(me, w, first);
        for (long i = 0; i < n; i++)
            if (me->results[i].verdict == IDEM_REPLAY && is_answer(&me->results[i].reply)) {
                peer_answered(w, first + (size_t)i);
                found++;
            }
        if (n < 0)
            return -1;
    }
    return found;
}

static const char *error(void *worker)
{
    struct worker *me = worker;
    return me->error;
}

static uint64_t bytes(void *worker)
{
    struct worker *me = worker;
    idem_stats_data stats = {.size = sizeof stats};
    return idem_stats(me->store, &stats) == IDEM_OK ? stats.bytes_total : 0;
}

static void detach(void *worker)
{
    struct worker *me = worker;
    idem_close(me->store);
    free(me);
}

static void end(void *shared)
{
    struct table *t = shared;
    idem_destroy(t->path);
    free(t);
}

#define SAME                                                                                            \
    .reach = PEER_PROCESSES, .claim_bytes = sizeof(idem_claim), .version = version, .prepare = prepare, \
    .attach = attach, .run = {claim, complete, replay}, .error = error, .bytes = bytes, .detach = detach, .end = end

static const struct peer memory = {
    .name = "idem",
    .settings = "the defaults; begin_many for batches",
    .batches = {PEER_BY_1 | PEER_BY_16 | PEER_BY_32, PEER_BY_1, PEER_BY_1 | PEER_BY_16 | PEER_BY_32},
    SAME,
};

static const struct peer sync = {
    .name = "idem/sync",
    .settings = "a log, claims and answers sync; begin_many for batches: one flush for all of a batch",
    .durable = true,
    .timed_keys = 1024,
    .fill = fill,
    .batches = {PEER_BY_1 | PEER_BY_32, PEER_BY_1, PEER_BY_1},
    SAME,
};

const struct peer *const peers_idem[] = {&memory, &sync, NULL};
