-- What every script that moves a record begins with. scripts.py puts this text in front of each one and fills in the
-- tables from signer.domain.lifecycle, so that there is only one table of moves.
--
-- KEYS[1]  the record, a hash             ARGV[1]  the challenge's id
-- KEYS[2]  the index of its shard: ids,   ARGV[2]  the token of this call. A call whose reply was lost is repeated with
--          scored by when each one is              the same token and gets the same result.
--          next due
--
-- Instants are microseconds of Unix time by Redis's clock. Leases follow no other clock, and it may be set.
-- An absent field and an empty field both mean: none.
-- A script returns its outcome, the current instant, and the record's fields in the order of FIELDS.

local MOVES = {@MOVES@}
local FINAL = {@FINAL@}
local id, token = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local v = redis.call('HMGET', KEYS[1], 'state', 'fence', 'leased_until', 'due_at', 'expires_at', 'forward', 'attempts',
  'first_attempt_at', 'token', 'message_hash', 'customer_id', 'updated_at')
local record = v[1] and {
  state = v[1],
  fence = tonumber(v[2]),
  leased_until = tonumber(v[3]) or 0,
  due_at = tonumber(v[4]) or 0,
  expires_at = tonumber(v[5]),
  forward = v[6] == '1',
  attempts = tonumber(v[7]),
  first_attempt_at = tonumber(v[8]),
  token = v[9],
  message_hash = v[10],
  customer_id = v[11],
  updated_at = tonumber(v[12]),
}

local function result(outcome)
  return {outcome, now, redis.call('HMGET', KEYS[1], @FIELDS@)}
end

-- Returns that the call does not apply to this record. A record that is gone or final is removed from the index.
local function not_applicable()
  if not record or FINAL[record.state] then
    redis.call('ZREM', KEYS[2], id)
  end
  return {'not_applicable', now}
end

local function is_repeat()
  return record and record.token == token
end

-- Whether a lease or a pause that the record's last move set has not ended. None lasts longer than twice its length: if it
-- would, the clock was set back since. Ending it early is safe, because the fencing token shuts its holder out.
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
-- An ended lease is still valid until another replica takes the record over, because that changes the fencing token.
local function refusal(fence, source, target)
  if not record or record.fence ~= tonumber(fence) or not MOVES[record.state .. '>' .. record.state] then
    return 'lease_lost'
  end
  if record.state ~= source or not MOVES[source .. '>' .. target] then
    return 'forbidden'
  end
end

-- Writes one move. `due` is when the record is next due; nil removes it from the index.
local function move(state, due, ...)
  redis.call('HSET', KEYS[1], 'state', state, 'token', token, 'updated_at', now, ...)
  if due then
    redis.call('ZADD', KEYS[2], due, id)
  else
    redis.call('ZREM', KEYS[2], id)
    redis.call('HDEL', KEYS[1], 'submission')
  end
end

