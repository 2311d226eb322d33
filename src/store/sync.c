/*
 * store/sync.c - idem_sync: waiting until everything acknowledged is durable.
 *
 * Owns: the public call. A store without a log has nothing to wait for.
 */
#include <errno.h>

#include "store/durable.h"
#include "wal/sync.h"

int idem_sync(idem_store *store, int64_t timeout_ms)
{
    struct idem_op op;
    if (timeout_ms < 0)
        return idem_fail(IDEM_E_INVALID, "timeout_ms: %lld; 0 for the store's, or more", (long long)timeout_ms);
    int e = idem_enter(store, &op);
    if (e != IDEM_OK)
        return e;
    struct idem_view *v = op.ctx.v;
    if (v->wal == NULL)
        return idem_leave(&op, IDEM_OK);
    idem_view_pin(v);
    e = idem_leave(&op, IDEM_OK);
    if (e == IDEM_OK)
        e = idem_log_wait_all(v->wal, true, timeout_ms);
    int kept = errno;
    idem_view_unpin(v);
    errno = kept;
    return e;
}
