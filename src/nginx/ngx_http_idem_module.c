/*
 * nginx/ngx_http_idem_module.c - the module as nginx sees it: its directives, and where it hooks in.
 *
 * Owns: the order in which nginx meets us. Requests are claimed in the PRECONTENT phase, after access control; answers are seen by the first
 * of all filters, as the upstream gave them, before anything (ranges, gzip, SSI, sub_filter) has changed them; replays go the same way.
 *
 * If we die here: nothing of this file outlives the configuration.
 */
#include "ngx_http_idem.h"

static ngx_int_t preconfiguration(ngx_conf_t *cf);
static ngx_int_t postconfiguration(ngx_conf_t *cf);

static ngx_conf_bitmask_t methods[] = {
    {ngx_string("GET"), NGX_HTTP_GET},
    {ngx_string("HEAD"), NGX_HTTP_HEAD},
    {ngx_string("POST"), NGX_HTTP_POST},
    {ngx_string("PUT"), NGX_HTTP_PUT},
    {ngx_string("DELETE"), NGX_HTTP_DELETE},
    {ngx_string("PATCH"), NGX_HTTP_PATCH},
    {ngx_string("MKCOL"), NGX_HTTP_MKCOL},
    {ngx_string("COPY"), NGX_HTTP_COPY},
    {ngx_string("MOVE"), NGX_HTTP_MOVE},
    {ngx_string("OPTIONS"), NGX_HTTP_OPTIONS},
    {ngx_string("PROPFIND"), NGX_HTTP_PROPFIND},
    {ngx_string("PROPPATCH"), NGX_HTTP_PROPPATCH},
    {ngx_string("LOCK"), NGX_HTTP_LOCK},
    {ngx_string("UNLOCK"), NGX_HTTP_UNLOCK},
    {ngx_null_string, 0},
};

static ngx_conf_enum_t syntaxes[] = {
    {ngx_string("lenient"), NGX_HTTP_IDEM_LENIENT},
    {ngx_string("strict"), NGX_HTTP_IDEM_STRICT},
    {ngx_null_string, 0},
};

static ngx_conf_enum_t ambiguous[] = {
    {ngx_string("hold"), NGX_HTTP_IDEM_HOLD},
    {ngx_string("abandon"), NGX_HTTP_IDEM_ABANDON},
    {ngx_string("store"), NGX_HTTP_IDEM_STORE},
    {ngx_null_string, 0},
};

#define ANYWHERE (NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF)
#define IN_LOCATION(name, how, set, field, post)                                                                      \
    {                                                                                                                 \
        ngx_string(name), ANYWHERE | (how), set, NGX_HTTP_LOC_CONF_OFFSET, offsetof(ngx_http_idem_loc_conf_t, field), \
            post                                                                                                      \
    }

static ngx_command_t commands[] = {
    {ngx_string("idem_zone"), NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE, ngx_http_idem_conf_zone, NGX_HTTP_MAIN_CONF_OFFSET,
     0, NULL},
    IN_LOCATION("idem", NGX_CONF_TAKE1, ngx_http_idem_conf_idem, zone, NULL),
    IN_LOCATION("idem_methods", NGX_CONF_1MORE, ngx_conf_set_bitmask_slot, methods, methods),
    IN_LOCATION("idem_required", NGX_CONF_FLAG, ngx_conf_set_flag_slot, required, NULL),
    IN_LOCATION("idem_header", NGX_CONF_TAKE1, ngx_http_idem_conf_header, header, NULL),
    IN_LOCATION("idem_header_syntax", NGX_CONF_TAKE1, ngx_conf_set_enum_slot, syntax, syntaxes),
    IN_LOCATION("idem_scope", NGX_CONF_TAKE1, ngx_http_set_complex_value_slot, scope, NULL),
    IN_LOCATION("idem_fingerprint", NGX_CONF_TAKE1, ngx_http_set_complex_value_slot, fingerprint, NULL),
    IN_LOCATION("idem_fingerprint_body", NGX_CONF_TAKE1, ngx_http_idem_conf_fingerprint_body, fingerprint_body, NULL),
    IN_LOCATION("idem_lease", NGX_CONF_TAKE1, ngx_http_idem_conf_lease, lease, NULL),
    IN_LOCATION("idem_ttl", NGX_CONF_TAKE123, ngx_http_idem_conf_ttl, ttl, NULL),
    IN_LOCATION("idem_wait", NGX_CONF_TAKE1, ngx_conf_set_msec_slot, wait, NULL),
    IN_LOCATION("idem_max_waiters", NGX_CONF_TAKE1, ngx_conf_set_num_slot, max_waiters, NULL),
    IN_LOCATION("idem_store_status", NGX_CONF_1MORE, ngx_http_idem_conf_store_status, store_status, NULL),
    IN_LOCATION("idem_share_failures", NGX_CONF_FLAG, ngx_conf_set_flag_slot, share_failures, NULL),
    IN_LOCATION("idem_ambiguous", NGX_CONF_TAKE1, ngx_conf_set_enum_slot, ambiguous, ambiguous),
    IN_LOCATION("idem_max_body", NGX_CONF_TAKE1, ngx_conf_set_size_slot, max_body, NULL),
    IN_LOCATION("idem_store_headers", NGX_CONF_1MORE, ngx_http_idem_conf_names, store_headers, NULL),
    IN_LOCATION("idem_hide_headers", NGX_CONF_1MORE, ngx_http_idem_conf_names, hide_headers, NULL),
    IN_LOCATION("idem_ignore_client_abort", NGX_CONF_FLAG, ngx_conf_set_flag_slot, ignore_client_abort, NULL),
    IN_LOCATION("idem_fail_open", NGX_CONF_FLAG, ngx_conf_set_flag_slot, fail_open, NULL),
    IN_LOCATION("idem_heartbeat", NGX_CONF_FLAG, ngx_conf_set_flag_slot, heartbeat, NULL),
    IN_LOCATION("idem_bypass", NGX_CONF_1MORE, ngx_http_set_predicate_slot, bypass, NULL),
    IN_LOCATION("idem_policy_url", NGX_CONF_TAKE1, ngx_conf_set_str_slot, policy_url, NULL),
    {ngx_string("idem_status"), NGX_HTTP_LOC_CONF | NGX_CONF_FLAG, ngx_http_idem_conf_status, 0, 0, NULL},
    ngx_null_command,
};

static ngx_http_module_t module = {
    preconfiguration,               /* preconfiguration */
    postconfiguration,              /* postconfiguration */
    ngx_http_idem_create_main_conf, /* create main configuration */
    NULL,                           /* init main configuration */
    NULL,                           /* create server configuration */
    NULL,                           /* merge server configuration */
    ngx_http_idem_create_loc_conf,  /* create location configuration */
    ngx_http_idem_merge_loc_conf,   /* merge location configuration */
};

ngx_module_t ngx_http_idem_module = {
    NGX_MODULE_V1,
    &module,                    /* module context */
    commands,                   /* module directives */
    NGX_HTTP_MODULE,            /* module type */
    NULL,                       /* init master */
    NULL,                       /* init module */
    ngx_http_idem_init_process, /* init process */
    NULL,                       /* init thread */
    NULL,                       /* exit thread */
    ngx_http_idem_exit_process, /* exit process */
    NULL,                       /* exit master */
    NGX_MODULE_V1_PADDING,
};

/* The request's memory goes: what the library made for it goes first. By then the claim is settled: the request's own clean-up
   runs before. Whatever frees a request without that must not leave a claim that nobody works on. */
static void forget_ctx(void *data)
{
    ngx_http_idem_ctx_t *ctx = data;
    (void)idem_fingerprint_end(ctx->body_hash);
    ctx->body_hash = NULL;
    ngx_http_idem_wait_leave(ctx, 0);
    if (ctx->state == NGX_HTTP_IDEM_OWNER && !ctx->recording)
        ngx_http_idem_settle_unanswered(ctx);
    ngx_http_idem_disown(ctx);
}

ngx_http_idem_ctx_t *ngx_http_idem_ctx(ngx_http_request_t *r)
{
    ngx_http_idem_ctx_t *ctx = ngx_http_get_module_ctx(r, ngx_http_idem_module);
    if (ctx != NULL || (!r->internal && !r->filter_finalize))
        return ctx;
    /* An internal redirect or an error page cleared the contexts; the pool still knows. */
    for (ngx_pool_cleanup_t *cleanup = r->pool->cleanup; cleanup != NULL; cleanup = cleanup->next) {
        if (cleanup->handler == forget_ctx) {
            ctx = cleanup->data;
            ngx_http_set_ctx(r, ctx, ngx_http_idem_module);
            return ctx;
        }
    }
    return NULL;
}

ngx_http_idem_ctx_t *ngx_http_idem_ctx_make(ngx_http_request_t *r, ngx_http_idem_loc_conf_t *conf)
{
    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_idem_ctx_t));
    if (cleanup == NULL)
        return NULL;
    ngx_http_idem_ctx_t *ctx = cleanup->data;
    ngx_memzero(ctx, sizeof *ctx);
    ctx->request = r;
    ctx->conf = conf;
    ctx->zone = conf->zone;
    cleanup->handler = forget_ctx;
    ngx_http_set_ctx(r, ctx, ngx_http_idem_module);
    return ctx;
}

static ngx_int_t preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_idem_variables(cf);
}

static ngx_int_t postconfiguration(ngx_conf_t *cf)
{
    ngx_http_idem_main_conf_t *main = ngx_http_conf_get_module_main_conf(cf, ngx_http_idem_module);
    if (main->zones.nelts == 0)
        return NGX_OK; /* loaded and not used: no request meets us */
    ngx_http_core_main_conf_t *core = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    ngx_http_handler_pt *handler = ngx_array_push(&core->phases[NGX_HTTP_PRECONTENT_PHASE].handlers);
    if (handler == NULL)
        return NGX_ERROR;
    *handler = ngx_http_idem_precontent;

    ngx_http_idem_next_header = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_idem_header;
    ngx_http_idem_next_body = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_idem_body;
    ngx_http_idem_next_request_body = ngx_http_top_request_body_filter;
    ngx_http_top_request_body_filter = ngx_http_idem_request_body;
    return ngx_http_idem_zones_make(cf, main);
}
