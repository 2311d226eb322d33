/*
 * keys.h - the keys that are measured: 36-byte text that looks like a UUID, made from a counter, and an order that looks
 * random. Made in blocks outside the measured part; nothing is stored for it.
 */
#ifndef BENCH_KEYS_H
#define BENCH_KEYS_H

#include <stddef.h>
#include <stdint.h>

#define KEY_BYTES 36u

/* Key number id, the same bytes for the same id; not terminated. */
void key_text(uint64_t id, unsigned char text[KEY_BYTES]);

/* A permutation of 0 .. n-1, computed, not stored. */
struct order {
    uint64_t n;
    uint64_t mask;
    uint64_t salt;
    unsigned half_bits;
};
struct order order_of(uint64_t n, uint64_t salt);
uint64_t order_at(const struct order *o, uint64_t i);

#endif
