#!/usr/bin/env bash
# What tests end is theirs: the id of a process that has ended, and was waited for, is soon another's (they wrap around within minutes when many
# tests run), and nobody is killed for having got it.
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"

next_id=/proc/sys/kernel/ns_last_pid
if ((EUID != 0)); then
    echo "skipped: needs root, for process ids of its own"
    exit 77
elif [[ ! -e $next_id ]]; then
    echo "skipped (kernel): no $next_id"
    exit 77
fi

# spared NAME COMMAND...: COMMAND gets two pipes. It starts something that ends, writes its id to the first, and ends when the second has a line.
# Somebody else gets that id meanwhile, and must outlive it.
spared() {
    local name=$1 said
    shift
    said=$(timeout --kill-after=5 60 unshare --pid --fork --kill-child --mount-proc bash -c '
        next_id=$1 dir=$2
        shift 2
        mkfifo "$dir/ended" "$dir/go"
        "$@" "$dir/ended" "$dir/go" &
        theirs=$!
        read -r id <"$dir/ended"
        sleep 0.1 # some ticks of the clock of start times: ids do not wrap around that fast
        for ((i = 0; i < 100; i++)); do
            echo $((id - 1)) >"$next_id"
            (exec -a "nginx: worker process" sleep 60) &
            (($! == id)) && break
        done
        other=$!
        echo >"$dir/go"
        wait "$theirs" || echo "the test ended with $?"
        ((other == id)) || echo "nobody got the id $id"
        kill -0 "$other" || echo "who had got the id $id was killed"
    ' bash "$next_id" "$(mktemp -d "$scratch/pipes-XXXXXX")" "$@" 2>&1)
    report "$name" $((${#said} > 0)) "$said"
}

spared "a test of the command ends what it started, and nobody else" bash -c '
    IDEM=$(type -P true)
    source "$0"
    start true
    await
    start sleep 60
    rest=${started[-1]}
    kill -STOP "$rest"
    echo "${started[0]}" >"$1"
    read -r _ <"$2"
    clean_up
    trap - EXIT
    ! kill -0 "$rest" 2>/dev/null || echo "what it had started was not killed"
' "$root/tests/cli/lib.bash"

spared "a scene of nginx ends its own workers, and nobody else" /usr/bin/python3 -B -c '
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from support.server import Adopted, Nginx, alive

def worker():  # as the title says
    process = subprocess.Popen(["nginx: worker process"], executable="/bin/cat", stdin=subprocess.PIPE)
    while process.pid not in nginx.workers(os.getpid()):
        pass
    return process

nginx = Nginx("/", "")
nginx.pid, nginx.process = os.getpid(), Adopted(0)
nginx.process.returncode = 0
left, gone = worker(), worker()
gone.kill()
gone.wait()
with open(sys.argv[2], "w") as file:
    print(gone.pid, file=file)
with open(sys.argv[3]) as file:
    file.readline()
nginx.stop()
if left.wait(10) != -9:
    print("a worker that its master had left was not killed")
' "$root/tests/nginx"
finish
