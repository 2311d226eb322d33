/*
 * crowd.c - 64 processes on the cores there are, against 2 (shapes.h).
 *
 * The same keys are claimed, completed and replayed, each process a share of its own, by 2 processes and by 64: how many times the
 * 2 processes' throughput the 64 have, from the moment all are let go (each has handled some keys by then) until the last one
 * is done. Beside it (the row's
 * floor) the same for a loop that shares nothing: what so many processes cost by themselves.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "floor.h"
#include "harness.h"
#include "shapes.h"

enum { FEW = 2, MANY = 64, LOOPS_A_KEY = 12, WARM_KEYS = 64, NAPS_MAX = 20000 };

/* Shared: when they were let go, and when each was done. */
struct times {
    uint64_t from_ns;
    uint64_t to_ns[MANY];
};

struct crowd {
    const struct shape_store *store; /* NULL: the loop that shares nothing */
    uint64_t share;                  /* keys a process */
    struct times *times;
};

static int handle(struct harness *h, idem_store *store, uint64_t id)
{
    unsigned char key[KEY_BYTES], answer[SHAPE_ANSWER_BYTES], bytes[SHAPE_ANSWER_BYTES];
    idem_response response = IDEM_RESPONSE_INIT;
    idem_reply reply = IDEM_REPLY_INIT;
    idem_claim claim;
    key_text(id, key);
    shape_answer(id, answer);
    idem_request request = shape_request(key);
    response.status = 200;
    response.body = answer;
    response.body_bytes = sizeof answer;
    reply.buffer = bytes;
    reply.buffer_bytes = sizeof bytes;
    int got = idem_begin(store, &request, &claim, NULL);
    if (got != IDEM_CLAIMED)
        return harness_fail(h, "idem_begin of a new key said %d (%s)", got, idem_strerror(got));
    got = idem_complete(store, &claim, &response);
    if (got != IDEM_OK)
        return harness_fail(h, "idem_complete said %d (%s)", got, idem_strerror(got));
    got = idem_begin(store, &request, &claim, &reply);
    if (got != IDEM_REPLAY || !shape_answered(&reply, id))
        return harness_fail(h, "a replay said %d (%s), or not the answer that was stored", got, idem_strerror(got));
    return 0;
}

/* About as long as a key of handle(): texts and answers alone. */
static void spend(uint64_t id)
{
    unsigned char key[KEY_BYTES], answer[SHAPE_ANSWER_BYTES];
    for (unsigned i = 0; i < LOOPS_A_KEY; i++) {
        key_text(id + i, key);
        shape_answer(id + key[0], answer);
        __asm__ volatile("" : : "r"(answer) : "memory");
    }
}

static void wait_for_all(const struct harness *h, const struct times *times)
{
    unsigned done = 0;
    for (unsigned naps = 0; naps < NAPS_MAX && done < harness_processes(h); naps++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        for (done = 0; done < harness_processes(h) && __atomic_load_n(&times->to_ns[done], __ATOMIC_SEQ_CST) != 0;)
            done++;
    }
}

static int work(struct harness *h, unsigned me, void *ctx)
{
    const struct crowd *crowd = ctx;
    int result = 0;
    idem_store *store = crowd->store != NULL ? shape_attach(crowd->store, IDEM_OPEN_NO_FLUSHER) : NULL;
    if (crowd->store != NULL && store == NULL)
        return harness_fail(h, "attaching: %s", idem_error_detail());
    uint64_t warm = MANY * crowd->share * MANY + me * WARM_KEYS; /* behind all others */
    for (uint64_t i = 0; store != NULL && i < WARM_KEYS && result == 0; i++)
        result = handle(h, store, warm + i);
    if (result != 0 || harness_barrier(h) != 0)
        return -1;
    if (me == 0)
        crowd->times->from_ns = harness_now_ns();
    if (harness_barrier(h) != 0)
        return -1;
    for (uint64_t i = 0; i < crowd->share && result == 0; i++) {
        if (store != NULL)
            result = handle(h, store, me * crowd->share + i);
        else
            spend(me * crowd->share + i);
    }
    __atomic_store_n(&crowd->times->to_ns[me], harness_now_ns(), __ATOMIC_SEQ_CST);
    wait_for_all(h, crowd->times); /* to unmap a store takes longer than to handle a share of its keys */
    idem_close(store);
    return result;
}

/* Keys a second; 0: out->why says why there are none. */
static double rate(const struct conditions *c, uint64_t keys, unsigned processes, bool shares, bool huge,
                   unsigned limit_s, struct times *times, struct trial_result *out)
{
    struct shape_store store = {0};
    struct crowd crowd = {.store = shares ? &store : NULL, .share = keys / processes, .times = times};
    struct harness *h = harness_create(processes);
    double per_s = 0;
    memset(times, 0, sizeof *times);
    if (h == NULL)
        snprintf(out->why, sizeof out->why, "no memory for %u processes", processes);
    else if (!shares || shape_create(&store, c, "crowd", keys + MANY * WARM_KEYS, huge, NULL, out) == 0) {
        if (harness_run(h, work, &crowd, limit_s) != 0)
            snprintf(out->why, sizeof out->why, "%s", harness_error(h));
        else if (!shares || shape_check(&store, (crowd.share + WARM_KEYS) * processes, out) == 0) {
            uint64_t to_ns = 0;
            for (unsigned i = 0; i < processes; i++)
                to_ns = times->to_ns[i] > to_ns ? times->to_ns[i] : to_ns;
            per_s = (double)(crowd.share * processes) * 1e9 / (double)(to_ns - times->from_ns);
        }
    }
    shape_destroy(&store);
    harness_free(h);
    return per_s;
}

static void run(const struct trial *self, const struct conditions *c, unsigned round, unsigned limit_s,
                struct trial_result *out)
{
    uint64_t keys = self->rows[0].keys;
    bool huge = self->rows[0].huge;
    double per_s[2][2] = {{0}};
    struct times *times = mmap(NULL, sizeof *times, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (times == MAP_FAILED) {
        snprintf(out->why, sizeof out->why, "no memory for 64 processes");
        return;
    }
    /* Few first or many first, by turns. */
    for (unsigned i = 0; i < 4 && out->why[0] == '\0'; i++) {
        unsigned many = (i + round) % 2, shares = i / 2;
        per_s[shares][many] = rate(c, keys, many ? MANY : FEW, shares, huge, limit_s / 4, times, out);
    }
    munmap(times, sizeof *times);
    if (out->why[0] != '\0')
        return;
    out->of[0].value = per_s[1][1] / per_s[1][0];
    out->of[0].floor = per_s[0][1] / per_s[0][0];
}

int crowd_add(struct trials *all, const struct conditions *c)
{
    for (unsigned huge = 0; huge < 2; huge++) {
        struct trial t = {.name = "64 processes against 2", .row_count = 1, .run = run};
        /* 64 processes map all of the store beforehand: four million small pages would take them longer than the work. */
        uint64_t keys = huge ? shape_keys(c, 1024000, 512000, 6400) : shape_keys(c, 256000, 256000, 6400);
        t.rows[0] = shape_row("crowd", "idem", "x of two", keys, MANY, huge);
        if (trials_add(all, &t) != 0)
            return -1;
    }
    return 0;
}
