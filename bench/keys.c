/*
 * keys.c - see keys.h.
 */
#include "keys.h"

#include <string.h>

/* splitmix64's finalizer: a bijection, so different ids give different keys. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

/* The eight hexadecimal digits of x, spread over the bytes of a word: half, quarter, nibble; then '0' or 'a' - 10 added. */
static uint64_t hex8(uint64_t x)
{
    x = (x | x << 16) & UINT64_C(0x0000FFFF0000FFFF);
    x = (x | x << 8) & UINT64_C(0x00FF00FF00FF00FF);
    x = (x | x << 4) & UINT64_C(0x0F0F0F0F0F0F0F0F);
    uint64_t letters = ((x + UINT64_C(0x0606060606060606)) >> 4) & UINT64_C(0x0101010101010101);
    return x + UINT64_C(0x3030303030303030) + letters * ('a' - '0' - 10);
}

void key_text(uint64_t id, unsigned char text[KEY_BYTES])
{
    unsigned char digits[32];
    uint64_t high = mix(id);
    uint64_t low = mix(high);
    uint64_t words[4] = {hex8(high >> 32), hex8(high & UINT32_MAX), hex8(low >> 32), hex8(low & UINT32_MAX)};
    memcpy(digits, words, sizeof digits);
    memset(text, '-', KEY_BYTES);
    memcpy(text, digits, 8);
    memcpy(text + 9, digits + 8, 4);
    memcpy(text + 14, digits + 12, 4);
    memcpy(text + 19, digits + 16, 4);
    memcpy(text + 24, digits + 20, 12);
}

struct order order_of(uint64_t n, uint64_t salt)
{
    unsigned bits = 2;
    while (bits < 62 && (UINT64_C(1) << bits) < n)
        bits += 2;
    return (struct order){.n = n, .mask = (UINT64_C(1) << bits / 2) - 1, .salt = salt, .half_bits = bits / 2};
}

/* Four rounds of a Feistel network over the next even power of two; what falls outside 0 .. n-1 goes round again. */
uint64_t order_at(const struct order *o, uint64_t i)
{
    do {
        uint64_t left = i >> o->half_bits;
        uint64_t right = i & o->mask;
        for (uint64_t round = 0; round < 4; round++) {
            uint64_t next = left ^ (mix(right + o->salt + (round << 40)) & o->mask);
            left = right;
            right = next;
        }
        i = (left << o->half_bits) | right;
    } while (i >= o->n);
    return i;
}
