"""Pretrain the tiny CLIP that ships with the project; see `lab/pretrain_tiny_clip.py`."""
