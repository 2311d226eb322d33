/*
 * tests/multi/test_wal_burst.c - more at once than a thread's queue to the log has room for: what found none is on the disk soon all the same.
 *
 * Nothing here depends on how long something takes: idem_maintain() says itself when it has no more to do, and closing waits for the disk.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "support/support.h"

#define BURST 20000u /* so many that a walk which finds them is no matter of one batch */
#define RING  64u
#define CALLS 200000u

static idem_store *a_store(const char *dir, const char *wal, uint32_t flags)
{
    idem_options o = support_options(2 * BURST);
    o.flags |= flags;
    o.wal_dir = wal;
    o.durability_claim = o.durability_complete = IDEM_DURABILITY_ASYNC;
    o.flush_interval_ms = 10000;
    o.log_wait_ms = 600000;
    o.wal_ring_refs = RING;
    return support_open(dir, &o);
}

static void answer(idem_store *s, unsigned from, unsigned n)
{
    char key[16];
    for (unsigned i = from; i < from + n; i++) {
        snprintf(key, sizeof key, "b%u", i);
        support_answer(s, key, 200, "yes");
    }
}

struct seen {
    unsigned answers;
    bool answered[BURST];
};

static int look(const idem_log_record *r, void *ctx)
{
    struct seen *seen = ctx;
    char key[16] = "";
    unsigned i;
    if (r->state != 2 || r->key.key_bytes >= sizeof key)
        return 0;
    memcpy(key, r->key.key, r->key.key_bytes);
    if (sscanf(key, "b%u", &i) != 1 || i >= BURST || seen->answered[i])
        return 0;
    seen->answered[i] = true;
    seen->answers++;
    return 0;
}

static void maintain(idem_store *s)
{
    unsigned calls = 0;
    while (calls < CALLS && idem_maintain(s, 0) == 1)
        calls++;
    CHECK(calls < CALLS);
}

static void all_of_a_burst_is_found(void *dir)
{
    static struct seen seen;
    char wal[200];
    snprintf(wal, sizeof wal, "%s-log", (char *)dir);
    idem_store *s = a_store(dir, wal, IDEM_OPEN_NO_FLUSHER);
    answer(s, 0, BURST);
    CHECK(support_stats(s).log.overflows > BURST);
    maintain(s);
    memset(&seen, 0, sizeof seen);
    CHECK_IS(idem_log_walk(wal, look, &seen), IDEM_OK);
    CHECK_IS(seen.answers, BURST);
    idem_close(s);
    support_remove(wal);
}

static void what_a_burst_left_out_is_on_the_disk_when_there_is_no_more_to_do(void **state)
{
    (void)state;
    all_of_a_burst_is_found((void *)(uintptr_t)support_dir());
}

/* The last one to have it open: nobody would write it, until somebody opens the store again or the machine dies. */
static void is_there_after_closing(const char *place, const char *name, uint32_t flags, unsigned answers)
{
    static struct seen seen;
    char dir[200], wal[220];
    snprintf(dir, sizeof dir, "%s-%s", place, name);
    snprintf(wal, sizeof wal, "%s-log", dir);
    idem_store *s = a_store(dir, wal, flags);
    answer(s, 0, answers);
    idem_close(s);
    memset(&seen, 0, sizeof seen);
    CHECK_IS(idem_log_walk(wal, look, &seen), IDEM_OK);
    CHECK_IS(seen.answers, answers);
    support_remove(wal);
}
static void all_is_there_after_closing(void *place)
{
    is_there_after_closing(place, "burst", 0, BURST);
    is_there_after_closing(place, "alone", IDEM_OPEN_NO_FLUSHER, BURST);
    is_there_after_closing(place, "few", IDEM_OPEN_NO_FLUSHER, 5);
}
static void what_was_done_is_on_the_disk_when_the_handle_is_closed(void **state)
{
    (void)state;
    all_is_there_after_closing((void *)(uintptr_t)support_dir());
}

/* Its log is gone by then, or was never written to. */
static void closing_a_store_that_was_destroyed_waits_for_nothing(void **state)
{
    (void)state;
    char wal[200];
    const char *dir = support_dir();
    snprintf(wal, sizeof wal, "%s-log", dir);
    idem_store *s = a_store(dir, wal, IDEM_OPEN_NO_FLUSHER);
    answer(s, 0, 5);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    idem_close(s);
    s = a_store(dir, wal, IDEM_OPEN_NO_FLUSHER);
    idem_close(s);
    support_remove(wal);
}

/* 24 places of 64 are taken and free again, then 34 more are taken. Asked only where half a ring ends, nobody would have looked in between. */
static void half_a_ring_asks_for_a_batch_wherever_it_began(void **state)
{
    (void)state;
    char wal[200];
    const char *dir = support_dir();
    snprintf(wal, sizeof wal, "%s-log", dir);
    idem_store *s = a_store(dir, wal, IDEM_OPEN_NO_FLUSHER);
    answer(s, 0, 12);
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    uint64_t before = support_stats(s).log.batches;
    answer(s, 12, 15);
    CHECK(idem_maintain(s, 0) >= 0);
    CHECK_IS(support_stats(s).log.batches, before);
    answer(s, 27, 2);
    CHECK(idem_maintain(s, 0) >= 0);
    CHECK(support_stats(s).log.batches > before);
    CHECK_IS(support_stats(s).log.overflows, 0);
    idem_close(s);
    support_remove(wal);
}

static void flush_when_due(idem_store *s)
{
    support_clock_add(support_stats(s).log.flush_interval_ms);
    maintain(s);
}

/* The second one finds too little room in the present file. The clock stands: no patrol comes to find it. */
static void what_begins_a_file_is_on_the_disk_when_there_is_no_more_to_do(void **state)
{
    (void)state;
    static char body[600000];
    char wal[200], key[16];
    const char *dir = support_dir();
    snprintf(wal, sizeof wal, "%s-log", dir);
    idem_options o = support_options(64);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    o.wal_dir = wal;
    o.wal_file_bytes = 1 << 20;
    o.response_bytes = sizeof body;
    o.durability_claim = o.durability_complete = IDEM_DURABILITY_ASYNC;
    idem_store *s = support_open(dir, &o);
    memset(body, 'x', sizeof body - 1);
    support_clock_stand(true);
    for (unsigned i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "b%u", i);
        support_answer(s, key, 200, body);
        flush_when_due(s);
        CHECK_IS(support_stats(s).log.queued, 0);
    }
    CHECK(support_stats(s).log.files > 1);
    support_clock_stand(false);
    idem_close(s);
    support_remove(wal);
}

static void *answer_first(void *store)
{
    answer(store, 1, 1);
    return NULL;
}
static void answer_in_a_new_lane(void *store)
{
    pthread_t t;
    CHECK_IS(pthread_create(&t, NULL, answer_first, store), 0);
    CHECK_IS(pthread_join(t, NULL), 0);
}

/* It sees that a batch is wanted, and asks for none; the leader of that one has counted the lanes before. The clock stands: no patrol comes. */
static void the_first_push_of_a_lane_beside_a_batch_asks_for_the_next_one(void **state)
{
    (void)state;
    char wal[200];
    const char *dir = support_dir();
    snprintf(wal, sizeof wal, "%s-log", dir);
    idem_options o = support_options(64);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    o.wal_dir = wal;
    o.durability_claim = o.durability_complete = IDEM_DURABILITY_ASYNC;
    idem_store *s = support_open(dir, &o);
    support_clock_stand(true);
    answer(s, 0, 1);
    flush_when_due(s);
    answer(s, 2, 1);
    support_at_point("log.ready", 1, answer_in_a_new_lane, s);
    flush_when_due(s);
    support_at_point(NULL, 0, NULL, NULL);
    CHECK_IS(support_stats(s).log.queued, 2);
    flush_when_due(s);
    CHECK_IS(support_stats(s).log.queued, 0);
    support_clock_stand(false);
    idem_close(s);
    support_remove(wal);
}

static void a_library_that_leaves_it_for_later_is_noticed(void **state)
{
    (void)state;
    support_promise(all_of_a_burst_is_found, FAULTS("log.leisurely"));
    support_promise(all_is_there_after_closing, FAULTS("log.undrained"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_burst_left_out_is_on_the_disk_when_there_is_no_more_to_do),
        cmocka_unit_test(what_was_done_is_on_the_disk_when_the_handle_is_closed),
        cmocka_unit_test(closing_a_store_that_was_destroyed_waits_for_nothing),
        cmocka_unit_test(what_begins_a_file_is_on_the_disk_when_there_is_no_more_to_do),
        cmocka_unit_test(the_first_push_of_a_lane_beside_a_batch_asks_for_the_next_one),
        cmocka_unit_test(half_a_ring_asks_for_a_batch_wherever_it_began),
        cmocka_unit_test(a_library_that_leaves_it_for_later_is_noticed),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
