/*
 * ck.c - Concurrency Kit's hash set (ck_hs) and hash table (ck_ht). Both allow one writer beside any number of readers, so
 * with two workers writers take ck_spinlock; with one there is no lock. Neither has a batched call.
 */
#include <stdio.h>
#include <stdlib.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include <ck_hs.h>
#include <ck_ht.h>
#include <ck_spinlock.h>
#pragma GCC diagnostic pop

#include "hash.h"
#include "nodes.h"

struct table {
    const struct peer_place *place;
    ck_hs_t set;
    ck_ht_t map;
    bool alone; /* one worker: one writer */
    _Alignas(PEER_LINE_BYTES) ck_spinlock_t writer;
};

struct worker {
    struct table *table;
    struct nodes nodes;
};

/* The kit asks for its tables through these; a host has one life. */
static bool pages_huge;
static uint64_t pages_bytes;

static void *take(size_t bytes)
{
    pages_bytes += bytes;
    return pages_take(bytes, pages_huge);
}

static void give(void *at, size_t bytes, bool defer)
{
    (void)defer; /* tables are made large enough: none is replaced while somebody reads it */
    pages_bytes -= bytes;
    pages_free(at, bytes);
}

static void *retake(void *at, size_t old_bytes, size_t bytes, bool defer)
{
    void *fresh = take(bytes);
    if (fresh && at) {
        memcpy(fresh, at, old_bytes < bytes ? old_bytes : bytes);
        give(at, old_bytes, defer);
    }
    return fresh;
}

static struct ck_malloc allocator = {.malloc = take, .realloc = retake, .free = give};

static unsigned long set_hash(const void *key, unsigned long seed)
{
    (void)seed;
    return hash_key(key);
}

static bool same_key(const void *a, const void *b)
{
    return memcmp(a, b, PEER_KEY_BYTES) == 0;
}

static void map_hash(struct ck_ht_hash *h, const void *key, size_t bytes, uint64_t seed)
{
    (void)bytes;
    (void)seed;
    h->value = hash_key(key);
}

static void version(const struct peer *self, char *text, size_t text_bytes)
{
    (void)self;
    snprintf(text, text_bytes, "Concurrency Kit %s", PEER_CK_VERSION);
}

static struct table *make(const struct peer_place *place)
{
    struct table *t =
        aligned_alloc(PEER_LINE_BYTES, (sizeof *t + PEER_LINE_BYTES - 1) / PEER_LINE_BYTES * PEER_LINE_BYTES);
    if (!t)
        return NULL;
    memset(t, 0, sizeof *t);
    t->place = place;
    t->alone = place->workers == 1;
    ck_spinlock_init(&t->writer);
    pages_huge = place->huge;
    pages_bytes = 0;
    return t;
}

/* Both grow beyond half full, so twice the keys and a little keeps them as they are. */
static uint64_t slots(const struct peer_place *place)
{
    return 2 * place->keys + 8192;
}

static void *set_prepare(const struct peer *self, const struct peer_place *place, char *why)
{
    struct table *t = make(place);
    (void)self;
    if (t && ck_hs_init(&t->set, CK_HS_MODE_OBJECT | CK_HS_MODE_SPMC, set_hash, same_key, &allocator, slots(place), 1))
        return t;
    snprintf(why, PEER_WHY_BYTES, "ck_hs_init failed");
    free(t);
    return NULL;
}

static void *map_prepare(const struct peer *self, const struct peer_place *place, char *why)
{
    struct table *t = make(place);
    (void)self;
    if (t && ck_ht_init(&t->map, CK_HT_MODE_BYTESTRING, map_hash, &allocator, slots(place), 1))
        return t;
    snprintf(why, PEER_WHY_BYTES, "ck_ht_init failed");
    free(t);
    return NULL;
}

static void *attach(void *shared, unsigned me, char *why)
{
    struct table *t = shared;
    struct worker *w = calloc(1, sizeof *w);
    (void)me;
    if (!w || nodes_create(&w->nodes, t->place, why) != 0) {
        free(w);
        return NULL;
    }
    w->table = t;
    return w;
}

static bool set_put(struct table *t, struct node *node)
{
    return ck_hs_put(&t->set, hash_key(node->key), node->key);
}

static bool map_put(struct table *t, struct node *node)
{
    ck_ht_hash_t h;
    ck_ht_entry_t entry;
    ck_ht_hash(&h, &t->map, node->key, PEER_KEY_BYTES);
    ck_ht_entry_set(&entry, h, node->key, PEER_KEY_BYTES, node);
    return ck_ht_put_spmc(&t->map, h, &entry);
}

static inline long claim_by(struct worker *me, struct peer_work *w, bool (*put)(struct table *, struct node *))
{
    long fresh = 0;
    for (size_t i = 0; i < w->n; i++) {
        struct node *node = nodes_take(&me->nodes, peer_key(w, i));
        if (!node)
            return -1;
        if (!me->table->alone)
            ck_spinlock_lock(&me->table->writer);
        bool new = put(me->table, node);
        if (!me->table->alone)
            ck_spinlock_unlock(&me->table->writer);
        fresh += new;
        if (!new)
            me->nodes.spare = node;
        handle_put(w, i, node);
    }
    return fresh;
}

static long set_claim(void *worker, struct peer_work *w)
{
    return claim_by(worker, w, set_put);
}

static long map_claim(void *worker, struct peer_work *w)
{
    return claim_by(worker, w, map_put);
}

static long complete(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    return nodes_complete(&me->nodes, w);
}

static long set_replay(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    long found = 0;
    for (size_t i = 0; i < w->n; i++) {
        const unsigned char *key = peer_key(w, i);
        const unsigned char *got = ck_hs_get(&me->table->set, hash_key(key), key);
        found += got && nodes_replay((const struct node *)(const void *)(got - offsetof(struct node, key)), w, i);
    }
    return found;
}

static long map_replay(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    long found = 0;
    for (size_t i = 0; i < w->n; i++) {
        const unsigned char *key = peer_key(w, i);
        ck_ht_hash_t h;
        ck_ht_entry_t entry;
        ck_ht_hash(&h, &me->table->map, key, PEER_KEY_BYTES);
        ck_ht_entry_key_set(&entry, key, PEER_KEY_BYTES);
        found += ck_ht_get_spmc(&me->table->map, h, &entry) && nodes_replay(ck_ht_entry_value(&entry), w, i);
    }
    return found;
}

static const char *error(void *worker)
{
    (void)worker;
    return "no memory for a node";
}

static uint64_t bytes(void *worker)
{
    struct worker *me = worker;
    return pages_bytes + nodes_used(&me->nodes) * me->table->place->workers;
}

static void detach(void *worker)
{
    struct worker *me = worker;
    nodes_free(&me->nodes);
    free(me);
}

static void end(void *shared)
{
    free(shared); /* its pages go with the host */
}

#define SAME                                                                                                   \
    .reach = PEER_THREADS, .batches = {PEER_BY_1, PEER_BY_1, PEER_BY_1}, .claim_bytes = sizeof(struct node *), \
    .version = version, .attach = attach, .error = error, .bytes = bytes, .detach = detach, .end = end

static const struct peer set = {
    .name = "ck_hs",
    .settings = "object mode, XXH3, two slots a key allocated beforehand; writers under ck_spinlock if there are two",
    .prepare = set_prepare,
    .run = {set_claim, complete, set_replay},
    SAME,
};

static const struct peer map = {
    .name = "ck_ht",
    .settings = "byte strings, XXH3, two slots a key allocated beforehand; writers under ck_spinlock if there are two",
    .prepare = map_prepare,
    .run = {map_claim, complete, map_replay},
    SAME,
};

const struct peer *const peers_ck[] = {&set, &map, NULL};
