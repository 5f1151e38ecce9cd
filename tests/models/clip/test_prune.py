"""Dropping patches: equal to a loop, exact where nothing is dropped, prompts and places kept."""

import pytest
import torch

from models.clip.blocks import unit
from models.clip.image_tower import VisualEncoder
from models.clip.prune import LinearDiscriminant, PatchLayout, TokenPruner, most_attended
from tests import tuners
from tests.conftest import assert_close, make_clip

pytestmark = pytest.mark.usefixtures("float64")


def tokens(batch=2, patches=6, fused=0, prompts=2, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 1 + patches + fused + prompts, width, generator=generator)
    attention = torch.rand(x.shape[:2], generator=generator).softmax(-1)
    layout = PatchLayout(torch.arange(10, 10 + patches).expand(batch, -1), num_fused=fused)
    return x, attention, layout


def pruner(keep, *, mix=1.0, width=4, at=(1,), seed=1):
    made = TokenPruner(at=at, keep=keep, width=width, mix=mix)
    generator = torch.Generator().manual_seed(seed)
    made.directions.copy_(torch.randn(made.directions.shape, generator=generator))
    return made


def z(score):
    return (score - score.mean()) / (score.var(correction=0).sqrt() + 1e-6)


@pytest.mark.parametrize("fused", [0, 1])
def test_pruning_equals_a_loop(fused):
    x, attention, layout = tokens(fused=fused)
    made = pruner((3,), mix=0.7)
    found, after = made(0, x, attention, layout)
    for b in range(len(x)):
        candidates = x[b, 1 : 7 + fused]
        semantic = torch.stack([unit(token) @ made.directions[0] for token in candidates])
        score = z(attention[b, 1 : 7 + fused].log()) + 0.7 * z(semantic)
        kept = sorted(sorted(range(6), key=lambda n: -score[n].item())[:3])
        rest = [n for n in range(6 + fused) if n not in kept]  # an old fused token is among them
        weight = score[rest].softmax(0)
        merged = sum(w * candidates[n] for w, n in zip(weight, rest, strict=True))
        expected = torch.cat([x[b, :1], candidates[kept], merged[None], x[b, 7 + fused :]])
        assert_close(found[b], expected)
        assert after.positions[b].tolist() == [10 + n for n in kept]
    assert after.num_fused == 1


def test_keeping_everything_changes_nothing():
    x, attention, layout = tokens()
    found, after = pruner((6,))(0, x, attention, layout)
    assert found is x
    assert after is layout


def test_without_directions_attention_alone_decides():
    x, attention, layout = tokens()
    made = TokenPruner(at=(1,), keep=(2,), width=4)
    _, after = made(0, x, attention, layout)
    best = attention[:, 1:7].topk(2).indices.sort().values
    assert torch.equal(after.positions, best + 10)


@pytest.mark.parametrize("name", tuners.BASES)
def test_a_schedule_that_keeps_all_gives_the_same_bits(class_names, images, name):
    plain = tuners.make_tuner(name, make_clip(), class_names).eval()
    pruned = tuners.make_tuner(name, make_clip(), class_names).eval()
    pruned.prune(TokenPruner(at=(1,), keep=(16,), width=64))
    assert torch.equal(plain(images), pruned(images))


@pytest.mark.parametrize("name", ["MaPLe", "PromptSRC", "PromptKD"])
def test_prompts_survive_and_kept_patches_are_returned(class_names, images, name):
    model = tuners.make_tuner(name, make_clip(), class_names).eval()
    model.prune(pruner((9, 4), at=(0, 1), width=64))
    seen = model.encode_image(images, "value")
    assert seen.patches.shape[:2] == seen.cls_attention.shape == seen.positions.shape == (4, 4)
    assert (seen.positions.sort(-1).values == seen.positions).all()
    assert seen.positions.max() < 16


def test_training_and_evaluation_prune_alike(class_names, images):
    model = tuners.make_tuner("CoOp", make_clip(), class_names)
    model.prune(pruner((5,), width=64))
    assert torch.equal(model.train()(images), model.eval()(images))


def test_gradients_reach_prompts_through_a_pruned_tower(class_names, images):
    model = tuners.make_tuner("MaPLe", make_clip(), class_names).train()
    model.prune(pruner((5,), width=64))
    model(images).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.learned.parameters())


@pytest.mark.parametrize("base", tuners.BASES)
def test_gate_false_is_the_pruned_base_bit_for_bit(class_names, images, base):
    model = tuners.make_spotlighted(base, make_clip(), class_names, gate=False)
    model.base.prune(pruner((6,), width=64))
    tuners.fill(model, images, torch.tensor([0, 1, 1, 5]))
    tuners.shake_head(model.head)
    for mode in (True, False):
        model.train(mode)
        assert torch.equal(model(images), model.base(images))


def test_kept_indices_are_those_of_the_original_patches(class_names, images):
    model = tuners.make_spotlighted("CoOp", make_clip(), class_names)
    model.base.prune(pruner((6,), width=64))
    out = model.forward_all(images)
    for b in range(len(images)):
        assert set(out.head.selection.indices[b].tolist()) <= set(out.tokens.positions[b].tolist())


def test_calibration_is_the_linear_discriminant(class_names):
    """Within-class scatter over all patches, a ridge of 0.1 % of its mean variance."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 4, generator=generator)
    selected = torch.rand(3, 5, generator=generator) > 0.6
    scatter = LinearDiscriminant()
    scatter.add(x[:2], selected[:2])
    scatter.add(x[2:], selected[2:])
    rows, chosen = unit(x).flatten(0, 1).double(), selected.flatten()
    means = [rows[chosen].mean(0), rows[~chosen].mean(0)]
    within = torch.zeros(4, 4, dtype=torch.float64)
    for row, is_chosen in zip(rows, chosen, strict=True):
        offset = row - means[0 if is_chosen else 1]
        within += torch.outer(offset, offset) / len(rows)
    within += 1e-3 * within.trace() / 4 * torch.eye(4)
    expected = torch.linalg.inv(within) @ (means[0] - means[1])
    assert_close(scatter.direction(), unit(expected))


@pytest.mark.parametrize("shape", [(5, 1, 8), (1, 2, 8)])
def test_a_discriminant_of_patches_that_do_not_differ_is_zero(shape):
    """One patch a picture, all selected; or one picture, with a patch in each group."""
    patches = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = LinearDiscriminant()
    found.add(patches, most_attended(torch.rand(shape[:2])))
    assert torch.equal(found.direction(), torch.zeros(8))


def test_watching_drops_nothing_and_sees_all_patches(class_names, images):
    model = tuners.make_tuner("CoOp", make_clip(), class_names).eval()
    model.prune(TokenPruner(at=(0, 1), keep=(5, 3), width=64))
    statistics = [LinearDiscriminant(), LinearDiscriminant()]
    model.collect_statistics(images, statistics)
    assert [one.count.sum() for one in statistics] == [4 * 16, 4 * 16]
    model.pruner.calibrate(statistics)
    assert model.pruner.calibrated
    assert_close(model.pruner.directions.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    ("at", "keep", "message"),
    [
        ((1,), (), "of equal length"),
        ((2, 1), (5, 4), "AT must be ascending"),
        ((1, 2), (4, 5), "KEEP must be descending"),
        ((1,), (0,), "at least 1, got"),
    ],
)
def test_a_schedule_that_contradicts_itself_is_refused(at, keep, message):
    with pytest.raises(ValueError, match=message):
        TokenPruner(at=at, keep=keep, width=4)


@pytest.mark.parametrize(("at", "keep"), [((2,), (5,)), ((1,), (17,))])
def test_a_schedule_that_does_not_fit_the_tower_is_refused(class_names, at, keep):
    model = tuners.make_tuner("CoOp", make_clip(), class_names)
    with pytest.raises(ValueError, match=r"AT must lie in 0\.\.1 and KEEP in 1\.\.16"):
        model.prune(TokenPruner(at=at, keep=keep, width=64))


def test_a_resnet_cannot_be_pruned(resnet_clip, class_names):
    model = tuners.make_tuner("CoOp", resnet_clip, class_names)
    with pytest.raises(ValueError, match=r"MODEL.PRUNE, works .* a ResNet backbone has none"):
        model.prune(TokenPruner(at=(1,), keep=(5,), width=64))


def test_attention_of_a_pruned_block_is_the_blocks_own(clip_model, images):
    """The scores come from the block that prunes, before its MLP."""
    seen = []

    class Watching(TokenPruner):
        def forward(self, stage, x, attention, layout):
            seen.append((x, attention))
            return super().forward(stage, x, attention, layout)

    encoder = VisualEncoder(clip_model.visual)
    encoder(images, pruner=Watching(at=(1,), keep=(4,), width=64))
    block = clip_model.visual.transformer.resblocks[1]
    entering = encoder.embed(images).transpose(0, 1)
    entering = clip_model.visual.transformer.resblocks[0](entering)
    normed = block.ln_1(entering)
    mixed, share = block.attn(normed, normed, normed, need_weights=True)
    assert_close(seen[0][0], (entering + mixed).transpose(0, 1))
    assert_close(seen[0][1], share[:, 0])
