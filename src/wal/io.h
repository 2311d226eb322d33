/*
 * wal/io.h - the only way from the log and recovery to the kernel.
 *
 * Owns: a table of system calls. A test puts its own table in (testing build only) and can record, fail, shorten or drop any call. Each
 * entry behaves as its name in libc: -1 and errno. Looping over EINTR and short counts is done here, once, in idem_io_read...() and
 * idem_io_write(), above the table, so that a test sees every single call.
 *
 * Threads: the table must be set before the log is used, and stay until nobody uses it.
 */
#ifndef IDEM_WAL_IO_H
#define IDEM_WAL_IO_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct idem_io_calls {
    int (*open_at)(int dir_fd, const char *name, int flags, mode_t mode);
    int (*close)(int fd);
    ssize_t (*pread)(int fd, void *to, size_t n, off_t at);
    ssize_t (*pwrite)(int fd, const void *from, size_t n, off_t at);
    int (*direct)(
        int fd, bool on); /* pwrites of whole blocks go past the kernel's cache, or not; -1: not on this file system */
    int (*fdatasync)(int fd);
    int (*fsync)(int fd);
    int (*fallocate)(int fd, off_t bytes); /* space for [0, bytes), size too: as posix_fallocate, but -1 and errno */
    int (*give)(int fd, gid_t group, mode_t mode); /* group and mode of a new file */
    int (*fstat)(int fd, struct stat *st);
    int (*stat_at)(int dir_fd, const char *name, struct stat *st);   /* symlinks are not followed */
    int (*rename_at)(int dir_fd, const char *from, const char *to);  /* never replaces: EEXIST */
    int (*replace_at)(int dir_fd, const char *from, const char *to); /* replaces */
    int (*unlink_at)(int dir_fd, const char *name);
    int (*mkdir_at)(int dir_fd, const char *name, mode_t mode);
    int (*list)(int dir_fd, int (*each)(void *ctx, const char *name),
                void *ctx);          /* each: 0 to go on; returned as it is */
    int (*lock)(int fd, int64_t at); /* OFD write lock on one byte; -1 with EAGAIN: held by somebody else */
    int (*unlock)(int fd, int64_t at);
    int (*hold_dir)(int dir_fd); /* flock, exclusive; -1 with EAGAIN: held by somebody else; freed by closing */
};

extern const struct idem_io_calls idem_io_system;
#ifdef IDEM_TESTING
extern const struct idem_io_calls *idem_io;
#else
#define idem_io (&idem_io_system)
#endif

/* All n bytes, or -1 with errno. A pwrite that makes no progress is ENOSPC. */
int idem_io_write(int fd, const void *from, size_t n, uint64_t at);
/* Up to n bytes: fewer only at the file's end. -1 with errno. */
ssize_t idem_io_read(int fd, void *to, size_t n, uint64_t at);
/* One read: it may get less, also because what lies behind that can't be read. */
ssize_t idem_io_read_some(int fd, void *to, size_t n, uint64_t at);

/* Closes at the end of something; errno stays what made it end. */
void idem_io_done(int fd);

#endif
