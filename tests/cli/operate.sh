#!/usr/bin/env bash
# resolve, release, forget: an operator settles one key. verify: damage is found and named.
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"

claim() { # ARGUMENTS...: sets $verdict and what claim prints
    verdict=0
    vars=$(idem claim "$@") || verdict=$?
    eval "$vars"
}
op() { status_of idem "$@"; }
lost() { # KEY ARGUMENTS...: a lost attempt; its token is $token
    local key=$1
    shift
    claim --key "$key" "$@"
    token=$IDEM_TOKEN
    idem abandon --outcome-unknown --key "$key" --token "$token"
}

idem create --keys 1000 >/dev/null

# ---------------------------------------------------------------- resolve
lost one --hold
claim --key one
check_is "a held key is nobody's" "$verdict" 122
check_is "resolve asks for the token" "$(op resolve --key one --completed </dev/null)" 125
check_has "and says where it is shown" "$work/err" "idem why"
check_is "resolve wants to know how" "$(op resolve --key one --token "$token" </dev/null)" 125
check_is "not both" "$(op resolve --key one --token "$token" --completed --rerun </dev/null)" 125
check_is "a wrong token settles nothing" "$(echo no | op resolve --key one --token $((token + 1)) --completed)" 123
check_has "the message names the right one" "$work/err" "$token"
check_is "it is still held" "$(op claim --key one)" 122
check_is "resolve --completed stores stdin as the answer" "$(printf 'it\nwas\n' | op resolve --key one --token "$token" --completed --status 3)" 0
claim --key one
check_is "everyone gets it" "$verdict $IDEM_STATUS $IDEM_BODY" $'11 3 it\nwas\n'
check_is "what is settled can't be settled again" "$(op resolve --key one --token "$token" --rerun)" 123
check_has "the message tells its state" "$work/err" "it is completed"

lost two --hold
check_is "resolve --rerun" "$(op resolve --key two --token "$token" --rerun)" 0
claim --key two
check_is "makes the next claim an ordinary one" "$verdict $IDEM_VERDICT" "0 claimed"
check "with a token that grew" test "$IDEM_TOKEN" -gt "$token"
check_is "a running attempt can't be resolved" "$(op resolve --key two --token "$IDEM_TOKEN" --rerun)" 123
check_is "nor one that is not there" "$(op resolve --key none --token 1 --rerun)" 1

lost three
mkfifo "$work/never" && exec 9<>"$work/never"
check_is "resolve --no-body reads no stdin" \
    "$(status_of timeout "$PATIENCE" "$IDEM" resolve --store "$store" --key three --token "$token" --completed --no-body <&9)" 0
exec 9>&-
check_is "its answer is empty" "$(idem get --key three | wc -c)" 0
lost four --ttl 1h
echo x | idem resolve --key four --token "$token" --completed --ttl forever
check_is "resolve --ttl" "$(idem why --json --key four | grep -o '"expires_in_ms":null')" '"expires_in_ms":null'
lost five
head -c 3000000 /dev/zero | idem resolve --key five --token "$token" --completed --status 4 2>"$work/err"
check_is "an answer too large to keep settles it all the same" "$? $(idem get --key five --status)" "0 4"
check_has "and a line says so" "$work/err" "too large to be kept"
check_is "--status goes with --completed" "$(op resolve --key five --token 1 --rerun --status 1)" 125

# ---------------------------------------------------------------- release
claim --key six --lease 10m
token=$IDEM_TOKEN
check_is "a wrong token releases nothing" "$(op release --key six --token $((token + 1)))" 123
check_is "release ends a lease" "$(op release --key six --token "$token")" 0
check_is "its owner is fenced" "$(op complete --key six --token "$token" </dev/null)" 123
claim --key six --lease 10m
check_is "the next claim is told" "$verdict $IDEM_LOST_REASON $IDEM_LOST_TOKEN" "10 released $token"
check_is "release without a token takes whatever runs" "$(op release --key six)" 0
check_is "there is nothing more to release" "$(op release --key six)" 123
check_is "nor where nothing is" "$(op release --key none)" 1

# ---------------------------------------------------------------- forget
claim --key seven
echo answer | idem complete --key seven --token "$IDEM_TOKEN"
check_is "forget drops a record" "$(op forget --key seven) $(op get --key seven)" "0 1"
claim --key seven
check_is "the next attempt is a first one" "$verdict $IDEM_ATTEMPT" "0 1"
token=$IDEM_TOKEN
idem forget --key seven
check_is "forget fences a running owner" "$(op complete --key seven --token "$token" </dev/null)" 1
check_is "there is nothing more to forget" "$(op forget --key seven)" 1
for command in resolve release forget; do
    check_is "$command needs a store" "$(status_of "$IDEM" $command --store "$work/none" --key k $([[ $command == resolve ]] && echo --rerun --token 1))" 124
    check_is "$command needs a key" "$(op $command)" 125
done

# ---------------------------------------------------------------- verify
check_is "verify finds nothing wrong with a sound store" "$(op verify)" 0
check_has "and says what it looked at" "$work/out" "ok: "
check_is "in JSON too" "$(idem verify --json | grep -o '"ok":true,"problems":0')" '"ok":true,"problems":0'
check_is "verify needs a store" "$(status_of "$IDEM" verify --store "$work/none")" 124
seq 400 | idem dedup >/dev/null
damaged=$work/damaged
# damage NAME FILE OFFSET TEXT: zeros and ones over 1 KiB of a copy; verify finds it, and nothing crashes or hangs.
damage() {
    local file
    rm -rf "$damaged"
    cp -r "$store" "$damaged"
    file=$(echo "$damaged"/$2)
    head -c 1024 /dev/zero | tr '\0' '\252' | dd of="$file" bs=1 seek="$3" conv=notrunc status=none
    check_is "verify finds $1" "$(status_of timeout 100 "$IDEM" verify --store "$damaged")" 1
    check_has "verify says what is wrong with $1" "$work/out" "$4"
    check_has "verify sums up $1" "$work/out" "DAMAGED: "
    check_is "verify finds $1 in JSON too" "$("$IDEM" verify --store "$damaged" --json | grep -o '"ok":false')" '"ok":false'
    for command in ls stat; do
        status=$(status_of timeout 100 "$IDEM" $command --store "$damaged")
        check "$command does not die of $1" test "$status" -eq 0 -o "$status" -eq 124
    done
}
damage "damage to the buckets" 'gen-*' 8192 "slot "
damage "damage to the generation's head" 'gen-*' 0 "$damaged/gen-"
damage "damage to the root" root 0 "$damaged/root"
finish
