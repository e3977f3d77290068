#include "engine_handle.h"

#include "arguments.h"
#include "event_objects.h"
#include "executor/backends.h"

namespace lorikeet {
namespace {

// Runs a method's body; engine errors become JavaScript errors with their code.
template <typename Body>
auto guarded(Napi::Env env, Body body) {
  try {
    return body();
  } catch (const EngineError& error) {
    throw Napi::Error(env, error_object(env, error));
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Napi::Error(env, error_object(env, EngineError(ErrorCode::kEngineFailed, error.what())));
  }
}

}  // namespace

Napi::Function EngineHandle::define(Napi::Env env) {
  return DefineClass(
      env, "Engine",
      {InstanceMethod<&EngineHandle::stage>("stage"), InstanceMethod<&EngineHandle::activate>("activate"),
       InstanceMethod<&EngineHandle::deactivate>("deactivate"),
       InstanceMethod<&EngineHandle::release>("release"), InstanceMethod<&EngineHandle::submit>("submit"),
       InstanceMethod<&EngineHandle::reset_prefix_cache>("resetPrefixCache"),
       InstanceMethod<&EngineHandle::cancel>("cancel"), InstanceMethod<&EngineHandle::snapshot>("snapshot"),
       InstanceMethod<&EngineHandle::close>("close")});
}

EngineHandle::EngineHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  const Napi::Env env = info.Env();
  guarded(env, [&] {
    if (!info[1].IsFunction()) throw EngineError::invalid("onEvents", "Expected a function for onEvents");
    const OpenOptions options = read_open_options(info[0]);
    outbox_ = Outbox::create(info[1].As<Napi::Function>());
    outbox_->receive_with({[this](Napi::Env e, Settlement& settlement) { settle(e, settlement); },
                           [this](Napi::Env e, Napi::Function on_events, std::vector<Event>& events) {
                             deliver(e, on_events, events);
                           },
                           [this](Napi::Env e) { finish_close(e); }});
    try {
      engine_ = std::make_unique<Engine>(
          options.engine, open_executor(options.backend, options.executor),
          [outbox = outbox_](std::vector<Event> events) { outbox->add(std::move(events)); });
    } catch (...) {
      outbox_->close(false);
      throw;
    }
    info.This().As<Napi::Object>().DefineProperty(
        Napi::PropertyDescriptor::Value("info", info_object(env, engine_->info()), napi_enumerable));
  });
  // After the thread-safe function's own hook, so it runs before it.
  napi_add_env_cleanup_hook(env, at_environment_end, this);
}

EngineHandle::~EngineHandle() {
  if (!engine_) return;
  napi_remove_env_cleanup_hook(Env(), at_environment_end, this);
  stop(false);
}

void EngineHandle::at_environment_end(void* handle) { static_cast<EngineHandle*>(handle)->stop(true); }

void EngineHandle::stop(bool environment_ends) {
  outbox_->close(environment_ends);
  if (closed_) return;
  closed_ = true;
  if (!closing_) engine_->close([] {});
  closing_ = true;
  engine_->join();
}

void EngineHandle::require_open() const {
  if (closing_) throw EngineError(ErrorCode::kClosing, "The engine is closed");
}

// A promise that `work` settles or, where it throws, that is rejected.
template <typename Work>
Napi::Value EngineHandle::promise(Napi::Env env, Work work) {
  const auto deferred = Napi::Promise::Deferred::New(env);
  try {
    require_open();
    work(deferred);
  } catch (const EngineError& error) {
    deferred.Reject(error_object(env, error));
  } catch (const Napi::Error& error) {
    deferred.Reject(error.Value());
  } catch (const std::exception& error) {
    deferred.Reject(error_object(env, EngineError(ErrorCode::kEngineFailed, error.what())));
  }
  update_keep_alive(env);
  return deferred.Promise();
}

Napi::Value EngineHandle::stage(const Napi::CallbackInfo& info) {
  return promise(info.Env(), [&](const Napi::Promise::Deferred& deferred) {
    StageRequest request = read_stage_request(info);
    Staged staged{deferred, Napi::Reference<Napi::Value>::New(info[1], 1)};
    const uint64_t id = ++next_stage_;
    engine_->stage(std::move(request), [outbox = outbox_, id](StageOutcome outcome) {
      outbox->add(Settlement{id, std::move(outcome)});
    });
    stages_.emplace(id, std::move(staged));
  });
}

Napi::Value EngineHandle::activate(const Napi::CallbackInfo& info) {
  return promise(info.Env(), [&](const Napi::Promise::Deferred& deferred) {
    const Switched switched = engine_->activate(read_name(info[0], "adapter"), read_name(info[1], "revision"),
                                                read_boolean(info[2], "migrates"));
    deferred.Resolve(switched_object(info.Env(), switched));
  });
}

Napi::Value EngineHandle::deactivate(const Napi::CallbackInfo& info) {
  return promise(info.Env(), [&](const Napi::Promise::Deferred& deferred) {
    deferred.Resolve(switched_object(info.Env(), engine_->deactivate(read_name(info[0], "adapter"))));
  });
}

Napi::Value EngineHandle::release(const Napi::CallbackInfo& info) {
  return promise(info.Env(), [&](const Napi::Promise::Deferred& deferred) {
    const int64_t leases = engine_->release(read_name(info[0], "revision"));
    const Napi::Object object = Napi::Object::New(info.Env());
    object.Set("leases", static_cast<double>(leases));
    deferred.Resolve(object);
  });
}

void EngineHandle::submit(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] {
    require_open();
    GenerateRequest request = read_generate_request(info[0]);
    const int64_t id = request.id;
    if (live_.contains(id)) {
      throw EngineError::invalid(
          "id", "Expected an id that no live request has but received " + std::to_string(id));
    }
    engine_->submit(std::move(request));
    live_.insert(id);
  });
  update_keep_alive(info.Env());
}

void EngineHandle::reset_prefix_cache(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] {
    require_open();
    engine_->reset_prefix_cache();
  });
}

void EngineHandle::cancel(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] {
    require_open();
    engine_->cancel(read_id(info[0]));
  });
}

Napi::Value EngineHandle::snapshot(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    require_open();
    return snapshot_object(info.Env(), engine_->snapshot());
  });
}

Napi::Value EngineHandle::close(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto deferred = Napi::Promise::Deferred::New(env);
  if (closed_) {
    deferred.Resolve(env.Undefined());
    return deferred.Promise();
  }
  closers_.push_back(deferred);
  if (!closing_) {
    closing_ = true;
    engine_->close([outbox = outbox_] { outbox->finish(); });
    update_keep_alive(env);
  }
  return deferred.Promise();
}

void EngineHandle::settle(Napi::Env env, Settlement& settlement) {
  const auto found = stages_.extract(settlement.stage);
  const Napi::Promise::Deferred& deferred = found.mapped().deferred;
  if (const auto* report = std::get_if<StageReport>(&settlement.outcome)) {
    deferred.Resolve(report_object(env, *report));
  } else {
    deferred.Reject(error_object(env, std::get<EngineError>(settlement.outcome)));
  }
  update_keep_alive(env);
}

void EngineHandle::deliver(Napi::Env env, Napi::Function on_events, std::vector<Event>& events) {
  const Napi::Array batch = Napi::Array::New(env, events.size());
  for (size_t i = 0; i < events.size(); ++i) {
    const Napi::HandleScope scope(env);
    const Event& event = events[i];
    batch.Set(static_cast<uint32_t>(i), event_object(env, event));
    if (std::holds_alternative<Finished>(event.what) || std::holds_alternative<Failed>(event.what)) {
      live_.erase(event.id);
    }
  }
  update_keep_alive(env);
  try {
    on_events.Call({batch});
  } catch (const Napi::Error& error) {
    // Node would only warn of what a thread-safe function throws, and what else is to be told would be lost.
    napi_fatal_exception(env, error.Value());
  }
}

void EngineHandle::finish_close(Napi::Env env) {
  stop(false);
  for (const Napi::Promise::Deferred& closer : closers_) closer.Resolve(env.Undefined());
  closers_.clear();
  update_keep_alive(env);
}

// While there is work, neither the process ends nor is this object collected.
void EngineHandle::update_keep_alive(Napi::Env env) {
  const bool busy = !live_.empty() || !stages_.empty() || (closing_ && !closed_);
  if (busy == kept_alive_) return;
  kept_alive_ = busy;
  outbox_->keep_alive(env, busy);
  if (busy) {
    Ref();
  } else {
    Unref();
  }
}

}  // namespace lorikeet
