/*
 * nginx/ngx_http_idem_zone.c - stores: made by the master, opened by each worker.
 *
 * Owns: a worker's handles (zone->store) and counters. The master makes a store while it reads its configuration, as root, shared with the
 * workers' group, and closes it again; a worker opens its own, so that its death is its own. A test of the configuration looks at a store that
 * is there and makes none.
 *
 * Invariant: a configuration whose zone doesn't fit the living store is refused while the old workers serve on; nothing of the store changes.
 *
 * If we die here: the master, half way in making a store: the next one takes it (the library's promise). A worker: its claims are lost and
 * taken over, or held.
 */
#include "ngx_http_idem.h"

#include <grp.h>

#define TICK_MS     1000
#define MAINTAIN_US 500

/* The group of the workers, plus 1 (0: nobody else's business), as nginx's core will set it when the whole configuration is read. */
static int64_t worker_group(ngx_conf_t *cf)
{
    const ngx_core_conf_t *core = (ngx_core_conf_t *)ngx_get_conf(cf->cycle->conf_ctx, ngx_core_module);
    if (geteuid() != 0)
        return 0;
    if (core->group != (gid_t)NGX_CONF_UNSET_UINT)
        return (int64_t)core->group + 1;
    const struct group *group = getgrnam(NGX_GROUP);
    return group != NULL ? (int64_t)group->gr_gid + 1 : 0;
}

static void zone_options(const ngx_http_idem_zone_t *zone, idem_options *options)
{
    *options = (idem_options)IDEM_OPTIONS_INIT;
    options->keys = zone->keys;
    options->response_bytes = zone->response_bytes;
    options->ttl_ms = zone->ttl_ms;
    options->lease_ms = zone->lease_ms;
    options->processes = 1024;
    options->wal_dir = zone->wal.len > 0 ? (const char *)zone->wal.data : NULL;
    options->durability_claim = zone->wal.len > 0 ? IDEM_DURABILITY_ASYNC : IDEM_DURABILITY_DEFAULT;
    options->durability_complete = zone->wal.len > 0 ? zone->durability : IDEM_DURABILITY_DEFAULT;
}

/* Keys and room are what they were when the store was made. */
static ngx_int_t check_geometry(ngx_conf_t *cf, const ngx_http_idem_zone_t *zone, idem_store *store)
{
    idem_stats_data stats;
    ngx_memzero(&stats, sizeof stats);
    stats.size = sizeof stats;
    int e = idem_stats(store, &stats);
    if (e != IDEM_OK) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "idem_zone \"%V\": %s: %s; in %s:%ui", &zone->name, idem_strerror(e),
                      idem_error_detail(), zone->file, zone->line);
        return NGX_ERROR;
    }
    if (stats.keys_capacity == zone->keys && stats.response_bytes == zone->response_bytes)
        return NGX_OK;
    ngx_log_error(
        NGX_LOG_EMERG, cf->log, 0,
        "idem_zone \"%V\": %V is a store for keys=%uL response=%uD, not keys=%uL response=%uD; a store keeps its "
        "size: set these, give the zone another path=, or stop nginx and run: idem destroy --store %V; in %s:%ui",
        &zone->name, &zone->path, stats.keys_capacity, stats.response_bytes, zone->keys, zone->response_bytes,
        &zone->path, zone->file, zone->line);
    return NGX_ERROR;
}

static ngx_int_t make_zone(ngx_conf_t *cf, const ngx_http_idem_zone_t *zone)
{
    idem_options options;
    idem_store *store = NULL;
    zone_options(zone, &options);
    options.group = worker_group(cf);
    options.flags = IDEM_OPEN_NO_FLUSHER | (ngx_test_config ? 0 : IDEM_OPEN_CREATE);
    int e = idem_open((const char *)zone->path.data, &options, &store);
    if (e == IDEM_E_NO_STORE && ngx_test_config)
        return NGX_OK; /* it will be made when nginx starts */
    if (e != IDEM_OK) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "idem_zone \"%V\": %s: %s; in %s:%ui", &zone->name, idem_strerror(e),
                      idem_error_detail(), zone->file, zone->line);
        return NGX_ERROR;
    }
    ngx_int_t rc = check_geometry(cf, zone, store);
    idem_close(store);
    return rc;
}

ngx_int_t ngx_http_idem_zones_make(ngx_conf_t *cf, ngx_http_idem_main_conf_t *main)
{
    ngx_http_idem_zone_t **zones = main->zones.elts;
    for (ngx_uint_t i = 0; i < main->zones.nelts; i++) {
        if (zones[i]->file == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "there is no idem_zone \"%V\"; define it in the http block: idem_zone %V; in %s:%ui",
                          &zones[i]->name, &zones[i]->name, zones[i]->used_file, zones[i]->used_line);
            return NGX_ERROR;
        }
    }
    if (ngx_process == NGX_PROCESS_SIGNALLER)
        return NGX_OK; /* nginx -s: it reads the configuration and needs nothing of it */
    for (ngx_uint_t i = 0; i < main->zones.nelts; i++) {
        if (make_zone(cf, zones[i]) != NGX_OK)
            return NGX_ERROR;
    }
    return NGX_OK;
}

/* ------------------------------------------------------------------ counters, shared by the workers and kept over a reload */

static ngx_int_t init_counters(ngx_shm_zone_t *shm, void *before)
{
    ngx_slab_pool_t *pool = (ngx_slab_pool_t *)shm->shm.addr;
    if (before != NULL || shm->shm.exists) {
        shm->data = before != NULL ? before : pool->data;
        return NGX_OK;
    }
    shm->data = pool->data = ngx_slab_calloc(pool, sizeof(ngx_http_idem_counters_t));
    return shm->data != NULL ? NGX_OK : NGX_ERROR;
}

ngx_int_t ngx_http_idem_zone_shm(ngx_conf_t *cf, ngx_http_idem_zone_t *zone)
{
    ngx_str_t name;
    name.len = sizeof "idem:" - 1 + zone->name.len;
    name.data = ngx_pnalloc(cf->pool, name.len);
    if (name.data == NULL)
        return NGX_ERROR;
    ngx_sprintf(name.data, "idem:%V", &zone->name);
    zone->shm = ngx_shared_memory_add(cf, &name, 8 * ngx_pagesize, &ngx_http_idem_module);
    if (zone->shm == NULL)
        return NGX_ERROR;
    zone->shm->init = init_counters;
    return NGX_OK;
}

/* ------------------------------------------------------------------ a worker */

static void open_zone(ngx_http_idem_zone_t *zone, ngx_log_t *log)
{
    idem_options options;
    zone_options(zone, &options);
    int e = idem_open((const char *)zone->path.data, &options, &zone->store);
    if (e != IDEM_OK)
        ngx_log_error(NGX_LOG_ALERT, log, 0,
                      "idem_zone \"%V\": %s: %s; requests are refused meanwhile, or pass where "
                      "idem_fail_open is on; trying again every second",
                      &zone->name, idem_strerror(e), idem_error_detail());
}

static void tick(ngx_event_t *event)
{
    ngx_http_idem_zone_t *zone = event->data;
    if (zone->store == NULL)
        open_zone(zone, event->log);
    else
        (void)idem_maintain(zone->store, MAINTAIN_US);
    ngx_add_timer(event, TICK_MS);
}

static ngx_http_idem_main_conf_t *main_conf(ngx_cycle_t *cycle)
{
    return cycle->conf_ctx[ngx_http_module.index] != NULL
               ? ngx_http_cycle_get_module_main_conf(cycle, ngx_http_idem_module)
               : NULL;
}

ngx_int_t ngx_http_idem_init_process(ngx_cycle_t *cycle)
{
    ngx_http_idem_main_conf_t *main = main_conf(cycle);
    if (main == NULL || (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE))
        return NGX_OK;
    ngx_http_idem_zone_t **zones = main->zones.elts;
    for (ngx_uint_t i = 0; i < main->zones.nelts; i++) {
        ngx_http_idem_zone_t *zone = zones[i];
        zone->counters = zone->shm->data;
        ngx_queue_init(&zone->owners);
        for (ngx_uint_t g = 0; g < NGX_HTTP_IDEM_GROUPS; g++) {
            ngx_queue_init(&zone->groups[g]);
        }
        open_zone(zone, cycle->log);
        zone->timer.handler = tick;
        zone->timer.data = zone;
        zone->timer.log = cycle->log;
        zone->timer.cancelable = 1;
        zone->beat.handler = ngx_http_idem_beat;
        zone->beat.data = zone;
        zone->beat.log = cycle->log;
        zone->beat.cancelable = 1;
        ngx_add_timer(&zone->timer, TICK_MS);
    }
    return NGX_OK;
}

/* Requests that are still there end without clean-up of their own (a fast shutdown): say now what became of their claims. */
void ngx_http_idem_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_idem_main_conf_t *main = main_conf(cycle);
    if (main == NULL || (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE))
        return;
    ngx_http_idem_zone_t **zones = main->zones.elts;
    for (ngx_uint_t i = 0; i < main->zones.nelts; i++) {
        ngx_http_idem_zone_t *zone = zones[i];
        while (!ngx_queue_empty(&zone->owners)) {
            ngx_http_idem_ctx_t *ctx = ngx_queue_data(ngx_queue_head(&zone->owners), ngx_http_idem_ctx_t, link);
            if (!ctx->recording)
                ngx_http_idem_settle_unanswered(ctx);
            ngx_http_idem_disown(ctx);
        }
        idem_close(zone->store);
        zone->store = NULL;
    }
}
