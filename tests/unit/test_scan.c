/*
 * tests/unit/test_scan.c - reading a log: what is sound comes back in order, a torn tail is cut and said, everything else that is wrong is refused with
 * the name of its file. Truncation at every byte and single-bit flips of a small log: a prefix, or a refusal; never silence.
 */
#include "unit/wal_log.h"

#include <errno.h>
#include <sys/stat.h>

#include "recover/scan.h"

#define SEEN_MAX 64

struct seen {
    unsigned n, sentences;
    uint64_t position[SEEN_MAX], token[SEEN_MAX];
    char last[512];
};

static int note(void *ctx, const struct idem_rec *r, uint64_t file)
{
    struct seen *s = ctx;
    CHECK(file > 0);
    CHECK(s->n < SEEN_MAX);
    s->position[s->n] = r->position;
    s->token[s->n++] = r->token;
    return 0;
}

static void hear(void *ctx, const char *text)
{
    struct seen *s = ctx;
    s->sentences++;
    snprintf(s->last, sizeof s->last, "%s", text);
}

/* As recovery does it: the id too is read anew. */
static int read_log(const char *path, struct seen *s, struct idem_scan_result *r)
{
    struct idem_log_dir d;
    idem_recovery hooks = IDEM_RECOVERY_INIT;
    memset(s, 0, sizeof *s);
    memset(r, 0, sizeof *r);
    hooks.sentence = hear;
    hooks.ctx = s;
    int e = idem_log_dir_open(path, false, 0, &d);
    if (e != IDEM_OK)
        return e;
    e = idem_scan(&d, note, s, &hooks, r);
    idem_log_dir_close(&d);
    return e;
}

static void put_byte(const char *path, const char *name, long at, int xor_with)
{
    char file[256];
    snprintf(file, sizeof file, "%s/%s", path, name);
    int fd = open(file, O_RDWR);
    uint8_t b;
    CHECK(fd >= 0);
    CHECK(pread(fd, &b, 1, at) == 1);
    b = (uint8_t)(b ^ xor_with);
    CHECK(pwrite(fd, &b, 1, at) == 1);
    close(fd);
}

static void name_of(const char *path, uint64_t number, char file[256])
{
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(number, name);
    snprintf(file, 256, "%s/%s", path, name);
}

static void damage(const char *path, uint64_t number, uint64_t offset)
{
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(number, name);
    put_byte(path, name, (long)offset, 0x10);
}

static void refused(const char *path, int with, const char *word)
{
    struct seen s;
    struct idem_scan_result r;
    CHECK_IS(read_log(path, &s, &r), with);
    if (strstr(idem_error_detail(), word) == NULL)
        fprintf(stderr, "no '%s' in: %s\n", word, idem_error_detail());
    CHECK(strstr(idem_error_detail(), word) != NULL);
}

/* Three files: 1 with two batches, 2 with one and a void one behind, 3 with two, of which the last is not vouched for. Tokens are 1 ... 8. */
#define SOUND  8u
#define PROVEN 6u
static void write_log(struct hand_log *l, const char *dir, uint32_t file_bytes)
{
    CHECK_IS(mkdir(dir, 0700), 0);
    hand_open(l, dir);
    l->f.bytes = file_bytes;
    hand_file(l, true);
    hand_add(l, hand_claim(l, "one", 1));
    hand_add(l, hand_claim(l, "two", 2));
    hand_flush(l, true);
    hand_add(l, hand_answer(l, "one", 3, "the answer"));
    hand_flush(l, true);
    hand_file(l, true);
    hand_add(l, hand_answer(l, "two", 4, "another answer"));
    hand_flush(l, true);
    hand_add(l, hand_claim(l, "void", 99));
    hand_flush(l, false);
    hand_file(l, true);
    hand_add(l, hand_claim(l, "three", 5));
    hand_add(l, hand_claim(l, "four", 6));
    hand_flush(l, true);
    hand_add(l, hand_claim(l, "five", 7));
    hand_add(l, hand_answer(l, "five", 8, "a tail"));
    hand_flush(l, true);
}

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

/* ------------------------------------------------------------------ large, slow, failing */

static void a_record_larger_than_the_window(void **state)
{
    (void)state;
    const char *dir = support_dir();
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r;
    size_t n = 9 << 20;
    char *body = malloc(n + 1);
    CHECK(body != NULL);
    memset(body, 'x', n);
    body[n] = 0;
    CHECK_IS(mkdir(dir, 0700), 0);
    hand_open(&l, dir);
    free(l.bytes);
    l.room = 16 << 20;
    l.bytes = malloc(l.room);
    l.f.bytes = 16 << 20;
    hand_file(&l, true);
    hand_add(&l, hand_claim(&l, "small", 1));
    hand_add(&l, hand_answer(&l, "large", 2, body));
    hand_add(&l, hand_claim(&l, "after", 3));
    hand_flush(&l, true);
    CHECK_IS(read_log(l.path, &s, &r), IDEM_OK);
    CHECK_IS(s.n, 3);
    CHECK_IS(s.token[2], 3);
    hand_close(&l);
    free(body);
}

static int end_it(void *ctx, const idem_progress *p)
{
    unsigned *calls = ctx;
    CHECK(p->bytes_done <= p->bytes_total);
    return ++*calls >= 1;
}

static void progress_may_end_it(void **state)
{
    (void)state;
    struct hand_log l;
    struct idem_scan_result r;
    unsigned n = 0;
    idem_recovery hooks = IDEM_RECOVERY_INIT;
    write_log(&l, support_dir(), LOG_FILE_BYTES);
    hooks.progress = end_it;
    hooks.ctx = &n;
    CHECK_IS(idem_scan(&l.d, NULL, NULL, &hooks, &r), IDEM_E_TIMEOUT);
    CHECK_IS(n, 1);
    hand_close(&l);
}

static struct idem_io_calls failing;
static unsigned calls, fail_at;

static ssize_t f_pread(int fd, void *to, size_t n, off_t at)
{
    if (++calls == fail_at) {
        errno = EIO;
        return -1;
    }
    return idem_io_system.pread(fd, to, n, at);
}

static void a_read_error_is_said_and_no_end(void **state)
{
    (void)state;
    struct hand_log l;
    struct seen s;
    struct idem_scan_result r;
    write_log(&l, support_dir(), LOG_FILE_BYTES);
    failing = idem_io_system;
    failing.pread = f_pread;
    idem_io = &failing;
    unsigned tries = 0;
    int e = IDEM_E_LOG;
    for (fail_at = 1; e != IDEM_OK && fail_at < 100; fail_at++, tries++) {
        calls = 0;
        e = read_log(l.path, &s, &r);
        CHECK(e == IDEM_OK || e == IDEM_E_LOG);
        if (e != IDEM_OK)
            CHECK(strstr(idem_error_detail(), "Input/output error") != NULL);
    }
    idem_io = &idem_io_system;
    CHECK_IS(e, IDEM_OK);
    CHECK(tries > 6);
    hand_close(&l);
}

/* ------------------------------------------------------------------ every byte, every bit */

struct model {
    struct seen whole;
    unsigned refusals, prefixes, untouched;
};

/* A prefix or a refusal in words; a shorter prefix is said. */
static void judge(const char *path, struct model *m, const char *what, long at)
{
    struct seen s;
    struct idem_scan_result r;
    int e = read_log(path, &s, &r);
    bool fine = true;
    if (e == IDEM_OK) {
        for (unsigned i = 0; i < s.n; i++)
            fine &= i < m->whole.n && s.position[i] == m->whole.position[i] && s.token[i] == m->whole.token[i];
        fine &= s.n >= PROVEN;
        fine &= s.n == m->whole.n || (r.cut_bytes > 0 && s.sentences > 0);
        if (s.n == m->whole.n)
            m->untouched++;
        else
            m->prefixes++;
    } else {
        fine = (e == IDEM_E_LOG_DAMAGED || e == IDEM_E_VERSION || e == IDEM_E_LOG_FOREIGN) &&
               strstr(idem_error_detail(), path) != NULL;
        m->refusals++;
    }
    if (!fine)
        fprintf(stderr, "%s at %ld: %d records, error %d: %s\n", what, at, (int)s.n, e, idem_error_detail());
    CHECK(fine);
}

static void truncation_at_every_byte(void *dir)
{
    struct hand_log l;
    struct model m = {0};
    struct idem_scan_result r;
    write_log(&l, dir, 2 * IDEM_WAL_HEADER_BYTES);
    CHECK_IS(read_log(l.path, &m.whole, &r), IDEM_OK);
    CHECK_IS(m.whole.n, SOUND);
    for (uint64_t n = 1; n <= 3; n++) {
        char file[256];
        uint8_t bytes[2 * IDEM_WAL_HEADER_BYTES];
        name_of(l.path, n, file);
        int fd = open(file, O_RDWR);
        CHECK(fd >= 0);
        CHECK_IS(pread(fd, bytes, sizeof bytes, 0), sizeof bytes);
        for (long at = sizeof bytes - 1; at >= 0; at -= n == 3 ? 1 : 7) {
            CHECK_IS(ftruncate(fd, at), 0);
            judge(l.path, &m, file, at);
        }
        CHECK_IS(pwrite(fd, bytes, sizeof bytes, 0), sizeof bytes);
        close(fd);
    }
    CHECK_IS(m.prefixes + m.untouched, 0); /* a file is as long as its header says, or damaged */
    hand_close(&l);
}

static void every_bit_flip(void *dir)
{
    struct hand_log l;
    struct model m = {0};
    struct idem_scan_result r;
    write_log(&l, dir, 2 * IDEM_WAL_HEADER_BYTES);
    CHECK_IS(read_log(l.path, &m.whole, &r), IDEM_OK);
    for (uint64_t n = 0; n <= 3; n++) {
        char file[256], name[IDEM_LOG_NAME_BYTES] = "id";
        uint8_t bytes[2 * IDEM_WAL_HEADER_BYTES];
        if (n > 0)
            idem_log_file_name(n, name);
        snprintf(file, sizeof file, "%s/%s", l.path, name);
        int fd = open(file, O_RDONLY);
        CHECK(fd >= 0);
        ssize_t size = pread(fd, bytes, sizeof bytes, 0);
        close(fd);
        for (long at = 0; at < size; at++) {
            bool written = false; /* something lies in this grain: each bit; else one a byte */
            for (long i = at & ~63L; i < (at | 63) + 1; i++)
                written |= bytes[i] != 0;
            for (int bit = 0; bit < 8; bit++) {
                if (!written && !support_long() && bit != at % 8)
                    continue;
                put_byte(l.path, name, at, 1 << bit);
                judge(l.path, &m, file, at * 8 + bit);
                put_byte(l.path, name, at, 1 << bit);
            }
        }
    }
    CHECK(m.refusals > 10000);
    CHECK(m.prefixes > 1000);
    hand_close(&l);
}

#define PROMISE(name, ...)                                 \
    static void test_##name(void **state)                  \
    {                                                      \
        (void)state;                                       \
        static const char *const faults[] = {__VA_ARGS__}; \
        support_promise(name, faults);                     \
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
PROMISE(truncation_at_every_byte, "scan.open", NULL)
PROMISE(every_bit_flip, "scan.cuts", "scan.silent", NULL)

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
        cmocka_unit_test(a_record_larger_than_the_window),
        cmocka_unit_test(progress_may_end_it),
        cmocka_unit_test(a_read_error_is_said_and_no_end),
        cmocka_unit_test(test_truncation_at_every_byte),
        cmocka_unit_test(test_every_bit_flip),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
