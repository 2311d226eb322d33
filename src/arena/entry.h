/*
 * arena/entry.h - the format of an entry, and reading and writing one.
 *
 * Owns: every byte of an entry. In 8-byte words:
 *   0  key bytes, scope included (11 bits) | scope bytes (11) | kind (3) | flags (7) | metadata bytes, or a claim's mark bytes (32)
 *   1  token
 *   2  fingerprint
 *   3  expiry, store ms (48) | claim: sequence in the token (16); response: user flags (16)
 *   4  log word (wal/format.h; the only word that changes after publication, but for a claim's rescue words)
 *   5  claimed or completed at, store ms (48) | attempt (16)
 *   6  response: status (32) | body bytes (32); claim: hash of the key
 *   a response or tombstone ends its header here; a transient answer has two more words, for whoever claims the key after it:
 *   7  token of the newest lost attempt, or 0
 *   8  mark bytes
 *   a claim has instead:
 *   7  owner: process slot and incarnation (also of a lease-only claim: somebody wrote it)
 *   8  lease end, store ms
 *   9  word of the transient answer that it replaced, or 0
 *   10 token of the newest lost attempt, or 0
 *   11 rescue: owner (slot and incarnation) of the completer that fills words 12-15, or 0
 *   12 rescue: expiry (48) | user flags (16)
 *   13 rescue: status (32) | ms from claim to completion, saturated (32)
 *   14 rescue: metadata bytes (32) | body bytes (32), saturated
 *   15 rescue: digest
 * then scope and key (padded to 8), then payload: response: metadata and body in a row; tombstone: three words (metadata
 * bytes, body bytes, digest); transient answer: metadata and body, padded to 8, and the mark; claim: mark. The whole is padded to 16.
 *
 * Rescue words: a completer that finds no memory writes the outcome into the claim itself and changes the slot's state to
 * COMPLETED at the same address. Word 11 decides among completers of one token; a dead one's place can be taken. Readers look
 * at words 12-15 only in state COMPLETED. A copy of a claim in any other state has them cleared.
 *
 * Everything is read by relaxed words and believed only after the slot word was loaded again unchanged (P3).
 */
#ifndef IDEM_ARENA_ENTRY_H
#define IDEM_ARENA_ENTRY_H

#include "base/bytes.h"
#include "idem.h"
#include "segment/view.h"

enum idem_word_state {
    WORD_TENTATIVE = 0,
    WORD_IN_PROGRESS = 1,
    WORD_COMPLETED = 2,
    WORD_ABANDONED = 3,
    WORD_DECLARED = 4, /* lost: its owner said "outcome unknown" */
    WORD_RELEASED = 5, /* lost: an operator ended its lease */
    WORD_RERUN = 6,    /* was lost, settled as "did not happen": claimable */
    WORD_FORGOTTEN = 7 /* absent, but its token is remembered */
};

#define WORD_WAITERS UINT64_C(8)
static inline unsigned word_state(uint64_t w)
{
    return (unsigned)(w & 7);
}
static inline unsigned word_distance(uint64_t w)
{
    return (unsigned)(w >> 4) & 15;
}
static inline unsigned word_tag(uint64_t w)
{
    return (unsigned)(w >> 8) & 0x7f;
}
static inline uint64_t word_unit(uint64_t w)
{
    return (w >> 15) & ((UINT64_C(1) << IDEM_ADDRESS_BITS) - 1);
}
static inline unsigned word_generation(uint64_t w)
{
    return (unsigned)(w >> 48);
}
#define WORD_DISTANCE_SHIFT 4
#define WORD_TAG_SHIFT      8
#define WORD_WHOSE          UINT64_C(0x7ff0) /* distance and tag */
static inline uint64_t word_make(unsigned state, unsigned distance, unsigned tag, uint64_t unit, unsigned generation)
{
    return (uint64_t)state | (uint64_t)distance << 4 | (uint64_t)tag << 8 | unit << 15 | (uint64_t)generation << 48;
}
static inline uint64_t word_with_state(uint64_t w, unsigned state)
{
    return (w & ~UINT64_C(7)) | state;
}
/* The same place and flags, another entry. */
static inline uint64_t word_moved(uint64_t w, uint64_t unit, unsigned generation)
{
    return (w & 0x7fff) | unit << 15 | (uint64_t)generation << 48;
}
static inline bool word_final(uint64_t w)
{
    return w != 0 && word_state(w) != WORD_TENTATIVE;
}
static inline uint32_t word_region(const struct idem_view *v, uint64_t w)
{
    return (uint32_t)(word_unit(w) >> (v->region_shift - 4));
}

enum idem_entry_kind { ENTRY_CLAIM = 1, ENTRY_RESPONSE = 2, ENTRY_TOMBSTONE = 3, ENTRY_TRANSIENT = 4 };

/* Flags, 7 bits. The reason of the newest lost attempt lies in bits 3 to 5. */
#define ENTRY_HOLD              1u
#define ENTRY_LEASE_ONLY        2u
#define ENTRY_LOST_BEFORE       4u
#define ENTRY_SYNC              64u /* an answer that is not given out before it is on the disk */
#define ENTRY_REASON(f)         ((uint32_t)(f) >> 3 & 7u)
#define ENTRY_WITH_REASON(f, r) (((uint32_t)(f)&0x47u) | (uint32_t)(r) << 3)

#define ENTRY_RESPONSE_WORDS  7u
#define ENTRY_TRANSIENT_WORDS 9u
#define ENTRY_CLAIM_WORDS     16u
#define ENTRY_RESCUE_AT       11u
#define ENTRY_TIME_MAX        ((INT64_C(1) << 45) - 1) /* in store ms; stands for IDEM_FOREVER */

/* An entry's header in private memory: decoded, bounded. */
struct idem_entry {
    uint32_t key_bytes;
    uint32_t scope_bytes;
    uint32_t kind;
    uint32_t flags;
    uint32_t meta_bytes;
    uint32_t body_bytes;
    uint32_t mark_bytes;
    uint64_t token;
    uint64_t fingerprint;
    int64_t expiry_ms;
    uint32_t extra; /* sequence or user flags */
    int64_t at_ms;
    uint32_t attempt;
    int32_t status;
    uint64_t hash;
    uint64_t owner;
    int64_t lease_end_ms;
    uint64_t previous;
    uint64_t lost_token;
    struct idem_a64 *at; /* where it lies */
};

/* The outcome in a claim's rescue words. */
struct idem_rescue {
    int64_t expiry_ms;
    uint32_t user_flags;
    int32_t status;
    int64_t took_ms;
    uint32_t meta_bytes;
    uint32_t body_bytes;
    uint64_t digest;
};

static inline uint32_t idem_entry_words(uint32_t kind)
{
    return kind == ENTRY_CLAIM       ? ENTRY_CLAIM_WORDS
           : kind == ENTRY_TRANSIENT ? ENTRY_TRANSIENT_WORDS
                                     : ENTRY_RESPONSE_WORDS;
}

static inline uint64_t idem_entry_bytes(uint32_t kind, uint64_t key_bytes, uint64_t answer_bytes, uint64_t mark_bytes)
{
    return round_up(idem_entry_words(kind) * UINT64_C(8) + round_up(key_bytes, 8) + round_up(answer_bytes, 8) +
                        mark_bytes,
                    IDEM_UNIT_BYTES);
}

static inline struct idem_a64 *idem_entry_key(const struct idem_entry *e)
{
    return e->at + idem_entry_words(e->kind);
}
static inline struct idem_a64 *idem_entry_answer(const struct idem_entry *e)
{
    return idem_entry_key(e) + (e->key_bytes + 7) / 8;
}
static inline uint64_t idem_entry_answer_bytes(const struct idem_entry *e)
{
    return (uint64_t)e->meta_bytes + e->body_bytes;
}
static inline struct idem_a64 *idem_entry_mark(const struct idem_entry *e)
{
    return idem_entry_answer(e) + (idem_entry_answer_bytes(e) + 7) / 8;
}

/* Decodes the entry that w names. False: its bytes can't be an entry (recycled meanwhile, or damaged: the caller loads the slot again
   to tell which). Inline: it is on every path. */
bool idem_entry_load(const struct idem_view *v, uint64_t w, struct idem_entry *e);

/* Asks for the lines of the entry that w names, as many as a typical answer of this store has. */
static inline void idem_entry_prefetch(const struct idem_view *v, uint64_t w)
{
    if (unlikely(word_unit(w) >= v->arena_units))
        return;
    const char *at = (const char *)(v->arena + word_unit(w) * 2);
    for (unsigned i = 0; i < v->entry_bytes; i += 64)
        prefetch(at + i);
}
void idem_entry_load_rescue(const struct idem_entry *e, struct idem_rescue *r);

/* What completing needs of a claim's entry; for word states that go with claims. */
struct idem_running {
    struct idem_a64 *at;
    uint64_t facts; /* word 0 */
    uint64_t token;
    uint64_t fingerprint;
    uint64_t hash;
    int64_t expiry_ms;
    int64_t at_ms;
    uint64_t attempt; /* where word 5 has it */
    uint32_t key_bytes;
};

/* False: it is no claim, or its key can't be read. relaxed: as all reads of an entry. */
static inline bool idem_entry_load_running(const struct idem_view *v, uint64_t w, struct idem_running *e)
{
    uint64_t unit = word_unit(w);
    if (unlikely(unit + (ENTRY_CLAIM_WORDS * 8 + IDEM_KEY_MAX) / IDEM_UNIT_BYTES > v->arena_units))
        return false;
    struct idem_a64 *at = v->arena + unit * 2;
    uint64_t w0 = load_relaxed(&at[0]), w5 = load_relaxed(&at[5]); /* relaxed: as above */
    e->at = at;
    e->facts = w0;
    e->token = load_relaxed(&at[1]);                                            /* relaxed: as above */
    e->fingerprint = load_relaxed(&at[2]);                                      /* relaxed: as above */
    e->expiry_ms = (int64_t)(load_relaxed(&at[3]) & ((UINT64_C(1) << 48) - 1)); /* relaxed: as above */
    e->hash = load_relaxed(&at[6]);                                             /* relaxed: as above */
    e->at_ms = (int64_t)(w5 & ((UINT64_C(1) << 48) - 1));
    e->attempt = w5 & ~((UINT64_C(1) << 48) - 1);
    e->key_bytes = w0 & 0x7ff;
    return (w0 >> 22 & 7) == ENTRY_CLAIM && e->key_bytes - 1 < IDEM_KEY_MAX && (w0 >> 11 & 0x7ff) < e->key_bytes;
}

/* The answer to it, at `at`: what idem_entry_store() writes. Its key is copied from the old entry, which is held. relaxed: as above. */
static inline void idem_entry_store_answer(struct idem_a64 *at, const struct idem_running *old, uint32_t more_flags,
                                           int64_t expiry_ms, int64_t now_ms, const idem_response *r)
{
    const uint64_t kept = (UINT64_C(1) << 32) - 1 - (UINT64_C(7) << 22);
    uint64_t w0 = (old->facts & kept) | (uint64_t)ENTRY_RESPONSE << 22 | (uint64_t)more_flags << 25;
    store_relaxed(&at[0], w0 | (uint64_t)r->meta_bytes << 32);                            /* relaxed: as above */
    store_relaxed(&at[1], old->token);                                                    /* relaxed: as above */
    store_relaxed(&at[2], old->fingerprint);                                              /* relaxed: as above */
    store_relaxed(&at[3], (uint64_t)expiry_ms | (uint64_t)r->user_flags << 48);           /* relaxed: as above */
    store_relaxed(&at[4], 0);                                                             /* relaxed: as above */
    store_relaxed(&at[5], (uint64_t)now_ms | old->attempt);                               /* relaxed: as above */
    store_relaxed(&at[6], (uint64_t)(uint32_t)r->status | (uint64_t)r->body_bytes << 32); /* relaxed: as above */
    unsigned key_words = (old->key_bytes + 7) / 8;
    struct idem_put put = {at + ENTRY_RESPONSE_WORDS + key_words, 0, 0};
    for (unsigned i = 0; i < key_words; i++) {
        uint64_t part = load_relaxed(&old->at[ENTRY_CLAIM_WORDS + i]); /* relaxed: as above */
        store_relaxed(&at[ENTRY_RESPONSE_WORDS + i], part);            /* relaxed: as above */
    }
    idem_put_bytes(&put, r->meta, r->meta_bytes);
    idem_put_bytes(&put, r->body, r->body_bytes);
    idem_put_end(&put);
}

/* A first attempt's claim: no mark, nothing remembered. What idem_entry_store() writes for it, but for the times and the token, which
   idem_entry_stamp() adds. relaxed: all bytes are ordered by the slot word (P1, P3). */
static inline void idem_entry_store_fresh(struct idem_a64 *at, uint32_t flags, uint32_t scope_bytes,
                                          uint64_t fingerprint, uint64_t hash, uint64_t owner, const void *framed,
                                          uint32_t key_bytes)
{
    uint64_t w0 =
        (uint64_t)key_bytes | (uint64_t)scope_bytes << 11 | (uint64_t)ENTRY_CLAIM << 22 | (uint64_t)flags << 25;
    store_relaxed(&at[0], w0);          /* relaxed: as above */
    store_relaxed(&at[2], fingerprint); /* relaxed: as above */
    store_relaxed(&at[4], 0);           /* relaxed: as above */
    store_relaxed(&at[6], hash);        /* relaxed: as above */
    store_relaxed(&at[7], owner);       /* relaxed: as above */
#pragma GCC unroll 7
    for (unsigned i = 9; i < ENTRY_CLAIM_WORDS; i++)
        store_relaxed(&at[i], 0); /* relaxed: as above */
    idem_put_padded(at + ENTRY_CLAIM_WORDS, framed, key_bytes);
}

static inline void idem_entry_stamp(struct idem_a64 *at, uint64_t token, int64_t now_ms, int64_t expiry_ms,
                                    int64_t lease_end_ms)
{
    store_relaxed(&at[1], token);                                /* relaxed: as above */
    store_relaxed(&at[3], (uint64_t)expiry_ms);                  /* relaxed: as above */
    store_relaxed(&at[5], (uint64_t)now_ms | UINT64_C(1) << 48); /* relaxed: as above */
    store_relaxed(&at[8], (uint64_t)lease_end_ms);               /* relaxed: as above */
}

/* Writes header, key, answer and mark at `at`. framed holds scope and key in a row. The lengths are those in e. */
void idem_entry_store(struct idem_a64 *at, const struct idem_entry *e, const void *framed, const void *meta,
                      const void *body, const void *mark);

#endif
