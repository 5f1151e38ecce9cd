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

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python tools/convert_checkpoint.py`
from tools.shared.command_line import parser_of, reports_user_errors, whole


def convert(run: Path, output: Path, epoch: int | None) -> None:
    """Write what a run has learned in an epoch; a ValueError says what cannot be converted."""
    from dassl.engine import TRAINER_REGISTRY
    from dassl.utils import save_checkpoint

    from runs.checkpoint import BEST, find_checkpoint, read_checkpoint
    from runs.config import read_run_config
    from trainers.published import RENAMED, to_published

    known = ("CoOp", "CoCoOp", "KgCoOp", "ProGrad", *RENAMED)
    name = read_run_config(run).TRAINER.NAME
    if name not in known:
        raise ValueError(
            f"{run} is a run of {name}, whose checkpoints no other code reads; a run of "
            f"{', '.join(known)} can be converted"
        )
    folder = TRAINER_REGISTRY.get(name).checkpoint_name
    path = find_checkpoint(run, folder, epoch)
    if (output / folder).resolve() == path.parent.resolve():
        raise ValueError(f"{output} is the folder of the run itself; name another one (--output)")
    for part, state in to_published(read_checkpoint(path), name, folder).items():
        save_checkpoint(state, output / part, is_best=path.name == BEST)
        print(f"Wrote {output / part}")


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Convert the checkpoint of a run."""
    parser = parser_of(__doc__)
    parser.add_argument("run", type=Path, help="output folder of a run")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--load-epoch", type=whole(1), help="epoch to convert (best, or last)")
    args = parser.parse_args(argv)
    convert(args.run, args.output, args.load_epoch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
