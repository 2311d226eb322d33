/*
 * tests/crash/test_wal_prefix.c - the machine dies after each call to the disk: what somebody was told is durable is in what comes back, and
 * nothing is refused. The log is written by hand here (the format's own functions, wal/files.c), read by recovery's own.
 *
 * The harness is itself on trial: it must notice a sync that is left out, a directory sync that is left out, who tells before the sync, a
 * writer that dies between a failed sync and saying so, a log continued behind a torn tail in the same file.
 */
#include "crash/wal_writer.h"

static struct tally written_with(enum fault fault, enum wal_lie lie, bool quiet)
{
    struct writer w;
    char dir[160], log[170];
    snprintf(dir, sizeof dir, "%s", support_dir());
    snprintf(log, sizeof log, "%s/log", dir);
    CHECK_IS(mkdir(dir, 0700), 0);
    struct wal_disk *disk = wal_disk_new(NULL);
    wal_record_begin(log, lie);
    write_log(&w, dir, fault, 3);
    hand_close(&w.l);
    wal_record_end();
    struct tally t = all_prefixes(disk, 0, support_long() ? 400 : 12, look, quiet);
    wal_disk_free(disk);
    support_remove(dir);
    return t;
}

static void whatever_was_told_is_there_after_each_call(void **state)
{
    (void)state;
    struct tally t = written_with(NO_FAULT, WAL_HONEST, false);
    print_message("%u calls, %u disks\n", wal_recorded(), t.images);
    CHECK_IS(t.broken, 0);
    CHECK(t.images > 2000);
}

static void caught(const char *name, enum fault fault, enum wal_lie lie)
{
    struct tally t = written_with(fault, lie, true);
    CHECK(t.broken > 0);
    support_caught(name, "by disk %u, %s", t.images, t.first);
}
static void a_missing_fdatasync_is_noticed(void **state)
{
    (void)state;
    caught("a missing fdatasync", NO_FAULT, WAL_NO_FDATASYNC);
}
static void a_missing_sync_of_a_new_file_is_noticed(void **state)
{
    (void)state;
    caught("a missing fsync of a new file", NO_FAULT, WAL_NO_FSYNC);
}
static void a_missing_directory_sync_is_noticed(void **state)
{
    (void)state;
    caught("a missing directory sync", NO_FAULT, WAL_NO_DIRSYNC);
}
static void telling_before_the_sync_is_noticed(void **state)
{
    (void)state;
    caught("an acknowledgement before the sync", TELLS_EARLY, WAL_HONEST);
}
static void a_failed_sync_that_nobody_was_told_of_is_noticed(void **state)
{
    (void)state;
    caught("a leader that dies between a failed sync and saying so", UNSAID_FAILURE, WAL_HONEST);
}
static void going_on_behind_a_torn_tail_is_noticed(void **state)
{
    (void)state;
    caught("a store continued behind a torn tail in the same file", SAME_FILE, WAL_HONEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_was_told_is_there_after_each_call),
        cmocka_unit_test(a_missing_fdatasync_is_noticed),
        cmocka_unit_test(a_missing_sync_of_a_new_file_is_noticed),
        cmocka_unit_test(a_missing_directory_sync_is_noticed),
        cmocka_unit_test(telling_before_the_sync_is_noticed),
        cmocka_unit_test(a_failed_sync_that_nobody_was_told_of_is_noticed),
        cmocka_unit_test(going_on_behind_a_torn_tail_is_noticed),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
