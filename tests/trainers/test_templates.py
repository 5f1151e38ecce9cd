"""A data set has its own template; ImageNet's ensemble does not hold it."""

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase

from datasets.base import template
from trainers.templates import DEFAULT, SELECTED, ensemble, of_adapters, sentences


def test_the_template_is_that_of_the_data_set(monkeypatch):
    assert template("EuroSAT") == "a centered satellite photo of {}."
    assert template("Caltech101") == template("Folder") == DEFAULT == "a photo of a {}."
    monkeypatch.setattr(DATASET_REGISTRY.get("Folder"), "template", "{}, my pet.")
    assert template("Folder") == "{}, my pet."
    assert ensemble("Folder") == (*SELECTED, "{}, my pet.")
    assert ensemble("ImageNet") == of_adapters("ImageNet") == SELECTED
    assert of_adapters("Folder") == ("{}, my pet.",)


def test_each_class_has_a_sentence_of_each_template():
    expected = [["a big cat.", "the big cat."], ["a dog.", "the dog."]]
    assert sentences(("a {}.", "the {}."), ["big_cat", "dog"]) == expected


def test_a_data_set_of_another_project_has_the_usual_template(monkeypatch):
    class Foreign(DatasetBase):
        pass

    monkeypatch.setattr(DATASET_REGISTRY, "_obj_map", {"Foreign": Foreign})
    assert template("Foreign") == template("unknown") == DEFAULT
