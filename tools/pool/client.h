/*
 * client.h - a fixed number of HTTP connections to the pool, and a queue of requests for them.
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;
struct client;

/* What came back. status 0: no answer (refused, reset, timed out, or the connection was closed on purpose). */
typedef struct client_answer {
    int status;
    const char *body; /* valid until the callback returns */
    size_t body_bytes;
    long retry_after_s; /* 0: none */
    bool replayed;
    int64_t took_us;
} client_answer;

/* One request; the caller's, and unchanged until `done` was called, once. */
typedef struct client_request {
    const char *tenant;
    const char *key;
    const char *body;
    size_t body_bytes;
    const char *prefer;   /* header Prefer, or NULL */
    int64_t cut_after_us; /* > 0: close the connection so long after sending, whatever has come back */
    void (*done)(struct client_request *request, const client_answer *answer);
    struct client_request *next; /* the client's */
} client_request;

/* NULL when out of memory. */
struct client *client_new(struct event_base *base, uint16_t port, unsigned connections, int64_t timeout_ms);
void client_free(struct client *c);
/* Sends as soon as a connection is free. `done` is never called before this returns. */
void client_send(struct client *c, client_request *request);
/* Requests that went out so far. */
uint64_t client_sent(const struct client *c);

#endif
