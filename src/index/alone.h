/*
 * index/alone.h - filling the index of a store that nobody else has yet.
 *
 * Owns: what insert.c's steps come to while only the recovery that made the store knows its name: no slot is reserved before it is final, nothing is
 * compared before it is changed, and no header's version moves. (A locked instruction costs as much as all the rest of placing a record.) What is left
 * behind could be insert.c's, long ago.
 * relaxed-in-this-file: the root's rename publishes all of it.
 *
 * If we die here: the store has no name yet, and gets none.
 */
#ifndef IDEM_INDEX_ALONE_H
#define IDEM_INDEX_ALONE_H

#include "base/point.h"
#include "index/bucket.h"

/* The entry in space becomes the key's, in this state. False: the scan that left gap saw no free slot; idem_index_insert() looks further. The home's
   header reaches as far as the scan did, and what it names is final: it may stay as it is. */
static inline bool idem_alone_insert(struct idem_view *v, uint64_t hash, const struct idem_gap *gap, unsigned state,
                                     const struct idem_space *space)
{
    unsigned distance = IDEM_FAULT("alone.near") ? 0 : gap->free_distance;
    if (gap->free_distance > header_reach(gap->header) || (gap->header & HEADER_FROZEN) != 0)
        return false;
    store_relaxed(&v->buckets[gap->bucket].slots[gap->slot],
                  word_make(state, distance, idem_tag_of(hash), space->unit, space->generation));
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
