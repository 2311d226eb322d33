/*
 * lmdb.c - LMDB: mdb_put(MDB_NOOVERWRITE) claims, a second mdb_put completes, mdb_get in a renewed read transaction replays.
 *
 * Batches are one transaction. "lmdb" has MDB_NOSYNC and MDB_WRITEMAP, which its manual calls fastest, on a tmpfs;
 * "lmdb/sync" is on the disk with the defaults. An environment can't be carried over a fork: each worker opens its own.
 */
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>

#include "peer.h"

enum { MODE = 0600, RUNNING_BYTES = 1 };

struct table {
    char path[320];
    size_t map_bytes;
    unsigned flags;
};

struct worker {
    MDB_env *env;
    MDB_txn *reader;
    MDB_txn *filling;
    MDB_dbi keys;
    char error[160];
};

static void version(const struct peer *self, char *text, size_t text_bytes)
{
    (void)self;
    snprintf(text, text_bytes, "%s", mdb_version(NULL, NULL, NULL));
}

static MDB_env *env_open(const struct table *t, char *why)
{
    MDB_env *env = NULL;
    int bad = mdb_env_create(&env);
    if (bad == 0)
        bad = mdb_env_set_mapsize(env, t->map_bytes);
    if (bad == 0)
        bad = mdb_env_open(env, t->path, t->flags, MODE);
    if (bad == 0)
        return env;
    snprintf(why, PEER_WHY_BYTES, "mdb_env_open: %s", mdb_strerror(bad));
    mdb_env_close(env);
    return NULL;
}

static void *prepare(const struct peer *self, const struct peer_place *place, char *why)
{
    struct table *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    snprintf(t->path, sizeof t->path, "%s", self->durable ? place->disk : place->dir);
    /* Pages are two thirds full after random insertions; what a copy-on-write needs for a while comes on top. */
    t->map_bytes = (size_t)(place->keys * 640 + (64u << 20)) & ~(size_t)4095;
    t->flags = self->durable ? MDB_NORDAHEAD : MDB_NORDAHEAD | MDB_NOSYNC | MDB_WRITEMAP | MDB_NOMEMINIT;
    MDB_env *env = env_open(t, why);
    if (!env) {
        free(t);
        return NULL;
    }
    mdb_env_close(env);
    return t;
}

static void *attach(void *shared, unsigned me, char *why)
{
    struct worker *w = calloc(1, sizeof *w);
    MDB_txn *txn = NULL;
    (void)me;
    if (!w)
        return NULL;
    w->env = env_open(shared, why);
    if (!w->env) {
        free(w);
        return NULL;
    }
    int bad = mdb_txn_begin(w->env, NULL, 0, &txn);
    if (bad == 0)
        bad = mdb_dbi_open(txn, NULL, 0, &w->keys);
    if (bad == 0)
        bad = mdb_txn_commit(txn);
    if (bad == 0)
        bad = mdb_txn_begin(w->env, NULL, MDB_RDONLY, &w->reader);
    if (bad != 0) {
        snprintf(why, PEER_WHY_BYTES, "opening the database: %s", mdb_strerror(bad));
        return NULL;
    }
    mdb_txn_reset(w->reader);
    return w;
}

static long failed(struct worker *me, const char *call, int bad)
{
    snprintf(me->error, sizeof me->error, "%s: %s", call, mdb_strerror(bad));
    return -1;
}

/* What is stored for key i: of a running claim a byte, of an answer its 256. */
enum stored { RUNNING, ANSWER, ANSWER_AT_ONCE };

/* One key in a transaction: 1 if it was stored, 0 if it was there, -1 after an error. */
static long put_one(struct worker *me, MDB_txn *txn, const struct peer_work *w, size_t i, enum stored what)
{
    static char running[RUNNING_BYTES];
    MDB_val key = {.mv_size = PEER_KEY_BYTES, .mv_data = (void *)(uintptr_t)peer_key(w, i)};
    MDB_val value = {.mv_size = RUNNING_BYTES, .mv_data = running};
    if (what != RUNNING)
        value = (MDB_val){.mv_size = PEER_ANSWER_BYTES, .mv_data = (void *)(uintptr_t)w->answers[i]};
    int bad = mdb_put(txn, me->keys, &key, &value, what == ANSWER ? 0 : MDB_NOOVERWRITE);
    return bad == 0 ? 1 : bad == MDB_KEYEXIST ? 0 : failed(me, "mdb_put", bad);
}

static long put(struct worker *me, struct peer_work *w, enum stored what)
{
    long done = 0;
    for (size_t first = 0; first < w->n; first += w->batch) {
        size_t to = w->n - first < w->batch ? w->n : first + w->batch;
        MDB_txn *txn;
        int bad = mdb_txn_begin(me->env, NULL, 0, &txn);
        if (bad != 0)
            return failed(me, "mdb_txn_begin", bad);
        for (size_t i = first; i < to; i++) {
            long got = put_one(me, txn, w, i, what);
            if (got < 0) {
                mdb_txn_abort(txn);
                return -1;
            }
            done += got;
        }
        bad = mdb_txn_commit(txn);
        if (bad != 0)
            return failed(me, "mdb_txn_commit", bad);
    }
    return done;
}

static long claim(void *worker, struct peer_work *w)
{
    return put(worker, w, RUNNING);
}

static long complete(void *worker, struct peer_work *w)
{
    return put(worker, w, ANSWER);
}

/* One transaction for all of them: no page is copied twice, so none is left free behind it; a long list of free pages
   would make every later commit slow. */
static long fill(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    long done = 0;
    int bad = 0;
    if (w->n > 0 && !me->filling)
        bad = mdb_txn_begin(me->env, NULL, 0, &me->filling);
    for (size_t i = 0; bad == 0 && i < w->n; i++) {
        long got = put_one(me, me->filling, w, i, ANSWER_AT_ONCE);
        if (got < 0)
            return -1;
        done += got;
    }
    if (w->n == 0 && me->filling) {
        bad = mdb_txn_commit(me->filling);
        me->filling = NULL;
    }
    return bad == 0 ? done : failed(me, "filling", bad);
}

static long replay(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    long found = 0;
    for (size_t first = 0; first < w->n; first += w->batch) {
        size_t to = w->n - first < w->batch ? w->n : first + w->batch;
        int bad = mdb_txn_renew(me->reader);
        if (bad != 0)
            return failed(me, "mdb_txn_renew", bad);
        for (size_t i = first; i < to; i++) {
            MDB_val key = {.mv_size = PEER_KEY_BYTES, .mv_data = (void *)(uintptr_t)peer_key(w, i)};
            MDB_val value;
            bad = mdb_get(me->reader, me->keys, &key, &value);
            if (bad == 0 && value.mv_size == PEER_ANSWER_BYTES) {
                memcpy(peer_out(w, i), value.mv_data, PEER_ANSWER_BYTES);
                peer_answered(w, i);
                found++;
            } else if (bad != 0 && bad != MDB_NOTFOUND) {
                mdb_txn_reset(me->reader);
                return failed(me, "mdb_get", bad);
            }
        }
        mdb_txn_reset(me->reader);
    }
    return found;
}

static const char *error(void *worker)
{
    struct worker *me = worker;
    return me->error;
}

/* Pages that hold something; those that copying on write left free aren't held against it. */
static uint64_t bytes(void *worker)
{
    struct worker *me = worker;
    MDB_stat stat;
    if (mdb_env_stat(me->env, &stat) != 0)
        return 0;
    return (uint64_t)(stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages) * stat.ms_psize;
}

static void detach(void *worker)
{
    struct worker *me = worker;
    mdb_txn_abort(me->reader);
    mdb_env_close(me->env);
    free(me);
}

static void end(void *shared)
{
    free(shared);
}

#define SAME                                                                                         \
    .reach = PEER_PROCESSES, .version = version, .prepare = prepare, .attach = attach, .fill = fill, \
    .run = {claim, complete, replay}, .error = error, .bytes = bytes, .detach = detach, .end = end

static const struct peer nosync = {
    .name = "lmdb",
    .settings = "MDB_NOSYNC, WRITEMAP, NOMEMINIT on a tmpfs; read transactions renewed; a batch is a transaction",
    .timed_keys = 65536,
    .batches = {PEER_BY_1 | PEER_BY_32, PEER_BY_1 | PEER_BY_32, PEER_BY_1 | PEER_BY_32},
    SAME,
};

static const struct peer sync = {
    .name = "lmdb/sync",
    .settings = "the defaults on a disk: every commit syncs; a batch is a transaction",
    .durable = true,
    .timed_keys = 1024,
    .batches = {PEER_BY_1 | PEER_BY_32, PEER_BY_1 | PEER_BY_32, PEER_BY_1},
    SAME,
};

const struct peer *const peers_lmdb[] = {&nosync, &sync, NULL};
