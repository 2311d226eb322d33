/*
 * lineup.c - see lineup.h.
 */
#include "lineup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "beside.h"
#include "life.h"
#include "peers/list.h"
#include "peers/planted.h"
#include "shapes.h"

#define SMALL_KEYS   UINT64_C(10000)
#define KEYS         UINT64_C(1000000)
#define LARGE_KEYS   UINT64_C(10000000)
#define DURABLE_KEYS UINT64_C(100000) /* a flush takes most of the time whatever the table's size */
#define QUICK_KEYS   UINT64_C(100000) /* of peers that a million keys would take too long, in a quick run */
#define SMOKE_KEYS   UINT64_C(1000)

enum { LIVES_MAX = 256, SMOKE_TIMED = 128, QUICK_TIMED = 8192 };

static struct life lives[LIVES_MAX];
static unsigned life_count;

static int add_life(struct trials *all, const struct peer *peer, uint64_t keys, unsigned workers, uint64_t timed_keys)
{
    struct trial t;
    if (peer->workers_max > 0 && workers > peer->workers_max)
        return 0;
    if (life_count == LIVES_MAX)
        return -1;
    struct life *life = &lives[life_count++];
    *life = (struct life){.peer = peer, .keys = keys, .workers = workers, .huge = true, .timed_keys = timed_keys};
    life_trial(&t, life);
    return trials_add(all, &t);
}

/* As many keys as the peer can be filled with in seconds. */
static int add_lives(struct trials *all, const struct peer *peer, const struct options *o)
{
    static const char *const at_large[] = {"idem", "ck_hs", "libcuckoo"}; /* filling ten million takes seconds */
    bool slow = peer->timed_keys > 0;
    bool large = false;
    for (unsigned i = 0; i < sizeof at_large / sizeof at_large[0]; i++)
        large |= strcmp(peer->name, at_large[i]) == 0;
    uint64_t keys = peer->durable ? DURABLE_KEYS : o->quick && slow ? QUICK_KEYS : KEYS;
    if (peer->keys_max > 0 && keys > peer->keys_max)
        keys = peer->keys_max;
    uint64_t timed = o->quick && slow ? QUICK_TIMED : 0;
    int failed = add_life(all, peer, keys, 1, timed) | add_life(all, peer, keys, 2, timed);
    if (strcmp(peer->name, "idem") == 0) /* beside those that hold no more */
        failed |= add_life(all, peer, QUICK_KEYS, 1, 0) | add_life(all, peer, QUICK_KEYS, 2, 0);
    if (!slow && !o->quick)
        failed |= add_life(all, peer, SMALL_KEYS, 1, 0);
    if (large && !o->quick)
        failed |= add_life(all, peer, LARGE_KEYS, 1, KEYS);
    return failed;
}

static int add_beside(struct trials *all, const struct options *o)
{
    static const uint64_t sizes[] = {SMALL_KEYS, KEYS, LARGE_KEYS};
    struct trial copy;
    beside_memcpy(&copy);
    if (trials_add(all, &copy) != 0)
        return -1;
    for (unsigned size = 0; size < 3; size++)
        for (unsigned workers = 1; workers <= 2; workers++)
            for (int huge = 1; huge >= 0; huge--) {
                struct trial t;
                if (sizes[size] != KEYS && !huge)
                    continue;
                if (o->quick && (sizes[size] == LARGE_KEYS || !huge))
                    continue;
                beside_trial(&t, sizes[size], workers, huge != 0);
                if (trials_add(all, &t) != 0)
                    return -1;
            }
    return 0;
}

static int add_smoke(struct trials *all, const struct options *o)
{
    struct trial t;
    int failed = 0;
    for (unsigned f = 0; peers_built[f]; f++)
        for (const struct peer *const *p = peers_built[f]; *p; p++)
            failed |= add_life(all, *p, SMOKE_KEYS, (*p)->workers_max == 1 ? 1 : 2, (*p)->durable ? SMOKE_TIMED : 0);
    beside_trial(&t, SMOKE_KEYS, 2, false);
    failed |= trials_add(all, &t);
    for (const struct peer *const *p = peers_planted; o->planted && *p; p++)
        failed |= add_life(all, *p, SMOKE_KEYS, 2, 0);
    return failed;
}

int lineup_add(struct trials *all, const struct options *o, const struct conditions *c)
{
    int failed = hot_add(all, c) | crowd_add(all, c) | answers_add(all, c) | disturbed_add(all, c) | sync_add(all, c);
    if (o->smoke)
        return failed | add_smoke(all, o);
    failed |= add_beside(all, o);
    for (unsigned f = 0; peers_built[f]; f++)
        for (const struct peer *const *p = peers_built[f]; *p; p++)
            failed |= add_lives(all, *p, o);
    return failed;
}

void lineup_peers(void (*say)(void *ctx, const char *name, const char *version, const char *settings), void *ctx)
{
    for (unsigned f = 0; peers_built[f]; f++)
        for (const struct peer *const *p = peers_built[f]; *p; p++) {
            char version[80] = "";
            (*p)->version(*p, version, sizeof version);
            say(ctx, (*p)->name, version, (*p)->settings);
        }
    for (const char *const *m = peers_missing; *m; m++) {
        char name[80];
        size_t n = strcspn(*m, ":");
        snprintf(name, sizeof name, "%.*s", (int)n, *m);
        say(ctx, name, NULL, *m + n + (n < strlen(*m) ? 2 : 0));
    }
}
