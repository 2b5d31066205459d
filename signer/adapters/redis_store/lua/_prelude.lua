-- What every move begins with. scripts.py puts this text in front of each script, and fills in the tables from
-- signer.domain.lifecycle, so that there is one table of moves.
--
-- KEYS[1]  the record, a hash            ARGV[1]  the challenge's id
-- KEYS[2]  its shard's index, a sorted   ARGV[2]  the token of this call; a call whose answer was lost is repeated with
--          set of ids, scored by when             the same one, and is given the same answer
--          each next needs attention
--
-- Instants are microseconds of Unix time by Redis's own clock, which is the only clock that leases live by. It may be set.
-- An absent field and an empty one both mean: none.
-- A script answers with its outcome, the present instant, and the record's fields in the order of FIELDS.

local MOVES = {@MOVES@}
local FINAL = {@FINAL@}
local id, token = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function read()
  local v = redis.call('HMGET', KEYS[1], 'state', 'fence', 'leased_until', 'due_at', 'expires_at', 'forward', 'attempts',
    'first_attempt_at', 'token', 'message_hash', 'customer_id', 'updated_at')
  if not v[1] then
    return nil
  end
  return {
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
end

local record = read()

local function answer(outcome)
  return {outcome, now, redis.call('HMGET', KEYS[1], @FIELDS@)}
end

-- Ends a call that has nothing to do with this record. What is gone or final has no place in the index.
local function nothing()
  if not record or FINAL[record.state] then
    redis.call('ZREM', KEYS[2], id)
  end
  return {'nothing', now}
end

local function repeated()
  return record and record.token == token
end

-- Whether a lease, or a pause, that the record's last move gave still has to end. None outlasts twice its length: one that
-- would was given before the clock was set back. Ending it early is safe, for the fence shuts its holder out.
local function pending(ends)
  return ends > now and ends - now <= 2 * (ends - record.updated_at)
end

local function leased()
  return pending(record.leased_until)
end

-- Whether the record may be POSTed now: before its deadline, and while the card API remembers the Idempotency-Key.
local function deliverable(key_memory)
  local first = record.first_attempt_at
  return now < record.expires_at and (not first or now < first + key_memory)
end

-- Tells why the holder of the lease numbered `fence` may not move the record from `source` to `target`; nil where it may.
-- A lease that has ended is still its holder's until somebody takes the record over, for that changes the fence.
local function refusal(fence, source, target)
  if not record or record.fence ~= tonumber(fence) or not MOVES[record.state .. '>' .. record.state] then
    return 'lease_lost'
  end
  if record.state ~= source or not MOVES[source .. '>' .. target] then
    return 'forbidden'
  end
end

-- Writes one move. `attention` is when the record next needs somebody; nil takes it out of the index.
local function move(state, attention, ...)
  redis.call('HSET', KEYS[1], 'state', state, 'token', token, 'updated_at', now, ...)
  if attention then
    redis.call('ZADD', KEYS[2], attention, id)
  else
    redis.call('ZREM', KEYS[2], id)
    redis.call('HDEL', KEYS[1], 'submission')
  end
end

