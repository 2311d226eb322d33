/*
 * tests/multi/test_wal_sync.c - a store with a log, from outside: what is on the disk when a call returns, with one process and several.
 *
 * What is on the disk is read by idem_log_walk(); that it would survive a crash is the crash tests' business.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/support.h"

struct place {
    const char *dir;
    char wal[160];
};

static struct place a_place(void)
{
    struct place p = {.dir = support_dir()};
    snprintf(p.wal, sizeof p.wal, "%s-log", p.dir);
    return p;
}

static idem_options log_options(const struct place *p, unsigned claim, unsigned complete)
{
    idem_options o = support_options(1000);
    o.wal_dir = p->wal;
    o.durability_claim = claim;
    o.durability_complete = complete;
    o.wal_file_bytes = 1 << 20;
    o.wal_ring_refs = 64;
    return o;
}

struct seen {
    const char *key;
    unsigned records, completed, claims, abandoned, forgotten, by_state[16];
    uint64_t token;
};

static int look(const idem_log_record *r, void *ctx)
{
    struct seen *s = ctx;
    if (r->key.key_bytes != strlen(s->key) || memcmp(r->key.key, s->key, r->key.key_bytes) != 0)
        return 0;
    s->records++;
    s->by_state[r->state & 15]++;
    s->completed += r->state == 2;
    s->claims += r->state == 1;
    s->abandoned += r->state == 3;
    s->forgotten += r->state == 7;
    s->token = r->token;
    return 0;
}

static struct seen on_disk(const struct place *p, const char *key)
{
    struct seen s = {.key = key};
    CHECK_IS(idem_log_walk(p->wal, look, &s), IDEM_OK);
    return s;
}

static void sync_calls_return_with_their_record_on_the_disk(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_store *s = support_open(p.dir, &o);
    idem_claim c;
    CHECK_IS(support_begin(s, "k", &c), IDEM_CLAIMED);
    CHECK_IS(on_disk(&p, "k").claims, 1);
    CHECK_IS(on_disk(&p, "k").token, c.token);
    CHECK_IS(idem_mark(s, &c, "m", 1), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").claims, 2);
    CHECK_IS(support_complete(s, &c, 200, "yes"), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").completed, 1);
    CHECK_IS(support_complete(s, &c, 200, "yes"), IDEM_OK);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_REPLAY);
    CHECK_IS(on_disk(&p, "k").records, 3);
    CHECK_IS(support_begin(s, "left", &c), IDEM_CLAIMED);
    CHECK_IS(idem_abandon(s, &c, IDEM_NOTHING_HAPPENED), IDEM_OK);
    CHECK_IS(on_disk(&p, "left").abandoned, 1);
    idem_key k = support_key("k");
    CHECK_IS(idem_forget(s, &k), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").forgotten, 1);
    idem_stats_data st = support_stats(s);
    CHECK_IS(st.log.present, 1);
    CHECK_IS(st.log.queued, 0);
    CHECK(st.log.syncs >= 5);
    CHECK_IS(st.log.trouble, IDEM_LOG_FINE);
    idem_close(s);
    support_verify(p.dir);
    support_remove(p.wal);
}

/* Repeating changes nothing of the answer, but keeps the promise that is asked for. */
static void completing_again_with_sync_waits_for_what_was_async(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_ASYNC);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_store *s = support_open(p.dir, &o);
    idem_claim c;
    idem_response r = support_response(200, "yes");
    CHECK_IS(support_begin(s, "k", &c), IDEM_CLAIMED);
    CHECK_IS(idem_complete(s, &c, &r), IDEM_OK);
    CHECK_IS(idem_complete(s, &c, &r), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").completed, 0);
    r.durability = IDEM_DURABILITY_SYNC;
    CHECK_IS(idem_complete(s, &c, &r), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").completed, 1);
    CHECK_IS(support_begin(s, "later", &c), IDEM_CLAIMED);
    r.flags = IDEM_RESPONSE_TRANSIENT;
    r.durability = IDEM_DURABILITY_ASYNC;
    CHECK_IS(idem_complete(s, &c, &r), IDEM_OK);
    CHECK_IS(on_disk(&p, "later").abandoned, 0);
    r.durability = IDEM_DURABILITY_SYNC;
    CHECK_IS(idem_complete(s, &c, &r), IDEM_OK);
    CHECK_IS(on_disk(&p, "later").abandoned, 1);
    idem_close(s);
    support_remove(p.wal);
}

static void so_do_waiting_and_what_operators_do(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_store *s = support_open(p.dir, &o);
    idem_request rq = support_request("k");
    idem_key key = support_key("k");
    idem_claim c;
    CHECK_IS(idem_wait(s, &rq, 0, &c, NULL), IDEM_CLAIMED);
    CHECK_IS(on_disk(&p, "k").claims, 1);
    CHECK_IS(idem_release(s, &key, c.token), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").by_state[5], 1);
    CHECK_IS(idem_resolve(s, &key, c.token, IDEM_RESOLVE_RERUN, NULL), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").by_state[6], 1);
    CHECK_IS(idem_wait(s, &rq, 0, &c, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_abandon(s, &c, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").by_state[4], 1);
    idem_response said = support_response(200, "yes");
    CHECK_IS(idem_resolve(s, &key, c.token, IDEM_RESOLVE_COMPLETED, &said), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").completed, 1);
    rq.key = support_key("none");
    rq.durability = IDEM_DURABILITY_NONE;
    said.durability = IDEM_DURABILITY_NONE;
    CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_complete(s, &c, &said), IDEM_OK);
    CHECK_IS(support_begin(s, "none", NULL), IDEM_REPLAY);
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    CHECK_IS(on_disk(&p, "none").records, 0);
    idem_close(s);
    support_remove(p.wal);
}

static bool written(void *ctx)
{
    return on_disk(ctx, "k").completed == 1;
}

static void async_is_written_by_the_flusher(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_ASYNC);
    idem_store *s = support_open(p.dir, &o);
    support_answer(s, "k", 200, "yes");
    CHECK(support_eventually(written, &p, SUPPORT_PATIENCE_MS));
    idem_close(s);
    support_remove(p.wal);
}

static void idem_sync_waits_for_what_was_pushed(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_ASYNC);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    o.flush_interval_ms = 10000;
    idem_store *s = support_open(p.dir, &o);
    support_answer(s, "k", 200, "yes");
    idem_claim c;
    CHECK_IS(support_begin(s, "open", &c), IDEM_CLAIMED);
    CHECK_IS(on_disk(&p, "k").records, 0);
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").completed, 1);
    CHECK_IS(on_disk(&p, "k").claims, 0); /* it ended before anybody came to write it */
    CHECK_IS(on_disk(&p, "open").claims, 1);
    idem_close(s);
    support_remove(p.wal);
}

static void a_full_ring_is_made_up_for_by_a_walk(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_ASYNC);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    o.flush_interval_ms = 10000;
    idem_store *s = support_open(p.dir, &o);
    char key[16];
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "k%d", i);
        support_answer(s, key, 200, "yes");
    }
    CHECK(support_stats(s).log.overflows > 0);
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "k%d", i);
        CHECK_IS(on_disk(&p, key).completed, 1);
    }
    CHECK(support_stats(s).log.walks > 0);
    idem_close(s);
    support_remove(p.wal);
}

/* ------------------------------------------------------------------ several processes */

static void claims_and_dies(void *ctx)
{
    struct place *p = ctx;
    idem_options o = log_options(p, 0, 0);
    o.flags = IDEM_OPEN_NO_FLUSHER;
    idem_store *s;
    CHECK_IS(idem_open(p->dir, &o, &s), IDEM_OK);
    char key[16];
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "k%d", i);
        support_answer(s, key, 200, "yes");
    }
    CHECK_IS(support_begin(s, "open", NULL), IDEM_CLAIMED);
    raise(SIGKILL);
}

static void what_killed_processes_pushed_is_written_by_whoever_comes(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_ASYNC);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    o.flush_interval_ms = 10000;
    idem_close(support_open(p.dir, &o));
    CHECK_IS(support_reap(support_spawn(claims_and_dies, &p), SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
    CHECK_IS(on_disk(&p, "k0").records, 0);
    idem_store *s = support_open(p.dir, &o);
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    char key[16];
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "k%d", i);
        CHECK_IS(on_disk(&p, key).completed, 1);
    }
    CHECK_IS(on_disk(&p, "open").claims, 1);
    idem_close(s);
    support_verify(p.dir);
    support_remove(p.wal);
}

static void answers_and_dies_before_the_push(void *ctx)
{
    struct place *p = ctx;
    idem_options o = log_options(p, 0, 0);
    o.flags = IDEM_OPEN_NO_FLUSHER;
    idem_store *s;
    idem_claim c;
    CHECK_IS(idem_open(p->dir, &o, &s), IDEM_OK);
    CHECK_IS(support_begin(s, "k", &c), IDEM_CLAIMED);
    support_at_point("complete.swapped", 1, support_die, NULL);
    support_complete(s, &c, 200, "yes");
}

/* Its claim is on the disk, its answer stands in memory and was never pushed. */
static struct place an_unpushed_answer(idem_options *o)
{
    struct place p = a_place();
    *o = log_options(&p, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC);
    o->flags |= IDEM_OPEN_NO_FLUSHER;
    idem_close(support_open(p.dir, o));
    CHECK_IS(support_reap(support_spawn(answers_and_dies_before_the_push, &p), SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
    CHECK_IS(on_disk(&p, "k").completed, 0);
    return p;
}

static void an_answer_that_was_not_pushed_is_on_the_disk_before_it_is_given_out(void **state)
{
    (void)state;
    idem_options o;
    struct place p = an_unpushed_answer(&o);
    o.wal_dir = p.wal;
    idem_store *s = support_open(p.dir, &o);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_REPLAY);
    CHECK_IS(on_disk(&p, "k").completed, 1);
    idem_close(s);
    support_remove(p.wal);
}

static int begin_no_wait(idem_store *s, const char *key, bool many)
{
    idem_request rq = IDEM_REQUEST_INIT;
    idem_result r = {.size = sizeof r, .reply = IDEM_REPLY_INIT};
    rq.key = support_key(key);
    rq.flags = IDEM_NO_WAIT;
    rq.durability = IDEM_DURABILITY_ASYNC;
    if (many)
        CHECK_IS(idem_begin_many(s, &rq, 1, &r), IDEM_OK);
    else
        r.verdict = idem_begin(s, &rq, &r.claim, &r.reply);
    if (r.verdict == IDEM_IN_PROGRESS) {
        CHECK_IS(r.reply.retry_after_ms, 1);
        CHECK(r.reply.token != 0);
        CHECK(r.reply.body == NULL);
    }
    idem_reply_free(&r.reply);
    return r.verdict;
}

/* Nobody writes here but who is asked to: so it can be told who waits. */
static void who_can_not_wait_for_the_disk_is_told_so(void **state)
{
    (void)state;
    for (int many = 0; many < 2; many++) {
        idem_options o;
        struct place p = an_unpushed_answer(&o);
        o.wal_dir = p.wal;
        idem_store *s = support_open(p.dir, &o);
        CHECK_IS(begin_no_wait(s, "k", many), IDEM_IN_PROGRESS);
        CHECK_IS(on_disk(&p, "k").completed, 0);
        CHECK(idem_maintain(s, 0) >= 0); /* it was asked for: now, not when a patrol finds it a second later */
        CHECK_IS(on_disk(&p, "k").completed, 1);
        CHECK_IS(begin_no_wait(s, "another", many), IDEM_CLAIMED);
        CHECK_IS(begin_no_wait(s, "k", many), IDEM_REPLAY);
        idem_close(s);
        support_remove(p.wal);
    }
}

static void who_takes_a_dead_ones_lane_has_the_index_walked(void **state)
{
    (void)state;
    idem_options o;
    struct place p = an_unpushed_answer(&o);
    o.wal_dir = p.wal;
    idem_store *s = support_open(p.dir, &o);
    CHECK_IS(support_begin(s, "other", NULL), IDEM_CLAIMED); /* takes the lane */
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").completed, 1);
    CHECK(support_stats(s).log.walks > 0);
    idem_close(s);
    support_remove(p.wal);
}

static void rests_and_then_sleeps_before_its_push(void *ctx)
{
    struct place *p = ctx;
    idem_options o = log_options(p, 0, 0);
    o.flags = IDEM_OPEN_NO_FLUSHER;
    idem_store *s;
    CHECK_IS(idem_open(p->dir, &o, &s), IDEM_OK);
    CHECK_IS(support_begin(s, "first", NULL), IDEM_CLAIMED);
    support_stop(NULL);
    support_at_point("claim.finished", 1, support_stop, NULL);
    CHECK_IS(support_begin(s, "second", NULL), IDEM_CLAIMED);
    idem_close(s);
}

/* What it published without a reference is looked for in the whole index; not because somebody has just begun, after a long rest. */
static void who_sleeps_before_his_push_is_told_from_who_has_just_begun(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_store *s = support_open(p.dir, &o);
    pid_t pid = support_spawn(rests_and_then_sleeps_before_its_push, &p);
    CHECK(support_wait_stopped(pid, SUPPORT_PATIENCE_MS));
    CHECK_IS(support_begin(s, "seen", NULL), IDEM_CLAIMED);
    support_clock_add(5000);
    CHECK_IS(support_begin(s, "seen again", NULL), IDEM_CLAIMED);
    support_kill(pid, SIGCONT);
    CHECK(support_wait_stopped(pid, SUPPORT_PATIENCE_MS));
    CHECK_IS(support_begin(s, "a look", NULL), IDEM_CLAIMED);
    CHECK_IS(support_begin(s, "a walk, if one is wanted", NULL), IDEM_CLAIMED);
    CHECK_IS(support_stats(s).log.walks, 0);
    CHECK_IS(on_disk(&p, "second").claims, 0);
    support_clock_add(5000);
    CHECK_IS(support_begin(s, "another look", NULL), IDEM_CLAIMED);
    CHECK_IS(support_begin(s, "a walk", NULL), IDEM_CLAIMED);
    CHECK(support_stats(s).log.walks > 0);
    CHECK_IS(on_disk(&p, "second").claims, 1);
    support_kill(pid, SIGCONT);
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
    idem_close(s);
    support_remove(p.wal);
}

static bool nothing_is_queued(void *store)
{
    return support_stats(store).log.queued == 0;
}

static void a_forked_child_has_a_log_of_its_own(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC);
    idem_store *s = support_open(p.dir, &o); /* with a flusher */
    idem_request rq = support_request("first");
    idem_claim c;
    rq.durability = IDEM_DURABILITY_ASYNC;
    CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
    CHECK(support_eventually(nothing_is_queued, s,
                             SUPPORT_PATIENCE_MS)); /* it has its memory: see tests/README.md, fork */
    CHECK_IS(support_begin(s, "parent", NULL), IDEM_CLAIMED);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        bool good = support_begin(s, "child", NULL) == IDEM_CLAIMED && support_begin(s, "parent", NULL) > 0;
        idem_close(s);
        _exit(good ? 0 : 1);
    }
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
    CHECK_IS(support_begin(s, "after", NULL), IDEM_CLAIMED);
    CHECK_IS(on_disk(&p, "child").claims, 1);
    CHECK_IS(on_disk(&p, "after").claims, 1);
    idem_close(s);
    support_remove(p.wal);
}

struct heir {
    struct place p;
    pid_t pid; /* of a child that never calls idem */
};

static void leaves_a_child_and_dies_leading(void *ctx)
{
    struct heir *h = ctx;
    idem_options o = log_options(&h->p, 0, 0);
    o.flags = IDEM_OPEN_NO_FLUSHER;
    idem_store *s;
    CHECK_IS(idem_open(h->p.dir, &o, &s), IDEM_OK);
    pid_t pid = fork();
    if (pid == 0) {
        support_sleep_ms(SUPPORT_PATIENCE_MS);
        _exit(0);
    }
    h->pid = pid;
    support_at_point("log.written", 1, support_die, NULL);
    support_begin(s, "late", NULL);
}

static void a_dead_leaders_byte_is_free_though_its_child_lives(void **state)
{
    (void)state;
    struct heir *h = support_shared(sizeof *h);
    h->p = a_place();
    idem_options o = log_options(&h->p, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_close(support_open(h->p.dir, &o));
    CHECK_IS(support_reap(support_spawn(leaves_a_child_and_dies_leading, h), SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
    idem_store *s = support_open(h->p.dir, &o);
    int verdict = support_begin(s, "k", NULL);
    CHECK(h->pid > 0);
    kill(h->pid, SIGKILL);
    CHECK_IS(verdict, IDEM_CLAIMED);
    CHECK_IS(support_stats(s).log.epoch, 0);
    CHECK_IS(on_disk(&h->p, "late").claims, 1);
    idem_close(s);
    support_remove(h->p.wal);
}

static void stops_while_it_leads(void *ctx)
{
    struct place *p = ctx;
    idem_options o = log_options(p, 0, 0);
    o.flags = IDEM_OPEN_NO_FLUSHER;
    idem_store *s;
    CHECK_IS(idem_open(p->dir, &o, &s), IDEM_OK);
    support_at_point("log.written", 1, support_stop, NULL);
    CHECK_IS(support_begin(s, "late", NULL), IDEM_CLAIMED);
    support_at_point(NULL, 0, NULL, NULL);
    CHECK_IS(support_begin(s, "later", NULL), IDEM_CLAIMED);
    idem_close(s);
}

static void a_stopped_leader_is_succeeded_and_does_no_harm_when_it_wakes(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    o.log_wait_ms = 2000;
    idem_close(support_open(p.dir, &o));
    pid_t pid = support_spawn(stops_while_it_leads, &p);
    CHECK(support_wait_stopped(pid, SUPPORT_PATIENCE_MS));
    idem_store *s = support_open(p.dir, &o);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_CLAIMED);
    CHECK_IS(support_stats(s).log.epoch, 1);
    CHECK_IS(on_disk(&p, "late").claims, 1); /* by the successor */
    support_kill(pid, SIGCONT);
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
    CHECK_IS(on_disk(&p, "late").claims, 1);
    CHECK_IS(on_disk(&p, "later").claims, 1);
    CHECK_IS(on_disk(&p, "k").claims, 1);
    idem_close(s);
    support_remove(p.wal);
}

static void many_are_waited_for_at_once(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    o.wal_ring_refs = 64;
    idem_store *s = support_open(p.dir, &o);
    support_answer(s, "k7", 200, "yes");
    enum { N = 150 }; /* more than a ring holds */
    static char keys[N][16];
    static idem_request requests[N];
    static idem_result results[N];
    for (int i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d", i);
        requests[i] = support_request(keys[i]);
        results[i] = (idem_result){.size = sizeof results[i], .reply = IDEM_REPLY_INIT};
    }
    uint64_t before = support_stats(s).log.syncs;
    CHECK_IS(idem_begin_many(s, requests, N, results), IDEM_OK);
    CHECK(support_stats(s).log.syncs - before < 60);
    for (int i = 0; i < N; i++) {
        CHECK_IS(results[i].verdict, i == 7 ? IDEM_REPLAY : IDEM_CLAIMED);
        CHECK_IS(results[i].reserved, 0);
        CHECK_IS(on_disk(&p, keys[i]).records, i == 7 ? 2 : 1);
        idem_reply_free(&results[i].reply);
    }
    idem_close(s);
    support_remove(p.wal);
}

/* ------------------------------------------------------------------ seeded faults */

#define CHECKED_BY(test)                     \
    static void test##_promise(void *unused) \
    {                                        \
        (void)unused;                        \
        test(NULL);                          \
    }
CHECKED_BY(sync_calls_return_with_their_record_on_the_disk)
CHECKED_BY(an_answer_that_was_not_pushed_is_on_the_disk_before_it_is_given_out)
CHECKED_BY(who_takes_a_dead_ones_lane_has_the_index_walked)
CHECKED_BY(a_dead_leaders_byte_is_free_though_its_child_lives)
CHECKED_BY(a_stopped_leader_is_succeeded_and_does_no_harm_when_it_wakes)

static void a_library_with_a_fault_in_its_log_is_noticed(void **state)
{
    (void)state;
    support_promise(sync_calls_return_with_their_record_on_the_disk_promise, FAULTS("log.unpushed", "log.unwaited"));
    support_promise(an_answer_that_was_not_pushed_is_on_the_disk_before_it_is_given_out_promise, FAULTS("log.untold"));
    support_promise(who_takes_a_dead_ones_lane_has_the_index_walked_promise, FAULTS("log.clean", "log.unwalked"));
    support_promise(a_dead_leaders_byte_is_free_though_its_child_lives_promise, FAULTS("log.inherited"));
    support_promise(a_stopped_leader_is_succeeded_and_does_no_harm_when_it_wakes_promise, FAULTS("log.unsucceeded"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sync_calls_return_with_their_record_on_the_disk),
        cmocka_unit_test(completing_again_with_sync_waits_for_what_was_async),
        cmocka_unit_test(so_do_waiting_and_what_operators_do),
        cmocka_unit_test(async_is_written_by_the_flusher),
        cmocka_unit_test(idem_sync_waits_for_what_was_pushed),
        cmocka_unit_test(a_full_ring_is_made_up_for_by_a_walk),
        cmocka_unit_test(what_killed_processes_pushed_is_written_by_whoever_comes),
        cmocka_unit_test(an_answer_that_was_not_pushed_is_on_the_disk_before_it_is_given_out),
        cmocka_unit_test(who_can_not_wait_for_the_disk_is_told_so),
        cmocka_unit_test(who_takes_a_dead_ones_lane_has_the_index_walked),
        cmocka_unit_test(who_sleeps_before_his_push_is_told_from_who_has_just_begun),
        cmocka_unit_test(a_forked_child_has_a_log_of_its_own),
        cmocka_unit_test(a_dead_leaders_byte_is_free_though_its_child_lives),
        cmocka_unit_test(a_stopped_leader_is_succeeded_and_does_no_harm_when_it_wakes),
        cmocka_unit_test(many_are_waited_for_at_once),
        cmocka_unit_test(a_library_with_a_fault_in_its_log_is_noticed),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
