/*
 * tests/format/test_bounds.c - each number that is read from a file has its bounds: whatever lies outside is refused, though the checksum is right.
 *
 * Faulty writers and hostile ones compute checksums. So each field of a store's constants and of the log's headers and records is set to what
 * lies just outside its bounds, one at a time, and to what lies just inside where that is a different check.
 */
#include "support/support.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "segment/layout.h"
#include "unit/wal_file.h"

/* ------------------------------------------------------------------ a store's constants */

static char dir[200], wal[200];

enum part { ROOT, LOG, GENERATION };

/* One field, and what it is set to. */
struct outside {
    enum part part;
    size_t at, bytes;
    uint64_t value;
    int code;
    const char *field;
};
#define FIELD(part, type, field, value, code)                                                                  \
    {                                                                                                          \
        part, offsetof(struct type, field), sizeof(((struct type *)0)->field), (uint64_t)(value), code, #field \
    }
#define R(field, value) FIELD(ROOT, idem_root_const, field, value, IDEM_E_CORRUPT)
#define L(field, value) FIELD(LOG, idem_log_const, field, value, IDEM_E_CORRUPT)
#define G(field, value) FIELD(GENERATION, idem_generation_const, field, value, IDEM_E_CORRUPT)

static const struct outside outside[] = {
    FIELD(ROOT, idem_root_const, layout_major, IDEM_LAYOUT_MAJOR + 1, IDEM_E_VERSION),
    FIELD(ROOT, idem_root_const, features_required, 1u << 7, IDEM_E_VERSION),
    R(features_required, 0), /* but the log's settings are not all zero */
    R(processes_max, 0),
    R(processes_max, IDEM_PROCESSES_MAX + 1),
    R(processes_max, 65), /* another size than the file's */
    R(lanes_max, 0),
    R(lanes_max, IDEM_LANES_MAX + 1),
    R(root_bytes, 0),
    R(lease_ms, 0),
    R(lease_ms, IDEM_LEASE_MAX_MS + 1),
    R(ttl_ms, 0),
    R(ttl_ms, IDEM_TTL_MAX_MS + 1),
    L(ring_refs, 32),
    L(ring_refs, 65536 * 2),
    L(ring_refs, 96),
    L(file_bytes, (1 << 20) - 4096),
    L(file_bytes, (UINT64_C(1) << 30) + 4096),
    L(file_bytes, (1 << 20) + 1),
    L(durability_claim, 0),
    L(durability_claim, IDEM_DURABILITY_SYNC + 1),
    L(durability_complete, 0),
    L(durability_complete, IDEM_DURABILITY_SYNC + 1),
    L(flush_interval_ms, 0),
    L(flush_interval_ms, 10001),
    L(log_wait_ms, 99),
    L(log_wait_ms, 600001),
    L(floor_ms, -1),
    L(floor_ms, INT64_C(1) << 45),
    L(wal_dir, 'x'), /* no absolute path */
    FIELD(GENERATION, idem_generation_const, layout_major, IDEM_LAYOUT_MAJOR + 1, IDEM_E_VERSION),
    G(uuid, 1),
    G(number, 2),
    G(file_bytes, 4096),
    G(region_shift, 15),
    G(region_shift, 23),
    G(region_shift, 22), /* more than the file has */
    G(region_count, 0),
    G(region_count, UINT32_MAX),
    G(bucket_count, 1),
    G(bucket_count, UINT64_C(1) << 33),
    G(regions_off, 0),
    G(chunks_off, 0),
    G(arena_off, 0),
    G(arena_off, UINT64_C(1) << 39),
    G(arena_off, (UINT64_C(1) << 20) + 64), /* no page */
};

/* The part's first byte in its file; what is sealed, and the file, mapped. */
static uint8_t *map_part(enum part part, uint8_t **map, size_t *map_bytes, size_t *bytes)
{
    char path[300];
    struct stat st;
    snprintf(path, sizeof path, "%s", part == GENERATION ? support_file_of(dir, "gen-") : support_file_of(dir, "root"));
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    *map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(*map != MAP_FAILED);
    close(fd);
    *map_bytes = (size_t)st.st_size;
    *bytes = part == ROOT  ? sizeof(struct idem_root_const)
             : part == LOG ? sizeof(struct idem_log_const)
                           : sizeof(struct idem_generation_const);
    return *map + (part == ROOT  ? offsetof(struct idem_root_shm, fixed)
                   : part == LOG ? offsetof(struct idem_root_shm, log)
                                 : offsetof(struct idem_generation_shm, fixed));
}

static void seal(uint8_t *at, size_t bytes)
{
    uint64_t sum = XXH3_64bits(at, bytes - 8);
    memcpy(at + bytes - 8, &sum, 8);
}

static void make_store(bool with_log)
{
    snprintf(dir, sizeof dir, "%s", support_dir());
    snprintf(wal, sizeof wal, "%s", support_dir());
    idem_options o = support_options(16);
    o.wal_dir = with_log ? wal : NULL;
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_close(support_open(dir, &o));
}

static void is_refused(const char *field, uint64_t value, int code, const char *file)
{
    idem_store *s = NULL;
    idem_report report = IDEM_REPORT_INIT;
    int e = idem_open(dir, NULL, &s);
    if (e != code)
        print_error("%s = %llu\n", field, (unsigned long long)value);
    CHECK_IS(e, code);
    CHECK(s == NULL);
    CHECK(strstr(idem_error_detail(), dir) != NULL && strstr(idem_error_detail(), file) != NULL);
    CHECK_IS(idem_verify(dir, &report), code);
}

static void each_constant_of_a_store_has_its_bounds(void **state)
{
    (void)state;
    make_store(true);
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        const struct outside *o = &outside[i];
        uint8_t *map, was[sizeof(struct idem_log_const)];
        size_t map_bytes, bytes;
        uint8_t *at = map_part(o->part, &map, &map_bytes, &bytes);
        memcpy(was, at, bytes);
        memcpy(at + o->at, &o->value, o->bytes < 8 ? o->bytes : 8);
        seal(at, bytes);
        is_refused(o->field, o->value, o->code, o->part == GENERATION ? "gen-" : "root");
        memcpy(at, was, bytes);
        munmap(map, map_bytes);
        idem_close(support_attach(dir));
    }
}

static void a_path_of_a_log_without_an_end_is_refused(void **state)
{
    (void)state;
    make_store(true);
    uint8_t *map;
    size_t map_bytes, bytes;
    uint8_t *at = map_part(LOG, &map, &map_bytes, &bytes);
    memset(at + offsetof(struct idem_log_const, wal_dir), '/', IDEM_WAL_DIR_BYTES);
    is_refused("wal_dir", '/', IDEM_E_CORRUPT, "root"); /* its checksum */
    seal(at, bytes);
    is_refused("wal_dir", '/', IDEM_E_CORRUPT, "root");
    munmap(map, map_bytes);
    CHECK_IS(idem_destroy(dir), IDEM_OK); /* nothing says where its log is: that stays */
    CHECK_IS(access(wal, F_OK), 0);
}

/* A store without a log says so in two places. */
static void a_log_that_is_half_there_is_refused(void **state)
{
    (void)state;
    make_store(false);
    uint8_t *map;
    size_t map_bytes, bytes;
    uint8_t *at = map_part(ROOT, &map, &map_bytes, &bytes);
    uint64_t feature = IDEM_FEATURE_LOG;
    memcpy(at + offsetof(struct idem_root_const, features_required), &feature, sizeof feature);
    seal(at, bytes);
    is_refused("features_required", feature, IDEM_E_CORRUPT, "root");
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    munmap(map, map_bytes);
}

static void what_is_no_generation_of_this_store_is_refused(void **state)
{
    (void)state;
    make_store(false);
    uint8_t *map;
    size_t map_bytes, bytes;
    map_part(GENERATION, &map, &map_bytes, &bytes);
    map[0] ^= 1; /* its magic */
    is_refused("magic", 0, IDEM_E_CORRUPT, "gen-");
    map[0] ^= 1;
    char path[300], other[300];
    snprintf(path, sizeof path, "%s", support_file_of(dir, "gen-"));
    snprintf(other, sizeof other, "%s/elsewhere", dir);
    CHECK_IS(rename(path, other), 0);
    is_refused("name", 0, IDEM_E_CORRUPT, "missing");
    CHECK_IS(rename(other, path), 0);
    idem_close(support_attach(dir));
    munmap(map, map_bytes);
}

/* They go with each other, and with the file, most of which is a hole: but no address reaches so far. Or the file lacks a page. */
static void a_generation_of_another_size_than_a_store_can_have(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        make_store(false);
        uint8_t *map;
        size_t map_bytes, bytes;
        struct idem_generation_const g;
        uint8_t *at = map_part(GENERATION, &map, &map_bytes, &bytes);
        memcpy(&g, at, sizeof g);
        if (i == 0) {
            g.file_bytes = (UINT64_C(1) << 40) + 4096;
        } else if (i == 1) {
            g.file_bytes -= 4096;
        } else {
            g.region_shift = 22;
            g.chunk_shift = 18;
            g.region_count = (UINT64_C(1) << (IDEM_ADDRESS_BITS + 4 - 22)) + 1;
            g.chunks_off = g.regions_off + g.region_count * sizeof(struct idem_region_shm);
            g.arena_off = g.chunks_off + g.region_count * IDEM_REGION_CHUNKS * sizeof(struct idem_chunk_shm);
            g.arena_off = (g.arena_off + 4095) / 4096 * 4096;
            g.file_bytes = g.arena_off + (g.region_count << g.region_shift);
        }
        memcpy(at, &g, sizeof g);
        seal(at, bytes);
        CHECK_IS(truncate(support_file_of(dir, "gen-"), (off_t)g.file_bytes), 0);
        is_refused("file_bytes", g.file_bytes, IDEM_E_CORRUPT, "gen-");
        munmap(map, map_bytes);
        support_remove(dir);
    }
}

/* ------------------------------------------------------------------ the log's headers */

#define FILE_IS(field, value, how)                 \
    do {                                           \
        struct idem_file_rec f = a_file(), g;      \
        f.field = (value);                         \
        idem_file_encode(&f, head);                \
        CHECK_IS(idem_file_decode(head, &g), how); \
    } while (0)

static void each_number_of_a_file_header_has_its_bounds(void **state)
{
    (void)state;
    uint8_t head[IDEM_WAL_HEADER_BYTES];
    FILE_IS(number, 7, FORMAT_OK);
    FILE_IS(number, 0, FORMAT_LENGTH);
    FILE_IS(prev_number, 7, FORMAT_LENGTH);
    FILE_IS(oldest, 0, FORMAT_LENGTH);
    FILE_IS(oldest, 8, FORMAT_LENGTH);
    FILE_IS(oldest, 7, FORMAT_OK);
    FILE_IS(base, (1 << 20) + 1, FORMAT_LENGTH);
    FILE_IS(prev_end, (1 << 20) - 1, FORMAT_LENGTH);
    FILE_IS(prev_end, (1 << 20) + 64, FORMAT_LENGTH);
    FILE_IS(prev_end, 1 << 20, FORMAT_OK);
    FILE_IS(bytes, 8193, FORMAT_LENGTH);
    FILE_IS(bytes, IDEM_WAL_HEADER_BYTES, FORMAT_LENGTH);
    FILE_IS(bytes, IDEM_WAL_POSITION_MAX, FORMAT_LENGTH);
    FILE_IS(base, IDEM_WAL_POSITION_MAX - 8192, FORMAT_LENGTH);
    FILE_IS(ceiling_ms, -1, FORMAT_LENGTH);
    FILE_IS(ceiling_ms, IDEM_WAL_TIME_MAX + 1, FORMAT_LENGTH);
    FILE_IS(ceiling_ms, IDEM_WAL_TIME_MAX, FORMAT_OK);
    FILE_IS(major, IDEM_WAL_MAJOR + 1, FORMAT_UNKNOWN);
}

static void each_number_of_a_batch_header_has_its_bounds(void **state)
{
    (void)state;
    static const struct idem_batch_rec good = {2, 1 << 20, 0, 640, 3, 1, 2, 3};
    const struct {
        uint32_t bytes, records;
        uint64_t durable, room;
        enum idem_format how;
    } cases[] = {
        {640, 9, 0, 640, FORMAT_OK},
        {640, 10, 0, 640, FORMAT_LENGTH}, /* more records than grains */
        {640, 3, 1 << 20, 640, FORMAT_OK},
        {640, 3, (1 << 20) + 64, 640, FORMAT_LENGTH}, /* durable before it was written */
        {641, 3, 0, 1024, FORMAT_LENGTH},
        {0, 0, 0, 640, FORMAT_LENGTH},
        {704, 3, 0, 640, FORMAT_LENGTH}, /* beyond the file's end */
        {IDEM_WAL_BATCH_MAX + 64, 3, 0, UINT64_MAX, FORMAT_LENGTH},
        {640, 3, 0, IDEM_WAL_BATCH_BYTES - 1, FORMAT_LENGTH},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t bytes[IDEM_WAL_BATCH_BYTES];
        struct idem_batch_rec b = good, back;
        b.bytes = cases[i].bytes;
        b.records = cases[i].records;
        b.durable = cases[i].durable;
        idem_batch_encode(&b, SALT, bytes);
        CHECK_IS(idem_batch_decode(bytes, SALT, 1 << 20, cases[i].room, &back), cases[i].how);
    }
}

static void an_id_of_another_version_is_not_known(void **state)
{
    (void)state;
    uint8_t sector[IDEM_WAL_SECTOR_BYTES];
    struct idem_log_id_rec id = {IDEM_WAL_MAJOR + 1, 0, 9, {1}, {2}, 7, 0}, back;
    idem_log_id_encode(&id, sector);
    CHECK_IS(idem_log_id_decode(sector, &back), FORMAT_UNKNOWN);
}

/* ------------------------------------------------------------------ records */

#define ROOM 4096u

/* Bytes that a record starts with, sealed anew. */
static enum idem_format decode_sealed(uint8_t *bytes, uint64_t n)
{
    struct idem_rec back;
    uint64_t used, sum = XXH3_64bits_withSeed(bytes + 8, n - 8, SALT);
    memcpy(bytes, &sum, 8);
    return idem_rec_decode(bytes, n, SALT, 64, &back, &used);
}

static void a_claim_is_never_in_a_state_of_something_else(void **state)
{
    (void)state;
    for (unsigned s = 0; s < 16; s++) {
        uint8_t bytes[ROOM];
        struct idem_rec r = {
            .kind = REC_CLAIM, .state = (uint8_t)s, .position = 64, .key = (const uint8_t *)"k", .key_bytes = 1};
        uint64_t n = idem_rec_encode(&r, SALT, bytes);
        bool fits = s != REC_NO_STATE && s != REC_COMPLETED && s < REC_GONE;
        CHECK_IS(decode_sealed(bytes, n), fits ? FORMAT_OK : FORMAT_LENGTH);
        r.kind = REC_FORGOTTEN;
        n = idem_rec_encode(&r, SALT, bytes);
        CHECK_IS(decode_sealed(bytes, n), s == REC_GONE ? FORMAT_OK : FORMAT_LENGTH);
    }
}

static void a_record_that_is_too_long_can_not_be_written(void **state)
{
    (void)state;
    struct idem_rec answer = {
        .kind = REC_RESPONSE, .state = REC_COMPLETED, .key = (const uint8_t *)"k", .key_bytes = 1};
    struct idem_rec r = answer;
    r.more_bytes = (1u << 29) + 1;
    CHECK_IS(idem_rec_bytes(&r), 0);
    r = answer;
    r.meta_bytes = (1u << 29) + 1;
    CHECK_IS(idem_rec_bytes(&r), 0);
    r = answer;
    r.meta_bytes = r.body_bytes = 1u << 29; /* each would do, both together are more than a batch */
    CHECK_IS(idem_rec_bytes(&r), 0);
    r = answer;
    r.kind = REC_CLAIM;
    r.mark_bytes = IDEM_WAL_KEY_MAX + 1;
    CHECK_IS(idem_rec_bytes(&r), 0);
    r = answer;
    r.scope_bytes = 2;
    CHECK_IS(idem_rec_bytes(&r), 0);
    r = answer;
    r.kind = REC_RETAIN; /* it has no key */
    CHECK_IS(idem_rec_bytes(&r), 0);
    r.kind = REC_KINDS;
    CHECK_IS(idem_rec_bytes(&r), 0);
}

static void a_record_that_is_shorter_than_its_kind_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[ROOM] = {0};
    bytes[8] = IDEM_WAL_FIXED_BYTES; /* of a claim, too few for a tombstone */
    bytes[12] = REC_TOMBSTONE;
    bytes[13] = REC_COMPLETED;
    bytes[16] = 64;
    CHECK_IS(decode_sealed(bytes, 128), FORMAT_LENGTH);
}

static void each_way_of_being_wrong_has_words(void **state)
{
    (void)state;
    for (int f = FORMAT_OK; f <= FORMAT_UNKNOWN; f++)
        for (int g = FORMAT_OK; g < f; g++)
            CHECK(strcmp(idem_format_words((enum idem_format)f), idem_format_words((enum idem_format)g)) != 0);
    CHECK(strlen(idem_format_words((enum idem_format)(FORMAT_UNKNOWN + 1))) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_constant_of_a_store_has_its_bounds),
        cmocka_unit_test(a_path_of_a_log_without_an_end_is_refused),
        cmocka_unit_test(a_log_that_is_half_there_is_refused),
        cmocka_unit_test(what_is_no_generation_of_this_store_is_refused),
        cmocka_unit_test(a_generation_of_another_size_than_a_store_can_have),
        cmocka_unit_test(each_number_of_a_file_header_has_its_bounds),
        cmocka_unit_test(each_number_of_a_batch_header_has_its_bounds),
        cmocka_unit_test(an_id_of_another_version_is_not_known),
        cmocka_unit_test(a_claim_is_never_in_a_state_of_something_else),
        cmocka_unit_test(a_record_that_is_too_long_can_not_be_written),
        cmocka_unit_test(a_record_that_is_shorter_than_its_kind_is_refused),
        cmocka_unit_test(each_way_of_being_wrong_has_words),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
