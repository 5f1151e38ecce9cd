"""The scripts, run in a copy of the project with a Python that only writes down its calls.

What tools/run_protocol.py makes of a script's arguments is real; train.py is not.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import examples
from tools.sweeps.names import default_rows

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), ROOT / ".ci" / "run"])
FAKE_PYTHON = """\
#!/usr/bin/env bash
case "$*" in
  -c*) [[ ! -e $PROJECT/too_old ]] ;;
  --version) echo "Python 3.12.1" ;;
  "-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip_audit"*)
    echo "$*" >>"$PROJECT/calls"
    cat "$PROJECT/audit"
    ! grep -q "^Found\\|Error" "$PROJECT/audit" ;;
  "-m pip"*)
    echo "pip ${*: -3}" >>"$PROJECT/calls"
    echo "no such thing"
    [[ ! -e $PROJECT/pip_fails ]] ;;
  tools/run_protocol.py*) exec "$REAL_PYTHON" "$@" ;;
  "-m pytest"*)
    echo "$*" >>"$PROJECT/calls"
    echo "these are the tests of ${*: 3}"
    [[ ! -e $PROJECT/failing ]] || ! grep -qxe "$*" "$PROJECT/failing" ;;
  *) echo "$*" >>"$PROJECT/calls" ;;
esac
"""
HALF = "tests/inference tests/lab tests/parity tests/reliability tests/trainers"
OTHER_HALF = " ".join(f"--ignore={folder}" for folder in HALF.split())
FAKE_LINTER = """\
#!/usr/bin/env bash
echo "lint-imports $*" >>"$PROJECT/calls"
"""
FAKE_TRAIN = """\
import json, sys, uuid
from pathlib import Path
words = sys.argv[1:]
with open("calls", "a") as file:
    file.write(" ".join(["train.py", *words]) + "\\n")
if Path("training_crashes").exists():
    sys.exit(1)
folder = Path(words[words.index("--output-dir") + 1])
folder.mkdir(parents=True, exist_ok=True)
results = json.dumps({"learned": uuid.uuid4().hex})
if "--model-dir" in words:  # a test names what it tests
    results = Path(words[words.index("--model-dir") + 1], "results.json").read_text()
(folder / "results.json").write_text(results)
"""


class Project:
    """A copy of the scripts and what they read, with an active fake environment."""

    def __init__(self, root):
        self.root = root
        self.env = root / "environment"
        shutil.copytree(ROOT / "scripts", root / "scripts")
        shutil.copytree(ROOT / "configs", root / "configs")
        shutil.copytree(ROOT / "runs", root / "runs")
        shutil.copytree(ROOT / "tools" / "sweeps", root / "tools" / "sweeps")
        shutil.copy(ROOT / "tools" / "run_protocol.py", root / "tools" / "run_protocol.py")
        (root / "train.py").write_text(FAKE_TRAIN)
        (root / "engine").mkdir()
        for name in (
            "requirements.txt",
            "requirements-dev.txt",
            "constraints.txt",
            "engine/pyproject.toml",
        ):
            shutil.copy(ROOT / name, root / name)
        (self.env / "bin").mkdir(parents=True)
        (self.env / "bin" / "python").write_text(FAKE_PYTHON)
        (self.env / "bin" / "lint-imports").write_text(FAKE_LINTER)
        for name in ("python", "lint-imports"):
            (self.env / "bin" / name).chmod(0o755)

    def start(self, script, *arguments, **variables):
        keep = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
        fake = {"VIRTUAL_ENV": str(self.env), "PROJECT": str(self.root)}
        environment = keep | fake | {"REAL_PYTHON": sys.executable} | variables
        return subprocess.Popen(
            ["bash", f"scripts/{script}.sh", *arguments],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script, *arguments, **variables):
        process = self.start(script, *arguments, **variables)
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def calls(self):
        """Calls of Python since the last look."""
        log = self.root / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def touch(self, name):
        (self.root / name).touch()


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture
def ready(project):
    assert project.run("setup", "run").returncode == 0
    project.calls()
    return project


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_valid_bash_and_executable(script):
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert os.access(script, os.X_OK)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_scripts_pass_shellcheck():
    run = subprocess.run(
        ["shellcheck", "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(
    ("kind", "file"), [("run", "requirements.txt"), ("dev", "requirements-dev.txt")]
)
def test_setup_installs_once(project, kind, file):
    run = project.run("setup", kind)
    assert run.returncode == 0, run.stderr
    assert f"Installing {file} into {project.env}" in run.stdout
    assert project.calls() == [f"pip {file} -c constraints.txt"]
    start = time.perf_counter()
    run = project.run("setup", kind)
    assert time.perf_counter() - start < 2
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert project.calls() == []


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-dev.txt", "constraints.txt", "engine/pyproject.toml"]
)
def test_setup_installs_again_when_requirements_change(ready, name):
    with (ready.root / name).open("a") as file:
        file.write("# changed\n")
    ready.run("setup", "run")
    assert len(ready.calls()) == 1


def test_setup_installs_again_for_another_clone(ready):
    moved = ready.root.with_name("moved")
    ready.root.rename(moved)
    ready.root, ready.env = moved, moved / "environment"
    assert "loses" not in ready.run("setup", "run").stdout
    assert len(ready.calls()) == 1


def test_setup_says_which_clone_loses_its_environment(ready):
    (ready.root / "other").mkdir()
    other = Project(ready.root / "other")
    other.env = ready.env
    run = other.run("setup", "dev")
    assert run.returncode == 0, run.stderr
    loses = f"was set up for {ready.root}, which loses its dassl to {other.root}; to keep both"
    assert run.stdout.count(loses) == 1
    assert len(other.calls()) == 1
    assert f"set up for {other.root}, which loses" in ready.run("setup", "run").stdout
    assert len(ready.calls()) == 1, "the environment is taken back"
    assert ready.run("setup", "run").stdout == ""


def test_failed_installation_is_shown_and_tried_again(project):
    project.touch("pip_fails")
    run = project.run("setup", "run")
    assert run.returncode == 1
    assert "no such thing" in run.stderr
    assert (
        f"the installation failed; the lines above are the end of {project.env}/setup.log"
        in run.stderr
    )
    (project.root / "pip_fails").unlink()
    project.calls()
    assert project.run("setup", "run").returncode == 0
    assert len(project.calls()) == 1


def test_setup_refuses_an_old_python(project):
    project.touch("too_old")
    run = project.run("setup", "run")
    assert run.returncode == 1
    assert f"the environment {project.env} has no Python 3.10 or newer" in run.stderr
    assert project.calls() == []


def test_setup_refuses_a_broken_active_environment(project):
    run = project.run("setup", "run", VIRTUAL_ENV=str(project.root / "gone"))
    assert run.returncode == 1
    assert "gone has no bin/python; deactivate it" in run.stderr


def test_setup_makes_an_environment_where_none_is_active(project):
    (project.root / "programs").mkdir()
    shutil.copy(project.env / "bin" / "python", project.root / "programs" / "python3")
    path = f"{project.root / 'programs'}:{os.environ['PATH']}"
    run = project.run("setup", "run", VIRTUAL_ENV="", PATH=path)
    assert run.returncode == 0, run.stderr
    assert f"Making the environment {project.root}/.venv with Python 3.12.1" in run.stdout
    assert (project.root / ".venv" / "setup.log").exists()
    assert len(project.calls()) == 1
    assert project.run("setup", "run", VIRTUAL_ENV="", PATH=path).stdout == ""


def test_setup_says_what_it_can_set_up(project):
    run = project.run("setup")
    assert run.returncode == 1
    assert "say what to set up: run or dev" in run.stderr


def test_test_script_lints_and_passes_its_arguments_on(project):
    assert project.run("test", "-k", "few shot", "-x").returncode == 0
    checks = ["-m ruff check .", "-m mypy", "lint-imports --no-logo"]
    assert project.calls()[-4:] == [*checks, "-m pytest -k few shot -x"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("No known vulnerabilities found", ""),
        ("torch  Dependency not found on PyPI and could not be audited", "look at 1 packages"),
        ("ConnectionError: no route", "pip-audit could not run: ConnectionError: no route"),
        ("Found 2 known vulnerabilities in 1 package", "Found 2 known vulnerabilities in 1"),
    ],
)
def test_test_script_audits_where_it_can(project, found, said):
    (project.root / "audit").write_text(f"{found}\n")
    run = project.run("test")
    assert run.returncode == 0
    assert said in run.stdout + run.stderr
    assert set(project.calls()[-2:]) == {f"-m pytest {HALF}", f"-m pytest {OTHER_HALF}"}


@pytest.mark.parametrize(("fails", "code"), [("", 0), (HALF, 1), (OTHER_HALF, 1)])
def test_both_halves_of_the_tests_must_pass(project, fails, code):
    """Each file is in one half, as pytest is told to leave out what the other one takes."""
    (project.root / "audit").touch()
    (project.root / "failing").write_text(f"-m pytest {fails}\n")
    run = project.run("test")
    assert run.returncode == code
    assert f"these are the tests of {HALF}" in run.stdout
    assert all((ROOT / folder).is_dir() for folder in HALF.split())


def test_one_core_takes_all_tests(project):
    (project.root / "audit").touch()
    (project.env / "bin" / "getconf").write_text("#!/usr/bin/env bash\necho 1\n")
    (project.env / "bin" / "getconf").chmod(0o755)
    assert project.run("test").returncode == 0
    assert project.calls()[-1] == "-m pytest"


def test_base2new_trains_on_base_and_tests_on_new(ready):
    run = ready.run("base2new", "CoOp", "dtd", "3")
    assert run.returncode == 0, run.stderr
    path = "dtd/shots_16/CoOp/vit_b16_ep50_ctxv1/seed3"
    common = "--seed 3 --trainer CoOp --dataset-config-file configs/datasets/dtd.yaml"
    common += " --config-file configs/trainers/CoOp/vit_b16_ep50_ctxv1.yaml"
    assert ready.calls() == [
        f"train.py --root data {common} --output-dir output/base2new/train_base/{path} "
        "DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base",
        f"train.py --root data {common} --output-dir output/base2new/test_new/{path} "
        f"--eval-only --model-dir output/base2new/train_base/{path} "
        "DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES new",
    ]


def test_base2new_skips_what_has_results_and_repeats_what_has_none(ready):
    ready.run("base2new", "CoOp", "dtd", "1")
    assert len(ready.calls()) == 2
    run = ready.run("base2new", "CoOp", "dtd", "1")
    assert ready.calls() == []
    assert run.stdout.count("done, see output/base2new/") == 2
    (next((ready.root / "output/base2new/test_new").rglob("results.json"))).unlink()
    ready.run("base2new", "CoOp", "dtd", "1")
    assert ["SUBSAMPLE_CLASSES new" in call for call in ready.calls()] == [True]


def test_base2new_tests_a_model_that_was_trained_again(ready):
    ready.run("base2new", "CoOp", "dtd", "1")
    ready.calls()
    next((ready.root / "output/base2new/train_base").rglob("results.json")).unlink()
    ready.run("base2new", "CoOp", "dtd", "1")
    assert len(ready.calls()) == 2


def test_base2new_stops_at_a_crash_and_goes_on_from_there(ready):
    ready.touch("training_crashes")
    run = ready.run("base2new", "CoOp", "dtd", "1")
    assert run.returncode == 1
    assert len(ready.calls()) == 1
    (ready.root / "training_crashes").unlink()
    assert ready.run("base2new", "CoOp", "dtd", "1").returncode == 0
    assert len(ready.calls()) == 2


def test_base2new_takes_config_shots_and_environment(ready):
    settings = {"DATA": "/a folder", "OUTPUT": "output/demo", "OPTS": "OPTIM.LR 0.01 SEED 4"}
    ready.run("base2new", "CoOp", "dtd", "0", "rn50", "4", **settings)
    call = ready.calls()[0]
    assert "--root /a folder --seed 0 " in call
    assert "--output-dir output/demo/train_base/dtd/shots_4/CoOp/rn50/seed0 " in call
    assert call.endswith("DATASET.NUM_SHOTS 4 DATASET.SUBSAMPLE_CLASSES base OPTIM.LR 0.01 SEED 4")


@pytest.mark.parametrize("protocol", ["base2new", "fewshot", "zeroshot", "xd", "dg"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected 3 to 5 arguments, got 0"),
        (["CoOp", "dtd", "1", "rn50", "4", "x"], "expected 3 to 5 arguments, got 6"),
        (["Cop", "dtd", "1"], "no trainer Cop; there are: CLAP CLIPAdapter CoCoOp CoOp "),
        (["CoOp", "dte", "1"], "no data set dte; there are: caltech101 dtd "),
        (["CoOp", "dtd", "1", "rn5"], "no config rn5 for CoOp; there are: rn101 "),
        (["CoOp", "dtd", "one"], "SEED must be a whole number from 0, got one"),
        (["CoOp", "dtd", "1", "rn50", "all"], "SHOTS must be a whole number, got all"),
    ],
)
def test_protocols_refuse_wrong_arguments_with_their_usage(ready, protocol, arguments, message):
    run = ready.run(protocol, *arguments)
    assert run.returncode == 2
    assert f"{protocol}: {message}" in run.stderr
    assert f"usage: bash scripts/{protocol}.sh TRAINER DATASET SEED [CFG] [SHOTS]" in run.stderr
    assert ready.calls() == []


def test_cross_dataset_trains_once_and_tests_on_any_targets(ready):
    run = ready.run("xd", "CoOp", "imagenet", "1", "--root", "/pics", TARGETS="dtd emoji_food")
    assert run.returncode == 0, run.stderr
    train, *tests = ready.calls()
    level = "vit_b16_ep50_ctxv1_16shots"
    assert "--root /pics --seed 1 --trainer CoOp --dataset-config-file " in train
    assert f"--output-dir output/imagenet/CoOp/{level}/seed1 DATASET" in train
    for test, target in zip(tests, ("dtd", "emoji_food"), strict=True):
        assert f"configs/datasets/{target}.yaml" in test
        assert f"--output-dir output/evaluation/CoOp/{level}/{target}/seed1 --eval-only" in test
    ready.run("xd", "CoOp", "imagenet", "1", TARGETS="dtd eurosat")
    assert ["eurosat" in call for call in ready.calls()] == [True]


def test_domain_generalisation_tests_on_the_sources_shifts(ready):
    ready.run("dg", "CoOp", "imagenet", "1")
    assert len(ready.calls()) == 1 + 4
    ready.run("dg", "CoOp", "emoji_food", "1", DATA="/pics")
    train, test = ready.calls()
    assert train.startswith("train.py --root /pics --seed 1 --trainer CoOp ")
    assert "configs/datasets/emoji_food_lineart.yaml" in test


def test_few_shot_runs_over_its_shots(ready):
    ready.run("fewshot", "MaPLe", "dtd", "1")
    shots = [call.split("NUM_SHOTS ")[1].split()[0] for call in ready.calls()]
    assert shots == ["1", "2", "4", "8", "16"]
    ready.run("fewshot", "MaPLe", "dtd", "2", "vit_b16_c2_ep5_batch4_2ctx", "4 8")
    assert len(ready.calls()) == 2


def test_zero_shot_only_evaluates_what_learns_nothing(ready):
    assert ready.run("zeroshot", "ZeroshotCLIP", "dtd", "1").returncode == 0
    (call,) = ready.calls()
    assert "--output-dir output/dtd/ZeroshotCLIP/vit_b16_0shots/seed1 DATASET.NUM_SHOTS 0" in call
    run = ready.run("zeroshot", "CoOp", "dtd", "1")
    assert "zeroshot takes ZeroshotCLIP or ZeroshotCLIP2, got CoOp" in run.stderr


SWEEP = "tools/sweep.py --protocols base2new --datasets "


def test_demo_runs_tabulates_and_draws(ready):
    run = ready.run("demo", SEEDS="2 3")
    assert run.returncode == 0, run.stderr
    runs, *others = ready.calls()
    table, page, picture = sorted(others)  # they run at the same time
    assert runs == (
        f"{SWEEP}emoji_animals emoji_food --trainers ZeroshotCLIP CoOp Spotlighter --seeds 2 3 "
        "--root data --output output/demo --processes "
        "--opts FEATURES.KEEP disk FEATURES.DIR output/demo/features FEATURES.VIEWS 4"
    )
    assert table.startswith("tools/collect_results.py output/demo ")
    columns = "trainer dataset seed base new hm images_per_s learned_parameters train_s config"
    assert "--csv output/demo/results.csv " in table
    assert f"--columns {columns}" in table
    assert page.startswith("tools/report.py output/demo ")
    folder = "train_base/emoji_animals/shots_16/Spotlighter/tiny_emoji/seed2"
    assert f"--model-dir output/demo/{folder} " in picture
    assert picture.startswith("tools/visualise.py ")
    assert picture.endswith("output/demo/spotlight.png")


def test_demo_takes_data_sets(ready):
    ready.run("demo", "emoji_faces")
    assert ready.calls()[0].startswith(f"{SWEEP}emoji_faces --trainers Zero")


def test_demo_takes_other_settings_or_none(ready):
    ready.run("demo", OPTS="")
    assert ready.calls()[0].endswith("--processes --opts")


def test_compare_runs_all_trainers_and_makes_table_and_page(ready):
    run = ready.run("compare", "emoji_faces", "--root", "/pics", OUTPUT="out", OPTS="OPTIM.LR 1")
    assert run.returncode == 0, run.stderr
    runs, *others = ready.calls()
    table, page = sorted(others)
    trainers = runs.split("--trainers ")[1].split(" --seeds")[0].split()
    listed = list(default_rows())
    assert trainers[: len(listed)] == listed
    assert trainers[len(listed) :] == [
        f"Spotlighter:tiny_emoji_{base}"
        for base in ("cocoop", "kgcoop", "prograd", "maple", "promptsrc", "promptkd")
    ]
    assert runs.endswith("--seeds 1 --root /pics --output out --processes --opts OPTIM.LR 1")
    assert table.startswith("tools/collect_results.py out --markdown out/results.md ")
    assert page == "tools/report.py out --root /pics --output out/report.html"


def test_the_whole_embedded_comparison_is_one_command(ready):
    assert ready.run("embedded", ADDRESS="auto").returncode == 0
    runs, *others = ready.calls()
    _, page = sorted(others)
    assert runs.startswith("tools/sweep.py --protocols base2new xd --datasets emoji_animals ")
    datasets = runs.split("--datasets ")[1].split(" --trainers")[0].split()
    colour = [p.stem for p in (ROOT / "configs/datasets").glob("emoji_*.yaml")]
    assert datasets == sorted(name for name in colour if not name.endswith("_lineart"))
    trainers = {
        name.split(":")[0] for name in runs.split("--trainers ")[1].split(" --seeds")[0].split()
    }
    assert trainers == {p.name for p in (ROOT / "configs/trainers").iterdir() if p.is_dir()}
    assert " --seeds 1 2 3 " in runs
    assert " --address auto " in runs
    assert page.startswith("tools/report.py output/embedded ")


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda p: p.stem)
def test_help_ends_with_an_example_and_does_nothing(ready, script):
    run = ready.run(script.stem, "--help")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert f"scripts/{script.name}" in [words[0] for words in examples(run.stdout)]
    assert ready.calls() == []


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(
    ("script", "tools"),
    [
        ("compare", ["sweep"]),
        ("demo", ["sweep"]),
        ("demo", ["collect_results", "report", "visualise"]),
        ("demo", ["report"]),
    ],
)
def test_what_ends_a_script_ends_what_it_started(ready, script, tools, sign):
    if sign == signal.SIGKILL and not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed")
    python = ready.env / "bin" / "python"
    those = " | ".join(f"tools/{tool}.py*" for tool in tools)
    python.write_text(FAKE_PYTHON.replace("  *)", f"  {those}) exec sleep 60 ;;\n  *)"))
    python.chmod(0o755)
    process = ready.start(script)
    marker = f"PROJECT={ready.root}".encode()
    end = time.monotonic() + 30
    while len(sleeping := [p for p in processes(marker) if p[1] == "sleep"]) < len(tools):
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(sign)
    assert process.wait(30) == (143 if sign == signal.SIGTERM else -sign)
    while set(sleeping) & set(processes(marker)):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("tool", ["collect_results", "report", "visualise"])
def test_a_script_fails_where_one_of_its_tools_does(ready, tool):
    python = ready.env / "bin" / "python"
    python.write_text(FAKE_PYTHON.replace("  *)", f"  tools/{tool}.py*) exit 3 ;;\n  *)"))
    python.chmod(0o755)
    run = ready.run("demo")
    assert run.returncode == 3
    assert "The patches that Spotlighter kept" not in run.stdout
    assert len(ready.calls()) == 3  # the others are run to their ends


def processes(marker):
    """(number, name) of those whose environment holds some words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if marker in (entry / "environ").read_bytes():
                found.append((int(entry.name), (entry / "comm").read_text().strip()))
    return found


@pytest.mark.parametrize("script", ["own", "demo", "compare", "embedded", "test", "setup"])
def test_help_needs_no_environment(project, script):
    assert project.run(script, "--help", VIRTUAL_ENV="", PATH="/usr/bin:/bin").returncode == 0
    assert not (project.root / ".venv").exists()
    assert project.calls() == []


def test_own_photos_are_named_from_where_the_script_is_called(ready):
    """Its folder is of the caller, not of the project, and may have a space."""
    (ready.root / "else where").mkdir()
    script = str(ready.root / "scripts" / "own.sh")
    python = ready.env / "bin" / "python"
    python.write_text(FAKE_PYTHON.replace("  *) echo", '  *) pwd >>"$PROJECT/calls"; echo'))
    variables = {"VIRTUAL_ENV": str(ready.env), "PROJECT": str(ready.root)}
    command = ["bash", script, "my photos", "--config", "tiny"]
    options = {"cwd": ready.root / "else where", "env": os.environ | variables}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    where, call = ready.calls()
    assert Path(where).name == "else where"
    assert call == f"{ready.root}/tools/own.py my photos --config tiny"
