import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("avtune", deadline=None)
settings.load_profile("avtune")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, SHARED / name))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent (set {variable} to the folder of {name} files)")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    return _folder("AVTUNE_GOLDEN", "golden")


@pytest.fixture(scope="session")
def annotations_dir() -> Path:
    return _folder("AVTUNE_ANNOTATIONS", "annotations")


@pytest.fixture(scope="session")
def media_dir() -> Path:
    return _folder("AVTUNE_MEDIA", "media")
