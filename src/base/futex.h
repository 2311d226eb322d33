/*
 * base/futex.h - sleeping on a shared word.
 *
 * Owns: the futex calls. Shared (not private) futexes: the word lies in a file that several processes map. Wake always wakes all: waking
 * one is lost if that one is dead or stopped. Waits are bounded by the caller and may end early for any reason. Neither is a
 * cancellation point.
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

/* The low half of a 64-bit word. */
static inline uint32_t *idem_futex_half(struct idem_a64 *a)
{
    return (uint32_t *)(void *)a + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

static inline void idem_futex_wait(struct idem_a64 *a, uint64_t expected, int64_t timeout_ms)
{
    struct timespec t = {.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1000000};
    syscall(SYS_futex, idem_futex_half(a), FUTEX_WAIT, (uint32_t)expected, &t, NULL, 0);
}

static inline void idem_futex_wake_all(struct idem_a64 *a)
{
    syscall(SYS_futex, idem_futex_half(a), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

#endif
