"""Backbones, heads, SimpleNet, distances and small helpers that projects import."""

import pytest
import torch
from dassl.engine import TRAINER_REGISTRY, SimpleNet, TrainerX, build_trainer
from dassl.metrics import compute_distance_matrix
from dassl.modeling import BACKBONE_REGISTRY, Backbone, build_backbone, build_head
from dassl.optim.radam import RAdam
from dassl.utils import download_url, init_network_weights
from dassl.utils.torchtools import adjust_learning_rate, set_bn_to_eval
from torch import nn
from torch.nn import functional as F


@BACKBONE_REGISTRY.register()
class ToyBackbone(Backbone):
    def __init__(self, **kwargs):
        super().__init__()
        self._out_features = 5
        self.linear = nn.Linear(3, 5)

    def forward(self, x):
        return self.linear(x.mean(dim=(2, 3)))


@TRAINER_REGISTRY.register()
class ToyVanilla(TrainerX):
    """Trains the network that the config describes."""

    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        loss = F.cross_entropy(self.model(image), label)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}


@pytest.mark.parametrize(("name", "size"), [("resnet18", 512), ("alexnet", 4096)])
def test_backbones_are_torchvisions_without_the_last_layer(name, size):
    model = build_backbone(name, verbose=False, pretrained=False).eval()
    assert model.out_features == size
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, size)
    with pytest.raises(ValueError, match="not a registered backbone"):
        build_backbone("resnet19")


def test_a_head_is_linear_norm_activation_dropout():
    head = build_head(
        "mlp", in_features=4, hidden_layers=(8, 2), activation="leaky_relu", dropout=0.5
    )
    kinds = [type(layer).__name__ for layer in head.mlp]
    assert kinds == ["Linear", "BatchNorm1d", "LeakyReLU", "Dropout"] * 2
    assert (head.out_features, head(torch.zeros(3, 4)).shape) == (2, (3, 2))
    with pytest.raises(ValueError, match="HIDDEN_LAYERS"):
        build_head("mlp", in_features=4)


def test_a_trainer_without_a_model_of_its_own_trains_simple_net(cfg):
    cfg.TRAINER.NAME, cfg.MODEL.BACKBONE.NAME = "ToyVanilla", "ToyBackbone"
    cfg.MODEL.HEAD.NAME, cfg.MODEL.HEAD.HIDDEN_LAYERS = "mlp", (7,)
    trainer = build_trainer(cfg)
    trainer.train()
    assert isinstance(trainer.model, SimpleNet)
    assert trainer.model.fdim == 7
    assert (trainer.model.classifier.in_features, trainer.num_classes) == (7, 3)
    scores, features = trainer.model(torch.zeros(2, 3, 8, 8), return_feature=True)
    assert (scores.shape, features.shape) == ((2, 3), (2, 7))


def test_distances():
    one, other = torch.randn(4, 3).double(), torch.randn(5, 3).double()
    expected = torch.stack([((row - other) ** 2).sum(1) for row in one])
    torch.testing.assert_close(compute_distance_matrix(one, other), expected)
    expected = torch.stack([1 - F.cosine_similarity(row, other, dim=1) for row in one])
    torch.testing.assert_close(compute_distance_matrix(one, other, "cosine"), expected)
    with pytest.raises(ValueError, match='"manhattan" is not a registered metric'):
        compute_distance_matrix(one, other, "manhattan")


@pytest.mark.parametrize("kind", ["normal", "xavier", "kaiming", "orthogonal"])
def test_weights_are_drawn_and_norms_reset(kind):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4), nn.LayerNorm(4))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 3.0)
    init_network_weights(model, kind)
    assert model[0].weight.std() > 0
    assert model[2].bias.eq(0).all()
    assert model[1].weight.eq(1).all()
    assert model[3].weight.eq(3).all()
    model.apply(set_bn_to_eval)
    assert [layer.training for layer in model] == [True, False, True, True]


def test_a_learning_rate_by_epoch():
    optimizer = RAdam([torch.zeros(1, requires_grad=True)], lr=1.0)
    adjust_learning_rate(optimizer, 1.0, 40)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    adjust_learning_rate(optimizer, 1.0, 40, linear_decay=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.6)


def test_a_file_is_downloaded(tmp_path):
    (tmp_path / "a.txt").write_text("content")
    download_url((tmp_path / "a.txt").as_uri(), tmp_path / "b.txt")
    assert (tmp_path / "b.txt").read_text() == "content"
