-- What every script that moves a record begins with, after _record.lua.
--
-- KEYS[1]  the record, a hash             ARGV[1]  the challenge's id
-- KEYS[2]  the index of its shard: ids,   ARGV[2]  the token of this call. A call whose response was lost is repeated with
--          scored by when each one is              the same token and gets the same result.
--          next due
--
-- A script returns its outcome, the current instant, and the record's fields in the order of FIELDS. If `read` finds the
-- record damaged, all scripts but end_damaged.lua return `damaged` and change nothing: scripts.py appends this check.

local LONGEST_FIELD = 131072 -- the service writes no field of this length, and sending one would delay other calls
local id, token = ARGV[1], ARGV[2]
local record, is_damaged = read(KEYS[1])

local function result(outcome)
  local fields = redis.call('HMGET', KEYS[1], @FIELDS@)
  for _, value in ipairs(fields) do
    if value and #value > LONGEST_FIELD then
      return {'damaged', now}
    end
  end
  return {outcome, now, fields}
end

-- Returns the result of a call that does not apply to this record. A record that is gone or final leaves the index.
local function not_applicable()
  if not record or FINAL[record.state] then
    redis.call('ZREM', KEYS[2], id)
  end
  return {'not_applicable', now}
end

local function is_repeat()
  return record and record.token == token
end

-- Whether the lease or the pause that the record's last move set is still running. If more than twice its length is left,
-- the clock was set back, and it counts as ended. That is safe, because the fencing token shuts its holder out.
local function is_pending(ends)
  return ends > now and ends - now <= 2 * (ends - record.updated_at)
end

local function is_leased()
  return is_pending(record.leased_until)
end

-- Whether the record may be POSTed now: before its deadline, and while the card API remembers the Idempotency-Key.
local function is_deliverable(key_memory)
  local first = record.first_attempt_at
  return now < record.expires_at and (not first or now < first + key_memory)
end

-- Returns why the holder of the lease `fence` must not move the record from `source` to `target`; nil if it may.
-- A holder whose lease has ended may still move the record until another replica takes it over, which changes the
-- fencing token. Only a state that needs a lease may follow itself in MOVES.
local function why_not(fence, source, target)
  if not record or record.fence ~= tonumber(fence) or not MOVES[record.state .. '>' .. record.state] then
    return 'lease_lost'
  end
  if record.state ~= source or not MOVES[source .. '>' .. target] then
    return 'forbidden'
  end
end

-- Writes one move. `due` is when the record is next due; nil removes it from the index. The order matters: if the index is
-- damaged, ZADD fails before the record is written, and ZREM after a final state is written.
local function move(state, due, ...)
  if due then
    redis.call('ZADD', KEYS[2], due, id)
  end
  redis.call('HSET', KEYS[1], 'state', state, 'token', token, 'updated_at', now, ...)
  if not due then
    redis.call('HDEL', KEYS[1], 'submission')
    redis.call('ZREM', KEYS[2], id)
  end
end

