/* store/source.h - a store as the log's leader sees it (wal/leader.h). */
#ifndef IDEM_STORE_SOURCE_H
#define IDEM_STORE_SOURCE_H

#include "arena/entry.h"
#include "wal/leader.h"

struct idem_log_source idem_source_of(struct idem_view *v);

/* What an entry becomes in the log, with its slot in this state. Its region is held, or nobody else is there. The record points into scratch: at
   least idem_source_room() bytes, which are never more than the entry has. */
uint64_t idem_source_room(const struct idem_entry *e);
void idem_source_record(const struct idem_entry *e, unsigned state, uint8_t *scratch, struct idem_rec *r);

#endif
