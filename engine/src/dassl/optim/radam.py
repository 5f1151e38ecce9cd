"""RAdam under upstream's name; it is torch's."""

from torch.optim import RAdam

__all__ = ["RAdam"]
