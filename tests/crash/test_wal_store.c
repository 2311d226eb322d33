/*
 * tests/crash/test_wal_store.c - the machine dies after each call to the disk that three processes with one store make: what any of them was
 * told is durable is in the log that is left, and in the store that is built from it.
 *
 * Faults that must be noticed: planted in the library (log.*), in the kernel (a sync that does nothing).
 */
/* timeout: 300 s */
#include "crash/wal_store.h"

#include "recover/scan.h"
#include "support/wal_disk.h"

#define USERS 3u
#define EACH  20u

/* ------------------------------------------------------------------ the work */

static struct wal_place place;

static void tell(unsigned k, enum wal_known what)
{
    wal_record_told((uint64_t)k * 4 + what);
}

static void user(void *ctx)
{
    unsigned me = *(const unsigned *)ctx;
    idem_store *s = support_attach(place.store);
    for (unsigned i = 0; i < EACH; i++) {
        unsigned k = i * USERS + me;
        wal_do_key(&place, s, k, k % 3 == 0 ? IDEM_DURABILITY_SYNC : IDEM_DURABILITY_ASYNC,
                   k % 5 == 4 ? IDEM_DURABILITY_ASYNC : IDEM_DURABILITY_SYNC, k % 7 == 0 ? 150000 : 600, tell);
    }
    idem_close(s);
    add_relaxed(&place.page->done, 1); /* relaxed: a count */
}

/* What was said before idem_sync() is durable after it. */
static void sync_all(idem_store *s)
{
    enum wal_known before[WAL_KEYS];
    for (unsigned k = 0; k < WAL_KEYS; k++)
        before[k] = wal_said(&place.page->said[k]);
    if (idem_sync(s, 0) != IDEM_OK)
        return;
    for (unsigned k = 0; k < WAL_KEYS; k++)
        if (before[k] > wal_said(&place.page->durable[k]))
            tell(k, before[k]);
}

/* kills: the user whose sync fails dies of it, and the test process leaves the log to the users. */
static void work(unsigned failing, bool kills)
{
    static unsigned numbers[USERS] = {0, 1, 2};
    pid_t pid[USERS];
    unsigned dead = 0;
    idem_store *s = support_open(place.store, &place.options);
    wal_record_fail_only(8192);
    wal_record_fail_kills(kills);
    wal_record_fail_sync(failing);
    for (unsigned i = 0; i < USERS; i++)
        pid[i] = support_spawn(user, &numbers[i]);
    for (unsigned i = 0; i < 1000 && !kills && load_relaxed(&place.page->done) < USERS; i++) { /* relaxed: a count */
        sync_all(s);
        support_sleep_ms(5);
    }
    for (unsigned i = 0; i < USERS; i++)
        dead += support_reap(pid[i], SUPPORT_PATIENCE_MS) != 0;
    CHECK_IS(dead, kills);
    wal_record_fail_kills(false);
    sync_all(s);
    idem_close(s);
}

/* ------------------------------------------------------------------ what comes back */

static int find(void *ctx, const struct idem_rec *r, uint64_t file)
{
    uint8_t *known = ctx;
    unsigned k = 0;
    (void)file;
    if (r->kind == REC_RETAIN)
        return 0;
    for (unsigned i = 1; i < r->key_bytes; i++)
        k = k * 10 + (unsigned)(r->key[i] - '0');
    CHECK(k < WAL_KEYS);
    uint8_t now = r->state == REC_COMPLETED ? WAL_COMPLETED : WAL_CLAIMED;
    known[k] = now > known[k] ? now : known[k];
    return 0;
}

static const char *look(const char *at, const uint64_t *told, unsigned n)
{
    static char why[400];
    static uint8_t known[WAL_KEYS];
    struct idem_log_dir d;
    struct idem_scan_result r;
    memset(known, 0, sizeof known);
    int e = idem_log_dir_open(at, false, 0, &d);
    if (e == IDEM_OK) {
        e = idem_scan(&d, find, known, NULL, &r);
        idem_log_dir_close(&d);
    }
    if (e == IDEM_E_NO_STORE && n == 0)
        return NULL;
    snprintf(why, sizeof why, "refused: %s", idem_error_detail());
    if (e != IDEM_OK)
        return why;
    for (unsigned i = 0; i < n; i++)
        if (known[told[i] / 4] < told[i] % 4) {
            snprintf(why, sizeof why, "key %u was told as %u, the log has %u", (unsigned)(told[i] / 4),
                     (unsigned)(told[i] % 4), known[told[i] / 4]);
            return why;
        }
    return NULL;
}

static const char *look_in_store(const char *at, const uint64_t *told, unsigned n)
{
    static char why[400];
    char dir[200];
    snprintf(dir, sizeof dir, "%s/again", place.base);
    int e = wal_recover(at, dir);
    if (e == IDEM_E_NO_STORE && n == 0)
        return NULL;
    snprintf(why, sizeof why, "recovery: %s", idem_error_detail());
    if (e != IDEM_OK)
        return why;
    const char *wrong = NULL;
    idem_store *s = support_attach(dir);
    for (unsigned i = 0; i < n && wrong == NULL; i++)
        if ((unsigned)wal_ask(s, (unsigned)(told[i] / 4)) < told[i] % 4) {
            snprintf(why, sizeof why, "key %u was told as %u, the store says otherwise", (unsigned)(told[i] / 4),
                     (unsigned)(told[i] % 4));
            wrong = why;
        }
    idem_close(s);
    return wrong;
}

static const enum wal_keep ways[][2] = {{WAL_SOME, WAL_TORN}, {WAL_LOST, WAL_LOST}, {WAL_KEPT, WAL_SOME},
                                        {WAL_KEPT, WAL_LOST}, {WAL_LOST, WAL_KEPT}, {WAL_KEPT, WAL_KEPT},
                                        {WAL_SOME, WAL_SOME}};

/* Returns how many disks there were; *broken: the first that was not right, or "". */
static unsigned all_prefixes(struct wal_disk *disk, unsigned each, char broken[700])
{
    uint64_t random = support_seed();
    char at[200];
    unsigned images = 0;
    broken[0] = '\0';
    snprintf(at, sizeof at, "%s/image", place.base);
    for (unsigned i = 0; i < wal_recorded(); i++) {
        wal_disk_apply(disk, i);
        for (unsigned w = 0; w < each; w++, images++) {
            unsigned n;
            const uint64_t *told = wal_told(disk, &n);
            const enum wal_keep *way = ways[(i + w) % (sizeof ways / sizeof ways[0])];
            bool there = wal_disk_image(disk, at, way[0], way[1], &random);
            const char *why = there ? look(at, told, n) : n > 0 ? "the directory is gone" : NULL;
            if (!there && n == 0)
                continue;
            if (why == NULL && images % 40 == 0)
                why = look_in_store(at, told, n);
            if (why != NULL) {
                snprintf(broken, 700, "after call %u (%s), names %d, sectors %d: %s", i, wal_call_words(i), way[0],
                         way[1], why);
                return images;
            }
        }
    }
    return images;
}

static unsigned run(const char *fault, enum wal_lie lie, unsigned failing, bool kills, unsigned each, char broken[700])
{
    wal_place_make(&place);
    struct wal_disk *disk = wal_disk_new(NULL);
    support_fault(fault);
    wal_record_begin(place.log, lie);
    work(failing, kills);
    wal_record_end();
    support_fault(NULL);
    unsigned images = all_prefixes(disk, each, broken);
    wal_disk_free(disk);
    support_remove(place.base);
    return images;
}

static void what_was_told_is_there_after_each_call(void **state)
{
    (void)state;
    char broken[700];
    unsigned images = run(NULL, WAL_HONEST, 3, false, support_long() ? 60 : 5, broken);
    print_message("%u calls, %u disks, %llu errors told %s\n", wal_recorded(), images,
                  (unsigned long long)load_relaxed(&place.page->errors), broken);
    CHECK(broken[0] == '\0');
    CHECK(images > 400);
}

static void caught(const char *name, const char *fault, enum wal_lie lie, unsigned failing, bool kills)
{
    char broken[700];
    unsigned images = run(fault, lie, failing, kills, 4, broken);
    CHECK(broken[0] != '\0');
    support_caught(name, "by disk %u, %s", images, broken);
}
static void a_missing_fdatasync_is_noticed(void **state)
{
    (void)state;
    caught("log.no_fdatasync", "log.no_fdatasync", WAL_HONEST, 0, false);
}
static void a_missing_directory_sync_is_noticed(void **state)
{
    (void)state;
    caught("a missing directory sync", NULL, WAL_NO_DIRSYNC, 0, false);
    caught("log.no_dirsync", "log.no_dirsync", WAL_HONEST, 0, false);
}
static void telling_before_the_sync_is_noticed(void **state)
{
    (void)state;
    caught("log.ack_early", "log.ack_early", WAL_HONEST, 0, false);
}
static void going_on_in_a_file_whose_sync_failed_is_noticed(void **state)
{
    (void)state;
    caught("log.same_file", "log.same_file", WAL_HONEST, 3, false);
}

static void who_dies_of_a_failing_sync_leaves_a_file_that_is_given_up(void **state)
{
    (void)state;
    char broken[700];
    unsigned images = run(NULL, WAL_HONEST, 3, true, 4, broken);
    print_message("%u calls, %u disks %s\n", wal_recorded(), images, broken);
    CHECK(broken[0] == '\0');
}
static void a_failed_sync_that_was_not_said_is_noticed(void **state)
{
    (void)state;
    caught("log.unsaid_failure", "log.unsaid_failure", WAL_HONEST, 3, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_told_is_there_after_each_call),
        cmocka_unit_test(a_missing_fdatasync_is_noticed),
        cmocka_unit_test(a_missing_directory_sync_is_noticed),
        cmocka_unit_test(telling_before_the_sync_is_noticed),
        cmocka_unit_test(who_dies_of_a_failing_sync_leaves_a_file_that_is_given_up),
        cmocka_unit_test(a_failed_sync_that_was_not_said_is_noticed),
        cmocka_unit_test(going_on_in_a_file_whose_sync_failed_is_noticed),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
