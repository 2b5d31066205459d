-- Removes ids without an unsettled record from the index of one shard. Returns how many, and which of the others can be moved:
-- not those in a state of a newer release. A record is not looked for in due.lua, because it has to be among KEYS: while a slot
-- moves to another node, a key that is missing here may be there, and only for KEYS the server refuses the script (TRYAGAIN).
-- KEYS[1] the shard's index  KEYS[2…] the records    ARGV  their ids

local removed, movable = 0, {}
for number, id in ipairs(ARGV) do
  local record, is_damaged = read(KEYS[number + 1])
  if not is_damaged and (not record or FINAL[record.state]) then
    redis.call('ZREM', KEYS[1], id)
    removed = removed + 1
  elseif is_damaged or MOVES[record.state .. '>expired'] then
    movable[#movable + 1] = id
  end
end
return {removed, movable}
