"""No test asserts a time: hypothesis does not, either. One that hangs ends at pytest's timeout (pyproject.toml)."""

from hypothesis import settings

settings.register_profile("fedpkg", deadline=None)
settings.load_profile("fedpkg")
