/*
 * charge.h - one POST /charges from its first look at the key to its answer.
 */
#ifndef CHARGE_H
#define CHARGE_H

#include "order.h"
#include "pool.h"
#include "tally.h"

#include <idem.h>

struct event_base;

/* One worker process. */
struct worker {
    const pool_options *options;
    struct event_base *base;
    idem_store *store; /* NULL with no_idem */
    tally *counts;
    int ledger_fd;
    unsigned slot;
    unsigned running;       /* charges started and not answered */
    unsigned short dice[3]; /* erand48() state for the seeded faults */
};

typedef struct charge_request {
    const char *tenant;
    const char *key;
    const order *what;
    const char *method; /* these three are what the request means: its fingerprint */
    const char *path;
    const void *body;
    size_t body_bytes;
    int64_t started_wall_ms; /* when a gateway had it, on the wall clock; 0: not known */
    int64_t wait_ms;         /* how long to wait for another attempt; < 0: the pool's limit */
} charge_request;

typedef struct charge_answer {
    int status;
    const char *body;
    size_t body_bytes;
    bool replayed;
    unsigned retry_after_s; /* 0: none */
} charge_answer;

/* Called once for each charge; the answer's bytes are valid until it returns. */
typedef void (*charge_answer_fn)(void *ctx, const charge_answer *answer);

/*
 * Starts a charge; copies what it needs of `request`. Never waits: `answer` is called from the event loop, or before this
 * returns. A charge whose client has gone runs on to its end; only its answer is lost.
 */
void charge_start(struct worker *w, const charge_request *request, charge_answer_fn answer, void *ctx);

#endif
