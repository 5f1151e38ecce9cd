"""Sentences for zero-shot CLIP, as CoOp's repository uses them."""

from datasets.base import FewShotDataset, template
from models.clip.tokenizer import normalise_name

DEFAULT = FewShotDataset.template

# The 7 of CLIP's 80 ImageNet templates that its authors selected.
SELECTED = (
    "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.",
    "a {} in a video game.", "art of the {}.", "a photo of the small {}.",
)

# 60 of the 80, in alphabetical order, whose mean PromptSRC keeps its text features close to.
DIVERSE = (
    "a bad photo of a {}.", "a bad photo of the {}.", "a black and white photo of the {}.",
    "a blurry photo of a {}.", "a blurry photo of the {}.", "a bright photo of a {}.",
    "a bright photo of the {}.", "a cartoon {}.", "a close-up photo of a {}.",
    "a close-up photo of the {}.", "a cropped photo of a {}.", "a cropped photo of the {}.",
    "a dark photo of the {}.", "a doodle of a {}.", "a doodle of the {}.", "a drawing of a {}.",
    "a embroidered {}.", "a good photo of the {}.", "a jpeg corrupted photo of a {}.",
    "a low resolution photo of a {}.", "a low resolution photo of the {}.", "a origami {}.",
    "a painting of a {}.", "a painting of the {}.", "a photo of a clean {}.",
    "a photo of a dirty {}.", "a photo of a hard to see {}.", "a photo of a large {}.",
    "a photo of a nice {}.", "a photo of a weird {}.", "a photo of a {}.", "a photo of many {}.",
    "a photo of my {}.", "a photo of one {}.", "a photo of the clean {}.",
    "a photo of the cool {}.", "a photo of the dirty {}.", "a photo of the hard to see {}.",
    "a photo of the {}.", "a pixelated photo of a {}.", "a pixelated photo of the {}.",
    "a plastic {}.", "a rendering of a {}.", "a rendering of the {}.", "a rendition of a {}.",
    "a rendition of the {}.", "a sculpture of a {}.", "a sculpture of the {}.", "a sketch of a {}.",
    "a sketch of the {}.", "a tattoo of a {}.", "a {} in a video game.", "art of a {}.",
    "graffiti of a {}.", "itap of the {}.", "the embroidered {}.", "the origami {}.",
    "the plastic {}.", "the toy {}.", "the {} in a video game.",
)


def ensemble(dataset: str) -> tuple[str, ...]:
    """The selected templates and the data set's own; ImageNet has the selected ones alone."""
    return SELECTED if dataset == "ImageNet" else (*SELECTED, template(dataset))


def of_adapters(dataset: str) -> tuple[str, ...]:
    """Sentences of methods on fixed text: the selected ones for ImageNet, else the data set's."""
    return SELECTED if dataset == "ImageNet" else (template(dataset),)


def sentences(templates: tuple[str, ...], class_names: list[str]) -> list[list[str]]:
    """The sentences of each class."""
    names = [normalise_name(name) for name in class_names]
    return [[one.format(name) for one in templates] for name in names]


def one_each(sentence: str, class_names: list[str]) -> list[str]:
    """One sentence for each class, whose name fills its gap."""
    return [sentence.format(normalise_name(name)) for name in class_names]
