"""The benchmark on a CLIP so small that its times mean nothing: none is asserted here."""

import json
from dataclasses import asdict, replace

import pandas as pd
import pytest
import torch

from lab import benchmark
from lab.bench import EXACT, NAMES, backbones, launches, works
from lab.bench.arguments import parse_arguments
from lab.bench.backbones import (
    MAX_CLASSES,
    Schedule,
    load_backbone,
    made_up_names,
    parse_schedule,
    recommended_schedule,
)
from lab.bench.clock import SLOW_S, Clock, Timing
from lab.bench.counts import MatrixProduct, count_gflop, extra_mb
from lab.bench.forms import TOLERANCE, build_pair, relative_error, require_equal
from lab.bench.loaders import Source, time_end_to_end, time_loader, write_pictures
from lab.bench.measure import Bench
from lab.bench.plots import write_plots
from lab.bench.rows import COLUMNS, append_rows, read_rows
from lab.bench.stored import Course, evaluate, time_course, time_second, trainer_on
from lab.bench.tables import to_rich, write_markdown
from lab.bench.tower import Products, parts_of, time_tower
from lab.bench.works import at_hand, published_classifier, published_step, sliced, training_step
from models.classifier import CLIPClassifier
from models.clip.image_tower import build_visual_encoder
from models.clip.tokenizer import clip_tokenizer
from tests.conftest import assert_close, in_dtype

FAST = Clock(warmup=1, rounds=2, round_s=0.0)
ALWAYS_KNOWN = (
    "command trainer form backbone image_size classes batch dtype device device_name threads "
    "warmup rounds median_s min_s max_s images_per_s python torch torchvision dassl clip git date"
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A CLIP of 64 patches under the name of the small one."""
    monkeypatch.setitem(backbones.SHAPES, "quick", (64, 4, 64, 8, 32, 64, 2))


@pytest.fixture
def bench():
    return Bench("quick", clock=FAST, counts=False)


class FakeTime:
    """Seconds that pass only when a work says so."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def work(self, name, *seconds):
        left = list(seconds)

        def call():
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call

    def clock(self, **options):
        return Clock(now=lambda: self.now, **options)


# The clock


def test_works_take_turns_and_the_median_is_reported():
    time = FakeTime()
    works = {"a": time.work("a", 0.5, 1, 3, 2, 5, 4), "b": time.work("b", 4)}
    timings = time.clock(warmup=1, rounds=5, round_s=0.0).compare(works)
    assert time.calls == ["a", "b"] * 6
    assert timings["a"].seconds == (1, 3, 2, 5, 4)
    assert timings["a"].median == 3
    assert timings["a"].spread == (1, 5)
    assert timings["b"].warmup == 1


def test_slow_works_have_one_warm_up_and_three_rounds():
    time = FakeTime()
    works = {"slow": time.work("slow", SLOW_S + 1), "quick": time.work("quick", 0.5)}
    timings = time.clock(warmup=3, rounds=5).compare(works)
    assert {len(timing.seconds) for timing in timings.values()} == {3}
    assert time.calls.count("slow") == 1 + 3


def test_a_quick_work_fills_its_round_and_a_call_is_reported():
    time = FakeTime()
    timings = time.clock(warmup=2, rounds=5, round_s=1.0).compare({"a": time.work("a", 0.25)})
    assert time.calls.count("a") == 2 + 5 * 4
    assert timings["a"].seconds == pytest.approx([0.25] * 5)


def test_a_budget_leaves_out_rounds_behind_the_third():
    time = FakeTime()
    clock = time.clock(warmup=1, rounds=9, round_s=0.0, budget_s=4.5)
    assert len(clock.compare({"a": time.work("a", 1.0)})["a"].seconds) == 4
    clock = replace(clock, budget_s=0.0)
    assert len(clock.compare({"a": time.work("a", 1.0)})["a"].seconds) == 3


# Names, memory, operations, schedules


def test_class_names_are_distinct_and_as_long_as_those_of_imagenet():
    names = made_up_names(MAX_CLASSES)
    assert len(set(names)) == MAX_CLASSES == 1000
    assert names[:10] == made_up_names(10)
    prompt = len(["a", "photo", "of", "a"]) + 1  # start of text
    lengths = (
        clip_tokenizer().tokenize([f"a photo of a {name.replace('_', ' ')}." for name in names]).eos
    )
    mean = (lengths + 1 - prompt).float().mean()
    assert 4 <= mean <= 5
    with pytest.raises(ValueError, match=r"--classes must lie in 1\.\.1000, got 1001"):
        made_up_names(1001)


def test_extra_memory_is_the_peak_and_not_the_sum():
    def work():
        for _ in range(3):
            torch.zeros(500_000).add(1)  # two tensors of 2 MB at a time

    assert extra_mb(work) == pytest.approx(4.0, rel=0.01)


def test_operations_are_counted_fused_attention_included():
    a, b = torch.randn(20, 30), torch.randn(30, 40)
    assert count_gflop(lambda: a @ b) == pytest.approx(2 * 20 * 30 * 40 / 1e9)
    q = torch.randn(2, 3, 16, 8)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert count_gflop(lambda: attend(q, q, q)) == pytest.approx(2 * 2 * 6 * 16 * 16 * 8 / 1e9)
    product = MatrixProduct(load_backbone("quick", 0).visual, 2, torch.float32)
    assert count_gflop(product) == pytest.approx(product.gflop)


def test_schedules_are_read_and_scaled(tmp_path):
    assert parse_schedule("3:98,6:49") == Schedule((3, 6), (98, 49))
    assert str(Schedule((3, 6), (98, 49))) == "3:98,6:49"
    visual = load_backbone("quick", 0).visual  # 4 blocks, 64 patches
    config = tmp_path / "pruned.yaml"
    config.write_text("MODEL: {PRUNE: {AT: [3, 6], KEEP: [98, 49]}}")
    assert recommended_schedule(visual, config) == Schedule((1, 2), (32, 16))
    assert recommended_schedule(visual, tmp_path / "none.yaml") == Schedule((1,), (32,))
    assert recommended_schedule(visual).keep[-1] >= 5
    for text, message in (("3-98", "got '3-98'"), ("3:9,2:4", "AT must be ascending")):
        with pytest.raises(ValueError, match=message):
            parse_schedule(text)


# Pairs


@pytest.mark.parametrize("name", EXACT)
def test_both_forms_are_equal(name):
    pair = build_pair(name, load_backbone("quick", 0), made_up_names(7))
    error = relative_error(pair, torch.randn(3, 3, 64, 64))
    assert error <= TOLERANCE
    require_equal(name, error)


def test_unequal_forms_are_not_timed(bench, monkeypatch):
    pair = build_pair("CoOp", bench.clip, made_up_names(7))
    with torch.no_grad():
        pair.ours.learned.ctx.mul_(1.01)
    error = relative_error(pair, bench.images(2))
    for wrong in (error, float("nan")):
        with pytest.raises(ValueError, match="ours and the published CoOp differ by"):
            require_equal("CoOp", wrong)
    monkeypatch.setattr("lab.bench.measure.build_pair", lambda *_, **__: pair)
    with pytest.raises(ValueError, match="cannot be compared until they agree"):
        bench.train("CoOp", 7, 2)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", NAMES)
def test_slices_compute_the_same_logits_and_train_the_same_tensors(name, monkeypatch):
    monkeypatch.setattr(works, "SLICE", 3)
    form = build_pair(name, in_dtype(load_backbone("quick", 0)), made_up_names(7)).published
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([0, 6])
    form.training = False
    with torch.no_grad():
        assert_close(sliced(form).logits(images), form.logits(images))
    before = {key: value.detach().clone() for key, value in form.learned.items()}
    work = published_step(sliced(form), images, labels)
    work()
    moved = {key for key, value in form.learned.items() if not value.equal(before[key])}
    assert "ctx" in moved
    assert {key for key, value in form.learned.items() if value.grad is None} == set()


def test_published_text_of_many_classes_is_made_in_slices(monkeypatch):
    monkeypatch.setattr(works, "SLICE", 3)
    form = build_pair("CoOp", load_backbone("quick", 0), made_up_names(7)).published
    sizes = []

    def text(part):
        sizes.append(len(part.ids))
        return torch.zeros(len(part.ids), 32)

    monkeypatch.setattr(type(form), "text", text)
    published_classifier(form)(torch.randn(1, 3, 64, 64))
    assert sizes == [3, 3, 1]


# Rows


def check(rows):
    for row in rows:
        found = asdict(row)
        assert list(found) == COLUMNS
        missing = [name for name in ALWAYS_KNOWN.split() if found[name] in (None, "")]
        assert missing == []


def test_rows_of_training_have_all_columns(bench):
    bench.counts = True
    rows = bench.train("CoOp", 5, 2)
    check(rows)
    published, ours, stored = rows
    assert [row.form for row in rows] == ["published", "ours", "stored"]
    assert published.speedup == 1
    assert max(ours.max_error, stored.max_error) <= TOLERANCE
    assert all(row.extra_mb > 0 and row.gflop > 0 and row.share > 0 for row in rows)
    assert ours.extra_mb < published.extra_mb
    assert published.gflop > ours.gflop > stored.gflop
    tower = count_gflop(lambda: build_visual_encoder(bench.clip.visual)(bench.images(2)))
    assert stored.gflop == pytest.approx(ours.gflop - tower)


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp", "TextRefiner", "Spotlighter"])
def test_a_step_with_features_at_hand_is_the_step_from_pictures(bench, name):
    """Two steps, of which the second follows from what the first has learned."""
    images, labels, learned = bench.images(2), torch.tensor([0, 4]), []
    for is_stored in (False, True):
        torch.manual_seed(0)
        ours = build_pair(name, bench.clip, made_up_names(5)).ours
        work = training_step(ours, at_hand(ours, images) if is_stored else images, labels)
        before = [value.detach().clone() for value in ours.learned.parameters()]
        work()
        work()
        learned.append(list(ours.learned.parameters()))
        assert any(not torch.equal(a, b) for a, b in zip(before, learned[-1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(*learned, strict=True))


@pytest.mark.parametrize("name", ["CoCoOp", "Spotlighter"])
def test_rows_of_evaluation_have_all_columns(bench, name):
    rows = bench.evaluate(name, 5, 2, [Schedule((1,), (32,))])
    check(rows)
    assert [row.form for row in rows] == ["zero-shot", "published", "ours", "ours"]
    assert [(row.prune, row.tokens) for row in rows[2:]] == [("", 64), ("1:32", 32)]
    assert rows[0].against_zero_shot == 1
    assert rows[1].batch == (1 if name == "CoCoOp" else 2)


def test_bfloat16_is_for_our_image_tower_alone():
    bench = Bench("quick", dtype="bfloat16", clock=FAST, counts=False)
    rows = bench.train("MaPLe", 5, 2) + bench.evaluate("Spotlighter", 5, 2, (), ("ours",))
    assert [row.dtype for row in rows] == ["float32", "bfloat16", "bfloat16"]
    assert [row.form for row in rows] == ["published", "ours", "ours"]  # MaPLe has no features
    assert bench.clip.visual.conv1.weight.dtype == torch.float32


def test_many_classes_are_noted_where_memory_is_short(bench, monkeypatch):
    monkeypatch.setattr("lab.bench.measure.fits", lambda *_: False)
    published, ours, _ = bench.train("CoCoOp", 5, 1)
    assert published.note == "text by slices of 100 classes"
    assert ours.note == ""


def test_loader_and_end_to_end(bench, tmp_path):
    write_pictures(tmp_path, 6)
    source = Source(tmp_path, size=64, batch=3)
    rows = time_loader(source, [0], FAST)
    assert [row.form for row in rows] == ["plain", "cached"]
    check([replace(row, trainer="-", backbone="-", classes=1) for row in rows])
    rows = time_end_to_end(bench, source, 0, [Schedule((1,), (32,))])
    check(rows)
    assert [row.form for row in rows] == ["zero-shot", "ours", "ours"]


# Where features are kept


def test_a_training_is_counted_from_its_steps():
    """16 x 10 pictures by 32: 5 steps an epoch. 4 views of them: 20 batches to encode."""
    course, steps, encoding = Course(16, 50, 4), Timing((1.0, 3.0), 1), Timing((10.0, 30.0), 1)
    assert course.counted(steps, None, 10, 32).seconds == (250, 750)
    assert course.counted(steps, encoding, 10, 32).seconds == (250 + 200, 750 + 600)
    assert course.note(10, 32, encodes=True) == "counted: 250 steps, 640 pictures encoded"
    assert Course(1, 3, 4).steps(2, 32) == 3  # fewer pictures than a batch
    assert Course(1, 3, 4).steps(70, 32) == 3 * 2


def test_rows_of_a_training_have_all_columns(bench):
    rows = time_course(bench, "CoOp", 5, 2, Course(2, 3, 1))
    check(rows)
    assert [(row.form, row.note) for row in rows] == [
        ("published", "counted: 15 steps"),
        ("stored", "counted: 15 steps, 10 pictures encoded"),
    ]
    assert rows[1].max_error <= TOLERANCE
    assert rows[0].images_per_s == pytest.approx(3 * 10 / rows[0].median_s)


def test_a_second_evaluation_encodes_no_picture(tmp_path, monkeypatch):
    write_pictures(tmp_path, 6, classes=3)
    source, bench = Source(tmp_path, size=64, batch=4), Bench("tiny-emoji", clock=FAST)
    rows = time_second(bench, source, "CoOp", tmp_path)
    check(rows)
    assert [(row.form, row.classes) for row in rows] == [("ours", 3), ("stored", 3)]
    assert rows[0].speedup == 1
    assert rows[1].speedup == pytest.approx(rows[0].median_s / rows[1].median_s)

    def encode_tower(*_):
        raise AssertionError("the image tower runs")

    monkeypatch.setattr(CLIPClassifier, "encode_tower", encode_tower)
    evaluate(trainer_on(bench, source, "CoCoOp", tmp_path, tmp_path / "store"))
    with pytest.raises(AssertionError, match="the image tower runs"):
        evaluate(trainer_on(bench, source, "CoCoOp", tmp_path, None))


# The image tower


def test_the_products_are_those_of_the_tower(bench):
    encoder = build_visual_encoder(bench.clip.visual)
    expected = count_gflop(lambda: encoder(bench.images(3)))
    assert count_gflop(Products(encoder, 3)) == pytest.approx(expected, rel=1e-12)


def test_rows_of_the_tower_name_what_its_time_goes_to(bench):
    rows = time_tower(bench, 2)
    check([replace(row, trainer="-", classes=1) for row in rows])
    tower, products, *profiled = rows
    assert (tower.form, products.form) == ("tower", "products")
    assert tower.part == 1
    assert tower.share == pytest.approx(products.part)
    assert sum(row.part for row in profiled) == pytest.approx(1)
    assert all(row.part > 0 for row in profiled)


def test_the_profile_knows_an_operator_by_its_full_name():
    x = torch.randn(50, 50)
    found = dict(parts_of(lambda: x.add(1).mm(x).expand(2, 50, 50).bmm(x.expand(2, 50, 50))))
    assert found["linear layers"] > 0
    assert found["attention (products and softmax)"] > 0
    assert found["residual sums"] > 0
    assert found["LayerNorm"] == found["QuickGELU"] == 0


# Whole processes


def test_a_launch_that_fails_says_what_it_printed(tmp_path):
    with pytest.raises(RuntimeError, match="ended with 3: no such thing"):
        launches.launch(["-c", "import sys; print('no such thing'); sys.exit(3)"], 1, "cpu")
    code = "import os; print(os.environ['OMP_NUM_THREADS'])"
    said, seconds = launches.launch(["-c", code], 2, "cpu")
    assert said == "2\n"
    assert seconds > 0


# Results


def test_results_are_added_to_and_shown(bench, tmp_path):
    rows = []
    for classes in (3, 5):
        rows += bench.evaluate("CoOp", classes, 2)
    schedules = [Schedule((1,), (keep,)) for keep in (32, 16)]
    rows += bench.evaluate("Spotlighter", 5, 2, schedules, ("zero-shot", "ours"))
    path = tmp_path / "results.csv"
    append_rows(path, rows[:4])
    append_rows(path, rows[4:])
    frame = read_rows(path)
    assert list(frame.columns) == COLUMNS
    assert len(frame) == len(rows)
    assert {file.name for file in write_plots(frame, tmp_path)} == {
        "cost_by_classes.png",
        "cost_by_tokens.png",
    }
    twice = pd.concat([frame, frame])
    write_markdown(twice, tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text()
    assert text.count("| Spotlighter") == 4
    assert "backbone quick, image size 64, dtype float32" in text
    assert len(to_rich(frame, "eval", 80).columns) < len(to_rich(frame, "eval").columns)


# The command line


def test_every_command_has_an_example(capsys):
    for command in ("train", "eval", "loader", "end2end", "run", "second", "tower", "plot"):
        with pytest.raises(SystemExit):
            parse_arguments(benchmark.__doc__, [command, "--help"])
        assert f"python lab/benchmark.py {command}" in capsys.readouterr().out


def test_errors_are_one_sentence(tmp_path, capsys):
    output = ["--output", str(tmp_path)]
    small = [*output, "--backbone", "quick", "--trainers", "CoOp"]
    cases = {
        ("plot", *output): "holds no rows yet; measure something first",
        ("eval", *small, "--prune", "9:98"): "MODEL.PRUNE.AT must lie in 0..2",
        ("train", *output, "--backbone", "RN50"): "--backbone must be a ViT, one of tiny-emoji",
        ("train", *small, "--device", "tpu"): "--device must be cpu, cuda or cuda:N, got 'tpu'",
        ("tower", *small[:4], "--dtype", "bfloat16"): "tower measures the CPU in float32",
        ("second", *small, "--images", "2"): "--backbone quick is no backbone of train.py",
    }
    if not torch.cuda.is_available():
        cases |= {("train", *small, "--device", "cuda"): "finds no GPU; use cpu"}
    for arguments, message in cases.items():
        assert benchmark.main(arguments) == 2
        assert message in capsys.readouterr().err
    for arguments in ([], ["--quick", "plot"]):
        with pytest.raises(SystemExit):
            benchmark.main(arguments)
        assert "choose what to measure" in capsys.readouterr().err
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    assert benchmark.main(["plot", *output]) == 2
    assert "has the columns of another version of the benchmark" in capsys.readouterr().err


def test_a_sweep_measures_several_values(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.bench.commands.SWEEPS", {"classes": [3, 5]})
    arguments = ["eval", "--sweep", "classes", "--backbone", "quick", "--trainers", "CoOp"]
    timing = ["--rounds", "1", "--warmup", "1", "--round-s", "0", "--no-counts"]
    chosen = ["--forms", "ours", "--batch", "2", "--output", str(tmp_path)]
    assert benchmark.main([*arguments, *timing, *chosen]) == 0
    assert read_rows(tmp_path / "results.csv")["classes"].tolist() == [3, 5]
    assert (tmp_path / "cost_by_classes.png").is_file()


@pytest.mark.slow
def test_quick_ends_with_its_ratios_as_json(tmp_path, capsys, monkeypatch):
    least = {"TRAINERS": ("ZeroshotCLIP",), "PER_CLASS": 10, "EPOCHS": 1, "STARTS": 1}
    for name, value in least.items():
        monkeypatch.setattr(launches, name, value)
    assert benchmark.main(["--quick", "--output", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found) == [
        "coop_train_100",
        "cocoop_train_100",
        "maple_train_100",
        "spotlighter_train_100",
        "eval_exact",
        "eval_pruned",
        "coop_eval_1000",
        "coop_train_stored",
        "compare_stored",
        "start_s",
        "max_error",
    ]
    assert all(isinstance(value, float) and value > 0 for value in found.values())
    assert found["max_error"] <= TOLERANCE
    assert len(read_rows(tmp_path / "results.csv")) == 4 * 2 + 1 + 3 + 2 + 2 + 1


def test_a_compiled_form_is_timed_beside_the_plain_one():
    compiled = Bench("quick", clock=FAST, counts=False, compile="eager")
    rows = compiled.evaluate("CoOp", 3, 2, forms=("ours",))
    assert [row.note for row in rows] == ["", "compiled: eager"]
    assert (
        parse_arguments(benchmark.__doc__, ["eval", "--compile", "inductor"]).compile == "inductor"
    )
