/*
 * segment/create.c - making and removing a store's files.
 *
 * Owns: allocation of all space (so that a full tmpfs fails here), the order that makes creation atomic:
 * generation file complete, root complete under a temporary name, rename without replacing. All under the directory's
 * flock, so that clearing away a dead creator's files cannot hit a live one's.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/point.h"
#include "segment/path.h"
#include "segment/view.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static int fill_random(void *at, size_t n)
{
    uint8_t *p = at;
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            return idem_fail_errno("getrandom");
        }
        p += got;
        n -= (size_t)got;
    }
    return IDEM_OK;
}

static uint64_t checksum_of(const void *fixed, size_t bytes)
{
    return XXH3_64bits(fixed, bytes - sizeof(uint64_t));
}

/* A new file of `bytes` with all its space, mapped. On error nothing is left of it. */
static int make_file(int dir_fd, const char *path, const char *name, uint64_t bytes, int64_t group, bool huge,
                     void **map)
{
    int e;
    void *at = MAP_FAILED;
    int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return idem_fail_errno("%s/%s: cannot create it", path, name);
    if ((group != 0 && fchown(fd, (uid_t)-1, (gid_t)(group - 1)) != 0) || fchmod(fd, group != 0 ? 0660 : 0600) != 0) {
        e = idem_fail_errno("%s/%s: cannot set its mode, or give it to its group", path, name);
        goto fail;
    }
    if (ftruncate(fd, (off_t)bytes) != 0) {
        e = idem_fail_errno("%s/%s: ftruncate to %llu bytes", path, name, (unsigned long long)bytes);
        goto fail;
    }
    at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        e = idem_fail_errno("%s/%s: mmap of %llu bytes", path, name, (unsigned long long)bytes);
        goto fail;
    }
    if (huge)
        madvise(at, bytes, MADV_HUGEPAGE); /* before the first touch: allocated pages are not joined later */
    int r = madvise(at, bytes, MADV_POPULATE_WRITE);
    if (r != 0 && errno == EINVAL) /* Linux before 5.14 */
        r = (errno = posix_fallocate(fd, 0, (off_t)bytes)) == 0 ? 0 : -1;
    if (r != 0) {
        if (errno == EFAULT)
            errno = ENOSPC; /* what the populate call says on a full tmpfs */
        e = idem_fail_errno(
            "%s/%s: %llu bytes are needed; enlarge this tmpfs, or create a store for fewer keys or a smaller "
            "response",
            path, name, (unsigned long long)bytes);
        goto fail;
    }
    close(fd);
    *map = at;
    return IDEM_OK;
fail:;
    int kept = errno;
    if (at != MAP_FAILED)
        munmap(at, bytes);
    close(fd);
    unlinkat(dir_fd, name, 0);
    errno = kept;
    return e;
}

void idem_uuid_text(const uint8_t uuid[16], char text[33])
{
    for (int i = 0; i < 16; i++)
        snprintf(text + 2 * i, 3, "%02x", uuid[i]);
}

/* Under the directory's lock and with no valid root: whatever creators left. -1 and errno: something is still there. */
static int clear_leftovers(int dir_fd)
{
    int d = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d < 0)
        return -1;
    DIR *dir = fdopendir(d);
    int failed = dir == NULL ? errno : 0;
    struct dirent *ent;
    while (dir != NULL && (errno = 0, ent = readdir(dir)) != NULL)
        if ((strncmp(ent->d_name, "gen-", 4) == 0 || strncmp(ent->d_name, "root.tmp-", 9) == 0) &&
            unlinkat(dir_fd, ent->d_name, 0) != 0)
            failed = errno;
    if (dir == NULL) {
        close(d);
    } else {
        failed = errno != 0 ? errno : failed;
        closedir(dir);
    }
    errno = failed;
    return failed == 0 ? 0 : -1;
}

int idem_boot_id(uint8_t boot_id[40])
{
    memset(boot_id, 0, 40);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return idem_fail_errno("/proc/sys/kernel/random/boot_id");
    ssize_t n = read(fd, boot_id, 36);
    close(fd);
    return n == 36 ? IDEM_OK : idem_fail_errno("/proc/sys/kernel/random/boot_id: %zd bytes", n);
}

static int fill_log_const(const idem_options *o, const struct idem_rebirth *again, struct idem_log_const *l)
{
    memset(l, 0, sizeof *l);
    if (o->wal_dir == NULL)
        return IDEM_OK;
    if (again != NULL) {
        memcpy(l->instance, again->instance, sizeof l->instance);
        l->floor_ms = again->floor_ms;
    } else {
        int e = fill_random(l->instance, sizeof l->instance);
        if (e != IDEM_OK)
            return e;
    }
    l->durability_claim = o->durability_claim;
    l->durability_complete = o->durability_complete;
    l->flush_interval_ms = o->flush_interval_ms;
    l->log_wait_ms = o->log_wait_ms;
    l->file_bytes = o->wal_file_bytes;
    l->ring_refs = o->wal_ring_refs;
    memcpy(l->wal_dir, o->wal_dir,
           strlen(o->wal_dir)); /* who opened that directory, or checked the options, knows that it fits */
    l->checksum = checksum_of(l, sizeof *l);
    return IDEM_OK;
}

static int fill_root_const(const idem_options *o, const struct idem_rebirth *again, struct idem_root_const *f)
{
    memset(f, 0, sizeof *f);
    f->layout_major = IDEM_LAYOUT_MAJOR;
    f->layout_minor = IDEM_LAYOUT_MINOR;
    int e = fill_random(f->uuid, sizeof f->uuid);
    if (e == IDEM_OK)
        e = fill_random(f->secret, sizeof f->secret);
    if (e == IDEM_OK)
        e = idem_boot_id(f->boot_id);
    if (e != IDEM_OK)
        return e;
    int64_t host_ms = idem_clock_shifted_ms(idem_clock_namespace_shift_ns());
    f->created_ms = IDEM_FAULT("clock.from_zero") ? 1 : idem_clock_wall_ms();
    if (again != NULL) {
        memcpy(f->uuid, again->uuid, sizeof f->uuid);
        memcpy(f->secret, again->secret, sizeof f->secret);
        f->created_ms = again->now_ms;
    }
    f->clock_base_ms = f->created_ms - host_ms;
    f->ttl_ms = o->ttl_ms;
    f->lease_ms = o->lease_ms;
    f->keys = o->keys;
    f->group = o->group;
    f->response_bytes = o->response_bytes;
    f->when_full = o->when_full;
    f->processes_max = o->processes;
    f->lanes_max = o->lanes;
    f->features_required = o->wal_dir != NULL ? IDEM_FEATURE_LOG : 0;
    f->root_bytes = idem_root_bytes(o->processes, o->lanes, o->wal_dir != NULL ? o->wal_ring_refs : 0);
    return IDEM_OK;
}

static int make_generation(int dir_fd, const char *path, const idem_options *o, struct idem_root_const *f,
                           const char *name, struct idem_mapping *gen)
{
    struct idem_generation_const g;
    memset(&g, 0, sizeof g);
    int e = idem_geometry(o, &g, &f->keys);
    if (e != IDEM_OK)
        return e;
    g.layout_major = IDEM_LAYOUT_MAJOR;
    g.layout_minor = IDEM_LAYOUT_MINOR;
    memcpy(g.uuid, f->uuid, sizeof g.uuid);
    g.number = 1;
    g.checksum = checksum_of(&g, sizeof g);
    void *map;
    e = make_file(dir_fd, path, name, g.file_bytes, o->group, o->huge != IDEM_HUGE_OFF, &map);
    if (e != IDEM_OK)
        return e;
    if (o->huge == IDEM_HUGE_REQUIRE && idem_huge_bytes(map, g.file_bytes) == 0) {
        munmap(map, g.file_bytes);
        unlinkat(dir_fd, name, 0);
        errno = EOPNOTSUPP;
        return idem_fail(
            IDEM_E_SYSTEM,
            "%s: got no huge pages; mount a tmpfs for stores with them: mount -t tmpfs -o huge=advise,mode=1777 "
            "tmpfs /run/idem",
            path);
    }
    struct idem_generation_shm *head = map;
    memcpy(&head->fixed, &g, sizeof g);
    struct idem_region_shm *regions = (struct idem_region_shm *)((uint8_t *)map + g.regions_off);
    for (uint64_t i = 0; i < g.region_count; i++)
        store_relaxed(&regions[i].state, UINT64_C(1) << 48); /* relaxed: before the magic; phase free, generation 1 */
    store_release(&head->magic, IDEM_GENERATION_MAGIC);      /* P6 release: everything above */
    *gen = (struct idem_mapping){map, g.file_bytes};
    return IDEM_OK;
}

/* d: the directory of a new log, claimed: its first file is made here, before anybody can find the root. */
static int create_hidden(const char *path, const idem_options *o, const struct idem_rebirth *again,
                         struct idem_log_dir *d, int dir_fd, char root_name[IDEM_ROOT_NAME_BYTES],
                         struct idem_mapping *gen)
{
    struct idem_root_const f;
    struct idem_log_const l;
    int e = fill_root_const(o, again, &f);
    if (e == IDEM_OK)
        e = fill_log_const(o, again, &l);
    if (e != IDEM_OK)
        return e;
    clear_leftovers(dir_fd); /* what can't be removed only takes space */
    char uuid[33], gen_name[64];
    idem_uuid_text(f.uuid, uuid);
    snprintf(gen_name, sizeof gen_name, "gen-%s-1", uuid);
    snprintf(root_name, IDEM_ROOT_NAME_BYTES, "root.tmp-%s", uuid);
    e = make_generation(dir_fd, path, o, &f, gen_name, gen);
    if (e != IDEM_OK)
        return e;
    IDEM_POINT("create.generation");
    void *map;
    e = make_file(dir_fd, path, root_name, f.root_bytes, o->group, false, &map);
    if (e != IDEM_OK) {
        int kept = errno;
        munmap(gen->at, gen->bytes);
        unlinkat(dir_fd, gen_name, 0);
        errno = kept;
        return e;
    }
    struct idem_root_shm *root = map;
    f.checksum = checksum_of(&f, sizeof f);
    memcpy(&root->fixed, &f, sizeof f);
    memcpy(&root->log, &l, sizeof l);
    store_relaxed(&root->generations, 1); /* relaxed: before the magic */
    if (d != NULL)
        e = idem_logdir_begin(d, &f, &l, root->log_control);
    if (d != NULL && e == IDEM_OK)
        e = idem_log_place_write(d, path);
    store_release(&root->magic, IDEM_ROOT_MAGIC); /* P6 release: everything above */
    munmap(map, f.root_bytes);
    IDEM_POINT("create.root");
    if (e != IDEM_OK) {
        munmap(gen->at, gen->bytes);
        idem_create_discard(dir_fd, root_name);
    }
    return e;
}

int idem_create_hidden(const char *path, const idem_options *o, const struct idem_rebirth *again, int dir_fd,
                       char root_name[IDEM_ROOT_NAME_BYTES], struct idem_mapping *gen)
{
    return create_hidden(path, o, again, NULL, dir_fd, root_name, gen);
}

void idem_create_discard(int dir_fd, const char *root_name)
{
    char gen_name[64];
    int kept = errno;
    snprintf(gen_name, sizeof gen_name, "gen-%.32s-1", root_name + strlen("root.tmp-"));
    unlinkat(dir_fd, root_name, 0);
    unlinkat(dir_fd, gen_name, 0);
    errno = kept;
}

int idem_create_reveal(const char *path, int dir_fd, const char *root_name)
{
    if (renameat(dir_fd, root_name, dir_fd, "root") != 0)
        return idem_fail_errno("%s/root: rename from %s", path, root_name);
    IDEM_POINT("create.renamed");
    return IDEM_OK;
}

/* Without a log, or under the log directory's lock. */
static int create_and_reveal(const char *path, const idem_options *o, struct idem_log_dir *d, int dir_fd)
{
    char root_name[IDEM_ROOT_NAME_BYTES];
    struct idem_mapping gen;
    int e = create_hidden(path, o, NULL, d, dir_fd, root_name, &gen);
    if (e != IDEM_OK)
        return e;
    munmap(gen.at, gen.bytes);
    e = idem_create_reveal(path, dir_fd, root_name);
    if (e != IDEM_OK)
        idem_create_discard(dir_fd, root_name);
    return e;
}

int idem_create(const char *path, const idem_options *o, int dir_fd)
{
    if (o->wal_dir == NULL)
        return create_and_reveal(path, o, NULL, dir_fd);
    struct idem_log_dir d;
    int e = idem_logdir_claim(o, &d);
    if (e != IDEM_OK)
        return e;
    e = create_and_reveal(path, o, &d, dir_fd);
    idem_log_dir_close(&d);
    return e;
}

int idem_root_mark_dead(const char *path, int dir_fd)
{
    int fd;
    struct stat st;
    int e = idem_path_open_file(dir_fd, path, "root", &fd, &st);
    if (e != IDEM_OK)
        return e;
    if ((size_t)st.st_size >= sizeof(struct idem_root_shm)) {
        void *map = mmap(NULL, sizeof(struct idem_root_shm), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
            e = idem_fail_errno("%s/root: mmap", path);
        } else {
            /* relaxed: read with every operation, nothing hangs on it */
            store_relaxed(&((struct idem_root_shm *)map)->dead, 1);
            munmap(map, sizeof(struct idem_root_shm));
        }
    }
    int kept = errno;
    close(fd);
    errno = kept;
    return e;
}

/* The log of a store that is dead already. One whose settings can't be read is left: nothing says where its log is. */
static int destroy_log(const char *path, int dir_fd)
{
    struct idem_root_shm root;
    int fd;
    struct stat st;
    int e = idem_path_open_file(dir_fd, path, "root", &fd, &st);
    if (e != IDEM_OK)
        return e;
    ssize_t n = pread(fd, &root, sizeof root, 0);
    close(fd);
    if (n != (ssize_t)sizeof root || root.fixed.checksum != checksum_of(&root.fixed, sizeof root.fixed) ||
        (root.fixed.features_required & IDEM_FEATURE_LOG) == 0 ||
        root.log.checksum != checksum_of(&root.log, sizeof root.log) ||
        memchr(root.log.wal_dir, 0, sizeof root.log.wal_dir) == NULL)
        return IDEM_OK;
    return idem_logdir_destroy(&root.fixed, &root.log);
}

int idem_view_destroy(const char *path)
{
    int dir_fd;
    int e = idem_path_open_dir(path, NULL, 0, &dir_fd);
    if (e != IDEM_OK)
        return e;
    e = idem_path_lock(dir_fd, path);
    if (e != IDEM_OK)
        goto out_dir;
    e = idem_root_mark_dead(path, dir_fd);
    if (e != IDEM_OK) {
        if (e == IDEM_E_NO_STORE) { /* perhaps a half-created or half-removed one */
            if (clear_leftovers(dir_fd) != 0)
                e = idem_fail_errno("%s: what a dead process left there could not be removed", path);
            rmdir(path);
        }
        goto out_dir;
    }
    IDEM_POINT("destroy.dead");
    e = destroy_log(path, dir_fd);
    if (e != IDEM_OK)
        goto out_dir;
    if (unlinkat(dir_fd, "root", 0) != 0) {
        e = idem_fail_errno("%s/root: unlink", path);
        goto out_dir;
    }
    IDEM_POINT("destroy.unlinked");
    if (clear_leftovers(dir_fd) != 0)
        e = idem_fail_errno("%s: the store is gone, its files could not be removed; destroy it once more", path);
    else if (rmdir(path) != 0 && errno != ENOTEMPTY && errno != EEXIST)
        e = idem_fail_errno("%s: the store is gone, its directory could not be removed", path);
out_dir:;
    int kept = errno;
    close(dir_fd);
    errno = kept;
    return e;
}
