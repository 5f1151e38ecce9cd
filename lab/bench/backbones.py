"""CLIP with random weights, and the pruning schedule that is recommended for it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch import nn

from models.clip.load import VOCABULARY, available_backbones, import_clip, load_clip
from models.clip.prune import TokenPruner, schedule_problems

PROJECT = Path(__file__).parents[2]
RECOMMENDED = PROJECT / "configs/trainers/Spotlighter/vit_b16_ep20_ctxv1_pruned.yaml"
RECOMMENDED_FOR = (12, 196)  # blocks and patches of ViT-B/16
QUICK = "quick"
# Of "quick": image size, vision layers, width, patch, joint width, text width, text layers. A class
# costs as much beside an image as in ViT-B/16, and pruning saves as much.
SHAPES = {QUICK: (144, 8, 192, 16, 128, 128, 3)}


class Schedule(NamedTuple):
    """Blocks that prune, counted from 0, and the patches that go on from each."""

    at: tuple[int, ...] = (3,)
    keep: tuple[int, ...] = (98,)

    def __str__(self) -> str:
        """As on the command line: "3:98,6:49"."""
        return ",".join(f"{at}:{keep}" for at, keep in zip(self.at, self.keep, strict=True))

    def scaled(self, visual: nn.Module) -> Schedule:
        """The same share of the patches at the same relative depth of another tower."""
        blocks, patches = tower_size(visual)
        found = {}
        for at, keep in zip(self.at, self.keep, strict=True):
            depth = min(round(at * blocks / RECOMMENDED_FOR[0]), blocks - 2)
            found[max(0, depth)] = max(1, round(keep * patches / RECOMMENDED_FOR[1]))
        return Schedule(tuple(found), tuple(found.values()))

    def pruner(self, visual: nn.Module) -> TokenPruner:
        """A pruner of this schedule for a tower."""
        return TokenPruner(at=self.at, keep=self.keep, width=visual.conv1.out_channels)


def parse_schedule(text: str) -> Schedule:
    """Read "3:98" or "3:98,6:49".

    Raises:
        ValueError: it is written in another way, or contradicts itself.
    """
    try:
        pairs = [[int(number) for number in part.split(":")] for part in text.split(",")]
        at, keep = zip(*pairs, strict=True)
    except ValueError as error:
        raise ValueError(
            f"--prune takes BLOCK:PATCHES, as 3:98 or 3:98,6:49, got {text!r}"
        ) from error
    if problems := schedule_problems(at, keep):
        raise ValueError("--prune: " + "; ".join(problems))
    return Schedule(at, keep)


def recommended_schedule(visual: nn.Module, path: Path = RECOMMENDED) -> Schedule:
    """What the pruned config of ViT-B/16 says, scaled to a tower; 3:98 where there is none."""
    found = Schedule()
    if path.is_file():
        prune = yaml.safe_load(path.read_text(encoding="utf-8"))["MODEL"]["PRUNE"]
        found = Schedule(tuple(prune["AT"]), tuple(prune["KEEP"]))
    return found.scaled(visual)


def tower_size(visual: nn.Module) -> tuple[int, int]:
    """Blocks and patches of an image tower."""
    return len(visual.transformer.resblocks), len(visual.positional_embedding) - 1


def image_size(visual: nn.Module) -> int:
    """Pixels of a side."""
    return visual.input_resolution


def load_backbone(name: str, seed: int) -> nn.Module:
    """A float32 CLIP on the CPU with random weights.

    Raises:
        ValueError: the name is unknown, or its image tower is no ViT.
    """
    torch.manual_seed(seed)
    if name not in SHAPES:
        known = [entry for entry in available_backbones() if not entry.startswith("RN")]
        if name not in known:
            names = ", ".join([*known, *SHAPES])
            raise ValueError(f"--backbone must be a ViT, one of {names}; got {name!r}")
        return load_clip(name, pretrained=False)
    import_clip()
    from clip.model import CLIP

    size, layers, width, patch, joint, text_width, text_layers = SHAPES[name]
    heads = max(1, text_width // 64)
    shape = (joint, size, layers, width, patch, 77, VOCABULARY, text_width, heads, text_layers)
    return CLIP(*shape).float().eval()
