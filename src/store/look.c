/*
 * store/look.c - looking without claiming: lookup, explain, walk.
 *
 * Owns: stories. A walk copies one bucket's stories out inside a read section and calls back outside of it, so that the callback may
 * call into the store.
 */
#include <stdlib.h>
#include <string.h>

#include "store/begin.h"

#define LOOK_TRIES 100000u

static int look_once(struct idem_ctx *ctx, const struct idem_index_key *k, idem_reply *reply, struct idem_room *room,
                     struct idem_attempt *attempt)
{
    struct idem_found f;
    idem_reply_reset(reply);
    int e = idem_index_find(ctx, k, &f, NULL);
    if (e < 0)
        return e;
    int64_t now_ms = idem_view_now_ms(ctx->v);
    unsigned state = e == FIND_PRESENT ? word_state(f.word) : WORD_FORGOTTEN;
    if (e == FIND_ABSENT || idem_index_gone(&f, now_ms) || state == WORD_ABANDONED || state == WORD_RERUN)
        return idem_fail(IDEM_E_NO_KEY, "no stored answer and no running attempt for this key");
    if (state == WORD_COMPLETED) {
        e = idem_reply_answer(ctx->v, &f, now_ms, reply, room);
        if (e == IDEM_OK)
            e = idem_durable_answer(ctx, &f, false);
        *attempt = (struct idem_attempt){f.place, f.entry.token, k->hash};
        return e == IDEM_OK ? IDEM_REPLAY : e;
    }
    enum idem_lost_reason reason = idem_lost(ctx->v, &f, now_ms);
    if (reply != NULL) {
        reply->token = f.entry.token;
        reply->attempt = f.entry.attempt;
        reply->expires_in_ms = idem_time_left(f.entry.expiry_ms, now_ms);
        reply->retry_after_ms = reason == IDEM_LOST_NONE ? f.entry.lease_end_ms - now_ms : 0;
        reply->lost_reason = reason;
        reply->lost_token = reason != IDEM_LOST_NONE ? f.entry.token : 0;
    }
    e = idem_reply_mark(&f, reply, room);
    if (e == IDEM_OK && !idem_index_unchanged(&f)) /* was it lost at the moment of the clock, or completed before? */
        return 1;
    return e != IDEM_OK ? e : reason == IDEM_LOST_NONE ? IDEM_IN_PROGRESS : IDEM_UNKNOWN;
}

int idem_lookup(idem_store *store, const idem_key *key, idem_reply *reply)
{
    if (key == NULL)
        return idem_fail(IDEM_E_INVALID, "key: NULL");
    struct idem_op op;
    struct idem_index_key k;
    struct idem_room room = {NULL, 0, false};
    uint8_t framed[IDEM_KEY_MAX];
    struct idem_attempt attempt = {0, 0, 0};
    int e = idem_reply_reset(reply);
    if (e == IDEM_OK)
        e = idem_enter(store, &op);
    if (e != IDEM_OK)
        return e;
    e = idem_key_prepare(op.ctx.v, key, framed, &k);
    if (e == IDEM_OK) {
        e = 1;
        for (unsigned tries = 0; e == 1 && tries < LOOK_TRIES; tries++)
            e = look_once(&op.ctx, &k, reply, &room, &attempt);
        if (e == 1)
            e = idem_fail(IDEM_E_CORRUPT, "generation: a key's slot did not hold still; run idem verify");
    }
    if (e < 0)
        idem_reply_reset(reply);
    idem_room_settle(reply, &room);
    if (likely(op.ctx.ticket == 0))
        return idem_leave(&op, e);
    int64_t left_ms = 0; /* an answer never changes under its token: what was copied is what the disk has by then */
    e = idem_leave_durably(&op, e, &attempt, &left_ms, NULL);
    if (e < 0) {
        idem_reply_free(reply);
        idem_reply_reset(reply);
    }
    return e;
}

/* A story's bytes: scope and key in a row, then the mark. */
struct told {
    idem_story story;
    uint8_t bytes[IDEM_KEY_MAX + IDEM_MARK_MAX];
};

static int public_state(const struct idem_view *v, const struct idem_found *f, int64_t now_ms, uint32_t *reason)
{
    *reason = idem_lost(v, f, now_ms);
    if (*reason != IDEM_LOST_NONE)
        return IDEM_STATE_LOST;
    *reason = f->entry.flags & ENTRY_LOST_BEFORE ? ENTRY_REASON(f->entry.flags) : 0u;
    switch (word_state(f->word)) {
    case WORD_COMPLETED:
        return IDEM_STATE_COMPLETED;
    case WORD_IN_PROGRESS:
        return IDEM_STATE_IN_PROGRESS;
    default:
        return IDEM_STATE_ABANDONED;
    }
}

/* False: the slot changed, or its record is gone. */
static bool tell(const struct idem_view *v, const struct idem_found *f, struct told *t)
{
    const struct idem_entry *e = &f->entry;
    idem_story *s = &t->story;
    int64_t now_ms = idem_view_now_ms(v);
    if (idem_index_gone(f, now_ms))
        return false;
    memset(s, 0, sizeof *s);
    s->size = sizeof *s;
    idem_index_copy_key(e, t->bytes);
    idem_copy_out(t->bytes + IDEM_KEY_MAX, idem_entry_mark(e), e->mark_bytes);
    s->scope_bytes = e->scope_bytes;
    s->key_bytes = e->key_bytes - e->scope_bytes;
    s->mark_bytes = e->mark_bytes;
    s->state = public_state(v, f, now_ms, &s->lost_reason);
    s->flags = (e->flags & ENTRY_HOLD ? IDEM_HOLD : 0u) | (e->flags & ENTRY_LEASE_ONLY ? IDEM_LEASE_ONLY : 0u);
    s->attempt = e->attempt;
    s->token = e->token;
    s->fingerprint = e->fingerprint;
    s->at_wall_ms = idem_clock_wall_ms() - (now_ms - e->at_ms);
    s->expires_in_ms = idem_time_left(e->expiry_ms, now_ms);
    s->waiters = (f->word & WORD_WAITERS) != 0;
    s->lost_token = s->state == IDEM_STATE_LOST ? e->token : e->lost_token;
    uint64_t logged = load_acquire(&e->at[4]); /* P12 acquire: the record it names is on the disk */
    if (v->rings != NULL && log_word_says(logged, word_state(f->word))) {
        s->log_position = log_word_position(logged);
        s->log_state = idem_log_word_durable(v->root->log_control, logged, word_state(f->word)) ? 2 : 1;
    }
    s->bucket = f->place / 8;
    s->distance = word_distance(f->word);
    bool completed = s->state == IDEM_STATE_COMPLETED;
    if (e->kind == ENTRY_CLAIM) {
        s->lease_left_ms = e->lease_end_ms - now_ms;
        uint32_t slot = idem_owner_slot(e->owner);
        s->owner_alive = !idem_process_dead(&v->process, e->owner);
        /* P7 acquire: whose pid is it? */
        uint64_t x = slot < v->process.table_size ? load_acquire(&v->process.table[slot].incarnation) : 0;
        if ((x & IDEM_INCARNATION_MASK) == idem_owner_incarnation(e->owner))
            s->owner_pid = (int64_t)load_relaxed(&v->process.table[slot].pid); /* relaxed: for people */
    }
    if (completed && e->kind == ENTRY_CLAIM) {
        struct idem_rescue r;
        idem_entry_load_rescue(e, &r);
        s->reply_flags = IDEM_REPLY_NOT_RETAINED;
        s->status = r.status;
        s->meta_bytes = r.meta_bytes;
        s->body_bytes = r.body_bytes;
        s->expires_in_ms = idem_time_left(r.expiry_ms, now_ms);
    } else if (e->kind == ENTRY_TOMBSTONE) {
        uint64_t outcome[2];
        idem_copy_out(outcome, idem_entry_answer(e), sizeof outcome);
        s->reply_flags = IDEM_REPLY_NOT_RETAINED;
        s->status = e->status;
        s->meta_bytes = (size_t)outcome[0];
        s->body_bytes = (size_t)outcome[1];
    } else if (e->kind != ENTRY_CLAIM) {
        s->reply_flags = e->kind == ENTRY_TRANSIENT ? IDEM_REPLY_TRANSIENT : 0;
        s->status = e->status;
        s->meta_bytes = e->meta_bytes;
        s->body_bytes = e->body_bytes;
    }
    return idem_index_unchanged(f);
}

static void point(struct told *t)
{
    t->story.scope = t->bytes;
    t->story.key = t->bytes + t->story.scope_bytes;
    t->story.mark = t->story.mark_bytes != 0 ? t->bytes + IDEM_KEY_MAX : NULL;
}

int idem_explain(idem_store *store, const idem_key *key, idem_story *story)
{
    if (key == NULL || story == NULL || story->size != sizeof *story)
        return idem_fail(IDEM_E_INVALID, "key or story: NULL, or story.size wrong; initialise with IDEM_STORY_INIT");
    struct idem_op op;
    struct idem_index_key k;
    uint8_t framed[IDEM_KEY_MAX];
    struct told *t = malloc(sizeof *t);
    if (t == NULL)
        return idem_fail(IDEM_E_MEMORY, "no memory for a story");
    int e = idem_enter(store, &op);
    if (e == IDEM_OK) {
        e = idem_key_prepare(op.ctx.v, key, framed, &k);
        for (unsigned tries = 0; e == IDEM_OK && tries < LOOK_TRIES; tries++) {
            struct idem_found f;
            e = idem_index_find(&op.ctx, &k, &f, NULL);
            if (e == FIND_ABSENT || (e == FIND_PRESENT && idem_index_gone(&f, idem_view_now_ms(op.ctx.v))))
                e = idem_fail(IDEM_E_NO_KEY, "no record of this key");
            else if (e == FIND_PRESENT && !tell(op.ctx.v, &f, t))
                e = IDEM_OK; /* changed: look again */
        }
        e = idem_leave(&op, e == IDEM_OK ? idem_fail(IDEM_E_CORRUPT,
                                                     "generation: a key's slot did not hold still; run idem verify")
                                         : e);
    }
    if (e != FIND_PRESENT) {
        free(t);
        return e;
    }
    point(t);
    *story = t->story;
    story->owned = t;
    return IDEM_OK;
}

void idem_story_free(idem_story *story)
{
    if (story == NULL)
        return;
    free(story->owned);
    story->owned = NULL;
    story->scope = story->key = story->mark = NULL;
}

/* The stories of one bucket. Keys stay in their slot, so a key that stays is met once. */
static int tell_bucket(idem_store *store, uint64_t bucket, struct told *told, unsigned *n, uint64_t *buckets,
                       uint8_t uuid[16])
{
    struct idem_op op;
    int e = idem_enter(store, &op);
    if (e != IDEM_OK)
        return e;
    struct idem_view *v = op.ctx.v;
    *n = 0;
    if (*buckets == 0) {
        *buckets = v->bucket_count;
        memcpy(uuid, v->fixed.uuid, 16);
    } else if (memcmp(uuid, v->fixed.uuid, 16) != 0) {
        return idem_leave(&op, idem_fail(IDEM_E_STALE, "%s: the store was replaced during the walk", store->path));
    }
    for (unsigned s = 0; s < IDEM_BUCKET_SLOTS && bucket < v->bucket_count; s++) {
        struct idem_found f = {.slot = &v->buckets[bucket].slots[s], .place = bucket * 8 + s};
        for (unsigned tries = 0; tries < LOOK_TRIES; tries++) {
            f.word = load_acquire(f.slot); /* P1 acquire: the entry's bytes */
            if (!word_final(f.word))
                break;
            bool sound = idem_entry_load(v, f.word, &f.entry);
            if (!idem_index_unchanged(&f))
                continue;
            if (!sound)
                return idem_leave(
                    &op, idem_fail(IDEM_E_CORRUPT,
                                   "generation: bucket %llu slot %u names bytes that are no entry; run idem verify",
                                   (unsigned long long)bucket, s));
            if (tell(v, &f, &told[*n])) {
                ++*n;
                break;
            }
            if (idem_index_unchanged(&f))
                break; /* gone */
        }
    }
    return idem_leave(&op, IDEM_OK);
}

int idem_walk(idem_store *store, int (*fn)(const idem_story *story, void *ctx), void *ctx)
{
    if (fn == NULL)
        return idem_fail(IDEM_E_INVALID, "fn: NULL");
    struct told *told = malloc(IDEM_BUCKET_SLOTS * sizeof *told);
    if (told == NULL)
        return idem_fail(IDEM_E_MEMORY, "no memory for a walk");
    uint64_t buckets = 0;
    uint8_t uuid[16];
    int e = IDEM_OK;
    for (uint64_t b = 0; e == IDEM_OK && (b == 0 || b < buckets); b++) {
        unsigned n = 0;
        e = tell_bucket(store, b, told, &n, &buckets, uuid);
        for (unsigned i = 0; e == IDEM_OK && i < n; i++) {
            point(&told[i]);
            e = fn(&told[i].story, ctx);
        }
    }
    free(told);
    return e;
}
