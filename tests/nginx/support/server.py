"""One real nginx: the packaged binary as a root master with www-data workers, in a directory of its own.

It stays in the foreground, so that it is in the same process group as the test: whoever ends that group ends it. Processes are found through their parents and ended by their ids."""
import ctypes
import os
import random
import re
import signal
import socket
import subprocess
import time

from .checks import LIMIT, Failed, eventually

BINARY = os.environ.get("IDEM_NGINX_BINARY", "/usr/sbin/nginx")
MODULE = os.environ.get("IDEM_NGINX_MODULE") or os.path.join(os.environ.get("IDEM_BUILD", "build"), "ngx_http_idem_module.so")

_PR_SET_CHILD_SUBREAPER = 36
_CONFIG = """\
load_module {module};
user www-data;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/error.log info;
worker_processes {workers};
worker_rlimit_nofile 8192;
{main}
events {{ worker_connections 4096; {events} }}
http {{
    log_format marks escape=json '{{"mark":"$http_x_mark","status":"$status","pid":"$pid",'
        '"outcome":"$idem_outcome","claim":"$idem_status","key":"$idem_key","token":"$idem_token","age":"$idem_age",'
        '"fingerprint":"$idem_fingerprint","scope":"$idem_scope","waited":"$idem_wait_time"}}';
    access_log {dir}/access.log marks;
    client_body_temp_path {dir}/t-body; proxy_temp_path {dir}/t-proxy; fastcgi_temp_path {dir}/t-fastcgi;
    uwsgi_temp_path {dir}/t-uwsgi; scgi_temp_path {dir}/t-scgi;
    server_names_hash_bucket_size 128;
{http}
}}
"""


# nginx takes USR2 only when its parent isn't the one that started it any more: a shell starts it, waits for a line, and ends.
_STARTER = '"$@" >/dev/null & echo $!; exec >/dev/null; read line'


def adopt_orphans():
    """A master that a USR2 upgrade leaves behind becomes this process's child, and can be waited for."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def free_port():
    """A port outside of the range the kernel gives to connections."""
    for _ in range(200):
        port = random.randrange(11000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("no free port")


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _facts(pid):
    """What the kernel says of it, from its state on (proc(5), /proc/pid/stat, field 3). OSError if it is gone."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()


def alive(pid):
    """Runs, or is stopped; a zombie is dead."""
    try:
        return _facts(pid)[0] not in "ZX"
    except OSError:
        return False


def started(pid):
    """In ticks since boot; with the id it tells a process from a later one of that id. None if it is gone."""
    try:
        return int(_facts(pid)[19])
    except OSError:
        return None


def title(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def cpu_seconds(pid):
    fields = _facts(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def doing(pid):
    """In one line: its state, where in the kernel it sleeps (0: it runs), how much it has worked."""
    try:
        with open(f"/proc/{pid}/wchan") as wchan:
            return f"{title(pid)} ({pid}): {_facts(pid)[0]} {wchan.read()}, {cpu_seconds(pid):.2f} s of CPU"
    except OSError:
        return f"{pid}: gone"


class Adopted:
    """A child that somebody else started (adopt_orphans()), as subprocess knows its own."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout):
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("nginx", timeout)
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)


class Nginx:
    """main, events and http are what stands in those parts of the configuration; {port}, {port2} ... are filled in here."""

    def __init__(self, directory, http, main="", events="", workers=2, ports=("port",)):
        self.dir, self.parts, self.port_names = directory, (main, events, http), ports
        self.workers_wanted = workers
        self.process, self.pid, self._known = None, None, set()  # _known: workers, (id, started)
        self._log_from = 0

    # ---------------------------------------------------------------- configuration
    def write(self, http=None, main=None, events=None, workers=None):
        """Writes the configuration; what isn't given stays as it was."""
        old_main, old_events, old_http = self.parts
        self.parts = (old_main if main is None else main, old_events if events is None else events,
                      old_http if http is None else http)
        self.workers_wanted = workers or self.workers_wanted
        sanitizers = "".join(f"env {name};\n" for name in os.environ if name.endswith("SAN_OPTIONS"))
        text = sanitizers + _CONFIG.format(module=MODULE, dir=self.dir, workers=self.workers_wanted, main=self.parts[0],
                              events=self.parts[1], http=self.parts[2])
        for name in self.port_names:
            text = text.replace("{%s}" % name, str(getattr(self, name)))
        with open(f"{self.conf}.new", "w") as file:
            file.write(text)
        os.rename(f"{self.conf}.new", self.conf)  # a master that is just reading it sees one or the other

    @property
    def conf(self):
        return f"{self.dir}/nginx.conf"

    def tested(self, path=None):
        """nginx -t: (exit status, what it said)."""
        done = subprocess.run([BINARY, "-t", "-c", path or self.conf, "-e", "stderr"], capture_output=True, text=True,
                              timeout=2 * LIMIT, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout + done.stderr

    # ---------------------------------------------------------------- starting and stopping
    def start(self):
        for _ in range(5):
            for name in self.port_names:
                setattr(self, name, free_port())
            self.write()
            if self.launch():
                return self
        raise Failed("nginx found no free port five times")

    def launch(self):
        """Starts it with the configuration as it is; False if a port was taken meanwhile."""
        self._log_from = os.path.getsize(self.log) if os.path.exists(self.log) else 0
        with open(f"{self.dir}/stderr.out", "ab") as stderr:
            starter = subprocess.Popen(["/bin/sh", "-c", _STARTER, "sh", BINARY, "-c", self.conf, "-e", f"{self.dir}/stderr"],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        self.pid = int(starter.stdout.readline())
        end, state = time.monotonic() + LIMIT, None
        while state is None and time.monotonic() < end:
            if not alive(self.pid):
                state = "ended"
            elif len(self.workers()) >= self.workers_wanted and self.accepts():
                state = "serves"
            else:
                time.sleep(0.01)
        starter.communicate(b"\n", LIMIT)
        self.process = Adopted(self.pid)
        if state == "ended":
            self.process = None
            if "Address already in use" in self.errors():
                return False
        if state != "serves":
            raise Failed(f"nginx {state or 'does not serve'}: {self.errors()[-2000:]}")
        return True

    def accepts(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def workers(self, master=None):
        """Ids of the workers of this generation and older ones, those that are shutting down not counted."""
        found = [pid for pid in children(master or self.pid) if title(pid) == "nginx: worker process"]
        self._known.update((pid, started(pid)) for pid in found)
        return found

    def leaving(self):
        found = [pid for pid in children(self.pid) if "shutting down" in title(pid)]
        self._known.update((pid, started(pid)) for pid in found)
        return found

    def tell(self, number, pid=None):
        os.kill(pid or self.pid, number)

    def reload(self, **parts):
        """HUP with another configuration (or the same); waits until the new workers are there."""
        if parts:
            self.write(**parts)
        before = set(self.workers())
        self.tell(signal.SIGHUP)
        eventually(lambda: len(set(self.workers()) - before) >= self.workers_wanted and not before & set(self.workers()),
                   lambda: f"new workers after a reload: {self.errors()[-1500:]}")

    def adopt(self, pid):
        """Goes on with the master that a USR2 upgrade made; it has become our child when the old one ended."""
        self.process, self.pid = Adopted(pid), pid

    def stop(self, number=signal.SIGTERM):
        """Ends all of it, in order if it can, else by force; says whether that was in order."""
        if self.process is None:
            return True
        orderly = True
        self.workers(), self.leaving()
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                orderly = False
                self.process.kill()
                self.process.wait(LIMIT)
        for pid, since in self._known:  # the master has waited for most: their ids may be another scene's workers' by now
            if alive(pid) and started(pid) == since:
                orderly = False
                os.kill(pid, signal.SIGKILL)
        self.process = None
        return orderly

    def kill_all(self):
        """The machine's crash, as far as processes can tell: all at once, no last word."""
        pids = [self.pid, *children(self.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(LIMIT)
        eventually(lambda: not any(alive(pid) for pid in pids), "killed processes are gone")
        self.process = None

    # ---------------------------------------------------------------- what it says
    @property
    def log(self):
        return f"{self.dir}/error.log"

    def errors(self):
        """What this run of nginx has written, before it opened its log too."""
        text = ""
        for path, begin in ((f"{self.dir}/stderr", 0), (f"{self.dir}/stderr.out", 0), (self.log, self._log_from)):
            if os.path.exists(path):
                with open(path, errors="replace") as file:
                    file.seek(begin)
                    text += file.read()
        return text

    def alarms(self, expected=()):
        """Lines of the whole log that must not be there."""
        found = []
        for path in (f"{self.dir}/stderr", f"{self.dir}/stderr.out", self.log):
            if os.path.exists(path):
                with open(path, errors="replace") as file:
                    found += [line.strip() for line in file if re.search(r"\[(alert|emerg)\]|exited on signal|exited with code [1-9]|Sanitizer|runtime error", line)]
        return [line for line in found if not any(re.search(pattern, line) for pattern in expected)]
