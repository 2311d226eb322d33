/*
 * segment/layout.h - every byte that processes share.
 *
 * Owns: the layout of `root` and of a generation file, version 3.0 (1 had no freed_ms: who frees without raising it breaks what tokens promise; 2
 * counted other slices in the sweep's cursor, and kept in a lane what its chunks have left). Offsets only, no pointers, no pthread objects.
 * Constant parts are written before the magic (P6), carry a checksum, and are copied into private memory once when a
 * process attaches; every other field is loaded once, bounded, then used.
 *
 * root (mapped for a handle's life)
 *   0      struct idem_root_shm      identity, limits, secret
 *   4096   struct idem_process_shm   x processes_max, 64 bytes each
 *   then   struct idem_lane_shm      x lanes_max, 512 bytes each (offset rounded up to 4096)
 *   then   with a log: the lanes' rings, ring_refs words each (offset rounded up to 4096)
 *
 * generation file gen-UUID-N
 *   0            struct idem_generation_shm
 *   8192         struct idem_bucket_shm   x bucket_count, 64 bytes each
 *   regions_off  struct idem_region_shm   x region_count, 64 bytes each
 *   chunks_off   struct idem_chunk_shm    x region_count x chunks of a region (4 or 16), 64 bytes each
 *   arena_off    region_count x region_bytes
 *
 * Slot word, 64 bits, 0 is free:
 *   bits 0-2   state          bits 3      WAITERS
 *   bits 4-7   distance from the home bucket
 *   bits 8-14  tag of the hash
 *   bits 15-47 address of the entry in the arena, in 16-byte units
 *   bits 48-63 region generation, never 0
 * The low half changes with every change of state and address that a waiter must see: it is the futex word.
 *
 * Bucket header, 64 bits: bits 0-2 pending slot, 3-6 pending distance, 7 pending is set, 8-11 reach, 12 FROZEN,
 *   13-63 version.
 *
 * Region state, 64 bits: bits 0-2 phase (arena/arena.h), 3-47 expiry in store ms (all ones: never), 48-63 generation (never 0).
 *
 * Who may change what
 *   slot word, bucket header   anyone, by CAS, by the rules of index/
 *   region state, cursor       anyone, by CAS, by the rules of arena/
 *   freed_ms                   anyone, by CAS, upwards, never to the present millisecond or beyond
 *   process slot               incarnation odd -> even: anyone who knows its process is dead; even -> odd: who holds its lock byte
 *   chunk                      arena/arena.h: `filled` and `span` are its lane's own while the region is OPEN, anyone's by CAS when it is SHARED
 *   lane                       its owner; `owner` itself: anyone, by CAS, when the old owner is 0 or dead
 *   entry                      its writer until published; then nobody, but for a claim's rescue words and the log word (arena/entry.h)
 *   log_head, log_overflow     the lane's owner; log_flushed: the log's leader (wal/ring.h)
 */
#ifndef IDEM_SEGMENT_LAYOUT_H
#define IDEM_SEGMENT_LAYOUT_H

#include <stddef.h>

#include "base/atomic.h"
#include "base/hash.h"

#define IDEM_ROOT_MAGIC       UINT64_C(0x31746f6f726d6469) /* "idmroot1" */
#define IDEM_GENERATION_MAGIC UINT64_C(0x316e65676d656469) /* "idemgen1" */
#define IDEM_LAYOUT_MAJOR     3u
#define IDEM_LAYOUT_MINOR     1u
#define IDEM_FEATURE_LOG      UINT64_C(1) /* required: who does not push must not write */

#define IDEM_BUCKET_SLOTS  7u
#define IDEM_DISTANCE_MAX  15u
#define IDEM_REGION_CHUNKS 16u /* at most */
#define IDEM_UNIT_BYTES    16u
#define IDEM_LANE_CHUNKS   12u
#define IDEM_CLASSES       136u /* 0: claims, 1: never expires, 2..: four an octave from 1024 ms */
#define IDEM_COUNTERS      24u
#define IDEM_PROCESSES_OFF 4096u
#define IDEM_BUCKETS_OFF   8192u
#define IDEM_LOCK_OFF      (INT64_C(1) << 40) /* lock byte of process slot i lies at IDEM_LOCK_OFF + i */
#define IDEM_REGION_MIN    (UINT64_C(64) << 10)
#define IDEM_REGION_MAX    (UINT64_C(4) << 20)
#define IDEM_REGIONS_MIN   16u
#define IDEM_ADDRESS_BITS  33u
#define IDEM_WAL_DIR_BYTES 1024u

/* ------------------------------------------------------------------ root */

/* Never changes after creation. */
struct idem_root_const {
    uint32_t layout_major;
    uint32_t layout_minor;
    uint64_t features_required; /* a reader that does not know one of these must refuse */
    uint64_t features_optional;
    uint8_t uuid[16];
    uint8_t boot_id[40];   /* text of /proc/sys/kernel/random/boot_id, zero padded */
    int64_t clock_base_ms; /* store time = host CLOCK_MONOTONIC_COARSE + this */
    int64_t created_ms;    /* store time */
    int64_t ttl_ms;
    int64_t lease_ms;
    uint64_t keys;
    uint64_t root_bytes;
    int64_t group; /* gid + 1, or 0 */
    uint32_t response_bytes;
    uint32_t when_full;
    uint32_t processes_max;
    uint32_t lanes_max;
    uint8_t secret[IDEM_SECRET_BYTES];
    uint8_t reserved[96];
    uint64_t checksum; /* XXH3-64 of everything above in this struct */
};

/* The log's settings, as chosen at creation. All zero in a store without a log. */
struct idem_log_const {
    uint8_t instance[16]; /* this segment: who may write the log */
    uint32_t durability_claim;
    uint32_t durability_complete;
    uint32_t flush_interval_ms;
    uint32_t log_wait_ms;
    uint64_t file_bytes;
    uint64_t ring_refs;
    int64_t floor_ms; /* no token is stamped below it: what the log had promised before this segment was made of it */
    char wal_dir[IDEM_WAL_DIR_BYTES];
    uint64_t checksum;
};

struct idem_root_shm {
    struct idem_a64 magic;
    struct idem_a64 dead;        /* 1: destroyed; set before the files are unlinked */
    struct idem_a64 generations; /* current number (low half), draining number (high half, 0: none) */
    struct idem_a64 lanes_high;  /* lanes at or above this index were never used */
    struct idem_root_const fixed;
    struct idem_a64 log_control[64]; /* wal/ring.h */
    struct idem_log_const log;
};

struct idem_process_shm {
    struct idem_a64 incarnation; /* odd: in use (if the lock byte is held), even: free */
    struct idem_a64 pid;         /* for people: as its own PID namespace sees it */
    struct idem_a64 since_ms;    /* store time */
    uint64_t reserved[5];
};

/* A chunk that a lane allocates from, of one class. place: bits 0-31 region, 32-47 generation, 48-55 class, 56 counted by CAS (entries of
   others begin in it, too), 57-63 the chunk's number in its region, whose `span` says where the next entry lies. life: the region's meta word
   when the chunk was taken; a generation comes again after 65,535 lives, a meta word never. place 0: none, as generations are never 0. */
struct idem_lane_chunk_shm {
    struct idem_a64 place;
    struct idem_a64 life;
};

struct idem_lane_shm {
    struct idem_a64 owner;          /* process slot (16) | incarnation (48); 0: nobody's */
    struct idem_a64 hazard_write;   /* region + 1 that its owner writes to; 0: none */
    struct idem_a64 hazard_compare; /* region + 1 of a word that its owner will compare; 0: none */
    struct idem_a64 log_head;       /* wal/ring.h */
    struct idem_a64 log_flushed;
    struct idem_a64 sweep; /* where this lane looks for regions next, and what it owes (segment/lane.h) */
    struct idem_a64 log_overflow;
    struct idem_a64 tenancy; /* how often it was taken */
    struct idem_lane_chunk_shm chunks[IDEM_LANE_CHUNKS];
    struct idem_a64 counters[IDEM_COUNTERS];
    uint64_t reserved[8];
};

/* ------------------------------------------------------------------ generation */

struct idem_generation_const {
    uint32_t layout_major;
    uint32_t layout_minor;
    uint8_t uuid[16]; /* the store's */
    uint64_t number;
    uint64_t file_bytes;
    uint64_t bucket_count;
    uint64_t region_count;
    uint64_t region_shift; /* log2 of a region's bytes */
    uint64_t regions_off;
    uint64_t chunks_off;
    uint64_t arena_off;
    uint64_t chunk_shift; /* log2 of a chunk's bytes */
    uint64_t reserved[3];
    uint64_t checksum;
};

struct idem_generation_shm {
    struct idem_a64 magic;
    uint64_t reserved[7];
    struct idem_generation_const fixed;
    uint64_t pad[1];
    struct idem_a64
        cursor; /* the sweep: pass (40) | slice (24), of 16 buckets, or more in a huge index; slice 0: this pass
                                        has not begun */
    struct idem_a64 slots_counted;   /* slots in use, counted by the running pass */
    struct idem_a64 slots_used;      /* the same, of the last complete pass, + 1 (0: none yet) */
    struct idem_a64 answers_refused; /* 1: an answer of common size found no room, and no region was freed since */
    struct idem_a64 waiting;         /* about how many regions wait for a pass; a hint for pacing */
    struct idem_a64 freed_ms;  /* no slot was freed whose token is of a later millisecond; only grows (index/index.h) */
    struct idem_a64 free_from; /* about the first region that is free; a hint */
    struct idem_a64 left_from; /* about the first region that lanes have left room in; a hint */
    struct idem_a64
        tight_claims; /* region + 1 of the claims' that was opened when hardly another was free: no lane takes chunks of it */
    struct idem_a64 open[IDEM_CLASSES]; /* region + 1 that is open for a class; a hint */
    struct idem_a64
        free_most; /* so many regions are free at most, + 1 (0: nobody has counted since one was freed); a hint (3.1) */
};

struct idem_bucket_shm {
    struct idem_a64 header;
    struct idem_a64 slots[IDEM_BUCKET_SLOTS];
};

struct idem_region_shm {
    struct idem_a64 state;
    struct idem_a64
        cursor; /* generation (16, high) | bytes handed out (48): counts only if the generation is the state's */
    struct idem_a64 meta; /* generation (16, high) | class (8) | opened, ms after the store's creation (40) */
    /* Generation (16, high) | noted (1) | the cursor's pass at which no slot names it any more (47); not noted: a count. Counts only with
       the state's generation. */
    struct idem_a64 drain;
    uint64_t reserved[4];
};

/* Counts of the entries that begin in a chunk: filled grows before an entry is published, emptied after one has left its slot. While
   no writer is active, filled == emptied proves that no slot names the chunk. One that died in between leaves filled > emptied.
   Each is: the region's generation (16, high) | when it was opened, in part (24) | entries (24); of another life it counts as 0. */
struct idem_chunk_shm {
    struct idem_a64 filled;  /* the lane's own unless the chunk is shared */
    struct idem_a64 emptied; /* anyone's, by CAS */
    /* Of the lane's space that ends with this chunk: the same life (40, high) | how far it is used, as an offset in the region (24). Of
       another life: there is no such space. */
    struct idem_a64 span;
    uint64_t reserved[5];
};

_Static_assert(sizeof(struct idem_root_const) == 448, "golden layout");
_Static_assert(sizeof(struct idem_log_const) == 1088, "golden layout");
_Static_assert(sizeof(struct idem_root_shm) <= IDEM_PROCESSES_OFF, "golden layout");
_Static_assert(sizeof(struct idem_process_shm) == 64, "golden layout");
_Static_assert(sizeof(struct idem_lane_shm) == 512, "golden layout");
_Static_assert(offsetof(struct idem_lane_shm, chunks) == 64, "golden layout");
_Static_assert(sizeof(struct idem_generation_const) == 128, "golden layout");
_Static_assert(offsetof(struct idem_generation_shm, cursor) == 200, "golden layout");
_Static_assert(sizeof(struct idem_generation_shm) <= IDEM_BUCKETS_OFF, "golden layout");
_Static_assert(sizeof(struct idem_bucket_shm) == 64, "golden layout");
_Static_assert(sizeof(struct idem_region_shm) == 64, "golden layout");
_Static_assert(sizeof(struct idem_chunk_shm) == 64, "golden layout");

/* Counters of a lane; idem_stats() sums them over all lanes. */
enum idem_counter {
    COUNT_CLAIMED,
    COUNT_RECLAIMED,
    COUNT_REPLAYED,
    COUNT_IN_PROGRESS,
    COUNT_MISMATCHED,
    COUNT_UNKNOWN,
    COUNT_WAITED,
    COUNT_COMPLETED,
    COUNT_TOMBSTONES,
    COUNT_TRANSIENT,
    COUNT_ABANDONED,
    COUNT_RENEWED,
    COUNT_MARKED,
    COUNT_FENCED,
    COUNT_FULL,
    COUNT_FORGOTTEN,
    COUNT_EVICTED,
    COUNT_SWEPT_REGIONS,
    COUNT_SWEPT_ENTRIES,
    COUNT_MOVED_ENTRIES,
    COUNT_PASSES,
    COUNT_END
};
_Static_assert(COUNT_END <= IDEM_COUNTERS, "room in the lane");

#endif
