/* wal/files.c - see files.h. */
#include "wal/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/point.h"
#include "base/trust.h"

#define ID_NAME    "id"
#define ID_BYTES   (2 * IDEM_WAL_SECTOR_BYTES)
#define TMP_BYTES  64u
#define ID_TMP     "id.tmp"
#define PLACE_NAME "place"
#define PLACE_TMP  "place.tmp"

int idem_log_fail(const struct idem_log_dir *d, const char *name, const char *what)
{
    int kept = errno;
    idem_fail_errno("%s/%s: %s", d->path, name, what);
    if (kept == ENOSPC || kept == EDQUOT)
        return idem_fail(IDEM_E_LOG_SPACE, "%s/%s: %s: no space left; free some, the log goes on by itself", d->path,
                         name, what);
    return IDEM_E_LOG;
}

void idem_log_file_name(uint64_t number, char name[IDEM_LOG_NAME_BYTES])
{
    snprintf(name, IDEM_LOG_NAME_BYTES, "wal-%020llu", (unsigned long long)number);
}

static void tmp_name(const struct idem_file_rec *f, char name[TMP_BYTES])
{
    snprintf(name, TMP_BYTES, "wal-%020llu-%016llx.tmp", (unsigned long long)f->number, (unsigned long long)f->salt);
}

/* ------------------------------------------------------------------ directory and id */

static int open_file(struct idem_log_dir *d, const char *name, int flags, int *fd, struct stat *st)
{
    int f = idem_io->open_at(d->fd, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
    if (f < 0 && errno == ELOOP)
        return idem_fail(IDEM_E_PERMISSION, "%s/%s: a symlink; remove what was planted there", d->path, name);
    if (f < 0)
        return idem_log_fail(d, name, "open");
    int e = IDEM_OK;
    if (idem_io->fstat(f, st) != 0)
        e = idem_log_fail(d, name, "fstat");
    else if (!S_ISREG(st->st_mode) || st->st_nlink > 1 || !idem_trusted(st))
        e = idem_fail(IDEM_E_PERMISSION,
                      "%s/%s: must be a regular file with one link, ours or root's, not writable by others", d->path,
                      name);
    if (e != IDEM_OK) {
        idem_io_done(f);
        return e;
    }
    *fd = f;
    return IDEM_OK;
}

static int open_dir(const char *path, bool create, int64_t group, struct idem_log_dir *d)
{
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof d->path || path[0] != '/')
        return idem_fail(IDEM_E_INVALID, "wal_dir: an absolute path of at most %zu bytes is wanted",
                         sizeof d->path - 1);
    memcpy(d->path, path, n + 1);
    bool made = create && idem_io->mkdir_at(AT_FDCWD, path, 0700) == 0;
    if (create && !made && errno != EEXIST)
        return idem_log_fail(d, "", "mkdir");
    d->fd = idem_io->open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (d->fd < 0 && errno == ENOENT)
        return idem_fail(IDEM_E_NO_STORE, "%s: no log directory there", path);
    if (d->fd < 0 && (errno == ELOOP || errno == ENOTDIR))
        return idem_fail(IDEM_E_PERMISSION, "%s: not a directory (symlinks are not followed)", path);
    if (d->fd < 0)
        return idem_log_fail(d, "", "open");
    d->group = group != 0 ? (gid_t)(group - 1) : (gid_t)-1;
    struct stat st;
    if (idem_io->fstat(d->fd, &st) != 0)
        return idem_log_fail(d, "", "fstat");
    if (!idem_trusted(&st))
        return idem_fail(IDEM_E_PERMISSION,
                         "%s: owned by uid %u with mode %04o; must be ours or root's, not writable "
                         "by others",
                         path, (unsigned)st.st_uid, (unsigned)(st.st_mode & 07777));
    if (made && group != 0 && idem_io->give(d->fd, d->group, 02770) != 0)
        return idem_log_fail(d, "", "cannot give it to its group");
    return IDEM_OK;
}

/* Both sectors; the newer valid one goes to d->id, and *older says which to write next. An empty file is a new one. */
static int read_id(struct idem_log_dir *d, unsigned *older)
{
    uint8_t bytes[ID_BYTES];
    memset(bytes, 0, sizeof bytes);
    ssize_t n = idem_io_read(d->id_fd, bytes, sizeof bytes, 0);
    if (n < 0)
        return idem_log_fail(d, ID_NAME, "read");
    struct idem_log_id_rec id[2];
    enum idem_format f[2];
    memset(id, 0, sizeof id);
    for (unsigned i = 0; i < 2; i++)
        f[i] = idem_log_id_decode(bytes + i * IDEM_WAL_SECTOR_BYTES, &id[i]);
    if (f[0] == FORMAT_UNKNOWN || f[1] == FORMAT_UNKNOWN)
        return idem_fail(IDEM_E_VERSION, "%s/%s: %s; this library reads format %u", d->path, ID_NAME,
                         idem_format_words(FORMAT_UNKNOWN), IDEM_WAL_MAJOR);
    if (f[0] != FORMAT_OK && f[1] != FORMAT_OK) {
        *older = 0;
        if (f[0] == FORMAT_ZERO && f[1] == FORMAT_ZERO) {
            memset(&d->id, 0, sizeof d->id);
            return IDEM_OK;
        }
        return idem_fail(IDEM_E_LOG_DAMAGED, "%s/%s: neither sector is valid: the first %s; idem recover --salvage",
                         d->path, ID_NAME, idem_format_words(f[0]));
    }
    unsigned newer = f[0] != FORMAT_OK ? 1 : f[1] != FORMAT_OK ? 0 : id[1].sequence > id[0].sequence;
    d->id = id[newer];
    *older = 1 - newer;
    return IDEM_OK;
}

int idem_log_id_read(struct idem_log_dir *d)
{
    unsigned older;
    return read_id(d, &older);
}

int idem_log_id_write(struct idem_log_dir *d, struct idem_log_id_rec *id)
{
    uint8_t sector[IDEM_WAL_SECTOR_BYTES];
    unsigned older;
    int e = read_id(d, &older);
    if (e != IDEM_OK)
        return e;
    id->major = IDEM_WAL_MAJOR;
    id->minor = IDEM_WAL_MINOR;
    id->sequence = d->id.sequence + 1;
    idem_log_id_encode(id, sector);
    if (idem_io_write(d->id_fd, sector, sizeof sector, (uint64_t)older * IDEM_WAL_SECTOR_BYTES) != 0)
        return idem_log_fail(d, ID_NAME, "write");
    if (idem_io->fdatasync(d->id_fd) != 0)
        return idem_log_fail(d, ID_NAME, "fdatasync");
    IDEM_POINT("log.id");
    d->id = *id;
    return IDEM_OK;
}

/* An id file under its temporary name, complete. first: its first sector, NULL for an empty one. */
static int make_id(struct idem_log_dir *d, const uint8_t *first)
{
    uint8_t bytes[ID_BYTES];
    memset(bytes, 0, sizeof bytes);
    if (first != NULL)
        memcpy(bytes, first, IDEM_WAL_SECTOR_BYTES);
    idem_io->unlink_at(d->fd, ID_TMP); /* what a dead one left */
    int fd = idem_io->open_at(d->fd, ID_TMP, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return idem_log_fail(d, ID_TMP, "create");
    int e = IDEM_OK;
    if (d->group != (gid_t)-1 && idem_io->give(fd, d->group, 0660) != 0)
        e = idem_log_fail(d, ID_TMP, "cannot give it to its group");
    else if (idem_io_write(fd, bytes, sizeof bytes, 0) != 0)
        e = idem_log_fail(d, ID_TMP, "write");
    else if (idem_io->fsync(fd) != 0)
        e = idem_log_fail(d, ID_TMP, "fsync");
    idem_io->close(fd);
    return e;
}

static int attach_id(struct idem_log_dir *d)
{
    struct stat st;
    if (idem_io->stat_at(d->fd, ID_NAME, &st) != 0 && errno == ENOENT) {
        uint64_t *numbers;
        size_t count;
        int e = idem_log_list(d, &numbers, &count);
        free(numbers);
        if (e != IDEM_OK)
            return e;
        if (count == 0)
            return idem_fail(IDEM_E_NO_STORE, "%s: no log there, neither an id nor files", d->path);
        return idem_fail(IDEM_E_LOG_DAMAGED, "%s/%s: missing; it says whose log this is: idem recover --salvage",
                         d->path, ID_NAME);
    }
    int fd, e = open_file(d, ID_NAME, O_RDWR, &fd, &st);
    if (e != IDEM_OK)
        return e;
    if (d->id_fd >= 0)
        idem_io->close(d->id_fd);
    d->id_fd = fd;
    d->device = st.st_dev;
    d->inode = st.st_ino;
    return idem_log_id_read(d);
}

int idem_log_id_replace(struct idem_log_dir *d, struct idem_log_id_rec *id)
{
    uint8_t sector[IDEM_WAL_SECTOR_BYTES];
    id->major = IDEM_WAL_MAJOR;
    id->minor = IDEM_WAL_MINOR;
    id->sequence = d->id.sequence + 1;
    idem_log_id_encode(id, sector);
    int e = make_id(d, sector);
    if (e == IDEM_OK && idem_io->replace_at(d->fd, ID_TMP, ID_NAME) != 0)
        e = idem_log_fail(d, ID_NAME, "rename");
    IDEM_POINT("log.id.replaced");
    if (e == IDEM_OK)
        e = idem_log_dir_sync(d);
    return e == IDEM_OK ? attach_id(d) : e;
}

int idem_log_dir_hold(struct idem_log_dir *d)
{
    if (idem_io->hold_dir(d->fd) == 0)
        return IDEM_OK;
    return errno == EWOULDBLOCK || errno == EINTR ? 1 : idem_log_fail(d, "", "flock");
}

/* The directory's own name. Before there is an id, so that who finds one knows that this was done, whoever made the directory. */
static int sync_parent(const struct idem_log_dir *d)
{
    char parent[IDEM_LOG_PATH_MAX];
    snprintf(parent, sizeof parent, "%s", d->path);
    char *slash = parent + strlen(parent);
    while (slash > parent && slash[-1] == '/') /* "/log/" is in "/" as "/log" is */
        slash--;
    while (slash > parent && slash[-1] != '/')
        slash--;
    *slash = '\0';
    int fd = idem_io->open_at(AT_FDCWD, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0 && errno == EACCES) /* not ours to read: whoever is in charge of it made the log directory, too */
        return IDEM_OK;
    if (fd < 0)
        return idem_log_fail(d, "..", "open");
    int e = idem_io->fsync(fd) == 0 ? IDEM_OK : idem_log_fail(d, "..", "fsync of the parent directory");
    idem_io_done(fd);
    return e;
}

/* An empty one, if there is none: of two who make it at once the first one's stays. */
static int open_id(bool create, struct idem_log_dir *d)
{
    struct stat st;
    if (create && idem_io->stat_at(d->fd, ID_NAME, &st) != 0 && errno == ENOENT) {
        int e = sync_parent(d);
        if (e == IDEM_OK)
            e = make_id(d, NULL);
        if (e == IDEM_OK && idem_io->rename_at(d->fd, ID_TMP, ID_NAME) != 0 && errno != EEXIST)
            e = idem_log_fail(d, ID_NAME, "rename");
        if (e == IDEM_OK)
            e = idem_log_dir_sync(d);
        if (e != IDEM_OK)
            return e;
    }
    return attach_id(d);
}

int idem_log_dir_open(const char *path, bool create, int64_t group, struct idem_log_dir *d)
{
    memset(d, 0, sizeof *d);
    d->fd = d->id_fd = -1;
    int e = open_dir(path, create, group, d);
    if (e == IDEM_OK)
        e = open_id(create, d);
    if (e != IDEM_OK) {
        idem_log_dir_close(d);
    }
    return e;
}

int idem_log_dir_open_raw(const char *path, struct idem_log_dir *d)
{
    memset(d, 0, sizeof *d);
    d->fd = d->id_fd = -1;
    int e = open_dir(path, false, 0, d);
    if (e != IDEM_OK) {
        idem_log_dir_close(d);
    }
    return e;
}

void idem_log_dir_close(struct idem_log_dir *d)
{
    if (d->id_fd >= 0)
        idem_io_done(d->id_fd);
    if (d->fd >= 0)
        idem_io_done(d->fd);
    d->fd = d->id_fd = -1;
}

int idem_log_ours(struct idem_log_dir *d, const uint8_t uuid[16], const uint8_t instance[16])
{
    char path[IDEM_LOG_PATH_MAX + 8];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", d->path, ID_NAME);
    if (idem_io->stat_at(AT_FDCWD, path, &st) != 0 || st.st_dev != d->device || st.st_ino != d->inode)
        return idem_fail(IDEM_E_LOG,
                         "%s: the log directory was removed or replaced under a running store; put it back, "
                         "or destroy the store",
                         d->path);
    int e = idem_log_id_read(d);
    if (e != IDEM_OK)
        return e;
    if (d->id.destroyed != 0 || memcmp(d->id.uuid, uuid, 16) != 0 || memcmp(d->id.instance, instance, 16) != 0)
        return idem_fail(IDEM_E_STALE, "%s: the log was taken over by another segment of this store, or destroyed",
                         d->path);
    return IDEM_OK;
}

int idem_log_dir_sync(struct idem_log_dir *d)
{
    if (IDEM_FAULT("log.no_dirsync"))
        return IDEM_OK;
    return idem_io->fsync(d->fd) == 0 ? IDEM_OK : idem_log_fail(d, "", "fsync of the directory");
}

/* ------------------------------------------------------------------ listing */

struct listing {
    uint64_t *numbers;
    size_t count, room;
};

static int note_name(void *ctx, const char *name)
{
    struct listing *l = ctx;
    uint64_t number = 0;
    char again[IDEM_LOG_NAME_BYTES];
    if (strncmp(name, "wal-", 4) != 0)
        return 0;
    for (const char *p = name + 4; *p >= '0' && *p <= '9' && number < UINT64_MAX / 10 - 1; p++)
        number = number * 10 + (uint64_t)(*p - '0');
    idem_log_file_name(number, again);
    if (number == 0 || strcmp(again, name) != 0)
        return 0;
    if (l->count == l->room) {
        size_t room = l->room == 0 ? 64 : l->room * 2;
        uint64_t *more = realloc(l->numbers, room * sizeof *more);
        if (more == NULL)
            return IDEM_E_MEMORY;
        l->numbers = more;
        l->room = room;
    }
    l->numbers[l->count++] = number;
    return 0;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int idem_log_list(struct idem_log_dir *d, uint64_t **numbers, size_t *count)
{
    struct listing l = {NULL, 0, 0};
    int r = idem_io->list(d->fd, note_name, &l);
    *numbers = NULL;
    *count = 0;
    if (r != 0) {
        int e = r == IDEM_E_MEMORY ? idem_fail(r, "no memory for the list of log files") : idem_log_fail(d, "", "list");
        free(l.numbers);
        return e;
    }
    if (l.count > 0)
        qsort(l.numbers, l.count, sizeof *l.numbers, ascending);
    *numbers = l.numbers;
    *count = l.count;
    return IDEM_OK;
}

/* ------------------------------------------------------------------ files */

void idem_log_file_discard(struct idem_log_dir *d, const struct idem_file_rec *f)
{
    char name[TMP_BYTES];
    int kept = errno;
    tmp_name(f, name);
    idem_io->unlink_at(d->fd, name);
    errno = kept;
}

static int remove_tmp(void *ctx, const char *name)
{
    const struct idem_log_dir *d = ctx;
    size_t n = strlen(name);
    if (strncmp(name, "wal-", 4) == 0 && n > 4 && strcmp(name + n - 4, ".tmp") == 0)
        idem_io->unlink_at(d->fd, name);
    return 0;
}

int idem_log_clear_tmp(struct idem_log_dir *d)
{
    return idem_io->list(d->fd, remove_tmp, d) == 0 ? IDEM_OK : idem_log_fail(d, "", "list");
}

int idem_log_file_make(struct idem_log_dir *d, struct idem_file_rec *f, int *fd)
{
    uint8_t header[IDEM_WAL_HEADER_BYTES];
    char name[TMP_BYTES];
    f->major = IDEM_WAL_MAJOR;
    f->minor = IDEM_WAL_MINOR;
    f->features_required = f->features_optional = 0;
    tmp_name(f, name);
    idem_log_file_discard(d, f); /* our own, of an attempt that failed */
    int t = idem_io->open_at(d->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (t < 0)
        return idem_log_fail(d, name, "create");
    int e = IDEM_OK, r;
    idem_file_encode(f, header);
    if (d->group != (gid_t)-1 && idem_io->give(t, d->group, 0660) != 0)
        e = idem_log_fail(d, name, "cannot give it to its group");
    while (e == IDEM_OK && (r = idem_io->fallocate(t, (off_t)f->bytes)) != 0)
        if (errno != EINTR)
            e = idem_log_fail(d, name, "fallocate");
    if (e == IDEM_OK && idem_io_write(t, header, sizeof header, 0) != 0)
        e = idem_log_fail(d, name, "write");
    IDEM_POINT("log.file.made");
    if (e != IDEM_OK) {
        idem_io_done(t);
        idem_log_file_discard(d, f);
        return e;
    }
    *fd = t;
    return IDEM_OK;
}

int idem_log_file_publish(struct idem_log_dir *d, const struct idem_file_rec *f, int fd)
{
    char from[TMP_BYTES], to[IDEM_LOG_NAME_BYTES];
    tmp_name(f, from);
    idem_log_file_name(f->number, to);
    int e = IDEM_OK;
    if (idem_io->fsync(fd) != 0) {
        e = idem_log_fail(d, from, "fsync");
    } else if (idem_io->rename_at(d->fd, from, to) != 0) {
        e = errno == EEXIST ? idem_fail(IDEM_E_EXISTS, "%s/%s: there already", d->path, to)
                            : idem_log_fail(d, to, "rename");
    } else {
        IDEM_POINT("log.file.named");
        return idem_log_dir_sync(d);
    }
    idem_log_file_discard(d, f);
    return e;
}

int idem_log_file_open(struct idem_log_dir *d, uint64_t number, const uint8_t *uuid, bool writable,
                       struct idem_file_rec *f, int *fd)
{
    uint8_t header[IDEM_WAL_HEADER_BYTES];
    char name[IDEM_LOG_NAME_BYTES];
    struct stat st;
    int t;
    memset(header, 0, sizeof header);
    memset(f, 0, sizeof *f);
    idem_log_file_name(number, name);
    if (idem_io->stat_at(d->fd, name, &st) != 0 && errno == ENOENT)
        return idem_fail(IDEM_E_LOG_DAMAGED, "%s/%s: missing; put it back, or idem recover --salvage", d->path, name);
    int e = open_file(d, name, writable ? O_RDWR : O_RDONLY, &t, &st);
    if (e != IDEM_OK)
        return e;
    enum idem_format how = FORMAT_ZERO;
    if (idem_io_read(t, header, sizeof header, 0) < 0)
        e = idem_log_fail(d, name, "read");
    else if ((how = idem_file_decode(header, f)) == FORMAT_UNKNOWN)
        e = idem_fail(IDEM_E_VERSION, "%s/%s: log format %u.%u with features %llx, this library reads %u", d->path,
                      name, f->major, f->minor, (unsigned long long)f->features_required, IDEM_WAL_MAJOR);
    else if (how != FORMAT_OK)
        e = idem_fail(IDEM_E_LOG_DAMAGED, "%s/%s: the file's header %s; idem recover --salvage", d->path, name,
                      idem_format_words(how));
    else if (uuid != NULL && memcmp(uuid, f->uuid, 16) != 0)
        e = idem_fail(IDEM_E_LOG_FOREIGN, "%s/%s: a file of another store; move it away", d->path, name);
    else if (f->number != number)
        e = idem_fail(IDEM_E_LOG_DAMAGED, "%s/%s: its header says file %llu; it was renamed or copied", d->path, name,
                      (unsigned long long)f->number);
    else if ((uint64_t)st.st_size != f->bytes)
        e = idem_fail(IDEM_E_LOG_DAMAGED,
                      "%s/%s: %llu bytes, its header says %llu; it was cut: idem recover --salvage keeps what is left",
                      d->path, name, (unsigned long long)st.st_size, (unsigned long long)f->bytes);
    if (e != IDEM_OK) {
        idem_io_done(t);
        return e;
    }
    *fd = t;
    return IDEM_OK;
}

int idem_log_file_open_raw(struct idem_log_dir *d, uint64_t number, int *fd, uint64_t *bytes)
{
    char name[IDEM_LOG_NAME_BYTES];
    struct stat st;
    idem_log_file_name(number, name);
    int e = open_file(d, name, O_RDONLY, fd, &st);
    *bytes = e == IDEM_OK ? (uint64_t)st.st_size : 0;
    return e;
}

int idem_log_place_write(struct idem_log_dir *d, const char *path)
{
    idem_io->unlink_at(d->fd, PLACE_TMP); /* what a dead one left */
    int fd = idem_io->open_at(d->fd, PLACE_TMP, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return idem_log_fail(d, PLACE_TMP, "create");
    int e = IDEM_OK;
    if (d->group != (gid_t)-1 && idem_io->give(fd, d->group, 0660) != 0)
        e = idem_log_fail(d, PLACE_TMP, "cannot give it to its group");
    else if (idem_io_write(fd, path, strlen(path), 0) != 0)
        e = idem_log_fail(d, PLACE_TMP, "write");
    idem_io_done(fd);
    if (e == IDEM_OK && idem_io->replace_at(d->fd, PLACE_TMP, PLACE_NAME) != 0)
        e = idem_log_fail(d, PLACE_NAME, "rename");
    return e;
}

void idem_log_place_read(struct idem_log_dir *d, char path[IDEM_LOG_PATH_MAX])
{
    struct stat st;
    int fd;
    path[0] = '\0';
    if (idem_io->stat_at(d->fd, PLACE_NAME, &st) != 0 || open_file(d, PLACE_NAME, O_RDONLY, &fd, &st) != IDEM_OK)
        return;
    ssize_t n = idem_io_read(fd, path, IDEM_LOG_PATH_MAX - 1, 0);
    idem_io->close(fd);
    path[n > 0 ? n : 0] = '\0';
    if (path[0] != '/' || strlen(path) != (size_t)n)
        path[0] = '\0';
}

int idem_log_file_delete(struct idem_log_dir *d, uint64_t number)
{
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(number, name);
    if (idem_io->unlink_at(d->fd, name) != 0 && errno != ENOENT)
        return idem_log_fail(d, name, "unlink");
    IDEM_POINT("log.file.deleted");
    return IDEM_OK;
}
