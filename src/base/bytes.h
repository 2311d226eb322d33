/*
 * base/bytes.h - bytes in shared memory, word by word; checked arithmetic.
 *
 * Owns: copying into and out of memory that others may change at the same time. All accesses are relaxed atomic words, or
 * instructions that the compiler doesn't look into, so that a torn read is a wrong value (found by validating the slot word
 * afterwards) and not a data race.
 * relaxed-in-this-file: the order is given by the slot word (P1, P3), never by the bytes.
 */
#ifndef IDEM_BASE_BYTES_H
#define IDEM_BASE_BYTES_H

#include <stddef.h>
#include <string.h>

#include "base/atomic.h"

static inline uint64_t round_up(uint64_t n, uint64_t power_of_two)
{
    return (n + power_of_two - 1) & ~(power_of_two - 1);
}

static inline uint64_t load_tail(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    memcpy(&v, p, n);
    return v;
}

/* The last n % 8 bytes of n, in a word. Where there are eight, what lies before is shifted out (little endian): no loop over single bytes. */
static inline uint64_t load_last(const uint8_t *bytes, size_t n)
{
    uint64_t v;
    if (n < 8)
        return load_tail(bytes, n);
    memcpy(&v, bytes + n - 8, 8);
    return v >> 8 * (8 - n % 8);
}

/* Sanitizers don't look into assembler: they get words. clang says in its own way that one is there. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define COPY_WORDS_ONLY
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define COPY_WORDS_ONLY
#endif
#endif

/* The part of n bytes that can be copied 32 at a time, at any address: a body of 256 bytes takes a third of the instructions then. Returns how
   many were copied. */
static inline size_t copy_wide(void *dst, const void *src, size_t n)
{
    size_t done = 0;
#if defined(__x86_64__) && !defined(COPY_WORDS_ONLY)
    for (; n - done >= 64; done += 64)
        __asm__ volatile("movups (%1,%2), %%xmm0\n\tmovups 16(%1,%2), %%xmm1\n\t"
                         "movups 32(%1,%2), %%xmm2\n\tmovups 48(%1,%2), %%xmm3\n\t"
                         "movups %%xmm0, (%0,%2)\n\tmovups %%xmm1, 16(%0,%2)\n\t"
                         "movups %%xmm2, 32(%0,%2)\n\tmovups %%xmm3, 48(%0,%2)"
                         :
                         : "r"(dst), "r"(src), "r"(done)
                         : "xmm0", "xmm1", "xmm2", "xmm3", "memory");
    if (n - done >= 32) {
        __asm__ volatile("movups (%1,%2), %%xmm0\n\tmovups 16(%1,%2), %%xmm1\n\t"
                         "movups %%xmm0, (%0,%2)\n\tmovups %%xmm1, 16(%0,%2)"
                         :
                         : "r"(dst), "r"(src), "r"(done)
                         : "xmm0", "xmm1", "memory");
        done += 32;
    }
#else
    (void)dst, (void)src, (void)n;
#endif
    return done;
}

/* Bytes to be written one piece after another into 8-byte aligned shared words; pad with zeros by idem_put_end(). */
struct idem_put {
    struct idem_a64 *at;
    uint64_t carry;
    unsigned carry_bytes;
};

static inline void idem_put_bytes(struct idem_put *p, const void *src, size_t n)
{
    const uint8_t *s = src;
    size_t whole = n;
    if (n == 0)
        return;
    if (p->carry_bytes != 0) {
        while (n > 0 && p->carry_bytes < 8) {
            p->carry |= (uint64_t)*s++ << (8 * p->carry_bytes++);
            n--;
        }
        if (p->carry_bytes < 8)
            return;
        store_relaxed(p->at++, p->carry);
        p->carry = 0;
        p->carry_bytes = 0;
    }
    size_t wide = copy_wide(p->at, s, n);
    p->at += wide / 8;
    s += wide;
    n -= wide;
    for (; n >= 8; n -= 8, s += 8) {
        uint64_t v;
        memcpy(&v, s, 8);
        store_relaxed(p->at++, v);
    }
    if (n == 0)
        return;
    if (whole >= 8) { /* as in load_last() */
        memcpy(&p->carry, s + n - 8, 8);
        p->carry >>= 8 * (8 - n);
    } else {
        p->carry = load_tail(s, n);
    }
    p->carry_bytes = (unsigned)n;
}

static inline void idem_put_end(struct idem_put *p)
{
    if (p->carry_bytes != 0)
        store_relaxed(p->at++, p->carry);
    p->carry = 0;
    p->carry_bytes = 0;
}

static inline void idem_copy_out(void *dst, const struct idem_a64 *src, size_t n)
{
    uint8_t *d = dst;
    size_t wide = copy_wide(d, src, n);
    d += wide;
    src += wide / 8;
    n -= wide;
    for (; n >= 8; n -= 8, d += 8, src++) {
        uint64_t v = load_relaxed(src);
        memcpy(d, &v, 8);
    }
    if (n > 0) {
        uint64_t v = load_relaxed(src);
        memcpy(d, &v, n);
    }
}

/* n bytes from s into shared words, the last one padded with zeros; n > 0. */
static inline void idem_put_padded(struct idem_a64 *at, const void *src, size_t n)
{
    const uint8_t *s = src;
    uint64_t v;
    size_t tail = n % 8;
    const uint8_t *end = s + n;
    size_t wide = copy_wide(at, s, n);
    at += wide / 8;
    s += wide;
    for (; s + 8 <= end; s += 8) {
        memcpy(&v, s, 8);
        store_relaxed(at++, v);
    }
    if (tail != 0)
        store_relaxed(at, load_last(src, n));
}

/* Zeros a small struct without a call or a string instruction (22 ns each here). bytes is a constant. */
static inline __attribute__((always_inline)) void zero_small(void *at, size_t bytes)
{
    char *p = at;
#pragma GCC unroll 16
    for (size_t i = 0; i < bytes / 16; i++)
        memset(p + i * 16, 0, 16);
    if (bytes % 16)
        memset(p + bytes - bytes % 16, 0, bytes % 16);
}

/* Compares n private bytes with shared words; the shared side's last word is padded with zeros. */
static inline bool idem_shared_equal(const struct idem_a64 *shared, const void *bytes, size_t n)
{
    const uint8_t *b = bytes, *end = b + n;
    uint64_t v;
    for (; b + 8 <= end; b += 8, shared++) {
        memcpy(&v, b, 8);
        if (load_relaxed(shared) != v)
            return false;
    }
    if (n % 8 == 0)
        return true;
    return load_relaxed(shared) == load_last(bytes, n);
}

#endif
