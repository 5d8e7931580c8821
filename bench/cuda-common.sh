# Builds a GPU program with plain nvcc and g++ and runs it: no CMake, no Node, no libtorch. cuBLAS is found at run time:
# on the loader's path, or in the nvidia packages beside a python3 that has PyTorch's CUDA build. NVCC and CUDA_HOME
# choose another toolkit. Sourced by the scripts beside it, from the repository's root, with
#   program (a name), kernels and sources (arrays of files), and the caller's own words: [OUT [words for the program]]
out="${1:-$(mktemp -d)}"
[ $# -gt 0 ] && shift
mkdir -p "$out"
nvcc="${NVCC:-$(command -v nvcc || true)}"
if [ -z "$nvcc" ]; then
  echo "$program: no nvcc; install the CUDA toolkit or set NVCC." >&2
  exit 77
fi
# A wrapper script may stand before the toolkit: ask nvcc itself where it lives.
home="${CUDA_HOME:-$("$nvcc" --dryrun -c -x cu /dev/null -o /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p' | tail -1)}"
[ -d "$home/include" ] || home="$(dirname "$(dirname "$(readlink -f "$nvcc")")")"
archs=(-gencode arch=compute_80,code=sm_80 -gencode 'arch=compute_90,code=[sm_90,compute_90]')
objects=()
jobs=()
for source in "${kernels[@]}"; do
  object="$out/$(basename "$source").o"
  "$nvcc" -std=c++17 -O3 "${archs[@]}" -Inative -c "$source" -o "$object" &
  jobs+=($!)
  objects+=("$object")
done
for source in "${sources[@]}"; do
  object="$out/$(basename "$source").o"
  g++ -std=c++20 -O2 -fopenmp -fno-math-errno -Wall -Wextra -Inative -isystem "$home/include" -c "$source" -o "$object"
  objects+=("$object")
done
for job in "${jobs[@]}"; do wait "$job"; done
"$nvcc" -Xcompiler -fopenmp "${objects[@]}" -cudart static -ldl -o "$out/$program"
if command -v python3 > /dev/null; then
  extra="$(python3 - <<'PYTHON'
import importlib.util, os
spec = importlib.util.find_spec("nvidia")
roots = list(spec.submodule_search_locations or []) if spec else []
names = [os.path.join(r, d, "lib") for r in roots for d in ("cu13", "cublas", "cuda_runtime")]
print(":".join(n for n in names if os.path.isdir(n)))
PYTHON
)"
  export LD_LIBRARY_PATH="$extra${extra:+:}${LD_LIBRARY_PATH:-}"
fi
exec "$out/$program" "$@"
