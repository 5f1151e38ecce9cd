"""Helpers that know nothing of data sets or trainers."""

from dassl.utils import tools, torchtools
from dassl.utils.logger import Logger, setup_logger
from dassl.utils.meters import AverageMeter, MetricMeter
from dassl.utils.registry import Registry, build_registered
from dassl.utils.tools import *  # noqa: F403
from dassl.utils.torchtools import *  # noqa: F403

__all__ = ["AverageMeter", "Logger", "MetricMeter", "Registry", "build_registered", "setup_logger"]
__all__ += tools.__all__
__all__ += torchtools.__all__
