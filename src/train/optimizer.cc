#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace narrow::train {
namespace {

constexpr std::int64_t kGrain = 1 << 15;     // elements that are worth a thread
constexpr std::int64_t kSumBlock = 1 << 16;  // elements of one partial sum: fixed, whatever the threads
constexpr std::int64_t kLanes = 8;

// What one update does to every element of a parameter.
struct Update {
  float gradient_scale, beta2, eps;
  float gain1, gain2;     // 1 - beta1, 1 - beta2: rounded once
  float keep;             // 1 - lr * weight decay
  float step_size;        // lr / (1 - beta1^t)
  float inv_correction2;  // 1 / sqrt(1 - beta2^t)
};

// w is what is updated; p gets its rounding where it is another tensor (P bf16 with a master copy).
template <class W, class P, class G>
void update_range(const Update& u, const G* __restrict g, float* __restrict m, float* __restrict v,
                  W* __restrict w, P* __restrict p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    const float grad = static_cast<float>(g[i]) * u.gradient_scale;
    const float mi = m[i] + u.gain1 * (grad - m[i]);
    const float vi = u.beta2 * v[i] + u.gain2 * grad * grad;
    m[i] = mi;
    v[i] = vi;
    const float wi =
        static_cast<float>(w[i]) * u.keep - u.step_size * (mi / (std::sqrt(vi) * u.inv_correction2 + u.eps));
    w[i] = static_cast<W>(wi);
    if (p != nullptr) p[i] = static_cast<P>(wi);
  }
}

template <class W, class P, class G>
void update_all(const Update& u, const at::Tensor& g, at::Tensor& m, at::Tensor& v, W* w, P* p) {
  const G* gradient = g.data_ptr<G>();
  auto* first = m.data_ptr<float>();
  auto* second = v.data_ptr<float>();
  at::parallel_for(0, g.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    update_range<W, P, G>(u, gradient, first, second, w, p, begin, end);
  });
}

template <class G>
void update_cpu(const Update& u, const at::Tensor& g, at::Tensor& p, at::Tensor& m, at::Tensor& v,
                at::Tensor& master) {
  if (p.scalar_type() == at::kFloat) {
    update_all<float, float, G>(u, g, m, v, p.data_ptr<float>(), nullptr);
  } else if (master.defined()) {
    update_all<float, at::BFloat16, G>(u, g, m, v, master.data_ptr<float>(), p.data_ptr<at::BFloat16>());
  } else {
    update_all<at::BFloat16, at::BFloat16, G>(u, g, m, v, p.data_ptr<at::BFloat16>(), nullptr);
  }
}

// The same on other devices, in torch's own operations.
void update_any(const Update& u, const at::Tensor& g, at::Tensor& p, at::Tensor& m, at::Tensor& v,
                at::Tensor& master) {
  const at::Tensor grad = g.to(at::kFloat) * u.gradient_scale;
  m.lerp_(grad, u.gain1);
  v.mul_(u.beta2).addcmul_(grad, grad, u.gain2);
  at::Tensor w = master.defined() ? master : p.to(at::kFloat);
  w.mul_(u.keep).addcdiv_(m, v.sqrt().mul_(u.inv_correction2).add_(u.eps), -u.step_size);
  if (!w.is_same(p)) p.copy_(w);
}

template <class G>
double sum_of_squares(const G* g, std::int64_t n) {
  double lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      const auto x = static_cast<double>(static_cast<float>(g[i + j]));
      lanes[j] += x * x;
    }
  }
  for (; i < n; ++i) lanes[0] += static_cast<double>(static_cast<float>(g[i])) * static_cast<float>(g[i]);
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

template <class G>
double sum_of_squares(const at::Tensor& g) {
  const G* data = g.data_ptr<G>();
  const std::int64_t n = g.numel(), blocks = (n + kSumBlock - 1) / kSumBlock;
  std::vector<double> partial(static_cast<std::size_t>(blocks));
  at::parallel_for(0, blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      partial[static_cast<std::size_t>(b)] =
          sum_of_squares(data + b * kSumBlock, std::min(kSumBlock, n - b * kSumBlock));
    }
  });
  double sum = 0;
  for (const double p : partial) sum += p;
  return sum;
}

double squared_norm(const at::Tensor& gradient) {
  if (!gradient.is_cpu()) return gradient.to(at::kDouble).square().sum().item<double>();
  const at::Tensor g = gradient.contiguous();
  return g.scalar_type() == at::kFloat ? sum_of_squares<float>(g) : sum_of_squares<at::BFloat16>(g);
}

bool trainable_dtype(const at::Tensor& t) {
  return t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16;
}

Status check(const std::vector<Parameter>& parameters, const AdamWOptions& o) {
  if (!(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1 && o.eps >= 0)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "AdamW with betas {}, {} and eps {}: betas lie in [0, 1), eps is not negative", o.beta1,
                      o.beta2, o.eps);
  }
  std::set<std::string_view> names;
  for (const Parameter& p : parameters) {
    if (!names.insert(p.name).second) {
      return make_error(ErrorCode::kInvalidArgument, "parameter '{}' is there twice", p.name);
    }
    if (!p.tensor.defined() || !p.tensor.is_leaf() || !p.tensor.is_contiguous() ||
        !trainable_dtype(p.tensor)) {
      return make_error(ErrorCode::kInvalidArgument,
                        "parameter '{}' cannot be trained: it must be a contiguous leaf in f32 or bf16",
                        p.name);
    }
  }
  return {};
}

Status restore(const std::map<std::string, at::Tensor>& from, const std::string& name, at::Tensor& into) {
  const auto it = from.find(name);
  if (it == from.end()) return make_error(ErrorCode::kCorrupt, "the checkpoint lacks '{}'", name);
  if (it->second.sizes() != into.sizes()) {
    return make_error(ErrorCode::kCorrupt, "the checkpoint's '{}' has {} elements instead of {}", name,
                      it->second.numel(), into.numel());
  }
  into.copy_(it->second);
  return {};
}

}  // namespace

Result<AdamW> AdamW::create(std::vector<Parameter> parameters, const AdamWOptions& options) {
  NARROW_TRY(check(parameters, options));
  AdamW out;
  out.parameters_ = std::move(parameters);
  out.options_ = options;
  const at::NoGradGuard no_grad;
  for (const Parameter& p : out.parameters_) {
    const auto like = p.tensor.options().dtype(at::kFloat).requires_grad(false);
    Moments m = {at::zeros(p.tensor.sizes(), like), at::zeros(p.tensor.sizes(), like), {}, 0};
    if (options.master_weights && p.tensor.scalar_type() == at::kBFloat16)
      m.master = p.tensor.detach().to(at::kFloat);
    out.moments_.push_back(std::move(m));
  }
  return out;
}

double AdamW::gradient_norm() const {
  double sum = 0;
  for (const Parameter& p : parameters_) {
    if (p.tensor.grad().defined()) sum += squared_norm(p.tensor.grad());
  }
  return std::sqrt(sum);
}

std::string AdamW::bad_gradient() const {
  for (const Parameter& p : parameters_) {
    if (p.tensor.grad().defined() && !std::isfinite(squared_norm(p.tensor.grad()))) return p.name;
  }
  return "";
}

void AdamW::step(double lr, double gradient_scale) {
  const at::NoGradGuard no_grad;
  ++steps_;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& parameter = parameters_[i];
    if (!parameter.tensor.grad().defined()) continue;
    Moments& moments = moments_[i];
    const auto t = static_cast<double>(++moments.steps);
    const double own = lr * parameter.lr_scale;
    const Update u = {static_cast<float>(gradient_scale),
                      static_cast<float>(options_.beta2),
                      static_cast<float>(options_.eps),
                      static_cast<float>(1 - options_.beta1),
                      static_cast<float>(1 - options_.beta2),
                      static_cast<float>(1 - own * parameter.weight_decay),
                      static_cast<float>(own / (1 - std::pow(options_.beta1, t))),
                      static_cast<float>(1 / std::sqrt(1 - std::pow(options_.beta2, t)))};
    at::Tensor p = parameter.tensor.detach();  // shares memory, and its version
    const at::Tensor g = parameter.tensor.grad().contiguous();
    if (!p.is_cpu()) {
      update_any(u, g, p, moments.m, moments.v, moments.master);
    } else if (g.scalar_type() == at::kFloat) {
      update_cpu<float>(u, g, p, moments.m, moments.v, moments.master);
    } else {
      update_cpu<at::BFloat16>(u, g, p, moments.m, moments.v, moments.master);
    }
  }
}

void AdamW::zero_gradients() {
  for (Parameter& p : parameters_) p.tensor.mutable_grad().reset();
}

std::vector<NamedTensor> AdamW::state() const {
  std::vector<std::int64_t> counts = {steps_};
  std::vector<NamedTensor> out;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Moments& m = moments_[i];
    counts.push_back(m.steps);
    out.push_back({"adamw.m." + parameters_[i].name, m.m});
    out.push_back({"adamw.v." + parameters_[i].name, m.v});
    if (m.master.defined()) out.push_back({"adamw.master." + parameters_[i].name, m.master});
  }
  out.push_back({"adamw.steps", at::tensor(counts, at::kLong)});
  return out;
}

Status AdamW::load_state(const std::map<std::string, at::Tensor>& tensors) {
  const at::NoGradGuard no_grad;
  at::Tensor counts = at::zeros({static_cast<std::int64_t>(parameters_.size()) + 1}, at::kLong);
  NARROW_TRY(restore(tensors, "adamw.steps", counts));
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    Moments& m = moments_[i];
    NARROW_TRY(restore(tensors, "adamw.m." + parameters_[i].name, m.m));
    NARROW_TRY(restore(tensors, "adamw.v." + parameters_[i].name, m.v));
    if (m.master.defined()) NARROW_TRY(restore(tensors, "adamw.master." + parameters_[i].name, m.master));
    m.steps = counts[static_cast<std::int64_t>(i) + 1].item<std::int64_t>();
  }
  steps_ = counts[0].item<std::int64_t>();
  return {};
}

double clip_scale(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace narrow::train
