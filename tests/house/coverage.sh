#!/usr/bin/env bash
# The check that coverage.py makes bites: a place that did not run needs a reason, and a reason needs its place.
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"
command -v clang >/dev/null && command -v llvm-cov >/dev/null || { echo "skipped: clang or llvm is not installed (tools/setup gets them)"; exit 77; }

fresh_tree
tree=$scratch/tree
plant src/a.c <<'C'
#define likely(x) (__builtin_expect(!!(x), 1))
static int never_called(int x)
{
    return x + 1;
}
static int helper(int x, int y)
{
    if (x > 5 && y > 7)
        return never_called(x);
    if (likely(x < 100))
        y++;
    switch (y) {
    case 4:
        return 4;
    case 5:
        return 5;
    }
    return x > 1 ? 1 : 2;
}
int main(int argc, char **argv)
{
    (void)argv;
    return helper(argc, 2) + helper(argc + 5, 3) + helper(2, 2) != 7;
}
C
(
    cd "$tree" || exit
    clang -fprofile-instr-generate=/dev/null -fcoverage-mapping src/a.c -o a && LLVM_PROFILE_FILE=$tree/raw ./a
    llvm-profdata merge raw -o profile && llvm-cov export a -instr-profile=profile -format=lcov >lcov &&
        llvm-cov export a -instr-profile=profile -skip-functions >json
) >"$scratch/log" 2>&1

# judged REASONS...: what the checker says when these lines, and those of all places, are the reasons.
all='= the key is short here
    src/a.c: never true: y > 7
    src/a.c: not run: {
    src/a.c: never false: likely(x < 100)
    src/a.c: not run: case 5:'
judged() {
    printf '%s\n' "$@" >"$scratch/reasons"
    /usr/bin/python3 -B "$root/tests/house/coverage.py" "$tree" "$tree/lcov" "$tree/json" "$scratch/reasons" "$scratch/out"
    local rc=$?
    [[ ! -s $scratch/log ]] || cat "$scratch/log"
    echo "status $rc"
}
# What is left of $all without the lines that have $1.
but() { grep -vF -- "$1" <<<"$all"; }

caught "with a reason for each place all is well" '^status 0' judged "$all"
caught "a condition that was never true needs a reason" '^did not run, without a reason: src/a.c:8: never true: y > 7$' judged "$(but 'y > 7')"
caught "so does a macro's that was never false" '^did not run, .*: src/a.c:10: never false: likely\(x < 100\)$' judged "$(but likely)"
caught "so does a function that was never called" '^did not run, .*: src/a.c:3: not run: \{$' judged "$(but 'not run')"
caught "so does a case" '^did not run, .*: src/a.c:15: not run: case 5:$' judged "$(but 'case 5')"
caught "and then the check fails" '^status 1' judged "$(but 'y > 7')"
caught "a reason whose place runs by now is none" '^has a reason, but runs, .*: src/a.c: never true: x > 5$' judged "$all" '    src/a.c: never true: x > 5'
caught "nor is one whose place is gone" '^has a reason, but runs, .*: src/a.c: never true: x > 6$' judged "$all" '    src/a.c: never true: x > 6'
caught "and then, too, the check fails" '^status 1' judged "$all" '    src/a.c: never true: x > 6'
caught "a place that comes and goes may run" '^status 0' judged "$all" '    sometimes src/a.c: never true: x > 5'
caught "or not" '^status 0' judged "$(but 'y > 7')" '    sometimes src/a.c: never true: y > 7'
caught "but must be there" 'is not there any more: src/a.c: never true: x > 6$' judged "$all" '    sometimes src/a.c: never true: x > 6'
caught "a place that is there twice needs two lines" '^has a reason, but runs' judged "$all" '    src/a.c: never true: y > 7'
caught "a reason is for something" 'a reason for nothing' judged '= empty' "$all"
caught "the last one, too" 'a reason for nothing' judged "$all" '= empty'

finish
