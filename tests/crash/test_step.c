/*
 * tests/crash/test_step.c - a process dies after the n-th instruction of a claim and its completion; a peer finds every promise kept.
 *
 * Named points are where the authors thought that it matters; this asks everywhere. The victim is single-stepped (ptrace) and killed after n
 * instructions. What a peer is then told of the key is never less than what the victim had been told: claimed, replayed. Standard: a
 * sample of n; `--long`: a hundred times as many.
 */
/* timeout: 300 s */
#include "support/scenes.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOT_PERMITTED 77
#define NEVER         UINT64_MAX
#define RANK_DONE     1000u

/* Shared with the victim: what it has been told so far, as rank_of() counts it. */
static struct idem_a64 *told;

struct act {
    const char *name;
    void (*prepare)(struct stage *st);
    void (*act)(idem_store *store, const struct stage *st);
};

static void claim_and_complete(idem_store *store, const struct stage *st)
{
    idem_request r = stage_request(st, STAGE_KEY);
    idem_claim c;
    int v = idem_begin(store, &r, &c, NULL);
    CHECK(v == IDEM_CLAIMED || v == IDEM_RECLAIMED);
    store_release(told, c.attempt + 1); /* who comes after a claimant is told so */
    CHECK_IS(support_complete(store, &c, 200, "done"), IDEM_OK);
    store_release(told, RANK_DONE);
}

static void a_dead_owner(struct stage *st)
{
    stage_dead_claim(st, STAGE_KEY, "halfway", 0, NULL);
}

/* For the check of the check: it takes back what it did. */
static void claim_complete_and_forget(idem_store *store, const struct stage *st)
{
    claim_and_complete(store, st);
    idem_key key = support_key(st->key[STAGE_KEY]);
    CHECK_IS(idem_forget(store, &key), IDEM_OK);
}

struct victim {
    const struct act *act;
    const struct stage *st;
};

static void be_stepped(void *ctx)
{
    const struct victim *v = ctx;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    crash_faults_are_fatal();
    idem_store *store = support_attach(v->st->dir);
    support_answer(store, "warm", 200,
                   "up"); /* what happens once in a process is left out: it would be most of the steps */
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(NOT_PERMITTED);
    raise(SIGSTOP);
    v->act->act(store, v->st);
    raise(SIGSTOP); /* that was it */
    _exit(0);
}

static bool wait_for(pid_t pid, int *status)
{
    while (waitpid(pid, status, 0) < 0)
        if (errno != EINTR)
            return false;
    return true;
}

/* Kills it after `steps` instructions. Returns how many it made; *permitted false: there is no ptrace here. */
static uint64_t step_and_kill(const struct act *act, const struct stage *st, uint64_t steps, bool *permitted)
{
    struct victim v = {act, st};
    int status = 0;
    pid_t pid = support_spawn(be_stepped, &v);
    CHECK(wait_for(pid, &status) || WIFSTOPPED(status));
    *permitted = !(WIFEXITED(status) && WEXITSTATUS(status) == NOT_PERMITTED);
    if (!*permitted)
        return 0;
    CHECK(WIFSTOPPED(status));
    uint64_t done = 0;
    for (; done < steps; done++) {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 || !wait_for(pid, &status) || !WIFSTOPPED(status))
            break;
        if (WSTOPSIG(status) == SIGSTOP)
            break;
        CHECK_IS(WSTOPSIG(status), SIGTRAP);
    }
    if (WIFSTOPPED(status)) {
        support_kill(pid, SIGKILL);
        CHECK(wait_for(pid, &status));
    } else {
        CHECK_IS(WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status), 0);
    }
    return done;
}

/* How far it got, as a peer sees it. */
static unsigned rank_of(const struct stage *st)
{
    if (st->said == IDEM_REPLAY)
        return RANK_DONE;
    return st->said == IDEM_RECLAIMED ? st->said_attempt : 0;
}

static uint64_t die_after(const struct act *act, uint64_t steps, unsigned *rank, bool *permitted)
{
    struct stage st;
    stage_case("%s, killed after %" PRIu64 " instructions", act->name, steps);
    stage_open(&st, NULL, false);
    if (act->prepare != NULL)
        act->prepare(&st);
    store_release(told, 0);
    uint64_t done = step_and_kill(act, &st, steps, permitted);
    if (*permitted) {
        stage_promises(&st, NULL);
        *rank = rank_of(&st);
        if (*rank < load_acquire(told))
            stage_broken("a peer is told less than the victim was: %u after %u", *rank, (unsigned)load_acquire(told));
    }
    stage_close(&st);
    return done;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void step_through(const struct act *act)
{
    bool permitted;
    unsigned last = 0, rank = 0;
    uint64_t total = die_after(act, NEVER, &rank, &permitted);
    if (!permitted) {
        print_message("skipped (kernel): ptrace is not permitted here\n");
        skip();
    }
    CHECK_IS(rank, RANK_DONE);
    /* About as many instructions in all, however long one run is; some places anywhere, more of them towards the end. */
    uint64_t budget = (uint64_t)support_scaled(100000, 4) * (support_long() ? 100 : 1);
    uint64_t n = 2 * budget / total + 6, random = support_seed();
    uint64_t *places = calloc(n, sizeof *places);
    CHECK(places != NULL);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t back = support_random(&random) % total;
        places[i] = i % 3 == 0 ? back : total - 1 - back * back / total * (back / 4 + 1) / total;
    }
    qsort(places, n, sizeof *places, by_size);
    unsigned changed = 0;
    for (uint64_t i = 0; i < n; i++) {
        die_after(act, places[i], &rank, &permitted);
        changed += i > 0 && rank != last;
        last = rank;
    }
    free(places);
    print_message("%" PRIu64 " instructions, killed at %" PRIu64 " places, the answer changed %u times\n", total, n,
                  changed);
}

static void a_claimant_is_killed_after_any_instruction(void **state)
{
    (void)state;
    stage_take_broken(false);
    step_through(&(struct act){"a claimant", NULL, claim_and_complete});
    CHECK_IS(stage_take_broken(false), 0);
}

static void who_takes_over_is_killed_after_any_instruction(void **state)
{
    (void)state;
    stage_take_broken(false);
    step_through(&(struct act){"who takes over", a_dead_owner, claim_and_complete});
    CHECK_IS(stage_take_broken(false), 0);
}

static void an_answer_that_is_taken_back_is_noticed(void **state)
{
    (void)state;
    const struct act act = {"who takes it back", NULL, claim_complete_and_forget};
    bool permitted;
    unsigned rank = 0, before = 0;
    stage_take_broken(true);
    uint64_t total = die_after(&act, NEVER, &rank, &permitted);
    if (!permitted) {
        print_message("skipped (kernel): ptrace is not permitted here\n");
        skip();
    }
    unsigned in_the_end = rank;
    for (uint64_t back = 200; back < total / 2; back *= 2) {
        die_after(&act, total - back, &rank, &permitted);
        before = rank > before ? rank : before;
    }
    stage_take_broken(false);
    CHECK(in_the_end < before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_claimant_is_killed_after_any_instruction),
        cmocka_unit_test(who_takes_over_is_killed_after_any_instruction),
        cmocka_unit_test(an_answer_that_is_taken_back_is_noticed),
    };
    told = support_shared(sizeof *told);
    return cmocka_run_group_tests(tests, scene_setup, support_teardown);
}
