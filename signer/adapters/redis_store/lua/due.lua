-- Returns the ids that are due in one shard, the longest overdue first; then those that are due later than any can be,
-- because the clock was set back since.
-- KEYS[1] the shard's index    ARGV  1 limit  2 the longest time until any id is due (µs)

local limit = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, limit)
if #due < limit then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now + ARGV[2], '+inf', 'LIMIT', 0, limit - #due)) do
    due[#due + 1] = id
  end
end
return due
