"""Carry out jobs on a Ray cluster, or on a local one that ends with the sweep."""

from __future__ import annotations

import logging
import os
import socket

from tools.sweeps.execute import PATIENCE, Ended, Launch, stop
from tools.sweeps.names import PROJECT
from tools.sweeps.protocols import Job

MISSING = (
    "Ray is not installed: install it (pip install -r requirements-cluster.txt), or run without "
    "it: --serial for one job after the other, --processes N for N at a time on this machine"
)

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, 3.4
SETTINGS = 4  # type of the frame that a server of HTTP/2, as Ray's is, answers with


def attempt(job: Job, launch: Launch) -> int:
    """Run one job to its end, on a worker; its processes end with the worker.

    Returns:
        The exit code.
    """
    process = launch.start(job)
    try:
        return process.wait()
    finally:
        if process.returncode is None:
            stop(process)


def require_listener(address: str) -> None:
    """Refuse an address where Ray does not listen; it would wait for an answer, for minutes.

    Raises:
        ConnectionError: nobody answers there, or something else does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # as "auto"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as speaking:
            if os.environ.get("RAY_USE_TLS", "0") != "1":
                _require_http2(speaking)
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"no Ray at {address}: {error}; start it (docs/cluster.md), or leave --address out"
        ) from error


def _require_http2(speaking: socket.socket) -> None:
    speaking.sendall(HELLO)
    frame = speaking.recv(4)
    if frame[3:] != bytes([SETTINGS]):
        raise ConnectionError("something else answers there")


class OnRay:
    """Jobs as Ray tasks. All machines see the project, the data and the output at one path.

    Args:
        launch: how a job is started.
        address: of a cluster, as "auto"; None for one of this machine alone.
        gpus: of each job, fractions allowed; None: `launch.processes` if the cluster has any.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: no cluster at that address.
    """

    def __init__(self, launch: Launch, address: str | None, gpus: float | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's own future default: a task without GPUs does not hide those of the machine.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(MISSING) from error
        self.ray = ray
        require_listener(address or "")
        try:
            ray.init(
                address=address or "local",
                runtime_env={"env_vars": {"PYTHONPATH": str(PROJECT)}},
                include_dashboard=None if address else False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        except Exception as error:  # Ray raises many kinds
            where = address or "this machine"
            raise ConnectionError(f"no Ray at {where}: {str(error).splitlines()[0]}") from error
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        gpus = launch.processes * has_gpus if gpus is None else gpus
        # Attempts are counted by the sweep, whose jobs know whether they are done.
        task = ray.remote(num_cpus=launch.threads * launch.processes, num_gpus=gpus, max_retries=0)
        self.task, self.launch = task(attempt), launch
        self.running: dict[Job, object] = {}

    def has_room(self) -> bool:
        """Ray keeps what has no room yet."""
        return True

    def start(self, job: Job) -> None:
        """Hand a job to Ray."""
        self.running[job] = self.task.remote(job, self.launch)

    def ended(self, seconds: float) -> dict[Job, Ended]:
        """Jobs that have ended; waits a while for one."""
        futures = list(self.running.values())
        ready, _ = self.ray.wait(futures, num_returns=len(futures), timeout=seconds)
        over = {job: future for job, future in self.running.items() if future in ready}
        found = {}
        for job, future in over.items():
            del self.running[job]
            try:
                found[job] = Ended(self.ray.get(future))
            except self.ray.exceptions.RayTaskError as error:
                found[job] = Ended(1, str(error).splitlines()[-1])
            except self.ray.exceptions.RayError as error:
                found[job] = Ended(None, str(error).splitlines()[0])
        return found

    def close(self) -> None:
        """Leave the cluster; what still runs is stopped."""
        self.ray.shutdown()
