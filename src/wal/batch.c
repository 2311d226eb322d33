/*
 * wal/batch.c - one batch: sealing, writing, syncing, acknowledging. Collecting is collect.c's. See leader.h for the invariants, docs/wal.md for
 * the steps.
 *
 * If we die here: before log.durable nothing was acknowledged and no entry names these bytes; after it, what is still in a ring is found on record
 * by its word, or written once more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/point.h"
#include "wal/lead.h"

#define BATCH_BYTES    (UINT64_C(4) << 20)  /* a batch ends when this much is there; one record may be larger */
#define DIRECT_BYTES   (UINT64_C(64) << 10) /* a batch of so much is written past the kernel's cache, where it can be */
#define FILL_LEAST     128u                 /* a gap that a record can fill: 80 bytes, padded */
#define NOTES_AHEAD    16u
#define CEILING_LOW_MS 20000
#define RETAIN_US      2000

/* ------------------------------------------------------------------ before */

static bool seal_word(struct idem_lead *lead, enum idem_log_control i)
{
    struct idem_a64 *at = &lead->log->control[i];
    uint64_t seen = load_acquire(at); /* P12 acquire: what the leader before has done */
    while (seen >> 48 < lead->epoch)
        if (cas_acq_rel(at, &seen, log_epoch_word(lead->epoch, seen))) /* P12 acq_rel: as above */
            return true;
    return seen >> 48 == lead->epoch;
}

/* A word of a later epoch: of who succeeded us, and raised the epoch first. If nobody has, it is damaged, and will not change by trying again. */
static int outdone(const struct idem_lead *lead)
{
    if (load_acquire(&lead->log->control[LOG_EPOCH]) > lead->epoch) /* P12 acquire: who raised it sealed after that */
        return LEAD_OVER;
    return idem_fail(IDEM_E_CORRUPT, "root: a word of the log has an epoch that nobody led: damaged; idem recover "
                                     "makes the store anew from its log");
}

/* Every word that a leader changes carries our epoch before any is read: one that was succeeded changes nothing any more. */
static int seal(struct idem_lead *lead)
{
    struct idem_log *log = lead->log;
    uint32_t n = log->source.lanes(log->source.ctx), room = lead->lane_room;
    if (n > room) {
        uint64_t want = room;
        int e = idem_lead_grow(&lead->lanes, &want, n, sizeof *lead->lanes);
        if (e != IDEM_OK)
            return e;
        memset(lead->lanes + room, 0, (want - room) * sizeof *lead->lanes);
        for (uint64_t i = room; i < want; i++)
            lead->lanes[i].keep = UINT64_MAX;
        lead->lane_room = (uint32_t)want;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct idem_lead_lane *l = &lead->lanes[i];
        log->source.lane(log->source.ctx, i, &l->ring);
        if (!idem_ring_seal(&l->ring, lead->epoch, &l->sealed))
            return outdone(lead);
        uint64_t flushed = l->sealed & RING_COUNT;
        if (l->at < flushed || !lead->collected) { /* another leader came farther, or our last batch failed */
            l->at = flushed;
            l->keep = UINT64_MAX;
        }
        prefetch(&l->ring.cells[l->at & l->ring.mask]);
    }
    lead->lane_count = n;
    lead->collected = false; /* until this batch has come to its end */
    if (!seal_word(lead, LOG_DURABLE) || !seal_word(lead, LOG_ASSIGNED) || !seal_word(lead, LOG_WRITTEN) ||
        !seal_word(lead, LOG_SYNCING) || !seal_word(lead, LOG_FILE))
        return outdone(lead);
    IDEM_POINT("log.sealed");
    return IDEM_OK;
}

static int ours(struct idem_lead *lead)
{
    int e = idem_log_ours(&lead->dir, lead->log->header.uuid, lead->log->header.instance);
    lead->broken |= e != IDEM_OK;
    return e;
}

/* ------------------------------------------------------------------ writing */

static int fail_file(struct idem_lead *lead, const char *what)
{
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(lead->file.number, name);
    return idem_log_fail(&lead->dir, name, what);
}

static uint64_t offset_of(const struct idem_lead *lead, uint64_t position)
{
    return IDEM_WAL_HEADER_BYTES + (position - lead->file.base);
}

/*
 * A large batch ends on a block, so that the next one can be written past the kernel's cache, which costs a third of a write through it. A small one
 * does not: what it would be filled up with costs more than that. Where there is no memory for it, it ends where it ends.
 */
static void fill(struct idem_lead *lead, uint64_t position, uint64_t left)
{
    static const uint8_t zeros[IDEM_WAL_BLOCK_BYTES];
    uint64_t over = offset_of(lead, position + lead->used) % IDEM_WAL_BLOCK_BYTES, gap = IDEM_WAL_BLOCK_BYTES - over;
    struct idem_rec r = {.kind = REC_FILL, .flags = REC_OPTIONAL, .more = zeros};
    if (lead->used < DIRECT_BYTES || over == 0 || gap < FILL_LEAST) /* (a file ends on a block, too) */
        return;
    r.more_bytes = (uint32_t)(gap - IDEM_WAL_FIXED_BYTES);
    lead->limit = left;
    idem_lead_add(lead, &r, NULL);
}

/* Who refuses to write a block past its cache does so each time: then through it, as what is no block. */
static int write_bytes(struct idem_lead *lead, uint64_t offset)
{
    bool direct = lead->used >= DIRECT_BYTES && (offset | lead->used) % IDEM_WAL_BLOCK_BYTES == 0 && !lead->indirect;
    if (direct != lead->direct && idem_io->direct(lead->fd, direct) == 0)
        lead->direct = direct;
    else if (direct != lead->direct)
        lead->indirect = true;
    if (idem_io_write(lead->fd, lead->bytes, lead->used, offset) == 0)
        return 0;
    if (errno != EINVAL || !lead->direct)
        return -1;
    lead->indirect = true;
    if (idem_io->direct(lead->fd, false) != 0)
        return -1;
    lead->direct = false;
    return idem_io_write(lead->fd, lead->bytes, lead->used, offset);
}

static int write_batch(struct idem_lead *lead, uint64_t position, int64_t ceiling_ms)
{
    struct idem_log *log = lead->log;
    struct idem_batch_rec b = {
        .epoch = lead->epoch,
        .position = position,
        .durable = idem_lead_position(lead, LOG_DURABLE),
        .bytes = (uint32_t)lead->used,
        .records = lead->records,
        .ceiling_ms = ceiling_ms,
    };
    log->source.now(log->source.ctx, &b.store_ms, &b.wall_ms);
    idem_lead_sum(lead);
    idem_batch_encode(&b, lead->file.salt, lead->bytes);
    uint64_t end = position + lead->used;
    if (!idem_lead_set(lead, LOG_ASSIGNED, end / IDEM_WAL_GRAIN))
        return LEAD_OVER;
    IDEM_POINT("log.assigned");
    uint64_t expiry = load_relaxed(&log->control[LOG_EXPIRY_MS]); /* relaxed: a leader's own */
    if ((int64_t)expiry < lead->expiry_ms)
        store_relaxed(&log->control[LOG_EXPIRY_MS], (uint64_t)lead->expiry_ms); /* relaxed: as above */
    if (write_bytes(lead, offset_of(lead, position)) != 0)
        return fail_file(lead, "write");
    IDEM_POINT("log.written");
    return idem_lead_set(lead, LOG_WRITTEN, end / IDEM_WAL_GRAIN) ? IDEM_OK : LEAD_OVER;
}

static int sync_file(struct idem_lead *lead)
{
    /* idem_lead_file() has given such a file up, so this one is of a leader beside us, whose host closed the descriptor of his lock. */
    if (idem_lead_value(lead, LOG_SYNCING) == lead->file.number) /* nobody knows what became of that sync */
        return idem_fail(IDEM_E_LOG, "%s: file %llu is given up: a sync of it did not end", lead->log->path,
                         (unsigned long long)lead->file.number);
    if (!IDEM_FAULT("log.unsaid_failure") && !idem_lead_set(lead, LOG_SYNCING, lead->file.number))
        return LEAD_OVER;
    IDEM_POINT("log.syncing");
    idem_lead_progress(lead);
    int64_t began_us = idem_clock_fine_us();
    if (!IDEM_FAULT("log.no_fdatasync") && idem_io->fdatasync(lead->fd) != 0) {
        int e = fail_file(lead, "fdatasync");
        IDEM_POINT("log.sync_failed");
        if (IDEM_FAULT("log.unsaid_failure"))
            idem_lead_set(lead, LOG_SYNCING, lead->file.number);
        idem_lead_count(lead, LOG_SYNC_FAILURES, 1);
        if (IDEM_FAULT("log.same_file"))
            idem_lead_set(lead, LOG_SYNCING, 0);
        return e;
    }
    IDEM_POINT("log.synced");
    uint64_t us = (uint64_t)(idem_clock_fine_us() - began_us);
    unsigned bucket = 0;
    while (bucket + 1 < IDEM_LOG_FSYNC_BUCKETS && us >= UINT64_C(1) << (bucket + 4))
        bucket++;
    idem_lead_count(lead, LOG_FSYNC_US + bucket, 1);
    idem_lead_count(lead, LOG_FSYNC_SUM_US, us);
    idem_lead_count(lead, LOG_SYNCS, 1);
    return IDEM_OK;
}

/* ------------------------------------------------------------------ after */

static void raise_word(struct idem_a64 *at, uint64_t value)
{
    uint64_t seen = load_relaxed(at);                      /* relaxed: the CAS decides */
    while (seen < value && !cas_acq_rel(at, &seen, value)) /* P12 release: what it stands for is durable */
        ;
}

static int acknowledge(struct idem_lead *lead, uint64_t position, int64_t ceiling_ms)
{
    struct idem_log *log = lead->log;
    if (lead->used > 0) {
        if (!idem_lead_set(lead, LOG_DURABLE, (position + lead->used) / IDEM_WAL_GRAIN) ||
            !idem_lead_set(lead, LOG_SYNCING, 0))
            return LEAD_OVER;
        IDEM_POINT("log.durable");
        raise_word(&log->control[LOG_CEILING_MS], (uint64_t)ceiling_ms);
        for (size_t i = 0; i < lead->note_count; i++) {
            if (i + NOTES_AHEAD < lead->note_count)
                log->source.fetch(log->source.ctx, lead->notes[i + NOTES_AHEAD].note[0], FETCH_HEAD);
            log->source.note(log->source.ctx, lead->notes[i].note, position + lead->notes[i].position);
        }
        log->source.leave(log->source.ctx);
        IDEM_POINT("log.noted");
    }
    for (uint32_t i = 0; i < lead->lane_count; i++) {
        struct idem_lead_lane *l = &lead->lanes[i];
        uint64_t to = l->at < l->keep ? l->at : l->keep;
        if (to <= (l->sealed & RING_COUNT))
            continue;
        if (!idem_ring_flushed(&l->ring, l->sealed, to))
            return LEAD_OVER;
        l->sealed = (l->sealed & ~RING_COUNT) | to;
    }
    IDEM_POINT("log.flushed");
    if (lead->walk_ended) {
        raise_word(&log->control[LOG_WALK_DONE], lead->walk_wanted);
        store_relaxed(&log->control[LOG_LIVE_BYTES], lead->walk_live); /* relaxed: a figure */
        lead->retain.walked = lead->walk_cut;
        lead->retain.live_bytes = lead->walk_live;
        lead->walking = false;
        idem_lead_count(lead, LOG_WALKS, 1);
    }
    if (lead->retain.say != 0 && lead->retain.saying) {
        raise_word(&log->control[LOG_RETAINED], lead->retain.say);
        lead->retain.say = 0;
    }
    lead->collected = true;
    if (!lead->full)
        store_relaxed(&log->control[LOG_DRAINED_MS], (uint64_t)lead->collected_ms); /* relaxed: a time */
    idem_lead_count(lead, LOG_RECORDS, lead->records);
    if (lead->used > 0)
        idem_lead_count(lead, LOG_BATCHES, 1);
    lead->stands = true;
    return IDEM_OK;
}

/* A push that saw the old time, while we set it to none, has nobody else to notice it. What did not fit, and what a walk is to find, should have been
   on the disk by now: it goes on at once. */
static void look_again(struct idem_lead *lead)
{
    struct idem_log *log = lead->log;
    const struct idem_a64 *control = log->control;
    bool walks = lead->walking || lead->walk_ended;
    /* relaxed: numbers; who raises one asks for a batch after it */
    bool late =
        lead->full || (walks && load_relaxed(&control[LOG_WALK_WANTED]) > load_relaxed(&control[LOG_WALK_DONE]));
    late = late && !IDEM_FAULT("log.leisurely");
    bool left = late;
    for (uint32_t i = 0; i < lead->lane_count && !left; i++)
        left = idem_ring_head(&lead->lanes[i].ring) !=
               lead->lanes[i].at; /* (nothing is kept back in a batch that is not full) */
    uint32_t lanes = log->source.lanes(log->source.ctx);
    for (uint32_t i = lead->lane_count; i < lanes && !left; i++) { /* used for the first time since we sealed */
        struct idem_ring ring;
        log->source.lane(log->source.ctx, i, &ring);
        left = idem_ring_head(&ring) != 0;
    }
    if (left)
        idem_lead_due(log, idem_log_now_ms(log) + (late ? 0 : log->interval_ms));
}

static void tell_trouble(struct idem_lead *lead, int e)
{
    struct idem_a64 *at = &lead->log->control[LOG_TROUBLE];
    int kept = errno;
    bool poisoned = idem_lead_value(lead, LOG_SYNCING) == idem_lead_value(lead, LOG_FILE);
    uint64_t kind = e == IDEM_OK            ? IDEM_LOG_FINE
                    : e == IDEM_E_LOG_SPACE ? IDEM_LOG_NO_SPACE
                    : lead->broken          ? IDEM_LOG_REMOVED
                    : poisoned              ? IDEM_LOG_POISONED
                                            : IDEM_LOG_FAILED;
    uint64_t word = kind == IDEM_LOG_FINE ? load_relaxed(at) & UINT32_MAX /* relaxed: a figure; the last errno stays */
                                          : kind << 32 | (uint32_t)kept;
    if (load_relaxed(at) != word) /* relaxed: as above */
        store_relaxed(at, word);  /* relaxed: as above */
    errno = kept;
}

static int retain_record(struct idem_lead *lead)
{
    lead->retain.saying = false;
    if (lead->retain.say == 0 || lead->full)
        return IDEM_OK;
    struct idem_rec r = {.kind = REC_RETAIN, .token = lead->retain.say};
    int e = idem_lead_add(lead, &r, NULL);
    lead->retain.saying = e == IDEM_OK;
    return e == 1 ? IDEM_OK : e;
}

static int batch(struct idem_lead *lead)
{
    struct idem_log *log = lead->log;
    lead->collected_ms = idem_log_now_ms(log);
    idem_lead_progress(lead);
    int e = log->source.ready(log->source.ctx);
    if (e == IDEM_OK)
        e = seal(lead);
    if (e == IDEM_OK)
        e = ours(lead);
    if (e == IDEM_OK)
        e = idem_lead_file(lead, IDEM_WAL_BATCH_BYTES);
    if (e == IDEM_OK)
        e = idem_lead_collect_begin(lead);
    lead->used = lead->summed = IDEM_WAL_BATCH_BYTES;
    if (e == IDEM_OK)
        e = idem_lead_room(lead, lead->used);
    if (e != IDEM_OK)
        return e;
    IDEM_POINT("log.ready");
    uint64_t position = idem_lead_position(lead, LOG_WRITTEN);
    uint64_t left = lead->file.bytes - IDEM_WAL_HEADER_BYTES - (position - lead->file.base);
    lead->limit = left < BATCH_BYTES ? left : BATCH_BYTES;
    lead->records = 0;
    lead->note_count = 0;
    lead->expiry_ms = 0;
    lead->walk_ended = false;
    store_relaxed(&log->control[LOG_DUE_MS], 0); /* relaxed: look_again() finds who missed it */
    lead->number = idem_log_collect_begin(log->control);
    e = idem_lead_collect(lead);
    idem_log_collect_end(log->control, lead->number);
    idem_lead_look_for_sleepers(lead);
    if (e == IDEM_OK)
        e = idem_lead_walk(lead);
    if (e == IDEM_OK)
        e = retain_record(lead);
    if (e != IDEM_OK)
        return e;
    /* relaxed: it only grows */
    int64_t ceiling_ms = (int64_t)load_relaxed(&log->control[LOG_CEILING_MS]), low_ms = ceiling_ms - CEILING_LOW_MS;
    if (ceiling_ms < lead->collected_ms + IDEM_LOG_AHEAD_MS)
        ceiling_ms = lead->collected_ms + IDEM_LOG_AHEAD_MS;
    if (lead->records == 0 && lead->collected_ms < low_ms)
        lead->used = 0;      /* nothing to write; references that needed no record leave their rings */
    if (lead->used > left) { /* one record that is larger than what is left: it begins a file of its own */
        lead->walking = false;
        lead->full = true; /* none of it was written, though its lane looks so: look_again() wants the next batch */
        e = idem_lead_new_file(lead, lead->used);
        return e == IDEM_OK ? 1 : e;
    }
    if (lead->used > 0) {
        fill(lead, position, left);
        if (IDEM_FAULT("log.ack_early"))
            acknowledge(lead, position, ceiling_ms);
        e = write_batch(lead, position, ceiling_ms);
        if (e == IDEM_OK)
            e = sync_file(lead);
        if (e == IDEM_OK)
            e = ours(lead);
        if (e != IDEM_OK)
            return e;
    }
    e = acknowledge(lead, position, ceiling_ms);
    if (e == IDEM_OK && (lead->full || lead->walking))
        e = 1;
    return e;
}

/* Old files. What it can't do now is done later: the batch stands, the trouble is told. Its next step wants another batch soon. */
static void retain(struct idem_lead *lead)
{
    int kept = errno, e = idem_retain_step(lead, &lead->retain, RETAIN_US);
    if (e < 0)
        tell_trouble(lead, e);
    else if (e == 1)
        idem_lead_due(lead->log, idem_log_now_ms(lead->log));
    errno = kept;
}

int idem_log_batch(struct idem_lead *lead)
{
    lead->stands = false;
    int e = batch(lead);
    int kept = errno;
    idem_lead_progress(lead);
    if (e < 0 || e == LEAD_OVER) {
        lead->walking = false; /* what its slices found may not be on the disk */
        idem_lead_due(lead->log, idem_log_now_ms(lead->log));
    } else {
        look_again(lead);
    }
    errno = kept;
    if (e == LEAD_OVER)
        return 1;
    tell_trouble(lead, e < 0 ? e : IDEM_OK);
    if (e >= 0)
        retain(lead);
    return e;
}
