"""RAdam and AdamW under upstream's name; they are torch's."""

from torch.optim import AdamW, RAdam

__all__ = ["AdamW", "RAdam"]
