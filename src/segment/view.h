/*
 * segment/view.h - one attached store: mappings, private copies of the constants, this process's registration.
 *
 * Owns: mmap and munmap, creation, attachment, staleness. A view is immutable, but for its last words, after it was opened
 * (in a forked child its descriptor is closed before anything uses it). Threads find it through the handle (store/), which swaps it by liburcu.
 *
 * If we die here: while creating, temporary files are left; the next creator in that directory removes them under the
 * directory's lock. A root exists under its name only when everything before it is complete.
 */
#ifndef IDEM_SEGMENT_VIEW_H
#define IDEM_SEGMENT_VIEW_H

#include <sys/types.h>

#include "base/clock.h"
#include "idem.h"
#include "segment/layout.h"
#include "segment/process.h"
#include "wal/files.h"
#include "wal/ring.h"

enum idem_owed { OWED_NOTHING, OWED_QUEUED, OWED_WALK /* something found no room in its queue */ };

struct idem_view {
    struct idem_root_shm *root;
    struct idem_root_const fixed; /* private copy */
    struct idem_lane_shm *lanes;
    struct idem_log_const log; /* private copy */
    struct idem_a64 *rings;    /* NULL: the store has no log */
    struct idem_log *wal;      /* this process's part of the log (wal/leader.h); NULL: none, or not attached */
    struct idem_generation_shm *generation;
    uint64_t generation_bytes;
    struct idem_bucket_shm *buckets;
    uint64_t bucket_count;
    struct idem_region_shm *regions;
    uint32_t region_count;
    unsigned region_shift;
    unsigned chunk_shift;
    uint32_t region_chunks; /* of a region */
    struct idem_chunk_shm *chunks;
    struct idem_a64 *arena; /* two words a unit */
    uint64_t arena_units;
    unsigned entry_bytes;   /* of an answer of typical size; what is fetched ahead of one that will be copied out */
    int64_t clock_shift_ns; /* of this process's time namespace */
    struct idem_process process;
    uint64_t serial;            /* unique in this process; what a thread's lane cache is keyed by */
    struct idem_a64 poisoned;   /* 1: a page was gone (SIGBUS guard) */
    struct idem_a64 checked_ms; /* when its handle asked last whether it is stale; 0: not yet */
    struct idem_a64 pins;       /* who uses it outside of a read section (waits for the disk), and its handle */
    struct idem_a64 owed;       /* enum idem_owed, of what this process pushed without waiting for it */
    struct idem_a64 young_ms;   /* when a record could not be freed last, since its token is of that very millisecond */
    struct idem_a64 naps;       /* second of store time | how often this process waited for memory in it (8) */
};

/* Is this process's slot not its own any more? Others took it for dead. */
static inline bool idem_view_lost(const struct idem_view *v)
{
    uint64_t owner = v->process.owner;
    /* relaxed: a foreign change, seen sooner or later */
    uint64_t x = load_relaxed(&v->process.table[idem_owner_slot(owner)].incarnation);
    return (x & IDEM_INCARNATION_MASK) != idem_owner_incarnation(owner);
}

static inline int64_t idem_view_now_ms(const struct idem_view *v)
{
    return idem_clock_shifted_ms(v->clock_shift_ns) + v->fixed.clock_base_ms;
}

/* Opens or creates by options (already checked and filled with defaults). Registers the process. Outcomes: IDEM_OK; IDEM_VIEW_HAS_LOG:
   the store is gone, but not its log: make it of that, come again. */
int idem_view_open(const char *path, const idem_options *options, struct idem_view **view);
/* Gives the registration back; the mapping goes with the last pin. */
void idem_view_close(struct idem_view *view);

/* The mapping stays until it is unpinned: for who waits outside of a read section. Pin inside of one. */
void idem_view_pin(struct idem_view *view);
void idem_view_unpin(struct idem_view *view);

/* Was it destroyed, or does the path lead to another root (or none)? One stat(). */
bool idem_view_stale(const struct idem_view *view, const char *path);

int idem_view_destroy(const char *path);

/* Attach parts, shared with creation. */
int idem_attach(const char *path, const idem_options *options, struct idem_view *view);
int idem_create(const char *path, const idem_options *options, int dir_fd);

/* What a store that is rebuilt from its log takes over. */
struct idem_rebirth {
    uint8_t uuid[16];
    uint8_t instance[16]; /* who may write the log from now on */
    uint8_t secret[IDEM_SECRET_BYTES];
    int64_t now_ms;   /* store time at this moment: it goes on from here */
    int64_t floor_ms; /* no token is stamped below it: the log's greatest token ceiling */
};
/* Under the directory's lock, with no root or a dead one: all files, but the root under a temporary name (root_name), where nobody looks for
   it. Then idem_create_reveal() puts it in the root's place in one step, or _discard() removes both files. *gen: the generation file's mapping, for
   idem_attach_hidden(), whose it is from then on: to map all of it a second time costs a third of what making it did. */
#define IDEM_ROOT_NAME_BYTES 64
struct idem_mapping {
    void *at;
    uint64_t bytes;
};
int idem_create_hidden(const char *path, const idem_options *options, const struct idem_rebirth *again, int dir_fd,
                       char root_name[IDEM_ROOT_NAME_BYTES], struct idem_mapping *gen);
int idem_create_reveal(const char *path, int dir_fd, const char *root_name);
void idem_create_discard(int dir_fd, const char *root_name);
/* As idem_attach(), for a root that is still hidden. gen: its generation file's mapping, gone if this fails; NULL: it is mapped here. Free the view
   with idem_view_close(). */
int idem_attach_hidden(const char *path, const char *root_name, const idem_options *options,
                       const struct idem_mapping *gen, struct idem_view **view);
/* The root at `path` says dead from now on, for all who have it open. Errors: IDEM_E_NO_STORE, IDEM_E_PERMISSION, IDEM_E_SYSTEM. */
int idem_root_mark_dead(const char *path, int dir_fd);
/*
 * The directory of a new store's log (logdir.c). _claim: opened, held against others, empty of files (those of a destroyed log are removed).
 * Outcomes: IDEM_OK, then _begin and idem_log_dir_close(); IDEM_VIEW_HAS_LOG: there is a log already, the store is to be made of it.
 * Errors: as idem_log_dir_open(). _begin: whose it is and its first file; then the control words.
 */
#define IDEM_VIEW_HAS_LOG 1
int idem_logdir_claim(const idem_options *options, struct idem_log_dir *d);
int idem_logdir_begin(struct idem_log_dir *d, const struct idem_root_const *f, const struct idem_log_const *l,
                      struct idem_a64 *control);
/* What is the same in the headers of all files of a store's log. */
void idem_logdir_header(const struct idem_root_const *f, const struct idem_log_const *l, struct idem_file_rec *h);
/* Under the store directory's lock: the log of a store that is destroyed must not bring it back. Nothing is done if it is not this store's. */
int idem_logdir_destroy(const struct idem_root_const *f, const struct idem_log_const *l);
/* Fills the sizes in g; *keys: how many keys they are for. Errors: IDEM_E_INVALID. */
int idem_geometry(const idem_options *options, struct idem_generation_const *g, uint64_t *keys);
uint64_t idem_rings_off(uint32_t processes, uint32_t lanes);
uint64_t idem_root_bytes(uint32_t processes, uint32_t lanes, uint64_t ring_refs);
uint64_t idem_huge_bytes(const void *at, uint64_t bytes);
uint64_t idem_next_serial(void);
int idem_boot_id(uint8_t boot_id[40]);
void idem_uuid_text(const uint8_t uuid[16], char text[33]);

/* SIGBUS guard: see sigbus.c. */
int idem_guard_install(void);
int idem_guard_add(struct idem_view *view); /* IDEM_E_FULL */
void idem_guard_remove(struct idem_view *view);

#endif
