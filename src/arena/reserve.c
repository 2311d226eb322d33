/*
 * arena/reserve.c - room for an entry: the lane's chunk, a new chunk, a new region; who looks where first.
 *
 * Owns: the allocation side of arena.h, FREE -> OPEN. See there for the invariants.
 */
#include "arena/reserve.h"

#include "base/error.h"
#include "base/point.h"

#define CLASS_BASE_MS 1024
#define TRIES         64u
#define NEAR_CLASSES  8u /* live up to four times as long */
#define TIGHT_FREE    2u /* who opens a region for claims with no more free ones to spare lets no lane take chunks of it */

unsigned idem_class_of(int64_t life_ms)
{
    if (life_ms >= IDEM_TTL_MAX_MS)
        return CLASS_NEVER;
    if (life_ms <= CLASS_BASE_MS)
        return 2;
    uint64_t n = (uint64_t)(life_ms - 1);
    unsigned octave = 63u - (unsigned)__builtin_clzll(n); /* >= 10 */
    unsigned quarter = (unsigned)(n >> (octave - 2)) & 3;
    return 3 + (octave - 10) * 4 + quarter; /* a hundred years are 130 */
}

int64_t idem_class_life_ms(unsigned klass)
{
    if (klass == CLASS_CLAIMS)
        return 0;
    if (klass == CLASS_NEVER)
        return IDEM_FOREVER;
    if (klass == 2)
        return CLASS_BASE_MS;
    unsigned octave = (klass - 3) / 4 + 10, quarter = (klass - 3) % 4;
    return (INT64_C(1) << octave) + (INT64_C(1) << (octave - 2)) * (quarter + 1);
}

/* How far an expiry is raised at once: few CASes, little memory held longer than needed. */
static int64_t raise_step(int64_t life_ms)
{
    return life_ms / 256 + 16;
}

static int64_t meta_opened(uint64_t meta)
{
    return (int64_t)(meta & ((UINT64_C(1) << 40) - 1));
}

bool idem_region_stays(struct idem_region_shm *r, uint64_t *state, int64_t expiry_ms, int64_t now_ms)
{
    while (region_expiry(*state) < expiry_ms) {
        int64_t to = expiry_ms >= ENTRY_TIME_MAX ? ENTRY_TIME_MAX : expiry_ms + raise_step(expiry_ms - now_ms);
        if (to > ENTRY_TIME_MAX)
            to = ENTRY_TIME_MAX;
        uint64_t raised = region_state(region_phase(*state), to, region_generation(*state));
        if (cas_seq_cst(&r->state, state,
                        raised)) { /* P4 seq_cst: against a sweeper's change to DRAINING; P5 release */
            *state = raised;
            return true;
        }
        if (!region_in_use(*state))
            return false;
    }
    return true;
}

bool idem_region_enter(struct idem_ctx *ctx, uint32_t index, unsigned phase, unsigned generation, uint64_t *state)
{
    ctx->held = NULL;
    struct idem_region_shm *r = &ctx->v->regions[index];
    store_seq_cst(&ctx->lane->hazard_write, (uint64_t)index + 1); /* P4 seq_cst: hazard, then region state */
    if (IDEM_FAULT("hazard.ignored"))
        store_relaxed(&ctx->lane->hazard_write, 0); /* relaxed: a seeded fault */
    IDEM_POINT("reserve.hazard");
    *state = load_seq_cst(&r->state); /* P4 seq_cst: as above; P5 acquire: what came before OPEN */
    return region_phase(*state) == phase && (generation == 0 || region_generation(*state) == generation);
}

static void count_filled(struct idem_view *v, uint32_t region, uint64_t offset, bool shared)
{
    struct idem_a64 *filled = &v->chunks[region * v->region_chunks + (uint32_t)(offset >> v->chunk_shift)].filled;
    uint64_t life = region_life(v, region);
    uint64_t old = load_relaxed(filled); /* relaxed: ordered by the slot word's release, and by check 1 */
    if (!shared) {
        store_relaxed(filled, count_next(old, life)); /* relaxed: the lane's own; as above */
        return;
    }
    while (!cas_relaxed(filled, &old, count_next(old, life))) /* relaxed: as above */
        ;
}

void idem_region_fill(struct idem_ctx *ctx, uint32_t region, unsigned generation, uint64_t offset, bool shared,
                      struct idem_space *space)
{
    struct idem_view *v = ctx->v;
    count_filled(v, region, offset, shared);
    space->unit = ((uint64_t)region << (v->region_shift - 4)) + offset / IDEM_UNIT_BYTES;
    space->generation = generation;
    space->at = v->arena + space->unit * 2;
    fence_release(); /* P3 release: the chunk is ours, no byte of it was written before this */
}

/* What a lane's chunk has left, in its region: [from, to). Bounded, but not to be believed before the region was entered. */
struct rest {
    struct idem_chunk_shm *at;
    uint32_t region, from, to;
    unsigned generation;
};

/* False: the place says nothing, or its region has gone on without us. */
static bool rest_of(const struct idem_view *v, const struct idem_lane_chunk_shm *c, struct rest *r)
{
    uint64_t place = load_relaxed(&c->place), life = load_relaxed(&c->life); /* relaxed: the lane's own */
    uint32_t number = (uint32_t)(place >> 57);
    r->region = (uint32_t)place;
    r->generation = (unsigned)(place >> 32 & 0xffff);
    if (place == 0 || r->region >= v->region_count || number >= v->region_chunks || r->generation == 0)
        return false;
    r->at = &v->chunks[r->region * v->region_chunks + number];
    uint64_t span = load_relaxed(&r->at->span); /* relaxed: the lane's own while the region is OPEN */
    r->from = (uint32_t)(span & COUNT_MASK);
    r->to = (number + 1) << v->chunk_shift;
    return (span & ~COUNT_MASK) == chunk_life(life) && r->from <= r->to && r->from % IDEM_UNIT_BYTES == 0;
}

/* From the lane's open chunk of this class. The span moves before anything is written (lane.h, invariant 3). */
static bool from_chunk(struct idem_ctx *ctx, struct idem_lane_chunk_shm *c, uint64_t bytes, int64_t expiry_ms,
                       int64_t now_ms, struct idem_space *space)
{
    struct idem_view *v = ctx->v;
    struct rest r;
    if (!rest_of(v, c, &r) || bytes > r.to - r.from)
        return false;
    uint64_t state, life = load_relaxed(&c->life); /* relaxed: the lane's own */
    /* relaxed: constant while the hazard holds the region */
    if (!idem_region_enter(ctx, r.region, REGION_OPEN, r.generation, &state) ||
        load_relaxed(&v->regions[r.region].meta) != life ||
        !idem_region_stays(&v->regions[r.region], &state, expiry_ms, now_ms)) {
        store_relaxed(&c->place, 0); /* relaxed: the lane's own; the region has gone on without us */
        return false;
    }
    store_relaxed(&r.at->span, chunk_life(life) | (r.from + bytes)); /* relaxed: as in rest_of() */
    idem_region_fill(ctx, r.region, r.generation, r.from, load_relaxed(&c->place) >> 56 & 1,
                     space); /* relaxed: the lane's own */
    return true;
}

/* The chunk that was just allocated from, for the inline path. One that is shared with a dead lane's entries is counted by CAS
   and stays here. */
static void remember(struct idem_ctx *ctx, unsigned klass, struct idem_lane_chunk_shm *chunk)
{
    struct idem_view *v = ctx->v;
    struct idem_open_chunk *c = idem_arena_open_chunk(ctx, klass);
    struct rest r;
    uint64_t place = load_relaxed(&chunk->place); /* relaxed: the lane's own */
    c->open = 0;
    if ((place >> 56 & 1) || (place >> 48 & 0xff) != klass || !rest_of(v, chunk, &r) || r.from == r.to)
        return;
    /* A chunk's entries are counted in one place: the space must not cross a boundary. */
    if ((r.from >> v->chunk_shift) != ((r.to - 1) >> v->chunk_shift))
        return;
    c->at = r.at;
    c->life = load_relaxed(&chunk->life);                    /* relaxed: the lane's own */
    if (load_relaxed(&v->regions[r.region].meta) != c->life) /* relaxed: constant while the hazard holds the region */
        return;
    uint64_t life = region_life(v, r.region);
    c->count = life | count_of(load_relaxed(&c->at->filled), life); /* relaxed: the lane's own */
    c->span = chunk_life(c->life);
    c->unit = (uint64_t)r.region << (v->region_shift - 4);
    c->region = &v->regions[r.region];
    c->chunk = chunk;
    c->index = r.region;
    c->klass = klass;
    c->from = r.from;
    c->to = r.to;
    c->open = region_state(REGION_OPEN, 0, r.generation);
}

static struct idem_lane_chunk_shm *find_chunk(struct idem_ctx *ctx, unsigned klass)
{
    struct idem_lane_chunk_shm *chunks = ctx->lane->chunks;
    for (unsigned i = 0; i < IDEM_LANE_CHUNKS; i++) {
        uint64_t place = load_relaxed(&chunks[i].place); /* relaxed: the lane's own */
        if (place != 0 && (place >> 48 & 0xff) == klass)
            return &chunks[i];
    }
    return NULL;
}

/* Where to note a new chunk: in the class's own place, an empty one, or one whose chunk is used up or gone with its region. NULL: there
   are more classes than places, and dropping a chunk that is hardly used would waste it. */
static struct idem_lane_chunk_shm *place_for(struct idem_ctx *ctx, unsigned klass)
{
    const struct idem_view *v = ctx->v;
    struct idem_lane_chunk_shm *chunks = ctx->lane->chunks, *own = find_chunk(ctx, klass);
    if (own != NULL)
        return own;
    for (unsigned i = 0; i < IDEM_LANE_CHUNKS; i++) {
        struct rest r;
        if (!rest_of(v, &chunks[i], &r) || r.to - r.from < UINT64_C(1) << (v->chunk_shift - 3))
            return &chunks[i];
        uint64_t state = load_relaxed(&v->regions[r.region].state); /* relaxed: decides about thrift only */
        if (region_phase(state) != REGION_OPEN || region_generation(state) != r.generation)
            return &chunks[i];
    }
    return klass == CLASS_CLAIMS ? &chunks[0] : NULL;
}

bool idem_region_take(struct idem_ctx *ctx, uint32_t index, unsigned g, uint64_t bytes, bool exact, uint64_t *from,
                      uint64_t *to)
{
    struct idem_region_shm *r = &ctx->v->regions[index];
    uint64_t region_bytes = UINT64_C(1) << ctx->v->region_shift, chunk_bytes = UINT64_C(1) << ctx->v->chunk_shift;
    uint64_t cursor = load_relaxed(&r->cursor); /* relaxed: a number; the bytes are fenced by P3 */
    for (;;) {
        uint64_t used = cursor >> 48 == g ? cursor & LOW48 : 0;
        uint64_t end = exact ? used + bytes : (used | (chunk_bytes - 1)) + 1;
        if (!exact && end - used < bytes)
            end += chunk_bytes;
        if (used > region_bytes || end > region_bytes)
            return false;
        if (cas_relaxed(&r->cursor, &cursor, (uint64_t)g << 48 | end)) { /* relaxed: as above */
            IDEM_POINT("chunk.taken");
            *from = used;
            *to = end;
            return true;
        }
    }
}

/* FREE -> OPEN for a class. Invariant 5: meta is set once a generation, by whoever comes first; the rest finish his work. Who sleeps here may find
   the words of a life that others have begun and ended meanwhile, or of the one that runs: these are not his to change. */
static bool open_region(struct idem_ctx *ctx, uint32_t index, unsigned klass, int64_t now_ms)
{
    struct idem_view *v = ctx->v;
    struct idem_region_shm *r = &v->regions[index];
    uint64_t state = load_acquire(&r->state); /* P5 acquire: what was done before it became FREE */
    if (region_phase(state) != REGION_FREE)
        return false;
    IDEM_POINT("region.found");
    unsigned g = region_generation(state);
    uint64_t meta = load_acquire(&r->meta), drain = load_acquire(&r->drain); /* P5 acquire: the state they are for */
    if (load_relaxed(&r->state) != state && !IDEM_FAULT("region.unlooked"))  /* relaxed: after both, by their acquire */
        return false;
    if (meta >> 48 != g) {
        uint64_t opened = (uint64_t)(now_ms - v->fixed.created_ms) & ((UINT64_C(1) << 40) - 1);
        /* P5 release: that it is FREE */
        cas_acq_rel(&r->meta, &meta, (uint64_t)g << 48 | (uint64_t)klass << 40 | opened);
        IDEM_POINT("region.meta");
    }
    meta = load_relaxed(&r->meta); /* relaxed: published by the CAS on the state */
    unsigned opened_for = region_class_of(meta);
    if (meta >> 48 != g || opened_for >= IDEM_CLASSES)
        return false;
    /* A drain word with this generation is from 65,535 lives ago: nobody drains what is not open. */
    if (drain >> 48 == g)
        cas_relaxed(&r->drain, &drain, 0); /* relaxed: as above */
    /* It expires now; the first entry raises that, whatever its class. */
    if (!cas_seq_cst(&r->state, &state, region_state(REGION_OPEN, now_ms, g))) /* P5 release: meta before OPEN */
        return false;
    IDEM_POINT("region.opened");
    /* If somebody else opened one for the class meanwhile, his is used; this one is unused, has expired, and goes back. */
    uint64_t none = 0;
    cas_relaxed(&v->generation->open[opened_for], &none, (uint64_t)index + 1); /* relaxed: a hint */
    return opened_for == klass;
}

#define KEPT_MOST 32u
_Static_assert(KEPT_MOST + 2 + 8 <= TRIES, "what is kept, and eight to choose from");

/* Somebody counted, and no more than so many regions were free. It may be wrong: a region may have been freed while he did. Who would refuse an
   operation for it forgets it first, and looks (idem_arena_reserve()). */
static bool free_at_most(const struct idem_view *v, uint32_t n)
{
    uint64_t most = load_relaxed(&v->generation->free_most); /* relaxed: a hint */
    return most != 0 && most - 1 <= n;
}

/* A free region for the class, leaving `keep` free ones. */
static bool open_some(struct idem_ctx *ctx, unsigned klass, uint32_t keep, int64_t now_ms)
{
    struct idem_view *v = ctx->v;
    uint32_t seen[TRIES], n = 0;
    uint32_t limit = keep + 8;
    if (free_at_most(v, keep))
        return false;
    /* All lanes begin at the front: low regions are used first and stay warm. */
    uint64_t hint = load_relaxed(&v->generation->free_from); /* relaxed: a hint */
    uint32_t front = hint < v->region_count ? (uint32_t)hint : 0;
    for (uint32_t i = 0; i < v->region_count && n < limit; i++) {
        uint32_t index = front + i < v->region_count ? front + i : front + i - v->region_count;
        if (region_phase(load_relaxed(&v->regions[index].state)) == REGION_FREE) /* relaxed: open_region looks again */
            seen[n++] = index;
    }
    if (n < limit)
        store_relaxed(&v->generation->free_most, (uint64_t)n + 1); /* relaxed: a hint */
    for (uint32_t i = 0; i + keep < n; i++) {
        if (!open_region(ctx, seen[i], klass, now_ms))
            continue;
        store_relaxed(&v->generation->free_from, seen[i]); /* relaxed: a hint */
        uint64_t whose = (uint64_t)seen[i] + 1;
        struct idem_a64 *tight = &v->generation->tight_claims;
        if (klass == CLASS_CLAIMS && n <= keep + TIGHT_FREE)
            store_relaxed(tight, whose);       /* relaxed: a hint */
        else if (load_relaxed(tight) == whose) /* relaxed: a hint */
            store_relaxed(tight, 0);           /* relaxed: a hint */
        return true;
    }
    return false;
}

static uint32_t kept_free(const struct idem_view *v, enum idem_purpose purpose)
{
    if (purpose == FOR_SWEEP)
        return 0;
    if (purpose == FOR_ANSWER)
        return 1;
    return v->region_count / 2048 + 2 < KEPT_MOST ? v->region_count / 2048 + 2 : KEPT_MOST;
}

/* So few free regions that classes should share one rather than each open its own. */
bool idem_arena_scarce(const struct idem_view *v)
{
    uint32_t enough = kept_free(v, FOR_CLAIM) + (v->region_count / 8 < TRIES ? v->region_count / 8 : TRIES) + 2;
    uint32_t n = 0;
    if (free_at_most(v, enough - 1))
        return true;
    /* From the end: low regions are used first. */
    for (uint32_t i = v->region_count; i > 0 && n < enough; i--)
        n += region_phase(load_relaxed(&v->regions[i - 1].state)) ==
             REGION_FREE; /* relaxed: decides about thrift only */
    return n < enough;
}

static bool window_over(const struct idem_view *v, const struct idem_region_shm *r, unsigned klass, int64_t now_ms)
{
    if (klass == CLASS_NEVER || klass == CLASS_CLAIMS)
        return false;
    int64_t window = idem_class_life_ms(klass) / 4 + 2000;
    int64_t opened_ms =
        v->fixed.created_ms + meta_opened(load_relaxed(&r->meta)); /* relaxed: decides about thrift only */
    return now_ms - opened_ms > window;
}

static bool from_open_region(struct idem_ctx *ctx, uint32_t index, unsigned klass, uint64_t bytes, int64_t expiry_ms,
                             int64_t now_ms, struct idem_space *space)
{
    struct idem_view *v = ctx->v;
    /* A large entry lies by itself; so does a small one of a class that the lane has no place for, and one in the claims' last region. */
    bool alone = bytes > UINT64_C(1) << (v->chunk_shift - 2) ||
                 load_relaxed(&v->generation->tight_claims) == (uint64_t)index + 1; /* relaxed: a hint */
    struct idem_lane_chunk_shm *c = alone ? NULL : place_for(ctx, klass);
    uint64_t state, from, to;
    /* The expiry is raised once there is room: who finds none must not make the region stay for his sake. */
    if (index >= v->region_count || !idem_region_enter(ctx, index, REGION_OPEN, 0, &state) ||
        !idem_region_take(ctx, index, region_generation(state), bytes, c == NULL, &from, &to) ||
        !idem_region_stays(&v->regions[index], &state, expiry_ms, now_ms))
        return false;
    unsigned generation = region_generation(state);
    if (c == NULL) {
        idem_region_fill(ctx, index, generation, from, true, space);
        if (from >> v->chunk_shift != to >> v->chunk_shift)
            idem_lane_took_chunk(ctx->lane);
        return true;
    }
    bool shared = from % (UINT64_C(1) << v->chunk_shift) != 0;
    for (unsigned i = 0; i < OPEN_CHUNKS; i++)
        if (ctx->open[i].chunk == c)
            ctx->open[i].open = 0; /* the place may have been another class's */
    uint64_t number = (to - 1) >> v->chunk_shift;
    uint64_t life = load_relaxed(&v->regions[index].meta); /* relaxed: constant while the hazard holds the region */
    /* relaxed: the lane's own. place is cleared first: one who dies in between leaves no place with another's life. */
    store_relaxed(&c->place, 0);
    store_relaxed(&v->chunks[index * v->region_chunks + number].span,
                  chunk_life(life) | (from + bytes)); /* relaxed: as above */
    store_relaxed(&c->life, life);                    /* relaxed: as above */
    store_relaxed(&c->place, (uint64_t)index | (uint64_t)generation << 32 | (uint64_t)klass << 48 |
                                 (uint64_t)shared << 56 | number << 57); /* relaxed: as above */
    idem_region_fill(ctx, index, generation, from, shared, space);
    remember(ctx, klass, c);
    idem_lane_took_chunk(ctx->lane);
    return true;
}

/* From the region that is open for a class; if it is the entry's own class, the hint goes when that region has no room any more. */
static bool from_class(struct idem_ctx *ctx, unsigned from, unsigned klass, uint64_t bytes, int64_t expiry_ms,
                       int64_t now_ms, struct idem_space *space)
{
    struct idem_view *v = ctx->v;
    struct idem_a64 *hint = &v->generation->open[from];
    uint64_t open = load_relaxed(hint); /* relaxed: a hint, everything is checked under the hazard */
    if (open == 0)
        return false;
    uint32_t index = (uint32_t)(open - 1);
    if (index < v->region_count && (!window_over(v, &v->regions[index], from, now_ms) || idem_arena_scarce(v)) &&
        from_open_region(ctx, index, klass, bytes, expiry_ms, now_ms, space))
        return true;
    if (from == klass)
        cas_relaxed(hint, &open, 0); /* relaxed: a hint */
    return false;
}

static bool from_own_class(struct idem_ctx *ctx, unsigned klass, uint32_t keep, uint64_t bytes, int64_t expiry_ms,
                           int64_t now_ms, struct idem_space *space)
{
    for (unsigned tries = 0; tries < TRIES; tries++) {
        if (from_class(ctx, klass, klass, bytes, expiry_ms, now_ms, space))
            return true;
        /* A failing one may have been finished by somebody else, for us to use. */
        if (!open_some(ctx, klass, keep, now_ms) &&
            load_relaxed(&ctx->v->generation->open[klass]) == 0) /* relaxed: a hint */
            return false;
    }
    return false;
}

/* Classes from..to (not below CLASS_NEVER + 1), the nearest first. */
static bool from_classes(struct idem_ctx *ctx, unsigned from, unsigned to, unsigned klass, uint64_t bytes,
                         int64_t expiry_ms, int64_t now_ms, struct idem_space *space)
{
    for (unsigned other = from; other != to; other += from < to ? 1 : -1u)
        if (other < IDEM_CLASSES && other != klass && from_class(ctx, other, klass, bytes, expiry_ms, now_ms, space))
            return true;
    return false;
}

/* In classes that live about as long, then in any but the claims'. */
static bool from_any_left(struct idem_ctx *ctx, unsigned klass, uint64_t bytes, int64_t expiry_ms, int64_t now_ms,
                          struct idem_space *space)
{
    return idem_arena_take_left(ctx, klass, klass + NEAR_CLASSES, bytes, expiry_ms, now_ms, space) ||
           idem_arena_take_left(ctx, CLASS_NEVER, IDEM_CLASSES - 1, bytes, expiry_ms, now_ms, space);
}

/* Does the class fill regions of its own? Then it had better go on with another one. */
static bool has_region(const struct idem_view *v, unsigned klass)
{
    for (uint32_t i = 0; i < v->region_count; i++) {
        /* relaxed: decides about thrift only */
        uint64_t state = load_relaxed(&v->regions[i].state), meta = load_relaxed(&v->regions[i].meta);
        if (region_phase(state) == REGION_OPEN && meta >> 48 == region_generation(state) &&
            region_class_of(meta) == klass)
            return true;
    }
    return false;
}

/* Few regions are free: classes share. A longer-lived one needs no raise. A shorter-lived one would be held for long by a single answer:
   only for a class that is rare. Those that never expire come last: what lies there comes back by compaction only. */
static bool from_shared(struct idem_ctx *ctx, unsigned klass, uint32_t keep, uint64_t bytes, int64_t expiry_ms,
                        int64_t now_ms, struct idem_space *space)
{
    struct idem_view *v = ctx->v;
    uint32_t wanted = kept_free(v, FOR_CLAIM) + 2;
    bool may_share = v->fixed.when_full != IDEM_FULL_EVICT; /* there it is cheaper to evict */
    if (klass == CLASS_NEVER)
        return (may_share && keep > 0 &&
                (from_own_class(ctx, klass, wanted, bytes, expiry_ms, now_ms, space) ||
                 from_any_left(ctx, klass, bytes, expiry_ms, now_ms, space))) ||
               from_own_class(ctx, klass, keep, bytes, expiry_ms, now_ms, space) ||
               from_classes(ctx, IDEM_CLASSES - 1, CLASS_NEVER, klass, bytes, expiry_ms, now_ms, space);
    return from_classes(ctx, klass + 1, klass + 1 + NEAR_CLASSES, klass, bytes, expiry_ms, now_ms, space) ||
           from_own_class(ctx, klass, wanted, bytes, expiry_ms, now_ms, space) ||
           (may_share && from_any_left(ctx, klass, bytes, expiry_ms, now_ms, space)) ||
           (has_region(v, klass) && from_own_class(ctx, klass, keep, bytes, expiry_ms, now_ms, space)) ||
           from_classes(ctx, klass + 1, IDEM_CLASSES, klass, bytes, expiry_ms, now_ms, space) ||
           from_classes(ctx, klass - 1, CLASS_NEVER, klass, bytes, expiry_ms, now_ms, space) ||
           from_class(ctx, CLASS_NEVER, klass, bytes, expiry_ms, now_ms, space);
}

/* Past the lane's own chunk: in regions that are open, in a free one, in what others have left. */
static bool find_room(struct idem_ctx *ctx, unsigned klass, enum idem_purpose purpose, uint64_t bytes,
                      int64_t expiry_ms, int64_t now_ms, struct idem_space *space)
{
    struct idem_view *v = ctx->v;
    uint32_t keep = kept_free(v, purpose);
    if (from_class(ctx, klass, klass, bytes, expiry_ms, now_ms, space))
        return true;
    if (klass != CLASS_CLAIMS && idem_arena_scarce(v) && from_shared(ctx, klass, keep, bytes, expiry_ms, now_ms, space))
        return true;
    if (from_own_class(ctx, klass, keep, bytes, expiry_ms, now_ms, space))
        return true;
    /* The claims' region is the last resort: what stays there for long is moved out of it by the sweep. A moved claim may go anywhere. */
    return purpose != FOR_CLAIM &&
           ((klass != CLASS_CLAIMS && from_class(ctx, CLASS_CLAIMS, klass, bytes, expiry_ms, now_ms, space)) ||
            from_classes(ctx, CLASS_NEVER + 1, IDEM_CLASSES, klass, bytes, expiry_ms, now_ms, space) ||
            (klass != CLASS_NEVER && from_class(ctx, CLASS_NEVER, klass, bytes, expiry_ms, now_ms, space)) ||
            (klass != CLASS_CLAIMS && from_any_left(ctx, klass, bytes, expiry_ms, now_ms, space)));
}

int idem_arena_reserve(struct idem_ctx *ctx, unsigned klass, enum idem_purpose purpose, uint64_t bytes,
                       int64_t expiry_ms, int64_t now_ms, struct idem_space *space)
{
    struct idem_view *v = ctx->v;
    if (likely(idem_arena_peek(ctx, klass, bytes) != NULL) &&
        likely(idem_arena_take(ctx, klass, bytes, expiry_ms, space)))
        return IDEM_OK;
    idem_arena_open_chunk(ctx, klass)->open = 0;
    /* Rather refuse new work than store its outcome without a body. */
    if (purpose == FOR_CLAIM && unlikely(load_relaxed(&v->generation->answers_refused) != 0)) { /* relaxed: as below */
        idem_arena_leave(ctx);
        return IDEM_E_FULL;
    }
    struct idem_lane_chunk_shm *c = find_chunk(ctx, klass);
    if (likely(c != NULL) && likely(from_chunk(ctx, c, bytes, expiry_ms, now_ms, space))) {
        remember(ctx, klass, c);
        return IDEM_OK;
    }
    if (find_room(ctx, klass, purpose, bytes, expiry_ms, now_ms, space))
        return IDEM_OK;
    if (!IDEM_FAULT("room.believed")) {
        store_relaxed(&v->generation->free_most, 0); /* relaxed: a hint */
        if (find_room(ctx, klass, purpose, bytes, expiry_ms, now_ms, space))
            return IDEM_OK;
    }
    if (purpose == FOR_ANSWER && bytes <= UINT64_C(1) << v->chunk_shift)
        store_relaxed(&v->generation->answers_refused, 1); /* relaxed: decides about thrift only */
    idem_arena_leave(ctx);
    return IDEM_E_FULL;
}

void idem_arena_emptied(struct idem_ctx *ctx, uint64_t unit)
{
    struct idem_view *v = ctx->v;
    uint64_t offset = unit * IDEM_UNIT_BYTES;
    struct idem_a64 *emptied = &v->chunks[offset >> v->chunk_shift].emptied;
    uint64_t life = region_life(v, (uint32_t)(offset >> v->region_shift));
    uint64_t old = load_relaxed(emptied); /* relaxed: a count; it may be late, never early */
    while (
        !cas_relaxed(emptied, &old, count_next(old, life))) /* relaxed: as above; the hazard still holds the region */
        ;
}
