"""Loaders."""

import torch
import torchvision.transforms as T
from dassl.data.datasets import build_dataset
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.utils import read_image
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler


class DatasetWrapper(Dataset):
    def __init__(self, cfg, data_source, transform=None, is_train=False):
        self.cfg, self.data_source, self.transform = cfg, data_source, transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        mode = INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]
        self.to_tensor = T.Compose([T.Resize(cfg.INPUT.SIZE, interpolation=mode), T.ToTensor()])

    def __len__(self):
        return len(self.data_source)

    def __getitem__(self, idx):
        item = self.data_source[idx]
        output = {
            "label": item.label,
            "domain": item.domain,
            "impath": item.impath,
            "index": idx,
        }
        img0 = read_image(item.impath)
        output["img"] = img0 if self.transform is None else self._transform_image(img0)
        if self.return_img0:
            output["img0"] = self.to_tensor(img0)
        return output

    def _transform_image(self, img0):
        views = [self.transform(img0) for _ in range(self.k_tfm)]
        return views[0] if self.k_tfm == 1 else views


class DataManager:
    def __init__(
        self, cfg, custom_tfm_train=None, custom_tfm_test=None, dataset_wrapper=None
    ):
        self.dataset = dataset = build_dataset(cfg)
        train = custom_tfm_train or build_transform(cfg, is_train=True)
        test = custom_tfm_test or build_transform(cfg, is_train=False)

        def loader(items, settings, tfm, is_train):
            if not items:
                return None
            kind = {"RandomSampler": RandomSampler, "SequentialSampler": SequentialSampler}
            return DataLoader(
                (dataset_wrapper or DatasetWrapper)(cfg, items, transform=tfm, is_train=is_train),
                batch_size=settings.BATCH_SIZE,
                sampler=kind[settings.SAMPLER](items),
                num_workers=cfg.DATALOADER.NUM_WORKERS,
                drop_last=is_train and len(items) >= settings.BATCH_SIZE,
                pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
            )

        self.train_loader_x = loader(dataset.train_x, cfg.DATALOADER.TRAIN_X, train, True)
        self.train_loader_u = loader(dataset.train_u, cfg.DATALOADER.TRAIN_X, train, True)
        self.val_loader = loader(dataset.val, cfg.DATALOADER.TEST, test, False)
        self.test_loader = loader(dataset.test, cfg.DATALOADER.TEST, test, False)
        self.num_classes = dataset.num_classes
        self.num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self.lab2cname = dataset.lab2cname
