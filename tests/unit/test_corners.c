/*
 * tests/unit/test_corners.c - what happens beside the ordinary way: a store that is replaced while it is walked, a claim that alone was logged, a
 * directory that holds somebody else's file, a disk that writes nothing and says so, regions that were drained 65,535 lives ago.
 */
#include "support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "arena/arena.h"
#include "store/handle.h"
#include "wal/io.h"

static char dir[160];

static int replace(const idem_story *story, void *ctx)
{
    (void)story;
    idem_options o = support_options(100);
    if (++*(unsigned *)ctx == 1) {
        CHECK_IS(idem_destroy(dir), IDEM_OK);
        idem_close(support_open(dir, &o));
    }
    return 0;
}

static void a_walk_ends_when_its_store_is_replaced(void **state)
{
    (void)state;
    unsigned n = 0;
    idem_options o = support_options(100);
    snprintf(dir, sizeof dir, "%s", support_dir());
    idem_store *s = support_open(dir, &o);
    for (int i = 0; i < 50; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        support_answer(s, key, 200, "x");
    }
    CHECK_IS(idem_walk(s, replace, &n), IDEM_E_STALE);
    CHECK(strstr(idem_error_detail(), dir) != NULL);
    CHECK(n >= 1 && n < 50);
    idem_close(s);
}

/* Claims are not logged in this store, but this one was asked to be: so what became of it is, too. */
static void a_claim_that_was_logged_is_logged_to_its_end(void **state)
{
    (void)state;
    static const uint32_t asked[] = {IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_NONE};
    for (unsigned i = 0; i < 3; i++) {
        idem_options o = support_options(16);
        char wal[160];
        idem_claim claim;
        idem_reply reply = IDEM_REPLY_INIT;
        idem_request rq = support_request("k");
        snprintf(dir, sizeof dir, "%s", support_dir());
        snprintf(wal, sizeof wal, "%s", support_dir());
        o.wal_dir = wal;
        o.durability_claim = IDEM_DURABILITY_NONE;
        o.flags |= IDEM_OPEN_NO_FLUSHER;
        idem_store *s = support_open(dir, &o);
        rq.durability = asked[i];
        CHECK_IS(idem_begin(s, &rq, &claim, NULL), IDEM_CLAIMED);
        CHECK_IS(idem_sync(s, 0), IDEM_OK);
        CHECK_IS(idem_abandon(s, &claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
        CHECK_IS(idem_sync(s, 0), IDEM_OK);
        idem_close(s);
        support_remove(dir);
        s = support_open(dir, &o);
        CHECK_IS(idem_begin(s, &rq, &claim, &reply), IDEM_CLAIMED); /* not lost: it was given back */
        CHECK_IS(reply.attempt, asked[i] != IDEM_DURABILITY_NONE ? 2 : 1);
        idem_reply_free(&reply);
        idem_close(s);
    }
}

static void a_destroyed_stores_directory_stays_for_what_others_have_in_it(void **state)
{
    (void)state;
    char file[200];
    idem_options o = support_options(16);
    snprintf(dir, sizeof dir, "%s", support_dir());
    idem_close(support_open(dir, &o));
    snprintf(file, sizeof file, "%s/notes", dir);
    int fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    CHECK_IS(access(file, F_OK), 0);
    CHECK_IS(unlink(file), 0);
    CHECK_IS(rmdir(dir), 0); /* and nothing else */
}

static ssize_t write_nothing(int fd, const void *from, size_t n, off_t at)
{
    (void)fd;
    (void)from;
    (void)n;
    (void)at;
    return 0;
}

static void a_write_that_makes_no_progress_is_no_space_and_no_endless_loop(void **state)
{
    (void)state;
    struct idem_io_calls calls = idem_io_system;
    calls.pwrite = write_nothing;
    idem_io = &calls;
    int r = idem_io_write(STDOUT_FILENO, "x", 1, 0), kept = errno;
    idem_io = &idem_io_system;
    CHECK_IS(r, -1);
    CHECK_IS(kept, ENOSPC);
}

/* A generation comes again: what a region's drain word says of that time is not believed. */
static void a_pass_of_65535_lives_ago_does_not_count(void **state)
{
    (void)state;
    const char *at = support_dir();
    idem_store *s = support_open(at, NULL);
    struct idem_view *v = s->view;
    for (uint32_t i = 0; i < v->region_count; i++)
        store_relaxed(&v->regions[i].drain,
                      (uint64_t)region_generation(load_relaxed(&v->regions[i].state)) << 48 | DRAIN_NOTED);
    CHECK_IS(support_begin(s, "lost", NULL), IDEM_CLAIMED);
    support_clock_add(60000); /* the lease is over: what is remembered has to move */
    support_maintain(s);
    support_verify(at);
    CHECK_IS(support_begin(s, "lost", NULL), IDEM_RECLAIMED);
    idem_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_walk_ends_when_its_store_is_replaced),
        cmocka_unit_test(a_claim_that_was_logged_is_logged_to_its_end),
        cmocka_unit_test(a_destroyed_stores_directory_stays_for_what_others_have_in_it),
        cmocka_unit_test(a_write_that_makes_no_progress_is_no_space_and_no_endless_loop),
        cmocka_unit_test(a_pass_of_65535_lives_ago_does_not_count),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
