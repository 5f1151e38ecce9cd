"""Sentences for zero-shot CLIP, as CoOp's repository uses them."""

from __future__ import annotations

DEFAULT = "a photo of a {}."

DATASET_TEMPLATES = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
}

# The 7 of CLIP's 80 ImageNet templates that its authors selected.
SELECTED = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def template(dataset: str) -> str:
    """The one template of a data set."""
    return DATASET_TEMPLATES.get(dataset, DEFAULT)


def ensemble(dataset: str) -> tuple[str, ...]:
    """The selected templates and the data set's own; ImageNet has the selected ones alone."""
    return SELECTED if dataset == "ImageNet" else (*SELECTED, template(dataset))
