/*
 * tests/format/test_hostile_live.c - words of a store are damaged while processes work on it.
 *
 * Promise 7 of the design, with the ground moving: nobody crashes, is reported by a sanitizer, hangs, or returns a code that doesn't exist. Answers
 * may be anything. Standard: a few seconds; `--long`: minutes.
 */
/* timeout: 300 s */
#include "support/hostile.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define PEERS    2u
#define STUCK_MS 40000

struct peer {
    struct idem_a64 rounds; /* with the store open */
    const char *volatile doing;
    char wrong[320];
};
static struct shared {
    struct idem_a64 stop;
    struct peer peers[PEERS];
} * shared;
static struct hostile store;

static void work(void *ctx)
{
    struct peer *me = ctx;
    uint64_t random = support_seed() + (uint64_t)(me - shared->peers) * 77 + 1;
    idem_store *s = NULL;
    crash_faults_are_fatal();
    for (unsigned round = 0; load_acquire(&shared->stop) == 0; round++) {
        if (s == NULL || round % 8 == 0) {
            idem_close(s);
            me->doing = "idem_open";
            int e = idem_open(store.dir, NULL, &s);
            CHECK(hostile_legal(e) && (e == IDEM_OK) == (s != NULL));
            if (s == NULL)
                continue;
        }
        add_relaxed(&me->rounds, 1);
        const char *wrong = hostile_use(&store, s, &random, &me->doing);
        if (wrong != NULL) {
            strncpy(me->wrong, wrong, sizeof me->wrong - 1);
            _exit(SUPPORT_FAILED);
        }
    }
    me->doing = "idem_close";
    idem_close(s);
}

/* Other processes read it at the same time: whole words, as they do. */
static struct idem_a64 *word_at(const struct hostile_damage *d)
{
    return (struct idem_a64 *)(void *)(store.map[d->file] + d->at);
}

static void damage_for(int64_t ms)
{
    uint64_t random = support_seed(), words = 0;
    for (int64_t end_ms = support_now_ms() + ms; support_now_ms() < end_ms; words++) {
        struct hostile_damage d = hostile_word(&store, support_random(&random));
        uint64_t was = load_relaxed(word_at(&d)), is = was ^ UINT64_C(1) << support_random(&random) % 64;
        if (words % 4 == 1)
            is = support_random(&random) << 24;
        else if (words % 4 == 2)
            is = 0;
        store_relaxed(word_at(&d), is);
        usleep((useconds_t)(support_random(&random) % 300));
        /* Most are put back, or the store would soon only say that it is damaged; what decides whether it can be opened always is. */
        if (words % 16 != 0 || strstr(d.part, "header") != NULL)
            cas_relaxed(word_at(&d), &is, was);
        if (words % 500 == 499)
            hostile_restore(&store);
    }
    print_message("%" PRIu64 " words were damaged\n", words);
    CHECK(words > 100);
}

static void processes_work_on_while_words_are_damaged(void **state)
{
    (void)state;
    pid_t pids[PEERS];
    for (unsigned i = 0; i < PEERS; i++)
        pids[i] = support_spawn(work, &shared->peers[i]);
    damage_for(support_long() ? 120000 : 3000);
    store_release(&shared->stop, 1);
    unsigned failed = 0;
    for (unsigned i = 0; i < PEERS; i++) {
        int how = support_reap(pids[i], STUCK_MS);
        const struct peer *p = &shared->peers[i];
        print_message("peer %u worked %" PRIu64 " rounds\n", i, load_relaxed(&p->rounds));
        if (how == 0 && load_relaxed(&p->rounds) > 2)
            continue;
        failed++;
        print_error("peer %u, in %s: ended with %d: %s %s\n", i, p->doing, how, p->wrong, support_why());
    }
    CHECK_IS(failed, 0);
}

static int setup(void **state)
{
    if (support_setup(state) != 0 || crash_setup() != 0)
        return -1;
    shared = support_shared(sizeof *shared);
    support_seed();
    hostile_make(&store);
    return 0;
}

static int teardown(void **state)
{
    hostile_free(&store);
    return support_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_work_on_while_words_are_damaged),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
