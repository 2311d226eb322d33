/*
 * wal.h - what `idem recover` and `idem wal` share: running a recovery with its bar and its sentences.
 */
#ifndef IDEM_TOOLS_WAL_H
#define IDEM_TOOLS_WAL_H

#include "progress.h"

struct wal_report {
    struct progress_bar bar;
    struct json_object *list; /* of sentences; NULL: they are printed */
};

/* idem_recover() with a bar on a terminal, sentences on stdout or, with json, in report->list. */
int wal_recover(idem_recovery *r, struct wal_report *report, bool json);

/* The figures of a log that was read, and the sentences; takes report->list. */
void wal_report_json(struct json_object *object, const idem_recovery *r, struct wal_report *report);

/* The log's words for people and machines. */
const char *wal_kind_word(uint32_t kind);
const char *wal_state_word(uint32_t state);

#endif
