/*
 * tests/multi/test_owners.c - several processes want the same keys: each key has one owner at a time, whoever is killed.
 *
 * The oracle lies in memory that the workers share. A worker that is told "it is yours" puts itself down as the key's owner, which
 * must be free, or a worker's that the test is killing; it takes itself off before it ends its attempt. Tokens must grow.
 */
#include "support/support.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------ many keys, once each */

#define RACERS 4

static struct race {
    const char *dir;
    uint64_t keys;
    bool batched;
    struct idem_a64 ready;
    struct idem_a64 *owners; /* a count for each key */
} * race;

static void run_race(void *number)
{
    unsigned me = (unsigned)(uintptr_t)number;
    idem_store *store = support_attach(race->dir);
    uint64_t ids[64];
    idem_request requests[64];
    static idem_result results[64];
    add_relaxed(&race->ready, 1);
    while (load_relaxed(&race->ready) < RACERS)
        ;
    uint64_t step = race->batched ? 64 : 1;
    for (uint64_t from = 0; from < race->keys; from += step) {
        uint64_t n = from + step < race->keys ? step : race->keys - from;
        for (uint64_t i = 0; i < n; i++) {
            ids[i] = from + (me % 2 == 0 ? i : n - 1 - i);
            requests[i] = (idem_request)IDEM_REQUEST_INIT;
            requests[i].key = (idem_key){.key = &ids[i], .key_bytes = sizeof ids[i]};
            results[i] = (idem_result){.size = sizeof(idem_result), .reply = IDEM_REPLY_INIT};
        }
        if (race->batched)
            CHECK_IS(idem_begin_many(store, requests, n, results), IDEM_OK);
        else
            results[0].verdict = idem_begin(store, &requests[0], &results[0].claim, NULL);
        for (uint64_t i = 0; i < n; i++) {
            int v = results[i].verdict;
            CHECK(v == IDEM_CLAIMED || v == IDEM_IN_PROGRESS || v == IDEM_REPLAY);
            if (v == IDEM_CLAIMED) {
                add_relaxed(&race->owners[ids[i]], 1);
                if (ids[i] % 2 == 0)
                    CHECK_IS(support_complete(store, &results[i].claim, 1, "x"), IDEM_OK);
            }
            idem_reply_free(&results[i].reply);
        }
    }
    /* Stays until all are through: a claim of somebody who ended would be lost, and rightly reclaimed. */
    add_relaxed(&race->ready, 1);
    while (load_relaxed(&race->ready) < 2 * RACERS)
        support_sleep_ms(1);
    idem_close(store);
}

static void race_for(uint64_t keys, bool batched)
{
    idem_options o = support_options(keys);
    o.response_bytes = 256; /* half of the keys stay in progress, and a claim's entry is larger than such an answer's */
    race->dir = support_dir();
    race->keys = keys;
    race->batched = batched;
    store_relaxed(&race->ready, 0);
    race->owners = support_shared(keys * sizeof *race->owners);
    idem_store *store = support_open(race->dir, &o);
    pid_t pids[RACERS];
    for (uintptr_t i = 0; i < RACERS; i++)
        pids[i] = support_spawn(run_race, (void *)i);
    for (unsigned i = 0; i < RACERS; i++)
        CHECK_IS(support_reap(pids[i], support_long() ? 1800000 : 2 * SUPPORT_PATIENCE_MS), 0);
    for (uint64_t i = 0; i < keys; i++)
        CHECK_IS(load_relaxed(&race->owners[i]), 1);
    idem_stats_data s = support_stats(store);
    CHECK_IS(s.claimed, keys);
    CHECK_IS(s.reclaimed, 0);
    CHECK_IS(s.completed, (keys + 1) / 2);
    CHECK_IS(s.replayed + s.in_progress, keys * (RACERS - 1));
    idem_close(store);
    support_verify(race->dir);
    CHECK_IS(idem_destroy(race->dir), IDEM_OK);
}

static void of_processes_that_claim_the_same_keys_each_key_has_exactly_one_owner(void **state)
{
    (void)state;
    race_for(support_long() ? 3000000 : 100000, false);
}

static void claims_in_batches_have_exactly_one_owner_too(void **state)
{
    (void)state;
    race_for(support_long() ? 3000000 : 50000, true);
}

/* ------------------------------------------------------------------ few keys, for ever, with deaths */

#define KEYS    24 /* in a store for 16: three or four to a bucket, spilling into the next */
#define WORKERS 4
#define NUMBERS 4096 /* a new one for each worker process */

static struct arena {
    const char *dir;
    struct idem_a64 stop;
    struct idem_a64 operations[8];
    struct {
        struct idem_a64 owner; /* worker's number, 0: none */
        struct idem_a64 token; /* the largest that was seen */
    } keys[KEYS];
    struct idem_a64 doomed[NUMBERS]; /* is being killed, or was */
} * arena;

enum { CLAIMS, RECLAIMS, REPLAYS, WAITED_FOR, FULL, TRANSIENTS, FORGETS, LOST };

static void raise_token(unsigned k, uint64_t token)
{
    uint64_t seen = load_relaxed(&arena->keys[k].token);
    while (seen < token && !cas_relaxed(&arena->keys[k].token, &seen, token))
        ;
}

static void own(unsigned k, uint64_t me, int verdict, const idem_claim *claim, uint64_t token_before)
{
    CHECK(claim->token > token_before);
    raise_token(k, claim->token);
    uint64_t owner = 0;
    while (!cas_acq_rel(&arena->keys[k].owner, &owner, me)) {
        /* Somebody is down as its owner: only one who is being killed may be, and then the claim says that he was lost. */
        CHECK(load_acquire(&arena->doomed[owner]) == 1);
        CHECK_IS(verdict, IDEM_RECLAIMED);
    }
}

static void disown(unsigned k, uint64_t me)
{
    CHECK(cas_acq_rel(&arena->keys[k].owner, &me, 0));
}

/* A peer that is stopped in the middle holds back its region for a moment, and this store has but sixteen. */
static int counting_full(int e)
{
    if (e == IDEM_E_FULL)
        add_relaxed(&arena->operations[FULL], 1);
    return e == IDEM_E_FULL ? IDEM_OK : e;
}

static void end_attempt(idem_store *store, unsigned k, const char *key, uint64_t me, const idem_claim *claim,
                        uint64_t *random)
{
    char body[64];
    idem_key id = support_key(key);
    idem_response rs;
    uint64_t what = support_random(random) % 16;
    if (what & 8) {
        CHECK_IS(counting_full(idem_mark(store, claim, key, strlen(key))), IDEM_OK);
        CHECK_IS(counting_full(idem_renew(store, claim, 0)), IDEM_OK);
    }
    disown(k, me);
    switch (what & 7) {
    case 0:
    case 1:
        CHECK_IS(idem_abandon(store, claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
        break;
    case 2:
        CHECK_IS(idem_abandon(store, claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
        break;
    case 3:
        CHECK_IS(idem_forget(store, &id), IDEM_OK);
        add_relaxed(&arena->operations[FORGETS], 1);
        break;
    case 4:
        rs = support_response(503, "later");
        rs.flags = IDEM_RESPONSE_TRANSIENT;
        if (idem_complete(store, claim, &rs) == IDEM_E_FULL)
            CHECK_IS(counting_full(idem_abandon(store, claim, IDEM_NOTHING_HAPPENED)), IDEM_OK);
        add_relaxed(&arena->operations[TRANSIENTS], 1);
        break;
    default:
        snprintf(body, sizeof body, "%s/%llx", key, (unsigned long long)claim->token);
        rs = support_response((int32_t)k, body);
        rs.ttl_ms = 1 + (int64_t)(support_random(random) % 6);
        CHECK(idem_complete(store, claim, &rs) >= 0);
        break;
    }
}

static void work(void *number)
{
    uint64_t me = (uint64_t)(uintptr_t)number, random = support_seed() * 77 + me;
    idem_store *store = support_attach(arena->dir);
    support_shake(random);
    while (load_relaxed(&arena->stop) == 0) {
        unsigned k = (unsigned)(support_random(&random) % KEYS);
        char key[16], body[64];
        snprintf(key, sizeof key, "key-%u", k);
        idem_request rq = support_request(key);
        idem_claim claim;
        idem_reply reply = IDEM_REPLY_INIT;
        rq.lease_ms = IDEM_LEASE_MAX_MS;
        uint64_t token_before = load_acquire(&arena->keys[k].token);
        bool waits = support_random(&random) % 4 == 0;
        int e = waits ? idem_wait(store, &rq, 3, &claim, &reply) : idem_begin(store, &rq, &claim, &reply);
        switch (e) {
        case IDEM_CLAIMED:
        case IDEM_RECLAIMED:
            own(k, me, e, &claim, token_before);
            add_relaxed(&arena->operations[e == IDEM_CLAIMED ? CLAIMS : RECLAIMS], 1);
            if (support_random(&random) % 8 == 0)
                idem_maintain(store, 0);
            end_attempt(store, k, key, me, &claim, &random);
            break;
        case IDEM_REPLAY:
            if (reply.flags & IDEM_REPLY_TRANSIENT) {
                CHECK_BYTES(reply.body, reply.body_bytes, "later");
                break;
            }
            CHECK(reply.token >= token_before);
            CHECK_IS(reply.status, k);
            snprintf(body, sizeof body, "%s/%llx", key, (unsigned long long)reply.token);
            CHECK_BYTES(reply.body, reply.body_bytes, body);
            add_relaxed(&arena->operations[REPLAYS], 1);
            if (support_random(&random) % 8 == 0)
                support_clock_add(1); /* answers live a few ms only */
            break;
        case IDEM_IN_PROGRESS:
        case IDEM_E_TIMEOUT:
            CHECK(reply.token >= token_before);
            add_relaxed(&arena->operations[WAITED_FOR], 1);
            break;
        default:
            CHECK_IS(e, IDEM_E_FULL);
            add_relaxed(&arena->operations[FULL], 1);
            break;
        }
        idem_reply_free(&reply);
    }
    idem_close(store);
}

static void print_operations(const char *what)
{
    print_message(
        "%s: %llu claims, %llu reclaims, %llu replays, %llu in progress, %llu full, %llu transient, %llu forgotten\n",
        what, (unsigned long long)load_relaxed(&arena->operations[CLAIMS]),
        (unsigned long long)load_relaxed(&arena->operations[RECLAIMS]),
        (unsigned long long)load_relaxed(&arena->operations[REPLAYS]),
        (unsigned long long)load_relaxed(&arena->operations[WAITED_FOR]),
        (unsigned long long)load_relaxed(&arena->operations[FULL]),
        (unsigned long long)load_relaxed(&arena->operations[TRANSIENTS]),
        (unsigned long long)load_relaxed(&arena->operations[FORGETS]));
}

static void each_key_has_one_owner_at_a_time_while_workers_are_killed_at_random(void **state)
{
    (void)state;
    memset(arena, 0, sizeof *arena);
    arena->dir = support_dir();
    idem_options o = support_options(16);
    idem_store *store = support_open(arena->dir, &o);
    uint64_t random = support_seed();
    pid_t pids[WORKERS];
    uintptr_t numbers[WORKERS], next = 1;
    for (unsigned i = 0; i < WORKERS; i++) {
        numbers[i] = next++;
        pids[i] = support_spawn(work, (void *)numbers[i]);
    }
    long kills = support_long() ? NUMBERS - 100 : support_scaled(400, 2);
    for (long n = 0; n < kills; n++) {
        unsigned i = (unsigned)(support_random(&random) % WORKERS);
        support_sleep_ms((int64_t)(support_random(&random) % 15));
        support_clock_add((int64_t)(support_random(&random) % 20));
        store_release(&arena->doomed[numbers[i]], 1);
        support_kill(pids[i], SIGKILL);
        int how = support_reap(pids[i], SUPPORT_PATIENCE_MS);
        if (how == SUPPORT_FAILED)
            print_error("worker %lu: %s\n", (unsigned long)numbers[i], support_why());
        CHECK_IS(how, SUPPORT_KILLED);
        numbers[i] = next++;
        pids[i] = support_spawn(work, (void *)numbers[i]);
    }
    store_relaxed(&arena->stop, 1);
    for (unsigned i = 0; i < WORKERS; i++)
        CHECK_IS(support_reap(pids[i], SUPPORT_PATIENCE_MS), 0);
    print_operations("killed at random");
    CHECK(load_relaxed(&arena->operations[CLAIMS]) > 1000);
    CHECK(load_relaxed(&arena->operations[RECLAIMS]) > 20);
    CHECK(load_relaxed(&arena->operations[REPLAYS]) > 100);
    /* 24 keys, mostly gone, in a megabyte */
    CHECK(load_relaxed(&arena->operations[FULL]) <= load_relaxed(&arena->operations[CLAIMS]) / 1000);

    /* Nothing is left behind: every key can be had, no slot, lane or region is held by the dead. */
    support_clock_add(IDEM_LEASE_MAX_MS + 1);
    support_maintain(store);
    support_verify(arena->dir);
    for (unsigned k = 0; k < KEYS; k++) {
        char key[16];
        snprintf(key, sizeof key, "key-%u", k);
        idem_key id = support_key(key);
        int e = support_begin(store, key, NULL);
        CHECK(e == IDEM_CLAIMED || e == IDEM_RECLAIMED);
        CHECK_IS(idem_forget(store, &id), IDEM_OK);
    }
    support_clock_add(2 * (int64_t)IDEM_LEASE_MAX_MS);
    support_maintain(store);
    idem_stats_data s = support_stats(store);
    CHECK_IS(s.processes, 1);
    CHECK_IS(s.lanes, 1);
    CHECK(s.regions_free + 4 >= s.regions);
    idem_close(store);
    support_verify(arena->dir);
}

/* ------------------------------------------------------------------ everybody does everything to everybody's keys */

static void meddle(void *number)
{
    uint64_t random = support_seed() * 31 + (uint64_t)(uintptr_t)number;
    idem_store *store = support_attach(arena->dir);
    struct {
        idem_claim claim;
        char key[16];
    } mine[8];
    unsigned held = 0, which;
    support_shake(random);
    while (load_relaxed(&arena->stop) == 0) {
        unsigned k = (unsigned)(support_random(&random) % KEYS);
        char key[16];
        snprintf(key, sizeof key, "key-%u", k);
        idem_request rq = support_request(key);
        idem_claim claim;
        idem_reply reply = IDEM_REPLY_INIT;
        idem_response rs = support_response(1, key);
        rq.lease_ms = 1 + (int64_t)(support_random(&random) % 50);
        rq.ttl_ms = 1 + (int64_t)(support_random(&random) % 2000);
        rs.ttl_ms = 1 + (int64_t)(support_random(&random) % 500);
        uint64_t token_before = load_acquire(&arena->keys[k].token);
        int e = IDEM_OK;
        switch (support_random(&random) % 12) {
        case 0:
            e = idem_forget(store, &rq.key);
            CHECK(e == IDEM_OK || e == IDEM_E_NO_KEY);
            break;
        case 1:
            e = idem_release(store, &rq.key, 0);
            CHECK(e == IDEM_OK || e == IDEM_E_NO_KEY || e == IDEM_E_LOST);
            break;
        case 2:
            e = idem_lookup(store, &rq.key, &reply);
            if (e == IDEM_UNKNOWN)
                e = idem_resolve(store, &rq.key, reply.lost_token, (int)(support_random(&random) % 2), NULL);
            CHECK(e >= 0 || e == IDEM_E_NO_KEY || e == IDEM_E_LOST || e == IDEM_E_FULL);
            break;
        case 3:
            if (support_random(&random) % 8 == 0)
                CHECK(idem_maintain(store, (int64_t)(support_random(&random) % 300)) >= 0);
            break;
        case 4: /* a late owner */
            if (held == 0)
                break;
            which = (unsigned)(support_random(&random) % held);
            claim = mine[which].claim;
            rs = support_response(1, mine[which].key);
            switch (support_random(&random) % 5) {
            case 0:
                e = idem_renew(store, &claim, 10);
                break;
            case 1:
                e = idem_mark(store, &claim, "late", 4);
                break;
            case 2:
                e = idem_adopt(store, &claim);
                break;
            case 3:
                e = idem_abandon(store, &claim, (int)(support_random(&random) % 2));
                break;
            default:
                e = idem_complete(store, &claim, &rs);
                break;
            }
            CHECK(e == IDEM_OK || e == IDEM_TOMBSTONE || e == IDEM_E_LOST || e == IDEM_E_FULL);
            break;
        default:
            rq.flags = support_random(&random) % 16 == 0 ? IDEM_HOLD : 0;
            e = support_random(&random) % 4 == 0 ? idem_wait(store, &rq, 2, &claim, &reply)
                                                 : idem_begin(store, &rq, &claim, &reply);
            CHECK(e >= 0 || e == IDEM_E_FULL || e == IDEM_E_TIMEOUT);
            if (e == IDEM_CLAIMED || e == IDEM_RECLAIMED) {
                CHECK(claim.token > token_before);
                raise_token(k, claim.token);
                add_relaxed(&arena->operations[e == IDEM_CLAIMED ? CLAIMS : RECLAIMS], 1);
                which = held < 8 ? held++ : (unsigned)(support_random(&random) % 8);
                mine[which].claim = claim;
                snprintf(mine[which].key, sizeof mine[which].key, "%s", key);
                if (support_random(&random) % 2 == 0) {
                    e = idem_complete(store, &claim, &rs);
                    CHECK(e == IDEM_OK || e == IDEM_TOMBSTONE || e == IDEM_E_LOST);
                }
            } else if (e == IDEM_REPLAY && (reply.flags & IDEM_REPLY_NOT_RETAINED) == 0 && reply.body_bytes > 0) {
                CHECK_BYTES(reply.body, reply.body_bytes, key);
                add_relaxed(&arena->operations[REPLAYS], 1);
                support_clock_add(1);
            }
            break;
        }
        if (e == IDEM_E_FULL)
            add_relaxed(&arena->operations[FULL], 1);
        if (e == IDEM_E_LOST)
            add_relaxed(&arena->operations[LOST], 1);
        idem_reply_free(&reply);
    }
    idem_close(store);
}

static void tokens_grow_and_the_store_stays_sound_whatever_operators_and_late_owners_do(void **state)
{
    (void)state;
    memset(arena, 0, sizeof *arena);
    arena->dir = support_dir();
    idem_options o = support_options(16);
    idem_store *store = support_open(arena->dir, &o);
    uint64_t random = support_seed();
    pid_t pids[WORKERS];
    for (uintptr_t i = 0; i < WORKERS; i++)
        pids[i] = support_spawn(meddle, (void *)(i + 1));
    long rounds = support_long() ? 60000 : support_scaled(400, 2);
    for (long n = 0; n < rounds; n++) {
        support_sleep_ms(8);
        support_clock_add((int64_t)(support_random(&random) % 40));
        if (n % 20 == 0) {
            uintptr_t i = support_random(&random) % WORKERS;
            support_kill(pids[i], SIGKILL);
            CHECK_IS(support_reap(pids[i], SUPPORT_PATIENCE_MS), SUPPORT_KILLED);
            pids[i] = support_spawn(meddle, (void *)(i + 1 + (uintptr_t)n * WORKERS));
        }
        if (n % 50 == 0)
            support_verify(arena->dir); /* under traffic */
    }
    store_relaxed(&arena->stop, 1);
    for (unsigned i = 0; i < WORKERS; i++)
        CHECK_IS(support_reap(pids[i], SUPPORT_PATIENCE_MS), 0);
    print_operations("meddling");
    CHECK(load_relaxed(&arena->operations[CLAIMS]) > 1000);
    CHECK(load_relaxed(&arena->operations[RECLAIMS]) > 100);
    CHECK(load_relaxed(&arena->operations[LOST]) > 100);
    support_clock_add(3600 * 1000);
    support_maintain(store);
    idem_stats_data s = support_stats(store);
    CHECK(s.regions_free + 4 >= s.regions);
    idem_close(store);
    support_verify(arena->dir);
}

int main(void)
{
    race = support_shared(sizeof *race);
    arena = support_shared(sizeof *arena);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_processes_that_claim_the_same_keys_each_key_has_exactly_one_owner),
        cmocka_unit_test(claims_in_batches_have_exactly_one_owner_too),
        cmocka_unit_test(each_key_has_one_owner_at_a_time_while_workers_are_killed_at_random),
        cmocka_unit_test(tokens_grow_and_the_store_stays_sound_whatever_operators_and_late_owners_do),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
