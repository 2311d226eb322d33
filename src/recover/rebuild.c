/* recover/rebuild.c - see rebuild.h. */
#include "recover/rebuild.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "arena/entry.h"
#include "base/error.h"
#include "base/point.h"
#include "recover/replay.h"
#include "recover/salvage.h"
#include "recover/seal.h"
#include "segment/path.h"
#include "store/handle.h"
#include "wal/ring.h"

#define HOLD_WAIT_MS 10000
#define AGAIN_TRIES  4u
#define FILE_LEAST   (UINT64_C(1) << 20)
#define FILE_MOST    (UINT64_C(1) << 30)
#define FILE_USUAL   (UINT64_C(64) << 20)
#define LARGER_TRIES 4u
#define AWAY_MOST_MS (INT64_C(30) * 86400000)
#define FLUSH_MS     50u
#define LOG_WAIT_MS  5000u
#define RING_REFS    2048u
#define FILES_FEW    6u

struct rebuild {
    const idem_options *given;
    idem_recovery *r;
    char path[IDEM_PATH_MAX];
    int dir_fd;
    bool made; /* the store's directory */
    struct idem_log_dir d;
    struct idem_scan_result s;
    struct idem_rebirth again;
    struct idem_seal_as as;
    idem_options options;
    struct idem_view *v;
    char root_name[IDEM_ROOT_NAME_BYTES];
    struct idem_replay *replay;
    struct idem_sealed sealed;
    struct idem_salvage_list aside;
};

static bool salvaging(const struct rebuild *b)
{
    return (b->r->flags & IDEM_RECOVER_SALVAGE) != 0;
}

static int fill_random(void *at, size_t n)
{
    return getrandom(at, n, 0) == (ssize_t)n ? IDEM_OK : idem_fail_errno("getrandom");
}

static int read_log(struct rebuild *b, idem_scan_each each, void *ctx, const idem_recovery *hooks)
{
    if (!salvaging(b))
        return idem_scan(&b->d, each, ctx, hooks, &b->s);
    b->aside.n = 0;
    return idem_salvage(&b->d, each, ctx, hooks, &b->s, &b->r->damaged, &b->r->lost_records, &b->aside);
}

/* What time it was, whose it is, how far it is proven. */
static int read_newest(struct rebuild *b)
{
    return salvaging(b) ? read_log(b, NULL, NULL, NULL) : idem_scan_newest(&b->d, &b->s);
}

static void report(struct rebuild *b)
{
    idem_recovery *r = b->r;
    r->files = b->s.files;
    r->records = b->s.records;
    r->batches = b->s.batches;
    r->bytes = b->s.bytes;
    r->cut_bytes = b->s.cut_bytes;
    r->newest_wall_ms = b->s.last.wall_ms;
}

static int nothing_there(const struct rebuild *b)
{
    return idem_fail(IDEM_E_NO_STORE, "%s: nothing was ever written to this log", b->r->wal_dir);
}

/* ------------------------------------------------------------------ what is there */

static int open_log(struct rebuild *b)
{
    int e = idem_log_dir_open(b->r->wal_dir, false, 0, &b->d);
    if (e == IDEM_E_LOG_DAMAGED && salvaging(b) && !IDEM_FAULT("salvage.id")) {
        idem_say(b->r, "%s; the files say whose log it is", idem_fail_text());
        e = idem_log_dir_open_raw(b->r->wal_dir, &b->d);
    }
    if (e == IDEM_OK && b->d.id.destroyed != 0)
        e = idem_fail(IDEM_E_NO_STORE, "%s: the store of this log was destroyed", b->r->wal_dir);
    return e;
}

static int hold_log(struct rebuild *b)
{
    for (int waited_ms = 0;; waited_ms += 10) {
        int e = idem_log_dir_hold(&b->d);
        if (e <= IDEM_OK)
            return e;
        if (waited_ms >= HOLD_WAIT_MS)
            return idem_fail(IDEM_E_LOG, "%s: another recovery has been at work on this log for %d s; is it stopped?",
                             b->r->wal_dir, HOLD_WAIT_MS / 1000);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

/* Under the store directory's lock. Outcomes: IDEM_OK there is none (or a dead one). Errors: IDEM_E_EXISTS; others: there is something else. */
static int look_for_store(struct rebuild *b)
{
    struct idem_view *v;
    idem_options o;
    memset(&o, 0, sizeof o);
    int e = idem_attach_hidden(b->path, "root", &o, NULL, &v);
    if (e == IDEM_E_NO_STORE)
        return IDEM_OK;
    if (e != IDEM_OK)
        return e;
    idem_view_close(v);
    return idem_fail(IDEM_E_EXISTS, "%s: there is a store; replacing it by its log has to be asked for", b->path);
}

/* A second store that was given the log of a living one: it must not take it for a log that was left. */
static int look_for_owner(struct rebuild *b)
{
    char place[IDEM_LOG_PATH_MAX];
    struct idem_view *v;
    idem_options o;
    idem_log_place_read(&b->d, place);
    if (place[0] == '\0' || strcmp(place, b->path) == 0 || IDEM_FAULT("recover.owner"))
        return IDEM_OK;
    memset(&o, 0, sizeof o);
    if (idem_attach_hidden(place, "root", &o, NULL, &v) != IDEM_OK)
        return IDEM_OK;
    struct stat its, ours; /* a copy of its log may go where it likes */
    bool owner = memcmp(v->fixed.uuid, b->d.id.uuid, sizeof b->d.id.uuid) == 0 &&
                 memcmp(v->log.instance, b->d.id.instance, sizeof b->d.id.instance) == 0 &&
                 stat(v->log.wal_dir, &its) == 0 && fstat(b->d.fd, &ours) == 0 && its.st_dev == ours.st_dev &&
                 its.st_ino == ours.st_ino;
    idem_view_close(v);
    return !owner ? IDEM_OK
                  : idem_fail(IDEM_E_LOG_FOREIGN,
                              "%s: the log of the store at %s, which is there; each store needs a directory of its own",
                              b->r->wal_dir, place);
}

/* ------------------------------------------------------------------ what time it is */

static int64_t wall_ms(const idem_recovery *r)
{
    return r->now_wall_ms != 0 ? r->now_wall_ms : idem_clock_wall_ms();
}

/* Store time goes on through the time that the machine was away. */
static int set_time(struct rebuild *b)
{
    const struct idem_batch_rec *last = &b->s.last;
    int64_t now = wall_ms(b->r), away_ms = now - last->wall_ms;
    if (away_ms > AWAY_MOST_MS && b->r->now_wall_ms == 0)
        return idem_fail(
            IDEM_E_INVALID,
            "recovery.now_wall_ms: by the clock of this machine the log was last written %lld days ago; if "
            "that is so, say what time it is (idem recover --now), else set the clock first: all that expires would "
            "be gone",
            (long long)(away_ms / 86400000));
    if (away_ms < 0) {
        idem_say(b->r,
                 "the clock of this machine is %lld ms behind the newest record's; the store's time goes on from that",
                 (long long)-away_ms);
        away_ms = 0;
    }
    b->as.store_ms = last->store_ms + (IDEM_FAULT("recover.time") ? 0 : away_ms);
    b->as.wall_ms = now;
    b->again.now_ms = b->as.store_ms;
    /* Tokens up to the ceiling may have been given out; so may those from the floor on, before anybody has written a batch: the file that the store
       begins with promises them. */
    b->again.floor_ms = last->ceiling_ms + (IDEM_FAULT("recover.floor") ? 0 : 1);
    b->as.ceiling_ms = b->as.store_ms + IDEM_LOG_AHEAD_MS;
    if (b->as.ceiling_ms < b->again.floor_ms)
        b->as.ceiling_ms = b->again.floor_ms;
    if (IDEM_FAULT("recover.ceiling"))
        b->as.ceiling_ms = last->ceiling_ms;
    /* A store has fewer bits for a time than a log has: what we would make of it, nobody would open. */
    if (b->as.ceiling_ms > ENTRY_TIME_MAX - IDEM_TTL_MAX_MS)
        return idem_fail(IDEM_E_LOG_DAMAGED,
                         "%s: its newest batch says that it is %lld ms since 1970, or that tokens were promised for "
                         "such a time: a faulty "
                         "program wrote it, though its checksum is right; put a good copy back",
                         b->d.path, (long long)b->as.ceiling_ms);
    return IDEM_OK;
}

/* Settings that no store has been made with: sound bytes of a faulty writer. Sizes are computed from them. */
static int refuse_options(const struct rebuild *b)
{
    char name[IDEM_LOG_NAME_BYTES], why[200];
    snprintf(why, sizeof why, "%s", idem_fail_text());
    idem_log_file_name(b->s.newest.number, name);
    return idem_fail(
        IDEM_E_LOG_DAMAGED,
        "%s/%s: its header (byte 0, position %llu) says of its store what no store is made with (%s), though its "
        "checksum is right: a faulty program wrote it; put a good copy back",
        b->d.path, name, (unsigned long long)b->s.newest.base, why);
}

/* As for a store that is there: its own settings hold, not those of who opens it. */
static void take_settings(const struct idem_wal_settings *s, idem_options *o)
{
    o->durability_claim = s->durability_claim;
    o->durability_complete = s->durability_complete;
    o->flush_interval_ms = s->flush_interval_ms;
    o->log_wait_ms = s->log_wait_ms;
    o->wal_ring_refs = s->ring_refs;
    o->wal_file_bytes = s->file_bytes;
}

/* What a store can be created with; a file of 1.0 says nothing. */
static bool said(const struct idem_wal_settings *s)
{
    idem_options o = IDEM_OPTIONS_INIT;
    take_settings(s, &o);
    return o.durability_claim >= IDEM_DURABILITY_NONE && o.durability_claim <= IDEM_DURABILITY_SYNC &&
           o.durability_complete >= IDEM_DURABILITY_NONE && o.durability_complete <= IDEM_DURABILITY_SYNC &&
           idem_log_options_check(&o) == IDEM_OK;
}

/* The log doesn't say: who opens it does, or the defaults. */
static void fill_settings(const struct idem_file_rec *f, idem_options *o)
{
    o->durability_claim = o->durability_claim != 0 ? o->durability_claim : IDEM_DURABILITY_ASYNC;
    o->durability_complete = o->durability_complete != 0 ? o->durability_complete : IDEM_DURABILITY_SYNC;
    o->flush_interval_ms = o->flush_interval_ms != 0 ? o->flush_interval_ms : FLUSH_MS;
    o->log_wait_ms = o->log_wait_ms != 0 ? o->log_wait_ms : LOG_WAIT_MS;
    /* The log's own, but not that of a file that was made for one large answer, or for all that lives. */
    if (o->wal_file_bytes == 0) {
        uint64_t most = f->oldest == f->number && f->number > 1 ? FILE_USUAL : FILE_MOST;
        o->wal_file_bytes = f->bytes < FILE_LEAST ? FILE_LEAST : f->bytes > most ? most : f->bytes;
    }
    o->wal_ring_refs = o->wal_ring_refs != 0 ? o->wal_ring_refs : RING_REFS;
}

static int set_options(struct rebuild *b)
{
    const struct idem_file_rec *f = &b->s.newest;
    idem_options *o = &b->options;
    memset(o, 0, sizeof *o);
    if (b->given != NULL)
        *o = *b->given;
    o->size = sizeof *o;
    o->flags = 0;
    o->keys = f->keys;
    o->total_bytes = 0;
    o->response_bytes = f->response_bytes;
    o->when_full = f->when_full;
    o->ttl_ms = f->ttl_ms;
    o->lease_ms = f->lease_ms;
    o->processes = f->processes;
    o->lanes = f->lanes;
    o->group = f->group;
    o->wal_dir = b->r->wal_dir;
    if (said(&f->settings) && !IDEM_FAULT("recover.settings"))
        take_settings(&f->settings, o);
    else
        fill_settings(f, o);
    b->as.settings = (struct idem_wal_settings){
        .durability_claim = (uint8_t)o->durability_claim,
        .durability_complete = (uint8_t)o->durability_complete,
        .flush_interval_ms = o->flush_interval_ms,
        .log_wait_ms = o->log_wait_ms,
        .ring_refs = (uint32_t)o->wal_ring_refs,
        .file_bytes = o->wal_file_bytes,
    };
    b->d.group = f->group != 0 ? (gid_t)(f->group - 1) : (gid_t)-1;
    bool whole = f->response_bytes != 0 && f->processes != 0 && f->lanes != 0;
    if (!whole)
        idem_fail(IDEM_E_INVALID, "response_bytes, processes or lanes: 0");
    return whole && idem_options_check(o) == IDEM_OK ? IDEM_OK : refuse_options(b);
}

/* ------------------------------------------------------------------ the steps */

static int own(struct rebuild *b)
{
    int e = fill_random(b->again.instance, sizeof b->again.instance);
    if (e != IDEM_OK)
        return e;
    memcpy(b->as.instance, b->again.instance, sizeof b->as.instance);
    struct idem_log_id_rec id = b->d.id;
    memcpy(id.instance, b->again.instance, sizeof id.instance);
    if (salvaging(b)) { /* perhaps the id was lost: the files say whose they are */
        memcpy(id.uuid, b->s.newest.uuid, sizeof id.uuid);
        id.newest = b->s.newest.number;
    }
    e = IDEM_FAULT("recover.unowned") ? IDEM_OK : idem_log_id_replace(&b->d, &id);
    if (e == IDEM_OK)
        e = idem_log_place_write(&b->d, b->path);
    IDEM_POINT("recover.owned");
    return e;
}

static int take(void *ctx, const struct idem_rec *r, uint64_t file)
{
    struct rebuild *b = ctx;
    (void)file;
    int e = idem_replay_add(b->replay, r);
    b->r->keys = b->replay->keys;
    return e;
}

static void give_up(struct rebuild *b)
{
    int kept = errno;
    if (b->v != NULL) {
        idem_lane_forget(b->v);
        idem_view_close(b->v);
        b->v = NULL;
    }
    if (b->root_name[0] != '\0')
        idem_create_discard(b->dir_fd, b->root_name);
    b->root_name[0] = '\0';
    errno = kept;
}

static int build_once(struct rebuild *b)
{
    struct idem_mapping gen;
    int e = idem_create_hidden(b->path, &b->options, &b->again, b->dir_fd, b->root_name, &gen);
    if (e != IDEM_OK) {
        b->root_name[0] = '\0';
        return e;
    }
    e = idem_attach_hidden(b->path, b->root_name, &b->options, &gen, &b->v);
    if (e == IDEM_OK)
        e = idem_replay_begin(b->replay, b->v, b->as.store_ms, salvaging(b) ? 0 : b->s.proven);
    if (e == IDEM_OK)
        e = read_log(b, take, b, b->r);
    if (e == IDEM_OK)
        e = idem_replay_settle(b->replay, b->r);
    return e;
}

/* For more keys, until that is a quarter more memory and slots: a small store has more than its keys need, in any case. Who asks for more than there can
   be is told so when it is made. */
static void enlarge(idem_options *o)
{
    struct idem_generation_const was = {0}, is;
    uint64_t keys;
    idem_geometry(o, &was, &keys); /* it was made with them */
    do {
        o->keys += o->keys / 4 + 16;
    } while (!IDEM_FAULT("recover.no_larger") && idem_geometry(o, &is, &keys) == IDEM_OK &&
             (is.bucket_count < was.bucket_count + was.bucket_count / 4 ||
              is.region_count << is.region_shift < (was.region_count << was.region_shift) / 4 * 5));
}

/* A store that was filled to the brim need not fit a second time: what lies where is another story each time. */
static int build(struct rebuild *b)
{
    int e = IDEM_E_FULL;
    memcpy(b->again.uuid, b->s.newest.uuid, sizeof b->again.uuid);
    memcpy(b->again.secret, b->s.newest.secret, sizeof b->again.secret);
    for (unsigned tries = 0; e == IDEM_E_FULL && tries < LARGER_TRIES; tries++) {
        if (tries > 0) {
            give_up(b);
            char why[200];
            snprintf(why, sizeof why, "%s", idem_fail_text());
            enlarge(&b->options);
            idem_say(b->r, "%s; made for %llu keys instead", why, (unsigned long long)b->options.keys);
        }
        e = build_once(b);
    }
    return e;
}

/* Recovery after recovery with little in between leaves a file each, and it takes traffic to have old ones deleted. */
static bool mostly_empty(const struct rebuild *b)
{
    return b->s.files > FILES_FEW && b->s.bytes < b->s.space / 4 && !IDEM_FAULT("recover.crowd");
}

static int seal(struct rebuild *b)
{
    int e = idem_log_clear_tmp(&b->d);
    if (e == IDEM_OK)
        e = salvaging(b) || mostly_empty(b) ? idem_seal_store(&b->d, &b->s, &b->as, b->v, &b->sealed)
                                            : idem_seal_tail(&b->d, &b->s, &b->as, &b->sealed);
    return e;
}

/* Everything up to here is durable, and no word in memory names anything past what was proven. */
static void set_control(struct rebuild *b)
{
    struct idem_a64 *c = b->v->root->log_control;
    uint64_t *numbers, bytes = 0;
    size_t n;
    idem_log_control_begin(c, 0, b->sealed.end, b->sealed.number, b->sealed.ceiling_ms);
    store_relaxed(&c[LOG_OLDEST], b->sealed.oldest);                 /* relaxed: published by the root's rename */
    store_relaxed(&c[LOG_EXPIRY_MS], (uint64_t)b->sealed.expiry_ms); /* relaxed: as above */
    if (idem_log_list(&b->d, &numbers, &n) != IDEM_OK)
        return; /* a figure is missing */
    for (size_t i = 0; i < n; i++) {
        char name[IDEM_LOG_NAME_BYTES];
        struct stat st;
        idem_log_file_name(numbers[i], name);
        if (numbers[i] >= b->sealed.oldest && idem_io->stat_at(b->d.fd, name, &st) == 0)
            bytes += (uint64_t)st.st_size;
    }
    free(numbers);
    store_relaxed(&c[LOG_DISK_BYTES], bytes); /* relaxed: as above */
}

/* What REC_RETAIN said may go, and what a file with everything in it has made useless. Not being able to is no failure: the next one tries again. */
static void delete_old(struct rebuild *b)
{
    uint64_t *numbers;
    size_t n;
    uint64_t needed = b->sealed.oldest;
    if (salvaging(b))
        idem_salvage_put_aside(&b->d, &b->aside, b->r);
    if (idem_log_list(&b->d, &numbers, &n) != IDEM_OK)
        return;
    for (size_t i = 0; i < n && numbers[i] < needed; i++)
        if (idem_log_file_delete(&b->d, numbers[i]) != IDEM_OK)
            break;
    free(numbers);
    idem_log_dir_sync(&b->d);
}

/* b->s is from before the directories were ours: good enough to refuse by, and to own the log as. */
static int rebuild_once(struct rebuild *b)
{
    int e = set_time(b);
    if (e != IDEM_OK)
        return e;
    e = set_options(b);
    if (e == IDEM_OK)
        e = own(b);
    /* Once more: what anybody has acknowledged until now is in the log by now. */
    if (e == IDEM_OK)
        e = read_newest(b);
    if (e == IDEM_OK)
        e = set_time(b);
    if (e == IDEM_OK)
        e = set_options(b);
    if (e == IDEM_OK)
        e = build(b);
    if (e == IDEM_OK)
        e = seal(b);
    if (e == IDEM_OK) {
        set_control(b);
        e = idem_create_reveal(b->path, b->dir_fd, b->root_name);
    }
    if (e == IDEM_OK) {
        IDEM_POINT("recover.visible");
        delete_old(b);
    }
    if (e != IDEM_OK) {
        give_up(b);
        return e;
    }
    idem_lane_forget(b->v);
    idem_view_close(b->v);
    b->v = NULL;
    return IDEM_OK;
}

static void say_away(struct rebuild *b)
{
    int64_t away_ms = b->as.wall_ms - b->s.last.wall_ms;
    idem_say(b->r, "the log was last written %lld.%03lld s before now", (long long)(away_ms < 0 ? 0 : away_ms / 1000),
             (long long)(away_ms < 0 ? 0 : away_ms % 1000));
}

static int with_store_dir(struct rebuild *b)
{
    int e = look_for_store(b);
    bool replace = e != IDEM_OK && (b->r->flags & IDEM_RECOVER_REPLACE) != 0;
    if (e != IDEM_OK && !replace)
        return e;
    e = hold_log(b);
    if (e == IDEM_OK && b->d.id_fd >= 0)
        e = idem_log_id_read(&b->d);
    if (e == IDEM_OK && replace) {
        idem_recovery quiet = *b->r;
        quiet.sentence = NULL;
        e = IDEM_FAULT("recover.unread")
                ? IDEM_OK
                : read_log(b, NULL, NULL, &quiet); /* it must be all right before the store is given up for it */
        if (e == IDEM_OK && b->s.first == 0)
            e = nothing_there(b);
        if (e == IDEM_OK)
            e = idem_root_mark_dead(b->path, b->dir_fd);
    }
    if (e == IDEM_OK)
        e = IDEM_E_EXISTS;
    /* A writer that was fenced may have made the file that we were about to make. It makes no other. */
    for (unsigned tries = 0; e == IDEM_E_EXISTS && tries < AGAIN_TRIES; tries++) {
        b->root_name[0] = '\0';
        e = rebuild_once(b);
    }
    if (e == IDEM_OK)
        say_away(b);
    return e == IDEM_E_EXISTS
               ? idem_fail(IDEM_E_LOG, "%s: somebody else goes on making files in this log", b->r->wal_dir)
               : e;
}

static int locked(struct rebuild *b)
{
    int e = read_newest(b);
    if (e == IDEM_OK && b->s.first == 0)
        e = nothing_there(b);
    if (e == IDEM_OK)
        e = look_for_owner(b);
    if (e != IDEM_OK)
        return e;
    e = idem_path_open_dir(b->path, &b->made, b->s.newest.group, &b->dir_fd);
    if (e != IDEM_OK)
        return e;
    e = idem_path_lock(b->dir_fd, b->path);
    if (e == IDEM_OK)
        e = with_store_dir(b);
    int kept = errno;
    if (b->made && e != IDEM_OK)
        rmdir(b->path);
    close(b->dir_fd);
    errno = kept;
    return e;
}

int idem_rebuild(const idem_options *given, idem_recovery *r)
{
    struct rebuild *b = calloc(1, sizeof *b);
    struct idem_replay *replay = calloc(1, sizeof *replay);
    int e = b == NULL || replay == NULL ? idem_fail(IDEM_E_MEMORY, "no memory for a recovery") : IDEM_OK;
    if (e == IDEM_OK) {
        b->given = given;
        b->r = r;
        b->replay = replay;
        e = open_log(b);
    }
    if (e == IDEM_OK) {
        if (r->flags & IDEM_RECOVER_CHECK_ONLY) {
            e = read_log(b, NULL, NULL, r);
            if (e == IDEM_OK && b->s.first == 0)
                e = nothing_there(b);
        } else {
            e = idem_path_resolve(r->dir, true, b->path);
            if (e == IDEM_OK)
                e = locked(b);
        }
        report(b);
        idem_log_dir_close(&b->d);
    }
    if (b != NULL)
        free(b->aside.numbers);
    free(replay);
    free(b);
    return e;
}
