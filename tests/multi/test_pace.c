/*
 * tests/multi/test_pace.c - who pays for a pass of the sweep, and when: each operation a little, for the chunks its lane took; so that
 * a pass ends before much more memory is used up, whoever dies, sleeps, or never comes again, and nobody does it all at once.
 *
 * Chunks and slices are counted at the library's points, by all processes. The arithmetic is index/sweep.c's.
 */
#include "support/support.h"

#include <stdio.h>
#include <string.h>

#include "base/point.h"

#define KEYS          40000
#define SLICE_BUCKETS 16
#define A_LOOK        16  /* regions, for each chunk */
#define A_CHUNK       128 /* slices owed for it */
#define OWED_MOST     10  /* chunks' worth, by a lane */
#define IDLE_LANES    6

static struct page {
    struct idem_a64 chunks, slices;
    struct idem_a64 in_operation, most; /* slices */
    struct idem_a64 key, ready;
} * page;

static void count_points(const char *name)
{
    if (strcmp(name, "chunk.taken") == 0)
        add_relaxed(&page->chunks, 1);
    if (strcmp(name, "sweep.slice") != 0)
        return;
    add_relaxed(&page->slices, 1);
    add_relaxed(&page->in_operation, 1);
}

static void operation_over(void)
{
    uint64_t n = load_relaxed(&page->in_operation);
    if (n > load_relaxed(&page->most))
        store_relaxed(&page->most, n);
    store_relaxed(&page->in_operation, 0);
}

static idem_request new_key(char text[32])
{
    snprintf(text, 32, "key-%llu", (unsigned long long)add_relaxed(&page->key, 1));
    return support_request(text);
}

static void complete(idem_store *store, const idem_claim *claim, size_t body_bytes)
{
    static char body[5000];
    idem_response r = support_response(200, "");
    r.body = body;
    r.body_bytes = body_bytes;
    r.ttl_ms = 3600 * 1000;
    CHECK_IS(idem_complete(store, claim, &r), IDEM_OK);
    operation_over();
}

static void one_key(idem_store *store, size_t body_bytes)
{
    char text[32];
    idem_request r = new_key(text);
    idem_claim claim;
    CHECK_IS(idem_begin(store, &r, &claim, NULL), IDEM_CLAIMED);
    operation_over();
    complete(store, &claim, body_bytes);
}

static void small_answers(idem_store *store)
{
    one_key(store, 40);
}

static void large_answers(idem_store *store)
{
    one_key(store, 5000);
}

static void many_at_once(idem_store *store)
{
    char texts[16][32];
    idem_request requests[16];
    idem_result results[16];
    for (unsigned i = 0; i < 16; i++) {
        requests[i] = new_key(texts[i]);
        results[i] = (idem_result){.size = sizeof results[i], .reply = IDEM_REPLY_INIT};
    }
    CHECK_IS(idem_begin_many(store, requests, 16, results), IDEM_OK);
    operation_over();
    for (unsigned i = 0; i < 16; i++) {
        CHECK_IS(results[i].verdict, IDEM_CLAIMED);
        complete(store, &results[i].claim, 40);
    }
}

/* Half of a store's memory is full of answers that have just expired; nobody has looked at it since. */
static idem_store *with_expired_answers(const char *dir)
{
    idem_options o = support_options(KEYS);
    idem_store *store = support_open(dir, &o);
    memset(page, 0, sizeof *page);
    for (uint64_t i = 0; i < KEYS / 2; i++) {
        char text[32];
        idem_claim claim;
        snprintf(text, sizeof text, "expired-%llu", (unsigned long long)i);
        idem_request r = support_request(text);
        idem_response answer = support_response(200, "forty bytes of an answer that soon expires");
        answer.ttl_ms = 5000;
        CHECK_IS(idem_begin(store, &r, &claim, NULL), IDEM_CLAIMED);
        CHECK_IS(idem_complete(store, &claim, &answer), IDEM_OK);
    }
    CHECK_IS(support_stats(store).passes, 0);
    support_clock_add(60 * 1000);
    idem_point_hook = count_points;
    return store;
}

static uint64_t slices_of(const idem_stats_data *s)
{
    return (s->buckets + SLICE_BUCKETS - 1) / SLICE_BUCKETS;
}

/* So many chunks may be taken before a pass is over: until all regions were looked at, what the pass costs, and what lanes may owe. */
static uint64_t chunks_most(const idem_stats_data *s, unsigned lanes)
{
    return s->regions / A_LOOK + 2 + slices_of(s) / A_CHUNK + 1 + OWED_MOST * lanes;
}

static void check_pass(idem_store *store, void (*work)(idem_store *store), unsigned lanes)
{
    idem_stats_data s = support_stats(store);
    uint64_t slices = slices_of(&s), most = chunks_most(&s, lanes), before = load_relaxed(&page->chunks);
    while (load_relaxed(&page->slices) < slices) {
        work(store);
        CHECK(load_relaxed(&page->chunks) - before <= most);
    }
    CHECK(load_relaxed(&page->most) <= A_CHUNK + 1); /* not even who takes a chunk each time pays for more */
    s = support_stats(store);
    CHECK(s.passes > 0 && s.swept_regions > s.regions / 4);
}

static void of_small_answers(void *dir)
{
    idem_store *store = with_expired_answers(dir);
    check_pass(store, small_answers, 1);
    CHECK(load_relaxed(&page->most) < A_CHUNK / 4); /* two dozen of these fill a chunk: none pays for it alone */
    support_verify(dir);
}

static void of_large_answers(void *dir)
{
    check_pass(with_expired_answers(dir), large_answers, 1);
}

static void of_many_at_once(void *dir)
{
    check_pass(with_expired_answers(dir), many_at_once, 1);
}

static void a_pass_ends_in_time_and_nobody_does_it_all_at_once(void **state)
{
    (void)state;
    support_promise(of_small_answers, FAULTS("sweep.unpaid", "sweep.at_once"));
    support_promise(of_large_answers, FAULTS("sweep.unpaid"));
    support_promise(of_many_at_once, FAULTS("sweep.unpaid"));
}

/* ------------------------------------------------------------------ who owes, and is gone */

static void take_a_chunk(idem_store *store)
{
    uint64_t before = load_relaxed(&page->chunks);
    while (load_relaxed(&page->chunks) == before)
        small_answers(store);
}

static void take_a_chunk_and_die(void *dir)
{
    take_a_chunk(support_attach(dir));
    support_die(NULL);
}

static void pass_by_mortals(void *dir)
{
    idem_store *store = with_expired_answers(dir);
    idem_stats_data s = support_stats(store);
    idem_close(store); /* so that its lane is theirs */
    uint64_t slices = slices_of(&s), most = chunks_most(&s, 1);
    while (load_relaxed(&page->slices) < slices) {
        CHECK_IS(support_reap(support_spawn(take_a_chunk_and_die, dir), SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
        CHECK(load_relaxed(&page->chunks) <= most);
    }
    support_verify(dir);
}

/* Each takes one chunk, owes for it, and dies: its lane's next owner pays. */
static void the_next_owner_of_a_lane_pays_what_a_dead_one_owed(void **state)
{
    (void)state;
    support_promise(pass_by_mortals, FAULTS("lane.forgiven", "sweep.unpaid"));
}

static void take_a_chunk_and_sleep(void *dir)
{
    take_a_chunk(support_attach(dir));
    store_release(&page->ready, 1);
    support_sleep_ms(SUPPORT_PATIENCE_MS);
}

static void pass_beside_sleepers(void *dir)
{
    idem_store *store = with_expired_answers(dir);
    pid_t pids[IDLE_LANES];
    for (unsigned i = 0; i < IDLE_LANES; i++) {
        store_release(&page->ready, 0);
        pids[i] = support_spawn(take_a_chunk_and_sleep, dir);
        CHECK(support_eventually(support_is_set, &page->ready, SUPPORT_PATIENCE_MS));
    }
    /* What they owe is never paid; it is a chunk or two each. */
    check_pass(store, small_answers, 1 + IDLE_LANES * 2 / OWED_MOST + 1);
    for (unsigned i = 0; i < IDLE_LANES; i++)
        support_end(pids[i]);
}

static void a_pass_ends_although_others_never_pay(void **state)
{
    (void)state;
    support_promise(pass_beside_sleepers, FAULTS("sweep.unpaid"));
}

/* ------------------------------------------------------------------ who reads; who needs memory now */

static void who_only_replays_pays_what_he_owes_and_no_more(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_store *store = with_expired_answers(dir);
    support_answer(store, "k", 1, "x");
    while (load_relaxed(&page->slices) == 0) /* a pass is under way */
        small_answers(store);
    store_relaxed(&page->slices, 0);
    for (unsigned i = 0; i < 2 * OWED_MOST * A_CHUNK; i++) {
        CHECK_IS(support_begin(store, "k", NULL), IDEM_REPLAY);
        operation_over();
    }
    uint64_t paid = load_relaxed(&page->slices);
    CHECK(paid > 0 && paid <= OWED_MOST * A_CHUNK);
    for (unsigned i = 0; i < 1000; i++)
        CHECK_IS(support_begin(store, "k", NULL), IDEM_REPLAY);
    CHECK_IS(load_relaxed(&page->slices), paid);
    idem_point_hook = NULL;
    idem_close(store);
}

/* Though nobody pays: who would be refused does all that is left himself. Twice what the store holds goes through it. On a machine that is slow
   now a call may be refused, or keep an outcome only; memory comes back all the same. */
static void who_needs_memory_now_does_not_wait_for_what_others_owe(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_store *store = with_expired_answers(dir);
    static char body[5000];
    idem_stats_data s = support_stats(store);
    int64_t end_ms = support_now_ms() + SUPPORT_PATIENCE_MS;
    idem_point_hook = NULL;
    support_fault("sweep.unpaid");
    for (unsigned n = 0; s.swept_regions <= 2 * s.regions && support_now_ms() < end_ms; n++) {
        char text[32];
        idem_request r = new_key(text);
        idem_response answer = support_response(200, "");
        idem_claim claim;
        answer.body = body;
        answer.body_bytes = sizeof body;
        answer.ttl_ms = 1000;
        if (idem_begin(store, &r, &claim, NULL) == IDEM_CLAIMED)
            CHECK(idem_complete(store, &claim, &answer) >= 0);
        if (n % 256 == 255) {
            support_clock_add(60 * 1000);
            s = support_stats(store);
        }
    }
    CHECK(support_fault_seen() > 0);
    support_fault(NULL);
    CHECK(s.swept_regions > 2 * s.regions);
    idem_close(store);
    support_verify(dir);
}

int main(void)
{
    page = support_shared(sizeof *page);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pass_ends_in_time_and_nobody_does_it_all_at_once),
        cmocka_unit_test(the_next_owner_of_a_lane_pays_what_a_dead_one_owed),
        cmocka_unit_test(a_pass_ends_although_others_never_pay),
        cmocka_unit_test(who_only_replays_pays_what_he_owes_and_no_more),
        cmocka_unit_test(who_needs_memory_now_does_not_wait_for_what_others_owe),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
