/* store/source.h - a store as the log's leader sees it (wal/leader.h). */
#ifndef IDEM_STORE_SOURCE_H
#define IDEM_STORE_SOURCE_H

#include "segment/view.h"
#include "wal/leader.h"

struct idem_log_source idem_source_of(struct idem_view *v);

#endif
