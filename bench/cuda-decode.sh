#!/usr/bin/env bash
# Generation's GPU program (cuda-common.sh says how it is built). Ends with its status: 77 where there is no GPU.
#   bench/cuda-decode.sh [OUT]                build into OUT (default: a temporary folder), run the case lists
#   bench/cuda-decode.sh OUT --bench [...]    the times; further words go to the program
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=decode_gpu
kernels=(native/kernels/{decode,cuda_decode_device}.cu)
sources=(native/decode/{engine,workspace}.cpp native/generate/{gpu_decoder,page_pool,plan,responses,scheduler,stop}.cpp
  native/core/profile.cpp native/kernels/sample_row.cpp native/tests/cuda/decode_gpu.cpp)
source bench/cuda-common.sh
