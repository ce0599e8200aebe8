"""FEDn's helper functions under the name of its successor."""

from fedn.utils.helpers.helpers import get_helper, load_metadata, save_metadata, save_metrics

__all__ = ["get_helper", "load_metadata", "save_metadata", "save_metrics"]
