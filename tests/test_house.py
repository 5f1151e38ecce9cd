"""Rules of the house that a search can check."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

PROJECT = Path(__file__).parents[1]
SOURCES = [
    path
    for folder in ("models", "trainers", "runs", "inference", "datasets", "tools", "lab")
    for path in sorted((PROJECT / folder).rglob("*.py"))
]
HEART = [p for p in SOURCES if p.relative_to(PROJECT).parts[0] in ("models", "trainers", "runs")]
MODELS = [p for p in HEART if p.relative_to(PROJECT).parts[0] == "models"]
# The public surface of the engine that project code may use.
SURFACE = {
    "dassl.engine": {"TRAINER_REGISTRY", "TrainerX", "build_trainer"},
    "dassl.data": {"DatasetWrapper", "DataManager"},
    "dassl.data.datasets": {"DATASET_REGISTRY", "Datum", "DatasetBase", "build_dataset"},
    "dassl.data.datasets.base_dataset": {"Datum"},
    "dassl.data.transforms": {"build_transform", "INTERPOLATION_MODES"},
    "dassl.config": {"get_cfg_default", "clean_cfg"},
    "dassl.metrics": {"compute_accuracy"},
    "dassl.evaluation": {"EVALUATOR_REGISTRY", "build_evaluator"},
    "dassl.optim": {"build_optimizer", "build_lr_scheduler"},
    "dassl.utils": {
        "Registry",
        "setup_logger",
        "set_random_seed",
        "collect_env_info",
        "load_checkpoint",
        "save_checkpoint",
        "resume_from_checkpoint",
        "load_pretrained_weights",
        "count_num_param",
        "read_image",
        "read_json",
        "write_json",
        "mkdir_if_missing",
        "check_isfile",
        "listdir_nohidden",
        "MetricMeter",
        "AverageMeter",
    },
}


def name(path):
    return str(path.relative_to(PROJECT))


@pytest.mark.parametrize("path", HEART, ids=name)
def test_device_and_widths_come_from_the_model(path):
    if path.name == "load.py":  # holds the shapes of OpenAI's models
        return
    found = re.findall(r"\.cuda\(\)|\b(?:512|768|224)\b", path.read_text())
    assert not found


@pytest.mark.parametrize("path", [*SOURCES, PROJECT / "train.py"], ids=name)
def test_only_public_names_of_the_engine_are_imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("dassl") for alias in node.names)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dassl"):
            assert {alias.name for alias in node.names} <= SURFACE.get(node.module, set())


@pytest.mark.parametrize("path", MODELS, ids=name)
def test_models_see_no_config_no_engine_and_no_trainer(path):
    assert not re.search(r"\bcfg\b|\byacs\b|\bdassl\b|\btrainers\b", path.read_text())


def test_the_models_and_the_predictor_are_light_to_import():
    """What opens a run is imported when one is opened."""
    modules = [name(p)[: -len(".py")].replace("/", ".") for p in MODELS if p.stem != "__init__"]
    code = f"import sys, inference.predictor, {', '.join(modules)}; "
    code += "print(*{m.split('.')[0] for m in sys.modules})"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert not {"dassl", "yacs", "trainers", "datasets", "tools"} & set(found.stdout.split())


MAKERS = {"arange", "zeros", "ones", "empty", "full", "tensor", "eye", "rand", "randn", "linspace"}
WAITS = {"item", "tolist", "cpu", "numpy", "nonzero"}  # of a tensor: the host waits for the device


def forward_calls(path):
    """Calls in the functions of a file, but for constructors and what runs once, by attribute."""
    once = {"__init__", "shrink", "gaussian_weights", "random_clip", "random_prompts"}
    once |= {"load_tiny_clip", "as_parameter"}
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef) and function.name not in once:
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    yield function, node


@pytest.mark.parametrize("path", MODELS, ids=name)
def test_tensors_are_made_on_a_device_that_is_named(path):
    for function, call in forward_calls(path):
        owner = call.func.value
        if isinstance(owner, ast.Name) and owner.id == "torch" and call.func.attr in MAKERS:
            given = {keyword.arg for keyword in call.keywords}
            assert "device" in given, f"{function.name}, line {call.lineno}"


AFTER_TRAINING = {"evidence.py", "fit.py"}


@pytest.mark.parametrize("path", [p for p in MODELS if p.name not in AFTER_TRAINING], ids=name)
def test_nothing_waits_for_the_device(path):
    # once an epoch, an evaluation or a run
    at_leisure = {"add", "calibrate", "tokenize", "common_prefix", "pack", "_slot_order"}
    at_leisure |= {"fill", "text_side", "summary"}
    for function, call in forward_calls(path):
        if function.name not in at_leisure:
            assert call.func.attr not in WAITS, f"{function.name}, line {call.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_pictures_are_opened_and_found_in_one_place(path):
    if path != PROJECT / "datasets" / "pictures.py":
        assert not re.search(r"Image\.open|IMG_EXTENSIONS|\bread_image\b", path.read_text())


def test_every_tool_says_what_the_machine_is_short_of():
    for path in [p for folder in ("tools", "lab") for p in (PROJECT / folder).glob("*.py")]:
        text = path.read_text()
        if "parser_of(" in text and re.search(r"^def main\(.*-> int:$", text, re.MULTILINE):
            assert "\n@reports_user_errors\ndef main(" in text, path


OWN_TEXTS = {"pictures.py", "emoji.py", "emoji_pictures.py", "subsets.py"}  # no lists of users


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_lists_of_users_are_read_in_one_place(path):
    text = path.read_text()
    assert "utf-8-sig" not in text
    if path.parent.name == "datasets" and path.name not in OWN_TEXTS:
        assert not re.search(r"\.read_text\(|\.open\(", text)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


def test_no_modules_import_one_another_in_a_circle():
    """Imports for type checkers and those within functions are counted."""
    packages = ("lab", "tools", "inference", "trainers", "runs", "models", "datasets")
    graph = grimp.build_graph(*packages)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()  # an error names the circle
