import random

import numpy as np
import pytest

from datasets.emoji_pictures import (
    CODE_POINTS,
    FEWEST_PATCHES,
    SETS,
    Clutter,
    class_names,
    draw_picture,
    patch_mask,
    picture_rng,
    render_picture,
    sprite,
)

CLEAN = Clutter(blobs=0, fragments=0, occlusion=0, noise=0, turn=0, hue=0)


@pytest.mark.parametrize("set_name", SETS)
def test_every_set_has_fifty_distinct_classes(set_name):
    names = class_names(set_name)
    assert len(names) == len(set(names)) == 50


def test_no_name_and_no_drawing_belongs_to_two_classes():
    points = CODE_POINTS
    assert len(points) == len(set(points.values())) == 350


def test_the_font_draws_every_class_differently():
    drawings = {sprite(code).tobytes() for code in CODE_POINTS.values()}
    assert len(drawings) == 350
    for code in CODE_POINTS.values():
        covered = (np.asarray(sprite(code))[..., 3] > 128).mean()
        assert covered > 0.05, code


def test_a_picture_depends_on_nothing_but_its_name():
    first, first_mask = draw_picture("food", "colour", "train", "pizza", 3)
    draw_picture("animals", "lineart", "test", "dog", 0)
    random.seed(1)
    again, again_mask = draw_picture("food", "colour", "train", "pizza", 3)
    assert np.array_equal(first, again)
    assert np.array_equal(first_mask, again_mask)


@pytest.mark.parametrize(
    "other",
    [
        ("food", "colour", "train", "pizza", 4),
        ("food", "colour", "test", "pizza", 3),
        ("food", "colour", "train", "taco", 3),
        ("food", "lineart", "train", "pizza", 3),
        ("animals", "colour", "train", "pizza", 3),
    ],
)
def test_set_domain_split_class_and_index_each_have_their_own_seed(other):
    key = ("food", "colour", "train", "pizza", 3)
    assert picture_rng(*key).integers(2**62) == picture_rng(*key).integers(2**62)
    assert picture_rng(*key).integers(2**62) != picture_rng(*other).integers(2**62)


def test_keys_do_not_run_into_each_other():
    assert picture_rng("a", "bc").random() != picture_rng("ab", "c").random()


def test_the_mask_marks_the_patches_where_the_object_was_drawn():
    empty = "2B1C"  # a white square, as large as the drawing can be
    picture, mask = render_picture(empty, picture_rng("mask"), clutter=CLEAN)
    patches = picture.reshape(8, 8, 8, 8, 3).transpose(0, 2, 1, 3, 4).reshape(64, 64, 3)
    white = (patches > 245).all(axis=2).mean(axis=1)
    assert (white[mask] > 0).all()
    assert white[~mask].mean() < 0.1 * white[mask].mean()
    rows, columns = np.nonzero(mask.reshape(8, 8))
    frame = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert frame - 4 <= mask.sum() <= frame  # a filled square; its corners may be too thin


def test_a_patch_counts_from_a_quarter_on():
    visible = np.zeros((64, 64), dtype=np.float32)
    visible[0:2, 0:8] = 1  # exactly a quarter of patch 0
    visible[8:11, 56:64] = 1  # three eighths of patch 15
    assert np.flatnonzero(patch_mask(visible)).tolist() == [15]


def test_the_object_takes_a_plausible_share_of_the_patches():
    masks = [
        draw_picture(set_name, "colour", "val", class_names(set_name)[i], i)[1]
        for set_name in SETS
        for i in range(20)
    ]
    share = np.stack(masks).mean(axis=1)
    assert (np.stack(masks).sum(axis=1) >= FEWEST_PATCHES).all()
    assert 0.1 < share.mean() < 0.35
    assert share.max() < 0.75


def test_an_occluder_takes_patches_from_the_mask():
    hidden = 0
    for index in range(40):
        bare = render_picture("2B1B", picture_rng(index), clutter=CLEAN)[1]
        covered = render_picture("2B1B", picture_rng(index), clutter=CLEAN._replace(occlusion=2))[1]
        hidden += covered.sum() < bare.sum()
    assert hidden > 5


def test_line_art_is_ink_on_paper_under_the_same_mask():
    picture, mask = render_picture("1F34E", picture_rng(0), domain="lineart", clutter=CLEAN)
    coloured, same = render_picture("1F34E", picture_rng(0), clutter=CLEAN)
    assert np.array_equal(mask, same)
    inside = np.kron(mask.reshape(8, 8), np.ones((8, 8))) > 0
    spread = np.ptp(picture.astype(int), axis=2)[inside]
    assert np.median(spread) < 8
    assert np.median(np.ptp(coloured.astype(int), axis=2)[inside]) > 50


def test_an_unknown_domain_names_the_choices():
    with pytest.raises(ValueError, match=r"'sketch'; choose one of colour, lineart"):
        render_picture("1F415", picture_rng(0), domain="sketch")


def test_a_blank_code_point_is_named():
    with pytest.raises(ValueError, match="draws nothing for code point 20"):
        sprite("20")
