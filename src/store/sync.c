/*
 * store/sync.c - idem_sync: waiting until everything acknowledged is durable.
 *
 * Owns: the public call. A store without a log has nothing to wait for.
 */
#include "store/handle.h"

int idem_sync(idem_store *store, int64_t timeout_ms)
{
    struct idem_op op;
    if (timeout_ms < 0)
        return idem_fail(IDEM_E_INVALID, "timeout_ms: %lld; 0 for the store's, or more", (long long)timeout_ms);
    int e = idem_enter(store, &op);
    return e != IDEM_OK ? e : idem_leave(&op, IDEM_OK);
}
