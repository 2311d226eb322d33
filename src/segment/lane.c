/* segment/lane.c - see lane.h for the invariants. */
#include "segment/lane.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/point.h"

#define CACHED 8

_Thread_local struct idem_lane_cached *idem_lane_last __attribute__((tls_model("initial-exec")));

static _Thread_local struct idem_lane_cached *cache; /* CACHED of them; NULL: none yet */
static _Thread_local unsigned next_victim;

/* Views whose lanes may be given back: a thread that ends later than its view was closed must not touch it. */
static pthread_mutex_t live_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t live[2 * IDEM_PROCESSES_MAX];

static pthread_key_t thread_end;
static pthread_once_t thread_end_once = PTHREAD_ONCE_INIT;
static bool thread_end_works;

static bool is_live(uint64_t serial)
{
    for (size_t i = 0; i < sizeof live / sizeof live[0]; i++)
        if (live[i] == serial)
            return true;
    return false;
}

static void give_back(struct idem_lane_cached *c)
{
    if (c->serial == 0)
        return;
    pthread_mutex_lock(&live_lock);
    if (is_live(c->serial) && idem_lane_kept(c)) {
        uint64_t mine = c->owner;
        cas_acq_rel(&c->lane->owner, &mine, 0); /* P8 release: everything this thread did in the lane */
    }
    pthread_mutex_unlock(&live_lock);
    c->serial = 0;
}

static void at_thread_end(void *mine)
{
    struct idem_lane_cached *lanes = mine;
    for (unsigned i = 0; i < CACHED; i++)
        give_back(&lanes[i]);
    free(lanes);
    cache = idem_lane_last = NULL; /* a later destructor may come back for more */
}

static void make_key(void)
{
    thread_end_works = pthread_key_create(&thread_end, at_thread_end) == 0;
}

static void remember_live(uint64_t serial)
{
    pthread_mutex_lock(&live_lock);
    if (!is_live(serial))
        for (size_t i = 0; i < sizeof live / sizeof live[0]; i++)
            if (live[i] == 0) {
                live[i] = serial;
                break;
            }
    pthread_mutex_unlock(&live_lock);
}

void idem_lane_forget(const struct idem_view *v)
{
    pthread_mutex_lock(&live_lock);
    for (size_t i = 0; i < sizeof live / sizeof live[0]; i++)
        if (live[i] == v->serial)
            live[i] = 0;
    pthread_mutex_unlock(&live_lock);
}

static void raise_high(struct idem_view *v, uint64_t want)
{
    uint64_t high =
        load_relaxed(&v->root->lanes_high); /* relaxed: made visible by the seq_cst hazard that follows, see arena */
    while (high < want &&
           !cas_seq_cst(&v->root->lanes_high, &high, want)) /* P4 seq_cst: before this lane's first hazard */
        ;
}

static struct idem_lane_shm *try_take(struct idem_view *v, uint32_t i, bool from_dead)
{
    struct idem_lane_shm *lane = &v->lanes[i];
    uint64_t owner = load_acquire(&lane->owner); /* P8 acquire: what the last owner did */
    if (owner != 0 && (!from_dead || IDEM_FAULT("lane.kept") || !idem_process_dead(&v->process, owner)))
        return NULL;
    raise_high(v, i + 1);
    if (!cas_acq_rel(&lane->owner, &owner, v->process.owner)) /* P8 acquire: as above */
        return NULL;
    /* relaxed: only its owner changes it; it moves before a chunk does, so a former owner's private copies are worth nothing then */
    store_relaxed(&lane->tenancy, load_relaxed(&lane->tenancy) + 1);
    IDEM_POINT("lane.taken");
    /* Its last owner may have died between publishing an entry and pushing it. */
    if (v->rings != NULL && !IDEM_FAULT("log.clean") &&
        (load_acquire(&lane->hazard_write) != 0 ||  /* P11 acquire: its owner is dead */
         load_acquire(&lane->hazard_compare) != 0)) /* P11 acquire: as above */
        idem_log_want_walk(v->root->log_control);
    if (IDEM_FAULT("lane.forgiven"))
        store_relaxed(&lane->sweep, 0);      /* relaxed: a seeded fault */
    store_release(&lane->hazard_write, 0);   /* P11 release: the old owner is dead, its accesses are over */
    store_release(&lane->hazard_compare, 0); /* P11 release: as above */
    return lane;
}

/* Lanes that were used before come first, the dead ones' too: their chunks have room left. So a store that is used by one process
   after the other needs one lane. */
static struct idem_lane_shm *take(struct idem_view *v)
{
    uint64_t high = load_relaxed(&v->root->lanes_high); /* relaxed: a hint */
    uint32_t used = high < v->fixed.lanes_max ? (uint32_t)high : v->fixed.lanes_max;
    struct idem_lane_shm *lane = NULL;
    for (uint32_t i = 0; lane == NULL && i < used; i++)
        lane = try_take(v, i, false);
    for (uint32_t i = 0; lane == NULL && i < used; i++)
        lane = try_take(v, i, true);
    for (uint32_t i = used; lane == NULL && i < v->fixed.lanes_max; i++)
        lane = try_take(v, i, true);
    return lane;
}

void idem_lane_before_fork(void)
{
    pthread_mutex_lock(&live_lock);
}

void idem_lane_after_fork(bool child)
{
    if (child) { /* the lanes are the parent's */
        memset(live, 0, sizeof live);
        if (cache != NULL)
            memset(cache, 0, CACHED * sizeof *cache);
        idem_lane_last = NULL;
    }
    pthread_mutex_unlock(&live_lock);
}

static struct idem_lane_cached *find_cached(uint64_t serial)
{
    for (unsigned i = 0; i < CACHED && cache != NULL; i++)
        if (cache[i].serial == serial)
            return &cache[i];
    return NULL;
}

/* An empty place; what was in it is given back. Errors: NULL, no memory. */
static struct idem_lane_cached *empty_cached(void)
{
    pthread_once(&thread_end_once, make_key);
    if (cache == NULL) {
        cache = calloc(CACHED, sizeof *cache);
        if (cache != NULL && thread_end_works)
            pthread_setspecific(thread_end, cache);
    }
    if (cache == NULL)
        return NULL;
    struct idem_lane_cached *c = &cache[next_victim++ % CACHED];
    give_back(c);
    return c;
}

int idem_lane_enter(struct idem_view *v, struct idem_ctx *ctx)
{
    struct idem_lane_cached *c = find_cached(v->serial);
    idem_lane_last = c;
    if (idem_lane_enter_last(v, ctx))
        return IDEM_OK;
    if (c == NULL)
        c = empty_cached();
    if (c == NULL)
        return idem_fail(IDEM_E_MEMORY, "no memory for a thread's lanes");
    c->serial = 0;
    struct idem_lane_shm *lane = take(v);
    if (lane == NULL)
        return idem_fail(IDEM_E_FULL,
                         "root: all %u lanes are in use; use fewer threads, or create the store with more `lanes`",
                         v->fixed.lanes_max);
    remember_live(v->serial);
    *c = (struct idem_lane_cached){.serial = v->serial,
                                   .view = v,
                                   .lane = lane,
                                   .owner = v->process.owner,
                                   .tenancy = load_relaxed(&lane->tenancy)}; /* relaxed: our own store */
    idem_lane_last = c;
    return idem_lane_enter_last(v, ctx)
               ? IDEM_OK
               : idem_fail(IDEM_E_FULL,
                           "root: a lane was lost as soon as it was taken: the host closes idem's descriptors");
}
