"""CLIP: loading it, and its two towers opened for prompt tuning and token pruning."""
