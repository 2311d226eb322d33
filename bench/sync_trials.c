/*
 * sync_trials.c - durable claims a second by how many are outstanding: 1, 8, 64, 1,024 (shapes.h).
 *
 * sync_claim  idem as web workers use it: that many processes with one claim each; for 1,024 outstanding 64 processes with
 *             idem_begin_many of 16. Beside it the empty group commit in the same processes (the row's floor), and the flush
 *             alone (sync.h).
 * sync_batch  one process, so many claims in one call: idem_begin_many, and every durable peer (peer.h) at its best: so many
 *             in one transaction or pipeline.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "harness.h"
#include "peers/list.h"
#include "place.h"
#include "shapes.h"
#include "sync.h"

enum { SIZES = 4, TURN_MS = 80, OUTSTANDING_MAX = 1024, CLAIMS_MAX = 60000 };

struct size {
    unsigned outstanding, workers, batch;
};
static const struct size many_workers[SIZES] = {{1, 1, 1}, {8, 8, 1}, {64, 64, 1}, {1024, 64, 16}};
static const struct size one_worker[SIZES] = {{1, 1, 1}, {8, 1, 8}, {64, 1, 64}, {1024, 1, 1024}};

enum { ROW_CLAIMS, ROW_CONTROL, ROW_FLUSH, ROW_P99, ROW_SHARE, ROW_CONTROL_P99, ROWS };

static void set_latency(struct figures *f, const struct hist *h)
{
    f->p50_ns = (double)hist_quantile(h, 0.5);
    f->p99_ns = (double)hist_quantile(h, 0.99);
    f->p999_ns = (double)hist_quantile(h, 0.999);
}

static void run(const struct trial *self, const struct conditions *c, unsigned round, unsigned limit_s,
                struct trial_result *out)
{
    const struct size *size = self->what;
    char store[SHAPE_PATH_BYTES], disk[SHAPE_PATH_BYTES];
    struct sync_wish wish = {.store = store,
                             .disk = disk,
                             .workers = size->workers,
                             .batch = size->batch,
                             .turns = c->smoke   ? 1
                                      : c->quick ? 3
                                                 : 5,
                             .turn_ms = c->smoke ? 10 : TURN_MS};
    struct sync_result *r = calloc(1, sizeof *r);
    (void)round;
    (void)limit_s;
    snprintf(store, sizeof store, "%.200s/sync", c->place->dir);
    snprintf(disk, sizeof disk, "%.200s/sync", c->disk);
    if (r == NULL || mkdir(disk, 0700) != 0) {
        snprintf(out->why, sizeof out->why, "%s: %s", disk, strerror(errno));
        free(r);
        return;
    }
    sync_rate(&wish, r);
    place_remove_tree(disk);
    place_remove_tree(store);
    snprintf(out->why, sizeof out->why, "%.400s", r->why);
    for (unsigned side = 0; side < SYNC_SIDES; side++) {
        struct figures *f = &out->of[side == SYNC_CLAIMS ? ROW_CLAIMS : side == SYNC_CONTROL ? ROW_CONTROL : ROW_FLUSH];
        f->value = r->per_s[side];
        set_latency(f, &r->latency[side]);
    }
    out->of[ROW_CLAIMS].floor = r->per_s[SYNC_CONTROL];
    out->of[ROW_P99].value = out->of[ROW_CLAIMS].p99_ns / out->of[ROW_FLUSH].p99_ns;
    out->of[ROW_CONTROL_P99].value = out->of[ROW_CONTROL].p99_ns / out->of[ROW_FLUSH].p99_ns;
    out->of[ROW_SHARE].value = r->per_s[SYNC_CLAIMS] / r->per_s[SYNC_FLUSH];
    free(r);
}

/* ------------------------------------------------------------------ peers */

struct entrant {
    const struct peer *peer;
    unsigned outstanding;
};

struct contest {
    const struct entrant *e;
    struct peer_place place;
    uint64_t for_ns;
};

static int claim_on(struct harness *h, const struct contest *t, void *own, struct series *sum)
{
    static unsigned char keys[OUTSTANDING_MAX * KEY_BYTES], out[PEER_BATCH_MAX * PEER_ANSWER_BYTES];
    const struct peer *peer = t->e->peer;
    unsigned n = t->e->outstanding;
    unsigned char *claims = calloc(n, peer->claim_bytes + 1);
    uint64_t id = 0, from_ns = harness_now_ns(), before_ns = from_ns;
    int result = claims == NULL ? harness_fail(h, "no memory for claims") : 0;
    while (result == 0 && before_ns - from_ns < t->for_ns && id < CLAIMS_MAX) {
        for (unsigned i = 0; i < n; i++)
            key_text(id++, keys + i * KEY_BYTES);
        struct peer_work work = {.keys = keys, .n = n, .batch = n, .claims = claims, .out = out};
        uint64_t begun_ns = harness_now_ns();
        long got = peer->run[PEER_CLAIM](own, &work);
        before_ns = harness_now_ns();
        if (got != (long)n)
            result = harness_fail(h, "%u new keys: %ld: %s", n, got, got < 0 ? peer->error(own) : "were new");
        sum->op_ns += before_ns - begun_ns;
        sum->op_count += n;
        hist_add(&sum->latency, before_ns - begun_ns);
    }
    /* They are there. */
    struct peer_work again = {.keys = keys, .n = n, .batch = n, .claims = claims, .out = out};
    if (result == 0 && peer->run[PEER_CLAIM](own, &again) != 0)
        result = harness_fail(h, "keys that are claimed were new again");
    free(claims);
    return result;
}

static int host(struct harness *h, unsigned me, void *ctx)
{
    const struct contest *t = ctx;
    const struct peer *peer = t->e->peer;
    char why[PEER_WHY_BYTES] = "no memory";
    void *shared = peer->prepare(peer, &t->place, why);
    if (shared == NULL)
        return harness_fail(h, "%s", why);
    void *own = peer->attach(shared, me, why);
    int result = own == NULL ? harness_fail(h, "attach: %s", why) : claim_on(h, t, own, harness_series(h, me, 0));
    if (own != NULL)
        peer->detach(own);
    peer->end(shared);
    return result;
}

static void run_peer(const struct trial *self, const struct conditions *c, unsigned round, unsigned limit_s,
                     struct trial_result *out)
{
    char dir[SHAPE_PATH_BYTES], disk[SHAPE_PATH_BYTES];
    struct contest t = {.e = self->what,
                        .place = {.dir = dir, .disk = disk, .keys = CLAIMS_MAX, .workers = 1},
                        .for_ns = (c->smoke   ? 10u
                                   : c->quick ? 200u
                                              : 400u) *
                                  UINT64_C(1000000)};
    struct harness *h = harness_create(1);
    (void)round;
    snprintf(dir, sizeof dir, "%.200s/sync", c->place->dir);
    snprintf(disk, sizeof disk, "%.200s/sync", c->disk);
    if (h == NULL || mkdir(dir, 0700) != 0 || mkdir(disk, 0700) != 0)
        snprintf(out->why, sizeof out->why, "%s: %s", disk, strerror(errno));
    else if (harness_run_host(h, host, &t, limit_s) != 0)
        snprintf(out->why, sizeof out->why, "%s", harness_error(h));
    else {
        struct series s = harness_sum(h, 0);
        out->of[0].missing = s.op_ns == 0;
        out->of[0].value = s.op_ns > 0 ? (double)s.op_count * 1e9 / (double)s.op_ns : 0;
        set_latency(&out->of[0], &s.latency);
    }
    place_remove_tree(dir);
    place_remove_tree(disk);
    harness_free(h);
}

static int add_peer(struct trials *all, const struct peer *peer)
{
    enum { ENTRANTS_MAX = 64 };
    static struct entrant entrants[ENTRANTS_MAX];
    static unsigned count;
    for (unsigned i = 0; i < SIZES; i++) {
        unsigned n = one_worker[i].outstanding;
        if (count == ENTRANTS_MAX)
            return -1;
        entrants[count] = (struct entrant){peer, n};
        struct trial t = {.row_count = 1, .run = run_peer, .what = &entrants[count++]};
        snprintf(t.name, sizeof t.name, "%.60s, %u durable claims in one call", peer->name, n);
        t.rows[0] = shape_row("sync_batch", peer->name, "op/s", 0, n, false);
        if (trials_add(all, &t) != 0)
            return -1;
    }
    return 0;
}

static int add_claims(struct trials *all, const struct size *size)
{
    static const char *const who[ROWS] = {"idem", "control", "flush", "idem", "idem", "control"};
    static const char *const job[ROWS] = {"sync_claim", "sync_claim", "sync_flush",
                                          "sync_p99",   "sync_share", "sync_p99"};
    static const char *const unit[ROWS] = {"op/s", "op/s", "op/s", "x flush's p99", "claims a flush", "x flush's p99"};
    struct trial t = {.row_count = ROWS, .run = run, .what = size};
    snprintf(t.name, sizeof t.name, "%u durable claims outstanding", size->outstanding);
    for (unsigned r = 0; r < ROWS; r++)
        t.rows[r] = shape_row(job[r], who[r], unit[r], 0, size->outstanding, false);
    return trials_add(all, &t);
}

static int add_batch(struct trials *all, const struct size *size)
{
    struct trial t = {.row_count = 1, .run = run, .what = size};
    snprintf(t.name, sizeof t.name, "%u durable claims in one call", size->outstanding);
    t.rows[0] = shape_row("sync_batch", "idem", "op/s", 0, size->outstanding, false);
    return trials_add(all, &t);
}

int sync_add(struct trials *all, const struct conditions *c)
{
    (void)c;
    for (unsigned i = 0; i < SIZES; i++)
        if (add_claims(all, &many_workers[i]) != 0 || add_batch(all, &one_worker[i]) != 0)
            return -1;
    for (unsigned f = 0; peers_built[f] != NULL; f++)
        for (const struct peer *const *p = peers_built[f]; *p != NULL; p++)
            if ((*p)->durable && strncmp((*p)->name, "idem", 4) != 0 && add_peer(all, *p) != 0)
                return -1;
    return 0;
}
