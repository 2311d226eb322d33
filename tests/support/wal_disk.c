/* tests/support/wal_disk.c - see wal_disk.h. */
#include "support/wal_disk_parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECTOR    512u
#define FILES_MAX 256u
#define NAMES_MAX 256u
#define TOLD_MAX  20000u

static void set_name(char to[CALL_NAME_MAX], const char *name)
{
    CHECK(strlen(name) < CALL_NAME_MAX);
    memcpy(to, name, strlen(name) + 1);
}

struct file {
    ino_t inode;
    uint64_t size, synced_size;
    uint64_t room;
    uint8_t *now, *synced; /* room bytes each */
    uint8_t *state;        /* a sector: */
};
enum { CLEAN, DIRTY, LEFT };

struct name {
    char name[CALL_NAME_MAX];
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

static void free_file(struct file *f)
{
    free(f->now);
    free(f->synced);
    free(f->state);
    free(f);
}

void wal_disk_free(struct wal_disk *d)
{
    for (unsigned i = 0; i < d->n; i++)
        free_file(d->files[i]);
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
    if (f->room > 0)
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
    CHECK(i == d->applied && i < wal_rec->calls);
    const struct call *c = &wal_rec->call[i];
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
        if (f == NULL) /* nobody can find it any more */
            break;
        grow(f, c->at + c->n);
        memcpy(f->now + c->at, wal_rec->data + c->bytes, c->n);
        for (uint64_t s = c->at / SECTOR; s <= (c->at + c->n - 1) / SECTOR; s++)
            f->state[s] = DIRTY;
        break;
    case SIZED:
        if (f == NULL)
            break;
        grow(f, c->n);
        break;
    case SYNCED:
    case FAILED_SYNC:
        if (f == NULL)
            break;
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

static void drop_removed(struct names *names)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < names->n; i++)
        if (names->name[i].file != NULL)
            names->name[kept++] = names->name[i];
    names->n = kept;
}

static bool is_named(const struct name *names, unsigned n, const struct file *f)
{
    for (unsigned i = 0; i < n; i++)
        if (names[i].file == f)
            return true;
    return false;
}

void wal_disk_follow(struct wal_disk *d)
{
    for (unsigned i = 0; i < wal_rec->calls; i++)
        wal_disk_apply(d, i);
    d->applied = wal_rec->calls = 0;
    wal_rec->bytes = 0;
    drop_removed(&d->now);
    drop_removed(&d->synced);
    unsigned kept = 0;
    for (unsigned i = 0; i < d->n; i++) {
        struct file *f = d->files[i];
        if (is_named(d->now.name, d->now.n, f) || is_named(d->synced.name, d->synced.n, f) ||
            is_named(d->pending, d->pending_n, f))
            d->files[kept++] = f;
        else
            free_file(f);
    }
    d->n = kept;
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
    if (fd < 0)
        print_error("%s: %s\n", path, strerror(errno));
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
