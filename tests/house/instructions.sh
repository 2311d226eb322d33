#!/usr/bin/env bash
# An operation executes no more instructions than is written down for it, with 3 % slack: a slowdown shows here though the
# machine is noisy. callgrind counts; the C library is told to use what every x86-64 has, so that the processor doesn't matter.
# Pins are in instructions.txt. Whoever raises one says there what it was, what it is, and why.
# timeout: 120 s
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"
few=2000 many=10000 # runs of an operation; the difference is what counts, so set-up and tear-down cancel out

command -v valgrind >/dev/null || { echo "skipped: valgrind is not installed (tools/setup --test gets it)"; exit 77; }
[[ $(uname -m) == x86_64 ]] || { echo "skipped: the pins are for x86_64, this is $(uname -m)"; exit 77; }
compiler=$(cc -dumpfullversion)
pinned=$(sed -n 's/^compiler //p' "$root/tests/house/instructions.txt")
[[ $compiler == "$pinned" ]] || { echo "skipped: the pins are for gcc $pinned, this is $compiler"; exit 77; }
program=${IDEM_BUILD:?}/bench/idem_bench_count
export IDEM_BENCH_DIR=$scratch
[[ ! -d /dev/shm ]] || { IDEM_BENCH_DIR=$(mktemp -d /dev/shm/idem-pins-XXXXXX) && trap 'rm -rf "$scratch" "$IDEM_BENCH_DIR"' EXIT; }

# executed OPERATION N: instructions of a whole run.
executed() {
    GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2_Usable,-AVX2,-AVX512F,-ERMS,-FSRM \
        valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

measure() {
    local operation a b
    while read -r _ operation _; do
        a=$(executed "$operation" $few) b=$(executed "$operation" $many)
        [[ $a && $b ]] || { echo "$operation failed"; continue; }
        echo "$operation $(((b - a + (many - few) / 2) / (many - few)))"
    done < <(grep '^pin ' "$root/tests/house/instructions.txt")
}

# too_many PINS MEASURED: one line for each operation above its pin, or without a figure, and for a pin that has become idle.
too_many() {
    awk 'FNR == NR { if ($1 == "pin") { order[++n] = $2; pin[$2] = $3 } next }
         { got[$1] = $2 }
         END {
             for (i = 1; i <= n; i++) {
                 o = order[i]
                 if (got[o] + 0 == 0) print o ": could not be counted"
                 else if (got[o] > pin[o] * 1.03) print o ": " got[o] " instructions, pinned at " pin[o] " (3 % slack)"
                 else if (got[o] < pin[o] * 0.9) print o ": " got[o] " instructions, pinned at " pin[o] ": lower the pin, it guards nothing"
             }
             if (n == 0) print "no pins"
         }' "$1" "$2"
}

measure >"$scratch/measured"
clean "no operation executes more than its pin" too_many "$root/tests/house/instructions.txt" "$scratch/measured"
sed 's/^/# /' "$scratch/measured"

printf 'pin begin 700\npin replay 1000\n' >"$scratch/pins"
printf 'begin 720\nreplay 960\n' >"$scratch/fine"
clean "within the slack is fine" too_many "$scratch/pins" "$scratch/fine"
printf 'begin 722\nreplay 1000\n' >"$scratch/slow"
caught "four per cent more are caught" 'begin: 722 instructions, pinned at 700' too_many "$scratch/pins" "$scratch/slow"
printf 'begin 700\n' >"$scratch/missing"
caught "an operation that can't be counted is caught" 'replay: could not be counted' too_many "$scratch/pins" "$scratch/missing"
printf 'begin 600\nreplay 1000\n' >"$scratch/idle"
caught "a pin far above what is executed is caught" 'begin: .*guards nothing' too_many "$scratch/pins" "$scratch/idle"
finish
