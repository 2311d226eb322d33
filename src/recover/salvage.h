/*
 * recover/salvage.h - what can be proven good of a damaged log.
 *
 * Owns: going on behind damage. A record counts only with its checksum, salt and position; files without a readable header are read with each
 * salt that the next header names (prev_salt). Every gap is a sentence: file, from, to, and which of its keys can't be told.
 */
#ifndef IDEM_RECOVER_SALVAGE_H
#define IDEM_RECOVER_SALVAGE_H

#include "recover/scan.h"

/* As idem_scan(), but goes on: IDEM_E_LOG_DAMAGED only if nothing at all is readable. Damaged files are kept, renamed to NAME.damaged. */
int idem_salvage(struct idem_log_dir *d, int (*each)(void *ctx, const struct idem_rec *r, uint64_t file), void *ctx,
                 idem_recovery *recovery, struct idem_scan_result *result);

#endif
