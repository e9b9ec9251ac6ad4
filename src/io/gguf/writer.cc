#include "io/gguf/writer.h"

#include <new>

#include "io/gguf/layout.h"
#include "io/tensor_output.h"

namespace narrow::io::gguf {
namespace {

class FileWriter final : public Writer {
 public:
  Status open(const std::filesystem::path& path, const std::vector<TensorInfo>& tensors,
              const WriterOptions& options, const std::vector<PartLayout>& parts) {
    const std::vector<std::filesystem::path> paths = part_paths(path, parts.size(), options);
    for (std::size_t p = 0; p < parts.size(); ++p) {
      NARROW_TRY(output_.add_file(paths[p], parts[p].header, parts[p].total_bytes));
      for (std::size_t i = 0; i < parts[p].bytes.size(); ++i) {
        output_.add_tensor(tensors[parts[p].first_tensor + i].name, p, parts[p].offsets[i],
                           parts[p].bytes[i]);
      }
    }
    return {};
  }

  Status write(std::size_t index, std::uint64_t byte_offset, std::span<const std::byte> data) override {
    return output_.write(index, byte_offset, data);
  }
  Status finish() override { return output_.finish(); }
  const std::vector<std::filesystem::path>& paths() const override { return output_.paths(); }
  std::uint64_t file_bytes() const override { return output_.file_bytes(); }

 private:
  TensorOutput output_;
};

std::uint64_t total_bytes(const std::vector<PartLayout>& parts) {
  std::uint64_t n = 0;
  for (const PartLayout& p : parts) n += p.total_bytes;
  return n;
}

}  // namespace

Result<std::unique_ptr<Writer>> Writer::create(const std::filesystem::path& path, const Metadata& metadata,
                                               std::vector<TensorInfo> tensors,
                                               const WriterOptions& options) {
  try {
    auto parts = lay_out(metadata, tensors, options);
    if (!parts.ok()) return with_context(parts.error(), path.string());
    NARROW_TRY(TensorOutput::check_space(path.parent_path(), total_bytes(*parts)));
    auto writer = std::make_unique<FileWriter>();
    NARROW_TRY(writer->open(path, tensors, options, *parts));
    return std::unique_ptr<Writer>(std::move(writer));
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::kOutOfMemory, "{}: not enough memory for the file's header", path.string());
  }
}

std::uint64_t planned_file_bytes(const Metadata& metadata, const std::vector<TensorInfo>& tensors,
                                 const WriterOptions& options) {
  const auto parts = lay_out(metadata, tensors, options);
  return parts.ok() ? total_bytes(*parts) : 0;
}

}  // namespace narrow::io::gguf
