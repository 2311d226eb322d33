#!/usr/bin/env bash
# Somebody is killed at every named point of src/. crash/test_kill.c sees to that while it runs, for all points but those of the log, of
# recovery and of old files: each of these is named in a file of tests that kill, and those fail when nobody came by it.
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"

# points TREE: one line for each point of the log that no test kills at.
points() {
    (
        cd "$1" || exit
        mapfile -t killers < <(grep -rlE 'CRASH_KILL|support_die' tests/crash tests/unit --include='*.c')
        grep -rhoE 'IDEM_POINT\("(log|recover|retain)\.[^"]*"' src --include='*.c' | cut -d'"' -f2 | sort -u |
            while read -r name; do
                grep -qF "\"$name\"" /dev/null "${killers[@]}" || echo "$name: no test kills there"
            done
    )
}

clean "somebody is killed at each point of the log and of recovery" points "$root"

fresh_tree
mkdir -p "$scratch/tree/tests/crash" "$scratch/tree/tests/unit"
plant src/wal/a.c <<<'IDEM_POINT("log.known"); IDEM_POINT("log.new"); IDEM_POINT("claim.other");'
plant tests/crash/test_a.c <<<'{"log.known", 1, CRASH_KILL}'
plant tests/unit/test_b.c <<<'"log.new" is only waited for here'
caught "a new point is noticed" "^log.new: no test kills there" points "$scratch/tree"
plant tests/unit/test_b.c <<<'support_at_point("log.new", 1, support_die, NULL);'
clean "a point that a test kills at is not" points "$scratch/tree"

finish
