#!/usr/bin/env bash
# tools/demo, shortened: it ends well when all is well, and fails, saying why, for each fault that is seeded into the pool.
# timeout: 400 s
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"
: "${IDEM_BUILD:?set IDEM_BUILD to the build directory}"
demo=$(dirname "${BASH_SOURCE[0]}")/../../tools/demo
export TMPDIR=$work

# storm ARGUMENTS...: its exit status; what it said is in $work/out.
storm() { status_of "$demo" --bin "$IDEM_BUILD/tools/pool" "$@"; }
# column NAME: "WITH WITHOUT" of that row of the table.
column() { awk -v name="$1" 'index($0, "  " name " ") == 1 { print $(NF - 1), $NF }' "$work/out"; }

check_is "a storm with idem ends well" "$(storm --act 1 --seconds 4 --seed 7)" 0
cp "$work/out" "$work/good"
check_is "no order was charged twice" "$(column 'DOUBLE CHARGES' | cut -d ' ' -f 1)" 0
check_is "no charge was lost" "$(column 'LOST CHARGES')" "0 0"
check "without idem orders were charged twice" test "$(column 'DOUBLE CHARGES' | cut -d ' ' -f 2 | tr -d ,)" -gt 0
check "it was hard: workers died between ledger write and completion" \
    test "$(column '  between ledger write and complete' | cut -d ' ' -f 1)" -ge 10
check "it was hard: keys were taken over" test "$(column takeovers | cut -d ' ' -f 1)" -ge 20
# Act 2: reboots.
check_is "reboots with a log end well" "$(storm --act 2 --seconds 4 --seed 7)" 0
check_is "no order was charged twice, nor lost" "$(column 'DOUBLE CHARGES' | cut -d ' ' -f 1) $(column 'LOST CHARGES' | cut -d ' ' -f 1)" "0 0"
check "without a log orders were charged twice" test "$(column 'DOUBLE CHARGES' | cut -d ' ' -f 2 | tr -d ,)" -gt 0
check_is "after the last reboot everything was answered from the log" "$(column '  their requests that got anything else' | cut -d ' ' -f 1)" 0
check "it was hard: keys in progress came back" test "$(column 'takeovers of keys lost in a reboot' | cut -d ' ' -f 1)" -ge 10
check_is "nothing is left behind" "$(find "$work" -maxdepth 1 -name 'idem-demo-*'; find /dev/shm -maxdepth 1 -name 'idem-demo-*')" ""

printf '%s\n' '{"amount":1999,"currency":"EUR"}' '{"amount":5,"currency":"USD","key":"mine","slow_ms":150}' \
    '{"amount":6,"currency":"USD","key":"mine"}' '{"amount":5,"currency":"USD","key":"mine","slow_ms":150}' >"$work/orders"
check_is "a user's own orders are taken, repeated keys and changed bodies too" "$(storm --act 1 --seconds 2 --input "$work/orders")" 0
check "and sent round after round" test "$(column 'keys (orders)' | cut -d ' ' -f 1 | tr -d ,)" -gt 2
echo '{"amount":"much"}' >>"$work/orders"
check_is "an order that is none is refused" "$(storm --act 1 --seconds 2 --input "$work/orders")" 1
check_has "with its place and what is wrong" "$work/err" ':5: field "amount" must be a whole number'
check_is "wrong usage is told" "$(storm --seconds never) $(storm --input /nowhere) $(storm --bogus)" "2 2 2"

# Each fault must be caught by the count that is there for it.
# caught FAULT COUNT
caught() {
    check_is "a pool with the fault $1 fails" "$(storm --act 1 --seconds 1 --fault "$1")" 1
    check_has "and it is said why" "$work/out" "NOT OK: $2:"
}
caught skip-reconcile "double charges"
caught skip-ledger "lost charges"
caught vary-replay "answers that differ from their key's first"
caught no-fingerprint "changed bodies accepted"
check_not "none of that was said of the good pool" grep -q 'NOT' "$work/good"

# Those of act 2 show only over a reboot.
for fault in lose-log not-durable; do
    check_is "reboots with the fault $fault fail" "$(storm --act 2 --seconds 1 --fault "$fault")" 1
    check_has "by double charges" "$work/out" "NOT OK: double charges:"
    check_has "and by what was not brought back" "$work/out" "NOT HARD ENOUGH: answers brought back from the log: 0"
done
finish
