"""Fixtures: tiny random CLIPs and a toy data set (no download, no assets)."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: more threads are slower

import pytest
import torch

import train
from models.clip.openai import VOCABULARY, import_clip
from tests.browser import browser  # noqa: F401  (a fixture)
from tests.server import server  # noqa: F401  (a fixture)
from tests.toy import TOY_OPTIONS, write_toy

CLASS_NAMES = ["dog", "big_cat", "fish", "apple pie", "car", "oak tree"]


def assert_close(found, expected):
    """Equal to what float64 sums in another order leave; for tests that use `float64`."""
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def make_clip(seed=0, vision_layers=3, vision_width=64, size=32, joint=32):
    """A CLIP of 16 patches with random weights that are large enough to matter.

    Its numbers are of torch's default dtype, see `float64`.
    """
    import_clip()
    from clip.model import CLIP

    torch.manual_seed(seed)
    model = CLIP(joint, size, vision_layers, vision_width, 8, 77, VOCABULARY, 64, 1, 2)
    for name, parameter in model.named_parameters():
        if name.endswith("embedding") or "ln" in name:
            continue
        if parameter.dim() > 1 and "token_embedding" not in name:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    torch.nn.init.normal_(model.token_embedding.weight, std=0.5)
    return in_dtype(model)


def in_dtype(clip, dtype=None):
    """CLIP in a dtype, torch's default if none is named; its own LayerNorm knows float32 alone."""
    dtype = dtype or torch.get_default_dtype()
    for module in clip.modules():
        if dtype == torch.float64 and isinstance(module, torch.nn.LayerNorm):
            module.__class__ = torch.nn.LayerNorm
    return clip.to(dtype).eval()


@pytest.fixture
def float64():
    """Two formulations differ by rounding: where they are compared, all numbers are float64.

    What float32 rounds away depends on the processor; 1e-9 is seen on any of them.
    """
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def clip_model():
    return make_clip()


@pytest.fixture
def resnet_clip():
    import_clip()
    from clip.model import CLIP

    torch.manual_seed(0)
    model = CLIP(32, 32, (1, 1, 1, 1), 8, None, 77, VOCABULARY, 64, 1, 1)
    return in_dtype(model)


@pytest.fixture
def class_names():
    return list(CLASS_NAMES)


@pytest.fixture
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_toy(root)
    return root


@pytest.fixture
def arguments(toy_root, tmp_path):
    """Command line of train.py for the toy data set."""

    def build(trainer, output="run", flags=(), **options):
        pairs = TOY_OPTIONS | {key.replace("__", "."): value for key, value in options.items()}
        words = [str(word) for pair in pairs.items() for word in pair]
        where = ["--root", str(toy_root), "--output-dir", str(tmp_path / output)]
        return [*where, "--seed", "1", "--trainer", trainer, *flags, *words]

    return build


@pytest.fixture
def run(arguments):
    """Run train.py in this process."""

    def go(*args, **kwargs):
        train.run(train.parse_args(arguments(*args, **kwargs)))

    return go


@pytest.fixture
def fails(arguments, capsys, monkeypatch):
    """Run train.py's main and return its one line on stderr."""

    def go(*args, **kwargs):
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments(*args, **kwargs)])
        assert train.main() == 2
        lines = capsys.readouterr().err.strip().splitlines()
        errors = [line for line in lines if line.startswith("train.py: error: ")]
        assert len(errors) == 1
        assert "Traceback" not in "\n".join(lines)
        return errors[0]

    return go


@pytest.fixture(scope="session")
def trained(toy_root, tmp_path_factory):
    """Folders of finished runs, each trained once a session; their data set has moved away."""
    folders = {}

    def go(trainer, **options):
        key = (trainer, *sorted(options.items()))
        if key not in folders:
            folder = folders[key] = tmp_path_factory.mktemp("trained") / trainer
            options = {"OPTIM.MAX_EPOCH": 1, "DATASET.SUBSAMPLE_CLASSES": "base"} | options
            pairs = TOY_OPTIONS | {key.replace("__", "."): value for key, value in options.items()}
            words = [str(word) for pair in pairs.items() for word in pair]
            flags = ["--root", str(toy_root), "--output-dir", str(folder), "--trainer", trainer]
            train.run(train.parse_args([*flags, "--seed", "1", *words]))
            config = folder / "config.yaml"
            config.write_text(config.read_text().replace(str(toy_root), "/moved/away"))
        return folders[key]

    return go
