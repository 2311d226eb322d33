/*
 * wal.cc - the log's rows of bench/run: registered with google-benchmark, shown as a table with the bars, judged.
 *
 *   idem_bench_wal --disk DIR [--quick] [--filter REGEX] [--json FILE] [--check]
 *
 * Invariant: a row holds only if it was measured and its figure is within the bar. What can't be measured ends the run with 2.
 */
#include <benchmark/benchmark.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <regex>
#include <string>
#include <vector>

#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "place.h"
#include "recover.h"
#include "sync.h"

namespace
{
struct row {
    std::string name, bar, figure, more;
    bool measured, holds;
};
std::vector<row> rows;
std::string disk = ".";
bool quick;

std::string text(const char *format, double a, double b = 0, double c = 0, double d = 0)
{
    char line[200];
    snprintf(line, sizeof line, format, a, b, c, d);
    return line;
}

void async_row(benchmark::State &state, size_t at, uint64_t rate)
{
    for (auto _ : state) {
        log_async_cost m;
        log_async(disk.c_str(), rate, quick ? 1 : 4, 6, &m);
        double ratio = m.ns_with / m.ns_without;
        state.SetIterationTime(m.ns_with * 1e-9);
        state.counters["ratio"] = ratio;
        rows[at].figure = text("%.3f (%.3f-%.3f)", ratio, m.least, m.most);
        rows[at].more = text("%.0f ns CPU a key without, %.0f with; %.0f queued at the end, %.0f walks", m.ns_without,
                             m.ns_with, static_cast<double>(m.queued), static_cast<double>(m.walks));
        rows[at].holds = ratio <= 1.15 && m.queued == 0;
        rows[at].measured = true;
    }
}

/* Store and log lie in fresh folders; what can't be measured ends the run, as in log.c. */
void sync_row(benchmark::State &state, size_t at, int workers)
{
    for (auto _ : state) {
        std::string store = "/dev/shm/bench-sync-" + std::to_string(getpid());
        std::string log = disk + "/bench-sync-" + std::to_string(getpid());
        sync_wish wish{};
        wish.store = store.c_str();
        wish.disk = log.c_str();
        wish.workers = static_cast<unsigned>(workers);
        wish.batch = 1;
        wish.turns = quick ? 8 : SYNC_TURNS_MAX;
        wish.turn_ms = quick ? 100 : 250;
        std::vector<sync_result> m(1);
        if (mkdir(wish.disk, 0700) != 0)
            snprintf(m[0].why, sizeof m[0].why, "%s: %s", wish.disk, strerror(errno));
        else
            sync_rate(&wish, &m[0]);
        place_remove_tree(wish.disk);
        if (m[0].why[0] != '\0') {
            fprintf(stderr, "bench: log/sync: %s\n", m[0].why);
            exit(2);
        }
        state.SetIterationTime(1 / m[0].per_s[SYNC_CLAIMS]);
        state.counters["ratio"] = m[0].ratio;
        rows[at].figure = text("%.3f (%.3f-%.3f)", m[0].ratio, m[0].least, m[0].most);
        rows[at].more = text("%.0f claims/s, control %.0f/s; CPU %.1f us and %.1f us", m[0].per_s[SYNC_CLAIMS],
                             m[0].per_s[SYNC_CONTROL], m[0].cpu_us[SYNC_CLAIMS], m[0].cpu_us[SYNC_CONTROL]);
        rows[at].holds = m[0].ratio >= 0.9;
        rows[at].measured = true;
    }
}

void bytes_row(benchmark::State &state, size_t at, bool claims)
{
    for (auto _ : state) {
        unsigned both;
        double bytes = log_bytes_a_key(disk.c_str(), claims, &both);
        double bar = 1.3 * (both + 128) + (claims ? 256 : 0);
        state.SetIterationTime(1e-9);
        state.counters["bytes"] = bytes;
        rows[at].bar = text("<= %.0f", bar);
        rows[at].figure = text("%.1f", bytes);
        rows[at].more = text("key and response have %.0f bytes", both);
        rows[at].holds = bytes <= bar;
        rows[at].measured = true;
    }
}

void recover_row(benchmark::State &state, size_t at, bool all)
{
    for (auto _ : state) {
        recovery_rate m = recover_rate(disk.c_str(), all, quick ? 100000 : 300000, quick ? 3 : 7);
        state.SetIterationTime(1 / m.per_second);
        state.counters["records/s"] = m.per_second;
        rows[at].figure = text("%.2f M/s (best %.2f)", m.per_second / 1e6, m.best / 1e6);
        rows[at].more = text("%.0f MB/s; %.2f M/s by the clock; time %.2f x floor", m.bytes_per_second / 1e6,
                             m.by_the_clock / 1e6, m.floor);
        rows[at].holds = m.per_second >= 2e6 || m.bytes_per_second >= 1e9;
        rows[at].measured = true;
    }
}

template <typename Run, typename What>
void add(const std::string &name, const char *bar, const std::string &filter, Run run, What what)
{
    if (!filter.empty() && !std::regex_search(name, std::regex(filter, std::regex::extended)))
        return;
    size_t at = rows.size();
    rows.push_back({name, bar, "-", "not measured", false, false});
    benchmark::RegisterBenchmark(name.c_str(), run, at, what)->UseManualTime()->Iterations(1);
}

void add_all(const std::string &filter)
{
    for (int workers : {1, 8, 64})
        add("log/sync/workers:" + std::to_string(workers), ">= 0.9", filter, sync_row, workers);
    for (uint64_t rate : {20000, 100000})
        add("log/async/rate:" + std::to_string(rate), "<= 1.15", filter, async_row, rate);
    add("log/bytes/answer", "", filter, bytes_row, false);
    add("log/bytes/claim-and-answer", "", filter, bytes_row, true);
    add("log/recover/answers", ">= 2 M/s or 1 GB/s", filter, recover_row, false);
    add("log/recover/claims-marks-answers", ">= 2 M/s or 1 GB/s", filter, recover_row, true);
}

/* Rows that were missed. */
int print_table()
{
    int missed = 0;
    printf("\n| log | figure | bar | holds | |\n| --- | --- | --- | --- | --- |\n");
    for (const row &r : rows) {
        printf("| %s | %s | %s | %s | %s |\n", r.name.c_str(), r.figure.c_str(), r.bar.c_str(),
               r.holds ? "yes" : "**NO**", r.more.c_str());
        missed += !r.holds;
    }
    printf("\nlog: %zu bars hold, %d missed. sync: claims a second, over an empty control of the same shape in the "
           "same run. async: CPU time of a claim "
           "and its\nanswer, all threads counted in, over a store without a log in the same run. recover: records a "
           "second of processor "
           "time.\n",
           rows.size() - static_cast<size_t>(missed), missed);
    return missed;
}
} // namespace

int main(int argc, char **argv)
{
    static const option options[] = {
        {"disk", required_argument, nullptr, 'd'},   {"quick", no_argument, nullptr, 'q'},
        {"filter", required_argument, nullptr, 'f'}, {"json", required_argument, nullptr, 'j'},
        {"check", no_argument, nullptr, 'k'},        {nullptr, 0, nullptr, 0}};
    std::string filter;
    std::vector<std::string> words = {argv[0]};
    bool check = false;
    for (int o; (o = getopt_long(argc, argv, "", options, nullptr)) != -1;) {
        if (o == 'd')
            disk = optarg;
        else if (o == 'q')
            quick = true;
        else if (o == 'f')
            filter = optarg;
        else if (o == 'k')
            check = true;
        else if (o == 'j')
            words.insert(words.end(), {std::string("--benchmark_out=") + optarg, "--benchmark_out_format=json"});
        else
            return 2;
    }
    try {
        add_all(filter);
    } catch (const std::regex_error &e) {
        fprintf(stderr, "bench: --filter %s: %s\n", filter.c_str(), e.what());
        return 2;
    }
    if (rows.empty()) {
        fprintf(stderr, "bench: --filter %s matches no row of the log's, e.g. log/sync/workers:64\n", filter.c_str());
        return 2;
    }
    std::vector<char *> arguments;
    for (std::string &w : words)
        arguments.push_back(&w[0]);
    int count = static_cast<int>(arguments.size());
    benchmark::Initialize(&count, arguments.data());
    benchmark::ConsoleReporter progress;
    progress.SetOutputStream(&std::cerr);
    progress.SetErrorStream(&std::cerr);
    benchmark::RunSpecifiedBenchmarks(&progress);
    benchmark::Shutdown();
    int missed = print_table();
    for (const row &r : rows)
        if (!r.measured)
            return 2;
    return check && missed > 0 ? 1 : 0;
}
