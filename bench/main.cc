/*
 * main.cc - hands the suite's rows to google-benchmark: repetitions in random order, aggregates, JSON.
 *
 * Owns: nothing but the registration. Measuring is done in forked processes by the C harness; what comes back is one
 * operation's mean time, given as the manual time of a single iteration.
 */
#include <benchmark/benchmark.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "suite.h"

namespace
{

void run_row(benchmark::State &state, suite *all, unsigned row)
{
    for (auto _ : state) {
        measured m{};
        const char *error = suite_measure(all, row, &m);
        if (error) {
            state.SkipWithError(error);
            return;
        }
        state.SetIterationTime(m.ns * 1e-9);
        state.counters["floor_ns"] = m.floor_ns;
        state.counters["ratio"] = m.ratio;
        state.counters["p50_ns"] = m.p50_ns;
        state.counters["p99_ns"] = m.p99_ns;
        state.counters["p99.9_ns"] = m.p999_ns;
        state.counters["bytes_per_key"] = m.bytes_per_key;
    }
}

void initialize(const suite *all, char *program)
{
    std::vector<std::string> words = {program, "--benchmark_enable_random_interleaving=true",
                                      "--benchmark_counters_tabular=true"};
    if (suite_json(all)) {
        words.push_back(std::string("--benchmark_out=") + suite_json(all));
        words.push_back("--benchmark_out_format=json");
    }
    std::vector<char *> arguments;
    for (std::string &word : words)
        arguments.push_back(&word[0]);
    int count = static_cast<int>(arguments.size());
    benchmark::Initialize(&count, arguments.data());
}

} // namespace

int main(int argc, char **argv)
{
    int status = 0;
    suite *all = suite_create(argc, argv, &status);
    if (!all)
        return status;
    initialize(all, argv[0]);
    for (unsigned row = 0; row < suite_rows(all); row++)
        benchmark::RegisterBenchmark(suite_row_name(all, row), run_row, all, row)
            ->UseManualTime()
            ->Iterations(1)
            ->Repetitions(static_cast<int>(suite_repetitions(all)))
            ->DisplayAggregatesOnly(true);
    /* Progress and details on stderr; stdout is the table alone. */
    benchmark::ConsoleReporter progress(benchmark::ConsoleReporter::OO_Tabular);
    progress.SetOutputStream(&std::cerr);
    progress.SetErrorStream(&std::cerr);
    benchmark::RunSpecifiedBenchmarks(&progress);
    benchmark::Shutdown();
    suite_print(all, stdout);
    bool written = std::fflush(stdout) == 0;
    if (!written)
        std::perror("bench: writing the table");
    status = suite_free(all);
    return written ? status : 2;
}
