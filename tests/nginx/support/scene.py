"""A scene: one nginx, its stores, its upstream, and the checks that are made with them.

A file of tests makes one Scene, declares checks with @scene.check("a sentence") and ends with scene.run(). In its
configuration {up} is the upstream's address, {shm} a private directory on /dev/shm, {dir} the private directory."""
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile

from . import client
from .checks import LIMIT, Checks, Failed, Later, eventually, same
from .server import MODULE, Nginx, adopt_orphans, children, doing
from .upstream import Route, Routes, Upstream, default_script

_SERVER = """
    server {{
        listen 127.0.0.1:{{port}} backlog=4096 reuseport;
        server_name _;
        location = /idem-status {{ idem_status on; add_header X-Worker $pid; }}
        {more_listen}
{server}
    }}
"""
_HTTP2 = "listen 127.0.0.1:{port2} http2 reuseport;"
_TLS = "listen 127.0.0.1:{port3} ssl http2 reuseport; ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;"
_LINES_SAID = 20  # of each log, after a check that failed


def make_certificate(directory):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                    "-subj", "/CN=shop.example", "-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem"],
                   check=True, capture_output=True, timeout=LIMIT)


class Handle(Route):
    """A route, and the requests that are made to it. Each has a key of its own unless told otherwise."""

    def __init__(self, scene, name, script):
        super().__init__(name, script)
        self.scene = scene
        self.key = f"key-{name}"

    def post(self, at, body=b'{"amount": 1}', key="", headers=(), method="POST", query="", port=None, tls=False):
        """key: "" for this route's own, None for none."""
        return client.ask(port or self.scene.nginx.port, method, f"{at}/{self.name}{query}", self.fields(key, headers), body, tls)

    def fields(self, key, headers):
        if key is None:
            return tuple(headers)
        return (("Idempotency-Key", self.key if key == "" else key), *headers)

    def later(self, at, **named):
        return Later(self.post, at, **named)

    def open(self, at, body=b'{"amount": 1}', key="", headers=(), method="POST", receive_bytes=None, port=None):
        """Sends a request and gives back the connection."""
        connection = client.Client(port or self.scene.nginx.port, receive_bytes=receive_bytes)
        connection.request(method, f"{at}/{self.name}", self.fields(key, headers), body)
        return connection

    def held(self, at, **named):
        """Nobody knows what became of it, and a duplicate is told so."""
        answer = self.post(at, **named)
        problem(answer, 409, "outcome-unknown")
        same(self.scene.outcome(answer), "unknown", "outcome")

    def fenced(self):
        """The service was asked twice, and the second time with the larger fence."""
        fences = [int(request.header("Idempotency-Fence")) for request in self.requests]
        same((len(fences), fences[1:] > fences[:1]), (2, True), f"fences {fences}")

    def settled(self, at, **named):
        """Asks again until the answer is not "in progress" any more."""
        def look():
            answer = self.post(at, **named)
            return answer if answer.status != 409 or slug(answer) != "in-progress" else None

        return eventually(look, f"{self.name} is still in progress")


class Scene:
    """expected: patterns of alarms in the error log that a check provokes. overfull: names of the stores that a check fills up. upstreams: more of them, {name: class}."""

    def __init__(self, server="", http="", main="", events="", workers=2, ports=("port",), expected=(), overfull=(), upstreams=None, before=None, http2=False, tls=False):
        self.check = Checks(self._listen)
        self.overfull = overfull
        self.server, self.http, self.main, self.events = server, http, main, events
        self.workers, self.ports, self.expected, self.before = workers, ports, list(expected), before
        self.kinds = upstreams or {}
        self.routes = Routes()
        self.http2 = http2  # on {port2}, in clear with prior knowledge
        if http2 and "port2" not in self.ports:
            self.ports = (*self.ports, "port2")
        self.tls = tls  # on {port3}, with HTTP/2 for who asks for it
        if tls and "port3" not in self.ports:
            self.ports = (*self.ports, "port3")
        self.nginx = None
        self._numbers = itertools.count(1)

    # ---------------------------------------------------------------- what checks use
    def route(self, script=default_script, gated=False):
        """A script under a new name; gated: it stops at its gate first."""
        def stop_then_answer(x):
            x.route.gate.stop_here()
            script(x)

        route = Handle(self, self.routes.name(), stop_then_answer if gated else script)
        self.routes.add(route)
        return route

    def pair(self, script_first, script_second):
        """Two routes that one request may reach, one after the other: names that end in -first and -second."""
        first, second = self.route(script_first), self.route(script_second)
        base = first.name
        for route, end in ((first, "-first"), (second, "-second")):
            route.name = base + end
            self.routes.add(route)
        return first, second

    def logged(self, answer):
        """The access log's line about the request that got this answer."""
        return self.logged_mark(answer.mark)

    def logged_mark(self, mark):
        def look():
            with open(f"{self.dir}/access.log") as file:
                for line in file:
                    if f'"mark":"{mark}"' in line and line.endswith("\n"):
                        return json.loads(line)
            return None

        return eventually(look, f"a line of the access log about {mark}")

    def outcome(self, answer):
        return self.logged(answer)["outcome"]

    def waiting(self, count, zone="z"):
        """Waits until so many requests wait for another's answer, over all workers that are not on their way out."""
        eventually(lambda: self.waiting_now(zone) == count, lambda: f"{self.waiting_now(zone)} requests wait, expected {count}")

    def waiting_now(self, zone="z"):
        """Each worker tells its own: asks until each has."""
        told = {}

        def look():
            page = client.ask(self.nginx.port, "GET", "/idem-status?format=prometheus")
            told[int(page.header("X-Worker"))] = self.metric("waiting", zone, page)
            return set(self.nginx.workers()) <= set(told)

        eventually(look, "an answer of each worker")
        return sum(told[pid] for pid in self.nginx.workers() if pid in told)

    def metric(self, name, zone="z", page=None, **labels):
        """One value of the status page (summed up where labels don't tell which), or None."""
        page = (page or client.ask(self.nginx.port, "GET", "/idem-status?format=prometheus")).body.decode()
        values = []
        for line in page.splitlines():
            if line.startswith(f"idem_{name}{{") and f'zone="{zone}"' in line:
                if all(f'{key}="{value}"' in line for key, value in labels.items()):
                    values.append(float(line.rsplit(" ", 1)[1]))
        return sum(values) if values else None

    def idem(self, *arguments, status=0, store=None, text=None):
        """Runs the idem command on a store ("z" of {shm} by default) and gives back what it printed."""
        command = [os.environ["IDEM"], arguments[0], "--store", f"{self.shm}/{store or 'z'}", *arguments[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * LIMIT, input=text or "")
        if status is not None:
            same(done.returncode, status, f"exit status of {' '.join(command)}: {done.stdout} {done.stderr}")
        return done.stdout

    def fill(self, text):
        """Puts this scene's addresses and places into a piece of configuration."""
        for name, value in self.names.items():
            text = text.replace("{%s}" % name, value)
        return text

    def http_part(self, server=None, http=None):
        """The http block of this scene, or of a variant of it."""
        return self.fill((self.http if http is None else http) + _SERVER.format(
            more_listen=_HTTP2 * self.http2 + _TLS * self.tls, server=self.server if server is None else server))

    # ---------------------------------------------------------------- its life
    def run(self):
        """Runs the checks (those whose name contains the first argument, if there is one) and exits."""
        if os.geteuid() != 0:
            print("skipped: nginx's master must be root, so that its workers can be another user's")
            sys.exit(77)
        if not os.path.exists(MODULE):
            print(f"not ok - the module is built: {MODULE}")
            sys.exit(1)
        adopt_orphans()
        self.dir = tempfile.mkdtemp(prefix="nginx-")
        self.shm = tempfile.mkdtemp(prefix="idem-test-", dir="/dev/shm")
        for path in (self.dir, self.shm):
            os.chmod(path, 0o755)
        status = 1
        try:
            status = self._play()
        finally:
            self.routes.open_gates()
            if self.nginx:
                self.nginx.stop()
            shutil.rmtree(self.shm, ignore_errors=True)
            if os.environ.get("IDEM_TEST_KEEP"):
                print(f"# kept: {self.dir}")
            else:
                shutil.rmtree(self.dir, ignore_errors=True)
        sys.stdout.flush()
        os._exit(status)  # threads of the upstream may still wait for nginx

    def _play(self):
        upstreams = {"up": Upstream(self.routes)}
        for name, kind in self.kinds.items():
            upstreams[name] = kind(self.routes)
        self.names = {name: f"127.0.0.1:{up.port}" for name, up in upstreams.items()}
        self.names.update(dir=self.dir, shm=self.shm)
        self.upstreams = upstreams
        if self.tls:
            make_certificate(self.dir)
        if self.before:
            self.before(self)
        self.nginx = Nginx(self.dir, self.http_part(), self.fill(self.main), self.events, self.workers, self.ports)
        try:
            self.nginx.start()
        except Failed as error:
            self.check.run_one("nginx starts", lambda: _raise(error))
            return self.check.finish()
        self.check.run(sys.argv[1] if len(sys.argv) > 1 else "")
        self.routes.open_gates()
        self.check.run_one("each store was made for the keys that the checks put there", self._stores_fit)
        self.check.run_one("nginx ends in order, and its error log has no alarm", self._end)
        return self.check.finish()

    def _stores_fit(self):
        """In a store that holds more, chance (its salt) says which key still finds room."""
        for name in sorted(os.listdir(self.shm)):
            if name in self.overfull or not os.path.exists(f"{self.shm}/{name}/root"):
                continue
            told = json.loads(self.idem("stat", "--walk", "--json", store=name))
            held, made_for, refused = sum(told["keys_by_state"].values()), told["keys_capacity"], told["counters"]["full"]
            if held > made_for or refused:
                raise Failed(f"the store {name} holds {held} keys and was made for {made_for}; it was too full for {refused} claims")

    def _listen(self):
        """Gives a function that gives what nginx has written from now on, and what its processes are doing."""
        began = {path: os.path.getsize(path) if os.path.exists(path) else 0 for path in (f"{self.dir}/error.log", f"{self.dir}/access.log")}

        def said():
            lines = []
            for path, offset in began.items():
                if os.path.exists(path):
                    with open(path, errors="replace") as file:
                        file.seek(offset)
                        lines += [f"{os.path.basename(path)}: {line.rstrip()}" for line in file.readlines()[-_LINES_SAID:]]
            if self.nginx and self.nginx.process:
                lines += [doing(pid) for pid in (self.nginx.pid, *children(self.nginx.pid))]
            return lines

        return said

    def _end(self):
        orderly = self.nginx.stop()
        same(self.nginx.alarms(self.expected), [], "alarms in the error log")
        same(orderly, True, "nginx ended by itself")
        same(self.routes.strays, [], "requests that belong to no check")


def _raise(error):
    raise error


def slug(answer):
    """The last part of a problem's type; "" if the answer isn't a problem."""
    if answer.header("content-type") != "application/problem+json":
        return ""
    return json.loads(answer.body or b'{"type": ""}')["type"].replace("#", ":").rsplit(":", 1)[-1]


def problem(answer, status, name, retry=None):
    """The answer is the module's own, of this kind, and complete as the draft wants it."""
    same(answer.status, status, f"status of {answer!r}")
    same(answer.header("content-type"), "application/problem+json", "the problem's content type")
    said = json.loads(answer.body)
    same(slug(answer), name, "the problem's type")
    same(said["status"], status, "the problem's status member")
    for member in ("type", "title", "detail", "retry"):
        if not isinstance(said.get(member), str) or not said[member]:
            raise Failed(f"the problem has no {member}: {answer.body!r}")
    if retry is not None:
        same(said["retry"], retry, "the problem's retry member")
    return said
