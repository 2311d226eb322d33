/*
 * tests/unit/test_wal_batch.c - a batch step by step: calls and memory that are refused in its middle, words in shared memory that a death or a faulty
 * program left, directories in odd places. The store's own log is led by hand.
 */
#include "support/support.h"

#include "unit/refused_calls.h"
#include "unit/wal_led.h"

static struct idem_io_calls calls;

/* ------------------------------------------------------------------ batches */

static void sync_begins_elsewhere(void *unused)
{
    (void)unused;
    put(LOG_SYNCING, load_relaxed(&control[LOG_FILE]));
}

/* A leader whose host closed the descriptor of its lock is not alone: what became of the other one's sync is not known. */
static void a_file_that_somebody_else_syncs_is_given_up(void **state)
{
    (void)state;
    begin();
    push_one("k");
    support_at_point("log.written", 1, sync_begins_elsewhere, NULL);
    CHECK_IS(one_batch(), IDEM_E_LOG);
    support_at_point(NULL, 0, NULL, NULL);
    CHECK(strstr(idem_error_detail(), "a sync of it did not end") != NULL);
    uint64_t number = load_relaxed(&control[LOG_FILE]) & LOG_VALUE_MASK;
    CHECK_IS(batches(), IDEM_OK);
    CHECK_IS(load_relaxed(&control[LOG_FILE]) & LOG_VALUE_MASK, number + 1);
    over();
}

static void a_write_that_can_not_be_is_an_error(void **state)
{
    (void)state;
    begin();
    static uint8_t body[100000];
    struct idem_lead *lead = elect();
    struct idem_rec r = {.kind = REC_FILL, .flags = REC_OPTIONAL, .more = body, .more_bytes = sizeof body};
    lead->records = 0;
    refuse(REFUSE_posix_memalign, 1, ENOMEM);
    CHECK_IS(idem_lead_add(lead, &r, NULL), IDEM_E_MEMORY);
    refuse_nothing();
    idem_log_resign(lead);
    push_one("k");
    refuse(REFUSE_pwrite, 1, EINVAL); /* of no file that is written past the cache */
    CHECK_IS(one_batch(), IDEM_E_LOG);
    refuse_nothing();
    CHECK_IS(batches(), IDEM_OK);
    over();
}

static int sync_for_minutes(int fd)
{
    support_clock_add(120000);
    return idem_io_system.fdatasync(fd);
}

static void a_sync_that_takes_longer_than_there_is_a_figure_for(void **state)
{
    (void)state;
    begin();
    calls = idem_io_system;
    calls.fdatasync = sync_for_minutes;
    push_one("k");
    CHECK(load_relaxed(&control[LOG_DUE_MS]) != 0);
    store_relaxed(&control[LOG_DUE_MS], 0); /* as while a batch is collected: nobody knows since when it waits */
    CHECK(support_stats(s).log.queued > 0 && support_stats(s).log.oldest_queued_ms == 0);
    uint64_t longest = support_stats(s).log.fsync_us[IDEM_LOG_FSYNC_BUCKETS - 1];
    support_clock_stand(true);
    idem_io = &calls;
    CHECK_IS(one_batch(), IDEM_OK);
    idem_io = &idem_io_system;
    support_clock_stand(false);
    CHECK_IS(support_stats(s).log.fsync_us[IDEM_LOG_FSYNC_BUCKETS - 1], longest + 1);
    over();
}

/* A place in the table of processes that somebody took who found its owner dead. */
static void who_lost_its_place_does_not_lead(void **state)
{
    (void)state;
    begin();
    push_one("k");
    struct idem_a64 *incarnation = &v->process.table[idem_owner_slot(v->process.owner)].incarnation;
    add_relaxed(incarnation, 1);
    CHECK_IS(one_batch(), IDEM_E_LOG);
    CHECK(strstr(idem_error_detail(), "lost its place") != NULL);
    store_relaxed(incarnation, load_relaxed(incarnation) - 1);
    CHECK_IS(batches(), IDEM_OK);
    over();
}

/* A host closed our descriptor, others took us for dead, and we have a new place by now: what we pushed in the old one is on the disk at the end. */
static void who_got_another_place_writes_at_closing_what_it_pushed_in_the_old_one(void **state)
{
    (void)state;
    begin();
    idem_claim c;
    idem_request rq = support_request("async");
    rq.durability = IDEM_DURABILITY_ASYNC;
    CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
    add_relaxed(&v->process.table[idem_owner_slot(v->process.owner)].incarnation, 1);
    CHECK_IS(support_stats(s).log.queued, 1);
    CHECK(s->view != v);
    idem_close(s);
    attach();
    CHECK_IS(support_stats(s).log.queued, 0);
    over();
}

/* It was "another one leads by now", to be tried again at once, by flushers for ever. */
static void an_epoch_that_nobody_led_is_damage_and_no_succession(void **state)
{
    (void)state;
    begin();
    push_one("k");
    struct idem_a64 *words[] = {&v->lanes[0].log_flushed, &control[LOG_DURABLE], &control[LOG_FILE]};
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++) {
        uint64_t sound = load_relaxed(words[i]);
        store_relaxed(words[i], sound + (UINT64_C(7) << 48));
        CHECK_IS(one_batch(), IDEM_E_CORRUPT);
        store_relaxed(words[i], sound);
    }
    CHECK_IS(batches(), IDEM_OK);
    over();
}

/* Tokens are promised ahead of time; with nothing to write, that alone is. */
static void a_batch_of_nothing_is_written_when_the_ceiling_is_near(void **state)
{
    (void)state;
    begin();
    uint64_t before = load_relaxed(&control[LOG_BATCHES]);
    CHECK_IS(batches(), IDEM_OK);
    CHECK_IS(load_relaxed(&control[LOG_BATCHES]), before);
    support_clock_add(59000);
    CHECK_IS(batches(), IDEM_OK);
    CHECK_IS(load_relaxed(&control[LOG_BATCHES]), before + 1);
    over();
}

static void fill_rings(unsigned n, uint32_t durability)
{
    static char body[60000];
    static unsigned next;
    memset(body, 'b', sizeof body);
    for (unsigned i = 0; i < n; i++) {
        char key[32];
        snprintf(key, sizeof key, "large-%u", next++);
        idem_request rq = support_request(key);
        idem_response r = support_response(200, "");
        idem_claim c;
        rq.durability = durability;
        r.durability = durability;
        r.body = body;
        r.body_bytes = sizeof body;
        CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
        CHECK_IS(idem_complete(s, &c, &r), IDEM_OK);
    }
}

/* What is to be said of old files waits for a batch with room. */
static void a_full_batch_says_nothing_of_old_files(void **state)
{
    (void)state;
    begin();
    idem_close(s);
    support_remove(dir);
    support_remove(wal);
    idem_log_dir_close(&d);
    options.keys = 200;
    attach();
    CHECK_IS(idem_log_dir_open(wal, false, 0, &d), IDEM_OK);
    fill_rings(90, IDEM_DURABILITY_ASYNC); /* over four MiB */
    struct idem_lead *lead = elect();
    lead->retain.say = 1;
    CHECK_IS(idem_log_batch(lead), 1);
    CHECK_IS(lead->retain.say, 1);
    CHECK_IS(load_relaxed(&control[LOG_RETAINED]), 0);
    CHECK_IS(idem_log_batch(lead), IDEM_OK);
    CHECK_IS(lead->retain.say, 0);
    CHECK_IS(load_relaxed(&control[LOG_RETAINED]), 1);
    idem_log_resign(lead);
    over();
}

/* It is told, and done later: what was written stands. */
static void old_files_that_can_not_be_looked_at(void **state)
{
    (void)state;
    begin();
    struct idem_lead *lead = elect();
    CHECK_IS(idem_lead_new_file(lead, 64), IDEM_OK);
    push_one("k");
    refuse(REFUSE_openat, 1, EMFILE);
    CHECK_IS(idem_log_batch(lead), IDEM_OK);
    refuse_nothing();
    CHECK_IS(support_stats(s).log.trouble, IDEM_LOG_FAILED);
    CHECK_IS(idem_log_batch(lead), IDEM_OK);
    CHECK_IS(support_stats(s).log.trouble, IDEM_LOG_FINE);
    idem_log_resign(lead);
    over();
}

/* ------------------------------------------------------------------ memory */

static void *claim_one(void *key)
{
    push_one(key);
    return NULL;
}

static int count(const idem_log_record *r, void *ctx)
{
    *(unsigned *)ctx += r->state == 2;
    return 0;
}

/* Whatever is refused, nothing is lost: what a batch does not take, the next one does. Lanes of other threads, and what only a walk finds, too. */
static void memory_is_refused_in_the_middle_of_a_batch(void **state)
{
    (void)state;
    static const enum refused_call kinds[] = {REFUSE_posix_memalign, REFUSE_realloc, REFUSE_malloc, REFUSE_calloc};
    unsigned refusals = 0;
    for (unsigned k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
        for (unsigned nth = 1;; nth++) {
            unsigned completed = 0;
            pthread_t t;
            begin();
            idem_close(s); /* so that a leader begins with no memory */
            attach();
            CHECK_IS(__real_pthread_create(&t, NULL, claim_one, "by another thread"), 0);
            pthread_join(t, NULL);
            fill_rings(6, IDEM_DURABILITY_ASYNC);
            fill_rings(12, IDEM_DURABILITY_NONE);
            idem_log_want_walk(control);
            refuse(kinds[k], nth, ENOMEM);
            int e = one_batch();
            bool refused_one = refused.seen[kinds[k]] >= nth;
            for (unsigned i = 0; i < 1000 && e == 1; i++) {
                e = one_batch();
                refused_one |= refused.seen[kinds[k]] >= nth;
            }
            refuse_nothing();
            if (e != IDEM_OK)
                CHECK_IS(e, IDEM_E_MEMORY);
            refusals += e != IDEM_OK;
            CHECK_IS(idem_sync(s, SUPPORT_PATIENCE_MS), IDEM_OK);
            CHECK_IS(idem_log_walk(wal, count, &completed), IDEM_OK);
            CHECK_IS(completed, 18);
            over();
            if (!refused_one)
                break;
        }
    CHECK(refusals >= 8);
}

/* ------------------------------------------------------------------ words that say what is not so */

static void what_was_logged_but_is_not_durable_is_logged_again(void **state)
{
    (void)state;
    begin();
    idem_key key = support_key("k");
    idem_story story = IDEM_STORY_INIT;
    support_answer(s, "k", 200, "x");
    CHECK_IS(idem_explain(s, &key, &story), IDEM_OK);
    CHECK_IS(story.log_state, 2);
    idem_story_free(&story);
    uint64_t records = load_relaxed(&control[LOG_RECORDS]);
    put(LOG_DURABLE, 0); /* says that nothing is */
    CHECK_IS(idem_explain(s, &key, &story), IDEM_OK);
    CHECK_IS(story.log_state, 1);
    idem_story_free(&story);
    CHECK_IS(idem_lookup(s, &key, NULL), IDEM_REPLAY); /* not given out before it is */
    CHECK_IS(load_relaxed(&control[LOG_RECORDS]), records + 1);
    over();
}

/* Who died between the next file's being the present one and the end of that step left the last one's sync there. */
static void a_sync_of_an_older_file_is_nobodys(void **state)
{
    (void)state;
    begin();
    put(LOG_SYNCING, 77);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_CLAIMED);
    over();
}

static void lanes_that_look_busy_are_looked_at_again(void **state)
{
    (void)state;
    begin();
    CHECK_IS(batches(), IDEM_OK);
    store_relaxed(&control[LOG_DUE_MS], 0);
    struct idem_lane_shm *ours = &v->lanes[0];
    store_release(&ours->hazard_write, 1); /* between publishing and pushing */
    support_clock_add(5000);
    CHECK_IS(idem_log_tend(wlog), IDEM_OK);
    CHECK(load_relaxed(&control[LOG_DUE_MS]) != 0);
    store_release(&ours->hazard_write, 0);
    /* A lane that was given back with a hazard set: nobody lives in it. */
    uint64_t high = load_relaxed(&v->root->lanes_high), walks = load_relaxed(&control[LOG_WALK_WANTED]);
    store_relaxed(&v->root->lanes_high, high + 1);
    store_release(&v->lanes[high].hazard_write, 1);
    CHECK_IS(batches(), IDEM_OK);
    support_clock_add(5000);
    CHECK_IS(batches(), IDEM_OK);
    CHECK_IS(load_relaxed(&control[LOG_WALK_WANTED]), walks + 1);
    over();
}

static struct idem_a64 failures;
static int sync_that_fails(int fd)
{
    if (add_relaxed(&failures, 1) < 2) {
        errno = EIO;
        return -1;
    }
    return idem_io_system.fdatasync(fd);
}
static bool all_durable(void *unused)
{
    (void)unused;
    return load_relaxed(&failures) >= 3 && support_stats(s).log.trouble == IDEM_LOG_FINE;
}

/* Nobody waits for it, and it is on the disk all the same. */
static void a_flusher_tries_again(void **state)
{
    (void)state;
    begin();
    idem_log_dir_close(&d);
    idem_close(s);
    calls = idem_io_system;
    calls.fdatasync = sync_that_fails;
    idem_io = &calls;
    store_relaxed(&failures, 0);
    options.flags = 0;
    attach();
    push_one("k");
    CHECK(support_eventually(all_durable, NULL, SUPPORT_PATIENCE_MS));
    over();
    idem_io = &idem_io_system;
}

/* It costs nothing: what makes a file each time is slow where the disk is, and then nothing tells who is hurried. */
#define REFUSED 8u
static int lock_errno;
static struct idem_a64 refused_us[REFUSED]; /* when, the first ones */
static int lock_that_is_refused(int fd, int64_t at)
{
    (void)fd;
    (void)at;
    uint64_t n = load_relaxed(&failures); /* the flusher is the only one that asks */
    if (n < REFUSED)
        store_relaxed(&refused_us[n], (uint64_t)idem_clock_fine_us());
    store_release(&failures, n + 1);
    errno = lock_errno;
    return -1;
}

/* From now on, with this errno: EAGAIN says that somebody else has it. */
static void refuse_the_lock(int with)
{
    calls = idem_io_system;
    calls.lock = lock_that_is_refused;
    lock_errno = with;
    store_relaxed(&failures, 0);
    idem_io = &calls;
}

/* Asks for a batch again and again, as full queues do, until the lock was refused REFUSED times. The least pause before the n-th time, in us. */
static void hurry(int64_t pause_us[REFUSED])
{
    for (int64_t ms = 0; load_acquire(&failures) < REFUSED && ms < SUPPORT_PATIENCE_MS; ms++) {
        idem_log_ask(wlog, true);
        support_sleep_ms(1);
    }
    CHECK(load_acquire(&failures) >= REFUSED);
    for (unsigned n = 1; n < REFUSED; n++)
        pause_us[n] = (int64_t)(load_relaxed(&refused_us[n]) - load_relaxed(&refused_us[n - 1]));
}

/* Full queues ask for a batch with each push. 10 ms, 20, 40 ... lie between two attempts all the same. */
static void a_flusher_that_fails_is_not_hurried(void **state)
{
    (void)state;
    begin();
    idem_log_dir_close(&d);
    idem_close(s);
    refuse_the_lock(EIO);
    options.flags = 0;
    attach();
    push_one("k");
    int64_t pause_us[REFUSED], least_us = 10000;
    hurry(pause_us);
    for (unsigned n = 1; n < REFUSED; n++, least_us *= 2)
        CHECK(pause_us[n] >= least_us);
    calls.lock = idem_io_system.lock;
    over();
    idem_io = &idem_io_system;
}

/* Another process leads, and stands still. What it is tried by is counted; nobody waits so long that it is succeeded. */
static void a_flusher_that_another_one_leads_is_not_hurried(void **state)
{
    (void)state;
    begin();
    idem_log_dir_close(&d);
    idem_close(s);
    support_remove(dir);
    support_remove(wal);
    options.log_wait_ms = 600000;
    options.flags = IDEM_OPEN_CREATE;
    refuse_the_lock(EAGAIN);
    attach();
    int64_t pause_us[REFUSED];
    hurry(pause_us);
    for (unsigned n = 1; n < REFUSED; n++)
        CHECK(pause_us[n] >= 10000);
    idem_io = &idem_io_system;
    idem_close(s);
    support_remove(dir);
    support_remove(wal);
}

/* A stranger has locked all of the id file: no epoch's byte is to be had. Each succession takes one of 65,535 epochs. */
static void a_flusher_that_can_not_succeed_gives_each_leader_its_time(void **state)
{
    (void)state;
    begin();
    idem_log_dir_close(&d);
    push_one("k");
    idem_close(s);
    options.flags = 0;
    options.durability_claim = options.durability_complete = 0;
    refuse_the_lock(EAGAIN);
    int64_t from_us = idem_clock_fine_us(), took_ms = 0;
    attach();
    wlog->wait_ms = 100;
    idem_log_ask(wlog, true);
    uint64_t epoch = 0; /* looked at before the clock: we may lose the processor in between */
    while (took_ms < 400 || (epoch == 0 && took_ms < SUPPORT_PATIENCE_MS)) {
        support_sleep_ms(1);
        epoch = load_relaxed(&control[LOG_EPOCH]);
        took_ms = (idem_clock_fine_us() - from_us) / 1000;
    }
    CHECK(epoch >= 1);
    CHECK(epoch <= (uint64_t)took_ms / 50);
    idem_io = &idem_io_system;
    idem_close(s);
    support_remove(dir);
    support_remove(wal);
}

/* ------------------------------------------------------------------ the directory's odd corners */

static int open_elsewhere(int at, const char *name, int flags, mode_t mode)
{
    return idem_io_system.open_at(at, strcmp(name, "/") == 0 ? wal : name, flags, mode);
}
static int rename_too_late(int at, const char *from, const char *to)
{
    CHECK_IS(idem_io_system.rename_at(at, from, to), 0);
    CHECK_IS(symlinkat("x", at, from), 0);
    return idem_io_system.rename_at(at, from, to);
}
static unsigned interrupted;
static int fallocate_interrupted(int fd, off_t bytes)
{
    if (interrupted++ > 0)
        return idem_io_system.fallocate(fd, bytes);
    errno = EINTR;
    return -1;
}

static void directories_in_odd_places(void **state)
{
    (void)state;
    struct idem_log_dir other;
    uint64_t *numbers;
    size_t n;
    char name[300];
    snprintf(wal, sizeof wal, "%s", support_dir());
    CHECK_IS(idem_log_dir_open_raw(wal, &other), IDEM_E_NO_STORE);
    CHECK_IS(mkdir(wal, 0700), 0);
    calls = idem_io_system;
    calls.open_at = open_elsewhere;
    idem_io = &calls;
    CHECK_IS(idem_log_dir_open("/", true, 0, &other), IDEM_E_LOG); /* it has no parent to sync */
    calls.open_at = idem_io_system.open_at;
    calls.rename_at = rename_too_late; /* of two who make it at once the first one's id stays */
    CHECK_IS(idem_log_dir_open(wal, true, 0, &other), IDEM_OK);
    idem_io = &idem_io_system;
    /* More files than a list begins with. */
    for (unsigned i = 1; i <= 70; i++) {
        snprintf(name, sizeof name, "%s/wal-%020u", wal, i);
        close(open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    }
    CHECK_IS(idem_log_list(&other, &numbers, &n), IDEM_OK);
    CHECK(n == 70 && numbers[69] == 70);
    free(numbers);
    idem_log_dir_close(&other);
    /* No id, and what is there can't be listed. */
    snprintf(name, sizeof name, "%s/id", wal);
    CHECK_IS(unlink(name), 0);
    refuse(REFUSE_realloc, 1, ENOMEM);
    CHECK_IS(idem_log_dir_open(wal, false, 0, &other), IDEM_E_MEMORY);
    refuse_nothing();
    /* One that says a later version, or something else, in its first sector. */
    uint8_t sector[IDEM_WAL_SECTOR_BYTES], two[2 * IDEM_WAL_SECTOR_BYTES] = {0};
    struct idem_log_id_rec rec = {IDEM_WAL_MAJOR + 1, 0, 1000, {1}, {2}, 7, 0};
    idem_log_id_encode(&rec, sector);
    for (unsigned i = 0; i < 2; i++) {
        if (i == 0)
            memcpy(two, sector, sizeof sector);
        else
            memset(two, 0, sizeof sector);
        two[sizeof two - 1] = (uint8_t)i;
        int id = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        CHECK_IS(pwrite(id, two, sizeof two, 0), sizeof two);
        close(id);
        CHECK_IS(idem_log_dir_open(wal, false, 0, &other), i == 0 ? IDEM_E_VERSION : IDEM_E_LOG_DAMAGED);
    }
    /* A rename by the old way fails as well. */
    snprintf(name, sizeof name, "%s/wal-%020u", wal, 1);
    int fd = open(wal, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    refuse(REFUSE_renameat2, 1, EINVAL);
    CHECK_IS(idem_io_system.rename_at(fd, "wal-00000000000000000001", "wal-00000000000000000002"), -1);
    CHECK_IS(errno, EEXIST);
    refuse_nothing();
    close(fd);
    support_remove(wal);
    /* A signal while space is made. */
    begin();
    struct idem_lead *lead = elect();
    calls = idem_io_system;
    calls.fallocate = fallocate_interrupted;
    idem_io = &calls;
    interrupted = 0;
    CHECK_IS(idem_lead_new_file(lead, 64), IDEM_OK);
    idem_io = &idem_io_system;
    CHECK_IS(interrupted, 2);
    idem_log_resign(lead);
    over();
}

static void not_hurried(void *unused)
{
    (void)unused;
    a_flusher_that_fails_is_not_hurried(NULL);
}
static void not_hurried_by_a_leader(void *unused)
{
    (void)unused;
    a_flusher_that_another_one_leads_is_not_hurried(NULL);
}
static void a_flusher_that_is_hurried_is_noticed(void **state)
{
    (void)state;
    support_promise(not_hurried, FAULTS("log.hurried"));
    support_promise(not_hurried_by_a_leader, FAULTS("log.hurried"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_somebody_else_syncs_is_given_up),
        cmocka_unit_test(a_write_that_can_not_be_is_an_error),
        cmocka_unit_test(a_sync_that_takes_longer_than_there_is_a_figure_for),
        cmocka_unit_test(who_lost_its_place_does_not_lead),
        cmocka_unit_test(who_got_another_place_writes_at_closing_what_it_pushed_in_the_old_one),
        cmocka_unit_test(an_epoch_that_nobody_led_is_damage_and_no_succession),
        cmocka_unit_test(a_batch_of_nothing_is_written_when_the_ceiling_is_near),
        cmocka_unit_test(a_full_batch_says_nothing_of_old_files),
        cmocka_unit_test(old_files_that_can_not_be_looked_at),
        cmocka_unit_test(memory_is_refused_in_the_middle_of_a_batch),
        cmocka_unit_test(what_was_logged_but_is_not_durable_is_logged_again),
        cmocka_unit_test(a_sync_of_an_older_file_is_nobodys),
        cmocka_unit_test(lanes_that_look_busy_are_looked_at_again),
        cmocka_unit_test(a_flusher_tries_again),
        cmocka_unit_test(a_flusher_that_fails_is_not_hurried),
        cmocka_unit_test(a_flusher_that_another_one_leads_is_not_hurried),
        cmocka_unit_test(a_flusher_that_can_not_succeed_gives_each_leader_its_time),
        cmocka_unit_test(directories_in_odd_places),
        cmocka_unit_test(
            a_flusher_that_is_hurried_is_noticed), /* last: its children leave logs where the next test would make some */
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
