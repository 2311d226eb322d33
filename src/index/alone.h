/*
 * index/alone.h - filling the index of a store that nobody else has yet.
 *
 * Owns: what insert.c's steps come to while only the recovery that made the store knows its name: no slot is reserved before it is final, nothing is
 * compared before it is changed. A locked instruction costs as much as all the rest of placing a record. What is left behind is what insert.c
 * leaves: a header that names no slot, and reaches as far as its entries lie.
 * relaxed-in-this-file: the root's rename publishes all of it.
 *
 * If we die here: the store has no name yet, and gets none.
 */
#ifndef IDEM_INDEX_ALONE_H
#define IDEM_INDEX_ALONE_H

#include "index/bucket.h"

/* The entry in space becomes the key's, in this state. False: the scan that left gap saw no free slot; idem_index_insert() looks for one. */
static inline bool idem_alone_insert(struct idem_view *v, uint64_t hash, const struct idem_gap *gap, unsigned state,
                                     const struct idem_space *space)
{
    unsigned distance = gap->free_distance;
    unsigned reach = header_reach(gap->header) > distance ? header_reach(gap->header) : distance;
    if (distance > IDEM_DISTANCE_MAX || (gap->header & HEADER_FROZEN) != 0)
        return false;
    store_relaxed(&v->buckets[gap->bucket].slots[gap->slot],
                  word_make(state, distance, idem_tag_of(hash), space->unit, space->generation));
    store_relaxed(&v->buckets[gap->home].header, header_make(header_version(gap->header) + 1, reach, false, 0, 0));
    return true;
}

/* As idem_index_replace(); nobody waits for the key. */
static inline void idem_alone_replace(struct idem_ctx *ctx, const struct idem_found *f, unsigned state,
                                      const struct idem_space *space)
{
    store_relaxed(f->slot, word_with_state(word_moved(f->word, space->unit, space->generation), state));
    idem_arena_emptied(ctx, word_unit(f->word));
}

#endif
