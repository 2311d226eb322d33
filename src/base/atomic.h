/*
 * base/atomic.h - atomics whose order stands in the name.
 *
 * Owns: the only atomic operations of the project. A shared word sits in a struct, so that a plain read of it does not
 * compile. Every call with an order other than relaxed carries the tag of its pair (see order.h) where it is made.
 * Works on memory shared between processes: all types are lock-free and address-free on the targets we build for.
 */
#ifndef IDEM_BASE_ATOMIC_H
#define IDEM_BASE_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

struct idem_a64 {
    uint64_t word;
};

struct idem_a32 {
    uint32_t word;
};

_Static_assert(__GCC_ATOMIC_LLONG_LOCK_FREE == 2,
               "64-bit atomics must be lock-free: they are shared between processes");
_Static_assert(sizeof(struct idem_a64) == 8, "a shared word has no padding");

static inline uint64_t load_relaxed(const struct idem_a64 *a)
{
    return __atomic_load_n(&a->word, __ATOMIC_RELAXED);
}
static inline uint64_t load_acquire(const struct idem_a64 *a)
{
    return __atomic_load_n(&a->word, __ATOMIC_ACQUIRE);
}
static inline uint64_t load_seq_cst(const struct idem_a64 *a)
{
    return __atomic_load_n(&a->word, __ATOMIC_SEQ_CST);
}

static inline void store_relaxed(struct idem_a64 *a, uint64_t v)
{
    __atomic_store_n(&a->word, v, __ATOMIC_RELAXED);
}
static inline void store_release(struct idem_a64 *a, uint64_t v)
{
    __atomic_store_n(&a->word, v, __ATOMIC_RELEASE);
}
static inline void store_seq_cst(struct idem_a64 *a, uint64_t v)
{
    __atomic_store_n(&a->word, v, __ATOMIC_SEQ_CST);
}

/* On failure *expected holds what was seen, with acquire. */
static inline bool cas_acq_rel(struct idem_a64 *a, uint64_t *expected, uint64_t desired)
{
    return __atomic_compare_exchange_n(&a->word, expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static inline bool cas_seq_cst(struct idem_a64 *a, uint64_t *expected, uint64_t desired)
{
    return __atomic_compare_exchange_n(&a->word, expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline bool cas_relaxed(struct idem_a64 *a, uint64_t *expected, uint64_t desired)
{
    return __atomic_compare_exchange_n(&a->word, expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static inline uint64_t add_relaxed(struct idem_a64 *a, uint64_t n)
{
    return __atomic_fetch_add(&a->word, n, __ATOMIC_RELAXED);
}

/* TSan does not know fences; it sees the words, which are atomic, so nothing is lost by telling it nothing. */
#if defined(__SANITIZE_THREAD__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif
static inline void fence_acquire(void)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
}
static inline void fence_release(void)
{
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static inline void fence_seq_cst(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static inline void prefetch(const void *p)
{
    __builtin_prefetch(p, 0, 3);
}
static inline void prefetch_write(const void *p)
{
    __builtin_prefetch(p, 1, 3);
}

/* For what has to be part of its caller, so that the compiler sees the whole of a fast path. */
#define INLINE      static inline __attribute__((always_inline))
#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#endif
