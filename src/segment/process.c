/* segment/process.c - see process.h for the invariants, by number. */
#include "segment/process.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/point.h"
#include "idem.h"

enum byte_state { BYTE_FREE, BYTE_HELD, BYTE_UNKNOWN };

static struct flock lock_of(uint32_t slot, short type)
{
    return (struct flock){
        .l_type = type, .l_whence = SEEK_SET, .l_start = IDEM_LOCK_OFF + slot, .l_len = 1, .l_pid = 0};
}

static enum byte_state query_byte(int fd, uint32_t slot)
{
    struct flock lock = lock_of(slot, F_WRLCK);
    if (fcntl(fd, F_OFD_GETLK, &lock) != 0)
        return BYTE_UNKNOWN;
    return lock.l_type == F_UNLCK ? BYTE_FREE : BYTE_HELD;
}

static bool fd_is_root(const struct idem_process *p)
{
    struct stat st;
    return fstat(p->fd, &st) == 0 && st.st_dev == p->device && st.st_ino == p->inode;
}

bool idem_process_dead(const struct idem_process *p, uint64_t owner)
{
    uint32_t slot = idem_owner_slot(owner);
    if (owner == p->owner && owner != 0)
        return false; /* invariant 3 */
    if (IDEM_FAULT("death.ignored") || IDEM_FAULT("life.ignored"))
        return IDEM_FAULT("life.ignored");
    if (slot >= p->table_size)
        return true;                                        /* no such slot: nobody can hold it */
    uint64_t x = load_acquire(&p->table[slot].incarnation); /* P7 acquire: the lock was taken before it became odd */
    if ((x & IDEM_INCARNATION_MASK) != idem_owner_incarnation(owner))
        return true;
    if (query_byte(p->fd, slot) != BYTE_FREE || !fd_is_root(p))
        return false;
    /* Our own slot's byte never shows as held by our own descriptor; invariant 3 has excluded it above. An owner that
       registered again through this descriptor has another incarnation. */
    return true;
}

/* Invariant 2: odd to even, for a dead X. */
static void free_dead(const struct idem_process *p, uint32_t slot, uint64_t x)
{
    cas_acq_rel(&p->table[slot].incarnation, &x, x + 1); /* P7 release: nothing of ours must follow its freedom */
}

static int try_slot(struct idem_process *p, uint32_t slot, int64_t now_ms)
{
    struct idem_process_shm *s = &p->table[slot];
    uint64_t x = load_acquire(&s->incarnation); /* P7 acquire: before the lock attempt */
    if (x & 1) {
        if (query_byte(p->fd, slot) != BYTE_FREE || !fd_is_root(p))
            return 0;
        free_dead(p, slot, x);
        x = load_acquire(&s->incarnation); /* P7 acquire: ours or another reaper's result */
        if (x & 1)
            return 0;
    }
    struct flock lock = lock_of(slot, F_WRLCK);
    if (fcntl(p->fd, F_OFD_SETLK, &lock) != 0)
        return errno == EAGAIN || errno == EACCES ? 0 : idem_fail_errno("root: locking process slot %u", slot);
    IDEM_POINT("process.locked");
    x = load_acquire(&s->incarnation); /* P7 acquire: only we can move it now, if it is even */
    if (x & 1) {                       /* its process died without our help: we hold the byte and did not raise it */
        free_dead(p, slot, x);
        x = load_acquire(&s->incarnation); /* P7 acquire: as above */
    }
    if (!(x & 1)) {
        store_relaxed(&s->pid, (uint64_t)getpid());    /* relaxed: for people; published by the CAS below */
        store_relaxed(&s->since_ms, (uint64_t)now_ms); /* relaxed: as above */
        if (cas_acq_rel(&s->incarnation, &x, (x + 1) & IDEM_INCARNATION_MASK)) { /* P7 release: after the lock */
            p->owner = idem_owner_pack(slot, (x + 1) & IDEM_INCARNATION_MASK);
            p->epoch = idem_fork_epoch();
            return 1;
        }
    }
    lock = lock_of(slot, F_UNLCK);
    fcntl(p->fd, F_OFD_SETLK, &lock);
    return 0;
}

int idem_process_register(struct idem_process *p, int64_t now_ms)
{
    /* First the slots that are free, then those whose owner turns out to be dead. */
    for (int with_dead = 0; with_dead < 2; with_dead++)
        for (uint32_t slot = 0; slot < p->table_size; slot++) {
            uint64_t x = load_relaxed(&p->table[slot].incarnation); /* relaxed: a hint, try_slot looks again */
            if ((x & 1) && !with_dead)
                continue;
            int r = try_slot(p, slot, now_ms);
            if (r < 0)
                return r;
            if (r > 0)
                return IDEM_OK;
        }
    return idem_fail(IDEM_E_FULL,
                     "root: all %u process slots are in use; close handles, or create the store with more `processes`",
                     p->table_size);
}

void idem_process_unregister(struct idem_process *p)
{
    if (p->owner == 0 || p->epoch != idem_fork_epoch()) /* after a raw clone: it is the parent's, who lives */
        return;
    uint32_t slot = idem_owner_slot(p->owner);
    uint64_t x = idem_owner_incarnation(p->owner);
    /* P7 release: all our work before it */
    cas_acq_rel(&p->table[slot].incarnation, &x, (x + 1) & IDEM_INCARNATION_MASK);
    struct flock lock = lock_of(slot, F_UNLCK);
    fcntl(p->fd, F_OFD_SETLK, &lock);
    p->owner = 0;
}

void idem_process_reap(const struct idem_process *p, uint32_t *at, uint32_t limit)
{
    for (uint32_t i = 0; i < limit && i < p->table_size; i++) {
        uint32_t slot = (*at)++ % p->table_size;
        uint64_t x = load_acquire(&p->table[slot].incarnation); /* P7 acquire: before the query */
        if ((x & 1) && idem_process_dead(p, idem_owner_pack(slot, x)))
            free_dead(p, slot, x);
    }
}

struct idem_a64 *idem_fork_page;
static uint64_t last_epoch;

int idem_fork_watch(void)
{
    if (idem_fork_page != NULL)
        return IDEM_OK;
    long page = sysconf(_SC_PAGESIZE);
    void *at = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return idem_fail_errno("mmap of the fork detector's page");
    if (madvise(at, (size_t)page, MADV_WIPEONFORK) != 0) {
        int kept = errno;
        munmap(at, (size_t)page);
        errno = kept;
        return idem_fail_errno("madvise(MADV_WIPEONFORK), which needs Linux 4.14");
    }
    idem_fork_page = at;
    idem_fork_acknowledge();
    return IDEM_OK;
}

uint64_t idem_fork_acknowledge(void)
{
    if (load_relaxed(idem_fork_page) == 0)           /* relaxed: serialised by the caller */
        store_relaxed(idem_fork_page, ++last_epoch); /* relaxed: as above */
    return load_relaxed(idem_fork_page);             /* relaxed: as above */
}
