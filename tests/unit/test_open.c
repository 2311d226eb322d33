/*
 * tests/unit/test_open.c - options and their bounds, defaults, opening what is there and what is not, destroying.
 */
#include "support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "segment/layout.h"
#include "segment/view.h"

static int open_with(const char *dir, const idem_options *options)
{
    idem_store *store = (idem_store *)&store;
    int e = idem_open(dir, options, &store);
    if (e == IDEM_OK)
        idem_close(store);
    else
        CHECK(store == NULL);
    return e;
}

static bool there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static void an_option_past_its_bound_is_invalid_and_creates_nothing(void **state)
{
    (void)state;
    const char *dir = support_dir();
#define BAD(field, value)                             \
    do {                                              \
        idem_options o = support_options(16);         \
        o.field = (value);                            \
        CHECK_IS(open_with(dir, &o), IDEM_E_INVALID); \
        CHECK(strlen(idem_error_detail()) > 10);      \
        CHECK(!there(dir));                           \
    } while (0)
    BAD(size, 0);
    BAD(size, offsetof(idem_options, keys) - 1);
    BAD(size, sizeof(idem_options) + 1);
    BAD(flags, 1u << 5);
    BAD(flags, 1u << 31);
    BAD(huge, IDEM_HUGE_OFF + 1);
    BAD(when_full, IDEM_FULL_EVICT + 1);
    BAD(keys, 15);
    BAD(keys, (UINT64_C(1) << 31) + 1);
    BAD(response_bytes, (1u << 20) + 1);
    BAD(total_bytes, (1u << 20) - 1);
    BAD(total_bytes, UINT64_MAX);
    BAD(ttl_ms, -1);
    BAD(ttl_ms, IDEM_TTL_MAX_MS + 1);
    BAD(ttl_ms, IDEM_FOREVER - 1);
    BAD(lease_ms, -1);
    BAD(lease_ms, IDEM_LEASE_MAX_MS + 1);
    BAD(lease_ms, IDEM_FOREVER);
    BAD(processes, IDEM_PROCESSES_MAX + 1);
    BAD(lanes, IDEM_LANES_MAX + 1);
    BAD(group, -1);
    BAD(group, INT64_C(1) << 32);
#undef BAD
    idem_options o = support_options(UINT64_C(1) << 31);
    o.response_bytes = 1u << 20; /* each in its bounds, but together more than can be addressed */
    CHECK_IS(open_with(dir, &o), IDEM_E_INVALID);
}

static void an_option_at_its_bound_is_accepted(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_options o = support_options(16);
    o.response_bytes = 1u << 20;
    o.ttl_ms = IDEM_TTL_MAX_MS;
    o.lease_ms = IDEM_LEASE_MAX_MS;
    o.processes = IDEM_PROCESSES_MAX;
    o.lanes = IDEM_LANES_MAX;
    idem_store *store = support_open(dir, &o);
    idem_stats_data s = support_stats(store);
    CHECK_IS(s.ttl_ms, IDEM_TTL_MAX_MS);
    CHECK_IS(s.lease_ms, IDEM_LEASE_MAX_MS);
    CHECK_IS(s.processes_max, IDEM_PROCESSES_MAX);
    CHECK_IS(s.lanes_max, IDEM_LANES_MAX);
    CHECK(s.response_max_bytes >= 1u << 20);
    idem_close(store);
    CHECK_IS(idem_destroy(dir), IDEM_OK);

    o = support_options(0);
    o.total_bytes = 1200000;
    o.ttl_ms = IDEM_FOREVER;
    o.lease_ms = 1;
    store = support_open(dir, &o);
    s = support_stats(store);
    CHECK_IS(s.ttl_ms, IDEM_FOREVER);
    CHECK_IS(s.lease_ms, 1);
    CHECK(s.keys_capacity >= 16);
    idem_close(store);
}

static void the_space_of_the_whole_store_can_be_given_instead_of_keys(void **state)
{
    (void)state;
    const uint64_t wanted = UINT64_C(32) << 20;
    idem_options o = support_options(5000000);
    o.total_bytes = wanted;
    idem_store *store = support_open(support_dir(), &o);
    idem_stats_data s = support_stats(store);
    CHECK(s.bytes_total <= 1000000 * (uint64_t)(512 + 40 + 82));
    CHECK(s.bytes_total >= wanted - wanted / 16);
    idem_close(store);
}

static void defaults_are_what_the_header_says(void **state)
{
    (void)state;
    struct stat shm;
    idem_options o = IDEM_OPTIONS_INIT;
    o.flags = IDEM_OPEN_CREATE;
    const char *dir = support_dir();
    CHECK_IS(stat("/dev/shm", &shm), 0);
    idem_store *store = NULL;
    int e = idem_open(dir, &o, &store);
    if (e == IDEM_E_SYSTEM && errno == ENOSPC) {
        CHECK(strstr(idem_error_detail(), "bytes are needed") != NULL);
        print_message("skipped: the default store of a million keys needs 650 MB in /dev/shm\n");
        skip();
    }
    CHECK_IS(e, IDEM_OK);
    idem_stats_data s = support_stats(store);
    CHECK_IS(s.keys_capacity, 1000000);
    CHECK_IS(s.ttl_ms, 24 * 3600 * 1000);
    CHECK_IS(s.lease_ms, 30000);
    CHECK_IS(s.processes_max, 512);
    CHECK_IS(s.lanes_max, 2048);
    CHECK_IS(s.when_full, IDEM_FULL_REFUSE);
    CHECK(s.slots * 10 >= s.keys_capacity * 18); /* a mean fill of 3.85 of 7 (segment/geometry.c) */
    /* At most 82 bytes a key beyond key and response, at the advertised number of keys. */
    CHECK(s.bytes_total <= 1000000 * (uint64_t)(512 + 40 + 82));
    idem_close(store);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
}

static void an_options_struct_of_an_older_header_is_enough(void **state)
{
    (void)state;
    idem_options o = support_options(16);
    o.size = offsetof(idem_options, processes);
    o.processes = 1; /* beyond its size: not looked at */
    idem_store *store = support_open(support_dir(), &o);
    CHECK_IS(support_stats(store).processes_max, 512);
    idem_close(store);
}

static void what_is_fixed_at_creation_is_ignored_when_opening(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_options o = support_options(16);
    o.ttl_ms = 1234;
    idem_store *first = support_open(dir, &o);
    o = support_options(100000);
    o.ttl_ms = 99;
    o.when_full = IDEM_FULL_EVICT;
    idem_store *second = support_open(dir, &o);
    idem_stats_data s = support_stats(second);
    CHECK_IS(s.keys_capacity, 16);
    CHECK_IS(s.ttl_ms, 1234);
    CHECK_IS(s.when_full, IDEM_FULL_REFUSE);
    idem_close(first);
    idem_close(second);
}

static void names_and_paths_are_checked(void **state)
{
    (void)state;
    char longest[1100];
    idem_options o = support_options(16);
    CHECK_IS(open_with(NULL, &o), IDEM_E_INVALID);
    CHECK_IS(open_with("", &o), IDEM_E_INVALID);
    static const char *const bad[] = {".", "..", ".hidden", "-option", "a b", "a\nb", "caf\303\251", "a*"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_IS(open_with(bad[i], &o), IDEM_E_INVALID);
        CHECK_IS(idem_destroy(bad[i]), IDEM_E_INVALID);
    }
    memset(longest, 'n', sizeof longest);
    longest[201] = '\0';
    CHECK_IS(open_with(longest, &o), IDEM_E_INVALID);
    longest[201] = 'n';
    longest[0] = '/';
    longest[1099] = '\0';
    CHECK_IS(open_with(longest, &o), IDEM_E_INVALID);
    CHECK_IS(idem_open(support_dir(), &o, NULL), IDEM_E_INVALID);
    CHECK_IS(idem_destroy(NULL), IDEM_E_INVALID);
}

static void a_path_may_be_relative_and_end_in_slashes(void **state)
{
    (void)state;
    char cwd[1024], path[1200];
    CHECK(getcwd(cwd, sizeof cwd) != NULL);
    const char *dir = support_dir();
    idem_store *store = support_open(dir, NULL);
    support_answer(store, "k", 7, "here");
    CHECK_IS(chdir(support_base()), 0);
    snprintf(path, sizeof path, "./%s//", strrchr(dir, '/') + 1);
    idem_store *same = NULL;
    int e = idem_open(path, NULL, &same);
    CHECK_IS(chdir(cwd), 0);
    CHECK_IS(e, IDEM_OK);
    CHECK_IS(support_begin(same, "k", NULL), IDEM_REPLAY);
    CHECK(idem_path(same)[0] == '/' && idem_path(same)[strlen(idem_path(same)) - 1] != '/');
    CHECK(strcmp(idem_path(store), dir) == 0);
    CHECK(strcmp(idem_path(NULL), "") == 0);
    idem_close(same);
    idem_close(store);
}

static void a_store_that_is_not_there_is_not_made_without_being_asked(void **state)
{
    (void)state;
    const char *dir = support_dir();
    CHECK_IS(open_with(dir, NULL), IDEM_E_NO_STORE);
    CHECK(!there(dir));
    CHECK_IS(mkdir(dir, 0700), 0);
    CHECK_IS(open_with(dir, NULL), IDEM_E_NO_STORE);
    idem_report report = IDEM_REPORT_INIT;
    CHECK_IS(idem_verify(dir, &report), IDEM_E_NO_STORE);
    CHECK_IS(idem_destroy(support_dir()), IDEM_E_NO_STORE);
    idem_options o = support_options(16);
    CHECK_IS(open_with("/nowhere-at-all/store", &o), IDEM_E_SYSTEM);
    CHECK_IS(errno, ENOENT);
}

static void exclusive_creation_refuses_a_store_that_is_there(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_options o = support_options(16);
    o.flags |= IDEM_OPEN_EXCLUSIVE;
    idem_store *store = support_open(dir, &o);
    CHECK_IS(open_with(dir, &o), IDEM_E_EXISTS);
    support_answer(store, "k", 1, "still here");
    CHECK_IS(support_stats(store).processes, 1);
    idem_close(store);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    CHECK(!there(dir));
    CHECK_IS(idem_destroy(dir), IDEM_E_NO_STORE);
}

static void modes_do_not_depend_on_the_umask(void **state)
{
    (void)state;
    static const mode_t masks[] = {0, 022, 077};
    for (size_t i = 0; i < 3; i++) {
        const char *dir = support_dir();
        char root[200];
        struct stat st;
        mode_t old = umask(masks[i]);
        idem_store *store = NULL;
        idem_options o = support_options(16);
        int e = idem_open(dir, &o, &store);
        umask(old);
        CHECK_IS(e, IDEM_OK);
        idem_close(store);
        snprintf(root, sizeof root, "%s/root", dir);
        CHECK_IS(stat(dir, &st), 0);
        CHECK_IS(st.st_mode & 07777, 0700);
        CHECK_IS(stat(root, &st), 0);
        CHECK_IS(st.st_mode & 07777, 0600);
    }
}

/* Changes the constant part of root by fn, and its checksum if asked. */
static void patch_root(const char *dir, void (*fn)(struct idem_root_const *), bool checksum)
{
    char path[200];
    snprintf(path, sizeof path, "%s/root", dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    struct idem_root_shm *root = mmap(NULL, sizeof *root, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(root != MAP_FAILED);
    close(fd);
    fn(&root->fixed);
    if (checksum)
        root->fixed.checksum = XXH3_64bits(&root->fixed, sizeof root->fixed - sizeof root->fixed.checksum);
    munmap(root, sizeof *root);
}

static void older_boot(struct idem_root_const *f)
{
    f->boot_id[0] = f->boot_id[0] == 'x' ? 'y' : 'x';
}
static void newer_layout(struct idem_root_const *f)
{
    f->layout_major++;
}
static void newer_feature(struct idem_root_const *f)
{
    f->features_required = 2;
}
static void newer_option(struct idem_root_const *f)
{
    f->features_optional = 1;
    f->layout_minor++;
}
static void another_lease(struct idem_root_const *f)
{
    f->lease_ms++;
}

static void a_store_from_before_the_last_boot_is_replaced(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_store *store = support_open(dir, NULL);
    support_answer(store, "k", 1, "old");
    idem_stats_data before = support_stats(store);
    idem_close(store);
    patch_root(dir, older_boot, true);
    CHECK_IS(open_with(dir, NULL), IDEM_E_NO_STORE);
    store = support_open(dir, NULL);
    idem_stats_data after = support_stats(store);
    CHECK(memcmp(before.store_uuid, after.store_uuid, 16) != 0);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_CLAIMED);
    idem_close(store);
}

static void another_version_is_refused_in_words(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_close(support_open(dir, NULL));
    patch_root(dir, newer_option, true); /* minor versions and optional features are accepted */
    idem_close(support_attach(dir));
    patch_root(dir, another_lease, false);
    CHECK_IS(open_with(dir, NULL), IDEM_E_CORRUPT);
    patch_root(dir, newer_feature, true);
    CHECK_IS(open_with(dir, NULL), IDEM_E_VERSION);
    CHECK(strstr(idem_error_detail(), "features") != NULL);
    patch_root(dir, newer_layout, true);
    idem_options create = support_options(16);
    CHECK_IS(open_with(dir, &create), IDEM_E_VERSION); /* never replaced */
    CHECK_IS(idem_destroy(dir), IDEM_OK);
}

static void what_a_dead_creator_left_is_cleared_away(void **state)
{
    (void)state;
    const char *dir = support_dir();
    char path[200];
    CHECK_IS(mkdir(dir, 0700), 0);
    static const char *const left[] = {"gen-00112233445566778899aabbccddeeff-1", "root.tmp-00112233445566778899aabb"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, left[i]);
        int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        CHECK(fd >= 0 && write(fd, "half", 4) == 4);
        close(fd);
    }
    idem_close(support_open(dir, NULL));
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, left[i]);
        CHECK(!there(path));
    }
}

static void process_slots_are_limited_and_come_back(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_options o = support_options(16);
    o.processes = 2;
    idem_store *a = support_open(dir, &o), *b = support_open(dir, &o);
    CHECK_IS(open_with(dir, &o), IDEM_E_FULL);
    CHECK(strstr(idem_error_detail(), "process") != NULL);
    CHECK_IS(support_stats(a).processes, 2);
    for (int i = 0; i < 1000; i++) {
        idem_close(b);
        b = support_open(dir, &o);
    }
    CHECK_IS(open_with(dir, &o), IDEM_E_FULL);
    idem_close(b);
    CHECK_IS(support_stats(a).processes, 1);
    idem_close(a);
}

static void die_with_a_handle(void *dir)
{
    idem_store *store = support_attach(dir);
    CHECK_IS(support_begin(store, "k", NULL), IDEM_CLAIMED);
    support_die(NULL);
}

static void the_slots_of_killed_processes_come_back(void **state)
{
    (void)state;
    const char *dir = support_dir();
    idem_options o = support_options(16);
    o.processes = 2;
    o.lanes = 2;
    idem_close(support_open(dir, &o));
    idem_store *keeper = support_attach(dir);
    for (int i = 0; i < 10; i++) {
        CHECK_IS(support_reap(support_spawn(die_with_a_handle, (void *)(uintptr_t)dir), SUPPORT_PATIENCE_MS),
                 SUPPORT_KILLED);
        CHECK_IS(support_begin(keeper, "k", NULL), IDEM_RECLAIMED);
        idem_key k = support_key("k");
        CHECK_IS(idem_forget(keeper, &k), IDEM_OK);
    }
    CHECK_IS(idem_maintain(keeper, 1000) >= 0, 1);
    CHECK_IS(support_stats(keeper).processes, 1);
    idem_close(keeper);
}

static void the_owner_descriptor_is_private_to_the_program(void **state)
{
    (void)state;
    idem_store *store = support_open(support_dir(), NULL);
    int fd = idem_owner_fd(store);
    CHECK(fd > 2);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK_IS(idem_owner_fd(NULL), IDEM_E_INVALID);
    idem_close(store);
    idem_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_option_past_its_bound_is_invalid_and_creates_nothing),
        cmocka_unit_test(an_option_at_its_bound_is_accepted),
        cmocka_unit_test(the_space_of_the_whole_store_can_be_given_instead_of_keys),
        cmocka_unit_test(defaults_are_what_the_header_says),
        cmocka_unit_test(an_options_struct_of_an_older_header_is_enough),
        cmocka_unit_test(what_is_fixed_at_creation_is_ignored_when_opening),
        cmocka_unit_test(names_and_paths_are_checked),
        cmocka_unit_test(a_path_may_be_relative_and_end_in_slashes),
        cmocka_unit_test(a_store_that_is_not_there_is_not_made_without_being_asked),
        cmocka_unit_test(exclusive_creation_refuses_a_store_that_is_there),
        cmocka_unit_test(modes_do_not_depend_on_the_umask),
        cmocka_unit_test(a_store_from_before_the_last_boot_is_replaced),
        cmocka_unit_test(another_version_is_refused_in_words),
        cmocka_unit_test(what_a_dead_creator_left_is_cleared_away),
        cmocka_unit_test(process_slots_are_limited_and_come_back),
        cmocka_unit_test(the_slots_of_killed_processes_come_back),
        cmocka_unit_test(the_owner_descriptor_is_private_to_the_program),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
