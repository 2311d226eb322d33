/* wal/format.c - see format.h. */
#include "wal/format.h"

#include <endian.h>
#include <string.h>

#include "base/bytes.h"

static const uint8_t file_magic[8] = {'i', 'd', 'e', 'm', 'w', 'a', 'l', '1'};
static const uint8_t id_magic[8] = {'i', 'd', 'e', 'm', 'l', 'o', 'g', '1'};
#define BATCH_MAGIC UINT32_C(0x54424449) /* "IDBT" */
#define FILE_SUM_AT 4088u
#define ID_SUM_AT   504u
#define LOW48       ((UINT64_C(1) << 48) - 1)
#define KEY_KINDS   16u
#define PAYLOAD_MAX (UINT32_C(1) << 29)

static void put(uint8_t *at, uint64_t v, unsigned bytes)
{
    v = htole64(v);
    memcpy(at, &v, bytes);
}

static uint64_t get(const uint8_t *at, unsigned bytes)
{
    uint64_t v = 0;
    memcpy(&v, at, bytes);
    return le64toh(v);
}

static bool all_zero(const uint8_t *at, uint64_t n)
{
    uint64_t any = 0;
    for (; n >= 8; n -= 8, at += 8)
        any |= get(at, 8);
    for (; n > 0; n--)
        any |= *at++;
    return any == 0;
}

const char *idem_format_words(enum idem_format f)
{
    switch (f) {
    case FORMAT_OK:
        return "is sound";
    case FORMAT_ZERO:
        return "was never written (zeros)";
    case FORMAT_MAGIC:
        return "is something else (wrong magic)";
    case FORMAT_CHECKSUM:
        return "is torn or damaged (wrong checksum)";
    case FORMAT_PLACE:
        return "belongs to another position";
    case FORMAT_LENGTH:
        return "has lengths that contradict each other, or a time that no clock shows";
    case FORMAT_UNKNOWN:
        return "is of a version or kind that this library does not know";
    }
    return "is not known";
}

/* Times are added and subtracted. */
static bool is_time(int64_t ms)
{
    return ms >= 0 && ms <= IDEM_WAL_TIME_MAX;
}

/* ------------------------------------------------------------------ file header */

void idem_file_encode(const struct idem_file_rec *f, uint8_t out[IDEM_WAL_HEADER_BYTES])
{
    memset(out, 0, IDEM_WAL_HEADER_BYTES);
    memcpy(out, file_magic, 8);
    put(out + 8, f->major, 4);
    put(out + 12, f->minor, 4);
    put(out + 16, f->features_required, 8);
    put(out + 24, f->features_optional, 8);
    memcpy(out + 32, f->uuid, 16);
    memcpy(out + 48, f->instance, 16);
    put(out + 64, f->number, 8);
    put(out + 72, f->salt, 8);
    put(out + 80, f->base, 8);
    put(out + 88, f->bytes, 8);
    put(out + 96, f->prev_number, 8);
    put(out + 104, f->prev_salt, 8);
    put(out + 112, f->prev_end, 8);
    put(out + 120, f->oldest, 8);
    put(out + 128, f->epoch, 4);
    put(out + 136, (uint64_t)f->store_ms, 8);
    put(out + 144, (uint64_t)f->wall_ms, 8);
    put(out + 152, (uint64_t)f->ceiling_ms, 8);
    put(out + 160, (uint64_t)f->prev_expiry_ms, 8);
    put(out + 168, (uint64_t)f->ttl_ms, 8);
    put(out + 176, (uint64_t)f->lease_ms, 8);
    put(out + 184, f->keys, 8);
    put(out + 192, f->response_bytes, 4);
    put(out + 196, f->when_full, 4);
    put(out + 200, f->processes, 4);
    put(out + 204, f->lanes, 4);
    put(out + 208, (uint64_t)f->group, 8);
    out[216] = f->settings.durability_claim;
    out[217] = f->settings.durability_complete;
    put(out + 220, f->settings.flush_interval_ms, 4);
    put(out + 224, f->settings.log_wait_ms, 4);
    put(out + 228, f->settings.ring_refs, 4);
    put(out + 232, f->settings.file_bytes, 8);
    memcpy(out + 256, f->secret, IDEM_SECRET_BYTES);
    put(out + FILE_SUM_AT, XXH3_64bits(out, FILE_SUM_AT), 8);
}

enum idem_format idem_file_decode(const uint8_t in[IDEM_WAL_HEADER_BYTES], struct idem_file_rec *f)
{
    if (memcmp(in, file_magic, 8) != 0)
        return all_zero(in, IDEM_WAL_HEADER_BYTES) ? FORMAT_ZERO : FORMAT_MAGIC;
    /* The version comes first: a later major may have moved everything but these words. */
    f->major = (uint32_t)get(in + 8, 4);
    f->minor = (uint32_t)get(in + 12, 4);
    bool sound = get(in + FILE_SUM_AT, 8) == XXH3_64bits(in, FILE_SUM_AT);
    if (!sound)
        return FORMAT_CHECKSUM;
    f->features_required = get(in + 16, 8);
    f->features_optional = get(in + 24, 8);
    if (f->major != IDEM_WAL_MAJOR || f->features_required != 0)
        return FORMAT_UNKNOWN;
    memcpy(f->uuid, in + 32, 16);
    memcpy(f->instance, in + 48, 16);
    f->number = get(in + 64, 8);
    f->salt = get(in + 72, 8);
    f->base = get(in + 80, 8);
    f->bytes = get(in + 88, 8);
    f->prev_number = get(in + 96, 8);
    f->prev_salt = get(in + 104, 8);
    f->prev_end = get(in + 112, 8);
    f->oldest = get(in + 120, 8);
    f->epoch = (uint32_t)get(in + 128, 4);
    f->store_ms = (int64_t)get(in + 136, 8);
    f->wall_ms = (int64_t)get(in + 144, 8);
    f->ceiling_ms = (int64_t)get(in + 152, 8);
    f->prev_expiry_ms = (int64_t)get(in + 160, 8);
    f->ttl_ms = (int64_t)get(in + 168, 8);
    f->lease_ms = (int64_t)get(in + 176, 8);
    f->keys = get(in + 184, 8);
    f->response_bytes = (uint32_t)get(in + 192, 4);
    f->when_full = (uint32_t)get(in + 196, 4);
    f->processes = (uint32_t)get(in + 200, 4);
    f->lanes = (uint32_t)get(in + 204, 4);
    f->group = (int64_t)get(in + 208, 8);
    f->settings.durability_claim = in[216];
    f->settings.durability_complete = in[217];
    f->settings.flush_interval_ms = (uint32_t)get(in + 220, 4);
    f->settings.log_wait_ms = (uint32_t)get(in + 224, 4);
    f->settings.ring_refs = (uint32_t)get(in + 228, 4);
    f->settings.file_bytes = get(in + 232, 8);
    memcpy(f->secret, in + 256, IDEM_SECRET_BYTES);
    bool fits = f->number != 0 && f->prev_number < f->number && f->oldest >= 1 && f->oldest <= f->number &&
                f->base % IDEM_WAL_GRAIN == 0 && f->prev_end % IDEM_WAL_GRAIN == 0 && f->prev_end <= f->base &&
                f->bytes % IDEM_WAL_HEADER_BYTES == 0 && f->bytes > IDEM_WAL_HEADER_BYTES &&
                f->bytes < IDEM_WAL_POSITION_MAX && f->base < IDEM_WAL_POSITION_MAX - f->bytes &&
                is_time(f->store_ms) && is_time(f->wall_ms) && is_time(f->ceiling_ms);
    return fits ? FORMAT_OK : FORMAT_LENGTH;
}

/* ------------------------------------------------------------------ id file */

void idem_log_id_encode(const struct idem_log_id_rec *id, uint8_t out[IDEM_WAL_SECTOR_BYTES])
{
    memset(out, 0, IDEM_WAL_SECTOR_BYTES);
    memcpy(out, id_magic, 8);
    put(out + 8, id->major, 4);
    put(out + 12, id->minor, 4);
    put(out + 16, id->sequence, 8);
    memcpy(out + 24, id->uuid, 16);
    memcpy(out + 40, id->instance, 16);
    put(out + 56, id->newest, 8);
    put(out + 64, id->destroyed, 8);
    put(out + ID_SUM_AT, XXH3_64bits(out, ID_SUM_AT), 8);
}

enum idem_format idem_log_id_decode(const uint8_t in[IDEM_WAL_SECTOR_BYTES], struct idem_log_id_rec *id)
{
    if (memcmp(in, id_magic, 8) != 0)
        return all_zero(in, IDEM_WAL_SECTOR_BYTES) ? FORMAT_ZERO : FORMAT_MAGIC;
    if (get(in + ID_SUM_AT, 8) != XXH3_64bits(in, ID_SUM_AT))
        return FORMAT_CHECKSUM;
    id->major = (uint32_t)get(in + 8, 4);
    id->minor = (uint32_t)get(in + 12, 4);
    id->sequence = get(in + 16, 8);
    memcpy(id->uuid, in + 24, 16);
    memcpy(id->instance, in + 40, 16);
    id->newest = get(in + 56, 8);
    id->destroyed = get(in + 64, 8);
    return id->major == IDEM_WAL_MAJOR ? FORMAT_OK : FORMAT_UNKNOWN;
}

/* ------------------------------------------------------------------ batch header */

void idem_batch_encode(const struct idem_batch_rec *b, uint64_t salt, uint8_t out[IDEM_WAL_BATCH_BYTES])
{
    put(out + 8, BATCH_MAGIC, 4);
    put(out + 12, b->epoch, 4);
    put(out + 16, b->position, 8);
    put(out + 24, b->durable, 8);
    put(out + 32, b->bytes, 4);
    put(out + 36, b->records, 4);
    put(out + 40, (uint64_t)b->store_ms, 8);
    put(out + 48, (uint64_t)b->wall_ms, 8);
    put(out + 56, (uint64_t)b->ceiling_ms & LOW48, 8);
    put(out, XXH3_64bits_withSeed(out + 8, IDEM_WAL_BATCH_BYTES - 8, salt), 8);
}

enum idem_format idem_batch_decode(const uint8_t in[IDEM_WAL_BATCH_BYTES], uint64_t salt, uint64_t position,
                                   uint64_t room, struct idem_batch_rec *b)
{
    if (room < IDEM_WAL_BATCH_BYTES)
        return FORMAT_LENGTH;
    if (get(in + 8, 4) != BATCH_MAGIC)
        return all_zero(in, IDEM_WAL_BATCH_BYTES) ? FORMAT_ZERO : FORMAT_MAGIC;
    if (get(in, 8) != XXH3_64bits_withSeed(in + 8, IDEM_WAL_BATCH_BYTES - 8, salt))
        return FORMAT_CHECKSUM;
    b->epoch = (uint32_t)get(in + 12, 4);
    b->position = get(in + 16, 8);
    b->durable = get(in + 24, 8);
    b->bytes = (uint32_t)get(in + 32, 4);
    b->records = (uint32_t)get(in + 36, 4);
    b->store_ms = (int64_t)get(in + 40, 8);
    b->wall_ms = (int64_t)get(in + 48, 8);
    b->ceiling_ms = (int64_t)(get(in + 56, 8) & LOW48);
    if (b->position != position)
        return FORMAT_PLACE;
    bool fits = b->bytes % IDEM_WAL_GRAIN == 0 && b->bytes >= IDEM_WAL_BATCH_BYTES && b->bytes <= room &&
                b->bytes <= IDEM_WAL_BATCH_MAX && b->durable <= position && b->durable % IDEM_WAL_GRAIN == 0 &&
                b->records <= (b->bytes - IDEM_WAL_BATCH_BYTES) / IDEM_WAL_GRAIN && is_time(b->store_ms) &&
                is_time(b->wall_ms);
    return fits ? FORMAT_OK : FORMAT_LENGTH;
}

/* ------------------------------------------------------------------ record */

static uint64_t fixed_bytes(uint8_t kind)
{
    return kind == REC_TOMBSTONE ? IDEM_WAL_TOMBSTONE_BYTES
           : kind == REC_RETAIN  ? IDEM_WAL_GRAIN
                                 : IDEM_WAL_FIXED_BYTES;
}

/* Bytes without padding; 0 if they are out of bounds. */
static uint64_t exact_bytes(const struct idem_rec *r)
{
    uint64_t n = fixed_bytes(r->kind);
    if (r->kind == 0 || r->kind >= REC_KINDS || r->key_bytes > IDEM_WAL_KEY_MAX || r->scope_bytes > r->key_bytes)
        return 0;
    if (r->kind == REC_RETAIN)
        return r->key_bytes == 0 ? n : 0;
    if (r->kind < KEY_KINDS && r->scope_bytes >= r->key_bytes)
        return 0;
    n += r->key_bytes;
    if (r->kind == REC_CLAIM)
        return r->mark_bytes <= IDEM_WAL_KEY_MAX ? n + r->mark_bytes : 0;
    if (r->kind == REC_TOMBSTONE || r->kind == REC_FORGOTTEN)
        return n;
    if (r->more_bytes > PAYLOAD_MAX)
        return 0;
    if (r->kind == REC_RESPONSE) {
        if (r->meta_bytes > PAYLOAD_MAX || r->body_bytes > PAYLOAD_MAX)
            return 0;
        n += r->meta_bytes + r->body_bytes;
    }
    n += r->more_bytes;
    return n <= IDEM_WAL_BATCH_MAX - IDEM_WAL_BATCH_BYTES ? n : 0;
}

uint64_t idem_rec_bytes(const struct idem_rec *r)
{
    return idem_wal_padded(exact_bytes(r));
}

/* What a leader's record is made of lies in its place already, or (a tombstone's key) a few bytes before it. */
static uint8_t *append(uint8_t *to, const uint8_t *from, uint64_t n)
{
    if (n > 0 && to != from)
        memmove(to, from, n);
    return to + n;
}

static void encode_kind(const struct idem_rec *r, uint8_t *out)
{
    put(out + 64, 0, 8);
    put(out + 72, 0, 8);
    switch (r->kind) {
    case REC_CLAIM:
        put(out + 64, (uint64_t)r->lease_end_ms, 8);
        put(out + 72, r->lost_token, 8);
        break;
    case REC_RESPONSE:
        put(out + 64, (uint32_t)r->status, 4);
        put(out + 68, r->body_bytes, 4);
        put(out + 72, r->more_bytes, 4);
        break;
    case REC_TOMBSTONE:
        put(out + 64, (uint32_t)r->status, 4);
        put(out + 72, r->meta_bytes, 8);
        put(out + 80, r->body_bytes, 8);
        put(out + 88, r->digest, 8);
        break;
    case REC_FORGOTTEN:
        break;
    default:
        put(out + 64, r->more_bytes, 4);
        break;
    }
}

/* All but the checksum. Returns the number of bytes. */
uint64_t idem_rec_lay(const struct idem_rec *r, uint8_t *out)
{
    uint64_t exact = exact_bytes(r), padded = idem_wal_padded(exact);
    uint64_t meta_or_mark = r->kind == REC_CLAIM ? r->mark_bytes : r->kind == REC_RESPONSE ? r->meta_bytes : 0;
    if (exact == 0)
        return 0;
    uint8_t *at = out + fixed_bytes(r->kind);
    if (r->kind != REC_RETAIN) {
        at = append(at, r->key, r->key_bytes); /* first: it may lie where the kind's own numbers belong */
        encode_kind(r, out);
    }
    put(out + 8, exact, 4);
    out[12] = r->kind;
    out[13] = r->state;
    put(out + 14, r->flags, 2);
    put(out + 16, r->position, 8);
    put(out + 24, r->token, 8);
    put(out + 32, r->fingerprint, 8);
    put(out + 40, ((uint64_t)r->expiry_ms & LOW48) | (uint64_t)r->extra << 48, 8);
    put(out + 48, ((uint64_t)r->at_ms & LOW48) | (uint64_t)r->attempt << 48, 8);
    put(out + 56, r->key_bytes, 2);
    put(out + 58, r->scope_bytes, 2);
    put(out + 60, meta_or_mark, 4);
    if (r->kind == REC_CLAIM) {
        at = append(at, r->mark, r->mark_bytes);
    } else if (r->kind == REC_RESPONSE) {
        at = append(at, r->meta, r->meta_bytes);
        at = append(at, r->body, r->body_bytes);
        at = append(at, r->more, r->more_bytes);
    } else if (r->kind != REC_TOMBSTONE && r->kind != REC_FORGOTTEN && r->kind != REC_RETAIN) {
        at = append(at, r->more, r->more_bytes);
    }
    memset(at, 0, padded - exact);
    return padded;
}

uint64_t idem_rec_encode(const struct idem_rec *r, uint64_t salt, uint8_t *out)
{
    uint64_t padded = idem_rec_lay(r, out);
    if (padded != 0)
        put(out, XXH3_64bits_withSeed(out + 8, padded - 8, salt), 8);
    return padded;
}

_Static_assert(IDEM_SECRET_BYTES == XXH3_SECRET_DEFAULT_SIZE, "as many as XXH3_generateSecret_fromSeed() fills");

void idem_wal_salt(struct idem_wal_salt *s, uint64_t salt)
{
    s->salt = salt;
    XXH3_generateSecret_fromSeed(s->secret, salt);
}

/* Of `padded` bytes, the sum's own included. */
static uint64_t sum_of(const struct idem_wal_salt *salt, const uint8_t *rec, uint64_t padded)
{
    return XXH3_64bits_withSecretandSeed(rec + 8, padded - 8, salt->secret, sizeof salt->secret, salt->salt);
}

uint64_t idem_rec_sum(const struct idem_wal_salt *salt, uint8_t *out)
{
    uint64_t padded = idem_wal_padded(get(out + 8, 4));
    put(out, sum_of(salt, out, padded), 8);
    return padded;
}

static const uint8_t *take(const uint8_t **at, uint64_t n)
{
    const uint8_t *was = *at;
    *at += n;
    return n > 0 ? was : NULL;
}

static bool known(uint8_t kind)
{
    return kind == REC_CLAIM || kind == REC_RESPONSE || kind == REC_TOMBSTONE || kind == REC_FORGOTTEN ||
           kind == REC_RETAIN || kind == REC_FILL;
}

/* A state that a kind can have. */
static bool state_fits(const struct idem_rec *r)
{
    switch (r->kind) {
    case REC_CLAIM:
        return r->state != REC_NO_STATE && r->state != REC_COMPLETED && r->state < REC_GONE;
    case REC_RESPONSE:
    case REC_TOMBSTONE:
        return r->state == REC_COMPLETED;
    case REC_FORGOTTEN:
        return r->state == REC_GONE;
    default:
        return true;
    }
}

/* Is a record of *padded bytes there, as far as its checksum tells? n: what there is. salted NULL: the salt as it is. */
static enum idem_format whole(const uint8_t *in, uint64_t n, uint64_t salt, const struct idem_wal_salt *salted,
                              uint64_t *exact, uint64_t *padded)
{
    if (n < IDEM_WAL_GRAIN)
        return FORMAT_LENGTH;
    *exact = get(in + 8, 4);
    *padded = idem_wal_padded(*exact);
    if (*exact < IDEM_WAL_GRAIN || *padded > n)
        return all_zero(in, IDEM_WAL_GRAIN) ? FORMAT_ZERO : FORMAT_CHECKSUM;
    uint64_t sum = salted != NULL ? sum_of(salted, in, *padded) : XXH3_64bits_withSeed(in + 8, *padded - 8, salt);
    return get(in, 8) == sum ? FORMAT_OK : FORMAT_CHECKSUM;
}

/* What a record says whose checksum is right. */
static enum idem_format read_fields(const uint8_t *in, uint64_t exact, uint64_t padded, uint64_t position,
                                    struct idem_rec *r, uint64_t *bytes)
{
    zero_small(r, sizeof *r);
    r->kind = in[12];
    r->state = in[13];
    r->flags = (uint16_t)get(in + 14, 2);
    r->position = get(in + 16, 8);
    r->token = get(in + 24, 8);
    r->fingerprint = get(in + 32, 8);
    r->expiry_ms = (int64_t)(get(in + 40, 8) & LOW48);
    r->extra = (uint16_t)get(in + 46, 2);
    r->at_ms = (int64_t)(get(in + 48, 8) & LOW48);
    r->attempt = (uint16_t)get(in + 54, 2);
    r->key_bytes = (uint16_t)get(in + 56, 2);
    r->scope_bytes = (uint16_t)get(in + 58, 2);
    uint32_t meta_or_mark = (uint32_t)get(in + 60, 4);
    if (r->position != position)
        return FORMAT_PLACE;
    uint64_t fixed = fixed_bytes(r->kind);
    if (exact < fixed)
        return FORMAT_LENGTH;
    switch (r->kind) {
    case REC_CLAIM:
        r->lease_end_ms = (int64_t)get(in + 64, 8);
        r->lost_token = get(in + 72, 8);
        r->mark_bytes = meta_or_mark;
        break;
    case REC_RESPONSE:
        r->status = (int32_t)(uint32_t)get(in + 64, 4);
        r->body_bytes = get(in + 68, 4);
        r->more_bytes = (uint32_t)get(in + 72, 4);
        r->meta_bytes = meta_or_mark;
        break;
    case REC_TOMBSTONE:
        r->status = (int32_t)(uint32_t)get(in + 64, 4);
        r->meta_bytes = get(in + 72, 8);
        r->body_bytes = get(in + 80, 8);
        r->digest = get(in + 88, 8);
        break;
    case REC_FORGOTTEN:
    case REC_RETAIN:
        break;
    default:
        r->more_bytes = (uint32_t)get(in + 64, 4);
        break;
    }
    if (exact_bytes(r) != exact || !all_zero(in + exact, padded - exact) || !state_fits(r))
        return FORMAT_LENGTH;
    const uint8_t *at = in + fixed;
    r->key = take(&at, r->key_bytes);
    r->mark = take(&at, r->mark_bytes);
    if (r->kind == REC_RESPONSE) {
        r->meta = take(&at, r->meta_bytes);
        r->body = take(&at, r->body_bytes);
    }
    r->more = take(&at, r->more_bytes);
    *bytes = padded;
    return known(r->kind) || (r->flags & REC_OPTIONAL) ? FORMAT_OK : FORMAT_UNKNOWN;
}

enum idem_format idem_rec_decode(const uint8_t *in, uint64_t n, uint64_t salt, uint64_t position, struct idem_rec *r,
                                 uint64_t *bytes)
{
    uint64_t exact = 0, padded = 0;
    enum idem_format f = whole(in, n, salt, NULL, &exact, &padded);
    return f == FORMAT_OK ? read_fields(in, exact, padded, position, r, bytes) : f;
}

enum idem_format idem_rec_decode_salted(const uint8_t *in, uint64_t n, const struct idem_wal_salt *salt,
                                        uint64_t position, struct idem_rec *r, uint64_t *bytes)
{
    uint64_t exact = 0, padded = 0;
    enum idem_format f = whole(in, n, 0, salt, &exact, &padded);
    return f == FORMAT_OK ? read_fields(in, exact, padded, position, r, bytes) : f;
}

/* ------------------------------------------------------------------ which record holds */

unsigned idem_rec_phase(uint8_t state)
{
    static const uint8_t phase[8] = {
        [REC_IN_PROGRESS] = 1, [REC_DECLARED] = 2,  [REC_RELEASED] = 2, [REC_ABANDONED] = 3,
        [REC_RERUN] = 4,       [REC_COMPLETED] = 5, [REC_GONE] = 6,
    };
    return phase[state & 7];
}

static int compare(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

int idem_rec_order(const struct idem_rec *a, const struct idem_rec *b)
{
    int c = compare(a->token, b->token);
    if (c == 0)
        c = compare(idem_rec_phase(a->state), idem_rec_phase(b->state));
    /* An answer has user flags where a claim has its sequence; two answers of one token are copies of one. */
    if (c == 0 && a->kind == REC_CLAIM && b->kind == REC_CLAIM) {
        c = compare(a->extra, b->extra);
        if (c == 0) /* the sequence stays at its end */
            c = compare((uint64_t)a->lease_end_ms, (uint64_t)b->lease_end_ms);
    }
    return c != 0 ? c : compare(a->position, b->position);
}
