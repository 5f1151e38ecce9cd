"""Helpers: files, names, seeds, meters, checkpoints."""

import json
import random
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image


class Registry:
    def __init__(self, name):
        self._name, self._obj_map = name, {}

    def register(self, obj=None, force=False):
        if obj is None:
            return lambda found: self.register(found, force) or found
        if obj.__name__ in self._obj_map and not force:
            raise KeyError(f"{obj.__name__} is already registered in {self._name}")
        self._obj_map[obj.__name__] = obj
        return None

    def get(self, name):
        return self._obj_map[name]

    def registered_names(self):
        return list(self._obj_map)


def check_availability(requested, available):
    if requested not in available:
        raise ValueError(f"The requested one is expected to belong to {available}")


class Logger:
    def __init__(self, fpath):
        self.console = sys.stdout
        Path(fpath).parent.mkdir(parents=True, exist_ok=True)
        self.file = Path(fpath).open("w")

    def write(self, msg):
        self.console.write(msg)
        self.file.write(msg)

    def flush(self):
        self.console.flush()
        self.file.flush()


def setup_logger(output=None):
    if output is not None:
        sys.stdout = Logger(Path(output) / "log.txt")


def set_random_seed(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def collect_env_info():
    return f"torch {torch.__version__}"


def read_image(path):
    if not Path(path).exists():
        raise OSError(f"No file exists at {path}")
    return Image.open(path).convert("RGB")


def read_json(fpath):
    return json.loads(Path(fpath).read_text())


def count_num_param(model=None, params=None):
    return sum(p.numel() for p in (params if model is None else model.parameters()))


def save_checkpoint(
    state, save_dir, is_best=False, remove_module_from_keys=True, model_name=""
):
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    names = state["state_dict"]
    if remove_module_from_keys:
        state["state_dict"] = {k.removeprefix("module."): v for k, v in names.items()}
    fpath = folder / (model_name or f"model.pth.tar-{state['epoch']}")
    torch.save(state, str(fpath))
    (folder / "checkpoint").write_text(f"{fpath.name}\n")
    if is_best:
        shutil.copy(fpath, folder / "model-best.pth.tar")


def load_checkpoint(fpath):
    return torch.load(fpath, map_location=None if torch.cuda.is_available() else "cpu")


def resume_from_checkpoint(fdir, model, optimizer=None, scheduler=None):
    name = (Path(fdir) / "checkpoint").read_text().strip()
    checkpoint = load_checkpoint(str(Path(fdir) / name))
    model.load_state_dict(checkpoint["state_dict"])
    for part, key in ((optimizer, "optimizer"), (scheduler, "scheduler")):
        if part is not None:
            part.load_state_dict(checkpoint[key])
    return checkpoint["epoch"]


class AverageMeter:
    def __init__(self):
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val, n=1):
        self.val, self.sum, self.count = val, self.sum + val * n, self.count + n
        self.avg = self.sum / self.count


class MetricMeter:
    def __init__(self):
        self.meters = defaultdict(AverageMeter)

    def update(self, input_dict):
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self):
        return " ".join(f"{k} {m.val:.4f} ({m.avg:.4f})" for k, m in self.meters.items())
