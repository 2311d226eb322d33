/*
 * life.h - one life of a peer, measured: prepared, filled, its keys claimed, completed and replayed in blocks, its answers
 * checked, ended. What a peer must be is said in peers/peer.h.
 */
#ifndef BENCH_LIFE_H
#define BENCH_LIFE_H

#include "peers/peer.h"
#include "trial.h"

#ifdef __cplusplus
extern "C" {
#endif

struct life {
    const struct peer *peer;
    uint64_t keys;
    unsigned workers;
    bool huge;
    uint64_t timed_keys; /* at most so many are claimed timed, whatever the peer allows; 0: as it does */
};

/* Makes *t a trial of one such life a round, with a row for each job and batch that the peer has, and for its memory.
   life must live as long as t. */
void life_trial(struct trial *t, const struct life *life);

#ifdef __cplusplus
}
#endif
#endif
