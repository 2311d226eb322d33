/*
 * segment/lane.h - one thread's private write path in a store.
 *
 * Owns: taking lanes, finding this thread's lane again, giving it back at the thread's end; counters.
 *
 * Invariants
 *  1. A lane's fields are written by its owner only (a process slot with incarnation, and in it one thread).
 *  2. A new owner clears the hazards it finds before anything else; nobody clears a hazard for somebody.
 *  3. What an owner leaves in `chunks` can be used by the next one: the chunk's `span` was moved before an entry was published.
 *
 * If we die here: the lane's owner is dead, its hazards are ignored by the sweep, and the next thread that needs a lane takes it.
 */
#ifndef IDEM_SEGMENT_LANE_H
#define IDEM_SEGMENT_LANE_H

#include "segment/view.h"

/* This thread's private copy of one of its lane's open chunks: checked when it was made, so that an allocation from it needs no more
   than a look at the region's state. The lane's own words are kept up to date for the next owner. */
struct idem_open_chunk {
    uint64_t open;  /* the region's state but for its expiry: OPEN, generation; 0: no chunk */
    uint64_t unit;  /* of the region's first byte */
    uint64_t life;  /* the region's meta word in that life */
    uint64_t count; /* entries filled, as in at->filled */
    uint64_t span;  /* what identifies this life in at->span */
    struct idem_region_shm *region;
    struct idem_chunk_shm *at;
    struct idem_lane_chunk_shm *chunk;
    uint32_t index; /* of the region */
    uint32_t klass;
    uint32_t from, to;
};
enum idem_open { OPEN_CLAIMS, OPEN_ANSWERS, OPEN_CHUNKS };

/* A lane that this thread has in one of the views it works with. */
struct idem_lane_cached {
    uint64_t serial; /* of the view; 0: empty */
    struct idem_view *view;
    struct idem_lane_shm *lane;
    uint64_t owner;
    uint64_t tenancy;
    struct idem_open_chunk open[OPEN_CHUNKS];
};
/* The one used last; NULL: none yet. Found without a call (initial-exec). For that all of the library's thread storage has to be small,
   since dlopen() has little room for it: what is larger lies on the heap. tests/house/install.sh watches over it. */
extern _Thread_local struct idem_lane_cached *idem_lane_last __attribute__((tls_model("initial-exec")));

/* What an operation works with. Lives on the stack. */
struct idem_ctx {
    struct idem_view *v;
    struct idem_lane_shm *lane;
    struct idem_open_chunk *open;       /* OPEN_CHUNKS of them, this thread's */
    const struct idem_open_chunk *held; /* the write hazard names its region, which was seen OPEN since */
    int64_t held_until_ms;              /* and stays at least until then */
    uint64_t owner;                     /* as loaded at the operation's start */
    uint64_t
        ticket; /* of the lane's log ring: what must be flushed before the call's answer is given; 0: nothing. Set to 0 by idem_enter() */
};

/* This thread's lane. Errors: IDEM_E_FULL, IDEM_E_MEMORY. */
int idem_lane_enter(struct idem_view *v, struct idem_ctx *ctx);

/* A host that closed our lock descriptor looks dead: its lane may have gone to somebody else, and from him to another thread of ours. */
static inline bool idem_lane_kept(const struct idem_lane_cached *c)
{
    return load_acquire(&c->lane->owner) == c->owner &&   /* P8 acquire: what those before this owner did */
           load_relaxed(&c->lane->tenancy) == c->tenancy; /* relaxed: ordered by the owner */
}

/* The same if it is the lane used last; false: idem_lane_enter() has to look. */
static inline bool idem_lane_enter_last(struct idem_view *v, struct idem_ctx *ctx)
{
    struct idem_lane_cached *c = idem_lane_last;
    ctx->v = v;
    ctx->held = NULL;
    if (unlikely(c == NULL) || unlikely(c->serial != v->serial) || unlikely(!idem_lane_kept(c)))
        return false;
    ctx->lane = c->lane;
    ctx->owner = c->owner;
    ctx->open = c->open;
    return true;
}

/*
 * A lane's sweep word: the region to look at next (32) | slices of a pass that the lane owes (16) | 14 unused | do them thoroughly |
 * a chunk was taken. Only its owner writes it. It is the lane's, not the thread's: the next owner pays what a dead one owed. The upper half
 * is nothing in most operations, and that is all they ask at their end; the rest is index/sweep.c's.
 */
#define LANE_TOOK_CHUNK (UINT64_C(1) << 63)
#define LANE_THOROUGH   (UINT64_C(1) << 62)

static inline bool idem_lane_owes(const struct idem_lane_shm *lane)
{
    return load_relaxed(&lane->sweep) >> 32 != 0; /* relaxed: the lane's own */
}

static inline void idem_lane_took_chunk(struct idem_lane_shm *lane)
{
    store_relaxed(&lane->sweep, load_relaxed(&lane->sweep) | LANE_TOOK_CHUNK); /* relaxed: the lane's own */
}

/* Threads' caches forget this view (by its serial); call before it is unmapped. */
void idem_lane_forget(const struct idem_view *v);

/* Around a fork, in the thread that forks: the child starts with no lanes. */
void idem_lane_before_fork(void);
void idem_lane_after_fork(bool child);

static inline void idem_count(const struct idem_ctx *ctx, enum idem_counter c)
{
    /* relaxed: one writer; a sum over lanes is a snapshot anyhow */
    store_relaxed(&ctx->lane->counters[c], load_relaxed(&ctx->lane->counters[c]) + 1);
}

#endif
