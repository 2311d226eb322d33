/*
 * tests/multi/test_wal_days.c - a week of a store with a log, in simulated time, from one seed: workers are killed, stopped and replaced, calls to the
 * disk fail, the wall clock is set, the machine dies with what was not synced lost, kept or torn, and recovery is killed, too.
 *
 * Whatever anybody was told must be explained by one order (support/history.h): what was told as durable, or is by the flush interval, survives the
 * machine; a key that was answered is not claimed again before its time; tokens grow. An error of the log needs a reason, and goes with it.
 * Each hour, slots of processes, lanes, memory and the log's files are within what docs/wal.md and the options say. The same seed
 * gives the same week: the digest of all that was told. `IDEM_TEST_SEED` repeats one.
 */
/* timeout: 300 s */
#include "multi/wal_weather.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "segment/layout.h"
#include "wal/format.h"

#define FILE_BYTES  (UINT64_C(1) << 20)
#define FILES_READ  6u /* of so many a recovery leaves all, and adds one */
#define STEP_MS     (10 * MINUTE_MS)
#define DAY_CALLS   24u /* a step, by day */
#define NIGHT_CALLS 4u
#define STORE_KEYS  2048u
#define WALL_MS     INT64_C(1790000000000) /* when the week begins */

static idem_store *own;      /* the test's handle; it looks, and flushes as a timer would */
static bool wall_set;        /* since the store was made or came back */
static uint64_t set_batches; /* the log's batches by then */
static int safe_calls;       /* what was told by so many calls is on the disk */

/* ------------------------------------------------------------------ the checker */

static void check_key(unsigned key)
{
    struct history_call calls[HISTORY_CALLS_MAX];
    struct day_key *k = &world->key[key];
    unsigned n = 0;
    for (int i = k->first; i >= 0; i = world->call[i].next) {
        CHECK(n < HISTORY_CALLS_MAX);
        calls[n] = world->call[i].call;
        if (calls[n].returned == 0)
            calls[n].returned_ms =
                world->deaths[calls[n].worker].known != 0 ? world->deaths[calls[n].worker].known_ms : now_ms();
        n++;
    }
    k->asked = false;
    enum history_answer a = history_check(calls, n, world->deaths);
    if (a == HISTORY_EXPLAINED)
        return;
    if (getenv("IDEM_TEST_SEED") != NULL && a == HISTORY_CONTRADICTS) {
        n = history_shrink(calls, n, world->deaths);
        history_print(stderr, calls, n, world->deaths);
    }
    CHECK(a != HISTORY_TOO_LARGE);
    support_check_failed(__FILE__, __LINE__, "one order explains what was told of a key");
}

static void check_keys(void)
{
    for (unsigned key = 0; key < world->keys; key++)
        if (world->key[key].asked)
            check_key(key);
}

/* ------------------------------------------------------------------ flushing */

/*
 * All that was told before is on the disk: what was asked to be there within the interval is as good as durable. But not what was over before anybody
 * came to write it, or had been replaced by what is over (here minutes lie between two flushes, not the interval).
 */
static void note_safe(void)
{
    for (; safe_calls < world->calls; safe_calls++) {
        struct day_call *c = &world->call[safe_calls];
        bool lives = c->over_ms > now_ms() && world->key[c->call.key].record_ms > now_ms();
        if (c->call.returned != 0 && c->promised && lives)
            c->call.durable = true;
    }
}

/* What a reference was dropped for may come in the next batch, an interval later. */
static int flush_by_timer(void)
{
    for (unsigned seconds = 0; seconds < 4; seconds++) {
        int more = 1;
        for (unsigned i = 0; more == 1 && i < 200; i++)
            CHECK((more = idem_maintain(own, 0)) >= 0);
        if (support_stats(own).log.queued == 0)
            return IDEM_OK;
        pass(SECOND_MS); /* who died before he could say that he had pushed is looked for once a second */
    }
    return IDEM_E_LOG;
}

/* One whose call was still under way when the rest was flushed is passed over for good: it may be lost, which is no promise broken. */
static void flush(bool must)
{
    uint64_t strikes = world->strikes;
    int e = IDEM_E_LOG;
    pass(INTERVAL_MS + 10);
    bool timer = !somebody_sleeps() && chance(2) == 0;
    for (unsigned tries = 0; tries < (must ? 8 : 1) && e != IDEM_OK; tries++) {
        if (timer) {
            e = flush_by_timer();
        } else {
            e = idem_sync(own, 0);
        }
        CHECK(e == IDEM_OK || world->strikes > strikes || somebody_sleeps());
        timer = false;
    }
    mix(1, (uint64_t)(int64_t)e);
    if (must)
        CHECK_IS(e, IDEM_OK);
    if (e == IDEM_OK)
        note_safe();
}

/* ------------------------------------------------------------------ what is bounded */

static uint64_t live_bytes(void)
{
    uint64_t n = 0;
    for (unsigned key = 0; key < world->keys; key++)
        n += world->key[key].over_ms > now_ms();
    return n * idem_wal_padded(IDEM_WAL_FIXED_BYTES + META_MAX + 64);
}

static void check_bounds(void)
{
    uint64_t files = 0, bytes = 0, others = 0, live = live_bytes();
    unsigned processes = 1;
    DIR *d = opendir(world->log);
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        struct stat st;
        if (e->d_name[0] == '.' || fstatat(dirfd(d), e->d_name, &st, 0) != 0)
            continue;
        if (strncmp(e->d_name, "wal-", 4) == 0 && strchr(e->d_name, '.') == NULL) {
            files++;
            bytes += (uint64_t)st.st_size;
        } else {
            others++;
        }
    }
    closedir(d);
    idem_stats_data s = support_stats(own);
    for (unsigned i = 0; i < WORKERS; i++)
        processes += world->workers[i].state != WORKER_NONE;
    CHECK_IS(s.processes, processes);
    CHECK(s.lanes <= processes);
    CHECK(s.slots_used <= STORE_KEYS);
    CHECK(s.regions_free > s.regions / 8);
    CHECK_IS(s.full, 0);
    CHECK_IS(s.tombstones, 0);
    CHECK_IS(s.evicted, 0);
    CHECK(others <= 4); /* whose log it is, where its store is, what a leader that died was making */
    uint64_t most = 2 * live + 2 * FILE_BYTES < 4 * FILE_BYTES ? 4 * FILE_BYTES : 2 * live + 2 * FILE_BYTES;
    world->totals.files = files > world->totals.files ? files : world->totals.files;
    /* It came back, and nothing was written since: what recovery leaves (docs/wal.md, "Reboot after reboot"). */
    if (s.log.batches == 0)
        CHECK(files <= FILES_READ + 1 && bytes <= files * FILE_BYTES);
    else
        CHECK(bytes <= most + live + 2 * FILE_BYTES);
    mix(s.lanes, s.slots_used);
    mix(files, s.log.written);
}

static void each_hour(void)
{
    for (unsigned i = 0; i < 3; i++) { /* a batch finds that files may go; then a walk, and the next batch says so */
        flush(true);
        for (unsigned n = 0; n < 32; n++)
            CHECK(idem_maintain(own, 0) >= 0);
    }
    check_keys();
    check_bounds();
}

/* ------------------------------------------------------------------ the machine */

static int64_t clock_base(void)
{
    struct idem_root_shm *root = malloc(sizeof *root);
    char path[200];
    snprintf(path, sizeof path, "%s/root", world->store);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(root != NULL && fd >= 0 && read(fd, root, sizeof *root) == (ssize_t)sizeof *root);
    close(fd);
    int64_t base_ms = root->fixed.clock_base_ms;
    free(root);
    return base_ms;
}

static idem_options options_of(void)
{
    idem_options o = support_options(STORE_KEYS);
    o.flags |= IDEM_OPEN_NO_FLUSHER; /* nobody leads but who is asked to */
    o.response_bytes = META_BYTES;
    o.processes = o.lanes = 2 * WORKERS + 2; /* a slot that is not given back is missed within the hour */
    o.wal_dir = world->log;
    o.wal_file_bytes = FILE_BYTES;
    o.flush_interval_ms = INTERVAL_MS;
    o.log_wait_ms = WAIT_MS;
    return o;
}

static void recover(void *verdict)
{
    static struct worker nobody;
    idem_options o = options_of();
    idem_store *s;
    me = &nobody;
    me->deed = DEED_KILL;
    unsigned points = world->workers[0].points;
    take_points();
    points_left = points;
    *(int *)verdict = idem_open(world->store, &o, &s);
    if (*(int *)verdict == IDEM_OK)
        idem_close(s);
}

/* Tries, on a bad disk, killed, without power; the last time nothing is in its way. */
static void come_back(void)
{
    static int *verdict;
    if (verdict == NULL)
        verdict = support_shared(sizeof *verdict);
    for (unsigned tries = 0;; tries++) {
        uint64_t strikes = world->strikes;
        bool kill = tries < 3 && chance(4) == 0;
        world->bad = tries < 3 && chance(3) == 0;
        some_weather();
        world->workers[0].points = kill ? 1 + (unsigned)chance(20) : 0;
        *verdict = IDEM_E_SYSTEM;
        int how = support_reap(support_spawn(recover, verdict), SUPPORT_PATIENCE_MS);
        while (sem_trywait(&world->through) == 0)
            ;
        world->bad = false;
        mix(2, (uint64_t)(int64_t)*verdict);
        if (how == SUPPORT_KILLED && kill) {
            world->totals.recoveries_cut++;
            if (chance(2) == 0)
                lose_power();
            continue;
        }
        CHECK_IS(how, 0);
        if (*verdict == IDEM_OK)
            return;
        if (world->strikes == strikes)
            CHECK_IS(*verdict, IDEM_OK);
        CHECK(tries < 3);
    }
}

static void crash(void)
{
    int64_t died_ms = now_ms();
    bool same_wall = !wall_set || support_stats(own).log.batches > set_batches;
    for (unsigned i = 0; i < WORKERS; i++)
        kill_worker(&world->workers[i]);
    idem_close(own);
    int *stack = malloc(KEYS_MAX * sizeof *stack), n = 0;
    CHECK(stack != NULL);
    for (unsigned key = 0; key < world->keys; key++)
        if (world->key[key].over_ms > died_ms - HOUR_MS || world->key[key].asked) {
            struct day_call *c = calling(CALL_CRASH, key, 0);
            stack[n++] = (int)(c - world->call);
        }
    lose_power();
    int64_t away_ms = between(SECOND_MS, 2 * HOUR_MS), wall_ms = idem_clock_wall_ms() + away_ms;
    support_clock_machine(between(10 * SECOND_MS, 5 * MINUTE_MS), wall_ms);
    come_back();
    /* No time was lost, or gained, but what the wall clock was set by since the log was last written. */
    world->shift_ms = clock_base();
    if (same_wall)
        CHECK_IS(now_ms(), died_ms + away_ms);
    wall_set = false;
    own = support_open_with(world->store, IDEM_OPEN_NO_FLUSHER);
    for (int i = 0; i < n; i++) {
        struct history_call *c = &world->call[stack[i]].call;
        c->returned_ms = now_ms();
        c->returned = next_stamp();
    }
    for (int i = 0; i < n; i++)
        look(own, 0, world->call[stack[i]].call.key);
    free(stack);
    safe_calls = world->calls;
    check_keys();
    support_verify(world->store);
    wal_disk_follow(disk);
}

/* ------------------------------------------------------------------ the week */

static void one_shift(unsigned calls)
{
    struct worker *x = &world->workers[chance(WORKERS)];
    if (x->state == WORKER_STOPPED) {
        world->bad = chance(4) == 0;
        resume_worker(x);
        world->bad = false;
        return;
    }
    if (x->state == WORKER_NONE)
        start_worker((unsigned)(x - world->workers));
    uint64_t dice = chance(64);
    enum deed deed = dice < 3 ? DEED_KILL : dice < 6 ? DEED_STOP : DEED_NONE;
    world->bad = true;
    work_shift(x, calls, deed, 1 + (unsigned)chance(300));
    world->bad = false;
}

static void one_step(unsigned step)
{
    int hour = (int)(step / 6 % 24);
    int64_t until_ms = now_ms() + STEP_MS;
    unsigned calls = hour >= 8 && hour < 20 ? DAY_CALLS : NIGHT_CALLS;
    if (chance(12) == 0)
        some_weather();
    for (unsigned shift = 0; shift < 2; shift++)
        one_shift(calls / 2);
    weather->left = chance(2) == 0 ? 0 : weather->left;
    wal_disk_follow(disk);
    if (chance(2) == 0)
        flush(false);
    if (chance(150) == 0) {
        support_wall_add(between(-HOUR_MS, HOUR_MS));
        wall_set = true;
        set_batches = support_stats(own).log.batches;
    }
    uint64_t dice = chance(200);
    if (dice < 2)
        crash();
    else if (dice < 4 && world->workers[dice].state == WORKER_IDLE)
        let_worker_leave(&world->workers[dice]);
    if (now_ms() < until_ms)
        pass(until_ms - now_ms());
    if (step % 6 == 5)
        each_hour();
}

static void begin_world(uint64_t seed)
{
    const char *dir = world->dir;
    memset(world, 0, offsetof(struct world, deaths));
    memset(world->deaths, 0, sizeof world->deaths);
    world->lives = 1;
    world->keys = 0;
    world->calls = safe_calls = 0;
    world->dir = dir;
    world->random = seed * UINT64_C(0xD1342543DE82EF95) | 1;
    world->salts = world->random * 3 | 1;
    snprintf(world->log, sizeof world->log, "%s/log", dir);
    snprintf(world->store, sizeof world->store, "%s/store", dir);
    snprintf(world->image, sizeof world->image, "%s/image", dir);
    CHECK_IS(mkdir(dir, 0700), 0);
    CHECK_IS(sem_init(&world->through, 1, 0), 0);
    for (unsigned i = 0; i < WORKERS; i++)
        CHECK_IS(sem_init(&world->workers[i].go, 1, 0), 0);
    memset(weather, 0, sizeof *weather);
    support_clock_machine(MINUTE_MS, WALL_MS);
    wall_set = false;
}

struct span {
    uint64_t seed;
    unsigned steps;
    struct day_totals totals;
    uint64_t digest;
};

static void live_through(void *ctx)
{
    struct span *span = ctx;
    take_points();
    begin_world(span->seed);
    begin_disk(NULL);
    idem_options o = options_of();
    own = support_open(world->store, &o);
    world->shift_ms = clock_base();
    for (unsigned step = 0; step < span->steps; step++)
        one_step(step);
    crash();
    for (unsigned i = 0; i < WORKERS; i++)
        if (world->workers[i].state == WORKER_IDLE)
            let_worker_leave(&world->workers[i]);
    each_hour();
    /* Two days later nothing of it lives any more, and all memory and files are back. */
    pass(2 * DAY_MS);
    support_answer(own, "the next", 1, "x");
    for (unsigned i = 0; i < 20; i++) {
        flush(true);
        for (unsigned n = 0; n < 100; n++)
            CHECK(idem_maintain(own, 0) >= 0);
    }
    idem_stats_data s = support_stats(own);
    CHECK(s.regions_free + 4 >= s.regions);
    CHECK(s.log.files <= 4);
    idem_close(own);
    support_verify(world->store);
    wal_record_end();
    wal_disk_free(disk);
    support_remove(world->dir);
    span->totals = world->totals;
    span->digest = world->digest;
}

/*
 * A week that failed leaves workers, who die with it: but as long as one of them is queued for a semaphore, a wake for who follows it there would be
 * his, and lost.
 */
static void see_workers_off(void)
{
    for (unsigned i = 0; i < WORKERS; i++)
        if (world->workers[i].pid > 0)
            CHECK(support_reap(world->workers[i].pid, SUPPORT_PATIENCE_MS) != SUPPORT_STUCK);
}

static int live(struct span *span, uint64_t seed, unsigned days)
{
    static char dir[160];
    snprintf(dir, sizeof dir, "%s", support_dir());
    world->dir = dir;
    span->seed = seed;
    span->steps = days * 144;
    int how = support_reap(support_spawn(live_through, span),
                           support_long() ? 10 * SUPPORT_PATIENCE_MS : 2 * SUPPORT_PATIENCE_MS);
    see_workers_off();
    support_remove(dir);
    support_clock_stand(false);
    return how;
}

static struct span *span;

/* The same few weeks each time, unless one asks for others; --long looks for new ones. */
static uint64_t first_seed(void)
{
    return support_long() || getenv("IDEM_TEST_SEED") != NULL ? support_seed() : 1;
}

static void a_week_of_bad_luck_breaks_no_promise(void **state)
{
    (void)state;
    uint64_t seed = first_seed(), calls = 0, crashes = 0, cut = 0, strikes = 0, stalls = 0, killed = 0, stopped = 0,
             files = 0;
    unsigned weeks = support_long() ? 1000 : (unsigned)support_scaled(3, 3);
    for (unsigned i = 0; i < weeks; i++) {
        int how = live(span, seed + i, 7);
        if (how != 0)
            print_error("week %llu ended with %d: %s\n", (unsigned long long)(seed + i), how, support_why());
        CHECK_IS(how, 0);
        const struct day_totals *t = &span->totals;
        calls += t->calls;
        crashes += t->crashes;
        cut += t->recoveries_cut;
        strikes += t->strikes;
        stalls += t->stalls;
        files = t->files > files ? t->files : files;
        killed += t->killed;
        stopped += t->stopped;
    }
    print_message("%u weeks: %llu calls; %llu killed, %llu stopped, %llu crashes of the machine, %llu recoveries "
                  "killed; %llu calls to the disk "
                  "failed, %llu waits for a leader, at most %llu files\n",
                  weeks, (unsigned long long)calls, (unsigned long long)killed, (unsigned long long)stopped,
                  (unsigned long long)crashes, (unsigned long long)cut, (unsigned long long)strikes,
                  (unsigned long long)stalls, (unsigned long long)files);
    CHECK(crashes > 0 && killed > 20 && stopped > 5 && strikes > 20);
}

static void the_same_seed_is_the_same_day(void **state)
{
    (void)state;
    uint64_t digest[2];
    for (unsigned i = 0; i < 2; i++) {
        CHECK_IS(live(span, first_seed(), 2), 0);
        digest[i] = span->digest;
    }
    CHECK(digest[0] == digest[1]);
}

static void a_library_with_a_fault_does_not_live_through_its_week(void **state)
{
    (void)state;
    static const char *const faults[] = {"log.ack_early",   "log.same_file",  "log.unwaited", "retain.never",
                                         "retain.uncopied", "lane.kept",      "recover.tail", "sweep.never",
                                         "replay.final",    "retain.given_up"};
    size_t n = sizeof faults / sizeof faults[0];
    for (size_t i = 0; i < (support_long() ? n : (size_t)support_scaled((long)n, 3)); i++) {
        int how = 0;
        unsigned days = 0;
        support_fault(faults[i]);
        for (unsigned tries = 0; how == 0 && tries < 20; tries++) {
            support_forget_why();
            how = live(span, first_seed() + 1000 * (i + 1) + tries, 7);
            days += 7;
        }
        support_fault(NULL);
        if (how == 0)
            print_error("%s is not caught\n", faults[i]);
        CHECK_IS(how, SUPPORT_FAILED);
        support_caught(faults[i], "within %u days: %s", days, support_why());
        support_forget_why();
    }
}

static int set_up(void **state)
{
    if (support_setup(state) != 0 ||
        prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) /* a week's workers become ours when it ends */
        return -1;
    world = support_shared(sizeof *world);
    weather = support_shared(sizeof *weather);
    span = support_shared(sizeof *span);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_week_of_bad_luck_breaks_no_promise),
        cmocka_unit_test(the_same_seed_is_the_same_day),
        cmocka_unit_test(a_library_with_a_fault_does_not_live_through_its_week),
    };
    return cmocka_run_group_tests(tests, set_up, support_teardown);
}
