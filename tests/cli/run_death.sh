#!/usr/bin/env bash
# idem run when somebody dies: the command, idem itself, or the lease.
# timeout: 300 s
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"

# stay NAME: a command that says that it started, and waits until told to go on.
cat >"$work/stay" <<'END'
#!/bin/sh
echo $$ >"$work/$1.pid.new"
echo "$IDEM_TOKEN" >"$work/$1.token"
mv "$work/$1.pid.new" "$work/$1.pid"
while [ ! -e "$work/$1.go" ] && [ -e "$work" ]; do sleep 0.05; done
echo "$1 ended"
END
chmod +x "$work/stay"
environment='echo "$IDEM_VERDICT $IDEM_ATTEMPT $IDEM_MARK"'

# ---------------------------------------------------------------- the command is killed
idem run --key killed --status-fd 9 -- sh -c 'kill -KILL $$' >/dev/null 2>"$work/err" 9>"$work/told"
check_is "a command killed by signal 9 ends with 137" $? 137
check_has "--status-fd tells that it was killed" "$work/told" "source=ran outcome=killed exit=137"
said=$(idem run --key killed -- sh -c "$environment" 2>"$work/err")
check_is "the next caller's command is told in its environment" "$said" "reclaimed 2 "
check_has "and the next caller on stderr" "$work/err" "was lost"
check_is "then the key is done" "$(idem run --key killed -- echo no 2>&1)" "$said"
check_is "a first attempt's environment says so" "$(idem run --key first -- sh -c "$environment")" "claimed 1 "
check_is "a failed attempt's successor is not called reclaimed" \
    "$(status_of idem run --key failed -- false; idem run --key failed -- sh -c "$environment")" $'1\nclaimed 2 '

idem run --key marked -- sh -c '"$IDEM" mark --store "$store" --key marked --token "$IDEM_TOKEN" "charged ch_1"; kill -KILL $$' 2>/dev/null
check_is "a mark reaches the next attempt" "$(idem run --key marked -- sh -c "$environment" 2>"$work/err")" "reclaimed 2 charged ch_1"
check_has "and stderr" "$work/err" 'charged\x20ch_1'
idem run --key zero -- sh -c 'printf "a\0b" | "$IDEM" mark --store "$store" --key zero --token "$IDEM_TOKEN"; kill -KILL $$' 2>/dev/null
check_is "a mark with a NUL byte comes quoted, and says so" \
    "$(idem run --key zero -- sh -c 'echo "$IDEM_MARK_IS_QUOTED $IDEM_MARK"' 2>/dev/null)" '1 a\x00b'
idem run --key tokens -- sh -c 'echo "$IDEM_TOKEN" >"$work/t1"; kill -KILL $$' 2>/dev/null
idem run --key tokens -- sh -c 'echo "$IDEM_TOKEN" >"$work/t2"' 2>/dev/null
check "tokens grow with each attempt" test "$(cat "$work/t2")" -gt "$(cat "$work/t1")"

# Who waits when the command is killed takes over and is told.
start idem run --key waited -- "$work/stay" waited >/dev/null 2>&1
eventually test -e "$work/waited.pid"
start idem run --key waited --wait 10m -- sh -c "$environment" >"$work/waiter" 2>"$work/waiter.err"
eventually has_waiter waited
kill -KILL "$(cat "$work/waited.pid")"
await
check_is "who waits for a command that is killed takes over" "$(cat "$work/waiter")" "reclaimed 2 "
await "${started[-2]}"

# ---------------------------------------------------------------- --hold
idem run --hold --key held -- sh -c 'kill -KILL $$' 2>/dev/null
idem run --hold --key held --status-fd 9 -- touch "$work/ran" 2>"$work/err" 9>"$work/told"
check_is "with --hold nobody runs the command again" "$?" 122
check_has "the caller is told how to settle it" "$work/err" "idem resolve"
check_has "--status-fd tells that it is held" "$work/told" "source=idem outcome=held exit=122 token="
check_is "nor without --hold, as the lost attempt asked for it" "$(status_of idem run --key held -- touch "$work/ran")" 122
check "really not" test ! -e "$work/ran"

# ---------------------------------------------------------------- idem itself is killed
start idem run --lease 10m --key orphan -- "$work/stay" orphan >/dev/null 2>&1
eventually test -e "$work/orphan.pid"
kill -KILL "${started[-1]}"
await 2>/dev/null
check_is "idem killed, its command running: the key is not taken over" "$(status_of idem run --no-wait --key orphan -- touch "$work/ran")" 121
check_not "the command runs on" gone "$(cat "$work/orphan.pid")"
touch "$work/orphan.go"
eventually gone "$(cat "$work/orphan.pid")"
check "after it ended the key is taken over" eventually idem run --no-wait --key orphan -- sh -c "$environment >$work/orphan.said" 2>"$work/err"
check_is "and the next command is told" "$(cat "$work/orphan.said")" "reclaimed 2 "
check "without waiting for the lease" test "$SECONDS" -lt 300

# What the command started holds the key too.
start idem run --lease 10m --key grandchild -- sh -c '"$work/stay" grandchild & wait' >/dev/null 2>&1
eventually test -e "$work/grandchild.pid"
kill -KILL "${started[-1]}"
await 2>/dev/null
kill -KILL "$(cut -d' ' -f4 "/proc/$(cat "$work/grandchild.pid")/stat")"
check_is "idem and its command killed, a grandchild running: not taken over" "$(status_of idem run --no-wait --key grandchild -- touch "$work/ran")" 121
touch "$work/grandchild.go"
check "after the grandchild ended it is" eventually idem run --no-wait --key grandchild -- true 2>/dev/null

# Nobody renews the lease of a command whose idem is gone.
start idem run --lease 1s --key lapsed -- "$work/stay" lapsed >/dev/null 2>&1
eventually test -e "$work/lapsed.pid"
kill -KILL "${started[-1]}"
await 2>/dev/null
check "idem killed, its command running, the lease over: taken over" eventually idem run --no-wait --key lapsed -- true 2>/dev/null
check_not "while the first command still runs" gone "$(cat "$work/lapsed.pid")"
touch "$work/lapsed.go"

start idem run --kill-orphan --lease 10m --key tied -- "$work/stay" tied >/dev/null 2>&1
eventually test -e "$work/tied.pid"
kill -KILL "${started[-1]}"
await 2>/dev/null
check "--kill-orphan ends the command with idem" eventually gone "$(cat "$work/tied.pid")"
check "and the key is taken over" eventually idem run --no-wait --key tied -- true 2>/dev/null

# ---------------------------------------------------------------- signals
start idem run --key signal --status-fd 9 -- sh -c 'trap "echo trapped; exit 6" TERM; touch "$work/signal.pid"; while [ -e "$work" ]; do sleep 0.05; done' \
    >"$work/out" 2>"$work/err" 9>"$work/told"
eventually test -e "$work/signal.pid"
kill -TERM "${started[-1]}"
await
check_is "SIGTERM is passed on, and the command's own exit status comes back" $? 6
check_is "with what it printed" "$(cat "$work/out")" trapped
for signal in INT HUP; do
    start env --default-signal="$signal" "$IDEM" run --store "$store" --key "sig$signal" -- "$work/stay" "sig$signal" >/dev/null 2>&1
    eventually test -e "$work/sig$signal.pid"
    kill -"$signal" "${started[-1]}"
    await
    check_is "SIG$signal is passed on, and its command dies of it" $? $((128 + $(kill -l "$signal")))
done
# The terminal sends SIGINT to the whole foreground group, so idem must not pass it on a second time.
mkfifo "$work/never"
cat >"$work/count" <<'END'
#!/usr/bin/env bash
trap 'echo int >>"$work/ints"' INT
exec 8<>"$work/never"
touch "$work/count.pid"
# A trap runs at once while read waits; a signal that comes while another command runs could merge with the next one.
while [ ! -e "$work/count.go" ] && [ -e "$work" ]; do read -r -t 0.2 -u 8; done
END
chmod +x "$work/count"
if command -v script >/dev/null; then
    {
        eventually test -e "$work/count.pid"
        printf '\003'
        eventually test -e "$work/ints"
        sleep 1
        touch "$work/count.go"
        sleep 1
    } | timeout $((3 * PATIENCE)) script -qec "'$IDEM' run --store '$store' --key terminal -- '$work/count'" /dev/null >/dev/null
    check_is "a SIGINT from the terminal reaches the command once" "$(lines_in "$work/ints")" 1
else
    echo "skipped - a SIGINT from the terminal reaches the command once: script(1) is not installed"
fi
start idem run --key ignored -- sh -c 'trap "" TERM; touch "$work/ignored.pid"; while [ ! -e "$work/ignored.go" ] && [ -e "$work" ]; do sleep 0.05; done; echo whole' \
    >"$work/out" 2>"$work/err"
eventually test -e "$work/ignored.pid"
kill -TERM "${started[-1]}"
touch "$work/ignored.go"
await
check_is "a signal that the command ignores does not end idem" "$? $(cat "$work/out") $(idem run --key ignored -- false)" "0 whole whole"

# ---------------------------------------------------------------- the lease
start idem run --lease 3s --key renewed -- "$work/stay" renewed >/dev/null 2>&1
eventually test -e "$work/renewed.pid"
sleep 6.5
check_is "the lease is renewed while the command runs" "$(status_of idem run --no-wait --key renewed -- touch "$work/ran")" 121
touch "$work/renewed.go"
await
check_is "and the answer is recorded" "$(idem run --key renewed -- false)" "renewed ended"

# Fenced: here by an abandon from outside, as after a takeover or a release.
start idem run --lease 300ms --key fenced --status-fd 9 -- "$work/stay" fenced >"$work/out" 2>"$work/err" 9>"$work/told"
eventually test -e "$work/fenced.pid"
idem abandon --key fenced --token "$(cat "$work/fenced.token")"
check "an attempt that lost its key says so while its command runs" eventually grep -q "fenced.* goes on" "$work/err"
check_is "another attempt may begin" "$(idem run --no-wait --key fenced -- echo second)" second
touch "$work/fenced.go"
await
check_is "the fenced command ends with its own exit status" "$? $(cat "$work/out")" "0 fenced ended"
check_has "--status-fd tells that it was fenced" "$work/told" "source=ran outcome=fenced exit=0"
check_is "and the record is the other's" "$(idem run --key fenced -- false)" second
# The store is destroyed under a running command.
start idem run --key homeless --status-fd 9 -- "$work/stay" homeless >"$work/out" 2>"$work/err" 9>"$work/told"
eventually test -e "$work/homeless.pid"
idem destroy
touch "$work/homeless.go"
await
check_is "a command whose store is destroyed ends with its own exit status" "$? $(cat "$work/out")" "0 homeless ended"
check_has "stderr says that nothing was recorded" "$work/err" "nothing was recorded"
check_has "--status-fd says so, too" "$work/told" "source=ran outcome=fenced exit=0"
check_is "and the key may run again" "$(idem run --key homeless -- echo again)" again
check "nothing that had to wait was run" test ! -e "$work/ran"
finish
