/*
 * nginx/ngx_http_idem_status.c - what can be seen from outside: variables, counters, the status page.
 *
 * Owns: the names of outcomes and settlements. Counters lie in nginx's shared memory, one set a zone, for all workers and over reloads; the store's
 * own figures come from the library.
 *
 * If we die here: a count may be missing by one.
 */
#include "ngx_http_idem.h"

static const char *const outcome_names[NGX_HTTP_IDEM_OUTCOMES] = {
    "",        "claimed",      "reclaimed", "replayed", "shared",   "in_progress", "mismatch",
    "unknown", "not_retained", "missing",   "invalid",  "bypassed", "failed",      "failed_open"};
static const char *const settled_names[NGX_HTTP_IDEM_SETTLEMENTS] = {"",          "stored", "tombstone", "shared",
                                                                     "abandoned", "held",   "fenced",    "failed"};

void ngx_http_idem_count(ngx_http_idem_ctx_t *ctx, ngx_http_idem_outcome_e outcome)
{
    ctx->outcome = outcome;
    if (ctx->zone->counters != NULL)
        (void)ngx_atomic_fetch_add(&ctx->zone->counters->outcomes[outcome], 1);
}

void ngx_http_idem_count_settled(ngx_http_idem_ctx_t *ctx, ngx_http_idem_settled_e settled)
{
    ctx->settled = settled;
    if (ctx->zone->counters != NULL)
        (void)ngx_atomic_fetch_add(&ctx->zone->counters->settled[settled], 1);
}

/* ------------------------------------------------------------------ variables */

enum variable { VAR_STATUS, VAR_OUTCOME, VAR_KEY, VAR_SCOPE, VAR_FINGERPRINT, VAR_WAIT_TIME, VAR_AGE, VAR_TOKEN };

static void set(ngx_http_variable_value_t *v, const void *bytes, size_t n)
{
    v->data = (u_char *)bytes;
    v->len = (unsigned)(n & 0xfffffff);
    v->valid = 1;
    v->no_cacheable = 1;
    v->not_found = n == 0;
}

static ngx_int_t set_format(ngx_http_request_t *r, ngx_http_variable_value_t *v, const char *format, uint64_t number,
                            uint64_t fraction)
{
    u_char *text = ngx_pnalloc(r->pool, 2 * NGX_INT64_LEN);
    if (text == NULL)
        return NGX_ERROR;
    set(v, text, (size_t)(ngx_sprintf(text, format, number, fraction) - text));
    return NGX_OK;
}

static ngx_int_t variable(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t which)
{
    const ngx_http_idem_ctx_t *ctx = ngx_http_idem_ctx(r->main);
    set(v, "", 0);
    if (ctx == NULL)
        return NGX_OK;
    switch ((enum variable)which) {
    case VAR_STATUS:
        set(v, settled_names[ctx->settled], ngx_strlen(settled_names[ctx->settled]));
        break;
    case VAR_OUTCOME:
        set(v, outcome_names[ctx->outcome], ngx_strlen(outcome_names[ctx->outcome]));
        break;
    case VAR_KEY:
        set(v, ctx->key.data, ctx->key.len);
        break;
    case VAR_SCOPE:
        set(v, ctx->scope, ctx->has_key && ctx->scope[0] != '\0' ? sizeof ctx->scope : 0);
        break;
    case VAR_FINGERPRINT:
        return ctx->fingerprint != 0 ? set_format(r, v, "%016xL", ctx->fingerprint, 0) : NGX_OK;
    case VAR_WAIT_TIME: {
        ngx_msec_t ms = ctx->group != NULL ? ngx_current_msec - ctx->waited_from : ctx->waited_ms;
        return ctx->waited ? set_format(r, v, "%uL.%03uL", ms / 1000, ms % 1000) : NGX_OK;
    }
    case VAR_AGE:
        return ctx->outcome == NGX_HTTP_IDEM_REPLAYED || ctx->outcome == NGX_HTTP_IDEM_SHARED
                   ? set_format(r, v, "%uL", (uint64_t)ngx_max(ctx->age_ms, 0) / 1000, 0)
                   : NGX_OK;
    case VAR_TOKEN:
        return ctx->token != 0 ? set_format(r, v, "%uL", ctx->token, 0) : NGX_OK;
    }
    return NGX_OK;
}

ngx_int_t ngx_http_idem_variables(ngx_conf_t *cf)
{
    static struct {
        ngx_str_t name;
        enum variable which;
    } variables[] = {{ngx_string("idem_status"), VAR_STATUS},
                     {ngx_string("idem_outcome"), VAR_OUTCOME},
                     {ngx_string("idem_key"), VAR_KEY},
                     {ngx_string("idem_scope"), VAR_SCOPE},
                     {ngx_string("idem_fingerprint"), VAR_FINGERPRINT},
                     {ngx_string("idem_wait_time"), VAR_WAIT_TIME},
                     {ngx_string("idem_age"), VAR_AGE},
                     {ngx_string("idem_token"), VAR_TOKEN}};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        ngx_http_variable_t *v = ngx_http_add_variable(cf, &variables[i].name, NGX_HTTP_VAR_NOCACHEABLE);
        if (v == NULL)
            return NGX_ERROR;
        v->get_handler = variable;
        v->data = variables[i].which;
    }
    return NGX_OK;
}

/* ------------------------------------------------------------------ the page */

/* What a zone's figures are called, and what they mean. */
struct figure {
    const char *name, *help, *type;
    uint64_t value;
};
#define FIGURES 16

static void figures_of(const ngx_http_idem_zone_t *zone, struct figure *f)
{
    idem_stats_data stats = {.size = sizeof stats}, *s = &stats;
    if (zone->store != NULL && idem_stats(zone->store, s) != IDEM_OK)
        ngx_memzero(s, sizeof *s);
    const struct figure all[FIGURES] = {
        {"idem_clients_gone_total", "Clients that left before their answer was complete; it was recorded all the same.",
         "counter", zone->counters->aborted},
        {"idem_waiting", "Requests of the answering worker that wait for another attempt.", "gauge", zone->waiting},
        {"idem_up", "1 if the answering worker has the store open.", "gauge", zone->store != NULL},
        {"idem_keys_capacity", "Live keys that the store was made for.", "gauge", s->keys_capacity},
        {"idem_slots", "Slots of the index.", "gauge", s->slots},
        {"idem_slots_used", "Slots of the index in use, by the last complete sweep.", "gauge", s->slots_used},
        {"idem_store_bytes", "Memory of the store.", "gauge", s->bytes_total},
        {"idem_regions", "Regions of the arena.", "gauge", s->regions},
        {"idem_regions_free", "Regions that are free.", "gauge", s->regions_free},
        {"idem_full_total", "Claims refused because the store was full.", "counter", s->full},
        {"idem_processes", "Handles open on the store.", "gauge", s->processes},
        {"idem_log_trouble", "0: the log is fine, or there is none.", "gauge", s->log.trouble},
        {"idem_log_queued", "Records that are not on the disk yet.", "gauge", s->log.queued},
        {"idem_log_bytes", "Disk space of the log.", "gauge", s->log.bytes_on_disk},
        {"idem_log_syncs_total", "Times the log was synced.", "counter", s->log.syncs},
        {"idem_log_sync_failures_total", "Syncs of the log that failed.", "counter", s->log.sync_failures},
    };
    ngx_memcpy(f, all, sizeof all);
}

#define LINE_BYTES 320
#define ZONE_LINES (NGX_HTTP_IDEM_OUTCOMES + NGX_HTTP_IDEM_SETTLEMENTS + 3 * FIGURES + 16)

static u_char *counted(u_char *at, ngx_http_idem_main_conf_t *main, const char *metric, const char *label,
                       const char *help, const char *const *names, ngx_uint_t n, size_t offset)
{
    ngx_http_idem_zone_t **zones = main->zones.elts;
    at = ngx_sprintf(at, "# HELP %s %s\n# TYPE %s counter\n", metric, help, metric);
    for (ngx_uint_t z = 0; z < main->zones.nelts; z++) {
        const ngx_atomic_t *counts = (ngx_atomic_t *)((char *)zones[z]->counters + offset);
        for (ngx_uint_t i = 1; i < n; i++)
            at =
                ngx_sprintf(at, "%s{zone=\"%V\",%s=\"%s\"} %uA\n", metric, &zones[z]->name, label, names[i], counts[i]);
    }
    return at;
}

static u_char *prometheus(u_char *at, ngx_http_idem_main_conf_t *main, const struct figure *figures)
{
    ngx_http_idem_zone_t **zones = main->zones.elts;
    at = counted(at, main, "idem_requests_total", "outcome", "Requests by what they were told.", outcome_names,
                 NGX_HTTP_IDEM_OUTCOMES, offsetof(ngx_http_idem_counters_t, outcomes));
    at = counted(at, main, "idem_claims_total", "status", "Claims by what became of them.", settled_names,
                 NGX_HTTP_IDEM_SETTLEMENTS, offsetof(ngx_http_idem_counters_t, settled));
    for (ngx_uint_t i = 0; i < FIGURES; i++) {
        for (ngx_uint_t z = 0; z < main->zones.nelts; z++) {
            const struct figure *f = &figures[z * FIGURES + i];
            if (z == 0)
                at = ngx_sprintf(at, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name, f->type);
            at = ngx_sprintf(at, "%s{zone=\"%V\"} %uL\n", f->name, &zones[z]->name, f->value);
        }
    }
    return at;
}

static u_char *row(u_char *at, const char *name, uint64_t value, const char *help)
{
    return ngx_sprintf(at, "<tr><td>%s<td class=n>%uL<td>%s\n", name, value, help);
}

static u_char *page(u_char *at, ngx_http_idem_main_conf_t *main, const struct figure *figures)
{
    ngx_http_idem_zone_t **zones = main->zones.elts;
    at = ngx_sprintf(
        at,
        "<!doctype html><meta charset=utf-8><title>idem</title><style>body{font:14px system-ui,sans-serif;margin:2em}"
        "td,th{text-align:left;padding:.15em 1em .15em 0}.n{text-align:right;font-variant-numeric:tabular-nums}"
        "</style><h1>idem %s</h1>\n",
        idem_version());
    for (ngx_uint_t z = 0; z < main->zones.nelts; z++) {
        const ngx_http_idem_counters_t *c = zones[z]->counters;
        const struct figure *f = &figures[z * FIGURES];
        at = ngx_sprintf(at, "<h2>zone %V</h2><p>%V%s</p><table><tr><th>requests<th class=n>since start<th>\n",
                         &zones[z]->name, &zones[z]->path, zones[z]->store != NULL ? "" : ": not open in this worker");
        for (ngx_uint_t i = 1; i < NGX_HTTP_IDEM_OUTCOMES; i++)
            at = row(at, outcome_names[i], c->outcomes[i], "");
        at = ngx_sprintf(at, "<tr><th>claims<th class=n>since start<th>\n");
        for (ngx_uint_t i = 1; i < NGX_HTTP_IDEM_SETTLEMENTS; i++)
            at = row(at, settled_names[i], c->settled[i], "");
        at = ngx_sprintf(at, "<tr><th>store<th class=n>now<th>\n");
        for (ngx_uint_t i = 0; i < FIGURES; i++)
            at = row(at, f[i].name + sizeof "idem_" - 1, f[i].value, f[i].help);
        at = ngx_sprintf(at, "</table>\n");
    }
    return at;
}

static ngx_uint_t wants_text(ngx_http_request_t *r)
{
    ngx_str_t format;
    if (ngx_http_arg(r, (u_char *)"format", 6, &format) == NGX_OK)
        return format.len == 10 && ngx_strncmp(format.data, "prometheus", 10) == 0;
    if (r->headers_in.accept == NULL)
        return 0;
    u_char *value = r->headers_in.accept->value.data, *end = value + r->headers_in.accept->value.len;
    return ngx_strlcasestrn(value, end, (u_char *)"text/html", 8) == NULL &&
           (ngx_strlcasestrn(value, end, (u_char *)"text/plain", 9) != NULL ||
            ngx_strlcasestrn(value, end, (u_char *)"openmetrics", 10) != NULL);
}

static ngx_int_t status(ngx_http_request_t *r)
{
    if (!(r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)))
        return NGX_HTTP_NOT_ALLOWED;
    ngx_int_t rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK)
        return rc;
    ngx_http_idem_main_conf_t *main = ngx_http_get_module_main_conf(r, ngx_http_idem_module);
    ngx_http_idem_zone_t **zones = main->zones.elts;
    ngx_uint_t n = main->zones.nelts, text = wants_text(r);
    size_t room = 2048;
    struct figure *figures = ngx_palloc(r->pool, (n + 1) * FIGURES * sizeof *figures);
    ngx_buf_t *b = ngx_calloc_buf(r->pool);
    if (figures == NULL || b == NULL)
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    for (ngx_uint_t z = 0; z < n; z++) {
        figures_of(zones[z], &figures[z * FIGURES]);
        room += ZONE_LINES * (LINE_BYTES + zones[z]->name.len) + zones[z]->path.len;
    }
    b->start = b->pos = ngx_pnalloc(r->pool, room);
    if (b->start == NULL)
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    b->last = b->end = text ? prometheus(b->pos, main, figures) : page(b->pos, main, figures);
    b->memory = b->last_buf = b->last_in_chain = 1;
    r->headers_out.status = NGX_HTTP_OK;
    if (text) {
        ngx_str_set(&r->headers_out.content_type, "text/plain; version=0.0.4; charset=utf-8");
    } else {
        ngx_str_set(&r->headers_out.content_type, "text/html; charset=utf-8");
    }
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_length_n = b->last - b->pos;
    rc = ngx_http_send_header(r);
    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only)
        return rc;
    ngx_chain_t out = {b, NULL};
    return ngx_http_output_filter(r, &out);
}

char *ngx_http_idem_conf_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_core_loc_conf_t *core = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    ngx_str_t *arguments = cf->args->elts;
    (void)cmd;
    (void)conf;
    if (arguments[1].len == 2 && ngx_strncasecmp(arguments[1].data, (u_char *)"on", 2) == 0)
        core->handler = status;
    else if (arguments[1].len != 3 || ngx_strncasecmp(arguments[1].data, (u_char *)"off", 3) != 0)
        return "takes on or off";
    return NGX_CONF_OK;
}
