/*
 * log.h - what a log costs, each beside what can't be done without. `disk`: the directory the log lies in; stores lie in /dev/shm. What can't be measured
 * ends the process with 2 and a sentence. C++ callers include it too.
 */
#ifndef BENCH_LOG_H
#define BENCH_LOG_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One thread claims and completes `rate` new keys a second, in turns of a quarter second in a store without a log and in one whose log is async: CPU
   time a key of all threads of the process (the flusher is one), what was written at a turn's end included. */
struct log_async_cost {
    double ns_without, ns_with; /* means of the rounds */
    double least, most;         /* ratio, of a round */
    uint64_t queued, walks;     /* at the rounds' ends; of all */
};
void log_async(const char *disk, uint64_t rate, unsigned rounds, unsigned seconds, struct log_async_cost *out);

/* Of the log, for an answer alone or with its claim, each in a batch of its own. */
double log_bytes_a_key(const char *disk, bool claims, unsigned *key_and_response);

#ifdef __cplusplus
}
#endif
#endif
