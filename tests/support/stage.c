/* tests/support/stage.c - see stage.h. */
#include "support/stage.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "store/handle.h"

static char the_case[160];
static unsigned broken;
static bool silent;

static const char neighbour_body[] = "an answer that nobody may lose or change, long enough to lie in several words "
                                     "and to be torn if it were written while "
                                     "it is read: 0123456789 abcdefghijklmnopqrstuvwxyz";
#define LEFT_MARK "left here"

void stage_case(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(the_case, sizeof the_case, format, args);
    va_end(args);
}

void stage_broken(const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!silent && broken < 40)
        print_error("%s: %s\n", the_case, text);
    broken++;
}

unsigned stage_broken_count(void)
{
    return broken;
}

unsigned stage_take_broken(bool quiet)
{
    unsigned n = broken;
    broken = 0;
    silent = quiet;
    return n;
}

/* ------------------------------------------------------------------ the store */

idem_options stage_options(void)
{
    idem_options o = IDEM_OPTIONS_INIT;
    o.flags = IDEM_OPEN_CREATE;
    o.keys = 16;
    o.response_bytes = 64;
    o.processes = 32;
    o.lanes = 32;
    o.lease_ms = STAGE_LEASE_MS;
    o.ttl_ms = STAGE_TTL_MS;
    o.huge = IDEM_HUGE_OFF;
    return o;
}

/* The secret is random: look for names that fall into one bucket. */
static void find_keys(struct stage *st)
{
    const struct idem_view *v = st->peer->view;
    uint64_t home = 0;
    unsigned found = 0;
    for (unsigned i = 0; found < STAGE_KEYS && i < 100000; i++) {
        char name[sizeof st->key[0]];
        int n = snprintf(name, sizeof name, "key-%u", i);
        struct idem_index_key k;
        CHECK_IS(idem_key_prepare(v, &(idem_key){.key = name, .key_bytes = (size_t)n}, NULL, &k), IDEM_OK);
        uint64_t at = idem_home_of(v, k.hash);
        if (found == 0)
            home = at;
        if (at == home)
            memcpy(st->key[found++], name, sizeof name);
    }
    CHECK_IS(found, STAGE_KEYS);
}

idem_request stage_request(const struct stage *st, unsigned k)
{
    idem_request r = support_request(st->key[k]);
    r.fingerprint = STAGE_FINGERPRINT;
    return r;
}

static void grew(struct stage *st, unsigned k, uint64_t token)
{
    if (token <= st->newest[k])
        stage_broken("key %u: token %llu after %llu", k, (unsigned long long)token, (unsigned long long)st->newest[k]);
    else
        st->newest[k] = token;
}

int stage_begin(struct stage *st, idem_store *store, unsigned k, idem_claim *claim, idem_reply *reply)
{
    idem_request r = stage_request(st, k);
    if (k != STAGE_KEY)
        r.ttl_ms = STAGE_NEIGHBOURS_MS;
    idem_claim unwanted;
    idem_claim *c = claim != NULL ? claim : &unwanted;
    int v = idem_begin(store, &r, c, reply);
    if (v == IDEM_CLAIMED || v == IDEM_RECLAIMED)
        grew(st, k, c->token);
    return v;
}

void stage_own(struct stage *st, unsigned k, const char *mark, uint32_t flags)
{
    idem_request r = stage_request(st, k);
    r.flags = flags;
    CHECK_IS(idem_begin(st->other, &r, &st->owned, NULL), IDEM_CLAIMED);
    grew(st, k, st->owned.token);
    if (mark != NULL)
        CHECK_IS(idem_mark(st->other, &st->owned, mark, strlen(mark)), IDEM_OK);
}

void stage_answer(struct stage *st, unsigned k, const char *body, int64_t ttl_ms)
{
    idem_request r = stage_request(st, k);
    r.ttl_ms = ttl_ms;
    idem_claim claim;
    CHECK_IS(idem_begin(st->peer, &r, &claim, NULL), IDEM_CLAIMED);
    grew(st, k, claim.token);
    CHECK_IS(support_complete(st->peer, &claim, 200, body), IDEM_OK);
}

struct dying {
    struct stage *st;
    unsigned k;
    const char *mark;
    uint32_t flags;
};

static void claim_and_die(struct crash_page *page, void *ctx)
{
    struct dying *d = ctx;
    idem_store *store = support_attach(d->st->dir);
    idem_request r = stage_request(d->st, d->k);
    r.flags = d->flags;
    crash_arm();
    page->verdict = idem_begin(store, &r, &page->claim, NULL);
    crash_disarm();
    CHECK_IS(page->verdict, IDEM_CLAIMED);
    if (d->mark != NULL)
        CHECK_IS(idem_mark(store, &page->claim, d->mark, strlen(d->mark)), IDEM_OK);
    raise(SIGKILL);
}

void stage_dead_claim(struct stage *st, unsigned k, const char *mark, uint32_t flags, const char *point)
{
    struct dying d = {st, k, mark, flags};
    struct crash_step step = {crash_point(point != NULL ? point : ""), 1, CRASH_KILL};
    struct crash_victim *v = crash_start(claim_and_die, &d, &step, 1);
    CHECK_IS(crash_wait(v), CRASH_KILLED);
    if (v->page->claim.token != 0) {
        grew(st, k, v->page->claim.token);
        if (k == STAGE_KEY)
            st->old[st->old_n++] = v->page->claim;
    }
}

void stage_open(struct stage *st, const idem_options *options, bool quiet)
{
    memset(st, 0, sizeof *st);
    st->options = options != NULL ? *options : stage_options();
    st->dir = support_dir();
    st->peer = support_open(st->dir, &st->options);
    st->other = support_attach(st->dir);
    st->neighbours = true;
    st->quiet = quiet;
    st->evicts = st->options.when_full == IDEM_FULL_EVICT;
    find_keys(st);
    stage_answer(st, STAGE_ANSWERED, neighbour_body, STAGE_NEIGHBOURS_MS);
    if (!quiet)
        CHECK_IS(stage_begin(st, st->other, STAGE_RUNNING, &st->running, NULL), IDEM_CLAIMED);
    idem_claim left;
    CHECK_IS(stage_begin(st, st->other, STAGE_LEFT, &left, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_mark(st->other, &left, LEFT_MARK, strlen(LEFT_MARK)), IDEM_OK);
    CHECK_IS(idem_abandon(st->other, &left, IDEM_NOTHING_HAPPENED), IDEM_OK);
}

void stage_close(struct stage *st)
{
    idem_close(st->peer);
    idem_close(st->other);
    support_remove(st->dir);
}

/* ------------------------------------------------------------------ time and traffic */

void stage_advance(struct stage *st, int64_t ms)
{
    while (ms > 0) {
        int64_t step_ms = ms < 4000 ? ms : 4000;
        support_clock_add(step_ms);
        ms -= step_ms;
        if (!st->neighbours || st->quiet)
            continue;
        int e = idem_renew(st->other, &st->running, STAGE_LEASE_MS);
        if (e != IDEM_OK && !(e == IDEM_E_FULL && st->full))
            stage_broken("a live owner cannot renew: %s (%s)", idem_strerror(e), idem_error_detail());
    }
}

void stage_maintain(struct stage *st)
{
    int more = 1;
    for (unsigned i = 0; more == 1 && i < 400; i++)
        more = idem_maintain(st->peer, 20000);
    if (more != IDEM_OK)
        stage_broken("the sweep does not come to an end: %d", more);
}

/* Long keys, so that the claims fill a region, as the answers do; mostly zeros, as they are what is mistaken for something most easily. */
static void one_of_the_storm(struct stage *st, idem_store *store, unsigned i)
{
    char key[900] = {0}, body[1024] = {0};
    snprintf(key, sizeof key, "storm-%u", i);
    idem_request rq = IDEM_REQUEST_INIT;
    rq.key = (idem_key){.key = key, .key_bytes = sizeof key};
    rq.lease_ms = 500;
    rq.ttl_ms = 1000;
    idem_claim claim;
    int v = idem_begin(store, &rq, &claim, NULL);
    if (v == IDEM_E_FULL && st->full)
        return;
    snprintf(body, sizeof body, "%u %llu", i, (unsigned long long)claim.token);
    idem_response p = IDEM_RESPONSE_INIT;
    p.body = body;
    p.body_bytes = sizeof body;
    int e = v == IDEM_CLAIMED ? idem_complete(store, &claim, &p) : v;
    if (e != IDEM_OK && !(e == IDEM_TOMBSTONE && st->full))
        stage_broken("storm: key %u: begin %d, then %d (%s)", i, v, e, idem_error_detail());
    idem_reply reply = IDEM_REPLY_INIT;
    v = idem_begin(store, &rq, &claim, &reply);
    if (e == IDEM_OK &&
        (v != IDEM_REPLAY || reply.body_bytes != sizeof body || memcmp(reply.body, body, sizeof body) != 0))
        stage_broken("storm: key %u is not replayed: %d", i, v);
    idem_reply_free(&reply);
}

void stage_traffic(struct stage *st)
{
    for (unsigned i = 0; i < 60; i++)
        one_of_the_storm(st, i % 2 == 0 ? st->peer : st->other, i);
    stage_advance(st, 4000);
}

void stage_storm(struct stage *st, unsigned rounds)
{
    for (unsigned r = 0; r < rounds; r++) {
        stage_traffic(st);
        stage_maintain(st);
        stage_neighbours(st);
    }
}

uint64_t stage_swept(struct stage *st)
{
    uint64_t now = support_stats(st->peer).swept_regions, since = now - st->swept;
    st->swept = now;
    return since;
}

/* ------------------------------------------------------------------ checks */

static void on_problem(void *ctx, const char *sentence)
{
    (void)ctx;
    stage_broken("verify: %s", sentence);
}

void stage_verify(struct stage *st)
{
    idem_report report = IDEM_REPORT_INIT;
    report.problem = on_problem;
    int e = idem_verify(st->dir, &report);
    if (e != IDEM_OK && report.problems == 0)
        stage_broken("verify: %s (%s)", idem_strerror(e), idem_error_detail());
}

static bool text_is(const void *at, size_t bytes, const char *text)
{
    size_t n = text != NULL ? strlen(text) : 0;
    return bytes == n && (n == 0 || memcmp(at, text, n) == 0);
}

static void answer_is(struct stage *st, idem_store *store, unsigned k, const char *body)
{
    idem_reply r = IDEM_REPLY_INIT;
    int v = stage_begin(st, store, k, NULL, &r);
    if (v != IDEM_REPLAY)
        stage_broken("key %u: %d (%s) instead of its answer", k, v, idem_strerror(v));
    else if (body == NULL ? (r.flags & IDEM_REPLY_NOT_RETAINED) == 0 : !text_is(r.body, r.body_bytes, body))
        stage_broken("key %u: another answer: '%.*s'", k, (int)(r.body_bytes < 60 ? r.body_bytes : 60),
                     r.body != NULL ? (const char *)r.body : "");
    idem_reply_free(&r);
}

void stage_neighbours(struct stage *st)
{
    if (!st->neighbours)
        return;
    if (!st->evicts)
        answer_is(st, st->peer, STAGE_ANSWERED, neighbour_body);
    if (st->quiet)
        return;
    idem_reply r = IDEM_REPLY_INIT;
    int v = stage_begin(st, st->peer, STAGE_RUNNING, NULL, &r);
    if (v != IDEM_IN_PROGRESS || r.token != st->running.token)
        stage_broken("the neighbour in progress: %d (%s), token %llu", v, idem_strerror(v),
                     (unsigned long long)r.token);
    idem_reply_free(&r);
}

/* The neighbours' own life goes on, and a key of the same bucket that was never used can be. */
static void neighbours_work(struct stage *st)
{
    if (!st->neighbours)
        return;
    stage_neighbours(st);
    int e = st->quiet ? IDEM_OK : support_complete(st->other, &st->running, 200, "ran to its end");
    if (e != IDEM_OK && !(e == IDEM_TOMBSTONE && st->full))
        stage_broken("the neighbour in progress cannot complete: %s (%s)", idem_strerror(e), idem_error_detail());
    st->neighbours = false; /* nobody has to renew it from here on */
    if (!st->evicts && !st->quiet)
        answer_is(st, st->peer, STAGE_RUNNING, e == IDEM_OK ? "ran to its end" : NULL);
    for (unsigned k = STAGE_LEFT; k <= STAGE_NEW; k++) {
        idem_reply r = IDEM_REPLY_INIT;
        idem_claim c;
        int v = stage_begin(st, st->peer, k, &c, &r);
        const char *mark = k == STAGE_LEFT ? LEFT_MARK : NULL;
        if (v == IDEM_E_FULL && st->full)
            continue;
        if (v != IDEM_CLAIMED || c.attempt != (k == STAGE_LEFT ? 2 : 1) || !text_is(r.mark, r.mark_bytes, mark))
            stage_broken("neighbour %u cannot be claimed as it should: %d (%s), attempt %u", k, v, idem_strerror(v),
                         c.attempt);
        else if ((e = support_complete(st->peer, &c, 200, "neighbour")) != IDEM_OK && !st->full)
            stage_broken("neighbour %u cannot be completed: %d", k, e);
        else
            answer_is(st, st->other, k, e == IDEM_OK ? "neighbour" : NULL);
        idem_reply_free(&r);
    }
}

/* Whoever was the owner before: nothing he does counts. */
static void old_ones_are_fenced(struct stage *st, uint64_t but_token)
{
    for (unsigned i = 0; i < st->old_n; i++) {
        const idem_claim *c = &st->old[i];
        if (c->token == but_token)
            continue;
        int e[4] = {support_complete(st->other, c, 500, "too late"), idem_renew(st->other, c, 0),
                    idem_mark(st->other, c, "too late", 8), idem_abandon(st->other, c, IDEM_OUTCOME_UNKNOWN)};
        for (unsigned j = 0; j < 4; j++)
            if (e[j] != IDEM_E_LOST)
                stage_broken("the old token %llu is not fenced: call %u says %d (%s)", (unsigned long long)c->token, j,
                             e[j], idem_strerror(e[j]));
    }
}

static void finish_claim(struct stage *st, const idem_claim *c)
{
    idem_reply r = IDEM_REPLY_INIT;
    int v = stage_begin(st, st->other, STAGE_KEY, NULL, &r);
    if (v != IDEM_IN_PROGRESS || r.token != c->token)
        stage_broken("a second claimant is told %d (%s), token %llu of %llu", v, idem_strerror(v),
                     (unsigned long long)r.token, (unsigned long long)c->token);
    idem_reply_free(&r);
    old_ones_are_fenced(st, c->token);
    int e = support_complete(st->peer, c, 201, "the peer's answer");
    if (e != IDEM_OK && !(e == IDEM_TOMBSTONE && st->full))
        stage_broken("the new owner cannot complete: %d (%s; %s)", e, idem_strerror(e), idem_error_detail());
    const char *body = e == IDEM_OK ? "the peer's answer" : NULL;
    answer_is(st, st->peer, STAGE_KEY, body);
    answer_is(st, st->other, STAGE_KEY, body);
    old_ones_are_fenced(st, c->token);
    answer_is(st, st->other, STAGE_KEY, body);
    st->old[st->old_n++] = *c;
}

static void claim_is(const struct stage_fate *fate, int v, const idem_claim *c, const idem_reply *r)
{
    if (fate == NULL)
        return;
    if (fate->attempt != 0 && c->attempt != fate->attempt)
        stage_broken("attempt %u instead of %u", c->attempt, fate->attempt);
    if (!text_is(r->mark, r->mark_bytes, fate->mark))
        stage_broken("mark '%.*s' instead of '%s'", (int)r->mark_bytes, r->mark != NULL ? (const char *)r->mark : "",
                     fate->mark != NULL ? fate->mark : "");
    if (v == IDEM_RECLAIMED && fate->reason >= 0 && (int)r->lost_reason != fate->reason)
        stage_broken("lost for reason %u instead of %d", r->lost_reason, fate->reason);
    if (v == IDEM_RECLAIMED && (r->lost_token == 0 || r->lost_token >= c->token))
        stage_broken("lost token %llu, new token %llu", (unsigned long long)r->lost_token,
                     (unsigned long long)c->token);
}

/* Held: nobody redoes it until it is resolved. */
static int settle(struct stage *st, idem_claim *c, idem_reply *r)
{
    int e = idem_resolve(st->peer, &(idem_key){.key = st->key[STAGE_KEY], .key_bytes = strlen(st->key[STAGE_KEY])},
                         r->lost_token, IDEM_RESOLVE_RERUN, NULL);
    if (e != IDEM_OK)
        stage_broken("a held key cannot be resolved: %d (%s)", e, idem_error_detail());
    idem_reply_free(r);
    return stage_begin(st, st->peer, STAGE_KEY, c, r);
}

void stage_fate(struct stage *st, const struct stage_fate *fate)
{
    idem_reply r = IDEM_REPLY_INIT;
    idem_claim c;
    int v = stage_begin(st, st->peer, STAGE_KEY, &c, &r);
    st->said = v;
    st->said_attempt = c.attempt;
    if (fate != NULL && v != fate->verdict)
        stage_broken("begin says %d (%s; %s), should be %d", v, idem_strerror(v), v < 0 ? idem_error_detail() : "",
                     fate->verdict);
    if (v == IDEM_UNKNOWN)
        v = settle(st, &c, &r);
    if (v == IDEM_CLAIMED || v == IDEM_RECLAIMED) {
        claim_is(fate != NULL && fate->verdict == v ? fate : NULL, v, &c, &r);
        finish_claim(st, &c);
    } else if (v == IDEM_REPLAY) {
        if (fate != NULL && fate->verdict == IDEM_REPLAY)
            answer_is(st, st->other, STAGE_KEY, fate->body);
        old_ones_are_fenced(st, r.token);
    } else if (v == IDEM_IN_PROGRESS && st->owned.token != 0 && r.token == st->owned.token) {
        int e = support_complete(st->other, &st->owned, 200, "the owner's answer");
        if (e != IDEM_OK)
            stage_broken("the live owner cannot complete: %d (%s)", e, idem_error_detail());
        answer_is(st, st->peer, STAGE_KEY, "the owner's answer");
    } else if (!(v == IDEM_E_FULL && st->full)) {
        stage_broken("nobody can go on with the key: %d (%s)", v, idem_strerror(v));
    }
    idem_reply_free(&r);
}

void stage_memory_returns(struct stage *st)
{
    support_clock_add(2 * STAGE_NEIGHBOURS_MS);
    stage_maintain(st);
    idem_stats_data s = support_stats(st->peer);
    if (s.regions_free != s.regions)
        stage_broken("%llu of %llu regions are free after everything has expired, %llu are open, %llu draining",
                     (unsigned long long)s.regions_free, (unsigned long long)s.regions,
                     (unsigned long long)s.regions_open, (unsigned long long)s.regions_draining);
    const struct idem_view *v = st->peer->view;
    for (uint64_t b = 0; b < v->bucket_count; b++)
        for (unsigned i = 0; i < IDEM_BUCKET_SLOTS; i++)
            if (load_acquire(&v->buckets[b].slots[i]) != 0)
                stage_broken("bucket %llu slot %u is still taken: %016llx", (unsigned long long)b, i,
                             (unsigned long long)load_acquire(&v->buckets[b].slots[i]));
    stage_verify(st);
    st->full = false;
    for (unsigned k = 0; k < STAGE_KEYS; k++) {
        idem_claim c;
        int e = stage_begin(st, st->peer, k, &c, NULL);
        if (e != IDEM_CLAIMED || c.attempt != 1)
            stage_broken("key %u cannot be used again: %d (%s), attempt %u", k, e, idem_strerror(e), c.attempt);
        else if ((e = support_complete(st->peer, &c, 200, "again")) != IDEM_OK)
            stage_broken("key %u cannot be completed again: %d", k, e);
        else
            answer_is(st, st->other, k, "again");
    }
    old_ones_are_fenced(st, 0);
}

void stage_promises(struct stage *st, const struct stage_fate *fate)
{
    stage_verify(st);
    stage_fate(st, fate);
    neighbours_work(st);
    stage_verify(st);
    stage_memory_returns(st);
    stage_verify(st);
}
