#!/usr/bin/env bash
# tools/pool/audit on ledgers and acknowledgements made by hand: it is able to find what it looks for.
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"
audit=$(dirname "${BASH_SOURCE[0]}")/../../tools/pool/audit
ledger=$work/ledger acks=$work/acks

# charge TENANT KEY CHARGE AMOUNT: a line of the ledger, as the pool writes it.
charge() {
    printf '%-255s\n' "{\"key\":\"$2\",\"tenant\":\"$1\",\"token\":\"1\",\"charge\":\"$3\",\"amount\":$4,\"currency\":\"EUR\",\"attempt\":1}"
}
# ack TENANT KEY CHARGE AMOUNT [ANSWER]
ack() { printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "${5:-{\"charge\":\"$3\"\}}"; }

# fresh: two tenants with the same key, one of them acknowledged twice, and a charge nobody saw acknowledged.
fresh() {
    { charge a k1 ch_1 100; charge b k1 ch_2 250; charge a k2 ch_3 5; } >"$ledger"
    { ack a k1 ch_1 100; ack b k1 ch_2 250; ack a k1 ch_1 100; } >"$acks"
}
# counted NAME STATUS FIELD=VALUE...: the audit's exit status and what it printed.
counted() {
    local name=$1 wanted=$2 status=0 field
    shift 2
    "$audit" "$ledger" "$acks" >"$work/out" 2>"$work/err" || status=$?
    for field in "$@"; do
        grep -qx "audit_$field" "$work/out" || status="$status, no audit_$field"
    done
    check_is "$name" "$status" "$wanted"
}

fresh
counted "books that agree pass" 0 charges=3 keys=3 double=0 acknowledged=2 lost=0 wrong_charge=0 wrong_amount=0 different=0 \
    unacknowledged=1 torn=0
charge a k1 ch_4 100 >>"$ledger"
counted "a double charge is counted" 1 charges=4 keys=3 double=1 lost=0
fresh
ack b k9 ch_9 1 >>"$acks"
counted "a lost charge is counted" 1 lost=1 wrong_charge=1 double=0
fresh
ack a k1 ch_7 100 '{"charge":"ch_1"}' >>"$acks"
counted "an acknowledged charge that is not in the ledger is counted" 1 lost=0 wrong_charge=1 different=0
fresh
ack a k1 ch_3 100 '{"charge":"ch_1"}' >>"$acks"
counted "another key's charge is not this key's" 1 wrong_charge=1
fresh
{ charge a k3 ch_5 101; } >>"$ledger"
ack a k3 ch_5 100 >>"$acks"
counted "a charge over another amount is counted" 1 wrong_amount=1 double=0 lost=0
fresh
ack a k1 ch_1 100 '{"charge":"ch_1" }' >>"$acks"
counted "an answer that differs in a byte is counted" 1 different=1 wrong_charge=0
fresh
charge a k4 ch_6 7 | head -c 70 >>"$ledger"
counted "a torn line is counted, and is no charge" 1 torn=1 charges=3
fresh
printf 'a\tk1\tch_1\n' >>"$acks"
counted "a torn acknowledgement is counted" 1 torn=1
fresh
check_is "a missing file is no clean book" "$(status_of "$audit" "$ledger" "$work/none") $(status_of "$audit" "$ledger")" "2 2"
: >"$acks"
: >"$ledger"
counted "empty books are counted as empty" 0 charges=0 acknowledged=0
finish
