/*
 * tests/unit/test_scan_odd.c - logs that nobody writes, or that change while they are read: sound bytes in the wrong place or number, files that are
 * full to their last byte, exchanged, cut or gone between two looks, and a disk that fails.
 */
#include "unit/scan_log.h"

#include "recover/window.h"
#include "unit/wal_fail.h"

static void begin(struct hand_log *l)
{
    const char *dir = support_dir();
    CHECK_IS(mkdir(dir, 0700), 0);
    hand_open(l, dir);
}

/* So many claims in one batch. */
static void claims(struct hand_log *l, unsigned n, uint64_t token)
{
    for (unsigned i = 0; i < n; i++)
        hand_add(l, hand_claim(l, "k", token + i));
}

static void a_retain_can_not_need_a_later_file(void **state)
{
    (void)state;
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r;
    begin(&l);
    hand_file(&l, true);
    claims(&l, 1, 1);
    hand_add(&l, (struct idem_rec){.kind = REC_RETAIN, .token = 9});
    hand_flush(&l, true);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    CHECK_IS(s.n, 2);
    CHECK_IS(r.oldest_needed, 1);
    hand_close(&l);
}

static void the_tail_is_what_was_there_when_it_was_judged(void **state)
{
    (void)state;
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r, none;
    write_log(&l, support_dir(), LOG_FILE_BYTES);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    claims(&l, 1, 9); /* by one who was fenced */
    hand_flush(&l, true);
    memset(&s, 0, sizeof s);
    CHECK_IS(idem_scan_tail(&l.d, &r, note, &s), IDEM_OK);
    CHECK_IS(s.n, 2);
    CHECK_IS(s.token[1], 8);
    /* None at all. */
    memset(&s, 0, sizeof s);
    none = r;
    none.end_at = none.proven;
    CHECK_IS(idem_scan_tail(&l.d, &none, note, &s), IDEM_OK);
    none = r;
    none.first = 0;
    CHECK_IS(idem_scan_tail(&l.d, &none, note, &s), IDEM_OK);
    CHECK_IS(s.n, 0);
    /* It was, but is not there any more. */
    damage(l.path, 3, IDEM_WAL_HEADER_BYTES + (r.proven - r.newest.base) + 100);
    CHECK_IS(idem_scan_tail(&l.d, &r, note, &s), IDEM_E_LOG_DAMAGED);
    CHECK(strstr(idem_error_detail(), "lost its end") != NULL);
    hand_close(&l);
}

static void a_batch_has_as_many_records_as_it_says(void **state)
{
    (void)state;
    struct hand_log l;
    begin(&l);
    hand_file(&l, true);
    claims(&l, 3, 1);
    l.records--;
    hand_flush(&l, true);
    refused(l.path, IDEM_E_LOG_DAMAGED, "faulty");
    hand_close(&l);
}

static void an_end_in_the_middle_of_a_batch_is_damage(void **state)
{
    (void)state;
    struct hand_log l;
    begin(&l);
    hand_file(&l, true);
    claims(&l, 3, 1);
    hand_flush(&l, true);
    l.durable -= IDEM_WAL_GRAIN;
    hand_file(&l, true);
    refused(l.path, IDEM_E_LOG_DAMAGED, "the next file says that all was on the disk");
    hand_close(&l);
}

static void an_unknown_kind_in_an_old_file_needs_its_version(void **state)
{
    (void)state;
    struct hand_log l;
    begin(&l);
    hand_file(&l, true);
    hand_add(&l, (struct idem_rec){.kind = 40, .key = (const uint8_t *)"k", .key_bytes = 1});
    hand_flush(&l, true);
    hand_file(&l, true);
    refused(l.path, IDEM_E_VERSION, "wal-00000000000000000001: at byte");
    hand_close(&l);
}

/* Of all that is sound behind the damage, what says most counts. */
static void the_farthest_of_later_writes_vouches(void **state)
{
    (void)state;
    struct hand_log l;
    char word[64];
    begin(&l);
    hand_file(&l, true);
    claims(&l, 1, 1);
    hand_flush(&l, true);
    claims(&l, 1, 2);
    hand_flush(&l, true);
    uint64_t durable = l.durable;
    for (unsigned i = 0; i < 2; i++) { /* the second one says less */
        claims(&l, 1, 3 + i);
        hand_flush(&l, false);
        l.durable = durable - IDEM_WAL_BATCH_BYTES - 128;
    }
    damage(l.path, 1, IDEM_WAL_HEADER_BYTES + IDEM_WAL_BATCH_BYTES + 90);
    snprintf(word, sizeof word, "on the disk up to position %llu", (unsigned long long)durable);
    refused(l.path, IDEM_E_LOG_DAMAGED, word);
    hand_close(&l);
}

static void a_file_may_be_full_to_its_last_byte(void **state)
{
    (void)state;
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r;
    begin(&l);
    l.f.bytes = 2 * IDEM_WAL_HEADER_BYTES;
    hand_file(&l, true);
    claims(&l, 31, 1);                                               /* of 128 bytes each, */
    hand_add(&l, (struct idem_rec){.kind = REC_RETAIN, .token = 1}); /* and one of 64 */
    hand_flush(&l, true);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    CHECK_IS(s.n, 32);
    CHECK_IS(r.end, SCAN_CLEAN);
    CHECK_IS(r.end_at, l.f.base + IDEM_WAL_HEADER_BYTES);
    hand_close(&l);
}

static void a_batch_of_another_position_is_a_faulty_writers(void **state)
{
    (void)state;
    struct hand_log l;
    begin(&l);
    hand_file(&l, true);
    claims(&l, 1, 1);
    hand_flush(&l, true);
    l.at += IDEM_WAL_GRAIN; /* to the same offset, by a wrong base */
    l.f.base += IDEM_WAL_GRAIN;
    claims(&l, 1, 2);
    hand_flush(&l, true);
    refused(l.path, IDEM_E_LOG_DAMAGED, "faulty");
    hand_close(&l);
}

/* ------------------------------------------------------------------ what changes between two looks */

static struct {
    unsigned looks, from; /* large reads so far; from which one on a byte is another */
    uint64_t at;
} decay;

static ssize_t pread_decaying(int fd, void *to, size_t n, off_t at)
{
    ssize_t got = idem_io_system.pread(fd, to, n, at);
    if (n > IDEM_WAL_HEADER_BYTES && ++decay.looks >= decay.from)
        ((uint8_t *)to)[decay.at - (uint64_t)at] ^= 1;
    return got;
}

/* What gets worse from look to look comes to an end, too. */
static void a_disk_that_decays_while_it_is_read(void **state)
{
    (void)state;
    struct hand_log l;
    begin(&l);
    hand_file(&l, true);
    for (unsigned i = 0; i < 3; i++) {
        claims(&l, 2, 1 + 2 * i);
        hand_flush(&l, true);
    }
    uint64_t second = IDEM_WAL_HEADER_BYTES + IDEM_WAL_BATCH_BYTES + 2 * 128;
    damage(l.path, 1, second + IDEM_WAL_BATCH_BYTES + 128 + 90); /* its second record */
    refused(l.path, IDEM_E_LOG_DAMAGED, "the record");
    decay.looks = 0;
    decay.from = 4;
    decay.at = second + 20;
    failing = idem_io_system;
    failing.pread = pread_decaying;
    idem_io = &failing;
    refused(l.path, IDEM_E_LOG_DAMAGED, "the batch");
    idem_io = &idem_io_system;
    CHECK_IS(decay.looks, 4);
    hand_close(&l);
}

static char exchanged[256], with[256];
static unsigned opens;
static int open_exchanged(int dir, const char *name, int flags, mode_t mode)
{
    if (strstr(exchanged, name) != NULL && strncmp(name, "wal-", 4) == 0 && ++opens == 2)
        CHECK_IS(rename(with, exchanged), 0);
    return idem_io_system.open_at(dir, name, flags, mode);
}

static void a_file_that_is_exchanged_for_a_shorter_one(void **state)
{
    (void)state;
    struct hand_log l;
    struct idem_file_rec f;
    int fd;
    begin(&l);
    hand_file(&l, true);
    for (unsigned i = 0; i < 40; i++) {
        claims(&l, 1, 1 + i);
        hand_flush(&l, true);
    }
    CHECK(l.at - l.f.base > IDEM_WAL_HEADER_BYTES);
    f = l.f;
    hand_file(&l, true);
    name_of(l.path, 1, exchanged);
    snprintf(with, sizeof with, "%s/shorter", l.path);
    CHECK_IS(rename(exchanged, with), 0);
    f.bytes = 2 * IDEM_WAL_HEADER_BYTES;
    CHECK_IS(idem_log_file_make(&l.d, &f, &fd), IDEM_OK);
    CHECK_IS(idem_log_file_publish(&l.d, &f, fd), IDEM_OK);
    close(fd);
    char kept[256];
    snprintf(kept, sizeof kept, "%s/kept", l.path); /* the short one is to come at the second look */
    CHECK(rename(exchanged, kept) == 0 && rename(with, exchanged) == 0 && rename(kept, with) == 0);
    failing = idem_io_system;
    failing.open_at = open_exchanged;
    idem_io = &failing;
    opens = 0;
    refused(l.path, IDEM_E_LOG_DAMAGED, "wal-00000000000000000001: at byte 4096 ");
    idem_io = &idem_io_system;
    CHECK_IS(opens, 2);
    hand_close(&l);
}

/* Beside a living store, which deletes what it does not need between our listing and our opening. */
static struct hand_log *listed;
static int list_then_delete(int dir, int (*each)(void *ctx, const char *name), void *ctx)
{
    int r = idem_io_system.list(dir, each, ctx);
    CHECK_IS(idem_log_file_delete(&listed->d, 1), IDEM_OK);
    return r;
}
static int stat_fails(int dir, const char *name, struct stat *st)
{
    static unsigned n;
    if (strncmp(name, "wal-00000000000000000001", 24) != 0 || ++n == 1) /* the first one finds that it is gone */
        return idem_io_system.stat_at(dir, name, st);
    errno = EIO;
    return -1;
}

static void a_file_that_goes_after_it_was_listed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct hand_log l;
        struct seen s;
        struct idem_scan_result r;
        begin(&l);
        for (unsigned k = 1; k <= 3; k++) {
            hand_file(&l, true);
            claims(&l, 1, k);
            hand_flush(&l, true);
        }
        hand_add(&l, (struct idem_rec){.kind = REC_RETAIN, .token = i == 1 ? 1 : 2});
        hand_flush(&l, true);
        listed = &l;
        failing = idem_io_system;
        failing.list = list_then_delete;
        if (i == 2) /* whether it is gone can't be told */
            failing.stat_at = stat_fails;
        idem_io = &failing;
        CHECK_IS(read_log(l.path, &s, &r), i == 0 ? IDEM_OK : IDEM_E_LOG_DAMAGED);
        idem_io = &idem_io_system;
        if (i == 0)
            CHECK(r.first == 2 && s.n == 3);
        else
            CHECK(strstr(idem_error_detail(), "wal-00000000000000000001") != NULL);
        hand_close(&l);
    }
}

/* ------------------------------------------------------------------ files larger than a window */

/* A file of more than two windows; first: bytes of the batch before all others, which shifts them. */
static void large_log(struct hand_log *l, bool shifted)
{
    begin(l);
    l->f.bytes = 3 * IDEM_WINDOW_BYTES;
    hand_file(l, true);
    if (shifted) {
        claims(l, 1, 1);
        hand_flush(l, true);
    }
    claims(l, 6000, 2);
    hand_flush(l, true);
    claims(l, 2000, 7000);
    hand_flush(l, true);
}

static int count(void *ctx, const struct idem_rec *r, uint64_t file)
{
    (void)r;
    (void)file;
    ++*(unsigned *)ctx;
    return 0;
}

static void each_read_fails_once(void **state)
{
    (void)state;
    for (unsigned shifted = 0; shifted < 2; shifted++) {
        struct hand_log l;
        struct idem_scan_result r;
        unsigned n = 0, failures = 0;
        large_log(&l, shifted);
        for (unsigned nth = 1;; nth++) {
            n = 0;
            fail_nth(nth, EIO);
            int e = idem_scan(&l.d, count, &n, NULL, &r);
            idem_io = &idem_io_system;
            if (calls < nth) {
                CHECK_IS(e, IDEM_OK);
                break;
            }
            CHECK_IS(e, IDEM_E_LOG);
            CHECK(strstr(idem_error_detail(), "wal-00000000000000000001") != NULL);
            failures++;
        }
        CHECK_IS(n, 8000 + shifted);
        CHECK(failures >= 5); /* the header twice, and each window */
        hand_close(&l);
    }
}

struct cutter {
    const char *path;
    unsigned n;
};
static int cut(void *ctx, const struct idem_rec *r, uint64_t file)
{
    struct cutter *c = ctx;
    char name[256];
    (void)r;
    name_of(c->path, file, name);
    if (c->n++ == 0)
        CHECK_IS(truncate(name, 100000), 0);
    return 0;
}

static void a_file_that_is_cut_while_it_is_read(void **state)
{
    (void)state;
    struct hand_log l;
    struct idem_scan_result r;
    large_log(&l, false);
    struct cutter c = {l.path, 0};
    CHECK_IS(idem_scan(&l.d, cut, &c, NULL, &r), IDEM_E_LOG_DAMAGED);
    CHECK(strstr(idem_error_detail(), "it was cut while it was read") != NULL);
    CHECK(c.n > 0 && c.n < 8000);
    hand_close(&l);
}

static idem_progress told;
static int hear_progress(void *ctx, const idem_progress *p)
{
    (void)ctx;
    told = *p;
    return 0;
}

/* How long it will take can't be said before anything was done. */
static void a_pace_is_told_when_there_is_one(void **state)
{
    (void)state;
    struct idem_pace p;
    idem_recovery hooks = IDEM_RECOVERY_INIT;
    hooks.progress = hear_progress;
    idem_pace_begin(&p, &hooks, 1000);
    p.began_ms -= 1000;
    CHECK_IS(idem_pace_tell(&p, true), IDEM_OK);
    CHECK_IS(told.left_ms, -1);
    p.done = 500;
    CHECK_IS(idem_pace_tell(&p, true), IDEM_OK);
    CHECK(told.left_ms >= 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_retain_can_not_need_a_later_file),
        cmocka_unit_test(the_tail_is_what_was_there_when_it_was_judged),
        cmocka_unit_test(a_batch_has_as_many_records_as_it_says),
        cmocka_unit_test(an_end_in_the_middle_of_a_batch_is_damage),
        cmocka_unit_test(an_unknown_kind_in_an_old_file_needs_its_version),
        cmocka_unit_test(the_farthest_of_later_writes_vouches),
        cmocka_unit_test(a_file_may_be_full_to_its_last_byte),
        cmocka_unit_test(a_batch_of_another_position_is_a_faulty_writers),
        cmocka_unit_test(a_disk_that_decays_while_it_is_read),
        cmocka_unit_test(a_file_that_is_exchanged_for_a_shorter_one),
        cmocka_unit_test(a_file_that_goes_after_it_was_listed),
        cmocka_unit_test(each_read_fails_once),
        cmocka_unit_test(a_file_that_is_cut_while_it_is_read),
        cmocka_unit_test(a_pace_is_told_when_there_is_one),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
