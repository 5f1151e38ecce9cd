"""The ratios that matter, on a small ViT, within a minute on two cores."""

from __future__ import annotations

from lab.bench.backbones import QUICK, recommended_schedule
from lab.bench.clock import Clock
from lab.bench.measure import Bench
from lab.bench.progress import REPORT
from lab.bench.rows import Row

CLASSES, MANY = 100, 1000
BATCH = 32  # of evaluations
TRAINED = {"CoOp": 32, "CoCoOp": 1, "MaPLe": 4, "Spotlighter": 8}  # with their batch sizes
ONLY_CHECKED = ("PromptSRC", "TextRefiner")
CLOCK = Clock(warmup=1, rounds=5, round_s=0.0, budget_s=4.0)


def run_quick(threads: int, device: str) -> tuple[list[Row], dict[str, float]]:
    """All rows, and the ratios by name.

    Training and CoOp's evaluation: time of the published form over ours. Evaluation of Spotlighter:
    time of zero-shot CLIP with text features at hand over ours, exact and pruned as recommended.
    """
    REPORT.start("building a small CLIP")
    bench = Bench(QUICK, threads=threads, device=device, clock=CLOCK, counts=False)
    rows, ratios, errors = [], {}, []
    for name, batch in TRAINED.items():
        REPORT.start(f"training {name}")
        rows += bench.train(name, CLASSES, batch)
        ratios[f"{name.lower()}_train_{CLASSES}"] = rows[-1].speedup
    for name in ONLY_CHECKED:
        REPORT.start(f"checking {name}")
        errors.append(bench.pair(name, CLASSES)[1])
    REPORT.start("evaluating Spotlighter")
    schedules, forms = [recommended_schedule(bench.clip.visual)], ("zero-shot", "ours")
    rows += bench.evaluate("Spotlighter", CLASSES, BATCH, schedules, forms)
    ratios["eval_exact"], ratios["eval_pruned"] = (row.against_zero_shot for row in rows[-2:])
    REPORT.start("evaluating CoOp")
    rows += bench.evaluate("CoOp", MANY, BATCH, (), ("published", "ours"))
    ratios[f"coop_eval_{MANY}"] = rows[-1].speedup
    errors += [row.max_error for row in rows if row.max_error is not None]
    ratios = {key: round(value, 3) for key, value in ratios.items()}
    return rows, ratios | {"max_error": float(f"{max(errors):.2e}")}
