/*
 * tests/crash/test_wal_fault.c - each call to the disk that a store with a log makes fails at its Nth time: once, for good, or does half. What was told
 * as durable is on the disk, even if the machine dies at once; when the calls work again the store goes on by itself.
 */
/* timeout: 300 s */
#include "crash/wal_store.h"

#include <errno.h>

#include "support/wal_disk.h"

#define KEYS 4u

static struct wal_place place;

/* Claims and completes, without patience. */
static void use(idem_store *s, unsigned from)
{
    char text[16];
    for (unsigned k = from; k < from + KEYS; k++) {
        idem_claim claim = IDEM_CLAIM_INIT;
        idem_request rq = IDEM_REQUEST_INIT;
        idem_response r = support_response(200, "an answer");
        rq.key = wal_key(k, text);
        rq.durability = k % 2 == 0 ? IDEM_DURABILITY_SYNC : IDEM_DURABILITY_ASYNC;
        int e = idem_begin(s, &rq, &claim, NULL);
        CHECK(e == IDEM_CLAIMED || (e < 0 && e != IDEM_E_CORRUPT));
        if (e != IDEM_CLAIMED)
            continue;
        if (rq.durability == IDEM_DURABILITY_SYNC)
            wal_say(&place.page->durable[k], WAL_CLAIMED);
        e = idem_complete(s, &claim, &r);
        CHECK(e == IDEM_OK || (e < 0 && e != IDEM_E_CORRUPT && e != IDEM_E_LOST));
        if (e == IDEM_OK)
            wal_say(&place.page->durable[k], WAL_COMPLETED);
    }
}

/* The machine dies now: nothing is left but what was synced. */
static void die_and_look(void)
{
    char at[200];
    uint64_t random = 1;
    struct wal_disk *disk = wal_disk_new(NULL);
    for (unsigned i = 0; i < wal_recorded(); i++)
        wal_disk_apply(disk, i);
    snprintf(at, sizeof at, "%s/image", place.base);
    for (unsigned way = 0; way < 2; way++) {
        bool any = false;
        for (unsigned k = 0; k < WAL_KEYS && !any; k++)
            any = wal_said(&place.page->durable[k]) != WAL_NOTHING;
        bool there = wal_disk_image(disk, at, way == 0 ? WAL_LOST : WAL_KEPT, WAL_LOST, &random);
        if (!any)
            continue;
        CHECK(there);
        support_remove(place.store);
        char log[176];
        memcpy(log, place.log, sizeof log);
        snprintf(place.log, sizeof place.log, "%s/image", place.base);
        wal_check_recovered(&place, place.page->durable);
        memcpy(place.log, log, sizeof log);
    }
    wal_disk_free(disk);
}

/* False: no call was left to fail. from_open: opening is part of it. */
static bool one_failure(unsigned nth, int error, bool for_good, bool from_open, bool goes_on)
{
    idem_store *s = NULL;
    wal_place_make(&place);
    place.options.response_bytes = 512;
    place.options.log_wait_ms = 100;
    wal_record_begin(place.log, WAL_HONEST);
    if (!from_open)
        CHECK_IS(idem_open(place.store, &place.options, &s), IDEM_OK);
    wal_record_fail_call(nth, error, for_good);
    int e = from_open ? idem_open(place.store, &place.options, &s) : IDEM_OK;
    if (e == IDEM_OK && (goes_on || !from_open))
        use(s, 0);
    bool reached = wal_calls_seen() >= nth;
    wal_record_fail_call(0, 0, false);
    if (goes_on) { /* the disk works again: so does the store */
        if (e != IDEM_OK) {
            CHECK(s == NULL);
            CHECK_IS(idem_open(place.store, &place.options, &s), IDEM_OK);
        }
        CHECK_IS(idem_sync(s, SUPPORT_PATIENCE_MS / 2), IDEM_OK);
        use(s, KEYS);
        for (unsigned k = KEYS; k < 2 * KEYS; k++)
            CHECK_IS(wal_said(&place.page->durable[k]), WAL_COMPLETED);
    }
    wal_record_end();
    if (s != NULL)
        idem_close(s);
    die_and_look();
    support_remove(place.base);
    return reached;
}

static void each(int error, bool for_good, bool from_open)
{
    unsigned n = 1;
    while (one_failure(n, error, for_good, from_open, n % 2 == 0 || support_long())) {
        CHECK(n < 2000);
        n++;
    }
    print_message("%u calls\n", n - 1);
    CHECK(n > 20);
}

static void a_call_that_fails_once_makes_no_false_promise(void **state)
{
    (void)state;
    each(EIO, false, false);
    each(ENOSPC, false, true);
}
static void calls_that_fail_for_good_make_no_false_promise(void **state)
{
    (void)state;
    each(EIO, true, false);
    each(ENOSPC, true, true);
}
static void a_write_that_does_half_is_gone_on_with(void **state)
{
    (void)state;
    each(WAL_SHORT, false, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_that_fails_once_makes_no_false_promise),
        cmocka_unit_test(calls_that_fail_for_good_make_no_false_promise),
        cmocka_unit_test(a_write_that_does_half_is_gone_on_with),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
