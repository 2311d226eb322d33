/*
 * tests/unit/test_recover.c - idem_recover(): a store from its log, killed anywhere and begun again; what it refuses it leaves as it was.
 */
#include "unit/wal_log.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

#include "recover/scan.h"
#include "segment/layout.h"

struct heard {
    unsigned n;
    char text[4096];
};

static void hear(void *ctx, const char *text)
{
    struct heard *h = ctx;
    h->n++;
    size_t used = strlen(h->text);
    snprintf(h->text + used, sizeof h->text - used, "%s\n", text);
}

/* A log with all kinds of records; the last batch is vouched for by nobody. Its tokens are store times, as real ones. */
static void write_log(struct hand_log *l, const char *dir)
{
    CHECK_IS(mkdir(dir, 0700), 0);
    hand_open(l, dir);
    hand_file(l, true);
    uint64_t t = (uint64_t)LOG_T0 << 16;
    hand_add(l, hand_claim(l, "done", t));
    struct idem_rec running = hand_claim(l, "running", t + 1);
    running.mark = (const uint8_t *)"half way";
    running.mark_bytes = 8;
    hand_add(l, running);
    hand_flush(l, true);
    hand_add(l, hand_answer(l, "done", t, "the answer"));
    struct idem_rec gone = hand_answer(l, "expired", t + 2, "old");
    gone.expiry_ms = LOG_T0 + 1000;
    hand_add(l, gone);
    hand_flush(l, true);
    hand_file(l, true);
    hand_add(l, hand_answer(l, "forgotten", t + 3, "forget it"));
    hand_flush(l, true);
    struct idem_rec forget = hand_claim(l, "forgotten", t + 3);
    forget.kind = REC_FORGOTTEN;
    forget.state = REC_GONE;
    hand_add(l, forget);
    hand_flush(l, true);
    hand_add(l, hand_answer(l, "tail", t + 4, "a tail"));
    hand_add(l, hand_claim(l, "torn", t + 5));
    hand_flush(l, true);
}

static idem_recovery recovery_of(const struct hand_log *l, const char *dir, struct heard *h)
{
    idem_recovery r = IDEM_RECOVERY_INIT;
    memset(h, 0, sizeof *h);
    r.dir = dir;
    r.wal_dir = l->path;
    r.now_wall_ms = LOG_T0 + 5000;
    r.sentence = hear;
    r.ctx = h;
    return r;
}

static int ask(idem_store *store, const char *key, idem_claim *claim, idem_reply *reply)
{
    idem_request rq = support_request(key);
    rq.fingerprint = 7;
    *reply = (idem_reply)IDEM_REPLY_INIT;
    return idem_begin(store, &rq, claim, reply);
}

static void what_the_log_said(const char *dir)
{
    idem_store *store = support_attach(dir);
    idem_claim claim;
    idem_reply reply;
    CHECK_IS(ask(store, "done", &claim, &reply), IDEM_REPLAY);
    CHECK_BYTES(reply.body, reply.body_bytes, "the answer");
    CHECK(reply.age_ms >= 4000 && reply.age_ms < 600000); /* time went on while the machine was away */
    idem_reply_free(&reply);
    CHECK_IS(ask(store, "tail", &claim, &reply), IDEM_REPLAY);
    idem_reply_free(&reply);
    CHECK_IS(idem_lookup(store, &(idem_key){NULL, 0, "running", 7}, NULL), IDEM_UNKNOWN);
    CHECK_IS(idem_lookup(store, &(idem_key){NULL, 0, "expired", 7}, NULL), IDEM_E_NO_KEY);
    CHECK_IS(idem_lookup(store, &(idem_key){NULL, 0, "forgotten", 9}, NULL), IDEM_E_NO_KEY);
    idem_close(store);
    support_verify(dir);
}

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
    idem_recovery r = recovery_of(&l, dir, &h);
    CHECK_IS(idem_recover(&r), IDEM_OK);
    CHECK_IS(r.keys, 1900);
    CHECK(strstr(h.text, "keys instead") != NULL);
    support_verify(dir);
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
    idem_log_dir_close(&l.d);
    CHECK_IS(idem_log_dir_open(l.path, false, 0, &l.d), IDEM_OK);
    CHECK_IS(l.d.id.newest, 4);
    hand_close(&l);
}

/* ------------------------------------------------------------------ each system call fails once */

static struct idem_io_calls failing;
static unsigned calls, fail_at;
static int fail_with;

static bool fails(void)
{
    if (++calls != fail_at)
        return false;
    errno = fail_with;
    return true;
}
static int f_open_at(int d, const char *n, int fl, mode_t m)
{
    return fails() ? -1 : idem_io_system.open_at(d, n, fl, m);
}
static ssize_t f_pread(int fd, void *to, size_t n, off_t at)
{
    return fails() ? -1 : idem_io_system.pread(fd, to, n, at);
}
static ssize_t f_pwrite(int fd, const void *from, size_t n, off_t at)
{
    return fails() ? -1 : idem_io_system.pwrite(fd, from, n > 700 ? 700 : n, at);
}
static int f_fdatasync(int fd)
{
    return fails() ? -1 : idem_io_system.fdatasync(fd);
}
static int f_fsync(int fd)
{
    return fails() ? -1 : idem_io_system.fsync(fd);
}
static int f_fallocate(int fd, off_t n)
{
    return fails() ? -1 : idem_io_system.fallocate(fd, n);
}
static int f_fstat(int fd, struct stat *st)
{
    return fails() ? -1 : idem_io_system.fstat(fd, st);
}
static int f_stat_at(int d, const char *n, struct stat *st)
{
    return fails() ? -1 : idem_io_system.stat_at(d, n, st);
}
static int f_rename_at(int d, const char *from, const char *to)
{
    return fails() ? -1 : idem_io_system.rename_at(d, from, to);
}
static int f_replace_at(int d, const char *from, const char *to)
{
    return fails() ? -1 : idem_io_system.replace_at(d, from, to);
}
static int f_hold_dir(int d)
{
    return fails() ? -1 : idem_io_system.hold_dir(d);
}
static int f_list(int d, int (*each)(void *ctx, const char *name), void *ctx)
{
    return fails() ? -1 : idem_io_system.list(d, each, ctx);
}

static int recover_failing(idem_recovery *r, unsigned at, int with)
{
    failing = idem_io_system;
    failing.open_at = f_open_at;
    failing.pread = f_pread;
    failing.pwrite = f_pwrite;
    failing.fdatasync = f_fdatasync;
    failing.fsync = f_fsync;
    failing.fallocate = f_fallocate;
    failing.fstat = f_fstat;
    failing.stat_at = f_stat_at;
    failing.rename_at = f_rename_at;
    failing.replace_at = f_replace_at;
    failing.hold_dir = f_hold_dir;
    failing.list = f_list;
    calls = 0;
    fail_at = at;
    fail_with = with;
    idem_io = &failing;
    int e = idem_recover(r);
    idem_io = &idem_io_system;
    return e;
}

/* An error in words, or it did not matter; the next one brings back the same. */
static void each_call_fails_once(void *place)
{
    static const int with[] = {EIO, ENOSPC};
    unsigned errors = 0, total = 0;
    CHECK_IS(mkdir(place, 0700), 0);
    for (unsigned w = 0; w < 2; w++) {
        bool reached = true;
        for (unsigned at = 1; reached && at < 400; at++) {
            struct hand_log l;
            struct heard h;
            char log[160], dir[160];
            snprintf(log, sizeof log, "%s/l", (char *)place);
            snprintf(dir, sizeof dir, "%s/s", (char *)place);
            write_log(&l, log);
            idem_recovery r = recovery_of(&l, dir, &h);
            int e = recover_failing(&r, at, with[w]);
            reached = calls >= at;
            if (e != IDEM_OK) {
                errors++;
                CHECK(idem_error_detail()[0] != '\0');
                CHECK(access(dir, F_OK) != 0); /* no store, and no directory of one */
                e = idem_recover(&r);
                if (e != IDEM_OK)
                    fprintf(stderr, "call %u: then %d: %s\n", at, e, idem_error_detail());
                CHECK_IS(e, IDEM_OK);
            }
            what_the_log_said(dir);
            /* What it has written is a log that brings back the same. */
            support_remove(dir);
            CHECK_IS(idem_recover(&r), IDEM_OK);
            what_the_log_said(dir);
            hand_close(&l);
            support_remove(dir);
            support_remove(log);
            total++;
        }
        CHECK(!reached);
    }
    CHECK(errors > 60 && errors < total);
}

/* ------------------------------------------------------------------ with a living store */

static idem_options logged(const char *log)
{
    idem_options o = support_options(1000);
    o.wal_dir = log;
    o.wal_file_bytes = 1 << 20;
    o.durability_claim = IDEM_DURABILITY_SYNC;
    return o;
}

/* As after a reboot: the root is from another boot. */
static void age_root(const char *dir)
{
    char file[300];
    struct idem_root_const f;
    snprintf(file, sizeof file, "%s/root", dir);
    int fd = open(file, O_RDWR);
    CHECK(fd >= 0);
    off_t at = offsetof(struct idem_root_shm, fixed);
    CHECK_IS(pread(fd, &f, sizeof f, at), sizeof f);
    f.boot_id[0] = f.boot_id[0] == 'a' ? 'b' : 'a';
    f.checksum = XXH3_64bits(&f, sizeof f - sizeof f.checksum);
    CHECK_IS(pwrite(fd, &f, sizeof f, at), sizeof f);
    close(fd);
}

static void opening_brings_it_back(void *place)
{
    char log[160], dir[160];
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", (char *)place);
    snprintf(dir, sizeof dir, "%s/s", (char *)place);
    idem_options o = logged(log);
    uint64_t token = 0;
    uint8_t uuid[16] = {0};
    for (unsigned round = 0; round < 4; round++) {
        idem_store *store = support_open(dir, &o);
        idem_stats_data stats = support_stats(store);
        if (round > 0)
            CHECK(memcmp(uuid, stats.store_uuid, 16) == 0);
        memcpy(uuid, stats.store_uuid, 16);
        idem_claim claim;
        idem_reply reply = IDEM_REPLY_INIT;
        char key[16];
        for (unsigned r = 0; r < round; r++) { /* what earlier rounds left */
            snprintf(key, sizeof key, "done-%u", r);
            idem_request rq = support_request(key);
            CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_REPLAY);
            CHECK_BYTES(reply.body, reply.body_bytes, "kept");
            idem_reply_free(&reply);
        }
        idem_request rq = support_request("running");
        int verdict = idem_begin(store, &rq, &claim, &reply);
        CHECK_IS(verdict, round == 0 ? IDEM_CLAIMED : IDEM_RECLAIMED);
        CHECK_IS(claim.attempt, round + 1);
        CHECK(claim.token > token);
        token = claim.token;
        if (round > 0) {
            CHECK_IS(reply.lost_reason, IDEM_LOST_CRASH);
            CHECK_BYTES(reply.mark, reply.mark_bytes, "half way");
        }
        idem_reply_free(&reply);
        CHECK_IS(idem_mark(store, &claim, "half way", 8), IDEM_OK);
        snprintf(key, sizeof key, "done-%u", round);
        support_answer(store, key, 200, "kept");
        CHECK_IS(idem_sync(store, 0), IDEM_OK);
        if (round % 2 == 0) { /* the machine goes down: nobody closes anything, the root is of another boot */
            age_root(dir);
        } else { /* somebody removes the segment, and we are still there */
            support_remove(dir);
        }
        idem_close(store);
    }
    /* Destroyed: nothing comes back. */
    idem_store *store = support_open(dir, &o);
    idem_close(store);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    store = support_open(dir, &o);
    idem_claim claim;
    CHECK_IS(support_begin(store, "done-0", &claim), IDEM_CLAIMED);
    idem_close(store);
}

/* Who still has the old segment mapped writes into a log that is not his any more: he can't acknowledge anything. */
static void the_old_segment_is_fenced(void **state)
{
    (void)state;
    const char *place = support_dir();
    char log[160], dir[160];
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", place);
    snprintf(dir, sizeof dir, "%s/s", place);
    idem_options o = logged(log);
    o.flags |= IDEM_OPEN_FAIL_STALE;
    idem_store *old = support_open(dir, &o);
    idem_claim claim;
    CHECK_IS(support_begin(old, "k", &claim), IDEM_CLAIMED);
    support_remove(dir);
    idem_store *fresh = support_open(dir, &o);
    int e = support_complete(old, &claim, 200, "late");
    CHECK(e == IDEM_E_STALE || e == IDEM_E_LOG);
    idem_claim again;
    CHECK_IS(support_begin(fresh, "k", &again), IDEM_RECLAIMED);
    CHECK(again.token > claim.token);
    CHECK_IS(support_complete(fresh, &again, 200, "right"), IDEM_OK);
    idem_close(old);
    idem_close(fresh);
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
    return ++*n == 100 ? 42 : 0;
}

static void the_log_is_walked(void **state)
{
    (void)state;
    const char *place = support_dir();
    struct hand_log l;
    unsigned n = 0;
    write_log(&l, place);
    CHECK_IS(idem_log_walk(l.path, count, &n), IDEM_OK);
    CHECK_IS(n, 8);
    n = 99;
    CHECK_IS(idem_log_walk(l.path, count, &n), 42);
    CHECK_IS(idem_log_walk("relative", count, &n), IDEM_E_INVALID);
    CHECK_IS(idem_log_walk(NULL, count, &n), IDEM_E_INVALID);
    hand_close(&l);
}

#define PROMISE(name, ...)                                 \
    static void test_##name(void **state)                  \
    {                                                      \
        (void)state;                                       \
        static const char *const faults[] = {__VA_ARGS__}; \
        support_promise(name, faults);                     \
    }

PROMISE(a_store_comes_back, "recover.tail", "recover.unowned", "recover.time", NULL)
PROMISE(killed_anywhere, "recover.tail", NULL)
PROMISE(each_call_fails_once, "recover.tail", NULL)
PROMISE(opening_brings_it_back, "recover.unowned", NULL)
PROMISE(what_is_refused_stays_as_it_was, "recover.unread", NULL)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_store_comes_back),
        cmocka_unit_test(test_killed_anywhere),
        cmocka_unit_test(test_what_is_refused_stays_as_it_was),
        cmocka_unit_test(a_store_that_is_too_small_is_made_larger),
        cmocka_unit_test(no_log_is_no_store),
        cmocka_unit_test(progress_may_end_it_and_nothing_is_left),
        cmocka_unit_test(a_fenced_writer_makes_the_next_file),
        cmocka_unit_test(test_each_call_fails_once),
        cmocka_unit_test(test_opening_brings_it_back),
        cmocka_unit_test(the_old_segment_is_fenced),
        cmocka_unit_test(the_log_is_walked),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
