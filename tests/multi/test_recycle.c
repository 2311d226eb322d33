/*
 * tests/multi/test_recycle.c - memory is recycled all the time under readers and writers that lose the processor, stop and die:
 * every byte that is handed out is the right one. Answers describe themselves: each byte follows from key and token.
 */
#include "support/support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORKERS 4
#define ENOUGH  1000 /* replays */
#define KEYS    300
#define LARGEST 30000

static struct shared {
    const char *dir;
    struct idem_a64 stop;
    struct idem_a64 completed, tombstones, replayed, bytes, full, marks;
} * shared;

static void describe(uint8_t *bytes, size_t n, unsigned key, uint64_t token)
{
    uint64_t x = (uint64_t)key << 40 ^ token ^ n;
    for (size_t i = 0; i < n; i++) {
        if (i % 8 == 0)
            x = x * UINT64_C(0x9E3779B97F4A7C15) + 1;
        bytes[i] = (uint8_t)(x >> (8 * (i % 8)));
    }
}

static void check_described(const void *at, size_t n, unsigned key, uint64_t token, const char *what)
{
    static uint8_t wanted[LARGEST + 64];
    CHECK(n <= sizeof wanted);
    describe(wanted, n, key, token);
    if (n > 0 && memcmp(at, wanted, n) != 0) {
        size_t i = 0;
        while (((const uint8_t *)at)[i] == wanted[i])
            i++;
        fprintf(stderr, "%s of key %u, token %llx: byte %zu of %zu is wrong\n", what, key, (unsigned long long)token, i,
                n);
        CHECK(false);
    }
}

static size_t some_size(uint64_t *random)
{
    uint64_t r = support_random(random);
    return r % 16 == 0 ? r / 16 % LARGEST : r % 16 < 4 ? r / 16 % 2000 : r / 16 % 100;
}

static void check_reply(const idem_reply *reply, int verdict, unsigned k)
{
    if (verdict == IDEM_REPLAY) {
        add_relaxed(&shared->replayed, 1);
        add_relaxed(&shared->bytes, reply->body_bytes);
        CHECK_IS(reply->status, (int32_t)(reply->meta_bytes + 2 * reply->body_bytes));
        if ((reply->flags & IDEM_REPLY_NOT_RETAINED) == 0) {
            check_described(reply->meta, reply->meta_bytes, k, reply->token, "metadata");
            check_described(reply->body, reply->body_bytes, k, reply->token, "body");
        }
    }
    if (reply->mark != NULL) { /* the mark holds the token of the attempt that left it */
        uint64_t token;
        CHECK(reply->mark_bytes > sizeof token);
        memcpy(&token, reply->mark, sizeof token);
        check_described((const uint8_t *)reply->mark + 8, reply->mark_bytes - 8, k, token, "mark");
        add_relaxed(&shared->marks, 1);
    }
}

static void leave_mark(idem_store *store, const idem_claim *claim, unsigned k, uint64_t *random)
{
    uint8_t mark[IDEM_MARK_MAX];
    size_t n = 9 + (size_t)(support_random(random) % (IDEM_MARK_MAX - 9));
    memcpy(mark, &claim->token, 8);
    describe(mark + 8, n - 8, k, claim->token);
    int e = idem_mark(store, claim, mark, n);
    CHECK(e == IDEM_OK || e == IDEM_E_LOST || e == IDEM_E_FULL);
}

static void complete_it(idem_store *store, const idem_claim *claim, unsigned k, uint64_t *random)
{
    static uint8_t meta[LARGEST], body[LARGEST];
    idem_response rs = IDEM_RESPONSE_INIT;
    rs.meta_bytes = some_size(random) / 2;
    rs.body_bytes = some_size(random);
    describe(meta, rs.meta_bytes, k, claim->token);
    describe(body, rs.body_bytes, k, claim->token);
    rs.meta = meta;
    rs.body = body;
    rs.status = (int32_t)(rs.meta_bytes + 2 * rs.body_bytes);
    rs.ttl_ms = 1 + (int64_t)(support_random(random) % (support_random(random) % 8 == 0 ? 20000 : 400));
    if (support_random(random) % 16 == 0)
        rs.flags = IDEM_RESPONSE_TRANSIENT;
    int e = idem_complete(store, claim, &rs);
    CHECK(e == IDEM_OK || e == IDEM_TOMBSTONE || e == IDEM_E_LOST || (rs.flags != 0 && e == IDEM_E_FULL));
    add_relaxed(e == IDEM_TOMBSTONE ? &shared->tombstones : &shared->completed, e >= 0);
}

static int on_story(const idem_story *story, void *ctx)
{
    (void)ctx;
    char key[16] = "";
    CHECK(story->key_bytes >= 5 && story->key_bytes < sizeof key && memcmp(story->key, "key-", 4) == 0);
    memcpy(key, story->key, story->key_bytes);
    if (story->mark_bytes > 8) {
        uint64_t token;
        memcpy(&token, story->mark, sizeof token);
        check_described((const uint8_t *)story->mark + 8, story->mark_bytes - 8, (unsigned)atoi(key + 4), token,
                        "a story's mark");
    }
    return 0;
}

static void work(void *number)
{
    uint64_t random = support_seed() * 19 + (uint64_t)(uintptr_t)number;
    idem_store *store = support_attach(shared->dir);
    support_shake(random);
    while (load_relaxed(&shared->stop) == 0) {
        unsigned k = (unsigned)(support_random(&random) % KEYS);
        char key[32];
        snprintf(key, sizeof key, "key-%u", k);
        idem_request rq = support_request(key);
        idem_claim claim;
        idem_reply reply = IDEM_REPLY_INIT;
        rq.lease_ms = 20 + (int64_t)(support_random(&random) % 200);
        rq.ttl_ms = 1 + (int64_t)(support_random(&random) % 3000);
        int e = idem_begin(store, &rq, &claim, &reply);
        CHECK(e >= 0 || e == IDEM_E_FULL);
        if (e >= 0)
            check_reply(&reply, e, k);
        else
            add_relaxed(&shared->full, 1);
        idem_reply_free(&reply);
        if (e == IDEM_CLAIMED || e == IDEM_RECLAIMED) {
            uint64_t what = support_random(&random) % 16;
            if (what < 6)
                leave_mark(store, &claim, k, &random);
            if (what < 12)
                complete_it(store, &claim, k, &random);
            else if (what < 14)
                CHECK(idem_abandon(store, &claim, (int)(what & 1)) <= 0);
            else if (what == 14)
                CHECK(idem_forget(store, &rq.key) <= 0);
        }
        if (support_random(&random) % 512 == 0)
            CHECK_IS(idem_walk(store, on_story, NULL), 0);
        if (support_random(&random) % 128 == 0)
            CHECK(idem_maintain(store, (int64_t)(support_random(&random) % 500)) >= 0);
    }
    idem_close(store);
}

static void storm(uint32_t when_full, long rounds)
{
    memset(shared, 0, sizeof *shared);
    shared->dir = support_dir();
    uint64_t random = support_seed() + when_full;
    idem_options o = support_options(KEYS);
    o.response_bytes = 3000; /* sixteen regions or a few more: each is recycled many times */
    o.when_full = when_full;
    idem_store *store = support_open(shared->dir, &o);
    pid_t pids[WORKERS];
    for (uintptr_t i = 0; i < WORKERS; i++)
        pids[i] = support_spawn(work, (void *)(i + 1));
    int64_t end_ms = support_now_ms() + SUPPORT_PATIENCE_MS;
    for (long n = 0; n < rounds || (load_relaxed(&shared->replayed) <= ENOUGH && support_now_ms() < end_ms); n++) {
        uintptr_t i = support_random(&random) % WORKERS;
        support_sleep_ms((int64_t)(support_random(&random) % 8));
        support_clock_add((int64_t)(support_random(&random) % 100));
        if (n % 7 == 0) {
            support_kill(pids[i], SIGKILL);
            CHECK_IS(support_reap(pids[i], SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
            pids[i] = support_spawn(work, (void *)(i + 1 + (uintptr_t)n * WORKERS));
        } else { /* the others run past leases, times to live, and the reuse of its regions */
            support_kill(pids[i], SIGSTOP);
            support_clock_add((int64_t)(support_random(&random) % 2000));
            support_sleep_ms((int64_t)(support_random(&random) % 12));
            support_kill(pids[i], SIGCONT);
        }
        if (n % 50 == 0)
            support_verify(shared->dir);
    }
    store_relaxed(&shared->stop, 1);
    for (unsigned i = 0; i < WORKERS; i++)
        CHECK_IS(support_reap(pids[i], SUPPORT_PATIENCE_MS), 0);
    idem_stats_data s = support_stats(store);
    print_message(
        "%llu completed, %llu tombstones, %llu replays of %llu bytes, %llu marks, %llu full, %llu regions swept, "
        "%llu entries moved, %llu evicted\n",
        (unsigned long long)load_relaxed(&shared->completed), (unsigned long long)load_relaxed(&shared->tombstones),
        (unsigned long long)load_relaxed(&shared->replayed), (unsigned long long)load_relaxed(&shared->bytes),
        (unsigned long long)load_relaxed(&shared->marks), (unsigned long long)load_relaxed(&shared->full),
        (unsigned long long)s.swept_regions, (unsigned long long)s.moved_entries, (unsigned long long)s.evicted);
    CHECK(load_relaxed(&shared->replayed) > ENOUGH);
    CHECK(s.swept_regions > 100);
    support_verify(shared->dir);
    support_clock_add(60000);
    support_maintain(store);
    support_clock_add(60000);
    support_maintain(store);
    s = support_stats(store);
    CHECK(s.regions_free + 3 >= s.regions);
    idem_close(store);
    support_verify(shared->dir);
}

static void every_byte_is_right_while_regions_are_recycled_under_stopped_and_dying_peers(void **state)
{
    (void)state;
    storm(IDEM_FULL_REFUSE, support_long() ? 30000 : support_scaled(500, 2));
}

static void every_byte_is_right_in_a_store_that_evicts(void **state)
{
    (void)state;
    storm(IDEM_FULL_EVICT, support_long() ? 30000 : support_scaled(300, 2));
}

int main(void)
{
    shared = support_shared(sizeof *shared);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_right_while_regions_are_recycled_under_stopped_and_dying_peers),
        cmocka_unit_test(every_byte_is_right_in_a_store_that_evicts),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
