#!/usr/bin/python3
"""Ways of a request on which it could be executed twice, or hang: found by reading nginx's source for what happens between a
claim and its end. Each has its own location here."""
import os
import subprocess
import time

from support import server
from support.checks import same, true
from support.client import Client, ask, replayed
from support.h2peer import H2Client
from support.scene import Scene, problem


def write_files(scene):
    os.makedirs(f"{scene.dir}/files")
    for name, text in (("page", "twenty bytes of text"), ("sorry", "sorry, not today\n"), ("secret", "for root only")):
        with open(f"{scene.dir}/files/{name}", "w") as file:
            file.write(text)
    os.chmod(f"{scene.dir}/files/secret", 0o600)


scene = Scene(before=write_files, http="""
    idem_zone z path={shm}/z keys=2000;
    idem_zone disk path={shm}/disk keys=2000 wal={dir}/log-disk durability=sync;
    root {dir}/files;
    underscores_in_headers on;
    upstream two { server {up}; server {up} backup; }
""", http2=True, server="""
        location /nowhere { idem z; set $where ""; proxy_pass $where; }
        location /small { idem z; client_max_body_size 10; error_page 413 /sorry; proxy_pass http://{up}; }
        location /small-named { idem z; client_max_body_size 10; error_page 413 = @unclaimed; proxy_pass http://{up}; }
        location @unclaimed { idem z; proxy_pass http://{up}; }
        location = /sorry { default_type text/plain; }
        location /second { idem z; error_page 502 = @second; proxy_pass http://{up}; }
        location @second { rewrite ^/second(.*)-first$ /second$1-second break; proxy_pass http://{up}; }
        location /plain { idem z; idem_required on; proxy_pass http://{up}; }
        location /try { idem z; try_files /nothing @two; }
        location @two { proxy_next_upstream error timeout non_idempotent; proxy_pass http://two; }
        location /mirrored { idem z; mirror /mirror; proxy_pass http://{up}; }
        location = /mirror { internal; proxy_pass http://{up}$request_uri-copy; }
        location /inherits { idem z; idem_wait 60s; idem_share_failures off; proxy_ignore_client_abort on; proxy_pass http://{up}; }
        location /accel { idem z; proxy_pass http://{up}; }
        location /secret { internal; }
        location /page-to-get { idem disk; idem_methods GET; default_type text/plain; try_files /page =404; }
        location = /page { idem disk; idem_methods HEAD POST; default_type text/plain; }
""", expected=[r"invalid URL prefix", r"secret\" failed \(13"])


@scene.check("a proxy_pass that comes to nothing is a 500, not a worker's end; nothing was sent, so the key is free")
def nowhere():
    workers = set(scene.nginx.workers())
    route = scene.route()
    for _ in range(2):
        answer = route.post("/nowhere")
        same((answer.status, scene.logged(answer)["claim"]), (500, "shared"), "the answer")
    same(set(scene.nginx.workers()), workers, "workers")
    route.executed(0)


@scene.check("a request that nginx gives up before it is claimed gets its error page, announced length or chunks")
def too_large():
    for headers, body in (((), b"x" * 37), ((("Transfer-Encoding", "chunked"),), b"25\r\n" + b"x" * 37 + b"\r\n0\r\n\r\n")):
        route = scene.route()
        connection = Client(scene.nginx.port)
        fields = [*route.fields("", ()), *headers]
        if headers:
            connection.send(connection.head("POST", f"/small/{route.name}", fields) + body)
        else:
            connection.request("POST", f"/small/{route.name}", fields, body)
        answer = connection.response()
        same((answer.status, answer.body), (413, b"sorry, not today\n"), f"{headers}")
        connection.close()
        route.executed(0)


@scene.check("an error page that is a protected location gets nothing without a claim")
def too_large_named():
    route = scene.route()
    connection = Client(scene.nginx.port)
    connection.send(connection.head("POST", f"/small-named/{route.name}", [*route.fields("", ()), ("Transfer-Encoding", "chunked")]))
    connection.send(b"25\r\n" + b"x" * 37 + b"\r\n0\r\n\r\n")
    same(connection.response().status, 500, "the answer")
    connection.close()
    route.executed(0)


@scene.check("one upstream took it and died, the next says no: nobody knows, so it is held")
def no_from_the_second():
    for status in (503, 500, 429, 403):
        first, second = scene.pair(lambda x: x.close(), lambda x, status=status: x.answer(status, b"no"))
        answer = first.post("/second")
        same((answer.status, scene.logged(answer)["claim"]), (status, "held"), "the answer")
        problem(first.post("/second"), 409, "outcome-unknown")
        same((first.count, second.count), (1, 1), f"executions ({status})")


@scene.check("an offer of h2c is no upgrade: protected as any other request, and a key is required")
def h2c():
    offer = (("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA"))
    route = scene.route()
    first = route.post("/plain", headers=offer)
    same(first.status, 201, "the first answer")
    replayed(route.post("/plain", headers=offer), first)
    route.executed(1)
    problem(ask(scene.nginx.port, "POST", f"/plain/{route.name}", offer, b"{}"), 400, "key-missing", "new_key")
    route.executed(1)


@scene.check("a fence can't be forged with an underscore either, which FastCGI and its like take for the same")
def underscore():
    route = scene.route()
    route.post("/plain", headers=(("Idempotency_Fence", "9"), ("IDEMPOTENCY_ATTEMPT", "9")))
    request = route.requests[0]
    same((request.all("Idempotency_Fence"), request.all("Idempotency_Attempt"), request.all("Idempotency-Attempt")), ([], [], ["1"]), "what the service is told")
    route.executed(1)


@scene.check("what was sent to one upstream is not sent to another, also where idem isn't set any more")
def one_of_two():
    route = scene.route(lambda x: x.close())
    answer = route.post("/try")
    same((answer.status, scene.logged(answer)["claim"]), (502, "held"), "the answer")
    route.executed(1)
    problem(route.post("/try"), 409, "outcome-unknown")
    route.executed(1)


@scene.check("an answer to HEAD that nginx makes itself has no body, also where it waits for the disk")
def head_of_a_page():
    connection = Client(scene.nginx.port)
    key = [("Idempotency-Key", "head-of-a-page")]
    for replay in (None, "true", "true"):
        connection.request("HEAD", "/page", key)
        answer = connection.response("HEAD")
        same((answer.status, answer.header("Content-Length"), answer.header("Idempotency-Replayed")), (200, "20", replay), "the answer to HEAD")
    connection.request("GET", "/page")
    answer = connection.response()
    same((answer.status, answer.body), (200, b"twenty bytes of text"), "the next answer on that connection")
    connection.close()
    stored = [line for line in scene.idem("ls", store="disk").splitlines() if "head-of-a-page" in line]
    true(len(stored) == 1 and " 0 B" in stored[0], f"no body is stored: {stored}")


@scene.check("the service did it, and what it pointed at can't be shown: nobody runs it again")
def accel_to_nothing():
    route = scene.route(lambda x: x.answer(200, b"", [("X-Accel-Redirect", "/secret")]))
    answer = route.post("/accel")
    same((answer.status, scene.logged(answer)["claim"]), (403, "held"), "the answer")
    problem(route.post("/accel"), 409, "outcome-unknown")
    route.executed(1)


def stored_whole(route, at):
    answer = route.settled(at)
    same((answer.status, answer.header("Idempotency-Replayed")), (201, "true"), f"the next one: {answer!r}")


@scene.check("a mirror that ends after the client has left doesn't end the request")
def mirror_ends():
    route, copy = scene.route(gated=True), scene.route(gated=True)
    copy.name = route.name + "-copy"
    scene.routes.add(copy)
    client = H2Client(scene.nginx.port2)
    stream = client.request("POST", f"/mirrored/{route.name}", route.fields("", ()), b'{"amount": 1}')
    route.gate.arrived()
    copy.gate.arrived()
    client.cancel(stream)
    time.sleep(0.3)  # until nginx has seen it; if it hasn't, less is tested
    copy.gate.open()
    time.sleep(0.3)
    route.gate.open()
    stored_whole(route, "/mirrored")
    client.close()
    route.executed(1)


@scene.check("a waiter that became the owner may leave as any other: stored")
def heir_leaves():
    def script(x):
        if x.number == 1:
            x.route.gate.stop_here()
            x.answer(503, b"busy")
        else:
            x.route.second.stop_here()
            x.answer(201, b"well\n")

    route = scene.route(script)
    route.second = type(route.gate)()
    first = route.later("/inherits")
    route.gate.arrived()
    heir = route.open("/inherits")
    scene.waiting(1)
    route.gate.open()
    same(first.result().status, 503, "the first answer")
    route.second.arrived()
    heir.close()
    time.sleep(0.3)  # as above
    route.second.open()
    stored_whole(route, "/inherits")
    route.executed(2)


@scene.check("a page that a condition forbids is one answer, also where it waits for the disk")
def forbidden():
    connection = Client(scene.nginx.port)
    key = [("Idempotency-Key", "forbidden")]
    connection.request("GET", "/page-to-get", [*key, ("If-Match", '"nope"')])
    first = connection.response()
    same(first.status, 412, "the first answer")
    true(connection.ended(), "nothing comes behind it (nginx closes after such an answer)")
    connection.close()
    replayed(ask(scene.nginx.port, "GET", "/page-to-get", key), first)


@scene.check("nginx -s makes no store, and doesn't mind one that doesn't fit")
def signaller():
    conf = scene.nginx.conf + "-signal"
    with open(scene.nginx.conf) as old, open(conf, "w") as new:
        text = old.read().replace(f"{scene.shm}/z ", f"{scene.shm}/never-made ").replace(f"{scene.shm}/disk keys=2000", f"{scene.shm}/disk keys=3000")
        new.write(text.replace(f"pid {scene.dir}", f"pid {scene.dir}/nowhere"))
    done = subprocess.run([server.BINARY, "-s", "stop", "-c", conf], capture_output=True, text=True, timeout=30)
    true("invalid PID" in done.stderr or "nowhere" in done.stderr, f"it looks for the process: {done.stderr}")
    true("is a store for" not in done.stderr, f"nginx -s says {done.stderr}")
    true(not os.path.exists(f"{scene.shm}/never-made"), "no store was made")


scene.run()
