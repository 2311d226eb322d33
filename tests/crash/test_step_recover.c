/*
 * tests/crash/test_step_recover.c - a process dies after any system call, or any change of shared memory, of a recovery; who comes next finds all.
 *
 * The victim opens a store that is gone and has a log, and completes a key, synced. It is stopped after each system call and (a window of
 * it; `--long`: all of it) after each instruction that changed a mapped file. What its files are then is what a death leaves: that is put in their
 * place, and a peer opens the store. All that was acknowledged is there, tokens grow, nothing is left lying about, and the peer's own log brings it all
 * back once more. Now and then the peer is killed, too, after some of its system calls, and another one comes (two levels).
 */
/* timeout: 600 s */
#include "support/support.h"
#include "support/tracer.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/crash.h"

#define WINDOW    60000u /* instructions */
#define LONG_MS   INT64_C(3600000)
#define CHUNK     (1u << 16)
#define FILES_OLD 2u

static char base[160], aside[176], store[176], log_dir[176];
static idem_options options;
static struct shared {
    struct idem_a64 told;  /* the victim's completion was acknowledged as durable */
    struct idem_a64 level; /* of the peer: 1, or 2 if one was killed before it */
} * shared;
static idem_claim running; /* the attempt that the machine's crash cut off */

/* ------------------------------------------------------------------ the log */

static void answer(idem_store *s, const char *key, const char *body, int64_t ttl_ms)
{
    idem_claim c;
    idem_response r = support_response(200, body);
    r.ttl_ms = ttl_ms;
    CHECK_IS(support_begin(s, key, &c), IDEM_CLAIMED);
    CHECK_IS(idem_complete(s, &c, &r), IDEM_OK);
}

/* Its last batch is vouched for by nobody. */
static void make_log(void *ctx)
{
    (void)ctx;
    idem_store *s = support_open(store, &options);
    idem_key key = support_key("forgotten");
    answer(s, "done", "the answer", 0);
    answer(s, "forgotten", "forget it", 0);
    answer(s, "expired", "old", 1000);
    CHECK_IS(support_begin(s, "running", &running), IDEM_CLAIMED);
    CHECK_IS(idem_mark(s, &running, "half way", 8), IDEM_OK);
    CHECK_IS(idem_forget(s, &key), IDEM_OK);
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    support_clock_add(3000);
    answer(s, "tail", "a tail", 0);
    idem_close(s);
}

static void begin_place(void)
{
    snprintf(base, sizeof base, "%s", support_dir());
    snprintf(aside, sizeof aside, "%s.live", base);
    snprintf(store, sizeof store, "%s/store", base);
    snprintf(log_dir, sizeof log_dir, "%s/log", base);
    CHECK_IS(mkdir(base, 0700), 0);
    options = support_options(16);
    options.processes = 4;
    options.lanes = 4;
    options.response_bytes = 64;
    options.ttl_ms = LONG_MS;
    options.huge = IDEM_HUGE_OFF;
    options.flags = IDEM_OPEN_CREATE | IDEM_OPEN_NO_FLUSHER; /* one thread: the one that is traced */
    options.wal_dir = log_dir;
    options.wal_ring_refs = 64;
    options.wal_file_bytes = 1 << 20;
    store_release(&shared->told, 0);
    make_log(NULL);
    support_remove(store);
}

/* ------------------------------------------------------------------ what a death leaves */

static void copy_file(const char *from, const char *to)
{
    static uint8_t bytes[CHUNK];
    static const uint8_t zeros[CHUNK];
    struct stat st;
    int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(in >= 0 && out >= 0 && fstat(in, &st) == 0);
    CHECK_IS(fchmod(out, st.st_mode & 07777), 0);
    CHECK_IS(ftruncate(out, st.st_size), 0);
    off_t at = 0;
    for (ssize_t n; (n = pread(in, bytes, sizeof bytes, at)) > 0; at += n)
        if (memcmp(bytes, zeros, (size_t)n) != 0)
            CHECK_IS(pwrite(out, bytes, (size_t)n, at), n);
    close(in);
    close(out);
}

static void copy_dir(const char *from, const char *to)
{
    DIR *d = opendir(from);
    if (d == NULL)
        return;
    CHECK_IS(mkdir(to, 0700), 0);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char a[512], b[512];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(a, sizeof a, "%s/%s", from, e->d_name);
        snprintf(b, sizeof b, "%s/%s", to, e->d_name);
        copy_file(a, b);
    }
    closedir(d);
}

/* The victim's files go aside, copies of them come in their place. */
static void put_copies(void)
{
    char from[200];
    CHECK_IS(rename(base, aside), 0);
    CHECK_IS(mkdir(base, 0700), 0);
    snprintf(from, sizeof from, "%s/log", aside);
    copy_dir(from, log_dir);
    snprintf(from, sizeof from, "%s/store", aside);
    copy_dir(from, store);
}

static void put_back(void)
{
    support_remove(base);
    CHECK_IS(rename(aside, base), 0);
}

/* ------------------------------------------------------------------ who comes next */

static unsigned count_files(const char *dir, const char *temporary)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        n += e->d_name[0] != '.';
        CHECK(strstr(e->d_name, temporary) == NULL);
    }
    closedir(d);
    return n;
}

static void is_replayed(idem_store *s, const char *key, const char *body)
{
    idem_request rq = support_request(key);
    idem_reply reply = IDEM_REPLY_INIT;
    idem_claim c;
    CHECK_IS(idem_begin(s, &rq, &c, &reply), IDEM_REPLAY);
    CHECK_BYTES(reply.body, reply.body_bytes, body);
    idem_reply_free(&reply);
}

static void is_gone(idem_store *s, const char *key)
{
    idem_key k = support_key(key);
    CHECK_IS(idem_lookup(s, &k, NULL), IDEM_E_NO_KEY);
}

/* The victim's work, and what every peer does as well. told may be NULL. */
static void work(idem_store *s, struct idem_a64 *told)
{
    idem_claim c;
    idem_request rq = support_request("new");
    idem_reply reply = IDEM_REPLY_INIT;
    int v = idem_begin(s, &rq, &c, &reply);
    if (v == IDEM_CLAIMED || v == IDEM_RECLAIMED) {
        CHECK(c.token > running.token && (v == IDEM_CLAIMED || c.token > reply.lost_token));
        CHECK_IS(support_complete(s, &c, 200, "yes"), IDEM_OK); /* synced: the store's default */
    } else {
        CHECK_IS(v, IDEM_REPLAY);
    }
    idem_reply_free(&reply);
    if (told != NULL)
        store_release(told, 1); /* P1 release: after the call that said so */
}

static void opens_and_works(void *ctx)
{
    (void)ctx;
    idem_store *s;
    CHECK_IS(idem_open(store, &options, &s), IDEM_OK);
    work(s, &shared->told);
    idem_close(s);
    raise(SIGSTOP);
}

static void opens_only(void *ctx)
{
    (void)ctx;
    idem_store *s;
    CHECK_IS(idem_open(store, &options, &s), IDEM_OK);
    work(s, NULL);
    raise(SIGSTOP);
}

static void looks(bool again)
{
    idem_store *s;
    CHECK_IS(idem_open(store, &options, &s), IDEM_OK);
    is_replayed(s, "done", "the answer");
    is_replayed(s, "tail", "a tail");
    is_gone(s, "forgotten");
    is_gone(s, "expired");
    if (load_acquire(&shared->told) != 0 || again) /* P1 acquire: what was acknowledged before */
        is_replayed(s, "new", "yes");
    idem_claim c;
    idem_request rq = support_request("running");
    idem_reply reply = IDEM_REPLY_INIT;
    int v = idem_begin(s, &rq, &c, &reply);
    CHECK_IS(v, IDEM_RECLAIMED);
    CHECK_IS(reply.lost_reason, again ? IDEM_LOST_DECLARED : IDEM_LOST_CRASH);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "half way");
    CHECK(reply.lost_token >= running.token && c.token > reply.lost_token);
    idem_reply_free(&reply);
    work(s, NULL);
    CHECK_IS(idem_abandon(s, &c, IDEM_OUTCOME_UNKNOWN), IDEM_OK); /* as the next one is told */
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    support_maintain(s);
    idem_stats_data stats = support_stats(s);
    CHECK_IS(stats.processes, 1); /* a dead one's slot came back */
    idem_close(s);
    support_verify(store);
    CHECK_IS(count_files(store, "tmp"), 2);
    CHECK(count_files(log_dir, "tmp") <=
          FILES_OLD + 4 + (unsigned)load_acquire(&shared->level)); /* with id and place */
}

static void comes_next(void *ctx)
{
    crash_faults_are_fatal();
    looks(false);
    if (ctx == NULL)
        return;
    support_remove(store); /* and the machine crashes again */
    looks(true);
}

/* ------------------------------------------------------------------ every moment */

struct tally {
    uint64_t moments, deaths, twice, broken;
    char first[400];
};

static void note(struct tally *t, const struct tracer *v, int how)
{
    char what[400];
    snprintf(what, sizeof what,
             "killed after %" PRIu64 " system calls, %" PRIu64 " instructions, %" PRIu64 " stores: %d, %.200s",
             v->calls, v->steps, v->stores, how, support_why());
    if (t->broken++ == 0)
        snprintf(t->first, sizeof t->first, "%s", what);
}

/* The victim is stopped: what if it were dead? */
static void die_here(struct tally *t, const struct tracer *v, uint64_t *random, bool quiet)
{
    int how = 0;
    uint64_t level = 1;
    put_copies();
    support_forget_why();
    if (support_random(random) % 8 == 0) {
        struct tracer peer;
        uint64_t calls = support_random(random) % 160;
        CHECK(tracer_start(&peer, base, opens_only, NULL));
        while (peer.calls < calls && tracer_next(&peer, TRACER_CALLS, 0) == TRACER_CALL)
            ;
        if (!WIFSTOPPED(peer.status)) /* a check of its failed */
            how = WIFEXITED(peer.status) ? WEXITSTATUS(peer.status) : 1000 + WTERMSIG(peer.status);
        tracer_kill(&peer);
        t->twice++;
        level = 2;
    }
    store_relaxed(&shared->level, level); /* relaxed: before the child is there */
    if (how == 0)
        how = support_reap(support_spawn(comes_next, support_random(random) % 4 == 0 || quiet ? shared : NULL),
                           SUPPORT_PATIENCE_MS);
    put_back();
    t->deaths++;
    if (how == 0)
        return;
    note(t, v, how);
    if (!quiet)
        print_error("IDEM_TEST_SEED=%" PRIu64 ": %s\n", support_seed(), t->first);
}

/* One victim from its beginning to its end. every: of so many moments one (by chance) is looked at. from: instructions are looked at from this
   system call on, `window` of them. */
static struct tally one_victim(uint64_t every, uint64_t from, uint64_t window, bool quiet)
{
    struct tally t = {0, 0, 0, 0, ""};
    struct tracer v;
    uint64_t random = support_seed() + from;
    begin_place();
    if (!tracer_start(&v, base, opens_and_works, NULL)) {
        print_message("skipped (kernel): ptrace is not permitted here\n");
        skip();
    }
    for (enum tracer_stop s = TRACER_CALL; s == TRACER_CALL || s == TRACER_STORE;) {
        bool by_step = v.calls >= from && v.steps < window && tracer_steps();
        s = tracer_next(&v, by_step ? TRACER_STORES : TRACER_CALLS, by_step ? window - v.steps : 0);
        t.moments++;
        if (s != TRACER_ENDED && (every == 1 || support_random(&random) % every == 0))
            die_here(&t, &v, &random, quiet);
        if (t.broken > (quiet ? 0 : 4))
            break;
    }
    CHECK(t.broken > 0 || (WIFSTOPPED(v.status) && WSTOPSIG(v.status) == SIGSTOP && load_acquire(&shared->told) == 1));
    if (!quiet)
        print_message("%" PRIu64 " system calls, %" PRIu64 " instructions, %" PRIu64 " stores; %" PRIu64
                      " deaths, %" PRIu64 " of them twice\n",
                      v.calls, v.steps, v.stores, t.deaths, t.twice);
    tracer_kill(&v);
    support_remove(base);
    return t;
}

static void any_system_call_of_a_recovery_may_be_the_last(void **state)
{
    (void)state;
    struct tally t = one_victim((uint64_t)(support_long() ? 1 : 12 / support_scaled(12, 4)), 0, 0, false);
    CHECK_IS(t.broken, 0);
    CHECK(t.deaths > 40);
}

static void any_store_of_a_recovery_may_be_the_last(void **state)
{
    (void)state;
    uint64_t random = support_seed();
    struct tally t = support_long()
                         ? one_victim(1, 0, UINT64_MAX, false)
                         : one_victim(4, support_random(&random) % 200, (uint64_t)support_scaled(WINDOW, 4), false);
    CHECK_IS(t.broken, 0);
}

static void a_tail_that_is_not_written_anew_is_noticed(void **state)
{
    (void)state;
    support_fault("recover.tail");
    struct tally t = one_victim(1, 0, 0, true);
    support_fault(NULL);
    CHECK(t.broken > 0);
    support_caught("recover.tail", "%s", t.first);
}

static int setup(void **state)
{
    if (support_setup(state) != 0 || crash_setup() != 0)
        return -1;
    shared = support_shared(sizeof *shared);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_system_call_of_a_recovery_may_be_the_last),
        cmocka_unit_test(any_store_of_a_recovery_may_be_the_last),
        cmocka_unit_test(a_tail_that_is_not_written_anew_is_noticed),
    };
    return cmocka_run_group_tests(tests, setup, support_teardown);
}
