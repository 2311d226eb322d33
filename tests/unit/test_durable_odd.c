/*
 * tests/unit/test_durable_odd.c - calls that wait for the disk, and what others do meanwhile: the store goes, the key changes hands, its bytes are
 * damaged; and words of shared memory as a death, or nobody, leaves them. What others do happens at a point of the call (support_at_point).
 */
#include "support/support.h"

#include "unit/refused_calls.h"
#include "unit/wal_led.h"

#include "arena/entry.h"

static uint64_t word_of(const idem_claim *c)
{
    return load_relaxed(&v->buckets[c->place / 8].slots[c->place % 8]);
}
static struct idem_a64 *entry_of(const idem_claim *c)
{
    return v->arena + word_unit(word_of(c)) * 2;
}

/* A thread of its own: whoever it is that does this, it is not who is in the middle of a call. */
static void elsewhere(void *(*fn)(void *), void *ctx)
{
    pthread_t t;
    refuse_nothing();
    CHECK_IS(__real_pthread_create(&t, NULL, fn, ctx), 0);
    pthread_join(t, NULL);
}

static void *destroy(void *unused)
{
    (void)unused;
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    return NULL;
}
static void destroy_now(void *unused)
{
    (void)unused;
    elsewhere(destroy, NULL);
}
static void mark_dead(void *unused)
{
    (void)unused;
    store_relaxed(&v->root->dead, 1);
}
static void poison(void *unused)
{
    (void)unused;
    store_relaxed(&v->poisoned, 1);
}

static idem_claim found;
static void *find_k(void *unused)
{
    (void)unused;
    idem_key key = support_key("k");
    CHECK_IS(idem_find(s, &key, 0, &found), IDEM_OK);
    return NULL;
}
/* Its bytes are no entry any more. */
static void damage_k(void *unused)
{
    elsewhere(find_k, unused);
    store_relaxed(entry_of(&found), 0);
}
static void *mark_k(void *unused)
{
    find_k(unused);
    CHECK_IS(idem_mark(s, &found, "m", 1), IDEM_OK);
    return NULL;
}
static void mark_it(void *unused)
{
    elsewhere(mark_k, unused);
}

/* Without waiting for the disk: that would wait for us. */
static void *give_k_back(void *unused)
{
    find_k(unused);
    struct idem_a64 *slot = &v->buckets[found.place / 8].slots[found.place % 8];
    store_release(slot, word_with_state(load_relaxed(slot), WORD_ABANDONED));
    return NULL;
}
static void give_it_back(void *unused)
{
    elsewhere(give_k_back, unused);
}

/* Handles that do not make a new store where theirs is gone. */
static void begin_attached(void)
{
    begin();
    idem_close(s);
    options.flags &= ~(uint32_t)IDEM_OPEN_CREATE;
    attach();
}

static void gone(void)
{
    idem_log_dir_close(&d);
    idem_close(s);
    support_remove(wal);
    support_remove(dir);
}

/* ------------------------------------------------------------------ one call */

static void what_happens_while_a_claim_waits_for_the_disk(void **state)
{
    (void)state;
    begin_attached();
    support_at_point("log.woken", 1, destroy_now, NULL);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_E_STALE);
    gone();
    begin_attached();
    support_at_point("log.woken", 1, damage_k, NULL);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_E_CORRUPT);
    gone();
    begin_attached();
    support_at_point("claim.filled", 1, poison, NULL); /* a page was gone */
    CHECK_IS(support_begin(s, "k", NULL), IDEM_E_CORRUPT);
    store_relaxed(&v->poisoned, 0);
    over();
    /* Marked by somebody it was sent to, in a store that logs no claims unless asked to: the mark is on the disk, too, then. */
    begin();
    idem_close(s);
    support_remove(dir);
    support_remove(wal);
    idem_log_dir_close(&d);
    options.durability_claim = IDEM_DURABILITY_NONE;
    attach();
    CHECK_IS(idem_log_dir_open(wal, false, 0, &d), IDEM_OK);
    idem_request rq = support_request("k");
    idem_result many = {.size = sizeof many, .reply = IDEM_REPLY_INIT};
    rq.durability = IDEM_DURABILITY_SYNC;
    support_at_point("log.woken", 1, mark_it, NULL);
    CHECK_IS(idem_begin_many(s, &rq, 1, &many), IDEM_OK);
    CHECK_IS(many.verdict, IDEM_CLAIMED);
    CHECK((load_relaxed(&entry_of(&many.claim)[4]) & LOG_WORD_LOGGED) != 0);
    idem_claim one;
    CHECK_IS(idem_forget(s, &rq.key), IDEM_OK);
    support_at_point("log.woken", 1, mark_it, NULL);
    CHECK_IS(idem_begin(s, &rq, &one, NULL), IDEM_CLAIMED);
    CHECK((load_relaxed(&entry_of(&one)[4]) & LOG_WORD_LOGGED) != 0);
    /* Who takes it over among many waits for the disk as well. */
    CHECK_IS(idem_release(s, &rq.key, 0), IDEM_OK);
    CHECK_IS(idem_begin_many(s, &rq, 1, &many), IDEM_OK);
    CHECK_IS(many.verdict, IDEM_RECLAIMED);
    CHECK((load_relaxed(&entry_of(&many.claim)[4]) & LOG_WORD_LOGGED) != 0);
    idem_reply_free(&many.reply);
    over();
    /* Given back by somebody it was sent to: then it is claimed once more. */
    for (unsigned waits = 0; waits < 2; waits++) {
        idem_claim c;
        begin();
        rq = support_request("k");
        support_at_point("log.woken", 1, give_it_back, NULL);
        CHECK_IS(waits ? idem_wait(s, &rq, 1000, &c, NULL) : idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
        CHECK_IS(c.attempt, 2);
        CHECK(c.token > found.token);
        over();
    }
}

/* ------------------------------------------------------------------ many at once */

#define MANY 3u
static idem_result results[MANY];

/* A new key, one that is new, too, and an answer that is not on the disk any more. */
static void ask_for_many(int first, int second, int third)
{
    static const char *const keys[MANY] = {"k", "other", "done"};
    idem_request rq[MANY];
    for (unsigned i = 0; i < MANY; i++) {
        rq[i] = support_request(keys[i]);
        results[i] = (idem_result){.size = sizeof results[i], .reply = IDEM_REPLY_INIT};
    }
    CHECK_IS(idem_begin_many(s, rq, MANY, results), IDEM_OK);
    CHECK_IS(results[0].verdict, first);
    CHECK_IS(results[1].verdict, second);
    CHECK_IS(results[2].verdict, third);
    for (unsigned i = 0; i < MANY; i++)
        idem_reply_free(&results[i].reply);
}
static void answered(void)
{
    support_answer(s, "done", 200, "x");
    put(LOG_DURABLE, 0);
}

static void lose_lane(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < v->fixed.lanes_max; i++)
        if (load_relaxed(&v->lanes[i].owner) == v->process.owner)
            add_relaxed(&v->lanes[i].tenancy, 1);
}

static void what_happens_while_many_wait_for_the_disk(void **state)
{
    (void)state;
    begin_attached();
    answered();
    support_at_point("claim.filled", 2, mark_dead, NULL); /* seen when they would wait */
    ask_for_many(IDEM_E_STALE, IDEM_E_STALE, IDEM_E_STALE);
    gone();
    begin(); /* and with a new store in its place */
    answered();
    support_at_point("claim.filled", 2, destroy_now, NULL);
    ask_for_many(IDEM_CLAIMED, IDEM_CLAIMED, IDEM_CLAIMED);
    gone();
    begin_attached();
    answered();
    support_at_point("log.woken", 1, damage_k, NULL);
    ask_for_many(IDEM_E_CORRUPT, IDEM_CLAIMED, IDEM_REPLAY);
    gone();
    begin(); /* its host closed a descriptor: the lane is somebody else's by now, who flushes what was pushed */
    support_at_point("claim.filled", 2, lose_lane, NULL);
    ask_for_many(IDEM_CLAIMED, IDEM_CLAIMED, IDEM_CLAIMED);
    over();
}

/* ------------------------------------------------------------------ what the leader takes */

static void without_a_lane_a_leader_takes_nothing(void **state)
{
    (void)state;
    begin();
    push_one("k");
    support_at_point("log.ready", 1, lose_lane, NULL); /* another one is found */
    CHECK_IS(batches(), IDEM_OK);
    CHECK_IS(batches(), IDEM_OK);
    over();
    begin();
    idem_close(s);
    support_remove(dir);
    support_remove(wal);
    idem_log_dir_close(&d);
    options.lanes = 1;
    attach();
    CHECK_IS(idem_log_dir_open(wal, false, 0, &d), IDEM_OK);
    push_one("k");
    uint64_t records = load_relaxed(&control[LOG_RECORDS]);
    support_at_point("log.durable", 1, lose_lane, NULL);
    CHECK_IS(batches(), IDEM_OK); /* it is there, but the entry does not say so */
    CHECK_IS(load_relaxed(&control[LOG_RECORDS]), records + 1);
    store_relaxed(&v->lanes[0].owner, 0);
    push_one("l");
    support_at_point("log.ready", 1, lose_lane, NULL);
    one_batch();
    store_relaxed(&v->lanes[0].owner, 0);
    idem_log_want_walk(control);
    int e = 1;
    for (unsigned i = 0; i < 1000 && e == 1; i++)
        e = one_batch();
    CHECK_IS(e, IDEM_OK);
    CHECK(load_relaxed(&control[LOG_RECORDS]) >= records + 2);
    over();
}

static struct idem_a64 *region_word;
static uint64_t was, becomes;
static void recycle(void *unused)
{
    (void)unused;
    store_relaxed(region_word, becomes);
}

/* A region that is about to go, or gone, with the same generation still: nothing in it is looked at. */
static void what_lies_in_a_region_that_goes_is_left_to_what_came_after_it(void **state)
{
    (void)state;
    static const unsigned phases[] = {REGION_RETIRING, REGION_FREE};
    static const char *const points[] = {"log.ready", "log.durable"};
    for (unsigned i = 0; i < 4; i++) {
        idem_claim c;
        begin();
        CHECK_IS(support_begin(s, "k", &c), IDEM_CLAIMED);
        push_one("l");
        region_word = &v->regions[word_region(v, word_of(&c))].state;
        was = load_relaxed(region_word);
        becomes = (was & ~UINT64_C(7)) | phases[i % 2];
        support_at_point(points[i / 2], 1, recycle, NULL);
        CHECK_IS(batches(), IDEM_OK);
        store_relaxed(region_word, was);
        support_at_point(NULL, 0, NULL, NULL);
        CHECK_IS(batches(), IDEM_OK);
        over();
    }
}

static int count_kinds(const idem_log_record *r, void *ctx)
{
    ((unsigned *)ctx)[r->kind]++;
    return 0;
}

static void what_is_recorded_of_odd_entries(void **state)
{
    (void)state;
    unsigned kinds[REC_KINDS] = {0};
    idem_claim c;
    begin();
    /* An outcome without its bytes. */
    idem_response r = support_response(200, "");
    r.flags = IDEM_RESPONSE_NOT_RETAINED;
    r.body = NULL;
    r.meta_bytes = 5;
    r.body_bytes = 1000;
    CHECK_IS(support_begin(s, "outcome", &c), IDEM_CLAIMED);
    CHECK_IS(idem_complete(s, &c, &r), IDEM_TOMBSTONE);
    /* One that says that something else was pushed for it: whoever walks looks at what the key says. */
    CHECK_IS(support_begin(s, "superseded", &c), IDEM_CLAIMED);
    store_relaxed(&entry_of(&c)[4], LOG_WORD_SUPERSEDED);
    uint64_t records = load_relaxed(&control[LOG_RECORDS]);
    idem_log_want_walk(control);
    CHECK_IS(batches(), IDEM_OK);
    CHECK_IS(load_relaxed(&control[LOG_RECORDS]), records + 1);
    /* One that was forgotten, and had been rescued for longer than it was claimed for: denied as long. */
    idem_key key = support_key("rescued");
    CHECK_IS(support_begin(s, "rescued", &c), IDEM_CLAIMED);
    store_relaxed(&entry_of(&c)[12], (uint64_t)(idem_view_now_ms(v) + INT64_C(300) * 86400000));
    CHECK_IS(idem_forget(s, &key), IDEM_OK);
    CHECK_IS(idem_log_walk(wal, count_kinds, kinds), IDEM_OK);
    CHECK(kinds[REC_TOMBSTONE] == 1 && kinds[REC_FORGOTTEN] >= 1);
    over();
}

/* Answers and claims that this store does not log; what is forgotten, and what follows on that, is. */
static void forgetting_is_logged_in_any_case(void **state)
{
    (void)state;
    unsigned kinds[REC_KINDS] = {0};
    begin();
    idem_close(s);
    support_remove(dir);
    support_remove(wal);
    idem_log_dir_close(&d);
    options.durability_claim = options.durability_complete = IDEM_DURABILITY_NONE;
    attach();
    CHECK_IS(idem_log_dir_open(wal, false, 0, &d), IDEM_OK);
    idem_key key = support_key("k");
    support_answer(s, "k", 200, "x");
    CHECK_IS(idem_forget(s, &key), IDEM_OK);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_CLAIMED);
    idem_key other = support_key("other");
    CHECK_IS(support_begin(s, "other", NULL), IDEM_CLAIMED);
    CHECK_IS(idem_release(s, &other, 0), IDEM_OK);
    CHECK_IS(support_begin(s, "other", NULL), IDEM_RECLAIMED); /* of this nothing is */
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    CHECK_IS(idem_log_walk(wal, count_kinds, kinds), IDEM_OK);
    CHECK(kinds[REC_CLAIM] == 1 && kinds[REC_RESPONSE] == 0);
    over();
}

static void what_a_sweep_tends_of_a_store_whose_pages_are_gone(void **state)
{
    (void)state;
    begin();
    idem_key key = support_key("k");
    for (unsigned i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof name, "k-%u", i);
        idem_request rq = support_request(name);
        idem_claim c;
        rq.ttl_ms = 1000;
        CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
        CHECK_IS(support_complete(s, &c, 200, "x"), IDEM_OK);
    }
    support_clock_add(20000);
    support_at_point("sweep.draining", 1, poison, NULL);
    CHECK_IS(idem_maintain(s, 100000), IDEM_E_CORRUPT);
    store_relaxed(&v->poisoned, 0);
    CHECK_IS(idem_lookup(s, &key, NULL), IDEM_E_NO_KEY);
    over();
}

static void die_changing(void *unused)
{
    (void)unused;
    idem_store *mine = support_attach(dir);
    CHECK_IS(support_begin(mine, "by one who died", NULL), IDEM_CLAIMED);
    struct idem_view *its = mine->view;
    for (uint32_t i = 0; i < its->fixed.lanes_max; i++)
        if (load_relaxed(&its->lanes[i].owner) == its->process.owner)
            store_relaxed(&its->lanes[i].hazard_compare, 1);
    support_save_counters();
    _exit(0);
}
static void *take_lane(void *unused)
{
    push_one("l");
    lose_lane(unused); /* so that it is not this thread's to give back */
    return NULL;
}

/* Its lane goes to another thread: perhaps there is something that was not pushed. */
static void who_died_in_the_middle_of_a_change_is_walked_for(void **state)
{
    (void)state;
    begin();
    uint64_t walks = load_relaxed(&control[LOG_WALK_WANTED]);
    CHECK_IS(support_reap(support_spawn(die_changing, NULL), SUPPORT_PATIENCE_MS), 0);
    elsewhere(take_lane, NULL);
    CHECK_IS(load_relaxed(&control[LOG_WALK_WANTED]), walks + 1);
    over();
}

/* ------------------------------------------------------------------ forked */

static void begin_in_child(void *unused)
{
    (void)unused;
    CHECK_IS(support_begin(s, "k", NULL), IDEM_E_STALE);
}

static void a_child_whose_store_is_gone_says_so(void **state)
{
    (void)state;
    begin_attached();
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    support_in_child(begin_in_child, NULL);
    gone();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_happens_while_a_claim_waits_for_the_disk),
        cmocka_unit_test(what_happens_while_many_wait_for_the_disk),
        cmocka_unit_test(without_a_lane_a_leader_takes_nothing),
        cmocka_unit_test(what_lies_in_a_region_that_goes_is_left_to_what_came_after_it),
        cmocka_unit_test(what_is_recorded_of_odd_entries),
        cmocka_unit_test(forgetting_is_logged_in_any_case),
        cmocka_unit_test(what_a_sweep_tends_of_a_store_whose_pages_are_gone),
        cmocka_unit_test(who_died_in_the_middle_of_a_change_is_walked_for),
        cmocka_unit_test(a_child_whose_store_is_gone_says_so),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
