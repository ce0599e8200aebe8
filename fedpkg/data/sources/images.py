"""A folder of images by class: ``folder/<class>/<image>``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedpkg.data.sources.base import Dataset
from fedpkg.data.sources.folders import digest_of_folder, files_below
from fedpkg.data.sources.registry import register_dataset
from fedpkg.errors import DataError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@register_dataset("images")
@dataclass(frozen=True)
class Images:
    """A folder with a sub-folder of images for each class, or with the folders `train` and `test` of such folders.

    x has the pixels (examples x channels x height x width, uint8), y the position of the class in the sorted names.
    Pillow reads the images (extra `[images]`).

    Args:
        path: Path of the folder.
        mode: L: one channel of grey. RGB: three.
        size: Height and width to which images are scaled. null: all have the same size.
    """

    path: str
    mode: Literal["L", "RGB"] = "RGB"
    size: list[int] | None = None

    def files(self) -> list[Path]:
        return files_below(Path(self.path))

    def fingerprint(self) -> str:
        return digest_of_folder(Path(self.path))

    def read(self) -> Dataset:
        folder = Path(self.path)
        if not folder.is_dir():
            raise DataError(f"dataset {self.path}: no such folder", path=self.path)
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise DataError(f"dataset {self.path}: size must be [height, width], found {self.size}")
        splits = {"train": folder / "train", "test": folder / "test"} if (folder / "train").is_dir() else {}
        splits = {name: path for name, path in splits.items() if path.is_dir()} or {"train": folder}
        classes = sorted({one.name for path in splits.values() for one in path.iterdir() if one.is_dir()})
        arrays: dict[str, Any] = {}
        for split, path in splits.items():
            found = [(image, label) for label, name in enumerate(classes) for image in _images(path / name)]
            if not found:
                raise DataError(
                    f"dataset {path}: it has no images in folders by class",
                    hint=f"put them at <class>/<image>, with a suffix of {', '.join(_SUFFIXES[:4])} …",
                    path=str(path),
                )
            arrays[f"x_{split}"] = self._pixels([image for image, _ in found])
            arrays[f"y_{split}"] = np.array([label for _, label in found], np.int64)
        return Dataset(arrays, classes=tuple(classes))

    def _pixels(self, paths: list[Path]) -> npt.NDArray[np.uint8]:
        first = self._image(paths[0])
        pixels = np.empty((len(paths), *first.shape), np.uint8)
        for number, path in enumerate(paths):
            image = self._image(path)
            if image.shape != first.shape:
                raise DataError(
                    f"dataset {path}: {image.shape[1]} x {image.shape[2]} pixels, but {paths[0].name} has "
                    f"{first.shape[1]} x {first.shape[2]}",
                    hint="set size: [height, width], to which all are scaled",
                    path=str(path),
                )
            pixels[number] = image
        return pixels

    def _image(self, path: Path) -> npt.NDArray[np.uint8]:
        """Channels x height x width."""
        try:
            from PIL import Image
        except ImportError as error:
            raise DataError(f"dataset {path}: Pillow is not installed", hint="pip install 'fedpkg[images]'") from error
        try:
            with Image.open(path) as image:
                converted = image.convert(self.mode)
                if self.size is not None:
                    converted = converted.resize((self.size[1], self.size[0]))
                array = np.asarray(converted, np.uint8)
        except Exception as error:  # Pillow can raise anything on a damaged file
            raise DataError(
                f"dataset {path}: the image cannot be read: {error}", hint="repair or remove it", path=str(path)
            ) from error
        return array[None] if self.mode == "L" else np.ascontiguousarray(array.transpose(2, 0, 1))


def _images(folder: Path) -> list[Path]:
    return [path for path in files_below(folder) if path.suffix.lower() in _SUFFIXES] if folder.is_dir() else []
