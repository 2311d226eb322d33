/*
 * place.c - see place.h.
 */
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_PAGE   ((size_t)2 << 20)
#define TMPFS_MAGIC 0x01021994

/* ------------------------------------------------------------------ the directory */

static void no_huge(struct place *p, const char *what, int error)
{
    snprintf(p->no_huge, sizeof p->no_huge, "%s: %s", what, strerror(error));
}

/* Mounts a tmpfs on p->dir that nobody else sees. */
static bool mount_private(struct place *p, uint64_t bytes)
{
    char options[96];
    if (geteuid() != 0) {
        snprintf(p->no_huge, sizeof p->no_huge,
                 "mounting a tmpfs with huge=advise needs root; without it, name a folder on such a tmpfs with --dir");
        return false;
    }
    if (unshare(CLONE_NEWNS) != 0) {
        no_huge(p, "a private mount namespace cannot be had", errno);
        return false;
    }
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        no_huge(p, "mounts cannot be made private", errno);
        return false;
    }
    snprintf(options, sizeof options, "huge=advise,mode=0700,size=%" PRIu64, bytes);
    if (mount("idem-bench", p->dir, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) != 0) {
        no_huge(p, "a tmpfs with huge=advise cannot be mounted", errno);
        return false;
    }
    p->mounted = true;
    return true;
}

/* Asks by trying: four huge pages, mapped and looked up in smaps. */
static bool try_huge(struct place *p)
{
    char why[200];
    void *at = place_map(p, 4 * HUGE_PAGE, true, why, sizeof why);
    if (!at) {
        snprintf(p->no_huge, sizeof p->no_huge, "%s", why);
        return false;
    }
    uint64_t got = place_huge_bytes(at);
    place_unmap(at, 4 * HUGE_PAGE);
    if (got == 4 * HUGE_PAGE)
        return true;
    if (p->no_huge[0] == '\0')
        snprintf(p->no_huge, sizeof p->no_huge, "the kernel gave small pages on a tmpfs with huge=advise");
    return false;
}

int place_open(struct place *p, const char *parent, uint64_t bytes)
{
    struct statfs fs;
    memset(p, 0, sizeof *p);
    if (!parent)
        parent = "/dev/shm";
    if (snprintf(p->dir, sizeof p->dir, "%s/idem-bench-XXXXXX", parent) >= (int)sizeof p->dir) {
        fprintf(stderr, "bench: --dir %s: the path is too long\n", parent);
        return -1;
    }
    if (statfs(parent, &fs) != 0 || fs.f_type != TMPFS_MAGIC) {
        fprintf(stderr, "bench: --dir %s: not a tmpfs; stores live on one (try /dev/shm)\n", parent);
        return -1;
    }
    if (!mkdtemp(p->dir)) {
        fprintf(stderr, "bench: cannot make a directory in %s: %s\n", parent, strerror(errno));
        return -1;
    }
    p->made = true;
    p->huge = try_huge(p);
    if (!p->huge) {
        p->no_huge[0] = '\0';
        p->huge = mount_private(p, bytes) && try_huge(p);
    }
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    if (at->level > 0 && remove(path) != 0)
        fprintf(stderr, "bench: cannot remove %s: %s\n", path, strerror(errno));
    return 0;
}

void place_close(struct place *p)
{
    if (!p->made)
        return;
    if (p->mounted) {
        if (umount2(p->dir, MNT_DETACH) != 0)
            fprintf(stderr, "bench: cannot unmount %s: %s\n", p->dir, strerror(errno));
    } else {
        nftw(p->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    }
    if (rmdir(p->dir) != 0)
        fprintf(stderr, "bench: cannot remove %s: %s\n", p->dir, strerror(errno));
    p->made = false;
}

static int remove_any(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    remove(path);
    return 0;
}

void place_remove_tree(const char *path)
{
    nftw(path, remove_any, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

uint64_t place_free_bytes(const struct place *p)
{
    struct statvfs fs;
    uint64_t left = UINT64_MAX;
    uint64_t kib = 0;
    char line[128];
    if (statvfs(p->dir, &fs) == 0)
        left = (uint64_t)fs.f_bavail * fs.f_frsize;
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %" SCNu64 " kB", &kib) == 1 && kib * 1024 < left)
            left = kib * 1024;
    if (f)
        fclose(f);
    return left;
}

/* ------------------------------------------------------------------ mappings */

size_t place_rounded(size_t bytes)
{
    return (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
}

/* Maps fd at an address that is a multiple of 2 MiB, or no page of it could be huge. */
static void *map_aligned(int fd, size_t bytes)
{
    char *room = mmap(NULL, bytes + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return MAP_FAILED;
    size_t skip = (HUGE_PAGE - (uintptr_t)room % HUGE_PAGE) % HUGE_PAGE;
    void *at = mmap(room + skip, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    if (at == MAP_FAILED) {
        munmap(room, bytes + HUGE_PAGE);
        return MAP_FAILED;
    }
    if (skip > 0)
        munmap(room, skip);
    if (skip < HUGE_PAGE)
        munmap(room + skip + bytes, HUGE_PAGE - skip);
    return at;
}

void *place_map(const struct place *p, size_t bytes, bool huge, char *why, size_t why_bytes)
{
    char path[300];
    size_t whole = place_rounded(bytes);
    snprintf(path, sizeof path, "%s/floor-XXXXXX", p->dir);
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        snprintf(why, why_bytes, "%s: %s", path, strerror(errno));
        return NULL;
    }
    unlink(path);
    void *at = MAP_FAILED;
    if (ftruncate(fd, (off_t)whole) == 0)
        at = map_aligned(fd, whole);
    if (at == MAP_FAILED) {
        snprintf(why, why_bytes, "mapping %zu bytes in %s: %s", whole, p->dir, strerror(errno));
        close(fd);
        return NULL;
    }
    close(fd);
    /* Advice first, pages second: allocating under huge=advise before the advice gives small pages for good. */
    if (huge && madvise(at, whole, MADV_HUGEPAGE) != 0) {
        snprintf(why, why_bytes, "MADV_HUGEPAGE: %s", strerror(errno));
        munmap(at, whole);
        return NULL;
    }
    if (place_touch(at, whole) != 0) {
        snprintf(why, why_bytes, "allocating %zu bytes in %s: %s", whole, p->dir,
                 errno == EFAULT ? "the tmpfs is full" : strerror(errno));
        munmap(at, whole);
        return NULL;
    }
    return at;
}

void place_unmap(void *at, size_t bytes)
{
    if (at)
        munmap(at, place_rounded(bytes));
}

static int populate(void *at, size_t bytes, int advice)
{
    while (madvise(at, bytes, advice) != 0)
        if (errno != EAGAIN && errno != EINTR)
            return -1;
    return 0;
}

int place_touch(void *at, size_t bytes)
{
    return populate(at, place_rounded(bytes), MADV_POPULATE_WRITE);
}

int place_touch_files(const char *dir)
{
    char line[512];
    int result = 0;
    size_t dir_bytes = strlen(dir);
    FILE *f = fopen("/proc/self/maps", "re");
    if (!f)
        return -1;
    while (result == 0 && fgets(line, sizeof line, f)) {
        uintptr_t from = 0;
        uintptr_t to = 0;
        char access[8];
        int path_at = 0;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s %*s %*s %*s %n", &from, &to, access, &path_at) != 3 ||
            path_at == 0)
            continue;
        if (strncmp(line + path_at, dir, dir_bytes) != 0 || line[path_at + (int)dir_bytes] != '/' || access[3] != 's')
            continue;
        if (access[0] == 'r')
            result = populate((void *)from, to - from, access[1] == 'w' ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
    }
    fclose(f);
    return result;
}

void place_collapse_memory(void)
{
    char line[512];
    FILE *f = fopen("/proc/self/maps", "re");
    while (f && fgets(line, sizeof line, f)) {
        uintptr_t from = 0;
        uintptr_t to = 0;
        char access[8];
        unsigned long inode = 1;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s %*s %*s %lu", &from, &to, access, &inode) != 4 || inode != 0 ||
            strcmp(access, "rw-p") != 0)
            continue;
        from = (from + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        to = to / HUGE_PAGE * HUGE_PAGE;
        if (from >= to)
            continue;
        madvise((void *)from, to - from, MADV_HUGEPAGE);
        madvise((void *)from, to - from, MADV_COLLAPSE);
    }
    if (f)
        fclose(f);
}

uint64_t place_huge_bytes(const void *at)
{
    char line[512];
    bool ours = false;
    uint64_t kib = 0;
    FILE *f = fopen("/proc/self/smaps", "re");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f)) {
        uintptr_t from = 0;
        uintptr_t to = 0;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2)
            ours = from <= (uintptr_t)at && (uintptr_t)at < to;
        else if (ours && sscanf(line, "ShmemPmdMapped: %" SCNu64 " kB", &kib) == 1)
            break;
    }
    fclose(f);
    return kib * 1024;
}
