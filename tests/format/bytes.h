/*
 * tests/format/bytes.h - little-endian words at offsets, and whole files: what the encoder and the decoder of the layout share. Nothing of
 * the library.
 */
#ifndef TESTS_FORMAT_BYTES_H
#define TESTS_FORMAT_BYTES_H

#include <stddef.h>
#include <stdint.h>

/* A file of the store, in memory. */
struct file {
    uint8_t *at;
    size_t bytes;
};

static inline uint64_t get(const uint8_t *at, size_t offset, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)at[offset + i] << (8 * i);
    return v;
}

static inline uint64_t bits(uint64_t v, unsigned from, unsigned n)
{
    return v >> from & ((UINT64_C(1) << n) - 1);
}

#endif
