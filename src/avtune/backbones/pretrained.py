"""Where a backbone's weights come from: the Hugging Face cache, the network, or a local file.

Weights that are cached are loaded without asking the network, and weights that can't be fetched are reported
after one short try: the hub's own client would retry for minutes first.
"""

from __future__ import annotations

import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import torch

from avtune.backbones.timm_loading import timm
from avtune.backbones.tower import BackboneError

HUB_PREFIX = "hf-hub:"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
CLIENT_PACKAGES = {"huggingface_hub", "httpx", "httpcore", "requests", "urllib3", "urllib", "http"}
SECONDS_TO_CONNECT = 10.0


def at_hand(name: str) -> str:
    """Replace a hub repository by its cached copy, or see to it that the hub can be asked.

    Args:
        name: A name for ``timm.create_model``.

    Returns:
        The name, ``hf-hub:owner/model`` replaced by ``local-dir:...`` where the cache holds its
        configuration and weights.

    Raises:
        BackboneError: A hub repository is neither cached nor reachable.
    """
    if not name.startswith(HUB_PREFIX):
        return name
    repository, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
    configuration = _cached(repository, "config.json", revision or None)
    if configuration is not None and any((configuration.parent / file).exists() for file in WEIGHT_FILES):
        return f"local-dir:{configuration.parent}"
    _require(huggingface_hub.constants.ENDPOINT, name)
    return name


def weights_source(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Find out, before anything large is built, where timm can load weights from.

    Args:
        name: A name for ``timm.create_model``.
        settings: The ``pretrained_cfg`` of that model.

    Returns:
        Entries for timm's ``pretrained_cfg_overlay``: the cached file, or none if timm shall fetch.

    Raises:
        BackboneError: There are no weights of that name, or they are neither cached nor reachable.
    """
    if ":" in name or settings.get("file") or settings.get("state_dict"):
        return {}
    repository, url = settings.get("hf_hub_id"), settings.get("url")
    if repository:
        wanted = settings.get("hf_hub_filename")
        for file in (wanted,) if wanted else WEIGHT_FILES:
            cached = _cached(repository, file)
            # "hf" marks a file that only timm's own reader of that repository understands; any other custom
            # reader belongs to the file at ``url``, not to the one on the hub.
            if cached is not None and settings.get("custom_load") != "hf":
                return {"file": str(cached), "custom_load": False}
        _require(huggingface_hub.constants.ENDPOINT, name)
    elif url:
        if not (Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]).exists():
            _require(url, name)
    else:
        raise BackboneError(
            f"there are no pretrained weights for {name}; use pretrained=False{tags_of(name, ' or one of ')}"
        )
    return {}


def load_file(model: Any, path: Path, name: str) -> None:
    """Load weights from a local file, through the conversion that timm has for this architecture.

    Args:
        model: A timm model without its class head; a head in the file is left out.
        path: A safetensors file, a state dict that ``torch.load(weights_only=True)`` reads, or the ``.npz``
            of a ViT's original JAX code.
        name: The model's name, for messages.

    Raises:
        BackboneError: The file is missing, unreadable, or not of this architecture.
    """
    require_file(path, name)
    try:
        if path.suffix == ".npz":
            model.load_pretrained(str(path))
            return
        state = timm.models.load_state_dict(str(path), weights_only=True)
        convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        if convert is not None:
            state = convert(state, model)
        result = model.load_state_dict(state, strict=False)
    except Exception as error:
        raise BackboneError(f"{path}: no weights that {name} can take ({in_one_line(error)})") from error
    strange = [key for key in result.unexpected_keys if not key.startswith("head")]
    _require_fit(path, name, result.missing_keys, strange)


def require_file(path: Path, name: str) -> None:
    """Refuse a path where no file of weights is.

    Args:
        path: Where the weights should be.
        name: The model's name, for the message.

    Raises:
        BackboneError: There is none.
    """
    if not path.is_file():
        raise BackboneError(f"{path}: there is no such file of weights for {name}; check checkpoint_path")


def load_published(model: Any, path: Path, name: str, rename: Callable[[str], str | None]) -> None:
    """Load the file that a model's authors published, key for key.

    Args:
        model: What receives the weights; the file must hold a tensor for each of its own, of its shape.
        path: A state dict, or a checkpoint around one, that ``torch.load(weights_only=True)`` reads.
        name: The model's name, for messages.
        rename: The authors' name (``module.`` of a parallel wrapper taken away) to the model's, or None for
            what the model has no use for.

    Raises:
        BackboneError: The file is missing, unreadable, incomplete, or holds something of another model.
    """
    require_file(path, name)
    try:
        published = timm.models.load_state_dict(str(path), weights_only=True)
        named = {rename(key): value for key, value in published.items()}
        result = model.load_state_dict({key: value for key, value in named.items() if key}, strict=False)
    except Exception as error:
        if unsafe := _more_than_weights(path):
            raise BackboneError(
                f"{path}: holds more than weights, which could run code ({', '.join(unsafe[:3])}); where it is "
                "trusted, save its state dict alone: torch.save({'state_dict': checkpoint['state_dict']}, ...)"
            ) from error
        raise BackboneError(f"{path}: no weights that {name} can take ({in_one_line(error)})") from error
    _require_fit(path, name, result.missing_keys, result.unexpected_keys)


def _more_than_weights(path: Path) -> list[str]:
    """Names of the classes and functions that a file would call while it is unpickled; nothing is."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:
        # No file of torch's at all, of which the error at hand tells already.
        return []


def put_by_hand(name: str, file: str, source: str) -> Path:
    """A published file that cannot be fetched by its name, where a person has put it.

    Args:
        name: The model's name, for the message.
        file: The file's name.
        source: Where it is to be had, for the message.

    Returns:
        Its path in torch's folder of checkpoints.

    Raises:
        BackboneError: It is not there.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    if not path.is_file():
        raise BackboneError(
            f"the weights of {name} are not at {path}; get {file} from {source} and put it there, give it "
            "with checkpoint_path, or use pretrained=False"
        )
    return path


def _require_fit(path: Path, name: str, missing: Sequence[str], strange: Sequence[str]) -> None:
    if missing or strange:
        raise BackboneError(
            f"{path}: not the weights of {name}: {len(missing)} of its tensors are missing "
            f"({', '.join(missing[:3])}) and {len(strange)} belong to another model "
            f"({', '.join(strange[:3])}); give a file made for this architecture"
        )


def not_fetched(name: str, reason: str) -> BackboneError:
    """The error for weights that are out of reach.

    Args:
        name: The model's name.
        reason: What went wrong, a few words.

    Returns:
        The error, to be raised.
    """
    return BackboneError(
        f"the weights of {name} are not cached and could not be fetched ({reason}); connect to the network, "
        "set HF_HOME to a Hugging Face cache that holds them, give a local file with checkpoint_path, "
        "or use pretrained=False or the bundled tower nano"
    )


def concerns_network(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, comes from fetching.

    Args:
        error: Any error.

    Returns:
        True for failed connections and for whatever the hub's client raises.
    """
    while error is not None:
        package = type(error).__module__.split(".")[0]
        if package in CLIENT_PACKAGES or isinstance(error, (ConnectionError, TimeoutError)):
            return True
        error = error.__cause__
    return False


def tags_of(name: str, before: str) -> str:
    """Names under which timm has weights for an architecture.

    Args:
        name: Name of a model, with or without a tag.
        before: What to put before the list.

    Returns:
        ``before`` and up to six names, or nothing where there are none.
    """
    tagged = [known for known in timm.list_pretrained(f"{name.split('.')[0]}.*") if known != name]
    return before + ", ".join(tagged[:6]) if tagged else ""


def in_one_line(error: BaseException) -> str:
    """An error as one short line.

    Args:
        error: Any error.

    Returns:
        Its kind and its message, at most 200 characters of it.
    """
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:200]}" if message else type(error).__name__


def _cached(repository: str, file: str, revision: str | None = None) -> Path | None:
    folder = huggingface_hub.constants.HF_HUB_CACHE
    found = huggingface_hub.try_to_load_from_cache(repository, file, cache_dir=folder, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _require(url: str, name: str) -> None:
    """Raise unless the host of ``url`` answers, whatever its answer is."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise not_fetched(name, "HF_HUB_OFFLINE is set")
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS_TO_CONNECT):
            return
    except urllib.error.HTTPError:
        return
    except OSError as error:
        reason = getattr(error, "reason", error)
        # The hub's client may trust other certificates than Python does: let it try.
        if not isinstance(reason, ssl.SSLError):
            raise not_fetched(name, f"{urllib.parse.urlsplit(url).netloc}: {reason}") from error
