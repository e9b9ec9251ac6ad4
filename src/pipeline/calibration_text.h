// Calibration texts -> token windows, through the model's own tokenizer and chat template.
#pragma once

#include "calib/tokens.h"
#include "model/source.h"
#include "narrow/progress.h"
#include "narrow/quantize.h"

namespace narrow::pipeline {

// Windows over options.texts, and what was used of each text. A .jsonl file has a conversation per line,
// {"messages": [{"role": ..., "content": ...}, ...]}, or {"text": "..."}; other files are plain UTF-8 text,
// in which special tokens are no more than text. Windows begin with BOS where the model has one, and are no
// longer than its context. Conversations that the template refuses are left out, with a note.
// Errors name the file and, in .jsonl, the line.
Result<calib::CutTexts> calibration_text(const CalibrationOptions& options, const model::ModelSource& source,
                                         ProgressSink& progress);

// The windows alone; what was asked, used and dropped goes to progress.note().
Result<calib::TokenWindows> calibration_windows(const CalibrationOptions& options,
                                                const model::ModelSource& source, ProgressSink& progress);

}  // namespace narrow::pipeline
