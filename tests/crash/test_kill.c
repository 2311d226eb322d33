/*
 * tests/crash/test_kill.c - a process dies at each named point of each operation; a peer then finds every promise kept.
 *
 * Promises 1 to 4 of the design, for processes that are killed: idem_verify finds nothing; the key has one owner and its tokens
 * grow; a dead owner's key is taken over at once, with its mark; old owners are fenced; keys of the same bucket work; memory
 * comes back. Each scene (support/scenes.h) is one test; then creating, destroying and replacing a store. The last tests make sure that no
 * named point of src/ was left out, and that a seeded fault is noticed.
 */
/* timeout: 300 s */
#include "support/scenes.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "store/handle.h"

/* ------------------------------------------------------------------ scenes */

static void die_at(const struct scene *scene, struct scene_moment at)
{
    struct stage st;
    idem_options o = stage_options();
    if (scene->options != NULL)
        scene->options(&o);
    stage_case("%s, killed at %s (%u)", scene->name, crash_point_name(at.point), at.nth);
    stage_open(&st, &o, (scene->flags & SCENE_QUIET) != 0);
    st.full = (scene->flags & SCENE_FULL) != 0;
    if (scene->prepare != NULL)
        scene->prepare(&st);
    enum crash_end end;
    struct crash_victim *v = scene_start(scene, &st, at.point, at.nth, CRASH_KILL, false, &end);
    if (end != CRASH_KILLED && end != CRASH_DONE)
        stage_broken("the victim was to be killed, but: %d", (int)end);
    crash_end(v);
    struct stage_fate fate = scene_took_effect(scene, v->page) ? scene->after : scene->before;
    scene_over(scene, &st, v);
    stage_promises(&st, &fate);
    stage_close(&st);
}

static void kill_everywhere(const struct scene *scene)
{
    static struct scene_moment moments[512];
    unsigned n = scene_rehearse(scene, moments, 512, support_long() ? 8 : 1);
    for (unsigned i = 0; i < n; i++)
        die_at(scene, moments[i]);
    CHECK(n > 0);
}

static void test_scene(void **state)
{
    stage_take_broken(false);
    kill_everywhere(*state);
    CHECK_IS(stage_take_broken(false), 0);
}

/* ------------------------------------------------------------------ creating and removing stores */

static unsigned count_files(const char *dir)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    if (d == NULL)
        return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void create_it(struct crash_page *page, void *dir)
{
    idem_options o = stage_options();
    idem_store *store;
    crash_arm();
    page->verdict = idem_open(dir, &o, &store);
}

static void store_works(const char *dir)
{
    idem_options o = stage_options();
    idem_store *store = support_open(dir, &o);
    CHECK_IS(count_files(dir), 2);
    support_answer(store, "works", 200, "works");
    support_verify(dir);
    idem_close(store);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    CHECK_IS(count_files(dir), 0);
}

static const char *const create_points[] = {"create.generation", "create.root", "create.renamed", "process.locked"};
#define CREATE_POINTS (sizeof create_points / sizeof create_points[0])

static void a_creator_killed_at_each_point_leaves_a_store_or_none(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CREATE_POINTS; i++) {
        const char *dir = support_dir();
        struct crash_step step = {crash_point(create_points[i]), 1, CRASH_KILL};
        struct crash_victim *v = crash_start(create_it, (void *)(uintptr_t)dir, &step, 1);
        CHECK_IS(crash_wait(v), CRASH_KILLED);
        idem_store *store = NULL;
        CHECK_IS(idem_open(dir, NULL, &store), i < 2 ? IDEM_E_NO_STORE : IDEM_OK);
        idem_close(store);
        store_works(dir);
    }
}

static void who_waits_for_a_creator_goes_on_when_that_one_is_killed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        const char *dir = support_dir();
        struct crash_step step = {crash_point(create_points[i]), 1, CRASH_STOP};
        struct crash_victim *first = crash_start(create_it, (void *)(uintptr_t)dir, &step, 1);
        CHECK_IS(crash_wait(first), CRASH_STOPPED);
        struct crash_victim *second = crash_start(create_it, (void *)(uintptr_t)dir, NULL, 0);
        support_sleep_ms(20); /* most likely it waits by now; if not, it comes to a free directory */
        crash_end(first);
        CHECK_IS(crash_wait(second), CRASH_DONE);
        CHECK_IS(second->page->verdict, IDEM_OK);
        store_works(dir);
    }
}

static void destroy_it(struct crash_page *page, void *dir)
{
    crash_arm();
    page->verdict = idem_destroy(dir);
}

static const char *const destroy_points[] = {"destroy.dead", "destroy.unlinked"};

static void a_destroyer_killed_at_each_point_leaves_no_store_that_works(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++)
        for (unsigned again = 0; again < 2; again++) {
            const char *dir = support_dir();
            idem_options o = stage_options();
            idem_close(support_open(dir, &o));
            idem_store *user = support_attach(dir), *none;
            idem_claim claim;
            CHECK_IS(support_begin(user, "key", &claim), IDEM_CLAIMED);
            struct crash_step step = {crash_point(destroy_points[i]), 1, CRASH_KILL};
            struct crash_victim *v = crash_start(destroy_it, (void *)(uintptr_t)dir, &step, 1);
            CHECK_IS(crash_wait(v), CRASH_KILLED);
            CHECK_IS(support_complete(user, &claim, 200, "x"), IDEM_E_STALE);
            CHECK_IS(support_begin(user, "other", NULL), IDEM_E_STALE);
            CHECK_IS(idem_open(dir, NULL, &none), IDEM_E_NO_STORE);
            if (again) {
                int e = idem_destroy(dir);
                CHECK(e == IDEM_OK || e == IDEM_E_NO_STORE);
                CHECK_IS(count_files(dir), 0);
            }
            idem_close(support_open(dir, &o)); /* a new one comes, and the old handle finds it */
            support_clock_add(1000);
            CHECK_IS(support_begin(user, "key", NULL), IDEM_CLAIMED);
            CHECK_IS(support_complete(user, &claim, 200, "x"), IDEM_E_STALE);
            idem_close(user);
            store_works(dir);
        }
}

static void use_a_replaced_store(struct crash_page *page, void *dir)
{
    idem_store *store = support_attach(dir);
    CHECK_IS(support_begin(store, "before", NULL), IDEM_CLAIMED);
    crash_pause();
    crash_arm();
    page->verdict = support_begin(store, "key", &page->claim);
    CHECK_IS(page->verdict, IDEM_CLAIMED);
}

static void who_finds_the_store_replaced_is_killed_at_each_point(void **state)
{
    (void)state;
    static const char *const points[] = {"process.locked",  "lane.taken",    "region.meta",  "region.opened",
                                         "reserve.hazard",  "chunk.taken",   "claim.filled", "claim.reserved",
                                         "claim.published", "claim.finished"};
    for (unsigned i = 0; i < sizeof points / sizeof points[0]; i++) {
        const char *dir = support_dir();
        idem_options o = stage_options();
        idem_close(support_open(dir, &o));
        struct crash_step step = {crash_point(points[i]), 1, CRASH_KILL};
        struct crash_victim *v = crash_start(use_a_replaced_store, (void *)(uintptr_t)dir, &step, 1);
        CHECK_IS(crash_wait(v), CRASH_STOPPED);
        CHECK_IS(idem_destroy(dir), IDEM_OK);
        idem_store *peer = support_open(dir, &o);
        crash_continue(v);
        CHECK_IS(crash_wait(v), CRASH_KILLED);
        bool claimed = load_relaxed(&v->page->hits[crash_point("claim.published")]) > 0;
        idem_claim claim;
        CHECK_IS(support_begin(peer, "before", NULL), IDEM_CLAIMED);
        CHECK_IS(support_begin(peer, "key", &claim), claimed ? IDEM_RECLAIMED : IDEM_CLAIMED);
        CHECK_IS(support_complete(peer, &claim, 200, "done"), IDEM_OK);
        support_clock_add(2 * STAGE_TTL_MS);
        support_maintain(peer);
        CHECK_IS(support_stats(peer).regions_free, support_stats(peer).regions);
        idem_close(peer);
        store_works(dir);
    }
}

/* ------------------------------------------------------------------ memory */

/* All regions are taken, one by what was lost and is remembered for an hour. What expires comes back all the same. */
static void a_lost_claim_with_no_place_to_go_holds_back_nothing_but_itself(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_options o = stage_options();
    idem_store *store = support_open(dir, &o);
    idem_request r = support_request("lost");
    r.ttl_ms = 3600000;
    idem_claim claim;
    CHECK_IS(idem_begin(store, &r, &claim, NULL), IDEM_CLAIMED);
    static char body[5000];
    memset(body, 'b', sizeof body - 1);
    for (unsigned i = 0; i < 8; i++) {
        char key[16];
        snprintf(key, sizeof key, "answer-%u", i);
        support_answer(store, key, 200, body);
    }
    /* What answers that never expire would do: whole regions of them. */
    struct idem_op op;
    struct idem_space space;
    unsigned pieces = (unsigned)support_stats(store).regions_free * 16;
    CHECK_IS(idem_enter(store, &op), IDEM_OK);
    for (unsigned c = CLASS_NEVER; c < IDEM_CLASSES; c++) /* not into the region of the answers above */
        store_relaxed(&op.ctx.v->generation->open[c], 0);
    for (unsigned i = 0; i < pieces; i++) {
        CHECK_IS(idem_arena_reserve(&op.ctx, CLASS_NEVER, FOR_SWEEP, 4096, ENTRY_TIME_MAX, idem_view_now_ms(op.ctx.v),
                                    &space),
                 IDEM_OK);
        idem_arena_leave(&op.ctx);
    }
    CHECK_IS(idem_leave(&op, IDEM_OK), IDEM_OK);
    CHECK_IS(support_stats(store).regions_free, 0);
    support_clock_add(2 * STAGE_TTL_MS);
    support_maintain(store);
    CHECK(support_stats(store).regions_free > 0);
    CHECK_IS(idem_find(store, &r.key, 0, &claim), IDEM_OK);
    support_verify(dir);
    idem_close(store);
}

/* The store is nearly full; an answer that is to stay for ever finds no room in any open region. */
static void an_answer_without_room_does_not_keep_the_memory_of_others(void **state)
{
    (void)state;
    static char body[60000], text[15001];
    memset(text, 't', sizeof text - 1);
    const char *dir = support_dir();
    idem_options o = stage_options();
    idem_store *store = support_open(dir, &o);
    idem_claim last, claims[80];
    idem_request r = support_request("for ever");
    r.ttl_ms = IDEM_FOREVER;
    CHECK_IS(idem_begin(store, &r, &last, NULL), IDEM_CLAIMED);
    unsigned n = 0;
    for (; n < 80; n++) {
        char key[16];
        snprintf(key, sizeof key, "key-%u", n);
        r = support_request(key);
        r.ttl_ms = INT64_C(20000) << (n % 4); /* four classes, so four open regions */
        if (idem_begin(store, &r, &claims[n], NULL) != IDEM_CLAIMED)
            break;
    }
    for (unsigned i = 0; i < n && support_stats(store).regions_free > 1; i++)
        CHECK(support_complete(store, &claims[i], 200, text) >= 0);
    idem_response p = support_response(200, "");
    p.body = body;
    p.body_bytes = sizeof body;
    CHECK_IS(idem_complete(store, &last, &p), IDEM_TOMBSTONE);
    support_clock_add(2 * STAGE_NEIGHBOURS_MS);
    support_maintain(store);
    idem_stats_data s = support_stats(store);
    CHECK(s.regions_free + 2 >= s.regions);
    idem_close(store);
}

/* ------------------------------------------------------------------ were all points reached, would a fault be seen? */

static void every_named_point_of_the_sources_has_killed_somebody(void **state)
{
    (void)state;
    unsigned missing = 0;
    for (int p = 0; p < crash_points(); p++)
        if (crash_kills(p) == 0 && !crash_point_of_log(p)) {
            print_error("nobody was killed at %s: it needs a scene in tests/support/scenes_*.c\n", crash_point_name(p));
            missing++;
        }
    CHECK_IS(missing, 0);
}

static unsigned broken_by(const char *fault, const char *scene)
{
    stage_take_broken(true);
    support_fault(fault);
    kill_everywhere(scene_named(scene));
    uint64_t seen = support_fault_seen();
    support_fault(NULL);
    unsigned n = stage_take_broken(false);
    if (n > 0)
        support_caught(fault, "asked for %llu times, %u promises broken", (unsigned long long)seen, n);
    return n;
}

static void a_header_that_names_a_freed_slot_is_noticed(void **state)
{
    (void)state;
    CHECK(broken_by("free.pending", "a sweeper") > 0);
}

static void a_token_that_comes_twice_is_noticed(void **state)
{
    (void)state;
    support_clock_stand(true); /* it takes a takeover in the same tick of the clock */
    unsigned broken = broken_by("token.repeats", "an owner who abandons");
    support_clock_stand(false);
    CHECK(broken > 0);
}

int main(void)
{
    static const struct CMUnitTest rest[] = {
        cmocka_unit_test_teardown(a_creator_killed_at_each_point_leaves_a_store_or_none, scene_teardown),
        cmocka_unit_test_teardown(who_waits_for_a_creator_goes_on_when_that_one_is_killed, scene_teardown),
        cmocka_unit_test_teardown(a_destroyer_killed_at_each_point_leaves_no_store_that_works, scene_teardown),
        cmocka_unit_test_teardown(who_finds_the_store_replaced_is_killed_at_each_point, scene_teardown),
        cmocka_unit_test_teardown(a_lost_claim_with_no_place_to_go_holds_back_nothing_but_itself, scene_teardown),
        cmocka_unit_test_teardown(an_answer_without_room_does_not_keep_the_memory_of_others, scene_teardown),
        cmocka_unit_test_teardown(every_named_point_of_the_sources_has_killed_somebody, scene_teardown),
        cmocka_unit_test_teardown(a_header_that_names_a_freed_slot_is_noticed, scene_teardown),
        cmocka_unit_test_teardown(a_token_that_comes_twice_is_noticed, scene_teardown),
    };
    return scene_run_group("kill", "is_killed_at_each_point", 0, test_scene, rest, sizeof rest / sizeof rest[0]);
}
