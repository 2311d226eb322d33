/*
 * count.c - run one operation N times on a store prepared for it, for bench/callgrind.sh to count instructions.
 *
 * usage: idem_bench_count OPERATION N
 *
 * Everything but the N operations is the same for every N up to COUNT_KEYS, so the difference between two runs, divided by
 * the difference of their N, is one operation, with its share of what operations do on the way, and a loop of a few instructions.
 * The store lives in a private directory that is removed at the end; if we die, it stays (bench/callgrind.sh removes it).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "idem.h"
#include "keys.h"

enum { COUNT_KEYS = 40000, BODY_BYTES = 256, BATCH = 16, DIR_BYTES = 256 };

enum operation { BEGIN, BEGIN_MANY, COMPLETE, REPLAY, REPLAY_MANY, IN_PROGRESS, MISMATCH, OPERATIONS };
static const char *const names[OPERATIONS] = {"begin",       "begin_many",  "complete", "replay",
                                              "replay_many", "in_progress", "mismatch"};

struct bed {
    idem_store *store;
    unsigned char keys[COUNT_KEYS][KEY_BYTES];
    idem_claim claims[COUNT_KEYS];
    unsigned char body[BODY_BYTES];
    unsigned char buffers[BATCH][1024];
};

static int wrong(const char *call, int got)
{
    fprintf(stderr, "idem_bench_count: %s said %d: %s: %s\n", call, got, idem_strerror(got), idem_error_detail());
    return -1;
}

/* begin, replay, in_progress and mismatch are one call; what it must say tells them apart. */
static int ask(struct bed *bed, unsigned n, uint64_t fingerprint, int expected)
{
    idem_request request = IDEM_REQUEST_INIT;
    idem_reply reply = IDEM_REPLY_INIT;
    request.key.key_bytes = KEY_BYTES;
    request.fingerprint = fingerprint;
    reply.buffer = bed->buffers[0];
    reply.buffer_bytes = sizeof bed->buffers[0];
    for (unsigned i = 0; i < n; i++) {
        request.key.key = bed->keys[i];
        int got = idem_begin(bed->store, &request, &bed->claims[i], &reply);
        if (got != expected)
            return wrong("idem_begin", got);
    }
    return 0;
}

static int ask_many(struct bed *bed, unsigned n, int expected)
{
    idem_request requests[BATCH];
    idem_result results[BATCH];
    for (unsigned i = 0; i < BATCH; i++) {
        requests[i] = (idem_request)IDEM_REQUEST_INIT;
        requests[i].key.key_bytes = KEY_BYTES;
        requests[i].fingerprint = 1;
        results[i] = (idem_result){.size = sizeof(idem_result), .claim = IDEM_CLAIM_INIT, .reply = IDEM_REPLY_INIT};
        results[i].reply.buffer = bed->buffers[i];
        results[i].reply.buffer_bytes = sizeof bed->buffers[i];
    }
    for (unsigned first = 0; first < n; first += BATCH) {
        unsigned count = n - first < BATCH ? n - first : BATCH;
        for (unsigned i = 0; i < count; i++)
            requests[i].key.key = bed->keys[first + i];
        int got = idem_begin_many(bed->store, requests, count, results);
        if (got != IDEM_OK)
            return wrong("idem_begin_many", got);
        for (unsigned i = 0; i < count; i++) {
            if (results[i].verdict != expected)
                return wrong("idem_begin_many", results[i].verdict);
            bed->claims[first + i] = results[i].claim;
        }
    }
    return 0;
}

static int complete(struct bed *bed, unsigned n)
{
    idem_response response = IDEM_RESPONSE_INIT;
    response.status = 200;
    response.body = bed->body;
    response.body_bytes = sizeof bed->body;
    for (unsigned i = 0; i < n; i++) {
        int got = idem_complete(bed->store, &bed->claims[i], &response);
        if (got != IDEM_OK)
            return wrong("idem_complete", got);
    }
    return 0;
}

static int run(struct bed *bed, enum operation operation, unsigned n)
{
    if (operation == BEGIN)
        return ask(bed, n, 1, IDEM_CLAIMED);
    if (operation == BEGIN_MANY)
        return ask_many(bed, n, IDEM_CLAIMED);
    if (ask(bed, COUNT_KEYS, 1, IDEM_CLAIMED) != 0)
        return -1;
    if (operation == COMPLETE)
        return complete(bed, n);
    if (operation == IN_PROGRESS)
        return ask(bed, n, 1, IDEM_IN_PROGRESS);
    if (complete(bed, COUNT_KEYS) != 0)
        return -1;
    if (operation == REPLAY_MANY)
        return ask_many(bed, n, IDEM_REPLAY);
    return operation == REPLAY ? ask(bed, n, 1, IDEM_REPLAY) : ask(bed, n, 2, IDEM_MISMATCH);
}

int main(int argc, char **argv)
{
    unsigned operation = 0;
    char dir[DIR_BYTES];
    char *end = NULL;
    int result = -1;
    unsigned long n = argc == 3 ? strtoul(argv[2], &end, 10) : 0;
    while (argc == 3 && operation < OPERATIONS && strcmp(argv[1], names[operation]) != 0)
        operation++;
    if (argc != 3 || operation == OPERATIONS || *end || n == 0 || n > COUNT_KEYS) {
        fprintf(
            stderr,
            "usage: idem_bench_count begin|begin_many|complete|replay|replay_many|in_progress|mismatch N (1 to %d)\n",
            COUNT_KEYS);
        return 2;
    }
    const char *parent = getenv("IDEM_BENCH_DIR");
    snprintf(dir, sizeof dir, "%s/idem-count-XXXXXX", parent ? parent : "/dev/shm");
    struct bed *bed = calloc(1, sizeof *bed);
    if (!bed || !mkdtemp(dir)) {
        perror("idem_bench_count: a private directory and memory");
        free(bed);
        return 2;
    }
    for (unsigned i = 0; i < COUNT_KEYS; i++) {
        key_text(i, bed->keys[i]);
        bed->claims[i] = (idem_claim)IDEM_CLAIM_INIT;
    }
    char path[DIR_BYTES + 8];
    snprintf(path, sizeof path, "%s/store", dir);
    idem_options options = IDEM_OPTIONS_INIT;
    options.flags = IDEM_OPEN_CREATE;
    options.keys = UINT64_C(2) * COUNT_KEYS;
    options.response_bytes = BODY_BYTES;
    options.lease_ms = 600000;
    int got = idem_open(path, &options, &bed->store);
    if (got == IDEM_OK) {
        result = run(bed, (enum operation)operation, (unsigned)n);
        idem_close(bed->store);
        idem_destroy(path);
    } else {
        wrong("idem_open", got);
    }
    rmdir(dir);
    free(bed);
    return result == 0 ? 0 : 1;
}
