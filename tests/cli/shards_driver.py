"""Runs ``avtune`` on the processes that torchrun started, with the words of a file.

Usage: ``torchrun --nproc-per-node 2 shards_driver.py FOLDER``; the words lie in ``FOLDER/words.json``.
"""

import json
import sys
from pathlib import Path

import torch

from avtune.cli import main

if __name__ == "__main__":
    code = main(json.loads((Path(sys.argv[1]) / "words.json").read_text()))
    torch.distributed.destroy_process_group()
    sys.exit(code)
