/*
 * tests/support/history.c - see history.h.
 *
 * The search is Wing and Gong's, with the memory of Lowe: what is left to explain depends only on which calls have taken effect and on the
 * state that they led to, so no such pair is looked at twice.
 */
#include "support/history.h"

#include <stdlib.h>
#include <string.h>

#include "idem.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wshadow"
#define XXH_INLINE_ALL
#include <xxhash.h>
#pragma GCC diagnostic pop

/* ------------------------------------------------------------------ the model of one key */

enum { ABSENT, RUNNING, DECLARED, ABANDONED, DONE };

struct key_state {
    uint64_t kind;
    uint64_t token;      /* of the newest attempt; 0: its claimant died before he could tell */
    uint64_t largest;    /* that anybody was told of */
    uint64_t lost;       /* an earlier attempt was lost, and is remembered */
    uint64_t lost_token; /* the newest such; 0: nobody was told it */
    uint64_t body, mark;
    uint64_t fingerprint;
    uint64_t owner;   /* RUNNING: a worker */
    uint64_t crashed; /* RUNNING: when the machine died */
    uint64_t
        old; /* claims with tokens up to it were made before the machine died: their place may be another key\'s by now */
    int64_t lease_first, lease_last;     /* when the lease ends: between these */
    int64_t expiry_first, expiry_last;   /* when the record ends */
    uint64_t transient_token, transient; /* an answer that was not kept, of this attempt or the one before; 0: none */
    uint64_t transient_fingerprint;
    uint64_t transient_newest; /* nothing has happened since */
    uint64_t waiting; /* RUNNING: it waits for the disk, and will be ended before it is given out; the call, from 1 */
    uint64_t granted; /* which calls were granted a claim that was ended so */
    uint64_t way;     /* of states since the newest that is durable: a crash may go back to each */
};

/* By what a claim may have been granted: the attempt before was abandoned, or its record is gone (or there was none), or it was lost. */
enum { WAY_ABANDONED, WAY_GONE, WAY_LOST, WAYS };

#define TAKEN_MAX (2 * HISTORY_CALLS_MAX) /* calls, and claims that were ended before they were given out */

struct search {
    const struct history_call *calls;
    const struct history_death *deaths;
    unsigned n;
    uint64_t crashes;                 /* which of the calls are */
    struct key_state path[TAKEN_MAX]; /* as what took effect led through them */
    unsigned durable[TAKEN_MAX + 1];  /* the first of path that a crash may go back to, by its length */
    uint64_t seen_count;
};

#define SEEN_SLOTS (UINT64_C(1) << 18)
/* One table for all checks: what an earlier one has left counts as empty. */
static struct seen {
    uint64_t done, state, check;
} table[SEEN_SLOTS];
static uint64_t checks;

#define CRASH_MS 1000 /* how far off the store's time may be after it */

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static bool owner_may_be_dead(const struct search *s, const struct key_state *k, const struct history_call *c)
{
    uint64_t sent = s->deaths[k->owner].sent;
    return k->crashed || (sent != 0 && (c->returned == 0 || sent < c->returned));
}

static bool owner_must_be_dead(const struct search *s, const struct key_state *k, const struct history_call *c)
{
    uint64_t known = s->deaths[k->owner].known;
    return k->crashed || (known != 0 && known < c->called);
}

/* A running lease keeps a claim beyond its record's end. */
static bool may_be_gone(const struct key_state *k, const struct history_call *c)
{
    int64_t end = k->kind == RUNNING ? later(k->expiry_first, k->lease_first) : k->expiry_first;
    return k->kind == ABSENT || c->returned_ms >= end;
}

static bool must_be_gone(const struct key_state *k, const struct history_call *c)
{
    int64_t end = k->kind == RUNNING ? later(k->expiry_last, k->lease_last) : k->expiry_last;
    return k->kind == ABSENT || c->called_ms > end;
}

bool history_unwritten(const struct history_call *c)
{
    return c->returned != 0 &&
           (c->verdict == IDEM_E_LOG || c->verdict == IDEM_E_LOG_SPACE || c->verdict == IDEM_E_LOG_STALLED);
}

static bool may_be_lost(const struct search *s, const struct key_state *k, const struct history_call *c)
{
    return k->kind == DECLARED || (k->kind == ABANDONED && k->lost) ||
           (k->kind == RUNNING && (owner_may_be_dead(s, k, c) || c->returned_ms >= k->lease_first));
}

static bool must_be_lost(const struct search *s, const struct key_state *k, const struct history_call *c)
{
    return k->kind == DECLARED || (k->kind == RUNNING && (owner_must_be_dead(s, k, c) || c->called_ms > k->lease_last));
}

/* Is `told` the token of this attempt? If its claimant could not tell it, this is how it becomes known. */
static bool names(uint64_t *token, uint64_t *largest, uint64_t told)
{
    if (*token == 0 && told > *largest) {
        *token = told;
        *largest = told;
    }
    return told != 0 && *token == told;
}

static void set_lease(struct key_state *k, const struct history_call *c)
{
    k->lease_first = c->called_ms + c->lease_ms;
    k->lease_last = c->returned_ms + c->lease_ms;
}

static void set_expiry(struct key_state *k, const struct history_call *c)
{
    k->expiry_first = c->called_ms + c->ttl_ms;
    k->expiry_last = c->returned_ms + c->ttl_ms;
}

static void start_attempt(struct key_state *k, const struct history_call *c, uint64_t token)
{
    k->kind = RUNNING;
    k->token = token;
    if (token != 0)
        k->largest = token;
    k->body = 0;
    k->fingerprint = c->fingerprint;
    k->owner = c->worker;
    k->crashed = k->waiting = 0;
    set_lease(k, c);
    set_expiry(k, c);
}

/* A claim granted in this way, if there is this way. token 0: its claimant died before he could tell. */
static bool claim(const struct search *s, struct key_state *k, const struct history_call *c, int way, uint64_t token)
{
    switch (way) {
    case WAY_ABANDONED:
        if (k->kind != ABANDONED || k->lost || must_be_gone(k, c))
            return false;
        break;
    case WAY_GONE:
        if (!may_be_gone(k, c))
            return false;
        k->mark = k->lost = k->lost_token = k->transient_token = k->transient = k->transient_newest = 0;
        break;
    default:
        if (!may_be_lost(s, k, c) || must_be_gone(k, c) || k->fingerprint != c->fingerprint)
            return false;
        if (k->kind != ABANDONED)
            k->lost_token = k->token;
        k->lost = 1;
    }
    /* The attempt before the last is not remembered. */
    if (k->transient_token != k->token)
        k->transient_token = k->transient = 0;
    k->transient_newest = 0;
    start_attempt(k, c, token);
    return true;
}

/* Did it wait for the attempt whose answer was not kept? Then that is for it, while it is there. */
static bool is_transient_for(const struct key_state *k, const struct history_call *c)
{
    return k->transient_newest && c->wait_token == k->transient_token && k->kind == ABANDONED &&
           k->fingerprint == c->fingerprint && !may_be_gone(k, c);
}

/* The disk failed it: an answer that is not given out before it is durable, or a claim of its own, which it ends if nobody has. */
static bool refused_by_disk(const struct search *s, struct key_state *k, const struct history_call *c)
{
    uint64_t call = (uint64_t)(c - s->calls);
    if (k->kind == RUNNING && k->waiting == call + 1) {
        k->kind = ABANDONED;
        k->waiting = 0;
    }
    bool same = k->fingerprint == c->fingerprint;
    return (k->granted >> call & 1) || (k->kind == DONE && same && !must_be_gone(k, c));
}

static bool begun(const struct search *s, struct key_state *k, const struct history_call *c, int way)
{
    if (c->returned == 0)
        return claim(s, k, c, way, 0);
    bool same = k->fingerprint == c->fingerprint;
    if ((c->verdict == IDEM_CLAIMED || c->verdict == IDEM_RECLAIMED) && is_transient_for(k, c))
        return false;
    switch (c->verdict) {
    case IDEM_CLAIMED:
        return way != WAY_LOST && c->token > k->largest && claim(s, k, c, way, c->token) && c->value == k->mark;
    case IDEM_RECLAIMED:
        if (way != WAY_LOST || !names(k->kind == ABANDONED ? &k->lost_token : &k->token, &k->largest, c->lost_token))
            return false;
        return c->token > k->largest && claim(s, k, c, way, c->token) && c->value == k->mark;
    default:
        break;
    }
    if (way != WAY_ABANDONED) /* what follows grants nothing: once is enough */
        return false;
    switch (c->verdict) {
    case IDEM_REPLAY:
        if (c->transient)
            return (c->waits || c->wait_token == c->token) && k->transient_token == c->token &&
                   k->transient == c->value && k->transient_fingerprint == c->fingerprint && same &&
                   !must_be_gone(k, c);
        return k->kind == DONE && same && k->body == c->value && !must_be_gone(k, c) &&
               names(&k->token, &k->largest, c->token);
    case IDEM_IN_PROGRESS:
        return k->kind == RUNNING && same && !must_be_lost(s, k, c) && names(&k->token, &k->largest, c->token);
    case IDEM_MISMATCH:
        return !same && !must_be_gone(k, c) && (k->kind != ABANDONED || k->lost);
    default:
        return c->verdict == IDEM_E_FULL || (history_unwritten(c) && refused_by_disk(s, k, c));
    }
}

/* complete, abandon, renew, mark, adopt. */
static bool acted(struct key_state *k, const struct history_call *c)
{
    bool running = k->kind == RUNNING && k->token == c->token;
    bool completes = c->kind == CALL_COMPLETE || c->kind == CALL_TRANSIENT;
    bool again = completes && k->kind == DONE && k->token == c->token;
    bool said =
        c->kind == CALL_TRANSIENT && k->kind == ABANDONED && k->token == c->token && k->transient_token == c->token;
    again |= said;
    if (c->returned != 0 && c->verdict == IDEM_E_LOST)
        return (!running && (!again || (said && !k->transient_newest))) || c->token <= k->old || may_be_gone(k, c);
    if (c->returned != 0 && c->verdict == IDEM_E_FULL)
        return c->kind != CALL_COMPLETE && c->kind != CALL_ABANDON && c->kind != CALL_DECLARE;
    if (c->returned != 0 && c->verdict != IDEM_OK && !(completes && history_unwritten(c)))
        return false;
    if (again)
        return true;
    if (!running)
        return false;
    switch (c->kind) {
    case CALL_COMPLETE:
        k->kind = DONE;
        k->body = c->value;
        set_expiry(k, c);
        return true;
    case CALL_TRANSIENT:
        k->kind = ABANDONED;
        k->transient_token = k->token;
        k->transient = c->value;
        k->transient_fingerprint = k->fingerprint;
        k->transient_newest = 1;
        return true; /* its record ends when the attempt's would have */
    case CALL_ADOPT:
        k->owner = c->worker;
        k->crashed = 0;
        return true;
    case CALL_ABANDON:
        k->kind = ABANDONED;
        return true;
    case CALL_DECLARE:
        k->kind = DECLARED;
        return true;
    case CALL_RENEW:
        set_lease(k, c);
        return true;
    default:
        k->mark = c->value;
        return true;
    }
}

static bool forgotten(struct key_state *k, const struct history_call *c)
{
    if (c->returned != 0 && c->verdict == IDEM_E_NO_KEY)
        return may_be_gone(k, c);
    if ((c->returned != 0 && c->verdict != IDEM_OK && !history_unwritten(c)) || k->kind == ABSENT)
        return false;
    *k = (struct key_state){.kind = ABSENT, .largest = k->largest, .granted = k->granted, .old = k->old};
    return true;
}

static bool released(struct key_state *k, const struct history_call *c)
{
    bool running = k->kind == RUNNING && (c->token == 0 || k->token == c->token);
    if (c->returned != 0 && c->verdict == IDEM_E_NO_KEY)
        return may_be_gone(k, c);
    if (c->returned != 0 && c->verdict == IDEM_E_LOST)
        return !running && !must_be_gone(k, c);
    if ((c->returned != 0 && c->verdict != IDEM_OK) || !running || must_be_gone(k, c))
        return false;
    k->kind = DECLARED;
    return true;
}

/* By who has seen the loss: he names the attempt that is lost, or an earlier one. */
static bool resolved(const struct search *s, struct key_state *k, const struct history_call *c)
{
    bool lost_before = k->lost && (k->lost_token == c->token || k->lost_token == 0);
    bool newest = k->token != 0 ? k->token == c->token : c->token > k->largest;
    bool named = c->token != 0 && (newest || lost_before);
    bool earlier = k->kind == ABANDONED && k->lost;
    if (c->returned != 0 && c->verdict == IDEM_E_NO_KEY)
        return may_be_gone(k, c);
    if (c->returned != 0 && c->verdict == IDEM_E_LOST) {
        bool sure = named && k->token != 0 && (!k->lost || k->lost_token != 0) && (must_be_lost(s, k, c) || earlier);
        return !sure && !must_be_gone(k, c);
    }
    if (c->returned != 0 && c->verdict == IDEM_E_FULL)
        return c->kind == CALL_RESOLVE;
    if ((c->returned != 0 && c->verdict != IDEM_OK && !history_unwritten(c)) || !named ||
        !(may_be_lost(s, k, c) || earlier) || must_be_gone(k, c))
        return false;
    if (k->token == 0 && !lost_before)
        names(&k->token, &k->largest, c->token);
    k->lost = k->lost_token = k->transient_newest = 0;
    k->kind = c->kind == CALL_RESOLVE ? DONE : ABANDONED;
    if (c->kind == CALL_RESOLVE) {
        k->body = c->value;
        set_expiry(k, c);
    }
    return true;
}

static bool looked_up(const struct search *s, struct key_state *k, const struct history_call *c)
{
    switch (c->verdict) {
    case IDEM_REPLAY:
        return k->kind == DONE && k->body == c->value && !must_be_gone(k, c) && names(&k->token, &k->largest, c->token);
    case IDEM_IN_PROGRESS:
        return k->kind == RUNNING && !must_be_lost(s, k, c) && names(&k->token, &k->largest, c->token);
    case IDEM_UNKNOWN:
        return may_be_lost(s, k, c) && !must_be_gone(k, c);
    default:
        return (history_unwritten(c) && k->kind == DONE && !must_be_gone(k, c)) ||
               (c->verdict == IDEM_E_NO_KEY && (k->kind == ABANDONED || may_be_gone(k, c)));
    }
}

/* Takes the call's effect. False: in this state it could not have been told that, or this way of taking it does not exist. */
static bool take(const struct search *s, struct key_state *k, const struct history_call *c, int way)
{
    if (c->kind == CALL_BEGIN)
        return begun(s, k, c, way);
    if (way != WAY_ABANDONED)
        return false;
    switch (c->kind) {
    case CALL_FORGET:
        return forgotten(k, c);
    case CALL_LOOKUP:
        return looked_up(s, k, c);
    case CALL_RELEASE:
        return released(k, c);
    case CALL_RESOLVE:
    case CALL_RERUN:
        return resolved(s, k, c);
    default:
        return acted(k, c);
    }
}

/* The state that came back, after the machine's crash at c. */
static struct key_state crashed(const struct key_state *was, const struct key_state *now)
{
    struct key_state k = *was;
    k.largest = now->largest;
    k.granted = now->granted;
    k.waiting = 0;
    k.old = now->largest;
    k.crashed = k.kind == RUNNING; /* lost, but not over */
    k.lease_first = k.lease_last = 0;
    k.transient_token = k.transient = k.transient_newest = 0;
    k.expiry_first -= CRASH_MS;
    k.expiry_last += CRASH_MS;
    k.way = 0;
    return k;
}

/* ------------------------------------------------------------------ the search */

static enum history_answer is_new(struct search *s, uint64_t done, const struct key_state *k)
{
    struct seen x = {done, XXH3_64bits(k, sizeof *k), checks};
    for (uint64_t i = XXH3_64bits(&x, sizeof x) % SEEN_SLOTS;; i = (i + 1) % SEEN_SLOTS) {
        struct seen *at = &table[i];
        if (at->check != checks) {
            *at = x;
            return ++s->seen_count > SEEN_SLOTS / 2 ? HISTORY_TOO_LARGE : HISTORY_EXPLAINED;
        }
        if (at->done == x.done && at->state == x.state)
            return HISTORY_CONTRADICTS;
    }
}

static enum history_answer explain(struct search *s, uint64_t done, const struct key_state *k, unsigned taken);

/* What a crash can have left: each state since the newest durable one, the present one last. */
static enum history_answer explain_crash(struct search *s, uint64_t done, const struct key_state *k, unsigned taken)
{
    for (unsigned i = s->durable[taken]; i <= taken; i++) {
        struct key_state next = crashed(i == taken ? k : &s->path[i], k);
        s->path[taken] = *k;
        s->durable[taken + 1] = taken + 1;
        enum history_answer a = explain(s, done, &next, taken + 1);
        if (a != HISTORY_CONTRADICTS)
            return a;
    }
    return HISTORY_CONTRADICTS;
}

/* Among the calls that have taken effect: which states may still come back? */
static void note_state(struct search *s, uint64_t done, const struct history_call *c, const struct key_state *k,
                       struct key_state *next, unsigned taken)
{
    s->path[taken] = *k;
    s->durable[taken + 1] = c->durable && c->returned != 0 ? taken + 1 : s->durable[taken];
    if (s->crashes & ~done) /* one is still to come */
        next->way = s->durable[taken + 1] > taken ? 0 : XXH3_64bits(k, sizeof *k);
}

/* While a claim waits for the disk its attempt may be ended by others; then it begins again: as often as they like. Or it ends it itself. */
static enum history_answer explain_ended(struct search *s, uint64_t done, const struct key_state *k, unsigned taken,
                                         unsigned i)
{
    const struct history_call *c = &s->calls[i];
    struct history_call ended = {.durable = false};
    unsigned left = s->n - (unsigned)__builtin_popcountll(done);
    if ((k->kind == RUNNING && k->waiting == i + 1) || is_transient_for(k, c) || taken + left + 1 >= TAKEN_MAX)
        return HISTORY_CONTRADICTS;
    for (int way = 0; way < WAYS; way++) {
        struct key_state next = *k;
        if (!claim(s, &next, c, way, 0))
            continue;
        note_state(s, done, &ended, k, &next, taken);
        next.waiting = i + 1;
        next.granted |= history_unwritten(c) ? UINT64_C(1) << i : 0;
        enum history_answer a = explain(s, done, &next, taken + 1);
        if (a != HISTORY_CONTRADICTS)
            return a;
    }
    return HISTORY_CONTRADICTS;
}

/* Is there somebody to end it? */
static bool has_company(const struct search *s, uint64_t done, unsigned i)
{
    if (history_unwritten(&s->calls[i]))
        return true;
    for (unsigned j = 0; j < s->n; j++)
        if (j != i && !(done >> j & 1) && (s->calls[i].returned == 0 || s->calls[j].called < s->calls[i].returned))
            return true;
    return false;
}

static enum history_answer explain(struct search *s, uint64_t done, const struct key_state *k, unsigned taken)
{
    uint64_t first_return = UINT64_MAX;
    for (unsigned i = 0; i < s->n; i++)
        if (!(done >> i & 1) && s->calls[i].returned != 0 && s->calls[i].returned < first_return)
            first_return = s->calls[i].returned;
    if (first_return == UINT64_MAX) /* what is left was cut off, and need not have happened */
        return HISTORY_EXPLAINED;
    enum history_answer fresh = is_new(s, done, k);
    if (fresh != HISTORY_EXPLAINED)
        return fresh;
    for (unsigned i = 0; i < s->n && s->calls[i].called < first_return; i++) {
        if (done >> i & 1)
            continue;
        if (s->calls[i].kind == CALL_CRASH) {
            enum history_answer a = explain_crash(s, done | UINT64_C(1) << i, k, taken);
            if (a != HISTORY_CONTRADICTS)
                return a;
            continue;
        }
        for (int way = 0; way < WAYS; way++) {
            struct key_state next = *k;
            if (!take(s, &next, &s->calls[i], way))
                continue;
            note_state(s, done, &s->calls[i], k, &next, taken);
            enum history_answer a = explain(s, done | UINT64_C(1) << i, &next, taken + 1);
            if (a != HISTORY_CONTRADICTS)
                return a;
        }
        if (s->calls[i].synced && has_company(s, done, i)) {
            enum history_answer a = explain_ended(s, done, k, taken, i);
            if (a != HISTORY_CONTRADICTS)
                return a;
        }
    }
    return HISTORY_CONTRADICTS;
}

static int by_call(const void *a, const void *b)
{
    uint64_t x = ((const struct history_call *)a)->called, y = ((const struct history_call *)b)->called;
    return x < y ? -1 : x > y;
}

enum history_answer history_check(struct history_call *calls, unsigned n, const struct history_death *deaths)
{
    if (n > HISTORY_CALLS_MAX)
        return HISTORY_TOO_LARGE;
    qsort(calls, n, sizeof *calls, by_call);
    struct search s = {.calls = calls, .deaths = deaths, .n = n};
    checks++;
    for (unsigned i = 0; i < n; i++)
        s.crashes |= (uint64_t)(calls[i].kind == CALL_CRASH) << i;
    struct key_state absent = {.kind = ABSENT};
    return explain(&s, 0, &absent, 0);
}
