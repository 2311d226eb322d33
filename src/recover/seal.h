/*
 * recover/seal.h - the file that recovery leaves behind.
 *
 * Owns: writing records anew, into a file after the last one, whose base lies past all positions of that; synced before it has its name. Two kinds:
 * the unproven tail of a log (idem_seal_tail), or everything that lives (idem_seal_store, after salvage, or when most of the log is empty: no
 * older file is needed then).
 *
 * If we die here: before the name nothing has happened; after it, the file is the newest of a sound log, and the next recovery reads it: its
 * records say the same as those that they are copies of.
 */
#ifndef IDEM_RECOVER_SEAL_H
#define IDEM_RECOVER_SEAL_H

#include "recover/scan.h"
#include "segment/view.h"

struct idem_seal_as {
    uint8_t instance[16];
    int64_t store_ms, wall_ms;         /* now */
    int64_t ceiling_ms;                /* of the tokens that the store may give out before it has written anything */
    struct idem_wal_settings settings; /* of the store that is made; file_bytes are more if the records need it */
};
struct idem_sealed {
    uint64_t number, base, end; /* the file; where what was written ends: everything below is durable */
    int64_t ceiling_ms;
    int64_t expiry_ms; /* newest in the file */
    uint64_t oldest;   /* file that is needed from now on */
};

/* The records from result->proven to result->end_at. Errors: IDEM_E_EXISTS (a fenced writer has made that file meanwhile: scan again), IDEM_E_LOG,
   IDEM_E_LOG_SPACE, IDEM_E_LOG_DAMAGED, IDEM_E_MEMORY. */
int idem_seal_tail(struct idem_log_dir *d, const struct idem_scan_result *s, const struct idem_seal_as *as,
                   struct idem_sealed *out);
/* What the slots of a settled store say. s: of the scan or salvage that filled it. Errors: as above. */
int idem_seal_store(struct idem_log_dir *d, const struct idem_scan_result *s, const struct idem_seal_as *as,
                    const struct idem_view *v, struct idem_sealed *out);

#endif
