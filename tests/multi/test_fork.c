/*
 * tests/multi/test_fork.c - forked children with and without exec: who owns what, who counts as alive, and that no child harms its
 * parent.
 */
#include "support/support.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static struct shared {
    const char *dir;
    struct idem_a64 ready, go, stop, child;
    idem_claim claim;
} * shared;

static idem_store *store;

static int fresh(void **state)
{
    (void)state;
    memset(shared, 0, sizeof *shared);
    shared->dir = support_dir();
    store = support_open(shared->dir, NULL);
    return 0;
}

static int over(void **state)
{
    (void)state;
    support_verify(shared->dir);
    idem_close(store);
    return 0;
}

static void await(struct idem_a64 *word)
{
    CHECK(support_eventually(support_is_set, word, SUPPORT_PATIENCE_MS));
}

/* ------------------------------------------------------------------ children that use the handle */

static void use_inherited(void *unused)
{
    (void)unused;
    CHECK_IS(support_begin(store, "parent's", NULL), IDEM_IN_PROGRESS);
    CHECK_IS(support_begin(store, "child's", NULL), IDEM_CLAIMED);
    idem_stats_data s = support_stats(store);
    CHECK_IS(s.processes, 2);
    CHECK_IS(s.lanes, 2);
    idem_key k = support_key("child's");
    idem_story story = IDEM_STORY_INIT;
    CHECK_IS(idem_explain(store, &k, &story), IDEM_OK);
    CHECK_IS(story.owner_pid, getpid());
    idem_story_free(&story);
}

static void a_child_registers_anew_and_claims_stay_with_the_process_that_made_them(void **state)
{
    (void)state;
    idem_claim claim;
    CHECK_IS(support_begin(store, "parent's", &claim), IDEM_CLAIMED);
    for (int i = 0; i < 5; i++) {
        support_in_child(use_inherited, NULL);
        CHECK_IS(support_begin(store, "parent's", NULL), IDEM_IN_PROGRESS); /* the child's end is not ours */
        CHECK_IS(support_begin(store, "child's", NULL), IDEM_RECLAIMED);    /* but it is its claims' */
        idem_key k = support_key("child's");
        CHECK_IS(idem_forget(store, &k), IDEM_OK);
    }
    CHECK_IS(support_complete(store, &claim, 200, "x"), IDEM_OK);
    CHECK_IS(support_stats(store).processes, 1);
}

static void complete_parents(void *unused)
{
    (void)unused;
    CHECK_IS(support_complete(store, &shared->claim, 200, "by the child"), IDEM_OK);
}

static void a_child_may_complete_its_parents_claim(void **state)
{
    (void)state;
    CHECK_IS(support_begin(store, "k", &shared->claim), IDEM_CLAIMED);
    support_in_child(complete_parents, NULL);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_REPLAY);
    CHECK_IS(support_complete(store, &shared->claim, 200, "again"), IDEM_OK);
}

static int wires[2];

static void complete_what_comes_over_the_wire(void *unused)
{
    (void)unused;
    uint8_t wire[IDEM_CLAIM_WIRE_BYTES];
    idem_claim claim;
    idem_store *mine = support_attach(shared->dir);
    close(wires[1]);
    while (read(wires[0], wire, sizeof wire) == sizeof wire) {
        CHECK_IS(idem_claim_decode(wire, &claim), IDEM_OK);
        CHECK_IS(idem_adopt(mine, &claim), IDEM_OK);
        CHECK_IS(idem_mark(mine, &claim, "taken on", 8), IDEM_OK);
        CHECK_IS(support_complete(mine, &claim, 200, "by somebody else"), IDEM_OK);
    }
    idem_close(mine);
}

static void a_claim_that_is_sent_to_another_process_is_completed_there(void **state)
{
    (void)state;
    CHECK_IS(pipe2(wires, O_CLOEXEC), 0);
    pid_t pid = support_spawn(complete_what_comes_over_the_wire, NULL);
    close(wires[0]);
    for (int i = 0; i < 100; i++) {
        uint8_t wire[IDEM_CLAIM_WIRE_BYTES];
        char key[32];
        snprintf(key, sizeof key, "job-%d", i);
        idem_request rq = support_request(key);
        idem_claim claim;
        rq.flags = i % 2 == 0 ? IDEM_LEASE_ONLY : 0;
        CHECK_IS(idem_begin(store, &rq, &claim, NULL), IDEM_CLAIMED);
        idem_claim_encode(&claim, wire);
        CHECK_IS(write(wires[1], wire, sizeof wire), sizeof wire);
        idem_reply reply = IDEM_REPLY_INIT;
        if (i % 10 == 0) {
            CHECK_IS(idem_wait(store, &rq, SUPPORT_PATIENCE_MS, &claim, &reply), IDEM_REPLAY);
            CHECK_BYTES(reply.body, reply.body_bytes, "by somebody else");
        }
        idem_reply_free(&reply);
    }
    close(wires[1]);
    wires[1] = -1;
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
    CHECK_IS(support_stats(store).completed, 100);
}

static void close_inherited(void *unused)
{
    (void)unused;
    idem_close(store);
    store = support_attach(shared->dir);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
    idem_close(store);
}

static void a_child_that_closes_the_handle_closes_its_own(void **state)
{
    (void)state;
    CHECK_IS(support_begin(store, "k", &shared->claim), IDEM_CLAIMED);
    support_in_child(close_inherited, NULL);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
    CHECK_IS(support_complete(store, &shared->claim, 200, "x"), IDEM_OK);
}

static void go_deeper(void *depth)
{
    CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
    uintptr_t left = (uintptr_t)depth;
    if (left > 0)
        support_in_child(go_deeper, (void *)(left - 1));
    idem_stats_data s = support_stats(store);
    CHECK_IS(s.lanes, 12 - left); /* one for each of us that lives */
    CHECK_IS(s.processes, 12 - left);
}

static void generations_of_children_leave_their_ancestors_lanes_alone(void **state)
{
    (void)state;
    CHECK_IS(support_begin(store, "k", &shared->claim), IDEM_CLAIMED);
    support_in_child(go_deeper, (void *)(uintptr_t)10);
    CHECK_IS(support_stats(store).lanes, 1);
    CHECK_IS(support_complete(store, &shared->claim, 200, "x"), IDEM_OK);
}

/* The child's only thread ends, and its thread-specific data with it; then the process, but not through the test's exit handlers. */
static void quit(void)
{
    _exit(0);
}

static int fork_and_end_thread(void)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        atexit(quit);
        pthread_exit(NULL);
    }
    return support_reap(pid, SUPPORT_PATIENCE_MS);
}

static void *fork_in_thread(void *unused)
{
    (void)unused;
    idem_stats_data s;
    memset(&s, 0, sizeof s);
    s.size = sizeof s;
    if (support_begin(store, "k", NULL) == IDEM_CLAIMED && fork_and_end_thread() == 0 &&
        idem_stats(store, &s) == IDEM_OK) /* through our own handle, in the same lane */
        store_release(&shared->ready, s.lanes);
    return NULL;
}

static void the_end_of_a_childs_thread_does_not_give_back_its_parents_lane(void **state)
{
    (void)state;
    idem_store *other = support_attach(shared->dir);
    CHECK_IS(support_begin(store, "a", NULL), IDEM_CLAIMED);
    CHECK_IS(support_begin(other, "b", NULL), IDEM_CLAIMED);
    CHECK_IS(fork_and_end_thread(), 0);
    idem_stats_data s = support_stats(other);
    CHECK_IS(s.lanes, 2);
    idem_close(other);
}

/* As fork, but without pthread_atfork's handlers. */
static pid_t raw_fork(void)
{
    fflush(NULL);
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static void a_child_of_a_raw_clone_registers_anew_and_leaves_its_parent_alive(void **state)
{
    (void)state;
    CHECK_IS(support_begin(store, "k", &shared->claim), IDEM_CLAIMED);
    pid_t pid = raw_fork();
    if (pid == 0) {
        CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
        CHECK_IS(support_begin(store, "child's", NULL), IDEM_CLAIMED);
        CHECK_IS(support_stats(store).processes, 2);
        _exit(0);
    }
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
    idem_store *judge = support_attach(shared->dir);
    CHECK_IS(support_begin(judge, "k", NULL), IDEM_IN_PROGRESS);
    CHECK_IS(support_begin(judge, "child's", NULL), IDEM_RECLAIMED);
    CHECK_IS(support_complete(store, &shared->claim, 200, "x"), IDEM_OK);
    idem_close(judge);
}

/* ------------------------------------------------------------------ children that outlive their parents */

static void sleep_for_good(void)
{
    for (int i = 0; i < SUPPORT_PATIENCE_MS / 10 && load_acquire(&shared->stop) == 0; i++)
        support_sleep_ms(10);
    _exit(0);
}

enum { FORK, FORK_EXEC, SPAWN, SPAWN_WITH_OWNER_FD, WAYS };

static void be_a_parent(void *how)
{
    idem_store *mine = support_attach(shared->dir);
    pid_t child = 0;
    char *sleep_argv[] = {"sleep", "60", NULL};
    CHECK_IS(support_begin(mine, "k", NULL), IDEM_CLAIMED);
    switch ((int)(intptr_t)how) {
    case FORK:
        child = fork();
        if (child == 0)
            sleep_for_good();
        break;
    case FORK_EXEC:
        child = fork();
        if (child == 0) {
            execv("/bin/sleep", sleep_argv);
            _exit(1);
        }
        break;
    case SPAWN_WITH_OWNER_FD:
        CHECK(fcntl(idem_owner_fd(mine), F_DUPFD, 100) >= 100); /* inherited, as it isn't close-on-exec */
        __attribute__((fallthrough));
    default:
        CHECK_IS(posix_spawn(&child, "/bin/sleep", NULL, NULL, sleep_argv, environ), 0);
        break;
    }
    store_release(&shared->child, (uint64_t)child);
    for (;;)
        support_sleep_ms(1000);
}

static bool runs_sleep(void *pid)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int)(intptr_t)pid);
    FILE *f = fopen(path, "re");
    if (f != NULL) {
        if (fgets(name, sizeof name, f) == NULL)
            name[0] = '\0';
        fclose(f);
    }
    return strcmp(name, "sleep\n") == 0;
}

static bool is_gone(void *pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/0", (int)(intptr_t)pid);
    return access(path, F_OK) != 0; /* dead, perhaps a zombie of somebody else */
}

static int verdict_after_the_parent_died(int how)
{
    store_relaxed(&shared->child, 0);
    pid_t parent = support_spawn(be_a_parent, (void *)(intptr_t)how);
    await(&shared->child);
    pid_t child = (pid_t)load_acquire(&shared->child);
    if (how != FORK)
        CHECK(support_eventually(runs_sleep, (void *)(intptr_t)child, SUPPORT_PATIENCE_MS));
    CHECK_IS(support_begin(store, "k", NULL), IDEM_IN_PROGRESS);
    support_end(parent);
    CHECK(!is_gone((void *)(intptr_t)child));
    int verdict = support_begin(store, "k", NULL);
    if (how == SPAWN_WITH_OWNER_FD) { /* owned until what the parent started has ended */
        CHECK_IS(verdict, IDEM_IN_PROGRESS);
        support_kill(child, SIGKILL);
        CHECK(support_eventually(is_gone, (void *)(intptr_t)child, SUPPORT_PATIENCE_MS));
    }
    /* An exec drops its descriptors a moment after its new name shows. The lease is 30 s. */
    for (int i = 0; i < 1000 && verdict == IDEM_IN_PROGRESS; i++) {
        support_sleep_ms(5);
        verdict = support_begin(store, "k", NULL);
    }
    store_release(&shared->stop, 1);
    support_kill(child, SIGKILL);
    CHECK(support_eventually(is_gone, (void *)(intptr_t)child, SUPPORT_PATIENCE_MS));
    return verdict;
}

static void a_dead_parent_is_dead_although_a_child_of_it_lives_on(void **state)
{
    for (int how = 0; how < WAYS; how++) {
        if (how > 0) {
            over(state);
            fresh(state);
        }
        CHECK_IS(verdict_after_the_parent_died(how), IDEM_RECLAIMED);
    }
}

/* ------------------------------------------------------------------ forking while threads are busy */

static void *come_and_go(void *unused)
{
    (void)unused;
    char key[32];
    snprintf(key, sizeof key, "t%lu", (unsigned long)(support_now_ms() % 50));
    idem_claim claim;
    for (int i = 0; i < 20 && load_relaxed(&shared->stop) == 0; i++)
        if (support_begin(store, key, &claim) == IDEM_CLAIMED)
            support_complete(store, &claim, 1, "x");
    return NULL;
}

static void *keep_threads_coming(void *unused)
{
    (void)unused;
    while (load_relaxed(&shared->stop) == 0) {
        pthread_t t;
        if (pthread_create(&t, NULL, come_and_go, NULL) == 0)
            pthread_join(t, NULL);
    }
    return NULL;
}

static void *open_and_close(void *unused)
{
    (void)unused;
    while (load_relaxed(&shared->stop) == 0) {
        idem_store *other = NULL;
        if (idem_open(shared->dir, NULL, &other) == IDEM_OK) {
            support_begin(other, "o", NULL);
            idem_close(other);
        }
    }
    return NULL;
}

static void work_in_child(void)
{
    char key[32];
    idem_claim claim;
    snprintf(key, sizeof key, "p%d", (int)getpid());
    CHECK_IS(support_begin(store, key, &claim), IDEM_CLAIMED);
    CHECK_IS(support_complete(store, &claim, 1, "x"), IDEM_OK);
    _exit(0);
}

static void a_child_forked_from_among_busy_threads_works(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (int i = 0; i < 3; i++)
        CHECK_IS(pthread_create(&threads[i], NULL, keep_threads_coming, NULL), 0);
    CHECK_IS(pthread_create(&threads[3], NULL, open_and_close, NULL), 0);
    long forks = support_long() ? 5000 : support_scaled(300, 6);
    int how = 0;
    fflush(NULL);
    for (long i = 0; i < forks && how == 0; i++) {
        pid_t pid = fork();
        if (pid == 0)
            work_in_child();
        how = support_reap(pid, SUPPORT_PATIENCE_MS / 2);
        support_clock_add(3600 * 1000);
    }
    store_relaxed(&shared->stop, 1);
    for (int i = 0; i < 4; i++)
        CHECK_IS(pthread_join(threads[i], NULL), 0);
    CHECK_IS(how, 0);
}

static void a_thread_that_forks_keeps_its_lane(void **state)
{
    (void)state;
    pthread_t t;
    CHECK_IS(pthread_create(&t, NULL, fork_in_thread, NULL), 0);
    CHECK_IS(pthread_join(t, NULL), 0);
    CHECK_IS(load_acquire(&shared->ready), 1);
}

int main(void)
{
    shared = support_shared(sizeof *shared);
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, over)
    const struct CMUnitTest tests[] = {
        TEST(a_child_registers_anew_and_claims_stay_with_the_process_that_made_them),
        TEST(a_child_may_complete_its_parents_claim),
        TEST(a_claim_that_is_sent_to_another_process_is_completed_there),
        TEST(a_child_that_closes_the_handle_closes_its_own),
        TEST(generations_of_children_leave_their_ancestors_lanes_alone),
        TEST(the_end_of_a_childs_thread_does_not_give_back_its_parents_lane),
        TEST(a_thread_that_forks_keeps_its_lane),
        TEST(a_child_of_a_raw_clone_registers_anew_and_leaves_its_parent_alive),
        TEST(a_dead_parent_is_dead_although_a_child_of_it_lives_on),
        TEST(a_child_forked_from_among_busy_threads_works),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
