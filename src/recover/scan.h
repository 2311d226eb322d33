/*
 * recover/scan.h - reading a log as a stream, and judging what is damaged.
 *
 * Owns: the order of files, the proven position, torn tail or damage in the middle. Bounded memory: the headers of the files, and one window
 * (recover/window.h). Changes nothing on the disk.
 *
 * Rules (docs/wal.md, "Recovery")
 *  1. Files are read from the oldest that is needed (headers and REC_RETAIN say so) to the newest, without a gap; each header names
 *     number and salt of the one before, and prev_end, where its good part ends. What lies past that is void and not looked at.
 *  2. A file but the last must be sound up to there.
 *  3. In the last one the first thing that is not sound ends the log: a torn tail, if it lies at or past all that is proven, its
 *     checksum is wrong (bytes with a right checksum that contradict each other are not torn, but wrong), and nothing sound after it says
 *     "durable" past that point. Anything else is damage.
 *  4. Sound files past what the id names as newest are read like any others.
 * May be used beside a store that writes: what looks damaged in the last file is looked at again first.
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
    uint64_t space;              /* of the files that were read, as they lie on the disk */
    uint64_t first;              /* number of the file that was read first; 0: there are no files */
    struct idem_file_rec newest; /* header of the last file */
    struct idem_batch_rec last;  /* newest store and wall time, greatest ceiling over all headers and batches */
    int64_t newest_expiry_ms;    /* of the records in the last file */
    uint64_t oldest_needed;
};

typedef int (*idem_scan_each)(void *ctx, const struct idem_rec *r, uint64_t file);

/* each: 0 to go on; else ends the scan and is returned. The record's bytes are valid until it returns. each and hooks (sentence, progress,
   keys so far) may be NULL. Outcomes: IDEM_OK; result->first is 0 if there is no file (the log was never written to). Errors:
   IDEM_E_LOG_DAMAGED (file, offset, position and remedy in the detail; each may have been called before: so apply to something
   nobody sees yet), IDEM_E_LOG_FOREIGN, IDEM_E_VERSION, IDEM_E_LOG (EIO and its like), IDEM_E_MEMORY, IDEM_E_TIMEOUT (progress said so). */
int idem_scan(struct idem_log_dir *d, idem_scan_each each, void *ctx, const idem_recovery *hooks,
              struct idem_scan_result *result);

/* What time it was, and how far the log is proven: of the files before the last one only the headers are read, of the last one the batches' headers.
   What ends it is not judged: result->end_at is no more than a hint. Errors: as idem_scan(). */
int idem_scan_newest(struct idem_log_dir *d, struct idem_scan_result *result);

/* The records of the last file from result->proven to result->end_at, in order: those that recovery has to write anew. What a writer that
   was fenced in the meantime has put behind is not there. As idem_scan(). */
int idem_scan_tail(struct idem_log_dir *d, const struct idem_scan_result *result, idem_scan_each each, void *ctx);

/* One sentence to whoever listens. */
void idem_say(const idem_recovery *hooks, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
