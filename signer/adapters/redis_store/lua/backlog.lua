-- Returns how many ids the index of one shard has, at most ARGV[1], and the age (µs) of the oldest record among the first ARGV[2]
-- of them whose delivery is requested, 0 if there is none. A record that is missing here, because its slot moves, does not count.
-- KEYS[1] the shard's index    ARGV  1, 2 see above

local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'LIMIT', 0, ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local oldest = now
for number = 1, math.min(#ids, tonumber(ARGV[2])) do
  local key = KEYS[1]:sub(1, -1 - #'unsettled') .. 'challenge:' .. ids[number]:sub(3)
  local record = redis.pcall('HMGET', key, 'created_at', 'forward')
  local created_at = not record.err and record[2] == '1' and tonumber(record[1])
  if created_at then
    oldest = math.min(oldest, created_at)
  end
end
return {#ids, now - oldest}
