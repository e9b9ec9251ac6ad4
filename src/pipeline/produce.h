// Filling a job's output tensor by tensor, and what the tensors lost.
#pragma once

#include <vector>

#include "model/source.h"
#include "narrow/progress.h"
#include "narrow/quantize.h"
#include "pipeline/job.h"
#include "pipeline/plan.h"
#include "pipeline/tensor_stream.h"

namespace narrow::pipeline {

// The note of a quantized tensor (QuantizeJob::finish_tensor), for losses_of() and overflows_of().
nlohmann::json loss_note(const quant::WeightError& error, std::uint64_t overflowed = 0);
TensorLoss loss_of(const std::string& name, const nlohmann::json& note);
// Of every tensor with such a note, also of those that an earlier run finished.
std::vector<TensorLoss> losses_of(const QuantizeJob& job);
std::uint64_t overflows_of(const QuantizeJob& job);

// Every unfinished tensor by itself, some rows at a time. `importance` may be null. A method that needs
// Hessians gives way to rtn.
Status produce_by_rows(const model::ModelSource& source, const Plan& plan, bool search,
                       const Importance* importance, QuantizeJob& job, ProgressSink& progress);

}  // namespace narrow::pipeline
