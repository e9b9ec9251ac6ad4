#include "recipe/options.h"

#include <set>

#include "narrow/train_fields.h"
#include "testing/testing.h"

namespace narrow {
namespace {

struct Recipe {
  testing::TempDir dir;
  std::filesystem::path file = dir / "recipe.json";
  Status read(std::string_view text, QatOptions& options) {
    testing::write_file(file, text);
    return read_recipe(file, options);
  }
  void expect_error(std::string_view text, const std::vector<std::string>& words,
                    ErrorCode code = ErrorCode::kInvalidArgument) {
    QatOptions options;
    options.loop.lr = 0.5;
    const Status s = read(text, options);
    ASSERT_FALSE(s.ok()) << text;
    EXPECT_EQ(s.error().code, code) << s.error().message;
    EXPECT_NE(s.error().message.find("recipe.json"), std::string::npos) << s.error().message;
    EXPECT_EQ(s.error().message.find('\n'), std::string::npos);
    for (const auto& w : words) EXPECT_NE(s.error().message.find(w), std::string::npos) << s.error().message;
    EXPECT_EQ(options.loop.lr, 0.5) << "half of a bad recipe was used";
  }
};

TEST(TrainOptions, RecipeSetsWhatItNames) {
  Recipe r;
  QatOptions o;
  o.loop.seed = 7;
  ASSERT_OK(r.read(R"({"lr": 2e-5, "lr-scales": 1, "text": ["a.txt", "b.jsonl"], "steps": 30, "resume": true,
                       "train": "blocks+all", "start": "x.gguf", "calib": "c.txt", "lora_rank": 4})",
                   o));
  EXPECT_DOUBLE_EQ(o.loop.lr, 2e-5);
  EXPECT_DOUBLE_EQ(o.lr_scales, 1);
  EXPECT_EQ(o.loop.texts, (std::vector<std::filesystem::path>{"a.txt", "b.jsonl"}));
  EXPECT_EQ(o.loop.steps, 30);
  EXPECT_TRUE(o.loop.resume);
  EXPECT_EQ(o.train, "blocks+all");
  EXPECT_EQ(o.start, "x.gguf");
  EXPECT_EQ(o.calibration.texts, (std::vector<std::filesystem::path>{"c.txt"}));
  EXPECT_EQ(o.lora.rank, 4);
  EXPECT_EQ(o.loop.seed, 7u);  // not named: stays
  PretrainOptions p;
  ASSERT_OK(read_recipe((testing::write_file(r.file, R"({"config": "c.json"})"), r.file), p));
  EXPECT_EQ(p.config, "c.json");
}

TEST(TrainOptions, RecipeErrorsNameFileAndOption) {
  Recipe r;
  r.expect_error(R"({"lr": 1, "learning_rate": 1})", {"unknown option 'learning_rate'", "nearest"});
  r.expect_error(R"({"lr": 1, "wramup": 1})", {"'wramup'", "warmup"});
  r.expect_error(R"({"lr": 1, "rank": 1})", {"'rank'", "lora_rank"});
  r.expect_error(R"({"lr": "1e-4"})", {"'lr'", "\"1e-4\"", "a number"});
  r.expect_error(R"({"lr": 1, "steps": 1.5})", {"'steps'", "1.5", "a whole number"});
  r.expect_error(R"({"lr": 1, "seed": -1})", {"'seed'", "-1", "0 or more"});
  r.expect_error(R"({"lr": 1, "resume": 1})", {"'resume'", "true or false"});
  r.expect_error(R"({"lr": 1, "text": [1]})", {"'text'", "list of files"});
  r.expect_error(R"({"lr": 1, "train": "everything"})", {"'train'", "\"everything\"", "\"blocks+all\""});
  r.expect_error(R"([1])", {"JSON object"});
  r.expect_error(R"({"lr": 1, "lr": 2})", {"lr"}, ErrorCode::kCorrupt);
  r.expect_error(R"({"lr": 1,)", {"parse error"}, ErrorCode::kCorrupt);
  QatOptions o;
  EXPECT_EQ(read_recipe(r.dir / "absent.json", o).error().code, ErrorCode::kNotFound);
}

// What is written down is what reads back to the same options.
TEST(TrainOptions, JsonIsARecipe) {
  Recipe r;
  QatOptions o;
  o.type = "q4_0";
  o.loop.texts = {"a", "b"};
  o.temperature = 2.5;
  o.loop.seed = ~0ull;
  QatOptions back;
  ASSERT_OK(r.read(recipe::to_json(o).dump(), back));
  EXPECT_EQ(recipe::to_json(back), recipe::to_json(o));
  EXPECT_EQ(back.loop.seed, ~0ull);
  QatOptions elsewhere = o;
  elsewhere.output = "elsewhere.gguf";
  elsewhere.loop.resume = true;
  EXPECT_EQ(recipe::to_json(elsewhere, true), recipe::to_json(o, true));
  EXPECT_NE(recipe::to_json(elsewhere), recipe::to_json(o));
  elsewhere.loop.lr *= 2;
  EXPECT_NE(recipe::to_json(elsewhere, true), recipe::to_json(o, true));
}

template <class Options>
void expect_sound() {
  Options o;
  std::set<std::string> names;
  visit_fields(o, [&](const char* name, auto& member, const char* help, Choices choices = {}) {
    EXPECT_TRUE(names.insert(name).second) << name << " twice";
    EXPECT_GT(std::string_view(help).size(), 4u) << name;
    if constexpr (std::is_same_v<std::decay_t<decltype(member)>, std::string>) {
      const bool fits =
          choices.size() == 0 || std::find(choices.begin(), choices.end(), member) != choices.end();
      EXPECT_TRUE(fits) << name << "'s default is none of its choices";
    }
  });
}

TEST(TrainOptions, ListsAreSound) {
  expect_sound<QatOptions>();
  expect_sound<FinetuneOptions>();
  expect_sound<PretrainOptions>();
}

TEST(TrainOptions, GraphIsATable) {
  const std::string text =
      graph_text({{"blk.0.attn_q.weight", "[4, 4]", "q4_0, learned scales", "int8", true},
                  {"output_norm.weight", "[4]", "", "", true}});
  EXPECT_NE(text.find("blk.0.attn_q.weight  [4, 4]  yes      q4_0, learned scales  int8\n"),
            std::string::npos)
      << text;
}

}  // namespace
}  // namespace narrow
