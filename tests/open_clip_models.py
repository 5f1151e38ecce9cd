"""Small models of open_clip in a folder, as `local-dir:` finds them."""

import json

import torch

CONTEXT = 20  # tokens; CLIP has 77
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def make_config(vision=None, text=None, **options):
    """A config that keeps to what every backbone can: 16 patches of 64 x 64 pixels."""
    return {
        "embed_dim": 48,
        "vision_cfg": {
            **{"image_size": 64, "patch_size": 16, "width": 64, "layers": 3, "head_width": 32},
            **(vision or {}),
        },
        "text_cfg": {
            **{"context_length": CONTEXT, "width": 32, "heads": 2, "layers": 3},
            **(text or {}),
        },
        **options,
    }


RESNET = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "patch_size": None}


def shake(model):
    """Let every tensor matter: biases, LayerNorms, statistics, layer scale.

    Layer scales are powers of two: a product with one is exact in float32, too.
    """
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if "gamma" in name:
                value.copy_(2.0 ** torch.randint(-1, 2, value.shape, generator=generator))
            elif value.is_floating_point() and name != "logit_scale":
                value.add_(0.05 * torch.rand(value.shape, generator=generator))
    return model.eval()


def write_folder(folder, config, preprocess=None):
    """Write config and random weights; return open_clip's own model."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = shake(open_clip.CLIP(**config))
    said = {"model_cfg": config, "preprocess_cfg": preprocess or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(said))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model
