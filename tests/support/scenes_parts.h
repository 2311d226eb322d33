/*
 * tests/support/scenes_parts.h - what the two tables of scenes have in common: fates, and acts that both use.
 */
#ifndef TESTS_SUPPORT_SCENES_PARTS_H
#define TESTS_SUPPORT_SCENES_PARTS_H

#include "support/scenes.h"

#define MARK "halfway" /* what an owner leaves in every scene that has one */

#define NEW_CLAIM "claim.published"
#define SWAP      "swap.swapped"
#define FIRST                                 \
    {                                         \
        .verdict = IDEM_CLAIMED, .attempt = 1 \
    }
#define DEAD_FIRST                                                        \
    {                                                                     \
        .verdict = IDEM_RECLAIMED, .reason = IDEM_LOST_DEAD, .attempt = 2 \
    }
#define DEAD_MARKED                                                                     \
    {                                                                                   \
        .verdict = IDEM_RECLAIMED, .reason = IDEM_LOST_DEAD, .attempt = 2, .mark = MARK \
    }
#define DEAD_SECOND                                                                     \
    {                                                                                   \
        .verdict = IDEM_RECLAIMED, .reason = IDEM_LOST_DEAD, .attempt = 3, .mark = MARK \
    }
#define LATE_MARKED                                                                      \
    {                                                                                    \
        .verdict = IDEM_RECLAIMED, .reason = IDEM_LOST_LEASE, .attempt = 2, .mark = MARK \
    }
#define OWNED                       \
    {                               \
        .verdict = IDEM_IN_PROGRESS \
    }
#define HELD                    \
    {                           \
        .verdict = IDEM_UNKNOWN \
    }
#define ANSWER(text)                           \
    {                                          \
        .verdict = IDEM_REPLAY, .body = (text) \
    }

idem_key scene_key(const struct stage *st);
/* Arms, then begins the key. */
void scene_begin(struct crash_page *page, idem_store *store, struct stage *st);
/* Claims the key and marks it; nothing is armed. */
void scene_take(struct crash_page *page, idem_store *store, struct stage *st);
/* Answers for all spare keys. */
void scene_fill_bucket(struct stage *st);
void scene_dead_owner(struct stage *st);

extern const struct scene scenes_of_keys[], scenes_of_memory[];
extern const unsigned scenes_of_keys_n, scenes_of_memory_n;

#endif
