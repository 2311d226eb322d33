/*
 * recover/recover.c - the public calls of this room.
 *
 * Owns: argument checks of idem_recover() and idem_log_walk(), and what a record looks like from outside.
 */
#include <string.h>

#include "base/cancel.h"
#include "base/error.h"
#include "recover/rebuild.h"
#include "recover/scan.h"
#include "store/handle.h"

#define FLAGS (IDEM_RECOVER_SALVAGE | IDEM_RECOVER_CHECK_ONLY | IDEM_RECOVER_REPLACE)

static int rebuild(void *recovery)
{
    return idem_rebuild(NULL, recovery);
}

int idem_recover(idem_recovery *r)
{
    if (r == NULL || r->size != sizeof *r)
        return idem_fail(IDEM_E_INVALID, "recovery.size: should be %zu; initialise with IDEM_RECOVERY_INIT", sizeof *r);
    bool check = (r->flags & IDEM_RECOVER_CHECK_ONLY) != 0;
    if ((r->dir == NULL && !check) || r->wal_dir == NULL || r->reserved != 0 || (r->flags & ~(uint32_t)FLAGS) != 0 ||
        r->now_wall_ms < 0)
        return idem_fail(IDEM_E_INVALID,
                         "recovery.dir, wal_dir: NULL, or flags (%x), now_wall_ms or reserved out of bounds", r->flags);
    r->files = r->records = r->batches = r->bytes = 0;
    r->keys = r->completed = r->lost = r->abandoned = r->expired = r->forgotten = 0;
    r->cut_bytes = r->damaged = r->lost_records = 0;
    r->newest_wall_ms = 0;
    int cancel = idem_cancel_defer();
    int e = idem_exclusively(rebuild, r);
    idem_cancel_restore(cancel);
    return e;
}

struct walk {
    int (*fn)(const idem_log_record *record, void *ctx);
    void *ctx;
    struct idem_scan_result r; /* with the time pair of the batch that is being read */
};

static int tell(void *ctx, const struct idem_rec *r, uint64_t file)
{
    struct walk *w = ctx;
    int64_t wall_minus_store = w->r.last.wall_ms - w->r.last.store_ms;
    bool answer = r->kind == REC_RESPONSE || r->kind == REC_TOMBSTONE;
    idem_log_record out = {
        .size = sizeof out,
        .file = file,
        .position = r->position,
        .kind = r->kind,
        .state = r->state,
        .token = r->token,
        .fingerprint = r->fingerprint,
        .attempt = r->attempt,
        .flags = r->flags,
        .at_wall_ms = r->at_ms != 0 ? r->at_ms + wall_minus_store : 0,
        .expires_wall_ms = r->expiry_ms >= ENTRY_TIME_MAX ? IDEM_FOREVER
                           : r->expiry_ms != 0            ? r->expiry_ms + wall_minus_store
                                                          : 0,
        .key = {r->key, r->scope_bytes, r->key != NULL ? r->key + r->scope_bytes : NULL,
                (size_t)(r->key_bytes - r->scope_bytes)},
        .status = r->status,
        .meta = r->meta,
        .body = r->body,
        .mark = r->mark,
        .meta_bytes = answer ? (size_t)r->meta_bytes : 0,
        .body_bytes = answer ? (size_t)r->body_bytes : 0,
        .mark_bytes = r->mark_bytes,
    };
    return w->fn(&out, w->ctx);
}

int idem_log_walk(const char *wal_dir, int (*fn)(const idem_log_record *record, void *ctx), void *ctx)
{
    if (wal_dir == NULL || fn == NULL)
        return idem_fail(IDEM_E_INVALID, "wal_dir or fn: NULL");
    struct idem_log_dir d;
    struct walk w = {.fn = fn, .ctx = ctx};
    int e = idem_log_dir_open(wal_dir, false, 0, &d);
    if (e != IDEM_OK)
        return e;
    e = idem_scan(&d, tell, &w, NULL, &w.r);
    idem_log_dir_close(&d);
    return e;
}
