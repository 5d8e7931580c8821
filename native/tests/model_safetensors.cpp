// Weights written and read again, from every dtype; damaged tables and a disk that is full are errors with a reason.
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <sstream>

#include "model/safetensors.h"
#include "model_fixture.h"

using namespace archer;
using namespace fixture;

namespace {

using Named = std::vector<std::pair<std::string, at::Tensor>>;

// What lib/model/safetensors.ts does in the product: the offsets follow from the order of the tensors.
std::vector<TensorEntry> table(const std::string& path, const Named& tensors) {
  std::ifstream file(path, std::ios::binary);
  uint64_t header_size = 0;
  file.read(reinterpret_cast<char*>(&header_size), 8);
  CHECK(header_size % 8 == 0);
  std::vector<TensorEntry> entries;
  int64_t offset = 8 + static_cast<int64_t>(header_size);
  for (const auto& [name, tensor] : tensors) {
    const char* dtype = tensor.scalar_type() == at::kDouble  ? "F64"
                        : tensor.scalar_type() == at::kFloat ? "F32"
                        : tensor.scalar_type() == at::kHalf  ? "F16"
                                                             : "BF16";
    const int64_t end = offset + static_cast<int64_t>(tensor.nbytes());
    entries.push_back({name, dtype, tensor.sizes().vec(), path, offset, end});
    offset = end;
  }
  struct stat status {};
  CHECK(stat(path.c_str(), &status) == 0 && status.st_size == offset);
  return entries;
}

std::string error_text(const char* code, const std::function<void()>& body) {
  try {
    body();
  } catch (const ArcherError& error) {
    return std::string(error.code()) == code ? error.what() : std::string("code ") + error.code();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return true;
  std::printf("got: %s\n", text.c_str());
  return false;
}

void round_trip(const std::string& path, at::ScalarType stored, at::ScalarType compute) {
  const ModelConfig config = flavours()[1].config;
  const Transformer source = make_model(config, at::kFloat, 5);
  Named tensors;
  for (const Parameter& parameter : source.parameters()) {
    tensors.emplace_back(parameter.name, parameter.master.to(stored));
  }
  tensors.emplace_back("lm_head.weight", at::zeros({3}, stored));  // no parameter of a tied model: ignored
  write_safetensors(path, tensors);
  Transformer target(config, compute, true);
  load_weights(target, table(path, tensors), nullptr);
  for (size_t i = 0; i < source.parameters().size(); ++i) {
    const at::Tensor &expected = tensors[i].second, &loaded = target.parameters()[i].master;
    CHECK(loaded.scalar_type() == (compute == at::kDouble ? at::kDouble : at::kFloat));
    CHECK(at::equal(loaded, expected.to(loaded.scalar_type())));
    CHECK(at::equal(target.parameters()[i].compute, loaded.to(compute)));
  }
}

void header_text(const std::string& path) {
  write_safetensors(path, {{"a \"b\"", at::arange(6, at::kFloat).view({2, 3})}, {"c", at::zeros({0}, at::kBFloat16)}});
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  const std::string header = R"({"__metadata__":{"format":"pt"},)"
                             R"("a \"b\"":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                             R"("c":{"dtype":"BF16","shape":[0],"data_offsets":[24,24]}})";
  CHECK(text.str().substr(8, header.size()) == header);
  CHECK(text.str().size() == 8 + (header.size() + 7) / 8 * 8 + 24);
}

void damaged(const std::string& path) {
  const ModelConfig config = flavours()[0].config;
  const Transformer source = make_model(config, at::kFloat, 5);
  Named tensors;
  for (const Parameter& parameter : source.parameters()) tensors.emplace_back(parameter.name, parameter.master);
  write_safetensors(path, tensors);
  const std::vector<TensorEntry> good = table(path, tensors);
  const auto attempt = [&](const char* code, const std::function<void(std::vector<TensorEntry>&)>& damage) {
    std::vector<TensorEntry> entries = good;
    damage(entries);
    Transformer target(config, at::kFloat, false);
    return error_text(code, [&] { load_weights(target, entries, nullptr); });
  };
  CHECK(contains(attempt(kModel, [](auto& e) { e.pop_back(); }), "no tensor lm_head.weight"));
  CHECK(contains(attempt(kModel, [](auto& e) { e.back().end += 4, e.back().begin += 4; }), "does not fit"));
  CHECK(contains(attempt(kModel, [](auto& e) { e[0].begin += 4; }), "does not fit"));
  CHECK(contains(attempt(kModel, [](auto& e) { e[0].begin = -4; }), "does not fit"));
  CHECK(contains(attempt(kModel, [](auto& e) { e[0].dtype = "I8"; }), "dtype I8"));
  const std::string swapped = attempt(kModel, [](auto& e) { std::swap(e[0].shape[0], e[0].shape[1]); });
  CHECK(contains(swapped, "tensor model.embed_tokens.weight has shape [24, 23], the config asks for [23, 24]"));
  CHECK(contains(attempt(kIo, [](auto& e) { e[0].file += ".gone"; }), "No such file"));
}

// A limit on the file size stands for the full disk: the same short write, the same error path.
void full_disk(const std::string& path) {
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 4096;
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string text = error_text(kIo, [&] { write_safetensors(path, {{"x", at::zeros({100000})}}); });
  setrlimit(RLIMIT_FSIZE, &before);
  CHECK(contains(text, "File too large") && contains(text, path));
  struct stat status {};
  CHECK(stat(path.c_str(), &status) != 0);

  CHECK(contains(error_text(kIo, [&] { write_safetensors("/dev/full", {{"x", at::zeros({8})}}); }), "No space left"));
  CHECK(stat("/dev/full", &status) == 0);
  CHECK(contains(error_text(kIo, [&] { write_safetensors(path + "/in/no/folder", {}); }), "No such file"));
}

}  // namespace

int main() {
  char folder[] = "/tmp/archer-safetensors-XXXXXX";
  CHECK(mkdtemp(folder) != nullptr);
  const std::string path = std::string(folder) + "/model.safetensors";
  for (const at::ScalarType stored : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
    for (const at::ScalarType compute : {at::kDouble, at::kFloat, at::kBFloat16}) round_trip(path, stored, compute);
  }
  header_text(path);
  damaged(path);
  std::remove(path.c_str());
  full_disk(path);
  CHECK(rmdir(folder) == 0);
  return check::finish();
}
