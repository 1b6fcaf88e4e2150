#!lua
-- Publishes the line document of a queue, or returns the one that another instance published from a
-- later snapshot. The version rises with every change, also after a loss of Redis, because it is at
-- least the time. The rate of admissions is measured over windows of five seconds.
--
-- KEYS: epoch q:settings q:line
-- ARGV: epoch, when the snapshot was taken, when the bounds of its markers were read, how many
--   users the queue has admitted, the document without version, time and rate
-- Reply: {version, at, rate, document}, or NOT_PUBLISHED. at: when the snapshot of this version
--   was taken. rate: admissions per second with one decimal. document: empty if it is that of the
--   call
--
-- uses: constants guard
local WINDOW_MS = 5000
local stored = redis.call('HMGET', line, 'version', 'at', 'rate', 'document', 'taken_at',
  'markers_at', 'since', 'admitted')
if redis.call('HLEN', settings) == 0 then
  return NOT_PUBLISHED
end
local version, at, rate, document = stored[1], stored[2], stored[3], stored[4]
local taken_at, markers_at = tonumber(ARGV[2]), tonumber(ARGV[3])
local last_taken_at = tonumber(stored[5] or '')
-- A document of the future is one from before Redis' clock went back.
if last_taken_at and last_taken_at <= now
  and (taken_at <= last_taken_at or markers_at < tonumber(stored[6])) then
  return { version, at, rate, document == ARGV[5] and '' or document }
end
local since, admitted, total = tonumber(stored[7] or ''), tonumber(stored[8] or ''),
  tonumber(ARGV[4])
local elapsed = since and total >= admitted and taken_at - since or -1
if elapsed < 0 then
  rate, since, admitted = '0.0', taken_at, total
elseif elapsed >= WINDOW_MS then
  rate = string.format('%.1f', (total - admitted) * 1000 / elapsed)
  since, admitted = taken_at, total
end
if document ~= ARGV[5] or rate ~= stored[3] then
  version, at = text(math.max(tonumber(version or '0') + 1, now)), ARGV[2]
end
redis.call('HSET', line, 'version', version, 'at', at, 'rate', rate, 'document', ARGV[5],
  'taken_at', ARGV[2], 'markers_at', ARGV[3], 'since', text(since), 'admitted', text(admitted))
return { version, at, rate, '' }
