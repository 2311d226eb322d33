/*
 * tests/multi/test_stale.c - a store that is removed, replaced or truncated under running processes: nobody goes on in the old one
 * for more than a moment, and nothing is undefined.
 */
#include "support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *dir;
static struct idem_a64 *step; /* shared with the children: what they have seen, what they may do */

static int fresh(void **state)
{
    (void)state;
    dir = support_dir();
    store_relaxed(step, 0);
    return 0;
}

/* Handles look at most every half second whether they are stale. */
static void let_handles_look(void)
{
    support_clock_add(1000);
}

static void check_every_operation_is_stale(idem_store *store, const idem_claim *claim)
{
    idem_key k = support_key("k");
    idem_request rq = support_request("k");
    idem_claim c;
    idem_story story = IDEM_STORY_INIT;
    idem_response rs = support_response(1, "x");
    CHECK_IS(idem_begin(store, &rq, &c, NULL), IDEM_E_STALE);
    CHECK(strlen(idem_error_detail()) > 10);
    CHECK_IS(idem_wait(store, &rq, 10, &c, NULL), IDEM_E_STALE);
    CHECK_IS(idem_complete(store, claim, &rs), IDEM_E_STALE);
    CHECK_IS(idem_abandon(store, claim, 0), IDEM_E_STALE);
    CHECK_IS(idem_renew(store, claim, 0), IDEM_E_STALE);
    CHECK_IS(idem_mark(store, claim, "m", 1), IDEM_E_STALE);
    CHECK_IS(idem_adopt(store, claim), IDEM_E_STALE);
    CHECK_IS(idem_find(store, &k, 0, &c), IDEM_E_STALE);
    CHECK_IS(idem_lookup(store, &k, NULL), IDEM_E_STALE);
    CHECK_IS(idem_forget(store, &k), IDEM_E_STALE);
    CHECK_IS(idem_release(store, &k, 0), IDEM_E_STALE);
    CHECK_IS(idem_resolve(store, &k, claim->token, IDEM_RESOLVE_RERUN, NULL), IDEM_E_STALE);
    CHECK_IS(idem_explain(store, &k, &story), IDEM_E_STALE);
    CHECK_IS(idem_maintain(store, 0), IDEM_E_STALE);
    idem_result result = {.size = sizeof result, .reply = IDEM_REPLY_INIT};
    CHECK_IS(idem_begin_many(store, &rq, 1, &result), IDEM_OK);
    CHECK_IS(result.verdict, IDEM_E_STALE);
    idem_stats_data s = {.size = sizeof s};
    CHECK_IS(idem_stats(store, &s), IDEM_E_STALE);
}

static void after_destroy_every_operation_is_stale_at_once(void **state)
{
    (void)state;
    static const uint32_t flags[] = {0, IDEM_OPEN_FAIL_STALE};
    for (int i = 0; i < 2; i++) {
        idem_close(support_open_with(dir, IDEM_OPEN_CREATE));
        idem_store *store = support_open_with(dir, flags[i]);
        idem_claim claim;
        CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
        CHECK_IS(idem_destroy(dir), IDEM_OK);
        check_every_operation_is_stale(store, &claim);
        check_every_operation_is_stale(store, &claim);
        idem_close(store);
    }
}

static void a_handle_that_may_create_goes_on_in_a_new_store_and_old_claims_are_stale(void **state)
{
    (void)state;
    idem_store *store = support_open_with(dir, IDEM_OPEN_CREATE);
    idem_claim old, new;
    CHECK_IS(support_begin(store, "k", &old), IDEM_CLAIMED);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    CHECK_IS(support_begin(store, "k", &new), IDEM_CLAIMED);
    CHECK(memcmp(old.store_uuid, new.store_uuid, sizeof old.store_uuid) != 0);
    CHECK_IS(support_complete(store, &old, 1, "old"), IDEM_E_STALE);
    CHECK_IS(idem_renew(store, &old, 0), IDEM_E_STALE);
    CHECK_IS(support_complete(store, &new, 1, "new"), IDEM_OK);
    idem_close(store);
    support_verify(dir);
}

static void a_handle_that_is_to_fail_when_stale_never_goes_on_in_another_store(void **state)
{
    (void)state;
    idem_store *careful = support_open_with(dir, IDEM_OPEN_CREATE | IDEM_OPEN_FAIL_STALE);
    idem_claim claim;
    CHECK_IS(support_begin(careful, "k", &claim), IDEM_CLAIMED);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    idem_store *next = support_open_with(dir, IDEM_OPEN_CREATE);
    check_every_operation_is_stale(careful, &claim);
    let_handles_look();
    check_every_operation_is_stale(careful, &claim);
    CHECK_IS(support_begin(next, "k", NULL), IDEM_CLAIMED);
    idem_close(careful);
    idem_close(next);
    support_verify(dir);
}

static void a_store_removed_by_hand_is_noticed_within_a_second(void **state)
{
    (void)state;
    static const uint32_t flags[] = {0, IDEM_OPEN_CREATE, IDEM_OPEN_FAIL_STALE};
    for (int i = 0; i < 3; i++) {
        dir = support_dir();
        idem_close(support_open_with(dir, IDEM_OPEN_CREATE));
        idem_store *store = support_open_with(dir, flags[i]);
        idem_claim claim, next;
        CHECK_IS(support_begin(store, "k", &claim), IDEM_CLAIMED);
        support_remove(dir);
        let_handles_look();
        if (flags[i] == IDEM_OPEN_CREATE) {
            CHECK_IS(support_begin(store, "k", &next), IDEM_CLAIMED);
            CHECK_IS(support_complete(store, &claim, 1, "x"), IDEM_E_STALE);
        } else {
            check_every_operation_is_stale(store, &claim);
        }
        idem_close(store);
    }
}

static void a_store_replaced_by_hand_is_noticed_within_a_second(void **state)
{
    (void)state;
    char aside[200];
    idem_close(support_open_with(dir, IDEM_OPEN_CREATE));
    idem_store *store = support_open_with(dir, 0);
    idem_claim old, none;
    CHECK_IS(support_begin(store, "k", &old), IDEM_CLAIMED);
    snprintf(aside, sizeof aside, "%s-aside", dir);
    CHECK_IS(rename(dir, aside), 0);
    idem_store *next = support_open_with(dir, IDEM_OPEN_CREATE);
    support_answer(next, "k", 200, "in the new one");
    let_handles_look();
    CHECK_IS(support_begin(store, "k", &none), IDEM_REPLAY); /* both see the new one now */
    CHECK_IS(support_complete(store, &old, 1, "x"), IDEM_E_STALE);
    idem_close(next);

    CHECK_IS(idem_destroy(dir), IDEM_OK); /* the old one comes back to its place */
    CHECK_IS(rename(aside, dir), 0);
    let_handles_look();
    CHECK_IS(support_begin(store, "k", NULL), IDEM_RECLAIMED);
    idem_close(store);
    support_verify(dir);
}

static void keep_working(void *unused)
{
    (void)unused;
    idem_store *store = support_attach(dir);
    uint8_t uuid[16];
    memset(uuid, 0, sizeof uuid);
    for (uint64_t changes = 0; load_relaxed(step) < 1000;) {
        idem_claim claim;
        int e = support_begin(store, "k", &claim);
        CHECK(e >= 0 || e == IDEM_E_STALE);
        if (e == IDEM_CLAIMED || e == IDEM_RECLAIMED) {
            if (memcmp(uuid, claim.store_uuid, 16) != 0) {
                memcpy(uuid, claim.store_uuid, 16);
                changes++;
                add_relaxed(step, 1);
            }
            e = idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED);
            CHECK(e == IDEM_OK || e == IDEM_E_STALE);
        }
        CHECK(changes < 100);
    }
    idem_close(store);
}

static bool stepped(void *to)
{
    return load_relaxed(step) >= *(uint64_t *)to;
}

static void running_processes_follow_to_a_new_store(void **state)
{
    (void)state;
    pid_t pids[3];
    idem_close(support_open_with(dir, IDEM_OPEN_CREATE));
    for (int i = 0; i < 3; i++)
        pids[i] = support_spawn(keep_working, NULL);
    uint64_t wanted = 3;
    for (int round = 0; round < 5; round++) {
        CHECK(support_eventually(stepped, &wanted, SUPPORT_PATIENCE_MS)); /* all three have claimed in this one */
        if (round % 2 == 0)
            CHECK_IS(idem_destroy(dir), IDEM_OK);
        else
            support_remove(dir);
        idem_close(support_open_with(dir, IDEM_OPEN_CREATE));
        wanted += 3;
    }
    CHECK(support_eventually(stepped, &wanted, SUPPORT_PATIENCE_MS));
    store_relaxed(step, 1000);
    for (int i = 0; i < 3; i++)
        CHECK_IS(support_reap(pids[i], SUPPORT_PATIENCE_MS), 0);
    support_verify(dir);
}

static void wait_for_stale(void *unused)
{
    (void)unused;
    idem_store *store = support_attach(dir);
    idem_request rq = support_request("k");
    idem_claim claim;
    add_relaxed(step, 1);
    CHECK_IS(idem_wait(store, &rq, SUPPORT_PATIENCE_MS, &claim, NULL), IDEM_E_STALE);
    idem_close(store);
}

static bool waited(void *store)
{
    return support_stats(store).waited == 1;
}

static void a_waiter_learns_that_the_store_is_gone(void **state)
{
    (void)state;
    idem_store *store = support_open_with(dir, IDEM_OPEN_CREATE);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_CLAIMED);
    pid_t pid = support_spawn(wait_for_stale, NULL);
    CHECK(support_eventually(waited, store, SUPPORT_PATIENCE_MS));
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
    idem_close(store);
}

static void create_at_once(void *unused)
{
    (void)unused;
    add_relaxed(step, 1);
    while (load_relaxed(step) < 4)
        ;
    idem_store *store = support_open_with(dir, IDEM_OPEN_CREATE);
    int e = support_begin(store, "k", NULL);
    CHECK(e == IDEM_CLAIMED || e == IDEM_IN_PROGRESS || e == IDEM_RECLAIMED);
    if (e == IDEM_CLAIMED)
        add_relaxed(step, 100);
    for (int i = 0; i < SUPPORT_PATIENCE_MS && load_relaxed(step) < 1000; i++)
        support_sleep_ms(1);
    idem_close(store);
}

static bool someone_claimed(void *unused)
{
    (void)unused;
    return load_relaxed(step) >= 104;
}

static void processes_that_create_at_once_end_up_in_one_store(void **state)
{
    for (int round = 0; round < 10; round++) {
        pid_t pids[4];
        fresh(state);
        for (int i = 0; i < 4; i++)
            pids[i] = support_spawn(create_at_once, NULL);
        CHECK(support_eventually(someone_claimed, NULL, SUPPORT_PATIENCE_MS));
        support_sleep_ms(5);
        CHECK_IS(load_relaxed(step), 104); /* one claimed it, the others saw that */
        store_relaxed(step, 1000);
        for (int i = 0; i < 4; i++)
            CHECK_IS(support_reap(pids[i], SUPPORT_PATIENCE_MS), 0);
        support_verify(dir);
    }
}

/* ------------------------------------------------------------------ a file that shrinks */

static sigjmp_buf back;

static void on_other_sigbus(int signal)
{
    (void)signal;
    siglongjmp(back, 1);
}

static const char *other_dir;

static void survive_truncation(void *which)
{
    idem_options o = support_options(1000);
    o.flags |= IDEM_OPEN_SIGBUS_GUARD;
    struct sigaction act = {.sa_handler = on_other_sigbus};
    sigaction(SIGBUS, &act, NULL); /* the host's own, there before */
    idem_store *guarded = NULL, *bystander = NULL;
    CHECK_IS(idem_open(dir, &o, &guarded), IDEM_OK);
    CHECK_IS(idem_open(other_dir, &o, &bystander), IDEM_OK);
    support_answer(guarded, "k", 1, "x");
    const char *path = support_file_of(dir, which);
    CHECK_IS(truncate(path, 0), 0);
    int e = IDEM_OK;
    for (int i = 0; i < 200 && e >= 0; i++) { /* root's last lanes may still be whole pages: any key will do */
        char key[32];
        snprintf(key, sizeof key, "key-%d", i);
        e = support_begin(guarded, key, NULL);
    }
    CHECK_IS(e, IDEM_E_CORRUPT);
    CHECK(strstr(idem_error_detail(), dir) != NULL && strstr(idem_error_detail(), "create it anew") != NULL);
    CHECK_IS(support_begin(guarded, "k", NULL), IDEM_E_CORRUPT);
    CHECK_IS(support_begin(bystander, "k", NULL), IDEM_CLAIMED); /* another store is not concerned */
    CHECK_IS(idem_destroy(dir), IDEM_OK);                        /* what the message said */
    CHECK_IS(support_begin(guarded, "k", NULL), IDEM_CLAIMED);
    idem_close(guarded);
    idem_close(bystander);

    /* A fault that is not ours goes to the host's handler. */
    char name[] = "/dev/shm/idem-test-XXXXXX";
    int fd = mkstemp(name);
    CHECK(fd >= 0 && unlink(name) == 0 && ftruncate(fd, 4096) == 0);
    volatile char *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(page != MAP_FAILED && ftruncate(fd, 0) == 0);
    if (sigsetjmp(back, 1) == 0) {
        (void)*page;
        CHECK(false);
    }
}

static void a_guarded_handle_answers_corrupt_when_a_file_is_truncated(void **state)
{
    (void)state;
    other_dir = support_dir();
    support_in_child(survive_truncation, (void *)(uintptr_t) "gen-");
    support_remove(dir);
    other_dir = support_dir();
    support_in_child(survive_truncation, (void *)(uintptr_t) "root");
}

static void a_truncated_store_is_not_opened(void **state)
{
    (void)state;
    static const off_t sizes[] = {0, 1, 100, 4095, 4096, 8192, 100000};
    for (int file = 0; file < 2; file++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            dir = support_dir();
            idem_close(support_open_with(dir, IDEM_OPEN_CREATE));
            CHECK_IS(truncate(support_file_of(dir, file == 0 ? "root" : "gen-"), sizes[i]), 0);
            idem_store *store = NULL;
            idem_options create = support_options(1000);
            CHECK_IS(idem_open(dir, NULL, &store), IDEM_E_CORRUPT);
            CHECK_IS(idem_open(dir, &create, &store), IDEM_E_CORRUPT);
            CHECK_IS(idem_destroy(dir), IDEM_OK); /* the remedy that the message names */
            idem_close(support_open_with(dir, IDEM_OPEN_CREATE));
        }
}

int main(void)
{
    step = support_shared(sizeof *step);
#define TEST(name) cmocka_unit_test_setup(name, fresh)
    const struct CMUnitTest tests[] = {
        TEST(after_destroy_every_operation_is_stale_at_once),
        TEST(a_handle_that_may_create_goes_on_in_a_new_store_and_old_claims_are_stale),
        TEST(a_handle_that_is_to_fail_when_stale_never_goes_on_in_another_store),
        TEST(a_store_removed_by_hand_is_noticed_within_a_second),
        TEST(a_store_replaced_by_hand_is_noticed_within_a_second),
        TEST(running_processes_follow_to_a_new_store),
        TEST(a_waiter_learns_that_the_store_is_gone),
        TEST(processes_that_create_at_once_end_up_in_one_store),
        TEST(a_guarded_handle_answers_corrupt_when_a_file_is_truncated),
        TEST(a_truncated_store_is_not_opened),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
