#!/usr/bin/python3
"""What a configuration may say: what is refused and where it stands, what is warned of, what nginx -t leaves alone, and what
a reload may change under a live zone. Most checks only ask nginx -t; one nginx serves meanwhile, to be disturbed."""
import itertools
import os
import re
import signal
import stat
import subprocess

from support import server
from support.checks import eventually, same, true
from support.client import replayed
from support.scene import Scene

scene = Scene(http="""
    idem_zone z path={shm}/z keys=1000;
    idem z;
    idem_methods POST;
""", server="""
        location /a { proxy_pass http://{up}; }
        location /off { idem off; proxy_pass http://{up}; }
        location /get { idem_methods GET; proxy_pass http://{up}; }
        location /scope { idem_scope $http_x_tenant; proxy_pass http://{up}; }
""", expected=[r"\[emerg\] .*idem"])

_numbers = itertools.count(1)
SKELETON = """load_module {module};
pid {dir}/other.pid;
error_log stderr info;
events {{ }}
http {{
    access_log off;
{body}
}}
"""


def judged(body):
    """nginx -t of an http block: (accepted, what it says, the file)."""
    path = f"{scene.dir}/t{next(_numbers)}.conf"
    body = re.sub(r"server \{", f"server {{ listen 127.0.0.1:{server.free_port()};", body)
    with open(path, "w") as file:
        file.write(SKELETON.format(module=server.MODULE, dir=scene.dir, body=scene.fill(body)))
    status, said = scene.nginx.tested(path)
    return status == 0, said, path


def line_of(body, piece):
    """The line of the file on which this piece of the body's text stands."""
    return 7 + scene.fill(body)[:scene.fill(body).index(piece)].count("\n")


def refused(body, words, at):
    """[emerg] with these words, and the line of the directive that is to blame."""
    accepted, said, path = judged(body)
    true(not accepted, f"accepted: {body}")
    emerg = [line for line in said.splitlines() if "[emerg]" in line]
    true(any(re.search(words, line) for line in emerg), f"no [emerg] with {words!r}: {said}")
    place = f"{path}:{line_of(body, at)}"
    true(any(line.rstrip().endswith(place) for line in emerg), f"{place} is not named: {said}")


def zone(rest, name="n"):
    return f"    idem_zone {name} path={{shm}}/never-{next(_numbers)} {rest};\n"


def location(*directives, zones=None):
    lines = "\n".join(f"        {d};" for d in directives)
    return (zone("keys=100") if zones is None else zones) + "    server {\n      location / {\n" + lines + "\n      }\n    }\n"


def refusals(name, cases):
    @scene.check(name)
    def check():
        for body, words, at in cases:
            refused(body, words, at)


# -------------------------------------------------------------------- refused
refusals("a zone that nobody declared is refused", [
    (location("idem nowhere"), "nowhere", "idem nowhere"),
    (location("idem z2", zones=zone("keys=100", "z1")), "z2", "idem z2")])
NEXT = "proxy_next_upstream error non_idempotent"
refusals("a next upstream for requests that aren't idempotent is refused, for each kind", [
    (location("idem n", f"{kind}_next_upstream error non_idempotent", f"{kind}_pass 127.0.0.1:9" if kind != "proxy" else "proxy_pass http://127.0.0.1:9"),
     "non_idempotent", "idem n") for kind in ("proxy", "fastcgi", "uwsgi", "scgi", "grpc")])
refusals("a next upstream for requests that aren't idempotent is refused also when it is inherited", [
    ("    proxy_next_upstream timeout non_idempotent;\n" + location("idem n", "proxy_pass http://127.0.0.1:9"), "non_idempotent", "idem n")])
refusals("two zones of one name or one path are refused", [
    (zone("keys=100") + zone("keys=200"), "n", "keys=200"),
    ("    idem_zone a path={shm}/same keys=100;\n    idem_zone b path={shm}/same keys=100;\n", "the path of", "idem_zone b")])
refusals("durability without a log is refused", [
    (zone(f"keys=100 durability={d}"), "wal", "idem_zone") for d in ("async", "sync")])
refusals("a zone's parameters that make no sense are refused", [
    (zone(rest), words, "idem_zone") for rest, words in (
        ("keys=0", "keys"), ("keys=many", "keys"), ("keys=-5", "keys"), ("response=0", "response"), ("response=2g", "response"),
        ("ttl=0", "ttl"), ("ttl=soon", "ttl"), ("lease=0", "lease"), ("lease=8d", "lease"), ("lease=x", "lease"), ("size=4m", "size"),
        ("wal=relative", "relative"), ("durability=often", "durability"), ("nonsense", "nonsense"))])
refusals("statuses that make no sense are refused", [
    (location("idem n", f"idem_store_status {bad}"), "idem_store_status|status", "idem_store_status")
    for bad in ("99", "600", "1000", "abc", "2x", "9xx", "404-400", "200-", "-", "-abc", "2xx 3xxx", "20x")])
refusals("times that make no sense are refused", [
    (location("idem n", bad), bad.split()[0] + "|invalid value", bad) for bad in (
        "idem_lease 0", "idem_lease 8d", "idem_lease x", "idem_ttl 0", "idem_ttl soon", "idem_ttl 1h often=1s", "idem_ttl 1h min=x", "idem_wait x",
        "idem_wait -1")] + [(location("idem n", "idem_ttl 1h min=2h max=1h"), "idem_ttl", "idem n")])  # known when all is merged
refusals("words that make no sense are refused", [
    (location("idem n", bad), bad.split()[0] + "|invalid", bad) for bad in (
        "idem_ambiguous perhaps", "idem_header_syntax loose", "idem_required maybe", "idem_methods FETCH", "idem_max_body x",
        "idem_fingerprint_body some", "idem_max_waiters many", "idem_fail_open 1", "idem_heartbeat perhaps")])
refusals("directives without or with too many arguments, twice, or in the wrong place are refused", [
    (location("idem"), "idem", "idem;"), (location("idem n x"), "idem", "idem n x"),
    (location("idem n", "idem off"), "duplicate", "idem off"), (location("idem_zone q keys=100"), "idem_zone", "idem_zone q"),
    ("    idem_zone;\n", "idem_zone", "idem_zone;"), (location("idem n", "idem_wait 1s", "idem_wait 2s"), "duplicate", "idem_wait 2s")])


# -------------------------------------------------------------------- accepted, perhaps with a warning
def warned(body, words):
    accepted, said, _ = judged(body)
    true(accepted, f"refused: {said}")
    warnings = [line for line in said.splitlines() if "[warn]" in line]
    if words is None:
        same(warnings, [], "warnings")
    else:
        true(any(re.search(words, line) and re.search(r"\.conf:\d+", line) for line in warnings), f"no [warn] with {words!r} and a place: {said}")


@scene.check("an empty scope is warned of")
def empty_scope():
    warned(location("idem n", 'idem_scope ""'), "scope")


@scene.check("idem_fail_open with POST is warned of")
def fail_open():
    warned(location("idem n", "idem_fail_open on"), "fail_open")
    warned(location("idem n", "idem_fail_open on", "idem_methods PUT"), None)


@scene.check("a lease under a second is warned of, and one below the proxy's timeouts without heartbeat")
def leases():
    warned(location("idem n", "idem_lease 500ms"), "lease")
    warned(location("idem n", "idem_lease 30s", "idem_heartbeat off", "proxy_pass http://127.0.0.1:9"), "lease")
    warned(location("idem n", "idem_lease 30s", "proxy_pass http://127.0.0.1:9"), None)
    warned(location("idem n", "idem_lease 20s", "idem_heartbeat off", "proxy_connect_timeout 5s", "proxy_send_timeout 5s", "proxy_read_timeout 5s",
                    "proxy_pass http://127.0.0.1:9"), None)


@scene.check("everything at once, as the documentation has it, is accepted without a warning")
def everything():
    warned(zone("keys=100k response=1k ttl=24h lease=30s") + """
    server {
      location / {
        idem n; idem_methods POST PATCH PUT DELETE; idem_required on; idem_header X-Request-Id; idem_header_syntax strict;
        idem_scope $http_x_tenant; idem_fingerprint $request_method$uri; idem_fingerprint_body 64k; idem_lease 10s;
        idem_ttl 12h min=1m max=7d; idem_wait 5s; idem_max_waiters 100; idem_store_status 2xx 3xx 4xx -409 -429 500-501;
        idem_share_failures off; idem_ambiguous store; idem_max_body 1m; idem_store_headers Set-Cookie; idem_hide_headers X-Debug X-Trace;
        idem_ignore_client_abort off; idem_fail_open off; idem_heartbeat on; idem_bypass $arg_nocache $http_x_bypass;
        idem_policy_url https://api.example/retries; proxy_pass http://127.0.0.1:9;
      }
      location /idem { idem_status on; }
    }
""", None)


@scene.check("variables in times are looked at when they are known")
def variable_times():
    warned(location("idem n", "idem_ttl $http_x_ttl", "idem_lease $http_x_lease"), None)


# -------------------------------------------------------------------- what nginx -t leaves alone
@scene.check("nginx -t makes no store and no log")
def tested_only():
    body = "    idem_zone t path={shm}/tested keys=100 wal={dir}/tested-log durability=sync;\n" + location("idem t", zones="")
    accepted, said, _ = judged(body)
    true(accepted, said)
    same([os.path.exists(scene.fill(p)) for p in ("{shm}/tested", "{dir}/tested-log")], [False, False], "made")


@scene.check("the module alone, without a directive, makes nothing")
def loaded_only():
    before = sorted(os.listdir("/dev/shm"))
    accepted, said, _ = judged("    server { }\n")
    true(accepted, said)
    same(sorted(os.listdir("/dev/shm")), before, "/dev/shm")


# -------------------------------------------------------------------- a live zone
@scene.check("the store is root's and the workers' group's, nobody else's")
def modes():
    entry = os.stat(f"{scene.shm}/z")
    same((stat.S_IMODE(entry.st_mode), entry.st_uid, entry.st_gid), (0o2770, 0, 33), "the directory's mode and owners")
    for name in os.listdir(f"{scene.shm}/z"):
        entry = os.stat(f"{scene.shm}/z/{name}")
        same((stat.S_IMODE(entry.st_mode) & 0o007, entry.st_gid), (0, 33), f"others' rights to {name}, its group")


@scene.check("idem and what goes with it is inherited from http, and turned off or changed below")
def inherited():
    route = scene.route()
    first = route.post("/a")
    replayed(route.post("/a"), first)
    off, get, scope = scene.route(), scene.route(), scene.route()
    [off.post("/off") for _ in range(2)]
    first = get.post("/get", method="GET", body=None)
    replayed(get.post("/get", method="GET", body=None), first)
    [scope.post("/scope", headers=[("X-Tenant", n)]) for n in "112"]
    same((route.count, off.count, get.count, scope.count), (1, 2, 1, 2), "executions")


@scene.check("another geometry for a live zone is refused; old workers serve on, and say why")
def geometry():
    route = scene.route()
    first = route.post("/a")
    workers = scene.nginx.workers()
    for other in ("keys=2000", "keys=1000 response=2k"):
        http = scene.http.replace("keys=1000", other)
        scene.nginx.write(http=scene.http_part(http=http))
        status, said = scene.nginx.tested()
        true(status != 0 and "[emerg]" in said and re.search(r"nginx\.conf:\d+", said), f"nginx -t: {status} {said}")
        true(re.search(r"destroy|another path", said), f"the way out: {said}")
        refusals_before = scene.nginx.errors().count("[emerg]")
        scene.nginx.tell(signal.SIGHUP)
        eventually(lambda: scene.nginx.errors().count("[emerg]") > refusals_before, "an [emerg] in the log")
        same(scene.nginx.workers(), workers, "the workers")
        replayed(route.post("/a"), first)
    scene.nginx.write(http=scene.http_part())
    scene.nginx.reload()
    replayed(route.post("/a"), first)
    route.executed(1)


@scene.check("other defaults (ttl, lease) for a live zone are taken over by a reload, keys stay")
def other_defaults():
    route = scene.route()
    first = route.post("/a")
    scene.nginx.reload(http=scene.http_part(http=scene.http.replace("keys=1000", "keys=1000 ttl=1s lease=5s")))
    replayed(route.post("/a"), first)
    other = scene.route()
    other.post("/a")
    eventually(lambda: other.post("/a").body == b"execution 2\n", "the new TTL")
    replayed(route.post("/a"), first)
    route.executed(1)
    scene.nginx.reload(http=scene.http_part())


@scene.check("a zone may come with a reload, and go; its store stays for the next time")
def come_and_go():
    route = scene.route()
    more = scene.http + "    idem_zone more path={shm}/more keys=100;\n"
    with_more = scene.server + "        location /more { idem more; proxy_pass http://{up}; }\n"
    scene.nginx.reload(http=scene.http_part(with_more, more))
    first = route.post("/more")
    replayed(route.post("/more"), first)
    scene.nginx.reload(http=scene.http_part())
    scene.nginx.reload(http=scene.http_part(with_more, more))
    replayed(route.post("/more"), first)
    scene.nginx.reload(http=scene.http_part())
    route.executed(1)


@scene.check("many reloads leave no more processes, mappings or descriptors behind than a few did")
def many_reloads():
    def figures():
        pid = scene.nginx.pid
        with open(f"/proc/{pid}/maps") as maps:
            mapped = sum(1 for line in maps if "/dev/shm/" in line or "idem" in line)
        return len(os.listdir(f"/proc/{pid}/fd")), mapped

    for _ in range(3):
        scene.nginx.reload()
    eventually(lambda: not scene.nginx.leaving(), "old workers end")
    before = figures()
    for _ in range(12):
        scene.nginx.reload()
    eventually(lambda: not scene.nginx.leaving(), "old workers end")
    eventually(lambda: all(now <= then + 2 for now, then in zip(figures(), before)),  # the ended ones have to be waited for
               lambda: f"descriptors and mappings of the master: {before}, then {figures()}")
    route = scene.route()
    first = route.post("/a")
    replayed(route.post("/a"), first)
    route.executed(1)


# -------------------------------------------------------------------- the module's file
@scene.check("the module exports what nginx looks up, and nothing else")
def exported():
    said = subprocess.run(["nm", "-D", "--defined-only", server.MODULE], capture_output=True, text=True, check=True, timeout=60).stdout
    names = sorted(line.split()[-1] for line in said.splitlines() if "__odr_asan" not in line)
    same(names, ["ngx_module_names", "ngx_module_order", "ngx_modules"], "exported")


@scene.check("the module's code stays when nginx unloads it")
def stays():
    said = subprocess.run(["readelf", "-d", server.MODULE], capture_output=True, text=True, check=True, timeout=60).stdout
    true("NODELETE" in said, said)


scene.run()
