/*
 * nodes.h - what tables that hold pointers are given to hold: a node of one cache line with the key and a pointer to the
 * answer, from pools of the worker. The claim's handle is the node itself, so completing needs no second look-up.
 */
#ifndef BENCH_PEER_NODES_H
#define BENCH_PEER_NODES_H

#include "memory.h"
#include "peer.h"

#define PEER_LINE_BYTES 64u

struct node {
    void *link[2];               /* the table's own, where its entries are part of the node */
    const unsigned char *answer; /* NULL: in progress */
    unsigned char key[PEER_KEY_BYTES];
};

/* One worker's; a share of the life's keys, and what the driver claims besides to see that it is refused. */
struct nodes {
    struct pool lines;
    struct pool answers;
    struct node *spare; /* of a claim that was refused: for the next one */
};

int nodes_create(struct nodes *n, const struct peer_place *place, char *why);
void nodes_free(struct nodes *n);
uint64_t nodes_used(const struct nodes *n);

/* NULL: no memory. */
static inline struct node *nodes_take(struct nodes *n, const unsigned char *key)
{
    struct node *node = n->spare;
    if (node)
        n->spare = NULL;
    else
        node = (struct node *)pool_take(&n->lines, PEER_LINE_BYTES);
    if (!node)
        return NULL;
    node->answer = NULL;
    memcpy(node->key, key, PEER_KEY_BYTES);
    return node;
}

static inline void handle_put(const struct peer_work *w, size_t i, struct node *node)
{
    memcpy(w->claims + i * sizeof node, &node, sizeof node);
}

static inline struct node *handle_get(const struct peer_work *w, size_t i)
{
    struct node *node;
    memcpy(&node, w->claims + i * sizeof node, sizeof node);
    return node;
}

/* Copies the answers, then publishes each by a release store of its pointer. What peer.h asks of PEER_COMPLETE. */
long nodes_complete(struct nodes *n, struct peer_work *w);

/* True and the copy made, if the answer is there. */
static inline bool nodes_replay(const struct node *node, struct peer_work *w, size_t i)
{
    const unsigned char *answer = __atomic_load_n(&node->answer, __ATOMIC_ACQUIRE);
    if (!answer)
        return false;
    memcpy(peer_out(w, i), answer, PEER_ANSWER_BYTES);
    peer_answered(w, i);
    return true;
}

#endif
