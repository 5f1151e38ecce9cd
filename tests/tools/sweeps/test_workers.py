"""A sweep on a Ray cluster of two nodes, one of which is killed."""

import threading
from pathlib import Path

import pytest

from tests.tools.sweeps.conftest import wait_for
from tools import sweep

ray = pytest.importorskip("ray", reason="Ray, the extra [cluster], is not installed")
WORDS = ["--trainers", "MaPLe", "--datasets", "emoji_food", "emoji_faces", "--seeds", "1", "2"]


@pytest.fixture
def cluster(monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    quick = {"health_check_period_ms": 200, "health_check_failure_threshold": 3}
    head = {"num_cpus": 1, "num_gpus": 1, "include_dashboard": False, "_system_config": quick}
    found = Cluster(initialize_head=True, head_node_args=head)
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.mark.thorough
def test_every_job_ends_exactly_once_though_a_node_is_killed(project, cluster, monkeypatch, capsys):
    node = cluster.add_node(num_cpus=1, num_gpus=1)
    monkeypatch.setenv("FAKE_SECONDS", "0.3")
    hold = project.root / "hold"
    hold.touch()
    killed = []

    def kill():
        """Two jobs are at work, one a node, when a node dies; only then may any job end."""
        wait_for(lambda: len(project.events("start")) == 2)
        killed.extend(project.events("start", column=3))
        cluster.remove_node(node, allow_graceful=False)
        wait_for(lambda: not all(Path(f"/proc/{process}").exists() for process in killed))
        hold.unlink()

    killer = threading.Thread(target=kill)
    killer.start()
    code = sweep.main([*WORDS, "--address", cluster.address, "--retries", "0"])
    killer.join()
    assert len(killed) == 2
    assert code == 0
    ends = project.events("end")
    assert len(ends) == len(set(ends)) == 8
    assert set(project.events("end", column=4)) == {"0"}, "one GPU a job, the first of its node"
    starts = project.events("start")
    assert len(starts) == 9, "the job of the dead node starts twice, all others once"
    printed = capsys.readouterr().out
    assert "its machine was lost" in printed or "it was killed (-9)" in printed


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_of_nothing_is_said_at_once(project, capsys, address):
    assert sweep.main([*WORDS, "--address", address]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"sweep: error: no Ray at {address}: ")
    assert error.count("\n") == 1


@pytest.mark.thorough
def test_without_an_address_ray_is_of_this_machine(project, capsys):
    (project.root / "fails").write_text("emoji_faces")
    assert sweep.main([*WORDS, "--retries", "1"]) == 1
    assert not ray.is_initialized()
    assert project.events("end", column=4) == ["all"] * 4
    assert len(project.events("start")) == 4 + 2 * 2
    assert "2 of 8 jobs failed, 2 need them" in capsys.readouterr().err
