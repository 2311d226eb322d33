/*
 * tests/support/stores.c - a store, a key, a request, an answer: as most tests want them. See support.h.
 */
#include <string.h>

#include "support/support.h"

idem_options support_options(uint64_t keys)
{
    idem_options o = IDEM_OPTIONS_INIT;
    o.flags = IDEM_OPEN_CREATE;
    o.keys = keys;
    o.response_bytes = 64;
    o.processes = 64;
    o.lanes = 64;
    return o;
}

idem_store *support_open(const char *dir, const idem_options *options)
{
    idem_options standard = support_options(1000);
    idem_store *store = NULL;
    CHECK_IS(idem_open(dir, options != NULL ? options : &standard, &store), IDEM_OK);
    CHECK(store != NULL);
    return store;
}

idem_store *support_open_with(const char *dir, uint32_t flags)
{
    idem_options o = support_options(1000);
    o.flags = flags;
    return support_open(dir, &o);
}

idem_store *support_attach(const char *dir)
{
    idem_store *store = NULL;
    CHECK_IS(idem_open(dir, NULL, &store), IDEM_OK);
    return store;
}

idem_key support_key(const char *text)
{
    return (idem_key){.key = text, .key_bytes = strlen(text)};
}

idem_request support_request(const char *key)
{
    idem_request r = IDEM_REQUEST_INIT;
    r.key = support_key(key);
    return r;
}

idem_response support_response(int32_t status, const char *body)
{
    idem_response r = IDEM_RESPONSE_INIT;
    r.status = status;
    r.body = body;
    r.body_bytes = strlen(body);
    return r;
}

int support_begin(idem_store *store, const char *key, idem_claim *claim)
{
    idem_request r = support_request(key);
    idem_claim unwanted;
    return idem_begin(store, &r, claim != NULL ? claim : &unwanted, NULL);
}

int support_complete(idem_store *store, const idem_claim *claim, int32_t status, const char *body)
{
    idem_response r = support_response(status, body);
    return idem_complete(store, claim, &r);
}

void support_answer(idem_store *store, const char *key, int32_t status, const char *body)
{
    idem_claim claim;
    CHECK_IS(support_begin(store, key, &claim), IDEM_CLAIMED);
    CHECK_IS(support_complete(store, &claim, status, body), IDEM_OK);
}

idem_stats_data support_stats(idem_store *store)
{
    idem_stats_data s;
    memset(&s, 0, sizeof s);
    s.size = sizeof s;
    CHECK_IS(idem_stats(store, &s), IDEM_OK);
    return s;
}

void support_maintain(idem_store *store)
{
    int more = 1;
    for (int i = 0; more == 1 && i < 100; i++)
        more = idem_maintain(store, 100000);
    CHECK_IS(more, IDEM_OK);
}
