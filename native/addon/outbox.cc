#include "outbox.h"

#include <utility>

namespace lorikeet {

std::shared_ptr<Outbox> Outbox::create(const Napi::Function& on_events) {
  auto outbox = std::make_shared<Outbox>();
  auto* held = new std::shared_ptr<Outbox>(outbox);  // until the thread-safe function is gone
  outbox->signal_ = Signal::New(
      on_events.Env(), on_events, "lorikeet events", 0, 1, outbox.get(),
      [](Napi::Env, std::shared_ptr<Outbox>* kept, Outbox*) { delete kept; }, held);
  outbox->signal_.Unref(on_events.Env());
  return outbox;
}

// An engine with work under way keeps the process running, an idle one does not.
void Outbox::keep_alive(Napi::Env env, bool busy) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  if (busy) {
    signal_.Ref(env);
  } else {
    signal_.Unref(env);
  }
}

void Outbox::close(bool environment_ends) {
  const std::lock_guard lock(mutex_);
  if (std::exchange(closed_, true)) return;
  receiver_ = {};
  if (!environment_ends) signal_.Release();
}

void Outbox::notify() {
  if (std::exchange(notified_, true)) return;
  signal_.NonBlockingCall();
}

void Outbox::add(std::vector<Event> events) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  events_.insert(events_.end(), std::make_move_iterator(events.begin()),
                 std::make_move_iterator(events.end()));
  notify();
}

void Outbox::add(Settlement settlement) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  settlements_.push_back(std::move(settlement));
  notify();
}

void Outbox::finish() {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  finished_ = true;
  notify();
}

void Outbox::drain(Napi::Env env, Napi::Function on_events, Outbox* outbox, void*) {
  std::vector<Settlement> settlements;
  std::vector<Event> events;
  Receiver receiver;
  bool finishes = false;
  {
    const std::lock_guard lock(outbox->mutex_);
    outbox->notified_ = false;
    if (outbox->closed_ || env == nullptr) return;
    receiver = outbox->receiver_;
    settlements.swap(outbox->settlements_);
    events.swap(outbox->events_);
    finishes = outbox->finished_;
  }
  for (Settlement& settlement : settlements) receiver.settle(env, settlement);
  if (!events.empty()) receiver.deliver(env, on_events, events);
  if (finishes) receiver.finish(env);
}

}  // namespace lorikeet
