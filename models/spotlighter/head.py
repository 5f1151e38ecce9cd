"""Spotlighter: select tokens, meet prototypes level by level, add what they say to the logits.

Source: docs/method.md, sections 3 to 5.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.clip.blocks import as_parameter, gather_tokens, unit
from models.clip.image_tower import VisualTokens
from models.clip.prune import attention_score, standardise
from models.spotlighter import rank as ranking
from models.spotlighter import select as token_selection
from models.spotlighter.memory import Bank, PrototypeMemory
from models.spotlighter.options import HeadOptions
from models.spotlighter.rank import TextRows, match_one_to_one
from models.spotlighter.select import Candidates, Selection

HEAD_WIDTH = 64  # channels of one attention head, as in CLIP


def zero_linear(width_in: int, width_out: int) -> nn.Linear:
    """A linear layer that gives zero until it is trained."""
    layer = nn.Linear(width_in, width_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def patch_adapter(width: int) -> nn.Sequential:
    """`TOKENS: adapter`: two 1x1 layers on raw patches, zero at the start."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), zero_linear(width, width))


class FullHead(nn.Module):
    """Image side: cross-attention from prototypes to patches, then one transformer layer.

    Text side: a linear layer on [prototype; text].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        heads = max(1, width // HEAD_WIDTH)
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.image_out = zero_linear(width, width)
        self.text_out = zero_linear(2 * width, width)

    def image(
        self, kept: Float[Tensor, "B K D"], query: Float[Tensor, "B K D"]
    ) -> Float[Tensor, "B K D"]:
        """What to add to the kept patches of one level."""
        attended, _ = self.cross(query, kept, kept, need_weights=False)
        return self.image_out(self.layer(kept + attended))

    def text(
        self, prototypes: Float[Tensor, "C *M D"], text: Float[Tensor, "C D"]
    ) -> Float[Tensor, "C *M D"]:
        """What to add to the rows of some prototypes of each class."""
        every = text if prototypes.dim() == 2 else text.unsqueeze(1)
        return self.text_out(torch.cat([prototypes, every.expand_as(prototypes)], dim=-1))


class TextSide(NamedTuple):
    """All that needs no image: cached at evaluation. C classes, M prototypes."""

    text: Float[Tensor, "*T D"]
    rows: TextRows
    slots: Float[Tensor, "C M D"]
    """Patch prototypes in the space of patches; unit length."""
    bank: Bank


class HeadOutput(NamedTuple):
    """Logits of the global level, level 1, level 2 and both; an empty level is left out."""

    level_logits: dict[str, Float[Tensor, "B C"]]
    added: Float[Tensor, "B C"]
    """gate * sum_l v_l z_l, what the head adds to the base tuner's logits."""
    selection: Selection
    sample_wise: Float[Tensor, "B N"]
    semantic_wise: Float[Tensor, "B N"]


LEVELS = ("global", "1", "2", "both")


class SpotlighterHead(nn.Module):
    """The head, its 21 scalars (at the defaults) and its memory.

    Learned in `HEAD: lite`: mix 2, image_gain K, text_gain 3, pair K + 1, level 4, gate 1.
    """

    def __init__(
        self, class_names: list[str], anchors: Float[Tensor, "C D"], options: HeadOptions
    ) -> None:
        """Build a head with an empty bank.

        Args:
            class_names: C names.
            anchors: text0, unit-length features of "a photo of a {}.".
            options: see `HeadOptions`.

        Raises:
            ValueError: the options contradict themselves; all faults are named.
        """
        super().__init__()
        if faults := options.faults():
            raise ValueError("TRAINER.SPOTLIGHTER: " + "; ".join(faults))
        self.options = options
        self.class_names = list(class_names)
        self.register_buffer("anchors", anchors, persistent=False)
        self.memory = PrototypeMemory(
            class_names,
            anchors,
            num_prototypes=options.num_prototypes,
            momentum=options.momentum,
        )
        keep = options.num_keep
        self.mix = as_parameter([1.0, 1.0])  # image, text
        self.image_gain = as_parameter([0.5] * keep)
        self.text_gain = as_parameter([options.alpha] * 3)
        self.pair = as_parameter([0.0] * (keep + 1))
        self.level = as_parameter(list(options.levels))
        self.gate = as_parameter(1.0)
        width = anchors.shape[1]
        self.full = FullHead(width) if options.head == "full" else None
        self.adapter = patch_adapter(width) if options.tokens == "adapter" else None

    def read_bank(self, rows: Int[Tensor, " C"] | None = None) -> Bank:
        """The bank, resolved for this head's class list, or for some `rows` of it."""
        bank = self.memory.read(
            self.class_names,
            self.anchors,
            new=self.options.new,
            temperature=self.options.tau_inherit,
        )
        return bank if rows is None else Bank(*(entry[rows] for entry in bank))

    def text_side(self, text: Float[Tensor, "*T D"], bank: Bank) -> TextSide:
        """Move the prototypes of every class to its text, in the whitened spaces.

        Args:
            text: unit length; where it depends on the image the anchors stand in for it.
            bank: see `read_bank`; of the same classes.
        """
        memory = self.memory
        towards = (text if text.dim() == 2 else self.anchors) - memory.anchors.mean(0)
        of_text = (
            memory.cls_space.whiten_direction(towards),
            memory.patch_space.whiten_direction(towards),
        )
        globals_ = memory.cls_space(bank.global_prototypes)
        slots = memory.patch_space(bank.prototypes)
        prior = ranking.slot_prior(bank.mass, self.mix[1])
        rows = ranking.map_text(globals_, slots, of_text, gain=self.text_gain, prior=prior)
        if self.full is not None:
            rows = _add_full(self.full, rows, globals_, slots, of_text)
        rows = TextRows(unit(rows.cls), unit(rows.slots), unit(rows.fused), prior)
        return TextSide(text, rows, slots, bank)

    def patches(self, tokens: VisualTokens) -> Float[Tensor, "B N D"]:
        """The patches that are scored and kept: unit length, adapted where TOKENS says so."""
        if self.adapter is None:
            return tokens.patches  # type: ignore[return-value]  # they were asked for
        return unit(tokens.patches + self.adapter(tokens.patches))

    def select(
        self, tokens: VisualTokens, candidates: Candidates, side: TextSide
    ) -> tuple[Selection, Tensor, Tensor]:
        """Score every patch sample-wise and semantic-wise, keep the top K.

        Returns:
            The selection and the two standardised maps (B, N).
        """
        patches = self.patches(tokens)
        sample = standardise(self._sample_wise(tokens, patches, candidates, side))
        semantic = standardise(self._semantic_wise(patches, candidates, side))
        activation = {
            "both": lambda: sample + self.mix[0] * semantic,
            "sample": lambda: sample,
            "semantic": lambda: self.mix[0] * semantic,
            "random": lambda: standardise(torch.rand_like(sample)),
        }[self.options.select]()
        selection = token_selection.select_top(patches, activation, self.options.num_keep)
        if tokens.positions is not None:
            indices = tokens.positions.gather(1, selection.indices)
            selection = selection._replace(indices=indices)
        return selection, sample, semantic

    def _sample_wise(
        self, tokens: VisualTokens, patches: Tensor, candidates: Candidates, side: TextSide
    ) -> Float[Tensor, "B N"]:
        if self.options.score == "attention":
            seen = tokens.cls_attention
            return attention_score(seen)  # type: ignore[arg-type]  # as above
        text = side.text if side.text.dim() == 2 else self.anchors
        return token_selection.similarity_score(patches, text, candidates)

    def _semantic_wise(
        self, patches: Tensor, candidates: Candidates, side: TextSide
    ) -> Float[Tensor, "B N"]:
        """Does a patch look like something that is kept, and like one of the likely classes?

        The second counts as far as the bank knows them.
        """
        memory = self.memory
        any_class = standardise(patches @ memory.direction)
        likely = token_selection.semantic_score(memory.patch_space(patches), side.slots, candidates)
        known = memory.calibrated * token_selection.mix_candidates(candidates, side.bank.active)
        return any_class + known.unsqueeze(1) * standardise(likely)

    def image_rows(
        self, selection: Selection, candidates: Candidates, side: TextSide
    ) -> Float[Tensor, "B K1 D"]:
        """R_I of ranks 1..K and of the fused token; unit length, in the space of patches."""
        kept = self.memory.patch_space(selection.tokens)
        queries = unit(token_selection.mix_candidates(candidates, side.slots))
        match = match_one_to_one(kept @ queries.transpose(1, 2))
        queries = gather_tokens(queries, match)
        rows = []
        for part in ranking.levels(self.options.num_keep, self.options.level1):
            row = ranking.map_image(
                kept[:, part],
                queries[:, part],
                gain=self.image_gain[part],
                temperature=self.options.tau_attn,
            )
            if self.full is not None:
                row = row + self.full.image(kept[:, part], queries[:, part])
            rows.append(row)
        fused = self.memory.patch_space(selection.fused)
        return unit(torch.cat([*rows, fused.unsqueeze(1)], dim=1))

    def forward(
        self, tokens: VisualTokens, side: TextSide, base_logits: Float[Tensor, "B C"]
    ) -> HeadOutput:
        """What the kept tokens say.

        Args:
            tokens: of the image tower, unit length.
            side: see `text_side`.
            base_logits: of the base tuner, scale included.
        """
        options, active = self.options, side.bank.active
        of_cls = self.memory.cls_space(tokens.cls)
        z = {"global": options.sharpness * of_cls @ side.rows.cls.T}
        said = base_logits + self.gate * self.level[0] * z["global"] * active
        candidates = token_selection.candidate_classes(said, options.num_candidates)
        selection, sample, semantic = self.select(tokens, candidates, side)
        z |= self.patch_logits(self.image_rows(selection, candidates, side), selection, side.rows)
        mixed = sum(v * z[name] for name, v in zip(LEVELS, self.level, strict=True) if name in z)
        return HeadOutput(z, self.gate * mixed * active, selection, sample, semantic)

    def patch_logits(
        self, image: Float[Tensor, "B K1 D"], selection: Selection, rows: TextRows
    ) -> dict[str, Float[Tensor, "B C"]]:
        """Logits z of level 1, level 2 and both, in the order of `LEVELS`."""
        weight = selection.weight
        weight = torch.cat([weight, weight.mean(-1, keepdim=True)], dim=-1)  # (B, K + 1)
        weight = ranking.pair_weight(self.pair, weight)
        parts = ranking.levels(self.options.num_keep, self.options.level1)
        fits = [
            ranking.slot_similarity(image[:, part], slots, rows.prior, self.options.tau_proto)
            for part, slots in zip(parts, rows.slots, strict=False)
        ]
        fused = image[:, -1:] @ rows.fused.T  # (B, 1, C)
        sharpness = self.options.sharpness
        found = {
            name: sharpness * ranking.weigh_pairs(fit, weight[:, part])
            for name, fit, part in zip(("1", "2"), fits, parts, strict=False)
        }
        every = torch.cat([*fits, fused], dim=1)
        return found | {"both": sharpness * ranking.weigh_pairs(every, weight)}


def _add_full(
    full: FullHead,
    rows: TextRows,
    globals_: Tensor,
    slots: Tensor,
    of_text: tuple[Tensor, Tensor],
) -> TextRows:
    """What the learned layers add to the text rows."""
    of_cls, of_patches = of_text
    return rows._replace(
        cls=rows.cls + full.text(globals_, of_cls),
        slots=rows.slots + full.text(slots, of_patches),
        fused=rows.fused + full.text(slots.mean(1), of_patches),
    )
