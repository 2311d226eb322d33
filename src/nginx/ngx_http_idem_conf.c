/*
 * nginx/ngx_http_idem_conf.c - what the directives mean, what they inherit, and what is refused.
 *
 * Owns: configuration memory. Whatever could make a request run twice is refused here, with the file and the line of the directive; what is
 * merely doubtful is warned of.
 */
#include "ngx_http_idem.h"

#define DEFAULT_KEYS           1000000
#define DEFAULT_RESPONSE_BYTES 512
#define DEFAULT_TTL_MS         (24 * 3600 * 1000)
#define DEFAULT_LEASE_MS       (30 * 1000)
#define DEFAULT_MAX_BODY       (64 * 1024)
#define DEFAULT_MAX_WAITERS    1000
#define TTL_MIN_MS             1000
#define TTL_MAX_MS             INT64_C(2592000000) /* 30 days */
#define LEASE_LOW_MS           1000
#define STATUS_END             600

/* Upstream modules begin their configuration with what they share; each symbol is in the nginx binary. */
extern ngx_module_t ngx_http_proxy_module;
extern ngx_module_t ngx_http_fastcgi_module __attribute__((weak));
extern ngx_module_t ngx_http_uwsgi_module __attribute__((weak));
extern ngx_module_t ngx_http_scgi_module __attribute__((weak));
extern ngx_module_t ngx_http_grpc_module __attribute__((weak));

void *ngx_http_idem_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_idem_main_conf_t *main = ngx_pcalloc(cf->pool, sizeof *main);
    if (main == NULL || ngx_array_init(&main->zones, cf->pool, 4, sizeof(ngx_http_idem_zone_t *)) != NGX_OK)
        return NULL;
    return main;
}

int64_t ngx_http_idem_time_ms(const ngx_str_t *value)
{
    ngx_str_t copy = *value;
    ngx_int_t ms = ngx_parse_time(&copy, 0);
    return ms == NGX_ERROR || ms <= 0 ? -1 : (int64_t)ms;
}

/* The zone of that name; made if it is only mentioned so far. */
static ngx_http_idem_zone_t *find_zone(ngx_conf_t *cf, const ngx_str_t *name)
{
    ngx_http_idem_main_conf_t *main = ngx_http_conf_get_module_main_conf(cf, ngx_http_idem_module);
    ngx_http_idem_zone_t **zones = main->zones.elts;
    for (ngx_uint_t i = 0; i < main->zones.nelts; i++) {
        if (zones[i]->name.len == name->len && ngx_strncmp(zones[i]->name.data, name->data, name->len) == 0)
            return zones[i];
    }
    ngx_http_idem_zone_t **slot = ngx_array_push(&main->zones);
    if (slot == NULL)
        return NULL;
    *slot = ngx_pcalloc(cf->pool, sizeof **slot);
    if (*slot != NULL) {
        (*slot)->name = *name;
        /* For whoever only mentions it, until the zone itself is met. */
        (*slot)->lease_ms = DEFAULT_LEASE_MS;
        (*slot)->ttl_ms = DEFAULT_TTL_MS;
    }
    return *slot;
}

/* ------------------------------------------------------------------ idem_zone */

static ngx_uint_t takes(const ngx_str_t *argument, const char *name, ngx_str_t *value)
{
    size_t n = ngx_strlen(name);
    if (argument->len <= n || ngx_strncmp(argument->data, name, n) != 0)
        return 0;
    value->data = argument->data + n;
    value->len = argument->len - n;
    return 1;
}

/* A count, with k or m for thousands and millions. */
static int64_t count_of(const ngx_str_t *value, int64_t thousand)
{
    ngx_str_t digits = *value;
    int64_t factor = 1;
    u_char last = ngx_tolower(digits.data[digits.len - 1]);
    if (last == 'k' || last == 'm') {
        factor = last == 'k' ? thousand : thousand * thousand;
        digits.len--;
    }
    ngx_int_t n = ngx_atoi(digits.data, digits.len);
    return n <= 0 || n > INT64_C(1000000000000) / factor ? -1 : (int64_t)n * factor;
}

static ngx_int_t absolute(ngx_conf_t *cf, const ngx_str_t *name, const ngx_str_t *value, ngx_str_t *path)
{
    if (value->data[0] != '/') {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "idem_zone \"%V\": \"%V\" is not an absolute path", name, value);
        return NGX_ERROR;
    }
    path->len = value->len;
    path->data = ngx_pnalloc(cf->pool, value->len + 1);
    if (path->data == NULL)
        return NGX_ERROR;
    ngx_cpystrn(path->data, value->data, value->len + 1);
    return NGX_OK;
}

static char *zone_argument(ngx_conf_t *cf, ngx_http_idem_zone_t *zone, const ngx_str_t *argument)
{
    ngx_str_t value;
    if (takes(argument, "path=", &value))
        return absolute(cf, &zone->name, &value, &zone->path) == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR;
    if (takes(argument, "wal=", &value))
        return absolute(cf, &zone->name, &value, &zone->wal) == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR;
    if (takes(argument, "keys=", &value)) {
        int64_t n = count_of(&value, 1000);
        zone->keys = (uint64_t)n;
        if (n >= 16)
            return NGX_CONF_OK;
    } else if (takes(argument, "response=", &value)) {
        int64_t n = count_of(&value, 1024);
        zone->response_bytes = (uint32_t)n;
        if (n > 0 && n <= 1024 * 1024)
            return NGX_CONF_OK;
    } else if (takes(argument, "ttl=", &value)) {
        zone->ttl_ms = ngx_http_idem_time_ms(&value);
        if (zone->ttl_ms > 0)
            return NGX_CONF_OK;
    } else if (takes(argument, "lease=", &value)) {
        zone->lease_ms = ngx_http_idem_time_ms(&value);
        if (zone->lease_ms > 0 && zone->lease_ms <= IDEM_LEASE_MAX_MS)
            return NGX_CONF_OK;
    } else if (takes(argument, "durability=", &value)) {
        static const char *words[] = {"none", "async", "sync"};
        for (uint32_t i = 0; i < 3; i++) {
            if (value.len == ngx_strlen(words[i]) && ngx_strncmp(value.data, words[i], value.len) == 0) {
                zone->durability = IDEM_DURABILITY_NONE + i;
                return NGX_CONF_OK;
            }
        }
    } else {
        ngx_conf_log_error(
            NGX_LOG_EMERG, cf, 0,
            "idem_zone \"%V\": unknown parameter \"%V\"; there are path= keys= response= ttl= lease= wal= "
            "durability=",
            &zone->name, argument);
        return NGX_CONF_ERROR;
    }
    ngx_conf_log_error(
        NGX_LOG_EMERG, cf, 0,
        "idem_zone \"%V\": invalid \"%V\"; keys= is 16 or more, response= 1 to 1m, ttl= a time, lease= a "
        "time up to 7d, durability= none, async or sync",
        &zone->name, argument);
    return NGX_CONF_ERROR;
}

static char *zone_path(ngx_conf_t *cf, ngx_http_idem_zone_t *zone)
{
    static const char prefix[] = "/dev/shm/idem-";
    for (size_t i = 0; i < zone->name.len; i++) {
        u_char c = zone->name.data[i];
        if (!(c == '-' || c == '_' || c == '.' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "idem_zone: \"%V\" is not a name; use letters, digits, - _ .",
                               &zone->name);
            return NGX_CONF_ERROR;
        }
    }
    if (zone->path.len > 0)
        return NGX_CONF_OK;
    zone->path.data = ngx_pnalloc(cf->pool, sizeof prefix + zone->name.len);
    if (zone->path.data == NULL)
        return NGX_CONF_ERROR;
    zone->path.len = (size_t)(ngx_sprintf(zone->path.data, "%s%V%Z", prefix, &zone->name) - zone->path.data) - 1;
    return NGX_CONF_OK;
}

char *ngx_http_idem_conf_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_idem_main_conf_t *main = conf;
    ngx_str_t *arguments = cf->args->elts;
    (void)cmd;

    ngx_http_idem_zone_t *zone = find_zone(cf, &arguments[1]);
    if (zone == NULL)
        return NGX_CONF_ERROR;
    if (zone->file != NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "idem_zone \"%V\" is already defined in %s:%ui", &zone->name,
                           zone->file, zone->line);
        return NGX_CONF_ERROR;
    }
    zone->file = cf->conf_file->file.name.data;
    zone->line = cf->conf_file->line;
    zone->keys = DEFAULT_KEYS;
    zone->response_bytes = DEFAULT_RESPONSE_BYTES;
    for (ngx_uint_t i = 2; i < cf->args->nelts; i++) {
        char *rc = zone_argument(cf, zone, &arguments[i]);
        if (rc != NGX_CONF_OK)
            return rc;
    }
    if (zone_path(cf, zone) != NGX_CONF_OK)
        return NGX_CONF_ERROR;
    if (zone->wal.len == 0 && zone->durability > IDEM_DURABILITY_NONE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "idem_zone \"%V\": durability=async and durability=sync need wal=, a directory on a disk",
                           &zone->name);
        return NGX_CONF_ERROR;
    }
    if (zone->wal.len > 0 && zone->durability == IDEM_DURABILITY_DEFAULT)
        zone->durability = IDEM_DURABILITY_SYNC;
    ngx_http_idem_zone_t **zones = main->zones.elts;
    for (ngx_uint_t i = 0; i < main->zones.nelts; i++) {
        if (zones[i] != zone && zones[i]->path.len == zone->path.len && zone->path.len > 0 &&
            ngx_strncmp(zones[i]->path.data, zone->path.data, zone->path.len) == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "idem_zone \"%V\" has the path of zone \"%V\", in %s:%ui",
                               &zone->name, &zones[i]->name, zones[i]->file, zones[i]->line);
            return NGX_CONF_ERROR;
        }
    }
    if (zone->durability == IDEM_DURABILITY_SYNC) {
        zone->threads = ngx_thread_pool_add(cf, NULL);
        if (zone->threads == NULL)
            return NGX_CONF_ERROR;
    }
    return ngx_http_idem_zone_shm(cf, zone) == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR;
}

/* ------------------------------------------------------------------ directives of a location */

char *ngx_http_idem_conf_idem(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_idem_loc_conf_t *loc = conf;
    ngx_str_t *arguments = cf->args->elts;
    (void)cmd;
    if (loc->zone != NGX_CONF_UNSET_PTR)
        return "is duplicate";
    loc->file = cf->conf_file->file.name.data;
    loc->line = cf->conf_file->line;
    if (arguments[1].len == 3 && ngx_strncmp(arguments[1].data, "off", 3) == 0) {
        loc->zone = NULL;
        return NGX_CONF_OK;
    }
    loc->zone = find_zone(cf, &arguments[1]);
    if (loc->zone == NULL)
        return NGX_CONF_ERROR;
    if (loc->zone->used_file == NULL) {
        loc->zone->used_file = loc->file;
        loc->zone->used_line = loc->line;
    }
    return NGX_CONF_OK;
}

char *ngx_http_idem_conf_header(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_idem_loc_conf_t *loc = conf;
    ngx_str_t *arguments = cf->args->elts;
    (void)cmd;
    if (loc->header.data != NULL)
        return "is duplicate";
    if (arguments[1].len == 0)
        return "needs the name of a request header";
    loc->header = arguments[1];
    return NGX_CONF_OK;
}

/* A time that may have variables; without any it is checked now. */
static char *time_value(ngx_conf_t *cf, ngx_str_t *text, int64_t most_ms, ngx_http_complex_value_t **value)
{
    ngx_http_compile_complex_value_t compile;
    *value = ngx_palloc(cf->pool, sizeof **value);
    if (*value == NULL)
        return NGX_CONF_ERROR;
    ngx_memzero(&compile, sizeof compile);
    compile.cf = cf;
    compile.value = text;
    compile.complex_value = *value;
    if (ngx_http_compile_complex_value(&compile) != NGX_OK)
        return NGX_CONF_ERROR;
    if ((*value)->lengths == NULL) {
        int64_t ms = ngx_http_idem_time_ms(text);
        if (ms < 0 || ms > most_ms)
            return "needs a time, such as 30s; a lease lasts 7d at most";
    }
    return NGX_CONF_OK;
}

char *ngx_http_idem_conf_lease(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_idem_loc_conf_t *loc = conf;
    ngx_str_t *arguments = cf->args->elts;
    (void)cmd;
    if (loc->lease != NGX_CONF_UNSET_PTR)
        return "is duplicate";
    return time_value(cf, &arguments[1], IDEM_LEASE_MAX_MS, &loc->lease);
}

char *ngx_http_idem_conf_ttl(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_idem_loc_conf_t *loc = conf;
    ngx_str_t *arguments = cf->args->elts;
    (void)cmd;
    if (loc->ttl != NGX_CONF_UNSET_PTR)
        return "is duplicate";
    for (ngx_uint_t i = 2; i < cf->args->nelts; i++) {
        ngx_str_t value;
        int64_t *bound = takes(&arguments[i], "min=", &value)   ? &loc->ttl_min_ms
                         : takes(&arguments[i], "max=", &value) ? &loc->ttl_max_ms
                                                                : NULL;
        if (bound == NULL || (*bound = ngx_http_idem_time_ms(&value)) < 0)
            return "takes a time, min=TIME and max=TIME";
    }
    return time_value(cf, &arguments[1], IDEM_TTL_MAX_MS, &loc->ttl);
}

char *ngx_http_idem_conf_fingerprint_body(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_idem_loc_conf_t *loc = conf;
    ngx_str_t *arguments = cf->args->elts;
    (void)cmd;
    if (loc->fingerprint_body != NGX_CONF_UNSET)
        return "is duplicate";
    if (arguments[1].len == 2 && ngx_strncmp(arguments[1].data, "on", 2) == 0)
        loc->fingerprint_body = NGX_MAX_OFF_T_VALUE;
    else if (arguments[1].len == 3 && ngx_strncmp(arguments[1].data, "off", 3) == 0)
        loc->fingerprint_body = 0;
    else if ((loc->fingerprint_body = ngx_parse_offset(&arguments[1])) <= 0)
        return "takes on, off, or how much of a body counts, such as 1m";
    return NGX_CONF_OK;
}

static uint64_t *no_status(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, NGX_HTTP_IDEM_STATUS_WORDS * sizeof(uint64_t));
}

static void set_status(uint64_t *words, ngx_uint_t from, ngx_uint_t to, ngx_uint_t on)
{
    for (ngx_uint_t s = from; s <= to && s < STATUS_END; s++) {
        if (on)
            words[s / 64] |= UINT64_C(1) << (s % 64);
        else
            words[s / 64] &= ~(UINT64_C(1) << (s % 64));
    }
}

static void default_status(uint64_t *words)
{
    static const ngx_uint_t without[] = {401, 403, 408, 409, 425, 429, 499};
    set_status(words, 200, 499, 1);
    for (ngx_uint_t i = 0; i < sizeof without / sizeof *without; i++)
        set_status(words, without[i], without[i], 0);
}

/* 201, 200-299, 2xx; false if it is none of these. */
static ngx_uint_t status_range(const u_char *text, size_t n, ngx_uint_t *from, ngx_uint_t *to)
{
    if (n == 3 && ngx_tolower(text[1]) == 'x' && ngx_tolower(text[2]) == 'x') {
        ngx_int_t hundred = ngx_atoi((u_char *)text, 1);
        *from = (ngx_uint_t)hundred * 100;
        *to = *from + 99;
        return hundred >= 2 && hundred <= 5;
    }
    ngx_int_t first = n >= 3 ? ngx_atoi((u_char *)text, 3) : NGX_ERROR, last = first;
    if (n == 7 && text[3] == '-')
        last = ngx_atoi((u_char *)text + 4, 3);
    else if (n != 3)
        return 0;
    *from = (ngx_uint_t)first;
    *to = (ngx_uint_t)last;
    return first >= 200 && last >= first && last < STATUS_END;
}

char *ngx_http_idem_conf_store_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_idem_loc_conf_t *loc = conf;
    ngx_str_t *arguments = cf->args->elts;
    (void)cmd;
    if (loc->store_status != NGX_CONF_UNSET_PTR)
        return "is duplicate";
    uint64_t *words = loc->store_status = no_status(cf);
    if (words == NULL)
        return NGX_CONF_ERROR;
    for (ngx_uint_t i = 1; i < cf->args->nelts; i++) {
        u_char *text = arguments[i].data;
        size_t n = arguments[i].len;
        ngx_uint_t on = n == 0 || text[0] != '-', from, to;
        if (n == 7 && ngx_strncmp(text, "default", 7) == 0)
            default_status(words);
        else if (n > 0 && status_range(text + !on, n - !on, &from, &to))
            set_status(words, from, to, on);
        else
            return "takes statuses (201), ranges (200-299), hundreds (2xx), the word default, and any of these after a "
                   "-";
    }
    return NGX_CONF_OK;
}

char *ngx_http_idem_conf_names(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_array_t **names = (ngx_array_t **)((char *)conf + cmd->offset);
    ngx_str_t *arguments = cf->args->elts;
    if (*names == NGX_CONF_UNSET_PTR)
        *names = ngx_array_create(cf->pool, 4, sizeof(ngx_str_t));
    for (ngx_uint_t i = 1; *names != NULL && i < cf->args->nelts; i++) {
        ngx_str_t *name = ngx_array_push(*names);
        if (name == NULL)
            return NGX_CONF_ERROR;
        *name = arguments[i];
        ngx_strlow(name->data, name->data, name->len);
    }
    return *names != NULL ? NGX_CONF_OK : NGX_CONF_ERROR;
}

/* ------------------------------------------------------------------ merging */

void *ngx_http_idem_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_idem_loc_conf_t *loc = ngx_pcalloc(cf->pool, sizeof *loc);
    if (loc == NULL)
        return NULL;
    loc->zone = NGX_CONF_UNSET_PTR;
    loc->required = NGX_CONF_UNSET;
    loc->syntax = NGX_CONF_UNSET_UINT;
    loc->fingerprint_body = NGX_CONF_UNSET;
    loc->lease = NGX_CONF_UNSET_PTR;
    loc->ttl = NGX_CONF_UNSET_PTR;
    loc->wait = NGX_CONF_UNSET_MSEC;
    loc->max_waiters = NGX_CONF_UNSET_UINT;
    loc->store_status = NGX_CONF_UNSET_PTR;
    loc->share_failures = NGX_CONF_UNSET;
    loc->ambiguous = NGX_CONF_UNSET_UINT;
    loc->max_body = NGX_CONF_UNSET_SIZE;
    loc->store_headers = NGX_CONF_UNSET_PTR;
    loc->hide_headers = NGX_CONF_UNSET_PTR;
    loc->ignore_client_abort = NGX_CONF_UNSET;
    loc->fail_open = NGX_CONF_UNSET;
    loc->heartbeat = NGX_CONF_UNSET;
    loc->bypass = NGX_CONF_UNSET_PTR;
    return loc;
}

static ngx_http_complex_value_t *constant(ngx_conf_t *cf, const char *text)
{
    ngx_http_compile_complex_value_t compile;
    ngx_str_t value = {ngx_strlen(text), (u_char *)text};
    ngx_http_complex_value_t *complex = ngx_palloc(cf->pool, sizeof *complex);
    if (complex == NULL)
        return NULL;
    ngx_memzero(&compile, sizeof compile);
    compile.cf = cf;
    compile.value = &value;
    compile.complex_value = complex;
    return ngx_http_compile_complex_value(&compile) == NGX_OK ? complex : NULL;
}

static ngx_http_upstream_conf_t *upstream_of(ngx_conf_t *cf, ngx_uint_t i)
{
    static ngx_module_t *const modules[] = {&ngx_http_proxy_module, &ngx_http_fastcgi_module, &ngx_http_uwsgi_module,
                                            &ngx_http_scgi_module, &ngx_http_grpc_module};
    return modules[i] != NULL ? ngx_http_conf_get_module_loc_conf(cf, (*modules[i])) : NULL;
}
#define UPSTREAM_MODULES 5

/* What the upstream modules of this location would do to a request that is not safe to repeat. Their configuration is merged before ours. */
static char *check_upstream(ngx_conf_t *cf, const ngx_http_idem_loc_conf_t *loc)
{
    ngx_http_core_loc_conf_t *core = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    if (core->handler == NULL)
        return NGX_CONF_OK;
    /* The one that this location passes to is known unless its address is a variable; then each may be it. */
    ngx_http_upstream_conf_t *only = NULL;
    for (ngx_uint_t i = 0; i < UPSTREAM_MODULES; i++) {
        ngx_http_upstream_conf_t *u = upstream_of(cf, i);
        if (u != NULL && u->upstream != NULL)
            only = u;
    }
    for (ngx_uint_t i = 0; i < UPSTREAM_MODULES; i++) {
        ngx_http_upstream_conf_t *u = upstream_of(cf, i);
        if (u == NULL || (only != NULL && u != only))
            continue;
        if (u->next_upstream & NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "idem with %V_next_upstream non_idempotent would execute a request twice; take "
                          "non_idempotent away, or set idem off; in %s:%ui",
                          &u->module, loc->file, loc->line);
            return NGX_CONF_ERROR;
        }
        int64_t lease_ms = loc->lease != NULL && loc->lease->lengths == NULL ? ngx_http_idem_time_ms(&loc->lease->value)
                                                                             : loc->zone->lease_ms;
        int64_t longest_ms = (int64_t)u->connect_timeout + (int64_t)u->send_timeout + (int64_t)u->read_timeout;
        if (!loc->heartbeat && u == only && lease_ms < longest_ms)
            ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                          "the idem lease (%L ms) may end while the upstream is still allowed to work (%L ms): a "
                          "duplicate would then take over; lengthen idem_lease or set idem_heartbeat on; in %s:%ui",
                          lease_ms, longest_ms, loc->file, loc->line);
    }
    return NGX_CONF_OK;
}

static char *check(ngx_conf_t *cf, const ngx_http_idem_loc_conf_t *loc)
{
    if (loc->zone == NULL)
        return NGX_CONF_OK;
    if (loc->ttl_min_ms > loc->ttl_max_ms) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "idem_ttl: min= is above max=; in %s:%ui", loc->file, loc->line);
        return NGX_CONF_ERROR;
    }
    if (loc->scope->value.len == 0)
        ngx_log_error(
            NGX_LOG_WARN, cf->log, 0,
            "idem_scope is empty: one client can be given another's answer if it sends the same key; in %s:%ui",
            loc->file, loc->line);
    if (loc->fail_open && (loc->methods & (NGX_HTTP_POST | NGX_HTTP_PATCH)))
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "idem_fail_open lets POST and PATCH run without protection while the store is full or broken; in "
                      "%s:%ui",
                      loc->file, loc->line);
    if (loc->lease != NULL && loc->lease->lengths == NULL && ngx_http_idem_time_ms(&loc->lease->value) < LEASE_LOW_MS)
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "idem_lease is under 1s: a worker that stalls for that long loses its claims; in %s:%ui",
                      loc->file, loc->line);
    return check_upstream(cf, loc);
}

char *ngx_http_idem_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_idem_loc_conf_t *up = parent, *loc = child;
    if (loc->zone == NGX_CONF_UNSET_PTR) {
        loc->file = up->file;
        loc->line = up->line;
    }
    ngx_conf_merge_ptr_value(loc->zone, up->zone, NULL);
    ngx_conf_merge_bitmask_value(loc->methods, up->methods, NGX_CONF_BITMASK_SET | NGX_HTTP_POST | NGX_HTTP_PATCH);
    ngx_conf_merge_value(loc->required, up->required, 0);
    ngx_conf_merge_str_value(loc->header, up->header, "Idempotency-Key");
    loc->header_lower.len = loc->header.len;
    loc->header_lower.data = ngx_pnalloc(cf->pool, loc->header.len);
    if (loc->header_lower.data == NULL)
        return NGX_CONF_ERROR;
    ngx_strlow(loc->header_lower.data, loc->header.data, loc->header.len);
    ngx_conf_merge_uint_value(loc->syntax, up->syntax, NGX_HTTP_IDEM_LENIENT);
    if (loc->scope == NULL)
        loc->scope = up->scope != NULL ? up->scope : constant(cf, "$host$http_authorization");
    if (loc->fingerprint == NULL)
        loc->fingerprint = up->fingerprint != NULL ? up->fingerprint : constant(cf, "$request_method$request_uri");
    ngx_conf_merge_off_value(loc->fingerprint_body, up->fingerprint_body, NGX_MAX_OFF_T_VALUE);
    ngx_conf_merge_ptr_value(loc->lease, up->lease, NULL);
    if (loc->ttl == NGX_CONF_UNSET_PTR) {
        loc->ttl_min_ms = up->ttl_min_ms;
        loc->ttl_max_ms = up->ttl_max_ms;
    }
    ngx_conf_merge_ptr_value(loc->ttl, up->ttl, NULL);
    if (loc->ttl_min_ms == 0)
        loc->ttl_min_ms = TTL_MIN_MS;
    if (loc->ttl_max_ms == 0)
        loc->ttl_max_ms = TTL_MAX_MS;
    ngx_conf_merge_msec_value(loc->wait, up->wait, 0);
    ngx_conf_merge_uint_value(loc->max_waiters, up->max_waiters, DEFAULT_MAX_WAITERS);
    ngx_conf_merge_ptr_value(loc->store_status, up->store_status, NULL);
    if (loc->store_status == NULL) {
        loc->store_status = no_status(cf);
        if (loc->store_status == NULL)
            return NGX_CONF_ERROR;
        default_status(loc->store_status);
        if (up->store_status == NGX_CONF_UNSET_PTR)
            up->store_status = loc->store_status;
    }
    ngx_conf_merge_value(loc->share_failures, up->share_failures, 1);
    ngx_conf_merge_uint_value(loc->ambiguous, up->ambiguous, NGX_HTTP_IDEM_HOLD);
    ngx_conf_merge_size_value(loc->max_body, up->max_body, DEFAULT_MAX_BODY);
    ngx_conf_merge_ptr_value(loc->store_headers, up->store_headers, NULL);
    ngx_conf_merge_ptr_value(loc->hide_headers, up->hide_headers, NULL);
    ngx_conf_merge_value(loc->ignore_client_abort, up->ignore_client_abort, 1);
    ngx_conf_merge_value(loc->fail_open, up->fail_open, 0);
    ngx_conf_merge_value(loc->heartbeat, up->heartbeat, 1);
    ngx_conf_merge_ptr_value(loc->bypass, up->bypass, NULL);
    ngx_conf_merge_str_value(loc->policy_url, up->policy_url, "");
    if (loc->scope == NULL || loc->fingerprint == NULL)
        return NGX_CONF_ERROR;
    return check(cf, loc);
}
