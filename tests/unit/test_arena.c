/*
 * tests/unit/test_arena.c - the small parts below the claim protocol: classes of lives, bytes in shared words, words and headers
 * packed and unpacked, entries written and read back, room that lies with other classes and lanes.
 */
#include "support/support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/reserve.h"
#include "base/hash.h"
#include "index/bucket.h"
#include "store/handle.h"

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

/* ------------------------------------------------------------------ room that lies with others */

static char dir[160];
static idem_store *s;
static struct idem_view *v;

static void open_store(uint32_t when_full)
{
    idem_options o = support_options(1000);
    snprintf(dir, sizeof dir, "%s", support_dir());
    o.response_bytes = 512;
    o.when_full = when_full;
    s = support_open(dir, &o);
    v = s->view;
}
static void over(void)
{
    idem_close(s);
    support_verify(dir);
    support_remove(dir);
}

static uint32_t day_region, ever_region;

/* By a lane of its own: what it has left of its chunks is not ours. */
static void *answer_elsewhere(void *unused)
{
    (void)unused;
    uint32_t *regions[] = {&day_region, &ever_region};
    for (unsigned i = 0; i < 2; i++) {
        idem_request rq = support_request(i == 0 ? "for a day" : "for ever");
        idem_claim c;
        rq.ttl_ms = i == 0 ? 86400000 : IDEM_FOREVER;
        CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
        CHECK_IS(support_complete(s, &c, 200, "x"), IDEM_OK);
        *regions[i] = word_region(v, load_relaxed(&v->buckets[c.place / 8].slots[c.place % 8]));
    }
    return NULL;
}
static void others_answer(uint32_t when_full)
{
    pthread_t t;
    open_store(when_full);
    CHECK_IS(support_begin(s, "a lane is ours, too", NULL), IDEM_CLAIMED);
    CHECK_IS(pthread_create(&t, NULL, answer_elsewhere, NULL), 0);
    CHECK_IS(pthread_join(t, NULL), 0);
    CHECK(day_region != ever_region);
}

/* The region that an answer of this class finds room in. */
static uint32_t reserved_in(struct idem_ctx *ctx, unsigned klass)
{
    struct idem_space space;
    int64_t now_ms = idem_view_now_ms(v);
    CHECK_IS(idem_arena_reserve(ctx, klass, FOR_ANSWER, 256, now_ms + 1000, now_ms, &space), IDEM_OK);
    idem_arena_emptied(ctx, space.unit); /* it is not published */
    idem_arena_leave(ctx);
    return (uint32_t)(space.unit * IDEM_UNIT_BYTES >> v->region_shift);
}

/* A store that evicts shares no regions as long as there is another way; at last it does, before an outcome stays without its body. */
static void where_answers_lie_that_nothing_is_evicted_for(void **state)
{
    (void)state;
    const unsigned a_day = idem_class_of(86400000), an_hour = idem_class_of(3600000);
    struct idem_op op;
    others_answer(IDEM_FULL_EVICT);
    CHECK_IS(idem_enter(s, &op), IDEM_OK);
    for (uint32_t i = 0; i < v->region_count; i++) { /* none is free */
        uint64_t was = load_relaxed(&v->regions[i].state);
        if (region_phase(was) == REGION_FREE)
            store_relaxed(&v->regions[i].state, was | REGION_RETIRING);
    }
    struct idem_a64 *open = v->generation->open;
    uint64_t kept[] = {load_relaxed(&open[CLASS_CLAIMS]), load_relaxed(&open[CLASS_NEVER]), load_relaxed(&open[a_day])};
    store_relaxed(&open[CLASS_NEVER], 0);
    CHECK_IS(reserved_in(&op.ctx, CLASS_NEVER), day_region);
    store_relaxed(&open[CLASS_NEVER], kept[1]);
    store_relaxed(&open[a_day], 0);
    CHECK_IS(reserved_in(&op.ctx, a_day), ever_region);
    store_relaxed(&open[CLASS_NEVER], 0);
    store_relaxed(&open[CLASS_CLAIMS], 0);
    uint32_t left = reserved_in(&op.ctx, an_hour);
    CHECK(left == day_region || left == ever_region);
    CHECK_IS(region_phase(load_relaxed(&v->regions[left].state)), REGION_SHARED);
    /* The sweep, too, finds nothing where nothing is. */
    uint64_t states[2] = {load_relaxed(&v->regions[day_region].state), load_relaxed(&v->regions[ever_region].state)};
    store_relaxed(&v->regions[day_region].state, (states[0] & ~UINT64_C(7)) | REGION_DRAINING);
    store_relaxed(&v->regions[ever_region].state, (states[1] & ~UINT64_C(7)) | REGION_DRAINING);
    struct idem_space none;
    int64_t now_ms = idem_view_now_ms(v);
    CHECK_IS(idem_arena_reserve(&op.ctx, CLASS_NEVER, FOR_SWEEP, 256, now_ms, now_ms, &none), IDEM_E_FULL);
    CHECK(!idem_arena_held(&op.ctx)); /* on their way back, and nobody is inside of them */
    store_relaxed(&v->regions[day_region].state, states[0]);
    store_relaxed(&v->regions[ever_region].state, states[1]);
    store_relaxed(&open[CLASS_CLAIMS], kept[0]);
    store_relaxed(&open[CLASS_NEVER], kept[1]);
    store_relaxed(&open[a_day], kept[2]);
    CHECK_IS(idem_leave(&op, IDEM_OK), IDEM_OK);
    over();
}

/* The region that another lane's answers for a day lie in. */
static struct {
    struct idem_op op;
    struct idem_region_shm *r;
    struct idem_chunk_shm *chunks;
    uint64_t meta, cursor, all_taken; /* all_taken: the cursor at its end */
    int64_t now_ms, later_ms;
    unsigned klass;
} day;
static void begin_day(void)
{
    others_answer(IDEM_FULL_REFUSE);
    CHECK_IS(idem_enter(s, &day.op), IDEM_OK);
    day.r = &v->regions[day_region];
    day.chunks = &v->chunks[day_region * v->region_chunks];
    day.meta = load_relaxed(&day.r->meta);
    day.cursor = load_relaxed(&day.r->cursor);
    day.all_taken = (day.cursor & ~LOW48) | UINT64_C(1) << v->region_shift;
    day.now_ms = idem_view_now_ms(v);
    day.later_ms = day.now_ms + 2 * 86400000;
    day.klass = idem_class_of(86400000);
}
static void end_day(void)
{
    CHECK_IS(idem_leave(&day.op, IDEM_OK), IDEM_OK);
    over();
}
static bool take_left(int64_t expiry_ms)
{
    struct idem_space space;
    bool found = idem_arena_take_left(&day.op.ctx, day.klass, day.klass, 64, expiry_ms, day.now_ms, &space);
    if (found)
        idem_arena_emptied(&day.op.ctx, space.unit); /* it is not published */
    return found;
}
static void set_phase(struct idem_region_shm *r, unsigned phase)
{
    store_relaxed(&r->state, (load_relaxed(&r->state) & ~UINT64_C(7)) | phase);
}
/* And back again: no entry begins at such offsets. */
static void make_spans_odd(void)
{
    for (uint32_t i = 0; i < v->region_chunks; i++)
        store_relaxed(&day.chunks[i].span, load_relaxed(&day.chunks[i].span) ^ 8);
}

/* A word that changes at a point of the call. */
static struct idem_a64 *word_at;
static uint64_t word_now;
static void change_it(void *unused)
{
    (void)unused;
    store_relaxed(word_at, word_now);
}
static void change_at(const char *point, struct idem_a64 *at, uint64_t now)
{
    word_at = at;
    word_now = now;
    support_at_point(point, 1, change_it, NULL);
}

static void what_words_say_of_another_life_does_not_count(void **state)
{
    (void)state;
    struct idem_survey survey = {0};
    uint32_t at = 0;
    begin_day();
    store_relaxed(&day.r->meta, day.meta ^ UINT64_C(1) << 48);
    CHECK(!take_left(day.now_ms));
    store_relaxed(&day.r->meta, day.meta);
    /* Nothing is left but what lanes have, and no entry begins there. */
    store_relaxed(&day.r->cursor, day.all_taken);
    make_spans_odd();
    CHECK(!take_left(day.now_ms));
    store_relaxed(&day.r->cursor, day.all_taken ^ UINT64_C(1) << 48);
    CHECK(take_left(day.now_ms));
    store_relaxed(&day.r->cursor, day.all_taken);
    make_spans_odd();
    CHECK(take_left(day.now_ms));
    /* Of a region that was just opened nothing was taken yet: it is not drained. */
    while (region_phase(load_relaxed(&v->regions[at].state)) != REGION_FREE)
        at++;
    struct idem_region_shm *fresh = &v->regions[at];
    uint64_t was = load_relaxed(&fresh->state);
    store_relaxed(&fresh->meta, (was >> 48) << 48 | (uint64_t)day.klass << 40);
    store_relaxed(&fresh->state, region_state(REGION_OPEN, day.later_ms, region_generation(was)));
    idem_arena_recycle(&day.op.ctx, &at, 1, 2, day.now_ms, &survey);
    CHECK(!survey.moved && region_phase(load_relaxed(&fresh->state)) == REGION_OPEN);
    store_relaxed(&fresh->state, was);
    end_day();
}

/* What lanes have left is looked at again when nobody can change it any more; and who is at work there keeps it. */
static void what_changes_before_what_is_left_is_taken(void **state)
{
    (void)state;
    begin_day();
    uint64_t high = load_relaxed(&v->root->lanes_high);
    struct idem_lane_shm *lane = &v->lanes[high];
    store_relaxed(&v->root->lanes_high, high + 1);
    store_relaxed(&lane->owner, v->process.owner);
    store_relaxed(&lane->hazard_write, (uint64_t)day_region + 1);
    CHECK(!take_left(day.now_ms) && region_phase(load_relaxed(&day.r->state)) == REGION_OPEN);
    store_relaxed(&lane->hazard_write, 0);
    change_at("region.sealed", &lane->hazard_write, (uint64_t)day_region + 1);
    CHECK(!take_left(day.now_ms) && region_phase(load_relaxed(&day.r->state)) == REGION_SEALED);
    store_relaxed(&lane->hazard_write, 0);
    store_relaxed(&lane->owner, 0);
    change_at("region.shared", &day.r->meta, day.meta + 1); /* it lives anew */
    CHECK(!take_left(day.now_ms) && load_relaxed(&day.r->meta) == day.meta + 1);
    store_relaxed(&day.r->meta, day.meta);
    make_spans_odd();
    set_phase(day.r, REGION_SEALED);
    change_at("region.shared", &day.r->cursor, day.all_taken);
    CHECK(!take_left(day.now_ms) && load_relaxed(&day.r->cursor) == day.all_taken);
    make_spans_odd();
    uint64_t shared = load_relaxed(&day.r->state);
    change_at("share.taken", &day.r->state, (shared & ~UINT64_C(7)) | REGION_DRAINING);
    CHECK(!take_left(day.later_ms));
    support_at_point(NULL, 0, NULL, NULL);
    store_relaxed(&day.r->state, shared);
    CHECK(take_left(day.later_ms) && region_expiry(load_relaxed(&day.r->state)) >= day.later_ms);
    end_day();
}

/* How few free regions are few grows with the store, up to what a look at them is to cost. */
static void free_regions_are_scarce_below_a_share_that_has_its_bounds(void **state)
{
    (void)state;
    static const struct {
        uint32_t regions, enough;
    } cases[] = {{16, 6}, {80, 14}, {504, 67}, {512, 68}, {2048, 69}, {59392, 97}, {61440, 98}, {100000, 98}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct idem_generation_shm counted = {.free_most = {0}};
        struct idem_view large = {.region_count = cases[i].regions, .generation = &counted};
        large.regions = calloc(cases[i].regions, sizeof *large.regions);
        CHECK(large.regions != NULL);
        for (uint32_t k = cases[i].enough; k < cases[i].regions; k++)
            set_phase(&large.regions[k], REGION_OPEN);
        CHECK(!idem_arena_scarce(&large));
        store_relaxed(&counted.free_most, cases[i].enough + 1); /* somebody has counted: so many, or one less */
        CHECK(!idem_arena_scarce(&large));
        store_relaxed(&counted.free_most, cases[i].enough);
        CHECK(idem_arena_scarce(&large));
        store_relaxed(&counted.free_most, 0);
        set_phase(&large.regions[0], REGION_OPEN);
        CHECK(idem_arena_scarce(&large));
        free(large.regions);
    }
}

/* A slot is not freed in the tick of its token (index/index.h, 5), not even to evict: then its entry is moved. */
static void an_answer_of_this_very_tick_is_moved_instead_of_evicted(void **state)
{
    (void)state;
    idem_claim c;
    for (unsigned later = 0; later < 2; later++) {
        open_store(IDEM_FULL_EVICT);
        support_clock_stand(true);
        CHECK_IS(support_begin(s, "k", &c), IDEM_CLAIMED);
        CHECK_IS(support_complete(s, &c, 200, "x"), IDEM_OK);
        struct idem_a64 *slot = &v->buckets[c.place / 8].slots[c.place % 8];
        uint32_t region = word_region(v, load_relaxed(slot));
        set_phase(&v->regions[region], REGION_EVICTING);
        if (later)
            support_clock_add(1);
        support_maintain(s);
        support_clock_stand(false);
        CHECK_IS(support_stats(s).evicted, later);
        CHECK(later ? load_relaxed(slot) == 0 : word_region(v, load_relaxed(slot)) != region);
        over();
    }
}

static void hints_that_point_nowhere(void **state)
{
    (void)state;
    open_store(IDEM_FULL_REFUSE);
    store_relaxed(&v->generation->free_from, UINT64_MAX);
    store_relaxed(&v->generation->open[idem_class_of(3600000)], UINT32_MAX);
    idem_request rq = support_request("for an hour");
    idem_claim c;
    rq.ttl_ms = 3600000;
    CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
    CHECK_IS(support_complete(s, &c, 200, "x"), IDEM_OK);
    CHECK(load_relaxed(&v->generation->free_from) < v->region_count);
    over();
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
        cmocka_unit_test(where_answers_lie_that_nothing_is_evicted_for),
        cmocka_unit_test(what_words_say_of_another_life_does_not_count),
        cmocka_unit_test(what_changes_before_what_is_left_is_taken),
        cmocka_unit_test(free_regions_are_scarce_below_a_share_that_has_its_bounds),
        cmocka_unit_test(an_answer_of_this_very_tick_is_moved_instead_of_evicted),
        cmocka_unit_test(hints_that_point_nowhere),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
