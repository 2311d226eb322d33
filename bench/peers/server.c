/*
 * server.c - see server.h.
 *
 * If we die here: the server gets SIGTERM from the kernel; its socket lies in the run's directory and goes with it.
 */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { START_MS = 20000, END_MS = 5000, STEP_MS = 5, ANSWER_S = 30, ROOM_FIRST = 65536 };

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
}

int server_socket(struct server *s, const char *dir, const char *name, char *why)
{
    s->pid = 0;
    if ((size_t)snprintf(s->socket, sizeof s->socket, "%s/%s", dir, name) < sizeof s->socket)
        return 0;
    snprintf(why, PEER_WHY_BYTES, "%.200s/%s: too long for a socket's address; name a shorter folder", dir, name);
    return -1;
}

static int dial(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
        return fd;
    int kept = errno;
    close(fd);
    errno = kept;
    return -1;
}

/* In the child. */
static _Noreturn void become(const char *const argv[], const char *log, pid_t parent)
{
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    int in = open("/dev/null", O_RDONLY);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGINT, SIG_IGN); /* Ctrl-C is the bench's to handle: it ends us in its own order */
    if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(126);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(126);
    char *words[64];
    size_t n = 0;
    for (; argv[n] != NULL && n + 1 < sizeof words / sizeof *words; n++)
        words[n] = strdup(argv[n]);
    words[n] = NULL;
    execvp(words[0], words);
    _exit(127);
}

int server_start(struct server *s, const char *const argv[], const char *log, char *why)
{
    pid_t parent = getpid();
    s->pid = fork();
    if (s->pid == 0)
        become(argv, log, parent);
    if (s->pid < 0) {
        snprintf(why, PEER_WHY_BYTES, "fork: %s", strerror(errno));
        s->pid = 0;
        return -1;
    }
    for (int waited = 0; waited < START_MS; waited += STEP_MS) {
        int status, fd = dial(s->socket);
        if (fd >= 0) {
            close(fd);
            return 0;
        }
        if (waitpid(s->pid, &status, WNOHANG) == s->pid) {
            s->pid = 0;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
                snprintf(why, PEER_WHY_BYTES, PEER_LEFT_OUT "%s isn't installed", argv[0]);
            else
                snprintf(why, PEER_WHY_BYTES, "%s ended at once with status %d; see %.150s", argv[0],
                         WIFEXITED(status) ? WEXITSTATUS(status) : -1, log);
            return -1;
        }
        nap();
    }
    snprintf(why, PEER_WHY_BYTES, "%s does not listen on %s after %d s", argv[0], s->socket, START_MS / 1000);
    server_end(s);
    return -1;
}

void server_end(struct server *s)
{
    if (s->pid <= 0)
        return;
    kill(s->pid, SIGTERM);
    for (int waited = 0; waited < END_MS; waited += STEP_MS) {
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
            s->pid = 0;
            return;
        }
        nap();
    }
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

void server_says(const char *command, const char *mark, char *text, size_t text_bytes)
{
    char line[256] = "";
    FILE *f = popen(command, "re");
    snprintf(text, text_bytes, "?");
    if (f == NULL)
        return;
    const char *at = fgets(line, sizeof line, f) != NULL ? strstr(line, mark) : NULL;
    if (at != NULL) {
        at += strlen(mark);
        snprintf(text, text_bytes, "%.*s", (int)strcspn(at, " \t\r\n"), at);
    }
    pclose(f);
}

/* ------------------------------------------------------------------ connections */

int wire_fail(struct wire *w, const char *what)
{
    snprintf(w->error, sizeof w->error, "%s%s%s", what, errno != 0 ? ": " : "", errno != 0 ? strerror(errno) : "");
    return -1;
}

int wire_open(struct wire *w, const char *path)
{
    memset(w, 0, sizeof *w);
    w->fd = dial(path);
    if (w->fd < 0)
        return wire_fail(w, path);
    struct timeval bound = {.tv_sec = ANSWER_S};
    setsockopt(w->fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound);
    setsockopt(w->fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof bound);
    w->in_room = ROOM_FIRST;
    w->in = malloc(w->in_room);
    if (w->in != NULL)
        return 0;
    wire_close(w);
    return wire_fail(w, "no memory for a connection");
}

void wire_close(struct wire *w)
{
    if (w->fd >= 0)
        close(w->fd);
    free(w->in);
    free(w->out);
    w->fd = -1;
    w->in = w->out = NULL;
}

char *wire_more(struct wire *w, size_t n)
{
    if (w->out_room - w->out_bytes < n) {
        size_t room = w->out_room == 0 ? ROOM_FIRST : w->out_room;
        while (room - w->out_bytes < n)
            room *= 2;
        char *more = realloc(w->out, room);
        if (more == NULL) {
            wire_fail(w, "no memory for a pipeline");
            return NULL;
        }
        w->out = more;
        w->out_room = room;
    }
    char *at = w->out + w->out_bytes;
    w->out_bytes += n;
    return at;
}

int wire_put(struct wire *w, const void *bytes, size_t n)
{
    char *at = wire_more(w, n);
    if (at == NULL)
        return -1;
    memcpy(at, bytes, n);
    return 0;
}

int wire_send(struct wire *w)
{
    for (size_t done = 0; done < w->out_bytes;) {
        ssize_t n = send(w->fd, w->out + done, w->out_bytes - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return wire_fail(w, "writing to the server");
        done += (size_t)n;
    }
    w->out_bytes = 0;
    return 0;
}

/* More of what the server says behind what is there. */
static int read_on(struct wire *w)
{
    if (w->in_from == w->in_to) {
        w->in_from = w->in_to = 0;
    } else if (w->in_to == w->in_room && w->in_from > 0) {
        memmove(w->in, w->in + w->in_from, w->in_to - w->in_from);
        w->in_to -= w->in_from;
        w->in_from = 0;
    } else if (w->in_to == w->in_room) {
        char *more = realloc(w->in, w->in_room * 2);
        if (more == NULL)
            return wire_fail(w, "no memory for an answer");
        w->in = more;
        w->in_room *= 2;
    }
    ssize_t n;
    do
        n = recv(w->fd, w->in + w->in_to, w->in_room - w->in_to, 0);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        w->in_to += (size_t)n;
        return 0;
    }
    if (n == 0)
        errno = 0;
    return wire_fail(w, n == 0 ? "the server hung up" : "reading from the server");
}

char *wire_line(struct wire *w)
{
    for (size_t seen = 0;;) {
        char *from = w->in + w->in_from;
        char *end = memchr(from + seen, '\n', w->in_to - w->in_from - seen);
        if (end != NULL) {
            w->in_from += (size_t)(end - from) + 1;
            if (end > from && end[-1] == '\r')
                end--;
            *end = '\0';
            return from;
        }
        seen = w->in_to - w->in_from;
        if (read_on(w) != 0)
            return NULL;
    }
}

const char *wire_take(struct wire *w, size_t n)
{
    while (w->in_to - w->in_from < n)
        if (read_on(w) != 0)
            return NULL;
    const char *from = w->in + w->in_from;
    w->in_from += n;
    return from;
}

int wire_unexpected(struct wire *w, const char *what, const char *said)
{
    if (said != NULL)
        snprintf(w->error, sizeof w->error, "%s was answered with '%.100s'", what, said);
    return -1;
}

/* ------------------------------------------------------------------ a peer that is a server */

void *server_attach(void *peer, unsigned me, char *why)
{
    struct server_peer *p = peer;
    struct server_worker *w = calloc(1, sizeof *w);
    (void)me;
    if (w == NULL) {
        snprintf(why, PEER_WHY_BYTES, "no memory");
        return NULL;
    }
    w->peer = p;
    if (wire_open(&w->wire, p->server.socket) == 0)
        return w;
    snprintf(why, PEER_WHY_BYTES, "%s", w->wire.error);
    free(w);
    return NULL;
}

const char *server_error(void *worker)
{
    return ((struct server_worker *)worker)->wire.error;
}

void server_detach(void *worker)
{
    struct server_worker *w = worker;
    wire_close(&w->wire);
    free(w);
}

void server_stop(void *peer)
{
    struct server_peer *p = peer;
    server_end(&p->server);
    free(p);
}

uint64_t server_used(const struct server_worker *w, uint64_t bytes)
{
    return bytes > w->peer->empty_bytes ? bytes - w->peer->empty_bytes : 0;
}
