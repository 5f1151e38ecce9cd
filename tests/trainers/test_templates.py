"""A data set has its own template; ImageNet's ensemble does not hold it."""

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase

from datasets.base import template
from trainers.templates import DEFAULT, SELECTED, ensemble


def test_the_template_is_that_of_the_data_set(monkeypatch):
    assert template("EuroSAT") == "a centered satellite photo of {}."
    assert template("Caltech101") == template("Folder") == DEFAULT == "a photo of a {}."
    monkeypatch.setattr(DATASET_REGISTRY.get("Folder"), "template", "{}, my pet.")
    assert template("Folder") == "{}, my pet."
    assert ensemble("Folder") == (*SELECTED, "{}, my pet.")
    assert ensemble("ImageNet") == SELECTED


def test_a_data_set_of_another_project_has_the_usual_template(monkeypatch):
    class Foreign(DatasetBase):
        pass

    monkeypatch.setattr(DATASET_REGISTRY, "_obj_map", {"Foreign": Foreign})
    assert template("Foreign") == template("unknown") == DEFAULT
