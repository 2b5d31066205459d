-- Returns how many members it removed that cannot be ids of this shard, and the ids that are due there: the longest overdue
-- first, then those that are due later than any can be, because the clock was set back since.
-- KEYS[1] the shard's index    ARGV  1 limit  2 the longest time until any id is due (µs)  3 how many due ids to pass over

local limit = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local shard = KEYS[1]:match('{s(%x%x)}:unsettled$')
local removed, due = 0, {}

local function collect(from, to, offset)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], from, to, 'LIMIT', offset, limit - removed - #due)) do
    if #id == 34 and id:sub(1, 2) == shard and not id:find('[^0-9a-f]') then
      due[#due + 1] = id
    else
      redis.call('ZREM', KEYS[1], id)
      removed = removed + 1
    end
  end
end

collect('-inf', now, ARGV[3])
if removed + #due < limit then
  collect(now + ARGV[2], '+inf', 0)
end
return {removed, due}
