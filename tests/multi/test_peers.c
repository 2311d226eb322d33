/*
 * tests/multi/test_peers.c - who may open a store, and peers in other namespaces: users, groups, planted files; PID and time
 * namespaces; file systems that are small, or give huge pages. What needs rights that are not there is skipped aloud.
 */
#include "support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

#define NO_RIGHTS  77 /* exit statuses of children */
#define NOT_KERNEL 78

#define ALICE 64001
#define BOB   64002
#define EVE   64003
#define TEAM  64100

static const char *dir;
static struct shared {
    struct idem_a64 ready, peer, done;
} * shared;

static int fresh(void **state)
{
    (void)state;
    dir = support_dir();
    memset(shared, 0, sizeof *shared);
    return 0;
}

/* Runs fn in a child; its rights or its kernel may not do, which is said and skips the test. */
static void in_child_or_skip(void (*fn)(void *), void *ctx)
{
    int how = support_reap(support_spawn(fn, ctx), SUPPORT_PATIENCE_MS);
    if (how == NO_RIGHTS) {
        print_message("skipped: needs root, or a right to make namespaces\n");
        skip();
    }
    if (how == NOT_KERNEL) {
        print_message("skipped (kernel): no such namespace or mount option\n");
        skip();
    }
    if (how == SUPPORT_FAILED)
        print_error("in a child: %s\n", support_why());
    support_forget_why();
    CHECK_IS(how, 0);
}

static void give_up_unless(bool worked)
{
    if (!worked)
        _exit(errno == EPERM || errno == EACCES ? NO_RIGHTS : NOT_KERNEL);
}

static void become(uid_t user, gid_t group)
{
    if (geteuid() != 0)
        _exit(NO_RIGHTS);
    CHECK(setgroups(group != 0, &group) == 0 && setresgid((gid_t)user, (gid_t)user, (gid_t)user) == 0 &&
          setresuid(user, user, user) == 0);
}

static int try_open(const char *path)
{
    idem_store *store = NULL;
    int e = idem_open(path, NULL, &store);
    if (e != IDEM_OK)
        CHECK(strstr(idem_error_detail(), path) != NULL);
    idem_close(store);
    return e;
}

/* ------------------------------------------------------------------ planted files */

static void plant(const char *what)
{
    char root[200], target[200], gen[300];
    idem_close(support_open(dir, NULL));
    snprintf(root, sizeof root, "%s/root", dir);
    snprintf(target, sizeof target, "%s/elsewhere", support_base());
    unlink(target);
    idem_store *store = support_attach(dir);
    idem_stats_data s = support_stats(store);
    idem_close(store);
    size_t n = (size_t)snprintf(gen, sizeof gen, "%s/gen-", dir);
    for (int i = 0; i < 16; i++)
        n += (size_t)snprintf(gen + n, sizeof gen - n, "%02x", s.store_uuid[i]);
    snprintf(gen + n, sizeof gen - n, "-1");

    if (strcmp(what, "root is a symlink") == 0)
        CHECK(rename(root, target) == 0 && symlink(target, root) == 0);
    else if (strcmp(what, "gen is a symlink") == 0)
        CHECK(rename(gen, target) == 0 && symlink(target, gen) == 0);
    else if (strcmp(what, "root is a FIFO") == 0)
        CHECK(unlink(root) == 0 && mkfifo(root, 0600) == 0);
    else if (strcmp(what, "gen is a FIFO") == 0)
        CHECK(unlink(gen) == 0 && mkfifo(gen, 0600) == 0);
    else if (strcmp(what, "root is a directory") == 0)
        CHECK(unlink(root) == 0 && mkdir(root, 0700) == 0);
    else if (strcmp(what, "root has another link") == 0)
        CHECK(link(root, target) == 0);
    else if (strcmp(what, "gen has another link") == 0)
        CHECK(link(gen, target) == 0);
    else if (strcmp(what, "root is writable by all") == 0)
        CHECK(chmod(root, 0666) == 0);
    else if (strcmp(what, "gen is writable by all") == 0)
        CHECK(chmod(gen, 0602) == 0);
    else
        CHECK(chmod(dir, 0777) == 0);
}

static void planted_files_and_unsafe_modes_are_refused_and_nothing_hangs(void **state)
{
    static const char *const things[] = {
        "root is a symlink",      "gen is a symlink",
        "root is a FIFO",         "gen is a FIFO",
        "root is a directory",    "root has another link",
        "gen has another link",   "root is writable by all",
        "gen is writable by all", "the directory is writable by all",
    };
    for (size_t i = 0; i < sizeof things / sizeof things[0]; i++) {
        fresh(state);
        plant(things[i]);
        idem_store *store = NULL;
        idem_options create = support_options(16);
        int e = try_open(dir), f = idem_open(dir, &create, &store);
        if (e != IDEM_E_PERMISSION || f != IDEM_E_PERMISSION)
            print_error("%s: %d, %d\n", things[i], e, f);
        CHECK_IS(e, IDEM_E_PERMISSION);
        CHECK_IS(f, IDEM_E_PERMISSION);
    }
}

static void a_directory_that_is_a_symlink_or_a_file_is_refused(void **state)
{
    (void)state;
    char link_path[200];
    idem_options create = support_options(16);
    idem_store *store = NULL;
    idem_close(support_open(dir, NULL));
    snprintf(link_path, sizeof link_path, "%s-link", dir);
    CHECK_IS(symlink(dir, link_path), 0);
    CHECK_IS(try_open(link_path), IDEM_E_PERMISSION);
    CHECK_IS(idem_open(link_path, &create, &store), IDEM_E_PERMISSION);
    CHECK_IS(idem_destroy(link_path), IDEM_E_PERMISSION);
    CHECK_IS(try_open(dir), IDEM_OK);
    unlink(link_path);
    int fd = open(link_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
    CHECK_IS(try_open(link_path), IDEM_E_PERMISSION);
    CHECK_IS(idem_open("/proc/", &create, &store), IDEM_E_PERMISSION); /* not a tmpfs */
    CHECK(strstr(idem_error_detail(), "tmpfs") != NULL);
}

/* ------------------------------------------------------------------ users */

static void own_by_alice(void *group)
{
    become(ALICE, group != NULL ? TEAM : 0);
    idem_options o = support_options(100);
    if (group != NULL)
        o.group = TEAM + 1;
    idem_store *store = support_open(dir, &o);
    support_answer(store, "k", 200, "alice's");
    idem_close(store);
}

static void open_as_bob(void *wanted)
{
    become(BOB, TEAM);
    CHECK_IS(try_open(dir), (int)(intptr_t)wanted);
}

static void open_as_eve(void *wanted)
{
    become(EVE, 0);
    CHECK_IS(try_open(dir), (int)(intptr_t)wanted);
    idem_options create = support_options(16);
    idem_store *store = NULL;
    CHECK_IS(idem_open(dir, &create, &store), (int)(intptr_t)wanted);
    CHECK_IS(idem_destroy(dir), (int)(intptr_t)wanted);
}

static void a_store_is_its_owners_and_roots(void **state)
{
    (void)state;
    chmod(support_base(), 01777);
    in_child_or_skip(own_by_alice, NULL);
    in_child_or_skip(open_as_eve, (void *)(intptr_t)IDEM_E_PERMISSION);
    in_child_or_skip(open_as_bob, (void *)(intptr_t)IDEM_E_PERMISSION);
    CHECK_IS(try_open(dir), IDEM_OK);
    /* Even with modes that would let them in: what is another user's is not trusted. */
    char root[200];
    snprintf(root, sizeof root, "%s/root", dir);
    CHECK(chmod(dir, 0755) == 0 && chmod(root, 0644) == 0);
    in_child_or_skip(open_as_eve, (void *)(intptr_t)IDEM_E_PERMISSION);
    /* Even if the files are her own: whose the directory is, he could put others there. */
    char command[300];
    snprintf(command, sizeof command, "chown %d %s/*", EVE, dir);
    CHECK_IS(system(command), 0);
    in_child_or_skip(open_as_eve, (void *)(intptr_t)IDEM_E_PERMISSION);
    CHECK_IS(chmod(support_base(), 0711), 0);
}

static void work_as_bob(void *unused)
{
    (void)unused;
    become(BOB, TEAM);
    idem_store *store = support_attach(dir);
    idem_claim claim;
    CHECK_IS(support_begin(store, "k", NULL), IDEM_REPLAY);
    CHECK_IS(support_begin(store, "bob's", &claim), IDEM_CLAIMED);
    store_release(&shared->ready, 1);
    support_sleep_ms(SUPPORT_PATIENCE_MS);
}

static void a_store_of_a_group_is_shared_by_its_members_who_see_each_other_live_and_die(void **state)
{
    (void)state;
    chmod(support_base(), 01777);
    in_child_or_skip(own_by_alice, (void *)(uintptr_t) "team");
    struct stat st;
    char root[200];
    snprintf(root, sizeof root, "%s/root", dir);
    CHECK(stat(dir, &st) == 0 && (st.st_mode & 07777) == 02770 && st.st_gid == TEAM);
    CHECK(stat(root, &st) == 0 && (st.st_mode & 07777) == 0660 && st.st_gid == TEAM);
    in_child_or_skip(open_as_eve, (void *)(intptr_t)IDEM_E_PERMISSION);
    pid_t bob = support_spawn(work_as_bob, NULL);
    CHECK(support_eventually(support_is_set, &shared->ready, SUPPORT_PATIENCE_MS));
    idem_store *store = support_attach(dir);
    CHECK_IS(support_begin(store, "bob's", NULL), IDEM_IN_PROGRESS);
    support_end(bob);
    CHECK_IS(support_begin(store, "bob's", NULL), IDEM_RECLAIMED);
    idem_close(store);
    CHECK_IS(chmod(support_base(), 0711), 0);
    support_verify(dir);
}

static void give_to_a_foreign_group(void *unused)
{
    (void)unused;
    become(EVE, 0);
    idem_options o = support_options(16);
    idem_store *store = NULL;
    struct stat st;
    o.group = TEAM + 1;
    CHECK_IS(idem_open(dir, &o, &store), IDEM_E_SYSTEM);
    CHECK_IS(errno, EPERM);
    CHECK(stat(dir, &st) != 0); /* and nothing is left */
}

static void a_store_can_not_be_given_to_a_group_one_is_not_in(void **state)
{
    (void)state;
    chmod(support_base(), 01777);
    in_child_or_skip(give_to_a_foreign_group, NULL);
    CHECK_IS(chmod(support_base(), 0711), 0);
}

/* ------------------------------------------------------------------ namespaces */

static void unshare_or_give_up(int flags)
{
    give_up_unless(unshare(flags) == 0 || (errno == EPERM && unshare(flags | CLONE_NEWUSER) == 0));
}

static void live_in_namespace(void *unused)
{
    (void)unused;
    CHECK_IS(getpid(), 1);
    idem_store *store = support_attach(dir);
    CHECK_IS(support_begin(store, "inside", NULL), IDEM_CLAIMED);
    CHECK_IS(support_begin(store, "outside", NULL), IDEM_IN_PROGRESS);
    store_release(&shared->ready, 1);
    CHECK(support_eventually(support_is_set, &shared->done, SUPPORT_PATIENCE_MS)); /* its owner was killed */
    CHECK_IS(support_begin(store, "outside", NULL), IDEM_RECLAIMED);
    store_release(&shared->ready, 2);
    support_sleep_ms(SUPPORT_PATIENCE_MS);
}

static void start_namespace(void *unused)
{
    (void)unused;
    unshare_or_give_up(CLONE_NEWPID);
    pid_t pid = support_spawn(live_in_namespace, NULL);
    store_release(&shared->peer, (uint64_t)pid);
    int how = support_reap(pid, SUPPORT_PATIENCE_MS);
    _exit(how == SUPPORT_KILLED ? 0 : SUPPORT_FAILED);
}

static void claim_outside(void *unused)
{
    (void)unused;
    idem_store *store = support_attach(dir);
    CHECK_IS(support_begin(store, "outside", NULL), IDEM_CLAIMED);
    store_release(&shared->ready, 1);
    support_sleep_ms(SUPPORT_PATIENCE_MS);
}

static bool ready_or_over(void *pid)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    return load_acquire(&shared->ready) != 0 ||
           (waitid(P_PID, (id_t) * (pid_t *)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0);
}

static bool is_two(void *word)
{
    return load_acquire(word) == 2;
}

static void a_peer_in_another_pid_namespace_is_seen_to_live_and_to_die_from_both_sides(void **state)
{
    (void)state;
    idem_store *store = support_open(dir, NULL);
    pid_t outside = support_spawn(claim_outside, NULL);
    CHECK(support_eventually(support_is_set, &shared->ready, SUPPORT_PATIENCE_MS));
    store_relaxed(&shared->ready, 0);
    pid_t starter = support_spawn(start_namespace, NULL);
    CHECK(support_eventually(ready_or_over, &starter, SUPPORT_PATIENCE_MS));
    if (load_acquire(&shared->ready) == 0) {
        int how = support_reap(starter, SUPPORT_PATIENCE_MS);
        support_end(outside);
        idem_close(store);
        CHECK(how == NO_RIGHTS || how == NOT_KERNEL);
        print_message(how == NO_RIGHTS ? "skipped: no right to make a PID namespace\n"
                                       : "skipped (kernel): no PID namespaces\n");
        skip();
    }
    idem_key k = support_key("inside");
    idem_story story = IDEM_STORY_INIT;
    CHECK_IS(support_begin(store, "inside", NULL), IDEM_IN_PROGRESS);
    CHECK_IS(idem_explain(store, &k, &story), IDEM_OK);
    CHECK_IS(story.owner_alive, 1);
    CHECK_IS(story.owner_pid, 1); /* as its own namespace sees it */
    idem_story_free(&story);
    support_end(outside);
    store_release(&shared->done, 1);
    CHECK(support_eventually(is_two, &shared->ready, SUPPORT_PATIENCE_MS));
    CHECK_IS(support_begin(store, "inside", NULL), IDEM_IN_PROGRESS);
    support_kill((pid_t)load_acquire(&shared->peer), SIGKILL);
    CHECK_IS(support_reap(starter, SUPPORT_PATIENCE_MS), 0);
    CHECK_IS(support_begin(store, "inside", NULL), IDEM_RECLAIMED);
    CHECK_IS(support_begin(store, "outside", NULL), IDEM_RECLAIMED); /* its reclaimer died inside */
    idem_close(store);
    support_verify(dir);
}

static idem_store *inherited;

static void live_ten_days_ahead(void *unused)
{
    (void)unused;
    idem_store *own = support_attach(dir), *handles[] = {own, inherited};
    for (int i = 0; i < 2; i++) {
        idem_reply reply = IDEM_REPLY_INIT;
        idem_request rq = support_request("outside");
        idem_claim claim;
        CHECK_IS(idem_begin(handles[i], &rq, &claim, &reply), IDEM_IN_PROGRESS);
        CHECK(reply.retry_after_ms > 0 && reply.retry_after_ms <= 30000);
        rq = support_request(i == 0 ? "own" : "inherited");
        rq.flags = IDEM_LEASE_ONLY;
        CHECK_IS(idem_begin(handles[i], &rq, &claim, &reply), IDEM_CLAIMED);
    }
    idem_close(own);
}

static void start_time_namespace(void *unused)
{
    (void)unused;
    int flags = CLONE_NEWTIME;
    unshare_or_give_up(flags);
    int fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
    give_up_unless(fd >= 0);
    give_up_unless(write(fd, "monotonic 864000 0", 18) == 18);
    close(fd);
    support_in_child(live_ten_days_ahead, NULL); /* children are in it */
}

static void peers_in_another_time_namespace_share_the_stores_time(void **state)
{
    (void)state;
    inherited = support_open(dir, NULL);
    idem_claim claim;
    CHECK_IS(support_begin(inherited, "outside", &claim), IDEM_CLAIMED);
    int how = support_reap(support_spawn(start_time_namespace, NULL), SUPPORT_PATIENCE_MS);
    if (how == NO_RIGHTS || how == NOT_KERNEL) {
        idem_close(inherited);
        print_message(how == NO_RIGHTS ? "skipped: no right to make a time namespace\n"
                                       : "skipped (kernel): no time namespaces\n");
        skip();
    }
    CHECK_IS(how, 0);
    static const char *const keys[] = {"own", "inherited"};
    for (int i = 0; i < 2; i++) {
        idem_key k = support_key(keys[i]);
        idem_story story = IDEM_STORY_INIT;
        CHECK_IS(idem_explain(inherited, &k, &story), IDEM_OK);
        CHECK_IS(story.state, IDEM_STATE_IN_PROGRESS);
        CHECK(story.lease_left_ms > 0 && story.lease_left_ms <= 30000);
        CHECK(story.token >> 16 < (claim.token >> 16) + SUPPORT_PATIENCE_MS);
        idem_story_free(&story);
    }
    idem_close(inherited);
    support_verify(dir);
}

/* ------------------------------------------------------------------ file systems */

static const char *small_mount(const char *options)
{
    static char path[200];
    give_up_unless(unshare(CLONE_NEWNS) == 0);
    give_up_unless(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    snprintf(path, sizeof path, "%s/mnt", support_base());
    CHECK(mkdir(path, 0755) == 0 || errno == EEXIST);
    give_up_unless(mount("tmpfs", path, "tmpfs", 0, options) == 0);
    return path;
}

static void create_where_it_is_small(void *unused)
{
    (void)unused;
    char path[300];
    snprintf(path, sizeof path, "%s/store", small_mount("size=3m,mode=0755"));
    idem_store *store = NULL;
    idem_options o = support_options(100000);
    struct stat st;
    CHECK_IS(idem_open(path, &o, &store), IDEM_E_SYSTEM);
    CHECK_IS(errno, ENOSPC);
    CHECK(strstr(idem_error_detail(), "bytes are needed") != NULL);
    CHECK(stat(path, &st) != 0 && errno == ENOENT); /* nothing is left of it */
    o = support_options(16);
    o.lanes = 16;
    store = support_open(path, &o); /* a smaller one fits, and all its space is there: */
    for (int i = 0; i < 100; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        int e = support_begin(store, key, NULL);
        CHECK(e == IDEM_CLAIMED || e == IDEM_E_FULL);
    }
    idem_close(store);
}

static void a_full_tmpfs_fails_at_creation_and_says_how_much_is_needed(void **state)
{
    (void)state;
    in_child_or_skip(create_where_it_is_small, NULL);
}

static void create_with_huge_pages(void *unused)
{
    (void)unused;
    char path[300];
    const char *base = small_mount("size=64m,mode=0755,huge=advise");
    static const uint32_t modes[] = {IDEM_HUGE_REQUIRE, IDEM_HUGE_AUTO, IDEM_HUGE_OFF};
    for (int i = 0; i < 3; i++) {
        idem_options o = support_options(50000);
        idem_store *store = NULL;
        o.huge = modes[i];
        snprintf(path, sizeof path, "%s/store-%d", base, i);
        int e = idem_open(path, &o, &store);
        if (i == 0 && e == IDEM_E_SYSTEM && errno == EOPNOTSUPP)
            _exit(NOT_KERNEL); /* transparent huge pages are switched off altogether */
        CHECK_IS(e, IDEM_OK);
        CHECK((support_stats(store).bytes_huge > 0) == (modes[i] != IDEM_HUGE_OFF));
        support_answer(store, "k", 1, "x");
        idem_close(store);
        CHECK_IS(idem_destroy(path), IDEM_OK);
    }
}

static void huge_pages_are_had_where_the_tmpfs_gives_them_and_not_where_they_are_off(void **state)
{
    (void)state;
    in_child_or_skip(create_with_huge_pages, NULL);
}

static void require_huge_pages_in_vain(void *unused)
{
    (void)unused;
    char path[300];
    snprintf(path, sizeof path, "%s/store", small_mount("size=64m,mode=0755,huge=never"));
    idem_options o = support_options(50000);
    idem_store *store = NULL;
    struct stat st;
    o.huge = IDEM_HUGE_REQUIRE;
    CHECK_IS(idem_open(path, &o, &store), IDEM_E_SYSTEM);
    CHECK(strstr(idem_error_detail(), "huge=advise") != NULL); /* the remedy */
    CHECK(stat(path, &st) != 0 && errno == ENOENT);
    o.huge = IDEM_HUGE_AUTO;
    store = support_open(path, &o);
    CHECK_IS(support_stats(store).bytes_huge, 0);
    idem_close(store);
}

static void required_huge_pages_that_are_not_had_fail_with_the_remedy(void **state)
{
    (void)state;
    in_child_or_skip(require_huge_pages_in_vain, NULL);
}

int main(void)
{
    shared = support_shared(sizeof *shared);
#define TEST(name) cmocka_unit_test_setup(name, fresh)
    const struct CMUnitTest tests[] = {
        TEST(planted_files_and_unsafe_modes_are_refused_and_nothing_hangs),
        TEST(a_directory_that_is_a_symlink_or_a_file_is_refused),
        TEST(a_store_is_its_owners_and_roots),
        TEST(a_store_of_a_group_is_shared_by_its_members_who_see_each_other_live_and_die),
        TEST(a_store_can_not_be_given_to_a_group_one_is_not_in),
        TEST(a_peer_in_another_pid_namespace_is_seen_to_live_and_to_die_from_both_sides),
        TEST(peers_in_another_time_namespace_share_the_stores_time),
        TEST(a_full_tmpfs_fails_at_creation_and_says_how_much_is_needed),
        TEST(huge_pages_are_had_where_the_tmpfs_gives_them_and_not_where_they_are_off),
        TEST(required_huge_pages_that_are_not_had_fail_with_the_remedy),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
