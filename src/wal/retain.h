/*
 * wal/retain.h - old files: deleting what has expired, writing anew what still lives.
 *
 * Owns: which files are needed. Reads no old file: what lives is in memory, and its log word says where its record lies.
 *
 * Invariants
 *  1. Only a prefix is deleted, and a REC_RETAIN with the new oldest number is durable first.
 *  2. The oldest file goes when its newest expiry is over (the next header's prev_expiry_ms), or when a walk with cut = base of the first file
 *     to keep has come to its end and its batch is durable: then every live record lies at or past the cut.
 *  3. Never past LOG_KEEP_FROM.
 */
#ifndef IDEM_WAL_RETAIN_H
#define IDEM_WAL_RETAIN_H

#include "wal/leader.h"

/* The leader (batch.c) fills in what has come to be durable; retain.c decides. */
struct idem_retain {
    uint64_t oldest, newest; /* file numbers */
    uint64_t cut;            /* position: a walk up to it is wanted, or under way; 0: none. Set by retain.c */
    uint64_t walked;         /* the cut of the last walk that came to its end and is durable. Set by the leader */
    uint64_t live_bytes;     /* counted by that walk. Set by the leader */
    /* A REC_RETAIN with this number is to be written; 0: none. Set by retain.c; cleared by the leader, who raises LOG_RETAINED to it. */
    uint64_t say;
    bool saying; /* it is in this batch. The leader's own */
    /* retain.c's own */
    uint64_t target;      /* the file that begins at cut */
    uint64_t based, base; /* file whose base is known; 0: none */
    uint64_t looked;      /* file whose newest expiry is known; 0: none */
    int64_t looked_expiry_ms;
};

struct idem_lead;

/* By the leader, after a batch. A slice of at most budget_us. Starts a walk when the log is over four files and the last walk's live bytes
   are under half of it, or nothing is known of them. Outcomes: IDEM_OK, 1: more to do. Errors: IDEM_E_LOG (nothing was deleted). */
int idem_retain_step(struct idem_lead *lead, struct idem_retain *r, int64_t budget_us);

#endif
