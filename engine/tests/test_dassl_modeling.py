"""Backbones and heads that a project registers."""

import pytest
from dassl.modeling import BACKBONE_REGISTRY, HEAD_REGISTRY, build_backbone, build_head
from dassl.optim.radam import RAdam
from torch import nn, optim


@BACKBONE_REGISTRY.register()
@HEAD_REGISTRY.register()
class ToyPart(nn.Module):
    def __init__(self, size, **kwargs):
        super().__init__()
        self.out_features = size


@pytest.mark.parametrize(("kind", "build"), [("backbone", build_backbone), ("head", build_head)])
def test_a_registered_part_is_built_by_its_name(kind, build):
    assert build("ToyPart", verbose=False, size=5, pretrained=False).out_features == 5
    with pytest.raises(ValueError, match=f'not a registered {kind}; .*mean "ToyPart"'):
        build("ToyPar")


def test_radam_is_torchs():
    assert RAdam is optim.RAdam
