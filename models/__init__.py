"""Plain modules and functions: tensors in, tensors out. Nothing here sees a config or an engine."""
