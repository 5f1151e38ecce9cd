"""The settings of a pretraining."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The settings of the training."""

    minutes: float = 60.0  # to train, over all resumptions; the learning rate follows the clock
    batch_size: int = 192
    vision_width: int = 128
    vision_layers: int = 4
    text_width: int = 128
    text_layers: int = 4
    joint: int = 128
    muon_lr: float = 0.02
    adam_lr: float = 0.0015
    weight_decay: float = 0.02
    save_minutes: float = 3.0  # between checkpoints, each with an asset and a validation
    steps: int = 0  # stop after so many steps in this process; 0: no limit
    seed: int = 0
    workers: int = 1
    compiled: bool = True
    validate: bool = True
