#include "arguments.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string_view>
#include <utility>

namespace lorikeet {
namespace {

constexpr double kSafeInteger = 9007199254740991.0;
constexpr size_t kNameBytesMax = 512;
constexpr size_t kSaltBytesMax = 4096;

std::string shown(const Napi::Value& value) {
  if (value.IsNumber() || value.IsString() || value.IsBoolean() || value.IsNull() || value.IsUndefined()) {
    return value.ToString().Utf8Value().substr(0, 64);
  }
  return value.IsArray() ? "an array" : "another type";
}

std::string shown(double value) {
  if (std::trunc(value) == value && std::abs(value) <= kSafeInteger)
    return std::to_string(static_cast<int64_t>(value));
  return std::to_string(value);
}

[[noreturn]] void refuse(const std::string& field, const std::string& expected, const Napi::Value& actual) {
  throw EngineError::invalid(field,
                             "Expected " + expected + " for " + field + " but received " + shown(actual));
}

double number(const Napi::Value& value, const std::string& field, double low, double high) {
  const double n = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  if (!(n >= low && n <= high)) {
    refuse(field, "a number between " + shown(low) + " and " + shown(high), value);
  }
  return n;
}

int64_t integer(const Napi::Value& value, const std::string& field, double low, double high) {
  const double n = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  if (!(n >= low && n <= high) || std::trunc(n) != n) {
    refuse(field, "an integer between " + shown(low) + " and " + shown(high), value);
  }
  return static_cast<int64_t>(n);
}

Napi::Array array(const Napi::Value& value, const std::string& field, uint32_t length_max) {
  if (!value.IsArray()) refuse(field, "an array", value);
  const auto items = value.As<Napi::Array>();
  if (items.Length() > length_max) {
    throw EngineError::invalid(field, "Expected at most " + std::to_string(length_max) + " items for " +
                                          field + " but received " + std::to_string(items.Length()));
  }
  return items;
}

int32_t token(const Napi::Value& value, const std::string& field) {
  return static_cast<int32_t>(integer(value, field, 0, std::numeric_limits<int32_t>::max()));
}

// The fields of one JavaScript object, named with their path in errors.
class Fields {
 public:
  Fields(const Napi::Value& value, std::string path) : path_(std::move(path)) {
    if (!value.IsObject()) refuse(path_, "an object", value);
    object_ = value.As<Napi::Object>();
  }

  std::string name_of(const char* field) const { return path_.empty() ? field : path_ + "." + field; }
  Napi::Value get(const char* field) const { return object_.Get(field); }
  Fields fields(const char* field) const { return {get(field), name_of(field)}; }
  int64_t integer(const char* field, double low, double high = kSafeInteger) const {
    return lorikeet::integer(get(field), name_of(field), low, high);
  }
  double number(const char* field, double low, double high) const {
    return lorikeet::number(get(field), name_of(field), low, high);
  }
  Napi::Array array(const char* field, uint32_t length_max) const {
    return lorikeet::array(get(field), name_of(field), length_max);
  }
  bool boolean(const char* field) const { return read_boolean(get(field), name_of(field).c_str()); }
  std::string text(const char* field) const { return read_name(get(field), name_of(field).c_str()); }

 private:
  Napi::Object object_;
  std::string path_;
};

Dtype dtype(const Fields& fields) {
  const std::string name = fields.text("dtype");
  if (name == "F32") return Dtype::kF32;
  if (name == "F16") return Dtype::kF16;
  if (name == "BF16") return Dtype::kBF16;
  refuse(fields.name_of("dtype"), "F32, F16 or BF16", fields.get("dtype"));
}

FileTensor file_tensor(const Fields& fields) {
  FileTensor tensor;
  tensor.file = fields.integer("file", 0, 1e6);
  tensor.offset = fields.integer("offset", 0);
  tensor.bytes = fields.integer("bytes", 0);
  tensor.dtype = dtype(fields);
  const Napi::Array shape = fields.array("shape", 2);
  for (uint32_t i = 0; i < shape.Length(); ++i) {
    tensor.shape.push_back(integer(shape.Get(i), fields.name_of("shape"), 0, kSafeInteger));
  }
  return tensor;
}

std::optional<FileTensor> optional_tensor(const Fields& fields, const char* field) {
  const Napi::Value value = fields.get(field);
  if (value.IsNull() || value.IsUndefined()) return std::nullopt;
  return file_tensor(fields.fields(field));
}

ModelConfig model_config(const Fields& fields) {
  ModelConfig c;
  c.layers = fields.integer("layers", 1, 1024);
  c.hidden = fields.integer("hiddenSize", 1, 1 << 20);
  c.heads = fields.integer("heads", 1, 4096);
  c.kv_heads = fields.integer("kvHeads", 1, 4096);
  c.head_dim = fields.integer("headDim", 2, 4096);
  c.ffn = fields.integer("ffnSize", 1, 1 << 22);
  c.vocab = fields.integer("vocabSize", 1, 1 << 24);
  c.context = fields.integer("contextTokens", 1, 1 << 24);
  c.rms_eps = static_cast<float>(fields.number("rmsEps", 0, 1));
  c.rope_attention_scale = static_cast<float>(fields.number("ropeAttentionScale", 0, 1e3));
  const Napi::Array frequencies = fields.array("ropeInvFreq", 2048);
  for (uint32_t i = 0; i < frequencies.Length(); ++i) {
    c.rope_inv_freq.push_back(
        static_cast<float>(number(frequencies.Get(i), fields.name_of("ropeInvFreq"), 0, 1e6)));
  }
  return c;
}

LayerTensors layer_tensors(const Fields& fields) {
  LayerTensors t;
  t.input_norm = file_tensor(fields.fields("inputNorm"));
  t.post_attention_norm = file_tensor(fields.fields("postAttentionNorm"));
  t.q = file_tensor(fields.fields("qProj"));
  t.k = file_tensor(fields.fields("kProj"));
  t.v = file_tensor(fields.fields("vProj"));
  t.o = file_tensor(fields.fields("oProj"));
  t.gate = file_tensor(fields.fields("gateProj"));
  t.up = file_tensor(fields.fields("upProj"));
  t.down = file_tensor(fields.fields("downProj"));
  t.q_bias = optional_tensor(fields, "qBias");
  t.k_bias = optional_tensor(fields, "kBias");
  t.v_bias = optional_tensor(fields, "vBias");
  t.q_norm = optional_tensor(fields, "qNorm");
  t.k_norm = optional_tensor(fields, "kNorm");
  return t;
}

ModelDescriptor model_descriptor(const Fields& fields) {
  ModelDescriptor d;
  d.config = model_config(fields.fields("config"));
  const Napi::Array files = fields.array("files", 4096);
  for (uint32_t i = 0; i < files.Length(); ++i) {
    const Napi::Value path = files.Get(i);
    if (!path.IsString()) refuse(fields.name_of("files"), "paths", path);
    d.files.push_back(path.As<Napi::String>().Utf8Value());
  }
  d.embed = file_tensor(fields.fields("embedTokens"));
  d.norm = file_tensor(fields.fields("norm"));
  d.head = file_tensor(fields.fields("lmHead"));
  const Napi::Array layers = fields.array("layers", 1024);
  for (uint32_t i = 0; i < layers.Length(); ++i) {
    d.layers.push_back(
        layer_tensors({layers.Get(i), fields.name_of("layers") + "[" + std::to_string(i) + "]"}));
  }
  return d;
}

Target target(const Fields& fields) {
  const std::string kind = fields.text("kind");
  if (kind == "base") return {Target::Kind::kBase, ""};
  if (kind == "adapter") return {Target::Kind::kAdapter, fields.text("name")};
  if (kind == "revision") return {Target::Kind::kRevision, fields.text("digest")};
  refuse(fields.name_of("kind"), "base, adapter or revision", fields.get("kind"));
}

Module module(const Fields& fields) {
  const std::string name = fields.text("module");
  std::string names;
  for (size_t i = 0; i < kModules; ++i) {
    if (name == kModuleTable[i].name) return static_cast<Module>(i);
    names += (i == 0 ? "" : ", ") + std::string(kModuleTable[i].name);
  }
  refuse(fields.name_of("module"), "one of " + names, fields.get("module"));
}

LogprobsMode logprobs_mode(const Fields& fields) {
  const std::string mode = fields.text("logprobsMode");
  if (mode == "raw") return LogprobsMode::kRaw;
  if (mode == "processed") return LogprobsMode::kProcessed;
  refuse(fields.name_of("logprobsMode"), "raw or processed", fields.get("logprobsMode"));
}

Policy policy(const Fields& fields) {
  const std::string name = fields.text("policy");
  if (name == "activation") return Policy::kActivation;
  if (name == "pin") return Policy::kPin;
  if (name == "latest") return Policy::kLatest;
  refuse(fields.name_of("policy"), "activation, pin or latest", fields.get("policy"));
}

std::string cache_salt(const Fields& fields) {
  const Napi::Value value = fields.get("cacheSalt");
  std::string salt = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (!value.IsString() || salt.size() > kSaltBytesMax) {
    refuse(fields.name_of("cacheSalt"), "a string of at most " + std::to_string(kSaltBytesMax) + " bytes",
           value);
  }
  return salt;
}

SamplingParams sampling_params(const Fields& fields) {
  SamplingParams p;
  p.temperature = fields.number("temperature", 0, 1e3);
  p.top_p = fields.number("topP", 0, 1);
  p.top_k = fields.integer("topK", 0, std::numeric_limits<int32_t>::max());
  p.min_p = fields.number("minP", 0, 1);
  p.seed = static_cast<uint64_t>(fields.integer("seed", -kSafeInteger));
  p.presence_penalty = fields.number("presencePenalty", -1e3, 1e3);
  p.frequency_penalty = fields.number("frequencyPenalty", -1e3, 1e3);
  p.repetition_penalty = fields.number("repetitionPenalty", 1e-3, 1e3);
  const Napi::Array biases = fields.array("logitBias", 1 << 16);
  for (uint32_t i = 0; i < biases.Length(); ++i) {
    const Napi::Array pair = array(biases.Get(i), "logitBias", 2);
    p.logit_bias.emplace_back(token(pair.Get(0u), "logitBias"),
                              static_cast<float>(number(pair.Get(1u), "logitBias", -1e6, 1e6)));
  }
  p.logprobs_mode = logprobs_mode(fields);
  return p;
}

Compute compute(const Fields& fields) {
  const std::string dtype = fields.text("dtype");
  if (dtype == "auto") return Compute::kAuto;
  if (dtype == "float32") return Compute::kFloat32;
  if (dtype == "bfloat16") return Compute::kBfloat16;
  refuse(fields.name_of("dtype"), "auto, float32 or bfloat16", fields.get("dtype"));
}

// Asked of the prototype, as a property of the buffer's own may say anything.
bool is_resizable(const Napi::ArrayBuffer& buffer) {
  const Napi::Env env = buffer.Env();
  const auto of_all = env.Global().Get("ArrayBuffer").As<Napi::Object>().Get("prototype").As<Napi::Object>();
  const auto lookup = of_all.Get("__lookupGetter__").As<Napi::Function>();
  const auto getter = lookup.Call(of_all, {Napi::String::New(env, "resizable")}).As<Napi::Function>();
  return getter.Call(buffer, {}).ToBoolean();
}

// Bytes that nobody can cut short while they are read.
std::span<const std::byte> body(const Napi::Value& value) {
  const bool is_bytes =
      value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array;
  if (!is_bytes) refuse("body", "a Uint8Array", value);
  const Napi::Value buffer = value.As<Napi::TypedArray>().ArrayBuffer();
  if (!buffer.IsArrayBuffer() || is_resizable(buffer.As<Napi::ArrayBuffer>())) {
    throw EngineError::invalid(
        "body", "Expected an ArrayBuffer of fixed length under body but received a shared or resizable one");
  }
  const auto bytes = value.As<Napi::Uint8Array>();
  return {reinterpret_cast<const std::byte*>(bytes.Data()), bytes.ByteLength()};
}

// A line of the server's log a second, as the event loop stands still meanwhile.
void say_progress(int64_t done, int64_t total) {
  using Clock = std::chrono::steady_clock;
  static thread_local Clock::time_point said = Clock::now();
  static thread_local int64_t done_before = 0;
  if (std::exchange(done_before, done) > done) said = Clock::now();  // another model
  if (Clock::now() - said < std::chrono::seconds(1)) return;
  said = Clock::now();
  std::fprintf(stderr, "{\"level\":\"info\",\"percent\":%d,\"msg\":\"loading weights\"}\n",
               static_cast<int>(100 * done / total));
}

}  // namespace

std::string read_name(const Napi::Value& value, const char* field) {
  std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (name.empty() || name.size() > kNameBytesMax) {
    refuse(field, "a string of 1 to " + std::to_string(kNameBytesMax) + " bytes", value);
  }
  return name;
}

bool read_boolean(const Napi::Value& value, const char* field) {
  if (!value.IsBoolean()) refuse(field, "a boolean", value);
  return value.As<Napi::Boolean>();
}

int64_t read_id(const Napi::Value& value) { return integer(value, "id", 1, kSafeInteger); }

OpenOptions read_open_options(const Napi::Value& value) {
  const Fields fields(value, "");
  OpenOptions options;
  options.backend = fields.text("backend");
  ExecutorOptions& executor = options.executor;
  executor.slots = fields.integer("slots", 1, 1 << 16);
  executor.max_rank = fields.integer("maxRank", 1, 1024);
  executor.kv_bytes = fields.integer("kvBytes", 1);
  executor.max_batch = fields.integer("maxBatch", 1, 1 << 14);
  executor.max_batch_tokens = fields.integer("maxBatchTokens", 1, 1 << 20);
  executor.threads = static_cast<int>(fields.integer("threads", 1, 256));
  executor.compute = compute(fields);
  const Napi::Value progress = fields.get("progress");
  if (progress.IsBoolean() && progress.As<Napi::Boolean>()) executor.progress = say_progress;
  executor.model = model_descriptor(fields.fields("model"));
  options.engine = {executor.model.config,
                    executor.slots,
                    executor.max_rank,
                    executor.max_batch,
                    executor.max_batch_tokens,
                    fields.integer("maxWaiting", 0, 1 << 20),
                    fields.boolean("prefixCache")};
  return options;
}

GenerateRequest read_generate_request(const Napi::Value& value) {
  const Fields fields(value, "");
  GenerateRequest request;
  request.id = read_id(fields.get("id"));
  const Napi::Array prompt = fields.array("prompt", 1 << 24);
  request.prompt.reserve(prompt.Length());
  for (uint32_t i = 0; i < prompt.Length(); ++i) {
    const Napi::HandleScope scope(value.Env());
    request.prompt.push_back(token(prompt.Get(i), "prompt"));
  }
  request.target = target(fields.fields("target"));
  request.max_tokens = fields.integer("maxTokens", 0, 1 << 24);
  const Napi::Array stops = fields.array("stopTokens", 1 << 12);
  for (uint32_t i = 0; i < stops.Length(); ++i)
    request.stop_tokens.push_back(token(stops.Get(i), "stopTokens"));
  request.sampling = sampling_params(fields);
  request.logprobs = fields.integer("logprobs", -1, 1 << 10);
  request.prompt_logprobs = fields.integer("promptLogprobs", -1, 1 << 10);
  request.prompt_logprobs_from = fields.integer("promptLogprobsFrom", 1, 1 << 24);
  request.policy = policy(fields);
  request.cache_salt = cache_salt(fields);
  request.lora_scale = static_cast<float>(fields.number("loraScale", -1e6, 1e6));
  request.group = fields.integer("group", 0);
  return request;
}

StageRequest read_stage_request(const Napi::CallbackInfo& info) {
  StageRequest request;
  request.revision = read_name(info[0], "revision");
  const Napi::Array modules = array(info[2], "modules", 1024 * kModules);
  for (uint32_t i = 0; i < modules.Length(); ++i) {
    const Napi::HandleScope scope(info.Env());
    const Fields fields(modules.Get(i), "modules[" + std::to_string(i) + "]");
    const Fields a = fields.fields("a"), b = fields.fields("b");
    request.modules.push_back({fields.integer("layer", 0, 1024), module(fields),
                               fields.integer("rank", 1, 1024),
                               static_cast<float>(fields.number("scale", -1e30, 1e30)),
                               a.integer("offset", 0), b.integer("offset", 0), dtype(a), dtype(b)});
  }
  request.body = body(info[1]);  // last: whatever is read from an object may run code that takes it away
  return request;
}

Napi::Value error_object(Napi::Env env, const EngineError& error) {
  const Napi::Object object = Napi::Error::New(env, error.what()).Value();
  object.Set("code", name_of(error.code()));
  if (!error.field.empty()) object.Set("field", error.field);
  if (error.module) object.Set("module", *error.module);
  if (error.factor != 0) object.Set("factor", std::string(1, error.factor));
  return object;
}

}  // namespace lorikeet
