/*
 * recover/salvage.h - what can be proven good of a damaged log.
 *
 * Owns: going on behind damage. A record counts only with checksum, salt and position; nothing else is asked of what lies around it. A file without a
 * readable header is read with the salt that the next one's header names. What a next header calls void stays void; where that header is lost, it can't
 * be told, and is kept. Every gap is a sentence: file, from, to.
 *
 * What it can't know: a lost record of forgetting can bring an answer back, a lost completion makes its claim a lost attempt. It says so.
 */
#ifndef IDEM_RECOVER_SALVAGE_H
#define IDEM_RECOVER_SALVAGE_H

#include "recover/scan.h"

/* Files that have to be put aside: damaged, or not this log's. */
struct idem_salvage_list {
    uint64_t *numbers;
    size_t n, room;
};

/* As idem_scan(), but goes on. IDEM_E_LOG_DAMAGED only if there is not one readable header, or no file at all although the id names one. hooks'
   `damaged` and `lost_records` are not written; *damaged and *lost_records are. Free the numbers of list. result->newest is made up:
   past all numbers and positions that are there. */
int idem_salvage(struct idem_log_dir *d, idem_scan_each each, void *ctx, const idem_recovery *hooks,
                 struct idem_scan_result *result, uint64_t *damaged, uint64_t *lost_records,
                 struct idem_salvage_list *list);

/* Renames them to NAME.damaged. Errors: IDEM_E_LOG. */
int idem_salvage_put_aside(struct idem_log_dir *d, const struct idem_salvage_list *list, const idem_recovery *hooks);

#endif
