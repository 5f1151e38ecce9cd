"""Registries of backbones and heads; they are empty here, a project registers its own."""

from functools import partial

from dassl.utils import Registry, build_registered

__all__ = ["BACKBONE_REGISTRY", "HEAD_REGISTRY", "build_backbone", "build_head"]

BACKBONE_REGISTRY = Registry("BACKBONE")
HEAD_REGISTRY = Registry("HEAD")
build_backbone = partial(build_registered, BACKBONE_REGISTRY, "backbone")
build_head = partial(build_registered, HEAD_REGISTRY, "head")
