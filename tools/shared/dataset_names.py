"""Names of the data sets on a command line."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from datasets import FewShotDataset
from tools.sweeps.names import CONFIGS, dataset_name, stems


def yaml_stems() -> dict[str, str]:
    """Return the stem of the yaml in configs/datasets by the data set's name."""
    return {dataset_name(stem): stem for stem in stems(CONFIGS / "datasets")}


def benchmarks() -> dict[str, type[FewShotDataset]]:
    """Return the published data sets by name, the eleven benchmarks before ImageNet's variants."""
    found = {name: DATASET_REGISTRY.get(name) for name in yaml_stems()}
    published = {name: cls for name, cls in found.items() if cls.published}
    return dict(sorted(published.items(), key=lambda pair: (pair[1].test_only, pair[0])))


def find_name(word: str) -> str:
    """Return the name of a data set from its name or its yaml's stem, in any case of letters."""
    known = {key.lower(): name for name, stem in yaml_stems().items() for key in (name, stem)}
    if word.lower() not in known:
        names = ", ".join(sorted(set(known.values())))
        raise ValueError(f"{word!r} is no data set; choose one of {names}.")
    return known[word.lower()]
