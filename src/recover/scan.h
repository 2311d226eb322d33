/*
 * recover/scan.h - reading a log as a stream, and judging what is damaged.
 *
 * Owns: the order of files, the proven position, torn tail or damage in the middle. Bounded memory: one window of 4 MiB, more only for a
 * record that is larger.
 *
 * Rules (docs/wal.md, "Recovery"): the oldest file is what headers and REC_RETAIN say; numbers have no gap; each header names number and salt
 * of the one before and where its good part ends; a file but the last must be sound up to there. In the last one the first thing that is not
 * sound ends the log, if nothing sound after it says "durable" past that point: then it is damage in the middle.
 */
#ifndef IDEM_RECOVER_SCAN_H
#define IDEM_RECOVER_SCAN_H

#include "wal/files.h"

enum idem_scan_end { SCAN_CLEAN, SCAN_TORN };
struct idem_scan_result {
    enum idem_scan_end end;
    uint64_t proven; /* below it all was on the disk, said by a later write */
    uint64_t end_at; /* first position that is not there any more */
    uint64_t cut_bytes;
    uint64_t files, batches, records, bytes;
    struct idem_file_rec newest;
    struct idem_batch_rec last; /* newest store and wall time, greatest ceiling over all */
    uint64_t oldest_needed;
};

/* each: 0 to go on; else ends the scan and is returned. The record's bytes are valid until it returns. sentence and progress may be NULL.
   Outcomes: IDEM_OK. Errors: IDEM_E_LOG_DAMAGED (file, offset, position and remedy in the detail; each may have been called before: so
   apply to something nobody sees yet), IDEM_E_LOG_FOREIGN, IDEM_E_VERSION, IDEM_E_LOG (EIO and its like), IDEM_E_MEMORY. */
int idem_scan(struct idem_log_dir *d, int (*each)(void *ctx, const struct idem_rec *r, uint64_t file), void *ctx,
              const idem_recovery *hooks, struct idem_scan_result *result);

#endif
