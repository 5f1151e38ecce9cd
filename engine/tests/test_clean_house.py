"""What no file of the engine may contain, and how light it is to import."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dassl import left_out

SOURCE = Path(__file__).parents[1] / "src" / "dassl"
FILES = sorted(SOURCE.rglob("*.py"))

README = Path(__file__).parents[1] / "README.md"
SURFACE = {
    module: re.findall(r"`(\w+)`", names)
    for module, names in re.findall(r"^\| `(dassl[\w.]*)` \| (.*) \|$", README.read_text(), re.M)
}

IMPORTED = (
    "config data data.data_manager data.datasets data.datasets.base_dataset data.samplers "
    "data.transforms engine engine.trainer evaluation metrics modeling optim optim.lr_scheduler "
    "optim.radam utils utils.tools"
)
HOOKS = (
    "check_cfg build_data_loader build_model forward_backward model_inference parse_batch_train "
    "parse_batch_test before_train after_train before_epoch after_epoch model_backward_and_update "
    "update_lr save_model load_model test register_model get_model_names set_model_mode "
    "write_scalar run_epoch model_zero_grad model_backward model_update detect_anomaly "
    "get_current_lr init_writer close_writer resume_model_if_exist train"
)


@pytest.mark.parametrize("module", SURFACE)
def test_the_page_lists_what_a_module_has(module):
    found = importlib.import_module(module)
    assert SURFACE[module] == sorted(found.__all__)
    assert [name for name in found.__all__ if not hasattr(found, name)] == []


def test_the_page_lists_every_module_that_projects_import():
    """As CoOp, MaPLe, PromptSRC, PromptKD, KgCoOp, TextRefiner, ProGrad and SkipTuning do."""
    assert set(SURFACE) >= {f"dassl.{name}" for name in IMPORTED.split()}


@pytest.mark.parametrize("module", left_out.MODULES)
def test_modules_that_are_left_out_name_upstream(module):
    with pytest.raises(ModuleNotFoundError, match=f"{module} is not in .*Dassl.pytorch"):
        importlib.import_module(module)


@pytest.mark.parametrize(("module", "name"), [("engine", "DANN"), ("data.datasets", "PACS")])
def test_names_that_are_left_out_name_upstream(module, name):
    with pytest.raises(ImportError, match=f"{name} is not in .*Dassl.pytorch"):
        exec(f"from dassl.{module} import {name}")
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec(f"from dassl.{module} import Nothing")


def test_every_hook_exists():
    from dassl.engine import TrainerX

    assert [name for name in HOOKS.split() if not hasattr(TrainerX, name)] == []


@pytest.mark.parametrize(
    "pattern", [r"\.cuda\(", r"\bprint\(", r"np\.int\b", r"DataParallel\(", r"\bTODO\b", r"wilds"]
)
def test_no_file_contains(pattern):
    assert len(FILES) > 20
    assert [path.name for path in FILES if re.search(pattern, path.read_text())] == []


def test_files_fit_their_length():
    assert [path.name for path in FILES if len(path.read_text().splitlines()) > 400] == []


def test_registries_and_config_need_no_torch():
    """A tool that asks which trainers there are, or its help, does not wait for torch."""
    code = (
        "import sys, dassl.config, dassl.data\n"
        "from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset\n"
        "from dassl.engine import TRAINER_REGISTRY, build_trainer\n"
        "from dassl.utils import Registry, check_availability, read_json, setup_logger\n"
        "assert not {'torch', 'torchvision'} & set(sys.modules)\n"
        "from dassl.engine import TrainerX\n"
        "assert 'torch' in sys.modules and TrainerX.__mro__[1].__name__ == 'TrainerBase'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_is_light_and_leaves_logging_alone(tmp_path):
    code = (
        "import logging, sys, dassl.engine, dassl.data, dassl.evaluation\n"
        "heavy = {'tensorboard', 'gdown', 'sklearn', 'pandas', 'matplotlib', 'wilds'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert logging.root.manager.disable == 0 and not logging.root.handlers\n"
        "from dassl.utils import setup_logger\n"
        "setup_logger(sys.argv[1])\n"
        "logging.getLogger('dassl.engine').info('a line')\n"
        "logging.basicConfig(stream=sys.stdout)\n"
        "logging.getLogger('dassl.engine').info('once')\n"
    )
    log = tmp_path / "log.txt"
    run = subprocess.run(
        [sys.executable, "-c", code, str(log)], capture_output=True, text=True, check=False
    )
    assert run.stderr == ""
    assert run.stdout == "a line\nonce\n" == log.read_text()
