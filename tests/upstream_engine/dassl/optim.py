"""Optimisers and schedules."""

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR


def build_optimizer(model, optim_cfg, param_groups=None):
    if param_groups is None:
        param_groups = model.parameters() if isinstance(model, torch.nn.Module) else model
    kwargs = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    if optim_cfg.NAME == "sgd":
        return torch.optim.SGD(param_groups, momentum=optim_cfg.MOMENTUM, **kwargs)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optim_cfg.NAME]
    return kind(param_groups, betas=(optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2), **kwargs)


class _BaseWarmupScheduler(LRScheduler):
    def __init__(self, optimizer, successor, warmup_epoch, last_epoch=-1):
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, last_epoch)

    def step(self, epoch=None):
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()
        else:
            super().step(epoch)

    def get_lr(self):
        if self.last_epoch >= self.warmup_epoch:
            return self.successor.get_last_lr()
        return self.warmup_lr()


class ConstantWarmupScheduler(_BaseWarmupScheduler):
    def __init__(self, optimizer, successor, warmup_epoch, cons_lr, last_epoch=-1):
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self):
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(_BaseWarmupScheduler):
    def __init__(self, optimizer, successor, warmup_epoch, min_lr, last_epoch=-1):
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self):
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def build_lr_scheduler(optimizer, optim_cfg):
    step = optim_cfg.STEPSIZE[-1]
    scheduler = {
        "single_step": lambda: StepLR(
            optimizer, step if step > 0 else optim_cfg.MAX_EPOCH, optim_cfg.GAMMA
        ),
        "multi_step": lambda: MultiStepLR(optimizer, optim_cfg.STEPSIZE, optim_cfg.GAMMA),
        "cosine": lambda: CosineAnnealingLR(optimizer, float(optim_cfg.MAX_EPOCH)),
    }[optim_cfg.LR_SCHEDULER]()
    if optim_cfg.WARMUP_EPOCH <= 0:
        return scheduler
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = optim_cfg.WARMUP_EPOCH
    kind, rate = {
        "constant": (ConstantWarmupScheduler, optim_cfg.WARMUP_CONS_LR),
        "linear": (LinearWarmupScheduler, optim_cfg.WARMUP_MIN_LR),
    }[optim_cfg.WARMUP_TYPE]
    return kind(optimizer, scheduler, optim_cfg.WARMUP_EPOCH, rate)
