/*
 * tests/unit/test_look.c - looking at a store: lookup, explain, walk, stats, fingerprints, words; and verify, on sound stores and
 * on damaged ones.
 */
#include "support/support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "index/bucket.h"

static idem_store *store;
static const char *dir;

static int fresh(void **state)
{
    (void)state;
    dir = support_dir();
    store = support_open(dir, NULL);
    return 0;
}

static int over(void **state)
{
    (void)state;
    support_verify(dir);
    idem_close(store);
    return 0;
}

static int over_damaged(void **state)
{
    (void)state;
    idem_close(store);
    return 0;
}

static int64_t wall_ms(void)
{
    return (int64_t)time(NULL) * 1000;
}

static void lookup_tells_without_claiming_or_comparing_fingerprints(void **state)
{
    (void)state;
    idem_request rq = support_request("k");
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    rq.fingerprint = 5;
    CHECK_IS(idem_lookup(store, &rq.key, &reply), IDEM_E_NO_KEY);
    CHECK_IS(idem_lookup(store, NULL, &reply), IDEM_E_INVALID);
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_lookup(store, &rq.key, &reply), IDEM_IN_PROGRESS);
    CHECK_IS(reply.token, claim.token);
    CHECK(reply.retry_after_ms > 0);
    CHECK_IS(support_complete(store, &claim, 200, "body"), IDEM_OK);
    CHECK_IS(idem_lookup(store, &rq.key, &reply), IDEM_REPLAY);
    CHECK_BYTES(reply.body, reply.body_bytes, "body");
    idem_reply_free(&reply);
    reply.size = 1;
    CHECK_IS(idem_lookup(store, &rq.key, &reply), IDEM_E_INVALID);
    CHECK_IS(idem_forget(store, &rq.key), IDEM_OK);
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
    CHECK_IS(idem_lookup(store, &rq.key, NULL), IDEM_E_NO_KEY);
}

static void explain_tells_the_whole_story(void **state)
{
    (void)state;
    idem_request rq = IDEM_REQUEST_INIT;
    idem_claim claim, second;
    idem_story story = IDEM_STORY_INIT;
    rq.key = (idem_key){.scope = "tenant", .scope_bytes = 6, .key = "k\0ey", .key_bytes = 4};
    rq.fingerprint = 77;
    rq.flags = IDEM_LEASE_ONLY;
    rq.lease_ms = 50000;
    rq.ttl_ms = 500000;
    CHECK_IS(idem_explain(store, &rq.key, &story), IDEM_E_NO_KEY);
    CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_mark(store, &claim, "step", 4), IDEM_OK);
    CHECK_IS(idem_explain(store, &rq.key, &story), IDEM_OK);
    CHECK_BYTES(story.scope, story.scope_bytes, "tenant");
    CHECK(story.key_bytes == 4 && memcmp(story.key, "k\0ey", 4) == 0);
    CHECK_IS(story.state, IDEM_STATE_IN_PROGRESS);
    CHECK_IS(story.flags, IDEM_LEASE_ONLY);
    CHECK_IS(story.attempt, 1);
    CHECK_IS(story.token, claim.token);
    CHECK_IS(story.fingerprint, 77);
    CHECK_IS(story.owner_pid, getpid());
    CHECK_IS(story.owner_alive, 1);
    CHECK_IS(story.waiters, 0);
    CHECK(story.lease_left_ms > 0 && story.lease_left_ms <= 50000);
    CHECK(story.expires_in_ms > 0 && story.expires_in_ms <= 500000);
    CHECK(story.at_wall_ms > wall_ms() - SUPPORT_PATIENCE_MS && story.at_wall_ms < wall_ms() + SUPPORT_PATIENCE_MS);
    CHECK_BYTES(story.mark, story.mark_bytes, "step");
    CHECK_IS(story.lost_token, 0);
    idem_story_free(&story);
    idem_story_free(&story);
    idem_story_free(NULL);

    CHECK_IS(idem_abandon(store, &claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    CHECK_IS(idem_explain(store, &rq.key, &story), IDEM_OK);
    CHECK_IS(story.state, IDEM_STATE_LOST);
    CHECK_IS(story.lost_reason, IDEM_LOST_DECLARED);
    CHECK_IS(story.lost_token, claim.token);
    idem_story_free(&story);

    CHECK_IS(idem_begin(store, &rq, &second, NULL), IDEM_RECLAIMED);
    CHECK_IS(idem_abandon(store, &second, IDEM_NOTHING_HAPPENED), IDEM_OK);
    CHECK_IS(idem_explain(store, &rq.key, &story), IDEM_OK);
    CHECK_IS(story.state, IDEM_STATE_ABANDONED);
    CHECK_IS(story.lost_reason, IDEM_LOST_DECLARED);
    CHECK_IS(story.lost_token, claim.token);
    CHECK_IS(story.attempt, 2);
    idem_story_free(&story);

    idem_response rs = support_response(-3, "body");
    rs.meta = "meta!";
    rs.meta_bytes = 5;
    CHECK_IS(idem_begin(store, &rq, &second, NULL), IDEM_RECLAIMED);
    CHECK_IS(idem_complete(store, &second, &rs), IDEM_OK);
    CHECK_IS(idem_explain(store, &rq.key, &story), IDEM_OK);
    CHECK_IS(story.state, IDEM_STATE_COMPLETED);
    CHECK_IS(story.status, -3);
    CHECK_IS(story.meta_bytes, 5);
    CHECK_IS(story.body_bytes, 4);
    CHECK_IS(story.attempt, 3);
    idem_story_free(&story);
    story.size = 0;
    CHECK_IS(idem_explain(store, &rq.key, &story), IDEM_E_INVALID);
    CHECK_IS(idem_explain(store, &rq.key, NULL), IDEM_E_INVALID);
}

/* ------------------------------------------------------------------ walk */

struct walker {
    unsigned seen[500];
    unsigned calls, end_at;
};

static int on_key(const idem_story *story, void *ctx)
{
    struct walker *w = ctx;
    char text[16] = "";
    CHECK(story->key_bytes < sizeof text);
    memcpy(text, story->key, story->key_bytes);
    int i = atoi(text);
    CHECK(i >= 0 && i < 500);
    w->seen[i]++;
    if (++w->calls == w->end_at)
        return 42;
    /* The callback may call into the store. */
    idem_key k = support_key(text);
    CHECK_IS(idem_lookup(store, &k, NULL), IDEM_REPLAY);
    return 0;
}

static void a_walk_sees_each_key_that_is_there_once_and_no_other(void **state)
{
    (void)state;
    static struct walker w;
    char text[16];
    memset(&w, 0, sizeof w);
    for (int i = 0; i < 500; i++) {
        idem_request rq;
        idem_claim claim;
        snprintf(text, sizeof text, "%d", i);
        rq = support_request(text);
        rq.ttl_ms = i % 3 == 0 ? 1000 : 3600 * 1000;
        CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
        CHECK_IS(support_complete(store, &claim, i, "x"), IDEM_OK);
        if (i % 3 == 1)
            CHECK_IS(idem_forget(store, &rq.key), IDEM_OK);
    }
    support_clock_add(10000);
    CHECK_IS(idem_walk(store, on_key, &w), IDEM_OK);
    for (unsigned i = 0; i < 500; i++)
        CHECK_IS(w.seen[i], i % 3 == 2);
    memset(&w, 0, sizeof w);
    w.end_at = 7;
    CHECK_IS(idem_walk(store, on_key, &w), 42);
    CHECK_IS(w.calls, 7);
    CHECK_IS(idem_walk(store, NULL, NULL), IDEM_E_INVALID);
    CHECK_IS(idem_walk(NULL, on_key, &w), IDEM_E_INVALID);
}

/* ------------------------------------------------------------------ stats */

static void counters_count_what_was_done(void **state)
{
    (void)state;
    idem_claim claim, none;
    idem_request rq = support_request("a"), hold = support_request("c");
    idem_key k = support_key("a");
    CHECK_IS(support_begin(store, "a", &claim), IDEM_CLAIMED);       /* claimed */
    CHECK_IS(support_begin(store, "a", &none), IDEM_IN_PROGRESS);    /* in_progress */
    CHECK_IS(idem_wait(store, &rq, 0, &none, NULL), IDEM_E_TIMEOUT); /* in_progress, but nothing was waited */
    CHECK_IS(idem_wait(store, &rq, 250, &none, NULL),
             IDEM_E_TIMEOUT);                                   /* waited; in_progress, however often it looked */
    CHECK_IS(idem_renew(store, &claim, 0), IDEM_OK);            /* renewed */
    CHECK_IS(idem_mark(store, &claim, "m", 1), IDEM_OK);        /* marked */
    CHECK_IS(support_complete(store, &claim, 1, "x"), IDEM_OK); /* completed */
    CHECK_IS(support_begin(store, "a", &none), IDEM_REPLAY);    /* replayed */
    rq.fingerprint = 1;
    CHECK_IS(idem_begin(store, &rq, &none, NULL), IDEM_MISMATCH);         /* mismatched */
    CHECK_IS(idem_renew(store, &claim, 0), IDEM_E_LOST);                  /* fenced */
    CHECK_IS(idem_forget(store, &k), IDEM_OK);                            /* forgotten */
    CHECK_IS(support_begin(store, "b", &claim), IDEM_CLAIMED);            /* claimed */
    CHECK_IS(idem_abandon(store, &claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK); /* abandoned */
    CHECK_IS(support_begin(store, "b", &claim), IDEM_RECLAIMED);          /* reclaimed */
    idem_response rs = support_response(1, "x");
    rs.flags = IDEM_RESPONSE_TRANSIENT;
    CHECK_IS(idem_complete(store, &claim, &rs), IDEM_OK); /* transient */
    hold.flags = IDEM_HOLD;
    CHECK_IS(idem_begin(store, &hold, &claim, NULL), IDEM_CLAIMED);       /* claimed */
    CHECK_IS(idem_abandon(store, &claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK); /* abandoned */
    CHECK_IS(idem_begin(store, &hold, &none, NULL), IDEM_UNKNOWN);        /* unknown */
    idem_stats_data s = support_stats(store);
    CHECK_IS(s.claimed, 3);
    CHECK_IS(s.reclaimed, 1);
    CHECK_IS(s.replayed, 1);
    CHECK_IS(s.in_progress, 3);
    CHECK_IS(s.mismatched, 1);
    CHECK_IS(s.unknown, 1);
    CHECK_IS(s.waited, 1);
    CHECK_IS(s.completed, 1);
    CHECK_IS(s.transient, 1);
    CHECK_IS(s.abandoned, 2);
    CHECK_IS(s.renewed, 1);
    CHECK_IS(s.marked, 1);
    CHECK_IS(s.fenced, 1);
    CHECK_IS(s.forgotten, 1);
    CHECK_IS(s.tombstones, 0);
    CHECK_IS(s.full, 0);
    CHECK_IS(s.evicted, 0);
    CHECK(s.slots_used == 2 ||
          s.slots_used == 3); /* the forgotten one is freed at once, unless its token is of this tick */
    CHECK_IS(s.regions, s.regions_free + s.regions_open + s.regions_draining);
    CHECK_IS(s.lanes, 1);
    CHECK_IS(s.processes, 1);
    struct stat st;
    char path[200];
    uint64_t bytes = 0;
    char uuid[33];
    for (int i = 0; i < 16; i++)
        snprintf(uuid + 2 * i, 3, "%02x", s.store_uuid[i]);
    snprintf(path, sizeof path, "%s/gen-%s-1", dir, uuid);
    CHECK_IS(stat(path, &st), 0);
    bytes += (uint64_t)st.st_size;
    snprintf(path, sizeof path, "%s/root", dir);
    CHECK_IS(stat(path, &st), 0);
    CHECK_IS(s.bytes_total, bytes + (uint64_t)st.st_size);
    s.size--;
    CHECK_IS(idem_stats(store, &s), IDEM_E_INVALID);
    CHECK_IS(idem_stats(store, NULL), IDEM_E_INVALID);
    CHECK_IS(idem_maintain(store, -1), IDEM_E_INVALID);
    CHECK_IS(idem_maintain(store, 60000001), IDEM_E_INVALID);
}

/* ------------------------------------------------------------------ fingerprints and words */

static void a_fingerprint_is_the_same_in_one_go_and_in_any_pieces(void **state)
{
    (void)state;
    static unsigned char bytes[5000];
    uint64_t random = support_seed();
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)support_random(&random);
    static const size_t sizes[] = {0, 1, 3, 4, 8, 9, 16, 17, 128, 129, 240, 241, 256, 257, 1024, 4999, 5000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint64_t whole = idem_fingerprint(store, bytes, sizes[i]);
        CHECK(whole != 0);
        CHECK(whole == idem_fingerprint(store, bytes, sizes[i]));
        for (int split = 0; split < 20; split++) {
            idem_fingerprint_state *f = idem_fingerprint_begin(store);
            CHECK(f != NULL);
            for (size_t at = 0; at < sizes[i];) {
                size_t n = (size_t)(support_random(&random) % (split < 10 ? 7 : 700)) + (split != 0);
                n = n < sizes[i] - at ? n : sizes[i] - at;
                idem_fingerprint_update(f, bytes + at, n);
                at += n;
            }
            CHECK(idem_fingerprint_end(f) == whole);
        }
        if (sizes[i] > 0) {
            bytes[sizes[i] / 2] ^= 1;
            CHECK(idem_fingerprint(store, bytes, sizes[i]) != whole);
            bytes[sizes[i] / 2] ^= 1;
        }
    }
    CHECK_IS(idem_fingerprint_end(NULL), 0);
    CHECK_IS(idem_fingerprint(NULL, bytes, 1), 0);
    CHECK(idem_fingerprint_begin(NULL) == NULL);
}

static void fingerprints_are_keyed_by_the_store(void **state)
{
    (void)state;
    idem_store *other = support_open(support_dir(), NULL), *same = support_attach(dir);
    CHECK(idem_fingerprint(store, "abc", 3) != idem_fingerprint(other, "abc", 3));
    CHECK(idem_fingerprint(store, "abc", 3) == idem_fingerprint(same, "abc", 3));
    idem_close(other);
    idem_close(same);
}

static void every_code_has_a_sentence_of_its_own(void **state)
{
    (void)state;
    const char *seen[64];
    unsigned n = 0;
    for (int code = IDEM_E_LOG_FOREIGN; code <= IDEM_TOMBSTONE; code++) {
        const char *text = idem_strerror(code);
        CHECK(text != NULL && strlen(text) > 3 && strcmp(text, idem_strerror(12345)) != 0);
        for (unsigned i = 0; i < n; i++)
            CHECK(strcmp(text, seen[i]) != 0);
        seen[n++] = text;
    }
    CHECK(idem_strerror(12345) != NULL && idem_strerror(-12345) != NULL);
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", IDEM_VERSION_MAJOR, IDEM_VERSION_MINOR, IDEM_VERSION_PATCH);
    CHECK(strcmp(idem_version(), version) == 0);
}

/* ------------------------------------------------------------------ verify */

static struct {
    uint64_t calls;
    char last[400];
} told;

static void on_problem(void *ctx, const char *sentence)
{
    CHECK(ctx == &told);
    told.calls++;
    snprintf(told.last, sizeof told.last, "%s", sentence);
}

static void verify_counts_keys_and_finds_a_sound_store_sound(void **state)
{
    (void)state;
    idem_report report = IDEM_REPORT_INIT;
    for (int i = 0; i < 200; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        support_answer(store, key, i, "x");
    }
    CHECK_IS(idem_verify(dir, &report), IDEM_OK);
    CHECK_IS(report.keys, 200);
    CHECK_IS(report.problems, 0);
    CHECK_IS(report.checked_slots, support_stats(store).slots);
    report.size = 0;
    CHECK_IS(idem_verify(dir, &report), IDEM_E_INVALID);
    CHECK_IS(idem_verify(dir, NULL), IDEM_E_INVALID);
}

static struct idem_view *map_generation_of(const char *path, struct idem_view *v)
{
    /* Through a second attachment, so that the test may scribble in the mapping. */
    idem_options o = IDEM_OPTIONS_INIT;
    memset(v, 0, sizeof *v);
    CHECK_IS(idem_attach(path, &o, v), IDEM_OK);
    return v;
}

static void verify_names_what_is_damaged(void **state)
{
    (void)state;
    struct idem_view v;
    map_generation_of(dir, &v);
    support_answer(store, "k", 1, "body");
    struct idem_a64 *slot = NULL;
    uint64_t bucket = 0;
    for (uint64_t b = 0; b < v.bucket_count && slot == NULL; b++)
        for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++)
            if (v.buckets[b].slots[s].word != 0) {
                slot = &v.buckets[b].slots[s];
                bucket = b;
            }
    CHECK(slot != NULL);
    uint64_t w = slot->word, h = v.buckets[bucket].header.word;
    struct idem_a64 *entry = v.arena + word_unit(w) * 2;
    struct idem_a64 *state_word = &v.regions[word_region(&v, w)].state;
    unsigned free_slot = 0;
    while (v.buckets[bucket].slots[free_slot].word != 0)
        free_slot++;
    const struct {
        struct idem_a64 *at;
        uint64_t value;
        const char *check;
    } damages[] = {
        {slot, w ^ UINT64_C(1) << 47, "V1:"},                     /* an address outside of the arena */
        {slot, w ^ UINT64_C(1) << 50, "V1:"},                     /* another region generation */
        {&entry[0], entry[0].word | 0x7ff, "V2:"},                /* a key of 2047 bytes */
        {&entry[0], entry[0].word & ~(UINT64_C(7) << 22), "V2:"}, /* no kind of entry */
        {&entry[7], entry[7].word ^ 1, "V3:"},                    /* another key */
        {slot, w ^ UINT64_C(1) << 8, "V3:"},                      /* another tag */
        {&v.buckets[bucket].header, header_make(header_version(h) + 1, 0, true, 0, free_slot), "V5:"},
        {&v.buckets[bucket].slots[free_slot], w, "V6:"}, /* the key twice */
        {&entry[3], entry[3].word + (UINT64_C(1) << 40), "V7:"},
        {state_word, (state_word->word & ~UINT64_C(7)) | 7, "V8:"},
        {&v.lanes[v.fixed.lanes_max - 1].hazard_write, v.region_count + 1, "V9:"}, /* a lane that nobody takes */
        {&v.lanes[v.fixed.lanes_max - 1].hazard_compare, v.region_count + 1, "V9:"},
        {&v.generation->freed_ms, UINT64_C(1) << 62, "V10:"},
    };
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        idem_report report = IDEM_REPORT_INIT;
        uint64_t before = damages[i].at->word;
        damages[i].at->word = damages[i].value;
        memset(&told, 0, sizeof told);
        report.problem = on_problem;
        report.ctx = &told;
        int e = idem_verify(dir, &report);
        damages[i].at->word = before;
        if (e != IDEM_E_CORRUPT || strstr(told.last, damages[i].check) == NULL)
            print_error("damage %zu, check %s: '%s'\n", i, damages[i].check, told.last);
        CHECK_IS(e, IDEM_E_CORRUPT);
        CHECK(report.problems >= 1 && told.calls == report.problems);
        CHECK(strstr(told.last, damages[i].check) != NULL);
    }
    /* In the next bucket, of which its home's header knows nothing. */
    struct idem_a64 *beyond = v.buckets[bucket_after(&v, bucket, 1)].slots;
    CHECK(beyond->word == 0 && word_distance(w) == 0);
    beyond->word = w | 1 << 4;
    slot->word = 0;
    idem_report beyond_reach = IDEM_REPORT_INIT;
    beyond_reach.problem = on_problem;
    beyond_reach.ctx = &told;
    CHECK_IS(idem_verify(dir, &beyond_reach), IDEM_E_CORRUPT);
    CHECK(strstr(told.last, "V4:") != NULL);
    slot->word = w;
    beyond->word = 0;
    support_verify(dir);
    uint64_t expiry = entry[3].word; /* of what was forgotten nobody asks when it ends */
    entry[3].word += UINT64_C(1) << 40;
    slot->word = word_with_state(w, WORD_FORGOTTEN);
    support_verify(dir);
    entry[3].word = expiry;
    slot->word = w;

    /* And the data path answers with an error, or with another outcome, but goes on. */
    slot->word = w ^ UINT64_C(1) << 47;
    CHECK_IS(support_begin(store, "k", NULL), IDEM_E_CORRUPT);
    CHECK(strstr(idem_error_detail(), "bucket") != NULL);
    idem_key k = support_key("k");
    idem_story story = IDEM_STORY_INIT;
    CHECK_IS(idem_lookup(store, &k, NULL), IDEM_E_CORRUPT);
    CHECK_IS(idem_explain(store, &k, &story), IDEM_E_CORRUPT);
    CHECK_IS(idem_forget(store, &k), IDEM_E_CORRUPT);
    CHECK(idem_maintain(store, 1000) >= 0);
    CHECK_IS(support_begin(store, "another key", NULL), IDEM_CLAIMED);
    slot->word = w;
    CHECK_IS(support_begin(store, "k", NULL), IDEM_REPLAY);
    uint64_t freed_ms = v.generation->freed_ms.word;
    v.generation->freed_ms.word = UINT64_C(1) << 62;
    CHECK_IS(support_begin(store, "no time is good for the straight way", NULL), IDEM_CLAIMED);
    v.generation->freed_ms.word = freed_ms;
    munmap(v.generation, v.generation_bytes);
    munmap(v.root, v.fixed.root_bytes);
    close(v.process.fd);
}

/* What is due is written by the store's users. */
static void who_verifies_writes_nothing_to_the_log(void **state)
{
    (void)state;
    char log[200];
    const char *logged_dir = support_dir();
    snprintf(log, sizeof log, "%s-log", logged_dir);
    idem_options o = support_options(100);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    o.wal_dir = log;
    idem_store *logged = support_open(logged_dir, &o);
    CHECK_IS(support_begin(logged, "k", NULL), IDEM_CLAIMED);
    support_clock_add(1000);
    uint64_t batches = support_stats(logged).log.batches, queued = support_stats(logged).log.queued;
    CHECK(queued > 0);
    support_verify(logged_dir);
    CHECK_IS(support_stats(logged).log.batches, batches);
    CHECK_IS(support_stats(logged).log.queued, queued);
    idem_close(logged);
}

static void a_digest_tells_bytes_and_stores_apart(void **state)
{
    (void)state;
    idem_options o = support_options(100);
    idem_store *one = store, *other = support_open(support_dir(), &o);
    uint8_t a[16], b[16];
    assert_int_equal(idem_digest(one, "Bearer a", 8, a), IDEM_OK);
    assert_int_equal(idem_digest(one, "Bearer a", 8, b), IDEM_OK);
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(idem_digest(one, "Bearer b", 8, b), IDEM_OK);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(idem_digest(one, "Bearer a", 7, b), IDEM_OK);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(idem_digest(other, "Bearer a", 8, b), IDEM_OK);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(idem_digest(one, "", 0, b), IDEM_OK);
    assert_int_equal(idem_digest(one, NULL, 0, b), IDEM_E_INVALID);
    assert_int_equal(idem_digest(one, "x", 1, NULL), IDEM_E_INVALID);
    idem_close(other);
}

/* Whether it made anything faster is a measurement's question. */
static void a_prefetch_changes_nothing(void **state)
{
    (void)state;
    idem_stats_data before = {.size = sizeof before}, after = {.size = sizeof after};
    assert_int_equal(idem_stats(store, &before), IDEM_OK);
    idem_prefetch(store, &(idem_key){"s", 1, "k", 1});
    idem_prefetch(store, &(idem_key){NULL, 0, "k", 0});
    idem_prefetch(store, NULL);
    assert_int_equal(idem_stats(store, &after), IDEM_OK);
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(support_begin(store, "k", NULL), IDEM_CLAIMED);
    idem_prefetch(store, &(idem_key){NULL, 0, "k", 1});
    assert_int_equal(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, over)
    const struct CMUnitTest tests[] = {
        TEST(lookup_tells_without_claiming_or_comparing_fingerprints),
        TEST(explain_tells_the_whole_story),
        TEST(a_walk_sees_each_key_that_is_there_once_and_no_other),
        TEST(counters_count_what_was_done),
        TEST(a_fingerprint_is_the_same_in_one_go_and_in_any_pieces),
        TEST(fingerprints_are_keyed_by_the_store),
        TEST(every_code_has_a_sentence_of_its_own),
        TEST(verify_counts_keys_and_finds_a_sound_store_sound),
        cmocka_unit_test_setup_teardown(verify_names_what_is_damaged, fresh, over_damaged),
        TEST(who_verifies_writes_nothing_to_the_log),
        TEST(a_digest_tells_bytes_and_stores_apart),
        TEST(a_prefetch_changes_nothing),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
