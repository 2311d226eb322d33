/*
 * recover/recover.c - the public calls of this room.
 *
 * Owns: argument checks of idem_recover() and idem_log_walk().
 */
#include "base/error.h"
#include "idem.h"

int idem_recover(idem_recovery *r)
{
    if (r == NULL || r->size != sizeof *r)
        return idem_fail(IDEM_E_INVALID, "recovery.size: should be %zu; initialise with IDEM_RECOVERY_INIT", sizeof *r);
    if (r->dir == NULL || r->wal_dir == NULL || r->reserved != 0)
        return idem_fail(IDEM_E_INVALID, "recovery.dir, wal_dir: NULL, or reserved is not 0");
    return idem_fail(IDEM_E_LOG, "%s: this version does not read logs", r->wal_dir);
}

int idem_log_walk(const char *wal_dir, int (*fn)(const idem_log_record *record, void *ctx), void *ctx)
{
    (void)ctx;
    if (wal_dir == NULL || fn == NULL)
        return idem_fail(IDEM_E_INVALID, "wal_dir or fn: NULL");
    return idem_fail(IDEM_E_LOG, "%s: this version does not read logs", wal_dir);
}
