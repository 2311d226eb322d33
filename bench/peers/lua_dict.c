/*
 * lua_dict.c - nginx's lua_shared_dict: add to claim, set to complete, get to replay, in nginx itself.
 *
 * A block of keys goes to an nginx worker in one request. There it becomes Lua strings, then the clock is read, then the
 * loop of calls runs, and the clock is read again: that time is the block's (peer_work.own_ns). So neither HTTP nor what the
 * strings cost counts. Lua's collector stands still meanwhile. As many nginx workers as the life has, each with a client
 * of its own. A running claim holds one byte, an answer its 256.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer.h"
#include "server.h"

#define MODULES "/usr/lib/nginx/modules/"
#define ROOM_EACH \
    768u /* bytes of a dict a key: nginx's slabs have powers of two; of 512 and, while it is claimed, 128 */
#define SPARE_MIB 64u

enum { DIALS = 2000 };

static const char program[] =
    "local ffi = require 'ffi'\n"
    "ffi.cdef[[ typedef struct { long s, ns; } bench_time; int clock_gettime(int, bench_time *);\n"
    "           int madvise(void *, size_t, int); ]]\n"
    "local M, dict, t, keys = {}, ngx.shared.keys, ffi.new('bench_time'), {}\n"
    "local function now() ffi.C.clock_gettime(1, t); return tonumber(t.s) * 1e9 + tonumber(t.ns) end\n"
    "local function body(each)\n"
    "    ngx.req.read_body()\n"
    "    local b = ngx.req.get_body_data()\n"
    "    local n = #b / each\n"
    "    for i = 1, n do keys[i] = b:sub((i - 1) * each + 1, (i - 1) * each + 36) end\n"
    "    return b, n\n"
    "end\n"
    "local function run(n, job)\n"
    "    if n > 1 then collectgarbage() end\n"
    "    collectgarbage('stop')\n"
    "    local from = now()\n"
    "    local count, wrong = job(n)\n"
    "    local ns = now() - from\n"
    "    collectgarbage('restart')\n"
    "    ngx.print(string.format('%d %.0f %s\\n', count, ns, wrong or '-'))\n"
    "end\n"
    "function M.claim()\n"
    "    local _, n = body(36)\n"
    "    run(n, function(n)\n"
    "        local fresh = 0\n"
    "        for i = 1, n do\n"
    "            local ok, err, forced = dict:add(keys[i], '1', 86400)\n"
    "            if ok then fresh = fresh + 1 end\n"
    "            if forced or not ok and err ~= 'exists' then return fresh, err or 'evicted' end\n"
    "        end\n"
    "        return fresh\n"
    "    end)\n"
    "end\n"
    "function M.complete()\n"
    "    local b, n = body(292)\n"
    "    local answers = {}\n"
    "    for i = 1, n do answers[i] = b:sub((i - 1) * 292 + 37, i * 292) end\n"
    "    run(n, function(n)\n"
    "        for i = 1, n do\n"
    "            local ok, err, forced = dict:set(keys[i], answers[i], 86400)\n"
    "            if not ok or forced then return i - 1, err or 'evicted' end\n"
    "        end\n"
    "        return n\n"
    "    end)\n"
    "end\n"
    "function M.replay()\n"
    "    local _, n = body(36)\n"
    "    local found = {}\n"
    "    run(n, function(n)\n"
    "        local count = 0\n"
    "        for i = 1, n do\n"
    "            local v = dict:get(keys[i])\n"
    "            if v and #v == 256 then\n"
    "                count = count + 1\n"
    "                found[count] = v\n"
    "            end\n"
    "        end\n"
    "        return count\n"
    "    end)\n"
    "    ngx.print(table.concat(found))\n"
    "end\n"
    "function M.bytes() ngx.print(string.format('%.0f\\n', dict:capacity() - dict:free_space())) end\n"
    "function M.who() ngx.print(ngx.worker.id(), '\\n') end\n"
    "-- The dict's pages, mapped before the clock runs (MADV_POPULATE_WRITE).\n"
    "function M.touch()\n"
    "    for line in io.lines('/proc/self/maps') do\n"
    "        local from, to = line:match('^(%x+)%-(%x+) rw%-s')\n"
    "        if from then\n"
    "            from, to = tonumber(from, 16), tonumber(to, 16)\n"
    "            ffi.C.madvise(ffi.cast('void *', from), to - from, 23)\n"
    "        end\n"
    "    end\n"
    "end\n"
    "return M\n";

/* 0, or -1 with a sentence in why. */
static int write_file(const char *dir, const char *name, const char *text, char *why)
{
    char path[256];
    snprintf(path, sizeof path, "%.200s/%s", dir, name);
    FILE *f = fopen(path, "we");
    if (f != NULL && fputs(text, f) >= 0 && fclose(f) == 0)
        return 0;
    snprintf(why, PEER_WHY_BYTES, "%s: %s", path, strerror(errno));
    return -1;
}

static int write_all(const struct peer_place *place, const struct server *server, char *why)
{
    char text[4096];
    unsigned mib = SPARE_MIB + (unsigned)(place->keys * ROOM_EACH >> 20);
    int n = snprintf(
        text, sizeof text,
        "load_module " MODULES "ndk_http_module.so; load_module " MODULES "ngx_http_lua_module.so;\n"
        "%s worker_processes %u; worker_cpu_affinity auto; daemon off; pid %s/nginx.pid; error_log %s/nginx.log warn;\n"
        "events { worker_connections 64; accept_mutex off; }\n"
        "http {\n"
        "    access_log off; keepalive_requests 100000000; keepalive_timeout 1h;\n"
        "    client_body_temp_path %s/t1; proxy_temp_path %s/t2; fastcgi_temp_path %s/t3; uwsgi_temp_path %s/t4; "
        "scgi_temp_path %s/t5;\n"
        "    client_max_body_size 16m; client_body_buffer_size 2m; client_body_in_single_buffer on;\n"
        "    lua_package_path '%s/?.lua;;'; lua_shared_dict keys %um;\n"
        "    init_worker_by_lua_block { require('job').touch() }\n"
        "    server { listen unix:%s; location ~ ^/(?<job>[a-z]+)$ { content_by_lua_block { "
        "require('job')[ngx.var.job]() } } }\n"
        "}\n",
        geteuid() == 0 ? "user root;" : "", place->workers, place->dir, place->dir, place->dir, place->dir, place->dir,
        place->dir, place->dir, place->dir, mib, server->socket);
    if (n < 0 || (size_t)n >= sizeof text) {
        snprintf(why, PEER_WHY_BYTES, "%.200s: too long a path for nginx", place->dir);
        return -1;
    }
    return write_file(place->dir, "nginx.conf", text, why) != 0 ? -1 : write_file(place->dir, "job.lua", program, why);
}

static const char *nginx(void)
{
    return access("/usr/sbin/nginx", X_OK) == 0 ? "/usr/sbin/nginx" : "nginx";
}

static void version(const struct peer *self, char *text, size_t text_bytes)
{
    char command[64];
    (void)self;
    snprintf(command, sizeof command, "%s -v 2>&1", nginx());
    server_says(command, "nginx/", text, text_bytes);
}

static void *prepare(const struct peer *self, const struct peer_place *place, char *why)
{
    struct server_peer *s = calloc(1, sizeof *s);
    char log[256], conf[256];
    (void)self;
    if (s == NULL) {
        snprintf(why, PEER_WHY_BYTES, "no memory");
        return NULL;
    }
    if (access(MODULES "ngx_http_lua_module.so", R_OK) != 0) {
        snprintf(why, PEER_WHY_BYTES, PEER_LEFT_OUT "Debian's libnginx-mod-http-lua isn't installed");
        free(s);
        return NULL;
    }
    snprintf(log, sizeof log, "%.200s/nginx.log", place->dir);
    snprintf(conf, sizeof conf, "%.200s/nginx.conf", place->dir);
    const char *const argv[] = {nginx(), "-e", log, "-c", conf, NULL};
    if (server_socket(&s->server, place->dir, "nginx.sock", why) == 0 && write_all(place, &s->server, why) == 0 &&
        server_start(&s->server, argv, log, why) == 0)
        return s;
    server_stop(s);
    return NULL;
}

/* ------------------------------------------------------------------ requests */

/* The parts of a request's body are collected by the caller behind what this has put there. */
static int request(struct wire *w, const char *job, size_t body_bytes)
{
    char head[128];
    int n =
        snprintf(head, sizeof head, "POST /%s HTTP/1.1\r\nHost: bench\r\nContent-Length: %zu\r\n\r\n", job, body_bytes);
    return wire_put(w, head, (size_t)n);
}

/* The head is over; the body comes in chunks, whose sum is put together in w->out, terminated. Its bytes, or -1. */
static long answer(struct wire *w)
{
    const char *line = wire_line(w);
    errno = 0;
    if (line == NULL)
        return -1;
    if (strncmp(line, "HTTP/1.1 200 ", 13) != 0) {
        snprintf(w->error, sizeof w->error, "nginx said '%.100s'", line);
        return -1;
    }
    while ((line = wire_line(w)) != NULL && *line != '\0')
        ;
    for (;;) {
        line = line != NULL ? wire_line(w) : NULL;
        if (line == NULL)
            return -1;
        size_t n = strtoul(line, NULL, 16);
        const char *bytes = wire_take(w, n + 2);
        if (bytes == NULL || wire_put(w, bytes, n) != 0)
            return -1;
        line = bytes;
        if (n == 0)
            break;
    }
    long all = (long)w->out_bytes;
    if (wire_put(w, "", 1) != 0)
        return -1;
    w->out_bytes = 0;
    return all;
}

static long ask(struct wire *w, const char *job)
{
    return request(w, job, 0) != 0 || wire_send(w) != 0 || answer(w) < 0 ? -1 : strtol(w->out, NULL, 10);
}

/* Connections are accepted by whichever nginx worker comes first: until it is the one with our number. */
static void *attach(void *shared, unsigned me, char *why)
{
    struct server_peer *s = shared;
    struct server_worker *w = calloc(1, sizeof *w);
    if (w == NULL) {
        snprintf(why, PEER_WHY_BYTES, "no memory");
        return NULL;
    }
    for (unsigned dials = 0; dials < DIALS; dials++) {
        if (wire_open(&w->wire, s->server.socket) != 0)
            break;
        long who = ask(&w->wire, "who");
        if (who == (long)me)
            return w;
        wire_close(&w->wire);
        if (who < 0)
            break;
        snprintf(w->wire.error, sizeof w->wire.error, "nginx's worker %u never accepted", me);
        usleep(1000);
    }
    snprintf(why, PEER_WHY_BYTES, "%s", w->wire.error);
    free(w);
    return NULL;
}

static uint64_t bytes(void *worker)
{
    long n = ask(&((struct server_worker *)worker)->wire, "bytes");
    return n > 0 ? (uint64_t)n : 0;
}

/* ------------------------------------------------------------------ the jobs */

/* Sends what was collected; reads "COUNT NS WRONG". Where the rest begins, or NULL. */
static const char *measured(struct wire *w, struct peer_work *p, long *count, long *rest_bytes)
{
    long n = wire_send(w) != 0 ? -1 : answer(w);
    char wrong[100] = "?";
    unsigned long long ns = 0;
    if (n < 0)
        return NULL;
    const char *end_of_line = memchr(w->out, '\n', (size_t)n);
    if (end_of_line == NULL || sscanf(w->out, "%ld %llu %99[^\n]", count, &ns, wrong) != 3 || strcmp(wrong, "-") != 0) {
        snprintf(w->error, sizeof w->error, "the dict said '%s'", wrong);
        return NULL;
    }
    p->own_ns = ns;
    *rest_bytes = n - (end_of_line + 1 - w->out);
    return end_of_line + 1;
}

static long claim(void *worker, struct peer_work *p)
{
    struct wire *w = &((struct server_worker *)worker)->wire;
    long count, rest;
    if (request(w, "claim", p->n * PEER_KEY_BYTES) != 0 || wire_put(w, p->keys, p->n * PEER_KEY_BYTES) != 0)
        return -1;
    return measured(w, p, &count, &rest) != NULL ? count : -1;
}

static long complete(void *worker, struct peer_work *p)
{
    struct wire *w = &((struct server_worker *)worker)->wire;
    long count, rest;
    if (request(w, "complete", p->n * (PEER_KEY_BYTES + PEER_ANSWER_BYTES)) != 0)
        return -1;
    for (size_t i = 0; i < p->n; i++)
        if (wire_put(w, p->keys + i * PEER_KEY_BYTES, PEER_KEY_BYTES) != 0 ||
            wire_put(w, p->answers[i], PEER_ANSWER_BYTES) != 0)
            return -1;
    return measured(w, p, &count, &rest) != NULL ? count : -1;
}

static long replay(void *worker, struct peer_work *p)
{
    struct wire *w = &((struct server_worker *)worker)->wire;
    long count, rest;
    if (request(w, "replay", p->n * PEER_KEY_BYTES) != 0 || wire_put(w, p->keys, p->n * PEER_KEY_BYTES) != 0)
        return -1;
    const char *found = measured(w, p, &count, &rest);
    if (found == NULL)
        return -1;
    for (long i = 0; i < count && (i + 1) * (long)PEER_ANSWER_BYTES <= rest; i++) {
        memcpy(peer_out(p, (size_t)i), found + i * (long)PEER_ANSWER_BYTES, PEER_ANSWER_BYTES);
        peer_answered(p, (size_t)i);
    }
    return count;
}

static const struct peer dict = {
    .name = "nginx/lua_shared_dict",
    .settings = "add, set, get in a loop inside nginx's worker, compiled by LuaJIT (lua-resty-core), its collector "
                "stopped, the dict mapped beforehand; timed there",
    .reach = PEER_SERVER,
    .batches = {PEER_BY_1, PEER_BY_1, PEER_BY_1},
    .keys_max = 100000,
    .timed_keys = 60000,
    .version = version,
    .prepare = prepare,
    .attach = attach,
    .run = {claim, complete, replay},
    .error = server_error,
    .bytes = bytes,
    .detach = server_detach,
    .end = server_stop,
};

const struct peer *const peers_lua_dict[] = {&dict, NULL};
