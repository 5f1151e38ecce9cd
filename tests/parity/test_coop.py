"""CoOp against its published formulation, written down on plain `clip` modules at 77 positions."""

import pytest
import torch
import torch.nn.functional as F

from models.classifier import PromptedCLIP
from models.loading import import_clip
from models.prompt_learner import PromptLearner

LABEL = torch.tensor([0, 3, 3, 5])


class LiteralCoOp:
    """prefix + ctx + suffix at 77 positions, text encoded anew for each batch."""

    def __init__(self, clip_model, class_names, ctx):
        names = [name.replace("_", " ") for name in class_names]
        prompts = ["X " * len(ctx) + name + "." for name in names]
        self.ids = torch.cat([import_clip().tokenize(p) for p in prompts])
        embedding = clip_model.token_embedding(self.ids).detach()
        self.prefix, self.suffix = embedding[:, :1], embedding[:, 1 + len(ctx) :]
        self.ctx = ctx.detach().clone().requires_grad_()
        self.clip = clip_model

    def __call__(self, images):
        ctx = self.ctx.unsqueeze(0).expand(len(self.ids), -1, -1)
        x = torch.cat([self.prefix, ctx, self.suffix], dim=1) + self.clip.positional_embedding
        x = self.clip.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
        x = self.clip.ln_final(x)
        x = x[torch.arange(len(x)), self.ids.argmax(-1)] @ self.clip.text_projection
        text = x / x.norm(dim=-1, keepdim=True)
        image = self.clip.encode_image(images)
        image = image / image.norm(dim=-1, keepdim=True)
        return self.clip.logit_scale.exp() * image @ text.t()


@pytest.fixture
def pair(clip_model, class_names):
    torch.manual_seed(0)
    prompts = PromptLearner(class_names, clip_model.token_embedding, n_ctx=4)
    ours = PromptedCLIP(clip_model, prompts).train()
    return ours, LiteralCoOp(clip_model, class_names, prompts.ctx)


def test_logits_loss_and_gradients(pair, images):
    ours, literal = pair
    found, expected = ours(images), literal(images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    F.cross_entropy(found, LABEL).backward()
    F.cross_entropy(expected, LABEL).backward()
    # float32 rounding of sums over 77 and over fewer positions, relative to the largest entry
    difference = (ours.learned.ctx.grad - literal.ctx.grad).abs().max()
    assert difference < 1e-5 * literal.ctx.grad.abs().max()


def test_three_sgd_steps_lead_to_the_same_context(pair, images):
    ours, literal = pair
    for model, ctx in ((ours, ours.learned.ctx), (literal, literal.ctx)):
        optimiser = torch.optim.SGD([ctx], lr=0.1, momentum=0.9, weight_decay=5e-4)
        for _ in range(3):
            optimiser.zero_grad()
            F.cross_entropy(model(images), LABEL).backward()
            optimiser.step()
    torch.testing.assert_close(ours.learned.ctx, literal.ctx, rtol=1e-4, atol=1e-5)
