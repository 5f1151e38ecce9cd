"""Accuracy, error and macro F1."""

from collections import OrderedDict

from dassl.utils import Registry, check_availability

EVALUATOR_REGISTRY = Registry("EVALUATOR")


def build_evaluator(cfg, **kwargs):
    check_availability(cfg.TEST.EVALUATOR, EVALUATOR_REGISTRY.registered_names())
    return EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)(cfg, **kwargs)


class EvaluatorBase:
    def __init__(self, cfg):
        self.cfg = cfg


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    def __init__(self, cfg, lab2cname=None, **kwargs):
        super().__init__(cfg)
        self.reset()

    def reset(self):
        self._y_true, self._y_pred = [], []

    def process(self, mo, gt):
        self._y_true += gt.tolist()
        self._y_pred += mo.max(1)[1].tolist()

    def evaluate(self):
        pairs = list(zip(self._y_true, self._y_pred, strict=True))
        accuracy = 100 * sum(a == b for a, b in pairs) / len(pairs)
        scores = []
        for label in set(self._y_true):
            hits = sum(a == b == label for a, b in pairs)
            scores.append(2 * hits / sum((a == label) + (b == label) for a, b in pairs))
        macro_f1 = 100 * sum(scores) / len(scores)
        print(f"=> result\n* total: {len(pairs):,}\n* accuracy: {accuracy:.1f}%")
        return OrderedDict(accuracy=accuracy, error_rate=100 - accuracy, macro_f1=macro_f1)
