/*
 * floor.c - see floor.h. A change to what is measured here stands alone in its commit.
 */
#include "floor.h"

#include <string.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wshadow"
#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>
#pragma GCC diagnostic pop

enum { LINE_BYTES = 64, SECRET_BYTES = 192, BATCH_MAX = 64, AHEAD_BYTES = 2048 };

/* Not a secret: any 192 bytes cost the same. Filled by floor_create(). */
static unsigned char secret[SECRET_BYTES];

/* What is written for a claim and a record beside the key; the caller's body is as hot as this in both. */
static unsigned char facts[FLOOR_CLAIM_BYTES];
static unsigned char body[FLOOR_RESPONSE_BYTES];

static inline XXH128_hash_t hash_of(const unsigned char *key)
{
    return XXH3_128bits_withSecret(key, FLOOR_KEY_BYTES, secret, SECRET_BYTES);
}

__extension__ typedef unsigned __int128 wide;

/* Multiply and shift: an even choice of one of n without a division. */
static inline uint64_t pick(uint64_t hash, uint64_t n)
{
    return (uint64_t)(((wide)hash * n) >> 64);
}

/* The one of the line's words that stands for the slot. */
static inline uint64_t *word_of(const struct floor *f, uint64_t hash)
{
    unsigned char *line = f->index + pick(hash, f->lines) * LINE_BYTES;
    return (uint64_t *)(void *)line + (hash & 7);
}

/* One lock cmpxchg. Whether it succeeds does not change what it costs. */
static inline uint64_t swap_word(uint64_t *word, uint64_t expected, uint64_t wanted)
{
    __atomic_compare_exchange_n(word, &expected, wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return expected;
}

static inline void write_claim(struct floor *f, const unsigned char *key, uint64_t at)
{
    unsigned char *to = f->claims + at * FLOOR_CLAIM_BYTES;
    memcpy(to, facts, FLOOR_CLAIM_BYTES - FLOOR_KEY_BYTES);
    memcpy(to + FLOOR_CLAIM_BYTES - FLOOR_KEY_BYTES, key, FLOOR_KEY_BYTES);
}

/* ------------------------------------------------------------------ memory */

static uint64_t lines_for(uint64_t keys)
{
    return (keys * 2 + 6) / 7;
}

uint64_t floor_bytes(uint64_t keys, uint64_t wave)
{
    return place_rounded(lines_for(keys) * LINE_BYTES) + place_rounded(wave * FLOOR_CLAIM_BYTES) +
           place_rounded(keys * FLOOR_RECORD_BYTES);
}

int floor_create(struct floor *f, const struct place *p, uint64_t keys, uint64_t wave, bool huge, char *why,
                 size_t why_bytes)
{
    memset(f, 0, sizeof *f);
    for (unsigned i = 0; i < SECRET_BYTES; i++)
        secret[i] = (unsigned char)(i * 167 + 13);
    for (unsigned i = 0; i < FLOOR_CLAIM_BYTES; i++)
        facts[i] = (unsigned char)i;
    for (unsigned i = 0; i < FLOOR_RESPONSE_BYTES; i++)
        body[i] = (unsigned char)i;
    f->lines = lines_for(keys);
    f->claim_count = wave;
    f->record_count = keys;
    f->index = place_map(p, f->lines * LINE_BYTES, huge, why, why_bytes);
    f->claims = f->index ? place_map(p, wave * FLOOR_CLAIM_BYTES, huge, why, why_bytes) : NULL;
    f->records = f->claims ? place_map(p, keys * FLOOR_RECORD_BYTES, huge, why, why_bytes) : NULL;
    if (f->records)
        return 0;
    floor_free(f);
    return -1;
}

void floor_free(struct floor *f)
{
    place_unmap(f->index, f->lines * LINE_BYTES);
    place_unmap(f->claims, f->claim_count * FLOOR_CLAIM_BYTES);
    place_unmap(f->records, f->record_count * FLOOR_RECORD_BYTES);
    memset(f, 0, sizeof *f);
}

int floor_touch(const struct floor *f)
{
    if (place_touch(f->index, f->lines * LINE_BYTES) != 0 ||
        place_touch(f->claims, f->claim_count * FLOOR_CLAIM_BYTES) != 0)
        return -1;
    return place_touch(f->records, f->record_count * FLOOR_RECORD_BYTES);
}

/* ------------------------------------------------------------------ operations */

uint64_t floor_claim(struct floor *f, const unsigned char *keys, size_t n, uint64_t at)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *key = keys + i * FLOOR_KEY_BYTES;
        XXH128_hash_t h = hash_of(key);
        write_claim(f, key, at + i);
        sum += swap_word(word_of(f, h.high64), 0, h.low64);
    }
    return sum;
}

uint64_t floor_claim_many(struct floor *f, const unsigned char *keys, size_t n, size_t batch, uint64_t at)
{
    uint64_t sum = 0;
    uint64_t *words[BATCH_MAX];
    uint64_t wanted[BATCH_MAX];
    for (size_t first = 0; first < n; first += batch) {
        size_t count = n - first < batch ? n - first : batch;
        for (size_t i = 0; i < count; i++) {
            XXH128_hash_t h = hash_of(keys + (first + i) * FLOOR_KEY_BYTES);
            words[i] = word_of(f, h.high64);
            wanted[i] = h.low64;
            __asm__ volatile("prefetchw %0" : : "m"(*words[i])); /* the builtin gives a shared line without -mprfchw */
        }
        for (size_t i = 0; i < count; i++) {
            write_claim(f, keys + (first + i) * FLOOR_KEY_BYTES, at + first + i);
            sum += swap_word(words[i], 0, wanted[i]);
        }
    }
    return sum;
}

void floor_hashes(const unsigned char *keys, size_t n, uint64_t *hashes)
{
    for (size_t i = 0; i < n; i++)
        hashes[i] = hash_of(keys + i * FLOOR_KEY_BYTES).high64;
}

uint64_t floor_complete(struct floor *f, const uint64_t *hashes, size_t n, uint64_t claim_at, uint64_t record_at)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t *word = word_of(f, hashes[i]);
        uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);
        const unsigned char *claim = f->claims + (claim_at + i + (seen & f->zero)) * FLOOR_CLAIM_BYTES;
        unsigned char *to = f->records + (record_at + i) * FLOOR_RECORD_BYTES;
        for (unsigned line = 0; line < FLOOR_RECORD_BYTES; line += LINE_BYTES)
            __asm__ volatile("prefetchw %0" : : "m"(to[AHEAD_BYTES + line]));
        memcpy(to, claim, FLOOR_HEAD_BYTES);
        memcpy(to + FLOOR_HEAD_BYTES, body, FLOOR_RESPONSE_BYTES);
        sum += swap_word(word, seen, hashes[i] + 1);
    }
    return sum;
}

uint64_t floor_in_progress(struct floor *f, const unsigned char *keys, size_t n)
{
    uint64_t chain = 0;
    for (size_t i = 0; i < n; i++) {
        XXH128_hash_t h = hash_of(keys + i * FLOOR_KEY_BYTES + (chain & f->zero));
        uint64_t seen = __atomic_load_n(word_of(f, h.high64), __ATOMIC_RELAXED);
        const unsigned char *claim = f->claims + pick(h.low64 + (seen & f->zero), f->claim_count) * FLOOR_CLAIM_BYTES;
        uint64_t head;
        uint64_t tail;
        memcpy(&head, claim, sizeof head);
        memcpy(&tail, claim + FLOOR_CLAIM_BYTES - sizeof tail, sizeof tail);
        chain += head ^ tail;
    }
    return chain;
}

uint64_t floor_replay(struct floor *f, const unsigned char *keys, size_t n)
{
    uint64_t chain = 0;
    unsigned char reply[FLOOR_RESPONSE_BYTES];
    for (size_t i = 0; i < n; i++) {
        XXH128_hash_t h = hash_of(keys + i * FLOOR_KEY_BYTES + (chain & f->zero));
        uint64_t seen = __atomic_load_n(word_of(f, h.high64), __ATOMIC_RELAXED);
        const unsigned char *record =
            f->records + pick(h.low64 + (seen & f->zero), f->record_count) * FLOOR_RECORD_BYTES;
        uint64_t head;
        memcpy(&head, record, sizeof head);
        memcpy(reply, record + FLOOR_HEAD_BYTES, sizeof reply);
        __asm__ volatile("" : : "r"(reply) : "memory"); /* the copy must be made, not looked through */
        uint64_t last;
        memcpy(&last, reply + sizeof reply - sizeof last, sizeof last);
        chain += head ^ last;
    }
    return chain;
}

uint64_t floor_replay_many(struct floor *f, const unsigned char *keys, size_t n, size_t batch)
{
    uint64_t chain = 0;
    XXH128_hash_t hashes[BATCH_MAX];
    uint64_t *words[BATCH_MAX];
    const unsigned char *records[BATCH_MAX];
    unsigned char replies[BATCH_MAX][FLOOR_RESPONSE_BYTES];
    for (size_t first = 0; first < n; first += batch) {
        size_t count = n - first < batch ? n - first : batch;
        for (size_t i = 0; i < count; i++) {
            hashes[i] = hash_of(keys + (first + i) * FLOOR_KEY_BYTES + (chain & f->zero));
            words[i] = word_of(f, hashes[i].high64);
            __builtin_prefetch(words[i]);
        }
        for (size_t i = 0; i < count; i++) {
            uint64_t seen = __atomic_load_n(words[i], __ATOMIC_RELAXED);
            records[i] = f->records + pick(hashes[i].low64 + (seen & f->zero), f->record_count) * FLOOR_RECORD_BYTES;
            for (unsigned line = 0; line < FLOOR_RECORD_BYTES; line += LINE_BYTES)
                __builtin_prefetch(records[i] + line);
        }
        for (size_t i = 0; i < count; i++) {
            uint64_t head;
            memcpy(&head, records[i], sizeof head);
            memcpy(replies[i], records[i] + FLOOR_HEAD_BYTES, FLOOR_RESPONSE_BYTES);
            __asm__ volatile("" : : "r"(replies[i]) : "memory"); /* the copy must be made, not looked through */
            uint64_t last;
            memcpy(&last, replies[i] + FLOOR_RESPONSE_BYTES - sizeof last, sizeof last);
            chain += head ^ last;
        }
    }
    return chain;
}
