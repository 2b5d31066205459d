-- Returns how many junk members it removed from the index of one shard, and the ids that are due there: the longest
-- overdue first, then those that are due later than any can be, because the clock was set back since.
--
-- Junk is not an id of this shard, or has no unsettled record. A record in a newer release's state is left to that
-- release. At most MOST members are read, so junk delays the ids behind it by some rounds, and no other shard.
-- KEYS[1] the shard's index, whose name begins like those of the shard's records, which this script reads too
-- ARGV    1 limit  2 the longest time until any id is due (µs)

local MOST = 1000
local limit = tonumber(ARGV[1])
local tag, shard = KEYS[1]:match('^(.*{s(%x%x)}:)')
local due, dropped, read_count = {}, 0, 0

-- Returns whether a member is junk, and whether it can be moved.
local function judge(id)
  if #id ~= 34 or id:sub(1, 2) ~= shard or id:find('[^0-9a-f]') then
    return true
  end
  local record, damaged = read(tag .. 'challenge:' .. id:sub(3))
  if damaged then
    return false, true
  end
  return not record or FINAL[record.state], record and MOVES[record.state .. '>expired']
end

local function collect(from, to)
  local offset = 0
  while #due < limit and read_count < MOST do
    local ids = redis.call('ZRANGEBYSCORE', KEYS[1], from, to, 'LIMIT', offset, math.min(limit, MOST - read_count))
    if #ids == 0 then
      return
    end
    read_count = read_count + #ids
    for _, id in ipairs(ids) do
      local is_junk, is_movable = judge(id)
      if is_junk then
        redis.call('ZREM', KEYS[1], id)
        dropped = dropped + 1
      else
        offset = offset + 1
      end
      if not is_junk and is_movable and #due < limit then
        due[#due + 1] = id
      end
    end
  end
end

collect('-inf', now)
collect(now + ARGV[2], '+inf')
return {dropped, due}
