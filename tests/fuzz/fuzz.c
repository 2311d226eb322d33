/*
 * tests/fuzz/fuzz.c - see fuzz.h.
 *
 * If we die here: the guardian of support.c removes the private directory.
 */
#include "fuzz/fuzz.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#define FILE_MOST_BYTES (UINT64_C(32) << 20)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void end(void)
{
    support_teardown(NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failed CHECK is no test's, but the end */
    if (support_setup(NULL) != 0)
        exit(1);
    atexit(end);
    /* A file that says it is huge must not get all of the machine's memory. */
    struct rlimit most = {FILE_MOST_BYTES, FILE_MOST_BYTES};
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &most) != 0)
        exit(1);
    fuzz_begin();
    return 0;
}

static int64_t cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    int64_t began_ms = cpu_ms();
    fuzz_one(bytes, n);
    int64_t took_ms = cpu_ms() - began_ms;
    if (took_ms > FUZZ_CPU_MS) {
        fprintf(stderr, "an input took %lld ms of processor time; %d are the most\n", (long long)took_ms, FUZZ_CPU_MS);
        abort();
    }
    return 0;
}

unsigned fuzz_touch(const void *bytes, size_t n)
{
    static volatile unsigned sink; /* or the reads would be left out */
    unsigned sum = 0;
    for (size_t i = 0; bytes != NULL && i < n; i++)
        sum += ((const uint8_t *)bytes)[i];
    sink = sum;
    return sink;
}
