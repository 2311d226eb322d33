/* arena/reserve.h - the steps of an allocation, shared by reserve.c and share.c. */
#ifndef IDEM_ARENA_RESERVE_H
#define IDEM_ARENA_RESERVE_H

#include "arena/arena.h"

/* Sets the write hazard and says whether the region may be written to: it is in this phase, and generation (0: any). *state is what it is. */
bool idem_region_enter(struct idem_ctx *ctx, uint32_t index, unsigned phase, unsigned generation, uint64_t *state);

/* Bytes [*from, *to) of a region that was entered in this generation, from its cursor: exact ones, or a whole chunk up to its boundary. */
bool idem_region_take(struct idem_ctx *ctx, uint32_t index, unsigned generation, uint64_t bytes, bool exact,
                      uint64_t *from, uint64_t *to);

/* Invariant 6: true if the region now stays until expiry_ms; *state is what it is then. */
bool idem_region_stays(struct idem_region_shm *r, uint64_t *state, int64_t expiry_ms, int64_t now_ms);

/* The entry at `offset` is counted and named. shared: others count in the same chunk. */
void idem_region_fill(struct idem_ctx *ctx, uint32_t region, unsigned generation, uint64_t offset, bool shared,
                      struct idem_space *space);

/* Hardly a region is free: what the lanes' chunks have left, in regions of classes first to last (share.c). */
bool idem_arena_take_left(struct idem_ctx *ctx, unsigned first, unsigned last, uint64_t bytes, int64_t expiry_ms,
                          int64_t now_ms, struct idem_space *space);

#endif
