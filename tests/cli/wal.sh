#!/usr/bin/env bash
# recover, and wal ls, dump, verify, stat: a store from its log, what is damaged is refused, and what salvage keeps.
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"

log=$work/log
number() { grep -o "\"$1\":[0-9]*" | head -n 1 | cut -d: -f2; }
reboot() { rm -rf "$store"; } # what one leaves of it
# damage FILE OFFSET: other bytes there.
damage() { printf '\377\376\375\374' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
first() { find "$log" -name 'wal-*[0-9]' | sort | head -n 1; }

idem create --keys 1000 --wal "$log" --durability sync >/dev/null
check_is "a store with a log is made" $? 0
seq 1 20 | sed 's/^/line-/' | idem dedup >/dev/null
idem run --key charge -- echo "charged once" >/dev/null
claimed=$(idem claim --key running --lease 10m | sed -n "s/^IDEM_TOKEN='\(.*\)'$/\1/p")
idem mark --key running --token "$claimed" 'half way'

# ---------------------------------------------------------------- wal
"$IDEM" wal dump "$log" >"$work/dump"
check_is "dump ends well" $? 0
check_has "dump has the claim and its mark" "$work/dump" "mark half\\x20way"
check_has "dump has the answer" "$work/dump" "key charge status 0"
check_is "dump --json has one object a record" "$("$IDEM" wal dump --json "$log" | wc -l)" "$(wc -l <"$work/dump")"
check_has "bodies are printed on request" <("$IDEM" wal dump --body "$log") 'charged\x20once\n'
check_is "without it they are not" "$(grep -c 'charged' "$work/dump")" 0
check_has "ls lists the files" <("$IDEM" wal ls "$log") "wal-00000000000000000001"
check_has "verify says that the log is sound" <("$IDEM" wal verify "$log") "ok: "
check_is "and ends with 0" "$(status_of "$IDEM" wal verify "$log")" 0
check_has "stat counts by kind" <("$IDEM" wal stat "$log") "answer"
check_is "a directory without a log is trouble" "$(status_of "$IDEM" wal ls "$work/none")" 124
for words in "ls" "ls relative" "frob $log" "ls --body $log" "ls $log more"; do
    # shellcheck disable=SC2086 # several words
    check_is "wal $words is a wrong command line" "$(status_of "$IDEM" wal $words)" 125
done
check_has "why tells that the answer is durable" <(idem why --key charge) "durable, at position"
check_has "Prometheus has the log's figures" <(idem stat --prometheus) "idem_log_durable_position"
check_is "its histogram of syncs is whole: rising buckets, the last one the count and all syncs, a sum" "$(idem stat --prometheus |
    awk '/^idem_log_fsync_seconds_bucket/ { if ($NF + 0 < last) bad = 1; last = $NF + 0 }
        /^idem_log_fsync_seconds_sum/ { sum = $NF } /^idem_log_fsync_seconds_count/ { n = $NF } /^idem_log_syncs_total/ { syncs = $NF }
        END { print (!bad && n > 0 && n == last && n == syncs && sum > 0) }')" 1
check_has "stat tells how the log is" <(idem stat) "log        fine"

# ---------------------------------------------------------------- recover
check_is "a store that is there is not replaced unasked" "$(status_of idem recover --wal "$log")" 124
check_has "and says how to ask" "$work/err" "--replace"
check_is "its keys are still there" "$(idem run --key charge -- echo "charged twice")" "charged once"
reboot
check_is "--check changes nothing" "$(status_of idem recover --check --wal "$log") $(test -e "$store"; echo $?)" "0 1"
idem recover --wal "$log" >"$work/said"
check_is "recover ends well" $? 0
check_has "and tells what it found" "$work/said" "21 completed, 1 lost in the middle"
check_is "a completed key replays" "$(idem run --key charge -- echo "charged twice")" "charged once"
check_is "lines that were written are not written again" "$(seq 1 21 | sed 's/^/line-/' | idem dedup)" "line-21"
status_of idem claim --key running >/dev/null
check_has "the running one is reclaimed at once" "$work/out" "half way"
check_has "why it was lost is told" <(idem why --key running) "token"
check_is "tokens go on growing" "$(($(sed -n "s/^IDEM_TOKEN='\(.*\)'$/\1/p" "$work/out") > claimed))" 1
idem recover --replace --json --wal "$log" >"$work/json"
check_is "--replace does so" "$?" 0
check_is "--json has the counts" "$(number completed <"$work/json")" 22
for words in "" "--wal relative" "--wal $log --now yesterday" "--wal $log --check --replace"; do
    # shellcheck disable=SC2086 # several words
    check_is "recover $words is a wrong command line" "$(status_of idem recover $words)" 125
done

# ---------------------------------------------------------------- damage
reboot
cp -r "$log" "$work/kept"
damage "$(first)" 4200
check_is "damage is refused" "$(status_of idem recover --wal "$log")" 124
check_has "with the file" "$work/err" "$(first): at byte"
check_is "and no store is made" "$(test -e "$store/root"; echo $?)" 1
check_is "wal verify says so, too" "$(status_of "$IDEM" wal verify "$log")" 1
check_is "wal ls says so, too" "$(status_of "$IDEM" wal ls "$log")" 1
check_is "salvage says that something is lost" "$(status_of idem recover --salvage --wal "$log")" 1
check_has "and where" "$work/out" "are lost"
check_is "the damaged file is kept" "$(find "$log" -name '*.damaged' | wc -l)" 1
check_is "what is good is there" "$(idem run --key charge -- echo "charged twice")" "charged once"
check_is "the log is sound again" "$(status_of "$IDEM" wal verify "$log")" 0
reboot
rm -rf "$log" && mv "$work/kept" "$log"
rm "$(first)"
check_is "a missing file is refused" "$(status_of idem recover --wal "$log")" 124
check_has "by its name" "$work/err" "missing"

# ---------------------------------------------------------------- a terminal
if command -v script >/dev/null; then
    log2=$work/log2
    "$IDEM" create --store "$work/two" --keys 1000 --wal "$log2" >/dev/null
    "$IDEM" run --store "$work/two" --key k -- true
    rm -rf "$work/two"
    script -qec "'$IDEM' recover --store '$work/two' --wal '$log2'" /dev/null >"$work/screen" 2>&1
    check_has "on a terminal there is a bar" "$work/screen" "100 %"
    check_has "with records" "$work/screen" "records"
else
    echo "# skipped: script(1) is not there, so no terminal for the bar"
fi
finish
