"""Features of the frozen image tower, computed once: kept in a store, and as views to train on.

What is stored is what the tower gave of one batch; its key says all that it depends on, so that a
run has the same bits with a store and without. Pictures count by path, size and time. The argument
`path` is that of the patches, as in `VisualEncoder`: None for class tokens alone.
"""

import hashlib
import json
import logging
import os
import platform
import random
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm
from yacs.config import CfgNode

from models.clip.image_tower import VisualTokens, stack
from runs import parallel, rng
from runs.config_rules import flat
from runs.data import (
    none_readable,
    prefetch,
    readable,
    to_device,
    training_batch,
    training_pictures,
    training_set,
)
from runs.feature_store import Entry
from runs.state import RunState

logger = logging.getLogger(__name__)

FORM = 1  # of keys and entries; another number makes all stored ones unknown
AT_TEST = ("SIZE", "INTERPOLATION", "PIXEL_MEAN", "PIXEL_STD")  # of INPUT, in the test transform
BOTH = ("normalize", "instance_norm")  # of INPUT.TRANSFORMS, in the test transform, too
PATCH_PATHS = ("value", "raw")  # entries of these have the class tokens of one without patches, too
TURNED, RANDOM = "turned", "random"  # in an entry: pictures turned by EXIF, and random states after


# What a batch's features depend on


def tower_of(cfg: CfgNode, state: RunState, model: Any) -> list[Any]:
    """The frozen tower and what computes it; plain data."""
    base, device = model.tuner, state.precision.device
    is_cuda, pruner = device.type == "cuda", base.pruner
    pruned = None
    if pruner is not None:
        directions = pruner.directions.detach().cpu().float().numpy().tobytes()
        pruned = [pruner.at, pruner.keep, pruner.mix, hashlib.sha256(directions).hexdigest()]
    return [
        *(FORM, cfg.MODEL.BACKBONE.NAME, state.weights, pruned, cfg.MODEL.COMPILE),
        sorted({str(p.dtype) for p in base.visual.parameters()}), str(state.precision.amp_dtype),
        torch.cuda.get_device_name(device) if is_cuda else torch.backends.cpu.get_cpu_capability(),
        *(platform.machine(), torch.get_num_threads(), torch.get_float32_matmul_precision()),
        *(torch.backends.cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled()),
        *(torch.__version__, torchvision.__version__, PIL.__version__),
    ]


def transform_of(cfg: CfgNode, *, augmented: bool) -> dict[str, Any]:
    """The keys of INPUT that a picture's pixels depend on."""
    values = flat(cfg.INPUT)
    if augmented:
        return values
    read = {key: values[key] for key in AT_TEST}
    return read | {"TRANSFORMS": [name for name in BOTH if name in values["TRANSFORMS"]]}


def key_of(
    state: RunState, model: Any, path: str | None, pictures: Any, places: Sequence[int],
    draws: str = "",
) -> str:
    """64 hexadecimal digits; "" if a picture has no file. `draws`: what augmentation follows."""
    cfg, files = pictures.cfg, [Path(pictures.data_source[place].impath) for place in places]
    try:
        found = [(file, file.stat()) for file in files]
    except OSError:
        return ""
    parts = [
        tower_of(cfg, state, model), path, transform_of(cfg, augmented=bool(draws)),
        [pictures.upright, draws, list(places) if draws else []],
        [(os.path.abspath(file), s.st_size, s.st_mtime_ns) for file, s in found],  # noqa: PTH100
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def lookup(
    state: RunState, model: Any, path: str | None, pictures: Any, places: Sequence[int],
    draws: str = "",
) -> tuple[str, str]:
    """The key of a batch, and that of a stored entry with its tokens, "" if there is none.

    Class tokens have the same bits in an entry with patches, unless the tower is compiled.
    """
    batch, store = (pictures, places, draws), state.store
    assert store is not None  # of those who look
    own = key_of(state, model, path, *batch)
    paths = () if path or pictures.cfg.MODEL.COMPILE else PATCH_PATHS
    keys = chain([own], (key_of(state, model, other, *batch) for other in paths))
    return own, next((key for key in keys if key in store), "")


# From the store, and into it


def encode(state: RunState, model: Any, image: Any, path: str | None) -> VisualTokens:
    """The tokens of pictures, not unit length; tokens stay as they are."""
    with torch.no_grad(), state.precision.autocast():
        return model.tuner.encode_raw(image, path)


def stored(
    entry: Entry, pictures: Any, places: Sequence[int], path: str | None
) -> dict[str, Any]:
    """A batch with tokens in place of pictures; without a `path` of patches, class tokens alone."""
    items = [pictures.data_source[place] for place in places]
    names = VisualTokens._fields if path else ("cls",)
    return {
        "img": VisualTokens(**{k: x for k, x in entry.tensors.items() if k in names}),
        "label": torch.tensor([item.label for item in items]),
        "impath": [item.impath for item in items],
        "index": torch.tensor(places),
        TURNED: entry.tensors[TURNED],
    }


def keep(state: RunState, batch: dict[str, Any], tokens: VisualTokens, after: str = "") -> None:
    """Store what a batch with a `key` gave, unless one of its pictures could not be read."""
    if state.store is None or not batch.get("key") or any(batch["unreadable"]):
        return
    columns = {k: x for k, x in tokens.to("cpu")._asdict().items() if x is not None}
    columns = {name: x.contiguous() for name, x in columns.items()} | {TURNED: batch[TURNED]}
    words = {"what": batch["what"]} | ({RANDOM: after} if after else {})
    state.store.put(batch["key"], Entry(columns, words))


def from_loader(
    state: RunState, model: Any, loader: Any, path: str | None, draws: str = ""
) -> Iterator[dict[str, Any]]:
    """The batches of a loader, in order; with tokens in place of pictures if the store has them.

    The others have a `key` for `keep`. Random numbers are drawn as by the loader itself.
    """
    store, pictures = state.store, loader.dataset
    if store is None:
        yield from prefetch(loader)
        return
    batches = list(loader.batch_sampler)
    looked = [lookup(state, model, path, pictures, places, draws) for places in batches]
    missing = [places for (_, at), places in zip(looked, batches, strict=True) if not at]
    rest = DataLoader(
        pictures, batch_sampler=missing, num_workers=min(loader.num_workers, len(missing)),
        worker_init_fn=loader.worker_init_fn, pin_memory=loader.pin_memory,
    )
    computed = prefetch(iter(rest))
    for (key, at), places in zip(looked, batches, strict=True):
        more = {"key": key, "what": what(pictures, state)}
        if not at:
            yield next(computed) | more
        elif entry := store.get(at):
            yield stored(entry, pictures, places, path)
        else:  # it was there when this pass began
            yield default_collate([pictures[place] for place in places]) | more


def what(pictures: Any, state: RunState) -> str:
    """What an entry is, for people."""
    return f"{pictures.cfg.MODEL.BACKBONE.NAME}, {state.label}"


def training_features(
    cfg: CfgNode, state: RunState, model: Any, *, augmented: bool = False
) -> Iterator[tuple[Any, Tensor]]:
    """`training_pictures`; tokens in place of pictures if there is a store.

    Augmented pictures depend on the random states before them: the store has those behind, too.
    """
    if state.store is None:
        yield from training_pictures(cfg, state, augmented=augmented)
        return
    pictures = training_set(cfg, state, augmented=augmented)
    _draw_as_a_loader()
    path = model.patch_path
    batches, found = in_turn(len(pictures), cfg.DATALOADER.TEST.BATCH_SIZE), 0
    for places in tqdm(batches, "training pictures", disable=None):
        draws = rng.capture() if augmented else ""
        key, at = lookup(state, model, path, pictures, places, draws)
        if entry := state.store.get(at):
            batch = stored(entry, pictures, places, path)
            if augmented:
                rng.restore(entry.words[RANDOM])
        else:
            batch = default_collate([pictures[place] for place in places])
            batch |= {"key": key, "what": what(pictures, state)}
        batch = readable(cfg, state, batch, "train")
        if not len(batch["label"]):
            continue
        image, label = to_device(batch, state)
        tokens = encode(state, model, image, path)
        keep(state, batch, tokens, rng.capture() if augmented else "")
        found += 1
        yield tokens, label
    if not found:
        raise none_readable(cfg, "train")


def in_turn(number: int, size: int) -> list[list[int]]:
    """Places from 0 on, in batches."""
    return [list(range(number)[first : first + size]) for first in range(0, number, size)]


def _draw_as_a_loader() -> None:
    """Draw the number that a loader of torch draws at the start of a pass, as a seed of workers."""
    torch.empty((), dtype=torch.int64).random_()


# Views


class View(Dataset[dict[str, Any]]):
    """One augmented view of each training picture, which depends on nothing but three numbers.

    They are the run's seed, that of the view and the picture's place: so a view can be drawn anew,
    in any process and order.
    """

    def __init__(self, pictures: Any, seed: int, number: int) -> None:
        self.pictures, self.seed, self.number = pictures, max(0, seed), number
        self.cfg, self.data_source = pictures.cfg, pictures.data_source
        self.upright = pictures.upright

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """The item of `CachedDataset`; the random states afterwards are others."""
        seed = int(np.random.SeedSequence([self.seed, self.number, idx]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - transforms draw from it
        torch.default_generator.manual_seed(seed)
        return self.pictures[idx]


class Encoded(NamedTuple):
    """What the image tower gives of the pictures of a `View`, and their labels."""

    tokens: VisualTokens
    label: Tensor

    def rows(self, places: list[int]) -> tuple[Tensor | VisualTokens, Tensor]:
        """Features and labels of some pictures; class tokens (B, D) where there is nothing else."""
        found = self.tokens.rows(places)
        return found.cls if found.patches is None else found, self.label[places]


class ViewLoader:
    """A training loader's batches, with features of FEATURES.VIEWS views in place of pictures.

    Epoch e has view e modulo VIEWS of each picture. The order of the pictures is that of the
    loader. All views are encoded at the beginning, in batches of the test's size; random states are
    as before. A run that goes on finds the same bits.
    """

    num_workers = 0

    def __init__(self, cfg: CfgNode, state: RunState, model: nn.Module, loader: Any) -> None:
        self.state, self.dataset, self.batch_sampler = state, loader.dataset, loader.batch_sampler
        began = time.perf_counter()
        count = min(cfg.FEATURES.VIEWS, cfg.OPTIM.MAX_EPOCH)
        with rng.unchanged():
            self.views = [
                encode_view(cfg, state, model, self.dataset, view, count) for view in range(count)
            ]
        size = sum(x.nbytes for one in self.views for x in one.tokens if x is not None)
        logger.info(
            "Encoded %d views of %d training pictures (FEATURES.VIEWS): %.1f s, %.1f MB",
            *(count, len(self.dataset), time.perf_counter() - began, size / 2**20),
        )

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """One epoch."""
        _draw_as_a_loader()
        view = self.views[self.state.epoch % len(self.views)]
        for places in self.batch_sampler:
            features, label = view.rows(places)
            files = [self.dataset.data_source[place].impath for place in places]
            yield {"img": features, "label": label, "impath": files, "index": torch.tensor(places)}


def encode_view(
    cfg: CfgNode, state: RunState, model: nn.Module, pictures: Any, number: int, count: int
) -> Encoded:
    """Encode view `number` of `count`; each process takes its share of the batches.

    Raises ValueError for a picture that cannot be read, as training does.
    """
    path = model.tuner.step_patches
    batches = in_turn(len(pictures), cfg.DATALOADER.TEST.BATCH_SIZE)
    own = batches[parallel.rank() :: parallel.processes()]
    workers = min(cfg.DATALOADER.NUM_WORKERS, len(own))
    loader = DataLoader(
        View(pictures, cfg.SEED, number), batch_sampler=own, num_workers=workers
    )
    kept, found = from_loader(state, model, loader, path, f"view {number} of seed {cfg.SEED}"), []
    for batch in tqdm(kept, f"view {number + 1}/{count}", len(own), disable=None):
        image, label = training_batch(cfg, state, batch)
        tokens = encode(state, model, image, path)
        keep(state, batch, tokens)
        found.append((tokens.to("cpu"), label.cpu()))
    shares = parallel.all_gather(found)
    every = [shares[n % len(shares)][n // len(shares)] for n in range(len(batches))]
    return Encoded(stack([tokens for tokens, _ in every]), torch.cat([label for _, label in every]))
