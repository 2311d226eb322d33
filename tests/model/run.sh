#!/usr/bin/env bash
# run.sh [--long] - check the Promela models of the protocol with spin. See README.md beside it.
#
# Each model must hold, and each of its rules, left out, must be refuted: a rule that spin doesn't miss is either not
# needed or not looked at. A search counts only if it was complete (no bound reached) and saw at least the states it is
# known to have, so that a model which is stuck at its beginning is no proof.
# timeout: 900 s
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
long=${IDEM_TEST_LONG:-0}
case "${1:-}" in
    "") ;;
    --long) long=1 ;;
    *) echo "usage: run.sh [--long]" >&2; exit 2 ;;
esac
for tool in spin gcc; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: $tool is not installed; apt-get install $tool"
        exit 77
    fi
done
scratch=$(mktemp -d "${TMPDIR:-/tmp}/idem-model-XXXXXX") || exit 1
trap 'rm -rf "$scratch"' EXIT
checks=0 failures=0
memory_mib=1800 limit_s=300

# report NAME OUTCOME [TEXT]
report() {
    checks=$((checks + 1))
    if (($2 == 0)); then
        echo "ok - $1"
    else
        failures=$((failures + 1))
        echo "not ok - $1"
    fi
    if [[ -n ${3:-} ]]; then echo "# ${3//$'\n'/$'\n'# }"; fi
}

# build NAME MODEL [FLAGS...]: $scratch/NAME/pan. Reductions that need care (partial order with "provided") are off.
build() {
    local name=$1 model=$2 said
    shift 2
    mkdir -p "$scratch/$name"
    if ! said=$(cd "$scratch/$name" && spin -a "$@" "$here/$model.pml" 2>&1 &&
        gcc -w -O1 -DNOREDUCE -DSAFETY ${COLLAPSE:+-DCOLLAPSE} -DMEMLIM="$memory_mib" -o pan pan.c 2>&1); then
        report "$name: spin and gcc make a verifier" 1 "$said"
    fi
}

# search NAME BITS VARIABLE=VALUE...: runs its verifier, hash table 2^BITS at first; sets said, states, errors.
search() {
    local name=$1 bits=$2
    shift 2
    said=$(cd "$scratch/$name" && rm -f ./*.trail && env "$@" timeout "$limit_s" ./pan -m100000 -w"$bits" 2>&1)
    states=$(sed -nE 's/^ *([0-9.e+]+) states, stored.*/\1/p' <<<"$said")
    states=$(printf '%.0f' "${states:-0}")
    errors=$(sed -nE 's/.*errors: ([0-9]+)$/\1/p' <<<"$said")
}

# holds NAME LEAST "WHAT" VARIABLE=VALUE...: a complete search of at least LEAST states without an error.
holds() {
    local name=$1 least=$2 what=$3 said states errors seconds why=""
    shift 3
    search "$name" 22 DROP=0 "$@"
    if [[ $errors != 0 ]]; then
        why="errors: ${errors:-search was ended after $limit_s s}"
    elif grep -qiE 'depth too small|out of memory|memlim|not completed|hash-compact|bitstate' <<<"$said"; then
        why="the search was not complete"
    elif ((states < least)); then
        why="$states states, expected at least $least: the model is stuck somewhere"
    fi
    if [[ -z $why ]]; then
        seconds=$(sed -nE 's/.*elapsed time ([0-9.]+).*/\1/p' <<<"$said" | tail -1)
        report "$name holds: $what" 0 "$states states, $seconds s"
    else
        report "$name holds: $what" 1 "$why"$'\n'"$said"$'\n'"parameters: DROP=0 $*; ./pan -r shows the steps"
    fi
}

# refuted NAME RULE VARIABLE=VALUE...: without that rule an assertion fails.
refuted() {
    local name=$1 rule=$2 number said states errors
    shift 2
    number=$(sed -nE "s/^#define $rule +([0-9]+) .*/\1/p" "$here/${name%%-*}.pml")
    search "$name" 18 DROP="${number:-0}" "$@"
    if [[ -n $number && $errors == 1 ]] && grep -q 'assertion violated' <<<"$said"; then
        report "$name without $rule is refuted" 0 "$(grep -m1 'assertion violated' <<<"$said" | cut -c1-110)"
    else
        report "$name without $rule is refuted" 1 "rule ${number:-unknown}, no assertion failed"$'\n'"$said"
    fi
}

# Steps of the log that wal.pml has not, and why. Each is a crash point of the code.
not_in_wal_pml=(
    log.claimed log.destroyed log.id.replaced # making and destroying a store
    log.id                                    # the newest number in the id: it makes a notice stronger, nothing rests on it
    log.file.deleted retain.deleted           # one step there with what REC_RETAIN says
    log.pushed                                # one of the moves of the lanes, which go on at their beginning
    log.stolen                                # who succeeds goes on where one does who finds the byte free
    log.waits log.woken                       # nobody waits there
)

# The same of recover.pml.
not_in_recover_pml=(
    recover.put_aside # salvage, which keeps what it can
)

# Labels that look like crash points are crash points of the code, and each point of the log is a label of its model.
labels() {
    local here=$1 label point missing=""
    [[ -d $here/../../src ]] || return 0
    grep -rhoE 'IDEM_POINT\("[^"]*"' "$here/../../src" | cut -d'"' -f2 | sort -u >"$scratch/points"
    for label in $(grep -hoE '^[a-z]+_[a-z_]+:' "$here"/*.pml | tr -d : | grep -v '^end_' | sort -u); do
        tr . _ <"$scratch/points" | grep -qxF "$label" || missing+="$label "
    done
    for point in "${not_in_wal_pml[@]}" "${not_in_recover_pml[@]}"; do
        grep -qxF "$point" "$scratch/points" || missing+="$point (an exception) "
    done
    for point in $(grep -E '^(log|retain|recover)\.' "$scratch/points"); do
        local model=wal label="^${point//./_}:"
        if [[ $point == recover.* ]]; then model=recover; fi
        if [[ " ${not_in_wal_pml[*]} ${not_in_recover_pml[*]} " == *" $point "* ]]; then
            if grep -q "$label" "$here/$model.pml"; then missing+="$point (no exception) "; fi
        elif ! grep -q "$label" "$here/$model.pml"; then
            missing+="$point (not in $model.pml) "
        fi
    done
    echo "$missing"
}

# The check of the names, and that it notices a name that only the code or only the model has.
names() {
    local said
    said=$(labels "$here")
    report "labels of the models are crash points of the code, and the log's points labels of its model" \
        $((${#said} > 0)) "$said"
    mkdir -p "$scratch/tree/src" "$scratch/tree/tests/model"
    sed 's/^log_noted:/log_notified:/' "$here/wal.pml" >"$scratch/tree/tests/model/wal.pml"
    cp "$here/recover.pml" "$scratch/tree/tests/model/"
    cat "$here"/../../src/*/*.c | grep IDEM_POINT >"$scratch/tree/src/all.c"
    said=$(labels "$scratch/tree/tests/model")
    [[ $said == "log_notified log.noted (not in wal.pml) " ]]
    report "a step that has another name in the model is noticed" $? "$said"
}

# Every rule that a model names is one that is tried.
rules() {
    local model rule missing=""
    for model in claim free region share liveness rescue wal wake recover; do
        while read -r rule; do
            grep -qE "^refuted $model $rule( |$)" "${BASH_SOURCE[0]}" || missing+="$model:$rule "
        done < <(grep -oE 'DROPPED\([A-Z_0-9]+\)' "$here/$model.pml" | sed -E 's/.*\((.*)\)/\1/' | sort -u)
    done
    report "each rule of each model is tried" $((${#missing} > 0)) "$missing"
}

names
rules

build claim claim
export TICKS=1 DEATHS=0 UPKEEP=1 RENEW=0 MIXED=0 PRESET=0
holds claim 1800000 "two claimants of one key, upkeep beside them" PRESET=0
holds claim 720000 "one renews, one dies" UPKEEP=0 DEATHS=1 RENEW=1
holds claim 650000 "a short-lived answer is there, one dies" PRESET=3 DEATHS=1
holds claim 770000 "the home slot is taken, reach is to be lowered" PRESET=1
refuted claim HELP
refuted claim VERSION PRESET=3
refuted claim COMPARE_HAZARD PRESET=2
refuted claim REREAD
refuted claim FENCE
refuted claim CLAIMED_IS_CLAIMED
refuted claim FREED_AFTER_SCAN PRESET=2
refuted claim FREED_FIRST PRESET=2
refuted claim OLD_TOKEN
refuted claim WORD_THEN_HEADER PRESET=1
refuted claim UNNAME PRESET=3
refuted claim LOWER_BY_CAS PRESET=5
refuted claim ONLY_FINAL
refuted claim DEATH_THEN_HEADER DEATHS=1
refuted claim JUDGE_DEATH DEATHS=1
refuted claim IN_PLACE PRESET=2

build free free
export CLAIMS=1 STEPS=1
holds free 300000 "two forget and free the same key, two claim it"
refuted free LOOK_AGAIN
refuted free LOOK_AFTER
refuted free WORD_THEN_HEADER
refuted free UNNAME
refuted free UNNAME_BY_CAS
refuted free FREE_BY_CAS

build region region
export DEATHS=1 SWEEPERS=1 ROLES0=3 ROLES1=0 LIVES=3 PASSES=4 PUT_OFF=0
holds region 1400000 "three lives of two generations, a worker that writes and compares dies, the next has its lane"
refuted region CHECK_1
refuted region CHECK_2
refuted region WRITE_HAZARD_FIRST
refuted region COMPARE_REREAD
refuted region NOTE_CLEARED
refuted region CHUNK_IDENTITY
refuted region PUT_OFF PUT_OFF=1
refuted region ONLY_OWN_HAZARD
refuted region JUDGE_AFTER_STATE
refuted region COUNT_AFTER_CHECK_1
refuted region EMPTIED_AFTER_LEFT
refuted region FILLED_BEFORE
refuted region SPAN_FIRST
refuted region COUNTS_BY_LIFE
export DEATHS=0 SWEEPERS=2 ROLES0=1 LIVES=1 PASSES=2 PUT_OFF=1
holds region 1180000 "two sweepers, another pass under way, no room to move"
refuted region WHOLE_PASS
refuted region NOTE_AFTER_CHECK_1
refuted region CURSOR_THEN_STATE
refuted region CURSOR_THEN_NOTE
refuted region PUT_OFF_UNNOTED
refuted region PUT_OFF_FIRST
export SWEEPERS=3 ROLES0=0 LIVES=2 PUT_OFF=0
holds region 196000 "two who open and drain it, without traffic"
refuted region OPENER_LOOKS

build share share
export DEATHS=0 VICTIMS=1 DRAINS=0 LIVES=1 ROLES0=1 ROLES1=2 ROLES2=0
holds share 590000 "two share, the lane's owner dies, the next goes on with the chunk" DEATHS=1 ROLES2=2
holds share 720000 "one shares, the region is drained from any phase, in two lives" DRAINS=1 LIVES=2
refuted share CHECK_3
refuted share SEAL_FIRST
refuted share HAZARD_FIRST
refuted share OPEN_ONLY
refuted share SPAN_BY_CAS ROLES2=2
refuted share SPAN_FIRST DEATHS=1
refuted share JUDGE_AFTER_SEAL DEATHS=1
refuted share CHECK_1 DRAINS=1
refuted share COUNT_BY_CAS DRAINS=1 ROLES2=2
refuted share TAKER_HAZARD DRAINS=1 LIVES=2
refuted share TAKER_LOOKS DRAINS=1 LIVES=2
refuted share LIFE_IN_SPAN DRAINS=1 LIVES=3 ROLES0=3 ROLES1=0

build liveness liveness
export REGISTRANTS=2 DEATHS=2 FORKS=1
holds liveness 250000 "two register in one slot, one forks, both die"
holds liveness 1100000 "three register in one slot, one dies" REGISTRANTS=3 DEATHS=1 FORKS=0
refuted liveness KNOWN_THEN_QUERY
refuted liveness LOCK_THEN_RAISE
refuted liveness REAP_BY_CAS
refuted liveness OWN_IS_ALIVE
refuted liveness REAP_THEN_LOCK
refuted liveness CHILD_CLOSES
refuted liveness CHILD_OPENS_FIRST
refuted liveness CHILD_IS_NOBODY
refuted liveness COMPARE_INCARNATION
refuted liveness ODD_AFTER_LOCK
refuted liveness LOWER_THEN_UNLOCK

build rescue rescue
export DEATHS=1 CHANGES=3
holds rescue 600000 "two complete one claim without room, it is moved, flagged, taken over, one dies"
refuted rescue ARBITER
refuted rescue JUDGE_DEATH
refuted rescue FILL_THEN_STATE
refuted rescue RECHECK
refuted rescue WORD_THEN_COPY
refuted rescue MOVE_RESCUE

build wal wal
export DEATHS=0 STEALS=0 FAILURES=0 SECOND_STATE=0 WALKS=0 RETAIN=0 PUSHED=0 ONE_OLD=0
holds wal 400000 "a leader that lives is succeeded, one dies" STEALS=1 DEATHS=1
holds wal 520000 "a claim is completed meanwhile, a sync fails, a leader dies" DEATHS=1 FAILURES=1 SECOND_STATE=1
holds wal 600000 "a ring is full, a sync fails, a leader dies" DEATHS=1 FAILURES=1 WALKS=1
holds wal 82000 "an old file is copied forward, a leader is succeeded" STEALS=1 RETAIN=1
holds wal 270000 "an old file is copied forward, a sync fails, a leader dies" DEATHS=1 FAILURES=1 RETAIN=1
holds wal 540000 "the old leader sleeps, its successor dies, a claim is completed" STEALS=1 DEATHS=1 SECOND_STATE=1 ONE_OLD=1
holds wal 590000 "the old leader sleeps, its successor dies, a ring is full" STEALS=1 DEATHS=1 WALKS=1 ONE_OLD=1
refuted wal SEAL_ASSIGNED STEALS=1
refuted wal SEAL_SYNCING STEALS=1 DEATHS=1 FAILURES=1 RETAIN=1 ONE_OLD=1
refuted wal SEAL_DURABLE STEALS=1
refuted wal SYNCING_FIRST DEATHS=1 FAILURES=1 WALKS=1
refuted wal NEW_AFTER_GAP STEALS=1 DEATHS=1
refuted wal NEW_AFTER_EPOCH STEALS=1
refuted wal BASE_IS_ASSIGNED STEALS=1
refuted wal NOTE_LAST STEALS=1
refuted wal RESOLVE DEATHS=1 FAILURES=1 SECOND_STATE=1
refuted wal WANTED_FIRST DEATHS=1 FAILURES=1 WALKS=1
refuted wal DIRECTORY_FIRST STEALS=1 DEATHS=1
refuted wal LATER_EPOCH STEALS=1
refuted wal FILE_FIRST DEATHS=1 FAILURES=1 WALKS=1
refuted wal DIRECTORY_SYNC STEALS=1

build wake wake
holds wake 5600000 "three push, sleep, are woken, lead"
refuted wake COUNT_FIRST
refuted wake BYTE_FIRST
refuted wake WAKE_NEXT
refuted wake PASS_ON
refuted wake COUNT_THEN_BYTE
refuted wake FLAG_THEN_COUNT
refuted wake COUNT_AGAIN

build recover recover
export CRASHES=2 DEATHS=1 FAILURES=1
holds recover 240000 "the machine dies twice, a recovery once; the old leader writes on, a sync fails"
refuted recover OWN_FIRST
refuted recover OURS_AFTER_SYNC
refuted recover TAIL_COPIED
refuted recover PREV_END_PROVEN
refuted recover SYNC_FIRST
refuted recover DIRECTORY_SYNC
refuted recover NAMES_FIRST
refuted recover FLOOR_ABOVE
refuted recover CEILING_FIRST

if ((long)); then
    COLLAPSE=1 memory_mib=6000 limit_s=3000
    export TICKS=1 DEATHS=0 UPKEEP=0 RENEW=0 MIXED=0 PRESET=0
    build claim-3 claim -DCLAIMANTS=3
    holds claim-3 28000000 "three claimants of one key"
    build claim-2 claim
    holds claim-2 14000000 "two steps of upkeep" UPKEEP=2
    export TICKS=2 DEATHS=2 UPKEEP=1 RENEW=1 PRESET=3
    holds claim-2 27000000 "a short-lived answer is there, two ticks, one renews, both die"
    build region-2 region
    export DEATHS=1 SWEEPERS=1 ROLES0=1 ROLES1=2 LIVES=3 PASSES=4 PUT_OFF=1
    holds region-2 8700000 "one writes and dies, one compares"
    holds region-2 4100000 "two write, one dies" ROLES1=1
    build free-2 free
    holds free-2 1200000 "two forget and free the same key, two claim it twice" CLAIMS=2 STEPS=1
    holds free-2 4800000 "two forget and free the same key twice, two claim it" CLAIMS=1 STEPS=2
    build share-2 share
    export VICTIMS=2 DRAINS=1 ROLES0=1 ROLES1=2
    holds share-2 1350000 "two share, the region is drained from any phase" DEATHS=0 LIVES=1 ROLES2=2
    holds share-2 7500000 "one shares, the region is drained, two lives, one of all dies" DEATHS=1 LIVES=2 ROLES2=0
    build liveness-3 liveness
    holds liveness-3 4300000 "three register in one slot, one forks, one dies" REGISTRANTS=3 DEATHS=1 FORKS=1
    build wal-2 wal
    export DEATHS=1 STEALS=1 FAILURES=0 SECOND_STATE=0 WALKS=0 RETAIN=0 PUSHED=0 ONE_OLD=1
    holds wal-2 2200000 "the old leader sleeps, its successor's sync fails and it dies" FAILURES=1 PUSHED=1
    holds wal-2 1400000 "the same, an old file is copied forward" FAILURES=1 RETAIN=1
    holds wal-2 1500000 "a leader is succeeded, a sync fails, one dies" ONE_OLD=0 FAILURES=1
fi

echo "1..$checks"
exit $((failures > 0))
