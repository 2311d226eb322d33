/*
 * recover/replay.h - records into a store that nobody has opened yet.
 *
 * Owns: what a record becomes in memory. Idempotent: per key the record that idem_rec_order() says holds, whatever comes how often; then its
 * expiry is judged (an expired completion still beats the claim under it).
 *
 * Invariants
 *  1. A record that has expired, or says "forgotten", takes no memory: it is denied by marking the slot that is there, under its own token. Where
 *     there is none it is passed over: what it denies lies before it in the log (a claim's record is written only while the slot still says so, an
 *     answer's never after its own forgetting).
 *  2. A claim that was in progress is lost: its owner is one that can't live, lease-only or not; attempts, mark and the lost ones before it stay.
 *  3. An entry's log word names its record if that lies below `proven`; else it is 0 (recovery writes those anew, at other positions), and whoever
 *     gives the answer out makes it durable first.
 *
 * If we die here: the store has no name yet; the next recovery begins with another one.
 */
#ifndef IDEM_RECOVER_REPLAY_H
#define IDEM_RECOVER_REPLAY_H

#include "index/index.h"
#include "recover/scan.h"

/* Records wait here until their memory has arrived: several misses at once. */
#define REPLAY_AHEAD 16u
#define REPLAY_BYTES 2048u

struct idem_replay {
    struct idem_ctx ctx;
    int64_t now_ms; /* store time */
    uint64_t proven;
    uint64_t keys, expired, forgotten; /* slots filled; records that came too late, or denied something */
    unsigned first, waiting;
    struct {
        struct idem_rec rec;
        uint64_t hash;
        uint8_t bytes[REPLAY_BYTES];
    } ahead[REPLAY_AHEAD];
};

/* v: made under a temporary name, with the log's UUID, secret and clock; this process is registered in it. *p is large: not for the stack.
   Errors: IDEM_E_FULL. */
int idem_replay_begin(struct idem_replay *p, struct idem_view *v, int64_t now_ms, uint64_t proven);

/* Takes one; it may be applied later. Kinds that are not about keys are passed over. Errors: IDEM_E_FULL (the store is smaller than what the
   log says lives), IDEM_E_CORRUPT. */
int idem_replay_add(struct idem_replay *p, const struct idem_rec *r);

/* Applies what waits, frees what has expired or was forgotten, ends leases, and counts into *out. Errors: as above. */
int idem_replay_settle(struct idem_replay *p, idem_recovery *out);

/* The record of what a slot of a settled store says, for writing it anew; scratch has room for an entry and a key. False: there is none. */
bool idem_replay_record(const struct idem_view *v, uint64_t word, uint8_t *scratch, struct idem_rec *r);

#endif
