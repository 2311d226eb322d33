/*
 * tests/multi/test_batch.c - what happens under a batch while it runs: it may be long, and stops noticing nothing.
 */
#include "support/support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GROUP 16 /* requests between two looks at the world */
#define N     (4 * GROUP)

static const char *dir;
static idem_request requests[N];
static idem_result results[N];
static char keys[N][16];

static int fresh(void **state)
{
    (void)state;
    dir = support_dir();
    for (int i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "key-%d", i);
        requests[i] = support_request(keys[i]);
        results[i] = (idem_result){.size = sizeof results[i], .reply = IDEM_REPLY_INIT};
    }
    return 0;
}

/* ------------------------------------------------------------------ replaced */

static void destroy(void *unused)
{
    (void)unused;
    CHECK_IS(idem_destroy(dir), IDEM_OK);
}

static void let_somebody_destroy(void *unused)
{
    CHECK_IS(support_reap(support_spawn(destroy, unused), SUPPORT_PATIENCE_MS), 0);
}

static void a_batch_goes_on_in_the_new_store_when_the_old_one_is_destroyed_under_it(void **state)
{
    (void)state;
    idem_store *store = support_open_with(dir, IDEM_OPEN_CREATE);
    CHECK_IS(support_begin(store, "warm", NULL), IDEM_CLAIMED);
    support_at_point("claim.finished", GROUP, let_somebody_destroy, NULL);
    CHECK_IS(idem_begin_many(store, requests, N, results), IDEM_OK);
    support_at_point(NULL, 0, NULL, NULL);
    for (int i = 0; i < N; i++) {
        CHECK_IS(results[i].verdict, IDEM_CLAIMED);
        bool first = memcmp(results[i].claim.store_uuid, results[0].claim.store_uuid, 16) == 0;
        CHECK_IS(first, i < GROUP);
    }
    for (int i = GROUP; i < N; i++)
        CHECK_IS(support_complete(store, &results[i].claim, 1, "done"), IDEM_OK);
    idem_close(store);
    support_verify(dir);
}

/* ------------------------------------------------------------------ slow answers */

/* A caller's allocator that takes its time. */
static void *slow_alloc(void *ctx, size_t bytes)
{
    support_clock_add(60);
    (void)ctx;
    return malloc(bytes);
}

static void a_batch_grants_no_lease_that_is_over_already(void **state)
{
    (void)state;
    idem_store *store = support_open_with(dir, IDEM_OPEN_CREATE);
    support_answer(store, keys[0], 200, "answered before");
    results[0].reply.alloc = slow_alloc;
    for (int i = 1; i < N; i++)
        requests[i].lease_ms = 50;
    CHECK_IS(idem_begin_many(store, requests, N, results), IDEM_OK);
    CHECK_IS(results[0].verdict, IDEM_REPLAY);
    for (int i = 1; i < N; i++) {
        CHECK_IS(results[i].verdict, IDEM_CLAIMED);
        CHECK_IS(support_begin(store, keys[i], NULL), IDEM_IN_PROGRESS);
    }
    free((void *)(uintptr_t)results[0].reply.body);
    idem_close(store);
}

/* ------------------------------------------------------------------ missing pages */

static bool went_on;

static void note(void *unused)
{
    (void)unused;
    went_on = true;
}

static void truncate_generation(void *unused)
{
    (void)unused;
    CHECK_IS(truncate(support_file_of(dir, "gen-"), 8192), 0);
    support_at_point("claim.filled", GROUP + 1, note, NULL); /* those of the group after this one are tried */
}

static void run_into_missing_pages(void *unused)
{
    (void)unused;
    idem_store *store = support_open_with(dir, IDEM_OPEN_CREATE | IDEM_OPEN_SIGBUS_GUARD);
    for (int i = GROUP; i < GROUP + 4; i++)
        support_answer(store, keys[i], 200, "answered before"); /* copies of it are dropped again, not leaked */
    support_at_point("claim.finished", GROUP, truncate_generation, NULL);
    CHECK_IS(idem_begin_many(store, requests, N, results), IDEM_OK);
    support_at_point(NULL, 0, NULL, NULL);
    CHECK(!went_on);
    for (int i = 0; i < N; i++) {
        CHECK_IS(results[i].verdict, i < GROUP ? IDEM_CLAIMED : IDEM_E_CORRUPT);
        CHECK(i < GROUP || (results[i].claim.token == 0 && results[i].reply.body == NULL));
        idem_reply_free(&results[i].reply);
    }
    idem_claim claim;
    CHECK_IS(support_begin(store, "another", &claim), IDEM_E_CORRUPT);
    CHECK(claim.token == 0 && claim.hash == 0);
    idem_close(store);
}

static void a_batch_stops_where_pages_are_missing_and_claims_nothing_behind_it(void **state)
{
    (void)state;
    support_in_child(run_into_missing_pages, NULL);
}

/* ------------------------------------------------------------------ room */

static void scoped_keys_longer_than_a_group_has_room_for_are_claimed_like_others(void **state)
{
    (void)state;
    idem_store *store = support_open_with(dir, IDEM_OPEN_CREATE);
    static char long_keys[N][IDEM_KEY_MAX];
    for (int i = 0; i < N; i++) {
        size_t bytes = (size_t)(i % 3 == 0 ? 900 : 40 + i);
        memset(long_keys[i], 'k', bytes);
        memcpy(long_keys[i], keys[i / 2], strlen(keys[i / 2])); /* each name twice, but for the lengths */
        requests[i].key = (idem_key){"scope", 5, long_keys[i], bytes};
    }
    CHECK_IS(idem_begin_many(store, requests, N, results), IDEM_OK);
    for (int i = 0; i < N; i++) {
        bool twice = false;
        for (int j = 0; j < i; j++)
            twice |= requests[j].key.key_bytes == requests[i].key.key_bytes &&
                     memcmp(long_keys[j], long_keys[i], requests[i].key.key_bytes) == 0;
        CHECK_IS(results[i].verdict, twice ? IDEM_IN_PROGRESS : IDEM_CLAIMED);
        idem_story story = IDEM_STORY_INIT;
        CHECK_IS(idem_explain(store, &requests[i].key, &story), IDEM_OK);
        CHECK_IS(story.state, IDEM_STATE_IN_PROGRESS);
        idem_story_free(&story);
    }
    idem_close(store);
    support_verify(dir);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, fresh)
    const struct CMUnitTest tests[] = {
        TEST(a_batch_goes_on_in_the_new_store_when_the_old_one_is_destroyed_under_it),
        TEST(a_batch_grants_no_lease_that_is_over_already),
        TEST(a_batch_stops_where_pages_are_missing_and_claims_nothing_behind_it),
        TEST(scoped_keys_longer_than_a_group_has_room_for_are_claimed_like_others),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
