/*
 * nodes.c - see nodes.h.
 */
#include "nodes.h"

/* Beyond the worker's share: keys that are claimed though they are there. */
enum { SPARE_NODES = 4096 };

int nodes_create(struct nodes *n, const struct peer_place *place, char *why)
{
    uint64_t share = place->keys / place->workers + SPARE_NODES;
    memset(n, 0, sizeof *n);
    if (pool_create(&n->lines, share * PEER_LINE_BYTES, place->huge, why) != 0)
        return -1;
    if (pool_create(&n->answers, share * PEER_ANSWER_BYTES, place->huge, why) == 0)
        return 0;
    pool_free(&n->lines);
    return -1;
}

void nodes_free(struct nodes *n)
{
    pool_free(&n->lines);
    pool_free(&n->answers);
}

uint64_t nodes_used(const struct nodes *n)
{
    return n->lines.used + n->answers.used;
}

long nodes_complete(struct nodes *n, struct peer_work *w)
{
    for (size_t i = 0; i < w->n; i++) {
        struct node *node = handle_get(w, i);
        void *answer = pool_take(&n->answers, PEER_ANSWER_BYTES);
        if (!answer)
            return -1;
        memcpy(answer, w->answers[i], PEER_ANSWER_BYTES);
        __atomic_store_n(&node->answer, answer, __ATOMIC_RELEASE);
    }
    return (long)w->n;
}
