// The parsed template.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace narrow::text::jinja {

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using Body = std::vector<std::unique_ptr<Stmt>>;

struct CallArgs {
  std::vector<ExprPtr> pos;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star, double_star;  // *args, **kwargs
};

struct Expr {
  enum class Op : std::uint8_t {
    kConst,
    kName,
    kNamespaceRef,  // assignment target name.attribute
    kTuple,
    kList,
    kDict,    // kids: key, value, key, value...
    kAttr,    // kids[0].attribute
    kItem,    // kids[0][kids[1]]
    kSlice,   // kids[0][kids[1]:kids[2]:kids[3]], each bound may be null
    kCall,    // kids[0](args)
    kFilter,  // kids[0] | name(args); kids[0] null in filter blocks
    kTest,    // kids[0] is name(args)
    kCond,    // kids[1] if kids[0] else kids[2] (may be null)
    kAnd,
    kOr,
    kNot,
    kNeg,
    kPos,
    kAdd,
    kSub,
    kMul,
    kDiv,
    kFloorDiv,
    kMod,
    kPow,
    kConcat,
    kCompare,  // kids[0] compares[0] kids[1] compares[1] kids[2] ...
  };
  enum class Compare : std::uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

  Op op = Op::kConst;
  int line = 0, column = 0;
  int depth = 1;
  std::string name, attribute;
  Value value;
  std::vector<ExprPtr> kids;
  std::vector<Compare> compares;
  std::unique_ptr<CallArgs> args;
};

struct Stmt {
  enum class Op : std::uint8_t {
    kText,
    kPrint,      // exprs
    kSet,        // target = exprs[0]
    kSetBlock,   // target = body, through `filter` if not null
    kFor,        // target in exprs[0], `filter` is the inline condition or null
    kIf,         // branches, else_body
    kMacro,      // name, params, defaults
    kCallBlock,  // exprs[0] is the call; params, defaults, body are the caller
    kFilterBlock,
    kWith,   // targets = exprs
    kScope,  // a body with a scope of its own: generation, block
    kBreak,
    kContinue,
  };

  Op op = Op::kText;
  int line = 0, column = 0;
  std::string text;  // kText: the text; kMacro: the name
  ExprPtr target, filter;
  std::vector<ExprPtr> exprs, targets;
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body body, else_body;
  std::vector<std::string> params;
  std::vector<ExprPtr> defaults;  // of the last params
  bool recursive = false;
  bool at_root = false;  // kScope: sees only top-level variables (block)
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
};

// A short text of the expression for messages: `message.content`, `tools | length`.
std::string describe(const Expr& e);

}  // namespace narrow::text::jinja
