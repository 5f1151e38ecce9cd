"""CLIP with random weights, made-up class names, and pruning schedules."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch import nn

from models.clip.load import available_backbones, load_clip
from models.clip.openai import VOCABULARY, import_clip
from models.clip.prune import schedule_problems

PROJECT = Path(__file__).parents[2]
RECOMMENDED = PROJECT / "configs/trainers/Spotlighter/vit_b16_ep20_ctxv1_pruned.yaml"
RECOMMENDED_FOR = (12, 196)  # blocks and patches of ViT-B/16
QUICK = "quick"
# Of "quick": image size, vision layers, width, patch, joint width, text width, text layers. A class
# costs as much beside an image as in ViT-B/16, and pruning saves as much.
SHAPES = {QUICK: (144, 8, 192, 16, 128, 128, 3)}
ADJECTIVES = (
    "red green blue black white brown grey golden silver dark bright small large tall tiny old "
    "young wild common spotted striped great little northern southern"
)
NOUNS = (
    "dog cat fox bear wolf horse bird eagle owl duck fish shark snake frog beetle spider ant bee "
    "butterfly lizard tree flower mushroom apple lemon bread cake bottle cup chair table lamp "
    "clock boat train truck bridge tower church castle"
)
MAX_CLASSES = len(ADJECTIVES.split()) * len(NOUNS.split())


class ScheduleError(ValueError, argparse.ArgumentTypeError):
    """A schedule that cannot be read. argparse prints the message."""


class Schedule(NamedTuple):
    """Blocks that prune, counted from 0, and the number of patches after each."""

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


def parse_schedule(text: str) -> Schedule:
    """Read "3:98" or "3:98,6:49"; raises ScheduleError for anything else."""
    try:
        pairs = [[int(number) for number in part.split(":")] for part in text.split(",")]
        at, keep = zip(*pairs, strict=True)
    except ValueError:
        raise ScheduleError(
            f"a schedule is written BLOCK:PATCHES, as 1:32,2:12; got {text!r}"
        ) from None
    if problems := schedule_problems(at, keep):
        raise ScheduleError(f"schedule {text}: {'; '.join(problems)}")
    return Schedule(at, keep)


def recommended_schedule(visual: nn.Module, path: Path = RECOMMENDED) -> Schedule:
    """The schedule of ViT-B/16's pruned config, scaled to a tower; 3:98 where there is no file."""
    found = Schedule()
    if path.is_file():
        prune = yaml.safe_load(path.read_text(encoding="utf-8"))["MODEL"]["PRUNE"]
        found = Schedule(tuple(prune["AT"]), tuple(prune["KEEP"]))
    return found.scaled(visual)


def tower_size(visual: nn.Module) -> tuple[int, int]:
    """Blocks and patches of an image tower."""
    return len(visual.transformer.resblocks), len(visual.positional_embedding) - 1


def load_backbone(name: str, seed: int) -> nn.Module:
    """A float32 CLIP on the CPU with random weights, whose image tower is a ViT."""
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


def made_up_names(count: int) -> list[str]:
    """Distinct class names, always the same, of 4 to 5 tokens with "." and the end of text."""
    if not 1 <= count <= MAX_CLASSES:
        raise ValueError(f"--classes must lie in 1..{MAX_CLASSES}, got {count}")
    adjectives, nouns = ADJECTIVES.split(), NOUNS.split()
    found = []
    for i in range(count):
        times, noun = divmod(i, len(nouns))
        found.append(f"{adjectives[(times + i) % len(adjectives)]}_{nouns[noun]}")
    return found
