/*
 * harness.c - see harness.h.
 *
 * Who runs at the same time: the parent sleeps in sigtimedwait() while workers run; workers meet at barriers only. The
 * barrier spins (the measured blocks are shorter than a futex round trip) and yields, so that it works on fewer cores than
 * processes too, only slower.
 */
#include "harness.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CACHE_LINE = 64, SPINS_BEFORE_YIELD = 2000 };

struct area {
    _Alignas(CACHE_LINE) struct series series[HARNESS_SERIES_MAX];
};

struct harness {
    unsigned processes;
    bool floating; /* workers aren't pinned to a core each */
    _Alignas(CACHE_LINE) atomic_uint arrived;
    _Alignas(CACHE_LINE) atomic_uint round;
    _Alignas(CACHE_LINE) atomic_int stop;
    atomic_int error_taken; /* the first failure keeps its sentence */
    char error[HARNESS_ERROR_BYTES];
    struct area area[];
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

/* SIGCHLD needs a handler too: a signal whose action is "ignore" never ends sigtimedwait(). */
static void on_child(int number)
{
    (void)number;
}

void harness_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

bool harness_interrupted(void)
{
    return interrupted != 0;
}

uint64_t harness_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

uint64_t harness_clock_cost_ns(void)
{
    struct hist *h = calloc(1, sizeof *h);
    if (!h)
        return 0;
    uint64_t before = harness_now_ns();
    for (int i = 0; i < 20000; i++) {
        uint64_t now = harness_now_ns();
        hist_add(h, now - before);
        before = now;
    }
    uint64_t cost = hist_quantile(h, 0.5);
    free(h);
    return cost;
}

/* How often the kernel gave this thread's core to somebody else. */
static uint64_t preemptions(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? (uint64_t)usage.ru_nivcsw : 0;
}

void stopwatch_start(struct stopwatch *w)
{
    w->preemptions = preemptions();
    w->from_ns = harness_now_ns();
}

bool stopwatch_stop(struct stopwatch *w)
{
    w->ns = harness_now_ns() - w->from_ns;
    return preemptions() == w->preemptions;
}

/* ------------------------------------------------------------------ histogram */

static unsigned bucket_of(uint64_t ns)
{
    if (ns < (UINT64_C(2) << HIST_SUB_BITS))
        return (unsigned)ns;
    unsigned top = 63u - (unsigned)__builtin_clzll(ns); /* >= HIST_SUB_BITS + 1 */
    unsigned shift = top - HIST_SUB_BITS;
    unsigned bucket = (shift << HIST_SUB_BITS) + (unsigned)(ns >> shift);
    return bucket < HIST_BUCKETS ? bucket : HIST_BUCKETS - 1;
}

static uint64_t bucket_upper(unsigned bucket)
{
    if (bucket < (2u << HIST_SUB_BITS))
        return bucket;
    unsigned shift = (bucket >> HIST_SUB_BITS) - 1;
    uint64_t mantissa = (bucket & ((1u << HIST_SUB_BITS) - 1)) + (1u << HIST_SUB_BITS);
    return ((mantissa + 1) << shift) - 1;
}

void hist_add(struct hist *h, uint64_t ns)
{
    h->count[bucket_of(ns)]++;
}

void hist_merge(struct hist *into, const struct hist *from)
{
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        into->count[i] += from->count[i];
}

uint64_t hist_quantile(const struct hist *h, double q)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        total += h->count[i];
    if (total == 0)
        return 0;
    uint64_t want = (uint64_t)(q * (double)total);
    uint64_t seen = 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->count[i];
        if (seen > want || seen == total)
            return bucket_upper(i);
    }
    return bucket_upper(HIST_BUCKETS - 1);
}

/* ------------------------------------------------------------------ control block */

static size_t harness_bytes(unsigned processes)
{
    return sizeof(struct harness) + processes * sizeof(struct area);
}

struct harness *harness_create(unsigned processes)
{
    if (processes == 0 || processes > HARNESS_PROCESSES_MAX)
        return NULL;
    void *at = mmap(NULL, harness_bytes(processes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    struct harness *h = at;
    h->processes = processes;
    return h;
}

void harness_free(struct harness *h)
{
    if (h)
        munmap(h, harness_bytes(h->processes));
}

const char *harness_error(const struct harness *h)
{
    return h->error;
}

unsigned harness_processes(const struct harness *h)
{
    return h->processes;
}

struct series *harness_series(struct harness *h, unsigned me, unsigned index)
{
    return &h->area[me].series[index];
}

void harness_clear(struct harness *h)
{
    memset(h->area, 0, h->processes * sizeof(struct area));
}

struct series harness_sum(struct harness *h, unsigned index)
{
    struct series sum = {0};
    for (unsigned i = 0; i < h->processes; i++) {
        const struct series *s = &h->area[i].series[index];
        sum.op_ns += s->op_ns;
        sum.op_count += s->op_count;
        sum.floor_ns += s->floor_ns;
        sum.floor_count += s->floor_count;
        sum.blocks += s->blocks;
        sum.disturbed += s->disturbed;
        hist_merge(&sum.latency, &s->latency);
    }
    return sum;
}

int harness_fail(struct harness *h, const char *format, ...)
{
    if (atomic_exchange(&h->error_taken, 1) == 0) {
        va_list args;
        va_start(args, format);
        vsnprintf(h->error, sizeof h->error, format, args);
        va_end(args);
    }
    atomic_store(&h->stop, 1);
    return -1;
}

int harness_barrier(struct harness *h)
{
    unsigned round = atomic_load(&h->round);
    if (atomic_fetch_add(&h->arrived, 1) + 1 == h->processes) {
        atomic_store(&h->arrived, 0);
        atomic_store(&h->round, round + 1);
        return atomic_load(&h->stop) ? -1 : 0;
    }
    uint64_t deadline_ns = 0;
    for (unsigned spins = 1; atomic_load(&h->round) == round; spins++) {
        if (spins % SPINS_BEFORE_YIELD != 0) {
            __builtin_ia32_pause();
            continue;
        }
        if (atomic_load(&h->stop))
            return -1;
        uint64_t now_ns = harness_now_ns();
        if (deadline_ns == 0)
            deadline_ns = now_ns + HARNESS_BARRIER_MS * UINT64_C(1000000);
        else if (now_ns > deadline_ns)
            return harness_fail(h, "a worker waited more than %u ms for the others at a barrier", HARNESS_BARRIER_MS);
        sched_yield();
    }
    return atomic_load(&h->stop) ? -1 : 0;
}

/* ------------------------------------------------------------------ processes */

/* One core a worker, of those this process may use; with fewer cores than workers the scheduler places them. */
static void pin(unsigned me, unsigned processes)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || (unsigned)CPU_COUNT(&allowed) < processes)
        return;
    unsigned seen = 0;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || seen++ != me)
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof one, &one);
        return;
    }
}

static void run_worker(struct harness *h, unsigned me, harness_body body, void *ctx, pid_t parent,
                       const sigset_t *old_mask)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, old_mask, NULL);
    if (!h->floating)
        pin(me, h->processes);
    _exit(body(h, me, ctx) == 0 ? 0 : 1);
}

/* Reaps who has ended; returns how many are left. */
static unsigned reap(struct harness *h, pid_t *pids)
{
    unsigned left = 0;
    for (unsigned i = 0; i < h->processes; i++) {
        int status = 0;
        if (pids[i] <= 0)
            continue;
        pid_t got = waitpid(pids[i], &status, WNOHANG);
        if (got == 0 || (got < 0 && errno == EINTR)) {
            left++;
            continue;
        }
        pids[i] = 0;
        if (got > 0 && WIFSIGNALED(status))
            harness_fail(h, "worker %u was killed by signal %d (%s)", i, WTERMSIG(status), strsignal(WTERMSIG(status)));
        else if (got < 0 || WEXITSTATUS(status) != 0)
            harness_fail(h, "worker %u ended with status %d and said nothing", i, got < 0 ? -1 : WEXITSTATUS(status));
    }
    return left;
}

static void start_clean(struct harness *h)
{
    atomic_store(&h->arrived, 0);
    atomic_store(&h->stop, 0);
    atomic_store(&h->error_taken, 0);
    h->error[0] = '\0';
}

int harness_run(struct harness *h, harness_body body, void *ctx, unsigned timeout_s)
{
    pid_t pids[HARNESS_PROCESSES_MAX] = {0};
    sigset_t child_only;
    sigset_t old_mask;
    struct sigaction on_end = {.sa_handler = on_child};
    struct sigaction old_action;

    start_clean(h);
    sigemptyset(&on_end.sa_mask);
    sigaction(SIGCHLD, &on_end, &old_action);
    sigemptyset(&child_only);
    sigaddset(&child_only, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_only, &old_mask);
    fflush(NULL); /* else each worker would carry a copy of what is still buffered */

    pid_t parent = getpid();
    for (unsigned i = 0; i < h->processes && !atomic_load(&h->stop); i++) {
        pids[i] = fork();
        if (pids[i] == 0)
            run_worker(h, i, body, ctx, parent, &old_mask);
        else if (pids[i] < 0)
            harness_fail(h, "fork: %s", strerror(errno));
    }

    uint64_t deadline_ns = harness_now_ns() + timeout_s * UINT64_C(1000000000);
    bool killed = false;
    while (reap(h, pids) > 0) {
        struct timespec nap = {.tv_sec = 0, .tv_nsec = 200000000};
        bool late = harness_now_ns() > deadline_ns;
        if (late)
            harness_fail(h, "the workers were not done after %u s", timeout_s);
        if (interrupted)
            harness_fail(h, "interrupted");
        if ((late || interrupted) && !killed) {
            for (unsigned i = 0; i < h->processes; i++)
                if (pids[i] > 0)
                    kill(pids[i], SIGKILL);
            killed = true;
        }
        sigtimedwait(&child_only, NULL, &nap);
    }
    sigprocmask(SIG_SETMASK, &old_mask, NULL);
    sigaction(SIGCHLD, &old_action, NULL);
    return atomic_load(&h->stop) ? -1 : 0;
}

int harness_run_host(struct harness *h, harness_body body, void *ctx, unsigned timeout_s)
{
    h->floating = true;
    return harness_run(h, body, ctx, timeout_s);
}

/* ------------------------------------------------------------------ threads */

struct thread {
    pthread_t id;
    struct harness *h;
    unsigned me;
    harness_body body;
    void *ctx;
};

static void *run_thread(void *arg)
{
    struct thread *t = arg;
    pin(t->me, t->h->processes);
    if (t->body(t->h, t->me, t->ctx) != 0)
        harness_fail(t->h, "worker %u failed and said nothing", t->me);
    return NULL;
}

int harness_run_threads(struct harness *h, harness_body body, void *ctx)
{
    struct thread threads[HARNESS_PROCESSES_MAX];
    unsigned started = 0;
    start_clean(h);
    for (; started < h->processes; started++) {
        threads[started] = (struct thread){.h = h, .me = started, .body = body, .ctx = ctx};
        int error = pthread_create(&threads[started].id, NULL, run_thread, &threads[started]);
        if (error != 0) {
            harness_fail(h, "pthread_create: %s", strerror(error));
            break;
        }
    }
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i].id, NULL);
    return atomic_load(&h->stop) ? -1 : 0;
}
