"""The head: from the tokens of an image to logits of base and bank. docs/method.md, section 5.

Select patches, rank them, compare them with the prototypes of each class, weigh the levels.
B images, C classes, N patches, K kept, M prototypes, D joint width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.clip.blocks import as_parameter, freeze, gather_tokens, unit
from models.clip.image_tower import VisualTokens
from models.clip.prune import standardise
from models.spotlighter import CHOICES, LEVELS, rank, select
from models.spotlighter.memory import Bank, PrototypeMemory
from models.spotlighter.options import HeadOptions
from models.spotlighter.rank import TextRows
from models.spotlighter.select import Candidates, ScoreInput, Selection


class Weights(NamedTuple):
    """How the base's logits and the levels are weighed, class by class."""

    candidates: Float[Tensor, "2 C"]  # of base and global level, where they name likely classes
    parts: Float[Tensor, "5 C"]  # of the base and of each of `LEVELS`
    offset: Float[Tensor, " C"]  # of classes without pictures, beside others that have some


class TextSide(NamedTuple):
    """What the head computes without an image; kept while evaluating."""

    text: Float[Tensor, "*T D"]  # the base's text features
    rows: TextRows
    bank: Bank  # of the same classes; its prototypes in the whitened spaces, unit length
    memory: PrototypeMemory
    known: Bool[Tensor, " C"]  # whether the class has prototypes, of its own or inherited
    weights: Weights


class HeadOutput(NamedTuple):
    """The logits of a batch, and the selection they come from."""

    logits: Float[Tensor, "B C"]  # w_b z_b + sum_l v_l z_l
    parts: Float[Tensor, "5 B C"]  # z_b, the base's logits, and z of each of `LEVELS`
    selection: Selection
    sample_wise: Float[Tensor, "B N"]
    semantic_wise: Float[Tensor, "B N"]


class SpotlighterHead(nn.Module):
    """The head, its 21 scalars (at the defaults) and its memory.

    mix 2, image_gain K, text_gain 3, pair K + 1, level 4, base 1. `evidence.fill_and_fit` fits
    base and level; the others keep their starts. No gradient reaches any of them.
    """

    def __init__(
        self, class_names: list[str], anchors: Float[Tensor, "C D"], options: HeadOptions
    ) -> None:
        """An empty bank; `anchors` are text0, of "a photo of a {}."; ValueError for bad options.

        Until it is fitted, the logits are the base's.
        """
        super().__init__()
        if problems := options.problems():
            raise ValueError("TRAINER.SPOTLIGHTER: " + "; ".join(problems))
        self.options = options
        self.class_names = list(class_names)
        self.register_buffer("anchors", anchors, persistent=False)
        self.memory = PrototypeMemory(class_names, anchors, num_prototypes=options.prototypes)
        self.mix = as_parameter([1.0, 1.0])  # image, text
        self.image_gain = as_parameter([0.5] * options.topk)
        self.text_gain = as_parameter([options.alpha] * 3)
        self.pair = as_parameter([0.0] * (options.topk + 1))
        self.base = as_parameter(1.0)
        self.level = as_parameter([0.0] * len(LEVELS))
        alone = torch.tensor([1.0, *[0.0] * len(LEVELS)])
        self.register_buffer("candidates", alone[:2].clone())
        # Of classes without pictures, a row for each of `CHOICES`; that of "off" stays as it is.
        self.register_buffer("new_candidates", alone[:2].repeat(len(CHOICES), 1))
        self.register_buffer("new_parts", alone.repeat(len(CHOICES), 1))
        self.register_buffer("new_offset", torch.zeros(len(CHOICES)))
        self.register_buffer("new_kind", torch.tensor(0))  # what NEW: auto stands for
        freeze(self)

    def text_side(
        self, text: Float[Tensor, "*T D"], classes: Int[Tensor, " C"] | None = None
    ) -> TextSide:
        """The text side of the head's classes, or of those at the positions `classes`."""
        names, anchors = self.class_names, self.anchors
        if classes is not None:
            names, anchors = [names[c] for c in classes.tolist()], anchors[classes]
        return self.side_of(self.memory, names, anchors, text, self.options.new)

    def side_of(
        self, memory: PrototypeMemory, class_names: list[str], anchors: Float[Tensor, "C D"],
        text: Float[Tensor, "*T D"], new: str,
    ) -> TextSide:
        """Move the prototypes of every class towards its text, in the whitened spaces of a memory.

        Where `text` (unit length) depends on the image, the anchors stand in for it. `new` is one
        of `NEW_CLASSES`.
        """
        choice = CHOICES.index(new) if new in CHOICES else int(self.new_kind)
        bank = memory.read(
            class_names, anchors, new=CHOICES[choice], temperature=self.options.tau_inherit
        )
        weights = self.weights(bank.seen, choice)
        towards = (text if text.dim() == 2 else anchors) - memory.anchors.mean(0)
        of_cls = memory.cls_space.whiten_direction(towards)
        of_patches = memory.patch_space.whiten_direction(towards)
        cls, patches = memory.cls_space(bank.global_prototypes), memory.patch_space(bank.prototypes)
        bank = bank._replace(global_prototypes=cls, prototypes=patches)
        prior = rank.slot_prior(bank.mass, self.mix[1])
        rows = rank.map_text(cls, patches, (of_cls, of_patches), gain=self.text_gain, prior=prior)
        rows = TextRows(unit(rows.cls), unit(rows.slots), unit(rows.fused), prior)
        known = memory.filled & (bank.seen | (new != "off"))
        return TextSide(text, rows, bank, memory, known, weights)

    def weights(self, seen: Bool[Tensor, " C"], choice: int) -> Weights:
        """The weights of each class: of one with pictures, or without, by one of `CHOICES`."""
        own = torch.cat([self.base.view(1), self.level])
        candidates, parts = self.new_candidates[choice], self.new_parts[choice]
        is_mixed = seen.any() & ~seen.all()
        return Weights(
            torch.where(seen, self.candidates[:, None], candidates[:, None]),
            torch.where(seen, own[:, None], parts[:, None]),
            torch.where(is_mixed & ~seen, self.new_offset[choice], 0.0),
        )

    def forward(
        self, tokens: VisualTokens, side: TextSide, base_logits: Float[Tensor, "B C"]
    ) -> HeadOutput:
        """Select patches, and turn them into logits; `tokens` are unit length."""
        z_global = side.memory.cls_space(tokens.cls) @ side.rows.cls.T
        of_base, of_global = side.weights.candidates
        of_class_token = of_base * base_logits + of_global * z_global
        candidates = select.candidate_classes(of_class_token, self.options.candidates)
        selection, sample, semantic = self.select_patches(tokens, candidates, side)
        z = self.patch_logits(self.image_rows(selection, candidates, side), selection, side.rows)
        empty = torch.zeros_like(z_global)
        levels = [z_global, *(z.get(name, empty) for name in LEVELS[1:])]
        parts = torch.stack([base_logits, *levels])
        # In this order: with the weights 1, 0, 0, 0, 0 it is the base's logits to the bit.
        logits = side.weights.offset + side.weights.parts[0] * base_logits
        for weight, level in zip(side.weights.parts[1:], levels, strict=True):
            logits = logits + weight * level
        return HeadOutput(logits, parts, selection, sample, semantic)

    def select_patches(
        self, tokens: VisualTokens, candidates: Candidates, side: TextSide
    ) -> tuple[Selection, Float[Tensor, "B N"], Float[Tensor, "B N"]]:
        """The top K patches, the sample-wise and the semantic-wise score of all."""
        patches, attention = asked_for(tokens)
        text = side.text if side.text.dim() == 2 else self.anchors
        inputs = ScoreInput(patches, attention, text, candidates)
        sample = standardise(select.SCORES[self.options.score](inputs))
        semantic = standardise(self._semantic_wise(patches, candidates, side))
        return self.keep(tokens, sample, semantic), sample, semantic

    def keep(
        self, tokens: VisualTokens, sample: Float[Tensor, "B N"], semantic: Float[Tensor, "B N"]
    ) -> Selection:
        """The top K patches by two standardised scores."""
        patches, _ = asked_for(tokens)
        activation = select.SELECTS[self.options.select](sample, self.mix[0] * semantic)
        selection = select.select_top(patches, activation, self.options.topk)
        if tokens.positions is not None:
            selection = selection._replace(indices=tokens.positions.gather(1, selection.indices))
        return selection

    def keep_for_bank(
        self, tokens: VisualTokens, direction: Float[Tensor, " D"],
        base_logits: Float[Tensor, "B C"], text: Float[Tensor, "C D"],
    ) -> Selection:
        """The top K patches of training pictures, before there are prototypes."""
        patches, attention = asked_for(tokens)
        likely = select.candidate_classes(base_logits, self.options.candidates)
        inputs = ScoreInput(patches, attention, text, likely)
        sample = standardise(select.SCORES[self.options.score](inputs))
        return self.keep(tokens, sample, standardise(patches @ direction))

    def _semantic_wise(
        self, patches: Tensor, candidates: Candidates, side: TextSide
    ) -> Float[Tensor, "B N"]:
        """How much a patch looks like attended ones, plus how much it looks like a likely class."""
        memory, bank = side.memory, side.bank
        any_class = standardise(patches @ memory.direction)
        likely = select.semantic_score(memory.patch_space(patches), bank.prototypes, candidates)
        # The second part is weighted by the share of the candidates that have prototypes.
        known = select.mix_candidates(candidates, side.known.to(patches.dtype))
        return any_class + known.unsqueeze(1) * standardise(likely)

    def image_rows(
        self, selection: Selection, candidates: Candidates, side: TextSide
    ) -> Float[Tensor, "B K1 D"]:
        """R_I of ranks 1..K and of the fused token; unit length, in the space of patches."""
        space = side.memory.patch_space
        kept = space(selection.tokens)
        queries = unit(select.mix_candidates(candidates, side.bank.prototypes))
        queries = gather_tokens(queries, rank.match_one_to_one(kept @ queries.transpose(1, 2)))
        rows = []
        for part in rank.levels(self.options.topk, self.options.level1):
            x, q, gain = kept[:, part], queries[:, part], self.image_gain[part]
            rows.append(rank.map_image(x, q, gain=gain, temperature=self.options.tau_attn))
        fused = space(selection.fused)
        return unit(torch.cat([*rows, fused.unsqueeze(1)], dim=1))

    def patch_logits(
        self, image: Float[Tensor, "B K1 D"], selection: Selection, rows: TextRows
    ) -> dict[str, Float[Tensor, "B C"]]:
        """The logits z of level 1, of level 2 (unless it is empty) and of both."""
        options, weight = self.options, selection.weight
        weight = torch.cat([weight, weight.mean(-1, keepdim=True)], dim=-1)  # (B, K + 1)
        weight = F.softplus(self.pair) * weight
        fits, z = [], {}
        parts = rank.levels(options.topk, options.level1)
        for name, part, slots in zip(("1", "2"), parts, rows.slots, strict=False):
            fit = rank.slot_similarity(image[:, part], slots, rows.prior, options.tau_proto)
            fits.append(fit)
            z[name] = rank.weigh_pairs(fit, weight[:, part])
        every = torch.cat([*fits, image[:, -1:] @ rows.fused.T], dim=1)  # (B, K + 1, C)
        return z | {"both": rank.weigh_pairs(every, weight)}


def asked_for(tokens: VisualTokens) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B N"]]:
    """Patches and attention of tokens for which a patch path was asked."""
    patches, attention = tokens.patches, tokens.cls_attention
    assert patches is not None
    assert attention is not None
    return patches, attention
