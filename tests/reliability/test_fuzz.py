"""Configs, split files, class names and results as hypothesis thinks of them: no traceback ever."""

import json
import random
from contextlib import contextmanager, suppress

import pytest
import torch
import yaml
from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import train
from datasets.splits import read_split
from models.clip.tokenizer import clip_tokenizer, normalise_name
from models.prompts import POSITIONS, PromptLearner
from runs import resume as resuming
from runs.backbone import check_class_names
from runs.config import build_config
from runs.config_rules import flat
from tests.conftest import make_clip
from tests.reliability.runs import OPTIONS, content, require_equal
from tools.collect_results import main as collect
from trainers import extend_cfg

FUZZ = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)


@contextmanager
def sentence(part):
    """No fault, or a sentence for the user with this in it."""
    with suppress(ValueError):
        try:
            yield
        except ValueError as error:
            if part not in str(error):
                pytest.fail(f"not said for the user: {error!r}")
            raise


def all_keys():
    cfg = get_cfg_default()
    extend_cfg(cfg)
    own = ("DATASET.ROOT", "DATASET.NAME", "OUTPUT_DIR", "RESUME", "TRAINER.NAME", "USE_CUDA")
    return [key for key in flat(cfg) if key not in own]


VALUES = [
    *[0, -1, 1, 2, 3.5, 1e-9, -0.5, 1e9, float("nan"), float("inf"), True, "", "x", "a b", "'"],
    *[(), (1,), (0, 0), (1, 2), (2.5,), [0.1, 0.1, 0.1], "[1", '""', "é😀", "cosine", "base/new"],
]


@settings(FUZZ, max_examples=30)
@given(st.sampled_from(all_keys()), st.sampled_from(VALUES), st.sampled_from(["CoOp", "MaPLe"]))
@example("DATALOADER.K_TRANSFORMS", 2, "CoOp")
@example("INPUT.NO_TRANSFORM", True, "CoOp")
@example("INPUT.PIXEL_MEAN", (1, 2), "CoOp")
@example("INPUT.TRANSFORMS", (1,), "CoOp")
@example("MODEL.COMPILE", "x", "CoOp")
@example("TRAIN.PRINT_FREQ", 0, "CoOp")
def test_any_value_of_any_key(
    arguments, monkeypatch, capsys, tmp_path_factory, key, value, trainer
):
    """A whole run of one epoch: it ends well, or in one sentence that blames the user."""
    options = {"OPTIM__MAX_EPOCH": 1, "DATASET__NUM_SHOTS": 1, key.replace(".", "__"): value}
    if key == "OPTIM.MAX_EPOCH" and value == 1e9:
        return
    output = tmp_path_factory.mktemp("run")
    monkeypatch.setattr("sys.argv", ["train.py", *arguments(trainer, output, **options)])
    code = train.main()
    said = [x for x in capsys.readouterr().err.splitlines() if x.startswith("train.py: ")]
    assert (code, len(said)) in ((0, 0), (2, 1)), said
    assert (output / "results.json").exists() == (code == 0 and key != "TEST.NO_TEST")


# 10^9 values in a few lines, each alias ten of the one before.
LINES = [
    f"- &{b} [{', '.join(10 * [f'*{a}'])}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
]
UNFOLDING = "\n".join(["OPTIM:", " LR:", " - &a 1", *(f" {x}" for x in LINES)]).encode()


@settings(FUZZ, max_examples=50)
@given(st.binary(max_size=60) | JSON.map(lambda x: yaml.safe_dump(x).encode()))
@example(b"OPTIM: [")
@example(b"OPTIM: {LR: {A: 1}}")
@example(b"1: 2")
@example(b"? [a]\n: 1")
@example(b"a: &x [*x]")
@example(b"OPTIM: 3")
@example(b"OPTIM: &a {LR: *a}")
@example(b"OPTIM: {LR: 2026-01-01}")
@example(b"OPTIM: " + b"[" * 20_000)
@example(UNFOLDING)
def test_any_yaml(arguments, tmp_path, content):
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    with sentence(str(path)):
        build_config(train.parse_args(arguments("CoOp", flags=("--config-file", str(path)))))


ENTRIES = st.lists(
    st.tuples(st.text(max_size=5), st.integers(-2, 4), st.text(max_size=5)).map(list) | JSON,
    max_size=4,
)


@settings(FUZZ, max_examples=50)
@given(
    st.binary(max_size=60)
    | JSON.map(lambda x: json.dumps(x).encode())
    | st.fixed_dictionaries(
        {"train": ENTRIES, "val": ENTRIES, "test": ENTRIES}, optional={"class_names": JSON}
    ).map(lambda x: json.dumps(x).encode())
)
@example(b"[" * 100_000)
@example(b'{"train": [["a", 0, "b"]], "val": [], "test": [], "class_names": "bee"}')
def test_any_split_file(tmp_path, content):
    path = tmp_path / "split.json"
    path.write_bytes(content)
    try:
        found = read_split(path, tmp_path)
        assert all(item.label >= 0 for part in found[:3] for item in part)
        assert not isinstance(found.class_names, (str, dict))
    except ValueError:
        pass


NAMES = st.lists(st.text(max_size=12) | st.sampled_from(["bee", "_", "<|endoftext|>"]), min_size=1)


@pytest.fixture(scope="module")
def embedding():
    return make_clip().token_embedding


@settings(FUZZ, max_examples=25)
@given(NAMES.map(lambda names: names[:4]), st.sampled_from(POSITIONS), st.integers(1, 20))
@example(["a", " ".join(500 * ["word"])], "end", 16)
@example(["a", " ".join(500 * ["word"])], "middle", 16)
@example(["a", " ".join(500 * ["word"])], "front", 16)
@example(["größe", "日本語", "🦊"], "end", 4)
@example(["&lt;|endoftext|&gt;", "cat"], "end", 4)
def test_any_class_names(embedding, names, position, n_ctx):
    """Refused, or each prompt holds its name's tokens, in their order, up to one end."""
    with sentence("no prompt can be made for class"):
        check_class_names(names)
        learner = PromptLearner(names, embedding, n_ctx=n_ctx, class_token_position=position)
        before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
        for row, name in zip(learner.whole(), map(normalise_name, names), strict=True):
            ids = clip_tokenizer().tokenize([f"{'X ' * n_ctx}{name}."]).ids[0, 1 + n_ctx :]
            length = min(clip_tokenizer().count(name), len(ids))
            place = row[1 + before : 1 + before + length]
            assert torch.equal(place, embedding(ids[:length]))


def test_names_that_say_nothing_are_refused_together(witness):
    with pytest.raises(ValueError, match="no prompt can be made") as met:
        check_class_names(["bee", "", "_ ", "cat <|endoftext|> dog", "\ud800"])
    found = str(met.value)
    for label in (1, 2, 3, 4):
        assert f"class {label} (" in found
    witness("input", "class names: empty, with CLIP's own marks, half a character", found)


def test_names_that_classes_share_are_named(caplog, witness):
    assert check_class_names(["sea_lion", "bee", "sea lion"]) == ["sea_lion", "bee", "sea lion"]
    (found,) = [record.message for record in caplog.records]
    assert found.endswith("cannot be told apart: sea lion")
    witness("input", "class names: two classes share one", f"warning: {found}")


def test_a_name_of_500_tokens_is_cut_and_named(embedding, caplog, witness):
    name = "very " * 499 + "long"
    PromptLearner(["bee", name], embedding, n_ctx=4)
    (found,) = {record.message for record in caplog.records}
    assert found.startswith("cut to 77 tokens: ")
    assert name in found
    happened = "warning: " + found.replace("very " * 490, "... ").replace("X X X X ", "")
    witness("input", "class names: 500 tokens long", happened)


@settings(FUZZ, max_examples=30)
@given(st.binary(max_size=60) | JSON.map(lambda x: json.dumps(x).encode()))
@example(b"[" * 100_000)
def test_any_results_file_in_a_table(tmp_path, capsys, content):
    """Skipped with a sentence; it never gets into the table."""
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "results.json").write_bytes(content)
    assert collect([str(tmp_path)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"skipped {tmp_path}/run/results.json: ")
    assert said[-1] == f"no results below {tmp_path}"


@settings(FUZZ, max_examples=30)
@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda x: x.encode(errors="replace")))
@example(b"dataset,method,base,new,hm\nAverage,x,a,b,c\n")
def test_any_table_of_published_figures(tmp_path, monkeypatch, capsys, content):
    """A CSV of the literature that was spoilt: said in one sentence."""
    from tools.results import tables as result_table

    path = tmp_path / "published.csv"
    path.write_bytes(content)
    monkeypatch.setattr(result_table, "PUBLISHED", path)
    with pytest.raises(ValueError, match=r"published\.csv is not a table"):
        result_table.published_table()


CYCLE = []
CYCLE.append(CYCLE)
ODD = [
    *[None, True, -1, 2**70, 0.5, float("inf"), "x", b"x", "9" * 5000, [], {}, (1,), [1], [["x"]]],
    *[{"x": 1}, {0: 2}, {0: {"x": [1]}}, {(1,): 1}, CYCLE, torch.Size([1]), torch.float16],
    *[torch.zeros(2, dtype=torch.int8), torch.full((3,), torch.nan), torch.ones(1) * 1j],
    *[torch.zeros(1).to("meta"), torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)],
    *[torch.zeros(1).expand(10**6, 10**6), torch.eye(2).to_sparse()],
]


def places(value, path=()):
    """Where something stands in plain data; of the config only some keys."""
    if (path and path[-2:-1] != ("config",)) or path[-1:] in (("OPTIM.LR",), ("SEED",)):
        yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def with_odd(value, path, odd):
    """A copy of plain data with something else in one place."""
    if not path:
        return odd
    copy = value.copy()
    copy[path[0]] = with_odd(value[path[0]], path[1:], odd)
    return copy


@pytest.mark.parametrize("trainer", ["PromptSRC", "Spotlighter"])
def test_any_metadata_of_a_checkpoint(run, arguments, tmp_path, witness, trainer):
    """Harmless, or refused: then the run goes on from the checkpoint before it."""
    options = OPTIONS | {"OPTIM__MAX_EPOCH": 2}
    run(trainer, **options)
    set_random_seed(1)
    built = build_trainer(build_config(train.parse_args(arguments(trainer, **options))))
    path = next((tmp_path / "run").glob("*/model.pth.tar-2"))
    whole, rng, found = content(tmp_path / "run", path.name), random.Random(4), []
    every = [place for place in places(whole) if place[0] != "val_result"]
    for place in every + rng.choices(every, k=200):
        torch.save(with_odd(whole, place, rng.choice(ODD)), path)
        try:
            found.append(resuming.resume(built.cfg, built.state, tmp_path / "run"))
        except ValueError:
            assert place[0] in ("identity", "epoch")
            found.append("another run")
        if found[-1] == 2:
            require_equal(dict(built.model.learned.state_dict()), dict(whole["state_dict"]))
            require_equal(built.optim.state_dict()["state"], whole["optimizer"]["state"])
    assert {1, 2} <= set(found) <= {1, 2, "another run"}
    fault = f"{trainer}: anything else in any place of a checkpoint's metadata"
    witness("files", fault, "harmless, or goes on from the checkpoint before it")
