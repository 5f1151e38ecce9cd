# ruff: noqa: PTH100, PTH110, PTH111, PTH118, T201 - the style of the published files
"""A data set and a trainer as the published CoOp-family files write them: only Dassl's API."""

import os.path as osp

import torch
import torch.nn as nn
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import listdir_nohidden, load_checkpoint, load_pretrained_weights
from torch.nn import functional as F

CLASSES = ["red", "green", "blue"]


@DATASET_REGISTRY.register()
class ToyColours(DatasetBase):
    dataset_dir = "toy_colours"

    def __init__(self, cfg):
        root = osp.abspath(osp.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = osp.join(root, self.dataset_dir)
        train, val, test = (self.read_data(part) for part in ("train", "val", "test"))
        num_shots = cfg.DATASET.NUM_SHOTS
        if num_shots >= 1:
            train = self.generate_fewshot_dataset(train, num_shots=num_shots)
            val = self.generate_fewshot_dataset(val, num_shots=min(num_shots, 4))
        super().__init__(train_x=train, val=val, test=test)

    def read_data(self, part):
        items = []
        for label, classname in enumerate(CLASSES):
            folder = osp.join(self.dataset_dir, part, classname)
            for name in listdir_nohidden(folder, sort=True):
                impath = osp.join(folder, name)
                items.append(Datum(impath=impath, label=label, classname=classname))
        return items


@DATASET_REGISTRY.register()
class ToyColoursU(ToyColours):
    def __init__(self, cfg):
        super().__init__(cfg)
        DatasetBase.__init__(
            self, train_x=self.train_x, train_u=self.test[:4], val=None, test=self.test
        )


class PromptLearner(nn.Module):
    def __init__(self, classnames):
        super().__init__()
        self.ctx = nn.Parameter(torch.randn(len(classnames), 3) * 0.02)
        self.register_buffer("token_prefix", torch.zeros(1))

    def forward(self, features):
        return features @ self.ctx.t()


class CustomCLIP(nn.Module):
    def __init__(self, classnames):
        super().__init__()
        self.prompt_learner = PromptLearner(classnames)
        self.frozen = nn.Linear(1, 1)

    def forward(self, image):
        return self.prompt_learner(image.mean(dim=(2, 3)))


@TRAINER_REGISTRY.register()
class ToyCoOp(TrainerX):
    def check_cfg(self, cfg):
        assert cfg.TRAINER.TOYCOOP.PREC in ["fp16", "fp32", "amp"]

    def build_model(self):
        cfg = self.cfg
        classnames = self.dm.dataset.classnames
        self.model = CustomCLIP(classnames)
        for name, param in self.model.named_parameters():
            if "prompt_learner" not in name:
                param.requires_grad_(False)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model.prompt_learner, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, self.optim, self.sched)
        self.prec = cfg.TRAINER.TOYCOOP.PREC

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        self.model_backward_and_update(loss)
        loss_summary = {
            "loss": loss.item(),
            "acc": compute_accuracy(output, label)[0].item(),
        }
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return loss_summary

    def parse_batch_train(self, batch):
        input = batch["img"]
        label = batch["label"]
        input = input.to(self.device)
        label = label.to(self.device)
        return input, label

    def load_model(self, directory, epoch=None):
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        names = self.get_model_names()
        model_file = "model-best.pth.tar"
        if epoch is not None:
            model_file = "model.pth.tar-" + str(epoch)
        for name in names:
            model_path = osp.join(directory, name, model_file)
            if not osp.exists(model_path):
                raise FileNotFoundError(f'Model not found at "{model_path}"')
            checkpoint = load_checkpoint(model_path)
            state_dict = checkpoint["state_dict"]
            epoch = checkpoint["epoch"]
            if "token_prefix" in state_dict:
                del state_dict["token_prefix"]
            print(f'Loading weights to {name} from "{model_path}" (epoch = {epoch})')
            self._models[name].load_state_dict(state_dict, strict=False)


@TRAINER_REGISTRY.register()
class ToyPlain(TrainerX):
    """Keeps upstream's parse_batch_train, load_model and model_inference."""

    def build_model(self):
        self.model = CustomCLIP(self.dm.dataset.classnames).to(self.device)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("model", self.model, self.optim, self.sched)

    def forward_backward(self, batch):
        image, label, _domain = self.parse_batch_train(batch)
        loss = F.cross_entropy(self.model(image), label)
        self.model_backward_and_update(loss)
        return {"loss": loss.item()}
