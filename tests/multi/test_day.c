/*
 * tests/multi/test_day.c - a day, and a week, of traffic with times to live, on an injected clock: memory, slots and lanes stay
 * bounded, nothing is refused, and every answer is there exactly as long as it should be.
 */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MINUTE_MS INT64_C(60000)
#define HOUR_MS   (60 * MINUTE_MS)
#define DAY_MS    (24 * HOUR_MS)

/* What the oracle knows of a key. Keys are numbered from 0 on and never used twice. */
struct fact {
    int64_t ends_ms; /* simulated time; 0: there must be no answer */
};

static struct world {
    const char *dir;
    int64_t now_ms;    /* simulated, since the beginning */
    int64_t real_ms;   /* what the real clock has added to it, at most */
    uint64_t next_key; /* shared: children make traffic, too */
    uint64_t full;
    struct fact facts[4000000];
} * world;

static const char *name_of(uint64_t key)
{
    static char names[2][64];
    static unsigned n;
    char *name = names[n++ % 2];
    snprintf(name, sizeof names[0], "0123456789-0123456789-0123456789-%07llu", (unsigned long long)key % 10000000);
    return name;
}

/* One request with its outcome. kind decides which. */
static void one_request(idem_store *store, unsigned kind, int64_t ttl_ms)
{
    uint64_t key = world->next_key++;
    CHECK(key < sizeof world->facts / sizeof world->facts[0]);
    idem_request rq = support_request(name_of(key));
    idem_response rs =
        support_response((int32_t)key, "sixty-four bytes of an answer, padded to what the store was made for");
    idem_claim claim;
    rq.ttl_ms = ttl_ms;
    rq.lease_ms = 30000;
    int e = idem_begin(store, &rq, &claim, NULL);
    if (e == IDEM_E_FULL)
        world->full++;
    CHECK_IS(e, IDEM_CLAIMED);
    rs.body_bytes = 64;
    switch (kind) {
    case 0: /* abandoned, remembered for its time to live */
        CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
        return;
    case 1: /* lost */
        return;
    case 2: /* failed, and tried again */
        rs.flags = IDEM_RESPONSE_TRANSIENT;
        CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
        CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
        rs.flags = 0;
        break;
    case 3: /* slow: renewed and marked meanwhile */
        CHECK_IS(idem_mark(store, &claim, "step one", 8), IDEM_OK);
        CHECK_IS(idem_renew(store, &claim, 0), IDEM_OK);
        break;
    case 4: /* forgotten by its operator */
        CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
        CHECK_IS(idem_forget(store, &rq.key), IDEM_OK);
        return;
    default:
        break;
    }
    CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK);
    world->facts[key].ends_ms = world->now_ms + ttl_ms;
}

static void one_minute(idem_store *store, uint64_t *random, unsigned day_long, unsigned short_lived)
{
    for (unsigned i = 0; i < day_long; i++)
        one_request(store, 9, DAY_MS);
    for (unsigned i = 0; i < short_lived; i++) {
        int64_t ttl_ms = 1000 + (int64_t)(support_random(random) % (uint64_t)(10 * MINUTE_MS));
        one_request(store, (unsigned)(support_random(random) % 16), ttl_ms);
    }
    support_clock_add(MINUTE_MS);
    world->now_ms += MINUTE_MS;
}

/* Looks at some keys; the real clock runs a little beside the simulated one, so near its end a key may be either. */
static void check_some(idem_store *store, uint64_t *random, unsigned n, uint64_t span)
{
    idem_reply reply = IDEM_REPLY_INIT;
    for (unsigned i = 0; i < n && world->next_key > 0; i++) {
        uint64_t back = support_random(random) % (world->next_key < span ? world->next_key : span);
        uint64_t key = world->next_key - 1 - back;
        idem_key k = support_key(name_of(key));
        int64_t left_ms = world->facts[key].ends_ms - world->now_ms;
        if (left_ms > 0 && left_ms < 2 * SUPPORT_PATIENCE_MS)
            continue;
        int e = idem_lookup(store, &k, &reply);
        if (left_ms > 0) {
            CHECK_IS(e, IDEM_REPLAY);
            CHECK_IS(reply.status, (int32_t)key);
            CHECK_IS(reply.body_bytes, 64);
            CHECK_IS(reply.flags, 0);
        } else {
            CHECK(e == IDEM_E_NO_KEY ||
                  (world->facts[key].ends_ms == 0 && (e == IDEM_UNKNOWN || e == IDEM_IN_PROGRESS)));
        }
        idem_reply_free(&reply);
    }
}

static void begin_world(void)
{
    memset(world, 0, offsetof(struct world, facts));
    memset(world->facts, 0, sizeof world->facts);
    world->dir = support_dir();
}

static void check_all_comes_back(idem_store *store)
{
    support_clock_add(2 * DAY_MS);
    support_maintain(store);
    idem_stats_data s = support_stats(store);
    CHECK(s.regions_free + 3 >= s.regions);
    /* A last pass counts slots: begin one by giving it something to do. */
    support_answer(store, "last", 1, "x");
    support_clock_add(2 * DAY_MS);
    support_maintain(store);
    CHECK(support_stats(store).slots_used <= 2);
    CHECK_IS(s.full, 0);
    CHECK_IS(s.tombstones, 0);
    CHECK_IS(s.evicted, 0);
}

/* A store for `keys` keys, of which `day_long` have answers that live for a day, and a twentieth shorter ones of all lengths. */
static void run_days(int days, uint64_t keys, uint64_t day_long_keys, bool with_maintenance)
{
    begin_world();
    uint64_t random = support_seed();
    idem_options o = support_options(keys);
    idem_store *store = support_open(world->dir, &o);
    bool mixed = day_long_keys * 10 < keys * 9;
    unsigned day_long = (unsigned)(day_long_keys / 1440), short_lived = mixed ? (unsigned)(keys / 100) : 0;
    uint64_t fewest_free = UINT64_MAX, most_slots = 0;
    for (int minute = 0; minute < days * 1440; minute++) {
        one_minute(store, &random, day_long, short_lived);
        if (with_maintenance && minute % 5 == 0)
            CHECK(idem_maintain(store, 1000) >= 0);
        if (minute % 60 == 0) {
            check_some(store, &random, 50, keys * 3);
            idem_stats_data s = support_stats(store);
            fewest_free = s.regions_free < fewest_free ? s.regions_free : fewest_free;
            most_slots = s.slots_used > most_slots ? s.slots_used : most_slots;
            CHECK_IS(s.lanes, 1);
        }
        if (minute % 1440 == 700)
            support_verify(world->dir);
    }
    idem_stats_data s = support_stats(store);
    print_message("%d days, %llu keys, of %llu regions never fewer than %llu free, %llu of %llu slots used at most, "
                  "%llu regions swept, %llu entries moved\n",
                  days, (unsigned long long)world->next_key, (unsigned long long)s.regions,
                  (unsigned long long)fewest_free, (unsigned long long)most_slots, (unsigned long long)s.slots,
                  (unsigned long long)s.swept_regions, (unsigned long long)s.moved_entries);
    CHECK_IS(world->full, 0);
    CHECK(most_slots <= keys * 12 / 10);
    check_all_comes_back(store);
    idem_close(store);
    support_verify(world->dir);
}

static void a_day_of_traffic_leaves_memory_and_slots_bounded_without_maintenance(void **state)
{
    (void)state;
    uint64_t keys = support_long() ? 30000 : 10000;
    run_days(support_long() ? 5 : 1, keys, keys * 6 / 10, false);
}

static void a_week_of_traffic_with_maintenance_refuses_nothing(void **state)
{
    (void)state;
    uint64_t keys = support_long() ? 20000 : 3000;
    run_days(7, keys, keys * 6 / 10, true);
}

static void a_week_with_nearly_the_advertised_number_of_keys_alive_refuses_nothing(void **state)
{
    (void)state;
    uint64_t keys = 1440 * (uint64_t)(support_long() ? 30 : support_scaled(10, 2));
    run_days(7, keys + keys / 32, keys, false); /* a region stays until its last answer has expired */
}

/* ------------------------------------------------------------------ a week of workers that come and go */

static void work_an_hour_and_die(void *ctx)
{
    uint64_t random = *(uint64_t *)ctx;
    idem_store *store = support_attach(world->dir);
    for (int minute = 0; minute < 60; minute++)
        one_minute(store, &random, 2, 10);
    /* In the middle of something, mostly. */
    support_at_point("*", 1 + (unsigned)(support_random(&random) % 200), support_die, NULL);
    for (int i = 0; i < 100; i++) {
        char key[32];
        idem_claim claim;
        snprintf(key, sizeof key, "dying-%d", (int)(support_random(&random) % 50));
        int e = support_begin(store, key, &claim);
        if (e == IDEM_CLAIMED || e == IDEM_RECLAIMED) {
            idem_response rs = support_response(1, "x");
            rs.ttl_ms = 1000;
            idem_mark(store, &claim, "m", 1);
            idem_complete(store, &claim, &rs);
        }
        idem_maintain(store, 0);
    }
    support_die(NULL);
}

static void a_week_of_workers_that_are_killed_every_hour_leaks_neither_lanes_nor_regions_nor_slots(void **state)
{
    (void)state;
    begin_world();
    uint64_t random = support_seed();
    idem_options o = support_options(6000);
    o.processes = 8;
    o.lanes = 8;
    idem_store *store = support_open(world->dir, &o);
    uint64_t fewest_free = UINT64_MAX;
    for (int hour = 0; hour < 168; hour++) {
        support_random(&random);
        pid_t pid = support_spawn(work_an_hour_and_die, &random);
        CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
        check_some(store, &random, 50, 10000);
        idem_stats_data s = support_stats(store);
        fewest_free = hour > 24 && s.regions_free < fewest_free ? s.regions_free : fewest_free;
        CHECK_IS(s.lanes, 1);
        CHECK_IS(s.processes, 1);
        CHECK_IS(s.full, 0);
        if (hour % 24 == 0)
            support_verify(world->dir);
    }
    print_message("168 workers, %llu keys, never fewer than %llu regions free\n", (unsigned long long)world->next_key,
                  (unsigned long long)fewest_free);
    CHECK(fewest_free > 0);
    support_clock_add(DAY_MS);
    for (int i = 0; i < 50; i++) {
        char key[32];
        snprintf(key, sizeof key, "dying-%d", i);
        int e = support_begin(store, key, NULL);
        CHECK(e == IDEM_CLAIMED || e == IDEM_RECLAIMED);
    }
    check_all_comes_back(store);
    idem_close(store);
    support_verify(world->dir);
}

/* ------------------------------------------------------------------ bursts */

static void expired_answers_make_way_while_claims_over_them_are_under_way(void **state)
{
    (void)state;
    /* The same keys again and again, each time after their answer has expired: always claimed in place, while sweeps run. */
    const char *dir = support_dir();
    idem_options o = support_options(500);
    idem_store *store = support_open(dir, &o);
    static idem_claim claims[500];
    static uint64_t last[500];
    memset(last, 0, sizeof last);
    for (int round = 0; round < 60; round++) {
        for (uint64_t k = 0; k < 500; k++) {
            CHECK_IS(support_begin(store, name_of(k), &claims[k]), IDEM_CLAIMED);
            CHECK(claims[k].token > last[k] && claims[k].attempt == 1);
            last[k] = claims[k].token;
        }
        if (round % 3 == 0)
            CHECK(idem_maintain(store, 2000) >= 0); /* the old answers' regions go, the claims stay */
        for (uint64_t k = 0; k < 500; k++) {
            idem_response rs = support_response((int32_t)k, "x");
            rs.ttl_ms = 1000 + round * 500;
            CHECK_IS(support_begin(store, name_of(k), NULL), IDEM_IN_PROGRESS);
            CHECK_IS(idem_complete(store, &claims[k], &rs), IDEM_OK);
        }
        support_clock_add(1000 + round * 500);
    }
    CHECK_IS(support_stats(store).full, 0);
    idem_close(store);
    support_verify(dir);
}

int main(void)
{
    world = support_shared(sizeof *world);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_day_of_traffic_leaves_memory_and_slots_bounded_without_maintenance),
        cmocka_unit_test(a_week_of_traffic_with_maintenance_refuses_nothing),
        cmocka_unit_test(a_week_with_nearly_the_advertised_number_of_keys_alive_refuses_nothing),
        cmocka_unit_test(a_week_of_workers_that_are_killed_every_hour_leaks_neither_lanes_nor_regions_nor_slots),
        cmocka_unit_test(expired_answers_make_way_while_claims_over_them_are_under_way),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
