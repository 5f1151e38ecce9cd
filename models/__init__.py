"""What several methods share: CLIP's towers, prompts, the classifier, the Spotlighter head.

Plain modules and functions, tensors in, tensors out. Nothing here reads a config.
"""
