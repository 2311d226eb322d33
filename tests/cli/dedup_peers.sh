#!/usr/bin/env bash
# idem dedup, several filters on one store: each line once over all of them, whoever is killed, stopped, slow or waiting.
# timeout: 300 s
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"
idem create --keys 400000 --response 16 >/dev/null || exit 1

# launch INPUT OUTPUT ARGUMENTS...: a filter in the background, its stderr in OUTPUT.err; $! is its id.
launch() {
    local input=$1 output=$2
    shift 2
    "$IDEM" dedup --store "$store" "$@" <"$input" >"$output" 2>"$output.err" &
    started+=($!)
}
zeros() { head -c "$1" /dev/zero | tr '\0' "$2"; }
state_of() { idem why --json "$@" 2>/dev/null | grep -o '"state":"[a-z-]*"' | cut -d'"' -f4; }
is_state() { # WANTED ARGUMENTS...
    local wanted=$1
    shift
    [[ $(state_of "$@") == "$wanted" ]]
}
# all_ended PID...: within $PATIENCE; what hangs is a failure, not a hung test.
all_ended() {
    local pid
    for pid in "$@"; do eventually gone "$pid" || return 1; done
}
# each_once INPUT OUTPUT...: the outputs together are the input's lines, each once.
each_once() {
    local input=$1
    shift
    sort "$@" | cmp - <(sort -u "$input")
}
# in_order INPUT OUTPUT: the output's lines come in the input's order.
in_order() { awk 'NR == FNR { if (!($0 in place)) place[$0] = FNR; next } place[$0] <= last { exit 1 } { last = place[$0] }' "$1" "$2"; }

# ---------------------------------------------------------------- the same lines, several filters
seq -f 'line %.0f' 20000 >"$work/lines"
for i in 1 2; do launch "$work/lines" "$work/same$i" --scope same; done
check "two filters with the same input end" all_ended "${started[@]: -2}"
check "each line came out of one of them" each_once "$work/lines" "$work/same1" "$work/same2"
check_is "without a word" "$(cat "$work"/same[12].err)" ""

# The two lines of each pair come in opposite order, so that each filter meets lines that the other holds.
ROUNDS=10000
seq "$ROUNDS" | awk '{ print $1 "a"; print $1 "b" }' >"$work/forth"
seq "$ROUNDS" | awk '{ print $1 "b"; print $1 "a" }' >"$work/back"
launch "$work/forth" "$work/pairs1" --scope pairs --lease 10m
launch "$work/back" "$work/pairs2" --scope pairs --lease 10m
check "two filters with the same two lines in opposite order end, $ROUNDS times" all_ended "${started[@]: -2}"
check "each of these lines came once" each_once "$work/forth" "$work/pairs1" "$work/pairs2"
check "in the order of the first" in_order "$work/forth" "$work/pairs1"
check "and of the second" in_order "$work/back" "$work/pairs2"

# The same, one pair at a time: both filters get the pair at the same moment, in one batch. The lines between the two,
# known duplicates, take long enough that each filter has claimed its first when it asks for its second.
idem dedup --scope meet <<<between >/dev/null
between=$(yes between | head -n 60)
mkfifo "$work/forth.in" "$work/back.in" "$work/both"
exec 6<>"$work/forth.in" 7<>"$work/back.in" 8<>"$work/both"
"$IDEM" dedup --store "$store" --scope meet --lease 10m <"$work/forth.in" >"$work/both" 6>&- 7>&- 8>&- &
started+=($!)
"$IDEM" dedup --store "$store" --scope meet --lease 10m <"$work/back.in" >"$work/both" 6>&- 7>&- 8>&- &
started+=($!)
met=0
while ((met < ROUNDS)); do
    printf '%s\n' "$met+" "$between" "$met-" >&6
    printf '%s\n' "$met-" "$between" "$met+" >&7
    read -r -t "$PATIENCE" -u 8 one && read -r -t "$PATIENCE" -u 8 two || break
    [[ $one$two == "$met+$met-" || $one$two == "$met-$met+" ]] || break
    met=$((met + 1))
done
check_is "two filters that get the same two lines in opposite order at the same moment never wait for each other" \
    "$met ${one:-} ${two:-}" "$ROUNDS $one $two"
exec 6>&- 7>&-
check "and end with their input" all_ended "${started[@]: -2}"
exec 8>&-

for i in 1 2 3 4; do shuf "$work/lines" >"$work/shuffled$i"; done
for i in 1 2 3 4; do launch "$work/shuffled$i" "$work/out$i" --scope shuffled; done
check "four filters in four orders end" all_ended "${started[@]: -4}"
check "each line came once out of the four" each_once "$work/lines" "$work"/out[1-4]
for i in 1 2 3 4; do check "filter $i kept its order" in_order "$work/shuffled$i" "$work/out$i"; done
for pid in "${started[@]}"; do wait "$pid" || report "filter $pid ended well" 1 "status $?"; done

# ---------------------------------------------------------------- killed filters
# Lines of 64 bytes: a killed write() ends at a page boundary, so these are never torn, and can be counted.
KILLS=25
seq -f '%063.0f' 30000 >"$work/wide"
: >"$work/killed"
for ((i = 0; i < KILLS; i++)); do
    "$IDEM" dedup --store "$store" --scope killed <"$work/wide" >>"$work/killed" 2>>"$work/killed.err" &
    started+=($!)
    until [[ $(wc -l <"$work/killed") -gt $((i * 500)) ]] || gone "${started[-1]}"; do :; done
    kill -KILL "${started[-1]}" 2>/dev/null
    wait "${started[-1]}" 2>/dev/null
done
before=$(wc -l <"$work/killed")
idem dedup --scope killed <"$work/wide" >>"$work/killed" 2>>"$work/killed.err"
check_is "the filter after $KILLS killed ones ends well" $? 0
check "some lines were written by filters that were killed" test "$before" -gt 0
sort -u "$work/killed" >"$work/killed.once"
check "no line is swallowed" cmp "$work/wide" "$work/killed.once"
twice=$(($(wc -l <"$work/killed") - $(wc -l <"$work/killed.once")))
check "at most a batch a kill comes twice ($twice did)" test "$twice" -le $((64 * KILLS))

# ---------------------------------------------------------------- a filter that is stuck in write()
# blocked NAME ARGUMENTS...: a filter with the lines "k1 ..." and "k2 ..." whose reader does not read yet: k1 is more than
# a pipe holds, both together less than the filter reads at once. It holds both keys; its id is $blocked. `unblock NAME`
# lets the reader read into $work/NAME.out and waits for it.
printf 'k1 %s\nk2 %s\n' "$(zeros 80000 x)" "$(zeros 40000 x)" >"$work/big"
blocked() {
    local name=$1
    shift
    mkfifo "$work/$name.pipe"
    start bash -c 'exec <"$1"; until [[ -e $1.go || ! -e $1 ]]; do sleep 0.05; done; exec cat' - "$work/$name.pipe" >"$work/$name.out"
    reader=${started[-1]}
    "$IDEM" dedup --store "$store" --scope "$name" --column 1 "$@" <"$work/big" >"$work/$name.pipe" 2>"$work/$name.err" &
    blocked=$!
    started+=("$blocked")
    eventually is_state in-progress --scope "$name" --key k2 || report "the filter $name holds k2" 1 "$(idem ls --scope "$name" 2>&1)"
}
unblock() {
    touch "$work/$1.pipe.go"
    eventually gone "$reader"
}

blocked dead --lease 10m
printf '%s\n' $'k1 taken\nk2 over' >"$work/dead2.in"
launch "$work/dead2.in" "$work/dead2" --scope dead --column 1
sleep 1
check "a key in progress in another filter is waited for" test ! -s "$work/dead2"
check "while waiting a filter writes nothing" is_state in-progress --scope dead --key k1
kill -KILL "$blocked"
check "when that filter is killed, the waiting one goes on at once" eventually gone "${started[-1]}"
check_is "and writes the lines" "$(cat "$work/dead2")" $'k1 taken\nk2 over'
check_has "and says that they may have come twice" "$work/dead2.err" "2 lines may have come twice"
unblock dead

blocked behind --lease 10m
printf '%s\n' $'k3 before\nk1 waits\nk4 behind' >"$work/behind2.in"
launch "$work/behind2.in" "$work/behind2" --scope behind --column 1
waiter=${started[-1]}
check "the lines before a waiting one are written" eventually grep -qx 'k3 before' "$work/behind2"
check "and completed" eventually is_state completed --scope behind --key k3
check "the claims behind it are given back" eventually is_state abandoned --scope behind --key k4
check_is "so that another filter may have them" "$(echo 'k4 other' | idem dedup --scope behind --column 1)" "k4 other"
unblock behind
check "the waiting filter ends when the other has written" eventually gone "$waiter"
check_is "and drops what was written meanwhile" "$(cat "$work/behind2")" "k3 before"
check "the slow reader got its lines whole" cmp "$work/big" "$work/behind.out"

blocked slow --lease 500ms
printf '%s\n' $'k1 x\nk2 x' >"$work/slow2.in"
launch "$work/slow2.in" "$work/slow2" --scope slow --column 1
sleep 2
check "the lease of a line that is stuck in write() is renewed" is_state in-progress --scope slow --key k1
check "that of the lines behind it too" is_state in-progress --scope slow --key k2
unblock slow
check "both filters end" all_ended "$blocked" "${started[-2]}" "${started[-1]}"
check_is "no line came twice" "$(cat "$work/slow2" "$work/slow.err" "$work/slow2.err")" ""
check "the slow reader got all" cmp "$work/big" "$work/slow.out"

blocked stopped --lease 500ms
kill -STOP "$blocked"
check_is "a stopped filter's lines are taken over when its lease ends" \
    "$(idem dedup --scope stopped --column 1 <<<$'k1 x\nk2 x' 2>/dev/null)" $'k1 x\nk2 x'
kill -CONT "$blocked"
unblock stopped
check "it goes on when it is continued" eventually gone "$blocked"
check_has "and says which part may come twice" "$work/stopped.err" "1 line may come twice"
check_is "the line that it had not begun to write is not written twice" "$(cut -c1-2 "$work/stopped.out")" k1

blocked released --lease 10m
idem release --scope released --key k2
check_is "a claim that an operator released is free for others" "$(idem dedup --scope released --column 1 <<<'k2 x' 2>/dev/null)" "k2 x"
sleep 1
unblock released
check "the filter that lost it ends" eventually gone "$blocked"
check "it wrote what it had begun, and asked again for the rest" test "$(cut -c1-2 "$work/released.out" | head -n 1)" = k1

blocked asked --lease 10m
kill -TERM "$blocked"
wait "$blocked"
check_is "SIGTERM ends a filter that is stuck in write()" $? 143
check_is "what it had not begun is given back" "$(state_of --scope asked --key k2)" abandoned
check_is "what it had begun counts as lost" "$(state_of --scope asked --key k1)" lost
unblock asked

# A filter behind a filter, on the same store and scope: useless, but it must not hang: lines are completed as they leave.
seq 200 | awk -v big="$(zeros 5000 x)" '{ print $1, big }' >"$work/chain"
start bash -c '"$IDEM" dedup --store "$store" --scope chain --column 1 <"$work/chain" | "$IDEM" dedup --store "$store" --scope chain --column 1 >"$work/chained"'
check "two filters in a row on one store end" eventually gone "${started[-1]}"
check_is "and the second has seen all lines before" "$(cat "$work/chained")" ""

# A filter that waits can be ended.
idem claim --scope wait --key k --lease 10m >/dev/null
echo k >"$work/wait.in"
launch "$work/wait.in" "$work/wait" --scope wait
check "a filter that waits long says so" eventually grep -q "line 1 waits" "$work/wait.err"
kill -TERM "${started[-1]}"
check "SIGTERM ends a filter that waits" eventually gone "${started[-1]}"
finish
