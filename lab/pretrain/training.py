"""The training loop of the tiny CLIP: time-boxed, resumable, with a running average."""

import copy
import logging
import time
from pathlib import Path
from typing import Any

import torch
from clip.model import CLIP
from jaxtyping import Float
from torch import Tensor, nn

from lab.pretrain.batches import Batch, BatchStream, prefetched
from lab.pretrain.captions import Captioner
from lab.pretrain.evaluate import zero_shot
from lab.pretrain.model import PretrainingLoss, encode_image, encode_text
from lab.pretrain.settings import Settings
from lab.pretrain.sources import Sprites

logger = logging.getLogger(__name__)

NUM_PATCHES = 64
NUM_KEPT = 32  # patches shown while dropping
WHOLE_FROM = 0.85  # of the training; from here on no patch is dropped
MAX_LOGIT_SCALE = 100.0
AVERAGE_KEPT = 0.995  # of the running average, per step


def build_clip(settings: Settings, vocabulary: int) -> CLIP:
    """An untrained CLIP of 64-pixel pictures and 8-pixel patches."""
    model = CLIP(
        embed_dim=settings.joint,
        image_resolution=64,
        vision_layers=settings.vision_layers,
        vision_width=settings.vision_width,
        vision_patch_size=8,
        context_length=77,
        vocab_size=vocabulary,
        transformer_width=settings.text_width,
        transformer_heads=settings.text_width // 64,
        transformer_layers=settings.text_layers,
    )
    model.logit_scale.data.fill_(torch.tensor(1 / 0.07).log())  # as CLIP starts
    return model


def learning_share(progress: float) -> float:
    """The share of the full learning rate: up within 1 %, level, down from 40 % on."""
    return min(1.0, progress / 0.01 + 0.02, max(0.0, (1 - progress) / 0.6))


class Pretraining:
    """Trains on concepts of the given relative frequencies; `folder` has checkpoint and asset."""

    def __init__(
        self,
        settings: Settings,
        sprites: Sprites,
        captioner: Captioner,
        weights: Float[Tensor, "n"],
        folder: Path,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.folder = settings, folder
        self.checkpoint = folder / "checkpoint.pt"
        self.stream = BatchStream(
            sprites, captioner, weights, settings.batch_size, seed=settings.seed
        )
        model = build_clip(settings, len(self.stream.vocabulary))
        self.loss = PretrainingLoss(model, len(weights))
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.optimisers = self._optimisers()
        self.step, self.seconds = 0, 0.0
        self._resume()

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        if not hasattr(torch.optim, "Muon"):
            version = torch.__version__
            raise ModuleNotFoundError(f"torch 2.9 or newer is needed for Muon, this is {version}")
        named = dict(self.loss.named_parameters())
        matrices = [p for name, p in named.items() if "resblocks" in name and p.ndim == 2]
        chosen = {id(p) for p in matrices}
        rest = [p for p in named.values() if id(p) not in chosen]
        muon, adam = self.settings.muon_lr, self.settings.adam_lr
        optimisers = [
            torch.optim.Muon(matrices, lr=muon, weight_decay=self.settings.weight_decay),
            torch.optim.AdamW(rest, lr=adam, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["full_lr"] = group["lr"]
        return optimisers

    @property
    def progress(self) -> float:
        """Share of the training time that is over."""
        return min(1.0, self.seconds / (60 * self.settings.minutes))

    def run(self) -> None:
        """Train until the time is up, or for `settings.steps` steps."""
        batches = prefetched(self.stream, self.settings.workers)
        loss = torch.compile(self.loss, dynamic=False) if self.settings.compiled else self.loss
        last_step = self.step + self.settings.steps if self.settings.steps else None
        saved_at, saved_step = self.seconds, self.step
        while self.progress < 1 and self.step != last_step:
            started = time.perf_counter()
            value, right = self._train_step(loss, next(batches))
            self.seconds += time.perf_counter() - started
            if self.step % 50 == 0:
                minutes, scale = self.seconds / 60, self.loss.model.logit_scale.exp().item()
                shown = "step %d minute %.1f loss %.3f matched %.2f scale %.1f"
                logger.info(shown, self.step, minutes, value, right, scale)
            if self.seconds - saved_at > 60 * self.settings.save_minutes:
                rate = (self.step - saved_step) * self.settings.batch_size
                logger.info("%.0f pictures/s", rate / (self.seconds - saved_at))
                self.save()
                saved_at, saved_step = self.seconds, self.step
        self.save()

    def _train_step(self, loss: nn.Module, batch: Batch) -> tuple[float, float]:
        share = learning_share(self.progress)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = share * group["full_lr"]
            optimiser.zero_grad()
        kept = None
        if self.progress < WHOLE_FROM:
            kept = torch.rand(len(batch.pixels), NUM_PATCHES).argsort(1)[:, :NUM_KEPT].contiguous()
        value, right = loss(batch, kept)
        value.backward()
        nn.utils.clip_grad_norm_(self.optimisers[1].param_groups[0]["params"], 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        model = self.loss.model
        model.logit_scale.data.clamp_(max=torch.tensor(MAX_LOGIT_SCALE).log())
        self.step += 1
        kept_share = min(AVERAGE_KEPT, self.step / (self.step + 10))
        torch._foreach_lerp_(
            list(self.average.parameters()), list(model.parameters()), 1 - kept_share
        )
        return value.item(), right.item()

    def save(self) -> None:
        """Write the checkpoint and the asset, and log the validation accuracy."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "loss": self.loss.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.checkpoint.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(self.checkpoint)
        half = {name: weight.half() for name, weight in self.average.state_dict().items()}
        asset = {"state_dict": half, "vocab_rows": self.stream.vocabulary}  # its trained rows only
        torch.save(asset, self.folder / "asset.pt")
        if self.settings.validate:
            table = self.validate().items()
            texts = [f"{name} {row['base']:.1f}/{row['new']:.1f}" for name, row in table]
            logger.info("step %d zero-shot (val): %s", self.step, ", ".join(texts))

    def validate(self) -> dict[str, dict[str, float]]:
        """The zero-shot accuracy of the running average on validation pictures."""
        model, vocabulary = self.average, self.stream.vocabulary

        def text(ids: Tensor) -> Tensor:
            rows = torch.searchsorted(vocabulary, ids)
            return encode_text(model, model.token_embedding(rows), ids.argmax(1))

        return zero_shot(lambda pixels: encode_image(model, pixels)[:, 0], text)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        self.loss.load_state_dict(state["loss"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]
        self.stream.first_step = self.step
        logger.info("resumed at step %d, minute %.1f", self.step, self.seconds / 60)
