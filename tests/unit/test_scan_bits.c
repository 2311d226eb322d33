/*
 * tests/unit/test_scan_bits.c - truncation at every byte and single-bit flips of a small log: a prefix, or a refusal; never silence. And logs that are
 * large, slow, or can't be read.
 */
#include "unit/scan_log.h"

#include <errno.h>

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

PROMISE(truncation_at_every_byte, "scan.open", NULL)
PROMISE(every_bit_flip, "scan.cuts", "scan.silent", NULL)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_larger_than_the_window),
        cmocka_unit_test(progress_may_end_it),
        cmocka_unit_test(a_read_error_is_said_and_no_end),
        cmocka_unit_test(test_truncation_at_every_byte),
        cmocka_unit_test(test_every_bit_flip),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
