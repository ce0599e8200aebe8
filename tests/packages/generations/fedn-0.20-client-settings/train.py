"""FEDn 0.20 to 0.33: the server's settings for clients lie beside the input model."""

import sys

from data import x, y
from fedn.common.log_config import logger
from fedn.utils.helpers.helpers import load_metadata, save_metadata
from model import helper

if __name__ == "__main__":
    lr = load_metadata(sys.argv[1])["learning_rate"]
    w, b = helper.load(sys.argv[1])
    error = x @ w + b - y[:, None]
    helper.save([w - lr * x.T @ error / len(y), b - lr * error.mean(0)], sys.argv[2])
    save_metadata({"num_examples": len(y), "learning_rate": lr}, sys.argv[2])
    logger.info("trained with learning rate %s", lr)
