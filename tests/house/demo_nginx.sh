#!/usr/bin/env bash
# tools/demo --nginx, shortened: it ends well when all is well, and fails, saying why, for each fault that is seeded. Here and
# not beside tests/cli/demo.sh because the module exists in the Release build alone.
# timeout: 300 s
source "$(dirname "${BASH_SOURCE[0]}")/../cli/lib.bash"
: "${IDEM_BUILD:?set IDEM_BUILD to the build directory}"
demo=$(dirname "${BASH_SOURCE[0]}")/../../tools/demo
export TMPDIR=$work

# storm ARGUMENTS...: its exit status; what it said is in $work/out.
storm() { status_of "$demo" --nginx --bin "$IDEM_BUILD/tools/pool" "$@"; }
# column NAME: "ON OFF" of that row of the table.
column() { awk -v name="$1" 'index($0, "  " name " ") == 1 { print $(NF - 1), $NF }' "$work/out"; }
# ours: nginx processes that were started with a configuration of this test.
ours() {
    local file
    for file in /proc/[0-9]*/cmdline; do
        { tr '\0' ' ' <"$file"; } 2>/dev/null | grep -F "nginx: master process" | grep -F "$work"
    done
}

check_is "a storm through nginx with idem ends well" "$(storm --seconds 3 --seed 7)" 0
cp "$work/out" "$work/good"
check_is "no order was charged twice, nor lost" "$(column 'DOUBLE CHARGES' | cut -d ' ' -f 1) $(column 'LOST CHARGES' | cut -d ' ' -f 1)" "0 0"
check "with idem off orders were charged twice" test "$(column 'DOUBLE CHARGES' | cut -d ' ' -f 2 | tr -d ,)" -gt 0
check "it was hard: workers of nginx were killed" test "$(column "nginx's workers killed" | cut -d ' ' -f 1)" -ge 8
check "it was hard: charges were found in the ledger whose answers nobody had" \
    test "$(column '  charge found in the ledger: answer made of it' | cut -d ' ' -f 1)" -ge 5
check_is "no key is left held" "$(column '  left held at the end')" "0 -"
check_is "nothing is left behind" "$(find "$work" -mindepth 1 -maxdepth 1 -name 'idem-*'; find /dev/shm -maxdepth 1 -name 'idem-demo-*')" ""
check_is "no nginx is left running" "$(ours)" ""
check_not "none of what faults show was said" grep -q 'NOT' "$work/good"

# caught FAULT COUNT: each fault must be caught by the count that is there for it.
caught() {
    check_is "with the fault $1 it fails" "$(storm --seconds 1 --fault "$1")" 1
    check_has "and it is said why" "$work/out" "NOT OK: $2:"
}
caught abandon "double charges"
caught skip-reconcile "double charges"
caught skip-ledger "lost charges"

mkdir -p "$work/elsewhere/tools/pool"
cp "$IDEM_BUILD/tools/pool/idem_pool" "$IDEM_BUILD/tools/pool/idem_storm" "$work/elsewhere/tools/pool"
check_is "without the module it is said what is missing" "$("$demo" --nginx --bin "$work/elsewhere/tools/pool" 2>&1; echo $?)" \
    "$(printf '%s\n' "tools/demo: --nginx: $work/elsewhere/tools/pool/../../ngx_http_idem_module.so is not there; it is built where \
nginx-dev is installed (tools/setup --nginx)" 2)"
check_is "an act of the pool and this one are not played at once" "$("$demo" --nginx --act 1 2>&1; echo $?)" \
    "$(printf '%s\n' "tools/demo: --act and --nginx: give one of them" 2)"
finish
