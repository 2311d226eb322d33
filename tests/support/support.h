/*
 * tests/support/support.h - what the tests of the library share.
 *
 * Owns: a private directory for stores (removed at the end, also when the test crashes), a page shared with all children
 * (injected clock, seeded fault, the first failed check), children that are waited for with a bound and ended by id,
 * crash points of this process.
 *
 * A test file ends with: return cmocka_run_group_tests(tests, support_setup, support_teardown);
 *
 * Checks: in the test process CHECK() fails the cmocka test; in a child it notes why, says so on standard error, and ends the
 * child with SUPPORT_FAILED. (cmocka's own assertions must not be used in a child: they would jump into the parent's tests.)
 */
#ifndef TESTS_SUPPORT_SUPPORT_H
#define TESTS_SUPPORT_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "base/atomic.h"
#include "idem.h"

int support_setup(void **state);
int support_teardown(void **state);

/* ------------------------------------------------------------------ checks */

#define SUPPORT_FAILED 70 /* exit status of a child whose check failed */

#define CHECK(condition)                                          \
    do {                                                          \
        if (!(condition))                                         \
            support_check_failed(__FILE__, __LINE__, #condition); \
    } while (0)
/* Numbers, with both values in the message; an unexpected error of the library comes with its detail. */
#define CHECK_IS(value, wanted)      support_check_is(__FILE__, __LINE__, #value, (long long)(value), (long long)(wanted))
#define CHECK_BYTES(at, bytes, text) support_check_bytes(__FILE__, __LINE__, #at, (at), (bytes), (text))

void support_check_failed(const char *file, int line, const char *what);
void support_check_is(const char *file, int line, const char *what, long long value, long long wanted);
void support_check_bytes(const char *file, int line, const char *what, const void *at, size_t bytes, const char *text);
/* The first check that failed in a child since support_forget_why(), "" if none. */
const char *support_why(void);
void support_forget_why(void);

/* ------------------------------------------------------------------ places, time, chance */

const char *support_base(void); /* the private directory itself */
/* A fresh path in it, for a store; valid for the next 64 calls. */
const char *support_dir(void);
void support_remove(const char *path); /* with all that is in it */
/* The store's file whose name begins so; the path is good until the next call. */
const char *support_file_of(const char *dir, const char *prefix);

/* IDEM_TEST_LONG is set. */
bool support_long(void);
/* Where the sanitizers make everything slower, loops may be shorter: n, or n / by. */
long support_scaled(long n, long by);

int64_t support_now_ms(void); /* the real clock */
void support_sleep_ms(int64_t ms);
/* Polls until condition(ctx), at most timeout_ms. */
bool support_eventually(bool (*condition)(void *ctx), void *ctx, int64_t timeout_ms);
/* For it: a struct idem_a64 that is not 0. */
static inline bool support_is_set(void *word)
{
    return load_acquire(word) != 0;
}

/* The injected clock, shared with all children: what is added to every reading of the store's clock. Never goes backwards. */
void support_clock_add(int64_t ms);
/* It goes on by support_clock_add() alone, until it is let go. */
void support_clock_stand(bool still);
/* Both clocks of a machine that began so long ago stand, at these readings: the store's goes on by support_clock_add(), the wall's by
   support_wall_add(), until support_clock_stand(false). */
void support_clock_machine(int64_t up_ms, int64_t wall_ms);
void support_wall_add(int64_t ms);

uint64_t support_random(uint64_t *state); /* state: any number but 0 */
uint64_t support_seed(void);              /* IDEM_TEST_SEED, or a new one; printed once */

/* Zeroed memory that children share. Unmapped at the process's end. */
void *support_shared(size_t bytes);

/* ------------------------------------------------------------------ stores and keys */

/* Creation with `keys` keys of small responses, 64 processes, 64 lanes; CREATE set. */
idem_options support_options(uint64_t keys);
/* Opens (checked). options NULL: support_options(1000). */
idem_store *support_open(const char *dir, const idem_options *options);
/* The same with these flags and nothing else. */
idem_store *support_open_with(const char *dir, uint32_t flags);
/* Opens what must be there. */
idem_store *support_attach(const char *dir);
idem_key support_key(const char *text);
idem_request support_request(const char *key);
idem_response support_response(int32_t status, const char *body);
/* One call each, with the key as text. claim may be NULL. */
int support_begin(idem_store *store, const char *key, idem_claim *claim);
int support_complete(idem_store *store, const idem_claim *claim, int32_t status, const char *body);
/* A new key, claimed and completed (checked). */
void support_answer(idem_store *store, const char *key, int32_t status, const char *body);
idem_stats_data support_stats(idem_store *store);
/* Sweeps until there is nothing more to do (bounded). */
void support_maintain(idem_store *store);
/* idem_verify() must find nothing; what it finds is printed. */
void support_verify(const char *dir);

/* ------------------------------------------------------------------ children */

#define SUPPORT_PATIENCE_MS 60000 /* how long anything may take before it counts as stuck */

/* In a build that counts what runs: writes it down. For who ends by _exit(), or as another user. Who is killed has not counted: the counts of a
   function that was left in its middle would contradict each other. */
void support_save_counters(void);

/* Runs fn(ctx) in a forked child, which ends with status 0 after it, and is killed when its parent ends. */
pid_t support_spawn(void (*fn)(void *ctx), void *ctx);

/* How a child ended: its exit status, 1000 + signal, or SUPPORT_STUCK (it was then killed). It is reaped. */
#define SUPPORT_STUCK  (-1)
#define SUPPORT_KILLED (1000 + 9)
int support_reap(pid_t pid, int64_t timeout_ms);
/* Waits until the child has stopped itself. False: it ended (and was reaped) or took too long. */
bool support_wait_stopped(pid_t pid, int64_t timeout_ms);
void support_kill(pid_t pid, int signal);
/* SIGKILL and reap. */
void support_end(pid_t pid);

/* support_spawn and support_reap; the child must end with status 0. */
void support_in_child(void (*fn)(void *ctx), void *ctx);

/* ------------------------------------------------------------------ crash points and faults of the testing build */

/* One seeded fault at a time, by name, for this process and all children. NULL: none. With IDEM_TEST_FAULT=name in the environment
   any test begins with that fault: to see whether it would notice. */
void support_fault(const char *name);
/* How often the fault was asked for since it was set: 0 means the check never came near it. */
uint64_t support_fault_seen(void);

/* To be said by a check that found what the fault does, for the table that tools/test makes. */
void support_caught(const char *fault, const char *how, ...) __attribute__((format(printf, 2, 3)));

/* A promise of the library: check() must succeed in a child, and fail there with each of the seeded faults, which must have been
   come near to (the list ends with NULL). Says what was caught. check gets a path for a store. */
void support_promise(void (*check)(void *dir), const char *const faults[]);

#define FAULTS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* The test test_NAME of the check NAME; the list of faults ends with NULL. */
#define PROMISE(name, ...)                                 \
    static void test_##name(void **state)                  \
    {                                                      \
        (void)state;                                       \
        static const char *const faults[] = {__VA_ARGS__}; \
        support_promise(name, faults);                     \
    }

/* At the nth passing (1: the next) of the named point in this process call fn(ctx). Children inherit it. name NULL: none.
   name "*": any point. Only one is set at a time. */
void support_at_point(const char *name, unsigned nth, void (*fn)(void *ctx), void *ctx);
/* From now on this process (and its children, all threads) loses the processor at random points for a moment: more interleavings than the
   kernel alone gives. Not together with support_at_point. */
void support_shake(uint64_t seed);
/* For fn: die, or stop until SIGCONT. */
void support_die(void *ctx);
void support_stop(void *ctx);

#endif
