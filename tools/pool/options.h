/*
 * options.h - values of command line options, and the clock; for both programs.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdint.h>
#include <sys/time.h>
#include <time.h>

/* Says what is wrong with an option, on stderr, and exits with status 2. */
_Noreturn void option_wrong(const char *name, const char *why);

/* A whole number within bounds, or option_wrong(). */
int64_t option_number(const char *name, const char *text, int64_t low, int64_t high);

/* A number from 0 to 1, or option_wrong(). */
double option_probability(const char *name, const char *text);

static inline int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static inline int64_t now_ms(void)
{
    return now_us() / 1000;
}

static inline struct timeval span_us(int64_t us)
{
    struct timeval tv = {.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)};
    return tv;
}

static inline struct timeval span_ms(int64_t ms)
{
    return span_us(ms * 1000);
}

#endif
