"""Every yaml parses, names things that exist, and says where it comes from."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from dassl.data.datasets import DATASET_REGISTRY

import datasets  # noqa: F401  (registers the data sets)
from runs.arguments import KEYS_INSTEAD, parse_args
from runs.config import build_config
from tools.sweeps.names import default_rows
from trainers import TRAINERS as TRAINER_CLASSES

ROOT = Path(__file__).parents[2]
DATASETS = sorted((ROOT / "configs" / "datasets").glob("*.yaml"))
TRAINERS = sorted((ROOT / "configs" / "trainers").glob("*/*.yaml"))
COMMANDS = [
    line
    for line in (Path(__file__).parent / "published_commands.txt").read_text().splitlines()
    if line.startswith("python ")
]
MISSING = "vit_b16_c2_ep5_batch4_4+4ctx_cross_datasets"  # in PromptSRC, named without a yaml
HEADER = (
    "# Source: ",
    "# Command: ",
    "# Hardware and hours: ",
    "# Expected: ",
    "# Measured by us: ",
)


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


def leaves(node, prefix=""):
    """Yield ("OPTIM.LR", value) for every value of a nested dictionary."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def normal(value):
    """yacs reads "(64, 64)" as a tuple and turns lists into tuples where the default is one."""
    if isinstance(value, str) and value.startswith("("):
        value = yaml.safe_load(f"[{value[1:-1]}]")
    return list(value) if isinstance(value, tuple) else value


def test_there_is_one_yaml_for_every_registered_dataset():
    named = [yaml.safe_load(path.read_text())["DATASET"]["NAME"] for path in DATASETS]
    classes = (DATASET_REGISTRY.get(name) for name in DATASET_REGISTRY.registered_names())
    ours = [cls.__name__ for cls in classes if cls.__module__.startswith("datasets.")]
    assert sorted(named) == sorted(ours)


@pytest.mark.parametrize("path", DATASETS, ids=lambda path: path.stem)
def test_dataset_yaml_names_the_dataset_and_nothing_else(path):
    assert [key for key, _ in leaves(yaml.safe_load(path.read_text()))] == ["DATASET.NAME"]


@pytest.mark.parametrize("path", TRAINERS, ids=name_of)
def test_trainer_yaml_opens_with_what_makes_it_believable(path):
    lines = path.read_text().split("\n\n")[0].splitlines()
    assert [line for line in lines if not line.startswith("#   ")] == [
        next((line for line in lines if line.startswith(label)), label) for label in HEADER
    ]


@pytest.mark.parametrize("path", TRAINERS, ids=name_of)
def test_trainer_yaml_commands_name_existing_configs(path):
    words = path.read_text().split("\n\n")[0].replace("#", "").split()
    assert path.parent.name in words
    for word in words:
        if word.startswith(("configs/", "scripts/")):
            assert (ROOT / word).is_file(), word


@pytest.mark.parametrize("path", TRAINERS, ids=name_of)
def test_trainer_yaml_holds_only_what_differs_from_the_default(path):
    defaults = dict(leaves(build_config(parse_args([]))))
    for key, value in leaves(yaml.safe_load(path.read_text())):
        assert key in defaults
        assert normal(value) != normal(defaults[key]), f"{key} is the default"


@pytest.mark.parametrize("path", TRAINERS, ids=name_of)
def test_trainer_yaml_merges_with_every_dataset(path):
    assert path.parent.name in {trainer.__name__ for trainer in TRAINER_CLASSES}
    for dataset in DATASETS:
        files = ["--dataset-config-file", str(dataset), "--config-file", str(path)]
        cfg = build_config(parse_args([*files, "--trainer", path.parent.name]))
        assert cfg.DATASET.NAME in DATASET_REGISTRY.registered_names()
        assert cfg.MODEL.BACKBONE.NAME
        assert isinstance(cfg.INPUT.SIZE, tuple)


@pytest.mark.parametrize("path", TRAINERS, ids=name_of)
def test_pictures_are_prepared_as_clip_was_trained(path):
    settings = dict(leaves(yaml.safe_load(path.read_text())))
    assert settings["INPUT.PIXEL_MEAN"] == [0.48145466, 0.4578275, 0.40821073]
    assert settings["INPUT.PIXEL_STD"] == [0.26862954, 0.26130258, 0.27577711]
    assert settings["INPUT.INTERPOLATION"] == "bicubic"
    assert "normalize" in settings["INPUT.TRANSFORMS"]


def test_every_trainer_has_a_row_of_defaults_whose_configs_exist():
    assert set(default_rows()) == {trainer.__name__ for trainer in TRAINER_CLASSES}
    for trainer, row in default_rows().items():
        for _, config in leaves(row):
            assert (ROOT / f"configs/trainers/{trainer}/{config}.yaml").is_file(), config


def test_embedded_configs_of_coop_and_spotlighter_share_everything():
    coop, spotlighter = (
        dict(
            leaves(yaml.safe_load((ROOT / f"configs/trainers/{name}/tiny_emoji.yaml").read_text()))
        )
        for name in ("CoOp", "Spotlighter")
    )
    assert {key: spotlighter.get(key) for key in coop} == coop


CONTROLS = {"tiny_emoji_random": {"SELECT": "random"}, "tiny_emoji_global": {"LEVELS": ["global"]}}


def test_only_controls_change_the_head():
    """What is fitted needs no setting; a config says which tuner the head stands on."""
    found = {}
    for path in (ROOT / "configs/trainers/Spotlighter").glob("*.yaml"):
        settings = yaml.safe_load(path.read_text())["TRAINER"].get("SPOTLIGHTER", {})
        found[path.stem] = {key: value for key, value in settings.items() if key != "BASE"}
    assert {stem: settings for stem, settings in found.items() if settings} == CONTROLS


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_is_the_config_but_for_one_setting(control):
    folder = ROOT / "configs/trainers/Spotlighter"
    one, usual = (
        dict(leaves(yaml.safe_load((folder / f"{name}.yaml").read_text())))
        for name in (control, "tiny_emoji")
    )
    changed = {f"TRAINER.SPOTLIGHTER.{key}": value for key, value in CONTROLS[control].items()}
    assert one == usual | changed


@pytest.mark.parametrize("command", COMMANDS)
def test_published_commands_pass_the_config_stage(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    args = parse_args(shlex.split(command)[2:])
    if MISSING in command:
        with pytest.raises(FileNotFoundError, match="does not exist; in its folder: "):
            build_config(args)
        return
    cfg = build_config(args)
    trainer = next(t for t in TRAINER_CLASSES if t.__name__ == cfg.TRAINER.NAME)
    trainer.check_cfg(object.__new__(trainer), cfg)
    assert args.trainer == cfg.TRAINER.NAME
    assert cfg.DATASET.NAME in DATASET_REGISTRY.registered_names()


def test_all_trainers_that_others_publish_are_among_the_commands():
    words = {word for command in COMMANDS for word in shlex.split(command)}
    assert {"CoOp", "CoCoOp", "MaPLe", "IVLP", "VPT", "PromptSRC", "PromptKD"} < words
    assert {"TextRefiner", "ZeroshotCLIP", "Spotlighter", "KgCoOp", "ProGrad", "TCP"} < words


def test_published_flags_that_are_keys_here_name_a_key_that_is_there(capsys):
    cfg = build_config(parse_args([]))
    for flag in KEYS_INSTEAD:
        with pytest.raises(SystemExit, match=r"^2$"):
            parse_args(["--trainer", "Spotlighter", flag, "1"])
        said = capsys.readouterr().err.splitlines()[-1]
        assert f": error: {flag} is a config key here: TRAINER.TF." in said
        named = re.findall(r"TRAINER\.(\w+)\.(\w+)", said)
        assert named
        assert all(key in cfg.TRAINER[node] for node, key in named), said
