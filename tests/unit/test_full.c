/*
 * tests/unit/test_full.c - what happens when there is no room: claims are refused, answers never; outcomes without their bodies;
 * eviction where the store was created with it.
 */
#include "support/support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/entry.h"

static char *filled(size_t n, char with)
{
    char *bytes = malloc(n + 1);
    CHECK(bytes != NULL);
    memset(bytes, with, n);
    bytes[n] = '\0';
    return bytes;
}

static const char *name_of(long i)
{
    static char names[4][64];
    static unsigned n;
    char *name = names[n++ % 4];
    snprintf(name, sizeof names[0], "0123456789-0123456789-0123456789-%07ld",
             i); /* 40 bytes, as the geometry assumes */
    return name;
}

#define KEYS       4000
#define BODY_BYTES 512

/* A store whose memory is its bound, not its slots: with bodies of 512 bytes. */
static idem_store *bounded(const char *dir)
{
    idem_options o = support_options(KEYS);
    o.response_bytes = BODY_BYTES;
    return support_open(dir, &o);
}

/* Claims and completes keys from `from` on until a claim is refused. Returns the first that was refused. */
static long fill(idem_store *store, long from, const char *body)
{
    for (long i = from;; i++) {
        idem_claim claim;
        int e = support_begin(store, name_of(i), &claim);
        if (e == IDEM_E_FULL)
            return i;
        CHECK_IS(e, IDEM_CLAIMED);
        CHECK(support_complete(store, &claim, 200, body) >= 0);
        CHECK(i < from + 10000000);
    }
}

static void check_tombstone(idem_store *store, const char *key, int32_t status, const char *meta, const char *body)
{
    idem_request rq = support_request(key);
    idem_claim none;
    idem_reply reply = IDEM_REPLY_INIT;
    size_t m = strlen(meta), b = strlen(body);
    CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_REPLAY);
    CHECK_IS(reply.flags, IDEM_REPLY_NOT_RETAINED);
    CHECK_IS(reply.status, status);
    CHECK_IS(reply.response_flags, 321);
    CHECK(reply.meta == NULL && reply.body == NULL);
    CHECK_IS(reply.meta_bytes, m);
    CHECK_IS(reply.body_bytes, b);
    char *both = filled(m + b, 0);
    memcpy(both, meta, m);
    memcpy(both + m, body, b);
    CHECK(reply.digest == idem_fingerprint(store, both, m + b));
    free(both);
}

static int complete_as(idem_store *store, const idem_claim *claim, int32_t status, const char *meta, const char *body)
{
    idem_response rs = support_response(status, body);
    rs.meta = meta;
    rs.meta_bytes = strlen(meta);
    rs.user_flags = 321;
    return idem_complete(store, claim, &rs);
}

/* A proxy that has passed an answer on, and did not keep it. */
static void an_outcome_without_its_bytes_is_recorded_as_it_is_told(void **state)
{
    (void)state;
    idem_store *store = support_open(support_dir(), NULL);
    idem_request rq = support_request("k");
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    idem_response rs = support_response(200, "not kept");
    rs.flags = IDEM_RESPONSE_NOT_RETAINED;
    CHECK_IS(idem_complete(store, &claim, &rs), IDEM_E_INVALID); /* then what is the body for? */
    rs.body = NULL;
    rs.meta_bytes = 17;
    rs.body_bytes = SIZE_MAX / 2;
    rs.flags |= IDEM_RESPONSE_TRANSIENT;
    CHECK_IS(idem_complete(store, &claim, &rs), IDEM_E_TOO_BIG); /* nothing to give to those who wait */
    rs.flags = IDEM_RESPONSE_NOT_RETAINED;
    rs.user_flags = 9;
    rs.digest = 4711;
    CHECK_IS(idem_complete(store, &claim, &rs), IDEM_TOMBSTONE);
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_REPLAY);
    CHECK_IS(reply.flags, IDEM_REPLY_NOT_RETAINED);
    CHECK(reply.status == 200 && reply.response_flags == 9 && reply.meta == NULL && reply.body == NULL);
    CHECK_IS(reply.meta_bytes, 17);
    CHECK_IS(reply.body_bytes, SIZE_MAX / 2);
    CHECK_IS(reply.digest, 4711);
    idem_reply_free(&reply);
    idem_close(store);
}

static void a_response_up_to_the_limit_is_kept_whole_and_one_byte_more_leaves_its_outcome(void **state)
{
    (void)state;
    idem_store *store = support_open(support_dir(), NULL);
    size_t most = (size_t)support_stats(store).response_max_bytes;
    char *key = filled(IDEM_KEY_MAX, 'k'), *body = filled(most - 10, 'b'), *large = filled(most - 9, 'c');
    idem_request rq = support_request(key);
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK(most > 60000);
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(complete_as(store, &claim, 1, "ten bytes.", body), IDEM_OK);
    CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_REPLAY);
    CHECK_BYTES(reply.body, reply.body_bytes, body);
    CHECK_BYTES(reply.meta, reply.meta_bytes, "ten bytes.");
    idem_reply_free(&reply);
    key[0] = 'K';
    rq = support_request(key);
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(complete_as(store, &claim, -5, "ten bytes.", large), IDEM_TOMBSTONE);
    check_tombstone(store, key, -5, "ten bytes.", large);
    CHECK_IS(support_stats(store).tombstones, 1);
    idem_story story = IDEM_STORY_INIT;
    CHECK_IS(idem_explain(store, &rq.key, &story), IDEM_OK);
    CHECK_IS(story.reply_flags, IDEM_REPLY_NOT_RETAINED);
    CHECK_IS(story.body_bytes, most - 9);
    idem_story_free(&story);
    support_clock_add(25 * 3600 * 1000);
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED); /* it has its time to live, too */
    free(key);
    free(body);
    free(large);
    idem_close(store);
}

static void the_advertised_number_of_keys_fits_whole(void **state)
{
    (void)state;
    static const struct {
        uint64_t keys;
        uint32_t bytes;
    } sizes[] = {{16, 1}, {16, 512}, {100, 1000}, {1000, 512}, {20000, 100}, {50, 65536}, {16, 1u << 20}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const char *dir = support_dir();
        idem_options o = support_options(sizes[i].keys);
        o.response_bytes = sizes[i].bytes;
        idem_store *store = support_open(dir, &o);
        char *body = filled(sizes[i].bytes, 'x');
        CHECK(support_stats(store).keys_capacity >= sizes[i].keys);
        for (uint64_t k = 0; k < sizes[i].keys; k++) {
            idem_claim claim;
            CHECK_IS(support_begin(store, name_of((long)k), &claim), IDEM_CLAIMED);
            CHECK_IS(support_complete(store, &claim, 1, body), IDEM_OK);
        }
        for (uint64_t k = 0; k < sizes[i].keys; k++)
            CHECK_IS(support_begin(store, name_of((long)k), NULL), IDEM_REPLAY);
        CHECK_IS(support_stats(store).tombstones, 0);
        free(body);
        idem_close(store);
        support_verify(dir);
        CHECK_IS(idem_destroy(dir), IDEM_OK);
    }
}

static void a_full_store_refuses_claims_and_drops_nothing(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_store *store = bounded(dir);
    char *body = filled(BODY_BYTES, 'x');
    long n = fill(store, 0, body);
    CHECK(n >= KEYS);
    CHECK(support_stats(store).full >= 1);
    CHECK(strlen(idem_error_detail()) > 10);
    for (int again = 0; again < 3; again++) {
        CHECK_IS(support_begin(store, "one more", NULL), IDEM_E_FULL);
        CHECK_IS(idem_maintain(store, 10000) >= 0, 1);
    }
    for (long i = 0; i < n; i++)
        CHECK_IS(support_begin(store, name_of(i), NULL), IDEM_REPLAY);
    CHECK_IS(support_stats(store).evicted, 0);
    CHECK(support_stats(store).tombstones <= 1); /* claims are refused once an answer had to do without its body */

    /* What needs no memory goes on working, and what it gives back is used again. */
    for (long i = 0; i < n; i++) {
        idem_key k = support_key(name_of(i));
        CHECK_IS(idem_forget(store, &k), IDEM_OK);
    }
    support_clock_add(1);
    support_maintain(store);
    CHECK(fill(store, n, body) >= n + KEYS);
    free(body);
    idem_close(store);
    support_verify(dir);
}

static void room_that_expires_is_given_out_again_without_maintenance(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_store *store = bounded(dir);
    char *body = filled(BODY_BYTES, 'x');
    long from = 0;
    for (int day = 0; day < 5; day++) {
        long n = fill(store, from, body);
        CHECK(n - from >= KEYS);
        from = n;
        support_clock_add(25 * 3600 * KEYS);
    }
    free(body);
    idem_close(store);
    support_verify(dir);
}

static void slots_run_out_before_memory_does_in_a_store_of_tiny_answers(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_options o = support_options(16);
    idem_store *store = support_open(dir, &o);
    long n = fill(store, 0, "");
    idem_stats_data s = support_stats(store);
    CHECK(n >= 16 && n <= (long)s.slots);
    CHECK(s.regions_free > 2);
    idem_key k = support_key(name_of(3));
    CHECK_IS(idem_forget(store, &k), IDEM_OK);
    support_clock_add(1); /* its slot may go once its token is older than the clock */
    CHECK_IS(support_begin(store, name_of(n), NULL), IDEM_CLAIMED);
    idem_close(store);
    support_verify(dir);
}

/* ------------------------------------------------------------------ the reserve for completions */

#define GRANTED 300

static void a_claim_that_was_granted_can_always_be_recorded(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_store *store = bounded(dir);
    static idem_claim granted[GRANTED];
    char key[32], *small = filled(BODY_BYTES, 'x'), *body = filled(50000, 'y');
    for (int i = 0; i < GRANTED; i++) {
        snprintf(key, sizeof key, "granted-%d", i);
        CHECK_IS(support_begin(store, key, &granted[i]), IDEM_CLAIMED);
    }
    long n = fill(store, 0, small);
    int tombstones = 0;
    for (int i = 0; i < GRANTED; i++) {
        int e = complete_as(store, &granted[i], i, "meta", body);
        CHECK(e == IDEM_OK || e == IDEM_TOMBSTONE);
        tombstones += e == IDEM_TOMBSTONE;
        CHECK_IS(complete_as(store, &granted[i], 999, "", "again"), IDEM_OK);
    }
    CHECK(tombstones > GRANTED / 2); /* 15 MB don't fit: it came to that */
    for (int round = 0; round < 3; round++) {
        int seen = 0;
        for (int i = 0; i < GRANTED; i++) {
            idem_request rq;
            idem_claim none;
            idem_reply reply = IDEM_REPLY_INIT;
            snprintf(key, sizeof key, "granted-%d", i);
            rq = support_request(key);
            CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_REPLAY);
            CHECK_IS(reply.status, i);
            CHECK(reply.expires_in_ms > 0 && reply.expires_in_ms <= 24 * 3600 * 1000);
            if (reply.flags & IDEM_REPLY_NOT_RETAINED) {
                seen++;
                check_tombstone(store, key, i, "meta", body);
            } else {
                CHECK_BYTES(reply.body, reply.body_bytes, body);
            }
            idem_reply_free(&reply);
        }
        CHECK_IS(seen, tombstones);
        for (long i = 0; i < n; i++)
            CHECK_IS(support_begin(store, name_of(i), NULL), IDEM_REPLAY);
        /* The leases end: the claims' memory is to be swept, and the outcomes in it have to move. */
        support_clock_add(3600 * 1000);
        support_maintain(store);
        if (round == 1) { /* make room, so that they can */
            uint64_t moved = support_stats(store).moved_entries;
            for (long i = 0; i < n; i++) {
                idem_key k = support_key(name_of(i));
                CHECK_IS(idem_forget(store, &k), IDEM_OK);
            }
            n = 0;
            support_clock_add(1);
            CHECK(fill(store, 0, small) > KEYS / 2); /* presses them out */
            support_maintain(store);
            CHECK(support_stats(store).moved_entries >= moved + (uint64_t)tombstones);
        }
    }
    for (int i = 0; i < GRANTED; i++) {
        snprintf(key, sizeof key, "granted-%d", i);
        idem_key k = support_key(key);
        idem_story story = IDEM_STORY_INIT;
        CHECK_IS(idem_explain(store, &k, &story), IDEM_OK);
        CHECK_IS(story.state, IDEM_STATE_COMPLETED);
        CHECK_IS(story.status, i);
        idem_story_free(&story);
    }
    support_verify(dir);
    support_clock_add(24 * 3600 * 1000);
    CHECK_IS(support_begin(store, "granted-1", NULL), IDEM_CLAIMED);
    free(small);
    free(body);
    idem_close(store);
    support_verify(dir);
}

/* Another process completes the very claim whose completion is about to take the rescue words here, and dies. */
struct rival {
    const char *dir;
    idem_claim claim;
    struct idem_a64 *go;
    pid_t pid;
};

static bool told_to_go(void *ctx)
{
    return load_acquire(((struct rival *)ctx)->go) != 0;
}

static void rival_completes(void *ctx)
{
    struct rival *rival = ctx;
    idem_store *store = support_attach(rival->dir);
    CHECK(support_eventually(told_to_go, rival, SUPPORT_PATIENCE_MS));
    char *body = filled(50000, 'r');
    CHECK_IS(complete_as(store, &rival->claim, 1, "meta", body), IDEM_TOMBSTONE);
    free(body);
    support_die(NULL);
}

static void let_rival_go(void *ctx)
{
    struct rival *rival = ctx;
    store_release(rival->go, 1);
    CHECK_IS(support_reap(rival->pid, SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
}

static void note_it(void *seen)
{
    *(bool *)seen = true;
}

/* A claim may be refused while there is still room for an outcome without a body. Not after this. */
static void use_up(idem_store *store, const idem_claim *spare, int n, const char *body)
{
    bool rescued = false;
    support_at_point("rescue.held", 1, note_it, &rescued);
    for (int i = 0; i < n && !rescued; i++)
        CHECK(complete_as(store, &spare[i], i, "meta", body) >= 0);
    support_at_point(NULL, 0, NULL, NULL);
    CHECK(rescued);
}

static void check_rescued_outcome_stands(void *dir)
{
    idem_store *store = bounded(dir);
    struct rival rival = {.dir = dir, .go = support_shared(sizeof(struct idem_a64))};
    char *small = filled(BODY_BYTES, 'x'), *body = filled(50000, 'y'), *first = filled(50000, 'r');
    static idem_claim spare[GRANTED];
    for (int i = 0; i < GRANTED; i++) {
        char key[32];
        snprintf(key, sizeof key, "spare-%d", i);
        CHECK_IS(support_begin(store, key, &spare[i]), IDEM_CLAIMED);
    }
    CHECK_IS(support_begin(store, "both", &rival.claim), IDEM_CLAIMED);
    fill(store, 0, small);
    use_up(store, spare, GRANTED, body);
    rival.pid = support_spawn(rival_completes, &rival);
    support_at_point("rescue.held", 1, let_rival_go, &rival);
    CHECK_IS(complete_as(store, &rival.claim, 2, "mine", body), IDEM_OK); /* said before, by the rival */
    support_at_point(NULL, 0, NULL, NULL);
    CHECK(load_acquire(rival.go) != 0);
    check_tombstone(store, "both", 1, "meta", first);
    free(small);
    free(body);
    free(first);
    idem_close(store);
}

/* He knows what time it is, and then sleeps before he looks. */
static void asks_with_the_time_in_hand(void *dir)
{
    idem_store *store = support_attach(dir);
    idem_request rq = support_request("both");
    idem_claim none;
    idem_reply reply = IDEM_REPLY_INIT;
    CHECK_IS(support_begin(store, "another", NULL),
             IDEM_CLAIMED); /* opens the thread's chunk: the next one goes the straight way */
    support_at_point("claim.timed", 1, support_stop, NULL);
    CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_REPLAY);
    CHECK_IS(reply.flags, IDEM_REPLY_NOT_RETAINED);
    /* 0 by his time; or by the clock, to which he looks again if the region of his chunk was taken back while he slept. */
    CHECK(reply.age_ms >= 0 && reply.age_ms < 3600000);
    idem_close(store);
}

static void an_outcome_that_is_younger_than_the_look_for_it_has_no_age(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_store *store = bounded(dir);
    char *small = filled(BODY_BYTES, 'x'), *body = filled(50000, 'y');
    static idem_claim spare[GRANTED];
    idem_claim claim;
    for (int i = 0; i < GRANTED; i++) {
        char key[32];
        snprintf(key, sizeof key, "spare-%d", i);
        CHECK_IS(support_begin(store, key, &spare[i]), IDEM_CLAIMED);
    }
    CHECK_IS(support_begin(store, "both", &claim), IDEM_CLAIMED);
    pid_t pid = support_spawn(asks_with_the_time_in_hand, (void *)(uintptr_t)dir);
    CHECK(support_wait_stopped(pid, SUPPORT_PATIENCE_MS));
    fill(store, 0, small);
    use_up(store, spare, GRANTED, body);
    support_clock_add(1000);
    CHECK_IS(complete_as(store, &claim, 2, "mine", body), IDEM_TOMBSTONE);
    support_kill(pid, SIGCONT);
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
    free(small);
    free(body);
    idem_close(store);
    support_verify(dir);
}

static void a_rescued_outcome_stands_although_its_completer_died_and_another_was_on_his_way(void **state)
{
    (void)state;
    static const char *const faults[] = {"rescue.unchecked", NULL};
    support_promise(check_rescued_outcome_stands, faults);
}

static void a_full_store_still_renews_marks_abandons_or_says_that_the_old_lease_stands(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_store *store = bounded(dir);
    idem_claim claim, abandoned, released;
    char *mark = filled(IDEM_MARK_MAX, 'm');
    CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
    CHECK_IS(support_begin(store, "abandoned", &abandoned), IDEM_CLAIMED);
    CHECK_IS(support_begin(store, "released", &released), IDEM_CLAIMED);
    /* By claims alone, which leave two regions; answers would take one of them. */
    for (long i = 0; support_begin(store, name_of(i), NULL) == IDEM_CLAIMED; i++)
        CHECK(i < 10000000);
    bool refused = false;
    for (int i = 0; i < 100000 && !refused; i++) {
        int e = i % 2 == 0 ? idem_mark(store, &claim, mark, IDEM_MARK_MAX) : idem_renew(store, &claim, 0);
        CHECK(e == IDEM_OK || e == IDEM_E_FULL);
        refused = e == IDEM_E_FULL;
        if (i == 0)
            CHECK_IS(e, IDEM_OK); /* answers' reserve serves owners, too */
    }
    CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
    CHECK_IS(idem_abandon(store, &abandoned, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    idem_key k = support_key("released");
    CHECK_IS(idem_release(store, &k, 0), IDEM_OK);
    CHECK_IS(idem_resolve(store, &k, released.token, IDEM_RESOLVE_RERUN, NULL), IDEM_OK);
    CHECK_IS(idem_forget(store, &k), IDEM_OK);
    CHECK(support_complete(store, &claim, 200, mark) >= 0);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_REPLAY);
    free(mark);
    idem_close(store);
    support_verify(dir);
}

/* ------------------------------------------------------------------ eviction */

static int begin_at_once(idem_store *store, long i, idem_claim *claim)
{
    idem_request rq = support_request(name_of(i));
    rq.flags = IDEM_NO_WAIT;
    return idem_begin(store, &rq, claim, NULL);
}

/* All answers that may go are of this very tick, which does not end here. */
static void a_store_that_evicts_waits_for_the_next_tick_only_if_its_caller_does(void **state)
{
    (void)state;
    idem_options o = support_options(16);
    o.when_full = IDEM_FULL_EVICT;
    support_clock_stand(true);
    idem_store *store = support_open(support_dir(), &o);
    idem_claim claim;
    long i = 0;
    int e = IDEM_CLAIMED;
    for (; e == IDEM_CLAIMED && i < 1000; i++) {
        e = begin_at_once(store, i, &claim);
        if (e == IDEM_CLAIMED)
            CHECK_IS(support_complete(store, &claim, 1, "x"), IDEM_OK);
    }
    CHECK_IS(e, IDEM_E_FULL);
    CHECK_IS(support_begin(store, name_of(i), &claim), IDEM_E_FULL); /* a few looks later */
    support_clock_add(1);
    CHECK_IS(begin_at_once(store, i, &claim), IDEM_CLAIMED);
    support_clock_stand(false);
    idem_close(store);
}

static void a_store_that_evicts_refuses_nothing_and_keeps_what_is_under_way(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {16, 1000};
    for (size_t size = 0; size < 2; size++) {
        const char *dir = support_dir();
        idem_options o = support_options(sizes[size]);
        o.when_full = IDEM_FULL_EVICT;
        idem_store *store = support_open(dir, &o);
        idem_claim running[5];
        char key[32], *body = filled(64, 'x');
        for (int i = 0; i < 5; i++) {
            idem_request rq;
            snprintf(key, sizeof key, "running-%d", i);
            rq = support_request(key);
            rq.lease_ms = 7 * 24 * 3600 * 1000;
            CHECK_IS(idem_begin(store, &rq, &running[i], NULL), IDEM_CLAIMED);
        }
        long many = 30 * (long)sizes[size];
        for (long i = 0; i < many; i++) {
            idem_claim claim;
            int e = support_begin(store, name_of(i), &claim);
            if (e == IDEM_E_FULL) { /* every answer within reach is of this very tick */
                support_clock_add(1);
                e = support_begin(store, name_of(i), &claim);
            }
            CHECK_IS(e, IDEM_CLAIMED);
            CHECK_IS(support_complete(store, &claim, 1, body), IDEM_OK);
            CHECK_IS(support_begin(store, name_of(i), NULL), IDEM_REPLAY); /* the newest one is there */
        }
        idem_stats_data s = support_stats(store);
        CHECK(s.evicted > 0);
        long there = 0;
        for (long i = 0; i < many; i++) {
            idem_key k = support_key(name_of(i));
            there += idem_lookup(store, &k, NULL) == IDEM_REPLAY;
        }
        CHECK(there >= (long)sizes[size] / 2); /* and it does not throw away more than it has to */
        for (int i = 0; i < 5; i++) {
            snprintf(key, sizeof key, "running-%d", i);
            CHECK_IS(support_begin(store, key, NULL), IDEM_IN_PROGRESS);
            CHECK(support_complete(store, &running[i], 1, "done") >= 0);
        }
        free(body);
        idem_close(store);
        support_verify(dir);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_outcome_without_its_bytes_is_recorded_as_it_is_told),
        cmocka_unit_test(a_response_up_to_the_limit_is_kept_whole_and_one_byte_more_leaves_its_outcome),
        cmocka_unit_test(the_advertised_number_of_keys_fits_whole),
        cmocka_unit_test(a_full_store_refuses_claims_and_drops_nothing),
        cmocka_unit_test(room_that_expires_is_given_out_again_without_maintenance),
        cmocka_unit_test(slots_run_out_before_memory_does_in_a_store_of_tiny_answers),
        cmocka_unit_test(a_claim_that_was_granted_can_always_be_recorded),
        cmocka_unit_test(a_rescued_outcome_stands_although_its_completer_died_and_another_was_on_his_way),
        cmocka_unit_test(an_outcome_that_is_younger_than_the_look_for_it_has_no_age),
        cmocka_unit_test(a_full_store_still_renews_marks_abandons_or_says_that_the_old_lease_stands),
        cmocka_unit_test(a_store_that_evicts_refuses_nothing_and_keeps_what_is_under_way),
        cmocka_unit_test(a_store_that_evicts_waits_for_the_next_tick_only_if_its_caller_does),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
