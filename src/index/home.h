/*
 * index/home.h - what a key's home bucket says by itself; claiming a key of which it says that it is absent.
 *
 * Owns: the protocol's steps (index.h) for the common cases, inlined. Absent: nothing of this home lies outside of it, the slot that its header
 * names is final, no slot has the key's tag, one is free. Perhaps there: a slot has its tag; whether that is the key is
 * idem_index_try()'s to say. Every other case is find.c's and insert.c's.
 *
 * If we die here: as in insert.c; the crash points are the same.
 */
#ifndef IDEM_INDEX_HOME_H
#define IDEM_INDEX_HOME_H

#include "base/point.h"
#include "index/bucket.h"

#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
#include <emmintrin.h>
#endif

struct idem_home {
    struct idem_bucket_shm *bucket;
    uint64_t header;
    uint64_t place; /* of the free slot, or of the one with the key's tag */
};
enum idem_sight { HOME_ABSENT, HOME_MATCH, HOME_UNKNOWN };

/* A bucket's slots at a glance, without a branch: which are free, which have these distance and tag. A bit each. */
struct idem_glance {
    unsigned free;
    unsigned match;
};

#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
/* Aligned loads of 16 bytes: each word in them is read at once, and in order, as on this architecture every load is. (The compiler is kept
   from loading a pair twice.) A slot is free if its upper half is 0: there is no generation 0. */
static inline struct idem_glance idem_glance_at(const struct idem_bucket_shm *b, uint64_t distance_and_tag)
{
    const __m128i *at = (const __m128i *)(const void *)b, zero = _mm_setzero_si128();
    const __m128i whose = _mm_set1_epi32(WORD_WHOSE), want = _mm_set1_epi32((int)distance_and_tag);
    __m128 w01 = _mm_castsi128_ps(_mm_load_si128(at)), w23 = _mm_castsi128_ps(_mm_load_si128(at + 1));
    __m128 w45 = _mm_castsi128_ps(_mm_load_si128(at + 2)), w67 = _mm_castsi128_ps(_mm_load_si128(at + 3));
    __asm__("" : "+x"(w01), "+x"(w23), "+x"(w45), "+x"(w67));
    __m128i low0 = _mm_castps_si128(_mm_shuffle_ps(w01, w23, 0x88)),
            high0 = _mm_castps_si128(_mm_shuffle_ps(w01, w23, 0xdd));
    __m128i low1 = _mm_castps_si128(_mm_shuffle_ps(w45, w67, 0x88)),
            high1 = _mm_castps_si128(_mm_shuffle_ps(w45, w67, 0xdd));
    __m128i match = _mm_packs_epi32(_mm_cmpeq_epi32(_mm_and_si128(low0, whose), want),
                                    _mm_cmpeq_epi32(_mm_and_si128(low1, whose), want));
    __m128i vacant = _mm_packs_epi32(_mm_cmpeq_epi32(high0, zero), _mm_cmpeq_epi32(high1, zero));
    unsigned both = (unsigned)_mm_movemask_epi8(_mm_packs_epi16(match, vacant));
    unsigned free = both >> 9;
    return (struct idem_glance){free, both >> 1 & 0x7f & ~free};
}
#else
static inline struct idem_glance idem_glance_at(const struct idem_bucket_shm *b, uint64_t distance_and_tag)
{
    struct idem_glance g = {0, 0};
    for (unsigned s = IDEM_BUCKET_SLOTS;
         s-- > 0;) {                             /* the first slot's bit ends up lowest; each adds a carry, no shift */
        uint64_t w = load_acquire(&b->slots[s]); /* P1 acquire: orders the slots after the header */
        g.free = g.free + g.free + (w >> 32 == 0);
        g.match = g.match + g.match + ((w & WORD_WHOSE) == distance_and_tag);
    }
    g.match &= ~g.free;
    return g;
}
#endif

/* Steps 1 and 2. HOME_UNKNOWN: idem_index_find() has to look. */
static inline enum idem_sight idem_home_look(struct idem_view *v, uint64_t hash, struct idem_home *home)
{
    uint64_t number = idem_home_of(v, hash);
    struct idem_bucket_shm *b = &v->buckets[number];
    uint64_t h = load_acquire(&b->header); /* P2 acquire: the slots it speaks of */
    home->place = number * 8;
    if (unlikely(header_slot(h) >= IDEM_BUCKET_SLOTS))
        return HOME_UNKNOWN;
    uint64_t pending = load_acquire(&b->slots[header_slot(h)]); /* P1 acquire: which state is it in? */
    /* Numbers, not conditions: a branch on `pending` alone would be guessed wrong every other time, and that is known only when the line
       is there, so that the next call's miss could not be begun meanwhile. */
    uint64_t is_there = (pending | -pending) >> 63, is_tentative = ((pending & 7) - 1) >> 63;
    _Static_assert(WORD_TENTATIVE == 0, "a state of 0 wraps around");
    struct idem_glance g = idem_glance_at(b, (uint64_t)idem_tag_of(hash) << WORD_TAG_SHIFT);
    if (unlikely(g.match != 0)) {
        home->place += (unsigned)__builtin_ctz(g.match);
        idem_entry_prefetch(v, load_relaxed(&b->slots[home->place % 8])); /* relaxed: only to know what to prefetch */
        return HOME_MATCH;
    }
    if (unlikely((h & HEADER_ELSEWHERE) != 0) || unlikely((h >> 7 & is_there & is_tentative) != 0) ||
        unlikely(g.free == 0))
        return HOME_UNKNOWN;
    home->bucket = b;
    home->header = h;
    home->place += (unsigned)__builtin_ctz(g.free);
    return HOME_ABSENT;
}

/* After HOME_ABSENT: may the claim take this time, which was read before? If not, the clock has to be read anew (invariant 5). */
static inline bool idem_home_time_is_good(const struct idem_view *v, int64_t token_ms)
{
    return token_ms >
           (int64_t)load_relaxed(&v->generation->freed_ms); /* relaxed: the scan's acquire loads come before it */
}

/* Steps 4 to 6. The entry lies in space, filled, its write hazard held. False: begin again with a scan. */
static inline bool idem_home_insert(const struct idem_home *home, uint64_t hash, const struct idem_space *space)
{
    struct idem_a64 *header = &home->bucket->header, *at = &home->bucket->slots[home->place % 8];
    uint64_t w = word_make(WORD_TENTATIVE, 0, idem_tag_of(hash), space->unit, space->generation);
    uint64_t none = 0, h = home->header, mine = w;
    if (unlikely(!cas_acq_rel(at, &none, w))) /* P1 release: the entry's bytes */
        return false;
    IDEM_POINT("claim.reserved");
    uint64_t next = header_make(header_version(h) + 1, 0, true, 0, (unsigned)(home->place % 8));
    if (unlikely(!cas_acq_rel(header, &h, next)) && !IDEM_FAULT("claim.blind")) { /* P2 release: the reserved slot */
        cas_acq_rel(at, &mine,
                    0); /* P1 release: nothing of it was seen; it is still ours, nobody clears a living writer's */
        IDEM_POINT("claim.given_back");
        return false;
    }
    IDEM_POINT("claim.published");
    /* P1 release: invariant 6, a failure is somebody's help */
    cas_acq_rel(at, &mine, word_with_state(w, WORD_IN_PROGRESS));
    IDEM_POINT("claim.finished");
    return true;
}

#endif
