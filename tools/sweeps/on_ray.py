"""Run jobs on a Ray cluster, or on a local one that ends with the sweep."""

from __future__ import annotations

import logging
import math
import os
import socket

from tools.sweeps.execute import PATIENCE, Ended, Launch, stop
from tools.sweeps.names import PROJECT
from tools.sweeps.protocols import Job

MISSING = (
    "Ray is not installed: install it (pip install -r requirements-cluster.txt), or run without "
    "it: --serial for one job after the other, --processes N for N at a time on this machine"
)
# Ray answers as a server of HTTP/2: a client's preface is followed by a frame of settings.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, 3.4
SETTINGS = bytes([4])  # type of the frame


def attempt(job: Job, launch: Launch) -> int:
    """Run one job on a worker; its processes end with the worker. Returns the exit code."""
    process = launch.start(job)
    try:
        return process.wait()
    finally:
        if process.returncode is None:
            stop(process)


def require_listener(address: str) -> None:
    """Refuse an address where Ray does not listen; Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # as "auto"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "1":
                connection.sendall(HELLO)
                if connection.recv(4)[3:] != SETTINGS:
                    raise ConnectionError("something else answers there")
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"no Ray at {address}: {error}; start it (docs/cluster.md), or leave --address out"
        ) from error


class RayWorkers:
    """Jobs as Ray tasks. All machines see the project, the data and the output at one path.

    Args:
        launch: how a job is started.
        address: of a cluster, as "auto"; None for one of this machine alone.
        gpus: of each job, fractions allowed; None: `launch.processes` if the cluster has any.
    """

    places = math.inf  # Ray queues jobs itself

    def __init__(self, launch: Launch, address: str | None, gpus: float | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's own future default: a task without GPUs does not hide those of the machine.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(MISSING) from error
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
        if gpus is None:
            gpus = launch.processes if ray.cluster_resources().get("GPU", 0) > 0 else 0
        # The sweep counts attempts itself, and knows which jobs are done.
        task = ray.remote(num_cpus=launch.threads * launch.processes, num_gpus=gpus, max_retries=0)
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
