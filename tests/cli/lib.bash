# Sourced by the tests of the `idem` command. $IDEM is the binary; $store is a store of this test's own, made on first use.
#
# A check is named as a sentence and prints "ok - NAME" or "not ok - NAME"; finish prints the plan and exits 1 if one failed.
# Everything lies in $work, a private directory on /dev/shm that is removed at the end, also on failure. Processes that a
# test starts with `start` are ended there too, by their ids.
set -u
: "${IDEM:?set IDEM to the idem binary}"
command -v "$IDEM" >/dev/null || { echo "not ok - $IDEM can be executed"; exit 1; }
IDEM=$(realpath "$(command -v "$IDEM")")
export IDEM
work=$(mktemp -d /dev/shm/idem-test-XXXXXX) || exit 1
store=$work/store
checks=0 failures=0
started=()
export work store
PATIENCE=60 # seconds that anything may take on a slow, busy machine

clean_up() {
    local pid
    for pid in ${started[@]+"${started[@]}"}; do
        runs "$pid" || continue
        kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# idem SUBCOMMAND ARGUMENTS...: on this test's store.
idem() {
    local subcommand=$1
    shift
    "$IDEM" "$subcommand" --store "$store" "$@"
}

# report NAME OUTCOME [TEXT]: OUTCOME 0 is a pass; TEXT explains a failure.
report() {
    checks=$((checks + 1))
    if (($2 == 0)); then
        echo "ok - $1"
    else
        failures=$((failures + 1))
        echo "not ok - $1"
        if [[ -n ${3:-} ]]; then printf '%s\n' "$3" | head -n 20 | cat -v | sed 's/^/# /'; fi
    fi
}

# check NAME COMMAND...: passes when COMMAND succeeds.
check() {
    local name=$1 outcome=0
    shift
    "$@" || outcome=1
    report "$name" $outcome "failed: $*"
}

# check_not NAME COMMAND...: passes when COMMAND fails.
check_not() {
    local name=$1 outcome=0
    shift
    if "$@"; then outcome=1; fi
    report "$name" $outcome "succeeded: $*"
}

# check_is NAME GOT WANTED
check_is() {
    local outcome=0
    [[ $2 == "$3" ]] || outcome=1
    report "$1" $outcome "got '$2', wanted '$3'"
}

# check_has NAME FILE TEXT: FILE has TEXT somewhere.
check_has() {
    local outcome=0 text
    text=$(cat "$2")
    grep -qF -- "$3" <<<"$text" || outcome=1
    report "$1" $outcome "no '$3' in: $text"
}

# eventually COMMAND...: true as soon as COMMAND succeeds, false after $PATIENCE seconds.
eventually() {
    local end=$((SECONDS + PATIENCE))
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.05
    done
}

# start COMMAND...: in the background; ${started[-1]} is its id, that of idem itself and not of a shell around it.
start() {
    if [[ $1 == idem ]]; then
        set -- "$IDEM" "$2" --store "$store" "${@:3}"
    fi
    "$@" &
    started+=($!)
}

# status_of COMMAND...: prints its exit status; its own output goes to $work/out and $work/err.
status_of() {
    local status=0
    "$@" >"$work/out" 2>"$work/err" || status=$?
    echo "$status"
}

# runs PID: it was started here and has not ended. The id of one that has may be another process's by now, of another test or of nobody we know.
runs() { [[ $'\n'$(jobs -rp)$'\n' == *$'\n'"$1"$'\n'* ]]; }
ended() { ! runs "$1"; }

# gone PID: no such process, or only its zombie.
gone() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 0
    stat=${stat##*) }
    [[ $stat == [ZX]* ]]
}

# await [PID]: its exit status; one that runs for longer than $PATIENCE is killed. Default: what was started last.
await() {
    local pid=${1:-${started[-1]}}
    eventually ended "$pid" || kill -KILL "$pid"
    wait "$pid"
}

# has_waiter KEY: somebody waits for the running attempt of KEY.
has_waiter() { idem why --json --key "$1" | grep -q '"waiters":true'; }

lines_in() { if [[ -e $1 ]]; then wc -l <"$1"; else echo 0; fi; }

finish() {
    echo "1..$checks"
    exit $((failures > 0))
}
