"""Small generated clips that the tests of most commands share; nothing may be written beside them."""

from pathlib import Path

import pytest

from avtune.datasets.bandstand import render_bandstand


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bandstand")
    render_bandstand(root, 12, seed=3, size=64, rate=4, workers=1)
    return root
