/*
 * wal/format.h - every byte of the write-ahead file, format 1.1.
 *
 * Owns: the format below, encoding and verifying it. Knows nothing of slots, regions or lanes: a record is what recovery needs to know
 * about a key, not an image of shared memory, so that the two formats change apart. All numbers are little endian. Pure functions,
 * no system calls.
 *
 * A position is a byte count that grows through all files and is never given out twice. A file holds the positions from its base on: position p
 * lies at offset 4096 + (p - base). Everything is a multiple of 64 bytes (the grain).
 *
 * file header, 4096 bytes, written once, before the file gets its name
 *   0    8  "idemwal1"                         8    4  format major, then minor (4)
 *   16   8  features a reader must know        24   8  features it may ignore
 *   32   16 store UUID                         48   16 instance: the segment that wrote it (anew with each recovery)
 *   64   8  file number, from 1                72   8  salt of this file's checksums, random
 *   80   8  base position                      88   8  bytes of the whole file, allocated at creation
 *   96   8  number of the file before, 0: none 104  8  its salt
 *   112  8  its end: what it holds at or past this position was never acknowledged, and is void
 *   120  8  oldest file that was still needed  128  4  leader epoch, then 4 zero
 *   136  8  store ms at creation               144  8  wall ms at the same moment
 *   152  8  token ceiling, store ms            160  8  newest expiry in the file before, store ms
 *   168  8  default TTL                        176  8  default lease
 *   184  8  keys                               192  4  response bytes, then when_full (4)
 *   200  4  processes, then lanes (4)          208  8  gid of the sharing group + 1, or 0
 *   216  1  durability of claims, then of completions (1), zero (2)      220  4  flush interval, ms
 *   224  4  ms that a call waits for the log, then cells of a ring (4)   232  8  bytes of a usual file
 *            216 to 239 are 1.1's: zeros, which 1.0 wrote, say nothing
 *   256  192 hash secret: fingerprints and digests in the records are keyed by it
 *   4088 8  XXH3-64 of bytes 0..4087; all other bytes are zero
 *
 * id file "id", two sectors of 512 bytes, written in turn; the valid one with the greater sequence counts
 *   0    8  "idemlog1"                         8    4  format major, then minor (4)
 *   16   8  sequence                           24   16 store UUID
 *   40   16 instance that may write            56   8  newest file, 0: none yet
 *   64   8  1: destroyed                       504  8  XXH3-64 of bytes 0..503
 *
 * batch header, 64 bytes; its records follow
 *   0    8  XXH3-64, seeded with the salt, of bytes 8..63
 *   8    4  "IDBT"                             12   4  leader epoch
 *   16   8  position of this header            24   8  durable: every position below it was on the disk before this was written
 *   32   4  bytes, this header included        36   4  records
 *   40   8  store ms                           48   8  wall ms at the same moment
 *   56   8  token ceiling, store ms: no token given out so far lies past it (48 bits), flags (16, zero)
 *
 * record, 64 bytes and what its kind adds, then padded with zeros to the grain
 *   0    8  XXH3-64, seeded with the salt, of bytes 8 to the padded end
 *   8    4  bytes, without the padding         12   1  kind, then state (1), flags (2)
 *   16   8  position of this record            24   8  token
 *   32   8  fingerprint
 *   40   8  expiry, store ms (48), claim: sequence in the token, answer: user flags (16)
 *   48   8  claimed or completed at, store ms (48), attempt (16)
 *   56   2  scope and key bytes, then scope bytes (2), metadata or mark bytes (4)
 *  CLAIM:     64 lease end, store ms; 72 token of the newest lost attempt or 0; 80 scope, key; mark
 *  RESPONSE:  64 status (4), body bytes (4); 72 event bytes (4), zero (4); 80 scope, key; metadata; body; events
 *  TOMBSTONE: 64 status (4), zero (4); 72 metadata bytes it had; 80 body bytes; 88 digest; 96 scope, key
 *  FORGOTTEN: 64 zero (16); 80 scope, key
 *  RETAIN:    no key; token is the number of the oldest file that is needed from here on; written before older ones are deleted
 *  FILL:      (1.1) says nothing; optional, no key, payload zero: the batch ends on a block, and the next one begins there
 *  other kinds: 64 payload bytes (4), zero (4); 72 zero (8); 80 scope, key; payload
 *
 * When is it valid?
 *   file: magic, checksum, major and required features known; size on disk is what the header says; its times and a batch's have at most 48 bits.
 *   batch: checksum, magic; its position is where it lies; bytes is a multiple of the grain, at least 64, and ends within the file.
 *   record: checksum, position where it lies, lengths add up to its bytes, padding is zero, kind known or marked optional. In a batch the
 *   records fill it exactly, and are as many as it says.
 * Which of two records of one key holds: the greater of (token, phase of the state, sequence, lease end, position); order in the file does not
 * matter, repeats do no harm. idem_rec_order() is that.
 */
#ifndef IDEM_WAL_FORMAT_H
#define IDEM_WAL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"

#define IDEM_WAL_MAJOR           1u
#define IDEM_WAL_MINOR           1u
#define IDEM_WAL_GRAIN           64u
#define IDEM_WAL_HEADER_BYTES    4096u
#define IDEM_WAL_SECTOR_BYTES    512u
#define IDEM_WAL_BLOCK_BYTES     4096u /* what lies on such a boundary in a file can be written past the kernel's cache */
#define IDEM_WAL_BATCH_BYTES     64u
#define IDEM_WAL_BATCH_MAX       (UINT32_C(1) << 30)
#define IDEM_WAL_FIXED_BYTES     80u /* of a record before its key, but for a tombstone */
#define IDEM_WAL_TOMBSTONE_BYTES 96u
#define IDEM_WAL_KEY_MAX         1024u
#define IDEM_WAL_TIME_MAX        ((INT64_C(1) << 48) - 1)
#define IDEM_WAL_POSITION_MAX    (UINT64_C(1) << 54) /* a position fits a log word: 48 bits of grains */

/* Numbers are for ever. 1-15 keys, 16-31 events, 32-47 consumers, 48-63 the log itself; 0 is never a kind: zeros are no record. */
enum idem_rec_kind {
    REC_CLAIM = 1,       /* an attempt, in any state but completed */
    REC_RESPONSE = 2,    /* an answer */
    REC_TOMBSTONE = 3,   /* an outcome without its body */
    REC_FORGOTTEN = 4,   /* the key is absent; kept as long as what it denies */
    REC_EVENT = 16,      /* room: an event without an outcome */
    REC_HIGH_WATER = 32, /* room: topic and partition as scope and key, offset as payload */
    REC_RETAIN = 48,
    REC_FILL = 49
};
#define REC_KINDS 64u

/* As the slot's state at the time; same numbers as in shared memory, fixed here for the file. */
enum idem_rec_state {
    REC_NO_STATE = 0,
    REC_IN_PROGRESS = 1,
    REC_COMPLETED = 2,
    REC_ABANDONED = 3,
    REC_DECLARED = 4,
    REC_RELEASED = 5,
    REC_RERUN = 6,
    REC_GONE = 7
};

enum idem_rec_flags {
    REC_HOLD = 1u << 0,
    REC_LEASE_ONLY = 1u << 1,
    REC_LOST_BEFORE = 1u << 2,
    REC_REASON_SHIFT = 3,   /* three bits: why the newest lost attempt was lost */
    REC_SYNC = 1u << 6,     /* an answer that is not given out before it is durable */
    REC_OPTIONAL = 1u << 15 /* a reader that does not know the kind may pass over it */
};

/* How the store was asked to use its log; all zero in a file of 1.0. Readers of 1.0 pass over it. */
struct idem_wal_settings {
    uint8_t durability_claim, durability_complete; /* enum idem_durability */
    uint32_t flush_interval_ms, log_wait_ms, ring_refs;
    uint64_t file_bytes; /* of a file that is not made for one large answer, or for all that lives */
};

struct idem_file_rec {
    uint32_t major, minor;
    uint64_t features_required, features_optional;
    uint8_t uuid[16];
    uint8_t instance[16];
    uint64_t number;
    uint64_t salt;
    uint64_t base;
    uint64_t bytes;
    uint64_t prev_number;
    uint64_t prev_salt;
    uint64_t prev_end;
    uint64_t oldest;
    uint32_t epoch;
    int64_t store_ms, wall_ms, ceiling_ms, prev_expiry_ms;
    int64_t ttl_ms, lease_ms;
    uint64_t keys;
    uint32_t response_bytes, when_full, processes, lanes;
    int64_t group;
    struct idem_wal_settings settings;
    uint8_t secret[IDEM_SECRET_BYTES];
};

struct idem_log_id_rec {
    uint32_t major, minor;
    uint64_t sequence;
    uint8_t uuid[16];
    uint8_t instance[16];
    uint64_t newest;
    uint64_t destroyed;
};

struct idem_batch_rec {
    uint32_t epoch;
    uint64_t position;
    uint64_t durable;
    uint32_t bytes;
    uint32_t records;
    int64_t store_ms, wall_ms, ceiling_ms;
};

/* A record in private memory. The pointers lead into the caller's buffer. */
struct idem_rec {
    uint8_t kind;
    uint8_t state;
    uint16_t flags;
    uint64_t position;
    uint64_t token;
    uint64_t fingerprint;
    int64_t expiry_ms;
    uint16_t extra; /* sequence or user flags */
    int64_t at_ms;
    uint16_t attempt;
    uint16_t scope_bytes;
    const uint8_t *key; /* scope and key in a row */
    uint16_t key_bytes; /* of both */
    int32_t status;
    int64_t lease_end_ms;
    uint64_t lost_token;
    const uint8_t *mark;
    uint32_t mark_bytes;
    const uint8_t *meta;
    const uint8_t *body;
    uint64_t meta_bytes, body_bytes; /* a tombstone's: how long they were; meta and body are NULL */
    uint64_t digest;
    const uint8_t *more; /* an answer's events; another kind's payload */
    uint32_t more_bytes;
};

/* Why bytes are not what they should be. Nothing here sets an error text: only the caller knows which file it is. */
enum idem_format {
    FORMAT_OK = 0,
    FORMAT_ZERO,     /* all zero: never written */
    FORMAT_MAGIC,    /* something else */
    FORMAT_CHECKSUM, /* torn or damaged */
    FORMAT_PLACE,    /* sound, but of another position: an old file's bytes */
    FORMAT_LENGTH,   /* sound, but its lengths contradict each other, or a time is none: made by a faulty writer */
    FORMAT_UNKNOWN   /* sound, but of a version, feature or kind that this reader doesn't know */
};
const char *idem_format_words(enum idem_format f); /* half a sentence; static */

static inline uint64_t idem_wal_padded(uint64_t bytes)
{
    return (bytes + IDEM_WAL_GRAIN - 1) & ~(uint64_t)(IDEM_WAL_GRAIN - 1);
}

void idem_file_encode(const struct idem_file_rec *f, uint8_t out[IDEM_WAL_HEADER_BYTES]);
enum idem_format idem_file_decode(const uint8_t in[IDEM_WAL_HEADER_BYTES], struct idem_file_rec *f);

void idem_log_id_encode(const struct idem_log_id_rec *id, uint8_t out[IDEM_WAL_SECTOR_BYTES]);
enum idem_format idem_log_id_decode(const uint8_t in[IDEM_WAL_SECTOR_BYTES], struct idem_log_id_rec *id);

void idem_batch_encode(const struct idem_batch_rec *b, uint64_t salt, uint8_t out[IDEM_WAL_BATCH_BYTES]);
/* position: where it lies. room: bytes from there to the file's end. */
enum idem_format idem_batch_decode(const uint8_t in[IDEM_WAL_BATCH_BYTES], uint64_t salt, uint64_t position,
                                   uint64_t room, struct idem_batch_rec *b);

/* Bytes of a record with its padding; 0: it can't be one (key, mark or total too long). */
uint64_t idem_rec_bytes(const struct idem_rec *r);
/* A file's salt, ready for long records: what XXH3 would derive from it for each of them. */
struct idem_wal_salt {
    uint64_t salt;
    uint8_t secret[IDEM_SECRET_BYTES];
};
void idem_wal_salt(struct idem_wal_salt *s, uint64_t salt);

/* Writes idem_rec_bytes(r) bytes (which must not be 0), checksum and padding included; position from r. What the pointers of r lead to must
   not change meanwhile; it may lie at out + IDEM_WAL_FIXED_BYTES, key, mark or metadata, and body in a row. Returns the number of bytes. */
uint64_t idem_rec_encode(const struct idem_rec *r, uint64_t salt, uint8_t *out);
/* The same in two steps: all but the checksum, and the checksum of what lies there. Both return the number of bytes. (To read at once what
   was just written a word at a time makes a processor wait.) */
uint64_t idem_rec_lay(const struct idem_rec *r, uint8_t *out);
uint64_t idem_rec_sum(const struct idem_wal_salt *salt, uint8_t *out);
/* in: n bytes are there. *bytes: how far to go to the next record; set with FORMAT_OK and FORMAT_UNKNOWN. r's pointers lead into in.
   FORMAT_UNKNOWN is for kinds without REC_OPTIONAL; with it an unknown kind is FORMAT_OK, its payload in more. */
enum idem_format idem_rec_decode(const uint8_t *in, uint64_t n, uint64_t salt, uint64_t position, struct idem_rec *r,
                                 uint64_t *bytes);
/* The same, for many records of one file. */
enum idem_format idem_rec_decode_salted(const uint8_t *in, uint64_t n, const struct idem_wal_salt *salt,
                                        uint64_t position, struct idem_rec *r, uint64_t *bytes);

/* Later in a token's life: a greater number. */
unsigned idem_rec_phase(uint8_t state);
/* > 0: a holds, not b. Both of one key. 0 only for the same record, or copies that say the same. */
int idem_rec_order(const struct idem_rec *a, const struct idem_rec *b);

/*
 * The log word of an entry in memory: position of its newest record in grains (48) | zero (12) | logged (1) | state it was logged in (3).
 * 0: no record yet. An entry needs a record when the state in its word isn't its slot's.
 */
#define LOG_WORD_LOGGED     UINT64_C(8)
#define LOG_WORD_SUPERSEDED UINT64_C(7) /* not logged; another entry of this key was pushed: no record needed */
static inline uint64_t log_word(uint64_t position, unsigned state)
{
    return (position / IDEM_WAL_GRAIN) << 16 | LOG_WORD_LOGGED | state;
}
static inline uint64_t log_word_position(uint64_t w)
{
    return (w >> 16) * IDEM_WAL_GRAIN;
}
static inline bool log_word_says(uint64_t w, unsigned state)
{
    return (w & 15) == (LOG_WORD_LOGGED | state);
}

_Static_assert(IDEM_WAL_HEADER_BYTES % IDEM_WAL_GRAIN == 0, "batches are aligned in the file as in positions");
_Static_assert(IDEM_WAL_BATCH_BYTES == IDEM_WAL_GRAIN, "a batch header is one grain: never torn between sectors");
_Static_assert(512 % IDEM_WAL_GRAIN == 0, "a header never straddles a sector");
_Static_assert(256 + IDEM_SECRET_BYTES <= 4088, "room in the file header");

#endif
