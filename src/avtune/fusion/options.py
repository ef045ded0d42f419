"""Where the names of ``avtune.options`` stand for those who look for them beside the methods."""

from avtune.options import OptionError, choose, nearest, settle

__all__ = ["OptionError", "choose", "nearest", "settle"]
