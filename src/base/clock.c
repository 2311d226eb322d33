/* base/clock.c - see clock.h. Holds no state but what a test does to time. */
#include "base/clock.h"

#include <stdio.h>
#include <string.h>

#ifdef IDEM_TESTING
static const struct idem_clock_test as_it_is;
const struct idem_clock_test *idem_clock_test = &as_it_is;
bool (*idem_sleep_hook)(int64_t timeout_ms);
#endif

int64_t idem_clock_fine_us(void)
{
#ifdef IDEM_TESTING
    if (load_relaxed(&idem_clock_test->stands_ms) != 0) /* relaxed: a number that stands alone */
        return idem_clock_raw_ms() * 1000;
#endif
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t idem_clock_wall_ms(void)
{
#ifdef IDEM_TESTING
    int64_t wall_ms = (int64_t)load_relaxed(&idem_clock_test->wall_ms); /* relaxed: as above */
    if (wall_ms != 0)
        return wall_ms;
#endif
    struct timespec t;
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t idem_clock_namespace_shift_ns(void)
{
    FILE *f = fopen("/proc/self/timens_offsets", "re");
    if (f == NULL)
        return 0;
    char name[32];
    long long seconds, nanoseconds;
    int64_t shift = 0;
    while (fscanf(f, "%31s %lld %lld", name, &seconds, &nanoseconds) == 3)
        if (strcmp(name, "monotonic") == 0)
            shift = -(int64_t)(seconds * 1000000000 + nanoseconds);
    fclose(f);
    return shift;
}
