"""The protocols of the literature as lists of jobs: training first, then its tests.

base2new   train on the base classes, test on base and on new classes
fewshot    train and test on all classes
zeroshot   test, nothing is trained
xd         train on all classes of a source, test on other data sets
dg         train as xd, test on other pictures of the source's classes
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain, product
from pathlib import Path

from runs.processes import is_done
from tools.sweeps import names
from tools.sweeps.names import CONFIGS, OWN, OWN_STEM, check_dataset, is_embedded, stems

# Training pictures of each class, where none are named.
SHOTS = {"base2new": (16,), "fewshot": (1, 2, 4, 8, 16), "zeroshot": (0,), "xd": (16,), "dg": (16,)}
PROTOCOLS = tuple(SHOTS)
TRANSFERS = ("xd", "dg")  # tested on other data sets than the one of the training
SHIFT = "_lineart"  # ends the names of the embedded domain shifts
IMAGENETS = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
CONTEXT = {"N_CTX": 16, "CSC": False, "CLASS_TOKEN_POSITION": "end", "CTX_INIT": ""}  # of CoOp
TEACHER, TEACHER_KEY = "PromptSRC", "TRAINER.PROMPTKD.TEACHER_DIR"
EPOCHS, BATCH = ("OPTIM.MAX_EPOCH", 10), ("DATALOADER.TRAIN_X.BATCH_SIZE", 32)  # engine's defaults


@dataclass(frozen=True)
class Job:
    """One call of train.py."""

    name: str
    folder: Path  # where it writes; no two jobs share one
    words: tuple[str, ...]
    needs: tuple[Path, ...] = ()  # folders of the jobs that must be done before, the training last
    steps: float = 0  # of a training, for each class; a test has none

    @property
    def log(self) -> Path:
        """The file of its output."""
        return self.folder / "sweep.txt"

    def is_done(self, project: Path) -> bool:
        """Whether it left results, made with what the jobs that it needs have learned."""
        return is_done(project / self.folder, [project / need for need in self.needs])


@dataclass(frozen=True)
class Cell:
    """One cell of a grid. Data sets and configs are stems of their yaml files."""

    protocol: str
    trainer: str
    dataset: str  # the source of xd and dg
    seed: int
    shots: int
    output: Path
    config: str = ""  # the protocol's default
    root: str = "data"
    targets: Sequence[str] = ()  # of xd and dg; (): the protocol's default
    target_root: str = ""  # folder of the targets' data; "": that of the source
    opts: Sequence[str] = ()  # KEY VALUE pairs for train.py
    needs: tuple[Path, ...] = ()  # folders of jobs that its training needs, as a teacher's

    @property
    def given(self) -> dict[str, str]:
        """The KEY VALUE pairs."""
        return dict(zip(self.opts[::2], self.opts[1::2], strict=False))

    def resolved(self) -> Cell:
        """Fill in config and targets; a ValueError for an unknown name, or a wrong protocol."""
        check_dataset(self.dataset)
        default = names.default_config(self.protocol, self.trainer, self.dataset, self.shots)
        cell = replace(self, config=self.config or default)
        names.check_config(cell.trainer, cell.config)
        if cell.protocol == "zeroshot" and not learns_nothing(cell.trainer):
            raise ValueError(f"zeroshot takes ZeroshotCLIP or ZeroshotCLIP2, got {cell.trainer}")
        if cell.protocol not in TRANSFERS:
            if cell.target_root:
                raise ValueError(f"--target-root is for xd and dg, not for {cell.protocol}")
            return cell
        cell = replace(cell, targets=cell.targets or default_targets(cell.protocol, cell.dataset))
        for target in cell.targets:
            check_dataset(target)
        return cell


@dataclass(frozen=True)
class Grid:
    """What a sweep runs over; see `Cell`."""

    protocols: Sequence[str]
    trainers: Sequence[str]  # each TRAINER or TRAINER:CONFIG
    datasets: Sequence[str]
    output: Path
    seeds: Sequence[int] = (1,)
    shots: Sequence[int] = ()  # those of each protocol
    targets: Sequence[str] = ()
    root: str = "data"
    target_root: str = ""
    opts: Sequence[str] = ()

    def jobs(self) -> list[Job]:
        """Return all jobs, each once, trainings before their tests. Raises as `join`."""
        return join([plan(cell) for cell in self._cells()])

    def used(self) -> list[tuple[str, str]]:
        """Return roots and stems of the data sets whose pictures are needed."""
        cells = [cell.resolved() for cell in self._cells()]
        sources = {(cell.root, cell.dataset) for cell in cells}
        targets = {(cell.target_root or cell.root, name) for cell in cells for name in cell.targets}
        return sorted(sources | targets)

    def _cells(self) -> Iterator[Cell]:
        common = {"root": self.root, "targets": self.targets}
        common |= {"target_root": self.target_root, "opts": self.opts}
        axes = product(self.protocols, self.datasets, self.seeds, self.trainers)
        for protocol, dataset, seed, spec in axes:
            trainer, _, config = spec.partition(":")
            all_shots = self.shots or SHOTS[protocol]
            if protocol in ("fewshot", "zeroshot") and learns_nothing(trainer):
                protocol, all_shots = "zeroshot", (0,)  # the same whatever the shots
            for shots in all_shots:
                place = (protocol, trainer, dataset, seed, shots, self.output, config)
                yield self._with_teacher(Cell(*place, **common))

    def _with_teacher(self, cell: Cell) -> Cell:
        """A student of PromptKD learns from the grid's PromptSRC run on the same data and seed."""
        specs = [spec for spec in self.trainers if spec.partition(":")[0] == TEACHER]
        is_student = "promptkd" in f"{cell.trainer}:{cell.config}".lower()
        if not is_student or not specs or TEACHER_KEY in cell.opts:
            return cell
        teacher = replace(cell, trainer=TEACHER, config=specs[0].partition(":")[2])
        folder = plan(teacher)[0].folder
        return replace(cell, opts=(*cell.opts, TEACHER_KEY, str(folder)), needs=(folder,))


def learns_nothing(trainer: str) -> bool:
    """Whether a trainer is evaluated without training."""
    return trainer.startswith("Zeroshot")


def default_targets(protocol: str, source: str) -> tuple[str, ...]:
    """Return the other data sets of the source's kind (xd), or its domain shifts (dg)."""
    known = stems(CONFIGS / "datasets")
    if protocol == "dg":
        shifts = IMAGENETS if source == "imagenet" else (source + SHIFT,)
        found = [name for name in shifts if name in known]
    else:
        left_out = {*IMAGENETS, "imagenet", source, OWN_STEM}
        alike = [name for name in known if is_embedded(name) == is_embedded(source)]
        found = [name for name in alike if name not in left_out and not name.endswith(SHIFT)]
    if not found:
        raise ValueError(f"no targets are known for {protocol} from {source}; name some")
    return tuple(found)


def plan(cell: Cell) -> list[Job]:
    """Return the jobs of one cell; the first one trains. Raises as `Cell.resolved`."""
    cell = cell.resolved()
    seed, data = f"seed{cell.seed}", _data_level(cell)
    if cell.protocol == "base2new":
        path = Path(data, f"shots_{cell.shots}", cell.trainer, cell.config, seed)
        base = _job(cell, cell.output / "train_base" / path, "base")
        return [base, _job(cell, cell.output / "test_new" / path, "new", base)]
    level = f"{cell.config}_{cell.shots}shots"
    if cell.protocol not in TRANSFERS:
        context = _context_level(cell) if cell.trainer == "CoOp" else ""
        return [_job(cell, cell.output / data / cell.trainer / level / context / seed, "all")]
    train = _job(cell, cell.output / data / cell.trainer / level / seed, "all")
    source = "" if cell.dataset == "imagenet" else data  # other sources name one folder more
    tests = cell.output / "evaluation" / cell.trainer / level / source
    root = cell.target_root or cell.root
    targets = [replace(cell, dataset=target, root=root) for target in cell.targets]
    return [train, *(_job(to, tests / _data_level(to) / seed, "all", train) for to in targets)]


def _data_level(cell: Cell) -> str:
    """A data set in folders: its stem, or the label of the user's own pictures."""
    if cell.dataset != OWN_STEM:
        return cell.dataset
    label = cell.given.get("DATASET.LABEL", "")
    return str(names.read_data(OWN, names.PROJECT / cell.root, label).label)


def _context_level(cell: Cell) -> str:
    """CoOp's folder with length and place of the context."""
    node = names.read_yaml(CONFIGS / "trainers" / cell.trainer / f"{cell.config}.yaml")
    values = CONTEXT | node.get("TRAINER", {}).get("COOP", {})
    values |= {key: cell.given.get(f"TRAINER.COOP.{key}", values[key]) for key in CONTEXT}
    if words := str(values["CTX_INIT"]).strip("\"'"):  # their number counts
        from models.clip.tokenizer import clip_tokenizer, normalise_name

        values |= {"N_CTX": clip_tokenizer().count(normalise_name(words)), "CSC": False}
    return "nctx{N_CTX}_csc{CSC}_ctp{CLASS_TOKEN_POSITION}".format(**values)


def _steps(cell: Cell) -> float:
    """Return the steps of a training for each class, as its yaml and the pairs given say.

    A value that is no number counts as the engine's default, and all pictures (0 shots) as one.
    """
    if learns_nothing(cell.trainer):
        return 0
    node = names.read_yaml(CONFIGS / "trainers" / cell.trainer / f"{cell.config}.yaml")

    def value(key: str, default: int) -> int:
        found = reduce(lambda part, name: part.get(name) or {}, key.split("."), node) or default
        given = str(cell.given.get(key, found))
        return max(1, int(given)) if given.isdecimal() else default

    return value(*EPOCHS) * max(1, cell.shots) / value(*BATCH)


def _job(cell: Cell, folder: Path, classes: str, trained: Job | None = None) -> Job:
    """Return a training, or the test of what an earlier job has trained."""
    learned = () if trained is None else ("--eval-only", "--model-dir", str(trained.folder))
    words = (
        *("--root", cell.root, "--seed", str(cell.seed), "--trainer", cell.trainer),
        *("--dataset-config-file", f"{CONFIGS}/datasets/{cell.dataset}.yaml"),
        *("--config-file", f"{CONFIGS}/trainers/{cell.trainer}/{cell.config}.yaml"),
        *("--output-dir", str(folder), *learned),
        *("DATASET.NUM_SHOTS", str(cell.shots), "DATASET.SUBSAMPLE_CLASSES", classes, *cell.opts),
    )
    data = cell.dataset if classes == "all" else f"{cell.dataset} ({classes} classes)"
    shots = names.shots_in_words(cell.shots)
    name = f"{cell.trainer}:{cell.config} on {data}, {shots}, seed {cell.seed}"
    needs = (*cell.needs, *([trained.folder] if trained else []))
    return Job(name, folder, words, needs, 0 if trained else _steps(cell))


def join(plans: Sequence[Sequence[Job]]) -> list[Job]:
    """Return all jobs, each folder once: protocols share trainings. A ValueError if jobs differ."""
    jobs: dict[Path, Job] = {}
    for job in chain.from_iterable(plans):
        if jobs.setdefault(job.folder, job).words != job.words:
            raise ValueError(f"two different jobs would write to {job.folder}; separate --output")
    return list(jobs.values())
