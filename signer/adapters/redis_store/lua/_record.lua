-- What every script about records begins with: the tables of moves, which scripts.py fills in from
-- signer.domain.lifecycle, the clock, and how a record is read.
--
-- Instants are microseconds of Unix time by Redis's clock. Leases follow no other clock, and it may be set.
-- An absent field and an empty field both mean: none.

local MOVES = {@MOVES@}
local FINAL = {@FINAL@}
local DAY = 86400000000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- Returns the record of a key, nil if there is none or it cannot be read; and whether it is damaged: it is not a hash, or
-- a field that the scripts need is missing or malformed. A state that no table has is a newer release's. Any release
-- would have settled the record soon after its deadline: a day after it, such a state is damage, too.
local function read(key)
  local v = redis.pcall('HMGET', key, 'state', 'fence', 'leased_until', 'due_at', 'expires_at', 'forward', 'attempts',
    'first_attempt_at', 'token', 'message_hash', 'customer_id', 'updated_at')
  if v.err then
    if v.err:find('WRONGTYPE', 1, true) then
      return nil, true
    end
    redis.call('HMGET', key, 'state') -- raises the same error
  end
  local exists, damaged = false, false
  for _, value in ipairs(v) do
    exists = exists or value
  end
  if not exists then
    return nil, redis.pcall('GET', key) ~= false -- an error, if there is a hash without these fields
  end
  local function number(text, is_optional)
    local is_number = text and #text <= 16 and text:find('^%d+$')
    damaged = damaged or not (is_number or is_optional and (text or '') == '')
    return is_number and tonumber(text) or nil
  end
  local record = {
    state = v[1] or '',
    fence = number(v[2]),
    leased_until = number(v[3], true) or 0,
    due_at = number(v[4], true) or 0,
    expires_at = number(v[5]),
    forward = v[6] == '1',
    attempts = number(v[7]),
    first_attempt_at = number(v[8], true),
    token = v[9],
    message_hash = v[10],
    customer_id = v[11],
    updated_at = number(v[12]),
  }
  damaged = damaged or v[6] ~= '0' and v[6] ~= '1'
  if not damaged and not FINAL[record.state] and not MOVES[record.state .. '>expired'] then
    damaged = not record.state:find('^[a-z_]+$') or now > record.expires_at + DAY
  end
  return record, damaged
end

