/*
 * nginx/ngx_http_idem_record.c - how a claim is settled.
 *
 * Owns: the one moment after which duplicates are told something else. Where a zone wants answers on the disk before they are given out
 * (durability=sync), a thread of nginx's pool waits for the disk and the event loop goes on; the end of the answer is held back meanwhile, and
 * all that wait at the same time share the library's one write.
 *
 * Invariants: a claim is settled once, by the last buffer or by the request's clean-up; between posting a task and its end (ctx->recording)
 * nobody else touches the claim, and the request is not freed (main->blocked). A fenced owner changes nothing.
 *
 * If we die here: before the library's call the claim is a dead process's; after it the answer is there, whether the client got it or not.
 */
#include "ngx_http_idem.h"

struct work {
    ngx_http_idem_ctx_t *ctx;
    idem_store *store;
    idem_response response;
    int result;
    char detail[256];
};

static void warn(ngx_http_idem_ctx_t *ctx, const char *what, int e, const char *detail)
{
    ngx_uint_t level = e == IDEM_E_LOST ? NGX_LOG_WARN : NGX_LOG_ERR;
    ngx_log_error(level, ctx->request->connection->log, 0, "idem_zone \"%V\", token %uL: %s: %s: %s", &ctx->zone->name,
                  ctx->claim.token, what, idem_strerror(e), detail);
}

static void settled(ngx_http_idem_ctx_t *ctx, ngx_http_idem_settled_e how)
{
    ngx_http_idem_count_settled(ctx, how);
    ngx_http_idem_disown(ctx);
    ngx_http_idem_wait_wake(ctx->zone, ctx);
}

static void failed(ngx_http_idem_ctx_t *ctx, const char *what, int e, const char *detail)
{
    warn(ctx, what, e, detail);
    settled(ctx, e == IDEM_E_LOST || e == IDEM_E_NO_KEY ? NGX_HTTP_IDEM_FENCED : NGX_HTTP_IDEM_SETTLE_FAILED);
}

static uint32_t durability(const ngx_http_idem_zone_t *zone, ngx_uint_t answer)
{
    if (zone->wal.len == 0)
        return IDEM_DURABILITY_DEFAULT;
    return answer ? zone->durability : ngx_min(zone->durability, IDEM_DURABILITY_ASYNC);
}

static void fill(ngx_http_idem_ctx_t *ctx, idem_response *response)
{
    *response = (idem_response)IDEM_RESPONSE_INIT;
    response->status = (int32_t)ctx->answer_status;
    response->meta = ctx->meta.data;
    response->meta_bytes = ctx->meta.len;
    response->body = ctx->body_kept > 0 ? ctx->body : NULL;
    response->body_bytes = ctx->body_kept;
    response->ttl_ms = ctx->answer_ttl_ms;
    response->durability = durability(ctx->zone, 1);
    if (ctx->overflow) {
        response->flags = IDEM_RESPONSE_NOT_RETAINED;
        response->meta = response->body = NULL;
        response->body_bytes = (size_t)ctx->body_total;
    }
}

static void abandon(ngx_http_idem_ctx_t *ctx, int why)
{
    int e = idem_abandon(ctx->zone->store, &ctx->claim, why);
    if (e != IDEM_OK)
        failed(ctx, "the claim could not be given back", e, idem_error_detail());
    else
        settled(ctx, why == IDEM_OUTCOME_UNKNOWN && ctx->conf->ambiguous == NGX_HTTP_IDEM_HOLD
                         ? NGX_HTTP_IDEM_HELD
                         : NGX_HTTP_IDEM_ABANDONED);
}

/* Those who are waiting get the failure too, so that they don't repeat it one after another. */
static void share(ngx_http_idem_ctx_t *ctx)
{
    idem_response response;
    if (!ctx->conf->share_failures || ctx->overflow) {
        abandon(ctx, IDEM_NOTHING_HAPPENED);
        return;
    }
    fill(ctx, &response);
    response.flags = IDEM_RESPONSE_TRANSIENT;
    response.ttl_ms = 0;
    response.durability = durability(ctx->zone, 0);
    int e = idem_complete(ctx->zone->store, &ctx->claim, &response);
    if (e == IDEM_E_FULL || e == IDEM_E_TOO_BIG)
        abandon(ctx, IDEM_NOTHING_HAPPENED);
    else if (e < 0)
        failed(ctx, "the failure could not be shared", e, idem_error_detail());
    else
        settled(ctx, NGX_HTTP_IDEM_SETTLED_SHARED);
}

static void completed(ngx_http_idem_ctx_t *ctx, int e, const char *detail)
{
    if (e < 0)
        failed(ctx, "the answer could not be recorded", e, detail);
    else
        settled(ctx, e == IDEM_TOMBSTONE ? NGX_HTTP_IDEM_TOMBSTONE : NGX_HTTP_IDEM_STORED);
}

/* An answer that should be on the disk and is not is not given out; the client asks again and gets it when the disk is back. */
static ngx_uint_t withheld(const ngx_http_idem_ctx_t *ctx, int e)
{
    return e < 0 && e != IDEM_E_LOST && ctx->zone->durability == IDEM_DURABILITY_SYNC && !ctx->conf->fail_open;
}

/* ------------------------------------------------------------------ beside the event loop */

static void complete_in_thread(void *data, ngx_log_t *log)
{
    struct work *work = data;
    (void)log;
    work->result = idem_complete(work->store, &work->ctx->claim, &work->response);
    if (work->result < 0)
        ngx_cpystrn((u_char *)work->detail, (u_char *)idem_error_detail(), sizeof work->detail);
}

static void thread_done(ngx_event_t *event)
{
    struct work *work = event->data;
    ngx_http_idem_ctx_t *ctx = work->ctx;
    ngx_http_request_t *r = ctx->request;
    ngx_connection_t *c = r->connection;
    ngx_http_set_log_request(c->log, r);
    r->main->blocked--;
    ctx->recording = 0;
    completed(ctx, work->result, work->detail);
    if (withheld(ctx, work->result))
        c->error = 1;
    if (!c->error && ngx_http_idem_pass_held(ctx) == NGX_ERROR)
        c->error = 1;
    r->write_event_handler(r);
    ngx_http_run_posted_requests(c);
}

static ngx_int_t post(ngx_http_idem_ctx_t *ctx)
{
    ngx_thread_task_t *task = ngx_thread_task_alloc(ctx->request->pool, sizeof(struct work));
    if (task == NULL)
        return NGX_ERROR;
    struct work *work = task->ctx;
    work->ctx = ctx;
    work->store = ctx->zone->store;
    fill(ctx, &work->response);
    task->handler = complete_in_thread;
    task->event.handler = thread_done;
    task->event.data = work;
    if (ngx_thread_task_post(ctx->zone->threads, task) != NGX_OK)
        return NGX_ERROR;
    ctx->request->main->blocked++;
    ctx->recording = 1;
    return NGX_OK;
}

ngx_uint_t ngx_http_idem_records_beside(const ngx_http_idem_ctx_t *ctx)
{
    /* An error page in the place of an answer that a filter gave up has to be done with when the filter goes on. */
    return ctx->zone->threads != NULL && !ctx->request->filter_finalize &&
           (ctx->keep == NGX_HTTP_IDEM_KEEP_ANSWER ||
            (ctx->keep == NGX_HTTP_IDEM_KEEP_UNKNOWN && ctx->conf->ambiguous == NGX_HTTP_IDEM_STORE));
}

/* ------------------------------------------------------------------ settling */

ngx_int_t ngx_http_idem_record(ngx_http_idem_ctx_t *ctx)
{
    if (ctx->state != NGX_HTTP_IDEM_OWNER)
        return NGX_OK;
    if (ctx->keep == NGX_HTTP_IDEM_KEEP_NOTHING) {
        share(ctx);
        return NGX_OK;
    }
    if (ctx->keep == NGX_HTTP_IDEM_KEEP_UNKNOWN && ctx->conf->ambiguous != NGX_HTTP_IDEM_STORE) {
        abandon(ctx, IDEM_OUTCOME_UNKNOWN);
        return NGX_OK;
    }
    if (ngx_http_idem_records_beside(ctx) && post(ctx) == NGX_OK)
        return NGX_AGAIN;
    idem_response response;
    fill(ctx, &response);
    int e = idem_complete(ctx->zone->store, &ctx->claim, &response);
    completed(ctx, e, idem_error_detail());
    return withheld(ctx, e) ? NGX_ERROR : NGX_OK;
}

/* The request ends and its answer never did. */
void ngx_http_idem_settle_unanswered(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    /* Content that no upstream made may have had its effect too. */
    if (!ngx_http_idem_sent(r) && !(ctx->content && r->upstream == NULL)) {
        abandon(ctx, IDEM_NOTHING_HAPPENED);
        return;
    }
    if (ctx->conf->ambiguous != NGX_HTTP_IDEM_STORE) {
        abandon(ctx, IDEM_OUTCOME_UNKNOWN);
        return;
    }
    idem_response response = IDEM_RESPONSE_INIT;
    response.status = NGX_HTTP_BAD_GATEWAY;
    response.flags = IDEM_RESPONSE_NOT_RETAINED;
    response.durability = durability(ctx->zone, 0);
    int e = idem_complete(ctx->zone->store, &ctx->claim, &response);
    completed(ctx, e, idem_error_detail());
}
