"""Which jobs a protocol asks for."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.sweeps import names
from tools.sweeps.protocols import Cell, Grid, join, plan

OUT = Path("out")


def run(protocol, trainer="CoOp", dataset="imagenet", shots=16, **options):
    return plan(Cell(protocol, trainer, dataset, 1, shots, OUT, **options))


def option(job, flag):
    return job.words[job.words.index(flag) + 1]


def test_base_to_new_trains_on_base_and_tests_on_new():
    base, new = run("base2new", "CoCoOp", "dtd")
    path = "dtd/shots_16/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1/seed1"
    assert [job.folder for job in (base, new)] == [
        OUT / "train_base" / path,
        OUT / "test_new" / path,
    ]
    assert option(base, "DATASET.SUBSAMPLE_CLASSES") == "base"
    assert option(new, "DATASET.SUBSAMPLE_CLASSES") == "new"
    assert option(new, "--model-dir") == str(base.folder)
    assert (base.needs, new.needs) == ((), (base.folder,))


@pytest.mark.parametrize(
    ("shots", "words"), [(1, "1 shot"), (16, "16 shots"), (-1, "all pictures")]
)
def test_a_job_says_its_shots_in_words(shots, words):
    (job,) = run("fewshot", "CoOp", "dtd", shots)
    config = job.name.partition(" on ")[0]
    assert job.name == f"{config} on dtd, {words}, seed 1"


def test_cross_dataset_lies_where_it_always_lay():
    train, *tests = run("xd", targets=("dtd", "eurosat"))
    level = "vit_b16_ep50_ctxv1_16shots"
    assert train.folder == OUT / f"imagenet/CoOp/{level}/seed1"
    assert [test.folder for test in tests] == [
        OUT / f"evaluation/CoOp/{level}/{target}/seed1" for target in ("dtd", "eurosat")
    ]
    for test, target in zip(tests, ("dtd", "eurosat"), strict=True):
        assert option(test, "--dataset-config-file") == f"configs/datasets/{target}.yaml"
        assert option(test, "--model-dir") == str(train.folder)
        assert "--eval-only" in test.words
        assert test.needs == (train.folder,)


def test_tests_of_two_sources_do_not_meet():
    folders = [
        job.folder
        for source in ("emoji_food", "emoji_faces")
        for job in run("xd", dataset=source, targets=("emoji_travel",))
    ]
    assert len(set(folders)) == 4


def test_targets_are_the_others_of_the_sources_kind():
    def targets(protocol, source):
        return [
            Path(option(j, "--dataset-config-file")).stem for j in run(protocol, dataset=source)
        ][1:]

    assert len(targets("xd", "imagenet")) == 10
    others = {"imagenet", "imagenetv2", "emoji_food", "folder"}  # folder: the user's own
    assert not others & set(targets("xd", "imagenet"))
    assert len(targets("xd", "emoji_food")) == 6
    assert "emoji_food" not in targets("xd", "emoji_food")
    assert targets("dg", "imagenet") == [
        "imagenetv2",
        "imagenet_sketch",
        "imagenet_a",
        "imagenet_r",
    ]
    assert targets("dg", "emoji_food") == ["emoji_food_lineart"]
    with pytest.raises(ValueError, match="no targets are known for dg from dtd; name some"):
        targets("dg", "dtd")


def test_few_shot_folders_of_coop_name_its_context():
    (job,) = run("fewshot", config="rn50", dataset="dtd", shots=4)
    assert job.folder == OUT / "dtd/CoOp/rn50_4shots/nctx16_cscFalse_ctpend/seed1"
    opts = ("TRAINER.COOP.CSC", "True", "TRAINER.COOP.N_CTX", "4")
    (job,) = run("fewshot", config="rn50", dataset="dtd", shots=4, opts=opts)
    assert job.folder == OUT / "dtd/CoOp/rn50_4shots/nctx4_cscTrue_ctpend/seed1"
    assert job.words[-4:] == opts
    opts = ("TRAINER.COOP.CTX_INIT", "a photo of a", "TRAINER.COOP.CSC", "True")  # words count
    (job,) = run("fewshot", config="rn50", dataset="dtd", shots=4, opts=opts)
    assert job.folder == OUT / "dtd/CoOp/rn50_4shots/nctx4_cscFalse_ctpend/seed1"
    (job,) = run("fewshot", config="vit_b16_ctxv1", dataset="dtd", shots=4)
    assert job.folder == OUT / "dtd/CoOp/vit_b16_ctxv1_4shots/nctx4_cscFalse_ctpend/seed1"
    (job,) = run("fewshot", "MaPLe", "dtd", 4)
    assert job.folder == OUT / "dtd/MaPLe/vit_b16_c2_ep5_batch4_2ctx_4shots/seed1"


@pytest.mark.parametrize(
    ("shots", "config"), [(1, "vit_b16_ep50"), (4, "vit_b16_ep100"), (8, "vit_b16")]
)
def test_coop_trains_longer_on_more_shots(shots, config):
    (job,) = run("fewshot", dataset="dtd", shots=shots)
    assert option(job, "--config-file") == f"configs/trainers/CoOp/{config}.yaml"


@pytest.mark.parametrize(
    ("protocol", "trainer", "config"),
    [
        ("base2new", "CoOp", "vit_b16_ep50_ctxv1"),
        ("base2new", "CoCoOp", "vit_b16_c4_ep10_batch1_ctxv1"),
        ("base2new", "MaPLe", "vit_b16_c2_ep5_batch4_2ctx"),
        ("base2new", "PromptSRC", "vit_b16_c2_ep20_batch4_4+4ctx"),
        ("base2new", "PromptKD", "vit_b16_c2_ep20_batch8_4+4ctx"),
        ("base2new", "TextRefiner", "vit_b16_ep10_ctxv1"),
        ("base2new", "Spotlighter", "vit_b16_ep20_ctxv1"),
        ("base2new", "ZeroshotCLIP", "vit_b16"),
        ("zeroshot", "ZeroshotCLIP2", "vit_b16"),
        ("xd", "MaPLe", "vit_b16_c2_ep5_batch4_2ctx_cross_datasets"),
        ("dg", "PromptSRC", "vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets"),
        ("fewshot", "PromptSRC", "vit_b16_c2_ep50_batch4_4+4ctx_few_shot"),
    ],
)
def test_there_is_a_config_for_each_trainer(protocol, trainer, config):
    for dataset, expected in (("imagenet", config), ("emoji_food", "tiny_emoji")):
        job = run(protocol, trainer, dataset)[0]
        assert option(job, "--config-file") == f"configs/trainers/{trainer}/{expected}.yaml"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("base2new", "Cop"), "no trainer Cop; there are: CLAP CLIPAdapter CoCoOp CoOp "),
        (("base2new", "CoOp", "dte"), "no data set dte; there are: caltech101 dtd "),
        (("zeroshot", "CoOp"), "zeroshot takes ZeroshotCLIP or ZeroshotCLIP2, got CoOp"),
    ],
)
def test_what_is_not_there_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        run(*arguments)
    with pytest.raises(ValueError, match="no config rn5 for CoOp; there are: rn101 "):
        run("base2new", config="rn5")
    with pytest.raises(ValueError, match="no data set dte"):
        run("xd", targets=("dte",))


def test_targets_may_lie_elsewhere(monkeypatch):
    monkeypatch.setattr(names, "read_data", lambda *_: SimpleNamespace(label="mine-000000"))
    for words, target in (({}, "data"), ({"target_root": "mine"}, "mine")):
        train, *tests = run("xd", dataset="emoji_food", targets=("folder", "dtd"), **words)
        assert option(train, "--root") == "data"
        assert [option(job, "--root") for job in tests] == [target, target]
    used = Grid(("xd",), ("CoOp",), ("dtd",), OUT, targets=("folder",), target_root="mine").used()
    assert used == [("data", "dtd"), ("mine", "folder")]
    with pytest.raises(ValueError, match="--target-root is for xd and dg, not for base2new"):
        run("base2new", target_root="mine")


def test_protocols_share_a_training():
    jobs = join([run("xd", "MaPLe", targets=("dtd",)), run("dg", "MaPLe")])
    assert sum("--eval-only" not in job.words for job in jobs) == 1
    assert len(jobs) == 6


def test_one_folder_is_not_meant_for_two_jobs():
    with pytest.raises(ValueError, match="two different jobs would write to out/"):
        join([run("base2new"), run("base2new", opts=("OPTIM.LR", "1.0"))])


def test_a_grid_has_every_cell_and_zero_shot_once():
    grid = Grid(("fewshot",), ("ZeroshotCLIP", "MaPLe"), ("dtd", "eurosat"), OUT, seeds=(1, 2))
    jobs = grid.jobs()
    assert len(jobs) == 2 * 2 * (1 + 5)
    assert grid.used() == [("data", "dtd"), ("data", "eurosat")]


def test_a_student_learns_from_the_teacher_of_its_cell():
    trainers = ("PromptKD", "Spotlighter:tiny_emoji_promptkd", "CoOp", "PromptSRC")
    jobs = Grid(("base2new",), trainers, ("emoji_food",), OUT, seeds=(3,)).jobs()
    teacher = OUT / "train_base/emoji_food/shots_16/PromptSRC/tiny_emoji/seed3"
    taught = [
        job for job in jobs if job.words[-2:] == ("TRAINER.PROMPTKD.TEACHER_DIR", str(teacher))
    ]
    assert [job.words[5] for job in taught] == ["PromptKD"] * 2 + ["Spotlighter"] * 2
    assert all(teacher in job.needs for job in taught)
    alone = Grid(("base2new",), ("PromptKD",), ("emoji_food",), OUT).jobs()
    assert all("TRAINER.PROMPTKD.TEACHER_DIR" not in job.words for job in alone)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"trainer": "CoCoOp"}, 10 * 16 / 1),  # batch_size 1, as its yaml says
        ({"trainer": "CoOp"}, 50 * 16 / 32),  # epochs of the yaml, batch size of the engine
        ({"trainer": "GDA"}, 10 * 16 / 32),  # as the engine's: its yaml names neither
        ({"shots": 4}, 50 * 4 / 32),
        ({"shots": 0}, 50 / 32),  # all pictures, whose number is not known
        ({"opts": ("OPTIM.MAX_EPOCH", "3", "DATALOADER.TRAIN_X.BATCH_SIZE", "8")}, 3 * 16 / 8),
        ({"opts": ("OPTIM.MAX_EPOCH", "many")}, 10 * 16 / 32),  # train.py refuses it
        ({"opts": ("DATALOADER.TRAIN_X.BATCH_SIZE", "0")}, 50 * 16),  # it, too
        ({"trainer": "ZeroshotCLIP"}, 0),
    ],
)
def test_a_training_says_how_long_it_is(options, steps):
    training, *tests = run("base2new", dataset="dtd", **options)
    assert training.steps == pytest.approx(steps)
    assert [test.steps for test in tests] == [0]


def test_an_empty_node_of_a_yaml_names_nothing(monkeypatch):
    read = names.read_yaml
    empty = {"OPTIM": None, "DATALOADER": {"TRAIN_X": None}}
    monkeypatch.setattr(
        names, "read_yaml", lambda path: empty if path.parent.name == "CoOp" else read(path)
    )
    training, _ = run("base2new", dataset="dtd", trainer="CoOp")
    assert training.steps == pytest.approx(10 * 16 / 32)
