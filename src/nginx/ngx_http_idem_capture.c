/*
 * nginx/ngx_http_idem_capture.c - the owner's answer on its way to the client.
 *
 * Owns: the copy of an answer: its head (ctx->meta) and its body, up to idem_max_body. We are the first filter, so what is copied is what the
 * content handler or the upstream gave, before ranges, gzip, SSI or sub_filter change it for this one client.
 *
 * Invariants: the last byte (or, known from its length, the last bytes) is passed on only after the answer was recorded; an answer without its end
 * is never recorded as an answer. An error page or a filter that changes its mind starts the copy anew: what is recorded is the answer that the
 * client was given.
 *
 * If we die here: the claim is a dead process's. The client may have part of an answer, never all of it.
 */
#include "ngx_http_idem.h"

#include "idem_http_meta.h"

#define FIRST_ROOM 4096

ngx_http_output_header_filter_pt ngx_http_idem_next_header;
ngx_http_output_body_filter_pt ngx_http_idem_next_body;

/* ------------------------------------------------------------------ the head */

/* Never part of a stored answer: what belongs to one client, one connection, or one moment. */
static const char *const hidden[] = {"set-cookie",
                                     "set-cookie2",
                                     "authorization",
                                     "www-authenticate",
                                     "proxy-authenticate",
                                     "proxy-authorization",
                                     "authentication-info",
                                     "proxy-authentication-info",
                                     "connection",
                                     "keep-alive",
                                     "proxy-connection",
                                     "te",
                                     "trailer",
                                     "transfer-encoding",
                                     "upgrade",
                                     "date",
                                     "age",
                                     "content-length",
                                     "idempotency-replayed"};
/* These are made anew for each answer, whatever idem_store_headers says. */
static const char *const never[] = {"connection", "keep-alive",     "transfer-encoding",
                                    "upgrade",    "content-length", "trailer"};

static ngx_uint_t among(const char *const *names, size_t n, const ngx_str_t *key)
{
    for (size_t i = 0; i < n; i++) {
        if (ngx_http_idem_named(key, names[i], ngx_strlen(names[i])))
            return 1;
    }
    return 0;
}

static ngx_uint_t listed(const ngx_array_t *names, const ngx_str_t *key)
{
    const ngx_str_t *name = names != NULL ? names->elts : NULL;
    for (ngx_uint_t i = 0; names != NULL && i < names->nelts; i++) {
        if (ngx_http_idem_named(key, name[i].data, name[i].len))
            return 1;
    }
    return 0;
}

static ngx_uint_t is_kept(const ngx_http_idem_ctx_t *ctx, const ngx_table_elt_t *line)
{
    if (line->hash == 0 || among(never, sizeof never / sizeof *never, &line->key) ||
        listed(ctx->conf->hide_headers, &line->key))
        return 0;
    return listed(ctx->conf->store_headers, &line->key) || !among(hidden, sizeof hidden / sizeof *hidden, &line->key);
}

/* What meta is written into; at NULL: only measured. */
struct sink {
    u_char *at;
    size_t bytes;
};

static void keep(struct sink *sink, unsigned kind, const ngx_str_t *name, const ngx_str_t *value)
{
    struct idem_http_meta record = {kind, name != NULL ? name->data : NULL, value->data, name != NULL ? name->len : 0,
                                    value->len};
    size_t n = idem_http_meta_bytes(&record);
    if (n > 0 && sink->at != NULL)
        sink->at = idem_http_meta_write(sink->at, &record);
    sink->bytes += n;
}

static void keep_number(struct sink *sink, unsigned kind, uint64_t number)
{
    u_char bytes[8];
    ngx_str_t value = {sizeof bytes, bytes};
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (u_char)(number >> (8 * i));
    keep(sink, kind, NULL, &value);
}

static void keep_list(const ngx_http_idem_ctx_t *ctx, struct sink *sink, const ngx_list_t *list, unsigned kind)
{
    const ngx_http_headers_out_t *out = &ctx->request->headers_out;
    for (const ngx_list_part_t *part = &list->part; part != NULL; part = part->next) {
        const ngx_table_elt_t *line = part->elts;
        for (ngx_uint_t i = 0; i < part->nelts; i++) {
            if (!is_kept(ctx, &line[i]))
                continue;
            /* nginx makes such a Location absolute on its way out, for the replay too. */
            ngx_uint_t relative = &line[i] == out->location && line[i].value.len > 0 && line[i].value.data[0] == '/';
            keep(sink, relative ? IDEM_HTTP_META_LOCATION : kind, &line[i].key, &line[i].value);
        }
    }
}

static void keep_head(const ngx_http_idem_ctx_t *ctx, struct sink *sink)
{
    ngx_http_request_t *r = ctx->request;
    ngx_http_headers_out_t *out = &r->headers_out;
    u_char version = IDEM_HTTP_META_VERSION;
    if (sink->at != NULL)
        *sink->at++ = version;
    sink->bytes++;
    if (out->status_line.len > 0)
        keep(sink, IDEM_HTTP_META_STATUS_LINE, NULL, &out->status_line);
    if (out->content_type.len > 0) {
        ngx_str_t type = {ngx_min(out->content_type_len, out->content_type.len), out->content_type.data};
        keep(sink, IDEM_HTTP_META_CONTENT_TYPE, &type, &out->content_type);
        if (out->charset.len > 0)
            keep(sink, IDEM_HTTP_META_CHARSET, NULL, &out->charset);
    }
    if (out->last_modified == NULL && out->last_modified_time != -1) {
        keep_number(sink, IDEM_HTTP_META_LAST_MODIFIED, (uint64_t)out->last_modified_time);
    }
    if (r->method == NGX_HTTP_HEAD && out->content_length_n >= 0)
        keep_number(sink, IDEM_HTTP_META_LENGTH, (uint64_t)out->content_length_n);
    keep_list(ctx, sink, &out->headers, IDEM_HTTP_META_HEADER);
}

/* Trailers come with the last buffer, so they are added to a head that is there. */
static ngx_int_t capture_trailers(ngx_http_idem_ctx_t *ctx)
{
    struct sink measure = {NULL, 0};
    keep_list(ctx, &measure, &ctx->request->headers_out.trailers, IDEM_HTTP_META_TRAILER);
    if (measure.bytes == 0)
        return NGX_OK;
    u_char *all = ngx_pnalloc(ctx->request->pool, ctx->meta.len + measure.bytes);
    if (all == NULL)
        return NGX_ERROR;
    struct sink sink = {ngx_cpymem(all, ctx->meta.data, ctx->meta.len), 0};
    keep_list(ctx, &sink, &ctx->request->headers_out.trailers, IDEM_HTTP_META_TRAILER);
    ctx->meta.data = all;
    ctx->meta.len += measure.bytes;
    return NGX_OK;
}

static ngx_int_t capture_head(ngx_http_idem_ctx_t *ctx)
{
    struct sink measure = {NULL, 0};
    keep_head(ctx, &measure);
    ctx->meta.data = ngx_pnalloc(ctx->request->pool, measure.bytes);
    if (ctx->meta.data == NULL)
        return NGX_ERROR;
    ctx->meta.len = measure.bytes;
    struct sink sink = {ctx->meta.data, 0};
    keep_head(ctx, &sink);
    return NGX_OK;
}

/* ------------------------------------------------------------------ what is it worth? */

/* Did an answer arrive at all? A header did, from the last upstream that was asked; or the content was made here. */
static ngx_uint_t answered(ngx_http_request_t *r)
{
    if (r->http_version == NGX_HTTP_VERSION_9 || r->headers_out.status < NGX_HTTP_OK)
        return 0; /* what came had no header */
    if (r->upstream_states == NULL || r->upstream_states->nelts == 0)
        return 1;
    const ngx_http_upstream_state_t *last = r->upstream_states->elts;
    last += r->upstream_states->nelts - 1;
    return last->peer != NULL && last->header_time != (ngx_msec_t)-1;
}

ngx_uint_t ngx_http_idem_is_stored(const ngx_http_idem_loc_conf_t *conf, ngx_uint_t status)
{
    return status / 64 < NGX_HTTP_IDEM_STATUS_WORDS && ((conf->store_status[status / 64] >> (status % 64)) & 1);
}

static ngx_http_idem_keep_e judge(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    ngx_uint_t status = r->headers_out.status;
    if (!answered(r))
        return ngx_http_idem_sent(r) ? NGX_HTTP_IDEM_KEEP_UNKNOWN : NGX_HTTP_IDEM_KEEP_NOTHING;
    if (ngx_http_idem_is_stored(ctx->conf, status))
        return NGX_HTTP_IDEM_KEEP_ANSWER;
    /* A script that failed may have asked upstreams of its own. */
    if (r->upstream == NULL && ctx->content && status >= NGX_HTTP_INTERNAL_SERVER_ERROR)
        return NGX_HTTP_IDEM_KEEP_UNKNOWN;
    return ngx_http_idem_done_before(ctx) ? NGX_HTTP_IDEM_KEEP_UNKNOWN : NGX_HTTP_IDEM_KEEP_NOTHING;
}

/* The upstream may say how long its answer is good for; the client isn't told. */
static void take_ttl(ngx_http_idem_ctx_t *ctx)
{
    static ngx_str_t name = ngx_string("X-Idempotency-TTL");
    for (ngx_list_part_t *part = &ctx->request->headers_out.headers.part; part != NULL; part = part->next) {
        ngx_table_elt_t *line = part->elts;
        for (ngx_uint_t i = 0; i < part->nelts; i++) {
            if (line[i].hash == 0 || !ngx_http_idem_named(&line[i].key, name.data, name.len))
                continue;
            line[i].hash = 0;
            int64_t ms = ngx_http_idem_time_ms(&line[i].value);
            if (ms > 0)
                ctx->answer_ttl_ms = ngx_max(ctx->conf->ttl_min_ms, ngx_min(ms, ctx->conf->ttl_max_ms));
            else
                ngx_log_error(NGX_LOG_ERR, ctx->request->connection->log, 0,
                              "the upstream's X-Idempotency-TTL is not a time: \"%V\"", &line[i].value);
        }
    }
}

static ngx_uint_t is_header_only(ngx_http_request_t *r)
{
    return r->header_only || r->method == NGX_HTTP_HEAD || r->headers_out.status == NGX_HTTP_NO_CONTENT ||
           r->headers_out.status == NGX_HTTP_NOT_MODIFIED;
}

static ngx_int_t pass_header(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    ngx_uint_t wanted = ngx_http_idem_guarded(ctx);
    if (ctx->detached && wanted) {
        r->header_sent = 1;
        return NGX_OK;
    }
    ngx_int_t rc = ngx_http_idem_next_header(r);
    if (rc == NGX_ERROR && r->connection->error && wanted) {
        ngx_http_idem_detach(ctx);
        return NGX_OK;
    }
    return rc;
}

ngx_int_t ngx_http_idem_header(ngx_http_request_t *r)
{
    ngx_http_idem_ctx_t *ctx = r == r->main ? ngx_http_idem_ctx(r) : NULL;
    if (ctx == NULL || ctx->state != NGX_HTTP_IDEM_OWNER)
        return ngx_http_idem_next_header(r);
    ctx->answer_ttl_ms = 0;
    take_ttl(ctx);
    ctx->keep = judge(ctx);
    ctx->answer_status = r->headers_out.status;
    ctx->capturing = 1;
    ctx->overflow = 0;
    ctx->deferred = 0;
    ctx->body_kept = 0;
    ctx->body_total = 0;
    if (capture_head(ctx) != NGX_OK)
        return NGX_ERROR;
    ctx->length = r->headers_out.content_length_n; /* other filters will change it */
    if (ctx->length > (off_t)ctx->conf->max_body)
        ctx->overflow = 1;
    if (ctx->answer_status < NGX_HTTP_OK) /* bytes without a header (HTTP/0.9): nothing that could be given again */
        ctx->overflow = 1;
    if (is_header_only(r)) {
        if (ngx_http_idem_records_beside(ctx)) {
            ctx->deferred = 1;
            return NGX_OK;
        }
        if (ngx_http_idem_record(ctx) == NGX_ERROR)
            return NGX_ERROR;
    }
    return pass_header(ctx);
}

/* ------------------------------------------------------------------ the body */

static u_char *room_for(ngx_http_idem_ctx_t *ctx, size_t n)
{
    if (ctx->overflow || n > ctx->conf->max_body - ctx->body_kept) {
        ctx->overflow = 1;
        return NULL;
    }
    if (ctx->body_room - ctx->body_kept < n) {
        off_t length = ctx->length;
        size_t room = ngx_max(ctx->body_room * 2, FIRST_ROOM);
        if (length > 0 && length <= (off_t)ctx->conf->max_body)
            room = (size_t)length;
        room = ngx_min(ngx_max(room, ctx->body_kept + n), ctx->conf->max_body);
        u_char *body = ngx_pnalloc(ctx->request->pool, room);
        if (body == NULL) {
            ctx->overflow = 1;
            return NULL;
        }
        if (ctx->body_kept > 0)
            ngx_memcpy(body, ctx->body, ctx->body_kept);
        ctx->body = body;
        ctx->body_room = room;
    }
    return ctx->body + ctx->body_kept;
}

static void capture(ngx_http_idem_ctx_t *ctx, ngx_buf_t *b)
{
    if (ngx_buf_special(b))
        return;
    off_t size = ngx_buf_size(b);
    ctx->body_total += size;
    u_char *room = size > 0 ? room_for(ctx, (size_t)size) : NULL;
    if (room == NULL)
        return;
    if (ngx_buf_in_memory(b)) {
        ngx_memcpy(room, b->pos, (size_t)size);
    } else {
        ssize_t n = ngx_read_file(b->file, room, (size_t)size, b->file_pos);
        if (n != (ssize_t)size) {
            ctx->overflow = 1; /* the answer goes on to the client; duplicates are told that it was not kept */
            return;
        }
    }
    ctx->body_kept += (size_t)size;
}

static ngx_int_t pass_body(ngx_http_idem_ctx_t *ctx, ngx_chain_t *in)
{
    ngx_http_request_t *r = ctx->request;
    if (ctx->detached) {
        ngx_http_idem_consume(in);
        ngx_http_idem_detach(ctx);
        r->connection->error = ctx->state != NGX_HTTP_IDEM_OWNER; /* that was the end of it */
        return NGX_OK;
    }
    ngx_uint_t wanted = ngx_http_idem_guarded(ctx);
    ngx_http_idem_guard_writes(ctx);
    ngx_int_t rc = ngx_http_idem_next_body(r, in);
    if (rc == NGX_ERROR && r->connection->error && wanted) {
        ngx_http_idem_detach(ctx);
        if (!ngx_http_idem_framed(r))
            ngx_http_idem_consume(in);
        return NGX_OK;
    }
    return rc;
}

/* What waited for the disk goes on. */
ngx_int_t ngx_http_idem_pass_held(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    ngx_chain_t *held = ctx->held;
    ctx->held = NULL;
    r->buffered &= ~(unsigned)NGX_HTTP_IDEM_BUFFERED & 0xf;
    if (ctx->deferred) {
        ctx->deferred = 0;
        ngx_int_t rc = pass_header(ctx);
        if (rc == NGX_ERROR || rc > NGX_OK)
            return NGX_ERROR;
        if (r->header_only) { /* that was all of it */
            ngx_http_idem_consume(held);
            return rc;
        }
    }
    return pass_body(ctx, held);
}

/* Content that doesn't know yet that only its header is wanted gives a body too: it is dropped. */
static ngx_int_t hold(ngx_http_idem_ctx_t *ctx, ngx_chain_t *in)
{
    if (ctx->deferred)
        ngx_http_idem_consume(in);
    if (ngx_chain_add_copy(ctx->request->pool, &ctx->held, in) != NGX_OK)
        return NGX_ERROR;
    ctx->request->buffered |= NGX_HTTP_IDEM_BUFFERED;
    return NGX_AGAIN;
}

/*
 * The upstream ended in the middle of its answer: nginx flushes what there is, closes its side, and may then linger for half a minute over what the
 * client still sends before it frees the request.
 */
static ngx_uint_t is_cut_off(ngx_http_request_t *r, const ngx_chain_t *in)
{
    const ngx_http_upstream_t *u = r->upstream;
    return u != NULL && u->header_sent && u->cleanup == NULL && in != NULL && in->next == NULL && in->buf->flush &&
           !in->buf->last_buf && ngx_buf_special(in->buf);
}

ngx_int_t ngx_http_idem_body(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_http_idem_ctx_t *ctx = ngx_http_idem_ctx(r->main);
    if (ctx == NULL || !ctx->capturing)
        return ngx_http_idem_next_body(r, in);
    if (r != r->main) {
        if (!ctx->detached)
            return ngx_http_idem_next_body(r, in);
        ngx_http_idem_consume(in);
        return NGX_OK;
    }
    if (ctx->recording)
        return hold(ctx, in);
    if (ctx->state == NGX_HTTP_IDEM_OWNER && is_cut_off(r, in))
        ngx_http_idem_settle_unanswered(ctx);
    if (ctx->state == NGX_HTTP_IDEM_OWNER && in != NULL) {
        ngx_uint_t last = 0;
        for (ngx_chain_t *link = in; link != NULL; link = link->next) {
            if (!ctx->deferred)
                capture(ctx, link->buf);
            last |= link->buf->last_buf;
        }
        /* With a length the client knows the end when it sees it, and so do we. */
        if (ctx->length > 0 && ctx->body_total == ctx->length)
            last = 1;
        if (last && ctx->length >= 0 && ctx->body_total != ctx->length && !is_header_only(r)) {
            ngx_http_idem_settle_unanswered(ctx); /* an end, but not of the answer that was announced */
        } else if (last) {
            if (capture_trailers(ctx) != NGX_OK)
                return NGX_ERROR;
            ngx_int_t rc = ngx_http_idem_record(ctx);
            if (rc != NGX_OK)
                return rc == NGX_AGAIN ? hold(ctx, in) : NGX_ERROR;
        }
    }
    if (!ctx->deferred)
        return pass_body(ctx, in);
    if (hold(ctx, in) == NGX_ERROR)
        return NGX_ERROR;
    return ctx->state == NGX_HTTP_IDEM_OWNER ? NGX_AGAIN : ngx_http_idem_pass_held(ctx);
}
