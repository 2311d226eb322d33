/*
 * tests/unit/test_refused.c - the kernel refuses: each system call and each allocation that the library makes fails once, in each of the things
 * that it does for its caller.
 *
 * What must be: an error in words that name the file, or all goes well; nothing stays open, mapped or locked; the same call made again succeeds,
 * and what was there before is still there.
 */
/* timeout: 300 s */
#include "support/support.h"

#include "unit/refused_calls.h"

#include <sys/wait.h>

#define CALLS_MAX 400u /* of one kind in one act */

/* A place for a store and its log, with nothing in it. */
static char base[128], dir[160], wal[160];
static idem_options options, logged;
static idem_store *held; /* by what was prepared */

static void make_place(void)
{
    refuse_nothing(); /* if a check failed */
    held = NULL;
    snprintf(base, sizeof base, "%s", support_dir());
    snprintf(dir, sizeof dir, "%s/store", base);
    snprintf(wal, sizeof wal, "%s/log", base);
    CHECK_IS(mkdir(base, 0700), 0);
    options = support_options(16);
    logged = options;
    logged.flags |= IDEM_OPEN_NO_FLUSHER;
    logged.wal_dir = wal;
    logged.wal_file_bytes = 1 << 20;
    logged.wal_ring_refs = 64;
    logged.log_wait_ms = 100;
}

static bool about_place(const char *line)
{
    return strstr(line, base) != NULL;
}

/* Descriptors and mappings of what lies in the place. */
static unsigned kept_open(void)
{
    char line[512], path[300];
    unsigned n = 0;
    FILE *f = fopen("/proc/self/maps", "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        n += about_place(line);
    if (f != NULL)
        fclose(f);
    for (int fd = 0; fd < 256; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t got = readlink(path, line, sizeof line - 1);
        line[got > 0 ? got : 0] = '\0';
        n += about_place(line);
    }
    return n;
}

/* ------------------------------------------------------------------ what is done meanwhile */

/* prepare() is not disturbed. act() is; it returns an outcome or error of the library. After it came to its end, undisturbed, is() looks. */
struct scene {
    const char *name;
    void (*prepare)(void);
    int (*act)(void);
    void (*is)(void);
    bool once; /* in a process of its own each: what is refused is done once in a process's life */
    int only;  /* this kind of call alone: the others are those of another scene; 0: all */
};

static int open_and_close(const idem_options *o)
{
    idem_store *s = NULL;
    int e = idem_open(dir, o, &s);
    CHECK((e == IDEM_OK) == (s != NULL));
    idem_close(s);
    return e;
}

static void nothing(void) {}
static void close_held(void)
{
    idem_close(held);
    held = NULL;
}

static int create(void)
{
    return open_and_close(&options);
}
static int create_guarded_for_a_group(void)
{
    idem_options o = options;
    o.flags |= IDEM_OPEN_SIGBUS_GUARD;
    o.group = (int64_t)getegid() + 1;
    return open_and_close(&o);
}
static int create_in_huge_pages(void)
{
    idem_options o = options;
    o.huge = IDEM_HUGE_REQUIRE;
    int e = open_and_close(&o);
    return e == IDEM_E_SYSTEM && strstr(idem_error_detail(), "huge") != NULL ? IDEM_OK : e; /* there are none */
}
static int create_relative(void)
{
    idem_options o = options;
    idem_store *s = NULL;
    if (chdir(base) != 0)
        return IDEM_E_SYSTEM;
    int e = idem_open("./store", &o, &s);
    idem_close(s);
    return e;
}
static int create_and_use(void)
{
    idem_options o = options;
    idem_store *s = NULL;
    int e = idem_open(dir, &o, &s);
    if (e == IDEM_OK)
        e = support_begin(s, "done", NULL);
    idem_close(s);
    return e;
}
static void is_empty(void)
{
    idem_store *s = support_attach(dir);
    CHECK_IS(support_begin(s, "new", NULL), IDEM_CLAIMED);
    idem_close(s);
    support_verify(dir);
}

static void is_answered_or_claimed(void)
{
    support_verify(dir);
}

static void prepare_answered(void)
{
    idem_close(support_open(dir, &options));
    idem_store *s = support_attach(dir);
    support_answer(s, "done", 200, "an answer");
    idem_close(s);
}
static void is_answered(void)
{
    idem_store *s = support_attach(dir);
    CHECK_IS(support_begin(s, "done", NULL), IDEM_REPLAY);
    idem_close(s);
    support_verify(dir);
}
static int open_again(void)
{
    return open_and_close(NULL);
}
static int verify(void)
{
    idem_report report = IDEM_REPORT_INIT;
    return idem_verify(dir, &report);
}
static int destroy(void)
{
    int e = idem_destroy(dir);
    return e == IDEM_E_NO_STORE ? IDEM_OK : e; /* the one before had come as far as that */
}
static void is_gone(void)
{
    idem_store *s;
    CHECK_IS(idem_open(dir, NULL, &s), IDEM_E_NO_STORE);
    CHECK(access(dir, F_OK) != 0 || rmdir(dir) == 0); /* at most an empty directory: the last call was refused */
}

static void hold_answered(void)
{
    prepare_answered();
    held = support_attach(dir);
}

/* All that allocates, on an open store. */
static int look(void)
{
    idem_story story = IDEM_STORY_INIT;
    idem_reply reply = IDEM_REPLY_INIT;
    idem_stats_data stats = {.size = sizeof stats};
    idem_key key = support_key("done");
    idem_claim claim = IDEM_CLAIM_INIT;
    idem_request rq = support_request("done");
    uint8_t digest[16];
    int e = idem_lookup(held, &key, &reply);
    idem_reply_free(&reply);
    if (e == IDEM_REPLAY)
        e = idem_begin(held, &rq, &claim, &reply);
    idem_reply_free(&reply);
    if (e == IDEM_REPLAY)
        e = idem_wait(held, &rq, 10, &claim, &reply);
    idem_reply_free(&reply);
    if (e == IDEM_REPLAY)
        e = idem_explain(held, &key, &story);
    idem_story_free(&story);
    if (e >= 0)
        e = idem_stats(held, &stats);
    if (e >= 0)
        e = idem_digest(held, "abc", 3, digest);
    if (e >= 0) {
        idem_fingerprint_state *f = idem_fingerprint_begin(held);
        CHECK((f == NULL) == (idem_fingerprint_end(f) == 0));
        e = f != NULL ? IDEM_OK : IDEM_E_MEMORY;
    }
    return e;
}
static int walk_one(const idem_story *story, void *ctx)
{
    (void)story;
    ++*(unsigned *)ctx;
    return 0;
}
static int walk(void)
{
    unsigned n = 0;
    int e = idem_walk(held, walk_one, &n);
    CHECK(e != IDEM_OK || n == 1);
    return e;
}
static int close_answered(void)
{
    close_held();
    return IDEM_OK;
}

/* The store's path leads to another one by now. */
static void hold_replaced(void)
{
    hold_answered();
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    prepare_answered();
}
static int begin_answered(void)
{
    int e = support_begin(held, "done", NULL);
    return e == IDEM_REPLAY ? IDEM_OK : e;
}

/* A thread of its own, which has no lane yet. */
static void *begin_in_thread(void *result)
{
    *(int *)result = begin_answered();
    return NULL;
}
static int use_in_another_thread(void)
{
    pthread_t t;
    int e = IDEM_OK;
    CHECK_IS(__real_pthread_create(&t, NULL, begin_in_thread, &e), 0);
    pthread_join(t, NULL);
    return e;
}

/* ------------------------------------------------------------------ with a log */

static int create_logged(void)
{
    return open_and_close(&logged);
}
static int create_logged_with_flusher(void)
{
    idem_options o = logged;
    o.flags &= ~(uint32_t)IDEM_OPEN_NO_FLUSHER;
    return open_and_close(&o);
}
static int create_logged_for_a_group(void)
{
    idem_options o = logged;
    o.group = (int64_t)getegid() + 1;
    return open_and_close(&o);
}
static void prepare_logged(void)
{
    idem_store *s = support_open(dir, &logged);
    support_answer(s, "done", 200, "an answer");
    idem_claim claim;
    CHECK_IS(support_begin(s, "running", &claim), IDEM_CLAIMED);
    CHECK_IS(idem_mark(s, &claim, "half way", 8), IDEM_OK);
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    idem_close(s);
}
static void hold_logged(void)
{
    prepare_logged();
    held = support_open(dir, &logged);
}
/* The machine died: nothing is left but the log. */
static void prepare_log_alone(void)
{
    prepare_logged();
    support_remove(dir);
}
static int recover_check(void)
{
    idem_recovery r = IDEM_RECOVERY_INIT;
    r.wal_dir = wal;
    r.flags = IDEM_RECOVER_CHECK_ONLY;
    return idem_recover(&r);
}
/* Or of another process, this one did nothing yet. */
static void prepare_log_in_child(void *unused)
{
    (void)unused;
    prepare_log_alone();
}
static void prepare_log_elsewhere(void)
{
    support_in_child(prepare_log_in_child, NULL);
}
static int recover_it(void)
{
    idem_recovery r = IDEM_RECOVERY_INIT;
    r.dir = dir;
    r.wal_dir = wal;
    int e = idem_recover(&r);
    return e == IDEM_E_EXISTS ? IDEM_OK : e;
}

/* Something else where a record was, and a file of which only the next one knows the salt. */
static void prepare_log_damaged(void)
{
    char file[200];
    uint8_t noise[64];
    prepare_log_alone();
    memset(noise, 0x77, sizeof noise);
    snprintf(file, sizeof file, "%s/wal-%020u", wal, 1u);
    int fd = __real_open(file, O_RDWR | O_CLOEXEC, 0);
    CHECK(__real_pwrite(fd, noise, sizeof noise, 4096 + 64 + 16) == (ssize_t)sizeof noise);
    close(fd);
}
static void is_told(void)
{
    support_verify(dir);
}
static uint64_t damaged; /* places, says a salvage */
static int recover_salvage(void)
{
    idem_recovery r = IDEM_RECOVERY_INIT;
    r.dir = dir;
    r.wal_dir = wal;
    r.flags = IDEM_RECOVER_SALVAGE;
    int e = idem_recover(&r);
    if (e == IDEM_OK)
        damaged = r.damaged;
    return e == IDEM_E_EXISTS ? IDEM_OK : e;
}
/* Bytes that can't be read are damage, and are said to be. */
static void is_salvaged(void)
{
    if (damaged == 0 || refused.what != REFUSE_pread)
        is_answered();
    else
        support_verify(dir);
}
static int record_one(const idem_log_record *record, void *ctx)
{
    (void)record;
    (void)ctx;
    return 0;
}
static int log_walk(void)
{
    return idem_log_walk(wal, record_one, NULL);
}
static int use_logged(void)
{
    static unsigned n;
    char key[32];
    idem_claim claim;
    snprintf(key, sizeof key, "k%u", n++ % 8);
    int e = support_begin(held, key, &claim);
    if (e != IDEM_CLAIMED && e != IDEM_RECLAIMED)
        return e;
    idem_response r = support_response(200, "an answer");
    e = idem_complete(held, &claim, &r);
    if (e >= 0)
        e = idem_sync(held, 0);
    return e;
}
static int use_durable_answer(void)
{
    idem_reply reply = IDEM_REPLY_INIT;
    idem_claim claim = IDEM_CLAIM_INIT;
    idem_request rq = support_request("done");
    int e = idem_begin(held, &rq, &claim, &reply);
    idem_reply_free(&reply);
    return e == IDEM_REPLAY ? IDEM_OK : e;
}
static int destroy_logged(void)
{
    int e = idem_destroy(dir);
    return e == IDEM_E_NO_STORE ? IDEM_OK : e;
}

/* ------------------------------------------------------------------ the loop over all that can fail */

struct tally {
    unsigned seen[REFUSED_KINDS], cases, errors;
};
static struct tally *tally; /* children count, too */

/* Words that say what happened and to what; errno is kept. */
static void check_words(int e, int kept, enum refused_call what, int with)
{
    const char *words = idem_error_detail();
    print_message("#    %d, errno %d: %s\n", e, kept, words);
    bool memory = with == ENOMEM && what != REFUSE_mmap && what != REFUSE_fdopendir;
    if (memory && words[0] == '\0')
        return; /* the memory for the words themselves */
    CHECK(strlen(words) > 10);
    if (e == IDEM_E_SYSTEM)
        CHECK(strstr(words, strerror(kept)) != NULL || strstr(words, "huge") != NULL);
    CHECK(e != IDEM_E_CORRUPT && e != IDEM_E_INVALID && e != IDEM_E_LOST && e != IDEM_E_VERSION);
    if (memory)
        CHECK(e == IDEM_E_MEMORY || e == IDEM_E_SYSTEM);
}

static void one_case(const struct scene *s, enum refused_call what, unsigned nth, int with)
{
    make_place();
    unsigned open_before = kept_open();
    s->prepare();
    refuse(what, nth, with);
    int e = s->act(), kept = errno;
    refuse_nothing();
    if (what == REFUSED_KINDS)
        memcpy(tally->seen, refused.seen, sizeof refused.seen);
    if (e < 0) {
        check_words(e, kept, what, with);
        tally->errors++;
        e = s->act();
    }
    if (e < 0)
        print_error("%s: then %d: %s\n", s->name, e, idem_error_detail());
    CHECK(e >= 0);
    close_held();
    s->is();
    /* A descriptor that can't be asked whose it is may be a file of the host's by now: it is left alone. */
    CHECK(kept_open() <= open_before + (what == REFUSE_fstat));
    CHECK_IS(chdir("/"), 0);
    support_remove(base);
    tally->cases++;
}

struct one {
    const struct scene *scene;
    enum refused_call what; /* REFUSED_KINDS: nothing, they are counted */
    unsigned nth;
    int with;
};

static void one_in_child(void *ctx)
{
    const struct one *o = ctx;
    one_case(o->scene, o->what, o->nth, o->with);
}

static void run_one(struct one o)
{
    if (o.scene->once)
        support_in_child(one_in_child, &o);
    else
        one_in_child(&o);
}

static void each_call_is_refused(const struct scene *s)
{
    memset(tally, 0, sizeof *tally);
    run_one((struct one){s, REFUSED_KINDS, 0, 0});
    for (unsigned what = 0; what < REFUSED_KINDS; what++)
        for (unsigned w = 0; (s->only == 0 || s->only == (int)what) && w < 3 && refused_kinds[what].with[w] != 0; w++)
            for (unsigned nth = 1; nth <= tally->seen[what]; nth++) {
                struct one o = {s, (enum refused_call)what, nth, refused_kinds[what].with[w]};
                print_message("# %s: %s %u %s\n", s->name, refused_kinds[what].name, nth, strerror(o.with));
                CHECK(nth < CALLS_MAX);
                run_one(o);
            }
    print_message("%s: %u cases, %u errors\n", s->name, tally->cases, tally->errors);
}

static void scenes_of(const struct scene *scenes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        each_call_is_refused(&scenes[i]);
}

static void making_a_store_fails_in_words_and_leaves_nothing(void **state)
{
    (void)state;
    static const struct scene scenes[] = {
        {"create", nothing, create, is_empty, false, 0},
        {"create for a group", nothing, create_guarded_for_a_group, is_empty, false, 0},
        {"create in huge pages", nothing, create_in_huge_pages, nothing, false, REFUSE_fopen},
        {"create at a relative path", nothing, create_relative, is_empty, false, REFUSE_getcwd},
    };
    scenes_of(scenes, sizeof scenes / sizeof scenes[0]);
}

static void using_a_store_fails_in_words_and_harms_nothing(void **state)
{
    (void)state;
    static const struct scene scenes[] = {
        {"open", prepare_answered, open_again, is_answered, false, 0},
        {"verify", prepare_answered, verify, is_answered, false, REFUSE_calloc},
        {"destroy", prepare_answered, destroy, is_gone, false, 0},
        {"look", hold_answered, look, is_answered, false, 0},
        {"walk", hold_answered, walk, is_answered, false, 0},
        {"close", hold_answered, close_answered, is_answered, false, 0},
        {"begin in a store that was replaced", hold_replaced, begin_answered, is_answered, false, 0},
        {"begin in a new thread", hold_answered, use_in_another_thread, is_answered, false, 0},
    };
    scenes_of(scenes, sizeof scenes / sizeof scenes[0]);
}

static void a_log_fails_in_words_and_loses_nothing(void **state)
{
    (void)state;
    static const struct scene scenes[] = {
        {"create with a log", nothing, create_logged, is_empty, false, 0},
        {"create with a log and its thread", nothing, create_logged_with_flusher, is_empty, false,
         REFUSE_pthread_create},
        {"create with a log for a group", nothing, create_logged_for_a_group, is_empty, false, REFUSE_fchown},
        {"open with a log", prepare_logged, create_logged, is_answered, false, 0},
        {"write to a log", hold_logged, use_logged, is_answered, false, 0},
        {"replay with a log", hold_logged, use_durable_answer, is_answered, false, 0},
        {"open what only the log has", prepare_log_alone, create_logged, is_answered, false, 0},
        {"recover, checking only", prepare_logged, recover_check, is_answered, false, 0},
        {"recover, salvaging", prepare_log_alone, recover_salvage, is_salvaged, false, 0},
        {"recover, salvaging what is damaged", prepare_log_damaged, recover_salvage, is_told, false, REFUSE_realloc},
        {"recover, salvaging a damaged file", prepare_log_damaged, recover_salvage, is_told, false, REFUSE_renameat},
        {"recover, salvaging a file that goes", prepare_log_damaged, recover_salvage, is_told, false, REFUSE_openat},
        {"walk the log", prepare_logged, log_walk, is_answered, false, 0},
        {"destroy with a log", prepare_logged, destroy_logged, is_gone, false, 0},
    };
    scenes_of(scenes, sizeof scenes / sizeof scenes[0]);
}

static void what_a_process_does_once_fails_in_words(void **state)
{
    (void)state;
    tally = support_shared(sizeof *tally);
    static const struct scene scenes[] = {
        {"the first use of a process", nothing, create_and_use, is_answered_or_claimed, true,
         REFUSE_pthread_key_create},
        {"the first recovery of a process", prepare_log_elsewhere, recover_it, is_answered, true, REFUSE_mmap},
        {"the first open of a process", nothing, create_guarded_for_a_group, is_empty, true, 0},
    };
    scenes_of(scenes, sizeof scenes / sizeof scenes[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_process_does_once_fails_in_words), /* before this process has done it */
        cmocka_unit_test(making_a_store_fails_in_words_and_leaves_nothing),
        cmocka_unit_test(using_a_store_fails_in_words_and_harms_nothing),
        cmocka_unit_test(a_log_fails_in_words_and_loses_nothing),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
