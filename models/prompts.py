"""Prompts with a learned context: context vectors + class names -> token embeddings."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.clip.blocks import at_least_float32
from models.clip.text_tower import Layout, Prompts, common_prefix, split_prompts
from models.clip.tokenizer import Tokenizer, Tokens, clip_tokenizer, normalise_name

POSITIONS = ("end", "middle", "front")
STD = 0.02  # of vectors that start at random


def random_prompts(count: int, size: int, width: int) -> nn.ParameterList:
    """`count` prompts (size, width) of normal numbers."""
    return nn.ParameterList(
        nn.Parameter(torch.empty(size, width).normal_(std=STD)) for _ in range(count)
    )


class PromptLearner(nn.Module):
    """CoOp's prompts: learned context vectors in place of the words around the class name.

    Learned: `ctx` (n_ctx, W), or (C, n_ctx, W) when class-specific. All else follows from the
    class names and is not saved.
    Source: CoOp (Zhou et al., IJCV 2022), section 3.2, https://arxiv.org/abs/2109.01134
    """

    keeps_shared = True  # no block changes a shared context class by class

    def __init__(
        self, class_names: list[str], token_embedding: nn.Embedding, *,
        n_ctx: int = 16, ctx_init: str = "", learned_words: int | None = None, csc: bool = False,
        class_token_position: str = "end", tokenizer: Tokenizer | None = None,
    ) -> None:
        """Build the prompts of C classes; underscores in their names count as spaces.

        `ctx_init` gives words to start from: one context vector for each of their tokens, or for
        the first `learned_words`. Without it `n_ctx` vectors start at random, with `csc` for each
        class its own.
        Raises ValueError for an unknown position, a context that leaves no room for a name, or one
        that the tokenizer does not keep apart from the name.
        """
        super().__init__()
        if class_token_position not in POSITIONS:
            raise ValueError(
                f"class_token_position must be one of {', '.join(POSITIONS)}, "
                f"got {class_token_position!r}"
            )
        tokenizer = tokenizer or clip_tokenizer()
        words = normalise_name(ctx_init)
        csc = csc and not words  # as CoOp: words are shared by all classes
        n_ctx, start = _context_length(words, n_ctx, learned_words, tokenizer), tokenizer.num_start
        prefix = words or " ".join(["X"] * n_ctx)
        names = [normalise_name(name) for name in class_names]
        tokens = tokenizer.tokenize([f"{prefix} {name}." for name in names])
        _require_apart(tokens, start, tokenizer.words(prefix), words or n_ctx)
        device = token_embedding.weight.device
        ids = tokens.ids.to(device)
        with torch.no_grad():
            embedding = token_embedding(ids)  # (C, L, W)
        if words:
            first = at_least_float32(embedding[0, start : start + n_ctx]).clone()
        else:
            shape = (len(names), n_ctx) if csc else (n_ctx,)
            first = torch.empty(*shape, embedding.shape[-1], device=device).normal_(std=STD)
        self.ctx = nn.Parameter(first)
        self.n_ctx, self.csc, self.num_start = n_ctx, csc, start
        self.register_buffer("token_prefix", embedding[:, :start], persistent=False)
        self.register_buffer("token_suffix", embedding[:, start + n_ctx :], persistent=False)
        lengths = [tokenizer.count(name) for name in names]
        order = _slot_order(ids, lengths, (start, n_ctx), class_token_position)
        self.register_buffer("order", order, persistent=False)
        self._split_off_prefix(tokens, embedding)

    def _split_off_prefix(self, tokens: Tokens, embedding: Float[Tensor, "C L W"]) -> None:
        """Split off the tokens that all classes begin with: the context too where it is shared."""
        shared = self.keeps_shared and self.order is None and not self.csc
        self.num_prefix = common_prefix(tokens.ids, tokens.eos, None if shared else self.num_start)
        ids = tokens.ids[:, self.num_prefix :] if shared else None  # tails that begin alike share
        self.layout = Layout(tokens.eos + 1 - self.num_prefix, ids).to(embedding.device)
        split = split_prompts(embedding, self.layout, self.num_prefix)
        self.register_buffer("tail", split.tail if shared else None, persistent=False)

    @property
    def places(self) -> slice:
        """Positions of a context before the class name."""
        return slice(self.num_start, self.num_start + self.n_ctx)

    def forward(self) -> Prompts:
        """The prompts of all classes."""
        if self.tail is None:
            return split_prompts(self.whole(), self.layout, self.num_prefix)
        return self.with_context(self.ctx.unsqueeze(0))

    def with_context(self, ctx: Float[Tensor, "G M W"]) -> Prompts:
        """The prompts of all classes with each of G contexts, before the class name."""
        shared = self.num_prefix - self.num_start - self.n_ctx  # words behind the context
        words = self.token_suffix[:1, :shared]
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


def _context_length(words: str, n_ctx: int, learned: int | None, tokenizer: Tokenizer) -> int:
    """`n_ctx`, or where there are words the number of their tokens, or the first `learned`."""
    if words:
        total = tokenizer.count(words)
        n_ctx = total if learned is None else learned
        if not 1 <= n_ctx <= total:
            raise ValueError(
                f"{n_ctx} context vectors cannot start from the {total} tokens of {words!r}; "
                "take fewer (N_CTX) or other words (CTX_INIT)"
            )
    room = tokenizer.context_length - tokenizer.num_start - 3  # a token of a name, ".", EOS
    if not 1 <= n_ctx <= room:
        raise ValueError(f"the number of context vectors must lie in 1..{room}, got {n_ctx}")
    return n_ctx


def _require_apart(tokens: Tokens, start: int, own: list[int], words: str | int) -> None:
    """Refuse a tokenizer that joins a context (tokens `own`) with the name, or its placeholders."""
    there = tokens.ids[:, start : start + len(own)]
    wanted = torch.tensor(own, device=there.device)
    apart = there.shape[1] == len(own) and bool(there.eq(wanted).all())
    if not apart or (isinstance(words, int) and len(own) != words):
        raise ValueError(
            f"this backbone's tokenizer does not keep a context of {words!r} apart from the class "
            "name; take other words (CTX_INIT), or another backbone"
        )


def _slot_order(
    ids: Int[Tensor, "C L"], name_lengths: list[int], context: tuple[int, int], position: str
) -> Int[Tensor, "C L"] | None:
    """Which slot of [SOS, ctx, name, rest] stands at each place; None where they stand so.

    `name_lengths` counts the tokens of each class name alone; `context` says where the context
    begins, and how long it is; `position` is that of the class name.
    """
    if position == "end":
        return None
    slots, (start, n_ctx) = list(range(ids.shape[1])), context
    first = start + n_ctx
    place = start + (n_ctx // 2 if position == "middle" else 0)  # of the name
    rows = []
    for name_length in name_lengths:
        name, rest = slots[first : first + name_length], slots[first + name_length :]
        rows.append(slots[:place] + name + slots[place:first] + rest)
    return torch.tensor(rows, device=ids.device)
