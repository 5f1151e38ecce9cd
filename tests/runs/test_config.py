"""The config: merge order, and a sentence for every mistake."""

import re
from pathlib import Path

import pytest
from dassl.data import samplers, transforms
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import lr_scheduler
from dassl.optim.optimizer import _constructors

import train
from runs import arguments, config_rules
from runs.config import build_config, changed_lines, default_config
from runs.config_rules import READ_WITH, RULES, UNREAD, flat, rule_of
from trainers import TRAINERS

PROJECT = Path(__file__).parents[2]
DEFAULTS = flat(default_config())
NODES = {trainer.node: trainer.settings_class for trainer in TRAINERS}


def config(*argv):
    return build_config(train.parse_args([str(word) for word in argv]))


def test_later_wins_data_set_trainer_flags_pairs(tmp_path):
    (tmp_path / "d.yaml").write_text("SEED: 1\nDATASET: {NAME: A}\nOPTIM: {LR: 1}\n")
    (tmp_path / "t.yaml").write_text("SEED: 2\nOPTIM: {LR: 2, MAX_EPOCH: 7}\nTRAINER: {NAME: X}\n")
    files = ("--dataset-config-file", tmp_path / "d.yaml", "--config-file", tmp_path / "t.yaml")
    cfg = config(*files)
    assert (cfg.SEED, cfg.DATASET.NAME, cfg.OPTIM.LR, cfg.CONFIG_NAME) == (2, "A", 2.0, "t")
    cfg = config(
        *files,
        "--transforms",
        "normalize",
        "cutout",
        "--seed",
        0,
        "--trainer",
        "CoOp",
        "OPTIM.LR",
        "3",
        "INPUT.SIZE",
        "(64, 64)",
        "TRAINER.COOP.CSC",
        "True",
    )
    assert (cfg.SEED, cfg.TRAINER.NAME, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH) == (0, "CoOp", 3.0, 7)
    assert (cfg.INPUT.SIZE, cfg.TRAINER.COOP.CSC) == ((64, 64), True)
    assert tuple(cfg.INPUT.TRANSFORMS) == ("normalize", "cutout")
    assert cfg.is_frozen()


def test_defaults_of_the_method():
    node = config().TRAINER.SPOTLIGHTER
    expected = {
        "TOPK": 5,
        "LEVEL1": 3,
        "PROTOTYPES": 16,
        "ALPHA": 0.2,
        "DISTILL": 20.0,
        "VIEWS": 4,
        "CANDIDATES": 5,
        "LEVELS": ("global", "1", "2", "both"),
        "NEW": "auto",
        "GATE": True,
        "BASE": "CoOp",
    }
    assert {key: node[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("OPTIM.LRR", "1"), "unknown config key OPTIM.LRR; do you mean OPTIM.LR"),
        (("OPTIM.LR", "1", "--seed", "1"), "--seed must stand before the KEY VALUE pairs"),
        (("OPTIM.LR",), "must come in twos, got OPTIM.LR"),
        (("OPTIM.LR", "fast"), r"OPTIM.LR must be a number from 0 on, got 'fast'"),
        (
            ("OPTIM.MAX_EPOCH", "2.5"),
            r"OPTIM.MAX_EPOCH must be a whole number from 1 to 1000000, got '2.5'",
        ),
    ],
)
def test_wrong_pairs_are_explained(argv, message):
    with pytest.raises(ValueError, match=message):
        config(*argv)


def test_a_missing_file_lists_its_neighbours(tmp_path):
    (tmp_path / "there.yaml").write_text("")
    with pytest.raises(FileNotFoundError, match=r"gone.yaml does not exist; in .*there"):
        config("--config-file", tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("OPTIM: {LRR: 1}", r"bad.yaml: unknown config key OPTIM.LRR; do you mean"),
        ("OPTIM: [1", r"bad.yaml is not a yaml of keys and values"),
        ("just words", r"bad.yaml is not a yaml of keys and values"),
        ("OPTIM: !!python/object/apply:os.system ['true']", r"bad.yaml is not a yaml"),
        ("OPTIM: {LR: {A: 1}}", r"bad.yaml: unknown config key OPTIM.LR.A"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        config("--config-file", tmp_path / "bad.yaml")


@pytest.mark.parametrize("label", ["a/b", "two\nlines"])
def test_a_label_can_name_a_folder(label):
    with pytest.raises(ValueError, match=r"DATASET\.LABEL must be one line without a slash"):
        config("DATASET.LABEL", label)
# Every key has a rule and a reader, or a rule that says that nothing reads it


def sources():
    """The text of all that may read a key."""
    folders = ("trainers", "runs", "datasets", "models", "engine/src/dassl")
    files = [PROJECT / "train.py", *(p for f in folders for p in (PROJECT / f).rglob("*.py"))]
    apart = ("arguments.py", "config.py", "config_rules.py", "identity.py")
    return "\n".join(path.read_text() for path in files if path.name not in apart)


def test_every_key_has_one_rule_that_its_default_keeps():
    own = {key for key in DEFAULTS if re.fullmatch(r"TRAINER\.[A-Za-z]+\..*", key)}
    assert set(DEFAULTS) - own == set(RULES) | set(UNREAD)
    assert not set(RULES) & set(UNREAD)
    for key, default in DEFAULTS.items():
        rule = rule_of(key, default)
        assert rule.fits(default), key
        assert not rule.fits(None), key


def test_every_key_is_read_or_named_as_unread():
    text, unused = sources(), {n: settings.UNUSED for n, settings in NODES.items()}
    for key in set(DEFAULTS) - set(UNREAD):
        _, *nodes, name = f".{key}".split(".")
        if nodes[:1] == ["TRAINER"] and nodes[1:] and nodes[1] in NODES:
            spelt = f"({name}|{name.lower()})"
            reader = rf"(self|settings|context|options)\.{spelt}\b|getattr\(.*\"{name}\""
            is_read = re.search(reader, text)
            assert bool(is_read) or name in unused[nodes[1]], f"nothing reads {key}"
        else:
            assert re.search(rf"\.{name}\b|\"{name}\"|\"{key}\"", text), f"nothing reads {key}"


def test_keys_that_are_read_beside_others_exist():
    assert {key for *_, keys in READ_WITH for key in keys.split()} <= set(RULES)
    assert {key for key, *_ in READ_WITH} <= set(RULES)


def test_names_are_those_of_the_engine():
    assert set(config_rules.OPTIMISERS) == set(_constructors(default_config().OPTIM))
    assert list(config_rules.SCHEDULERS) == lr_scheduler.AVAI_SCHEDS
    assert config_rules.WARMUPS == lr_scheduler.WARMUPS
    assert config_rules.SAMPLERS == samplers.SAMPLERS
    assert list(config_rules.INTERPOLATIONS) == list(transforms.INTERPOLATION_MODES)
    assert list(config_rules.TRANSFORMS) == transforms.AVAI_CHOICES


OTHER = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v + 1, str: lambda v: "foo"}


@pytest.mark.parametrize("key", UNREAD)
def test_a_key_that_nothing_reads_is_refused(key):
    default = DEFAULTS[key]
    other = OTHER.get(type(default), lambda v: ("a",))(default)
    with pytest.raises(ValueError, match=rf"{key}.* must be .*: nothing here reads it, got"):
        config(key, other)


@pytest.mark.parametrize("key", [*DEFAULTS])
def test_none_is_no_value(key):
    if key not in ("MODEL.TRUST_WEIGHTS", "MODEL.ALLOW_MISMATCH"):
        with pytest.raises(ValueError, match=f"{key}.* must be .*, got None"):
            config(key, "None")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("TEST.SPLIT", split) for split in ("validation", "vla", "Test", "train")],
        ("TRAINER.MODAL", "foo"),
        ("DATASET.SUBSAMPLE_CLASSES", "base/base/base"),
        ("DATASET.SUBSAMPLE_CLASSES", "novel"),
        *[("INPUT.SIZE", size) for size in ("64", "(64,)", "(64, 64, 3)", "(64.5, 64)", "(0, 64)")],
        *[("INPUT.RRCROP_SCALE", scale) for scale in ("(0.5,)", "(0.9, 0.1)", "(0, 1)", "(1, 2)")],
        *[("INPUT.RGS_P", "1.5"), ("INPUT.GB_P", "-0.1"), ("INPUT.GB_K", "4"), ("INPUT.GB_K", "0")],
        *[("INPUT.COLORJITTER_H", "0.6"), ("INPUT.RANDAUGMENT_M", "31")],
        *[("OPTIM.GAMMA", "-0.1"), ("OPTIM.WARMUP_CONS_LR", "-1"), ("OPTIM.WARMUP_MIN_LR", "-1")],
        *[("OPTIM.STEPSIZE", "()"), ("OPTIM.STEPSIZE", "(2.5,)"), ("OPTIM.STEPSIZE", "(3, 6)")],
        *[("OPTIM.MOMENTUM", "1.5"), ("OPTIM.ADAM_BETA1", "1.0"), ("OPTIM.LR", "nan")],
        *[("OPTIM.LR", "1e999"), ("OPTIM.WEIGHT_DECAY", "-1"), ("OPTIM.MAX_EPOCH", "0")],
        *[("TRAIN.CHECKPOINT_FREQ", "-2"), ("SEED", str(2**32)), ("DATASET.NUM_SHOTS", "-3")],
        *[("DATALOADER.NUM_WORKERS", "500"), ("DATALOADER.TEST.SAMPLER", "RandomSampler")],
        *[
            ("TRAINER.SPOTLIGHTER.LEVELS", "global"),
            ("TRAINER.SPOTLIGHTER.LEVELS", "('global', 1)"),
        ],
        *[("TRAINER.COOP.CTX_INIT", "a photo of a {}."), ("TRAINER.MAPLE.CTX_INIT", "{}")],
        *[("TRAINER.COCOOP.CTX_INIT", " _ "), ("TRAINER.TF.ALPHA", "inf")],
        ("MODEL.INIT_WEIGHTS", "/nowhere"),
        *[("DATASET.FOLD", fold) for fold in ("1", "0/4", "5/4", "1/1", "1/4/2", "-1/4", "01/4")],
        *[("TEST.TEMPERATURE", t) for t in ("0", "-1", "inf", "nan", "warm")],
    ],
)
def test_a_value_that_a_key_cannot_have_is_refused(key, value):
    with pytest.raises(ValueError, match=f"^{key} "):
        config(key, value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("OPTIM.LR_SCHEDULER multi_step", "OPTIM.STEPSIZE must name epochs from 1 on"),
        ("OPTIM.NAME sgd OPTIM.MOMENTUM 0 OPTIM.SGD_NESTEROV True", "needs OPTIM.MOMENTUM above 0"),
        ("--trainer CoOp --model-dir x", "--model-dir is read with --eval-only alone"),
        ("--trainer CoOp --load-epoch 0", "--load-epoch is read with --eval-only alone"),
        ("--trainer CoOp --eval-only", "--eval-only needs --model-dir"),
        ("--trainer CoOp --resume /nowhere", "--resume /nowhere holds no checkpoint"),
        ("--trainer ZeroshotCLIP --resume /nowhere", "RESUME is read in training alone"),
        ("--trainer CoOp --eval-only --model-dir x --resume y", "RESUME is read in training alone"),
        ("DATASET.FOLD 1/4 TEST.SPLIT val", "DATASET.FOLD .* needs TEST.SPLIT test"),
        ("--head x", r"MODEL.HEAD.NAME \(--head\) must be"),
    ],
)
def test_flags_and_keys_that_contradict_each_other_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        config(*words.split())


def test_what_learns_nothing_is_evaluated_without_a_run():
    assert config("--trainer", "ZeroshotCLIP", "--eval-only").TRAINER.NAME == "ZeroshotCLIP"


def test_a_run_may_resume_from_its_own_new_folder(tmp_path):
    config("--trainer", "CoOp", "--resume", tmp_path / "new", "--output-dir", tmp_path / "new")


@pytest.mark.parametrize("kind", ["trainer", "dataset"])
def test_a_trainer_or_data_set_of_dassls_own_may_read_all_of_its_keys(monkeypatch, kind):
    monkeypatch.setitem(TRAINER_REGISTRY._obj_map, "Foreign", TrainerX)
    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "Foreign", DatasetBase)
    key = {"trainer": "TRAINER.NAME", "dataset": "DATASET.NAME"}[kind]
    assert config("--source-domains", "a", "--head", "mlp", key, "Foreign").MODEL.HEAD.NAME == "mlp"


def test_a_data_set_of_dassls_own_has_no_folds(monkeypatch):
    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "Foreign", DatasetBase)
    with pytest.raises(ValueError, match=r"^DATASET.FOLD must be \"\": Foreign deals no pictures"):
        config("DATASET.NAME", "Foreign", "DATASET.FOLD", "1/4")


def test_a_text_may_look_like_a_number(tmp_path):
    assert config("--output-dir", "2024", "DATASET.ROOT", "007").OUTPUT_DIR == "2024"
    assert config("MODEL.INIT_WEIGHTS", '""').MODEL.INIT_WEIGHTS == ""


@pytest.mark.parametrize("key", ["SHARPNESS", "LR_MULT", "MOMENTUM", "BALANCE", "HEAD"])
def test_a_key_that_is_gone_is_said_to_be(key):
    args = train.parse_args(["--trainer", "Spotlighter", f"TRAINER.SPOTLIGHTER.{key}", "1"])
    with pytest.raises(ValueError, match=f"{key} is a key of earlier versions") as found:
        build_config(args)
    assert "do you mean" not in str(found.value)


def test_the_help_has_every_flag_in_a_group():
    grouped = " ".join(arguments.GROUPS.values()).split()
    flags = {*arguments.SETTINGS, *arguments.FILES, *arguments.SWITCHES, "--load-epoch"}
    assert sorted(grouped) == sorted(flags)


def test_what_differs_from_the_defaults_is_a_line_a_key():
    cfg = config("--seed", 3, "OPTIM.LR", "0.5", "INPUT.SIZE", "(64, 64)")
    lines = {"INPUT.SIZE: (64, 64)", "OPTIM.LR: 0.5", "SEED: 3"}
    assert set(changed_lines(cfg).splitlines()) == lines
    assert changed_lines(default_config()) == ""
