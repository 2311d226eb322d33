/*
 * tests/unit/test_retain.c - old log files: only a prefix goes, only after a REC_RETAIN that says so is durable, only what has expired as a whole or
 * was written anew; and never past what a relay still reads. The leader's part is played by hand.
 */
#include "unit/wal_log.h"

#include "unit/wal_fail.h"
#include "wal/lead.h"

static int64_t now_ms = LOG_T0;

static void tell_time(void *ctx, int64_t *store_ms, int64_t *wall_ms)
{
    (void)ctx;
    *store_ms = now_ms;
    *wall_ms = now_ms;
}

struct stage {
    struct hand_log l;
    struct idem_a64 control[LOG_CONTROL_WORDS];
    struct idem_log log;
    struct idem_lead lead;
};

/* Files 1 ... n, a record in each; the newest expiry of file i is expiry_ms(i). */
static void build(struct stage *s, const char *dir, unsigned n, int64_t (*expiry_ms)(unsigned i))
{
    memset(s, 0, sizeof *s);
    CHECK_IS(mkdir(dir, 0700), 0);
    hand_open(&s->l, dir);
    for (unsigned i = 1; i <= n; i++) {
        s->l.f.prev_expiry_ms = i > 1 ? expiry_ms(i - 1) : 0;
        hand_file(&s->l, true);
        struct idem_rec r = hand_answer(&s->l, "k", i, "x");
        r.expiry_ms = expiry_ms(i);
        hand_add(&s->l, r);
        hand_flush(&s->l, true);
        s->l.at = s->l.f.base + LOG_FILE_BYTES - IDEM_WAL_HEADER_BYTES; /* as if it were full */
        s->l.durable = s->l.at;
    }
    s->log.control = s->control;
    s->log.source.now = tell_time;
    s->log.header = s->l.f;
    idem_log_control_begin(s->control, 0, s->l.at, n, LOG_T0 + 60000);
    store_relaxed(&s->control[LOG_OLDEST], 1);
    store_relaxed(&s->control[LOG_DISK_BYTES], (uint64_t)n * LOG_FILE_BYTES);
    s->lead.log = &s->log;
    s->lead.fd = -1;
    s->lead.file = s->l.f;
    s->lead.dir = s->l.d;
    now_ms = LOG_T0;
}

static bool there(const struct stage *s, uint64_t number)
{
    char name[IDEM_LOG_NAME_BYTES], file[256];
    idem_log_file_name(number, name);
    snprintf(file, sizeof file, "%s/%s", s->l.path, name);
    return access(file, F_OK) == 0;
}

static int step(struct stage *s)
{
    return idem_retain_step(&s->lead, &s->lead.retain, 1000000);
}

/* The next batch is durable, with what was to be said in it. */
static void say(struct stage *s)
{
    store_relaxed(&s->control[LOG_RETAINED], s->lead.retain.say);
    s->lead.retain.say = 0;
}

static int64_t hours(unsigned i)
{
    return LOG_T0 + (int64_t)i * 3600000;
}

static int64_t second_is_late(unsigned i)
{
    return i == 2 ? LOG_T0 + 86400000 : LOG_T0 + (int64_t)i * 1000;
}

static int64_t never(unsigned i)
{
    (void)i;
    return (INT64_C(1) << 45) - 1;
}

static void what_has_expired_goes_after_it_was_said(void *dir)
{
    struct stage s;
    build(&s, dir, 4, hours);
    CHECK_IS(step(&s), IDEM_OK);
    CHECK_IS(s.lead.retain.say, 0);
    now_ms = hours(2) + 1;
    CHECK_IS(step(&s), 1);
    CHECK_IS(s.lead.retain.say, 3); /* files 1 and 2 have expired */
    CHECK(there(&s, 1) && there(&s, 2));
    CHECK_IS(step(&s), 1); /* not durable yet */
    CHECK(there(&s, 1));
    say(&s);
    CHECK_IS(step(&s), IDEM_OK);
    CHECK(!there(&s, 1) && !there(&s, 2) && there(&s, 3));
    CHECK_IS(load_relaxed(&s.control[LOG_OLDEST]), 3);
    CHECK_IS(load_relaxed(&s.control[LOG_DISK_BYTES]), 2 * LOG_FILE_BYTES);
    now_ms = hours(40); /* the present file stays in any case */
    CHECK_IS(step(&s), 1);
    say(&s);
    CHECK_IS(step(&s), IDEM_OK);
    CHECK(!there(&s, 3) && there(&s, 4));
    CHECK_IS(step(&s), IDEM_OK);
    CHECK_IS(s.lead.retain.say, 0);
    hand_close(&s.l);
}

static void only_a_prefix_goes(void *dir)
{
    struct stage s;
    build(&s, dir, 4, second_is_late);
    now_ms = LOG_T0 + 10000;
    CHECK_IS(step(&s), 1);
    CHECK_IS(s.lead.retain.say, 2); /* file 3 has expired, too, but 2 has not */
    say(&s);
    CHECK_IS(step(&s), IDEM_OK);
    CHECK(!there(&s, 1) && there(&s, 2) && there(&s, 3));
    hand_close(&s.l);
}

static void what_lives_is_written_anew_first(void *dir)
{
    struct stage s;
    build(&s, dir, 6, never);
    store_relaxed(&s.control[LOG_LIVE_BYTES], LOG_FILE_BYTES); /* by an earlier walk */
    CHECK_IS(step(&s), 1);
    CHECK_IS(s.lead.retain.cut, s.lead.file.base);
    CHECK_IS(s.lead.retain.say, 0);
    CHECK_IS(step(&s), 1); /* the walk is under way */
    CHECK_IS(s.lead.retain.say, 0);
    s.lead.retain.walked = s.lead.retain.cut; /* it has come to its end, and is durable */
    CHECK_IS(step(&s), 1);
    CHECK_IS(s.lead.retain.say, 6);
    CHECK(there(&s, 1));
    say(&s);
    CHECK_IS(step(&s), IDEM_OK);
    for (unsigned i = 1; i < 6; i++)
        CHECK(!there(&s, i));
    CHECK(there(&s, 6));
    hand_close(&s.l);
}

static void few_files_or_many_lives_are_left_alone(void **state)
{
    (void)state;
    struct stage s;
    build(&s, support_dir(), 4, never);
    CHECK_IS(step(&s), IDEM_OK); /* four are always kept */
    CHECK_IS(s.lead.retain.cut, 0);
    hand_close(&s.l);
    build(&s, support_dir(), 8, never);
    store_relaxed(&s.control[LOG_LIVE_BYTES], 4 * LOG_FILE_BYTES);
    CHECK_IS(step(&s), IDEM_OK); /* more than half of it lives */
    CHECK_IS(s.lead.retain.cut, 0);
    hand_close(&s.l);
}

static void a_relay_keeps_what_it_reads(void *dir)
{
    struct stage s;
    build(&s, dir, 5, hours);
    now_ms = hours(40);
    uint64_t third = s.l.f.base - 2 * (LOG_FILE_BYTES - IDEM_WAL_HEADER_BYTES);
    store_relaxed(&s.control[LOG_KEEP_FROM], third + 64);
    CHECK_IS(step(&s), 1);
    CHECK_IS(s.lead.retain.say, 3);
    say(&s);
    CHECK_IS(step(&s), IDEM_OK);
    CHECK(!there(&s, 2) && there(&s, 3));
    CHECK_IS(s.lead.retain.say, 0);
    store_relaxed(&s.control[LOG_KEEP_FROM], s.l.at);
    CHECK_IS(step(&s), 1);
    CHECK_IS(s.lead.retain.say, 5);
    hand_close(&s.l);
}

/* Another process led meanwhile, and was faster. */
static void somebody_else_was_faster(void **state)
{
    (void)state;
    struct stage s;
    build(&s, support_dir(), 6, never);
    CHECK_IS(step(&s), 1);
    CHECK(s.lead.retain.cut != 0);
    for (uint64_t i = 1; i < 6; i++)
        CHECK_IS(idem_log_file_delete(&s.l.d, i), IDEM_OK);
    store_relaxed(&s.control[LOG_OLDEST], 6);
    CHECK_IS(step(&s), IDEM_OK);
    CHECK_IS(s.lead.retain.cut, 0);
    CHECK_IS(s.lead.retain.say, 0);
    hand_close(&s.l);
}

/* A walk in slices, over nothing: slow enough that a call is one slice. */
static unsigned walked;
static bool walk_slowly(void *ctx, uint64_t *cursor, uint64_t cut, uint32_t budget, uint64_t *ref, uint64_t *live_bytes)
{
    (void)ctx;
    (void)cut;
    (void)live_bytes;
    walked++;
    *ref = 0;
    *cursor += budget;
    support_sleep_ms(5);
    return true;
}
static void nothing_held(void *ctx)
{
    (void)ctx;
}

/* Every process that leads walks for itself; what it walks for may be done by another one before it has come to its end. */
static void a_walk_that_somebody_else_has_finished_is_given_up(void **state)
{
    (void)state;
    struct stage s;
    build(&s, support_dir(), 6, never);
    s.log.source.walk = walk_slowly;
    s.log.source.leave = nothing_held;
    walked = 0;
    idem_log_want_walk(s.control);
    CHECK_IS(idem_lead_walk(&s.lead), IDEM_OK);
    CHECK_IS(idem_lead_walk(&s.lead), IDEM_OK); /* it goes on */
    CHECK(s.lead.walking && s.lead.walk_cursor > 0);
    CHECK_IS(walked, 2);
    store_relaxed(&s.control[LOG_WALK_DONE], load_relaxed(&s.control[LOG_WALK_WANTED]));
    CHECK_IS(idem_lead_walk(&s.lead), IDEM_OK);
    CHECK(!s.lead.walking && !s.lead.walk_ended);
    CHECK_IS(walked, 2);
    /* The same for one that copies forward: its files are gone by now. */
    CHECK_IS(step(&s), 1);
    CHECK(s.lead.retain.cut != 0);
    CHECK_IS(idem_lead_walk(&s.lead), IDEM_OK);
    CHECK(s.lead.walking && s.lead.walk_cut == s.lead.retain.cut);
    CHECK_IS(walked, 3);
    store_relaxed(&s.control[LOG_OLDEST], 6);
    CHECK_IS(step(&s), IDEM_OK);
    CHECK_IS(idem_lead_walk(&s.lead), IDEM_OK);
    CHECK(!s.lead.walking && !s.lead.walk_ended);
    CHECK_IS(walked, 3);
    /* But not when what is wanted anew came after what was done. */
    idem_log_want_walk(s.control);
    CHECK_IS(idem_lead_walk(&s.lead), IDEM_OK);
    CHECK(s.lead.walking);
    CHECK_IS(s.lead.walk_wanted, 2);
    hand_close(&s.l);
}

static int failing_unlink_at(int d, const char *name)
{
    return fails() ? -1 : idem_io_system.unlink_at(d, name);
}

/* Whatever is refused is told, and done by the next one; nothing goes that was not said. */
static void each_call_fails_once(void **state)
{
    (void)state;
    for (unsigned scene = 0; scene < 3; scene++)
        for (unsigned nth = 1;; nth++) {
            struct stage s;
            build(&s, support_dir(), 6, scene == 2 ? never : hours);
            if (scene == 1)
                store_relaxed(&s.control[LOG_KEEP_FROM], s.l.f.base);
            if (scene < 2)
                now_ms = hours(4) + 1;
            unsigned errors = 0;
            fail_nth(nth, EIO);
            failing.unlink_at = failing_unlink_at;
            for (unsigned i = 0; i < 6; i++) {
                int e = step(&s);
                errors += e < 0;
                if (e < 0)
                    CHECK_IS(e, IDEM_E_LOG);
                if (s.lead.retain.say != 0)
                    say(&s);
            }
            idem_io = &idem_io_system;
            CHECK(errors <= 1);
            CHECK(there(&s, 5) && there(&s, 6));
            CHECK_IS(there(&s, 1), scene == 2);
            if (scene < 2)
                CHECK_IS(load_relaxed(&s.control[LOG_OLDEST]), 5);
            hand_close(&s.l);
            if (calls < nth)
                break;
        }
}

static struct stage *raise_oldest;
static int fsync_after_somebody(int fd)
{
    store_relaxed(&raise_oldest->control[LOG_OLDEST], 4);
    return idem_io_system.fsync(fd);
}

/* Who deleted them before us has said so. */
static void what_is_gone_already_is_not_counted_back(void **state)
{
    (void)state;
    struct stage s;
    build(&s, support_dir(), 4, hours);
    now_ms = hours(2) + 1;
    CHECK_IS(step(&s), 1);
    say(&s);
    s.lead.retain.newest = 4;
    s.lead.retain.oldest = 1;
    store_relaxed(&s.control[LOG_OLDEST], 1);
    raise_oldest = &s;
    failing = idem_io_system;
    failing.fsync = fsync_after_somebody;
    idem_io = &failing;
    CHECK_IS(step(&s), IDEM_OK);
    idem_io = &idem_io_system;
    CHECK_IS(load_relaxed(&s.control[LOG_OLDEST]), 4);
    hand_close(&s.l);
}

PROMISE(what_has_expired_goes_after_it_was_said, "retain.unexpired", "retain.unsaid", NULL)
PROMISE(only_a_prefix_goes, "retain.unexpired", NULL)
PROMISE(what_lives_is_written_anew_first, "retain.unwalked", NULL)
PROMISE(a_relay_keeps_what_it_reads, "retain.relay", NULL)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_has_expired_goes_after_it_was_said),
        cmocka_unit_test(test_only_a_prefix_goes),
        cmocka_unit_test(test_what_lives_is_written_anew_first),
        cmocka_unit_test(few_files_or_many_lives_are_left_alone),
        cmocka_unit_test(test_a_relay_keeps_what_it_reads),
        cmocka_unit_test(somebody_else_was_faster),
        cmocka_unit_test(each_call_fails_once),
        cmocka_unit_test(what_is_gone_already_is_not_counted_back),
        cmocka_unit_test(a_walk_that_somebody_else_has_finished_is_given_up),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
