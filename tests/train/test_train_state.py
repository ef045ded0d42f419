from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from training_case import small_config

from avtune.files import write_atomically
from avtune.train.state import Progress, ResumeError, RunState, load_state, run_identity, save_state

IDENTITY = {"optimizer.lr": "0.1", "training clips": "abc"}


def state() -> RunState:
    weight = torch.nn.Parameter(torch.arange(3.0))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    return RunState(
        progress=Progress(step=3, best=0.5, damaged={"a\n": "é"}),
        network={"weight": weight.detach()},
        best_network={},
        optimizer=optimizer.state_dict(),
        scaler={},
        identity=IDENTITY,
    )


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    assert load_state(tmp_path, IDENTITY) is None
    (tmp_path / ".last.pt.123").write_bytes(b"left by a kill")
    saved = state()
    save_state(tmp_path, saved)
    found = load_state(tmp_path, IDENTITY)
    assert found is not None
    assert asdict(found.progress) == asdict(saved.progress)
    assert torch.equal(found.network["weight"], saved.network["weight"])
    ours, theirs = found.optimizer["state"][0], saved.optimizer["state"][0]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("state")
    save_state(folder, state())
    return (folder / "last.pt").read_bytes()


def assert_refused(folder: Path, written: bytes) -> None:
    (folder / "last.pt").write_bytes(written)
    with pytest.raises(ResumeError, match=r"damaged, or not a state of avtune .*; delete it") as caught:
        load_state(folder, IDENTITY)
    assert "\n" not in str(caught.value)


@given(written=st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_random_bytes_are_refused(tmp_path: Path, written: bytes) -> None:
    assert_refused(tmp_path, written)


@given(share=st.floats(0, 1, exclude_max=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_truncated_states_are_refused(tmp_path: Path, content: bytes, share: float) -> None:
    assert_refused(tmp_path, content[: int(share * len(content))])


@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_flipped_byte_is_refused(tmp_path: Path, content: bytes, place: float, flip: int) -> None:
    written = bytearray(content)
    written[int(place * len(content))] ^= flip
    assert_refused(tmp_path, bytes(written))


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    if write == "torch":
        torch.save({"progress": Trap()}, buffer)
    else:
        pickle.dump({"progress": Trap()}, buffer, protocol=2)
    content = buffer.getvalue()
    assert_refused(tmp_path, hashlib.sha256(content).digest() + content)
    assert not (tmp_path / "sprung").exists()


def test_a_state_of_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    save_state(tmp_path, state())
    with pytest.raises(ResumeError, match=r"optimizer\.lr was 0\.1, now 0\.2") as caught:
        load_state(tmp_path, {**IDENTITY, "optimizer.lr": "0.2"})
    assert "\n" not in str(caught.value)
    with pytest.raises(ResumeError, match="training clips"):
        load_state(tmp_path, {**IDENTITY, "training clips": "abd"})


def test_the_identity_holds_what_has_an_effect() -> None:
    config = small_config()
    names = ["a", "b"]
    identity = run_identity(config, names, 1)
    for other in (
        run_identity(replace(config, optimizer=replace(config.optimizer, lr=3.0)), names, 1),
        run_identity(replace(config, encoder=replace(config.encoder, options={"latents": 3})), names, 1),
        run_identity(config, ["b", "a"], 1),
        run_identity(config, names, 2),
    ):
        assert other != identity
    same = replace(config, data=replace(config.data, workers=7), train=replace(config.train, save_every=1))
    assert run_identity(same, names, 1) == identity


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(handle: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
