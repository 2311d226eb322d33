/*
 * nginx/ngx_http_idem_body.c - what a request means: its scope, and the fingerprint of what it asks for.
 *
 * Owns: the hash of a body. It is taken while the body arrives, piece by piece, so that a large one never stops the event loop; only a small
 * one, or one that something else has read before us, is walked afterwards.
 *
 * Invariants: the scope is never stored in clear (it holds credentials by default), only its keyed 128-bit digest; one body has one
 * fingerprint, however it is cut into pieces, chunked or not, in memory or in a file. No fingerprint is 0.
 *
 * If we die here: nothing is claimed yet.
 */
#include "ngx_http_idem.h"

#define WALK_BYTES 65536

ngx_http_request_body_filter_pt ngx_http_idem_next_request_body;

/* Functions here return NGX_DECLINED if the store is in trouble (idem_error_detail() says what), NGX_ERROR if nginx has no memory or can't read. */

void ngx_http_idem_key_of(ngx_http_idem_ctx_t *ctx, idem_key *key)
{
    key->scope = ctx->scope;
    key->scope_bytes = sizeof ctx->scope;
    key->key = ctx->key.data;
    key->key_bytes = ctx->key.len;
}

static ngx_int_t digest_scope(ngx_http_idem_ctx_t *ctx, const ngx_str_t *scope)
{
    static const u_char hex[] = "0123456789abcdef";
    uint8_t digest[NGX_HTTP_IDEM_SCOPE_BYTES / 2];
    if (idem_digest(ctx->zone->store, scope->data != NULL ? scope->data : (u_char *)"", scope->len, digest) != IDEM_OK)
        return NGX_DECLINED;
    for (size_t i = 0; i < sizeof digest; i++) {
        ctx->scope[2 * i] = hex[digest[i] >> 4];
        ctx->scope[2 * i + 1] = hex[digest[i] & 15];
    }
    return NGX_OK;
}

static int64_t duration(ngx_http_idem_ctx_t *ctx, ngx_http_complex_value_t *value, int64_t otherwise, int64_t most,
                        const char *directive)
{
    ngx_str_t text;
    if (value == NULL)
        return otherwise;
    if (ngx_http_complex_value(ctx->request, value, &text) != NGX_OK)
        return -1;
    if (text.len == 0)
        return otherwise;
    int64_t ms = ngx_http_idem_time_ms(&text);
    if (ms > 0 && ms <= most)
        return ms;
    ngx_log_error(NGX_LOG_ERR, ctx->request->connection->log, 0, "%s: \"%V\" is not a time; %L ms are taken", directive,
                  &text, otherwise);
    return otherwise;
}

ngx_int_t ngx_http_idem_meaning(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    ngx_str_t scope;
    if (ngx_http_complex_value(r, ctx->conf->scope, &scope) != NGX_OK)
        return NGX_ERROR;
    ngx_int_t rc = digest_scope(ctx, &scope);
    if (rc != NGX_OK)
        return rc;
    idem_key key;
    ngx_http_idem_key_of(ctx, &key);
    idem_prefetch(ctx->zone->store, &key); /* comes while the body is read */
    ctx->lease_ms = duration(ctx, ctx->conf->lease, ctx->zone->lease_ms, IDEM_LEASE_MAX_MS, "idem_lease");
    ctx->ttl_ms = duration(ctx, ctx->conf->ttl, ctx->zone->ttl_ms, IDEM_TTL_MAX_MS, "idem_ttl");
    if (ctx->lease_ms < 0 || ctx->ttl_ms < 0)
        return NGX_ERROR;
    /* Only if we are the first to read the body do we see all of it. A small one is walked when it is here. */
    if (ctx->conf->fingerprint_body > 0 && r->request_body == NULL && !r->discard_body &&
        (r->headers_in.content_length_n > WALK_BYTES || r->headers_in.chunked)) {
        ctx->body_hash = idem_fingerprint_begin(ctx->zone->store);
        if (ctx->body_hash == NULL)
            return NGX_DECLINED;
    }
    return NGX_OK;
}

static void add(ngx_http_idem_ctx_t *ctx, const u_char *bytes, size_t n)
{
    off_t counts = ctx->conf->fingerprint_body - ctx->body_bytes;
    if (counts > 0)
        idem_fingerprint_update(ctx->body_hash, bytes, (off_t)n < counts ? n : (size_t)counts);
    ctx->body_bytes += (off_t)n;
}

ngx_int_t ngx_http_idem_request_body(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_http_idem_ctx_t *ctx = ngx_http_get_module_ctx(r, ngx_http_idem_module);
    if (ctx != NULL && ctx->state == NGX_HTTP_IDEM_READING && ctx->body_hash != NULL) {
        for (ngx_chain_t *link = in; link != NULL; link = link->next)
            add(ctx, link->buf->pos, (size_t)(link->buf->last - link->buf->pos));
    }
    return ngx_http_idem_next_request_body(r, in);
}

/* A small body, or one that was read before we came. */
static ngx_int_t walk(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    u_char *room = NULL;
    for (ngx_chain_t *link = r->request_body->bufs; link != NULL; link = link->next) {
        ngx_buf_t *b = link->buf;
        if (!b->in_file) {
            add(ctx, b->pos, (size_t)(b->last - b->pos));
            continue;
        }
        if (room == NULL && (room = ngx_palloc(r->pool, WALK_BYTES)) == NULL)
            return NGX_ERROR;
        for (off_t at = b->file_pos; at < b->file_last;) {
            size_t n = b->file_last - at < WALK_BYTES ? (size_t)(b->file_last - at) : WALK_BYTES;
            ssize_t got = ngx_read_file(b->file, room, n, at);
            if (got <= 0)
                return NGX_ERROR;
            add(ctx, room, (size_t)got);
            at += got;
        }
    }
    return NGX_OK;
}

/* body: its length and its hash, both 0 without one. In one piece or in many, the hash is the same. */
static ngx_int_t hash_body(ngx_http_idem_ctx_t *ctx, uint64_t body[2])
{
    const ngx_http_request_body_t *rb = ctx->request->request_body;
    if (ctx->body_hash == NULL) {
        if (ctx->conf->fingerprint_body == 0 || rb == NULL || rb->bufs == NULL)
            return NGX_OK;
        const ngx_buf_t *b = rb->bufs->buf;
        off_t n = b->last - b->pos;
        if (rb->bufs->next == NULL && !b->in_file && n > 0) {
            body[0] = (uint64_t)n;
            body[1] = idem_fingerprint(ctx->zone->store, b->pos, (size_t)ngx_min(n, ctx->conf->fingerprint_body));
            return body[1] != 0 ? NGX_OK : NGX_DECLINED;
        }
        ctx->body_hash = idem_fingerprint_begin(ctx->zone->store);
        if (ctx->body_hash == NULL)
            return NGX_DECLINED;
        if (walk(ctx) != NGX_OK)
            return NGX_ERROR;
    }
    uint64_t hash = idem_fingerprint_end(ctx->body_hash);
    ctx->body_hash = NULL;
    if (hash == 0)
        return NGX_DECLINED;
    if (ctx->body_bytes > 0) {
        body[0] = (uint64_t)ctx->body_bytes;
        body[1] = hash;
    }
    return NGX_OK;
}

/* The fingerprint is that of: how long the body is, its hash (both 0 without one), and what idem_fingerprint says of the request. */
ngx_int_t ngx_http_idem_fingerprint(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    ngx_str_t text;
    if (ngx_http_complex_value(r, ctx->conf->fingerprint, &text) != NGX_OK)
        return NGX_ERROR;
    uint64_t body[2] = {0, 0};
    ngx_int_t rc = hash_body(ctx, body);
    if (rc != NGX_OK)
        return rc;
    u_char *framed = ngx_pnalloc(r->pool, sizeof body + text.len);
    if (framed == NULL)
        return NGX_ERROR;
    ngx_memcpy(framed, body, sizeof body);
    ngx_memcpy(framed + sizeof body, text.data, text.len);
    ctx->fingerprint = idem_fingerprint(ctx->zone->store, framed, sizeof body + text.len);
    return ctx->fingerprint != 0 ? NGX_OK : NGX_DECLINED;
}
