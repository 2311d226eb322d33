/*
 * tests/support/wal_disk_parts.h - what wal_record.c writes and wal_disk.c reads: the calls, in a mapping that all processes of a test share.
 */
#ifndef TESTS_SUPPORT_WAL_DISK_PARTS_H
#define TESTS_SUPPORT_WAL_DISK_PARTS_H

#include <pthread.h>

#include "support/wal_disk.h"

#define CALLS_MAX     20000u
#define BYTES_MAX     (UINT64_C(96) << 20)
#define CALL_NAME_MAX 96u

enum what { MADE, WROTE, SIZED, SYNCED, FAILED_SYNC, DIR_SYNCED, RENAMED, UNLINKED, MADE_DIR, PARENT_SYNCED, TOLD };

struct call {
    uint8_t what;
    ino_t inode;
    uint64_t at, n; /* told: at */
    uint64_t bytes; /* where the written ones lie */
    char name[CALL_NAME_MAX], to[CALL_NAME_MAX];
};

/* Shared by all processes that record. */
struct wal_record {
    pthread_mutex_t lock;
    enum wal_lie lie;
    unsigned fail_sync; /* counts down */
    uint64_t fail_bytes, unsynced;
    bool fail_kills;
    unsigned seen, fail_at; /* of all calls */
    int fail_with;
    bool fail_for_good;
    unsigned fail_kind; /* of the one that failed */
    ino_t directory, parent;
    char path[512], parent_path[512];
    unsigned calls;
    uint64_t bytes;
    struct call call[CALLS_MAX];
    uint8_t data[BYTES_MAX];
};
extern struct wal_record *wal_rec;

#endif
