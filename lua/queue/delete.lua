#!lua
-- Deletes what Redis has of a deleted queue. UNLINK frees large keys in the background. A queue
-- whose settings are published exists again: nothing is deleted then.
--
-- KEYS: epoch busy q:settings q:active q:admitted q:waiting q:bucket q:concerts q:holds q:owners
--   q:bought q:sales q:due q:left q:used q:turnover q:heard q:line
-- ARGV: epoch, queue
-- Reply: how many keys existed
--
-- uses: constants guard
if redis.call('HLEN', settings) > 0 then
  return 0
end
redis.call('HDEL', busy, ARGV[2])
return redis.call('UNLINK', active, admitted, waiting, bucket, concerts, holds, owners, bought,
  sales, due, left, used, turnover, heard, line)
