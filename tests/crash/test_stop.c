/*
 * tests/crash/test_stop.c - a process is stopped at each named point of each operation, for longer than leases, times to live and
 * the life of regions; then it goes on, and nothing is corrupted.
 *
 * While it is stopped a peer does one of three things with the key: nothing, takes it over and answers, or does that and, when the answer has
 * expired, once more. Short-lived traffic fills regions and lets them expire, so that they are recycled again and again. Then the
 * stopped one goes on and does all that an owner may do: if somebody took over, it is fenced; if not, it is right.
 * The last tests: two processes that are stopped, the second in the sweep that the first one holds up; that no named point was left out; seeded
 * faults.
 */
/* timeout: 300 s */
#include "support/scenes.h"

#include <stdio.h>
#include <string.h>

#include "store/handle.h"

enum peer { LEAVES_IT, TAKES_OVER, TAKES_OVER_TWICE };
static const char *const peer_does[] = {"nobody takes over", "a peer takes over", "a peer takes over twice"};

/* What the peer did with the key while the other was stopped. */
struct deed {
    uint64_t token; /* the last one that the peer was granted, 0: none */
    bool answered;
    uint64_t answer_token;
    char body[64];
    bool tombstone;
};

static void go_on(struct stage *st, const char *body, struct deed *d)
{
    idem_reply r = IDEM_REPLY_INIT;
    idem_claim c;
    int v = stage_begin(st, st->peer, STAGE_KEY, &c, &r);
    d->answered = false;
    if (v == IDEM_REPLAY) {
        d->answered = true;
        d->answer_token = r.token;
        d->tombstone = (r.flags & IDEM_REPLY_NOT_RETAINED) != 0;
        snprintf(d->body, sizeof d->body, "%.*s", d->tombstone ? 0 : (int)r.body_bytes, (const char *)r.body);
    } else if (v == IDEM_CLAIMED || v == IDEM_RECLAIMED) {
        d->token = c.token;
        int e = support_complete(st->peer, &c, 200, body);
        d->answered = e == IDEM_OK || e == IDEM_TOMBSTONE;
        d->answer_token = c.token;
        d->tombstone = e == IDEM_TOMBSTONE;
        snprintf(d->body, sizeof d->body, "%s", body);
        if (!d->answered)
            stage_broken("the peer cannot complete: %d (%s)", e, idem_error_detail());
        if (st->owned.token != 0)
            st->old[st->old_n++] = st->owned;
    } else if (v != IDEM_UNKNOWN && !(v == IDEM_E_FULL && st->full)) {
        stage_broken("the peer cannot go on: %d (%s; %s)", v, idem_strerror(v), v < 0 ? idem_error_detail() : "");
    }
    idem_reply_free(&r);
}

static void meanwhile(struct stage *st, enum peer peer, struct deed *d)
{
    stage_swept(st);
    unsigned rounds = 6;
    if (peer == LEAVES_IT) {
        stage_storm(st, rounds);
    } else {
        stage_advance(st, STAGE_LEASE_MS + 1000);
        go_on(st, "the peer's", d);
        stage_storm(st, rounds);
    }
    if (peer == TAKES_OVER_TWICE) {
        stage_advance(st, STAGE_TTL_MS + 4000);
        stage_storm(st, 2);
        rounds += 2;
        go_on(st, "the peer's second", d);
        stage_storm(st, 1);
    }
    uint64_t swept = stage_swept(st);
    if (swept < rounds && !st->full)
        stage_broken("only %llu regions were recycled: this shows nothing", (unsigned long long)swept);
}

static void check_late(const struct scene *scene, const struct crash_page *page, const struct deed *d, bool undone)
{
    uint64_t token = page->claim.token;
    if (token == 0 || !page->late)
        return;
    int late[4] = {page->late_complete, page->late_renew, page->late_mark, page->late_abandon};
    if (d->answered && token == d->answer_token) {
        if (late[0] != IDEM_OK)
            stage_broken("completing once more is %d", late[0]);
    } else if (token < d->token) {
        for (unsigned i = 0; i < 4; i++)
            if (late[i] != IDEM_E_LOST)
                stage_broken("late call %u of the stopped owner says %d (%s)", i, late[i], idem_strerror(late[i]));
    } else if (d->token != 0 && !undone) {
        stage_broken("token %llu was granted after %llu had answered", (unsigned long long)token,
                     (unsigned long long)d->token);
    } else if (d->token == 0 && !d->answered && page->verdict > 0 && scene->after.verdict == IDEM_RECLAIMED) {
        /* It was granted a claim, nobody took over: the lease's end alone is no harm. */
        if (late[0] < 0 || late[1] != IDEM_OK || late[2] != IDEM_OK || late[3] != IDEM_E_LOST)
            stage_broken("nobody took over, but: complete %d, renew %d, mark %d, abandon %d", late[0], late[1], late[2],
                         late[3]);
    }
}

static struct stage_fate fate_of(const struct scene *scene, const struct crash_page *page, const struct deed *d,
                                 enum peer peer, bool undone, bool *known)
{
    *known = true;
    if (d->answered && !undone)
        return (struct stage_fate){.verdict = IDEM_REPLAY, .body = d->tombstone ? NULL : d->body};
    if (peer == LEAVES_IT && scene_took_effect(scene, page) && scene->after.verdict == IDEM_REPLAY)
        return scene->after;
    if (peer == LEAVES_IT && page->late && page->late_complete == IDEM_OK && page->verdict > 0)
        return (struct stage_fate){.verdict = IDEM_REPLAY, .body = "late"};
    *known = false;
    return (struct stage_fate){0};
}

static void stop_at(const struct scene *scene, struct scene_moment at, enum peer peer, bool late)
{
    struct stage st;
    idem_options o = stage_options();
    if (scene->options != NULL)
        scene->options(&o);
    stage_case("%s, stopped at %s (%u), %s", scene->name, crash_point_name(at.point), at.nth, peer_does[peer]);
    stage_open(&st, &o, (scene->flags & SCENE_QUIET) != 0);
    st.full = (scene->flags & SCENE_FULL) != 0;
    if (scene->prepare != NULL)
        scene->prepare(&st);
    enum crash_end end;
    struct crash_victim *v = scene_start(scene, &st, at.point, at.nth, CRASH_STOP, late, &end);
    struct deed d = {0};
    bool stood = scene_took_effect(scene, v->page);
    if (end == CRASH_STOPPED) {
        st.slept = true;
        meanwhile(&st, peer, &d);
        stage_verify(&st);
        end = scene_continue(scene, &st, v);
    }
    if (end != CRASH_DONE)
        stage_broken("the victim was to go on, but: %d", (int)end);
    crash_end(v);
    stage_verify(&st);
    stage_storm(&st, 1);
    stage_verify(&st);
    /* An operator who is so late that he undoes what a peer has done is right. */
    bool undone = (scene->flags & SCENE_UNDOES) != 0 && !stood;
    check_late(scene, v->page, &d, undone);
    if (v->page->claim.token != 0 && v->page->claim.token == d.token)
        stage_broken("token %llu was granted twice", (unsigned long long)d.token);
    scene_over(scene, &st, v);
    bool known;
    struct stage_fate fate = fate_of(scene, v->page, &d, peer, undone, &known);
    stage_promises(&st, known ? &fate : NULL);
    stage_close(&st);
}

/* Also with one who, back again, is ended before he can do more. */
static void stop_everywhere(const struct scene *scene, bool until_broken)
{
    static struct scene_moment moments[256];
    static unsigned turn;
    unsigned n = scene_rehearse(scene, moments, 256, support_long() ? 2 : 0);
    CHECK(n > 0);
    /* All points, but not each in each way: with sanitizers every fourth case, else every second. */
    unsigned share = (unsigned)support_scaled(4, 2);
    for (unsigned i = 0; i < n; i++, turn++)
        for (unsigned p = 0; p < 4 && !(until_broken && stage_broken_count() > 0); p++)
            if (until_broken || support_long() || (p + turn) % 4 < share / 2)
                stop_at(scene, moments[i], p < 3 ? (enum peer)p : LEAVES_IT, p < 3);
}

static void test_scene(void **state)
{
    stage_take_broken(false);
    stop_everywhere(*state, false);
    CHECK_IS(stage_take_broken(false), 0);
}

/* ------------------------------------------------------------------ two that are stopped */

struct pair {
    const char *scene, *point;
};
static const struct pair firsts[] = {
    {"a claimant of a new key", "reserve.hazard"},  {"a claimant of a new key who has claimed before", "claim.timed"},
    {"a claimant of a new key", "claim.filled"},    {"a claimant of a new key", "claim.reserved"},
    {"a claimant of a new key", "claim.published"}, {"an owner who completes", "complete.filled"},
    {"an owner who completes", "swap.swapped"},     {"who takes over from the dead", "takeover.filled"},
    {"an owner who leaves a mark", "renew.filled"}, {"who forgets an answer", "swap.swapped"},
};
static const char *const seconds[] = {"sweep.draining", "sweep.noted",    "sweep.slice",  "sweep.moved",
                                      "sweep.retiring", "sweep.recycled", "free.unnamed", "free.freed",
                                      "reserve.hazard", "swap.swapped"};
#define FIRSTS  (sizeof firsts / sizeof firsts[0])
#define SECONDS (sizeof seconds / sizeof seconds[0])

static bool both_stopped(const struct pair *first, const char *second, bool first_goes_first, bool taken)
{
    const struct scene *scene = scene_named(first->scene), *sweeper = scene_named("a sweeper");
    struct stage st;
    stage_case("%s, stopped at %s, and the sweep at %s, %s goes on first", first->scene, first->point, second,
               first_goes_first ? "the first" : "the second");
    stage_open(&st, NULL, true);
    if (scene->prepare != NULL)
        scene->prepare(&st);
    enum crash_end end, sweep_end;
    struct crash_victim *a = scene_start(scene, &st, crash_point(first->point), 1, CRASH_STOP, true, &end);
    CHECK_IS(end, CRASH_STOPPED);
    struct deed d = {0};
    stage_traffic(&st);
    stage_advance(&st, STAGE_LEASE_MS);
    if (taken)
        go_on(&st, "the peer's", &d);
    struct crash_victim *b = scene_start(sweeper, &st, crash_point(second), 1, CRASH_STOP, false, &sweep_end);
    bool reached = sweep_end == CRASH_STOPPED;
    stage_storm(&st, 2);
    struct crash_victim *order[2] = {first_goes_first ? a : b, first_goes_first ? b : a};
    for (unsigned i = 0; i < 2; i++) {
        if (order[i]->pid != 0) {
            crash_continue(order[i]);
            if (crash_wait(order[i]) != CRASH_DONE)
                stage_broken("one did not come to its end");
        }
        stage_verify(&st);
        stage_storm(&st, 1);
    }
    check_late(scene, a->page, &d, false);
    scene_over(scene, &st, a);
    struct stage_fate fate = {.verdict = IDEM_REPLAY, .body = d.body};
    stage_promises(&st, d.answered ? &fate : NULL);
    stage_close(&st);
    return reached;
}

static void a_sweeper_stopped_in_what_another_one_holds_up_does_no_harm(void **state)
{
    (void)state;
    unsigned reached = 0, tried = 0;
    for (unsigned i = 0; i < FIRSTS; i++)
        for (unsigned j = 0; j < SECONDS; j++)
            if (support_long() || (i + j) % 3 == 0)
                for (unsigned k = 0; k < (support_long() ? 4u : 1u); k++) {
                    unsigned turn = support_long() ? k : i + j / 3;
                    reached += both_stopped(&firsts[i], seconds[j], (turn & 1) != 0, (turn & 2) != 0);
                    tried++;
                }
    print_message("%u of %u sweeps were stopped\n", reached, tried);
    CHECK(reached * 2 > tried);
    CHECK_IS(stage_take_broken(false), 0);
}

/* What the next user of each free region may do at any time. */
static void scribble(struct stage *st)
{
    const struct idem_view *v = st->peer->view;
    unsigned n = 0;
    for (uint32_t i = 0; i < v->region_count; i++) {
        if (region_phase(load_acquire(&v->regions[i].state)) != REGION_FREE)
            continue;
        memset((uint8_t *)v->arena + ((uint64_t)i << v->region_shift), 0, (size_t)1 << v->region_shift);
        n++;
    }
    CHECK(n > 0);
}

/* Who found a key and sleeps must not believe what lies there afterwards. */
static void who_found_an_outcome_and_slept_is_told_of_it_and_of_nothing_else(void **state)
{
    (void)state;
    static const struct {
        const char *scene;
        int says;
    } looks[] = {{"who looks up a rescued outcome", IDEM_REPLAY},
                 {"who explains a rescued outcome", IDEM_OK},
                 {"who gets a replay", IDEM_REPLAY}};
    for (unsigned i = 0; i < 3; i++) {
        const struct scene *scene = scene_named(looks[i].scene);
        struct stage st;
        stage_case("%s, asleep after it was found", scene->name);
        stage_open(&st, NULL, true);
        scene->prepare(&st);
        enum crash_end end;
        struct crash_victim *v = scene_start(scene, &st, crash_point("find.found"), 1, CRASH_STOP, false, &end);
        CHECK_IS(end, CRASH_STOPPED);
        st.full = true;
        stage_advance(&st, STAGE_LEASE_MS + 1000);
        stage_maintain(&st);
        st.full = false;
        stage_storm(&st, 2);
        scribble(&st);
        CHECK_IS(scene_continue(scene, &st, v), CRASH_DONE);
        CHECK_IS(v->page->verdict, looks[i].says);
        stage_close(&st);
    }
    CHECK_IS(stage_take_broken(false), 0);
}

static void look(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_key key = support_key(st->key[STAGE_KEY]);
    crash_arm();
    page->verdict = idem_lookup(store, &key, NULL);
}

static void explain(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_key key = support_key(st->key[STAGE_KEY]);
    idem_story story = IDEM_STORY_INIT;
    crash_arm();
    page->verdict = idem_explain(store, &key, &story);
    if (page->verdict == IDEM_OK && story.state == IDEM_STATE_COMPLETED)
        page->verdict = IDEM_REPLAY;
    idem_story_free(&story);
}

static void begin_held(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_request r = stage_request(st, STAGE_KEY);
    r.flags = IDEM_HOLD;
    crash_arm();
    page->verdict = idem_begin(store, &r, &page->claim, NULL);
}

/* The attempt was running when he looked; it is completed at once. He may be told either, but not that it was lost or never was. */
static void who_found_a_running_attempt_and_slept_is_not_told_that_it_was_lost(void **state)
{
    (void)state;
    static const struct scene looks[] = {{.name = "who looks a key up", .act = look},
                                         {.name = "who has a key explained", .act = explain},
                                         {.name = "who would hold a key", .act = begin_held}};
    for (unsigned i = 0; i < 6; i++) {
        const struct scene *scene = &looks[i / 2];
        struct stage st;
        stage_case("%s, asleep after it was found", scene->name);
        stage_open(&st, NULL, true);
        stage_own(&st, STAGE_KEY, NULL, 0);
        enum crash_end end;
        struct crash_victim *v = scene_start(scene, &st, crash_point("find.found"), 1, CRASH_STOP, false, &end);
        CHECK_IS(end, CRASH_STOPPED);
        idem_response r = support_response(200, "at once");
        r.ttl_ms = STAGE_NEIGHBOURS_MS;
        CHECK_IS(idem_complete(st.other, &st.owned, &r), IDEM_OK);
        stage_advance(&st, i % 2 == 0 ? STAGE_LEASE_MS + 1000 : STAGE_TTL_MS + 1000);
        CHECK_IS(scene_continue(scene, &st, v), CRASH_DONE);
        if (v->page->verdict != IDEM_IN_PROGRESS)
            CHECK_IS(v->page->verdict, IDEM_REPLAY);
        stage_close(&st);
    }
    CHECK_IS(stage_take_broken(false), 0);
}

/* ------------------------------------------------------------------ stores that are being made or removed */

static void create_it(struct crash_page *page, void *dir)
{
    idem_options o = stage_options();
    idem_store *store;
    crash_arm();
    page->verdict = idem_open(dir, &o, &store);
    if (page->verdict == IDEM_OK)
        page->verdict = support_begin(store, "key", &page->claim);
}

static void a_creator_who_is_stopped_goes_on(void **state)
{
    (void)state;
    static const char *const points[] = {"create.generation", "create.root", "create.renamed"};
    for (unsigned i = 0; i < 3; i++) {
        const char *dir = support_dir();
        struct crash_step step = {crash_point(points[i]), 1, CRASH_STOP};
        struct crash_victim *v = crash_start(create_it, (void *)(uintptr_t)dir, &step, 1);
        CHECK_IS(crash_wait(v), CRASH_STOPPED);
        idem_store *store = NULL;
        bool there = i == 2;
        CHECK_IS(idem_open(dir, NULL, &store), there ? IDEM_OK : IDEM_E_NO_STORE);
        if (there)
            support_answer(store, "key", 200, "before him");
        idem_close(store);
        if (support_long() && !there) { /* it holds the directory's lock: who wants to create is told, after 10 s */
            idem_options o = stage_options();
            CHECK_IS(idem_open(dir, &o, &store), IDEM_E_SYSTEM);
            CHECK(strstr(idem_error_detail(), "stopped") != NULL);
        }
        support_clock_add(STAGE_TTL_MS / 2);
        crash_continue(v);
        CHECK_IS(crash_wait(v), CRASH_DONE);
        CHECK_IS(v->page->verdict, there ? IDEM_REPLAY : IDEM_CLAIMED);
        support_verify(dir);
        CHECK_IS(idem_destroy(dir), IDEM_OK);
    }
}

static void destroy_it(struct crash_page *page, void *dir)
{
    crash_arm();
    page->verdict = idem_destroy(dir);
}

static void a_destroyer_who_is_stopped_goes_on(void **state)
{
    (void)state;
    static const char *const points[] = {"destroy.dead", "destroy.unlinked"};
    for (unsigned i = 0; i < 2; i++) {
        const char *dir = support_dir();
        idem_options o = stage_options();
        idem_store *user = support_open(dir, &o), *none;
        idem_claim claim;
        CHECK_IS(support_begin(user, "key", &claim), IDEM_CLAIMED);
        idem_close(user);
        user = support_attach(dir);
        struct crash_step step = {crash_point(points[i]), 1, CRASH_STOP};
        struct crash_victim *v = crash_start(destroy_it, (void *)(uintptr_t)dir, &step, 1);
        CHECK_IS(crash_wait(v), CRASH_STOPPED);
        CHECK_IS(support_complete(user, &claim, 200, "x"), IDEM_E_STALE);
        CHECK_IS(idem_open(dir, NULL, &none), IDEM_E_NO_STORE);
        crash_continue(v);
        CHECK_IS(crash_wait(v), CRASH_DONE);
        CHECK_IS(v->page->verdict, IDEM_OK);
        idem_close(support_open(dir, &o));
        support_clock_add(1000);
        CHECK_IS(support_begin(user, "key", NULL), IDEM_CLAIMED);
        idem_close(user);
        CHECK_IS(idem_destroy(dir), IDEM_OK);
    }
}

/* Stopped in the middle of an operation on a store that is then replaced. */
static void who_is_stopped_in_a_store_that_is_replaced_changes_nothing_in_the_new_one(void **state)
{
    (void)state;
    static const char *const points[] = {"claim.filled", "claim.reserved", "claim.published", "complete.filled",
                                         "swap.swapped"};
    const struct scene *scenes[] = {scene_named("a claimant of a new key"), scene_named("an owner who completes")};
    for (unsigned i = 0; i < 5; i++) {
        struct stage st;
        stage_open(&st, NULL, true);
        enum crash_end end;
        const struct scene *scene = scenes[i > 2];
        struct crash_victim *v = scene_start(scene, &st, crash_point(points[i]), 1, CRASH_STOP, true, &end);
        CHECK_IS(end, CRASH_STOPPED);
        CHECK_IS(idem_destroy(st.dir), IDEM_OK);
        idem_store *fresh = support_open(st.dir, &st.options);
        support_answer(fresh, st.key[STAGE_KEY], 200, "in the new store");
        CHECK_IS(scene_continue(scene, &st, v), CRASH_DONE);
        CHECK_IS(v->page->late_complete, IDEM_E_STALE);
        CHECK_IS(v->page->late_renew, IDEM_E_STALE);
        CHECK_IS(v->page->late_mark, IDEM_E_STALE);
        CHECK_IS(v->page->late_abandon, IDEM_E_STALE);
        idem_reply r = IDEM_REPLY_INIT;
        idem_request rq = support_request(st.key[STAGE_KEY]);
        idem_claim none;
        CHECK_IS(idem_begin(fresh, &rq, &none, &r), IDEM_REPLAY);
        CHECK_BYTES(r.body, r.body_bytes, "in the new store");
        idem_reply_free(&r);
        support_verify(st.dir);
        idem_close(fresh);
        stage_close(&st);
    }
}

/* ------------------------------------------------------------------ were all points reached, would a fault be seen? */

static void every_named_point_of_the_sources_has_stopped_somebody(void **state)
{
    (void)state;
    unsigned missing = 0;
    for (int p = 0; p < crash_points(); p++)
        if (crash_stops(p) == 0 && !crash_point_of_log(p)) {
            print_error("nobody was stopped at %s: it needs a scene in tests/support/scenes_*.c\n",
                        crash_point_name(p));
            missing++;
        }
    CHECK_IS(missing, 0);
}

static void fault_is_noticed(const char *fault)
{
    stage_take_broken(true);
    support_fault(fault);
    stop_everywhere(scene_named("a claimant of a new key"), true);
    stop_everywhere(scene_named("a claimant of a new key who has claimed before"), true);
    stop_everywhere(scene_named("who tries again after a transient answer"), true);
    uint64_t seen = support_fault_seen();
    support_fault(NULL);
    unsigned n = stage_take_broken(false);
    CHECK(n > 0);
    support_caught(fault, "asked for %llu times, %u promises broken", (unsigned long long)seen, n);
}

static void a_writer_without_a_hazard_is_noticed(void **state)
{
    (void)state;
    fault_is_noticed("hazard.ignored");
}

static void a_sweep_that_does_not_wait_for_writers_is_noticed(void **state)
{
    (void)state;
    fault_is_noticed("sweep.no_check1");
}

int main(void)
{
    static const struct CMUnitTest rest[] = {
        cmocka_unit_test_teardown(a_sweeper_stopped_in_what_another_one_holds_up_does_no_harm, scene_teardown),
        cmocka_unit_test_teardown(who_found_an_outcome_and_slept_is_told_of_it_and_of_nothing_else, scene_teardown),
        cmocka_unit_test_teardown(who_found_a_running_attempt_and_slept_is_not_told_that_it_was_lost, scene_teardown),
        cmocka_unit_test_teardown(a_creator_who_is_stopped_goes_on, scene_teardown),
        cmocka_unit_test_teardown(a_destroyer_who_is_stopped_goes_on, scene_teardown),
        cmocka_unit_test_teardown(who_is_stopped_in_a_store_that_is_replaced_changes_nothing_in_the_new_one,
                                  scene_teardown),
        cmocka_unit_test_teardown(every_named_point_of_the_sources_has_stopped_somebody, scene_teardown),
        cmocka_unit_test_teardown(a_writer_without_a_hazard_is_noticed, scene_teardown),
        cmocka_unit_test_teardown(a_sweep_that_does_not_wait_for_writers_is_noticed, scene_teardown),
    };
    return scene_run_group("stop", "is_stopped_at_each_point", SCENE_NO_STOP, test_scene, rest,
                           sizeof rest / sizeof rest[0]);
}
