// The job behind `narrow calibrate`: texts -> windows -> statistics of every matrix -> a file.
#pragma once

#include <memory>

#include "calib/stats.h"
#include "model/source.h"
#include "narrow/calibrate.h"
#include "narrow/progress.h"

namespace narrow::pipeline {

Result<CalibrateReport> run_calibrate(const CalibrateOptions& options, ProgressSink& progress);

// Statistics to quantize by: of the file options.stats, checked against the model before anything else, and
// of a run on options.texts; of both, their sum. No Hessians.
Result<calib::ModelStats> calibration_stats(const CalibrationOptions& options,
                                            const std::shared_ptr<const model::ModelSource>& source,
                                            ProgressSink& progress);

}  // namespace narrow::pipeline
