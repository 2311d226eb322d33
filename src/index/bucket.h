/* index/bucket.h - a bucket header's bits (see segment/layout.h). Used by index/ and by the checks in store/verify.c. */
#ifndef IDEM_INDEX_BUCKET_H
#define IDEM_INDEX_BUCKET_H

#include "index/index.h"

#define HEADER_FROZEN (UINT64_C(1) << 12)
/* Not zero: frozen, or something of this home lies, or was published, outside of it. */
#define HEADER_ELSEWHERE (HEADER_FROZEN | UINT64_C(0xf78))
static inline unsigned header_slot(uint64_t h)
{
    return (unsigned)h & 7;
}
static inline unsigned header_distance(uint64_t h)
{
    return (unsigned)(h >> 3) & 15;
}
static inline bool header_pending(uint64_t h)
{
    return (h >> 7 & 1) != 0;
}
static inline unsigned header_reach(uint64_t h)
{
    return (unsigned)(h >> 8) & 15;
}
static inline uint64_t header_version(uint64_t h)
{
    return h >> 13;
}
static inline uint64_t header_make(uint64_t version, unsigned reach, bool pending, unsigned distance, unsigned slot)
{
    return version << 13 | (uint64_t)reach << 8 | (uint64_t)pending << 7 | (uint64_t)distance << 3 | slot;
}

static inline uint64_t bucket_after(const struct idem_view *v, uint64_t home, unsigned distance)
{
    uint64_t b = home + distance;
    return b < v->bucket_count ? b : b - v->bucket_count;
}
static inline uint64_t bucket_before(const struct idem_view *v, uint64_t bucket, unsigned distance)
{
    return bucket >= distance ? bucket - distance : bucket + v->bucket_count - distance;
}

/* Step 1: if h names a TENTATIVE slot of this home, make it final. False: h is no longer the header. */
bool idem_index_help(struct idem_ctx *ctx, uint64_t home, uint64_t h);

#endif
