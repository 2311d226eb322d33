/*
 * tests/unit/test_arena.c - the small parts below the claim protocol: classes of lives, bytes in shared words, words and headers
 * packed and unpacked, entries written and read back.
 */
#include "support/support.h"

#include <string.h>

#include "base/hash.h"
#include "index/bucket.h"

static void every_life_fits_its_class_which_is_at_most_a_quarter_longer(void **state)
{
    (void)state;
    unsigned last = 0;
    for (int64_t life = 1; life < IDEM_TTL_MAX_MS; life += life / 97 + 1) {
        unsigned klass = idem_class_of(life);
        CHECK(klass > CLASS_NEVER && klass < IDEM_CLASSES);
        CHECK(klass >= last);
        CHECK(idem_class_life_ms(klass) >= life);
        CHECK(life <= 1024 || idem_class_life_ms(klass) - life <= life / 4 + 1);
        if (idem_class_life_ms(klass) < IDEM_TTL_MAX_MS)
            CHECK_IS(idem_class_of(idem_class_life_ms(klass)), klass);
        last = klass;
    }
    CHECK_IS(idem_class_of(IDEM_FOREVER), CLASS_NEVER);
    CHECK_IS(idem_class_of(IDEM_TTL_MAX_MS), CLASS_NEVER);
    CHECK_IS(idem_class_life_ms(CLASS_NEVER), IDEM_FOREVER);
    CHECK_IS(idem_class_life_ms(CLASS_CLAIMS), 0);
}

static void bytes_put_in_any_pieces_are_the_same_bytes_padded_with_zeros(void **state)
{
    (void)state;
    uint8_t bytes[64], back[64];
    struct idem_a64 words[10];
    uint64_t random = support_seed();
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i + 1);
    for (int round = 0; round < 20000; round++) {
        size_t n = (size_t)(support_random(&random) % sizeof bytes);
        struct idem_put put = {words, 0, 0};
        memset(words, 0xee, sizeof words);
        for (size_t at = 0; at < n;) {
            size_t piece = (size_t)(support_random(&random) % 12);
            piece = piece < n - at ? piece : n - at;
            idem_put_bytes(&put, bytes + at, piece);
            at += piece;
        }
        idem_put_end(&put);
        CHECK(put.at == words + (n + 7) / 8);
        memset(back, 0, sizeof back);
        idem_copy_out(back, words, n);
        CHECK(memcmp(back, bytes, n) == 0);
        CHECK(idem_shared_equal(words, bytes, n));
        for (size_t i = n; i < (n + 7) / 8 * 8; i++)
            CHECK(((const uint8_t *)words)[i] == 0);
        CHECK(words[(n + 7) / 8].word == UINT64_C(0xeeeeeeeeeeeeeeee));
        if (n > 0) {
            size_t i = (size_t)(support_random(&random) % n);
            memcpy(back, bytes, n);
            back[i] ^= 0x10;
            CHECK(!idem_shared_equal(words, back, n));
        }
    }
}

static void slot_words_and_headers_keep_what_is_packed_into_them(void **state)
{
    (void)state;
    uint64_t random = support_seed();
    for (int i = 0; i < 20000; i++) {
        unsigned st = (unsigned)(support_random(&random) & 7), distance = (unsigned)(support_random(&random) & 15);
        unsigned tag = (unsigned)(support_random(&random) & 0x7f), gen = (unsigned)(support_random(&random) & 0xffff);
        uint64_t unit = support_random(&random) & ((UINT64_C(1) << IDEM_ADDRESS_BITS) - 1);
        uint64_t w = word_make(st, distance, tag, unit, gen);
        CHECK_IS(word_state(w), st);
        CHECK_IS(word_distance(w), distance);
        CHECK_IS(word_tag(w), tag);
        CHECK_IS(word_unit(w), unit);
        CHECK_IS(word_generation(w), gen);
        CHECK((w & WORD_WAITERS) == 0);
        uint64_t moved = word_moved(w | WORD_WAITERS, unit ^ 1, gen ^ 1);
        CHECK(word_unit(moved) == (unit ^ 1) && word_generation(moved) == (gen ^ 1) && word_tag(moved) == tag &&
              word_state(moved) == st && (moved & WORD_WAITERS) != 0);
        unsigned reach = (unsigned)(support_random(&random) & 15), slot = (unsigned)(support_random(&random) % 7);
        uint64_t version = support_random(&random);
        uint64_t h = header_make(version, reach, true, distance, slot);
        CHECK(header_version(h) == version && header_reach(h) == reach && header_pending(h) &&
              header_distance(h) == distance && header_slot(h) == slot && (h & HEADER_FROZEN) == 0);
        int64_t expiry = (int64_t)(support_random(&random) & (uint64_t)ENTRY_TIME_MAX);
        uint64_t s = region_state(REGION_RETIRING, expiry, gen);
        CHECK(region_phase(s) == REGION_RETIRING && region_expiry(s) == expiry && region_generation(s) == gen);
    }
}

static void buckets_wrap_around_at_the_end(void **state)
{
    (void)state;
    struct idem_view v;
    memset(&v, 0, sizeof v);
    for (v.bucket_count = 16; v.bucket_count < 40; v.bucket_count++)
        for (uint64_t home = 0; home < v.bucket_count; home++)
            for (unsigned d = 0; d <= IDEM_DISTANCE_MAX; d++) {
                uint64_t b = bucket_after(&v, home, d);
                CHECK(b < v.bucket_count && b == (home + d) % v.bucket_count);
                CHECK(bucket_before(&v, b, d) == home);
            }
    v.bucket_count = 17;
    CHECK(idem_home_of(&v, UINT64_MAX) == 16 && idem_home_of(&v, 0) == 0);
}

/* One region's arena in private memory. */
static struct idem_a64 arena[(64 << 10) / 8];

static struct idem_view arena_view(void)
{
    struct idem_view v;
    memset(&v, 0, sizeof v);
    v.arena = arena;
    v.region_shift = 16;
    v.region_count = 1;
    v.arena_units = sizeof arena / IDEM_UNIT_BYTES;
    return v;
}

static void an_entry_of_each_kind_reads_back_as_it_was_written(void **state)
{
    (void)state;
    struct idem_view v = arena_view();
    static const char key[] = "scopeKEY", mark[] = "the mark", meta[] = "meta", body[] = "the body";
    for (uint32_t kind = ENTRY_CLAIM; kind <= ENTRY_TRANSIENT; kind++) {
        struct idem_entry e =
                              {
                                  .key_bytes = 8,
                                  .scope_bytes = 5,
                                  .kind = kind,
                                  .flags = 0x45,
                                  .token = 11,
                                  .fingerprint = 12,
                                  .expiry_ms = 13,
                                  .extra = 14,
                                  .at_ms = 15,
                                  .attempt = 16,
                              },
                          r;
        uint64_t outcome[3] = {100, 200, 300};
        if (kind == ENTRY_CLAIM) {
            e.hash = 17;
            e.owner = 18;
            e.lease_end_ms = 19;
            e.previous = 20;
            e.lost_token = 21;
            e.mark_bytes = 8;
        } else if (kind == ENTRY_TOMBSTONE) {
            e.status = -22;
            e.body_bytes = sizeof outcome;
        } else {
            e.status = -22;
            e.meta_bytes = 4;
            e.body_bytes = 8;
        }
        if (kind == ENTRY_TRANSIENT) {
            e.lost_token = 21;
            e.mark_bytes = 8;
        }
        memset(arena, 0xee, sizeof arena);
        idem_entry_store(arena + 2 * 100, &e, key, meta, kind == ENTRY_TOMBSTONE ? (const void *)outcome : body, mark);
        bool transient = kind == ENTRY_TRANSIENT; /* named by an abandoned slot only, an answer by a completed one */
        CHECK(idem_entry_load(&v, word_make(transient ? WORD_COMPLETED : WORD_DECLARED, 0, 0, 100, 1), &r) ==
              (kind == ENTRY_CLAIM));
        CHECK(idem_entry_load(&v, word_make(transient ? WORD_ABANDONED : WORD_COMPLETED, 0, 0, 100, 1), &r));
        CHECK(r.key_bytes == e.key_bytes && r.scope_bytes == e.scope_bytes && r.kind == kind && r.flags == e.flags);
        CHECK(r.token == 11 && r.fingerprint == 12 && r.expiry_ms == 13 && r.extra == 14 && r.at_ms == 15);
        CHECK(r.attempt == 16 && r.status == e.status && r.meta_bytes == e.meta_bytes && r.body_bytes == e.body_bytes);
        CHECK(r.mark_bytes == e.mark_bytes && r.lost_token == e.lost_token && r.owner == e.owner);
        CHECK(r.lease_end_ms == e.lease_end_ms && r.previous == e.previous && r.hash == e.hash);
        char back[64];
        idem_copy_out(back, idem_entry_key(&r), r.key_bytes);
        CHECK(memcmp(back, key, 8) == 0);
        idem_copy_out(back, idem_entry_mark(&r), r.mark_bytes);
        CHECK(memcmp(back, mark, r.mark_bytes) == 0);
        if (kind == ENTRY_RESPONSE || kind == ENTRY_TRANSIENT) {
            idem_copy_out(back, idem_entry_answer(&r), 12);
            CHECK(memcmp(back, "metathe body", 12) == 0);
        }
        uint64_t bytes = idem_entry_bytes(kind, 8, (uint64_t)e.meta_bytes + e.body_bytes, e.mark_bytes);
        CHECK(bytes % IDEM_UNIT_BYTES == 0);
        CHECK(arena[2 * 100 + bytes / 8].word == UINT64_C(0xeeeeeeeeeeeeeeee)); /* not a byte more than it said */
    }
}

static void bytes_that_can_be_no_entry_are_refused(void **state)
{
    (void)state;
    struct idem_view v = arena_view();
    struct idem_entry e = {.key_bytes = 8, .kind = ENTRY_RESPONSE, .attempt = 1, .body_bytes = 100}, r;
    static const char body[100];
    idem_entry_store(arena, &e, "12345678", NULL, body, NULL);
    uint64_t w = word_make(WORD_COMPLETED, 0, 0, 0, 1), word0 = arena[0].word, word6 = arena[6].word;
    CHECK(idem_entry_load(&v, w, &r));
    static const uint64_t bad0[] = {
        0,                                                  /* nothing at all */
        UINT64_C(2) << 22,                                  /* no key */
        1025 | UINT64_C(2) << 22,                           /* a key that is too long */
        8 | UINT64_C(8) << 11 | UINT64_C(2) << 22,          /* all of it scope */
        8 | UINT64_C(5) << 22,                              /* no such kind */
        8 | UINT64_C(2) << 22 | UINT64_C(65536) << 32,      /* metadata beyond the region */
        8 | UINT64_C(2) << 22 | UINT64_C(0xffffffff) << 32, /* and far beyond */
        8 | UINT64_C(1) << 22 | UINT64_C(257) << 32,        /* a mark that is too long */
        8 | UINT64_C(3) << 22 | UINT64_C(1) << 32,          /* a tombstone with metadata */
    };
    for (size_t i = 0; i < sizeof bad0 / sizeof bad0[0]; i++) {
        arena[0].word = bad0[i];
        CHECK(!idem_entry_load(&v, w, &r));
    }
    arena[0].word = word0;
    arena[6].word = word6 | UINT64_C(0xffffffff) << 32;
    CHECK(!idem_entry_load(&v, w, &r));
    arena[6].word = word6;
    CHECK(idem_entry_load(&v, w, &r));
    for (uint64_t unit = v.arena_units - 12; unit < v.arena_units + 12; unit++)
        idem_entry_load(&v, word_make(WORD_COMPLETED, 0, 0, unit, 1), &r); /* the address sanitizer looks on */
    CHECK(!idem_entry_load(&v, word_make(WORD_COMPLETED, 0, 0, v.arena_units - 1, 1), &r));
    CHECK(!idem_entry_load(&v, word_make(WORD_COMPLETED, 0, 0, (UINT64_C(1) << IDEM_ADDRESS_BITS) - 1, 1), &r));
}

static void hashes_of_scope_and_key_are_framed_and_secret(void **state)
{
    (void)state;
    uint8_t one[IDEM_SECRET_BYTES], two[IDEM_SECRET_BYTES];
    uint64_t random = support_seed();
    for (unsigned i = 0; i < sizeof one; i++) {
        one[i] = (uint8_t)support_random(&random);
        two[i] = (uint8_t)support_random(&random);
    }
    CHECK(idem_hash_key(one, "abc", 3, 1) != idem_hash_key(one, "abc", 3, 2));
    CHECK(idem_hash_key(one, "abc", 3, 0) != idem_hash_key(one, "abc", 3, 1));
    CHECK(idem_hash_key(one, "abc", 3, 1) != idem_hash_key(two, "abc", 3, 1));
    CHECK(idem_hash_key(one, "abc", 3, 1) == idem_hash_key(one, "abc", 3, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_life_fits_its_class_which_is_at_most_a_quarter_longer),
        cmocka_unit_test(bytes_put_in_any_pieces_are_the_same_bytes_padded_with_zeros),
        cmocka_unit_test(slot_words_and_headers_keep_what_is_packed_into_them),
        cmocka_unit_test(buckets_wrap_around_at_the_end),
        cmocka_unit_test(an_entry_of_each_kind_reads_back_as_it_was_written),
        cmocka_unit_test(bytes_that_can_be_no_entry_are_refused),
        cmocka_unit_test(hashes_of_scope_and_key_are_framed_and_secret),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
