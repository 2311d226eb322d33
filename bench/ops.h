/*
 * ops.h - the store's operations, a block of keys at a time, through the public header alone.
 *
 * What lies between two clock readings of a block: the calls, a pointer store for each key, the check of each verdict, and
 * for begin_many the copy of each claim out of its result, since the result is used again.
 */
#ifndef BENCH_OPS_H
#define BENCH_OPS_H

#include <stddef.h>
#include <stdint.h>

#include "floor.h"
#include "harness.h"
#include "idem.h"
#include "keys.h"

enum bench_op { OP_BEGIN, OP_MANY16, OP_MANY64, OP_COMPLETE, OP_IN_PROGRESS, OP_REPLAY, OP_REPLAY16, OP_COUNT };

enum { OPS_BLOCK = 1024, OPS_BATCH_MAX = 64, OPS_REPLY_BYTES = 1024 };

/* One process's material; large, keep it on the heap. */
struct ops {
    idem_store *store;
    uint64_t zero;                                   /* always 0, but the compiler does not know */
    unsigned char keys[(OPS_BLOCK + 1) * KEY_BYTES]; /* of the block */
    idem_claim claims[OPS_BLOCK];                    /* of the block: filled by claiming, used by completing */
    unsigned char body[FLOOR_RESPONSE_BYTES];
    unsigned char reply_bytes[OPS_BATCH_MAX][OPS_REPLY_BYTES];
    idem_request requests[OPS_BATCH_MAX];
    idem_result results[OPS_BATCH_MAX];
    char error[HARNESS_ERROR_BYTES];
};

const char *ops_name(enum bench_op op);
unsigned ops_batch(enum bench_op op); /* keys in one call */

/* store is set by the caller. */
void ops_prepare(struct ops *o);

/* The block's first n keys. latency: if not NULL, the clock is read after every call. 0, or -1: o->error says which call said
   what. */
int ops_run(struct ops *o, enum bench_op op, size_t n, struct hist *latency);

/* Puts "call said code (words): detail" in o->error; returns -1. */
int ops_wrong(struct ops *o, const char *call, int got);

#endif
