/*
 * tbb.cc - oneTBB's concurrent_hash_map: insert with an accessor claims, the element completes, find replays.
 *
 * Elements don't move, and the claim's owner alone completes: the handle is the element, the answer's pointer is an
 * atomic in it. Elements come from memory that is touched beforehand, by an addition.
 */
#include <oneapi/tbb/concurrent_hash_map.h>
#include <oneapi/tbb/version.h>

#include <atomic>
#include <cstdio>
#include <new>

#include "key.hpp"
#include "memory.h"

namespace
{

/* Where this thread's elements come from; the map asks for them in the thread that inserts. */
thread_local pool *elements;

template <class T> struct pool_allocator {
    using value_type = T;
    bool huge = false;

    pool_allocator() = default;
    explicit pool_allocator(bool with_huge) : huge(with_huge) {}
    template <class U> pool_allocator(const pool_allocator<U> &other) : huge(other.huge) {}

    T *allocate(size_t n)
    {
        void *at = elements ? pool_take(elements, n * sizeof(T)) : pages_take(n * sizeof(T), huge);
        if (!at)
            throw std::bad_alloc();
        return static_cast<T *>(at);
    }
    void deallocate(T *, size_t) {} /* goes with the pool, or with the host */
    template <class U> bool operator==(const pool_allocator<U> &) const { return true; }
    template <class U> bool operator!=(const pool_allocator<U> &) const { return false; }
};

using answer_at = std::atomic<const unsigned char *>;

struct compare {
    static size_t hash(const key36 &key) { return hash_key(key.text); }
    static bool equal(const key36 &a, const key36 &b) { return a == b; }
};

using map = tbb::concurrent_hash_map<key36, answer_at, compare, pool_allocator<std::pair<const key36, answer_at>>>;

enum { ELEMENT_BYTES = 96, SPARES = 8192 };

struct table {
    const peer_place *place;
    map keys;

    explicit table(const peer_place *p)
        : place(p), keys(p->keys, pool_allocator<std::pair<const key36, answer_at>>(p->huge))
    {
    }
};

struct worker {
    table *shared;
    pool lines, answers;
};

void version(const peer *, char *text, size_t text_bytes)
{
    std::snprintf(text, text_bytes, "oneTBB %d.%d", TBB_VERSION_MAJOR, TBB_VERSION_MINOR);
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
    worker *w = new (std::nothrow) worker{t, {}, {}};
    size_t share = t->place->keys / t->place->workers + SPARES;
    if (w && pool_create(&w->lines, share * ELEMENT_BYTES, t->place->huge, why) == 0 &&
        pool_create(&w->answers, share * PEER_ANSWER_BYTES, t->place->huge, why) == 0) {
        elements = &w->lines;
        return w;
    }
    delete w;
    return nullptr;
}

long claim(void *me, peer_work *w)
{
    map &keys = static_cast<worker *>(me)->shared->keys;
    long fresh = 0;
    try {
        for (size_t i = 0; i < w->n; i++) {
            map::accessor at;
            fresh += keys.insert(at, key_at(w, i));
            answer_at *handle = &at->second;
            std::memcpy(w->claims + i * sizeof handle, &handle, sizeof handle);
        }
    } catch (const std::exception &) {
        return -1;
    }
    return fresh;
}

long complete(void *me, peer_work *w)
{
    worker *self = static_cast<worker *>(me);
    for (size_t i = 0; i < w->n; i++) {
        void *answer = pool_take(&self->answers, PEER_ANSWER_BYTES);
        answer_at *handle;
        if (!answer)
            return -1;
        std::memcpy(answer, w->answers[i], PEER_ANSWER_BYTES);
        std::memcpy(&handle, w->claims + i * sizeof handle, sizeof handle);
        handle->store(static_cast<unsigned char *>(answer), std::memory_order_release);
    }
    return static_cast<long>(w->n);
}

long replay(void *me, peer_work *w)
{
    const map &keys = static_cast<worker *>(me)->shared->keys;
    long found = 0;
    for (size_t i = 0; i < w->n; i++) {
        map::const_accessor at;
        if (!keys.find(at, key_at(w, i)))
            continue;
        const unsigned char *answer = at->second.load(std::memory_order_acquire);
        if (!answer)
            continue;
        std::memcpy(peer_out(w, i), answer, PEER_ANSWER_BYTES);
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
    /* A bucket is a lock and a pointer. */
    return t->keys.bucket_count() * 2 * sizeof(void *) + (self->lines.used + self->answers.used) * t->place->workers;
}

void detach(void *me)
{
    worker *self = static_cast<worker *>(me);
    elements = nullptr;
    pool_free(&self->lines);
    pool_free(&self->answers);
    delete self;
}

/* Not destroyed: that would walk elements whose memory is gone. The host ends. */
void end(void *) {}

peer make()
{
    peer p{};
    p.name = "tbb";
    p.settings = "concurrent_hash_map, XXH3, a bucket a key beforehand; elements and answers from touched memory";
    p.reach = PEER_THREADS;
    p.batches[PEER_CLAIM] = p.batches[PEER_COMPLETE] = p.batches[PEER_REPLAY] = PEER_BY_1;
    p.claim_bytes = sizeof(answer_at *);
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

extern "C" const peer *const peers_tbb[] = {&only, nullptr};
