#!/bin/sh
# The packaged nano weights, from nothing: an hour of one processor core that does nothing else. Stopped, it goes on.
set -eu
out=${1:-runs/nano}
export OMP_NUM_THREADS=1
here=$(dirname "$0")
python "$here/pretrain.py" --out "$out" --seed 0 --steps 13000 --cooldown 3000 --whole 500 --objects 52 --stacks 12 \
    --kept 28 --compile --difficulty 0.3 --preference 0.6
python "$here/pretrain.py" --out "$out" --export src/avtune/backbones/weights/nano.safetensors
