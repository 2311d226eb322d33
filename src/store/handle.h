/*
 * store/handle.h - the open handle, and what surrounds every public call.
 *
 * Owns: the handle, its view (swapped by liburcu when the store was replaced), fork and staleness checks, the one lock of the
 * library (open, close, reopen, registration after fork: never on the data path).
 *
 * Invariants
 *  1. Between enter and leave the thread is in a liburcu read section: its view is not unmapped. It never sleeps there.
 *  2. Hazards are clear outside of enter..leave.
 *  3. A handle's fork epoch is the page's epoch, or the next call opens a view (and with it a process slot) of its own first.
 */
#ifndef IDEM_STORE_HANDLE_H
#define IDEM_STORE_HANDLE_H

#include "base/error.h"
#include "index/index.h"
#include "segment/path.h"

struct idem_store {
    struct idem_view *view; /* liburcu-protected */
    struct idem_a64 fork_epoch;
    idem_options options;
    struct idem_store *next;
    char path[IDEM_PATH_MAX];
    char wal_dir[IDEM_WAL_DIR_BYTES]; /* what options.wal_dir points to, if the store has a log */
};

struct idem_op {
    struct idem_ctx ctx;
    struct idem_store *store;
};

/* fn(ctx) while nothing else is being opened, closed or forked in this process: for what makes stores without a handle. */
int idem_exclusively(int (*fn)(void *ctx), void *ctx);

/* The bounds of what a store is made with, but for its log: idem_open()'s, and those of what a log's header says. Errors: IDEM_E_INVALID. */
int idem_options_check(const idem_options *o);
int idem_log_options_check(const idem_options *o); /* its log's intervals and sizes; likewise */

/* recover/rebuild.h: idem_open() of a store that has a log and is gone. Called in the library's lock. */
int idem_rebuild(const idem_options *given, idem_recovery *r);

/* Errors: IDEM_E_INVALID (no store), IDEM_E_STALE, IDEM_E_FULL (lanes, processes), IDEM_E_CORRUPT (poisoned), IDEM_E_SYSTEM. */
int idem_enter(struct idem_store *store, struct idem_op *op);
/* Clears hazards, sweeps a little if a chunk was taken, ends the read section. Returns result, or IDEM_E_CORRUPT if pages were
   missing meanwhile (SIGBUS guard). */
int idem_leave(struct idem_op *op, int result);

/* A key that was checked, with scope and key in a row, hashed. bytes: room for both. */
int idem_key_prepare(const struct idem_view *v, const idem_key *key, uint8_t bytes[IDEM_KEY_MAX],
                     struct idem_index_key *out);

/* Memory was refused: take back what is empty already; if nothing is, sweep hard (bounded), evict if the store does that. If that is in vain, and what
   is on its way back is held by somebody who was preempted inside of a call: let him run (5 ms; all of a process's threads together at most 100 ms a
   second, as he may be stopped). In a store that evicts, whose answers are all of this very tick: a millisecond passes. Neither without may_wait. True: trying again makes sense. Hazards must be clear. */
bool idem_make_room(struct idem_ctx *ctx, bool may_wait);

#endif
