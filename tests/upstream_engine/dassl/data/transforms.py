"""Transforms: resize or a random crop, flip, normalise."""

import torchvision.transforms as T

INTERPOLATION_MODES = {mode.value: mode for mode in T.InterpolationMode}


def build_transform(cfg, is_train=True, choices=None):
    choices = cfg.INPUT.TRANSFORMS if choices is None else choices
    size, mode = cfg.INPUT.SIZE, INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]
    scale = cfg.INPUT.RRCROP_SCALE
    if not is_train:
        steps = [T.Resize(max(size), interpolation=mode), T.CenterCrop(size)]
    elif "random_resized_crop" in choices:
        steps = [T.RandomResizedCrop(size, scale=scale, interpolation=mode)]
    else:
        steps = [T.Resize(size, interpolation=mode)]
    if is_train and "random_flip" in choices:
        steps.append(T.RandomHorizontalFlip())
    steps.append(T.ToTensor())
    if "normalize" in choices:
        steps.append(T.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD))
    return T.Compose(steps)
