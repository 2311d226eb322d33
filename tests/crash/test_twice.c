/*
 * tests/crash/test_twice.c - who repairs what a dead process left dies as well; a third one finds every promise kept.
 *
 * The first victim dies at a named point of a scene (support/scenes.h). The second comes for the key at once (it takes over, helps, frees), or sweeps
 * after the lease, and dies at the nth point that it passes, whatever that is. Sampled; `--long` does all of them.
 */
/* timeout: 300 s */
#include "support/scenes.h"

#include <stdio.h>
#include <string.h>

#define REPAIR_POINTS 12u

static unsigned cases, second_deaths;

static uint64_t hits(const struct crash_page *page, const char *point)
{
    return load_relaxed(&page->hits[crash_point(point)]);
}

/* What a third one must find after the second came for the key. */
static struct stage_fate after_begin(struct stage_fate f, const struct crash_page *page)
{
    bool claimed =
        hits(page, "claim.published") > 0 || (hits(page, "takeover.filled") > 0 && hits(page, "swap.swapped") > 0);
    if ((f.verdict == IDEM_CLAIMED || f.verdict == IDEM_RECLAIMED) && claimed) {
        f.verdict = IDEM_RECLAIMED;
        f.reason = IDEM_LOST_DEAD;
        f.attempt++;
    }
    return f;
}

static void die_twice(const struct scene *scene, struct scene_moment first, bool sweeps, unsigned nth)
{
    static const struct scene *repairs[2];
    if (repairs[0] == NULL) {
        repairs[0] = scene_named("a claimant of a new key");
        repairs[1] = scene_named("a sweeper");
    }
    struct stage st;
    idem_options o = stage_options();
    if (scene->options != NULL)
        scene->options(&o);
    stage_case("%s, killed at %s (%u), then %s at its point %u", scene->name, crash_point_name(first.point), first.nth,
               sweeps ? "who sweeps" : "who comes for the key", nth);
    stage_open(&st, &o, (scene->flags & SCENE_QUIET) != 0);
    if (scene->prepare != NULL)
        scene->prepare(&st);
    enum crash_end end;
    struct crash_victim *v = scene_start(scene, &st, first.point, first.nth, CRASH_KILL, false, &end);
    crash_end(v);
    struct stage_fate fate = scene_took_effect(scene, v->page) ? scene->after : scene->before;
    scene_over(scene, &st, v);
    if (sweeps)
        stage_advance(&st, STAGE_LEASE_MS + 1000);
    v = scene_start(repairs[sweeps], &st, CRASH_ANY, nth, CRASH_KILL, false, &end);
    crash_end(v);
    cases++;
    second_deaths += end == CRASH_KILLED;
    if (end == CRASH_WRONG)
        stage_broken("the second did not die as it should");
    scene_over(repairs[0], &st, v);
    bool known = true;
    if (!sweeps)
        fate = after_begin(fate, v->page);
    else if (fate.verdict == IDEM_RECLAIMED)
        fate.reason = -1; /* the lease is over by now */
    else if (fate.verdict == IDEM_IN_PROGRESS)
        known = false;
    if (sweeps && st.owned.token != 0 && fate.verdict == IDEM_IN_PROGRESS)
        st.old[st.old_n++] = st.owned;
    stage_promises(&st, known ? &fate : NULL);
    stage_close(&st);
}

static void test_scene(void **state)
{
    const struct scene *scene = *state;
    static struct scene_moment moments[256];
    static unsigned turn;
    stage_take_broken(false);
    unsigned n = scene_rehearse(scene, moments, 256, 0);
    unsigned share = support_long() ? 1 : (unsigned)(23 / support_scaled(2, 2)); /* nothing that 24 is a multiple of */
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < 2 * REPAIR_POINTS; k++)
            if (turn++ % share == 0)
                die_twice(scene, moments[i], k % 2 != 0, k / 2 + 1);
    CHECK_IS(stage_take_broken(false), 0);
}

static void most_of_those_who_repaired_died(void **state)
{
    (void)state;
    print_message("%u of %u died in the repair\n", second_deaths, cases);
    CHECK(second_deaths * 3 > cases);
}

/* The sweep of a dead sweeper's work is where it shows. */
static void a_header_that_names_a_freed_slot_is_noticed(void **state)
{
    (void)state;
    stage_take_broken(true);
    support_fault("free.pending");
    for (unsigned nth = 1; nth < 40; nth += 6)
        die_twice(scene_named("a sweeper"), (struct scene_moment){crash_point("free.freed"), 2}, true, nth);
    support_fault(NULL);
    unsigned n = stage_take_broken(false);
    CHECK(n > 0);
    support_caught("free.pending", "%u promises broken", n);
}

int main(void)
{
    static const struct CMUnitTest rest[] = {
        cmocka_unit_test_teardown(most_of_those_who_repaired_died, scene_teardown),
        cmocka_unit_test_teardown(a_header_that_names_a_freed_slot_is_noticed, scene_teardown),
    };
    return scene_run_group("twice", "is_killed_and_so_is_who_repairs", SCENE_FULL, test_scene, rest,
                           sizeof rest / sizeof rest[0]);
}
