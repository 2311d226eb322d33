/*
 * client.c - see client.h.
 *
 * Owns: the connections (wires) and the queue. A wire carries one request at a time and is kept alive between them; a
 * killed worker resets it and the next request connects anew, to another worker.
 */
#include "client.h"
#include "options.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <stdlib.h>
#include <string.h>

struct wire {
    struct client *c;
    struct evhttp_connection *connection;
    struct evhttp_request *http; /* under way */
    client_request *request;     /* NULL: idle */
    struct event *cut;
    int64_t sent_us;
};

struct client {
    struct event_base *base;
    struct event *pump; /* moves the queue, outside of libevent's callbacks on a connection */
    struct wire *wires;
    unsigned count;
    client_request *first, **last;
    uint64_t sent;
};

static void pump_soon(struct client *c)
{
    event_active(c->pump, EV_TIMEOUT, 0);
}

/* The wire is free again, the request answered. */
static void finish(struct wire *w, client_answer *answer)
{
    client_request *request = w->request;
    answer->took_us = now_us() - w->sent_us;
    event_del(w->cut);
    w->request = NULL;
    w->http = NULL;
    pump_soon(w->c);
    request->done(request, answer);
}

static void on_response(struct evhttp_request *http, void *arg)
{
    struct wire *w = arg;
    client_answer answer = {0};
    if (http != NULL && evhttp_request_get_response_code(http) != 0) {
        struct evkeyvalq *headers = evhttp_request_get_input_headers(http);
        struct evbuffer *body = evhttp_request_get_input_buffer(http);
        const char *retry = evhttp_find_header(headers, "Retry-After");
        answer.status = evhttp_request_get_response_code(http);
        answer.body_bytes = evbuffer_get_length(body);
        answer.body = answer.body_bytes > 0 ? (const char *)evbuffer_pullup(body, -1) : "";
        answer.retry_after_s = retry != NULL ? strtol(retry, NULL, 10) : 0;
        answer.replayed = evhttp_find_header(headers, "Idempotent-Replayed") != NULL || /* the pool's */
                          evhttp_find_header(headers, "Idempotency-Replayed") != NULL;  /* nginx's */
    }
    finish(w, &answer);
}

static void on_cut(evutil_socket_t fd, short what, void *arg)
{
    struct wire *w = arg;
    client_answer answer = {0};
    (void)fd;
    (void)what;
    evhttp_cancel_request(w->http); /* closes the connection; on_response() is not called */
    finish(w, &answer);
}

/* Returns false if it could not even be tried. */
static bool put_on_wire(struct wire *w, client_request *request)
{
    struct evhttp_request *http = evhttp_request_new(on_response, w);
    if (http == NULL)
        return false;
    struct evkeyvalq *headers = evhttp_request_get_output_headers(http);
    evhttp_add_header(headers, "Host", "127.0.0.1");
    evhttp_add_header(headers, "Content-Type", "application/json");
    evhttp_add_header(headers, "Idempotency-Key", request->key);
    evhttp_add_header(headers, "Tenant", request->tenant);
    if (request->prefer != NULL)
        evhttp_add_header(headers, "Prefer", request->prefer);
    if (evbuffer_add(evhttp_request_get_output_buffer(http), request->body, request->body_bytes) != 0) {
        evhttp_request_free(http);
        return false;
    }
    w->request = request;
    w->http = http;
    w->sent_us = now_us();
    w->c->sent++;
    if (request->cut_after_us > 0) {
        struct timeval tv = span_us(request->cut_after_us);
        event_add(w->cut, &tv);
    }
    if (evhttp_make_request(w->connection, http, EVHTTP_REQ_POST, "/charges") != 0) {
        if (w->request == NULL)
            return true; /* on_response() was told of the failure */
        w->request = NULL;
        w->http = NULL;
        event_del(w->cut);
        return false;
    }
    return true;
}

static void on_pump(evutil_socket_t fd, short what, void *arg)
{
    struct client *c = arg;
    (void)fd;
    (void)what;
    for (unsigned i = 0; i < c->count && c->first != NULL; i++) {
        if (c->wires[i].request != NULL)
            continue;
        client_request *request = c->first;
        c->first = request->next;
        if (c->first == NULL)
            c->last = &c->first;
        if (!put_on_wire(&c->wires[i], request)) {
            static const client_answer none;
            request->done(request, &none);
        }
    }
}

void client_send(struct client *c, client_request *request)
{
    request->next = NULL;
    *c->last = request;
    c->last = &request->next;
    pump_soon(c);
}

uint64_t client_sent(const struct client *c)
{
    return c->sent;
}

struct client *client_new(struct event_base *base, uint16_t port, unsigned connections, int64_t timeout_ms)
{
    struct timeval timeout = span_ms(timeout_ms);
    struct client *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->base = base;
    c->last = &c->first;
    c->count = connections;
    c->wires = calloc(connections, sizeof(*c->wires));
    c->pump = event_new(base, -1, 0, on_pump, c);
    bool ok = c->wires != NULL && c->pump != NULL;
    for (unsigned i = 0; ok && i < connections; i++) {
        struct wire *w = &c->wires[i];
        w->c = c;
        w->cut = evtimer_new(base, on_cut, w);
        w->connection = evhttp_connection_base_new(base, NULL, "127.0.0.1", port);
        ok = w->cut != NULL && w->connection != NULL;
        if (ok)
            evhttp_connection_set_timeout_tv(w->connection, &timeout);
    }
    if (!ok) {
        client_free(c);
        return NULL;
    }
    return c;
}

void client_free(struct client *c)
{
    if (c == NULL)
        return;
    for (unsigned i = 0; c->wires != NULL && i < c->count; i++) {
        if (c->wires[i].cut != NULL)
            event_free(c->wires[i].cut);
        if (c->wires[i].connection != NULL)
            evhttp_connection_free(c->wires[i].connection);
    }
    if (c->pump != NULL)
        event_free(c->pump);
    free(c->wires);
    free(c);
}
