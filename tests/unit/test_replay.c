/*
 * tests/unit/test_replay.c - records become a store: the one that holds wins in any order and however often it comes, a running attempt is lost at
 * once with its mark, what has expired takes no memory, tokens go on growing.
 */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recover/replay.h"
#include "store/handle.h"

#define FAR (UINT64_C(1) << 40) /* a proven position past all in these tests */

static struct idem_replay *begin(idem_store *store, uint64_t proven)
{
    struct idem_replay *p = calloc(1, sizeof *p);
    CHECK(p != NULL);
    CHECK_IS(idem_replay_begin(p, store->view, idem_view_now_ms(store->view), proven), IDEM_OK);
    return p;
}

static idem_recovery settle(struct idem_replay *p)
{
    idem_recovery out = IDEM_RECOVERY_INIT;
    CHECK_IS(idem_replay_settle(p, &out), IDEM_OK);
    return out;
}

static struct idem_rec a_claim(const struct idem_replay *p, const char *key, uint64_t token)
{
    return (struct idem_rec){
        .kind = REC_CLAIM,
        .state = REC_IN_PROGRESS,
        .position = 4096 + token * 64,
        .token = token,
        .expiry_ms = p->now_ms + 3600000,
        .at_ms = p->now_ms - 1000,
        .attempt = 1,
        .lease_end_ms = p->now_ms + 30000,
        .key = (const uint8_t *)key,
        .key_bytes = (uint16_t)strlen(key),
    };
}

static struct idem_rec an_answer(const struct idem_replay *p, const char *key, uint64_t token, const char *body)
{
    struct idem_rec r = a_claim(p, key, token);
    r.kind = REC_RESPONSE;
    r.state = REC_COMPLETED;
    r.lease_end_ms = 0;
    r.status = 200;
    r.extra = 77;
    r.body = (const uint8_t *)body;
    r.body_bytes = strlen(body);
    return r;
}

static void add(struct idem_replay *p, struct idem_rec r)
{
    CHECK_IS(idem_replay_add(p, &r), IDEM_OK);
}

static int ask(idem_store *store, const char *key, idem_claim *claim, idem_reply *reply)
{
    idem_request rq = support_request(key);
    *reply = (idem_reply)IDEM_REPLY_INIT;
    return idem_begin(store, &rq, claim, reply);
}

static void a_completed_key_replays(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    struct idem_replay *p = begin(store, FAR);
    idem_claim claim;
    idem_reply reply;
    struct idem_rec r = an_answer(p, "done", 5, "the answer");
    r.meta = (const uint8_t *)"head";
    r.meta_bytes = 4;
    add(p, a_claim(p, "done", 5));
    add(p, r);
    struct idem_rec t = an_answer(p, "large", 6, "");
    t.kind = REC_TOMBSTONE;
    t.meta_bytes = 11;
    t.body_bytes = 12345678;
    t.digest = 99;
    add(p, t);
    idem_recovery out = settle(p);
    CHECK_IS(out.completed, 2);
    CHECK_IS(out.keys, 2);
    CHECK_IS(ask(store, "done", &claim, &reply), IDEM_REPLAY);
    CHECK_IS(reply.status, 200);
    CHECK_IS(reply.response_flags, 77);
    CHECK_BYTES(reply.body, reply.body_bytes, "the answer");
    CHECK_BYTES(reply.meta, reply.meta_bytes, "head");
    idem_reply_free(&reply);
    CHECK_IS(ask(store, "large", &claim, &reply), IDEM_REPLAY);
    CHECK_IS(reply.flags, IDEM_REPLY_NOT_RETAINED);
    CHECK_IS(reply.body_bytes, 12345678);
    CHECK_IS(reply.digest, 99);
    idem_reply_free(&reply);
    free(p);
    idem_close(store);
    support_verify(dir);
}

static void a_running_key_is_lost_at_once(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    struct idem_replay *p = begin(store, FAR);
    idem_claim claim;
    idem_reply reply;
    uint64_t token = ((uint64_t)p->now_ms + 500) << 16 | 3; /* stamped under a ceiling that lies ahead */
    struct idem_rec r = a_claim(p, "running", token);
    r.flags = REC_LEASE_ONLY;
    r.mark = (const uint8_t *)"half way";
    r.mark_bytes = 8;
    r.lease_end_ms = p->now_ms + 600000;
    add(p, r);
    struct idem_rec h = a_claim(p, "held", 7);
    h.flags = REC_HOLD;
    add(p, h);
    idem_recovery out = settle(p);
    CHECK_IS(out.lost, 2);
    idem_story story = IDEM_STORY_INIT;
    idem_key key = support_key("running");
    CHECK_IS(idem_explain(store, &key, &story), IDEM_OK);
    CHECK_IS(story.state, IDEM_STATE_LOST);
    CHECK_IS(story.lost_reason, IDEM_LOST_CRASH);
    CHECK(story.lease_left_ms <= 0);
    CHECK_IS(story.owner_alive, 0);
    CHECK_IS(story.owner_pid, 0);
    idem_story_free(&story);
    CHECK_IS(ask(store, "running", &claim, &reply), IDEM_RECLAIMED);
    CHECK_IS(reply.lost_reason, IDEM_LOST_CRASH);
    CHECK_IS(reply.lost_token, token);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "half way");
    CHECK(claim.token > token);
    CHECK_IS(claim.attempt, 2);
    idem_reply_free(&reply);
    CHECK_IS(ask(store, "held", &claim, &reply), IDEM_UNKNOWN);
    idem_reply_free(&reply);
    free(p);
    idem_close(store);
    support_verify(dir);
}

/* All orders of one key's records, each twice. */
static void order_does_not_matter(void *dir)
{
    static const int orders[24][4] = {
        {0, 1, 2, 3}, {0, 1, 3, 2}, {0, 2, 1, 3}, {0, 2, 3, 1}, {0, 3, 1, 2}, {0, 3, 2, 1}, {1, 0, 2, 3}, {1, 0, 3, 2},
        {1, 2, 0, 3}, {1, 2, 3, 0}, {1, 3, 0, 2}, {1, 3, 2, 0}, {2, 0, 1, 3}, {2, 0, 3, 1}, {2, 1, 0, 3}, {2, 1, 3, 0},
        {2, 3, 0, 1}, {2, 3, 1, 0}, {3, 0, 1, 2}, {3, 0, 2, 1}, {3, 1, 0, 2}, {3, 1, 2, 0}, {3, 2, 0, 1}, {3, 2, 1, 0}};
    idem_store *store = support_open(dir, NULL);
    struct idem_replay *p = begin(store, FAR);
    for (unsigned o = 0; o < 24; o++) {
        char done[16], running[16], again[16];
        snprintf(done, sizeof done, "done-%u", o);
        snprintf(running, sizeof running, "running-%u", o);
        snprintf(again, sizeof again, "again-%u", o);
        struct idem_rec d[4], r[4], a[4];
        for (unsigned i = 0; i < 4; i++) { /* claimed, renewed twice, completed */
            d[i] = i < 3 ? a_claim(p, done, 100) : an_answer(p, done, 100, "once");
            d[i].extra = (uint16_t)i;
            d[i].position += 64 * i;
            r[i] = a_claim(p, running, 100); /* renewed until the sequence stays at its end */
            r[i].extra = (uint16_t)(i < 2 ? i : 65535);
            r[i].lease_end_ms += i;
            r[i].mark = (const uint8_t *)"0123" + i;
            r[i].mark_bytes = 1;
            /* abandoned, then the next attempt runs and is settled as "rerun" */
            a[i] = a_claim(p, again, i < 2 ? 100 : 101);
            a[i].state = i == 1 ? REC_ABANDONED : i == 3 ? REC_RERUN : REC_IN_PROGRESS;
        }
        for (unsigned twice = 0; twice < 2; twice++)
            for (unsigned i = 0; i < 4; i++) {
                add(p, d[orders[o][i]]);
                add(p, r[orders[o][i]]);
                add(p, a[orders[o][i]]);
            }
    }
    idem_recovery out = settle(p);
    CHECK_IS(out.completed, 24);
    CHECK_IS(out.lost, 24);
    CHECK_IS(out.abandoned, 24);
    for (unsigned o = 0; o < 24; o++) {
        char key[16];
        idem_claim claim;
        idem_reply reply;
        snprintf(key, sizeof key, "done-%u", o);
        CHECK_IS(ask(store, key, &claim, &reply), IDEM_REPLAY);
        CHECK_BYTES(reply.body, reply.body_bytes, "once");
        idem_reply_free(&reply);
        snprintf(key, sizeof key, "running-%u", o);
        CHECK_IS(ask(store, key, &claim, &reply), IDEM_RECLAIMED);
        CHECK_BYTES(reply.mark, reply.mark_bytes, "3");
        idem_reply_free(&reply);
        snprintf(key, sizeof key, "again-%u", o);
        CHECK_IS(ask(store, key, &claim, &reply), IDEM_CLAIMED);
        idem_reply_free(&reply);
    }
    free(p);
    idem_close(store);
    support_verify(dir);
}

/* In the log's order: what has expired or was forgotten denies what lies before it, and nothing that comes after. */
static void what_is_over_denies_what_was_before(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    struct idem_replay *p = begin(store, FAR);
    idem_claim claim;
    idem_reply reply;
    add(p, a_claim(p, "expired", 10));
    struct idem_rec r = an_answer(p, "expired", 10, "gone");
    r.expiry_ms = p->now_ms - 1;
    add(p, r);
    add(p, a_claim(p, "expired", 10)); /* once more: still older */
    add(p, an_answer(p, "forgotten", 20, "forget me"));
    r = a_claim(p, "forgotten", 20);
    r.kind = REC_FORGOTTEN;
    r.state = REC_GONE;
    add(p, r);
    add(p, an_answer(p, "forgotten", 20, "forget me"));
    add(p, an_answer(p, "anew", 30, "first"));
    r.key = (const uint8_t *)"anew";
    r.key_bytes = 4;
    r.token = 30;
    add(p, r);
    add(p, an_answer(p, "anew", 31, "second"));
    r = a_claim(p, "alone", 40);
    r.expiry_ms = p->now_ms - 1;
    add(p, r);
    idem_recovery out = settle(p);
    CHECK_IS(out.keys, 1);
    CHECK_IS(out.expired, 2);
    CHECK_IS(out.forgotten, 2);
    CHECK_IS(ask(store, "expired", &claim, &reply), IDEM_CLAIMED);
    CHECK_IS(claim.attempt, 1);
    CHECK_IS(ask(store, "forgotten", &claim, &reply), IDEM_CLAIMED);
    CHECK_IS(ask(store, "alone", &claim, &reply), IDEM_CLAIMED);
    CHECK_IS(ask(store, "anew", &claim, &reply), IDEM_REPLAY);
    CHECK_BYTES(reply.body, reply.body_bytes, "second");
    idem_reply_free(&reply);
    free(p);
    idem_close(store);
    support_verify(dir);
}

/* A full store has keys beyond their home buckets. Who did not find one there would place it twice. */
static void keys_beyond_their_home_are_found(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    struct idem_replay *p = begin(store, FAR);
    char key[32];
    unsigned keys = (unsigned)store->view->bucket_count * 5, beyond = 0; /* of 7 */
    for (unsigned token = 1; token <= 2; token++)
        for (unsigned i = 0; i < keys; i++) {
            snprintf(key, sizeof key, "key-%u", i);
            add(p, an_answer(p, key, token, key));
        }
    CHECK_IS(settle(p).completed, keys);
    for (uint64_t b = 0; b < store->view->bucket_count; b++)
        for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++) {
            uint64_t word = load_relaxed(&store->view->buckets[b].slots[s]);
            beyond += word != 0 && word_distance(word) > 0;
        }
    CHECK(beyond > 30); /* some 80 */
    for (unsigned i = 0; i < keys; i++) {
        idem_claim claim;
        idem_reply reply;
        snprintf(key, sizeof key, "key-%u", i);
        CHECK_IS(ask(store, key, &claim, &reply), IDEM_REPLAY);
        CHECK_BYTES(reply.body, reply.body_bytes, key);
        idem_reply_free(&reply);
    }
    free(p);
    idem_close(store);
    support_verify(dir);
}

/* A claim with a short time to live, over an answer that has expired while the record of its claim has not; and it is answered for longer. */
static void an_answer_outlives_its_claim(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    struct idem_replay *p = begin(store, FAR);
    idem_claim claim;
    idem_reply reply;
    add(p, a_claim(p, "a", 10));
    struct idem_rec r = an_answer(p, "a", 10, "gone");
    r.expiry_ms = p->now_ms - 2;
    add(p, r);
    r = a_claim(p, "a", 20);
    r.expiry_ms = p->now_ms - 1;
    add(p, r);
    add(p, an_answer(p, "a", 10, "gone"));
    add(p, an_answer(p, "a", 20, "lives"));
    add(p, r); /* once more: older */
    settle(p);
    CHECK_IS(ask(store, "a", &claim, &reply), IDEM_REPLAY);
    CHECK_BYTES(reply.body, reply.body_bytes, "lives");
    idem_reply_free(&reply);
    free(p);
    idem_close(store);
    support_verify(dir);
}

/* The same where memory is scarce meanwhile: what denies is moved by a sweep, and says what it said. */
static void a_denial_that_is_moved_says_what_it_said(void **state)
{
    (void)state;
    const char *dir = support_dir(), *wal = support_dir();
    idem_options o = support_options(1000);
    o.wal_dir = wal;
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_store *store = support_open(dir, &o);
    struct idem_replay *p = begin(store, FAR);
    idem_claim claim;
    idem_reply reply;
    add(p, a_claim(p, "a", 10));
    struct idem_rec r = a_claim(p, "a", 20);
    r.expiry_ms = p->now_ms - 1;
    add(p, r);
    settle(p); /* all of it is placed; the slot stays, as that it is forgotten is not on the disk */
    uint64_t before = support_stats(store).moved_entries;
    support_clock_add(1000); /* the claims' region is over by now */
    for (int i = 0; i < 100 && idem_sweep(&p->ctx, 10000, 2); i++)
        ;
    CHECK(support_stats(store).moved_entries > before);
    add(p, an_answer(p, "a", 20, "lives"));
    settle(p);
    CHECK_IS(ask(store, "a", &claim, &reply), IDEM_REPLAY);
    CHECK_BYTES(reply.body, reply.body_bytes, "lives");
    idem_reply_free(&reply);
    free(p);
    idem_close(store);
    support_remove(wal);
}

/* A log has far more in it than the store holds. */
static void a_small_store_reads_a_large_log(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    struct idem_replay *p = begin(store, FAR);
    char body[400], key[32];
    memset(body, 'x', sizeof body - 1);
    body[sizeof body - 1] = 0;
    for (unsigned round = 0; round < 40; round++)
        for (unsigned i = 0; i < 900; i++) {
            snprintf(key, sizeof key, "key-%u", i);
            struct idem_rec r = a_claim(p, key, round * 2 + 1);
            r.mark = (const uint8_t *)body;
            r.mark_bytes = 200;
            add(p, r);
            r = an_answer(p, key, round * 2 + 1, body);
            add(p, r);
            snprintf(key, sizeof key, "old-%u-%u", round, i);
            r = an_answer(p, key, 1, body);
            r.expiry_ms = p->now_ms - 1;
            add(p, r);
        }
    idem_recovery out = settle(p);
    CHECK_IS(out.completed, 900);
    CHECK_IS(out.keys, 900);
    CHECK_IS(out.expired, 40 * 900);
    /* One that can't be: it says so. */
    int e = IDEM_OK;
    for (unsigned i = 0; i < 100000 && e == IDEM_OK; i++) {
        snprintf(key, sizeof key, "more-%u", i);
        struct idem_rec r = an_answer(p, key, 1, body);
        e = idem_replay_add(p, &r);
    }
    CHECK_IS(e, IDEM_E_FULL);
    CHECK(strstr(idem_error_detail(), "too small") != NULL);
    free(p);
    idem_close(store);
    support_verify(dir);
}

/* What is past the proven position has no position in memory: it is written anew. */
static void the_log_word_says_what_is_proven(void *dir)
{
    idem_store *store = support_open(dir, NULL);
    struct idem_replay *p = begin(store, 8192);
    struct idem_rec below = an_answer(p, "below", 1, "a"), above = an_answer(p, "above", 1, "b");
    below.position = 8128;
    above.position = 8192;
    add(p, below);
    add(p, above);
    settle(p);
    unsigned words = 0;
    for (uint64_t b = 0; b < store->view->bucket_count; b++)
        for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++) {
            uint64_t w = load_relaxed(&store->view->buckets[b].slots[s]);
            struct idem_entry e;
            uint8_t *scratch = malloc(1 << 20);
            struct idem_rec r;
            CHECK(scratch != NULL);
            if (w != 0) {
                CHECK(idem_entry_load(store->view, w, &e));
                uint64_t word = load_relaxed(&e.at[4]);
                CHECK(idem_replay_record(store->view, w, scratch, &r));
                bool is_below = memcmp(r.key, "below", 5) == 0;
                CHECK_IS(word, is_below ? log_word(8128, REC_COMPLETED) : 0);
                CHECK_BYTES(r.body, r.body_bytes, is_below ? "a" : "b");
                words++;
            }
            free(scratch);
        }
    CHECK_IS(words, 2);
    free(p);
    idem_close(store);
}

PROMISE(a_completed_key_replays, "replay.expired_all", NULL)
PROMISE(a_running_key_is_lost_at_once, "replay.lease", NULL)
PROMISE(order_does_not_matter, "replay.order", NULL)
PROMISE(what_is_over_denies_what_was_before, "replay.denial", "replay.expired", NULL)
PROMISE(an_answer_outlives_its_claim, "replay.final", NULL)
PROMISE(keys_beyond_their_home_are_found, "alone.near", NULL)
PROMISE(a_small_store_reads_a_large_log, "replay.expired", "replay.no_room", NULL)
PROMISE(the_log_word_says_what_is_proven, "replay.unproven", NULL)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_completed_key_replays),
        cmocka_unit_test(test_a_running_key_is_lost_at_once),
        cmocka_unit_test(test_order_does_not_matter),
        cmocka_unit_test(test_what_is_over_denies_what_was_before),
        cmocka_unit_test(test_an_answer_outlives_its_claim),
        cmocka_unit_test(test_keys_beyond_their_home_are_found),
        cmocka_unit_test(a_denial_that_is_moved_says_what_it_said),
        cmocka_unit_test(test_a_small_store_reads_a_large_log),
        cmocka_unit_test(test_the_log_word_says_what_is_proven),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
