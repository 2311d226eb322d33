/* tests/support/scenes.c - running a scene; the tables are in scenes_keys.c and scenes_memory.c. See scenes.h. */
#include "support/scenes_parts.h"

#include <stdio.h>
#include <string.h>

unsigned scene_count(void)
{
    return scenes_of_keys_n + scenes_of_memory_n;
}

const struct scene *scene_at(unsigned i)
{
    return i < scenes_of_keys_n ? &scenes_of_keys[i] : &scenes_of_memory[i - scenes_of_keys_n];
}

const struct scene *scene_named(const char *name)
{
    for (unsigned i = 0; i < scene_count(); i++)
        if (strcmp(scene_at(i)->name, name) == 0)
            return scene_at(i);
    CHECK(name == NULL);
    return scene_at(0);
}

struct cast {
    const struct scene *scene;
    struct stage *st;
    bool late;
};

static void act_late(struct crash_page *page, idem_store *store)
{
    /* What a program does that doesn't know how late it is. */
    page->late = true;
    page->late_renew = idem_renew(store, &page->claim, 0);
    page->late_mark = idem_mark(store, &page->claim, "late", 4);
    page->late_complete = support_complete(store, &page->claim, 200, "late");
    page->late_abandon = idem_abandon(store, &page->claim, IDEM_OUTCOME_UNKNOWN);
}

static void play(struct crash_page *page, void *ctx)
{
    const struct cast *c = ctx;
    idem_store *store = NULL;
    if (!(c->scene->flags & SCENE_OPENS))
        store = support_attach(c->st->dir);
    c->scene->act(page, store, c->st);
    crash_disarm();
    if (c->late && page->claim.token != 0 && store != NULL)
        act_late(page, store);
}

#define TARGET 0u
#define PAUSE  1u

/* Waits for the victim's end or its target; the scene's own pauses on the way are what meanwhile() is for. */
static enum crash_end go_on(const struct scene *scene, struct stage *st, struct crash_victim *v)
{
    for (;;) {
        enum crash_end end = crash_wait(v);
        bool pause = load_acquire(&v->page->paused) != 0 || load_acquire(&v->page->step) == PAUSE + 1;
        if (end != CRASH_STOPPED || !pause)
            return end;
        scene->meanwhile(st);
        crash_continue(v);
    }
}

struct crash_victim *scene_start(const struct scene *scene, struct stage *st, int point, unsigned nth,
                                 enum crash_deed deed, bool late, enum crash_end *end)
{
    static struct cast casts[CRASH_VICTIMS]; /* each child has its copy; here it only has to outlive the fork */
    casts[0] = (struct cast){scene, st, late};
    int pause = scene->pause_at != NULL ? crash_point(scene->pause_at) : -1;
    struct crash_step steps[2] = {[TARGET] = {point, nth, deed}, [PAUSE] = {pause, 1, CRASH_STOP}};
    if (point == pause && nth == 1)
        steps[PAUSE].point = -1; /* the deed comes in its place */
    struct crash_victim *v = crash_start(play, &casts[0], steps, 2);
    *end = go_on(scene, st, v);
    return v;
}

enum crash_end scene_continue(const struct scene *scene, struct stage *st, struct crash_victim *v)
{
    store_release(&v->page->step, 0);
    crash_continue(v);
    return go_on(scene, st, v);
}

void scene_over(const struct scene *scene, struct stage *st, const struct crash_victim *v)
{
    if (v->page->claim.token != 0 && v->page->claim.token != st->owned.token)
        st->old[st->old_n++] = v->page->claim;
    if (v->page->claim.token > st->newest[STAGE_KEY])
        st->newest[STAGE_KEY] = v->page->claim.token;
    if (scene->finally != NULL)
        scene->finally(st);
    if (st->evicts)
        support_clock_add(5); /* as in the act: what was answered in this tick is not evicted yet */
}

bool scene_took_effect(const struct scene *scene, const struct crash_page *page)
{
    int point = scene->effect != NULL ? crash_point(scene->effect) : -1;
    return point >= 0 && load_relaxed(&page->hits[point]) > 0;
}

unsigned scene_rehearse(const struct scene *scene, struct scene_moment *moments, unsigned room, unsigned more)
{
    struct stage st;
    idem_options o = stage_options();
    if (scene->options != NULL)
        scene->options(&o);
    stage_case("%s, with nobody dying", scene->name);
    stage_open(&st, &o, (scene->flags & SCENE_QUIET) != 0);
    st.full = (scene->flags & SCENE_FULL) != 0;
    if (scene->prepare != NULL)
        scene->prepare(&st);
    enum crash_end end;
    struct crash_victim *v = scene_start(scene, &st, -1, 0, CRASH_KILL, false, &end);
    if (end != CRASH_DONE)
        stage_broken("the victim did not come to its end: %d", (int)end);
    crash_end(v);
    uint32_t traced = v->page->traced < CRASH_TRACE_MAX ? v->page->traced : CRASH_TRACE_MAX;
    unsigned n = 0, seen[CRASH_POINTS_MAX] = {0};
    for (uint32_t i = 0; i < traced; i++)
        seen[v->page->trace[i]]++;
    for (int p = 0; p < crash_points(); p++)
        for (unsigned k = 1; k <= seen[p]; k++)
            if ((k == 1 || k == seen[p] || k <= more) && n < room && (k == 1 || more > 0))
                moments[n++] = (struct scene_moment){p, k};
    scene_over(scene, &st, v);
    struct stage_fate fate = scene_took_effect(scene, v->page) ? scene->after : scene->before;
    if (scene->effect != NULL && !scene_took_effect(scene, v->page))
        stage_broken("the act never reached its effect %s", scene->effect);
    fate.reason = fate.reason != IDEM_LOST_NONE ? fate.reason : -1;
    stage_promises(&st, &fate);
    stage_close(&st);
    return n;
}

/* ------------------------------------------------------------------ a file of tests */

int scene_setup(void **state)
{
    return support_setup(state) != 0 ? -1 : crash_setup();
}

int scene_teardown(void **state)
{
    (void)state;
    support_fault(NULL);
    stage_take_broken(false);
    crash_end_all();
    return 0;
}

int scene_run_group(const char *group, const char *and_what, unsigned without, CMUnitTestFunction each,
                    const struct CMUnitTest *rest, size_t rest_n)
{
    static struct CMUnitTest tests[64];
    static char names[64][140];
    size_t n = 0;
    CHECK(scene_count() + rest_n <= 64);
    for (unsigned i = 0; i < scene_count(); i++) {
        if (scene_at(i)->flags & without)
            continue;
        char *at = names[n];
        snprintf(at, sizeof names[0], "%s_%s", scene_at(i)->name, and_what);
        for (; *at != '\0'; at++)
            *at = *at == ' ' || *at == '\'' ? '_' : *at;
        tests[n] = (struct CMUnitTest){names[n], each, NULL, scene_teardown, (void *)(uintptr_t)scene_at(i)};
        n++;
    }
    memcpy(&tests[n], rest, rest_n * sizeof *rest);
    return _cmocka_run_group_tests(group, tests, n + rest_n, scene_setup, support_teardown);
}
