"""A plugin for mypy: what a torch module registers is of a kind that only the module knows.

torch says of each such attribute that it is a tensor or a module; then no layer could be called and
no buffer be added to. Here it is Any.
"""

from __future__ import annotations

from collections.abc import Callable

from mypy.plugin import AttributeContext, Plugin
from mypy.types import AnyType, Type, TypeOfAny

OWNER = "torch.nn.modules.module.Module."


class ModuleAttributes(Plugin):
    """Answers for attributes that only `Module.__getattr__` finds."""

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """A hook for an attribute; None where mypy knows better."""
        return as_any if fullname.startswith(OWNER) else None


def as_any(context: AttributeContext) -> Type:
    """Any, in place of "tensor or module"."""
    if str(context.default_attr_type) == "torch._tensor.Tensor | torch.nn.modules.module.Module":
        return AnyType(TypeOfAny.explicit)
    return context.default_attr_type


def plugin(version: str) -> type[Plugin]:
    """What mypy asks for."""
    return ModuleAttributes
