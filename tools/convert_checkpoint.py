"""Write a run's checkpoint under the names that the authors' code of its trainer reads.

That code loads with strict=False: a checkpoint under other names leaves its prompts untrained,
without a warning. DIR gets FOLDER/model.pth.tar-EPOCH (and model-best.pth.tar for the best epoch),
as its --model-dir needs it. The frozen CLIP, optimiser and schedule are left out.

Usage:
    python tools/convert_checkpoint.py output/my_run --output for_maple
    python tools/convert_checkpoint.py output/my_run --output for_maple --load-epoch 5
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from dassl.engine import TRAINER_REGISTRY
from dassl.utils import save_checkpoint

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/convert_checkpoint.py`
from runs.checkpoint import BEST, find_checkpoint, read_checkpoint
from runs.config import read_run_config
from tools.shared.command_line import parser_of, reports_user_errors, whole
from trainers.published import RENAMED, to_published

KNOWN = ("CoOp", "CoCoOp", "KgCoOp", "ProGrad", *RENAMED)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Write what a run has learned under the published names."""
    parser = parser_of(__doc__)
    parser.add_argument("run", type=Path, help="output folder of a run")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--load-epoch", type=whole(1), help="epoch to convert (best, or last)")
    args = parser.parse_args(argv)
    name = read_run_config(args.run).TRAINER.NAME
    if name not in KNOWN:
        raise ValueError(
            f"{args.run} is a run of {name}, whose checkpoints no other code reads; a run of "
            f"{', '.join(KNOWN)} can be converted"
        )
    folder = TRAINER_REGISTRY.get(name).checkpoint_name
    path = find_checkpoint(args.run, folder, args.load_epoch)
    output = args.output
    if (output / folder).resolve() == path.parent.resolve():
        raise ValueError(f"{output} is the folder of the run itself; name another one (--output)")
    for part, state in to_published(read_checkpoint(path), name, folder).items():
        save_checkpoint(state, output / part, is_best=path.name == BEST)
        print(f"Wrote {output / part}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
