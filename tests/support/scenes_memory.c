/* tests/support/scenes_memory.c - storing outcomes, sweeping, places for processes and threads. See scenes.h. */
#include "support/scenes_parts.h"

#include <stdio.h>
#include <string.h>
#include <sys/types.h>

/* ------------------------------------------------------------------ completing */

static void complete(struct crash_page *page, idem_store *store, struct stage *st)
{
    scene_take(page, store, st);
    crash_arm();
    page->verdict = support_complete(store, &page->claim, 200, "done");
}

/* The straight way of store/complete.c, which a thread's first answer can't go. */
static void complete_again(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_request before = stage_request(st, STAGE_SPARE + 1);
    idem_response r = support_response(200, "done");
    idem_claim first;
    scene_take(page, store, st);
    CHECK_IS(idem_begin(store, &before, &first, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_complete(store, &first, &r), IDEM_OK);
    crash_arm();
    page->verdict = idem_complete(store, &page->claim, &r);
}

/* Long-lived answers have taken the regions that an answer may take at once, and left a little room in each. */
static void leave_little(struct stage *st)
{
    static char body[60000];
    memset(body, 'l', sizeof body - 1);
    for (unsigned i = 0; i < 16 && support_stats(st->peer).regions_free > 4; i++) {
        char key[24];
        snprintf(key, sizeof key, "little-%u", i);
        idem_request r = support_request(key);
        r.ttl_ms = STAGE_NEIGHBOURS_MS;
        idem_claim c;
        CHECK_IS(idem_begin(st->peer, &r, &c, NULL), IDEM_CLAIMED);
        CHECK_IS(support_complete(st->peer, &c, 200, body), IDEM_OK);
    }
}

static void complete_huge(struct crash_page *page, idem_store *store, struct stage *st)
{
    static char body[300000];
    scene_take(page, store, st);
    idem_response r = support_response(200, "");
    r.body = body;
    r.body_bytes = sizeof body;
    crash_arm();
    page->verdict = idem_complete(store, &page->claim, &r);
    CHECK_IS(page->verdict, IDEM_TOMBSTONE);
}

static char large_body[5000];

static void write_large_body(struct stage *st)
{
    (void)st;
    for (unsigned i = 0; i + 1 < sizeof large_body; i++)
        large_body[i] = (char)('a' + i * i % 23);
}

static void complete_large(struct crash_page *page, idem_store *store, struct stage *st)
{
    scene_take(page, store, st);
    crash_arm();
    page->verdict = support_complete(store, &page->claim, 200, large_body);
    CHECK_IS(page->verdict, IDEM_OK);
}

static void complete_transient(struct crash_page *page, idem_store *store, struct stage *st)
{
    scene_take(page, store, st);
    idem_response r = support_response(503, "try again");
    r.flags = IDEM_RESPONSE_TRANSIENT;
    crash_arm();
    page->verdict = idem_complete(store, &page->claim, &r);
}

/* Answers fill the memory, until one is kept without its body. */
static void fill_the_memory_for(struct stage *st, int64_t ttl_ms)
{
    static char body[65465]; /* fills a region, with its key */
    static idem_claim claims[100];
    memset(body, 'f', sizeof body - 1);
    unsigned n = 0;
    for (; n < 100; n++) {
        char key[24];
        snprintf(key, sizeof key, "memory-%u", n);
        idem_request r = support_request(key);
        r.ttl_ms = ttl_ms;
        if (idem_begin(st->peer, &r, &claims[n], NULL) != IDEM_CLAIMED)
            break;
    }
    for (unsigned size = sizeof body - 1, i = 0; i < n; i++) {
        body[size] = '\0';
        int e = support_complete(st->peer, &claims[i], 200, body);
        body[size] = 'f';
        CHECK(e == IDEM_OK || e == IDEM_TOMBSTONE);
        if (e == IDEM_TOMBSTONE && size < 40)
            return;
        size = e == IDEM_TOMBSTONE ? size / 4 + 1 : size;
    }
    CHECK_IS(n, 0); /* there was room for everything: this scene would show nothing */
}

static void fill_the_memory(struct stage *st)
{
    fill_the_memory_for(st, STAGE_TTL_MS);
}

static void complete_without_memory(struct crash_page *page, idem_store *store, struct stage *st)
{
    scene_take(page, store, st);
    crash_pause();
    crash_arm();
    page->verdict =
        support_complete(store, &page->claim, 200, "there is no room for this, a body of more than a few bytes");
    CHECK(page->verdict == IDEM_TOMBSTONE || page->verdict == IDEM_E_LOST); /* lost: only after a long stop */
}

static pid_t waiter;

static void wait_and_finish(void *ctx)
{
    struct stage *st = ctx;
    idem_store *store = support_attach(st->dir);
    idem_request r = stage_request(st, STAGE_KEY);
    idem_claim claim;
    idem_reply reply = IDEM_REPLY_INIT;
    int v = idem_wait(store, &r, 40000, &claim, &reply);
    if (v == IDEM_RECLAIMED) {
        CHECK_BYTES(reply.mark, reply.mark_bytes, MARK);
        CHECK_IS(support_complete(store, &claim, 200, "the waiter's answer"), IDEM_OK);
    } else {
        CHECK_IS(v, IDEM_REPLAY);
        CHECK_BYTES(reply.body, reply.body_bytes, "done");
    }
    idem_reply_free(&reply);
}

static bool somebody_waits(void *ctx)
{
    struct stage *st = ctx;
    idem_key key = scene_key(st);
    idem_story story = IDEM_STORY_INIT;
    bool waits = idem_explain(st->peer, &key, &story) == IDEM_OK && story.waiters != 0;
    idem_story_free(&story);
    return waits;
}

static void waiter_comes(struct stage *st)
{
    waiter = support_spawn(wait_and_finish, st);
    CHECK(support_eventually(somebody_waits, st, SUPPORT_PATIENCE_MS));
}

static void waiter_gets_it(struct stage *st)
{
    (void)st;
    int how = waiter != 0 ? support_reap(waiter, SUPPORT_PATIENCE_MS) : 0;
    waiter = 0;
    if (how != 0)
        stage_broken("who waited did not get on: %d %s", how, support_why());
    support_forget_why();
}

static void complete_with_waiter(struct crash_page *page, idem_store *store, struct stage *st)
{
    scene_take(page, store, st);
    crash_pause();
    crash_arm();
    page->verdict = support_complete(store, &page->claim, 200, "done");
}

/* ------------------------------------------------------------------ sweeping */

/* Something of each kind that a sweep meets: expired answers, a lost claim that is remembered longer than its lease, a
   reserved slot of a dead process. */
static void leave_work_for_the_sweep(struct stage *st)
{
    stage_dead_claim(st, STAGE_KEY, MARK, 0, NULL);
    for (unsigned i = 0; i < 40; i++) {
        char key[24];
        snprintf(key, sizeof key, "short-%u", i);
        idem_request r = support_request(key);
        r.ttl_ms = 1000;
        idem_claim c;
        CHECK_IS(idem_begin(st->peer, &r, &c, NULL), IDEM_CLAIMED);
        CHECK_IS(support_complete(st->peer, &c, 200, "short-lived"), IDEM_OK);
    }
    scene_fill_bucket(st);
    stage_advance(st, STAGE_LEASE_MS + 1000);
}

static void fill_the_bucket_but_one(struct stage *st)
{
    for (unsigned k = STAGE_SPARE; k < STAGE_KEYS - 1; k++)
        stage_answer(st, k, "fills the bucket", 1000);
    stage_dead_claim(st, STAGE_KEYS - 1, NULL, 0, "claim.reserved");
    stage_dead_claim(st, STAGE_KEY, MARK, 0, NULL);
    stage_advance(st, STAGE_LEASE_MS + 1000);
}

static void sweep(struct crash_page *page, idem_store *store, struct stage *st)
{
    (void)st;
    page->verdict = 1;
    crash_arm();
    for (unsigned i = 0; page->verdict == 1 && i < 400; i++)
        page->verdict = idem_maintain(store, 0);
}

/* The key's outcome lies in its claim's rescue words; then the rest expires and the claim's region is swept. */
static void rescued_answer(struct stage *st)
{
    stage_own(st, STAGE_KEY, NULL, 0);
    fill_the_memory_for(st, 5000);
    CHECK_IS(support_complete(st->other, &st->owned, 200, "there is no room for this, a body of more than a few bytes"),
             IDEM_TOMBSTONE);
    stage_advance(st, STAGE_LEASE_MS + 1000);
}

/* The same, with nothing expired yet. */
static void rescued_now(struct stage *st)
{
    stage_own(st, STAGE_KEY, NULL, 0);
    fill_the_memory_for(st, 5000);
    CHECK_IS(support_complete(st->other, &st->owned, 200, "there is no room for this, a body of more than a few bytes"),
             IDEM_TOMBSTONE);
}

static void look_it_up(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_key key = scene_key(st);
    idem_reply r = IDEM_REPLY_INIT;
    crash_arm();
    page->verdict = idem_lookup(store, &key, &r);
    CHECK_IS(r.status, page->verdict == IDEM_REPLAY ? 200 : 0);
    idem_reply_free(&r);
}

static void explain_it(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_key key = scene_key(st);
    idem_story story = IDEM_STORY_INIT;
    crash_arm();
    page->verdict = idem_explain(store, &key, &story);
    CHECK_IS(story.state, page->verdict == IDEM_OK ? IDEM_STATE_COMPLETED : 0);
    idem_story_free(&story);
}

static void evicting(idem_options *o)
{
    o->when_full = IDEM_FULL_EVICT;
}

static void evict(struct crash_page *page, idem_store *store, struct stage *st)
{
    static char body[8000];
    (void)st;
    memset(body, 'e', sizeof body - 1);
    crash_arm();
    for (unsigned i = 0; i < 200; i++) {
        char key[24];
        snprintf(key, sizeof key, "evict-%u", i);
        idem_claim c;
        page->verdict = support_begin(store, key, &c);
        if (page->verdict == IDEM_CLAIMED)
            support_complete(store, &c, 200, body);
        support_clock_add(5); /* an answer of this very tick is not evicted: its token could come again */
    }
}

/* ------------------------------------------------------------------ places for processes and threads */

static void few_lanes(idem_options *o)
{
    o->lanes = 4;
}

static void few_processes(idem_options *o)
{
    o->processes = 4;
}

/* Two of four are dead men's. */
static void two_die(struct stage *st)
{
    stage_dead_claim(st, STAGE_SPARE, NULL, 0, "claim.finished");
    stage_dead_claim(st, STAGE_SPARE + 1, NULL, 0, "claim.filled");
}

static void open_and_begin(struct crash_page *page, idem_store *unused, struct stage *st)
{
    (void)unused;
    crash_arm();
    idem_store *store = support_attach(st->dir);
    scene_begin(page, store, st);
}

/* ------------------------------------------------------------------ the table */

const struct scene scenes_of_memory[] = {
    {.name = "an owner who completes", .act = complete, .effect = SWAP, .before = DEAD_MARKED, .after = ANSWER("done")},
    {.name = "an owner who completes and has answered before",
     .act = complete_again,
     .effect = SWAP,
     .before = DEAD_MARKED,
     .after = ANSWER("done")},
    {.name = "an owner who completes in what others have left",
     .prepare = leave_little,
     .act = complete,
     .effect = SWAP,
     .before = DEAD_MARKED,
     .after = ANSWER("done"),
     .flags = SCENE_FULL},
    {.name = "an owner who completes with more than fits",
     .act = complete_huge,
     .effect = SWAP,
     .before = DEAD_MARKED,
     .after = ANSWER(NULL),
     .flags = SCENE_NO_STOP},
    {.name = "an owner who completes with a large answer",
     .prepare = write_large_body,
     .act = complete_large,
     .effect = SWAP,
     .before = DEAD_MARKED,
     .after = ANSWER(large_body),
     .flags = SCENE_NO_STOP},
    {.name = "an owner who completes for now",
     .act = complete_transient,
     .effect = SWAP,
     .before = DEAD_MARKED,
     .after = {.verdict = IDEM_CLAIMED, .attempt = 2, .mark = MARK}},
    {.name = "an owner who completes without memory",
     .act = complete_without_memory,
     .effect = SWAP,
     .before = {.verdict = IDEM_E_FULL},
     .after = ANSWER(NULL),
     .meanwhile = fill_the_memory,
     .flags = SCENE_FULL | SCENE_QUIET},
    {.name = "an owner who completes while somebody waits",
     .act = complete_with_waiter,
     .effect = SWAP,
     .before = ANSWER("the waiter's answer"),
     .after = ANSWER("done"),
     .meanwhile = waiter_comes,
     .finally = waiter_gets_it,
     .flags = SCENE_NO_STOP},
    {.name = "a sweeper",
     .prepare = leave_work_for_the_sweep,
     .act = sweep,
     .before = LATE_MARKED,
     .after = LATE_MARKED,
     .flags = SCENE_QUIET},
    {.name = "a sweeper who meets a dead reservation",
     .prepare = fill_the_bucket_but_one,
     .act = sweep,
     .before = LATE_MARKED,
     .after = LATE_MARKED,
     .flags = SCENE_QUIET},
    {.name = "a sweeper who moves a rescued outcome",
     .prepare = rescued_answer,
     .act = sweep,
     .before = ANSWER(NULL),
     .after = ANSWER(NULL),
     .flags = SCENE_FULL | SCENE_QUIET},
    {.name = "who looks up a rescued outcome",
     .prepare = rescued_now,
     .act = look_it_up,
     .before = ANSWER(NULL),
     .after = ANSWER(NULL),
     .flags = SCENE_FULL | SCENE_QUIET},
    {.name = "who explains a rescued outcome",
     .prepare = rescued_now,
     .act = explain_it,
     .before = ANSWER(NULL),
     .after = ANSWER(NULL),
     .flags = SCENE_FULL | SCENE_QUIET},
    {.name = "who evicts answers",
     .prepare = scene_dead_owner,
     .act = evict,
     .before = DEAD_MARKED,
     .after = DEAD_MARKED,
     .options = evicting,
     .flags = SCENE_FULL | SCENE_NO_STOP},
    {.name = "who takes a dead thread's lane",
     .prepare = two_die,
     .act = scene_begin,
     .effect = NEW_CLAIM,
     .before = FIRST,
     .after = DEAD_FIRST,
     .options = few_lanes},
    {.name = "who takes a dead process's slot",
     .prepare = two_die,
     .act = open_and_begin,
     .effect = NEW_CLAIM,
     .before = FIRST,
     .after = DEAD_FIRST,
     .options = few_processes,
     .flags = SCENE_OPENS},
};
const unsigned scenes_of_memory_n = sizeof scenes_of_memory / sizeof scenes_of_memory[0];
