/*
 * ops.c - see ops.h.
 *
 * Asking (in_progress, replay) is chained: the next key's address depends on bytes of the last answer, as with a caller that
 * looks at an answer before it asks again; the floors of these two are chained in the same way (floor.h).
 */
#include "ops.h"

#include <stdio.h>
#include <string.h>

const char *ops_name(enum bench_op op)
{
    static const char *const names[OP_COUNT] = {"begin",       "begin_many/16", "begin_many/64", "complete",
                                                "in_progress", "replay",        "replay_many/16"};
    return names[op];
}

unsigned ops_batch(enum bench_op op)
{
    return op == OP_MANY64 ? 64 : op == OP_MANY16 || op == OP_REPLAY16 ? 16 : 1;
}

void ops_prepare(struct ops *o)
{
    memset(o->body, 'b', sizeof o->body);
    for (unsigned i = 0; i < OPS_BATCH_MAX; i++) {
        o->requests[i] = (idem_request)IDEM_REQUEST_INIT;
        o->requests[i].key.key_bytes = KEY_BYTES;
        o->requests[i].fingerprint = UINT64_C(0x1D3A);
        o->results[i] = (idem_result){.size = sizeof(idem_result), .claim = IDEM_CLAIM_INIT, .reply = IDEM_REPLY_INIT};
        o->results[i].reply.buffer = o->reply_bytes[i];
        o->results[i].reply.buffer_bytes = OPS_REPLY_BYTES;
    }
    for (unsigned i = 0; i < OPS_BLOCK; i++)
        o->claims[i] = (idem_claim)IDEM_CLAIM_INIT;
}

int ops_wrong(struct ops *o, const char *call, int got)
{
    snprintf(o->error, sizeof o->error, "%s said %d (%s)%s%s", call, got, idem_strerror(got), got < 0 ? ": " : "",
             got < 0 ? idem_error_detail() : "");
    return -1;
}

/* Chains an answer to the next key's address: always 0, but only known when the answer is there. */
static inline size_t chained(const struct ops *o, uint64_t value)
{
    return (size_t)(value & o->zero);
}

static int block_begin(struct ops *o, size_t n, struct hist *latency)
{
    idem_request *request = &o->requests[0];
    idem_reply reply = IDEM_REPLY_INIT;
    reply.buffer = o->reply_bytes[0];
    reply.buffer_bytes = OPS_REPLY_BYTES;
    uint64_t before = latency ? harness_now_ns() : 0;
    for (size_t i = 0; i < n; i++) {
        request->key.key = o->keys + i * KEY_BYTES;
        int got = idem_begin(o->store, request, &o->claims[i], &reply);
        if (got != IDEM_CLAIMED)
            return ops_wrong(o, "idem_begin of a new key", got);
        if (latency) {
            uint64_t now = harness_now_ns();
            hist_add(latency, now - before);
            before = now;
        }
    }
    return 0;
}

static int block_begin_many(struct ops *o, size_t n, size_t batch, struct hist *latency)
{
    uint64_t before = latency ? harness_now_ns() : 0;
    for (size_t first = 0; first < n; first += batch) {
        size_t count = n - first < batch ? n - first : batch;
        for (size_t i = 0; i < count; i++)
            o->requests[i].key.key = o->keys + (first + i) * KEY_BYTES;
        int got = idem_begin_many(o->store, o->requests, count, o->results);
        if (got != IDEM_OK)
            return ops_wrong(o, "idem_begin_many", got);
        for (size_t i = 0; i < count; i++) {
            if (o->results[i].verdict != IDEM_CLAIMED)
                return ops_wrong(o, "idem_begin_many of a new key", o->results[i].verdict);
            o->claims[first + i] = o->results[i].claim;
        }
        if (latency) {
            uint64_t now = harness_now_ns();
            hist_add(latency, now - before);
            before = now;
        }
    }
    return 0;
}

static int block_complete(struct ops *o, size_t n, struct hist *latency)
{
    idem_response response = IDEM_RESPONSE_INIT;
    response.status = 200;
    response.body = o->body;
    response.body_bytes = sizeof o->body;
    uint64_t before = latency ? harness_now_ns() : 0;
    for (size_t i = 0; i < n; i++) {
        int got = idem_complete(o->store, &o->claims[i], &response);
        if (got != IDEM_OK)
            return ops_wrong(o, "idem_complete", got);
        if (latency) {
            uint64_t now = harness_now_ns();
            hist_add(latency, now - before);
            before = now;
        }
    }
    return 0;
}

/* in_progress and replay: ask for a key that is there. */
static int block_ask(struct ops *o, size_t n, int expected, struct hist *latency)
{
    idem_request *request = &o->requests[0];
    idem_claim claim = IDEM_CLAIM_INIT;
    idem_reply reply = IDEM_REPLY_INIT;
    reply.buffer = o->reply_bytes[0];
    reply.buffer_bytes = OPS_REPLY_BYTES;
    uint64_t chain = 0;
    uint64_t before = latency ? harness_now_ns() : 0;
    for (size_t i = 0; i < n; i++) {
        request->key.key = o->keys + i * KEY_BYTES + chained(o, chain);
        int got = idem_begin(o->store, request, &claim, &reply);
        if (got != expected)
            return ops_wrong(
                o, expected == IDEM_REPLAY ? "idem_begin of a completed key" : "idem_begin of a running key", got);
        uint64_t last = reply.token;
        if (expected == IDEM_REPLAY)
            memcpy(&last, (const unsigned char *)reply.body + sizeof o->body - sizeof last, sizeof last);
        chain += last;
        if (latency) {
            uint64_t now = harness_now_ns();
            hist_add(latency, now - before);
            before = now;
        }
    }
    if (expected == IDEM_REPLAY && n > 0) {
        if (reply.status != 200 || reply.body_bytes != sizeof o->body ||
            memcmp(reply.body, o->body, sizeof o->body) != 0) {
            snprintf(o->error, sizeof o->error, "a replay is not the answer that was stored");
            return -1;
        }
    }
    idem_reply_free(&reply);
    return 0;
}

/* begin_many on keys that are completed; chained from batch to batch. */
static int block_replay_many(struct ops *o, size_t n, size_t batch, struct hist *latency)
{
    uint64_t chain = 0;
    uint64_t before = latency ? harness_now_ns() : 0;
    for (size_t first = 0; first < n; first += batch) {
        size_t count = n - first < batch ? n - first : batch;
        for (size_t i = 0; i < count; i++)
            o->requests[i].key.key = o->keys + (first + i) * KEY_BYTES + chained(o, chain);
        int got = idem_begin_many(o->store, o->requests, count, o->results);
        if (got != IDEM_OK)
            return ops_wrong(o, "idem_begin_many", got);
        for (size_t i = 0; i < count; i++) {
            const idem_reply *reply = &o->results[i].reply;
            uint64_t last;
            if (o->results[i].verdict != IDEM_REPLAY || reply->body_bytes != sizeof o->body)
                return ops_wrong(o, "idem_begin_many of a completed key", o->results[i].verdict);
            memcpy(&last, (const unsigned char *)reply->body + sizeof o->body - sizeof last, sizeof last);
            chain += last;
        }
        if (latency) {
            uint64_t now = harness_now_ns();
            hist_add(latency, now - before);
            before = now;
        }
    }
    if (n > 0 && memcmp(o->results[0].reply.body, o->body, sizeof o->body) != 0) {
        snprintf(o->error, sizeof o->error, "a replay is not the answer that was stored");
        return -1;
    }
    return 0;
}

int ops_run(struct ops *o, enum bench_op op, size_t n, struct hist *latency)
{
    switch (op) {
    case OP_BEGIN:
        return block_begin(o, n, latency);
    case OP_MANY16:
        return block_begin_many(o, n, 16, latency);
    case OP_MANY64:
        return block_begin_many(o, n, 64, latency);
    case OP_COMPLETE:
        return block_complete(o, n, latency);
    case OP_IN_PROGRESS:
        return block_ask(o, n, IDEM_IN_PROGRESS, latency);
    case OP_REPLAY16:
        return block_replay_many(o, n, 16, latency);
    default:
        return block_ask(o, n, IDEM_REPLAY, latency);
    }
}
