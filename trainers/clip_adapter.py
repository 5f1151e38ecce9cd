"""CLIP-Adapter: a small network changes the image feature, which keeps a share of what it was.

Source: Gao et al., IJCV 2024, https://arxiv.org/abs/2110.04544, section 3.2
"""

import logging
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from datasets.base import template
from models.classifier import Images, ZeroShotCLIP
from models.clip.blocks import full_precision, unit
from models.clip.image_tower import VisualTokens
from models.fit import deal_shots
from runs import parallel, rng
from runs.features import training_features
from trainers.base import CLIPTrainer, register
from trainers.settings import BuildContext, Settings
from trainers.templates import sentences

logger = logging.getLogger(__name__)

RATIOS = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9)
VIEWS = 4  # augmented views of each training picture that SELECT trains on
SELECTS = ("cross", "off")


@dataclass(frozen=True)
class CLIPAdapterSettings(Settings):
    """Keys of TRAINER.CLIPADAPTER."""

    RATIO: float = 0.2  # share of the network's feature; what SELECT off takes
    REDUCTION: int = 4  # the hidden layer has the joint width over this many units
    SELECT: str = "cross"  # cross: the ratio under which training pictures held out are likeliest
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = ("RATIO", "SELECT")  # the ratio is saved

    def problems(self) -> list[str]:
        """A sentence for each value that is wrong."""
        found = super().problems() + self.at_least(1, "REDUCTION")
        if not 0 <= self.RATIO <= 1:
            found.append(f"RATIO must lie in 0..1, got {self.RATIO}")
        return found + self.one_of(SELECTS, "SELECT")


class Adapter(nn.Module):
    """Two layers without bias, so that the length of a feature does not matter."""

    def __init__(self, width: int, reduction: int, ratio: float) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.fc = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.ReLU(),
            nn.Linear(hidden, width, bias=False), nn.ReLU(),
        )
        self.register_buffer("ratio", torch.tensor(ratio))

    def forward(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Unit features, mixed."""
        with full_precision(cls):
            return unit(self.ratio * self.fc(cls) + (1 - self.ratio) * cls)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        """A published checkpoint has no ratio: this one's stays."""
        state.setdefault(f"{prefix}ratio", self.ratio)
        super()._load_from_state_dict(state, prefix, *args)


class CLIPAdapterModel(ZeroShotCLIP):
    """Zero-shot CLIP on adapted image features; what is learned goes on to new classes."""

    def __init__(self, clip: nn.Module, class_sentences: list[list[str]], adapter: Adapter) -> None:
        super().__init__(clip, class_sentences)
        self.learn(adapter)

    def features(self, raw: VisualTokens) -> VisualTokens:
        """Unit-length float32 features, the class token's adapted."""
        tokens = super().features(raw)
        return tokens._replace(cls=self.learned(tokens.cls))

    def plain(self, image: Images) -> Float[Tensor, "B D"]:
        """CLIP's own unit-length features of the class token."""
        return super().features(self.encode_raw(image)).cls


class Adapters(nn.Module):
    """G adapters that are trained at once, from the same start."""

    def __init__(self, start: Adapter, ratio: Float[Tensor, " G"]) -> None:
        super().__init__()
        first, second = start.fc[0].weight.detach(), start.fc[2].weight.detach()
        self.first = nn.Parameter(first.T.expand(len(ratio), -1, -1).clone())  # (G, D, H)
        self.second = nn.Parameter(second.T.expand(len(ratio), -1, -1).clone())  # (G, H, D)
        self.register_buffer("ratio", ratio[:, None, None])

    def forward(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "G B D"]:
        """The features that each makes of those of B pictures."""
        found = ((cls @ self.first).relu() @ self.second).relu()
        return unit(self.ratio * found + (1 - self.ratio) * cls)


def losses(
    adapters: Adapters, cls: Float[Tensor, "B D"], label: Int[Tensor, " B"],
    text: Float[Tensor, "C D"],
) -> Float[Tensor, "G B"]:
    """Cross-entropy of each picture under each adapter; `text` times the scale of the logits."""
    logits = adapters(cls) @ text.T  # (G, B, C)
    rows = label.expand(len(logits), -1)
    return F.cross_entropy(logits.transpose(1, 2), rows, reduction="none")


@register
class CLIPAdapter(CLIPTrainer):
    """A bottleneck behind the image tower, beside fixed sentences."""

    node = "CLIPADAPTER"
    settings_class = CLIPAdapterSettings
    checkpoint_name = "clip_adapter"
    takes_features = True
    new_classes = "the adapter of image features goes on"
    model: CLIPAdapterModel

    @classmethod
    def build(
        cls, clip: nn.Module, class_names: list[str], settings: CLIPAdapterSettings,
        run: BuildContext,
    ) -> CLIPAdapterModel:
        """The data set's sentences, and an adapter of the joint space."""
        fixed = sentences((template(run.cfg.DATASET.NAME),), class_names)
        adapter = Adapter(clip.text_projection.shape[-1], settings.REDUCTION, settings.RATIO)
        return CLIPAdapterModel(clip, fixed, adapter)

    def before_training(self) -> None:
        """Choose the ratio; a run that goes on has its own."""
        if self.settings.SELECT == "cross" and self.start_epoch == 0:
            with rng.unchanged():
                self.learn_on_rank0(self.choose_ratio)

    def choose_ratio(self) -> None:
        """Set the ratio under which training pictures are likeliest to adapters without them.

        An adapter for each ratio and fold is trained as the run will be, but on features that are
        computed once.
        """
        began = time.perf_counter()
        plain, label = self.features(augmented=False)
        fold = deal_shots(label)
        if not (fold >= 0).any():
            logger.info("Ratio %g (RATIO): one picture a class leaves none to choose it by",
                        self.settings.RATIO)
            return
        folds = torch.arange(int(fold.max()) + 1, device=label.device)
        ratios = torch.tensor(RATIOS, device=label.device).repeat_interleave(len(folds))
        held_out = fold == folds.repeat(len(RATIOS))[:, None]  # (G, N)
        adapters = Adapters(self.model.learned, ratios).to(label.device)
        views = [self.features(augmented=True)[0] for _ in range(VIEWS)]
        text = self.model.scale * self.model.fixed
        self.train_adapters(adapters, views, label, text, ~held_out)
        found = self.nll_held_out(adapters, plain, label, text, held_out)
        self.model.learned.ratio.fill_(RATIOS[int(found.argmin())])
        logger.info(
            "Ratio %g chosen in %.1f s; nats a picture held out: %s",
            *(self.model.learned.ratio.item(), time.perf_counter() - began),
            ", ".join(f"{r:g}: {nll:.4f}" for r, nll in zip(RATIOS, found.tolist(), strict=True)),
        )

    @torch.no_grad()
    def features(self, *, augmented: bool) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
        """CLIP's own features of the training pictures, and their labels."""
        found, labels = [], []
        cfg, state = self.cfg, self.state
        for image, label in training_features(cfg, state, self.model, augmented=augmented):
            with self.state.precision.autocast():
                found.append(self.model.plain(image))
            labels.append(label)
        return torch.cat(found), torch.cat(labels)

    def train_adapters(
        self, adapters: Adapters, views: list[Tensor], label: Int[Tensor, " N"],
        text: Float[Tensor, "C D"], counts: Bool[Tensor, "G N"],
    ) -> None:
        """Train by the run's optimiser, schedule, batch and epochs; `counts`: who trains whom."""
        optimiser, schedule = self.optimiser_of(adapters)
        size = self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE * parallel.processes()
        seen = len(self.train_loader_x) * size
        for epoch in range(self.max_epoch):
            cls = views[epoch % len(views)]
            for rows in torch.randperm(len(label), device=label.device)[:seen].split(size):
                share = counts[:, rows] / counts[:, rows].sum(1, keepdim=True).clamp(min=1)
                optimiser.zero_grad()
                (losses(adapters, cls[rows], label[rows], text) * share).sum().backward()
                optimiser.step()
            schedule.step()

    @torch.no_grad()
    def nll_held_out(
        self, adapters: Adapters, cls: Float[Tensor, "N D"], label: Int[Tensor, " N"],
        text: Float[Tensor, "C D"], held_out: Bool[Tensor, "G N"],
    ) -> Float[Tensor, " R"]:
        """Nats a picture that was held out, by ratio."""
        rows = torch.arange(len(label), device=label.device)
        parts = rows.split(self.cfg.DATALOADER.TEST.BATCH_SIZE)
        each = torch.cat([losses(adapters, cls[part], label[part], text) for part in parts], 1)
        return (each * held_out).sum(1).view(len(RATIOS), -1).sum(1) / held_out.sum() * len(RATIOS)
