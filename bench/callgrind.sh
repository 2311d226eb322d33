#!/usr/bin/env bash
# Counts what one operation executes: bench/callgrind.sh [--functions] [OPERATION...]
#
# Each operation is run under callgrind 10,000 and 30,000 times; the difference, divided by 20,000, is one operation: set-up
# and tear-down cancel out. Columns: instructions, data reads, data writes, and first-level data misses of a simulated cache
# (how many lines an operation meets cold). --functions lists where the instructions go.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${IDEM_CALLGRIND_BUILD:-$root/build/callgrind}
few=10000
many=30000
functions=no
operations=()
for word in "$@"; do
    case $word in
    --functions) functions=yes ;;
    --help | -h)
        echo "usage: bench/callgrind.sh [--functions] [begin|begin_many|complete|replay|replay_many|in_progress|mismatch ...]"
        exit 0
        ;;
    -*)
        echo "callgrind.sh: '$word' is not an option; see --help" >&2
        exit 2
        ;;
    *) operations+=("$word") ;;
    esac
done
if [ ${#operations[@]} -eq 0 ]; then
    operations=(begin begin_many complete replay replay_many in_progress mismatch)
fi
command -v valgrind >/dev/null || {
    echo "callgrind.sh: valgrind is missing; install Debian's package valgrind" >&2
    exit 2
}

work=$(mktemp -d /dev/shm/idem-callgrind-XXXXXX)
trap 'rm -rf -- "$work"' EXIT
export IDEM_BENCH_DIR=$work
if ! { cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS=-g -DIDEM_BENCH=ON -DIDEM_POOL=OFF -DIDEM_TESTS=OFF &&
    cmake --build "$build" --target idem_bench_count -j "$(nproc)"; } >"$work/build.log" 2>&1; then
    cat "$work/build.log" >&2
    exit 2
fi

# count OPERATION N: leaves $work/OPERATION.N
count() {
    valgrind --tool=callgrind --cache-sim=yes --callgrind-out-file="$work/$1.$2" "$build/bench/idem_bench_count" "$1" "$2" \
        >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        exit 1
    }
}

# Prints, for one output file, "cost function" with the function's own instructions.
own() {
    callgrind_annotate --threshold=100 --show=Ir "$1" | awk '
        /^ *[0-9,]+ +(\([ 0-9.]+%\) +)?[^ ]+:[^ ]+/ {
            cost = $1; gsub(/,/, "", cost)
            line = $0; sub(/^ *[0-9,]+ +(\([ 0-9.]+%\) +)?/, "", line); sub(/ \[.*$/, "", line); sub(/^.*:/, "", line)
            sum[line] += cost
        }
        END { for (f in sum) print sum[f], f }'
}

echo "| operation | instructions | data reads | data writes | first-level misses |"
echo "|---|---|---|---|---|"
for operation in "${operations[@]}"; do
    count "$operation" "$few"
    count "$operation" "$many"
    # events: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw
    awk -v op="$operation" -v ops=$((many - few)) '
        /^events:/ { for (i = 2; i <= NF; i++) at[$i] = i }
        /^(summary|totals):/ && !seen[FILENAME]++ { file++; for (e in at) value[file, e] = $at[e] }
        function per(e) { return (value[2, e] - value[1, e]) / ops }
        END { printf "| %s | %.1f | %.1f | %.1f | %.2f |\n", op, per("Ir"), per("Dr"), per("Dw"), per("D1mr") + per("D1mw") }
    ' "$work/$operation.$few" "$work/$operation.$many"
done

if [ "$functions" = yes ]; then
    for operation in "${operations[@]}"; do
        printf '\n%s: instructions an operation, by function\n' "$operation"
        own "$work/$operation.$few" >"$work/own.few"
        own "$work/$operation.$many" >"$work/own.many"
        awk -v ops=$((many - few)) '
            NR == FNR { few[$2] = $1; next }
            { per = ($1 - few[$2]) / ops; if (per >= 0.5) printf "%8.1f  %s\n", per, $2 }
        ' "$work/own.few" "$work/own.many" | sort -rn
    done
fi
