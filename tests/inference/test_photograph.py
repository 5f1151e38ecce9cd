"""What is drawn on a photograph lies where the model looked."""

import numpy as np
import pytest
import torch
from dassl.data.transforms import build_transform
from PIL import Image

from inference.photograph import SIDE, WIDEST, Photograph, with_ranks
from inference.predictor import SpotlighterPredictor
from runs.config import default_config
from runs.draw import LEVEL_COLOURS

SIZES = [(90, 70), (70, 90), (64, 64), (101, 67), (7, 5), (640, 213), (333, 1000)]
GRID, DARK = 4, 89  # 0.35 of white


@pytest.fixture
def predictor():
    """A predictor without a model: it knows how pictures are resized and cut, to 32 pixels."""
    cfg = default_config()
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = (32, 32), "bilinear"
    made = SpotlighterPredictor.__new__(SpotlighterPredictor)
    made._size, made.view = 32, build_transform(cfg, is_train=False, choices=())
    return made


def coordinates(size, axis):
    """A picture whose pixels say where they are along an axis, from 0 to its width or height."""
    width, height = size
    places = np.arange(width if axis else height, dtype=np.float32) + 0.5
    shape = (1, -1) if axis else (-1, 1)
    whole = np.broadcast_to(places.reshape(shape), (height, width))
    return Image.fromarray(np.ascontiguousarray(whole))


@pytest.mark.parametrize("size", SIZES)
def test_the_seen_square_is_where_the_transform_takes_pixels_from(predictor, size):
    left, top, right, bottom = predictor.seen_square(Image.new("RGB", size))
    for axis, (first, last) in ((1, (left, right)), (0, (top, bottom))):
        seen = predictor.view(coordinates(size, axis))[0].double()  # (32, 32)
        found = seen[16] if axis else seen[:, 16]
        expected = [first + (i + 0.5) * (last - first) / 32 for i in range(32)]
        inner = slice(4, 28)  # at a border the filter is one-sided
        # A filter of few pixels is not quite symmetric; one line too far would be a whole step.
        step = (last - first) / 32
        assert found[inner].tolist() == pytest.approx(expected[inner], abs=0.1 * step)


def test_of_a_strip_the_middle_is_seen(predictor):
    left, top, right, bottom = predictor.seen_square(Image.new("RGB", (3000, 4)))
    assert (top, bottom) == (0, 4)
    assert (left, right) == pytest.approx((1498, 1502), abs=4 / 32)
    assert Photograph.of(Image.new("RGB", (3000, 4)), predictor).picture.size == (3 * SIDE, SIDE)
    assert Photograph.of(Image.new("RGB", (4, 3000)), predictor).picture.size == (SIDE, 3 * SIDE)


@pytest.mark.parametrize("size", SIZES)
def test_the_photograph_keeps_its_shape(predictor, size):
    photo = Photograph.of(Image.new("RGB", size), predictor)
    width, height = photo.picture.size
    assert min(width, height) == SIDE
    shape = min(max(size) / min(size), WIDEST)
    # One pixel, and the resize of the transform, which rounds the long side down.
    assert max(width, height) / SIDE == pytest.approx(shape, abs=1 / 32)
    left, top, right, bottom = photo.square
    assert (right - left, bottom - top) == (SIDE, SIDE)
    assert min(left, top) == 0 <= max(left, top)
    assert right <= width
    assert bottom <= height


@pytest.mark.parametrize("size", [(90, 70), (70, 90), (64, 64), (640, 213), (7, 5)])
def test_kept_patches_are_bright_where_they_are_in_the_photograph(predictor, size):
    """Against the transform itself: each point of the drawing is followed to the patch it is in."""
    kept, white = [6, 0, 15], Image.new("RGB", size, "white")
    drawn = np.asarray(Photograph.of(white, predictor).with_kept(kept, GRID, level1=2))
    columns, rows = (predictor.view(coordinates(size, axis))[0] for axis in (1, 0))
    for patch in range(GRID * GRID):
        row, column = divmod(patch, GRID)
        # Four inner pixels of the patch, of 8 x 8 that the model sees; ranks are in the corner.
        for down, across in ((4, 4), (4, 6), (6, 4), (6, 6)):
            y, x = 8 * row + down, 8 * column + across
            place = float(columns[y, x]) / size[0], float(rows[y, x]) / size[1]  # in 0..1
            pixel = drawn[int(place[1] * drawn.shape[0]), int(place[0] * drawn.shape[1])]
            assert pixel.tolist() == [255 if patch in kept else DARK] * 3, (patch, down, across)


def test_a_map_is_drawn_where_there_are_scores(predictor):
    score = torch.arange(16.0)
    score[5] = torch.nan
    drawn = Photograph.of(Image.new("RGB", (64, 64), "white"), predictor).with_map(score, GRID)
    middle = [drawn.getpixel((140 * (i % 4) + 70, 140 * (i // 4) + 70)) for i in range(16)]
    assert middle[5] == (255, 255, 255), "nothing where a pruned tower dropped the patch"
    bright = [sum(pixel) for i, pixel in enumerate(middle) if i != 5]
    assert bright == sorted(bright)
    assert bright[0] < bright[-1]
    flat = Photograph.of(Image.new("RGB", (64, 64)), predictor).with_map(torch.ones(16), GRID)
    assert len({flat.getpixel((140 * i + 70, 70)) for i in range(4)}) == 1


@pytest.mark.parametrize(("grid", "patch"), [(4, 5), (24, 30), (24, 3)])
def test_a_rank_is_over_a_patch_that_has_room_and_beside_a_small_one(grid, patch):
    black = np.asarray(with_ranks(Image.new("RGB", (SIDE, SIDE)), [patch], grid, level1=1))
    rows, columns = np.nonzero(black.any(-1))
    side = SIDE / grid
    top, left = patch // grid * side, patch % grid * side
    inside = top <= rows.mean() < top + side
    assert inside == (grid == 4)
    assert left - side / 2 <= columns.mean() <= left + 1.5 * side
    assert len(rows) > 5


def test_levels_have_their_colours():
    found = np.asarray(with_ranks(Image.new("RGB", (SIDE, SIDE)), [0, 3], 4, level1=1))
    for column, colour in ((0, LEVEL_COLOURS[0]), (3, LEVEL_COLOURS[1])):
        pixels = found[:140, 140 * column : 140 * (column + 1)].reshape(-1, 3)
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == wanted).all(-1).any()
