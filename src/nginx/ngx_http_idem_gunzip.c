/*
 * nginx/ngx_http_idem_gunzip.c - a replay for a client that takes no gzip.
 *
 * An answer is kept as its upstream sent it, perhaps gzipped because the first client took that. nginx's own gunzip filter helps only where it is
 * switched on. Owns no state.
 *
 * Invariant: what the client gets is the whole answer, plain, or the bytes as they were kept; never a part.
 */
#include "ngx_http_idem.h"

#include <zlib.h>

#define PLAIN_MAX (16u * 1024 * 1024) /* a stored body is small; beyond this it was made to be large */

/* Accept-Encoding names gzip (or *), and not with a weight of 0. */
static ngx_uint_t takes_gzip(ngx_http_request_t *r)
{
    if (r->headers_in.accept_encoding == NULL)
        return 0;
    const ngx_str_t *value = &r->headers_in.accept_encoding->value;
    u_char *end = value->data + value->len;
    u_char *at = ngx_strlcasestrn(value->data, end, (u_char *)"gzip", 4 - 1);
    if (at == NULL)
        at = ngx_strlchr(value->data, end, '*');
    if (at == NULL)
        return 0;
    u_char *comma = ngx_strlchr(at, end, ',');
    u_char *weight = ngx_strlcasestrn(at, comma != NULL ? comma : end, (u_char *)"q=", 2 - 1);
    for (at = weight != NULL ? weight + 2 : NULL; at != NULL && at < (comma != NULL ? comma : end); at++) {
        if (*at >= '1' && *at <= '9')
            return 1;
    }
    return weight == NULL;
}

static void *from_pool(void *pool, uInt items, uInt size)
{
    return ngx_palloc(pool, (size_t)items * size);
}

static void to_pool(void *pool, void *address)
{
    (void)pool;
    (void)address; /* goes with the request */
}

/* The size at the end of a gzip file is only a hint: room grows until all is there. */
static ngx_int_t inflate_all(ngx_http_request_t *r, z_stream *z, ngx_str_t *plain)
{
    size_t room = ngx_max(z->avail_in * 4, 4096u);
    plain->len = 0;
    plain->data = ngx_pnalloc(r->pool, room);
    for (;;) {
        if (plain->data == NULL)
            return NGX_ERROR;
        z->next_out = plain->data + plain->len;
        z->avail_out = (uInt)(room - plain->len);
        int rc = inflate(z, Z_NO_FLUSH);
        plain->len = room - z->avail_out;
        if (rc == Z_STREAM_END)
            return NGX_OK;
        if (rc != Z_OK || z->avail_out > 0 || room * 2 > PLAIN_MAX)
            return NGX_ERROR;
        u_char *more = ngx_pnalloc(r->pool, room * 2);
        if (more != NULL)
            ngx_memcpy(more, plain->data, plain->len);
        plain->data = more;
        room *= 2;
    }
}

void ngx_http_idem_gunzip(ngx_http_request_t *r, ngx_str_t *body)
{
    ngx_table_elt_t *encoding = r->headers_out.content_encoding;
    z_stream z;
    ngx_str_t plain;
    if (encoding == NULL || body->len == 0 || !ngx_http_idem_named(&encoding->value, "gzip", 4) || takes_gzip(r))
        return;
    ngx_memzero(&z, sizeof z);
    z.zalloc = from_pool;
    z.zfree = to_pool;
    z.opaque = r->pool;
    z.next_in = body->data;
    z.avail_in = (uInt)body->len;
    if (inflateInit2(&z, 15 + 16) != Z_OK)
        return;
    if (inflate_all(r, &z, &plain) != NGX_OK) {
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "idem: a stored answer could not be unzipped for a client that takes no gzip");
        return;
    }
    encoding->hash = 0;
    r->headers_out.content_encoding = NULL;
    ngx_http_weak_etag(r);
    *body = plain;
}
