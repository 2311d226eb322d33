/*
 * tests/format/test_hostile_live.c - words of a store are damaged while processes work on it.
 *
 * Promise 7 of the design, with the ground moving: nobody crashes, is reported by a sanitizer, hangs, or returns a code that doesn't exist. Where all
 * words of a store are damaged answers may be anything; where only those of some keys are, the others have one owner each, and one answer.
 * Standard: a minute with the sanitizers, else a few seconds; `--long`: minutes.
 */
/* timeout: 300 s */
#include "support/hostile.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/handle.h"

#if defined(__SANITIZE_ADDRESS__)
#define STANDARD_MS 40000
#define OTHERS_MS   20000
#else
#define STANDARD_MS 3000
#define OTHERS_MS   2000
#endif
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
    damage_for(support_long() ? 120000 : STANDARD_MS);
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

/* ------------------------------------------------------------------ some keys are damaged, the others are left alone */

#define SOUND   3000u /* keys that are left alone: their homes lie in the first half of the buckets */
#define DAMAGED 500u  /* theirs in the second */
#define APART   16u   /* buckets: a search goes no further */
#define HOUR_MS 3600000

/* Shared. The words that may be damaged: buckets from here to there, and what all entries of the damaged keys have. */
static struct field {
    struct idem_a64 stop, idle, leave, owners[SOUND], answers;
    char sound[SOUND][16], damaged[DAMAGED][16];
    uint64_t from, to, entry_bytes;
    char dir[96];
} * field;

static uint64_t index_key(const struct idem_view *v, const char *name, struct idem_index_key *k)
{
    idem_key key = support_key(name);
    CHECK_IS(idem_key_prepare(v, &key, NULL, k), IDEM_OK);
    return idem_home_of(v, k->hash);
}

static idem_request long_lived(const char *name)
{
    idem_request r = support_request(name);
    r.lease_ms = r.ttl_ms = HOUR_MS;
    return r;
}

static void name_keys(const struct idem_view *v)
{
    uint64_t half = v->bucket_count / 2;
    struct idem_index_key k;
    CHECK(half > 4 * APART);
    field->from = IDEM_BUCKETS_OFF + 64 * (half + APART);
    field->to = IDEM_BUCKETS_OFF + 64 * (v->bucket_count - APART);
    for (unsigned i = 0, sound = 0, damaged = 0; sound < SOUND || damaged < DAMAGED; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        uint64_t home = index_key(v, name, &k);
        if (home < half - APART && sound < SOUND)
            memcpy(field->sound[sound++], name, sizeof name);
        else if (home >= half + APART && home < v->bucket_count - 2 * APART && damaged < DAMAGED)
            memcpy(field->damaged[damaged++], name, sizeof name);
    }
}

/* Half of the keys that get damaged are answered, the others run. */
static void begin_damaged(idem_store *s)
{
    idem_claim c;
    for (unsigned i = 0; i < DAMAGED; i++) {
        idem_request r = long_lived(field->damaged[i]);
        CHECK_IS(idem_begin(s, &r, &c, NULL), IDEM_CLAIMED);
        if (i % 2 == 0)
            CHECK_IS(support_complete(s, &c, 200, "an answer"), IDEM_OK);
    }
    uint64_t claim = idem_entry_bytes(ENTRY_CLAIM, 1, 0, 0), answer = idem_entry_bytes(ENTRY_RESPONSE, 1, 0, 0);
    field->entry_bytes = claim < answer ? claim : answer;
}

/* Any answer that exists. */
static void use_damaged(idem_store *s, uint64_t *random)
{
    uint64_t dice = support_random(random);
    idem_request r = long_lived(field->damaged[dice % DAMAGED]);
    idem_claim c;
    idem_reply reply = IDEM_REPLY_INIT;
    int v = idem_begin(s, &r, &c, &reply);
    CHECK(hostile_legal(v));
    idem_reply_free(&reply);
    if (v != IDEM_CLAIMED && v != IDEM_RECLAIMED)
        return;
    v = dice >> 32 & 1 ? idem_abandon(s, &c, dice >> 33 & 1 ? IDEM_NOTHING_HAPPENED : IDEM_OUTCOME_UNKNOWN)
                       : support_complete(s, &c, 200, "another one");
    CHECK(hostile_legal(v));
}

/* One owner, and his answer, which is the key; or an error. */
static void use_sound(idem_store *s, unsigned i)
{
    idem_request r = long_lived(field->sound[i]);
    idem_claim c;
    idem_reply reply = IDEM_REPLY_INIT;
    int v = idem_begin(s, &r, &c, &reply);
    if (v == IDEM_CLAIMED) {
        CHECK_IS(add_relaxed(&field->owners[i], 1), 0);
        if (i % 2 == 0)
            CHECK_IS(support_complete(s, &c, 200, field->sound[i]), IDEM_OK);
    } else if (v == IDEM_REPLAY) {
        CHECK_BYTES(reply.body, reply.body_bytes, field->sound[i]);
        add_relaxed(&field->answers, 1);
    } else {
        CHECK(v == IDEM_IN_PROGRESS || (v < 0 && hostile_legal(v)));
    }
    idem_reply_free(&reply);
}

/* All go through the sound keys in one order, and then again and again. Nobody leaves before all are done: the keys of who has left are for others. */
static void live_beside(void *number)
{
    uint64_t random = support_seed() + (uintptr_t)number * 77 + 1;
    crash_faults_are_fatal();
    idem_store *s = support_attach(field->dir);
    for (unsigned i = 0; load_acquire(&field->stop) == 0; i++) {
        use_sound(s, i % SOUND);
        use_damaged(s, &random);
    }
    add_relaxed(&field->idle, 1);
    CHECK(support_eventually(support_is_set, &field->leave, STUCK_MS));
    idem_close(s);
}

static void damage_word(struct idem_a64 *word, uint64_t *random, bool for_good)
{
    uint64_t was = load_relaxed(word), is = was ^ UINT64_C(1) << support_random(random) % 64;
    if (was == 0)
        return; /* nothing is there */
    store_relaxed(word, is);
    if (support_random(random) % 8 == 0)
        usleep((useconds_t)(support_random(random) % 200));
    if (!for_good)
        cas_relaxed(word, &is, was);
}

/* What a damaged key's slot names is held while it is damaged: else its place could be another key's by then. */
static void damage_entry(idem_store *s, const char *name, uint64_t *random, bool for_good)
{
    struct idem_op op;
    struct idem_index_key k;
    struct idem_found f;
    index_key(s->view, name, &k);
    if (idem_enter(s, &op) != IDEM_OK) {
        CHECK(support_fault_seen() > 0); /* the fault has taken its lane from it */
        return;
    }
    if (idem_index_find(&op.ctx, &k, &f, NULL) == FIND_PRESENT && idem_index_hold(&op.ctx, &f))
        damage_word(&f.entry.at[support_random(random) % (field->entry_bytes / 8)], random, for_good);
    idem_arena_leave(&op.ctx);
    idem_leave(&op, IDEM_OK);
}

static void damage_keys_for(int64_t ms, idem_store *s, uint8_t *generation)
{
    uint64_t random = support_seed() + 99, words = 0;
    for (int64_t end_ms = support_now_ms() + ms; support_now_ms() < end_ms; words++) {
        uint64_t dice = support_random(&random), n = dice >> 8;
        bool for_good = words % 4 == 0;
        if (dice % 4 == 0)
            damage_word((struct idem_a64 *)(void *)(generation + field->from + n * 8 % (field->to - field->from)),
                        &random, for_good);
        else
            damage_entry(s, field->damaged[n % DAMAGED], &random, for_good);
    }
    print_message("%" PRIu64 " words were damaged, %" PRIu64 " answers of other keys given out\n", words,
                  load_relaxed(&field->answers));
    CHECK(words > 100);
}

struct peers {
    pid_t pids[PEERS];
};

/* Has each of them stopped working, or ended for something that it found wrong? */
static bool all_are_done(void *ctx)
{
    const struct peers *p = ctx;
    unsigned ended = 0;
    for (unsigned i = 0; i < PEERS; i++) {
        siginfo_t info = {.si_pid = 0};
        CHECK_IS(waitid(P_PID, (id_t)p->pids[i], &info, WEXITED | WNOHANG | WNOWAIT), 0);
        ended += info.si_pid != 0;
    }
    return load_acquire(&field->idle) + ended >= PEERS;
}

/* How many of the peers found something wrong. */
static unsigned live_with_damage_for(int64_t ms)
{
    struct peers p;
    char path[300];
    idem_options o = support_options(UINT64_C(8) * (SOUND + DAMAGED));
    field = support_shared(sizeof *field);
    snprintf(field->dir, sizeof field->dir, "%s", support_dir());
    idem_store *s = support_open(field->dir, &o);
    uint64_t bytes = s->view->generation_bytes;
    name_keys(s->view);
    begin_damaged(s);
    snprintf(path, sizeof path, "%s", support_file_of(field->dir, "gen-"));
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t *generation = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(fd >= 0 && generation != MAP_FAILED);
    close(fd);
    for (unsigned i = 0; i < PEERS; i++)
        p.pids[i] = support_spawn(live_beside, (void *)(uintptr_t)i);
    damage_keys_for(ms, s, generation);
    store_release(&field->stop, 1);
    bool done = support_eventually(all_are_done, &p, STUCK_MS);
    store_release(&field->leave, 1);
    unsigned failed = 0;
    for (unsigned i = 0; i < PEERS; i++) {
        int how = support_reap(p.pids[i], STUCK_MS);
        CHECK(how == 0 || how == SUPPORT_FAILED);
        failed += how != 0;
    }
    CHECK(done);
    idem_close(s);
    munmap(generation, bytes);
    support_remove(field->dir);
    return failed;
}

static void while_some_keys_are_damaged_the_others_have_one_owner_each(void **state)
{
    (void)state;
    CHECK_IS(live_with_damage_for(support_long() ? 60000 : OTHERS_MS), 0);
}

static void a_second_owner_of_a_key_that_was_left_alone_is_noticed(void **state)
{
    (void)state;
    support_fault("life.ignored");
    unsigned failed = live_with_damage_for(500);
    support_fault(NULL);
    CHECK(failed > 0);
    support_caught("life.ignored", "%s", support_why());
    support_forget_why();
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
        cmocka_unit_test(while_some_keys_are_damaged_the_others_have_one_owner_each),
        cmocka_unit_test(a_second_owner_of_a_key_that_was_left_alone_is_noticed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
