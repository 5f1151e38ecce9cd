"""Greedy one-to-one matching against the loop, and its ties."""

import pytest
import torch

from models.spotlighter.rank import match_one_to_one


def greedy_loop(similarity):
    tokens, slots = similarity.shape
    match, free_tokens, free_slots = {}, list(range(tokens)), list(range(slots))
    while free_tokens:
        best = max(
            ((t, s) for t in free_tokens for s in free_slots),
            key=lambda pair: (similarity[pair].item(), -pair[0], -pair[1]),
        )
        match[best[0]] = best[1]
        free_tokens.remove(best[0])
        free_slots.remove(best[1])
    return [match[t] for t in range(tokens)]


@pytest.mark.parametrize(("tokens", "slots"), [(1, 1), (3, 3), (4, 7)])
def test_equals_the_greedy_loop(tokens, slots):
    generator = torch.Generator().manual_seed(tokens)
    # Few distinct values, so that ties happen.
    similarity = torch.randint(0, 4, (6, tokens, slots), generator=generator).float()
    found = match_one_to_one(similarity)
    assert found.tolist() == [greedy_loop(image) for image in similarity]


def test_no_slot_is_given_twice():
    found = match_one_to_one(torch.ones(2, 5, 5))
    assert found.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_more_tokens_than_slots_is_refused():
    with pytest.raises(ValueError, match="got 3 tokens and 2 slots"):
        match_one_to_one(torch.ones(1, 3, 2))
