/*
 * tests/support/crash.h - victims: children that die or stop at a named point of the library.
 *
 * Owns: the list of all named points, read from the sources, so that a new one is noticed; up to CRASH_VICTIMS children at a
 * time, each with a page that it shares with the test process (points passed, what it tells); the counts of points at which
 * some victim died or stopped.
 *
 * A victim does nothing at points before it calls crash_arm(): what leads up to the operation under test is not counted.
 * If the test process dies, its victims are killed by the kernel (PR_SET_PDEATHSIG).
 */
#ifndef TESTS_SUPPORT_CRASH_H
#define TESTS_SUPPORT_CRASH_H

#include "support/support.h"

#define CRASH_POINTS_MAX 160
#define CRASH_TRACE_MAX  2048
#define CRASH_VICTIMS    4

/* Call after support_setup(). 0, or -1 when the sources can't be read. */
int crash_setup(void);
/* Ends the victims that are left. */
void crash_end_all(void);

int crash_points(void); /* how many named points src/ has */
const char *crash_point_name(int point);
int crash_point(const char *name); /* its number; -1: no such point */
/* The scenes' stores have no log: who dies at points of the log, of recovery and of old files is tests/crash/test_wal_*.c's business. */
bool crash_elsewhere(int point);
/* A step of the log or of recovery: crash/test_wal_kill.c and unit/test_recover.c are for those. */
bool crash_point_of_log(int point);

enum crash_deed { CRASH_KILL, CRASH_STOP };

#define CRASH_ANY  (-2) /* any point: the nth that is passed at all */
#define CRASH_NONE (-1)

/* At the nth passing of a point, counted from crash_arm(). Steps are independent of each other. */
struct crash_step {
    int point;
    unsigned nth;
    enum crash_deed deed;
};

/* What both sides see. The victim writes, the test process reads it while the victim is stopped or gone. */
struct crash_page {
    struct idem_a64 hits[CRASH_POINTS_MAX]; /* while armed */
    struct idem_a64 paused;                 /* the stop is crash_pause(), not a step's */
    struct idem_a64 step;                   /* the step that was done last, + 1 */
    uint32_t traced;                        /* points passed while armed, in order; at most CRASH_TRACE_MAX are kept */
    uint8_t trace[CRASH_TRACE_MAX];
    int verdict;      /* what the operation under test returned */
    idem_claim claim; /* the claim it works on or received; token 0: none */
    /* What came of acting on that claim late (see stage.h). */
    bool late; /* what follows was tried */
    int late_renew, late_mark, late_complete, late_abandon;
};

struct crash_victim {
    pid_t pid; /* 0: none */
    struct crash_page *page;
};

/* Starts fn(page, ctx) in a child with these steps (at most 4; those of CRASH_NONE are ignored). The page is zeroed first. */
struct crash_victim *crash_start(void (*fn)(struct crash_page *page, void *ctx), void *ctx,
                                 const struct crash_step *steps, unsigned n);

enum crash_end {
    CRASH_DONE,    /* it ran to its end */
    CRASH_KILLED,  /* a step killed it */
    CRASH_STOPPED, /* a step stopped it, or it paused (page->paused) */
    CRASH_WRONG /* anything else: a failed check, a sanitizer's report, a time-out. It is gone, and this was said aloud. */
};
enum crash_end crash_wait(struct crash_victim *victim);
void crash_continue(struct crash_victim *victim);
void crash_end(struct crash_victim *victim);

/* In any child of a test: faults end it, cmocka's handler does not go on with the next test in it. */
void crash_faults_are_fatal(void);

/* In a victim. */
void crash_arm(void);
void crash_disarm(void);
void crash_pause(void); /* until the test process continues it */

/* How often a victim died or stopped at the point, in this test process. */
unsigned crash_kills(int point);
unsigned crash_stops(int point);

#endif
