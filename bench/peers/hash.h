/*
 * hash.h - XXH3, inlined: what peers that take a hash from their user are given, since it is what idem and the floors use.
 */
#ifndef BENCH_PEER_HASH_H
#define BENCH_PEER_HASH_H

#include "peer.h"

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

static inline uint64_t hash_key(const unsigned char *key)
{
    return XXH3_64bits(key, PEER_KEY_BYTES);
}

#endif
