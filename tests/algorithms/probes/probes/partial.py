import os
import sys
import time

from fedpkg.analytics.v4.decorators import data
from fedpkg.client.task import task


@data(1)
def moments(df, column):
    """The number of values of a column, and their sum."""
    return {"count": int(df[column].count()), "sum": float(df[column].sum())}


@data(1)
def fails_at(df, organization, column):
    """As `moments`, but not at one organisation."""
    if task().client_id == organization:
        raise ValueError(f"no {column} today")
    return {"count": int(df[column].count()), "sum": float(df[column].sum())}


@data(1)
def append(df):
    """Tries to change the data of its node; says how it went."""
    folder = os.environ["FEDN_DATA_PATH"]
    path = os.path.join(folder, next(name for name in os.listdir(folder) if name != "node.json"))
    try:
        with open(path, "a") as file:
            file.write("1,1\n")
    except OSError as error:
        return type(error).__name__
    return "written"


@data(1)
def look(df, path):
    """Tries to read a file of another node."""
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        return type(error).__name__


@data(1)
def never_ends(df):
    """Sleeps until it is ended."""
    while True:
        time.sleep(60)


@data(1)
def process(df):
    """The name of the program that runs this."""
    return os.path.basename(sys.argv[0])


@data(2)
def both(first, second):
    """The numbers of rows of two databases, and a variable of the node."""
    return [os.environ.get("LETTER"), len(first), len(second)]


@data(1)
def big(df, megabytes):
    """A result of many bytes at organisations with several rows."""
    return "x" * (megabytes << 20 if len(df) > 1 else 1)
