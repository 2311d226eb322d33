/*
 * store/reply.h - copying an answer out.
 *
 * Owns: where the bytes of a reply go: the caller's buffer, its allocator, or malloc. Room may be asked for again in one call (the entry
 * changed under the copy): what was allocated is used again if it is large enough.
 */
#ifndef IDEM_STORE_REPLY_H
#define IDEM_STORE_REPLY_H

#include "store/handle.h"

/* Bytes of room for one call; zero it first. */
struct idem_room {
    void *at;
    size_t bytes;
    bool from_malloc;
};

/* Clears all output fields. Errors: IDEM_E_INVALID (size). reply may be NULL. */
int idem_reply_reset(idem_reply *reply);
/* Errors: IDEM_E_MEMORY. */
int idem_room_get(idem_reply *reply, struct idem_room *room, size_t bytes);
/* At the call's end: the reply keeps the room it points into, anything else is given back (malloc only). */
void idem_room_settle(idem_reply *reply, struct idem_room *room);
void idem_room_drop(struct idem_room *room);

/* The stored answer of a completed (or transient) entry. Outcomes: IDEM_OK; 1: the entry changed, look again. Errors: IDEM_E_MEMORY. */
int idem_reply_answer(const struct idem_view *v, const struct idem_found *f, int64_t now_ms, idem_reply *reply,
                      struct idem_room *room);
/* The mark an entry holds. As above. */
int idem_reply_mark(const struct idem_found *f, idem_reply *reply, struct idem_room *room);

static inline int64_t idem_time_left(int64_t expiry_ms, int64_t now_ms)
{
    return expiry_ms >= ENTRY_TIME_MAX ? IDEM_FOREVER : expiry_ms > now_ms ? expiry_ms - now_ms : 0;
}

#endif
