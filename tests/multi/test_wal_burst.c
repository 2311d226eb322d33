/*
 * tests/multi/test_wal_burst.c - more at once than a thread's queue to the log has room for: what found none is on the disk soon all the same.
 *
 * Nothing here depends on how long something takes: no thread flushes, and idem_maintain() says itself when it has no more to do.
 */
#include <stdio.h>
#include <string.h>

#include "support/support.h"

#define BURST 20000u /* so many that a walk which finds them is no matter of one batch */
#define RING  64u
#define CALLS 200000u

static idem_store *a_store(const char *dir, const char *wal)
{
    idem_options o = support_options(2 * BURST);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    o.wal_dir = wal;
    o.durability_claim = o.durability_complete = IDEM_DURABILITY_ASYNC;
    o.flush_interval_ms = 10000;
    o.wal_ring_refs = RING;
    return support_open(dir, &o);
}

static void answer(idem_store *s, unsigned from, unsigned n)
{
    char key[16];
    for (unsigned i = from; i < from + n; i++) {
        snprintf(key, sizeof key, "b%u", i);
        support_answer(s, key, 200, "yes");
    }
}

struct seen {
    unsigned answers;
    bool answered[BURST];
};

static int look(const idem_log_record *r, void *ctx)
{
    struct seen *seen = ctx;
    char key[16] = "";
    unsigned i;
    if (r->state != 2 || r->key.key_bytes >= sizeof key)
        return 0;
    memcpy(key, r->key.key, r->key.key_bytes);
    if (sscanf(key, "b%u", &i) != 1 || i >= BURST || seen->answered[i])
        return 0;
    seen->answered[i] = true;
    seen->answers++;
    return 0;
}

static void what_a_burst_left_out_is_on_the_disk_when_there_is_no_more_to_do(void **state)
{
    (void)state;
    static struct seen seen;
    char wal[200];
    const char *dir = support_dir();
    snprintf(wal, sizeof wal, "%s-log", dir);
    idem_store *s = a_store(dir, wal);
    answer(s, 0, BURST);
    CHECK(support_stats(s).log.overflows > BURST);
    unsigned calls = 0;
    while (calls < CALLS && idem_maintain(s, 0) == 1)
        calls++;
    CHECK(calls < CALLS);
    CHECK_IS(idem_log_walk(wal, look, &seen), IDEM_OK);
    CHECK_IS(seen.answers, BURST);
    idem_close(s);
    support_remove(wal);
}

/* 24 places of 64 are taken and free again, then 34 more are taken. Asked only where half a ring ends, nobody would have looked in between. */
static void half_a_ring_asks_for_a_batch_wherever_it_began(void **state)
{
    (void)state;
    char wal[200];
    const char *dir = support_dir();
    snprintf(wal, sizeof wal, "%s-log", dir);
    idem_store *s = a_store(dir, wal);
    answer(s, 0, 12);
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    uint64_t before = support_stats(s).log.batches;
    answer(s, 12, 15);
    CHECK(idem_maintain(s, 0) >= 0);
    CHECK_IS(support_stats(s).log.batches, before);
    answer(s, 27, 2);
    CHECK(idem_maintain(s, 0) >= 0);
    CHECK(support_stats(s).log.batches > before);
    CHECK_IS(support_stats(s).log.overflows, 0);
    idem_close(s);
    support_remove(wal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_burst_left_out_is_on_the_disk_when_there_is_no_more_to_do),
        cmocka_unit_test(half_a_ring_asks_for_a_batch_wherever_it_began),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
