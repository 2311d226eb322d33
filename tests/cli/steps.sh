#!/usr/bin/env bash
# claim, mark, renew, complete, abandon: the steps of a script, each its own process.
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"

# claim ARGUMENTS...: sets the variables that it prints, and $verdict to its exit status.
claim() {
    verdict=0
    vars=$(idem claim "$@") || verdict=$?
    eval "$vars"
}
step() { status_of idem "$@"; }

claim --key one --lease 10m
check_is "a first claim is yours" "$verdict $IDEM_VERDICT $IDEM_ATTEMPT" "0 claimed 1"
check_is "it outlives the process that asked for it" "$(step claim --key one)" 121
token=$IDEM_TOKEN
claim --key one
check_is "a second claim learns who has it" "$verdict $IDEM_VERDICT $IDEM_TOKEN" "121 in-progress $token"
check "and when to ask again" test "$IDEM_RETRY_AFTER_MS" -gt 0 -a "$IDEM_RETRY_AFTER_MS" -le 600000
check_is "mark, in a process of its own" "$(step mark --key one --token "$token" "it's going")" 0
check_is "renew, in a process of its own" "$(step renew --key one --token "$token" --lease 5m)" 0
claim --key one
check "renew changed the lease" test "$IDEM_RETRY_AFTER_MS" -le 300000
check_is "a wrong token is fenced" "$(step renew --key one --token $((token + 1))) $(step mark --key one --token 1 x) $(step abandon --key one --token 1)" \
    "123 123 123"
check_is "complete, in a process of its own" "$(printf 'the\nanswer\n' | step complete --key one --token "$token" --status 42)" 0
check_is "repeating it is fine" "$(echo other | step complete --key one --token "$token")" 0
claim --key one
check_is "a later claim gets the answer" "$verdict $IDEM_VERDICT $IDEM_STATUS $IDEM_RETAINED" "11 replay 42 yes"
check_is "its bytes are exact, trailing newline too" "$IDEM_BODY" $'the\nanswer\n'
check_is "late steps are fenced" "$(step renew --key one --token "$token") $(step abandon --key one --token "$token")" "123 123"
check_is "a key that nobody claimed has no claim" "$(step complete --key none --token 7 </dev/null) $(step renew --key none --token 7)" "1 1"

# ---------------------------------------------------------------- giving back
claim --key two
idem mark --key two --token "$IDEM_TOKEN" "half way"
check_is "abandon gives the key back" "$(step abandon --key two --token "$IDEM_TOKEN")" 0
claim --key two
check_is "the next claim starts clean, with the mark" "$verdict $IDEM_VERDICT $IDEM_ATTEMPT $IDEM_MARK" "0 claimed 2 half way"
first=$IDEM_TOKEN
check_is "abandon --outcome-unknown gives it back too" "$(step abandon --outcome-unknown --key two --token "$IDEM_TOKEN")" 0
claim --key two
check_is "the next claim is told of it" "$verdict $IDEM_VERDICT $IDEM_ATTEMPT $IDEM_LOST_TOKEN $IDEM_LOST_REASON" "10 reclaimed 3 $first declared"
claim --key held --hold
idem abandon --outcome-unknown --key held --token "$IDEM_TOKEN"
first=$IDEM_TOKEN
claim --key held
check_is "with --hold it is nobody's" "$verdict $IDEM_VERDICT $IDEM_LOST_TOKEN" "122 unknown $first"

claim --key lapse --lease 100ms
sleep 0.3
first=$IDEM_TOKEN
claim --key lapse --lease 10m
check_is "only the lease ends a claim" "$verdict $IDEM_VERDICT $IDEM_LOST_REASON" "10 reclaimed lease"
check_is "the late owner is fenced in every step" \
    "$(step mark --key lapse --token "$first" late) $(step renew --key lapse --token "$first") $(step complete --key lapse --token "$first" </dev/null) $(step abandon --key lapse --token "$first")" \
    "123 123 123 123"
check_is "and the new owner is not" "$(step complete --key lapse --token "$IDEM_TOKEN" </dev/null)" 0

# ---------------------------------------------------------------- waiting, transient, mismatch
claim --key wait --lease 10m
token=$IDEM_TOKEN
(sleep 1; echo late | idem complete --key wait --token "$token") &
started+=($!)
claim --key wait --wait 10m
check_is "claim --wait gets the answer when it comes" "$verdict $IDEM_BODY" $'11 late\n'
await
claim --key brief --lease 10m
idem complete --transient --key brief --token "$IDEM_TOKEN" </dev/null
claim --key brief
check_is "a transient answer is not kept" "$verdict $IDEM_VERDICT" "0 claimed"
claim --key print --fingerprint a
claim --key print --fingerprint b
check_is "another fingerprint is a mismatch" "$verdict $IDEM_VERDICT" "120 mismatch"
claim --key short --lease 10m
idem complete --ttl 200ms --key short --token "$IDEM_TOKEN" </dev/null
check_is "complete --ttl ends the answer's life" "$(sleep 1; step claim --key short)" 0

# ---------------------------------------------------------------- bytes
claim --key bytes
nasty=$'\'quoted\' "$(touch '"$work"'/pwned)" `x` \\ \n\ttab; rm -rf / \xff'
idem mark --key bytes --token "$IDEM_TOKEN" "$nasty"
printf %s "$nasty" | idem complete --key bytes --token "$IDEM_TOKEN"
claim --key bytes
check_is "eval gives back every byte of an answer" "$IDEM_BODY" "$nasty"
check "and runs nothing" test ! -e "$work/pwned"
claim --key zero
printf 'a\0b' | idem complete --key zero --token "$IDEM_TOKEN"
claim --key zero
check_is "an answer with a NUL byte comes in quoted form" "$IDEM_BODY $IDEM_BODY_QUOTED" ' a\x00b'
claim --key other
check_is "no variable survives from the eval before" "$IDEM_BODY$IDEM_BODY_QUOTED$IDEM_STATUS$IDEM_RETAINED" ""
idem run --key ran -- sh -c 'echo out; echo err >&2' >/dev/null 2>&1
claim --key ran
check_is "an answer of idem run comes in its two streams" "$IDEM_BODY$IDEM_STDERR" $'out\nerr\n'
check_is "idem run replays an answer of idem complete" "$(idem run --key one -- echo no; echo $?)" $'the\nanswer\n42'
check_is "claim --json is JSON, tokens are strings" \
    "$(idem claim --json --key json | sed 's/"token":"[0-9]*"/"token":"T"/')" \
    '{"verdict":"claimed","scope":"","key":"json","token":"T","attempt":1}'
check_is "mark reads stdin without a text" "$(claim --key stdin; printf 'from stdin' | step mark --key stdin --token "$IDEM_TOKEN"; step abandon --key stdin --token "$IDEM_TOKEN"; claim --key stdin; echo "$IDEM_MARK")" \
    $'0\n0\nfrom stdin'
claim --key limit
check_is "a mark of 256 bytes is taken" "$(head -c 256 /dev/zero | step mark --key limit --token "$IDEM_TOKEN")" 0
check_is "a mark of 257 bytes is refused" "$(head -c 257 /dev/zero | step mark --key limit --token "$IDEM_TOKEN")" 125
claim --key large
check_is "an answer too large to keep is recorded" "$(head -c 5000000 /dev/zero | step complete --key large --token "$IDEM_TOKEN" --status 3)" 0
check_has "and a line says that it is not retained" "$work/err" "too large"
claim --key large
check_is "later claims get the status alone" "$verdict $IDEM_STATUS $IDEM_RETAINED $IDEM_BODY" "11 3 no "
claim --key full 2>/dev/null
check_is "a claim that cannot be printed is given back" "$(idem claim --key unread 2>/dev/null >/dev/full; echo $?) $(step claim --key unread)" "124 0"

# ---------------------------------------------------------------- the example of claim --help, as it stands
mkdir "$work/bin"
ln -s "$IDEM" "$work/bin/idem"
printf '#!/bin/sh\necho "charged $1"; echo ran >>"$work/effects"\n' >"$work/bin/charge"
chmod +x "$work/bin/charge"
"$IDEM" claim --help | sed -n '/^  set -eu/,/^  esac/s/^  //p' | sed "s,idem claim,idem claim --store $store,;s,idem mark,idem mark --store $store,;s,idem complete,idem complete --store $store,;s,\./charge,charge," >"$work/example"
check "claim --help has an example" test -s "$work/example"
example() { (export id=9 PATH="$work/bin:$PATH"; sh "$work/example"); }
check_is "the example runs under set -eu" "$(status_of example)" 0
check_is "a second run of it prints the answer" "$(example)" "charged 9"
check_is "and does not charge again" "$(lines_in "$work/effects")" 1
finish
