"""The protocols of the literature as lists of jobs: training first, then its tests.

base2new   train on the base classes, test on base and on new classes
fewshot    train and test on all classes
zeroshot   test, nothing is trained
xd         train on all classes of a source, test on other data sets
dg         the same, tested on other pictures of the source's classes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runs.processes import is_done
from tools.sweeps import names
from tools.sweeps.names import (
    CONFIGS,
    OWN_STEM,
    check_config,
    check_dataset,
    default_config,
    is_embedded,
    read_yaml,
    stems,
)

PROTOCOLS = ("base2new", "fewshot", "zeroshot", "xd", "dg")
FEW_SHOTS = (1, 2, 4, 8, 16)
SHOTS = 16  # of the other protocols that train
SHIFTS = "_lineart"  # what the names of the embedded shifts of domain end with
IMAGENETS = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
TEACHER_KEY = "TRAINER.PROMPTKD.TEACHER_DIR"


@dataclass(frozen=True)
class Job:
    """One call of train.py.

    Attributes:
        name: what it is, for people.
        folder: where it writes; no two jobs share one.
        words: arguments of train.py.
        needs: folders of the jobs that must be done before.
    """

    name: str
    folder: Path
    words: tuple[str, ...]
    needs: tuple[Path, ...] = ()

    @property
    def log(self) -> Path:
        """Where its messages go."""
        return self.folder / "sweep.txt"

    def is_done(self, project: Path) -> bool:
        """Whether its results are there, and made with what the jobs that it needs have learned."""
        return is_done(project / self.folder, [project / need for need in self.needs])


@dataclass(frozen=True)
class Run:
    """One cell of a grid.

    Attributes:
        dataset: stem of its yaml; the source of xd and dg.
        config: stem of the trainer's yaml; "" for the protocol's own.
        targets: stems, of xd and dg; () for the protocol's own.
        target_root: folder of the targets' data; "" for that of the source.
        opts: KEY VALUE pairs for train.py.
        needs: folders of jobs that its training needs, as a teacher's.
    """

    protocol: str
    trainer: str
    dataset: str
    seed: int
    shots: int
    output: Path
    config: str = ""
    root: str = "data"
    targets: tuple[str, ...] = ()
    target_root: str = ""
    opts: tuple[str, ...] = ()
    needs: tuple[Path, ...] = ()

    def resolved(self) -> Run:
        """The same with config and targets filled in.

        Raises:
            ValueError: a name that does not exist, or the protocol does not fit.
        """
        check_dataset(self.dataset)
        own = default_config(self.protocol, self.trainer, self.dataset, self.shots)
        run = replace(self, config=self.config or own)
        check_config(run.trainer, run.config)
        if run.protocol == "zeroshot" and not learns_nothing(run.trainer):
            raise ValueError(f"zeroshot takes ZeroshotCLIP or ZeroshotCLIP2, got {run.trainer}")
        if run.target_root and run.protocol not in ("xd", "dg"):
            raise ValueError(f"--target-root is for xd and dg, not for {run.protocol}")
        if run.protocol in ("xd", "dg"):
            run = replace(run, targets=run.targets or default_targets(run.protocol, run.dataset))
            for target in run.targets:
                check_dataset(target)
        return run


def learns_nothing(trainer: str) -> bool:
    """Whether a trainer is evaluated as it is."""
    return trainer.startswith("Zeroshot")


def default_targets(protocol: str, source: str) -> tuple[str, ...]:
    """All data sets of the source's kind (xd), or its shifts of domain (dg)."""
    known = stems(CONFIGS / "datasets")
    shifts = [name for name in known if name in IMAGENETS or name.endswith(SHIFTS)]
    if protocol == "xd":
        alike = [name for name in known if is_embedded(name) == is_embedded(source)]
        found = [name for name in alike if name not in (*shifts, source, "imagenet", "folder")]
    elif source == "imagenet":
        found = list(IMAGENETS)
    else:
        found = [name for name in shifts if name == source + SHIFTS]
    if not found:
        raise ValueError(f"no targets are known for {protocol} from {source}; name some")
    return tuple(found)


def plan(run: Run) -> list[Job]:
    """The jobs of one cell; the first one trains.

    Raises:
        ValueError: see `Run.resolved`.
    """
    run = run.resolved()
    if run.protocol == "base2new":
        return _base2new(run)
    if run.protocol in ("xd", "dg"):
        return _transfer(run)
    folder = run.output / _data_level(run) / run.trainer / _config_level(run) / f"seed{run.seed}"
    return [_job(run, folder, "all")]


def _base2new(run: Run) -> list[Job]:
    path = Path(_data_level(run), f"shots_{run.shots}", run.trainer, run.config, f"seed{run.seed}")
    base = _job(run, run.output / "train_base" / path, "base")
    return [base, _job(run, run.output / "test_new" / path, "new", base)]


def _transfer(run: Run) -> list[Job]:
    """The tests of other sources than ImageNet lie one folder deeper, named by the source."""
    level, seed = f"{run.config}_{run.shots}shots", f"seed{run.seed}"
    source = _data_level(run)
    train = _job(run, run.output / source / run.trainer / level / seed, "all")
    tests = run.output / "evaluation" / run.trainer / level
    if run.dataset != "imagenet":
        tests = tests / source
    root = run.target_root or run.root
    others = [replace(run, dataset=target, root=root) for target in run.targets]
    folders = [tests / _data_level(other) / seed for other in others]
    pairs = zip(others, folders, strict=True)
    return [train, *(_job(other, folder, "all", train) for other, folder in pairs)]


def _data_level(run: Run) -> str:
    """What a data set is called in folders: its stem, or the label of the user's own pictures."""
    if run.dataset != OWN_STEM:
        return run.dataset
    given = dict(zip(run.opts[::2], run.opts[1::2], strict=False)).get("DATASET.LABEL", "")
    return str(names.read_data(names.OWN, names.PROJECT / run.root, given).label)


def _config_level(run: Run) -> Path:
    """<config>_<shots>shots, and CoOp's level with length and place of the context."""
    level = Path(f"{run.config}_{run.shots}shots")
    if run.trainer != "CoOp":
        return level
    node = read_yaml(CONFIGS / "trainers" / run.trainer / f"{run.config}.yaml")
    node = node.get("TRAINER", {}).get("COOP", {})
    given = dict(zip(run.opts[::2], run.opts[1::2], strict=False))

    def setting(key: str, default: object) -> object:
        return given.get(f"TRAINER.COOP.{key}", node.get(key, default))

    n_ctx, csc, place = (
        setting(key, default)
        for key, default in (("N_CTX", 16), ("CSC", False), ("CLASS_TOKEN_POSITION", "end"))
    )
    if words := str(setting("CTX_INIT", "")).strip("\"'"):  # their number counts
        from models.clip.tokenizer import clip_tokenizer, normalise_name

        n_ctx, csc = clip_tokenizer().count(normalise_name(words)), False
    return level / f"nctx{n_ctx}_csc{csc}_ctp{place}"


def _job(run: Run, folder: Path, classes: str, trained: Job | None = None) -> Job:
    """A training, or the test of what an earlier job has trained."""
    learned = () if trained is None else ("--eval-only", "--model-dir", str(trained.folder))
    words = (
        *("--root", run.root, "--seed", str(run.seed), "--trainer", run.trainer),
        *("--dataset-config-file", f"{CONFIGS}/datasets/{run.dataset}.yaml"),
        *("--config-file", f"{CONFIGS}/trainers/{run.trainer}/{run.config}.yaml"),
        *("--output-dir", str(folder), *learned),
        *("DATASET.NUM_SHOTS", str(run.shots), "DATASET.SUBSAMPLE_CLASSES", classes, *run.opts),
    )
    what = "" if classes == "all" else f" ({classes} classes)"
    name = f"{run.trainer}:{run.config} on {run.dataset}{what}, {run.shots} shots, seed {run.seed}"
    return Job(name, folder, words, (*run.needs, *([trained.folder] if trained else [])))


def join(plans: Sequence[Sequence[Job]]) -> list[Job]:
    """All jobs, each folder once: protocols share trainings.

    Raises:
        ValueError: one folder is meant for two different jobs.
    """
    jobs: dict[Path, Job] = {}
    for job in (job for jobs_of_cell in plans for job in jobs_of_cell):
        if jobs.setdefault(job.folder, job).words != job.words:
            raise ValueError(f"two different jobs would write to {job.folder}; separate --output")
    return list(jobs.values())
