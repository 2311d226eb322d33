/*
 * arena/entry.c - see entry.h.
 * relaxed-in-this-file: entry bytes are ordered by the slot word that names them (P1, P3).
 */
#include "arena/entry.h"

#include "base/point.h"

_Static_assert(ENTRY_RESPONSE_WORDS * 8 == 56, "segment/geometry.c sizes stores by it");

/* Which kinds of entry a slot's state goes with, a bit each. A flipped state must not make an answer a claim. */
#define KIND(k) (1u << (k))
static const uint8_t kinds_of[] = {
    [WORD_TENTATIVE] = KIND(ENTRY_CLAIM),
    [WORD_IN_PROGRESS] = KIND(ENTRY_CLAIM),
    [WORD_COMPLETED] = KIND(ENTRY_CLAIM) | KIND(ENTRY_RESPONSE) | KIND(ENTRY_TOMBSTONE),
    [WORD_ABANDONED] = KIND(ENTRY_CLAIM) | KIND(ENTRY_TRANSIENT),
    [WORD_DECLARED] = KIND(ENTRY_CLAIM),
    [WORD_RELEASED] = KIND(ENTRY_CLAIM),
    [WORD_RERUN] = KIND(ENTRY_CLAIM) | KIND(ENTRY_TRANSIENT),
    [WORD_FORGOTTEN] = KIND(ENTRY_CLAIM) | KIND(ENTRY_RESPONSE) | KIND(ENTRY_TOMBSTONE) | KIND(ENTRY_TRANSIENT),
};
_Static_assert(sizeof kinds_of == 8, "a state has three bits");

bool idem_entry_load(const struct idem_view *v, uint64_t w, struct idem_entry *e)
{
    uint64_t unit = word_unit(w);
    if (unlikely(unit + ENTRY_RESPONSE_WORDS / 2 + 1 > v->arena_units))
        return false;
    struct idem_a64 *at = v->arena + unit * 2;
    uint64_t w0 = load_relaxed(&at[0]), w3 = load_relaxed(&at[3]), w5 = load_relaxed(&at[5]), w6 = load_relaxed(&at[6]);
    e->at = at;
    e->key_bytes = w0 & 0x7ff;
    e->scope_bytes = w0 >> 11 & 0x7ff;
    e->kind = w0 >> 22 & 7;
    e->flags = w0 >> 25 & 0x7f;
    e->meta_bytes = (uint32_t)(w0 >> 32);
    e->token = load_relaxed(&at[1]);
    e->fingerprint = load_relaxed(&at[2]);
    e->expiry_ms = (int64_t)(w3 & ((UINT64_C(1) << 48) - 1));
    e->extra = (uint32_t)(w3 >> 48);
    e->at_ms = (int64_t)(w5 & ((UINT64_C(1) << 48) - 1));
    e->attempt = (uint32_t)(w5 >> 48);
    e->mark_bytes = 0;
    if (e->kind == ENTRY_CLAIM) {
        if (unlikely(unit + ENTRY_CLAIM_WORDS / 2 > v->arena_units))
            return false;
        e->status = 0;
        e->body_bytes = 0;
        e->mark_bytes = e->meta_bytes;
        e->meta_bytes = 0;
        e->hash = w6;
        e->owner = load_relaxed(&at[7]);
        e->lease_end_ms = (int64_t)load_relaxed(&at[8]);
        e->previous = load_relaxed(&at[9]);
        e->lost_token = load_relaxed(&at[10]);
    } else {
        e->status = (int32_t)(uint32_t)w6;
        e->body_bytes = (uint32_t)(w6 >> 32);
        e->hash = e->owner = e->previous = e->lost_token = 0;
        e->lease_end_ms = 0;
        if (e->kind == ENTRY_TRANSIENT) {
            if (unlikely(unit + ENTRY_TRANSIENT_WORDS / 2 + 1 > v->arena_units))
                return false;
            e->lost_token = load_relaxed(&at[7]);
            e->mark_bytes = (uint32_t)load_relaxed(&at[8]);
        }
    }
    uint64_t bytes = idem_entry_bytes(e->kind, e->key_bytes, idem_entry_answer_bytes(e), e->mark_bytes);
    if (IDEM_FAULT("entry.unchecked"))
        return true;
    uint64_t region_bytes = UINT64_C(1) << v->region_shift;
    uint64_t offset = (unit * IDEM_UNIT_BYTES) & (region_bytes - 1);
    return (kinds_of[word_state(w)] >> e->kind & 1) != 0 && e->key_bytes >= 1 && e->key_bytes <= IDEM_KEY_MAX &&
           e->scope_bytes < e->key_bytes && bytes <= region_bytes - offset && e->mark_bytes <= IDEM_MARK_MAX &&
           (e->kind != ENTRY_TOMBSTONE || (e->meta_bytes == 0 && e->body_bytes == 24));
}

void idem_entry_load_rescue(const struct idem_entry *e, struct idem_rescue *r)
{
    uint64_t w12 = load_relaxed(&e->at[12]), w13 = load_relaxed(&e->at[13]), w14 = load_relaxed(&e->at[14]);
    r->expiry_ms = (int64_t)(w12 & ((UINT64_C(1) << 48) - 1));
    r->user_flags = (uint32_t)(w12 >> 48);
    r->status = (int32_t)(uint32_t)w13;
    r->took_ms = (int64_t)(w13 >> 32);
    r->meta_bytes = (uint32_t)w14;
    r->body_bytes = (uint32_t)(w14 >> 32);
    r->digest = load_relaxed(&e->at[15]);
}

void idem_entry_store(struct idem_a64 *at, const struct idem_entry *e, const void *framed, const void *meta,
                      const void *body, const void *mark)
{
    uint32_t meta_or_mark = e->kind == ENTRY_CLAIM ? e->mark_bytes : e->meta_bytes;
    store_relaxed(&at[0], (uint64_t)e->key_bytes | (uint64_t)e->scope_bytes << 11 | (uint64_t)e->kind << 22 |
                              (uint64_t)e->flags << 25 | (uint64_t)meta_or_mark << 32);
    store_relaxed(&at[1], e->token);
    store_relaxed(&at[2], e->fingerprint);
    store_relaxed(&at[3], (uint64_t)e->expiry_ms | (uint64_t)e->extra << 48);
    store_relaxed(&at[4], 0);
    store_relaxed(&at[5], (uint64_t)e->at_ms | (uint64_t)e->attempt << 48);
    if (e->kind == ENTRY_CLAIM) {
        store_relaxed(&at[6], e->hash);
        store_relaxed(&at[7], e->owner);
        store_relaxed(&at[8], (uint64_t)e->lease_end_ms);
        store_relaxed(&at[9], e->previous);
        store_relaxed(&at[10], e->lost_token);
        for (unsigned i = ENTRY_RESCUE_AT; i < ENTRY_CLAIM_WORDS; i++)
            store_relaxed(&at[i], 0);
    } else {
        store_relaxed(&at[6], (uint64_t)(uint32_t)e->status | (uint64_t)e->body_bytes << 32);
        if (e->kind == ENTRY_TRANSIENT) {
            store_relaxed(&at[7], e->lost_token);
            store_relaxed(&at[8], e->mark_bytes);
        }
    }
    struct idem_put put = {at + idem_entry_words(e->kind), 0, 0};
    idem_put_bytes(&put, framed, e->key_bytes);
    idem_put_end(&put);
    if (e->kind != ENTRY_CLAIM) {
        idem_put_bytes(&put, meta, e->meta_bytes);
        idem_put_bytes(&put, body, e->body_bytes);
        idem_put_end(&put);
    }
    idem_put_bytes(&put, mark, e->mark_bytes);
    idem_put_end(&put);
}
