/*
 * hot.c - two processes at one key (shapes.h).
 *
 * hot_claim   Both claim the same new keys in the same order, and begin every block of 16 together: neck and neck, key by key. Time
 *             of a call, as one process sees it, winning and losing mixed. Every key must have been won exactly once,
 *             and who did not win must have been told that it is in progress. On a machine that is used by others, where the racers wait
 *             for each other's time slices, a race ends after RACE_S with the keys it came to. Its floor: a new key's (floor.h), raced for in
 *             the same way, block by block; who lost does nothing more.
 * hot_replay  One completed key, replayed by one of them and by both in turns, every byte compared now and then: how many times
 *             one process's throughput both have together.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "floor.h"
#include "harness.h"
#include "shapes.h"

enum { RACERS = 2, BLOCK = 16, REPLAYS = 4096, RACE_S = 8, FLOOR_WAVE = 1 << 16 };
enum { SERIES_ALONE, SERIES_BOTH };

struct race {
    const struct shape_store *store;
    struct floor floor; /* shared memory, FLOOR_WAVE claims of each racer */
    uint64_t keys;
    unsigned char *won; /* shared: of each racer, a byte a key */
    uint64_t *over;     /* shared: where the race ended, if its time was over before its keys */
    uint64_t until_ns;
};

/* ------------------------------------------------------------------ racing */

static int floor_block(struct harness *h, unsigned me, struct floor *floor, uint64_t first)
{
    unsigned char keys[BLOCK * KEY_BYTES];
    struct series *sum = harness_series(h, me, SERIES_BOTH);
    struct stopwatch watch;
    for (unsigned i = 0; i < BLOCK; i++)
        key_text(first + i, keys + i * KEY_BYTES);
    if (harness_barrier(h) != 0)
        return -1;
    stopwatch_start(&watch);
    floor_claim(floor, keys, BLOCK, me * FLOOR_WAVE + first % FLOOR_WAVE);
    if (stopwatch_stop(&watch)) {
        sum->floor_ns += watch.ns;
        sum->floor_count += BLOCK;
    }
    return 0;
}

static int race_block(struct harness *h, unsigned me, idem_store *store, uint64_t first, unsigned char *won)
{
    unsigned char keys[BLOCK * KEY_BYTES];
    idem_request requests[BLOCK];
    int said[BLOCK];
    struct series *sum = harness_series(h, me, SERIES_BOTH);
    struct stopwatch watch;
    for (unsigned i = 0; i < BLOCK; i++) {
        key_text(first + i, keys + i * KEY_BYTES);
        requests[i] = shape_request(keys + i * KEY_BYTES);
    }
    if (harness_barrier(h) != 0)
        return -1;
    stopwatch_start(&watch);
    for (unsigned i = 0; i < BLOCK; i++) {
        idem_claim claim;
        said[i] = idem_begin(store, &requests[i], &claim, NULL);
    }
    bool undisturbed = stopwatch_stop(&watch);
    for (unsigned i = 0; i < BLOCK; i++) {
        if (said[i] != IDEM_CLAIMED && said[i] != IDEM_IN_PROGRESS)
            return harness_fail(h, "idem_begin of a key that is raced for said %d (%s)", said[i],
                                idem_strerror(said[i]));
        won[first + i] = said[i] == IDEM_CLAIMED;
    }
    sum->blocks++;
    if (!undisturbed) {
        sum->disturbed++;
        return 0;
    }
    sum->op_ns += watch.ns;
    sum->op_count += BLOCK;
    hist_add(&sum->latency, watch.ns / BLOCK);
    return 0;
}

static int race_worker(struct harness *h, unsigned me, void *ctx)
{
    const struct race *race = ctx;
    struct floor floor = race->floor;
    int result = 0;
    idem_store *store = shape_attach(race->store, IDEM_OPEN_NO_FLUSHER);
    if (store == NULL || floor_touch(&floor) != 0)
        return harness_fail(h, "attaching: %s", store == NULL ? idem_error_detail() : "the floor's memory");
    for (uint64_t at = 0; at + BLOCK <= race->keys && result == 0; at += BLOCK) {
        if (me == 0 && harness_now_ns() > race->until_ns)
            __atomic_store_n(race->over, at, __ATOMIC_SEQ_CST);
        result = floor_block(h, me, &floor, at);
        if (result == 0)
            result = race_block(h, me, store, at, race->won + me * race->keys);
        if (__atomic_load_n(race->over, __ATOMIC_SEQ_CST) <= at) /* said before the barrier that began this block */
            break;
    }
    if (result == 0)
        result = harness_barrier(h);
    idem_close(store);
    return result;
}

static void count_winners(const struct race *race, uint64_t keys, struct trial_result *out)
{
    for (uint64_t i = 0; i < keys && out->why[0] == '\0'; i++)
        if (race->won[i] + race->won[race->keys + i] != 1)
            snprintf(out->why, sizeof out->why, "key %" PRIu64 " was won %d times", i,
                     race->won[i] + race->won[race->keys + i]);
}

static void run_race(const struct trial *self, const struct conditions *c, unsigned round, unsigned limit_s,
                     struct trial_result *out)
{
    struct shape_store store = {0};
    struct race race = {.store = &store, .keys = self->rows[0].keys};
    struct harness *h = harness_create(RACERS);
    (void)round;
    size_t won_bytes = RACERS * race.keys / BLOCK * BLOCK;
    race.won = mmap(NULL, won_bytes + sizeof *race.over, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (h == NULL || race.won == MAP_FAILED)
        snprintf(out->why, sizeof out->why, "no memory for two racers");
    else if (shape_create(&store, c, "hot", race.keys, self->rows[0].huge, NULL, out) == 0 &&
             floor_create(&race.floor, c->place, race.keys, RACERS * FLOOR_WAVE, self->rows[0].huge, out->why,
                          sizeof out->why) == 0) {
        memset(race.won, 0, won_bytes);
        race.over = (uint64_t *)(void *)(race.won + won_bytes);
        *race.over = UINT64_MAX;
        race.until_ns = harness_now_ns() + RACE_S * UINT64_C(1000000000);
        if (harness_run(h, race_worker, &race, limit_s) != 0)
            snprintf(out->why, sizeof out->why, "%s", harness_error(h));
        uint64_t keys = *race.over < race.keys ? *race.over + BLOCK : race.keys;
        if (out->why[0] == '\0' && shape_check(&store, keys, out) == 0)
            count_winners(&race, keys, out);
        struct series sum = harness_sum(h, SERIES_BOTH);
        out->of[0].missing = sum.op_count == 0;
        out->of[0].value = sum.op_count > 0 ? (double)sum.op_ns / (double)sum.op_count : 0;
        out->of[0].floor = sum.floor_count > 0 ? (double)sum.floor_ns / (double)sum.floor_count : 0;
        out->of[0].p50_ns = (double)hist_quantile(&sum.latency, 0.5);
        out->of[0].p99_ns = (double)hist_quantile(&sum.latency, 0.99);
    }
    if (race.floor.index != NULL)
        floor_free(&race.floor);
    shape_destroy(&store);
    if (race.won != MAP_FAILED)
        munmap(race.won, won_bytes + sizeof *race.over);
    harness_free(h);
}

/* ------------------------------------------------------------------ replaying */

struct replays {
    const struct shape_store *store;
    uint64_t turns;
};

static int replay_block(struct harness *h, unsigned me, unsigned series, idem_store *store, const idem_request *request)
{
    unsigned char bytes[SHAPE_ANSWER_BYTES];
    idem_reply reply = IDEM_REPLY_INIT;
    idem_claim claim;
    struct series *sum = harness_series(h, me, series);
    struct stopwatch watch;
    reply.buffer = bytes;
    reply.buffer_bytes = sizeof bytes;
    stopwatch_start(&watch);
    for (unsigned i = 0; i < REPLAYS; i++) {
        int got = idem_begin(store, request, &claim, &reply);
        if (got != IDEM_REPLAY)
            return harness_fail(h, "idem_begin of a completed key said %d (%s)", got, idem_strerror(got));
    }
    if (stopwatch_stop(&watch)) {
        sum->op_ns += watch.ns;
        sum->op_count += REPLAYS;
    }
    if (!shape_answered(&reply, 0))
        return harness_fail(h, "a replay is not the answer that was stored");
    idem_reply_free(&reply);
    return 0;
}

static int replay_worker(struct harness *h, unsigned me, void *ctx)
{
    const struct replays *r = ctx;
    unsigned char key[KEY_BYTES];
    int result = 0;
    idem_store *store = shape_attach(r->store, IDEM_OPEN_NO_FLUSHER);
    if (store == NULL)
        return harness_fail(h, "attaching: %s", idem_error_detail());
    key_text(0, key);
    idem_request request = shape_request(key);
    for (uint64_t turn = 0; turn < r->turns && result == 0; turn++) {
        result = harness_barrier(h);
        if (result == 0 && turn % RACERS == me)
            result = replay_block(h, me, SERIES_ALONE, store, &request);
        if (result == 0)
            result = harness_barrier(h);
        if (result == 0)
            result = replay_block(h, me, SERIES_BOTH, store, &request);
    }
    idem_close(store);
    return result;
}

static int complete_one(const struct shape_store *s, struct trial_result *out)
{
    unsigned char key[KEY_BYTES], answer[SHAPE_ANSWER_BYTES];
    idem_response response = IDEM_RESPONSE_INIT;
    idem_claim claim;
    key_text(0, key);
    shape_answer(0, answer);
    idem_request request = shape_request(key);
    response.status = 200;
    response.body = answer;
    response.body_bytes = sizeof answer;
    if (idem_begin(s->handle, &request, &claim, NULL) == IDEM_CLAIMED &&
        idem_complete(s->handle, &claim, &response) == IDEM_OK)
        return 0;
    snprintf(out->why, sizeof out->why, "one key: %s", idem_error_detail());
    return -1;
}

static void run_replays(const struct trial *self, const struct conditions *c, unsigned round, unsigned limit_s,
                        struct trial_result *out)
{
    struct shape_store store = {0};
    struct replays r = {.store = &store, .turns = shape_keys(c, 200, 100, 4)};
    struct harness *h = harness_create(RACERS);
    (void)round;
    if (h == NULL)
        snprintf(out->why, sizeof out->why, "no memory for two processes");
    else if (shape_create(&store, c, "hot", 100000, self->rows[0].huge, NULL, out) == 0 &&
             complete_one(&store, out) == 0) {
        if (harness_run(h, replay_worker, &r, limit_s) != 0)
            snprintf(out->why, sizeof out->why, "%s", harness_error(h));
        struct series alone = harness_sum(h, SERIES_ALONE), both = harness_sum(h, SERIES_BOTH);
        struct figures *f = &out->of[0];
        f->missing = alone.op_count == 0 || both.op_count == 0;
        if (!f->missing)
            f->value =
                RACERS * ((double)alone.op_ns / (double)alone.op_count) / ((double)both.op_ns / (double)both.op_count);
    }
    shape_destroy(&store);
    harness_free(h);
}

int hot_add(struct trials *all, const struct conditions *c)
{
    uint64_t keys = shape_keys(c, 1000000, 1000000, 2048) / BLOCK * BLOCK;
    for (unsigned huge = 0; huge < 2; huge++) {
        struct trial race = {.name = "one hot key, raced for", .row_count = 1, .run = run_race};
        struct trial replays = {.name = "one hot key, replayed", .row_count = 1, .run = run_replays};
        race.rows[0] = shape_row("hot_claim", "idem", "ns/op", keys, RACERS, huge);
        replays.rows[0] = shape_row("hot_replay", "idem", "x of one", 1, RACERS, huge);
        if (trials_add(all, &race) != 0 || trials_add(all, &replays) != 0)
            return -1;
    }
    return 0;
}
