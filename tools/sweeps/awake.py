"""Run jobs in children of a process that has imported what they need: once, not for each job.

A worker is a process of its own. It reads orders, forks a child for each, and answers with its exit
code. It computes nothing itself, so that a child begins as `python train.py` does behind its
imports, and leaves nothing to the next one. Only on Linux.
"""

# Not multiprocessing's forkserver: it ends a job without its exit handlers, imports the sweep's
# main module in each, and is silent where a preload fails. Nor concurrent.futures: there a job that
# dies breaks the pool, and the next job finds what the last one left.
import contextlib
import gc
import math
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from runs.processes import end_with, has_work

PATIENCE = 10  # seconds that a job has to end after it was asked to
LOOK = 0.05  # seconds between two looks at the children
# What most runs import or find out; functions, behind a colon, are called and keep what they found.
PRELOAD = (
    *("trainers", "datasets", "dassl.engine", "runs.config", "runs.calibration", "runs.parallel"),
    *("torch._dynamo", "torch.utils.tensorboard", "scipy.optimize"),
    *("models.clip.openai:import_clip", "runs.record:git_revision", "runs.record:versions"),
)
WORKER = """\
import sys
sys.path[0] = sys.argv[1]
from tools.sweeps import awake
awake.main(sys.argv[2:])
"""
GPUS = ("/dev/nvidia", "/dev/kfd", "/dev/dri")


class Order(NamedTuple):
    """What a worker needs to know of a job."""

    words: tuple[str, ...]  # for train.py
    folders: tuple[str, ...]  # its own, then those of the jobs that it needs
    log: str
    environment: Mapping[str, str]


def preload(wanted: Iterable[str]) -> bool:
    """Import what is named; whether children may compute, as CUDA does not survive a fork."""
    for name in wanted:
        found = pkgutil.resolve_name(name)
        if callable(found):
            found()
    gc.freeze()  # children share the memory of what is there
    opened = [os.path.realpath(handle) for handle in Path("/proc/self/fd").iterdir()]
    return not any(path.startswith(GPUS) for path in opened)


def become_train(project: Path, words: Iterable[str]) -> None:
    """Go on as `python train.py WORDS` in the folder of the project, to its end."""
    os.chdir(project)
    sys.path[0], sys.argv = str(project), ["train.py", *words]
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # that of a new process is drawn, too
    runpy.run_path("train.py", run_name="__main__")
    sys.exit()


class Child:
    """A forked process, with what is asked of a subprocess.Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the child runs."""
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if found else None
        return self.returncode

    def wait(self, timeout: float = math.inf) -> int:
        """Return the exit code; a TimeoutExpired if the child runs on."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("train.py", timeout)
            time.sleep(LOOK)
        return self.returncode

    def terminate(self) -> None:
        """Ask the child to end."""
        self.send(signal.SIGTERM)

    def send(self, sign: int) -> None:
        """Send a signal to the child and, if it leads a session, to its own children."""
        if self.poll() is None:
            try:
                os.killpg(self.pid, sign)
            except ProcessLookupError:
                os.kill(self.pid, sign)


def main(arguments: list[str]) -> None:
    """Serve as a worker; a child becomes its job instead."""
    parent, handle, *wanted = arguments
    end_with(int(parent))
    connection, worker = Connection(int(handle)), os.getpid()
    if preload(wanted) and (order := serve(connection)):
        become(order, worker)


def serve(connection: Connection) -> Order | None:
    """Fork a child for each order, until the connection ends. In a child: return its order."""
    children: dict[str, Child] = {}
    with connection, contextlib.suppress(EOFError, ConnectionError):
        connection.send("ready")
        while True:
            if connection.poll(LOOK):
                order = Order(*connection.recv())
                try:
                    pid = os.fork()
                except OSError as error:
                    Path(order.log).write_text(f"no process could be started: {error}\n")
                    connection.send((order.folders[0], 1))
                    continue
                if not pid:
                    return order
                children[order.folders[0]] = Child(pid)
            for folder in [one for one, child in children.items() if child.poll() is not None]:
                connection.send((folder, children.pop(folder).returncode))
    stop(list(children.values()))
    return None


def become(order: Order, worker: int) -> None:
    """Be the job to its end: in a session, with an environment and a log of its own."""
    os.setsid()
    end_with(worker)
    os.environ.clear()
    os.environ.update(order.environment)
    with Path(order.log).open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    folder, *needs = map(Path, order.folders)
    if has_work(folder, needs):
        become_train(Path.cwd(), order.words)


def stop(children: Sequence[Child]) -> None:
    """Ask children to end; kill them if they do not."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for child in children:
            child.send(sign)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and None in [child.poll() for child in children]:
            time.sleep(LOOK)


class Worker:
    """A worker, seen from the process that gives the orders."""

    def __init__(self, project: Path, environment: Mapping[str, str]) -> None:
        """Start it, and wait until it is ready; an EOFError if it cannot be."""
        self.connection, theirs = Pipe()
        self.running: dict[str, Forked] = {}
        handle = theirs.fileno()
        nowhere = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        options = {"cwd": project, "env": environment, "start_new_session": True} | nowhere
        project_of_this = str(Path(__file__).parents[2])
        words = [project_of_this, str(os.getpid()), str(handle), *PRELOAD]
        command = [sys.executable, "-c", WORKER, *words]
        self.process = subprocess.Popen(command, pass_fds=[handle], **options)
        theirs.close()
        try:
            self.connection.recv()
        except BaseException:
            self.process.kill()
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it takes orders."""
        return self.process.poll() is None

    def start(self, order: Order) -> "Forked":
        """Have a child become the job."""
        with contextlib.suppress(OSError):  # if it has died, `look` finds it
            self.connection.send(tuple(order))
        self.running[order.folders[0]] = found = Forked(self)
        return found

    def look(self, seconds: float = 0) -> None:
        """Take the answers that are there; wait a while for the first."""
        try:
            while self.running and self.connection.poll(seconds):
                folder, code = self.connection.recv()
                self.running.pop(folder).returncode = code
                seconds = 0
        except (EOFError, OSError):  # it was killed; its children end with it
            self.close()

    def close(self) -> None:
        """Have it stop its children and end."""
        self.connection.close()
        code = self.process.wait()
        for forked in self.running.values():
            forked.returncode = code
        self.running.clear()


class Forked:
    """A job of a worker, with what is asked of a subprocess.Popen."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the job runs."""
        self.worker.look()
        return self.returncode

    def wait(self, timeout: float) -> None:
        """Wait a while for this job or another one of the worker to end."""
        self.worker.look(timeout)
