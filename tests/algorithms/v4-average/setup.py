from setuptools import find_packages, setup

setup(
    name="average_v4",
    version="1.0.0",
    packages=find_packages(),
    install_requires=["vantage6-algorithm-tools", "pandas"],
)
