"""From the authors' state dicts to ours."""

from avtune.interop.lavish import adapter_from_official, fusion_from_official

__all__ = ["adapter_from_official", "fusion_from_official"]
