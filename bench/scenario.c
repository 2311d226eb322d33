/*
 * scenario.c - see scenario.h. The store is used through the public header alone.
 *
 * A scenario: worker processes fill a fresh store to its advertised number of keys, each with keys of its own. They go in
 * waves (an eighth of the keys, at least 128 Ki): claim a wave, ask for a quarter of it while it is in progress, complete
 * it. Then they ask for answers in random order over all keys. Small stores are made and filled again and again.
 *
 * Operation and floor take turns of up to 16 blocks of 1,024 with the same keys; which of the two goes first alternates. A
 * turn is long enough that what it finds in the caches is its own, and short enough (milliseconds) that a change of the
 * clock rate meets both. All processes begin each block together. Keys are written between blocks; what a block contains
 * is said in ops.h. Every eighth block is timed call by call for the percentiles and is left out of the sums. A block in
 * which the kernel gave the core to somebody else is left out of everything: other programs' time is not the store's.
 */
#include "scenario.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "floor.h"
#include "idem.h"
#include "keys.h"

_Static_assert(KEY_BYTES == FLOOR_KEY_BYTES, "the floor hashes what the store hashes");

enum { TURN_BLOCKS = 16, SAMPLE_EVERY = 8, STORE_PATH_BYTES = 280 };

#define SMALL_STORE_OPS UINT64_C(160000) /* claims a scenario makes at least, over fresh stores */
#define WAVE_MIN        UINT64_C(131072)
#define REPLAYS_MIN     UINT64_C(250000)
#define LEASE_MS        600000
#define MEMORY_MAX      (UINT64_C(13) << 30)

/* Shared with the workers: written by worker 0 alone, read by the parent after the run. */
struct from_worker {
    uint64_t store_huge_bytes;
    uint64_t floor_huge_bytes;
};

struct plan {
    const struct scenario *s;
    struct floor *floor;
    struct from_worker *back;
    char path[STORE_PATH_BYTES];
    uint64_t share;      /* keys a process */
    uint64_t wave_share; /* of them, claimed before the first is completed */
    uint64_t round;      /* how many stores came before this one in the scenario */
};

struct worker {
    struct harness *h;
    const struct plan *plan;
    struct floor floor; /* own copy: base addresses and counts */
    unsigned me;
    uint64_t ticks[OP_COUNT]; /* blocks done, over all rounds: decides which are sampled */
    uint64_t turns[OP_COUNT]; /* turns done, over all rounds: decides who goes first */
    uint64_t fill_turn;
    bool untimed;       /* a wave that only fills */
    idem_claim *claims; /* of the wave */
    uint64_t sink;
    uint64_t hashes[OPS_BLOCK];
    struct hist latency; /* of a sampled block, until it is known to be undisturbed */
    struct ops ops;
};

/* ------------------------------------------------------------------ blocks of the floor */

/* claim_at, record_at: this block's place in the process's claims of the wave and in its records. */
static void run_floor(struct worker *w, enum bench_op op, size_t n, uint64_t claim_at, uint64_t record_at)
{
    struct floor *f = &w->floor;
    switch (op) {
    case OP_BEGIN:
        w->sink += floor_claim(f, w->ops.keys, n, claim_at);
        break;
    case OP_MANY16:
        w->sink += floor_claim_many(f, w->ops.keys, n, 16, claim_at);
        break;
    case OP_MANY64:
        w->sink += floor_claim_many(f, w->ops.keys, n, 64, claim_at);
        break;
    case OP_COMPLETE:
        w->sink += floor_complete(f, w->hashes, n, claim_at, record_at);
        break;
    case OP_IN_PROGRESS:
        w->sink += floor_in_progress(f, w->ops.keys, n);
        break;
    case OP_REPLAY16:
        w->sink += floor_replay_many(f, w->ops.keys, n, 16);
        break;
    default:
        w->sink += floor_replay(f, w->ops.keys, n);
        break;
    }
}

/* ------------------------------------------------------------------ stretches, turns, blocks */

/* A run of one operation over `count` keys; the floor's place for the first of them. */
struct stretch {
    enum bench_op op;
    uint64_t count;
    uint64_t first_id;         /* without an order: keys first_id, first_id + 1, ... */
    const struct order *order; /* else first_id + order_at(order, step * i + skip) */
    uint64_t step;
    uint64_t skip;
    uint64_t claim_at;
    uint64_t record_at;
    idem_claim *claims; /* of the first key: filled by claiming, used by completing; NULL: neither */
};

static void write_keys(struct worker *w, const struct stretch *s, uint64_t done, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t id = done + i;
        if (s->order)
            id = order_at(s->order, id * s->step + s->skip);
        key_text(s->first_id + id, w->ops.keys + i * KEY_BYTES);
    }
}

static int op_block(struct worker *w, const struct stretch *s, uint64_t done, size_t n, bool measured, bool sampled)
{
    struct series *sum = harness_series(w->h, w->me, s->op);
    struct stopwatch watch;
    write_keys(w, s, done, n);
    if (s->op == OP_COMPLETE)
        memcpy(w->ops.claims, s->claims + done, n * sizeof *s->claims);
    if (sampled)
        memset(&w->latency, 0, sizeof w->latency);
    if (measured && harness_barrier(w->h) != 0)
        return -1;
    stopwatch_start(&watch);
    if (ops_run(&w->ops, s->op, n, sampled ? &w->latency : NULL) != 0)
        return harness_fail(w->h, "%s", w->ops.error);
    bool undisturbed = stopwatch_stop(&watch);
    if (measured) {
        sum->blocks++;
        sum->disturbed += !undisturbed;
    }
    if (measured && undisturbed && sampled) {
        hist_merge(&sum->latency, &w->latency);
    } else if (measured && undisturbed) {
        sum->op_ns += watch.ns;
        sum->op_count += n;
    }
    if (s->op != OP_COMPLETE && s->claims)
        memcpy(s->claims + done, w->ops.claims, n * sizeof *s->claims);
    return 0;
}

static int floor_block(struct worker *w, const struct stretch *s, uint64_t done, size_t n, bool sampled)
{
    struct series *sum = harness_series(w->h, w->me, s->op);
    struct stopwatch watch;
    write_keys(w, s, done, n);
    if (s->op == OP_COMPLETE)
        floor_hashes(w->ops.keys, n, w->hashes);
    if (harness_barrier(w->h) != 0)
        return -1;
    stopwatch_start(&watch);
    run_floor(w, s->op, n, s->claim_at + done, s->record_at + done);
    bool undisturbed = stopwatch_stop(&watch);
    sum->blocks++;
    if (!undisturbed) {
        sum->disturbed++;
    } else if (!sampled) {
        sum->floor_ns += watch.ns;
        sum->floor_count += n;
    }
    return 0;
}

/* Keys [done, done + n) of the stretch: on the store, and on the floor if the operation is wanted. */
static int run_turn(struct worker *w, const struct stretch *s, uint64_t done, uint64_t n)
{
    bool measured = (w->plan->s->wanted & (1u << s->op)) != 0 && !w->untimed;
    bool floor_first = w->turns[s->op]++ & 1;
    uint64_t tick = w->ticks[s->op];
    for (unsigned half = 0; half < (measured ? 2u : 1u); half++) {
        bool floor_half = measured && (half == 0) == floor_first;
        uint64_t block = tick;
        for (uint64_t at = 0; at < n; at += OPS_BLOCK, block++) {
            size_t size = n - at < OPS_BLOCK ? (size_t)(n - at) : OPS_BLOCK;
            bool sampled = measured && block % SAMPLE_EVERY == SAMPLE_EVERY - 1;
            int result = floor_half ? floor_block(w, s, done + at, size, sampled)
                                    : op_block(w, s, done + at, size, measured, sampled);
            if (result != 0)
                return -1;
        }
        w->ticks[s->op] = block;
    }
    return 0;
}

static uint64_t turn_size(uint64_t left)
{
    return left < TURN_BLOCKS * OPS_BLOCK ? left : TURN_BLOCKS * OPS_BLOCK;
}

static int run_stretch(struct worker *w, const struct stretch *s)
{
    for (uint64_t done = 0; done < s->count; done += turn_size(s->count - done))
        if (run_turn(w, s, done, turn_size(s->count - done)) != 0)
            return -1;
    return 0;
}

/* ------------------------------------------------------------------ phases */

static bool wanted(const struct worker *w, enum bench_op op)
{
    return (w->plan->s->wanted & (1u << op)) != 0;
}

/* Claims keys [from, from + count) of this process; the wanted ways of claiming share them turn by turn. */
static int fill(struct worker *w, uint64_t from, uint64_t count)
{
    enum bench_op ways[3] = {OP_BEGIN};
    unsigned way_count = 0;
    for (enum bench_op op = OP_BEGIN; op <= OP_MANY64 && !w->untimed; op++)
        if (wanted(w, op))
            ways[way_count++] = op;
    if (way_count == 0) {
        way_count = 1;
        ways[0] = w->untimed ? OP_MANY64 : OP_BEGIN;
    }
    struct stretch s = {.claim_at = w->me * w->plan->wave_share,
                        .first_id = w->me * w->plan->share + from,
                        .count = count,
                        .claims = w->claims};
    for (uint64_t done = 0; done < count; done += turn_size(count - done)) {
        s.op = ways[w->fill_turn++ % way_count];
        if (run_turn(w, &s, done, turn_size(count - done)) != 0)
            return -1;
    }
    return 0;
}

/* Asks for running keys in random order: with several processes another one's (so liveness is asked for too), else its own. */
static int ask_running(struct worker *w, uint64_t from, uint64_t count)
{
    uint64_t peer = (w->me + 1) % w->plan->s->processes;
    struct order order = order_of(count, w->plan->round + from);
    struct stretch s = {.op = OP_IN_PROGRESS,
                        .count = count / 4 > 0 ? count / 4 : 1,
                        .first_id = peer * w->plan->share + from,
                        .order = &order,
                        .step = 1};
    return run_stretch(w, &s);
}

static int complete_wave(struct worker *w, uint64_t from, uint64_t count)
{
    struct stretch s = {.op = OP_COMPLETE,
                        .count = count,
                        .first_id = w->me * w->plan->share + from,
                        .claim_at = w->me * w->plan->wave_share,
                        .record_at = w->me * w->plan->share + from,
                        .claims = w->claims};
    return run_stretch(w, &s);
}

/* Asks for answers in random order over all processes' keys. */
static int ask_completed(struct worker *w, enum bench_op op)
{
    uint64_t keys = w->plan->s->keys;
    uint64_t asks = keys / 10 > REPLAYS_MIN ? keys / 10 : REPLAYS_MIN;
    struct order order = order_of(keys, w->plan->round + 7 + op);
    struct stretch s = {.op = op,
                        .count = (asks < keys ? asks : keys) / w->plan->s->processes,
                        .order = &order,
                        .step = w->plan->s->processes,
                        .skip = w->me};
    return run_stretch(w, &s);
}

/* ------------------------------------------------------------------ a worker's life */

static void prepare(struct worker *w)
{
    ops_prepare(&w->ops);
    for (enum bench_op op = 0; op < OP_COUNT; op++) {
        w->ticks[op] = w->plan->round * (w->plan->share / OPS_BLOCK + 1);
        w->turns[op] = w->plan->round / 3; /* a small store has one turn of claiming, of one kind in three */
    }
    w->fill_turn = w->plan->round;
}

static int phases(struct worker *w)
{
    const struct plan *plan = w->plan;
    for (uint64_t from = 0; from < plan->share; from += plan->wave_share) {
        uint64_t count = plan->share - from < plan->wave_share ? plan->share - from : plan->wave_share;
        w->untimed = plan->s->sample && from + plan->wave_share < plan->share;
        if (fill(w, from, count) != 0 || harness_barrier(w->h) != 0)
            return -1;
        if (wanted(w, OP_IN_PROGRESS) && !w->untimed && ask_running(w, from, count) != 0)
            return -1;
        if (harness_barrier(w->h) != 0 || complete_wave(w, from, count) != 0 || harness_barrier(w->h) != 0)
            return -1;
    }
    for (enum bench_op op = OP_REPLAY; op <= OP_REPLAY16; op++)
        if (wanted(w, op) && ask_completed(w, op) != 0)
            return -1;
    return harness_barrier(w->h);
}

static int report_pages(struct worker *w)
{
    idem_stats_data stats = {.size = sizeof stats};
    int got = idem_stats(w->ops.store, &stats);
    if (got != IDEM_OK) {
        ops_wrong(&w->ops, "idem_stats", got);
        return harness_fail(w->h, "%s", w->ops.error);
    }
    w->plan->back->store_huge_bytes = stats.bytes_huge;
    w->plan->back->floor_huge_bytes =
        place_huge_bytes(w->floor.index) + place_huge_bytes(w->floor.claims) + place_huge_bytes(w->floor.records);
    return 0;
}

static int work(struct harness *h, unsigned me, void *ctx)
{
    const struct plan *plan = ctx;
    struct worker *w = calloc(1, sizeof *w);
    int result = -1;
    if (!w)
        return harness_fail(h, "no memory for a worker");
    w->h = h;
    w->me = me;
    w->plan = plan;
    w->floor = *plan->floor;
    prepare(w);
    w->claims = calloc(plan->wave_share, sizeof *w->claims);
    if (!w->claims) {
        harness_fail(h, "no memory for %" PRIu64 " claims", plan->wave_share);
        goto free_worker;
    }
    memset(w->claims, 1, plan->wave_share * sizeof *w->claims);
    int got = idem_open(plan->path, NULL, &w->ops.store);
    if (got != IDEM_OK) {
        ops_wrong(&w->ops, "idem_open in a worker", got);
        harness_fail(h, "%s", w->ops.error);
        goto free_claims;
    }
    if (floor_touch(&w->floor) != 0 || (!plan->s->cold && place_touch_files(plan->path) != 0)) {
        harness_fail(h, "mapping all pages beforehand: %s", strerror(errno));
        goto close_store;
    }
    if (me == 0 && report_pages(w) != 0)
        goto close_store;
    if (harness_barrier(h) == 0)
        result = phases(w);
close_store:
    idem_close(w->ops.store);
free_claims:
    free(w->claims);
free_worker:
    free(w);
    return result;
}

/* ------------------------------------------------------------------ the parent's side */

static int create_store(const struct plan *plan, struct scenario_result *out)
{
    idem_options options = IDEM_OPTIONS_INIT;
    idem_stats_data stats = {.size = sizeof stats};
    idem_store *store = NULL;
    options.flags = IDEM_OPEN_CREATE | IDEM_OPEN_EXCLUSIVE;
    options.huge = plan->s->huge ? IDEM_HUGE_REQUIRE : IDEM_HUGE_OFF;
    options.keys = plan->s->keys;
    options.response_bytes = FLOOR_RESPONSE_BYTES;
    options.lease_ms = LEASE_MS;
    int got = idem_open(plan->path, &options, &store);
    if (got == IDEM_OK)
        got = idem_stats(store, &stats);
    if (got != IDEM_OK)
        snprintf(out->error, sizeof out->error, "creating a store of %" PRIu64 " keys: %s: %s", plan->s->keys,
                 idem_strerror(got), idem_error_detail());
    idem_close(store);
    out->store_bytes = stats.bytes_total;
    out->keys_capacity = stats.keys_capacity;
    return got == IDEM_OK ? 0 : -1;
}

/* One store's life. */
static int run_round(struct harness *h, struct plan *plan, struct scenario_result *out)
{
    if (create_store(plan, out) != 0)
        return -1;
    unsigned limit_s = plan->s->limit_s > 0 ? plan->s->limit_s : 120u + (unsigned)(plan->s->keys / 20000);
    int result = harness_run(h, work, plan, limit_s);
    if (result != 0)
        snprintf(out->error, sizeof out->error, "%s", harness_error(h));
    int got = idem_destroy(plan->path);
    if (got != IDEM_OK && result == 0) {
        snprintf(out->error, sizeof out->error, "idem_destroy: %s: %s", idem_strerror(got), idem_error_detail());
        result = -1;
    }
    return result;
}

/* Refuses what would not fit, before anything is allocated. The store is taken at 1.5 times its payload. */
static int check_memory(const struct plan *plan, uint64_t wave, char *error, size_t error_bytes)
{
    const struct scenario *s = plan->s;
    uint64_t store = s->keys * (KEY_BYTES + FLOOR_RESPONSE_BYTES) * 3 / 2 + (UINT64_C(64) << 20);
    uint64_t need = store + floor_bytes(s->keys, wave) + wave * sizeof(idem_claim);
    uint64_t have = place_free_bytes(s->place);
    if (have > MEMORY_MAX)
        have = MEMORY_MAX;
    if (need <= have)
        return 0;
    snprintf(error, error_bytes, "left out: needs %" PRIu64 " MiB, %" PRIu64 " MiB are free", need >> 20, have >> 20);
    return -1;
}

void scenario_run(const struct scenario *s, struct scenario_result *out)
{
    struct floor floor = {0};
    memset(out, 0, sizeof *out);
    uint64_t wave = s->keys / 8 > WAVE_MIN ? s->keys / 8 : WAVE_MIN;
    struct plan plan = {.s = s, .floor = &floor, .share = s->keys / s->processes};
    if (wave > s->keys)
        wave = s->keys;
    plan.wave_share = (wave + s->processes - 1) / s->processes;
    wave = plan.wave_share * s->processes;
    snprintf(plan.path, sizeof plan.path, "%s/store", s->place->dir);

    if (s->huge && !s->place->huge) {
        snprintf(out->error, sizeof out->error, "no huge pages: %s", s->place->no_huge);
        out->left_out = true;
        return;
    }
    if (check_memory(&plan, wave, out->error, sizeof out->error) != 0) {
        out->left_out = true;
        return;
    }
    plan.back = mmap(NULL, sizeof *plan.back, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct harness *h = harness_create(s->processes);
    if (plan.back == MAP_FAILED || !h)
        snprintf(out->error, sizeof out->error, "no memory for the control block");
    else if (floor_create(&floor, s->place, s->keys, wave, s->huge, out->error, sizeof out->error) == 0) {
        uint64_t rounds = s->brief ? 3 : s->keys < SMALL_STORE_OPS ? SMALL_STORE_OPS / s->keys : 1;
        int result = 0;
        for (plan.round = 0; plan.round < rounds && result == 0; plan.round++)
            result = run_round(h, &plan, out);
        for (unsigned op = 0; op < OP_COUNT; op++)
            out->series[op] = harness_sum(h, op);
        out->store_huge_bytes = plan.back->store_huge_bytes;
        out->floor_huge_bytes = plan.back->floor_huge_bytes;
        out->floor_bytes = floor_bytes(s->keys, wave);
        floor_free(&floor);
    }
    harness_free(h);
    if (plan.back != MAP_FAILED)
        munmap(plan.back, sizeof *plan.back);
}
