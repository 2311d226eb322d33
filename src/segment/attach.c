/*
 * segment/attach.c - mapping a store that exists, and believing none of its bytes before they are checked.
 *
 * Owns: validation of root and generation constants (copied to private memory first, then judged), staleness. Whatever the bytes say, the result is a valid view or an error.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/point.h"
#include "segment/path.h"
#include "segment/view.h"
#include "wal/leader.h"

/* What of an entry is fetched ahead: the bytes before an answer, with a usual key's, and so much of the answer. */
#define FETCHED_HEAD_BYTES 128u
#define FETCHED_BYTES      512u

uint64_t idem_next_serial(void)
{
    static struct idem_a64 serial;
    return add_relaxed(&serial, 1) + 1; /* relaxed: only uniqueness matters */
}

/* How much of [at, at + bytes) of this process lies in huge pages, by /proc/self/smaps. */
uint64_t idem_huge_bytes(const void *at, uint64_t bytes)
{
    FILE *f = fopen("/proc/self/smaps", "re");
    if (f == NULL)
        return 0;
    char line[256];
    bool inside = false;
    uint64_t kib = 0;
    while (fgets(line, sizeof line, f) != NULL) {
        unsigned long from, to, n;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = from >= (uintptr_t)at && to <= (uintptr_t)at + bytes;
        else if (inside && sscanf(line, "ShmemPmdMapped: %lu kB", &n) == 1)
            kib += n;
    }
    fclose(f);
    return kib * 1024;
}

/* All zero without a log. */
static bool log_sound(const struct idem_root_const *f, const struct idem_log_const *l)
{
    static const struct idem_log_const none;
    if ((f->features_required & IDEM_FEATURE_LOG) == 0)
        return memcmp(l, &none, sizeof none) == 0;
    return l->checksum == XXH3_64bits(l, sizeof *l - sizeof l->checksum) && l->ring_refs >= 64 &&
           l->ring_refs <= 65536 && (l->ring_refs & (l->ring_refs - 1)) == 0 && l->file_bytes >= 1 << 20 &&
           l->file_bytes <= 1 << 30 && l->file_bytes % 4096 == 0 && l->durability_claim >= IDEM_DURABILITY_NONE &&
           l->durability_claim <= IDEM_DURABILITY_SYNC && l->durability_complete >= IDEM_DURABILITY_NONE &&
           l->durability_complete <= IDEM_DURABILITY_SYNC && l->flush_interval_ms >= 1 &&
           l->flush_interval_ms <= 10000 && l->log_wait_ms >= 100 && l->log_wait_ms <= 600000 && l->floor_ms >= 0 &&
           l->floor_ms < INT64_C(1) << 45 && l->wal_dir[0] == '/' && memchr(l->wal_dir, 0, sizeof l->wal_dir) != NULL;
}

static int check_root(const char *path, const struct idem_root_const *f, const struct idem_log_const *log,
                      uint64_t file_bytes)
{
    if (f->layout_major != IDEM_LAYOUT_MAJOR || (f->features_required & ~IDEM_FEATURE_LOG) != 0)
        return idem_fail(
            IDEM_E_VERSION,
            "%s/root: layout %u.%u with features %llx, this library reads layout %u; use the version that made it, or "
            "destroy it and create it anew",
            path, f->layout_major, f->layout_minor, (unsigned long long)f->features_required, IDEM_LAYOUT_MAJOR);
    if (f->checksum != XXH3_64bits(f, sizeof *f - sizeof f->checksum))
        return idem_fail(IDEM_E_CORRUPT,
                         "%s/root: checksum of the constant part is wrong; destroy the store and create it anew", path);
    if (!log_sound(f, log))
        return idem_fail(IDEM_E_CORRUPT,
                         "%s/root: the settings of its log are damaged; destroy the store and recover it from its log",
                         path);
    if (f->processes_max == 0 || f->processes_max > IDEM_PROCESSES_MAX || f->lanes_max == 0 ||
        f->lanes_max > IDEM_LANES_MAX || f->root_bytes != file_bytes ||
        f->root_bytes != idem_root_bytes(f->processes_max, f->lanes_max, log->ring_refs) || f->lease_ms < 1 ||
        f->lease_ms > IDEM_LEASE_MAX_MS || f->ttl_ms < 1 || (f->ttl_ms > IDEM_TTL_MAX_MS && f->ttl_ms != IDEM_FOREVER))
        return idem_fail(IDEM_E_CORRUPT,
                         "%s/root: sizes or limits contradict each other; destroy the store and create it anew", path);
    return IDEM_OK;
}

static int check_generation(const char *path, const char *name, const struct idem_generation_const *g,
                            const struct idem_root_const *f, uint64_t file_bytes)
{
    if (g->layout_major != IDEM_LAYOUT_MAJOR)
        return idem_fail(IDEM_E_VERSION, "%s/%s: layout %u.%u, this library reads layout %u", path, name,
                         g->layout_major, g->layout_minor, IDEM_LAYOUT_MAJOR);
    if (g->checksum != XXH3_64bits(g, sizeof *g - sizeof g->checksum))
        return idem_fail(IDEM_E_CORRUPT,
                         "%s/%s: checksum of the constant part is wrong; destroy the store and create it anew", path,
                         name);
    const uint64_t most = UINT64_C(1) << 40; /* keeps every product below 2^63 */
    uint64_t regions_bytes = g->region_count * sizeof(struct idem_region_shm);
    uint64_t chunk_bits = g->region_shift - g->chunk_shift; /* huge if the chunk is the larger one */
    uint64_t chunks_bytes = chunk_bits <= 4 ? (g->region_count << chunk_bits) * sizeof(struct idem_chunk_shm) : most;
    if (memcmp(g->uuid, f->uuid, sizeof g->uuid) != 0 || g->number != 1 || g->file_bytes != file_bytes ||
        g->region_shift < 16 || g->region_shift > 22 || chunk_bits > 4 || g->region_count == 0 ||
        g->region_count > UINT32_MAX / 2 || g->bucket_count <= IDEM_DISTANCE_MAX || g->bucket_count > UINT32_MAX ||
        file_bytes > most || g->regions_off != IDEM_BUCKETS_OFF + g->bucket_count * sizeof(struct idem_bucket_shm) ||
        g->chunks_off != g->regions_off + regions_bytes || g->arena_off < g->chunks_off + chunks_bytes ||
        g->arena_off % 4096 != 0 || g->arena_off > file_bytes ||
        (g->region_count << g->region_shift) > file_bytes - g->arena_off ||
        (g->region_count << g->region_shift) / IDEM_UNIT_BYTES > UINT64_C(1) << IDEM_ADDRESS_BITS)
        return idem_fail(IDEM_E_CORRUPT, "%s/%s: sizes contradict each other; destroy the store and create it anew",
                         path, name);
    return IDEM_OK;
}

static int map_root(const char *path, int dir_fd, const char *name, struct idem_view *v)
{
    int fd, lock_fd;
    struct stat st, same;
    int e = idem_path_open_file(dir_fd, path, name, &fd, &st);
    if (e != IDEM_OK)
        return e;
    void *map = MAP_FAILED;
    if ((uint64_t)st.st_size < sizeof(struct idem_root_shm)) {
        e = idem_fail(IDEM_E_CORRUPT, "%s/root: %lld bytes, too short; destroy the store and create it anew", path,
                      (long long)st.st_size);
        goto fail;
    }
    map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        e = idem_fail_errno("%s/root: mmap", path);
        goto fail;
    }
    struct idem_root_shm *root = map;
    if (load_acquire(&root->magic) != IDEM_ROOT_MAGIC) { /* P6 acquire: it was stored last */
        e = idem_fail(IDEM_E_CORRUPT, "%s/root: not a store's root (magic %016llx)", path,
                      (unsigned long long)load_relaxed(&root->magic)); /* relaxed: for the message */
        goto fail;
    }
    memcpy(&v->fixed, &root->fixed, sizeof v->fixed);
    memcpy(&v->log, &root->log, sizeof v->log);
    e = check_root(path, &v->fixed, &v->log, (uint64_t)st.st_size);
    if (e != IDEM_OK)
        goto fail;
    uint8_t boot_id[40];
    e = idem_boot_id(boot_id);
    if (e != IDEM_OK)
        goto fail;
    /* relaxed: a flag that stays set */
    if (load_relaxed(&root->dead) != 0 || memcmp(boot_id, v->fixed.boot_id, sizeof boot_id) != 0) {
        e = idem_fail(IDEM_E_NO_STORE, "%s: the store there was destroyed, or is from before the last boot", path);
        goto fail;
    }
    /* The lock byte gets an open file of its own: a mapping keeps the one it was made from, locks included, in every forked child. */
    e = idem_path_open_file(dir_fd, path, name, &lock_fd, &same);
    if (e != IDEM_OK)
        goto fail;
    if (same.st_dev != st.st_dev || same.st_ino != st.st_ino) {
        close(lock_fd);
        e = idem_fail(IDEM_E_NO_STORE, "%s/root: was replaced while it was opened; try again", path);
        goto fail;
    }
    close(fd);
    v->root = root;
    v->process.device = st.st_dev;
    v->process.inode = st.st_ino;
    v->process.fd = lock_fd;
    v->process.table = (struct idem_process_shm *)((uint8_t *)map + IDEM_PROCESSES_OFF);
    v->process.table_size = v->fixed.processes_max;
    v->process.owner = 0;
    v->lanes =
        (struct idem_lane_shm *)((uint8_t *)map + round_up(IDEM_PROCESSES_OFF + (uint64_t)v->fixed.processes_max *
                                                                                    sizeof(struct idem_process_shm),
                                                           4096));
    if (v->log.ring_refs != 0)
        v->rings = (struct idem_a64 *)((uint8_t *)map + idem_rings_off(v->fixed.processes_max, v->fixed.lanes_max));
    store_relaxed(&v->pins, 1); /* relaxed: nobody else has the view yet; the handle's own */
    return IDEM_OK;
fail:;
    int kept = errno;
    if (map != MAP_FAILED)
        munmap(map, (size_t)st.st_size);
    close(fd);
    errno = kept;
    return e;
}

/* made: its mapping, by who made it; the caller's if this fails. NULL: there is none yet. */
static int map_generation(const char *path, int dir_fd, bool huge, const struct idem_mapping *made, struct idem_view *v)
{
    char uuid[33], name[64];
    idem_uuid_text(v->fixed.uuid, uuid);
    snprintf(name, sizeof name, "gen-%s-%u", uuid,
             (unsigned)load_relaxed(&v->root->generations)); /* relaxed: checked against the file's own number */
    int fd;
    struct stat st;
    int e = idem_path_open_file(dir_fd, path, name, &fd, &st);
    struct stat root;
    if (e == IDEM_E_NO_STORE && load_relaxed(&v->root->dead) == 0 && /* relaxed: a flag that stays set */
        fstatat(dir_fd, "root", &root, AT_SYMLINK_NOFOLLOW) == 0 && root.st_ino == v->process.inode)
        e = idem_fail(IDEM_E_CORRUPT, "%s/%s: missing, though root names it; destroy the store and create it anew",
                      path, name);
    if (e != IDEM_OK)
        return e;
    struct idem_generation_const g;
    void *map = MAP_FAILED;
    if ((uint64_t)st.st_size < IDEM_BUCKETS_OFF) {
        e = idem_fail(IDEM_E_CORRUPT, "%s/%s: %lld bytes, too short", path, name, (long long)st.st_size);
        goto fail;
    }
    map = made != NULL ? made->at : mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        e = idem_fail_errno("%s/%s: mmap", path, name);
        goto fail;
    }
    struct idem_generation_shm *gen = map;
    if (load_acquire(&gen->magic) != IDEM_GENERATION_MAGIC) { /* P6 acquire: it was stored last */
        e = idem_fail(IDEM_E_CORRUPT, "%s/%s: not a generation file", path, name);
        goto fail;
    }
    memcpy(&g, &gen->fixed, sizeof g);
    e = check_generation(path, name, &g, &v->fixed, (uint64_t)st.st_size);
    if (e != IDEM_OK)
        goto fail;
    if (huge)
        madvise(map, (size_t)st.st_size, MADV_HUGEPAGE);
    v->generation = gen;
    v->generation_bytes = g.file_bytes;
    v->buckets = (struct idem_bucket_shm *)((uint8_t *)map + IDEM_BUCKETS_OFF);
    v->bucket_count = g.bucket_count;
    v->regions = (struct idem_region_shm *)((uint8_t *)map + g.regions_off);
    v->region_count = (uint32_t)g.region_count;
    v->region_shift = (unsigned)g.region_shift;
    v->chunk_shift = (unsigned)g.chunk_shift;
    v->region_chunks = 1u << (v->region_shift - v->chunk_shift);
    v->chunks = (struct idem_chunk_shm *)((uint8_t *)map + g.chunks_off);
    v->arena = (struct idem_a64 *)((uint8_t *)map + g.arena_off);
    v->arena_units = (g.region_count << g.region_shift) / IDEM_UNIT_BYTES;
    uint32_t answer_bytes = v->fixed.response_bytes < FETCHED_BYTES ? v->fixed.response_bytes : FETCHED_BYTES;
    v->entry_bytes = FETCHED_HEAD_BYTES + answer_bytes;
    close(fd);
    return IDEM_OK;
fail:;
    int kept = errno;
    if (map != MAP_FAILED && made == NULL)
        munmap(map, (size_t)st.st_size);
    close(fd);
    errno = kept;
    return e;
}

static void unmap(struct idem_view *v)
{
    if (v->generation != NULL)
        munmap(v->generation, v->generation_bytes);
    munmap(v->root, v->fixed.root_bytes);
}

static int attach(const char *path, const char *root_name, const idem_options *options, const struct idem_mapping *made,
                  struct idem_view *v)
{
    int dir_fd;
    int e = idem_path_open_dir(path, NULL, 0, &dir_fd);
    if (e != IDEM_OK)
        return e;
    e = map_root(path, dir_fd, root_name, v);
    if (e == IDEM_OK) {
        e = map_generation(path, dir_fd, options->huge != IDEM_HUGE_OFF, made, v);
        if (e == IDEM_OK) {
            v->clock_shift_ns = idem_clock_namespace_shift_ns();
            e = idem_process_register(&v->process, idem_view_now_ms(v));
        }
        if (e != IDEM_OK) {
            int kept = errno;
            close(v->process.fd);
            unmap(v);
            errno = kept;
        }
    }
    int kept = errno;
    close(dir_fd);
    errno = kept;
    v->serial = idem_next_serial();
    return e;
}

int idem_attach(const char *path, const idem_options *options, struct idem_view *v)
{
    return attach(path, "root", options, NULL, v);
}

int idem_attach_hidden(const char *path, const char *root_name, const idem_options *options,
                       const struct idem_mapping *gen, struct idem_view **view)
{
    struct idem_view *v = calloc(1, sizeof *v);
    int e = v == NULL ? idem_fail(IDEM_E_MEMORY, "no memory for a handle") : attach(path, root_name, options, gen, v);
    if (e == IDEM_OK) {
        *view = v;
        return IDEM_OK;
    }
    int kept = errno;
    if (gen != NULL && (v == NULL || v->generation == NULL)) /* else attach() has unmapped it */
        munmap(gen->at, gen->bytes);
    free(v);
    errno = kept;
    return e;
}

/* With the directory's lock: attach if somebody was faster, else clear what is unusable and create. */
static int create_and_attach(const char *path, const idem_options *options, struct idem_view *v)
{
    int dir_fd;
    bool made;
    int e = idem_path_open_dir(path, &made, options->group, &dir_fd);
    if (e != IDEM_OK)
        return e;
    e = idem_path_lock(dir_fd, path);
    if (e != IDEM_OK)
        goto out;
    e = idem_attach(path, options, v);
    if (e == IDEM_OK) {
        if (options->flags & IDEM_OPEN_EXCLUSIVE) {
            idem_process_unregister(&v->process);
            close(v->process.fd);
            unmap(v);
            e = idem_fail(IDEM_E_EXISTS, "%s: there is a store already", path);
        }
        goto out;
    }
    if (e != IDEM_E_NO_STORE)
        goto out;
    struct stat here, there;
    if (fstat(dir_fd, &here) != 0 || stat(path, &there) != 0 || here.st_ino != there.st_ino) {
        e = idem_fail(IDEM_E_STALE, "%s: was removed while the store was being created; try again", path);
        goto out;
    }
    unlinkat(dir_fd, "root", 0); /* judged dead or from another boot, under the lock */
    e = idem_create(path, options, dir_fd);
    if (e == IDEM_OK)
        e = idem_attach(path, options, v);
out:;
    int kept = errno;
    if (made && e != IDEM_OK)
        rmdir(path); /* fails, as it should, if somebody else's files are in it by now */
    close(dir_fd);
    errno = kept;
    return e;
}

int idem_view_open(const char *path, const idem_options *options, struct idem_view **view)
{
    struct idem_view *v = calloc(1, sizeof *v);
    if (v == NULL)
        return idem_fail(IDEM_E_MEMORY, "no memory for a handle");
    int e = IDEM_E_NO_STORE;
    if (!(options->flags & IDEM_OPEN_CREATE) || !(options->flags & IDEM_OPEN_EXCLUSIVE))
        e = idem_attach(path, options, v);
    for (int tries = 0; e == IDEM_E_NO_STORE && (options->flags & IDEM_OPEN_CREATE) && tries < 10; tries++) {
        memset(v, 0, sizeof *v);
        e = create_and_attach(path, options, v);
        if (e == IDEM_E_STALE)
            e = IDEM_E_NO_STORE; /* a destroyer removed the directory in between: once more */
    }
    if (e != IDEM_OK) {
        free(v);
        return e;
    }
    if (options->flags & IDEM_OPEN_SIGBUS_GUARD) {
        e = idem_guard_install();
        if (e == IDEM_OK)
            e = idem_guard_add(v);
        if (e != IDEM_OK) {
            idem_view_close(v);
            return e;
        }
    }
    *view = v;
    return IDEM_OK;
}

void idem_view_pin(struct idem_view *v)
{
    add_relaxed(&v->pins, 1); /* relaxed: the handle's own pin is there while a read section is open */
}

void idem_view_unpin(struct idem_view *v)
{
    uint64_t pins = load_relaxed(&v->pins);         /* relaxed: the CAS decides */
    while (!cas_acq_rel(&v->pins, &pins, pins - 1)) /* P10 acq_rel: all uses before the last one's unmapping */
        ;
    if (pins != 1)
        return;
    if (v->wal != NULL)
        idem_log_detach(v->wal);
    unmap(v);
    free(v);
}

void idem_view_close(struct idem_view *v)
{
    idem_guard_remove(v);
    /* A host that closed our descriptor may have a file of its own under that number by now. */
    struct stat st;
    if (v->process.fd >= 0 && fstat(v->process.fd, &st) == 0 && st.st_dev == v->process.device &&
        st.st_ino == v->process.inode) {
        idem_process_unregister(&v->process);
        close(v->process.fd);
    }
    idem_view_unpin(v);
}

bool idem_view_stale(const struct idem_view *v, const char *path)
{
    if (IDEM_FAULT("stale.ignored"))
        return false;
    if (load_relaxed(&v->root->dead) != 0) /* relaxed: a flag that stays set */
        return true;
    char name[IDEM_PATH_MAX + 8];
    snprintf(name, sizeof name, "%s/root", path);
    struct stat st;
    if (stat(name, &st) != 0)
        return errno == ENOENT || errno == ENOTDIR;
    return st.st_dev != v->process.device || st.st_ino != v->process.inode;
}
