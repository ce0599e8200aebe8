"""Names of FEDn and Scaleout: variables, files, entry points and modules."""

from __future__ import annotations

# Variables, and a file, with which a package finds its client's data and settings.
DATA_PATH = "FEDN_DATA_PATH"
DATA_PATHS = (DATA_PATH, "SCALEOUT_DATA_PATH")
LABELS_PATH = "FEDN_LABELS_PATH"  # of the server of split learning
CLIENT_SETTINGS_PATHS = ("FEDN_CLIENT_SETTINGS_PATH", "SCALEOUT_CLIENT_SETTINGS_PATH")
CLIENT_SETTINGS_OPTION = "client_settings_path"
NUMBER_VARIABLES = (
    "FEDN_DATA_SPLIT_INDEX",
    "SCALEOUT_DATA_SPLIT_INDEX",
    "CLIENT_NUMBER",
)  # the client's number, from 0
CLIENT_SETTINGS_FILE = "client_settings.yaml"
# Folders in the containers of old packages, in which each client found its own data.
CONTAINER_FOLDERS = ("/app/", "/data/", "/var/data/")

SPEC_FILE = "fedn.yaml"
SPEC_FILES = (SPEC_FILE, "scaleout.yaml")  # if both exist, the first counts
IGNORE_FILES = (".fednignore", ".scaleoutignore")

INIT_SEED = "init_seed"  # the function that makes the seed model, if there is no entry point build
FORMER_ENTRY_POINTS = {"infer": "predict"}  # in FEDn 0.5 to 0.8

# Distributions that the compatibility modules in runtime/compat replace.
SERVED = ("fedn", "scaleout", "scaleoututil")
# Modules of FEDn before 0.5, whose helpers write no metadata beside an update: all clients counted equally.
HELPERS_WITHOUT_WEIGHTS = (
    *("fedn.utils.pytorchhelper", "fedn.utils.kerashelper", "fedn.utils.numpyarrayhelper", "fedn.utils.numpymodel"),
    *("fedn.utils.kerassequential", "fedn.utils.kerasweights"),
)
