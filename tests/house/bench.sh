#!/usr/bin/env bash
# tools/bench: every peer that is installed does its three jobs on a thousand keys and is believed; one that cheats is not; what
# is written is well-formed. Nothing is judged by its speed. What isn't installed is named, and no failure.
# timeout: 240 s
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"

program=${IDEM_BUILD:?}/bench/idem_bench_peers
[[ -x $program ]] || { echo "skipped: $program was not built"; exit 77; }
export IDEM_BENCH_PROGRAM=$program
shm=$scratch
[[ ! -d /dev/shm ]] || { shm=$(mktemp -d /dev/shm/idem-smoke-XXXXXX) && trap 'rm -rf "$scratch" "$shm"' EXIT; }
bench() { "$root/tools/bench" --no-install --dir "$shm" --disk "$scratch" --out "$scratch/out" "$@"; }

# Rows that failed or cheated; a bare name is what a row ends with. Those left out are said by the program and here.
failed() { grep -E '^\*\*FAILED\*\*' "$1" | grep -v "planted/"; }
not_installed() { sed -n 's/^Left out: /# left out: /p; s/^| \([^|]*\) | \*\*not measured\*\* | \(.*\) |$/# \1: \2/p' "$1"; }

bench --smoke >"$scratch/said" 2>"$scratch/progress"
report "all who are installed do their jobs" $? "$(tail -n 5 "$scratch/progress")"
clean "none of them is found out" failed "$scratch/said"
not_installed "$scratch/said"
caught "idem is among them" '^\| idem \| [0-9]' cat "$scratch/said"

bench --smoke --planted --row planted >"$scratch/planted" 2>&1
report "a run in which somebody cheats fails" $(($? == 0)) "$(tail -n 5 "$scratch/planted")"
caught "a peer that does nothing is found out" 'planted/idle.*disqualified: claim of 64 keys that are claimed said 64' grep FAILED "$scratch/planted"
caught "a peer that forgets answers is found out" 'planted/forgetful.*disqualified: replays are not the answers' grep FAILED "$scratch/planted"
caught "a peer that mixes answers up is found out" 'planted/mixed.*disqualified: replays are not the answers' cat "$scratch/planted"

# One row alone, as a person would ask for it.
bench --smoke --row '^claim/batch:1/.*/idem$' >"$scratch/one" 2>&1
report "a row can be measured alone" $? "$(tail -n 5 "$scratch/one")"
rows=$(grep -c '^| idem | [0-9]' "$scratch/one")
report "and nothing else is" $((rows != 1)) "$rows rows"
bench --row nobody >"$scratch/none" 2>&1
report "a row that doesn't exist is refused" $(($? != 2)) "$(cat "$scratch/none")"

json() { python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); assert d["benchmarks"] and d["context"]["idem"]' "$1" 2>&1; }
svg() { python3 -c 'import sys, xml.dom.minidom as m; [m.parse(f) for f in sys.argv[1:]]' "$@" 2>&1; }
clean "its JSON is well-formed" json "$scratch/out/results.json"
clean "its plots are well-formed" svg "$scratch"/out/*.svg
clean "those that were published are too" svg "$root"/docs/performance/*.svg
clean "and their JSON" json "$root/docs/performance/results.json"
left() { find "$shm" "$scratch" -maxdepth 1 -name 'idem-bench*'; }
clean "nothing stays behind" left
finish
