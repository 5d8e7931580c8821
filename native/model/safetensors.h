// Weights on disk in the safetensors format: 8 bytes of header length, a JSON header, raw little-endian tensors.
// TypeScript parses and validates headers (lib/model/safetensors.ts) and hands over a table; here files are mapped and
// read, and whole files are written.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/job_control.h"
#include "model/transformer.h"

namespace archer {

struct TensorEntry {
  std::string name;
  std::string dtype;  // F64, F32, F16 or BF16
  std::vector<int64_t> shape;
  std::string file;
  int64_t begin = 0, end = 0;  // bytes from the start of the file
};

// Loads every parameter of the model, its adapters' too; entries that are none of them are ignored. Each file is mapped once.
// ARCHER_E_MODEL: a parameter without entry and without a value, a wrong shape, bytes outside the file. ARCHER_E_IO: an unreadable
// file.
void load_weights(Transformer& model, const std::vector<TensorEntry>& entries, const JobControl* control);

// Every entry as a view of its mapped file, for tables that are no model's (optimizer state). Same errors.
std::vector<std::pair<std::string, at::Tensor>> open_tensors(const std::vector<TensorEntry>& entries);

// Writes and fsyncs one file. On failure (full disk, permissions) throws ARCHER_E_IO with the system's reason and
// leaves no partial file behind.
void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors);

}  // namespace archer
