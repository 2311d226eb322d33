/*
 * tests/unit/test_recover_odd.c - recoveries beside the ordinary way: logs that say little of their store or too much for it, large tails, clocks far
 * off, somebody else's hands in the directory meanwhile; and what a walk tells of records that have no key or no time.
 */
#include "unit/recover_log.h"

#include "arena/entry.h"

#include <errno.h>
#include <sys/wait.h>

static struct hand_log l;
static char dir[160];
static struct heard heard;

/* A log without a file. */
static void begin_at(const char *place)
{
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(dir, sizeof dir, "%s/s", place);
    hand_open(&l, place);
}
static void begin(void)
{
    begin_at(support_dir());
}

static int recover(int64_t now_ms, uint32_t flags)
{
    idem_recovery r = recovery_of(&l, dir, &heard);
    r.now_wall_ms = now_ms;
    r.flags = flags;
    return idem_recover(&r);
}

static uint64_t tokens = 0;
static uint64_t new_token(void)
{
    return ((uint64_t)LOG_T0 << 16) + ++tokens;
}
static void answer(const char *key, const char *body)
{
    hand_add(&l, hand_answer(&l, key, new_token(), body));
}
static void answers(unsigned n, const char *body)
{
    static char keys[20000][16];
    for (unsigned i = 0; i < n; i++) {
        snprintf(keys[i], sizeof keys[i], "k-%u", i);
        answer(keys[i], body);
        if (i % 64 == 63 || l.used > 100000)
            hand_flush(&l, true);
    }
    if (l.records > 0)
        hand_flush(&l, true);
}

static int looked_up(const char *key)
{
    idem_store *s = support_attach(dir);
    idem_key k = support_key(key);
    int e = idem_lookup(s, &k, NULL);
    idem_close(s);
    return e;
}

static void over(void)
{
    if (access(dir, F_OK) == 0) {
        support_verify(dir);
        support_remove(dir);
    }
    hand_close(&l);
}

/* ------------------------------------------------------------------ what the log says of its store */

/* A file of 1.0 says nothing; what it says that no store is made with, counts as that. */
static void settings_that_no_store_has_are_not_taken(void **state)
{
    (void)state;
    static const struct idem_wal_settings settings[] = {
        {0, 0, 0, 0, 0, 0},
        {0, 3, 50, 5000, 2048, 1 << 20},
        {4, 3, 50, 5000, 2048, 1 << 20},
        {2, 0, 50, 5000, 2048, 1 << 20},
        {2, 4, 50, 5000, 2048, 1 << 20},
        {2, 3, 50, 5000, 2048, 12345},
        {2, 3, 0, 5000, 2048, 1 << 20},
    };
    for (unsigned i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        begin();
        l.f.settings = settings[i];
        hand_file(&l, true);
        answers(1, "x");
        CHECK_IS(recover(LOG_T0 + 5000, 0), IDEM_OK);
        idem_store *s = support_attach(dir);
        idem_stats_data st = support_stats(s);
        CHECK_IS(st.log.flush_interval_ms, 50);
        idem_close(s);
        CHECK_IS(looked_up("k-0"), IDEM_REPLAY);
        over();
    }
}

/* Then who opens it says; where nobody does, the sizes of the log's files do, but not that of one that was made for all that lives. */
static void settings_that_the_log_does_not_have_are_the_openers(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        begin();
        memset(&l.f.settings, 0, sizeof l.f.settings);
        if (i >= 2) {
            hand_file(&l, true);
            l.f.oldest = i == 2 ? 2 : 1;
        }
        l.f.bytes = i == 1 || i == 3 ? 2 << 20 : i == 2 ? 68 << 20 : LOG_FILE_BYTES;
        hand_file(&l, true);
        answers(1, "x");
        idem_options o = IDEM_OPTIONS_INIT;
        o.flags = IDEM_OPEN_CREATE | IDEM_OPEN_NO_FLUSHER;
        o.wal_dir = l.path;
        if (i == 0) {
            o.durability_claim = o.durability_complete = IDEM_DURABILITY_SYNC;
            o.flush_interval_ms = 70;
            o.log_wait_ms = 700;
            o.wal_file_bytes = 3 << 20;
            o.wal_ring_refs = 128;
        }
        idem_recovery r = recovery_of(&l, dir, &heard); /* by now, the machine's clock would be far off */
        if (i > 0)
            CHECK_IS(idem_recover(&r), IDEM_OK);
        else
            support_clock_machine(1000, LOG_T0 + 5000);
        idem_store *s = NULL;
        CHECK_IS(idem_open(dir, &o, &s), IDEM_OK);
        idem_stats_data st = support_stats(s);
        support_clock_stand(false);
        CHECK_IS(st.log.flush_interval_ms, i == 0 ? 70 : 50);
        CHECK_IS(st.log.file_bytes, i == 0 ? 3 << 20 : i == 2 ? 64 << 20 : 2 << 20);
        idem_close(s);
        over();
    }
}

/* Large answers fill a small store, which has room for far more keys than it was made for. Recovered with less luck, it has to have more memory. */
static void check_a_small_store_that_was_full(void *place)
{
    static char large[40000];
    memset(large, 'x', sizeof large - 1);
    begin_at(place);
    l.f.keys = 400;
    l.f.response_bytes = 400;
    l.f.bytes = 4 << 20;
    hand_file(&l, true);
    answers(27, large); /* of a memory of 1 MiB */
    CHECK_IS(recover(LOG_T0 + 5000, 0), IDEM_OK);
    CHECK(strstr(heard.text, "keys instead") != NULL);
    CHECK_IS(looked_up("k-26"), IDEM_REPLAY);
    support_verify(dir);
    over();
}

static void a_small_store_that_was_full_is_made_larger(void **state)
{
    (void)state;
    support_promise(check_a_small_store_that_was_full, FAULTS("recover.no_larger"));
}

/* It was made for few keys, or small ones, by a faulty writer: enlarged a few times, and then refused. */
static void a_log_that_is_too_large_for_its_store(void **state)
{
    (void)state;
    static char large[100000];
    memset(large, 'x', sizeof large - 1);
    for (unsigned i = 0; i < 4; i++) {
        begin();
        l.f.keys = 16;
        l.f.bytes = 4 << 20;
        hand_file(&l, true);
        if (i == 0) {
            answers(20000, "a few bytes");
        } else if (i == 1) {
            answers(1, large);
        } else {
            struct idem_rec marked = hand_claim(&l, "marked", new_token());
            marked.mark = (const uint8_t *)large;
            marked.mark_bytes = IDEM_MARK_MAX + 1;
            hand_add(&l, marked);
            if (i == 2)
                answers(1, large);
            else
                answers(1, "and one that fits");
        }
        CHECK_IS(recover(LOG_T0 + 5000, 0), IDEM_E_FULL);
        CHECK(strstr(heard.text, "keys instead") != NULL);
        CHECK(strstr(idem_error_detail(), "too small for its log") != NULL);
        CHECK(access(dir, F_OK) != 0);
        over();
    }
}

/* ------------------------------------------------------------------ what is written anew */

static struct idem_io_calls calls;
static unsigned passed, fails_at;

static ssize_t pwrite_fails(int fd, const void *from, size_t n, off_t at)
{
    if (++passed != fails_at)
        return idem_io_system.pwrite(fd, from, n, at);
    errno = EIO;
    return -1;
}

/* Records that nobody vouches for: more than a file of this store holds, one larger than a batch, and one that says what may go. */
static void a_tail_that_is_larger_than_a_file(void **state)
{
    (void)state;
    static char body[1300000];
    static const char *const keys[] = {"one", "two", "three", "large"};
    memset(body, 'b', sizeof body - 1);
    begin();
    l.f.bytes = 8 << 20;
    l.f.keys = 16;
    l.f.response_bytes = 300000;
    l.room = 8 << 20;
    free(l.bytes);
    l.bytes = malloc(l.room);
    CHECK(l.bytes != NULL);
    hand_file(&l, true);
    answer("proven", "x");
    hand_flush(&l, true);
    hand_add(&l, (struct idem_rec){.kind = REC_RETAIN, .token = 1});
    for (unsigned i = 0; i < 4; i++)
        answer(keys[i], body + (i < 3 ? 700000 : 0));
    hand_flush(&l, true);
    /* Every other one of its writes fails once. */
    calls = idem_io_system;
    calls.pwrite = pwrite_fails;
    int e = IDEM_E_LOG;
    for (fails_at = 1; e == IDEM_E_LOG; fails_at += 2) {
        passed = 0;
        idem_io = &calls;
        e = recover(LOG_T0 + 5000, 0);
        idem_io = &idem_io_system;
        CHECK(e == IDEM_OK || strstr(idem_error_detail(), l.path) != NULL);
    }
    CHECK_IS(e, IDEM_OK);
    CHECK(fails_at > 6);
    for (unsigned again = 0; again < 2; again++) {
        for (unsigned i = 0; i < 4; i++)
            CHECK_IS(looked_up(keys[i]), IDEM_REPLAY);
        support_remove(dir);
        CHECK_IS(recover(LOG_T0 + 6000, 0), IDEM_OK);
    }
    over();
}

static void many_files_that_are_well_filled_stay(void **state)
{
    (void)state;
    static char body[2001];
    memset(body, 'b', sizeof body - 1);
    begin();
    for (unsigned i = 0; i < 8; i++) {
        hand_file(&l, true);
        answers(4, body);
    }
    CHECK_IS(recover(LOG_T0 + 5000, 0), IDEM_OK);
    char file[256];
    snprintf(file, sizeof file, "%s/wal-00000000000000000001", l.path);
    CHECK_IS(access(file, F_OK), 0);
    over();
}

/* ------------------------------------------------------------------ clocks */

static void a_clock_far_off_is_believed_if_it_is_said(void **state)
{
    (void)state;
    begin();
    hand_file(&l, true);
    answers(1, "x");
    CHECK_IS(recover(LOG_T0 + INT64_C(40) * 86400000, 0), IDEM_OK);
    CHECK_IS(looked_up("k-0"), IDEM_E_NO_KEY); /* it has expired */
    support_remove(dir);
    CHECK_IS(recover(LOG_T0 - 50000, 0), IDEM_OK);
    CHECK(strstr(heard.text, "behind the newest record") != NULL);
    CHECK(strstr(heard.text, "last written 0.000 s before now") != NULL);
    over();
}

/* Somebody has removed them: what the id still names is missing, and no store is made of nothing. */
static void all_files_of_a_log_are_gone(void **state)
{
    (void)state;
    begin();
    hand_file(&l, true);
    answers(1, "x");
    CHECK_IS(recover(LOG_T0 + 5000, 0), IDEM_OK);
    support_remove(dir);
    for (uint64_t number = 1; number < 10; number++) {
        char name[IDEM_LOG_NAME_BYTES], path[300];
        idem_log_file_name(number, name);
        snprintf(path, sizeof path, "%s/%s", l.path, name);
        unlink(path);
    }
    CHECK_IS(recover(LOG_T0 + 6000, 0), IDEM_E_LOG_DAMAGED);
    CHECK(strstr(idem_error_detail(), "names it as the newest") != NULL);
    over();
}

/* Times that a log has room for, but not what comes after them: in the log, or in a store, which has three bits less. */
static void a_log_of_the_end_of_time(void **state)
{
    static const int64_t ends[] = {IDEM_WAL_TIME_MAX, ENTRY_TIME_MAX};
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        begin();
        l.now_ms = ends[i] - 1000000;
        hand_file(&l, true);
        answers(1, "x");
        CHECK_IS(recover(l.now_ms + 5000, 0), IDEM_E_LOG_DAMAGED);
        CHECK(strstr(idem_error_detail(), "a faulty program wrote it") != NULL);
        over();
    }
}

/* ------------------------------------------------------------------ somebody else's hands in it */

/* A writer that was fenced goes on: the file that is about to be made is there already. */
static int rename_too_late(int d, const char *from, const char *to)
{
    static bool inside;
    if (!inside && strncmp(to, "wal-", 4) == 0) {
        inside = true;
        passed++;
        l.at = l.f.base + l.f.bytes - IDEM_WAL_HEADER_BYTES; /* past what may have been written before */
        hand_file(&l, false);
        inside = false;
    }
    return idem_io_system.rename_at(d, from, to);
}

static void somebody_goes_on_making_files(void **state)
{
    (void)state;
    begin();
    hand_file(&l, true);
    answers(1, "x");
    calls = idem_io_system;
    calls.rename_at = rename_too_late;
    idem_io = &calls;
    passed = 0;
    int e = recover(LOG_T0 + 5000, 0);
    idem_io = &idem_io_system;
    CHECK_IS(e, IDEM_E_LOG);
    CHECK(strstr(idem_error_detail(), "somebody else goes on making files") != NULL);
    CHECK_IS(passed, 4);
    CHECK_IS(recover(LOG_T0 + 5000, 0), IDEM_OK);
    CHECK_IS(looked_up("k-0"), IDEM_REPLAY);
    over();
}

static int list_nothing_the_second_time(int d, int (*each)(void *ctx, const char *name), void *ctx)
{
    if (++passed == 2)
        CHECK_IS(idem_log_file_delete(&l.d, 1), IDEM_OK);
    return idem_io_system.list(d, each, ctx);
}

/* The store is given up for its log only if there is something in that. */
static void a_log_that_goes_before_its_store_is_replaced(void **state)
{
    (void)state;
    begin();
    hand_file(&l, false); /* the id knows of no file */
    answers(1, "x");
    idem_options o = support_options(16);
    idem_store *s = support_open(dir, &o);
    support_answer(s, "kept", 200, "x");
    calls = idem_io_system;
    calls.list = list_nothing_the_second_time;
    idem_io = &calls;
    passed = 0;
    int e = recover(LOG_T0 + 5000, IDEM_RECOVER_REPLACE);
    idem_io = &idem_io_system;
    CHECK_IS(e, IDEM_E_NO_STORE);
    CHECK_IS(support_begin(s, "kept", NULL), IDEM_REPLAY);
    idem_close(s);
    over();
}

static void what_can_not_be_recovered_says_so(void **state)
{
    (void)state;
    begin();
    CHECK_IS(recover(0, IDEM_RECOVER_CHECK_ONLY), IDEM_E_NO_STORE); /* nothing was ever written */
    idem_recovery r = recovery_of(&l, "-no-name", &heard);
    CHECK_IS(idem_recover(&r), IDEM_E_INVALID);
    char path[1200];
    memset(path, 'p', sizeof path);
    path[0] = '/';
    path[sizeof path - 1] = '\0';
    r = recovery_of(&l, dir, &heard);
    r.wal_dir = path;
    CHECK_IS(idem_recover(&r), IDEM_E_INVALID);
    CHECK(strstr(idem_error_detail(), "wal_dir") != NULL);
    over();
}

/* ------------------------------------------------------------------ a log whose store may still be there */

static void copy_of(const char *from, const char *to)
{
    pid_t pid = fork();
    if (pid == 0) {
        execlp("cp", "cp", "-a", from, to, (char *)NULL);
        _exit(1);
    }
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
}

/* What the log's `place` names is its owner only if that is a store of this id, this life, and this very directory. */
static void a_copy_of_a_log_may_go_where_it_likes(void **state)
{
    (void)state;
    char owner[160], wal[160], moved[170], other[300];
    idem_options o = support_options(16);
    snprintf(owner, sizeof owner, "%s", support_dir());
    snprintf(wal, sizeof wal, "%s", support_dir());
    snprintf(moved, sizeof moved, "%s-moved", wal);
    o.wal_dir = wal;
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_store *s = support_open(owner, &o);
    support_answer(s, "k-0", 200, "x");
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    struct idem_log_id_rec id;
    idem_stats_data st = support_stats(s);
    /* Its own. */
    idem_recovery r = IDEM_RECOVERY_INIT;
    snprintf(dir, sizeof dir, "%s", support_dir());
    r.dir = dir;
    r.wal_dir = wal;
    CHECK_IS(idem_recover(&r), IDEM_E_LOG_FOREIGN);
    /* On another file system, where numbers of files mean something else. */
    snprintf(other, sizeof other, "%s/idem-copy-%d", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp",
             (int)getpid());
    copy_of(wal, other);
    r.wal_dir = other;
    CHECK_IS(idem_recover(&r), IDEM_OK);
    CHECK_IS(looked_up("k-0"), IDEM_REPLAY);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    support_remove(other);
    /* The owner's is gone. */
    copy_of(wal, moved);
    support_remove(wal);
    r.wal_dir = moved;
    CHECK_IS(idem_recover(&r), IDEM_OK);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    idem_close(s);
    support_remove(moved);
    /* Another store lives there by now, or another life of the same one. */
    for (unsigned i = 0; i < 2; i++) {
        begin();
        if (i == 1)
            memcpy(l.f.uuid, st.store_uuid, 16);
        id = l.d.id;
        memcpy(id.uuid, l.f.uuid, 16);
        CHECK_IS(idem_log_id_replace(&l.d, &id), IDEM_OK);
        hand_file(&l, true);
        answers(1, "x");
        CHECK_IS(idem_log_place_write(&l.d, owner), IDEM_OK);
        CHECK_IS(recover(LOG_T0 + 5000, 0), IDEM_OK);
        over();
    }
    support_remove(owner);
}

/* ------------------------------------------------------------------ what a walk tells */

static unsigned told[64];
static int tell(const idem_log_record *r, void *ctx)
{
    unsigned *n = ctx;
    told[r->kind]++;
    ++*n;
    if (r->kind == REC_RETAIN)
        CHECK(r->at_wall_ms == 0 && r->expires_wall_ms == 0 && r->key.key == NULL && r->key.key_bytes == 0);
    if (r->kind == REC_TOMBSTONE)
        CHECK(r->meta_bytes == 5 && r->body_bytes == 1000 && r->body == NULL && r->expires_wall_ms == IDEM_FOREVER);
    return 0;
}

static void a_walk_tells_of_records_without_a_key_or_an_end(void **state)
{
    (void)state;
    unsigned n = 0;
    begin();
    hand_file(&l, true);
    struct idem_rec outcome = hand_answer(&l, "k", new_token(), "");
    outcome.kind = REC_TOMBSTONE;
    outcome.body = NULL;
    outcome.meta_bytes = 5;
    outcome.body_bytes = 1000;
    outcome.expiry_ms = (INT64_C(1) << 45) - 1;
    hand_add(&l, outcome);
    hand_add(&l, (struct idem_rec){.kind = REC_RETAIN, .token = 1});
    hand_flush(&l, true);
    CHECK_IS(idem_log_walk(l.path, tell, &n), IDEM_OK);
    CHECK(n == 2 && told[REC_RETAIN] == 1 && told[REC_TOMBSTONE] == 1);
    over();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_that_no_store_has_are_not_taken),
        cmocka_unit_test(settings_that_the_log_does_not_have_are_the_openers),
        cmocka_unit_test(a_small_store_that_was_full_is_made_larger),
        cmocka_unit_test(a_log_that_is_too_large_for_its_store),
        cmocka_unit_test(a_tail_that_is_larger_than_a_file),
        cmocka_unit_test(many_files_that_are_well_filled_stay),
        cmocka_unit_test(a_clock_far_off_is_believed_if_it_is_said),
        cmocka_unit_test(all_files_of_a_log_are_gone),
        cmocka_unit_test(a_log_of_the_end_of_time),
        cmocka_unit_test(somebody_goes_on_making_files),
        cmocka_unit_test(a_log_that_goes_before_its_store_is_replaced),
        cmocka_unit_test(what_can_not_be_recovered_says_so),
        cmocka_unit_test(a_copy_of_a_log_may_go_where_it_likes),
        cmocka_unit_test(a_walk_tells_of_records_without_a_key_or_an_end),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
