// What the interpreter knows without the template's help: operators, methods, filters, tests, global
// functions.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "text/jinja/ast.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/value.h"

namespace narrow::text::jinja {

// operators.cc
Value binary_operator(Expr::Op op, const Value& a, const Value& b, Budget& budget);
Value unary_operator(bool negative, const Value& v);
bool compare(Expr::Compare op, const Value& a, const Value& b, Budget& budget);
Value slice(const Value& object, const Value& start, const Value& stop, const Value& step, Budget& budget);

// Rows of the tables of built-ins.
using FilterFn = Value (*)(Interpreter& in, const Value& input, const Args& args);
using TestFn = bool (*)(Interpreter& in, const Value& value, const Args& args);
using MethodFn = Value (*)(Interpreter& in, const Value& self, const Args& args);

FilterFn find_text_filter(std::string_view name);                          // text_filters.cc
FilterFn find_sequence_filter(std::string_view name);                      // sequence_filters.cc
FilterFn find_filter(std::string_view name);                               // either; null if there is none
TestFn find_test(std::string_view name);                                   // tests.cc
MethodFn find_str_method(std::string_view name);                           // str_methods.cc
MethodFn find_container_method(const Value& self, std::string_view name);  // access.cc: dicts, lists, tuples
Values global_functions();                                                 // globals.cc

// Unknown filters and tests outside of conditions are errors of the template, as in jinja2. names.cc
void check_names(const Body& body);

// format.cc
std::string percent_format(std::string_view format, const Value& args, Budget& budget);  // format % args
std::string brace_format(Interpreter& in, std::string_view format, const Args& args);    // format.format(...)

// Shared by filters and methods; str_methods.cc
std::string replace_text(Interpreter& in, const std::string& s, const std::string& from,
                         const std::string& to, std::int64_t limit);
// side: 'l' text on the left, 'r' on the right, 'c' centred.
std::string pad_text(Interpreter& in, const std::string& s, std::int64_t width, std::string_view fill,
                     char side);
Values split_lines(Interpreter& in, std::string_view s, bool keep_ends);
bool has_upper_only(std::string_view s);  // str.isupper
bool has_lower_only(std::string_view s);

// One row of a table sorted by nothing in particular; the tables are short.
template <class Fn>
struct Named {
  std::string_view name;
  Fn fn;
};
template <class Fn, std::size_t n>
Fn find_in(const Named<Fn> (&table)[n], std::string_view name) {
  for (const auto& row : table) {
    if (row.name == name) return row.fn;
  }
  return nullptr;
}

// Arguments matched to parameter names. Parameters after `required` may be missing.
class Bound {
 public:
  Bound(std::string_view function, const Args& args, std::initializer_list<std::string_view> params,
        std::size_t required = 0);
  const Value* get(std::size_t i) const { return values_[i]; }
  const Value& at(std::size_t i) const { return *values_[i]; }  // of a required one
  bool flag(std::size_t i, bool otherwise = false) const {
    return values_[i] ? truthy(*values_[i]) : otherwise;
  }
  // None counts as missing.
  bool given(std::size_t i) const { return values_[i] != nullptr && !values_[i]->is_none(); }
  std::int64_t integer(std::size_t i, std::int64_t otherwise) const;
  const std::string& text(std::size_t i) const;  // fails unless a string

 private:
  std::string_view function_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

}  // namespace narrow::text::jinja
