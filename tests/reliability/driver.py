"""Runs of train.py in processes of their own that can be killed; imports are paid for once.

Started as `python -m tests.reliability.driver`; reads a job a line, as JSON, and answers each with
its exit code (negative: the signal). A job:
    argv: words of the command line
    log: file that gets stdout and stderr (from this process, where files are limited)
    stop: [module, attribute, count, when]: what happens at that call, counted from 1: "before" or
        "behind" it SIGKILL; "half": the file that is being forced to the disk is cut in half first
    seconds: SIGKILL after that time
    signal: instead of SIGKILL
    fsize: bytes that a file may have
    uid: become that user first
    limits: {"NOFILE": number, ...}, see `resource`; "AS" counts from what the process has
"""

import importlib
import json
import os
import resource
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import torch._dynamo  # noqa: F401 - what runs import on their way is imported here, once
from torch.utils.tensorboard import SummaryWriter  # noqa: F401

import datasets  # noqa: F401
import runs.calibration  # noqa: F401
import tests.toy  # noqa: F401
import train
import trainers  # noqa: F401 - and scipy
from models.clip.openai import import_clip
from runs.record import git_revision, versions


def arm(job, module, attribute, count, when):
    """Have a signal sent to this process at the count-th call."""
    owner = importlib.import_module(module)
    *path, name = attribute.split(".")
    for part in path:
        owner = getattr(owner, part)
    function, calls = getattr(owner, name), []

    def armed(*args, **kwargs):
        calls.append(1)
        last = len(calls) == count
        if last and when == "half" and stat.S_ISREG(os.fstat(args[0]).st_mode):
            os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
        if last and when != "behind":
            os.kill(os.getpid(), job.get("signal", signal.SIGKILL))
        result = function(*args, **kwargs)
        if last:
            os.kill(os.getpid(), job.get("signal", signal.SIGKILL))
        return result

    setattr(owner, name, armed)


def child(job, log):
    """Become the run."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    if "stop" in job:
        arm(job, *job["stop"])
    if "fsize" in job:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["fsize"], job["fsize"]))
    for name, most in job.get("limits", {}).items():
        if name == "AS":
            most += resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    if "uid" in job:
        os.setuid(job["uid"])
    sys.argv = ["train.py", *job["argv"]]
    code = train.main()
    sys.stdout.flush()
    threading._shutdown()  # what would follow in a process of its own: threads end
    os._exit(code)


def main():
    import_clip(), git_revision(), versions()
    for line in sys.stdin:
        job = json.loads(line)
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        printed, pipe = os.pipe()
        if not (pid := os.fork()):
            try:
                child(job, pipe if "fsize" in job else log)
            finally:  # an error that main() did not expect
                import traceback

                traceback.print_exc()
                os._exit(1)
        os.close(pipe)
        while "fsize" in job and (block := os.read(printed, 2**16)):
            os.write(log, block)
        os.close(printed), os.close(log)
        if "seconds" in job:
            time.sleep(job["seconds"])
            os.kill(pid, job.get("signal", signal.SIGKILL))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
