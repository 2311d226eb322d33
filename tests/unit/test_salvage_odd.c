/*
 * tests/unit/test_salvage_odd.c - a salvage grain by grain: logs whose headers, batches and records are damaged, contradict each other or can't be
 * read, in ways that no crash leaves behind. What is sound is kept, what is lost is counted, and it always comes to an end.
 */
#include "unit/recovery_of.h"

#include "unit/refused_calls.h"

#include <errno.h>
#include <sys/stat.h>

#include "recover/salvage.h"
#include "recover/window.h"

struct outcome {
    int e;
    struct idem_scan_result r;
    uint64_t damaged, lost;
    unsigned records; /* handed on */
    int after;        /* so many, each record is refused */
    struct heard h;
};

static int each_record(void *ctx, const struct idem_rec *r, uint64_t file)
{
    struct outcome *o = ctx;
    (void)file;
    CHECK(r->kind == REC_CLAIM);
    o->records++;
    return o->after > 0 && o->records > (unsigned)o->after ? IDEM_E_FULL : IDEM_OK;
}

static void salvage_into(struct hand_log *l, struct outcome *o)
{
    idem_recovery hooks = IDEM_RECOVERY_INIT;
    struct idem_salvage_list list = {0};
    hooks.sentence = hear;
    hooks.ctx = &o->h;
    o->e = idem_salvage(&l->d, each_record, o, &hooks, &o->r, &o->damaged, &o->lost, &list);
    free(list.numbers);
}

static struct outcome salvage_of(struct hand_log *l)
{
    struct outcome o = {0};
    salvage_into(l, &o);
    CHECK_IS(o.e, IDEM_OK);
    return o;
}

static void begin(struct hand_log *l)
{
    const char *dir = support_dir();
    CHECK_IS(mkdir(dir, 0700), 0);
    hand_open(l, dir);
}

/* Records of 128 bytes each. */
static void claims(struct hand_log *l, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        hand_add(l, hand_claim(l, "k", 1 + i));
}

static void one_batch(struct hand_log *l, unsigned n, bool synced)
{
    claims(l, n);
    hand_flush(l, synced);
}

static void overwrite(const struct hand_log *l, uint64_t number, uint64_t at, const void *bytes, size_t n)
{
    char name[IDEM_LOG_NAME_BYTES], file[256];
    idem_log_file_name(number, name);
    snprintf(file, sizeof file, "%s/%s", l->path, name);
    int fd = open(file, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_IS(pwrite(fd, bytes, n, (off_t)at), n);
    close(fd);
}

static const uint8_t zeros[IDEM_WAL_HEADER_BYTES];
static void without_header(const struct hand_log *l, uint64_t number)
{
    overwrite(l, number, 0, zeros, sizeof zeros);
}

#define FIRST  (IDEM_WAL_HEADER_BYTES)
#define RECORD 128u

/* ------------------------------------------------------------------ kinds */

static void only_what_says_something_is_handed_on(void **state)
{
    (void)state;
    struct hand_log l;
    begin(&l);
    hand_file(&l, true);
    claims(&l, 1);
    hand_add(&l, (struct idem_rec){.kind = REC_RETAIN, .token = 1});
    hand_add(&l, (struct idem_rec){.kind = REC_FILL, .flags = REC_OPTIONAL, .more = zeros, .more_bytes = 48});
    hand_add(&l, (struct idem_rec){.kind = 40, .key = (const uint8_t *)"k", .key_bytes = 1}); /* a later version's */
    claims(&l, 1);
    hand_flush(&l, true);
    one_batch(&l, 1, false);
    one_batch(&l, 1, false); /* it says no more than the one before it */
    struct outcome o = salvage_of(&l);
    CHECK_IS(o.records, 4);
    CHECK_IS(o.r.records, 6);
    CHECK_IS(o.damaged, 0);
    CHECK_IS(o.lost, 0);
    hand_close(&l);
}

/* Who can't take a record ends the salvage, in whatever file. */
static void an_error_of_who_is_told_ends_it(void **state)
{
    (void)state;
    struct hand_log l;
    begin(&l);
    for (unsigned i = 0; i < 2; i++) {
        hand_file(&l, true);
        one_batch(&l, 2, true);
    }
    struct outcome o = {.after = 1};
    salvage_into(&l, &o);
    CHECK_IS(o.e, IDEM_E_FULL);
    CHECK_IS(o.records, 2);
    hand_close(&l);
}

/* The list of what is damaged needs some, whatever it is: a record, a batch, a file that the next one does not know. */
static void memory_that_is_refused_ends_it(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct hand_log l;
        unsigned errors = 0;
        begin(&l);
        hand_file(&l, true);
        one_batch(&l, 3, true);
        one_batch(&l, 3, true);
        if (i == 2)
            l.f.salt ^= 1;
        hand_file(&l, true);
        if (i < 2)
            overwrite(&l, 1, FIRST + (i == 0 ? IDEM_WAL_BATCH_BYTES : IDEM_WAL_BATCH_BYTES + 2 * RECORD) + 30, "XX", 2);
        for (unsigned nth = 1; nth < 8; nth++) {
            struct outcome o = {0};
            refuse(REFUSE_realloc, nth, ENOMEM);
            salvage_into(&l, &o);
            refuse_nothing();
            CHECK(o.e == IDEM_OK || o.e == IDEM_E_MEMORY);
            errors += o.e != IDEM_OK;
        }
        CHECK(errors >= 3); /* the names, the window, the list */
        hand_close(&l);
    }
}

/* ------------------------------------------------------------------ headers */

static void a_file_that_the_next_one_does_not_know(void **state)
{
    (void)state;
    struct hand_log l;
    begin(&l);
    for (unsigned i = 0; i < 3; i++) {
        if (i == 2)
            l.f.salt ^= 1; /* what the third names */
        hand_file(&l, true);
        one_batch(&l, 2, true);
    }
    struct outcome o = salvage_of(&l);
    CHECK(strstr(o.h.text, "wal-00000000000000000002: not the file that the next one followed") != NULL);
    CHECK_IS(o.records, 6); /* all the same */
    CHECK_IS(o.damaged, 1);
    hand_close(&l);
}

static void clocks_that_went_back_between_two_files(void **state)
{
    (void)state;
    struct hand_log l;
    begin(&l);
    hand_file(&l, true);
    hand_file(&l, true); /* of the same moment: its ceiling is the same */
    int64_t newest_ms = l.now_ms + 10;
    one_batch(&l, 1, true);
    one_batch(&l, 1, true);
    l.now_ms -= 100000;
    hand_file(&l, true);
    struct outcome o = salvage_of(&l);
    CHECK_IS(o.r.last.store_ms, newest_ms);
    CHECK_IS(o.r.last.ceiling_ms, newest_ms + 60000);
    hand_close(&l);
}

/* Nothing in it says where it lies. */
static void a_file_of_which_nothing_is_sound(void **state)
{
    (void)state;
    struct hand_log l;
    static uint8_t noise[LOG_FILE_BYTES];
    memset(noise, 0x77, sizeof noise);
    begin(&l);
    for (unsigned i = 0; i < 3; i++) {
        hand_file(&l, true);
        one_batch(&l, 2, true);
    }
    overwrite(&l, 2, 0, noise, sizeof noise);
    struct outcome o = salvage_of(&l);
    CHECK(strstr(o.h.text, "bytes 4096 to 16384 (at unknown positions) are lost") != NULL);
    CHECK_IS(o.records, 4);
    CHECK(o.lost > 0);
    CHECK(o.r.end_at >= l.at); /* what is written next lies past all that may have been in it */
    char file[256];
    snprintf(file, sizeof file, "%s/wal-00000000000000000002", l.path);
    CHECK_IS(truncate(file, 100), 0);
    o = salvage_of(&l);
    CHECK_IS(o.records, 4);
    CHECK(o.damaged > 0);
    hand_close(&l);
}

/* All of it was void: before its first byte, or from there on. What is sound in it tells only where it lies. */
static void a_file_without_a_header_that_was_void_as_a_whole(void **state)
{
    (void)state;
    for (unsigned before = 0; before < 2; before++) {
        struct hand_log l;
        begin(&l);
        hand_file(&l, true);
        one_batch(&l, 2, true);
        if (before)
            one_batch(&l, 40, false); /* more than a header's length */
        hand_file(&l, true);
        one_batch(&l, 2, false);
        one_batch(&l, 2, false);
        hand_file(&l, true);
        one_batch(&l, 1, true);
        without_header(&l, 2);
        overwrite(&l, 2, FIRST + 20, "XX", 2);
        struct outcome o = salvage_of(&l);
        CHECK_IS(o.records, 4 + before * 40); /* where the void of the file before it begins is not known any more */
        CHECK(o.damaged >= 1);
        hand_close(&l);
    }
}

/* Positions that can't be: a file's first byte has one, and it ends before the last there is. */
static void sound_bytes_at_impossible_positions(void **state)
{
    (void)state;
    static const uint64_t positions[] = {0, IDEM_WAL_POSITION_MAX};
    for (unsigned i = 0; i < 4; i++) {
        struct hand_log l;
        uint8_t bytes[512];
        uint64_t n = IDEM_WAL_BATCH_BYTES;
        begin(&l);
        for (unsigned k = 0; k < 3; k++) {
            hand_file(&l, true);
            one_batch(&l, 4, true);
        }
        uint64_t salt = SALT * 2;
        without_header(&l, 2);
        memset(bytes, 0, sizeof bytes);
        if (i < 2) {
            struct idem_batch_rec b = {.position = positions[i], .bytes = IDEM_WAL_BATCH_BYTES};
            idem_batch_encode(&b, salt, bytes);
        } else {
            struct idem_rec r = hand_claim(&l, "k", 1);
            r.position = positions[i - 2];
            n = idem_rec_encode(&r, salt, bytes);
        }
        overwrite(&l, 2, FIRST, "XXXXXXXXXXXXXXXX", 16); /* its first batch's header */
        overwrite(&l, 2, FIRST + IDEM_WAL_BATCH_BYTES, bytes, n);
        struct outcome o = salvage_of(&l);
        CHECK(o.records >= 8 + 2 && o.records <= 8 + 4);
        CHECK(o.r.end_at < IDEM_WAL_POSITION_MAX / 2);
        hand_close(&l);
    }
}

/* ------------------------------------------------------------------ batches */

/* The last write: its header came to the disk, its records did not. */
static void what_a_header_promised_counts_as_lost(void **state)
{
    (void)state;
    struct hand_log l;
    begin(&l);
    hand_file(&l, true);
    one_batch(&l, 1, true);
    uint64_t second = FIRST + (l.at - l.f.base);
    one_batch(&l, 3, true);
    overwrite(&l, 1, second + IDEM_WAL_BATCH_BYTES, zeros, 3 * RECORD);
    struct outcome o = salvage_of(&l);
    CHECK_IS(o.records, 1);
    CHECK_IS(o.lost, 3);
    CHECK_IS(o.r.cut_bytes, 3 * RECORD);
    hand_close(&l);
}

static void a_batch_that_has_more_than_it_says(void **state)
{
    (void)state;
    struct hand_log l;
    begin(&l);
    hand_file(&l, true);
    claims(&l, 2);
    l.records = 1;
    hand_flush(&l, true);
    overwrite(&l, 1, FIRST + IDEM_WAL_BATCH_BYTES + RECORD + 30, "XX", 2);
    struct outcome o = salvage_of(&l);
    CHECK_IS(o.records, 1);
    CHECK_IS(o.lost, 1);
    hand_close(&l);
}

static void lengths_that_can_not_be(void **state)
{
    (void)state;
    struct hand_log l;
    static const uint8_t huge[4] = {0xff, 0xff, 0xff, 0x7f};
    begin(&l);
    hand_file(&l, true);
    one_batch(&l, 5, true);
    overwrite(&l, 1, FIRST + IDEM_WAL_BATCH_BYTES + 8, zeros, 4);
    overwrite(&l, 1, FIRST + IDEM_WAL_BATCH_BYTES + 2 * RECORD + 8, huge, 4);
    struct outcome o = salvage_of(&l);
    CHECK_IS(o.records, 3);
    CHECK_IS(o.damaged, 2);
    hand_close(&l);
}

/* ------------------------------------------------------------------ a disk that can't be read */

static uint64_t bad_from, bad_to; /* offsets */
static ssize_t pread_but_there(int fd, void *to, size_t n, off_t at)
{
    uint64_t from = (uint64_t)at;
    if (from < bad_from && from + n > bad_from)
        n = bad_from - from; /* as the kernel does: what lies before it comes */
    if (from >= bad_from && from < bad_to) {
        errno = EIO;
        return -1;
    }
    return idem_io_system.pread(fd, to, n, at);
}

/* It costs what lies in it, and not the window around it. */
static void blocks_that_can_not_be_read(void **state)
{
    (void)state;
    struct idem_io_calls calls = idem_io_system;
    calls.pread = pread_but_there;
    for (unsigned i = 0; i < 4; i++) {
        struct hand_log l;
        begin(&l);
        l.f.bytes = 2 * IDEM_WINDOW_BYTES;
        hand_file(&l, true);
        if (i % 2 == 0) { /* so that a record begins where a window ends, or lies across */
            hand_add(&l, (struct idem_rec){.kind = REC_RETAIN, .token = 1});
            claims(&l, 7000);
        } else {
            claims(&l, 7000);
        }
        hand_flush(&l, true);
        bad_from = i < 2 ? 700 * 1024 : IDEM_WINDOW_BYTES + IDEM_WAL_HEADER_BYTES;
        overwrite(&l, 1, bad_from - 2 * RECORD, "XXXXXXXX", 8); /* what is looked at closely before it */
        bad_to = bad_from + 2 * IDEM_WAL_HEADER_BYTES;
        idem_io = &calls;
        struct outcome o = salvage_of(&l);
        idem_io = &idem_io_system;
        CHECK(o.records >= 7000 - 2 * IDEM_WAL_HEADER_BYTES / RECORD - 3);
        CHECK(o.records < 7000);
        CHECK(strstr(o.h.text, "are lost") != NULL);
        hand_close(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_says_something_is_handed_on),
        cmocka_unit_test(an_error_of_who_is_told_ends_it),
        cmocka_unit_test(memory_that_is_refused_ends_it),
        cmocka_unit_test(a_file_that_the_next_one_does_not_know),
        cmocka_unit_test(clocks_that_went_back_between_two_files),
        cmocka_unit_test(a_file_of_which_nothing_is_sound),
        cmocka_unit_test(a_file_without_a_header_that_was_void_as_a_whole),
        cmocka_unit_test(sound_bytes_at_impossible_positions),
        cmocka_unit_test(what_a_header_promised_counts_as_lost),
        cmocka_unit_test(a_batch_that_has_more_than_it_says),
        cmocka_unit_test(lengths_that_can_not_be),
        cmocka_unit_test(blocks_that_can_not_be_read),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
