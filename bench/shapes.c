/*
 * shapes.c - see shapes.h: what the trials of that kind share.
 */
#include "shapes.h"

#include <stdio.h>
#include <string.h>

#include "place.h"

int shape_create(struct shape_store *s, const struct conditions *c, const char *name, uint64_t keys, bool huge,
                 const idem_options *o, struct trial_result *out)
{
    idem_options options = IDEM_OPTIONS_INIT;
    if (huge && !c->place->huge) {
        snprintf(out->why, sizeof out->why, "no huge pages: %.200s", c->place->no_huge);
        out->left_out = true;
        return -1;
    }
    if (o != NULL)
        options = *o;
    options.flags |= IDEM_OPEN_CREATE | IDEM_OPEN_EXCLUSIVE | IDEM_OPEN_NO_FLUSHER;
    options.keys = keys;
    options.huge = !huge ? IDEM_HUGE_OFF : c->smoke ? IDEM_HUGE_AUTO : IDEM_HUGE_REQUIRE; /* few keys have none */
    if (options.response_bytes == 0)
        options.response_bytes = SHAPE_ANSWER_BYTES;
    if (options.lease_ms == 0)
        options.lease_ms = SHAPE_LEASE_MS;
    snprintf(s->path, sizeof s->path, "%s/%s", c->place->dir, name);
    int got = idem_open(s->path, &options, &s->handle);
    if (got == IDEM_OK)
        return 0;
    snprintf(out->why, sizeof out->why, "a store for %s: %s: %s", name, idem_strerror(got), idem_error_detail());
    return -1;
}

idem_store *shape_attach(const struct shape_store *s, uint32_t flags)
{
    idem_store *store = NULL;
    idem_options o = IDEM_OPTIONS_INIT;
    o.flags = flags;
    if (idem_open(s->path, &o, &store) != IDEM_OK)
        return NULL;
    if (place_touch_files(s->path) == 0)
        return store;
    idem_close(store);
    return NULL;
}

int shape_check(const struct shape_store *s, uint64_t claims, struct trial_result *out)
{
    idem_stats_data stats = {.size = sizeof stats};
    int got = idem_stats(s->handle, &stats);
    if (got != IDEM_OK)
        snprintf(out->why, sizeof out->why, "idem_stats: %s", idem_error_detail());
    else if (stats.claimed != claims)
        snprintf(out->why, sizeof out->why, "%llu claims were given out, the store counted %llu",
                 (unsigned long long)claims, (unsigned long long)stats.claimed);
    return out->why[0] == '\0' ? 0 : -1;
}

void shape_destroy(struct shape_store *s)
{
    idem_close(s->handle);
    if (s->handle != NULL)
        idem_destroy(s->path);
    s->handle = NULL;
}

uint64_t shape_keys(const struct conditions *c, uint64_t full, uint64_t quick, uint64_t smoke)
{
    return c->smoke ? smoke : c->quick ? quick : full;
}

idem_request shape_request(const unsigned char key[KEY_BYTES])
{
    idem_request request = IDEM_REQUEST_INIT;
    request.key.key = key;
    request.key.key_bytes = KEY_BYTES;
    request.fingerprint = 1;
    return request;
}

void shape_answer(uint64_t id, unsigned char answer[SHAPE_ANSWER_BYTES])
{
    memset(answer, (int)('a' + id % 16), SHAPE_ANSWER_BYTES);
    memcpy(answer + SHAPE_ANSWER_BYTES - sizeof id, &id, sizeof id);
}

bool shape_answered(const idem_reply *reply, uint64_t id)
{
    unsigned char answer[SHAPE_ANSWER_BYTES];
    shape_answer(id, answer);
    return reply->status == 200 && reply->body_bytes == sizeof answer &&
           memcmp(reply->body, answer, sizeof answer) == 0;
}

struct row_id shape_row(const char *job, const char *who, const char *unit, uint64_t keys, unsigned workers, bool huge)
{
    return (struct row_id){
        .job = job, .who = who, .unit = unit, .batch = 1, .keys = keys, .workers = workers, .huge = huge};
}
