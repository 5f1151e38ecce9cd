"""Top-k accuracy."""


def compute_accuracy(output, target, topk=(1,)):
    if isinstance(output, (tuple, list)):
        output = output[0]
    best = output.topk(max(topk), 1).indices.t()
    hits = best.eq(target.view(1, -1).expand_as(best))
    return [hits[:k].reshape(-1).float().sum(0, keepdim=True) * (100 / len(target)) for k in topk]
