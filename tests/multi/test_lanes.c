/*
 * tests/multi/test_lanes.c - lanes that change hands although their owner lives: a host that closes descriptors it does not know
 * (a daemon that "closes everything") takes idem's lock away, and looks dead to all others.
 */
#include "support/support.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CLAIMS 4

static const char *dir;
static idem_store *store;
static struct idem_a64 *step; /* shared with the child */
static struct idem_a64 turn;
static int lock_fd;

static bool reached(void *number)
{
    return load_acquire(&turn) >= (uint64_t)(uintptr_t)number;
}

static bool child_reached(void *number)
{
    return load_acquire(step) >= (uint64_t)(uintptr_t)number;
}

static int claim(idem_store *s, const char *who, int i)
{
    char key[32];
    snprintf(key, sizeof key, "%s-%d", who, i);
    return support_begin(s, key, NULL);
}

static void *ask_for_descriptor(void *unused)
{
    lock_fd = idem_owner_fd(store);
    return unused; /* with the thread its lane goes back: the next one gets it */
}

static void *early_and_late(void *unused)
{
    for (int i = 0; i < CLAIMS; i++)
        CHECK_IS(claim(store, "early", i), IDEM_CLAIMED);
    store_release(&turn, 1);
    CHECK(support_eventually(reached, (void *)3, SUPPORT_PATIENCE_MS));
    for (int i = 0; i < CLAIMS; i++)
        CHECK_IS(claim(store, "late", i), IDEM_CLAIMED);
    return unused;
}

static void *in_between(void *unused)
{
    for (int i = 0; i < CLAIMS; i++)
        CHECK_IS(claim(store, "between", i), IDEM_CLAIMED);
    store_release(&turn, 3);
    CHECK(support_eventually(reached, (void *)4, SUPPORT_PATIENCE_MS)); /* it keeps the lane */
    return unused;
}

static void *claim_in_peer(void *peer)
{
    for (int i = 0; i < CLAIMS; i++)
        CHECK_IS(claim(peer, "peer", i), IDEM_CLAIMED);
    return NULL;
}

static void run_peer(void *unused)
{
    (void)unused;
    idem_store *peer = support_attach(dir);
    pthread_t t;
    CHECK_IS(pthread_create(&t, NULL, claim_in_peer, peer), 0);
    CHECK_IS(pthread_join(t, NULL), 0);
    store_release(step, 1);
    CHECK(support_eventually(child_reached, (void *)2, SUPPORT_PATIENCE_MS));
    idem_close(peer);
}

/* Thread A claims in lane L. The host closes idem's descriptor. A peer takes L from the dead, claims, gives it back. Thread B of the first
   process takes it: its owner is the same as A's. What A knows of L's open chunk is old by then. */
static void a_thread_whose_lane_went_to_others_and_back_to_its_process_writes_over_nobody(void **state)
{
    (void)state;
    dir = support_dir();
    store = support_open(dir, NULL);
    step = support_shared(sizeof *step);
    pthread_t asker, a, b;
    CHECK_IS(pthread_create(&asker, NULL, ask_for_descriptor, NULL), 0);
    CHECK_IS(pthread_join(asker, NULL), 0);
    CHECK_IS(pthread_create(&a, NULL, early_and_late, NULL), 0);
    CHECK(support_eventually(reached, (void *)1, SUPPORT_PATIENCE_MS));
    CHECK_IS(close(lock_fd), 0);
    pid_t peer = support_spawn(run_peer, NULL);
    CHECK(support_eventually(child_reached, (void *)1, SUPPORT_PATIENCE_MS));
    CHECK_IS(pthread_create(&b, NULL, in_between, NULL), 0);
    CHECK_IS(pthread_join(a, NULL), 0);
    for (int i = 0; i < CLAIMS; i++) {
        CHECK_IS(claim(store, "peer", i), IDEM_IN_PROGRESS);
        CHECK_IS(claim(store, "between", i), IDEM_IN_PROGRESS);
        CHECK_IS(claim(store, "early", i), IDEM_IN_PROGRESS);
        CHECK_IS(claim(store, "late", i), IDEM_IN_PROGRESS);
    }
    store_release(&turn, 4);
    CHECK_IS(pthread_join(b, NULL), 0);
    store_release(step, 2);
    CHECK_IS(support_reap(peer, SUPPORT_PATIENCE_MS), 0);
    support_verify(dir);
    idem_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_whose_lane_went_to_others_and_back_to_its_process_writes_over_nobody),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
