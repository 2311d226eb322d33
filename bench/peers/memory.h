/*
 * memory.h - what in-process tables take their nodes and answers from: memory that is mapped and touched before the clock
 * runs, handed out by an addition. No allocator is faster, so none can be said to have slowed a peer down.
 *
 * A pool belongs to one worker. Nothing is given back before the life ends: the jobs remove nothing.
 */
#ifndef BENCH_PEER_MEMORY_H
#define BENCH_PEER_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pool {
    unsigned char *base;
    size_t used;
    size_t bytes;
};

/* 0, or -1 with a sentence in why (PEER_WHY_BYTES). huge: 2 MiB pages where the kernel has them. */
int pool_create(struct pool *p, size_t bytes, bool huge, char *why);
void pool_free(struct pool *p);

/* Aligned to 16. NULL: the pool is empty. */
static inline void *pool_take(struct pool *p, size_t bytes)
{
    size_t rounded = (bytes + 15) & ~(size_t)15;
    if (p->bytes - p->used < rounded)
        return NULL;
    void *at = p->base + p->used;
    p->used += rounded;
    return at;
}

/* Large tables: zeroed, touched, 2 MiB pages if huge. For allocators that a library lets us hand over. */
void *pages_take(size_t bytes, bool huge);
void pages_free(void *at, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
