"""Learned context + class names -> prompt embeddings (CoOp)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.prompts import Layout, Prompts, common_prefix, split_prompts
from models.tokenizer import Tokens, count_tokens, normalise_name, tokenize

POSITIONS = ("end", "middle", "front")


class PromptLearner(nn.Module):
    """Context vectors that stand where the words of a prompt would stand.

    Learned: `ctx` (n_ctx, W), or (C, n_ctx, W) when class-specific. All else follows from the
    class names and is not saved.

    Source: CoOp (Zhou et al., IJCV 2022), section 3.2, https://arxiv.org/abs/2109.01134
    """

    def __init__(
        self,
        class_names: list[str],
        token_embedding: nn.Embedding,
        *,
        n_ctx: int = 16,
        ctx_init: str = "",
        learned_words: int | None = None,
        csc: bool = False,
        class_token_position: str = "end",
        context_length: int = 77,
    ) -> None:
        """Build the prompts of a class list.

        Args:
            class_names: C names; underscores count as spaces.
            token_embedding: CLIP's own, frozen.
            n_ctx: number of context vectors; ignored where `ctx_init` is given.
            ctx_init: words to start from; their number is then the number of context vectors.
            learned_words: learn only the first so many of the words; the others stay as they are.
            csc: one context a class instead of a shared one; `ctx_init` is then ignored.
            class_token_position: where the class name stands: "end", "middle" or "front".
            context_length: positions of the text tower (77 in CLIP).

        Raises:
            ValueError: for an unknown position, or a context that leaves no room for a name.
        """
        super().__init__()
        if class_token_position not in POSITIONS:
            raise ValueError(
                f"class_token_position must be one of {', '.join(POSITIONS)}, "
                f"got {class_token_position!r}"
            )
        words = normalise_name(ctx_init)
        use_words = bool(words) and not csc
        if use_words:
            n_ctx = _number_of_words(words, learned_words)
        if not 1 <= n_ctx <= context_length - 4:  # SOS, one token of a name, ".", EOS
            raise ValueError(
                f"the number of context vectors must lie in 1..{context_length - 4}, got {n_ctx}"
            )
        prefix = words if use_words else " ".join(["X"] * n_ctx)
        names = [normalise_name(name) for name in class_names]
        tokens = tokenize([f"{prefix} {name}." for name in names], context_length)
        device = token_embedding.weight.device
        with torch.no_grad():
            embedding = token_embedding(tokens.ids.to(device))  # (C, L, W)
        shape = (len(names), n_ctx) if csc else (n_ctx,)
        start = (
            embedding[0, 1 : 1 + n_ctx].float().clone()
            if use_words
            else torch.empty(*shape, embedding.shape[-1], device=device).normal_(std=0.02)
        )
        self.ctx = nn.Parameter(start)
        self.n_ctx, self.csc = n_ctx, csc
        self.register_buffer("token_prefix", embedding[:, :1], persistent=False)
        self.register_buffer("token_suffix", embedding[:, 1 + n_ctx :], persistent=False)
        order = None
        if class_token_position != "end":
            lengths = [count_tokens(name) for name in names]
            order = _slot_order(tokens, lengths, n_ctx, class_token_position).to(device)
        self.register_buffer("order", order, persistent=False)
        self._lay_out(tokens, embedding)

    def _lay_out(self, tokens: Tokens, embedding: Float[Tensor, "C L W"]) -> None:
        """Find out how many tokens all classes begin with: context included, else SOS alone."""
        shared = self.order is None and not self.csc
        self.num_prefix = common_prefix(tokens.ids, tokens.eos, None if shared else 1)
        self.layout = Layout(tokens.eos + 1 - self.num_prefix).to(embedding.device)
        split = split_prompts(embedding, self.layout, self.num_prefix)
        self.register_buffer("tail", split.tail if shared else None, persistent=False)

    def forward(self) -> Prompts:
        """The prompts of all classes."""
        if self.tail is None:
            return split_prompts(self.whole(), self.layout, self.num_prefix)
        return self.with_context(self.ctx.unsqueeze(0))

    def with_context(self, ctx: Float[Tensor, "G M W"]) -> Prompts:
        """The prompts of all classes with each of G contexts, before the class name."""
        words = self.token_suffix[:1, : self.num_prefix - 1 - self.n_ctx]  # (1, P - 1 - M, W)
        parts = [self.token_prefix[:1], ctx.to(words.dtype), words]
        prefix = torch.cat([part.expand(ctx.shape[0], -1, -1) for part in parts], dim=1)
        return Prompts(prefix, self.tail, self.layout)

    def whole(self) -> Float[Tensor, "C L W"]:
        """Whole prompts: [SOS, ctx, name, ".", EOS, ...] or the chosen order."""
        ctx = self.ctx if self.csc else self.ctx.expand(len(self.token_prefix), -1, -1)
        parts = [self.token_prefix, ctx.to(self.token_prefix.dtype), self.token_suffix]
        prompts = torch.cat(parts, dim=1)  # (C, L, W)
        if self.order is None:
            return prompts
        return prompts.gather(1, self.order[..., None].expand_as(prompts))


def _number_of_words(words: str, learned: int | None) -> int:
    """How many words of an initial context are learned: all of them, or the first `learned`."""
    total = count_tokens(words)
    if learned is not None and not 1 <= learned <= total:
        raise ValueError(
            f"{learned} context vectors cannot start from the {total} tokens of {words!r}; "
            "take fewer (N_CTX) or other words (CTX_INIT)"
        )
    return total if learned is None else learned


def _slot_order(tokens: Tokens, name_lengths: list[int], n_ctx: int, position: str) -> Tensor:
    """For each prompt (C, L): which slot of [SOS, ctx, name, rest] stands at each position."""
    length = tokens.ids.shape[1]
    before = n_ctx // 2 if position == "middle" else 0  # context vectors before the name
    rows = []
    for name_length in name_lengths:
        end = min(1 + n_ctx + name_length, length)
        name = list(range(1 + n_ctx, end))
        ctx = list(range(1, 1 + n_ctx))
        rows.append([0, *ctx[:before], *name, *ctx[before:], *range(end, length)])
    return torch.tensor(rows, device=tokens.ids.device)
