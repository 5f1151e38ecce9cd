"""The head: from the tokens of an image to the logits that it adds. docs/method.md, section 5.

Select patches, rank them, compare them with the prototypes of each class, weigh the levels.
B images, C classes, N patches, K kept, M prototypes, D joint width.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.clip.blocks import as_parameter, gather_tokens, unit
from models.clip.image_tower import VisualTokens
from models.clip.prune import standardise
from models.spotlighter import rank, select
from models.spotlighter.memory import Bank, PrototypeMemory
from models.spotlighter.options import HeadOptions
from models.spotlighter.rank import TextRows
from models.spotlighter.select import Candidates, ScoreInput, Selection

HEAD_WIDTH = 64  # channels of one attention head, as in CLIP
LEVELS = ("global", "1", "2", "both")


class TextSide(NamedTuple):
    """What the head computes without an image; kept while evaluating."""

    text: Float[Tensor, "*T D"]  # the base's text features
    rows: TextRows
    bank: Bank  # of the same classes; its prototypes in the whitened spaces, unit length


class HeadOutput(NamedTuple):
    """The head's logits for a batch, and the selection they come from."""

    level_logits: dict[str, Float[Tensor, "B C"]]  # z of each of `LEVELS` that has patches
    added: Float[Tensor, "B C"]  # gate * sum_l v_l z_l, added to the base's logits
    selection: Selection
    sample_wise: Float[Tensor, "B N"]
    semantic_wise: Float[Tensor, "B N"]


class SpotlighterHead(nn.Module):
    """The head, its 21 scalars (at the defaults) and its memory.

    Learned in `HEAD: lite`: mix 2, image_gain K, text_gain 3, pair K + 1, level 4, gate 1.
    """

    def __init__(
        self, class_names: list[str], anchors: Float[Tensor, "C D"], options: HeadOptions
    ) -> None:
        """An empty bank; `anchors` are text0, of "a photo of a {}."; ValueError for bad options."""
        super().__init__()
        if problems := options.problems():
            raise ValueError("TRAINER.SPOTLIGHTER: " + "; ".join(problems))
        self.options = options
        self.class_names = list(class_names)
        self.register_buffer("anchors", anchors, persistent=False)
        self.memory = PrototypeMemory(
            class_names, anchors, num_prototypes=options.prototypes, momentum=options.momentum
        )
        keep, width = options.topk, anchors.shape[1]
        self.mix = as_parameter([1.0, 1.0])  # image, text
        self.image_gain = as_parameter([0.5] * keep)
        self.text_gain = as_parameter([options.alpha] * 3)
        self.pair = as_parameter([0.0] * (keep + 1))
        self.level = as_parameter(list(options.levels))
        self.gate = as_parameter(1.0)
        self.full = FullHead(width) if options.head == "full" else None
        self.adapter: nn.Module | None = None
        if options.tokens == "adapter":
            first, last = nn.Linear(width, width), zero_linear(width, width)
            self.adapter = nn.Sequential(first, nn.ReLU(), last)

    def text_side(
        self, text: Float[Tensor, "*T D"], classes: Int[Tensor, " C"] | None = None
    ) -> TextSide:
        """Move the prototypes of every class towards its text, in the whitened spaces.

        Where `text` (unit length) depends on the image, the anchors stand in for it. `classes` are
        the positions of its classes among the head's; None for all.
        """
        memory, options = self.memory, self.options
        bank = memory.read(
            self.class_names, self.anchors, new=options.new, temperature=options.tau_inherit
        )
        if classes is not None:
            bank = Bank(*(entry[classes] for entry in bank))
        towards = (text if text.dim() == 2 else self.anchors) - memory.anchors.mean(0)
        of_cls = memory.cls_space.whiten_direction(towards)
        of_patches = memory.patch_space.whiten_direction(towards)
        cls, patches = memory.cls_space(bank.global_prototypes), memory.patch_space(bank.prototypes)
        bank = bank._replace(global_prototypes=cls, prototypes=patches)
        prior = rank.slot_prior(bank.mass, self.mix[1])
        rows = rank.map_text(cls, patches, (of_cls, of_patches), gain=self.text_gain, prior=prior)
        if self.full is not None:
            rows = self.full.add_to_text(rows, bank, (of_cls, of_patches))
        rows = TextRows(unit(rows.cls), unit(rows.slots), unit(rows.fused), prior)
        return TextSide(text, rows, bank)

    def forward(
        self, tokens: VisualTokens, side: TextSide, base_logits: Float[Tensor, "B C"]
    ) -> HeadOutput:
        """Select patches, and turn them into logits; `tokens` are unit length."""
        options, active = self.options, side.bank.active
        of_cls = self.memory.cls_space(tokens.cls)
        z = {"global": options.sharpness * of_cls @ side.rows.cls.T}
        of_class_token = base_logits + self.gate * self.level[0] * z["global"] * active
        candidates = select.candidate_classes(of_class_token, options.candidates)
        selection, sample, semantic = self.select_patches(tokens, candidates, side)
        z |= self.patch_logits(self.image_rows(selection, candidates, side), selection, side.rows)
        mixed = sum(v * z[name] for name, v in zip(LEVELS, self.level, strict=True) if name in z)
        return HeadOutput(z, self.gate * mixed * active, selection, sample, semantic)

    def patches(self, tokens: VisualTokens) -> Float[Tensor, "B N D"]:
        """The patches that are scored and kept: unit length, adapted where TOKENS says so."""
        if self.adapter is None:
            return tokens.patches  # type: ignore[return-value]  # they were asked for
        return unit(tokens.patches + self.adapter(tokens.patches))

    def select_patches(
        self, tokens: VisualTokens, candidates: Candidates, side: TextSide
    ) -> tuple[Selection, Float[Tensor, "B N"], Float[Tensor, "B N"]]:
        """The top K patches, the sample-wise and the semantic-wise score of all."""
        options, patches = self.options, self.patches(tokens)
        text = side.text if side.text.dim() == 2 else self.anchors
        attention: Any = tokens.cls_attention  # was asked for, with the patches
        inputs = ScoreInput(patches, attention, text, candidates)
        sample = standardise(select.SCORES[options.score](inputs))
        semantic = standardise(self._semantic_wise(patches, candidates, side))
        activation = select.SELECTS[options.select](sample, self.mix[0] * semantic)
        selection = select.select_top(patches, activation, options.topk)
        if tokens.positions is not None:
            selection = selection._replace(indices=tokens.positions.gather(1, selection.indices))
        return selection, sample, semantic

    def _semantic_wise(
        self, patches: Tensor, candidates: Candidates, side: TextSide
    ) -> Float[Tensor, "B N"]:
        """How much a patch looks like attended ones, plus how much it looks like a likely class."""
        memory, bank = self.memory, side.bank
        any_class = standardise(patches @ memory.direction)
        likely = select.semantic_score(memory.patch_space(patches), bank.prototypes, candidates)
        # The second part is weighted by the share of the candidates that have prototypes.
        known = memory.calibrated * select.mix_candidates(candidates, bank.active)
        return any_class + known.unsqueeze(1) * standardise(likely)

    def image_rows(
        self, selection: Selection, candidates: Candidates, side: TextSide
    ) -> Float[Tensor, "B K1 D"]:
        """R_I of ranks 1..K and of the fused token; unit length, in the space of patches."""
        kept = self.memory.patch_space(selection.tokens)
        queries = unit(select.mix_candidates(candidates, side.bank.prototypes))
        queries = gather_tokens(queries, rank.match_one_to_one(kept @ queries.transpose(1, 2)))
        rows = []
        for part in rank.levels(self.options.topk, self.options.level1):
            x, q, gain = kept[:, part], queries[:, part], self.image_gain[part]
            row = rank.map_image(x, q, gain=gain, temperature=self.options.tau_attn)
            rows.append(row if self.full is None else row + self.full.image(x, q))
        fused = self.memory.patch_space(selection.fused)
        return unit(torch.cat([*rows, fused.unsqueeze(1)], dim=1))

    def patch_logits(
        self, image: Float[Tensor, "B K1 D"], selection: Selection, rows: TextRows
    ) -> dict[str, Float[Tensor, "B C"]]:
        """Logits z of level 1, level 2 and both, in the order of `LEVELS`."""
        options, weight = self.options, selection.weight
        weight = torch.cat([weight, weight.mean(-1, keepdim=True)], dim=-1)  # (B, K + 1)
        weight = F.softplus(self.pair) * weight
        fits, z = [], {}
        parts = rank.levels(options.topk, options.level1)
        for name, part, slots in zip(("1", "2"), parts, rows.slots, strict=False):
            fit = rank.slot_similarity(image[:, part], slots, rows.prior, options.tau_proto)
            fits.append(fit)
            z[name] = options.sharpness * rank.weigh_pairs(fit, weight[:, part])
        every = torch.cat([*fits, image[:, -1:] @ rows.fused.T], dim=1)  # (B, K + 1, C)
        return z | {"both": options.sharpness * rank.weigh_pairs(every, weight)}


def zero_linear(width_in: int, width_out: int) -> nn.Linear:
    """A linear layer that gives zero until it is trained."""
    layer = nn.Linear(width_in, width_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class FullHead(nn.Module):
    """`HEAD: full`: learned layers that add to the image rows and to the text rows.

    Image side: cross-attention from prototypes to patches, then one transformer layer.
    Text side: a linear layer on [prototype; text]. Both add zero until they are trained.
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

    def add_to_text(self, rows: TextRows, bank: Bank, text: tuple[Tensor, Tensor]) -> TextRows:
        """Text rows with what the layers add to them; bank and text in the whitened spaces."""
        of_cls, of_patches = text

        def added(prototypes: Tensor, beside: Tensor) -> Tensor:
            return self.text_out(torch.cat([prototypes, beside.expand_as(prototypes)], dim=-1))

        return rows._replace(
            cls=rows.cls + added(bank.global_prototypes, of_cls),
            slots=rows.slots + added(bank.prototypes, of_patches.unsqueeze(1)),
            fused=rows.fused + added(bank.prototypes.mean(1), of_patches),
        )
