#!/usr/bin/env bash
# The command line: options, durations, sizes, quoting, help, create and destroy. What is wrong is refused and changes nothing.
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"

# wrong NAME ARGUMENTS...: a usage error (125) with a message, and no store was made.
wrong() {
    local name=$1 status
    shift
    status=$(status_of "$IDEM" "$@")
    check_is "$name is a usage error" "$status" 125
    if [[ ! -s $work/err || -s $work/out ]] || grep -qv '^idem: \|^Try ' "$work/err"; then
        report "$name has a message on stderr and nothing on stdout" 1 "$(cat "$work/out" "$work/err")"
    fi
}
wrong "no subcommand"
wrong "an unknown subcommand" frobnicate
wrong "an unknown option" run --store "$store" --key k --frob -- true
wrong "an unknown short option" run --store "$store" -k k -- true
wrong "an option without its value" run --store "$store" --key
wrong "a flag with a value" run --store "$store" --key k --hold=yes -- true
wrong "a run without a key" run --store "$store" -- true
wrong "a run without a command" run --store "$store" --key k
wrong "an empty key" run --store "$store" --key "" -- true
wrong "a key over the limit" run --store "$store" --key "$(head -c 1025 /dev/zero | tr '\0' k)" -- true
wrong "a key and scope over the limit together" run --store "$store" --scope ab --key "$(head -c 1023 /dev/zero | tr '\0' k)" -- true
wrong "a superfluous argument" claim --store "$store" --key k more
wrong "complete without a token" complete --store "$store" --key k
for token in 0 -1 1.5 x 99999999999999999999 ""; do
    wrong "the token '$token'" renew --store "$store" --key k --token "$token"
done
for duration in 5 5x ms 1.5 -1s 1s2 "1 s" 0 0s 0.1ms infinite 101000000000000000000s 200000w ""; do
    wrong "the duration '$duration'" run --store "$store" --key k --ttl "$duration" -- true
done
wrong "a lease over 7 days" run --store "$store" --key k --lease 8d -- true
wrong "a lease for ever" claim --store "$store" --key k --lease forever
for size in x 1X 1.5 -1 "" 99999999999G 1KK; do
    wrong "the size '$size'" create --store "$store" --size "$size"
done
wrong "a keyword that is none" create --store "$store" --when-full explode
wrong "a group that is none" create --store "$store" --group no-such-group-here
for quoted in 'a\xzz' 'a\x1' 'a\q' 'a\' 'a b' ''; do
    wrong "the quoted key '$quoted'" claim --store "$store" --quoted --key "$quoted"
done
check "none of them made a store" test ! -e "$store"

# ---------------------------------------------------------------- durations and sizes that are right
# created ARGUMENTS...: makes a small store and prints what it says of itself.
created() {
    "$IDEM" create --store "$work/made" --json --keys 16 "$@"
    "$IDEM" destroy --store "$work/made"
}
for pair in 250ms=250 30s=30000 5m=300000 36h=129600000 7d=604800000 2w=1209600000 1.5s=1500 1h30m=5400000 forever=null; do
    check_is "the duration ${pair%=*} is understood" "$(created --ttl "${pair%=*}" | grep -o '"ttl_ms":[^,}]*')" "\"ttl_ms\":${pair#*=}"
done
for pair in 8M=8388608 4096K=4194304 5000000=5000000 5.5MiB=5767168; do
    bytes=$(created --size "${pair%=*}" | grep -o '"bytes":[^,}]*')
    check "the size ${pair%=*} is kept to" test "${bytes#*:}" -le "${pair#*=}" -a "${bytes#*:}" -gt 3000000
done
check_is "a size too small for any store is refused" "$(status_of "$IDEM" create --store "$work/small" --size 64K)" 125
check_has "with the smallest one" "$work/err" "smallest"
check_has "the lease is taken" <(created --lease 90s) '"lease_ms":90000'
check_has "when-full is taken" <(created --when-full evict) '"when_full":"evict"'

# ---------------------------------------------------------------- create, destroy
check_is "create makes a store" "$(status_of idem create --keys 100)" 0
check_has "and says where" "$work/out" "$store"
check_is "its directory is private" "$(stat -c %a "$store")" 700
check_is "creating it again is refused" "$(status_of idem create --keys 100)" 124
check_is "a store that is there is used as it is" "$(idem run --key k -- echo kept)" kept
check_is "destroy removes it" "$(status_of idem destroy; ls "$work" | grep -c '^store$')" $'0\n0'
check_is "destroying it again is refused" "$(status_of idem destroy)" 124
check_has "with the reason" "$work/err" "store"
check_is "what needs a store does not make one" "$(status_of idem complete --key k --token 5 </dev/null; ls "$work" | grep -c '^store$')" $'124\n0'
check_has "and says what does" "$work/err" "idem create"
check_is "after destroy a key runs again" "$(idem run --key k -- echo again)" again
if [[ $EUID -eq 0 ]]; then
    idem destroy
    check_is "create --group shares the store" "$(idem create --group 1 --keys 16 >/dev/null; stat -c '%a %g' "$store")" "2770 1"
    idem destroy
else
    echo "skipped - create --group shares the store: needs root"
fi

# A bare name, and none at all, in mount namespaces whose /dev/shm and /run are our own.
elsewhere() {
    unshare --mount sh -ec '
        mount -t tmpfs -o mode=1777 tmpfs /dev/shm
        mount -t tmpfs tmpfs /run
        cat <&6 >/run/idem-here
        chmod +x /run/idem-here
        '"$1" 6<"$IDEM"
}
if [[ $EUID -eq 0 ]] && elsewhere true 2>/dev/null; then
    check_is "without --store it is the store default" \
        "$(elsewhere '/run/idem-here run --key k -- true; cd /dev/shm; ls -d idem-0/*')" idem-0/default
    check_is "a bare name lies beside it" \
        "$(elsewhere '/run/idem-here run --store pay --key k -- true; cd /dev/shm; ls -d idem-0/*')" idem-0/pay
    check_is "or under /run/idem, if that is there" \
        "$(elsewhere 'mkdir -m 700 /run/idem; /run/idem-here run --key k -- true; ls -d /run/idem/* /dev/shm/* 2>/dev/null || :')" \
        /run/idem/default
else
    echo "skipped - without --store it is the store default: needs root and mount namespaces"
fi

# ---------------------------------------------------------------- keys of any bytes
idem run --key $'nasty \\ \'"\n\t\x01\xff' -- echo nasty >/dev/null
check_is "a key of any bytes is found again" "$(idem run --key $'nasty \\ \'"\n\t\x01\xff' -- echo no)" nasty
check_is "its quoted form names the same key" "$(idem run --quoted --key 'nasty\x20\\\x20'\''"\n\t\x01\xff' -- echo no)" nasty
check_is "an unquoted backslash is a backslash" "$(idem run --key 'a\x41' -- echo raw) $(idem run --key aA -- echo other)" "raw other"
idem run --quoted --key 'null\x00byte' -- echo null >/dev/null
check_is "a key with a NUL byte has a quoted form" "$(idem run --quoted --key 'null\x00byte' -- echo no) $(idem run --key null -- echo cut)" "null cut"
check_is "a lone dash is the empty string in quoted form" \
    "$(idem run --quoted --key dash --scope - -- echo dash; idem run --key dash -- echo no; idem run --quoted --key '\x2d' -- echo x; idem run --key - -- echo no)" \
    $'dash\ndash\nx\nx'
check_is "JSON gives bytes that are no text in quoted form" \
    "$(idem claim --json --key $'\xff\xfe' | sed 's/"token.*//')" '{"verdict":"claimed","scope":"","key":null,"key_quoted":"\\xff\\xfe",'
check_is "JSON gives text as text" "$(idem claim --json --key 'grüße "x"' | sed 's/"token.*//')" '{"verdict":"claimed","scope":"","key":"grüße \"x\"",'
check_is "a shown key can be pasted back" "$(
    idem run --key $'back \xff' -- sh -c 'kill -9 $$' 2>&1 | sed -n 's/^idem: key \(.*\): sh was.*/\1/p' | {
        read -r quoted && idem run --quoted --key "$quoted" -- sh -c 'echo "$IDEM_ATTEMPT"' 2>/dev/null
    }
)" 2

check_is "create takes the numbers of handles and threads" \
    "$("$IDEM" create --store "$work/wide" --keys 100 --processes 1000 --lanes 3000 >/dev/null && "$IDEM" stat --store "$work/wide" --json |
        grep -o '"[a-z]*_max":[0-9]*' | tr '\n' ' ')" '"processes_max":1000 "lanes_max":3000 '
check_is "but not more than there can be" "$(status_of "$IDEM" create --store "$work/wider" --lanes 20000)" 125
"$IDEM" destroy --store "$work/wide"

# ---------------------------------------------------------------- help
"$IDEM" help >"$work/help"
check_has "help has the table of which one to use" "$work/help" "may the effect run again?"
commands="create destroy run claim complete abandon renew mark ls get why resolve release forget stat top verify dedup recover wal version"
for command in $commands; do
    check_has "help lists $command" "$work/help" "  $command "
    check_is "$command --help succeeds" "$(status_of "$IDEM" "$command" --help) $(head -n 1 "$work/out" | cut -d' ' -f1-3)" "0 usage: idem $command"
    cp "$work/out" "$work/page"
    check "help $command is the same page" cmp -s <("$IDEM" help "$command") "$work/page"
done
for status in 120 121 122 124 125; do
    check_has "run --help explains exit status $status" <("$IDEM" run --help) "  $status  "
done
check_is "version prints the version" "$("$IDEM" version)" "$("$IDEM" --version)"
check_has "version is a version" <("$IDEM" version) "idem 0."
check_is "help that can't be written is an error" "$("$IDEM" help 2>/dev/null >/dev/full; echo $?)" 124

# ---------------------------------------------------------------- man pages
man=$(dirname "${BASH_SOURCE[0]}")/../../tools/idem/man
for page in run:idem-run claim:idem-claim complete:idem-claim abandon:idem-claim renew:idem-claim mark:idem-claim \
    create:idem-create destroy:idem-create recover:idem-recover wal:idem-wal; do
    missing=
    for option in $("$IDEM" "${page%:*}" --help | sed -n '/^options$/,/^$/s/^  --\([a-z-]*\).*/\1/p'); do
        [[ $option == help ]] || grep -qE -- "Fl -$option( |\$)" "$man/${page#*:}.1" || missing+=" --$option"
    done
    check_is "the man page ${page#*:} has all options of ${page%:*}" "$missing" ""
done
for command in $commands; do
    check "the man page idem names $command" grep -qE "Cm .*\b$command\b" "$man/idem.1"
done

# ---------------------------------------------------------------- completion
completion=$(dirname "${BASH_SOURCE[0]}")/../../tools/idem/completion/idem.bash
complete_words() { # complete_words WORDS...: what completing the last word offers
    bash --norc -c '
        source "$1" || exit
        shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
        _idem
        printf "%s\n" "${COMPREPLY[@]}" | sed "s/ *$//" | sort' bash "$completion" "$@"
}
check_is "completion offers the subcommands" "$(complete_words "$IDEM" re | tr '\n' ' ')" "recover release renew resolve "
check_is "every subcommand is offered" "$(complete_words "$IDEM" '' | tr '\n' ' ')" "$(printf '%s\n' $commands help | sort | tr '\n' ' ')"
check_is "completion offers a subcommand's options" "$(complete_words "$IDEM" run --ke | tr '\n' ' ')" "--keep-failures --key "
check_is "completion offers an option's words" "$(complete_words "$IDEM" create --huge '' | tr '\n' ' ')" "auto off require "
check_is "completion offers what wal can do" "$(complete_words "$IDEM" wal '' | tr '\n' ' ')" "dump ls stat verify "
for command in $commands; do
    offered=$(complete_words "$IDEM" "$command" -- | tr '\n' ' ')
    documented=$("$IDEM" "$command" --help | sed -n '/^options$/,/^$/s/^  \(--[a-z-]*\).*/\1/p' | sort | tr '\n' ' ')
    check_is "completion offers all options of $command" "$offered" "$documented"
done
finish
