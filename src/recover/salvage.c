/*
 * recover/salvage.c - see salvage.h.
 *
 * If we die here: nothing was changed, but for files already put aside, which the new file does not need.
 */
#include "recover/salvage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/point.h"
#include "recover/window.h"

struct part {
    uint64_t number;
    uint64_t size;
    bool foreign;
    bool headed; /* f is sound */
    struct idem_file_rec
        f; /* without a header only what could be concluded: salt, and base once something sound was met */
    bool salted, based;
    uint64_t limit; /* void from here on; 0: not known */
};

struct salvage {
    struct idem_log_dir *d;
    idem_scan_each each;
    void *ctx;
    const idem_recovery *hooks;
    struct idem_scan_result *r;
    struct idem_window window;
    struct idem_pace pace;
    struct part *parts;
    size_t count;
    uint64_t damaged, lost;
    uint64_t position_end; /* past all positions that were ever in these files */
    struct idem_salvage_list *list;
};

static uint64_t get64(const uint8_t *p)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static int put_on_list(struct salvage *s, uint64_t number)
{
    struct idem_salvage_list *l = s->list;
    if (l->n > 0 && l->numbers[l->n - 1] == number)
        return IDEM_OK;
    if (l->n == l->room) {
        size_t room = l->room == 0 ? 16 : l->room * 2;
        uint64_t *more = realloc(l->numbers, room * sizeof *more);
        if (more == NULL)
            return idem_fail(IDEM_E_MEMORY, "no memory for a list of damaged files");
        l->numbers = more;
        l->room = room;
    }
    l->numbers[l->n++] = number;
    return IDEM_OK;
}

static int note_damage(struct salvage *s, uint64_t number)
{
    s->damaged++;
    return put_on_list(s, number);
}

static void file_path(const struct salvage *s, uint64_t number, char out[IDEM_LOG_PATH_MAX + IDEM_LOG_NAME_BYTES])
{
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(number, name);
    snprintf(out, IDEM_LOG_PATH_MAX + IDEM_LOG_NAME_BYTES, "%s/%s", s->d->path, name);
}

/* ------------------------------------------------------------------ headers */

static int read_header(struct salvage *s, struct part *p)
{
    char path[IDEM_LOG_PATH_MAX + IDEM_LOG_NAME_BYTES];
    uint8_t bytes[IDEM_WAL_HEADER_BYTES];
    int fd, e = idem_log_file_open_raw(s->d, p->number, &fd, &p->size);
    if (e != IDEM_OK)
        return e;
    memset(bytes, 0, sizeof bytes);
    ssize_t n = idem_io_read(fd, bytes, sizeof bytes, 0);
    idem_io->close(fd);
    enum idem_format how = n < 0 ? FORMAT_CHECKSUM : idem_file_decode(bytes, &p->f);
    file_path(s, p->number, path);
    if (how == FORMAT_UNKNOWN)
        return idem_fail(IDEM_E_VERSION, "%s: a later version's file; use that version", path);
    if (how == FORMAT_OK && s->d->id.sequence != 0 && memcmp(p->f.uuid, s->d->id.uuid, 16) != 0 &&
        !IDEM_FAULT("salvage.foreign")) {
        p->foreign = true;
        idem_say(s->hooks, "%s: a file of another store; put aside", path);
        return note_damage(s, p->number);
    }
    p->headed = p->salted = p->based = how == FORMAT_OK && p->f.number == p->number;
    if (p->headed) {
        if (p->size == p->f.bytes)
            return IDEM_OK;
        idem_say(s->hooks, "%s: %llu bytes, its header says %llu: what was cut off is lost", path,
                 (unsigned long long)p->size, (unsigned long long)p->f.bytes);
        return note_damage(s, p->number);
    }
    idem_say(s->hooks, "%s: its header %s; read with the salt that the next file names", path, idem_format_words(how));
    memset(&p->f, 0, sizeof p->f);
    return note_damage(s, p->number);
}

static int read_parts(struct salvage *s)
{
    uint64_t *numbers;
    size_t n;
    int e = idem_log_list(s->d, &numbers, &n);
    if (e != IDEM_OK)
        return e;
    s->parts = calloc(n + 1, sizeof *s->parts);
    if (s->parts == NULL)
        e = idem_fail(IDEM_E_MEMORY, "no memory for the headers of %zu log files", n);
    for (size_t i = 0; i < n && e == IDEM_OK; i++) {
        s->parts[s->count].number = numbers[i];
        e = read_header(s, &s->parts[s->count]);
        s->count++;
    }
    free(numbers);
    return e;
}

/* What the headers say of each other: salts, ends, and the oldest file that counts. */
static int relate(struct salvage *s, size_t *from)
{
    uint64_t needed = 1;
    const struct part *good = NULL;
    for (size_t i = 0; i < s->count; i++) {
        struct part *p = &s->parts[i], *next = i + 1 < s->count ? &s->parts[i + 1] : NULL;
        if (p->headed) {
            good = p;
            if (p->f.oldest > needed)
                needed = p->f.oldest;
        }
        if (p->foreign || next == NULL || !next->headed || next->f.prev_number != p->number)
            continue;
        if (p->headed && p->f.salt != next->f.prev_salt) {
            char path[IDEM_LOG_PATH_MAX + IDEM_LOG_NAME_BYTES];
            file_path(s, p->number, path);
            idem_say(s->hooks, "%s: not the file that the next one followed; its records are kept all the same", path);
            int e = note_damage(s, p->number);
            if (e != IDEM_OK)
                return e;
            continue;
        }
        p->limit = IDEM_FAULT("salvage.void") ? next->f.base - 1 : next->f.prev_end;
        if (!p->headed) {
            p->f.salt = next->f.prev_salt;
            p->salted = !IDEM_FAULT("salvage.no_salt");
        }
    }
    if (good == NULL)
        return idem_fail(IDEM_E_LOG_DAMAGED, "%s: no file has a readable header; nothing can be salvaged without one",
                         s->d->path);
    s->r->newest = good->f;
    s->r->oldest_needed = needed;
    for (*from = 0; s->parts[*from].number < needed;) /* who needs that one is not older itself: idem_file_decode() */
        ++*from;
    for (size_t i = *from; i < s->count; i++) {
        uint64_t before = i == *from ? needed - 1 : s->parts[i - 1].number;
        if (i > *from && s->parts[i].number != before + 1 && !IDEM_FAULT("salvage.gap")) {
            idem_say(s->hooks, "%s: files %llu to %llu are missing; what they held is lost", s->d->path,
                     (unsigned long long)(before + 1), (unsigned long long)(s->parts[i].number - 1));
            s->damaged++;
            s->lost++;
        }
    }
    if (s->parts[*from].number > needed) {
        idem_say(s->hooks, "%s: files %llu to %llu may be missing", s->d->path, (unsigned long long)needed,
                 (unsigned long long)(s->parts[*from].number - 1));
        s->damaged++;
    }
    if (s->d->id.newest > s->parts[s->count - 1].number) {
        idem_say(s->hooks, "%s: files %llu to %llu are missing; what they held is lost", s->d->path,
                 (unsigned long long)(s->parts[s->count - 1].number + 1), (unsigned long long)s->d->id.newest);
        s->damaged++;
        s->lost++;
    }
    return IDEM_OK;
}

/* ------------------------------------------------------------------ one file, grain by grain */

struct place {
    uint64_t offset;
    uint64_t batch_end;   /* offset where the batch that we are in ends; 0: in none */
    uint64_t owed;        /* records that it still has to have */
    uint64_t gap;         /* offset where what isn't sound began; 0: none */
    uint64_t gap_nonzero; /* end of the last grain in it that is not zero */
};

static int end_gap(struct salvage *s, struct part *p, struct place *at, bool last)
{
    char path[IDEM_LOG_PATH_MAX + IDEM_LOG_NAME_BYTES];
    uint64_t gap = at->gap, to = last ? at->gap_nonzero : at->offset;
    at->gap = 0;
    if (gap == 0)
        return IDEM_OK;
    bool owing = at->batch_end != 0 && gap < at->batch_end;
    bool limited =
        p->limit != 0 && p->based && IDEM_WAL_HEADER_BYTES + (p->limit - p->f.base) > gap && p->limit > p->f.base;
    if (last && limited)
        to = IDEM_WAL_HEADER_BYTES + (p->limit - p->f.base);
    else if (last && owing && to < at->batch_end)
        to = at->batch_end;
    if (to <= gap || IDEM_FAULT("salvage.silent")) /* never written */
        return IDEM_OK;
    file_path(s, p->number, path);
    idem_say(s->hooks, "%s: bytes %llu to %llu%s are lost", path, (unsigned long long)gap, (unsigned long long)to,
             p->based ? "" : " (at unknown positions)");
    s->r->cut_bytes += to - gap;
    s->lost += owing && at->owed > 0 ? at->owed : 1;
    at->owed = 0;
    return note_damage(s, p->number);
}

/* Sound bytes say where they lie. */
static bool conclude_base(struct part *p, uint64_t position, uint64_t offset)
{
    if (p->based)
        return true;
    if (position < offset - IDEM_WAL_HEADER_BYTES || position >= IDEM_WAL_POSITION_MAX)
        return false;
    p->f.base = position - (offset - IDEM_WAL_HEADER_BYTES);
    return p->based = true;
}

/* At at->offset: outcomes 1 something sound (offset moved on), 0 nothing. */
static int one(struct salvage *s, struct part *p, struct place *at)
{
    const uint8_t *b;
    int e = idem_window_get(&s->window, at->offset, IDEM_WAL_GRAIN, &b);
    if (e != IDEM_OK)
        return e;
    uint64_t position = get64(b + 16), left = p->size - at->offset;
    if (p->based && position != p->f.base + (at->offset - IDEM_WAL_HEADER_BYTES))
        return 0;
    struct idem_batch_rec batch;
    if (idem_batch_decode(b, p->f.salt, position, UINT64_MAX, &batch) == FORMAT_OK &&
        conclude_base(p, position, at->offset)) {
        e = end_gap(s, p, at, false);
        if (e != IDEM_OK)
            return e;
        if (batch.durable > s->r->proven)
            s->r->proven = batch.durable;
        int64_t ceiling_ms = batch.ceiling_ms > s->r->last.ceiling_ms ? batch.ceiling_ms : s->r->last.ceiling_ms;
        if (batch.store_ms >= s->r->last.store_ms)
            s->r->last = batch;
        s->r->last.ceiling_ms = ceiling_ms;
        s->r->batches++;
        at->owed = batch.records;
        at->batch_end = at->offset + batch.bytes;
        at->offset += IDEM_WAL_BATCH_BYTES;
        return 1;
    }
    uint64_t exact = (uint64_t)b[8] | (uint64_t)b[9] << 8 | (uint64_t)b[10] << 16 | (uint64_t)b[11] << 24;
    uint64_t padded = idem_wal_padded(exact), bytes = 0;
    if (padded < IDEM_WAL_GRAIN || padded > left)
        return 0;
    e = idem_window_get(&s->window, at->offset, padded, &b);
    if (e != IDEM_OK)
        return e;
    struct idem_rec rec;
    enum idem_format how = idem_rec_decode(b, padded, p->f.salt, position, &rec, &bytes);
    if ((how != FORMAT_OK && how != FORMAT_UNKNOWN) || !conclude_base(p, position, at->offset))
        return 0;
    e = end_gap(s, p, at, false);
    if (e != IDEM_OK)
        return e;
    at->offset += bytes;
    at->owed -= at->owed > 0;
    s->r->records += rec.kind != REC_FILL;
    s->pace.records++;
    if (rec.kind != REC_RETAIN && rec.expiry_ms > s->r->newest_expiry_ms)
        s->r->newest_expiry_ms = rec.expiry_ms;
    if (how == FORMAT_OK && rec.kind != REC_RETAIN && rec.kind != REC_FILL && s->each != NULL) {
        e = s->each(s->ctx, &rec, p->number);
        if (e != IDEM_OK)
            return e;
    }
    return 1;
}

static int read_part(struct salvage *s, struct part *p)
{
    struct place at = {.offset = IDEM_WAL_HEADER_BYTES};
    int fd, e = idem_log_file_open_raw(s->d, p->number, &fd, &p->size);
    if (e != IDEM_OK)
        return e;
    p->size &= ~(uint64_t)(IDEM_WAL_GRAIN - 1);
    idem_window_start(&s->window, p->number, fd, p->size, IDEM_WINDOW_BYTES);
    while (e >= 0 && at.offset + IDEM_WAL_GRAIN <= p->size) {
        if (p->based && p->limit != 0 && p->f.base + (at.offset - IDEM_WAL_HEADER_BYTES) >= p->limit)
            break;
        e = one(s, p, &at);
        if (e == IDEM_E_LOG) { /* can't be read: like damage, but a whole block of it */
            char path[IDEM_LOG_PATH_MAX + IDEM_LOG_NAME_BYTES];
            file_path(s, p->number, path);
            idem_say(s->hooks, "%s: at byte %llu: %s", path, (unsigned long long)at.offset, idem_fail_text());
            if (at.gap == 0)
                at.gap = at.offset;
            at.offset = (at.offset + IDEM_WAL_HEADER_BYTES) & ~(uint64_t)(IDEM_WAL_HEADER_BYTES - 1);
            at.gap_nonzero = at.offset;
            idem_window_refresh(&s->window);
            e = IDEM_OK;
            continue;
        }
        if (e != 0)
            continue;
        if (IDEM_FAULT("salvage.stops"))
            break;
        if (at.gap == 0) {
            at.gap = at.offset;
            at.gap_nonzero = at.offset;
        }
        uint64_t nonzero;
        e = idem_window_nonzero(&s->window, at.offset, &nonzero);
        if (e == IDEM_E_LOG)
            nonzero = at.offset;
        if (e == IDEM_OK && nonzero > at.offset) { /* on over zeros */
            at.offset = nonzero;
            continue;
        }
        at.offset += IDEM_WAL_GRAIN;
        at.gap_nonzero = at.offset;
        e = e == IDEM_E_LOG ? IDEM_OK : e;
    }
    if (e >= 0) {
        uint64_t end = p->f.base + (at.offset - IDEM_WAL_HEADER_BYTES);
        uint64_t space = p->headed ? p->f.base + p->f.bytes - IDEM_WAL_HEADER_BYTES : end;
        end = space > end ? space : end;
        if (p->based && end > s->position_end)
            s->position_end = end;
        if (at.gap == 0 && p->based && p->limit > p->f.base + (at.offset - IDEM_WAL_HEADER_BYTES) &&
            !IDEM_FAULT("salvage.cut"))
            at.gap = at.gap_nonzero = at.offset; /* it ends too early */
        e = end_gap(s, p, &at, true);
    }
    idem_window_stop(&s->window);
    s->r->files++;
    return e;
}

static int salvage(struct salvage *s)
{
    size_t from = 0;
    uint64_t total = 0;
    int e = read_parts(s);
    if (e != IDEM_OK)
        return e;
    if (s->count == 0)
        return s->d->id.newest == 0 ? IDEM_OK
                                    : idem_fail(IDEM_E_LOG_DAMAGED,
                                                "%s: all files are missing; the id says that there "
                                                "were %llu",
                                                s->d->path, (unsigned long long)s->d->id.newest);
    e = relate(s, &from);
    if (e != IDEM_OK)
        return e;
    for (size_t i = from; i < s->count; i++) {
        const struct part *p = &s->parts[i];
        total += p->size;
        if (p->headed && p->f.store_ms >= s->r->last.store_ms) {
            int64_t ceiling_ms = p->f.ceiling_ms > s->r->last.ceiling_ms ? p->f.ceiling_ms : s->r->last.ceiling_ms;
            s->r->last =
                (struct idem_batch_rec){.store_ms = p->f.store_ms, .wall_ms = p->f.wall_ms, .ceiling_ms = ceiling_ms};
        }
    }
    idem_pace_begin(&s->pace, s->hooks, total);
    s->r->first = s->parts[from].number;
    for (size_t i = from; i < s->count && e == IDEM_OK; i++) {
        struct part *p = &s->parts[i];
        if (p->salted) {
            e = read_part(s, p);
        } else if (!p->foreign && !IDEM_FAULT("salvage.silent_header")) {
            idem_say(s->hooks, "%s: file %llu can't be read without its header; what it held is lost", s->d->path,
                     (unsigned long long)p->number);
            s->lost++;
        }
    }
    /* What is written next lies past everything, also past what can't be read. */
    struct idem_file_rec *newest = &s->r->newest;
    uint64_t highest = s->parts[s->count - 1].number;
    newest->number = highest > s->d->id.newest ? highest : s->d->id.newest;
    newest->base = (s->position_end + IDEM_WAL_HEADER_BYTES) & ~(uint64_t)(IDEM_WAL_HEADER_BYTES - 1);
    for (size_t i = from; i < s->count; i++)
        if (!s->parts[i].based)
            newest->base += (s->parts[i].size | (IDEM_WAL_HEADER_BYTES - 1)) + 1;
    s->r->end_at = newest->base;
    return e;
}

int idem_salvage(struct idem_log_dir *d, idem_scan_each each, void *ctx, const idem_recovery *hooks,
                 struct idem_scan_result *result, uint64_t *damaged, uint64_t *lost_records,
                 struct idem_salvage_list *list)
{
    struct salvage s = {.d = d, .each = each, .ctx = ctx, .hooks = hooks, .r = result, .list = list};
    memset(result, 0, sizeof *result);
    s.window.fd = -1;
    s.window.d = d;
    s.window.pace = &s.pace;
    int e = salvage(&s);
    int kept = errno;
    *damaged = s.damaged;
    *lost_records = s.lost;
    idem_window_free(&s.window);
    free(s.parts);
    errno = kept;
    if (e == IDEM_OK && s.damaged > 0)
        idem_say(hooks,
                 "%s: a lost record can be one of forgetting, then its key's answer is back; or an answer, then its "
                 "attempt counts as lost",
                 d->path);
    return e;
}

int idem_salvage_put_aside(struct idem_log_dir *d, const struct idem_salvage_list *list, const idem_recovery *hooks)
{
    int e = IDEM_OK;
    for (size_t i = 0; i < list->n; i++) {
        char from[IDEM_LOG_NAME_BYTES], to[IDEM_LOG_NAME_BYTES + 16];
        idem_log_file_name(list->numbers[i], from);
        snprintf(to, sizeof to, "%s.damaged", from);
        if (idem_io->replace_at(d->fd, from, to) != 0) {
            if (errno != ENOENT)
                e = idem_log_fail(d, from, "rename");
        } else {
            idem_say(hooks, "%s/%s: kept as %s", d->path, from, to);
        }
        IDEM_POINT("recover.put_aside");
    }
    return e;
}
