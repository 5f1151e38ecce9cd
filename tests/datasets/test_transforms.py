"""Pictures are prepared as CLIP and CoOp prepare them, to the bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from dassl.data.transforms import build_transform
from PIL import Image

import train
import trainers  # noqa: F401  (registers the trainers, with their keys)
from models.clip.openai import import_clip
from runs.config import build_config
from runs.data import CachedDataset

PROJECT = Path(__file__).parents[2]
CONFIGS = sorted(
    path for path in (PROJECT / "configs/trainers").glob("*/*.yaml") if "tiny" not in path.name
)
BICUBIC = T.InterpolationMode.BICUBIC


def config(path, *options):
    words = ["--trainer", path.parent.name, "--config-file", str(path), *options]
    return build_config(train.parse_args(words))


def picture(size, mode="RGB"):
    rng = np.random.default_rng(sum(size))
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_test_pictures_equal_clips_own_to_the_bit(path):
    import_clip()
    from clip.clip import _transform

    cfg = config(path)
    ours, clips = build_transform(cfg, is_train=False), _transform(cfg.INPUT.SIZE[0])
    for size in ((500, 333), (333, 500), (224, 224), (97, 640), (32, 32), (1201, 800)):
        assert torch.equal(ours(picture(size)), clips(picture(size)))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_file_is_read_as_clip_reads_it(mode, tmp_path):
    import_clip()
    from clip.clip import _transform
    from dassl.data.datasets import Datum

    cfg = config(CONFIGS[0])
    picture((300, 200), mode).save(tmp_path / "a.jpg")
    data = CachedDataset(cfg, [Datum(tmp_path / "a.jpg")], build_transform(cfg, is_train=False))
    with Image.open(tmp_path / "a.jpg") as image:
        assert torch.equal(data[0]["img"], _transform(224)(image))


def test_resizing_is_antialiased():
    """Fine stripes become grey; without antialiasing some of them would stay black or white."""
    stripes = np.zeros((896, 896, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    found = build_transform(config(CONFIGS[0]), is_train=False)(Image.fromarray(stripes))
    assert found[:, 8:-8, 8:-8].std(dim=(1, 2)).max() < 0.02


def test_training_transforms_are_coops():
    cfg = config(PROJECT / "configs/trainers/CoOp/vit_b16.yaml")
    assert list(cfg.INPUT.TRANSFORMS) == ["random_resized_crop", "random_flip", "normalize"]
    coop = T.Compose(
        [
            T.RandomResizedCrop((224, 224), scale=(0.08, 1.0), interpolation=BICUBIC),
            T.RandomHorizontalFlip(),
            T.ToTensor(),
            T.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )
    ours = build_transform(cfg)
    for seed in range(5):
        found = []
        for transform in (ours, coop):
            torch.manual_seed(seed)
            found.append(transform(picture((500, 333))))
        assert torch.equal(*found)
