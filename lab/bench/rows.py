"""Rows of results.csv: one for each work that was timed, with its conditions."""

from __future__ import annotations

import platform
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

    command: str
    """train | eval | loader | end2end"""
    trainer: str
    form: str
    """ours | published | zero-shot; of the loader: plain | cached"""
    backbone: str = ""
    image_size: int | None = None
    classes: int | None = None
    batch: int
    dtype: str
    """Of the image tower; the published forms are float32."""
    device: str
    device_name: str = ""
    threads: int
    prune: str = ""
    """Schedule, as 3:98; empty: no patch is dropped."""
    tokens: int | None = None
    """Patches that enter the last block."""
    workers: int | None = None
    """Processes of the loader."""
    warmup: int | None = None
    rounds: int | None = None
    median_s: float | None = None
    """Seconds of one call: a step, a batch, a pass of the loader."""
    min_s: float | None = None
    max_s: float | None = None
    images_per_s: float | None = None
    speedup: float | None = None
    """Time of the published form over this one's."""
    against_zero_shot: float | None = None
    """Time of zero-shot CLIP with text features at hand over this one's."""
    max_error: float | None = None
    """Largest difference of logits from the published form over the largest logit, float32."""
    extra_mb: float | None = None
    """Peak of tensor memory during a call, less what was there before; 10^6 bytes."""
    gflop: float | None = None
    """10^9 operations of a call."""
    gflop_per_s: float | None = None
    machine_gflop_per_s: float | None = None
    """What the machine reaches in matrix products of the image tower's shapes."""
    share: float | None = None
    """gflop_per_s / machine_gflop_per_s"""
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
        kept = schedule.keep[-1]
        return replace(self, prune=str(schedule), tokens=kept, max_error=None)

    def counted(self, gflop: float, machine: float) -> Row:
        """The timed row with its operations and the machine's rate."""
        rate = gflop / self.median_s
        return replace(
            self,
            gflop=gflop,
            gflop_per_s=rate,
            machine_gflop_per_s=machine,
            share=rate / machine,
        )


def timed_rows(
    rows: Mapping[str, Row], timings: Mapping[str, Timing], images: int | None = None
) -> dict[str, Row]:
    """Rows with times, versions, date, and ratios to the forms "published" and "zero-shot".

    Args:
        rows: the conditions by key.
        timings: by the same keys.
        images: taken by one call; a batch by default.
    """
    found = {}
    packages, date = versions(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    for key, row in rows.items():
        low, high = timings[key].spread
        found[key] = replace(
            row,
            device_name=device_name(row.device),
            warmup=timings[key].warmup,
            rounds=len(timings[key].seconds),
            median_s=timings[key].median,
            min_s=low,
            max_s=high,
            images_per_s=(images or row.batch) / timings[key].median,
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
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def read_rows(path: Path) -> pd.DataFrame:
    """All rows of a results.csv; none where there is no file.

    Raises:
        ValueError: the file has other columns.
    """
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
