#!/usr/bin/env bash
# Runs one libFuzzer target: first on the corpus in tests/fuzz/corpus/, then on what that leads to, for 60 s (IDEM_TEST_LONG: 10 minutes). A crash, a
# sanitizer's report, a leak, a failed check and an input that takes more than a second of processor time are failures; libFuzzer prints the
# input as base64. Then each fault that is named here is seeded into the library, and the corpus must notice.
#
# usage: tests/fuzz/run.sh PATH/TO/fuzz_NAME
set -u
target=$1
name=${target##*/fuzz_}
corpus=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/corpus/$name
work=${TMPDIR:-/tmp}/fuzz-$name.$$
seconds=60
if [[ ${IDEM_TEST_LONG:-} ]]; then seconds=600; fi
declare -A longest=([dedup]=1500) # bytes of an input; keys have up to 1024
declare -A faults=([wal]=scan.holes [store]=entry.unchecked)

if ! command -v clang >/dev/null; then
    echo "skipped: clang is not installed (tools/setup gets it)"
    exit 77
fi
if [[ ! -x $target ]]; then
    echo "not ok - fuzz_$name was not built"
    exit 1
fi
mkdir -p "$work/new" || exit 1
trap 'rm -rf "$work"' EXIT
options=(-len_control=0 -max_len=${longest[$name]:-600} -handle_xfsz=0 -timeout=60 -rss_limit_mb=2048 -artifact_prefix="$work/")
export ASAN_OPTIONS=${ASAN_OPTIONS:-}:quarantine_size_mb=16

failed=0
"$target" "${options[@]}" -max_total_time=$seconds ${IDEM_TEST_SEED:+-seed=$IDEM_TEST_SEED} -print_final_stats=1 "$work/new" "$corpus" \
    >"$work/log" 2>&1
rc=$?
inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
edges=$(grep -aoE ' cov: [0-9]+' "$work/log" | tail -n 1 | tr -dc 0-9)
if ((rc == 0)) && ((${inputs:-0} > 0)); then
    echo "$name: ${inputs} inputs, ${edges} edges"
    echo "ok - no input of fuzz_$name is bad"
else
    echo "not ok - no input of fuzz_$name is bad"
    grep -avE '^#[0-9]+.*(NEW|REDUCE|pulse|INITED)' "$work/log" | head -n 120 | cut -c 1-400
    failed=1
fi

for fault in ${faults[$name]:-}; do
    ASAN_OPTIONS=quarantine_size_mb=16:log_path=$work/planted IDEM_TEST_FAULT=$fault \
        "$target" "${options[@]}" "$corpus"/* >"$work/log" 2>&1
    rc=$?
    if ((rc == 0)); then
        echo "not ok - $fault is noticed by the corpus of fuzz_$name"
        failed=1
    else
        how=$(cat "$work"/planted* "$work/log" 2>/dev/null | grep -aoE '(ERROR: [A-Za-z]+: [a-zA-Z-]+|runtime error: .*|is -?[0-9]+.*|took [0-9]+ ms)' |
            head -n 1 | sed 's/^runtime error/undefined/' | cut -c 1-100) # as a seeded fault's, not as a finding of the run
        echo "caught: $fault: ${how:-status $rc}"
        echo "ok 1 - $fault is noticed by the corpus of fuzz_$name"
    fi
done
exit $failed
