"""Whether the results in a job's folder are those of the job."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runs.processes import content_of_results
from tools.sweeps import names
from tools.sweeps.protocols import Job, learns_nothing

AT_TEST = ("TEST.SPLIT", "MODEL.BACKBONE.WEIGHTS")  # keys that decide a result, not what is learned


def require_own(jobs: Sequence[Job], project: Path) -> None:
    """Refuse jobs whose folders hold results of other runs."""
    for job in jobs:
        if found := differences(job, project):
            raise ValueError(
                f"{job.folder} holds results of another run: {'; '.join(found)}; choose another "
                "folder for the output, or remove that one if its results are not wanted"
            )


def differences(job: Job, project: Path) -> list[str]:
    """Return in what a job differs from the run that left results and config in its folder."""
    folder = project / job.folder
    if not all((folder / name).is_file() for name in ("results.json", "config.yaml")):
        return []
    import trainers  # noqa: F401  (registers the trainers, with their keys)
    from runs.arguments import parse_args
    from runs.config import build_config, read_run_config
    from runs.identity import default_settings

    args = parse_args(list(job.words))
    for name in ("config_file", "dataset_config_file"):
        given = getattr(args, name)
        setattr(args, name, given and str(project / given))
    cfg, usual = build_config(args), default_settings()
    there, here = compared(read_run_config(folder)), compared(cfg)
    own = names.digest_of(cfg.DATASET.NAME, project / cfg.DATASET.ROOT)
    if (digest := content_of_results(folder).get("data")) and own:
        there["data"], here["data"] = digest, own
    keys = sorted({*there, *here})
    pairs = {key: [values.get(key, usual.get(key)) for values in (there, here)] for key in keys}
    return [f"{key} {one} there, {two} here" for key, (one, two) in pairs.items() if one != two]


def compared(cfg: Any) -> dict[str, Any]:
    """Return the values of a config that must be those of a job."""
    from runs.config_rules import flat
    from runs.identity import NAMED, changed_settings, nodes_of

    values = flat(cfg)
    found = {key: values[key] for key in (*NAMED, *AT_TEST)} | changed_settings(cfg, nodes_of(cfg))
    ignored = ("OPTIM.", "TRAIN.", "DATALOADER.") if learns_nothing(cfg.TRAINER.NAME) else ()
    return {key: value for key, value in found.items() if not key.startswith(ignored)}
