/*
 * tests/unit/test_planted.c - whose files they are: what others planted where a store, its log or a user's stores belong is refused in words, and
 * who holds a directory for ten seconds is told of.
 *
 * The waits sleep no time here (unit/refused_calls.h). What needs another user, or a file system to mount, needs root, and says so.
 */
#include "support/support.h"

#include "unit/refused_calls.h"
#include "wal/format.h"

#include <grp.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/wait.h>

#define EVE       64003u
#define TEAM      64100u
#define NO_RIGHTS 77 /* exit status of a child */

static char dir[160], wal[160];
static idem_options options;

static void fresh(void)
{
    snprintf(dir, sizeof dir, "%s", support_dir());
    snprintf(wal, sizeof wal, "%s", support_dir());
    options = support_options(16);
    options.flags |= IDEM_OPEN_NO_FLUSHER;
    options.wal_dir = wal;
}

static void needs_root(void)
{
    if (geteuid() != 0) {
        print_message("skipped: needs root, to be another user\n");
        skip();
    }
}

/* The last call said why, and what. */
static void in_words(int line, int e, int code, const char *path, const char *words)
{
    if (e != code)
        print_error("line %d: %d: %s\n", line, e, idem_error_detail());
    CHECK_IS(e, code);
    CHECK(strstr(idem_error_detail(), path) != NULL);
    CHECK(strstr(idem_error_detail(), words) != NULL);
}

static int try_open(const idem_options *o)
{
    idem_store *s = NULL;
    int e = idem_open(dir, o, &s);
    idem_close(s);
    return e;
}

/* ------------------------------------------------------------------ a log's directory */

static char path_of[300], elsewhere[200];

static const char *in_log(const char *name)
{
    snprintf(path_of, sizeof path_of, "%s/%s", wal, name);
    return path_of;
}

/* By whoever opens it: the store, a recovery, a walk. */
static int each_record(const idem_log_record *record, void *ctx)
{
    (void)record;
    (void)ctx;
    return 0;
}
static void log_is_refused(int code, const char *path, const char *words)
{
    idem_recovery r = IDEM_RECOVERY_INIT;
    r.wal_dir = wal;
    r.flags = IDEM_RECOVER_CHECK_ONLY;
    in_words(__LINE__, try_open(&options), code, path, words);
    in_words(__LINE__, idem_recover(&r), code, path, words);
    in_words(__LINE__, idem_log_walk(wal, each_record, NULL), code, path, words);
}

static void what_is_planted_in_a_log_is_refused(void **state)
{
    (void)state;
    static const char *const ways[] = {"symlink", "FIFO", "link", "mode", "directory", "version", "file FIFO"};
    for (unsigned i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        fresh();
        CHECK_IS(try_open(&options), IDEM_OK);
        support_remove(dir);
        snprintf(elsewhere, sizeof elsewhere, "%s", support_dir());
        const char *id = in_log("id"), *words = "one link";
        switch (i) {
        case 0:
            CHECK(rename(id, elsewhere) == 0 && symlink(elsewhere, id) == 0);
            words = "symlink; remove";
            break;
        case 1:
            CHECK(unlink(id) == 0 && mkfifo(id, 0600) == 0);
            break;
        case 2:
            CHECK_IS(link(id, elsewhere), 0);
            break;
        case 3:
            CHECK_IS(chmod(id, 0666), 0);
            words = "not writable by others";
            break;
        case 4:
            CHECK_IS(chmod(wal, 0777), 0);
            words = "mode 0777";
            break;
        case 5: {
            struct idem_log_id_rec rec = {IDEM_WAL_MAJOR + 1, 0, 1000, {1}, {2}, 7, 0};
            uint8_t sector[IDEM_WAL_SECTOR_BYTES];
            idem_log_id_encode(&rec, sector);
            int fd = open(id, O_RDWR | O_CLOEXEC);
            CHECK_IS(pwrite(fd, sector, sizeof sector, IDEM_WAL_SECTOR_BYTES), sizeof sector);
            close(fd);
            words = "reads format";
            break;
        }
        default:
            id = in_log("wal-00000000000000000001");
            CHECK(unlink(id) == 0 && mkfifo(id, 0600) == 0);
        }
        log_is_refused(i == 5 ? IDEM_E_VERSION : IDEM_E_PERMISSION, i == 4 ? wal : path_of, words);
        CHECK(access(dir, F_OK) != 0);
    }
}

static void a_log_directory_that_is_none_is_refused(void **state)
{
    (void)state;
    fresh();
    snprintf(elsewhere, sizeof elsewhere, "%s", support_dir());
    CHECK(mkdir(elsewhere, 0700) == 0 && symlink(elsewhere, wal) == 0);
    log_is_refused(IDEM_E_PERMISSION, wal, "not a directory");
    CHECK_IS(unlink(wal), 0);
    int fd = open(wal, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
    log_is_refused(IDEM_E_PERMISSION, wal, "not a directory");
    CHECK_IS(unlink(wal), 0);
    /* Slashes at its end change nothing. */
    char slashes[200];
    snprintf(slashes, sizeof slashes, "%s//", wal);
    options.wal_dir = slashes;
    CHECK_IS(try_open(&options), IDEM_OK);
}

/* Names that look like a log's files, but are none, are nobody's business. */
static void other_names_in_a_log_are_left_alone(void **state)
{
    (void)state;
    static const char *const names[] = {"wal-",           "wal-x",
                                        "wal-.tmp.",      "wal-00000000000000000000",
                                        "wal-1",          "wal-00000000000000000001x",
                                        "wal-.old",       "wal-99999999999999999999999",
                                        "something else", "wal-99999999999999999999"};
    fresh();
    CHECK_IS(try_open(&options), IDEM_OK);
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        int fd = open(in_log(names[i]), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        CHECK(fd >= 0);
        close(fd);
    }
    CHECK_IS(try_open(&options), IDEM_OK);
    support_remove(dir);
    CHECK_IS(try_open(&options), IDEM_OK);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        CHECK_IS(access(in_log(names[i]), F_OK), 0);
}

static void a_log_that_is_gone_or_anothers_does_not_stop_destroying(void **state)
{
    (void)state;
    fresh();
    CHECK_IS(try_open(&options), IDEM_OK);
    support_remove(wal);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    CHECK(access(dir, F_OK) != 0);
    fresh();
    CHECK_IS(try_open(&options), IDEM_OK);
    char first[160];
    snprintf(first, sizeof first, "%s", dir);
    support_remove(wal);
    snprintf(dir, sizeof dir, "%s", support_dir());
    CHECK_IS(try_open(&options), IDEM_OK); /* another store's log, where the first one's was */
    CHECK_IS(idem_destroy(first), IDEM_OK);
    CHECK_IS(access(in_log("wal-00000000000000000001"), F_OK), 0);
    CHECK_IS(try_open(NULL), IDEM_OK);
}

/* ------------------------------------------------------------------ who holds a directory and does not get on */

static void who_holds_a_directory_for_ever_is_told_of(void **state)
{
    (void)state;
    fresh();
    CHECK_IS(try_open(&options), IDEM_OK);
    int store_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
        log_fd = open(wal, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK_IS(flock(store_fd, LOCK_EX), 0);
    refuse_sleep();
    in_words(__LINE__, idem_destroy(dir), IDEM_E_SYSTEM, dir, "is it stopped?");
    CHECK_IS(flock(store_fd, LOCK_UN), 0);
    CHECK_IS(flock(log_fd, LOCK_EX), 0);
    in_words(__LINE__, idem_destroy(dir), IDEM_E_LOG, wal, "is it stopped?");
    support_remove(dir);
    in_words(__LINE__, try_open(&options), IDEM_E_LOG, wal, "is it stopped?");
    refuse_nothing();
    CHECK_IS(flock(log_fd, LOCK_UN), 0);
    CHECK_IS(try_open(&options), IDEM_OK);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    close(store_fd);
    close(log_fd);
}

/* ------------------------------------------------------------------ stores by name, and other users */

static void as_user(void (*fn)(void *ctx), void *ctx)
{
    int how = support_reap(support_spawn(fn, ctx), SUPPORT_PATIENCE_MS);
    if (how == SUPPORT_FAILED)
        print_error("in a child: %s\n", support_why());
    support_forget_why();
    if (how == NO_RIGHTS) {
        print_message("skipped: needs the right to mount\n");
        skip();
    }
    CHECK_IS(how, 0);
}

static void become_eve(void)
{
    gid_t team = TEAM;
    CHECK(setgroups(1, &team) == 0 && setresgid(EVE, EVE, EVE) == 0 && setresuid(EVE, EVE, EVE) == 0);
}

/* A mount namespace of our own, with an empty tmpfs at each place. */
static void own_mounts(void)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777") != 0 || mount("tmpfs", "/run", "tmpfs", 0, "mode=755") != 0)
        _exit(NO_RIGHTS);
}

static int open_name(const char *name, bool create)
{
    idem_options o = support_options(16);
    idem_store *s = NULL;
    if (!create)
        o.flags = 0;
    int e = idem_open(name, &o, &s);
    if (e == IDEM_OK)
        snprintf(path_of, sizeof path_of, "%s", idem_path(s));
    idem_close(s);
    return e;
}

static void names_of_eve(void *unused)
{
    (void)unused;
    char home[64];
    snprintf(home, sizeof home, "/dev/shm/idem-%u", EVE);
    own_mounts();
    CHECK(chmod("/dev/shm", 0755) == 0);
    pid_t pid = fork();
    if (pid == 0) { /* where she may make no directory */
        become_eve();
        CHECK_IS(open_name("a", false), IDEM_E_NO_STORE);
        in_words(__LINE__, open_name("a", true), IDEM_E_SYSTEM, home, "cannot create the directory");
        support_save_counters();
        _exit(0);
    }
    CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
    CHECK(chmod("/dev/shm", 01777) == 0);
    /* What others made in its place. */
    for (unsigned i = 0; i < 5; i++) {
        int fd = i == 0 ? open(home, O_CREAT | O_WRONLY | O_CLOEXEC, 0600) : -1;
        if (fd >= 0)
            close(fd);
        CHECK(i != 1 || symlink("/run", home) == 0);
        CHECK(i < 2 || mkdir(home, 0700) == 0);
        CHECK(i != 2 || chown(home, EVE + 1, TEAM) == 0);
        CHECK(i != 3 || (chown(home, EVE, EVE) == 0 && chmod(home, 0720) == 0));
        CHECK(i != 4 || chmod(home, 0755) == 0);
        pid = fork();
        if (pid == 0 && i == 4) { /* root's is trusted; she may not write to it */
            become_eve();
            CHECK_IS(open_name("a", false), IDEM_E_NO_STORE);
            refuse(REFUSE_lstat, 1, EACCES); /* what it is can't be told */
            in_words(__LINE__, open_name("a", true), IDEM_E_SYSTEM, home, "");
            refuse_nothing();
            support_save_counters();
            _exit(0);
        }
        if (pid == 0) {
            become_eve();
            in_words(__LINE__, open_name("a", true), IDEM_E_PERMISSION, home, "remove what was planted");
            in_words(__LINE__, idem_destroy("a"), IDEM_E_PERMISSION, home, "remove what was planted");
            support_save_counters();
            _exit(0);
        }
        CHECK_IS(support_reap(pid, SUPPORT_PATIENCE_MS), 0);
        CHECK_IS(remove(home), 0);
    }
    CHECK_IS(mkdir("/run/idem", 01755), 0); /* of another kind than memory: no place for stores */
    CHECK_IS(mount("proc", "/run/idem", "proc", 0, NULL), 0);
    CHECK_IS(open_name("roots", true), IDEM_OK);
    CHECK(strncmp(path_of, "/dev/shm/", 9) == 0);
    CHECK_IS(umount("/run/idem"), 0);
    CHECK_IS(idem_destroy(path_of), IDEM_OK);
    /* a place for all, which she may not write to */
    CHECK_IS(open_name("roots", true), IDEM_OK);
    CHECK_BYTES(path_of, strlen(path_of), "/run/idem/roots");
    become_eve();
    CHECK_IS(open_name("a", true), IDEM_OK);
    CHECK(strncmp(path_of, home, strlen(home)) == 0);
    CHECK_IS(open_name("a", false), IDEM_OK);
    in_words(__LINE__, open_name("roots", false), IDEM_E_PERMISSION, "/run/idem/roots", "may not open it");
    CHECK_IS(idem_destroy("a"), IDEM_OK);
}

static void stores_by_name_lie_where_nobody_else_can_plant_them(void **state)
{
    (void)state;
    needs_root();
    as_user(names_of_eve, NULL);
}

/* dir and wal are root's, open to TEAM by their mode; or not quite. */
static void eve_may_open(void *code)
{
    become_eve();
    int wanted = (int)(intptr_t)code;
    options.flags &= ~(uint32_t)IDEM_OPEN_CREATE;
    int e = try_open(&options);
    if (e != wanted)
        fprintf(stderr, "%d: %s\n", e, idem_error_detail());
    CHECK_IS(e, wanted);
}

static void give_to_team(const char *path, gid_t group, mode_t mode)
{
    char name[300];
    DIR *d = opendir(path);
    CHECK(d != NULL);
    for (struct dirent *ent; (ent = readdir(d)) != NULL;) {
        snprintf(name, sizeof name, "%s/%s", path, ent->d_name);
        if (ent->d_name[0] != '.')
            CHECK(chown(name, EVE + 1, group) == 0 && chmod(name, mode & 0666) == 0);
    }
    closedir(d);
    CHECK(chown(path, EVE + 1, group) == 0 && chmod(path, mode) == 0);
}

static void anothers_store_is_trusted_only_if_it_is_shared_with_a_group_of_ours(void **state)
{
    (void)state;
    needs_root();
    static const struct {
        gid_t group;
        mode_t mode;
        int code;
    } cases[] = {
        {TEAM, 0770, IDEM_OK},               /* one that she is in besides */
        {EVE, 0770, IDEM_OK},                /* her own */
        {TEAM + 1, 0775, IDEM_E_PERMISSION}, /* one that she is not in */
        {TEAM, 0750, IDEM_E_PERMISSION},     /* shared for reading: not on purpose */
        {TEAM, 0777, IDEM_E_PERMISSION},     /* with everybody */
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fresh();
        CHECK_IS(try_open(&options), IDEM_OK);
        give_to_team(dir, cases[i].group, cases[i].mode);
        give_to_team(wal, cases[i].group, cases[i].mode);
        as_user(eve_may_open, (void *)(intptr_t)cases[i].code);
    }
    /* The log alone is not shared. */
    fresh();
    CHECK_IS(try_open(&options), IDEM_OK);
    give_to_team(dir, TEAM, 0770);
    give_to_team(wal, TEAM, 0755);
    as_user(eve_may_open, (void *)(intptr_t)IDEM_E_PERMISSION);
    give_to_team(wal, TEAM + 1, 0775); /* or with others */
    as_user(eve_may_open, (void *)(intptr_t)IDEM_E_PERMISSION);
}

/* ------------------------------------------------------------------ a daemon without standard descriptors */

static void without_standard_descriptors(void *unused)
{
    (void)unused;
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    idem_store *s = NULL;
    if (idem_open(dir, &options, &s) != IDEM_OK)
        _exit(1);
    struct stat st;
    for (int fd = 1; fd < 3; fd++) /* what is printed lands nowhere */
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
            _exit(2);
    idem_claim claim;
    if (write(1, "printed", 7) > 0 || write(2, "printed", 7) > 0 || support_begin(s, "k", &claim) != IDEM_CLAIMED)
        _exit(3);
    idem_close(s);
}

static void what_a_daemon_prints_does_not_land_in_the_store(void **state)
{
    (void)state;
    fresh();
    options.wal_dir = NULL;
    CHECK_IS(support_reap(support_spawn(without_standard_descriptors, NULL), SUPPORT_PATIENCE_MS), 0);
    support_verify(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_planted_in_a_log_is_refused),
        cmocka_unit_test(a_log_directory_that_is_none_is_refused),
        cmocka_unit_test(other_names_in_a_log_are_left_alone),
        cmocka_unit_test(a_log_that_is_gone_or_anothers_does_not_stop_destroying),
        cmocka_unit_test(who_holds_a_directory_for_ever_is_told_of),
        cmocka_unit_test(stores_by_name_lie_where_nobody_else_can_plant_them),
        cmocka_unit_test(anothers_store_is_trusted_only_if_it_is_shared_with_a_group_of_ours),
        cmocka_unit_test(what_a_daemon_prints_does_not_land_in_the_store),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
