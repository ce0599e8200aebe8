from setuptools import find_packages, setup

setup(
    name="v6-network-py",
    version="0.1.0",
    packages=find_packages(),
    install_requires=["pandas", "torch", "vantage6-client"],
)
