import random
import re
from collections import defaultdict

import numpy as np
import pytest
import torch
from dassl.data import DataManager, DatasetWrapper
from dassl.data.datasets import Datum
from dassl.data.samplers import build_sampler
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.utils import set_random_seed
from PIL import Image
from torchvision.transforms import InterpolationMode

PICTURE = Image.linear_gradient("L").resize((40, 20)).convert("RGB")

ALL = [
    "random_translation",
    "random_flip",
    "random_resized_crop",
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment",
    "randaugment_fixmatch",
    "randaugment2",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
    "cutout",
    "normalize",
    "gaussian_noise",
    "instance_norm",
]


def test_interpolation_modes():
    assert INTERPOLATION_MODES == {
        "bilinear": InterpolationMode.BILINEAR,
        "bicubic": InterpolationMode.BICUBIC,
        "nearest": InterpolationMode.NEAREST,
    }


@pytest.mark.parametrize("choice", ALL)
def test_each_transform_gives_a_tensor_of_the_size(cfg, choice):
    cfg.INPUT.SIZE = (16, 24)
    cfg.INPUT.GB_K = 3
    transform = build_transform(cfg, is_train=True, choices=[choice])
    for _ in range(4):
        assert transform(PICTURE).shape == (3, 16, 24)


def test_translation_is_bilinear_whatever_the_interpolation(cfg):
    cfg.INPUT.INTERPOLATION = "bicubic"
    resize, translation, _ = build_transform(cfg, choices=["random_translation"]).transforms
    assert resize.interpolation is InterpolationMode.BICUBIC
    assert translation.interpolation is InterpolationMode.BILINEAR


def test_center_crop_is_known_and_changes_nothing(cfg):
    """Upstream's test transform always cuts the middle out."""
    for is_train in (True, False):
        named = build_transform(cfg, is_train, choices=["center_crop", "normalize"])
        usual = build_transform(cfg, is_train, choices=["normalize"])
        assert torch.equal(named(PICTURE), usual(PICTURE))


def test_a_config_without_unlabelled_loader_serves_a_data_set_without(cfg):
    del cfg.DATALOADER["TRAIN_U"]
    assert DataManager(cfg).train_loader_u is None


def test_random_crop_pads_and_cuts(cfg):
    cfg.INPUT.SIZE = (20, 40)
    transform = build_transform(cfg, is_train=True, choices=["random_crop"])
    assert transform(PICTURE).shape == (3, 20, 40)


def test_a_crop_replaces_the_resize_and_the_order_is_fixed(cfg):
    choices = ["normalize", "random_flip", "random_resized_crop"]
    steps = build_transform(cfg, choices=choices).transforms
    assert [type(step).__name__ for step in steps] == [
        "RandomResizedCrop",
        "RandomHorizontalFlip",
        "ToTensor",
        "Normalize",
    ]
    steps = build_transform(cfg, choices=["random_flip"]).transforms
    assert [type(step).__name__ for step in steps] == [
        "Resize",
        "RandomHorizontalFlip",
        "ToTensor",
    ]


def test_test_pictures_are_resized_cut_in_the_middle_and_normalised(cfg):
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = [0.5] * 3, [0.5] * 3
    transform = build_transform(cfg, is_train=False)
    expected = PICTURE.resize((16, 8), Image.Resampling.BILINEAR).crop((4, 0, 12, 8))
    got = ((transform(PICTURE) * 0.5 + 0.5) * 255).round().to(torch.uint8)
    assert got.permute(1, 2, 0).numpy().tobytes() == expected.tobytes()


def test_no_transform_means_none(cfg):
    cfg.INPUT.NO_TRANSFORM = True
    assert build_transform(cfg) is None


def test_cutout_sets_a_square_to_zero(cfg):
    cfg.INPUT.SIZE, cfg.INPUT.CUTOUT_LEN = (30, 30), 4
    set_random_seed(0)
    white = Image.new("RGB", (30, 30), "white")
    zeros = (build_transform(cfg, choices=["cutout"])(white)[0] == 0).sum().item()
    assert 4 <= zeros <= 16


def test_items_of_the_wrapper(cfg):
    dm = DataManager(cfg)
    source = dm.dataset.train_x
    item = DatasetWrapper(cfg, source, transform=build_transform(cfg))[7]
    assert set(item) == {"label", "domain", "impath", "index", "img"}
    assert (item["label"], item["domain"], item["index"]) == (1, 0, 7)
    assert item["impath"] == source[7].impath
    assert item["img"].shape == (3, 8, 8)


def test_several_transforms_give_several_views(cfg):
    cfg.DATALOADER.RETURN_IMG0 = True
    source = DataManager(cfg).dataset.train_x
    tfm = build_transform(cfg)
    item = DatasetWrapper(cfg, source, transform=[tfm, tfm, tfm], is_train=True)[0]
    assert {"img", "img2", "img3", "img0"} < set(item)
    cfg.DATALOADER.K_TRANSFORMS = 2
    assert len(DatasetWrapper(cfg, source, transform=tfm, is_train=True)[0]["img"]) == 2
    assert DatasetWrapper(cfg, source, transform=tfm)[0]["img"].shape == (3, 8, 8)


def test_loaders_and_facts(cfg):
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 4
    cfg.DATALOADER.TEST.BATCH_SIZE = 5
    dm = DataManager(cfg)
    assert [len(batch["label"]) for batch in dm.train_loader_x] == [4, 4, 4, 4]
    assert [len(batch["label"]) for batch in dm.val_loader] == [5, 1]
    assert len(dm.test_loader) == 2
    assert dm.train_loader_u is None
    assert (dm.num_classes, dm.num_source_domains) == (3, 0)
    assert dm.lab2cname == {0: "red", 1: "green", 2: "blue"}


def test_a_batch_larger_than_the_data_is_kept(cfg):
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 100
    assert [len(batch["label"]) for batch in DataManager(cfg).train_loader_x] == [18]


def test_custom_transforms_and_wrapper_are_used(cfg):
    class Mine(DatasetWrapper):
        def __getitem__(self, idx):
            return {**super().__getitem__(idx), "mine": idx}

    def constant(value):
        return lambda picture: torch.full((1,), value)

    dm = DataManager(cfg, constant(1.0), constant(2.0), dataset_wrapper=Mine)
    assert next(iter(dm.train_loader_x))["img"].unique().tolist() == [1.0]
    batch = next(iter(dm.test_loader))
    assert batch["img"].unique().tolist() == [2.0]
    assert batch["mine"].tolist() == list(range(9))


def test_summary_is_shown(cfg, capsys):
    DataManager(cfg)
    shown = capsys.readouterr().out
    for words in (r"Dataset\s+ToyColours", r"# classes\s+3", r"# train_x\s+18", r"# test\s+9"):
        assert re.search(words, shown)


def test_the_seed_orders_the_training_pictures_as_torch_does(cfg):
    loader = DataManager(cfg).train_loader_x
    set_random_seed(3)
    got = [i for batch in loader for i in batch["index"].tolist()]
    torch.manual_seed(3)
    torch.empty((), dtype=torch.int64).random_()  # the workers' seed comes first
    seed = int(torch.empty((), dtype=torch.int64).random_())
    order = torch.randperm(18, generator=torch.Generator().manual_seed(seed)).tolist()
    assert got == order


def upstreams_domain_order(source, batch, domains_of_a_batch):
    """Upstream's RandomDomainSampler and SeqDomainSampler, written out slowly."""
    left = defaultdict(list)
    for index, item in enumerate(source):
        left[item.domain].append(index)
    order, full = [], False
    while not full:
        chosen = domains_of_a_batch(list(left))
        for domain in chosen:
            drawn = random.sample(left[domain], batch // len(chosen))
            order += drawn
            left[domain] = [index for index in left[domain] if index not in drawn]
            full = full or len(left[domain]) < batch // len(chosen)
    return order


def upstreams_class_order(source, batch, n_ins):
    """Upstream's RandomClassSampler, written out slowly."""
    groups, portions = defaultdict(list), {}
    for index, item in enumerate(source):
        groups[item.label].append(index)
    for label, group in groups.items():
        indices = list(group)
        if len(group) < n_ins:
            indices = np.random.choice(group, size=n_ins, replace=True)  # noqa: NPY002
        random.shuffle(indices)
        whole = len(indices) // n_ins
        portions[label] = [list(indices[i * n_ins : (i + 1) * n_ins]) for i in range(whole)]
    order, labels = [], list(groups)
    while len(labels) >= batch // n_ins:
        for label in random.sample(labels, batch // n_ins):
            order += portions[label].pop(0)
            if not portions[label]:
                labels.remove(label)
    return order


ORDERS = {
    "RandomDomainSampler": lambda source: upstreams_domain_order(
        source, 4, lambda domains: random.sample(domains, 2)
    ),
    "SeqDomainSampler": lambda source: upstreams_domain_order(source, 6, sorted),
    "RandomClassSampler": lambda source: upstreams_class_order(source, 6, 3),
}


@pytest.mark.parametrize("name", ORDERS)
def test_samplers_draw_as_upstream(name):
    """One order is drawn when the sampler is made, for its length, and one for each pass."""
    source = [Datum(__file__, label=i % 4, domain=i % 3) for i in range(38)]
    source.append(Datum(__file__, label=4, domain=2))
    set_random_seed(1)
    expected = [ORDERS[name](source) for _ in range(3)]
    set_random_seed(1)
    batch = 4 if name == "RandomDomainSampler" else 6
    more = {"n_domain": 2} if name == "RandomDomainSampler" else {"n_ins": 3}
    sampler = build_sampler(name, data_source=source, batch_size=batch, **more)
    assert len(sampler) == len(expected[0])
    for order in expected[1:]:
        assert list(sampler) == order
        assert len(sampler) == len(order)
