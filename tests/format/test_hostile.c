/*
 * tests/format/test_hostile.c - damaged files give errors or right answers, never undefined behaviour, never an endless loop.
 *
 * Promise 7 of the design. Files cut to every kind of length; words of every structure flipped, zeroed, filled, exchanged; then the store is
 * opened and every public function called. What is asked of a key none of whose own bytes was touched must be answered right, or with an
 * error, as long as nobody writes. The work is done in a child: one that crashes, is reported by a sanitizer, or does not get on is a failure, named by the
 * damage. Standard: a sample; `--long`: every bit.
 */
/* timeout: 300 s */
#include "support/hostile.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STUCK_MS 30000

static struct hostile store;

/* What the child is at, for the parent to see. */
struct progress {
    struct idem_a64 at;         /* number of the case */
    const char *volatile doing; /* points into what parent and child both have */
    struct hostile_damage damage;
    char how[32];
    char wrong[320];
};
static struct progress *progress;
static int64_t stuck_ms = STUCK_MS;

/* ------------------------------------------------------------------ one case */

enum how { FLIP, RANDOM, ZERO, ONES, OTHER, HOWS, STATE = HOWS };
static const char *const hows[] = {"a flipped bit", "a random word", "zeros", "ones", "another word", "another state"};

struct run {
    uint64_t from, to; /* cases */
    uint64_t seed;
    bool every_bit;
    bool own;              /* only what is the keys' own: the state in their slot words, the headers of their entries */
    void (*planted)(void); /* what goes wrong on purpose in every tenth case, or NULL */
};

static uint64_t load_word(const struct hostile_damage *d)
{
    uint64_t w;
    memcpy(&w, store.map[d->file] + d->at, 8);
    return w;
}

static void damage(const struct run *r, uint64_t i, uint64_t *random)
{
    struct hostile_damage d = hostile_word(&store, r->every_bit ? i / 64 : support_random(random));
    enum how how = r->every_bit ? FLIP : (enum how)(i % HOWS);
    if (r->own) {
        const struct hostile_key *k = &store.keys[i % store.keys_n];
        uint64_t turn = i / store.keys_n;
        if (k->slot_at == 0)
            k = &store.keys[0];
        how = turn % 2 == 0 ? STATE : (enum how)(turn / 2 % HOWS);
        d = (struct hostile_damage){HOSTILE_GENERATION, k->slot_at, "slot of a key"};
        if (how != STATE)
            d = (struct hostile_damage){HOSTILE_GENERATION, k->entry_at + 8 * (support_random(random) % 16),
                                        "entry of a key"};
    }
    uint64_t w = load_word(&d);
    unsigned bit = (unsigned)(r->every_bit ? i % 64 : support_random(random) % 64);
    struct hostile_damage other = hostile_word(&store, support_random(random));
    switch (how) {
    case FLIP:
        w ^= UINT64_C(1) << bit;
        break;
    case RANDOM:
        w = support_random(random) << 32 ^ support_random(random);
        break;
    case ZERO:
        w = 0;
        break;
    case ONES:
        w = ~UINT64_C(0);
        break;
    case STATE:
        w = (w & ~UINT64_C(7)) | i / store.keys_n / 2 % 8;
        break;
    default:
        w = load_word(&other);
    }
    memcpy(store.map[d.file] + d.at, &w, 8);
    progress->damage = d;
    snprintf(progress->how, sizeof progress->how, "%s", hows[how]);
}

static void work(void *ctx)
{
    const struct run *r = ctx;
    crash_faults_are_fatal();
    for (uint64_t i = r->from; i < r->to; i++) {
        uint64_t random = (r->seed + i) * UINT64_C(0x9E3779B97F4A7C15) | 1;
        progress->doing = "restoring";
        store_release(&progress->at, i);
        hostile_restore(&store);
        damage(r, i, &random);
        if (r->planted != NULL && i % 10 == 9)
            r->planted();
        idem_store *s;
        const char *wrong = hostile_look(&store, &progress->damage, &s, &progress->doing);
        if (wrong == NULL && s != NULL)
            wrong = hostile_use(&store, s, &random, &progress->doing);
        progress->doing = "idem_close";
        idem_close(s);
        if (wrong != NULL) {
            snprintf(progress->wrong, sizeof progress->wrong, "%s", wrong);
            _exit(SUPPORT_FAILED);
        }
    }
    store_release(&progress->at, r->to);
}

/* Waits for the child as long as it gets on. */
static int watch(pid_t pid)
{
    uint64_t at = load_acquire(&progress->at);
    for (int64_t since_ms = support_now_ms(); support_now_ms() - since_ms < stuck_ms; support_sleep_ms(2)) {
        siginfo_t info;
        memset(&info, 0, sizeof info);
        if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid)
            return support_reap(pid, SUPPORT_PATIENCE_MS);
        if (load_acquire(&progress->at) != at) {
            at = load_acquire(&progress->at);
            since_ms = support_now_ms();
        }
    }
    support_end(pid);
    return SUPPORT_STUCK;
}

/* Runs the cases; returns how many went wrong. */
static unsigned run_cases(struct run r)
{
    unsigned failed = 0;
    while (r.from < r.to && failed < 10) {
        progress->wrong[0] = '\0';
        int how = watch(support_spawn(work, &r));
        r.from = load_acquire(&progress->at);
        if (how == 0 && r.from == r.to)
            break;
        failed++;
        if (r.planted == NULL)
            print_error("case %" PRIu64 " (IDEM_TEST_SEED=%" PRIu64 "): %s at %s byte %" PRIu64
                        ": in %s: ended with %d: %s\n",
                        r.from, r.seed, progress->how, progress->damage.part, progress->damage.at, progress->doing, how,
                        progress->wrong);
        r.from++;
    }
    return failed;
}

static struct run sample(long n)
{
    return (struct run){.to = (uint64_t)support_scaled(n, 4) * (support_long() ? 20 : 1), .seed = support_seed()};
}

/* ------------------------------------------------------------------ tests */

static void the_undamaged_store_is_right_in_everything(void **state)
{
    (void)state;
    hostile_restore(&store);
    idem_store *s;
    struct hostile_damage none = {HOSTILE_ROOT, 3000, "nothing"};
    const char *wrong = hostile_look(&store, &none, &s, &progress->doing);
    CHECK_BYTES(wrong, wrong != NULL ? strlen(wrong) : 0, "");
    CHECK(s != NULL);
    idem_report report = IDEM_REPORT_INIT;
    CHECK_IS(idem_verify(store.dir, &report), IDEM_OK);
    uint64_t random = 1;
    wrong = hostile_use(&store, s, &random, &progress->doing);
    CHECK_BYTES(wrong, wrong != NULL ? strlen(wrong) : 0, "");
    idem_close(s);
    support_verify(store.dir);
}

static void damaged_words_give_errors_or_right_answers(void **state)
{
    (void)state;
    CHECK_IS(run_cases(sample(4000)), 0);
}

static void a_key_whose_own_words_contradict_each_other_is_an_error(void **state)
{
    (void)state;
    struct run r = {.to = store.keys_n * 16 * (support_long() ? 200 : (uint64_t)support_scaled(4, 2)),
                    .seed = support_seed(),
                    .own = true};
    CHECK_IS(run_cases(r), 0);
}

static void every_flipped_bit_gives_errors_or_right_answers(void **state)
{
    (void)state;
    if (!support_long()) {
        struct run r = {.to = store.words * 64, .every_bit = true}; /* a slice of all of them */
        r.from = support_seed() % (r.to - 600);
        r.to = r.from + 600;
        CHECK_IS(run_cases(r), 0);
        return;
    }
    CHECK_IS(run_cases((struct run){.to = store.words * 64, .every_bit = true}), 0);
}

/* The last of the tests on this store: time never goes back. */
static void damaged_words_do_no_harm_when_all_has_expired(void **state)
{
    (void)state;
    support_clock_add(2 * 3600000);
    store.expired = true;
    struct run r = sample(1500);
    r.seed += 1000000;
    CHECK_IS(run_cases(r), 0);
}

static void cut(enum hostile_file file, uint64_t bytes)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", store.dir, file == HOSTILE_ROOT ? "root" : store.gen_name);
    CHECK_IS(truncate(path, (off_t)bytes), 0);
}

static void files_of_any_other_length_are_refused_in_words(void **state)
{
    (void)state;
    hostile_restore(&store);
    for (unsigned f = 0; f < HOSTILE_FILES; f++) {
        uint64_t lengths[64] = {0, 1, 7, 8, 9, 31, 33, 63, 65, 479, 480, 607, 608, 4095, 4096, 4097, 8191, 8192, 8193};
        unsigned n = 19;
        for (unsigned p = 0; p < store.parts_n; p++)
            if ((unsigned)store.parts[p].file == f) {
                lengths[n++] = store.parts[p].from + store.parts[p].bytes;
                lengths[n++] = store.parts[p].from + store.parts[p].bytes / 2 + 1;
            }
        lengths[n++] = store.bytes[f] - 4096;
        lengths[n++] = store.bytes[f] - 1;
        lengths[n++] = store.bytes[f] + 1;
        lengths[n++] = store.bytes[f] + 4096;
        for (unsigned i = 0; i < n; i++) {
            if (lengths[i] == store.bytes[f])
                continue;
            cut((enum hostile_file)f, lengths[i]);
            idem_store *s = NULL;
            idem_report report = IDEM_REPORT_INIT;
            idem_options o = support_options(16);
            CHECK_IS(idem_open(store.dir, NULL, &s), IDEM_E_CORRUPT);
            CHECK(strstr(idem_error_detail(), f == HOSTILE_ROOT ? "root" : "gen-") != NULL);
            CHECK(s == NULL);
            CHECK_IS(idem_open(store.dir, &o, &s), IDEM_E_CORRUPT);
            CHECK_IS(idem_verify(store.dir, &report), IDEM_E_CORRUPT);
            cut((enum hostile_file)f, store.bytes[f]);
            hostile_restore(&store);
        }
    }
    the_undamaged_store_is_right_in_everything(NULL);
}

static void a_store_with_a_cut_root_can_be_destroyed(void **state)
{
    (void)state;
    static const off_t lengths[] = {0, 100, 4096};
    for (unsigned i = 0; i < 3; i++) {
        const char *dir = support_dir();
        idem_options o = support_options(16);
        idem_close(support_open(dir, &o));
        char path[256];
        snprintf(path, sizeof path, "%s/root", dir);
        CHECK_IS(truncate(path, lengths[i]), 0);
        CHECK_IS(idem_destroy(dir), IDEM_OK);
        CHECK_IS(access(dir, F_OK), -1);
    }
}

static void claims_of_any_bytes_change_nothing(void **state)
{
    (void)state;
    hostile_restore(&store);
    idem_store *s = support_attach(store.dir);
    uint64_t random = support_seed();
    for (unsigned i = 0; i < 20000; i++) {
        const struct hostile_key *k = &store.keys[support_random(&random) % store.keys_n];
        idem_claim c = k->claim;
        uint64_t r = support_random(&random);
        unsigned how = (unsigned)(support_random(&random) % 4);
        c.size = sizeof c;
        memcpy(c.store_uuid, store.keys[0].claim.store_uuid, 16);
        if (how == 0 || c.token == 0)
            c.place = r << 20 ^ support_random(&random);
        else if (how == 1)
            c.place = r % 200;
        else if (how == 2)
            c.token ^= UINT64_C(1) << (r % 64);
        else
            c.hash ^= UINT64_C(1) << (r % 64);
        if (how == 1 && k->claim.place == c.place)
            continue;
        uint8_t wire[IDEM_CLAIM_WIRE_BYTES];
        idem_claim_encode(&c, wire);
        CHECK_IS(idem_claim_decode(wire, &c), IDEM_OK);
        int e[4] = {support_complete(s, &c, 1, "forged"), idem_abandon(s, &c, 0), idem_mark(s, &c, "forged", 6),
                    idem_renew(s, &c, 1000)};
        for (unsigned j = 0; j < 4; j++)
            if (e[j] != IDEM_E_LOST)
                CHECK_IS(e[j], IDEM_E_INVALID);
    }
    idem_close(s);
    the_undamaged_store_is_right_in_everything(NULL);
}

/* ------------------------------------------------------------------ would it be noticed? */

static void crash(void)
{
    raise(SIGSEGV);
}
static void loop(void)
{
    for (volatile unsigned i = 0;; i++)
        ;
}
static void another_answer(void)
{
    store.keys[0].body = "not the answer";
}

static void planted(const char *what, void (*fn)(void), int64_t patience_ms, unsigned cases)
{
    stuck_ms = patience_ms;
    struct run r = {.to = cases, .seed = support_seed(), .planted = fn};
    unsigned n = run_cases(r);
    stuck_ms = STUCK_MS;
    print_message("%s: noticed %u times\n", what, n);
    CHECK(n > 0);
}

static void a_crash_an_endless_loop_and_a_wrong_answer_are_noticed(void **state)
{
    (void)state;
    planted("a crash", crash, STUCK_MS, 12);
    planted("an endless loop", loop, 1000, 12);
    planted("a wrong answer", another_answer, STUCK_MS, 70);
}

static int setup(void **state)
{
    if (support_setup(state) != 0 || crash_setup() != 0)
        return -1;
    progress = support_shared(sizeof *progress);
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
        cmocka_unit_test(the_undamaged_store_is_right_in_everything),
        cmocka_unit_test(files_of_any_other_length_are_refused_in_words),
        cmocka_unit_test(a_store_with_a_cut_root_can_be_destroyed),
        cmocka_unit_test(claims_of_any_bytes_change_nothing),
        cmocka_unit_test(damaged_words_give_errors_or_right_answers),
        cmocka_unit_test(a_key_whose_own_words_contradict_each_other_is_an_error),
        cmocka_unit_test(every_flipped_bit_gives_errors_or_right_answers),
        cmocka_unit_test(a_crash_an_endless_loop_and_a_wrong_answer_are_noticed),
        cmocka_unit_test(damaged_words_do_no_harm_when_all_has_expired),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
