/*
 * tests/multi/test_history.c - random calls of processes that are killed, stopped and moved through time: one order explains what they were told.
 *
 * Each round has keys of its own. Workers call whatever they like on a few keys at a time and write down what they asked and were told; the
 * test kills, stops and replaces them and steps the clock. Then each key's calls go to the checker (support/history.h). It is shown to
 * reject what a library with a seeded fault tells (and planted histories: unit/test_history.c). IDEM_TEST_SEED begins the rounds alike.
 */
#include "multi/history_worker.h"

#define AT_ONCE 4

static pid_t pids[WORKERS];
static unsigned started;

static void start_worker(void)
{
    pids[started] = support_spawn(work, (void *)(uintptr_t)started);
    started++;
}

static void kill_worker(unsigned w)
{
    ring->deaths[w].sent = next_stamp();
    support_kill(pids[w], SIGKILL);
    CHECK_IS(support_reap(pids[w], SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
    ring->deaths[w].known_ms = idem_clock_raw_ms();
    ring->deaths[w].known = next_stamp();
    pids[w] = 0;
    totals.killed++;
}

/* Waits for the next `calls` calls, or the end. */
static void let_them_call(uint64_t calls)
{
    uint64_t until = load_relaxed(&ring->stamp) + 2 * calls;
    int64_t end_ms = support_now_ms() + SUPPORT_PATIENCE_MS;
    while (load_relaxed(&ring->stamp) < until && load_relaxed(&ring->finished) == 0) {
        CHECK(support_now_ms() < end_ms);
        sched_yield();
    }
}

/* A worker that is still there. */
static unsigned choose_worker(uint64_t *random)
{
    unsigned w = (unsigned)(support_random(random) % started);
    while (pids[w] == 0)
        w = (w + 1) % started;
    return w;
}

static bool all_through(void *unused)
{
    (void)unused;
    for (unsigned w = 0; w < started; w++)
        if (pids[w] != 0 && load_relaxed(&ring->through[w]) == 0)
            return false;
    return true;
}

static void run_round(uint64_t number, bool tell)
{
    uint64_t random = (ring->seed + number) * UINT64_C(0xD1342543DE82EF95) | 1;
    const char *dir = ring->dir;
    uint64_t seed = ring->seed;
    memset(ring, 0, sizeof *ring);
    ring->dir = dir;
    ring->seed = seed;
    ring->number = number;
    ring->narrow = NARROW;
    started = 0;
    memset(pids, 0, sizeof pids);
    for (unsigned i = 0; i < AT_ONCE; i++)
        start_worker();
    while (load_relaxed(&ring->finished) == 0) {
        let_them_call(1 + support_random(&random) % 300);
        if (load_relaxed(&ring->finished) != 0)
            break;
        unsigned w = choose_worker(&random);
        switch (support_random(&random) % 4) {
        case 0:
            if (started == WORKERS)
                break;
            kill_worker(w);
            start_worker();
            break;
        case 1:
            support_kill(pids[w], SIGSTOP);
            let_them_call(support_random(&random) % 100);
            if (support_random(&random) % 2 == 0)
                support_clock_add(LEASE_MS / 2 + (int64_t)(support_random(&random) % LEASE_MS));
            let_them_call(support_random(&random) % 100);
            support_kill(pids[w], SIGCONT);
            totals.stopped++;
            break;
        default:
            support_clock_add((int64_t)(support_random(&random) % (LEASE_MS / 2)));
        }
    }
    CHECK(support_eventually(all_through, NULL, SUPPORT_PATIENCE_MS));
    store_relaxed(&ring->over, 1);
    for (unsigned w = 0; w < started; w++)
        if (pids[w] != 0)
            CHECK_IS(support_reap(pids[w], SUPPORT_PATIENCE_MS), 0);
    for (unsigned key = 0; key < KEYS; key++)
        check_key(key, tell);
}

static void new_store(void)
{
    idem_options o = support_options(8192);
    ring->dir = support_dir();
    idem_close(support_open(ring->dir, &o));
    memset(&totals, 0, sizeof totals);
}

static void what_processes_are_told_while_they_are_killed_stopped_and_moved_through_time_is_explained(void **state)
{
    (void)state;
    uint64_t most = support_long() ? 5000000 : (uint64_t)support_scaled(200000, 4);
    new_store();
    for (uint64_t number = 1; totals.calls < most && totals.contradictions == 0; number++)
        run_round(number, true);
    print_message("%llu calls on %llu keys, %llu cut off; %llu killed, %llu stopped, %llu refused\n",
                  (unsigned long long)totals.calls, (unsigned long long)totals.keys, (unsigned long long)totals.cut,
                  (unsigned long long)totals.killed, (unsigned long long)totals.stopped,
                  (unsigned long long)totals.refused);
    CHECK_IS(totals.contradictions, 0);
    CHECK(totals.cut > 0 && totals.killed > 10 && totals.stopped > 10);
    CHECK(totals.refused * 100 < totals.calls);
    support_verify(ring->dir);
}

static void a_library_with_a_fault_tells_what_no_order_explains(void **state)
{
    (void)state;
    static const char *const faults[] = {"fence.ignored",      "swap.blind",          "token.repeats",  "death.ignored",
                                         "lease.ignored",      "loss.forgotten",      "mark.forgotten", "claim.blind",
                                         "answer.overwritten", "fingerprint.ignored", "free.young"};
    for (unsigned i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        new_store();
        support_fault(faults[i]);
        uint64_t number = 0;
        while (totals.contradictions == 0 && number < 40)
            run_round(++number, false);
        support_fault(NULL);
        CHECK(totals.contradictions > 0);
        support_caught(faults[i], "no order explains what was told in %llu calls", (unsigned long long)totals.calls);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_processes_are_told_while_they_are_killed_stopped_and_moved_through_time_is_explained),
        cmocka_unit_test(a_library_with_a_fault_tells_what_no_order_explains),
    };
    return cmocka_run_group_tests(tests, history_setup, support_teardown);
}
