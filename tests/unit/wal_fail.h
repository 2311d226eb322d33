/* tests/unit/wal_fail.h - the log's calls to the kernel, of which the n-th fails once, and which read and write less than they were asked to. */
#ifndef TESTS_UNIT_WAL_FAIL_H
#define TESTS_UNIT_WAL_FAIL_H

#include <errno.h>

#include "wal/io.h"

static struct idem_io_calls failing;
static unsigned calls, fail_at;
static int fail_with;
static size_t read_most = SIZE_MAX, write_most = SIZE_MAX;

static inline bool fails(void)
{
    if (++calls != fail_at)
        return false;
    errno = fail_with;
    return true;
}
static inline int f_open_at(int d, const char *n, int fl, mode_t m)
{
    return fails() ? -1 : idem_io_system.open_at(d, n, fl, m);
}
static inline ssize_t f_pread(int fd, void *to, size_t n, off_t at)
{
    return fails() ? -1 : idem_io_system.pread(fd, to, n > read_most ? read_most : n, at);
}
static inline ssize_t f_pwrite(int fd, const void *from, size_t n, off_t at)
{
    return fails() ? -1 : idem_io_system.pwrite(fd, from, n > write_most ? write_most : n, at);
}
static inline int f_fdatasync(int fd)
{
    return fails() ? -1 : idem_io_system.fdatasync(fd);
}
static inline int f_fsync(int fd)
{
    return fails() ? -1 : idem_io_system.fsync(fd);
}
static inline int f_fallocate(int fd, off_t n)
{
    return fails() ? -1 : idem_io_system.fallocate(fd, n);
}
static inline int f_fstat(int fd, struct stat *st)
{
    return fails() ? -1 : idem_io_system.fstat(fd, st);
}
static inline int f_stat_at(int d, const char *n, struct stat *st)
{
    return fails() ? -1 : idem_io_system.stat_at(d, n, st);
}
static inline int f_rename_at(int d, const char *from, const char *to)
{
    return fails() ? -1 : idem_io_system.rename_at(d, from, to);
}
static inline int f_replace_at(int d, const char *from, const char *to)
{
    return fails() ? -1 : idem_io_system.replace_at(d, from, to);
}
static inline int f_mkdir_at(int d, const char *n, mode_t m)
{
    return fails() ? -1 : idem_io_system.mkdir_at(d, n, m);
}
static inline int f_hold_dir(int d)
{
    return fails() ? -1 : idem_io_system.hold_dir(d);
}
static inline int f_list(int d, int (*each)(void *ctx, const char *name), void *ctx)
{
    return fails() ? -1 : idem_io_system.list(d, each, ctx);
}

/* These calls count and fail, besides what the test adds to the table; until idem_io is set back. */
static inline void fail_nth(unsigned at, int with)
{
    failing = idem_io_system;
    failing.open_at = f_open_at;
    failing.pread = f_pread;
    failing.pwrite = f_pwrite;
    failing.fdatasync = f_fdatasync;
    failing.fsync = f_fsync;
    failing.fallocate = f_fallocate;
    failing.fstat = f_fstat;
    failing.rename_at = f_rename_at;
    failing.replace_at = f_replace_at;
    calls = 0;
    fail_at = at;
    fail_with = with;
    idem_io = &failing;
}

#endif
