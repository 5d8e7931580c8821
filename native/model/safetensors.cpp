#include "model/safetensors.h"

#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>

namespace archer {
namespace {

struct Dtype {
  const char* name;
  at::ScalarType type;
};
constexpr Dtype kDtypes[] = {{"F64", at::kDouble}, {"F32", at::kFloat}, {"F16", at::kHalf}, {"BF16", at::kBFloat16}};

template <typename Predicate>
const Dtype* find_dtype(Predicate&& matches) {
  const Dtype* found = std::find_if(std::begin(kDtypes), std::end(kDtypes), matches);
  return found == std::end(kDtypes) ? nullptr : found;
}

[[noreturn]] void fail(const std::string& what, const std::string& path, int error) {
  throw ArcherError(kIo, what + " " + path + " failed: " + std::strerror(error));
}

// A read-only mapping that lives as long as a tensor looks into it.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) fail("opening", path, errno);
    struct stat status {};
    void* address = MAP_FAILED;
    if (::fstat(file, &status) == 0) {
      size_ = status.st_size;
      address = ::mmap(nullptr, std::max<size_t>(size_, 1), PROT_READ, MAP_PRIVATE, file, 0);
    }
    const int error = errno;
    ::close(file);
    if (address == MAP_FAILED) fail("reading", path, error);
    bytes_ = static_cast<char*>(address);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() { ::munmap(bytes_, std::max<size_t>(size_, 1)); }

  // Gives the pages of what has been read back: a whole model in them would stand beside the one that is loaded.
  void forget(int64_t begin, int64_t end) const {
    const int64_t page = ::sysconf(_SC_PAGESIZE), first = (begin + page - 1) / page * page;
    if (first < end) ::madvise(bytes_ + first, static_cast<size_t>(end - first), MADV_DONTNEED);
  }

  char* bytes() const { return bytes_; }
  int64_t size() const { return static_cast<int64_t>(size_); }

 private:
  char* bytes_ = nullptr;
  size_t size_ = 0;
};

at::Tensor view(const TensorEntry& entry, const std::shared_ptr<MappedFile>& file) {
  const Dtype* dtype = find_dtype([&](const Dtype& candidate) { return entry.dtype == candidate.name; });
  require(dtype != nullptr, kModel,
          entry.file + ": tensor " + entry.name + " has the dtype " + entry.dtype +
              "; F64, F32, F16 and BF16 can be read");
  const int64_t bytes = c10::multiply_integers(entry.shape) * static_cast<int64_t>(c10::elementSize(dtype->type));
  require(entry.begin >= 0 && entry.begin <= entry.end && entry.end <= file->size() && entry.end - entry.begin == bytes,
          kModel,
          entry.file + ": tensor " + entry.name + " at bytes " + std::to_string(entry.begin) + " to " +
              std::to_string(entry.end) + " does not fit its shape or the file of " + std::to_string(file->size()) +
              " bytes");
  return at::from_blob(file->bytes() + entry.begin, entry.shape, [file](void*) {}, at::TensorOptions(dtype->type));
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string make_header(const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  int64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    const at::ScalarType type = tensor.scalar_type();
    const Dtype* dtype = find_dtype([&](const Dtype& candidate) { return type == candidate.type; });
    require(dtype != nullptr, kInternal, std::string("cannot write the dtype ") + c10::toString(type));
    const int64_t end = offset + tensor.numel() * static_cast<int64_t>(tensor.element_size());
    header += "," + quoted(name) + ":{\"dtype\":\"" + dtype->name + "\",\"shape\":[";
    for (int64_t d = 0; d < tensor.dim(); ++d) header += (d ? "," : "") + std::to_string(tensor.size(d));
    header += "],\"data_offsets\":[" + std::to_string(offset) + "," + std::to_string(end) + "]}";
    offset = end;
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');  // the data begin at a multiple of 8
  return header;
}

// A file being written: removed again unless commit() was reached.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path) : path_(path) {
    file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file_ < 0) fail("creating", path, errno);
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile() {
    if (file_ >= 0) ::close(file_);
    struct stat status {};
    if (!committed_ && ::lstat(path_.c_str(), &status) == 0 && S_ISREG(status.st_mode)) ::unlink(path_.c_str());
  }

  void write(const void* bytes, size_t count) {
    constexpr size_t kMostPerCall = size_t{1} << 30;  // Linux writes at most 2 GiB per call
    const char* next = static_cast<const char*>(bytes);
    while (count > 0) {
      const ssize_t written = ::write(file_, next, std::min(count, kMostPerCall));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("writing", path_, errno);
      next += written;
      count -= static_cast<size_t>(written);
    }
  }

  void commit() {
    if (::fsync(file_) != 0) fail("writing", path_, errno);
    if (::close(std::exchange(file_, -1)) != 0) fail("closing", path_, errno);
    committed_ = true;
  }

 private:
  std::string path_;
  int file_ = -1;
  bool committed_ = false;
};

}  // namespace

void load_weights(Transformer& model, const std::vector<TensorEntry>& entries, const JobControl* control) {
  std::map<std::string, const TensorEntry*> by_name;
  for (const TensorEntry& entry : entries) by_name[entry.name] = &entry;
  std::map<std::string, std::shared_ptr<MappedFile>> files;
  for (const Parameter& parameter : model.all()) {
    if (control) control->check();
    const auto found = by_name.find(parameter.name);
    if (found == by_name.end() && parameter.compute.defined()) continue;  // fresh adapters
    require(found != by_name.end(), kModel, "the model's files hold no tensor " + parameter.name);
    const TensorEntry& entry = *found->second;
    std::shared_ptr<MappedFile>& file = files[entry.file];
    if (!file) file = std::make_shared<MappedFile>(entry.file);
    model.load(entry.name, view(entry, file));
    file->forget(entry.begin, entry.end);
  }
}

std::vector<std::pair<std::string, at::Tensor>> open_tensors(const std::vector<TensorEntry>& entries) {
  std::map<std::string, std::shared_ptr<MappedFile>> files;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const TensorEntry& entry : entries) {
    std::shared_ptr<MappedFile>& file = files[entry.file];
    if (!file) file = std::make_shared<MappedFile>(entry.file);
    tensors.emplace_back(entry.name, view(entry, file));
  }
  return tensors;
}

void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  const std::string header = make_header(tensors);
  OutputFile file(path);
  const uint64_t header_size = header.size();
  file.write(&header_size, sizeof header_size);
  file.write(header.data(), header.size());
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor contiguous = tensor.to(at::kCPU).contiguous();
    file.write(contiguous.const_data_ptr(), contiguous.nbytes());
  }
  file.commit();
}

}  // namespace archer
