/*
 * tests/format/test_layout.c - layout 3.1, pinned: offsets as literals, and what the library writes, read by hand.
 *
 * The decoder below knows segment/layout.h and arena/entry.h by their text only: no struct, constant or function of the library is used in it
 * (but xxhash, which the text names). If one of these tests fails, stores of one version can't be read by the other: the layout's version has
 * to change with it. The other direction is in test_golden.c.
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

#include "arena/entry.h"
#include "segment/layout.h"

/* ------------------------------------------------------------------ offsets and sizes */

#define AT(type, field, offset) CHECK_IS(offsetof(struct type, field), offset)
#define SIZE(type, bytes)       CHECK_IS(sizeof(struct type), bytes)

static void shared_structs_lie_where_layout_3_1_says(void **state)
{
    (void)state;
    SIZE(idem_root_const, 448);
    AT(idem_root_const, layout_major, 0);
    AT(idem_root_const, layout_minor, 4);
    AT(idem_root_const, features_required, 8);
    AT(idem_root_const, features_optional, 16);
    AT(idem_root_const, uuid, 24);
    AT(idem_root_const, boot_id, 40);
    AT(idem_root_const, clock_base_ms, 80);
    AT(idem_root_const, created_ms, 88);
    AT(idem_root_const, ttl_ms, 96);
    AT(idem_root_const, lease_ms, 104);
    AT(idem_root_const, keys, 112);
    AT(idem_root_const, root_bytes, 120);
    AT(idem_root_const, group, 128);
    AT(idem_root_const, response_bytes, 136);
    AT(idem_root_const, when_full, 140);
    AT(idem_root_const, processes_max, 144);
    AT(idem_root_const, lanes_max, 148);
    AT(idem_root_const, secret, 152);
    AT(idem_root_const, reserved, 344);
    AT(idem_root_const, checksum, 440);
    SIZE(idem_root_shm, 2080);
    AT(idem_root_shm, magic, 0);
    AT(idem_root_shm, dead, 8);
    AT(idem_root_shm, generations, 16);
    AT(idem_root_shm, lanes_high, 24);
    AT(idem_root_shm, fixed, 32);
    AT(idem_root_shm, log_control, 480);
    AT(idem_root_shm, log, 992);
    SIZE(idem_log_const, 1088);
    AT(idem_log_const, instance, 0);
    AT(idem_log_const, durability_claim, 16);
    AT(idem_log_const, durability_complete, 20);
    AT(idem_log_const, flush_interval_ms, 24);
    AT(idem_log_const, log_wait_ms, 28);
    AT(idem_log_const, file_bytes, 32);
    AT(idem_log_const, ring_refs, 40);
    AT(idem_log_const, floor_ms, 48);
    AT(idem_log_const, wal_dir, 56);
    AT(idem_log_const, checksum, 1080);
    SIZE(idem_process_shm, 64);
    AT(idem_process_shm, incarnation, 0);
    AT(idem_process_shm, pid, 8);
    AT(idem_process_shm, since_ms, 16);
    SIZE(idem_lane_chunk_shm, 16);
    AT(idem_lane_chunk_shm, place, 0);
    AT(idem_lane_chunk_shm, life, 8);
    SIZE(idem_lane_shm, 512);
    AT(idem_lane_shm, owner, 0);
    AT(idem_lane_shm, hazard_write, 8);
    AT(idem_lane_shm, hazard_compare, 16);
    AT(idem_lane_shm, log_head, 24);
    AT(idem_lane_shm, log_flushed, 32);
    AT(idem_lane_shm, sweep, 40);
    AT(idem_lane_shm, log_overflow, 48);
    AT(idem_lane_shm, chunks, 64);
    AT(idem_lane_shm, counters, 256);
    SIZE(idem_generation_const, 128);
    AT(idem_generation_const, layout_major, 0);
    AT(idem_generation_const, layout_minor, 4);
    AT(idem_generation_const, uuid, 8);
    AT(idem_generation_const, number, 24);
    AT(idem_generation_const, file_bytes, 32);
    AT(idem_generation_const, bucket_count, 40);
    AT(idem_generation_const, region_count, 48);
    AT(idem_generation_const, region_shift, 56);
    AT(idem_generation_const, regions_off, 64);
    AT(idem_generation_const, chunks_off, 72);
    AT(idem_generation_const, arena_off, 80);
    AT(idem_generation_const, chunk_shift, 88);
    AT(idem_generation_const, checksum, 120);
    SIZE(idem_generation_shm, 1368);
    AT(idem_generation_shm, magic, 0);
    AT(idem_generation_shm, fixed, 64);
    AT(idem_generation_shm, cursor, 200);
    AT(idem_generation_shm, slots_counted, 208);
    AT(idem_generation_shm, slots_used, 216);
    AT(idem_generation_shm, answers_refused, 224);
    AT(idem_generation_shm, waiting, 232);
    AT(idem_generation_shm, freed_ms, 240);
    AT(idem_generation_shm, free_from, 248);
    AT(idem_generation_shm, left_from, 256);
    AT(idem_generation_shm, tight_claims, 264);
    AT(idem_generation_shm, open, 272);
    AT(idem_generation_shm, free_most, 1360);
    SIZE(idem_bucket_shm, 64);
    AT(idem_bucket_shm, header, 0);
    AT(idem_bucket_shm, slots, 8);
    SIZE(idem_region_shm, 64);
    AT(idem_region_shm, state, 0);
    AT(idem_region_shm, cursor, 8);
    AT(idem_region_shm, meta, 16);
    AT(idem_region_shm, drain, 24);
    SIZE(idem_chunk_shm, 64);
    AT(idem_chunk_shm, filled, 0);
    AT(idem_chunk_shm, emptied, 8);
    AT(idem_chunk_shm, span, 16);
}

static void fixed_numbers_are_those_of_layout_3_1(void **state)
{
    (void)state;
    CHECK_IS(IDEM_LAYOUT_MAJOR, 3);
    CHECK_IS(IDEM_LAYOUT_MINOR, 1);
    CHECK_IS(IDEM_ROOT_MAGIC, 0x31746f6f726d6469);
    CHECK_IS(IDEM_GENERATION_MAGIC, 0x316e65676d656469);
    CHECK_IS(IDEM_BUCKET_SLOTS, 7);
    CHECK_IS(IDEM_DISTANCE_MAX, 15);
    CHECK_IS(IDEM_REGION_CHUNKS, 16);
    CHECK_IS(IDEM_UNIT_BYTES, 16);
    CHECK_IS(IDEM_LANE_CHUNKS, 12);
    CHECK_IS(IDEM_CLASSES, 136);
    CHECK_IS(IDEM_COUNTERS, 24);
    CHECK_IS(IDEM_PROCESSES_OFF, 4096);
    CHECK_IS(IDEM_BUCKETS_OFF, 8192);
    CHECK_IS(IDEM_LOCK_OFF, 1099511627776);
    CHECK_IS(IDEM_SECRET_BYTES, 192);
    CHECK_IS(ENTRY_TIME_MAX, 35184372088831);
    CHECK_IS(ENTRY_RESPONSE_WORDS, 7);
    CHECK_IS(ENTRY_TRANSIENT_WORDS, 9);
    CHECK_IS(ENTRY_CLAIM_WORDS, 16);
}

/* ------------------------------------------------------------------ the decoder */

static struct file read_file(const char *dir, const char *name)
{
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    struct file f = {malloc((size_t)st.st_size), (size_t)st.st_size};
    CHECK(f.at != NULL);
    CHECK_IS(read(fd, f.at, f.bytes), f.bytes);
    close(fd);
    return f;
}

static int begin(idem_store *store, const char *scope, const char *key, uint64_t fingerprint, idem_claim *c,
                 idem_reply *r)
{
    idem_request rq = IDEM_REQUEST_INIT;
    rq.key = (idem_key){scope, strlen(scope), key, strlen(key)};
    rq.fingerprint = fingerprint;
    return idem_begin(store, &rq, c, r);
}

struct slot {
    uint64_t word;
    const uint8_t *entry;
    unsigned words; /* of its header */
};

/* Not inlined: gcc would warn of reads beyond short keys that never happen. */
static __attribute__((noinline)) uint64_t hash_of(const uint8_t *secret, const char *framed, size_t key_bytes,
                                                  size_t scope_bytes)
{
    return XXH3_64bits_withSecret(framed, key_bytes, secret, 192) ^ scope_bytes * UINT64_C(0x9E3779B97F4A7C15);
}

/* The only slot whose entry has this key. */
static struct slot find(const struct file *root, const struct file *gen, const char *scope, const char *key)
{
    struct slot found = {0, NULL, 0};
    const uint8_t *g = gen->at;
    uint64_t buckets = get(g, 104, 8), arena = get(g, 144, 8), regions = get(g, 128, 8), shift = get(g, 120, 8);
    size_t scope_bytes = strlen(scope), key_bytes = strlen(key);
    char framed[64];
    memcpy(framed, scope, scope_bytes);
    memcpy(framed + scope_bytes, key, key_bytes);
    uint64_t hash = hash_of(root->at + 184, framed, scope_bytes + key_bytes, scope_bytes);
    for (uint64_t b = 0; b < buckets; b++)
        for (unsigned s = 0; s < 7; s++) {
            uint64_t w = get(g, 8192 + 64 * b + 8 + 8 * s, 8);
            if (w == 0)
                continue;
            uint64_t unit = bits(w, 15, 33);
            const uint8_t *e = g + arena + unit * 16;
            uint64_t w0 = get(e, 0, 8);
            unsigned kind = (unsigned)bits(w0, 22, 3), words = kind == 1 ? 16 : kind == 4 ? 9 : 7;
            if (bits(w0, 0, 11) != scope_bytes + key_bytes || bits(w0, 11, 11) != scope_bytes ||
                memcmp(e + 8 * words, framed, scope_bytes + key_bytes) != 0)
                continue;
            CHECK(found.entry == NULL);
            found = (struct slot){w, e, words};
            uint64_t home = ((hash >> 32) * buckets) >> 32, distance = bits(w, 4, 4);
            CHECK_IS((home + distance) % buckets, b);
            CHECK_IS(bits(w, 8, 7), hash & 0x7f);
            uint64_t state = get(g, regions + 64 * (unit * 16 >> shift), 8);
            CHECK_IS(bits(w, 48, 16), bits(state, 48, 16));
            CHECK_IS(bits(state, 0, 3), 1);
            CHECK(distance <= bits(get(g, 8192 + 64 * home, 8), 8, 4));
        }
    CHECK(found.entry != NULL);
    return found;
}

static uint64_t word(const struct slot *s, unsigned i)
{
    return get(s->entry, 8 * i, 8);
}

static const uint8_t *payload(const struct slot *s)
{
    return s->entry + 8 * s->words + (bits(word(s, 0), 0, 11) + 7) / 8 * 8;
}

static void what_the_library_writes_is_read_by_hand(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_options o = support_options(16);
    o.processes = 4;
    o.lanes = 4;
    idem_store *store = support_open(dir, &o);
    int64_t wall_ms = (int64_t)time(NULL) * 1000;
    idem_claim paid, running, left, later, large;
    idem_reply none = IDEM_REPLY_INIT;
    CHECK_IS(begin(store, "shop", "paid", 99, &paid, &none), IDEM_CLAIMED);
    idem_response p = support_response(-7, "the body, longer than a word or two");
    p.meta = "some metadata";
    p.meta_bytes = 13;
    p.user_flags = 65535;
    p.ttl_ms = IDEM_FOREVER;
    CHECK_IS(idem_complete(store, &paid, &p), IDEM_OK);
    idem_request rq = support_request("running");
    rq.flags = IDEM_HOLD | IDEM_LEASE_ONLY;
    rq.fingerprint = 12345;
    rq.lease_ms = 7777;
    rq.ttl_ms = 88888;
    CHECK_IS(idem_begin(store, &rq, &running, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_mark(store, &running, "a mark", 6), IDEM_OK);
    CHECK_IS(begin(store, "", "left", 1, &left, &none), IDEM_CLAIMED);
    CHECK_IS(idem_abandon(store, &left, IDEM_NOTHING_HAPPENED), IDEM_OK);
    CHECK_IS(begin(store, "", "later", 1, &later, &none), IDEM_CLAIMED);
    CHECK_IS(idem_mark(store, &later, "the mark", 8), IDEM_OK);
    idem_response t = support_response(503, "later");
    t.flags = IDEM_RESPONSE_TRANSIENT;
    CHECK_IS(idem_complete(store, &later, &t), IDEM_OK);
    CHECK_IS(begin(store, "", "large", 1, &large, &none), IDEM_CLAIMED);
    p.body = calloc(1, 9000000);
    p.body_bytes = 9000000;
    CHECK(p.body != NULL);
    CHECK_IS(idem_complete(store, &large, &p), IDEM_TOMBSTONE);
    free((void *)(uintptr_t)p.body);
    uint64_t owner = 0;
    struct file root = read_file(dir, "root");
    for (unsigned i = 0; i < 4; i++) /* the only process that uses it */
        if (get(root.at, 4096 + 64 * i, 8) % 2 == 1)
            owner = get(root.at, 4096 + 64 * i, 8) << 16 | i;
    idem_close(store);

    CHECK(memcmp(root.at, "idmroot1", 8) == 0);
    CHECK_IS(get(root.at, 472, 8), XXH3_64bits(root.at + 32, 440));
    CHECK_IS(get(root.at, 32, 4), 3);
    CHECK_IS(get(root.at, 152, 8), root.bytes);
    CHECK_IS(get(root.at, 144, 8), 16);
    CHECK_IS(get(root.at, 176, 4), 4);
    char name[64] = "gen-";
    for (unsigned i = 0; i < 16; i++)
        snprintf(name + 4 + 2 * i, 3, "%02x", root.at[56 + i]);
    snprintf(name + 36, 3, "-%u", (unsigned)get(root.at, 16, 8));
    struct file gen = read_file(dir, name);
    CHECK(memcmp(gen.at, "idemgen1", 8) == 0);
    CHECK_IS(get(gen.at, 184, 8), XXH3_64bits(gen.at + 64, 120));
    CHECK_IS(get(gen.at, 96, 8), gen.bytes);
    CHECK(memcmp(gen.at + 72, root.at + 56, 16) == 0);

    struct slot s = find(&root, &gen, "shop", "paid");
    CHECK_IS(bits(s.word, 0, 4), 2);
    CHECK_IS(bits(word(&s, 0), 22, 3), 2);
    CHECK_IS(bits(word(&s, 0), 32, 32), 13);
    CHECK_IS(word(&s, 1), paid.token);
    CHECK_IS(word(&s, 2), 99);
    CHECK_IS(bits(word(&s, 3), 0, 48), 35184372088831); /* for ever */
    CHECK_IS(bits(word(&s, 3), 48, 16), 65535);
    CHECK_IS(word(&s, 4), 0);
    CHECK(bits(word(&s, 5), 0, 48) >= (uint64_t)wall_ms - 60000 &&
          bits(word(&s, 5), 0, 48) <= (uint64_t)wall_ms + 60000);
    CHECK(word(&s, 1) >> 16 <= bits(word(&s, 5), 0, 48) && (word(&s, 1) >> 16) + 60000 > bits(word(&s, 5), 0, 48));
    CHECK_IS(bits(word(&s, 5), 48, 16), 1);
    CHECK_IS((int32_t)bits(word(&s, 6), 0, 32), -7);
    CHECK_IS(bits(word(&s, 6), 32, 32), 35);
    CHECK(memcmp(payload(&s), "some metadatathe body, longer than a word or two", 48) == 0);

    s = find(&root, &gen, "", "running");
    CHECK_IS(bits(s.word, 0, 4), 1);
    CHECK_IS(bits(word(&s, 0), 22, 3), 1);
    CHECK_IS(bits(word(&s, 0), 25, 7), 3); /* HOLD and LEASE_ONLY */
    CHECK_IS(bits(word(&s, 0), 32, 32), 6);
    CHECK_IS(word(&s, 1), running.token);
    CHECK_IS(word(&s, 2), 12345);
    CHECK_IS(bits(word(&s, 3), 48, 16), 1); /* the mark was its first successor */
    uint64_t at_ms = bits(word(&s, 5), 0, 48);
    CHECK_IS(bits(word(&s, 3), 0, 48), at_ms + 88888);
    CHECK_IS(word(&s, 6) & 0x7f, bits(s.word, 8, 7));
    CHECK_IS(word(&s, 7), owner);
    CHECK_IS(word(&s, 8), at_ms + 7777);
    for (unsigned i = 9; i < 16; i++)
        CHECK_IS(word(&s, i), 0);
    CHECK(memcmp(payload(&s), "a mark", 6) == 0);

    s = find(&root, &gen, "", "left");
    CHECK_IS(bits(s.word, 0, 4), 3);
    CHECK_IS(bits(word(&s, 0), 22, 3), 1);
    CHECK_IS(word(&s, 1), left.token);

    s = find(&root, &gen, "", "later");
    CHECK_IS(bits(s.word, 0, 4), 3);
    CHECK_IS(bits(word(&s, 0), 22, 3), 4);
    CHECK_IS(word(&s, 7), 0);
    CHECK_IS(word(&s, 8), 8);
    CHECK(memcmp(payload(&s), "later\0\0\0the mark", 16) == 0);

    s = find(&root, &gen, "", "large");
    CHECK_IS(bits(s.word, 0, 4), 2);
    CHECK_IS(bits(word(&s, 0), 22, 3), 3);
    CHECK_IS(get(payload(&s), 0, 8), 13);
    CHECK_IS(get(payload(&s), 8, 8), 9000000);
    CHECK(get(payload(&s), 16, 8) != 0);
    free(root.at);
    free(gen.at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_structs_lie_where_layout_3_1_says),
        cmocka_unit_test(fixed_numbers_are_those_of_layout_3_1),
        cmocka_unit_test(what_the_library_writes_is_read_by_hand),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
