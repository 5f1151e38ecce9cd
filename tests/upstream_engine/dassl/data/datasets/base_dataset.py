"""A picture and a data set."""

import random
from collections import defaultdict
from pathlib import Path


class Datum:
    def __init__(self, impath="", label=0, domain=0, classname=""):
        assert isinstance(impath, str)
        assert Path(impath).is_file()
        self._impath, self._label = impath, label
        self._domain, self._classname = domain, classname

    impath = property(lambda self: self._impath)
    label = property(lambda self: self._label)
    domain = property(lambda self: self._domain)
    classname = property(lambda self: self._classname)


class DatasetBase:
    dataset_dir = ""
    domains = ()

    def __init__(self, train_x=None, train_u=None, val=None, test=None):
        self._train_x, self._train_u, self._val, self._test = train_x, train_u, val, test
        self._num_classes = max(item.label for item in train_x) + 1
        self._lab2cname = {item.label: item.classname for item in train_x}
        self._classnames = [self._lab2cname[label] for label in sorted(self._lab2cname)]

    train_x = property(lambda self: self._train_x)
    train_u = property(lambda self: self._train_u)
    val = property(lambda self: self._val)
    test = property(lambda self: self._test)
    lab2cname = property(lambda self: self._lab2cname)
    classnames = property(lambda self: self._classnames)
    num_classes = property(lambda self: self._num_classes)

    def generate_fewshot_dataset(self, *data_sources, num_shots=-1, repeat=False):
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        output = []
        for source in data_sources:
            groups = defaultdict(list)
            for item in source:
                groups[item.label].append(item)
            drawn = []
            for items in groups.values():
                if len(items) >= num_shots:
                    drawn += random.sample(items, num_shots)
                else:
                    drawn += random.choices(items, k=num_shots) if repeat else items
            output.append(drawn)
        return output[0] if len(output) == 1 else output
