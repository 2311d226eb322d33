/*
 * tests/support/tracer.h - a child that is stopped after each system call, or after each change it makes to shared memory.
 *
 * Owns: the child (ptrace), what it has mapped of the files below one directory, and decoded instructions: where does each read or write memory?
 * The bytes there are looked at before and after the instruction, so only what changed something counts. While it is stopped, the files are
 * what they are if it dies now.
 *
 * x86-64. Elsewhere it stops after system calls only, and says so (tracer_steps()).
 */
#ifndef TESTS_SUPPORT_TRACER_H
#define TESTS_SUPPORT_TRACER_H

#include "support/support.h"

enum tracer_pace { TRACER_CALLS, TRACER_STORES };
enum tracer_stop {
    TRACER_CALL,  /* a system call has returned */
    TRACER_STORE, /* shared memory was changed */
    TRACER_SELF,  /* it has stopped itself (SIGSTOP) */
    TRACER_ENDED  /* it is gone; status is how */
};

struct tracer {
    pid_t pid;
    int status;
    uint64_t calls, steps, stores;
    const char *below; /* files whose mappings count */
    bool fresh;        /* ranges are as the child has them */
    unsigned ranges_n;
    struct {
        uint64_t from, to;
    } ranges[16];
};

/* Whether this machine can be single-stepped with knowledge of what changes memory. */
bool tracer_steps(void);
/* Runs fn(ctx) in a child; it stops before fn. False: ptrace is not permitted here. */
bool tracer_start(struct tracer *t, const char *below, void (*fn)(void *ctx), void *ctx);
/* To the next stop. With TRACER_STORES at most `steps` instructions: 0: as many as it takes; TRACER_STORE is then returned with nothing changed. */
enum tracer_stop tracer_next(struct tracer *t, enum tracer_pace pace, uint64_t steps);
/* SIGKILL, and it is reaped. */
void tracer_kill(struct tracer *t);

#endif
