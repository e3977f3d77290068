-- Argo CD's health of a LoraAdapter: Suspended is what waits for somebody on purpose, Degraded what cannot go on by itself.
local suspended = { Suspended = true, WaitingForPush = true, NoReplicas = true }
local status = obj.status or {}
local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end
local ready = found.Ready
if ready == nil then
  return { status = "Progressing", message = "The operator has not looked at it yet" }
end
if ready.status == "True" and ready.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "The operator has not looked at this generation yet" }
end
if suspended[ready.reason] then
  return { status = "Suspended", message = ready.message }
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
if found.Stalled ~= nil and found.Stalled.status == "True" and status.observedGeneration == obj.metadata.generation then
  return { status = "Degraded", message = found.Stalled.message }
end
return { status = "Progressing", message = ready.message }
