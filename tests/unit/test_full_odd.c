/*
 * tests/unit/test_full_odd.c - a store without room, beside the ordinary way: who else records the same outcome, outcomes longer than there are numbers
 * for, who finds room in other classes' regions, and room that is made and not found.
 */
#include "support/support.h"

#include "arena/arena.h"
#include "index/index.h"
#include "store/handle.h"

#include <stdio.h>
#include <string.h>

#define SPARE 400u
#define A_FEW 60u

static char dir[160];
static idem_store *s;
static struct idem_view *v;
static idem_claim spare[SPARE];
static char large[40000], medium[2501], small[513];

static void open_store(uint32_t when_full)
{
    idem_options o = support_options(1000);
    snprintf(dir, sizeof dir, "%s", support_dir());
    o.response_bytes = 512;
    o.lease_ms = 3600000; /* no claim's region comes to its end because the machine is busy */
    o.when_full = when_full;
    s = support_open(dir, &o);
    v = s->view;
    memset(large, 'y', sizeof large - 1);
    memset(medium, 'm', sizeof medium - 1);
    memset(small, 'x', sizeof small - 1);
}
static void over(void)
{
    idem_close(s);
    support_verify(dir);
    support_remove(dir);
}

static const char *key_of(const char *what, unsigned i)
{
    static char name[64];
    snprintf(name, sizeof name, "0123456789-0123456789-%s-%u", what, i);
    return name;
}

static void grant(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        CHECK_IS(support_begin(s, key_of("spare", i), &spare[i]), IDEM_CLAIMED);
}

/* Until a claim is refused. */
static void fill(const char *body)
{
    static unsigned next;
    for (;;) {
        idem_claim c;
        int e = support_begin(s, key_of("filling", next++), &c);
        if (e == IDEM_E_FULL)
            return;
        CHECK_IS(e, IDEM_CLAIMED);
        CHECK(support_complete(s, &c, 200, body) >= 0);
    }
}

/* The same without a single answer; keys are so long that memory ends before slots do. */
static void fill_with_claims(void)
{
    for (unsigned i = 0;; i++) {
        char key[900];
        snprintf(key, sizeof key, "%0880u", i);
        int e = support_begin(s, key, NULL);
        if (e == IDEM_E_FULL)
            return;
        CHECK_IS(e, IDEM_CLAIMED);
    }
}

static void note_it(void *seen)
{
    *(bool *)seen = true;
}

/* Claims of the smallest size, until one is refused. True: there was room for one. */
static bool claim_what_is_left(void)
{
    static unsigned next;
    for (uint64_t n = 0; n <= v->bucket_count * IDEM_BUCKET_SLOTS; n++) {
        char key[16];
        snprintf(key, sizeof key, "c%u", next++);
        int e = support_begin(s, key, NULL);
        if (e == IDEM_E_FULL)
            return n > 0;
        CHECK_IS(e, IDEM_CLAIMED);
    }
    bool refused_in_the_end = false;
    CHECK(refused_in_the_end);
    return false;
}

/* Outcomes of so many bytes, until one finds no room but in its claim's own words. True: there was room for one. */
static bool answer_in_what_is_left(unsigned *at, size_t bytes)
{
    bool rescued = false;
    unsigned from = *at;
    support_at_point("rescue.held", 1, note_it, &rescued);
    while (!rescued && *at < SPARE)
        CHECK(support_complete(s, &spare[(*at)++], 200, large + sizeof large - 1 - bytes) >= 0);
    support_at_point(NULL, 0, NULL, NULL);
    CHECK(rescued);
    return *at - from > 1;
}

/*
 * Until there is no room at all: neither for a claim of the smallest size nor for an outcome of any length, down to none. What an outcome leaves
 * (its claim's entry, or the rest of a region that was emptied to make room for it) is room for another one, and a sweep that was cut short because
 * the machine is busy leaves some, too. So it ends with a round in which nothing found any. The first of spare[] that is still running.
 */
static unsigned use_up(void)
{
    unsigned at = 0;
    for (bool found = true; found;) {
        found = claim_what_is_left();
        for (size_t bytes = sizeof large - 1; bytes > 0; bytes /= 2)
            found |= answer_in_what_is_left(&at, bytes);
        found |= answer_in_what_is_left(&at, 0);
    }
    CHECK(at + 8 < SPARE);
    return at;
}

static unsigned full_store(void)
{
    open_store(IDEM_FULL_REFUSE);
    grant(SPARE);
    fill(medium);
    return use_up();
}

static struct idem_a64 *entry_of(const idem_claim *c)
{
    return v->arena + word_unit(load_relaxed(&v->buckets[c->place / 8].slots[c->place % 8])) * 2;
}

/* ------------------------------------------------------------------ the claim's own words */

static const idem_claim *judged;
static uint64_t arbiter;
static void somebody_fills_them(void *unused)
{
    (void)unused;
    store_relaxed(&entry_of(judged)[ENTRY_RESCUE_AT], arbiter);
}

/* Who fills the words of a claim whose outcome has no room: one who lives is waited for, one who died is followed, and it may be ourselves. */
static void outcomes_that_somebody_else_records(void **state)
{
    (void)state;
    unsigned at = full_store();
    uint64_t ours = v->process.owner;
    uint64_t low = idem_owner_incarnation(ours) & UINT32_MAX, slot = idem_owner_slot(ours), lane = 0;
    while (load_relaxed(&v->lanes[lane].owner) != ours)
        lane++;
    const struct {
        uint64_t arbiter;
        int outcome;
    } cases[] = {
        {low << 32 | slot << 16 | (lane + 1), IDEM_TOMBSTONE},      /* ourselves, in a call that came to nothing */
        {low << 32 | slot << 16 | (lane + 2), IDEM_E_FULL},         /* another thread of ours */
        {(low + 2) << 32 | slot << 16 | (lane + 2), IDEM_TOMBSTONE} /* one who had this place before us, or after */
    };
    for (unsigned i = 0; i < 3; i++) {
        judged = &spare[at + i];
        arbiter = cases[i].arbiter;
        support_at_point("rescue.held", 1, somebody_fills_them, NULL);
        CHECK_IS(support_complete(s, judged, 200, large), cases[i].outcome);
        support_at_point(NULL, 0, NULL, NULL);
        store_relaxed(&entry_of(judged)[ENTRY_RESCUE_AT], 0);
        CHECK(support_complete(s, judged, 200, large) >= 0);
    }
    over();
}

static void release_it(void *other)
{
    idem_key key = support_key(key_of("spare", (unsigned)(judged - spare)));
    CHECK_IS(idem_release(other, &key, 0), IDEM_OK);
}

/* An operator releases it when its outcome is written and not yet said: it is over, and was not completed. */
static void a_claim_that_ends_before_its_outcome_is_said(void **state)
{
    (void)state;
    judged = &spare[full_store()];
    idem_store *other = support_attach(dir);
    support_at_point("rescue.filled", 1, release_it, other);
    CHECK_IS(support_complete(s, judged, 200, large), IDEM_E_LOST);
    support_at_point(NULL, 0, NULL, NULL);
    idem_story story = IDEM_STORY_INIT;
    idem_key key = support_key(key_of("spare", (unsigned)(judged - spare)));
    CHECK_IS(idem_explain(s, &key, &story), IDEM_OK);
    CHECK(story.state != IDEM_STATE_COMPLETED && story.lost_reason == IDEM_LOST_RELEASED);
    idem_story_free(&story);
    idem_close(other);
    over();
}

/* Lengths that were not retained can be anything; so can times. */
static void outcomes_longer_than_there_are_numbers_for(void **state)
{
    (void)state;
    unsigned at = full_store();
    idem_response r = support_response(200, "");
    r.flags = IDEM_RESPONSE_NOT_RETAINED;
    r.body = NULL;
    r.meta_bytes = (size_t)1 << 33;
    r.body_bytes = (size_t)1 << 33;
    bool rescued = false;
    support_at_point("rescue.held", 1, note_it, &rescued);
    do
        CHECK_IS(idem_complete(s, &spare[at], &r), IDEM_TOMBSTONE);
    while (!rescued && ++at + 4 < SPARE);
    support_at_point(NULL, 0, NULL, NULL);
    CHECK(rescued);
    idem_reply reply = IDEM_REPLY_INIT;
    idem_key key = support_key(key_of("spare", at));
    CHECK_IS(idem_lookup(s, &key, &reply), IDEM_REPLAY);
    CHECK(reply.meta_bytes == UINT32_MAX && reply.body_bytes == UINT32_MAX);
    idem_reply_free(&reply);
    /* Claimed by a clock that was ahead, or two months ago. */
    for (unsigned i = 1; i < 3; i++) {
        rescued = false;
        support_at_point("rescue.held", 1, note_it, &rescued);
        struct idem_a64 *claimed_at = &entry_of(&spare[at + i])[5];
        uint64_t was = load_relaxed(claimed_at);
        store_relaxed(claimed_at, i == 1 ? was + 100000 : was - UINT64_C(60) * 86400000);
        CHECK_IS(support_complete(s, &spare[at + i], 200, large), IDEM_TOMBSTONE);
        CHECK(rescued);
        key = support_key(key_of("spare", at + i));
        CHECK_IS(idem_lookup(s, &key, NULL), IDEM_REPLAY);
    }
    over();
}

/* ------------------------------------------------------------------ room that is not found */

/* Each mark is a new entry; the one before it is swept, where a sweep gets anywhere: here somebody sleeps in every region of claims. */
static void mark_until_full(unsigned at, unsigned granted)
{
    static char mark[IDEM_MARK_MAX];
    uint64_t high = load_relaxed(&v->root->lanes_high);
    int e = IDEM_OK;
    unsigned n = 0;
    for (uint32_t i = 0; i < v->region_count && high + n < v->fixed.lanes_max; i++)
        if (region_phase(load_relaxed(&v->regions[i].state)) != REGION_FREE) {
            store_relaxed(&v->lanes[high + n].owner, v->process.owner);
            store_relaxed(&v->lanes[high + n].hazard_write, (uint64_t)i + 1);
            n++;
        }
    store_relaxed(&v->root->lanes_high, high + n);
    for (unsigned i = 0; i < 100000 && e == IDEM_OK; i++)
        e = idem_mark(s, &spare[at], mark, sizeof mark);
    CHECK_IS(e, IDEM_E_FULL);
    CHECK(strstr(idem_error_detail(), "stands as it was") != NULL);
    for (unsigned i = at + 1; i < granted; i++) /* outcomes find room in the end: in the claims' own words */
        CHECK(support_complete(s, &spare[i], 200, large) >= 0);
    for (unsigned i = 0; i < n; i++)
        store_relaxed(&v->lanes[high + i].hazard_write, 0);
}

/* What an operator settles needs room, too; and a transient answer has no words to spare. */
static void a_lost_key_can_not_be_settled_without_room(void **state)
{
    (void)state;
    open_store(IDEM_FULL_REFUSE);
    grant(SPARE);
    idem_claim c;
    idem_key key = support_key("lost");
    CHECK_IS(support_begin(s, "lost", &c), IDEM_CLAIMED);
    CHECK_IS(idem_release(s, &key, 0), IDEM_OK);
    CHECK_IS(support_begin(s, "lost", &c), IDEM_RECLAIMED);
    idem_response transient = support_response(500, "busy"), r = support_response(200, large);
    transient.flags = IDEM_RESPONSE_TRANSIENT;
    CHECK_IS(idem_complete(s, &c, &transient), IDEM_OK);
    fill(medium);
    unsigned at = use_up();
    CHECK_IS(support_begin(s, "lost", NULL), IDEM_E_FULL);
    CHECK_IS(idem_resolve(s, &key, c.token, IDEM_RESOLVE_COMPLETED, &r), IDEM_E_FULL);
    CHECK(strstr(idem_error_detail(), "still unresolved") != NULL);
    mark_until_full(at, SPARE);
    over();
}

/* A region that is to be evicted, and can't be, promises room again and again. */
static void room_that_is_promised_but_does_not_come(void **state)
{
    (void)state;
    open_store(IDEM_FULL_EVICT);
    grant(A_FEW);
    fill_with_claims(); /* of which nothing is evicted */
    uint32_t region = word_region(v, load_relaxed(&v->buckets[spare[0].place / 8].slots[spare[0].place % 8]));
    struct idem_a64 *phase = &v->regions[region].state;
    uint64_t was = load_relaxed(phase), high = load_relaxed(&v->root->lanes_high);
    store_relaxed(&v->root->lanes_high, high + 1); /* somebody who lives is at work in it, and sleeps */
    store_relaxed(&v->lanes[high].owner, v->process.owner);
    store_relaxed(&v->lanes[high].hazard_write, (uint64_t)region + 1);
    store_relaxed(phase, (was & ~UINT64_C(7)) | REGION_EVICTING);
    CHECK_IS(support_begin(s, "one more", NULL), IDEM_E_FULL);
    mark_until_full(1, A_FEW);
    CHECK_IS(support_begin(s, key_of("spare", 0), NULL), IDEM_IN_PROGRESS);
    store_relaxed(&v->lanes[high].hazard_write, 0);
    over();
}

/* ------------------------------------------------------------------ other classes' regions */

static int answer_for(const char *key, int64_t ttl_ms, const char *body)
{
    idem_request rq = support_request(key);
    idem_claim c;
    rq.ttl_ms = ttl_ms;
    int e = idem_begin(s, &rq, &c, NULL);
    return e == IDEM_CLAIMED ? support_complete(s, &c, 200, body) : e;
}

/* The last room there is: where answers lie that never expire, or the other way round. */
static void the_last_room_is_another_classes(void **state)
{
    (void)state;
    open_store(IDEM_FULL_REFUSE);
    grant(A_FEW);
    CHECK_IS(answer_for("for ever", IDEM_FOREVER, "x"), IDEM_OK);
    fill(small);
    unsigned i = 0;
    while (i < 20 && support_complete(s, &spare[i], 200, small) == IDEM_OK)
        i++;
    for (unsigned k = 0; k < 200 && idem_renew(s, &spare[A_FEW - 1], 0) == IDEM_OK; k++)
        ;
    over();
    /* None is left for what never expires, but there is room beside what does. */
    open_store(IDEM_FULL_REFUSE);
    for (unsigned k = 0; k < A_FEW; k++) {
        idem_request rq = support_request(key_of("spare", k));
        rq.ttl_ms = IDEM_FOREVER;
        CHECK_IS(idem_begin(s, &rq, &spare[k], NULL), IDEM_CLAIMED);
    }
    CHECK_IS(answer_for("for a day", 86400000, "x"), IDEM_OK);
    fill_with_claims();
    char body[1501];
    memset(body, 'z', sizeof body - 1);
    body[sizeof body - 1] = '\0';
    for (unsigned k = 0; k < A_FEW; k++)
        CHECK(support_complete(s, &spare[k], 200, body) >= 0);
    over();
    /* Owners' marks go there in the end, too. */
    open_store(IDEM_FULL_REFUSE);
    grant(A_FEW);
    CHECK_IS(answer_for("for ever", IDEM_FOREVER, "x"), IDEM_OK);
    fill_with_claims();
    for (unsigned k = 0; k < 2000; k++) {
        int e = idem_mark(s, &spare[0], large, IDEM_MARK_MAX);
        CHECK(e == IDEM_OK || e == IDEM_E_FULL);
    }
    over();
}

/* A thousand years from now expiries come to the end of what an entry has bits for: then that is for ever. */
static void the_end_of_time(void **state)
{
    (void)state;
    support_clock_machine(1000, (INT64_C(1) << 45) - INT64_C(49) * 3600000);
    open_store(IDEM_FULL_REFUSE);
    int64_t left_ms = ENTRY_TIME_MAX - idem_view_now_ms(v);
    CHECK(left_ms > 3600000);
    CHECK_IS(answer_for("k", left_ms - 2000, "x"), IDEM_OK);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_REPLAY);
    idem_close(s);
    support_clock_stand(false);
    support_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outcomes_that_somebody_else_records),
        cmocka_unit_test(a_claim_that_ends_before_its_outcome_is_said),
        cmocka_unit_test(outcomes_longer_than_there_are_numbers_for),
        cmocka_unit_test(a_lost_key_can_not_be_settled_without_room),
        cmocka_unit_test(room_that_is_promised_but_does_not_come),
        cmocka_unit_test(the_last_room_is_another_classes),
        cmocka_unit_test(the_end_of_time),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
