# Sourced by tools/demo: its act with nginx. nginx, with the module, before a pool that charges for every request it gets and
# knows nothing of idem (idem_pool --no-idem).
#
# Owns: one nginx at a time, master and workers ($nginx_pid is the master, which we started and have not reaped), its
# configuration and logs in the act's directory, and tools/pool/settle beside it ($settle_pid).
# Trouble: random workers of that nginx are killed with SIGKILL, it is told to read its configuration again (SIGHUP), and the
# pool's workers kill themselves between a charge and its answer.
# What nobody can know at such a moment, whether the charge was made, nginx says (409, outcome-unknown) and settle finds out.
# If we die here: a demo killed with SIGKILL leaves nothing: the kernel sends nginx's master SIGTERM (PR_SET_PDEATHSIG).

NGINX_WORKERS=4
KILL_MS=450       # one worker is killed about so often
RELOAD_EVERY=6    # kills
DEADLINE_MS=3000  # the service makes no charge so long after a request's start; orders take half of slow_ms until then
KILLS_WANTED=8    # and more time, up to four times as much, if there were fewer
nginx_pid="" settle_pid="" nginx_port="" nginx_module=""

# require_nginx: sets $nginx_module; dies with a word that helps.
require_nginx() {
    command -v nginx >/dev/null || PATH=$PATH:/usr/sbin:/sbin
    command -v nginx >/dev/null || die "--nginx: there is no nginx; tools/setup --nginx installs Debian's"
    nginx_module=$bin/../../ngx_http_idem_module.so
    [[ -e $nginx_module ]] || die "--nginx: $nginx_module is not there; it is built where nginx-dev is installed (tools/setup --nginx)"
    nginx_module=$(realpath -- "$nginx_module") || exit 2
    idem=$(realpath -- "$bin/../../idem") || die "--nginx: $bin/../../idem, the command, is not there"
}

# nginx_conf DIR STORE|off AMBIGUOUS
nginx_conf() {
    local dir=$1 zone="" idem="idem off;" user=""
    if [[ $2 != off ]]; then
        zone="idem_zone charges path=$2 keys=$keys response=512 ttl=1h lease=10s;"
        idem="idem charges; idem_wait 2s; idem_scope \$http_tenant; idem_ambiguous $3;"
    fi
    if ((EUID == 0)); then user="user www-data;"; fi
    cat <<CONF
load_module $nginx_module;
$user
worker_processes $NGINX_WORKERS;
worker_shutdown_timeout 5s;
daemon off;
pid $dir/nginx.pid;
error_log $dir/nginx.log notice;
events { worker_connections 1024; }
http {
    $zone
    map \$idem_outcome \$idem_unknown { default 0; unknown 1; }
    log_format scope '\$idem_scope \$http_tenant';
    client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi; scgi_temp_path $dir/scgi;
    client_body_buffer_size 64k;
    access_log off;
    upstream service { server 127.0.0.1:$port; keepalive 16; }
    server {
        listen 127.0.0.1:$nginx_port;
        location / {
            $idem
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Request-Start \$msec;
            access_log $dir/scopes scope if=\$idem_unknown;
        }
        location = /idem-status { idem_status on; }
    }
}
CONF
}

# fetch PATH: the body of what nginx answers, over bash's own sockets.
fetch() {
    local line
    exec 8<>"/dev/tcp/127.0.0.1/$nginx_port" || return 1
    printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' "$1" >&8
    while IFS= read -r -t 10 line <&8 && [[ $line != $'\r' ]]; do :; done
    timeout 10 cat <&8
    exec 8>&-
}
serves() { { fetch /idem-status?format=prometheus >/dev/null; } 2>/dev/null; }

# start_nginx DIR STORE|off AMBIGUOUS: sets $nginx_pid and $nginx_port; fails, saying why, if it doesn't serve.
start_nginx() {
    local dir=$1 i tries
    for ((tries = 0; tries < 20; tries++)); do
        nginx_port=$((20000 + RANDOM % 12000)) # below those that the kernel hands out
        if { : <"/dev/tcp/127.0.0.1/$nginx_port"; } 2>/dev/null; then continue; fi
        nginx_conf "$@" >"$dir/nginx.conf"
        setpriv --pdeathsig TERM nginx -e "$dir/nginx.log" -c "$dir/nginx.conf" 2>>"$dir/nginx.said" &
        nginx_pid=$!
        for ((i = 0; i < 200; i++)); do
            serves && return 0
            gone "$nginx_pid" && break
            sleep 0.05
        done
        if ! gone "$nginx_pid"; then break; fi
        wait "$nginx_pid"
        nginx_pid=
        grep -q 'Address already in use' "$dir/nginx.said" "$dir/nginx.log" || break
    done
    cat "$dir/nginx.said" >&2
    echo "tools/demo: nginx did not start" >&2
    return 1
}

nginx_workers() { read -ra workers_now <"/proc/$nginx_pid/task/$nginx_pid/children"; } 2>/dev/null

# await_nginx SECONDS: true when the master is gone.
await_nginx() {
    local i
    for ((i = 0; i < $1 * 10; i++)); do
        gone "$nginx_pid" && return 0
        sleep 0.1
    done
    return 1
}
stop_nginx() {
    local pid status=0 workers_now=()
    [[ $nginx_pid ]] || return 0
    kill -QUIT "$nginx_pid" 2>/dev/null
    if ! await_nginx 15; then
        echo "tools/demo: nginx did not stop in 15 s; killing it" >&2
        status=1
        nginx_workers
        kill -KILL "$nginx_pid" 2>/dev/null
        for pid in "${workers_now[@]}"; do kill -KILL "$pid" 2>/dev/null; done
    fi
    wait "$nginx_pid" 2>/dev/null
    nginx_pid=
    return "$status"
}
stop_settle() {
    local status=0
    [[ $settle_pid ]] || return 0
    kill -TERM "$settle_pid" 2>/dev/null
    wait "$settle_pid" || status=$?
    settle_pid=
    return "$status"
}

# trouble DIR: until the storm ends.
trouble() {
    local dir=$1 began=$SECONDS kills=0 reloads=0 workers_now=()
    while kill -0 "$storm_pid" 2>/dev/null; do
        sleep "0.$(printf %03d $((KILL_MS / 2 + RANDOM % KILL_MS)))"
        # Then the orders that are under way are let come to their end.
        ((SECONDS - began < seconds || (kills < KILLS_WANTED && SECONDS - began < 4 * seconds))) || continue
        nginx_workers
        ((${#workers_now[@]})) || continue
        kill -KILL "${workers_now[RANDOM % ${#workers_now[@]}]}" 2>/dev/null && kills=$((kills + 1))
        if ((kills % RELOAD_EVERY == 0)); then
            kill -HUP "$nginx_pid"
            reloads=$((reloads + 1))
        fi
    done
    printf 'nginx_%s\n' "killed=$kills" "reloads=$reloads" >"$dir/trouble"
}

# gateway NAME STORE|off STORM_ARGUMENTS...: the act, once. Its status: 0 if all of it ended in order.
gateway() {
    local dir=$work/$1 where=$2 ok=0 ambiguous=hold settle=()
    shift 2
    case $fault in
    abandon) ambiguous=abandon ;;
    skip-reconcile) settle=(--blind) ;;
    esac
    mkdir -m 711 "$dir" || return 1
    start_pool "$dir" --no-idem --deadline-ms "$DEADLINE_MS" --die-after-write 0.03 || return 1
    start_nginx "$dir" "$where" "$ambiguous" || return 1
    if [[ $where != off ]]; then
        "$root/tools/pool/settle" --idem "$idem" --store "$where" --ledger "$dir/ledger" --scopes "$dir/scopes" \
            --deadline-ms "$DEADLINE_MS" --counts "$dir/settled" "${settle[@]}" 2>>"$dir/settle.log" &
        settle_pid=$!
    fi
    port=$nginx_port start_clients "$dir" storm --change-late "$@"
    trouble "$dir"
    await_clients || ok=1
    stop_settle || { cat "$dir/settle.log" >&2; ok=1; }
    fetch '/idem-status?format=prometheus' >"$dir/metrics" || ok=1
    stop_nginx || ok=1
    if [[ $where != off ]]; then
        # Every invariant of the store, after all that killing.
        "$idem" verify --store "$where" >"$dir/verify" 2>&1
        echo "nginx_store_verified=$?" >>"$dir/trouble"
        sed -n 's/^idem_requests_total{.*outcome="\([a-z_]*\)".*} /nginx_\1=/p' "$dir/metrics" >>"$dir/trouble"
    fi
    count "$dir" "$dir/storm.acks" || ok=1
    cat "$dir/trouble" >>"$dir/counts"
    [[ ! -e $dir/settled ]] || cat "$dir/settled" >>"$dir/counts"
    return "$ok"
}

act_nginx() {
    local keys sent
    keys=$((seconds > 12 ? seconds * 4000 : 50000))
    gated=$work/gated/counts ungated=$work/ungated/counts
    chmod 711 "$work" "$store_dir" # nginx's workers are somebody else
    echo "nginx with idem before a plain service: $NGINX_WORKERS and $workers workers, new orders for $seconds s, seed $seed"
    gateway gated "$store_dir/store" --seconds "$seconds" --killed-between 5 || return 1
    [[ $fault == none ]] || return 0
    sent=$(sed -n 's/^storm_orders=//p' "$work/gated/storm")
    echo "nginx, the same orders with idem off"
    gateway ungated off --seconds $((seconds * 4)) --orders "${sent:-0}"
}
