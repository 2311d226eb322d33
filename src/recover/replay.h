/*
 * recover/replay.h - records into a store that nobody has opened yet.
 *
 * Owns: what a record becomes in memory. Idempotent: any order, any repeats; per key the record that idem_rec_order() says holds, then its
 * expiry is judged (not before: an expired completion must still beat the claim under it).
 */
#ifndef IDEM_RECOVER_REPLAY_H
#define IDEM_RECOVER_REPLAY_H

#include "index/index.h"
#include "recover/scan.h"

/* Applies one. v: made under a temporary name, with the log's UUID, secret and clock. Outcomes: IDEM_OK. Errors: IDEM_E_FULL, IDEM_E_CORRUPT.
   IN_PROGRESS becomes lost (IDEM_LOST_CRASH): owner that can't live, LEASE_ONLY cleared, lease over, previous 0. Log word: the record's position
   below result->proven, else 0. */
int idem_replay(struct idem_ctx *ctx, const struct idem_rec *r, uint64_t proven);

/* Frees what is expired or forgotten; counts. */
int idem_replay_settle(struct idem_ctx *ctx, int64_t now_ms, idem_recovery *out);

/* A new file after the last, with copies of all records at or past `proven` in it, synced before it has its name; then the id names it and the
   new instance. Until then a killed recovery has changed nothing. */
int idem_replay_seal(struct idem_log_dir *d, const struct idem_scan_result *s, const uint8_t instance[16]);

#endif
