/*
 * capture.c - passes CMD's output on as it comes and keeps a copy of it.
 *
 * Owns the loop that runs while CMD does. One thread and poll(): nothing in it may block, or the lease is not renewed.
 *
 * Invariants
 *  1. While CMD runs nothing more is read from it than has been passed on, so memory is bounded and a slow reader slows
 *     CMD down as a plain pipe would. The copy is bounded by keep_max; past it no copy is kept at all.
 *  2. Our own stdout and stderr are written only after poll() said writable, and then not more than a pipe takes
 *     without blocking. They are not set non-blocking: others share them.
 *  3. A reader who goes away (EPIPE) or a full disk ends the passing on, never the keeping: CMD's outcome gets
 *     recorded.
 *  4. After CMD ended its pipes are emptied without waiting for our own reader: what CMD wrote belongs to the answer.
 *
 * If we die here: CMD goes on with broken pipes and, by its duplicate of the owner descriptor, still owns the key.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "capture.h"
#include "cli.h"

#define READ_STEP  65536
#define LINGER_MS  1000               /* how long what CMD left running may hold its pipes after CMD ended */
#define UNSENT_MAX ((size_t)16 << 20) /* of one stream after CMD ended: more than its pipe can hold */

static void append(struct capture_bytes *to, const char *bytes, size_t n)
{
    if (to->room - to->n < n) {
        size_t room = to->room > 0 ? to->room : READ_STEP;
        while (room - to->n < n)
            room *= 2; /* both bounds of what is appended lie far below SIZE_MAX / 2 */
        char *grown = cli_alloc(room);
        if (to->n > 0)
            memcpy(grown, to->bytes, to->n);
        free(to->bytes);
        to->bytes = grown;
        to->room = room;
    }
    memcpy(to->bytes + to->n, bytes, n);
    to->n += n;
}

static void drop(struct capture_bytes *bytes)
{
    free(bytes->bytes);
    memset(bytes, 0, sizeof(*bytes));
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

static bool has_unsent(const struct capture_stream *stream)
{
    return stream->unsent.n > stream->sent;
}

static void init_stream(struct capture_stream *stream, int to)
{
    struct stat status;
    memset(stream, 0, sizeof(*stream));
    stream->from = -1;
    stream->to = to;
    stream->write_max = fstat(to, &status) == 0 && S_ISREG(status.st_mode) ? READ_STEP : PIPE_BUF;
}

void capture_free(struct capture *capture)
{
    close_fd(&capture->signal_fd);
    close_fd(&capture->timer_fd);
    close_fd(&capture->out.from);
    close_fd(&capture->err.from);
    drop(&capture->out.kept);
    drop(&capture->err.kept);
    drop(&capture->out.unsent);
    drop(&capture->err.unsent);
}

static void keep(struct capture *capture, struct capture_stream *stream, const char *bytes, size_t n)
{
    if (capture->over)
        return;
    if (n > capture->keep_max - capture->out.kept.n - capture->err.kept.n) {
        capture->over = true;
        drop(&capture->out.kept);
        drop(&capture->err.kept);
        return;
    }
    append(&stream->kept, bytes, n);
}

static void read_stream(struct capture *capture, struct capture_stream *stream)
{
    char bytes[READ_STEP];
    ssize_t got = read(stream->from, bytes, sizeof(bytes));
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got <= 0) {
        close_fd(&stream->from);
        return;
    }
    stream->total_bytes += (uint64_t)got;
    keep(capture, stream, bytes, (size_t)got);
    if (stream->to >= 0)
        append(&stream->unsent, bytes, (size_t)got);
}

/* One write; gives up on this output for good when it fails. */
static void send_some(struct capture *capture, struct capture_stream *stream)
{
    size_t left = stream->unsent.n - stream->sent;
    size_t step = left < stream->write_max ? left : stream->write_max;
    ssize_t done = write(stream->to, stream->unsent.bytes + stream->sent, step);
    if (done < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (done < 0) {
        if (errno != EPIPE)
            capture->output_errno = errno;
        stream->to = -1;
        drop(&stream->unsent);
        stream->sent = 0;
        return;
    }
    stream->sent += (size_t)done;
    if (stream->sent == stream->unsent.n)
        stream->sent = stream->unsent.n = 0;
}

/* Up to two entries for poll(): reading from CMD, writing to our own output. Returns how many. */
static nfds_t want_stream(const struct capture_stream *stream, bool ended, struct pollfd *set)
{
    nfds_t n = 0;
    bool may_read = ended ? stream->unsent.n < UNSENT_MAX : !has_unsent(stream);
    if (stream->from >= 0 && may_read)
        set[n++] = (struct pollfd){stream->from, POLLIN, 0};
    if (has_unsent(stream))
        set[n++] = (struct pollfd){stream->to, POLLOUT, 0};
    return n;
}

static void serve_stream(struct capture *capture, struct capture_stream *stream, const struct pollfd *set, nfds_t n)
{
    for (nfds_t i = 0; i < n; i++) {
        if (set[i].revents == 0)
            continue;
        if (set[i].events == POLLOUT)
            send_some(capture, stream);
        else
            read_stream(capture, stream);
    }
}

/*
 * Reads all pending signals. True: one of them says that a child may have ended. A signal from the terminal goes to the
 * whole foreground process group, CMD included, so only those that somebody sent to us are passed on: the kernel marks
 * its own with SI_KERNEL.
 */
static bool take_signals(int signal_fd, pid_t pass_to)
{
    struct signalfd_siginfo info;
    bool child_changed = false;
    while (read(signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            child_changed = true;
        else if (info.ssi_code != SI_KERNEL && pass_to > 0)
            (void)kill(pass_to, (int)info.ssi_signo);
    }
    return child_changed;
}

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int capture_init(struct capture *capture, const sigset_t *held, size_t keep_max, int64_t tick_ms,
                 void (*tick)(void *ctx), void *ctx)
{
    const struct itimerspec every = {
        .it_interval = {(time_t)(tick_ms / 1000), (long)(tick_ms % 1000) * 1000000},
        .it_value = {(time_t)(tick_ms / 1000), (long)(tick_ms % 1000) * 1000000},
    };
    memset(capture, 0, sizeof(*capture));
    init_stream(&capture->out, STDOUT_FILENO);
    init_stream(&capture->err, STDERR_FILENO);
    capture->keep_max = keep_max;
    capture->tick = tick;
    capture->ctx = ctx;
    capture->signal_fd = signalfd(-1, held, SFD_CLOEXEC | SFD_NONBLOCK);
    capture->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (capture->signal_fd < 0 || capture->timer_fd < 0 || timerfd_settime(capture->timer_fd, 0, &every, NULL) != 0)
        return errno;
    return 0;
}

/* After CMD ended and lingerers had their time: what lies in the pipe now, and no more. */
static void empty_pipe(struct capture *capture, struct capture_stream *stream)
{
    int left = 0;
    if (stream->from < 0 || ioctl(stream->from, FIONREAD, &left) != 0)
        return;
    while (left > 0 && stream->from >= 0) {
        read_stream(capture, stream);
        left -= READ_STEP;
    }
}

int capture_follow(struct capture *capture, const struct capture_child *child)
{
    int wait_status = 0;
    int64_t deadline_ms = 0; /* set when CMD ended */
    bool ended = false;

    capture->out.from = child->stdout_fd;
    capture->err.from = child->stderr_fd;
    while (!ended || capture->out.from >= 0 || capture->err.from >= 0) {
        struct pollfd set[6];
        nfds_t n = 0;
        set[n++] = (struct pollfd){capture->timer_fd, POLLIN, 0};
        set[n++] = (struct pollfd){capture->signal_fd, POLLIN, 0};
        nfds_t out_n = want_stream(&capture->out, ended, set + n);
        nfds_t err_n = want_stream(&capture->err, ended, set + n + out_n);

        int timeout_ms = -1;
        if (ended) {
            int64_t left_ms = deadline_ms - now_ms();
            if (left_ms <= 0)
                break; /* somebody still holds the pipes */
            timeout_ms = (int)left_ms;
        }
        if (poll(set, n + out_n + err_n, timeout_ms) <= 0)
            continue; /* the time is over (see above), or the kernel was short of memory: try again */

        uint64_t ticks;
        if (set[0].revents != 0 && read(capture->timer_fd, &ticks, sizeof(ticks)) == (ssize_t)sizeof(ticks))
            capture->tick(capture->ctx);
        serve_stream(capture, &capture->out, set + n, out_n);
        serve_stream(capture, &capture->err, set + n + out_n, err_n);
        if (set[1].revents != 0 && take_signals(capture->signal_fd, ended ? -1 : child->pid) && !ended &&
            waitpid(child->pid, &wait_status, WNOHANG) == child->pid) {
            ended = true;
            deadline_ms = now_ms() + LINGER_MS;
        }
    }
    empty_pipe(capture, &capture->out);
    empty_pipe(capture, &capture->err);
    close_fd(&capture->out.from);
    close_fd(&capture->err.from);
    return wait_status;
}

static void flush_stream(struct capture *capture, struct capture_stream *stream)
{
    while (has_unsent(stream)) {
        struct pollfd ready = {stream->to, POLLOUT, 0};
        if (poll(&ready, 1, -1) > 0)
            send_some(capture, stream);
    }
}

void capture_flush(struct capture *capture)
{
    flush_stream(capture, &capture->out);
    flush_stream(capture, &capture->err);
}
