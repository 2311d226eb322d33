#!/usr/bin/env bash
# idem dedup, one filter: what a line is, what a key is, and a clear rule for everything that is neither.
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"
shopt -s lastpipe # the last command of a pipeline sets variables here
idem create --keys 100000 --response 16 >/dev/null || exit 1

# through ARGUMENTS...: a filter; what it wrote goes to $work/out and $work/err, its exit status to $status.
through() {
    status=0
    idem dedup "$@" >"$work/out" 2>"$work/err" || status=$?
}
# filter NAME INPUT WANTED ARGUMENTS...: INPUT and WANTED are for printf %b. Each in a scope of its own.
filter() {
    local name=$1 input=$2 wanted=$3
    shift 3
    printf '%b' "$input" | through --scope "$name" "$@"
    printf '%b' "$wanted" >"$work/wanted"
    report "$name" $((status != 0)) "status $status: $(cat "$work/err")"
    check "$name: the bytes are right" cmp "$work/wanted" "$work/out"
}
# stops NAME INPUT WANTED STATUS MESSAGE ARGUMENTS...: the lines before were written, the message names the line.
stops() {
    local name=$1 input=$2 wanted=$3 wanted_status=$4 message=$5
    shift 5
    printf '%b' "$input" | through --scope "$name" "$@"
    printf '%b' "$wanted" >"$work/wanted"
    check_is "$name stops the filter" "$status" "$wanted_status"
    check "$name: the lines before it were written, none behind it" cmp "$work/wanted" "$work/out"
    check_has "$name: the message names the line" "$work/err" "$message"
}
zeros() { head -c "$1" /dev/zero | tr '\0' "$2"; }

# ---------------------------------------------------------------- lines
filter "each line comes once, in order" 'b\na\nb\nc\na\n' 'b\na\nc\n'
filter "a last line without newline is a line" 'a\nb' 'a\nb'
printf 'b\na' | through --scope "a last line without newline is a line"
check_is "its key is the same with a newline and without" "$status $(cat "$work/out")" "0 "
filter "NUL and carriage return are bytes like any other" 'a\0b\na\0c\na\r\na\na\0b\n' 'a\0b\na\0c\na\r\na\n'
filter "no input is no output" '' ''
printf 'x\n' | through --scope one
printf 'x\n' | through --scope two
check_is "scopes are apart" "$(cat "$work/out")" x
printf 'x\ny\n' | through --scope one
check_is "a later filter knows what an earlier one wrote" "$(cat "$work/out")" y
seq 20000 >"$work/many"
cat "$work/many" "$work/many" | through --scope many --on-dup count
check "many batches come through unchanged, once" cmp "$work/many" "$work/out"
check_has "--on-dup count says how many there were" "$work/err" "40000 lines, 20000 written, 20000 duplicates"
printf 'p\nq\np\nq' | through --scope print --on-dup print
check_is "--on-dup print writes duplicates to stderr" "$(cat "$work/out" - "$work/err" <<<--)" $'p\nq\n--\np\nq'

# A line leaves when it is there: it doesn't wait for others to fill a batch, nor for the end.
mkfifo "$work/in"
"$IDEM" dedup --store "$store" --scope hostage <"$work/in" >"$work/hostage" &
started+=($!)
exec 7>"$work/in"
echo first >&7
check "a line comes out while the input stays open" eventually grep -qx first "$work/hostage"
printf 'second\nthi' >&7
check "so does the next, before an unfinished one" eventually grep -qx second "$work/hostage"
echo rd >&7
check "and the one that was cut in two" eventually grep -qx third "$work/hostage"
exec 7>&-
wait "${started[-1]}"
check_is "the filter ends with its input" $? 0

ttl_is_over() { [[ $(echo short | idem dedup --scope ttl --ttl 200ms) == short ]]; }
check "--ttl: a line comes" ttl_is_over
check "--ttl: it comes again when its time is over" eventually ttl_is_over

# ---------------------------------------------------------------- lines that have no key
stops "an empty line" 'a\n\nb\n' 'a\n' 1 "line 2 has no key"
filter "--on-error pass writes it as it is" 'a\n\nb\n\n' 'a\n\nb\n\n' --on-error pass
check_has "and says so" "$work/err" "line 4 has no key"
filter "--on-error drop does not" 'a\n\nb\n\n' 'a\nb\n' --on-error drop
stops "a line over --max-line" 'a\n12345\nb\n' 'a\n' 1 "line 2 is longer than 4 bytes" --max-line 4
filter "a line of exactly --max-line" '1234\n1234\n' '1234\n' --max-line 4
{ echo a; zeros 3000000 b; echo; echo c; zeros 1048577 d; } >"$work/long"
through --scope long1 --on-error pass <"$work/long"
check "--on-error pass lets over-long lines through, however long" cmp "$work/long" "$work/out"
through --scope long2 --on-error drop <"$work/long"
check_is "--on-error drop drops all of an over-long line" "$status $(cat "$work/out")" $'0 a\nc'
through --scope long3 <"$work/long"
check_is "an over-long line stops the filter" "$status $(cat "$work/out")" $'1 a'
key=$(zeros 1020 k)
stops "a key over the limit" "a\n${key}12345\n" 'a\n' 1 "line 2 has a key of 1025 bytes"
printf '%s\n' "${key}1234" | idem dedup >"$work/out"
check_is "a key of exactly the limit comes through" "$(cat "$work/out")" "${key}1234"
filter "--hash-long-keys tells long keys apart" "${key}12345\n${key}12346\n${key}12345\n" "${key}12345\n${key}12346\n" --hash-long-keys

# ---------------------------------------------------------------- columns
filter "--column splits at runs of blanks" 'a  x c\n\tb x d\n  c y\n' 'a  x c\n  c y\n' --column 2
filter "--delimiter splits at each byte" 'a,,1\nb,,1\nc,x,2\n' 'a,,1\nc,x,2\n' --column 3 --delimiter ,
stops "a missing column" 'a b\na\n' 'a b\n' 1 "line 2 has 1 column; --column 2 is not there" --column 2
stops "an empty column" 'a,b\na,\n' 'a,b\n' 1 "line 2 has no key" --column 2 --delimiter ,

# ---------------------------------------------------------------- JSON
filter "--field takes a field" '{"id":"a","n":1}\n{"n":2,"id":"a"}\n{"id":"b"}\n' '{"id":"a","n":1}\n{"id":"b"}\n' --field /id
filter "--field goes into objects and arrays" '{"o":[{"i":7}]}\n{"o":[{"i":7},1]}\n{"o":[{"i":8}]}\n' \
    '{"o":[{"i":7}]}\n{"o":[{"i":8}]}\n' --field /o/0/i
filter "--field knows ~0 and ~1" '{"a/b":{"c~d":1}}\n{"a/b":{"c~d":1},"x":2}\n' '{"a/b":{"c~d":1}}\n' --field /a~1b/c~0d
filter "the empty pointer is the whole document" '[1, 2]\n[1,2]\n7\n7\n"7"\n' '[1, 2]\n7\n' --field ''
filter "a string and a number with the same text are the same key" '{"i":1}\n{"i":"1"}\n{"i":1.0}\n{"i":true}\n{"i":"true"}\n' \
    '{"i":1}\n{"i":1.0}\n{"i":true}\n' --field /i
filter "an object is its compact text" '{"i":{"a": 1}}\n{"i":{"a":1}}\n' '{"i":{"a": 1}}\n' --field /i
filter "a string may hold a NUL" '{"i":"a\\u0000b"}\n{"i":"a\\u0000c"}\n' '{"i":"a\\u0000b"}\n{"i":"a\\u0000c"}\n' --field /i
stops "invalid JSON" '{"i":1}\n{"i":\n' '{"i":1}\n' 1 "line 2 is not JSON" --field /i
stops "text behind the JSON" '{"i":1}\n{"i":2} x\n' '{"i":1}\n' 1 "line 2 is not JSON" --field /i
stops "a NUL in JSON" '{"i":1}\n{"i":2}\0\n' '{"i":1}\n' 1 "line 2 is not JSON: a NUL byte" --field /i
stops "a missing field" '{"i":1}\n{"j":2}\n' '{"i":1}\n' 1 "line 2 has no field /i" --field /i
stops "null" '{"i":1}\n{"i":null}\n' '{"i":1}\n' 1 "line 2 has no key: /i is null" --field /i
stops "a whole number beyond 64 bits" '{"i":18446744073709551614}\n{"i":18446744073709551616}\n' '{"i":18446744073709551614}\n' 1 \
    "line 2 has a number in /i" --field /i
stops "a negative number beyond 64 bits" '{"i":-9223372036854775807}\n{"i":-9223372036854775809}\n' \
    '{"i":-9223372036854775807}\n' 1 "line 2 has a number in /i" --field /i
stops "half a surrogate pair" '{"i":"\\ud83d\\ude00"}\n{"i":"\\ud83d"}\n' '{"i":"\\ud83d\\ude00"}\n' 1 "line 2 has half a surrogate pair" --field /i
stops "JSON nested too deep" '{"i":1}\n'"$(zeros 200 '[')$(zeros 200 ']')"'\n' '{"i":1}\n' 1 "line 2 is not JSON" --field /i

# ---------------------------------------------------------------- trouble with the store, or downstream
idem claim --scope taken --key m --fingerprint x >"$work/claim"
stops_at() { # NAME STATUS MESSAGE
    printf 'a\nm\nb\n' | through --scope taken
    check_is "$1 stops the filter" "$status $(cat "$work/out")" "$2 a"
    check_has "$1: the message names the line" "$work/err" "line 2 $3"
    idem forget --scope taken --key a
}
stops_at "a key used with a fingerprint" 120 "has a key that was used with a fingerprint"
idem forget --scope taken --key m
idem claim --scope taken --key m --hold >"$work/claim"
idem release --scope taken --key m
stops_at "a key that is held" 122 "has a key that is held"
printf 'a\nm\nb\n' | through --scope taken --on-error pass
check_is "--on-error pass writes it" "$status $(cat "$work/out")" $'0 a\nm\nb'
idem forget --scope taken --key b
printf 'a\nm\nb\n' | through --scope taken --on-error drop
check_is "--on-error drop does not" "$status $(cat "$work/out")" "0 b"

if [[ -c /dev/full ]]; then
    status=0
    printf 'a\nb\n' | idem dedup --scope full >/dev/full 2>"$work/err" || status=$?
    check_is "a full disk stops the filter" $status 124
    check_has "its message names the line" "$work/err" "line 1 could not be written: No space left"
    printf 'a\nb\n' | through --scope full
    check_is "its lines were given back" "$(cat "$work/out" "$work/err")" $'a\nb'
else
    echo "skipped (kernel) - a full disk stops the filter: there is no /dev/full"
fi

store=$work/small
"$IDEM" create --store "$store" --keys 16 --response 0 >/dev/null 2>&1 || "$IDEM" create --store "$store" --keys 16 >/dev/null
seq 1000000 2>/dev/null | through
check_is "a full store stops the filter" "$status" 124
written=$(wc -l <"$work/out")
check_has "the message names the line behind the last one written" "$work/err" "line $((written + 1)):"
seq "$written" >"$work/wanted"
check "all lines before it were written" cmp "$work/wanted" "$work/out"
store=$work/store

# ---------------------------------------------------------------- broken pipe
(
    trap - PIPE
    seq 100000 2>/dev/null | { idem dedup --scope pipe 2>"$work/err"; echo $? >"$work/status"; } | head -n 1 >"$work/out"
)
check_is "a broken pipe ends the filter as any other" "$(cat "$work/status" "$work/err" "$work/out")" $'141\n1'
(
    trap '' PIPE
    seq 100000 2>/dev/null | { idem dedup --scope pipe2 2>"$work/err"; echo $? >"$work/status"; } | head -n 1 >"$work/out"
)
check_is "if SIGPIPE is ignored it ends with a status and a message" "$(cat "$work/status")" 124
check_has "the message is about the pipe" "$work/err" "standard output could not be written: Broken pipe"
idem ls --scope pipe --state in-progress >"$work/out" 2>/dev/null
check_is "it left no claim behind" "$(cat "$work/out")" ""
check_is "nor a lost one" "$(idem ls --scope pipe --state lost --json 2>/dev/null | wc -l)" 0

# ---------------------------------------------------------------- usage
for wrong in "--line --column 2" "--column 0" "--delimiter ," "--column 2 --delimiter ab" "--field id" "--on-dup keep" \
    "--on-error ignore" "--max-line 0" "--lease 8d" "--ttl 0" "more"; do
    # shellcheck disable=SC2086 # it is several words
    through $wrong </dev/null
    check_is "dedup $wrong is a usage error" "$status" 125
done
# ---------------------------------------------------------------- a small store that evicts
idem destroy 2>/dev/null
idem create --keys 100 --when-full evict >/dev/null
check_is "a store that evicts refuses no line, however fast they come" "$(seq 5000 | idem dedup | wc -l)" 5000

finish
