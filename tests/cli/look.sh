#!/usr/bin/env bash
# ls, get, why: what is there, what was the answer, and whose turn it is. They claim nothing and change nothing.
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"

# claim ARGUMENTS...: sets $token.
claim() { token=$(idem claim "$@" | sed -n "s/^IDEM_TOKEN='\(.*\)'$/\1/p"); }
# field NAME: the value of a field of the one JSON object on stdin.
field() { grep -o "\"$1\":\(\"[^\"]*\"\|[^,}]*\)" | head -n 1 | sed 's/^[^:]*://; s/^"//; s/"$//'; }
told() { idem why "$@" >"$work/why" 2>"$work/err"; } # for check_has

idem create --keys 1000 >/dev/null
check_is "ls of an empty store lists nothing, and says so" "$(idem ls 2>&1)" "idem: no such keys in $store"

odd=$'a b\n\x01\xff\\'
idem run --key "done" --scope shop -- sh -c 'printf "out\n"; printf "err\n" >&2' >/dev/null 2>&1
claim --key running --lease 10m
claim --key "$odd" --scope $'t\t1' --lease 10m
claim --key back && idem abandon --key back --token "$token"
claim --key lost --hold && idem mark --key lost --token "$token" 'sent ch_1' && idem release --key lost --token "$token"
claim --key lost2 && idem release --key lost2

# ---------------------------------------------------------------- ls
idem ls >"$work/ls"
check_is "ls has a head line and one line a key" "$(wc -l <"$work/ls")" 7
check_is "ls tells the states" "$(awk 'NR > 1 { print $1 }' "$work/ls" | sort | tr '\n' ' ')" \
    "abandoned completed in-progress in-progress lost lost "
check_is "odd keys are one printable word" "$(awk '/a.x20b/ { print $(NF - 1), $NF }' "$work/ls")" 't\t1 a\x20b\n\x01\xff\\'
check_is "which is read back" "$(idem why --json --quoted --scope 't\t1' --key 'a\x20b\n\x01\xff\\' | field state)" in-progress
check_is "ls --state takes each state" "$(for s in in-progress completed abandoned lost held; do idem ls --json --state $s | wc -l; done | tr '\n' ' ')" \
    "2 1 1 2 1 "
check_is "ls --state held lists those that nobody may redo" "$(idem ls --state held --json | field key)" lost
check_is "ls --prefix" "$(idem ls --json --prefix lost | grep -o '"key":"[a-z0-9]*"' | sort | tr '\n' ' ')" '"key":"lost" "key":"lost2" '
check_is "ls --prefix in quoted form" "$(idem ls --json --quoted --prefix 'a\x20b\n\x01\xff' | wc -l)" 1
check_is "ls --scope" "$(idem ls --json --scope shop | field key) $(idem ls --json --scope '' | wc -l)" "done 4"
check_is "ls --older leaves out the young" "$(idem ls --json --older 1h | wc -l)" 0
older() { [[ $(idem ls --json --older 1s | wc -l) == 6 ]]; }
check "and lists them when they are old enough" eventually older
check_is "ls --json: bytes that are no text come in quoted form" \
    "$(idem ls --json --scope $'t\t1' | field key) $(idem ls --json --scope $'t\t1' | field key_quoted)" 'null a\\x20b\\n\\x01\\xff\\\\'
check_is "ls --json: a token is a string" "$(idem ls --json --prefix running | grep -c '"token":"[0-9]*"')" 1
check "ls --json: a lease is a number of milliseconds" test "$(idem ls --json --prefix running | field lease_left_ms)" -gt 500000
check_is "a state that is none is a usage error" "$(status_of idem ls --state gone)" 125
check_is "a prefix that is not in quoted form is one" "$(status_of idem ls --quoted --prefix 'a b')" 125
check_is "a store that is not there is trouble" "$(status_of "$IDEM" ls --store "$work/none")" 124
claim --key forever --ttl forever && idem complete --key forever --token "$token" --status 7 </dev/null
check_is "forever is null" "$(idem ls --json --prefix forever | field expires_in_ms)" null

# ---------------------------------------------------------------- get
check_is "get prints the body: of idem run its stdout" "$(idem get --key 'done' --scope shop)" out
check_is "get --stderr prints what the command wrote there" "$(idem get --key 'done' --scope shop --stderr)" err
check_is "get --status prints the status" "$(idem get --key forever --status)" 7
check_is "an empty body is empty" "$(idem get --key forever | wc -c)" 0
printf 'a\0b\n\n' >"$work/body"
claim --key bytes && idem complete --key bytes --token "$token" <"$work/body"
idem get --key bytes >"$work/got"
check "get prints the body byte for byte" cmp "$work/body" "$work/got"
check_is "an answer that is not idem run's has no stderr" "$(status_of idem get --key bytes --stderr)" 1
check_is "get --json has it all" \
    "$(idem get --scope shop --key 'done' --json | field stdout) $(idem get --key forever --json | field status) $(idem get --key bytes --json | field body_bytes)" 'out\n 7 5'
check_is "get --meta prints the metadata" "$(idem get --key bytes --meta | wc -c)" 0
check_is "get of a key that is not there" "$(status_of idem get --key none) $(wc -c <"$work/out")" "1 0"
check_is "get of a key in progress" "$(status_of idem get --key running) $(wc -c <"$work/out")" "121 0"
check_is "get of a lost key" "$(status_of idem get --key lost) $(wc -c <"$work/out")" "122 0"
check_is "get of one given back" "$(status_of idem get --key back)" 1
head -c 3000000 /dev/zero >"$work/large"
claim --key large && idem complete --key large --token "$token" --status 5 <"$work/large" 2>/dev/null
check_is "get of an answer that was too large to keep is no answer" "$(status_of idem get --key large) $(wc -c <"$work/out")" "1 0"
check_has "its message tells what is known" "$work/err" "completed with status 5"
check_is "get --status of it is" "$(idem get --key large --status)" 5
check_is "get --json says that it was not kept" "$(idem get --key large --json | field retained)" false
idem get --key bytes --status --meta >/dev/null 2>&1
check_is "two parts at once are a usage error" $? 125
idem get --key 'done' --scope shop >/dev/full 2>"$work/err"
check_is "an answer that could not be written is trouble" $? 124
check_is "looking claimed nothing" "$(idem why --key lost --json | field attempt)" 1

# ---------------------------------------------------------------- why
idem run --key slow -- sh -c 'echo $PPID >"$work/pid"; touch "$work/up"; until [ -e "$work/go" ] || [ ! -e "$work" ]; do sleep 0.05; done' &
started+=($!)
eventually test -e "$work/up"
told --key slow
check_has "why tells that an attempt is in progress" "$work/why" "Attempt 1 is in progress."
check_has "and who has it" "$work/why" "process $(cat "$work/pid"), alive"
check_has "and what can be done" "$work/why" "idem release --store $store --key slow --token $(idem why --key slow --json | field token)"
start "$IDEM" run --store "$store" --key slow --wait 10m -- true
waiting() { told --key slow && grep -q "somebody waits" "$work/why"; }
check "why tells that somebody waits" eventually waiting
touch "$work/go"
eventually gone "${started[-1]}"
told --key slow
check_has "why tells that it completed" "$work/why" "Attempt 1 completed."
check_has "with what" "$work/why" "status 0, 0 B of body"
told --key lost
check_has "why tells that an attempt was lost, and why" "$work/why" "Attempt 1 was lost: an operator ended its lease. The key is held"
check_has "and what it left" "$work/why" 'sent\x20ch_1'
claim --key lost2
told --key lost2
check_has "why tells of an earlier lost attempt" "$work/why" "an earlier attempt was lost: an operator ended its lease"
told --key back
check_has "why tells that an attempt was given back" "$work/why" "Attempt 1 was given back: nothing happened."
claim --key brief && idem complete --key brief --token "$token" --transient </dev/null
told --key brief
check_has "or ended in an answer that was not kept" "$work/why" "ended in an answer that was not kept"
told --key large
check_has "why tells that a body was not kept" "$work/why" "not kept"
told --key forever
check_has "why tells that a record never expires" "$work/why" "never"
check_is "why of a key that is not there" "$(status_of idem why --key none)" 1
told --scope $'t\t1' --key "$odd"
suggestion=$(grep -o 'idem release .*' "$work/why")
check_has "a command that why suggests names odd keys in quoted form" "$work/why" "--quoted --scope 't\\t1' --key 'a\\x20b\\n\\x01\\xff\\\\'"
mkdir "$work/bin" && ln -s "$IDEM" "$work/bin/idem"
check_is "and can be pasted" "$(PATH=$work/bin:$PATH sh -c "$suggestion" && idem why --scope $'t\t1' --key "$odd" --json | field state)" lost
claim --key "it's \$HOME" --lease 10m
told --key "it's \$HOME"
check_is "so can one with quotes and dollars" \
    "$(PATH=$work/bin:$PATH sh -c "$(grep -o 'idem release .*' "$work/why")" && idem why --key "it's \$HOME" --json | field state)" lost
finish
