"""Start jobs as processes: of this machine, or of a Ray cluster."""

import contextlib
import logging
import math
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from runs import processes
from tools.sweeps import names
from tools.sweeps.awake import PATIENCE, Forked, Order, Worker
from tools.sweeps.protocols import Job

POLL = 0.3  # seconds between two looks at the jobs
NO_RAY = """Ray is not installed: install it (pip install -r requirements-cluster.txt), or run \
without it: --serial for one job after the other, --processes N for N at a time on this machine"""
# Ray answers as a server of HTTP/2: a client's preface is followed by a frame of settings.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, 3.4


class Ended(NamedTuple):
    """How an attempt ended: the exit code, None where the machine was lost."""

    code: int | None
    reason: str = ""


@dataclass(frozen=True)
class Launch:
    """How a job is started."""

    project: Path  # folder of train.py
    threads: int  # of each process, fixed: results depend on it in the last digits
    processes: int  # more than 1: that many, a GPU each, by torchrun
    isolate: bool = False  # a process a job, which imports all that it needs

    @property
    def environment(self) -> dict[str, str]:
        """Of a job."""
        return os.environ | {"OMP_NUM_THREADS": str(self.threads)}

    def command(self, job: Job) -> list[str]:
        """Return the job as a command line."""
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        several = [*torchrun, str(self.processes)] if self.processes > 1 else []
        return [sys.executable, *several, "train.py", *job.words]

    def order(self, job: Job) -> Order:
        """Make the folder of a job, and an empty log in it."""
        folders = [str(self.project / folder) for folder in (job.folder, *job.needs)]
        Path(folders[0]).mkdir(parents=True, exist_ok=True)
        log = self.project / job.log
        log.write_text("")
        return Order(job.words, tuple(folders), str(log), self.environment)

    def start(self, job: Job) -> subprocess.Popen:
        """Start the job in a process group of its own, guarded by runs/processes.py."""
        order = self.order(job)
        guarded = [sys.executable, processes.__file__, str(os.getpid()), *order.folders, "--"]
        options = {"cwd": self.project, "env": order.environment, "start_new_session": True}
        with Path(order.log).open("w") as log:
            options |= {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            return subprocess.Popen([*guarded, *self.command(job)], **options)


def stop(process: subprocess.Popen) -> None:
    """Ask a job and its children to end; kill them if they do not."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
            return


class LocalWorkers:
    """Jobs as processes of this machine, `places` at a time, in order.

    One process imports what they need and becomes each of them by a fork (awake.py), where it can.
    """

    def __init__(self, launch: Launch, places: int) -> None:
        self.launch, self.places = launch, places
        self.awake = not launch.isolate and launch.processes == 1 and sys.platform == "linux"
        self.worker: Worker | None = None
        self.running: dict[Job, subprocess.Popen | Forked] = {}

    def start(self, job: Job) -> None:
        """Start a job."""
        worker = self._worker()
        one = worker.start(self.launch.order(job)) if worker else self.launch.start(job)
        self.running[job] = one

    def _worker(self) -> Worker | None:
        """Return the worker that is awake, or a new one; None if jobs cannot be forked here."""
        if self.awake and not (self.worker and self.worker.alive):
            try:
                self.worker = Worker(self.launch.project, self.launch.environment)
            except (EOFError, OSError):  # what the jobs print says why, if they fail, too
                self.awake, self.worker = False, None
        return self.worker

    def ended(self, seconds: float) -> dict[Job, Ended]:
        """Wait a while for jobs to end; return those that have."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            next(iter(self.running.values())).wait(seconds)
        codes = {job: process.poll() for job, process in self.running.items()}
        over = {job: Ended(code) for job, code in codes.items() if code is not None}
        self.running = {job: p for job, p in self.running.items() if job not in over}
        return over

    def close(self) -> None:
        """Stop the jobs that run, and the worker."""
        for process in self.running.values():
            if isinstance(process, subprocess.Popen):
                stop(process)
        if self.worker:
            self.worker.close()
        self.running, self.worker = {}, None


class RayWorkers:
    """Jobs as Ray tasks. All machines see the project, the data and the output at one path."""

    places = math.inf  # Ray queues jobs itself

    def __init__(self, launch: Launch, address: str | None, gpus: float | None) -> None:
        """Join or start a cluster; a job takes `gpus`, or one for each process if there are any."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's own future default: a task without GPUs does not hide those of the machine.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(NO_RAY) from error
        require_listener(address or "")
        options = {"address": address or "local", "include_dashboard": None if address else False}
        options |= {"runtime_env": {"env_vars": {"PYTHONPATH": str(names.PROJECT)}}}
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
        except Exception as error:  # Ray raises many kinds
            where = address or "this machine"
            raise ConnectionError(f"no Ray at {where}: {str(error).splitlines()[0]}") from error
        if gpus is None:
            gpus = launch.processes if ray.cluster_resources().get("GPU", 0) > 0 else 0
        # The sweep counts attempts itself, and knows which jobs are done.
        # A process of Ray takes one task after the other; with GPUs that is not its default.
        options = {"num_gpus": gpus, "max_retries": 0, "max_calls": 0}
        task = ray.remote(num_cpus=launch.threads * launch.processes, **options)
        self.ray, self.task, self.launch = ray, task(attempt), launch
        self.running: dict[Job, object] = {}

    def start(self, job: Job) -> None:
        """Hand a job to Ray."""
        self.running[job] = self.task.remote(job, self.launch)

    def ended(self, seconds: float) -> dict[Job, Ended]:
        """Wait a while for jobs to end; return those that have."""
        futures = list(self.running.values())
        ready, _ = self.ray.wait(futures, num_returns=len(futures), timeout=seconds)
        over = [job for job, future in self.running.items() if future in ready]
        return {job: self._result(self.running.pop(job)) for job in over}

    def _result(self, future: object) -> Ended:
        try:
            return Ended(self.ray.get(future))
        except self.ray.exceptions.RayTaskError as error:
            return Ended(1, str(error).splitlines()[-1])
        except self.ray.exceptions.RayError as error:
            return Ended(None, str(error).splitlines()[0])

    def close(self) -> None:
        """Leave the cluster; Ray stops the jobs that run."""
        self.ray.shutdown()


kept = cache(partial(LocalWorkers, places=1))  # by a process of Ray, which runs many tasks


def attempt(job: Job, launch: Launch) -> int | None:
    """Run one job on a worker of Ray, to its exit code; its processes end with the worker."""
    workers = kept(launch)
    try:
        workers.start(job)
        while not (over := workers.ended(POLL)):
            pass
        return over[job].code
    finally:
        if workers.running:
            workers.close()


def require_listener(address: str) -> None:
    """Refuse an address where Ray does not listen; Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # as "auto"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "1":
                connection.sendall(HELLO)
                if connection.recv(4)[3:] != bytes([4]):  # type of a frame of settings
                    raise ConnectionError("something else answers there")
    except (OSError, OverflowError) as error:
        advice = "start it (docs/cluster.md), or leave --address out"
        raise ConnectionError(f"no Ray at {address}: {error}; {advice}") from error
