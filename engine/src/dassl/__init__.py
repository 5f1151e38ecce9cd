"""An engine with the API and the observable behaviour of Dassl 0.6.3, for current PyTorch."""

from dassl.left_out import refuse_modules
from dassl.utils.logger import attach_stdout_handler

__version__ = "0.6.3+clean"

attach_stdout_handler()
refuse_modules()
