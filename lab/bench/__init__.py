"""Speed of the project's trainers beside their published formulations; see lab/benchmark.py."""

EXACT = ("CoOp", "CoCoOp", "MaPLe", "PromptSRC", "TextRefiner")  # equal to the published form
NAMES = (*EXACT, "Spotlighter")
FROZEN = ("CoOp", "CoCoOp", "TextRefiner")  # of these, whose image tower learns nothing
STORED = "stored"  # ours, with what the frozen image tower gave at hand
FORMS = {"train": ("published", "ours", STORED), "eval": ("zero-shot", "published", "ours")}
DTYPES = ("float32", "bfloat16")  # of our image tower
