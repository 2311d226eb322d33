/*
 * tests/multi/test_wal_fork.c - forking from a handle whose flusher is at work: what the child inherits of a log, and what it must leave alone.
 *
 * The address sanitizer of gcc 12 does not hold its allocator's locks across a fork: a child forked while another thread allocates waits for
 * good, in the sanitizer. So a process forks here only when its flusher has written something, and in that build only while its flusher sleeps.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/support.h"
#include "wal/io.h"

static struct shared {
    struct idem_a64 hold;  /* a flusher that comes to it waits while this is 1 */
    struct idem_a64 held;  /* what it stands before: a descriptor + 1 */
    struct idem_a64 child; /* process id */
    struct idem_a64 done, go;
} * shared;

static const char *dir;
static char wal[160];
static idem_store *store;
static pthread_t tester;
static pid_t owner; /* whose flusher is held */

static void await(struct idem_a64 *word)
{
    CHECK(support_eventually(support_is_set, word, SUPPORT_PATIENCE_MS));
}

/* ------------------------------------------------------------------ a disk on which the flusher can be held */

static void stand(int fd)
{
    if (getpid() != owner || pthread_equal(pthread_self(), tester) || load_acquire(&shared->hold) == 0)
        return;
    store_release(&shared->held, (uint64_t)fd + 1);
    for (int i = 0; i < SUPPORT_PATIENCE_MS && load_acquire(&shared->hold) != 0; i++)
        support_sleep_ms(1);
}

static int held_fdatasync(int fd)
{
    stand(fd);
    return idem_io_system.fdatasync(fd);
}

static bool is_log_file(int fd)
{
    char name[64], path[200] = "";
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    return readlink(name, path, sizeof path - 1) > 0 && strstr(path, "/wal-") != NULL;
}

static int held_close(int fd)
{
    bool file = is_log_file(fd);
    int r = idem_io_system.close(fd);
    if (file)
        stand(fd);
    return r;
}

static struct idem_io_calls calls;

static void release(void)
{
    store_release(&shared->hold, 0);
    store_release(&shared->held, 0);
}

/* ------------------------------------------------------------------ a store with a flusher */

static bool has_written(void *unused)
{
    (void)unused;
    return support_stats(store).log.queued == 0;
}

/* Through the flusher alone. */
static void answer_async(idem_store *s, const char *key, const void *body, size_t bytes)
{
    idem_claim c;
    idem_request rq = support_request(key);
    idem_response r = support_response(200, "");
    rq.durability = r.durability = IDEM_DURABILITY_ASYNC;
    r.body = body;
    r.body_bytes = bytes;
    CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_complete(s, &c, &r), IDEM_OK);
}

static void let_the_flusher_write(void)
{
    char key[32];
    snprintf(key, sizeof key, "first of %d", (int)getpid());
    answer_async(store, key, "x", 1);
    CHECK(support_eventually(has_written, NULL, SUPPORT_PATIENCE_MS));
}

static void open_store(void)
{
    idem_options o = support_options(1000);
    o.response_bytes = 4096;
    o.wal_dir = wal;
    o.durability_claim = o.durability_complete = IDEM_DURABILITY_SYNC;
    o.flush_interval_ms = 1;
    o.wal_file_bytes = 1 << 20;
    o.wal_ring_refs = 64;
    store = support_open(dir, &o);
    let_the_flusher_write();
}

static int fresh(void **state)
{
    (void)state;
    memset(shared, 0, sizeof *shared);
    dir = support_dir();
    snprintf(wal, sizeof wal, "%s-log", dir);
    tester = pthread_self();
    owner = getpid();
    calls = idem_io_system;
    idem_io = &calls;
    open_store();
    return 0;
}

static int over(void **state)
{
    (void)state;
    release();
    idem_close(store);
    support_verify(dir);
    idem_io = &idem_io_system;
    support_remove(wal);
    return 0;
}

static void use(idem_store *s, const char *what)
{
    idem_claim c;
    char key[48];
    snprintf(key, sizeof key, "%s of %d", what, (int)getpid());
    CHECK_IS(support_begin(s, key, &c), IDEM_CLAIMED);
    CHECK_IS(support_complete(s, &c, 200, "x"), IDEM_OK);
}

/* ------------------------------------------------------------------ children of a process whose flusher is at work */

#ifdef __SANITIZE_ADDRESS__
/* All threads of this process but the caller. True: they have slept through ten looks. */
static bool others_sleep(void *unused)
{
    (void)unused;
    for (int looks = 0; looks < 10; looks++) {
        DIR *tasks = opendir("/proc/self/task");
        struct dirent *d;
        bool awake = tasks == NULL;
        while (!awake && (d = readdir(tasks)) != NULL) {
            char path[300], line[300] = "";
            if (d->d_name[0] == '.' || atol(d->d_name) == (long)syscall(SYS_gettid))
                continue;
            snprintf(path, sizeof path, "/proc/self/task/%s/stat", d->d_name);
            FILE *f = fopen(path, "r");
            awake = f == NULL || fgets(line, sizeof line, f) == NULL || strstr(line, ") S ") == NULL;
            if (f != NULL)
                fclose(f);
        }
        if (tasks != NULL)
            closedir(tasks);
        if (awake)
            return false;
        support_sleep_ms(1);
    }
    return true;
}

#endif

/* A flusher that leads again looks what files there are, for which it needs memory: see above. In a build without the sanitizer it is forked at
   any moment. */
static void fork_with_care(void (*fn)(void *))
{
#ifdef __SANITIZE_ADDRESS__
    CHECK(support_eventually(others_sleep, NULL, SUPPORT_PATIENCE_MS));
#endif
    support_in_child(fn, NULL);
}

static void use_and_close(void *unused)
{
    (void)unused;
    use(store, "a key");
    idem_close(store);
}

static void close_only(void *unused)
{
    (void)unused;
    idem_close(store);
}

static void go_deeper(void *unused)
{
    use(store, "a key");
    let_the_flusher_write();
    (void)unused;
    fork_with_care(use_and_close);
    use(store, "another key");
    idem_close(store);
}

static void children_of_a_process_whose_flusher_is_at_work_have_a_log_of_their_own(void **state)
{
    (void)state;
    static void (*const ways[])(void *) = {use_and_close, close_only, go_deeper};
    long forks = support_long() ? 5000 : support_scaled(150, 5);
    for (long i = 0; i < forks; i++) {
        char key[32];
        snprintf(key, sizeof key, "k%ld", i); /* work for the flusher while we fork */
        answer_async(store, key, "x", 1);
        fork_with_care(ways[i % 3]);
    }
    use(store, "the parent's key");
    CHECK_IS(support_stats(store).log.epoch, 0); /* nobody took anybody for stalled */
    CHECK_IS(support_stats(store).log.queued, 0);
}

static void a_child_of_a_raw_clone_does_not_wait_for_its_parents_flusher(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        fflush(NULL);
        pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
        if (pid == 0) {
            if (i == 1)
                use(store, "the child's");
            idem_close(store);
            _exit(0);
        }
        CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS / 3), 0);
        use(store, i == 0 ? "after one" : "after another");
    }
}

static void no_descriptor_of_a_log_at_work_is_left_to_an_exec(void **state)
{
    (void)state;
    unsigned ours = 0;
    for (int fd = 0; fd < 1024; fd++) {
        char name[64], path[200] = "";
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        if (readlink(name, path, sizeof path - 1) <= 0 || strncmp(path, dir, strlen(dir)) != 0)
            continue;
        ours++;
        CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    }
    CHECK(ours >= 4); /* root; the log's directory, its id, its present file */
}

/* ------------------------------------------------------------------ children forked at one step of the flusher */

static void use_in_child(void *unused)
{
    (void)unused;
    store_release(&shared->done, 1);
    use(store, "the child's");
    store_release(&shared->done, 2);
}

static void a_child_forked_while_the_flusher_syncs_waits_for_it_and_no_longer(void **state)
{
    (void)state;
    calls.fdatasync = held_fdatasync;
    store_release(&shared->hold, 1);
    answer_async(store, "slow", "x", 1);
    await(&shared->held);
    pid_t pid = support_spawn(use_in_child, NULL);
    await(&shared->done);
    support_sleep_ms(30);
    CHECK_IS(load_acquire(&shared->done), 1); /* its parent leads */
    release();
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
    CHECK_IS(support_stats(store).log.epoch, 0);
}

static void outlive_the_parent(void)
{
    await(&shared->go); /* the parent is dead */
    use(store, "the heir's");
    store_release(&shared->done, 1);
    _exit(0);
}

static void be_a_parent_whose_flusher_syncs(void *unused)
{
    (void)unused;
    CHECK_IS(idem_open(dir, NULL, &store), IDEM_OK);
    let_the_flusher_write();
    tester = pthread_self();
    owner = getpid();
    calls.fdatasync = held_fdatasync;
    store_release(&shared->hold, 1);
    answer_async(store, "slow", "x", 1);
    await(&shared->held);
    pid_t pid = fork();
    if (pid == 0)
        outlive_the_parent();
    store_release(&shared->child, (uint64_t)pid);
    support_sleep_ms(SUPPORT_PATIENCE_MS);
}

static void a_parent_that_dies_leading_leaves_the_log_to_its_child(void **state)
{
    (void)state;
    idem_close(store); /* or our flusher would lead */
    pid_t parent = support_spawn(be_a_parent_whose_flusher_syncs, NULL);
    await(&shared->child);
    support_end(parent);
    store = support_attach(dir);
    use(store, "ours");
    CHECK_IS(support_stats(store).log.epoch,
             0); /* no succession: the dead one's byte is free, though its child lives */
    store_release(&shared->go, 1);
    await(&shared->done);
    CHECK_IS(support_begin(store, "slow", NULL), IDEM_REPLAY);
}

static bool has_written_or_is_held(void *unused)
{
    return has_written(unused) || load_acquire(&shared->held) != 0;
}

/* The flusher has closed a full file; the number is ours at once; we fork before it has gone on. */
static void a_child_closes_no_descriptor_that_the_flusher_closed_before(void **state)
{
    (void)state;
    static char body[60000];
    char key[16];
    calls.close = held_close;
    store_release(&shared->hold, 1);
    for (int i = 0; i < 40 && load_acquire(&shared->held) == 0; i++) {
        snprintf(key, sizeof key, "k%d", i);
        answer_async(store, key, body, sizeof body);
        CHECK(support_eventually(has_written_or_is_held, NULL, SUPPORT_PATIENCE_MS));
    }
    int fd = (int)load_acquire(&shared->held) - 1;
    CHECK(fd >= 0);
    int mine = dup2(STDERR_FILENO, fd); /* free, so nothing is closed by it */
    CHECK_IS(mine, fd);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(fcntl(mine, F_GETFD) < 0);
    int how = support_reap(pid, SUPPORT_PATIENCE_MS);
    close(mine);
    release();
    CHECK_IS(how, 0);
}

/* ------------------------------------------------------------------ forking while a store is destroyed */

static void dawdle(void *unused)
{
    (void)unused;
    store_release(&shared->go, 1);
    support_sleep_ms(200);
}

static void *destroy_slowly(void *path)
{
    return (void *)(intptr_t)idem_destroy(path);
}

static void a_child_forked_while_a_store_is_destroyed_keeps_none_of_its_locks(void **state)
{
    (void)state;
    char other[176], log[192];
    snprintf(other, sizeof other, "%s-other", dir);
    snprintf(log, sizeof log, "%s-log", other);
    idem_options o = support_options(100);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    o.wal_dir = log;
    idem_close(support_open(other, &o));
    support_at_point("log.destroyed", 1, dawdle, NULL);
    pthread_t thread;
    CHECK_IS(pthread_create(&thread, NULL, destroy_slowly, other), 0);
    await(&shared->go);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        support_sleep_ms(SUPPORT_PATIENCE_MS);
        _exit(0);
    }
    void *r;
    CHECK_IS(pthread_join(thread, &r), 0);
    support_at_point(NULL, 0, NULL, NULL);
    idem_store *again = NULL;
    int e = idem_open(other, &o, &again);
    support_end(pid);
    CHECK_IS((intptr_t)r, IDEM_OK);
    CHECK_IS(e, IDEM_OK);
    idem_close(again);
    CHECK_IS(idem_destroy(other), IDEM_OK);
    support_remove(log);
}

int main(void)
{
    shared = support_shared(sizeof *shared);
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, over)
    const struct CMUnitTest tests[] = {
        TEST(children_of_a_process_whose_flusher_is_at_work_have_a_log_of_their_own),
        TEST(a_child_of_a_raw_clone_does_not_wait_for_its_parents_flusher),
        TEST(no_descriptor_of_a_log_at_work_is_left_to_an_exec),
        TEST(a_child_forked_while_the_flusher_syncs_waits_for_it_and_no_longer),
        TEST(a_parent_that_dies_leading_leaves_the_log_to_its_child),
        TEST(a_child_closes_no_descriptor_that_the_flusher_closed_before),
        TEST(a_child_forked_while_a_store_is_destroyed_keeps_none_of_its_locks),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
