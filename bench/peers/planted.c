/*
 * planted.c - see planted.h. A bitmap over keys stands for a table that really knows which keys are there.
 */
#include "planted.h"

#include <stdio.h>
#include <stdlib.h>

#include "hash.h"

enum { SEEN = 1 << 20, IDLE, FORGETFUL, MIXED };

struct table {
    unsigned char
        seen[SEEN]; /* 1: claimed, 2: completed; of so few keys hardly two share one, and who does is refused */
    unsigned char answer[PEER_ANSWER_BYTES];
};

struct worker {
    struct table *table;
    int how;
};

static int how_of[] = {IDLE, FORGETFUL, MIXED};
static int how_now;

static void version(const struct peer *self, char *text, size_t text_bytes)
{
    (void)self;
    snprintf(text, text_bytes, "planted");
}

static void *prepare(const struct peer *self, const struct peer_place *place, char *why)
{
    (void)place;
    (void)why;
    how_now = *(const int *)self->variant;
    return calloc(1, sizeof(struct table));
}

static void *attach(void *shared, unsigned me, char *why)
{
    struct worker *w = calloc(1, sizeof *w);
    (void)me;
    (void)why;
    if (w)
        *w = (struct worker){.table = shared, .how = how_now};
    return w;
}

static unsigned char *seen(const struct worker *me, const struct peer_work *w, size_t i)
{
    return &me->table->seen[hash_key(w->keys + i * PEER_KEY_BYTES) % SEEN];
}

static long claim(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    long fresh = 0;
    for (size_t i = 0; i < w->n; i++)
        fresh += me->how == IDLE || __atomic_exchange_n(seen(me, w, i), 1, __ATOMIC_ACQ_REL) == 0;
    return fresh;
}

static long complete(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    for (size_t i = 0; i < w->n; i++)
        __atomic_store_n(seen(me, w, i), 2, __ATOMIC_RELEASE);
    if (me->how == MIXED)
        memcpy(me->table->answer, w->answers[0], PEER_ANSWER_BYTES);
    return (long)w->n;
}

static long replay(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    long found = 0;
    for (size_t i = 0; i < w->n; i++) {
        if (__atomic_load_n(seen(me, w, i), __ATOMIC_ACQUIRE) != 2)
            continue;
        memcpy(peer_out(w, i), me->table->answer, PEER_ANSWER_BYTES);
        peer_answered(w, i);
        found++;
    }
    return found;
}

static const char *error(void *worker)
{
    (void)worker;
    return "none";
}

#define SAME                                                                                                       \
    .settings = "cheats", .reach = PEER_THREADS, .batches = {PEER_BY_1, PEER_BY_1, PEER_BY_1}, .version = version, \
    .prepare = prepare, .attach = attach, .run = {claim, complete, replay}, .error = error, .detach = free,        \
    .end = free

static const struct peer idle = {.name = "planted/idle", .variant = &how_of[0], SAME};
static const struct peer forgetful = {.name = "planted/forgetful", .variant = &how_of[1], SAME};
static const struct peer mixed = {.name = "planted/mixed", .variant = &how_of[2], SAME};

const struct peer *const peers_planted[] = {&idle, &forgetful, &mixed, NULL};
