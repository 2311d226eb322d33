/*
 * tests/unit/test_wal_format.c - the log's format: what is written is read back, every flipped bit is noticed, the golden file stays
 * what it is.
 */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/bytes.h"
#include "unit/wal_file.h"

#define ROOM 4096u

/* One of each kind; the bytes are static. */
#define KINDS     8u
#define KINDS_1_0 7u /* the first ones */
static struct idem_rec a_record(unsigned i, uint64_t position)
{
    static const char key[] = "shopkey-1", mark[] = "charge ch_1", meta[] = "meta!", body[] = "the body",
                      more[] = "events";
    static const uint8_t zeros[100];
    struct idem_rec r = {
        .position = position,
        .token = UINT64_C(0x018bcfe568000001) + i,
        .fingerprint = 4711,
        .expiry_ms = INT64_C(1700086400000),
        .at_ms = INT64_C(1700000000000),
        .attempt = 3,
        .extra = 5,
        .key = (const uint8_t *)key,
        .key_bytes = 9,
        .scope_bytes = 4,
    };
    static const uint8_t kinds[KINDS] = {REC_CLAIM, REC_RESPONSE, REC_TOMBSTONE, REC_FORGOTTEN,
                                         REC_EVENT, REC_RETAIN,   REC_CLAIM,     REC_FILL};
    static const uint8_t states[KINDS] = {
        REC_IN_PROGRESS, REC_COMPLETED, REC_COMPLETED, REC_GONE, 0, 0, REC_DECLARED, 0};
    r.kind = kinds[i];
    r.state = states[i];
    switch (r.kind) {
    case REC_CLAIM:
        r.flags = REC_HOLD | REC_LOST_BEFORE;
        r.lease_end_ms = INT64_C(1700000030000);
        r.lost_token = 99;
        r.mark = (const uint8_t *)mark;
        r.mark_bytes = sizeof mark - 1;
        break;
    case REC_RESPONSE:
        r.flags = REC_SYNC;
        r.status = -201;
        r.meta = (const uint8_t *)meta;
        r.meta_bytes = 5;
        r.body = (const uint8_t *)body;
        r.body_bytes = 8;
        r.more = (const uint8_t *)more;
        r.more_bytes = 6;
        break;
    case REC_TOMBSTONE:
        r.status = 507;
        r.meta_bytes = 100;
        r.body_bytes = UINT64_C(7000000000);
        r.digest = 0xfeed;
        break;
    case REC_EVENT:
        r.flags = REC_OPTIONAL;
        r.more = (const uint8_t *)more;
        r.more_bytes = 6;
        break;
    case REC_RETAIN:
        r.key = NULL;
        r.key_bytes = r.scope_bytes = 0;
        r.token = 3;
        break;
    case REC_FILL:
        r = (struct idem_rec){.kind = REC_FILL, .flags = REC_OPTIONAL, .position = position, .more = zeros};
        r.more_bytes = 100;
        break;
    default:
        break;
    }
    return r;
}

static void same_bytes(const uint8_t *a, const uint8_t *b, uint64_t n)
{
    CHECK(n == 0 || (a != NULL && b != NULL && memcmp(a, b, n) == 0));
}

static void same_record(const struct idem_rec *a, const struct idem_rec *b)
{
    CHECK_IS(a->kind, b->kind);
    CHECK_IS(a->state, b->state);
    CHECK_IS(a->flags, b->flags);
    CHECK_IS(a->position, b->position);
    CHECK_IS(a->token, b->token);
    CHECK_IS(a->fingerprint, b->fingerprint);
    CHECK_IS(a->expiry_ms, b->expiry_ms);
    CHECK_IS(a->extra, b->extra);
    CHECK_IS(a->at_ms, b->at_ms);
    CHECK_IS(a->attempt, b->attempt);
    CHECK_IS(a->scope_bytes, b->scope_bytes);
    CHECK_IS(a->key_bytes, b->key_bytes);
    same_bytes(a->key, b->key, a->key_bytes);
    CHECK_IS(a->status, b->status);
    CHECK_IS(a->lease_end_ms, b->lease_end_ms);
    CHECK_IS(a->lost_token, b->lost_token);
    CHECK_IS(a->mark_bytes, b->mark_bytes);
    same_bytes(a->mark, b->mark, a->mark_bytes);
    CHECK_IS(a->meta_bytes, b->meta_bytes);
    CHECK_IS(a->body_bytes, b->body_bytes);
    if (a->kind == REC_RESPONSE) {
        same_bytes(a->meta, b->meta, a->meta_bytes);
        same_bytes(a->body, b->body, a->body_bytes);
    }
    CHECK_IS(a->digest, b->digest);
    CHECK_IS(a->more_bytes, b->more_bytes);
    same_bytes(a->more, b->more, a->more_bytes);
}

/* ------------------------------------------------------------------ the format */

static void every_kind_is_read_back_as_it_was_written(void **state)
{
    (void)state;
    uint8_t bytes[ROOM];
    for (unsigned i = 0; i < KINDS; i++) {
        struct idem_rec r = a_record(i, 4096), back;
        uint64_t n = 0, wanted = idem_rec_bytes(&r);
        memset(bytes, 0xa5, sizeof bytes);
        CHECK(wanted > 0 && wanted % IDEM_WAL_GRAIN == 0);
        CHECK_IS(idem_rec_encode(&r, SALT, bytes), wanted);
        CHECK_IS(bytes[wanted], 0xa5); /* not a byte beyond */
        CHECK_IS(idem_rec_decode(bytes, wanted, SALT, 4096, &back, &n), FORMAT_OK);
        CHECK_IS(n, wanted);
        same_record(&r, &back);
        CHECK_IS(idem_rec_decode(bytes, wanted, SALT + 1, 4096, &back, &n), FORMAT_CHECKSUM);
        CHECK_IS(idem_rec_decode(bytes, wanted, SALT, 4160, &back, &n), FORMAT_PLACE);
    }
}

static void every_flipped_bit_and_every_cut_of_a_record_is_noticed(void **state)
{
    (void)state;
    uint8_t *bytes = malloc(ROOM);
    CHECK(bytes != NULL);
    for (unsigned i = 0; i < KINDS; i++) {
        struct idem_rec r = a_record(i, 64), back;
        uint64_t n, bytes_n = idem_rec_encode(&r, SALT, bytes);
        for (uint64_t bit = 0; bit < bytes_n * 8; bit++) {
            bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            CHECK(idem_rec_decode(bytes, bytes_n, SALT, 64, &back, &n) != FORMAT_OK);
            bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        }
        for (uint64_t cut = 0; cut < bytes_n; cut++) {
            uint8_t *exact = malloc(cut + 1); /* so that the sanitizer sees a read past the cut */
            CHECK(exact != NULL);
            memcpy(exact, bytes, cut);
            CHECK(idem_rec_decode(exact, cut, SALT, 64, &back, &n) != FORMAT_OK);
            free(exact);
        }
    }
    free(bytes);
}

static void headers_are_read_back_and_every_flipped_bit_of_them_is_noticed(void **state)
{
    (void)state;
    uint8_t head[IDEM_WAL_HEADER_BYTES], batch[IDEM_WAL_BATCH_BYTES], sector[IDEM_WAL_SECTOR_BYTES];
    struct idem_file_rec f = a_file(), g;
    memset(&g, 0, sizeof g);
    idem_file_encode(&f, head);
    CHECK_IS(idem_file_decode(head, &g), FORMAT_OK);
    CHECK_IS(memcmp(&f, &g, sizeof f), 0);
    for (unsigned bit = 0; bit < sizeof head * 8; bit++) {
        head[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        CHECK(idem_file_decode(head, &g) != FORMAT_OK);
        head[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    struct idem_batch_rec b = {2, 1 << 20, (1 << 20) - 64, 640, 3, 1700000000000, 1700000000123, 1700000060000}, c;
    idem_batch_encode(&b, SALT, batch);
    CHECK_IS(idem_batch_decode(batch, SALT, 1 << 20, 640, &c), FORMAT_OK);
    CHECK(c.epoch == b.epoch && c.position == b.position && c.durable == b.durable && c.bytes == b.bytes &&
          c.records == b.records && c.store_ms == b.store_ms && c.wall_ms == b.wall_ms && c.ceiling_ms == b.ceiling_ms);
    CHECK_IS(idem_batch_decode(batch, SALT, 1 << 20, 639, &c), FORMAT_LENGTH);
    CHECK_IS(idem_batch_decode(batch, SALT, 64, 640, &c), FORMAT_PLACE);
    CHECK_IS(idem_batch_decode(batch, 0, 1 << 20, 640, &c), FORMAT_CHECKSUM);
    for (unsigned bit = 0; bit < sizeof batch * 8; bit++) {
        batch[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        CHECK(idem_batch_decode(batch, SALT, 1 << 20, 640, &c) != FORMAT_OK);
        batch[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    b.durable -= 1; /* no record ends there: what recovery made of it, it would not read */
    idem_batch_encode(&b, SALT, batch);
    CHECK_IS(idem_batch_decode(batch, SALT, 1 << 20, 640, &c), FORMAT_LENGTH);
    struct idem_log_id_rec id = {IDEM_WAL_MAJOR, IDEM_WAL_MINOR, 9, {1}, {2}, 7, 1}, back;
    memset(&back, 0, sizeof back);
    idem_log_id_encode(&id, sector);
    CHECK_IS(idem_log_id_decode(sector, &back), FORMAT_OK);
    CHECK_IS(memcmp(&id, &back, sizeof id), 0);
    sector[300] ^= 1;
    CHECK_IS(idem_log_id_decode(sector, &back), FORMAT_CHECKSUM);
}

static void a_time_that_no_clock_shows_is_refused_in_headers(void **state)
{
    (void)state;
    uint8_t head[IDEM_WAL_HEADER_BYTES], batch[IDEM_WAL_BATCH_BYTES];
    static const int64_t times[] = {-1, INT64_MIN, IDEM_WAL_TIME_MAX + 1, INT64_MAX};
    for (unsigned i = 0; i < 2 * sizeof times / sizeof times[0]; i++) {
        struct idem_file_rec f = a_file(), g;
        struct idem_batch_rec b = {2, 1 << 20, 0, 640, 3, 1700000000000, 1700000000123, 1700000060000}, c;
        int64_t t = times[i / 2];
        *(i % 2 ? &f.store_ms : &f.wall_ms) = t;
        *(i % 2 ? &b.store_ms : &b.wall_ms) = t;
        idem_file_encode(&f, head);
        CHECK_IS(idem_file_decode(head, &g), FORMAT_LENGTH);
        idem_batch_encode(&b, SALT, batch);
        CHECK_IS(idem_batch_decode(batch, SALT, 1 << 20, 640, &c), FORMAT_LENGTH);
    }
}

static void zeros_are_no_record_no_batch_and_no_file(void **state)
{
    (void)state;
    uint8_t zeros[IDEM_WAL_HEADER_BYTES] = {0};
    struct idem_file_rec f;
    struct idem_batch_rec b;
    struct idem_rec r;
    struct idem_log_id_rec id;
    uint64_t n;
    CHECK_IS(idem_file_decode(zeros, &f), FORMAT_ZERO);
    CHECK_IS(idem_batch_decode(zeros, 0, 0, sizeof zeros, &b), FORMAT_ZERO);
    CHECK_IS(idem_rec_decode(zeros, sizeof zeros, 0, 0, &r, &n), FORMAT_ZERO);
    CHECK_IS(idem_log_id_decode(zeros, &id), FORMAT_ZERO);
}

static void an_unknown_version_or_kind_says_so(void **state)
{
    (void)state;
    uint8_t head[IDEM_WAL_HEADER_BYTES], bytes[ROOM];
    struct idem_file_rec f = a_file(), g;
    f.major = 2;
    idem_file_encode(&f, head);
    CHECK_IS(idem_file_decode(head, &g), FORMAT_UNKNOWN);
    CHECK_IS(g.major, 2);
    f = a_file();
    f.features_required = 1;
    idem_file_encode(&f, head);
    CHECK_IS(idem_file_decode(head, &g), FORMAT_UNKNOWN);
    struct idem_rec r = a_record(4, 64), back;
    uint64_t n = 0;
    r.kind = 50;
    r.flags = 0;
    uint64_t bytes_n = idem_rec_encode(&r, SALT, bytes);
    CHECK_IS(idem_rec_decode(bytes, bytes_n, SALT, 64, &back, &n), FORMAT_UNKNOWN);
    CHECK_IS(n, bytes_n);
}

static void records_that_are_too_long_or_contradict_themselves_are_refused(void **state)
{
    (void)state;
    struct idem_rec r = a_record(0, 64);
    uint8_t bytes[ROOM];
    r.key_bytes = IDEM_WAL_KEY_MAX + 1;
    CHECK_IS(idem_rec_bytes(&r), 0);
    CHECK_IS(idem_rec_encode(&r, SALT, bytes), 0);
    r = a_record(0, 64);
    r.scope_bytes = r.key_bytes; /* a key has at least one byte */
    CHECK_IS(idem_rec_bytes(&r), 0);
    r = a_record(1, 64);
    r.body_bytes = UINT64_C(1) << 32;
    CHECK_IS(idem_rec_bytes(&r), 0);
    r = a_record(0, 64);
    r.kind = 0;
    CHECK_IS(idem_rec_bytes(&r), 0);
    r = a_record(1, 64);
    r.state = REC_IN_PROGRESS; /* an answer that is not one */
    uint64_t n, bytes_n = idem_rec_encode(&r, SALT, bytes);
    CHECK_IS(idem_rec_decode(bytes, bytes_n, SALT, 64, &r, &n), FORMAT_LENGTH);
    r = a_record(0, 64);
    bytes_n = idem_rec_encode(&r, SALT, bytes);
    CHECK_IS(idem_rec_decode(bytes, bytes_n, SALT, 64, &r, &n), FORMAT_OK);
    CHECK_IS(bytes[bytes_n - 1], 0);
    bytes[bytes_n - 1] = 1; /* something behind the end, with a checksum that is right */
    uint64_t sum = XXH3_64bits_withSeed(bytes + 8, bytes_n - 8, SALT);
    memcpy(bytes, &sum, sizeof sum);
    CHECK_IS(idem_rec_decode(bytes, bytes_n, SALT, 64, &r, &n), FORMAT_LENGTH);
    r = a_record(0, 64);
    bytes_n = idem_rec_encode(&r, SALT, bytes);
    bytes[56]--; /* a shorter key: its parts do not add up to its length */
    sum = XXH3_64bits_withSeed(bytes + 8, bytes_n - 8, SALT);
    memcpy(bytes, &sum, sizeof sum);
    CHECK_IS(idem_rec_decode(bytes, bytes_n, SALT, 64, &r, &n), FORMAT_LENGTH);
}

static void of_two_records_the_later_in_the_keys_life_holds_wherever_it_lies(void **state)
{
    (void)state;
    /* In the order of a key's life; each is greater than all before it, although it lies before them. */
    static const struct {
        unsigned token, extra;
        uint8_t kind, state;
    } life[] = {
        {1, 0, REC_CLAIM, REC_IN_PROGRESS},  {1, 1, REC_CLAIM, REC_IN_PROGRESS}, {1, 1, REC_CLAIM, REC_RELEASED},
        {1, 1, REC_CLAIM, REC_RERUN},        {2, 0, REC_CLAIM, REC_IN_PROGRESS}, {2, 9, REC_CLAIM, REC_IN_PROGRESS},
        {2, 0, REC_RESPONSE, REC_COMPLETED}, {2, 0, REC_FORGOTTEN, REC_GONE},    {3, 0, REC_CLAIM, REC_IN_PROGRESS},
        {3, 0, REC_CLAIM, REC_ABANDONED},
    };
    size_t n = sizeof life / sizeof life[0];
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            struct idem_rec a = {.kind = life[i].kind,
                                 .state = life[i].state,
                                 .token = life[i].token,
                                 .extra = (uint16_t)life[i].extra,
                                 .position = 64 * (n - i)};
            struct idem_rec b = {.kind = life[j].kind,
                                 .state = life[j].state,
                                 .token = life[j].token,
                                 .extra = (uint16_t)life[j].extra,
                                 .position = 64 * (n - j)};
            int o = idem_rec_order(&a, &b);
            CHECK(i == j ? o == 0 : (o > 0) == (i > j));
        }
    /* An answer that a claim's record has denied says that record's state (recover/replay.c): then the place alone tells which is later. */
    struct idem_rec claim = {.kind = REC_CLAIM, .state = REC_ABANDONED, .token = 3, .extra = 9, .position = 64};
    struct idem_rec answer = {.kind = REC_RESPONSE, .state = REC_ABANDONED, .token = 3, .position = 128};
    CHECK(idem_rec_order(&claim, &answer) < 0 && idem_rec_order(&answer, &claim) > 0);
}

static void a_log_word_keeps_position_and_state(void **state)
{
    (void)state;
    uint64_t w = log_word(IDEM_WAL_POSITION_MAX - 64, REC_COMPLETED);
    CHECK_IS(log_word_position(w), IDEM_WAL_POSITION_MAX - 64);
    CHECK(log_word_says(w, REC_COMPLETED));
    CHECK(!log_word_says(w, REC_GONE));
    for (unsigned s = 0; s < 8; s++)
        CHECK(!log_word_says(0, s) && !log_word_says(LOG_WORD_SUPERSEDED, s));
}

/* ------------------------------------------------------------------ the golden file */

static uint64_t golden_bytes(uint8_t *out)
{
    struct idem_file_rec f = a_file();
    idem_file_encode(&f, out);
    uint64_t at = IDEM_WAL_HEADER_BYTES + IDEM_WAL_BATCH_BYTES;
    for (unsigned i = 0; i < KINDS; i++) {
        struct idem_rec r = a_record(i, f.base + at - IDEM_WAL_HEADER_BYTES);
        at += idem_rec_encode(&r, SALT, out + at);
    }
    struct idem_batch_rec b = {2,     f.base,        f.base,        (uint32_t)(at - IDEM_WAL_HEADER_BYTES),
                               KINDS, 1700000000000, 1700000000123, 1700000060000};
    idem_batch_encode(&b, SALT, out + IDEM_WAL_HEADER_BYTES);
    return at;
}

static size_t read_golden(const char *name, uint8_t *golden, size_t room)
{
    char path[512];
    snprintf(path, sizeof path, "%s/format/%s", IDEM_TESTS_DIR, name);
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    size_t got = fread(golden, 1, room, file);
    fclose(file);
    return got;
}

static void the_golden_file_is_still_what_is_written(void **state)
{
    (void)state;
    uint8_t made[16384], golden[16384];
    memset(made, 0, sizeof made);
    uint64_t n = golden_bytes(made);
    CHECK_IS(read_golden("wal-1.1.golden", golden, sizeof golden), n);
    CHECK_IS(memcmp(made, golden, n), 0);
    /* By the table, without the library: what a reader of another make would look for. */
    CHECK_BYTES(golden, 8, "idemwal1");
    CHECK_IS(get(golden, 8, 4), 1);
    CHECK_IS(get(golden, 12, 4), 1);
    CHECK_IS(golden[216], 2);
    CHECK_IS(golden[217], 3);
    CHECK_IS(get(golden, 220, 4), 50);
    CHECK_IS(get(golden, 228, 4), 2048);
    CHECK_IS(get(golden, 64, 8), 7);
    CHECK_IS(get(golden, 72, 8), SALT);
    CHECK_IS(get(golden, 80, 8), 1 << 20);
    CHECK_IS(get(golden, 112, 8), (1 << 20) - 128);
    CHECK_BYTES(golden + 4096 + 8, 4, "IDBT");
    CHECK_IS(get(golden, 4096 + 36, 4), KINDS);
    const uint8_t *claim = golden + 4096 + 64;
    CHECK_IS(get(claim, 8, 4), 80 + 9 + 11);
    CHECK_IS(claim[12], REC_CLAIM);
    CHECK_IS(claim[13], REC_IN_PROGRESS);
    CHECK_BYTES(claim + 80, 20, "shopkey-1charge ch_1");
    const uint8_t *response = claim + 128;
    CHECK_IS(response[12], REC_RESPONSE);
    CHECK_BYTES(response + 80, 28, "shopkey-1meta!the bodyevents");
}

static void a_file_of_1_0_is_read_and_says_nothing_of_settings(void **state)
{
    (void)state;
    uint8_t golden[16384];
    static const struct idem_wal_settings none;
    struct idem_file_rec f;
    struct idem_batch_rec b;
    size_t got = read_golden("wal-1.0.golden", golden, sizeof golden);
    CHECK_IS(idem_file_decode(golden, &f), FORMAT_OK);
    CHECK_IS(f.minor, 0);
    CHECK_IS(f.group, 1001);
    CHECK_IS(f.settings.durability_claim, none.durability_claim);
    CHECK_IS(f.settings.flush_interval_ms + f.settings.log_wait_ms + f.settings.ring_refs, 0);
    CHECK_IS(f.settings.file_bytes, 0);
    uint64_t at = IDEM_WAL_HEADER_BYTES, n = 0;
    CHECK_IS(idem_batch_decode(golden + at, SALT, f.base, got - at, &b), FORMAT_OK);
    CHECK_IS(b.records, KINDS_1_0);
    at += IDEM_WAL_BATCH_BYTES;
    for (unsigned i = 0; i < KINDS_1_0; i++, at += n) {
        uint64_t position = f.base + at - IDEM_WAL_HEADER_BYTES;
        struct idem_rec wanted = a_record(i, position), back;
        CHECK_IS(idem_rec_decode(golden + at, got - at, SALT, position, &back, &n), FORMAT_OK);
        same_record(&wanted, &back);
    }
    CHECK_IS(at, got);
}

/* Whoever knows 1.0 alone passes over what 1.1 has: an optional kind, words that were zero. */
static void what_1_1_adds_is_optional(void **state)
{
    (void)state;
    struct idem_rec fill = a_record(KINDS_1_0, 64);
    CHECK_IS(fill.kind, REC_FILL);
    CHECK(fill.flags & REC_OPTIONAL);
    struct idem_file_rec f = a_file();
    uint8_t head[IDEM_WAL_HEADER_BYTES];
    idem_file_encode(&f, head);
    CHECK_IS(get(head, 16, 8), 0);
}

/* A leader's records are copied to where they will be encoded. */
static void what_lies_in_its_place_already_is_encoded_there(void **state)
{
    (void)state;
    uint8_t wanted[ROOM], bytes[ROOM];
    struct idem_wal_salt salt;
    idem_wal_salt(&salt, SALT);
    for (unsigned i = 0; i < KINDS; i++) {
        struct idem_rec r = a_record(i, 4096);
        r.more = NULL; /* events have no place of their own */
        r.more_bytes = 0;
        uint64_t n = idem_rec_encode(&r, SALT, wanted);
        memset(bytes, 0xa5, sizeof bytes);
        uint8_t *at = bytes + IDEM_WAL_FIXED_BYTES;
        const uint8_t **parts[] = {&r.key, &r.mark, &r.meta, &r.body};
        uint64_t lengths[] = {r.key_bytes, r.mark_bytes, r.meta == NULL ? 0 : r.meta_bytes,
                              r.body == NULL ? 0 : r.body_bytes};
        for (unsigned p = 0; p < 4; p++) {
            if (*parts[p] == NULL)
                continue;
            memcpy(at, *parts[p], lengths[p]);
            *parts[p] = at;
            at += lengths[p];
        }
        CHECK_IS(idem_rec_lay(&r, bytes), n);
        CHECK_IS(idem_rec_sum(&salt, bytes), n);
        CHECK_IS(memcmp(bytes, wanted, n), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_read_back_as_it_was_written),
        cmocka_unit_test(every_flipped_bit_and_every_cut_of_a_record_is_noticed),
        cmocka_unit_test(headers_are_read_back_and_every_flipped_bit_of_them_is_noticed),
        cmocka_unit_test(a_time_that_no_clock_shows_is_refused_in_headers),
        cmocka_unit_test(zeros_are_no_record_no_batch_and_no_file),
        cmocka_unit_test(an_unknown_version_or_kind_says_so),
        cmocka_unit_test(records_that_are_too_long_or_contradict_themselves_are_refused),
        cmocka_unit_test(of_two_records_the_later_in_the_keys_life_holds_wherever_it_lies),
        cmocka_unit_test(a_log_word_keeps_position_and_state),
        cmocka_unit_test(the_golden_file_is_still_what_is_written),
        cmocka_unit_test(a_file_of_1_0_is_read_and_says_nothing_of_settings),
        cmocka_unit_test(what_1_1_adds_is_optional),
        cmocka_unit_test(what_lies_in_its_place_already_is_encoded_there),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
