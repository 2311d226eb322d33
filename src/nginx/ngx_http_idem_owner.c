/*
 * nginx/ngx_http_idem_owner.c - a request that owns its key, from the claim to the end of its content.
 *
 * Owns: the heartbeat; the two request headers that tell the upstream about the claim; and that a client who leaves, or doesn't read, does not
 * take the answer with him (idem_ignore_client_abort): from then on the answer is read from the upstream as before, recorded, and thrown away.
 *
 * Invariants: an owner is in zone->owners with a claim, or has been disowned; its lease is renewed in between. A detached request passes nothing
 * on to the client, its subrequests neither, and all buffers that the upstream module gets back are marked as sent, so that it goes on reading; but not while a frame of
 * HTTP/2 points at them.
 *
 * If we die here: the claim is a dead process's: taken over at once, or held.
 */
#include "ngx_http_idem.h"

/* ------------------------------------------------------------------ headers towards the upstream */

struct name {
    ngx_str_t text;
    u_char *lower;
    ngx_uint_t hash; /* of lower; made on first use */
};
static struct name fence = {ngx_string("Idempotency-Fence"), (u_char *)"idempotency-fence", 0};
static struct name attempt = {ngx_string("Idempotency-Attempt"), (u_char *)"idempotency-attempt", 0};

/* FastCGI and its like make one parameter of - and _. */
static ngx_uint_t is(const ngx_table_elt_t *line, const struct name *name)
{
    if (line->key.len != name->text.len)
        return 0;
    for (size_t i = 0; i < line->key.len; i++) {
        u_char c = line->lowcase_key[i];
        if ((c == '_' ? '-' : c) != name->lower[i])
            return 0;
    }
    return 1;
}

static ngx_uint_t is_ours(const ngx_table_elt_t *line)
{
    return is(line, &fence) || is(line, &attempt);
}

/* Clients can't forge them. The list is made anew, since nginx's other structures point at the elements of the old one. */
ngx_int_t ngx_http_idem_strip(ngx_http_request_t *r)
{
    ngx_uint_t forged = 0, all = 0;
    for (ngx_list_part_t *part = &r->headers_in.headers.part; part != NULL; part = part->next) {
        ngx_table_elt_t *line = part->elts;
        for (ngx_uint_t i = 0; i < part->nelts; i++, all++)
            forged += is_ours(&line[i]);
    }
    if (forged == 0)
        return NGX_OK;
    ngx_list_t clean;
    if (ngx_list_init(&clean, r->pool, all, sizeof(ngx_table_elt_t)) != NGX_OK)
        return NGX_ERROR;
    for (ngx_list_part_t *part = &r->headers_in.headers.part; part != NULL; part = part->next) {
        ngx_table_elt_t *line = part->elts;
        for (ngx_uint_t i = 0; i < part->nelts; i++) {
            if (is_ours(&line[i]))
                continue;
            ngx_table_elt_t *copy = ngx_list_push(&clean);
            if (copy == NULL)
                return NGX_ERROR;
            *copy = line[i];
        }
    }
    /* A list knows its last part by address; one that has all its elements in the first part is copied whole. */
    r->headers_in.headers = clean;
    r->headers_in.headers.last = &r->headers_in.headers.part;
    return NGX_OK;
}

static ngx_int_t tell(ngx_http_request_t *r, struct name *name, uint64_t number)
{
    ngx_table_elt_t *line = ngx_list_push(&r->headers_in.headers);
    if (line == NULL)
        return NGX_ERROR;
    ngx_memzero(line, sizeof *line);
    if (name->hash == 0)
        name->hash = ngx_hash_key(name->lower, name->text.len);
    line->hash = name->hash;
    line->key = name->text;
    line->lowcase_key = name->lower;
    u_char *room = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (room == NULL)
        return NGX_ERROR;
    u_char *at = room + NGX_INT64_LEN;
    for (; number >= 100; number /= 100) {
        *--at = (u_char)('0' + number % 10);
        *--at = (u_char)('0' + number % 100 / 10);
    }
    *--at = (u_char)('0' + number % 10);
    if (number >= 10)
        *--at = (u_char)('0' + number / 10);
    line->value.data = at;
    line->value.len = (size_t)(room + NGX_INT64_LEN - at);
    return NGX_OK;
}

/* ------------------------------------------------------------------ owning */

static void renew(ngx_http_idem_ctx_t *ctx)
{
    ctx->beat_at = ngx_current_msec + (ngx_msec_t)ngx_max(ctx->lease_ms / 3, 1);
    int e = idem_renew(ctx->zone->store, &ctx->claim, 0);
    if (e != IDEM_E_LOST)
        return; /* whatever else it is, the next beat tries again */
    ctx->beating = 0;
    ngx_log_error(NGX_LOG_WARN, ctx->request->connection->log, 0,
                  "idem_zone \"%V\": the claim with token %uL was taken over while its request was on its way",
                  &ctx->zone->name, ctx->claim.token);
}

static void beat_by(ngx_http_idem_zone_t *zone, ngx_msec_t at)
{
    ngx_msec_int_t in = (ngx_msec_int_t)(at - ngx_current_msec);
    if (zone->beat.timer_set && (ngx_msec_int_t)(zone->beat.timer.key - at) <= 0)
        return;
    ngx_add_timer(&zone->beat, (ngx_msec_t)ngx_max(in, 1));
}

/* One timer for all owners of a zone: most requests are over long before theirs would be due. */
void ngx_http_idem_beat(ngx_event_t *event)
{
    ngx_http_idem_zone_t *zone = event->data;
    for (ngx_queue_t *q = ngx_queue_head(&zone->owners); q != ngx_queue_sentinel(&zone->owners);
         q = ngx_queue_next(q)) {
        ngx_http_idem_ctx_t *ctx = ngx_queue_data(q, ngx_http_idem_ctx_t, link);
        if (!ctx->beating || ctx->recording)
            continue;
        if ((ngx_msec_int_t)(ctx->beat_at - ngx_current_msec) <= 0)
            renew(ctx);
        if (ctx->beating)
            beat_by(zone, ctx->beat_at);
    }
}

/* The request is about to be freed; what was not recorded by now never will be. */
static void end_of_request(void *data)
{
    ngx_http_idem_ctx_t *ctx = data;
    if (ctx->state == NGX_HTTP_IDEM_OWNER && ctx->settled == NGX_HTTP_IDEM_UNSETTLED && !ctx->recording)
        ngx_http_idem_settle_unanswered(ctx);
}

void ngx_http_idem_disown(ngx_http_idem_ctx_t *ctx)
{
    if (ctx->state != NGX_HTTP_IDEM_OWNER)
        return;
    ctx->state = NGX_HTTP_IDEM_PASSING;
    ngx_queue_remove(&ctx->link);
}

ngx_int_t ngx_http_idem_own(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    ngx_http_cleanup_t *cleanup = ngx_http_cleanup_add(r, 0);
    if (cleanup == NULL || tell(r, &fence, ctx->claim.token) != NGX_OK ||
        tell(r, &attempt, ctx->claim.attempt) != NGX_OK)
        return NGX_ERROR;
    cleanup->handler = end_of_request;
    cleanup->data = ctx;
    ctx->state = NGX_HTTP_IDEM_OWNER;
    ngx_queue_insert_tail(&ctx->zone->owners, &ctx->link);
    if (ctx->conf->heartbeat) {
        ctx->beating = 1;
        ctx->beat_at = ngx_current_msec + (ngx_msec_t)ngx_max(ctx->lease_ms / 3, 1);
        beat_by(ctx->zone, ctx->beat_at);
    }
    return NGX_OK;
}

/*
 * Though the final answer is a refusal: an upstream got something and gave no header back, or gave an answer that would have been kept (and then
 * an internal redirect or a filter failed).
 */
ngx_uint_t ngx_http_idem_done_before(const ngx_http_idem_ctx_t *ctx)
{
    const ngx_http_request_t *r = ctx->request;
    const ngx_http_upstream_state_t *states = r->upstream_states != NULL ? r->upstream_states->elts : NULL;
    for (ngx_uint_t i = 0; states != NULL && i < r->upstream_states->nelts; i++) {
        if (states[i].peer != NULL && states[i].bytes_sent > 0 &&
            (states[i].header_time == (ngx_msec_t)-1 || ngx_http_idem_is_stored(ctx->conf, states[i].status)))
            return 1;
    }
    return 0;
}

ngx_uint_t ngx_http_idem_sent(ngx_http_request_t *r)
{
    const ngx_http_upstream_t *u = r->upstream;
    if (u != NULL && u->peer.connection != NULL && u->peer.connection->sent > 0)
        return 1;
    if (r->upstream_states == NULL)
        return 0;
    const ngx_http_upstream_state_t *states = r->upstream_states->elts;
    for (ngx_uint_t i = 0; i < r->upstream_states->nelts; i++) {
        if (states[i].bytes_sent > 0)
            return 1;
    }
    return 0;
}

/* ------------------------------------------------------------------ a client that leaves, or doesn't read */

void ngx_http_idem_consume(ngx_chain_t *chain)
{
    for (; chain != NULL; chain = chain->next) {
        chain->buf->pos = chain->buf->last;
        chain->buf->file_pos = chain->buf->file_last;
    }
}

/*
 * Frames of HTTP/2 that wait for their turn on the connection point at the buffers that were passed on, and are sent whatever became of their
 * stream: to empty one would put the frames of other streams in its place. They go out one by one, each with an event, or the connection
 * ends, and then none is left.
 */
ngx_uint_t ngx_http_idem_framed(const ngx_http_request_t *r)
{
    return r->stream != NULL && r->stream->queued > 0;
}

/*
 * Repeated at each event of a detached request, for the buffers that were still framed before. The connection doesn't look broken meanwhile: with
 * c->error set, a subrequest that ends (a mirror's) would end the request with the upstream still at work. It is set again with the answer's end.
 */
void ngx_http_idem_detach(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    ngx_connection_t *c = r->connection;
    if (!ctx->detached) {
        ctx->detached = 1;
        if (ctx->zone->counters != NULL)
            (void)ngx_atomic_fetch_add(&ctx->zone->counters->aborted, 1);
        ngx_log_error(NGX_LOG_INFO, c->log, 0,
                      "idem: the client left before its answer was complete; the answer is recorded all the same");
    }
    c->error = 0;
    c->write->ready = 1;
    c->write->delayed = 0;
    if (c->write->timer_set)
        ngx_del_timer(c->write);
    if (r->upstream == NULL || ngx_http_idem_framed(r))
        return;
    ngx_http_idem_consume(r->upstream->busy_bufs);
    ngx_http_idem_consume(r->upstream->out_bufs);
    if (r->upstream->pipe != NULL)
        ngx_http_idem_consume(r->upstream->pipe->busy);
}

/* In the place of the upstream module's own handler, which ends the request when a client doesn't read. */
static void guarded_write(ngx_http_request_t *r)
{
    ngx_http_idem_ctx_t *ctx = ngx_http_idem_ctx(r);
    ngx_event_t *write = r->connection->write;
    if (write->timedout) {
        write->timedout = 0;
        r->connection->timedout = 1;
        ngx_log_error(NGX_LOG_INFO, r->connection->log, NGX_ETIMEDOUT, "client timed out");
        ngx_http_idem_detach(ctx);
    } else if (ctx->detached) {
        ngx_http_idem_detach(ctx);
    }
    ctx->write_handler(r);
}

ngx_uint_t ngx_http_idem_guarded(const ngx_http_idem_ctx_t *ctx)
{
    const ngx_http_upstream_t *u = ctx->request->upstream;
    return ctx->conf->ignore_client_abort && ctx->settled == NGX_HTTP_IDEM_UNSETTLED && u != NULL && !u->upgrade &&
           u->cleanup != NULL;
}

void ngx_http_idem_guard_writes(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    if (!ngx_http_idem_guarded(ctx) || r->write_event_handler == guarded_write)
        return;
    ctx->write_handler = r->write_event_handler;
    r->write_event_handler = guarded_write;
}

/* In the place of a look at the client: over HTTP/2 its leaving is an event here. */
static void left(ngx_http_request_t *r)
{
    ngx_http_idem_ctx_t *ctx = ngx_http_idem_ctx(r);
    ngx_http_block_reading(r);
    if (r->connection->error && ngx_http_idem_guarded(ctx))
        ngx_http_idem_detach(ctx);
}

/*
 * An upstream module's settings as an owner needs them: a request that was sent once is not sent to another upstream, whatever location it has got
 * to meanwhile; and nobody looks whether the client is still there (the modules' own ..._ignore_client_abort would do that, but grpc has none). Made
 * once for a location and its usual upstream, since it is as large as all the rest that we need for a request. NULL: no memory.
 */
static ngx_http_upstream_conf_t *settings(const ngx_http_idem_ctx_t *ctx, const ngx_http_upstream_conf_t *from)
{
    ngx_uint_t repeatable = (ctx->request->method & (NGX_HTTP_POST | NGX_HTTP_PATCH | NGX_HTTP_LOCK)) == 0;
    ngx_http_idem_upstream_t *usual = &ctx->conf->upstreams[repeatable];
    if (usual->from == from)
        return usual->copy;
    ngx_http_upstream_conf_t *copy =
        ngx_palloc(usual->from == NULL ? ngx_cycle->pool : ctx->request->pool, sizeof *copy);
    if (copy == NULL)
        return NULL;
    *copy = *from;
    if (repeatable) /* nginx would repeat it without a word, sent or not: this PUT is guarded because its effect counts */
        copy->next_upstream = 0;
    else
        copy->next_upstream &= ~(ngx_uint_t)NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT;
    if (ctx->conf->ignore_client_abort)
        copy->ignore_client_abort = 1;
    if (usual->from == NULL) {
        usual->from = from;
        usual->copy = copy;
    }
    return copy;
}

/* The content handler as it was, and then our settings. What the upstream module has not begun yet (it waits for a lock of its cache) will see
   them. u->conf is NULL when the module gave up before it had an address. */
static ngx_int_t content(ngx_http_request_t *r)
{
    ngx_http_idem_ctx_t *ctx = ngx_http_idem_ctx(r);
    ngx_int_t rc = ctx->content_handler(r);
    ngx_http_upstream_t *u = r->upstream;
    if (u == NULL || u->conf == NULL || u->header_sent || u->upgrade)
        return rc;
    const ngx_http_upstream_conf_t *before = u->conf;
    ngx_http_upstream_conf_t *ours = settings(ctx, before);
    if (ours == NULL) {
        ngx_log_error(NGX_LOG_ALERT, r->connection->log, 0,
                      "idem: no memory to guard a request against being sent twice");
        return rc;
    }
    u->conf = ours;
    if (u->cleanup != NULL && ours->ignore_client_abort && !before->ignore_client_abort) {
        r->read_event_handler = left;
        r->write_event_handler = ngx_http_request_empty_handler;
    }
    return rc;
}

void ngx_http_idem_own_content(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    ctx->content = 1;
    if (r->content_handler != NULL && r->content_handler != content) {
        ctx->content_handler = r->content_handler;
        r->content_handler = content;
    }
}
