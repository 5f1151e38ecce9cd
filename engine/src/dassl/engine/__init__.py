"""Trainers and where they are registered."""

from dassl.engine.build import TRAINER_REGISTRY, build_trainer

__all__ = ["TRAINER_REGISTRY", "build_trainer"]
