/*
 * wal/files.h - the log's directory and the files in it.
 *
 * Owns: names, creation, listing, deletion, the id file. All through wal/io.h.
 *
 * The directory holds   id                  whose log it is, which segment may write it, its newest file; leaders' lock bytes
 *                       wal-%020u           files, numbered from 1, without gaps from the oldest to the newest
 *                       wal-%020u-SALT.tmp  one that is being made; the name is its maker's alone
 *                       place               path of the store's directory, so that a second store does not take the log of a living one for one that
 *                                           was left. A hint: it is not synced, and nothing hangs on it but a refusal
 *
 * Invariants
 *  1. A file that has its name is complete: header, space, and for a recovery's file the records it begins with, were synced before the
 *     rename. It is used after the directory was synced and the id names it.
 *  2. A name is never taken twice (rename does not replace), so of two leaders that make a file of one number one fails.
 *  3. Only the oldest files are deleted, and only after a REC_RETAIN that says so is durable.
 *  4. Another instance is another inode of the id: a writer that slept while the log was taken over writes into a file that nobody reads.
 *  5. An acknowledgement is given only if, after the sync, the id still names our instance: idem_log_ours().
 *
 * If we die here: a .tmp is left, removed by who makes a file next; a file that the id does not name yet is used by
 * nobody and accepted by recovery if it is sound; an id sector half written leaves the other one.
 */
#ifndef IDEM_WAL_FILES_H
#define IDEM_WAL_FILES_H

#include "idem.h"
#include "wal/format.h"
#include "wal/io.h"

#define IDEM_LOG_PATH_MAX   1024u
#define IDEM_LOG_NAME_BYTES 32u
#define IDEM_LOG_LOCK_AT    (INT64_C(1) << 40) /* leader of epoch e: byte IDEM_LOG_LOCK_AT + e of `id` */

struct idem_log_dir {
    int fd;
    int id_fd;
    dev_t device; /* of the id file: a directory that was replaced has another one */
    ino_t inode;
    gid_t group; /* (gid_t)-1: not shared */
    char path[IDEM_LOG_PATH_MAX];
    struct idem_log_id_rec id; /* as read or written last by this process */
};

/*
 * Opens the log directory and its id. With create the directory (last component) and an empty id are made if they are not there.
 * group: gid + 1 of a sharing group, or 0. Outcomes: IDEM_OK; d->id.newest is 0 and d->id.uuid zero if it was just made (sequence 0).
 * Errors: IDEM_E_INVALID (path), IDEM_E_NO_STORE (not there), IDEM_E_PERMISSION (symlink, foreign owner, writable by others),
 * IDEM_E_LOG_DAMAGED (no valid id sector), IDEM_E_VERSION, IDEM_E_LOG_SPACE, IDEM_E_LOG. On error nothing is open.
 */
int idem_log_dir_open(const char *path, bool create, int64_t group, struct idem_log_dir *d);
/* Only for salvage: the directory alone, whatever its id says; d->id is zero and idem_log_id_replace() makes one. Errors: as above. */
int idem_log_dir_open_raw(const char *path, struct idem_log_dir *d);
void idem_log_dir_close(struct idem_log_dir *d); /* errno stays */

/* Writes *id (its sequence is set: one more than the last) to the older sector and syncs. Only who holds a leader's byte calls
   it, and only to change `newest`. Durability: on the disk at return. Errors: IDEM_E_LOG, IDEM_E_LOG_SPACE. */
int idem_log_id_write(struct idem_log_dir *d, struct idem_log_id_rec *id);
/* A new id file in the place of the old one: for a new log's first id, taking a log over, and destroying one. Only under
   idem_log_dir_hold(). d goes on with the new one. Errors: IDEM_E_LOG, IDEM_E_LOG_SPACE; the old one stands then, or (the directory's sync failed)
   either. */
int idem_log_id_replace(struct idem_log_dir *d, struct idem_log_id_rec *id);
/* Exclusive among recoveries and destroyers; until d is closed. Outcomes: IDEM_OK, 1: somebody else has it. Errors: IDEM_E_LOG. */
int idem_log_dir_hold(struct idem_log_dir *d);
/* Reads it anew into d->id. Errors: IDEM_E_LOG, IDEM_E_LOG_DAMAGED, IDEM_E_VERSION. */
int idem_log_id_read(struct idem_log_dir *d);

/* Is the directory at the path still this one, and may this instance write it? To be asked before each batch and again after its sync.
   Outcomes: IDEM_OK. Errors: IDEM_E_STALE (another segment has taken it over, or it was destroyed), IDEM_E_LOG (removed or replaced). */
int idem_log_ours(struct idem_log_dir *d, const uint8_t uuid[16], const uint8_t instance[16]);

void idem_log_file_name(uint64_t number, char name[IDEM_LOG_NAME_BYTES]);

/* The numbers of the files that are there, ascending; *numbers is malloc'ed, NULL if there are none. Other names are passed over.
   Errors: IDEM_E_MEMORY, IDEM_E_LOG. */
int idem_log_list(struct idem_log_dir *d, uint64_t **numbers, size_t *count);

/* Makes a file under its temporary name: header, space of f->bytes. f says everything but major, minor, features (set here). *fd is for pwrite.
   Errors: IDEM_E_LOG_SPACE, IDEM_E_LOG; nothing is left then. */
int idem_log_file_make(struct idem_log_dir *d, struct idem_file_rec *f, int *fd);
/* Syncs it, gives it its name, syncs the directory. Errors: IDEM_E_EXISTS (somebody was faster; the temporary one is gone), IDEM_E_LOG,
   IDEM_E_LOG_SPACE. On an error of the last sync the file has its name but must not be used: make the next one. fd stays open in any case. */
int idem_log_file_publish(struct idem_log_dir *d, const struct idem_file_rec *f, int fd);
void idem_log_file_discard(struct idem_log_dir *d,
                           const struct idem_file_rec *f); /* the temporary one, if it is there */
/* Removes what makers that died have left. One that only sleeps finds its file gone and fails. Errors: IDEM_E_LOG. */
int idem_log_clear_tmp(struct idem_log_dir *d);

/* Opens a file by number and decodes its header; checks number, UUID (if given) and size. Errors: IDEM_E_LOG_DAMAGED (missing, short, not a
   log file, wrong checksum), IDEM_E_LOG_FOREIGN, IDEM_E_VERSION, IDEM_E_PERMISSION, IDEM_E_LOG. */
int idem_log_file_open(struct idem_log_dir *d, uint64_t number, const uint8_t *uuid, bool writable,
                       struct idem_file_rec *f, int *fd);

/* Only for salvage: any plain file by that number, whatever is in it, for reading; *bytes is its size. Errors: IDEM_E_PERMISSION, IDEM_E_LOG. */
int idem_log_file_open_raw(struct idem_log_dir *d, uint64_t number, int *fd, uint64_t *bytes);

/* Errors: IDEM_E_LOG, IDEM_E_LOG_SPACE. */
int idem_log_place_write(struct idem_log_dir *d, const char *path);
/* "" if there is none, or nothing that is a path. */
void idem_log_place_read(struct idem_log_dir *d, char path[IDEM_LOG_PATH_MAX]);

/* Deletes; a missing one is fine. The caller syncs the directory once after the last. Errors: IDEM_E_LOG. */
int idem_log_file_delete(struct idem_log_dir *d, uint64_t number);
int idem_log_dir_sync(struct idem_log_dir *d);

/* Sets the error text from errno: IDEM_E_LOG_SPACE for ENOSPC and EDQUOT, else IDEM_E_LOG. what: "fdatasync", say. */
int idem_log_fail(const struct idem_log_dir *d, const char *name, const char *what);

#endif
