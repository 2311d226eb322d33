/*
 * redis.c - Redis over a Unix socket: SET key NX PX to claim, SET to complete, GET to replay.
 *
 * One at a time, and in pipelines: one write of so many commands, then their answers (for replays MGET, which is one
 * command). "redis" keeps nothing on the disk; "redis/always" syncs its append-only file before it answers.
 * A running claim holds one byte, an answer its 256: by that replaying tells them apart.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"
#include "server.h"

#define TTL_MS "86400000"

/* What its allocator handed out: keys, values, both tables, times of expiry. 0: it does not say. */
static uint64_t used_memory(struct wire *w)
{
    static const char ask[] = "*2\r\n$4\r\nINFO\r\n$6\r\nmemory\r\n";
    if (wire_put(w, ask, sizeof ask - 1) != 0 || wire_send(w) != 0)
        return 0;
    const char *head = wire_line(w);
    if (head == NULL || *head != '$')
        return 0;
    size_t n = strtoul(head + 1, NULL, 10);
    const char *body = wire_take(w, n + 2);
    static const char field[] = "used_memory:";
    for (size_t i = 0; body != NULL && i + sizeof field < n; i++)
        if (memcmp(body + i, field, sizeof field - 1) == 0)
            return strtoull(body + i + sizeof field - 1, NULL, 10);
    return 0;
}

static void version(const struct peer *self, char *text, size_t text_bytes)
{
    (void)self;
    server_says("redis-server --version", "v=", text, text_bytes);
}

static void *prepare(const struct peer *self, const struct peer_place *place, char *why)
{
    struct server_peer *s = calloc(1, sizeof *s);
    struct wire wire;
    char log[256];
    if (s == NULL) {
        snprintf(why, PEER_WHY_BYTES, "no memory");
        return NULL;
    }
    snprintf(log, sizeof log, "%.200s/redis.log", place->dir);
    const char *const argv[] = {"redis-server",
                                "--port",
                                "0",
                                "--unixsocket",
                                s->server.socket,
                                "--daemonize",
                                "no",
                                "--databases",
                                "1",
                                "--save",
                                "",
                                "--appendonly",
                                self->durable ? "yes" : "no",
                                "--appendfsync",
                                self->durable ? "always" : "no",
                                "--auto-aof-rewrite-percentage",
                                "0",
                                "--dir",
                                self->durable ? place->disk : place->dir,
                                "--loglevel",
                                "warning",
                                NULL};
    if (server_socket(&s->server, place->dir, "redis.sock", why) != 0 ||
        server_start(&s->server, argv, log, why) != 0) {
        server_stop(s);
        return NULL;
    }
    if (wire_open(&wire, s->server.socket) == 0) {
        s->empty_bytes = used_memory(&wire);
        wire_close(&wire);
    }
    return s;
}

static uint64_t bytes(void *worker)
{
    struct server_worker *w = worker;
    return server_used(w, used_memory(&w->wire));
}

/* ------------------------------------------------------------------ the jobs */

static long claim(void *worker, struct peer_work *p)
{
    struct wire *w = &((struct server_worker *)worker)->wire;
    static const char head[] = "*6\r\n$3\r\nSET\r\n$36\r\n",
                      tail[] = "\r\n$1\r\n1\r\n$2\r\nNX\r\n$2\r\nPX\r\n$8\r\n" TTL_MS "\r\n";
    long fresh = 0;
    for (size_t i = 0; i < p->n;) {
        size_t first = i, end_at = p->n - i < p->batch ? p->n : i + p->batch;
        for (; i < end_at; i++) {
            char *at = wire_more(w, sizeof head - 1 + PEER_KEY_BYTES + sizeof tail - 1);
            if (at == NULL)
                return -1;
            memcpy(at, head, sizeof head - 1);
            memcpy(at + sizeof head - 1, p->keys + i * PEER_KEY_BYTES, PEER_KEY_BYTES);
            memcpy(at + sizeof head - 1 + PEER_KEY_BYTES, tail, sizeof tail - 1);
        }
        if (wire_send(w) != 0)
            return -1;
        for (size_t k = first; k < end_at; k++) {
            const char *said = wire_line(w);
            if (said != NULL && strcmp(said, "+OK") == 0)
                fresh++;
            else if (said == NULL || strcmp(said, "$-1") != 0)
                return wire_unexpected(w, "SET NX", said);
        }
    }
    return fresh;
}

static long complete(void *worker, struct peer_work *p)
{
    struct wire *w = &((struct server_worker *)worker)->wire;
    static const char head[] = "*5\r\n$3\r\nSET\r\n$36\r\n", middle[] = "\r\n$256\r\n",
                      tail[] = "\r\n$2\r\nPX\r\n$8\r\n" TTL_MS "\r\n";
    long stored = 0;
    for (size_t i = 0; i < p->n;) {
        size_t first = i, end_at = p->n - i < p->batch ? p->n : i + p->batch;
        for (; i < end_at; i++)
            if (wire_put(w, head, sizeof head - 1) != 0 ||
                wire_put(w, p->keys + i * PEER_KEY_BYTES, PEER_KEY_BYTES) != 0 ||
                wire_put(w, middle, sizeof middle - 1) != 0 || wire_put(w, p->answers[i], PEER_ANSWER_BYTES) != 0 ||
                wire_put(w, tail, sizeof tail - 1) != 0)
                return -1;
        if (wire_send(w) != 0)
            return -1;
        for (size_t k = first; k < end_at; k++) {
            const char *said = wire_line(w);
            if (said == NULL || strcmp(said, "+OK") != 0)
                return wire_unexpected(w, "SET", said);
            stored++;
        }
    }
    return stored;
}

/* One value of an answer, copied out if it is a whole one. 1: it was, 0: it was not, -1. */
static int value(struct wire *w, struct peer_work *p, size_t i)
{
    const char *said = wire_line(w);
    if (said == NULL || *said != '$')
        return wire_unexpected(w, "GET", said);
    long n = strtol(said + 1, NULL, 10);
    if (n < 0)
        return 0;
    const char *from = wire_take(w, (size_t)n + 2);
    if (from == NULL)
        return -1;
    if (n != PEER_ANSWER_BYTES)
        return 0;
    memcpy(peer_out(p, i), from, PEER_ANSWER_BYTES);
    peer_answered(p, i);
    return 1;
}

static long replay(void *worker, struct peer_work *p)
{
    struct wire *w = &((struct server_worker *)worker)->wire;
    long found = 0;
    for (size_t i = 0; i < p->n;) {
        size_t end_at = p->n - i < p->batch ? p->n : i + p->batch;
        char head[48];
        int head_bytes = end_at - i == 1 ? snprintf(head, sizeof head, "*2\r\n$3\r\nGET\r\n")
                                         : snprintf(head, sizeof head, "*%zu\r\n$4\r\nMGET\r\n", end_at - i + 1);
        if (wire_put(w, head, (size_t)head_bytes) != 0)
            return -1;
        for (size_t k = i; k < end_at; k++)
            if (wire_put(w, "$36\r\n", 5) != 0 || wire_put(w, peer_key(p, k), PEER_KEY_BYTES) != 0 ||
                wire_put(w, "\r\n", 2) != 0)
                return -1;
        if (wire_send(w) != 0)
            return -1;
        if (end_at - i > 1) {
            const char *said = wire_line(w);
            if (said == NULL || *said != '*')
                return wire_unexpected(w, "MGET", said);
        }
        for (; i < end_at; i++) {
            int got = value(w, p, i);
            if (got < 0)
                return -1;
            found += got;
        }
    }
    return found;
}

#define ALL_BATCHES (PEER_BY_1 | PEER_BY_16 | PEER_BY_32)
#define OPERATIONS                                                                                                    \
    .reach = PEER_SERVER, .batches = {ALL_BATCHES, ALL_BATCHES, ALL_BATCHES}, .version = version, .prepare = prepare, \
    .attach = server_attach, .run = {claim, complete, replay}, .error = server_error, .bytes = bytes,                 \
    .detach = server_detach, .end = server_stop

static const struct peer plain = {
    .name = "redis",
    .settings =
        "SET NX PX, SET PX, GET (MGET in batches), raw RESP2 over a Unix socket; no persistence; one I/O thread (more "
        "are advised from four cores on), no huge pages (advised against)",
    .keys_max = 100000,
    .timed_keys = 60000,
    OPERATIONS,
};
static const struct peer always = {
    .name = "redis/always",
    .settings = "as redis; appendonly yes, appendfsync always, no rewriting of the file meanwhile",
    .durable = true,
    .keys_max = 100000,
    .timed_keys = 4000,
    OPERATIONS,
};

const struct peer *const peers_redis[] = {&plain, &always, NULL};
