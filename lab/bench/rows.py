"""Rows of results.csv: one for each work that was timed, with its conditions."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import pandas as pd
import torch

from lab.bench.backbones import Schedule
from lab.bench.clock import Timing
from runs.record import git_revision, versions

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of results.csv. A field that does not apply stays empty."""

    command: str  # train | eval | loader | end2end | run | second | tower | compare | start
    trainer: str
    form: str  # ours | published | zero-shot | stored; of loader and compare also plain | cached
    backbone: str = ""
    image_size: int | None = None
    classes: int | None = None
    batch: int | None = None
    dtype: str  # of the image tower; the published forms are float32
    device: str
    device_name: str = ""
    threads: int
    prune: str = ""  # schedule, as 3:98; empty: no patch is dropped
    tokens: int | None = None  # patches that enter the last block
    workers: int | None = None  # processes of the loader
    warmup: int | None = None
    rounds: int | None = None
    median_s: float | None = None  # seconds of one call: a step, a batch, a pass of the loader
    min_s: float | None = None
    max_s: float | None = None
    images_per_s: float | None = None
    speedup: float | None = None  # time of the published form over this one's
    against_zero_shot: float | None = None  # time of zero-shot CLIP, text at hand, over this one's
    max_error: float | None = None  # of float32 logits against the published, over the largest
    extra_mb: float | None = None  # peak of tensor memory during a call, less that before; 10^6 B
    gflop: float | None = None  # 10^9 operations of a call
    gflop_per_s: float | None = None
    machine_gflop_per_s: float | None = None  # in matrix products of the image tower's shapes
    share: float | None = None  # gflop_per_s / machine_gflop_per_s
    part: float | None = None  # of the command tower: of the whole tower's time
    note: str = ""
    python: str = ""
    torch: str = ""
    torchvision: str = ""
    dassl: str = ""
    clip: str = ""
    git: str = ""
    date: str = ""

    def pruned(self, schedule: Schedule) -> Row:
        """The row of the same model that drops patches; it is no longer equal to anything."""
        return replace(self, prune=str(schedule), tokens=schedule.keep[-1], max_error=None)

    def counted(self, gflop: float, machine: float) -> Row:
        """The timed row with its operations and the machine's rate."""
        rate = gflop / self.median_s
        own = {"gflop": gflop, "gflop_per_s": rate, "share": rate / machine}
        return replace(self, machine_gflop_per_s=machine, **own)


def timed_rows(
    rows: Mapping[str, Row], timings: Mapping[str, Timing], images: int | None = None
) -> dict[str, Row]:
    """Rows with times, versions, date, and ratios to the forms "published" and "zero-shot".

    One call takes `images`, by default a batch; without either there is no rate.
    """
    found = {}
    packages, date = versions(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    for key, row in rows.items():
        low, high = timings[key].spread
        seen = images or row.batch
        found[key] = replace(
            row,
            device_name=device_name(row.device),
            warmup=timings[key].warmup,
            rounds=len(timings[key].seconds),
            median_s=timings[key].median,
            min_s=low,
            max_s=high,
            images_per_s=seen / timings[key].median if seen else None,
            python=packages["python"],
            torch=torch.__version__,
            torchvision=packages["torchvision"],
            dassl=packages["dassl"],
            clip=packages["clip-anytorch"],
            git=git_revision(),
            date=date,
        )
    for name, key in (("speedup", "published"), ("against_zero_shot", "zero-shot")):
        if key in found:
            other = found[key].images_per_s
            found = {k: replace(r, **{name: r.images_per_s / other}) for k, r in found.items()}
    return found


COLUMNS = [field.name for field in fields(Row)]
# Columns in which two rows of the same measurement agree.
KEY = [*COLUMNS[: COLUMNS.index("workers") + 1], "note"]


@cache
def device_name(device: str) -> str:
    """The model of the GPU or of the processor."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    text = CPU_INFO.read_text(encoding="utf-8") if CPU_INFO.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def read_rows(path: Path) -> pd.DataFrame:
    """All rows of a results.csv, none where there is no file; refuses other columns."""
    if not path.is_file():
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.read_csv(path, dtype={"prune": str, "note": str}, keep_default_na=True)
    if list(frame.columns) != COLUMNS:
        raise ValueError(
            f"{path} has the columns of another version of the benchmark; move it away or choose "
            "another folder (--output)"
        )
    return frame.fillna({"prune": "", "note": ""})


def append_rows(path: Path, rows: Sequence[Row]) -> None:
    """Add rows to a results.csv, which is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame([asdict(row) for row in rows], columns=COLUMNS)
    is_new = not path.is_file()
    frame.to_csv(path, mode="a", header=is_new, index=False, float_format="%.6g")
