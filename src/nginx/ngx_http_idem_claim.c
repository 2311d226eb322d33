/*
 * nginx/ngx_http_idem_claim.c - a request asks for its key.
 *
 * Owns: the way of a request through the PRECONTENT phase:
 *
 *     PASSING <- no key, another method, bypassed
 *     READING -> ASKING -> OWNER      goes on to the content
 *                       -> WAITING    and asks again
 *                       -> ANSWERING  a replay, or a problem
 *
 * Invariant: nothing is claimed before the whole body is here and the header is known to be sound; whoever is not the owner never gets to the
 * content, unless idem_fail_open says so.
 *
 * If we die here: before idem_begin() nothing has happened; after it the claim is a dead process's.
 */
#include "ngx_http_idem.h"

#define STORE_RETRY_MS 1000

/* ------------------------------------------------------------------ does it concern us? */

/* The value of the one header line of the configured name. NGX_DECLINED: there is none; NGX_ABORT: there is more than one. */
static ngx_int_t find_header(ngx_http_request_t *r, const ngx_str_t *name, ngx_str_t *value)
{
    ngx_uint_t found = 0;
    for (ngx_list_part_t *part = &r->headers_in.headers.part; part != NULL; part = part->next) {
        ngx_table_elt_t *line = part->elts;
        for (ngx_uint_t i = 0; i < part->nelts; i++) {
            if (line[i].key.len == name->len && ngx_memcmp(line[i].lowcase_key, name->data, name->len) == 0) {
                *value = line[i].value;
                found++;
            }
        }
    }
    return found == 0 ? NGX_DECLINED : found == 1 ? NGX_OK : NGX_ABORT;
}

static ngx_int_t invalid(ngx_http_idem_ctx_t *ctx, const char *words)
{
    ngx_http_request_t *r = ctx->request;
    static const char text[] =
        "The %V header can't be used. %s Send one line with one value, and use a new value for each "
        "new request.%Z";
    u_char *detail = ngx_pnalloc(r->pool, sizeof text + ctx->conf->header.len + ngx_strlen(words));
    if (detail == NULL)
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    ngx_sprintf(detail, text, &ctx->conf->header, words);
    ngx_http_idem_count(ctx, NGX_HTTP_IDEM_INVALID);
    return ngx_http_idem_problem(ctx, NGX_HTTP_IDEM_PROBLEM_INVALID, (const char *)detail, 0);
}

/* 1: ctx->key is there. 0: *rc is NGX_DECLINED (the request goes on without us) or for ngx_http_finalize_request(). */
static ngx_uint_t read_key(ngx_http_idem_ctx_t *ctx, ngx_int_t *rc)
{
    ngx_http_request_t *r = ctx->request;
    ngx_str_t value;
    ngx_int_t found = find_header(r, &ctx->conf->header_lower, &value);
    if (found == NGX_DECLINED) {
        ngx_http_idem_count(ctx, NGX_HTTP_IDEM_MISSING);
        *rc = ctx->conf->required ? ngx_http_idem_problem(ctx, NGX_HTTP_IDEM_PROBLEM_MISSING, NULL, 0) : NGX_DECLINED;
        return 0;
    }
    if (found == NGX_ABORT) {
        *rc = invalid(ctx, "It was sent more than once.");
        return 0;
    }
    u_char key[IDEM_HTTP_KEY_MAX];
    enum idem_http_key_error e =
        idem_http_key_parse(value.data, value.len, ctx->conf->syntax == NGX_HTTP_IDEM_STRICT, key, &ctx->key.len);
    if (e != IDEM_HTTP_KEY_OK) {
        ctx->key.len = 0;
        *rc = invalid(ctx, idem_http_key_words(e));
        return 0;
    }
    ctx->key.data = ngx_pnalloc(r->pool, ctx->key.len);
    if (ctx->key.data == NULL) {
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return 0;
    }
    ngx_memcpy(ctx->key.data, key, ctx->key.len);
    ctx->has_key = 1;
    return 1;
}

/* ------------------------------------------------------------------ the ways on */

/* The store can't say whether this has been done. */
static ngx_int_t unavailable(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "idem_zone \"%V\": %s; %s", &ctx->zone->name,
                  ctx->zone->store == NULL ? "the store is not open in this worker" : idem_error_detail(),
                  ctx->conf->fail_open ? "the request passes without protection (idem_fail_open)" : "answered 503");
    if (ctx->conf->fail_open) {
        ngx_http_idem_count(ctx, NGX_HTTP_IDEM_FAILED_OPEN);
        return NGX_DECLINED;
    }
    ngx_http_idem_count(ctx, NGX_HTTP_IDEM_FAILED);
    return ngx_http_idem_problem(ctx, NGX_HTTP_IDEM_PROBLEM_UNAVAILABLE, NULL, STORE_RETRY_MS);
}

/* Whoever waited looked whether its client is still there; from here on that is the business of what comes next. */
static void go_on(ngx_http_request_t *r)
{
    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;
    ngx_http_core_run_phases(r);
}

/* rc as of unavailable(), ngx_http_idem_problem() and ngx_http_idem_replay(). */
static void answer(ngx_http_idem_ctx_t *ctx, ngx_int_t rc)
{
    if (rc == NGX_DECLINED) {
        ctx->state = NGX_HTTP_IDEM_PASSING;
        go_on(ctx->request);
        return;
    }
    ctx->state = NGX_HTTP_IDEM_ANSWERING;
    ctx->request->read_event_handler = ngx_http_block_reading;
    ngx_http_finalize_request(ctx->request, rc);
}

static void in_progress(ngx_http_idem_ctx_t *ctx, const idem_reply *reply)
{
    if (ngx_http_idem_wait(ctx, reply->token) == NGX_OK)
        return;
    ngx_http_idem_count(ctx, NGX_HTTP_IDEM_IN_PROGRESS);
    answer(ctx, ngx_http_idem_problem(ctx, NGX_HTTP_IDEM_PROBLEM_IN_PROGRESS, NULL, reply->retry_after_ms));
}

static void replayed(ngx_http_idem_ctx_t *ctx, const idem_reply *reply)
{
    ctx->age_ms = reply->age_ms;
    /* Without head and status: an operator found that it happened, and said no more (idem resolve --completed). */
    if (reply->flags & IDEM_REPLY_NOT_RETAINED || (reply->meta_bytes == 0 && reply->status == 0)) {
        ngx_http_idem_count(ctx, NGX_HTTP_IDEM_NOT_RETAINED);
        answer(ctx, ngx_http_idem_problem(ctx, NGX_HTTP_IDEM_PROBLEM_NOT_RETAINED, NULL, 0));
        return;
    }
    ngx_http_idem_count(ctx, reply->flags & IDEM_REPLY_TRANSIENT ? NGX_HTTP_IDEM_SHARED : NGX_HTTP_IDEM_REPLAYED);
    answer(ctx, ngx_http_idem_replay(ctx, reply));
}

static void *from_pool(void *pool, size_t bytes)
{
    return ngx_palloc(pool, bytes);
}

void ngx_http_idem_ask(ngx_http_idem_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;
    idem_request request = IDEM_REQUEST_INIT;
    idem_reply reply = IDEM_REPLY_INIT;
    ctx->state = NGX_HTTP_IDEM_ASKING;
    if (ctx->zone->store == NULL) {
        answer(ctx, unavailable(ctx));
        return;
    }
    ngx_http_idem_key_of(ctx, &request.key);
    request.fingerprint = ctx->fingerprint;
    request.flags = IDEM_NO_WAIT | (ctx->conf->ambiguous == NGX_HTTP_IDEM_HOLD ? IDEM_HOLD : 0);
    request.lease_ms = ctx->lease_ms;
    request.ttl_ms = ctx->ttl_ms;
    request.wait_token = ctx->wait_token;
    reply.alloc = from_pool;
    reply.alloc_ctx = r->pool;
    int verdict = idem_begin(ctx->zone->store, &request, &ctx->claim, &reply);
    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0, "idem: %s, token %uL", idem_strerror(verdict),
                   reply.token);
    if (verdict != IDEM_IN_PROGRESS)
        ngx_http_idem_wait_leave(ctx, verdict != IDEM_CLAIMED && verdict != IDEM_RECLAIMED);
    ctx->token = reply.token;
    switch (verdict) {
    case IDEM_CLAIMED:
    case IDEM_RECLAIMED:
        ctx->token = ctx->claim.token;
        ngx_http_idem_count(ctx, verdict == IDEM_CLAIMED ? NGX_HTTP_IDEM_CLAIMED : NGX_HTTP_IDEM_RECLAIMED);
        if (ngx_http_idem_own(ctx) != NGX_OK) {
            (void)idem_abandon(ctx->zone->store, &ctx->claim, IDEM_NOTHING_HAPPENED);
            answer(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR);
            break;
        }
        go_on(r);
        break;
    case IDEM_REPLAY:
        replayed(ctx, &reply);
        break;
    case IDEM_IN_PROGRESS:
        in_progress(ctx, &reply);
        break;
    case IDEM_MISMATCH:
        ngx_http_idem_count(ctx, NGX_HTTP_IDEM_MISMATCH);
        answer(ctx, ngx_http_idem_problem(ctx, NGX_HTTP_IDEM_PROBLEM_REUSED, NULL, 0));
        break;
    case IDEM_UNKNOWN:
        ngx_http_idem_count(ctx, NGX_HTTP_IDEM_UNKNOWN);
        answer(ctx, ngx_http_idem_problem(ctx, NGX_HTTP_IDEM_PROBLEM_UNKNOWN, NULL, 0));
        break;
    default:
        answer(ctx, unavailable(ctx));
    }
}

/* ------------------------------------------------------------------ the phase */

static void body_read(ngx_http_request_t *r)
{
    ngx_http_idem_ctx_t *ctx = ngx_http_idem_ctx(r);
    ctx->state = NGX_HTTP_IDEM_ASKING;
    ngx_int_t rc = ctx->zone->store != NULL ? ngx_http_idem_fingerprint(ctx) : NGX_DECLINED;
    if (rc == NGX_OK)
        ngx_http_idem_ask(ctx);
    else
        answer(ctx, rc == NGX_DECLINED ? unavailable(ctx) : NGX_HTTP_INTERNAL_SERVER_ERROR);
}

/* The module's own answer before the body was read: what is left of the request is thrown away. */
static ngx_int_t refuse(ngx_http_idem_ctx_t *ctx, ngx_int_t rc)
{
    if (rc == NGX_DECLINED)
        return NGX_DECLINED;
    ctx->state = NGX_HTTP_IDEM_ANSWERING;
    ngx_http_finalize_request(ctx->request, rc);
    return NGX_DONE;
}

/* Some clients offer h2c with each request of HTTP/1.1, and go on as they are when nobody takes it up; nginx never does. */
static ngx_uint_t is_upgrade(ngx_http_request_t *r)
{
    const ngx_table_elt_t *upgrade = r->headers_in.upgrade;
    return upgrade != NULL && !ngx_http_idem_named(&upgrade->value, "h2c", 3);
}

static ngx_int_t begin(ngx_http_request_t *r, ngx_http_idem_ctx_t *ctx)
{
    ngx_int_t rc = ngx_http_idem_strip(r);
    if (rc != NGX_OK)
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    if (!(r->method & ctx->conf->methods))
        return NGX_DECLINED;
    if (is_upgrade(r) || ngx_http_test_predicates(r, ctx->conf->bypass) == NGX_DECLINED) {
        ngx_http_idem_count(ctx, NGX_HTTP_IDEM_BYPASSED);
        return NGX_DECLINED;
    }
    if (!read_key(ctx, &rc))
        return refuse(ctx, rc);
    rc = ctx->zone->store != NULL ? ngx_http_idem_meaning(ctx) : NGX_DECLINED;
    if (rc == NGX_DECLINED)
        return refuse(ctx, unavailable(ctx));
    if (rc != NGX_OK)
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    ctx->state = NGX_HTTP_IDEM_READING;
    rc = ngx_http_read_client_request_body(r, body_read);
    if (rc >= NGX_HTTP_SPECIAL_RESPONSE)
        return rc;
    ngx_http_finalize_request(r, NGX_DONE);
    return NGX_DONE;
}

/*
 * It comes again though it never was an owner: nginx gave it up (a body too large, a broken chunk, no memory) and looks for an error page. A page
 * is served; but a named location keeps the method, and nothing goes to a protected one without a claim.
 */
static ngx_int_t failed_before(ngx_http_idem_ctx_t *ctx, const ngx_http_idem_loc_conf_t *conf)
{
    ngx_http_request_t *r = ctx->request;
    ngx_http_idem_wait_leave(ctx, 0);
    ctx->state = NGX_HTTP_IDEM_ANSWERING;
    if (conf->zone == NULL || !(r->method & conf->methods))
        return NGX_DECLINED;
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "idem_zone \"%V\": the error page of a request without a claim is a location that needs one; set "
                  "idem off there",
                  &conf->zone->name);
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
}

ngx_int_t ngx_http_idem_precontent(ngx_http_request_t *r)
{
    if (r != r->main || r->post_action)
        return NGX_DECLINED;
    ngx_http_idem_loc_conf_t *conf = ngx_http_get_module_loc_conf(r, ngx_http_idem_module);
    ngx_http_idem_ctx_t *ctx = ngx_http_idem_ctx(r);
    if (ctx != NULL && ctx->state == NGX_HTTP_IDEM_OWNER) {
        ngx_http_idem_own_content(ctx); /* wherever it has been sent to meanwhile */
        return NGX_DECLINED;
    }
    if (ctx != NULL && ctx->state != NGX_HTTP_IDEM_PASSING)
        return failed_before(ctx, conf);
    if (ctx != NULL && (ctx->has_key || ctx->conf == conf))
        return NGX_DECLINED;
    if (conf->zone == NULL)
        return NGX_DECLINED;
    if (ctx == NULL) {
        ctx = ngx_http_idem_ctx_make(r, conf);
        if (ctx == NULL)
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
    } else { /* it passed another location, which let it go */
        ctx->conf = conf;
        ctx->zone = conf->zone;
    }
    return begin(r, ctx);
}
