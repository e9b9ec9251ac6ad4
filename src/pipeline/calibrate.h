// The job behind `narrow calibrate`: texts -> windows -> statistics of every matrix -> a file.
#pragma once

#include "narrow/calibrate.h"
#include "narrow/progress.h"

namespace narrow::pipeline {

Result<CalibrateReport> run_calibrate(const CalibrateOptions& options, ProgressSink& progress);

}  // namespace narrow::pipeline
