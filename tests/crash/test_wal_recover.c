/*
 * tests/crash/test_wal_recover.c - the machine dies after each call to the disk that a recovery makes: what was told before, and what
 * the recovered store gave out, is there for the next recovery.
 *
 * The log that is recovered ends in records that nothing proves: a batch that was told, and one whose sync failed, so that it lies in
 * the page cache only, looks sound, and is given out. A recovery that does not write them anew must be noticed.
 */
#include "crash/wal_writer.h"

#include <sys/stat.h>

static char place[160];

static int recover(const char *log, const char *store)
{
    idem_recovery r = IDEM_RECOVERY_INIT;
    r.dir = store;
    r.wal_dir = log;
    r.now_wall_ms = LOG_T0 + 60000;
    support_remove(store);
    return idem_recover(&r);
}

static idem_key key_of(unsigned token, char text[32])
{
    snprintf(text, 32, "key %u", token);
    return support_key(text);
}

/* As look(), but the store is built, and asked. */
static const char *look_in_store(const char *path, const uint64_t *told, unsigned n)
{
    static char why[400];
    char store[180], text[32];
    snprintf(store, sizeof store, "%s/again", place);
    int e = recover(path, store);
    if (e != IDEM_OK) {
        snprintf(why, sizeof why, "recovery: %s", idem_error_detail());
        return why;
    }
    const char *wrong = NULL;
    idem_store *s = support_attach(store);
    for (unsigned i = 0; i < n && wrong == NULL; i++) {
        idem_key k = key_of((unsigned)told[i], text);
        e = idem_lookup(s, &k, NULL);
        if (e != IDEM_REPLAY) {
            snprintf(why, sizeof why, "%s was told, and is %s", text, idem_strerror(e));
            wrong = why;
        }
    }
    idem_close(s);
    return wrong;
}

static struct tally recovered_with(unsigned images, bool store_too, enum wal_lie lie, bool quiet)
{
    struct writer w;
    char log[170], store[180], text[32];
    snprintf(place, sizeof place, "%s", support_dir());
    snprintf(log, sizeof log, "%s/log", place);
    snprintf(store, sizeof store, "%s/store", place);
    CHECK_IS(mkdir(place, 0700), 0);
    struct wal_disk *disk = wal_disk_new(NULL);
    wal_record_begin(log, WAL_HONEST);
    write_log(&w, place, NO_FAULT, 1);
    batch(&w, 2);
    unsigned told = (unsigned)w.told;
    add_some(&w, 3); /* nobody is told of these */
    hand_flush(&w.l, false);
    wal_record_fail_sync(1);
    CHECK_IS(idem_io->fdatasync(w.l.fd), -1);
    hand_close(&w.l);
    unsigned from = wal_recorded();
    wal_record_lie(lie);
    CHECK_IS(recover(log, store), IDEM_OK);
    idem_store *s = support_attach(store);
    unsigned more = 0;
    for (unsigned t = 1; t < w.token; t++) {
        idem_key k = key_of(t, text);
        if (idem_lookup(s, &k, NULL) == IDEM_REPLAY && t > told) {
            wal_record_told(t);
            more++;
        }
    }
    idem_close(s);
    wal_record_end();
    CHECK(quiet || more == 3); /* the cache looks sound: they are given out */
    struct tally t = all_prefixes(disk, from, images, store_too ? look_in_store : look, quiet);
    wal_disk_free(disk);
    support_remove(place);
    return t;
}

static void what_was_told_and_given_out_is_in_the_log_after_each_call(void **state)
{
    (void)state;
    struct tally t = recovered_with(support_long() ? 800 : 40, false, WAL_HONEST, false);
    print_message("%u disks\n", t.images);
    CHECK_IS(t.broken, 0);
    CHECK(t.images > 400);
}
static void what_was_told_and_given_out_is_in_the_next_store(void **state)
{
    (void)state;
    struct tally t = recovered_with(support_long() ? 400 : 24, true, WAL_HONEST, false);
    print_message("%u disks\n", t.images);
    CHECK_IS(t.broken, 0);
    CHECK(t.images > 300);
}

static void caught(const char *name, const char *fault, enum wal_lie lie)
{
    support_fault(fault);
    struct tally t = recovered_with(12, false, lie, true);
    support_fault(NULL);
    CHECK(t.broken > 0);
    support_caught(name, "by disk %u, %s", t.images, t.first);
}
static void a_tail_that_is_not_written_anew_is_noticed(void **state)
{
    (void)state;
    caught("recover.tail", "recover.tail", WAL_HONEST);
}
static void a_missing_sync_of_the_new_file_is_noticed(void **state)
{
    (void)state;
    caught("a missing fsync", NULL, WAL_NO_FSYNC);
}
static void a_missing_sync_of_the_directory_is_noticed(void **state)
{
    (void)state;
    caught("a missing directory sync", NULL, WAL_NO_DIRSYNC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_told_and_given_out_is_in_the_log_after_each_call),
        cmocka_unit_test(what_was_told_and_given_out_is_in_the_next_store),
        cmocka_unit_test(a_tail_that_is_not_written_anew_is_noticed),
        cmocka_unit_test(a_missing_sync_of_the_new_file_is_noticed),
        cmocka_unit_test(a_missing_sync_of_the_directory_is_noticed),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
