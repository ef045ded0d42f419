#!/bin/sh
# The packaged nano weights, from nothing: about half an hour of one processor core that does nothing else.
# Each call goes on from the last one's checkpoint. They differ because the run was steered while it went: smaller
# steps and compilation, then easier pictures with more of each object visible, then more objects, then the cooldown.
set -eu
out=${1:-runs/nano}
export OMP_NUM_THREADS=1
pretrain() { python "$(dirname "$0")/pretrain.py" --out "$out" --seed 0 "$@"; }
smaller="--kept 28 --compile"
easier="--difficulty 0.3 --preference 0.6"
pretrain --steps 500 --cooldown 0 --whole 0 --objects 84 --stacks 44 --kept 32
pretrain --steps 1000 --cooldown 0 --whole 0 --objects 42 --stacks 22 $smaller
pretrain --steps 2250 --cooldown 0 --whole 0 --objects 42 --stacks 22 $smaller $easier
pretrain --steps 3750 --cooldown 0 --whole 0 --objects 52 --stacks 12 $smaller $easier
pretrain --steps 4900 --cooldown 1150 --whole 150 --objects 52 --stacks 12 $smaller $easier
pretrain --export src/avtune/backbones/weights/nano.safetensors
