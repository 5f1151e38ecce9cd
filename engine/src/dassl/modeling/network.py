"""Where networks are registered; there are none here, a project brings its own."""

from functools import partial

from dassl.utils import Registry, build_registered

__all__ = ["NETWORK_REGISTRY", "build_network"]

NETWORK_REGISTRY = Registry("NETWORK")
build_network = partial(build_registered, NETWORK_REGISTRY, "network")
