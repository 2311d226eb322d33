/*
 * tests/unit/test_wal_direct.c - large batches: they end on a block, the next one is written past the kernel's cache if the file system does that, and
 * nothing is lost if it does not.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "support/support.h"
#include "wal/format.h"
#include "wal/io.h"

enum refusal { NOTHING, THE_MODE, THE_WRITE, THE_WAY_BACK };

static struct {
    enum refusal refuses;
    bool on;
    unsigned asked, direct, through,
        crooked; /* calls; large writes of either kind; direct ones of what are no blocks */
} disk;

static int direct_or_not(int fd, bool on)
{
    (void)fd;
    disk.asked++;
    if ((on && disk.refuses == THE_MODE) || (!on && disk.refuses == THE_WAY_BACK && disk.direct == 1)) {
        errno = EINVAL;
        return -1;
    }
    disk.on = on;
    return 0;
}

static ssize_t write_and_count(int fd, const void *from, size_t n, off_t at)
{
    if (disk.on) {
        disk.direct++;
        disk.crooked += n % IDEM_WAL_BLOCK_BYTES != 0 || (size_t)at % IDEM_WAL_BLOCK_BYTES != 0 ||
                        (uintptr_t)from % IDEM_WAL_BLOCK_BYTES != 0;
        if (disk.refuses == THE_WRITE || (disk.refuses == THE_WAY_BACK && disk.direct == 1)) {
            errno = EINVAL;
            return -1;
        }
    } else if (n >= 65536) {
        disk.through++;
    }
    return idem_io_system.pwrite(fd, from, n, at);
}

static struct idem_io_calls table;

static char key_text[32];
static const char *key_of(unsigned i)
{
    snprintf(key_text, sizeof key_text, "a-key-%06u", i);
    return key_text;
}

/* Keys from `*next` on, and a sync. */
static void answer(idem_store *store, unsigned *next, unsigned n)
{
    char body[400];
    memset(body, 'b', sizeof body - 1);
    body[sizeof body - 1] = '\0';
    for (unsigned end = *next + n; *next < end; ++*next) {
        idem_claim c;
        CHECK_IS(support_begin(store, key_of(*next), &c), IDEM_CLAIMED);
        CHECK_IS(support_complete(store, &c, 200, body), IDEM_OK);
    }
    CHECK_IS(idem_sync(store, 0), IDEM_OK);
}

static int count(const idem_log_record *r, void *ctx)
{
    unsigned *n = ctx;
    CHECK(r->kind != REC_FILL);
    ++*n;
    return 0;
}

/* Two large batches, a small one, two large ones; then all is read back. */
static void write_and_recover(enum refusal refuses)
{
    const char *dir = support_dir();
    char log[200];
    snprintf(log, sizeof log, "%s-log", dir);
    memset(&disk, 0, sizeof disk);
    disk.refuses = refuses;
    table = idem_io_system;
    table.direct = direct_or_not;
    table.pwrite = write_and_count;
    idem_io = &table;
    idem_options o = support_options(4000);
    o.wal_dir = log;
    o.durability_claim = o.durability_complete = IDEM_DURABILITY_ASYNC;
    o.flush_interval_ms = 10000;
    o.wal_file_bytes = 16 << 20;
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_store *store = support_open(dir, &o);
    unsigned keys = 0, records = 0;
    answer(store, &keys, 400);
    answer(store, &keys, 400);
    answer(store, &keys, 1);
    answer(store, &keys, 400);
    answer(store, &keys, 400);
    CHECK_IS(support_stats(store).log.trouble, IDEM_LOG_FINE);
    CHECK_IS(support_stats(store).log.files, refuses == THE_WAY_BACK ? 2 : 1);
    idem_close(store);
    idem_io = &idem_io_system;
    CHECK_IS(idem_log_walk(log, count, &records), IDEM_OK);
    CHECK(records == keys ||
          (refuses == THE_WAY_BACK && records > keys)); /* those of the file that was given up twice */
    support_remove(dir);
    store = support_open(dir, &o);
    for (unsigned i = 0; i < keys; i++) {
        idem_claim c;
        CHECK_IS(support_begin(store, key_of(i), &c), IDEM_REPLAY);
    }
    idem_close(store);
    support_verify(dir);
    support_remove(log);
}

static void a_large_batch_that_begins_on_a_block_goes_past_the_cache(void **state)
{
    (void)state;
    write_and_recover(NOTHING);
    CHECK_IS(disk.direct, 3); /* not the one behind the small batch: it begins where that ended */
    CHECK_IS(disk.through, 1);
    CHECK_IS(disk.crooked, 0);
    CHECK_IS(disk.asked, 3);
}

static void where_that_cannot_be_all_goes_through_the_cache(void **state)
{
    (void)state;
    write_and_recover(THE_MODE);
    CHECK_IS(disk.direct, 0);
    CHECK_IS(disk.through, 4);
    CHECK_IS(disk.asked, 1);
}

static void a_write_that_is_refused_is_done_once_more_through_the_cache(void **state)
{
    (void)state;
    write_and_recover(THE_WRITE);
    CHECK_IS(disk.direct, 1);
    CHECK_IS(disk.through, 4);
}

/* Then that file is given up as for any other error, and nothing is lost. */
static void a_file_that_can_not_be_written_either_way_is_given_up(void **state)
{
    (void)state;
    write_and_recover(THE_WAY_BACK);
    CHECK(disk.direct >= 1);
}

/* 64 bytes of a header, a record of `first` and 159 of 512, which is not filled up, and a large batch after it. */
static void write_unfilled(unsigned first)
{
    const char *dir = support_dir();
    char log[200], body[341];
    unsigned keys = 0, whole = first == 448;
    snprintf(log, sizeof log, "%s-log", dir);
    memset(&disk, 0, sizeof disk);
    table = idem_io_system;
    table.direct = direct_or_not;
    table.pwrite = write_and_count;
    idem_io = &table;
    idem_options o = support_options(1000);
    o.wal_dir = log;
    o.durability_claim = o.durability_complete = IDEM_DURABILITY_ASYNC;
    o.flush_interval_ms = 10000;
    o.wal_file_bytes = 1 << 20;
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_store *store = support_open(dir, &o);
    memset(body, 'b', first - 108);
    body[first - 108] = '\0';
    support_answer(store, "a-key-999999", 200, body);
    answer(store, &keys, 159);
    CHECK_IS(disk.direct, whole); /* it begins on a block, too */
    CHECK(strstr(idem_error_detail(), "encoded") == NULL);
    answer(store, &keys, 400);
    CHECK_IS(disk.direct, 2 * whole);
    CHECK_IS(disk.through, 2 * !whole);
    CHECK_IS(disk.crooked, 0);
    idem_close(store);
    idem_io = &idem_io_system;
    support_verify(dir);
    support_remove(log);
}

static void a_batch_that_ends_on_a_block_by_itself(void **state)
{
    (void)state;
    write_unfilled(448);
}

static void a_batch_that_ends_so_near_a_block_that_no_record_fits_between(void **state)
{
    (void)state;
    write_unfilled(384);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_batch_that_begins_on_a_block_goes_past_the_cache),
        cmocka_unit_test(where_that_cannot_be_all_goes_through_the_cache),
        cmocka_unit_test(a_write_that_is_refused_is_done_once_more_through_the_cache),
        cmocka_unit_test(a_file_that_can_not_be_written_either_way_is_given_up),
        cmocka_unit_test(a_batch_that_ends_on_a_block_by_itself),
        cmocka_unit_test(a_batch_that_ends_so_near_a_block_that_no_record_fits_between),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
