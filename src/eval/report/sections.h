// Measurements as a document to read.
#pragma once

#include "eval/report/document.h"
#include "eval/report/measurements.h"

namespace narrow::eval::report {

Document describe(const Measurements& m);

}  // namespace narrow::eval::report
