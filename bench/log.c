/*
 * log.c - see log.h.
 *
 * Stores lie in /dev/shm, logs in the given directory. If we die here: both are left, named bench-log-PID.
 */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "idem.h"

#define TURN_NS     INT64_C(250000000)
#define WARM_NS     INT64_C(5000000000) /* more than a key's life: answers expire, regions are used again */
#define BODY_BYTES  128u
#define MAX_WORKERS 64
#define TURNS       20 /* of each */
#define WARM_TURNS  5  /* before those: a worker's page tables, the log's second file */
#define COUNT_KEYS  2000u

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "bench: log: %s: %s\n", what, idem_error_detail());
    exit(2);
}

static void name_all(const char *disk, char plain[PATH_MAX], char logged[PATH_MAX], char wal[PATH_MAX])
{
    snprintf(plain, PATH_MAX, "/dev/shm/bench-log-%ld-plain", (long)getpid());
    snprintf(logged, PATH_MAX, "/dev/shm/bench-log-%ld", (long)getpid());
    if ((size_t)snprintf(wal, PATH_MAX, "%s/bench-log-%ld", disk, (long)getpid()) > PATH_MAX - 64)
        die(disk);
}

/* What idem_destroy() leaves of a log: whose it was. */
static void remove_log(const char *wal)
{
    char id[PATH_MAX + 8];
    snprintf(id, sizeof id, "%s/id", wal);
    unlink(id);
    rmdir(wal);
}

static idem_store *make_store(const char *dir, const char *wal, unsigned claim, unsigned complete, uint64_t keys)
{
    idem_options o = IDEM_OPTIONS_INIT;
    idem_store *s;
    o.flags = IDEM_OPEN_CREATE;
    o.keys = keys;
    o.response_bytes = BODY_BYTES;
    o.ttl_ms = 4000; /* so that the store is in a steady state soon */
    o.lanes = 128;
    if (wal != NULL) {
        o.wal_dir = wal;
        o.durability_claim = claim;
        o.durability_complete = complete;
        o.wal_ring_refs = 65536;
    }
    if (idem_open(dir, &o, &s) != IDEM_OK)
        die("open");
    return s;
}

/* ------------------------------------------------------------------ async */

struct side {
    idem_store *store;
    uint64_t n, keys;
    int64_t cpu_ns;
};

static void turn(struct side *s, uint64_t rate)
{
    static char body[BODY_BYTES];
    int64_t from = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    int64_t now = from;
    uint64_t first = s->n;
    idem_request rq = IDEM_REQUEST_INIT;
    idem_response rs = IDEM_RESPONSE_INIT;
    char key[40];
    rs.body = body;
    rs.body_bytes = sizeof body;
    rq.key.key = key;
    for (uint64_t due = 0; now - from < TURN_NS; now = clock_ns(CLOCK_MONOTONIC)) {
        due = (uint64_t)(now - from) * rate / 1000000000;
        for (; s->n - first < due; s->n++) {
            idem_claim c;
            rq.key.key_bytes = (size_t)snprintf(key, sizeof key, "key-%020llu-of-a-bench", (unsigned long long)s->n);
            if (idem_begin(s->store, &rq, &c, NULL) != IDEM_CLAIMED)
                die("begin");
            if (idem_complete(s->store, &c, &rs) < 0)
                die("complete");
            s->keys++;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    /* What the flusher still has to do for this turn is done in it. */
    if (idem_sync(s->store, 0) != IDEM_OK)
        die("sync");
    s->cpu_ns += clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
}

/* A store's figures depend by some 7 % on which memory it got: so fresh stores each round, made in turns in either order. */
void log_async(const char *disk, uint64_t rate, unsigned rounds, unsigned seconds, struct log_async_cost *out)
{
    char plain[PATH_MAX], logged[PATH_MAX], wal[PATH_MAX];
    name_all(disk, plain, logged, wal);
    memset(out, 0, sizeof *out);
    out->least = 1e9;
    for (unsigned round = 0; round < rounds; round++) {
        struct side a = {.store = NULL}, b = {.store = NULL};
        for (unsigned i = 0; i < 2; i++)
            if ((round + i) % 2 == 0)
                a.store = make_store(plain, NULL, 0, 0, 4000000);
            else
                b.store = make_store(logged, wal, IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_ASYNC, 4000000);
        int64_t end = clock_ns(CLOCK_MONOTONIC) + WARM_NS;
        while (clock_ns(CLOCK_MONOTONIC) < end) {
            turn(&a, rate);
            turn(&b, rate);
        }
        a.keys = b.keys = 0;
        a.cpu_ns = b.cpu_ns = 0;
        end = clock_ns(CLOCK_MONOTONIC) + (int64_t)seconds * 1000000000;
        while (clock_ns(CLOCK_MONOTONIC) < end) {
            turn(&a, rate);
            turn(&b, rate);
        }
        idem_stats_data st = {.size = sizeof st};
        if (idem_stats(b.store, &st) != IDEM_OK)
            die("stats");
        double without = (double)a.cpu_ns / (double)a.keys, with = (double)b.cpu_ns / (double)b.keys;
        out->ns_without += without / rounds;
        out->ns_with += with / rounds;
        if (with / without < out->least)
            out->least = with / without;
        if (with / without > out->most)
            out->most = with / without;
        out->queued += st.log.queued;
        out->walks += st.log.walks;
        idem_close(a.store);
        idem_close(b.store);
        idem_destroy(plain);
        idem_destroy(logged);
        remove_log(wal);
    }
}

/* ------------------------------------------------------------------ sync */

enum turn { TURN_NONE, TURN_CONTROL, TURN_OURS, TURN_END };
struct shared {
    uint32_t ready, over, wake;
    uint32_t turn; /* number (30, high) | enum turn */
    int64_t end_ns;
    uint64_t asked, durable; /* the control's: requests made, requests on the disk */
    uint64_t done[MAX_WORKERS], cpu_ns[MAX_WORKERS];
};

/* The control: what group commit costs without anything else. */
static void control_one(struct shared *m, int lock_fd, int fd, uint64_t bytes, char *buffer, uint64_t room)
{
    uint64_t mine = __atomic_add_fetch(&m->asked, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&m->durable, __ATOMIC_SEQ_CST) < mine) {
        uint32_t wake = __atomic_load_n(&m->wake, __ATOMIC_SEQ_CST);
        struct flock f = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
        if (fcntl(lock_fd, F_OFD_SETLK, &f) == 0) {
            uint64_t from = __atomic_load_n(&m->durable, __ATOMIC_SEQ_CST),
                     to = __atomic_load_n(&m->asked, __ATOMIC_SEQ_CST);
            if (to > from) {
                size_t n = (size_t)((to - from) * bytes);
                if (pwrite(fd, buffer, n, (off_t)(from * bytes % (room - MAX_WORKERS * bytes))) != (ssize_t)n ||
                    fdatasync(fd) != 0)
                    die("control");
                __atomic_store_n(&m->durable, to, __ATOMIC_SEQ_CST);
            }
            f.l_type = F_UNLCK;
            fcntl(lock_fd, F_OFD_SETLK, &f);
            __atomic_add_fetch(&m->wake, 1, __ATOMIC_SEQ_CST);
            syscall(SYS_futex, &m->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
        } else {
            struct timespec t = {.tv_nsec = 100000000};
            syscall(SYS_futex, &m->wake, FUTEX_WAIT, wake, &t, NULL, 0);
        }
    }
}

/* One process: what the turn says until it ends, then the next one. */
static void worker(struct shared *m, int w, const char *dir, const char *control, uint64_t bytes, uint64_t room)
{
    idem_store *s;
    idem_options o = IDEM_OPTIONS_INIT;
    o.flags = IDEM_OPEN_NO_FLUSHER;
    int lock_fd = open(control, O_RDWR), fd = open(control, O_RDWR);
    char *buffer = calloc(MAX_WORKERS, bytes);
    if (lock_fd < 0 || fd < 0 || buffer == NULL || idem_open(dir, &o, &s) != IDEM_OK)
        die("worker");
    idem_request rq = IDEM_REQUEST_INIT;
    char key[40];
    rq.key.key = key;
    __atomic_add_fetch(&m->ready, 1, __ATOMIC_SEQ_CST);
    for (uint32_t turn = 0, last = 0; turn % 4 != TURN_END; last = turn) {
        while ((turn = __atomic_load_n(&m->turn, __ATOMIC_SEQ_CST)) == last)
            usleep(1000);
        int64_t cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        for (uint64_t i = 0; turn % 4 != TURN_END && clock_ns(CLOCK_MONOTONIC) < m->end_ns; i++) {
            idem_claim c;
            rq.key.key_bytes =
                (size_t)snprintf(key, sizeof key, "%08lx-%04d-%014llu", (unsigned long)turn, w, (unsigned long long)i);
            if (turn % 4 == TURN_CONTROL)
                control_one(m, lock_fd, fd, bytes, buffer, room);
            else if (idem_begin(s, &rq, &c, NULL) != IDEM_CLAIMED)
                die("begin");
            m->done[w]++;
        }
        m->cpu_ns[w] = (uint64_t)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns);
        __atomic_add_fetch(&m->over, 1, __ATOMIC_SEQ_CST);
    }
    idem_close(s);
    _exit(0);
}

struct sum {
    uint64_t claims, cpu_ns;
};

static struct sum one_turn(struct shared *m, int workers, uint32_t number, enum turn turn, int64_t ns)
{
    struct sum sum = {0, 0};
    memset(m->done, 0, sizeof m->done);
    m->over = 0;
    m->end_ns = clock_ns(CLOCK_MONOTONIC) + ns;
    __atomic_store_n(&m->turn, number * 4 + (uint32_t)turn, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&m->over, __ATOMIC_SEQ_CST) < (uint32_t)workers)
        usleep(1000);
    for (int w = 0; w < workers; w++) {
        sum.claims += m->done[w];
        sum.cpu_ns += m->cpu_ns[w];
    }
    return sum;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

void log_sync(const char *disk, int workers, unsigned seconds, struct log_sync_rate *out)
{
    char plain[PATH_MAX], dir[PATH_MAX], wal[PATH_MAX], control[PATH_MAX + 64];
    name_all(disk, plain, dir, wal);
    struct shared *m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t bytes = 192;                          /* a claim of such a key, and a batch's header */
    uint64_t room = ((uint64_t)seconds + 8) << 25; /* not written before, as the log's: else a sync is cheaper */
    snprintf(control, sizeof control, "%s-control", wal);
    int fd = open(control, O_RDWR | O_CREAT, 0600), status;
    if (m == MAP_FAILED || fd < 0 || posix_fallocate(fd, 0, (off_t)room) != 0 || fsync(fd) != 0)
        die(control);
    idem_store *s = make_store(dir, wal, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC, 500000);
    for (int w = 0; w < workers; w++) {
        pid_t pid = fork();
        if (pid < 0)
            die("fork");
        if (pid == 0)
            worker(m, w, dir, control, bytes, room);
    }
    while (__atomic_load_n(&m->ready, __ATOMIC_SEQ_CST) < (uint32_t)workers)
        usleep(1000);
    struct sum ours = {0, 0}, theirs = {0, 0};
    double ratios[TURNS];
    int64_t part = (int64_t)seconds * 1000000000 / TURNS / 2;
    uint32_t number = 0;
    for (int i = -WARM_TURNS; i < TURNS; i++) {
        struct sum a = one_turn(m, workers, ++number, TURN_CONTROL, part);
        struct sum b = one_turn(m, workers, ++number, TURN_OURS, part);
        if (i < 0)
            continue;
        theirs = (struct sum){theirs.claims + a.claims, theirs.cpu_ns + a.cpu_ns};
        ours = (struct sum){ours.claims + b.claims, ours.cpu_ns + b.cpu_ns};
        ratios[i] = (double)b.claims / (double)a.claims;
    }
    one_turn(m, workers, ++number, TURN_END, 0);
    for (int w = 0; w < workers; w++)
        if (wait(&status) < 0 || status != 0)
            exit(1);
    double each = (double)(TURNS * part) / 1e9;
    qsort(ratios, TURNS, sizeof *ratios, by_size);
    out->control = (double)theirs.claims / each;
    out->claims = (double)ours.claims / each;
    out->ratio = (double)ours.claims / (double)theirs.claims;
    out->least = ratios[TURNS / 10];
    out->most = ratios[TURNS - 1 - TURNS / 10];
    out->control_us = (double)theirs.cpu_ns / 1000 / (double)theirs.claims;
    out->claims_us = (double)ours.cpu_ns / 1000 / (double)ours.claims;
    idem_close(s);
    idem_destroy(dir);
    unlink(control);
    close(fd);
    munmap(m, sizeof *m);
    remove_log(wal);
}

/* ------------------------------------------------------------------ bytes */

double log_bytes_a_key(const char *disk, bool claims, unsigned *key_and_response)
{
    static char body[BODY_BYTES];
    char plain[PATH_MAX], dir[PATH_MAX], wal[PATH_MAX], key[40];
    idem_stats_data before = {.size = sizeof before}, after = {.size = sizeof after};
    name_all(disk, plain, dir, wal);
    idem_store *s =
        make_store(dir, wal, claims ? IDEM_DURABILITY_SYNC : IDEM_DURABILITY_NONE, IDEM_DURABILITY_SYNC, 100000);
    if (idem_sync(s, 0) != IDEM_OK || idem_stats(s, &before) != IDEM_OK)
        die("stats");
    idem_request rq = IDEM_REQUEST_INIT;
    idem_response rs = IDEM_RESPONSE_INIT;
    rs.body = body;
    rs.body_bytes = sizeof body;
    rq.key.key = key;
    for (unsigned i = 0; i < COUNT_KEYS; i++) {
        idem_claim c;
        rq.key.key_bytes = (size_t)snprintf(key, sizeof key, "key-%020u-of-a-bench", i);
        if (idem_begin(s, &rq, &c, NULL) != IDEM_CLAIMED || idem_complete(s, &c, &rs) < 0)
            die("begin and complete");
    }
    if (idem_stats(s, &after) != IDEM_OK)
        die("stats");
    idem_close(s);
    idem_destroy(dir);
    remove_log(wal);
    *key_and_response = (unsigned)rq.key.key_bytes + BODY_BYTES;
    return (double)(after.log.durable - before.log.durable) / COUNT_KEYS;
}
