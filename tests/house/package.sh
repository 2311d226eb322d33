#!/usr/bin/env bash
# tools/package makes Debian packages that install, load and work: dpkg takes them on top of this very system, nginx reads its
# own /etc/nginx with them, a request is claimed and its retry replayed; and their removal leaves nothing behind.
#
# As root that happens in a copy of the system: an overlay over / in a mount namespace of our own, with processes of its own,
# so that neither the machine's nginx nor a package that is really installed is touched. Otherwise the package is unpacked, and
# nginx loads the module from there.
# timeout: 300 s
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"
command -v dpkg-buildpackage >/dev/null && command -v dh_nginx >/dev/null || {
    echo "skipped: there is no dpkg-buildpackage or no dh_nginx: tools/setup --package gets them"
    exit 77
}
PATH=$PATH:/usr/sbin:/sbin

# Neither optimized nor with names of variables, which takes half the time: what the compiler makes of the sources is tested elsewhere.
said=$(TMPDIR=$scratch IDEM_NO_SETUP=1 DEB_BUILD_OPTIONS=noopt DEB_CFLAGS_APPEND=-g0 "$root/tools/package" --output "$scratch/debs" 2>&1)
report "the packages are built" $? "$said"
module=$(find "$scratch/debs" -name 'libnginx-mod-http-idem_*.deb')
command=$(find "$scratch/debs" -name 'idem_*.deb')
report "there is one of the module and one of the command" $((${#module} == 0 || ${#command} == 0)) "$said"
((failures == 0)) || finish
abi=$(dpkg-query -W -f '${Provides}' nginx-core nginx-light nginx-extras nginx-full nginx 2>/dev/null | grep -oE 'nginx-abi-[0-9.-]+' | head -n 1)
said=$(dpkg-deb -f "$module" Depends)
[[ $abi && $said == *"$abi"* ]]
report "the module depends on the very nginx that loads it" $? "nginx provides '$abi', the package wants $said"
dpkg -x "$module" "$scratch/unpacked"
said=$(nm -D --defined-only "$scratch/unpacked/usr/lib/nginx/modules/ngx_http_idem_module.so" | awk '{ print $3 }' | sort | tr '\n' ' ')
[[ $said == "ngx_module_names ngx_module_order ngx_modules " ]]
report "the module exports what nginx looks up, and nothing else" $? "$said"

# What is between http { and }: the service counts its own requests by giving each answer a number of its own.
site() {
    cat <<END
idem_zone payments path=/dev/shm/idem-package-$$ keys=1000;
server {
    listen unix:$1/front;
    location / { idem payments; proxy_pass http://unix:$1/service:; }
}
server {
    listen unix:$1/service;
    location / { return 201 "charge \$request_id\n"; }
}
END
}
# ask: the head and the body of one POST with that key, over a Unix socket.
ask='
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
s.connect(sys.argv[1] + "/front")
s.sendall(b"POST /charges HTTP/1.1\r\nHost: here\r\nConnection: close\r\nIdempotency-Key: " + sys.argv[2].encode()
          + b"\r\nContent-Length: 2\r\n\r\n{}")
answer = b""
while True:
    got = s.recv(65536)
    if not got:
        break
    answer += got
sys.stdout.write(answer.decode())
'
# What is done with nginx running; $1: the directory of its sockets.
cat >"$scratch/use" <<END
once=\$(python3 -c '$ask' "\$1" k1) && again=\$(python3 -c '$ask' "\$1" k1) && other=\$(python3 -c '$ask' "\$1" k2) || exit 1
[[ \$once == "HTTP/1.1 201 "* && \$once == *"charge "* && \$once != *Idempotency-Replayed* ]] || { echo "first: \$once"; exit 1; }
[[ \$again == *"Idempotency-Replayed: true"* && \${again##*charge } == "\${once##*charge }" ]] || { echo "again: \$again"; exit 1; }
[[ \${other##*charge } != "\${once##*charge }" ]] || { echo "another key: \$other"; exit 1; }
END

# ------------------------------------------------------------------ in a copy of the system
# Runs as process 1 of its own, so that nothing outlives it.
installed() {
    mkdir -p "$scratch/copy"
    unshare --mount --pid --fork --kill-child --propagation private bash -c '
        set -e
        cd "$1"
        mount -t tmpfs tmpfs .
        mkdir upper work new
        mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay new
        mount -t proc proc new/proc
        mount --bind /dev new/dev
        mount -t tmpfs -o mode=1777 tmpfs new/dev/shm
        mount -t tmpfs -o mode=755 tmpfs new/run
        mkdir new/run/packages
        cp "$2" "$3" "$4" new/run/packages/
        cp "$5" new/run/site.conf
        printf "#!/bin/sh\nexit 101\n" >new/usr/sbin/policy-rc.d # no service is started
        chmod 755 new/usr/sbin/policy-rc.d
        chroot new dpkg-query -W nginx >/dev/null || exit 98 # part of the system lies on another disk
        echo mounted
        exec chroot new bash -c "
            set -e
            cd /run/packages
            dpkg -i ./*.deb
            ls /etc/nginx/modules-enabled | grep idem
            rm -f /etc/nginx/sites-enabled/*
            cp /run/site.conf /etc/nginx/conf.d/idem.conf
            nginx -t
            nginx
            bash -x ./use /run
            idem ls --store /dev/shm/idem-package-* | grep -c completed
            nginx -s quit
            rm /etc/nginx/conf.d/idem.conf
            dpkg -P libnginx-mod-http-idem
            nginx -t
            find /etc/nginx /usr/lib/nginx /usr/share/nginx -name \"*idem*\" | sed \"s/^/left: /\"
            echo done
        "' sh "$scratch/copy" "$module" "$command" "$scratch/use" "$scratch/site" 2>&1
}
# ------------------------------------------------------------------ unpacked
unpacked() {
    local place=$scratch/prefix pid i rc=0
    mkdir -p "$place/sockets" && chmod 711 "$scratch" || return 1 # the workers are somebody else
    cp -R "$scratch/unpacked/usr/lib/nginx/modules" "$place/"
    {
        echo "load_module modules/ngx_http_idem_module.so; pid $place/pid; error_log $place/log; daemon off; events { }"
        echo "http { access_log off; client_body_temp_path $place/t1; proxy_temp_path $place/t2; fastcgi_temp_path $place/t3;"
        echo "uwsgi_temp_path $place/t4; scgi_temp_path $place/t5;"
        site "$place/sockets"
        echo "}"
    } >"$place/nginx.conf"
    nginx -t -p "$place" -e "$place/log" -c nginx.conf || return 1
    nginx -p "$place" -e "$place/log" -c nginx.conf &
    pid=$!
    for ((i = 0; i < 200; i++)); do
        [[ -S $place/sockets/front ]] && break
        sleep 0.05
    done
    bash "$scratch/use" "$place/sockets" || rc=1
    kill -TERM "$pid"
    wait "$pid" || rc=1
    rm -rf "/dev/shm/idem-package-$$"
    return "$rc"
}
said=$(unpacked 2>&1)
report "nginx loads the unpacked module, claims a key and replays its answer" $? "$said"
if ((EUID == 0)); then
    site /run >"$scratch/site"
    said=$(installed)
    if [[ $said != *mounted* ]]; then
        echo "skipped (kernel) - the packages install on top of this system: no overlay over / can be made here: ${said##*$'\n'}"
    else
        [[ $said == *done ]]
        report "on top of this system they install, nginx reads its configuration, claims and replays" $? "$said"
        [[ $said == *50-mod-http-idem.conf* ]]
        report "the module is enabled as Debian's other modules are" $? "$said"
        [[ $said == *done && $said != *left:* ]]
        report "their removal leaves nothing behind, and an nginx that starts" $? "$said"
    fi
fi
finish
