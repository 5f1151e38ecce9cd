"""Spotlighter: select tokens, meet prototypes rank by rank, add what they say to the logits.

Source: docs/method.md, sections 3 to 5.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models import ranking, token_selection
from models.blocks import as_parameter, unit
from models.full_head import FullHead, patch_adapter
from models.head_options import HeadOptions
from models.inheritance import Bank
from models.matching import match_one_to_one
from models.prototype_memory import PrototypeMemory
from models.token_selection import Candidates, Selection, centre
from models.visual_encoder import VisualTokens


class TextSide(NamedTuple):
    """All that needs no image: cached at evaluation. C classes, K kept, M prototypes."""

    text: Float[Tensor, "*T D"]
    rows: Float[Tensor, "*T K2 D"]
    """R_T of ranks 0 (global), 1..K, K + 1 (fused); unit length."""
    slots: Float[Tensor, "*T M D"]
    """Patch prototypes, sorted by the text's activation."""
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
        self.text_gain = as_parameter([1.0, options.alpha, options.alpha])
        self.pair = as_parameter([0.0] * (keep + 1))
        self.level = as_parameter([1.0, 1 / 3, 1 / 3, 1 / 3])
        self.gate = as_parameter(0.0)
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
        """Rank the slots of every class and map the text features.

        Args:
            text: unit length.
            bank: see `read_bank`; of the same classes.
        """
        o = self.options
        slots = ranking.rank_slots(
            text, bank.prototypes, bank.mass, mix=self.mix[1], temperature=o.tau_proto
        )
        rows = ranking.map_text(
            text,
            bank.global_prototypes,
            slots,
            gain=self.text_gain,
            level1=o.level1,
            num_keep=o.num_keep,
        )
        if self.full is not None:
            rows = rows + self.full.text(text, bank, slots, o.num_keep)
        return TextSide(text, unit(rows), slots.prototypes, bank)

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
        patches, mean = self.patches(tokens), self.memory.patch_mean
        if self.options.score == "attention":
            seen = tokens.cls_attention
            sample = token_selection.attention_score(seen)  # type: ignore[arg-type]  # as above
        else:
            text = side.text if side.text.dim() == 2 else self.anchors
            sample = token_selection.similarity_score(patches, text, candidates)
        semantic = token_selection.semantic_score(
            centre(patches, mean), centre(side.bank.prototypes, mean), candidates
        )
        sample = token_selection.standardise(sample)
        semantic = token_selection.standardise(semantic)
        activation = sample + self.mix[0] * semantic
        selection = token_selection.select_top(patches, activation, self.options.num_keep)
        if tokens.positions is not None:
            indices = tokens.positions.gather(1, selection.indices)
            selection = selection._replace(indices=indices)
        return selection, sample, semantic

    def image_rows(
        self, selection: Selection, candidates: Candidates, side: TextSide
    ) -> Float[Tensor, "B K1 D"]:
        """R_I of ranks 1..K and of the fused token; unit length."""
        kept, mean = selection.tokens, self.memory.patch_mean
        image_prototypes = unit(token_selection.mix_candidates(candidates, self._slots(side)))
        queries, keys = centre(image_prototypes, mean), centre(kept, mean)
        match = match_one_to_one(keys @ queries.transpose(1, 2))
        queries = token_selection.gather_tokens(queries, match)
        rows = []
        for part in ranking.levels(self.options.num_keep, self.options.level1):
            row = ranking.map_image(
                kept[:, part],
                queries[:, part],
                keys[:, part],
                gain=self.image_gain[part],
                temperature=self.options.tau_attn,
            )
            if self.full is not None:
                row = row + self.full.image(kept[:, part], queries[:, part])
            rows.append(row)
        return unit(torch.cat([*rows, selection.fused.unsqueeze(1)], dim=1))

    def _slots(self, side: TextSide) -> Tensor:
        """Slots in rank order, (C, M, D); those of the anchors where text depends on the image."""
        if side.slots.dim() == 3:
            return side.slots
        return side.bank.prototypes

    def forward(
        self,
        tokens: VisualTokens,
        side: TextSide,
        base_logits: Float[Tensor, "B C"],
        scale: Float[Tensor, ""],
    ) -> HeadOutput:
        """What the kept tokens say.

        Args:
            tokens: of the image tower, unit length.
            side: see `text_side`.
            base_logits: of the base tuner, scale included.
            scale: exp(logit_scale).
        """
        candidates = token_selection.candidate_classes(base_logits, self.options.num_candidates)
        selection, sample, semantic = self.select(tokens, candidates, side)
        image = self.image_rows(selection, candidates, side)
        z = self.level_logits(tokens.cls, image, selection, side.rows, scale)
        mixed = sum(v * z[name] for name, v in zip(LEVELS, self.level, strict=True) if name in z)
        added = self.gate * mixed * side.bank.active
        return HeadOutput(z, added, selection, sample, semantic)

    def level_logits(
        self, cls: Tensor, image: Tensor, selection: Selection, text_rows: Tensor, scale: Tensor
    ) -> dict[str, Float[Tensor, "B C"]]:
        """Logits z of the global level, level 1, level 2 and both, in the order of `LEVELS`."""
        weight = selection.weight
        weight = torch.cat([weight, weight.mean(-1, keepdim=True)], dim=-1)  # (B, K + 1)
        weight = ranking.pair_weight(self.pair, weight)
        ranks = text_rows[..., 1:, :]  # (*T, K + 1, D)

        def z(part: slice) -> Tensor:
            rows = (image[:, part], ranks[..., part, :], weight[:, part])
            return scale * ranking.pair_logits(*rows)

        parts = ranking.levels(self.options.num_keep, self.options.level1)
        one = cls.new_ones(len(cls), 1)
        found = {
            "global": scale * ranking.pair_logits(cls.unsqueeze(1), text_rows[..., :1, :], one)
        }
        found |= {name: z(part) for name, part in zip(("1", "2"), parts, strict=False)}
        found["both"] = z(slice(None))
        return found
