/*
 * base/clock.h - what time it is in a store.
 *
 * Owns: reading CLOCK_MONOTONIC_COARSE (5 ns, up to one tick behind, never backwards on one host) and the offset that a
 * time namespace puts on it. Fine and coarse clocks are never mixed: every time in a store comes from here.
 * Store time is milliseconds: the host's monotonic clock plus a base chosen at creation, so that it began as wall time and
 * no later step of the wall clock moves it.
 */
#ifndef IDEM_BASE_CLOCK_H
#define IDEM_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/atomic.h"

#ifdef IDEM_TESTING
/* What a test does to time. Points at memory that it may share between processes. */
struct idem_clock_test {
    struct idem_a64 stands_ms; /* the clock says this, the fine one too; 0: they go */
    struct idem_a64 skew_ms;   /* added to every reading */
    struct idem_a64 wall_ms;   /* the wall clock says this; 0: it goes */
};
extern const struct idem_clock_test *idem_clock_test;
/* Asked before anybody sleeps on a word: true if the test has let time pass instead, and nobody is to sleep. NULL: all sleep. */
extern bool (*idem_sleep_hook)(int64_t timeout_ms);
#endif

/* CLOCK_MONOTONIC_COARSE plus shift_ns, in ms: cut once, after the shift, so that processes in different time namespaces agree. */
static inline int64_t idem_clock_shifted_ms(int64_t shift_ns)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    int64_t now = ((int64_t)t.tv_sec * 1000000000 + t.tv_nsec + shift_ns) / 1000000;
#ifdef IDEM_TESTING
    int64_t stands_ms = (int64_t)load_relaxed(&idem_clock_test->stands_ms); /* relaxed: a number that stands alone */
    now = (stands_ms != 0 ? stands_ms : now) + (int64_t)load_relaxed(&idem_clock_test->skew_ms); /* relaxed: as above */
#endif
    return now;
}

/* As this process sees it. */
static inline int64_t idem_clock_raw_ms(void)
{
    return idem_clock_shifted_ms(0);
}

/* Microseconds of the fine clock: how long something here has taken. Never compared with a time in a store. */
int64_t idem_clock_fine_us(void);

/* Wall time, from the coarse clock too: the same moment is told alike. */
int64_t idem_clock_wall_ms(void);

/* The shift that undoes this process's time namespace. 0 where there is none. */
int64_t idem_clock_namespace_shift_ns(void);

#endif
