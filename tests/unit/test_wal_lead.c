/*
 * tests/unit/test_wal_lead.c - who leads, and in which file: what others left where its next file belongs, a log that was given away, a leader that is
 * succeeded between any two of its steps. The store's own log is led by hand.
 */
#include "support/support.h"

#include "unit/refused_calls.h"
#include "unit/wal_led.h"

static struct idem_io_calls calls;

/* ------------------------------------------------------------------ whose log it is */

static void a_log_that_was_given_away_is_not_written(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        begin();
        struct idem_log_id_rec id = d.id;
        if (i == 0)
            id.destroyed = 1;
        else
            (i == 1 ? id.uuid : id.instance)[3] ^= 1;
        CHECK_IS(idem_log_id_write(&d, &id), IDEM_OK);
        push_one("k");
        CHECK_IS(one_batch(), IDEM_E_STALE);
        CHECK_IS(one_batch(), i == 1 ? IDEM_E_LOG_FOREIGN : IDEM_E_STALE); /* opened anew */
        CHECK(strstr(idem_error_detail(), wal) != NULL);
        over();
    }
    begin(); /* another file system's directory, with the same numbers in it */
    wlog->lead->dir.device++;
    push_one("k");
    CHECK_IS(one_batch(), IDEM_E_LOG);
    CHECK_IS(batches(), IDEM_OK);
    over();
}

static void a_log_that_is_not_there_stops_durable_calls_alone(void **state)
{
    (void)state;
    char away[200], path[1200];
    struct idem_log *other = NULL;
    begin();
    idem_close(s);
    snprintf(away, sizeof away, "%s-away", wal);
    CHECK_IS(rename(wal, away), 0);
    options.flags &= ~(uint32_t)IDEM_OPEN_CREATE;
    attach();
    CHECK_IS(support_begin(s, "k", NULL), IDEM_E_LOG);
    idem_request none = support_request("other");
    idem_claim c;
    none.durability = IDEM_DURABILITY_NONE;
    CHECK_IS(idem_begin(s, &none, &c, NULL), IDEM_CLAIMED);
    CHECK_IS(rename(away, wal), 0);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_CLAIMED);
    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = '\0';
    CHECK_IS(idem_log_attach(path, control, &wlog->source, &wlog->header, 50, 100, &other), IDEM_E_INVALID);
    over();
}

/* ------------------------------------------------------------------ electing */

static int lock_interrupted(int fd, int64_t at)
{
    (void)fd;
    (void)at;
    errno = EINTR;
    return -1;
}
static int lock_late(int fd, int64_t at)
{
    add_relaxed(&control[LOG_EPOCH], 1);
    return idem_io_system.lock(fd, at);
}

static int lock_refused(int fd, int64_t at)
{
    (void)fd;
    (void)at;
    errno = ENOLCK;
    return -1;
}
static int count_claims(const idem_log_record *r, void *ctx)
{
    *(unsigned *)ctx += r->kind == REC_CLAIM;
    return 0;
}

static void elect_in_child(void *unused)
{
    struct idem_lead *lead;
    (void)unused;
    CHECK_IS(idem_log_elect(wlog, false, &lead), IDEM_E_LOG);
    CHECK(strstr(idem_error_detail(), "forked child") != NULL);
}

static void who_is_not_elected_leaves_it_to_others(void **state)
{
    (void)state;
    struct idem_lead *lead, *second;
    begin();
    support_in_child(elect_in_child, NULL);
    calls = idem_io_system;
    calls.lock = lock_interrupted;
    idem_io = &calls;
    CHECK_IS(idem_log_elect(wlog, false, &lead), 1);
    calls.lock = lock_late; /* succeeded before it had the byte */
    CHECK_IS(idem_log_elect(wlog, false, &lead), 1);
    idem_io = &idem_io_system;
    lead = elect();
    refuse(REFUSE_calloc, 1, ENOMEM);
    CHECK_IS(idem_log_elect(wlog, true, &second), IDEM_E_MEMORY);
    refuse_nothing();
    CHECK_IS(idem_log_elect(wlog, true, &second), IDEM_OK);
    idem_log_resign(lead); /* it was an orphan */
    idem_log_resign(second);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_CLAIMED);
    over();
}

/* There is no epoch after the last one: then who waits for a stuck leader says so in the end. */
static void a_stuck_leader_of_the_last_epoch(void **state)
{
    (void)state;
    begin();
    store_release(&control[LOG_EPOCH], 65535);
    struct idem_lead *lead = elect(), *other;
    CHECK_IS(idem_log_elect(wlog, true, &other), 1);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_E_LOG_STALLED);
    CHECK(strstr(idem_error_detail(), "no progress") != NULL);
    idem_log_resign(lead);
    over();
}

static void a_leader_elsewhere_is_left_to_it(void)
{
    struct idem_lead *lead = elect();
    store_release(&control[LOG_DUE_MS], 1);
    CHECK_IS(idem_log_tend(wlog), IDEM_OK);
    idem_log_resign(lead);
}

/* By a clock: there is nothing to be done while somebody leads, and nothing can be where the log has gone. */
static void who_tends_a_log_by_a_timer(void **state)
{
    (void)state;
    begin();
    a_leader_elsewhere_is_left_to_it();
    calls = idem_io_system;
    calls.lock = lock_refused;
    idem_io = &calls;
    store_release(&control[LOG_DUE_MS], 1);
    CHECK_IS(idem_log_tend(wlog), IDEM_E_LOG);
    idem_io = &idem_io_system;
    CHECK_IS(idem_log_tend(wlog), IDEM_OK);
    over();
}

/* ------------------------------------------------------------------ succeeded */

static void succeed_it(void *unused)
{
    struct idem_lead *lead;
    (void)unused;
    CHECK_IS(idem_log_elect(wlog, true, &lead), IDEM_OK);
    CHECK_IS(idem_log_batch(lead), IDEM_OK);
    idem_log_resign(lead);
}

/* Taken for dead while it slept between two steps: it changes nothing any more, and the other one's batch stands. */
static void who_was_succeeded_between_two_steps_changes_nothing(void **state)
{
    (void)state;
    static const char *const points[] = {"log.sealed",  "log.ready",  "log.assigned", "log.written",
                                         "log.syncing", "log.synced", "log.durable"};
    for (unsigned i = 0; i < sizeof points / sizeof points[0]; i++) {
        begin();
        push_one("k");
        support_at_point(points[i], 1, succeed_it, NULL);
        CHECK_IS(one_batch(), 1);
        support_at_point(NULL, 0, NULL, NULL);
        CHECK_IS(load_relaxed(&control[LOG_EPOCH]), 1);
        CHECK_IS(batches(), IDEM_OK);
        unsigned n = 0;
        CHECK_IS(idem_log_walk(wal, count_claims, &n), IDEM_OK);
        CHECK(n >= 2);
        over();
    }
}

/* ------------------------------------------------------------------ the next file */

/* A file after the present one, by whoever: other than that. */
static struct idem_file_rec planted(const struct idem_file_rec *before)
{
    struct idem_file_rec f = *before;
    f.prev_number = f.number;
    f.prev_salt = f.salt;
    f.number++;
    f.salt += 77;
    f.bytes = 2 * IDEM_WAL_HEADER_BYTES;
    return f;
}
static void plant(struct idem_file_rec *f)
{
    int fd;
    CHECK_IS(idem_log_file_make(&d, f, &fd), IDEM_OK);
    CHECK_IS(idem_log_file_publish(&d, f, fd), IDEM_OK);
    close(fd);
}

static void a_file_of_that_name_that_is_not_ours(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        begin();
        struct idem_lead *lead = elect();
        struct idem_file_rec f = planted(&lead->file);
        if (i == 0)
            f.epoch = lead->epoch + 1;
        if (i == 1)
            f.instance[0] ^= 1;
        plant(&f);
        if (i == 2) {
            char file[300];
            snprintf(file, sizeof file, "%s/wal-%020llu", wal, (unsigned long long)f.number);
            CHECK_IS(truncate(file, 100), 0);
        }
        CHECK_IS(idem_lead_new_file(lead, 64), i < 2 ? LEAD_OVER : IDEM_E_LOG_DAMAGED);
        idem_log_resign(lead);
        over();
    }
}

static void files_that_nobody_told_of_are_gone_over(void **state)
{
    (void)state;
    begin();
    struct idem_lead *lead = elect();
    struct idem_file_rec f = planted(&lead->file);
    uint64_t assigned = idem_lead_position(lead, LOG_ASSIGNED);
    f.base += 1 << 20; /* its positions are farther on than ours */
    plant(&f);
    CHECK_IS(idem_lead_new_file(lead, 64), IDEM_OK);
    CHECK_IS(lead->file.number, f.number + 1);
    CHECK_IS(lead->file.base, f.base);
    /* As if it had died after FILE: its positions were given to nobody. */
    CHECK(idem_lead_set(lead, LOG_ASSIGNED, assigned / IDEM_WAL_GRAIN));
    CHECK(idem_lead_set(lead, LOG_WRITTEN, assigned / IDEM_WAL_GRAIN));
    CHECK_IS(idem_lead_file(lead, 64), IDEM_OK);
    CHECK_IS(lead->file.number, f.number + 2);
    CHECK(lead->file.base >= f.base);
    /* More of them than anybody could have left. */
    f = lead->file;
    for (unsigned i = 0; i < 66; i++) {
        f = planted(&f);
        plant(&f);
    }
    CHECK_IS(idem_lead_new_file(lead, 64), IDEM_E_LOG);
    CHECK(strstr(idem_error_detail(), "taken again and again") != NULL);
    idem_log_resign(lead);
    over();
}

static void the_present_file_is_another_segments(void **state)
{
    (void)state;
    begin();
    struct idem_lead *lead = elect();
    struct idem_file_rec f = lead->file;
    uint8_t head[IDEM_WAL_HEADER_BYTES];
    char file[300];
    snprintf(file, sizeof file, "%s/wal-%020llu", wal, (unsigned long long)f.number);
    f.instance[0] ^= 1;
    idem_file_encode(&f, head);
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    CHECK_IS(pwrite(fd, head, sizeof head, 0), sizeof head);
    close(fd);
    close(lead->fd);
    lead->fd = -1;
    CHECK_IS(idem_lead_file(lead, 64), LEAD_OVER);
    idem_log_resign(lead);
    over();
}

static void a_file_that_can_not_be_made_says_why(void **state)
{
    (void)state;
    begin();
    struct idem_lead *lead = elect();
    refuse(REFUSE_getrandom, 1, ENOSYS);
    CHECK_IS(idem_lead_new_file(lead, 64), IDEM_E_SYSTEM);
    close(lead->fd);
    lead->fd = -1;
    refuse(REFUSE_openat, 1, EMFILE);
    CHECK_IS(idem_lead_new_file(lead, 64), IDEM_E_LOG);
    refuse_nothing();
    CHECK_IS(idem_lead_new_file(lead, 64), IDEM_OK);
    idem_log_resign(lead);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_CLAIMED);
    over();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_that_was_given_away_is_not_written),
        cmocka_unit_test(a_log_that_is_not_there_stops_durable_calls_alone),
        cmocka_unit_test(who_is_not_elected_leaves_it_to_others),
        cmocka_unit_test(a_stuck_leader_of_the_last_epoch),
        cmocka_unit_test(who_tends_a_log_by_a_timer),
        cmocka_unit_test(who_was_succeeded_between_two_steps_changes_nothing),
        cmocka_unit_test(a_file_of_that_name_that_is_not_ours),
        cmocka_unit_test(files_that_nobody_told_of_are_gone_over),
        cmocka_unit_test(the_present_file_is_another_segments),
        cmocka_unit_test(a_file_that_can_not_be_made_says_why),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
