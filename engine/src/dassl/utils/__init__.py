"""Helpers that know nothing of data sets or trainers."""

from typing import TYPE_CHECKING

from dassl.late import late_names
from dassl.utils import tools
from dassl.utils.logger import Logger, setup_logger
from dassl.utils.registry import Registry, build_registered
from dassl.utils.tools import *  # noqa: F403

if TYPE_CHECKING:
    from dassl.utils.meters import AverageMeter, MetricMeter
    from dassl.utils.torchtools import *  # noqa: F403

LATE = {
    "meters": "AverageMeter MetricMeter",
    "torchtools": "choose_device count_num_param load_checkpoint load_pretrained_weights "
    "resume_from_checkpoint save_checkpoint",
}
__all__ = ["AverageMeter", "Logger", "MetricMeter", "Registry", "build_registered", "setup_logger"]
__all__ += tools.__all__
__all__ += LATE["torchtools"].split()
__getattr__ = late_names(__name__, LATE)
