/*
 * tests/unit/test_recover.c - idem_recover(): a store from its log, killed anywhere and begun again; what it refuses it leaves as it was.
 */
#include "unit/recover_log.h"

#include <dirent.h>

#include "recover/scan.h"

static void a_store_comes_back(void *place)
{
    struct hand_log l;
    struct heard h;
    char log[160], dir[160];
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", (char *)place);
    snprintf(dir, sizeof dir, "%s/s", (char *)place);
    write_log(&l, log);
    idem_recovery r = recovery_of(&l, dir, &h);
    CHECK_IS(idem_recover(&r), IDEM_OK);
    CHECK_IS(r.files, 2);
    CHECK_IS(r.records, 8);
    CHECK_IS(r.keys, 4);
    CHECK_IS(r.completed, 2);
    CHECK_IS(r.lost, 2);
    CHECK_IS(r.expired, 1);
    CHECK_IS(r.forgotten, 1);
    CHECK_IS(r.cut_bytes, 0);
    what_the_log_said(dir);
    /* Once more from what it left: the same, and the file it made is the newest. */
    struct idem_scan_result s;
    CHECK_IS(idem_log_id_read(&l.d), IDEM_OK);
    idem_log_dir_close(&l.d);
    CHECK_IS(idem_log_dir_open(l.path, false, 0, &l.d), IDEM_OK);
    CHECK_IS(l.d.id.newest, 3);
    CHECK(memcmp(l.d.id.instance, l.f.instance, 16) != 0);
    CHECK_IS(idem_scan(&l.d, NULL, NULL, NULL, &s), IDEM_OK);
    CHECK_IS(s.files, 3);
    CHECK_IS(s.records, 8); /* 6 proven ones, 2 written anew; in the old file they are void now */
    support_remove(dir);
    r = recovery_of(&l, dir, &h);
    CHECK_IS(idem_recover(&r), IDEM_OK);
    CHECK_IS(r.keys, 4);
    what_the_log_said(dir);
    /* The attempt that ran is the next one's, with its mark; tokens go on past all that could have been given out. */
    idem_store *store = support_attach(dir);
    idem_claim claim;
    idem_reply reply;
    CHECK_IS(ask(store, "running", &claim, &reply), IDEM_RECLAIMED);
    CHECK_IS(reply.lost_reason, IDEM_LOST_CRASH);
    CHECK_BYTES(reply.mark, reply.mark_bytes, "half way");
    CHECK(claim.token > reply.lost_token);
    idem_reply_free(&reply);
    idem_close(store);
    hand_close(&l);
}

static void recover_once(void *recovery)
{
    idem_recover(recovery);
}

/* Killed at each point, then again without: the same. */
static void killed_anywhere(void *place)
{
    static const char *const points[] = {"recover.owned",  "create.generation", "create.root",
                                         "log.file.made",  "recover.copied",    "log.file.named",
                                         "recover.sealed", "create.renamed",    "recover.visible"};
    CHECK_IS(mkdir(place, 0700), 0);
    for (unsigned i = 0; i < sizeof points / sizeof points[0]; i++) {
        struct hand_log l;
        struct heard h;
        char log[160], dir[160];
        snprintf(log, sizeof log, "%s/l%u", (char *)place, i);
        snprintf(dir, sizeof dir, "%s/s%u", (char *)place, i);
        write_log(&l, log);
        idem_recovery r = recovery_of(&l, dir, &h);
        support_at_point(points[i], 1, support_die, NULL);
        pid_t pid = support_spawn(recover_once, &r);
        CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
        support_at_point(NULL, 0, NULL, NULL);
        int e = idem_recover(&r);
        if (i >= 7)
            CHECK_IS(e, IDEM_E_EXISTS);
        else
            CHECK_IS(e, IDEM_OK);
        what_the_log_said(dir);
        check_nothing_is_left(dir, l.path);
        hand_close(&l);
        support_remove(dir);
        support_remove(log);
    }
}

/* All names and bytes of a directory. */
static uint64_t bytes_of(const char *path)
{
    uint64_t sum = 0;
    DIR *d = opendir(path);
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char file[512];
        if (e->d_name[0] == '.')
            continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        int fd = open(file, O_RDONLY);
        uint8_t buffer[8192];
        ssize_t n;
        CHECK(fd >= 0);
        uint64_t one = XXH3_64bits(e->d_name, strlen(e->d_name));
        while ((n = read(fd, buffer, sizeof buffer)) > 0)
            one = XXH3_64bits_withSeed(buffer, (size_t)n, one);
        close(fd);
        sum += one;
    }
    closedir(d);
    return sum;
}

static void flip(const struct hand_log *l, uint64_t number, off_t at)
{
    char name[IDEM_LOG_NAME_BYTES], file[300];
    uint8_t b;
    idem_log_file_name(number, name);
    snprintf(file, sizeof file, "%s/%s", l->path, name);
    int fd = open(file, O_RDWR);
    CHECK(fd >= 0);
    CHECK_IS(pread(fd, &b, 1, at), 1);
    b ^= 4;
    CHECK_IS(pwrite(fd, &b, 1, at), 1);
    close(fd);
}

static void what_is_refused_stays_as_it_was(void *place)
{
    struct hand_log l;
    struct heard h;
    char log[160], dir[160];
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", (char *)place);
    snprintf(dir, sizeof dir, "%s/s", (char *)place);
    write_log(&l, log);
    idem_recovery r = recovery_of(&l, dir, &h);
    /* Looking changes nothing. */
    uint64_t before = bytes_of(l.path);
    r.flags = IDEM_RECOVER_CHECK_ONLY;
    CHECK_IS(idem_recover(&r), IDEM_OK);
    CHECK_IS(r.records, 8);
    CHECK(bytes_of(l.path) == before);
    CHECK(access(dir, F_OK) != 0);
    /* Is it really three years later? */
    r = recovery_of(&l, dir, &h);
    r.now_wall_ms = 0;
    CHECK_IS(idem_recover(&r), IDEM_E_INVALID);
    CHECK(strstr(idem_error_detail(), "days ago") != NULL);
    CHECK(bytes_of(l.path) == before);
    r = recovery_of(&l, dir, &h);
    CHECK_IS(idem_recover(&r), IDEM_OK);
    /* There is a store: it stays, unless it is to be replaced, and then only for a sound log. */
    CHECK_IS(idem_recover(&r), IDEM_E_EXISTS);
    idem_store *old = support_attach(dir);
    flip(&l, 1, IDEM_WAL_HEADER_BYTES + 90);
    before = bytes_of(l.path);
    r.flags = IDEM_RECOVER_REPLACE;
    CHECK_IS(idem_recover(&r), IDEM_E_LOG_DAMAGED);
    CHECK(strstr(idem_error_detail(), "wal-00000000000000000001") != NULL);
    CHECK(bytes_of(l.path) == before);
    CHECK_IS(idem_lookup(old, &(idem_key){NULL, 0, "done", 4}, NULL), IDEM_REPLAY);
    flip(&l, 1, IDEM_WAL_HEADER_BYTES + 90);
    r = recovery_of(&l, dir, &h);
    r.flags = IDEM_RECOVER_REPLACE;
    CHECK_IS(idem_recover(&r), IDEM_OK);
    CHECK_IS(r.keys, 4);
    CHECK_IS(idem_lookup(old, &(idem_key){NULL, 0, "done", 4}, NULL), IDEM_REPLAY); /* reopened */
    idem_close(old);
    what_the_log_said(dir);
    hand_close(&l);
}

/* What the old one held must come back, also if it fits no more. */
static void a_store_that_is_too_small_is_made_larger(void **state)
{
    (void)state;
    const char *place = support_dir();
    struct hand_log l;
    struct heard h;
    char log[200], dir[200], key[16];
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", place);
    snprintf(dir, sizeof dir, "%s/s", place);
    CHECK_IS(mkdir(log, 0700), 0);
    hand_open(&l, log);
    l.f.bytes = 4 << 20;
    l.f.keys = 1000;
    l.f.response_bytes = 400;
    hand_file(&l, true);
    char body[500];
    memset(body, 'x', sizeof body - 1);
    body[sizeof body - 1] = 0;
    for (unsigned i = 0; i < 1900; i++) {
        snprintf(key, sizeof key, "key-%u", i);
        hand_add(&l, hand_answer(&l, key, ((uint64_t)LOG_T0 << 16) + i, body));
        if (i % 100 == 99)
            hand_flush(&l, true);
    }
    unsigned files = open_files();
    idem_recovery r = recovery_of(&l, dir, &h);
    CHECK_IS(idem_recover(&r), IDEM_OK);
    CHECK_IS(open_files(), files);
    CHECK_IS(r.keys, 1900);
    CHECK(strstr(h.text, "keys instead") != NULL);
    support_verify(dir);
    check_nothing_is_left(dir, l.path);
    hand_close(&l);
}

/* Sound bytes of a faulty writer: sizes would be computed from them. */
static void settings_that_no_store_has_are_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 7; i++) {
        const char *place = support_dir();
        struct hand_log l;
        struct heard h;
        char dir[200];
        CHECK_IS(mkdir(place, 0700), 0);
        snprintf(dir, sizeof dir, "%s/s", place);
        hand_open(&l, place);
        uint32_t *words[] = {&l.f.response_bytes, &l.f.response_bytes, &l.f.processes,
                             &l.f.processes,      &l.f.lanes,          &l.f.lanes};
        if (i < 6)
            *words[i] = i % 2 == 0 ? UINT32_C(1) << 31 : 0;
        else
            l.f.keys = UINT64_MAX / 8;
        hand_file(&l, true);
        hand_add(&l, hand_answer(&l, "a", (uint64_t)LOG_T0 << 16, "b"));
        hand_flush(&l, true);
        uint64_t before = bytes_of(l.path);
        idem_recovery r = recovery_of(&l, dir, &h);
        CHECK_IS(idem_recover(&r), IDEM_E_LOG_DAMAGED);
        CHECK(strstr(idem_error_detail(), "no store is made with") != NULL);
        CHECK(bytes_of(l.path) == before);
        hand_close(&l);
        support_remove(place);
    }
}

/* The file that recovery would make of it is one that no recovery takes. */
static void a_time_that_the_log_has_no_room_for_is_refused(void **state)
{
    (void)state;
    char place[160], dir[200];
    struct hand_log l;
    snprintf(place, sizeof place, "%s", support_dir());
    snprintf(dir, sizeof dir, "%s/s", place);
    CHECK_IS(mkdir(place, 0700), 0);
    hand_open(&l, place);
    hand_file(&l, true);
    l.now_ms = IDEM_WAL_TIME_MAX;
    hand_add(&l, hand_answer(&l, "a", (uint64_t)LOG_T0 << 16, "b"));
    hand_flush(&l, true);
    idem_recovery r = IDEM_RECOVERY_INIT;
    r.dir = dir;
    r.wal_dir = l.path;
    r.now_wall_ms = LOG_T0;
    for (int i = 0; i < 2; i++) {
        CHECK_IS(idem_recover(&r), IDEM_E_LOG_DAMAGED);
        CHECK(strstr(idem_error_detail(), "a faulty program wrote it") != NULL);
    }
    hand_close(&l);
}

static void no_log_is_no_store(void **state)
{
    (void)state;
    const char *place = support_dir();
    struct hand_log l;
    struct heard h;
    char dir[200];
    CHECK_IS(mkdir(place, 0700), 0);
    hand_open(&l, place);
    snprintf(dir, sizeof dir, "%s/s", place);
    idem_recovery r = recovery_of(&l, dir, &h);
    CHECK_IS(idem_recover(&r), IDEM_E_NO_STORE); /* nothing was ever written */
    CHECK(access(dir, F_OK) != 0);
    r.wal_dir = "/dev/shm/idem-test-not-there";
    CHECK_IS(idem_recover(&r), IDEM_E_NO_STORE);
    r.wal_dir = place; /* a directory without a log */
    CHECK_IS(idem_recover(&r), IDEM_E_NO_STORE);
    r.flags = 64;
    CHECK_IS(idem_recover(&r), IDEM_E_INVALID);
    hand_close(&l);
}

static int two(void *ctx, const idem_progress *p)
{
    (void)p;
    return ++*(unsigned *)ctx >= 1;
}

static void progress_may_end_it_and_nothing_is_left(void **state)
{
    (void)state;
    const char *place = support_dir();
    struct hand_log l;
    struct heard h;
    char log[200], dir[200];
    unsigned n = 0;
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", place);
    snprintf(dir, sizeof dir, "%s/s", place);
    write_log(&l, log);
    idem_recovery r = recovery_of(&l, dir, &h);
    r.sentence = NULL;
    r.progress = two;
    r.ctx = &n;
    CHECK_IS(idem_recover(&r), IDEM_E_TIMEOUT);
    CHECK(access(dir, F_OK) != 0);
    r = recovery_of(&l, dir, &h);
    CHECK_IS(idem_recover(&r), IDEM_OK);
    what_the_log_said(dir);
    hand_close(&l);
}

/* Each read of the log takes 150 ms of the injected clock. */
static ssize_t slow_pread(int fd, void *to, size_t n, off_t at)
{
    support_clock_add(150);
    return pread(fd, to, n, at);
}

struct told {
    unsigned n, with_left;
    idem_progress last;
};

static int note_progress(void *ctx, const idem_progress *p)
{
    struct told *t = ctx;
    CHECK(p->bytes_done <= p->bytes_total && p->bytes_done >= t->last.bytes_done &&
          p->elapsed_ms >= t->last.elapsed_ms);
    t->n++;
    t->with_left += p->left_ms >= 0;
    t->last = *p;
    return 0;
}

static void a_slow_recovery_tells_how_long_it_will_take(void **state)
{
    (void)state;
    const char *place = support_dir();
    struct hand_log l;
    struct heard h;
    struct told told = {0};
    char log[200], dir[200];
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", place);
    snprintf(dir, sizeof dir, "%s/s", place);
    write_log(&l, log);
    struct idem_io_calls slow = idem_io_system;
    slow.pread = slow_pread;
    idem_recovery r = recovery_of(&l, dir, &h);
    r.sentence = NULL;
    r.progress = note_progress;
    r.ctx = &told;
    idem_io = &slow;
    int e = idem_recover(&r);
    idem_io = &idem_io_system;
    CHECK_IS(e, IDEM_OK);
    CHECK(told.n >= 2 && told.with_left >= 1);
    CHECK_IS(told.last.left_ms, 0);
    CHECK_IS(told.last.bytes_done, told.last.bytes_total);
    hand_close(&l);
}

/* A writer of the old segment that goes on after it was fenced: it may make the next file, and nothing of it counts. */
static void make_a_file(void *ctx)
{
    struct hand_log *l = ctx;
    static bool once;
    if (once)
        return;
    once = true;
    hand_file(l, false);
    hand_add(l, hand_claim(l, "zombie", (uint64_t)LOG_T0 << 16));
    hand_flush(l, true);
}

/* A machine that goes down again and again before anybody has used the store. */
static void reboots_without_traffic(void *place)
{
    struct hand_log l;
    struct heard h;
    char log[160], dir[160];
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", (char *)place);
    snprintf(dir, sizeof dir, "%s/s", (char *)place);
    write_log(&l, log);
    for (unsigned round = 0; round < 20; round++) {
        idem_recovery r = recovery_of(&l, dir, &h);
        static const char *const points[] = {"recover.copied", "recover.sealed", "recover.visible"};
        support_at_point(points[round % 3], 1, support_die, NULL);
        pid_t pid = support_spawn(recover_once, &r);
        CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
        support_at_point(NULL, 0, NULL, NULL);
        support_remove(dir);
        CHECK_IS(idem_recover(&r), IDEM_OK);
        CHECK_IS(r.keys, 4);
        if (round < 19)
            support_remove(dir);
        uint64_t *numbers;
        size_t n;
        CHECK_IS(idem_log_list(&l.d, &numbers, &n), IDEM_OK);
        CHECK(n <= 8);
        for (size_t i = 0; i < n; i++) { /* what is in it has room in the least there is */
            char name[IDEM_LOG_NAME_BYTES];
            struct stat st;
            idem_log_file_name(numbers[i], name);
            CHECK_IS(fstatat(l.d.fd, name, &st, 0), 0);
            CHECK(st.st_size <= 1 << 20);
        }
        free(numbers);
    }
    what_the_log_said(dir);
    hand_close(&l);
}

static void a_fenced_writer_makes_the_next_file(void **state)
{
    (void)state;
    const char *place = support_dir();
    struct hand_log l;
    struct heard h;
    char log[200], dir[200];
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", place);
    snprintf(dir, sizeof dir, "%s/s", place);
    write_log(&l, log);
    idem_recovery r = recovery_of(&l, dir, &h);
    support_at_point("recover.copied", 1, make_a_file, &l);
    CHECK_IS(idem_recover(&r), IDEM_OK);
    support_at_point(NULL, 0, NULL, NULL);
    what_the_log_said(dir);
    check_nothing_is_left(dir, l.path);
    idem_log_dir_close(&l.d);
    CHECK_IS(idem_log_dir_open(l.path, false, 0, &l.d), IDEM_OK);
    CHECK_IS(l.d.id.newest, 4);
    hand_close(&l);
}

static int count(const idem_log_record *r, void *ctx)
{
    unsigned *n = ctx;
    CHECK_IS(r->size, sizeof *r);
    CHECK(r->position >= 4096);
    if (r->kind == REC_RESPONSE && r->key.key_bytes == 4 && memcmp(r->key.key, "done", 4) == 0) {
        CHECK_BYTES(r->body, r->body_bytes, "the answer");
        CHECK_IS(r->expires_wall_ms - r->at_wall_ms, 86400000);
        CHECK_IS(r->at_wall_ms, LOG_T0 + 10 + 123);
    }
    if (r->key.scope_bytes > 0) {
        CHECK_BYTES(r->key.scope, r->key.scope_bytes, "tenant");
        CHECK_BYTES(r->key.key, r->key.key_bytes, "key");
    }
    return ++*n == 100 ? 42 : 0;
}

static void the_log_is_walked(void **state)
{
    (void)state;
    const char *place = support_dir();
    struct hand_log l;
    unsigned n = 0;
    write_log(&l, place);
    struct idem_rec scoped = hand_claim(&l, "tenantkey", (uint64_t)LOG_T0 << 16);
    scoped.scope_bytes = 6;
    hand_add(&l, scoped);
    hand_flush(&l, true);
    CHECK_IS(idem_log_walk(l.path, count, &n), IDEM_OK);
    CHECK_IS(n, 9);
    n = 99;
    CHECK_IS(idem_log_walk(l.path, count, &n), 42);
    CHECK_IS(idem_log_walk("relative", count, &n), IDEM_E_INVALID);
    CHECK_IS(idem_log_walk(NULL, count, &n), IDEM_E_INVALID);
    hand_close(&l);
}

PROMISE(a_store_comes_back, "recover.tail", "recover.unowned", "recover.time", NULL)
PROMISE(killed_anywhere, "recover.tail", NULL)
PROMISE(reboots_without_traffic, "recover.gap", "recover.crowd", NULL)
PROMISE(what_is_refused_stays_as_it_was, "recover.unread", NULL)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_store_comes_back),
        cmocka_unit_test(test_killed_anywhere),
        cmocka_unit_test(test_reboots_without_traffic),
        cmocka_unit_test(test_what_is_refused_stays_as_it_was),
        cmocka_unit_test(a_store_that_is_too_small_is_made_larger),
        cmocka_unit_test(settings_that_no_store_has_are_refused),
        cmocka_unit_test(a_time_that_the_log_has_no_room_for_is_refused),
        cmocka_unit_test(no_log_is_no_store),
        cmocka_unit_test(progress_may_end_it_and_nothing_is_left),
        cmocka_unit_test(a_slow_recovery_tells_how_long_it_will_take),
        cmocka_unit_test(a_fenced_writer_makes_the_next_file),
        cmocka_unit_test(the_log_is_walked),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
