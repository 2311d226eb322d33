/*
 * ledger.h - the effect: a file of charges, one fixed-size line each, found again by tenant and key.
 *
 * Owns: the ledger's line format, the one write() that makes a charge, and the lock that fences late writers.
 * Invariants
 *  L1 A record is LEDGER_RECORD_BYTES long, JSON, padded with spaces, ended by a newline, written by one write() to an
 *     O_APPEND descriptor. The length divides the page size and the file starts empty, so a record never straddles a
 *     page and a SIGKILL in the middle of write() leaves it there whole or not at all.
 *  L2 A charge is written only under the shared lock, and only after its owner was told, under that lock, that it still
 *     owns the key. Whoever takes a key over looks for the lost attempt's charge under the exclusive lock. So a charge is
 *     either seen by the one who takes over, or its late writer finds itself fenced before it writes.
 * If we die here: the kernel drops the lock with the process; L1 holds.
 * Not promised: the ledger is not fsynced, the machine's crash is outside this demonstration.
 */
#ifndef LEDGER_H
#define LEDGER_H

#include <stddef.h>
#include <stdint.h>

#define LEDGER_RECORD_BYTES 256
#define LEDGER_KEY_MAX      64 /* printable ASCII without " and \ */
#define LEDGER_TENANT_MAX   32 /* letters, digits, . _ - */
#define CHARGE_ID_BYTES     20 /* "ch_", 16 hex digits, NUL */

typedef struct ledger_record {
    const char *key;
    const char *tenant;
    const char *charge;
    const char *currency; /* three letters */
    int64_t amount;       /* minor units */
    uint64_t token;       /* the attempt's fence; 0 without idem */
    uint32_t attempt;
} ledger_record;

enum ledger_lock_kind { LEDGER_SHARED, LEDGER_EXCLUSIVE };

/* Opens (creating) the ledger for appending and reading. Returns the descriptor, or -1 with a sentence on stderr. */
int ledger_open(const char *path);

/* Whether these bytes may stand in a record as they are. */
int ledger_key_ok(const char *key);
int ledger_tenant_ok(const char *tenant);

/* Never waits. Returns 1: locked; 0: somebody else has it, come again; -1: error, errno. */
int ledger_try_lock(int fd, enum ledger_lock_kind kind);
void ledger_unlock(int fd);

/* The present size in bytes, or -1 with errno. */
int64_t ledger_size(int fd);

/* Appends one charge. Returns 0, or -1 with errno: then no valid record was written. */
int ledger_append(int fd, const ledger_record *record);

/*
 * Looks for a charge of (tenant, key) in the records from byte `from` up to the size at the time of the call.
 * Returns 1 and the charge id, 0 if there is none, -1 with errno.
 */
int ledger_find(int fd, int64_t from, const char *tenant, const char *key, char charge[CHARGE_ID_BYTES]);

#endif
