#!/usr/bin/python3
"""Many at once with one key: one execution, and what the others are told, at once or after waiting."""
import resource
import time

from support import server
from support.checks import eventually, same, true
from support.client import Client, replayed
from support.scene import Scene, problem

CROWD = 1500

scene = Scene(workers=3, http="""
    idem_zone z path={shm}/z keys=4000 lease=20s;
    idem_zone few path={shm}/few keys=1000 lease=20s;
    idem_zone crowd path={shm}/crowd keys=1000 lease=60s;
    upstream none { server {up} down; }
""", server="""
        location /now { idem z; proxy_pass http://{up}; }
        location /wait { idem z; idem_wait 60s; proxy_pass http://{up}; }
        location /brief { idem z; idem_wait 300ms; proxy_pass http://{up}; }
        location /each { idem z; idem_wait 60s; idem_share_failures off; proxy_pass http://{up}; }
        location /few { idem few; idem_wait 60s; idem_max_waiters 2; proxy_pass http://{up}; }
        location /crowd { idem crowd; idem_wait 60s; idem_max_waiters 2000; proxy_pass http://{up}; }
        location /gone { idem z; idem_wait 60s; proxy_pass http://none; }
""")


def answers(calls):
    return [call.result() for call in calls]


@scene.check("32 at once: one is executed, 31 are told 409 with Retry-After within the lease")
def at_once():
    route = scene.route(gated=True)
    calls = [route.later("/now") for _ in range(32)]
    route.gate.arrived()
    eventually(lambda: sum(call.done() for call in calls) == 31, "31 answers while the first is in progress")
    route.gate.open()
    seen = answers(calls)
    same(sorted(a.status for a in seen), [201] + [409] * 31, "statuses")
    for answer in seen:
        if answer.status == 409:
            said = problem(answer, 409, "in-progress", "same_key")
            true(1 <= int(answer.header("Retry-After")) <= 20, f"Retry-After {answer.header('Retry-After')}; {said}")
    same(sorted(scene.outcome(a) for a in seen), ["claimed"] + ["in_progress"] * 31, "outcomes")
    route.executed(1)


@scene.check("64 that wait: one execution, and all have its answer")
def waiting():
    route = scene.route(gated=True)
    calls = [route.later("/wait") for _ in range(64)]
    route.gate.arrived()
    scene.waiting(63)
    same(sum(call.done() for call in calls), 0, "answers so far")
    route.gate.open()
    seen = answers(calls)
    first = [a for a in seen if a.header("Idempotency-Replayed") is None]
    same(len(first), 1, "first answers")
    for answer in seen:
        if answer is not first[0]:
            replayed(answer, first[0])
    same(sorted(scene.outcome(a) for a in seen), ["claimed"] + ["replayed"] * 63, "outcomes")
    scene.waiting(0)
    route.executed(1)


@scene.check("$idem_wait_time tells how long one waited, and is empty for who didn't")
def wait_time():
    route = scene.route(gated=True)
    owner = route.later("/wait")
    route.gate.arrived()
    waiter = route.later("/wait")
    scene.waiting(1)
    route.gate.open()
    same(scene.logged(owner.result())["waited"], "", "the owner's")
    waited = scene.logged(waiter.result())["waited"]
    true(float(waited) >= 0 and len(waited.split(".")[1]) == 3, f"the waiter's: {waited!r}")
    same(scene.logged(route.post("/wait"))["waited"], "", "a later one's")
    route.executed(1)


@scene.check("who has waited idem_wait is told 409 in-progress")
def too_long():
    route = scene.route(gated=True)
    owner = route.later("/brief")
    route.gate.arrived()
    answer = route.post("/brief")
    problem(answer, 409, "in-progress", "same_key")
    true(answer.header("Retry-After") is not None, "Retry-After")
    true(0.3 <= float(scene.logged(answer)["waited"]) < 30, f"waited {scene.logged(answer)['waited']}")
    route.gate.open()
    same(owner.result().status, 201, "the owner")
    route.executed(1)


@scene.check("another request with the key of one in progress doesn't wait: 422")
def mismatch():
    route = scene.route(gated=True)
    owner = route.later("/wait")
    route.gate.arrived()
    problem(route.post("/wait", body=b"other"), 422, "key-reused")
    route.gate.open()
    same(owner.result().status, 201, "the owner")
    route.executed(1)


@scene.check("a waiter that leaves is 499, and the others go on")
def leaver():
    for leave in (Client.close, Client.reset):
        route = scene.route(gated=True)
        calls = [route.later("/wait")]
        route.gate.arrived()
        calls += [route.later("/wait") for _ in range(3)]
        connection = route.open("/wait")
        scene.waiting(4)
        leave(connection)
        same(scene.logged_mark(connection.mark)["status"], "499", "in the log, while the others wait")
        scene.waiting(3)
        route.gate.open()
        same([a.status for a in answers(calls)], [201] * 4, "the others")
        route.executed(1)


@scene.check("a waiter that has sent its next request already: both are answered, in order")
def pipelined():
    route, next_one = scene.route(gated=True), scene.route()
    owner = route.later("/wait")
    route.gate.arrived()
    connection = Client(scene.nginx.port)
    connection.send(b"".join(connection.head("POST", f"/wait/{r.name}", r.fields("", ()), b'{"amount": 1}') + b'{"amount": 1}' for r in (route, next_one)))
    scene.waiting(1)
    same(next_one.count, 0, "executions of the next one, while the first waits")
    route.gate.open()
    replayed(connection.response(), owner.result())
    same(connection.response().status, 201, "the next one")
    connection.close()
    same((route.count, next_one.count), (1, 1), "executions")


@scene.check("the owner's client leaves: those who wait have the answer")
def owner_leaves():
    route = scene.route(gated=True)
    connection = route.open("/wait")
    route.gate.arrived()
    calls = [route.later("/wait") for _ in range(3)]
    scene.waiting(3)
    connection.reset()
    route.gate.open()
    same([(a.status, a.header("Idempotency-Replayed")) for a in answers(calls)], [(201, "true")] * 3, "the others")
    route.executed(1)


@scene.check("a persistent 500 with nine waiters: one execution, and all ten are told")
def failure_shared():
    route = scene.route(lambda x: x.answer(500, b"failure %d\n" % x.number, [("X-Execution", str(x.number))]), gated=True)
    calls = [route.later("/wait")]
    route.gate.arrived()
    calls += [route.later("/wait") for _ in range(9)]
    scene.waiting(9)
    route.gate.open()
    seen = answers(calls)
    same([(a.status, a.body, a.header("X-Execution")) for a in seen], [(500, b"failure 1\n", "1")] * 10, "answers")
    same(sorted(scene.outcome(a) for a in seen), ["claimed"] + ["shared"] * 9, "outcomes")
    same([a.header("Idempotency-Replayed") for a in seen], [None] + ["true"] * 9, "marks")
    same(scene.logged(seen[0])["claim"], "shared", "the owner's $idem_status")
    route.executed(1)
    same(route.post("/wait").body, b"failure 2\n", "who comes later isn't told: he tries")
    route.executed(2)


@scene.check("idem_share_failures off: who waited tries by himself, one after the other")
def failure_not_shared():
    route = scene.route(lambda x: x.answer(500, b"failure %d\n" % x.number), gated=True)
    calls = [route.later("/each")]
    route.gate.arrived()
    calls += [route.later("/each") for _ in range(3)]
    scene.waiting(3)
    route.gate.open()
    same(sorted(a.body for a in answers(calls)), [b"failure %d\n" % n for n in (1, 2, 3, 4)], "answers")
    route.executed(4)


@scene.check("a failure larger than idem_max_body can't be shared: one of those who wait tries, and his answer counts")
def failure_too_large():
    route = scene.route(lambda x: x.answer(500, b"x" * 100_000) if x.number == 1 else x.answer(201, b"well\n"), gated=True)
    calls = [route.later("/wait")]
    route.gate.arrived()
    calls += [route.later("/wait") for _ in range(3)]
    scene.waiting(3)
    route.gate.open()
    same(sorted((a.status, len(a.body)) for a in answers(calls)), [(201, 5)] * 3 + [(500, 100_000)], "answers")
    route.executed(2)


@scene.check("idem_max_waiters: one more than that in a worker is told 409 at once")
def most():
    route = scene.route(gated=True)
    calls = [route.later("/few")]
    route.gate.arrived()
    calls += [route.later("/few") for _ in range(12)]  # three workers, two each
    eventually(lambda: sum(call.done() for call in calls) >= 6, "those above the bound are told")
    waiting_now = scene.waiting_now("few")
    route.gate.open()
    seen = answers(calls)
    turned_away = [a for a in seen if a.status == 409]
    true(6 <= len(turned_away) <= 10, f"{len(turned_away)} turned away, {waiting_now} waited")
    for answer in turned_away:
        problem(answer, 409, "in-progress")
    same(len(seen) - len(turned_away), 13 - len(turned_away), "the rest")
    same({a.status for a in seen}, {201, 409}, "statuses")
    route.executed(1)
    other = scene.route(gated=True)  # and the places are free again
    calls = [other.later("/few")]
    other.gate.arrived()
    calls.append(other.later("/few"))
    scene.waiting(1, "few")
    other.gate.open()
    same([a.status for a in answers(calls)], [201, 201], "a later pair")
    other.executed(1)


@scene.check("waiters are in other workers than the owner, too")
def several_workers():
    pids = set()
    for _ in range(20):
        route = scene.route(gated=True)
        calls = [route.later("/wait") for _ in range(6)]
        route.gate.arrived()
        scene.waiting(5)
        route.gate.open()
        seen = answers(calls)
        same([a.status for a in seen], [201] * 6, "answers")
        route.executed(1)
        pids |= {scene.logged(a)["pid"] for a in seen}
        if len(pids) >= 2:
            return
    true(False, f"all in one worker: {pids}")


@scene.check("nothing was sent (no live upstream): each of those who wait is told by himself, none hangs")
def none_live():
    route = scene.route()
    calls = [route.later("/gone") for _ in range(8)]
    same({a.status for a in answers(calls)}, {502}, "statuses")
    scene.waiting(0)
    route.executed(0)


@scene.check("waiters for many keys at once: each key is executed once")
def many_keys():
    routes = [scene.route(gated=True) for _ in range(12)]
    calls = [(route, route.later("/wait")) for route in routes for _ in range(5)]
    for route in routes:
        route.gate.arrived()
    scene.waiting(48)
    for route in routes:
        route.gate.open()
    for route, call in calls:
        same((call.result().status, call.result().body), (201, b"execution 1\n"), "answer")
    same([route.count for route in routes], [1] * 12, "executions")


@scene.check(f"{CROWD} that wait cost little, and all are answered: one execution")
def crowd():
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    route = scene.route(gated=True)
    owner = route.later("/crowd")
    route.gate.arrived()
    waiting_ones = []
    for _ in range(CROWD):
        connection = Client(scene.nginx.port)
        connection.request("POST", f"/crowd/{route.name}", [*route.fields("", ()), ("Connection", "close")], b'{"amount": 1}')
        waiting_ones.append(connection)
    scene.waiting(CROWD, "crowd")
    time.sleep(1)  # whatever their coming cost is over, and they have come to their longest pauses
    began = sum(server.cpu_seconds(pid) for pid in scene.nginx.workers()), time.monotonic()
    time.sleep(2)
    used = sum(server.cpu_seconds(pid) for pid in scene.nginx.workers()) - began[0]
    share = used / (time.monotonic() - began[1])
    print(f"# {CROWD} waiters: {100 * share:.1f} % of a processor")
    true(share < 0.25, f"{CROWD} waiters take {100 * share:.1f} % of a processor")  # 2 % were seen; machines differ
    route.gate.open()
    first = owner.result()
    for connection in waiting_ones:
        answer = connection.response()
        same((answer.status, answer.body, answer.header("Idempotency-Replayed")), (201, first.body, "true"), "a waiter's answer")
        connection.close()
    route.executed(1)


scene.run()
