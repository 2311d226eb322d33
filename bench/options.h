/*
 * options.h - what tools/bench was asked to do. C++ callers include it too.
 */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct options {
    bool quick;
    bool smoke;
    bool list;
    bool planted;     /* with smoke: a peer that does nothing takes part, and must be found out */
    const char *row;  /* regular expression, or NULL */
    const char *dir;  /* a folder on a tmpfs, or NULL: /dev/shm */
    const char *disk; /* a folder on a disk */
    const char *out;  /* a folder for results, or NULL */
    unsigned rounds;
    unsigned seconds; /* for all rounds together */
};

/* 0 go on, 1 help was printed, -1 an error was printed. */
int options_read(struct options *o, int argc, char **argv);

#ifdef __cplusplus
}
#endif
#endif
