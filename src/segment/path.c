/* segment/path.c - see path.h. Holds no state. */
#include "segment/path.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/trust.h"
#include "idem.h"

#define LOCK_WAIT_MS 10000

static bool is_tmpfs(const struct statfs *fs)
{
    return fs->f_type == TMPFS_MAGIC || fs->f_type == RAMFS_MAGIC;
}

/* Of a name that is not empty. */
static bool name_ok(const char *name)
{
    size_t n = strlen(name);
    return n <= 200 && name[0] != '.' && name[0] != '-' &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

static int home_of_user(bool create, char *home, size_t size)
{
    snprintf(home, size, "/dev/shm/idem-%u", (unsigned)geteuid());
    if (create && mkdir(home, 0711) != 0 && errno != EEXIST)
        return idem_fail_errno("%s: cannot create the directory for this user's stores", home);
    struct stat st;
    if (lstat(home, &st) != 0)
        return create ? idem_fail_errno("%s", home) : IDEM_OK;
    if (!S_ISDIR(st.st_mode) || (st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & 022) != 0)
        return idem_fail(
            IDEM_E_PERMISSION,
            "%s: must be a directory of this user that nobody else can write; remove what was planted there", home);
    return IDEM_OK;
}

int idem_path_resolve(const char *dir, bool create, char path[IDEM_PATH_MAX])
{
    if (dir == NULL || *dir == '\0')
        return idem_fail(IDEM_E_INVALID, "dir: empty; give a path with a slash in it, or a NAME");
    int n;
    if (strchr(dir, '/') != NULL) {
        if (dir[0] == '/') {
            n = snprintf(path, IDEM_PATH_MAX, "%s", dir);
        } else {
            char cwd[IDEM_PATH_MAX];
            if (getcwd(cwd, sizeof cwd) == NULL)
                return idem_fail_errno("%s: cannot tell the working directory", dir);
            n = snprintf(path, IDEM_PATH_MAX, "%s/%s", cwd, dir);
        }
        if (n < 0 || n >= IDEM_PATH_MAX - 64)
            return idem_fail(IDEM_E_INVALID, "dir: longer than %d bytes", IDEM_PATH_MAX - 64);
        while (n > 1 && path[n - 1] == '/')
            path[--n] = '\0';
        return IDEM_OK;
    }
    if (!name_ok(dir))
        return idem_fail(
            IDEM_E_INVALID,
            "store name '%.200s': use letters, digits, '.', '_' and '-', not beginning with '.' or '-', or "
            "give a path with a slash in it",
            dir);
    struct statfs fs;
    if (statfs("/run/idem", &fs) == 0 && is_tmpfs(&fs)) {
        snprintf(path, IDEM_PATH_MAX, "/run/idem/%s", dir);
        if (access("/run/idem", W_OK) == 0 || access(path, F_OK) == 0)
            return IDEM_OK;
    }
    char home[64];
    int e = home_of_user(create, home, sizeof home);
    if (e != IDEM_OK)
        return e;
    snprintf(path, IDEM_PATH_MAX, "%s/%s", home, dir);
    return IDEM_OK;
}

int idem_path_open_dir(const char *path, bool *made, int64_t group, int *fd)
{
    bool new_one = false;
    if (made != NULL) {
        if (mkdir(path, 0700) == 0)
            new_one = true;
        else if (errno != EEXIST)
            return idem_fail_errno("%s: cannot create the store's directory", path);
    }
    int d = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (d < 0) {
        if (errno == ENOENT)
            return idem_fail(IDEM_E_NO_STORE, "%s: no store there; create it with `idem create` or IDEM_OPEN_CREATE",
                             path);
        if (errno == ELOOP || errno == ENOTDIR)
            return idem_fail(IDEM_E_PERMISSION, "%s: not a directory (symlinks are not followed)", path);
        if (errno == EACCES)
            return idem_fail(IDEM_E_PERMISSION, "%s: this user may not open it; is it shared with a group of yours?",
                             path);
        return idem_fail_errno("%s", path);
    }
    struct stat st;
    struct statfs fs;
    int e = IDEM_OK;
    if (fstat(d, &st) != 0 || fstatfs(d, &fs) != 0)
        e = idem_fail_errno("%s", path);
    else if (!idem_trusted(&st))
        e = idem_fail(
            IDEM_E_PERMISSION,
            "%s: owned by uid %u with mode %04o; a store's directory must be ours or root's (or shared with one of our "
            "groups) and not writable by others",
            path, (unsigned)st.st_uid, (unsigned)(st.st_mode & 07777));
    else if (!is_tmpfs(&fs))
        e = idem_fail(IDEM_E_PERMISSION, "%s: not on a tmpfs; put the store under /dev/shm or /run/idem", path);
    else if (new_one && ((group != 0 && fchown(d, (uid_t)-1, (gid_t)(group - 1)) != 0) ||
                         fchmod(d, group != 0 ? 02770 : 0700) != 0))
        e = idem_fail_errno("%s: cannot set its mode, or give it to its group", path);
    if (e != IDEM_OK) {
        int kept = errno;
        close(d);
        if (new_one)
            rmdir(path);
        errno = kept;
        return e;
    }
    if (made != NULL)
        *made = new_one;
    *fd = d;
    return IDEM_OK;
}

int idem_path_open_file(int dir_fd, const char *path, const char *name, int *fd, struct stat *st)
{
    int f = openat(dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (f >= 0 &&
        f <= STDERR_FILENO) { /* in a daemon without standard descriptors: what it prints must not land in the store */
        int low = f;
        f = fcntl(low, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        close(low);
    }
    if (f < 0) {
        if (errno == ENOENT)
            return idem_fail(IDEM_E_NO_STORE,
                             "%s/%s: not there; create the store with `idem create` or IDEM_OPEN_CREATE", path, name);
        if (errno == ELOOP || errno == EACCES || errno == EISDIR || errno == ENXIO)
            return idem_fail(IDEM_E_PERMISSION, "%s/%s: cannot be opened read-write as a plain file: %s", path, name,
                             strerror(errno));
        return idem_fail_errno("%s/%s", path, name);
    }
    int e = IDEM_OK;
    if (fstat(f, st) != 0)
        e = idem_fail_errno("%s/%s", path, name);
    else if (!S_ISREG(st->st_mode))
        e = idem_fail(IDEM_E_PERMISSION, "%s/%s: not a regular file; remove what was planted there", path, name);
    else if (st->st_nlink == 0)
        e = idem_fail(IDEM_E_NO_STORE, "%s/%s: was just removed", path, name);
    else if (st->st_nlink != 1)
        e = idem_fail(IDEM_E_PERMISSION, "%s/%s: has %u links, must have one", path, name, (unsigned)st->st_nlink);
    else if (!idem_trusted(st))
        e = idem_fail(IDEM_E_PERMISSION,
                      "%s/%s: owned by uid %u with mode %04o; must be ours or root's, not writable by others", path,
                      name, (unsigned)st->st_uid, (unsigned)(st->st_mode & 07777));
    if (e != IDEM_OK) {
        int kept = errno;
        close(f);
        errno = kept;
        return e;
    }
    *fd = f;
    return IDEM_OK;
}

int idem_path_lock(int dir_fd, const char *path)
{
    for (int waited_ms = 0;; waited_ms += 10) {
        if (flock(dir_fd, LOCK_EX | LOCK_NB) == 0)
            return IDEM_OK;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return idem_fail_errno("%s: flock", path);
        if (waited_ms >= LOCK_WAIT_MS)
            return idem_fail(IDEM_E_SYSTEM,
                             "%s: another process has been creating or removing this store for %d s; is it stopped?",
                             path, LOCK_WAIT_MS / 1000);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}
