/*
 * nginx/ngx_http_idem_wait.c - those who wait while another attempt runs.
 *
 * Owns: the groups of a worker. All its requests that wait for one key are one group with one timer, so that a thousand of them cost one look
 * into the store each time, not a thousand. Looks come after 5 ms, then ever later up to 50 ms; an attempt that ends in this very worker wakes its
 * group at once.
 *
 * Invariants: a group has a waiter and a running timer, or it is gone. A wake only asks again: what the store says counts, so a wake too many is
 * harmless, and one too few costs 50 ms. No request waits longer than idem_wait, and none goes to the upstream because it is tired of waiting.
 *
 * If we die here: waiters hold nothing in the store.
 */
#include "ngx_http_idem.h"

#define LOOK_FIRST_MS 5
#define LOOK_LAST_MS  50

struct ngx_http_idem_group_s {
    ngx_queue_t link;    /* in zone->groups */
    ngx_queue_t waiters; /* ngx_http_idem_ctx_t.link, the oldest first */
    uint64_t token;      /* of the attempt they wait for */
    ngx_msec_t look_ms;
    ngx_event_t timer;
    ngx_uint_t woken; /* all of them are about to ask */
};

static ngx_http_idem_ctx_t *first(const ngx_http_idem_group_t *group)
{
    return ngx_queue_data(ngx_queue_head(&group->waiters), ngx_http_idem_ctx_t, link);
}

static ngx_uint_t same_key(const ngx_http_idem_ctx_t *a, const ngx_http_idem_ctx_t *b)
{
    return a->key.len == b->key.len && ngx_memcmp(a->scope, b->scope, sizeof a->scope) == 0 &&
           ngx_memcmp(a->key.data, b->key.data, a->key.len) == 0;
}

static ngx_queue_t *bucket_of(ngx_http_idem_zone_t *zone, const ngx_http_idem_ctx_t *ctx)
{
    uint32_t hash =
        ngx_murmur_hash2((u_char *)ctx->scope, sizeof ctx->scope) ^ ngx_murmur_hash2(ctx->key.data, ctx->key.len);
    return &zone->groups[hash % NGX_HTTP_IDEM_GROUPS];
}

static ngx_http_idem_group_t *find_group(const ngx_queue_t *bucket, const ngx_http_idem_ctx_t *ctx)
{
    for (ngx_queue_t *q = ngx_queue_head(bucket); q != ngx_queue_sentinel(bucket); q = ngx_queue_next(q)) {
        ngx_http_idem_group_t *group = ngx_queue_data(q, ngx_http_idem_group_t, link);
        if (same_key(first(group), ctx))
            return group;
    }
    return NULL;
}

static void wake_all(ngx_http_idem_group_t *group)
{
    if (group->woken)
        return;
    group->woken = 1;
    for (ngx_queue_t *q = ngx_queue_head(&group->waiters); q != ngx_queue_sentinel(&group->waiters);
         q = ngx_queue_next(q)) {
        ngx_http_idem_ctx_t *ctx = ngx_queue_data(q, ngx_http_idem_ctx_t, link);
        ngx_post_event(&ctx->wake, &ngx_posted_events);
    }
    group->look_ms = LOOK_FIRST_MS;
}

/* The oldest looks for all. */
static void look(ngx_event_t *event)
{
    ngx_http_idem_group_t *group = event->data;
    ngx_http_idem_ctx_t *ctx = first(group);
    ngx_post_event(&ctx->wake, &ngx_posted_events);
    ngx_add_timer(event, group->look_ms);
    group->look_ms = ngx_min(group->look_ms + group->look_ms / 2, LOOK_LAST_MS);
}

static void wake(ngx_event_t *event)
{
    ngx_http_idem_ctx_t *ctx = event->data;
    ngx_http_request_t *r = ctx->request;
    ngx_connection_t *c = r->connection;
    if (ctx->state != NGX_HTTP_IDEM_WAITING)
        return;
    ngx_http_set_log_request(c->log, r);
    ngx_http_idem_ask(ctx);
    ngx_http_run_posted_requests(c);
}

static ngx_http_idem_group_t *make_group(ngx_queue_t *bucket)
{
    ngx_http_idem_group_t *group = ngx_calloc(sizeof *group, ngx_cycle->log);
    if (group == NULL)
        return NULL;
    group->look_ms = LOOK_FIRST_MS;
    ngx_queue_init(&group->waiters);
    group->timer.handler = look;
    group->timer.data = group;
    group->timer.log = ngx_cycle->log;
    ngx_queue_insert_tail(bucket, &group->link);
    ngx_add_timer(&group->timer, group->look_ms);
    return group;
}

static ngx_int_t join(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    ngx_connection_t *c = r->connection;
    if (ctx->conf->wait == 0 || ctx->zone->waiting >= ctx->conf->max_waiters)
        return NGX_DECLINED;
    ngx_queue_t *bucket = bucket_of(ctx->zone, ctx);
    ngx_http_idem_group_t *group = find_group(bucket, ctx);
    if (group == NULL && (group = make_group(bucket)) == NULL)
        return NGX_DECLINED;
    ctx->group = group;
    ngx_queue_insert_tail(&group->waiters, &ctx->link);
    ctx->zone->waiting++;
    ctx->waited = 1;
    ctx->waited_from = ngx_current_msec;
    ctx->wake.handler = wake;
    ctx->wake.data = ctx;
    ctx->wake.log = c->log;
    ngx_add_timer(&ctx->wake, ctx->conf->wait);
    /* A client that leaves is noticed: 499. */
    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;
    if (r->stream == NULL) {
        if (c->read->ready) {
            ngx_post_event(c->read, &ngx_posted_events);
        } else if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
            return NGX_DECLINED;
        }
    }
    return NGX_OK;
}

/* Another attempt by now: it is the one they all wait for. */
static void turn_to(ngx_http_idem_group_t *group, uint64_t token)
{
    group->token = token;
    for (ngx_queue_t *q = ngx_queue_head(&group->waiters); q != ngx_queue_sentinel(&group->waiters);
         q = ngx_queue_next(q)) {
        ngx_http_idem_ctx_t *ctx = ngx_queue_data(q, ngx_http_idem_ctx_t, link);
        ctx->wait_token = token;
    }
}

ngx_int_t ngx_http_idem_wait(ngx_http_idem_ctx_t *ctx, uint64_t token)
{
    if ((ctx->group == NULL && join(ctx) != NGX_OK) || ngx_current_msec - ctx->waited_from >= ctx->conf->wait) {
        ngx_http_idem_wait_leave(ctx, 0);
        return NGX_DECLINED;
    }
    ctx->state = NGX_HTTP_IDEM_WAITING;
    ctx->wait_token = token;
    ctx->group->woken = 0;
    if (ctx->group->token != token)
        turn_to(ctx->group, token);
    return NGX_OK;
}

void ngx_http_idem_wait_leave(ngx_http_idem_ctx_t *ctx, ngx_uint_t news)
{
    ngx_http_idem_group_t *group = ctx->group;
    if (group == NULL)
        return;
    ctx->group = NULL;
    ctx->zone->waiting--;
    ctx->waited_ms = ngx_current_msec - ctx->waited_from;
    if (ctx->wake.posted) {
        ngx_delete_posted_event(&ctx->wake);
    }
    if (ctx->wake.timer_set)
        ngx_del_timer(&ctx->wake);
    ngx_queue_remove(&ctx->link);
    if (!ngx_queue_empty(&group->waiters)) {
        if (news)
            wake_all(group);
        return;
    }
    if (group->timer.timer_set)
        ngx_del_timer(&group->timer);
    ngx_queue_remove(&group->link);
    ngx_free(group);
}

void ngx_http_idem_wait_wake(ngx_http_idem_zone_t *zone, const ngx_http_idem_ctx_t *settled)
{
    ngx_http_idem_group_t *group = zone->waiting > 0 ? find_group(bucket_of(zone, settled), settled) : NULL;
    if (group != NULL)
        wake_all(group);
}
