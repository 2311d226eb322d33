/*
 * answers.c - "in progress" and "mismatch" beside a replay (shapes.h).
 *
 * Half of the keys are completed, half are running. One process asks for its own; of two each asks for the other's, so that
 * whether an owner lives has to be asked of the kernel. In random order, a block of 1,024 of each kind in turns, which kind comes first goes round. Verdicts are
 * checked call by call, and the bytes of a block's last answer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "shapes.h"

enum { BLOCK = 1024 };
enum kind { KIND_REPLAY, KIND_IN_PROGRESS, KIND_MISMATCH_COMPLETED, KIND_MISMATCH_RUNNING, KINDS };

static const char *const jobs[KINDS] = {"answer_replay", "answer_in_progress", "answer_mismatch_completed",
                                        "answer_mismatch_running"};

struct plan {
    const struct shape_store *store;
    unsigned workers;
    uint64_t share; /* keys a worker, of which the first half is completed */
    uint64_t asks;  /* of each kind, a worker */
};

struct worker {
    struct harness *h;
    const struct plan *plan;
    unsigned me;
    idem_store *store;
    uint64_t zero; /* always 0, but the compiler does not know */
    unsigned char keys[(BLOCK + 1) * KEY_BYTES];
    unsigned char bytes[2 * SHAPE_ANSWER_BYTES];
};

static int fill(struct worker *w)
{
    unsigned char answer[SHAPE_ANSWER_BYTES];
    idem_response response = IDEM_RESPONSE_INIT;
    response.status = 200;
    response.body = answer;
    response.body_bytes = sizeof answer;
    for (uint64_t i = 0; i < w->plan->share; i++) {
        uint64_t id = w->me * w->plan->share + i;
        idem_claim claim;
        key_text(id, w->keys);
        shape_answer(id, answer);
        idem_request request = shape_request(w->keys);
        int got = idem_begin(w->store, &request, &claim, NULL);
        if (got == IDEM_CLAIMED && i < w->plan->share / 2)
            got = idem_complete(w->store, &claim, &response) == IDEM_OK ? IDEM_CLAIMED : -1;
        if (got != IDEM_CLAIMED)
            return harness_fail(w->h, "filling said %d: %s", got, idem_error_detail());
    }
    return 0;
}

/* A block of one kind, chained: the next key's address depends on the last answer (floor.h). */
static int ask_block(struct worker *w, enum kind kind, const struct order *order, uint64_t at)
{
    static const int expected[KINDS] = {IDEM_REPLAY, IDEM_IN_PROGRESS, IDEM_MISMATCH, IDEM_MISMATCH};
    struct series *sum = harness_series(w->h, w->me, kind);
    uint64_t half = w->plan->share / 2, peer = (w->me + 1) % w->plan->workers * w->plan->share;
    bool running = kind == KIND_IN_PROGRESS || kind == KIND_MISMATCH_RUNNING;
    idem_reply reply = IDEM_REPLY_INIT;
    idem_claim claim;
    struct stopwatch watch;
    uint64_t chain = 0, id = 0;
    for (unsigned i = 0; i < BLOCK; i++) {
        id = peer + (running ? half : 0) + order_at(order, (at + i) % half);
        key_text(id, w->keys + i * KEY_BYTES);
    }
    idem_request request = shape_request(w->keys);
    if (kind == KIND_MISMATCH_COMPLETED || kind == KIND_MISMATCH_RUNNING)
        request.fingerprint++;
    reply.buffer = w->bytes;
    reply.buffer_bytes = sizeof w->bytes;
    if (harness_barrier(w->h) != 0)
        return -1;
    stopwatch_start(&watch);
    for (unsigned i = 0; i < BLOCK; i++) {
        request.key.key = w->keys + i * KEY_BYTES + (chain & w->zero);
        int got = idem_begin(w->store, &request, &claim, &reply);
        if (got != expected[kind])
            return harness_fail(w->h, "%s said %d (%s)", jobs[kind], got, idem_strerror(got));
        uint64_t last = reply.token + (uint64_t)got;
        if (kind == KIND_REPLAY)
            memcpy(&last, (const unsigned char *)reply.body + SHAPE_ANSWER_BYTES - sizeof last, sizeof last);
        chain += last;
    }
    bool undisturbed = stopwatch_stop(&watch);
    if (kind == KIND_REPLAY && !shape_answered(&reply, id))
        return harness_fail(w->h, "a replay is not the answer that was stored");
    idem_reply_free(&reply);
    sum->blocks++;
    if (undisturbed) {
        sum->op_ns += watch.ns;
        sum->op_count += BLOCK;
    }
    return 0;
}

static int work(struct harness *h, unsigned me, void *ctx)
{
    static volatile uint64_t zero;
    const struct plan *plan = ctx;
    struct worker *w = calloc(1, sizeof *w);
    if (w == NULL)
        return harness_fail(h, "no memory for a worker");
    *w = (struct worker){
        .h = h, .plan = plan, .me = me, .zero = zero, .store = shape_attach(plan->store, IDEM_OPEN_NO_FLUSHER)};
    struct order order = order_of(plan->share / 2, 5);
    int result = w->store == NULL ? harness_fail(h, "attaching: %s", idem_error_detail()) : fill(w);
    if (result == 0)
        result = harness_barrier(h);
    for (uint64_t at = 0, turn = 0; at < plan->asks && result == 0; at += BLOCK, turn++)
        for (unsigned i = 0; i < KINDS && result == 0; i++)
            result = ask_block(w, (enum kind)((turn + i) % KINDS), &order, at);
    if (result == 0)
        result = harness_barrier(h);
    idem_close(w->store);
    free(w);
    return result;
}

static void run(const struct trial *self, const struct conditions *c, unsigned round, unsigned limit_s,
                struct trial_result *out)
{
    struct shape_store store = {0};
    uint64_t keys = self->rows[0].keys;
    unsigned workers = self->rows[0].workers;
    struct plan plan = {.store = &store, .workers = workers, .share = keys / workers, .asks = keys / 8};
    struct harness *h = harness_create(workers);
    (void)round;
    if (h == NULL)
        snprintf(out->why, sizeof out->why, "no memory for the control block");
    else if (shape_create(&store, c, "answers", keys, self->rows[0].huge, NULL, out) == 0) {
        if (harness_run(h, work, &plan, limit_s) != 0)
            snprintf(out->why, sizeof out->why, "%s", harness_error(h));
        else
            shape_check(&store, plan.share * workers, out);
        for (unsigned kind = 0; kind < KINDS; kind++) {
            struct series s = harness_sum(h, kind);
            out->of[kind].missing = s.op_count == 0;
            out->of[kind].value = s.op_count > 0 ? (double)s.op_ns / (double)s.op_count : 0;
        }
        for (unsigned kind = KIND_REPLAY + 1; kind < KINDS; kind++)
            out->of[kind].floor = out->of[KIND_REPLAY].value;
    }
    shape_destroy(&store);
    harness_free(h);
}

int answers_add(struct trials *all, const struct conditions *c)
{
    uint64_t keys = shape_keys(c, 1000000, 1000000, 8192);
    for (unsigned i = 0; i < 4; i++) {
        struct trial t = {.name = "answers beside a replay", .row_count = KINDS, .run = run};
        for (unsigned kind = 0; kind < KINDS; kind++)
            t.rows[kind] = shape_row(jobs[kind], "idem", "ns/op", keys, 1 + i / 2, i % 2);
        if (trials_add(all, &t) != 0)
            return -1;
    }
    return 0;
}
