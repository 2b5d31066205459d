-- Names what is due in one shard, the longest overdue first; behind it what would be due later than anything can be, for
-- the clock has been set back since.
-- KEYS[1] the shard's index    ARGV  1 how many at most  2 the longest that anything waits (µs)

local most = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, most)
if #due < most then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now + ARGV[2], '+inf', 'LIMIT', 0, most - #due)) do
    due[#due + 1] = id
  end
end
return due
