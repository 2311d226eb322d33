/*
 * cuckoo.cc - libcuckoo: concurrent writers, a spin lock for every few buckets. insert claims, update_fn completes, find_fn replays.
 */
#include <libcuckoo/cuckoohash_map.hh>

#include <cstdio>
#include <new>

#include "key.hpp"
#include "memory.h"

namespace
{

using map = libcuckoo::cuckoohash_map<key36, const unsigned char *, key_hash>;

struct table {
    const peer_place *place;
    map keys;

    /* Room for a quarter more than there will be: nothing is resized while the clock runs. */
    explicit table(const peer_place *p) : place(p), keys(p->keys + p->keys / 4) {}
};

struct worker {
    table *shared;
    pool answers;
};

void version(const peer *, char *text, size_t text_bytes)
{
    std::snprintf(text, text_bytes, "libcuckoo %s", PEER_CUCKOO_VERSION);
}

void *prepare(const peer *, const peer_place *place, char *why)
{
    try {
        return new table(place);
    } catch (const std::exception &e) {
        std::snprintf(why, PEER_WHY_BYTES, "%s", e.what());
        return nullptr;
    }
}

void *attach(void *shared, unsigned, char *why)
{
    table *t = static_cast<table *>(shared);
    worker *w = new (std::nothrow) worker{t, {}};
    if (w && pool_create(&w->answers, (t->place->keys / t->place->workers + 1) * PEER_ANSWER_BYTES, t->place->huge,
                         why) == 0)
        return w;
    delete w;
    return nullptr;
}

long claim(void *me, peer_work *w)
{
    map &keys = static_cast<worker *>(me)->shared->keys;
    long fresh = 0;
    try {
        for (size_t i = 0; i < w->n; i++)
            fresh += keys.insert(key_at(w, i), nullptr);
    } catch (const std::exception &) {
        return -1;
    }
    return fresh;
}

long complete(void *me, peer_work *w)
{
    worker *self = static_cast<worker *>(me);
    long done = 0;
    for (size_t i = 0; i < w->n; i++) {
        void *answer = pool_take(&self->answers, PEER_ANSWER_BYTES);
        if (!answer)
            return -1;
        std::memcpy(answer, w->answers[i], PEER_ANSWER_BYTES);
        done += self->shared->keys.update_fn(
            key_at(w, i), [&](const unsigned char *&at) { at = static_cast<unsigned char *>(answer); });
    }
    return done;
}

long replay(void *me, peer_work *w)
{
    map &keys = static_cast<worker *>(me)->shared->keys;
    long found = 0;
    for (size_t i = 0; i < w->n; i++) {
        const unsigned char *answer = nullptr;
        keys.find_fn(key_at(w, i), [&](const unsigned char *at) { answer = at; });
        if (!answer)
            continue;
        std::memcpy(peer_out(w, i), answer, PEER_ANSWER_BYTES); /* outside the lock: an answer never changes */
        peer_answered(w, i);
        found++;
    }
    return found;
}

const char *error(void *)
{
    return "no memory";
}

uint64_t bytes(void *me)
{
    worker *self = static_cast<worker *>(me);
    const table *t = self->shared;
    size_t slot = sizeof(key36) + sizeof(const unsigned char *) + 2; /* a slot's partial hash and its flag */
    return t->keys.bucket_count() * map::slot_per_bucket() * slot + self->answers.used * t->place->workers;
}

void detach(void *me)
{
    worker *self = static_cast<worker *>(me);
    pool_free(&self->answers);
    delete self;
}

void end(void *shared)
{
    delete static_cast<table *>(shared);
}

peer make()
{
    peer p{};
    p.name = "libcuckoo";
    p.settings = "XXH3, room for a quarter more keys allocated beforehand; answers from touched memory";
    p.reach = PEER_THREADS;
    p.batches[PEER_CLAIM] = p.batches[PEER_COMPLETE] = p.batches[PEER_REPLAY] = PEER_BY_1;
    p.version = version;
    p.prepare = prepare;
    p.attach = attach;
    p.run[PEER_CLAIM] = claim;
    p.run[PEER_COMPLETE] = complete;
    p.run[PEER_REPLAY] = replay;
    p.error = error;
    p.bytes = bytes;
    p.detach = detach;
    p.end = end;
    return p;
}

const peer only = make();

} // namespace

extern "C" const peer *const peers_cuckoo[] = {&only, nullptr};
