/*
 * base/futex.h - sleeping on a shared word.
 *
 * Owns: the futex calls. Shared (not private) futexes: the word lies in a file that several processes map. As a rule a wake wakes all: waking
 * one is lost if that one is dead or stopped; who wakes fewer says why that is enough. Waits are bounded by the caller and may end early for
 * any reason. None is a cancellation point.
 */
#ifndef IDEM_BASE_FUTEX_H
#define IDEM_BASE_FUTEX_H

#include <limits.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/clock.h"

/* A test may let time pass instead. */
static inline bool idem_futex_slept(int64_t timeout_ms)
{
#ifdef IDEM_TESTING
    return idem_sleep_hook != NULL && idem_sleep_hook(timeout_ms);
#else
    (void)timeout_ms;
    return false;
#endif
}

/* The low half of a 64-bit word. */
static inline uint32_t *idem_futex_half(struct idem_a64 *a)
{
    return (uint32_t *)(void *)a + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

static inline void idem_futex_wait(struct idem_a64 *a, uint64_t expected, int64_t timeout_ms)
{
    if (idem_futex_slept(timeout_ms))
        return;
    struct timespec t = {.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1000000};
    syscall(SYS_futex, idem_futex_half(a), FUTEX_WAIT, (uint32_t)expected, &t, NULL, 0);
}

/* As idem_futex_wait(), woken only by who wakes one of these bits, or all. bits is not 0. */
static inline void idem_futex_wait_bits(struct idem_a64 *a, uint64_t expected, int64_t timeout_ms, uint32_t bits)
{
    if (idem_futex_slept(timeout_ms))
        return;
    struct timespec t; /* this call's timeout is a moment of CLOCK_MONOTONIC */
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += timeout_ms / 1000;
    t.tv_nsec += timeout_ms % 1000 * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    syscall(SYS_futex, idem_futex_half(a), FUTEX_WAIT_BITSET, (uint32_t)expected, &t, NULL, bits);
}

/* At most `most` of those who wait for one of these bits. */
static inline void idem_futex_wake_bits(struct idem_a64 *a, int most, uint32_t bits)
{
    syscall(SYS_futex, idem_futex_half(a), FUTEX_WAKE_BITSET, most, NULL, NULL, bits);
}

static inline void idem_futex_wake_all(struct idem_a64 *a)
{
    syscall(SYS_futex, idem_futex_half(a), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

#endif
