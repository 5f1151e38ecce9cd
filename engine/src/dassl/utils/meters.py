"""Running averages of numbers, one by one or by name."""

from collections import defaultdict
from collections.abc import Mapping

import torch

__all__ = ["AverageMeter", "MetricMeter"]


class AverageMeter:
    """The latest value of a number and its mean, or moving average (``ema``, 0.9 on the past)."""

    def __init__(self, ema: bool = False) -> None:
        self.ema = ema
        self.val = self.avg = self.sum = 0.0
        self.count = 0

    def update(self, val: float | torch.Tensor, n: int = 1) -> None:
        """Add a value that stands for ``n`` observations."""
        if isinstance(val, torch.Tensor):
            val = val.item()
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.avg * 0.9 + val * 0.1 if self.ema else self.sum / self.count


class MetricMeter:
    """Averages by name; as text, ``name value (average)`` for each."""

    def __init__(self, delimiter: str = " ") -> None:
        self.meters: defaultdict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: Mapping[str, float | torch.Tensor] | None) -> None:
        """Add one value per name; None adds nothing, anything but a mapping is a TypeError."""
        if input_dict is None:
            return
        if not isinstance(input_dict, Mapping):
            kind = type(input_dict).__name__
            raise TypeError(f"MetricMeter.update expects a dictionary {{name: number}}, got {kind}")
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self) -> str:
        return self.delimiter.join(
            f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items()
        )
