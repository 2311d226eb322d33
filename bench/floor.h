/*
 * floor.h - what the memory and the hash alone cost for an operation's access pattern: no idempotency, no safety.
 *
 * Every figure of the store is printed beside one of these, measured in the same run, on the same keys, in alternating
 * blocks, on memory of the same size and page size. A floor is a minimum, not a rival: it does not look for a free slot,
 * compare keys, read a clock, or keep anything that it could be asked for later. It may get faster, never slower.
 *
 * Memory
 *   index    one 64-byte line for 3.5 keys
 *   claims   FLOOR_CLAIM_BYTES a key of a wave, written one after the other
 *   records  FLOOR_RECORD_BYTES a key, written one after the other
 *
 * Operation      accesses
 *   claim        XXH3-128 of the key with a secret; lock cmpxchg on a random line; write a claim in sequence
 *   claim_many   the same for a batch: all hashes and prefetches, then all lines and writes
 *   complete     load of the random line (the claim carries the hash); read of the claim; write a record in sequence, the
 *                lines 2 KiB ahead fetched for writing (that makes it a tenth faster; claims gain nothing by it); lock
 *                cmpxchg on the line
 *   in_progress  hash; load of the random line; load of a random claim that depends on it
 *   replay       hash; load of the random line; a random record that depends on it: its head, and its 256 bytes copied
 *   replay_many  the same for a batch: all hashes and prefetches of lines, then all records' prefetches, then all copies
 *
 * in_progress and replay are chained (the next key's address depends on bytes of the last answer), because a caller looks
 * at an answer before it asks again (replay_many from batch to batch); the measured operation is chained in the same way. The others are not.
 */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "place.h"

#define FLOOR_KEY_BYTES      36u
#define FLOOR_RESPONSE_BYTES 256u
/* What the operation stores: a claim's 128 bytes of facts (among them room for its outcome, should memory be scarce) or a record's 56,
   and the key, in units of 16; the record's body. */
#define FLOOR_CLAIM_BYTES  176u
#define FLOOR_HEAD_BYTES   96u
#define FLOOR_RECORD_BYTES (FLOOR_HEAD_BYTES + FLOOR_RESPONSE_BYTES)

struct floor {
    unsigned char *index;
    unsigned char *claims;
    unsigned char *records;
    uint64_t lines;
    uint64_t claim_count;
    uint64_t record_count;
    uint64_t zero; /* always 0, but the compiler does not know: keeps data dependencies alive */
};

/* Key i of a block lies at keys + i * FLOOR_KEY_BYTES. */
int floor_create(struct floor *f, const struct place *p, uint64_t keys, uint64_t wave, bool huge, char *why,
                 size_t why_bytes);
void floor_free(struct floor *f);
uint64_t floor_bytes(uint64_t keys, uint64_t wave);
int floor_touch(const struct floor *f); /* in each process, before measuring; 0 or -1 (errno) */

/* at: which claim or record of the sequence the first key of the block gets; at + n is within what was created. Each returns a value that depends on all it read. */
uint64_t floor_claim(struct floor *f, const unsigned char *keys, size_t n, uint64_t at);
uint64_t floor_claim_many(struct floor *f, const unsigned char *keys, size_t n, size_t batch, uint64_t at);
uint64_t floor_complete(struct floor *f, const uint64_t *hashes, size_t n, uint64_t claim_at, uint64_t record_at);
uint64_t floor_in_progress(struct floor *f, const unsigned char *keys, size_t n);
uint64_t floor_replay(struct floor *f, const unsigned char *keys, size_t n);
uint64_t floor_replay_many(struct floor *f, const unsigned char *keys, size_t n, size_t batch);

/* Hashes for floor_complete(), outside the measured part. */
void floor_hashes(const unsigned char *keys, size_t n, uint64_t *hashes);

#endif
