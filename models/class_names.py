"""What is learned of some classes, and used for others: rows are found by class name."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from torch import nn

from models.clip.tokenizer import normalise_name


def folded(name: str) -> str:
    """What two spellings of a name share: case and underscores do not count."""
    return normalise_name(name).casefold()


def match_names(class_names: list[str], seen: list[str]) -> list[int]:
    """For each name its position in `seen`, or -1; by `folded`.

    Classes that share a name keep their order: the second of a list is the second of the other.
    """
    positions = defaultdict(list)
    for i, name in enumerate(seen):
        positions[folded(name)].append(i)
    found, before = [], Counter[str]()
    for name in map(folded, class_names):
        places = positions.get(name, [-1])
        found.append(places[min(before[name], len(places) - 1)])
        before[name] += 1
    return found


class OfClasses(nn.Module):
    """Tensors of the classes of training, whose names are saved with them.

    A checkpoint may be of other classes than the run that loads it: its numbers of rows and its
    names are taken over.
    """

    class_names: list[str]
    by_class: tuple[str, ...]  # names of the tensors that have one row a class

    def get_extra_state(self) -> dict[str, Any]:
        """The class names."""
        return {"class_names": list(self.class_names)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over the class names of a checkpoint, after its tensors; ValueError if too few."""
        sizes = sorted({len(getattr(self, name)) for name in self.by_class})
        names = list(state["class_names"])
        if sizes != [len(names)]:
            raise ValueError(f"rows of {sizes} classes have the names of {len(names)}")
        self.class_names = names

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Take over the number of rows of each tensor first; a parameter stays the same object."""
        own = [*self.named_buffers(recurse=False), *self.named_parameters(recurse=False)]
        for name, tensor in own:
            saved = state_dict.get(prefix + name)
            if saved is None or not saved.dim() == tensor.dim() > 0:
                continue
            if len(saved) != len(tensor) and saved.shape[1:] == tensor.shape[1:]:
                tensor.data = tensor.data.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def rows_taken_over(module: nn.Module) -> set[str]:
    """The full names of the parameters whose number of rows a checkpoint may change."""
    return {
        f"{place}.{name}" if place else name
        for place, part in module.named_modules()
        if isinstance(part, OfClasses)
        for name, _ in part.named_parameters(recurse=False)
    }
