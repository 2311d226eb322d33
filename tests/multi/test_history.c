/*
 * tests/multi/test_history.c - random calls of processes that are killed, stopped and moved through time: one order explains what they were told.
 *
 * Each round has keys of its own. Workers call whatever they like on a few keys at a time and write down what they asked and were told; the
 * test kills, stops and replaces them and steps the clock. Then each key's calls go to the checker (support/history.h). It is shown to
 * reject what a library with a seeded fault tells (and planted histories: unit/test_history.c). IDEM_TEST_SEED begins the rounds alike.
 */
#include "support/history.h"
#include "support/support.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define KEYS           64
#define BATCH          3
#define AT_ONCE        4
#define WORKERS        32
#define CALLS_A_WORKER (KEYS * HISTORY_CALLS_MAX)
#define CLAIM_WORDS    (sizeof(idem_claim) / 8)
#define LEASE_MS       1000
#define LONG_TTL_MS    600000
#define SHORT_TTL_MS   2000
#define NARROW         200 /* calls until the workers go on to other keys */

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
} * ring;

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

static void told(struct worker *w, struct history_call *c, int verdict, const idem_claim *claim,
                 const idem_reply *reply)
{
    bool granted = verdict == IDEM_CLAIMED || verdict == IDEM_RECLAIMED;
    c->token = granted ? claim->token : reply->token;
    c->lost_token = verdict == IDEM_RECLAIMED ? reply->lost_token : 0;
    c->value =
        verdict == IDEM_REPLAY ? number_in(reply->body, reply->body_bytes) : number_in(reply->mark, reply->mark_bytes);
    returned(c, verdict == IDEM_E_TIMEOUT ? IDEM_IN_PROGRESS : verdict);
    if (granted) {
        w->mine[c->key] = *claim;
        post(c->key, claim);
    }
}

static idem_request ask(struct worker *w, struct history_call *c, const uint64_t *id)
{
    idem_request rq = IDEM_REQUEST_INIT;
    rq.key = (idem_key){.key = id, .key_bytes = sizeof *id};
    rq.fingerprint = c->fingerprint = chance(w, 16) == 0 ? 2 : 1;
    rq.lease_ms = c->lease_ms = LEASE_MS;
    rq.ttl_ms = c->ttl_ms = chance(w, 4) == 0 ? SHORT_TTL_MS : LONG_TTL_MS;
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
    int v = chance(w, 8) == 0 ? idem_wait(w->store, &rq, 2, &claim, &reply) : idem_begin(w->store, &rq, &claim, &reply);
    told(w, c, v, &claim, &reply);
    idem_reply_free(&reply);
}

/* No key gets more calls than the checker takes. */
static bool reserve(unsigned key)
{
    return load_relaxed(&ring->key_calls[key]) < HISTORY_CALLS_MAX &&
           add_relaxed(&ring->key_calls[key], 1) < HISTORY_CALLS_MAX;
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
    static const enum history_kind kinds[] = {CALL_COMPLETE, CALL_COMPLETE, CALL_COMPLETE, CALL_ABANDON,
                                              CALL_DECLARE,  CALL_RENEW,    CALL_MARK};
    struct history_call *c = calling(w, kinds[what], key);
    uint64_t value = c->called << 8 | w->me;
    idem_response r = IDEM_RESPONSE_INIT;
    int v = IDEM_E_INVALID;
    c->token = claim->token;
    c->value = c->kind == CALL_COMPLETE || c->kind == CALL_MARK ? value : 0;
    switch (c->kind) {
    case CALL_COMPLETE:
        r.body = &value;
        r.body_bytes = sizeof value;
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
    default:
        v = idem_mark(w->store, claim, &value, sizeof value);
    }
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
    returned(c, idem_forget(w->store, &k));
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
    else
        act_on(w, key, &claim, chance(w, 7));
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
        unsigned key = (unsigned)((load_relaxed(&ring->stamp) / NARROW + chance(&w, 3)) % KEYS);
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

/* ------------------------------------------------------------------ a round */

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

static pid_t pids[WORKERS];
static unsigned started;

static void start_worker(void)
{
    pids[started] = support_spawn(work, (void *)(uintptr_t)started);
    started++;
}

static void kill_worker(unsigned w)
{
    ring->deaths[w].sent = next_stamp();
    support_kill(pids[w], SIGKILL);
    CHECK_IS(support_reap(pids[w], SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
    ring->deaths[w].known_ms = idem_clock_raw_ms();
    ring->deaths[w].known = next_stamp();
    pids[w] = 0;
    totals.killed++;
}

/* Waits for the next `calls` calls, or the end. */
static void let_them_call(uint64_t calls)
{
    uint64_t until = load_relaxed(&ring->stamp) + 2 * calls;
    int64_t end_ms = support_now_ms() + SUPPORT_PATIENCE_MS;
    while (load_relaxed(&ring->stamp) < until && load_relaxed(&ring->finished) == 0) {
        CHECK(support_now_ms() < end_ms);
        sched_yield();
    }
}

/* A worker that is still there. */
static unsigned choose_worker(uint64_t *random)
{
    unsigned w = (unsigned)(support_random(random) % started);
    while (pids[w] == 0)
        w = (w + 1) % started;
    return w;
}

static bool all_through(void *unused)
{
    (void)unused;
    for (unsigned w = 0; w < started; w++)
        if (pids[w] != 0 && load_relaxed(&ring->through[w]) == 0)
            return false;
    return true;
}

static void run_round(uint64_t number, bool tell)
{
    uint64_t random = (ring->seed + number) * UINT64_C(0xD1342543DE82EF95) | 1;
    const char *dir = ring->dir;
    uint64_t seed = ring->seed;
    memset(ring, 0, sizeof *ring);
    ring->dir = dir;
    ring->seed = seed;
    ring->number = number;
    started = 0;
    memset(pids, 0, sizeof pids);
    for (unsigned i = 0; i < AT_ONCE; i++)
        start_worker();
    while (load_relaxed(&ring->finished) == 0) {
        let_them_call(1 + support_random(&random) % 300);
        if (load_relaxed(&ring->finished) != 0)
            break;
        unsigned w = choose_worker(&random);
        switch (support_random(&random) % 4) {
        case 0:
            if (started == WORKERS)
                break;
            kill_worker(w);
            start_worker();
            break;
        case 1:
            support_kill(pids[w], SIGSTOP);
            let_them_call(support_random(&random) % 100);
            if (support_random(&random) % 2 == 0)
                support_clock_add(LEASE_MS / 2 + (int64_t)(support_random(&random) % LEASE_MS));
            let_them_call(support_random(&random) % 100);
            support_kill(pids[w], SIGCONT);
            totals.stopped++;
            break;
        default:
            support_clock_add((int64_t)(support_random(&random) % (LEASE_MS / 2)));
        }
    }
    CHECK(support_eventually(all_through, NULL, SUPPORT_PATIENCE_MS));
    store_relaxed(&ring->over, 1);
    for (unsigned w = 0; w < started; w++)
        if (pids[w] != 0)
            CHECK_IS(support_reap(pids[w], SUPPORT_PATIENCE_MS), 0);
    for (unsigned key = 0; key < KEYS; key++)
        check_key(key, tell);
}

static void new_store(void)
{
    idem_options o = support_options(8192);
    ring->dir = support_dir();
    idem_close(support_open(ring->dir, &o));
    memset(&totals, 0, sizeof totals);
}

static void what_processes_are_told_while_they_are_killed_stopped_and_moved_through_time_is_explained(void **state)
{
    (void)state;
    uint64_t most = support_long() ? 5000000 : (uint64_t)support_scaled(200000, 4);
    new_store();
    for (uint64_t number = 1; totals.calls < most && totals.contradictions == 0; number++)
        run_round(number, true);
    print_message("%llu calls on %llu keys, %llu cut off; %llu killed, %llu stopped, %llu refused\n",
                  (unsigned long long)totals.calls, (unsigned long long)totals.keys, (unsigned long long)totals.cut,
                  (unsigned long long)totals.killed, (unsigned long long)totals.stopped,
                  (unsigned long long)totals.refused);
    CHECK_IS(totals.contradictions, 0);
    CHECK(totals.cut > 0 && totals.killed > 10 && totals.stopped > 10);
    CHECK(totals.refused * 100 < totals.calls);
    support_verify(ring->dir);
}

static void a_library_with_a_fault_tells_what_no_order_explains(void **state)
{
    (void)state;
    static const char *const faults[] = {"fence.ignored",      "swap.blind",          "token.repeats",  "death.ignored",
                                         "lease.ignored",      "loss.forgotten",      "mark.forgotten", "claim.blind",
                                         "answer.overwritten", "fingerprint.ignored", "free.young"};
    for (unsigned i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        new_store();
        support_fault(faults[i]);
        uint64_t number = 0;
        while (totals.contradictions == 0 && number < 40)
            run_round(++number, false);
        support_fault(NULL);
        CHECK(totals.contradictions > 0);
        support_caught(faults[i], "no order explains what was told in %llu calls", (unsigned long long)totals.calls);
    }
}

static int setup(void **state)
{
    if (support_setup(state) != 0)
        return -1;
    ring = support_shared(sizeof *ring);
    ring->seed = support_seed();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_processes_are_told_while_they_are_killed_stopped_and_moved_through_time_is_explained),
        cmocka_unit_test(a_library_with_a_fault_tells_what_no_order_explains),
    };
    return cmocka_run_group_tests(tests, setup, support_teardown);
}
