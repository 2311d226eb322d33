/*
 * tests/multi/test_threads.c - threads of one process on one handle: one owner a key, lanes that come back, waiting, replies,
 * maintenance and a store that is replaced under them.
 */
/* tsan */
#include "support/support.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define THREADS 4
#define KEYS    64

static idem_store *store;
static const char *dir;
static struct idem_a64 owners[KEYS], tokens[KEYS], claims, replays, transients, stop, errors;

static int fresh(void **state)
{
    (void)state;
    dir = support_dir();
    store = support_open(dir, NULL);
    memset(owners, 0, sizeof owners);
    memset(tokens, 0, sizeof tokens);
    store_relaxed(&claims, 0);
    store_relaxed(&replays, 0);
    store_relaxed(&transients, 0);
    store_relaxed(&stop, 0);
    store_relaxed(&errors, 0);
    return 0;
}

static int over(void **state)
{
    (void)state;
    support_verify(dir);
    idem_close(store);
    return 0;
}

/* cmocka's failures can't leave a thread: they are counted, and the first is printed. */
#define EXPECT(condition)                                                                             \
    do {                                                                                              \
        if (!(condition) && add_relaxed(&errors, 1) == 0)                                             \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, idem_error_detail()); \
    } while (0)

static void run(void *(*fn)(void *), unsigned threads)
{
    pthread_t t[16];
    for (uintptr_t i = 0; i < threads; i++)
        CHECK_IS(pthread_create(&t[i], NULL, fn, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < threads; i++)
        CHECK_IS(pthread_join(t[i], NULL), 0);
    CHECK_IS(load_relaxed(&errors), 0);
}

static void end_one(unsigned k, const char *key, const idem_claim *claim, uint64_t *random)
{
    char body[64];
    idem_response rs = support_response((int32_t)k, "later");
    switch (support_random(random) % 8) {
    case 0:
        EXPECT(idem_abandon(store, claim, IDEM_NOTHING_HAPPENED) == IDEM_OK);
        break;
    case 1:
        EXPECT(idem_abandon(store, claim, IDEM_OUTCOME_UNKNOWN) == IDEM_OK);
        break;
    case 2: {
        idem_key id = support_key(key);
        EXPECT(idem_forget(store, &id) == IDEM_OK);
        break;
    }
    case 3:
        rs.flags = IDEM_RESPONSE_TRANSIENT;
        EXPECT(idem_complete(store, claim, &rs) == IDEM_OK);
        break;
    default:
        snprintf(body, sizeof body, "%s/%llx", key, (unsigned long long)claim->token);
        rs = support_response((int32_t)k, body);
        rs.ttl_ms = 1 + (int64_t)(support_random(random) % 5);
        EXPECT(idem_complete(store, claim, &rs) == IDEM_OK);
        break;
    }
}

static void check_replay(unsigned k, const char *key, const idem_reply *reply)
{
    char body[64];
    if (reply->flags & IDEM_REPLY_TRANSIENT) {
        add_relaxed(&transients, 1);
        EXPECT(reply->body_bytes == 5 && memcmp(reply->body, "later", 5) == 0);
        return;
    }
    snprintf(body, sizeof body, "%s/%llx", key, (unsigned long long)reply->token);
    EXPECT(reply->status == (int32_t)k);
    EXPECT(reply->body_bytes == strlen(body) && memcmp(reply->body, body, reply->body_bytes) == 0);
    add_relaxed(&replays, 1);
}

static void *contend(void *number)
{
    uint64_t me = (uint64_t)(uintptr_t)number, random = support_seed() * 13 + me;
    for (long i = 0; i < support_scaled(200000, 10); i++) {
        unsigned k = (unsigned)(support_random(&random) % KEYS);
        char key[16];
        snprintf(key, sizeof key, "key-%u", k);
        idem_request rq = support_request(key);
        idem_claim claim;
        idem_reply reply = IDEM_REPLY_INIT;
        uint64_t before = load_acquire(&tokens[k]);
        int e = support_random(&random) % 8 == 0 ? idem_wait(store, &rq, 2, &claim, &reply)
                                                 : idem_begin(store, &rq, &claim, &reply);
        if (e == IDEM_CLAIMED || e == IDEM_RECLAIMED) {
            uint64_t none = 0;
            EXPECT(claim.token > before);
            EXPECT(cas_acq_rel(&owners[k], &none, me));
            store_release(&tokens[k], claim.token);
            add_relaxed(&claims, 1);
            if (support_random(&random) % 4 == 0)
                EXPECT(idem_mark(store, &claim, key, strlen(key)) == IDEM_OK);
            none = me;
            EXPECT(cas_acq_rel(&owners[k], &none, 0));
            end_one(k, key, &claim, &random);
        } else if (e == IDEM_REPLAY) {
            check_replay(k, key, &reply);
            if (support_random(&random) % 4 == 0)
                support_clock_add(1);
        } else {
            EXPECT(e == IDEM_IN_PROGRESS || e == IDEM_E_TIMEOUT);
        }
        if (support_random(&random) % 64 == 0)
            EXPECT(idem_maintain(store, 0) >= 0);
        idem_reply_free(&reply);
    }
    return NULL;
}

static void each_key_has_one_owner_among_threads(void **state)
{
    (void)state;
    support_shake(support_seed());
    run(contend, THREADS);
    support_at_point(NULL, 0, NULL, NULL);
    print_message("%llu claims, %llu replays, %llu transient\n", (unsigned long long)load_relaxed(&claims),
                  (unsigned long long)load_relaxed(&replays), (unsigned long long)load_relaxed(&transients));
    CHECK(load_relaxed(&claims) > 1000 && load_relaxed(&replays) > 1000);
    idem_stats_data s = support_stats(store);
    CHECK_IS(s.full, 0);
}

/* ------------------------------------------------------------------ lanes */

static void *use_once(void *number)
{
    char key[32];
    idem_claim claim;
    snprintf(key, sizeof key, "once-%lu", (unsigned long)(uintptr_t)number);
    int e = support_begin(store, key, &claim);
    EXPECT(e == IDEM_CLAIMED || e == IDEM_REPLAY || e == IDEM_IN_PROGRESS);
    if (e == IDEM_CLAIMED)
        EXPECT(support_complete(store, &claim, 1, "x") == IDEM_OK);
    return NULL;
}

static void threads_that_end_give_their_lanes_back(void **state)
{
    (void)state;
    idem_close(store);
    idem_options o = support_options(1000);
    o.lanes = 5; /* this thread and four others */
    dir = support_dir();
    store = support_open(dir, &o);
    CHECK_IS(support_begin(store, "mine", NULL), IDEM_CLAIMED);
    for (long i = 0; i < support_scaled(2000, 10); i++)
        run(use_once, THREADS);
    CHECK_IS(support_stats(store).lanes, 1);
}

static struct idem_a64 holding;

/* Orders what this thread did before what the test does next, as a program that closes a handle has to. */
static void say_so(void)
{
    uint64_t n = load_acquire(&holding);
    while (!cas_acq_rel(&holding, &n, n + 1))
        ;
}

static void await(uint64_t threads)
{
    for (int i = 0; i < SUPPORT_PATIENCE_MS && load_acquire(&holding) < threads; i++)
        support_sleep_ms(1);
}

static void *hold_a_lane(void *number)
{
    (void)number;
    EXPECT(support_begin(store, "mine", NULL) == IDEM_IN_PROGRESS);
    say_so();
    while (load_relaxed(&stop) == 0)
        support_sleep_ms(1);
    return NULL;
}

static void one_thread_more_than_there_are_lanes_is_refused_and_served_once_one_has_ended(void **state)
{
    (void)state;
    idem_close(store);
    idem_options o = support_options(1000);
    o.lanes = 3;
    dir = support_dir();
    store = support_open(dir, &o);
    pthread_t t[2];
    idem_claim claim;
    CHECK_IS(support_begin(store, "mine", &claim), IDEM_CLAIMED);
    store_relaxed(&holding, 0);
    for (int i = 0; i < 2; i++)
        CHECK_IS(pthread_create(&t[i], NULL, hold_a_lane, NULL), 0);
    await(2);
    idem_store *other = support_attach(dir); /* another handle of this process needs another lane */
    CHECK_IS(support_begin(other, "mine", NULL), IDEM_E_FULL);
    CHECK(strstr(idem_error_detail(), "lanes") != NULL);
    CHECK_IS(support_stats(store).lanes, 3);
    CHECK_IS(support_complete(store, &claim, 1, "x"), IDEM_OK); /* who has one is served */
    store_relaxed(&stop, 1);
    for (int i = 0; i < 2; i++)
        CHECK_IS(pthread_join(t[i], NULL), 0);
    CHECK_IS(load_relaxed(&errors), 0);
    CHECK_IS(support_begin(other, "mine", NULL), IDEM_REPLAY);
    idem_close(other);
}

static idem_store *closed_early;

static void *outlive_the_handle(void *number)
{
    (void)number;
    EXPECT(support_begin(closed_early, "k", NULL) == IDEM_IN_PROGRESS);
    say_so();
    while (load_relaxed(&stop) == 0)
        support_sleep_ms(1);
    return NULL;
}

static void a_thread_may_end_after_the_handle_it_used_was_closed(void **state)
{
    (void)state;
    pthread_t t;
    closed_early = support_attach(dir);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_CLAIMED);
    store_relaxed(&holding, 0);
    CHECK_IS(pthread_create(&t, NULL, outlive_the_handle, NULL), 0);
    await(1);
    idem_close(closed_early);
    store_release(&stop, 1);
    CHECK_IS(pthread_join(t, NULL), 0);
    CHECK_IS(load_relaxed(&errors), 0);
    CHECK_IS(support_stats(store).lanes, 1);
}

static void a_thread_may_use_more_handles_than_it_caches_lanes_for(void **state)
{
    (void)state;
    idem_store *handles[40];
    for (int i = 0; i < 40; i++)
        handles[i] = support_attach(dir);
    for (int round = 0; round < 20; round++)
        for (int i = 0; i < 40; i++) {
            idem_claim claim;
            char key[32];
            snprintf(key, sizeof key, "%d/%d", round, i);
            CHECK_IS(support_begin(handles[i], key, &claim), IDEM_CLAIMED);
            CHECK_IS(support_complete(handles[(i + 7) % 40], &claim, 1, "x"), IDEM_OK);
            CHECK_IS(support_begin(handles[(i + 1) % 40], key, NULL), IDEM_REPLAY);
        }
    CHECK(support_stats(store).lanes <= 41);
    for (int i = 0; i < 40; i++)
        idem_close(handles[i]);
    CHECK_IS(support_stats(store).lanes, 1);
}

/* ------------------------------------------------------------------ waiting, finishing elsewhere */

static idem_claim passed_on;

static void *complete_elsewhere(void *number)
{
    (void)number;
    support_sleep_ms(20);
    EXPECT(support_complete(store, &passed_on, 201, "by another thread") == IDEM_OK);
    return NULL;
}

static void *wait_for_it(void *number)
{
    (void)number;
    idem_request rq = support_request("k");
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    EXPECT(idem_wait(store, &rq, SUPPORT_PATIENCE_MS, &claim, &reply) == IDEM_REPLAY);
    EXPECT(reply.status == 201);
    idem_reply_free(&reply);
    return NULL;
}

static void *wait_or_complete(void *number)
{
    return (uintptr_t)number == 1 ? complete_elsewhere(number) : wait_for_it(number);
}

static void a_claim_is_completed_in_another_thread_and_all_waiters_get_the_answer(void **state)
{
    (void)state;
    CHECK_IS(support_begin(store, "k", &passed_on), IDEM_CLAIMED);
    run(wait_or_complete, 8);
}

/* ------------------------------------------------------------------ looking and replacing under traffic */

static int count_key(const idem_story *story, void *n)
{
    EXPECT(story->key_bytes >= 3);
    ++*(unsigned *)n;
    return 0;
}

static void *look_or_work(void *number)
{
    uintptr_t me = (uintptr_t)number;
    if (me > 2)
        return contend(number);
    for (int i = 0; i < 30; i++) {
        unsigned n = 0;
        if (me == 1) {
            EXPECT(idem_walk(store, count_key, &n) == IDEM_OK);
            EXPECT(n <= KEYS);
        } else {
            idem_stats_data s;
            memset(&s, 0, sizeof s);
            s.size = sizeof s;
            EXPECT(idem_stats(store, &s) == IDEM_OK);
            EXPECT(idem_fingerprint(store, "abc", 3) != 0);
        }
        idem_report report = IDEM_REPORT_INIT;
        EXPECT(idem_verify(dir, &report) == IDEM_OK);
    }
    return NULL;
}

static void walks_stats_and_verify_run_beside_traffic(void **state)
{
    (void)state;
    run(look_or_work, THREADS);
}

static void *work_while_it_is_replaced(void *number)
{
    uint64_t random = support_seed() + (uint64_t)(uintptr_t)number;
    idem_claim claim;
    memset(&claim, 0, sizeof claim);
    for (long i = 0; load_relaxed(&stop) == 0; i++) {
        char key[32];
        snprintf(key, sizeof key, "key-%u", (unsigned)(support_random(&random) % KEYS));
        int e = support_begin(store, key, &claim);
        EXPECT(e >= 0);
        if (e == IDEM_CLAIMED || e == IDEM_RECLAIMED) {
            e = support_complete(store, &claim, 1, "x");
            EXPECT(e == IDEM_OK || e == IDEM_E_STALE);
        }
    }
    return NULL;
}

static void a_store_is_replaced_under_running_threads(void **state)
{
    (void)state;
    pthread_t t[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_IS(pthread_create(&t[i], NULL, work_while_it_is_replaced, (void *)(i + 1)), 0);
    int destroyed = 0;
    for (int i = 0; i < SUPPORT_PATIENCE_MS / 5 && destroyed < 10; i++) {
        support_sleep_ms(5);
        int e = idem_destroy(dir);
        EXPECT(e == IDEM_OK || e == IDEM_E_NO_STORE); /* not made anew yet */
        destroyed += e == IDEM_OK;
    }
    store_relaxed(&stop, 1);
    for (unsigned i = 0; i < THREADS; i++)
        CHECK_IS(pthread_join(t[i], NULL), 0);
    CHECK_IS(load_relaxed(&errors), 0);
    CHECK_IS(destroyed, 10);
    CHECK(support_begin(store, "last", NULL) == IDEM_CLAIMED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, over)
    const struct CMUnitTest tests[] = {
        TEST(each_key_has_one_owner_among_threads),
        TEST(threads_that_end_give_their_lanes_back),
        TEST(one_thread_more_than_there_are_lanes_is_refused_and_served_once_one_has_ended),
        TEST(a_thread_may_end_after_the_handle_it_used_was_closed),
        TEST(a_thread_may_use_more_handles_than_it_caches_lanes_for),
        TEST(a_claim_is_completed_in_another_thread_and_all_waiters_get_the_answer),
        TEST(walks_stats_and_verify_run_beside_traffic),
        TEST(a_store_is_replaced_under_running_threads),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
