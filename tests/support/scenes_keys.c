/* tests/support/scenes_keys.c - claiming, looking, what owners do to a claim, what operators do. See scenes.h. */
#include "support/scenes_parts.h"

#include <stdio.h>
#include <string.h>

idem_key scene_key(const struct stage *st)
{
    return support_key(st->key[STAGE_KEY]);
}

/* ------------------------------------------------------------------ claiming */

void scene_begin(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_request r = stage_request(st, STAGE_KEY);
    crash_arm();
    page->verdict = idem_begin(store, &r, &page->claim, NULL);
}

/* The straight way of store/fresh.c, which a thread's first claim can't go. */
static void begin_again(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_request before = stage_request(st, STAGE_SPARE + 1), r = stage_request(st, STAGE_KEY);
    idem_claim first;
    CHECK_IS(idem_begin(store, &before, &first, NULL), IDEM_CLAIMED);
    crash_arm();
    page->verdict = idem_begin(store, &r, &page->claim, NULL);
}

static void begin_many(struct crash_page *page, idem_store *store, struct stage *st)
{
    static idem_result results[3];
    idem_request requests[3];
    for (unsigned i = 0; i < 3; i++) {
        requests[i] = stage_request(st, i == 0 ? STAGE_KEY : STAGE_SPARE + i);
        results[i] = (idem_result){.size = sizeof results[i], .claim = IDEM_CLAIM_INIT, .reply = IDEM_REPLY_INIT};
    }
    crash_arm();
    CHECK_IS(idem_begin_many(store, requests, 3, results), IDEM_OK);
    page->verdict = results[0].verdict;
    page->claim = results[0].claim;
}

static void neighbour_takes_the_header(struct stage *st)
{
    stage_answer(st, STAGE_SPARE, "in between", STAGE_TTL_MS);
}

static void other_takes_the_key(struct stage *st)
{
    stage_own(st, STAGE_KEY, NULL, 0);
}

void scene_fill_bucket(struct stage *st)
{
    for (unsigned k = STAGE_SPARE; k < STAGE_KEYS; k++)
        stage_answer(st, k, "fills the bucket", STAGE_NEIGHBOURS_MS);
}

/* Every slot of the index is taken by an answer that expires soon. */
static void fill_the_index(struct stage *st)
{
    for (unsigned i = 0; i < 400; i++) {
        char key[24];
        snprintf(key, sizeof key, "fill-%u", i);
        idem_request r = support_request(key);
        r.ttl_ms = 1000;
        idem_claim c;
        int v = idem_begin(st->peer, &r, &c, NULL);
        if (v == IDEM_E_FULL)
            break;
        CHECK_IS(v, IDEM_CLAIMED);
        CHECK_IS(support_complete(st->peer, &c, 200, "soon gone"), IDEM_OK);
    }
    stage_advance(st, 2000);
}

void scene_dead_owner(struct stage *st)
{
    stage_dead_claim(st, STAGE_KEY, MARK, 0, NULL);
}

static void dead_holder(struct stage *st)
{
    stage_dead_claim(st, STAGE_KEY, MARK, IDEM_HOLD, NULL);
}

static void neighbour_dies_published(struct stage *st)
{
    stage_dead_claim(st, STAGE_SPARE, NULL, 0, "claim.published");
}

static void neighbour_is_there(struct stage *st)
{
    idem_claim c;
    idem_reply r = IDEM_REPLY_INIT;
    int v = stage_begin(st, st->peer, STAGE_SPARE, &c, &r);
    bool right = v == IDEM_RECLAIMED && (st->slept || r.lost_reason == IDEM_LOST_DEAD);
    if (!right && !(v == IDEM_CLAIMED && st->slept))
        stage_broken("the one who died published is not reclaimed: %d", v);
    idem_reply_free(&r);
}

static void slow_owner(struct stage *st)
{
    stage_own(st, STAGE_KEY, MARK, 0);
    st->old[st->old_n++] = st->owned;
    stage_advance(st, STAGE_LEASE_MS + 1000);
}

static void expired_answer(struct stage *st)
{
    stage_answer(st, STAGE_KEY, "expired", 1000);
    stage_advance(st, 1200);
}

static void abandoned(struct stage *st)
{
    stage_own(st, STAGE_KEY, MARK, 0);
    CHECK_IS(idem_abandon(st->other, &st->owned, IDEM_NOTHING_HAPPENED), IDEM_OK);
    st->old[st->old_n++] = st->owned;
}

static void transient_answer(struct stage *st)
{
    stage_own(st, STAGE_KEY, MARK, 0);
    idem_response r = support_response(503, "try again");
    r.flags = IDEM_RESPONSE_TRANSIENT;
    CHECK_IS(idem_complete(st->other, &st->owned, &r), IDEM_OK);
}

/* Claims over a transient answer; then, as one who waited, gets that answer through the claim. */
static void begin_after_transient(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_request r = stage_request(st, STAGE_KEY);
    idem_reply reply = IDEM_REPLY_INIT;
    idem_claim none;
    crash_arm();
    page->verdict = idem_begin(store, &r, &page->claim, NULL);
    r.wait_token = st->owned.token;
    CHECK_IS(idem_begin(store, &r, &none, &reply), IDEM_REPLAY);
    CHECK_BYTES(reply.body, reply.body_bytes, "try again");
    idem_reply_free(&reply);
}

static void answered(struct stage *st)
{
    stage_answer(st, STAGE_KEY, "stays", STAGE_TTL_MS);
}

static void look(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_key key = scene_key(st);
    idem_reply reply = IDEM_REPLY_INIT;
    idem_story story = IDEM_STORY_INIT;
    crash_arm();
    page->verdict = idem_lookup(store, &key, &reply);
    CHECK_IS(idem_explain(store, &key, &story), IDEM_OK);
    idem_reply_free(&reply);
    idem_story_free(&story);
}

void scene_take(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_request r = stage_request(st, STAGE_KEY);
    CHECK_IS(idem_begin(store, &r, &page->claim, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_mark(store, &page->claim, MARK, strlen(MARK)), IDEM_OK);
}

/* ------------------------------------------------------------------ what owners do to a claim */

static void renew(struct crash_page *page, idem_store *store, struct stage *st)
{
    scene_take(page, store, st);
    crash_arm();
    page->verdict = idem_renew(store, &page->claim, 0);
}

static void mark_again(struct crash_page *page, idem_store *store, struct stage *st)
{
    scene_take(page, store, st);
    crash_arm();
    page->verdict = idem_mark(store, &page->claim, "further on", 10);
}

static void owned(struct stage *st)
{
    stage_own(st, STAGE_KEY, MARK, 0);
}

static void adopt(struct crash_page *page, idem_store *store, struct stage *st)
{
    page->claim = st->owned;
    crash_arm();
    page->verdict = idem_adopt(store, &page->claim);
}

static void abandon(struct crash_page *page, idem_store *store, struct stage *st)
{
    scene_take(page, store, st);
    crash_arm();
    page->verdict = idem_abandon(store, &page->claim, IDEM_NOTHING_HAPPENED);
}

static void declare_lost(struct crash_page *page, idem_store *store, struct stage *st)
{
    scene_take(page, store, st);
    crash_arm();
    page->verdict = idem_abandon(store, &page->claim, IDEM_OUTCOME_UNKNOWN);
}

/* ------------------------------------------------------------------ what operators do */

static void forget(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_key key = scene_key(st);
    crash_arm();
    page->verdict = idem_forget(store, &key);
}

static void release(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_key key = scene_key(st);
    crash_arm();
    page->verdict = idem_release(store, &key, st->owned.token);
}

static void resolve_rerun(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_key key = scene_key(st);
    crash_arm();
    page->verdict = idem_resolve(store, &key, st->old[0].token, IDEM_RESOLVE_RERUN, NULL);
}

static void resolve_completed(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_key key = scene_key(st);
    idem_response r = support_response(200, "it happened");
    crash_arm();
    page->verdict = idem_resolve(store, &key, st->old[0].token, IDEM_RESOLVE_COMPLETED, &r);
}

static void wait_a_little(struct crash_page *page, idem_store *store, struct stage *st)
{
    idem_request r = stage_request(st, STAGE_KEY);
    idem_claim none;
    crash_arm();
    page->verdict = idem_wait(store, &r, 20, &none, NULL);
}

/* ------------------------------------------------------------------ the table */

const struct scene scenes_of_keys[] = {
    {.name = "a claimant of a new key", .act = scene_begin, .effect = NEW_CLAIM, .before = FIRST, .after = DEAD_FIRST},
    {.name = "a claimant of a new key who has claimed before",
     .act = begin_again,
     .effect = NEW_CLAIM,
     .before = FIRST,
     .after = DEAD_FIRST},
    {.name = "a claimant who has claimed before and whose reservation a neighbour overtakes",
     .act = begin_again,
     .effect = NEW_CLAIM,
     .before = FIRST,
     .after = DEAD_FIRST,
     .pause_at = "claim.reserved",
     .meanwhile = neighbour_takes_the_header},
    {.name = "a claimant of three keys at once",
     .act = begin_many,
     .effect = NEW_CLAIM,
     .before = FIRST,
     .after = DEAD_FIRST},
    {.name = "a claimant whose reservation a neighbour overtakes",
     .act = scene_begin,
     .effect = NEW_CLAIM,
     .before = FIRST,
     .after = DEAD_FIRST,
     .pause_at = "claim.reserved",
     .meanwhile = neighbour_takes_the_header},
    {.name = "a claimant whom another claimant of the key overtakes",
     .act = scene_begin,
     .effect = "claim.given_back",
     .before = FIRST,
     .after = OWNED,
     .pause_at = "claim.reserved",
     .meanwhile = other_takes_the_key,
     .flags = SCENE_OWNED | SCENE_NO_STOP},
    {.name = "a claimant whose key spills into the next bucket",
     .prepare = scene_fill_bucket,
     .act = scene_begin,
     .effect = NEW_CLAIM,
     .before = FIRST,
     .after = DEAD_FIRST},
    {.name = "a claimant who has to free a slot",
     .prepare = fill_the_index,
     .act = scene_begin,
     .effect = NEW_CLAIM,
     .before = FIRST,
     .after = DEAD_FIRST},
    {.name = "a claimant who helps a dead neighbour",
     .prepare = neighbour_dies_published,
     .act = scene_begin,
     .effect = NEW_CLAIM,
     .before = FIRST,
     .after = DEAD_FIRST,
     .finally = neighbour_is_there},
    {.name = "who takes over from the dead",
     .prepare = scene_dead_owner,
     .act = scene_begin,
     .effect = SWAP,
     .before = DEAD_MARKED,
     .after = DEAD_SECOND},
    {.name = "who takes over after the lease",
     .prepare = slow_owner,
     .act = scene_begin,
     .effect = SWAP,
     .before = LATE_MARKED,
     .after = DEAD_SECOND},
    {.name = "a claimant over an expired answer",
     .prepare = expired_answer,
     .act = scene_begin,
     .effect = SWAP,
     .before = FIRST,
     .after = DEAD_FIRST},
    {.name = "a claimant over an abandoned attempt",
     .prepare = abandoned,
     .act = scene_begin,
     .effect = SWAP,
     .before = {.verdict = IDEM_CLAIMED, .attempt = 2, .mark = MARK},
     .after = DEAD_SECOND},
    {.name = "a claimant over a transient answer",
     .prepare = transient_answer,
     .act = begin_after_transient,
     .effect = SWAP,
     .before = {.verdict = IDEM_CLAIMED, .attempt = 2, .mark = MARK},
     .after = DEAD_SECOND,
     .flags = SCENE_NO_STOP},
    {.name = "who tries again after a transient answer",
     .prepare = transient_answer,
     .act = scene_begin,
     .effect = SWAP,
     .before = {.verdict = IDEM_CLAIMED, .attempt = 2, .mark = MARK},
     .after = DEAD_SECOND},
    {.name = "who gets a replay",
     .prepare = answered,
     .act = scene_begin,
     .before = ANSWER("stays"),
     .after = ANSWER("stays")},
    {.name = "who only looks",
     .prepare = answered,
     .act = look,
     .before = ANSWER("stays"),
     .after = ANSWER("stays"),
     .flags = SCENE_NO_STOP},
    {.name = "an owner who renews", .act = renew, .effect = SWAP, .before = DEAD_MARKED, .after = DEAD_MARKED},
    {.name = "an owner who leaves a mark",
     .act = mark_again,
     .effect = SWAP,
     .before = DEAD_MARKED,
     .after = {.verdict = IDEM_RECLAIMED, .reason = IDEM_LOST_DEAD, .attempt = 2, .mark = "further on"}},
    {.name = "who adopts a claim",
     .prepare = owned,
     .act = adopt,
     .effect = SWAP,
     .before = OWNED,
     .after = DEAD_MARKED,
     .flags = SCENE_OWNED},
    {.name = "an owner who abandons",
     .act = abandon,
     .effect = SWAP,
     .before = DEAD_MARKED,
     .after = {.verdict = IDEM_CLAIMED, .attempt = 2, .mark = MARK}},
    {.name = "an owner who says the outcome is unknown",
     .act = declare_lost,
     .effect = SWAP,
     .before = DEAD_MARKED,
     .after = {.verdict = IDEM_RECLAIMED, .reason = IDEM_LOST_DECLARED, .attempt = 2, .mark = MARK}},
    {.name = "who forgets an answer",
     .prepare = answered,
     .act = forget,
     .effect = SWAP,
     .before = ANSWER("stays"),
     .after = FIRST,
     .flags = SCENE_UNDOES},
    {.name = "who forgets a running attempt",
     .prepare = owned,
     .act = forget,
     .effect = SWAP,
     .before = OWNED,
     .after = FIRST,
     .flags = SCENE_UNDOES | SCENE_OWNED},
    {.name = "who releases a running attempt",
     .prepare = owned,
     .act = release,
     .effect = SWAP,
     .before = OWNED,
     .after = {.verdict = IDEM_RECLAIMED, .reason = IDEM_LOST_RELEASED, .attempt = 2, .mark = MARK},
     .flags = SCENE_OWNED},
    {.name = "who resolves a lost attempt as not happened",
     .prepare = dead_holder,
     .act = resolve_rerun,
     .effect = SWAP,
     .before = HELD,
     .after = {.verdict = IDEM_CLAIMED, .attempt = 2, .mark = MARK}},
    {.name = "who resolves a lost attempt as done",
     .prepare = dead_holder,
     .act = resolve_completed,
     .effect = SWAP,
     .before = HELD,
     .after = ANSWER("it happened")},
    {.name = "who waits",
     .prepare = owned,
     .act = wait_a_little,
     .before = OWNED,
     .after = OWNED,
     .flags = SCENE_OWNED},
};
const unsigned scenes_of_keys_n = sizeof scenes_of_keys / sizeof scenes_of_keys[0];
