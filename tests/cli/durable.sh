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

# ---------------------------------------------------------------- dedup: many lines, one wait for the disk
# log_figure NAME: of `idem stat`.
log_figure() { idem stat --json | grep -o "\"$1\":[0-9]*" | head -n 1 | cut -d: -f2; }
idem create --keys 2000 --wal "$log" >/dev/null
check_not "what lives in a log is not told before it was counted" grep -q "of it live" <(idem stat)
seq 1000 >"$work/lines"
check_is "dedup passes 1000 lines" "$(idem dedup <"$work/lines" | wc -l)" 1000
check "they are all on the disk at its end" test "$("$IDEM" wal dump "$log" | grep -c completed)" = 1000
syncs=$(log_figure syncs)
check "and did not take a sync each, but $syncs" test "$syncs" -lt 500
idem destroy

# ---------------------------------------------------------------- a reboot: the store is gone, its log is there
check_is "run --sync makes no store, which would have no log" "$(status_of idem run --sync --key paid -- touch "$work/ran")" 124
check_not "nor is one there then" test -e "$store"
check_is "--wal makes none either, or an unmounted disk would look like first use" \
    "$(status_of idem run --wal "$log" --key paid -- touch "$work/ran")" 124
check_has "and that is said" "$work/err" "idem create --wal"
check_not "nothing ran" test -e "$work/ran"
idem create --keys 100 --wal "$log" >/dev/null
idem run --wal "$log" --key paid -- echo yes >/dev/null
rm -rf "$store"
check_is "a look at a store that is gone is refused" "$(status_of idem stat)" 124
check_has "and recovery is named" "$work/err" "idem recover"
for i in 1 2 3 4; do idem run --wal "$log" --key paid -- echo no >"$work/again.$i" & started+=($!); done
for i in 1 2 3 4; do wait "${started[-$i]}"; done
check_is "four at once after a reboot bring it back with run --wal, and none runs again" "$(cat "$work"/again.*)" $'yes\nyes\nyes\nyes'
rm -rf "$store"
check_is "so does claim, with a relative path" "$(cd "$work" && status_of idem claim --wal log --key paid)" 11
rm -rf "$store"
idem dedup --wal "$log" <<<line >/dev/null
rm -rf "$store"
check_is "and dedup" "$(idem dedup --wal "$log" --on-dup print <<<line 2>&1 >/dev/null)" line
idem destroy
idem claim --key other >/dev/null
check_is "a store without a log is not taken for the one that is meant" "$(status_of idem run --wal "$log" --key paid -- echo no)" 125
check_has "and why is said, too" "$work/err" "has no log"
idem destroy

finish
