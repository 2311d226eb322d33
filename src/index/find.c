/*
 * index/find.c - looking for a key; helping; reading without a lock.
 *
 * Readers register nowhere: they load the slot word, read the entry, fence, and load the word again. An unchanged word names the same
 * region generation, and a region's address is handed out once in a generation; a reader that slept through 65,535 generations of that
 * region would also have to find the same address in the same slot again.
 */
#include "base/error.h"
#include "base/point.h"
#include "index/home.h"

#define SCAN_TRIES 100000u

bool idem_index_help(struct idem_ctx *ctx, uint64_t home, uint64_t h)
{
    struct idem_view *v = ctx->v;
    if (!header_pending(h) || header_slot(h) >= IDEM_BUCKET_SLOTS)
        return true;
    struct idem_a64 *slot = &v->buckets[bucket_after(v, home, header_distance(h))].slots[header_slot(h)];
    uint64_t w = load_acquire(slot); /* P1 acquire: which state is it in? */
    if (w == 0 || word_state(w) != WORD_TENTATIVE)
        return true;
    if (IDEM_FAULT("help.refused"))
        return false;
    /* In this order: the word is held before it is known to be there, and the header is known to name it after that. */
    idem_hazard_compare(ctx, w);
    bool same = load_seq_cst(slot) == w &&                   /* P4 seq_cst: hazard, then slot; P1 acquire */
                load_acquire(&v->buckets[home].header) == h; /* P2 acquire: it names w itself, not a later tenant */
    if (same) {
        cas_acq_rel(slot, &w, word_with_state(w, WORD_IN_PROGRESS)); /* P1 release: passes on the writer's bytes */
        IDEM_POINT("help.finished");
    }
    store_release(&ctx->lane->hazard_compare, 0); /* P11 release: the CAS is over */
    return same;
}

bool idem_index_unchanged(const struct idem_found *found)
{
    return idem_slot_unchanged(found->slot, found->word);
}

void idem_index_copy_key(const struct idem_entry *e, void *key)
{
    idem_copy_out(key, idem_entry_key(e), e->key_bytes);
}

enum match { OTHER, SAME, AGAIN, DAMAGED };

/* What does the final word w in this slot mean for the key? Counts only because the word is loaded again. */
static enum match match(const struct idem_view *v, const struct idem_index_key *key, struct idem_found *f)
{
    bool sound = idem_entry_load(v, f->word, &f->entry);
    bool same = sound && f->entry.key_bytes == key->key_bytes && f->entry.scope_bytes == key->scope_bytes &&
                idem_shared_equal(idem_entry_key(&f->entry), key->framed, key->key_bytes);
    same |= sound && IDEM_FAULT("key.not_compared");
    if (!idem_index_unchanged(f))
        return AGAIN;
    return !sound ? DAMAGED : same ? SAME : OTHER;
}

bool idem_index_try(const struct idem_view *v, const struct idem_index_key *key, uint64_t place, struct idem_found *f)
{
    f->slot = &v->buckets[place / 8].slots[place % 8];
    f->place = place;
    f->word = load_acquire(f->slot); /* P1 acquire: the entry's bytes */
    if (!word_final(f->word) || word_tag(f->word) != idem_tag_of(key->hash) || match(v, key, f) != SAME)
        return false;
    IDEM_POINT("find.found");
    return true;
}

static int damaged(uint64_t bucket, unsigned slot, uint64_t w)
{
    return idem_fail(IDEM_E_CORRUPT,
                     "generation: bucket %llu slot %u names bytes that are no entry (word %016llx); run idem verify",
                     (unsigned long long)bucket, slot, (unsigned long long)w);
}

int idem_index_find(struct idem_ctx *ctx, const struct idem_index_key *key, struct idem_found *f, struct idem_gap *gap)
{
    struct idem_view *v = ctx->v;
    uint64_t home = idem_home_of(v, key->hash);
    uint64_t tag = (uint64_t)idem_tag_of(key->hash) << WORD_TAG_SHIFT;
    for (unsigned tries = 0; tries < SCAN_TRIES; tries++) {
        uint64_t h = load_acquire(&v->buckets[home].header); /* P2 acquire: the slots it speaks of */
        if (!idem_index_help(ctx, home, h))
            continue;
        struct idem_gap found = {home, h, 0, 0, IDEM_DISTANCE_MAX + 1};
        bool again = false;
        for (unsigned d = 0; d <= header_reach(h) && !again; d++) {
            uint64_t b = bucket_after(v, home, d);
            struct idem_glance g = idem_glance_at(&v->buckets[b], tag | (uint64_t)d << WORD_DISTANCE_SHIFT);
            if (found.free_distance > IDEM_DISTANCE_MAX && g.free != 0) {
                found.free_distance = d;
                found.bucket = b;
                found.slot = (unsigned)__builtin_ctz(g.free);
            }
            for (; g.match != 0 && !again; g.match &= g.match - 1) {
                unsigned s = (unsigned)__builtin_ctz(g.match);
                uint64_t w = load_acquire(&v->buckets[b].slots[s]); /* P1 acquire: the entry's bytes */
                if (w == 0 || (w & WORD_WHOSE) != (tag | (uint64_t)d << WORD_DISTANCE_SHIFT) ||
                    word_state(w) == WORD_TENTATIVE)
                    continue;
                f->slot = &v->buckets[b].slots[s];
                f->place = b * 8 + s;
                f->word = w;
                enum match m = match(v, key, f);
                if (m == SAME) {
                    IDEM_POINT("find.found");
                    return FIND_PRESENT;
                }
                if (m == DAMAGED)
                    return damaged(b, s, w);
                again = m == AGAIN;
            }
        }
        if (again)
            continue;
        if (gap != NULL)
            *gap = found;
        return FIND_ABSENT;
    }
    return idem_fail(IDEM_E_CORRUPT, "generation: bucket %llu did not hold still for %u looks; run idem verify",
                     (unsigned long long)home, SCAN_TRIES);
}

int idem_index_at(struct idem_ctx *ctx, uint64_t place, uint64_t token, uint64_t hash, struct idem_found *f)
{
    struct idem_view *v = ctx->v;
    uint64_t b = place / 8;
    unsigned s = (unsigned)(place % 8);
    if (b >= v->bucket_count || s >= IDEM_BUCKET_SLOTS)
        return FIND_ABSENT;
    f->slot = &v->buckets[b].slots[s];
    f->place = place;
    for (unsigned tries = 0; tries < SCAN_TRIES; tries++) {
        f->word = load_acquire(f->slot); /* P1 acquire: the entry's bytes */
        if (!word_final(f->word) || word_tag(f->word) != idem_tag_of(hash) ||
            bucket_before(v, b, word_distance(f->word)) != idem_home_of(v, hash))
            return FIND_ABSENT;
        /* Tokens are unique for one key only: the hash tells its neighbours apart. An answer does not carry it. */
        bool sound = idem_entry_load(v, f->word, &f->entry);
        uint64_t real_hash = f->entry.hash;
        if (sound && f->entry.kind != ENTRY_CLAIM && f->entry.token == token) {
            uint8_t key[IDEM_KEY_MAX];
            idem_index_copy_key(&f->entry, key);
            real_hash = idem_hash_key(v->fixed.secret, key, f->entry.key_bytes, f->entry.scope_bytes);
        }
        if (!idem_index_unchanged(f))
            continue;
        if (!sound)
            return idem_fail(IDEM_E_CORRUPT,
                             "generation: bucket %llu slot %u names bytes that are no entry; run idem verify",
                             (unsigned long long)b, s);
        bool same = (f->entry.token == token && real_hash == hash) || IDEM_FAULT("fence.ignored");
        return same ? FIND_PRESENT : FIND_ABSENT;
    }
    return FIND_ABSENT;
}

bool idem_index_names(const struct idem_view *v, uint64_t hash, uint64_t w)
{
    const uint64_t whole = ~(WORD_WAITERS | WORD_WHOSE);
    uint64_t home = idem_home_of(v, hash);
    uint64_t h = load_acquire(&v->buckets[home].header); /* P2 acquire: the slots it speaks of */
    for (unsigned d = 0; d <= header_reach(h); d++) {
        struct idem_bucket_shm *b = &v->buckets[bucket_after(v, home, d)];
        for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++)
            if (((load_seq_cst(&b->slots[s]) ^ w) & whole) == 0) /* P4 seq_cst: hazard, then slot; P1 acquire */
                return true;
    }
    return false;
}

bool idem_index_gone(const struct idem_found *f, int64_t now_ms)
{
    unsigned state = word_state(f->word);
    const struct idem_entry *e = &f->entry;
    if (state == WORD_FORGOTTEN)
        return true;
    int64_t expiry_ms = e->expiry_ms;
    if (state == WORD_COMPLETED && e->kind == ENTRY_CLAIM) {
        struct idem_rescue r;
        idem_entry_load_rescue(e, &r);
        expiry_ms = r.expiry_ms;
    }
    if (state == WORD_IN_PROGRESS && e->lease_end_ms > now_ms)
        return false;
    /* The clock is later than the look: who slept in between may have found a record that another one followed, or that was moved. */
    return expiry_ms != ENTRY_TIME_MAX && now_ms >= expiry_ms && idem_index_unchanged(f);
}
