/*
 * nginx/ngx_http_idem.h - what the rooms of the nginx module share.
 *
 *     ngx_http_idem_module.c   the module: directives, variables, hooks into nginx
 *     ngx_http_idem_conf.c     what the directives mean; what is refused
 *     ngx_http_idem_zone.c     stores: made by the master, opened by each worker
 *     ngx_http_idem_claim.c    a request asks for its key, and goes on as its owner, waits, or is answered
 *     ngx_http_idem_body.c     what the request means: key, scope, fingerprint
 *     ngx_http_idem_wait.c     those who wait for another attempt
 *     ngx_http_idem_owner.c    the owner: heartbeat, a client that leaves, the end without an answer
 *     ngx_http_idem_capture.c  the owner's answer on its way to the client: kept, and recorded at its last byte
 *     ngx_http_idem_record.c   how an answer is recorded, in the event loop or beside it
 *     ngx_http_idem_answer.c   the module's own answers: problems and replays
 *     ngx_http_idem_gunzip.c   a replay for a client that takes no gzip
 *     ngx_http_idem_status.c   variables, counters, the status page
 *
 * On the library's public header only. One worker is one thread; only ngx_http_idem_record.c hands work to other threads.
 *
 * Invariants
 *  1. A request holds at most one claim, from OWNER until it is settled, and settles it exactly once (ctx->settled).
 *  2. An answer is recorded before its last byte is passed on. What was not recorded is settled when the request is freed: the outcome is
 *     unknown if anything was sent to an upstream, else nothing happened.
 *  3. Internal redirects and error pages clear module contexts: the context is found again through the pool's clean-up (ngx_http_idem_ctx()).
 *
 * If a worker dies: the library sees its process gone; its claims are taken over at once, or held (idem_ambiguous hold).
 */
#ifndef NGX_HTTP_IDEM_H
#define NGX_HTTP_IDEM_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <idem.h>

#include "idem_http_key.h"

#define NGX_HTTP_IDEM_BUFFERED     0x08 /* in r->buffered: the end of the answer waits for the disk */
#define NGX_HTTP_IDEM_STATUS_WORDS 10   /* of 64 bits: statuses below 640 */
#define NGX_HTTP_IDEM_SCOPE_BYTES  32   /* hex digits of the scope's 128-bit digest */

/* What became of a request: $idem_outcome. The order is that of the names in ngx_http_idem_status.c and of the counters. */
typedef enum {
    NGX_HTTP_IDEM_NONE = 0,
    NGX_HTTP_IDEM_CLAIMED,
    NGX_HTTP_IDEM_RECLAIMED,
    NGX_HTTP_IDEM_REPLAYED,
    NGX_HTTP_IDEM_SHARED,
    NGX_HTTP_IDEM_IN_PROGRESS,
    NGX_HTTP_IDEM_MISMATCH,
    NGX_HTTP_IDEM_UNKNOWN,
    NGX_HTTP_IDEM_NOT_RETAINED,
    NGX_HTTP_IDEM_MISSING,
    NGX_HTTP_IDEM_INVALID,
    NGX_HTTP_IDEM_BYPASSED,
    NGX_HTTP_IDEM_FAILED,
    NGX_HTTP_IDEM_FAILED_OPEN,
    NGX_HTTP_IDEM_OUTCOMES
} ngx_http_idem_outcome_e;

/* What became of an owner's claim: $idem_status. */
typedef enum {
    NGX_HTTP_IDEM_UNSETTLED = 0,
    NGX_HTTP_IDEM_STORED,
    NGX_HTTP_IDEM_TOMBSTONE,
    NGX_HTTP_IDEM_SETTLED_SHARED,
    NGX_HTTP_IDEM_ABANDONED,
    NGX_HTTP_IDEM_HELD,
    NGX_HTTP_IDEM_FENCED,
    NGX_HTTP_IDEM_SETTLE_FAILED,
    NGX_HTTP_IDEM_SETTLEMENTS
} ngx_http_idem_settled_e;

/* idem_ambiguous */
#define NGX_HTTP_IDEM_HOLD    0
#define NGX_HTTP_IDEM_ABANDON 1
#define NGX_HTTP_IDEM_STORE   2

/* idem_header_syntax */
#define NGX_HTTP_IDEM_LENIENT 0
#define NGX_HTTP_IDEM_STRICT  1

typedef struct {
    ngx_atomic_t outcomes[NGX_HTTP_IDEM_OUTCOMES];
    ngx_atomic_t settled[NGX_HTTP_IDEM_SETTLEMENTS];
    ngx_atomic_t aborted; /* clients that left before their answer was complete; it was recorded all the same */
} ngx_http_idem_counters_t;

#define NGX_HTTP_IDEM_GROUPS 256 /* buckets of a zone's table of waiting groups */

typedef struct {
    ngx_str_t name;
    ngx_str_t path; /* NUL-terminated, as wal */
    ngx_str_t wal;
    u_char *file; /* where idem_zone stands; NULL: only mentioned so far */
    ngx_uint_t line;
    u_char *used_file; /* where the first `idem` with it stands */
    ngx_uint_t used_line;
    uint64_t keys;
    uint32_t response_bytes;
    int64_t ttl_ms;
    int64_t lease_ms;
    uint32_t durability; /* enum idem_durability, of completions */
    ngx_thread_pool_t *threads;
    ngx_shm_zone_t *shm;

    /* In a worker. */
    idem_store *store; /* NULL: could not be opened, tried again every second */
    ngx_event_t timer; /* upkeep, each second */
    ngx_event_t beat;  /* of the owner whose lease is to be renewed next */
    ngx_http_idem_counters_t *counters;
    ngx_queue_t owners;                       /* ngx_http_idem_ctx_t.link */
    ngx_queue_t groups[NGX_HTTP_IDEM_GROUPS]; /* ngx_http_idem_group_t.link */
    ngx_uint_t waiting;
} ngx_http_idem_zone_t;

typedef struct {
    const ngx_http_upstream_conf_t *from;
    ngx_http_upstream_conf_t *copy;
} ngx_http_idem_upstream_t;

typedef struct {
    ngx_array_t zones; /* ngx_http_idem_zone_t * */
} ngx_http_idem_main_conf_t;

typedef struct {
    ngx_http_idem_zone_t *zone; /* NULL: off */
    u_char *file;               /* where `idem` stands */
    ngx_uint_t line;
    ngx_uint_t methods; /* NGX_HTTP_POST | ... */
    ngx_flag_t required;
    ngx_str_t header; /* as in the configuration */
    ngx_str_t header_lower;
    ngx_uint_t syntax;
    ngx_http_complex_value_t *scope;
    ngx_http_complex_value_t *fingerprint;
    off_t fingerprint_body; /* bytes of the body that count; 0: none */
    ngx_http_complex_value_t *lease;
    ngx_http_complex_value_t *ttl;
    int64_t ttl_min_ms, ttl_max_ms;
    ngx_msec_t wait;
    ngx_uint_t max_waiters;
    uint64_t *store_status; /* NGX_HTTP_IDEM_STATUS_WORDS, a bit a status */
    ngx_flag_t share_failures;
    ngx_uint_t ambiguous;
    size_t max_body;
    ngx_array_t *store_headers; /* ngx_str_t, lower case: kept though they usually aren't */
    ngx_array_t *hide_headers;  /* ngx_str_t, lower case: not kept */
    ngx_flag_t ignore_client_abort;
    ngx_flag_t fail_open;
    ngx_flag_t heartbeat;
    ngx_array_t *bypass; /* ngx_http_complex_value_t */
    ngx_str_t policy_url;
    ngx_http_idem_upstream_t
        upstreams[2]; /* in a worker: for methods that nginx doesn't repeat by itself, and for the others */
} ngx_http_idem_loc_conf_t;

typedef enum {
    NGX_HTTP_IDEM_PASSING = 0, /* nothing to do with this request (any more) */
    NGX_HTTP_IDEM_READING,     /* its body */
    NGX_HTTP_IDEM_ASKING,
    NGX_HTTP_IDEM_WAITING, /* for another attempt */
    NGX_HTTP_IDEM_OWNER,
    NGX_HTTP_IDEM_ANSWERING /* with the module's own answer */
} ngx_http_idem_state_e;

typedef struct ngx_http_idem_group_s ngx_http_idem_group_t;

/* What is to be recorded of an answer. */
typedef enum {
    NGX_HTTP_IDEM_KEEP_NOTHING = 0, /* abandoned, or shared with those who wait */
    NGX_HTTP_IDEM_KEEP_ANSWER,
    NGX_HTTP_IDEM_KEEP_UNKNOWN /* no answer came: as idem_ambiguous says */
} ngx_http_idem_keep_e;

typedef struct {
    ngx_http_request_t *request; /* the main one */
    ngx_http_idem_loc_conf_t *conf;
    ngx_http_idem_zone_t *zone;
    ngx_http_idem_state_e state;
    ngx_http_idem_outcome_e outcome;
    ngx_http_idem_settled_e settled;

    /* what it means */
    ngx_str_t key; /* unescaped */
    u_char scope[NGX_HTTP_IDEM_SCOPE_BYTES];
    uint64_t fingerprint;
    idem_fingerprint_state *body_hash;
    off_t body_bytes; /* seen by body_hash */
    int64_t lease_ms, ttl_ms;

    /* waiting */
    ngx_http_idem_group_t *group;
    ngx_queue_t link; /* in group->waiters, or zone->owners */
    ngx_event_t wake;
    uint64_t wait_token;
    ngx_msec_t waited_from, waited_ms;

    /* owning */
    idem_claim claim;
    ngx_msec_t beat_at; /* when the lease is to be renewed */
    ngx_http_handler_pt content_handler;
    ngx_http_event_handler_pt write_handler;

    /* the answer */
    u_char *body;
    size_t body_kept, body_room;
    off_t body_total;
    off_t length; /* as its header says; -1: not known */
    ngx_str_t meta;
    ngx_uint_t answer_status;
    ngx_http_idem_keep_e keep;
    int64_t answer_ttl_ms; /* 0: as the claim's */
    ngx_chain_t *held;     /* last buffers that wait for the disk */

    uint64_t token; /* $idem_token: the owner's, or that of the attempt an answer is of */
    int64_t age_ms;

    unsigned waited : 1;
    unsigned has_key : 1;
    unsigned content : 1;   /* the content phase was entered as an owner */
    unsigned capturing : 1; /* the final answer's header has been seen */
    unsigned overflow : 1;  /* its body is larger than idem_max_body */
    unsigned detached : 1;  /* the client is gone; its answer is recorded all the same */
    unsigned recording : 1; /* a thread is at it */
    unsigned beating : 1;
    unsigned deferred : 1; /* the header waits for the disk too: it is all there is */
} ngx_http_idem_ctx_t;

extern ngx_module_t ngx_http_idem_module;

/* Names of headers, upper and lower case alike. */
static inline ngx_uint_t ngx_http_idem_named(const ngx_str_t *text, const void *name, size_t n)
{
    return text->len == n && ngx_strncasecmp(text->data, (u_char *)name, n) == 0;
}

/* ngx_http_idem_module.c. NULL: this request has none. */
ngx_http_idem_ctx_t *ngx_http_idem_ctx(ngx_http_request_t *r);
ngx_http_idem_ctx_t *ngx_http_idem_ctx_make(ngx_http_request_t *r, ngx_http_idem_loc_conf_t *conf);

/* ngx_http_idem_conf.c */
void *ngx_http_idem_create_main_conf(ngx_conf_t *cf);
void *ngx_http_idem_create_loc_conf(ngx_conf_t *cf);
char *ngx_http_idem_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child);
char *ngx_http_idem_conf_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_idem_conf_idem(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_idem_conf_ttl(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_idem_conf_lease(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_idem_conf_fingerprint_body(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_idem_conf_store_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_idem_conf_names(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_idem_conf_header(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
int64_t ngx_http_idem_time_ms(const ngx_str_t *value); /* -1: not a time above 0 */

/* ngx_http_idem_zone.c */
ngx_int_t ngx_http_idem_zones_make(ngx_conf_t *cf, ngx_http_idem_main_conf_t *main);
ngx_int_t ngx_http_idem_zone_shm(ngx_conf_t *cf, ngx_http_idem_zone_t *zone);
ngx_int_t ngx_http_idem_init_process(ngx_cycle_t *cycle);
void ngx_http_idem_exit_process(ngx_cycle_t *cycle);

/* ngx_http_idem_body.c */
ngx_int_t ngx_http_idem_meaning(ngx_http_idem_ctx_t *ctx);     /* scope, before the body is read */
ngx_int_t ngx_http_idem_fingerprint(ngx_http_idem_ctx_t *ctx); /* after it */
ngx_int_t ngx_http_idem_request_body(ngx_http_request_t *r, ngx_chain_t *in);
extern ngx_http_request_body_filter_pt ngx_http_idem_next_request_body;
void ngx_http_idem_key_of(ngx_http_idem_ctx_t *ctx, idem_key *key);

/* ngx_http_idem_claim.c */
ngx_int_t ngx_http_idem_precontent(ngx_http_request_t *r);
void ngx_http_idem_ask(ngx_http_idem_ctx_t *ctx);

/* ngx_http_idem_wait.c */
ngx_int_t ngx_http_idem_wait(ngx_http_idem_ctx_t *ctx,
                             uint64_t token); /* NGX_OK: it waits; NGX_DECLINED: no (longer) */
/* Safe to call for whoever doesn't wait. news: whoever else waits for the key should ask again. */
void ngx_http_idem_wait_leave(ngx_http_idem_ctx_t *ctx, ngx_uint_t news);
void ngx_http_idem_wait_wake(ngx_http_idem_zone_t *zone, const ngx_http_idem_ctx_t *settled);

/* ngx_http_idem_owner.c */
ngx_int_t ngx_http_idem_own(ngx_http_idem_ctx_t *ctx);
void ngx_http_idem_own_content(ngx_http_idem_ctx_t *ctx);
void ngx_http_idem_detach(ngx_http_idem_ctx_t *ctx);
ngx_uint_t ngx_http_idem_framed(const ngx_http_request_t *r);
void ngx_http_idem_guard_writes(ngx_http_idem_ctx_t *ctx);
ngx_uint_t ngx_http_idem_guarded(const ngx_http_idem_ctx_t *ctx); /* its answer is wanted even if the client leaves */
void ngx_http_idem_consume(ngx_chain_t *chain);                   /* as if it had been sent */
void ngx_http_idem_beat(ngx_event_t *event);
void ngx_http_idem_disown(ngx_http_idem_ctx_t *ctx); /* no longer an owner: timers and lists */
ngx_int_t ngx_http_idem_strip(ngx_http_request_t *r);
ngx_uint_t ngx_http_idem_done_before(const ngx_http_idem_ctx_t *ctx);
ngx_uint_t ngx_http_idem_sent(ngx_http_request_t *r); /* something went out to an upstream */

/* ngx_http_idem_capture.c */
ngx_uint_t ngx_http_idem_is_stored(const ngx_http_idem_loc_conf_t *conf, ngx_uint_t status);
ngx_int_t ngx_http_idem_header(ngx_http_request_t *r);
ngx_int_t ngx_http_idem_body(ngx_http_request_t *r, ngx_chain_t *in);
ngx_int_t ngx_http_idem_pass_held(ngx_http_idem_ctx_t *ctx);
extern ngx_http_output_header_filter_pt ngx_http_idem_next_header;
extern ngx_http_output_body_filter_pt ngx_http_idem_next_body;

/* ngx_http_idem_record.c */
ngx_int_t ngx_http_idem_record(
    ngx_http_idem_ctx_t *ctx); /* NGX_OK: settled; NGX_AGAIN: a thread is at it; NGX_ERROR: don't give it out */
ngx_uint_t ngx_http_idem_records_beside(const ngx_http_idem_ctx_t *ctx); /* it will be a thread's work */
void ngx_http_idem_settle_unanswered(ngx_http_idem_ctx_t *ctx);

/* ngx_http_idem_answer.c. What they return is for ngx_http_finalize_request(). */
typedef enum {
    NGX_HTTP_IDEM_PROBLEM_MISSING = 0,
    NGX_HTTP_IDEM_PROBLEM_INVALID,
    NGX_HTTP_IDEM_PROBLEM_REUSED,
    NGX_HTTP_IDEM_PROBLEM_IN_PROGRESS,
    NGX_HTTP_IDEM_PROBLEM_UNKNOWN,
    NGX_HTTP_IDEM_PROBLEM_NOT_RETAINED,
    NGX_HTTP_IDEM_PROBLEM_UNAVAILABLE
} ngx_http_idem_problem_e;
ngx_int_t ngx_http_idem_problem(ngx_http_idem_ctx_t *ctx, ngx_http_idem_problem_e problem, const char *detail,
                                int64_t retry_after_ms);
ngx_int_t ngx_http_idem_replay(ngx_http_idem_ctx_t *ctx, const idem_reply *reply);

/* ngx_http_idem_gunzip.c. If the answer is gzipped and its client doesn't take that: the plain bytes, and no Content-Encoding. */
void ngx_http_idem_gunzip(ngx_http_request_t *r, ngx_str_t *body);

/* ngx_http_idem_status.c */
ngx_int_t ngx_http_idem_variables(ngx_conf_t *cf);
char *ngx_http_idem_conf_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void ngx_http_idem_count(ngx_http_idem_ctx_t *ctx, ngx_http_idem_outcome_e outcome);
void ngx_http_idem_count_settled(ngx_http_idem_ctx_t *ctx, ngx_http_idem_settled_e settled);

#endif
