/*
 * tests/unit/test_scan.c - reading a log: what is sound comes back in order, a torn tail is cut and said, everything else that is wrong is refused
 * with the name of its file.
 */
#include "unit/scan_log.h"

static void what_was_written_comes_back(void *dir)
{
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r;
    write_log(&l, dir, LOG_FILE_BYTES);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    CHECK_IS(s.n, SOUND);
    for (unsigned i = 0; i < s.n; i++)
        CHECK_IS(s.token[i], i + 1);
    CHECK_IS(r.end, SCAN_CLEAN);
    CHECK_IS(r.files, 3);
    CHECK_IS(r.batches, 5);
    CHECK_IS(r.records, SOUND);
    CHECK_IS(r.end_at, l.at);
    CHECK_IS(r.proven, s.position[6] - IDEM_WAL_BATCH_BYTES);
    CHECK_IS(r.newest.number, 3);
    CHECK_IS(r.first, 1);
    CHECK_IS(r.last.store_ms, l.now_ms - 10);
    CHECK_IS(r.last.wall_ms, l.now_ms - 10 + 123);
    CHECK_IS(r.last.ceiling_ms, l.now_ms - 10 + 60000);
    CHECK_IS(s.sentences, 0);
    /* The tail: what nobody vouches for. */
    memset(&s, 0, sizeof s);
    CHECK_IS(idem_scan_tail(&l.d, &r, note, &s), IDEM_OK);
    CHECK_IS(s.n, 2);
    CHECK_IS(s.token[0], 7);
    CHECK_IS(s.token[1], 8);
    hand_close(&l);
}

static void a_torn_tail_is_cut_and_said(void *dir)
{
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r;
    write_log(&l, dir, LOG_FILE_BYTES);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    uint64_t second = IDEM_WAL_HEADER_BYTES + (s.position[7] - r.newest.base);
    damage(l.path, 3, second + 90);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    CHECK_IS(s.n, SOUND - 1); /* the record before it in the same batch is kept */
    CHECK_IS(r.end, SCAN_TORN);
    CHECK_IS(r.cut_bytes, l.at - r.end_at);
    CHECK_IS(s.sentences, 1);
    CHECK(strstr(s.last, "wal-00000000000000000003") != NULL);
    hand_close(&l);
}

/* Sectors of an unsynced write persist in any order: the batch is there, one of its records is not, or only the end of one. */
static void a_tail_with_holes_is_torn(void *dir)
{
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r;
    uint8_t zeros[IDEM_WAL_GRAIN] = {0};
    char file[256];
    write_log(&l, dir, LOG_FILE_BYTES);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    uint64_t first = IDEM_WAL_HEADER_BYTES + (s.position[6] - r.newest.base);
    uint64_t end = IDEM_WAL_HEADER_BYTES + (l.at - r.newest.base);
    name_of(l.path, 3, file);
    int fd = open(file, O_RDWR);
    CHECK(fd >= 0);
    for (uint64_t at = end - IDEM_WAL_GRAIN; at >= first; at -= IDEM_WAL_GRAIN) {
        CHECK_IS(pwrite(fd, zeros, sizeof zeros, (off_t)at), sizeof zeros);
        CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
        CHECK(s.n >= PROVEN && s.n < SOUND);
        CHECK_IS(r.end, at > first ? SCAN_TORN : r.end);
    }
    close(fd);
    hand_close(&l);
}

static void damage_in_the_middle_is_refused(void *dir)
{
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r;
    write_log(&l, dir, LOG_FILE_BYTES);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    struct seen whole = s;
    /* In the last file, below what a later batch vouches for: a record, a batch header. */
    uint64_t third = IDEM_WAL_HEADER_BYTES + (whole.position[4] - r.newest.base);
    char where[64];
    damage(l.path, 3, third + 30);
    snprintf(where, sizeof where, "at byte %llu (position %llu)", (unsigned long long)third,
             (unsigned long long)whole.position[4]);
    refused(l.path, IDEM_E_LOG_DAMAGED, where);
    refused(l.path, IDEM_E_LOG_DAMAGED, "wal-00000000000000000003");
    damage(l.path, 3, third + 30);
    damage(l.path, 3, third - IDEM_WAL_BATCH_BYTES + 20);
    refused(l.path, IDEM_E_LOG_DAMAGED, "batch");
    damage(l.path, 3, third - IDEM_WAL_BATCH_BYTES + 20);
    /* In an earlier one, and zeros there. */
    damage(l.path, 1, IDEM_WAL_HEADER_BYTES + 100);
    refused(l.path, IDEM_E_LOG_DAMAGED, "wal-00000000000000000001");
    damage(l.path, 1, IDEM_WAL_HEADER_BYTES + 100);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    CHECK_IS(s.n, SOUND);
    hand_close(&l);
}

static void what_is_void_is_not_read(void *dir)
{
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r;
    write_log(&l, dir, LOG_FILE_BYTES);
    /* The void batch of file 2 is the second: damaged or not, it does not matter. */
    struct idem_file_rec f;
    int fd;
    CHECK_IS(idem_log_file_open(&l.d, 3, NULL, false, &f, &fd), IDEM_OK);
    close(fd);
    uint64_t end = f.prev_end;
    CHECK_IS(idem_log_file_open(&l.d, 2, NULL, false, &f, &fd), IDEM_OK);
    close(fd);
    damage(l.path, 2, IDEM_WAL_HEADER_BYTES + (end - f.base) + 70);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    CHECK_IS(s.n, SOUND);
    for (unsigned i = 0; i < s.n; i++)
        CHECK(s.token[i] != 99);
    hand_close(&l);
}

static void missing_and_foreign_files_are_refused(void *dir)
{
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r;
    char file[256], away[256];
    write_log(&l, dir, LOG_FILE_BYTES);
    snprintf(away, sizeof away, "%s/away", l.path);
    for (uint64_t n = 1; n <= 3; n++) {
        char word[64];
        name_of(l.path, n, file);
        CHECK_IS(rename(file, away), 0);
        snprintf(word, sizeof word, "wal-%020llu: missing", (unsigned long long)n);
        refused(l.path, IDEM_E_LOG_DAMAGED, word);
        CHECK_IS(rename(away, file), 0);
    }
    /* Another file under a number: of the same store, but not the one that came before. */
    struct idem_file_rec f, other;
    int fd;
    CHECK_IS(idem_log_file_open(&l.d, 2, NULL, false, &f, &fd), IDEM_OK);
    close(fd);
    name_of(l.path, 2, file);
    CHECK_IS(rename(file, away), 0);
    other = f;
    other.salt++;
    CHECK_IS(idem_log_file_make(&l.d, &other, &fd), IDEM_OK);
    CHECK_IS(idem_log_file_publish(&l.d, &other, fd), IDEM_OK);
    close(fd);
    refused(l.path, IDEM_E_LOG_DAMAGED, "wal-00000000000000000003");
    CHECK_IS(idem_log_file_delete(&l.d, 2), IDEM_OK);
    memset(other.uuid, 0x5a, 16);
    CHECK_IS(idem_log_file_make(&l.d, &other, &fd), IDEM_OK);
    CHECK_IS(idem_log_file_publish(&l.d, &other, fd), IDEM_OK);
    close(fd);
    refused(l.path, IDEM_E_LOG_FOREIGN, "wal-00000000000000000002");
    CHECK_IS(idem_log_file_delete(&l.d, 2), IDEM_OK);
    CHECK_IS(rename(away, file), 0);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    /* A later version. */
    uint8_t header[IDEM_WAL_HEADER_BYTES];
    f.major = 2;
    idem_file_encode(&f, header);
    fd = open(file, O_RDWR);
    CHECK(fd >= 0);
    CHECK_IS(pwrite(fd, header, sizeof header, 0), sizeof header);
    close(fd);
    refused(l.path, IDEM_E_VERSION, "wal-00000000000000000002");
    hand_close(&l);
}

static void old_files_may_be_gone(void *dir)
{
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r;
    char file[256];
    CHECK_IS(mkdir(dir, 0700), 0);
    hand_open(&l, dir);
    for (unsigned i = 1; i <= 5; i++) {
        hand_file(&l, true);
        hand_add(&l, hand_claim(&l, "k", i));
        hand_flush(&l, true);
    }
    struct idem_rec retain = {.kind = REC_RETAIN, .token = 4};
    hand_add(&l, retain);
    hand_flush(&l, true);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    CHECK_IS(s.n, 6);
    CHECK_IS(r.oldest_needed, 4);
    for (uint64_t n = 1; n <= 3; n++) { /* deleted in part, in any order */
        name_of(l.path, n == 1 ? 2 : n == 2 ? 1 : 3, file);
        CHECK_IS(unlink(file), 0);
        CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
        CHECK_IS(s.n, n == 3 ? 3 : 4);
        CHECK_IS(r.first, n == 3 ? 4 : 3);
    }
    name_of(l.path, 4, file);
    CHECK_IS(unlink(file), 0);
    refused(l.path, IDEM_E_LOG_DAMAGED, "wal-00000000000000000004: missing");
    hand_close(&l);
}

struct deleting {
    struct hand_log *l;
    unsigned n;
    uint64_t number;
};

static int delete_one(void *ctx, const struct idem_rec *r, uint64_t file)
{
    struct deleting *d = ctx;
    (void)r;
    d->n++;
    if (file == 1)
        CHECK_IS(idem_log_file_delete(&d->l->d, d->number), IDEM_OK);
    return 0;
}

/* Beside a living store: what it may delete may go while we read, and nothing else. */
static void files_go_while_they_are_read(void *dir)
{
    struct hand_log l;
    struct idem_scan_result r;
    CHECK_IS(mkdir(dir, 0700), 0);
    hand_open(&l, dir);
    for (unsigned i = 1; i <= 5; i++) {
        hand_file(&l, true);
        hand_add(&l, hand_claim(&l, "k", i));
        hand_flush(&l, true);
    }
    struct idem_rec retain = {.kind = REC_RETAIN, .token = 4};
    hand_add(&l, retain);
    hand_flush(&l, true);
    struct deleting d = {&l, 0, 2};
    CHECK_IS(idem_scan(&l.d, delete_one, &d, NULL, &r), IDEM_OK);
    CHECK_IS(d.n, 5);
    CHECK_IS(r.first, 3);
    hand_close(&l);
    char other[200];
    snprintf(other, sizeof other, "%s/e", (char *)dir);
    CHECK_IS(mkdir(other, 0700), 0);
    hand_open(&l, other);
    for (unsigned i = 1; i <= 5; i++) {
        hand_file(&l, true);
        hand_add(&l, hand_claim(&l, "k", i));
        hand_flush(&l, true);
    }
    d = (struct deleting){&l, 0, 2};
    CHECK_IS(idem_scan(&l.d, delete_one, &d, NULL, &r), IDEM_E_LOG_DAMAGED);
    CHECK(strstr(idem_error_detail(), "wal-00000000000000000002: missing") != NULL);
    hand_close(&l);
}

static void a_record_of_an_unknown_kind(void *dir)
{
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r;
    CHECK_IS(mkdir(dir, 0700), 0);
    hand_open(&l, dir);
    hand_file(&l, true);
    struct idem_rec rec = {.kind = 40, .flags = REC_OPTIONAL, .key = (const uint8_t *)"k", .key_bytes = 1};
    hand_add(&l, rec);
    hand_add(&l, hand_claim(&l, "k", 1));
    hand_flush(&l, true);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    CHECK_IS(s.n, 2);
    rec.flags = 0;
    hand_add(&l, rec);
    hand_flush(&l, true);
    refused(l.path, IDEM_E_VERSION, "wal-00000000000000000001: at byte");
    hand_close(&l);
}

/* A right checksum, and yet it can't be: that is no torn write. */
static void a_faulty_writer_is_not_a_torn_tail(void *dir)
{
    struct hand_log l;
    CHECK_IS(mkdir(dir, 0700), 0);
    hand_open(&l, dir);
    hand_file(&l, true);
    hand_add(&l, hand_claim(&l, "k", 1));
    l.records++;
    hand_flush(&l, true);
    refused(l.path, IDEM_E_LOG_DAMAGED, "faulty");
    hand_close(&l);
}

/* Each is sound by itself. */
static void headers_that_contradict_each_other_are_refused(void **state)
{
    (void)state;
    static const char *const words[] = {"does not name number and salt", "does not name number and salt", "positions",
                                        "positions", "positions"};
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++) {
        struct hand_log l;
        uint8_t head[IDEM_WAL_HEADER_BYTES];
        char file[300];
        const char *dir = support_dir();
        CHECK_IS(mkdir(dir, 0700), 0);
        hand_open(&l, dir);
        for (unsigned k = 1; k <= 3; k++) {
            hand_file(&l, true);
            hand_add(&l, hand_claim(&l, "k", k));
            hand_flush(&l, true);
        }
        struct idem_file_rec f = l.f; /* the last one's */
        if (i == 0)
            f.prev_number = 1;
        else if (i == 1)
            f.prev_salt++;
        else if (i == 2)
            f.base = f.prev_end = 64; /* before the one before it begins */
        else if (i == 3)
            f.prev_end = 64;
        else
            f.base = f.prev_end = l.f.base + LOG_FILE_BYTES; /* past the end of the one before it */
        idem_file_encode(&f, head);
        snprintf(file, sizeof file, "%s/wal-00000000000000000003", l.path);
        int fd = open(file, O_WRONLY | O_CLOEXEC);
        CHECK_IS(pwrite(fd, head, sizeof head, 0), sizeof head);
        close(fd);
        refused(l.path, IDEM_E_LOG_DAMAGED, words[i]);
        CHECK(strstr(idem_error_detail(), "wal-00000000000000000003") != NULL);
        hand_close(&l);
    }
}

static void the_id_says_whose_it_is(void *dir)
{
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r;
    char id[256];
    write_log(&l, dir, LOG_FILE_BYTES);
    snprintf(id, sizeof id, "%s/id", l.path);
    CHECK_IS(unlink(id), 0);
    refused(l.path, IDEM_E_LOG_DAMAGED, "/id: missing");
    int fd = open(id, O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0);
    close(fd);
    refused(l.path, IDEM_E_LOG_DAMAGED, "/id: empty");
    /* Of a log that was never written to. */
    struct hand_log empty;
    char other[200];
    snprintf(other, sizeof other, "%s/e", (char *)dir);
    CHECK_IS(mkdir(other, 0700), 0);
    hand_open(&empty, other);
    CHECK_IS(read_log(empty.path, &s, &r), IDEM_OK);
    CHECK_IS(r.first, 0);
    CHECK_IS(r.records, 0);
    hand_close(&empty);
    hand_close(&l);
}

PROMISE(what_was_written_comes_back, "scan.void", NULL)
PROMISE(a_torn_tail_is_cut_and_said, "scan.silent", NULL)
PROMISE(a_tail_with_holes_is_torn, "scan.holes", NULL)
PROMISE(damage_in_the_middle_is_refused, "scan.cuts", NULL)
PROMISE(what_is_void_is_not_read, "scan.void", NULL)
PROMISE(missing_and_foreign_files_are_refused, "scan.chain", NULL)
PROMISE(old_files_may_be_gone, "scan.retain", NULL)
PROMISE(files_go_while_they_are_read, "scan.vanished", NULL)
PROMISE(a_record_of_an_unknown_kind, "scan.unknown", NULL)
PROMISE(a_faulty_writer_is_not_a_torn_tail, "scan.cuts", NULL)
PROMISE(the_id_says_whose_it_is, "scan.id", NULL)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_written_comes_back),
        cmocka_unit_test(test_a_torn_tail_is_cut_and_said),
        cmocka_unit_test(test_a_tail_with_holes_is_torn),
        cmocka_unit_test(test_damage_in_the_middle_is_refused),
        cmocka_unit_test(test_what_is_void_is_not_read),
        cmocka_unit_test(test_missing_and_foreign_files_are_refused),
        cmocka_unit_test(test_old_files_may_be_gone),
        cmocka_unit_test(test_files_go_while_they_are_read),
        cmocka_unit_test(test_a_record_of_an_unknown_kind),
        cmocka_unit_test(test_a_faulty_writer_is_not_a_torn_tail),
        cmocka_unit_test(test_the_id_says_whose_it_is),
        cmocka_unit_test(headers_that_contradict_each_other_are_refused),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
