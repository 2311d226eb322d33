/* tests/support/wal_record.c - the table of calls that does and records. See wal_disk.h. */
#include "support/wal_disk_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct wal_record *wal_rec;

static void lock(void)
{
    if (pthread_mutex_lock(&wal_rec->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&wal_rec->lock);
}
static void unlock(void)
{
    int kept = errno;
    pthread_mutex_unlock(&wal_rec->lock);
    errno = kept;
}

/* It counts when it is whole: who is killed here leaves none. */
static void record(const struct call *c)
{
    CHECK(wal_rec->calls < CALLS_MAX);
    wal_rec->call[wal_rec->calls] = *c;
    __atomic_store_n(&wal_rec->calls, wal_rec->calls + 1, __ATOMIC_RELEASE);
}
static void note(enum what what, ino_t inode)
{
    record(&(struct call){.what = (uint8_t)what, .inode = inode});
}
static ino_t inode_of(int fd)
{
    int kept = errno;
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    errno = kept;
    return st.st_ino;
}
static void note_names(enum what what, ino_t inode, const char *name, const char *to)
{
    struct call c = {.what = (uint8_t)what, .inode = inode};
    CHECK(strlen(name) < CALL_NAME_MAX && strlen(to) < CALL_NAME_MAX);
    memcpy(c.name, name, strlen(name) + 1);
    memcpy(c.to, to, strlen(to) + 1);
    record(&c);
}

enum kind { OPEN, PWRITE, FALLOCATE, SYNC, RENAME, UNLINK, MKDIR, PREAD, GIVE, FSTAT, STAT, LIST, LOCK, HOLD };

/* Under the lock. */
static bool fails(enum kind kind)
{
    wal_rec->seen++;
    if (wal_rec->fail_at == 0 || wal_rec->fail_with == WAL_SHORT || wal_rec->seen < wal_rec->fail_at)
        return false;
    if (wal_rec->seen == wal_rec->fail_at)
        wal_rec->fail_kind = kind;
    else if (!wal_rec->fail_for_good || kind != wal_rec->fail_kind)
        return false;
    errno = wal_rec->fail_with;
    return true;
}

static int r_open_at(int dir, const char *name, int flags, mode_t mode)
{
    lock();
    int fd = fails(OPEN) ? -1 : idem_io_system.open_at(dir, name, flags, mode);
    if (fd >= 0 && (flags & O_CREAT))
        note_names(MADE, inode_of(fd), name, "");
    unlock();
    return fd;
}
static ssize_t r_pwrite(int fd, const void *from, size_t n, off_t at)
{
    lock();
    bool cut = wal_rec->fail_with == WAL_SHORT && wal_rec->fail_at == wal_rec->seen + 1 && n > 1;
    ssize_t w = fails(PWRITE) ? -1 : idem_io_system.pwrite(fd, from, cut ? n / 2 : n, at);
    if (w > 0) {
        CHECK(wal_rec->bytes + (uint64_t)w <= BYTES_MAX);
        uint64_t bytes = wal_rec->bytes;
        memcpy(wal_rec->data + bytes, from, (size_t)w);
        wal_rec->bytes += (uint64_t)w;
        record(
            &(struct call){.what = WROTE, .inode = inode_of(fd), .at = (uint64_t)at, .n = (uint64_t)w, .bytes = bytes});
        wal_rec->unsynced += (uint64_t)w;
    }
    unlock();
    return w;
}
static int r_fallocate(int fd, off_t bytes)
{
    lock();
    int r = fails(FALLOCATE) ? -1 : idem_io_system.fallocate(fd, bytes);
    if (r == 0)
        record(&(struct call){.what = SIZED, .inode = inode_of(fd), .n = (uint64_t)bytes});
    unlock();
    return r;
}

/* A sync is durable from the moment it returns on; what it might do before is among what unsynced sectors may do. */
static int sync_with(int fd, int (*sync)(int), enum wal_lie lie)
{
    lock();
    ino_t inode = inode_of(fd);
    bool directory = inode == wal_rec->directory, parent = inode == wal_rec->parent;
    int r = 0;
    if (fails(SYNC)) {
        if (!directory && !parent)
            note(FAILED_SYNC, inode);
        r = -1;
    } else if (directory || parent) {
        if (wal_rec->lie != WAL_NO_DIRSYNC)
            note(directory ? DIR_SYNCED : PARENT_SYNCED, inode);
    } else if (wal_rec->fail_sync != 0 && wal_rec->unsynced >= wal_rec->fail_bytes && --wal_rec->fail_sync == 0) {
        note(FAILED_SYNC, inode);
        if (wal_rec->fail_kills) {
            unlock();
            raise(SIGKILL);
        }
        errno = EIO;
        r = -1;
    } else if (wal_rec->lie != lie) {
        r = sync(fd);
        if (r == 0)
            note(SYNCED, inode);
    }
    if (!directory && !parent)
        wal_rec->unsynced = 0;
    unlock();
    return r;
}
static int r_fdatasync(int fd)
{
    return sync_with(fd, idem_io_system.fdatasync, WAL_NO_FDATASYNC);
}
static int r_fsync(int fd)
{
    return sync_with(fd, idem_io_system.fsync, WAL_NO_FSYNC);
}

static int renamed(int r, const char *from, const char *to)
{
    if (r == 0)
        note_names(RENAMED, 0, from, to);
    unlock();
    return r;
}
static int r_rename_at(int dir, const char *from, const char *to)
{
    lock();
    return renamed(fails(RENAME) ? -1 : idem_io_system.rename_at(dir, from, to), from, to);
}
static int r_replace_at(int dir, const char *from, const char *to)
{
    lock();
    return renamed(fails(RENAME) ? -1 : idem_io_system.replace_at(dir, from, to), from, to);
}
static int r_unlink_at(int dir, const char *name)
{
    lock();
    int r = fails(UNLINK) ? -1 : idem_io_system.unlink_at(dir, name);
    if (r == 0)
        note_names(UNLINKED, 0, name, "");
    unlock();
    return r;
}
static int r_mkdir_at(int dir, const char *name, mode_t mode)
{
    lock();
    int r = fails(MKDIR) ? -1 : idem_io_system.mkdir_at(dir, name, mode);
    struct stat st;
    if (r == 0 && strcmp(name, wal_rec->path) == 0 && stat(name, &st) == 0) {
        wal_rec->directory = st.st_ino;
        note(MADE_DIR, st.st_ino);
    }
    unlock();
    return r;
}

/* Those that change nothing can only fail. */
static bool only_fails(enum kind kind)
{
    lock();
    bool f = fails(kind);
    unlock();
    return f;
}
static ssize_t r_pread(int fd, void *to, size_t n, off_t at)
{
    return only_fails(PREAD) ? -1 : idem_io_system.pread(fd, to, n, at);
}
static int r_give(int fd, gid_t group, mode_t mode)
{
    return only_fails(GIVE) ? -1 : idem_io_system.give(fd, group, mode);
}
static int r_fstat(int fd, struct stat *st)
{
    return only_fails(FSTAT) ? -1 : idem_io_system.fstat(fd, st);
}
static int r_stat_at(int dir, const char *name, struct stat *st)
{
    return only_fails(STAT) ? -1 : idem_io_system.stat_at(dir, name, st);
}
static int r_list(int dir, int (*each)(void *ctx, const char *name), void *ctx)
{
    return only_fails(LIST) ? -1 : idem_io_system.list(dir, each, ctx);
}
static int r_lock(int fd, int64_t at)
{
    return only_fails(LOCK) ? -1 : idem_io_system.lock(fd, at);
}
static int r_hold_dir(int dir)
{
    return only_fails(HOLD) ? -1 : idem_io_system.hold_dir(dir);
}

static struct idem_io_calls table;

void wal_record_begin(const char *directory, enum wal_lie lie)
{
    struct stat st;
    if (wal_rec == NULL) {
        pthread_mutexattr_t a;
        wal_rec =
            mmap(NULL, sizeof *wal_rec, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHECK(wal_rec != MAP_FAILED);
        CHECK(pthread_mutexattr_init(&a) == 0 && pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED) == 0);
        CHECK(pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST) == 0 &&
              pthread_mutex_init(&wal_rec->lock, &a) == 0);
    }
    CHECK(strlen(directory) < sizeof wal_rec->path);
    memcpy(wal_rec->path, directory, strlen(directory) + 1);
    memcpy(wal_rec->parent_path, wal_rec->path, sizeof wal_rec->path);
    *strrchr(wal_rec->parent_path, '/') = '\0';
    wal_rec->directory = stat(wal_rec->path, &st) == 0 ? st.st_ino : 0;
    CHECK(stat(wal_rec->parent_path, &st) == 0);
    wal_rec->parent = st.st_ino;
    wal_rec->lie = lie;
    wal_rec->fail_sync = 0;
    wal_rec->fail_kills = false;
    wal_rec->fail_bytes = wal_rec->unsynced = 0;
    wal_rec->fail_at = wal_rec->seen = 0;
    wal_rec->calls = 0;
    wal_rec->bytes = 0;
    table = idem_io_system;
    table.open_at = r_open_at;
    table.pwrite = r_pwrite;
    table.fallocate = r_fallocate;
    table.fdatasync = r_fdatasync;
    table.fsync = r_fsync;
    table.rename_at = r_rename_at;
    table.replace_at = r_replace_at;
    table.unlink_at = r_unlink_at;
    table.mkdir_at = r_mkdir_at;
    table.pread = r_pread;
    table.give = r_give;
    table.fstat = r_fstat;
    table.stat_at = r_stat_at;
    table.list = r_list;
    table.lock = r_lock;
    table.hold_dir = r_hold_dir;
    idem_io = &table;
}
void wal_record_lie(enum wal_lie lie)
{
    wal_rec->lie = lie;
}
void wal_record_end(void)
{
    idem_io = &idem_io_system;
}
void wal_record_told(uint64_t what)
{
    lock();
    record(&(struct call){.what = TOLD, .at = what});
    unlock();
}
void wal_record_fail_sync(unsigned nth)
{
    wal_rec->fail_sync = nth;
}
void wal_record_fail_call(unsigned nth, int error, bool for_good)
{
    lock();
    wal_rec->seen = 0;
    wal_rec->fail_at = nth;
    wal_rec->fail_with = error;
    wal_rec->fail_for_good = for_good;
    unlock();
}
unsigned wal_calls_seen(void)
{
    return wal_rec->seen;
}
void wal_record_fail_kills(bool kills)
{
    wal_rec->fail_kills = kills;
}
void wal_record_fail_only(uint64_t bytes)
{
    wal_rec->fail_bytes = bytes;
}
unsigned wal_recorded(void)
{
    return wal_rec->calls;
}

const char *wal_call_words(unsigned i)
{
    static const char *const words[] = {
        "create", "write", "fallocate",          "sync", "failed sync", "sync of the directory", "rename",
        "unlink", "mkdir", "sync of the parent", "told"};
    static char text[2 * CALL_NAME_MAX + 80];
    const struct call *c = &wal_rec->call[i];
    snprintf(text, sizeof text, "%s %s%s%s inode %llu %llu+%llu", words[c->what], c->name, c->to[0] ? " to " : "",
             c->to, (unsigned long long)c->inode, (unsigned long long)c->at, (unsigned long long)c->n);
    return text;
}
