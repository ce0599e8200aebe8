"""The names that FEDn allows to server functions."""

import random
from typing import Dict, List, Tuple

import numpy as np

from fedn.common.log_config import logger
from fedn.network.combiner.hooks.serverfunctionsbase import ServerFunctionsBase

__all__ = ["Dict", "List", "ServerFunctionsBase", "Tuple", "logger", "np", "random"]
