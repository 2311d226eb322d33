/*
 * tests/crash/test_wal_loop.c - the log on a real file system in a loop image: really full, and with syncs that really fail because the image's
 * own file system is full. Nobody is told what is not there after the image was mounted anew.
 *
 * Needs root, loop devices, mkfs of the file system: else skipped aloud. All mounts are in a private namespace of a child, and go with it.
 */
/* timeout: 300 s */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <stdlib.h>

#include "crash/wal_store.h"

#include <errno.h>
#include <fcntl.h>

static struct wal_place place;

struct scene {
    const char *fs, *make;             /* the file system and its mkfs, with what keeps it small */
    const char *image_mib, *below_mib; /* the image's size; that of the tmpfs it lies in */
};

__attribute__((format(printf, 1, 2))) static int run(const char *format, ...)
{
    char command[1200];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    return system(command);
}

/* Writes into `path` until there is no space. */
static void fill(const char *path)
{
    static char zeros[65536];
    memset(zeros, 'x', sizeof zeros);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    for (size_t n = sizeof zeros; n >= 512;) {
        ssize_t w = write(fd, zeros, n);
        if (w < 0)
            n /= 2;
    }
    fsync(fd);
    CHECK(errno == ENOSPC);
    CHECK_IS(close(fd), 0);
}

static void mount_all(const struct scene *c)
{
    CHECK_IS(unshare(CLONE_NEWNS), 0);
    /* A loop device takes a write of which the image's file system did only a part for a whole one: it gets pages, which are done or not. */
    CHECK_IS(run("mount --make-rprivate / && mkdir -p %s/t %s/m && mount -t tmpfs -o size=%sm none %s/t && "
                 "truncate -s %sm %s/t/image && %s %s/t/image >/dev/null 2>&1 && mount -o loop %s/t/image %s/m && "
                 "d=$(losetup -n -O NAME -j %s/t/image) && echo 4 >/sys/block/${d#/dev/}/queue/max_sectors_kb",
                 place.base, place.base, c->below_mib, place.base, c->image_mib, place.base, c->make, place.base,
                 place.base, place.base, place.base),
             0);
}

static void use(unsigned from, unsigned to, idem_store *s, size_t body_bytes)
{
    for (unsigned k = from; k < to; k++)
        wal_do_key(&place, s, k, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC, body_bytes, NULL);
}

/* The page cache goes with the mount: what is there now was on the disk. */
static void mount_anew_and_look(void)
{
    CHECK_IS(run("umount %s/m && mount -o loop %s/t/image %s/m", place.base, place.base, place.base), 0);
    wal_check_recovered(&place, place.page->durable);
}

static int first_error(idem_store *s, unsigned *k)
{
    for (; *k < WAL_KEYS - 50; ++*k) {
        char text[16];
        idem_claim claim = IDEM_CLAIM_INIT;
        idem_request rq = IDEM_REQUEST_INIT;
        static char body[150000]; /* no zeros: a sector of them that was lost would not be missed */
        memset(body, 'b', sizeof body);
        rq.key = wal_key(*k, text);
        rq.durability = IDEM_DURABILITY_NONE;
        int e = idem_begin(s, &rq, &claim, NULL);
        if (e != IDEM_CLAIMED)
            return e;
        idem_response r = IDEM_RESPONSE_INIT;
        r.body = body;
        r.body_bytes = sizeof body;
        e = idem_complete(s, &claim, &r);
        if (e != IDEM_OK)
            return e;
        wal_say(&place.page->durable[*k], WAL_COMPLETED);
    }
    return IDEM_OK;
}

static void it_is_full(void *scene)
{
    char path[200];
    idem_store *s;
    unsigned k = 10;
    mount_all(scene);
    CHECK_IS(idem_open(place.store, &place.options, &s), IDEM_OK);
    use(0, 5, s, 500);
    snprintf(path, sizeof path, "%s/m/fill", place.base);
    fill(path);
    CHECK_IS(first_error(s, &k), IDEM_E_LOG_SPACE);
    CHECK_IS(support_stats(s).log.trouble, IDEM_LOG_NO_SPACE);
    idem_claim claim; /* what needs no disk goes on */
    idem_request rq = support_request("memory only");
    rq.durability = IDEM_DURABILITY_NONE;
    CHECK_IS(idem_begin(s, &rq, &claim, NULL), IDEM_CLAIMED);
    idem_response r = support_response(200, "fine");
    r.durability = IDEM_DURABILITY_NONE;
    CHECK_IS(idem_complete(s, &claim, &r), IDEM_OK);
    CHECK_IS(unlink(path), 0);
    CHECK_IS(idem_sync(s, SUPPORT_PATIENCE_MS / 2), IDEM_OK); /* by itself */
    CHECK_IS(support_stats(s).log.trouble, IDEM_LOG_FINE);
    use(WAL_KEYS - 50, WAL_KEYS - 40, s, 500);
    CHECK_IS(wal_said(&place.page->durable[WAL_KEYS - 41]), WAL_COMPLETED);
    idem_close(s);
    mount_anew_and_look();
}

static void its_disk_is_full(void *scene)
{
    char path[200];
    idem_store *s;
    unsigned k = 10;
    mount_all(scene);
    CHECK_IS(idem_open(place.store, &place.options, &s), IDEM_OK);
    use(0, 5, s, 500);
    snprintf(path, sizeof path, "%s/t/fill", place.base);
    fill(path); /* blocks that the file system gave out have no place any more: writing them back fails */
    int e = first_error(s, &k);
    idem_stats_data st = support_stats(s);
    print_message("told %u answers before; then: %s; %llu failed syncs, trouble %u\n", k - 10, idem_strerror(e),
                  (unsigned long long)st.log.sync_failures, st.log.trouble);
    CHECK(e == IDEM_E_LOG || e == IDEM_E_LOG_SPACE || e == IDEM_E_LOG_STALLED);
    CHECK(st.log.trouble != IDEM_LOG_FINE);
    CHECK_IS(unlink(path), 0);
    e = idem_sync(s, 5000);
    print_message("with space below: %s\n", e == IDEM_OK ? "it goes on" : idem_error_detail());
    idem_close(s);
    mount_anew_and_look();
}

static void with(const struct scene *c, void (*what)(void *scene))
{
    if (geteuid() != 0) {
        print_message("skipped: loop images need root\n");
        skip();
    }
    if (run("command -v mkfs.%s losetup >/dev/null 2>&1 && losetup -f >/dev/null 2>&1", c->fs) != 0) {
        print_message("skipped: no mkfs.%s, or no loop device\n", c->fs);
        skip();
    }
    wal_place_make(&place);
    snprintf(place.log, sizeof place.log, "%s/m/log", place.base);
    place.options.wal_dir = place.log;
    place.options.log_wait_ms = 1000;
    union {
        const struct scene *in;
        void *out;
    } scene = {.in = c};
    support_in_child(what, scene.out);
    support_remove(place.base);
}

static const struct scene ext4 = {"ext4", "mkfs.ext4 -q -m 0", "48", "64"},
                          ext4_over = {"ext4", "mkfs.ext4 -q -m 0", "96", "24"},
                          xfs = {"xfs", "mkfs.xfs -q", "320", "400"}, xfs_over = {"xfs", "mkfs.xfs -q", "320", "100"};

static void a_full_ext4_is_said_and_got_over(void **state)
{
    (void)state;
    with(&ext4, it_is_full);
}
static void failing_syncs_of_ext4_make_no_false_promise(void **state)
{
    (void)state;
    with(&ext4_over, its_disk_is_full);
}
static void a_full_xfs_is_said_and_got_over(void **state)
{
    (void)state;
    with(&xfs, it_is_full);
}
static void failing_syncs_of_xfs_make_no_false_promise(void **state)
{
    (void)state;
    with(&xfs_over, its_disk_is_full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_ext4_is_said_and_got_over),
        cmocka_unit_test(failing_syncs_of_ext4_make_no_false_promise),
        cmocka_unit_test(a_full_xfs_is_said_and_got_over),
        cmocka_unit_test(failing_syncs_of_xfs_make_no_false_promise),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
