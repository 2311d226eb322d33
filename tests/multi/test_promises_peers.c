/*
 * tests/multi/test_promises_peers.c - what the library promises when processes die or stop, when it is full, when bytes are
 * damaged, when the store is replaced: each sentence is a check, which is also run with a fault seeded into the library, and must
 * then fail.
 */
#include "support/support.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "index/bucket.h"

static struct shared {
    struct idem_a64 verdict, ready;
    idem_claim claim;
} * shared;

static int fresh(void **state)
{
    (void)state;
    memset(shared, 0, sizeof *shared);
    return 0;
}

/* ------------------------------------------------------------------ 4. death and sleep */

static void claim_and_sleep(void *dir)
{
    idem_store *store = support_attach(dir);
    CHECK_IS(support_begin(store, "k", &shared->claim), IDEM_CLAIMED);
    store_release(&shared->ready, 1);
    support_sleep_ms(SUPPORT_PATIENCE_MS);
}

static void dead_is_dead(void *dir)
{
    store_relaxed(&shared->ready, 0);
    idem_store *store = support_open(dir, NULL);
    pid_t pid = support_spawn(claim_and_sleep, dir);
    CHECK(support_eventually(support_is_set, &shared->ready, SUPPORT_PATIENCE_MS));
    CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
    support_end(pid);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_RECLAIMED);
}

static void a_dead_owners_key_is_taken_over_at_once_and_not_after_its_lease(void **state)
{
    (void)state;
    support_promise(dead_is_dead, FAULTS("death.ignored"));
}

static void slow_is_not_dead(void *dir)
{
    store_relaxed(&shared->ready, 0);
    idem_store *store = support_open(dir, NULL);
    pid_t pid = support_spawn(claim_and_sleep, dir);
    CHECK(support_eventually(support_is_set, &shared->ready, SUPPORT_PATIENCE_MS));
    support_kill(pid, SIGSTOP);
    for (int i = 0; i < 5; i++) {
        CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
        support_clock_add(5000);
    }
    support_clock_add(5001);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_RECLAIMED);
    support_end(pid);
}

static void a_slow_owner_that_lives_keeps_its_key_until_the_lease_ends_and_no_longer(void **state)
{
    (void)state;
    support_promise(slow_is_not_dead, FAULTS("life.ignored", "lease.ignored"));
}

static void claim_and_die_published(void *dir)
{
    idem_store *store = support_attach(dir);
    support_at_point("claim.published", 1, support_die, NULL);
    support_begin(store, "k", NULL);
    CHECK(false);
}

static void half_a_claim_blocks_nobody(void *dir)
{
    idem_options o = support_options(16);
    idem_store *store = support_open(dir, &o);
    CHECK_IS(support_reap(support_spawn(claim_and_die_published, dir), SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
    for (int i = 0; i < 50; i++) { /* its bucket's other keys, and the key itself */
        char key[32];
        snprintf(key, sizeof key, "other-%d", i);
        support_answer(store, key, i, "x");
    }
    CHECK_IS(support_begin(store, "k", NULL), IDEM_RECLAIMED);
    support_verify(dir);
}

static void an_owner_that_dies_in_the_middle_of_a_claim_blocks_nobody(void **state)
{
    (void)state;
    support_promise(half_a_claim_blocks_nobody, FAULTS("help.refused"));
}

static void complete_and_stop_before_the_swap(void *dir)
{
    idem_request rq = support_request("k");
    idem_store *store = support_attach(dir);
    rq.lease_ms = IDEM_LEASE_MAX_MS;
    CHECK_IS(idem_begin(store, &rq, &shared->claim, NULL), IDEM_CLAIMED);
    idem_response rs = support_response(200, "written before it slept for a day, and looked at after");
    rs.ttl_ms = 5000;
    support_at_point("complete.filled", 1, support_stop, NULL);
    CHECK_IS(idem_complete(store, &shared->claim, &rs), IDEM_OK);
    store_release(&shared->ready, 1);
    support_sleep_ms(SUPPORT_PATIENCE_MS);
}

static void rush(idem_store *store, int round)
{
    for (int i = 0; i < 600; i++) {
        char key[32];
        snprintf(key, sizeof key, "%d-%d", round, i);
        idem_claim claim;
        int e = support_begin(store, key, &claim);
        CHECK(e == IDEM_CLAIMED || e == IDEM_E_FULL);
        idem_response rs = support_response(7, "other bytes, other bytes, other bytes, other bytes, other!");
        rs.ttl_ms = 5000;
        if (e == IDEM_CLAIMED)
            CHECK(idem_complete(store, &claim, &rs) >= 0);
    }
}

static void sleeping_writer_spoils_nothing(void *dir)
{
    store_relaxed(&shared->ready, 0);
    idem_options o = support_options(16);
    o.keys = 1000;
    idem_store *store = support_open(dir, &o);
    pid_t pid = support_spawn(complete_and_stop_before_the_swap, dir);
    CHECK(support_wait_stopped(pid, SUPPORT_PATIENCE_MS)); /* its answer is written, and no slot names it yet */
    for (int round = 0; round < 20; round++) {             /* regions of that class come and go */
        rush(store, round);
        support_clock_add(20000);
        support_maintain(store);
    }
    CHECK(support_stats(store).swept_regions > 20);
    support_kill(pid, SIGCONT);
    CHECK(support_eventually(support_is_set, &shared->ready, SUPPORT_PATIENCE_MS));
    support_verify(dir);
    support_maintain(store); /* what it has published meanwhile leaves its region, before that goes */
    rush(store, 20);
    support_verify(dir);
    support_end(pid);
}

static void a_writer_that_stops_for_hours_corrupts_nothing_when_it_goes_on(void **state)
{
    (void)state;
    support_promise(sleeping_writer_spoils_nothing, FAULTS("hazard.ignored", "sweep.no_check1"));
}

static void *stop_and_allocate(void *room, size_t bytes)
{
    CHECK(bytes <= 100);
    raise(SIGSTOP); /* between finding the answer and copying it */
    return room;
}

static void read_and_stop(void *dir)
{
    static char room[100];
    idem_store *store = support_attach(dir);
    idem_request rq = support_request("k");
    idem_claim none;
    idem_reply reply = IDEM_REPLY_INIT;
    rq.wait_token = shared->claim.token;
    reply.alloc = stop_and_allocate;
    reply.alloc_ctx = room;
    CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_REPLAY);
    CHECK_BYTES(reply.body, reply.body_bytes, "the transient answer, which no slot names any more");
}

static void sleeping_reader_reads_right(void *dir)
{
    idem_options o = support_options(1000);
    idem_store *store = support_open(dir, &o);
    idem_request rq = support_request("k");
    idem_claim next;
    idem_response rs = support_response(503, "the transient answer, which no slot names any more");
    rs.flags = IDEM_RESPONSE_TRANSIENT;
    rq.ttl_ms = 5000;
    rq.lease_ms = IDEM_LEASE_MAX_MS;
    CHECK_IS(idem_begin(store, &rq, &shared->claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_complete(store, &shared->claim, &rs), IDEM_OK);
    CHECK_IS(idem_begin(store, &rq, &next, NULL), IDEM_CLAIMED);
    pid_t pid = support_spawn(read_and_stop, dir);
    CHECK(support_wait_stopped(pid, SUPPORT_PATIENCE_MS));
    for (int round = 0; round < 20; round++) {
        rush(store, round);
        support_clock_add(20000);
        support_maintain(store);
    }
    CHECK(support_stats(store).swept_regions > 20);
    support_kill(pid, SIGCONT);
    int how = support_reap(pid, SUPPORT_PATIENCE_MS);
    CHECK_IS(how, 0);
}

static void a_reader_that_stops_for_hours_gets_the_right_bytes_when_it_goes_on(void **state)
{
    (void)state;
    support_promise(sleeping_reader_reads_right, FAULTS("sweep.no_check2"));
}

static void freed_slots_are_named_by_no_header(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    for (int i = 0; i < 500; i++) {
        char key[32];
        snprintf(key, sizeof key, "key-%d", i);
        support_answer(store, key, i, "x");
    }
    support_clock_add(25 * 3600 * 1000);
    support_maintain(store);
    CHECK(support_stats(store).swept_entries >= 500);
    support_verify(dir);
}

static void what_is_freed_is_out_of_everybodys_sight_first(void **state)
{
    (void)state;
    support_promise(freed_slots_are_named_by_no_header, FAULTS("free.pending"));
}

static void work_once_and_die(void *dir)
{
    idem_store *store = support_attach(dir);
    idem_claim claim;
    int e = support_begin(store, "k", &claim);
    CHECK(e == IDEM_CLAIMED || e == IDEM_RECLAIMED);
    support_die(NULL);
}

static void the_dead_leave_nothing(void *dir)
{
    idem_options o = support_options(100);
    o.lanes = 3;
    o.processes = 3;
    idem_store *store = support_open(dir, &o);
    CHECK_IS(support_begin(store, "mine", NULL), IDEM_CLAIMED);
    for (int i = 0; i < 10; i++)
        CHECK_IS(support_reap(support_spawn(work_once_and_die, dir), SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
    CHECK_IS(support_stats(store).lanes, 1);
}

static void the_dead_leak_neither_lanes_nor_process_slots(void **state)
{
    (void)state;
    support_promise(the_dead_leave_nothing, FAULTS("lane.kept", "death.ignored"));
}

static void memory_comes_back(void *dir)
{
    idem_options o = support_options(1000);
    o.response_bytes = 500;
    idem_store *store = support_open(dir, &o);
    static char body[500];
    memset(body, 'x', sizeof body - 1);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 1000; i++) {
            char key[32];
            snprintf(key, sizeof key, "%d-%d", round, i);
            idem_claim claim;
            idem_response rs = support_response(1, body);
            rs.ttl_ms = 3600 * 1000;
            CHECK_IS(support_begin(store, key, &claim), IDEM_CLAIMED);
            CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
        }
        support_clock_add(3700 * 1000);
    }
}

static void what_has_expired_comes_back_as_memory(void **state)
{
    (void)state;
    support_promise(memory_comes_back, FAULTS("sweep.never"));
}

/* ------------------------------------------------------------------ 5. tokens over a new store */

static void tokens_go_on(void *dir)
{
    uint64_t last = 0;
    for (int i = 0; i < 3; i++) {
        idem_claim claim;
        idem_store *store = support_open(dir, NULL);
        CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
        CHECK(claim.token > last);
        last = claim.token;
        idem_close(store);
        CHECK_IS(idem_destroy(dir), IDEM_OK);
        support_sleep_ms(20); /* some ticks of the wall clock */
    }
}

static void without_a_log_tokens_go_on_growing_with_the_wall_clock(void **state)
{
    (void)state;
    support_promise(tokens_go_on, FAULTS("clock.from_zero"));
}

/* ------------------------------------------------------------------ 6. full */

static long fill(idem_store *store, const char *body)
{
    for (long i = 0; i < 100000; i++) {
        char key[32];
        snprintf(key, sizeof key, "filling-%ld", i);
        idem_claim claim;
        int e = support_begin(store, key, &claim);
        if (e == IDEM_E_FULL)
            return i;
        CHECK_IS(e, IDEM_CLAIMED);
        CHECK(support_complete(store, &claim, 200, body) >= 0);
        support_clock_add(i % 16 == 0); /* what was answered in this very tick is never dropped anyhow */
    }
    return 100000;
}

static void full_is_an_error(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    long n = fill(store, "x");
    CHECK(n < 100000);
    for (long i = 0; i < n; i++) {
        char key[32];
        snprintf(key, sizeof key, "filling-%ld", i);
        CHECK_IS(support_begin(store, key, NULL), IDEM_REPLAY);
    }
    CHECK_IS(support_stats(store).evicted, 0);
}

static void full_is_an_error_and_a_live_record_is_never_dropped_to_make_room(void **state)
{
    (void)state;
    support_promise(full_is_an_error, FAULTS("full.evicts"));
}

static void granted_is_recorded(void *dir)
{
    static char body[50000];
    static idem_claim granted[300];
    idem_options o = support_options(1000);
    o.response_bytes = 1000;
    idem_store *store = support_open(dir, &o);
    char key[32];
    memset(body, 'x', sizeof body - 1);
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "granted-%d", i);
        CHECK_IS(support_begin(store, key, &granted[i]), IDEM_CLAIMED);
    }
    body[1000] = '\0';
    fill(store, body);
    body[1000] = 'x';
    for (int i = 0; i < 300; i++) {
        int e = support_complete(store, &granted[i], i, body);
        CHECK(e == IDEM_OK || e == IDEM_TOMBSTONE);
        snprintf(key, sizeof key, "granted-%d", i);
        CHECK_IS(support_begin(store, key, NULL), IDEM_REPLAY);
    }
}

static void a_complete_of_a_granted_claim_is_always_recorded_at_least_as_an_outcome(void **state)
{
    (void)state;
    support_promise(granted_is_recorded, FAULTS("rescue.refused"));
}

/* ------------------------------------------------------------------ 7. damage */

static void damage_is_an_error(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    support_answer(store, "k", 200, "sound");
    struct idem_view v;
    idem_options o = IDEM_OPTIONS_INIT;
    memset(&v, 0, sizeof v);
    CHECK_IS(idem_attach(dir, &o, &v), IDEM_OK);
    for (uint64_t b = 0; b < v.bucket_count; b++)
        for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++) {
            uint64_t w = load_acquire(&v.buckets[b].slots[s]);
            if (w != 0) { /* its entry becomes of no kind that there is */
                struct idem_a64 *entry = v.arena + word_unit(w) * 2;
                store_release(entry, load_acquire(entry) | UINT64_C(7) << 22);
            }
        }
    CHECK_IS(support_begin(store, "k", NULL), IDEM_E_CORRUPT);
    CHECK_IS(support_begin(store, "another", NULL), IDEM_CLAIMED);
    idem_report report = IDEM_REPORT_INIT;
    CHECK_IS(idem_verify(dir, &report), IDEM_E_CORRUPT);
}

static void damaged_bytes_in_the_segment_are_an_error_code(void **state)
{
    (void)state;
    support_promise(damage_is_an_error, FAULTS("entry.unchecked"));
}

/* ------------------------------------------------------------------ 8. a store that is replaced */

static void destroyed_is_noticed(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    idem_options o = support_options(16);
    o.flags = 0;
    idem_store *worker = NULL;
    CHECK_IS(idem_open(dir, &o, &worker), IDEM_OK);
    CHECK_IS(support_begin(worker, "k", NULL), IDEM_CLAIMED);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    CHECK_IS(support_begin(worker, "j", NULL), IDEM_E_STALE); /* at once */
    idem_close(store);
}

static void a_destroyed_store_is_noticed_at_once(void **state)
{
    (void)state;
    support_promise(destroyed_is_noticed, FAULTS("stale.ignored"));
}

static void removed_is_noticed(void *dir)
{
    idem_close(support_open(dir, NULL));
    idem_store *worker = support_attach(dir);
    CHECK_IS(support_begin(worker, "k", NULL), IDEM_CLAIMED);
    support_remove(dir);
    idem_store *next = support_open(dir, NULL);
    support_answer(next, "j", 200, "in the new store");
    support_clock_add(1000);
    CHECK_IS(support_begin(worker, "j", NULL), IDEM_REPLAY); /* one store again */
}

static void after_a_second_nobody_goes_on_in_a_store_that_was_replaced_by_hand(void **state)
{
    (void)state;
    support_promise(removed_is_noticed, FAULTS("stale.ignored"));
}

int main(void)
{
    shared = support_shared(sizeof *shared);
#define TEST(name) cmocka_unit_test_setup(name, fresh)
    const struct CMUnitTest tests[] = {
        TEST(a_dead_owners_key_is_taken_over_at_once_and_not_after_its_lease),
        TEST(a_slow_owner_that_lives_keeps_its_key_until_the_lease_ends_and_no_longer),
        TEST(an_owner_that_dies_in_the_middle_of_a_claim_blocks_nobody),
        TEST(a_writer_that_stops_for_hours_corrupts_nothing_when_it_goes_on),
        TEST(a_reader_that_stops_for_hours_gets_the_right_bytes_when_it_goes_on),
        TEST(what_is_freed_is_out_of_everybodys_sight_first),
        TEST(the_dead_leak_neither_lanes_nor_process_slots),
        TEST(what_has_expired_comes_back_as_memory),
        TEST(without_a_log_tokens_go_on_growing_with_the_wall_clock),
        TEST(full_is_an_error_and_a_live_record_is_never_dropped_to_make_room),
        TEST(a_complete_of_a_granted_claim_is_always_recorded_at_least_as_an_outcome),
        TEST(damaged_bytes_in_the_segment_are_an_error_code),
        TEST(a_destroyed_store_is_noticed_at_once),
        TEST(after_a_second_nobody_goes_on_in_a_store_that_was_replaced_by_hand),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
