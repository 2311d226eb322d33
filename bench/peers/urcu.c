/*
 * urcu.c - liburcu's lock-free hash table, cds_lfht, in the QSBR flavour: its documentation calls that the fastest for
 * readers. No batched call exists. This is the shortest of the peers: read it first before writing another.
 */
#include <stdio.h>
#include <stdlib.h>
#include <urcu/urcu-qsbr.h>

#include <urcu/rculfhash.h> /* after the flavour it maps to */

#include "hash.h"
#include "nodes.h"

struct table {
    struct cds_lfht *keys;
    const struct peer_place *place;
    uint64_t buckets;
};

struct worker {
    struct table *table;
    struct nodes nodes;
};

_Static_assert(sizeof(struct cds_lfht_node) <= sizeof((struct node){0}.link), "the table's part of a node");

static struct cds_lfht_node *in_table(struct node *node)
{
    return (struct cds_lfht_node *)(void *)node->link;
}

static void version(const struct peer *self, char *text, size_t text_bytes)
{
    (void)self;
    snprintf(text, text_bytes, "liburcu %s", PEER_URCU_VERSION);
}

static void *prepare(const struct peer *self, const struct peer_place *place, char *why)
{
    (void)self;
    struct table *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->place = place;
    /* A bucket for each key, all allocated now: nothing grows while the clock runs. With a maximum known the table is one mapping. */
    for (t->buckets = 1; t->buckets < place->keys; t->buckets *= 2)
        ;
    t->keys = cds_lfht_new_flavor(t->buckets, t->buckets, t->buckets, 0, &urcu_qsbr_flavor, NULL);
    if (t->keys)
        return t;
    snprintf(why, PEER_WHY_BYTES, "cds_lfht_new_flavor failed");
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
    urcu_qsbr_register_thread();
    return w;
}

static int same_key(struct cds_lfht_node *at, const void *key)
{
    return memcmp(((struct node *)(void *)at)->key, key, PEER_KEY_BYTES) == 0;
}

static long claim(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    long fresh = 0;
    for (size_t i = 0; i < w->n; i++) {
        struct node *node = nodes_take(&me->nodes, peer_key(w, i));
        if (!node)
            return -1;
        struct cds_lfht_node *got =
            cds_lfht_add_unique(me->table->keys, hash_key(node->key), same_key, node->key, in_table(node));
        if (got == in_table(node))
            fresh++;
        else
            me->nodes.spare = node;
        handle_put(w, i, node);
    }
    urcu_qsbr_quiescent_state();
    return fresh;
}

static long complete(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    return nodes_complete(&me->nodes, w);
}

static long replay(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    long found = 0;
    for (size_t i = 0; i < w->n; i++) {
        const unsigned char *key = peer_key(w, i);
        struct cds_lfht_iter at;
        cds_lfht_lookup(me->table->keys, hash_key(key), same_key, key, &at);
        struct cds_lfht_node *got = cds_lfht_iter_get_node(&at);
        found += got && nodes_replay((struct node *)(void *)got, w, i);
    }
    urcu_qsbr_quiescent_state();
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
    return me->table->buckets * sizeof(struct cds_lfht_node) + nodes_used(&me->nodes) * me->table->place->workers;
}

static void detach(void *worker)
{
    struct worker *me = worker;
    urcu_qsbr_unregister_thread();
    nodes_free(&me->nodes);
    free(me);
}

static void end(void *shared)
{
    /* Not emptied: the nodes are gone with their pools, and the process ends. */
    free(shared);
}

static const struct peer lfht = {
    .name = "urcu/cds_lfht",
    .settings =
        "QSBR flavour, one bucket a key allocated beforehand, no resizing; nodes and answers from touched memory",
    .reach = PEER_THREADS,
    .batches = {PEER_BY_1, PEER_BY_1, PEER_BY_1},
    .claim_bytes = sizeof(struct node *),
    .version = version,
    .prepare = prepare,
    .attach = attach,
    .run = {claim, complete, replay},
    .error = error,
    .bytes = bytes,
    .detach = detach,
    .end = end,
};

const struct peer *const peers_urcu[] = {&lfht, NULL};
