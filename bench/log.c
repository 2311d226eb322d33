/*
 * log.c - see log.h.
 *
 * Stores lie in /dev/shm, logs in the given directory. If we die here: both are left, named bench-log-PID.
 */
#include "log.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "idem.h"

#define TURN_NS    INT64_C(250000000)
#define WARM_NS    INT64_C(5000000000) /* more than a key's life: answers expire, regions are used again */
#define BODY_BYTES 128u
#define COUNT_KEYS 2000u

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "bench: log: %s: %s\n", what, idem_error_detail());
    exit(2);
}

static void name_all(const char *disk, char plain[PATH_MAX], char logged[PATH_MAX], char wal[PATH_MAX])
{
    snprintf(plain, PATH_MAX, "/dev/shm/bench-log-%ld-plain", (long)getpid());
    snprintf(logged, PATH_MAX, "/dev/shm/bench-log-%ld", (long)getpid());
    if ((size_t)snprintf(wal, PATH_MAX, "%s/bench-log-%ld", disk, (long)getpid()) > PATH_MAX - 64)
        die(disk);
}

/* What idem_destroy() leaves of a log: whose it was, and where. */
static void remove_log(const char *wal)
{
    static const char *const names[] = {"id", "place"};
    for (unsigned i = 0; i < 2; i++) {
        char path[PATH_MAX + 8];
        snprintf(path, sizeof path, "%s/%s", wal, names[i]);
        unlink(path);
    }
    rmdir(wal);
}

static idem_store *make_store(const char *dir, const char *wal, unsigned claim, unsigned complete, uint64_t keys)
{
    idem_options o = IDEM_OPTIONS_INIT;
    idem_store *s;
    o.flags = IDEM_OPEN_CREATE;
    o.keys = keys;
    o.response_bytes = BODY_BYTES;
    o.ttl_ms = 4000; /* so that the store is in a steady state soon */
    o.lanes = 128;
    if (wal != NULL) {
        o.wal_dir = wal;
        o.durability_claim = claim;
        o.durability_complete = complete;
        o.wal_ring_refs = 65536;
    }
    if (idem_open(dir, &o, &s) != IDEM_OK)
        die("open");
    return s;
}

/* ------------------------------------------------------------------ async */

struct side {
    idem_store *store;
    uint64_t n, keys;
    int64_t cpu_ns;
};

static void turn(struct side *s, uint64_t rate)
{
    static char body[BODY_BYTES];
    int64_t from = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    int64_t now = from;
    uint64_t first = s->n;
    idem_request rq = IDEM_REQUEST_INIT;
    idem_response rs = IDEM_RESPONSE_INIT;
    char key[40];
    rs.body = body;
    rs.body_bytes = sizeof body;
    rq.key.key = key;
    for (uint64_t due = 0; now - from < TURN_NS; now = clock_ns(CLOCK_MONOTONIC)) {
        due = (uint64_t)(now - from) * rate / 1000000000;
        for (; s->n - first < due; s->n++) {
            idem_claim c;
            rq.key.key_bytes = (size_t)snprintf(key, sizeof key, "key-%020llu-of-a-bench", (unsigned long long)s->n);
            if (idem_begin(s->store, &rq, &c, NULL) != IDEM_CLAIMED)
                die("begin");
            if (idem_complete(s->store, &c, &rs) < 0)
                die("complete");
            s->keys++;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    /* What the flusher still has to do for this turn is done in it. */
    if (idem_sync(s->store, 0) != IDEM_OK)
        die("sync");
    s->cpu_ns += clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
}

/* A store's figures depend by some 7 % on which memory it got: so fresh stores each round, made in turns in either order. */
void log_async(const char *disk, uint64_t rate, unsigned rounds, unsigned seconds, struct log_async_cost *out)
{
    char plain[PATH_MAX], logged[PATH_MAX], wal[PATH_MAX];
    name_all(disk, plain, logged, wal);
    memset(out, 0, sizeof *out);
    out->least = 1e9;
    for (unsigned round = 0; round < rounds; round++) {
        struct side a = {.store = NULL}, b = {.store = NULL};
        for (unsigned i = 0; i < 2; i++)
            if ((round + i) % 2 == 0)
                a.store = make_store(plain, NULL, 0, 0, 4000000);
            else
                b.store = make_store(logged, wal, IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_ASYNC, 4000000);
        int64_t end = clock_ns(CLOCK_MONOTONIC) + WARM_NS;
        while (clock_ns(CLOCK_MONOTONIC) < end) {
            turn(&a, rate);
            turn(&b, rate);
        }
        a.keys = b.keys = 0;
        a.cpu_ns = b.cpu_ns = 0;
        end = clock_ns(CLOCK_MONOTONIC) + (int64_t)seconds * 1000000000;
        while (clock_ns(CLOCK_MONOTONIC) < end) {
            turn(&a, rate);
            turn(&b, rate);
        }
        idem_stats_data st = {.size = sizeof st};
        if (idem_stats(b.store, &st) != IDEM_OK)
            die("stats");
        double without = (double)a.cpu_ns / (double)a.keys, with = (double)b.cpu_ns / (double)b.keys;
        out->ns_without += without / rounds;
        out->ns_with += with / rounds;
        if (with / without < out->least)
            out->least = with / without;
        if (with / without > out->most)
            out->most = with / without;
        out->queued += st.log.queued;
        out->walks += st.log.walks;
        idem_close(a.store);
        idem_close(b.store);
        idem_destroy(plain);
        idem_destroy(logged);
        remove_log(wal);
    }
}

/* ------------------------------------------------------------------ bytes */

double log_bytes_a_key(const char *disk, bool claims, unsigned *key_and_response)
{
    static char body[BODY_BYTES];
    char plain[PATH_MAX], dir[PATH_MAX], wal[PATH_MAX], key[40];
    idem_stats_data before = {.size = sizeof before}, after = {.size = sizeof after};
    name_all(disk, plain, dir, wal);
    idem_store *s =
        make_store(dir, wal, claims ? IDEM_DURABILITY_SYNC : IDEM_DURABILITY_NONE, IDEM_DURABILITY_SYNC, 100000);
    if (idem_sync(s, 0) != IDEM_OK || idem_stats(s, &before) != IDEM_OK)
        die("stats");
    idem_request rq = IDEM_REQUEST_INIT;
    idem_response rs = IDEM_RESPONSE_INIT;
    rs.body = body;
    rs.body_bytes = sizeof body;
    rq.key.key = key;
    for (unsigned i = 0; i < COUNT_KEYS; i++) {
        idem_claim c;
        rq.key.key_bytes = (size_t)snprintf(key, sizeof key, "key-%020u-of-a-bench", i);
        if (idem_begin(s, &rq, &c, NULL) != IDEM_CLAIMED || idem_complete(s, &c, &rs) < 0)
            die("begin and complete");
    }
    if (idem_stats(s, &after) != IDEM_OK)
        die("stats");
    idem_close(s);
    idem_destroy(dir);
    remove_log(wal);
    *key_and_response = (unsigned)rq.key.key_bytes + BODY_BYTES;
    return (double)(after.log.durable - before.log.durable) / COUNT_KEYS;
}
