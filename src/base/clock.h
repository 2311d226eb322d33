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

#include <stdint.h>
#include <time.h>

#include "base/atomic.h"

#ifdef IDEM_TESTING
/* Milliseconds added to every reading. Points at a word that a test may share between processes. */
extern const struct idem_a64 *idem_clock_skew_ms;
#endif

/* This process's CLOCK_MONOTONIC_COARSE in ms. */
static inline int64_t idem_clock_raw_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    int64_t now = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
#ifdef IDEM_TESTING
    now += (int64_t)load_relaxed(idem_clock_skew_ms); /* relaxed: a number that stands alone */
#endif
    return now;
}

/* Wall time, from the coarse clock too: the same moment is told alike. */
int64_t idem_clock_wall_ms(void);

/* What to add to idem_clock_raw_ms() to undo this process's time namespace. 0 where there is none. */
int64_t idem_clock_namespace_shift_ms(void);

#endif
