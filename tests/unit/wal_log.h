/*
 * tests/unit/wal_log.h - logs written by hand, with the format's own functions: files, batches, records, as a leader would write them.
 */
#ifndef TESTS_UNIT_WAL_LOG_H
#define TESTS_UNIT_WAL_LOG_H

#include "support/support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "unit/wal_file.h"
#include "wal/files.h"

#define LOG_FILE_BYTES 16384u
#define LOG_T0         INT64_C(1700000000000)

struct hand_log {
    char path[208];
    struct idem_log_dir d;
    struct idem_file_rec f; /* of the file that is being written */
    int fd;
    uint64_t at;      /* next position */
    uint64_t durable; /* what the next batch says */
    int64_t now_ms;
    /* the batch that is being filled */
    uint8_t *bytes;
    size_t used, room;
    uint32_t records;
};

static inline void hand_open(struct hand_log *l, const char *dir)
{
    memset(l, 0, sizeof *l);
    snprintf(l->path, sizeof l->path, "%s/log", dir);
    CHECK_IS(idem_log_dir_open(l->path, true, 0, &l->d), IDEM_OK);
    l->f = a_file();
    l->f.number = 0;
    l->f.salt = 0;
    l->f.base = 0;
    l->f.bytes = LOG_FILE_BYTES;
    l->f.settings.file_bytes = 1 << 20; /* the least: what a recovery makes */
    l->f.oldest = 1;
    l->f.ttl_ms = 86400000;
    l->f.group = 0;
    l->f.processes = 8;
    l->f.lanes = 16;
    l->f.when_full = 0;
    l->now_ms = LOG_T0;
    l->at = 4096;
    l->durable = 4096;
    l->fd = -1;
    l->room = 1 << 20;
    l->bytes = malloc(l->room);
    CHECK(l->bytes != NULL);
    struct idem_log_id_rec id = {.newest = 0};
    memcpy(id.uuid, l->f.uuid, 16);
    memcpy(id.instance, l->f.instance, 16);
    CHECK_IS(idem_log_id_replace(&l->d, &id), IDEM_OK);
}

/* The next file; prev_end as a leader that got as far as l->durable would say it. name_it: the id is told, too. */
static inline void hand_file(struct hand_log *l, bool name_it)
{
    if (l->fd >= 0)
        close(l->fd);
    l->f.prev_number = l->f.number;
    l->f.prev_salt = l->f.salt;
    l->f.prev_end = l->f.number == 0 ? 0 : l->durable;
    l->f.number++;
    l->f.salt = SALT * l->f.number;
    l->f.base = l->at;
    l->f.store_ms = l->now_ms;
    l->f.wall_ms = l->now_ms + 123;
    l->f.ceiling_ms = l->now_ms + 60000;
    CHECK_IS(idem_log_file_make(&l->d, &l->f, &l->fd), IDEM_OK);
    CHECK_IS(idem_log_file_publish(&l->d, &l->f, l->fd), IDEM_OK);
    if (name_it) {
        struct idem_log_id_rec id = l->d.id;
        id.newest = l->f.number;
        CHECK_IS(idem_log_id_write(&l->d, &id), IDEM_OK);
    }
}

/* Position that the next record will have. */
static inline uint64_t hand_next(const struct hand_log *l)
{
    return l->at + IDEM_WAL_BATCH_BYTES + l->used;
}

static inline void hand_add(struct hand_log *l, struct idem_rec r)
{
    r.position = hand_next(l);
    uint64_t n = idem_rec_bytes(&r);
    CHECK(n > 0 && l->used + n <= l->room);
    l->used += idem_rec_encode(&r, l->f.salt, l->bytes + l->used);
    l->records++;
}

/* Writes the batch. synced: the next one will say so. */
static inline void hand_flush(struct hand_log *l, bool synced)
{
    uint8_t head[IDEM_WAL_BATCH_BYTES];
    struct idem_batch_rec b = {
        .epoch = l->f.epoch,
        .position = l->at,
        .durable = l->durable,
        .bytes = (uint32_t)(IDEM_WAL_BATCH_BYTES + l->used),
        .records = l->records,
        .store_ms = l->now_ms,
        .wall_ms = l->now_ms + 123,
        .ceiling_ms = l->now_ms + 60000,
    };
    uint64_t offset = IDEM_WAL_HEADER_BYTES + (l->at - l->f.base);
    CHECK(offset + b.bytes <= l->f.bytes);
    idem_batch_encode(&b, l->f.salt, head);
    CHECK_IS(idem_io_write(l->fd, head, sizeof head, offset), 0);
    CHECK_IS(idem_io_write(l->fd, l->bytes, l->used, offset + sizeof head), 0);
    l->at += b.bytes;
    if (synced)
        l->durable = l->at;
    l->used = 0;
    l->records = 0;
    l->now_ms += 10;
}

static inline void hand_close(struct hand_log *l)
{
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    idem_log_dir_close(&l->d);
    free(l->bytes);
    l->bytes = NULL;
}

static inline struct idem_rec hand_claim(const struct hand_log *l, const char *key, uint64_t token)
{
    return (struct idem_rec){
        .kind = REC_CLAIM,
        .state = REC_IN_PROGRESS,
        .token = token,
        .fingerprint = 7,
        .expiry_ms = l->now_ms + 86400000,
        .at_ms = l->now_ms,
        .attempt = 1,
        .lease_end_ms = l->now_ms + 30000,
        .key = (const uint8_t *)key,
        .key_bytes = (uint16_t)strlen(key),
    };
}

static inline struct idem_rec hand_answer(const struct hand_log *l, const char *key, uint64_t token, const char *body)
{
    return (struct idem_rec){
        .kind = REC_RESPONSE,
        .state = REC_COMPLETED,
        .token = token,
        .fingerprint = 7,
        .expiry_ms = l->now_ms + 86400000,
        .at_ms = l->now_ms,
        .attempt = 1,
        .status = 200,
        .key = (const uint8_t *)key,
        .key_bytes = (uint16_t)strlen(key),
        .body = (const uint8_t *)body,
        .body_bytes = strlen(body),
    };
}

#endif
