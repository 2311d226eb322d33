#!/usr/bin/env bash
# judge.awk decides what counts as passed. Each case here is an output it must see through.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
failures=0

# judge NAME EXPECTED-TOTAL EXIT-STATUS STRICT OUTPUT [PATTERN]
judge() {
    local said
    said=$(printf "$5" | awk -v rc="$3" -v strict="$4" -v name=t -v limit=9 -f "$here/judge.awk")
    if [[ "$(tail -n 1 <<<"$said")" == "total $2" && "$said" =~ ${6:-} ]]; then
        echo "ok - $1"
    else
        echo "not ok - $1"
        printf '# wanted total %s %s, got:\n%s\n' "$2" "${6:-}" "$said" | sed '2,$s/^/#   /'
        failures=$((failures + 1))
    fi
}

judge "two passed cmocka tests count two" "2 0 0" 0 0 '1..2\nok 1 - a\nok 2 - b\n# ok - t\n'
judge "a failed cmocka test counts once" "1 1 0" 1 0 '1..2\nok 1 - a\nnot ok 2 - b\n# 0x1 != 0x2\n# not ok - t\n' 'fail t: b'
judge "a failed set-up counts as a failure" "0 1 0" 1 0 '1..1\nnot ok 1 - b Could not run test: Test setup failed\n'
judge "a crash half way is a failure" "1 1 0" 134 0 '1..3\nok 1 - a\n' '3 checks were announced, 1 reported; the last was: a'
judge "exit(0) half way is a failure" "1 1 0" 0 0 '1..3\nok 1 - a\n' 'announced'
judge "an exit status without a failed check is a failure" "1 1 0" 66 0 '1..1\nok 1 - a\n' 'exit status 66'
judge "death by a signal after all checks is a failure" "1 1 0" 139 0 '1..1\nok 1 - a\n' 'signal 11'
judge "a failed check with exit status 0 is a failure" "0 1 0" 0 0 'not ok - a\n'
judge "a child that reports a number again is a failure" "2 2 0" 0 0 '1..1\nok 1 - a\nok 1 - a\n' 'reported twice'
judge "two groups in one program are both counted" "3 0 0" 0 0 '1..2\nok 1 - a\nok 2 - b\n1..1\nok 1 - c\n'
judge "a first group cut short is a failure" "2 1 0" 0 0 '1..2\nok 1 - a\n1..1\nok 1 - c\n'
judge "silence is a failure" "0 1 0" 0 0 '' 'no check'
judge "chatter without a check is a failure" "0 1 0" 0 0 'all fine\nokay\n' 'no check'
judge "an empty plan is a failure" "0 1 0" 0 0 '1..0\n'
judge "a time-out is a failure and names the last check" "1 1 0" 124 0 'ok - a\n' 'last check was: a'
judge "a plan that comes last is checked" "1 1 0" 0 0 'ok - a\n1..2\n' '2 checks were announced'
judge "a plan that comes last and is met passes" "2 0 0" 0 0 'ok - a\nok - b\n1..2\n'
judge "a cmocka skip takes its reason from the line before" "1 0 1" 0 0 \
    '1..2\nskipped: no spin\nnot ok 1 # SKIP a\nok 2 - b\n' 'skip t: a: no spin'
judge "a skip without a reason says so" "0 0 1" 0 0 '1..1\nnot ok 1 # SKIP a\n' 'no reason given'
judge "a reason serves one skip only" "0 0 2" 0 0 '1..2\nskipped: x\nnot ok 1 # SKIP a\nnot ok 2 # SKIP b\n' 'b: no reason'
judge "where skips count, a skip is a failure" "0 1 0" 0 1 '1..1\nskipped: no spin\nnot ok 1 # SKIP a\n' 'no spin'
judge "where skips count, the kernel's is still one" "0 0 1" 0 1 \
    '1..1\nskipped (kernel): no namespaces\nnot ok 1 # SKIP a\n' '\(kernel\) no namespaces'
judge "a shell check's skip has name and reason" "1 0 1" 0 0 'ok - a\nskipped - b: no root\n' 'skip t: b: no root'
judge "a shell test's plan counts what was checked, not what was skipped" "1 0 1" 0 0 'ok - a\nskipped - b: no root\n1..1\n'
judge "a shell check's kernel skip" "0 0 1" 0 1 'skipped (kernel) - b: no userns\n' 'b: \(kernel\) no userns'
judge "a whole script is skipped by exit status 77" "0 0 1" 77 0 'skipped: no clang-format\n' 'no clang-format'
judge "exit status 77 without a reason is a failure" "0 1 0" 77 0 'bye\n'
judge "77 failed cmocka tests are not a skip" "0 1 0" 77 0 '1..1\nnot ok 1 - a\nskipped: no\n'
exit $((failures > 0))
