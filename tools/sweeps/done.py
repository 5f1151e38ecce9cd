"""Whether the results in a job's folder are those of the job."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runs.processes import read_results
from tools.sweeps import names
from tools.sweeps.protocols import Job, learns_nothing

BESIDE = ("TEST.SPLIT", "MODEL.BACKBONE.WEIGHTS")  # keys that decide a result, not what is learned
OF_TRAINING = ("OPTIM.", "TRAIN.", "DATALOADER.")


def require_own(jobs: Sequence[Job], project: Path) -> None:
    """Refuse to take the results of other runs for those of these jobs, or to write over them.

    Raises:
        ValueError: names the first such folder, and in what the runs differ.
    """
    for job in jobs:
        if found := differences(job, project):
            raise ValueError(
                f"{job.folder} holds results of another run: {'; '.join(found)}; choose another "
                "folder for the output, or remove that one if its results are not wanted"
            )


def differences(job: Job, project: Path) -> list[str]:
    """In what the run that left its results in a job's folder differs from the job.

    Nothing is compared where there are no results, or no config beside them.

    Raises:
        ValueError: the config is damaged, or the job's own is refused.
    """
    folder = project / job.folder
    if not all((folder / name).is_file() for name in ("results.json", "config.yaml")):
        return []
    from runs.arguments import parse_args
    from runs.config import build_config, read_run_config
    from runs.identity import default_settings

    with working_in(project):
        there, here = read_run_config(folder), build_config(parse_args(list(job.words)))
    before, now, usual = compared(there), compared(here), default_settings()
    own = names.digest_of(here.DATASET.NAME, project / here.DATASET.ROOT)
    if (digest := read_results(folder).get("data")) and own:
        before["data"], now["data"] = digest, own
    keys = sorted({*before, *now})
    pairs = [[values.get(key, usual.get(key)) for values in (before, now)] for key in keys]
    differ = [(key, *pair) for key, pair in zip(keys, pairs, strict=True) if pair[0] != pair[1]]
    return [f"{key} {one} there, {other} here" for key, one, other in differ]


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Have relative paths begin in a folder; `contextlib.chdir` is new in Python 3.11."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def compared(cfg: Any) -> dict[str, Any]:
    """The values of a config that must be those of a job."""
    from runs.config_rules import flat
    from runs.identity import NAMED, changed_settings, nodes_of

    values = flat(cfg)
    found = {key: values[key] for key in (*NAMED, *BESIDE)}
    found |= changed_settings(cfg, nodes_of(cfg))
    ignored = OF_TRAINING if learns_nothing(cfg.TRAINER.NAME) else ()
    return {key: value for key, value in found.items() if not key.startswith(ignored)}
