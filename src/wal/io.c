/* wal/io.c - see io.h. */
#include "wal/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* open and fcntl are variadic: their addresses can't stand in the table. */
static int sys_open_at(int dir_fd, const char *name, int flags, mode_t mode)
{
    return openat(dir_fd, name, flags, mode);
}

static int sys_fallocate(int fd, off_t bytes)
{
    int e = posix_fallocate(fd, 0, bytes);
    if (e == 0)
        return 0;
    errno = e;
    return -1;
}

static int sys_direct(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? -1 : fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT);
}

static int sys_give(int fd, gid_t group, mode_t mode)
{
    return fchown(fd, (uid_t)-1, group) != 0 ? -1 : fchmod(fd, mode);
}

static int sys_stat_at(int dir_fd, const char *name, struct stat *st)
{
    return fstatat(dir_fd, name, st, AT_SYMLINK_NOFOLLOW);
}

static int sys_rename_at(int dir_fd, const char *from, const char *to)
{
    int r = renameat2(dir_fd, from, dir_fd, to, RENAME_NOREPLACE);
    if (r == 0 || errno != EINVAL)
        return r;
    /* A file system without it. */
    return linkat(dir_fd, from, dir_fd, to, 0) != 0 ? -1 : unlinkat(dir_fd, from, 0);
}

static int sys_replace_at(int dir_fd, const char *from, const char *to)
{
    return renameat(dir_fd, from, dir_fd, to);
}

static int sys_hold_dir(int dir_fd)
{
    return flock(dir_fd, LOCK_EX | LOCK_NB);
}

static int sys_unlink_at(int dir_fd, const char *name)
{
    return unlinkat(dir_fd, name, 0);
}

static int sys_list(int dir_fd, int (*each)(void *ctx, const char *name), void *ctx)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    DIR *d = fdopendir(fd);
    if (d == NULL) {
        close(fd);
        return -1;
    }
    int r = 0;
    while (r == 0) {
        errno = 0;
        struct dirent *e = readdir(d);
        if (e == NULL) {
            r = errno != 0 ? -1 : 0;
            break;
        }
        r = each(ctx, e->d_name);
    }
    int kept = errno;
    closedir(d);
    errno = kept;
    return r;
}

static int lock_byte(int fd, int64_t at, short type)
{
    struct flock f;
    memset(&f, 0, sizeof f);
    f.l_type = type;
    f.l_whence = SEEK_SET;
    f.l_start = (off_t)at;
    f.l_len = 1;
    int r = fcntl(fd, F_OFD_SETLK, &f);
    if (r != 0 && errno == EACCES)
        errno = EAGAIN;
    return r;
}

static int sys_lock(int fd, int64_t at)
{
    return lock_byte(fd, at, F_WRLCK);
}

static int sys_unlock(int fd, int64_t at)
{
    return lock_byte(fd, at, F_UNLCK);
}

const struct idem_io_calls idem_io_system = {
    .open_at = sys_open_at,
    .close = close,
    .pread = pread,
    .pwrite = pwrite,
    .direct = sys_direct,
    .fdatasync = fdatasync,
    .fsync = fsync,
    .fallocate = sys_fallocate,
    .give = sys_give,
    .fstat = fstat,
    .stat_at = sys_stat_at,
    .rename_at = sys_rename_at,
    .replace_at = sys_replace_at,
    .unlink_at = sys_unlink_at,
    .mkdir_at = mkdirat,
    .list = sys_list,
    .lock = sys_lock,
    .unlock = sys_unlock,
    .hold_dir = sys_hold_dir,
};

#ifdef IDEM_TESTING
const struct idem_io_calls *idem_io = &idem_io_system;
#endif

int idem_io_write(int fd, const void *from, size_t n, uint64_t at)
{
    const uint8_t *p = from;
    while (n > 0) {
        ssize_t w = idem_io->pwrite(fd, p, n, (off_t)at);
        if (w < 0 && errno == EINTR)
            continue;
        if (w == 0)
            errno = ENOSPC;
        if (w <= 0)
            return -1;
        p += w;
        at += (uint64_t)w;
        n -= (size_t)w;
    }
    return 0;
}

ssize_t idem_io_read_some(int fd, void *to, size_t n, uint64_t at)
{
    ssize_t r;
    do
        r = idem_io->pread(fd, to, n, (off_t)at);
    while (r < 0 && errno == EINTR);
    return r;
}

ssize_t idem_io_read(int fd, void *to, size_t n, uint64_t at)
{
    uint8_t *p = to;
    size_t got = 0;
    while (got < n) {
        ssize_t r = idem_io_read_some(fd, p + got, n - got, at + got);
        if (r < 0)
            return -1;
        if (r == 0)
            break;
        got += (size_t)r;
    }
    return (ssize_t)got;
}

void idem_io_done(int fd)
{
    int kept = errno;
    idem_io->close(fd);
    errno = kept;
}
