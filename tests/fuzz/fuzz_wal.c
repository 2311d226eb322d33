/*
 * tests/fuzz/fuzz_wal.c - a log that was written by a program of bytes, and damaged as they say, is read, walked, recovered, used.
 *
 * The input: a byte of settings, then steps, each a byte and what it takes (step()). Damage comes last, with the checksums as they were or made right
 * again: what a faulty writer leaves. A walk ends, in order, with bytes that are there. What is refused is refused in words. A store that comes back
 * is sound, works, and the log it leaves brings back the same once more.
 */
#include "fuzz/fuzz.h"

#include <sys/stat.h>

#include "support/hostile.h"
#include "unit/wal_log.h"

#define STEPS_MOST  64u
#define EDITS_MOST  8u
#define FILES_MOST  6u
#define KEYS        6u
#define RECORD_MOST 6000u

struct edit {
    unsigned file, how;
    uint64_t at, what;
};

struct fuzz_log {
    struct hand_log l;
    struct edit edits[EDITS_MOST];
    unsigned edits_n, files;
    int64_t expiry_ms; /* newest in the file that is being written */
    bool repaired;     /* checksums are right after all */
    bool retains;      /* somebody said that old files may go, which nobody made sure of */
};

static const char *const names[KEYS] = {"a", "key 2", "key 3", "another", "a key that is longer than all others", "z"};
static uint8_t filler[4096];

void fuzz_begin(void)
{
    for (unsigned i = 0; i < sizeof filler; i++)
        filler[i] = (uint8_t)('a' + i % 26);
}

/* ------------------------------------------------------------------ writing it */

static int64_t some_time(struct fuzz_bytes *b, int64_t now_ms)
{
    switch (fuzz_byte(b) % 8) {
    case 0:
        return 0;
    case 1:
        return now_ms - 1000;
    case 2:
        return now_ms + 1000;
    case 3:
        return IDEM_WAL_TIME_MAX;
    case 4:
        return (int64_t)fuzz_take(b, 6);
    default:
        return now_ms + 86400000;
    }
}

static void flush(struct fuzz_log *f, bool synced)
{
    struct hand_log *l = &f->l;
    uint64_t offset = IDEM_WAL_HEADER_BYTES + (l->at - l->f.base);
    if (l->used > 0 && offset + IDEM_WAL_BATCH_BYTES + l->used <= l->f.bytes)
        hand_flush(l, synced);
    l->used = 0;
    l->records = 0;
}

static void record(struct fuzz_log *f, struct fuzz_bytes *b)
{
    static const uint8_t kinds[] = {
        REC_CLAIM, REC_CLAIM, REC_RESPONSE, REC_RESPONSE, REC_TOMBSTONE, REC_FORGOTTEN, REC_RETAIN, REC_EVENT, 5};
    struct hand_log *l = &f->l;
    struct idem_rec r;
    memset(&r, 0, sizeof r);
    r.kind = kinds[fuzz_byte(b) % sizeof kinds];
    unsigned state = fuzz_byte(b), key = fuzz_byte(b) % KEYS, size = fuzz_byte(b);
    r.state = r.kind == REC_CLAIM       ? (uint8_t)(state % 8)
              : r.kind == REC_FORGOTTEN ? REC_GONE
              : r.kind == REC_RETAIN    ? 0
                                        : REC_COMPLETED;
    r.flags = (uint16_t)(fuzz_byte(b) | (r.kind == 5 ? REC_OPTIONAL : 0));
    r.token = ((uint64_t)LOG_T0 << 16) + fuzz_byte(b) % 16;
    if (r.kind == REC_RETAIN) {
        r.token = size % 8;
        f->retains = true;
    }
    r.fingerprint = fuzz_byte(b) % 4;
    r.expiry_ms = some_time(b, l->now_ms);
    f->expiry_ms = r.expiry_ms > f->expiry_ms ? r.expiry_ms : f->expiry_ms;
    r.extra = (uint16_t)fuzz_byte(b);
    r.at_ms = l->now_ms;
    r.attempt = (uint16_t)(state / 8);
    r.lease_end_ms = some_time(b, l->now_ms);
    r.lost_token = state > 128 ? r.token - 1 : 0;
    if (r.kind != REC_RETAIN) {
        r.key = (const uint8_t *)names[key];
        r.key_bytes = (uint16_t)strlen(names[key]);
    }
    r.mark = r.meta = r.body = r.more = filler;
    r.mark_bytes = r.kind == REC_CLAIM ? size * 2 : 0;
    r.meta_bytes = r.kind == REC_RESPONSE ? size % 16 : size;
    r.body_bytes = (uint64_t)size * 16;
    r.more_bytes = r.kind == REC_CLAIM || r.kind == REC_RESPONSE ? 0 : size;
    uint64_t n = idem_rec_bytes(&r);
    if (n > 0 && n <= RECORD_MOST && l->used + n < LOG_FILE_BYTES)
        hand_add(l, r);
}

static void new_file(struct fuzz_log *f, struct fuzz_bytes *b)
{
    struct hand_log *l = &f->l;
    unsigned how = fuzz_byte(b);
    if (f->files == FILES_MOST)
        return;
    flush(f, true);
    switch (how % 8) { /* a header that says something else from here on */
    case 1:
        l->f.keys = fuzz_take(b, 5);
        break;
    case 2:
        l->f.response_bytes = (uint32_t)fuzz_take(b, 4);
        break;
    case 3:
        l->f.processes = (uint32_t)fuzz_take(b, 2);
        l->f.lanes = (uint32_t)fuzz_take(b, 2);
        break;
    case 4:
        l->f.oldest = fuzz_byte(b) % 8;
        f->retains = true;
        break;
    case 5:
        l->now_ms = some_time(b, l->now_ms);
        break;
    default:
        break;
    }
    l->f.prev_expiry_ms = f->expiry_ms;
    f->expiry_ms = 0;
    hand_file(l, (how & 8) == 0);
    f->files++;
}

static void note_edit(struct fuzz_log *f, struct fuzz_bytes *b)
{
    if (f->edits_n == EDITS_MOST)
        return;
    struct edit *e = &f->edits[f->edits_n++];
    e->file = fuzz_byte(b);
    e->how = fuzz_byte(b);
    e->at = fuzz_take(b, 2);
    e->what = fuzz_take(b, 1 + e->how / 16 % 8);
}

static void step(struct fuzz_log *f, struct fuzz_bytes *b)
{
    unsigned s = fuzz_byte(b);
    switch (s % 8) {
    case 0:
    case 1:
    case 2:
        record(f, b);
        break;
    case 3:
    case 4:
        flush(f, (s & 8) == 0);
        break;
    case 5:
        new_file(f, b);
        break;
    case 6:
        f->l.now_ms += (int64_t)fuzz_take(b, 3);
        break;
    default:
        note_edit(f, b);
    }
}

/* ------------------------------------------------------------------ damaging it */

static void put(uint8_t *at, uint64_t sum)
{
    memcpy(at, &sum, sizeof sum);
}

static uint64_t get(const uint8_t *at, unsigned bytes)
{
    uint64_t v = 0;
    memcpy(&v, at, bytes);
    return v;
}

/* Makes all checksums right that can be found by the lengths as they are. */
static void repair(uint8_t *image, uint64_t n)
{
    uint64_t salt = get(image + 72, 8), at = IDEM_WAL_HEADER_BYTES;
    put(image + IDEM_WAL_HEADER_BYTES - 8, XXH3_64bits(image, IDEM_WAL_HEADER_BYTES - 8));
    while (at + IDEM_WAL_BATCH_BYTES <= n && memcmp(image + at + 8, "IDBT", 4) == 0) {
        uint64_t batch = get(image + at + 32, 4), end = batch > n - at ? n : at + batch;
        put(image + at, XXH3_64bits_withSeed(image + at + 8, IDEM_WAL_BATCH_BYTES - 8, salt));
        for (at += IDEM_WAL_BATCH_BYTES; at + IDEM_WAL_GRAIN <= end;) {
            uint64_t padded = idem_wal_padded(get(image + at + 8, 4));
            if (padded < IDEM_WAL_GRAIN || padded > end - at)
                break;
            put(image + at, XXH3_64bits_withSeed(image + at + 8, padded - 8, salt));
            at += padded;
        }
        at = end;
    }
}

static void change(uint8_t *image, const struct edit *e, uint64_t n)
{
    unsigned bytes = 1 + e->how / 16 % 8;
    /* Where something lies: headers, and the first bytes of grains. */
    uint64_t at = e->how & 1 ? e->at % 512 : IDEM_WAL_HEADER_BYTES + e->at % (n - IDEM_WAL_HEADER_BYTES);
    if (at + bytes > n)
        return;
    uint64_t was = get(image + at, bytes), is = e->how & 2 ? was ^ e->what : e->what;
    memcpy(image + at, &is, bytes);
}

static void damage_file(const struct fuzz_log *f, const struct edit *e)
{
    static uint8_t image[LOG_FILE_BYTES];
    char name[IDEM_LOG_NAME_BYTES], path[300];
    bool id = e->file % 8 == 7;
    idem_log_file_name(e->file % 8, name);
    snprintf(path, sizeof path, "%s/%s", f->l.path, id ? "id" : name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = pread(fd, image, sizeof image, 0);
    if ((e->how & 12) == 12) { /* its length, or its being there */
        CHECK(e->at == 0 ? unlink(path) == 0 : ftruncate(fd, (off_t)(e->at % (2 * LOG_FILE_BYTES))) == 0);
    } else if (id && n == 2 * IDEM_WAL_SECTOR_BYTES) {
        uint64_t at = e->at % (2 * IDEM_WAL_SECTOR_BYTES);
        image[at] ^= (uint8_t)e->what;
        for (unsigned s = 0; s < 2 && f->repaired; s++)
            put(image + s * IDEM_WAL_SECTOR_BYTES + 504, XXH3_64bits(image + s * IDEM_WAL_SECTOR_BYTES, 504));
        CHECK_IS(pwrite(fd, image, (size_t)n, 0), n);
    } else if (n > (ssize_t)IDEM_WAL_HEADER_BYTES) {
        change(image, e, (uint64_t)n);
        if (f->repaired)
            repair(image, (uint64_t)n);
        CHECK_IS(pwrite(fd, image, (size_t)n, 0), n);
    }
    close(fd);
}

static void make_log(struct fuzz_log *f, struct fuzz_bytes *b, const char *place)
{
    hand_open(&f->l, place);
    f->l.f.keys = 16;
    f->l.f.response_bytes = 64;
    hand_file(&f->l, true);
    f->files = 1;
    for (unsigned i = 0; i < STEPS_MOST && b->left > 0; i++)
        step(f, b);
    flush(f, true);
    hand_close(&f->l);
    for (unsigned i = 0; i < f->edits_n; i++)
        damage_file(f, &f->edits[i]);
}

/* ------------------------------------------------------------------ reading it */

struct walked {
    uint64_t position, file, records;
};

static int look(const idem_log_record *r, void *ctx)
{
    struct walked *w = ctx;
    CHECK(r->file > w->file || (r->file == w->file && r->position > w->position));
    *w = (struct walked){r->position, r->file, w->records + 1};
    fuzz_touch(r->key.scope, r->key.scope_bytes);
    fuzz_touch(r->key.key, r->key.key_bytes);
    fuzz_touch(r->meta, r->meta_bytes);
    fuzz_touch(r->mark, r->mark_bytes);
    fuzz_touch(r->body, r->body_bytes);
    return 0;
}

static void hear(void *ctx, const char *text)
{
    (void)ctx;
    fuzz_touch(text, strlen(text));
}

static void in_words(int e)
{
    CHECK(e < 0 && e >= IDEM_E_LOG_FOREIGN);
    CHECK(idem_error_detail()[0] != '\0');
}

static int recover(const struct fuzz_log *f, const char *dir, uint32_t flags)
{
    idem_recovery r = IDEM_RECOVERY_INIT;
    r.dir = dir;
    r.wal_dir = f->l.path;
    r.flags = flags;
    r.now_wall_ms = LOG_T0 + 60000;
    r.sentence = hear;
    int e = idem_recover(&r);
    if (e != IDEM_OK)
        in_words(e);
    return e;
}

/* What each key says, and whether the store is sound. */
static void ask_all(const char *dir, int said[KEYS])
{
    support_verify(dir); /* alone: the log may say that there is one process slot */
    idem_store *s = support_attach(dir);
    for (unsigned i = 0; i < KEYS; i++) {
        idem_key key = support_key(names[i]);
        idem_reply reply = IDEM_REPLY_INIT;
        said[i] = idem_lookup(s, &key, &reply);
        CHECK(hostile_legal(said[i]));
        fuzz_touch(reply.body, reply.body_bytes);
        idem_reply_free(&reply);
    }
    idem_close(s);
}

/* It works: a key that the log does not know, and one that it may know. */
static void use(const char *dir)
{
    idem_store *s = support_open_with(dir, IDEM_OPEN_NO_FLUSHER);
    idem_claim c;
    int e = support_begin(s, "new", &c);
    if (e == IDEM_CLAIMED) {
        e = support_complete(s, &c, 200, "yes");
        CHECK(e == IDEM_OK || e == IDEM_TOMBSTONE || e == IDEM_E_LOG_SPACE);
    } else {
        CHECK(e == IDEM_E_FULL || e == IDEM_E_LOG_SPACE || e == IDEM_E_INVALID);
    }
    CHECK(hostile_legal(support_begin(s, names[0], &c)));
    CHECK(idem_maintain(s, 200) >= 0);
    idem_close(s);
    support_verify(dir);
}

void fuzz_one(const uint8_t *bytes, size_t n)
{
    static struct fuzz_log f;
    struct fuzz_bytes b = {bytes, n};
    unsigned settings = fuzz_byte(&b);
    char place[160], dir[180];
    snprintf(place, sizeof place, "%s/p", support_base());
    snprintf(dir, sizeof dir, "%s/s", place);
    CHECK_IS(mkdir(place, 0700), 0);
    memset(&f, 0, sizeof f);
    f.repaired = (settings & 1) != 0;
    make_log(&f, &b, place);
    struct walked w = {0, 0, 0};
    int e = idem_log_walk(f.l.path, look, &w);
    if (e != IDEM_OK)
        in_words(e);
    recover(&f, dir, IDEM_RECOVER_CHECK_ONLY);
    if (recover(&f, dir, settings & 2 ? IDEM_RECOVER_SALVAGE : 0) == IDEM_OK) {
        int before[KEYS], after[KEYS];
        ask_all(dir, before);
        support_remove(dir);
        CHECK_IS(recover(&f, dir, 0), IDEM_OK);
        ask_all(dir, after);
        for (unsigned i = 0; i < KEYS && !f.retains && f.edits_n == 0; i++)
            CHECK_IS(after[i], before[i]);
        use(dir);
    }
    support_remove(place);
}
