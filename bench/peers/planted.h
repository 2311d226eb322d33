/*
 * planted.h - peers that cheat, for the smoke test alone: each must be disqualified.
 */
#ifndef BENCH_PEER_PLANTED_H
#define BENCH_PEER_PLANTED_H

#include "peer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "planted/idle" does nothing and says yes; "planted/forgetful" claims, but answers nothing; "planted/mixed" replays
   another key's answer. Ends with NULL. */
extern const struct peer *const peers_planted[];

#ifdef __cplusplus
}
#endif
#endif
