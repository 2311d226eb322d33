#!/usr/bin/python3
"""The store behind the module: with a log it outlives everything, two zones are apart, a full or missing store refuses or
lets through as idem_fail_open says, and comes back by itself."""
import os
import shutil
import signal

from support.checks import eventually, same, true
from support.client import replayed
from support.h2peer import H2Client
from support.scene import Scene, problem

scene = Scene(workers=2, http2=True, http="""
    idem_zone z path={shm}/z keys=2000 wal={dir}/log-z durability=sync;
    idem_zone lazy path={shm}/lazy keys=2000 wal={dir}/log-lazy durability=async;
    idem_zone memory path={shm}/memory keys=2000;
    idem_zone tiny path={shm}/tiny keys=16 response=64;
    idem_zone doomed path={shm}/doomed keys=100;
    idem_wait 60s;
""", server="""
        location /sync { idem z; proxy_pass http://{up}; }
        location /sync-now { idem z; idem_wait 0; proxy_pass http://{up}; }
        location /sync-abandon { idem z; idem_ambiguous abandon; proxy_pass http://{up}; }
        location /sync-store { idem z; idem_ambiguous store; proxy_pass http://{up}; }
        location /sync-head { idem z; idem_methods POST HEAD; proxy_pass http://{up}; }
        location /sync-unbuffered { idem z; proxy_buffering off; proxy_pass http://{up}; }
        location /sync-gzip { idem z; gzip on; gzip_types text/plain; gzip_min_length 10; proxy_pass http://{up}; }
        location /lazy { idem lazy; proxy_pass http://{up}; }
        location /memory { idem memory; proxy_pass http://{up}; }
        location /tiny { idem tiny; proxy_pass http://{up}; }
        location /tiny-open { idem tiny; idem_fail_open on; proxy_pass http://{up}; }
        location /doomed { idem doomed; proxy_pass http://{up}; }
        location /doomed-open { idem doomed; idem_fail_open on; proxy_pass http://{up}; }
""", expected=[r"exited on signal 9"], overfull=("tiny",))


def on_disk(zone):
    """Waits until all that was recorded is: claims go to the disk soon after, not at once."""
    eventually(lambda: scene.metric("log_queued", zone) == 0, "the log has written what was queued")


def crash(*zones):
    """Everything is killed at once, and the segments are gone, as after a crash of the machine (its disk is still there)."""
    scene.nginx.kill_all()
    for zone in zones:
        shutil.rmtree(f"{scene.shm}/{zone}")
    scene.nginx.launch()


# -------------------------------------------------------------------- zones
@scene.check("two zones are apart: one key in each is two requests")
def apart():
    route = scene.route()
    first = route.post("/memory")
    # The same target in both, else the fingerprint alone would tell them apart: nothing of one zone is in the other.
    token = scene.logged(first)["token"]
    true(token != "", "a token")
    same((scene.idem("ls", store="memory").count(route.key), scene.idem("ls", store="lazy").count(route.key)), (1, 0), "records")
    other = route.post("/lazy")
    same(other.body, b"execution 2\n", "in the other zone")
    replayed(route.post("/memory"), first)
    replayed(route.post("/lazy"), other)
    route.executed(2)


# -------------------------------------------------------------------- with a log
@scene.check("durability=sync: what was answered replays after everything was killed and the segment removed")
def survives():
    routes = [scene.route() for _ in range(20)]
    calls = [(route, route.later("/sync")) for route in routes]
    first = [(route, call.result()) for route, call in calls]
    same({scene.logged(answer)["claim"] for _, answer in first}, {"stored"}, "$idem_status")
    crash("z", "lazy", "memory", "tiny", "doomed")
    for route, answer in first:
        replayed(route.post("/sync"), answer)
        problem(route.post("/sync", body=b"other"), 422, "key-reused")
        route.executed(1)


@scene.check("what was in progress at the crash is held: its outcome is unknown")
def in_progress():
    route = scene.route(gated=True)
    owner = route.open("/sync")
    route.gate.arrived()
    on_disk("z")
    crash("z")
    route.gate.open()
    owner.close()
    problem(route.post("/sync"), 409, "outcome-unknown")
    route.executed(1)


@scene.check("with abandon the next one after the crash is told that it is the second attempt, with a larger fence")
def attempts_survive():
    route = scene.route(lambda x: x.route.gate.stop_here() if x.number == 1 else x.answer(201, b"second\n"))
    owner = route.open("/sync-abandon")
    route.gate.arrived()
    on_disk("z")
    crash("z")
    answer = route.post("/sync-abandon")
    same((answer.body, scene.outcome(answer)), (b"second\n", "reclaimed"), "the next one")
    same([r.header("Idempotency-Attempt") for r in route.requests], ["1", "2"], "attempts")
    route.fenced()
    route.gate.open()
    owner.close()
    route.executed(2)


@scene.check("durability=async: a killed nginx loses nothing")
def lazy():
    route = scene.route()
    first = route.post("/lazy")
    crash()
    replayed(route.post("/lazy"), first)
    route.executed(1)


@scene.check("a zone without a log is new after its segment was removed")
def memory_only():
    route = scene.route()
    route.post("/memory")
    crash("memory")
    same(route.post("/memory").body, b"execution 2\n", "the next one")
    route.executed(2)


def kinds():
    """Answers whose end waits for the disk in different places: the header, the body, trailers of filters."""
    return (("/sync", "POST", lambda x: x.answer(201, b"some body\n")), ("/sync", "POST", lambda x: x.answer(204)),
            ("/sync", "POST", lambda x: x.answer(201, b"")), ("/sync-head", "HEAD", lambda x: x.answer(200, b"some body\n")),
            ("/sync", "POST", lambda x: x.answer(201, b"x" * 60_000, framing="chunked")), ("/sync-unbuffered", "POST", lambda x: x.answer(201, b"x" * 60_000)),
            ("/sync", "POST", lambda x: x.answer(201, b"x" * 200_000)), ("/sync", "POST", lambda x: x.answer(500, b"failed\n")),
            ("/sync-store", "POST", lambda x: x.close()), ("/sync-unbuffered", "POST", lambda x: x.answer(201, b"y" * 5000, framing="eof")),
            ("/sync-gzip", "POST", lambda x: x.answer(201, b"z" * 5000, [("Content-Type", "text/plain")])))


@scene.check("every kind of answer comes whole where it waits for the disk")
def whole():
    for at, method, script in kinds():
        route = scene.route(script)
        headers = [("Accept-Encoding", "gzip")] if at == "/sync-gzip" else []
        body = None if method == "HEAD" else b"x"
        first = route.post(at, method=method, body=body, headers=headers)
        again = route.post(at, method=method, body=body, headers=headers)
        true(first.complete, f"{first!r}")
        if first.status == 500:
            same(route.count, 2, "executions of a failure")
        elif len(first.body) == 200_000:
            problem(again, 409, "not-retained")
            route.executed(1)
        else:
            replayed(again, first)
            route.executed(1)


@scene.check("a client that leaves while its answer waits for the disk takes nothing with it")
def leaves():
    for _ in range(20):
        route = scene.route(gated=True)
        connection = route.open("/sync-now")
        route.gate.arrived()
        route.gate.open()
        connection.reset()
        answer = route.settled("/sync-now")
        same((answer.status, answer.header("Idempotency-Replayed")), (201, "true"), "the next one")
        route.executed(1)


@scene.check("HTTP/2: 60 different keys at once on one connection, all on the disk, none twice")
def many_streams():
    routes = [scene.route() for _ in range(60)]
    client = H2Client(scene.nginx.port2)
    streams = [client.request("POST", f"/sync/{route.name}", route.fields("", ()), b"x") for route in routes]
    for route, stream in zip(routes, streams):
        same(client.response(stream).status, 201, "answer")
        route.executed(1)
    again = [client.request("POST", f"/sync/{route.name}", route.fields("", ()), b"x") for route in routes]
    for route, stream in zip(routes, again):
        same(client.response(stream).header("idempotency-replayed"), "true", "replay")
        route.executed(1)
    client.close()


@scene.check("waiters of an answer that waits for the disk")
def waiters():
    for _ in range(5):
        route = scene.route(gated=True)
        calls = [route.later("/sync")]
        route.gate.arrived()
        calls += [route.later("/sync") for _ in range(8)]
        scene.waiting(8)
        route.gate.open()
        same({(c.result().status, c.result().body) for c in calls}, {(201, b"execution 1\n")}, "answers")
        route.executed(1)


@scene.check("a reload with a log: the new workers go on with it")
def reloaded():
    route, other = scene.route(), scene.route(gated=True)
    first = route.post("/sync")
    owner = other.later("/sync")
    other.gate.arrived()
    scene.nginx.reload()
    replayed(route.post("/sync"), first)
    more = scene.route()
    same(more.post("/sync").status, 201, "a new key")
    other.gate.open()
    same(owner.result().status, 201, "the owner in the old worker")
    eventually(lambda: not scene.nginx.leaving(), "old workers end")
    crash("z")
    for known, answer in ((route, first), (other, owner.result())):
        replayed(known.post("/sync"), answer)
    same((route.count, other.count, more.count), (1, 1, 1), "executions")


@scene.check("the logs are sound after all this")
def verified():
    for name in ("z", "lazy"):
        scene.idem("verify", store=name)
    scene.nginx.stop(signal.SIGQUIT)
    for name in ("z", "lazy"):
        shutil.rmtree(f"{scene.shm}/{name}")
        scene.idem("recover", "--wal", f"{scene.dir}/log-{name}", store=name)
        scene.idem("verify", store=name)
        shutil.rmtree(f"{scene.shm}/{name}")
    scene.nginx.launch()
    true(scene.nginx.accepts(), "nginx serves again")


# -------------------------------------------------------------------- full, gone
@scene.check("a full store: 503 with Retry-After, nothing is executed; with idem_fail_open it passes and says so")
def full():
    def fills():
        route = scene.route()
        answer = route.post("/tiny")
        return (route, answer) if answer.status != 201 else None

    route, answer = eventually(fills, "the store is full")
    problem(answer, 503, "store-unavailable", "same_key")
    true(int(answer.header("Retry-After")) >= 1, "Retry-After")
    same(scene.outcome(answer), "failed", "outcome")
    route.executed(0)
    open_answer = route.post("/tiny-open")
    same((open_answer.status, scene.outcome(open_answer)), (201, "failed_open"), "with idem_fail_open")
    same(route.requests[0].header("Idempotency-Fence"), None, "no fence without a claim")
    route.executed(1)


@scene.check("a store that was destroyed: refused, or let through; keys of others go on; a reload makes it again")
def destroyed():
    kept, route = scene.route(), scene.route()
    first = kept.post("/memory")
    same(route.post("/doomed").status, 201, "while it is there")
    scene.idem("destroy", store="doomed")
    for _ in range(6):
        other = scene.route()
        answer = other.post("/doomed")
        problem(answer, 503, "store-unavailable", "same_key")
        other.executed(0)
        passed = other.post("/doomed-open")
        same((passed.status, scene.outcome(passed)), (201, "failed_open"), "with idem_fail_open")
        other.executed(1)
    replayed(kept.post("/memory"), first)
    scene.nginx.reload()
    other = scene.route()
    first = other.post("/doomed")
    same(first.status, 201, "after a reload")
    replayed(other.post("/doomed"), first)
    other.executed(1)


@scene.check("a segment that was removed by hand: no duplicate goes to a store that is not there")
def removed():
    route = scene.route()
    first = route.post("/doomed")
    shutil.rmtree(f"{scene.shm}/doomed")
    answer = route.post("/doomed")
    true(answer.status == 503 or answer.header("Idempotency-Replayed") == "true", f"{answer!r}")
    same(first.status, 201, "the first")
    route.executed(1)
    scene.nginx.reload()
    route.post("/doomed")  # a new store: a first attempt again, as the documentation says of stores removed by hand
    true(os.path.isdir(f"{scene.shm}/doomed"), "made again")


scene.run()
