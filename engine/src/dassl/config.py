"""The default config of Dassl 0.6.3; a trainer adds its own node under ``TRAINER``."""

from typing import Any

from yacs.config import CfgNode

__all__ = ["clean_cfg", "get_cfg_default"]

TRAIN_LOADER = {"SAMPLER": "RandomSampler", "BATCH_SIZE": 32, "N_DOMAIN": 0, "N_INS": 16}
DEFAULTS: dict[str, Any] = {
    "OUTPUT_DIR": "./output", "RESUME": "",
    "SEED": -1,  # negative: no seed
    "USE_CUDA": True, "VERBOSE": True,
    "INPUT": {
        "SIZE": (224, 224),  # height, width in pixels
        "INTERPOLATION": "bilinear",  # bilinear | bicubic | nearest
        "TRANSFORMS": (), "NO_TRANSFORM": False,
        "PIXEL_MEAN": [0.485, 0.456, 0.406], "PIXEL_STD": [0.229, 0.224, 0.225],
        "CROP_PADDING": 4,  # pixels, random_crop
        "RRCROP_SCALE": (0.08, 1.0),  # fraction of the area, random_resized_crop
        "CUTOUT_N": 1,
        "CUTOUT_LEN": 16,  # pixels
        "GN_MEAN": 0.0, "GN_STD": 0.15,
        "RANDAUGMENT_N": 2,
        "RANDAUGMENT_M": 10,  # magnitude, 0..30
        "COLORJITTER_B": 0.4, "COLORJITTER_C": 0.4, "COLORJITTER_S": 0.4, "COLORJITTER_H": 0.1,
        "RGS_P": 0.2,  # probability, randomgrayscale
        "GB_P": 0.5,  # probability, gaussian_blur
        "GB_K": 21,  # kernel size, odd
    },
    "DATASET": {
        "ROOT": "", "NAME": "",
        "SOURCE_DOMAINS": (), "TARGET_DOMAINS": (),
        "NUM_LABELED": -1,
        "NUM_SHOTS": -1,  # training pictures per class; below 1: all
        "VAL_PERCENT": 0.1, "ALL_AS_UNLABELED": False,
    },
    "DATALOADER": {
        "NUM_WORKERS": 4,
        "K_TRANSFORMS": 1,  # training views of one picture
        "RETURN_IMG0": False,
        "TRAIN_X": TRAIN_LOADER, "TRAIN_U": {"SAME_AS_X": True, **TRAIN_LOADER},
        "TEST": {"SAMPLER": "SequentialSampler", "BATCH_SIZE": 32},
    },
    "MODEL": {
        "INIT_WEIGHTS": "",
        "BACKBONE": {"NAME": "", "PRETRAINED": True},
        # Not read here; train.py files of the published projects set HEAD.NAME.
        "HEAD": {"NAME": "", "HIDDEN_LAYERS": (), "ACTIVATION": "relu", "BN": True, "DROPOUT": 0.0},
    },
    "OPTIM": {
        "NAME": "adam", "LR": 0.0003, "WEIGHT_DECAY": 5e-4, "MOMENTUM": 0.9,
        "SGD_DAMPNING": 0, "SGD_NESTEROV": False,
        "RMSPROP_ALPHA": 0.99,
        "ADAM_BETA1": 0.9, "ADAM_BETA2": 0.999,
        "STAGED_LR": False, "NEW_LAYERS": (), "BASE_LR_MULT": 0.1,
        "LR_SCHEDULER": "single_step",
        "STEPSIZE": (-1,),  # epochs; not positive: MAX_EPOCH
        "GAMMA": 0.1,
        "MAX_EPOCH": 10,
        "WARMUP_EPOCH": -1,  # not positive: no warm-up
        "WARMUP_TYPE": "linear",  # linear | constant
        "WARMUP_CONS_LR": 1e-5, "WARMUP_MIN_LR": 1e-5,
        "WARMUP_RECOUNT": True,
    },
    "TRAIN": {
        "CHECKPOINT_FREQ": 0,  # epochs; 0: only at the end
        "PRINT_FREQ": 10,  # batches
        "COUNT_ITER": "train_x",
    },
    "TEST": {
        "EVALUATOR": "Classification",
        "PER_CLASS_RESULT": False, "COMPUTE_CMAT": False,
        "NO_TEST": False, "SPLIT": "test",
        "FINAL_MODEL": "last_step",  # last_step | best_val
    },
    "TRAINER": {"NAME": ""},
}


def get_cfg_default() -> CfgNode:
    """Return a fresh copy of the defaults."""
    return CfgNode(DEFAULTS)


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Remove from ``cfg.TRAINER``, in place, the nodes of all trainers but the one named."""
    keep = {"NAME", trainer.upper()}
    for key in [key for key in cfg.TRAINER if key not in keep]:
        cfg.TRAINER.pop(key)
