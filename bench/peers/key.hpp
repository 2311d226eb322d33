/*
 * key.hpp - a key as C++ tables want one: a value with equality and a hash (XXH3, as everybody's).
 */
#ifndef BENCH_PEER_KEY_HPP
#define BENCH_PEER_KEY_HPP

#include <cstddef>
#include <cstring>

#include "hash.h"

struct key36 {
    unsigned char text[PEER_KEY_BYTES];

    bool operator==(const key36 &other) const { return std::memcmp(text, other.text, sizeof text) == 0; }
};

struct key_hash {
    std::size_t operator()(const key36 &key) const { return hash_key(key.text); }
};

/* The i-th key of a block, where it lies: no copy before the table makes one. */
static inline const key36 &key_at(const peer_work *w, std::size_t i)
{
    return *reinterpret_cast<const key36 *>(peer_key(w, i));
}

#endif
