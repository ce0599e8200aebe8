"""One array, in Scaleout's form of a model."""

import numpy as np
from scaleoututil.helpers.helpers import get_helper
from scaleoututil.utils.model import ScaleoutModel

helper = get_helper("numpyhelper")


def load_parameters(scaleout_model):
    with scaleout_model.get_training_model_stream() as stream:
        (w,) = helper.load(stream)
    assert scaleout_model.has_training_model and not scaleout_model.has_inference_model
    assert np.array_equal(w, *scaleout_model.get_training_model(helper))
    return [w]


def save_parameters(weights):
    return ScaleoutModel.from_training_model(weights, helper, metadata={"by": "test"})


def build():
    helper.save([np.zeros(2)], "seed.npz")
