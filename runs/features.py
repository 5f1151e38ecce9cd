"""Features of the frozen image tower, computed once: the views that a training goes round."""

import logging
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from yacs.config import CfgNode

from models.clip.image_tower import VisualTokens, stack
from runs import parallel, rng
from runs.data import training_batch
from runs.state import RunState

logger = logging.getLogger(__name__)


class View(Dataset[dict[str, Any]]):
    """One augmented view of each training picture, which depends on nothing but three numbers.

    They are the run's seed, that of the view and the picture's place: so a view can be drawn anew,
    in any process and order.
    """

    def __init__(self, pictures: Any, seed: int, number: int) -> None:
        self.pictures, self.seed, self.number = pictures, max(0, seed), number

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """The item of `CachedDataset`; the random states afterwards are others."""
        seed = int(np.random.SeedSequence([self.seed, self.number, idx]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - transforms draw from it
        torch.default_generator.manual_seed(seed)
        return self.pictures[idx]


class Encoded:
    """What the image tower gives of the pictures of a `View`, and their labels."""

    def __init__(self, tokens: VisualTokens, label: Tensor) -> None:
        self.tokens, self.label = tokens, label

    def rows(self, places: list[int]) -> tuple[Tensor | VisualTokens, Tensor]:
        """Features and labels of some pictures; class tokens (B, D) where there is nothing else."""
        if self.tokens.patches is None:
            return self.tokens.cls[places], self.label[places]
        found = VisualTokens._make(None if x is None else x[places] for x in self.tokens)
        return found, self.label[places]


class ViewLoader:
    """A training loader's batches, with features of FEATURES.VIEWS views in place of pictures.

    Epoch e has view e modulo VIEWS of each picture. The order of the pictures is that of the
    loader. All views are encoded at the beginning, in batches of the test's size; random states are
    as before. A run that goes on finds the same bits.
    """

    num_workers = 0

    def __init__(self, cfg: CfgNode, state: RunState, model: nn.Module, loader: Any) -> None:
        self.state, self.loader = state, loader
        self.dataset, self.batch_sampler = loader.dataset, loader.batch_sampler
        states, began = rng.capture(), time.perf_counter()
        count = min(cfg.FEATURES.VIEWS, cfg.OPTIM.MAX_EPOCH)
        self.views = [encode_view(cfg, state, model, self.dataset, v, count) for v in range(count)]
        rng.restore(states)
        size = sum(x.nbytes for one in self.views for x in one.tokens if x is not None)
        logger.info(
            "Encoded %d views of %d training pictures (FEATURES.VIEWS): %.1f s, %.1f MB",
            *(count, len(self.dataset), time.perf_counter() - began, size / 2**20),
        )

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """One epoch."""
        torch.empty((), dtype=torch.int64).random_()  # as a loader draws, which seeds its workers
        view = self.views[self.state.epoch % len(self.views)]
        for places in self.batch_sampler:
            features, label = view.rows(places)
            files = [self.dataset.data_source[place].impath for place in places]
            yield {"img": features, "label": label, "impath": files, "index": torch.tensor(places)}


@torch.no_grad()
def encode_view(
    cfg: CfgNode, state: RunState, model: nn.Module, pictures: Any, number: int, count: int
) -> Encoded:
    """Encode view `number` of `count`; each process takes its share of the batches.

    Raises ValueError for a picture that cannot be read, as training does.
    """
    base: Any = model.tuner
    size, all_places = cfg.DATALOADER.TEST.BATCH_SIZE, range(len(pictures))
    batches = [list(all_places[first : first + size]) for first in all_places[::size]]
    own = batches[parallel.rank() :: parallel.processes()]
    loader = DataLoader(
        View(pictures, cfg.SEED, number), batch_sampler=own,
        num_workers=min(cfg.DATALOADER.NUM_WORKERS, len(own)),
    )
    found = []
    for batch in tqdm(loader, f"view {number + 1}/{count}", disable=None):
        image, label = training_batch(cfg, state, batch)
        with state.precision.autocast():
            tokens = base.encode_raw(image, base.step_patches)
        found.append((tokens.to("cpu"), label.cpu()))
    shares = parallel.all_gather(found)
    every = [shares[n % len(shares)][n // len(shares)] for n in range(len(batches))]
    return Encoded(stack([tokens for tokens, _ in every]), torch.cat([label for _, label in every]))
