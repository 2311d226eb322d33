#!/usr/bin/env bash
# idem run: once for a key, the same answer for everybody, later answers replayed.
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"

idem create --keys 100 --response 64K --json >"$work/created"
limit=$(sed 's/.*"response_max_bytes":\([0-9]*\).*/\1/' "$work/created")

# ---------------------------------------------------------------- once, and replayed
cat >"$work/effect" <<'END'
#!/bin/sh
echo ran >>"$work/effects"
sleep "${1:-0}"
echo "out of $$"
echo "err of $$" >&2
exit "${2:-0}"
END
chmod +x "$work/effect"

for i in {1..20}; do
    start idem run --key twenty --wait 10m -- "$work/effect" 0.5 >"$work/out.$i" 2>"$work/err.$i"
done
statuses=
for pid in "${started[@]}"; do
    await "$pid"
    statuses+=$?
done
started=()
check_is "20 concurrent runs of one key execute its command once" "$(lines_in "$work/effects")" 1
check_is "all 20 end with the command's exit status" "$statuses" 00000000000000000000
check_is "all 20 print the same stdout" "$(cat "$work"/out.* | sort | uniq -c | sed 's/ of .*//;s/ *//')" "20 out"
check_is "all 20 print the same stderr" "$(cat "$work"/err.* | sort | uniq -c | sed 's/ of .*//;s/ *//')" "20 err"

rm "$work/effects"
idem run --key again -- "$work/effect" >"$work/first" 2>"$work/first.err"
idem run --key again -- "$work/effect" >"$work/second" 2>"$work/second.err"
check_is "a later caller does not run the command" "$(lines_in "$work/effects")" 1
check "a later caller gets stdout replayed" cmp "$work/first" "$work/second"
check "a later caller gets stderr replayed, and not a byte more" cmp "$work/first.err" "$work/second.err"
idem run --key again --scope tenant -- "$work/effect" >"$work/third" 2>&1
check_is "the same key in another scope is another key" "$(lines_in "$work/effects")" 2

head -c 100000 /dev/urandom >"$work/bytes"
idem run --key bytes -- cat "$work/bytes" >"$work/first"
idem run --key bytes -- false >"$work/second"
check "arbitrary bytes come through to the first caller" cmp "$work/bytes" "$work/first"
check "arbitrary bytes are replayed" cmp "$work/bytes" "$work/second"
check_is "a command without output is replayed" "$(status_of idem run --key quiet true; status_of idem run --key quiet false)" \
    $'0\n0'
check_is "stdin goes to the command" "$(echo hello | idem run --key stdin -- cat)" hello
check_is "options after the command are the command's" "$(idem run --key options echo --json -n)" "--json -n"

# Output is passed on while the command runs, not at its end.
start idem run --key live -- sh -c 'echo first; while [ ! -e "$work/go" ]; do sleep 0.05; done; echo second' >"$work/live"
check "output comes while the command still runs" eventually grep -q first "$work/live"
touch "$work/go"
await
check_is "and the rest of it comes too" "$(tr '\n' ' ' <"$work/live")" "first second "

# ---------------------------------------------------------------- failures
rm -f "$work/effects"
check_is "a failure ends with the command's exit status" "$(status_of idem run --key fails -- "$work/effect" 0 7)" 7
check_is "a failure is transient: the next caller runs the command again" \
    "$(status_of idem run --key fails -- "$work/effect" 0 0) $(lines_in "$work/effects")" "0 2"
check_is "--keep-failures stores the exit status" \
    "$(status_of idem run --keep-failures --key kept -- "$work/effect" 0 7) $(lines_in "$work/effects")" "7 3"
check_is "a kept failure is replayed" \
    "$(status_of idem run --key kept -- "$work/effect" 0 0) $(lines_in "$work/effects")" "7 3"
check_has "a kept failure's stderr is replayed too" "$work/err" "err of"

rm -f "$work/effects" "$work/go"
start idem run --key waiting -- sh -c 'echo ran >>"$work/effects"; while [ ! -e "$work/go" ]; do sleep 0.05; done; echo no; exit 9' \
    >"$work/wait.1" 2>&1
first=$!
eventually test -e "$work/effects"
start idem run --key waiting --wait 10m -- sh -c 'echo ran >>"$work/effects"; exit 0' >"$work/wait.2" 2>&1
second=$!
eventually has_waiter waiting
touch "$work/go"
await "$first"
status=$?
await "$second"
check_is "who waits for an attempt that fails gets that failure" "$status $? $(lines_in "$work/effects")" "9 9 1"
check_is "with its output" "$(cat "$work/wait.2")" no

# ---------------------------------------------------------------- who said what
run_told() { status_of idem run --status-fd 9 "$@" 9>"$work/told"; }
check_is "a run's exit status is the command's" "$(run_told --key told -- sh -c 'exit 124')" 124
check_has "and --status-fd says that it is the command's" "$work/told" "source=ran outcome=transient exit=124"
run_told --key told -- true >/dev/null
check_has "--status-fd tells a completed run" "$work/told" "source=ran outcome=completed exit=0 token="
run_told --key told -- true >/dev/null
check_has "--status-fd tells a replay" "$work/told" "source=replayed outcome=completed exit=0 token="
check_is "a command that is not there ends with 127" "$(run_told --key nowhere -- "$work/nowhere")" 127
check_has "--status-fd tells that it did not start" "$work/told" "source=idem outcome=not-started exit=127"
check_is "a command that can't be executed ends with 126" "$(status_of idem run --key nowhere -- "$work/bytes")" 126
check_is "a command that did not start can be run later" "$(status_of idem run --key nowhere -- true)" 0
check_is "a status descriptor that is not open is a usage error" \
    "$(status_of idem run --status-fd 8 --key closed -- touch "$work/ran")" 125
check "and nothing was run" test ! -e "$work/ran"
# (sh opens a descriptor of its own to read the script from, so look at a number that only we would pass on.)
check_is "the command does not inherit the status descriptor" \
    "$(idem run --status-fd 9 --key inherit -- sh -c 'if [ -e /proc/self/fd/9 ]; then echo yes; else echo no; fi' 9>/dev/null)" no

rm -f "$work/effects" "$work/go"
start idem run --key busy -- sh -c 'touch "$work/busy"; while [ ! -e "$work/go" ]; do sleep 0.05; done'
eventually test -e "$work/busy"
began=$SECONDS
check_is "--no-wait says that another attempt runs" "$(run_told --no-wait --key busy -- "$work/effect")" 121
check "long before the 30 s of a usual wait" test $((SECONDS - began)) -lt 25
check_has "and on stderr, too" "$work/err" "another attempt"
check_has "--status-fd tells it" "$work/told" "source=idem outcome=in-progress exit=121"
began=$(date +%s%N)
check_is "--wait ends when its time is over" "$(status_of idem run --wait 1s --key busy -- "$work/effect")" 121
waited_ms=$((($(date +%s%N) - began) / 1000000))
check "but not earlier" test "$waited_ms" -ge 1000
touch "$work/go"
await
check_is "none of those ran the command" "$(lines_in "$work/effects")" 0

# ---------------------------------------------------------------- fingerprints
check_is "a fingerprint is taken" "$(status_of idem run --fingerprint 'amount=5' --key print -- echo five)" 0
check_is "the same fingerprint gets the answer" "$(idem run --fingerprint 'amount=5' --key print -- echo no)" five
check_is "another fingerprint is refused" "$(run_told --fingerprint 'amount=6' --key print -- touch "$work/ran")" 120
check_has "--status-fd tells a mismatch" "$work/told" "source=idem outcome=mismatch exit=120"
check "and the command is not run" test ! -e "$work/ran"
check_is "--fingerprint auto is taken" "$(status_of idem run --fingerprint auto --key auto -- echo a b)" 0
check_is "auto: the same command gets the answer" "$(idem run --fingerprint auto --key auto -- echo a b)" "a b"
check_is "auto: other arguments are refused" "$(status_of idem run --fingerprint auto --key auto -- echo "a b")" 120
check_is "auto: another working directory is refused" "$(cd / && status_of idem run --fingerprint auto --key auto -- echo a b)" 120

# ---------------------------------------------------------------- output that does not fit, and readers that go away
big=$((limit + 1000))
check_is "output past the limit streams to the first caller" "$(idem run --key big -- head -c $big /dev/zero 2>"$work/err" | wc -c)" $big
check_has "who is told that it is not retained" "$work/err" "not retained"
check_is "later callers get the exit status" "$(run_told --key big -- false)" 0
check_has "and a line on stderr" "$work/err" "not retained"
check_is "and no output" "$(wc -c <"$work/out")" 0
check_has "its length is known all the same, its digest is not" <(idem get --key big --json) "\"body_bytes\":$big,\"digest\":null"
check_has "--status-fd tells a tombstone" "$work/told" "source=replayed outcome=tombstone exit=0"
fits=$((limit - 1000))
idem run --key fits -- head -c $fits /dev/zero >/dev/null
check_is "output just under the limit is replayed whole" "$(idem run --key fits -- false | wc -c)" $fits
check_is "a failure with too much output keeps its exit status" "$(status_of idem run --key bigfail -- sh -c "head -c $big /dev/zero; exit 3")" 3
check_is "and is transient like any other" "$(status_of idem run --key bigfail -- true)" 0

idem run --key pipe -- sh -c 'head -c 200000 /dev/zero; echo end; echo ran >>"$work/effects"' 2>"$work/err" | head -c 1 >/dev/null
check_is "the command ends though its first reader went away" "$(lines_in "$work/effects")" 1
check_is "and its whole output is replayed" "$(idem run --key pipe -- false | wc -c)" 200004
check_is "a full disk is an error of idem's own" "$(idem run --key disk -- echo kept 2>/dev/null >/dev/full; echo $?)" 124
check_is "but the answer is recorded" "$(idem run --key disk -- false)" kept
check_is "so is a closed stdout" "$(idem run --key closed -- echo kept 2>/dev/null >&-; echo $?) $(idem run --key closed -- false)" "124 kept"
check_is "a replay to a full disk is an error too" "$(idem run --key disk -- false 2>/dev/null >/dev/full; echo $?)" 124

# The answer is recorded when the command ends, even if nobody has read it yet.
mkfifo "$work/fifo"
exec 7<>"$work/fifo"
start idem run --key slow -- sh -c 'touch "$work/slow.ran"; head -c 100000 /dev/zero' >"$work/fifo"
eventually test -e "$work/slow.ran"
recorded() { idem run --no-wait --key slow -- false >/dev/null 2>&1; }
check "a slow reader does not delay the record" eventually recorded
timeout "$PATIENCE" head -c 100000 <&7 >"$work/slow"
await
exec 7<&-
check_is "and the slow reader gets everything" "$(wc -c <"$work/slow")" 100000

# What the command leaves running does not hold the answer for ever.
check_is "a process left in the background does not hold the answer" \
    "$(timeout "$PATIENCE" "$IDEM" run --store "$store" --key left -- sh -c 'sleep 600 & echo $! >"$work/left"; echo "done"'; echo $?)" \
    $'done\n0'
kill "$(cat "$work/left")"

# ---------------------------------------------------------------- a full store
# Answers as large as possible fill the smallest store soon. What was stored stays, what doesn't fit is refused before it runs.
"$IDEM" create --store "$work/small" --size 4M >/dev/null
for ((i = 1; i <= 1000; i++)); do
    "$IDEM" run --store "$work/small" --key "full$i" -- sh -c "echo >'$work/full.ran'; head -c 60000 /dev/zero" \
        >/dev/null 2>"$work/err" || break
    rm -f "$work/full.ran"
done
check_has "a full store refuses a new key" "$work/err" "full"
check "and its command is not run" test ! -e "$work/full.ran" -a "$i" -le 1000
check_is "with an exit status of idem's own" \
    "$(status_of "$IDEM" run --store "$work/small" --key more -- touch "$work/full.ran")" 124
check_is "what was stored before is still there" "$("$IDEM" run --store "$work/small" --key full1 -- false | wc -c)" 60000

# ---------------------------------------------------------------- users
# The store of a group serves all of its users, and nobody else.
if [[ $EUID -eq 0 ]]; then
    chmod 711 "$work"
    cp "$IDEM" "$work/idem"
    as() { setpriv --reuid="$1" --regid="$2" --clear-groups "$work/idem" run --store "$work/shared" --key k -- echo "by $1"; }
    "$IDEM" create --store "$work/shared" --group 65534 --keys 100 >/dev/null
    check_is "a user of the group runs it" "$(as 12345 65534)" "by 12345"
    check_is "another user of the group gets the answer" "$(as 54321 65534)" "by 12345"
    check_is "so does the store's owner" "$("$IDEM" run --store "$work/shared" --key k -- echo root)" "by 12345"
    check_is "a user outside of it is refused" "$(status_of as 12345 12345)" 124
else
    echo "skipped - a store of a group serves its users: needs root"
fi
finish
