/*
 * list.h - every peer that was built, and what is missing of the others. CMakeLists.txt writes the list.
 */
#ifndef BENCH_PEER_LIST_H
#define BENCH_PEER_LIST_H

#include "peer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Arrays as files export them; ends with NULL. */
extern const struct peer *const *const peers_built[];

/* "ck: Debian's libck-dev isn't installed"; ends with NULL. */
extern const char *const peers_missing[];

#ifdef __cplusplus
}
#endif
#endif
