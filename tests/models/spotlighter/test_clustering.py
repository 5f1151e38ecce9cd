"""Spherical k-means without randomness."""

import torch

from models.clip.blocks import unit
from models.spotlighter.memory import cluster


def crowd(seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = unit(torch.randn(4, 16, generator=generator))
    of = torch.arange(40) % 4
    return unit(centres[of] + 0.1 * torch.randn(40, 16, generator=generator)), of


def test_crowds_that_lie_apart_are_found():
    x, of = crowd()
    found = cluster(x, 4)
    for a in range(4):
        assert len(found[of == a].unique()) == 1
    assert len(found.unique()) == 4


def test_every_vector_is_in_the_cluster_whose_mean_is_nearest():
    x = unit(torch.randn(60, 8, generator=torch.Generator().manual_seed(1)))
    found = cluster(x, 5)
    means = unit(torch.stack([x[found == m].mean(0) for m in range(5)]))
    nearest = (x @ means.T).argmax(1)
    assert (nearest == found).float().mean() > 0.9


def test_fewer_vectors_than_clusters_have_one_each():
    x = unit(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)))
    assert sorted(cluster(x, 5).tolist()) == [0, 1, 2]


def test_the_same_vectors_give_the_same_clusters():
    x = crowd()[0]
    assert torch.equal(cluster(x, 7), cluster(x.clone(), 7))
