/*
 * tests/multi/test_history_log.c - random calls in a store with a log; then all processes and the machine die at once: what was told as durable is there.
 *
 * Each round: workers (multi/history_worker.h) call whatever they like, some of it synced. All are killed at once, the segment is gone, and of the log
 * is left what a crash of the machine may leave of the calls it made to the disk (support/wal_disk.h). The store comes back from that, other workers go
 * on with the same keys. One order must explain what all were told, in which the crash takes a key back no further than to the newest state
 * that somebody was told as durable (support/history.h). A log that tells too early is noticed.
 */
/* timeout: 300 s */
#include "multi/history_worker.h"

#include <sys/stat.h>
#include <unistd.h>

#include "support/wal_disk.h"

#define AT_ONCE    3u
#define LOG_NARROW 24
#define CALLS_MOST 1500u /* by those that die */

static char base[160], log_dir[176], image[176], store[176];
static pid_t pids[WORKERS];
static unsigned started;
static uint64_t rounds, killed, refused;

static void start_workers(void)
{
    for (unsigned i = 0; i < AT_ONCE; i++) {
        pids[started] = support_spawn(work, (void *)(uintptr_t)started);
        started++;
    }
}

static void let_them_call(uint64_t calls)
{
    uint64_t until = load_relaxed(&ring->stamp) + 2 * calls;
    int64_t end_ms = support_now_ms() + SUPPORT_PATIENCE_MS;
    while (load_relaxed(&ring->stamp) < until && load_relaxed(&ring->finished) == 0) {
        CHECK(support_now_ms() < end_ms);
        support_sleep_ms(1);
    }
}

static void kill_all(void)
{
    for (unsigned w = 0; w < started; w++)
        ring->deaths[w].sent = next_stamp();
    for (unsigned w = 0; w < started; w++)
        support_kill(pids[w], SIGKILL);
    for (unsigned w = 0; w < started; w++) {
        CHECK_IS(support_reap(pids[w], SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
        ring->deaths[w].known_ms = idem_clock_raw_ms();
        ring->deaths[w].known = next_stamp();
        killed++;
    }
}

/* What the disk may hold after a crash now takes the log's place. */
static void crash_machine(struct wal_disk *disk, uint64_t *random)
{
    static const enum wal_keep ways[][2] = {
        {WAL_LOST, WAL_LOST}, {WAL_SOME, WAL_TORN}, {WAL_KEPT, WAL_LOST}, {WAL_KEPT, WAL_SOME}, {WAL_KEPT, WAL_KEPT}};
    const enum wal_keep *way = ways[support_random(random) % (sizeof ways / sizeof ways[0])];
    wal_record_end();
    for (unsigned i = 0; i < wal_recorded(); i++)
        wal_disk_apply(disk, i);
    CHECK(wal_disk_image(disk, image, way[0], way[1], random));
    support_remove(log_dir);
    support_remove(store);
    CHECK_IS(rename(image, log_dir), 0);
    /* By a worker that is none. */
    for (unsigned key = 0; key < KEYS; key++) {
        struct history_call *c = &ring->calls[WORKERS - 1][key];
        *c = (struct history_call){
            .kind = CALL_CRASH, .key = key, .worker = WORKERS - 1, .called_ms = idem_clock_raw_ms()};
        c->called = next_stamp();
    }
}

/* False: there is no way back, which only a fault explains. */
static bool come_back(const idem_options *options, bool honest)
{
    idem_store *s;
    int e = idem_open(store, options, &s);
    if (honest)
        CHECK_IS(e, IDEM_OK);
    if (e != IDEM_OK)
        return false;
    idem_close(s);
    for (unsigned key = 0; key < KEYS; key++) {
        struct history_call *c = &ring->calls[WORKERS - 1][key];
        c->returned_ms = idem_clock_raw_ms();
        c->returned = next_stamp();
    }
    store_relaxed(&ring->worker_calls[WORKERS - 1], KEYS);
    return true;
}

static bool all_through(void *unused)
{
    (void)unused;
    for (unsigned w = AT_ONCE; w < started; w++)
        if (load_relaxed(&ring->through[w]) == 0)
            return false;
    return true;
}

static void run_round(uint64_t number, enum wal_lie lie, bool tell)
{
    uint64_t seed = ring->seed, random = (seed + number) * UINT64_C(0xD1342543DE82EF95) | 1;
    memset(ring, 0, sizeof *ring);
    ring->seed = seed;
    ring->number = number;
    ring->narrow = LOG_NARROW;
    ring->logged = true;
    ring->dir = store;
    for (unsigned key = 0; key < KEYS; key++)
        store_relaxed(&ring->key_calls[key], 1); /* the crash */
    started = 0;
    snprintf(base, sizeof base, "%s", support_dir());
    snprintf(log_dir, sizeof log_dir, "%s/log", base);
    snprintf(image, sizeof image, "%s/image", base);
    snprintf(store, sizeof store, "%s/store", base);
    CHECK_IS(mkdir(base, 0700), 0);
    idem_options options = support_options(1024);
    options.flags |= IDEM_OPEN_NO_FLUSHER; /* this process forks; the workers have theirs */
    options.wal_dir = log_dir;
    options.flush_interval_ms = 5;
    options.log_wait_ms = 60000;
    options.wal_file_bytes = 1 << 20;
    struct wal_disk *disk = wal_disk_new(NULL);
    wal_record_begin(log_dir, lie);
    idem_close(support_open(store, &options));
    start_workers();
    let_them_call(1 + support_random(&random) % CALLS_MOST);
    kill_all();
    crash_machine(disk, &random);
    wal_disk_free(disk);
    if (!come_back(&options, tell)) {
        totals.contradictions++;
        refused++;
        support_remove(base);
        return;
    }
    store_relaxed(&ring->finished, 0);
    start_workers();
    CHECK(support_eventually(all_through, NULL, SUPPORT_PATIENCE_MS));
    store_relaxed(&ring->over, 1);
    for (unsigned w = AT_ONCE; w < started; w++)
        CHECK_IS(support_reap(pids[w], SUPPORT_PATIENCE_MS), 0);
    for (unsigned key = 0; key < KEYS; key++)
        check_key(key, tell);
    support_verify(store);
    support_remove(base);
    rounds++;
}

static void what_was_told_as_durable_survives_the_machine(void **state)
{
    (void)state;
    uint64_t most = support_long() ? 5000000 : (uint64_t)support_scaled(40000, 4);
    memset(&totals, 0, sizeof totals);
    rounds = killed = 0;
    for (uint64_t number = 1; totals.calls < most && totals.contradictions == 0; number++)
        run_round(number, WAL_HONEST, true);
    print_message("%llu calls on %llu keys, %llu cut off; %llu crashes of the machine, %llu processes killed\n",
                  (unsigned long long)totals.calls, (unsigned long long)totals.keys, (unsigned long long)totals.cut,
                  (unsigned long long)rounds, (unsigned long long)killed);
    CHECK_IS(totals.contradictions, 0);
    CHECK(totals.cut > 0);
}

static void noticed(const char *name, const char *fault, enum wal_lie lie)
{
    memset(&totals, 0, sizeof totals);
    refused = 0;
    support_fault(fault);
    for (uint64_t number = 1000; totals.contradictions == 0 && number < 1040; number++)
        run_round(number, lie, false);
    support_fault(NULL);
    CHECK(totals.contradictions > 0);
    if (refused > 0)
        support_caught(name, "the log that a crash of the machine left is damaged");
    else
        support_caught(name, "no order explains what was told in %llu calls around a crash of the machine",
                       (unsigned long long)totals.calls);
}

static void a_log_that_tells_too_early_is_noticed(void **state)
{
    (void)state;
    noticed("log.ack_early", "log.ack_early", WAL_HONEST);
    noticed("a missing fdatasync", NULL, WAL_NO_FDATASYNC);
    noticed("log.unwaited", "log.unwaited", WAL_HONEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_told_as_durable_survives_the_machine),
        cmocka_unit_test(a_log_that_tells_too_early_is_noticed),
    };
    return cmocka_run_group_tests(tests, history_setup, support_teardown);
}
