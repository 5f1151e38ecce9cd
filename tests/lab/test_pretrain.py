"""The pretraining tool on made-up drawings: no network, a few steps."""

import random
import subprocess
import sys
from pathlib import Path

import clip
import pytest
import torch

from lab.pretrain.batches import BatchStream
from lab.pretrain.captions import Captioner, tokenize
from lab.pretrain.compose import Composer
from lab.pretrain.model import encode_image, encode_text
from lab.pretrain.sources import Concept, Sprites, squash
from lab.pretrain.training import Pretraining, Settings, build_clip, learning_share
from models.clip.load import load_tiny_clip
from tests.conftest import assert_close, in_dtype

ROOT = Path(__file__).parents[2]
CONCEPTS = [
    Concept(f"1F4{i:02X}", name, (name[::-1],))
    for i, name in enumerate(["dog", "cat", "red apple", "car", "sun", "hat", "drum", "tree"])
]
TINY = Settings(
    minutes=1e6,
    batch_size=6,
    vision_width=64,
    vision_layers=1,
    text_width=64,
    text_layers=1,
    joint=32,
    workers=0,
    compiled=False,
    validate=False,
)


@pytest.fixture(scope="module")
def sprites():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.zeros(16, 4, 64, 64, dtype=torch.uint8)
    shape = (16, 4, 32, 32)
    pixels[:, :, 16:48, 16:48] = torch.randint(0, 200, shape, generator=generator).byte()
    pixels[:, 3, 16:48, 16:48] = 255
    return Sprites(pixels, torch.arange(8).repeat(2), torch.arange(16) >= 8)


def pretraining(sprites, folder, **changes):
    settings = Settings(**{**vars(TINY), **changes})
    return Pretraining(settings, sprites, Captioner(CONCEPTS, {}), torch.ones(8), folder)


def test_a_stopped_training_goes_on_where_it_stopped(sprites, tmp_path):
    pretraining(sprites, tmp_path, steps=3).run()
    resumed = pretraining(sprites, tmp_path, steps=2)
    assert resumed.step == resumed.stream.first_step == 3
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for name, weight in resumed.loss.state_dict().items():
        assert torch.equal(weight, saved["loss"][name])
    resumed.run()
    assert resumed.step == 5


def test_a_killed_process_is_resumed_from_its_checkpoint(sprites, tmp_path):
    torch.save(vars(sprites), tmp_path / "sprites.pt")
    script = (
        "import os, torch; from pathlib import Path\n"
        "from tests.lab.test_pretrain import pretraining, Sprites\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "sprites = Sprites(**torch.load(folder / 'sprites.pt', weights_only=True))\n"
        "run = pretraining(sprites, folder, save_minutes=0.0)\n"
        "save = run.save\n"
        "run.save = lambda: (save(), os._exit(9) if run.step == 2 else None)\n"
        "run.run()\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True)
    assert killed.returncode == 9, killed.stderr.decode()
    assert pretraining(sprites, tmp_path).step == 2


def test_the_asset_is_a_clip_that_agrees_with_the_training(sprites, tmp_path):
    run = pretraining(sprites, tmp_path, steps=2)
    run.run()
    model = load_tiny_clip(tmp_path / "asset.pt", digest="")
    assert model.visual.input_resolution == 64
    assert model.visual.transformer.resblocks[0].attn.num_heads == 1  # width // 64
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        image = model.encode_image(pixels)
        text = model.encode_text(clip.tokenize(["a photo of a dog.", "a hat."]))
        ids = torch.stack([tokenize("a photo of a dog."), tokenize("a hat.")])
        rows = torch.searchsorted(run.stream.vocabulary, ids)
        embedded = run.average.token_embedding(rows)
        torch.testing.assert_close(
            image, encode_image(run.average, pixels)[:, 0], rtol=0.02, atol=0.02
        )
        torch.testing.assert_close(
            text, encode_text(run.average, embedded, ids.argmax(1)), rtol=0.02, atol=0.02
        )


def test_the_fast_towers_compute_what_clip_computes(float64):
    model = in_dtype(build_clip(TINY, 49408))
    pixels, ids = torch.randn(3, 3, 64, 64), clip.tokenize(["a dog", "a photo of a cat.", "sun"])
    with torch.no_grad():
        assert_close(encode_image(model, pixels)[:, 0], model.encode_image(pixels))
        everything = torch.arange(64).expand(3, -1)
        assert_close(encode_image(model, pixels, everything), encode_image(model, pixels))
        short = ids[:, :12].long()
        fast = encode_text(model, model.token_embedding(short), short.argmax(1))
        assert_close(fast, model.encode_text(ids))


def test_dropped_patches_do_not_matter(float64):
    model = in_dtype(build_clip(TINY, 10))
    first, second = torch.randn(2, 1, 3, 64, 64)
    second[:, :, :32] = first[:, :, :32]  # the upper half agrees
    upper = torch.arange(32)[None]
    with torch.no_grad():
        assert_close(encode_image(model, first, upper), encode_image(model, second, upper))
        assert not torch.allclose(encode_image(model, first), encode_image(model, second))


def test_a_batch_depends_on_its_number_alone_and_shows_no_concept_twice(sprites):
    captioner = Captioner(CONCEPTS, {})
    stream = BatchStream(sprites, captioner, torch.ones(8), 6)
    late = BatchStream(sprites, captioner, torch.ones(8), 6, first_step=5)
    for _ in range(5):
        stream.compose(0)
    first, again = stream.compose(5), next(iter(late))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.pixels, stream.compose(6).pixels)
    assert len(first.concepts.unique()) == 6


def test_composing_works_at_every_hardness_and_marks_the_object(sprites):
    for hardness in (0.0, 0.5, 1.0):
        composer = Composer(sprites, torch.Generator().manual_seed(1), hardness)
        pictures = composer(torch.arange(16))
        assert pictures.pixels.shape == (16, 3, 64, 64)
        assert pictures.pixels.isfinite().all()
        assert 0.02 < pictures.on_object.float().mean() < 0.6


def test_every_caption_is_within_the_vocabulary():
    captioner = Captioner(CONCEPTS, {"1F400": "hound"})
    vocabulary, rng = captioner.vocabulary(), random.Random(0)
    texts = {captioner.write(concept, rng) for concept in range(8) for _ in range(80)}
    assert any("hound" in text for text in texts)
    for text in texts:
        assert torch.isin(tokenize(text), vocabulary).all(), text


def orthogonalised(x):
    """Singular values near 1 by the quintic Newton-Schulz iteration, in float64."""
    x = x.double() if len(x) <= len(x.T) else x.double().T
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(32, 96), (96, 32)])
def test_muon_steps_along_the_orthogonalised_momentum_as_published(shape):
    """Jordan et al., 2024: Nesterov momentum 0.95, decoupled decay, rate by the matrix's shape."""
    param = torch.nn.Parameter(torch.randn(shape))
    average = torch.zeros(shape)
    optimiser = torch.optim.Muon([param], lr=0.02, weight_decay=0.02)
    for _ in range(3):
        before = param.detach().clone()
        param.grad = torch.randn(shape)
        optimiser.step()
        average = 0.95 * average + 0.05 * param.grad
        update = orthogonalised(0.05 * param.grad + 0.95 * average)
        values = torch.linalg.svdvals(update)
        assert values.min() > 0.3
        assert values.max() < 1.5
        update = update if update.shape == shape else update.T
        expected = (1 - 0.02 * 0.02) * before - 0.02 * max(1, shape[0] / shape[1]) ** 0.5 * update
        difference = (param - expected).norm() / (expected - before).norm()
        assert difference < 0.02  # torch iterates in bfloat16


def test_the_learning_rate_rises_stays_and_falls():
    assert learning_share(0.0) < 0.05
    assert learning_share(0.2) == 1.0
    assert learning_share(0.7) == pytest.approx(0.5)
    assert learning_share(1.0) == 0.0


def test_names_are_matched_across_spellings():
    assert squash("Jack-o-Lantern") == squash("jack o lantern") == "jackolantern"
