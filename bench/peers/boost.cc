/*
 * boost.cc - Boost.Interprocess: boost::unordered_map in a mapped file, under one process-shared mutex.
 *
 * Our mutex guards the segment's allocator too, so that one has no lock of its own (null_mutex_family). Interprocess's pooled
 * node allocators do not compile with this unordered_map. A claim keeps the element's address, which doesn't change, so
 * completing needs no second look-up. A batch takes the mutex once. Debian 12's Boost (1.74) has no concurrent_flat_map, and that
 * one can't be shared by processes.
 */
#include <boost/interprocess/allocators/allocator.hpp>
#include <boost/interprocess/indexes/iset_index.hpp>
#include <boost/interprocess/managed_mapped_file.hpp>
#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>
#include <boost/unordered_map.hpp>
#include <boost/version.hpp>

#include <cstdio>
#include <new>
#include <string>

#include "key.hpp"

namespace
{

namespace ipc = boost::interprocess;

struct answer {
    bool there;
    unsigned char body[PEER_ANSWER_BYTES];

    answer() : there(false) {} /* the body is written when it is known */
};

using segment = ipc::basic_managed_mapped_file<char, ipc::rbtree_best_fit<ipc::null_mutex_family>, ipc::iset_index>;
using element = std::pair<const key36, answer>;
using allocator = ipc::allocator<element, segment::segment_manager>;
using map = boost::unordered_map<key36, answer, key_hash, std::equal_to<key36>, allocator>;
using guard = ipc::scoped_lock<ipc::interprocess_mutex>;

struct table {
    std::string file;
};

struct worker {
    segment memory;
    map *keys;
    ipc::interprocess_mutex *lock;
    std::string error;

    explicit worker(const std::string &file) : memory(ipc::open_only, file.c_str()), keys(nullptr), lock(nullptr) {}
};

void version(const peer *, char *text, size_t text_bytes)
{
    std::snprintf(text, text_bytes, "Boost %d.%d", BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000);
}

void *prepare(const peer *, const peer_place *place, char *why)
{
    try {
        table *t = new table{std::string(place->dir) + "/map"};
        segment memory(ipc::create_only, t->file.c_str(), place->keys * 400 + (size_t(32) << 20));
        memory.construct<ipc::interprocess_mutex>("lock")();
        memory.construct<map>("keys")(place->keys, key_hash(), std::equal_to<key36>(),
                                      allocator(memory.get_segment_manager()));
        return t;
    } catch (const std::exception &e) {
        std::snprintf(why, PEER_WHY_BYTES, "%s", e.what());
        return nullptr;
    }
}

void *attach(void *shared, unsigned, char *why)
{
    try {
        worker *w = new worker(static_cast<table *>(shared)->file);
        w->keys = w->memory.find<map>("keys").first;
        w->lock = w->memory.find<ipc::interprocess_mutex>("lock").first;
        return w;
    } catch (const std::exception &e) {
        std::snprintf(why, PEER_WHY_BYTES, "%s", e.what());
        return nullptr;
    }
}

template <class F> long in_batches(void *me, peer_work *w, F one)
{
    worker *self = static_cast<worker *>(me);
    long done = 0;
    try {
        for (size_t first = 0; first < w->n; first += w->batch) {
            size_t to = w->n - first < w->batch ? w->n : first + w->batch;
            guard held(*self->lock);
            for (size_t i = first; i < to; i++)
                done += one(self, i);
        }
    } catch (const std::exception &e) {
        self->error = e.what();
        return -1;
    }
    return done;
}

long claim(void *me, peer_work *w)
{
    return in_batches(me, w, [w](worker *self, size_t i) {
        auto got = self->keys->emplace(boost::unordered::piecewise_construct, boost::make_tuple(key_at(w, i)),
                                       boost::make_tuple());
        answer *handle = &got.first->second;
        std::memcpy(w->claims + i * sizeof handle, &handle, sizeof handle);
        return got.second;
    });
}

long complete(void *me, peer_work *w)
{
    return in_batches(me, w, [w](worker *, size_t i) {
        answer *handle;
        std::memcpy(&handle, w->claims + i * sizeof handle, sizeof handle);
        std::memcpy(handle->body, w->answers[i], PEER_ANSWER_BYTES);
        handle->there = true;
        return true;
    });
}

long replay(void *me, peer_work *w)
{
    return in_batches(me, w, [w](worker *self, size_t i) {
        auto at = self->keys->find(key_at(w, i));
        if (at == self->keys->end() || !at->second.there)
            return false;
        std::memcpy(peer_out(w, i), at->second.body, PEER_ANSWER_BYTES);
        peer_answered(w, i);
        return true;
    });
}

const char *error(void *me)
{
    return static_cast<worker *>(me)->error.c_str();
}

uint64_t bytes(void *me)
{
    worker *self = static_cast<worker *>(me);
    return self->memory.get_size() - self->memory.get_free_memory();
}

void detach(void *me)
{
    delete static_cast<worker *>(me);
}

void end(void *shared)
{
    delete static_cast<table *>(shared);
}

peer make()
{
    peer p{};
    p.name = "boost";
    p.settings = "Interprocess: unordered_map, XXH3, one mutex, buckets beforehand; a batch takes the mutex once";
    p.reach = PEER_PROCESSES;
    p.batches[PEER_CLAIM] = p.batches[PEER_COMPLETE] = p.batches[PEER_REPLAY] = PEER_BY_1 | PEER_BY_16;
    p.claim_bytes = sizeof(answer *);
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

extern "C" const peer *const peers_boost[] = {&only, nullptr};
