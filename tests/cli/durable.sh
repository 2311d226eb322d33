#!/usr/bin/env bash
# A store with a log, from the command line: create --wal --durability, run --sync, destroy.
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"

log=$work/log

check_is "run --sync wants a store with a log" "$(idem create --keys 100 >/dev/null; status_of idem run --sync --key k -- true)" 125
check_has "and says how to get one" "$work/err" "wal_dir"
idem destroy

check_is "create makes the log's directory" "$(status_of idem create --keys 100 --wal "$log" --durability async)" 0
check_has "and says what is on the disk when" "$work/out" "claims async, answers async"
check "it holds an id and a first file" test -f "$log/id" -a -f "$log/wal-00000000000000000001"
check_is "it is private" "$(stat -c %a "$log")" 700
check_is "run --sync runs" "$(idem run --sync --key paid -- echo yes)" yes
"$IDEM" wal dump "$log" >"$work/dump"
check_has "and its answer is on the disk" "$work/dump" paid
check_is "and is replayed" "$(idem run --key paid -- echo no)" yes
check_is "another store is not made with that log" "$(status_of "$IDEM" create --store "$work/other" --wal "$log")" 124
check_has "and why is said" "$work/err" "the log of a store"
check_is "--durability without --wal is refused" "$(status_of "$IDEM" create --store "$work/other" --durability sync)" 125
check_is "a durability that is none, too" "$(status_of "$IDEM" create --store "$work/other" --wal "$work/l" --durability often)" 125
check_is "the store's removal takes the log with it" "$(status_of idem destroy; ls "$log" | grep -c '^wal-')" $'0\n0'
check_is "the directory may be used again, by a relative name" \
    "$(cd "$work" && status_of "$IDEM" create --store "$store" --wal log --json)" 0
check_has "and --json tells the defaults" "$work/out" '"durability_claim":"async","durability_complete":"sync"'
idem destroy

finish
