// archer-bench-loss: the Archer loss with its gradients beside the bare three GEMMs, without Node.
//   archer-bench-loss --shape smollm2-512,qwen-256 --dtype bf16 --threads 1,2 --json loss.json     a table, and a file
//   archer-bench-loss --serve archer --shape smollm2-512      one contestant, driven line by line (docs/benchmarks.md):
//       in:  run | quit           out: {"event":"ready",…}, {"event":"run","seconds":…}, {"event":"error",…}
// Every row of the table is measured in a process of its own, so that no row inherits the memory of another.
#include <ATen/Parallel.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "bench/gemm_floor.h"
#include "bench/loss_case.h"
#include "bench/machine.h"
#include "bench/process_stats.h"
#include "core/error.h"

namespace {

using namespace archer;
using namespace archer::bench;

constexpr int64_t kQuotablePairs = 7;
constexpr double kQuotableLoad = 0.5, kQuotableSpread = 0.15;  // as in lib/bench/statistics.ts

constexpr const char* kUsage =
    R"(archer-bench-loss [options]     the Archer loss with gradients beside the bare three GEMMs
  --shape NAME[,NAME]      smollm2-512, smollm2-2048, qwen-256, or tokens x hidden x vocabulary as in 8x16x50
  --tokens N --hidden N --vocabulary N     a shape of your own
  --dtype bf16|float32     or both with a comma (bf16)
  --threads 1|2|...        or several with commas (1)
  --pairs N                loss and GEMMs in turn, N times (7)
  --memory kept|default    kept: freed memory stays in the process, tensors lie in huge pages; default: as they come (kept)
  --chunk N                rows of logits held at once (fused_loss decides)
  --response-tokens N      length of a response (256)
  --json FILE              write {machine, load, rows} there
  --machine                print what this machine is, as JSON
  --serve archer|gemm-floor   one contestant for `archer-native bench loss`: reads "run" and "quit", answers JSON lines
)";

struct Options {
  std::vector<std::string> shapes, dtypes = {"bf16"};
  std::vector<int64_t> threads = {1};
  int64_t pairs = kQuotablePairs, chunk = 0, response_tokens = 0, tokens = 0, hidden = 0, vocabulary = 0;
  bool keep_memory = true;
  std::string json, serve;
};

struct Setting {
  LossShape shape;
  std::string dtype;
  int64_t threads;
};

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts(1);
  for (const char c : list) {
    if (c == ',') parts.emplace_back();
    else parts.back() += c;
  }
  return parts;
}

int64_t whole_number(const std::string& option, const std::string& text, int64_t minimum) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(error == std::errc() && end == text.data() + text.size() && value >= minimum, kConfig,
          option + " is " + text + "; it must be a whole number of at least " + std::to_string(minimum) + ".");
  return value;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--help") {
      std::printf("%s", kUsage);
      std::exit(0);
    }
    if (name == "--machine") {
      std::printf("%s\n", machine_json().c_str());
      std::exit(0);
    }
    require(i + 1 < argc, kConfig, name + " needs a value; --help lists the options.");
    const std::string value = argv[++i];
    const auto number = [&](int64_t minimum) { return whole_number(name, value, minimum); };
    if (name == "--shape") options.shapes = split(value);
    else if (name == "--tokens") options.tokens = number(1);
    else if (name == "--hidden") options.hidden = number(1);
    else if (name == "--vocabulary") options.vocabulary = number(2);
    else if (name == "--dtype") options.dtypes = split(value);
    else if (name == "--threads") {
      options.threads.clear();
      for (const std::string& one : split(value)) options.threads.push_back(whole_number(name, one, 1));
    } else if (name == "--pairs") options.pairs = number(1);
    else if (name == "--chunk") options.chunk = number(1);
    else if (name == "--response-tokens") options.response_tokens = number(1);
    else if (name == "--json") options.json = value;
    else if (name == "--memory") {
      require(value == "kept" || value == "default", kConfig, "--memory is " + value + "; it must be kept or default.");
      options.keep_memory = value == "kept";
    } else if (name == "--serve") {
      require(value == "archer" || value == "gemm-floor", kConfig,
              "--serve is " + value + "; it must be archer or gemm-floor.");
      options.serve = value;
    } else {
      throw ArcherError(kConfig, name + " is not an option; --help lists them.");
    }
  }
  for (const std::string& dtype : options.dtypes) {
    require(dtype == "bf16" || dtype == "float32", kConfig, "--dtype is " + dtype + "; it must be bf16 or float32.");
  }
  return options;
}

std::vector<Setting> settings(const Options& options) {
  std::vector<LossShape> shapes;
  for (const std::string& name : options.shapes) shapes.push_back(shape_from_name(name));
  if (options.tokens > 0 || options.hidden > 0 || options.vocabulary > 0) {
    require(options.tokens > 0 && options.hidden > 0 && options.vocabulary > 0, kConfig,
            "--tokens, --hidden and --vocabulary belong together; one of them is missing.");
    shapes.push_back(shape_from_name(std::to_string(options.tokens) + "x" + std::to_string(options.hidden) + "x" +
                                     std::to_string(options.vocabulary)));
  }
  if (shapes.empty()) shapes.push_back(shape_from_name("smollm2-512"));
  std::vector<Setting> list;
  for (const LossShape& shape : shapes) {
    for (const std::string& dtype : options.dtypes) {
      for (const int64_t threads : options.threads) list.push_back({shape, dtype, threads});
    }
  }
  return list;
}

at::ScalarType scalar_type(const std::string& dtype) { return dtype == "bf16" ? at::kBFloat16 : at::kFloat; }

std::string sample_json(const Sample& sample) {
  return "{\"event\": \"run\", \"seconds\": " + json_number(sample.seconds) +
         ", \"cpu_seconds\": " + json_number(sample.cpu_seconds) +
         ", \"peak_bytes\": " + (sample.peak_bytes < 0 ? "null" : std::to_string(sample.peak_bytes));
}

void print_line(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

void serve(const Options& options) {
  const std::vector<Setting> all = settings(options);
  require(all.size() == 1, kConfig, "--serve takes one shape, one dtype and one number of threads.");
  const Setting& setting = all.front();
  at::set_num_threads(static_cast<int>(setting.threads));
  LossCase loss(setting.shape, scalar_type(setting.dtype), options.keep_memory, options.chunk, options.response_tokens);
  std::unique_ptr<GemmFloor> floor;
  std::string details = "{\"chunk\": " + std::to_string(options.chunk) + "}";
  if (options.serve == "gemm-floor") {
    floor = std::make_unique<GemmFloor>(loss.hidden(), loss.head());
    floor->choose();
    details = floor->description_json();
  }
  print_line("{\"event\": \"ready\", \"protocol\": 1, \"name\": " + json_text(options.serve) +
             ", \"details\": " + details + "}");
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "quit") return;
    if (line != "run") {
      print_line("{\"event\": \"error\", \"code\": \"ARCHER_E_CONFIG\", \"message\": " +
                 json_text("The command " + line + " is not known; send run or quit.") + "}");
      continue;
    }
    if (floor) {
      Sample sample;
      const double cpu_began = cpu_seconds();
      sample.seconds = floor->run();
      sample.cpu_seconds = cpu_seconds() - cpu_began;
      print_line(sample_json(sample) + "}");
    } else {
      const Sample sample = loss.run();
      print_line(sample_json(sample) + ", \"backward_rows\": " + std::to_string(loss.backward_rows()) + "}");
    }
  }
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

// One row of the table, as JSON; its line for people goes to stdout.
std::string measure(const Options& options, const Setting& setting, double load) {
  at::set_num_threads(static_cast<int>(setting.threads));
  LossCase loss(setting.shape, scalar_type(setting.dtype), options.keep_memory, options.chunk, options.response_tokens);
  // The memory of the loss is measured before the GEMMs' own buffers exist; this also warms it up.
  int64_t peak_bytes = -1;
  for (int i = 0; i < 2; ++i) peak_bytes = std::max(peak_bytes, loss.run().peak_bytes);
  GemmFloor floor(loss.hidden(), loss.head());
  floor.choose();

  std::vector<double> ours, cpu, bare, ratios;
  for (int64_t pair = 0; pair < options.pairs; ++pair) {
    const Sample sample = loss.run();
    ours.push_back(sample.seconds);
    cpu.push_back(sample.cpu_seconds);
    bare.push_back(floor.run());
    ratios.push_back(bare.back() / ours.back());
  }
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  std::string reasons;
  const auto because = [&](const std::string& reason) { reasons += (reasons.empty() ? "" : ", ") + json_text(reason); };
  if (load > kQuotableLoad) because("load average " + json_number(load) + " before the start");
  if (options.pairs < kQuotablePairs) because("only " + std::to_string(options.pairs) + " pairs");
  const double spread = (*high - *low) / median(ratios);
  if (spread > kQuotableSpread) because("the pairs' ratios spread by " + json_number(100 * spread) + " %");

  char line[1024];
  std::snprintf(line, sizeof line,
                "%-14s %-8s %7ld %8.1f ms %8.1f ms %8.1f ms  %6.3f  %5.3f-%5.3f %8.1f MB  %ld of %ld  %s\n  %s",
                setting.shape.name.c_str(), setting.dtype.c_str(), setting.threads, 1e3 * median(ours),
                1e3 * median(cpu), 1e3 * median(bare), median(ratios), *low, *high,
                static_cast<double>(peak_bytes) / 1e6, loss.backward_rows(), setting.shape.tokens,
                reasons.empty() ? "" : ("not quotable: " + reasons).c_str(),
                floor.description().c_str());
  print_line(line);
  return "{\"bench\": \"loss\", \"device\": \"cpu\", \"shape\": " + json_text(setting.shape.name) +
         ", \"dtype\": " + json_text(setting.dtype) + ", \"threads\": " + std::to_string(setting.threads) +
         ", \"against\": \"gemm-floor\", \"memory\": " + (options.keep_memory ? "\"kept\"" : "\"default\"") +
         ", \"ratio\": " + json_number(median(ratios)) + ", \"ratio_min\": " + json_number(*low) +
         ", \"ratio_max\": " + json_number(*high) + ", \"memory_ratio\": null, \"pairs\": " +
         std::to_string(options.pairs) + ", \"seconds\": " + json_number(median(ours)) +
         ", \"cpu_seconds\": " + json_number(median(cpu)) + ", \"rival_seconds\": " + json_number(median(bare)) +
         ", \"peak_bytes\": " + (peak_bytes < 0 ? "null" : std::to_string(peak_bytes)) + ", \"quotable\": " +
         (reasons.empty() ? "true" : "false") + ", \"reasons\": [" + reasons + "], \"details\": " +
         floor.description_json() + "}";
}

// measure() in a child process.
std::string measure_apart(const Options& options, const Setting& setting, double load) {
  int ends[2];
  require(pipe(ends) == 0, kIo, "no pipe to a measuring process could be made.");
  std::fflush(stdout);
  const pid_t child = fork();
  require(child >= 0, kIo, "no measuring process could be started.");
  if (child == 0) {
    close(ends[0]);
    int status = 1;
    try {
      const std::string row = measure(options, setting, load);
      status = write(ends[1], row.data(), row.size()) == static_cast<ssize_t>(row.size()) ? 0 : 1;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    std::fflush(stdout);
    _exit(status);
  }
  close(ends[1]);
  std::string row;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) row.append(buffer, static_cast<size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  require(WIFEXITED(status) && WEXITSTATUS(status) == 0, kInternal,
          "measuring " + setting.shape.name + " failed" +
              (WIFSIGNALED(status) ? " (signal " + std::to_string(WTERMSIG(status)) + ": out of memory?)." : "."));
  return row;
}

void table(const Options& options) {
  const double load = load_average();
  std::printf("%s, %d processors, load %.2f; ratio = bare GEMMs / loss\n", processor_name().c_str(),
              num_processors(), load);
  std::printf("%-14s %-8s %7s %11s %11s %11s  %6s  %11s %11s  %s\n", "shape", "dtype", "threads", "loss", "cpu time",
              "GEMMs", "ratio", "min-max", "extra", "rows in backward");
  std::string rows;
  for (const Setting& setting : settings(options)) {
    rows += (rows.empty() ? "\n    " : ",\n    ") + measure_apart(options, setting, load);
  }
  if (options.json.empty()) return;
  std::FILE* file = std::fopen(options.json.c_str(), "w");
  require(file != nullptr, kIo, options.json + " cannot be written.");
  std::fprintf(file, "{\n  \"machine\": %s,\n  \"load\": {\"before\": %s, \"after\": %s},\n  \"rows\": [%s\n  ]\n}\n",
               machine_json().c_str(), json_number(load).c_str(), json_number(load_average()).c_str(), rows.c_str());
  require(std::fclose(file) == 0, kIo, options.json + " could not be written to the end.");
}

}  // namespace

int main(int argc, char** argv) {
  bool serving = false;
  try {
    const Options options = parse(argc, argv);
    serving = !options.serve.empty();
    if (options.keep_memory) use_huge_pages();
    if (serving) serve(options);
    else table(options);
    return 0;
  } catch (const std::exception& error) {
    const auto* ours = dynamic_cast<const ArcherError*>(&error);
    const std::string code = ours ? ours->code() : kInternal;
    if (serving) {
      print_line("{\"event\": \"error\", \"code\": " + json_text(code) + ", \"message\": " + json_text(error.what()) +
                 "}");
    }
    std::fprintf(stderr, "%s %s\n", code.c_str(), error.what());
    return code == kConfig ? 2 : 1;
  }
}
