#!/usr/bin/env bash
# The demo's HTTP pool, a request at a time: what it answers, and that no death between its steps charges twice.
# timeout: 300 s
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"
: "${IDEM_BUILD:?set IDEM_BUILD to the build directory}"
ledger=$work/ledger
pool_number=0

# pool ARGUMENTS...: starts one on the shared store and ledger; sets $pool (its process) and $port.
pool() {
    pool_number=$((pool_number + 1))
    start "$IDEM_BUILD/tools/pool/idem_pool" --store "$store" --keys 2000 --ledger "$ledger" --tally "$work/tally$pool_number" \
        --port-file "$work/port$pool_number" --workers 1 "$@" >"$work/pool$pool_number.log" 2>&1
    pool=$!
    if ! eventually answers "$work/port$pool_number"; then
        cat "$work/pool$pool_number.log" >&2
        exit 1
    fi
}
answers() {
    [[ -s $1 ]] || return 1
    port=$(<"$1")
    http GET /health ""
    [[ $(status) == 200 ]]
}
# stop_pool: in order; sets $stopped to its exit status.
stop_pool() {
    kill -TERM "$pool"
    stopped=0
    wait "$pool" || stopped=$?
}

# http METHOD PATH BODY [HEADER...]: the whole answer goes to $answer, a file of this shell's; it stays empty if there is
# none. $answer.sent appears when the request is on its way.
http() {
    local method=$1 path=$2 body=$3 header
    shift 3
    answer=$work/answer.$BASHPID
    : >"$answer"
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
    ( # on its own: if the worker has just died, this gets SIGPIPE, and there is no answer
        printf '%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n' "$method" "$path" "${#body}"
        for header in "$@"; do printf '%s\r\n' "$header"; done
        printf '\r\n%s' "$body"
    ) >&3
    : >"$answer.sent"
    timeout "$PATIENCE" cat <&3 >"$answer"
    exec 3>&-
} 2>/dev/null
# post KEY BODY [HEADER...]
post() {
    local key=$1 body=$2
    shift 2
    http POST /charges "$body" "Idempotency-Key: $key" "$@"
}
status() { awk 'NR == 1 { print $2 }' "$answer"; }
body() { sed '1,/^\r$/d' "$answer"; }
has_header() { sed '/^\r$/q' "$answer" | grep -qix "$1"$'\r'; }
# charges KEY: how many the ledger has for it.
charges() { grep -c "\"key\":\"$1\"" "$ledger"; }
worker() { tr -d ' ' <"/proc/$1/task/$1/children"; }
# post_behind KEY BODY: in the background; $posting is its process. Its request is the first of those that follow.
post_behind() {
    post "$@" &
    posting=$!
    eventually test -e "$work/answer.$posting.sent"
}
# answered PROCESS: waits for that request and looks at its answer from now on.
answered() {
    wait "$1"
    answer=$work/answer.$1
}

eur='{"amount":1999,"currency":"EUR"}'
pool
http POST /charges "$eur"
check_is "a charge without a key is refused" "$(status)" 400
post 'a"b' "$eur"
check_is "a key with a quote in it is refused" "$(status)" 400
post "$(printf 'k%.0s' {1..65})" "$eur"
check_is "a key that is too long is refused" "$(status)" 400
post bad '{"amount":'
check_is "a body that is no JSON is refused" "$(status)" 400
post bad '{"currency":"EUR"}'
check_is "an order without an amount is refused" "$(status)" 400
post bad "$eur" 'Tenant: a b'
check_is "a tenant with a blank is refused" "$(status)" 400
http GET /charges "" ; one=$(status)
http GET /else "" ; two=$(status)
check_is "other methods and paths are refused" "$one $two" "405 404"
check_is "nothing of that was charged" "$(lines_in "$ledger")" 0

post k1 "$eur"
first=$(body)
check_is "the first request charges" "$(status) $(charges k1)" "201 1"
check_not "its answer is no replay" has_header "Idempotent-Replayed: true"
post k1 "$eur"
check_is "a retry gets the same answer" "$(status) $(body)" "201 $first"
check "and is told that it is a replay" has_header "Idempotent-Replayed: true"
post '"k1"' "$eur"
check_is "a quoted key is the same key" "$(body)" "$first"
check_is "the card was charged once" "$(charges k1)" 1
post k1 '{"amount":2000,"currency":"EUR"}'
check_is "another body under this key is refused" "$(status) $(charges k1)" "422 1"
post k1 "$eur" 'Tenant: other'
check_is "another tenant's key is another key" "$(status) $(charges k1)" "201 2"

slow='{"amount":5,"currency":"EUR","slow_ms":3000}'
post_behind slow "$slow"
busy() {
    post slow "$slow" 'Prefer: wait=0'
    [[ $(status) == 409 ]]
}
check "while it runs, who won't wait is told 409" eventually busy
check "and when to come again" has_header "Retry-After: 1"
post slow '{"amount":6,"currency":"EUR","slow_ms":3000}'
check_is "another body is refused while the first one runs" "$(status)" 422
post slow "$slow" 'Prefer: wait=30'
waited=$(body)
check_is "who waits gets the answer" "$(status)" 201
answered "$posting"
check_is "the same as the first one's" "$waited" "$(body)"
check_is "one charge for all of them" "$(charges slow)" 1

# The worker is killed while the handler runs: whichever of its steps it was in, the next worker knows what to do.
order='{"amount":7,"currency":"EUR","slow_ms":1000}'
held() {
    post "killed$ms" "$order" 'Prefer: wait=0'
    [[ $(status) == 409 || $(status) == 201 ]]
}
finished() {
    post "killed$ms" "$order"
    [[ $(status) == 201 ]]
}
for ms in 100 400 700 900; do
    post_behind "killed$ms" "$order"
    eventually held
    sleep "0.$ms"
    kill -KILL "$(worker "$pool")"
    check "a worker killed about $ms ms into its work is replaced" eventually finished
    check_is "and its order was charged once" "$(charges "killed$ms")" 1
    wait "$posting"
done
stop_pool
check_is "the pool stops in order" "$stopped" 0

# The worker kills itself right after the ledger write.
pool --die-after-write 1
post dies "$eur"
check_is "a worker that dies after the write gives no answer" "$(status) $(charges dies)" " 1"
again() {
    post dies "$eur"
    [[ $(status) == 201 ]]
}
check "the retry gets one" eventually again
check_is "the charge that was in the ledger already" "$(body | sed 's/.*"charge":"\([^"]*\)".*/\1/')" \
    "$(sed -n 's/.*"key":"dies".*"charge":"\([^"]*\)".*/\1/p' "$ledger")"
check_is "without charging again" "$(charges dies)" 1
stop_pool

# A worker sleeps beyond its lease and wakes up when another one has taken its key.
long='{"amount":9,"currency":"EUR","slow_ms":5000}'
running() {
    post late "$long" 'Prefer: wait=0'
    [[ $(status) == 409 ]]
}
taken() {
    post late "$long" 'Prefer: wait=30'
    [[ $(status) == 201 ]]
}
pool --lease-ms 500
sleeper_port=$port sleeper=$(worker "$pool")
post_behind late "$long"
check "the sleeper has the key" eventually running
kill -STOP "$sleeper"
pool --lease-ms 500
check "another worker takes the key over" eventually taken
taken_over=$(body)
kill -CONT "$sleeper"
answered "$posting"
check_is "the late one is told that it is late" "$(status)" 503
port=$sleeper_port
post late "$long"
check_is "its retry gets the other one's answer" "$(body)" "$taken_over"
check_is "the card was charged once, by one of them" "$(charges late)" 1

# A charge that cannot be written is not acknowledged, and its key is given back.
pool --ledger /dev/full
post nospace "$eur"
one=$(status)
post nospace "$eur" 'Prefer: wait=0'
check_is "a full ledger is 503, not a charge, and holds no key" "$one $(status)" "503 503"
check "and the answer says why" grep -q 'cannot write the ledger' "$answer"
check_has "and so does the pool" "$work/pool$pool_number.log" "No space left"
stop_pool

# A service with a deadline makes no charge behind it: whoever then sees none in the ledger knows that none will come.
pool --deadline-ms 60000
now=$(date +%s)
post late-by-far "$eur" "X-Request-Start: $((now - 600)).000"
check_is "a request from before its deadline's beginning is refused, and charges nothing" "$(status) $(charges late-by-far)" "503 0"
post late-by-far "$eur" "X-Request-Start: $((now + 3600)).000"
check_is "its key is given back, and a fresh request is charged" "$(status) $(charges late-by-far)" "201 1"
post undated "$eur"
check_is "a request without a start has no deadline" "$(status) $(charges undated)" "201 1"
stop_pool

# The same handler without idem, to see that these checks can fail.
pool --no-idem
post doubled "$eur"
post doubled "$eur"
check_is "without idem a retry charges again" "$(charges doubled)" 2
finish
