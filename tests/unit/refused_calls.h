/*
 * tests/unit/refused_calls.h - the library's calls of libc, one of which is refused: the nth of a kind, with an errno.
 *
 * Owns: the functions that the linker puts in the place of libc's (--wrap, tests/CMakeLists.txt has the same list), and what is to fail. Only
 * this executable has them, and only while one is set does any call fail. They count the calls of the library and of the test alike, so what a
 * test does meanwhile must be the library's alone. One
 * thread, but what a log's flusher calls meanwhile may be what is refused.
 */
#ifndef TESTS_UNIT_REFUSED_CALLS_H
#define TESTS_UNIT_REFUSED_CALLS_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* What it returns says why; errno is not its own. */
#define REFUSED_BY_VALUE (errno = 0, refused.with)

/* What is wrapped: name, what it returns when it fails, its parameters, its arguments, and the errnos that it is made to fail with. */
#define REFUSED_CALLS(X)                                                                                             \
    X(access, int, -1, (const char *p, int m), (p, m), EACCES)                                                       \
    X(calloc, void *, NULL, (size_t n, size_t s), (n, s), ENOMEM)                                                    \
    X(fchmod, int, -1, (int fd, mode_t m), (fd, m), EIO)                                                             \
    X(fchown, int, -1, (int fd, uid_t u, gid_t g), (fd, u, g), EPERM)                                                \
    X(fdatasync, int, -1, (int fd), (fd), EIO)                                                                       \
    X(fdopendir, DIR *, NULL, (int fd), (fd), ENOMEM)                                                                \
    X(flock, int, -1, (int fd, int how), (fd, how), EINTR, ENOLCK)                                                   \
    X(fopen, FILE *, NULL, (const char *p, const char *m), (p, m), EMFILE)                                           \
    X(fstat, int, -1, (int fd, struct stat *s), (fd, s), EIO)                                                        \
    X(fstatat, int, -1, (int d, const char *p, struct stat *s, int f), (d, p, s, f), EIO, ENOENT)                    \
    X(fstatfs, int, -1, (int fd, struct statfs *s), (fd, s), EIO)                                                    \
    X(fsync, int, -1, (int fd), (fd), EIO)                                                                           \
    X(ftruncate, int, -1, (int fd, off_t n), (fd, n), EFBIG)                                                         \
    X(getcwd, char *, NULL, (char *at, size_t n), (at, n), ENOENT)                                                   \
    X(getrandom, ssize_t, -1, (void *at, size_t n, unsigned f), (at, n, f), EINTR, ENOSYS)                           \
    X(linkat, int, -1, (int d, const char *p, int e, const char *q, int f), (d, p, e, q, f), EPERM)                  \
    X(lstat, int, -1, (const char *p, struct stat *s), (p, s), EACCES)                                               \
    X(madvise, int, -1, (void *at, size_t n, int how), (at, n, how), EINVAL, EFAULT)                                 \
    X(malloc, void *, NULL, (size_t n), (n), ENOMEM)                                                                 \
    X(mkdir, int, -1, (const char *p, mode_t m), (p, m), EROFS)                                                      \
    X(mkdirat, int, -1, (int d, const char *p, mode_t m), (d, p, m), EROFS)                                          \
    X(mmap, void *, MAP_FAILED, (void *at, size_t n, int p, int f, int fd, off_t o), (at, n, p, f, fd, o), ENOMEM)   \
    X(posix_fallocate, int, REFUSED_BY_VALUE, (int fd, off_t at, off_t n), (fd, at, n), ENOSPC)                      \
    X(posix_memalign, int, REFUSED_BY_VALUE, (void **at, size_t a, size_t n), (at, a, n), ENOMEM)                    \
    X(pread, ssize_t, -1, (int fd, void *to, size_t n, off_t at), (fd, to, n, at), EIO, EINTR)                       \
    X(pthread_atfork, int, REFUSED_BY_VALUE, (void (*a)(void), void (*b)(void), void (*c)(void)), (a, b, c), ENOMEM) \
    X(pthread_create, int, REFUSED_BY_VALUE, (pthread_t * t, const pthread_attr_t *a, void *(*f)(void *), void *c),  \
      (t, a, f, c), EAGAIN)                                                                                          \
    X(pthread_key_create, int, REFUSED_BY_VALUE, (pthread_key_t * k, void (*f)(void *)), (k, f), EAGAIN)             \
    X(pwrite, ssize_t, -1, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at), EDQUOT, EINTR)               \
    X(read, ssize_t, -1, (int fd, void *to, size_t n), (fd, to, n), EIO)                                             \
    X(readdir, struct dirent *, NULL, (DIR * d), (d), EIO)                                                           \
    X(realloc, void *, NULL, (void *at, size_t n), (at, n), ENOMEM)                                                  \
    X(renameat, int, -1, (int d, const char *p, int e, const char *q), (d, p, e, q), EIO)                            \
    X(renameat2, int, -1, (int d, const char *p, int e, const char *q, unsigned f), (d, p, e, q, f), EINVAL, EIO)    \
    X(rmdir, int, -1, (const char *p), (p), EBUSY)                                                                   \
    X(sigaction, int, -1, (int s, const struct sigaction *a, struct sigaction *o), (s, a, o), EINVAL)                \
    X(stat, int, -1, (const char *p, struct stat *s), (p, s), EACCES)                                                \
    X(statfs, int, -1, (const char *p, struct statfs *s), (p, s), EACCES)                                            \
    X(unlinkat, int, -1, (int d, const char *p, int f), (d, p, f), EIO)

/* These take a number that may be missing; fcntl is called with one or none, never with two. */
#define REFUSED_OPENS(X) X(open) X(openat) X(fcntl)
#define REFUSED_SLEEP(X) X(nanosleep) /* never fails */

enum refused_call {
#define X(name, ...) REFUSE_##name,
    REFUSED_CALLS(X)
#undef X
#define X(name) REFUSE_##name,
        REFUSED_OPENS(X)
#undef X
            REFUSED_KINDS
};

struct refused_kind {
    const char *name;
    int with[3]; /* 0: no more */
};
static const struct refused_kind refused_kinds[REFUSED_KINDS] = {
#define X(name, type, failure, parameters, arguments, ...) {#name, {__VA_ARGS__}},
    REFUSED_CALLS(X)
#undef X
        {"open", {EMFILE, EACCES, ELOOP}},
    {"openat", {EMFILE, EACCES}},
    {"fcntl", {ENOLCK, EACCES}},
};

static struct {
    bool counts, sleepless;
    unsigned seen[REFUSED_KINDS]; /* since refuse() */
    enum refused_call what;
    unsigned nth; /* 0: none fails */
    int with;
    enum refused_call what_too; /* a second one */
    unsigned nth_too;
    int with_too;
} refused;

static inline void refuse(enum refused_call what, unsigned nth, int with)
{
    memset(&refused, 0, sizeof refused);
    refused.counts = true;
    refused.what = what;
    refused.nth = nth;
    refused.with = with;
}

/* And this one, besides. */
static inline void refuse_too(enum refused_call what, unsigned nth, int with)
{
    refused.what_too = what;
    refused.nth_too = nth;
    refused.with_too = with;
}

/* Sleeping takes no time, so that what gives up after ten seconds does so at once. Until refuse_nothing(). */
static inline void refuse_sleep(void)
{
    refuse(REFUSED_KINDS, 0, 0);
    refused.sleepless = true;
}

static inline void refuse_nothing(void)
{
    refused.counts = refused.sleepless = false;
}

/* The call of now fails. */
static inline bool refused_now(enum refused_call what)
{
    if (!refused.counts)
        return false;
    unsigned seen = ++refused.seen[what];
    if (seen == refused.nth_too && refused.what_too == what)
        refused.with = refused.with_too; /* by now the first one has been refused, or is not wanted any more */
    else if (seen != refused.nth || refused.what != what)
        return false;
    errno = refused.with;
    return true;
}

#define X(name, type, failure, parameters, arguments, ...)                     \
    type __real_##name parameters;                                             \
    type __wrap_##name parameters;                                             \
    type __wrap_##name parameters                                              \
    {                                                                          \
        return refused_now(REFUSE_##name) ? failure : __real_##name arguments; \
    }
REFUSED_CALLS(X)
#undef X

int __real_open(const char *path, int flags, mode_t mode);
int __wrap_open(const char *path, int flags, mode_t mode);
int __wrap_open(const char *path, int flags, mode_t mode)
{
    return refused_now(REFUSE_open) ? -1 : __real_open(path, flags, mode);
}
int __real_openat(int dir_fd, const char *path, int flags, mode_t mode);
int __wrap_openat(int dir_fd, const char *path, int flags, mode_t mode);
int __wrap_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
    return refused_now(REFUSE_openat) ? -1 : __real_openat(dir_fd, path, flags, mode);
}
int __real_nanosleep(const struct timespec *t, struct timespec *left);
int __wrap_nanosleep(const struct timespec *t, struct timespec *left);
int __wrap_nanosleep(const struct timespec *t, struct timespec *left)
{
    return refused.counts && refused.sleepless ? 0 : __real_nanosleep(t, left);
}
int __real_fcntl(int fd, int what, long with);
int __wrap_fcntl(int fd, int what, long with);
int __wrap_fcntl(int fd, int what, long with)
{
    return refused_now(REFUSE_fcntl) ? -1 : __real_fcntl(fd, what, with);
}

#endif
