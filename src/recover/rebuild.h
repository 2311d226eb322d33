/*
 * recover/rebuild.h - a store from its log: the steps and their order (docs/wal.md, "Recovery").
 *
 * Invariants
 *  1. The directories of store and log are held (flock) from the first change to the last, in this order.
 *  2. A store that is there is only marked dead (IDEM_RECOVER_REPLACE) when the whole log was read and found sound.
 *  3. The root gets its name last: until then nobody opens what is being built, and it can be begun anew from the log.
 *
 * If we die here: recover.owned: the next one takes over; recover.copied: a temporary file; recover.sealed: the log has one more file, which says what the
 * one before said; recover.visible: done, old files are deleted by whoever writes the log.
 */
#ifndef IDEM_RECOVER_REBUILD_H
#define IDEM_RECOVER_REBUILD_H

#include "idem.h"

/*
 * given: what the caller asked for, NULL: nothing. Sizes, UUID, secret and group are the log's in any case. Call it with forks watched and held
 * off (store/handle.h). Outcomes and errors: as idem_recover(); IDEM_E_NO_STORE: no log there, or nothing was ever written to it.
 */
int idem_rebuild(const idem_options *given, idem_recovery *r);

#endif
