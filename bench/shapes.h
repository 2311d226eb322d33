/*
 * shapes.h - what is measured that has a shape of its own: trials (trial.h) beside the lives of peers.
 *
 *   hot_*        two processes at one key: racing to claim it, replaying it
 *   crowd        64 processes on the cores there are, against 2
 *   answers_*    "in progress" and "mismatch" beside a replay
 *   disturbed    a claim while the store is swept, the log changes files and peers are killed
 *   sync_*       claims that are on the disk when the call returns, beside a group commit that does nothing else, and beside durable peers
 *
 * Each counts what it measures (winners, verdicts, bytes of answers) and has no figure if a count is wrong.
 */
#ifndef BENCH_SHAPES_H
#define BENCH_SHAPES_H

#include "idem.h"
#include "keys.h"
#include "trial.h"

#ifdef __cplusplus
extern "C" {
#endif

/* c says how long the run may take: so many keys. Each returns 0, or -1: no memory. */
int hot_add(struct trials *all, const struct conditions *c);
int crowd_add(struct trials *all, const struct conditions *c);
int answers_add(struct trials *all, const struct conditions *c);
int disturbed_add(struct trials *all, const struct conditions *c);
int sync_add(struct trials *all, const struct conditions *c);

/* ------------------------------------------------------------------ for themselves */

enum { SHAPE_PATH_BYTES = 320, SHAPE_ANSWER_BYTES = 256, SHAPE_LEASE_MS = 600000 };

struct shape_store {
    char path[SHAPE_PATH_BYTES];
    idem_store *handle; /* the parent's */
};

/* A fresh store below c->place->dir for so many keys; more is in *o if it isn't NULL. 0, or -1: out->why says it. */
int shape_create(struct shape_store *s, const struct conditions *c, const char *name, uint64_t keys, bool huge,
                 const idem_options *o, struct trial_result *out);
/* In a worker: its own handle (flags: enum idem_open_flags), all pages mapped. NULL: idem_error_detail() says why. */
idem_store *shape_attach(const struct shape_store *s, uint32_t flags);
/* Its counters; claimed must be `claims`. 0, or -1: out->why says it. */
int shape_check(const struct shape_store *s, uint64_t claims, struct trial_result *out);
void shape_destroy(struct shape_store *s);

/* How many keys: by how much time the run has. */
uint64_t shape_keys(const struct conditions *c, uint64_t full, uint64_t quick, uint64_t smoke);

/* A request for the key whose text lies at `key`. */
idem_request shape_request(const unsigned char key[KEY_BYTES]);

/* What key `id` is answered with. */
void shape_answer(uint64_t id, unsigned char answer[SHAPE_ANSWER_BYTES]);
/* Is this reply that answer? Looks at its status, length and bytes. */
bool shape_answered(const idem_reply *reply, uint64_t id);

struct row_id shape_row(const char *job, const char *who, const char *unit, uint64_t keys, unsigned workers, bool huge);

#ifdef __cplusplus
}
#endif
#endif
