/*
 * tests/crash/test_wal_kill.c - whoever leads the log is killed, or stopped for as long as it takes, at each of its steps; all processes are killed
 * at once. The others go on in bounded time, and what anybody was told is in the store that is built from the log afterwards.
 */
/* timeout: 300 s */
#include "crash/wal_store.h"

#include <errno.h>

#include "support/scenes.h"
#include "wal/io.h"

#define VICTIM_KEYS 60u /* 0 .. 59; a few of them fill a file */
#define PEER_KEY    100u
#define PEER_KEYS   6u
#define WAIT_MS     1000u /* half of it, then a leader that does not go on is succeeded */

static struct wal_place place;

static void begin_place(void)
{
    wal_place_make(&place);
    place.options.log_wait_ms = WAIT_MS;
}

static void use(struct wal_place *p, unsigned from, unsigned to)
{
    idem_options o = p->options;
    o.flags = IDEM_OPEN_NO_FLUSHER; /* its steps are its own */
    idem_store *s;
    CHECK_IS(idem_open(p->store, &o, &s), IDEM_OK);
    crash_arm();
    for (unsigned k = from; k < to; k++)
        wal_do_key(p, s, k, k % 2 == 0 ? IDEM_DURABILITY_SYNC : IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_SYNC,
                   k % 8 == 1 ? 190000 : 500, NULL);
    crash_disarm();
    idem_close(s);
}

static void victim(struct crash_page *page, void *ctx)
{
    (void)page;
    use(ctx, 0, VICTIM_KEYS);
}
static void late_victim(struct crash_page *page, void *ctx)
{
    (void)page;
    use(ctx, VICTIM_KEYS, VICTIM_KEYS + 20);
}

/* Another process works on, each call within the store's bound. */
static void peer(void *ctx)
{
    unsigned from = *(const unsigned *)ctx;
    idem_store *s = support_attach(place.store);
    for (unsigned k = from; k < from + PEER_KEYS; k++) {
        int64_t began = support_now_ms();
        CHECK(wal_do_key(&place, s, k, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC, 500, NULL));
        CHECK(support_now_ms() - began < SUPPORT_PATIENCE_MS / 2);
    }
    CHECK_IS(idem_sync(s, SUPPORT_PATIENCE_MS / 2), IDEM_OK);
    idem_close(s);
}

/* Nobody has the store any more; it is removed, as by a reboot. */
static void end_place(void)
{
    wal_check_recovered(&place, place.page->durable);
    support_remove(place.base);
}

static bool leads(int point)
{
    return strncmp(crash_point_name(point), "log.", 4) == 0;
}

static void at_each_point(enum crash_deed deed, unsigned nth)
{
    unsigned reached = 0;
    for (int point = 0; point < crash_points(); point++) {
        static unsigned first = PEER_KEY, second = PEER_KEY + PEER_KEYS;
        if (!leads(point))
            continue;
        begin_place();
        idem_store *s = support_open(place.store, &place.options);
        struct crash_step step = {point, nth, deed};
        struct crash_victim *v = crash_start(victim, &place, &step, 1);
        enum crash_end end = crash_wait(v);
        CHECK(end == CRASH_DONE || end == (deed == CRASH_KILL ? CRASH_KILLED : CRASH_STOPPED));
        reached += end != CRASH_DONE;
        support_in_child(peer, &first);
        if (end == CRASH_STOPPED) { /* it wakes up, and finds itself succeeded, or not */
            crash_continue(v);
            CHECK_IS(crash_wait(v), CRASH_DONE);
            support_in_child(peer, &second);
        }
        crash_end(v);
        idem_close(s);
        end_place();
    }
    print_message("%u points reached at passing %u\n", reached, nth);
    CHECK(reached > 10);
}

/* A new one is to be in this list. Those of making and destroying a store, and of old files, are crash/test_wal_ends.c's. */
static const char *const steps[] = {"log.pushed",    "log.elected", "log.sealed",     "log.ready",
                                    "log.assigned",  "log.written", "log.syncing",    "log.synced",
                                    "log.durable",   "log.noted",   "log.flushed",    "log.woken",
                                    "log.file.made", "log.id",      "log.file.named", "log.file.used"};

static void a_leader_killed_at_each_step_is_followed_by_another(void **state)
{
    (void)state;
    at_each_point(CRASH_KILL, 1);
    at_each_point(CRASH_KILL, 2);
    for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++)
        if (crash_kills(crash_point(steps[i])) == 0) {
            print_error("nobody was killed at %s\n", steps[i]);
            CHECK(false);
        }
    if (support_long())
        for (unsigned nth = 3; nth < 12; nth++)
            at_each_point(CRASH_KILL, nth);
}

static void a_leader_stopped_at_each_step_is_succeeded(void **state)
{
    (void)state;
    at_each_point(CRASH_STOP, 2);
    if (support_long())
        for (unsigned nth = 3; nth < 8; nth++)
            at_each_point(CRASH_STOP, nth);
}

/* The leader sleeps; who waits for it, or is about to succeed it, is killed. */
static void a_successor_killed_is_followed_by_another(void **state)
{
    (void)state;
    static const char *const points[] = {"log.waits", "log.stolen", "log.sealed", "log.file.named", "log.durable"};
    for (unsigned i = 0; i < sizeof points / sizeof points[0]; i++) {
        static unsigned first = PEER_KEY, second = PEER_KEY + PEER_KEYS;
        struct crash_step sleeps = {crash_point("log.written"), 3, CRASH_STOP},
                          dies = {crash_point(points[i]), 1, CRASH_KILL};
        CHECK(sleeps.point >= 0 && dies.point >= 0);
        begin_place();
        idem_store *s = support_open(place.store, &place.options);
        struct crash_victim *old = crash_start(victim, &place, &sleeps, 1);
        CHECK_IS(crash_wait(old), CRASH_STOPPED);
        struct crash_victim *next = crash_start(late_victim, &place, &dies, 1);
        CHECK_IS(crash_wait(next), CRASH_KILLED);
        support_in_child(peer, &first);
        crash_continue(old);
        CHECK_IS(crash_wait(old), CRASH_DONE);
        support_in_child(peer, &second);
        crash_end(old);
        crash_end(next);
        idem_close(s);
        end_place();
    }
}

/* The sync failed; nobody was told. */
static int failing_fdatasync(int fd)
{
    (void)fd;
    errno = EIO;
    return -1;
}

static void fails_and_dies(struct crash_page *page, void *ctx)
{
    static struct idem_io_calls failing;
    failing = idem_io_system;
    failing.fdatasync = failing_fdatasync;
    idem_store *s = support_attach(place.store);
    wal_do_key(ctx, s, 0, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC, 500, NULL);
    idem_io = &failing;
    (void)page;
    crash_arm();
    wal_do_key(ctx, s, 1, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC, 500, NULL);
}

static void a_leader_killed_before_it_says_that_a_sync_failed_gives_the_file_up(void **state)
{
    (void)state;
    static unsigned first = PEER_KEY;
    begin_place();
    idem_store *s = support_open(place.store, &place.options);
    struct crash_step dies = {crash_point("log.sync_failed"), 1, CRASH_KILL};
    struct crash_victim *v = crash_start(fails_and_dies, &place, &dies, 1);
    CHECK_IS(crash_wait(v), CRASH_KILLED);
    support_in_child(peer, &first);
    CHECK_IS(support_stats(s).log.files, 2);
    CHECK_IS(support_stats(s).log.poisoned_files, 1);
    crash_end(v);
    idem_close(s);
    end_place();
}

/* ------------------------------------------------------------------ all at once */

static void hasty(void *ctx)
{
    unsigned me = *(const unsigned *)ctx;
    idem_store *s = support_attach(place.store);
    for (unsigned k = me; k < WAL_KEYS; k += 3)
        wal_do_key(&place, s, k, IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_ASYNC, 100, NULL);
    support_sleep_ms(SUPPORT_PATIENCE_MS);
}

static void opener(void *ctx)
{
    (void)ctx;
    idem_store *s = support_attach(place.store);
    CHECK_IS(idem_sync(s, SUPPORT_PATIENCE_MS / 2), IDEM_OK);
    CHECK_IS(support_stats(s).log.queued, 0);
    idem_close(s);
}

static void all_killed_at_once_lose_nothing_that_an_opener_does_not_find(void **state)
{
    (void)state;
    uint64_t random = support_seed();
    for (unsigned round = 0; round < (support_long() ? 100u : 8u); round++) {
        static unsigned numbers[3] = {0, 1, 2};
        pid_t pid[3];
        begin_place();
        place.options.flush_interval_ms = round % 2 == 0 ? 10000 : 1; /* nobody flushes; or all the time */
        place.options.wal_ring_refs = round % 4 < 2 ? 1024 : 64;      /* rings that overflow */
        idem_close(support_open(place.store, &place.options));
        for (unsigned i = 0; i < 3; i++)
            pid[i] = support_spawn(hasty, &numbers[i]);
        support_sleep_ms((int64_t)(support_random(&random) % 40));
        for (unsigned i = 0; i < 3; i++)
            support_kill(pid[i], 9);
        for (unsigned i = 0; i < 3; i++)
            support_reap(pid[i], SUPPORT_PATIENCE_MS);
        support_in_child(opener, NULL);
        wal_check_recovered(&place, place.page->said);
        support_remove(place.base);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_leader_killed_at_each_step_is_followed_by_another, scene_teardown),
        cmocka_unit_test_teardown(a_leader_stopped_at_each_step_is_succeeded, scene_teardown),
        cmocka_unit_test_teardown(a_successor_killed_is_followed_by_another, scene_teardown),
        cmocka_unit_test_teardown(a_leader_killed_before_it_says_that_a_sync_failed_gives_the_file_up, scene_teardown),
        cmocka_unit_test_teardown(all_killed_at_once_lose_nothing_that_an_opener_does_not_find, scene_teardown),
    };
    return cmocka_run_group_tests(tests, scene_setup, support_teardown);
}
