"""One pass over a loader: the evaluator's results, and how fast the model was."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

if TYPE_CHECKING:
    from trainers.base import CLIPTrainer


@torch.no_grad()
def evaluate(trainer: CLIPTrainer, loader: Any) -> tuple[dict[str, float], float]:
    """Evaluate a trainer's model.

    Returns:
        The evaluator's results, and images/s of the model alone, without reading and decoding: the
        median over batches.
    """
    trainer.set_model_mode("eval")
    trainer.evaluator.reset()
    rates = []
    for batch in tqdm(loader, disable=None):  # no bar where stderr is not a terminal
        image, label = trainer.parse_batch_test(batch)
        start = time.perf_counter()
        with trainer.precision.autocast():
            output = trainer.model_inference(image)
        if image.is_cuda:
            torch.cuda.synchronize(image.device)
        rates.append(len(image) / (time.perf_counter() - start))
        trainer.evaluator.process(output, label)
    return trainer.evaluator.evaluate(), round(median(rates), 1)
