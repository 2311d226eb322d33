/*
 * capture.h - run a command, pass its output on while keeping a copy: spawn.c starts it, capture.c moves the bytes.
 * Knows nothing of keys: run.c says what to do at each tick and with the outcome.
 */
#ifndef IDEM_CAPTURE_H
#define IDEM_CAPTURE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ------------------------------------------------------------------ spawn.c */

/* The signal state as it was before capture_hold_signals(), for CMD and for afterwards. */
struct capture_signals {
    sigset_t mask;
    struct sigaction pipe;
    struct sigaction child;
};

/*
 * Blocks SIGCHLD and the signals that are passed on to CMD, ignores SIGPIPE (a reader that goes away must not end us
 * before CMD's outcome is recorded) and makes sure that children can be waited for. Fills *held. false: errno says why.
 */
bool capture_hold_signals(struct capture_signals *before, sigset_t *held);
void capture_restore_signals(const struct capture_signals *before);

struct capture_command {
    char **argv;      /* ends with NULL; searched in PATH */
    int owner_fd;     /* CMD inherits a duplicate of it */
    bool kill_orphan; /* the kernel kills CMD when this process ends */
};

struct capture_child {
    pid_t pid;
    int stdout_fd; /* read ends, non-blocking */
    int stderr_fd;
};

/*
 * capture_spawn - start CMD with stdout and stderr into pipes. Returns 0, or an errno: then *exec_failed says whether
 * it was CMD that could not be executed (else something before it). In both cases nothing of CMD has run.
 */
int capture_spawn(const struct capture_command *command, const struct capture_signals *before,
                  struct capture_child *child, bool *exec_failed);

/* ------------------------------------------------------------------ capture.c */

struct capture_bytes {
    char *bytes;
    size_t n, room;
};

struct capture_stream {
    int from;                    /* CMD's pipe; -1 after end of file */
    int to;                      /* our own descriptor; -1 after a failed write */
    size_t write_max;            /* so much at once does not block when poll() says writable */
    uint64_t total_bytes;        /* that CMD wrote */
    struct capture_bytes kept;   /* the copy, empty once the limit was passed */
    struct capture_bytes unsent; /* read from CMD, not yet written */
    size_t sent;                 /* bytes of `unsent` that are written already */
};

struct capture {
    struct capture_stream out, err;
    int signal_fd, timer_fd;
    size_t keep_max;  /* of both copies together */
    bool over;        /* they had more: no copy is kept */
    int output_errno; /* why writing our own output failed (but for EPIPE, the reader's choice); 0: it did not */
    void (*tick)(void *ctx);
    void *ctx;
};

/*
 * capture_init - everything that can fail, before CMD is started. tick is called every tick_ms while CMD runs; `held`
 * is from capture_hold_signals(). Returns 0 or an errno. capture_free() in any case.
 */
int capture_init(struct capture *capture, const sigset_t *held, size_t keep_max, int64_t tick_ms,
                 void (*tick)(void *ctx), void *ctx);

/*
 * capture_follow - passes output on and keeps it until CMD has ended and its pipes are at their end, calls tick, passes
 * signals on to CMD. What CMD left running may hold the pipes for one second more; then they are closed. Returns CMD's
 * status as from waitpid(). Some output may still be unsent: capture_flush().
 */
int capture_follow(struct capture *capture, const struct capture_child *child);

/* Writes what is unsent; may block for as long as the reader does not read. */
void capture_flush(struct capture *capture);

void capture_free(struct capture *capture);

#endif
