/*
 * tests/support/scenes.h - every operation as a scene: what is there before, what the victim does, and what a peer must find
 * when the victim dies before or after the step from which on the operation stands.
 *
 * Owns: the table of scenes, running one with a victim that dies or stops at a given point. Which points a scene has is found by a
 * rehearsal that nobody dies in.
 */
#ifndef TESTS_SUPPORT_SCENES_H
#define TESTS_SUPPORT_SCENES_H

#include "support/stage.h"

enum scene_flags {
    SCENE_OPENS = 1,   /* the act opens the store itself */
    SCENE_FULL = 2,    /* memory is full: refusals are right */
    SCENE_UNDOES = 4,  /* done late, the act may undo what a peer did meanwhile (forget, release, resolve) */
    SCENE_NO_STOP = 8, /* only for victims that die */
    SCENE_OWNED = 16,  /* other's claim on the key runs in it */
    SCENE_QUIET = 32   /* see stage_open() */
};

struct scene {
    const char *name; /* a sentence's subject: "a claimant of a new key" */
    void (*prepare)(struct stage *st);
    void (*act)(struct crash_page *page, idem_store *store, struct stage *st);
    const char *effect; /* the point at which the act stands; NULL: it changes nothing */
    struct stage_fate before, after;
    unsigned flags;
    const char *pause_at; /* a point at which it stops for meanwhile(), besides crash_pause() in the act */
    void (*meanwhile)(struct stage *st);
    void (*finally)(struct stage *st); /* after the victim's end, before the checks */
    void (*options)(idem_options *o);
};

unsigned scene_count(void);
const struct scene *scene_at(unsigned i);
const struct scene *scene_named(const char *name); /* checked */

/* Starts the scene's victim on a stage that is opened and prepared. It dies or stops at the nth passing of point (-1: it does not). late:
   after the act it does everything that an owner may do with its claim (page->late_...). *end: a stopped one is still there. */
struct crash_victim *scene_start(const struct scene *scene, struct stage *st, int point, unsigned nth,
                                 enum crash_deed deed, bool late, enum crash_end *end);
/* A stopped victim goes on. */
enum crash_end scene_continue(const struct scene *scene, struct stage *st, struct crash_victim *victim);

/* After the victim's end: what it knew counts as old, and the scene's own waiters are gone. */
void scene_over(const struct scene *scene, struct stage *st, const struct crash_victim *victim);
bool scene_took_effect(const struct scene *scene, const struct crash_page *page);

/* One passing of a point. */
struct scene_moment {
    int point;
    unsigned nth;
};
/* The scene with nobody dying: its checks are made. moments receives the first passing of each point and up to `more` later ones of each,
   always the last. Returns their number. */
unsigned scene_rehearse(const struct scene *scene, struct scene_moment *moments, unsigned room, unsigned more);

/* For a file of tests that kill or stop: cmocka's setup, and the teardown of each test. */
int scene_setup(void **state);
int scene_teardown(void **state);
/* Its main(): each scene that has none of these flags, as the test "SCENE_and_what" (its state is the scene), then the rest. */
int scene_run_group(const char *group, const char *and_what, unsigned without, CMUnitTestFunction each,
                    const struct CMUnitTest *rest, size_t rest_n);

#endif
