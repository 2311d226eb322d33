/*
 * options.c - see options.h.
 */
#include "options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void option_wrong(const char *name, const char *why)
{
    fprintf(stderr, "%s: --%s: %s (see %s --help)\n", program_invocation_short_name, name, why,
            program_invocation_short_name);
    exit(2);
}

int64_t option_number(const char *name, const char *text, int64_t low, int64_t high)
{
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n < low || n > high) {
        char why[100];
        snprintf(why, sizeof(why), "give a whole number from %" PRId64 " to %" PRId64, low, high);
        option_wrong(name, why);
    }
    return n;
}

double option_probability(const char *name, const char *text)
{
    char *end;
    double p = strtod(text, &end);
    if (end == text || *end != '\0' || !(p >= 0.0 && p <= 1.0))
        option_wrong(name, "give a number from 0 to 1");
    return p;
}
