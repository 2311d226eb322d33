/*
 * compare.cc - tools/bench's program: runs the rounds, hands their figures to google-benchmark, writes tables and plots.
 *
 * Owns: the directory of the run on a tmpfs (place.h) and one on a disk. Both are removed at the end; if we die, tools/bench
 * removes them. Measuring is done in forked processes by the C harness; google-benchmark is told each round's figure as the
 * manual time of one iteration, and makes repetitions and aggregates of them in its JSON.
 */
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include <unistd.h>

#include "harness.h"
#include "idem.h"
#include "lineup.h"
#include "options.h"
#include "place.h"
#include "plots.h"
#include "report.h"
#include "rounds.h"

namespace
{

const uint64_t tmpfs_bytes = UINT64_C(13) << 30;

/* The next round's figure of a row. */
void run_row(benchmark::State &state, const trials *all, unsigned row, unsigned *round)
{
    for (auto _ : state) {
        while (*round < rounds_done(all) && !rows_figures(all, row, *round))
            ++*round;
        const figures *f = rows_figures(all, row, (*round)++);
        if (!f) {
            bool left_out;
            const char *why = rows_why(all, row, &left_out);
            state.SkipWithError(why ? why : "no figure");
            return;
        }
        std::string unit = rows_at(all, row)->unit;
        state.SetIterationTime(unit == "ns/op"                  ? f->value * 1e-9
                               : unit == "op/s" && f->value > 0 ? 1 / f->value
                                                                : 1e-9);
        state.counters[unit] = f->value;
        if (f->floor > 0) {
            state.counters["floor"] = f->floor;
            state.counters["ratio"] = f->value / f->floor;
        }
        if (f->p50_ns > 0) {
            state.counters["p50_ns"] = f->p50_ns;
            state.counters["p99_ns"] = f->p99_ns;
            state.counters["p99.9_ns"] = f->p999_ns;
        }
    }
}

void add_context(void *, const char *name, const char *version, const char *settings)
{
    benchmark::AddCustomContext(name, version ? version : std::string("not measured: ") + settings);
}

void write_json(const trials *all, const std::string &file)
{
    std::vector<std::string> words = {"bench", "--benchmark_out=" + file, "--benchmark_out_format=json"};
    std::vector<char *> arguments;
    for (std::string &word : words)
        arguments.push_back(&word[0]);
    int count = static_cast<int>(arguments.size());
    benchmark::Initialize(&count, arguments.data());
    lineup_peers(add_context, nullptr);
    benchmark::AddCustomContext("rounds", std::to_string(rounds_done(all)));
    benchmark::AddCustomContext("cut", rounds_cut(all) ? rounds_cut(all) : "nothing");
    std::vector<unsigned> round(rows_count(all));
    for (unsigned row = 0; row < rows_count(all); row++) {
        char name[200];
        row_name(rows_at(all, row), name, sizeof name);
        unsigned figures = rows_spread(all, row, 0).count;
        benchmark::RegisterBenchmark(name, run_row, all, row, &round[row])
            ->UseManualTime()
            ->Iterations(1)
            ->Repetitions(figures > 0 ? static_cast<int>(figures) : 1);
    }
    std::ostringstream unread; /* the tables say it better */
    benchmark::ConsoleReporter display(benchmark::ConsoleReporter::OO_None);
    display.SetOutputStream(&unread);
    display.SetErrorStream(&unread);
    benchmark::RunSpecifiedBenchmarks(&display);
    benchmark::Shutdown();
}

bool write_table(const trials *all, const conditions *c, const std::string &file)
{
    FILE *to = std::fopen(file.c_str(), "we");
    if (!to) {
        std::perror(file.c_str());
        return false;
    }
    report_tables(all, c, to);
    return std::fclose(to) == 0;
}

void print_peer(void *, const char *name, const char *version, const char *settings)
{
    std::printf("%-20s %-28s %s\n", name, version ? version : "NOT MEASURED", settings);
}

int list(const trials *all)
{
    lineup_peers(print_peer, nullptr);
    std::printf("\n");
    for (unsigned row = 0; row < rows_count(all); row++) {
        char name[200];
        row_name(rows_at(all, row), name, sizeof name);
        std::printf("%s\n", name);
    }
    return 0;
}

int measure(trials *all, const options *o, const conditions *c)
{
    if (rounds_run(all, c, o->rounds, o->seconds) != 0) {
        std::fprintf(stderr, "bench: nothing was measured: %s\n", rounds_cut(all) ? rounds_cut(all) : "no round ended");
        return 2;
    }
    bool written = true;
    if (o->out) {
        std::string folder = o->out;
        write_json(all, folder + "/results.json");
        written = write_table(all, c, folder + "/table.md") && plots_write(all, o->out) == 0;
    }
    report_tables(all, c, stdout);
    if (std::fflush(stdout) != 0)
        written = false;
    return written && report_failures(all) == 0 ? 0 : 2;
}

} // namespace

int main(int argc, char **argv)
{
    options o;
    int read = options_read(&o, argc, argv);
    if (read != 0)
        return read > 0 ? 0 : 2;
    trials *all = trials_create(o.row);
    if (!all)
        return 2;
    int status = 2;
    place place;
    std::string disk = std::string(o.disk) + "/idem-bench-XXXXXX";
    conditions c{&place, nullptr, o.quick, o.smoke};
    if (lineup_add(all, &o, &c) != 0)
        std::fputs("bench: out of memory, or more trials than there is room for\n", stderr);
    else if (rows_count(all) == 0)
        std::fprintf(stderr, "bench: --row %s matches no row; see --list\n", o.row);
    else if (o.list)
        status = list(all);
    else if (!mkdtemp(&disk[0]))
        std::perror(disk.c_str());
    else {
        harness_catch_signals();
        if (place_open(&place, o.dir, tmpfs_bytes) == 0) {
            c.disk = disk.c_str();
            status = measure(all, &o, &c);
            place_close(&place);
        }
        place_remove_tree(disk.c_str());
    }
    trials_free(all);
    return status;
}
