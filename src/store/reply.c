/* store/reply.c - see reply.h. */
#include "store/reply.h"

#include <stdlib.h>
#include <string.h>

int idem_reply_reset(idem_reply *reply)
{
    if (reply == NULL)
        return IDEM_OK;
    if (reply->size != sizeof *reply)
        return idem_fail(IDEM_E_INVALID, "reply.size: %zu, should be %zu; initialise with IDEM_REPLY_INIT", reply->size,
                         sizeof *reply);
    zero_small((char *)reply + offsetof(idem_reply, token), sizeof *reply - offsetof(idem_reply, token));
    return IDEM_OK;
}

void idem_reply_free(idem_reply *reply)
{
    if (reply == NULL)
        return;
    free(reply->owned);
    reply->owned = NULL;
    reply->meta = reply->body = reply->mark = NULL;
    reply->meta_bytes = reply->body_bytes = reply->mark_bytes = 0;
}

int idem_room_get(idem_reply *reply, struct idem_room *room, size_t bytes)
{
    if (room->at != NULL && room->bytes >= bytes)
        return IDEM_OK;
    idem_room_drop(room);
    if (reply->buffer != NULL && reply->buffer_bytes >= bytes) {
        *room = (struct idem_room){reply->buffer, reply->buffer_bytes, false};
    } else if (reply->alloc != NULL) {
        *room = (struct idem_room){reply->alloc(reply->alloc_ctx, bytes), bytes, false};
    } else {
        *room = (struct idem_room){malloc(bytes), bytes, true};
    }
    if (room->at == NULL) {
        room->from_malloc = false;
        return idem_fail(IDEM_E_MEMORY, "no memory for %zu bytes of reply", bytes);
    }
    return IDEM_OK;
}

void idem_room_drop(struct idem_room *room)
{
    if (room->from_malloc)
        free(room->at);
    *room = (struct idem_room){NULL, 0, false};
}

void idem_room_settle(idem_reply *reply, struct idem_room *room)
{
    if (reply != NULL && (reply->meta != NULL || reply->mark != NULL)) {
        if (room->from_malloc)
            reply->owned = room->at;
        room->from_malloc = false;
    }
    idem_room_drop(room);
}

static int answer_without_body(const struct idem_found *f, int64_t now_ms, idem_reply *reply)
{
    const struct idem_entry *e = &f->entry;
    reply->flags |= IDEM_REPLY_NOT_RETAINED;
    if (e->kind == ENTRY_CLAIM) {
        struct idem_rescue r;
        idem_entry_load_rescue(e, &r);
        reply->status = r.status;
        reply->response_flags = r.user_flags;
        reply->meta_bytes = r.meta_bytes;
        reply->body_bytes = r.body_bytes;
        reply->digest = r.digest;
        int64_t completed_ms = e->at_ms + r.took_ms;
        reply->age_ms = now_ms > completed_ms ? now_ms - completed_ms : 0; /* the clock may be earlier than the look */
        reply->expires_in_ms = idem_time_left(r.expiry_ms, now_ms);
    } else {
        uint64_t outcome[3];
        idem_copy_out(outcome, idem_entry_answer(e), sizeof outcome);
        reply->meta_bytes = (size_t)outcome[0];
        reply->body_bytes = (size_t)outcome[1];
        reply->digest = outcome[2];
    }
    return idem_index_unchanged(f) ? IDEM_OK : 1;
}

int idem_reply_answer(const struct idem_view *v, const struct idem_found *f, int64_t now_ms, idem_reply *reply,
                      struct idem_room *room)
{
    (void)v;
    if (reply == NULL)
        return IDEM_OK;
    const struct idem_entry *e = &f->entry;
    reply->token = e->token;
    reply->attempt = e->attempt;
    reply->status = e->status;
    reply->response_flags = e->extra;
    reply->flags = e->kind == ENTRY_TRANSIENT ? IDEM_REPLY_TRANSIENT : 0;
    reply->age_ms = now_ms > e->at_ms ? now_ms - e->at_ms : 0;
    reply->expires_in_ms = idem_time_left(e->expiry_ms, now_ms);
    if (e->kind == ENTRY_CLAIM || e->kind == ENTRY_TOMBSTONE)
        return answer_without_body(f, now_ms, reply);
    size_t bytes = (size_t)idem_entry_answer_bytes(e);
    if (bytes > 0) {
        int r = idem_room_get(reply, room, bytes);
        if (r != IDEM_OK)
            return r;
        idem_copy_out(room->at, idem_entry_answer(e), bytes);
    }
    if (!idem_index_unchanged(f))
        return 1;
    if (bytes > 0) {
        reply->meta = room->at;
        reply->body = (const char *)room->at + e->meta_bytes;
    }
    reply->meta_bytes = e->meta_bytes;
    reply->body_bytes = e->body_bytes;
    return IDEM_OK;
}

int idem_reply_mark(const struct idem_found *f, idem_reply *reply, struct idem_room *room)
{
    if (reply == NULL || f->entry.mark_bytes == 0)
        return IDEM_OK;
    int r = idem_room_get(reply, room, f->entry.mark_bytes);
    if (r != IDEM_OK)
        return r;
    idem_copy_out(room->at, idem_entry_mark(&f->entry), f->entry.mark_bytes);
    if (!idem_index_unchanged(f))
        return 1;
    reply->mark = room->at;
    reply->mark_bytes = f->entry.mark_bytes;
    return IDEM_OK;
}
