/*
 * index/index.h - buckets and the claim protocol.
 *
 * Owns: every change of a slot word or bucket header. A key has at most one final slot, in its home bucket or up to `reach` further on.
 *
 * States of a slot: free (0); reserved (TENTATIVE, not named by the home header); published (TENTATIVE, named); final.
 *
 * Claiming an absent key (insert.c), the steps by their crash points:
 *   1. Load the home header h. If it names a TENTATIVE slot, help: hazard, slot again, header again, CAS to IN_PROGRESS.
 *   2. Scan home .. home + reach. A final slot with this key is the answer.
 *   3. Load the clock, stamp the token, fill the entry. (Or with the time from before the scan, if it is good: invariant 5.)
 *   4. CAS a free slot 0 -> W, TENTATIVE                                            claim.reserved
 *   5. CAS the home header h -> version + 1, pending = this slot, reach at least its distance     claim.published
 *      If that fails: CAS the slot W -> 0 and begin again; the entry's memory is used again with a fresh token.
 *   6. CAS the slot TENTATIVE -> IN_PROGRESS, whatever comes of it                  claim.finished
 *
 * Invariants
 *  1. Of a home, at most one slot is published but not final: the one its header names. Who moves `pending` has helped it first.
 *  2. A header never names a free slot: who frees a slot takes it out of the header first. He has loaded that header, found that it names the slot, and
 *     then found his final word still there: so what it names is that, and not a later claim in the same slot, and the CAS from that header says so, too.
 *  3. The version moves with every change of a header, so a CAS from h means: nobody published in this home since h was loaded.
 *     With 1 and the scan after h: no other slot holds this key. This makes step 5 the linearization point of a claim.
 *  4. A TENTATIVE slot is cleared by others only if its writer is certainly dead, established before the header was loaded that does
 *     not name it.
 *  5. Tokens of a key grow although it was forgotten in between: a slot is freed only if its token's time lies before the present
 *     millisecond, and after `freed_ms` was raised to that time at least. An absent key is claimed with a time that was read after the
 *     scan, or with an earlier one that lies after `freed_ms` as loaded after the scan: then whatever the scan did not find any more has an older token.
 *  6. Once step 5 succeeded the claim is made: a failing step 6 means that a helper, or even a later operation, was faster.
 *  7. A slot word is compared-and-swapped only under a compare hazard on its region, and after the slot was loaded again unchanged.
 *     A word of one's own that was never published needs none: the write hazard holds its region.
 *
 * If we die here: after claim.reserved the sweep clears the slot; after claim.published the claim exists and its owner is dead: it is taken
 * over; after a header gave up `pending` and before the slot was freed: an ordinary final slot.
 */
#ifndef IDEM_INDEX_INDEX_H
#define IDEM_INDEX_INDEX_H

#include "arena/arena.h"

/* A key as the index wants it: scope and key in a row, hashed. */
struct idem_index_key {
    const void *framed;
    uint32_t key_bytes;
    uint32_t scope_bytes;
    uint64_t hash;
};

static inline uint64_t idem_home_of(const struct idem_view *v, uint64_t hash)
{
    return ((hash >> 32) * v->bucket_count) >> 32;
}
static inline unsigned idem_tag_of(uint64_t hash)
{
    return (unsigned)hash & 0x7f;
}

struct idem_found {
    struct idem_a64 *slot;
    uint64_t place; /* bucket * 8 + slot */
    uint64_t word;
    struct idem_entry entry;
};

/* What a scan that found nothing knows; insert needs it. */
struct idem_gap {
    uint64_t home;
    uint64_t header;
    uint64_t bucket; /* of the free slot, if free_distance <= IDEM_DISTANCE_MAX */
    unsigned slot;
    unsigned free_distance;
};

enum idem_find_result { FIND_ABSENT = 0, FIND_PRESENT = 1 };
/* Errors: IDEM_E_CORRUPT. The entry in *found was valid when its slot was loaded again. gap may be NULL. No hazards are held. */
int idem_index_find(struct idem_ctx *ctx, const struct idem_index_key *key, struct idem_found *found,
                    struct idem_gap *gap);

/* Is this the key's slot? True: as FIND_PRESENT, for one load of the slot. False says nothing. No hazard, no header: a final slot that holds
   the key is the answer, whatever else its home says. */
bool idem_index_try(const struct idem_view *v, const struct idem_index_key *key, uint64_t place,
                    struct idem_found *found);

/* Does the slot still hold the word, but for WAITERS, which may have appeared: is it the same entry in the same state? To be asked after copying from
   an entry (a reader's validation). */
static inline bool idem_slot_unchanged(const struct idem_a64 *slot, uint64_t word)
{
    fence_acquire(); /* P3 acquire: all that was copied before the word is loaded again */
    return ((load_relaxed(slot) ^ word) & ~WORD_WAITERS) == 0; /* relaxed: ordered by the fence */
}

/* The same of what was found. */
bool idem_index_unchanged(const struct idem_found *found);

/* Sets the compare hazard and loads the slot again: false if the word is gone. Then found->word may be compared-and-swapped. */
bool idem_index_hold(struct idem_ctx *ctx, const struct idem_found *found);

/* Steps 4-6. entry lies in space, filled, its write hazard held. Outcomes: 1 claimed (*place receives its place); 0 lost a race: begin again with a scan.
   Errors: IDEM_E_FULL: no free slot within reach of this home, IDEM_E_CORRUPT. */
int idem_index_insert(struct idem_ctx *ctx, const struct idem_index_key *key, const struct idem_gap *gap,
                      const struct idem_space *space, int64_t now_ms, uint64_t *place);

/* CAS of a held slot: to another entry in the same place, or to another state of the same entry. False: changed meanwhile. WAITERS stays
   while the key stays in progress; otherwise it is dropped and everybody is woken. */
bool idem_index_replace(struct idem_ctx *ctx, struct idem_found *found, unsigned state, const struct idem_space *space);
bool idem_index_set_state(struct idem_found *found, unsigned state); /* found->word is then the new one, still held */
bool idem_index_set_waiters(struct idem_found *found);

/* The slot that a claim names by place, token and hash. FIND_ABSENT: something else is there. */
int idem_index_at(struct idem_ctx *ctx, uint64_t place, uint64_t token, uint64_t hash, struct idem_found *found);

/* Does the key of this hash have a slot that names w's entry in w's state now? (Distance, tag and waiters of w are not looked at.) w's region is
   held. The answer is only as good as the hash: false says nothing. */
bool idem_index_names(const struct idem_view *v, uint64_t hash, uint64_t w);
/* Begins to fetch the home bucket of this hash. */
static inline void idem_index_prefetch(const struct idem_view *v, uint64_t hash)
{
    prefetch(&v->buckets[idem_home_of(v, hash)]);
}

/* Copies the entry's key out (IDEM_KEY_MAX bytes of room). Validate afterwards. */
void idem_index_copy_key(const struct idem_entry *e, void *key);

/* Is this record absent by now: expired or forgotten? (A running lease keeps a claim.) False also when its slot has changed meanwhile: what
   is concluded from it then has to be validated like anything else. */
bool idem_index_gone(const struct idem_found *found, int64_t now_ms);

/* Frees a held slot that is gone or to be evicted. False: not yet (token too young), or it changed. */
bool idem_index_free(struct idem_ctx *ctx, struct idem_found *found, int64_t now_ms);

/* sweep.c: recycling and passes for about budget_us; with budget 0 one small step. True: there is more to do. */
bool idem_sweep(struct idem_ctx *ctx, int64_t budget_us, int pressure);
/* What an operation's lane owes, or a part of it: at its end, if idem_lane_owes(). */
void idem_sweep_share(struct idem_ctx *ctx);

#endif
