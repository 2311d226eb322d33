/*
 * ledger.c - see ledger.h.
 */
#include "ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_RECORDS 256

int ledger_open(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) {
        fprintf(stderr, "ledger %s: %s\n", path, strerror(errno));
        return -1;
    }
    int64_t size = ledger_size(fd);
    if (size < 0 || size % LEDGER_RECORD_BYTES != 0) {
        if (size < 0)
            fprintf(stderr, "ledger %s: %s\n", path, strerror(errno));
        else
            fprintf(stderr,
                    "ledger %s: %" PRId64 " bytes is not a whole number of %d-byte records; look at its last "
                    "line, then: truncate -s %" PRId64 " FILE\n",
                    path, size, LEDGER_RECORD_BYTES, size - size % LEDGER_RECORD_BYTES);
        close(fd);
        return -1;
    }
    return fd;
}

int ledger_key_ok(const char *key)
{
    size_t n = strlen(key);
    if (n == 0 || n > LEDGER_KEY_MAX)
        return 0;
    for (; *key != '\0'; key++)
        if (*key < 0x20 || *key > 0x7e || *key == '"' || *key == '\\')
            return 0;
    return 1;
}

int ledger_tenant_ok(const char *tenant)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t n = strlen(tenant);
    return n > 0 && n <= LEDGER_TENANT_MAX && strspn(tenant, allowed) == n;
}

int ledger_try_lock(int fd, enum ledger_lock_kind kind)
{
    int how = (kind == LEDGER_EXCLUSIVE ? LOCK_EX : LOCK_SH) | LOCK_NB;
    while (flock(fd, how) != 0) {
        if (errno == EWOULDBLOCK)
            return 0;
        if (errno != EINTR)
            return -1;
    }
    return 1;
}

void ledger_unlock(int fd)
{
    flock(fd, LOCK_UN);
}

int64_t ledger_size(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? (int64_t)st.st_size : -1;
}

/* The beginning of a record, which names its tenant and key. Returns its length. */
static size_t head(char out[LEDGER_RECORD_BYTES], const char *tenant, const char *key)
{
    int n = snprintf(out, LEDGER_RECORD_BYTES, "{\"key\":\"%s\",\"tenant\":\"%s\",", key, tenant);
    return n > 0 ? (size_t)n : 0;
}

int ledger_append(int fd, const ledger_record *record)
{
    char line[LEDGER_RECORD_BYTES];
    size_t at = head(line, record->tenant, record->key);
    int n = snprintf(line + at, sizeof(line) - at,
                     "\"token\":\"%" PRIu64 "\",\"charge\":\"%s\",\"amount\":%" PRId64
                     ",\"currency\":\"%s\",\"attempt\":%" PRIu32 "}",
                     record->token, record->charge, record->amount, record->currency, record->attempt);
    if (n < 0 || at + (size_t)n >= sizeof(line)) {
        errno = EMSGSIZE;
        return -1;
    }
    at += (size_t)n;
    memset(line + at, ' ', sizeof(line) - at - 1);
    line[sizeof(line) - 1] = '\n';

    ssize_t wrote;
    do {
        wrote = write(fd, line, sizeof(line));
    } while (wrote < 0 && errno == EINTR);
    if (wrote == (ssize_t)sizeof(line))
        return 0;
    if (wrote > 0)
        errno = ENOSPC; /* a part of a record: no closing brace, so no charge; ledger_open() will refuse the file */
    return -1;
}

int ledger_find(int fd, int64_t from, const char *tenant, const char *key, char charge[CHARGE_ID_BYTES])
{
    static const char field[] = "\"charge\":\"";
    char want[LEDGER_RECORD_BYTES];
    char chunk[CHUNK_RECORDS * LEDGER_RECORD_BYTES];
    size_t want_bytes = head(want, tenant, key);
    int64_t end = ledger_size(fd);
    if (end < 0)
        return -1;
    if (from < 0 || from > end)
        from = 0;
    from -= from % LEDGER_RECORD_BYTES;
    while (from + LEDGER_RECORD_BYTES <= end) {
        size_t ask = sizeof(chunk);
        if ((int64_t)ask > end - from)
            ask = (size_t)(end - from);
        ssize_t got = pread(fd, chunk, ask, (off_t)from);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got < LEDGER_RECORD_BYTES)
            break;
        for (ssize_t at = 0; at + LEDGER_RECORD_BYTES <= got; at += LEDGER_RECORD_BYTES) {
            const char *line = chunk + at;
            if (memcmp(line, want, want_bytes) != 0 || line[LEDGER_RECORD_BYTES - 1] != '\n')
                continue;
            const char *found = memmem(line + want_bytes, LEDGER_RECORD_BYTES - want_bytes, field, sizeof(field) - 1);
            if (found == NULL || found + sizeof(field) - 1 + CHARGE_ID_BYTES > line + LEDGER_RECORD_BYTES)
                continue;
            memcpy(charge, found + sizeof(field) - 1, CHARGE_ID_BYTES - 1);
            charge[CHARGE_ID_BYTES - 1] = '\0';
            return 1;
        }
        from += got - got % LEDGER_RECORD_BYTES;
    }
    return 0;
}
