/*
 * tests/unit/test_wal_files.c - the log's directory: whose it is, files that are complete or not there, and each failing system call
 * gives an error and leaves nothing that looks complete.
 */
#include "support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit/wal_fail.h"
#include "unit/wal_file.h"
#include "wal/files.h"

/* ------------------------------------------------------------------ the directory, with each call failing once */

static void inject(unsigned at, int with)
{
    read_most = write_most = 100;
    fail_nth(at, with);
    failing.mkdir_at = f_mkdir_at;
}

static int begin_log(const char *path, struct idem_log_dir *d)
{
    struct idem_file_rec f = a_file();
    f.number = 1;
    f.prev_number = 0;
    f.oldest = 1;
    int fd = -1, e = idem_log_dir_open(path, true, 0, d);
    if (e != IDEM_OK)
        return e;
    e = idem_log_file_make(d, &f, &fd);
    if (e == IDEM_OK) {
        e = idem_log_file_publish(d, &f, fd);
        close(fd);
    }
    struct idem_log_id_rec id = {0};
    id.newest = 1;
    memcpy(id.uuid, f.uuid, 16);
    memcpy(id.instance, f.instance, 16);
    if (e == IDEM_OK)
        e = idem_log_id_replace(d, &id);
    if (e != IDEM_OK)
        idem_log_dir_close(d);
    return e;
}

static int fresh_io(void **state)
{
    (void)state;
    idem_io = &idem_io_system;
    return 0;
}

static void a_log_is_begun_and_found_again(void **state)
{
    (void)state;
    const char *path = support_dir();
    struct idem_log_dir d, e;
    struct idem_file_rec f = a_file(), g;
    uint64_t *numbers;
    size_t count;
    int fd;
    CHECK_IS(begin_log(path, &d), IDEM_OK);
    CHECK_IS(idem_log_dir_open(path, false, 0, &e), IDEM_OK);
    CHECK_IS(e.id.newest, 1);
    CHECK_IS(e.id.sequence, 1);
    CHECK_IS(idem_log_ours(&e, f.uuid, f.instance), IDEM_OK);
    CHECK_IS(idem_log_ours(&e, f.uuid, f.uuid), IDEM_E_STALE);
    CHECK_IS(idem_log_list(&e, &numbers, &count), IDEM_OK);
    CHECK_IS(count, 1);
    CHECK_IS(numbers[0], 1);
    free(numbers);
    CHECK_IS(idem_log_file_open(&e, 1, f.uuid, true, &g, &fd), IDEM_OK);
    CHECK_IS(g.base, f.base);
    close(fd);
    CHECK_IS(idem_log_file_open(&e, 1, f.instance, false, &g, &fd), IDEM_E_LOG_FOREIGN);
    CHECK_IS(idem_log_file_open(&e, 2, f.uuid, false, &g, &fd), IDEM_E_LOG_DAMAGED);
    /* A second one of a number is refused, and its temporary file is gone. */
    f.number = 1;
    f.prev_number = 0;
    f.oldest = 1;
    CHECK_IS(idem_log_file_make(&e, &f, &fd), IDEM_OK);
    CHECK_IS(idem_log_file_publish(&e, &f, fd), IDEM_E_EXISTS);
    close(fd);
    CHECK_IS(idem_io->lock(d.id_fd, IDEM_LOG_LOCK_AT), 0);
    CHECK_IS(idem_io->lock(e.id_fd, IDEM_LOG_LOCK_AT), -1); /* another open file: another holder */
    CHECK_IS(errno, EAGAIN);
    CHECK_IS(idem_io->unlock(d.id_fd, IDEM_LOG_LOCK_AT), 0);
    char away[300];
    snprintf(away, sizeof away, "%s.away", path);
    CHECK_IS(rename(path, away), 0);
    CHECK_IS(idem_log_ours(&d, f.uuid, f.instance), IDEM_E_LOG);
    idem_log_dir_close(&d);
    idem_log_dir_close(&e);
    support_remove(away);
}

static void a_writer_that_slept_while_the_log_was_taken_over_changes_nothing(void **state)
{
    (void)state;
    const char *path = support_dir();
    struct idem_log_dir old, fresh;
    struct idem_file_rec f = a_file();
    CHECK_IS(begin_log(path, &old), IDEM_OK);
    CHECK_IS(idem_log_dir_open(path, false, 0, &fresh), IDEM_OK);
    CHECK_IS(idem_log_dir_hold(&fresh), IDEM_OK);
    struct idem_log_dir third;
    CHECK_IS(idem_log_dir_open(path, false, 0, &third), IDEM_OK);
    CHECK_IS(idem_log_dir_hold(&third), 1);
    idem_log_dir_close(&third);
    struct idem_log_id_rec late = old.id, id = fresh.id;
    memset(id.instance, 0x77, 16);
    CHECK_IS(idem_log_id_replace(&fresh, &id), IDEM_OK);
    late.newest = 99;
    CHECK_IS(idem_log_id_write(&old, &late), IDEM_OK); /* it thinks */
    CHECK(idem_log_ours(&old, f.uuid, f.instance) < 0);
    CHECK_IS(idem_log_ours(&fresh, f.uuid, id.instance), IDEM_OK);
    CHECK_IS(fresh.id.newest, 1);
    idem_log_dir_close(&old);
    idem_log_dir_close(&fresh);
}

static void what_dead_makers_leave_is_removed(void **state)
{
    (void)state;
    const char *path = support_dir();
    struct idem_log_dir d;
    struct idem_file_rec f = a_file(), g = a_file();
    uint64_t *numbers;
    size_t count;
    int one, two;
    CHECK_IS(begin_log(path, &d), IDEM_OK);
    g.salt++;
    CHECK_IS(idem_log_file_make(&d, &f, &one), IDEM_OK);
    CHECK_IS(idem_log_file_make(&d, &g, &two), IDEM_OK); /* of the same number: each has its own */
    CHECK_IS(idem_log_clear_tmp(&d), IDEM_OK);
    CHECK_IS(idem_log_file_publish(&d, &f, one), IDEM_E_LOG); /* gone under it: it says so */
    CHECK_IS(idem_log_list(&d, &numbers, &count), IDEM_OK);
    CHECK_IS(count, 1);
    free(numbers);
    close(one);
    close(two);
    idem_log_dir_close(&d);
}

static void a_torn_id_sector_leaves_the_other_one(void **state)
{
    (void)state;
    const char *path = support_dir();
    struct idem_log_dir d;
    CHECK_IS(begin_log(path, &d), IDEM_OK);
    struct idem_log_id_rec id = d.id;
    id.newest = 2;
    CHECK_IS(idem_log_id_write(&d, &id), IDEM_OK); /* sequence 2, in the other sector */
    CHECK_IS(idem_log_id_read(&d), IDEM_OK);
    CHECK_IS(d.id.newest, 2);
    uint8_t torn = 0xff;
    for (unsigned sector = 0; sector < 2; sector++) {
        CHECK_IS(pwrite(d.id_fd, &torn, 1, sector * 512 + 200), 1);
        int e = idem_log_id_read(&d);
        CHECK_IS(e, sector == 0 ? IDEM_OK : IDEM_E_LOG_DAMAGED);
    }
    idem_log_dir_close(&d);
}

/* The log's own word for whose it is. */
static void a_place_that_is_no_path_says_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } cases[] = {{"/dev/shm/s", 10, "/dev/shm/s"}, {"/dev\0shm", 8, ""}, {"s", 1, ""}, {"", 0, ""}};
    struct idem_log_dir d;
    char path[IDEM_LOG_PATH_MAX], file[200];
    const char *log = support_dir();
    CHECK_IS(idem_log_dir_open(log, true, 0, &d), IDEM_OK);
    idem_log_place_read(&d, path);
    CHECK_BYTES(path, strlen(path), ""); /* there is none yet */
    snprintf(file, sizeof file, "%s/place", log);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int fd = open(file, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
        CHECK_IS(write(fd, cases[i].bytes, cases[i].n), cases[i].n);
        close(fd);
        idem_log_place_read(&d, path);
        CHECK_BYTES(path, strlen(path), cases[i].says);
    }
    idem_log_dir_close(&d);
    support_remove(log);
}

static void a_file_that_was_cut_or_renamed_is_refused_in_words(void **state)
{
    (void)state;
    const char *path = support_dir();
    struct idem_log_dir d;
    struct idem_file_rec f;
    int fd;
    char from[400], to[400];
    CHECK_IS(begin_log(path, &d), IDEM_OK);
    snprintf(from, sizeof from, "%s/wal-%020u", path, 1u);
    snprintf(to, sizeof to, "%s/wal-%020u", path, 2u);
    CHECK_IS(truncate(from, 8191), 0);
    CHECK_IS(idem_log_file_open(&d, 1, NULL, false, &f, &fd), IDEM_E_LOG_DAMAGED);
    CHECK(strstr(idem_error_detail(), "8191 bytes") != NULL);
    CHECK_IS(truncate(from, 8192), 0);
    CHECK_IS(rename(from, to), 0);
    CHECK_IS(idem_log_file_open(&d, 2, NULL, false, &f, &fd), IDEM_E_LOG_DAMAGED);
    CHECK(strstr(idem_error_detail(), "says file 1") != NULL);
    CHECK_IS(truncate(to, 0), 0);
    CHECK_IS(idem_log_file_open(&d, 2, NULL, false, &f, &fd), IDEM_E_LOG_DAMAGED);
    idem_log_dir_close(&d);
}

static void whichever_call_fails_beginning_a_log_says_so_and_can_be_repeated(void **state)
{
    (void)state;
    static const int errors[] = {EIO, ENOSPC, EROFS};
    struct idem_log_dir d;
    unsigned failed = 0;
    for (unsigned k = 0; k < 3; k++)
        for (unsigned n = 1;; n++) {
            const char *path = support_dir();
            CHECK(n < 1000);
            inject(n, errors[k]);
            int e = begin_log(path, &d);
            bool reached = calls >= fail_at;
            idem_io = &idem_io_system;
            if (!reached) {
                CHECK_IS(e, IDEM_OK);
                idem_log_dir_close(&d);
                break;
            }
            failed++;
            CHECK_IS(e, errors[k] == ENOSPC ? IDEM_E_LOG_SPACE : IDEM_E_LOG);
            /* Nothing that has a name is incomplete. */
            struct idem_file_rec f;
            int fd;
            if (idem_log_dir_open(path, true, 0, &d) == IDEM_OK) {
                e = idem_log_file_open(&d, 1, NULL, false, &f, &fd);
                if (e == IDEM_OK)
                    close(fd);
                else
                    CHECK(strstr(idem_error_detail(), "missing") != NULL);
                idem_log_dir_close(&d);
                if (e != IDEM_OK) {
                    CHECK_IS(begin_log(path, &d), IDEM_OK);
                    idem_log_dir_close(&d);
                }
            }
            support_remove(path);
        }
    CHECK(failed > 30);
}

static void an_id_that_cannot_be_written_or_synced_says_so(void **state)
{
    (void)state;
    struct idem_log_dir d;
    unsigned failed = 0;
    CHECK_IS(begin_log(support_dir(), &d), IDEM_OK);
    for (unsigned n = 1;; n++) {
        struct idem_log_id_rec id = d.id;
        id.newest = 10 + n;
        CHECK(n < 100);
        inject(n, EIO);
        int e = idem_log_id_write(&d, &id);
        bool reached = calls >= fail_at;
        idem_io = &idem_io_system;
        CHECK_IS(e, reached ? IDEM_E_LOG : IDEM_OK);
        if (!reached)
            break;
        failed++;
    }
    CHECK(failed >= 3); /* read, written, synced */
    idem_log_dir_close(&d);
}

static int count_tmp(void *ctx, const char *name)
{
    unsigned *n = ctx;
    *n += strstr(name, ".tmp") != NULL;
    return 0;
}

/* A full disk has no room for what failed makers leave: nobody may come by to clear it. */
static void a_file_that_could_not_be_made_leaves_nothing(void **state)
{
    (void)state;
    unsigned failed = 0;
    struct idem_log_dir d;
    CHECK_IS(begin_log(support_dir(), &d), IDEM_OK);
    for (unsigned at = 1; at < 30; at++) {
        struct idem_file_rec f = a_file();
        int fd = -1;
        unsigned left = 0;
        fail_nth(at, ENOSPC);
        int e = idem_log_file_make(&d, &f, &fd);
        bool made = e == IDEM_OK;
        if (made)
            e = idem_log_file_publish(&d, &f, fd);
        bool reached = calls >= fail_at;
        idem_io = &idem_io_system;
        if (made)
            close(fd);
        CHECK_IS(idem_io->list(d.fd, count_tmp, &left), 0);
        CHECK_IS(left, 0);
        if (!reached)
            break;
        CHECK_IS(e, IDEM_E_LOG_SPACE);
        failed++;
        idem_log_file_delete(&d, f.number); /* its name is there if the directory's sync failed */
    }
    CHECK(failed >= 4 && failed < 29); /* created, given space, written, synced ... */
    idem_log_dir_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_log_is_begun_and_found_again, fresh_io),
        cmocka_unit_test_setup(a_writer_that_slept_while_the_log_was_taken_over_changes_nothing, fresh_io),
        cmocka_unit_test_setup(what_dead_makers_leave_is_removed, fresh_io),
        cmocka_unit_test_setup(a_file_that_could_not_be_made_leaves_nothing, fresh_io),
        cmocka_unit_test_setup(a_torn_id_sector_leaves_the_other_one, fresh_io),
        cmocka_unit_test_setup(a_place_that_is_no_path_says_nothing, fresh_io),
        cmocka_unit_test_setup(a_file_that_was_cut_or_renamed_is_refused_in_words, fresh_io),
        cmocka_unit_test_setup(an_id_that_cannot_be_written_or_synced_says_so, fresh_io),
        cmocka_unit_test_setup(whichever_call_fails_beginning_a_log_says_so_and_can_be_repeated, fresh_io),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
