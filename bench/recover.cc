/*
 * recover.cc - how fast a store comes back from its log: records and bytes a second of processor time, beside a floor.
 *
 * The floor reads the same files in the same steps, checks each record's bytes with the same hash, and writes as many bytes as the store has into
 * fresh memory of the same file system: what no recovery can do without. Both are timed in processor time, as others use this machine, too.
 *
 *   idem_bench_recover [--benchmark_...]     IDEM_BENCH_RECOVER_KEYS, default 300000; the log lies in IDEM_BENCH_DIR, default /dev/shm
 */
#include <benchmark/benchmark.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "idem.h"

namespace
{
std::string base, store_dir, log_dir;
uint64_t store_bytes, log_records, log_bytes;
constexpr size_t kBody = 100;
constexpr size_t kRecord = 192; /* of such an answer, with a key of 16 bytes */

[[noreturn]] void fail(const char *what)
{
    fprintf(stderr, "idem_bench_recover: %s: %s\n", what, idem_error_detail());
    exit(1);
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

void write_log(uint64_t keys)
{
    idem_options o = IDEM_OPTIONS_INIT;
    o.flags = IDEM_OPEN_CREATE | IDEM_OPEN_EXCLUSIVE;
    o.keys = keys + keys / 10;
    o.response_bytes = kBody;
    o.wal_dir = log_dir.c_str();
    o.durability_claim = IDEM_DURABILITY_ASYNC;
    o.durability_complete = IDEM_DURABILITY_ASYNC;
    o.wal_ring_refs = 65536;
    o.lanes = 16;
    o.processes = 16;
    idem_store *store;
    if (idem_open(store_dir.c_str(), &o, &store) != IDEM_OK)
        fail("open");
    char body[kBody], key[32];
    memset(body, 'x', sizeof body);
    for (uint64_t i = 0; i < keys; i++) {
        idem_request rq = IDEM_REQUEST_INIT;
        idem_response rs = IDEM_RESPONSE_INIT;
        idem_claim claim;
        snprintf(key, sizeof key, "key-%012llu", static_cast<unsigned long long>(i));
        rq.key.key = key;
        rq.key.key_bytes = strlen(key);
        rs.body = body;
        rs.body_bytes = sizeof body;
        if (idem_begin(store, &rq, &claim, nullptr) != IDEM_CLAIMED || idem_complete(store, &claim, &rs) != IDEM_OK)
            fail("claim and complete");
        if (i % 20000 == 19999 && idem_sync(store, 0) != IDEM_OK)
            fail("sync");
    }
    idem_stats_data stats;
    memset(&stats, 0, sizeof stats);
    stats.size = sizeof stats;
    if (idem_sync(store, 0) != IDEM_OK || idem_stats(store, &stats) != IDEM_OK)
        fail("sync");
    store_bytes = stats.bytes_total;
    idem_close(store);
}

void recover(benchmark::State &state)
{
    uint64_t records = 0, bytes = 0;
    for (auto _ : state) {
        remove_dir(store_dir);
        idem_recovery r = IDEM_RECOVERY_INIT;
        r.dir = store_dir.c_str();
        r.wal_dir = log_dir.c_str();
        double began = cpu_seconds();
        if (idem_recover(&r) != IDEM_OK)
            fail("recover");
        state.SetIterationTime(cpu_seconds() - began);
        records += r.records;
        bytes += r.bytes;
        log_records = r.records;
        log_bytes = r.bytes;
    }
    state.counters["records/s"] = benchmark::Counter(static_cast<double>(records), benchmark::Counter::kIsRate);
    state.counters["bytes/s"] = benchmark::Counter(static_cast<double>(bytes), benchmark::Counter::kIsRate);
}

void floor_of_it(benchmark::State &state)
{
    std::vector<char> window(4 << 20);
    for (auto _ : state) {
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
        benchmark::DoNotOptimize(sum);
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
        state.SetIterationTime(cpu_seconds() - began);
    }
    state.counters["records/s"] = benchmark::Counter(
        static_cast<double>(log_records) * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void clean_up()
{
    remove_dir(store_dir);
    remove_dir(log_dir);
    rmdir(base.c_str());
}
} // namespace

int main(int argc, char **argv)
{
    const char *dir = getenv("IDEM_BENCH_DIR"), *keys = getenv("IDEM_BENCH_RECOVER_KEYS");
    std::string name = std::string(dir != nullptr ? dir : "/dev/shm") + "/idem-bench-XXXXXX";
    if (mkdtemp(&name[0]) == nullptr) {
        perror("idem_bench_recover: mkdtemp");
        return 1;
    }
    base = name;
    std::string memory = "/dev/shm/idem-bench-recover-" + std::to_string(getpid());
    store_dir = memory;
    log_dir = base + "/log";
    atexit(clean_up);
    write_log(keys != nullptr ? strtoull(keys, nullptr, 10) : 300000);
    benchmark::RegisterBenchmark("recover", recover)->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(5);
    benchmark::RegisterBenchmark("floor", floor_of_it)->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(5);
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
