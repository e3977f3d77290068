#include "staging.h"

namespace lorikeet {

std::optional<StageRequest> Staging::begin(StageRequest request, StageReply reply) {
  if (const std::optional<int> slot = slots_.find(request.revision);
      slot && !pending_.contains(request.revision)) {
    slots_.revive(*slot);
    reply(
        StageReport{*slot, slots_.pages_of(*slot), slots_.zero_effect(*slot), {}, 0, slots_.rounded(*slot)});
    return std::nullopt;
  }
  std::vector<StageReply>& replies = pending_[request.revision].replies;
  replies.push_back(std::move(reply));
  if (replies.size() > 1) return std::nullopt;
  return request;
}

std::optional<PackJob> Staging::inspected(Inspected inspected) {
  StageRequest& request = inspected.request;
  const std::string revision = request.revision;
  const auto pending = pending_.find(revision);
  if (pending == pending_.end()) return std::nullopt;  // closed meanwhile
  if (inspected.error || pending->second.released) {
    end(revision, inspected.error);
    return std::nullopt;
  }
  StageReport& report = pending->second.report;
  report.zero_effect = inspected.zero_effect;
  std::optional<SlotPool::Reservation> reserved = slots_.reserve(revision, request.modules);
  if (!reserved) {
    end(revision, std::nullopt);
    return std::nullopt;
  }
  report.slot = reserved->slot;
  report.pages = reserved->page_count;
  report.evicted = std::move(reserved->evicted);
  return PackJob{std::move(request), reserved->slot, std::move(reserved->pages)};
}

void Staging::packed(const Packed& packed) {
  const auto found = pending_.find(packed.revision);
  if (found == pending_.end()) return;  // closed meanwhile
  Pending& pending = found->second;
  pending.report.pack_ms = packed.pack_ms;
  pending.report.rounded = packed.rounded;
  const int slot = *pending.report.slot;
  if (pending.released || packed.error) {
    slots_.abandon(slot);
  } else {
    slots_.make_ready(slot, pending.report.zero_effect, pending.report.rounded);
  }
  end(packed.revision, packed.error);
}

bool Staging::release(const std::string& revision) {
  const auto found = pending_.find(revision);
  if (found == pending_.end()) return false;
  found->second.released = true;
  return true;
}

void Staging::close(const EngineError& error) {
  while (!pending_.empty()) end(std::string(pending_.begin()->first), error);
}

void Staging::end(const std::string& revision, std::optional<EngineError> error) {
  const Pending pending = std::move(pending_.extract(revision).mapped());
  if (pending.released && !error) {
    error = EngineError(ErrorCode::kRevisionNotFound,
                        "Revision " + revision + " was released while it was staged");
  }
  for (const StageReply& reply : pending.replies) {
    if (error) {
      reply(*error);
    } else {
      reply(pending.report);
    }
  }
}

}  // namespace lorikeet
