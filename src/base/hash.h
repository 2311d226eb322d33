/*
 * base/hash.h - XXH3 with the store's secret, so that clients cannot aim at buckets.
 *
 * Scope and key are framed: the scope's length is mixed in after hashing their concatenation, so ("a","bc") and ("ab","c")
 * lie apart although the bytes in a row are the same.
 */
#ifndef IDEM_BASE_HASH_H
#define IDEM_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define IDEM_SECRET_BYTES 192u

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wshadow"
#endif
#define XXH_INLINE_ALL
#include <xxhash.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

static inline uint64_t idem_hash_key(const uint8_t *secret, const void *framed, size_t bytes, size_t scope_bytes)
{
    uint64_t h = XXH3_64bits_withSecret(framed, bytes, secret, IDEM_SECRET_BYTES);
    return h ^ ((uint64_t)scope_bytes * UINT64_C(0x9E3779B97F4A7C15));
}

#endif
