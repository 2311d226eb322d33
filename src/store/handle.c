/* store/handle.c - see handle.h. */
#include "store/enter.h"

#include "base/cancel.h"
#include "base/futex.h"
#include "base/point.h"
#include "store/source.h"
#include "wal/sync.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAKE_ROOM_US     20000
#define NAP_MS           5
#define NAPS_A_SECOND    20u
#define KEYS_DEFAULT     1000000u
#define KEYS_MAX         (UINT64_C(1) << 31)
#define RESPONSE_MAX     (1u << 20)
#define TTL_DEFAULT_MS   86400000
#define LEASE_DEFAULT_MS 30000
#define TOTAL_MAX_BYTES  (UINT64_C(1) << 37)

#define FLUSH_DEFAULT_MS    50u
#define LOG_WAIT_DEFAULT_MS 5000u
#define FILE_DEFAULT_BYTES  (UINT64_C(64) << 20)
#define RING_DEFAULT_REFS   2048u
#define HAS_LOG_TRIES       4u

#ifdef _LGPL_SOURCE
_Thread_local struct urcu_bp_reader **idem_reader_at __attribute__((tls_model("initial-exec")));
#endif

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct idem_store *handles;
/* During a fork: this copy of the library holds liburcu's locks. There may be another copy in the process, a plugin's, whose handlers run
   before ours: taking the locks twice would never end. So who holds them is in a read section meanwhile, which all copies see. */
static bool urcu_is_held;

/* Who has it waits for no lock of liburcu, since a thread that forks in the other copy has these when it comes for this one. So the thread
   is known to liburcu first: registering takes one (and a second one that liburcu's fork handlers do not cover). */
static void take_lock(void)
{
    urcu_bp_read_lock();
    urcu_bp_read_unlock();
    pthread_mutex_lock(&lock);
}

/* The parent's threads are not in the child, but their read sections are in liburcu's registry: its fork handlers prune them.
   The child must not keep the parent's lock descriptor, or a dead parent would look alive. */
static void before_fork(void)
{
    take_lock();
    urcu_is_held = !urcu_bp_read_ongoing();
    if (urcu_is_held) {
        urcu_bp_before_fork();
        urcu_bp_read_lock();
    }
    idem_lane_before_fork(); /* after liburcu's locks: a thread in a read section may wait for this one */
    idem_logs_before_fork();
}

static void after_fork_in_parent(void)
{
    idem_logs_after_fork(false);
    idem_lane_after_fork(false);
    if (urcu_is_held) {
        urcu_bp_read_unlock();
        urcu_bp_after_fork_parent();
    }
    pthread_mutex_unlock(&lock);
}

static void after_fork_in_child(void)
{
    idem_logs_after_fork(true);
    idem_lane_after_fork(true);
    if (urcu_is_held) {
        urcu_bp_read_unlock();
        urcu_bp_after_fork_child();
    }
    for (struct idem_store *s = handles; s != NULL; s = s->next) {
        close(s->view->process.fd);
        s->view->process.fd = -1;
        s->view->process.owner = 0;
        store_relaxed(&s->view->pins, 1); /* relaxed: who waits for the disk is not in this process */
    }
    pthread_mutex_unlock(&lock);
}

static int watch_forks(void)
{
    static bool watching;
    if (watching)
        return IDEM_OK;
    int e = idem_fork_watch();
    if (e != IDEM_OK)
        return e;
    if (pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0)
        return idem_fail(IDEM_E_MEMORY, "pthread_atfork: no memory");
    watching = true;
    return IDEM_OK;
}

static int fill_log_options(idem_options *o)
{
    if (o->durability_claim > IDEM_DURABILITY_SYNC || o->durability_complete > IDEM_DURABILITY_SYNC)
        return idem_fail(IDEM_E_INVALID, "options.durability_claim, durability_complete: unknown value");
    if (o->wal_dir == NULL) {
        if (o->durability_claim > IDEM_DURABILITY_NONE || o->durability_complete > IDEM_DURABILITY_NONE)
            return idem_fail(IDEM_E_INVALID, "options.durability: async and sync need a log; set options.wal_dir");
        return IDEM_OK;
    }
    if (o->wal_dir[0] != '/' || strlen(o->wal_dir) >= IDEM_WAL_DIR_BYTES)
        return idem_fail(IDEM_E_INVALID, "options.wal_dir: an absolute path of at most %u bytes is wanted",
                         IDEM_WAL_DIR_BYTES - 1);
    if (o->durability_claim == IDEM_DURABILITY_DEFAULT)
        o->durability_claim = IDEM_DURABILITY_ASYNC;
    if (o->durability_complete == IDEM_DURABILITY_DEFAULT)
        o->durability_complete = IDEM_DURABILITY_SYNC;
    if (o->flush_interval_ms == 0)
        o->flush_interval_ms = FLUSH_DEFAULT_MS;
    if (o->log_wait_ms == 0)
        o->log_wait_ms = LOG_WAIT_DEFAULT_MS;
    if (o->wal_file_bytes == 0)
        o->wal_file_bytes = FILE_DEFAULT_BYTES;
    if (o->wal_ring_refs == 0)
        o->wal_ring_refs = RING_DEFAULT_REFS;
    return idem_log_options_check(o);
}

int idem_log_options_check(const idem_options *o)
{
    if (o->flush_interval_ms < 1 || o->flush_interval_ms > 10000)
        return idem_fail(IDEM_E_INVALID, "options.flush_interval_ms: %u; 1 to 10000", o->flush_interval_ms);
    if (o->log_wait_ms < 100 || o->log_wait_ms > 600000)
        return idem_fail(IDEM_E_INVALID, "options.log_wait_ms: %u; 100 to 600000", o->log_wait_ms);
    if (o->wal_file_bytes < 1 << 20 || o->wal_file_bytes > 1 << 30 || o->wal_file_bytes % 4096 != 0)
        return idem_fail(IDEM_E_INVALID, "options.wal_file_bytes: %llu; 1 MiB to 1 GiB, in steps of 4096",
                         (unsigned long long)o->wal_file_bytes);
    if (o->wal_ring_refs < 64 || o->wal_ring_refs > 65536 || (o->wal_ring_refs & (o->wal_ring_refs - 1)) != 0)
        return idem_fail(IDEM_E_INVALID, "options.wal_ring_refs: %llu; a power of two, 64 to 65536",
                         (unsigned long long)o->wal_ring_refs);
    return IDEM_OK;
}

int idem_options_check(const idem_options *o)
{
    if ((o->flags & ~31u) != 0 || o->huge > IDEM_HUGE_OFF || o->when_full > IDEM_FULL_EVICT)
        return idem_fail(IDEM_E_INVALID, "options.flags, huge or when_full: unknown value");
    if (o->keys < 16 || o->keys > KEYS_MAX)
        return idem_fail(IDEM_E_INVALID, "options.keys: %llu; 16 to %llu", (unsigned long long)o->keys,
                         (unsigned long long)KEYS_MAX);
    if (o->response_bytes > RESPONSE_MAX)
        return idem_fail(IDEM_E_INVALID, "options.response_bytes: %u; at most %u", o->response_bytes, RESPONSE_MAX);
    if (o->total_bytes > TOTAL_MAX_BYTES)
        return idem_fail(IDEM_E_INVALID, "options.total_bytes: %llu; at most %llu", (unsigned long long)o->total_bytes,
                         (unsigned long long)TOTAL_MAX_BYTES);
    if (o->ttl_ms < 1 || (o->ttl_ms > IDEM_TTL_MAX_MS && o->ttl_ms != IDEM_FOREVER))
        return idem_fail(IDEM_E_INVALID, "options.ttl_ms: %lld; 1 to %lld, or IDEM_FOREVER", (long long)o->ttl_ms,
                         (long long)IDEM_TTL_MAX_MS);
    if (o->lease_ms < 1 || o->lease_ms > IDEM_LEASE_MAX_MS)
        return idem_fail(IDEM_E_INVALID, "options.lease_ms: %lld; 1 to %lld", (long long)o->lease_ms,
                         (long long)IDEM_LEASE_MAX_MS);
    if (o->processes > IDEM_PROCESSES_MAX || o->lanes > IDEM_LANES_MAX)
        return idem_fail(IDEM_E_INVALID, "options.processes, lanes: at most %u and %u", IDEM_PROCESSES_MAX,
                         IDEM_LANES_MAX);
    if (o->group < 0 || o->group > (INT64_C(1) << 32) - 1)
        return idem_fail(IDEM_E_INVALID, "options.group: %lld; a gid plus 1, or 0 for none", (long long)o->group);
    return IDEM_OK;
}

static int fill_options(const idem_options *given, idem_options *o)
{
    memset(o, 0, sizeof *o);
    if (given != NULL) {
        if (given->size < offsetof(idem_options, keys) || given->size > sizeof *o)
            return idem_fail(IDEM_E_INVALID, "options.size: %zu; initialise with IDEM_OPTIONS_INIT", given->size);
        memcpy(o, given, given->size);
    }
    o->size = sizeof *o;
    if (o->keys == 0)
        o->keys = KEYS_DEFAULT;
    if (o->response_bytes == 0)
        o->response_bytes = 512;
    if (o->ttl_ms == 0)
        o->ttl_ms = TTL_DEFAULT_MS;
    if (o->lease_ms == 0)
        o->lease_ms = LEASE_DEFAULT_MS;
    if (o->processes == 0)
        o->processes = 512;
    if (o->lanes == 0)
        o->lanes = 2048;
    int e = idem_options_check(o);
    return e == IDEM_OK ? fill_log_options(o) : e;
}

/* This process's part of the store's log. The handle's options become the log's, for a store that a reopen has to make of it. */
static int attach_log(struct idem_store *s, struct idem_view *v)
{
    const char *wanted = s->options.wal_dir;
    if (wanted != NULL && (v->rings == NULL || strcmp(wanted, v->log.wal_dir) != 0))
        return idem_fail(IDEM_E_INVALID, "options.wal_dir: %s, but the store at %s %s%s", wanted, s->path,
                         v->rings == NULL ? "has no log" : "has its log at ", v->rings == NULL ? "" : v->log.wal_dir);
    if (v->rings == NULL)
        return IDEM_OK;
    struct idem_log_source source = idem_source_of(v);
    struct idem_file_rec header;
    idem_logdir_header(&v->fixed, &v->log, &header);
    int e = idem_log_attach(v->log.wal_dir, v->root->log_control, &source, &header, v->log.flush_interval_ms,
                            v->log.log_wait_ms, &v->wal);
    if (e == IDEM_OK && (s->options.flags & IDEM_OPEN_NO_FLUSHER) == 0)
        e = idem_log_flusher_start(v->wal);
    if (e != IDEM_OK)
        return e;
    memcpy(s->wal_dir, v->log.wal_dir, sizeof s->wal_dir);
    s->options.wal_dir = s->wal_dir;
    s->options.durability_claim = v->log.durability_claim;
    s->options.durability_complete = v->log.durability_complete;
    s->options.flush_interval_ms = v->log.flush_interval_ms;
    s->options.log_wait_ms = v->log.log_wait_ms;
    s->options.wal_file_bytes = v->log.file_bytes;
    s->options.wal_ring_refs = v->log.ring_refs;
    return IDEM_OK;
}

/* After a raw clone the flusher is the parent's alone: there is no thread to wait for. */
static void close_view(struct idem_view *v)
{
    if (v->wal != NULL && v->process.epoch != idem_fork_epoch())
        idem_log_leave_to_parent(v->wal);
    else if (v->wal != NULL)
        idem_log_flusher_stop(v->wal);
    idem_lane_forget(v);
    idem_view_close(v);
}

/* The last one to have a store open leaves nobody behind who would write what its threads pushed. Without the lock: the disk is waited for. What the
   log fails at is told by idem_stats(). relaxed: no thread is inside a call. */
static void drain(const struct idem_view *v)
{
    uint64_t owed = load_relaxed(&v->owed);                                           /* relaxed: as above */
    bool gone = load_relaxed(&v->root->dead) != 0 || load_relaxed(&v->poisoned) != 0; /* relaxed: as above */
    if (v->wal != NULL && owed != OWED_NOTHING && !gone && !IDEM_FAULT("log.undrained") &&
        v->process.epoch == idem_fork_epoch())
        (void)idem_log_wait_all(v->wal, owed == OWED_WALK, 0);
}

/* Who got another view of the same store has pushed through the old one, too: the queues are the store's. relaxed: as above, or with the lock. */
static void inherit(struct idem_view *to, const struct idem_view *from)
{
    uint64_t owed = load_relaxed(&from->owed), seen = load_relaxed(&to->owed); /* relaxed: as above */
    while (seen < owed && !cas_relaxed(&to->owed, &seen, owed))                /* relaxed: as above */
        ;
}

int idem_exclusively(int (*fn)(void *ctx), void *ctx)
{
    take_lock();
    int e = watch_forks();
    if (e == IDEM_OK)
        e = fn(ctx);
    pthread_mutex_unlock(&lock);
    return e;
}

/* A store that is gone but has a log comes back from it; only where no log was ever written a new one is made. */
static int open_view(const char *path, const idem_options *o, struct idem_view **view)
{
    if (o->wal_dir == NULL || (o->flags & IDEM_OPEN_CREATE) == 0)
        return idem_view_open(path, o, view);
    idem_options attach = *o;
    attach.flags &= ~(uint32_t)IDEM_OPEN_CREATE;
    if (o->flags & IDEM_OPEN_EXCLUSIVE) { /* a new one, not what a log brings back: it may be another store's */
        int made = idem_view_open(path, o, view);
        return made != IDEM_VIEW_HAS_LOG
                   ? made
                   : idem_fail(IDEM_E_EXISTS,
                               "%s: the log of a store; idem recover brings that back (then idem destroy "
                               "ends both), a new store needs a directory of its own",
                               o->wal_dir);
    }
    int e = idem_view_open(path, &attach, view);
    if (e != IDEM_E_NO_STORE)
        return e;
    idem_recovery r = IDEM_RECOVERY_INIT;
    r.dir = path;
    r.wal_dir = o->wal_dir;
    e = idem_rebuild(o, &r);
    if (e == IDEM_OK || e == IDEM_E_EXISTS) /* or somebody was faster */
        return idem_view_open(path, &attach, view);
    return e == IDEM_E_NO_STORE ? idem_view_open(path, o, view) : e;
}

/* Somebody who made a log there may have been faster, and died before his root was there. */
static int open_logged_view(struct idem_store *s, const idem_options *o, struct idem_view **view)
{
    int e = IDEM_VIEW_HAS_LOG;
    for (unsigned tries = 0; e == IDEM_VIEW_HAS_LOG && tries < HAS_LOG_TRIES; tries++)
        e = open_view(s->path, o, view);
    if (e == IDEM_VIEW_HAS_LOG)
        return idem_fail(IDEM_E_LOG, "%s: a log that comes and goes; who else makes stores with it?", o->wal_dir);
    if (e != IDEM_OK)
        return e;
    e = attach_log(s, *view);
    if (e != IDEM_OK) {
        int kept = errno;
        close_view(*view);
        *view = NULL;
        errno = kept;
    }
    return e;
}

static int open_handle(const char *dir, const idem_options *options, idem_store **store)
{
    if (store == NULL)
        return idem_fail(IDEM_E_INVALID, "store: NULL");
    *store = NULL;
    struct idem_store *s = calloc(1, sizeof *s);
    if (s == NULL)
        return idem_fail(IDEM_E_MEMORY, "no memory for a handle");
    int e = fill_options(options, &s->options);
    if (e == IDEM_OK)
        e = idem_path_resolve(dir, s->options.flags & IDEM_OPEN_CREATE, s->path);
    if (e != IDEM_OK)
        goto fail;
    /* With the lock: a fork by another thread finds the descriptor in the list, or not open yet. */
    take_lock();
    e = watch_forks();
    if (e == IDEM_OK) {
        store_relaxed(&s->fork_epoch, idem_fork_acknowledge()); /* relaxed: nobody else has the handle yet */
        e = open_logged_view(s, &s->options, &s->view);
    }
    if (e == IDEM_OK) {
        s->options.flags &= ~(uint32_t)IDEM_OPEN_EXCLUSIVE; /* it was about this open, not about a reopen */
        s->next = handles;
        handles = s;
    }
    pthread_mutex_unlock(&lock);
    if (e != IDEM_OK)
        goto fail;
    *store = s;
    return IDEM_OK;
fail:
    free(s);
    return e;
}

int idem_open(const char *dir, const idem_options *options, idem_store **store)
{
    int cancel = idem_cancel_defer();
    int e = open_handle(dir, options, store);
    idem_cancel_restore(cancel);
    return e;
}

void idem_close(idem_store *store)
{
    if (store == NULL)
        return;
    int cancel = idem_cancel_defer();
    drain(store->view);
    take_lock();
    for (struct idem_store **at = &handles; *at != NULL; at = &(*at)->next)
        if (*at == store) {
            *at = store->next;
            break;
        }
    close_view(store->view);
    pthread_mutex_unlock(&lock);
    idem_cancel_restore(cancel);
    free(store);
}

static int destroy(void *path)
{
    return idem_view_destroy(path);
}

/* With the lock: a child forked meanwhile would keep the directories' locks. */
int idem_destroy(const char *dir)
{
    char path[IDEM_PATH_MAX];
    int cancel = idem_cancel_defer();
    int e = idem_path_resolve(dir, false, path);
    if (e == IDEM_OK)
        e = idem_exclusively(destroy, path);
    idem_cancel_restore(cancel);
    return e;
}

/* Why a handle needs another view. */
enum trouble {
    MAYBE_STALE, /* the path may lead to another store, or none */
    FORKED,      /* a child: it needs a registration of its own */
    SLOT_LOST    /* others took us for dead (a host that closes foreign descriptors), our slot is not ours any more */
};

/* With the lock held, outside of a read section. A view is never changed, but for another one. The lock is not held while the grace period
   lasts: a child forked then keeps the old view's descriptor until it ends, a dead store's or a lost slot's. */
static int reopen(struct idem_store *s, enum trouble trouble)
{
    struct idem_view *old = s->view, *fresh;
    bool stale = idem_view_stale(old, s->path);
    idem_options options = s->options;
    if (!stale && trouble == MAYBE_STALE)
        return IDEM_OK; /* another thread was faster */
    if (!stale)
        options.flags &= ~(uint32_t)IDEM_OPEN_CREATE;
    else if (s->options.flags & IDEM_OPEN_FAIL_STALE)
        return idem_fail(IDEM_E_STALE, "%s: the store was removed or replaced; close the handle and open it again",
                         s->path);
    int e = open_logged_view(s, &options, &fresh);
    if (e == IDEM_E_NO_STORE)
        return idem_fail(IDEM_E_STALE, "%s: the store was removed and there is no new one yet", s->path);
    if (e != IDEM_OK)
        return e;
    rcu_assign_pointer(s->view, fresh);               /* P10 release: the view is complete */
    store_relaxed(&s->fork_epoch, idem_fork_epoch()); /* relaxed: under the lock */
    pthread_mutex_unlock(&lock);                      /* see take_lock() */
    urcu_bp_synchronize_rcu();
    take_lock();
    if (!stale && old->process.epoch == idem_fork_epoch()) /* else it was another store, or another process */
        inherit(s->view, old);
    close_view(old);
    return IDEM_OK;
}

static int slow_enter(struct idem_store *s, enum trouble trouble)
{
    int cancel = idem_cancel_defer();
    take_lock();
    int e = IDEM_OK;
    uint64_t epoch = idem_fork_acknowledge();
    bool forked = load_relaxed(&s->fork_epoch) != epoch; /* relaxed: under the lock */
    if (forked || trouble == MAYBE_STALE || idem_view_lost(s->view))
        e = reopen(s, forked ? FORKED : trouble);
    if (e == IDEM_OK)
        store_relaxed(&s->fork_epoch, epoch); /* relaxed: under the lock */
    pthread_mutex_unlock(&lock);
    idem_cancel_restore(cancel);
    return e;
}

static int pages_missing(const struct idem_store *s)
{
    return idem_fail(IDEM_E_CORRUPT,
                     "%s: pages of the store's files are missing (truncated?); destroy it and create it anew", s->path);
}

int idem_enter(struct idem_store *s, struct idem_op *op)
{
    if (unlikely(s == NULL))
        return idem_fail(IDEM_E_INVALID, "store: NULL");
    op->store = s;
    op->ctx.ticket = 0;
    for (;;) {
        if (unlikely(idem_fork_epoch() != load_relaxed(&s->fork_epoch))) { /* relaxed: see process.h */
            int e = slow_enter(s, FORKED);
            if (e != IDEM_OK)
                return e;
        }
        struct idem_view *v = idem_enter_view(s);
        if (unlikely(idem_view_lost(v))) {
            idem_read_unlock();
            int e = slow_enter(s, SLOT_LOST);
            if (e != IDEM_OK)
                return e;
            continue;
        }
        int64_t now_ms = idem_view_now_ms(v);
        uint64_t checked = load_relaxed(&v->checked_ms); /* relaxed: a time of day, any recent one will do */
        bool dead = load_relaxed(&v->root->dead) != 0;   /* relaxed: a flag that stays set */
        if (unlikely(dead || now_ms - (int64_t)checked >= IDEM_STALE_CHECK_MS)) {
            bool stale = idem_view_stale(v, s->path);
            store_relaxed(&v->checked_ms,
                          stale ? 0 : (uint64_t)now_ms); /* relaxed: as above; 0: look again next time */
            if (stale) {
                idem_read_unlock();
                int e = slow_enter(s, MAYBE_STALE);
                if (e != IDEM_OK)
                    return e;
                continue;
            }
        }
        int e = load_relaxed(&v->poisoned) != 0 /* relaxed: set by a signal in a thread that will tell by itself */
                    ? pages_missing(s)
                    : idem_lane_enter(v, &op->ctx);
        if (unlikely(e != IDEM_OK)) {
            idem_read_unlock();
            return e;
        }
        return IDEM_OK;
    }
}

int idem_leave(struct idem_op *op, int result)
{
    struct idem_ctx *ctx = &op->ctx;
    idem_arena_leave(ctx);
    if (unlikely(idem_lane_owes(ctx->lane)))
        idem_sweep_share(ctx);
    if (unlikely(load_relaxed(&ctx->v->poisoned) != 0)) /* relaxed: as in idem_enter */
        result = pages_missing(op->store);
    idem_read_unlock();
    return result;
}

int idem_owner_fd(idem_store *store)
{
    struct idem_op op;
    int e = idem_enter(store, &op);
    return e != IDEM_OK ? e : idem_leave(&op, op.ctx.v->process.fd);
}

const char *idem_path(idem_store *store)
{
    return store == NULL ? "" : store->path;
}

int idem_key_prepare(const struct idem_view *v, const idem_key *key, uint8_t bytes[IDEM_KEY_MAX],
                     struct idem_index_key *out)
{
    if (key->key == NULL || key->key_bytes == 0 || (key->scope == NULL && key->scope_bytes != 0))
        return idem_fail(IDEM_E_INVALID, "key: empty, or NULL with a length; a key has at least one byte");
    if (key->key_bytes > IDEM_KEY_MAX || key->scope_bytes > IDEM_KEY_MAX - key->key_bytes)
        return idem_fail(IDEM_E_INVALID, "key: scope and key have %zu bytes, at most %u are allowed; hash longer ones",
                         key->scope_bytes + key->key_bytes, IDEM_KEY_MAX);
    if (key->scope_bytes == 0) {
        out->framed = key->key;
    } else {
        memcpy(bytes, key->scope, key->scope_bytes);
        memcpy(bytes + key->scope_bytes, key->key, key->key_bytes);
        out->framed = bytes;
    }
    out->scope_bytes = (uint32_t)key->scope_bytes;
    out->key_bytes = (uint32_t)(key->scope_bytes + key->key_bytes);
    out->hash = idem_hash_key(v->fixed.secret, out->framed, out->key_bytes, out->scope_bytes);
    return IDEM_OK;
}

static void nap(int64_t ms)
{
    struct idem_a64 nobody = {0};
    idem_futex_wait(&nobody, 0, ms);
}

static bool let_holder_run(struct idem_ctx *ctx)
{
    struct idem_view *v = ctx->v;
    uint64_t second = (uint64_t)idem_view_now_ms(v) / 1000,
             word = load_relaxed(&v->naps); /* relaxed: a count for thrift */
    uint64_t naps = word >> 8 == second ? word & UINT8_MAX : 0;
    if (naps >= NAPS_A_SECOND || IDEM_FAULT("room.unwaited") || !idem_arena_held(ctx))
        return false;
    store_relaxed(&v->naps, second << 8 | (naps + 1)); /* relaxed: as above */
    nap(NAP_MS);
    return true;
}

/* In a small store all answers that may go can be of this very millisecond, whose tokens are not free yet: in the next one they are. */
static bool let_tick_pass(const struct idem_view *v)
{
    uint64_t young_ms = load_relaxed(&v->young_ms); /* relaxed: a hint, mostly of this thread's own */
    if (young_ms == 0 || young_ms + 1 < (uint64_t)idem_view_now_ms(v))
        return false;
    nap(1);
    return true;
}

bool idem_make_room(struct idem_ctx *ctx, bool may_wait)
{
    const struct idem_a64 *swept = &ctx->lane->counters[COUNT_SWEPT_REGIONS];
    uint64_t before = load_relaxed(swept); /* relaxed: the lane's own */
    /* What is empty already, and was not seen yet, costs no pass, and nothing has to move for it, or be evicted. */
    struct idem_survey survey = {0};
    uint32_t at = 0;
    if (!IDEM_FAULT("room.hasty"))
        idem_arena_recycle(ctx, &at, ctx->v->region_count, 0, idem_view_now_ms(ctx->v), &survey);
    if (load_relaxed(swept) != before) /* relaxed: as above */
        return true;
    bool evict = ctx->v->fixed.when_full == IDEM_FULL_EVICT || IDEM_FAULT("full.evicts");
    bool evicting = evict && idem_arena_evict_one(ctx);
    idem_arena_leave(ctx);
    bool more = idem_sweep(ctx, MAKE_ROOM_US, 2);
    if (evict && may_wait && let_tick_pass(ctx->v))
        return true;
    return more || evicting || load_relaxed(swept) != before || /* relaxed: as above */
           (may_wait && let_holder_run(ctx));
}
