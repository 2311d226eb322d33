/*
 * tests/support/wal_disk.h - what the log asks of the disk, recorded; and the disks that a crash can leave.
 *
 * Owns: a table of calls (struct idem_io_calls) that does and records them, from all processes of a test in one order; a disk in memory
 * that the recorded calls are applied to one by one; images of it, as directories, of the machine dying after any of them.
 *
 * What a crash leaves, as pessimistic as POSIX allows
 *  - Of a file what was written before its last successful fsync or fdatasync; of each 512-byte sector written since: the new bytes, the old ones,
 *    or the new ones up to some byte. So for its size. A sync that failed leaves its sectors unsynced, and no later sync writes them.
 *  - Of a directory the names before its last fsync; each later creation, rename, removal in it: kept or lost. mkdir needs an fsync of the parent.
 *
 * The parent records too. If a recording process is killed inside a call that call may be missing: kill at points, not anywhere.
 */
#ifndef TESTS_SUPPORT_WAL_DISK_H
#define TESTS_SUPPORT_WAL_DISK_H

#include "support/support.h"
#include "wal/io.h"

/* A library or a kernel that leaves something out: what the harness must notice. */
enum wal_lie {
    WAL_HONEST,
    WAL_NO_FDATASYNC, /* fdatasync returns 0 and does nothing */
    WAL_NO_FSYNC,     /* so does fsync of a file */
    WAL_NO_DIRSYNC    /* so does fsync of a directory */
};

/* From now on idem_io records (and does), in this process and children forked from now on. directory: the log's path. */
void wal_record_begin(const char *directory, enum wal_lie lie);
/* From now on. */
void wal_record_lie(enum wal_lie lie);
void wal_record_end(void); /* idem_io does without recording; what was recorded stays until the next begin */
/* The test was told that `what` is durable. */
void wal_record_told(uint64_t what);
/* The nth sync of a file from now on fails with EIO. 0: none. */
void wal_record_fail_sync(unsigned nth);
/* And the process that asked for it dies before it is told. */
void wal_record_fail_kills(bool kills);
/* Of those syncs that have at least so many bytes to write: what comes behind them does not write the same sectors again. */
void wal_record_fail_only(uint64_t bytes);
unsigned wal_recorded(void);
/* The nth call of the table from now on, whichever it is (but close and unlock), does nothing and fails with `error`; for_good: so do all of
   its kind after it.
   SHORT: a pwrite does half of it, once. nth 0: none. What was counted since: wal_calls_seen(). */
#define WAL_SHORT (-1)
void wal_record_fail_call(unsigned nth, int error, bool for_good);
unsigned wal_calls_seen(void);

struct wal_disk;
/* from: a directory whose files are there, and synced; NULL: there is none. To be made before the recording begins. */
struct wal_disk *wal_disk_new(const char *from);
void wal_disk_free(struct wal_disk *disk);
/* Applies call i; calls must come in order. */
void wal_disk_apply(struct wal_disk *disk, unsigned i);
/* Applies what was recorded, and empties the record: for a recording without end. Files that have no name any more, nor may have one after a
   crash, are let go. Nobody records meanwhile; and no call before it is spoken of any more. */
void wal_disk_follow(struct wal_disk *disk);
/* What call i was, for messages; static. */
const char *wal_call_words(unsigned i);
/* What was told up to the call that was applied last. */
const uint64_t *wal_told(const struct wal_disk *disk, unsigned *count);

enum wal_keep { WAL_LOST, WAL_KEPT, WAL_SOME, WAL_TORN, WAL_KEEPS };
/* Makes the directory `at` (and what it says in it), as after a crash now: names and sectors that no sync covered are lost, kept, some of them
   (by *random), or torn (sectors; names: some). False: not even the directory is there. The image is a disk of its own: nothing refers to it. */
bool wal_disk_image(const struct wal_disk *disk, const char *at, enum wal_keep names, enum wal_keep sectors,
                    uint64_t *random);

#endif
