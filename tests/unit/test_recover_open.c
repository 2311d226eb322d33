/*
 * tests/unit/test_recover_open.c - recovery with each of its system calls failing once; opening a store that is gone but has a log; whoever still has the
 * old segment.
 */
#include "unit/recover_log.h"

#include <errno.h>

#include "base/clock.h"
#include "segment/layout.h"
#include "unit/wal_fail.h"

/* ------------------------------------------------------------------ each system call fails once */

static int recover_failing(idem_recovery *r, unsigned at, int with)
{
    write_most = 700;
    fail_nth(at, with);
    failing.stat_at = f_stat_at;
    failing.hold_dir = f_hold_dir;
    failing.list = f_list;
    int e = idem_recover(r);
    idem_io = &idem_io_system;
    return e;
}

/* An error in words, or it did not matter; the next one brings back the same. */
static void each_call_fails_once(void *place)
{
    static const int with[] = {EIO, ENOSPC};
    unsigned errors = 0, total = 0;
    CHECK_IS(mkdir(place, 0700), 0);
    for (unsigned w = 0; w < 2; w++) {
        bool reached = true;
        for (unsigned at = 1; reached && at < 400; at++) {
            struct hand_log l;
            struct heard h;
            char log[160], dir[160];
            snprintf(log, sizeof log, "%s/l", (char *)place);
            snprintf(dir, sizeof dir, "%s/s", (char *)place);
            write_log(&l, log);
            idem_recovery r = recovery_of(&l, dir, &h);
            int e = recover_failing(&r, at, with[w]);
            reached = calls >= at;
            if (e != IDEM_OK) {
                errors++;
                CHECK(idem_error_detail()[0] != '\0');
                CHECK(access(dir, F_OK) != 0); /* no store, and no directory of one */
                e = idem_recover(&r);
                if (e != IDEM_OK)
                    fprintf(stderr, "call %u: then %d: %s\n", at, e, idem_error_detail());
                CHECK_IS(e, IDEM_OK);
            }
            what_the_log_said(dir);
            /* What it has written is a log that brings back the same. */
            support_remove(dir);
            CHECK_IS(idem_recover(&r), IDEM_OK);
            what_the_log_said(dir);
            hand_close(&l);
            support_remove(dir);
            support_remove(log);
            total++;
        }
        CHECK(!reached);
    }
    CHECK(errors > 60 && errors < total);
}

/* ------------------------------------------------------------------ with a living store */

static idem_options logged(const char *log)
{
    idem_options o = support_options(1000);
    o.wal_dir = log;
    o.wal_file_bytes = 1 << 20;
    o.durability_claim = IDEM_DURABILITY_SYNC;
    return o;
}

/* As after a reboot: the root is from another boot. */
static void age_root(const char *dir)
{
    char file[300];
    struct idem_root_const f;
    snprintf(file, sizeof file, "%s/root", dir);
    int fd = open(file, O_RDWR);
    CHECK(fd >= 0);
    off_t at = offsetof(struct idem_root_shm, fixed);
    CHECK_IS(pread(fd, &f, sizeof f, at), sizeof f);
    f.boot_id[0] = f.boot_id[0] == 'a' ? 'b' : 'a';
    f.checksum = XXH3_64bits(&f, sizeof f - sizeof f.checksum);
    CHECK_IS(pwrite(fd, &f, sizeof f, at), sizeof f);
    close(fd);
}

static void opening_brings_it_back(void *place)
{
    char log[160], dir[160];
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", (char *)place);
    snprintf(dir, sizeof dir, "%s/s", (char *)place);
    idem_options o = logged(log);
    uint64_t token = 0;
    uint8_t uuid[16] = {0};
    for (unsigned round = 0; round < 4; round++) {
        idem_store *store = support_open(dir, &o);
        idem_stats_data stats = support_stats(store);
        if (round > 0)
            CHECK(memcmp(uuid, stats.store_uuid, 16) == 0);
        memcpy(uuid, stats.store_uuid, 16);
        idem_claim claim;
        idem_reply reply = IDEM_REPLY_INIT;
        char key[16];
        for (unsigned r = 0; r < round; r++) { /* what earlier rounds left */
            snprintf(key, sizeof key, "done-%u", r);
            idem_request rq = support_request(key);
            CHECK_IS(idem_begin(store, &rq, &claim, &reply), IDEM_REPLAY);
            CHECK_BYTES(reply.body, reply.body_bytes, "kept");
            idem_reply_free(&reply);
        }
        idem_request rq = support_request("running");
        int verdict = idem_begin(store, &rq, &claim, &reply);
        CHECK_IS(verdict, round == 0 ? IDEM_CLAIMED : IDEM_RECLAIMED);
        CHECK_IS(claim.attempt, round + 1);
        CHECK(claim.token > token);
        token = claim.token;
        if (round > 0) {
            CHECK_IS(reply.lost_reason, IDEM_LOST_CRASH);
            CHECK_BYTES(reply.mark, reply.mark_bytes, "half way");
        }
        idem_reply_free(&reply);
        CHECK_IS(idem_mark(store, &claim, "half way", 8), IDEM_OK);
        snprintf(key, sizeof key, "done-%u", round);
        support_answer(store, key, 200, "kept");
        CHECK_IS(idem_sync(store, 0), IDEM_OK);
        if (round % 2 == 0) { /* the machine goes down: nobody closes anything, the root is of another boot */
            age_root(dir);
        } else { /* somebody removes the segment, and we are still there */
            support_remove(dir);
        }
        idem_close(store);
    }
    /* Destroyed: nothing comes back. */
    idem_store *store = support_open(dir, &o);
    idem_close(store);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    store = support_open(dir, &o);
    idem_claim claim;
    CHECK_IS(support_begin(store, "done-0", &claim), IDEM_CLAIMED);
    idem_close(store);
}

/* Who opens the store after a reboot need not know how it was made: as one that attaches to a store that is there. */
static void the_logs_settings_come_back(void *place)
{
    char log[160], dir[160];
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", (char *)place);
    snprintf(dir, sizeof dir, "%s/s", (char *)place);
    idem_options o = logged(log), plain = support_options(1000);
    o.durability_claim = IDEM_DURABILITY_SYNC;
    o.durability_complete = IDEM_DURABILITY_ASYNC;
    o.flush_interval_ms = 7;
    o.log_wait_ms = 777;
    o.wal_ring_refs = 256;
    o.wal_file_bytes = 3 << 20;
    plain.wal_dir = log;
    idem_close(support_open(dir, &o));
    for (unsigned round = 0; round < 3; round++) { /* the second one reads what recovery wrote */
        support_remove(dir);
        if (round == 1) {
            idem_recovery r = IDEM_RECOVERY_INIT;
            r.dir = dir;
            r.wal_dir = log;
            CHECK_IS(idem_recover(&r), IDEM_OK);
        }
        idem_store *store = support_open(dir, &plain);
        idem_log_stats l = support_stats(store).log;
        CHECK_IS(l.durability_claim, IDEM_DURABILITY_SYNC);
        CHECK_IS(l.durability_complete, IDEM_DURABILITY_ASYNC);
        CHECK_IS(l.flush_interval_ms, 7);
        CHECK_IS(l.log_wait_ms, 777);
        CHECK_IS(l.file_bytes, 3 << 20);
        idem_close(store);
    }
    struct idem_log_dir d;
    struct idem_file_rec f;
    int fd;
    CHECK_IS(idem_log_dir_open(log, false, 0, &d), IDEM_OK);
    CHECK_IS(idem_log_file_open(&d, d.id.newest, NULL, false, &f, &fd), IDEM_OK);
    CHECK_IS(f.settings.ring_refs, 256);
    close(fd);
    idem_log_dir_close(&d);
}

/* A claim that is not on the disk is forgotten with the machine, but not by who was given its token: the next one's is greater, also when the machine
   goes down again before a batch was written, and although the clock is not past what was promised before: it stands still here. */
static void tokens_grow_from_reboot_to_reboot(void *place)
{
    char log[160], dir[160];
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", (char *)place);
    snprintf(dir, sizeof dir, "%s/s", (char *)place);
    idem_options o = logged(log);
    o.durability_claim = IDEM_DURABILITY_ASYNC;
    o.flush_interval_ms = 10000;
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_recovery r = IDEM_RECOVERY_INIT;
    r.dir = dir;
    r.wal_dir = log;
    r.now_wall_ms = idem_clock_wall_ms();
    uint64_t token = 0;
    idem_store
        *stores[5]; /* closed when all is over: a machine that goes down closes nothing, and closing would write */
    for (unsigned round = 0; round < 5; round++) {
        if (round > 0)
            CHECK_IS(idem_recover(&r), IDEM_OK);
        stores[round] = support_open(dir, &o);
        idem_claim claim;
        CHECK_IS(support_begin(stores[round], "k", &claim), IDEM_CLAIMED); /* nobody knows it any more */
        CHECK(claim.token > token);
        token = claim.token;
        support_remove(dir);
    }
    for (unsigned round = 0; round < 5; round++)
        idem_close(stores[round]);
}

/* Two stores that were given one log by mistake: the second is refused, the first goes on. When the first is gone, its log may move. */
static void a_living_stores_log_is_not_taken(void *place)
{
    char log[160], dir[160], other[160];
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", (char *)place);
    snprintf(dir, sizeof dir, "%s/s", (char *)place);
    snprintf(other, sizeof other, "%s/o", (char *)place);
    idem_options o = logged(log);
    idem_store *store = support_open(dir, &o), *second = NULL;
    support_answer(store, "k", 200, "mine");
    CHECK_IS(idem_open(other, &o, &second), IDEM_E_LOG_FOREIGN);
    CHECK(strstr(idem_error_detail(), dir) != NULL);
    CHECK(access(other, F_OK) != 0);
    support_answer(store, "l", 200, "still mine");
    idem_close(store);
    CHECK_IS(idem_open(other, &o, &second), IDEM_E_LOG_FOREIGN); /* nobody has it open, but there it is */
    support_remove(dir);
    second = support_open(other, &o);
    idem_claim claim;
    CHECK_IS(support_begin(second, "k", &claim), IDEM_REPLAY);
    idem_close(second);
}

/* Who still has the old segment mapped writes into a log that is not his any more: he can't acknowledge anything. */
static void the_old_segment_is_fenced(void **state)
{
    (void)state;
    const char *place = support_dir();
    char log[160], dir[160];
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, sizeof log, "%s/l", place);
    snprintf(dir, sizeof dir, "%s/s", place);
    idem_options o = logged(log);
    o.flags |= IDEM_OPEN_FAIL_STALE;
    idem_store *old = support_open(dir, &o);
    idem_claim claim;
    CHECK_IS(support_begin(old, "k", &claim), IDEM_CLAIMED);
    support_remove(dir);
    idem_store *fresh = support_open(dir, &o);
    int e = support_complete(old, &claim, 200, "late");
    CHECK(e == IDEM_E_STALE || e == IDEM_E_LOG);
    idem_claim again;
    CHECK_IS(support_begin(fresh, "k", &again), IDEM_RECLAIMED);
    CHECK(again.token > claim.token);
    CHECK_IS(support_complete(fresh, &again, 200, "right"), IDEM_OK);
    idem_close(old);
    idem_close(fresh);
}

PROMISE(each_call_fails_once, "recover.tail", NULL)
PROMISE(a_living_stores_log_is_not_taken, "recover.owner", NULL)
PROMISE(tokens_grow_from_reboot_to_reboot, "recover.floor", "recover.ceiling", NULL)
PROMISE(the_logs_settings_come_back, "recover.settings", NULL)
PROMISE(opening_brings_it_back, "recover.unowned", NULL)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_call_fails_once),
        cmocka_unit_test(test_tokens_grow_from_reboot_to_reboot),
        cmocka_unit_test(test_opening_brings_it_back),
        cmocka_unit_test(test_the_logs_settings_come_back),
        cmocka_unit_test(test_a_living_stores_log_is_not_taken),
        cmocka_unit_test(the_old_segment_is_fenced),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
