/*
 * tests/unit/test_salvage.c - a damaged log: what can be proven good comes back, what is lost is said, and the log is sound again afterwards.
 */
#include "unit/recovery_of.h"

#include <sys/stat.h>

#include "recover/scan.h"

#define PER_FILE 4u
#define FILES    3u
#define KEYS     (PER_FILE * FILES)

static uint64_t position[KEYS];

/* Each key has one answer, in two batches a file; a void batch behind those of file 2. */
static void write_log(struct hand_log *l, const char *dir)
{
    char key[16];
    CHECK_IS(mkdir(dir, 0700), 0);
    hand_open(l, dir);
    for (unsigned i = 0; i < KEYS; i++) {
        if (i % PER_FILE == 0)
            hand_file(l, true);
        snprintf(key, sizeof key, "key-%u", i);
        position[i] = hand_next(l);
        hand_add(l, hand_answer(l, key, ((uint64_t)LOG_T0 << 16) + i, "answer"));
        if (i % 2 == 1)
            hand_flush(l, true);
        if (i == 7) {
            hand_add(l, hand_answer(l, "void", (uint64_t)LOG_T0 << 16, "never acknowledged"));
            hand_flush(l, false);
        }
    }
}

static void file_of(const struct hand_log *l, uint64_t number, char file[256])
{
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(number, name);
    snprintf(file, 256, "%s/%s", l->path, name);
}

static uint64_t base_of(struct hand_log *l, uint64_t number)
{
    struct idem_file_rec f;
    int fd;
    CHECK_IS(idem_log_file_open(&l->d, number, NULL, false, &f, &fd), IDEM_OK);
    close(fd);
    return f.base;
}

static void overwrite(const struct hand_log *l, uint64_t number, uint64_t at, const void *bytes, size_t n)
{
    char file[256];
    file_of(l, number, file);
    int fd = open(file, O_RDWR);
    CHECK(fd >= 0);
    CHECK_IS(pwrite(fd, bytes, n, (off_t)at), n);
    close(fd);
}

static idem_recovery salvage(const struct hand_log *l, const char *dir, struct heard *h)
{
    idem_recovery r = recovery_of(l, dir, h);
    /* Refused without being asked to. */
    int e = idem_recover(&r);
    CHECK(e == IDEM_E_LOG_DAMAGED || e == IDEM_E_LOG_FOREIGN);
    memset(h, 0, sizeof *h);
    r.flags = IDEM_RECOVER_SALVAGE;
    CHECK_IS(idem_recover(&r), IDEM_OK);
    return r;
}

/* The file after it, which says that it is void, is missing. */
static bool void_may_come;

/* The keys in [from, to) are lost, and no other; and the log is sound from now on. */
static void lost_only(const struct hand_log *l, const char *dir, unsigned from, unsigned to)
{
    for (unsigned again = 0; again < 2; again++) {
        idem_store *store = support_attach(dir);
        for (unsigned i = 0; i < KEYS; i++) {
            char key[16];
            idem_reply reply = IDEM_REPLY_INIT;
            snprintf(key, sizeof key, "key-%u", i);
            idem_key k = support_key(key);
            CHECK_IS(idem_lookup(store, &k, &reply), i >= from && i < to ? IDEM_E_NO_KEY : IDEM_REPLAY);
            idem_reply_free(&reply);
        }
        idem_key k = support_key("void");
        if (!void_may_come)
            CHECK_IS(idem_lookup(store, &k, NULL), IDEM_E_NO_KEY);
        idem_close(store);
        support_verify(dir);
        support_remove(dir);
        struct heard h = {0};
        idem_recovery r = IDEM_RECOVERY_INIT;
        r.dir = dir;
        r.wal_dir = l->path;
        r.now_wall_ms = LOG_T0 + 6000;
        r.sentence = hear;
        r.ctx = &h;
        CHECK_IS(idem_recover(&r), IDEM_OK);
        CHECK_IS(r.cut_bytes, 0);
    }
}

static void places(const char *place, char log[160], char dir[160])
{
    CHECK_IS(mkdir(place, 0700), 0);
    snprintf(log, 160, "%s/l", place);
    snprintf(dir, 160, "%s/s", place);
}

static void one_record_is_damaged(void *place)
{
    struct hand_log l;
    struct heard h;
    char log[160], dir[160], file[256];
    places(place, log, dir);
    write_log(&l, log);
    overwrite(&l, 2, IDEM_WAL_HEADER_BYTES + (position[5] - base_of(&l, 2)) + 100, "XXXX", 4);
    idem_recovery r = salvage(&l, dir, &h);
    CHECK_IS(r.damaged, 1);
    CHECK_IS(r.lost_records, 1);
    CHECK_IS(r.keys, KEYS - 1);
    CHECK(strstr(h.text, "wal-00000000000000000002: bytes") != NULL);
    /* The damaged file is kept, the others are not needed any more. */
    file_of(&l, 1, file);
    CHECK(access(file, F_OK) != 0);
    file_of(&l, 2, file);
    CHECK(access(file, F_OK) != 0);
    strcat(file, ".damaged");
    CHECK(access(file, F_OK) == 0);
    lost_only(&l, dir, 5, 6);
    hand_close(&l);
}

static void a_header_is_gone(void *place)
{
    struct hand_log l;
    struct heard h;
    char log[160], dir[160];
    uint8_t zeros[512] = {0};
    places(place, log, dir);
    write_log(&l, log);
    overwrite(&l, 1, 0, zeros, sizeof zeros);
    idem_recovery r = salvage(&l, dir, &h);
    CHECK_IS(r.keys, KEYS); /* read with the salt that the next one names */
    CHECK(r.damaged >= 1);
    CHECK_IS(r.lost_records, 0);
    lost_only(&l, dir, 0, 0);
    hand_close(&l);
}

static void the_last_header_is_gone(void *place)
{
    struct hand_log l;
    struct heard h;
    char log[160], dir[160];
    uint8_t zeros[512] = {0};
    places(place, log, dir);
    write_log(&l, log);
    overwrite(&l, FILES, 0, zeros, sizeof zeros);
    idem_recovery r = salvage(&l, dir, &h);
    CHECK(r.lost_records >= 1);
    CHECK(strstr(h.text, "can't be read without its header") != NULL);
    (void)r;
    idem_store *store = support_attach(dir);
    idem_key k = support_key("key-0"), gone = support_key("key-11");
    CHECK_IS(idem_lookup(store, &k, NULL), IDEM_REPLAY);
    CHECK_IS(idem_lookup(store, &gone, NULL), IDEM_E_NO_KEY);
    idem_close(store);
    hand_close(&l);
}

static void a_file_is_missing(void *place)
{
    struct hand_log l;
    struct heard h;
    char log[160], dir[160], file[256];
    places(place, log, dir);
    write_log(&l, log);
    file_of(&l, 2, file);
    CHECK_IS(unlink(file), 0);
    idem_recovery r = salvage(&l, dir, &h);
    CHECK_IS(r.damaged, 1);
    CHECK(strstr(h.text, "files 2 to 2 are missing") != NULL);
    lost_only(&l, dir, PER_FILE, 2 * PER_FILE);
    hand_close(&l);
}

static void a_file_was_cut(void *place)
{
    struct hand_log l;
    struct heard h;
    char log[160], dir[160], file[256];
    places(place, log, dir);
    write_log(&l, log);
    file_of(&l, 2, file);
    CHECK_IS(truncate(file, (off_t)(IDEM_WAL_HEADER_BYTES + (position[6] - IDEM_WAL_BATCH_BYTES - base_of(&l, 2)))), 0);
    idem_recovery r = salvage(&l, dir, &h);
    CHECK(r.damaged >= 1);
    CHECK(r.lost_records >= 1);
    CHECK(strstr(h.text, "its header says") != NULL);
    lost_only(&l, dir, 6, 8);
    hand_close(&l);
}

static void the_id_is_gone(void *place)
{
    struct hand_log l;
    struct heard h;
    char log[160], dir[160], file[256];
    places(place, log, dir);
    write_log(&l, log);
    snprintf(file, sizeof file, "%s/id", l.path);
    CHECK_IS(unlink(file), 0);
    idem_recovery r = salvage(&l, dir, &h);
    CHECK_IS(r.keys, KEYS);
    lost_only(&l, dir, 0, 0);
    hand_close(&l);
}

static void a_foreign_file_is_put_aside(void *place)
{
    struct hand_log l, other;
    struct heard h;
    char log[160], dir[160], elsewhere[160], from[256], to[256];
    places(place, log, dir);
    write_log(&l, log);
    snprintf(elsewhere, sizeof elsewhere, "%s/o", (char *)place);
    CHECK_IS(mkdir(elsewhere, 0700), 0);
    hand_open(&other, elsewhere);
    memset(other.f.uuid, 0x33, 16);
    other.f.number = 1;
    hand_file(&other, false);
    file_of(&other, 2, from);
    file_of(&l, 2, to);
    CHECK_IS(rename(from, to), 0);
    idem_recovery r = salvage(&l, dir, &h);
    CHECK(r.damaged >= 1);
    CHECK(strstr(h.text, "another store") != NULL);
    strcat(to, ".damaged");
    CHECK(access(to, F_OK) == 0);
    lost_only(&l, dir, PER_FILE, 2 * PER_FILE);
    hand_close(&other);
    hand_close(&l);
}

static void a_sound_log_loses_nothing(void **state)
{
    (void)state;
    struct hand_log l;
    struct heard h;
    char log[160], dir[160];
    places(support_dir(), log, dir);
    write_log(&l, log);
    idem_recovery r = recovery_of(&l, dir, &h);
    r.flags = IDEM_RECOVER_SALVAGE;
    CHECK_IS(idem_recover(&r), IDEM_OK);
    CHECK_IS(r.damaged, 0);
    CHECK_IS(r.lost_records, 0);
    CHECK_IS(r.keys, KEYS);
    lost_only(&l, dir, 0, 0);
    hand_close(&l);
}

/* The files from `from` to `to`, and no others. */
static void files_are_missing(uint64_t from, uint64_t to, const char *words, unsigned keys_from, unsigned keys_to)
{
    struct hand_log l;
    struct heard h;
    char log[160], dir[160], file[256];
    places(support_dir(), log, dir);
    write_log(&l, log);
    for (uint64_t n = from; n <= to; n++) {
        file_of(&l, n, file);
        CHECK_IS(unlink(file), 0);
    }
    idem_recovery r = salvage(&l, dir, &h);
    CHECK(r.damaged >= 1);
    CHECK(strstr(h.text, words) != NULL);
    void_may_come = from <= FILES && to == FILES;
    lost_only(&l, dir, keys_from, keys_to);
    void_may_come = false;
    hand_close(&l);
}

static void the_first_or_the_last_files_are_missing(void **state)
{
    (void)state;
    files_are_missing(1, 1, "files 1 to 1 may be missing", 0, PER_FILE);
    files_are_missing(1, 2, "files 1 to 2 may be missing", 0, 2 * PER_FILE);
    files_are_missing(3, 3, "files 3 to 3 are missing; what they held is lost", 2 * PER_FILE, KEYS);
    files_are_missing(2, 3, "files 2 to 3 are missing; what they held is lost", PER_FILE, KEYS);
}

/* What even a salvage can do nothing with: it says so, and makes no store. */
static void salvage_is_refused(const struct hand_log *l, const char *dir, int code, const char *words)
{
    struct heard h;
    idem_recovery r = recovery_of(l, dir, &h);
    r.flags = IDEM_RECOVER_SALVAGE;
    CHECK_IS(idem_recover(&r), code);
    CHECK(strstr(idem_error_detail(), words) != NULL);
    CHECK(access(dir, F_OK) != 0);
}

static void what_can_not_be_salvaged_says_so(void **state)
{
    (void)state;
    struct hand_log l;
    char log[160], dir[160], file[256];
    uint8_t zeros[512] = {0}, head[IDEM_WAL_HEADER_BYTES];
    places(support_dir(), log, dir);
    write_log(&l, log);
    struct idem_file_rec later = l.f;
    later.major = IDEM_WAL_MAJOR + 1;
    idem_file_encode(&later, head);
    overwrite(&l, FILES, 0, head, sizeof head);
    salvage_is_refused(&l, dir, IDEM_E_VERSION, "wal-00000000000000000003: a later version's file");
    for (uint64_t n = 1; n <= FILES; n++)
        overwrite(&l, n, 0, zeros, sizeof zeros);
    salvage_is_refused(&l, dir, IDEM_E_LOG_DAMAGED, "no file has a readable header");
    for (uint64_t n = 1; n <= FILES; n++) {
        file_of(&l, n, file);
        CHECK_IS(unlink(file), 0);
    }
    salvage_is_refused(&l, dir, IDEM_E_LOG_DAMAGED, "all files are missing; the id says that there were 3");
    hand_close(&l);
    /* Where there never was a file there is nothing to salvage. */
    places(support_dir(), log, dir);
    CHECK_IS(mkdir(log, 0700), 0);
    hand_open(&l, log);
    salvage_is_refused(&l, dir, IDEM_E_NO_STORE, "nothing was ever written");
    hand_close(&l);
}

/* A header that is sound, but another file's: what is in the file is read with what the next one says. */
static void a_file_under_another_name_is_not_taken_at_its_word(void **state)
{
    (void)state;
    struct hand_log l;
    struct heard h;
    char log[160], dir[160];
    uint8_t head[IDEM_WAL_HEADER_BYTES];
    places(support_dir(), log, dir);
    write_log(&l, log);
    struct idem_file_rec other = l.f; /* the last one's */
    idem_file_encode(&other, head);
    overwrite(&l, 2, 0, head, sizeof head);
    idem_recovery r = salvage(&l, dir, &h);
    CHECK_IS(r.keys, KEYS);
    CHECK(r.damaged >= 1);
    lost_only(&l, dir, 0, 0);
    hand_close(&l);
}

/* Many damaged files, more than the list of them begins with. */
static void every_file_of_many_is_damaged(void **state)
{
    (void)state;
    enum { MANY = 40 };
    struct hand_log l;
    struct heard h;
    char log[160], dir[160], key[16];
    uint64_t at[MANY];
    places(support_dir(), log, dir);
    CHECK_IS(mkdir(log, 0700), 0);
    hand_open(&l, log);
    for (unsigned i = 0; i < MANY; i++) {
        hand_file(&l, true);
        for (unsigned k = 0; k < 2; k++) {
            snprintf(key, sizeof key, "key-%u", i * 2 + k);
            at[i] = hand_next(&l) - l.f.base;
            hand_add(&l, hand_answer(&l, key, ((uint64_t)LOG_T0 << 16) + i * 2 + k, "answer"));
        }
        hand_flush(&l, true);
    }
    for (unsigned i = 0; i < MANY; i++)
        overwrite(&l, i + 1, IDEM_WAL_HEADER_BYTES + at[i] + 100, "XXXX", 4);
    idem_recovery r = salvage(&l, dir, &h);
    CHECK_IS(r.damaged, MANY);
    CHECK_IS(r.lost_records, MANY);
    CHECK_IS(r.keys, MANY);
    idem_store *store = support_attach(dir);
    for (unsigned i = 0; i < 2 * MANY; i++) {
        snprintf(key, sizeof key, "key-%u", i);
        idem_key k = support_key(key);
        CHECK_IS(idem_lookup(store, &k, NULL), i % 2 == 0 ? IDEM_REPLAY : IDEM_E_NO_KEY);
    }
    idem_close(store);
    hand_close(&l);
}

static void recover_once(void *recovery)
{
    idem_recover(recovery);
}

static void who_salvages_is_killed_at_each_step(void **state)
{
    static const char *const points[] = {"recover.owned",  "log.file.made",   "recover.copied",    "log.file.named",
                                         "recover.sealed", "recover.visible", "recover.put_aside", "log.file.deleted"};
    (void)state;
    for (unsigned i = 0; i < sizeof points / sizeof points[0]; i++) {
        struct hand_log l;
        struct heard h;
        char log[160], dir[160];
        places(support_dir(), log, dir);
        write_log(&l, log);
        overwrite(&l, 2, IDEM_WAL_HEADER_BYTES + (position[5] - base_of(&l, 2)) + 100, "XXXX", 4);
        idem_recovery r = recovery_of(&l, dir, &h);
        r.flags = IDEM_RECOVER_SALVAGE;
        support_at_point(points[i], 1, support_die, NULL);
        pid_t pid = support_spawn(recover_once, &r);
        CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
        support_at_point(NULL, 0, NULL, NULL);
        CHECK_IS(idem_recover(&r), i < 5 ? IDEM_OK : IDEM_E_EXISTS);
        check_nothing_is_left(dir, l.path);
        lost_only(&l, dir, 5, 6);
        hand_close(&l);
    }
}

PROMISE(one_record_is_damaged, "salvage.silent", "salvage.stops", "salvage.void", NULL)
PROMISE(a_header_is_gone, "salvage.no_salt", NULL)
PROMISE(the_last_header_is_gone, "salvage.silent_header", NULL)
PROMISE(a_file_is_missing, "salvage.gap", NULL)
PROMISE(a_file_was_cut, "salvage.cut", NULL)
PROMISE(the_id_is_gone, "salvage.id", NULL)
PROMISE(a_foreign_file_is_put_aside, "salvage.foreign", NULL)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_record_is_damaged),
        cmocka_unit_test(test_a_header_is_gone),
        cmocka_unit_test(test_the_last_header_is_gone),
        cmocka_unit_test(test_a_file_is_missing),
        cmocka_unit_test(test_a_file_was_cut),
        cmocka_unit_test(test_the_id_is_gone),
        cmocka_unit_test(test_a_foreign_file_is_put_aside),
        cmocka_unit_test(a_sound_log_loses_nothing),
        cmocka_unit_test(the_first_or_the_last_files_are_missing),
        cmocka_unit_test(what_can_not_be_salvaged_says_so),
        cmocka_unit_test(a_file_under_another_name_is_not_taken_at_its_word),
        cmocka_unit_test(every_file_of_many_is_damaged),
        cmocka_unit_test(who_salvages_is_killed_at_each_step),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
