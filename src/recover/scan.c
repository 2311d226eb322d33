/*
 * recover/scan.c - see scan.h.
 *
 * If we die here: nothing was changed.
 */
#include "recover/scan.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/point.h"
#include "recover/window.h"

#define LOOKS 4u /* at what seems damaged beside a living writer, without getting on */

struct scan {
    struct idem_log_dir *d;
    idem_scan_each each;
    void *ctx;
    const idem_recovery *hooks;
    struct idem_scan_result *r;
    struct idem_window window;
    struct idem_pace pace;
    struct idem_wal_salt salt; /* of the file that is read */
    struct idem_file_rec *files;
    size_t count;
    uint64_t from, to; /* only records in [from, to) are handed on; to 0: all */
    bool newest_only;
};

/* Where a file stopped being sound, and how. */
struct stop {
    uint64_t at;    /* position */
    uint64_t batch; /* of the batch that it lies in */
    uint64_t owed;  /* with `record`: where that batch should end */
    enum idem_format how;
    bool record; /* in a batch whose header is sound */
};

void idem_say(const idem_recovery *hooks, const char *format, ...)
{
    if (hooks == NULL || hooks->sentence == NULL)
        return;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    hooks->sentence(hooks->ctx, text);
}

static uint64_t offset_of(const struct idem_file_rec *f, uint64_t position)
{
    return IDEM_WAL_HEADER_BYTES + (position - f->base);
}

static uint64_t space_end(const struct idem_file_rec *f)
{
    return f->base + f->bytes - IDEM_WAL_HEADER_BYTES;
}

static int damaged(const struct scan *s, const struct idem_file_rec *f, const struct stop *stop, const char *why,
                   uint64_t position)
{
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(f->number, name);
    return idem_fail(
        IDEM_E_LOG_DAMAGED,
        "%s/%s: at byte %llu (position %llu) the %s %s, and %s %llu; put a good copy back, or idem recover "
        "--salvage keeps what can be proven good",
        s->d->path, name, (unsigned long long)offset_of(f, stop->at), (unsigned long long)stop->at,
        stop->record ? "record" : "batch", idem_format_words(stop->how), why, (unsigned long long)position);
}

/* ------------------------------------------------------------------ one file */

static void note_batch(struct idem_scan_result *r, const struct idem_batch_rec *b)
{
    int64_t ceiling_ms = b->ceiling_ms > r->last.ceiling_ms ? b->ceiling_ms : r->last.ceiling_ms;
    if (b->durable > r->proven)
        r->proven = b->durable;
    if (b->store_ms >= r->last.store_ms)
        r->last = *b;
    r->last.ceiling_ms = ceiling_ms;
}

static int deliver(struct scan *s, const struct idem_file_rec *f, const struct idem_rec *rec)
{
    struct idem_scan_result *r = s->r;
    if (rec->kind == REC_FILL)
        return 0;
    if (rec->position < s->from || (s->to != 0 && rec->position >= s->to))
        return 0;
    r->records++;
    s->pace.records++;
    if (rec->kind == REC_RETAIN && !IDEM_FAULT("scan.retain") && rec->token <= f->number &&
        rec->token > r->oldest_needed)
        r->oldest_needed = rec->token;
    if (rec->kind != REC_RETAIN && rec->expiry_ms > r->newest_expiry_ms)
        r->newest_expiry_ms = rec->expiry_ms;
    return s->each != NULL ? s->each(s->ctx, rec, f->number) : 0;
}

/* The records of one batch whose header is sound. stop->at is left at the first that is not, or at the batch's end with FORMAT_OK. */
static int scan_records(struct scan *s, const struct idem_file_rec *f, const struct idem_batch_rec *b,
                        struct stop *stop)
{
    uint64_t at = b->position + IDEM_WAL_BATCH_BYTES, end = b->position + b->bytes;
    *stop = (struct stop){at, b->position, end, FORMAT_OK, true};
    for (uint32_t i = 0; i < b->records; i++) {
        const uint8_t *p;
        uint64_t left = end - at, bytes = 0;
        if (left < IDEM_WAL_GRAIN) {
            stop->how = FORMAT_LENGTH;
            return IDEM_OK;
        }
        int e = idem_window_get(&s->window, offset_of(f, at), IDEM_WAL_GRAIN, &p);
        if (e != IDEM_OK)
            return e;
        uint64_t exact = (uint64_t)p[8] | (uint64_t)p[9] << 8 | (uint64_t)p[10] << 16 | (uint64_t)p[11] << 24;
        uint64_t padded = idem_wal_padded(exact);
        if (padded > IDEM_WAL_GRAIN && padded <= left) {
            e = idem_window_get(&s->window, offset_of(f, at), padded, &p);
            if (e != IDEM_OK)
                return e;
        }
        struct idem_rec rec;
        uint64_t there = padded > IDEM_WAL_GRAIN && padded <= left ? padded : IDEM_WAL_GRAIN;
        stop->how = idem_rec_decode_salted(p, IDEM_FAULT("scan.holes") ? padded : there, &s->salt, at, &rec, &bytes);
        if (stop->how != FORMAT_OK && !(stop->how == FORMAT_UNKNOWN && IDEM_FAULT("scan.unknown")))
            return IDEM_OK;
        stop->how = FORMAT_OK;
        e = deliver(s, f, &rec);
        if (e != IDEM_OK)
            return e;
        at += bytes;
        stop->at = at;
    }
    if (at != end)
        stop->how = FORMAT_LENGTH;
    return IDEM_OK;
}

/* From stop->at on, up to `limit`; *stop says where it ended: at the limit with FORMAT_OK, or where something isn't sound. */
static int scan_batches(struct scan *s, const struct idem_file_rec *f, uint64_t limit, struct stop *stop)
{
    stop->how = FORMAT_OK;
    while (stop->at < limit) {
        const uint8_t *p;
        struct idem_batch_rec b;
        stop->record = false;
        int e = idem_window_get(&s->window, offset_of(f, stop->at), IDEM_WAL_BATCH_BYTES, &p);
        if (e != IDEM_OK)
            return e;
        uint64_t at = stop->batch = stop->at;
        stop->how = idem_batch_decode(p, f->salt, at, space_end(f) - at, &b);
        if (stop->how == FORMAT_OK && b.bytes > limit - at)
            stop->how = FORMAT_LENGTH;
        if (stop->how != FORMAT_OK)
            return IDEM_OK;
        note_batch(s->r, &b);
        if (s->newest_only || at + b.bytes <= s->from) { /* what it holds is asked, or was, by who reads all of it */
            stop->at += b.bytes;
            continue;
        }
        e = scan_records(s, f, &b, stop);
        if (e != IDEM_OK || stop->how != FORMAT_OK)
            return e;
        s->r->batches++;
        s->r->bytes += b.bytes;
    }
    return IDEM_OK;
}

static int unknown_kind(const struct scan *s, const struct idem_file_rec *f, const struct stop *stop)
{
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(f->number, name);
    return idem_fail(IDEM_E_VERSION, "%s/%s: at byte %llu (position %llu) the record %s; use the version that wrote it",
                     s->d->path, name, (unsigned long long)offset_of(f, stop->at), (unsigned long long)stop->at,
                     idem_format_words(FORMAT_UNKNOWN));
}

/* A file that another one follows. */
static int scan_closed(struct scan *s, const struct idem_file_rec *f, uint64_t limit)
{
    struct stop stop = {f->base, f->base, 0, FORMAT_OK, false};
    if (limit <= f->base) /* void as a whole */
        return IDEM_OK;
    int e = scan_batches(s, f, limit, &stop);
    if (e != IDEM_OK || stop.how == FORMAT_OK)
        return e;
    if (stop.how == FORMAT_UNKNOWN)
        return unknown_kind(s, f, &stop);
    return damaged(s, f, &stop, "the next file says that all was on the disk up to position", limit);
}

/* Behind the end: is there a sound batch that says "durable" past it? *nonzero: end of the last grain that was ever written. */
static int look_behind(struct scan *s, const struct idem_file_rec *f, uint64_t from, uint64_t end, uint64_t *durable,
                       uint64_t *nonzero)
{
    uint64_t offset = offset_of(f, from);
    *durable = 0;
    *nonzero = end;
    for (;;) {
        int e = idem_window_nonzero(&s->window, offset, &offset);
        if (e != IDEM_OK || offset >= s->window.size)
            return e;
        const uint8_t *p;
        struct idem_batch_rec b;
        uint64_t position = f->base + (offset - IDEM_WAL_HEADER_BYTES);
        e = idem_window_get(&s->window, offset, IDEM_WAL_BATCH_BYTES, &p);
        if (e != IDEM_OK)
            return e;
        if (position != end && idem_batch_decode(p, f->salt, position, space_end(f) - position, &b) == FORMAT_OK &&
            b.durable > end && b.durable > *durable)
            *durable = b.durable;
        *nonzero = position + IDEM_WAL_GRAIN;
        offset += IDEM_WAL_GRAIN;
    }
}

static void say_cut(const struct scan *s, const struct idem_file_rec *f, const struct stop *stop, uint64_t cut)
{
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(f->number, name);
    idem_say(s->hooks,
             "%s/%s: ends in a torn write at byte %llu (position %llu: the %s %s): the %llu bytes behind were never "
             "known to be on the disk, and are cut",
             s->d->path, name, (unsigned long long)offset_of(f, stop->at), (unsigned long long)stop->at,
             stop->record ? "record" : "batch", idem_format_words(stop->how), (unsigned long long)cut);
}

/* The last one. */
static int scan_open(struct scan *s, const struct idem_file_rec *f)
{
    struct idem_scan_result *r = s->r;
    struct stop stop = {f->base, f->base, 0, FORMAT_OK, false};
    uint64_t durable = 0, nonzero = 0, best = 0;
    int e = IDEM_OK;
    for (unsigned looks = 0; looks < LOOKS; looks++) {
        e = scan_batches(s, f, space_end(f), &stop);
        if (e != IDEM_OK)
            return e;
        r->end_at = stop.at;
        nonzero = stop.at;
        if (stop.how == FORMAT_OK)
            return IDEM_OK;
        if (stop.how == FORMAT_UNKNOWN)
            return unknown_kind(s, f, &stop);
        if (s->newest_only || s->to != 0) /* judged by who reads all of it */
            return IDEM_OK;
        e = look_behind(s, f, stop.at, stop.at, &durable, &nonzero);
        if (e != IDEM_OK)
            return e;
        if (r->proven > durable)
            durable = r->proven;
        if (durable <= stop.at || IDEM_FAULT("scan.cuts"))
            break;
        /* A living writer may have come by between the two looks. What was delivered of the batch is passed over. */
        if (looks + 1 == LOOKS && stop.at == best)
            break;
        if (stop.at > best)
            looks = 0;
        best = stop.at;
        s->from = stop.at > s->from ? stop.at : s->from;
        stop.at = stop.batch;
        idem_window_refresh(&s->window);
    }
    if (durable > stop.at && !IDEM_FAULT("scan.cuts"))
        return damaged(s, f, &stop, "a later write says that all was on the disk up to position", durable);
    if ((stop.how == FORMAT_LENGTH || stop.how == FORMAT_PLACE) && !IDEM_FAULT("scan.cuts"))
        return damaged(s, f, &stop,
                       "its checksum is right: a faulty program wrote it; the log is proven up to position", r->proven);
    if (stop.record && nonzero < stop.owed) /* its header alone came to the disk */
        nonzero = stop.owed;
    if (nonzero > stop.at && !IDEM_FAULT("scan.silent")) {
        r->end = SCAN_TORN;
        r->cut_bytes = nonzero - stop.at;
        say_cut(s, f, &stop, r->cut_bytes);
    }
    return IDEM_OK;
}

static int scan_file(struct scan *s, const struct idem_file_rec *header, const struct idem_file_rec *next)
{
    struct idem_file_rec f;
    int fd, e = idem_log_file_open(s->d, header->number, s->d->id.uuid, false, &f, &fd);
    if (e != IDEM_OK)
        return e;
    bool closed = next != NULL;
    uint64_t limit = closed ? next->prev_end : space_end(&f);
    if (limit > space_end(&f) || IDEM_FAULT("scan.void"))
        limit = space_end(&f);
    idem_window_start(&s->window, f.number, fd, limit > f.base ? offset_of(&f, limit) : IDEM_WAL_HEADER_BYTES,
                      s->newest_only ? IDEM_WINDOW_SKIM : IDEM_WINDOW_BYTES);
    idem_wal_salt(&s->salt, f.salt);
    s->r->newest_expiry_ms = 0;
    e = closed ? scan_closed(s, &f, limit) : scan_open(s, &f);
    idem_window_stop(&s->window);
    if (e == IDEM_OK) {
        s->r->files++;
        s->r->space += f.bytes;
    }
    return e;
}

/* ------------------------------------------------------------------ the files */

static int missing(const struct scan *s, uint64_t number, const char *why, uint64_t other)
{
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(number, name);
    return idem_fail(IDEM_E_LOG_DAMAGED, "%s/%s: missing; %s %llu; put it back, or idem recover --salvage", s->d->path,
                     name, why, (unsigned long long)other);
}

static int contradicts(const struct scan *s, const struct idem_file_rec *f, const char *what)
{
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(f->number, name);
    return idem_fail(
        IDEM_E_LOG_DAMAGED,
        "%s/%s: its header (byte 0, position %llu) %s of the file before; one of the two was replaced: put "
        "the right one back, or idem recover --salvage",
        s->d->path, name, (unsigned long long)f->base, what);
}

/* A living store deletes old files while we look at them. Whether this one was allowed to go is known when all is read. */
static bool vanished(const struct scan *s, uint64_t number)
{
    char name[IDEM_LOG_NAME_BYTES];
    struct stat st;
    idem_log_file_name(number, name);
    return idem_io->stat_at(s->d->fd, name, &st) != 0 && errno == ENOENT && !IDEM_FAULT("scan.vanished");
}

/* Headers of the files that are needed, oldest first. None: s->count is 0. */
static int read_headers(struct scan *s, const uint64_t *numbers, size_t n)
{
    const struct idem_log_id_rec *id = &s->d->id;
    if (n == 0)
        return id->newest == 0 ? IDEM_OK
                               : missing(s, id->newest, "`id` names it as the newest, sequence", id->sequence);
    if (id->sequence == 0 && !IDEM_FAULT("scan.id"))
        return idem_fail(IDEM_E_LOG_DAMAGED,
                         "%s/id: empty, though there are log files; it says whose log it is: put it back, or idem "
                         "recover --salvage",
                         s->d->path);
    if (numbers[n - 1] < id->newest)
        return missing(s, id->newest, "`id` names it as the newest, there are files up to", numbers[n - 1]);
    s->files = calloc(n, sizeof *s->files);
    if (s->files == NULL)
        return idem_fail(IDEM_E_MEMORY, "no memory for the headers of %zu log files", n);
    /* From the newest down: what lies below the oldest that it needs, or below a gap, is not opened. */
    size_t from = n;
    uint64_t needed = 1;
    while (from > 0 && numbers[from - 1] >= needed && (from == n || numbers[from - 1] + 1 == numbers[from])) {
        struct idem_file_rec *f = &s->files[from - 1];
        int fd, e = idem_log_file_open(s->d, numbers[from - 1], id->uuid, false, f, &fd);
        if (e == IDEM_E_LOG_DAMAGED && from == n && from > 1 && IDEM_FAULT("scan.open")) {
            n = --from;
            continue;
        }
        if (e == IDEM_E_LOG_DAMAGED && from < n && vanished(s, numbers[from - 1]))
            break;
        if (e != IDEM_OK)
            return e;
        idem_io->close(fd);
        if (f->oldest > needed)
            needed = f->oldest;
        from--;
    }
    memmove(s->files, s->files + from, (n - from) * sizeof *s->files);
    s->count = n - from;
    s->r->first = s->files[0].number;
    s->r->oldest_needed = needed;
    return IDEM_OK;
}

static int check_chain(struct scan *s)
{
    for (size_t i = 1; i < s->count; i++) {
        const struct idem_file_rec *f = &s->files[i], *before = &s->files[i - 1];
        if (f->prev_number != before->number || f->prev_salt != before->salt)
            return contradicts(s, f, "does not name number and salt");
        if (f->base < before->base || f->prev_end < before->prev_end || f->prev_end > space_end(before))
            return contradicts(s, f, "has positions that do not go with those");
    }
    return IDEM_OK;
}

static void note_headers(struct scan *s, uint64_t *total)
{
    struct idem_scan_result *r = s->r;
    for (size_t i = 0; i < s->count; i++) {
        const struct idem_file_rec *f = &s->files[i];
        uint64_t limit = i + 1 < s->count ? s->files[i + 1].prev_end : space_end(f);
        *total += limit > f->base ? limit - f->base : 0;
        /* A header vouches for times and positions as a batch does. */
        struct idem_batch_rec b = {
            .durable = f->prev_end, .store_ms = f->store_ms, .wall_ms = f->wall_ms, .ceiling_ms = f->ceiling_ms};
        note_batch(r, &b);
    }
    if (s->count > 0)
        r->newest = s->files[s->count - 1];
    r->end_at = r->newest.base;
}

static int scan(struct scan *s)
{
    uint64_t *numbers, total = 0;
    size_t n;
    int e = idem_log_list(s->d, &numbers, &n);
    if (e != IDEM_OK)
        return e;
    e = read_headers(s, numbers, n);
    free(numbers);
    if (e == IDEM_OK && !IDEM_FAULT("scan.chain"))
        e = check_chain(s);
    if (e != IDEM_OK)
        return e;
    note_headers(s, &total);
    idem_pace_begin(&s->pace, s->hooks, total);
    for (size_t i = s->newest_only && s->count > 0 ? s->count - 1 : 0; i < s->count && e == IDEM_OK; i++) {
        e = scan_file(s, &s->files[i], i + 1 < s->count ? &s->files[i + 1] : NULL);
        if (e == IDEM_E_LOG_DAMAGED && i + 1 < s->count && vanished(s, s->files[i].number)) {
            s->r->first = s->files[i + 1].number;
            e = IDEM_OK;
        }
    }
    /* Only now is known what was allowed to go. */
    if (e == IDEM_OK && !s->newest_only && s->r->first > s->r->oldest_needed)
        e = missing(s, s->r->first - 1, "files are still needed from number", s->r->oldest_needed);
    s->pace.done = total;
    return e == IDEM_OK ? idem_pace_tell(&s->pace, true) : e;
}

static int run(struct scan *s)
{
    memset(s->r, 0, sizeof *s->r);
    s->window.fd = -1;
    s->window.d = s->d;
    s->window.pace = &s->pace;
    int e = scan(s);
    int kept = errno;
    idem_window_free(&s->window);
    free(s->files);
    errno = kept;
    return e;
}

int idem_scan(struct idem_log_dir *d, idem_scan_each each, void *ctx, const idem_recovery *hooks,
              struct idem_scan_result *result)
{
    struct scan s = {.d = d, .each = each, .ctx = ctx, .hooks = hooks, .r = result};
    return run(&s);
}

int idem_scan_newest(struct idem_log_dir *d, struct idem_scan_result *result)
{
    struct scan s = {.d = d, .r = result, .newest_only = true};
    return run(&s);
}

int idem_scan_tail(struct idem_log_dir *d, const struct idem_scan_result *result, idem_scan_each each, void *ctx)
{
    struct idem_scan_result again = *result;
    struct scan s = {.d = d, .each = each, .ctx = ctx, .r = &again, .from = result->proven, .to = result->end_at};
    if (result->first == 0 || result->end_at <= result->proven)
        return IDEM_OK;
    s.window.fd = -1;
    s.window.d = d;
    int e = scan_file(&s, &result->newest, NULL);
    if (e == IDEM_OK && again.end_at < result->end_at)
        e = idem_fail(IDEM_E_LOG_DAMAGED, "%s: the newest log file lost its end while it was read", d->path);
    int kept = errno;
    idem_window_free(&s.window);
    errno = kept;
    return e;
}
