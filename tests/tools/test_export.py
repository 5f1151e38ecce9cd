"""tools/export.py: the same logits in onnxruntime, and in programs without this repository."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import inference.open
from inference import graph as onnx_graph
from inference.graph import ExportForm, trace
from inference.predictor import SpotlighterPredictor
from models.clip.prune import TokenPruner
from tests.inference.test_graph import TUNERS
from tests.toy import NAMES
from tests.tuners import make_spotlighted, make_tuner, shake
from tools import export

PROJECT = Path(__file__).parents[2]
PRUNED = {"MODEL__PRUNE__AT": (1,), "MODEL__PRUNE__KEEP": (12,)}


@pytest.fixture
def call(trained, capsys, tmp_path):
    """Export a run of a trainer: exit code, stdout, stderr, folder."""

    def go(*words, trainer="CoOp", **options):
        run = trained(trainer, **options)
        capsys.readouterr()
        flags = ["--model-dir", str(run), "--output", str(tmp_path / "exported")]
        code = export.main([*flags, *map(str, words)])
        return code, *capsys.readouterr(), tmp_path / "exported"

    return go


def test_a_pruned_spotlighter_says_the_same_in_onnxruntime(call, trained):
    code, out, _, folder = call(trainer="Spotlighter", **PRUNED)
    assert code == 0
    assert re.search(r"model.pt2: [\d.]+ MB; logits differ by \de[+-]0\d of the largest", out)
    model = SpotlighterPredictor.from_run(trained("Spotlighter", **PRUNED)).model
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    program = torch.export.load(folder / "model.pt2").module()
    generator, compared = torch.Generator().manual_seed(3), 0
    for batch in (1, 2, 9):
        image = torch.randn(batch, 3, 64, 64, generator=generator)
        logits, kept, steady = analysed(model, image)
        compared += int(steady.sum())
        for found in (
            [torch.from_numpy(x) for x in session.run(None, {"image": image.numpy()})],
            program(image),
        ):
            assert_near(found[0][steady], logits[steady])
            assert torch.equal(found[1][steady], kept[steady])
    assert compared > 6


@torch.no_grad()
def analysed(model, image):
    """Logits, kept patches, and of which pictures another rounding keeps the same patches."""
    kept = model.forward_all(image).head.selection.indices
    steady = torch.ones(len(image), dtype=torch.bool)
    for seed in range(4):
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
        nudged = model.forward_all(image + 1e-5 * noise).head.selection.indices
        steady &= (nudged == kept).all(1)
    return model(image), kept, steady


def assert_near(found, wanted):
    """Within 1e-4 of the largest logit."""
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_model_json_says_what_is_needed(call, trained, toy_root):
    _, _, _, folder = call("--format", "torch")
    found = {path.name for path in folder.iterdir()}
    assert found == {"README.md", "model.json", "model.pt2"}
    text = (folder / "model.json").read_text()
    said = json.loads(text)
    assert said["class_names"] == NAMES[:3]
    assert (said["trainer"], said["backbone"]) == ("CoOp", "tiny-emoji")
    assert said["outputs"] == ["logits"]
    checkpoint = trained("CoOp") / "prompt_learner" / "model.pth.tar-1"
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert said["checkpoint"] == {"file": checkpoint.name, "sha256": digest, "epoch": 1}
    assert said["preparation"]["center_crop"] == [64, 64]
    assert said["preparation"]["turn_by_exif"] is True
    assert said["preparation"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert said["config"]["TRAINER.COOP.CTX_INIT"] == "a photo of a"
    assert {"python", "torch", "git"} <= set(said["versions"])
    assert str(toy_root) not in text


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The folder of an exported run of CoOp."""
    folder = tmp_path_factory.mktemp("exported")
    where = ["--model-dir", str(trained("CoOp")), "--output", str(folder)]
    assert export.main([*where, "--format", "onnx"]) == 0
    return folder


@pytest.fixture
def classify(exported, tmp_path):
    """Run the example without some packages, in a folder without the repository."""
    example = tmp_path / "classify_onnx.py"
    example.write_text((PROJECT / "docs" / "examples" / "classify_onnx.py").read_text())

    def go(paths, *without):
        absent = dict.fromkeys(("torch", "clip", "models", "dassl", *without))
        code = f"import sys; sys.modules.update({absent}); "
        code += f"import runpy; runpy.run_path({str(example)!r})"
        words = [sys.executable, "-I", "-c", code, str(exported), *map(str, paths)]
        return subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)

    return go


def test_the_example_needs_no_repository_and_says_what_the_predictor_says(
    classify, trained, toy_root, tmp_path
):
    paths = [toy_root / "toy" / "images" / f"test_{label}_0.png" for label in (0, 1, 2)]
    rng = np.random.default_rng(0)
    for number, shape in enumerate(((90, 141, 3), (131, 70, 3))):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(paths[-1])
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter, as a phone held upright says
    paths.append(tmp_path / "phone.png")
    with Image.open(paths[0]) as upright:
        upright.transpose(Image.Transpose.ROTATE_90).save(paths[-1], exif=turned)
    found = classify(paths)
    assert found.stderr == ""
    lines = [line.split("\t") for line in found.stdout.splitlines()]
    wanted = SpotlighterPredictor.from_run(trained("CoOp")).predict(paths)
    assert [line[:2] for line in lines] == [
        [str(path), one.class_name] for path, one in zip(paths, wanted, strict=True)
    ]
    for line, one in zip(lines, wanted, strict=True):
        assert float(line[2]) == pytest.approx(one.probability, abs=2e-4)


def test_the_example_without_a_picture_says_how_it_is_used(classify):
    assert "Usage: python classify_onnx.py EXPORTED PICTURE ..." in classify([]).stderr


def test_the_example_reads_heic_or_says_what_it_needs(classify, tmp_path):
    pytest.importorskip("pillow_heif", exc_type=ImportError).register_heif_opener()
    path = tmp_path / "IMG_1.HEIC"
    Image.new("RGB", (90, 70), "red").save(path, format="HEIF")
    assert classify([path]).stdout.startswith(f"{path}\t")
    found = classify([path], "pillow_heif")
    assert found.returncode == 1
    assert found.stderr == (
        f"{path} cannot be read as a picture; save it as a JPEG, or, if it is HEIC, run: "
        "pip install pillow-heif\n"
    )


def test_other_classes_are_fixed_in_the_graph(call, trained, tmp_path):
    names = ["piano", "violin", "bee", "harp"]
    (tmp_path / "names.txt").write_text("\n".join(names))
    words = ("--classes", tmp_path / "names.txt", "--format", "torch")
    code, _, _, folder = call(*words)
    assert code == 0
    assert json.loads((folder / "model.json").read_text())["class_names"] == names
    image = torch.randn(2, 3, 64, 64)
    model = SpotlighterPredictor.from_run(trained("CoOp"), names).model
    with torch.no_grad():
        assert_near(torch.export.load(folder / "model.pt2").module()(image)[0], model(image))
    assert "a run of CoOp, which has no bank" in call(*words, "--new", "text")[2]


def test_only_what_changed_is_exported_again(call, trained, tmp_path):
    words = ("--format", "torch", "--if-changed")
    *_, folder = call(*words)
    graph = folder / "model.pt2"

    def is_written(*more, **options):
        before = graph.stat().st_mtime_ns if graph.exists() else None
        code, out, err, _ = call(*words, *more, **options)
        assert code == 0, err
        changed = graph.stat().st_mtime_ns != before
        assert changed != (f"{folder}: exported before, from the same run" in out)
        return changed

    assert not is_written()
    graph.unlink()
    assert is_written()
    (tmp_path / "names.txt").write_text("piano\nbee")
    assert is_written("--classes", tmp_path / "names.txt")
    assert is_written(TEST__TEMPERATURE=2.5)
    (folder / "model.json").write_text("{")
    assert is_written(TEST__TEMPERATURE=2.5)


def test_a_run_in_half_precision_is_exported_in_full(call):
    code, _, err, folder = call("--format", "torch", TRAINER__COOP__PREC="bf16")
    assert code == 0, err
    state = torch.export.load(folder / "model.pt2").state_dict
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_a_missing_package_is_named_before_anything_is_done(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, _, err, folder = call("--format", "onnx")
    assert code == 2
    assert "needs the package onnxscript" in err
    assert "pip install -r requirements-export.txt" in err
    assert not folder.exists()


def test_a_model_without_finite_logits_is_not_exported(call, monkeypatch):
    real = inference.open.open_without_data

    def opened(*args, **options):
        trainer = real(*args, **options)
        with torch.no_grad():
            trainer.model.logit_scale.fill_(1000)
        return trainer

    monkeypatch.setattr("inference.open.open_without_data", opened)
    code, _, err, folder = call("--format", "torch")
    assert code == 2
    assert "the model's logits are infinite or not a number, so nothing is exported" in err
    assert not folder.exists()


@pytest.mark.parametrize("by", [0.01, float("nan")])
def test_a_graph_that_says_something_else_is_refused(call, monkeypatch, by):
    monkeypatch.setattr("inference.graph.trace", lambda form, size: spoiled(form, size, by))
    code, _, err, folder = call("--format", "torch")
    assert code == 2
    assert "the graph in model.pt2 gives other logits than the model" in err
    assert not (folder / "model.json").exists()


def spoiled(form, size, by):
    with torch.no_grad():
        form.model.logit_scale.add_(by)
    return trace(form, size)


def test_mistakes_end_in_a_sentence(call, tmp_path, capsys):
    assert export.main(["--model-dir", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "is not the output folder of a run" in capsys.readouterr().err
    options = {"INPUT__TRANSFORMS": ("normalize", "instance_norm")}
    code, _, err, _ = call("--format", "torch", **options)
    assert code == 2
    assert err.splitlines()[-1].startswith("export: error: a run with instance_norm")
    with pytest.raises(SystemExit):
        export.main(["--help"])
    assert capsys.readouterr().out.rstrip().endswith("classify_onnx.py exported a.jpg b.jpg")


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*TUNERS, "RN", "on CoCoOp", "on MaPLe", "on PromptKD", "raw"])
def test_every_trainer_in_onnxruntime(clip_model, resnet_clip, class_names, tmp_path, name):
    if name.startswith("on "):
        model = make_spotlighted(name.removeprefix("on "), clip_model, class_names)
        model.base.prune(TokenPruner(at=(0, 1), keep=(9, 6), width=64))
    elif name == "raw":
        options = {"tokens": "raw", "score": "similarity"}
        model = make_spotlighted("CoOp", clip_model, class_names, **options)
    else:
        clip = resnet_clip if name == "RN" else clip_model
        model = make_tuner("CoOp" if name == "RN" else name, clip, class_names)
    shake(model)
    model.eval()
    images = [torch.randn(n, 3, 32, 32) for n in (1, 2, 9)]
    with torch.no_grad():
        wanted = [model(image) for image in images]
    form = ExportForm(model)
    program = trace(form, (32, 32))
    run = onnx_graph.write_onnx(program, form.output_names, tmp_path / "model.onnx")
    for image, logits in zip(images, wanted, strict=True):
        assert_near(run(image), logits)


@pytest.mark.parametrize("trainer", ["CoOp", "Spotlighter"])
def test_the_logits_of_a_graph_are_divided_by_the_runs_temperature(call, trained, trainer):
    code, _, _, folder = call("--format", "torch", trainer=trainer, TEST__TEMPERATURE=2.5)
    assert code == 0
    assert json.loads((folder / "model.json").read_text())["temperature"] == 2.5
    program = torch.export.load(folder / "model.pt2").module()
    model = SpotlighterPredictor.from_run(trained(trainer, TEST__TEMPERATURE=2.5)).model
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert_near(program(image)[0], model(image) / 2.5)
