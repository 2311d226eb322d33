/*
 * life.c - see life.h.
 *
 * Who runs: the parent forks a host; the host prepares the peer and starts its workers, as threads or processes. What a peer
 * leaks, breaks or hangs in ends with its host, which the parent bounds. Files lie on a tmpfs that the host mounts for
 * itself (as root), and are gone with it.
 *
 * A worker goes through its share of the keys in waves (an eighth of the keys, at least 128 Ki, as scenario.c does for idem):
 * claims a wave, checks that it is claimed, completes it. Then all replay in random order over everybody's keys. The batches a peer
 * has a call for take turns. Blocks begin together; every eighth is timed call by call for the percentiles alone; a block
 * in which the kernel gave the core to somebody else is left out, unless the peer is a server or waits for a disk:
 * those give cores away by their nature.
 *
 * Invariant: every count that a job returns is compared with the only right one, and every byte sum of replays with that of
 * the answers these keys were given; the first difference ends the life, and it has no figures.
 */
#include "life.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "keys.h"
#include "place.h"

enum {
    BLOCK = 1024,
    SLOW_BLOCK = 128, /* of a peer that is measured on a sample: short, so that few are disturbed */
    TURN_BLOCKS = 16,
    TURNS_MIN = 4, /* of each batch in a wave, however few keys there are */
    SAMPLE_EVERY = 8,
    CHECKED = 64,
    BODIES = 16,
    BATCHES = 3,
    SERIES = PEER_JOBS * BATCHES,
    PATH_BYTES = 300
};

#define SMALL_LIFE_KEYS UINT64_C(160000) /* claimed at least, over fresh tables; fewer if the peer is slow */
#define WAVE_MIN        UINT64_C(131072)
#define REPLAYS_MIN     UINT64_C(250000)
#define TMPFS_BYTES     (UINT64_C(13) << 30)

_Static_assert(KEY_BYTES == PEER_KEY_BYTES, "peers are given the keys that idem is given");
_Static_assert(SERIES <= HARNESS_SERIES_MAX, "a series for each job and batch");

static const unsigned batch_of[BATCHES] = {1, 16, 32};
static const char *const job_names[PEER_JOBS] = {"claim", "complete", "replay"};

struct plan {
    const struct life *life;
    const struct conditions *conditions;
    struct peer_place place;
    char base[PATH_BYTES]; /* lives' directories lie below it, on tmpfs and on disk */
    char disk_base[PATH_BYTES];
    char dir[PATH_BYTES];
    char disk[PATH_BYTES];
    uint64_t share; /* keys a worker */
    uint64_t timed; /* of them, claimed timed: the last ones */
    uint64_t wave;
    size_t block;
    uint64_t cycles; /* tables that are made and filled, one after the other */
    unsigned limit_s;
    void *shared; /* the peer's */
    struct harness *workers;
    struct back *back;
};

/* Written by the host and worker 0, read by the parent afterwards. */
struct back {
    uint64_t bytes;
    struct series sums[SERIES];
};

struct worker {
    struct harness *h;
    const struct plan *plan;
    const struct peer *peer;
    void *own; /* the peer's */
    unsigned me;
    uint64_t turn[PEER_JOBS];
    uint64_t blocks[SERIES];
    unsigned char *claims; /* handles of a wave */
    unsigned char *scratch_claims;
    const unsigned char **answers; /* of a block: BLOCK of them, PEER_FILL_MAX if the peer fills */
    unsigned char bodies[BODIES][PEER_ANSWER_BYTES];
    unsigned char *keys; /* of a block */
    unsigned char out[PEER_BATCH_MAX * PEER_ANSWER_BYTES];
    struct hist latency; /* of a sampled block, until it is known to be undisturbed */
};

/* ------------------------------------------------------------------ keys and their answers */

/* Which of the bodies key id is answered with: all are hot, neighbours differ. */
static unsigned body_of(uint64_t id)
{
    return (unsigned)((id * UINT64_C(0x9E3779B97F4A7C15)) >> 60);
}

static void make_bodies(struct worker *w)
{
    for (unsigned i = 0; i < BODIES; i++) {
        uint64_t mark = (i + 1) * UINT64_C(0xD1B54A32D192ED03);
        memset(w->bodies[i], 'a' + (int)i, PEER_ANSWER_BYTES);
        memcpy(w->bodies[i] + PEER_ANSWER_BYTES - sizeof mark, &mark, sizeof mark);
    }
}

static uint64_t mark_of(const struct worker *w, uint64_t id)
{
    uint64_t mark;
    memcpy(&mark, w->bodies[body_of(id)] + PEER_ANSWER_BYTES - sizeof mark, sizeof mark);
    return mark;
}

/* A run of one job over `count` keys. */
struct stretch {
    enum peer_job job;
    uint64_t first_id; /* without an order: first_id, first_id + 1, ... */
    uint64_t count;
    const struct order *order; /* else first_id + order_at(order, step * i + skip) */
    uint64_t step;
    uint64_t skip;
    unsigned char *claims; /* of the first key */
};

static uint64_t id_of(const struct stretch *s, uint64_t at)
{
    return s->first_id + (s->order ? order_at(s->order, at * s->step + s->skip) : at);
}

/* What n keys from `at` on come to: their text, their answers, and the sum of these. */
static uint64_t write_block(struct worker *w, const struct stretch *s, uint64_t at, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t id = id_of(s, at + i);
        key_text(id, w->keys + i * KEY_BYTES);
        w->answers[i] = w->bodies[body_of(id)];
        sum += mark_of(w, id);
    }
    return sum;
}

/* ------------------------------------------------------------------ blocks */

static int disqualify(struct worker *w, enum peer_job job, const char *of, long got, long expected)
{
    if (got < 0)
        return harness_fail(w->h, "%s of %s: %s", job_names[job], of, w->peer->error(w->own));
    return harness_fail(w->h, "disqualified: %s of %ld %s said %ld", job_names[job], expected, of, got);
}

static struct peer_work work_of(struct worker *w, const struct stretch *s, uint64_t at, size_t n, size_t batch)
{
    static volatile uint64_t zero;
    return (struct peer_work){.keys = w->keys,
                              .n = n,
                              .batch = batch,
                              .claims = s->claims + at * w->peer->claim_bytes,
                              .answers = w->answers,
                              .out = w->out,
                              .zero = zero};
}

/* One call of the job for each batch, the clock read in between. */
static long run_sampled(struct worker *w, enum peer_job job, struct peer_work *work)
{
    long total = 0;
    struct peer_work part = *work;
    uint64_t before = harness_now_ns();
    for (size_t first = 0; first < work->n; first += part.n) {
        part.n = work->n - first < work->batch ? work->n - first : work->batch;
        part.own_ns = 0;
        part.keys = work->keys + first * KEY_BYTES;
        part.claims = work->claims + first * w->peer->claim_bytes;
        part.answers = work->answers + first;
        long got = w->peer->run[job](w->own, &part);
        if (got < 0)
            return got;
        total += got;
        uint64_t now = harness_now_ns();
        hist_add(&w->latency, part.own_ns > 0 ? part.own_ns : now - before);
        before = now;
    }
    work->sum = part.sum;
    return total;
}

static int timed_block(struct worker *w, const struct stretch *s, uint64_t at, size_t n, unsigned batch)
{
    unsigned series = s->job * BATCHES + batch;
    bool sampled = w->blocks[series]++ % SAMPLE_EVERY == SAMPLE_EVERY - 1;
    bool yields = w->peer->reach == PEER_SERVER || w->peer->durable;
    struct series *sum = harness_series(w->h, w->me, series);
    uint64_t expected = write_block(w, s, at, n);
    struct peer_work work = work_of(w, s, at, n, batch_of[batch]);
    struct stopwatch watch;
    if (sampled)
        memset(&w->latency, 0, sizeof w->latency);
    if (harness_barrier(w->h) != 0)
        return -1;
    stopwatch_start(&watch);
    long got = sampled ? run_sampled(w, s->job, &work) : w->peer->run[s->job](w->own, &work);
    bool undisturbed = stopwatch_stop(&watch) || yields;
    if (work.own_ns > 0)
        watch.ns = work.own_ns;
    if (got != (long)n)
        return disqualify(w, s->job, "keys", got, (long)n);
    if (s->job == PEER_REPLAY && work.sum != expected)
        return harness_fail(w->h, "disqualified: replays are not the answers that were stored");
    sum->blocks++;
    if (!undisturbed) {
        sum->disturbed++;
    } else if (sampled) {
        hist_merge(&sum->latency, &w->latency);
    } else {
        sum->op_ns += watch.ns;
        sum->op_count += n;
    }
    return 0;
}

/* The stretch, in turns of the batches that the peer has a call for. */
static int run_stretch(struct worker *w, const struct stretch *s)
{
    unsigned kinds[BATCHES];
    unsigned kind_count = 0;
    for (unsigned b = 0; b < BATCHES; b++)
        if (w->peer->batches[s->job] & (1u << b))
            kinds[kind_count++] = b;
    uint64_t turn = s->count / (kind_count * TURNS_MIN) / PEER_BATCH_MAX * PEER_BATCH_MAX;
    if (turn > TURN_BLOCKS * w->plan->block)
        turn = TURN_BLOCKS * w->plan->block;
    if (turn < PEER_BATCH_MAX)
        turn = PEER_BATCH_MAX;
    for (uint64_t done = 0; done < s->count; done += turn) {
        unsigned batch = kinds[w->turn[s->job]++ % kind_count];
        uint64_t to = s->count - done < turn ? s->count : done + turn;
        for (uint64_t at = done; at < to; at += w->plan->block) {
            size_t n = to - at < w->plan->block ? (size_t)(to - at) : w->plan->block;
            if (timed_block(w, s, at, n, batch) != 0)
                return -1;
        }
    }
    return 0;
}

/* A job on a few keys whose answer is known: `expected` of them, or the peer is out. */
static int check(struct worker *w, const struct stretch *s, const char *of, long expected)
{
    struct stretch few = *s;
    few.claims = w->scratch_claims;
    size_t n = s->count < CHECKED ? (size_t)s->count : CHECKED;
    write_block(w, &few, 0, n);
    struct peer_work work = work_of(w, &few, 0, n, 1);
    long got = w->peer->run[s->job](w->own, &work);
    if (got == expected)
        return 0;
    if (got < 0)
        return disqualify(w, s->job, of, got, (long)n);
    return harness_fail(w->h, "disqualified: %s of %zu %s said %ld, not %ld", job_names[s->job], n, of, got, expected);
}

/* ------------------------------------------------------------------ a worker's life */

/* Keys that are there before the clock runs, by the peer's fastest means: `of` is whose. */
static int prefill(struct worker *w, unsigned of)
{
    struct stretch s = {.job = PEER_CLAIM,
                        .first_id = of * w->plan->share,
                        .count = w->plan->share - w->plan->timed,
                        .claims = w->scratch_claims};
    size_t batch = w->peer->batches[PEER_CLAIM] & PEER_BY_32 ? 32 : w->peer->batches[PEER_CLAIM] & PEER_BY_16 ? 16 : 1;
    size_t block = w->peer->fill ? PEER_FILL_MAX : BLOCK;
    for (uint64_t at = 0; at < s.count; at += block) {
        size_t n = s.count - at < block ? (size_t)(s.count - at) : block;
        write_block(w, &s, at, n);
        struct peer_work work = work_of(w, &s, 0, n, batch);
        long got;
        if (w->peer->fill) {
            got = w->peer->fill(w->own, &work);
        } else {
            got = w->peer->run[PEER_CLAIM](w->own, &work);
            if (got == (long)n)
                got = w->peer->run[PEER_COMPLETE](w->own, &work);
        }
        if (got != (long)n)
            return disqualify(w, PEER_CLAIM, "keys beforehand", got, (long)n);
    }
    return 0;
}

static int prefill_all(struct worker *w)
{
    struct peer_work nothing = {.batch = 1};
    if (!w->peer->fill || w->plan->timed == w->plan->share)
        return prefill(w, w->me);
    for (unsigned of = 0; of < w->plan->life->workers && w->me == 0; of++)
        if (prefill(w, of) != 0)
            return -1;
    return w->me == 0 && w->peer->fill(w->own, &nothing) != 0 ? disqualify(w, PEER_CLAIM, "keys beforehand", -1, 0) : 0;
}

/* Claimed, asked for, completed. Between barriers each worker looks at its neighbour's keys. */
static int run_wave(struct worker *w, uint64_t first, uint64_t count)
{
    const struct plan *plan = w->plan;
    uint64_t neighbour = (w->me + 1) % plan->life->workers * plan->share + first;
    struct stretch s = {.first_id = w->me * plan->share + first, .count = count, .claims = w->claims};
    struct stretch theirs = {.first_id = neighbour, .count = count};
    s.job = PEER_CLAIM;
    if (run_stretch(w, &s) != 0 || harness_barrier(w->h) != 0)
        return -1;
    theirs.job = PEER_CLAIM;
    if (check(w, &theirs, "keys that are claimed", 0) != 0)
        return -1;
    theirs.job = PEER_REPLAY;
    if (w->peer->batches[PEER_REPLAY] && check(w, &theirs, "keys that are in progress", 0) != 0)
        return -1;
    s.job = PEER_COMPLETE;
    if (harness_barrier(w->h) != 0 || (w->peer->batches[PEER_COMPLETE] && run_stretch(w, &s) != 0))
        return -1;
    return harness_barrier(w->h);
}

static int run_replays(struct worker *w)
{
    const struct plan *plan = w->plan;
    uint64_t all = plan->share * plan->life->workers;
    uint64_t wanted = all / 10 > REPLAYS_MIN ? all / 10 : REPLAYS_MIN;
    if (plan->timed < plan->share)
        wanted = plan->timed * plan->life->workers;
    struct order order = order_of(all, 7);
    struct stretch s = {.job = PEER_REPLAY,
                        .count = (wanted < all ? wanted : all) / plan->life->workers,
                        .order = &order,
                        .step = plan->life->workers,
                        .skip = w->me,
                        .claims = w->scratch_claims};
    struct stretch absent = {.job = PEER_REPLAY, .first_id = all, .count = CHECKED};
    if (!w->peer->batches[PEER_REPLAY])
        return 0;
    return check(w, &absent, "keys that are not there", 0) == 0 ? run_stretch(w, &s) : -1;
}

static int phases(struct worker *w)
{
    const struct plan *plan = w->plan;
    uint64_t first = plan->share - plan->timed;
    if (prefill_all(w) != 0 || harness_barrier(w->h) != 0)
        return -1;
    for (; first < plan->share; first += plan->wave) {
        uint64_t count = plan->share - first < plan->wave ? plan->share - first : plan->wave;
        if (run_wave(w, first, count) != 0)
            return -1;
    }
    if (w->me == 0 && w->peer->bytes)
        plan->back->bytes = w->peer->bytes(w->own);
    return harness_barrier(w->h) == 0 && run_replays(w) == 0 ? harness_barrier(w->h) : -1;
}

static int work(struct harness *h, unsigned me, void *ctx)
{
    const struct plan *plan = ctx;
    const struct peer *peer = plan->life->peer;
    char why[PEER_WHY_BYTES] = "no memory";
    int result = -1;
    struct worker *w = calloc(1, sizeof *w);
    size_t block = peer->fill ? PEER_FILL_MAX : BLOCK;
    size_t claims_bytes = (plan->wave + block) * peer->claim_bytes + 1;
    unsigned char *claims = malloc(claims_bytes);
    unsigned char *keys = malloc((block + 1) * KEY_BYTES);
    const unsigned char **answers = malloc(block * sizeof *answers);
    if (!w || !claims || !keys || !answers) {
        harness_fail(h, "no memory for a worker");
        goto done;
    }
    memset(claims, 0, claims_bytes); /* touched before the clock runs */
    w->keys = keys;
    w->answers = answers;
    w->h = h;
    w->plan = plan;
    w->peer = peer;
    w->me = me;
    w->scratch_claims = claims;
    w->claims = claims + block * peer->claim_bytes;
    make_bodies(w);
    w->own = peer->attach(plan->shared, me, why);
    if (!w->own) {
        harness_fail(h, "attach: %s", why);
        goto done;
    }
    /* A page's first touch is nobody's figure. What a peer maps in its directory is mapped before the clock runs. */
    if (peer->reach == PEER_PROCESSES && place_touch_files(plan->dir) != 0)
        harness_fail(h, "mapping all pages beforehand: %s", strerror(errno));
    else if (harness_barrier(h) == 0)
        result = phases(w);
    /* After a failure others may still be at work on what this one owns; the host is about to end anyway. */
    if (result == 0)
        peer->detach(w->own);
done:
    free(answers);
    free(keys);
    free(claims);
    free(w);
    return result;
}

/* ------------------------------------------------------------------ the host */

/* A tmpfs nobody else sees, whose files have 2 MiB pages unasked, or none. Without root, the directory as it is. */
static void mount_private(const struct plan *plan)
{
    char options[96];
    snprintf(options, sizeof options, "huge=%s,mode=0700,size=%" PRIu64, plan->life->huge ? "always" : "never",
             TMPFS_BYTES);
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return;
    mount("idem-bench-life", plan->base, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options);
}

static int run_cycle(struct harness *h, struct plan *plan, uint64_t cycle)
{
    const struct peer *peer = plan->life->peer;
    char why[PEER_WHY_BYTES] = "no memory";
    snprintf(plan->dir, sizeof plan->dir, "%.*s/%" PRIu64, PATH_BYTES - 24, plan->base, cycle);
    snprintf(plan->disk, sizeof plan->disk, "%.*s/%" PRIu64, PATH_BYTES - 24, plan->disk_base, cycle);
    if (mkdir(plan->dir, 0700) != 0 || mkdir(plan->disk, 0700) != 0)
        return harness_fail(h, "a life's directories: %s", strerror(errno));
    plan->shared = peer->prepare(peer, &plan->place, why);
    if (!plan->shared)
        return harness_fail(h, "%s", why);
    if (plan->life->huge && peer->reach == PEER_THREADS)
        place_collapse_memory();
    int result = peer->reach == PEER_THREADS ? harness_run_threads(plan->workers, work, plan)
                                             : harness_run(plan->workers, work, plan, plan->limit_s);
    if (result != 0)
        harness_fail(h, "%s", harness_error(plan->workers));
    peer->end(plan->shared);
    place_remove_tree(plan->dir);
    place_remove_tree(plan->disk);
    return result;
}

static int host(struct harness *h, unsigned me, void *ctx)
{
    struct plan *plan = ctx;
    (void)me;
    if (!plan->life->huge)
        prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    mount_private(plan);
    plan->workers = harness_create(plan->life->workers);
    if (!plan->workers)
        return harness_fail(h, "no memory for %u workers", plan->life->workers);
    for (uint64_t cycle = 0; cycle < plan->cycles; cycle++)
        if (run_cycle(h, plan, cycle) != 0)
            return -1;
    for (unsigned i = 0; i < SERIES; i++)
        plan->back->sums[i] = harness_sum(plan->workers, i);
    return 0;
}

/* ------------------------------------------------------------------ the parent's side */

static void make_plan(struct plan *plan, const struct life *life, const struct conditions *c, unsigned limit_s)
{
    uint64_t timed = life->peer->timed_keys;
    memset(plan, 0, sizeof *plan);
    if (life->timed_keys > 0 && (timed == 0 || timed > life->timed_keys))
        timed = life->timed_keys;
    plan->life = life;
    plan->conditions = c;
    plan->limit_s = limit_s;
    plan->share = life->keys / life->workers;
    plan->timed = timed > 0 && timed < life->keys ? timed / life->workers : plan->share;
    plan->wave = (life->keys / 8 > WAVE_MIN ? life->keys / 8 : WAVE_MIN) / life->workers;
    if (plan->wave > plan->timed)
        plan->wave = plan->timed;
    plan->block = timed > 0 ? SLOW_BLOCK : BLOCK;
    uint64_t enough = timed > 0 && timed < SMALL_LIFE_KEYS ? timed : SMALL_LIFE_KEYS;
    plan->cycles = c->smoke || life->keys >= enough ? 1 : enough / life->keys;
    snprintf(plan->base, sizeof plan->base, "%s/life", c->place->dir);
    snprintf(plan->disk_base, sizeof plan->disk_base, "%s/life", c->disk);
    plan->place = (struct peer_place){
        .dir = plan->dir, .disk = plan->disk, .keys = life->keys, .workers = life->workers, .huge = life->huge};
}

static void take_figures(const struct trial *self, const struct plan *plan, struct trial_result *out)
{
    for (unsigned r = 0; r < self->row_count; r++) {
        struct figures *f = &out->of[r];
        if (strcmp(self->rows[r].job, "memory") == 0) {
            f->value =
                (double)plan->back->bytes / (double)(plan->share * plan->life->workers) - KEY_BYTES - PEER_ANSWER_BYTES;
            f->missing = plan->back->bytes == 0;
            continue;
        }
        const struct series *s = &plan->back->sums[0];
        for (unsigned job = 0; job < PEER_JOBS; job++)
            for (unsigned b = 0; b < BATCHES; b++)
                if (strcmp(self->rows[r].job, job_names[job]) == 0 && self->rows[r].batch == batch_of[b])
                    s = &plan->back->sums[job * BATCHES + b];
        f->missing = s->op_count == 0;
        f->value = f->missing ? 0 : (double)s->op_ns / (double)s->op_count;
        f->p50_ns = (double)hist_quantile(&s->latency, 0.5);
        f->p99_ns = (double)hist_quantile(&s->latency, 0.99);
        f->p999_ns = (double)hist_quantile(&s->latency, 0.999);
    }
}

static void run(const struct trial *self, const struct conditions *c, unsigned round, unsigned limit_s,
                struct trial_result *out)
{
    struct plan plan;
    struct harness *h = harness_create(1);
    (void)round;
    make_plan(&plan, self->what, c, limit_s);
    plan.back = mmap(NULL, sizeof *plan.back, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!h || plan.back == MAP_FAILED)
        snprintf(out->why, sizeof out->why, "no memory for the control block");
    else if (mkdir(plan.base, 0700) != 0 || mkdir(plan.disk_base, 0700) != 0)
        snprintf(out->why, sizeof out->why, "a life's directories: %s", strerror(errno));
    else if (harness_run_host(h, host, &plan, limit_s) != 0)
        out->left_out = strncmp(harness_error(h), PEER_LEFT_OUT, strlen(PEER_LEFT_OUT)) == 0;
    else
        take_figures(self, &plan, out);
    if (out->why[0] == '\0')
        snprintf(out->why, sizeof out->why, "%s", h ? harness_error(h) : "");
    /* A host that was killed left its files. */
    place_remove_tree(plan.base);
    place_remove_tree(plan.disk_base);
    if (plan.back != MAP_FAILED)
        munmap(plan.back, sizeof *plan.back);
    harness_free(h);
}

static void add_row(struct trial *t, const struct life *life, const char *job, const char *unit, unsigned batch)
{
    t->rows[t->row_count++] = (struct row_id){.job = job,
                                              .who = life->peer->name,
                                              .unit = unit,
                                              .batch = batch,
                                              .keys = life->keys,
                                              .workers = life->workers,
                                              .huge = life->huge};
}

void life_trial(struct trial *t, const struct life *life)
{
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s, %" PRIu64 " keys, %u worker%s", life->peer->name, life->keys, life->workers,
             life->workers == 1 ? "" : "s");
    for (unsigned job = 0; job < PEER_JOBS; job++)
        for (unsigned b = 0; b < BATCHES; b++)
            if (life->peer->batches[job] & (1u << b))
                add_row(t, life, job_names[job], "ns/op", batch_of[b]);
    if (life->peer->bytes && life->workers == 1)
        add_row(t, life, "memory", "bytes/key", 1);
    t->run = run;
    t->what = life;
}
