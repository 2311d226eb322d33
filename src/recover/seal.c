/* recover/seal.c - see seal.h. */
#include "recover/seal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/point.h"
#include "recover/replay.h"

#define BATCH_BYTES (UINT64_C(1) << 20) /* written when this much is there; a larger record has a batch of its own */

struct seal {
    struct idem_log_dir *d;
    const struct idem_scan_result *s;
    const struct idem_seal_as *as;
    struct idem_file_rec f;
    int fd;
    uint64_t at; /* position of the batch that is being filled */
    uint8_t *bytes;
    uint64_t used, room; /* its header included */
    uint32_t records;
    int64_t expiry_ms; /* newest so far */
};

static int flush(struct seal *w)
{
    struct idem_batch_rec b = {
        .epoch = w->f.epoch,
        .position = w->at,
        .durable = w->f.prev_end,
        .bytes = (uint32_t)w->used,
        .records = w->records,
        .store_ms = w->as->store_ms,
        .wall_ms = w->as->wall_ms,
        .ceiling_ms = w->f.ceiling_ms,
    };
    char name[IDEM_LOG_NAME_BYTES];
    if (w->records == 0)
        return IDEM_OK;
    idem_batch_encode(&b, w->f.salt, w->bytes);
    if (idem_io_write(w->fd, w->bytes, w->used, IDEM_WAL_HEADER_BYTES + (w->at - w->f.base)) != 0) {
        idem_log_file_name(w->f.number, name);
        return idem_log_fail(w->d, name, "write");
    }
    w->at += w->used;
    w->used = IDEM_WAL_BATCH_BYTES;
    w->records = 0;
    return IDEM_OK;
}

static int add(struct seal *w, struct idem_rec *r)
{
    uint64_t n = idem_rec_bytes(r);
    if (n == 0)
        return idem_fail(IDEM_E_CORRUPT, "a record that can't be written (token %llu)", (unsigned long long)r->token);
    if (w->records > 0 && w->used + n > BATCH_BYTES) {
        int e = flush(w);
        if (e != IDEM_OK)
            return e;
    }
    if (w->used + n > w->room) {
        uint64_t room = w->used + n > BATCH_BYTES ? w->used + n : BATCH_BYTES;
        uint8_t *more = realloc(w->bytes, room);
        if (more == NULL)
            return idem_fail(IDEM_E_MEMORY, "no memory for a batch of %llu bytes", (unsigned long long)room);
        w->bytes = more;
        w->room = room;
    }
    r->position = w->at + w->used;
    w->used += idem_rec_encode(r, w->f.salt, w->bytes + w->used);
    w->records++;
    if (r->kind != REC_RETAIN && r->expiry_ms > w->expiry_ms)
        w->expiry_ms = r->expiry_ms;
    return IDEM_OK;
}

static int copy_record(void *ctx, const struct idem_rec *r, uint64_t file)
{
    (void)file;
    struct idem_rec copy = *r;
    return IDEM_FAULT("recover.tail") ? IDEM_OK : add(ctx, &copy);
}

static int add_store(struct seal *w, const struct idem_view *v)
{
    uint8_t *scratch = malloc((size_t)1 << v->region_shift);
    if (scratch == NULL)
        return idem_fail(IDEM_E_MEMORY, "no memory for a record");
    int e = IDEM_OK;
    for (uint64_t b = 0; b < v->bucket_count && e == IDEM_OK; b++)
        for (unsigned s = 0; s < IDEM_BUCKET_SLOTS && e == IDEM_OK; s++) {
            struct idem_rec r;
            /* relaxed: nobody else has this store open */
            uint64_t word = load_relaxed(&v->buckets[b].slots[s]);
            if (!idem_replay_record(v, word, scratch, &r))
                continue;
            e = add(w, &r);
            /* relaxed: as above. The store is not seen before this file is durable. */
            store_relaxed(&v->arena[word_unit(word) * 2 + 4], log_word(r.position, r.state));
        }
    free(scratch);
    return e;
}

/* How many bytes the records of a store have: positions are given out before they are written. */
static int count_store(const struct idem_view *v, uint64_t *bytes)
{
    uint8_t *scratch = malloc((size_t)1 << v->region_shift);
    if (scratch == NULL)
        return idem_fail(IDEM_E_MEMORY, "no memory for a record");
    *bytes = 0;
    for (uint64_t b = 0; b < v->bucket_count; b++)
        for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++) {
            struct idem_rec r;
            /* relaxed: as above */
            if (idem_replay_record(v, load_relaxed(&v->buckets[b].slots[s]), scratch, &r))
                *bytes += idem_rec_bytes(&r);
        }
    free(scratch);
    return IDEM_OK;
}

static int fill_header(struct seal *w, bool all, uint64_t record_bytes)
{
    const struct idem_file_rec *last = &w->s->newest;
    struct idem_file_rec *f = &w->f;
    /* A batch is full but for its last record: twice as many headers as full batches would have. */
    uint64_t need = record_bytes + (record_bytes / (BATCH_BYTES / 2) + 2) * IDEM_WAL_BATCH_BYTES;
    *f = *last;
    memcpy(f->instance, w->as->instance, sizeof f->instance);
    f->number = last->number + 1;
    f->base = last->base + last->bytes - IDEM_WAL_HEADER_BYTES;
    f->prev_number = last->number;
    f->prev_salt = last->salt;
    f->prev_end = w->s->proven;
    f->oldest = all ? f->number : w->s->oldest_needed;
    f->epoch = 0;
    f->store_ms = w->as->store_ms;
    f->wall_ms = w->as->wall_ms;
    f->ceiling_ms = w->as->ceiling_ms;
    f->prev_expiry_ms = w->s->newest_expiry_ms;
    f->settings = w->as->settings;
    f->bytes = w->as->settings.file_bytes;
    if (f->bytes < IDEM_WAL_HEADER_BYTES + need)
        f->bytes =
            IDEM_WAL_HEADER_BYTES + (need + IDEM_WAL_HEADER_BYTES - 1) / IDEM_WAL_HEADER_BYTES * IDEM_WAL_HEADER_BYTES;
    if (getrandom(&f->salt, sizeof f->salt, 0) != (ssize_t)sizeof f->salt)
        return idem_fail_errno("getrandom");
    return IDEM_OK;
}

/* v NULL: the tail. */
static int write_file(struct seal *w, const struct idem_view *v, uint64_t record_bytes)
{
    int e = fill_header(w, v != NULL, record_bytes);
    if (e != IDEM_OK)
        return e;
    w->at = w->f.base;
    w->used = IDEM_WAL_BATCH_BYTES;
    e = idem_log_file_make(w->d, &w->f, &w->fd);
    if (e != IDEM_OK)
        return e;
    e = v != NULL ? add_store(w, v) : idem_scan_tail(w->d, w->s, copy_record, w);
    if (e == IDEM_OK)
        e = flush(w);
    IDEM_POINT("recover.copied");
    if (e != IDEM_OK) {
        int kept = errno;
        idem_log_file_discard(w->d, &w->f);
        errno = kept;
        return e;
    }
    return idem_log_file_publish(w->d, &w->f, w->fd); /* with a sync; on an error nothing uses it */
}

static int seal(struct seal *w, const struct idem_view *v, uint64_t record_bytes, struct idem_sealed *out)
{
    w->fd = -1;
    int e = write_file(w, v, record_bytes);
    int kept = errno;
    if (w->fd >= 0)
        idem_io->close(w->fd);
    free(w->bytes);
    errno = kept;
    if (e != IDEM_OK)
        return e;
    struct idem_log_id_rec id = w->d->id;
    id.newest = w->f.number;
    e = idem_log_id_write(w->d, &id);
    *out = (struct idem_sealed){.number = w->f.number,
                                .base = w->f.base,
                                .end = w->at,
                                .ceiling_ms = w->f.ceiling_ms,
                                .expiry_ms = w->expiry_ms,
                                .oldest = w->f.oldest};
    IDEM_POINT("recover.sealed");
    return e;
}

int idem_seal_tail(struct idem_log_dir *d, const struct idem_scan_result *s, const struct idem_seal_as *as,
                   struct idem_sealed *out)
{
    struct seal w = {.d = d, .s = s, .as = as};
    /* Only the last file has a tail: positions before it that were never proven are void. */
    uint64_t from = s->proven > s->newest.base || IDEM_FAULT("recover.gap") ? s->proven : s->newest.base;
    return seal(&w, NULL, s->end_at > from ? s->end_at - from : 0, out);
}

int idem_seal_store(struct idem_log_dir *d, const struct idem_scan_result *s, const struct idem_seal_as *as,
                    const struct idem_view *v, struct idem_sealed *out)
{
    struct seal w = {.d = d, .s = s, .as = as};
    uint64_t bytes = 0;
    int e = count_store(v, &bytes);
    return e == IDEM_OK ? seal(&w, v, bytes, out) : e;
}
