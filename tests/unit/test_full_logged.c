/*
 * tests/unit/test_full_logged.c - a full store with a log: what it could only record without its bytes comes back from the log as just that.
 */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/arena.h"
#include "store/handle.h"

#define GRANTED 60
#define BYTES   40000u

static char dir[160], wal[160];
static idem_claim granted[GRANTED], transient, abandoned;

static const char *name_of(int i)
{
    static char name[32];
    snprintf(name, sizeof name, "granted-%d", i);
    return name;
}

/* Claims and completes until a claim is refused. */
static void fill(idem_store *store)
{
    char key[32], body[400];
    memset(body, 'x', sizeof body - 1);
    body[sizeof body - 1] = '\0';
    for (int i = 0;; i++) {
        idem_claim claim;
        snprintf(key, sizeof key, "filling-%d", i);
        int e = support_begin(store, key, &claim);
        if (e == IDEM_E_FULL)
            return;
        CHECK_IS(e, IDEM_CLAIMED);
        idem_response r = support_response(200, body);
        r.durability = IDEM_DURABILITY_ASYNC;
        CHECK(idem_complete(store, &claim, &r) >= 0);
        CHECK(i < 100000);
    }
}

/* The outcome of each, as it was told. */
static void look(idem_store *store, const int how[GRANTED])
{
    for (int i = 0; i < GRANTED; i++) {
        idem_claim none;
        idem_reply reply = IDEM_REPLY_INIT;
        idem_request rq = support_request(name_of(i));
        CHECK_IS(idem_begin(store, &rq, &none, &reply), IDEM_REPLAY);
        CHECK_IS(reply.status, 1000 + i);
        CHECK_IS(i % 5 == 0 ? reply.meta_bytes : reply.body_bytes, BYTES);
        CHECK_IS(reply.response_flags, 7);
        CHECK_IS((reply.flags & IDEM_REPLY_NOT_RETAINED) != 0, how[i] == IDEM_TOMBSTONE);
        CHECK(reply.expires_in_ms > (i % 2 == 0 ? 3600000 : 0) && reply.age_ms >= 0);
        CHECK(i % 2 == 0 || reply.expires_in_ms <= 3600000);
        idem_reply_free(&reply);
    }
}

static bool an_answer_among_claims(idem_store *store)
{
    const struct idem_view *v = store->view;
    for (uint32_t i = 0; i < v->region_count; i++) {
        uint64_t state = load_relaxed(&v->regions[i].state), meta = load_relaxed(&v->regions[i].meta);
        if (region_phase(state) == REGION_OPEN && region_class_of(meta) == CLASS_CLAIMS &&
            region_expiry(state) > idem_view_now_ms(v) + 3600000)
            return true;
    }
    return false;
}

static void what_a_full_store_recorded_without_its_bytes_comes_back_from_the_log(void **state)
{
    (void)state;
    int how[GRANTED], tombstones = 0;
    idem_options o = support_options(400);
    snprintf(dir, sizeof dir, "%s", support_dir());
    snprintf(wal, sizeof wal, "%s", support_dir());
    o.response_bytes = 400;
    o.wal_dir = wal;
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_store *store = support_open(dir, &o);
    for (int i = 0; i < GRANTED; i++)
        CHECK_IS(support_begin(store, name_of(i), &granted[i]), IDEM_CLAIMED);
    CHECK_IS(support_begin(store, "transient", &transient), IDEM_CLAIMED);
    CHECK_IS(support_begin(store, "abandoned", &abandoned), IDEM_CLAIMED);
    fill(store);
    char *body = malloc(BYTES + 1);
    CHECK(body != NULL);
    memset(body, 'y', BYTES);
    body[BYTES] = '\0';
    for (int i = 0; i < GRANTED; i++) {
        idem_response r = support_response(1000 + i, body);
        r.user_flags = 7;
        r.ttl_ms = i % 2 == 0 ? 0 : 3600000;
        if (i % 5 == 0) { /* all of it metadata */
            r.meta = r.body;
            r.meta_bytes = r.body_bytes;
            r.body = NULL;
            r.body_bytes = 0;
        }
        how[i] = idem_complete(store, &granted[i], &r);
        CHECK(how[i] == IDEM_OK || how[i] == IDEM_TOMBSTONE);
        tombstones += how[i] == IDEM_TOMBSTONE;
    }
    CHECK(tombstones > GRANTED / 4); /* it came to that */
    /* A transient answer has nothing to fall back on: it is for those who wait, and is not worth the memory that is left. */
    idem_response r = support_response(503, body);
    r.flags = IDEM_RESPONSE_TRANSIENT;
    CHECK_IS(idem_complete(store, &transient, &r), IDEM_E_FULL);
    CHECK(strstr(idem_error_detail(), "abandon the claim instead") != NULL);
    CHECK_IS(idem_abandon(store, &transient, IDEM_NOTHING_HAPPENED), IDEM_OK);
    CHECK_IS(idem_abandon(store, &abandoned, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    look(store, how);
    idem_key k = support_key("abandoned");
    CHECK(idem_resolve(store, &k, abandoned.token, IDEM_RESOLVE_COMPLETED, NULL) >= 0);
    CHECK_IS(idem_sync(store, SUPPORT_PATIENCE_MS), IDEM_OK);
    /* Where there is room again, they are moved out of the claims' memory, and are recorded as what they are. Not if an answer found its last room among
       the claims (one run in some hundred): then they stay as long as it does. */
    for (int i = 0; i < 400; i++) {
        char key[32];
        snprintf(key, sizeof key, "filling-%d", i);
        k = support_key(key);
        CHECK_IS(idem_forget(store, &k), IDEM_OK);
    }
    uint64_t moved = support_stats(store).moved_entries;
    support_clock_add(120000);
    support_maintain(store);
    CHECK(support_stats(store).moved_entries > moved || an_answer_among_claims(store));
    look(store, how);
    CHECK_IS(idem_sync(store, SUPPORT_PATIENCE_MS), IDEM_OK);
    idem_close(store);
    for (int again = 0; again < 2; again++) { /* the second time from what the recovery itself has written */
        support_remove(dir);
        store = support_open(dir, &o);
        look(store, how);
        CHECK_IS(support_begin(store, "abandoned", NULL), IDEM_REPLAY);
        /* Asked for by a look: whether a claim finds room is chance in a store as full as this. */
        idem_story story = IDEM_STORY_INIT;
        k = support_key("transient");
        CHECK_IS(idem_explain(store, &k, &story), IDEM_OK);
        CHECK_IS(story.state, IDEM_STATE_ABANDONED);
        idem_story_free(&story);
        CHECK_IS(idem_sync(store, SUPPORT_PATIENCE_MS), IDEM_OK);
        idem_close(store);
        support_verify(dir);
    }
    free(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_full_store_recorded_without_its_bytes_comes_back_from_the_log),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
