/*
 * recover.cc - see recover.h.
 *
 * If we die here: store and log are left, named idem-bench-recover-PID in /dev/shm and in the given directory; bench/run removes nothing there.
 */
#include "recover.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "idem.h"

namespace
{
std::string base, store_dir, log_dir;
std::set<std::string> log_files; /* as written: what recovery adds is taken away again */
std::string log_id;
uint64_t store_bytes, log_bytes;
volatile uint64_t unused;
constexpr size_t kBody = 100;
constexpr uint64_t kAtOnce = 20000; /* keys between two syncs */
constexpr size_t kRecord = 192;     /* of such an answer, with a key of 16 bytes */

[[noreturn]] void fail(const char *what)
{
    fprintf(stderr, "bench: recover: %s: %s\n", what, idem_error_detail());
    exit(2);
}

double cpu_seconds()
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

void remove_dir(const std::string &dir)
{
    DIR *d = opendir(dir.c_str());
    if (d == nullptr)
        return;
    while (struct dirent *e = readdir(d))
        if (e->d_name[0] != '.')
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(dir.c_str());
}

/* all: each key has its claim and a mark in the log, too. */
void write_log(uint64_t keys, bool all)
{
    idem_options o = IDEM_OPTIONS_INIT;
    o.flags = IDEM_OPEN_CREATE | IDEM_OPEN_EXCLUSIVE;
    o.keys = keys + keys / 10;
    o.response_bytes = kBody;
    o.wal_dir = log_dir.c_str();
    o.durability_claim = all ? IDEM_DURABILITY_ASYNC : IDEM_DURABILITY_NONE;
    o.durability_complete = IDEM_DURABILITY_ASYNC;
    o.wal_ring_refs = 65536;
    o.lanes = 16;
    o.processes = 16;
    idem_store *store;
    if (idem_open(store_dir.c_str(), &o, &store) != IDEM_OK)
        fail("open");
    char body[kBody], key[32];
    memset(body, 'x', sizeof body);
    std::vector<idem_claim> claims(kAtOnce);
    auto sync = [&] {
        if (idem_sync(store, 0) != IDEM_OK)
            fail("sync");
    };
    for (uint64_t from = 0; from < keys; from += kAtOnce) {
        uint64_t n = keys - from < kAtOnce ? keys - from : kAtOnce;
        for (uint64_t i = 0; i < n; i++) {
            idem_request rq = IDEM_REQUEST_INIT;
            snprintf(key, sizeof key, "key-%012llu", static_cast<unsigned long long>(from + i));
            rq.key.key = key;
            rq.key.key_bytes = strlen(key);
            claims[i] = IDEM_CLAIM_INIT;
            if (idem_begin(store, &rq, &claims[i], nullptr) != IDEM_CLAIMED)
                fail("claim");
        }
        if (all) /* what was not written before it is over is never written */
            sync();
        for (uint64_t i = 0; all && i < n; i++)
            if (idem_mark(store, &claims[i], "charge ch_12345678", 18) != IDEM_OK)
                fail("mark");
        if (all)
            sync();
        for (uint64_t i = 0; i < n; i++) {
            idem_response rs = IDEM_RESPONSE_INIT;
            rs.body = body;
            rs.body_bytes = sizeof body;
            if (idem_complete(store, &claims[i], &rs) != IDEM_OK)
                fail("complete");
        }
        sync();
    }
    idem_stats_data stats;
    memset(&stats, 0, sizeof stats);
    stats.size = sizeof stats;
    if (idem_sync(store, 0) != IDEM_OK || idem_stats(store, &stats) != IDEM_OK)
        fail("sync");
    store_bytes = stats.bytes_total;
    idem_close(store);
}

template <typename What> void each_log_file(What what)
{
    DIR *d = opendir(log_dir.c_str());
    while (struct dirent *e = d != nullptr ? readdir(d) : nullptr)
        if (e->d_name[0] != '.')
            what(std::string(e->d_name));
    if (d != nullptr)
        closedir(d);
}

void remember_log()
{
    each_log_file([](const std::string &name) { log_files.insert(name); });
    std::ifstream in(log_dir + "/id", std::ios::binary);
    log_id.assign(std::istreambuf_iterator<char>(in), {});
}

/* Recovery after recovery would leave files behind, and by the seventh write what lives anew. */
void restore_log()
{
    each_log_file([](const std::string &name) {
        if (log_files.count(name) == 0)
            unlink((log_dir + "/" + name).c_str());
    });
    std::ofstream(log_dir + "/id", std::ios::binary | std::ios::trunc) << log_id;
}

double clock_seconds()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

/* Processor time; *clock: by the clock. */
double recover_once(recovery_rate *out, double *clock)
{
    remove_dir(store_dir);
    restore_log();
    idem_recovery r = IDEM_RECOVERY_INIT;
    r.dir = store_dir.c_str();
    r.wal_dir = log_dir.c_str();
    double began = cpu_seconds(), at = clock_seconds();
    if (idem_recover(&r) != IDEM_OK)
        fail("recover");
    double took = cpu_seconds() - began;
    *clock = clock_seconds() - at;
    out->records = r.records;
    out->bytes = log_bytes = r.bytes;
    return took;
}

double floor_once()
{
    std::vector<char> window(4 << 20);
    double began = cpu_seconds();
    uint64_t sum = 0, left = log_bytes;
    DIR *d = opendir(log_dir.c_str());
    while (struct dirent *e = d != nullptr ? readdir(d) : nullptr) {
        int fd = strncmp(e->d_name, "wal-", 4) == 0 ? openat(dirfd(d), e->d_name, O_RDONLY) : -1;
        ssize_t n;
        while (fd >= 0 && left > 0 && (n = read(fd, window.data(), window.size())) > 0) {
            left -= static_cast<uint64_t>(n) < left ? static_cast<uint64_t>(n) : left;
            for (ssize_t at = 0; at + static_cast<ssize_t>(kRecord) <= n; at += kRecord)
                sum += XXH3_64bits(window.data() + at, kRecord);
        }
        if (fd >= 0)
            close(fd);
    }
    closedir(d);
    unused = sum;
    std::string file = base + "/floor";
    int fd = open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(store_bytes)) != 0)
        fail("floor");
    void *map = mmap(nullptr, store_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        fail("floor");
    memset(map, 1, store_bytes);
    munmap(map, store_bytes);
    close(fd);
    unlink(file.c_str());
    return cpu_seconds() - began;
}

void clean_up()
{
    remove_dir(store_dir);
    remove_dir(log_dir);
    rmdir(base.c_str());
}
} // namespace

recovery_rate recover_rate(const char *disk, bool all, uint64_t keys, unsigned rounds)
{
    recovery_rate out = {};
    std::string name = "/idem-bench-recover-" + std::to_string(getpid());
    base = "/dev/shm" + name;
    store_dir = base + "/store";
    log_dir = disk + name;
    if (mkdir(base.c_str(), 0700) != 0)
        fail("mkdir");
    write_log(keys, all);
    log_files.clear();
    remember_log();
    for (unsigned i = 0; i < rounds; i++) {
        double clock, took = recover_once(&out, &clock), floor = floor_once();
        double rate = static_cast<double>(out.records) / took;
        out.per_second += rate / rounds;
        out.by_the_clock += static_cast<double>(out.records) / clock / rounds;
        out.best = rate > out.best ? rate : out.best;
        out.bytes_per_second += static_cast<double>(out.bytes) / took / rounds;
        out.floor += took / floor / rounds;
    }
    clean_up();
    return out;
}
