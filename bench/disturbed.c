/*
 * disturbed.c - a claim while the store is swept, its log changes files, and peers are killed (shapes.h).
 *
 * One process claims and completes new keys and reads the clock around every claim. Meanwhile answers live a third of a second, so
 * that regions are taken back all the time; the log's files hold a mebibyte, so that one is full every few thousand keys;
 * and a second process starts peers that do the same with keys of their own, and kills each (SIGKILL) after some milliseconds.
 * Calls in which the kernel gave the core to somebody else are left out, as everywhere here: other programs' time is not the
 * store's (but neither is its own flusher's then, which is a thread of the same process on the same core). The figure is the 99.9th percentile
 * over the median; a run in which nothing was swept, no file was begun or nobody was killed has none. Beside it (the row's floor) the same of a
 * loop that takes about as long and shares nothing, after each key: what interrupts and the other core's work do to anything so short.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "place.h"
#include "shapes.h"

enum { TTL_MS = 300, FILE_BYTES = 1 << 20, LIFE_MS = 15, STORE_KEYS = 400000, KEYS_A_S = 100000, LOOPS = 5 };
#define KEYS_EACH (UINT64_C(1) << 40)

struct plan {
    const struct shape_store *store;
    uint64_t for_ns;
    struct back { /* shared */
        uint64_t kills, claims;
        int over;
    } * back;
};

static int one_key(idem_store *store, uint64_t id, uint64_t *claim_ns, bool *undisturbed)
{
    unsigned char key[KEY_BYTES], answer[SHAPE_ANSWER_BYTES];
    idem_response response = IDEM_RESPONSE_INIT;
    idem_claim claim;
    key_text(id, key);
    shape_answer(id, answer);
    idem_request request = shape_request(key);
    response.status = 200;
    response.body = answer;
    response.body_bytes = sizeof answer;
    response.durability = IDEM_DURABILITY_ASYNC;
    struct stopwatch watch;
    stopwatch_start(&watch);
    int got = idem_begin(store, &request, &claim, NULL);
    *undisturbed = stopwatch_stop(&watch);
    *claim_ns = watch.ns;
    return got != IDEM_CLAIMED ? got : idem_complete(store, &claim, &response) < 0 ? -1 : IDEM_CLAIMED;
}

static uint64_t one_loop(uint64_t id, bool *undisturbed)
{
    unsigned char key[KEY_BYTES], answer[SHAPE_ANSWER_BYTES];
    struct stopwatch watch;
    stopwatch_start(&watch);
    for (unsigned i = 0; i < LOOPS; i++) {
        key_text(id + i, key);
        shape_answer(id + key[0], answer);
        __asm__ volatile("" : : "r"(answer) : "memory");
    }
    *undisturbed = stopwatch_stop(&watch);
    return watch.ns;
}

static int measure(struct harness *h, const struct plan *plan)
{
    struct hist *latency = &harness_series(h, 0, 0)->latency, *loops = &harness_series(h, 0, 1)->latency;
    idem_store *store = shape_attach(plan->store, 0); /* with a flusher, as a service has it */
    if (store == NULL)
        return harness_fail(h, "attaching: %s", idem_error_detail());
    uint64_t from_ns = harness_now_ns(), now_ns = from_ns, id = 0, ns;
    bool undisturbed;
    while ((now_ns = harness_now_ns()) - from_ns < plan->for_ns) {
        for (uint64_t due = (now_ns - from_ns) * KEYS_A_S / UINT64_C(1000000000); id < due; id++) {
            int got = one_key(store, id, &ns, &undisturbed);
            if (got != IDEM_CLAIMED)
                return harness_fail(h, "a key said %d (%s): %s", got, idem_strerror(got), idem_error_detail());
            if (undisturbed)
                hist_add(latency, ns);
            ns = one_loop(id, &undisturbed);
            if (undisturbed)
                hist_add(loops, ns);
        }
    }
    plan->back->claims = id;
    __atomic_store_n(&plan->back->over, 1, __ATOMIC_SEQ_CST);
    idem_close(store);
    return 0;
}

/* A peer that does the same until it is killed, at a tenth of the rate. */
static _Noreturn void victim(const struct plan *plan, uint64_t life)
{
    idem_store *store = NULL;
    uint64_t ns;
    bool undisturbed;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    idem_options o = IDEM_OPTIONS_INIT;
    o.flags = IDEM_OPEN_NO_FLUSHER;
    if (idem_open(plan->store->path, &o, &store) != IDEM_OK)
        _exit(1);
    for (uint64_t id = (life + 1) * KEYS_EACH;; id++) {
        one_key(store, id, &ns, &undisturbed);
        if (id % 16 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static int kill_peers(struct harness *h, const struct plan *plan)
{
    for (uint64_t life = 0; __atomic_load_n(&plan->back->over, __ATOMIC_SEQ_CST) == 0; life++) {
        int status;
        pid_t pid = fork();
        if (pid == 0)
            victim(plan, life);
        if (pid < 0)
            return harness_fail(h, "fork: %s", strerror(errno));
        nanosleep(&(struct timespec){.tv_nsec = LIFE_MS * 1000000L}, NULL);
        kill(pid, SIGKILL);
        if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
            plan->back->kills++;
    }
    return 0;
}

static int work(struct harness *h, unsigned me, void *ctx)
{
    int result = me == 0 ? measure(h, ctx) : kill_peers(h, ctx);
    if (result != 0)
        __atomic_store_n(&((const struct plan *)ctx)->back->over, 1, __ATOMIC_SEQ_CST);
    return result;
}

/* Did what was to disturb it happen? */
static void look(const struct plan *plan, struct trial_result *out)
{
    idem_stats_data s = {.size = sizeof s};
    if (idem_stats(plan->store->handle, &s) != IDEM_OK)
        snprintf(out->why, sizeof out->why, "idem_stats: %s", idem_error_detail());
    else if (s.swept_regions == 0 || s.log.written < 2 * (uint64_t)FILE_BYTES || plan->back->kills == 0)
        snprintf(out->why, sizeof out->why,
                 "nothing disturbed it: %" PRIu64 " regions were swept, %" PRIu64 " bytes logged, %" PRIu64
                 " peers killed",
                 s.swept_regions, s.log.written, plan->back->kills);
    else if (s.claimed < plan->back->claims)
        snprintf(out->why, sizeof out->why, "%" PRIu64 " claims were given out, the store counted %" PRIu64,
                 plan->back->claims, s.claimed);
}

static void run(const struct trial *self, const struct conditions *c, unsigned round, unsigned limit_s,
                struct trial_result *out)
{
    struct shape_store store = {0};
    struct plan plan = {.store = &store, .for_ns = self->rows[0].keys * (UINT64_C(1000000000) / KEYS_A_S)};
    idem_options o = IDEM_OPTIONS_INIT;
    char wal[SHAPE_PATH_BYTES];
    struct harness *h = harness_create(2);
    (void)round;
    plan.back = mmap(NULL, sizeof *plan.back, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(wal, sizeof wal, "%.200s/disturbed", c->disk);
    o.wal_dir = wal;
    o.durability_claim = IDEM_DURABILITY_ASYNC;
    o.durability_complete = IDEM_DURABILITY_ASYNC;
    o.wal_file_bytes = FILE_BYTES;
    o.wal_ring_refs = 65536;
    o.lanes = 128;
    o.ttl_ms = TTL_MS;
    if (h == NULL || plan.back == MAP_FAILED)
        snprintf(out->why, sizeof out->why, "no memory for two processes");
    else if (shape_create(&store, c, "disturbed", STORE_KEYS, self->rows[0].huge, &o, out) == 0) {
        if (harness_run_host(h, work, &plan, limit_s) != 0)
            snprintf(out->why, sizeof out->why, "%s", harness_error(h));
        else
            look(&plan, out);
        const struct series s = harness_sum(h, 0), loops = harness_sum(h, 1);
        double loop_p50_ns = (double)hist_quantile(&loops.latency, 0.5);
        struct figures *f = &out->of[0];
        f->p50_ns = (double)hist_quantile(&s.latency, 0.5);
        f->p99_ns = (double)hist_quantile(&s.latency, 0.99);
        f->p999_ns = (double)hist_quantile(&s.latency, 0.999);
        f->missing = f->p50_ns <= 0;
        f->value = f->missing ? 0 : f->p999_ns / f->p50_ns;
        f->floor = loop_p50_ns <= 0 ? 0 : (double)hist_quantile(&loops.latency, 0.999) / loop_p50_ns;
    }
    shape_destroy(&store);
    place_remove_tree(wal);
    if (plan.back != MAP_FAILED)
        munmap(plan.back, sizeof *plan.back);
    harness_free(h);
}

int disturbed_add(struct trials *all, const struct conditions *c)
{
    for (unsigned huge = 0; huge < 2; huge++) {
        struct trial t = {.name = "a claim while much else happens", .row_count = 1, .run = run};
        t.rows[0] = shape_row("disturbed", "idem", "p99.9 / p50", shape_keys(c, 200000, 100000, 30000), 1, huge);
        if (trials_add(all, &t) != 0)
            return -1;
    }
    return 0;
}
