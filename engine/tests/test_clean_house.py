"""What no file of the engine may contain, and how light it is to import."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "dassl"
FILES = sorted(SOURCE.rglob("*.py"))

SURFACE = {
    "dassl.engine": "TRAINER_REGISTRY TrainerX TrainerXU SimpleTrainer TrainerBase build_trainer",
    "dassl.engine.trainer": "TrainerX TrainerXU SimpleTrainer TrainerBase",
    "dassl.data": "DatasetWrapper DataManager",
    "dassl.data.data_manager": "DatasetWrapper DataManager build_data_loader",
    "dassl.data.datasets": "DATASET_REGISTRY Datum DatasetBase build_dataset",
    "dassl.data.datasets.base_dataset": "Datum DatasetBase",
    "dassl.data.transforms": "build_transform INTERPOLATION_MODES",
    "dassl.data.transforms.transforms": "build_transform INTERPOLATION_MODES",
    "dassl.data.samplers": "build_sampler",
    "dassl.config": "get_cfg_default clean_cfg",
    "dassl.metrics": "compute_accuracy",
    "dassl.evaluation": "EVALUATOR_REGISTRY build_evaluator",
    "dassl.optim": "build_optimizer build_lr_scheduler",
    "dassl.utils": "Registry setup_logger set_random_seed collect_env_info load_checkpoint "
    "save_checkpoint resume_from_checkpoint load_pretrained_weights count_num_param read_json "
    "write_json mkdir_if_missing check_isfile listdir_nohidden MetricMeter AverageMeter "
    "check_availability read_image tolist_if_not",
}

HOOKS = (
    "check_cfg build_data_loader build_model forward_backward model_inference parse_batch_train "
    "parse_batch_test before_train after_train before_epoch after_epoch model_backward_and_update "
    "update_lr save_model load_model test register_model get_model_names set_model_mode "
    "write_scalar run_epoch model_zero_grad model_backward model_update detect_anomaly "
    "get_current_lr init_writer close_writer resume_model_if_exist train"
)


@pytest.mark.parametrize("module", SURFACE)
def test_every_name_of_the_contract_exists(module):
    found = __import__(module, fromlist=["x"])
    missing = [name for name in SURFACE[module].split() if not hasattr(found, name)]
    assert missing == []


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
