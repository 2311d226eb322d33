/*
 * tests/crash/test_wal_ends.c - who makes a store with a log, destroys one, or deletes its old files is killed at each step: what was told is kept,
 * creating and destroying can be repeated, and no file is left for good.
 */
/* timeout: 300 s */
#include "crash/wal_store.h"

#include <dirent.h>
#include <string.h>

#include "support/scenes.h"

static struct wal_place place;

#define POINTS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ------------------------------------------------------------------ what lies in a directory */

struct listed {
    unsigned files, named; /* all; those whose name begins so */
};

static struct listed list(const char *at, const char *begins)
{
    struct listed l = {0, 0};
    DIR *d = opendir(at);
    if (d == NULL)
        return l;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        l.files += e->d_name[0] != '.';
        l.named += strncmp(e->d_name, begins, strlen(begins)) == 0;
    }
    closedir(d);
    return l;
}

/* As a store that nobody died at has it. */
static void check_tidy(void)
{
    struct listed store = list(place.store, "root"), log = list(place.log, "wal-");
    CHECK_IS(store.files, 2);
    CHECK_IS(store.named, 1);
    CHECK_IS(log.named, log.files - 2); /* id and place */
}

static void check_gone(void)
{
    CHECK_IS(list(place.store, "").files, 0);
    CHECK_IS(list(place.log, "wal-").named, 0);
    CHECK_IS(list(place.log, "id").named, 1);
}

static bool key_is_there(idem_store *s)
{
    idem_key key = support_key("told");
    return idem_lookup(s, &key, NULL) == IDEM_REPLAY;
}

/* The next one who wants a store there has one, however often. */
static void make_and_destroy_again(bool told)
{
    idem_store *s = support_open(place.store, &place.options);
    CHECK_IS(key_is_there(s), told);
    check_tidy();
    if (!told)
        support_answer(s, "told", 200, "x");
    CHECK_IS(support_stats(s).log.trouble, IDEM_LOG_FINE);
    idem_close(s);
    s = support_open(place.store, &place.options);
    CHECK(key_is_there(s));
    idem_close(s);
    support_verify(place.store);
    CHECK_IS(idem_destroy(place.store), IDEM_OK);
    check_gone();
    s = support_open(place.store, &place.options);
    CHECK(!key_is_there(s));
    idem_close(s);
    check_tidy();
}

/* ------------------------------------------------------------------ everywhere in an act */

/* act in a child that is killed at the nth passing of a point. False: it does not pass it so often. */
static bool killed_at(void (*act)(struct crash_page *, void *), int point, unsigned nth, struct crash_page *page)
{
    struct crash_step step = {point, nth, CRASH_KILL};
    struct crash_victim *v = crash_start(act, NULL, &step, 1);
    enum crash_end end = crash_wait(v);
    CHECK(end == CRASH_DONE || end == CRASH_KILLED);
    *page = *v->page;
    crash_end(v);
    return end == CRASH_KILLED;
}

static bool passed(const struct crash_page *page, const char *point)
{
    CHECK(crash_point(point) >= 0);
    return load_relaxed(&page->hits[crash_point(point)]) > 0;
}

static bool concerns(int point)
{
    return crash_point_of_log(point) || strncmp(crash_point_name(point), "create.", 7) == 0 ||
           strncmp(crash_point_name(point), "destroy.", 8) == 0;
}

static bool is_one_of(int point, const char *const points[])
{
    for (unsigned i = 0; points[i] != NULL; i++)
        if (point == crash_point(points[i]))
            return true;
    return false;
}

/* then() after each death; it has what the dead one passed. First nobody dies, to see what there is: `points` at the least. all: the other
   points that are passed, too. */
static void at_each_point(void (*before)(void), void (*act)(struct crash_page *, void *),
                          void (*then)(const struct crash_page *page), uint32_t bytes_each, bool all,
                          const char *const points[])
{
    static struct crash_page page, rehearsal;
    for (int point = CRASH_NONE; point < crash_points(); point++)
        for (unsigned nth = 1; nth < (point < 0 ? 2 : 3); nth++) {
            if (point >= 0 &&
                (load_relaxed(&rehearsal.hits[point]) < nth || !(is_one_of(point, points) || (all && concerns(point)))))
                break;
            wal_place_make(&place);
            place.options.durability_claim = IDEM_DURABILITY_SYNC;
            place.options.response_bytes = bytes_each;
            before();
            bool killed = killed_at(act, point, nth, point < 0 ? &rehearsal : &page);
            if (killed)
                then(&page);
            support_remove(place.base);
        }
    for (unsigned i = 0; points[i] != NULL; i++)
        if (load_relaxed(&rehearsal.hits[crash_point(points[i])]) == 0) {
            print_error("nobody was killed at %s\n", points[i]);
            CHECK(false);
        }
}

/* ------------------------------------------------------------------ creating, destroying */

static void nothing_before(void) {}

static void create_it(struct crash_page *page, void *unused)
{
    (void)unused;
    idem_store *s = NULL;
    crash_arm();
    page->verdict = idem_open(place.store, &place.options, &s);
}

static void after_a_creator(const struct crash_page *page)
{
    idem_store *s = NULL;
    int e = idem_open(place.store, NULL, &s);
    CHECK_IS(e, passed(page, "create.renamed") ? IDEM_OK : IDEM_E_NO_STORE);
    idem_close(s);
    make_and_destroy_again(false);
}

static void a_creator_killed_at_each_step_is_followed_by_another(void **state)
{
    (void)state;
    at_each_point(nothing_before, create_it, after_a_creator, 64, true,
                  POINTS("log.id.replaced", "log.claimed", "log.file.made", "log.file.named", "log.id", "create.root"));
}

static void a_store_that_told(void)
{
    idem_store *s = support_open(place.store, &place.options);
    support_answer(s, "told", 200, "x");
    idem_close(s);
}

static void destroy_it(struct crash_page *page, void *unused)
{
    (void)unused;
    crash_arm();
    page->verdict = idem_destroy(place.store);
}

static void destroy_again(const struct crash_page *page)
{
    idem_store *s;
    (void)page;
    CHECK_IS(idem_open(place.store, NULL, &s), IDEM_E_NO_STORE);
    int e = idem_destroy(place.store);
    CHECK(e == IDEM_OK || e == IDEM_E_NO_STORE);
    check_gone();
    make_and_destroy_again(false);
}

/* Before the log says that it is over, destroying has not happened: a creator brings the store back, with all that was told. */
static void create_instead(const struct crash_page *page)
{
    make_and_destroy_again(!passed(page, "log.id.replaced"));
}

static void a_destroyer_killed_at_each_step_can_be_followed_by_another(void **state)
{
    (void)state;
    at_each_point(a_store_that_told, destroy_it, destroy_again, 64, true,
                  POINTS("destroy.dead", "log.id.replaced", "log.destroyed", "log.file.deleted", "destroy.unlinked"));
}

static void a_destroyer_killed_at_each_step_can_be_followed_by_a_creator(void **state)
{
    (void)state;
    at_each_point(a_store_that_told, destroy_it, create_instead, 64, true, POINTS("log.destroyed", "log.file.deleted"));
}

/* ------------------------------------------------------------------ old files */

#define BODY   190000u /* five of them fill a file */
#define FILES  6u      /* more than are kept without asking what lives */
#define TTL_MS 20000

static void answer(idem_store *s, unsigned k, uint32_t bytes, int64_t ttl_ms)
{
    static char body[BODY];
    char text[16];
    idem_claim c;
    idem_request rq = IDEM_REQUEST_INIT;
    idem_response r = support_response(200, "");
    rq.key = wal_key(k, text);
    rq.ttl_ms = r.ttl_ms = ttl_ms;
    r.body = body;
    r.body_bytes = bytes;
    CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_complete(s, &c, &r), IDEM_OK);
    if (ttl_ms == IDEM_FOREVER)
        wal_say(&place.page->durable[k], WAL_COMPLETED);
}

static unsigned forever; /* how many of the answers in a file never expire */

/* Files full of answers. Then their time is over, and the next batch finds that they may go. */
static void fill_files(idem_store *s, unsigned from)
{
    for (unsigned k = from; k < from + 5 * FILES; k++)
        answer(s, k, k % 5 < forever ? 500 : BODY, k % 5 < forever ? IDEM_FOREVER : TTL_MS);
    support_clock_add(TTL_MS + 1000);
}

/* Without a flusher: on a busy machine it is the one that finds that old files may go, before anybody is armed. */
static void files_before(void)
{
    idem_options o = place.options;
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_store *s = support_open(place.store, &o);
    fill_files(s, 0);
    idem_close(s);
}

/* Answers that soon expire: a batch or two each, with a step of what is to be done about old files; in the end the log is larger than twice what
   lived when that was counted last. */
static void let_old_files_go(idem_store *s, unsigned from)
{
    for (unsigned k = from; k < from + 200 && support_stats(s).log.files > 4; k++) {
        answer(s, k, BODY, TTL_MS);
        support_clock_add(TTL_MS + 1000);
    }
}

/* More than a file holds. */
static void begin_a_file(idem_store *s, unsigned from)
{
    for (unsigned k = from; k < from + 6; k++)
        answer(s, k, BODY, TTL_MS);
}

static void go_on(struct crash_page *page, void *unused)
{
    (void)page;
    (void)unused;
    idem_options o = place.options;
    o.flags |= IDEM_OPEN_NO_FLUSHER; /* its steps are its own */
    idem_store *s = support_open(place.store, &o);
    crash_arm();
    let_old_files_go(s, 1000);
    begin_a_file(s, 1500); /* however few the steps before were */
    crash_disarm();
    idem_close(s);
}

/* All that expired, or was written anew, goes in the end, whoever began with it. */
static void after_who_deletes(const struct crash_page *page)
{
    (void)page;
    idem_options o = place.options;
    o.flags |= IDEM_OPEN_NO_FLUSHER; /* or it deletes one between two looks */
    idem_store *s = support_open(place.store, &o);
    begin_a_file(s, 1900); /* a leader comes to see what the dead one has left */
    let_old_files_go(s, 2000);
    CHECK_IS(support_stats(s).log.trouble, IDEM_LOG_FINE);
    CHECK(support_stats(s).log.files <= 4);
    CHECK_IS(list(place.log, "wal-").named, support_stats(s).log.files);
    idem_close(s);
    wal_check_recovered(&place, place.page->durable);
}

static void old_files_of_who_is_killed_deleting_them_are_deleted_by_another(void **state)
{
    (void)state;
    for (forever = 0; forever < 2; forever++)
        at_each_point(files_before, go_on, after_who_deletes, 65536, support_long(),
                      POINTS("log.file.deleted", "retain.deleted", "log.file.made", "log.file.named", "log.file.used"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_creator_killed_at_each_step_is_followed_by_another, scene_teardown),
        cmocka_unit_test_teardown(a_destroyer_killed_at_each_step_can_be_followed_by_another, scene_teardown),
        cmocka_unit_test_teardown(a_destroyer_killed_at_each_step_can_be_followed_by_a_creator, scene_teardown),
        cmocka_unit_test_teardown(old_files_of_who_is_killed_deleting_them_are_deleted_by_another, scene_teardown),
    };
    return cmocka_run_group_tests(tests, scene_setup, support_teardown);
}
