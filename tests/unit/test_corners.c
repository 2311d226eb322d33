/*
 * tests/unit/test_corners.c - what happens beside the ordinary way: a store that is replaced while it is walked, a claim that alone was logged, a
 * directory that holds somebody else's file, a disk that writes nothing and says so, regions that were drained 65,535 lives ago, a lane that is lost
 * when it is taken, time that passes while nobody sleeps, an index that is larger than memory, a log that is more than one batch behind.
 */
#include "support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "arena/arena.h"
#include "index/bucket.h"
#include "store/handle.h"
#include "wal/io.h"

static char dir[160];

static int replace(const idem_story *story, void *ctx)
{
    (void)story;
    idem_options o = support_options(100);
    if (++*(unsigned *)ctx == 1) {
        CHECK_IS(idem_destroy(dir), IDEM_OK);
        idem_close(support_open(dir, &o));
    }
    return 0;
}

static void a_walk_ends_when_its_store_is_replaced(void **state)
{
    (void)state;
    unsigned n = 0;
    idem_options o = support_options(100);
    snprintf(dir, sizeof dir, "%s", support_dir());
    idem_store *s = support_open(dir, &o);
    for (int i = 0; i < 50; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        support_answer(s, key, 200, "x");
    }
    CHECK_IS(idem_walk(s, replace, &n), IDEM_E_STALE);
    CHECK(strstr(idem_error_detail(), dir) != NULL);
    CHECK(n >= 1 && n < 50);
    idem_close(s);
}

static void check_logged(idem_store *s, const char *key, bool durable)
{
    idem_story story = IDEM_STORY_INIT;
    idem_key k = support_key(key);
    CHECK_IS(idem_explain(s, &k, &story), IDEM_OK);
    CHECK_IS(story.log_state, durable ? 2 : 0);
    idem_story_free(&story);
}

/* Claims are not logged in this store, but this one was asked to be: so what became of it is, too. */
static void a_claim_that_was_logged_is_logged_to_its_end(void **state)
{
    (void)state;
    static const uint32_t asked[] = {IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_NONE};
    for (unsigned i = 0; i < 3; i++) {
        idem_options o = support_options(16);
        char wal[160];
        idem_claim claim;
        idem_reply reply = IDEM_REPLY_INIT;
        idem_request rq = support_request("k");
        snprintf(dir, sizeof dir, "%s", support_dir());
        snprintf(wal, sizeof wal, "%s", support_dir());
        o.wal_dir = wal;
        o.durability_claim = IDEM_DURABILITY_NONE;
        o.flags |= IDEM_OPEN_NO_FLUSHER;
        idem_store *s = support_open(dir, &o);
        rq.durability = asked[i];
        CHECK_IS(idem_begin(s, &rq, &claim, NULL), IDEM_CLAIMED);
        CHECK_IS(idem_sync(s, 0), IDEM_OK);
        check_logged(s, "k", asked[i] != IDEM_DURABILITY_NONE);
        CHECK_IS(idem_abandon(s, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
        check_logged(s, "k", false); /* its claim was, this state is not yet */
        CHECK_IS(idem_sync(s, 0), IDEM_OK);
        check_logged(s, "k", asked[i] != IDEM_DURABILITY_NONE);
        idem_close(s);
        support_remove(dir);
        s = support_open(dir, &o);
        CHECK_IS(idem_begin(s, &rq, &claim, &reply), IDEM_CLAIMED); /* not lost: it was given back */
        CHECK_IS(reply.attempt, asked[i] != IDEM_DURABILITY_NONE ? 2 : 1);
        idem_reply_free(&reply);
        idem_close(s);
    }
}

static void a_destroyed_stores_directory_stays_for_what_others_have_in_it(void **state)
{
    (void)state;
    char file[200];
    idem_options o = support_options(16);
    snprintf(dir, sizeof dir, "%s", support_dir());
    idem_close(support_open(dir, &o));
    snprintf(file, sizeof file, "%s/notes", dir);
    int fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    CHECK_IS(access(file, F_OK), 0);
    CHECK_IS(unlink(file), 0);
    CHECK_IS(rmdir(dir), 0); /* and nothing else */
}

static ssize_t write_nothing(int fd, const void *from, size_t n, off_t at)
{
    (void)fd;
    (void)from;
    (void)n;
    (void)at;
    return 0;
}

static void a_write_that_makes_no_progress_is_no_space_and_no_endless_loop(void **state)
{
    (void)state;
    struct idem_io_calls calls = idem_io_system;
    calls.pwrite = write_nothing;
    idem_io = &calls;
    int r = idem_io_write(STDOUT_FILENO, "x", 1, 0), kept = errno;
    idem_io = &idem_io_system;
    CHECK_IS(r, -1);
    CHECK_IS(kept, ENOSPC);
}

/* A generation comes again: what a region's drain word says of that time is not believed. */
static void a_pass_of_65535_lives_ago_does_not_count(void **state)
{
    (void)state;
    const char *at = support_dir();
    idem_store *s = support_open(at, NULL);
    struct idem_view *v = s->view;
    for (uint32_t i = 0; i < v->region_count; i++)
        store_relaxed(&v->regions[i].drain,
                      (uint64_t)region_generation(load_relaxed(&v->regions[i].state)) << 48 | DRAIN_NOTED);
    CHECK_IS(support_begin(s, "lost", NULL), IDEM_CLAIMED);
    support_clock_add(60000); /* the lease is over: what is remembered has to move */
    support_maintain(s);
    support_verify(at);
    CHECK_IS(support_begin(s, "lost", NULL), IDEM_RECLAIMED);
    idem_close(s);
}

/* ------------------------------------------------------------------ a lane */

static struct idem_view *v;
/* Those of everybody but this one. */
static void take_them(void *spared)
{
    for (uint32_t i = 0; i < v->fixed.lanes_max; i++) {
        uint64_t owner = load_relaxed(&v->lanes[i].owner);
        if (owner != 0 && owner != *(uint64_t *)spared)
            store_relaxed(&v->lanes[i].owner, owner + 1);
    }
}

/* Its host has closed the store's descriptors: it was taken for dead as soon as it had a lane. */
static void a_lane_that_is_lost_when_it_is_taken(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s", support_dir());
    idem_store *s = support_open(dir, NULL);
    v = s->view;
    uint64_t spared = 0;
    support_at_point("lane.taken", 1, take_them, &spared);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_E_FULL);
    support_at_point(NULL, 0, NULL, NULL);
    CHECK(strstr(idem_error_detail(), "closes idem's descriptors") != NULL);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_CLAIMED); /* with another one */
    idem_report report = IDEM_REPORT_INIT;
    spared = v->process.owner;
    support_at_point("lane.taken", 1, take_them, &spared);
    CHECK_IS(idem_verify(dir, &report), IDEM_E_FULL);
    support_at_point(NULL, 0, NULL, NULL);
    CHECK_IS(report.checked_slots, 0);
    idem_close(s);
}

/* ------------------------------------------------------------------ time */

static int64_t asked_ms;
static bool passes;
static bool would_sleep(int64_t timeout_ms)
{
    asked_ms += timeout_ms;
    if (passes)
        support_clock_add(timeout_ms);
    return passes;
}

/* Who would sleep asks the test first, which lets time pass, or lets him sleep. */
static void a_wait_takes_no_time_where_a_test_lets_it_pass(void **state)
{
    (void)state;
    idem_store *s = support_open(support_dir(), NULL);
    idem_request rq = support_request("k");
    idem_claim c;
    rq.lease_ms = 7200000;
    CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
    idem_sleep_hook = would_sleep;
    for (int i = 0; i < 2; i++) {
        int64_t began_ms = support_now_ms(), wait_ms = i == 0 ? 3600000 : 30;
        passes = i == 0;
        asked_ms = 0;
        CHECK_IS(idem_wait(s, &rq, wait_ms, &c, NULL), IDEM_E_TIMEOUT);
        CHECK(asked_ms >= wait_ms / 2 && asked_ms < 100 * wait_ms);
        CHECK(passes ? support_now_ms() - began_ms < wait_ms / 2 : support_now_ms() - began_ms >= wait_ms / 2);
    }
    idem_sleep_hook = NULL;
    idem_close(s);
}

/* ------------------------------------------------------------------ debts and slices */

#define OWED_MOST 1280u /* index/sweep.c, invariant 2 */

static uint32_t owed_by(const struct idem_lane_shm *lane)
{
    return (uint32_t)(load_relaxed(&lane->sweep) >> 32) & UINT16_MAX;
}
/* What is left of the debt after an operation of a lane whose word is this, while a region waits. */
static uint32_t left_of(idem_store *s, uint64_t word)
{
    struct idem_op op;
    CHECK_IS(idem_enter(s, &op), IDEM_OK);
    store_relaxed(&op.ctx.lane->sweep, word);
    store_relaxed(&v->generation->waiting, v->region_count);
    CHECK_IS(idem_leave(&op, IDEM_OK), IDEM_OK);
    return owed_by(op.ctx.lane);
}

/* A debt has its bound, whatever a lane's word says; and an eighth of what is above two chunks' worth is paid at a time. */
static void a_lane_owes_no_more_than_its_bound(void **state)
{
    (void)state;
    idem_store *s = support_open(support_dir(), NULL);
    v = s->view;
    const uint32_t left = OWED_MOST - 1 - (OWED_MOST - 256) / 8;
    CHECK_IS(left_of(s, (uint64_t)UINT16_MAX << 32), left);
    CHECK_IS(left_of(s, (uint64_t)(OWED_MOST - 5) << 32 | LANE_TOOK_CHUNK), left);
    CHECK_IS(left_of(s, UINT64_C(200) << 32), 199);
    idem_close(s);
}

/* A sweep's cursor counts no more slices than it has bits for: in an index that has more buckets than that they are longer. Here only the view says
   that there are so many, and the pass is left before it would come to them. What a later version froze is left as it is. */
static void the_slices_of_an_index_that_is_larger_than_memory(void **state)
{
    (void)state;
    const uint64_t paid = 100, begin = paid * 16, end = (paid - 1) * 32; /* the first step begins the pass */
    char key[16];
    idem_options o = support_options(40000);
    idem_store *s = support_open(support_dir(), &o);
    idem_claim c = {0};
    struct idem_op op;
    v = s->view;
    CHECK(v->bucket_count > end);
    for (unsigned i = 0; c.place / 8 < begin || c.place / 8 >= end; i++) {
        snprintf(key, sizeof key, "k%u", i);
        CHECK_IS(support_begin(s, key, &c), IDEM_CLAIMED);
    }
    struct idem_a64 *slot = &v->buckets[c.place / 8].slots[c.place % 8];
    store_relaxed(slot, word_with_state(load_relaxed(slot), WORD_FORGOTTEN));
    struct idem_a64 *far = &v->buckets[7].header, *frozen = &v->buckets[8].header;
    store_relaxed(far, header_make(100, 2, false, 0, 0));
    store_relaxed(frozen, header_make(100, 2, false, 0, 0) | HEADER_FROZEN);
    support_clock_add(1000); /* what was claimed in this tick is not freed in it */
    CHECK_IS(idem_enter(s, &op), IDEM_OK);
    store_relaxed(&v->generation->waiting, 1);
    store_relaxed(&op.ctx.lane->sweep, paid << 32 | LANE_THOROUGH);
    uint64_t real = v->bucket_count;
    v->bucket_count = CURSOR_SLICES << 4;
    CHECK_IS(idem_leave(&op, IDEM_OK), IDEM_OK);
    v->bucket_count = real;
    CHECK_IS(load_relaxed(slot), 0);
    CHECK_IS(header_reach(load_relaxed(far)), 0);
    CHECK_IS(load_relaxed(frozen), header_make(100, 2, false, 0, 0) | HEADER_FROZEN);
    idem_close(s);
}

/* ------------------------------------------------------------------ a log */

/* Who maintains it is told that there is more, until all is written: a file ends in the middle of what waits. */
static void a_log_that_is_more_than_one_batch_behind(void **state)
{
    (void)state;
    static char body[60000];
    char wal[160];
    idem_options o = support_options(64);
    int more = 0, e;
    snprintf(dir, sizeof dir, "%s", support_dir());
    snprintf(wal, sizeof wal, "%s", support_dir());
    o.wal_dir = wal;
    o.wal_file_bytes = 1 << 20;
    o.response_bytes = sizeof body;
    o.durability_claim = o.durability_complete = IDEM_DURABILITY_ASYNC;
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_store *s = support_open(dir, &o);
    memset(body, 'b', sizeof body - 1);
    for (unsigned i = 0; i < 40; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", i);
        support_answer(s, key, 200, body);
    }
    support_clock_add(1000); /* it is due */
    while ((e = idem_maintain(s, 0)) == 1 && more < 100)
        more++;
    CHECK_IS(e, IDEM_OK);
    CHECK(more > 0);
    CHECK_IS(support_stats(s).log.queued, 0);
    idem_close(s);
    support_remove(dir);
    support_remove(wal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_walk_ends_when_its_store_is_replaced),
        cmocka_unit_test(a_claim_that_was_logged_is_logged_to_its_end),
        cmocka_unit_test(a_destroyed_stores_directory_stays_for_what_others_have_in_it),
        cmocka_unit_test(a_write_that_makes_no_progress_is_no_space_and_no_endless_loop),
        cmocka_unit_test(a_pass_of_65535_lives_ago_does_not_count),
        cmocka_unit_test(a_lane_that_is_lost_when_it_is_taken),
        cmocka_unit_test(a_wait_takes_no_time_where_a_test_lets_it_pass),
        cmocka_unit_test(a_lane_owes_no_more_than_its_bound),
        cmocka_unit_test(the_slices_of_an_index_that_is_larger_than_memory),
        cmocka_unit_test(a_log_that_is_more_than_one_batch_behind),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
