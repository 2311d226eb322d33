/*
 * memcached.c - memcached over a Unix socket: add to claim, set to complete, get to replay; the text protocol.
 *
 * One at a time, and in pipelines: one write of so many commands, then their answers (for replays a get of many keys, which
 * is one command). A running claim holds one byte, an answer its 256: by that replaying tells them apart.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer.h"
#include "server.h"

#define TTL_S     "86400"
#define ROOM_EACH 512u /* bytes of memory a key, of which it takes three quarters */

/* The figure of that name in what "stats GROUP" says. */
static uint64_t figure(struct wire *w, const char *ask, const char *name)
{
    uint64_t found = 0;
    size_t n = strlen(name);
    if (wire_put(w, ask, strlen(ask)) != 0 || wire_send(w) != 0)
        return 0;
    for (const char *line; (line = wire_line(w)) != NULL && strcmp(line, "END") != 0;)
        if (strncmp(line, "STAT ", 5) == 0 && strncmp(line + 5, name, n) == 0 && line[5 + n] == ' ')
            found = strtoull(line + 5 + n + 1, NULL, 10);
    return found;
}

/* Pages given to slabs, and the hash table. */
static uint64_t allocated(struct wire *w)
{
    uint64_t slabs = figure(w, "stats slabs\r\n", "total_malloced");
    return slabs == 0 ? 0 : slabs + figure(w, "stats\r\n", "hash_bytes");
}

static void version(const struct peer *self, char *text, size_t text_bytes)
{
    (void)self;
    server_says("memcached --version", "memcached ", text, text_bytes);
}

static void *prepare(const struct peer *self, const struct peer_place *place, char *why)
{
    struct server_peer *s = calloc(1, sizeof *s);
    char log[256], memory[24], table[40];
    unsigned power = 16;
    (void)self;
    if (s == NULL) {
        snprintf(why, PEER_WHY_BYTES, "no memory");
        return NULL;
    }
    while (power < 30 && UINT64_C(1) << power < place->keys)
        power++;
    snprintf(log, sizeof log, "%.200s/memcached.log", place->dir);
    snprintf(memory, sizeof memory, "%u", (unsigned)(64 + place->keys * ROOM_EACH / (1u << 20)));
    snprintf(table, sizeof table, "hashpower=%u", power); /* the table doesn't have to grow on the way */
    const char *const as_root[] = {"-u", "root"};
    const char *argv[24] = {
        "memcached", "-s", s->server.socket, "-a", "0700", "-t", "2", "-m", memory, "-M", "-R", "64", "-C", "-o", table,
        "-U",        "0"};
    if (geteuid() == 0)
        memcpy(&argv[17], as_root, sizeof as_root);
    if (server_socket(&s->server, place->dir, "memcached.sock", why) != 0 ||
        server_start(&s->server, argv, log, why) != 0) {
        server_stop(s);
        return NULL;
    }
    struct wire wire;
    if (wire_open(&wire, s->server.socket) == 0) {
        s->empty_bytes = figure(&wire, "stats slabs\r\n", "total_malloced");
        wire_close(&wire);
    }
    return s;
}

static uint64_t bytes(void *worker)
{
    struct server_worker *w = worker;
    return server_used(w, allocated(&w->wire));
}

/* ------------------------------------------------------------------ the jobs */

static int put_store(struct wire *w, const char *verb, const unsigned char *key, const char *rest, const void *value,
                     size_t value_bytes)
{
    return wire_put(w, verb, 4) != 0 || wire_put(w, key, PEER_KEY_BYTES) != 0 || wire_put(w, rest, strlen(rest)) != 0 ||
                   wire_put(w, value, value_bytes) != 0 || wire_put(w, "\r\n", 2) != 0
               ? -1
               : 0;
}

static long claim(void *worker, struct peer_work *p)
{
    struct wire *w = &((struct server_worker *)worker)->wire;
    long fresh = 0;
    for (size_t i = 0; i < p->n;) {
        size_t first = i, end_at = p->n - i < p->batch ? p->n : i + p->batch;
        for (; i < end_at; i++)
            if (put_store(w, "add ", p->keys + i * PEER_KEY_BYTES, " 0 " TTL_S " 1\r\n", "1", 1) != 0)
                return -1;
        if (wire_send(w) != 0)
            return -1;
        for (size_t k = first; k < end_at; k++) {
            const char *said = wire_line(w);
            if (said != NULL && strcmp(said, "STORED") == 0)
                fresh++;
            else if (said == NULL || strcmp(said, "NOT_STORED") != 0)
                return wire_unexpected(w, "add", said);
        }
    }
    return fresh;
}

static long complete(void *worker, struct peer_work *p)
{
    struct wire *w = &((struct server_worker *)worker)->wire;
    long stored = 0;
    for (size_t i = 0; i < p->n;) {
        size_t first = i, end_at = p->n - i < p->batch ? p->n : i + p->batch;
        for (; i < end_at; i++)
            if (put_store(w, "set ", p->keys + i * PEER_KEY_BYTES, " 0 " TTL_S " 256\r\n", p->answers[i],
                          PEER_ANSWER_BYTES) != 0)
                return -1;
        if (wire_send(w) != 0)
            return -1;
        for (size_t k = first; k < end_at; k++) {
            const char *said = wire_line(w);
            if (said == NULL || strcmp(said, "STORED") != 0)
                return wire_unexpected(w, "set", said);
            stored++;
        }
    }
    return stored;
}

/* Values come in the order of the keys; of those that are not there nothing is said. */
static long values(struct wire *w, struct peer_work *p, size_t from, size_t to)
{
    long found = 0;
    for (const char *said; (said = wire_line(w)) != NULL;) {
        if (strcmp(said, "END") == 0)
            return found;
        if (strncmp(said, "VALUE ", 6) != 0 || strlen(said) < 6 + PEER_KEY_BYTES + 4)
            return wire_unexpected(w, "get", said);
        while (from < to && memcmp(said + 6, p->keys + from * PEER_KEY_BYTES, PEER_KEY_BYTES) != 0)
            from++;
        const char *length = strrchr(said, ' ');
        size_t n = strtoul(length + 1, NULL, 10);
        if (from == to)
            return wire_unexpected(w, "get", said);
        const char *at = wire_take(w, n + 2);
        if (at == NULL)
            return -1;
        if (n == PEER_ANSWER_BYTES) {
            memcpy(peer_out(p, from), at, PEER_ANSWER_BYTES);
            peer_answered(p, from);
            found++;
        }
        from++;
    }
    return -1;
}

static long replay(void *worker, struct peer_work *p)
{
    struct wire *w = &((struct server_worker *)worker)->wire;
    long found = 0;
    for (size_t i = 0; i < p->n;) {
        size_t end_at = p->n - i < p->batch ? p->n : i + p->batch;
        if (wire_put(w, "get", 3) != 0)
            return -1;
        for (size_t k = i; k < end_at; k++)
            if (wire_put(w, " ", 1) != 0 || wire_put(w, peer_key(p, k), PEER_KEY_BYTES) != 0)
                return -1;
        if (wire_put(w, "\r\n", 2) != 0 || wire_send(w) != 0)
            return -1;
        long got = values(w, p, i, end_at);
        if (got < 0)
            return -1;
        found += got;
        i = end_at;
    }
    return found;
}

#define ALL_BATCHES (PEER_BY_1 | PEER_BY_16 | PEER_BY_32)
static const struct peer memcached = {
    .name = "memcached",
    .settings =
        "add, set, get (of many keys in batches), text protocol over a Unix socket; 2 threads, table sized beforehand, "
        "no CAS numbers, 64 requests an event",
    .reach = PEER_SERVER,
    .batches = {ALL_BATCHES, ALL_BATCHES, ALL_BATCHES},
    .keys_max = 100000,
    .timed_keys = 60000,
    .version = version,
    .prepare = prepare,
    .attach = server_attach,
    .run = {claim, complete, replay},
    .error = server_error,
    .bytes = bytes,
    .detach = server_detach,
    .end = server_stop,
};

const struct peer *const peers_memcached[] = {&memcached, NULL};
