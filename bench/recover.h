/*
 * recover.h - how fast a store comes back from its log, beside a floor.
 *
 * The floor reads the same files in the same steps, checks each record's bytes with the same hash, and writes as many bytes as the store has into
 * fresh memory of the same file system: what no recovery can do without. Both are timed in processor time, as others use this machine, too.
 */
#ifndef BENCH_RECOVER_H
#define BENCH_RECOVER_H

#include <cstdint>

struct recovery_rate {
    uint64_t records, bytes; /* of the log */
    double per_second, best; /* records a second of processor time: mean and best of the rounds */
    double by_the_clock;     /* mean; others run meanwhile */
    double bytes_per_second;
    double floor; /* time over the floor's */
};
/* The store lies in /dev/shm, the log below `disk`, as it was written each time. all: claims and marks are in the log, too; else answers alone. What
   can't be measured ends the process with 2. */
recovery_rate recover_rate(const char *disk, bool all, uint64_t keys, unsigned rounds);

#endif
