#include "io/hf_config/json_text.h"

#include <new>
#include <string>
#include <unordered_map>
#include <vector>

#include "io/caps.h"
#include "io/printable.h"

namespace narrow::io {
namespace {

// Builds the value while nlohmann's lexer and grammar read the text. Pointers into a container stay valid
// while one of its children is built, because the container does not grow until the child has ended.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(DuplicateKeys duplicates) : duplicates_(duplicates) {}

  bool null() override { return put(Json()); }
  bool boolean(bool x) override { return put(Json(x)); }
  bool number_integer(number_integer_t x) override { return put(Json(x)); }
  bool number_unsigned(number_unsigned_t x) override { return put(Json(x)); }
  bool number_float(number_float_t x, const string_t&) override { return put(Json(x)); }
  bool string(string_t& x) override { return put(Json(std::move(x))); }
  bool binary(binary_t&) override { return false; }  // not in JSON text
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_array() override {
    stack_.pop_back();
    return true;
  }
  bool key(string_t& x) override {
    Items& items = object(*stack_.back());
    items.emplace_back(std::move(x), Json());
    return true;
  }
  bool end_object() override {
    const bool ok = join_duplicates(object(*stack_.back()));
    stack_.pop_back();
    return ok;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& e) override {
    const std::string_view what = e.what();
    const std::size_t end_of_id = what.find("] ");
    error_ = printable(end_of_id == std::string_view::npos ? what : what.substr(end_of_id + 2), 300);
    return false;
  }

  Json take() { return std::move(root_); }
  const std::string& error() const { return error_; }

 private:
  using Items = std::vector<std::pair<const std::string, Json>>;
  static Json::object_t& object(Json& j) { return j.get_ref<Json::object_t&>(); }

  Json* place(Json&& value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      auto& items = parent.get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    Json& slot = object(parent).back().second;
    slot = std::move(value);
    return &slot;
  }
  bool put(Json&& value) {
    place(std::move(value));
    return true;
  }
  bool open(Json&& value) {
    if (stack_.size() >= static_cast<std::size_t>(caps::kMaxJsonDepth)) {
      error_ = fmt::format("nested deeper than {} levels", caps::kMaxJsonDepth);
      return false;
    }
    stack_.push_back(place(std::move(value)));
    return true;
  }

  bool join_duplicates(Json::object_t& map) {
    Items& items = map;
    std::unordered_map<std::string_view, std::size_t> first;
    first.reserve(items.size());
    std::vector<bool> repeated;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto [it, fresh] = first.emplace(items[i].first, i);
      if (fresh) continue;
      if (duplicates_ == DuplicateKeys::kError) {
        error_ = fmt::format("key '{}' is there twice", printable(items[i].first));
        return false;
      }
      repeated.resize(items.size());
      repeated[i] = true;
      items[it->second].second = std::move(items[i].second);
    }
    if (repeated.empty()) return true;
    Items kept;
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (!repeated[i]) kept.emplace_back(items[i].first, std::move(items[i].second));
    }
    items = std::move(kept);
    return true;
  }

  DuplicateKeys duplicates_;
  Json root_;
  std::vector<Json*> stack_;
  std::string error_;
};

}  // namespace

Result<Json> parse_json(std::string_view text, const std::string& where, DuplicateKeys duplicates) {
  try {
    Builder builder(duplicates);
    if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
      return make_error(ErrorCode::kCorrupt, "{}: {}", where, builder.error());
    }
    return builder.take();
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::kOutOfMemory, "{}: not enough memory for {} bytes of JSON", where,
                      text.size());
  }
}

}  // namespace narrow::io
