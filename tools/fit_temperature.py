r"""Fit the one temperature that suits a run best, and evaluate the run with it.

The training pictures of each class are dealt into folds. For each fold the run's trainer learns
from the other folds (RUN/folds/K), as the run did from all. One temperature T is fitted to the
logits of all pictures that were so held out: it has the least negative log-likelihood. No
validation or test picture is used. Then RUN is evaluated with TEST.TEMPERATURE T: the results are
in RUN/temperature/CLASSES, also of new classes if RUN has learned from base classes. Folds that
are done are not repeated; one that was killed resumes.

Usage:
    python tools/fit_temperature.py output/my_run
    python tools/fit_temperature.py output/my_run --folds 2 --root /data --processes 2
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from dassl.data.datasets import build_dataset
from yacs.config import CfgNode

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/fit_temperature.py`
import datasets  # noqa: F401  (registers the data sets)
from runs.calibration import COLDEST, WARMEST, Calibration, fit_temperature
from runs.config import read_run_config
from runs.files import write_text
from runs.logs import quiet
from runs.processes import content_of_results, exit_code_of, is_done, raise_at_sigterm
from runs.record import LOGITS, RESULTS
from tools.results.read import FOLDS, read_predictions
from tools.shared.command_line import parser_of, reports_user_errors, whole
from tools.sweeps import names
from tools.sweeps.done import differences, require_own
from tools.sweeps.protocols import Job
from tools.sweeps.schedule import Schedule, read_log
from tools.sweeps.workers import Launch, LocalWorkers

ENDS = {
    COLDEST: "every held-out picture is recognised: the lowest temperature that is tried",
    WARMEST: "the logits say nothing of the classes: the highest temperature that is tried",
}


class HeldOut(NamedTuple):
    """Pictures that a run did not learn from."""

    logits: np.ndarray  # (pictures, classes)
    label: np.ndarray  # (pictures,)

    def figures(self, temperature: float) -> tuple[float, float]:
        """Return nll and ece (percent) at a temperature."""
        found = Calibration(temperature)
        found.add(*self)
        figures = found.figures()
        return figures["nll"], figures["ece"]


def joined(parts: Sequence[HeldOut]) -> HeldOut:
    """Return the pictures of all parts."""
    return HeldOut(*map(np.concatenate, zip(*parts, strict=True)))


def by_other_folds(folds: Sequence[HeldOut]) -> HeldOut:
    """Return all pictures, the logits of each divided by the temperature of the other folds."""
    found = []
    for k, fold in enumerate(folds):
        others = joined([*folds[:k], *folds[k + 1 :]])
        found.append(fold._replace(logits=fold.logits / fit_temperature(*others)))
    return joined(found)


def config_of(run: Path, root: str) -> CfgNode:
    """Return the config of a finished run, its data found; a ValueError says what it lacks."""
    cfg, results = read_run_config(run), run / RESULTS
    if not results.is_file():
        raise ValueError(f"{run} holds no {RESULTS}: give the command of the run until it is done")
    if cfg.DATASET.FOLD:
        raise ValueError(f"{run} holds out a fold itself ({cfg.DATASET.FOLD}); name another run")
    if cfg.DATASET.SUBSAMPLE_CLASSES.endswith("new"):
        raise ValueError(
            f"{run} is on new classes, of which nothing may be learned; name the run on base "
            "classes, which is evaluated on the new ones, too"
        )
    if cfg.SEED < 0 < cfg.DATASET.NUM_SHOTS:
        raise ValueError(f"the run in {run} has no seed, so its shots cannot be drawn again")
    where = Path(root).absolute() if root else Path(cfg.DATASET.ROOT).expanduser()
    cfg.DATASET.ROOT = str(names.PROJECT / where)  # jobs run in the project's folder
    return cfg


def number_of_folds(cfg: CfgNode, most: int, digest: str) -> int:
    """Return `most`, or as many folds as the largest class has pictures.

    Raises a ValueError if no class has two, or the data are not those of the digest.
    """
    own = cfg.clone()
    own.DATASET.FOLD, own.VERBOSE = f"1/{most}", False
    with quiet():
        found = build_dataset(own)
    if digest and getattr(found, "digest", digest) != digest:
        raise ValueError(f"the data in {cfg.DATASET.ROOT} are not those of the run (--root)")
    sizes = Counter(item.label for item in (*found.train_x, *found.test))
    return min(most, max(sizes.values()))


def job(run: Path, cfg: CfgNode, place: str, keys: dict[str, str], *flags: str) -> Job:
    """Return a run of train.py with a run's config but for some keys, in a folder of that run."""
    keys = {"CONFIG_NAME": cfg.CONFIG_NAME, "RESUME": "", "TEST.NO_TEST": "False"} | keys
    words = ("--config-file", f"{run}/config.yaml", "--root", cfg.DATASET.ROOT)
    where = ("--output-dir", f"{run}/{place}", *flags)
    pairs = (word for pair in keys.items() for word in pair)
    return Job(f"{cfg.TRAINER.NAME}, {place}", run / place, (*words, *where, *pairs))


def fold_jobs(run: Path, cfg: CfgNode, folds: int) -> list[Job]:
    """Return the trainings without a fold, each of which tests that fold."""
    plain = {"TEST.SPLIT": "test", "TEST.TEMPERATURE": "1.0", "TEST.TEMPERATURE_FITTED": "False"}
    plain |= {"TRAIN.WANDB": "off"}
    parts = {k: {"DATASET.FOLD": f"{k}/{folds}"} for k in range(1, folds + 1)}
    return [job(run, cfg, f"{FOLDS}/{k}", plain | part) for k, part in parts.items()]


def test_jobs(run: Path, cfg: CfgNode, temperature: float) -> list[Job]:
    """Return the evaluations with a temperature: on the run's classes, then on new ones."""
    own = cfg.DATASET.SUBSAMPLE_CLASSES
    every = [own, *([own.removesuffix("base") + "new"] if own.endswith("base") else [])]
    fitted = {"TEST.TEMPERATURE": f"{temperature:.6g}", "TEST.TEMPERATURE_FITTED": "True"}
    return [
        job(
            *(run, cfg, f"temperature/{classes.replace('/', '_')}"),
            fitted | {"DATASET.SUBSAMPLE_CLASSES": classes, "MODEL.INIT_WEIGHTS": ""},
            *("--eval-only", "--model-dir", str(run)),
        )
        for classes in every
    ]


def carry_out(jobs: Sequence[Job], args: argparse.Namespace) -> None:
    """Run the jobs that are not done; a ChildProcessError says why one has failed."""
    schedule = Schedule(jobs, 0, names.PROJECT)
    if not schedule.left():
        return
    with schedule.bars.progress:
        schedule.run(LocalWorkers(Launch(names.PROJECT, args.threads, 1), args.processes))
    for failed, why in schedule.reasons.items():
        last = (read_log(failed.log).strip().splitlines() or ["it printed nothing"])[-1]
        raise ChildProcessError(f"{failed.name}: {why}: {last} (the whole log is {failed.log})")


def held_out(folder: Path) -> HeldOut:
    """Read what the run of a fold has left."""
    labels = read_predictions(folder).label.to_numpy()
    return HeldOut(np.load(folder / LOGITS, allow_pickle=False), labels)


def fit(run: Path, cfg: CfgNode, args: argparse.Namespace) -> float:
    """Run the folds; fit the temperature, print it and what it changes, and return it."""
    folds = number_of_folds(cfg, args.folds, content_of_results(run).get("data", ""))
    if folds < args.folds:
        print(f"{folds} folds: no class has more than {folds} training pictures")
    jobs = fold_jobs(run, cfg, folds)
    require_own(jobs, names.PROJECT)
    carry_out(jobs, args)
    parts = [held_out(job.folder) for job in jobs]
    whole = joined(parts)
    temperature = fit_temperature(*whole)
    print(f"temperature {temperature:.4f}, of {len(whole.label)} held-out pictures, {folds} folds")
    if temperature in ENDS:
        print(ENDS[temperature])
    before, after = whole.figures(1.0), by_other_folds(parts).figures(1.0)
    print("on them, at temperature 1 and at that of the other folds:")
    print(f"nll {before[0]:.4f} -> {after[0]:.4f}, ece {before[1]:.2f} -> {after[1]:.2f} %")
    if after[0] >= before[0]:
        print("on held-out pictures it is no better than temperature 1, which stays")
        return 1.0
    return temperature


def evaluate(run: Path, cfg: CfgNode, temperature: float, args: argparse.Namespace) -> None:
    """Evaluate the run with a temperature; its folder is one to predict with, too."""
    from runs.checkpoint import POINTER, find_checkpoint
    from trainers.base import trainer_named

    jobs = test_jobs(run, cfg, temperature)
    for one in jobs:
        if not is_done(one.folder, [run]) or differences(one, names.PROJECT):
            (one.folder / RESULTS).unlink(missing_ok=True)
    carry_out(jobs, args)
    trainer = trainer_named(cfg.TRAINER.NAME)
    if trainer.learns:
        learned = find_checkpoint(run, trainer.checkpoint_name)
        to = jobs[0].folder / trainer.checkpoint_name
        to.mkdir(exist_ok=True)
        shutil.copy2(learned, to)
        write_text(to / POINTER, learned.name)
    for one in jobs:
        found = content_of_results(one.folder)
        figures = "accuracy {accuracy:.2f} %, nll {nll:.4f}, ece {ece:.2f} %".format(**found)
        print(f"{found['classes']} classes: {figures}; {one.folder}")


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Fit and evaluate; 130 or 143 if it is interrupted."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("run", type=Path, help="output folder of a finished run of train.py")
    add("--folds", type=whole(2, 9999), default=4, help="parts of the training pictures (4)")
    add("--root", default="", help="folder of all data sets, if it moved")
    add("--processes", type=whole(1), default=1, metavar="N", help="N folds at a time (1)")
    add("--threads", type=whole(1), default=1, help="CPU threads of each process (1)")
    args = parser.parse_args(argv)
    raise_at_sigterm()
    from runs.checkpoint import find_checkpoint
    from trainers.base import trainer_named

    try:
        run = args.run.absolute()
        cfg = config_of(run, args.root)
        if (trainer := trainer_named(cfg.TRAINER.NAME)).learns:
            find_checkpoint(run, trainer.checkpoint_name)
        evaluate(run, cfg, fit(run, cfg, args), args)
    except KeyboardInterrupt as interrupt:
        print("fit_temperature: stopped; the same command goes on from here", file=sys.stderr)
        return exit_code_of(interrupt)
    return 0


if __name__ == "__main__":
    sys.exit(main())
