#!/usr/bin/python3
"""Workers that are killed, stopped, replaced: the key of a dead owner is free at once or held, a late owner is fenced,
reloads and upgrades lose nothing. Two nginx processes never agree by luck here: each step waits for the one before."""
import os
import signal
import time

from support import server
from support.checks import eventually, same, true
from support.client import replayed
from support.scene import Scene, problem

scene = Scene(workers=2, http="""
    idem_zone z path={shm}/z keys=2000 lease=60s;
    idem_wait 60s;
    proxy_read_timeout 120s;
    proxy_set_header X-Worker $pid;
""", server="""
        location /hold { idem z; idem_wait 0; proxy_pass http://{up}; }
        location /hold-waiting { idem z; proxy_pass http://{up}; }
        location /abandon { idem z; idem_ambiguous abandon; proxy_pass http://{up}; }
        location /abandon-now { idem z; idem_ambiguous abandon; idem_wait 0; proxy_pass http://{up}; }
        location /lease { idem z; idem_ambiguous abandon; idem_lease 1s; idem_wait 0; proxy_pass http://{up}; }
        location /lease-hold { idem z; idem_lease 1s; idem_wait 0; proxy_pass http://{up}; }
        location /still { idem z; idem_ambiguous abandon; idem_lease 1s; idem_heartbeat off; idem_wait 0; proxy_pass http://{up}; }
        location /still-hold { idem z; idem_lease 1s; idem_heartbeat off; idem_wait 0; proxy_pass http://{up}; }
""", expected=[r"exited on signal (9|19)"])


def worker_of(route):
    """The worker that sent the newest request of this route."""
    return int(route.requests[-1].header("X-Worker"))


def kill(pid):
    """kill -9, and wait until the master has another in its place."""
    before = set(scene.nginx.workers())
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pid not in scene.nginx.workers() and len(scene.nginx.workers()) == len(before), "the killed worker is replaced")


def waiters_elsewhere(route, at, pid, count=2):
    """Requests that wait, at least count of them in another worker than pid."""
    calls, seen = [], 0
    for _ in range(60):
        calls.append(waiter := route.open(at))
        scene.waiting(len(calls))
        if served_by(waiter) != pid:
            seen += 1
            if seen == count:
                return calls
    true(False, "no waiter came to another worker")


def served_by(connection):
    """The worker that holds the other end of a connection."""
    address, port = connection.sock.getsockname()
    other = "%08X:%04X" % (int.from_bytes(bytes(map(int, address.split("."))), "little"), port)
    with open("/proc/net/tcp") as file:
        inode = next(line.split()[9] for line in file if line.split()[2] == other and line.split()[1].endswith("%04X" % scene.nginx.port))
    for pid in scene.nginx.workers() + scene.nginx.leaving():
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(entry.path) == f"socket:[{inode}]":
                    return pid
            except OSError:
                continue
    return None


# -------------------------------------------------------------------- killed
@scene.check("kill -9 of the owner's worker: a waiter in another worker inherits at once, long before the lease ends")
def inherits():
    route = scene.route(lambda x: x.route.gate.stop_here() if x.number == 1 else x.answer(201, b"execution 2\n"))
    owner = route.open("/abandon")
    route.gate.arrived()
    pid = worker_of(route)
    others = waiters_elsewhere(route, "/abandon", pid)
    elsewhere = [c for c in others if served_by(c) != pid]
    kill(pid)  # with a lease of 60 s
    seen = [c.response() for c in elsewhere]
    same([(a.status, a.body) for a in seen], [(201, b"execution 2\n")] * len(seen), "those in other workers")
    same(sorted(scene.outcome(a) for a in seen), ["reclaimed"] + ["replayed"] * (len(seen) - 1), "outcomes")
    same([r.header("Idempotency-Attempt") for r in route.requests], ["1", "2"], "attempts")
    route.fenced()
    route.gate.open()
    owner.close()
    route.executed(2)


@scene.check("kill -9 with hold: duplicates are told outcome-unknown at once, those who wait too")
def killed_held():
    route = scene.route(lambda x: x.route.gate.stop_here())
    owner = route.open("/hold-waiting")
    route.gate.arrived()
    pid = worker_of(route)
    others = waiters_elsewhere(route, "/hold-waiting", pid, 1)
    elsewhere = [c for c in others if served_by(c) != pid]
    kill(pid)
    for connection in elsewhere:
        problem(connection.response(), 409, "outcome-unknown")
    problem(route.post("/hold-waiting"), 409, "outcome-unknown")
    route.gate.open()
    owner.close()
    route.executed(1)


@scene.check("kill -9 after the answer was passed on: it replays")
def killed_after():
    route = scene.route()
    first = route.post("/hold")
    for pid in scene.nginx.workers():
        kill(pid)
    replayed(route.post("/hold"), first)
    route.executed(1)


@scene.check("kill -9 of a waiter's worker harms nobody else")
def killed_waiter():
    route = scene.route(gated=True)
    owner = route.open("/abandon")
    route.gate.arrived()
    pid = worker_of(route)
    others = waiters_elsewhere(route, "/abandon", pid, 1)
    victim = next(served_by(c) for c in others if served_by(c) != pid)
    kept = [c for c in others if served_by(c) == pid]
    kill(victim)
    route.gate.open()
    first = owner.response()
    same(first.status, 201, "the owner")
    for connection in kept:
        replayed(connection.response(), first)
    replayed(route.post("/abandon"), first)
    route.executed(1)


# -------------------------------------------------------------------- stopped, or slow
@scene.check("a call longer than its lease: it is renewed, duplicates are told 409 all the time")
def heartbeat():
    for at in ("/lease", "/lease-hold"):
        route = scene.route(gated=True)
        owner = route.later(at)
        route.gate.arrived()
        told_in_progress(route, at, 2.5)
        route.gate.open()
        same(owner.result().status, 201, f"the owner at {at}")
        same(scene.logged(owner.result())["claim"], "stored", "$idem_status")
        replayed(route.post(at), owner.result())
        route.executed(1)


def told_in_progress(route, at, seconds):
    """For longer than a lease of one second: whoever asks is told that it is in progress."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        problem(route.post(at), 409, "in-progress", "same_key")
        time.sleep(0.05)


@scene.check("SIGSTOP of the owner's worker: after its lease another owns the key, the late answer is fenced")
def stopped():
    route = scene.route(lambda x: x.answer(201, b"execution %d\n" % x.number) if x.number > 1 else (x.route.gate.stop_here(), x.answer(201, b"execution 1\n")))
    owner = route.open("/lease")
    route.gate.arrived()
    pid = worker_of(route)
    others = []
    os.kill(pid, signal.SIGSTOP)
    try:
        route.gate.open()  # its answer waits for it
        answer = elsewhere(route, "/lease", others, lambda a: a.status == 201)
        same((answer.body, scene.outcome(answer)), (b"execution 2\n", "reclaimed"), "who took over")
    finally:
        os.kill(pid, signal.SIGCONT)
    late = owner.response()
    same((late.status, late.body), (201, b"execution 1\n"), "the late owner's client has what its upstream said")
    same(scene.logged(late)["claim"], "fenced", "its $idem_status")
    again = route.post("/lease")
    same((again.body, again.header("Idempotency-Replayed")), (b"execution 2\n", "true"), "what is kept")
    route.fenced()
    route.executed(2)
    for connection in others:
        connection.close()


def elsewhere(route, at, others, wanted):
    """Asks until somebody who isn't stopped answers so; connections a stopped worker took are left to it."""
    found = []

    def look():
        connection = route.open(at)
        connection.sock.settimeout(0.5)
        try:
            answer = connection.response()
        except Exception:  # that one went to the stopped worker
            others.append(connection)
            return False
        connection.close()
        found.append(answer)
        return wanted(answer)

    eventually(look, lambda: f"an answer as expected: {found[-3:]}")
    return found[-1]


@scene.check("SIGSTOP with hold: after the lease the outcome is unknown, until the late owner completes it")
def stopped_held():
    route = scene.route(lambda x: (x.route.gate.stop_here(), x.answer(201, b"execution 1\n")))
    owner = route.open("/lease-hold")
    route.gate.arrived()
    pid = worker_of(route)
    others = []
    os.kill(pid, signal.SIGSTOP)
    try:
        route.gate.open()
        answer = elsewhere(route, "/lease-hold", others, lambda a: b"outcome-unknown" in a.body)
        problem(answer, 409, "outcome-unknown")
    finally:
        os.kill(pid, signal.SIGCONT)
    same(owner.response().status, 201, "the late owner")
    again = eventually(lambda: (lambda a: a if a.status == 201 else None)(route.post("/lease-hold")), "its answer replays")
    same((again.body, again.header("Idempotency-Replayed")), (b"execution 1\n", "true"), "what is kept")
    route.executed(1)
    for connection in others:
        connection.close()


@scene.check("idem_heartbeat off: a call longer than its lease is taken over, or held")
def no_heartbeat():
    route = scene.route(lambda x: (x.number == 1 and x.route.gate.stop_here(), x.answer(201, b"execution %d\n" % x.number)))
    owner = route.later("/still")
    route.gate.arrived()
    answer = eventually(lambda: (lambda a: a if a.status == 201 else None)(route.post("/still")), "another takes over")
    same(answer.body, b"execution 2\n", "his answer")
    route.gate.open()
    same(scene.logged(owner.result())["claim"], "fenced", "the late owner's $idem_status")
    route.executed(2)
    held = scene.route(gated=True)
    owner = held.later("/still-hold")
    held.gate.arrived()
    eventually(lambda: b"outcome-unknown" in held.post("/still-hold").body, "held after its lease")
    held.gate.open()
    same(owner.result().status, 201, "the late owner completes it")
    replayed(held.post("/still-hold"), owner.result())
    held.executed(1)


# -------------------------------------------------------------------- replaced
@scene.check("reload with owners and waiters in both generations: one execution each, all answered")
def reload_both():
    old = scene.route(gated=True)
    calls = [old.later("/abandon") for _ in range(4)]
    old.gate.arrived()
    scene.waiting(3)
    scene.nginx.reload()
    true(scene.nginx.leaving(), "old workers go on with what they have")
    new = scene.route(gated=True)
    calls += [old.later("/abandon") for _ in range(3)]
    newer = [new.later("/abandon") for _ in range(4)]
    new.gate.arrived()
    scene.waiting(6)  # in the new workers: three for the old key, three for the new one
    scene.nginx.reload()  # a third generation
    newer += [new.later("/abandon") for _ in range(2)]
    old.gate.open()
    seen = [call.result() for call in calls]
    same([(a.status, a.body) for a in seen], [(201, b"execution 1\n")] * 7, "answers of the first key")
    new.gate.open()
    same([(c.result().status, c.result().body) for c in newer], [(201, b"execution 1\n")] * 6, "answers of the second key")
    eventually(lambda: not scene.nginx.leaving(), "old workers end")
    same((old.count, new.count), (1, 1), "executions")


@scene.check("an owner in an old worker completes after the reload: who asks in a new one gets it")
def reload_owner():
    route = scene.route(gated=True)
    owner = route.open("/hold")
    route.gate.arrived()
    scene.nginx.reload()
    problem(route.post("/hold"), 409, "in-progress")
    owner.reset()  # nobody is there any more, and the worker is on its way out
    true(scene.nginx.leaving(), "the old worker waits for its upstream")
    route.gate.open()
    answer = route.settled("/hold")
    same((answer.status, answer.header("Idempotency-Replayed")), (201, "true"), "in a new worker")
    eventually(lambda: not scene.nginx.leaving(), "old workers end")
    route.executed(1)


@scene.check("a renewed lease outlives a reload: the old worker's heartbeat goes on")
def reload_heartbeat():
    route = scene.route(gated=True)
    owner = route.later("/lease")
    route.gate.arrived()
    scene.nginx.reload()
    told_in_progress(route, "/lease", 2.5)
    route.gate.open()
    same(owner.result().status, 201, "the owner")
    replayed(route.post("/lease"), owner.result())
    route.executed(1)


@scene.check("worker_shutdown_timeout cuts an owner off: with hold nobody runs it again")
def shutdown_timeout():
    scene.nginx.reload(main="worker_shutdown_timeout 1s;")
    route = scene.route(gated=True)
    owner = route.open("/hold")
    route.gate.arrived()
    scene.nginx.reload()
    eventually(lambda: not scene.nginx.leaving(), "the old workers end, by the timeout")
    route.gate.open()
    answer = route.settled("/hold")
    true((answer.status, answer.header("Idempotency-Replayed")) == (201, "true") or b"outcome-unknown" in answer.body, f"{answer!r}")
    route.executed(1)
    owner.close()
    waiter = scene.route(gated=True)  # a waiter cut off leaves nothing behind
    owner = waiter.later("/hold-waiting")
    waiter.gate.arrived()
    waiter.gate.open()
    replayed(waiter.post("/hold-waiting"), owner.result())
    scene.nginx.reload(main="")
    waiter.executed(1)


@scene.check("QUIT with an owner in flight: the answer is passed on and stored before the end")
def quit_gracefully():
    route = scene.route(gated=True)
    owner = route.later("/hold")
    route.gate.arrived()
    scene.nginx.tell(signal.SIGQUIT)
    eventually(lambda: not scene.nginx.workers(), "workers are leaving")
    route.gate.open()
    same(owner.result().status, 201, "the owner")
    scene.nginx.process.wait(server.LIMIT)
    scene.nginx.launch()
    replayed(route.post("/hold"), owner.result())
    route.executed(1)


@scene.check("TERM with an owner in flight, hold: nobody runs it again")
def terminated():
    route = scene.route(gated=True)
    owner = route.open("/hold")
    route.gate.arrived()
    same(scene.nginx.stop(signal.SIGTERM), True, "nginx ends by itself")
    scene.nginx.launch()
    problem(route.post("/hold"), 409, "outcome-unknown")
    route.gate.open()
    owner.close()
    route.executed(1)


@scene.check("USR2: the new binary and the old one share the store, then the new one goes on alone")
def upgrade():
    route = scene.route(gated=True)
    owner = route.later("/hold")
    route.gate.arrived()
    done = scene.route()
    first = done.post("/hold")
    old = scene.nginx.pid
    scene.nginx.tell(signal.SIGUSR2)
    new = eventually(lambda: read_pid(f"{scene.dir}/nginx.pid", old), "the new master's pid")
    eventually(lambda: len(scene.nginx.workers(new)) == 2, "the new master's workers")
    scene.nginx.tell(signal.SIGQUIT)  # the old one goes; that worker of it which has our owner waits for him
    eventually(lambda: not scene.nginx.workers(old), "the old workers are leaving")
    problem(route.post("/hold"), 409, "in-progress")
    replayed(done.post("/hold"), first)
    route.gate.open()
    same(owner.result().status, 201, "the owner, in the old generation")
    replayed(route.post("/hold"), owner.result())
    scene.nginx.process.wait(server.LIMIT)
    scene.nginx.adopt(new)
    replayed(route.post("/hold"), owner.result())
    replayed(done.post("/hold"), first)
    same((route.count, done.count), (1, 1), "executions")


def read_pid(path, old):
    try:
        with open(path) as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return None
    return pid if pid != old else None


@scene.check("nginx -t beside a serving nginx changes nothing")
def tested():
    route = scene.route(gated=True)
    owner = route.later("/hold")
    route.gate.arrived()
    done = scene.route()
    first = done.post("/hold")
    for _ in range(3):
        status, said = scene.nginx.tested()
        same(status, 0, said)
    problem(route.post("/hold"), 409, "in-progress")
    replayed(done.post("/hold"), first)
    route.gate.open()
    same(owner.result().status, 201, "the owner")
    replayed(route.post("/hold"), owner.result())
    same((route.count, done.count), (1, 1), "executions")


@scene.check("verify finds no problem in the store after all this")
def verified():
    scene.idem("verify")
    scene.routes.strays.clear()


scene.run()
