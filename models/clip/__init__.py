"""CLIP: loading it, its two towers opened for prompt tuning, and token pruning in the image tower."""
