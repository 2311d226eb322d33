/*
 * segment/geometry.c - how large everything is.
 *
 * Owns: sizes. Computed once, at creation; written into the constants of root and generation, and checked from there.
 */
#include "base/bytes.h"
#include "base/error.h"
#include "segment/view.h"

#define HUGE_BYTES           (UINT64_C(2) << 20)
#define ENTRY_OVERHEAD_BYTES 56u /* header of an answer's entry; arena/entry.c asserts it */
#define TYPICAL_KEY_BYTES    40u
/* Claims in flight need two regions, one that is filled and one whose claims are being answered; the last two are the sweep's, and what no claim
   may take (arena/reserve.c). What lanes' chunks have left needs no spare: it is shared when memory is scarce. */
#define SPARE_REGIONS 4u
#define SPARE_SHARE   2048u /* and one of so many: more is in flight in a larger store */
#define FEW_REGIONS   256u  /* in a small store; in one with regions of 256 KiB and more: */
#define MANY_REGIONS  2048u
#define KEYS_MIN      16u

uint64_t idem_rings_off(uint32_t processes, uint32_t lanes)
{
    uint64_t lanes_off = round_up(IDEM_PROCESSES_OFF + (uint64_t)processes * sizeof(struct idem_process_shm), 4096);
    return round_up(lanes_off + (uint64_t)lanes * sizeof(struct idem_lane_shm), 4096);
}

uint64_t idem_root_bytes(uint32_t processes, uint32_t lanes, uint64_t ring_refs)
{
    return round_up(idem_rings_off(processes, lanes) + lanes * ring_refs * sizeof(struct idem_a64), 4096);
}

/* The arena that `keys` answers of `per_key` bytes fill. Small entries lie in chunks, and what is left at a chunk's end is lost; large
   ones lie in a row, and what is left at a region's end is. */
static uint64_t arena_bytes(uint64_t keys, uint64_t per_key, unsigned shift, unsigned chunk_shift)
{
    uint64_t run = UINT64_C(1) << (per_key > UINT64_C(1) << (chunk_shift - 2) ? shift : chunk_shift);
    return (keys / (run / per_key) + 1) * run;
}

/* Regions: small, so that the spare ones cost little; not too many, as they are looked through. Chunks: small in a small store, where
   lanes would take all regions apart; else large, so that what is left at their ends costs little. */
static void shifts(uint64_t keys, uint64_t per_key, unsigned *region, unsigned *chunk)
{
    unsigned shift = 16;
    while (UINT64_C(1) << shift < IDEM_REGION_MAX &&
           (UINT64_C(1) << shift < per_key * 4 ||
            (shift < 20 && keys * per_key >> shift > (shift < 18 ? FEW_REGIONS : MANY_REGIONS))))
        shift++;
    *region = shift;
    *chunk = keys * per_key >> shift > FEW_REGIONS && shift < 20 ? 16 : shift - 4;
}

static void for_keys(uint64_t keys, uint64_t per_key, struct idem_generation_const *g)
{
    unsigned shift, chunk_shift;
    shifts(keys, per_key, &shift, &chunk_shift);
    uint64_t regions = (arena_bytes(keys, per_key, shift, chunk_shift) >> shift) + 1;
    regions += SPARE_REGIONS + regions / SPARE_SHARE;
    if (regions < IDEM_REGIONS_MIN)
        regions = IDEM_REGIONS_MIN;
    g->region_shift = shift;
    g->chunk_shift = chunk_shift;
    g->region_count = regions;
    g->bucket_count = keys * 20 / 77 + 1; /* a mean fill of 3.85 of 7 */
    if (g->bucket_count < IDEM_DISTANCE_MAX + 1)
        g->bucket_count = IDEM_DISTANCE_MAX + 1;
    g->regions_off = IDEM_BUCKETS_OFF + g->bucket_count * sizeof(struct idem_bucket_shm);
    g->chunks_off = g->regions_off + regions * sizeof(struct idem_region_shm);
    g->arena_off = g->chunks_off + (regions << (shift - chunk_shift)) * sizeof(struct idem_chunk_shm);
    /* Huge pages begin where the file's offsets say, not where a region does; a large store ends with a whole one. */
    g->arena_off = round_up(g->arena_off, 4096);
    g->file_bytes = g->arena_off + (regions << shift);
    if (g->file_bytes >> 30 > 0)
        g->file_bytes = round_up(g->file_bytes, HUGE_BYTES);
}

int idem_geometry(const idem_options *o, struct idem_generation_const *g, uint64_t *keys)
{
    uint64_t per_key = round_up(ENTRY_OVERHEAD_BYTES + TYPICAL_KEY_BYTES + o->response_bytes, IDEM_UNIT_BYTES);
    *keys = o->keys;
    if (o->total_bytes != 0) {
        uint64_t root_bytes = idem_root_bytes(o->processes, o->lanes, o->wal_dir != NULL ? o->wal_ring_refs : 0);
        uint64_t low = 0, high = o->total_bytes / per_key + KEYS_MIN; /* low fits (or is 0), high does not */
        while (high - low > 1) {
            uint64_t middle = low + (high - low) / 2;
            for_keys(middle, per_key, g);
            if (root_bytes + g->file_bytes <= o->total_bytes)
                low = middle;
            else
                high = middle;
        }
        if (low < KEYS_MIN) {
            for_keys(KEYS_MIN, per_key, g);
            return idem_fail(
                IDEM_E_INVALID,
                "options.total_bytes: %llu, but the smallest store for %u threads and answers of %u bytes has %llu; "
                "ask for more, or for fewer `lanes` (or wal_ring_refs)",
                (unsigned long long)o->total_bytes, o->lanes, o->response_bytes,
                (unsigned long long)(root_bytes + g->file_bytes));
        }
        *keys = low;
    }
    for_keys(*keys, per_key, g);
    if ((g->region_count << g->region_shift) / IDEM_UNIT_BYTES > (UINT64_C(1) << IDEM_ADDRESS_BITS))
        return idem_fail(IDEM_E_INVALID,
                         "options.keys, response_bytes: more than 128 GiB; use fewer keys or a smaller response");
    return IDEM_OK;
}
