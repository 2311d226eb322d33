/* tests/support/wal_disk.c - see wal_disk.h. */
#include "support/wal_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CALLS_MAX 20000u
#define BYTES_MAX (UINT64_C(96) << 20)
#define NAME_MAX_ 96u
#define SECTOR    512u
#define FILES_MAX 256u
#define NAMES_MAX 256u
#define TOLD_MAX  20000u

enum what { MADE, WROTE, SIZED, SYNCED, FAILED_SYNC, DIR_SYNCED, RENAMED, UNLINKED, MADE_DIR, PARENT_SYNCED, TOLD };

struct call {
    uint8_t what;
    ino_t inode;
    uint64_t at, n; /* told: at */
    uint64_t bytes; /* where the written ones lie */
    char name[NAME_MAX_], to[NAME_MAX_];
};

/* Shared by all processes that record. */
static struct record {
    pthread_mutex_t lock;
    enum wal_lie lie;
    unsigned fail_sync; /* counts down */
    uint64_t fail_bytes, unsynced;
    unsigned seen, fail_at; /* of all calls */
    int fail_with;
    bool fail_for_good;
    ino_t directory, parent;
    char path[512], parent_path[512];
    unsigned calls;
    uint64_t bytes;
    struct call call[CALLS_MAX];
    uint8_t data[BYTES_MAX];
} * rec;

/* ------------------------------------------------------------------ recording */

static void lock(void)
{
    if (pthread_mutex_lock(&rec->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&rec->lock);
}
static void unlock(void)
{
    int kept = errno;
    pthread_mutex_unlock(&rec->lock);
    errno = kept;
}

static struct call *note(enum what what, ino_t inode)
{
    CHECK(rec->calls < CALLS_MAX);
    struct call *c = &rec->call[rec->calls++];
    memset(c, 0, sizeof *c);
    c->what = (uint8_t)what;
    c->inode = inode;
    return c;
}
static ino_t inode_of(int fd)
{
    int kept = errno;
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    errno = kept;
    return st.st_ino;
}
static void set_name(char to[NAME_MAX_], const char *name)
{
    CHECK(strlen(name) < NAME_MAX_);
    memcpy(to, name, strlen(name) + 1);
}

/* Under the lock. */
static bool fails(void)
{
    rec->seen++;
    if (rec->fail_at == 0 || rec->fail_with == WAL_SHORT ||
        (rec->seen != rec->fail_at && !(rec->fail_for_good && rec->seen > rec->fail_at)))
        return false;
    errno = rec->fail_with;
    return true;
}

static int r_open_at(int dir, const char *name, int flags, mode_t mode)
{
    lock();
    int fd = fails() ? -1 : idem_io_system.open_at(dir, name, flags, mode);
    if (fd >= 0 && (flags & O_CREAT))
        set_name(note(MADE, inode_of(fd))->name, name);
    unlock();
    return fd;
}
static ssize_t r_pwrite(int fd, const void *from, size_t n, off_t at)
{
    lock();
    bool cut = rec->fail_with == WAL_SHORT && rec->fail_at == rec->seen + 1 && n > 1;
    ssize_t w = fails() ? -1 : idem_io_system.pwrite(fd, from, cut ? n / 2 : n, at);
    if (w > 0) {
        struct call *c = note(WROTE, inode_of(fd));
        CHECK(rec->bytes + (uint64_t)w <= BYTES_MAX);
        c->at = (uint64_t)at;
        c->n = (uint64_t)w;
        c->bytes = rec->bytes;
        memcpy(rec->data + rec->bytes, from, (size_t)w);
        rec->bytes += (uint64_t)w;
        rec->unsynced += (uint64_t)w;
    }
    unlock();
    return w;
}
static int r_fallocate(int fd, off_t bytes)
{
    lock();
    int r = fails() ? -1 : idem_io_system.fallocate(fd, bytes);
    if (r == 0)
        note(SIZED, inode_of(fd))->n = (uint64_t)bytes;
    unlock();
    return r;
}

/* A sync is durable from the moment it returns on; what it might do before is among what unsynced sectors may do. */
static int sync_with(int fd, int (*sync)(int), enum wal_lie lie)
{
    lock();
    ino_t inode = inode_of(fd);
    bool directory = inode == rec->directory, parent = inode == rec->parent;
    int r = 0;
    if (fails()) {
        if (!directory && !parent)
            note(FAILED_SYNC, inode);
        r = -1;
    } else if (directory || parent) {
        if (rec->lie != WAL_NO_DIRSYNC)
            note(directory ? DIR_SYNCED : PARENT_SYNCED, inode);
    } else if (rec->fail_sync != 0 && rec->unsynced >= rec->fail_bytes && --rec->fail_sync == 0) {
        note(FAILED_SYNC, inode);
        errno = EIO;
        r = -1;
    } else if (rec->lie != lie) {
        r = sync(fd);
        if (r == 0)
            note(SYNCED, inode);
    }
    if (!directory && !parent)
        rec->unsynced = 0;
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
    if (r == 0) {
        struct call *c = note(RENAMED, 0);
        set_name(c->name, from);
        set_name(c->to, to);
    }
    unlock();
    return r;
}
static int r_rename_at(int dir, const char *from, const char *to)
{
    lock();
    return renamed(fails() ? -1 : idem_io_system.rename_at(dir, from, to), from, to);
}
static int r_replace_at(int dir, const char *from, const char *to)
{
    lock();
    return renamed(fails() ? -1 : idem_io_system.replace_at(dir, from, to), from, to);
}
static int r_unlink_at(int dir, const char *name)
{
    lock();
    int r = fails() ? -1 : idem_io_system.unlink_at(dir, name);
    if (r == 0)
        set_name(note(UNLINKED, 0)->name, name);
    unlock();
    return r;
}
static int r_mkdir_at(int dir, const char *name, mode_t mode)
{
    lock();
    int r = fails() ? -1 : idem_io_system.mkdir_at(dir, name, mode);
    struct stat st;
    if (r == 0 && strcmp(name, rec->path) == 0 && stat(name, &st) == 0) {
        rec->directory = st.st_ino;
        note(MADE_DIR, st.st_ino);
    }
    unlock();
    return r;
}

/* Those that change nothing can only fail. */
static bool only_fails(void)
{
    lock();
    bool f = fails();
    unlock();
    return f;
}
static ssize_t r_pread(int fd, void *to, size_t n, off_t at)
{
    return only_fails() ? -1 : idem_io_system.pread(fd, to, n, at);
}
static int r_give(int fd, gid_t group, mode_t mode)
{
    return only_fails() ? -1 : idem_io_system.give(fd, group, mode);
}
static int r_fstat(int fd, struct stat *st)
{
    return only_fails() ? -1 : idem_io_system.fstat(fd, st);
}
static int r_stat_at(int dir, const char *name, struct stat *st)
{
    return only_fails() ? -1 : idem_io_system.stat_at(dir, name, st);
}
static int r_list(int dir, int (*each)(void *ctx, const char *name), void *ctx)
{
    return only_fails() ? -1 : idem_io_system.list(dir, each, ctx);
}
static int r_lock(int fd, int64_t at)
{
    return only_fails() ? -1 : idem_io_system.lock(fd, at);
}
static int r_hold_dir(int dir)
{
    return only_fails() ? -1 : idem_io_system.hold_dir(dir);
}

static struct idem_io_calls table;

void wal_record_begin(const char *directory, enum wal_lie lie)
{
    struct stat st;
    if (rec == NULL) {
        pthread_mutexattr_t a;
        rec = mmap(NULL, sizeof *rec, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHECK(rec != MAP_FAILED);
        CHECK(pthread_mutexattr_init(&a) == 0 && pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED) == 0);
        CHECK(pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST) == 0 && pthread_mutex_init(&rec->lock, &a) == 0);
    }
    CHECK(strlen(directory) < sizeof rec->path);
    memcpy(rec->path, directory, strlen(directory) + 1);
    memcpy(rec->parent_path, rec->path, sizeof rec->path);
    *strrchr(rec->parent_path, '/') = '\0';
    rec->directory = stat(rec->path, &st) == 0 ? st.st_ino : 0;
    CHECK(stat(rec->parent_path, &st) == 0);
    rec->parent = st.st_ino;
    rec->lie = lie;
    rec->fail_sync = 0;
    rec->fail_bytes = rec->unsynced = 0;
    rec->fail_at = rec->seen = 0;
    rec->calls = 0;
    rec->bytes = 0;
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
    rec->lie = lie;
}
void wal_record_end(void)
{
    idem_io = &idem_io_system;
}
void wal_record_told(uint64_t what)
{
    lock();
    note(TOLD, 0)->at = what;
    unlock();
}
void wal_record_fail_sync(unsigned nth)
{
    rec->fail_sync = nth;
}
void wal_record_fail_call(unsigned nth, int error, bool for_good)
{
    lock();
    rec->seen = 0;
    rec->fail_at = nth;
    rec->fail_with = error;
    rec->fail_for_good = for_good;
    unlock();
}
unsigned wal_calls_seen(void)
{
    return rec->seen;
}
void wal_record_fail_only(uint64_t bytes)
{
    rec->fail_bytes = bytes;
}
unsigned wal_recorded(void)
{
    return rec->calls;
}

const char *wal_call_words(unsigned i)
{
    static const char *const words[] = {
        "create", "write", "fallocate",          "sync", "failed sync", "sync of the directory", "rename",
        "unlink", "mkdir", "sync of the parent", "told"};
    static char text[2 * NAME_MAX_ + 80];
    const struct call *c = &rec->call[i];
    snprintf(text, sizeof text, "%s %s%s%s inode %llu %llu+%llu", words[c->what], c->name, c->to[0] ? " to " : "",
             c->to, (unsigned long long)c->inode, (unsigned long long)c->at, (unsigned long long)c->n);
    return text;
}

/* ------------------------------------------------------------------ the disk */

struct file {
    ino_t inode;
    uint64_t size, synced_size;
    uint64_t room;
    uint8_t *now, *synced; /* room bytes each */
    uint8_t *state;        /* a sector: */
};
enum { CLEAN, DIRTY, LEFT };

struct name {
    char name[NAME_MAX_];
    struct file *file; /* NULL: removed */
};
struct names {
    struct name name[NAMES_MAX];
    unsigned n;
};

struct wal_disk {
    unsigned applied;
    bool made, made_synced; /* the directory itself; its entry in the parent */
    struct file *files[FILES_MAX];
    unsigned n;
    struct names synced;
    struct name pending[NAMES_MAX]; /* since the directory's last sync, in order; file NULL: gone */
    unsigned pending_n;
    struct names now;
    uint64_t told[TOLD_MAX];
    unsigned told_n;
};

void wal_disk_free(struct wal_disk *d)
{
    for (unsigned i = 0; i < d->n; i++) {
        free(d->files[i]->now);
        free(d->files[i]->synced);
        free(d->files[i]->state);
        free(d->files[i]);
    }
    free(d);
}

static struct file *file_of(struct wal_disk *d, ino_t inode)
{
    for (unsigned i = d->n; i-- > 0;) /* an inode's number may come again: the newest */
        if (d->files[i]->inode == inode)
            return d->files[i];
    return NULL;
}
static void grow(struct file *f, uint64_t size)
{
    uint64_t room = (size + SECTOR - 1) / SECTOR * SECTOR;
    if (room > f->room) {
        f->now = realloc(f->now, room);
        f->synced = realloc(f->synced, room);
        f->state = realloc(f->state, room / SECTOR);
        CHECK(f->now != NULL && f->synced != NULL && f->state != NULL);
        memset(f->now + f->room, 0, room - f->room);
        memset(f->synced + f->room, 0, room - f->room);
        memset(f->state + f->room / SECTOR, CLEAN, (room - f->room) / SECTOR);
        f->room = room;
    }
    if (size > f->size)
        f->size = size;
}

static void set(struct names *names, const char *name, struct file *file)
{
    unsigned i = 0;
    while (i < names->n && strcmp(names->name[i].name, name) != 0)
        i++;
    if (i == names->n) {
        CHECK(names->n < NAMES_MAX);
        set_name(names->name[names->n++].name, name);
    }
    names->name[i].file = file;
}
static struct file *get(const struct names *names, const char *name)
{
    for (unsigned i = 0; i < names->n; i++)
        if (strcmp(names->name[i].name, name) == 0)
            return names->name[i].file;
    return NULL;
}
static void change(struct wal_disk *d, const char *name, struct file *file)
{
    CHECK(d->pending_n < NAMES_MAX);
    set_name(d->pending[d->pending_n].name, name);
    d->pending[d->pending_n++].file = file;
    set(&d->now, name, file);
}

static void sync_file(struct file *f, bool worked)
{
    for (uint64_t s = 0; s < f->room / SECTOR; s++)
        if (f->state[s] == DIRTY) {
            if (worked)
                memcpy(f->synced + s * SECTOR, f->now + s * SECTOR, SECTOR);
            f->state[s] = worked ? CLEAN : LEFT;
        }
    if (worked)
        f->synced_size = f->size;
}

static void load(struct wal_disk *d, const char *from, const char *name)
{
    char path[700];
    struct stat st;
    struct file *f = d->files[d->n++] = calloc(1, sizeof *f);
    CHECK(f != NULL && d->n < FILES_MAX);
    snprintf(path, sizeof path, "%s/%s", from, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    f->inode = st.st_ino;
    grow(f, (uint64_t)st.st_size);
    CHECK(st.st_size == 0 || idem_io_read(fd, f->now, (size_t)st.st_size, 0) == (ssize_t)st.st_size);
    CHECK(close(fd) == 0);
    memset(f->state, DIRTY, f->room / SECTOR);
    sync_file(f, true);
    set(&d->synced, name, f);
    set(&d->now, name, f);
}

struct wal_disk *wal_disk_new(const char *from)
{
    struct wal_disk *d = calloc(1, sizeof *d);
    CHECK(d != NULL);
    if (from == NULL)
        return d;
    DIR *all = opendir(from);
    CHECK(all != NULL);
    for (struct dirent *e; (e = readdir(all)) != NULL;)
        if (e->d_name[0] != '.')
            load(d, from, e->d_name);
    CHECK(closedir(all) == 0);
    d->made = d->made_synced = true;
    return d;
}

void wal_disk_apply(struct wal_disk *d, unsigned i)
{
    CHECK(i == d->applied && i < rec->calls);
    const struct call *c = &rec->call[i];
    struct file *f = c->inode != 0 ? file_of(d, c->inode) : NULL;
    d->applied++;
    switch ((enum what)c->what) {
    case MADE:
        CHECK(d->n < FILES_MAX);
        f = d->files[d->n++] = calloc(1, sizeof *f);
        CHECK(f != NULL);
        f->inode = c->inode;
        change(d, c->name, f);
        break;
    case WROTE:
        CHECK(f != NULL);
        grow(f, c->at + c->n);
        memcpy(f->now + c->at, rec->data + c->bytes, c->n);
        for (uint64_t s = c->at / SECTOR; s <= (c->at + c->n - 1) / SECTOR; s++)
            f->state[s] = DIRTY;
        break;
    case SIZED:
        CHECK(f != NULL);
        grow(f, c->n);
        break;
    case SYNCED:
    case FAILED_SYNC:
        CHECK(f != NULL);
        sync_file(f, c->what == SYNCED);
        break;
    case DIR_SYNCED:
        for (unsigned k = 0; k < d->pending_n; k++)
            set(&d->synced, d->pending[k].name, d->pending[k].file);
        d->pending_n = 0;
        break;
    case RENAMED:
        f = get(&d->now, c->name);
        CHECK(f != NULL);
        change(d, c->to, f);
        change(d, c->name, NULL);
        break;
    case UNLINKED:
        change(d, c->name, NULL);
        break;
    case MADE_DIR:
        d->made = true;
        break;
    case PARENT_SYNCED:
        d->made_synced = d->made;
        break;
    case TOLD:
        CHECK(d->told_n < TOLD_MAX);
        d->told[d->told_n++] = c->at;
        break;
    }
}

const uint64_t *wal_told(const struct wal_disk *d, unsigned *count)
{
    *count = d->told_n;
    return d->told;
}

/* ------------------------------------------------------------------ images */

static bool chosen(enum wal_keep keep, uint64_t *random)
{
    return keep == WAL_KEPT || (keep != WAL_LOST && (support_random(random) & 1));
}

static void write_file(const struct file *f, const char *at, const char *name, enum wal_keep keep, uint64_t *random)
{
    char path[700];
    uint64_t size = f->size != f->synced_size && chosen(keep, random) ? f->size : f->synced_size;
    snprintf(path, sizeof path, "%s/%s", at, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    static const uint8_t zeros[SECTOR];
    for (uint64_t s = 0; s * SECTOR < size; s++) {
        uint8_t bytes[SECTOR];
        memcpy(bytes, f->synced + s * SECTOR, SECTOR);
        if (f->state[s] != CLEAN) {
            if (keep == WAL_TORN && support_random(random) % 3 == 0)
                memcpy(bytes, f->now + s * SECTOR, support_random(random) % SECTOR);
            else if (chosen(keep, random))
                memcpy(bytes, f->now + s * SECTOR, SECTOR);
        }
        if (memcmp(bytes, zeros, SECTOR) != 0)
            CHECK(pwrite(fd, bytes, SECTOR, (off_t)(s * SECTOR)) == (ssize_t)SECTOR);
    }
    CHECK(ftruncate(fd, (off_t)size) == 0);
    CHECK(close(fd) == 0);
}

bool wal_disk_image(const struct wal_disk *d, const char *at, enum wal_keep names, enum wal_keep sectors,
                    uint64_t *random)
{
    support_remove(at);
    if (!d->made || (!d->made_synced && !chosen(names, random)))
        return false;
    CHECK(mkdir(at, 0700) == 0);
    struct names left = d->synced;
    for (unsigned k = 0; k < d->pending_n; k++)
        if (chosen(names, random))
            set(&left, d->pending[k].name, d->pending[k].file);
    for (unsigned k = 0; k < left.n; k++)
        if (left.name[k].file != NULL)
            write_file(left.name[k].file, at, left.name[k].name, sectors, random);
    return true;
}
