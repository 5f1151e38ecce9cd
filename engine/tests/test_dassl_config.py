import pytest
from dassl.config import clean_cfg, get_cfg_default
from yacs.config import CfgNode

# The defaults of Dassl 0.6.3, node by node.
DEFAULTS = {
    "": {"OUTPUT_DIR": "./output", "RESUME": "", "SEED": -1, "USE_CUDA": True, "VERBOSE": True},
    "INPUT": {
        "SIZE": (224, 224), "INTERPOLATION": "bilinear", "TRANSFORMS": (), "NO_TRANSFORM": False,
        "PIXEL_MEAN": [0.485, 0.456, 0.406], "PIXEL_STD": [0.229, 0.224, 0.225],
        "CROP_PADDING": 4, "RRCROP_SCALE": (0.08, 1.0), "CUTOUT_N": 1, "CUTOUT_LEN": 16,
        "GN_MEAN": 0.0, "GN_STD": 0.15, "RANDAUGMENT_N": 2, "RANDAUGMENT_M": 10,
        "COLORJITTER_B": 0.4, "COLORJITTER_C": 0.4, "COLORJITTER_S": 0.4, "COLORJITTER_H": 0.1,
        "RGS_P": 0.2, "GB_P": 0.5, "GB_K": 21,
    },
    "DATASET": {
        "ROOT": "", "NAME": "", "SOURCE_DOMAINS": (), "TARGET_DOMAINS": (), "NUM_LABELED": -1,
        "NUM_SHOTS": -1, "VAL_PERCENT": 0.1, "ALL_AS_UNLABELED": False,
    },
    "DATALOADER": {"NUM_WORKERS": 4, "K_TRANSFORMS": 1, "RETURN_IMG0": False},
    "DATALOADER.TRAIN_X": {
        "SAMPLER": "RandomSampler", "BATCH_SIZE": 32, "N_DOMAIN": 0, "N_INS": 16,
    },
    "DATALOADER.TRAIN_U": {
        "SAME_AS_X": True, "SAMPLER": "RandomSampler", "BATCH_SIZE": 32, "N_DOMAIN": 0,
        "N_INS": 16,
    },
    "DATALOADER.TEST": {"SAMPLER": "SequentialSampler", "BATCH_SIZE": 32},
    "MODEL": {"INIT_WEIGHTS": ""},
    "MODEL.BACKBONE": {"NAME": "", "PRETRAINED": True},
    "MODEL.HEAD": {
        "NAME": "", "HIDDEN_LAYERS": (), "ACTIVATION": "relu", "BN": True, "DROPOUT": 0.0,
    },
    "OPTIM": {
        "NAME": "adam", "LR": 0.0003, "WEIGHT_DECAY": 5e-4, "MOMENTUM": 0.9, "SGD_DAMPNING": 0,
        "SGD_NESTEROV": False, "RMSPROP_ALPHA": 0.99, "ADAM_BETA1": 0.9, "ADAM_BETA2": 0.999,
        "STAGED_LR": False, "NEW_LAYERS": (), "BASE_LR_MULT": 0.1, "LR_SCHEDULER": "single_step",
        "STEPSIZE": (-1,), "GAMMA": 0.1, "MAX_EPOCH": 10, "WARMUP_EPOCH": -1,
        "WARMUP_TYPE": "linear", "WARMUP_CONS_LR": 1e-5, "WARMUP_MIN_LR": 1e-5,
        "WARMUP_RECOUNT": True,
    },
    "TRAIN": {"CHECKPOINT_FREQ": 0, "PRINT_FREQ": 10, "COUNT_ITER": "train_x"},
    "TEST": {
        "EVALUATOR": "Classification", "PER_CLASS_RESULT": False, "COMPUTE_CMAT": False,
        "NO_TEST": False, "SPLIT": "test", "FINAL_MODEL": "last_step",
    },
    "TRAINER": {"NAME": ""},
}  # fmt: skip


@pytest.mark.parametrize("node", DEFAULTS)
def test_defaults_are_those_of_dassl(node):
    found = get_cfg_default()
    for part in filter(None, node.split(".")):
        found = found[part]
    for key, value in DEFAULTS[node].items():
        assert found[key] == value, f"{node}.{key}"
        assert type(found[key]) is type(value), f"{node}.{key}"


def test_each_call_gives_a_clone():
    first = get_cfg_default()
    first.OPTIM.LR = 1.0
    first.TRAINER.MINE = CfgNode({"X": 1})
    assert get_cfg_default().OPTIM.LR == 0.0003
    assert "MINE" not in get_cfg_default().TRAINER


def test_clean_cfg_keeps_the_name_and_the_node_of_one_trainer():
    cfg = get_cfg_default()
    cfg.TRAINER.COOP = CfgNode({"N_CTX": 16})
    cfg.TRAINER.MAPLE = CfgNode({"N_CTX": 2})
    clean_cfg(cfg, "CoOp")
    assert sorted(cfg.TRAINER) == ["COOP", "NAME"]
