/*
 * nginx/ngx_http_idem_answer.c - the answers that the module gives itself: problems (RFC 9457) and replays.
 *
 * Owns no state. Both go through all of nginx's filters like any other content. A replay's head comes from the store: whoever may write that is
 * trusted, and still no byte of it is used before it was found to fit.
 *
 * If we die here: a client has half an answer of a thing that is settled; it asks again and gets the same.
 */
#include "ngx_http_idem.h"

#include "idem_http_meta.h"

struct problem {
    ngx_uint_t status;
    ngx_str_t status_line;
    const char *slug, *title, *detail, *retry;
};

/* In the order of ngx_http_idem_problem_e. */
static const struct problem problems[] = {
    {400, ngx_null_string, "key-missing", "Idempotency key is missing",
     "This operation needs an idempotency key, so that a retry doesn't run it twice. Send a new key with each new "
     "request.",
     "new_key"},
    {400, ngx_null_string, "key-invalid", "Idempotency key is not valid", NULL, "new_key"},
    {422, ngx_string("422 Unprocessable Content"), "key-reused", "Idempotency key was used for another request",
     "This key came with a different request before. Use a new key for this one.", "new_key"},
    {409, ngx_null_string, "in-progress", "The first request with this key is still being processed",
     "Wait, and send the same request with the same key again: it will get the first one's answer.", "same_key"},
    {409, ngx_null_string, "outcome-unknown", "Nobody knows what became of the first request with this key",
     "It was sent to the service, but no answer came back, so it may have had its effect. Retries are held until it is "
     "settled. Don't "
     "use a new key before you know: that could do it twice. The same key gives the answer when it is settled.",
     "same_key"},
    {409, ngx_null_string, "not-retained", "The first request was processed, its answer is not kept",
     "It ran, and will not run again under this key; its answer was too large to be kept. Ask the service for the "
     "result.",
     "none"},
    {503, ngx_null_string, "store-unavailable", "It can't be told now whether this request was processed before",
     "Nothing was done. Send the same request with the same key again.", "same_key"},
};

static ngx_int_t add_header(ngx_http_request_t *r, const char *name, const ngx_str_t *value)
{
    ngx_table_elt_t *line = ngx_list_push(&r->headers_out.headers);
    if (line == NULL)
        return NGX_ERROR;
    ngx_memzero(line, sizeof *line);
    line->hash = 1;
    line->key.data = (u_char *)name;
    line->key.len = ngx_strlen(name);
    line->value = *value;
    return NGX_OK;
}

static ngx_int_t add_number(ngx_http_request_t *r, const char *name, int64_t number)
{
    u_char *text = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (text == NULL)
        return NGX_ERROR;
    ngx_str_t value = {(size_t)(ngx_sprintf(text, "%L", number) - text), text};
    return add_header(r, name, &value);
}

/* A configured text between quotes. */
static u_char *json_text(u_char *at, const ngx_str_t *text)
{
    return (u_char *)ngx_escape_json(at, text->data, text->len);
}

static ngx_int_t problem_body(ngx_http_idem_ctx_t *ctx, const struct problem *p, const char *detail, ngx_str_t *body)
{
    const ngx_str_t *url = &ctx->conf->policy_url;
    ngx_str_t detail_text = {ngx_strlen(detail), (u_char *)detail};
    size_t room = url->len + ngx_escape_json(NULL, url->data, url->len) + detail_text.len +
                  ngx_escape_json(NULL, detail_text.data, detail_text.len) + ngx_strlen(p->title) + 256;
    u_char *at = body->data = ngx_pnalloc(ctx->request->pool, room);
    if (at == NULL)
        return NGX_ERROR;
    at = ngx_sprintf(at, "{\"type\":\"");
    if (url->len > 0) {
        at = json_text(at, url);
        *at++ = '#';
    } else {
        at = ngx_sprintf(at, "urn:idem:problem:");
    }
    at = ngx_sprintf(at, "%s\",\"title\":\"%s\",\"status\":%ui,\"detail\":\"", p->slug, p->title, p->status);
    at = json_text(at, &detail_text);
    at = ngx_sprintf(at, "\",\"retry\":\"%s\"}\n", p->retry);
    body->len = (size_t)(at - body->data);
    return NGX_OK;
}

static ngx_int_t add_link(ngx_http_idem_ctx_t *ctx)
{
    const ngx_str_t *url = &ctx->conf->policy_url;
    ngx_str_t value;
    if (url->len == 0)
        return NGX_OK;
    value.data = ngx_pnalloc(ctx->request->pool, url->len + sizeof "<>; rel=\"describedby\"");
    if (value.data == NULL)
        return NGX_ERROR;
    value.len = (size_t)(ngx_sprintf(value.data, "<%V>; rel=\"describedby\"", url) - value.data);
    return add_header(ctx->request, "Link", &value);
}

/* The head and the body, and what ngx_http_finalize_request() wants to know. */
static ngx_int_t send_answer(ngx_http_request_t *r, u_char *bytes, size_t n)
{
    ngx_int_t rc = ngx_http_send_header(r);
    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only)
        return rc;
    ngx_buf_t *b = ngx_calloc_buf(r->pool);
    if (b == NULL)
        return NGX_ERROR;
    b->pos = b->start = bytes;
    b->last = b->end = bytes + n;
    b->memory = n > 0;
    b->last_buf = 1;
    b->last_in_chain = 1;
    ngx_chain_t out = {b, NULL};
    return ngx_http_output_filter(r, &out);
}

/* As nothing had been said before: an error page may have been on its way here. */
static void clean_head(ngx_http_request_t *r)
{
    ngx_http_clear_accept_ranges(r);
    ngx_http_clear_last_modified(r);
    ngx_http_clear_etag(r);
    ngx_http_clear_location(r);
    r->err_status = 0;
    r->allow_ranges = 0;
    r->disable_not_modified = 1;
}

ngx_int_t ngx_http_idem_problem(ngx_http_idem_ctx_t *ctx, ngx_http_idem_problem_e problem, const char *detail,
                                int64_t retry_after_ms)
{
    ngx_http_request_t *r = ctx->request;
    const struct problem *p = &problems[problem];
    ngx_str_t body;
    if (r->request_body == NULL) {
        ngx_int_t rc = ngx_http_discard_request_body(r);
        if (rc != NGX_OK)
            return rc;
    }
    if (problem_body(ctx, p, detail != NULL ? detail : p->detail, &body) != NGX_OK)
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    clean_head(r);
    r->headers_out.status = p->status;
    r->headers_out.status_line = p->status_line;
    ngx_str_set(&r->headers_out.content_type, "application/problem+json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    ngx_str_null(&r->headers_out.charset);
    r->headers_out.content_length_n = (off_t)body.len;
    if (add_link(ctx) != NGX_OK ||
        (retry_after_ms > 0 && add_number(r, "Retry-After", (retry_after_ms + 999) / 1000) != NGX_OK))
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    return send_answer(r, body.data, body.len);
}

/* ------------------------------------------------------------------ replay */

static ngx_table_elt_t *push_line(ngx_list_t *list, const struct idem_http_meta *record)
{
    ngx_table_elt_t *line = ngx_list_push(list);
    if (line == NULL)
        return NULL;
    ngx_memzero(line, sizeof *line);
    line->hash = 1;
    line->key.data = (u_char *)record->name;
    line->key.len = record->name_bytes;
    line->value.data = (u_char *)record->value;
    line->value.len = record->value_bytes;
    return line;
}

/* What other filters look up by pointer. */
static void point_at(ngx_http_request_t *r, ngx_table_elt_t *line)
{
    static const struct {
        const char *name;
        size_t offset;
    } known[] = {{"Content-Encoding", offsetof(ngx_http_headers_out_t, content_encoding)},
                 {"ETag", offsetof(ngx_http_headers_out_t, etag)},
                 {"Last-Modified", offsetof(ngx_http_headers_out_t, last_modified)},
                 {"Content-Range", offsetof(ngx_http_headers_out_t, content_range)},
                 {"Server", offsetof(ngx_http_headers_out_t, server)},
                 {"Date", offsetof(ngx_http_headers_out_t, date)}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (ngx_http_idem_named(&line->key, known[i].name, ngx_strlen(known[i].name)))
            *(ngx_table_elt_t **)((char *)&r->headers_out + known[i].offset) = line;
    }
}

static ngx_int_t restore(ngx_http_request_t *r, const struct idem_http_meta *record)
{
    ngx_http_headers_out_t *out = &r->headers_out;
    ngx_str_t value = {record->value_bytes, (u_char *)record->value};
    ngx_table_elt_t *line;
    switch (record->kind) {
    case IDEM_HTTP_META_STATUS_LINE:
        out->status_line = value;
        return NGX_OK;
    case IDEM_HTTP_META_CONTENT_TYPE:
        out->content_type = value;
        out->content_type_len = ngx_min(record->name_bytes, value.len);
        return NGX_OK;
    case IDEM_HTTP_META_CHARSET:
        out->charset = value;
        return NGX_OK;
    case IDEM_HTTP_META_LAST_MODIFIED:
        out->last_modified_time = (time_t)idem_http_meta_number(record);
        return NGX_OK;
    case IDEM_HTTP_META_LENGTH:
        out->content_length_n = (off_t)idem_http_meta_number(record);
        return NGX_OK;
    case IDEM_HTTP_META_TRAILER:
        r->expect_trailers = 1;
        return push_line(&out->trailers, record) != NULL ? NGX_OK : NGX_ERROR;
    case IDEM_HTTP_META_HEADER:
    case IDEM_HTTP_META_LOCATION:
        line = push_line(&out->headers, record);
        if (line == NULL)
            return NGX_ERROR;
        if (record->kind == IDEM_HTTP_META_LOCATION)
            out->location = line;
        else
            point_at(r, line);
        return NGX_OK;
    default:
        return NGX_OK; /* of a later version */
    }
}

ngx_int_t ngx_http_idem_replay(ngx_http_idem_ctx_t *ctx, const idem_reply *reply)
{
    static const ngx_str_t yes = ngx_string("true");
    ngx_http_request_t *r = ctx->request;
    struct idem_http_meta record;
    size_t offset = 0;
    int more = 0;
    clean_head(r);
    ngx_str_null(&r->headers_out.content_type);
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.status = (ngx_uint_t)reply->status;
    r->headers_out.content_length_n = -1;
    /* An answer without a head was given by an operator: idem resolve --completed --status 201. */
    while (reply->meta_bytes > 0 &&
           (more = idem_http_meta_read(reply->meta, reply->meta_bytes, &offset, &record)) > 0) {
        if (restore(r, &record) != NGX_OK)
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    if (more < 0 || reply->status < NGX_HTTP_OK || reply->status > 999) {
        ngx_log_error(
            NGX_LOG_ERR, r->connection->log, 0,
            "idem_zone \"%V\", token %uL: the stored answer was not written by this module (or by a later version of "
            "it); see idem why",
            &ctx->zone->name, reply->token);
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    if (add_header(r, "Idempotency-Replayed", &yes) != NGX_OK)
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    ngx_str_t body = {reply->body_bytes, (u_char *)reply->body};
    if (r->headers_out.status == NGX_HTTP_NO_CONTENT || r->headers_out.status == NGX_HTTP_NOT_MODIFIED) {
        r->headers_out.content_length_n = -1;
        r->header_only = 1;
    } else if (r->headers_out.content_length_n < 0) {
        ngx_http_idem_gunzip(r, &body);
        r->headers_out.content_length_n = r->expect_trailers ? -1 : (off_t)body.len;
    }
    return send_answer(r, body.data, body.len);
}
