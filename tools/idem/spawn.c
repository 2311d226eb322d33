/*
 * spawn.c - starts CMD so that the key stays owned while it runs.
 *
 * Owns the time between fork and exec.
 *
 * Invariants
 *  1. CMD inherits what our caller gave us, with two pipes in place of stdout and stderr, and one descriptor more: a
 *     duplicate of the store's owner descriptor, whose lock keeps the key owned even if we are gone. Everything else
 *     that we opened is close-on-exec.
 *  2. The duplicate is a high number, so that scripts that use descriptors 3 to 9 don't close it by accident.
 *  3. CMD sees the signal state that we were started with.
 *  4. "Could not be executed" is told apart from "ran and failed": the child reports errno over a close-on-exec pipe.
 *
 * If we die here: between fork and exec the child goes on to exec CMD and, by the duplicate, owns the key until CMD
 * ends; with kill_orphan the kernel kills it, and if we died before that was asked for, the child sees a foreign parent
 * and kills itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "capture.h"
#include "cli.h"

#define OWNER_FD_LOWEST 190 /* under the usual limit of 1024 and above what scripts use; bash takes 255 downwards */

bool capture_hold_signals(struct capture_signals *before, sigset_t *held)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct sigaction usual = {.sa_handler = SIG_DFL};

    (void)sigemptyset(held);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        (void)sigaddset(held, signals[i]);
    (void)sigemptyset(&ignore.sa_mask);
    (void)sigemptyset(&usual.sa_mask);
    return sigprocmask(SIG_BLOCK, held, &before->mask) == 0 && sigaction(SIGPIPE, &ignore, &before->pipe) == 0 &&
           sigaction(SIGCHLD, &usual, &before->child) == 0;
}

void capture_restore_signals(const struct capture_signals *before)
{
    (void)sigaction(SIGPIPE, &before->pipe, NULL);
    (void)sigaction(SIGCHLD, &before->child, NULL);
    (void)sigprocmask(SIG_SETMASK, &before->mask, NULL);
}

static void close_pair(int pair[2])
{
    for (int i = 0; i < 2; i++) {
        if (pair[i] >= 0)
            (void)close(pair[i]);
        pair[i] = -1;
    }
}

/* A duplicate without close-on-exec. With a low limit on descriptors any number will do. */
static int duplicate_owner(int owner_fd)
{
    int copy = fcntl(owner_fd, F_DUPFD, OWNER_FD_LOWEST);
    if (copy < 0 && (errno == EINVAL || errno == EMFILE))
        copy = fcntl(owner_fd, F_DUPFD, 3);
    return copy;
}

/* The child's side; returns only if it can't execute CMD, with errno set. */
static void become_command(const struct capture_command *command, const struct capture_signals *before, pid_t parent,
                           int out, int err)
{
    if (command->kill_orphan) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
            return;
        if (getppid() != parent)
            (void)kill(getpid(), SIGKILL);
    }
    if (dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        return;
    capture_restore_signals(before);
    (void)execvp(command->argv[0], command->argv);
}

/* errno of a child that could not execute; 0 when the pipe closed on exec. */
static int read_exec_errno(int fd)
{
    int value = 0;
    ssize_t got;
    do {
        got = read(fd, &value, sizeof(value));
    } while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof(value) ? value : 0;
}

static bool set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

int capture_spawn(const struct capture_command *command, const struct capture_signals *before,
                  struct capture_child *child, bool *exec_failed)
{
    int out[2] = {-1, -1}, err[2] = {-1, -1}, report[2] = {-1, -1};
    int owner_copy = -1;
    int error = 0;
    pid_t parent = getpid();

    *exec_failed = false;
    child->pid = -1;
    child->stdout_fd = child->stderr_fd = -1;
    if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0 || pipe2(report, O_CLOEXEC) != 0 ||
        !set_nonblocking(out[0]) || !set_nonblocking(err[0]))
        goto failed;
    owner_copy = duplicate_owner(command->owner_fd);
    if (owner_copy < 0)
        goto failed;

    child->pid = fork();
    if (child->pid < 0)
        goto failed;
    if (child->pid == 0) {
        become_command(command, before, parent, out[1], err[1]);
        int why = errno;
        (void)cli_write_all(report[1], &why, sizeof(why));
        _exit(127);
    }
    (void)close(owner_copy);
    (void)close(out[1]);
    (void)close(err[1]);
    (void)close(report[1]);
    child->stdout_fd = out[0];
    child->stderr_fd = err[0];

    error = read_exec_errno(report[0]);
    (void)close(report[0]);
    if (error == 0)
        return 0;
    *exec_failed = true;
    while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    (void)close(child->stdout_fd);
    (void)close(child->stderr_fd);
    return error;

failed:
    error = errno;
    if (owner_copy >= 0)
        (void)close(owner_copy);
    close_pair(out);
    close_pair(err);
    close_pair(report);
    return error;
}
