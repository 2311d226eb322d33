/*
 * tests/format/test_golden.c - a store made byte by byte without the library is opened and answered from.
 *
 * The encoder knows segment/layout.h and arena/entry.h by their text only (and xxhash, which the text names). If one of these tests fails, stores
 * of one version can't be read by the other: the layout's version has to change with it. The other direction is in test_layout.c.
 */
#include "format/bytes.h"
#include "support/support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h" /* for xxhash itself */

/* ------------------------------------------------------------------ bytes */

static void put(uint8_t *at, size_t offset, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[offset + i] = (uint8_t)(v >> (8 * i));
}

static int64_t host_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void write_file(const char *dir, const char *name, const struct file *f)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK_IS(write(fd, f->at, f->bytes), f->bytes);
    close(fd);
}

/* ------------------------------------------------------------------ the encoder */

#define PROCESSES  4u
#define LANES      4u
#define BUCKETS    16u
#define REGIONS    16u
#define ROOT_BYTES 12288u /* 4096 + processes, rounded to 8192, + 4 lanes of 512, rounded */
#define BUCKETS_AT 8192u
#define REGIONS_AT 9216u  /* + 16 buckets of 64 */
#define CHUNKS_AT  10240u /* + 16 regions of 64 */
#define ARENA_AT   28672u /* + 256 chunks of 64 is 26624, rounded to 4096 */
#define GEN_BYTES  (ARENA_AT + REGIONS * UINT64_C(65536))
#define LIFE       UINT64_C(3) /* generation of all regions in use */

static const char gen_name[] = "gen-000102030405060708090a0b0c0d0e0f-1";

struct made {
    struct file root, gen;
    uint8_t secret[192];
    int64_t base_ms; /* store time less host time */
    unsigned used[REGIONS];
};

static int64_t store_ms(const struct made *m)
{
    return host_ms() + m->base_ms;
}

static void seal(struct made *m)
{
    put(m->root.at, 472, XXH3_64bits(m->root.at + 32, 440), 8);
    put(m->gen.at, 184, XXH3_64bits(m->gen.at + 64, 120), 8);
}

static void make_empty(struct made *m)
{
    memset(m, 0, sizeof *m);
    m->root = (struct file){calloc(1, ROOT_BYTES), ROOT_BYTES};
    m->gen = (struct file){calloc(1, GEN_BYTES), GEN_BYTES};
    CHECK(m->root.at != NULL && m->gen.at != NULL);
    int64_t created_ms = INT64_C(1700000000000);
    m->base_ms = created_ms + 100000 - host_ms();
    uint8_t *r = m->root.at;
    memcpy(r, "idmroot1", 8);
    put(r, 16, 1, 8); /* generation 1 */
    put(r, 32, 3, 4); /* layout 3.0 */
    for (unsigned i = 0; i < 16; i++)
        r[56 + i] = (uint8_t)i;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_IS(read(fd, r + 72, 36), 36);
    close(fd);
    put(r, 112, (uint64_t)m->base_ms, 8);
    put(r, 120, (uint64_t)created_ms, 8);
    put(r, 128, 86400000, 8); /* TTL */
    put(r, 136, 30000, 8);    /* lease */
    put(r, 144, 16, 8);       /* keys */
    put(r, 152, ROOT_BYTES, 8);
    put(r, 168, 64, 4); /* response bytes */
    put(r, 176, PROCESSES, 4);
    put(r, 180, LANES, 4);
    for (unsigned i = 0; i < 192; i++)
        m->secret[i] = (uint8_t)(i * 37 + 11);
    memcpy(r + 184, m->secret, 192);
    /* Process slot 1: in use in its 4th life by one who holds no lock, so dead. */
    put(r, 4096 + 64, 7, 8);
    put(r, 4096 + 64 + 8, 4242, 8);
    uint8_t *g = m->gen.at;
    memcpy(g, "idemgen1", 8);
    put(g, 64, 3, 4);
    memcpy(g + 72, r + 56, 16);
    put(g, 88, 1, 8);
    put(g, 96, GEN_BYTES, 8);
    put(g, 104, BUCKETS, 8);
    put(g, 112, REGIONS, 8);
    put(g, 120, 16, 8);
    put(g, 128, REGIONS_AT, 8);
    put(g, 136, CHUNKS_AT, 8);
    put(g, 144, ARENA_AT, 8);
    put(g, 152, 12, 8);                    /* chunks of 4096 */
    for (unsigned i = 0; i < REGIONS; i++) /* free, first life */
        put(g, REGIONS_AT + 64 * i, UINT64_C(1) << 48, 8);
    seal(m);
}

/* A region in use: open until expiry_ms, of a class, opened half a minute ago. */
static void make_region(struct made *m, unsigned region, unsigned klass, int64_t expiry_ms)
{
    uint8_t *at = m->gen.at + REGIONS_AT + 64 * region;
    uint64_t opened = 70000; /* ms after creation */
    put(at, 0, 1 | (uint64_t)expiry_ms << 3 | LIFE << 48, 8);
    put(at, 8, LIFE << 48 | 4096, 8); /* one chunk is handed out */
    put(at, 16, LIFE << 48 | (uint64_t)klass << 40 | opened, 8);
}

struct words {
    uint64_t w[16];
    unsigned n;
};

/* Places an entry and the slot that names it. payload lies after the padded key. */
static void make_entry(struct made *m, unsigned region, unsigned slot_state, struct words h, unsigned kind,
                       unsigned flags, uint64_t length, const char *scope, const char *key, const void *payload,
                       size_t payload_bytes)
{
    char framed[64];
    size_t scope_bytes = strlen(scope), key_bytes = scope_bytes + strlen(key);
    memcpy(framed, scope, scope_bytes);
    memcpy(framed + scope_bytes, key, strlen(key));
    uint64_t hash =
        XXH3_64bits_withSecret(framed, key_bytes, m->secret, 192) ^ scope_bytes * UINT64_C(0x9E3779B97F4A7C15);
    unsigned home = (unsigned)(((hash >> 32) * BUCKETS) >> 32);
    if (kind == 1)
        h.w[6] = hash;
    h.w[0] = key_bytes | scope_bytes << 11 | (uint64_t)kind << 22 | (uint64_t)flags << 25 | length << 32;
    size_t offset = region * 65536 + m->used[region];
    uint8_t *e = m->gen.at + ARENA_AT + offset;
    for (unsigned i = 0; i < h.n; i++)
        put(e, 8 * i, h.w[i], 8);
    memcpy(e + 8 * h.n, framed, key_bytes);
    size_t at = 8 * h.n + (key_bytes + 7) / 8 * 8;
    if (payload_bytes > 0)
        memcpy(e + at, payload, payload_bytes);
    m->used[region] += (unsigned)((at + payload_bytes + 15) / 16 * 16);
    uint8_t *filled = m->gen.at + CHUNKS_AT + 64 * 16 * region;
    uint64_t opened = bits(get(m->gen.at + REGIONS_AT + 64 * region, 16, 8), 0, 40);
    put(filled, 0, LIFE << 48 | (opened & 0xffffff) << 24 | (bits(get(filled, 0, 8), 0, 24) + 1), 8);
    uint8_t *bucket = m->gen.at + BUCKETS_AT + 64 * home;
    unsigned slot = 0;
    while (get(bucket, 8 + 8 * slot, 8) != 0)
        slot++;
    CHECK(slot < 7);
    put(bucket, 8 + 8 * slot, slot_state | (hash & 0x7f) << 8 | (uint64_t)(offset / 16) << 15 | LIFE << 48, 8);
}

static void save(const struct made *m, const char *dir)
{
    CHECK_IS(mkdir(dir, 0700), 0);
    write_file(dir, gen_name, &m->gen);
    write_file(dir, "root", &m->root);
}

static void drop(struct made *m)
{
    free(m->root.at);
    free(m->gen.at);
}

#define TOKEN UINT64_C(0x018bcfe568000001)

/* One of each kind, in two regions. */
static void make_golden(struct made *m)
{
    make_empty(m);
    int64_t now_ms = store_ms(m);
    uint64_t expiry = (uint64_t)now_ms + 3600000, at = (uint64_t)now_ms - 5000;
    make_region(m, 0, 49, now_ms + 3700000);
    make_region(m, 1, 0, now_ms + 20000);
    struct words answer = {
        {0, TOKEN, 4711, expiry | UINT64_C(513) << 48, 0, at | UINT64_C(2) << 48, 201 | UINT64_C(8) << 32}, 7};
    make_entry(m, 0, 2, answer, 2, 0, 5, "shop", "paid", "meta!the body", 13);
    uint64_t outcome[3] = {100, 7000000, 0xfeed};
    uint8_t outcome_bytes[24];
    for (unsigned i = 0; i < 3; i++)
        put(outcome_bytes, 8 * i, outcome[i], 8);
    struct words tombstone = {{0, TOKEN + 1, 0, expiry, 0, at | UINT64_C(1) << 48, 507 | UINT64_C(24) << 32}, 7};
    make_entry(m, 0, 2, tombstone, 3, 0, 0, "", "too large", outcome_bytes, 24);
    struct words claim = {
        {0, TOKEN + 2, 4712, expiry, 0, at | UINT64_C(1) << 48, 0, 7 << 16 | 1, (uint64_t)now_ms + 15000}, 16};
    make_entry(m, 1, 1, claim, 1, 0, 10, "", "in progress", "charge ch1", 10);
    struct words declared = claim;
    declared.w[1] = TOKEN + 3;
    make_entry(m, 1, 4, declared, 1, 1, 0, "", "held", NULL, 0); /* with HOLD */
    struct words rescued = claim;
    rescued.w[1] = TOKEN + 4;
    rescued.w[11] = UINT64_C(7) << 32 | 1 << 16 | 1;
    rescued.w[12] = expiry | UINT64_C(7) << 48;
    rescued.w[13] = 202 | UINT64_C(1500) << 32;
    rescued.w[14] = 3 | UINT64_C(4) << 32;
    rescued.w[15] = 0xbeef;
    make_entry(m, 1, 2, rescued, 1, 0, 0, "", "rescued", NULL, 0);
    struct words transient = {{0, TOKEN + 5, 0, expiry, 0, at | UINT64_C(4) << 48, 503 | UINT64_C(5) << 32, 0, 4}, 9};
    uint8_t later[12] = {'l', 'a', 't', 'e', 'r', 0, 0, 0, 'm', 'a', 'r', 'k'};
    make_entry(m, 0, 3, transient, 4, 0, 0, "", "for now", later, 12);
    struct words forgotten = claim;
    forgotten.w[1] = TOKEN + 6;
    make_entry(m, 1, 7, forgotten, 1, 0, 0, "", "forgotten", NULL, 0);
}

static int begin(idem_store *store, const char *scope, const char *key, uint64_t fingerprint, idem_claim *c,
                 idem_reply *r)
{
    idem_request rq = IDEM_REQUEST_INIT;
    rq.key = (idem_key){scope, strlen(scope), key, strlen(key)};
    rq.fingerprint = fingerprint;
    return idem_begin(store, &rq, c, r);
}

static void a_store_written_by_hand_is_opened_and_answered_from(void **state)
{
    (void)state;
    struct made m;
    make_golden(&m);
    const char *dir = support_dir();
    save(&m, dir);
    idem_store *store = support_attach(dir);
    support_verify(dir);
    idem_claim c;
    idem_reply r = IDEM_REPLY_INIT;

    CHECK_IS(begin(store, "shop", "paid", 4711, &c, &r), IDEM_REPLAY);
    CHECK_IS(r.token, TOKEN);
    CHECK_IS(r.attempt, 2);
    CHECK_IS(r.status, 201);
    CHECK_IS(r.response_flags, 513);
    CHECK_IS(r.flags, 0);
    CHECK_BYTES(r.meta, r.meta_bytes, "meta!");
    CHECK_BYTES(r.body, r.body_bytes, "the body");
    CHECK(r.age_ms >= 5000 && r.age_ms < 300000);
    CHECK(r.expires_in_ms <= 3600000 && r.expires_in_ms > 3300000);
    idem_reply_free(&r);
    CHECK_IS(begin(store, "shop", "paid", 4710, &c, &r), IDEM_MISMATCH);
    CHECK_IS(begin(store, "sho", "ppaid", 4711, &c, &r), IDEM_CLAIMED);

    CHECK_IS(begin(store, "", "too large", 0, &c, &r), IDEM_REPLAY);
    CHECK_IS(r.flags, IDEM_REPLY_NOT_RETAINED);
    CHECK_IS(r.status, 507);
    CHECK_IS(r.meta_bytes, 100);
    CHECK_IS(r.body_bytes, 7000000);
    CHECK_IS(r.digest, 0xfeed);
    idem_reply_free(&r);

    CHECK_IS(begin(store, "", "in progress", 4712, &c, &r), IDEM_RECLAIMED);
    CHECK_IS(r.lost_token, TOKEN + 2);
    CHECK_IS(r.lost_reason, IDEM_LOST_DEAD);
    CHECK_BYTES(r.mark, r.mark_bytes, "charge ch1");
    CHECK_IS(c.attempt, 2);
    CHECK(c.token > TOKEN + 2);
    idem_reply_free(&r);

    CHECK_IS(begin(store, "", "held", 4712, &c, &r), IDEM_UNKNOWN);
    CHECK_IS(r.lost_token, TOKEN + 3);
    CHECK_IS(r.lost_reason, IDEM_LOST_DECLARED);
    idem_reply_free(&r);

    CHECK_IS(begin(store, "", "rescued", 4712, &c, &r), IDEM_REPLAY);
    CHECK_IS(r.flags, IDEM_REPLY_NOT_RETAINED);
    CHECK_IS(r.status, 202);
    CHECK_IS(r.response_flags, 7);
    CHECK_IS(r.meta_bytes, 3);
    CHECK_IS(r.body_bytes, 4);
    CHECK_IS(r.digest, 0xbeef);
    idem_reply_free(&r);

    CHECK_IS(begin(store, "", "for now", 0, &c, &r), IDEM_CLAIMED);
    CHECK_IS(c.attempt, 5);
    CHECK_BYTES(r.mark, r.mark_bytes, "mark");
    idem_reply_free(&r);

    CHECK_IS(begin(store, "", "forgotten", 0, &c, &r), IDEM_CLAIMED);
    CHECK_IS(c.attempt, 1);
    CHECK(c.token > TOKEN + 6);
    idem_reply_free(&r);

    support_verify(dir);
    idem_close(store);
    drop(&m);
}

/* ------------------------------------------------------------------ versions */

static void try_open(const struct made *m, int wanted, const char *words)
{
    const char *dir = support_dir();
    save(m, dir);
    idem_store *store = NULL;
    CHECK_IS(idem_open(dir, NULL, &store), wanted);
    if (words != NULL && strstr(idem_error_detail(), words) == NULL)
        CHECK_BYTES(idem_error_detail(), strlen(idem_error_detail()), words);
    idem_close(store);
    idem_options o = support_options(16); /* who wants to create doesn't replace what he can't read */
    if (wanted != IDEM_OK)
        CHECK_IS(idem_open(dir, &o, &store), wanted);
}

static void an_unknown_major_version_or_required_feature_is_refused_in_words(void **state)
{
    (void)state;
    struct made m;
    for (unsigned i = 0; i < 5; i++) {
        make_golden(&m);
        put(m.root.at, 32, i == 0 ? 4 : i == 4 ? 2 : 3, 4);
        put(m.root.at, 40, i == 1 ? 2 : i == 2 ? UINT64_C(1) << 63 : 0, 8);
        put(m.gen.at, 64, i == 3 ? 4 : 3, 4);
        seal(&m);
        try_open(&m, IDEM_E_VERSION,
                 i == 0   ? "root: layout 4.0"
                 : i == 3 ? "-1: layout 4.0"
                 : i == 4 ? "root: layout 2.0"
                          : "features");
        drop(&m);
    }
}

static void a_later_minor_version_and_optional_features_are_read(void **state)
{
    (void)state;
    struct made m;
    make_golden(&m);
    put(m.root.at, 36, 9, 4);
    put(m.root.at, 48, ~UINT64_C(0), 8);
    put(m.gen.at, 68, 9, 4);
    seal(&m);
    try_open(&m, IDEM_OK, NULL);
    drop(&m);
}

static void a_file_of_another_kind_or_another_store_is_refused_in_words(void **state)
{
    (void)state;
    struct made m;
    for (unsigned i = 0; i < 5; i++) {
        make_golden(&m);
        if (i == 0)
            memcpy(m.root.at, "idmroot2", 8);
        else if (i == 1)
            memcpy(m.gen.at, "idmroot1", 8);
        else if (i == 2)
            m.gen.at[72] ^= 1; /* another store's */
        seal(&m);
        if (i == 3)
            m.root.at[472] ^= 1;
        else if (i == 4)
            m.gen.at[184] ^= 1;
        try_open(&m, IDEM_E_CORRUPT,
                 i == 0   ? "not a store's root"
                 : i == 1 ? "not a generation"
                 : i == 2 ? "contradict"
                          : "checksum");
        drop(&m);
    }
}

/* ------------------------------------------------------------------ would it be noticed? */

/* The library's offsets moved against the encoder's by one word: nothing of it may look right. */
static void an_offset_that_has_moved_is_noticed(void **state)
{
    (void)state;
    struct made m;
    idem_claim c;
    idem_reply r = IDEM_REPLY_INIT;
    make_golden(&m);
    memmove(m.root.at + 40, m.root.at + 32, 432);
    seal(&m);
    try_open(&m, IDEM_E_VERSION, "features 3"); /* the version is taken for a feature that nobody knows */
    drop(&m);
    make_golden(&m);
    memmove(m.gen.at + ARENA_AT + 8, m.gen.at + ARENA_AT, 4096); /* entries of region 0 begin a word later */
    const char *dir = support_dir();
    save(&m, dir);
    idem_store *store = support_attach(dir);
    CHECK(begin(store, "shop", "paid", 4711, &c, &r) != IDEM_REPLAY);
    idem_reply_free(&r);
    idem_close(store);
    idem_report report = IDEM_REPORT_INIT;
    CHECK_IS(idem_verify(dir, &report), IDEM_E_CORRUPT);
    drop(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_store_written_by_hand_is_opened_and_answered_from),
        cmocka_unit_test(an_unknown_major_version_or_required_feature_is_refused_in_words),
        cmocka_unit_test(a_later_minor_version_and_optional_features_are_read),
        cmocka_unit_test(a_file_of_another_kind_or_another_store_is_refused_in_words),
        cmocka_unit_test(an_offset_that_has_moved_is_noticed),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
