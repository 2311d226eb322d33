/*
 * arena/arena.h - memory: regions, chunks, hazards.
 *
 * Owns: region states and cursors, lanes' chunks, hazards, the accounting of entries per chunk. Knows nothing of keys or slots.
 *
 * A region belongs to one class (claims, "never expires", or a quarter octave of TTL) and lives through
 *   FREE -> OPEN -> DRAINING or EVICTING -> RETIRING -> FREE with the next generation,
 * or, when memory is scarce, FREE -> OPEN -> SEALED -> SHARED -> DRAINING ...: what its lanes' chunks have left is for all.
 *
 * Invariants
 *  1. Entries are written and published only by an operation whose write hazard names the region and that saw it OPEN with its
 *     generation afterwards (P4). So once a region is DRAINING and no live lane's write hazard names it [check 1], no slot
 *     word that names it can appear any more; words that are there may still change their state in place.
 *  2. It becomes RETIRING only when no slot names it: a full pass over the index, begun after check 1, has freed or moved every
 *     word; or at some moment after check 1 all its chunks have as many entries emptied as filled. A pass that had to leave a word
 *     that names it does not count: the note of the pass that it waits for is put off before the cursor moves on.
 *  3. A word is compared-and-swapped only by an operation whose compare hazard names the word's region and that loaded the slot
 *     again afterwards unchanged (P4); the region becomes FREE only when no live lane's hazard of either kind names it
 *     [check 2]. So a word never comes back while anybody may compare it.
 *  4. A dead lane's hazards do not count. Death is permanent (segment/process.h), and is judged anew for each check.
 *  5. An address is handed out once in a generation of its region; cursor, meta and drain words carry the generation. Who opens the region changes meta and
 *     drain from words that he loaded before he found it FREE: later lives' words are never changed for an earlier one's sake.
 *  6. All entries of a region but claims have expired when the region's own expiry is over: allocation raises it first.
 *  7. In an OPEN region a chunk's `span` and the space above it are its lane's, which uses them under a write hazard that it set before it saw
 *     OPEN (P4). In SEALED nobody allocates. It becomes SHARED only when no live lane's write hazard names it [check 3], so that whoever saw OPEN
 *     is done with it or dead, and nobody will see it again: from then on `span` is moved by CAS, and what lies above it is whose CAS succeeds.
 *
 * If we die here: after taking a chunk, its space is reused by the lane's next owner; after opening a region and before
 * the class's hint names it: it has expired, as nothing raised its expiry, and is drained; in any state, the next sweeper goes on.
 */
#ifndef IDEM_ARENA_ARENA_H
#define IDEM_ARENA_ARENA_H

#include "arena/entry.h"
#include "base/point.h"
#include "segment/lane.h"

enum idem_region_phase {
    REGION_FREE = 0,
    REGION_OPEN = 1,
    REGION_DRAINING = 2,
    REGION_EVICTING = 3,
    REGION_RETIRING = 4,
    REGION_SEALED = 5,
    REGION_SHARED = 6
};

static inline unsigned region_phase(uint64_t s)
{
    return (unsigned)(s & 7);
}
static inline int64_t region_expiry(uint64_t s)
{
    return (int64_t)(s >> 3 & (uint64_t)ENTRY_TIME_MAX);
}
static inline unsigned region_generation(uint64_t s)
{
    return (unsigned)(s >> 48);
}
#define REGION_EXPIRY_MASK ((uint64_t)ENTRY_TIME_MAX << 3)
static inline uint64_t region_state(unsigned phase, int64_t expiry_ms, unsigned generation)
{
    return (uint64_t)phase | (uint64_t)expiry_ms << 3 | (uint64_t)generation << 48;
}
static inline bool region_draining(uint64_t s)
{
    return region_phase(s) == REGION_DRAINING || region_phase(s) == REGION_EVICTING;
}
/* It may be drained: it lives, and is not on its way out. */
static inline bool region_in_use(uint64_t s)
{
    return region_phase(s) == REGION_OPEN || region_phase(s) == REGION_SEALED || region_phase(s) == REGION_SHARED;
}
#define LOW48 ((UINT64_C(1) << 48) - 1)
static inline unsigned region_class_of(uint64_t meta)
{
    return (unsigned)(meta >> 40 & 0xff);
}

/* A life of a region, as its chunks' words carry it above a count or an offset: its generation, and when it was opened, in part (24). Both: a
   region may be opened twice in a millisecond, and a generation comes again after 65,535 lives. Constant while a hazard holds the region. */
#define COUNT_MASK ((UINT64_C(1) << 24) - 1)
static inline uint64_t chunk_life(uint64_t meta)
{
    return (meta >> 48) << 48 | (meta & COUNT_MASK) << 24;
}
static inline uint64_t region_life(const struct idem_view *v, uint32_t region)
{
    return chunk_life(load_relaxed(&v->regions[region].meta)); /* relaxed: set before the region was opened (P5) */
}
static inline uint64_t count_of(uint64_t word, uint64_t life)
{
    return (word & ~COUNT_MASK) == life ? word & COUNT_MASK : 0;
}
static inline uint64_t count_next(uint64_t word, uint64_t life)
{
    return life | (count_of(word, life) + 1);
}
/* A region's drain word, below its generation: a pass that it waits for, or how often a note was put off. */
#define DRAIN_NOTED (UINT64_C(1) << 47)
#define DRAIN_PASS  (DRAIN_NOTED - 1)

#define CLASS_CLAIMS 0u
#define CLASS_NEVER  1u
unsigned idem_class_of(int64_t life_ms);    /* for answers and remembered attempts */
int64_t idem_class_life_ms(unsigned klass); /* its upper bound; IDEM_FOREVER for CLASS_NEVER; 0 for CLASS_CLAIMS */

/* Who may take the last free regions: a claim none of them, an answer all but one, the sweep (which moves entries so that it can
   free regions) every one. */
enum idem_purpose { FOR_CLAIM, FOR_ANSWER, FOR_SWEEP };

/* How far ahead of an entry its successors' lines are fetched. */
#define IDEM_AHEAD_BYTES 2048u

struct idem_space {
    struct idem_a64 *at;
    uint64_t unit;
    unsigned generation;
};

/*
 * Room for an entry, in a region that stays at least until expiry_ms. On success the lane's write hazard is set, until
 * idem_arena_leave(); write at space->at, publish, leave. If it is not published after all: idem_arena_emptied().
 * Errors: IDEM_E_FULL (hazards are cleared). relaxed and bounded: never waits.
 */
int idem_arena_reserve(struct idem_ctx *ctx, unsigned klass, enum idem_purpose purpose, uint64_t bytes,
                       int64_t expiry_ms, int64_t now_ms, struct idem_space *space);

/*
 * The same in two steps, from the thread's open chunk only. idem_arena_peek() says where the next entry would lie and sets the write
 * hazard: it may be written there, and nothing is lost if it is not wanted after all. idem_arena_take() makes the place the caller's;
 * false: the region would have to stay longer. After NULL or false idem_arena_reserve() does it all.
 */
static inline struct idem_open_chunk *idem_arena_open_chunk(struct idem_ctx *ctx, unsigned klass)
{
    return &ctx->open[klass == CLASS_CLAIMS ? OPEN_CLAIMS : OPEN_ANSWERS];
}

static inline bool idem_arena_hold_chunk(struct idem_ctx *ctx, const struct idem_open_chunk *c)
{
    if (ctx->held == c)
        return true;
    ctx->held = NULL;
    store_seq_cst(&ctx->lane->hazard_write, (uint64_t)c->index + 1); /* P4 seq_cst: hazard, then region state */
    if (IDEM_FAULT("hazard.ignored"))
        store_relaxed(&ctx->lane->hazard_write, 0); /* relaxed: a seeded fault */
    IDEM_POINT("reserve.hazard");
    uint64_t state = load_seq_cst(&c->region->state); /* P4 seq_cst: as above; P5 acquire: what came before OPEN */
    if (unlikely((state & ~REGION_EXPIRY_MASK) != c->open) ||
        unlikely(load_relaxed(&c->region->meta) != c->life)) /* relaxed: constant while the hazard holds the region */
        return false;
    ctx->held = c;
    ctx->held_until_ms = region_expiry(state);
    return true;
}

static inline bool idem_arena_chunk_fits(const struct idem_ctx *ctx, const struct idem_open_chunk *c, unsigned klass,
                                         uint64_t bytes)
{
    return c->open != 0 && c->klass == klass && bytes <= c->to - c->from &&
           load_relaxed(&ctx->v->generation->answers_refused) == 0; /* relaxed: decides about thrift only */
}

static inline struct idem_a64 *idem_arena_chunk_next(const struct idem_ctx *ctx, const struct idem_open_chunk *c,
                                                     uint64_t bytes)
{
    struct idem_a64 *at = ctx->v->arena + (c->unit + c->from / IDEM_UNIT_BYTES) * 2;
    /* The lines that later entries will be written to: the locked instruction that publishes an entry waits for its bytes to arrive, and
       the processor's own prefetcher stops at each page. */
    const char *ahead = (const char *)at + IDEM_AHEAD_BYTES;
    prefetch_write(ahead);
    prefetch_write(ahead + 64);
    prefetch_write(ahead + 128);
    for (uint64_t i = 192; i < bytes; i += 64)
        prefetch_write(ahead + i);
    fence_release(); /* P3 release: the chunk is ours, no byte of it was written before this */
    return at;
}

static inline struct idem_a64 *idem_arena_peek(struct idem_ctx *ctx, unsigned klass, uint64_t bytes)
{
    struct idem_open_chunk *c = idem_arena_open_chunk(ctx, klass);
    if (unlikely(!idem_arena_chunk_fits(ctx, c, klass, bytes)) || unlikely(!idem_arena_hold_chunk(ctx, c)))
        return NULL;
    return idem_arena_chunk_next(ctx, c, bytes);
}

/* idem_hazard_compare() for w and idem_arena_peek(), with one fence for both hazards. The caller loads the slot after it. */
static inline struct idem_a64 *idem_arena_peek_comparing(struct idem_ctx *ctx, unsigned klass, uint64_t bytes,
                                                         uint64_t w)
{
    struct idem_open_chunk *c = idem_arena_open_chunk(ctx, klass);
    if (unlikely(!idem_arena_chunk_fits(ctx, c, klass, bytes)))
        return NULL;
    ctx->held = NULL; /* so that the next store is made in any case */
    /* relaxed: the next store orders it, for who looks at hazard_write first */
    store_relaxed(&ctx->lane->hazard_compare, (uint64_t)word_region(ctx->v, w) + 1);
    if (unlikely(!idem_arena_hold_chunk(ctx, c)))
        return NULL;
    return idem_arena_chunk_next(ctx, c, bytes);
}

static inline bool idem_arena_take(struct idem_ctx *ctx, unsigned klass, uint64_t bytes, int64_t expiry_ms,
                                   struct idem_space *space)
{
    struct idem_open_chunk *c = idem_arena_open_chunk(ctx, klass);
    if (unlikely(ctx->held_until_ms < expiry_ms))
        return false;
    space->unit = c->unit + c->from / IDEM_UNIT_BYTES;
    space->generation = region_generation(c->open);
    space->at = ctx->v->arena + space->unit * 2;
    c->from += (uint32_t)bytes;
    store_relaxed(&c->at->span, c->span | c->from); /* relaxed: the lane's own, as the region was OPEN */
    /* relaxed: the lane's own; ordered by the slot word's release, and by check 1 */
    store_relaxed(&c->at->filled, ++c->count); /* relaxed: as above */
    return true;
}

/* The entry that w names has left its slot (or was never published): the region may count it out. The caller's hazards still name it. */
void idem_arena_emptied(struct idem_ctx *ctx, uint64_t unit);

static inline void idem_hazard_compare(struct idem_ctx *ctx, uint64_t w)
{
    store_seq_cst(&ctx->lane->hazard_compare,
                  (uint64_t)word_region(ctx->v, w) + 1); /* P4 seq_cst: hazard, then slot word */
}

static inline void idem_arena_leave(struct idem_ctx *ctx)
{
    ctx->held = NULL;
    store_release(&ctx->lane->hazard_write, 0);   /* P11 release: after the last access it covers */
    store_release(&ctx->lane->hazard_compare, 0); /* P11 release: as above */
}

/* Largest entry. */
static inline uint64_t idem_arena_entry_max(const struct idem_view *v)
{
    return UINT64_C(1) << v->region_shift;
}

/* Few regions are free: classes share them, and a pass looks for what has expired in regions that stay. */
bool idem_arena_scarce(const struct idem_view *v);

/* Checks 1, 2 and 3: no live lane's hazard names the region. Owners are judged here and now (invariant 4). */
bool idem_arena_unhazarded(const struct idem_ctx *ctx, uint32_t region, bool compare_too);

/* Is a region on its way back, but for a hazard of somebody who lives: one who was preempted inside of a call, or stopped? */
bool idem_arena_held(const struct idem_ctx *ctx);

/* Recycling (recycle.c). Pressure: 0 none, 1 memory is getting scarce, 2 an operation would be refused. */
struct idem_survey {
    uint32_t free;
    uint32_t waiting_for_pass; /* draining regions that a pass can bring forward */
    bool moved;                /* something changed its state */
    bool room_known;
    uint32_t room;   /* for entries that have to move, in shares of a region */
    uint32_t moving; /* of that, spoken for */
};
void idem_arena_recycle(struct idem_ctx *ctx, uint32_t *at, uint32_t limit, int pressure, int64_t now_ms,
                        struct idem_survey *survey);
/* A slot that names this draining region can't be dealt with in this pass: then the pass must not count for the region. To be called
   before the cursor leaves the slice, under a hazard on the region. A note is put forward past the next full pass; where there is none yet,
   the word is changed, so that a note that somebody is about to make from what he saw before fails. */
void idem_region_put_off(struct idem_view *v, uint32_t region, unsigned generation, uint64_t pass);
/* when_full=evict: the full region that expires first gives up its answers. False: there is none. */
bool idem_arena_evict_one(struct idem_ctx *ctx);
/* True: as many entries emptied as filled. live and filled (optional) receive the counts of this life. */
bool idem_region_chunks_empty(const struct idem_view *v, uint32_t region, uint64_t *live, uint64_t *filled);

/* The sweep's cursor (its slices are the index's business; its pass is what a draining region waits for). */
#define CURSOR_SLICES ((UINT64_C(1) << 24) - 1)
static inline uint64_t cursor_pass(uint64_t c)
{
    return c >> 24;
}
static inline uint32_t cursor_slice(uint64_t c)
{
    return (uint32_t)(c & CURSOR_SLICES);
}

#endif
