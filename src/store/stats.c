/*
 * store/stats.c - counters, gauges, maintenance.
 *
 * Owns nothing: sums what lanes count and looks at regions. A snapshot, not a consistent cut.
 * relaxed-in-this-file: figures for people.
 */
#include <string.h>

#include "base/cancel.h"
#include "index/bucket.h"
#include "store/handle.h"
#include "wal/sync.h"

static void sum_lanes(const struct idem_view *v, uint64_t sums[IDEM_COUNTERS], uint32_t *used)
{
    memset(sums, 0, IDEM_COUNTERS * sizeof sums[0]);
    for (uint32_t i = 0; i < v->fixed.lanes_max; i++) {
        const struct idem_lane_shm *lane = &v->lanes[i];
        uint64_t owner = load_acquire(&lane->owner); /* P8 acquire: its life is judged below */
        *used += owner != 0 && !idem_process_dead(&v->process, owner);
        for (unsigned c = 0; c < COUNT_END; c++)
            sums[c] += load_relaxed(&lane->counters[c]);
    }
}

static void look_at_log(const struct idem_view *v, idem_log_stats *l)
{
    const struct idem_a64 *c = v->root->log_control;
    int64_t now_ms = idem_view_now_ms(v), due_ms = (int64_t)load_relaxed(&c[LOG_DUE_MS]);
    uint64_t trouble = load_relaxed(&c[LOG_TROUBLE]);
    l->present = 1;
    l->trouble = (uint32_t)(trouble >> 32);
    l->last_errno = (uint32_t)trouble;
    l->epoch = (uint32_t)load_relaxed(&c[LOG_EPOCH]);
    l->durability_claim = v->log.durability_claim;
    l->durability_complete = v->log.durability_complete;
    l->flush_interval_ms = v->log.flush_interval_ms;
    l->log_wait_ms = v->log.log_wait_ms;
    l->file_bytes = v->log.file_bytes;
    l->files = (load_relaxed(&c[LOG_FILE]) & LOG_VALUE_MASK) - load_relaxed(&c[LOG_OLDEST]) + 1;
    l->bytes_on_disk = load_relaxed(&c[LOG_DISK_BYTES]);
    l->written = log_position_of(load_relaxed(&c[LOG_WRITTEN]));
    l->durable = log_position_of(load_relaxed(&c[LOG_DURABLE]));
    for (uint32_t i = 0; i < v->fixed.lanes_max; i++) {
        l->queued += load_relaxed(&v->lanes[i].log_head) - (load_relaxed(&v->lanes[i].log_flushed) & RING_COUNT);
        l->overflows += load_relaxed(&v->lanes[i].log_overflow);
    }
    l->walks = load_relaxed(&c[LOG_WALKS]);
    l->batches = load_relaxed(&c[LOG_BATCHES]);
    l->records = load_relaxed(&c[LOG_RECORDS]);
    l->syncs = load_relaxed(&c[LOG_SYNCS]);
    l->sync_failures = load_relaxed(&c[LOG_SYNC_FAILURES]);
    l->poisoned_files = load_relaxed(&c[LOG_POISONED]);
    l->waits = load_relaxed(&c[LOG_WAITS]);
    l->stalls = load_relaxed(&c[LOG_STALLS]);
    l->live_bytes = load_relaxed(&c[LOG_LIVE_BYTES]);
    if (l->queued > 0 && due_ms != 0 && now_ms > due_ms - (int64_t)l->flush_interval_ms)
        l->oldest_queued_ms = now_ms - due_ms + (int64_t)l->flush_interval_ms;
    if (l->trouble == IDEM_LOG_FINE && l->oldest_queued_ms > (int64_t)l->log_wait_ms)
        l->trouble = IDEM_LOG_STALLED;
    l->fsync_total_us = load_relaxed(&c[LOG_FSYNC_SUM_US]);
    for (unsigned i = 0; i < IDEM_LOG_FSYNC_BUCKETS; i++)
        l->fsync_us[i] = load_relaxed(&c[LOG_FSYNC_US + i]);
}

static void look_at_regions(const struct idem_view *v, idem_stats_data *s)
{
    uint64_t regions[IDEM_CLASSES] = {0}, bytes[IDEM_CLASSES] = {0};
    for (uint32_t i = 0; i < v->region_count; i++) {
        const struct idem_region_shm *r = &v->regions[i];
        uint64_t state = load_relaxed(&r->state), meta = load_relaxed(&r->meta), cursor = load_relaxed(&r->cursor);
        unsigned phase = region_phase(state), klass = region_class_of(meta);
        s->regions_free += phase == REGION_FREE;
        s->regions_open += region_in_use(state);
        s->regions_draining += phase != REGION_FREE && !region_in_use(state);
        if (phase == REGION_FREE || klass >= IDEM_CLASSES)
            continue;
        regions[klass]++;
        bytes[klass] += cursor >> 48 == region_generation(state) ? cursor & LOW48 : 0;
    }
    for (unsigned c = 0; c < IDEM_CLASSES && s->classes < IDEM_STATS_CLASSES; c++)
        if (regions[c] > 0)
            s->by_class[s->classes++] = (idem_class_stats){idem_class_life_ms(c), regions[c], bytes[c]};
}

static uint64_t count_slots(const struct idem_view *v)
{
    uint64_t counted = load_relaxed(&v->generation->slots_used);
    if (counted != 0)
        return counted - 1;
    for (uint64_t b = 0; b < v->bucket_count; b++)
        for (unsigned s = 0; s < IDEM_BUCKET_SLOTS; s++)
            counted += load_relaxed(&v->buckets[b].slots[s]) != 0;
    return counted;
}

int idem_stats(idem_store *store, idem_stats_data *s)
{
    if (s == NULL || s->size != sizeof *s)
        return idem_fail(IDEM_E_INVALID, "stats.size: should be %zu", sizeof *s);
    struct idem_op op;
    int e = idem_enter(store, &op);
    if (e != IDEM_OK)
        return e;
    const struct idem_view *v = op.ctx.v;
    uint64_t sums[IDEM_COUNTERS];
    memset(s, 0, sizeof *s);
    s->size = sizeof *s;
    sum_lanes(v, sums, &s->lanes);
    memcpy(s->store_uuid, v->fixed.uuid, sizeof s->store_uuid);
    s->layout_major = v->fixed.layout_major;
    s->layout_minor = v->fixed.layout_minor;
    s->claimed = sums[COUNT_CLAIMED];
    s->reclaimed = sums[COUNT_RECLAIMED];
    s->replayed = sums[COUNT_REPLAYED];
    s->in_progress = sums[COUNT_IN_PROGRESS];
    s->mismatched = sums[COUNT_MISMATCHED];
    s->unknown = sums[COUNT_UNKNOWN];
    s->waited = sums[COUNT_WAITED];
    s->completed = sums[COUNT_COMPLETED];
    s->tombstones = sums[COUNT_TOMBSTONES];
    s->transient = sums[COUNT_TRANSIENT];
    s->abandoned = sums[COUNT_ABANDONED];
    s->renewed = sums[COUNT_RENEWED];
    s->marked = sums[COUNT_MARKED];
    s->fenced = sums[COUNT_FENCED];
    s->full = sums[COUNT_FULL];
    s->forgotten = sums[COUNT_FORGOTTEN];
    s->evicted = sums[COUNT_EVICTED];
    s->swept_regions = sums[COUNT_SWEPT_REGIONS];
    s->swept_entries = sums[COUNT_SWEPT_ENTRIES];
    s->moved_entries = sums[COUNT_MOVED_ENTRIES];
    s->passes = sums[COUNT_PASSES];
    s->keys_capacity = v->fixed.keys;
    s->buckets = v->bucket_count;
    s->slots = v->bucket_count * IDEM_BUCKET_SLOTS;
    s->slots_used = count_slots(v);
    s->bytes_total = v->fixed.root_bytes + v->generation_bytes;
    int cancel = idem_cancel_defer();
    s->bytes_huge = idem_huge_bytes(v->generation, v->generation_bytes);
    idem_cancel_restore(cancel);
    s->region_bytes = UINT64_C(1) << v->region_shift;
    s->regions = v->region_count;
    s->response_max_bytes = idem_arena_entry_max(v) - ENTRY_RESPONSE_WORDS * 8 - IDEM_KEY_MAX;
    look_at_regions(v, s);
    for (uint32_t i = 0; i < v->fixed.processes_max; i++) {
        uint64_t x = load_acquire(&v->process.table[i].incarnation); /* P7 acquire: before its life is judged */
        s->processes += (x & 1) && !idem_process_dead(&v->process, idem_owner_pack(i, x));
    }
    s->processes_max = v->fixed.processes_max;
    s->lanes_max = v->fixed.lanes_max;
    s->ttl_ms = v->fixed.ttl_ms;
    s->lease_ms = v->fixed.lease_ms;
    s->when_full = v->fixed.when_full;
    s->created_wall_ms = v->fixed.created_ms;
    s->response_bytes = v->fixed.response_bytes;
    if (v->rings != NULL)
        look_at_log(v, &s->log);
    return idem_leave(&op, IDEM_OK);
}

int idem_maintain(idem_store *store, int64_t budget_us)
{
    if (budget_us < 0 || budget_us > 60000000)
        return idem_fail(IDEM_E_INVALID, "budget_us: %lld; 0 to 60000000", (long long)budget_us);
    struct idem_op op;
    int e = idem_enter(store, &op);
    if (e != IDEM_OK)
        return e;
    uint32_t at = (uint32_t)idem_view_now_ms(op.ctx.v);
    idem_process_reap(&op.ctx.v->process, &at, budget_us > 0 ? op.ctx.v->fixed.processes_max : 8);
    bool more = idem_sweep(&op.ctx, budget_us, 0);
    struct idem_view *v = op.ctx.v;
    if (v->wal == NULL)
        return idem_leave(&op, more ? 1 : IDEM_OK);
    idem_view_pin(v);
    e = idem_leave(&op, more ? 1 : IDEM_OK);
    if (e >= 0 && idem_log_tend(v->wal) == 1) /* what the log failed at is told by idem_stats() */
        e = 1;
    idem_view_unpin(v);
    return e;
}
