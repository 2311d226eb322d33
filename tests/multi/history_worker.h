/*
 * tests/multi/history_worker.h - a process that calls whatever it likes on a few keys at a time, and writes down what it asked and was told.
 *
 * Owns: the shared ring of a round (calls by worker, claims that anybody may act on, deaths), and giving each key's calls to the checker.
 */
#ifndef TESTS_MULTI_HISTORY_WORKER_H
#define TESTS_MULTI_HISTORY_WORKER_H

#include "support/history.h"
#include "support/support.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define KEYS           64
#define BATCH          3
#define WORKERS        32
#define CALLS_A_WORKER (KEYS * HISTORY_CALLS_MAX)
#define CLAIM_WORDS    (sizeof(idem_claim) / 8)
#define LEASE_MS       1000
#define LONG_TTL_MS    600000
#define SHORT_TTL_MS   2000
#define NARROW         200 /* stamps until the workers go on to other keys */

_Static_assert(sizeof(idem_claim) % 8 == 0, "copied in words");

/* A claim that anybody may act on. Odd: it is being written (or its writer died at that). */
struct posted {
    struct idem_a64 turn;
    struct idem_a64 words[CLAIM_WORDS];
};

static struct round {
    uint64_t seed, number;
    const char *dir;
    struct idem_a64 stamp, finished, over, through[WORKERS], worker_calls[WORKERS], key_calls[KEYS];
    struct posted board[KEYS];
    struct history_death deaths[WORKERS];
    struct history_call calls[WORKERS][CALLS_A_WORKER];
    uint64_t narrow; /* NARROW, or another number of stamps */
    bool logged;     /* the store has a log, and what is asked to be synced is durable when it is told */
} * ring;

/* Of the whole program: the ring, and what its rounds' random numbers come from. */
static int history_setup(void **state)
{
    if (support_setup(state) != 0)
        return -1;
    ring = support_shared(sizeof *ring);
    ring->seed = support_seed();
    return 0;
}

static uint64_t next_stamp(void)
{
    return add_relaxed(&ring->stamp, 1) + 1;
}

/* ------------------------------------------------------------------ a worker */

struct worker {
    unsigned me;
    uint64_t random;
    idem_store *store;
    idem_claim mine[KEYS];
    uint64_t waiting[KEYS]; /* the attempt that it was told of as running */
};

static uint64_t chance(struct worker *w, uint64_t n)
{
    return support_random(&w->random) % n;
}

static void post(unsigned key, const idem_claim *claim)
{
    struct posted *p = &ring->board[key];
    uint64_t turn = load_relaxed(&p->turn), words[CLAIM_WORDS];
    if (turn % 2 != 0 || !cas_acq_rel(&p->turn, &turn, turn + 1))
        return;
    memcpy(words, claim, sizeof words);
    for (unsigned i = 0; i < CLAIM_WORDS; i++)
        store_relaxed(&p->words[i], words[i]);
    store_release(&p->turn, turn + 2);
}

static bool take_posted(unsigned key, idem_claim *claim)
{
    struct posted *p = &ring->board[key];
    uint64_t turn = load_acquire(&p->turn), words[CLAIM_WORDS];
    if (turn == 0 || turn % 2 != 0)
        return false;
    for (unsigned i = 0; i < CLAIM_WORDS; i++)
        words[i] = load_relaxed(&p->words[i]);
    fence_acquire();
    memcpy(claim, words, sizeof words);
    return load_relaxed(&p->turn) == turn;
}

/* The record is complete before the call is made, but for what it tells. */
static struct history_call *calling(struct worker *w, enum history_kind kind, unsigned key)
{
    uint64_t n = load_relaxed(&ring->worker_calls[w->me]);
    CHECK(n < CALLS_A_WORKER);
    struct history_call *c = &ring->calls[w->me][n];
    *c = (struct history_call){.kind = kind, .key = key, .worker = w->me, .called_ms = idem_clock_raw_ms()};
    c->called = next_stamp();
    store_release(&ring->worker_calls[w->me], n + 1);
    return c;
}

static void returned(struct history_call *c, int verdict)
{
    c->verdict = verdict;
    c->returned_ms = idem_clock_raw_ms();
    fence_release();
    c->returned = next_stamp();
}

static uint64_t number_in(const void *bytes, size_t n)
{
    uint64_t number = 0;
    if (bytes != NULL && n == sizeof number)
        memcpy(&number, bytes, sizeof number);
    return n != 0 && n != sizeof number ? UINT64_MAX : number;
}

/* An answer says by its number whether it was to be synced. */
#define SYNCED (UINT64_C(1) << 62)

static void told(struct worker *w, struct history_call *c, int verdict, const idem_claim *claim,
                 const idem_reply *reply)
{
    bool granted = verdict == IDEM_CLAIMED || verdict == IDEM_RECLAIMED;
    c->transient = verdict == IDEM_REPLAY && (reply->flags & IDEM_REPLY_TRANSIENT) != 0;
    c->token = granted ? claim->token : reply->token;
    c->lost_token = verdict == IDEM_RECLAIMED ? reply->lost_token : 0;
    c->value =
        verdict == IDEM_REPLAY ? number_in(reply->body, reply->body_bytes) : number_in(reply->mark, reply->mark_bytes);
    if (verdict == IDEM_REPLAY)
        c->durable = ring->logged && !c->transient && (c->value & SYNCED) != 0;
    else if (!granted)
        c->durable = false;
    w->waiting[c->key] = verdict == IDEM_IN_PROGRESS || verdict == IDEM_E_TIMEOUT ? reply->token : 0;
    returned(c, verdict == IDEM_E_TIMEOUT ? IDEM_IN_PROGRESS : verdict);
    if (granted) {
        w->mine[c->key] = *claim;
        post(c->key, claim);
    }
}

/* No key gets more calls than the checker takes. */
static bool reserve(unsigned key)
{
    return load_relaxed(&ring->key_calls[key]) < HISTORY_CALLS_MAX &&
           add_relaxed(&ring->key_calls[key], 1) < HISTORY_CALLS_MAX;
}

static idem_request ask(struct worker *w, struct history_call *c, const uint64_t *id)
{
    idem_request rq = IDEM_REQUEST_INIT;
    rq.key = (idem_key){.key = id, .key_bytes = sizeof *id};
    rq.fingerprint = c->fingerprint = chance(w, 16) == 0 ? 2 : 1;
    rq.lease_ms = c->lease_ms = LEASE_MS;
    rq.ttl_ms = c->ttl_ms = chance(w, 4) == 0 ? SHORT_TTL_MS : LONG_TTL_MS;
    rq.wait_token = c->wait_token = chance(w, 2) == 0 ? w->waiting[c->key] : 0;
    c->durable = c->synced = ring->logged && chance(w, 16) == 0;
    rq.durability = c->durable ? IDEM_DURABILITY_SYNC : IDEM_DURABILITY_DEFAULT;
    return rq;
}

static uint64_t id_of(unsigned key)
{
    return ring->number * KEYS + key;
}

static void begin_one(struct worker *w, unsigned key)
{
    uint64_t id = id_of(key);
    struct history_call *c = calling(w, CALL_BEGIN, key);
    idem_request rq = ask(w, c, &id);
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    uint64_t wait = chance(w, 64);
    c->waits = wait < 9;
    int v = c->waits ? idem_wait(w->store, &rq, wait == 0 ? 50 : 2, &claim, &reply)
                     : idem_begin(w->store, &rq, &claim, &reply);
    told(w, c, v, &claim, &reply);
    idem_reply_free(&reply);
}

static void begin_some(struct worker *w, unsigned key)
{
    uint64_t ids[BATCH];
    struct history_call *calls[BATCH];
    idem_request rqs[BATCH];
    idem_result results[BATCH];
    unsigned n = 0;
    for (unsigned i = 0; i < BATCH; i++) {
        unsigned k = (key + i) % KEYS;
        if (i > 0 && !reserve(k))
            continue;
        ids[n] = id_of(k);
        calls[n] = calling(w, CALL_BEGIN, k);
        rqs[n] = ask(w, calls[n], &ids[n]);
        results[n] = (idem_result){.size = sizeof(idem_result), .reply = IDEM_REPLY_INIT};
        n++;
    }
    CHECK_IS(idem_begin_many(w->store, rqs, n, results), IDEM_OK);
    for (unsigned i = 0; i < n; i++) {
        told(w, calls[i], results[i].verdict, &results[i].claim, &results[i].reply);
        idem_reply_free(&results[i].reply);
    }
}

static void act_on(struct worker *w, unsigned key, const idem_claim *claim, uint64_t what)
{
    static const enum history_kind kinds[] = {CALL_COMPLETE, CALL_COMPLETE, CALL_COMPLETE,  CALL_ABANDON, CALL_DECLARE,
                                              CALL_RENEW,    CALL_MARK,     CALL_TRANSIENT, CALL_ADOPT};
    struct history_call *c = calling(w, kinds[what], key);
    uint64_t value = c->called << 8 | w->me;
    idem_response r = IDEM_RESPONSE_INIT;
    int v = IDEM_E_INVALID;
    c->token = claim->token;
    bool synced = ring->logged && c->kind == CALL_COMPLETE && chance(w, 4) != 0;
    value |= synced ? SYNCED : 0;
    c->value = c->kind == CALL_COMPLETE || c->kind == CALL_MARK || c->kind == CALL_TRANSIENT ? value : 0;
    switch (c->kind) {
    case CALL_TRANSIENT:
        r.flags = IDEM_RESPONSE_TRANSIENT;
        /* fall through */
    case CALL_COMPLETE:
        r.body = &value;
        r.body_bytes = sizeof value;
        r.durability = !ring->logged ? IDEM_DURABILITY_DEFAULT : synced ? IDEM_DURABILITY_SYNC : IDEM_DURABILITY_ASYNC;
        r.ttl_ms = c->ttl_ms = chance(w, 4) == 0 ? SHORT_TTL_MS : LONG_TTL_MS;
        v = idem_complete(w->store, claim, &r);
        break;
    case CALL_ABANDON:
        v = idem_abandon(w->store, claim, IDEM_NOTHING_HAPPENED);
        break;
    case CALL_DECLARE:
        v = idem_abandon(w->store, claim, IDEM_OUTCOME_UNKNOWN);
        break;
    case CALL_RENEW:
        c->lease_ms = LEASE_MS;
        v = idem_renew(w->store, claim, LEASE_MS);
        break;
    case CALL_ADOPT:
        v = idem_adopt(w->store, claim);
        break;
    default:
        v = idem_mark(w->store, claim, &value, sizeof value);
    }
    c->durable = synced && v == IDEM_OK;
    returned(c, v);
}

static void look(struct worker *w, unsigned key)
{
    uint64_t id = id_of(key);
    idem_key k = {.key = &id, .key_bytes = sizeof id};
    struct history_call *c = calling(w, CALL_LOOKUP, key);
    idem_reply reply = IDEM_REPLY_INIT;
    int v = idem_lookup(w->store, &k, &reply);
    c->token = reply.token;
    c->value = v == IDEM_REPLAY ? number_in(reply.body, reply.body_bytes) : 0;
    returned(c, v);
    idem_reply_free(&reply);
}

static void forget(struct worker *w, unsigned key)
{
    uint64_t id = id_of(key);
    idem_key k = {.key = &id, .key_bytes = sizeof id};
    struct history_call *c = calling(w, CALL_FORGET, key);
    int v = idem_forget(w->store, &k);
    c->durable = ring->logged && v == IDEM_OK; /* as the store's completions */
    returned(c, v);
}

static void operate(struct worker *w, unsigned key, uint64_t token)
{
    static const enum history_kind kinds[] = {CALL_RELEASE, CALL_RELEASE, CALL_RESOLVE, CALL_RERUN};
    uint64_t id = id_of(key);
    idem_key k = {.key = &id, .key_bytes = sizeof id};
    struct history_call *c = calling(w, kinds[chance(w, 4)], key);
    uint64_t value = c->called << 8 | w->me | (ring->logged ? SYNCED : 0);
    idem_response r = IDEM_RESPONSE_INIT;
    r.body = &value;
    r.body_bytes = sizeof value;
    r.ttl_ms = c->ttl_ms = LONG_TTL_MS;
    c->token = token;
    c->value = c->kind == CALL_RESOLVE ? value : 0;
    int v;
    if (c->kind == CALL_RELEASE)
        v = idem_release(w->store, &k, c->token = chance(w, 2) == 0 ? 0 : token);
    else
        v = idem_resolve(w->store, &k, token, c->kind == CALL_RESOLVE ? IDEM_RESOLVE_COMPLETED : IDEM_RESOLVE_RERUN,
                         &r);
    c->durable = ring->logged && c->kind == CALL_RESOLVE && v == IDEM_OK;
    returned(c, v);
}

/* Its own claim, an old one or not, or what another worker posted. */
static bool choose_claim(struct worker *w, unsigned key, idem_claim *claim)
{
    if (chance(w, 4) == 0 && take_posted(key, claim))
        return true;
    *claim = w->mine[key];
    return claim->token != 0;
}

static void do_something(struct worker *w, unsigned key)
{
    idem_claim claim;
    uint64_t dice = chance(w, 100);
    if (dice < 6)
        begin_some(w, key);
    else if (dice < 10)
        look(w, key);
    else if (dice < 13)
        forget(w, key);
    else if (dice < 60 || !choose_claim(w, key, &claim))
        begin_one(w, key);
    else if (dice < 65)
        operate(w, key, claim.token);
    else
        act_on(w, key, &claim, chance(w, 9));
}

static void work(void *number)
{
    static struct worker w;
    w.me = (unsigned)(uintptr_t)number;
    w.random = (ring->seed + ring->number * 64 + w.me) * UINT64_C(0x9E3779B97F4A7C15) | 1;
    w.store = support_attach(ring->dir);
    if (ring->number % 2 == 0)
        support_shake(w.random);
    for (unsigned idle = 0; idle < 4 * KEYS;) {
        unsigned key = (unsigned)((load_relaxed(&ring->stamp) / ring->narrow + chance(&w, 3)) % KEYS);
        if (!reserve(key)) {
            next_stamp(); /* so that all go on to other keys */
            idle++;
            continue;
        }
        idle = 0;
        do_something(&w, key);
    }
    /* Stays until all are through, or its claims would be a dead owner's. */
    store_relaxed(&ring->through[w.me], 1);
    store_relaxed(&ring->finished, 1);
    while (load_relaxed(&ring->over) == 0)
        support_sleep_ms(1);
    idem_close(w.store);
}

/* ------------------------------------------------------------------ the checker */

static struct totals {
    uint64_t calls, keys, cut, killed, stopped, refused, contradictions;
} totals;

static void check_key(unsigned key, bool tell)
{
    struct history_call calls[HISTORY_CALLS_MAX];
    unsigned n = 0;
    for (unsigned w = 0; w < WORKERS; w++)
        for (uint64_t i = 0; i < load_relaxed(&ring->worker_calls[w]); i++) {
            struct history_call *c = &ring->calls[w][i];
            if (c->key != key)
                continue;
            if (c->returned == 0) {
                c->returned_ms = ring->deaths[w].known_ms;
                totals.cut++;
            }
            totals.refused += c->returned != 0 && c->verdict == IDEM_E_FULL;
            CHECK(n < HISTORY_CALLS_MAX);
            calls[n++] = *c;
        }
    totals.calls += n;
    totals.keys += n > 0;
    enum history_answer a = history_check(calls, n, ring->deaths);
    if (a == HISTORY_EXPLAINED)
        return;
    totals.contradictions++;
    if (!tell)
        return;
    fprintf(stderr, "round %llu, key %u: %s\n", (unsigned long long)ring->number, key,
            a == HISTORY_CONTRADICTS ? "no order explains this" : "too many orders to look at");
    if (a == HISTORY_CONTRADICTS)
        n = history_shrink(calls, n, ring->deaths);
    history_print(stderr, calls, n, ring->deaths);
}

#endif
