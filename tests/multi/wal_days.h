/*
 * tests/multi/wal_days.h - workers of a store with a log who are made to work one after the other, in simulated time, by one seed.
 *
 * Owns: the world (its clock, its one stream of random numbers, what each key was asked and told, a digest of it all), the workers. They are
 * processes of their own, with the real library; but only one of them runs at any time, until it is through, is killed, or stops at a named
 * point. So the same seed gives the same week, to the byte.
 * What they were told goes to the checker of histories (support/history.h), key by key: what is not explained by one order is a contradiction.
 * If the test dies here: the kernel ends the workers (PR_SET_PDEATHSIG).
 */
#ifndef TESTS_MULTI_WAL_DAYS_H
#define TESTS_MULTI_WAL_DAYS_H

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/point.h"
#include "support/history.h"
#include "support/support.h"

#define SECOND_MS INT64_C(1000)
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS   (60 * MINUTE_MS)
#define DAY_MS    (24 * HOUR_MS)

#define WORKERS     4u
#define LIVES_MAX   4096u
#define KEYS_MAX    16384u
#define CALLS_POOL  200000u
#define CALLS_A_KEY 40u /* asked by workers; the rest is for crashes, and looks after them */
#define META_MAX    2000u
#define META_BYTES  1100u /* on average */
#define INTERVAL_MS 50
#define WAIT_MS     100
#define SYNCED      (UINT64_C(1) << 62) /* an answer says by its number that it was to be synced */
#define NEVER       (UINT64_C(1) << 61) /* and that it was to be in memory alone */
#define WEEK_STUCK  71                  /* exit status of a week in which nobody went on */

struct day_key {
    int first, last; /* of its calls; -1: none */
    unsigned calls;
    uint64_t waiting; /* the attempt that somebody was told of as running */
    idem_claim claim[2];
    uint64_t answered; /* somebody has tried to complete this attempt */
    int64_t over_ms;   /* no record of it lives longer */
    int64_t record_ms; /* its newest record ends then */
    bool asked;        /* since it was checked */
};

struct day_call {
    struct history_call call;
    int next;
    bool promised;   /* asked to be on the disk soon */
    int64_t over_ms; /* when the record of what it did ends */
};

enum worker_state { WORKER_NONE, WORKER_IDLE, WORKER_STOPPED };
enum deed { DEED_NONE, DEED_KILL, DEED_STOP };

static struct world {
    const char *dir;
    char log[180], store[180], image[180];
    uint64_t random, stamp, digest, salts;
    int64_t shift_ms; /* store time less the machine's */
    struct worker {
        pid_t pid;
        enum worker_state state;
        uint32_t life;
        sem_t go;
        unsigned calls; /* of the shift that begins */
        bool leave;
        enum deed deed;
        unsigned points; /* until it is done */
        unsigned resumes;
    } workers[WORKERS];
    sem_t through;
    bool bad;         /* calls to the disk may fail */
    uint64_t strikes; /* those that did */
    struct day_totals {
        uint64_t calls, killed, stopped, crashes, recoveries_cut, strikes, stalls, files;
    } totals;
    struct history_death deaths[LIVES_MAX]; /* 0: the test's own handle */
    uint32_t lives;
    unsigned keys;
    struct day_key key[KEYS_MAX];
    int calls;
    struct day_call call[CALLS_POOL];
} * world;

static uint64_t chance(uint64_t n)
{
    return support_random(&world->random) % n;
}

static int64_t between(int64_t least, int64_t most)
{
    return least + (int64_t)chance((uint64_t)(most - least + 1));
}

static uint64_t next_stamp(void)
{
    return ++world->stamp;
}

static void mix(uint64_t a, uint64_t b)
{
    uint64_t words[3] = {world->digest, a, b};
    world->digest = XXH3_64bits(words, sizeof words);
}

static int64_t now_ms(void)
{
    return idem_clock_raw_ms() + world->shift_ms;
}

static void pass(int64_t ms)
{
    support_clock_add(ms);
    support_wall_add(ms);
}

static void name_of(unsigned key, char name[48])
{
    snprintf(name, 48, "a key of a simulated day, %08u", key);
}

/* ------------------------------------------------------------------ chance of the library's own */

/* Its salts and secrets come from the seed, too: where a key lies, and in which order a walk finds it. */
ssize_t getrandom(void *to, size_t n, unsigned flags)
{
    if (world == NULL || world->salts == 0)
        return syscall(SYS_getrandom, to, n, flags);
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)to)[i] = (uint8_t)(support_random(&world->salts) >> 8);
    return (ssize_t)n;
}

/* ------------------------------------------------------------------ points */

static unsigned points_left, resumed; /* resumed: so often before this shift */
static struct worker *me;             /* NULL: the test itself */

static void do_deed(void)
{
    if (me->deed == DEED_KILL) {
        sem_post(&world->through);
        support_die(NULL);
    }
    me->state = WORKER_STOPPED;
    sem_post(&world->through);
    raise(SIGSTOP);
}

static void on_point(const char *name)
{
    (void)name;
    if (points_left > 0 && --points_left == 0)
        do_deed();
}

/* Nobody else works meanwhile, so nobody is woken: a sleep is time that passes, some of it at once. */
static bool on_sleep(int64_t timeout_ms)
{
    pass(timeout_ms < WAIT_MS / 4 ? timeout_ms : WAIT_MS / 4);
    world->totals.stalls++;
    return true;
}

static void take_points(void)
{
    idem_point_hook = on_point;
    idem_sleep_hook = on_sleep;
}

/* ------------------------------------------------------------------ calls */

static struct day_call *calling(enum history_kind kind, unsigned key, uint32_t life)
{
    CHECK(world->calls < (int)CALLS_POOL);
    int n = world->calls++;
    struct day_call *c = &world->call[n];
    struct day_key *k = &world->key[key];
    *c = (struct day_call){.call = {.kind = kind, .key = key, .worker = life, .called_ms = now_ms()}, .next = -1};
    c->call.called = next_stamp();
    *(k->first < 0 ? &k->first : &world->call[k->last].next) = n;
    k->last = n;
    k->calls++;
    k->asked = true;
    world->totals.calls++;
    return c;
}

static bool unwritten(int verdict)
{
    return verdict == IDEM_E_LOG || verdict == IDEM_E_LOG_SPACE || verdict == IDEM_E_LOG_STALLED;
}

static bool somebody_sleeps(void)
{
    for (unsigned i = 0; i < WORKERS; i++)
        if (world->workers[i].state == WORKER_STOPPED && &world->workers[i] != me)
            return true;
    return false;
}

static void returned(struct day_call *c, int verdict, uint64_t strikes)
{
    c->call.verdict = verdict;
    c->call.returned_ms = now_ms();
    c->call.returned = next_stamp();
    mix((uint64_t)c->call.kind << 32 | c->call.key, (uint64_t)(int64_t)verdict);
    mix(c->call.token, c->call.value);
    mix((uint64_t)c->call.returned_ms, c->call.lost_token);
    if (unwritten(verdict)) { /* there must be a reason */
        CHECK(world->strikes > strikes || somebody_sleeps() || (me != NULL && me->resumes != resumed));
        c->call.durable = false;
    }
    struct day_key *k = &world->key[c->call.key];
    bool granted = c->call.kind == CALL_BEGIN && (verdict == IDEM_CLAIMED || verdict == IDEM_RECLAIMED);
    bool answered = c->call.kind == CALL_COMPLETE || c->call.kind == CALL_RESOLVE;
    int64_t held_ms =
        granted || c->call.kind == CALL_RENEW ? now_ms() + c->call.lease_ms : 0; /* a running lease keeps a claim */
    if (granted || (answered && (verdict == IDEM_OK || unwritten(verdict))))
        k->record_ms = c->call.called_ms + c->call.ttl_ms;
    k->over_ms = held_ms > k->over_ms ? held_ms : k->over_ms;
    k->over_ms = k->record_ms > k->over_ms ? k->record_ms : k->over_ms;
    c->over_ms = c->call.kind == CALL_FORGET ? INT64_MAX : k->record_ms;
    c->call.durable &=
        c->over_ms > now_ms(); /* or it slept until that was over: then it need not be written any more */
}

static uint64_t number_in(const void *bytes, size_t n)
{
    uint64_t number = 0;
    if (bytes != NULL && n == sizeof number)
        memcpy(&number, bytes, sizeof number);
    return n != 0 && n != sizeof number ? UINT64_MAX : number;
}

/* An answer's metadata follow from its number. */
static size_t meta_of(uint64_t value, uint8_t meta[META_MAX])
{
    uint64_t random = value | 1;
    size_t n = support_random(&random) % META_MAX;
    memset(meta, (int)(support_random(&random) & 255), n);
    return n;
}

static void told_answer(struct history_call *c, const idem_reply *reply)
{
    uint8_t meta[META_MAX];
    c->value = number_in(reply->body, reply->body_bytes);
    size_t n = meta_of(c->value, meta);
    CHECK(reply->meta_bytes == n && (n == 0 || memcmp(reply->meta, meta, n) == 0));
    CHECK_IS(reply->flags & IDEM_REPLY_NOT_RETAINED, 0);
}

static int64_t some_ttl(void)
{
    static const int64_t most[] = {20 * MINUTE_MS, 4 * HOUR_MS, 12 * HOUR_MS, DAY_MS};
    uint64_t i = chance(4);
    return i == 3 ? DAY_MS : between(MINUTE_MS, most[i]);
}

static void begin_one(idem_store *s, uint32_t life, unsigned key)
{
    char name[48];
    name_of(key, name);
    struct day_key *k = &world->key[key];
    struct day_call *d = calling(CALL_BEGIN, key, life);
    struct history_call *c = &d->call;
    uint64_t strikes = world->strikes, how = chance(16);
    idem_request rq = support_request(name);
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    rq.fingerprint = c->fingerprint = chance(24) == 0 ? 2 : 1;
    rq.lease_ms = c->lease_ms = between(10 * SECOND_MS, 2 * HOUR_MS);
    rq.ttl_ms = c->ttl_ms = some_ttl();
    rq.wait_token = c->wait_token = chance(2) == 0 ? k->waiting : 0;
    c->synced = how < 3;
    rq.durability = how < 3 ? IDEM_DURABILITY_SYNC : how == 3 ? IDEM_DURABILITY_NONE : IDEM_DURABILITY_DEFAULT;
    int v = idem_begin(s, &rq, &claim, &reply);
    bool granted = v == IDEM_CLAIMED || v == IDEM_RECLAIMED;
    c->token = granted ? claim.token : reply.token;
    c->lost_token = v == IDEM_RECLAIMED ? reply.lost_token : 0;
    c->transient = v == IDEM_REPLAY && (reply.flags & IDEM_REPLY_TRANSIENT) != 0;
    c->durable = granted && c->synced;
    d->promised = granted && rq.durability != IDEM_DURABILITY_NONE;
    if (v == IDEM_REPLAY)
        told_answer(c, &reply);
    else
        c->value = number_in(reply.mark, reply.mark_bytes);
    if (v == IDEM_REPLAY && !c->transient && (c->value & SYNCED) != 0)
        c->durable = true;
    k->waiting = v == IDEM_IN_PROGRESS ? reply.token : 0;
    idem_reply_free(&reply);
    CHECK(v != IDEM_E_FULL);
    returned(d, v, strikes);
    if (granted) {
        k->claim[1] = k->claim[0];
        k->claim[0] = claim;
    }
}

static void act_on(idem_store *s, uint32_t life, unsigned key, const idem_claim *claim)
{
    static const enum history_kind kinds[] = {CALL_COMPLETE, CALL_COMPLETE, CALL_COMPLETE, CALL_COMPLETE,  CALL_ABANDON,
                                              CALL_DECLARE,  CALL_RENEW,    CALL_MARK,     CALL_TRANSIENT, CALL_ADOPT};
    struct day_call *d = calling(kinds[chance(sizeof kinds / sizeof kinds[0])], key, life);
    struct history_call *c = &d->call;
    uint64_t strikes = world->strikes, value = c->called << 8 | life % 251, how = chance(8),
             answered = world->key[key].answered;
    uint8_t meta[META_MAX];
    idem_response r = IDEM_RESPONSE_INIT;
    int v = IDEM_E_INVALID;
    c->token = claim->token;
    d->promised = true;
    switch (c->kind) {
    case CALL_TRANSIENT:
    case CALL_COMPLETE: /* a repetition changes nothing: it promises no more than the first one, unless it waits for the disk */
        r.flags = c->kind == CALL_TRANSIENT ? IDEM_RESPONSE_TRANSIENT : 0;
        value |= c->kind == CALL_TRANSIENT ? 0 : how < 4 ? SYNCED : how == 4 ? NEVER : 0;
        r.durability = value & SYNCED  ? IDEM_DURABILITY_SYNC
                       : value & NEVER ? IDEM_DURABILITY_NONE
                                       : IDEM_DURABILITY_ASYNC;
        d->promised = r.durability != IDEM_DURABILITY_NONE && world->key[key].answered != claim->token;
        world->key[key].answered = claim->token; /* also if it dies in there */
        c->value = value;
        r.body = &value;
        r.body_bytes = sizeof value;
        r.meta_bytes = meta_of(value, meta);
        r.meta = meta;
        r.ttl_ms = c->ttl_ms = some_ttl();
        v = idem_complete(s, claim, &r);
        if (v == IDEM_E_LOST)
            world->key[key].answered = answered;
        break;
    case CALL_ABANDON:
    case CALL_DECLARE:
        v = idem_abandon(s, claim, c->kind == CALL_ABANDON ? IDEM_NOTHING_HAPPENED : IDEM_OUTCOME_UNKNOWN);
        break;
    case CALL_RENEW:
        c->lease_ms = between(10 * SECOND_MS, 2 * HOUR_MS);
        v = idem_renew(s, claim, c->lease_ms);
        break;
    case CALL_ADOPT:
        v = idem_adopt(s, claim);
        break;
    default:
        c->value = value;
        v = idem_mark(s, claim, &value, sizeof value);
    }
    c->durable = (value & SYNCED) != 0 && v == IDEM_OK;
    d->promised &= v == IDEM_OK;
    CHECK(v != IDEM_TOMBSTONE && v != IDEM_E_FULL);
    returned(d, v, strikes);
}

static void look(idem_store *s, uint32_t life, unsigned key)
{
    char name[48];
    name_of(key, name);
    idem_key k = support_key(name);
    struct day_call *d = calling(CALL_LOOKUP, key, life);
    idem_reply reply = IDEM_REPLY_INIT;
    uint64_t strikes = world->strikes;
    int v = idem_lookup(s, &k, &reply);
    d->call.token = reply.token;
    if (v == IDEM_REPLAY)
        told_answer(&d->call, &reply);
    idem_reply_free(&reply);
    returned(d, v, strikes);
}

static void forget(idem_store *s, uint32_t life, unsigned key)
{
    char name[48];
    name_of(key, name);
    idem_key k = support_key(name);
    struct day_call *d = calling(CALL_FORGET, key, life);
    uint64_t strikes = world->strikes;
    int v = idem_forget(s, &k);
    d->promised = d->call.durable = v == IDEM_OK;
    returned(d, v, strikes);
}

static void operate(idem_store *s, uint32_t life, unsigned key, uint64_t token)
{
    static const enum history_kind kinds[] = {CALL_RELEASE, CALL_RESOLVE, CALL_RERUN};
    char name[48];
    name_of(key, name);
    idem_key k = support_key(name);
    struct day_call *d = calling(kinds[chance(3)], key, life);
    struct history_call *c = &d->call;
    uint64_t strikes = world->strikes, value = c->called << 8 | life % 251 | SYNCED;
    uint8_t meta[META_MAX];
    idem_response r = IDEM_RESPONSE_INIT;
    c->token = token;
    int v;
    if (c->kind == CALL_RELEASE) {
        v = idem_release(s, &k, c->token = chance(2) == 0 ? 0 : token);
    } else {
        c->value = c->kind == CALL_RESOLVE ? value : 0;
        r.body = &value;
        r.body_bytes = sizeof value;
        r.meta_bytes = meta_of(value, meta);
        r.meta = meta;
        r.ttl_ms = c->kind == CALL_RESOLVE ? some_ttl() : DAY_MS;
        c->ttl_ms = r.ttl_ms;
        v = idem_resolve(s, &k, token, c->kind == CALL_RESOLVE ? IDEM_RESOLVE_COMPLETED : IDEM_RESOLVE_RERUN, &r);
    }
    d->promised = v == IDEM_OK;
    c->durable = c->kind == CALL_RESOLVE && v == IDEM_OK;
    CHECK(v != IDEM_TOMBSTONE && v != IDEM_E_FULL);
    returned(d, v, strikes);
}

/* ------------------------------------------------------------------ a worker */

static unsigned new_key(void)
{
    CHECK(world->keys < KEYS_MAX);
    world->key[world->keys] = (struct day_key){.first = -1, .last = -1};
    return world->keys++;
}

/* A new one, one of those of the last hours, or, as a retry, one of the last day. */
static unsigned some_key(void)
{
    uint64_t how = chance(12);
    if (world->keys < 8 || how == 0)
        return new_key();
    unsigned span = how < 9 ? 12 : 600;
    unsigned key = world->keys - 1 - (unsigned)chance(world->keys < span ? world->keys : span);
    return world->key[key].calls < CALLS_A_KEY ? key : new_key();
}

static void one_call(idem_store *s, uint32_t life)
{
    unsigned key = some_key();
    uint64_t dice = chance(100);
    idem_claim claim = world->key[key].claim[chance(8) == 0];
    if (dice < 6)
        look(s, life, key);
    else if (dice < 8)
        forget(s, life, key);
    else if (dice < 55 || claim.token == 0)
        begin_one(s, life, key);
    else if (dice < 59)
        operate(s, life, key, claim.token);
    else
        act_on(s, life, key, &claim);
}

static void work(void *number)
{
    me = &world->workers[(uintptr_t)number];
    uint32_t life = me->life;
    take_points();
    idem_store *s = support_open_with(world->store, IDEM_OPEN_NO_FLUSHER);
    sem_post(&world->through);
    for (;;) {
        while (sem_wait(&me->go) != 0)
            CHECK(errno == EINTR);
        if (me->leave)
            break;
        resumed = me->resumes;
        points_left = me->deed != DEED_NONE ? me->points : 0;
        for (unsigned i = 0; i < me->calls && me->resumes == resumed; i++) {
            pass(between(0, 2 * 10 * MINUTE_MS / (int64_t)me->calls - 1));
            one_call(s, life);
        }
        points_left = 0;
        sem_post(&world->through);
    }
    idem_close(s);
    sem_post(&world->through);
}

/* Waits until the one that runs is through, dead, or stopped. Losing patience is no check: no fault is caught by it. */
static void wait_through(void)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += SUPPORT_PATIENCE_MS / 1000;
    for (;;) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        if (t.tv_sec >= end.tv_sec)
            _exit(WEEK_STUCK);
        t.tv_nsec += 200000000;
        t.tv_sec += t.tv_nsec / 1000000000;
        t.tv_nsec %= 1000000000;
        if (sem_timedwait(&world->through, &t) == 0)
            return;
        for (unsigned i = 0; i < WORKERS; i++) { /* did a check of its own fail? */
            siginfo_t gone = {.si_pid = 0};
            if (world->workers[i].pid > 0 &&
                waitid(P_PID, (id_t)world->workers[i].pid, &gone, WEXITED | WNOHANG | WNOWAIT) == 0 &&
                gone.si_pid != 0 && gone.si_code == CLD_EXITED && gone.si_status != 0)
                _exit(SUPPORT_FAILED);
        }
    }
}

static void start_worker(unsigned i)
{
    struct worker *x = &world->workers[i];
    CHECK(world->lives < LIVES_MAX);
    x->life = world->lives++;
    x->state = WORKER_IDLE;
    x->leave = false;
    x->resumes = 0;
    x->pid = support_spawn(work, (void *)(uintptr_t)i);
    wait_through();
}

static void reap_worker(struct worker *x)
{
    CHECK_IS(support_reap(x->pid, SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
    world->deaths[x->life].known_ms = now_ms();
    world->deaths[x->life].known = next_stamp();
    x->pid = 0;
    x->state = WORKER_NONE;
}

static void kill_worker(struct worker *x)
{
    if (x->state == WORKER_NONE)
        return;
    world->deaths[x->life].sent = next_stamp();
    support_kill(x->pid, SIGKILL);
    reap_worker(x);
    world->totals.killed++;
}

/* Lets it do so many calls; a deed: it is killed, or stops, at its so manieth point. */
static void work_shift(struct worker *x, unsigned calls, enum deed deed, unsigned points)
{
    x->calls = calls;
    x->deed = deed;
    x->points = points;
    uint64_t sent = next_stamp();
    sem_post(&x->go);
    wait_through();
    if (deed == DEED_NONE || x->state == WORKER_STOPPED) {
        if (x->state == WORKER_STOPPED)
            CHECK(support_wait_stopped(x->pid, SUPPORT_PATIENCE_MS));
        world->totals.stopped += x->state == WORKER_STOPPED;
        return;
    }
    if (deed == DEED_KILL) { /* dead, or through without having come so far */
        world->deaths[x->life].sent = sent;
        support_kill(x->pid, SIGKILL);
        reap_worker(x);
        world->totals.killed++;
    }
}

static void resume_worker(struct worker *x)
{
    x->state = WORKER_IDLE;
    x->resumes++;
    support_kill(x->pid, SIGCONT);
    wait_through();
}

static void let_worker_leave(struct worker *x)
{
    world->deaths[x->life].sent = next_stamp();
    x->leave = true;
    sem_post(&x->go);
    wait_through();
    CHECK_IS(support_reap(x->pid, SUPPORT_PATIENCE_MS), 0);
    world->deaths[x->life].known_ms = now_ms();
    world->deaths[x->life].known = next_stamp();
    x->pid = 0;
    x->state = WORKER_NONE;
}

#endif
