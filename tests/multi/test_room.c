/*
 * tests/multi/test_room.c - a store has room for the keys that it was made for, however many lanes fill it: each of them holds chunks of
 * memory that it hardly uses, and may die or sleep with them.
 */
/* timeout: 300 s */
#include "support/support.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/handle.h"

#define KEYS       4000u
#define BODY_BYTES 512u
#define LANES      240u
#define HOUR_MS    (INT64_C(3600) * 1000)

static idem_store *make(const char *dir, uint64_t keys, uint32_t bytes)
{
    idem_options o = support_options(keys);
    o.response_bytes = bytes;
    o.lanes = 256;
    o.processes = 128;
    return support_open(dir, &o);
}

/* 40 bytes, as the geometry assumes. */
static const char *name_of(unsigned i, char name[48])
{
    snprintf(name, 48, "0123456789-0123456789-0123456789-%07u", i);
    return name;
}

static int claim_one(idem_store *store, unsigned i, int64_t ttl_ms, idem_claim *claim)
{
    char name[48];
    idem_request rq = support_request(name_of(i, name));
    rq.ttl_ms = ttl_ms;
    rq.lease_ms = HOUR_MS;
    return idem_begin(store, &rq, claim, NULL);
}

static int answer_one(idem_store *store, const idem_claim *claim, uint32_t bytes)
{
    static const char body[1 << 16] = {'x'};
    idem_response rs = IDEM_RESPONSE_INIT;
    rs.body = body;
    rs.body_bytes = bytes;
    return idem_complete(store, claim, &rs);
}

static void put(idem_store *store, unsigned i, int64_t ttl_ms, uint32_t bytes)
{
    idem_claim claim;
    support_clock_add(
        1); /* a region that is used twice in a millisecond counts as emptier than it is, and is compacted */
    CHECK_IS(claim_one(store, i, ttl_ms, &claim), IDEM_CLAIMED);
    CHECK_IS(answer_one(store, &claim, bytes), IDEM_OK);
}

static void check_all_there(idem_store *store, const char *dir, unsigned keys)
{
    char name[48];
    for (unsigned i = 0; i < keys; i++)
        CHECK_IS(support_begin(store, name_of(i, name), NULL), IDEM_REPLAY);
    CHECK_IS(support_stats(store).tombstones, 0);
    idem_close(store);
    support_verify(dir);
}

/* ------------------------------------------------------------------ lanes that hold what they don't use */

struct holders {
    idem_store *store;
    pthread_barrier_t begun, over;
    unsigned next;
    int64_t ttl_ms[4]; /* each holder answers one key of each */
    unsigned kinds;
    uint32_t bytes;
};

/* Has a lane from now on, with a chunk for claims and one for answers of each kind. */
static void *hold(void *ctx)
{
    struct holders *h = ctx;
    for (unsigned i = 0; i < h->kinds; i++)
        put(h->store, h->next++, h->ttl_ms[i], h->bytes);
    pthread_barrier_wait(&h->begun);
    pthread_barrier_wait(&h->over);
    return NULL;
}

static void fill_beside(struct holders *h, unsigned lanes, unsigned keys)
{
    pthread_t *threads = calloc(lanes, sizeof *threads);
    pthread_attr_t small;
    CHECK(threads != NULL && pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, 256 << 10) == 0);
    CHECK(pthread_barrier_init(&h->begun, NULL, 2) == 0 && pthread_barrier_init(&h->over, NULL, lanes + 1) == 0);
    for (unsigned i = 0; i < lanes; i++) {
        CHECK_IS(pthread_create(&threads[i], &small, hold, h), 0);
        pthread_barrier_wait(&h->begun);
    }
    CHECK(support_stats(h->store).lanes >= lanes);
    for (unsigned i = h->next; i < keys; i++)
        put(h->store, i, h->ttl_ms[i % h->kinds], h->bytes);
    pthread_barrier_wait(&h->over);
    for (unsigned i = 0; i < lanes; i++)
        CHECK_IS(pthread_join(threads[i], NULL), 0);
    pthread_barrier_destroy(&h->begun);
    pthread_barrier_destroy(&h->over);
    pthread_attr_destroy(&small);
    free(threads);
}

static void check_idle_lanes(void *dir)
{
    struct holders h = {
        .store = make(dir, KEYS, BODY_BYTES), .ttl_ms = {24 * HOUR_MS}, .kinds = 1, .bytes = BODY_BYTES};
    fill_beside(&h, LANES, KEYS);
    check_all_there(h.store, dir, KEYS);
}

static void all_keys_fit_beside_many_lanes_that_hold_chunks_they_do_not_use(void **state)
{
    (void)state;
    static const char *const faults[] = {"share.never", NULL};
    support_promise(check_idle_lanes, faults);
}

static void answers_of_many_lives_fit_beside_many_lanes(void **state)
{
    (void)state;
    const char *dir = support_dir();
    struct holders h = {.store = make(dir, KEYS, BODY_BYTES),
                        .ttl_ms = {HOUR_MS, 10 * HOUR_MS, 24 * HOUR_MS, IDEM_FOREVER},
                        .kinds = 4,
                        .bytes = BODY_BYTES};
    fill_beside(&h, LANES, KEYS);
    check_all_there(h.store, dir, KEYS);
}

static void sizes_at_the_edge_fit_beside_many_lanes(void **state)
{
    (void)state;
    static const struct {
        unsigned keys, bytes, lanes;
    } sizes[] = {{64, 1, 60}, {100, 1000, 80}, {3000, 3990, 100}, {20000, 100, LANES}, {200, 16000, 40}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const char *dir = support_dir();
        struct holders h = {.store = make(dir, sizes[i].keys, sizes[i].bytes),
                            .ttl_ms = {24 * HOUR_MS},
                            .kinds = 1,
                            .bytes = sizes[i].bytes};
        fill_beside(&h, sizes[i].lanes, sizes[i].keys);
        check_all_there(h.store, dir, sizes[i].keys);
        CHECK_IS(idem_destroy(dir), IDEM_OK);
    }
}

/* ------------------------------------------------------------------ processes */

struct crew {
    const char *dir;
    struct idem_a64 *next;
    bool dies;
};

static void fills_with_others(void *ctx)
{
    struct crew *crew = ctx;
    idem_store *store = support_attach(crew->dir);
    for (;;) {
        unsigned i = (unsigned)add_relaxed(crew->next, 1); /* relaxed: a number to each */
        if (i >= KEYS)
            break;
        put(store, i, 0, BODY_BYTES);
        if (crew->dies && i % 97 == 0)
            support_die(NULL);
    }
    idem_close(store);
}

/* All of them at once; those who die are followed by others. */
static void fill_by_crew(struct crew *crew, unsigned processes)
{
    pid_t pids[64];
    idem_store *store = make(crew->dir, KEYS, BODY_BYTES);
    crew->next = support_shared(sizeof *crew->next);
    for (unsigned i = 0; i < processes; i++)
        pids[i] = support_spawn(fills_with_others, crew);
    for (unsigned i = 0, left = processes; left > 0; i = (i + 1) % processes) {
        if (pids[i] == 0)
            continue;
        int how = support_reap(pids[i], SUPPORT_PATIENCE_MS);
        CHECK(how == 0 || (crew->dies && how == SUPPORT_KILLED));
        pids[i] = how == 0 ? 0 : support_spawn(fills_with_others, crew);
        left -= how == 0;
    }
    check_all_there(store, crew->dir, KEYS);
}

static void all_keys_fit_when_64_processes_fill_the_store_at_once(void **state)
{
    (void)state;
    struct crew crew = {.dir = support_dir()};
    fill_by_crew(&crew, 64);
}

static void all_keys_fit_when_processes_that_fill_the_store_are_killed(void **state)
{
    (void)state;
    struct crew crew = {.dir = support_dir(), .dies = true};
    fill_by_crew(&crew, 16);
}

/* ------------------------------------------------------------------ two who make room at once */

#define HALF 1000u

/* Another process makes all the room there is to make, just before one that needs it begins to. */
struct maker {
    const char *dir;
    struct idem_a64 *go, *done;
};

static void makes_room(void *ctx)
{
    struct maker *maker = ctx;
    idem_store *store = support_attach(maker->dir);
    CHECK(support_eventually(support_is_set, maker->go, SUPPORT_PATIENCE_MS));
    support_maintain(store);
    store_release(maker->done, 1);
    idem_close(store);
}

static void let_another_make_room(void *ctx)
{
    struct maker *maker = ctx;
    support_clock_add(90000); /* the short-lived answers' time is over */
    store_release(maker->go, 1);
    CHECK(support_eventually(support_is_set, maker->done, SUPPORT_PATIENCE_MS));
}

static void check_room_made_by_another(void *dir)
{
    idem_store *store = make(dir, HALF, 4000);
    struct maker maker = {dir, support_shared(sizeof(struct idem_a64)), support_shared(sizeof(struct idem_a64))};
    pid_t pid = support_spawn(makes_room, &maker);
    static idem_claim spare[HALF];
    char name[48];
    unsigned n = 0, short_lived = 0;
    /* All memory is short-lived answers', when claims that were granted before want some. */
    for (; n < HALF / 2; n++)
        CHECK_IS(claim_one(store, n, 0, &spare[n]), IDEM_CLAIMED);
    for (; short_lived < 4 * HALF; short_lived++) {
        idem_claim claim;
        int e = claim_one(store, HALF + short_lived, 60000, &claim);
        if (e == IDEM_E_FULL)
            break;
        CHECK_IS(e, IDEM_CLAIMED);
        CHECK(answer_one(store, &claim, 4000) >= 0);
    }
    CHECK(short_lived < 4 * HALF);
    support_at_point("room.wanted", 1, let_another_make_room, &maker);
    for (unsigned i = 0; i < n && load_acquire(maker.done) == 0; i++)
        CHECK_IS(answer_one(store, &spare[i], 4000), IDEM_OK);
    support_at_point(NULL, 0, NULL, NULL);
    CHECK(load_acquire(maker.done) != 0);
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
    CHECK_IS(support_begin(store, name_of(0, name), NULL), IDEM_REPLAY);
    idem_close(store);
    support_verify(dir);
}

static void an_answer_gets_the_room_that_another_process_made_for_it(void **state)
{
    (void)state;
    static const char *const faults[] = {"room.once", NULL};
    support_promise(check_room_made_by_another, faults);
}

/* ------------------------------------------------------------------ a lane that sleeps in the middle of its chunk */

/* Stops when the answer is written, and its place not taken yet: the chunk's span names it as free. */
static void sleeps_over_a_written_answer(void *dir)
{
    idem_store *store = support_attach(dir);
    idem_claim claim;
    put(store, 0, 0, BODY_BYTES); /* now the lane has a chunk */
    CHECK_IS(claim_one(store, 1, 0, &claim), IDEM_CLAIMED);
    support_at_point("complete.written", 1, support_stop, NULL);
    CHECK_IS(answer_one(store, &claim, BODY_BYTES), IDEM_OK);
    idem_close(store);
}

static void note_taken(void *taken)
{
    *(bool *)taken = true;
}

static void check_a_sleepers_place(void *dir)
{
    bool taken = false;
    idem_store *store = make(dir, 300, BODY_BYTES);
    pid_t pid = support_spawn(sleeps_over_a_written_answer, dir);
    CHECK(support_wait_stopped(pid, SUPPORT_PATIENCE_MS));
    unsigned keys = 2, large;
    /* Large answers take regions until hardly one is free; small ones then take what others have left: once, if there is any for them. (In the end
       the sweep would move the sleeper's claim, and it would not take that place any more.) */
    for (; support_stats(store).regions_free > 6; keys++)
        put(store, keys, 0, 60000);
    large = keys;
    support_at_point("share.taken", 1, note_taken, &taken);
    for (int e = IDEM_OK; e == IDEM_OK && !taken; keys += e == IDEM_OK) {
        idem_claim claim;
        e = claim_one(store, keys, 0, &claim);
        e = e == IDEM_CLAIMED ? answer_one(store, &claim, BODY_BYTES) : e;
        CHECK(e == IDEM_OK || e == IDEM_TOMBSTONE || e == IDEM_E_FULL);
    }
    support_at_point(NULL, 0, NULL, NULL);
    CHECK(taken || keys > large + 50);
    support_kill(pid, SIGCONT);
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
    for (unsigned i = 0; i < keys; i++) {
        char name[48];
        CHECK_IS(support_begin(store, name_of(i, name), NULL), IDEM_REPLAY);
    }
    support_verify(dir);
    idem_close(store);
}

static void where_a_lane_sleeps_over_its_next_place_nobody_else_takes_it(void **state)
{
    (void)state;
    support_promise(check_a_sleepers_place, FAULTS("share.unchecked"));
}

/* ------------------------------------------------------------------ a count that is out of date */

/* One counts free regions and sleeps; another frees some, and forgets what was counted before; then the first one writes down what he saw: that none is
   free. That is how memory looks afterwards. */
static void check_an_old_count(void *dir)
{
    idem_store *store = make(dir, 300, BODY_BYTES);
    struct idem_view *v = store->view;
    for (unsigned i = 0; i < 300; i++) {
        store_relaxed(&v->generation->free_most, 1);
        put(store, i, 0, BODY_BYTES);
    }
    support_verify(dir);
    idem_close(store);
}

static void nothing_is_refused_for_an_old_count_of_free_regions(void **state)
{
    (void)state;
    support_promise(check_an_old_count, FAULTS("room.believed"));
}

/* ------------------------------------------------------------------ claims first, then all answers */

/* Who takes a chunk looks at some regions only; here always at the same, as in a store of so many that the look comes round too late. */
static void answer_unseen(idem_store *store, const idem_claim *claim)
{
    support_clock_add(1);
    for (uint32_t i = 0; i < store->view->fixed.lanes_max; i++) {
        struct idem_a64 *sweep = &store->view->lanes[i].sweep;
        store_relaxed(sweep, load_relaxed(sweep) & ~(uint64_t)UINT32_MAX);
    }
    CHECK_IS(answer_one(store, claim, BODY_BYTES), IDEM_OK);
}

/* The claims' memory comes back region by region as they are answered, just in time: nothing has to be moved for it. */
static void check_claims_then_answers(void *dir)
{
    enum { ALL = 8000, LAST = ALL / 16 * 15 };
    static idem_claim claims[ALL];
    idem_store *store = make(dir, ALL, BODY_BYTES);
    for (unsigned i = 0; i < ALL; i++)
        CHECK_IS(claim_one(store, i, 0, &claims[i]), IDEM_CLAIMED);
    /* Of the last claims most are answered first: their regions would be worth emptying, if anything had to be moved. */
    for (unsigned i = LAST; i < ALL; i++)
        if (i % 4 != 0)
            answer_unseen(store, &claims[i]);
    for (unsigned i = 0; i < ALL; i++)
        if (i < LAST || i % 4 == 0)
            answer_unseen(store, &claims[i]);
    CHECK_IS(support_stats(store).moved_entries, 0);
    check_all_there(store, dir, ALL);
}

static void who_wants_memory_takes_what_is_empty_before_he_moves_anything(void **state)
{
    (void)state;
    support_promise(check_claims_then_answers, FAULTS("room.hasty"));
}

/* ------------------------------------------------------------------ memory that preempted processes hold back */

enum { SLEEPERS = 8, SLEEPERS_KEYS = 4000 };
static pid_t sleepers[SLEEPERS];
static unsigned asleep, waits;

static void sleeps_before_its_claim(void *dir)
{
    idem_sleep_hook = NULL;
    idem_store *store = support_attach(dir);
    idem_claim claim;
    support_at_point("reserve.hazard", 1, support_stop, NULL);
    CHECK_IS(claim_one(store, SLEEPERS_KEYS + (unsigned)getpid(), 0, &claim), IDEM_CLAIMED);
    CHECK_IS(answer_one(store, &claim, BODY_BYTES), IDEM_OK);
    idem_close(store);
}

/* Who waits lets them run. */
static bool let_sleepers_run(int64_t timeout_ms)
{
    (void)timeout_ms;
    waits++;
    for (unsigned i = 0; i < asleep; i++)
        support_kill(sleepers[i], SIGCONT);
    for (; asleep > 0; asleep--)
        CHECK_IS(support_reap(sleepers[asleep - 1], SUPPORT_PATIENCE_MS), 0);
    return true;
}

/* False: who doesn't want to wait was refused; who waits was not. */
static bool put_unless_it_waits(idem_store *store, unsigned i)
{
    char name[48];
    idem_claim claim;
    idem_request rq = support_request(name_of(i, name));
    unsigned before = waits;
    rq.lease_ms = HOUR_MS;
    rq.flags = IDEM_NO_WAIT;
    support_clock_add(1);
    int e = idem_begin(store, &rq, &claim, NULL);
    CHECK_IS(waits, before);
    if (e == IDEM_E_FULL) {
        put(store, i, 0, BODY_BYTES);
        return false;
    }
    CHECK_IS(e, IDEM_CLAIMED);
    CHECK_IS(answer_one(store, &claim, BODY_BYTES), IDEM_OK);
    return true;
}

static void check_held_memory(void *dir)
{
    idem_store *store = make(dir, SLEEPERS_KEYS, BODY_BYTES);
    unsigned all = 0, refused = 0;
    asleep = waits = 0;
    for (unsigned i = 0; i < SLEEPERS_KEYS - SLEEPERS; i++) {
        if (all < SLEEPERS &&
            i == (all + 1) * (SLEEPERS_KEYS / (SLEEPERS + 2))) { /* the claims' region is another one by now */
            sleepers[asleep] = support_spawn(sleeps_before_its_claim, dir);
            CHECK(support_wait_stopped(sleepers[asleep++], SUPPORT_PATIENCE_MS));
            idem_sleep_hook = let_sleepers_run;
            all++;
        }
        refused += !put_unless_it_waits(store, i);
    }
    CHECK(waits > 0 && refused > 0);
    let_sleepers_run(0);
    idem_sleep_hook = NULL;
    support_verify(dir);
    idem_close(store);
}

static void memory_that_the_preempted_hold_is_waited_for(void **state)
{
    (void)state;
    support_promise(check_held_memory, FAULTS("room.unwaited"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_keys_fit_beside_many_lanes_that_hold_chunks_they_do_not_use),
        cmocka_unit_test(answers_of_many_lives_fit_beside_many_lanes),
        cmocka_unit_test(sizes_at_the_edge_fit_beside_many_lanes),
        cmocka_unit_test(all_keys_fit_when_64_processes_fill_the_store_at_once),
        cmocka_unit_test(all_keys_fit_when_processes_that_fill_the_store_are_killed),
        cmocka_unit_test(an_answer_gets_the_room_that_another_process_made_for_it),
        cmocka_unit_test(where_a_lane_sleeps_over_its_next_place_nobody_else_takes_it),
        cmocka_unit_test(nothing_is_refused_for_an_old_count_of_free_regions),
        cmocka_unit_test(who_wants_memory_takes_what_is_empty_before_he_moves_anything),
        cmocka_unit_test(memory_that_the_preempted_hold_is_waited_for),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
