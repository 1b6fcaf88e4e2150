-- Collects events and appends them as one outbox entry, numbered by the sequence of the
-- partition. The two reads at the top fail on keys of a wrong type while nothing is written yet.
-- Gives: emit(kind, body), publish(), entry_n (the number that the entry gets).
local entry_n = tonumber(redis.call('GET', seq) or '0') + 1
redis.call('XLEN', outbox)
local events = {}
local function emit(kind, body)
  events[#events + 1] = { kind, body }
end
local function publish()
  if #events > 0 then
    local n = redis.call('INCR', seq)
    redis.call('XADD', outbox, text(n) .. '-0', 'v1', cmsgpack.pack(events))
  end
end
