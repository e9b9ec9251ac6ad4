// narrow's C++ API in one include.
#pragma once

#include "narrow/bench.h"
#include "narrow/calibrate.h"
#include "narrow/convert.h"
#include "narrow/engine.h"
#include "narrow/evaluate.h"
#include "narrow/generate.h"
#include "narrow/inspect.h"
#include "narrow/progress.h"
#include "narrow/quantize.h"
#include "narrow/registry.h"
#include "narrow/report.h"
#include "narrow/result.h"
#include "narrow/system.h"
