/*
 * memory.c - see memory.h.
 */
#include "memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "peer.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define HUGE_PAGE ((size_t)2 << 20)

static size_t rounded(size_t bytes)
{
    return (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
}

void *pages_take(size_t bytes, bool huge)
{
    size_t whole = rounded(bytes);
    char *room =
        mmap(NULL, whole + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return NULL;
    size_t skip = (HUGE_PAGE - (uintptr_t)room % HUGE_PAGE) % HUGE_PAGE;
    if (skip > 0)
        munmap(room, skip);
    if (skip < HUGE_PAGE)
        munmap(room + skip + whole, HUGE_PAGE - skip);
    char *at = room + skip;
    /* Best effort: where the kernel has none, small pages are what a user would get too. */
    madvise(at, whole, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    while (madvise(at, whole, MADV_POPULATE_WRITE) != 0) {
        if (errno == EAGAIN || errno == EINTR)
            continue;
        munmap(at, whole);
        return NULL;
    }
    return at;
}

void pages_free(void *at, size_t bytes)
{
    if (at)
        munmap(at, rounded(bytes));
}

int pool_create(struct pool *p, size_t bytes, bool huge, char *why)
{
    memset(p, 0, sizeof *p);
    p->base = pages_take(bytes, huge);
    if (!p->base) {
        snprintf(why, PEER_WHY_BYTES, "no memory for %zu MiB of nodes: %s", bytes >> 20, strerror(errno));
        return -1;
    }
    p->bytes = rounded(bytes);
    return 0;
}

void pool_free(struct pool *p)
{
    pages_free(p->base, p->bytes);
    memset(p, 0, sizeof *p);
}
