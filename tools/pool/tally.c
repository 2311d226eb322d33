/*
 * tally.c - see tally.h.
 */
#include "tally.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TALLY_MAGIC UINT64_C(0x31796c6c61746469) /* "idtally1" */

static const char *const names[TALLY_COUNTERS] = {
    [TALLY_REQUESTS] = "requests",
    [TALLY_CHARGES] = "charges",
    [TALLY_REPLAYS] = "replays",
    [TALLY_WAITS] = "waits",
    [TALLY_WAIT_LIMITS] = "wait_limits",
    [TALLY_MISMATCHES] = "mismatches",
    [TALLY_TAKEOVERS] = "takeovers",
    [TALLY_BY_MARK] = "by_mark",
    [TALLY_BY_LEDGER] = "by_ledger",
    [TALLY_NOT_CHARGED] = "not_charged",
    [TALLY_FENCED] = "fenced",
    [TALLY_RENEWALS] = "renewals",
    [TALLY_TOO_LATE] = "too_late",
    [TALLY_UNAVAILABLE] = "unavailable",
    [TALLY_KILLED] = "killed",
    [TALLY_KILLED_BETWEEN] = "killed_between",
    [TALLY_STOPPED] = "stopped",
    [TALLY_CRASHED] = "crashed",
    [TALLY_REBOOTS] = "reboots",
    [TALLY_BACK_ANSWERS] = "back_answers",
    [TALLY_BACK_RUNNING] = "back_running",
    [TALLY_BACK_US] = "back_us",
    [TALLY_AFTER_CRASH] = "after_crash",
};

static tally *fail(const char *path, int fd, const char *what)
{
    fprintf(stderr, "tally file %s: %s\n", path, what);
    if (fd >= 0)
        close(fd);
    return NULL;
}

tally *tally_open(const char *path, bool create)
{
    int fd = open(path, create ? O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC : O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail(path, fd, strerror(errno));
    if (create) {
        int error = posix_fallocate(fd, 0, (off_t)sizeof(tally));
        if (error != 0)
            return fail(path, fd, strerror(error));
    }
    struct stat st;
    if (fstat(fd, &st) != 0)
        return fail(path, fd, strerror(errno));
    if (st.st_size != (off_t)sizeof(tally))
        return fail(path, fd, "is not a tally of this version of idem_pool; remove it");
    tally *t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (t == MAP_FAILED)
        return fail(path, fd, strerror(errno));
    close(fd);
    if (create)
        atomic_store(&t->magic, TALLY_MAGIC);
    if (atomic_load(&t->magic) != TALLY_MAGIC) {
        tally_close(t);
        return fail(path, -1, "is not a tally of this version of idem_pool; remove it");
    }
    return t;
}

void tally_close(tally *t)
{
    if (t != NULL)
        munmap(t, sizeof(*t));
}

void tally_add(tally *t, enum tally_counter which)
{
    tally_add_many(t, which, 1);
}

void tally_add_many(tally *t, enum tally_counter which, uint64_t n)
{
    atomic_fetch_add(&t->counter[which], n);
}

uint64_t tally_get(const tally *t, enum tally_counter which)
{
    return atomic_load(&t->counter[which]);
}

int tally_print(const tally *t, FILE *out)
{
    for (int i = 0; i < TALLY_COUNTERS; i++)
        if (fprintf(out, "pool_%s=%" PRIu64 "\n", names[i], tally_get(t, (enum tally_counter)i)) < 0)
            return -1;
    return fflush(out) == 0 ? 0 : -1;
}
