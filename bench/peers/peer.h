/*
 * peer.h - what stands in for idem in a comparison: a table, a database, a server, each behind the same three jobs.
 *
 * A file of this folder describes one product, or several ways of using it, and exports `peers_FILE`, an array of pointers
 * to struct peer that ends with NULL. bench/CMakeLists.txt names the file, the header that must be there, what is linked,
 * and the Debian package: a peer whose header is missing is left out, and the run says so. C++ files include this too, and
 * let no exception out.
 *
 * A life of a peer, in a process that is forked for it alone (the host), so that what it leaks or breaks ends with it:
 *
 *   host            prepare()                 makes the table, file or server, empty and sized for place->keys
 *   each worker     attach()                  PEER_THREADS: in a thread of the host; else in a process forked from it
 *   each worker     fill()                    if the life begins with keys that are there: not timed
 *   each worker     run[job](), many times    timed, block by block; all workers begin a block together
 *   worker 0        bytes()                   when all keys are there, the others stand still
 *   each worker     detach()                  after the last job of the last worker
 *   host            end()                     nothing may stay: neither process nor file
 *
 * Invariants
 *  1. Whoever claims a key that is there is told so, in whichever worker it was claimed; of two that claim one at the same time one wins.
 *  2. What a job returns is counted from what the product said for each key, not assumed: the driver claims keys that are
 *     there, and adds up what replays copied out; a peer that answers wrongly is disqualified, not ranked.
 *  3. A completed answer is visible to every worker when the call returns.
 *  4. The peer is used as its documentation says it is fastest without giving up 1 to 3; `settings` says how.
 * If the host dies, its workers get SIGKILL from the kernel. A server that a peer starts must ask for the same
 * (PR_SET_PDEATHSIG in the child, before exec), or it would outlive a run that is killed.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PEER_KEY_BYTES    36u
#define PEER_ANSWER_BYTES 256u
#define PEER_WHY_BYTES    320u
#define PEER_BATCH_MAX    32u
#define PEER_FILL_MAX     65536u
#define PEER_LEFT_OUT     "left out: "

/* Who can share it: threads of one process, processes of one host, or clients of a server. */
enum peer_reach { PEER_THREADS, PEER_PROCESSES, PEER_SERVER };

enum peer_job {
    PEER_CLAIM,    /* insert if absent; returns how many of the n keys were new */
    PEER_COMPLETE, /* store the answer of a key that this worker claimed; returns how many were stored */
    PEER_REPLAY,   /* look up, copy the answer out, peer_answered(); returns how many were found completed */
    PEER_JOBS
};

/* Batches a peer has a call for, as bits: one by one; 16 and 32 in one call, transaction or pipeline. */
enum { PEER_BY_1 = 1u << 0, PEER_BY_16 = 1u << 1, PEER_BY_32 = 1u << 2 };

struct peer_place {
    const char *dir;  /* empty, of this life alone, on a tmpfs; with `huge` its files get 2 MiB pages unasked */
    const char *disk; /* empty, of this life alone, on a disk: for what is durable */
    uint64_t keys;    /* that many keys the life comes to */
    unsigned workers;
    bool huge; /* use 2 MiB pages wherever they can be had; else none */
};

/* A block of keys and where its results go. */
struct peer_work {
    const unsigned char *keys; /* key i by peer_key() */
    size_t n;
    size_t batch;          /* take the keys in groups of this many (the last may be smaller); 1: one by one */
    unsigned char *claims; /* n handles of claim_bytes: filled by claiming, read by completing the same key */
    const unsigned char *const *answers; /* completing: PEER_ANSWER_BYTES at each of n pointers */
    unsigned char *out;                  /* replaying: PEER_BATCH_MAX answers; see peer_out() */
    uint64_t sum;                        /* of what was replayed; peer_answered() adds to it */
    uint64_t own_ns; /* set by who takes the time himself, inside a server: it counts instead of the driver's; else 0 */
    uint64_t zero;   /* always 0, but the compiler does not know */
};

struct peer {
    const char *name;     /* "lmdb", "sqlite/full": letters, digits, '_', '.', '-', '/' */
    const char *settings; /* one line for docs and table: what it was given */
    enum peer_reach reach;
    bool durable; /* claims and answers are on the disk when the call returns */
    unsigned
        batches[PEER_JOBS]; /* PEER_BY_... for each job; 0: this job it does not have, and rows for it are left out */
    size_t claim_bytes;     /* of a handle that claiming leaves for completing; 0: none */
    uint64_t timed_keys;  /* for the slow: so many keys of a life are claimed timed, the others filled before; 0: all */
    uint64_t keys_max;    /* its lives have no more keys: filling it would take many seconds; 0: any number */
    unsigned workers_max; /* 0: any number; 1: it has one writer */
    const void *variant;  /* the file's own */

    /* What runs, e.g. "0.9.24", for the table. */
    void (*version)(const struct peer *self, char *text, size_t text_bytes);
    /* The life's own material, or NULL with a sentence in why (PEER_WHY_BYTES). One that begins with PEER_LEFT_OUT says that
       something isn't installed here: that is said, and is no failure. */
    void *(*prepare)(const struct peer *self, const struct peer_place *place, char *why);
    /* The worker's own material, or NULL with a sentence in why. me: 0 .. workers - 1. */
    void *(*attach)(void *shared, unsigned me, char *why);
    /* Claims and completes w->n keys (up to PEER_FILL_MAX) by whatever is fastest, untimed; returns n. Worker 0 alone calls
       it, for everybody's keys, and at the end once with n 0: then all must be there for all. NULL: run[] in the largest
       batches does it, each worker for its own. */
    long (*fill)(void *worker, struct peer_work *w);
    /* Returns what enum peer_job says, or -1 after a call failed: `error` says which and what. */
    long (*run[PEER_JOBS])(void *worker, struct peer_work *w);
    const char *(*error)(void *worker);
    /* Bytes that the keys take, all overhead included, of what was allocated for them; 0: can't be told. May be NULL. */
    uint64_t (*bytes)(void *worker);
    void (*detach)(void *worker);
    void (*end)(void *shared);
};

/* Chained to the last answer when replaying: a caller looks at an answer before it asks again, so the next key's address
   depends on it. The same for every peer and for the floors. */
static inline const unsigned char *peer_key(const struct peer_work *w, size_t i)
{
    return w->keys + i * PEER_KEY_BYTES + (w->sum & w->zero);
}

/* Where the answer of key i goes: as many buffers as a batch has keys, used again for the next. */
static inline unsigned char *peer_out(const struct peer_work *w, size_t i)
{
    return w->out + i % w->batch * PEER_ANSWER_BYTES;
}

/* Key i's answer is in peer_out(): looked at, as a caller would. Its bytes tell the driver whose answer it was. */
static inline void peer_answered(struct peer_work *w, size_t i)
{
    uint64_t last;
    memcpy(&last, peer_out(w, i) + PEER_ANSWER_BYTES - sizeof last, sizeof last);
    w->sum += last;
}

#ifdef __cplusplus
}
#endif
#endif
