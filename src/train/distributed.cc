#include "train/distributed.h"

#include <charconv>
#include <cstdlib>
#include <map>
#include <string_view>

namespace narrow::train {
namespace {

// Tensors are sent in buffers of about this size: small ones would pay a round trip each.
constexpr std::int64_t kBucketBytes = 32 << 20;

Result<std::int64_t> number(const char* name, std::optional<std::int64_t> otherwise, std::int64_t largest) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') {
    if (otherwise) return *otherwise;
    return make_error(ErrorCode::kInvalidArgument,
                      "WORLD_SIZE is set, but {} is not: start with torchrun, or set it", name);
  }
  const std::string_view s = text;
  std::int64_t n = 0;
  const auto r = std::from_chars(s.data(), s.data() + s.size(), n);
  if (r.ec != std::errc() || r.ptr != s.data() + s.size() || n < 0 || n > largest) {
    return make_error(ErrorCode::kInvalidArgument, "{} is '{}': a whole number from 0 to {} is needed", name,
                      s, largest);
  }
  return n;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// Runs what may throw out of c10d.
template <class F>
Status guarded(const char* what, const Rendezvous& where, F&& f) {
  try {
    f();
    return {};
  } catch (const std::exception& e) {
    return make_error(ErrorCode::kIo, "process {} of {}: {} failed ({}:{}): {}", where.rank, where.world,
                      what, where.host, where.port, first_line(e.what()));
  }
}

}  // namespace

Result<Rendezvous> Rendezvous::from_environment() {
  Rendezvous out;
  NARROW_ASSIGN(out.world, number("WORLD_SIZE", 1, 1 << 16));
  if (out.world <= 1) return Rendezvous();
  NARROW_ASSIGN(out.rank, number("RANK", {}, 1 << 16));
  if (out.rank >= out.world) {
    return make_error(ErrorCode::kInvalidArgument, "RANK is {} of WORLD_SIZE {}: ranks begin at 0", out.rank,
                      out.world);
  }
  NARROW_ASSIGN(out.local_rank, number("LOCAL_RANK", out.rank, 1 << 16));
  NARROW_ASSIGN(const std::int64_t port, number("MASTER_PORT", {}, 65535));
  out.port = static_cast<std::uint16_t>(port);
  const char* host = std::getenv("MASTER_ADDR");
  if (host == nullptr || *host == '\0') {
    return make_error(ErrorCode::kInvalidArgument,
                      "WORLD_SIZE is set, but MASTER_ADDR is not: start with torchrun, or set it");
  }
  out.host = host;
  const char* agent = std::getenv("TORCHELASTIC_USE_AGENT_STORE");
  if (agent != nullptr && std::string_view(agent) == "True") out.port += out.port < 65535 ? 1 : -1;
  return out;
}

Result<std::unique_ptr<Distributed>> Distributed::connect(const Rendezvous& where, at::Device device) {
  if (where.world <= 1) return std::unique_ptr<Distributed>();
  std::unique_ptr<Collective> collective;
  Status made;
  const Status met = guarded("the meeting of processes", where, [&] {
    auto result = device.is_cuda() ? nccl_collective(where) : gloo_collective(where);
    if (result.ok()) {
      collective = std::move(*result);
    } else {
      made = result.error();
    }
  });
  NARROW_TRY(met);
  NARROW_TRY(made);
  std::unique_ptr<Distributed> out(new Distributed(where, device, std::move(collective)));
  // The first operation opens the connections: what is wrong with them shows here.
  const at::Tensor one = at::ones({1}, at::TensorOptions().dtype(at::kFloat).device(device));
  NARROW_TRY(out->sum(std::span(&one, 1)));
  if (one.item<float>() != static_cast<float>(where.world)) {
    return make_error(ErrorCode::kInternal, "{} processes counted {}", where.world, one.item<float>());
  }
  return out;
}

Status Distributed::sum(std::span<const at::Tensor> tensors) {
  return run(tensors, &Collective::all_reduce, "the sum of gradients");
}

Status Distributed::broadcast(std::span<const at::Tensor> tensors) {
  return run(tensors, &Collective::broadcast, "sending the first weights");
}

Status Distributed::run(std::span<const at::Tensor> tensors, Operation operation, const char* what) {
  return guarded(what, where_, [&] {
    const at::NoGradGuard no_grad;
    // By dtype, in order: the same buckets in every process.
    std::map<at::ScalarType, std::vector<at::Tensor>> by_dtype;
    for (const at::Tensor& t : tensors) by_dtype[t.scalar_type()].push_back(t.detach());
    for (auto& [dtype, list] : by_dtype) {
      const std::int64_t room = kBucketBytes / static_cast<std::int64_t>(c10::elementSize(dtype));
      for (std::size_t begin = 0; begin < list.size();) {
        std::size_t end = begin;
        std::int64_t elements = 0;
        while (end < list.size() && (end == begin || elements + list[end].numel() <= room)) {
          elements += list[end++].numel();
        }
        if (end == begin + 1 && list[begin].is_contiguous() && list[begin].device() == device_) {
          (collective_.get()->*operation)(list[begin]);
        } else {
          at::Tensor bucket = at::empty({elements}, list[begin].options().device(device_));
          std::int64_t at = 0;
          for (std::size_t i = begin; i < end; ++i) {
            bucket.narrow(0, at, list[i].numel()).view(list[i].sizes()).copy_(list[i]);
            at += list[i].numel();
          }
          (collective_.get()->*operation)(bucket);
          at = 0;
          for (std::size_t i = begin; i < end; ++i) {
            list[i].copy_(bucket.narrow(0, at, list[i].numel()).view(list[i].sizes()));
            at += list[i].numel();
          }
        }
        begin = end;
      }
    }
  });
}

}  // namespace narrow::train
