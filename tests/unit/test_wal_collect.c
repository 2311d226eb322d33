/*
 * tests/unit/test_wal_collect.c - what a batch takes out of a ring, and from where on a ring stays as it is. The store is played by hand: an entry
 * is its reference, and each has a record.
 */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "wal/lead.h"

static struct {
    struct idem_a64 control[LOG_CONTROL_WORDS];
    struct idem_a64 head, flushed, overflow, cells[1024];
    struct idem_log log;
    struct idem_lead lead;
    struct idem_lead_lane lane, others[2];
    uint64_t taken[1024];
    unsigned count;
    uint16_t key_bytes;
    unsigned unfit; /* the record that can't be encoded; 0: none */
    unsigned too_big;
    unsigned superseding; /* how many more calls of take() come while somebody answers a claim */
} s;

#define CLAIM(n)  (UINT64_C(1) << 48 | (uint64_t)(n) << 15 | REC_IN_PROGRESS)
#define ANSWER(n) (UINT64_C(1) << 48 | (uint64_t)(n) << 15 | REC_COMPLETED)

static void no_fetch(void *ctx, uint64_t ref, enum idem_fetch what)
{
    (void)ctx;
    (void)ref;
    (void)what;
}
static void no_leave(void *ctx)
{
    (void)ctx;
}

static void claim_and_answer(unsigned n)
{
    idem_ring_push(&s.lane.ring, CLAIM(n));
    idem_ring_push(&s.lane.ring, ANSWER(n));
    idem_ring_supersede(&s.lane.ring, CLAIM(n));
}

static enum idem_taken take(void *ctx, uint64_t ref, struct idem_take *t)
{
    static const uint8_t key[900];
    (void)ctx;
    if (t->room < s.key_bytes) {
        s.too_big++;
        t->need = s.key_bytes;
        return TAKEN_TOO_BIG;
    }
    s.taken[s.count++] = ref & (REF_MASK | REF_SUPERSEDED);
    if (s.superseding > 0)
        claim_and_answer(100 + s.superseding--);
    memset(&t->rec, 0, sizeof t->rec);
    t->rec.kind = s.count == s.unfit ? 0 : REC_CLAIM;
    t->rec.state = REC_IN_PROGRESS;
    t->rec.key = key;
    t->rec.key_bytes = s.key_bytes;
    t->note[0] = ref & REF_MASK;
    t->note[1] = 0;
    return TAKEN_RECORD;
}

/* A batch that has room for so many records of 1 KiB. */
static void begin(unsigned records)
{
    memset(&s, 0, sizeof s);
    s.lane.ring = (struct idem_ring){&s.head, &s.flushed, &s.overflow, s.cells, 1023};
    s.key_bytes = 900;
    s.lane.keep = UINT64_MAX;
    s.log.control = s.control;
    s.log.source.fetch = no_fetch;
    s.log.source.leave = no_leave;
    s.log.source.take = take;
    s.lead.log = &s.log;
    s.lead.lanes = &s.lane;
    s.lead.lane_count = 1;
    s.lead.used = s.lead.summed = IDEM_WAL_BATCH_BYTES;
    s.lead.limit = IDEM_WAL_BATCH_BYTES + records * 1024u;
    CHECK_IS(idem_lead_collect_begin(&s.lead), IDEM_OK);
    CHECK_IS(idem_lead_room(&s.lead, s.lead.used), IDEM_OK); /* as a batch begins */
}
static void over(void)
{
    free(s.lead.bytes);
    free(s.lead.notes);
    free(s.lead.seen);
}

static void what_was_superseded_is_not_looked_at(void **state)
{
    (void)state;
    begin(100);
    claim_and_answer(1);
    idem_ring_push(&s.lane.ring, CLAIM(2));
    claim_and_answer(3);
    CHECK_IS(idem_lead_collect(&s.lead), IDEM_OK);
    CHECK_IS(s.count, 3);
    CHECK_IS(s.taken[0], ANSWER(1));
    CHECK_IS(s.taken[1], CLAIM(2));
    CHECK_IS(s.taken[2], ANSWER(3));
    CHECK(!s.lead.full);
    CHECK_IS(s.lane.at, 5);
    CHECK_IS(s.lane.keep, UINT64_MAX); /* a whole pass has come after it */
    over();
}

/* What came after it may not be in this batch: then it stays in its ring, and all behind it. */
static void what_was_dropped_stays_until_what_came_after_it_is_taken(void **state)
{
    (void)state;
    begin(2);
    idem_ring_push(&s.lane.ring, CLAIM(1));
    idem_ring_push(&s.lane.ring, CLAIM(2));
    idem_ring_push(&s.lane.ring, CLAIM(3));
    idem_ring_push(&s.lane.ring, CLAIM(4));
    idem_ring_push(&s.lane.ring, ANSWER(2));
    idem_ring_supersede(&s.lane.ring, CLAIM(2));
    CHECK_IS(idem_lead_collect(&s.lead), IDEM_OK);
    CHECK(s.lead.full);
    CHECK_IS(s.lane.at, 3); /* the first and the third are in it */
    CHECK_IS(s.lane.keep, 1);
    s.lead.used = s.lead.summed = IDEM_WAL_BATCH_BYTES; /* the next batch */
    s.lead.records = 0;
    CHECK_IS(idem_lead_collect(&s.lead), IDEM_OK);
    CHECK(!s.lead.full);
    CHECK_IS(s.lane.at, 5);
    CHECK_IS(s.lane.keep, UINT64_MAX);
    over();
}

/* It never ends with somebody who answers while we look, were they not resolved at last. */
static void passes_come_to_an_end(void **state)
{
    (void)state;
    unsigned resolved = 0;
    begin(100);
    claim_and_answer(1);
    s.superseding = 20;
    CHECK_IS(idem_lead_collect(&s.lead), IDEM_OK);
    CHECK(!s.lead.full);
    CHECK(load_relaxed(&s.head) > s.lane.at); /* what was pushed during the last pass is the next batch's */
    CHECK_IS(s.lane.keep, UINT64_MAX);
    for (unsigned i = 0; i < s.count; i++)
        resolved += (s.taken[i] & REF_SUPERSEDED) != 0;
    CHECK(resolved > 0);
    over();
}

/* Less than a record's edges is left: room is made before the store is asked again. */
static void a_batch_grows_where_no_record_can_begin(void **state)
{
    (void)state;
    begin(2000);
    s.key_bytes = 30; /* 128 bytes each; behind 511 of them 64 bytes are left of the first 64 KiB */
    for (unsigned i = 0; i < 600; i++)
        idem_ring_push(&s.lane.ring, CLAIM(1 + i));
    CHECK_IS(idem_lead_collect(&s.lead), IDEM_OK);
    CHECK_IS(s.count, 600);
    CHECK_IS(s.too_big, 1);
    CHECK_IS(s.lead.records, 600);
    over();
}

/* The batch is none then, wherever it was: nothing of it leaves its ring. */
static void a_record_that_can_not_be_encoded_ends_the_batch(void **state)
{
    (void)state;
    static const unsigned at[] = {1, 40};
    for (unsigned i = 0; i < sizeof at / sizeof at[0]; i++) {
        begin(200);
        s.key_bytes = 30;
        s.others[0] = s.others[1] = s.lane; /* two lanes, for this test the same ring */
        s.lead.lanes = s.others;
        s.lead.lane_count = 2;
        s.unfit = at[i];
        for (unsigned k = 0; k < (i == 0 ? 40 : 100); k++)
            idem_ring_push(&s.lane.ring, CLAIM(1 + k));
        CHECK_IS(idem_lead_collect(&s.lead), IDEM_E_CORRUPT);
        CHECK_IS(s.count, at[i]);
        CHECK(s.others[0].at < at[i]);
        over();
    }
}

/* What batches long ago saw is told from what this one did by their number, also when numbers begin anew. */
static void numbers_of_batches_begin_anew(void **state)
{
    (void)state;
    begin(100);
    for (unsigned i = 0; i < 70000; i++) {
        CHECK_IS(idem_lead_collect_begin(&s.lead), IDEM_OK);
        CHECK(s.lead.seen_number != 0);
    }
    idem_ring_push(&s.lane.ring, CLAIM(1));
    CHECK_IS(idem_lead_collect(&s.lead), IDEM_OK);
    CHECK_IS(s.lead.records, 1);
    over();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_superseded_is_not_looked_at),
        cmocka_unit_test(what_was_dropped_stays_until_what_came_after_it_is_taken),
        cmocka_unit_test(passes_come_to_an_end),
        cmocka_unit_test(a_batch_grows_where_no_record_can_begin),
        cmocka_unit_test(a_record_that_can_not_be_encoded_ends_the_batch),
        cmocka_unit_test(numbers_of_batches_begin_anew),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
