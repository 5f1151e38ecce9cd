"""Pretrain the tiny CLIP that ships with the project; see `tools/pretrain_tiny_clip.py`."""
