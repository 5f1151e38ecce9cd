"""RandAugment and its two variants under upstream's names, of torchvision's operations."""

import torchvision.transforms as T
from torchvision.transforms import RandAugment

__all__ = ["RandAugment", "RandAugment2", "RandAugmentFixMatch"]


class RandAugment2(T.Compose):  # type: ignore[misc]
    """Operations of random kind and strength.

    Args:
        n: Number of operations.
        p: Probability of each.
    """

    def __init__(self, n: int = 2, p: float = 0.6) -> None:
        super().__init__([T.RandomApply([T.TrivialAugmentWide()], p=p) for _ in range(n)])


class RandAugmentFixMatch(T.Compose):  # type: ignore[misc]
    """Operations of random kind and strength.

    Args:
        n: Number of operations.
    """

    def __init__(self, n: int = 2) -> None:
        super().__init__([T.TrivialAugmentWide() for _ in range(n)])
