/* tests/unit/test_wal_ring.c - a lane's queue of references: full, sealed, passed on; what an entry's word says is durable. */
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <stdio.h>
#include <unistd.h>

#include "base/futex.h"
#include "support/support.h"
#include "wal/ring.h"

struct memory {
    struct idem_a64 head, flushed, overflow, cells[64];
};

static struct idem_ring ring_in(struct memory *m)
{
    memset(m, 0, sizeof *m);
    return (struct idem_ring){&m->head, &m->flushed, &m->overflow, m->cells, 63};
}

static void a_full_ring_refuses_and_counts(void **state)
{
    (void)state;
    struct memory m;
    struct idem_ring r = ring_in(&m);
    for (uint64_t i = 1; i <= 64; i++)
        CHECK_IS(idem_ring_push(&r, i << 48), i);
    CHECK_IS(idem_ring_push(&r, UINT64_C(65) << 48), 0);
    CHECK_IS(load_relaxed(&m.overflow), 1);
    CHECK_IS(idem_ring_head(&r), 64);
    CHECK_IS(load_relaxed(&m.cells[0]) >> 48, 1); /* nothing that waits was overwritten */
    CHECK(idem_ring_flushed(&r, 0, 1));
    CHECK_IS(idem_ring_push(&r, UINT64_C(66) << 48), 65);
    CHECK_IS(load_relaxed(&m.cells[0]) >> 48, 66);
}

static void who_was_succeeded_acknowledges_nothing(void **state)
{
    (void)state;
    struct memory m;
    struct idem_ring r = ring_in(&m);
    uint64_t old, next, again;
    for (uint64_t i = 1; i <= 10; i++)
        idem_ring_push(&r, i << 48);
    CHECK(idem_ring_seal(&r, 3, &old));
    CHECK(idem_ring_flushed(&r, old, 4));
    CHECK(idem_ring_seal(&r, 4, &next));
    CHECK_IS(next & RING_COUNT, 4);
    CHECK(!idem_ring_flushed(&r, (old & ~RING_COUNT) | 4, 10));
    CHECK(!idem_ring_seal(&r, 3, &again)); /* nor does he seal it back */
    CHECK_IS(load_relaxed(&m.flushed) & RING_COUNT, 4);
    CHECK(idem_ring_flushed(&r, next, 10));
    CHECK_IS(load_relaxed(&m.flushed), (UINT64_C(4) << 48) + 10);
}

static void a_reference_names_an_entry_in_a_state(void **state)
{
    (void)state;
    uint64_t word = UINT64_C(0xabcd) << 48 | UINT64_C(0x12345) << 15 | 0x7ff8 | 5;
    CHECK_IS(ref_of_word(word, false), UINT64_C(0xabcd) << 48 | UINT64_C(0x12345) << 15 | 5);
    CHECK_IS(ref_of_word(word, true), UINT64_C(0xabcd) << 48 | UINT64_C(0x12345) << 15 | 8 | 5);
}

static void what_was_superseded_says_so_in_its_cell(void **state)
{
    (void)state;
    struct memory m;
    struct idem_ring r = ring_in(&m);
    uint64_t claim = UINT64_C(0xabcd) << 48 | UINT64_C(0x12345) << 15 | 1;
    idem_ring_push(&r, claim ^ UINT64_C(1) << 48); /* the same unit in another life */
    idem_ring_push(&r, claim | REF_SYNC);
    idem_ring_push(&r, claim ^ 3); /* the same entry in another state */
    idem_ring_push(&r, 99);
    idem_ring_supersede(&r, claim);
    CHECK_IS(load_relaxed(&m.cells[0]), claim ^ UINT64_C(1) << 48);
    CHECK_IS(load_relaxed(&m.cells[1]), claim | REF_SYNC | REF_SUPERSEDED);
    CHECK_IS(load_relaxed(&m.cells[2]), claim ^ 3);
    CHECK_IS(load_relaxed(&m.cells[3]), 99);
    CHECK_IS(load_relaxed(&m.cells[1]) & REF_MASK, claim);
    r = ring_in(&m);
    idem_ring_push(&r, claim);
    for (uint64_t i = 0; i < RING_LOOK_BACK; i++)
        idem_ring_push(&r, i << 15);
    idem_ring_supersede(&r, claim); /* too far back: its entry says it */
    CHECK_IS(load_relaxed(&m.cells[0]), claim);
}

static void a_word_is_durable_below_the_position_and_in_its_state_only(void **state)
{
    (void)state;
    struct idem_a64 control[LOG_CONTROL_WORDS];
    memset(control, 0, sizeof control);
    idem_log_control_begin(control, 7, 8192, 3, 99);
    CHECK(idem_log_word_durable(control, log_word(8128, 2), 2));
    CHECK(!idem_log_word_durable(control, log_word(8192, 2), 2));
    CHECK(!idem_log_word_durable(control, log_word(8128, 2), 7));
    CHECK(!idem_log_word_durable(control, 0, 0));
    CHECK(!idem_log_word_durable(control, LOG_WORD_SUPERSEDED, 7));
    CHECK_IS(load_relaxed(&control[LOG_FILE]), (UINT64_C(7) << 48) + 3);
    CHECK_IS(log_position_of(load_relaxed(&control[LOG_WRITTEN])), 8192);
}

static void a_wake_is_counted_and_takes_the_flag(void **state)
{
    (void)state;
    struct idem_a64 control[LOG_CONTROL_WORDS];
    memset(control, 0, sizeof control);
    store_relaxed(&control[LOG_WAITERS], 1);
    idem_log_wake(control);
    idem_log_wake(control);
    CHECK_IS(load_relaxed(&control[LOG_WAKE]), 3); /* and once more where a flag was taken */
    CHECK_IS(load_relaxed(&control[LOG_WAITERS]), 0);
}

static void a_batch_wakes_those_it_can_have_served(void **state)
{
    (void)state;
    struct idem_a64 control[LOG_CONTROL_WORDS];
    memset(control, 0, sizeof control);
    CHECK_IS(idem_log_wait_bits(control), 2); /* nobody leads: the first batch has it */
    CHECK_IS(idem_log_collect_begin(control), 1);
    CHECK_IS(idem_log_wait_bits(control), 2 | 4);
    idem_log_collect_end(control, 1);
    CHECK_IS(idem_log_wait_bits(control), 4);
    idem_log_waits(control, 2 | 4);
    idem_log_waits(control, 4);
    idem_log_wake_batch(control, 1);
    CHECK_IS(load_relaxed(&control[LOG_WAKE]), 2);
    CHECK_IS(load_relaxed(&control[LOG_WAITERS]), 4);
    CHECK_IS(idem_log_collect_begin(control), 2);
    idem_log_collect_end(control, 1); /* he was succeeded while he collected */
    CHECK_IS(idem_log_wait_bits(control), 4 | 8);
    idem_log_waits(control, UINT32_MAX);
    idem_log_wake_batch(control, 2);
    CHECK_IS(load_relaxed(&control[LOG_WAITERS]), 8);
    idem_log_wake(control);
    CHECK_IS(load_relaxed(&control[LOG_WAITERS]), 0);
    for (unsigned i = 3; i < 70; i++)
        CHECK_IS(idem_log_collect_begin(control), i);
    idem_log_collect_end(control, 69);
    CHECK_IS(idem_log_wait_bits(control), 1 << 70 % 32);
}

struct sleeper {
    struct idem_a64 *control;
    struct idem_a64 tid;
    int64_t slept_ms;
};

static void *sleep_on_wake(void *ctx)
{
    struct sleeper *s = ctx;
    int64_t began_ms = support_now_ms();
    store_seq_cst(&s->control[LOG_WAITERS], 1);
    store_release(&s->tid, (uint64_t)syscall(SYS_gettid));
    idem_futex_wait(&s->control[LOG_WAKE], 0, SUPPORT_PATIENCE_MS);
    s->slept_ms = support_now_ms() - began_ms;
    return NULL;
}

static bool sleeps(void *ctx)
{
    struct sleeper *s = ctx;
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)load_acquire(&s->tid));
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return false;
    int n = fscanf(f, "%*d (%*[^)]) %c", &state);
    fclose(f);
    return n == 1 && state == 'S';
}

static void who_sleeps_is_woken(void **state)
{
    (void)state;
    static struct idem_a64 control[LOG_CONTROL_WORDS];
    struct sleeper s = {.control = control};
    pthread_t thread;
    CHECK_IS(pthread_create(&thread, NULL, sleep_on_wake, &s), 0);
    CHECK(support_eventually(support_is_set, &s.tid, SUPPORT_PATIENCE_MS));
    CHECK(support_eventually(sleeps, &s, SUPPORT_PATIENCE_MS / 4));
    idem_log_wake(control);
    CHECK_IS(pthread_join(thread, NULL), 0);
    CHECK(s.slept_ms < SUPPORT_PATIENCE_MS / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_ring_refuses_and_counts),
        cmocka_unit_test(who_was_succeeded_acknowledges_nothing),
        cmocka_unit_test(a_reference_names_an_entry_in_a_state),
        cmocka_unit_test(what_was_superseded_says_so_in_its_cell),
        cmocka_unit_test(a_word_is_durable_below_the_position_and_in_its_state_only),
        cmocka_unit_test(a_wake_is_counted_and_takes_the_flag),
        cmocka_unit_test(a_batch_wakes_those_it_can_have_served),
        cmocka_unit_test(who_sleeps_is_woken),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
