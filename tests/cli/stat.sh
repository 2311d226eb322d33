#!/usr/bin/env bash
# stat, for people, in JSON and for Prometheus; top in plain frames and on a terminal.
source "$(dirname "${BASH_SOURCE[0]}")/lib.bash"

number() { grep -o "\"$1\":[0-9]*" | head -n 1 | cut -d: -f2; }

idem create --keys 1000 --ttl 36h --lease 45s >/dev/null
seq 300 | idem dedup >/dev/null
seq 200 | idem dedup >/dev/null
idem claim --key held --hold --lease 10m >/dev/null
idem release --key held
idem claim --key running --lease 10m >/dev/null

# ---------------------------------------------------------------- for people
idem stat >"$work/stat"
check_is "stat ends well" $? 0
check_has "stat names the store" "$work/stat" "store      $store"
check_has "stat tells the fill" "$work/stat" "302 of the 1,000 it was made for (30.2 %)"
check_has "stat tells the defaults" "$work/stat" "answers are kept 1d12h, leases last 45s"
check_has "stat tells what is used and left" "$work/stat" "1 of 512 handles"
check "stat tells rates since it was made" grep -qE '^  claimed +302 +[0-9.]+k?$' "$work/stat"
check "stat tells how many were answered from the store" grep -qE '^  answered from the store +200 ' "$work/stat"
check "and their share" grep -qE '^  of these answered from the store +39.8 %' "$work/stat"
check "stat tells about huge pages" grep -q '^huge pages ' "$work/stat"
if grep -q '^huge pages none: the tmpfs' "$work/stat"; then
    check "and which command gives them" grep -q 'mount -o remount,huge=advise /' "$work/stat"
fi
check_is "without --walk keys are not counted by state" "$(grep -c 'in-progress,' "$work/stat")" 0
idem stat --walk >"$work/stat"
check_has "with --walk they are" "$work/stat" "1 in-progress, 300 completed, 0 abandoned, 1 lost, 1 of these held"
check_has "and the oldest is named" "$work/stat" "in progress longest: running"

# ---------------------------------------------------------------- JSON
idem stat --json --walk >"$work/json"
check_is "--json has the counters" "$(number claimed <"$work/json") $(number replayed <"$work/json")" "302 200"
check_is "times are milliseconds" "$(number ttl_ms <<<"$(sed 's/.*lanes_max//' "$work/json")") $(number lease_ms <"$work/json")" "129600000 45000"
check_is "--walk counts keys" "$(number held <"$work/json") $(number in-progress <"$work/json")" "1 1"
check_is "it is one line" "$(wc -l <"$work/json")" 1
check_is "--json and --prometheus exclude each other" "$(status_of idem stat --json --prometheus)" 125
check_is "a store that is not there is trouble" "$(status_of "$IDEM" stat --store "$work/none")" 124

# ---------------------------------------------------------------- Prometheus
# exposition FILE: prints what breaks the rules of the text format; values of labels are cut out first.
exposition() {
    tail -c 1 "$1" | od -An -c | grep -q '\\n' || echo "the last line has no newline"
    sed -E 's/"([^"\\]|\\["\\n])*"/""/g' "$1" | awk '
        /^# HELP [a-z_]+ ./ { if ($3 in help) print FNR ": second HELP of " $3; help[$3] = 1; family = $3; next }
        /^# TYPE [a-z_]+ (counter|gauge)$/ {
            if ($3 != family || $3 in type) print FNR ": TYPE without its HELP: " $3
            type[$3] = $4
            if (($4 == "counter") != ($3 ~ /_total$/)) print FNR ": only counters end in _total: " $3
            next
        }
        /^[a-z_]+\{[a-z]+=""(,[a-z]+="")*\} ([0-9]+(\.[0-9]+)?|\+Inf)$/ {
            name = $1; sub(/\{.*/, "", name)
            if (name != family || !(name in type)) print FNR ": sample outside of its family: " name
            next
        }
        { print FNR ": neither comment nor sample: " $0 }'
    grep -v '^#' "$1" | sed -E 's/ [^ ]+$//' | sort | uniq -d | sed 's/^/twice: /'
}
idem stat --prometheus --walk >"$work/prom"
check_is "--prometheus ends well" $? 0
check_is "it keeps the rules of the exposition format" "$(exposition "$work/prom")" ""
sed '/^# TYPE idem_lanes gauge/d; s/^idem_waits_total{/idem_waits{/' "$work/prom" >"$work/broken"
check "a page that breaks them is told apart" test -n "$(exposition "$work/broken")"
check_has "counters carry the store as a label" "$work/prom" "idem_begins_total{store=\"$store\",verdict=\"claimed\"} 302"
check_has "verdicts are a label" "$work/prom" "idem_begins_total{store=\"$store\",verdict=\"replay\"} 200"
check_has "times are seconds" "$work/prom" "idem_lease_seconds{store=\"$store\"} 45.000"
check_has "--walk counts held keys" "$work/prom" "idem_keys{store=\"$store\",state=\"held\"} 1"
check_has "each once" "$work/prom" "idem_keys{store=\"$store\",state=\"lost\"} 0"
check "--walk tells the age of the oldest in progress" grep -qE '^idem_oldest_in_progress_seconds\{store="[^"]*"\} [0-9]+\.[0-9]{3}$' "$work/prom"
plain=$store
store=$work/$'a"b\\c\nd'
idem create --keys 16 --ttl forever >/dev/null
idem stat --prometheus >"$work/prom"
check_is "a store with odd bytes in its name keeps the rules too" "$(exposition "$work/prom")" ""
check_has "they are escaped" "$work/prom" 'a\"b\\c\nd"'
check "forever is +Inf" grep -qE '^idem_ttl_seconds\{.*\} \+Inf$' "$work/prom"
store=$plain

# ---------------------------------------------------------------- top, plain
idem top --batch 3 --interval 100ms >"$work/top"
check_is "top --batch ends well" $? 0
check_is "it prints so many frames" "$(grep -c '^idem top ' "$work/top")" 3
check_is "they are plain" "$(LC_ALL=C grep -c '[^ -~]' "$work/top")" 0
check "they are at most 79 columns, but for the store's name" test "$(grep -v '^idem top\|^oldest' "$work/top" | wc -L)" -le 79
check_has "top tells the fill" "$work/top" "302 of 1,000 (30.2 %)"
check_has "top tells the share of answers" "$work/top" "39.8 % of 502 since it was made"
check_has "top tells lost and held keys" "$work/top" "1 in progress, 1 lost (1 held), 0 abandoned"
check "top tells the oldest attempt" grep -qE '^oldest    .*, lease .* left, lease-only: running$' "$work/top"
check "top tells memory by length of life" grep -qE '^  claims +[0-9]+ region' "$work/top"
check_is "without a terminal top prints one frame" "$(idem top --interval 50ms | grep -c '^idem top ')" 1
traffic() { for ((i = 0; i < 200; i++)); do [[ -e $work/enough ]] && break; seq "$((i * 5))" "$((i * 5 + 4))" | idem dedup --scope "t$i" >/dev/null; done; }
traffic &
started+=($!)
idem top --batch 2 --interval 1s >"$work/top"
touch "$work/enough"
check "top tells current rates" grep -qE '^claimed +[1-9][0-9.]*k? ' "$work/top"
check_is "no frames are a usage error" "$(status_of idem top --batch 0)" 125
check_is "top needs a store" "$(status_of "$IDEM" top --store "$work/none")" 124
start "$IDEM" top --store "$store" --batch 1000000 --interval 50ms >"$work/endless"
eventually test -s "$work/endless"
kill -TERM "${started[-1]}"
check "SIGTERM ends plain frames" eventually gone "${started[-1]}"
wait "${started[-1]}"
check_is "with status 0" $? 0
start "$IDEM" top --store "$store" --batch 1000000 --interval 50ms > >(head -n 1 >"$work/one")
check "so does a reader that goes away" eventually gone "${started[-1]}"

# ---------------------------------------------------------------- top, on a terminal
if ! command -v script >/dev/null; then
    echo "skipped: script (bsdutils) is not installed, so there is no terminal to show top on"
    finish
fi
enter=$'\e[?1049h' leave=$'\e[?1049l'
# on_terminal NAME INTERVAL [COMMAND]: top on a terminal of its own, 24 x 80; what it shows goes to $work/NAME.shown, what is
# written to descriptor 9 is typed. COMMAND runs on the same terminal beside it. Its id goes to $work/NAME.pid.
on_terminal() {
    local name=$1 interval=$2 beside=${3:-true}
    cat >"$work/$name.run" <<END
trap : INT # a typed ^C is for top
stty rows 24 cols 80
stty -g >'$work/$name.before'
echo \$\$ >'$work/$name.shell'
{ $beside; } &
sh -c 'echo \$\$ >$work/$name.pid; exec $IDEM top --store $store --interval $interval'
echo "\$?" >'$work/$name.status'
wait
stty -g >'$work/$name.after'
END
    mkfifo "$work/$name.keys"
    exec 9<>"$work/$name.keys"
    env --default-signal script -qfc "sh $work/$name.run" "$work/$name.shown" <"$work/$name.keys" >/dev/null 2>&1 9>&- &
    started+=($!)
    eventually shows "$name" $'\e[J' # the end of a frame
}
shows() { grep -qaF "$2" "$work/$1.shown" 2>/dev/null; }
# left NAME: it ended, and the terminal is as before.
left() {
    eventually test -s "$work/$1.after"
    check_is "top ended well ($1)" "$(cat "$work/$1.status")" 0
    check "the terminal has its settings again ($1)" cmp "$work/$1.before" "$work/$1.after"
    check_is "and its ordinary screen, with a cursor ($1)" \
        "$(grep -aoF "$enter" "$work/$1.shown" | wc -l) $(grep -aoF "$leave" "$work/$1.shown" | wc -l) $(grep -aoF $'\e[?25h' "$work/$1.shown" | wc -l)" "1 1 1"
    exec 9>&-
    eventually gone "${started[-1]}"
}

on_terminal key 100ms
check "top takes the alternate screen" shows key "$enter"
check "and draws over it again and again" eventually shows key $'\e[H'
printf 'xyq' >&9
left key

on_terminal term 1h
kill -TERM "$(cat "$work/term.pid")"
left term

on_terminal int 1h
printf '\003' >&9
left int

# A smaller screen: the next frame is cut to it.
on_terminal resize 1h "until [ -e $work/smaller ] || [ ! -e $work ]; do sleep 0.05; done; stty rows 5 cols 30 </dev/tty"
touch "$work/smaller"
# fits: the newest frame, from where the cursor went home, is whole and not larger than the screen.
fits() {
    tr -d '\r\n' <"$work/resize.shown" | grep -aqE $'\e\\[J$' || return 1
    awk -v RS=$'\e\\[H' 'END { print }' "$work/resize.shown" | tr -d '\r' | sed 's/\x1b\[[KJ]//g' >"$work/resized"
    (($(wc -L <"$work/resized") == 30 && $(grep -c . "$work/resized") <= 5))
}
check "a resize draws a frame at once, cut to the new size" eventually fits
printf q >&9
left resize

# ^Z gives the terminal back, and fg takes it again. That takes a shell with job control.
cat >"$work/jobs.run" <<END
stty rows 24 cols 80
stty -g >'$work/jobs.before'
'$IDEM' top --store '$store' --interval 1h
stty -g >'$work/jobs.stopped'
until [ -e '$work/jobs.go' ] || [ ! -e '$work' ]; do sleep 0.05; done
fg >/dev/null
echo "\$?" >'$work/jobs.status'
stty -g >'$work/jobs.after'
END
mkfifo "$work/jobs.keys"
exec 9<>"$work/jobs.keys"
env --default-signal script -qfc "bash -m $work/jobs.run" "$work/jobs.shown" <"$work/jobs.keys" >/dev/null 2>&1 9>&- &
started+=($!)
eventually shows jobs $'\e[J'
printf '\032' >&9
check "a typed ^Z stops top" eventually test -s "$work/jobs.stopped"
check "the terminal has its settings while it is stopped" cmp "$work/jobs.before" "$work/jobs.stopped"
check "and its ordinary screen" shows jobs "$leave"
touch "$work/jobs.go"
twice() { (($(grep -aoF "$enter" "$work/jobs.shown" | wc -l) == 2)); }
check "fg takes the screen again" eventually twice
printf q >&9
check "and q ends it" eventually test -s "$work/jobs.after"
check_is "with the terminal as it was" "$(cat "$work/jobs.status") $(cat "$work/jobs.after")" "0 $(cat "$work/jobs.before")"
exec 9>&-

# The store goes away: a message on the ordinary screen.
store=$work/brief
idem create --keys 16 >/dev/null
on_terminal gone 200ms
idem destroy
eventually test -s "$work/gone.after"
check_is "a store that is destroyed ends top" "$(cat "$work/gone.status")" 124
check "with a message on the ordinary screen" grep -qaF "idem: the store's figures can't be read" <(sed "s/.*$(printf '\033')\[?1049l//" "$work/gone.shown")
exec 9>&-
finish
