/*
 * sync.c - see sync.h.
 *
 * The store lies where the caller says, its log and the control's file in his directory on the disk. If we die here: they stay there
 * (whoever made the directories removes them); the workers get SIGKILL from the kernel.
 */
#include "sync.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "idem.h"
#include "keys.h"
#include "place.h"

enum { CLAIM_BYTES = 192, /* a claim of such a key in the log, and its share of a batch's header */ BATCH_MAX = 1024 };

#define STORE_KEYS      UINT64_C(600000)
#define STORE_KEYS_MANY UINT64_C(2400000) /* where MANY or more are outstanding: no waits, or few */
#define MANY            1024u
#define ROOM_BYTES \
    (UINT64_C(192) << 20) /* for each side without a log: never written before, as the log's; else a sync is cheaper */
#define KEYS_EACH (UINT64_C(1) << 32)

struct turn {
    uint64_t end_ns;
    uint64_t done, cpu_ns, from_ns, to_ns;
};

struct shared {
    uint64_t asked, durable; /* the control's: claims asked for, claims on the disk */
    uint32_t wake;
    uint64_t at[SYNC_CLAIMS]; /* where each of the two sides without a log is in its part of their file */
    uint64_t claims;
    struct turn turns[SYNC_TURNS_MAX + 1][SYNC_SIDES];
};

struct plan {
    const struct sync_wish *wish;
    struct shared *m;
    char control[PATH_MAX], wal[PATH_MAX];
};

struct worker {
    struct harness *h;
    const struct plan *plan;
    struct shared *m;
    unsigned me;
    int lock_fd, fd;
    char *zeros;
    idem_store *store;
    uint64_t next; /* key */
    unsigned char keys[BATCH_MAX * KEY_BYTES];
    idem_request requests[BATCH_MAX];
    idem_result results[BATCH_MAX];
};

static int wrong(struct worker *w, const char *call, int got)
{
    return harness_fail(w->h, "%s said %d (%s): %s", call, got, idem_strerror(got), idem_error_detail());
}

/* ------------------------------------------------------------------ the sides */

static int write_and_sync(struct worker *w, enum sync_side side, uint64_t claims)
{
    size_t n = claims * CLAIM_BYTES;
    uint64_t at = __atomic_fetch_add(&w->m->at[side], n, __ATOMIC_SEQ_CST);
    if (at + n > ROOM_BYTES)
        return harness_fail(w->h, "the file of the sides without a log is full");
    if (pwrite(w->fd, w->zeros, n, (off_t)(side * ROOM_BYTES + at)) != (ssize_t)n || fdatasync(w->fd) != 0)
        return harness_fail(w->h, "writing the file of the sides without a log: %s", strerror(errno));
    return 0;
}

static int flush_one(struct worker *w)
{
    return write_and_sync(w, SYNC_FLUSH, (uint64_t)w->plan->wish->workers * w->plan->wish->batch);
}

/* Flushes of many claims, and a control of many, would soon have written their whole room: a turn has a share of it. */
static bool wrote_enough(const struct worker *w, enum sync_side side, unsigned number)
{
    return side != SYNC_CLAIMS && __atomic_load_n(&w->m->at[side], __ATOMIC_SEQ_CST) >=
                                      (number + 1) * (ROOM_BYTES / (w->plan->wish->turns + 2));
}

static int control_one(struct worker *w)
{
    struct shared *m = w->m;
    uint64_t mine = __atomic_add_fetch(&m->asked, w->plan->wish->batch, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&m->durable, __ATOMIC_SEQ_CST) < mine) {
        uint32_t wake = __atomic_load_n(&m->wake, __ATOMIC_SEQ_CST);
        struct flock f = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
        if (fcntl(w->lock_fd, F_OFD_SETLK, &f) == 0) {
            uint64_t from = __atomic_load_n(&m->durable, __ATOMIC_SEQ_CST);
            uint64_t to = __atomic_load_n(&m->asked, __ATOMIC_SEQ_CST);
            if (to > from) {
                if (write_and_sync(w, SYNC_CONTROL, to - from) != 0)
                    return -1;
                __atomic_store_n(&m->durable, to, __ATOMIC_SEQ_CST);
            }
            f.l_type = F_UNLCK;
            fcntl(w->lock_fd, F_OFD_SETLK, &f);
            __atomic_add_fetch(&m->wake, 1, __ATOMIC_SEQ_CST);
            syscall(SYS_futex, &m->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
        } else {
            struct timespec t = {.tv_nsec = 100000000};
            syscall(SYS_futex, &m->wake, FUTEX_WAIT, wake, &t, NULL, 0);
        }
    }
    return 0;
}

static int claim_one(struct worker *w)
{
    unsigned n = w->plan->wish->batch;
    for (unsigned i = 0; i < n; i++)
        key_text(w->me * KEYS_EACH + w->next++, w->keys + i * KEY_BYTES);
    if (n == 1) {
        int got = idem_begin(w->store, &w->requests[0], &w->results[0].claim, NULL);
        return got == IDEM_CLAIMED ? 0 : wrong(w, "idem_begin", got);
    }
    int got = idem_begin_many(w->store, w->requests, n, w->results);
    if (got != IDEM_OK)
        return wrong(w, "idem_begin_many", got);
    for (unsigned i = 0; i < n; i++)
        if (w->results[i].verdict != IDEM_CLAIMED)
            return wrong(w, "idem_begin_many of a new key", w->results[i].verdict);
    return 0;
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
    struct timespec t = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static int run_turn(struct worker *w, enum sync_side side, unsigned number)
{
    static int (*const one[SYNC_SIDES])(struct worker *) = {flush_one, control_one, claim_one};
    struct turn *turn = &w->m->turns[number][side];
    struct hist *latency = &harness_series(w->h, w->me, side)->latency;
    unsigned each = side == SYNC_FLUSH ? 1 : w->plan->wish->batch;
    if (w->me == 0) {
        turn->from_ns = harness_now_ns();
        __atomic_store_n(&turn->end_ns, turn->from_ns + w->plan->wish->turn_ms * UINT64_C(1000000), __ATOMIC_SEQ_CST);
    }
    if (harness_barrier(w->h) != 0)
        return -1;
    uint64_t end_ns = __atomic_load_n(&turn->end_ns, __ATOMIC_SEQ_CST), done = 0, before_ns = harness_now_ns();
    uint64_t cpu_before_ns = cpu_ns();
    if (side == SYNC_FLUSH && w->me != 0)
        sleep_until(end_ns);
    else
        while (before_ns < end_ns && !wrote_enough(w, side, number)) {
            if (one[side](w) != 0)
                return -1;
            uint64_t now_ns = harness_now_ns();
            if (number > 0)
                hist_add(latency, now_ns - before_ns);
            before_ns = now_ns;
            done += each;
        }
    if (w->me == 0)
        turn->to_ns = before_ns;
    __atomic_add_fetch(&turn->done, done, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&turn->cpu_ns, cpu_ns() - cpu_before_ns, __ATOMIC_SEQ_CST);
    if (side == SYNC_CLAIMS)
        __atomic_add_fetch(&w->m->claims, done, __ATOMIC_SEQ_CST);
    return harness_barrier(w->h);
}

/* ------------------------------------------------------------------ a worker's life */

static void prepare(struct worker *w)
{
    for (unsigned i = 0; i < BATCH_MAX; i++) {
        w->requests[i] = (idem_request)IDEM_REQUEST_INIT;
        w->requests[i].key.key = w->keys + i * KEY_BYTES;
        w->requests[i].key.key_bytes = KEY_BYTES;
        w->results[i] = (idem_result){.size = sizeof(idem_result), .claim = IDEM_CLAIM_INIT, .reply = IDEM_REPLY_INIT};
    }
}

static int turns(struct worker *w)
{
    for (unsigned number = 0; number <= w->plan->wish->turns; number++)
        for (unsigned i = 0; i < SYNC_SIDES; i++)
            if (run_turn(w, (number + i) % SYNC_SIDES, number) != 0)
                return -1;
    return 0;
}

static int work(struct harness *h, unsigned me, void *ctx)
{
    const struct plan *plan = ctx;
    idem_options o = IDEM_OPTIONS_INIT;
    struct worker *w = calloc(1, sizeof *w);
    if (w == NULL)
        return harness_fail(h, "no memory for a worker");
    *w = (struct worker){.h = h, .plan = plan, .m = plan->m, .me = me};
    prepare(w);
    o.flags = IDEM_OPEN_NO_FLUSHER;
    w->lock_fd = open(plan->control, O_RDWR | O_CLOEXEC);
    w->fd = open(plan->control, O_RDWR | O_CLOEXEC);
    w->zeros = calloc((size_t)plan->wish->workers * plan->wish->batch, CLAIM_BYTES);
    int result = -1;
    int got = idem_open(plan->wish->store, &o, &w->store);
    if (w->lock_fd < 0 || w->fd < 0 || w->zeros == NULL)
        harness_fail(h, "%s: %s", plan->control, strerror(errno));
    else if (got != IDEM_OK)
        wrong(w, "idem_open in a worker", got);
    else if (place_touch_files(plan->wish->store) != 0)
        harness_fail(h, "mapping all pages beforehand: %s", strerror(errno));
    else if (harness_barrier(h) == 0)
        result = turns(w);
    idem_close(w->store);
    return result;
}

/* ------------------------------------------------------------------ the parent's side */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, unsigned n)
{
    qsort(values, n, sizeof *values, by_size);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static double per_s(const struct turn *t)
{
    return (double)t->done * 1e9 / (double)(t->to_ns - t->from_ns);
}

static void add_up(const struct plan *plan, struct harness *h, struct sync_result *out)
{
    unsigned n = plan->wish->turns;
    double rates[SYNC_TURNS_MAX];
    for (unsigned side = 0; side < SYNC_SIDES; side++) {
        uint64_t done = 0, cpu = 0;
        for (unsigned i = 0; i < n; i++) {
            const struct turn *t = &plan->m->turns[i + 1][side];
            rates[i] = per_s(t);
            done += t->done;
            cpu += t->cpu_ns;
        }
        out->per_s[side] = median(rates, n);
        out->cpu_us[side] = done > 0 ? (double)cpu / 1000 / (double)done : 0;
        out->latency[side] = harness_sum(h, side).latency;
    }
    for (unsigned i = 0; i < n; i++)
        rates[i] = per_s(&plan->m->turns[i + 1][SYNC_CLAIMS]) / per_s(&plan->m->turns[i + 1][SYNC_CONTROL]);
    out->ratio = median(rates, n);
    out->least = rates[0];
    out->most = rates[n - 1];
}

/* What the store says was claimed and lies on the disk is what the workers were told. */
static void compare(const struct plan *plan, idem_store *store, struct sync_result *out)
{
    idem_stats_data s = {.size = sizeof s};
    int got = idem_stats(store, &s);
    if (got != IDEM_OK)
        snprintf(out->why, sizeof out->why, "idem_stats: %s", idem_error_detail());
    else if (s.claimed != plan->m->claims || s.log.records < s.claimed || s.log.durable != s.log.written)
        snprintf(out->why, sizeof out->why,
                 "%" PRIu64 " claims were given out; the store says %" PRIu64 ", of which %" PRIu64
                 " have a record on the disk",
                 plan->m->claims, s.claimed, s.log.records);
}

static int make_control(const struct plan *plan, struct sync_result *out)
{
    int fd = open(plan->control, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    errno = fd < 0 ? errno : posix_fallocate(fd, 0, (off_t)(ROOM_BYTES * SYNC_CLAIMS));
    if (errno == 0 && fsync(fd) == 0) {
        close(fd);
        return 0;
    }
    snprintf(out->why, sizeof out->why, "%.300s: %s", plan->control, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

static void run(struct plan *plan, struct sync_result *out)
{
    const struct sync_wish *wish = plan->wish;
    idem_options o = IDEM_OPTIONS_INIT;
    idem_store *store = NULL;
    struct harness *h = harness_create(wish->workers);
    o.flags = IDEM_OPEN_CREATE | IDEM_OPEN_EXCLUSIVE | IDEM_OPEN_NO_FLUSHER;
    o.keys = wish->workers * wish->batch < MANY ? STORE_KEYS : STORE_KEYS_MANY;
    o.response_bytes = 64;
    o.lease_ms = 600000;
    o.wal_dir = plan->wal;
    o.durability_claim = IDEM_DURABILITY_SYNC;
    int got = idem_open(wish->store, &o, &store);
    if (h == NULL)
        snprintf(out->why, sizeof out->why, "no memory for the control block");
    else if (got != IDEM_OK)
        snprintf(out->why, sizeof out->why, "a store with a log: %s: %s", idem_strerror(got), idem_error_detail());
    else if (harness_run(h, work, plan, 60 + wish->turns * SYNC_SIDES * wish->turn_ms / 250) != 0)
        snprintf(out->why, sizeof out->why, "%s", harness_error(h));
    else
        compare(plan, store, out);
    if (out->why[0] == '\0')
        add_up(plan, h, out);
    idem_close(store);
    if (got == IDEM_OK)
        idem_destroy(wish->store);
    harness_free(h);
}

void sync_rate(const struct sync_wish *wish, struct sync_result *out)
{
    struct plan plan = {.wish = wish};
    memset(out, 0, sizeof *out);
    if (wish->turns == 0 || wish->turns > SYNC_TURNS_MAX || wish->batch > BATCH_MAX) {
        snprintf(out->why, sizeof out->why, "sync: too many turns, or too large a batch");
        return;
    }
    plan.m = mmap(NULL, sizeof *plan.m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (plan.m == MAP_FAILED) {
        snprintf(out->why, sizeof out->why, "mmap: %s", strerror(errno));
        return;
    }
    snprintf(plan.control, sizeof plan.control, "%.3000s/control", wish->disk);
    snprintf(plan.wal, sizeof plan.wal, "%.3000s/log", wish->disk);
    if (make_control(&plan, out) == 0)
        run(&plan, out);
    unlink(plan.control);
    munmap(plan.m, sizeof *plan.m);
}
