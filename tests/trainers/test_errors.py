"""Every mistake ends in one sentence and exit code 2; nothing is loaded that does not fit."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from runs import errors
from trainers import TRAINERS

PROJECT = Path(__file__).parents[2]
CSC = {"TRAINER__COOP__CSC": True, "TRAINER__COOP__CTX_INIT": "", "TRAINER__COOP__N_CTX": 2}


@pytest.fixture
def trained(run, tmp_path):
    def go(trainer="CoOp", **kwargs):
        run(trainer, "trained", DATASET__SUBSAMPLE_CLASSES="base", OPTIM__MAX_EPOCH=1, **kwargs)
        return ("--eval-only", "--model-dir", str(tmp_path / "trained"))

    return go


def test_an_unknown_trainer_lists_those_that_exist(fails):
    found = fails("CoOpp")
    assert "CoOpp" in found
    assert "Spotlighter" in found


def test_an_unknown_data_set_lists_those_that_exist(fails):
    found = fails("CoOp", DATASET__NAME="Toyy")
    assert "Toyy" in found
    assert "EuroSAT" in found


def test_an_unknown_subset_lists_those_that_exist(fails):
    found = fails("CoOp", DATASET__SUBSAMPLE_CLASSES="novel")
    assert "novel" in found
    assert all(name in found for name in ("all", "base", "new"))


def test_a_missing_data_set_folder_says_where_it_was_looked_for(fails, tmp_path):
    found = fails("CoOp", flags=("--root", str(tmp_path / "nowhere")))
    assert str(tmp_path / "nowhere" / "toy") in found
    assert "--root" in found


def test_an_unknown_key_suggests_a_near_one(fails):
    assert "do you mean OPTIM.LR" in fails("CoOp", OPTIM__LRR=1)


def test_a_missing_config_file_is_named(fails):
    assert "no.yaml does not exist" in fails("CoOp", flags=("--config-file", "configs/no.yaml"))


def test_an_unknown_backbone_lists_those_that_exist(fails):
    found = fails("CoOp", MODEL__BACKBONE__NAME="ViT-Z")
    assert "tiny-emoji" in found
    assert "ViT-B/16" in found


def test_all_faults_of_the_settings_are_named(fails):
    options = {"TOPK": 17, "BASE": "Coop", "LEVELS": "('global', '3')", "NEW": "none"}
    found = fails("Spotlighter", **{f"TRAINER__SPOTLIGHTER__{k}": v for k, v in options.items()})
    assert "PROTOTYPES must not be below TOPK, got 16 < 17" in found
    assert "BASE must be one of CoCoOp, CoOp" in found
    assert "LEVELS must name some of global, 1, 2, both, got 3" in found
    assert "NEW must be one of auto, inherit, text, off, got 'none'" in found


def test_class_specific_context_is_refused_by_spotlighter(fails):
    assert "Spotlighter needs a shared context" in fails("Spotlighter", **CSC)


def test_a_resnet_is_refused_by_spotlighter(fails):
    found = fails("Spotlighter", MODEL__BACKBONE__NAME="RN50", INPUT__SIZE=(224, 224))
    assert "a ResNet backbone has none; choose a ViT" in found


def test_a_checkpoint_that_is_not_there(fails, tmp_path):
    flags = ("--eval-only", "--model-dir", str(tmp_path / "none"))
    assert "no checkpoint model-best.pth.tar in" in fails("CoOp", flags=flags)


def test_an_epoch_that_is_not_there_lists_those_that_are(fails, trained):
    flags = (*trained(), "--load-epoch", "7")
    found = fails("CoOp", flags=flags)
    assert "model.pth.tar-7" in found
    assert "found: model.pth.tar-1" in found


def test_a_checkpoint_of_another_trainer(fails, trained):
    found = fails("Spotlighter", flags=trained("CoOp"))
    assert "was written with trainer CoOp, and this run has Spotlighter" in found


def test_a_checkpoint_of_another_context_length(fails, trained):
    found = fails("CoOp", flags=trained("CoOp"), TRAINER__COOP__CTX_INIT="a photo")
    assert "context_length 4, and this run has 2 (the learned context has another shape)" in found


def test_a_checkpoint_of_another_head(fails, trained):
    found = fails("Spotlighter", flags=trained("Spotlighter"), TRAINER__SPOTLIGHTER__TOKENS="raw")
    assert "TRAINER.SPOTLIGHTER.TOKENS value, and this run has raw" in found


def test_a_class_specific_context_of_other_classes(fails, trained):
    flags = trained("CoOp", **CSC)
    found = fails("CoOp", flags=flags, DATASET__SUBSAMPLE_CLASSES="new", **CSC)
    assert "was written with class_names ash tree, bee, cat," in found


def test_going_on_in_the_folder_of_another_run(fails, trained):
    trained("CoOp")
    found = fails("CoOp", output="trained", DATASET__SUBSAMPLE_CLASSES="new", OPTIM__MAX_EPOCH=2)
    assert "class_names" in found
    assert "--output-dir" in found


def test_a_file_that_is_no_checkpoint(fails, tmp_path):
    folder = tmp_path / "odd" / "prompt_learner"
    folder.mkdir(parents=True)
    torch.save([1, 2], folder / "model-best.pth.tar")
    flags = ("--eval-only", "--model-dir", str(tmp_path / "odd"))
    assert "has no state_dict" in fails("CoOp", flags=flags)


def test_a_refused_checkpoint_leaves_the_weights_alone(clip_model, class_names, tmp_path):
    from models.prompts import PromptLearner
    from runs.checkpoint import load_into

    learner = PromptLearner(class_names, clip_model.token_embedding, n_ctx=2)
    before = learner.ctx.detach().clone()
    with pytest.raises(ValueError, match="does not fit this trainer and config"):
        load_into(learner, {"state_dict": {"ctx": torch.zeros(3, 64)}}, tmp_path / "x")
    assert torch.equal(learner.ctx, before)


def test_debug_shows_the_traceback(arguments, monkeypatch):
    argv = ["train.py", *arguments("CoOpp", flags=("--debug",))]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(ValueError, match="CoOpp"):
        train.main()


def test_the_command_line_itself_ends_with_code_2():
    done = subprocess.run(
        [sys.executable, "train.py", "--trainer", "CoOpp", "--seed", "0"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("train.py: error: ")
    assert "Traceback" not in done.stderr


def test_without_a_trainer_all_are_listed(fails):
    found = fails("")
    assert "no trainer is named (--trainer); there are " in found
    assert {trainer.__name__ for trainer in TRAINERS} <= set(re.findall(r"\w+", found))


def test_published_buffers_are_ignored(run, trained, tmp_path):
    """CoOp's own checkpoints hold token_prefix and token_suffix, and say nothing of themselves."""
    flags = trained("CoOp")
    path = tmp_path / "trained" / "prompt_learner" / "model.pth.tar-1"
    saved = torch.load(path, weights_only=True)
    del saved["identity"]
    saved["state_dict"]["token_prefix"] = torch.zeros(3, 1, 128)
    saved["state_dict"]["token_suffix"] = torch.zeros(3, 72, 128)
    torch.save(saved, path)
    run("CoOp", "eval", flags=flags, DATASET__SUBSAMPLE_CLASSES="new")
    assert (tmp_path / "eval" / "results.json").is_file()


# As torch 2.6 to 2.14, Python and multiprocessing say it.
SHORT_OF = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), errors.GPU),
    (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), errors.GPU),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`"), errors.GPU),
    (
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate"),
        errors.HOST,
    ),
    (MemoryError(), errors.HOST),
    (MemoryError("std::bad_alloc"), errors.HOST),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), errors.HOST),
    (RuntimeError("can't start new thread"), errors.THREADS),
    (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), errors.THREADS),
    (OSError(errno.EMFILE, "Too many open files"), errors.FILES),
    (RuntimeError("received 0 items of ancdata"), errors.FILES),
    (RuntimeError("unable to open shared memory object: Too many open files"), errors.FILES),
    (RuntimeError("unable to write to file </torch_1_2>: No space left on device"), errors.SHM),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It"), errors.SHM),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), errors.WORKER),
    (RuntimeError("worker (pid 7) exited unexpectedly with exit code 24. "), errors.FILES),
    (RuntimeError("DataLoader worker exited unexpectedly with exit code 1. "), errors.WORKER),
    (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), errors.WORKER),
    (ValueError("Too many open files"), ""),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ""),
    (FileNotFoundError(errno.ENOENT, "No such file", "a.png"), ""),
]


@pytest.mark.parametrize(("error", "said"), SHORT_OF, ids=lambda value: str(value)[:40])
def test_what_the_machine_is_short_of_is_said_with_the_keys_that_help(error, said, capsys):
    assert errors.shortage(error) == said
    assert train.report(error, train.parse_args([])) == (1 if error is SHORT_OF[-2][0] else 2)
    assert capsys.readouterr().err.startswith(f"train.py: error: {said}")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "no checkpoint was written to {out}, so the same command begins anew"),
        (("--eval-only",), "the same command evaluates anew"),
    ],
)
@pytest.mark.parametrize(
    ("stop", "code", "word"),
    [(MemoryError(), 2, errors.HOST), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_what_a_stopped_run_has_left_is_said(
    arguments, monkeypatch, capsys, tmp_path, flags, said, stop, code, word
):
    """Of a want of memory as of Ctrl-C: nothing is said of a checkpoint that is not there."""

    def stopped(*_):
        raise stop

    pointer = tmp_path / "run" / "prompt_learner" / "checkpoint"
    pointer.parent.mkdir(parents=True)
    pointer.touch()  # as a full disk leaves it
    monkeypatch.setattr(train, "run_config", stopped)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments("ZeroshotCLIP", flags=flags)])
    assert train.main() == code
    line = capsys.readouterr().err.splitlines()[-1]
    assert word in line
    assert line.endswith(f"; {said.format(out=tmp_path / 'run')}")


def test_tools_say_it_too(monkeypatch, capsys):
    from tools import predict

    def short(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(predict, "parser_of", short)
    assert predict.main([]) == 2
    assert capsys.readouterr().err == f"predict: error: {errors.HOST}\n"
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        predict.main(["--debug"])


PRINTING = """
import sys
from tools.shared.command_line import reports_user_errors
@reports_user_errors
def main():
    print("x" * int(sys.argv[1]))
    return 0
sys.exit(main())
"""


@pytest.mark.parametrize("length", ["1", "1000000"])
def test_tools_end_well_where_nobody_reads_on(length):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", PRINTING, length]
    run = subprocess.run(command, cwd=PROJECT, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (run.returncode, run.stderr) == (0, b"")
