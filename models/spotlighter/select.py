"""Which patches are kept. docs/method.md, section 3.

Two scores rank the patches of an image. The *sample-wise* score asks how much this image depends on
a patch: by default, how much its class token attends to it. The *semantic-wise* score asks how much
a patch looks like the prototypes of the likely classes. The top K are kept, the others become one
fused token.

B images, C classes, N patches, K kept, M prototypes, D width, R candidates. Features: unit length.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.clip.blocks import gather_tokens
from models.clip.prune import log_attention, standardise


class Candidates(NamedTuple):
    """The likeliest classes of each image; they stand in for the label, at test time as well."""

    index: Int[Tensor, "B R"]  # type: ignore[assignment]  # a tuple has a method of that name
    weight: Float[Tensor, "B R"]


class ScoreInput(NamedTuple):
    """What a sample-wise score may read."""

    patches: Float[Tensor, "B N D"]
    cls_attention: Float[Tensor, "B N"]
    text: Float[Tensor, "C D"]
    candidates: Candidates


class Selection(NamedTuple):
    """The patches of each image that were kept, best first."""

    indices: Int[Tensor, "B K"]  # among the picture's patches, from 0, without the class token
    tokens: Float[Tensor, "B K D"]
    weight: Float[Tensor, "B K"]  # softmax of the kept activations
    fused: Float[Tensor, "B D"]  # mean of the others, weighted by activation; not unit length


def candidate_classes(logits: Float[Tensor, "B C"], num_candidates: int) -> Candidates:
    """Softmax over each image's top `min(num_candidates, C)` classes, without gradient."""
    top = logits.detach().topk(min(num_candidates, logits.shape[-1]), dim=-1)
    return Candidates(top.indices, top.values.softmax(-1))


def mix_candidates(
    candidates: Candidates, per_class: Float[Tensor, "C *rest"]
) -> Float[Tensor, "B *rest"]:
    """Weighted sum over each image's candidates: sum_r pi_r per_class[r]."""
    chosen = per_class[candidates.index]  # (B, R, ...)
    weight = candidates.weight.reshape(*candidates.weight.shape, *[1] * (chosen.dim() - 2))
    return (weight * chosen).sum(1)


def attention_score(inputs: ScoreInput) -> Float[Tensor, "B N"]:
    """Log of the class token's attention in the last block."""
    return log_attention(inputs.cls_attention)


def similarity_score(inputs: ScoreInput) -> Float[Tensor, "B N"]:
    """Similarity of patches to the mean text feature of the candidates."""
    text = mix_candidates(inputs.candidates, inputs.text)
    return (inputs.patches @ text.unsqueeze(-1)).squeeze(-1)


# By the value of SCORE. A new sample-wise score is one function and one entry here.
SCORES: dict[str, Callable[[ScoreInput], Tensor]] = {
    "attention": attention_score,
    "similarity": similarity_score,
}
# By the value of SELECT: the activation that patches are ranked by, from both scores.
SELECTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "both": lambda sample, semantic: sample + semantic,
    "sample": lambda sample, _: sample,
    "semantic": lambda _, semantic: semantic,
    "random": lambda sample, _: standardise(torch.rand_like(sample)),
}


def semantic_score(
    patches: Float[Tensor, "B N D"], prototypes: Float[Tensor, "C M D"], candidates: Candidates
) -> Float[Tensor, "B N"]:
    """Similarity to the nearest prototype of each candidate: sum_r pi_r max_m <patch, p_rm>."""
    chosen = prototypes[candidates.index]  # (B, R, M, D)
    similarity = patches @ chosen.flatten(1, 2).transpose(1, 2)  # (B, N, R * M)
    best = similarity.unflatten(-1, chosen.shape[1:3]).amax(-1)  # (B, N, R)
    return (best * candidates.weight.unsqueeze(1)).sum(-1)


def select_top(
    patches: Float[Tensor, "B N D"], activation: Float[Tensor, "B N"], num_keep: int
) -> Selection:
    """Keep the `num_keep` most active patches, in descending order, ties to the lower index."""
    num_patches = patches.shape[1]
    if not 1 <= num_keep <= num_patches:
        raise ValueError(
            f"the number of kept patches must lie in 1..{num_patches} for this backbone, "
            f"got {num_keep} (TRAINER.SPOTLIGHTER.TOPK)"
        )
    order = activation.argsort(dim=-1, descending=True, stable=True)  # (B, N)
    keep, rest = order[:, :num_keep], order[:, num_keep:]
    # With every patch kept, the fused token is the mean of them all.
    rest = rest if num_keep < num_patches else order
    weight = activation.gather(1, keep).softmax(-1)  # (B, K)
    rest_weight = activation.gather(1, rest).softmax(-1)
    fused = (rest_weight.unsqueeze(1) @ gather_tokens(patches, rest)).squeeze(1)
    return Selection(keep, gather_tokens(patches, keep), weight, fused)


def whole_map(
    score: Float[Tensor, "B N"], positions: Int[Tensor, "B N"] | None, num_patches: int
) -> Float[Tensor, "B N2"]:
    """Scores of all N2 patches; nan where a pruned tower, by `positions`, left no patch."""
    if positions is None:
        return score
    empty = score.new_full((len(score), num_patches), torch.nan)
    return empty.scatter(1, positions, score)
