/*
 * tests/unit/test_wal_leader.c - the one writer: failing syncs, no space, a directory that goes, a leader that does not come back, files that
 * are full. Calls to the disk go through a table of this test's own (wal/io.h).
 */
/* tsan */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/atomic.h"
#include "support/support.h"
#include "wal/io.h"

struct place {
    const char *dir;
    char wal[160], away[170];
};

/* ------------------------------------------------------------------ a disk that fails */

static struct idem_a64 sync_failures, no_space; /* how many more calls fail; all, if it is large */
static struct idem_a64 stick, stuck;            /* the next sync of a file sleeps while stick is 1 */

static bool one_less(struct idem_a64 *a)
{
    uint64_t n = load_relaxed(a);
    while (n > 0)
        if (cas_relaxed(a, &n, n - 1))
            return true;
    return false;
}

static int failing_fdatasync(int fd)
{
    if (one_less(&sync_failures)) {
        errno = EIO;
        return -1;
    }
    if (load_acquire(&stick) == 1 && add_relaxed(&stuck, 1) == 0)
        while (load_acquire(&stick) == 1)
            support_sleep_ms(5);
    return idem_io_system.fdatasync(fd);
}

static int failing_fallocate(int fd, off_t bytes)
{
    if (one_less(&no_space)) {
        errno = ENOSPC;
        return -1;
    }
    return idem_io_system.fallocate(fd, bytes);
}

static struct idem_io_calls failing;

static void disk_fails(uint64_t syncs, uint64_t space)
{
    store_relaxed(&sync_failures, syncs);
    store_relaxed(&no_space, space);
}

/* ------------------------------------------------------------------ a store with a log */

static struct place a_place(void)
{
    struct place p = {.dir = support_dir()};
    snprintf(p.wal, sizeof p.wal, "%s-log", p.dir);
    snprintf(p.away, sizeof p.away, "%s-away", p.wal);
    failing = idem_io_system;
    failing.fdatasync = failing_fdatasync;
    failing.fallocate = failing_fallocate;
    idem_io = &failing;
    disk_fails(0, 0);
    return p;
}

static idem_store *open_sync(const struct place *p)
{
    idem_options o = support_options(1000);
    o.wal_dir = p->wal;
    o.durability_claim = o.durability_complete = IDEM_DURABILITY_SYNC;
    o.wal_file_bytes = 1 << 20;
    o.log_wait_ms = 1000;
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    return support_open(p->dir, &o);
}

static void over(const struct place *p, idem_store *s)
{
    idem_close(s);
    support_verify(p->dir);
    idem_io = &idem_io_system;
    support_remove(p->wal);
}

struct seen {
    const char *key;
    unsigned records, completed;
};

static int look(const idem_log_record *r, void *ctx)
{
    struct seen *s = ctx;
    if (r->key.key_bytes == strlen(s->key) && memcmp(r->key.key, s->key, r->key.key_bytes) == 0) {
        s->records++;
        s->completed += r->state == 2;
    }
    return 0;
}

static struct seen on_disk(const struct place *p, const char *key)
{
    struct seen s = {.key = key};
    CHECK_IS(idem_log_walk(p->wal, look, &s), IDEM_OK);
    return s;
}

/* ------------------------------------------------------------------ tests */

static void a_failed_sync_gives_the_file_up_and_the_next_one_carries_on(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_store *s = open_sync(&p);
    idem_claim c;
    CHECK_IS(support_begin(s, "before", NULL), IDEM_CLAIMED);
    disk_fails(1, 0);
    CHECK_IS(support_begin(s, "k", &c), IDEM_CLAIMED);
    idem_stats_data st = support_stats(s);
    CHECK_IS(st.log.sync_failures, 1);
    CHECK_IS(st.log.poisoned_files, 1);
    CHECK_IS(st.log.files, 2);
    CHECK_IS(st.log.trouble, IDEM_LOG_FINE);
    CHECK_IS(support_complete(s, &c, 200, "yes"), IDEM_OK);
    CHECK_IS(on_disk(&p, "before").records, 1);
    CHECK_IS(on_disk(&p, "k").records, 2);
    over(&p, s);
}

static void nothing_is_acknowledged_while_syncs_fail_and_all_of_it_when_they_work_again(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_store *s = open_sync(&p);
    idem_claim c, other;
    CHECK_IS(support_begin(s, "done", &c), IDEM_CLAIMED);
    disk_fails(UINT32_MAX, 0);
    CHECK_IS(support_begin(s, "k", &other), IDEM_E_LOG);
    CHECK_IS(other.token, 0);
    CHECK_IS(support_stats(s).log.trouble, IDEM_LOG_POISONED);
    CHECK_IS(support_complete(s, &c, 200, "yes"), IDEM_E_LOG);
    CHECK_IS(support_begin(s, "done", NULL), IDEM_E_LOG); /* it stands, but is not given out */
    idem_reply reply = IDEM_REPLY_INIT;
    idem_key key = support_key("done");
    CHECK_IS(idem_lookup(s, &key, &reply), IDEM_E_LOG);
    CHECK(reply.body == NULL);
    idem_request none = support_request("other");
    none.durability = IDEM_DURABILITY_NONE;
    CHECK_IS(idem_begin(s, &none, &other, NULL), IDEM_CLAIMED); /* who does not ask for the disk goes on */
    disk_fails(0, 0);
    CHECK_IS(support_complete(s, &c, 200, "yes"), IDEM_OK);
    CHECK_IS(idem_lookup(s, &key, &reply), IDEM_REPLAY);
    CHECK_BYTES(reply.body, reply.body_bytes, "yes");
    idem_reply_free(&reply);
    CHECK_IS(on_disk(&p, "done").completed, 1);
    CHECK_IS(support_stats(s).log.trouble, IDEM_LOG_FINE);
    idem_request r = support_request("k");
    CHECK_IS(idem_begin(s, &r, &other, &reply), IDEM_CLAIMED); /* nothing had happened */
    CHECK_IS(reply.attempt, 2);
    over(&p, s);
}

static void no_space_is_said_and_goes_away_by_itself(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_store *s = open_sync(&p);
    disk_fails(1, UINT32_MAX);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_E_LOG_SPACE);
    CHECK_IS(support_stats(s).log.trouble, IDEM_LOG_NO_SPACE);
    CHECK_IS(support_stats(s).log.last_errno, ENOSPC);
    disk_fails(0, 0);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_CLAIMED);
    CHECK_IS(support_stats(s).log.trouble, IDEM_LOG_FINE);
    CHECK(on_disk(&p, "k").records > 0);
    over(&p, s);
}

static void a_directory_that_is_gone_stops_the_log_until_it_is_back(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_store *s = open_sync(&p);
    CHECK_IS(support_begin(s, "a", NULL), IDEM_CLAIMED);
    CHECK_IS(rename(p.wal, p.away), 0);
    CHECK_IS(support_begin(s, "b", NULL), IDEM_E_LOG);
    CHECK_IS(support_stats(s).log.trouble, IDEM_LOG_REMOVED);
    CHECK_IS(rename(p.away, p.wal), 0);
    CHECK_IS(support_begin(s, "b", NULL), IDEM_CLAIMED);
    CHECK_IS(support_stats(s).log.trouble, IDEM_LOG_FINE);
    over(&p, s);
}

struct late {
    idem_store *store;
    int verdict;
};

static void *claims_late(void *arg)
{
    struct late *l = arg;
    idem_request r = support_request("late");
    idem_claim c;
    l->verdict = idem_begin(l->store, &r, &c, NULL);
    return NULL;
}

static bool is_stuck(void *ctx)
{
    (void)ctx;
    return load_relaxed(&stuck) > 0;
}

static void a_leader_stuck_in_the_kernel_is_succeeded(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_store *s = open_sync(&p);
    store_relaxed(&stuck, 0);
    store_release(&stick, 1);
    struct late late = {s, 0};
    pthread_t thread;
    CHECK_IS(pthread_create(&thread, NULL, claims_late, &late), 0);
    CHECK(support_eventually(is_stuck, NULL, SUPPORT_PATIENCE_MS));
    CHECK_IS(support_begin(s, "k", NULL), IDEM_CLAIMED);
    idem_stats_data st = support_stats(s);
    CHECK_IS(st.log.stalls, 1);
    CHECK_IS(st.log.epoch, 1);
    CHECK_IS(st.log.files, 2);
    store_release(&stick, 0);
    CHECK_IS(pthread_join(thread, NULL), 0);
    CHECK_IS(late.verdict, IDEM_CLAIMED); /* the successor wrote it */
    CHECK_IS(on_disk(&p, "late").records, 1);
    CHECK_IS(on_disk(&p, "k").records, 1);
    CHECK_IS(support_begin(s, "after", NULL), IDEM_CLAIMED);
    CHECK_IS(on_disk(&p, "after").records, 1);
    over(&p, s);
}

static void a_full_file_is_followed_by_another_and_a_large_answer_gets_its_own(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = support_options(100);
    o.response_bytes = 1 << 20;
    o.wal_dir = p.wal;
    o.wal_file_bytes = 1 << 20;
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_store *s = support_open(p.dir, &o);
    static char body[3 << 20];
    memset(body, 'x', sizeof body);
    char key[16];
    for (int i = 0; i < 6; i++) {
        idem_claim c;
        idem_response r = support_response(200, "");
        r.body = body;
        r.body_bytes = i == 3 ? sizeof body : 300000;
        snprintf(key, sizeof key, "k%d", i);
        CHECK_IS(support_begin(s, key, &c), IDEM_CLAIMED);
        CHECK_IS(idem_complete(s, &c, &r), IDEM_OK);
    }
    CHECK(support_stats(s).log.files >= 3);
    for (int i = 0; i < 6; i++) {
        snprintf(key, sizeof key, "k%d", i);
        CHECK_IS(on_disk(&p, key).completed, 1);
    }
    over(&p, s);
}

static void a_process_may_fork_while_its_flusher_is_at_work(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = support_options(100);
    o.wal_dir = p.wal;
    o.wal_file_bytes = 1 << 20;
    o.flush_interval_ms = 1;
    idem_store *s = support_open(p.dir, &o);
    char key[16];
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "k%d", i);
        CHECK_IS(support_begin(s, key, NULL), IDEM_CLAIMED);
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
    }
    over(&p, s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_sync_gives_the_file_up_and_the_next_one_carries_on),
        cmocka_unit_test(nothing_is_acknowledged_while_syncs_fail_and_all_of_it_when_they_work_again),
        cmocka_unit_test(no_space_is_said_and_goes_away_by_itself),
        cmocka_unit_test(a_directory_that_is_gone_stops_the_log_until_it_is_back),
        cmocka_unit_test(a_leader_stuck_in_the_kernel_is_succeeded),
        cmocka_unit_test(a_full_file_is_followed_by_another_and_a_large_answer_gets_its_own),
        cmocka_unit_test(a_process_may_fork_while_its_flusher_is_at_work),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
