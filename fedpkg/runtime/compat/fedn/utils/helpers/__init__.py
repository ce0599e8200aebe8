"""Helpers for model files; FEDn 0.5 to 0.7 had the functions here, later ones have them in ``helpers.helpers``."""

from fedn.utils.helpers.helpers import get_helper, load_metadata, save_metadata, save_metrics

__all__ = ["get_helper", "load_metadata", "save_metadata", "save_metrics"]
