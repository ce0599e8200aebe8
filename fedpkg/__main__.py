"""``python -m fedpkg`` is the same as ``fedpkg``."""

from fedpkg.cli.main import main

if __name__ == "__main__":
    main()
