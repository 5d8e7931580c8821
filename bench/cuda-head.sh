#!/usr/bin/env bash
# The head's GPU program (cuda-common.sh says how it is built). Ends with its status: 77 where there is no GPU.
#   bench/cuda-head.sh [OUT]                  build into OUT (default: a temporary folder), run the case lists
#   bench/cuda-head.sh OUT --bench [...]      the times; further words go to the program
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=head_gpu
kernels=(native/kernels/{head_rows,cuda_head_device}.cu)
sources=(native/head/{head_loss,head_run,row_weights}.cpp native/loss/{token_loss,token_classes,options}.cpp
  native/tests/cuda/head_gpu.cpp)
source bench/cuda-common.sh
