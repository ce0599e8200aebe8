from setuptools import find_packages, setup

setup(name="another-name", version="1.0", packages=find_packages())
