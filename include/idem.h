/*
 * idem.h - retried operations made safe on one host.
 *
 * Worker processes share one memory segment, the store. The first to claim an idempotency key does the work; everybody
 * else waits, is told "in progress", or gets the stored answer. No server, no lock on the data path.
 *
 * Caveats first
 *  - Exactly-once delivery does not exist. What you get is exactly-once effect: at-least-once plus dedup on a key, plus a
 *    fence (the token) for the case where the owner died in the middle. IDEM_RECLAIMED says: reconcile before you redo.
 *  - One host. The store lives on tmpfs and is gone after a reboot, unless it has a write-ahead file (options.wal_dir).
 *  - Whoever may write the store's files is trusted. Damaged bytes give an error, never undefined behaviour.
 *  - fork: a child may use the inherited handle; it registers as a process of its own on first use. Claims stay with the
 *    process that made them. After a raw clone() that bypasses pthread_atfork, a dead parent can look alive until its
 *    lease ends. This library registers liburcu-bp's fork handlers; a host that uses liburcu-bp must not do so again, nor
 *    fork inside of one of its read sections (which is how copies of this library in one process, plugins' say, tell each other). One lock of
 *    liburcu-bp (0.13) is in none of them: a child forked at the very moment in which another thread makes its first call here, or ends,
 *    may hang in exit(), or in the first call of a new thread. _exit() and exec are safe, and so is forking before there are threads.
 *  - A host that closes descriptors it does not know looks dead: its keys are taken over, and what it was just writing may
 *    be overwritten. It notices on a later call and goes on under a new process slot. Keep idem_owner_fd() open.
 *  - Not async-signal-safe: call nothing here from a signal handler. Asynchronous thread cancellation is not supported;
 *    deferred cancellation is, there is no cancellation point while shared state is being changed.
 *
 * Conventions
 *  - Return values >= 0 are outcomes (see enum idem_verdict), < 0 are errors (enum idem_error). Losing a race is an
 *    outcome. idem_error_detail() has a sentence naming file, field and remedy for the calling thread's last error.
 *  - Every public struct begins with its own size; set it with the matching IDEM_..._INIT. Unset (zero) fields mean the
 *    default.
 *  - All durations are milliseconds, all sizes bytes. IDEM_FOREVER never ends.
 *  - Every function is safe to call from several threads on one handle, except idem_close(), which must be the last.
 *  - "Durability: memory" means: survives the death of every process, not that of the machine. "Durability: as asked" means: by the call's
 *    own setting, else the store's: none (as memory), async (on the disk within the flush interval, the machine's crash loses at most
 *    that; what a killed process left is written by any other that has the store open, or by the next one), sync (on the disk at return).
 */
#ifndef IDEM_H
#define IDEM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IDEM_API __attribute__((visibility("default")))

#define IDEM_VERSION_MAJOR 0
#define IDEM_VERSION_MINOR 1
#define IDEM_VERSION_PATCH 0

/* Limits. One past each is IDEM_E_INVALID (keys, marks, times) or IDEM_E_TOO_BIG (see idem_complete). */
#define IDEM_KEY_MAX          1024u     /* scope + key together, bytes; the key itself is at least 1 byte */
#define IDEM_MARK_MAX         256u      /* bytes of a mark */
#define IDEM_LEASE_MAX_MS     604800000 /* 7 days */
#define IDEM_TTL_MAX_MS       INT64_C(3155760000000) /* 100 years; beyond it use IDEM_FOREVER */
#define IDEM_FOREVER          INT64_MAX
#define IDEM_PROCESSES_MAX    4096u  /* handles open at once, over all processes of a store; default 512 */
#define IDEM_LANES_MAX        16384u /* threads using a store at once; default 2048 */
#define IDEM_CLAIM_WIRE_BYTES 64u

/* Outcomes. */
enum idem_verdict {
    IDEM_OK = 0,          /* done (calls that have nothing more to say) */
    IDEM_CLAIMED = 1,     /* it is yours, and no earlier attempt can have had an effect */
    IDEM_RECLAIMED = 2,   /* it is yours; an earlier attempt was lost and may have had its effect: reconcile first */
    IDEM_REPLAY = 3,      /* completed before: the reply holds the stored answer */
    IDEM_IN_PROGRESS = 4, /* another attempt runs; reply.retry_after_ms */
    IDEM_MISMATCH = 5,    /* this key was used with another fingerprint: refuse the request */
    IDEM_UNKNOWN = 6,     /* an attempt was lost and the key is held: resolve it, nobody redoes it */
    IDEM_TOMBSTONE = 7    /* complete: recorded without its body (too large, or no room); replays say so */
};

/* Errors. idem_strerror() has a sentence for each. */
enum idem_error {
    IDEM_E_INVALID = -1,      /* an argument is out of bounds */
    IDEM_E_FULL = -2,         /* no room for a new claim (or no process slot or lane); nothing was evicted */
    IDEM_E_LOST = -3,         /* fenced: the claim was taken over, released or is over; nothing was changed */
    IDEM_E_TIMEOUT = -4,      /* idem_wait: the other attempt still runs */
    IDEM_E_LOG = -5,          /* the write-ahead file could not be written or synced; the detail says why */
    IDEM_E_LOG_STALLED = -6,  /* the write-ahead file made no progress within its bound */
    IDEM_E_VERSION = -7,      /* the store was made by an incompatible version */
    IDEM_E_CORRUPT = -8,      /* the store's bytes contradict each other; see idem_verify() */
    IDEM_E_TOO_BIG = -9,      /* a transient answer exceeds what a region can hold (others become tombstones) */
    IDEM_E_NO_KEY = -10,      /* no such key (or no such attempt of it) */
    IDEM_E_PERMISSION = -11,  /* not ours to open: owner, mode, link count or file type is unsafe */
    IDEM_E_MEMORY = -12,      /* malloc or the caller's allocator failed */
    IDEM_E_SYSTEM = -13,      /* a system call failed; errno is kept */
    IDEM_E_STALE = -14,       /* the store was removed or replaced under this handle, or the claim is another store's */
    IDEM_E_NO_STORE = -15,    /* there is no store at this place (open without IDEM_OPEN_CREATE) */
    IDEM_E_EXISTS = -16,      /* there is one already (IDEM_OPEN_EXCLUSIVE) */
    IDEM_E_LOG_SPACE = -17,   /* no space for the write-ahead file; goes on by itself when there is some */
    IDEM_E_LOG_DAMAGED = -18, /* the write-ahead file is damaged, or one of it is missing; see idem_recover() */
    IDEM_E_LOG_FOREIGN = -19  /* the log directory belongs to another store */
};

typedef struct idem_store idem_store; /* an open handle; opaque */

/* ------------------------------------------------------------------ opening */

enum idem_open_flags {
    IDEM_OPEN_CREATE = 1u << 0,    /* create the store if there is none */
    IDEM_OPEN_EXCLUSIVE = 1u << 1, /* with CREATE: IDEM_E_EXISTS if there is one */
    IDEM_OPEN_FAIL_STALE =
        1u << 2, /* if the store is removed or replaced, fail with IDEM_E_STALE instead of reopening */
    IDEM_OPEN_SIGBUS_GUARD =
        1u
        << 3, /* install a SIGBUS handler for this process: a truncated store file then gives IDEM_E_CORRUPT instead of
                    death; other SIGBUS go to the previous handler */
    IDEM_OPEN_NO_FLUSHER = 1u << 4 /* this handle starts no thread for async durability: call idem_maintain() or
                                      idem_sync() from a timer, every flush interval, or have another process do it */
};

enum idem_huge { IDEM_HUGE_AUTO = 0, IDEM_HUGE_REQUIRE = 1, IDEM_HUGE_OFF = 2 };
enum idem_when_full { IDEM_FULL_REFUSE = 0, IDEM_FULL_EVICT = 1 };

/* How durable. In a store without wal_dir everything is IDEM_DURABILITY_NONE, and asking for more is IDEM_E_INVALID. */
enum idem_durability {
    IDEM_DURABILITY_DEFAULT = 0, /* the store's */
    IDEM_DURABILITY_NONE = 1,
    IDEM_DURABILITY_ASYNC = 2,
    IDEM_DURABILITY_SYNC = 3
};

typedef struct idem_options {
    size_t size;    /* sizeof(idem_options) */
    uint32_t flags; /* enum idem_open_flags */
    uint32_t huge;  /* enum idem_huge */
    /* The rest is read when the store is created and ignored when it exists. */
    /* Live keys to hold; default 1,000,000; at least 16; all answers at most 128 GiB. There is room for so many answers of response_bytes with
       keys of up to 40 bytes, however many lanes write them and whatever their lives: what threads hold and don't use is shared when memory is
       scarce, a dead one's too. Only a thread that is stopped inside of a call keeps up to two regions (idem_stats) to itself meanwhile: a call
       that would be refused for it lets it run first (5 ms at a time, at most 100 ms a second in each process; no claim with IDEM_NO_WAIT). Claims
       in progress take their room (128 bytes and the key) where answers are not yet. */
    uint64_t keys;
    uint32_t response_bytes; /* metadata + body per key to make room for; default 512; up to 1 MiB */
    uint32_t when_full;      /* enum idem_when_full */
    uint64_t total_bytes;    /* at most this much space for the whole store; overrides `keys` if set */
    int64_t ttl_ms;          /* default TTL; default 24 h */
    int64_t lease_ms;        /* default lease; default 30 s */
    uint32_t processes;      /* handles at once; default 512; up to IDEM_PROCESSES_MAX */
    uint32_t lanes;          /* threads at once; default 2048; up to IDEM_LANES_MAX */
    int64_t group;           /* gid of a sharing group, plus 1 (0: none): directory 2770, files 0660; else 0700, 0600 */
    /* Since 0.2: the write-ahead file. wal_dir NULL: none. Also when the store exists: wal_dir NULL or the same one; the rest is ignored. */
    const char
        *wal_dir; /* absolute path on a disk; its last component is made if it is not there; belongs to one store */
    uint32_t durability_claim;    /* enum idem_durability: claims, marks, renewals, abandons, releases; default async */
    uint32_t durability_complete; /* completions, resolutions, forgets; default sync */
    uint32_t flush_interval_ms;   /* async: on the disk within about this; default 50; 1 .. 10000 */
    uint32_t log_wait_ms;    /* how long a sync call waits before IDEM_E_LOG_STALLED; default 5000; 100 .. 600000 */
    uint64_t wal_file_bytes; /* of one file, allocated when it is made; default 64 MiB; 1 MiB .. 1 GiB, 4 KiB steps */
    /* Room of a lane's queue, 8 bytes each; a power of two, 64 .. 65536; default 2048. It should take a thread's async calls of one flush; what
       finds no room is found by a walk over the store, which costs a processor some 0.1 s a million keys (idem stat: overflows). */
    uint64_t wal_ring_refs;
} idem_options;
#define IDEM_OPTIONS_INIT                                                             \
    {                                                                                 \
        sizeof(idem_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0, 0, 0, 0, 0 \
    }

/*
 * idem_open - open a store, or create it.
 *
 * dir      a path with a slash in it, or a bare NAME of [A-Za-z0-9._-]: then /run/idem/NAME where /run/idem is a tmpfs
 *          and this user may write it (or a store NAME is there), else /dev/shm/idem-UID/NAME.
 * options  NULL for all defaults (attach only).
 * store    receives the handle; close it with idem_close().
 *
 * All space is allocated at creation, so a full tmpfs fails here and not later. Two processes that create at once end
 * up in the same store. A store left from before a reboot, or half created, is replaced when IDEM_OPEN_CREATE is given.
 * With wal_dir and IDEM_OPEN_CREATE a store that is gone is rebuilt from its log first, as idem_recover() does, without progress; UUID, secret,
 * sizes, durabilities and the log's settings are then the log's. Without IDEM_OPEN_CREATE it is IDEM_E_NO_STORE.
 *
 * Outcomes: IDEM_OK. Errors: IDEM_E_INVALID, IDEM_E_NO_STORE, IDEM_E_EXISTS, IDEM_E_PERMISSION (symlink, foreign owner,
 * writable by others, extra links, not a tmpfs), IDEM_E_VERSION, IDEM_E_CORRUPT, IDEM_E_FULL (process table),
 * IDEM_E_MEMORY, IDEM_E_SYSTEM (ENOSPC: the detail says how many bytes are needed); with a log IDEM_E_LOG, IDEM_E_LOG_SPACE,
 * IDEM_E_LOG_DAMAGED (nothing was changed: idem_recover() with salvage), IDEM_E_LOG_FOREIGN. *store is NULL on error.
 * Thread safe. Keeps one descriptor (O_CLOEXEC). Registers pthread_atfork handlers once; a fork() by another thread waits
 * while a store is being opened, created or destroyed.
 */
IDEM_API int idem_open(const char *dir, const idem_options *options, idem_store **store);

/*
 * idem_close - give the handle back. NULL is allowed.
 * Claims made through it and not completed count as lost from now on (lease-only claims don't). No other thread may be
 * inside a call on this handle. Threads that used it may exit later. What this process did with async durability is on the disk when it returns, unless
 * the log fails or takes longer than log_wait_ms: idem_sync() before it would say so.
 */
IDEM_API void idem_close(idem_store *store);

/*
 * idem_destroy - remove a store: marks it dead for every process that has it open, then unlinks its files.
 * Outcomes: IDEM_OK. Errors: IDEM_E_INVALID, IDEM_E_NO_STORE, IDEM_E_PERMISSION, IDEM_E_SYSTEM.
 * Claims under way get IDEM_E_STALE. Effects whose keys were stored may run again.
 */
IDEM_API int idem_destroy(const char *dir);

/*
 * idem_owner_fd - the descriptor whose lock says "this owner is alive". A child process that inherits a duplicate of it
 * (fcntl F_DUPFD, without close-on-exec, then posix_spawn) keeps this handle's claims owned while it runs, even if this
 * process is gone. Don't read, write, lock or close it. Returns the descriptor (>= 0) or an error: IDEM_E_SYSTEM.
 * After fork the child has a descriptor of its own.
 */
IDEM_API int idem_owner_fd(idem_store *store);

/* ------------------------------------------------------------------ requests, claims, answers */

/* A key: any bytes. Scope (tenant, route) and key are framed: ("a","bc") is not ("ab","c"). Scope may be empty. */
typedef struct idem_key {
    const void *scope;
    size_t scope_bytes;
    const void *key;
    size_t key_bytes;
} idem_key;

enum idem_request_flags {
    IDEM_HOLD = 1u << 0,       /* if this attempt or an earlier one is lost: IDEM_UNKNOWN, nobody redoes it */
    IDEM_LEASE_ONLY = 1u << 1, /* the claim outlives its process and handle; only the lease ends it */
    IDEM_NO_WAIT =
        1u << 2 /* for event loops: an answer that is not on the disk yet, and has to be before it is given out, is
                   IDEM_IN_PROGRESS (retry_after_ms 1) instead of a wait for the disk; it is written meanwhile. The caller's own sync claim
                   still waits. Nor does a claim wait for memory (idem_options.keys). idem_wait() ignores it */
};

typedef struct idem_request {
    size_t size; /* sizeof(idem_request) */
    idem_key key;
    uint64_t fingerprint; /* of what the request means, see idem_fingerprint(); 0 is a value like any other ("none") */
    uint32_t flags;       /* enum idem_request_flags */
    uint32_t durability;  /* enum idem_durability: of the claim; 0: the store's */
    int64_t lease_ms;     /* 0: store default; 1 .. IDEM_LEASE_MAX_MS */
    int64_t ttl_ms;      /* 0: store default; 1 .. IDEM_TTL_MAX_MS, or IDEM_FOREVER: for the record of this attempt and,
                             unless the completion says otherwise, for its answer */
    uint64_t wait_token; /* 0, or the token from an IDEM_IN_PROGRESS reply that this caller has been waiting on: it then
                             gets that attempt's transient answer, as idem_wait() does */
} idem_request;
#define IDEM_REQUEST_INIT                                          \
    {                                                              \
        sizeof(idem_request), {NULL, 0, NULL, 0}, 0, 0, 0, 0, 0, 0 \
    }

/*
 * A claim: the right to do the work of one key. Plain data: copy it, keep it, send it to another thread or process (see
 * idem_claim_encode()), complete it there. Don't change it.
 */
typedef struct idem_claim {
    size_t size; /* sizeof(idem_claim) */
    uint8_t store_uuid[16];
    uint64_t token;   /* the fence: grows with every attempt on the key; use it as WHERE fence < token */
    uint64_t place;   /* internal */
    uint64_t hash;    /* internal */
    uint64_t entry;   /* internal; 0 after idem_claim_decode(), which costs idem_complete() a little */
    int64_t lease_ms; /* as granted; what idem_renew(0) uses */
    uint32_t attempt; /* 1 for the first attempt that is remembered; stays at 65535 */
    uint32_t flags;   /* enum idem_request_flags */
} idem_claim;
#define IDEM_CLAIM_INIT                              \
    {                                                \
        sizeof(idem_claim), {0}, 0, 0, 0, 0, 0, 0, 0 \
    }

/* Why an attempt counts as lost. */
enum idem_lost_reason {
    IDEM_LOST_NONE = 0,
    IDEM_LOST_DEAD = 1,     /* its process ended */
    IDEM_LOST_LEASE = 2,    /* its lease ended while it lived, or it was lease-only */
    IDEM_LOST_DECLARED = 3, /* abandoned by its owner with "outcome unknown" */
    IDEM_LOST_RELEASED = 4, /* an operator ended its lease */
    IDEM_LOST_CRASH = 5     /* the machine crashed, or its segment was removed: it comes from the log */
};

enum idem_reply_flags {
    IDEM_REPLY_NOT_RETAINED = 1u << 0, /* an outcome tombstone: status, lengths and digest are known, the body is not */
    IDEM_REPLY_TRANSIENT = 1u << 1     /* an answer that is not kept, given because this caller was waiting for it */
};

/*
 * A reply. The caller sets size and, if it likes, buffer or alloc; the library fills the rest on every outcome and clears
 * it on error. Bytes (metadata, body, mark) are copied into `buffer` if they fit, else into memory from `alloc` if set,
 * else from malloc. alloc must not call into idem. Call idem_reply_free() when done in any case; memory from `alloc` is the caller's own to free.
 * NULL may be passed for a reply nobody wants.
 */
typedef struct idem_reply {
    size_t size;                             /* sizeof(idem_reply) */
    void *buffer;                            /* in: optional */
    size_t buffer_bytes;                     /* in */
    void *(*alloc)(void *ctx, size_t bytes); /* in: optional, e.g. an nginx pool; NULL return gives IDEM_E_MEMORY */
    void *alloc_ctx;                         /* in */

    uint64_t token;          /* the attempt this reply speaks of: the stored, running or lost one */
    uint32_t attempt;        /* its number */
    uint32_t flags;          /* enum idem_reply_flags */
    int32_t status;          /* REPLAY: as stored */
    uint32_t response_flags; /* REPLAY: the caller's own bits of idem_response.user_flags */
    const void *meta;        /* REPLAY: metadata (headers, say) */
    size_t meta_bytes;       /* with NOT_RETAINED: how long it was; meta is NULL then */
    const void *body;        /* REPLAY */
    size_t body_bytes;       /* with NOT_RETAINED: how long it was; body is NULL then */
    uint64_t
        digest; /* NOT_RETAINED: keyed 64-bit hash over metadata and body in a row, as idem_fingerprint(); 0: not known */
    int64_t age_ms;         /* REPLAY: since it was completed */
    int64_t expires_in_ms;  /* until the record is gone; IDEM_FOREVER */
    int64_t retry_after_ms; /* IN_PROGRESS: until the other's lease ends, at least 1 */
    const void *mark;       /* CLAIMED (attempt >= 2), RECLAIMED, UNKNOWN: the newest mark an earlier attempt left */
    size_t mark_bytes;
    uint64_t lost_token;  /* RECLAIMED, UNKNOWN: the newest lost attempt */
    uint32_t lost_reason; /* enum idem_lost_reason */
    uint32_t reserved;
    void *owned; /* internal: what idem_reply_free() frees */
} idem_reply;
#define IDEM_REPLY_INIT                                                                                              \
    {                                                                                                                \
        sizeof(idem_reply), NULL, 0, NULL, NULL, 0, 0, 0, 0, 0, NULL, 0, NULL, 0, 0, 0, 0, 0, NULL, 0, 0, 0, 0, NULL \
    }

/* Frees what the library malloc'ed for this reply and clears its pointers. Safe to repeat; NULL allowed. */
IDEM_API void idem_reply_free(idem_reply *reply);

/*
 * idem_begin - ask for a key: do I do this work, or has it been done?
 *
 * Returns at once; never waits. claim (required) is filled on IDEM_CLAIMED and IDEM_RECLAIMED, zeroed otherwise.
 *
 * Outcomes
 *   IDEM_CLAIMED     yours. After an abandoned attempt: claim.attempt >= 2 and reply.mark is what it left.
 *   IDEM_RECLAIMED   yours; reply.lost_token, lost_reason, mark tell of the lost attempt. Sticky: while a lost attempt is
 *                    remembered, abandoning does not turn the next claim into IDEM_CLAIMED.
 *   IDEM_REPLAY      the stored answer (or, NOT_RETAINED, its outcome). Never for another key or fingerprint.
 *   IDEM_IN_PROGRESS reply.token, reply.retry_after_ms. The owner lives and its lease runs.
 *   IDEM_MISMATCH    the key is in progress, completed or lost with another fingerprint. (An abandoned attempt that left no
 *                    lost one behind does not bind the fingerprint.)
 *   IDEM_UNKNOWN     an attempt was lost and it or this request says IDEM_HOLD; reply as for RECLAIMED. A late owner that
 *                    still lives may complete it; else idem_resolve().
 * Errors: IDEM_E_INVALID, IDEM_E_FULL (no room: nothing was claimed), IDEM_E_STALE, IDEM_E_CORRUPT, IDEM_E_MEMORY,
 *   IDEM_E_SYSTEM. On IDEM_E_MEMORY nothing was claimed. With sync: IDEM_E_LOG, IDEM_E_LOG_SPACE, IDEM_E_LOG_STALLED; the claim was then
 *   abandoned (nothing happened) and is not given out.
 * Durability: as asked (request.durability). With sync it waits for the disk, up to log_wait_ms; so does a replay of an answer that was
 * completed with sync, if it is not on the disk yet: on an error it is not given out. A dead owner's key is reclaimed at once; a stopped one's when its lease ends.
 */
IDEM_API int idem_begin(idem_store *store, const idem_request *request, idem_claim *claim, idem_reply *reply);

/*
 * idem_wait - as idem_begin(), but while another attempt runs it waits, up to timeout_ms (0: not at all; < 0 is invalid).
 * Additional error: IDEM_E_TIMEOUT, with the reply filled as for IDEM_IN_PROGRESS. A caller that waited for an attempt
 * which ended in a transient answer gets that answer (IDEM_REPLAY, IDEM_REPLY_TRANSIENT).
 * Sleeps in the kernel (futex, at most 100 ms at a time); not interrupted by signals.
 */
IDEM_API int idem_wait(idem_store *store, const idem_request *request, int64_t timeout_ms, idem_claim *claim,
                       idem_reply *reply);

/*
 * idem_prefetch - a hint: idem_begin() of this key comes soon, on this thread. Begins to fetch the memory that it will meet first, while the caller does
 * something else (a body is read, a fingerprint made). Changes nothing, tells nothing, never fails; costs about as much as hashing the key.
 */
IDEM_API void idem_prefetch(idem_store *store, const idem_key *key);

typedef struct idem_result {
    size_t size; /* sizeof(idem_result) */
    int verdict; /* outcome or error of this request */
    int reserved;
    idem_claim claim;
    idem_reply reply; /* in/out as above; initialise each */
} idem_result;

/*
 * idem_begin_many - idem_begin() for n requests (1 .. 65536), with memory accesses overlapped. Each result has its own
 * verdict. A key that comes twice is answered in order: the second time as if it came after the first.
 * Outcomes: IDEM_OK (look at each result). Errors: IDEM_E_INVALID for the arrays; then nothing was done.
 */
IDEM_API int idem_begin_many(idem_store *store, const idem_request *requests, size_t n, idem_result *results);

enum idem_response_flags {
    /* Not kept: those already waiting on this token get it, the key is claimable at once for everyone else. For failures that may be
       retried safely. */
    IDEM_RESPONSE_TRANSIENT = 1u << 0,
    /* The outcome without its bytes, which went by and were not kept: meta and body are NULL, their lengths are told. Recorded as a
       tombstone. With TRANSIENT: IDEM_E_TOO_BIG. */
    IDEM_RESPONSE_NOT_RETAINED = 1u << 1
};

typedef struct idem_response {
    size_t size; /* sizeof(idem_response) */
    int32_t status;
    uint32_t flags;      /* enum idem_response_flags */
    uint32_t user_flags; /* 16 bits kept for the caller, returned in reply.response_flags */
    uint32_t durability; /* enum idem_durability: of the answer; 0: the store's */
    const void *meta;
    size_t meta_bytes;
    const void *body;
    size_t body_bytes;
    int64_t ttl_ms;  /* 0: the request's; 1 .. IDEM_TTL_MAX_MS or IDEM_FOREVER */
    uint64_t digest; /* NOT_RETAINED: as a reply tells it; 0: not known */
} idem_response;
#define IDEM_RESPONSE_INIT                                        \
    {                                                             \
        sizeof(idem_response), 0, 0, 0, 0, NULL, 0, NULL, 0, 0, 0 \
    }

/*
 * idem_complete - store the answer and wake everyone who waits for it.
 *
 * The claim may come from another thread or process. From the moment this returns >= 0 every claimant gets this answer
 * until the TTL ends; it never changes. Repeating it for the same token is IDEM_OK and changes nothing.
 *
 * Outcomes: IDEM_OK; IDEM_TOMBSTONE (recorded without metadata and body: larger than a region, no room, or NOT_RETAINED).
 * Errors: IDEM_E_LOST (taken over, abandoned, released, forgotten, or expired and swept: nothing changed), IDEM_E_STALE,
 *   IDEM_E_INVALID, IDEM_E_CORRUPT, IDEM_E_SYSTEM; for a transient response also IDEM_E_FULL and IDEM_E_TOO_BIG (abandon
 *   instead). Not transient: IDEM_E_FULL only if there is no room and another thread or process is completing this very
 *   claim, look again; or if this thread has no lane yet and all are in use (as for every call). With sync: IDEM_E_LOG,
 *   IDEM_E_LOG_SPACE, IDEM_E_LOG_STALLED: the answer stands in memory, is not given out before it is durable, and repeating the call tries again.
 * A lease that has ended but was not taken over does not prevent completing.
 * Durability: as asked (response.durability). A transient answer itself is never on the disk, only that the attempt is over. Many at once wait for
 * the disk once: each with async, then idem_sync().
 */
IDEM_API int idem_complete(idem_store *store, const idem_claim *claim, const idem_response *response);

enum idem_abandon_why {
    IDEM_NOTHING_HAPPENED = 0, /* the key is claimable; attempts and mark are remembered until the TTL ends */
    IDEM_OUTCOME_UNKNOWN = 1   /* the attempt counts as lost: the next one is IDEM_RECLAIMED, or held */
};
/* Outcomes: IDEM_OK. Errors: IDEM_E_LOST, IDEM_E_STALE, IDEM_E_INVALID, IDEM_E_CORRUPT, IDEM_E_SYSTEM. Needs no memory. */
IDEM_API int idem_abandon(idem_store *store, const idem_claim *claim, int why);

/*
 * idem_renew - the lease ends lease_ms from now (0: claim->lease_ms again). Call it at a third of the lease.
 * Outcomes: IDEM_OK. Errors: IDEM_E_LOST (stop working: somebody else may), IDEM_E_FULL (the old lease stands), IDEM_E_INVALID,
 * IDEM_E_STALE, IDEM_E_CORRUPT, IDEM_E_SYSTEM. Not possible after a takeover, possible after a lease ended without one.
 */
IDEM_API int idem_renew(idem_store *store, const idem_claim *claim, int64_t lease_ms);

/*
 * idem_mark - leave a note of up to IDEM_MARK_MAX bytes before or between side effects; replaces the one before. Whoever
 * takes over gets it. Outcomes and errors as idem_renew().
 */
IDEM_API int idem_mark(idem_store *store, const idem_claim *claim, const void *mark, size_t mark_bytes);

/*
 * idem_adopt - this process (this handle) becomes the owner: liveness is now judged by it. Clears IDEM_LEASE_ONLY unless
 * the claim's flags still say it. Outcomes and errors as idem_renew(). The lease is not changed.
 */
IDEM_API int idem_adopt(idem_store *store, const idem_claim *claim);

/*
 * idem_find - rebuild the claim of a key's running attempt from its token (0: whatever runs). For steps that are separate
 * programs. Outcomes: IDEM_OK. Errors: IDEM_E_NO_KEY (no record), IDEM_E_LOST (there is one, but not with this token, or it
 * is not running), IDEM_E_INVALID, IDEM_E_STALE, IDEM_E_CORRUPT, IDEM_E_SYSTEM.
 */
IDEM_API int idem_find(idem_store *store, const idem_key *key, uint64_t token, idem_claim *claim);

/* A claim's fixed wire form, little endian, store UUID included. Decode: IDEM_OK, or IDEM_E_INVALID for foreign bytes. */
IDEM_API void idem_claim_encode(const idem_claim *claim, uint8_t wire[IDEM_CLAIM_WIRE_BYTES]);
IDEM_API int idem_claim_decode(const uint8_t wire[IDEM_CLAIM_WIRE_BYTES], idem_claim *claim);

/*
 * idem_lookup - look, don't claim, don't compare fingerprints.
 * Outcomes: IDEM_REPLAY, IDEM_IN_PROGRESS, IDEM_UNKNOWN (lost: a claim would be RECLAIMED or held). Errors: IDEM_E_NO_KEY
 * (absent, expired, abandoned or forgotten), IDEM_E_INVALID, IDEM_E_STALE, IDEM_E_CORRUPT, IDEM_E_MEMORY, IDEM_E_SYSTEM.
 */
IDEM_API int idem_lookup(idem_store *store, const idem_key *key, idem_reply *reply);

/*
 * idem_forget - the key becomes absent: its effect may run again, as a first attempt. A running attempt is fenced.
 * Outcomes: IDEM_OK. Errors: IDEM_E_NO_KEY, IDEM_E_INVALID, IDEM_E_STALE, IDEM_E_CORRUPT, IDEM_E_SYSTEM. Needs no memory.
 */
IDEM_API int idem_forget(idem_store *store, const idem_key *key);

enum idem_resolution {
    IDEM_RESOLVE_COMPLETED = 0, /* the effect happened: store `response` (NULL: status 0, no body) as the answer */
    IDEM_RESOLVE_RERUN = 1      /* it did not: the next claim is IDEM_CLAIMED */
};
/*
 * idem_resolve - settle a lost attempt (IDEM_UNKNOWN). token: the lost attempt's, so that nobody settles what he has not
 * seen. response->ttl_ms 0 means the request's. Outcomes: IDEM_OK, IDEM_TOMBSTONE. Errors: IDEM_E_NO_KEY, IDEM_E_LOST (another token, or it is
 * not lost), IDEM_E_FULL, IDEM_E_INVALID, IDEM_E_STALE, IDEM_E_CORRUPT, IDEM_E_SYSTEM.
 */
IDEM_API int idem_resolve(idem_store *store, const idem_key *key, uint64_t token, int resolution,
                          const idem_response *response);

/*
 * idem_release - end the lease of a running attempt now: it counts as lost (IDEM_LOST_RELEASED), its owner is fenced.
 * token 0: whatever runs. Outcomes: IDEM_OK. Errors: IDEM_E_NO_KEY, IDEM_E_LOST (not running, or another token), IDEM_E_INVALID, IDEM_E_STALE,
 * IDEM_E_CORRUPT, IDEM_E_SYSTEM.
 */
IDEM_API int idem_release(idem_store *store, const idem_key *key, uint64_t token);

/* ------------------------------------------------------------------ looking at a store */

enum idem_state {
    IDEM_STATE_IN_PROGRESS = 1,
    IDEM_STATE_COMPLETED = 2,
    IDEM_STATE_ABANDONED = 3, /* claimable, attempts remembered; with answer TRANSIENT: after a transient answer */
    IDEM_STATE_LOST = 4       /* owner dead, lease over, declared or released; claimable by takeover unless held */
};

/* One key's story. Pointers are valid until idem_story_free() (explain) or the callback's return (walk). */
typedef struct idem_story {
    size_t size; /* sizeof(idem_story) */
    const void *scope;
    size_t scope_bytes;
    const void *key;
    size_t key_bytes;
    int state;            /* enum idem_state */
    uint32_t flags;       /* enum idem_request_flags of the newest claim */
    uint32_t reply_flags; /* COMPLETED, ABANDONED: enum idem_reply_flags */
    uint32_t attempt;
    uint64_t token;
    uint64_t fingerprint;
    int64_t at_wall_ms;    /* when this attempt was claimed, or completed, in ms since 1970 */
    int64_t expires_in_ms; /* until the record is gone; IDEM_FOREVER */
    int64_t lease_left_ms; /* IN_PROGRESS, LOST: may be negative */
    int64_t owner_pid;     /* IN_PROGRESS, LOST: as its own PID namespace saw it; 0: not known */
    uint32_t owner_alive;  /* 0 or 1 */
    uint32_t waiters;      /* 0 or 1: somebody waits or has waited on this attempt */
    uint32_t lost_reason;  /* LOST: why this attempt is; else why an earlier one was (enum idem_lost_reason) */
    int32_t status;        /* COMPLETED */
    uint64_t lost_token;   /* the newest lost attempt, 0: none */
    size_t meta_bytes;     /* COMPLETED */
    size_t body_bytes;     /* COMPLETED */
    const void *mark;
    size_t mark_bytes;
    uint64_t bucket; /* where it lies: home bucket and distance, for verify's messages */
    uint32_t distance;
    uint32_t log_state;    /* 0: not logged (or no log), 1: written, 2: durable */
    void *owned;           /* internal */
    uint64_t log_position; /* of its newest record; log_state says if there is one */
} idem_story;
#define IDEM_STORY_INIT                                                                                            \
    {                                                                                                              \
        sizeof(idem_story), NULL, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0, 0, 0, \
            NULL, 0                                                                                                \
    }

/* idem_explain - tell a key's story. Outcomes: IDEM_OK. Errors: IDEM_E_NO_KEY, IDEM_E_INVALID, IDEM_E_STALE, IDEM_E_CORRUPT, IDEM_E_MEMORY,
   IDEM_E_SYSTEM. */
IDEM_API int idem_explain(idem_store *store, const idem_key *key, idem_story *story);
IDEM_API void idem_story_free(idem_story *story);

/*
 * idem_walk - call fn for every key that is there (expired and forgotten ones are not). A key that is there from the
 * beginning to the end of the walk is seen exactly once; others may or may not be. fn returns 0 to go on; anything else ends the walk and is
 * returned. fn may call into this store. Errors: IDEM_E_INVALID, IDEM_E_STALE, IDEM_E_CORRUPT, IDEM_E_MEMORY, IDEM_E_SYSTEM.
 */
IDEM_API int idem_walk(idem_store *store, int (*fn)(const idem_story *story, void *ctx), void *ctx);

#define IDEM_STATS_CLASSES 64
typedef struct idem_class_stats {
    int64_t ttl_ms; /* upper bound of this class's life; 0: claims; IDEM_FOREVER */
    uint64_t regions;
    uint64_t bytes; /* handed out to lanes */
} idem_class_stats;

enum idem_log_trouble {
    IDEM_LOG_FINE = 0,
    IDEM_LOG_STALLED = 1,  /* a leader lives but makes no progress */
    IDEM_LOG_POISONED = 2, /* a sync failed: the file is given up, a new one is being made */
    IDEM_LOG_NO_SPACE = 3,
    IDEM_LOG_REMOVED = 4, /* the directory was removed, replaced or taken over */
    IDEM_LOG_FAILED = 5   /* another error; last_errno */
};
#define IDEM_LOG_FSYNC_BUCKETS 24
typedef struct idem_log_stats {
    uint32_t present;    /* 1: the store has a log; the rest is 0 without */
    uint32_t trouble;    /* enum idem_log_trouble */
    uint32_t last_errno; /* of the last failure */
    uint32_t epoch;      /* leaders that succeeded a living one */
    uint32_t durability_claim, durability_complete, flush_interval_ms, log_wait_ms;
    uint64_t file_bytes, files, bytes_on_disk;
    uint64_t written, durable; /* positions, bytes */
    uint64_t queued;           /* references not durable yet, over all lanes */
    uint64_t overflows, walks; /* full queues; walks over the index for them */
    uint64_t batches, records, syncs, sync_failures, poisoned_files, waits, stalls;
    uint64_t live_bytes;                       /* of records still needed, by the last walk */
    int64_t oldest_queued_ms;                  /* how long the oldest reference has waited */
    uint64_t fsync_us[IDEM_LOG_FSYNC_BUCKETS]; /* syncs that took less than 2^(i+4) us */
    uint64_t fsync_total_us;                   /* all of them together */
} idem_log_stats;

typedef struct idem_stats_data {
    size_t size; /* sizeof(idem_stats_data) */
    uint8_t store_uuid[16];
    uint32_t layout_major, layout_minor;
    /* Counters since creation, over all processes, dead ones included. Monotonic but for 1 in a killed operation. */
    uint64_t claimed, reclaimed, replayed, in_progress, mismatched, unknown, waited;
    uint64_t completed, tombstones, transient, abandoned, renewed, marked, fenced, full, forgotten, evicted;
    uint64_t swept_regions, swept_entries, moved_entries, passes;
    /* Now. */
    uint64_t keys_capacity;     /* advertised at creation */
    uint64_t slots, slots_used; /* slots_used is counted by the last complete pass or, before one, by this call */
    uint64_t buckets;
    uint64_t bytes_total; /* all files of the store */
    uint64_t bytes_huge;  /* of this process's mapping that lies in huge pages */
    uint64_t region_bytes, regions, regions_free, regions_open, regions_draining;
    uint64_t response_max_bytes; /* largest metadata + body kept whole, for a key of IDEM_KEY_MAX bytes */
    uint32_t processes, processes_max;
    uint32_t lanes, lanes_max;
    int64_t ttl_ms, lease_ms; /* defaults */
    uint32_t when_full;
    uint32_t classes; /* entries used below */
    int64_t created_wall_ms;
    idem_class_stats by_class[IDEM_STATS_CLASSES];
    idem_log_stats log;
    uint32_t response_bytes; /* options.response_bytes at creation */
    uint32_t reserved;
} idem_stats_data;

/* idem_stats - fill *stats (set stats->size). Costs a look at every lane and region. Outcomes: IDEM_OK. Errors: IDEM_E_INVALID,
   IDEM_E_STALE, IDEM_E_SYSTEM, IDEM_E_FULL (all lanes are in use, and this thread has none). */
IDEM_API int idem_stats(idem_store *store, idem_stats_data *stats);

/*
 * idem_maintain - sweep for up to budget_us microseconds (0: one small step): take back expired memory, reap dead
 * processes. Operations do this on the way; call it from a timer where traffic pauses. Returns IDEM_OK, or 1 if there is
 * more to do; errors as idem_stats().
 */
IDEM_API int idem_maintain(idem_store *store, int64_t budget_us);

/*
 * idem_sync - everything acknowledged before this call, by anybody, is durable at its return.
 * timeout_ms: 0 for the store's log_wait_ms. Outcomes: IDEM_OK, also in a store without a log (there is nothing to wait for).
 * Errors: IDEM_E_LOG, IDEM_E_LOG_SPACE, IDEM_E_LOG_STALLED, IDEM_E_INVALID, IDEM_E_STALE, IDEM_E_SYSTEM.
 * Durability: on the disk. May write for everybody; sleeps in the kernel.
 */
IDEM_API int idem_sync(idem_store *store, int64_t timeout_ms);

/* ------------------------------------------------------------------ the log without its store */

typedef struct idem_progress {
    uint64_t bytes_done, bytes_total;
    uint64_t records;            /* read so far */
    uint64_t keys;               /* placed so far */
    int64_t elapsed_ms, left_ms; /* left: an estimate, -1: not known yet */
} idem_progress;

typedef struct idem_recovery {
    size_t size;         /* sizeof(idem_recovery) */
    const char *dir;     /* in: where the store is to be; as for idem_open() */
    const char *wal_dir; /* in */
    uint32_t flags;      /* in: enum idem_recover_flags */
    uint32_t reserved;   /* 0 */
    int64_t now_wall_ms; /* in: 0: the clock. What time it is for expiry, if the wall clock can't be trusted */
    int (*progress)(
        void *ctx,
        const idem_progress *p); /* in: optional, about 10 times a second; not 0 ends recovery: IDEM_E_TIMEOUT */
    void (*sentence)(void *ctx, const char *text); /* in: optional, for each thing found or lost */
    void *ctx;                                     /* in */
    /* out */
    uint64_t files, records, batches, bytes;
    uint64_t keys, completed, lost, abandoned, expired, forgotten;
    uint64_t cut_bytes;     /* of a torn tail: never acknowledged as durable */
    uint64_t damaged;       /* places; more than 0 only with salvage */
    uint64_t lost_records;  /* salvage: at least so many records are gone */
    int64_t newest_wall_ms; /* of the last batch */
} idem_recovery;
#define IDEM_RECOVERY_INIT                                                                                     \
    {                                                                                                          \
        sizeof(idem_recovery), NULL, NULL, 0, 0, 0, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }
enum idem_recover_flags {
    IDEM_RECOVER_SALVAGE = 1u << 0,    /* keep what can be proven good of a damaged log; say what is lost */
    IDEM_RECOVER_CHECK_ONLY = 1u << 1, /* read and report, change nothing */
    IDEM_RECOVER_REPLACE =
        1u << 2 /* the store exists and is to be replaced by what the log says (it is marked dead first) */
};

/*
 * idem_recover - build a store from its log. Reads as a stream; may be killed anywhere and repeated.
 * Outcomes: IDEM_OK; the store can be opened. Errors: IDEM_E_INVALID, IDEM_E_EXISTS (without REPLACE), IDEM_E_NO_STORE (no log there),
 * IDEM_E_LOG_DAMAGED (file and position in the detail; nothing was changed), IDEM_E_LOG_FOREIGN, IDEM_E_VERSION, IDEM_E_LOG, IDEM_E_LOG_SPACE,
 * IDEM_E_FULL (the store is too small for its log), IDEM_E_TIMEOUT (progress said so), IDEM_E_PERMISSION, IDEM_E_MEMORY, IDEM_E_SYSTEM.
 * Durability: what it found is durable when it returns. Threads: uses up to two.
 */
IDEM_API int idem_recover(idem_recovery *recovery);

/* One record of the log, as found. Pointers are valid until the callback's return. */
typedef struct idem_log_record {
    size_t size; /* sizeof(idem_log_record) */
    uint64_t file, position;
    uint32_t kind, state; /* numbers as in the format; see idem wal dump */
    uint64_t token, fingerprint;
    uint32_t attempt, flags;
    int64_t at_wall_ms, expires_wall_ms;
    idem_key key;
    int32_t status;
    uint32_t reserved;
    const void *meta, *body, *mark;
    size_t meta_bytes, body_bytes, mark_bytes;
} idem_log_record;

/* idem_log_walk - every sound record of a log directory, in the order of position; changes nothing. fn returns 0 to go on; anything else ends the
   walk and is returned. Errors as idem_recover(). May run beside a store that writes: what is not durable yet may or may not be seen. */
IDEM_API int idem_log_walk(const char *wal_dir, int (*fn)(const idem_log_record *record, void *ctx), void *ctx);

typedef struct idem_report {
    size_t size; /* sizeof(idem_report) */
    uint64_t checked_slots;
    uint64_t keys;
    uint64_t problems; /* 0: every invariant holds */
    void (*problem)(void *ctx,
                    const char *sentence); /* in: optional; called once a problem: which file, offset, field */
    void *ctx;                             /* in */
} idem_report;
#define IDEM_REPORT_INIT                         \
    {                                            \
        sizeof(idem_report), 0, 0, 0, NULL, NULL \
    }

/*
 * idem_verify - check every invariant of a store's bytes; changes nothing. May run under traffic (what moves meanwhile is
 * looked at again). Outcomes: IDEM_OK (problems == 0), else IDEM_E_CORRUPT; errors as idem_open(). report->problem must not
 * call into idem. While it runs, reopening and forking of handles of this process may wait.
 */
IDEM_API int idem_verify(const char *dir, idem_report *report);

/* ------------------------------------------------------------------ fingerprints, words */

/*
 * idem_fingerprint - keyed 64-bit hash (the key is the store's secret) of what a request means. Never 0, but on failure:
 * bytes NULL, or an error of the handle (see idem_error_detail()). Check it, since 0 stands for "no fingerprint".
 * The streaming form gives the same value for the same bytes in any pieces: _begin returns NULL on failure,
 * _end frees the state and returns the value; _end with a NULL state returns 0.
 */
IDEM_API uint64_t idem_fingerprint(idem_store *store, const void *bytes, size_t n);
typedef struct idem_fingerprint_state idem_fingerprint_state;
IDEM_API idem_fingerprint_state *idem_fingerprint_begin(idem_store *store);
IDEM_API void idem_fingerprint_update(idem_fingerprint_state *state, const void *bytes, size_t n);
IDEM_API uint64_t idem_fingerprint_end(idem_fingerprint_state *state);

/*
 * idem_digest - keyed 128-bit hash (the key is the store's secret) of any bytes: for what should be told apart in a store, and not be read there,
 * such as credentials in a scope. Outcomes: IDEM_OK, digest is filled. Errors: IDEM_E_INVALID (NULL), IDEM_E_STALE, IDEM_E_SYSTEM. Another store gives another
 * digest; after recovery it is the same.
 */
IDEM_API int idem_digest(idem_store *store, const void *bytes, size_t n, uint8_t digest[16]);

/* The store's path as resolved by idem_open(); valid until idem_close(). */
IDEM_API const char *idem_path(idem_store *store);

/* A sentence for an outcome or error; static storage, never NULL. */
IDEM_API const char *idem_strerror(int code);
/* What exactly went wrong in this thread's last failing call: file, field, remedy. Valid until the thread's next call here. Never NULL. */
IDEM_API const char *idem_error_detail(void);
/* "0.1.0" */
IDEM_API const char *idem_version(void);

#ifdef __cplusplus
}
#endif
#endif
