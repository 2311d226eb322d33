/*
 * tkrzw.cc - Tkrzw: TinyDBM, its hash table in memory, and HashDBM, its hash table in a mapped file. Set without overwriting
 * claims, Set completes, Process replays (it copies out of the record; Get would allocate a string).
 *
 * Threads, not processes: a process that writes has the file for itself.
 */
#include <tkrzw_dbm_hash.h>
#include <tkrzw_dbm_tiny.h>
#include <tkrzw_file_mmap.h>
#include <tkrzw_lib_common.h>

#include <cstdio>
#include <memory>
#include <new>
#include <string>

#include "peer.h"

namespace
{

struct table {
    std::unique_ptr<tkrzw::DBM> dbm;
};

struct worker {
    tkrzw::DBM *dbm;
    std::string error;
};

void version(const peer *, char *text, size_t text_bytes)
{
    std::snprintf(text, text_bytes, "Tkrzw %s", tkrzw::PACKAGE_VERSION);
}

void *tiny_prepare(const peer *, const peer_place *place, char *why)
{
    try {
        /* Twice as many buckets as keys: its manual's upper end. */
        return new table{std::make_unique<tkrzw::TinyDBM>(static_cast<int64_t>(place->keys * 2))};
    } catch (const std::exception &e) {
        std::snprintf(why, PEER_WHY_BYTES, "%s", e.what());
        return nullptr;
    }
}

void *hash_prepare(const peer *, const peer_place *place, char *why)
{
    try {
        auto file = std::make_unique<tkrzw::MemoryMapParallelFile>();
        /* The space of all records at once, so that the mapping isn't made anew while the clock runs. */
        file->SetAllocationStrategy(static_cast<int64_t>(place->keys * 400 + (64u << 20)), 1.2);
        auto dbm = std::make_unique<tkrzw::HashDBM>(std::move(file));
        tkrzw::HashDBM::TuningParameters tuning;
        tuning.update_mode = tkrzw::HashDBM::UPDATE_IN_PLACE;
        tuning.record_crc_mode = tkrzw::HashDBM::RECORD_CRC_NONE;
        tuning.offset_width = 4;
        tuning.align_pow = 4;
        tuning.num_buckets = static_cast<int64_t>(place->keys * 2);
        tuning.cache_buckets = 1;
        tkrzw::Status status =
            dbm->OpenAdvanced(std::string(place->dir) + "/keys.tkh", true, tkrzw::File::OPEN_TRUNCATE, tuning);
        if (status == tkrzw::Status::SUCCESS)
            return new table{std::move(dbm)};
        std::snprintf(why, PEER_WHY_BYTES, "HashDBM: %.200s", tkrzw::ToString(status).c_str());
    } catch (const std::exception &e) {
        std::snprintf(why, PEER_WHY_BYTES, "%s", e.what());
    }
    return nullptr;
}

void *attach(void *shared, unsigned, char *)
{
    return new (std::nothrow) worker{static_cast<table *>(shared)->dbm.get(), ""};
}

std::string_view key_of(const peer_work *w, size_t i)
{
    return std::string_view(reinterpret_cast<const char *>(peer_key(w, i)), PEER_KEY_BYTES);
}

long failed(worker *self, const tkrzw::Status &status)
{
    self->error = tkrzw::ToString(status);
    return -1;
}

long claim(void *me, peer_work *w)
{
    worker *self = static_cast<worker *>(me);
    long fresh = 0;
    for (size_t i = 0; i < w->n; i++) {
        tkrzw::Status status = self->dbm->Set(key_of(w, i), "r", false);
        if (status == tkrzw::Status::SUCCESS)
            fresh++;
        else if (status != tkrzw::Status::DUPLICATION_ERROR)
            return failed(self, status);
    }
    return fresh;
}

long complete(void *me, peer_work *w)
{
    worker *self = static_cast<worker *>(me);
    for (size_t i = 0; i < w->n; i++) {
        std::string_view answer(reinterpret_cast<const char *>(w->answers[i]), PEER_ANSWER_BYTES);
        tkrzw::Status status = self->dbm->Set(key_of(w, i), answer);
        if (status != tkrzw::Status::SUCCESS)
            return failed(self, status);
    }
    return static_cast<long>(w->n);
}

class copy_out final : public tkrzw::DBM::RecordProcessor
{
  public:
    unsigned char *to = nullptr;
    bool there = false;

    std::string_view ProcessFull(std::string_view, std::string_view value) override
    {
        there = value.size() == PEER_ANSWER_BYTES;
        if (there)
            std::memcpy(to, value.data(), PEER_ANSWER_BYTES);
        return NOOP;
    }
};

long replay(void *me, peer_work *w)
{
    worker *self = static_cast<worker *>(me);
    copy_out copy;
    long found = 0;
    for (size_t i = 0; i < w->n; i++) {
        copy.to = peer_out(w, i);
        copy.there = false;
        tkrzw::Status status = self->dbm->Process(key_of(w, i), &copy, false);
        if (status != tkrzw::Status::SUCCESS)
            return failed(self, status);
        if (!copy.there)
            continue;
        peer_answered(w, i);
        found++;
    }
    return found;
}

const char *error(void *me)
{
    return static_cast<worker *>(me)->error.c_str();
}

uint64_t file_bytes(void *me)
{
    return static_cast<uint64_t>(static_cast<worker *>(me)->dbm->GetFileSizeSimple());
}

void detach(void *me)
{
    delete static_cast<worker *>(me);
}

/* A file's table is closed, or its mapping would stay; TinyDBM's millions of records go with the host. */
void end(void *shared)
{
    static_cast<table *>(shared)->dbm.release()->Close();
}

peer make(const char *name, const char *settings)
{
    peer p{};
    p.name = name;
    p.settings = settings;
    p.reach = PEER_THREADS;
    p.batches[PEER_CLAIM] = p.batches[PEER_COMPLETE] = p.batches[PEER_REPLAY] = PEER_BY_1;
    p.version = version;
    p.attach = attach;
    p.run[PEER_CLAIM] = claim;
    p.run[PEER_COMPLETE] = complete;
    p.run[PEER_REPLAY] = replay;
    p.error = error;
    p.detach = detach;
    p.end = end;
    return p;
}

peer make_tiny()
{
    peer p = make("tkrzw/tiny", "TinyDBM: two buckets a key; its own allocator (malloc)");
    p.prepare = tiny_prepare;
    return p;
}

peer make_hash()
{
    peer p = make("tkrzw/hash",
                  "HashDBM in a mapped file on a tmpfs: two buckets a key, in place, no CRC, space beforehand");
    p.prepare = hash_prepare;
    p.bytes = file_bytes;
    p.timed_keys = 262144;
    return p;
}

const peer tiny = make_tiny();
const peer hash = make_hash();

} // namespace

extern "C" const peer *const peers_tkrzw[] = {&tiny, &hash, nullptr};
