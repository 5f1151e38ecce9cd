"""Speed of the project's trainers beside their published formulations; see lab/benchmark.py."""

EXACT = ("CoOp", "CoCoOp", "MaPLe", "PromptSRC", "TextRefiner")  # equal to the published form
NAMES = (*EXACT, "Spotlighter")
FORMS = ("zero-shot", "published", "ours")
DTYPES = ("float32", "bfloat16")  # of our image tower
